"""What `subscribe` returns: callable, context manager, counters; and what cancelling does."""

import asyncio
import gc
import sys
import threading
import time
import weakref
from dataclasses import dataclass

import pytest

from ringcast import PublishTimeoutError, Subscription, record
from ringcast.records import int64


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@record
class Reading:
    number: int64


@pytest.fixture
def held(gate, recorder):
    """A handler that waits at the gate before it records the number of its event."""

    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(tick.number)

    return handler


def publish(bus, count):
    for number in range(count):
        bus.publish(Tick(number))


def counters(subscription):
    names = ("active", "pending", "delivered", "dropped", "errors")
    return {name: getattr(subscription, name) for name in names}


def test_it_tells_what_it_is_for(bus, recorder):
    subscription = bus.subscribe(Tick, recorder)
    assert type(subscription) is Subscription
    assert subscription.handler is recorder
    assert subscription.event_class is Tick
    assert bus.count(subscription.type_id) == 1
    open_one = bus.subscribe_to(77, recorder)
    assert (open_one.type_id, open_one.event_class) == (77, None)


def test_its_counters_follow_the_events(bus, held, gate, deadline):
    subscription = bus.subscribe(held)
    new = {"active": True, "pending": 0, "delivered": 0, "dropped": 0, "errors": 0}
    assert counters(subscription) == new
    publish(bus, 5)
    gate.wait_until_held()
    assert counters(subscription) == {**new, "pending": 5}
    gate.open()
    bus.close(deadline)
    assert counters(subscription) == {**new, "active": subscription.active, "delivered": 5}


@pytest.mark.parametrize("mode", [{}, {"batch": 3}, {"policy": "drop_oldest"}, {"mode": "direct"}])
def test_its_counters_never_go_back(bus, spawn, mode, deadline):
    # what counts as filtered is still in hand for a moment: `delivered` is not the difference of the two
    subscription = bus.subscribe(Tick, lambda tick: None, where=lambda tick: tick.number % 8 == 0, **mode)
    names, seen, published = ("delivered", "dropped", "filtered", "errors"), [], threading.Event()

    def look():
        before = (0,) * len(names)
        while not published.is_set():
            now = tuple(getattr(subscription, name) for name in names)
            if any(new < old for new, old in zip(now, before, strict=True)) or sum(now) > 200_000:
                seen.append((before, now))
            before = now

    looking = spawn(look)
    for _ in range(20):
        bus.publish_many([Tick(number) for number in range(10_000)])
    bus.close(deadline)
    published.set()
    looking.result(deadline)
    assert not seen
    assert subscription.delivered + subscription.dropped + subscription.filtered == 200_000


def test_its_attributes_cannot_be_set(bus, recorder):
    subscription = bus.subscribe(Tick, recorder)
    for name in ("active", "pending", "delivered", "dropped", "errors", "handler", "event_class", "type_id"):
        with pytest.raises(AttributeError):
            setattr(subscription, name, 1)


def test_it_cannot_be_made_by_hand():
    with pytest.raises(TypeError):
        Subscription()


@pytest.mark.parametrize("how", ["called", "cancel", "cancel(discard=False)"])
def test_cancel_refuses_later_events_and_delivers_the_accepted(bus, held, gate, recorder, eventually, how):
    subscription = bus.subscribe(held)
    publish(bus, 5)
    gate.wait_until_held()
    if how == "called":
        result = subscription()
    else:
        result = subscription.cancel() if how == "cancel" else subscription.cancel(discard=False)
    assert result is None
    assert not subscription.active
    assert subscription.pending == 5
    assert bus.count(Tick) == 0
    assert bus.publish(Tick(5)) == 0
    gate.open()
    assert recorder.wait_for(5) == [0, 1, 2, 3, 4]
    eventually(lambda: subscription.pending == 0)
    assert (subscription.delivered, subscription.dropped) == (5, 0)


WITH_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()

