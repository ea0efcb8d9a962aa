"""Which events a subscription gets, and for how long: once, where, subclasses, everything, weak."""

import functools
import gc
import threading
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pytest

from ringcast import OptionError, Subscription

MODES = pytest.mark.parametrize("mode", ["queued", "direct"])


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class FineTick(Tick):
    pass


@dataclass(frozen=True, slots=True)
class FinestTick(FineTick):
    pass


@dataclass(frozen=True, slots=True)
class Other:
    number: int


def numbers(recorder):
    return [event.number for event in recorder.events]


# --- once ---


@MODES
def test_once_is_called_exactly_once(bus, recorder, eventually, mode, deadline):
    subscription = bus.subscribe(Tick, recorder, once=True, mode=mode)
    for number in range(100):
        bus.publish(Tick(number))
    eventually(lambda: not subscription.active)
    assert bus.count(Tick) == 0
    assert bus.publish(Tick(100)) == 0
    bus.close(deadline)
    assert numbers(recorder) == [0]
    assert (subscription.delivered, subscription.pending) == (1, 0)


@MODES
@pytest.mark.parametrize("max_queue", [1, 50_000])
def test_once_is_called_once_with_many_publishers(make_bus, make_recorder, spawn, mode, max_queue, deadline):
    bus = make_bus(max_queue=max_queue)
    recorders = [make_recorder() for _ in range(50)]
    subscriptions = [bus.subscribe(Tick, recorder, once=True, mode=mode) for recorder in recorders]
    together = threading.Barrier(4)

    def publish_all():
        together.wait(deadline)
        for number in range(200):
            bus.publish(Tick(number))

    for future in [spawn(publish_all) for _ in range(4)]:
        future.result(deadline)
    bus.close(deadline)
    assert [len(recorder.events) for recorder in recorders] == [1] * 50
    assert [subscription.delivered for subscription in subscriptions] == [1] * 50


@MODES
def test_once_that_publishes_its_own_type_is_not_called_again(bus, recorder, mode, deadline):
    def handler(tick: Tick) -> None:
        recorder(tick)
        bus.publish(Tick(tick.number + 1))

    bus.subscribe(handler, once=True, mode=mode)
    bus.publish(Tick(0))
    recorder.wait_for(1)
    bus.close(deadline)
    assert numbers(recorder) == [0]


@MODES
def test_once_is_spent_also_where_the_handler_raises(make_bus, recorder, mode, deadline):
    bus, failures = make_bus(on_error=recorder), []

    def handler(tick: Tick) -> None:
        failures.append(tick.number)
        raise ValueError

    subscription = bus.subscribe(handler, once=True, mode=mode)
    for number in range(3):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert failures == [0]
    assert (subscription.errors, len(recorder.events)) == (1, 1)


def test_once_does_not_hold_up_the_others(make_bus, recorder, make_recorder, deadline):
    # what was queued behind its one event must not fill the ring
    bus = make_bus(max_queue=4)
    bus.subscribe(Tick, recorder, once=True)
    other = make_recorder()
    bus.subscribe(Tick, other)
    for number in range(1000):
        bus.publish(Tick(number), timeout=deadline)
    bus.close(deadline)
    assert numbers(recorder) == [0]
    assert numbers(other) == list(range(1000))


@MODES
def test_once_by_decorator(bus, recorder, mode):
    @bus.on(once=True, mode=mode)
    def handler(tick: Tick) -> None:
        recorder(tick)

    assert callable(handler)
    bus.publish(Tick(0))
    assert numbers(recorder) == [0] or recorder.wait_for(1) == [Tick(0)]


# --- where ---


@MODES
def test_where_says_which_events_are_handed_over(bus, recorder, make_recorder, mode, deadline):
    everything = make_recorder()
    subscription = bus.subscribe(Tick, recorder, where=lambda tick: tick.number % 3 == 0, mode=mode)
    other = bus.subscribe(Tick, everything, mode=mode)
    for number in range(100):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert numbers(recorder) == list(range(0, 100, 3))
    assert numbers(everything) == list(range(100))
    assert (subscription.delivered, subscription.filtered, subscription.dropped) == (34, 66, 0)
    assert (other.delivered, other.filtered) == (100, 0)
    assert subscription.pending == 0


