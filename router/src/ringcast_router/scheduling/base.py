"""What the schedulers share: the books about servers, swaps and requests, and the events that they treat alike."""

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import TypeVar

from ringcast_router.config.model import Config
from ringcast_router.errors import Refused
from ringcast_router.planning import make_planner
from ringcast_router.planning.interface import Plan, Planner, View
from ringcast_router.scheduling.interface import AbortSwap, Effect, Grant, Reject, Request, StartSwap, Stop
from ringcast_router.scheduling.servers import READY, STOPPED, STOPPING, Measures, Server, Swap
from ringcast_router.scheduling.waiting import Waiter

log = logging.getLogger(__name__)

_KINDS_OF_A_PLAN = (("evict", tuple), ("rule", Mapping), ("set", str), ("cost", Real))

NEWEST = 1 << 62  # the age of a request that has not come yet

_Answer = TypeVar("_Answer")


class NoPlan(Exception):
    """The planner failed for a target, or returned what is no plan. Its traceback is logged.

    Attributes:
        target: The model that cannot be placed therefore.
        message: What those who wait for the model are told.
    """

    def __init__(self, target: str, message: str) -> None:
        self.target = target
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why something waits: because of `model`, and, where time alone ends it, until `until`."""

    model: str
    reason: str
    until: float | None = None


class BaseScheduler(ABC):
    """Keeps the books. A subclass says how waiters are placed (`_place_all`), and what stands in the way (`_blockers`).

    A server that was told to stop holds its memory until `on_state` says "stopped". It does not count as running for
    planners, but a swap whose target cannot live beside it lists it in `evict` and so waits for it; and its own model
    is not started again before. So every transition of a server must be reported by `on_state`, also expected ones.

    Requests are ordered by when `on_request` was called for them; their `arrival` must be in the same order.

    A planner can be anybody's, so it can fail (`NoPlan`). Those who wait for the model in question are rejected then,
    and all others are placed as if nobody waited for that model.
    """

    name = ""

    def __init__(self, config: Config, planner: Planner) -> None:
        self._config = config
        self._measures = Measures()
        self._servers = {model: Server(model) for model in config.models}
        self._swaps: dict[int, Swap] = {}
        self._waiters: dict[int, tuple[Waiter, Server]] = {}
        self._loads: dict[str, Waiter] = {}  # those that no request asked for, by model
        self._granted: dict[int, Server] = {}
        self._effects: list[Effect] = []
        self._tickets = itertools.count(1)
        self._seqs = itertools.count(1)
        self._closing = False
        self._now = 0.0
        self._running: tuple[str, ...] | None = None
        self._view: View | None = None
        self._plans: dict[str, Plan] = {}
        self._use(planner)

    # What a subclass says.

    @abstractmethod
    def _place_all(self, now: float) -> None:
        """Grant, and start swaps, as far as the rules allow.

        Raises:
            NoPlan: The planner failed for a model that somebody waits for. What is done so far holds.
        """

    @abstractmethod
    def _blockers(self, server: Server, now: float, seq: int) -> Iterator[Blocker]:
        """Yield what keeps a waiter of age `seq` from being placed by a grant or a swap."""

    @abstractmethod
    def _loaded(self, server: Server, joined: list[Waiter], now: float) -> None:
        """A server became ready."""

    @abstractmethod
    def _failed(self, server: Server, joined: list[Waiter], error: str, now: float) -> None:
        """A load failed: answer those who waited for it."""

    @abstractmethod
    def _priority(self, request: Request) -> int:
        """Return the priority of a request and its model together."""

    # Events.

    @abstractmethod
    def on_request(self, request: Request, now: float) -> list[Effect]:
        """A request arrived."""

    def on_cancel(self, request_id: int, now: float) -> list[Effect]:
        """The client of a request that was not granted has gone. Unknown ids change nothing."""
        if (found := self._waiters.get(request_id)) is not None:
            self._forget(*found)
        return self._done()

    def on_swap_done(self, ticket: int, error: str, now: float, seconds: float = 0.0) -> list[Effect]:
        """A swap ended: `error` is "" and the model ready, or says why not. A dead ticket changes nothing.

        `seconds` is how long the load took, without the wait for the evicted; 0: as long as the whole swap.
        """
        if (swap := self._swaps.pop(ticket, None)) is None:
            return []
        server = self._servers[swap.model]
        server.swap = None
        if not error and swap.was_ready and server.state != READY:
            error = "it stopped as soon as it was ready"
        if error:
            if server.state != STOPPING:
                server.state = STOPPED
                server.leaving = False
            self._changed()
            self._drop_load(server)
            self._failed(server, swap.joined, error, now)
        else:
            self._measures.loaded(server.id, seconds or now - swap.began)
            self._became_ready(server, swap.joined, now)
        self._place(now)
        return self._done()

    def on_serve_done(self, request_id: int, now: float) -> list[Effect]:
        """A granted request has ended, in whatever way. Unknown ids change nothing."""
        if (server := self._granted.pop(request_id, None)) is not None:
            server.in_flight -= 1
            server.last_end = now
            if server.draining and not server.in_flight:
                self._stop_drained(server)
            self._tidy(server)
            self._ended(server, now)
        return self._done()

    def on_state(self, model: str, state: str, now: float) -> list[Effect]:
        """A server changed its state, whether by itself or because it was told to."""
        if (server := self._servers.get(model)) is None or server.state == state:
            return []
        server.state = state
        self._changed()
        if state == READY:
            if server.swap is None:
                self._became_ready(server, [], now)
            else:
                server.swap.was_ready = True
        elif state == STOPPING:
            server.leave()
        else:
            server.batch.clear()
            server.leaving = False  # also where it is starting: one that hung goes from stopping to starting by itself
            if state == STOPPED:
                server.draining = False
                self._tidy(server)
        self._reported(server, now)
        return self._done()

    def on_load(self, model: str, now: float) -> list[Effect]:
        """Somebody asked that `model` be loaded without a request. An unknown or loaded one changes nothing."""
        server = self._servers.get(model)
        if server is None or model not in self._config.models or self._closing:
            return []
        server.failures, server.retry_at = 0, 0.0
        if not server.is_ready and server.swap is None and model not in self._loads:
            self._loads[model] = load = Waiter(next(self._seqs), now, self._priority(Request(0, model, now)), None)
            server.queue.add(load)
            self._place(now)
        return self._done()

    def on_unload(self, models: Iterable[str], now: float) -> list[Effect]:
        """Somebody asked that these models be unloaded; those waiting for them are told."""
        servers = [self._servers[model] for model in models if model in self._servers]
        waiters = []
        for server in servers:
            waiters += [(waiter, server) for waiter in self._abort(server)]
        waiters += sorted(((w, s) for s in servers for w in s.queue.clear()), key=lambda pair: pair[0].rank)
        for waiter, server in waiters:
            self._reject(waiter, server, 500, "unloaded", f"{server.id} was unloaded while the request waited for it")
        for server in servers:
            server.leave()
        if servers:
            self._effects.append(Stop(tuple(server.id for server in servers)))
            self._changed()
            self._place(now)
        return self._done()

    def on_reload(self, config: object, keep: frozenset[str], now: float) -> list[Effect]:
        """Another `config.model.Config` is in force. Servers of models not in `keep` take no new grants and must go.

        They stop when their requests in flight have ended; those who wait for them move to the new definition, which is
        started when the old server has stopped. Who waits for a model that is no more gets 404.

        Raises:
            ConfigError: The new configuration's planner cannot be made; nothing has changed then.
        """
        assert isinstance(config, Config)
        planner = make_planner(config)
        self._config = config
        self._use(planner)
        for model in config.models:
            self._servers.setdefault(model, Server(model))
        for server in list(self._servers.values()):
            joined = [] if server.id in keep and server.id in config.models else self._drain_server(server)
            for waiter in [*joined, *server.queue.clear()]:
                if server.id in config.models:
                    if waiter.request is not None:
                        waiter.priority = self._priority(waiter.request)
                    server.queue.add(waiter)
                else:
                    message = f"{server.id} is no longer in the configuration"
                    self._reject(waiter, server, 404, "removed", message)
            self._tidy(server)
        self._changed()
        self._place(now)
        return self._done()

    def on_tick(self, now: float) -> list[Effect]:
        """The time of `wake_at` has come. At other times nothing changes."""
        return []

    def on_shutdown(self, now: float) -> list[Effect]:
        """The router ends: whatever waits is told, and swaps are called off. Requests that come are refused."""
        self._closing = True
        waiters = []
        for server in self._servers.values():
            waiters += [(waiter, server) for waiter in self._abort(server)]
        waiters += sorted(
            ((w, s) for s in self._servers.values() for w in s.queue.clear()), key=lambda pair: pair[0].rank
        )
        for waiter, server in waiters:
            self._reject(waiter, server, 503, "shutting_down", "the router is shutting down")
        for server in self._servers.values():
            server.batch.clear()
        return self._done()

    # Questions.

    def wake_at(self) -> float | None:
        """Return the next time at which an answer can change by itself, or None."""
        return None

    def position(self, request_id: int) -> int:
        """Return the place in the queue of a waiting request, from 1; 0 where it waits for a load under way, or not."""
        found = self._waiters.get(request_id)
        if found is None or not self._is_queued(*found):
            return 0
        return 1 + sum(server.queue.ahead(found[0]) for server in self._servers.values())

    def waiting(self, model: str) -> int:
        """Return how many requests wait for `model`."""
        if not self._waiters or (server := self._servers.get(model)) is None:
            return 0
        return server.waiting - (model in self._loads)

    def in_flight(self, model: str) -> int:
        """Return how many granted requests of `model` have not ended."""
        server = self._servers.get(model)
        return 0 if server is None else server.in_flight

    def explain(self, model: str, now: float) -> dict[str, object]:
        """Return what a request for `model` would meet now, in the shape of `GET /api/plan`; changes nothing.

        The `cost` of an evicted model is how many seconds its load takes, as measured; None where it never was.

        Raises:
            Refused: There is no such model (404), or the planner fails (500).
        """
        server = self._servers.get(model)
        if server is None or model not in self._config.models:
            raise Refused(404, f"there is no model {model!r}", code="model_not_found", param="model")
        self._new_pass(now)
        try:
            action, plan, blockers = self._outlook(server, now)
        except NoPlan as failure:
            raise Refused(500, failure.message, type="server_error", code="planner_failed") from failure
        evict = [
            {
                "model": one,
                "state": self._servers[one].state,
                "inflight": self._servers[one].in_flight,
                "rule": plan.rule.get(one, ""),
                "cost": self._measures.load_time.get(one),
            }
            for one in plan.evict
        ]
        return {
            "model": model,
            "state": server.state,
            "action": action,
            "evict": evict,
            "set": plan.set,
            "cost": plan.cost,
            "blocked_by": [{"model": b.model, "reason": b.reason, "until": b.until} for b in blockers],
            "scheduler": self.name,
            "as_of": now,
        }

    def _outlook(self, server: Server, now: float) -> tuple[str, Plan, list[Blocker]]:
        """Return the action that a new request for `server` would meet, its plan, and what it would wait for."""
        if self._closing:
            return "refuse", Plan(), []
        if server.swap is not None:
            return "join", Plan(), []
        plan = self._plan(server)
        oldest = server.queue.oldest()
        blockers = list(self._blockers(server, now, NEWEST if oldest is None else oldest.seq))
        if blockers:
            return "wait", plan, blockers
        return ("serve" if server.is_ready and not plan.evict else "start"), plan, []

    # What follows an event; a subclass that has more to do there says so.

    def _ended(self, server: Server, now: float) -> None:
        """A granted request of `server` has ended."""
        if not server.in_flight:
            self._place(now)

    def _reported(self, server: Server, now: float) -> None:
        """The state of a server was reported."""
        self._place(now)

    # Books.

    def _place(self, now: float) -> None:
        """Grant, and start swaps, as far as the rules and the planner allow."""
        while True:
            try:
                return self._place_all(now)
            except NoPlan as failure:  # at most once for each model: nobody waits for that one any more
                self._give_up(failure)

    def _planned(self, step: Callable[[], _Answer], now: float) -> _Answer:
        """Do a step that asks the planner. Where the planner fails, all are placed, and the step is done again."""
        while True:
            try:
                return step()
            except NoPlan as failure:
                self._give_up(failure)
                self._place(now)

    def _give_up(self, failure: NoPlan) -> None:
        """Reject those who wait for a model that the planner fails for."""
        server = self._servers[failure.target]
        for waiter in server.queue.clear():
            self._reject(waiter, server, 500, "planner_failed", failure.message)

    def _use(self, planner: Planner) -> None:
        self._planner = planner
        self._by_running = bool(getattr(planner, "by_running", False))
        self._changed()

    def _changed(self) -> None:
        """Forget what depends on which servers run."""
        self._running = None
        self._view = None
        self._plans.clear()

    def _new_pass(self, now: float) -> None:
        """Look at everything anew. Plans that depend on what runs alone are kept."""
        self._now = now
        self._view = None
        if not self._by_running:
            self._plans.clear()

    def _runs(self) -> tuple[str, ...]:
        if self._running is None:
            self._running = tuple(sorted(server.id for server in self._servers.values() if server.is_running))
        return self._running

    def _plan(self, server: Server) -> Plan:
        """Return what must go for the model of `server`, as things are."""
        plan = self._plans.get(server.id)
        if plan is None:
            running = self._runs()
            if server.draining:  # the old server is not the one to be loaded
                running = tuple(model for model in running if model != server.id)
            plan = self._plans[server.id] = self._plan_if(server.id, running)
        return plan

    def _plan_if(self, target: str, running: tuple[str, ...]) -> Plan:
        """Return what would have to go for `target` if these ran.

        Raises:
            NoPlan: The planner cannot say.
        """
        if self._view is None:
            self._view = View(
                running=running,
                ready_at={s.id: s.ready_at for s in self._servers.values() if s.is_ready},
                inflight={s.id: s.in_flight for s in self._servers.values() if s.in_flight},
                load_time=dict(self._measures.load_time),
                demand=self._measures.demand(self._now),
                now=self._now,
            )
        view = self._view if self._view.running is running else replace(self._view, running=running)
        try:
            plan = self._planner.plan(target, view)
            self._check(plan, target)
        except Exception as error:
            name = self._config.router
            log.exception("the planner %r failed for %s", name, target)
            raise NoPlan(target, f"the planner {name!r} failed for {target}; the router's log says why") from error
        return plan

    def _check(self, plan: Plan, target: str) -> None:
        """Raise an error for what a planner must not return."""
        if not isinstance(plan, Plan):
            raise TypeError(f"a planner returns a Plan, not {plan!r}")
        for name, kind in _KINDS_OF_A_PLAN:
            if not isinstance(value := getattr(plan, name), kind):
                raise TypeError(f"the plan's {name} is {value!r}, which is no {kind.__name__}")
        for model in plan.evict:
            if model == target or model not in self._servers:
                what = "the target itself" if model == target else f"{model!r}, which is no model"
                raise ValueError(f"the plan evicts {what}")

    def _still_there(self, target: Server, evict: tuple[str, ...]) -> list[str]:
        """Return the servers that are stopping, and that `target` cannot live beside: its swap waits for them."""
        leaving = sorted(s.id for s in self._servers.values() if s.leaving and s is not target and s.id not in evict)
        there = [model for model in self._runs() if model not in evict and model != target.id]
        waits = []
        for model in leaving:
            if self._plan_if(target.id, tuple(sorted([*there, model]))).evict:
                waits.append(model)
            else:
                there.append(model)
        return waits

    def _start(self, server: Server, waiter: Waiter, now: float) -> Swap:
        """Start the swap to the model of `server`; what it evicts is frozen from now on."""
        plan = self._plan(server)
        waits = self._still_there(server, plan.evict)
        evict = tuple(sorted([*plan.evict, *waits]))
        swap = Swap(next(self._tickets), server.id, plan.evict, now)
        for model in plan.evict:
            self._servers[model].leave()
        server.swap = self._swaps[swap.ticket] = swap
        rules = {**plan.rule, **dict.fromkeys(waits, "stopping already")}
        self._changed()
        self._effects.append(StartSwap(swap.ticket, server.id, evict, waiter.request, rules, plan.cost, plan.set))
        return swap

    def _abort(self, server: Server) -> list[Waiter]:
        """Call off the swap to a server, if there is one; return those who joined. What it evicts goes all the same."""
        if (swap := server.swap) is None:
            return []
        del self._swaps[swap.ticket]
        server.swap = None
        server.leave()
        self._changed()
        self._effects.append(AbortSwap(swap.ticket, swap.model))
        if evicted := tuple(model for model in swap.evict if model in self._servers and self._servers[model].leaving):
            self._effects.append(Stop(evicted))
        return swap.joined

    def _became_ready(self, server: Server, joined: list[Waiter], now: float) -> None:
        server.state = READY
        server.ready_at = now
        server.last_end = -math.inf
        server.failures, server.retry_at = 0, 0.0
        self._drop_load(server)
        self._changed()
        self._loaded(server, joined, now)

    def _drop_load(self, server: Server) -> None:
        """Forget that somebody asked for a load: it has come, or failed."""
        if (load := self._loads.get(server.id)) is not None:
            self._forget(load, server)

    def _drain_server(self, server: Server) -> list[Waiter]:
        """A reload changes or removes the model: let the old server go; return those who joined its load."""
        server.failures, server.retry_at = 0, 0.0
        server.batch.clear()
        joined = self._abort(server)
        if server.state != STOPPED and not server.leaving:
            server.draining = True
            if not server.in_flight:
                self._stop_drained(server)
        return joined

    def _stop_drained(self, server: Server) -> None:
        server.leave()
        self._changed()
        self._effects.append(Stop((server.id,)))

    def _tidy(self, server: Server) -> None:
        """Forget a server whose model is no more, when it has stopped and nothing of it is left."""
        if server.id not in self._config.models and server.state == STOPPED and not server.in_flight:
            self._servers.pop(server.id, None)
            self._measures.forget(server.id)

    def _enter(self, request: Request) -> tuple[Waiter, Server]:
        """Note a request that waits; its place is for the caller to choose."""
        waiter = Waiter(next(self._seqs), request.arrival, self._priority(request), request)
        self._waiters[request.id] = waiter, self._servers[request.model]
        return self._waiters[request.id]

    def _is_queued(self, waiter: Waiter, server: Server) -> bool:
        return server.swap is None or waiter not in server.swap.joined

    def _forget(self, waiter: Waiter, server: Server) -> None:
        """Take a waiter out of wherever it waits."""
        self._strike(waiter, server)
        if self._is_queued(waiter, server):
            server.queue.remove(waiter)
        elif server.swap is not None:
            server.swap.joined.remove(waiter)
        server.batch.pop(waiter.seq, None)

    def _strike(self, waiter: Waiter, server: Server) -> None:
        """Note that somebody waits no longer."""
        if waiter.request is None:
            self._loads.pop(server.id, None)
        else:
            self._waiters.pop(waiter.request.id, None)

    def _grant(self, waiter: Waiter, server: Server) -> None:
        """Grant a waiter that is out of the queue already."""
        self._strike(waiter, server)
        if waiter.request is not None:
            server.in_flight += 1
            self._granted[waiter.request.id] = server
            self._effects.append(Grant(waiter.request))

    def _reject(
        self, waiter: Waiter, server: Server, status: int, code: str, message: str, after: float | None = None
    ) -> None:
        """Answer a waiter that is out of the queue already with an error."""
        server.batch.pop(waiter.seq, None)
        self._strike(waiter, server)
        if waiter.request is not None:
            self._effects.append(Reject(waiter.request, status, code, message, after))

    def _refuse(self, request: Request) -> bool:
        """Refuse what no scheduler takes; return whether it was refused."""
        if self._closing:
            self._effects.append(Reject(request, 503, "shutting_down", "the router is shutting down", 5.0))
        elif request.model not in self._config.models:
            self._effects.append(Reject(request, 404, "model_not_found", f"there is no model {request.model!r}"))
        else:
            return False
        return True

    def _done(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
