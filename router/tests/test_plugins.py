"""Planners and schedulers of one's own: how they are found, and what is said when they are not."""

import importlib.metadata
import sys
import types
from pathlib import Path

import pytest

from ringcast_router.config import loads
from ringcast_router.config.model import Config, Model
from ringcast_router.errors import ConfigError
from ringcast_router.planning import GroupPlanner, View, make_planner
from ringcast_router.scheduling import FifoScheduler, make_scheduler
from ringcast_router.simulation import Costs, Job, Trace, run

MODELS = {name: Model(name) for name in "abcde"}


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    yield
    sys.modules.pop("planner_lru", None)


@pytest.fixture
def installed(monkeypatch):
    """Let an entry point be found as if a distribution had it; returns a function (kind, name, value)."""
    points = []

    def entry_points(*, group):
        return [point for point in points if point.group == group]

    monkeypatch.setattr("ringcast_router.plugins.entry_points", entry_points)
    return lambda group, name, value: points.append(importlib.metadata.EntryPoint(name, value, group))


def test_a_planner_is_named_by_module_and_class(examples):
    planner = make_planner(Config(models=MODELS, router="planner_lru:Oldest"))
    view = View(running=("a", "b", "c"), ready_at={"a": 3.0, "b": 1.0, "c": 2.0}, now=9.0)
    plan = planner.plan("d", view)
    assert plan.evict == ("b",)
    assert plan.rule == {"b": "ready for longest of 3"}
    assert planner.plan("a", view).evict == ()


def test_the_planner_of_the_example_serves_a_load(examples):
    """Five models, three places: four loads for a, b, c, d; then e takes the place of the one ready for longest."""
    config = Config(models=MODELS, router="planner_lru:Oldest", scheduler="fair")
    report = run(config, Trace([Job(20.0 * n, name) for n, name in enumerate("abcdea")], Costs(5, 1)))
    assert (report.served, report.swaps) == (6, 6)


def test_an_entry_point_is_named_by_its_name(installed):
    installed("ringcast_router.planners", "theirs", "ringcast_router.planning.group:GroupPlanner")
    installed("ringcast_router.schedulers", "theirs", "ringcast_router.scheduling.fifo:FifoScheduler")
    config = Config(models=MODELS, router="theirs", scheduler="theirs")
    planner = make_planner(config)
    assert isinstance(planner, GroupPlanner)
    assert isinstance(make_scheduler(config, planner), FifoScheduler)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nonsense", "no planner 'nonsense'; known are group, matrix, theirs, broken"),
        ("no_such_module:Planner", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:Planner", "module json has no 'Planner'"),
        ("json:JSONDecodeError", "cannot be made: TypeError"),
        ("builtins:dict", "cannot be made: TypeError"),
        ("builtins:repr", "is no planner: str has no method 'plan'"),
        ("broken", r"no_such_module:Planner\): ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_a_planner_is_said(installed, name, said):
    installed("ringcast_router.planners", "theirs", "ringcast_router.planning.group:GroupPlanner")
    installed("ringcast_router.planners", "broken", "no_such_module:Planner")
    with pytest.raises(ConfigError, match=said.replace("theirs, broken", "broken, theirs")) as error:
        make_planner(Config(models=MODELS, router=name))
    assert error.value.key == "ringcast.router"


@pytest.fixture
def theirs(monkeypatch):
    """Let a class be found as `theirs:Theirs`; returns a function that takes it."""

    def put(kind):
        module = types.ModuleType("theirs")
        module.Theirs = kind
        monkeypatch.setitem(sys.modules, "theirs", module)

    return put


class NoArguments(FifoScheduler):
    def on_tick(self):
        return []


class OneMore(FifoScheduler):
    def on_swap_done(self, ticket, error, now, seconds, why):
        return []


class Anything:
    """Takes every call, so that it may be a scheduler as far as anybody can see."""

    def __init__(self, *_):
        pass

    def __getattr__(self, name):
        return lambda *arguments: []


class Leaves:
    def __init__(self, *_):
        sys.exit("no licence")


class OnlyRequests:
    def __init__(self, *_):
        pass

    def on_request(self, request, now):
        return []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OnlyRequests, r"OnlyRequests has no method 'on_cancel', 'on_swap_done', .*'in_flight', 'explain'$"),
        (NoArguments, r"NoArguments.on_tick does not take \(now\)$"),
        (OneMore, r"OneMore.on_swap_done does not take \(ticket, error, now, seconds\)$"),
        (Leaves, "cannot be made: SystemExit: no licence"),
    ],
)
def test_what_lacks_a_part_of_a_scheduler_is_none(theirs, kind, said):
    theirs(kind)
    config = loads("ringcast:\n  scheduler: theirs:Theirs\nmodels: {}\n", file="config.yaml")
    with pytest.raises(ConfigError, match=said) as error:
        make_scheduler(config, make_planner(config))
    assert str(error.value).startswith("config.yaml:2: ringcast.scheduler: scheduler 'theirs:Theirs' ")


def test_what_takes_every_call_may_be_a_scheduler(theirs):
    theirs(Anything)
    config = Config(models=MODELS, scheduler="theirs:Theirs")
    assert isinstance(make_scheduler(config, make_planner(config)), Anything)
