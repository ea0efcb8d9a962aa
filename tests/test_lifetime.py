"""Lifetime: events, handlers, classes and dispatchers are let go as soon as nobody needs them any more."""

import contextlib
import gc
import json
import sys
import threading
import time
import weakref

import pytest

from ringcast import ClosedError, Dispatcher, EventClassError
from ringcast.exit_and_fork import dispatchers


class Payload:
    """Tells when it is released."""

    def __init__(self, number=0):
        self.number = number


class Other:
    __event_type__ = 0x40


class Conflicting:
    __event_type__ = 0x40


def publish_payload(bus, number=0):
    """Publishes an event that only the dispatcher holds; gives the threading.Event of its release."""
    payload, released = Payload(number), threading.Event()
    weakref.finalize(payload, released.set)
    bus.publish(payload)
    return released


def is_collected(reference):
    gc.collect()
    return reference() is None


# --- events ---


def test_an_event_is_released_when_its_last_subscriber_has_seen_it(bus, make_gate, recorder, deadline):
    first, last = make_gate(), make_gate()

    def quick(payload: Payload) -> None:
        recorder(payload.number)

    bus.subscribe(Payload, first.hold)
    bus.subscribe(Payload, last.hold)
    bus.subscribe(quick)
    released = publish_payload(bus)
    first.wait_until_held()
    last.wait_until_held()
    recorder.wait_for(1)
    first.open()
    assert not released.wait(0.05)
    last.open()
    assert released.wait(deadline)


def test_an_event_is_released_although_the_next_ones_handler_is_stuck(bus, gate, deadline):
    def handler(payload: Payload) -> None:
        if payload.number == 5:
            gate.hold()

    bus.subscribe(handler)
    released = [publish_payload(bus, number) for number in range(10)]
    gate.wait_until_held()
    for number in range(5):
        assert released[number].wait(deadline)
    assert not any(released[number].is_set() for number in range(5, 10))


def test_an_event_is_released_after_its_handler_has_waited_for_room_elsewhere(make_bus, gate, eventually, deadline):
    bus = make_bus(max_queue=1)
    waiter = bus.subscribe(Payload, lambda payload: bus.publish(Other()))
    bus.subscribe(Other, gate.hold)
    bus.publish(Other())
    gate.wait_until_held()
    released = publish_payload(bus)  # its handler waits: the one event that Other may have is being handled
    assert not released.wait(0.05)
    gate.open()
    assert released.wait(deadline)
    eventually(lambda: waiter.delivered == 1)


@pytest.mark.parametrize("how", ["discarded", "failing", "cancelled", "closed", "no subscriber"])
def test_no_way_keeps_an_event(make_bus, gate, how, deadline):
    bus = make_bus(on_error=lambda failure: None)

    def handler(payload: Payload) -> None:
        gate.hold()
        if how == "failing":
            raise ValueError

    subscription = bus.subscribe(handler)
    if how == "no subscriber":
        subscription.cancel()
    released = [publish_payload(bus, number) for number in range(5)]
    if how != "no subscriber":
        gate.wait_until_held()
    if how in ("discarded", "cancelled"):
        subscription.cancel(discard=how == "discarded")
    gate.open()
    if how == "closed":
        bus.close(deadline)
    for event in released:
        assert event.wait(deadline)


def test_reference_counts_of_an_event_are_the_same_before_and_after(make_bus, eventually, deadline):
    bus = make_bus(max_queue=100, on_error=lambda failure: None)
    event = Payload()
    before = sys.getrefcount(event)

    def failing(payload: Payload) -> None:
        raise ValueError

    seen = [0, 0]

    def first(payload: Payload) -> None:
        seen[0] += 1

    def second(payload: Payload) -> None:
        seen[1] += 1

    subscriptions = [bus.subscribe(handler) for handler in (first, second, failing)]
    for _ in range(2000):
        bus.publish(event)
    for subscription in subscriptions:
        eventually(lambda subscription=subscription: subscription.pending == 0)
    assert seen == [2000, 2000]
    eventually(lambda: sys.getrefcount(event) == before)

    for _ in range(50):
        bus.publish(event)
    subscriptions[0].cancel(discard=True)
    subscriptions[1].cancel()
    bus.close(deadline)
    eventually(lambda: sys.getrefcount(event) == before)
    for _ in range(10):
        with pytest.raises(ClosedError):
            bus.publish(event)
    assert sys.getrefcount(event) == before


