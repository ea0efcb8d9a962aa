"""Stress: the same promises while the interpreter switches threads a thousand times as often as it does."""

import contextlib
import random
import sys
import threading
from dataclasses import dataclass

import pytest

from ringcast import ClosedError


@dataclass(frozen=True, slots=True)
class Tick:
    publisher: int
    number: int


@dataclass(frozen=True, slots=True)
class Echo:
    tick: Tick


@pytest.fixture(autouse=True)
def switch_all_the_time():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("max_queue", [1, 16, 50_000])
def test_nothing_is_lost_or_out_of_order(make_bus, make_recorder, spawn, max_queue, deadline):
    bus = make_bus(max_queue=max_queue)
    publishers, amount = 3, 400
    ticks, echoes = [make_recorder() for _ in range(3)], make_recorder()

    def echo(tick: Tick) -> None:
        bus.publish(Echo(tick))

    def publish_all(publisher):
        for number in range(amount):
            bus.publish(Tick(publisher, number))

    for recorder in ticks:
        bus.subscribe(Tick, recorder)
    subscription = bus.subscribe(echo)
    bus.subscribe(Echo, echoes)
    for future in [spawn(publish_all, publisher) for publisher in range(publishers)]:
        future.result(2 * deadline)
    echoes.wait_for(publishers * amount)
    bus.close(deadline)

    for events in [*[recorder.events for recorder in ticks], [event.tick for event in echoes.events]]:
        for publisher in range(publishers):
            assert [tick.number for tick in events if tick.publisher == publisher] == list(range(amount))
    assert subscription.errors == 0


def test_subscriptions_that_come_and_go(make_bus, make_recorder, spawn, deadline):
    # publishers, subscribers and cancellers at once, on one topic, with a queue that is often full
    bus = make_bus(max_queue=8)
    stop = threading.Event()
    steady = make_recorder()
    bus.subscribe(Tick, steady)

    def publish_until_stopped(publisher):
        number = 0
        while not stop.is_set():
            assert bus.publish(Tick(publisher, number)) >= 1
            number += 1
        return number

    def come_and_go(seed):
        choose = random.Random(seed)
        for _ in range(60):
            recorder = make_recorder()
            subscription = bus.subscribe(Tick, recorder)
            if choose.random() < 0.5:
                recorder.wait_for(choose.randrange(1, 10))
            discard = choose.random() < 0.5
            if discard:
                subscription.cancel(discard=True)
            with subscription:
                pass
            assert not subscription.active
            assert subscription.pending == 0
            assert subscription.delivered == len(recorder.events)
            assert discard or subscription.dropped == 0
            for publisher in (0, 1):
                numbers = [tick.number for tick in recorder.events if tick.publisher == publisher]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True

    publishers = [spawn(publish_until_stopped, publisher) for publisher in (0, 1)]
    try:
        for future in [spawn(come_and_go, seed) for seed in range(3)]:
            future.result(2 * deadline)
    finally:
        stop.set()
    amounts = [publisher.result(deadline) for publisher in publishers]
    assert bus.count(Tick) == 1
    bus.close(deadline)
    for publisher, amount in enumerate(amounts):
        assert [tick.number for tick in steady.events if tick.publisher == publisher] == list(range(amount))


def test_closing_while_others_publish_and_subscribe(make_bus, make_recorder, spawn, deadline):
    for _ in range(20):
        bus, steady = make_bus(max_queue=4), make_recorder()
        bus.subscribe(Tick, steady)
        begun = threading.Barrier(4)

        def publish_until_closed(publisher, bus=bus, begun=begun):
            begun.wait(deadline)
            number = 0
            with contextlib.suppress(ClosedError):
                while True:
                    bus.publish(Tick(publisher, number))
                    number += 1
            return number

        def subscribe_until_closed(bus=bus, begun=begun):
            begun.wait(deadline)
            with contextlib.suppress(ClosedError):
                while True:
                    bus.subscribe(Tick, make_recorder()).cancel()

        publishers = [spawn(publish_until_closed, publisher) for publisher in (0, 1)]
        subscriber = spawn(subscribe_until_closed)
        begun.wait(deadline)
        steady.wait_for(5)
        bus.close(deadline)
        subscriber.result(deadline)
        accepted = sum(publisher.result(deadline) for publisher in publishers)
        assert len(steady.events) == accepted
