"""Batches: publishing many events with one call, and handlers that are given a list of events at a time.

A handler of batches is given what there is, at most `batch` events, and keeps every other promise.
"""

import asyncio
import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pytest
from limits import DEADLINE

import ringcast
from ringcast import (
    ClosedError,
    EventClassError,
    HandlerTypeError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    RingcastError,
)


@dataclass(frozen=True, slots=True)
class Tick:
    number: int

    def where(self) -> int:
        return self.number


@dataclass(frozen=True, slots=True)
class FineTick(Tick):
    pass


@dataclass(frozen=True, slots=True)
class Other:
    number: int


class Stated:
    __event_type__ = 0x4B


@runtime_checkable
class Placed(Protocol):
    def where(self) -> int: ...


def ticks(count, start=0):
    return [Tick(number) for number in range(start, start + count)]


def flat(batches):
    return [event for batch in batches for event in batch]


def held_batches(bus, gate, recorder, batch, **options):
    """Subscribes a batch handler that is held in its first batch, which is one event."""

    def handler(events: list[Tick]) -> None:
        if events == [Tick(-1)]:
            gate.hold()
        recorder(events)

    subscription = bus.subscribe(handler, batch=batch, **options)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    return subscription


def assert_balanced(subscription, published):
    """All that was published is accounted for, and nothing waits."""
    assert subscription.pending == 0
    assert subscription.delivered + subscription.dropped + subscription.filtered == published


# --- publish_many ---


@pytest.mark.parametrize("form", [list, tuple, iter, lambda events: (event for event in events), dict.fromkeys])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 3000])
def test_publish_many_publishes_all_in_order(bus, recorder, deadline, form, count):
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(form(ticks(count))) == count
    assert recorder.wait_for(count) == ticks(count)
    assert bus.wait_idle(deadline)


def test_publish_many_without_subscribers_accepts_all(bus):
    assert bus.publish_many(ticks(10)) == 10
    assert bus.publish_many([]) == 0


def test_publish_many_takes_a_list_as_it_is_at_the_call(bus, recorder):
    events = ticks(100)

    def changes(tick: Tick) -> None:
        events.clear()

    bus.subscribe(changes, mode="direct")
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(events) == 100
    assert recorder.wait_for(100) == ticks(100)


@pytest.mark.parametrize("events", ["abc", int | str, list[int | None] | None])
def test_publish_many_takes_no_text_and_no_hint(bus, events):
    with pytest.raises(EventClassError, match="publish_many takes an iterable of events, not "):
        bus.publish_many(events)


@pytest.mark.parametrize("events", [None, 1, Tick(1)])
def test_publish_many_wants_an_iterable(bus, events):
    with pytest.raises(EventClassError, match=r"takes an iterable of events, not .*: publish takes one$"):
        bus.publish_many(events)


class Numbered:
    """Can be iterated over by its items alone."""

    def __getitem__(self, number):
        return ticks(3)[number]


def test_publish_many_takes_what_has_items(bus, recorder):
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(Numbered()) == 3
    assert recorder.wait_for(3) == ticks(3)


