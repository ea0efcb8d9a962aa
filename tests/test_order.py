"""Order: a subscriber sees the events of one type as they were published, each once, none missing."""

import threading
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Tick:
    publisher: int
    number: int


def publish_from_threads(bus, spawn, publishers, amount, deadline):
    barrier = threading.Barrier(publishers)

    def publish_all(publisher):
        barrier.wait(deadline)
        for number in range(amount):
            bus.publish(Tick(publisher, number))

    running = [spawn(publish_all, publisher) for publisher in range(publishers)]
    for future in running:
        future.result(2 * deadline)


@pytest.mark.parametrize("max_queue", [1, 7, 512, 50_000])
def test_one_publisher_many_subscribers(make_bus, make_recorder, max_queue, deadline):
    bus = make_bus(max_queue=max_queue)
    recorders = [make_recorder() for _ in range(5)]
    for recorder in recorders:
        bus.subscribe(Tick, recorder)
    events = [Tick(0, number) for number in range(3000)]

    for event in events:
        assert bus.publish(event) == 5
    bus.close(deadline)

    for recorder in recorders:
        assert recorder.events == events


@pytest.mark.parametrize("max_queue", [3, 50_000])
def test_events_of_one_thread_never_overtake_each_other(make_bus, make_recorder, spawn, max_queue, deadline):
    publishers, amount = 4, 2000
    bus = make_bus(max_queue=max_queue)
    recorders = [make_recorder() for _ in range(3)]
    for recorder in recorders:
        bus.subscribe(Tick, recorder)

    publish_from_threads(bus, spawn, publishers, amount, deadline)
    bus.close(deadline)

    for recorder in recorders:
        for publisher in range(publishers):
            numbers = [event.number for event in recorder.events if event.publisher == publisher]
            assert numbers == list(range(amount))


def test_all_subscribers_see_one_and_the_same_order(bus, make_recorder, spawn, deadline):
    recorders = [make_recorder() for _ in range(4)]
    for recorder in recorders:
        bus.subscribe(Tick, recorder)

    publish_from_threads(bus, spawn, 3, 2000, deadline)
    bus.close(deadline)

    assert len(recorders[0].events) == 6000
    for recorder in recorders[1:]:
        assert recorder.events == recorders[0].events


def test_order_holds_while_a_subscription_becomes_slow_and_quick_again(bus, make_gate, recorder, deadline):
    # held at some events, it is moved to another worker and back; what it sees must not show that
    gates = {number: make_gate() for number in (0, 1, 700, 701, 2999)}

    def handler(event: Tick) -> None:
        if event.number in gates:
            gates[event.number].hold()
        recorder(event.number)

    beside = []
    all_beside = threading.Event()

    def quick(event: Tick) -> None:
        beside.append(event.number)
        if event.number == 2999:
            all_beside.set()

    bus.subscribe(handler)
    bus.subscribe(quick)
    for number in range(3000):
        bus.publish(Tick(0, number))
    gates[0].wait_until_held()
    assert all_beside.wait(deadline)
    for gate in list(gates.values())[:-1]:
        gate.open()
    gates[2999].wait_until_held()
    for number in range(3000, 4000):
        bus.publish(Tick(0, number))
    gates[2999].open()
    bus.close(deadline)

    assert recorder.events == list(range(4000))
    assert beside == list(range(4000))


def test_a_subscription_gets_all_between_subscribe_and_cancel(bus, spawn, make_recorder, deadline):
    # against a publisher in another thread: no gap, nothing twice, nothing from before or after
    stop = threading.Event()
    published = 0  # so many calls of publish have returned; one more may be under way

    def publish_until_stopped():
        nonlocal published
        while not stop.is_set():
            bus.publish(Tick(0, published))
            published += 1

    publisher = spawn(publish_until_stopped)
    try:
        for _ in range(50):
            recorder = make_recorder()
            before_subscribe = published
            subscription = bus.subscribe(Tick, recorder)
            after_subscribe = published
            recorder.wait_for(1)
            before_cancel = published
            with subscription:
                subscription.cancel()
                after_cancel = published
            numbers = [event.number for event in recorder.events]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert before_subscribe <= numbers[0] <= after_subscribe + 1
            assert before_cancel - 1 <= numbers[-1] <= after_cancel
    finally:
        stop.set()
    publisher.result(deadline)
