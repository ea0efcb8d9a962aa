"""Back-pressure: a subscriber that is `max_queue` events behind makes publishers wait, and loses nothing."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from limits import DEADLINE

from ringcast import ClosedError, PublishTimeoutError, QueueFullError, record


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@record
class Row:
    number: int


@pytest.fixture
def held(gate, recorder):
    """A handler that waits at the gate before it records the number of its event."""

    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(tick.number)

    return handler


class Publisher:
    """Publishes Tick(0), Tick(1), ... and keeps the numbers of those that were accepted."""

    def __init__(self, bus, amount):
        self.bus = bus
        self.amount = amount
        self.accepted = []

    def __call__(self):
        for number in range(self.amount):
            self.bus.publish(Tick(number))
            self.accepted.append(number)


def assert_waits(future):
    with pytest.raises(TimeoutError):
        future.result(0.05)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest", "drop_oldest"])
def test_whether_the_event_in_hand_counts_on_a_worker(bus, gate, policy, batch):
    subscription = bus.subscribe(Tick, gate.hold, policy=policy, max_queue=2, batch=batch)
    bus.publish(Tick(0))
    gate.wait_until_held()
    publish_until_full(bus)
    gate.open()
    assert bus.wait_idle(DEADLINE)
    assert subscription.delivered == (2 if policy in ("block", "raise") else 3)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest", "drop_oldest"])
def test_the_event_in_hand_does_not_count_on_a_loop(bus, policy, batch):
    async def main():
        held, opened = asyncio.Event(), asyncio.Event()

        async def hold(event):
            held.set()
            await opened.wait()

        subscription = bus.subscribe(Tick, hold, policy=policy, max_queue=2, batch=batch)
        bus.publish(Tick(0))
        await held.wait()
        publish_until_full(bus)
        opened.set()
        await bus.aclose()
        assert subscription.delivered == 3

    asyncio.run(main())


def publish_until_full(bus):
    for number in range(1, 6):
        with contextlib.suppress(QueueFullError, PublishTimeoutError):
            bus.publish(Tick(number), timeout=0)


@pytest.mark.parametrize("max_queue", [1, 4, 600])
def test_a_publisher_waits_at_max_queue_and_goes_on_when_there_is_room(
    make_bus, held, gate, recorder, spawn, eventually, max_queue, deadline
):
    bus = make_bus(max_queue=max_queue)
    subscription = bus.subscribe(held)
    publish = Publisher(bus, max_queue + 500)

    publisher = spawn(publish)
    gate.wait_until_held()
    eventually(lambda: len(publish.accepted) == max_queue)
    assert_waits(publisher)
    assert len(publish.accepted) == max_queue
    assert subscription.pending == max_queue

    gate.open()
    publisher.result(deadline)
    bus.close(deadline)
    assert recorder.events == list(range(max_queue + 500))
    assert subscription.pending == 0
    assert subscription.delivered == max_queue + 500


def test_max_queue_of_one_with_many_publishers(make_bus, recorder, spawn, deadline):
    bus = make_bus(max_queue=1)
    bus.subscribe(Tick, recorder)
    amount, publishers = 500, 4

    def publish_all(first):
        for number in range(first, first + amount):
            bus.publish(Tick(number))

    for future in [spawn(publish_all, publisher * amount) for publisher in range(publishers)]:
        future.result(2 * deadline)
    bus.close(deadline)

    assert sorted(event.number for event in recorder.events) == list(range(publishers * amount))


@pytest.mark.parametrize("max_queue", [1, 3, 64])
def test_never_more_than_max_queue_are_pending(make_bus, spawn, max_queue, deadline):
    bus = make_bus(max_queue=max_queue)
    most_pending = 0
    subscriptions = []

    def look():
        nonlocal most_pending
        most_pending = max(most_pending, *(subscription.pending for subscription in subscriptions))

    def handler(tick: Tick) -> None:
        look()

    def publish_all():
        for number in range(1000):
            bus.publish(Tick(number))
            look()

    subscriptions += [bus.subscribe(handler) for _ in range(3)]
    for future in [spawn(publish_all) for _ in range(3)]:
        future.result(2 * deadline)
    bus.close(deadline)

    assert 1 <= most_pending <= max_queue
    assert [subscription.delivered for subscription in subscriptions] == [3000] * 3


def test_the_slowest_subscriber_sets_the_pace_and_the_quick_one_is_not_held_up(
    make_bus, held, gate, make_recorder, spawn, deadline
):
    bus = make_bus(max_queue=100)
    quick = make_recorder()
    slow_one = bus.subscribe(held)
    bus.subscribe(Tick, quick)
    publish = Publisher(bus, 500)

    publisher = spawn(publish)
    gate.wait_until_held()
    quick.wait_for(100)
    assert slow_one.pending == 100
    assert_waits(publisher)

    gate.open()
    publisher.result(deadline)
    bus.close(deadline)
    assert [tick.number for tick in quick.events] == list(range(500))
    assert slow_one.delivered == 500


def test_publishing_to_nobody_never_waits(make_bus, recorder):
    bus = make_bus(max_queue=1)
    assert {bus.publish(Tick(number)) for number in range(2000)} == {0}
    with bus.subscribe(Tick, recorder):
        pass
    assert {bus.publish(Tick(number)) for number in range(2000)} == {0}
    assert recorder.events == []


def test_other_types_are_not_held_up_by_a_full_queue(make_bus, held, gate, spawn, eventually, deadline):
    class Other:
        pass

    bus = make_bus(max_queue=2)
    others = []
    bus.subscribe(held)
    bus.subscribe(Other, others.append)
    publish = Publisher(bus, 3)

    publisher = spawn(publish)
    eventually(lambda: len(publish.accepted) == 2)
    for _ in range(100):
        assert bus.publish(Other()) == 1
    eventually(lambda: len(others) == 100)
    assert_waits(publisher)

    gate.open()
    publisher.result(deadline)


def test_discarding_the_subscription_that_is_behind_lets_the_publisher_go_on(
    make_bus, held, gate, recorder, make_recorder, spawn, eventually, deadline
):
    bus = make_bus(max_queue=4)
    quick = make_recorder()
    behind = bus.subscribe(held)
    bus.subscribe(Tick, quick)
    publish = Publisher(bus, 50)
    publisher = spawn(publish)
    gate.wait_until_held()
    eventually(lambda: len(publish.accepted) == 4)

    behind.cancel(discard=True)
    gate.open()

    publisher.result(deadline)
    assert [tick.number for tick in quick.wait_for(50)] == list(range(50))
    assert recorder.events == [0]  # it was being handled; the other three are dropped
    assert (behind.delivered, behind.dropped) == (1, 3)


HELD = {
    "one by one": {},
    "in batches": {"batch": 2},
    "with a max_queue of its own": {"max_queue": 3},
    "refusing": {"policy": "raise"},
    "in a thread of its own": {"own_thread": True},
    "with a condition": {"where": lambda event: True},
}


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("kind", [Tick, Row])
@pytest.mark.parametrize("options", HELD.values(), ids=HELD)
def test_a_cancelled_subscription_whose_handler_hangs_holds_up_no_publisher(
    make_bus, gate, recorder, kind, options, discard, deadline
):
    bus = make_bus(max_queue=5)
    hung = bus.subscribe(kind, lambda events: gate.hold(), **options)
    bus.subscribe(kind, lambda event: recorder(event.number))
    bus.publish(kind(0))
    gate.wait_until_held()
    full = options.get("max_queue", 5)
    for number in range(1, full):
        bus.publish(kind(number))
    hung.cancel(discard=discard)
    for number in range(full, 500):
        bus.publish(kind(number), timeout=deadline)
    assert recorder.wait_for(500) == list(range(500))
    gate.open()
    bus.close(deadline)
    assert (hung.delivered, hung.dropped) == ((1, full - 1) if discard else (full, 0))


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("others", [0, 1])
def test_a_cancel_lets_the_publisher_go_on_that_waits(make_bus, held, gate, recorder, spawn, discard, others, deadline):
    bus = make_bus(max_queue=1)
    behind = bus.subscribe(held)
    for _ in range(others):
        bus.subscribe(Tick, lambda tick: None)
    bus.publish(Tick(0))
    gate.wait_until_held()
    publisher = spawn(bus.publish, Tick(1))
    behind.cancel(discard=discard)
    publisher.result(deadline)
    gate.open()
    bus.close(deadline)
    assert recorder.events == [0]


@pytest.mark.parametrize("options", [{}, {"batch": 3}, {"own_thread": True}], ids=str)
@pytest.mark.parametrize("hung", ["cancelled", "with more room"])
def test_a_handler_may_publish_into_its_full_queue_beside_one_that_hangs(make_bus, gate, recorder, hung, options):
    """It would wait for itself, though another subscription holds the gate back."""
    bus = make_bus(max_queue=10 if hung == "cancelled" else 1000)

    def echo(events):
        for tick in events if "batch" in options else [events]:
            if tick.number == 1:
                for number in range(100, 130):
                    bus.publish(Tick(number))
            recorder(tick.number)

    hanging = bus.subscribe(Tick, lambda tick: gate.hold())
    bus.subscribe(Tick, echo, max_queue=10, **options)
    bus.publish(Tick(0))
    gate.wait_until_held()
    if hung == "cancelled":
        hanging.cancel()
    bus.publish(Tick(1))
    assert sorted(recorder.wait_for(32)) == [0, 1, *range(100, 130)]
    gate.open()


def test_an_active_subscription_is_never_further_behind_for_one_of_the_publishers_loop(make_bus, gate, deadline):
    bus = make_bus(max_queue=10)

    async def handle(tick):
        await asyncio.Event().wait()

    async def main(cancel):
        behind = bus.subscribe(Tick, gate.hold)
        other = bus.subscribe(Tick, handle, concurrency=100)
        if cancel:
            other.cancel()
        for number in range(10):
            bus.publish(Tick(number))
            await asyncio.sleep(0)
        with pytest.raises(PublishTimeoutError, match=r"Gate.hold .* has max_queue=10 events pending"):
            bus.publish(Tick(10), timeout=0)
        assert behind.pending == 10
        behind.cancel(discard=True)
        other.cancel(discard=True)

    for cancel in (False, True):
        asyncio.run(main(cancel))
    gate.open()


def test_what_waits_beside_a_cancelled_subscription_has_a_limit(make_bus, held, gate, recorder, eventually, deadline):
    bus = make_bus(max_queue=10)
    hung = bus.subscribe(held)
    quick = bus.subscribe(Tick, lambda tick: None)
    bus.publish(Tick(0))
    gate.wait_until_held()
    hung.cancel()
    bus.publish_many([Tick(1)] * (65_536 + 10 - 1), timeout=4 * deadline)
    eventually(lambda: quick.pending == 0)
    with pytest.raises(PublishTimeoutError, match="still handles what came before its end, and 65536 events wait"):
        bus.publish(Tick(1), timeout=0)
    gate.open()
    bus.publish_many([Tick(1)] * 100, timeout=deadline)
    bus.close(deadline)
    assert quick.delivered == 65_536 + 10 + 100
    assert recorder.events == [0]


def test_close_wakes_a_waiting_publisher_which_gets_closed_error(
    make_bus, held, gate, recorder, spawn, eventually, deadline
):
    bus = make_bus(max_queue=2)
    bus.subscribe(held)
    publish = Publisher(bus, 10)
    publisher = spawn(publish)
    gate.wait_until_held()
    eventually(lambda: len(publish.accepted) == 2)
    assert_waits(publisher)

    closer = spawn(bus.close, deadline)
    with pytest.raises(ClosedError):
        publisher.result(deadline)  # at once: the handler is still held
    assert not closer.done()
    gate.open()
    closer.result(deadline)
    assert recorder.events == publish.accepted == [0, 1]


def kill_the_process():
    os.kill(os.getpid(), signal.SIGINT)


def raise_in_this_thread():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(
            kill_the_process,
            marks=pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there"),
        ),
        # the system may also run the C handler in another thread; on Windows it always does
        raise_in_this_thread,
    ],
)
def test_ctrl_c_interrupts_a_waiting_publisher_and_its_event_is_not_queued(
    make_bus, held, gate, recorder, spawn, eventually, send, deadline
):
    bus = make_bus(max_queue=2)
    subscription = bus.subscribe(held)
    third, interrupted = threading.Event(), threading.Event()
    accepted = []

    def interrupt():
        eventually(lambda: len(accepted) == 2)
        assert not third.wait(0.05)
        send()
        if not interrupted.wait(deadline):
            gate.open()  # or the main thread would wait for ever

    def publish_three():
        for number in range(3):
            bus.publish(Tick(number))
            accepted.append(number)
        third.set()

    interrupter = spawn(interrupt)
    with pytest.raises(KeyboardInterrupt):
        publish_three()
    interrupted.set()
    interrupter.result(deadline)

    assert subscription.pending == 2
    gate.open()
    bus.publish(Tick(3))
    bus.close(deadline)
    assert recorder.events == [0, 1, 3]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="has no signal to spare")
def test_a_signal_whose_handler_returns_leaves_the_publisher_waiting(
    make_bus, held, gate, recorder, spawn, eventually, deadline
):
    bus = make_bus(max_queue=1)
    bus.subscribe(held)
    accepted, handled = [], threading.Event()

    def send():
        eventually(lambda: accepted)
        os.kill(os.getpid(), signal.SIGUSR1)
        came = handled.wait(deadline)  # while the publisher waits
        gate.open()
        assert came

    before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
    try:
        sender = spawn(send)
        for number in range(2):
            bus.publish(Tick(number))
            accepted.append(number)
        sender.result(deadline)
    finally:
        signal.signal(signal.SIGUSR1, before)
    bus.close(deadline)
    assert recorder.events == [0, 1]


@pytest.mark.thread_unsafe(reason="sets the switch interval")
@pytest.mark.parametrize("cancelled", [False, True])
def test_room_that_a_cursor_makes_while_the_gate_stands_still_wakes_the_publisher(make_bus, gate, cancelled):
    # who waits for room also looks again after 0.1 s; no wait is to end by that
    class Step:
        pass

    bus = make_bus(max_queue=1 if cancelled else 2000)
    holding = bus.subscribe(Step, gate.hold)  # holds the gate
    if cancelled:
        bus.publish(Step())
        gate.wait_until_held()
        holding.cancel()
    bus.subscribe(Step, lambda step: None, max_queue=1)
    waits = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(1000):
            start = time.monotonic()
            bus.publish(Step())
            waits.append(time.monotonic() - start)
    finally:
        sys.setswitchinterval(interval)
    gate.open()
    assert sum(wait > 0.09 for wait in waits) < 10  # on a loaded machine some take long all the same
