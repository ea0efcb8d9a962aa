"""Random worlds for the schedulers: configurations, loads and mishaps, and what must hold at every moment of them."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import repeat

from hypothesis import strategies as st

from ringcast_router.config.model import Config, Fair, Group, Matrix, Model, Queue
from ringcast_router.planning import View, make_planner
from ringcast_router.scheduling import make_scheduler
from ringcast_router.scheduling.interface import Grant, Reject
from ringcast_router.simulation import Costs, Job, World

BUSY = 100.0  # seconds that busy clients go on at least
NAMES = ("a", "b", "c", "d", "e", "f")


def seconds(low, high):
    return st.integers(round(low * 4), round(high * 4)).map(lambda quarters: quarters / 4)


@st.composite
def configs(draw, scheduler="fair"):
    names = NAMES[: draw(st.integers(2, len(NAMES)))]
    models = {
        name: Model(name, concurrency_limit=draw(st.integers(1, 3)), priority=draw(st.sampled_from((0, 0, 0, 5))))
        for name in names
    }
    fair = Fair(
        max_wait=draw(st.sampled_from((2.0, 10.0))),
        min_residence=draw(st.sampled_from((None, 0.0, 3.0))),
        linger=draw(st.sampled_from((None, 0.0, 1.0))),
        max_batch=draw(st.sampled_from((1, 3, 64))),
    )
    config = Config(models=models, fair=fair, scheduler=scheduler, queue=Queue(timeout=0))
    if draw(st.booleans()):
        sets = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=4), min_size=1, max_size=3))
        costs = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 5)))
        written = tuple((f"s{n}", " & ".join(members)) for n, members in enumerate(sets))
        return replace(config, router="matrix", matrix=Matrix(evict_costs=costs, sets=written))
    group_of = {name: draw(st.integers(0, 2)) for name in names}  # 2: in none
    groups = {
        f"g{n}": Group(draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), members)
        for n in range(2)
        if (members := tuple(name for name in names if group_of[name] == n))
    }
    return replace(config, groups=groups)


@dataclass(frozen=True)
class Scenario:
    config: Config
    jobs: list  # of Job
    busy: list  # of jobs, each asked for again as soon as it is over: clients that never leave a model in peace
    costs: Costs
    failing: dict  # model -> how many of its loads fail before one succeeds
    mishaps: list  # of (time, kind, a model or the number of a request)
    looks: list  # times at which on_tick is called for nothing


@st.composite
def scenarios(draw, scheduler="fair", mishaps=("cancel",), failing=True):
    config = draw(configs(scheduler))
    names = tuple(config.models)
    jobs = draw(
        st.lists(
            st.builds(Job, seconds(0, 40), st.sampled_from(names), seconds(0.25, 4), st.sampled_from((0, 0, 3))),
            min_size=1,
            max_size=40,
        )
    )
    mishap = st.tuples(seconds(0, 60), st.sampled_from(mishaps), st.sampled_from(names), st.integers(0, len(jobs) - 1))
    return Scenario(
        config=config,
        jobs=sorted(jobs, key=lambda job: job.at),
        busy=draw(st.lists(st.builds(Job, seconds(0, 5), st.sampled_from(names), seconds(0.25, 4)), max_size=4)),
        costs=Costs(models={name: (draw(seconds(0.25, 6)), draw(seconds(0, 2))) for name in names}),
        failing=draw(st.dictionaries(st.sampled_from(names), st.integers(1, 2), max_size=2 if failing else 0)),
        mishaps=draw(st.lists(mishap, max_size=8)),
        looks=draw(st.lists(seconds(0, 80), max_size=10)),
    )


class Watched:
    """A shipped scheduler, looked at after every event."""

    def __init__(self, config):
        self.config = config
        self.planner = make_planner(config)
        self.scheduler = make_scheduler(config, self.planner)
        self.world = None
        self.answers = Counter()

    def __getattr__(self, name):
        found = getattr(self.scheduler, name)
        if not name.startswith("on_"):
            return found

        def event(*arguments):
            effects = found(*arguments)
            self.answers.update(effect.request.id for effect in effects if isinstance(effect, Grant | Reject))
            assert all(count == 1 for count in self.answers.values()), f"answered twice: {self.answers}"
            return effects

        return event

    def look(self):
        """What must hold between two events."""
        now, world = self.world.now, self.world
        wake = self.scheduler.wake_at()
        assert wake is None or wake >= now - 1e-9 or self.scheduler.on_tick(now) == []
        if wake is None or wake > now:
            assert self.scheduler.on_tick(now) == [], f"something changed by itself before {wake}, at {now}"
        waiting = Counter(visit.job.model for visit in world.visits if visit.is_waiting)
        for model in self.config.models:
            serving = len(world.servers[model].serving) if model in world.servers else 0
            assert self.scheduler.in_flight(model) == serving
            assert self.scheduler.waiting(model) == waiting[model]
        alive = [server.model for server in world.servers.values() if server.state != "stopped"]
        for one in alive:
            for other in alive:
                assert one == other or not self.exclude(one, other), f"{one} and {other} at once, at {now}"

    def exclude(self, one, other):
        """Whether two models may never be there at the same time, whichever is loaded first."""
        return all(
            self.planner.plan(target, View(running=(running,))).evict
            for target, running in ((one, other), (other, one))
        )


def play(scenario, *, reload=lambda config: (config, frozenset(config.models))):
    """Play a scenario to its end, and shut down; return the world."""
    watched = Watched(scenario.config)
    failing = dict(scenario.failing)

    def load_error(model):
        failing[model] = failing.get(model, 0) - 1
        return "it did not start" if failing[model] >= 0 else ""

    world = World(watched, scenario.costs, load_error=load_error)
    watched.world = world
    world.bounds = {}
    fair = scenario.config.fair

    def submit(job):
        visit = world.submit(job)
        watched.look()
        world.at(world.now + fair.max_wait, lambda: note_bound(visit))

    def note_bound(visit):
        if visit.is_waiting:
            older = [other for other in world.visits if other.is_waiting and other.id < visit.id]
            others = Counter(other.job.model for other in older)
            own = others.pop(visit.job.model, 0)
            world.bounds[visit.id] = bound(scenario, visit, list(others.values()), own)

    def mishap(kind, model, number):
        match kind:
            case "cancel":
                if number < len(world.visits):
                    world.cancel(world.visits[number])
            case "unload":
                world.unload([model])
            case "crash":
                world.crash(model)
            case "load":
                world.load(model)
            case "reload":
                world.reload(*reload(watched.config))
        watched.look()

    for job in scenario.jobs:
        world.at(job.at, lambda job=job: submit(job))
    for job in scenario.busy:
        world.at(job.at, lambda job=job: world.add_agent(repeat(replace(job, at=0.25), int(BUSY / job.seconds))))
    for at, *what in scenario.mishaps:
        world.at(at, lambda what=what: mishap(*what))
    for at in scenario.looks:
        world.at(at, watched.look)
    while world._events:
        world.run(world._events[0][0])
        watched.look()
    left = [visit for visit in world.visits if visit.is_waiting]
    world.shutdown()
    world.run()
    assert not any(visit.is_waiting for visit in world.visits)
    world.left = left
    return world


def bound(scenario, visit, others, own):
    """The longest wait of a request that is overdue behind `own` older ones of its model and `others` of each other."""
    fair = scenario.config.fair
    longest = max(job.seconds for job in [*scenario.jobs, *scenario.busy])
    loads, stops = zip(*scenario.costs.models.values(), strict=True)
    swap = max(loads) + max(stops)
    residence = min(max(2 * max(loads), 1.0), 300.0) if fair.min_residence is None else fair.min_residence
    linger = min(2.0, 0.1 * max(loads)) if fair.linger is None else fair.linger
    limits = [model.limit for model in scenario.config.models.values()]
    batch = max(min(fair.max_batch, len(scenario.jobs) + len(scenario.busy)), *others, 0)
    visit_time = longest + swap + max(residence + linger, longest * math.ceil(batch / min(limits)))
    limit = scenario.config.models[visit.job.model].limit
    bounded = fair.max_wait + (len(others) + 1) * visit_time + longest + swap + longest * math.ceil((1 + own) / limit)
    return bounded, visit_time + longest + swap
