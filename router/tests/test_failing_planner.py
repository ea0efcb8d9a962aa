"""A planner that fails, by an exception or by a plan that cannot be: who asked is told, and everybody else goes on."""

import asyncio
import logging
import sys
import types
from dataclasses import replace

import pytest
from conftest import wait_until

from ringcast_router.config.model import Config, Fair, Model
from ringcast_router.errors import Refused
from ringcast_router.planning import GroupPlanner, Plan
from ringcast_router.scheduling import make_scheduler
from ringcast_router.scheduling.interface import Grant, Reject, Request, StartSwap

MESSAGE = "the planner 'moody:Planner' failed for b; the router's log says why"


class Moody(GroupPlanner):
    """Plans by groups, but for the targets that it fails for."""

    by_running = True
    failing: frozenset[str] = frozenset()

    def plan(self, target, view):
        if target in self.failing:
            raise ZeroDivisionError("no luck today")
        return super().plan(target, view)


class Desk:
    """A scheduler with a moody planner: one event a line."""

    def __init__(self, scheduler, *, by_running=True):
        self.config = Config(
            models={name: Model(name) for name in "abc"},
            fair=Fair(max_wait=3.0, min_residence=1.0, linger=0.0),
            scheduler=scheduler,
            router="moody:Planner",
        )
        self.planner = Moody(self.config)
        self.planner.by_running = by_running
        self.scheduler = make_scheduler(self.config, self.planner)
        self.last = 0

    def ask(self, model, now=0.0):
        self.last += 1
        return self.scheduler.on_request(Request(self.last, model, now), now)

    def ready(self, model, now=0.0):
        """Ask for a model that is to be loaded, and let it become ready."""
        swap = next(effect for effect in self.ask(model, now) if isinstance(effect, StartSwap))
        self.scheduler.on_state(model, "starting", now)
        self.scheduler.on_state(model, "ready", now)
        return self.scheduler.on_swap_done(swap.ticket, "", now, 1.0)


def told(effects):
    return [(effect.request.id, effect.status, effect.code) for effect in effects if isinstance(effect, Reject)]


def granted(effects):
    return [effect.request.id for effect in effects if isinstance(effect, Grant)]


def started(effects):
    return [effect.model for effect in effects if isinstance(effect, StartSwap)]


@pytest.fixture(params=["fifo", "fair"])
def scheduler(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["by what runs", "by everything"])
def desk(request, scheduler):
    return Desk(scheduler, by_running=request.param)


def nothing_waits(desk):
    assert [desk.scheduler.waiting(model) for model in "abc"] == [0, 0, 0]
    assert not desk.scheduler._waiters


def test_who_asks_is_told_and_the_log_has_the_traceback(desk, caplog):
    desk.planner.failing = frozenset("b")
    effects = desk.ask("b")
    assert told(effects) == [(1, 500, "planner_failed")]
    assert effects[0].message == MESSAGE
    assert "no luck today" in caplog.text
    assert "Traceback" in caplog.text
    nothing_waits(desk)
    assert granted(desk.ready("a")) == [2]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (None, "a planner returns a Plan, not None"),
        (("a",), "a planner returns a Plan"),
        (Plan(evict=("nobody",)), "the plan evicts 'nobody', which is no model"),
        (Plan(evict=("b",)), "the plan evicts the target itself"),
        (Plan(evict="a"), "the plan's evict is 'a', which is no tuple"),
        (Plan(evict=None), "the plan's evict is None, which is no tuple"),
        (Plan(evict=(1,)), "the plan evicts 1, which is no model"),
        (Plan(evict=([],)), "unhashable type: 'list'"),
        (Plan(rule=None), "the plan's rule is None, which is no Mapping"),
        (Plan(set=None), "the plan's set is None, which is no str"),
        (Plan(cost="7"), "the plan's cost is '7', which is no Real"),
    ],
)
def test_a_plan_that_cannot_be_is_a_failure(scheduler, plan, said, caplog):
    desk = Desk(scheduler)
    desk.planner.plan = lambda target, view: plan
    assert told(desk.ask("b")) == [(1, 500, "planner_failed")]
    assert said in caplog.text
    nothing_waits(desk)


EVENTS = {
    "a request ends": lambda scheduler: scheduler.on_serve_done(1, 1.0),
    "another client leaves": lambda scheduler: scheduler.on_cancel(4, 1.0),
    "a server crashes": lambda scheduler: scheduler.on_state("a", "stopped", 1.0),
    "an unload": lambda scheduler: scheduler.on_unload(["a"], 1.0),
    "a load": lambda scheduler: scheduler.on_load("c", 1.0),
    "the time comes": lambda scheduler: scheduler.on_tick(9.0),
    "another request": lambda scheduler: scheduler.on_request(Request(9, "a", 9.0), 9.0),
}


