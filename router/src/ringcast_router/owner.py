"""The owner of all routing state: the only caller of the scheduler, and the only one who carries out what it decides.

Everything here runs on the event loop's thread, each event to its end: a request, a client that goes, a server that
changes its state, a swap that ends, an unload, a reload, a timer. The event is told to the scheduler, and the effects
are carried out; nothing of this awaits, so no event waits for another, and there is no lock and no queue of events.
What takes time (stopping and starting servers) runs in tasks that come back with an event of their own.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import get_args

from ringcast import Dispatcher

from ringcast_router.config.model import Config, Model
from ringcast_router.errors import Refused, StartError
from ringcast_router.events import (
    InFlightChanged,
    ModelStateChanged,
    RequestFinished,
    RequestGranted,
    RequestQueued,
    SwapFinished,
    SwapStarted,
)
from ringcast_router.pending import Pending
from ringcast_router.processes import Process, State
from ringcast_router.scheduling.interface import (
    AbortSwap,
    Effect,
    Grant,
    Reject,
    Request,
    Scheduler,
    StartSwap,
    Stop,
)

log = logging.getLogger(__name__)
decisions = logging.getLogger("ringcast_router.decisions")

_EFFECTS = get_args(Effect)

LEFT_BEHIND = 5.0
"""Seconds that a request has to end by itself when its server has ended: most see their connection break at once."""


class Owner:
    """Tells the scheduler what happens and carries out what it decides. One for each router; event loop's thread only.

    Args:
        config: The configuration in force.
        scheduler: Decides; nobody else may call it.
        make_process: Makes the server of a model, which is told whom to call at each change of its state.
        bus: Where events are published, with `publish`, which never waits here: each reader has a policy that drops.
    """

    def __init__(
        self,
        config: Config,
        scheduler: Scheduler,
        make_process: Callable[[Model, Callable[[str, State, State, str], None]], Process],
        bus: Dispatcher,
    ) -> None:
        self.config = config
        self.scheduler = scheduler
        self.processes: dict[str, Process] = {}
        self.closing = False
        self._bus = bus
        self._make_process = make_process
        self._ids = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._swaps: dict[int, asyncio.Task[None]] = {}
        self._closes: set[asyncio.Task[None]] = set()
        self._renewed: dict[str, Model | None] = {}  # what a server becomes when it has stopped; None: it goes
        self._last_end: dict[str, float] = {}
        self._idle_timers: dict[str, asyncio.TimerHandle] = {}
        self._effects: deque[Effect] = deque()
        self._working = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        for model in config.models.values():
            self._add(model)

    # What happens. Each method is one event.

    def submit(self, model: str, *, priority: int = 0) -> Pending:
        """Hand in a request for a model.

        Args:
            model: The model's id (not an alias).
            priority: A request of larger priority goes first, as far as the scheduler has it.

        Returns:
            The request on its way: wait for its grant, and call its `end` in every case.

        Raises:
            Refused: It is refused at once: the model is unknown, the queue full, the router shutting down.
        """
        now = time.monotonic()
        request = Request(next(self._ids), model, now, priority)
        if self.closing:
            raise shutting_down()
        pending = self._pending[request.id] = Pending(self, request)
        if not self._tell(self.scheduler.on_request, request, now=now):
            pending._decide(None, self._scheduler_failed())
            self._tell(self.scheduler.on_cancel, request.id, now=now)
        if pending._refused is not None:
            del self._pending[request.id]
            pending._ended = True
            self._bus.publish(RequestFinished(request.id, model, "refused", pending._refused.status, time.time()))
            raise pending._refused
        if not pending.is_granted:
            self._bus.publish(RequestQueued(request.id, model, time.time()))
            self._publish_in_flight(model)
        return pending

    def load(self, model: str) -> None:
        """Ask that a model be loaded though no request needs it. Unknown models change nothing."""
        if not self.closing and model in self.config.models:
            now = time.monotonic()
            self._tell(self.scheduler.on_load, model, now=now, models=[model])

    def unload(self, models: Iterable[str] | None = None) -> None:
        """Ask that these models (None: all) be unloaded. Returns at once; nobody else's request is delayed."""
        wanted = list(self.processes if models is None else models)
        now = time.monotonic()
        self._tell(self.scheduler.on_unload, wanted, now=now, models=wanted)

    def reload(self, config: Config, keep: frozenset[str]) -> tuple[str, ...]:
        """Put another configuration in force.

        Args:
            config: The new configuration.
            keep: The models whose servers go on running; they are in both configurations.

        Returns:
            The models whose servers are drained: their requests in flight end, then they stop. A changed model has its
            new definition from then on.

        Raises:
            ConfigError: The new configuration's planner cannot be made; nothing has changed then.
        """
        keep -= self._renewed.keys()  # what an earlier reload drains is not what runs there
        now = time.monotonic()
        effects = self.scheduler.on_reload(config, keep, now)  # first, as it may raise
        self.config = config
        drained = []
        for name, process in list(self.processes.items()):
            model = config.models.get(name)
            if name in keep:
                assert model is not None
                process.update(model)
                self._watch_idle(name)
            else:
                self._renewed[name] = model
                if process.state is State.STOPPED:
                    self._renew(name)
                else:
                    drained.append(name)
        for name, model in config.models.items():
            if name not in self.processes:
                self._add(model)
        self._tell(lambda _now: effects, now=now)
        return tuple(drained)

    def pending(self) -> list[Pending]:
        """Return the requests that wait or are being served, in the order in which they came."""
        return list(self._pending.values())

    def plan(self, model: str) -> dict[str, object]:
        """Return what a request for `model`, an id, would meet now, in the shape of `GET /api/plan`."""
        return self.scheduler.explain(model, time.monotonic())

    def shutdown(self) -> None:
        """Refuse what waits and what comes; requests in flight go on."""
        if self.closing:
            return
        self.closing = True
        now = time.monotonic()
        self._tell(self.scheduler.on_shutdown, now=now, models=list(self.processes))
        for timer in (self._timer, *self._idle_timers.values()):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._idle_timers.clear()

    async def close(self) -> None:
        """Shut down, and stop all servers at once. Returns when no child is left."""
        self.shutdown()
        for task in self._swaps.values():
            task.cancel()
        await asyncio.gather(*self._swaps.values(), *self._closes, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self.processes.values()))

    def _end(self, pending: Pending, status: int) -> None:
        if self._pending.pop(pending.id, None) is None:
            return  # refused before
        now = time.monotonic()
        if pending._process is not None:
            pending._process.end()
            self._last_end[pending.model] = now
            event, outcome = self.scheduler.on_serve_done, "served"
        else:
            event, outcome = self.scheduler.on_cancel, "refused" if pending._refused is not None else "left"
        self._bus.publish(RequestFinished(pending.id, pending.model, outcome, status, time.time()))
        self._tell(event, pending.id, now=now, models=(pending.model,))
        self._publish_in_flight(pending.model)

    def _state_changed(self, name: str, old: State, new: State, reason: str) -> None:
        self._bus.publish(ModelStateChanged(name, str(old), str(new), reason, time.time()))
        if new is State.READY:
            self._watch_idle(name)
        if old is not State.STOPPED and new in (State.STOPPED, State.STARTING):  # one that hung is started again
            self._abort_what_is_left_behind(name)
        if new is State.STOPPED and name in self._renewed:
            self._renew(name)
        if new is not State.SHUTDOWN and not self.closing:
            now = time.monotonic()
            self._tell(self.scheduler.on_state, name, str(new), now=now, models=[name])

    def _abort_what_is_left_behind(self, name: str) -> None:
        """Give the requests of a server that has ended a little time, and abort those that do not end by themselves.

        Their connection can be held open by somebody else, such as a container that has outlived its client. They would
        count as in flight, and keep others from being loaded.
        """

        def abort() -> None:
            for pending in left:
                if pending.id in self._pending:
                    log.warning("%s: request %d is ended, as its server has ended", pending.model, pending.id)
                    message = f"{pending.model}: its server has ended"
                    pending.abort(Refused(502, message, type="server_error", code="upstream_error"))

        gone = (State.STOPPED, State.STARTING)
        left = [
            one for one in self._pending.values() if one.model == name and one._process and one._process.state in gone
        ]
        if left:
            asyncio.get_running_loop().call_later(LEFT_BEHIND, abort)

    def _time_has_come(self) -> None:
        self._timer = self._timer_at = None
        now = time.monotonic()
        self._tell(self.scheduler.on_tick, now=now)

    # What is done about it.

    def _tell(
        self, event: Callable[..., Iterable[Effect]], *about: object, now: float, models: Collection[str] = ()
    ) -> bool:
        """Tell the scheduler of an event, and carry out what it decides; return whether it did not fail.

        A scheduler that raises, somebody's own or by a mistake in ours, may have forgotten who waits for `models`, the
        models that the event is about. So these requests are refused, rather than left to wait for ever.
        """
        try:
            effects = list(event(*about, now))
            for effect in effects:
                if not isinstance(effect, _EFFECTS):
                    raise TypeError(f"a scheduler returns effects, not {effect!r}")
            self._carry_out(effects, now)
        except Exception:
            log.exception("the scheduler %r failed", self.config.scheduler)
            for pending in [one for one in self._pending.values() if one.model in models]:
                pending._decide(None, self._scheduler_failed())
            return False
        return True

    def _scheduler_failed(self) -> Refused:
        message = f"the scheduler {self.config.scheduler!r} failed; the router's log says why"
        return Refused(500, message, type="server_error", code="scheduler_failed")

    def _carry_out(self, effects: Iterable[Effect], now: float) -> None:
        """Carry out effects in their order. Those that come of carrying out another wait until that one is done."""
        self._effects.extend(effects)
        if self._working:
            return
        self._working = True
        try:
            while self._effects:
                effect = self._effects.popleft()
                try:
                    self._do(effect, now)
                except Exception:
                    log.exception("the effect %r could not be carried out", effect)
        finally:
            self._working = False
        self._set_timer(now)

    def _do(self, effect: Effect, now: float) -> None:
        match effect:
            case Grant(request):
                self._grant(request, now)
            case Reject(request):
                self._refuse(effect)
            case StartSwap(ticket):
                self._swaps[ticket] = asyncio.create_task(self._swap(effect), name=f"swap to {effect.model}")
            case AbortSwap(ticket, model):
                if (task := self._swaps.pop(ticket, None)) is not None:
                    task.cancel()
                self._stop(model, "its swap was called off")
            case Stop(models):
                for model in models:
                    self._stop(model, "unloaded")

    def _grant(self, request: Request, now: float) -> None:
        pending = self._pending.get(request.id)
        process = self.processes.get(request.model)
        # It can have ended while the grant was on its way.
        if pending is None or process is None or pending._refused is not None:
            self._tell(self.scheduler.on_serve_done, request.id, now=now)
            return
        process.begin()
        pending._decide(process, None)
        self._bus.publish(RequestGranted(request.id, request.model, now - request.arrival, time.time()))
        self._publish_in_flight(request.model)

    def _refuse(self, effect: Reject) -> None:
        if (pending := self._pending.get(effect.request.id)) is not None:
            pending._decide(None, refused(effect))

    async def _swap(self, swap: StartSwap) -> None:
        """Stop what must go, start the target, and come back as an event."""
        asked = 0
        rule = error = ""
        began = loading = time.monotonic()
        try:
            asked = 0 if swap.request is None else swap.request.id
            rule = "; ".join(f"{model}: {why}" for model, why in swap.rule.items())
            self._bus.publish(SwapStarted(swap.ticket, swap.model, swap.evict, asked, rule, swap.cost, time.time()))
            reason = f"evicted for {swap.model}"
            await asyncio.gather(*(self.processes[m].stop(reason=reason) for m in swap.evict if m in self.processes))
            loading = time.monotonic()
            await self.processes[swap.model].start()
        except StartError as failure:
            error = f"{failure.reason}\n{failure.tail}".rstrip()
        except asyncio.CancelledError:
            error = "called off"
            raise
        except Exception:
            log.exception("the swap to %s failed", swap.model)
            error = "the router failed to start it; its log says why"
        finally:
            self._swaps.pop(swap.ticket, None)
            now = time.monotonic()
            self._bus.publish(SwapFinished(swap.ticket, swap.model, error, now - began, time.time()))
            decisions.info(
                "swap %d to %s for %s: evicted %s; cost %g; %s after %.3f s",
                swap.ticket,
                swap.model,
                f"request {asked}" if asked else "a load that was asked for",
                rule or ", ".join(swap.evict) or "nothing",
                swap.cost,
                error.partition("\n")[0] or "ready",
                now - began,
            )
        seconds = now - loading
        self._tell(
            lambda now: self.scheduler.on_swap_done(swap.ticket, error, now, seconds), now=now, models=[swap.model]
        )

    def _stop(self, name: str, reason: str) -> None:
        # At once, not in a task: a start may be on its way that has no child yet, and the scheduler, which knows of
        # none, lets the next model start.
        if (process := self.processes.get(name)) is not None:
            process.ask_to_stop(reason)

    def _add(self, model: Model) -> None:
        self.processes[model.id] = self._make_process(model, self._state_changed)

    def _renew(self, name: str) -> None:
        """Give a stopped server the definition that a reload brought, or let it go."""
        model = self._renewed.pop(name)
        if model is not None:
            self.processes[name].update(model)
        else:
            process = self.processes.pop(name)
            self._last_end.pop(name, None)
            process.ask_to_stop("a reload removed its model")  # at once, as in `_stop`
            task = asyncio.create_task(self._let_go(process), name=f"close {name}")
            self._closes.add(task)
            task.add_done_callback(self._closes.discard)

    async def _let_go(self, process: Process) -> None:
        await process.close()
        if process.model.id not in self.processes:  # else another reload has brought the model back
            process.forget_output()

    # Timers: what the scheduler wants to be woken for, and servers that are idle for longer than their ttl.

    def _set_timer(self, now: float) -> None:
        at = None if self.closing else self.scheduler.wake_at()
        if at == self._timer_at and (self._timer is not None) == (at is not None):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._time_has_come)

    def _watch_idle(self, name: str) -> None:
        """Look at a ready server when its ttl can be over at the earliest. One timer a server, none a request."""
        if (timer := self._idle_timers.pop(name, None)) is not None:
            timer.cancel()
        process = self.processes.get(name)
        if self.closing or process is None or process.ready_at is None or process.model.ttl <= 0:
            return
        now = time.monotonic()
        since = now if self._is_wanted(name) else max(process.ready_at, self._last_end.get(name, 0.0))
        left = since + process.model.ttl - now
        self._idle_timers[name] = asyncio.get_running_loop().call_later(max(0.0, left), self._look_at_idle, name)

    def _look_at_idle(self, name: str) -> None:
        del self._idle_timers[name]
        process = self.processes.get(name)
        if process is None or process.state is not State.READY or process.ready_at is None:
            return
        now = time.monotonic()
        if (
            not self._is_wanted(name)
            and max(process.ready_at, self._last_end.get(name, 0.0)) + process.model.ttl <= now
        ):
            self._tell(self.scheduler.on_unload, [name], now=now, models=[name])
        else:
            self._watch_idle(name)

    def _is_wanted(self, model: str) -> bool:
        """Whether requests of a model are in flight or wait; also where the scheduler fails to say."""
        counts = self._counts(model)
        return counts is None or any(counts)

    def _publish_in_flight(self, model: str) -> None:
        if (counts := self._counts(model)) is not None:
            self._bus.publish(InFlightChanged(model, *counts, time.time()))

    def _counts(self, model: str) -> tuple[int, int] | None:
        """Return how many requests of a model are in flight, and how many wait; None where the scheduler fails."""
        try:
            return self.scheduler.in_flight(model), self.scheduler.waiting(model)
        except Exception:
            log.exception("the scheduler %r failed", self.config.scheduler)
            return None


def refused(effect: Reject) -> Refused:
    """Return the error that a client gets for a rejected request."""
    kinds: Mapping[int, str] = {404: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error"}
    return Refused(
        effect.status,
        effect.message,
        type=kinds.get(effect.status, "server_error"),
        code=effect.code,
        param="model" if effect.status in (404, 422) else None,
        retry_after=effect.retry_after,
    )


def shutting_down() -> Refused:
    """Return the error of requests that come when the router is on its way out."""
    return Refused(503, "the router is shutting down", type="server_error", code="shutting_down", retry_after=5)
