"""own_thread=True: all calls of a handler are in one thread, which runs no other one and ends with the subscription."""

import ctypes
import gc
import itertools
import os
import sqlite3
import sys
import threading
import time
import weakref
from dataclasses import dataclass

import pytest
from forking import PRELUDE
from limits import DEADLINE

from ringcast import ClosedError, Dispatcher, OptionError, StartError, record
from ringcast.records import int64

TURNS = 30  # more than it takes a slow handler to be moved to another worker


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class Tock:
    number: int


@record
class Reading:
    number: int64


NATIVE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


class Calls:
    """A handler that notes in which threads it is called."""

    def __init__(self, handler=lambda what: None):
        self.handler = handler
        self.threads = []

    def __call__(self, what):
        self.threads.append(threading.get_ident())
        self.handler(what)


def slow_at_times(what):
    """Takes long enough, often enough, to be moved to another worker where that is possible."""
    number = what.number if isinstance(what, (Tick, Reading)) else what[0].number
    if number % 3 == 0:
        time.sleep(0.02)


KINDS = {
    "events": (Tick, {}),
    "batches": (Tick, {"batch": 3}),
    "records": (Reading, {}),
    "batches of records": (Reading, {"batch": 3}),
    "several classes": ((Tick, Tock), {}),
    "subclasses": (Tick, {"subclasses": True}),
    "where": (Tick, {"where": lambda tick: True}),
    "the publisher's context": (Tick, {"context": "publisher"}),
    "raise": (Tick, {"policy": "raise"}),
    "drop_newest": (Tick, {"policy": "drop_newest", "where": lambda tick: True}),
    "drop_oldest": (Tick, {"policy": "drop_oldest"}),
    "latest": (Tick, {"policy": "latest"}),
    "latest of each key": (Tick, {"policy": "latest", "key": lambda tick: tick.number % 2, "max_queue": 5}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_calls_of_a_handler_are_in_one_thread_which_no_other_handler_runs_in(bus, kind):
    event_class, options = KINDS[kind]
    own, other = Calls(slow_at_times), Calls(slow_at_times)
    subscription = bus.subscribe(event_class, own, own_thread=True, **options)
    bus.subscribe(event_class, other, **options)
    for number in range(TURNS):
        bus.publish((Reading if event_class is Reading else Tick)(number))
        if number % 10 == 0:
            bus.wait_idle(DEADLINE)
    assert bus.wait_idle(DEADLINE)
    assert subscription.delivered + subscription.dropped == TURNS
    assert len(set(own.threads)) == 1
    assert not set(own.threads) & {*other.threads, threading.get_ident()}


def test_native_handlers_may_have_it_too(bus):
    threads = set()
    handler = NATIVE(lambda records, count, stride, userdata: threads.add(threading.get_native_id()))
    others = set()
    other = NATIVE(lambda records, count, stride, userdata: others.add(threading.get_native_id()))
    subscription = bus.subscribe_native(Reading, handler, own_thread=True)
    bus.subscribe_native(Reading, other)
    for number in range(TURNS):
        bus.publish(Reading(number))
        assert bus.wait_idle(DEADLINE)
    assert subscription.delivered == TURNS
    assert len(threads) == 1
    assert not threads & others


def test_a_connection_of_sqlite3_may_be_kept_by_a_handler_that_is_slow_at_times(make_bus):
    failures = []
    bus = make_bus(on_error=failures.append)
    connections = []

    def store(tick: Tick) -> None:
        if not connections:
            connections.append(sqlite3.connect(":memory:"))
            connections[0].execute("create table ticks (number)")
        connections[0].execute("insert into ticks values (?)", (tick.number,))
        slow_at_times(tick)
        if tick.number == TURNS - 1:
            connections[0].close()

    bus.subscribe(store, own_thread=True)
    bus.subscribe(Tick, lambda tick: None)  # else nobody is held up, and its thread would not change anyway
    for number in range(TURNS):
        bus.publish(Tick(number))
    assert bus.wait_idle(DEADLINE)
    assert failures == []


@pytest.mark.parametrize("way", ["subscribe", "subscribe_to", "on"])
def test_it_is_an_option_of_every_way_to_subscribe(bus, recorder, way):
    def handler(tick: Tick) -> None:
        recorder(threading.get_ident())

    if way == "subscribe_to":
        bus.subscribe_to(7, handler, own_thread=True)
        bus.publish_to(7, Tick(0))
        bus.publish_to(7, Tick(1))
    else:
        bus.subscribe(handler, own_thread=True) if way == "subscribe" else bus.on(own_thread=True)(handler)
        bus.publish_many([Tick(0), Tick(1)])
    assert len(set(recorder.wait_for(2))) == 1


def test_events_keep_their_order(bus, recorder):
    bus.subscribe(Tick, recorder, own_thread=True)
    bus.publish_many([Tick(number) for number in range(5000)])
    assert [tick.number for tick in recorder.wait_for(5000)] == list(range(5000))


def test_each_has_a_thread_of_its_own_beside_the_workers_and_stats_count_them(bus, recorder):
    for _ in range(5):
        bus.subscribe(Tick, lambda tick: recorder(threading.get_ident()), own_thread=True)
    assert bus.stats().workers == 5
    bus.publish(Tick(0))
    assert len(set(recorder.wait_for(5))) == 5
    assert bus.stats().workers > 5


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_while_it_is_stuck_all_others_go_on_however_few_workers_there_may_be(make_bus, make_gate, recorder, policy):
    bus = make_bus(max_workers=1)
    gates = [make_gate() for _ in range(3)]
    for gate in gates:
        bus.subscribe(Tick, gate.hold, own_thread=True, policy=policy)
    bus.subscribe(Tick, recorder)
    for number in range(100):
        bus.publish(Tick(number))
    for gate in gates:
        gate.wait_until_held()
    assert [tick.number for tick in recorder.wait_for(100)] == list(range(100))


def test_it_never_waits_for_room_that_it_has_to_make(make_bus):
    bus = make_bus(max_queue=4)
    seen = []

    def handler(tick: Tick) -> None:
        seen.append(tick.number)
        if tick.number < 50:
            bus.publish_many([Tick(51)] * 9)
            bus.publish(Tick(tick.number + 1))

    bus.subscribe(handler, own_thread=True)
    bus.publish(Tick(0))
    assert bus.wait_idle(DEADLINE)
    assert len(seen) == 51 + 50 * 9


@pytest.mark.parametrize("max_workers", [1, 4])
@pytest.mark.parametrize("second", [True, False], ids=["own", "a worker's"])
def test_two_that_fill_each_others_queues_do_not_wait_for_each_other(make_bus, max_workers, second):
    bus = make_bus(max_queue=4, max_workers=max_workers)

    def on_tick(tick: Tick) -> None:
        if tick.number < 300:
            bus.publish_many([Tock(tick.number), Tock(1000)])

    def on_tock(tock: Tock) -> None:
        if tock.number < 300:
            bus.publish_many([Tick(tock.number + 1), Tick(1000)])

    one = bus.subscribe(on_tick, own_thread=True)
    other = bus.subscribe(on_tock, own_thread=second)
    bus.publish(Tick(0))
    assert bus.wait_idle(DEADLINE)
    assert (one.delivered, other.delivered) == (601, 600)


def test_a_publisher_waits_for_room_as_in_any_queue(make_bus, gate, spawn):
    bus = make_bus(max_queue=10)
    subscription = bus.subscribe(Tick, gate.hold, own_thread=True)
    publishing = spawn(lambda: [bus.publish(Tick(number)) for number in range(40)])
    gate.wait_until_held()
    assert subscription.pending <= 10
    assert not publishing.done()
    gate.open()
    publishing.result(DEADLINE)
    assert bus.wait_idle(DEADLINE)
    assert subscription.delivered == 40


# --- the end of the thread ---

names = map("own-thread-{}-".format, itertools.count())


def workers_of(bus):
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{bus.name}-worker")]


ENDS = {
    "cancel": lambda bus, subscription: subscription.cancel(),
    "discard": lambda bus, subscription: subscription.cancel(discard=True),
    "a block": lambda bus, subscription: subscription.__exit__(None, None, None),
    "off": lambda bus, subscription: bus.off(subscription.handler),
    "close": lambda bus, subscription: bus.close(),
}


@pytest.mark.parametrize("published", [0, 1, 20])
@pytest.mark.parametrize("end", ENDS)
def test_the_thread_ends_with_the_subscription_also_where_somebody_keeps_that(make_bus, eventually, end, published):
    bus = make_bus(name=next(names))
    subscription = bus.subscribe(Tick, lambda tick: None, own_thread=True)
    (own,) = workers_of(bus)
    bus.publish_many([Tick(number) for number in range(published)])
    ENDS[end](bus, subscription)
    eventually(lambda: not own.is_alive())
    assert subscription.delivered + subscription.dropped == published


def test_what_the_thread_had_goes_with_it(bus, eventually):
    local, kept = threading.local(), []

    class Connection:
        pass

    def handler(tick: Tick) -> None:
        local.connection = Connection()
        kept.append(weakref.ref(local.connection))

    subscription = bus.subscribe(handler, own_thread=True)
    bus.publish(Tick(0))
    bus.wait_idle(DEADLINE)
    assert kept[0]() is not None
    subscription.cancel()
    eventually(lambda: gc.collect() >= 0 and kept[0]() is None)


def test_it_ends_with_the_one_call_of_once_and_with_the_owner_of_a_weak_handler(make_bus, eventually):
    class Owner:
        def handle(self, tick: Tick) -> None:
            pass

    bus, owner = make_bus(name=next(names)), Owner()
    bus.subscribe(Tick, lambda tick: None, own_thread=True, once=True)
    bus.subscribe(owner.handle, own_thread=True, weak=True)
    own = workers_of(bus)
    assert len(own) == 2
    bus.publish(Tick(0))
    assert bus.wait_idle(DEADLINE)
    del owner
    gc.collect()
    eventually(lambda: not any(thread.is_alive() for thread in own))


@pytest.mark.parametrize("what", ["cancel", "discard", "close"])
def test_its_handler_may_end_it(make_bus, eventually, what):
    bus = make_bus(name=next(names))
    handled = []

    def handler(tick: Tick) -> None:
        handled.append(tick.number)
        if tick.number == 3:
            bus.close() if what == "close" else subscription.cancel(discard=what == "discard")

    subscription = bus.subscribe(handler, own_thread=True)
    (own,) = workers_of(bus)
    bus.publish_many([Tick(number) for number in range(10)])
    eventually(lambda: not own.is_alive())
    assert subscription.delivered + subscription.dropped == 10
    assert handled[:4] == [0, 1, 2, 3]


def test_a_dispatcher_that_is_forgotten_leaves_no_thread(eventually):
    bus = Dispatcher(name=next(names))
    bus.subscribe(Tick, lambda tick: None, own_thread=True)
    bus.publish(Tick(0))
    assert bus.wait_idle(DEADLINE)
    workers = workers_of(bus)
    assert len(workers) == 2
    del bus
    gc.collect()
    eventually(lambda: not any(worker.is_alive() for worker in workers))


def test_subscriptions_that_come_and_go_leave_neither_threads_nor_places_behind(make_bus, eventually):
    bus = make_bus(name=next(names))
    for number in range(200):
        with bus.subscribe(Tick, lambda tick: None, own_thread=True):
            bus.publish(Tick(number))
    eventually(lambda: bus.stats().workers <= 2)
    assert len(workers_of(bus)) <= 2


@pytest.mark.thread_unsafe(reason="it counts what the whole process does")
@pytest.mark.parametrize("native", [False, True])
def test_of_threads_that_end_at_once_not_all_wake_up_again_and_again_to_ask_for_the_gil(bus, native):
    resource = pytest.importorskip("resource")
    count, handler = 50, NATIVE(lambda *_: None)

    def subscribe():
        if native:
            return bus.subscribe_native(Reading, handler, own_thread=True)
        return bus.subscribe(Reading, lambda reading: None, own_thread=True)

    subscriptions = [subscribe() for _ in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for subscription in subscriptions:
            subscription.cancel()
        ctypes.PyDLL(None).usleep(200_000)  # with the GIL: each thread that waits for it asks 40 times
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    finally:
        sys.setswitchinterval(interval)
    assert switches < 10 * count


# --- refused ---


@pytest.mark.parametrize(("mode", "runs"), [("direct", "inside publish"), ("asyncio", "of its event loop")])
def test_other_modes_are_refused_with_where_they_run(bus, mode, runs):
    async def asynchronous(tick: Tick) -> None:
        pass

    handler = asynchronous if mode == "asyncio" else (lambda tick: None)
    with pytest.raises(OptionError, match=f'own_thread= is for mode="queued": this handler runs .*{runs}'):
        bus.subscribe(Tick, handler, mode=mode, own_thread=True)
    assert bus.count(Tick) == 0


def test_a_subscription_says_that_it_has_one(bus):
    subscription = bus.subscribe(Tick, lambda tick: None, own_thread=True)
    assert subscription.own_thread is True
    assert "queued in a thread of its own, block" in repr(subscription)
    subscription.cancel()
    assert subscription.own_thread is True
    assert bus.subscribe(Tick, lambda tick: None).own_thread is False


@pytest.mark.parametrize("value", [None, 1, "yes", threading.current_thread()])
def test_it_is_true_or_false(bus, value):
    with pytest.raises(OptionError, match="own_thread must be True or False, not "):
        bus.subscribe(Tick, lambda tick: None, own_thread=value)
    with pytest.raises(OptionError, match="own_thread must be True or False, not "):
        bus.subscribe_native(Reading, NATIVE(lambda *_: None), own_thread=value)


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("native", [False, True])
def test_where_no_thread_can_be_started_nothing_is_subscribed(bus, recorder, monkeypatch, native):
    bus.subscribe_native(Reading, NATIVE(lambda *_: None)).cancel()  # whose workers are there already

    def subscribe():
        if native:
            return bus.subscribe_native(Reading, NATIVE(lambda *_: None), own_thread=True)
        return bus.subscribe(Reading, recorder, own_thread=True)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            with pytest.raises(StartError, match="can't start new thread"):
                subscribe()
        assert bus.count(Reading) == 0
    subscription = subscribe()
    assert bus.publish(Reading(1)) == 1
    assert bus.wait_idle(DEADLINE)
    assert subscription.delivered == 1


def test_an_interrupt_in_subscribe_leaves_no_thread_also_where_its_traceback_is_kept(
    make_bus, recorder, eventually, monkeypatch
):
    class Owner:
        def handle(self, tick: Tick) -> None:
            pass

    def interrupted(*_):
        raise KeyboardInterrupt

    bus, owner, kept = make_bus(name=next(names)), Owner(), []
    with monkeypatch.context() as patch:
        patch.setattr(weakref, "WeakMethod", interrupted)  # when the thread is that of the subscription already
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt) as raised:
                bus.subscribe(owner.handle, own_thread=True, weak=True)
            kept.append(raised.value)
    eventually(lambda: workers_of(bus) == [])
    bus.subscribe(Tick, recorder, own_thread=True)
    assert bus.publish(Tick(0)) == 1
    recorder.wait_for(1)


def test_a_subscription_that_is_refused_leaves_no_thread(make_bus, eventually):
    class First:
        __event_type__ = 5

    class Second:
        __event_type__ = 5

    bus = make_bus(name=next(names))
    bus.subscribe(First, lambda event: None)
    with pytest.raises(TypeError, match="needs an id of its own"):
        bus.subscribe(Second, lambda event: None, own_thread=True)
    eventually(lambda: workers_of(bus) == [])
    bus.close()
    with pytest.raises(ClosedError):
        bus.subscribe(Tick, lambda tick: None, own_thread=True)
    eventually(lambda: workers_of(bus) == [])


# --- many threads ---


def test_it_may_be_subscribed_and_cancelled_by_many_threads_while_others_publish(make_bus, spawn):
    bus = make_bus(max_queue=50)
    stop = threading.Event()

    def churn():
        for _ in range(30):
            calls = Calls()
            with bus.subscribe(Tick, calls, own_thread=True) as subscription:
                while subscription.delivered < 3 and not stop.is_set():
                    bus.wait_idle(0.01)
            assert len(set(calls.threads)) == 1
            assert subscription.delivered == len(calls.threads)

    def publish():
        number = 0
        while not stop.is_set():
            bus.publish(Tick(number))
            number += 1

    publishers = [spawn(publish) for _ in range(2)]
    try:
        for churning in [spawn(churn) for _ in range(4)]:
            churning.result(4 * DEADLINE)
    finally:
        stop.set()
    for publishing in publishers:
        publishing.result(DEADLINE)


@pytest.mark.thread_unsafe(reason="the switch interval is that of all threads")
def test_threads_that_subscribe_at_once_do_not_disturb_each_other(make_bus, spawn):
    bus = make_bus()
    interval = sys.getswitchinterval()

    def churn():
        for _ in range(300):
            bus.subscribe(Tick, lambda tick: None, own_thread=True).cancel()

    sys.setswitchinterval(1e-4)
    try:
        for churning in [spawn(churn) for _ in range(4)]:
            churning.result(4 * DEADLINE)
    finally:
        sys.setswitchinterval(interval)
    assert bus.publish(Tick(0)) == 0


@pytest.mark.forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_one_other_thread_for_it(run_until_done):
    run_until_done(
        PRELUDE
        + """
bus, threads = Dispatcher(), []

def handle(tick):
    threads.append(threading.get_native_id())
    if tick.number % 3 == 0:
        time.sleep(0.02)

bus.subscribe(Tick, handle, own_thread=True)
bus.subscribe(Tick, lambda tick: None)
for number in range(10):
    bus.publish(Tick(number))
assert bus.wait_idle(DEADLINE)
mine = set(threads)

def child():
    threads.clear()
    for number in range(10):
        bus.publish(Tick(number))
    assert bus.wait_idle(DEADLINE)
    assert len(threads) == 10 and len(set(threads)) == 1
    bus.close(DEADLINE)

assert fork(child) == 0
bus.publish(Tick(100))
bus.close(DEADLINE)
assert set(threads) == mine and len(threads) == 11, threads
"""
    )
