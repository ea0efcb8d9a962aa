"""Mode "direct": the handler is called inside `publish`, on the publisher's thread, before `publish` returns."""

import logging
import threading
from dataclasses import dataclass

import pytest

from ringcast import ClosedError, HandlerFailure, OptionError, PublishTimeoutError, RingcastError


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class Other:
    number: int


class Oops(Exception):
    pass


def direct(bus, handler, event_class=Tick, **options):
    return bus.subscribe(event_class, handler, mode="direct", **options)


def leaves(group):
    """The exceptions in a group, and in the groups that it has."""
    if not isinstance(group, BaseExceptionGroup):
        return [group]
    return [leaf for exception in group.exceptions for leaf in leaves(exception)]


# --- the call ---


def test_publish_calls_the_handlers_on_its_own_thread_and_then_returns(bus):
    calls = []
    direct(bus, lambda tick: calls.append((tick, threading.get_ident())))
    event = Tick(0)
    assert bus.publish(event) == 1
    assert calls == [(event, threading.get_ident())]


@pytest.mark.parametrize(
    "subscribe",
    [
        pytest.param(lambda bus, handler: bus.subscribe(handler, mode="direct"), id="subscribe(handler)"),
        pytest.param(lambda bus, handler: bus.subscribe(Tick, handler, mode="direct"), id="subscribe(class, handler)"),
        pytest.param(lambda bus, handler: bus.on(mode="direct")(handler), id="on()"),
        pytest.param(lambda bus, handler: bus.on(Tick, mode="direct")(handler), id="on(class)"),
    ],
)
def test_every_way_to_subscribe_takes_the_mode(bus, subscribe):
    seen = []

    def handler(tick: Tick) -> None:
        seen.append(tick.number)

    subscribe(bus, handler)
    bus.publish(Tick(1))
    assert seen == [1]


def test_subscribe_to_and_publish_to_take_it_too(bus):
    seen = []
    subscription = bus.subscribe_to(7, seen.append, mode="direct")
    assert bus.publish_to(7, "event") == 1
    assert seen == ["event"]
    assert (subscription.type_id, subscription.mode) == (7, "direct")


def test_publish_returns_how_many_handlers_it_has_called(bus):
    for expected in range(1, 5):
        direct(bus, lambda tick: None)
        assert bus.publish(Tick(0)) == bus.count(Tick) == expected


def test_its_counters_are_up_to_date_when_publish_returns(bus):
    subscription = direct(bus, lambda tick: None)
    for number in range(3):
        bus.publish(Tick(number))
    assert (subscription.delivered, subscription.pending, subscription.dropped) == (3, 0, 0)
    assert subscription.active


def test_max_queue_means_nothing_to_it(make_bus):
    bus, seen = make_bus(max_queue=1), []
    direct(bus, lambda tick: seen.append(tick.number))
    for number in range(100):
        assert bus.publish(Tick(number), timeout=0) == 1
    assert seen == list(range(100))


@pytest.mark.thread_unsafe(reason="counts the threads of the process")
def test_no_thread_is_started_for_a_type_with_direct_subscribers_only(make_bus):
    bus = make_bus(name="threadless")
    before = threading.enumerate()
    for _ in range(3):
        direct(bus, lambda tick: None)
    for number in range(100):
        bus.publish(Tick(number))
    assert threading.enumerate() == before


def test_threads_do_not_wait_for_each_others_handlers(bus, gate, spawn, deadline):
    seen = []

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            gate.hold()
        seen.append((tick.number, threading.get_ident()))

    bus.subscribe(handler, mode="direct")
    publisher = spawn(bus.publish, Tick(0))
    gate.wait_until_held()
    bus.publish(Tick(1))
    assert seen == [(1, threading.get_ident())]
    gate.open()
    assert publisher.result(deadline) == 1
    assert [number for number, _ in seen] == [1, 0]


# --- order ---


@pytest.mark.parametrize(
    ("priorities", "expected"),
    [
        ([0, 0, 0], [0, 1, 2]),
        ([1, 2, 3], [2, 1, 0]),
        ([0, 5, 0, 5, -1, 0], [1, 3, 0, 2, 5, 4]),
    ],
)
def test_handlers_are_called_by_priority_then_in_the_order_of_subscription(bus, priorities, expected):
    calls = []
    for place, priority in enumerate(priorities):
        direct(bus, lambda tick, place=place: calls.append(place), priority=priority)
    bus.publish(Tick(0))
    assert calls == expected


def test_the_priority_is_0_where_none_is_given(bus):
    calls = []
    direct(bus, lambda tick: calls.append("none"))
    direct(bus, lambda tick: calls.append("above"), priority=1)
    direct(bus, lambda tick: calls.append("zero"), priority=0)
    direct(bus, lambda tick: calls.append("below"), priority=-1)
    bus.publish(Tick(0))
    assert calls == ["above", "none", "zero", "below"]