# where an event moves from one place to the next before its handler has it
MOVING = {
    "queue": {},
    "mailbox": {"policy": "drop_oldest"},
    "mailbox of batches": {"policy": "drop_oldest", "batch": 4},
    "by key": {"policy": "latest", "key": lambda event: 0},
    "picked": {"policy": "drop_oldest", "where": lambda event: True},
}


def is_seen_too_early(bus, subscription, event_class, handled, deadline):
    """Publishes events one at a time, and looks after each one, as soon as none is pending, whether it was handled."""
    end = time.monotonic() + deadline
    for number in range(300):
        bus.publish(event_class(number))
        while subscription.pending:
            assert time.monotonic() < end, f"event {number} is pending for ever"
            if WITH_GIL:  # else its thread waits 5 ms for it; without one, there is more to see without a pause
                time.sleep(0)
        if len(handled) != number + 1:
            return f"event {number} was not pending, and not handled"
    return None


@pytest.mark.parametrize("event_class", [Tick, Reading])
@pytest.mark.parametrize("options", MOVING.values(), ids=MOVING)
def test_an_event_is_pending_until_its_handler_has_ended(make_bus, event_class, options, deadline):
    bus, handled = make_bus(), []
    subscription = bus.subscribe(event_class, handled.append, **options)
    assert is_seen_too_early(bus, subscription, event_class, handled, deadline) is None


@pytest.mark.parametrize("event_class", [Tick, Reading])
@pytest.mark.parametrize("options", MOVING.values(), ids=MOVING)
def test_an_event_is_pending_until_its_handler_on_a_loop_has_ended(make_bus, event_class, options, deadline):
    bus, handled = make_bus(), []

    async def handler(event):
        handled.append(event)

    async def main():
        subscription = bus.subscribe(event_class, handler, **options)
        seen = await asyncio.to_thread(is_seen_too_early, bus, subscription, event_class, handled, deadline)
        await bus.aclose()
        return seen

    assert asyncio.run(main()) is None


def test_cancel_with_discard_drops_and_counts_what_was_accepted(bus, held, gate, recorder, eventually):
    subscription = bus.subscribe(held)
    publish(bus, 5)
    gate.wait_until_held()
    subscription.cancel(discard=True)
    assert not subscription.active
    assert subscription.dropped == 4  # the first is being handled
    assert bus.publish(Tick(5)) == 0
    gate.open()
    eventually(lambda: subscription.delivered == 1)
    assert recorder.wait_for(1) == [0]
    assert (subscription.pending, subscription.dropped) == (0, 4)


def test_discard_after_cancel_drops_what_is_left(bus, held, gate, recorder, eventually):
    subscription = bus.subscribe(held)
    publish(bus, 5)
    gate.wait_until_held()
    subscription.cancel()
    assert (subscription.pending, subscription.dropped) == (5, 0)
    subscription.cancel(discard=True)
    assert subscription.dropped == 4
    gate.open()
    eventually(lambda: subscription.delivered == 1)
    assert recorder.wait_for(1) == [0]
    assert subscription.pending == 0


def test_cancel_is_idempotent_also_after_close(bus, recorder, deadline):
    first, second = bus.subscribe(Tick, recorder), bus.subscribe(Tick, recorder)
    for _ in range(3):
        first.cancel()
        first()
        first.cancel(discard=True)
        assert bus.count(Tick) == 1
    assert first.dropped == 0
    assert bus.publish(Tick(0)) == 1
    bus.close(deadline)
    first()
    second()
    second.cancel(discard=True)
    assert (second.delivered, second.dropped) == (1, 0)


def test_cancels_from_many_threads_count_once(bus, spawn, make_recorder, deadline):
    for _ in range(50):
        subscription, other = bus.subscribe(Tick, make_recorder()), bus.subscribe(Tick, make_recorder())
        for future in [spawn(subscription.cancel) for _ in range(4)]:
            future.result(deadline)
        assert bus.count(Tick) == 1
        other.cancel()
        assert bus.count(Tick) == 0