def test_a_refused_call_keeps_no_reference(bus, recorder):
    bus.subscribe(Other, recorder)
    event, handler = Conflicting(), lambda event: None
    before = sys.getrefcount(event), sys.getrefcount(handler), sys.getrefcount(Conflicting)
    for _ in range(10):
        for refused in (
            lambda: bus.publish(event),
            lambda: bus.publish_to(0x40, event),
            lambda: bus.subscribe(Conflicting, handler),
        ):
            with pytest.raises(EventClassError):
                refused()
    gc.collect()
    after = sys.getrefcount(event), sys.getrefcount(handler), sys.getrefcount(Conflicting)
    # one more at most: what the last refusal has left in a cache or a frame, but not one for each
    assert all(count <= earlier + 1 for count, earlier in zip(after, before, strict=True))


def test_finalizers_of_events_may_use_the_dispatcher(make_bus, make_recorder):
    # a worker that releases the last reference runs __del__ in the middle of its work
    bus = make_bus(max_queue=2)
    recorder = make_recorder()

    class Reborn:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            if self.number and not bus.closed:
                recorder(self.number)  # first: where the turn is split, the next one may come before this ends
                with contextlib.suppress(ClosedError):  # of the last, when the test has ended
                    bus.publish(Reborn(self.number - 1))
                    bus.subscribe(Other, lambda event: None).cancel()

    bus.subscribe(Reborn, lambda event: None)
    bus.publish(Reborn(50))
    assert recorder.wait_for(50) == list(range(50, 0, -1))


# --- handlers and classes ---


class Handler:
    def __call__(self, payload: Payload) -> None:
        pass


@pytest.mark.parametrize("discard", [False, True])
def test_a_handler_is_released_after_its_subscription_is_cancelled(bus, eventually, discard):
    handler = Handler()
    alive = weakref.ref(handler)
    subscription = bus.subscribe(handler)
    bus.publish(Payload())
    del handler
    gc.collect()
    assert alive() is not None
    subscription.cancel(discard=discard)
    del subscription
    eventually(lambda: is_collected(alive))


def test_a_handler_is_released_when_the_dispatcher_is_closed_and_gone(eventually, deadline):
    handler, bus = Handler(), Dispatcher()
    alive = weakref.ref(handler)
    bus.subscribe(handler)
    bus.publish(Payload())
    bus.close(deadline)
    del handler, bus
    eventually(lambda: is_collected(alive))


@pytest.mark.usefixtures("collected_classes")
def test_an_event_class_is_released_after_its_last_subscription(bus, eventually):
    event_class = type("Passing", (), {})
    alive = weakref.ref(event_class)
    subscription = bus.subscribe(event_class, lambda event: None)
    bus.publish(event_class())
    del event_class
    gc.collect()
    assert alive() is not None
    subscription.cancel()
    del subscription
    eventually(lambda: is_collected(alive))


# --- dispatchers ---


def test_a_cycle_of_dispatcher_and_handler_is_collected(eventually):
    class Service:
        def __init__(self):
            self.bus = Dispatcher(name="cycle")
            self.subscription = self.bus.subscribe(self.on_payload)
            self.done = threading.Event()

        def on_payload(self, payload: Payload) -> None:
            self.done.set()

    service = Service()
    service.bus.publish(Payload())
    eventually(service.done.is_set)
    alive = weakref.ref(service), weakref.ref(service.bus)
    del service
    for reference in alive:
        eventually(lambda reference=reference: is_collected(reference))
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("cycle-")])