def test_the_order_stays_when_others_are_cancelled(bus):
    calls = []
    subscriptions = [direct(bus, lambda tick, place=place: calls.append(place)) for place in range(5)]
    subscriptions[1].cancel()
    subscriptions[3].cancel()
    assert bus.publish(Tick(0)) == 3
    direct(bus, lambda tick: calls.append(5))
    bus.publish(Tick(0))
    assert calls == [0, 2, 4, 0, 2, 4, 5]


@pytest.mark.parametrize("mode", [None, "queued"])
def test_direct_and_queued_subscribers_of_one_type(bus, gate, recorder, mode, deadline):
    seen = []
    direct(bus, lambda tick: seen.append(tick.number))
    queued = bus.subscribe(Tick, lambda tick: (gate.hold(), recorder(tick.number)), mode=mode)
    direct(bus, lambda tick: seen.append(-tick.number))
    for number in (1, 2, 3):
        assert bus.publish(Tick(number)) == 3
    gate.wait_until_held()
    assert seen == [1, -1, 2, -2, 3, -3]  # while the queued one has not done its first
    assert (queued.mode, queued.pending) == ("queued", 3)
    gate.open()
    bus.close(deadline)
    assert recorder.events == [1, 2, 3]


# --- publishing inside a handler ---


def test_a_nested_event_comes_after_the_current_one_is_with_all_and_before_publish_returns(bus):
    calls = []

    def first(tick: Tick) -> None:
        calls.append(("first", tick.number))
        if tick.number == 0:
            assert bus.publish(Tick(1)) == 2
            assert bus.publish(Tick(2)) == 2
            calls.append("published")

    def second(tick: Tick) -> None:
        calls.append(("second", tick.number))

    bus.subscribe(first, mode="direct")
    bus.subscribe(second, mode="direct")
    bus.publish(Tick(0))
    assert calls == [
        ("first", 0),
        "published",
        ("second", 0),
        ("first", 1),
        ("second", 1),
        ("first", 2),
        ("second", 2),
    ]


def test_nested_events_of_several_types_come_breadth_first(bus):
    calls = []

    def tick(event: Tick) -> None:
        calls.append(event)
        if event.number < 3:
            bus.publish(Other(2 * event.number))
            bus.publish(Other(2 * event.number + 1))

    def other(event: Other) -> None:
        calls.append(event)
        if event.number < 2:
            bus.publish(Tick(event.number + 1))

    bus.subscribe(tick, mode="direct")
    bus.subscribe(other, mode="direct")
    bus.publish(Tick(0))
    assert calls == [
        Tick(0),
        *(Other(0), Other(1)),
        *(Tick(1), Tick(2)),
        *(Other(2), Other(3), Other(4), Other(5)),
    ]


@pytest.mark.parametrize("at_once", [1, 1000])
def test_a_hundred_thousand_nested_events_take_no_recursion(bus, at_once):
    amount = 100_000
    seen = []

    def handler(tick: Tick) -> None:
        seen.append(tick.number)
        if tick.number % at_once == 0:
            for number in range(tick.number + 1, min(tick.number + at_once, amount) + 1):
                bus.publish(Tick(number))

    subscription = bus.subscribe(handler, mode="direct")
    bus.publish(Tick(0))
    assert seen == list(range(amount + 1))
    assert subscription.delivered == amount + 1


def test_a_nested_event_is_with_queued_subscribers_at_once(bus, recorder):
    bus.subscribe(Other, recorder)

    def handler(tick: Tick) -> None:
        assert bus.publish(Other(tick.number)) == 1
        recorder.wait_for(1)  # inside the direct handler

    subscription = bus.subscribe(handler, mode="direct")
    bus.publish(Tick(0))
    assert subscription.errors == 0


def test_a_queued_handler_publishes_to_direct_ones(bus, recorder):
    seen = []

    def queued(other: Other) -> None:
        bus.publish(Tick(other.number))
        recorder(list(seen))

    direct(bus, lambda tick: seen.append(tick.number))
    bus.subscribe(queued)
    bus.publish(Other(1))
    assert recorder.wait_for(1) == [[1]]


# --- exceptions ---


def fail(tick):
    raise Oops(tick.number)


def test_a_handler_that_raises_stops_neither_the_others_nor_publish(make_bus):
    failures, seen = [], []
    bus = make_bus(on_error=failures.append)
    failing = direct(bus, fail)
    other = direct(bus, lambda tick: seen.append(tick.number))
    for number in range(3):
        assert bus.publish(Tick(number)) == 2
    assert seen == [0, 1, 2]
    assert (failing.errors, failing.delivered, other.errors) == (3, 3, 0)
    assert [(type(failure), failure.exception.args, failure.event) for failure in failures] == [
        (HandlerFailure, (number,), Tick(number)) for number in range(3)
    ]
    assert {failure.subscription for failure in failures} == {failing}


