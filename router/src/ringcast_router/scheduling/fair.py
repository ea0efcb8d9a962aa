"""The scheduler `fair`: gathers as `fifo` does, and bounds every wait."""

import math
from collections.abc import Iterator

from ringcast_router.planning.interface import Plan
from ringcast_router.scheduling.base import BaseScheduler, Blocker
from ringcast_router.scheduling.interface import Effect, Reject, Request
from ringcast_router.scheduling.servers import Server
from ringcast_router.scheduling.waiting import Waiter

LONGEST_BACK_OFF = 300.0
NO_PLAN = Plan()


class FairScheduler(BaseScheduler):
    """Serves what is ready, until somebody has waited too long; then it closes the gate of what stands in the way.

    A request is *overdue* when it has waited for `max_wait`. Overdue requests go first, by age; then priority, then
    age. After each event all is looked at anew, so nothing about gates is stored. The models for which somebody waits
    take turns in the order of their first waiter:

    * Ready: its waiters are granted up to the model's limit, the *batch* first: those who waited when it became ready.
      The *gate* is closed to who is neither in the batch nor older than an overdue request whose swap would evict
      this model, once the model has been ready for its `residence`.
    * Not ready: its swap starts, unless
        - a swap under way evicts it, or is to a model that it would evict (collision);
        - what it would evict has requests in flight, an ungranted batch, or *lingers* after its last request;
        - an older overdue request has *reserved* the room: the two swaps would be in each other's way.

    A request that is neither cancelled nor refused waits at most `max_wait + (k+1)*V + S + L + S*ceil((1+a)/c)` with
    `V = S + L + max(R + linger, S*ceil(b/c))`. S is the longest request, L the longest swap, R the longest residence, c
    the limit. When the request becomes overdue, k other models have an older waiter, and its own model has `a` older
    ones; b is the largest batch or, where they are more, the older ones of another model. Requests that never end have
    no bound.
    """

    name = "fair"

    # Set by each pass: the servers whose oldest waiter is overdue, by its age; which of these close whose gates.
    _heads: list[tuple[int, Server]]
    _gates: dict[str, tuple[int, str]] | None
    _linger_ends: float | None = None

    def on_request(self, request: Request, now: float) -> list[Effect]:
        """A request arrived."""
        if self._refuse(request):
            return self._done()
        server = self._servers[request.model]
        if now < server.retry_at:
            left = server.retry_at - now
            message = f"{server.id} did not start; the next try is in {left:.0f} s: {server.error}"
            self._effects.append(Reject(request, 503, "backoff", message, math.ceil(left)))
            return self._done()
        if not self._waiters and self._linger_ends is None and not self._loads and self._has_place(server):
            # the usual case, in short: nobody waits who could be passed, or for whom time would do something
            self._measures.asked(request.model, now)
            self._grant(Waiter(next(self._seqs), request.arrival, 0, request), server)
            return self._done()
        self._new_pass(now)
        queue = self._config.queue
        if (
            self._full(server)
            and not self._planned(lambda: self._serves_at_once(server, now), now)
            and (full := self._full(server))
        ):
            message = f"{full} requests wait already ({'queue.limit' if full == queue.limit else 'queue.total'})"
            after = max(1.0, math.ceil(self._measures.load_time.get(server.id, 1.0)))
            self._effects.append(Reject(request, 429, "queue_full", message, after))
            return self._done()
        self._measures.asked(request.model, now)
        waiter, _ = self._enter(request)
        server.queue.add(waiter)
        if len(server.queue) == 1 or not self._by_running:  # behind others it waits for what they wait for
            self._place(now)
        return self._done()

    def on_cancel(self, request_id: int, now: float) -> list[Effect]:
        """The client of a request that was not granted has gone. It may have been what kept others waiting."""
        super().on_cancel(request_id, now)
        self._place(now)
        return self._done()

    def on_tick(self, now: float) -> list[Effect]:
        """The time of `wake_at` has come. At other times nothing changes."""
        timeout = self._config.queue.timeout
        if timeout:
            for server in self._servers.values():
                while (oldest := server.queue.oldest()) is not None and oldest.arrival + timeout <= now:
                    server.queue.remove(oldest)
                    message = f"the request waited for {timeout:g} s (queue.timeout)"
                    after = max(1.0, math.ceil(self._measures.load_time.get(server.id, 1.0)))
                    self._reject(oldest, server, 503, "queue_timeout", message, after)
        if not self._closing:
            self._place(now)
        return self._done()

    def wake_at(self) -> float | None:
        """Return when the next wait times out, or an idle model stops lingering that somebody waits to see go."""
        if self._closing or not (self._waiters or self._loads):
            return None
        times = [] if self._linger_ends is None else [self._linger_ends]
        if timeout := self._config.queue.timeout:
            times += [w.arrival + timeout for s in self._servers.values() if (w := s.queue.oldest()) is not None]
        return min(times, default=None)

    def position(self, request_id: int) -> int:
        """Return the place in the queue of a waiting request, from 1; 0 where it waits for a load under way, or not."""
        found = self._waiters.get(request_id)
        if found is None or found[1].swap is not None:
            return 0
        due = self._now - self._config.fair.max_wait
        queues = (server.queue for server in self._servers.values() if server.swap is None)
        return 1 + sum(queue.ahead(found[0], due) for queue in queues)

    def _place_all(self, now: float) -> None:
        while self._pass(now):
            pass

    def _pass(self, now: float) -> bool:
        """Look at all models once; return whether a swap started, after which all must be looked at again."""
        self._new_pass(now)
        self._linger_ends = None
        for server in self._in_order(now):
            if server.swap is not None:
                continue
            if server.is_ready:
                self._serve(server, now)
                continue
            oldest = server.queue.oldest()
            assert oldest is not None
            blocker = next(self._blockers(server, now, oldest.seq), None)
            if blocker is None:
                self._start(server, self._first(server, now) or oldest, now)
                return True
            if blocker.until is not None:
                self._linger_ends = min(blocker.until, self._linger_ends or blocker.until)
        return False

    def _new_pass(self, now: float) -> None:
        super()._new_pass(now)
        due = now - self._config.fair.max_wait
        self._heads = []
        self._gates = None
        for server in self._servers.values():
            if len(server.queue) and server.swap is None:
                oldest = server.queue.oldest()
                if oldest is not None and oldest.arrival <= due:
                    self._heads.append((oldest.seq, server))
        self._heads.sort(key=lambda head: head[0])

    def _in_order(self, now: float) -> list[Server]:
        """Return the servers that somebody waits for, in the order of their first waiters."""
        overdue = {server.id for _, server in self._heads}
        rest = []
        for server in self._servers.values():
            if server.id not in overdue and (first := server.queue.first()) is not None:
                load = self._measures.load_time.get(server.id, 0.0)
                rest.append((-first.priority, first.arrival, load, first.seq, server))
        rest.sort(key=lambda entry: entry[:4])
        return [server for _, server in self._heads] + [entry[4] for entry in rest]

    def _first(self, server: Server, now: float) -> Waiter | None:
        """Return who goes first among those who wait for a model: the oldest when it is overdue, else by rank."""
        oldest = server.queue.oldest()
        if oldest is not None and oldest.arrival <= now - self._config.fair.max_wait:
            return oldest
        return server.queue.first()

    def _serve(self, server: Server, now: float) -> None:
        """Grant those who wait for a ready model, as many as its limit and its gate allow."""
        limit = self._config.models[server.id].limit
        while server.in_flight < limit and len(server.queue):
            waiter: Waiter | None
            if server.batch:
                waiter = next(iter(server.batch.values()))
            else:
                waiter = self._first(server, now)
                oldest = server.queue.oldest()
                gate = self._gate(server, now)
                if gate is not None and oldest is not None:
                    if oldest.seq > gate[0]:
                        return
                    waiter = oldest  # older than an overdue one, so overdue
            assert waiter is not None
            server.queue.remove(waiter)
            server.batch.pop(waiter.seq, None)
            self._grant(waiter, server)

    def _gate(self, server: Server, now: float) -> tuple[int, str] | None:
        """Return the age and the model of the overdue request that closes the gate of a ready model to younger ones."""
        if not self._heads or now < server.ready_at + self._residence(server):
            return None
        if self._gates is None:
            self._gates = {}
            for seq, head in self._heads:
                for model in self._evicts(head).evict:
                    self._gates.setdefault(model, (seq, head.id))
        return self._gates.get(server.id)

    def _evicts(self, server: Server) -> Plan:
        """Return what must go for a model: nothing for a ready one, so planners are not asked for these."""
        return NO_PLAN if server.is_ready else self._plan(server)

    def _blockers(self, server: Server, now: float, seq: int) -> Iterator[Blocker]:
        """Yield what keeps the swap to a model from starting whose oldest waiter is of age `seq`."""
        if server.leaving or server.draining:
            yield Blocker(server.id, "stopping")
        evict = self._evicts(server).evict
        for swap in self._swaps.values():
            if swap.model in evict or server.id in swap.evict:
                yield Blocker(swap.model, "collision")
        for model in evict:
            other = self._servers[model]
            if other.in_flight:
                yield Blocker(model, "inflight")
            elif other.batch:
                yield Blocker(model, "batch")
            elif now < (until := self._lingers_until(other)):
                yield Blocker(model, "linger", until)
        for age, head in self._heads:
            if age >= seq:
                break
            if head is not server and self._reserves(head, server, age):
                yield Blocker(head.id, "reservation")

    def _reserves(self, head: Server, server: Server, age: int) -> bool:
        """Whether the swap to `server` would be in the way of the overdue request of `head`, or the other way round."""
        oldest = head.queue.oldest()
        if oldest is None or oldest.seq != age:  # it was granted in this pass
            return False
        running = self._runs()
        needed = self._evicts(head).evict
        if not head.is_ready:
            others = set(running) | {server.id}
            if head.draining:
                others.discard(head.id)
            if server.id in self._plan_if(head.id, tuple(sorted(others))).evict:
                return True
        then = (set(running) - set(needed)) | {head.id}
        then.discard(server.id)
        return head.id in self._plan_if(server.id, tuple(sorted(then))).evict

    def _residence(self, server: Server) -> float:
        """Return for how many seconds a gate stays open after the model became ready."""
        fixed = self._config.fair.min_residence
        return min(max(2 * self._measures.load_time.get(server.id, 0.0), 1.0), 300.0) if fixed is None else fixed

    def _lingers_until(self, server: Server) -> float:
        """Return until when an idle model is not evicted: its last client may have another request."""
        linger = self._config.fair.linger
        if linger is None:
            linger = min(2.0, 0.1 * self._measures.load_time.get(server.id, 0.0))
        return min(server.last_end + linger, server.ready_at + self._residence(server))

    def _full(self, server: Server) -> int:
        """Return the limit of the queue that is reached, or 0."""
        queue = self._config.queue
        if self.waiting(server.id) >= queue.limit:
            return queue.limit
        return queue.total if len(self._waiters) >= queue.total else 0

    def _serves_at_once(self, server: Server, now: float) -> bool:
        """Whether a request that comes now would be granted now."""
        return not len(server.queue) and self._has_place(server) and self._gate(server, now) is None

    def _has_place(self, server: Server) -> bool:
        return server.is_ready and server.in_flight < self._config.models[server.id].limit

    def _outlook(self, server: Server, now: float) -> tuple[str, Plan, list[Blocker]]:
        if now < server.retry_at:
            return "refuse", NO_PLAN, [Blocker(server.id, "backoff", server.retry_at)]
        if server.is_ready and not self._closing:
            if self._serves_at_once(server, now):
                return "serve", NO_PLAN, []
            gate = self._gate(server, now)
            blocker = Blocker(server.id, "inflight") if gate is None else Blocker(gate[1], "gate")
            return ("refuse" if self._full(server) else "wait"), NO_PLAN, [blocker]
        action, plan, blockers = super()._outlook(server, now)
        return ("refuse" if self._full(server) else action), plan, blockers

    def _ended(self, server: Server, now: float) -> None:
        if not self._waiters and not self._loads:
            return
        if server.in_flight and server.is_ready and self._by_running:  # nothing changes but its own free place
            self._new_pass(now)
            self._planned(lambda: self._serve(server, now), now)
        else:
            self._place(now)

    def _loaded(self, server: Server, joined: list[Waiter], now: float) -> None:
        """Those who wait now, as many as `max_batch`, are granted before anything else becomes of the model."""
        self._new_pass(now)
        due = now - self._config.fair.max_wait
        order = sorted(server.queue, key=lambda w: (0, 0, w.seq) if w.arrival <= due else (1, -w.priority, w.seq))
        server.batch = {waiter.seq: waiter for waiter in order[: self._config.fair.max_batch]}

    def _failed(self, server: Server, joined: list[Waiter], error: str, now: float) -> None:
        server.failures += 1
        delay = min(LONGEST_BACK_OFF, 2.0 ** min(server.failures - 1, 30))
        server.retry_at = now + delay
        server.error = error
        for waiter in server.queue.clear():
            self._reject(waiter, server, 503, "start_failed", f"{server.id} did not start: {error}", delay)

    def _priority(self, request: Request) -> int:
        return self._config.models[request.model].priority + request.priority