def test_publish_many_of_several_classes_keeps_the_order_of_each(bus, make_recorder):
    of_ticks, of_others, of_all = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(Tick, of_ticks)
    bus.subscribe(Other, of_others)
    bus.subscribe(object, of_all)
    events = [(Tick, Tick, Other, FineTick)[number * 7 // 3 % 4](number) for number in range(1000)]
    assert bus.publish_many(events) == 1000
    assert of_all.wait_for(1000) == events
    for recorder, event_class in ((of_ticks, Tick), (of_others, Other)):
        expected = [event for event in events if type(event) is event_class]
        assert recorder.wait_for(len(expected)) == expected


@pytest.mark.parametrize("target", [object, Placed, Tick])
def test_publish_many_reaches_subscriptions_to_base_classes(bus, recorder, target):
    bus.subscribe(target, recorder, subclasses=True)
    bus.publish_many([FineTick(number) for number in range(300)])
    assert recorder.wait_for(300) == [FineTick(number) for number in range(300)]


def test_publish_many_calls_direct_handlers_for_each_event(bus, recorder):
    direct = []
    bus.subscribe(Tick, direct.append, mode="direct")
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(ticks(500)) == 500
    assert direct == ticks(500)
    assert recorder.wait_for(500) == ticks(500)


def test_publish_many_hands_each_event_the_context_of_the_call(bus, recorder):
    variable = contextvars.ContextVar("variable")

    def handler(tick: Tick) -> None:
        recorder((tick.number, variable.get()))

    bus.subscribe(handler, context="publisher")
    for value in ("first", "second"):
        variable.set(value)
        bus.publish_many(ticks(50))
    expected = [(number, value) for value in ("first", "second") for number in range(50)]
    assert recorder.wait_for(100) == expected


def test_a_generator_that_raises_has_published_what_it_gave(bus, recorder):
    def give():
        yield from ticks(300)
        raise LookupError("on purpose")

    bus.subscribe(Tick, recorder)
    with pytest.raises(LookupError, match="on purpose"):
        bus.publish_many(give())
    assert recorder.wait_for(300) == ticks(300)


def test_a_generator_may_publish_and_its_own_events_come_later(bus, recorder):
    """It is taken in parts of 256, and each part is published when it is together."""

    def give():
        for number in range(3):
            bus.publish(Tick(number))
            yield Tick(100 + number)

    bus.subscribe(Tick, recorder)
    bus.publish_many(give())
    assert [tick.number for tick in recorder.wait_for(6)] == [0, 1, 2, 100, 101, 102]


def test_a_long_generator_is_published_in_parts(bus, recorder):
    came = []

    def give():
        for tick in ticks(1000):
            came.append(len(recorder.events))
            if tick.number == 999:
                recorder.wait_for(3 * 256)  # an endless stream does not wait for its end
            yield tick

    bus.subscribe(Tick, recorder)
    assert bus.publish_many(give()) == 1000
    assert recorder.wait_for(1000) == ticks(1000)


def test_a_full_queue_stops_publish_many_where_it_says(make_bus, gate, recorder, deadline):
    bus = make_bus(max_queue=10)

    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(tick)

    bus.subscribe(handler)
    for form in (list, iter):
        with pytest.raises(PublishTimeoutError) as caught:
            bus.publish_many(form(ticks(30, len(recorder.events))), timeout=0 if form is iter else 0.01)
        assert caught.value.published == (10 if form is list else 0)
    gate.open()
    assert recorder.wait_for(10) == ticks(10)
    assert bus.wait_idle(deadline)
    assert len(recorder.events) == 10  # the event after these, and all that follow, have reached nobody


def test_publish_many_waits_for_room(make_bus, recorder):
    bus = make_bus(max_queue=7)
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(ticks(5000)) == 5000
    assert bus.publish_many(iter(ticks(5000, 5000))) == 10_000 - 5000
    assert recorder.wait_for(10_000) == ticks(10_000)


def test_the_timeout_is_for_all_of_them_together(make_bus, recorder, deadline):
    bus = make_bus(max_queue=1)
    bus.subscribe(Tick, recorder)
    assert bus.publish_many(ticks(2000), timeout=deadline) == 2000
    assert recorder.wait_for(2000) == ticks(2000)
    with pytest.raises(ValueError, match="timeout"):
        bus.publish_many(ticks(1), timeout=-1)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_refusing_subscription_stops_publish_many(make_bus, gate, classes):
    bus = make_bus(max_queue=100)
    bus.subscribe(Tick, gate.hold, policy="raise", max_queue=4)
    events = [(Tick, Other)[number % classes](number) for number in range(20)]
    with pytest.raises(QueueFullError) as caught:
        bus.publish_many(events)
    assert caught.value.published == 4 * classes
    gate.open()


def test_events_of_a_foreign_class_stop_publish_many(bus, recorder, deadline):
    class Thief:
        __event_type__ = 0x4B

    bus.subscribe(Stated, recorder)
    good = [Stated() for _ in range(3)]
    with pytest.raises(EventClassError) as caught:
        bus.publish_many([*good, Thief(), Stated()])
    assert caught.value.published == 3
    assert recorder.wait_for(3) == good
    assert bus.wait_idle(deadline)
    assert len(recorder.events) == 3


@pytest.mark.parametrize("form", [list, iter])
def test_failures_of_direct_handlers_stop_publish_many_behind_the_event_that_they_failed_on(make_bus, form):
    bus, seen = make_bus(on_error="raise"), []

    def handler(tick):
        seen.append(tick)
        if len(seen) == 600:
            raise ValueError

    bus.subscribe(Tick, handler, mode="direct")
    events = ticks(1000)
    with pytest.raises(ExceptionGroup) as caught:
        bus.publish_many(form(events))
    assert seen == events[:600]
    assert caught.value.published == 600


def test_a_group_that_an_event_raises_by_itself_does_not_count_the_event(bus):
    class Broken:
        @property
        def __event_type__(self):
            raise ExceptionGroup("broken", [ValueError()])

    with pytest.raises(ExceptionGroup) as caught:
        bus.publish_many([*ticks(3), Broken()])
    assert caught.value.published == 3


def test_an_error_of_publish_says_that_nothing_was_published(make_bus):
    bus = make_bus()
    bus.close()
    with pytest.raises(ClosedError) as caught:
        bus.publish_many(ticks(3))
    assert caught.value.published == 0
    assert RingcastError().published == 0


@pytest.mark.parametrize("form", [list, iter])
def test_close_stops_publish_many_and_delivers_what_it_had_published(
    make_bus, gate, recorder, spawn, eventually, deadline, form
):
    bus = make_bus(max_queue=10)

    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(tick)

    subscription = bus.subscribe(handler)
    publishing = spawn(bus.publish_many, form(ticks(1000)))
    eventually(lambda: subscription.pending == 10)
    closing = spawn(bus.close)
    error = publishing.exception(deadline)
    assert isinstance(error, ClosedError)
    gate.open()
    closing.result(deadline)
    assert len(recorder.events) == (error.published if form is list else 10)
    assert recorder.events == ticks(len(recorder.events))


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
def test_publish_many_is_never_held_up_by_a_dropping_subscription(make_bus, gate, recorder, policy, deadline):
    bus = make_bus(max_queue=10)

    def handler(tick: Tick) -> None:
        if tick.number == -1:
            gate.hold()
        recorder(tick.number)

    subscription = bus.subscribe(handler, policy=policy)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    assert bus.publish_many(ticks(100), timeout=deadline) == 100
    gate.open()
    bus.close()
    kept = {"drop_newest": range(10), "drop_oldest": range(90, 100), "latest": range(99, 100)}[policy]
    assert recorder.events == [-1, *kept]
    assert_balanced(subscription, 101)


def test_calls_of_several_publishers_keep_their_order_and_their_runs(make_bus, recorder, spawn, deadline):
    """Events of other publishers may come in between only where a run of free slots ends: at the end of a page."""
    bus = make_bus(max_queue=50_000)
    bus.subscribe(Tick, recorder)
    bus.publish(Tick((4, 0, 99)))  # the first event starts the threads, and is claimed for by itself
    start = threading.Barrier(4)

    def publish(publisher):
        start.wait(deadline)
        for call in range(20):
            bus.publish_many([Tick((publisher, call, number)) for number in range(100)])

    for publishing in [spawn(publish, publisher) for publisher in range(4)]:
        publishing.result(deadline)
    numbers = [tick.number for tick in recorder.wait_for(8001)]
    for publisher in range(4):
        mine = [(call, number) for other, call, number in numbers if other == publisher]
        assert mine == [(call, number) for call in range(20) for number in range(100)]
    breaks = [at for at in range(1, 8001) if numbers[at - 1][2] != 99 and numbers[at - 1][:2] != numbers[at][:2]]
    assert all(at % 512 == 0 for at in breaks)


def test_publish_many_into_the_handlers_own_full_queue(make_bus, recorder):
    bus = make_bus(max_queue=5)

    def handler(tick: Tick) -> None:
        recorder(tick.number)
        if tick.number == 0:
            assert bus.publish_many(ticks(1000, 1)) == 1000

    bus.subscribe(handler)
    bus.publish(Tick(0))
    assert recorder.wait_for(1001) == list(range(1001))


def test_publish_many_past_the_reserve_says_how_many_it_has_published(make_bus, eventually):
    failures = []
    bus = make_bus(max_queue=10, on_error=failures.append)

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            bus.publish_many([Tick(1)] * 70_000)

    subscription = bus.subscribe(handler)
    bus.publish(Tick(0))
    eventually(lambda: failures)
    assert type(failures[0].exception) is QueueFullError
    assert failures[0].exception.published == 65_536 + 10 - 1  # the one that is handled takes its place too
    bus.close()
    assert subscription.delivered == 65_536 + 10


# Of the thread, so that what else runs does not count. That of Windows is too coarse.
processor_time = time.perf_counter if sys.platform == "win32" else time.thread_time


@pytest.mark.thread_unsafe(reason="measures time")
def test_publish_many_into_a_full_queue_takes_no_longer_than_one_by_one(make_bus):
    took: dict[str, list[float]] = {"many": [], "one by one": []}

    def handler(ticks: list[Tick]) -> None:
        # a handler goes past `max_queue`, as the wait for room would never end
        for way in took if ticks[0].number == 0 else ():
            start = processor_time()
            if way == "many":
                bus.publish_many([Tick(1)] * 30_000)
            else:
                for _ in range(30_000):
                    bus.publish(Tick(1))
            took[way].append(processor_time() - start)

    for _ in range(3):
        bus = make_bus(max_queue=10)
        bus.subscribe(handler, batch=1000)
        bus.publish(Tick(0))
        assert bus.wait_idle(DEADLINE)
    assert len(took["many"]) == 3
    assert min(took["many"]) < 5 * min(took["one by one"])  # 10 times, when it looked through all that were left


@pytest.mark.thread_unsafe(reason="measures time")
def test_publish_many_takes_no_longer_than_one_by_one_where_nothing_is_queued(make_bus):
    took: dict[str, list[float]] = {"many": [], "one by one": []}
    bus, ticks = make_bus(), [Tick(1)] * 5_000
    bus.subscribe(Tick, lambda tick: None, mode="direct")
    for _ in range(5):
        start = processor_time()
        bus.publish_many(ticks)
        between = processor_time()
        for tick in ticks:
            bus.publish(tick)
        took["many"].append(between - start)
        took["one by one"].append(processor_time() - between)
    assert min(took["many"]) < 2 * min(took["one by one"])  # 5 times, when it looked for a run before each


def test_emit_is_not_the_only_one_with_many():
    assert ringcast.default.publish_many([]) == 0


# --- handlers of batches ---


def test_a_batch_is_what_is_there_and_at_most_so_many(bus, gate, recorder):
    subscription = held_batches(bus, gate, recorder, 100)
    bus.publish_many(ticks(250))
    gate.open()
    bus.close()
    assert [len(batch) for batch in recorder.events] == [1, 100, 100, 50]
    assert flat(recorder.events[1:]) == ticks(250)
    assert all(type(batch) is list for batch in recorder.events)
    assert subscription.batch == 100
    assert_balanced(subscription, 251)


def test_a_batch_does_not_wait_to_be_filled(bus, recorder):
    bus.subscribe(Tick, recorder, batch=1000)
    for number in range(5):
        bus.publish(Tick(number))
        assert flat(recorder.wait_for(number + 1)) == ticks(number + 1)


@pytest.mark.parametrize("batch", [1, 2, 255, 256, 257, 1000, 65_536])
@pytest.mark.parametrize("max_queue", [1, 10, 50_000])
def test_nothing_is_lost_whatever_the_sizes(make_bus, recorder, batch, max_queue):
    bus = make_bus(max_queue=max_queue)
    subscription = bus.subscribe(Tick, recorder, batch=batch)
    count = 2000
    bus.publish_many(ticks(count // 2))
    for tick in ticks(count - count // 2, count // 2):
        bus.publish(tick)
    bus.close()
    assert flat(recorder.events) == ticks(count)
    assert all(1 <= len(each) <= min(batch, max_queue) for each in recorder.events)
    assert_balanced(subscription, count)


def test_a_batch_of_all_that_may_wait(make_bus, gate, recorder):
    bus = make_bus(max_queue=70_000)
    held_batches(bus, gate, recorder, 65_536)
    bus.publish_many(ticks(69_000))
    gate.open()
    bus.close()
    assert [len(batch) for batch in recorder.events] == [1, 65_536, 69_000 - 65_536]
    assert flat(recorder.events[1:]) == ticks(69_000)


def test_batch_and_single_handlers_of_one_type(bus, make_recorder):
    single, small, large = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(Tick, single)
    bus.subscribe(Tick, small, batch=3)
    bus.subscribe(Tick, large, batch=700)
    bus.publish_many(ticks(5000))
    bus.close()
    assert single.events == flat(small.events) == flat(large.events) == ticks(5000)
    assert max(map(len, small.events)) == 3


def test_each_batch_is_a_list_of_its_own(bus, gate, recorder):
    held_batches(bus, gate, recorder, 10)
    bus.publish_many(ticks(20))
    gate.open()
    bus.close()
    recorder.events[1].clear()
    assert recorder.events[2] == ticks(10, 10)


@pytest.mark.parametrize("batch", [0, -1, 65_537, 1.5, True, "10"])
def test_a_batch_is_from_1_to_65536(bus, batch):
    with pytest.raises(OptionError, match="batch"):
        bus.subscribe(Tick, print, batch=batch)


@pytest.mark.parametrize("options", [{"mode": "direct"}, {"context": "publisher"}])
def test_what_does_not_go_with_batches(bus, options):
    with pytest.raises(OptionError):
        bus.subscribe(Tick, print, batch=10, **options)


def test_without_batch_events_come_one_by_one(bus, recorder):
    subscription = bus.subscribe(Tick, recorder, batch=None)
    bus.publish_many(ticks(3))
    assert recorder.wait_for(3) == ticks(3)
    assert subscription.batch is None


# --- annotations ---


@pytest.mark.parametrize(
    "annotation",
    [
        list[Tick],
        Sequence[Tick],
        Iterable[Tick],
        "list[Tick]",
        "Sequence['Tick']",
        list["Tick"],
    ],
)
def test_the_class_is_that_of_the_members(bus, recorder, annotation):
    def handler(events):
        recorder(events)

    handler.__annotations__["events"] = annotation
    assert bus.subscribe(handler, batch=10).event_class is Tick
    bus.publish(Tick(1))
    assert recorder.wait_for(1) == [[Tick(1)]]


@pytest.mark.parametrize("annotation", [Tick, set[Tick], dict[Tick, int], str, list[Other], Callable[[Tick], None]])
def test_annotations_that_are_no_list_of_the_class(bus, annotation):
    def handler(events):
        pass

    handler.__annotations__["events"] = annotation
    with pytest.raises((HandlerTypeError, EventClassError)) as caught:
        bus.subscribe(Tick, handler, batch=10)
    assert "Other" in str(caught.value) or "list[EventClass]" in str(caught.value)


@pytest.mark.parametrize("annotation", [list, Sequence, Any, list[Any], object, "list[int | None]"])
def test_annotations_that_name_no_class_need_one(bus, recorder, annotation):
    def handler(events):
        recorder(events)

    handler.__annotations__["events"] = annotation
    with pytest.raises(HandlerTypeError):
        bus.subscribe(handler, batch=10)
    if annotation in (list, Sequence):
        with pytest.raises(
            HandlerTypeError, match=r"does not say of what; annotate it list\[EventClass\], or name the"
        ):
            bus.subscribe(handler, batch=10)
    if "int" not in str(annotation):
        bus.subscribe(Tick, handler, batch=10)
        bus.publish(Tick(1))
        assert recorder.wait_for(1) == [[Tick(1)]]


def test_a_list_handler_without_batch_is_for_events_that_are_lists(bus, recorder):
    def handler(events: list[Tick]) -> None:
        recorder(events)

    with pytest.raises(HandlerTypeError, match="batch=100"):  # was batch= forgotten?
        bus.subscribe(handler)
    assert bus.subscribe(list, handler).event_class is list
    bus.publish([Tick(1)])
    assert recorder.wait_for(1) == [[Tick(1)]]


def test_on_and_on_type(bus, recorder, deadline):
    @bus.on(batch=10)
    def by_annotation(events: list[Tick]) -> None:
        recorder(("annotation", events))

    @bus.on(Tick, batch=10)
    def told(events):
        recorder(("told", events))

    def by_id(events: list[Stated]) -> None:
        recorder(("id", events))

    bus.subscribe_to(0x4B, by_id, batch=10)
    bus.publish(Tick(1))
    stated = Stated()
    bus.publish_to(0x4B, stated)
    recorder.wait_for(3)
    assert ("annotation", [Tick(1)]) in recorder.events
    assert ("told", [Tick(1)]) in recorder.events
    assert ("id", [stated]) in recorder.events
    subscription = ringcast.on_type(0x4C, by_id, batch=7)
    assert subscription.batch == 7
    subscription.cancel()


@pytest.mark.parametrize("target", [object, Placed, Tick])
def test_batches_of_subclasses(bus, recorder, target):
    bus.subscribe(target, recorder, batch=100, subclasses=True)
    events = [(Tick, FineTick)[number % 2](number) for number in range(1000)]
    bus.publish_many(events)
    bus.close()
    assert flat(recorder.events) == events


# --- errors ---


def test_a_failure_has_the_batch(make_bus, gate, recorder):
    failures = []
    bus = make_bus(on_error=failures.append)

    def handler(events: list[Tick]) -> None:
        if events[0].number == -1:
            gate.hold()
        recorder(events)
        raise ValueError("on purpose")

    subscription = bus.subscribe(handler, batch=10)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    bus.publish_many(ticks(20))
    gate.open()
    bus.close()
    assert [failure.event for failure in failures] == recorder.events == [ticks(1, -1), ticks(10), ticks(10, 10)]
    assert [type(failure.exception) for failure in failures] == [ValueError] * 3
    assert subscription.errors == 3  # calls
    assert subscription.delivered == 21  # events
    assert_balanced(subscription, 21)


# --- where, once, weak ---


def test_where_picks_what_goes_into_the_batches(bus, gate, recorder):
    subscription = held_batches(bus, gate, recorder, 10, where=lambda tick: tick.number % 3 != 0)
    bus.publish_many(ticks(100))
    gate.open()
    bus.close()
    assert flat(recorder.events[1:]) == [tick for tick in ticks(100) if tick.number % 3 != 0]
    assert subscription.filtered == 34
    assert subscription.delivered == 67
    assert_balanced(subscription, 101)


def test_a_batch_is_never_empty(bus, recorder):
    subscription = bus.subscribe(Tick, recorder, batch=10, where=lambda tick: False)
    bus.publish_many(ticks(100))
    bus.close()
    assert recorder.events == []
    assert subscription.filtered == 100
    assert_balanced(subscription, 100)


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_counts_seen_from_inside_a_batch_handler(bus, gate, policy):
    """What is in hand is pending, and not delivered yet; what was filtered before it is neither."""
    seen = []

    def handler(events: list[Tick]) -> None:
        if events[0].number == -1:
            gate.hold()
        seen.append((len(events), subscription.delivered, subscription.pending))

    subscription = bus.subscribe(handler, batch=10, policy=policy, where=lambda tick: tick.number % 2)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    bus.publish_many(ticks(40))
    gate.open()
    bus.close()
    delivered = 0
    for count, before, pending in seen:
        assert before == delivered
        assert pending >= count
        delivered += count
    assert delivered == 21


def test_a_where_that_raises_costs_its_event_alone(make_bus, gate, recorder):
    failures = []
    bus = make_bus(on_error=failures.append)

    def where(tick):
        if tick.number == 5:
            raise ValueError("on purpose")
        return True

    subscription = held_batches(bus, gate, recorder, 10, where=where)
    bus.publish_many(ticks(10))
    gate.open()
    bus.close()
    assert recorder.events[1] == [tick for tick in ticks(10) if tick.number != 5]
    assert [failure.event for failure in failures] == [Tick(5)]
    assert (subscription.errors, subscription.delivered, subscription.dropped) == (1, 10, 1)


@pytest.mark.parametrize("policy", ["block", "raise", "drop_oldest"])
def test_once_is_one_event(bus, gate, recorder, policy):
    """The subscription ends with the first event that it handles, in a list as elsewhere."""
    inside = []

    def handler(events: list[Tick]) -> None:
        inside.append((subscription.delivered, subscription.dropped))
        recorder(events)

    blocker = bus.subscribe(Other, gate.hold)  # so that the worker finds them all at once
    bus.publish(Other(1))
    gate.wait_until_held()
    subscription = bus.subscribe(handler, batch=10, once=True, policy=policy, where=lambda tick: tick.number >= 3)
    bus.publish_many(ticks(20))
    gate.open()
    bus.close()
    assert recorder.events == [ticks(1, 3)]
    assert subscription.delivered == 1
    assert not subscription.active
    assert inside[0][0] == 0
    assert_balanced(subscription, subscription.delivered + subscription.dropped + subscription.filtered)
    assert blocker.delivered == 1


def test_a_weak_batch_handler_ends_with_its_owner(bus, recorder, deadline):
    class Owner:
        def handle(self, events: list[Tick]) -> None:
            recorder(events)

    owner = Owner()
    subscription = bus.subscribe(owner.handle, batch=10, weak=True)
    bus.publish_many(ticks(3))
    bus.wait_idle(deadline)
    assert flat(recorder.events) == ticks(3)
    del owner
    assert not subscription.active
    bus.publish_many(ticks(3))
    bus.close()
    assert flat(recorder.events) == ticks(3)


# --- policies ---


def test_back_pressure_holds_publish_many(make_bus, gate, recorder, spawn, deadline):
    bus = make_bus(max_queue=10)
    subscription = held_batches(bus, gate, recorder, 5)
    publishing = spawn(bus.publish_many, ticks(1000))
    assert not publishing.done()
    assert subscription.pending <= 10
    gate.open()
    assert publishing.result(deadline) == 1000
    bus.close()
    assert flat(recorder.events[1:]) == ticks(1000)
    assert max(map(len, recorder.events)) <= 5


def test_a_refusing_batch_subscription(bus, gate, recorder):
    subscription = held_batches(bus, gate, recorder, 3, policy="raise", max_queue=8)
    with pytest.raises(QueueFullError) as caught:
        bus.publish_many(ticks(20))
    assert caught.value.published == 7  # the batch in hand counts, as an event in hand does
    gate.open()
    bus.close()
    assert flat(recorder.events[1:]) == ticks(7)
    assert_balanced(subscription, 8)


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop_newest", range(20)), ("drop_oldest", range(80, 100)), ("latest", range(99, 100))]
)
def test_dropping_batch_subscriptions(bus, gate, recorder, policy, kept):
    lags = []

    def handler(events: list[Tick]) -> None:
        if events[0].number == -1:
            gate.hold()
        lags.append(subscription.lag)
        recorder(events)

    subscription = bus.subscribe(handler, batch=6, policy=policy, max_queue=None if policy == "latest" else 20)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    bus.publish_many(ticks(100))
    gate.open()
    bus.close()
    assert [tick.number for tick in flat(recorder.events[1:])] == list(kept)
    assert max(map(len, recorder.events)) <= 6
    assert subscription.dropped == 100 - len(kept)
    # the lag of a batch is how many are missing before any of its events
    assert lags[1] == {"drop_newest": 0, "drop_oldest": 80, "latest": 99}[policy]
    assert_balanced(subscription, 101)


def test_the_latest_of_each_key_in_a_batch(bus, gate, recorder):
    subscription = held_batches(
        bus, gate, recorder, 10, policy="latest", max_queue=20, key=lambda tick: tick.number % 4
    )
    bus.publish_many(ticks(100))
    gate.open()
    bus.close()
    assert flat(recorder.events[1:]) == ticks(4, 96)
    assert subscription.dropped == 96
    assert_balanced(subscription, 101)


# --- cancel and close ---


def test_cancel_delivers_what_was_accepted(bus, gate, recorder):
    subscription = held_batches(bus, gate, recorder, 10)
    bus.publish_many(ticks(25))
    subscription.cancel()
    bus.publish_many(ticks(25, 100))
    gate.open()
    bus.close()
    assert flat(recorder.events[1:]) == ticks(25)
    assert subscription.dropped == 0


@pytest.mark.parametrize("policy", ["block", "drop_newest", "drop_oldest"])
def test_discard_drops_what_no_batch_has_begun(bus, gate, recorder, policy):
    subscription = held_batches(bus, gate, recorder, 10, policy=policy)
    bus.publish_many(ticks(25))
    subscription.cancel(discard=True)
    assert subscription.dropped == 25
    gate.open()
    bus.close()
    assert recorder.events == [ticks(1, -1)]
    assert_balanced(subscription, 26)


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
@pytest.mark.parametrize("discard", [False, True])
def test_cancel_inside_the_batch_handler(bus, gate, recorder, discard, policy, deadline):
    def handler(events: list[Tick]) -> None:
        if events[0].number == -1:
            gate.hold()
        elif events[0].number == 0:
            subscription.cancel(discard=discard)
        recorder(events)

    subscription = bus.subscribe(handler, batch=10, policy=policy)
    bus.publish(Tick(-1))
    gate.wait_until_held()
    bus.publish_many(ticks(25))
    gate.open()
    bus.wait_idle(deadline)
    bus.publish_many(ticks(25, 100))
    bus.close()
    assert flat(recorder.events[1:]) == (ticks(10) if discard else ticks(25))
    assert subscription.dropped == (15 if discard else 0)
    assert_balanced(subscription, 26)


def test_leaving_a_with_block_waits_for_the_batches(bus, recorder):
    with bus.subscribe(Tick, recorder, batch=10):
        bus.publish_many(ticks(1000))
    assert flat(recorder.events) == ticks(1000)


def test_close_inside_a_batch_handler(bus, recorder, deadline):
    closed = threading.Event()

    def handler(events: list[Tick]) -> None:
        recorder(events)
        bus.close()
        closed.set()

    bus.subscribe(handler, batch=4)
    with contextlib.suppress(ClosedError):
        bus.publish_many(ticks(100))
    assert closed.wait(deadline)
    bus.close()
    events = flat(recorder.events)
    assert events == ticks(len(events))


def test_events_are_released_after_their_batch(bus, gate, deadline):
    released = threading.Event()

    class Payload:
        def __del__(self):
            released.set()

    def handler(payloads: list[Payload]) -> None:
        pass

    bus.subscribe(handler, batch=10)
    bus.publish_many([Payload()])
    assert released.wait(deadline)


# --- publishing from batch handlers, slow ones ---


@pytest.mark.parametrize("max_queue", [1, 10])
def test_a_batch_handler_publishes_into_its_own_full_queue(make_bus, recorder, max_queue, deadline):
    bus = make_bus(max_queue=max_queue)

    def handler(events: list[Tick]) -> None:
        recorder(events)
        bus.publish_many([Tick(event.number + 1000) for event in events if event.number < 5000])

    subscription = bus.subscribe(handler, batch=20)
    bus.publish_many(ticks(1000))
    bus.wait_idle(deadline)
    bus.close()
    assert sorted(tick.number for tick in flat(recorder.events)) == list(range(6000))
    assert_balanced(subscription, 6000)


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_a_stuck_batch_handler_delays_nobody_else(bus, gate, make_recorder, policy):
    """It gets a lane of its own."""
    stuck, quick, batches = make_recorder(), make_recorder(), make_recorder()

    def held(events: list[Tick]) -> None:
        if not stuck.events:
            gate.hold()
        stuck(events)

    bus.subscribe(held, batch=100, policy=policy)
    bus.subscribe(Tick, quick)
    bus.subscribe(Tick, batches, batch=100)
    bus.publish(Tick(0))
    gate.wait_until_held()
    bus.publish_many(ticks(2999, 1))
    assert quick.wait_for(3000) == ticks(3000)
    while len(flat(batches.events)) < 3000:
        batches.wait_for(len(batches.events) + 1)
    assert stuck.events == []
    gate.open()
    bus.close()
    assert flat(stuck.events) == flat(batches.events) == ticks(3000)


# --- asyncio ---


def test_batches_for_an_async_handler(make_bus):
    async def main():
        batches = []

        async def handler(events: list[Tick]) -> None:
            batches.append(events)
            await asyncio.sleep(0)

        async with make_bus(max_queue=1000) as bus:
            subscription = bus.subscribe(handler, batch=50)
            bus.publish_many(ticks(500))
        assert flat(batches) == ticks(500)
        assert [len(batch) for batch in batches] == [50] * 10
        assert_balanced(subscription, 500)

    asyncio.run(main())


@pytest.mark.parametrize("change", [list.clear, lambda events: events.extend(events)], ids=["empties", "doubles"])
def test_an_async_handler_may_change_its_batch(make_bus, change):
    async def main():
        async def handler(events: list[Tick]) -> None:
            change(events)

        async with make_bus() as bus:
            async with bus.subscribe(handler, batch=4) as subscription:
                bus.publish_many(ticks(10))
            assert_balanced(subscription, 10)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_concurrent_batches_of_an_async_handler(make_bus):
    async def main():
        batches, under_way, most, together = [], 0, 0, asyncio.Event()

        async def handler(events: list[Tick]) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            if most == 3:
                together.set()
            await together.wait()
            under_way -= 1
            batches.append(events)

        async with make_bus(max_queue=1000) as bus:
            subscription = bus.subscribe(handler, batch=10, concurrency=3)
            bus.publish_many(ticks(500))
        assert most == 3
        assert sorted(tick.number for tick in flat(batches)) == list(range(500))
        assert max(map(len, batches)) == 10
        assert_balanced(subscription, 500)

    asyncio.run(main())


@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest", "drop_oldest", "latest"])
def test_failures_and_policies_of_async_batches(make_bus, policy):
    failures = []

    async def main():
        async def handler(events: list[Tick]) -> None:
            raise ValueError("on purpose")

        async with make_bus(on_error=failures.append) as bus:
            subscription = bus.subscribe(
                handler, batch=10, policy=policy, where=lambda tick: tick.number % 2 == 0, max_queue=30
            )
            bus.publish_many(ticks(30))
        assert_balanced(subscription, 30)
        assert subscription.errors == len(failures)
        handled = flat([failure.event for failure in failures])
        assert subscription.delivered == len(handled)
        assert handled == (ticks(1, 28) if policy == "latest" else ticks(30)[::2])

    asyncio.run(main())


def test_async_batches_put_pressure_on_publishers(make_bus):
    async def main():
        batches = []

        async def handler(events: list[Tick]) -> None:
            batches.append(events)

        async with make_bus(max_queue=10) as bus:
            bus.subscribe(handler, batch=4)
            assert await asyncio.to_thread(bus.publish_many, ticks(1000)) == 1000
        assert flat(batches) == ticks(1000)

    asyncio.run(main())


# --- streams ---


def test_a_stream_of_batches(make_bus):
    async def main():
        async with make_bus(max_queue=1000) as bus:
            stream = bus.stream(Tick, batch=40)
            bus.publish_many(ticks(100))
            assert [await anext(stream) for _ in range(3)] == [ticks(40), ticks(40, 40), ticks(20, 80)]
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            bus.publish(Tick(100))
            assert await waiting == ticks(1, 100)  # it does not wait to be filled
            assert stream.subscription.batch == 40
            assert_balanced(stream.subscription, 101)
            bus.publish_many(ticks(90))
            closing = asyncio.create_task(bus.aclose())  # which waits until all is taken
            assert [batch async for batch in stream] == [ticks(40), ticks(40, 40), ticks(10, 80)]
            await closing

    asyncio.run(main())


def test_a_stream_of_batches_keeps_to_its_options(make_bus):
    async def main():
        async with make_bus() as bus:
            async with bus.stream(
                Tick, batch=4, max_queue=6, policy="drop_oldest", where=lambda tick: tick.number % 2, subclasses=True
            ) as stream:
                bus.publish_many(map(FineTick, range(20)))
                assert [tick.number for tick in await anext(stream)] == [9, 11, 13, 15]
                assert stream.lag == 4
                assert [tick.number for tick in await anext(stream)] == [17, 19]
                assert stream.lag == 0
                bus.publish(Tick(1))
            assert [batch async for batch in stream] == []
            assert stream.subscription.dropped == 5
            with pytest.raises(OptionError, match="batch"):
                bus.stream(Tick, batch=0)

    asyncio.run(main())


def test_a_stream_of_batches_holds_publishers(make_bus):
    async def main():
        bus = make_bus(max_queue=10)
        stream, got = bus.stream(Tick, batch=7), []
        publishing = asyncio.create_task(asyncio.to_thread(bus.publish_many, ticks(1000)))
        while len(got) < 1000:
            got += await anext(stream)
        assert await publishing == 1000
        assert got == ticks(1000)
        stream.cancel()
        await bus.aclose()

    asyncio.run(main())


# --- statistics ---


def test_stats_count_events(bus, gate, recorder, deadline):
    subscription = held_batches(bus, gate, recorder, 10)
    bus.publish_many(ticks(25))
    assert subscription.pending == 26
    gate.open()
    bus.wait_idle(deadline)
    [topic] = bus.stats().topics
    [stats] = topic.subscriptions
    assert topic.published == 26
    assert stats.delivered == 26
    assert stats.pending == stats.dropped == stats.errors == 0
    assert subscription.high_water == 25
