"""The contract of the test file that Ringcast started from: its tests, by their names, in their sizes."""

import _thread
import threading
from dataclasses import dataclass

import pytest
from limits import DEADLINE

from ringcast import ClosedError, EventClassError

TYPE_EVENT_1 = 0x1
TYPE_EVENT_2 = 0x2


@dataclass(slots=True)
class MyEvent1:
    __event_type__ = TYPE_EVENT_1
    number: int = 0


@dataclass(slots=True)
class MyEvent2:
    __event_type__ = TYPE_EVENT_2
    text: str = ""


@dataclass(slots=True)
class MyEvent3:
    id: int

    @property
    def __event_type__(self) -> int:
        return self.id


class Calls:
    """A handler that counts its calls. Needs no lock: a subscription is never run by two workers at once."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: MyEvent3) -> None:
        self.count += 1


def start_together(count, target):
    """Runs `target(number)` in `count` threads that are let go at the same moment, and waits for them."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(DEADLINE)
        target(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_publish(bus, recorder):
    def handler(event: MyEvent1) -> None:
        recorder(event.number)

    with bus.subscribe(handler):
        assert [bus.publish(MyEvent1(number)) for number in (1, 2, 3)] == [1, 1, 1]
        assert recorder.wait_for(3) == [1, 2, 3]


def test_unsubscribe(bus):
    def handler(event: MyEvent1) -> None:
        pass

    assert bus.count(TYPE_EVENT_1) == 0
    unsubscribe = bus.subscribe(handler)
    assert bus.count(TYPE_EVENT_1) == 1
    unsubscribe()
    assert bus.count(TYPE_EVENT_1) == 0


def test_concurrent(bus, spawn, deadline):
    amount = 1_000_000
    first_seen = late_seen = 0
    late_first: list[int] = []
    begun, joined = threading.Event(), threading.Event()

    def first(event: MyEvent1) -> None:
        nonlocal first_seen
        assert event.number == first_seen
        first_seen += 1

    def late(event: MyEvent1) -> None:
        nonlocal late_seen
        if not late_first:
            late_first.append(event.number)
        assert event.number == late_first[0] + late_seen
        late_seen += 1

    def publish_all():
        publish = bus.publish
        for number in range(amount):
            publish(MyEvent1(number))
            if number == 1000:
                begun.set()
            elif number == amount // 2:
                assert joined.wait(deadline)

    subscriptions = [bus.subscribe(first)]
    publisher = spawn(publish_all)
    assert begun.wait(deadline)
    subscriptions.append(bus.subscribe(late))  # while the other thread publishes
    joined.set()
    publisher.result(2 * deadline)
    bus.close(2 * deadline)

    assert [subscription.errors for subscription in subscriptions] == [0, 0]
    assert first_seen == amount
    assert late_first[0] > 1000
    assert late_seen == amount - late_first[0]


def test_subscribe_different_type(bus):
    def handler_1(event: MyEvent1) -> None:
        pass

    def handler_2(event: MyEvent2) -> None:
        pass

    bus.subscribe_to(TYPE_EVENT_1, handler_1)
    with pytest.raises(EventClassError, match=r"(?s)(?=.*MyEvent1)(?=.*MyEvent2).*\b0x0*1\b"):
        bus.subscribe_to(TYPE_EVENT_1, handler_2)
    assert bus.count(TYPE_EVENT_1) == 1


def test_publish_different_type(bus):
    def handler(event: MyEvent2) -> None:
        pass

    bus.subscribe_to(TYPE_EVENT_1, handler)
    with pytest.raises(EventClassError, match=r"(?s)(?=.*MyEvent1)(?=.*MyEvent2).*\b0x0*1\b"):
        bus.publish(MyEvent1())


def test_close_dispatcher(bus, deadline):
    def handler(event: MyEvent2) -> None:
        pass

    unsubscribe = bus.subscribe_to(TYPE_EVENT_1, handler)
    bus.close(deadline)
    with pytest.raises(ClosedError):
        bus.subscribe_to(TYPE_EVENT_1, handler)
    unsubscribe()


@pytest.mark.parametrize("topics", [1, 10])
@pytest.mark.parametrize("subscribers", [1, 10, 100])
def test_matrix(bus, topics, subscribers, deadline):
    amount = 1000
    at_once = 50  # threads alive at the same time; each publishes one event
    handlers = {type_id: [Calls() for _ in range(subscribers)] for type_id in range(topics)}
    for type_id, calls in handlers.items():
        for handler in calls:
            bus.subscribe_to(type_id, handler)

    def publish(event):
        bus.publish(event)
        finished.release()

    finished = threading.Semaphore(0)
    events = [MyEvent3(type_id) for _ in range(amount) for type_id in range(topics)]
    for begun, event in enumerate(events):
        if begun >= at_once:
            assert finished.acquire(timeout=deadline)
        _thread.start_new_thread(publish, (event,))  # threading.Thread would wait until each has begun
    for _ in range(at_once):
        assert finished.acquire(timeout=deadline)
    bus.close(deadline)

    assert {call.count for calls in handlers.values() for call in calls} == {amount}


def test_concurrent_subscription_race(bus, deadline):
    threads, types = 100, 50
    handlers = [Calls() for _ in range(threads)]

    def subscribe(number):
        bus.subscribe_to(1000 + number % types, handlers[number])

    start_together(threads, subscribe)
    assert [bus.count(1000 + number) for number in range(types)] == [2] * types

    assert [bus.publish(MyEvent3(1000 + number)) for number in range(types)] == [2] * types
    bus.close(deadline)
    assert [handler.count for handler in handlers] == [1] * threads


class TestConcurrentHandlerRegistration:
    """test_concurrent_handler_registration, in its two parts."""

    threads = 100

    def test_same_event_type(self, bus, make_recorder, deadline):
        handlers = [make_recorder() for _ in range(self.threads)]

        start_together(self.threads, lambda number: bus.subscribe_to(0x1, handlers[number]))

        assert bus.publish(MyEvent1()) == self.threads
        bus.close(deadline)
        assert [len(handler.events) for handler in handlers] == [1] * self.threads

    def test_different_event_types(self, bus, deadline):
        handlers = [Calls() for _ in range(self.threads)]

        start_together(self.threads, lambda number: bus.subscribe_to(100 + number, handlers[number]))

        assert [bus.publish(MyEvent3(100 + number)) for number in range(self.threads)] == [1] * self.threads
        bus.close(deadline)
        assert [handler.count for handler in handlers] == [1] * self.threads


def test_backpressure(make_bus, deadline):
    bus = make_bus(max_queue=10)
    handler = Calls()
    subscription = bus.subscribe_to(0x200, handler)

    for _ in range(1000):
        bus.publish(MyEvent3(0x200))
    bus.close(deadline)

    assert handler.count == 1000
    assert subscription.delivered == 1000


def test_event_id_from_the_instance(bus, make_recorder, deadline):
    handlers = {type_id: make_recorder() for type_id in (7, 8)}
    for type_id, handler in handlers.items():
        bus.subscribe_to(type_id, handler)

    assert [bus.publish(MyEvent3(type_id)) for type_id in (7, 8, 7, 9)] == [1, 1, 1, 0]
    bus.close(deadline)

    assert [event.id for event in handlers[7].events] == [7, 7]
    assert [event.id for event in handlers[8].events] == [8]


def test_default_dispatcher(run_python):
    # in a process of its own: the default dispatcher's worker lives as long as the process
    program = """
from dataclasses import dataclass
import ringcast

@dataclass
class Tick:
    __event_type__ = 0x1
    price: float

@ringcast.on
def show(tick: Tick) -> None:
    print("on", tick.price, flush=True)

@ringcast.on_type(0x1)
def show_too(tick: Tick) -> None:
    print("on_type", tick.price, flush=True)

def show_three(tick: Tick) -> None:
    print("on_type called", tick.price, flush=True)

subscription = ringcast.on_type(0x1, show_three)
assert isinstance(subscription, ringcast.Subscription)
assert callable(show) and callable(show_too)
assert isinstance(ringcast.default, ringcast.Dispatcher)
assert ringcast.default.count(Tick) == ringcast.default.count(0x1) == 3
assert ringcast.emit(Tick(101.5)) == 3
subscription.cancel()
assert ringcast.emit(Tick(102.0)) == 2
"""
    result = run_python(program)
    assert result.stderr == ""
    assert result.returncode == 0
    assert sorted(result.stdout.splitlines()) == [
        "on 101.5",
        "on 102.0",
        "on_type 101.5",
        "on_type 102.0",
        "on_type called 101.5",
    ]
