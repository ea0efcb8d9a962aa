"""Greenlets: handlers that switch to another greenlet of their thread, and so leave the stack to it for a while."""

import itertools
import sys

import pytest

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    pytest.skip("greenlet would bring the GIL back for all tests of this process", allow_module_level=True)
greenlet = pytest.importorskip("greenlet")


class Tick:
    pass


@pytest.fixture
def deliver(make_bus):
    """Makes a function that has a direct handler called in this thread."""

    def make(handler):
        bus = make_bus()
        bus.subscribe(Tick, handler, mode="direct")
        return lambda: bus.publish(Tick())

    return make


@pytest.fixture
def pick(make_bus, make_gate):
    """Makes a function that has a `where` called in this thread: the only worker is held."""

    def make(where):
        bus, gate = make_bus(max_workers=1), make_gate()
        bus.subscribe(Tick, gate.hold)
        bus.publish(Tick())
        gate.wait_until_held()
        subscription = bus.subscribe(Tick, lambda tick: None, policy="drop_oldest", where=where)
        bus.publish(Tick())
        return lambda: subscription.pending

    return make


def overwrite_the_stack(depth=200):
    return min([depth, 1]) + (overwrite_the_stack(depth - 1) if depth else 0)


@pytest.mark.parametrize("ways", ["deliver", "pick", "deliver, pick, deliver"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_calls_that_switch_away_end_in_any_order(deliver, pick, ways, order):
    hub, log = greenlet.getcurrent(), []

    def switching(number):
        def handler(tick):
            log.append(("begins", number))
            hub.switch()
            log.append(("ends", number))

        return handler

    makers = {"deliver": deliver, "pick": pick}
    names = (ways.split(", ") * 3)[:3]
    greenlets = [greenlet.greenlet(makers[name](switching(number))) for number, name in enumerate(names)]
    for each in greenlets:
        each.switch()
        overwrite_the_stack()
    for number in order:
        greenlets[number].switch()
        overwrite_the_stack()
    assert log == [("begins", number) for number in range(3)] + [("ends", number) for number in order]
    assert all(each.dead for each in greenlets)


def test_what_is_published_while_a_direct_handler_is_switched_away_is_delivered_when_it_comes_back(bus):
    hub, log = greenlet.getcurrent(), []

    def handler(number: int) -> None:
        log.append(number)
        if number == 1:
            hub.switch()

    bus.subscribe(handler, mode="direct")
    first = greenlet.greenlet(lambda: bus.publish(1))
    first.switch()
    overwrite_the_stack()
    bus.publish(2)
    assert log == [1]
    first.switch()
    assert log == [1, 2]


def test_what_ends_a_greenlet_in_a_direct_handler_ends_its_publish(make_bus):
    failures, after = [], []
    bus = make_bus(on_error=failures.append)
    hub = greenlet.getcurrent()
    bus.subscribe(Tick, lambda tick: hub.switch(), mode="direct")

    def publish():
        bus.publish(Tick())
        after.append("went on")

    publisher = greenlet.greenlet(publish)
    publisher.switch()
    publisher.throw(greenlet.GreenletExit)
    assert publisher.dead
    assert (after, failures) == ([], [])