def test_by_default_the_failure_is_logged(bus, caplog):
    direct(bus, fail)
    with caplog.at_level(logging.ERROR, "ringcast"):
        assert bus.publish(Tick(5)) == 1
    (record,) = caplog.records
    assert "fail" in record.getMessage()
    assert type(record.exc_info[1]) is Oops


def test_with_raise_publish_raises_a_group_after_all_have_run(make_bus, caplog):
    bus, seen = make_bus(on_error="raise"), []
    failing = [direct(bus, fail), direct(bus, lambda tick: 1 // 0)]
    direct(bus, lambda tick: seen.append(tick.number))
    with pytest.raises(ExceptionGroup, match="handlers failed") as raised:
        bus.publish(Tick(7))
    assert [type(exception) for exception in raised.value.exceptions] == [Oops, ZeroDivisionError]
    assert seen == [7]
    assert [subscription.errors for subscription in failing] == [1, 1]
    assert caplog.records == []
    with pytest.raises(ExceptionGroup):  # and it goes on
        bus.publish(Tick(8))
    assert seen == [7, 8]


def test_with_raise_the_outermost_publish_raises_for_the_nested_events(make_bus):
    bus, calls = make_bus(on_error="raise"), []

    def handler(tick: Tick) -> None:
        if tick.number:
            bus.publish(Tick(tick.number - 1))
            calls.append(tick.number)
        raise Oops(tick.number)

    bus.subscribe(handler, mode="direct")
    with pytest.raises(ExceptionGroup) as raised:
        bus.publish(Tick(3))
    assert calls == [3, 2, 1]  # no nested publish has raised
    assert [exception.args for exception in leaves(raised.value)] == [(3,), (2,), (1,), (0,)]


def test_with_raise_the_failures_of_queued_handlers_are_logged(make_bus, caplog, deadline):
    bus = make_bus(on_error="raise")
    subscription = bus.subscribe(Tick, fail)
    with caplog.at_level(logging.ERROR, "ringcast"):
        assert bus.publish(Tick(0)) == 1
        bus.close(deadline)
    assert subscription.errors == 1
    assert [type(record.exc_info[1]) for record in caplog.records] == [Oops]


@pytest.mark.parametrize("on_error", ["raise", "call"])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_reaches_the_publisher_after_all_have_run(make_bus, recorder, on_error, exception):
    # the handler runs on the publisher's thread: a Ctrl-C that comes in it is the publisher's
    seen = []
    bus = make_bus(on_error=on_error if on_error == "raise" else lambda failure: None)

    def interrupted(tick: Tick) -> None:
        if tick.number == 0:
            bus.publish(Tick(1))
            raise exception

    failing = bus.subscribe(interrupted, mode="direct")
    direct(bus, lambda tick: seen.append(tick.number))
    bus.subscribe(Tick, recorder)
    with pytest.raises(exception):
        bus.publish(Tick(0))
    assert seen == [0, 1]
    assert len(recorder.wait_for(2)) == 2
    assert failing.errors == 1
    assert bus.publish(Tick(2)) == 3  # and it goes on
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("on_error", ["raise", None])
def test_beside_what_is_no_exception_nothing_is_lost(make_bus, caplog, on_error):
    bus = make_bus(on_error=on_error)

    def fail(tick: Tick) -> None:
        raise ValueError("a failure")

    def interrupt(tick: Tick) -> None:
        raise KeyboardInterrupt

    def leave(tick: Tick) -> None:
        raise SystemExit(3)

    for handler in (fail, interrupt, leave):
        bus.subscribe(handler, mode="direct")
    with pytest.raises(KeyboardInterrupt):
        bus.publish(Tick(1))
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, SystemExit]


# --- subscribing, cancelling and closing inside a handler ---


def test_a_handler_cancels_itself(bus):
    seen = []

    def handler(tick: Tick) -> None:
        seen.append(tick.number)
        subscription.cancel()

    subscription = bus.subscribe(handler, mode="direct")
    assert [bus.publish(Tick(number)) for number in range(3)] == [1, 0, 0]
    assert seen == [0]
    assert not subscription.active


@pytest.mark.parametrize(("discard", "expected"), [(False, [0]), (True, [])])
def test_a_handler_cancels_one_whose_turn_is_still_to_come(bus, discard, expected):
    # as everywhere: what was accepted before is delivered, or dropped and counted
    seen = []
    direct(bus, lambda tick: later.cancel(discard=discard))
    later = direct(bus, lambda tick: seen.append(tick.number))
    bus.publish(Tick(0))
    bus.publish(Tick(1))
    assert seen == expected
    assert (later.delivered, later.dropped, later.pending) == (len(expected), 1 - len(expected), 0)


def test_a_handler_subscribes_another_which_sees_the_events_from_then_on(bus):
    seen = []

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            direct(bus, lambda tick: seen.append(tick.number))
            assert bus.publish(Tick(1)) == 2

    bus.subscribe(handler, mode="direct")
    assert bus.publish(Tick(0)) == 1
    assert bus.publish(Tick(2)) == 2
    assert seen == [1, 2]


def test_a_handler_closes_the_dispatcher(make_bus):
    bus, seen, refused = make_bus(), [], []

    def handler(tick: Tick) -> None:
        bus.publish(Tick(1)) if tick.number == 0 else None
        bus.close()
        with pytest.raises(ClosedError):
            bus.publish(Tick(2))
        refused.append(tick.number)

    bus.subscribe(handler, mode="direct")
    direct(bus, lambda tick: seen.append(tick.number))
    assert bus.publish(Tick(0)) == 2
    assert seen == [0, 1]  # both were accepted before
    assert refused == [0, 1]
    with pytest.raises(ClosedError):
        bus.publish(Tick(3))


# --- what is refused ---


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sideways"},
        {"mode": "direct", "priority": "high"},
        {"mode": "direct", "priority": True},
        {"mode": "direct", "policy": "drop_oldest"},
        {"mode": "direct", "max_queue": 10},
        {"mode": "direct", "context": "publisher"},
        {"mode": "direct", "concurrency": 2},
        {"mode": "queued", "priority": 1},
        {"priority": 1},
    ],
)
def test_options_that_make_no_sense_are_refused(bus, options):
    with pytest.raises(OptionError):
        bus.subscribe(Tick, lambda tick: None, **options)
    assert bus.count(Tick) == 0