def test_dispatchers_are_found_while_other_threads_drop_theirs(make_bus, spawn):
    kept, stop = make_bus(), threading.Event()

    def make_and_drop():
        while not stop.is_set():
            passing = [Dispatcher() for _ in range(20)]
            passing.clear()

    threads = [spawn(make_and_drop) for _ in range(4)]
    try:
        for _ in range(20_000):
            assert kept in dispatchers()  # as a fork and the interpreter's exit ask
    finally:
        stop.set()
    for thread in threads:
        thread.result()


def test_a_cycle_of_dispatcher_and_waiting_event_is_collected_when_delivered(gate, eventually):
    bus = Dispatcher()
    alive = weakref.ref(bus)
    bus.subscribe(Payload, gate.hold)
    for number in range(3):
        payload = Payload(number)
        payload.bus = bus
        bus.publish(payload)
    gate.wait_until_held()
    del bus, payload
    gc.collect()
    gate.open()
    eventually(lambda: is_collected(alive))


LEAKS = """
import gc, json, sys, sysconfig
from ringcast import Dispatcher

class Event:
    __event_type__ = 1

# free-threaded Python 3.13 never frees a class
immortal = sys.version_info < (3, 14) and sysconfig.get_config_var("Py_GIL_DISABLED")
kept_class = type("Passing", (), {}) if immortal else None

def refused(call, *arguments):
    try:
        call(*arguments)
    except Exception:
        pass

def once(number):
    with Dispatcher(max_queue=64, on_error=lambda failure: None) as bus:
        passing = kept_class or type("Passing", (), {})
        for event_class in (Event, passing):
            kept = bus.subscribe(event_class, lambda event: None)
            failing = bus.subscribe(event_class, lambda event: 1 / 0)
            for _ in range(100):
                bus.publish(event_class())
            failing.cancel(discard=True)
            kept.cancel()
        refused(bus.publish_to, -1, Event())
        refused(bus.subscribe, 5)
    refused(bus.publish, Event())

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4
    except OSError:
        return 0

def measure():
    gc.collect()
    return sys.getallocatedblocks(), resident()

for number in range(50):
    once(number)
before = measure()
for number in range(150):
    once(number)
after = measure()
print(json.dumps([after[0] - before[0], after[1] - before[1]]))
"""


def test_dispatchers_that_come_and_go_leave_no_memory_behind(run_python):
    # in a fresh process, where nothing else allocates
    result = run_python(LEAKS)
    assert result.stderr == ""
    blocks, kibibytes = json.loads(result.stdout)
    assert blocks < 150  # less than one block for each dispatcher
    assert kibibytes < 2048


@pytest.mark.parametrize("options", [{"subclasses": True}, {"context": "publisher"}], ids=str)
def test_a_subscription_that_ends_within_its_turn_stays_until_the_worker_has_left_it(bus, recorder, options):
    """Its topic goes with it, and both refer to each other: for the garbage collector they are garbage at once.
    (Without the GIL the thread that has made an event may finalize it, when the worker is through.)"""
    ends, workers = threading.Event(), []

    class Base:
        pass

    class Tick(Base):
        def __del__(self):
            if kept and ends.is_set():
                reference = weakref.ref(kept[0])
                kept.pop().cancel(discard=True)
                gc.collect()
                recorder(reference() is not None or threading.get_ident() not in workers)

    def handler(tick):
        workers.append(threading.get_ident())
        if not ends.is_set():  # long enough for the watch to ask for the worker's attention after the call
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                pass
            ends.set()

    kept = [bus.subscribe(Base if "subclasses" in options else Tick, handler, **options)]
    bus.publish_many([Tick() for _ in range(3)])
    assert recorder.wait_for(1) == [True]
    assert bus.wait_idle(10)
    gc.collect()
    assert bus.subscriptions() == []