@pytest.mark.parametrize("event", EVENTS)
def test_who_waits_is_told_whatever_event_asks_the_planner(scheduler, event):
    """a serves request 1; 2 and 3 wait for b, 4 for c. Then the planner begins to fail for b."""
    desk = Desk(scheduler, by_running=False)
    desk.ready("a")
    for model in "bbc":
        assert granted(desk.ask(model)) == []
    desk.planner.failing = frozenset("b")
    effects = EVENTS[event](desk.scheduler)
    effects += desk.scheduler.on_serve_done(9, 9.0) + desk.scheduler.on_serve_done(1, 9.0)
    effects += desk.scheduler.on_state("a", "stopped", 9.0)
    assert told(effects) == [(2, 500, "planner_failed"), (3, 500, "planner_failed")]
    assert started(effects) == ([] if event == "another client leaves" else ["c"])
    assert desk.scheduler.waiting("b") == 0


def test_a_load_that_fails_is_over(desk):
    desk.planner.failing = frozenset("b")
    assert desk.scheduler.on_load("b", 0.0) == []
    nothing_waits(desk)
    desk.planner.failing = frozenset()
    assert started(desk.scheduler.on_load("b", 0.0)) == ["b"]


def test_an_overdue_request_whose_planner_fails_closes_no_gate():
    desk = Desk("fair", by_running=False)
    desk.ready("a")
    desk.ask("b", 0.0)
    desk.planner.failing = frozenset("b")
    assert granted(desk.ask("a", 9.0)) == [3]
    nothing_waits(desk)


def test_a_full_queue_is_no_longer_full_when_those_in_it_are_told():
    desk = Desk("fair", by_running=False)
    desk.scheduler._config = replace(desk.config, queue=replace(desk.config.queue, total=1))
    desk.ready("a")
    desk.ask("b", 0.0)
    desk.planner.failing = frozenset("b")
    effects = desk.ask("a", 9.0)
    assert (told(effects), granted(effects)) == ([(2, 500, "planner_failed")], [3])


def test_a_plan_that_fails_is_explained_as_that(desk):
    desk.planner.failing = frozenset("b")
    with pytest.raises(Refused, match="failed for b") as caught:
        desk.scheduler.explain("b", 0.0)
    assert (caught.value.status, caught.value.code) == (500, "planner_failed")
    assert desk.scheduler.explain("a", 0.0)["action"] == "start"


def test_a_reload_brings_another_planner(desk, monkeypatch):
    desk.ready("a")
    desk.ask("b")
    desk.planner.failing = frozenset("b")
    monkeypatch.setattr("ringcast_router.scheduling.base.make_planner", lambda config: desk.planner)
    effects = desk.scheduler.on_reload(desk.config, frozenset("abc"), 1.0)
    effects += desk.scheduler.on_serve_done(1, 1.0)
    assert told(effects) == [(2, 500, "planner_failed")]
    nothing_waits(desk)


# In a whole router


@pytest.fixture
async def moody(serve, responder, monkeypatch):
    """A router of models A and B whose planner fails for those that the returned set names."""
    failing = set()

    class Planner(Moody):
        by_running = False

        def __init__(self, config):
            super().__init__(config)
            self.failing = failing

    module = types.ModuleType("moody")
    module.Planner = Planner
    monkeypatch.setitem(sys.modules, "moody", module)
    served = await serve(
        f"""
ringcast: {{router: "moody:Planner"}}
models:
  A: {{cmd: "{responder("A")}"}}
  B: {{cmd: "{responder("B")}"}}
"""
    )
    return served, failing


async def test_a_client_gets_openais_shape_and_others_go_on(moody, caplog):
    served, failing = moody
    failing.add("B")
    with caplog.at_level(logging.ERROR):
        answer = await served.ask("B")
    assert answer.status == 500
    assert answer.json["error"] == {
        "message": MESSAGE.replace(" b;", " B;"),
        "type": "server_error",
        "param": None,
        "code": "planner_failed",
    }
    assert "ZeroDivisionError" in caplog.text
    assert served.router.owner.pending() == []
    assert (await served.ask("A")).status == 200
    assert (await served.get("/api/plan?model=B")).status == 500
    failing.clear()
    assert (await served.ask("B")).status == 200


async def test_a_client_that_waits_is_told_when_the_planner_begins_to_fail(moody):
    served, failing = moody
    await served.ask("A")
    first = served.begin("A", wait=0.3)
    await wait_until(lambda: served.router.owner.scheduler.in_flight("A"))
    second = served.begin("B")
    await wait_until(lambda: served.router.owner.scheduler.waiting("B"))
    failing.add("B")
    assert [answer.status for answer in await asyncio.gather(first, second)] == [200, 500]
    assert served.router.owner.pending() == []