@MODES
def test_what_where_returns_counts_as_true_or_false(bus, recorder, mode, deadline):
    bus.subscribe(Tick, recorder, where=lambda tick: "x" * tick.number, mode=mode)
    for number in (0, 1, 0, 2):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert numbers(recorder) == [1, 2]


@MODES
def test_a_where_that_raises_is_reported_as_a_failure_and_the_event_is_not_handed_over(
    make_bus, recorder, mode, deadline
):
    failures = []
    bus = make_bus(on_error=failures.append)
    subscription = bus.subscribe(Tick, recorder, where=lambda tick: 1 // tick.number, mode=mode)
    for number in (1, 0, 1):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert numbers(recorder) == [1, 1]
    assert [type(failure.exception) for failure in failures] == [ZeroDivisionError]
    assert (subscription.errors, subscription.delivered, subscription.dropped) == (1, 2, 1)


def test_filtered_events_take_no_room(make_bus, gate, recorder, eventually, deadline):
    # a subscriber that wants none of them is never behind
    bus = make_bus(max_queue=4)
    subscription = bus.subscribe(Tick, recorder, where=lambda tick: False)
    for number in range(1000):
        bus.publish(Tick(number), timeout=deadline)
    eventually(lambda: subscription.filtered == 1000)
    assert (subscription.pending, subscription.delivered) == (0, 0)


@MODES
def test_once_with_where_is_spent_by_the_first_event_that_fits(bus, recorder, mode, deadline):
    subscription = bus.subscribe(Tick, recorder, once=True, where=lambda tick: tick.number >= 5, mode=mode)
    for number in range(5):
        bus.publish(Tick(number))
    assert subscription.active
    for number in range(5, 10):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert numbers(recorder) == [5]
    assert (subscription.delivered, subscription.filtered) == (1, 5)


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
def test_where_with_a_dropping_policy_accounts_for_every_event(bus, recorder, policy, deadline):
    subscription = bus.subscribe(Tick, recorder, where=lambda tick: tick.number % 2, policy=policy, max_queue=3)
    for number in range(1000):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert subscription.delivered + subscription.filtered + subscription.dropped == 1000
    assert all(number % 2 for number in numbers(recorder))


# --- subclasses ---


@MODES
def test_an_exact_class_is_what_counts_unless_subclasses_are_asked_for(bus, make_recorder, mode, deadline):
    exact, family = make_recorder(), make_recorder()
    bus.subscribe(Tick, exact, mode=mode)
    subscription = bus.subscribe(Tick, family, subclasses=True, mode=mode)
    assert isinstance(subscription, Subscription)
    published = [Tick(0), FineTick(1), Other(2), FinestTick(3), Tick(4)]
    assert [bus.publish(event) for event in published] == [2, 1, 0, 1, 2]
    bus.close(deadline)
    assert numbers(exact) == [0, 4]
    assert sorted(numbers(family)) == [0, 1, 3, 4]
    assert subscription.delivered == 4


@MODES
def test_classes_that_are_defined_or_seen_later_count_too(bus, recorder, mode, deadline):
    bus.publish(FineTick(0))  # a class that the dispatcher knows before
    bus.subscribe(Tick, recorder, subclasses=True, mode=mode)
    assert bus.publish(FineTick(1)) == 1

    class LaterTick(FineTick):
        pass

    assert bus.publish(LaterTick(2)) == 1
    assert bus.count(LaterTick) == bus.count(Tick) == 1
    bus.close(deadline)
    assert sorted(numbers(recorder)) == [1, 2]


@MODES
def test_the_order_holds_within_each_class(bus, recorder, mode, deadline):
    bus.subscribe(Tick, recorder, subclasses=True, mode=mode)
    for number in range(1000):
        bus.publish((Tick, FineTick, FinestTick)[number % 3](number))
    bus.close(deadline)
    for rest, event_class in enumerate((Tick, FineTick, FinestTick)):
        assert [event.number for event in recorder.events if type(event) is event_class] == [*range(rest, 1000, 3)]


@MODES
def test_a_class_with_several_bases_is_delivered_once(bus, recorder, mode, deadline):
    class Left(Tick):
        pass

    class Right(Tick):
        pass

    class Both(Left, Right):
        pass

    bus.subscribe(Tick, recorder, subclasses=True, mode=mode)
    assert bus.publish(Both(1)) == 1
    bus.close(deadline)
    assert numbers(recorder) == [1]


@MODES
def test_subclasses_with_type_ids_of_their_own_count_too(bus, recorder, mode, deadline):
    class Base:
        __event_type__ = 0x501

        def __init__(self, number):
            self.number = number

    class Sharing(Base):
        pass

    class Own(Base):
        __event_type__ = 0x502

    class Computing(Base):
        __event_type__ = property(lambda self: 0x600 + self.number)

    bus.subscribe(Base, recorder, subclasses=True, mode=mode)
    for number, event_class in enumerate((Base, Sharing, Own, Computing)):
        assert bus.publish(event_class(number)) == 1
    bus.close(deadline)
    assert sorted(numbers(recorder)) == [0, 1, 2, 3]


@MODES
def test_virtual_subclasses_of_an_abc_count(bus, recorder, mode, deadline):
    class Numbered(ABC):
        @abstractmethod
        def nothing(self): ...

    class Real(Numbered):
        number = 1

        def nothing(self): ...

    Numbered.register(Other)
    bus.subscribe(Numbered, recorder, subclasses=True, mode=mode)
    assert [bus.publish(event) for event in (Real(), Other(2), Tick(3))] == [1, 1, 0]

    class Later:
        number = 4

    Numbered.register(Later)
    assert bus.publish(Later()) == 1
    bus.close(deadline)
    assert sorted(numbers(recorder)) == [1, 2, 4]


@MODES
def test_protocols_are_met_by_every_class_that_fits(bus, recorder, mode, deadline):
    @runtime_checkable
    class Closable(Protocol):
        def close(self) -> None: ...

    class Fits:
        number = 1

        def close(self) -> None: ...

    subscription = bus.subscribe(Closable, recorder, mode=mode)  # subclasses is implied
    assert [bus.publish(event) for event in (Fits(), Tick(2))] == [1, 0]
    subscription.cancel()
    assert bus.publish(Fits()) == 0
    bus.close(deadline)
    assert numbers(recorder) == [1]


def test_a_protocol_without_run_time_check_is_refused(bus, recorder):
    class Closable(Protocol):
        def close(self) -> None: ...

    with pytest.raises(OptionError, match="Closable"):
        bus.subscribe(Closable, recorder)


@MODES
@pytest.mark.parametrize("discard", [False, True])
def test_cancelling_ends_it_for_all_classes(bus, recorder, mode, discard):
    subscription = bus.subscribe(Tick, recorder, subclasses=True, mode=mode)
    assert [bus.publish(event) for event in (Tick(0), FineTick(1))] == [1, 1]
    recorder.wait_for(2)
    subscription.cancel(discard=discard)
    assert [bus.publish(event) for event in (Tick(2), FineTick(3), FinestTick(4))] == [0, 0, 0]
    assert [bus.count(event_class) for event_class in (Tick, FineTick, FinestTick)] == [0, 0, 0]
    assert not subscription.active


@MODES
def test_once_with_subclasses_is_called_once_over_all_classes(bus, recorder, mode, deadline):
    bus.subscribe(Tick, recorder, subclasses=True, once=True, mode=mode)
    for number in range(30):
        bus.publish((Tick, FineTick, FinestTick)[number % 3](number))
    bus.close(deadline)
    assert len(recorder.events) == 1


@pytest.mark.usefixtures("collected_classes")
def test_a_subscription_to_a_base_does_not_keep_its_subclasses(bus, recorder, eventually):
    bus.subscribe(Tick, recorder, subclasses=True, where=lambda tick: False)

    def publish_one():
        class Passing(Tick):
            __slots__ = ()

        assert bus.publish(Passing(0)) == 1
        return weakref.ref(Passing)

    reference = publish_one()
    eventually(lambda: gc.collect() >= 0 and reference() is None)


# --- everything ---


@MODES
def test_a_subscription_to_object_gets_every_event(bus, recorder, mode, deadline):
    def tap(event: object) -> None:
        recorder(event)

    bus.subscribe(object, tap, mode=mode)

    class Stated:
        __event_type__ = 0x511

    events = [Tick(0), FineTick(1), Other(2), "text", 5, Stated(), None]
    assert [bus.publish(event) for event in events] == [1] * len(events)
    assert bus.publish_to(0x512, "under an id") == 1
    bus.close(deadline)
    assert sorted(map(str, recorder.events)) == sorted(map(str, [*events, "under an id"]))


@MODES
def test_a_tap_beside_other_subscribers(bus, make_recorder, mode, deadline):
    ticks, everything = make_recorder(), make_recorder()
    bus.subscribe(Tick, ticks)
    subscription = bus.subscribe(object, everything, mode=mode)
    assert [bus.publish(event) for event in (Tick(0), Other(1), Tick(2))] == [2, 1, 2]
    subscription.cancel()
    assert [bus.publish(event) for event in (Tick(3), Other(4))] == [1, 0]
    bus.close(deadline)
    assert numbers(ticks) == [0, 2, 3]
    assert sorted(numbers(everything)) == [0, 1, 2]


# --- weak ---


class Listener:
    def __init__(self, recorder):
        self.recorder = recorder

    def on_tick(self, tick: Tick) -> None:
        self.recorder(tick)


@MODES
def test_a_weak_method_dies_with_its_object_and_so_does_the_subscription(bus, recorder, eventually, mode):
    listener = Listener(recorder)
    subscription = bus.subscribe(listener.on_tick, weak=True, mode=mode)
    assert bus.publish(Tick(0)) == 1
    recorder.wait_for(1)
    eventually(lambda: subscription.pending == 0)
    alive = weakref.ref(listener)
    del listener
    eventually(lambda: gc.collect() >= 0 and alive() is None)
    eventually(lambda: not subscription.active)
    assert bus.count(Tick) == 0
    assert bus.publish(Tick(1)) == 0
    assert numbers(recorder) == [0]
    assert "a method of an object that is gone" in repr(subscription)


@MODES
def test_a_weak_method_whose_object_lives_is_called(bus, recorder, mode, deadline):
    listener = Listener(recorder)
    bus.subscribe(Tick, listener.on_tick, weak=True, mode=mode)
    gc.collect()
    for number in range(100):
        assert bus.publish(Tick(number)) == 1
    bus.close(deadline)
    assert numbers(recorder) == list(range(100))


def test_an_object_that_dies_while_events_wait_takes_them_with_it(bus, gate, make_recorder, recorder, deadline):
    other = make_recorder()
    bus.subscribe(Tick, other)
    blocker = bus.subscribe(Tick, lambda tick: gate.hold())
    held, released = threading.Event(), threading.Event()

    class Holding(Listener):
        def on_tick(self, tick: Tick) -> None:
            super().on_tick(tick)
            held.set()
            assert released.wait(deadline)

    listener = Holding(recorder)
    subscription = bus.subscribe(listener.on_tick, weak=True)
    for number in range(5):
        bus.publish(Tick(number))
    assert held.wait(deadline)
    gate.wait_until_held()
    del listener  # its handler is at work; the call holds it
    released.set()
    gate.open()
    bus.close(deadline)
    assert numbers(recorder) == [0]
    assert (subscription.delivered, subscription.dropped, subscription.pending) == (1, 4, 0)
    assert subscription.errors == 0
    assert numbers(other) == list(range(5))
    assert blocker.delivered == 5


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(lambda tick: None, id="function"),
        pytest.param(print, id="built-in"),
        pytest.param(functools.partial(Listener.on_tick, Listener(print)), id="partial"),
    ],
)
def test_weak_is_for_bound_methods_only(bus, handler):
    # a function that nobody else holds would be gone at once, without a word
    with pytest.raises(OptionError, match="weak"):
        bus.subscribe(Tick, handler, weak=True)
    assert bus.count(Tick) == 0


@pytest.mark.parametrize(
    "options", [{"where": 5}, {"once": "yes"}, {"weak": 1}, {"subclasses": "all"}, {"unknown": True}]
)
def test_options_of_another_kind_are_refused(bus, options):
    with pytest.raises(OptionError):
        bus.subscribe(Tick, lambda tick: None, **options)


def test_subclasses_of_a_type_id_are_refused(bus):
    with pytest.raises(OptionError, match="subclasses"):
        bus.subscribe_to(1, lambda event: None, subclasses=True)
