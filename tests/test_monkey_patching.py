"""Under gevent and eventlet: where they have patched `threading`, there are no threads for handlers to run on."""

import importlib.util
import sys

import pytest

GREEN = {
    "gevent": """
import gevent as green, gevent.monkey
gevent.monkey.patch_all({})
start = green.spawn
""",
    "eventlet": """
import warnings
with warnings.catch_warnings(action="ignore"):
    import eventlet as green  # warns of itself
green.monkey_patch({})
start = green.spawn
""",
}
PROGRAM = """
from ringcast import Dispatcher, StartError, record, type_id

class Tick:
    pass

@record
class Point:
    x: int

bus = Dispatcher()
handled = []
"""


@pytest.fixture(params=GREEN)
def run_green(request, run_until_done):
    """Runs a program in which gevent or eventlet has patched the standard library."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip(f"greenlet, which {request.param} needs, would bring the GIL back")
    if importlib.util.find_spec(request.param) is None:  # not imported here: both change the process
        pytest.skip(f"could not import '{request.param}'")

    def run(program, how=""):
        run_until_done(GREEN[request.param].format(how) + PROGRAM + program)

    return run


REFUSED = """
for _ in range(2):
    try:
        {}
    except StartError as error:
        assert "monkey_patch(thread=False)" in str(error) and "mode='direct'" in str(error), error
    else:
        raise AssertionError("it would have to be refused")
"""


@pytest.mark.parametrize("way", ["publish(Tick())", "publish_many([Tick()])", "publish_to(type_id(Tick), Tick())"])
def test_the_first_publish_to_a_queued_handler_is_refused(run_green, way):
    run_green(
        "subscription = bus.subscribe(Tick, handled.append)"
        + REFUSED.format(f"bus.{way}")
        + "assert subscription.pending == 0\nassert bus.wait_idle(5)\nbus.close(5)\nassert handled == []"
    )


def test_a_native_handler_is_refused_when_it_is_subscribed(run_green):
    run_green(REFUSED.format("bus.subscribe_native(Point, 1)") + "bus.close(5)\nassert bus.count(Point) == 0")


def test_greenlets_are_seen_in_other_greenlets_too(run_green):
    run_green(
        "bus.subscribe(Tick, handled.append)\ndef refused():"
        + REFUSED.replace("\n", "\n    ").format("bus.publish(Tick())")
        + "\n    handled.append('refused')\nstart(refused)\ngreen.sleep(0)\nassert handled == ['refused']\nbus.close(5)"
    )


def test_direct_handlers_work(run_green):
    run_green(
        "bus.subscribe(Tick, handled.append, mode='direct')\n"
        "start(bus.publish, Tick())\ngreen.sleep(0)\nassert bus.publish(Tick()) == 1\n"
        "bus.close(5)\nassert len(handled) == 2"
    )


def test_queued_handlers_work_where_threads_are_left_as_they_are(run_green):
    run_green(
        "import time\nbus.subscribe(Tick, lambda tick: (time.sleep(0.001), handled.append(tick)))\n"
        "tasks = [start(bus.publish, Tick()) for _ in range(20)]\nwhile bus.wait_idle(5) and len(handled) < 20:\n"
        "    green.sleep(0.001)\nbus.close(5)",
        "thread=False",
    )
