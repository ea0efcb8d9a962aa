"""The scheduler `fifo`: llama-swap's rules, decision for decision."""

import heapq
from collections.abc import Iterator

from ringcast_router.planning.interface import Plan
from ringcast_router.scheduling.base import BaseScheduler, Blocker, NoPlan
from ringcast_router.scheduling.interface import Effect, Reject, Request
from ringcast_router.scheduling.servers import Server
from ringcast_router.scheduling.waiting import Rank, Waiter


class FifoScheduler(BaseScheduler):
    """Serves what is ready at once, and the rest in the order in which it came (or of the models' priorities).

    A request is placed by the first of these rules that holds:

    1. A swap to its model is under way: it joins, and the end of the swap answers it.
    2. A swap under way is in the way (one evicts what the other needs or evicts): it waits.
    3. A model that would have to go serves somebody: it waits.
    4. Its model is ready and nothing has to go: it is granted, whoever waits.
    5. Else the swap starts.

    Requests for one model so gather behind the first (ABCABC takes three loads), but nothing bounds a wait: a model
    that always has a request in flight never goes. `concurrencyLimit` counts those who wait too. `queue` of the
    configuration is for `fair` alone.

    One thing differs from llama-swap: an unload of a model whose swap is under way calls that swap off for good.
    """

    name = "fifo"

    def on_request(self, request: Request, now: float) -> list[Effect]:
        """A request arrived."""
        if self._refuse(request):
            return self._done()
        server = self._servers[request.model]
        if self._is_full(server):
            limit = self._config.models[request.model].limit
            message = f"{request.model} takes {limit} requests, waiting or in flight (concurrencyLimit)"
            self._effects.append(Reject(request, 429, "concurrency_limit", message, 1.0))
            return self._done()
        self._measures.asked(request.model, now)
        self._new_pass(now)
        waiter, server = self._enter(request)
        try:
            if not self._try(waiter, server, now):
                server.queue.add(waiter)
        except NoPlan as failure:
            server.queue.add(waiter)
            self._give_up(failure)
        return self._done()

    def _outlook(self, server: Server, now: float) -> tuple[str, Plan, list[Blocker]]:
        if self._is_full(server):
            return "refuse", Plan(), []
        return super()._outlook(server, now)

    def _is_full(self, server: Server) -> bool:
        return server.in_flight + self.waiting(server.id) >= self._config.models[server.id].limit

    def _place_all(self, now: float) -> None:
        """Go through the queue once, in its order. What a swap that starts changes holds for those after it."""
        self._new_pass(now)
        heap: list[tuple[Rank, str]] = []
        blocked: list[Server] = []  # as long as no swap starts, the others of these models are blocked too
        for server in self._servers.values():
            server.held_up = False
            if (first := server.queue.first()) is not None:
                heap.append((first.rank, server.id))
        heapq.heapify(heap)
        while heap:
            rank, model = heapq.heappop(heap)
            server = self._servers[model]
            waiter = server.queue.after((rank[0], rank[1] - 1))
            assert waiter is not None
            swaps = len(self._swaps)
            if not self._try(waiter, server, now):
                blocked.append(server)
                continue
            server.queue.remove(waiter)
            again = [server]
            if len(self._swaps) > swaps:
                again += blocked
                blocked.clear()
            for server in again:
                if (following := server.queue.after(rank)) is not None:
                    heapq.heappush(heap, (following.rank, server.id))

    def _try(self, waiter: Waiter, server: Server, now: float) -> bool:
        """Place a waiter that is in no queue, or that the caller will take out; return whether it was placed."""
        if server.swap is None:
            if (blocker := next(self._blockers(server, now, waiter.seq), None)) is not None:
                server.held_up |= blocker.reason == "stopping"
                return False
            if server.is_ready and not self._plan(server).evict:
                self._grant(waiter, server)
                return True
            self._start(server, waiter, now)
        if waiter.request is None:
            self._strike(waiter, server)
        elif server.swap is not None:
            server.swap.joined.append(waiter)
        return True

    def _blockers(self, server: Server, now: float, seq: int) -> Iterator[Blocker]:
        plan = self._plan(server)
        for swap in self._swaps.values():
            if swap.model in plan.evict or server.id in swap.evict or not set(plan.evict).isdisjoint(swap.evict):
                yield Blocker(swap.model, "collision")
        for model in plan.evict:
            if self._servers[model].in_flight:
                yield Blocker(model, "inflight")
        if server.leaving or server.draining:
            yield Blocker(server.id, "stopping")

    def _reported(self, server: Server, now: float) -> None:
        """llama-swap does not look at the queue when a server stops by itself; who waited for just that is placed."""
        if server.held_up and not server.leaving and not server.draining:
            self._place(now)

    def _loaded(self, server: Server, joined: list[Waiter], now: float) -> None:
        for waiter in joined:
            self._grant(waiter, server)

    def _failed(self, server: Server, joined: list[Waiter], error: str, now: float) -> None:
        for waiter in joined:
            self._reject(waiter, server, 500, "start_failed", f"{server.id} did not start: {error}")

    def _priority(self, request: Request) -> int:
        return self._config.fifo_priority.get(request.model, 0) + request.priority