@pytest.mark.parametrize("base", [RingcastError, TypeError, ValueError])
def test_the_error_is_what_a_reader_expects(bus, base):
    with pytest.raises(base, match="sideways"):
        bus.subscribe(Tick, lambda tick: None, mode="sideways")


def test_an_async_handler_cannot_be_direct(bus):
    async def handler(tick: Tick) -> None:
        pass

    with pytest.raises(OptionError, match="handler"):
        bus.subscribe(handler, mode="direct")


@pytest.mark.parametrize("on_error", ["log", 5])
def test_on_error_is_a_callable_none_or_raise(make_bus, on_error):
    with pytest.raises((TypeError, ValueError)):
        make_bus(on_error=on_error)


@pytest.mark.parametrize("call", ["close", "wait_idle", "leave"])
def test_a_direct_handler_does_not_wait_for_others(make_bus, spawn, gate, call, deadline):
    # the publisher may hold what they wait for
    class Stop:
        pass

    bus = make_bus()
    queued = bus.subscribe(Stop, gate.hold)

    def stop(event):
        if call == "leave":
            with queued:
                pass
        else:
            getattr(bus, call)()

    bus.subscribe(Stop, stop, mode="direct")
    assert spawn(bus.publish, Stop()).result(deadline) == 2
    gate.wait_until_held()
    assert queued.delivered == 0
    gate.open()
    bus.close(deadline)
    assert queued.delivered == 1


def test_its_block_is_left_when_all_threads_have_left_its_handler(bus, gate, spawn, deadline):
    subscription = bus.subscribe(Tick, gate.hold, mode="direct")
    publishing = [spawn(bus.publish, Tick(0)) for _ in range(3)]
    gate.wait_until_held(3)
    leaving = spawn(subscription.__exit__, None, None, None)
    with pytest.raises(TimeoutError):
        leaving.result(0.01)
    assert bus.publish(Tick(1)) == 0
    assert subscription.pending == 3
    gate.open()
    leaving.result(deadline)
    assert (subscription.delivered, subscription.pending) == (3, 0)
    assert [future.result(deadline) for future in publishing] == [1, 1, 1]


def test_a_handler_leaves_its_own_block(bus, recorder):
    def once(event):
        with subscription:
            recorder(event)

    subscription = bus.subscribe(Tick, once, mode="direct")
    assert [bus.publish(Tick(0)), bus.publish(Tick(1))] == [1, 0]
    assert (len(recorder.events), subscription.delivered, subscription.pending) == (1, 1, 0)
    assert bus.stats().topics[0].subscriptions == ()


def test_a_publish_that_is_refused_leaves_nothing_to_wait_for(make_bus, gate, recorder, deadline):
    bus = make_bus(max_queue=1)
    bus.subscribe(Tick, gate.hold)
    direct = bus.subscribe(Tick, recorder, mode="direct")
    bus.publish(Tick(0))
    gate.wait_until_held()
    with pytest.raises(PublishTimeoutError):
        bus.publish(Tick(1), timeout=0.01)
    with direct:
        pass
    assert (direct.delivered, direct.pending, direct.dropped) == (1, 0, 0)