def test_leaving_the_with_block_cancels_and_waits_for_what_was_accepted(bus, recorder, gate, spawn, deadline):
    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(tick.number)

    def use():
        with bus.subscribe(handler) as subscription:
            assert subscription.active
            publish(bus, 1000)
        return subscription, len(recorder.events)

    user = spawn(use)
    gate.wait_until_held()
    with pytest.raises(TimeoutError):
        user.result(0.05)
    gate.open()
    subscription, at_exit = user.result(deadline)
    assert at_exit == 1000
    assert (subscription.active, subscription.pending, subscription.delivered) == (False, 0, 1000)
    assert bus.count(Tick) == 0


def test_the_with_block_passes_its_exception_on(bus, recorder):
    subscription = bus.subscribe(Tick, recorder)

    def fail_inside():
        with subscription:
            bus.publish(Tick(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert not subscription.active
    assert recorder.events == [Tick(0)]


def test_one_handler_can_be_subscribed_twice(bus, recorder, deadline):
    first, second = bus.subscribe(Tick, recorder), bus.subscribe(Tick, recorder)
    assert first is not second
    assert bus.publish(Tick(0)) == 2
    recorder.wait_for(2)
    first.cancel()
    assert bus.publish(Tick(1)) == 1
    bus.close(deadline)
    assert [tick.number for tick in recorder.events] == [0, 0, 1]


def test_a_bound_method_keeps_its_object_alive(bus, recorder):
    class Listener:
        def on_tick(self, tick: Tick) -> None:
            recorder(tick.number)

    listener = Listener()
    alive = weakref.ref(listener)
    bus.subscribe(listener.on_tick)
    del listener
    gc.collect()
    assert alive() is not None
    bus.publish(Tick(0))
    assert recorder.wait_for(1) == [0]


def test_a_subscription_that_nobody_keeps_goes_on(bus, recorder):
    bus.subscribe(Tick, recorder)
    gc.collect()
    assert bus.publish(Tick(0)) == 1
    recorder.wait_for(1)


def test_its_repr_tells_the_handler_and_the_class(bus):
    def on_tick(tick: Tick) -> None:
        pass

    subscription = bus.subscribe(on_tick)
    assert "on_tick" in repr(subscription)
    assert "Tick" in repr(subscription)


# --- room ---


def test_discarded_events_take_no_room_though_no_worker_is_free(make_bus, gate):
    class Other:
        pass

    bus = make_bus(max_queue=1, max_workers=1)
    bus.subscribe(Other, gate.hold)
    bus.publish(Other())
    gate.wait_until_held()  # by the only worker
    subscription = bus.subscribe(Tick, lambda tick: None)
    bus.publish(Tick(0))
    with pytest.raises(PublishTimeoutError):
        bus.publish(Tick(0), timeout=0)
    subscription.cancel(discard=True)
    again = bus.subscribe(Tick, lambda tick: None)
    assert bus.publish(Tick(0), timeout=0) == 1
    assert (subscription.dropped, again.pending) == (1, 1)
    gate.open()
    bus.close()
    assert again.delivered == 1


@pytest.mark.parametrize("batch", [None, 4], ids=["single", "batch"])
@pytest.mark.parametrize("policy", ["block", "raise", "drop_oldest", "drop_newest", "latest"])
def test_leaving_a_with_block_waits_for_the_handler_at_work(bus, gate, policy, batch):
    ended = []

    def handler(event):
        gate.hold()
        ended.append(event)

    options = {"policy": policy} | ({} if batch is None else {"batch": batch})
    subscription = bus.subscribe(Tick, handler, **options)
    bus.publish(Tick(0))
    gate.wait_until_held()
    opener = threading.Timer(0.05, gate.open)  # while it waits; if it does not wait, `ended` is empty below
    opener.start()
    with subscription:
        assert subscription.pending == 1
    assert len(ended) == 1
    assert subscription.pending == 0
    opener.join()
