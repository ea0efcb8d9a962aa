"""A scheduler that raises, as somebody's own may: what the owner of the routing state makes of it, event by event."""

import sys
import types
from dataclasses import replace

import pytest

from ringcast_router.errors import Refused
from ringcast_router.events import RequestFinished
from ringcast_router.scheduling import FairScheduler
from ringcast_router.scheduling.interface import Grant, Reject, Request, StartSwap, Stop

EVENTS = ("on_request", "on_cancel", "on_swap_done", "on_serve_done", "on_state", "on_load", "on_unload", "on_tick")


@pytest.fixture
async def served(serve, responder, monkeypatch):
    """A router of models A and B. `failing` of the result names the methods of its scheduler that raise."""
    failing = set()

    class Scheduler(FairScheduler):
        """The built-in one, but for what it is told to fail at."""

    def failing_or_not(name):
        def method(self, *arguments):
            if name in failing:
                raise ZeroDivisionError(f"no luck with {name}")
            return getattr(FairScheduler, name)(self, *arguments)

        return method

    for name in EVENTS:
        setattr(Scheduler, name, failing_or_not(name))
    module = types.ModuleType("moody")
    module.Scheduler = Scheduler
    monkeypatch.setitem(sys.modules, "moody", module)
    served = await serve(
        f"""
ringcast: {{scheduler: "moody:Scheduler"}}
groups: {{all: {{swap: false, members: [A, B]}}}}
models:
  A: {{cmd: "{responder("A")}", ttl: 1}}
  B: {{cmd: "{responder("B")}"}}
"""
    )
    served.failing = failing
    yield served
    failing.clear()


async def test_who_asks_is_told_and_nothing_is_left(served, caplog):
    finished = []
    served.router.bus.subscribe(RequestFinished, finished.append, mode="direct")
    served.failing.add("on_request")
    answer = await served.ask("A")
    assert answer.status == 500
    assert answer.json["error"] == {
        "message": "the scheduler 'moody:Scheduler' failed; the router's log says why",
        "type": "server_error",
        "param": None,
        "code": "scheduler_failed",
    }
    assert "no luck with on_request" in caplog.text
    assert served.router.owner.pending() == []
    assert [(event.outcome, event.status) for event in finished] == [("refused", 500)]
    served.failing.clear()
    assert (await served.ask("A")).status == 200


@pytest.mark.parametrize("event", ["on_swap_done", "on_state"])
async def test_who_waits_for_the_model_of_an_event_is_not_left_to_wait(served, event):
    await served.ask("B")
    served.failing.add(event)
    assert (await served.ask("A")).status == 500
    assert served.router.owner.pending() == []
    assert (await served.ask("B")).status == 200


async def test_who_was_refused_so_is_not_granted_before_its_task_has_noticed(served):
    owner = served.router.owner
    await served.ask("A")
    granted = [owner.submit("A") for _ in range(owner.config.models["A"].limit)]
    waiting = owner.submit("A")
    served.failing.add("on_load")
    owner.load("A")
    granted[0].end()  # now it would be its turn
    with pytest.raises(Refused, match="'moody:Scheduler' failed"):
        await waiting.granted()
    for pending in (*granted, waiting):
        pending.end()
    assert owner.pending() == []
    assert owner.scheduler.in_flight("A") == 0
    assert served.router.processes["A"]._in_flight == 0


async def test_a_served_request_is_served_though_its_end_cannot_be_told(served):
    served.failing.add("on_serve_done")
    assert (await served.ask("A")).status == 200
    assert served.router.owner.pending() == []
    assert (await served.ask("B")).status == 200


async def test_a_client_that_leaves_is_forgotten_though_that_cannot_be_told(served, until):
    served.failing.add("on_cancel")
    client = served.begin("A")
    await until(lambda: served.router.owner.pending())
    client.cancel()
    await until(lambda: not served.router.owner.pending())


@pytest.mark.parametrize(("event", "path"), [("on_load", "/api/models/load/A"), ("on_unload", "/api/models/unload/A")])
async def test_an_administrators_wish_is_carried_out_or_answered(served, event, path):
    """A load is a request as well, which loads the model; an unload stops the server by itself."""
    served.failing.add(event)
    assert (await served.post(path)).status == 200
    served.failing.clear()
    assert (await served.ask("A")).status == 200


async def test_a_tick_that_fails_is_logged_and_called_no_more(served, caplog):
    served.failing.add("on_tick")
    served.router.owner._time_has_come()
    assert caplog.text.count("no luck with on_tick") == 1
    assert (await served.ask("A")).status == 200


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "'NoneType' object is not iterable"),
        ([None], "a scheduler returns effects, not None"),
        ([("grant", 1)], r"a scheduler returns effects, not ('grant', 1)"),
        (Grant, "'type' object is not iterable"),
    ],
)
async def test_what_is_no_effect_is_a_failure(served, caplog, monkeypatch, returned, said):
    monkeypatch.setattr(served.router.owner.scheduler, "on_request", lambda request, now: returned)
    answer = await served.ask("A")
    assert (answer.status, answer.json["error"]["code"]) == (500, "scheduler_failed")
    assert said in caplog.text
    assert served.router.owner.pending() == []


async def test_a_swap_that_cannot_be_made_is_a_failed_load(served, caplog, monkeypatch):
    """Whoever waits for it is told, as of any other."""
    owner = served.router.owner
    event = owner.scheduler.on_request

    def spoil(request, now):
        return [replace(e, rule=None) if isinstance(e, StartSwap) else e for e in event(request, now)]

    monkeypatch.setattr(owner.scheduler, "on_request", spoil)
    answer = await served.ask("A")
    assert (answer.status, answer.json["error"]["code"]) == (503, "start_failed")
    assert "'NoneType' object has no attribute 'items'" in caplog.text


@pytest.mark.parametrize("question", ["in_flight", "waiting", "wake_at"])
async def test_a_question_that_fails_leaves_nobody_waiting(served, caplog, monkeypatch, question):
    with monkeypatch.context() as failing:
        failing.setattr(served.router.owner.scheduler, question, lambda *_: 1 / 0)
        answer = await served.ask("A")
        assert answer.status in (200, 500)
        assert "ZeroDivisionError" in caplog.text
        assert served.router.owner.pending() == []
    assert (await served.ask("A")).status == 200
    await served.until("A", "stopped")  # by its ttl


async def test_an_effect_that_cannot_be_carried_out_stops_no_other(served, caplog, monkeypatch):
    await served.ask("A")
    owner = served.router.owner
    wrong = Reject(Request(0, "A", 0.0), 500, "", "")
    monkeypatch.setattr(owner, "_refuse", lambda effect: 1 / 0)
    monkeypatch.setattr(owner.scheduler, "on_load", lambda model, now: [wrong, Stop(("A",))])
    owner.load("A")
    assert "could not be carried out" in caplog.text
    await served.until("A", "stopped")
