"""A world in virtual time: model servers that take their time to load and to stop, around a real scheduler."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ringcast_router.scheduling.interface import AbortSwap, Effect, Grant, Reject, Request, Scheduler, StartSwap, Stop


@dataclass(frozen=True, slots=True)
class Job:
    """A request to come: at what time (seconds), for which model, for how many seconds it is served once granted."""

    at: float
    model: str
    seconds: float = 1.0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """How many seconds loading and stopping take: of the models named in `models` as pairs, else `load` and `stop`."""

    load: float = 10.0
    stop: float = 1.0
    models: dict[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, model: str) -> tuple[float, float]:
        """Return the seconds of a load and of a stop of a model."""
        return self.models.get(model, (self.load, self.stop))


@dataclass(slots=True, eq=False)
class Visit:
    """What became of one request. Times are None where it did not come to that; `code` says why it was refused."""

    id: int
    job: Job
    came: float
    granted: float | None = None
    ended: float | None = None
    code: str = ""
    left: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether it has been neither granted, nor refused, nor has left."""
        return self.granted is None and not self.code and not self.left


@dataclass(slots=True, eq=False)
class SimulatedServer:
    """One model's server. `life` counts stops and starts, so that what was planned for an earlier life is not done."""

    model: str
    state: str = "stopped"
    life: int = 0
    serving: dict[int, Visit] = field(default_factory=dict)
    on_stopped: list[Callable[[], object]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Swap:
    effect: StartSwap
    began: float
    missing: int = 0
    alive: bool = True


class World:
    """Plays events in the order of their times, tells the scheduler, and carries out what it decides.

    Args:
        scheduler: Any scheduler.
        costs: How long loads and stops take.
        load_error: Asked for the error of each load at its end: "" lets it succeed.
        ended: Called for each request when it is over: served, cut, refused, or left.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        costs: Costs,
        *,
        load_error: Callable[[str], str] = lambda model: "",
        ended: Callable[[Visit], None] = lambda visit: None,
    ) -> None:
        self.now = 0.0
        self.scheduler = scheduler
        self.costs = costs
        self.visits: list[Visit] = []
        self.swaps = 0
        self.loading = 0.0  # seconds that swaps took, those that were called off too
        self.servers: dict[str, SimulatedServer] = {}
        self._load_error = load_error
        self._tell_end = ended
        self._agents: dict[int, Iterator[Job]] = {}
        self._waiting: dict[int, Visit] = {}
        self._swaps: dict[int, _Swap] = {}
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._effects: deque[Effect] = deque()
        self._working = False
        self._tick_at: float | None = None

    # What can happen. Each of these may be called at once, or at a time of its own through `at`.

    def at(self, time: float, do: Callable[[], object]) -> None:
        """Let `do` be called at a time, after what is planned for that time already."""
        heapq.heappush(self._events, (time, next(self._order), do))

    def add(self, jobs: Iterable[Job]) -> None:
        """Let requests come at their times."""
        for job in jobs:
            self.at(job.at, partial(self.submit, job))

    def add_agent(self, jobs: Iterator[Job]) -> None:
        """Let a client send one request after another: each `at` is the pause after the one before was over."""
        if (job := next(jobs, None)) is not None:
            self.at(self.now + job.at, lambda: self._agent_asks(job, jobs))

    def submit(self, job: Job) -> Visit:
        """A request comes now."""
        visit = Visit(len(self.visits) + 1, job, self.now)
        self.visits.append(visit)
        self._waiting[visit.id] = visit
        request = Request(visit.id, job.model, self.now, job.priority)
        self._do(self.scheduler.on_request(request, self.now))
        return visit

    def cancel(self, visit: Visit) -> None:
        """The client of a request goes now, whether it was granted or not."""
        if visit.is_waiting:
            visit.left = True
            del self._waiting[visit.id]
            self._do(self.scheduler.on_cancel(visit.id, self.now))
            self._ended(visit)
        elif visit.granted is not None and visit.ended is None:
            self._end(visit)

    def unload(self, models: Iterable[str]) -> None:
        """Somebody asks now that models be unloaded."""
        self._do(self.scheduler.on_unload(list(models), self.now))

    def load(self, model: str) -> None:
        """Somebody asks now that a model be loaded."""
        self._do(self.scheduler.on_load(model, self.now))

    def crash(self, model: str) -> None:
        """A server dies now, in whatever state it is; a swap that starts it fails."""
        server = self._server(model)
        if server.state not in ("stopped", "stopping"):
            starting = server.state == "starting"
            self._stopped(server)
            if starting:
                self._swaps_done(model, 0.0, "it exited")

    def reload(self, config: object, keep: Iterable[str]) -> None:
        """Another configuration is in force from now on."""
        self._do(self.scheduler.on_reload(config, frozenset(keep), self.now))

    def shutdown(self) -> None:
        """The router ends now."""
        self._do(self.scheduler.on_shutdown(self.now))

    def run(self, until: float = float("inf")) -> None:
        """Play all events up to a time, by default all there are; then it is the time of the last, or `until`."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()
        if until != float("inf"):
            self.now = max(self.now, until)

    # How effects are carried out.

    def _do(self, effects: Iterable[Effect]) -> None:
        self._effects.extend(effects)
        if self._working:
            return
        self._working = True
        try:
            while self._effects:
                self._carry_out(self._effects.popleft())
        finally:
            self._working = False
        self._set_tick()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Grant(request):
                self._grant(request.id)
            case Reject(request):
                if (visit := self._waiting.pop(request.id, None)) is not None:
                    visit.code = effect.code
                    self._ended(visit)
            case StartSwap(ticket):
                self._swap(ticket, effect)
            case AbortSwap(ticket, model):
                if (swap := self._swaps.pop(ticket, None)) is not None:
                    swap.alive = False
                    self.loading += self.now - swap.began
                self._stop(model)
            case Stop(models):
                for model in models:
                    self._stop(model)

    def _grant(self, request_id: int) -> None:
        visit = self._waiting.pop(request_id, None)
        if visit is None:  # it left while the grant was on its way
            self._do(self.scheduler.on_serve_done(request_id, self.now))
            return
        visit.granted = self.now
        self._server(visit.job.model).serving[visit.id] = visit
        self.at(self.now + visit.job.seconds, lambda: self._end(visit))

    def _end(self, visit: Visit) -> None:
        if visit.ended is None:
            visit.ended = self.now
            self._server(visit.job.model).serving.pop(visit.id, None)
            self._do(self.scheduler.on_serve_done(visit.id, self.now))
            self._ended(visit)

    def _ended(self, visit: Visit) -> None:
        self._tell_end(visit)
        if (jobs := self._agents.pop(visit.id, None)) is not None:
            self.add_agent(jobs)

    def _swap(self, ticket: int, effect: StartSwap) -> None:
        swap = self._swaps[ticket] = _Swap(effect, self.now)
        self.swaps += 1
        present = [server for model in effect.evict if (server := self._server(model)).state != "stopped"]
        swap.missing = len(present)

        def one_is_gone() -> None:
            swap.missing -= 1
            if not swap.missing and swap.alive:
                self._start(effect.model)

        for server in present:
            server.on_stopped.append(one_is_gone)
            self._stop(server.model)
        if not present:
            self._start(effect.model)

    def _start(self, model: str) -> None:
        server = self._server(model)
        if server.state == "ready":
            self._swaps_done(model, 0.0)
        elif server.state == "stopped":
            server.life += 1
            life, seconds = server.life, self.costs.of(model)[0]
            self._report(server, "starting")
            self.at(self.now + seconds, lambda: self._load_ends(server, life, seconds))

    def _load_ends(self, server: SimulatedServer, life: int, seconds: float) -> None:
        if server.life != life or server.state != "starting":
            return
        if error := self._load_error(server.model):
            self._stopped(server)
            self._swaps_done(server.model, 0.0, error)
        else:
            self._report(server, "ready")
            self._swaps_done(server.model, seconds)

    def _swaps_done(self, model: str, seconds: float, error: str = "") -> None:
        for ticket, swap in list(self._swaps.items()):
            if swap.effect.model == model and not swap.missing:
                del self._swaps[ticket]
                self.loading += self.now - swap.began
                self._do(self.scheduler.on_swap_done(ticket, error, self.now, seconds))

    def _stop(self, model: str) -> None:
        server = self._server(model)
        if server.state in ("stopped", "stopping"):
            return
        server.life += 1
        life = server.life
        self._report(server, "stopping")
        self._cut(server)
        self.at(self.now + self.costs.of(model)[1], lambda: self._stop_ends(server, life))

    def _stop_ends(self, server: SimulatedServer, life: int) -> None:
        if server.life == life:
            self._stopped(server)

    def _stopped(self, server: SimulatedServer) -> None:
        server.life += 1
        self._report(server, "stopped")
        self._cut(server)
        waiting, server.on_stopped = server.on_stopped, []
        for tell in waiting:
            tell()

    def _cut(self, server: SimulatedServer) -> None:
        for visit in list(server.serving.values()):
            self._end(visit)

    def _report(self, server: SimulatedServer, state: str) -> None:
        server.state = state
        self._do(self.scheduler.on_state(server.model, state, self.now))

    def _server(self, model: str) -> SimulatedServer:
        if model not in self.servers:
            self.servers[model] = SimulatedServer(model)
        return self.servers[model]

    def _set_tick(self) -> None:
        wake = self.scheduler.wake_at()
        if wake is not None and (self._tick_at is None or wake < self._tick_at):
            self._tick_at = max(wake, self.now)
            self.at(self._tick_at, self._tick)

    def _tick(self) -> None:
        if self._tick_at != self.now:
            return  # one that was planned before an earlier one
        self._tick_at = None
        wake = self.scheduler.wake_at()
        self._do(self.scheduler.on_tick(self.now) if wake is not None and wake <= self.now else ())

    def _agent_asks(self, job: Job, jobs: Iterator[Job]) -> None:
        visit = self.submit(job)
        if visit.code:
            self.add_agent(jobs)
        else:
            self._agents[visit.id] = jobs
