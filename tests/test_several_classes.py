"""One subscription for several classes: one queue, in the order of publishing across the classes."""

import asyncio
import contextvars
import gc
import itertools
import re
import threading
import weakref
from dataclasses import dataclass
from typing import Protocol, TypeAlias, Union, runtime_checkable

import pytest
from forking import PRELUDE

import ringcast
from ringcast import (
    EventClassError,
    HandlerTypeError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    RecordBatch,
    RecordError,
    TypeIdError,
    WaitTimeoutError,
    record,
)
from ringcast.records import int32, uint64


@dataclass(frozen=True, slots=True)
class Deposit:
    number: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    number: int


@dataclass(frozen=True, slots=True)
class LargeDeposit(Deposit):
    pass


@dataclass(frozen=True, slots=True)
class Other:
    number: int


Transfer: TypeAlias = Deposit | Withdrawal
BOTH = (Deposit, Withdrawal)


def numbers(events):
    return [event.number for event in events]


def mixed(count, first=0):
    """Events of both classes in turn."""
    return [BOTH[number % 2](number) for number in range(first, first + count)]


# --- modes x ways to name the classes ---


def by_tuple(bus, call, **options):
    return bus.subscribe(BOTH, call, **options)


def by_tuple_with_doubles(bus, call, **options):
    return bus.subscribe((Withdrawal, Deposit, Withdrawal), call, **options)


def by_union(bus, call, **options):
    def handler(event: Deposit | Withdrawal) -> None:
        call(event)

    return bus.subscribe(handler, **options)


def by_old_union(bus, call, **options):
    def handler(event: Union[Deposit, "Withdrawal"]) -> None:
        call(event)

    return bus.subscribe(handler, **options)


def by_string(bus, call, **options):
    def handler(event: "Deposit | Withdrawal") -> None:
        call(event)

    return bus.subscribe(handler, **options)


def by_alias(bus, call, **options):
    def handler(event: Transfer) -> None:
        call(event)

    return bus.subscribe(handler, **options)


def by_decorator(bus, call, **options):
    @bus.on(**options)
    def handler(event: Deposit | Withdrawal) -> None:
        call(event)

    (subscription,) = bus.subscriptions(BOTH)
    return subscription


def by_decorator_with_classes(bus, call, **options):
    @bus.on(BOTH, **options)
    def handler(event):
        call(event)

    (subscription,) = bus.subscriptions(BOTH)
    return subscription


def same_each_time(value):
    """The text of a parameter, without addresses and the order of a set: processes that share the tests compare it."""
    return "a set" if isinstance(value, set) else re.sub(r" at 0x\w+", "", str(value))


WAYS = [
    by_tuple,
    by_tuple_with_doubles,
    by_union,
    by_old_union,
    by_string,
    by_alias,
    by_decorator,
    by_decorator_with_classes,
]
OPTIONS = [
    {},
    {"mode": "direct"},
    {"policy": "raise"},
    {"policy": "drop_newest"},
    {"policy": "drop_oldest"},
    {"policy": "latest", "key": lambda event: event, "max_queue": 100},
    {"where": lambda event: event.number >= 0},
    {"mode": "direct", "where": lambda event: event.number >= 0},
    {"context": "publisher"},
    {"subclasses": True},
    {"subclasses": True, "mode": "direct"},
    {"subclasses": True, "context": "publisher"},
    {"max_queue": 10},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", OPTIONS, ids=same_each_time)
def test_the_events_of_all_classes_come_in_the_order_of_publishing(bus, recorder, way, options, deadline):
    subscription = way(bus, recorder, **options)
    events = mixed(50)
    assert [bus.publish(event) for event in events] == [1] * 50
    assert bus.publish(Other(0)) == 0
    bus.close(deadline)
    assert recorder.events == events
    assert subscription.delivered == 50
    assert set(subscription.event_class) == set(BOTH)
    assert subscription.type_id is None


@pytest.mark.parametrize("options", [{}, {"policy": "drop_oldest"}, {"subclasses": True}], ids=str)
def test_batches_have_events_of_all_classes_in_order(bus, gate, make_recorder, options, deadline):
    told, annotated = make_recorder(), make_recorder()

    def handler(events: list[Deposit | Withdrawal]) -> None:
        annotated(events)

    bus.subscribe(BOTH, gate.hold, batch=1)
    bus.subscribe(BOTH, told, batch=100, **options)
    bus.subscribe(handler, batch=100, **options)
    events = mixed(50)
    assert bus.publish_many(events) == 50
    gate.open()
    bus.close(deadline)
    for recorder in (told, annotated):
        assert all(type(batch) is list for batch in recorder.events)
        assert [event for batch in recorder.events for event in batch] == events


@pytest.mark.parametrize("options", [{}, {"context": "publisher"}, {"policy": "drop_oldest"}, {"batch": 7}], ids=str)
def test_async_handlers_and_streams(bus, options, deadline):
    events = mixed(50)
    got, streamed = [], []

    async def handler(event: Deposit | Withdrawal) -> None:
        got.append(event)

    async def batch_handler(events: list[Deposit | Withdrawal]) -> None:
        got.extend(events)

    async def main():
        bus.subscribe(batch_handler if "batch" in options else handler, **options)
        stream_options = {name: value for name, value in options.items() if name != "context"}
        async with asyncio.timeout(deadline), bus.stream(BOTH, **stream_options) as stream:
            for event in events:
                assert await bus.apublish(event) == 2
            while len(streamed) < 50:
                taken = await anext(stream)
                streamed.extend(taken if "batch" in options else [taken])
        await bus.aclose(deadline)

    asyncio.run(main())
    assert got == streamed == events


def test_wait_for_the_next_event_of_either_class(bus, deadline):
    async def main():
        waiting = asyncio.create_task(bus.wait_for(BOTH, timeout=deadline))
        large = asyncio.create_task(bus.wait_for(BOTH, where=lambda event: event.number > 1, timeout=deadline))
        family = asyncio.create_task(bus.wait_for((Deposit, Other), subclasses=True, timeout=deadline))
        while len(bus.subscriptions()) < 3:
            await asyncio.sleep(0)
        for event in (Withdrawal(1), LargeDeposit(2), Deposit(3)):
            bus.publish(event)
        assert await waiting == Withdrawal(1)
        assert await large == Deposit(3)
        assert await family == LargeDeposit(2)
        with pytest.raises(WaitTimeoutError, match=r"no [\w.]*Deposit \| [\w.]*Withdrawal came within 0 s"):
            await bus.wait_for(BOTH, timeout=0)

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["queued", "direct"])
def test_once_is_spent_by_the_first_event_of_any_class(bus, recorder, mode, eventually, deadline):
    subscription = bus.subscribe(BOTH, recorder, once=True, mode=mode)
    for event in mixed(10, first=1):
        bus.publish(event)
    eventually(lambda: not subscription.active)
    bus.close(deadline)
    assert recorder.events == [Withdrawal(1)]


def test_a_weak_method_ends_the_subscription_for_all_classes(bus, recorder, eventually):
    class Account:
        def on_transfer(self, event: Deposit | Withdrawal) -> None:
            recorder(event)

    account = Account()
    subscription = bus.subscribe(account.on_transfer, weak=True)
    assert [bus.publish(event) for event in mixed(2)] == [1, 1]
    recorder.wait_for(2)
    eventually(lambda: subscription.pending == 0)
    del account
    eventually(lambda: gc.collect() >= 0 and not subscription.active)
    assert [bus.publish(event) for event in mixed(2)] == [0, 0]


def test_each_event_brings_the_context_that_it_was_published_in(bus, recorder, deadline):
    user = contextvars.ContextVar("user", default="nobody")
    bus.subscribe(BOTH, lambda event: recorder((event, user.get())), context="publisher")
    bus.subscribe(BOTH, lambda event: None)  # of the same events, and without
    for event, name in zip(mixed(3), ("ann", "bob", "eve"), strict=True):
        contextvars.copy_context().run(lambda event=event, name=name: (user.set(name), bus.publish(event)))
    bus.close(deadline)
    assert recorder.events == [(Deposit(0), "ann"), (Withdrawal(1), "bob"), (Deposit(2), "eve")]


# --- order, threads and room ---


def test_the_order_of_each_publisher_holds_across_the_classes(bus, recorder, spawn, deadline):
    bus.subscribe(BOTH, lambda event: recorder(event.number))
    bus.subscribe(Deposit, lambda event: None)  # whose own queue has the events of one class besides
    together = threading.Barrier(4)

    def publish_all(first):
        together.wait(deadline)
        for event in mixed(500, first):
            bus.publish(event)

    for future in [spawn(publish_all, 1000 * publisher) for publisher in range(4)]:
        future.result(deadline)
    bus.close(deadline)
    assert len(recorder.events) == 2000
    for publisher in range(4):
        own = [number for number in recorder.events if number // 1000 == publisher]
        assert own == [*range(1000 * publisher, 1000 * publisher + 500)]


def test_two_subscriptions_to_the_same_classes_see_one_order(bus, make_recorder, spawn, deadline):
    recorders = [make_recorder(), make_recorder()]
    bus.subscribe((Deposit, Withdrawal), recorders[0])
    bus.subscribe((Withdrawal, Deposit), recorders[1])  # the order in which they are named means nothing
    for future in [spawn(bus.publish_many, mixed(1000, 1000 * publisher)) for publisher in range(3)]:
        future.result(deadline)
    bus.close(deadline)
    assert len(recorders[0].events) == 3000
    assert recorders[0].events == recorders[1].events


def test_the_handler_is_never_on_two_threads_at_once(bus, spawn, deadline):
    # what the tutorial says needs no lock: a balance that events of several classes change
    inside, overlaps, balance = threading.Lock(), [], [0]

    def account(event: Deposit | Withdrawal) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(event)
            return
        balance[0] += event.number if type(event) is Deposit else -event.number
        inside.release()

    bus.subscribe(account)

    def publish_all(event):
        for _ in range(1000):
            bus.publish(event)

    futures = [spawn(publish_all, event) for event in (Deposit(3), Withdrawal(1), Deposit(2), Withdrawal(4))]
    for future in futures:
        future.result(deadline)
    bus.close(deadline)
    assert (overlaps, balance) == ([], [0])


def test_the_classes_share_the_room_of_one_queue(make_bus, gate, recorder, deadline):
    bus = make_bus(max_queue=4)

    def handler(event: Deposit | Withdrawal) -> None:
        gate.hold()
        recorder(event)

    subscription = bus.subscribe(handler)
    events = mixed(4)
    for event in events:
        bus.publish(event)
    gate.wait_until_held()
    for event in (Deposit(4), Withdrawal(5)):
        with pytest.raises(PublishTimeoutError, match=r"no room in time for an event of Deposit \| Withdrawal: <"):
            bus.publish(event, timeout=0)
    assert subscription.pending == 4
    gate.open()
    assert bus.publish(Withdrawal(4), timeout=deadline) == 1
    bus.close(deadline)
    assert recorder.events == [*events, Withdrawal(4)]


def test_an_event_without_room_for_several_classes_reaches_nobody(make_bus, gate, recorder, deadline):
    bus = make_bus(max_queue=2)
    bus.subscribe(BOTH, gate.hold, policy="raise")
    bus.subscribe(Deposit, recorder)
    bus.publish_many(mixed(2))
    with pytest.raises(QueueFullError, match=r"to Deposit \| Withdrawal"):
        bus.publish(Deposit(2))
    gate.open()
    bus.close(deadline)
    assert numbers(recorder.events) == [0]


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop_newest", [0, 1, 2, 3]), ("drop_oldest", [0, 7, 8, 9]), ("latest", [0, 9])]
)
def test_what_a_policy_drops_is_chosen_across_the_classes(bus, gate, recorder, policy, kept, deadline):
    options = {} if policy == "latest" else {"max_queue": 3}

    def handler(event: Deposit | Withdrawal) -> None:
        recorder(event.number)
        gate.hold()

    subscription = bus.subscribe(handler, policy=policy, **options)
    bus.publish(Deposit(0))
    gate.wait_until_held()
    for event in mixed(9, first=1):
        bus.publish(event)
    gate.open()
    bus.close(deadline)
    assert recorder.events == kept
    assert subscription.delivered + subscription.dropped == 10


def test_direct_handlers_keep_their_priorities_among_those_of_one_class(bus):
    called = []
    bus.subscribe(Deposit, lambda event: called.append("one"), mode="direct", priority=1)
    bus.subscribe(BOTH, lambda event: called.append("both, first"), mode="direct", priority=2)
    bus.subscribe(BOTH, lambda event: called.append("both, last"), mode="direct")
    assert bus.publish(Deposit(0)) == 3
    assert called == ["both, first", "one", "both, last"]


def test_a_handler_that_raises_is_reported_with_its_event(make_bus, deadline):
    failures = []
    bus = make_bus(on_error=failures.append)
    subscription = bus.subscribe(BOTH, lambda event: 1 // 0)
    bus.publish(Withdrawal(1))
    bus.close(deadline)
    assert [(failure.event, failure.subscription) for failure in failures] == [(Withdrawal(1), subscription)]


# --- which events ---


def test_an_event_reaches_those_of_its_class_and_those_of_several(bus, make_recorder, deadline):
    plain, both, other = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(Deposit, plain)
    bus.subscribe(BOTH, both)
    bus.subscribe((Deposit, Other), other)
    assert [bus.publish(event) for event in (Deposit(0), Withdrawal(1), Other(2))] == [3, 1, 1]
    assert [bus.count(event_class) for event_class in (Deposit, Withdrawal, Other)] == [3, 1, 1]
    assert bus.count(ringcast.events.type_id(Deposit)) == 3
    bus.close(deadline)
    assert [numbers(recorder.events) for recorder in (plain, both, other)] == [[0], [0, 1], [0, 2]]


def test_subclasses_are_classes_of_their_own_unless_they_are_asked_for(bus, make_recorder, deadline):
    exact, family = make_recorder(), make_recorder()
    bus.subscribe(BOTH, exact)
    bus.subscribe(BOTH, family, subclasses=True)
    assert [bus.publish(event) for event in (Deposit(0), LargeDeposit(1), Withdrawal(2))] == [2, 1, 2]
    bus.close(deadline)
    assert (numbers(exact.events), numbers(family.events)) == ([0, 2], [0, 1, 2])


@pytest.mark.parametrize("subclasses", [False, True])
def test_a_class_and_its_subclass_get_each_event_once(bus, recorder, subclasses, deadline):
    bus.subscribe((Deposit, LargeDeposit), recorder, subclasses=subclasses)
    assert [bus.publish(event) for event in (Deposit(0), LargeDeposit(1))] == [1, 1]
    bus.close(deadline)
    assert numbers(recorder.events) == [0, 1]


def test_protocols_and_object_among_the_classes_stand_for_what_fits_them(bus, make_recorder, deadline):
    @runtime_checkable
    class Closable(Protocol):
        def close(self) -> None: ...

    @dataclass
    class File:
        number: int

        def close(self) -> None: ...

    some, everything = make_recorder(), make_recorder()
    subscription = bus.subscribe((Deposit, Closable), some)
    bus.subscribe((Deposit, object), everything)
    assert [bus.publish(event) for event in (Deposit(0), File(1), LargeDeposit(2))] == [2, 2, 1]
    assert subscription.event_class == (Deposit, Closable)
    bus.close(deadline)
    assert (numbers(some.events), numbers(everything.events)) == ([0, 1], [0, 1, 2])


def test_a_tuple_of_one_class_is_that_class(bus, recorder, deadline):
    subscription = bus.subscribe((Deposit,), recorder)
    twice = bus.subscribe((Deposit, Deposit), recorder)
    assert subscription.event_class is twice.event_class is Deposit
    assert subscription.type_id == twice.type_id == ringcast.events.type_id(Deposit)
    assert bus.publish(Deposit(1)) == 2
    assert bus.subscriptions(Deposit) == [subscription, twice]


def test_a_hundred_classes_and_more(bus, recorder, deadline):
    classes = tuple(type(f"Numbered{number}", (), {"number": number}) for number in range(150))
    subscription = bus.subscribe(classes, recorder)
    bus.publish_many([event_class() for event_class in classes])
    assert subscription.event_class == classes
    assert "Numbered0 | Numbered1 | Numbered2 | Numbered3 | 146 more, queued" in repr(subscription)
    bus.close(deadline)
    assert numbers(recorder.events) == [*range(150)]


class Stated:
    __event_type__ = 0x7101

    def __init__(self, number):
        self.number = number


class Sharing(Stated):
    pass


class Computing(Stated):
    __event_type__ = property(lambda self: 0x7101 if self.number < 10 else 0x7102)


def test_events_are_those_that_a_plain_subscription_to_the_class_would_get(bus, make_recorder, deadline):
    # those of subclasses that share the id, that compute it, and that are published under it
    plain, several = make_recorder(), make_recorder()
    bus.subscribe(Stated, plain)
    bus.subscribe((Stated, Withdrawal), several)

    class Unrelated(Stated):
        __event_type__ = 0x7103

    assert [bus.publish(event) for event in (Stated(0), Sharing(1), Computing(2), Computing(12))] == [2, 2, 2, 0]
    assert bus.publish(Unrelated(3)) == 0
    assert bus.publish_to(0x7101, Unrelated(4)) == 2
    assert bus.publish_to(0x7104, Stated(5)) == 0  # under an id that nobody is subscribed to
    assert (bus.count(0x7101), bus.count(0x7104), bus.count(Sharing)) == (2, 0, 2)
    bus.close(deadline)
    assert numbers(plain.events) == numbers(several.events) == [0, 1, 2, 4]


def test_under_an_id_an_event_reaches_base_classes_by_its_class_and_several_by_the_id(bus, make_recorder, deadline):
    family, several, both = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(Deposit, family, subclasses=True)
    bus.subscribe((Stated, Deposit), several)
    bus.subscribe((Stated, Deposit), both, subclasses=True)
    assert bus.publish_to(0x7105, Deposit(0)) == 2
    assert bus.publish_to(0x7101, Sharing(1)) == 2
    assert bus.publish(Computing(2)) == 2
    bus.close(deadline)
    assert [numbers(recorder.events) for recorder in (family, several, both)] == [[0], [1, 2], [0, 1, 2]]


def test_apublish_waits_for_room_where_the_id_is_computed(make_bus, gate, recorder, deadline):
    bus = make_bus(max_queue=1)

    def handler(event) -> None:
        gate.hold()
        recorder(event)

    async def main():
        bus.subscribe((Stated, Deposit), handler)
        await bus.apublish(Computing(0))
        waiting = asyncio.create_task(bus.apublish(Computing(1)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        gate.open()
        assert await asyncio.wait_for(waiting, deadline) == 1

    asyncio.run(main())
    bus.close(deadline)
    assert numbers(recorder.events) == [0, 1]


def test_classes_that_are_known_before_and_after_count_alike(bus, recorder, deadline):
    bus.publish(Deposit(0))  # is known, and for nobody
    bus.subscribe((Deposit, Stated), recorder)

    class Later(Stated):
        pass

    assert [bus.publish(event) for event in (Deposit(1), Later(2))] == [1, 1]
    bus.close(deadline)
    assert numbers(recorder.events) == [1, 2]


def run_cell(names, number):
    exec(f"class Started:\n    __event_type__ = 0x7110\n    number = {number}\n", names)
    return names["Started"]


def test_a_class_that_states_its_id_and_is_defined_again_takes_its_place_among_the_classes(bus, recorder, deadline):
    names = {"__name__": "notebook"}
    first = run_cell(names, 1)
    subscription = bus.subscribe((first, Withdrawal), recorder)
    second = run_cell(names, 2)
    assert [bus.publish(event) for event in (second(), Withdrawal(3), first())] == [1, 1, 1]
    assert bus.subscriptions((Withdrawal, second)) == [subscription]
    bus.subscribe((second, Withdrawal), recorder)
    assert bus.publish(second()) == bus.publish(first()) == 2
    bus.close(deadline)
    assert numbers(recorder.events)[:3] == [2, 3, 1]
    assert len(recorder.events) == 7


def test_with_an_automatic_id_a_class_that_is_defined_again_is_another_one(bus, recorder):
    names = {"__name__": "notebook"}
    cell = "class Automatic:\n    number = 1\n"
    exec(cell, names)
    bus.subscribe((names["Automatic"], Withdrawal), recorder)
    exec(cell, names)
    assert bus.publish(names["Automatic"]()) == 0


# --- records ---


@record
class Small:
    number: int32


@record
class Wide:
    number: uint64
    more: uint64 = 0


def test_records_of_several_types_come_as_objects(bus, make_recorder, deadline):
    one_by_one, batches, plain = make_recorder(), make_recorder(), make_recorder()
    bus.subscribe((Small, Wide), one_by_one)
    bus.subscribe((Small, Wide, Deposit), batches, batch=100)
    bus.subscribe(Small, plain, batch=100)
    assert bus.publish(Small(0)) == 3
    assert bus.publish(Wide(1)) == 2
    assert bus.publish_many(b"".join(bytes(Small(number)) for number in (2, 3, 4)), Small) == 3
    assert bus.publish_many([Wide(5), Deposit(6), Small(7)]) == 3
    bus.close(deadline)
    assert [type(event) for event in one_by_one.events] == [Small, Wide, Small, Small, Small, Wide, Small]
    assert numbers(one_by_one.events) == [0, 1, 2, 3, 4, 5, 7]
    assert all(type(batch) is list for batch in batches.events)
    assert [event.number for batch in batches.events for event in batch] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert all(type(batch) is RecordBatch for batch in plain.events)
    assert [event.number for batch in plain.events for event in batch] == [0, 2, 3, 4, 7]


def test_a_handler_of_a_record_batch_is_refused(bus):
    def annotated(batch: RecordBatch[Small | Wide]) -> None: ...
    def of_one(batch: RecordBatch) -> None: ...

    message = r"takes a RecordBatch, which has the records of one type: those of several classes come in a list, list\["
    with pytest.raises(HandlerTypeError, match=message):
        bus.subscribe(annotated, batch=10)
    with pytest.raises(HandlerTypeError, match=message):
        bus.subscribe((Small, Wide), of_one, batch=10)
    with pytest.raises(HandlerTypeError, match=message):
        bus.subscribe(Small, of_one, batch=10, subclasses=True)
    assert bus.subscriptions() == []


def test_a_native_handler_of_several_types_is_refused(bus):
    with pytest.raises(RecordError, match="is given the records of one type, side by side in memory: several types"):
        bus.subscribe_native((Small, Wide), 0x1000)


# --- what is refused ---


def anything(event):
    """A handler without annotation."""


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "a subscription is to one class at least, and the tuple is empty"),
        ((Deposit, 1), r"an event class is a class, not 1 \(int\)"),
        ((Deposit, "Withdrawal"), r"an event class is a class, not 'Withdrawal' \(str\)"),
        ((Deposit, (Withdrawal,)), r"an event class is a class, not \(<class '[\w.]*Withdrawal'>,\) \(tuple\)"),
        ((Deposit, list[int]), r"not list\[int\].*: the instances of all list\[...\] are of class list"),
        ((Deposit, Deposit | Other), r"several classes are given as a tuple, \(First, Second\)"),
        (Deposit | Withdrawal, r"Deposit \| .*: several classes are given as a tuple, \(First, Second\)"),
        (Union[Deposit, Withdrawal], r"several classes are given as a tuple, \(First, Second\)"),  # noqa: UP007
        ([Deposit, Withdrawal], r"several classes are given as a tuple, \(First, Second\)"),
        ({Deposit, Withdrawal}, r"several classes are given as a tuple, \(First, Second\)"),
    ],
    ids=same_each_time,
)
def test_what_does_not_name_several_classes_is_refused_everywhere(bus, classes, message):
    async def asynchronous():
        with pytest.raises(EventClassError, match=message):
            bus.stream(classes)
        with pytest.raises(EventClassError, match=message):
            await bus.wait_for(classes)

    with pytest.raises(EventClassError, match=message):
        bus.subscribe(classes, anything)
    asyncio.run(asynchronous())
    with pytest.raises(EventClassError, match=message):
        bus.on(classes)
    with pytest.raises(EventClassError, match=message):
        bus.off(anything, classes)
    with pytest.raises(EventClassError, match=message):
        bus.subscriptions(classes)
    assert bus.subscriptions() == []


SEVERAL = [Deposit | Withdrawal, Union[Deposit, Withdrawal], BOTH, [Deposit, Withdrawal]]  # noqa: UP007
UNIONS = SEVERAL[:2]


@pytest.mark.parametrize("classes", SEVERAL, ids=same_each_time)
def test_what_is_of_one_class_refuses_several_and_says_so(bus, classes):
    with pytest.raises(EventClassError, match=r"a class, not .*: what an event reaches is of one, so ask for each"):
        bus.count(classes)
    with pytest.raises(EventClassError, match=r"a class, not .*: a type id is of one, so ask for each"):
        ringcast.type_id(classes)
    with pytest.raises(RecordError, match=r"several types are several subscriptions, not"):
        bus.subscribe_native(classes, 0x1000)


@pytest.mark.parametrize("union", UNIONS, ids=same_each_time)
def test_a_union_in_the_place_of_the_handler_is_no_handler(bus, union):
    with pytest.raises(HandlerTypeError, match=r"\([\w.]*Deposit, [\w.]*Withdrawal\) are classes, and there is no"):
        bus.subscribe(union)
    with pytest.raises(EventClassError, match=r"the event class comes first: subscribe\(\([\w.]*Deposit, .*anything\)"):
        bus.subscribe(anything, union)
    with pytest.raises(HandlerTypeError, match=r"the handler comes first: off\(.*anything, \([\w.]*Deposit, "):
        bus.off(union, anything)
    with pytest.raises(HandlerTypeError, match=r"a handler is a callable, not"):
        bus.off(union)


def test_an_optional_event_is_refused_with_the_reason(bus):
    def handler(event: Deposit | Withdrawal | None) -> None: ...

    with pytest.raises(
        HandlerTypeError, match=r"annotated .*, which may be None: leave that out, as a handler is given"
    ):
        bus.subscribe(handler)
    with pytest.raises(HandlerTypeError, match="which may be None"):
        bus.on(handler)
    bus.subscribe(BOTH, handler)  # which takes what comes
    assert bus.publish(Deposit(0)) == 1


def test_a_handler_that_does_not_take_one_of_the_classes_is_refused_and_the_class_is_named(bus):
    def handler(event: Deposit | Withdrawal) -> None: ...

    with pytest.raises(EventClassError, match=r"event class [\w.]*Other; handler .* is for .*Deposit or .*Withdrawal"):
        bus.subscribe((Deposit, Other), handler)
    with pytest.raises(
        EventClassError, match=r"^these are events of [\w.]*Other and its subclasses; handler .* is for"
    ):
        bus.subscribe((Deposit, Other), handler, subclasses=True)
    bus.subscribe((Deposit, LargeDeposit), handler)
    assert bus.count(LargeDeposit) == 1


def test_a_handler_that_is_missing_or_comes_first(bus):
    with pytest.raises(HandlerTypeError, match=r"Withdrawal\) are classes, and there is no handler: subscribe\(\("):
        bus.subscribe(BOTH)
    with pytest.raises(EventClassError, match=r"the event class comes first: subscribe\(\([\w.]*Deposit, .*anything\)"):
        bus.subscribe(anything, BOTH)


def test_a_class_whose_events_have_no_one_id_is_refused(bus):
    with pytest.raises(TypeIdError, match="Computing has no type id of its own: each instance computes one"):
        bus.subscribe((Deposit, Computing), anything)
    with pytest.raises(EventClassError, match="Sharing inherits type id 0x7101 from"):
        bus.subscribe((Deposit, Sharing), anything)
    assert bus.subscriptions() == []
    bus.subscribe((Deposit, Computing), anything, subclasses=True)
    assert bus.publish(Computing(1)) == 1


def test_a_protocol_that_cannot_tell_is_refused(bus):
    class Unchecked(Protocol):
        def close(self) -> None: ...

    with pytest.raises(OptionError, match="Unchecked cannot tell its subclasses"):
        bus.subscribe((Deposit, Unchecked), anything)


@pytest.mark.parametrize("error", [TypeError, ValueError, AttributeError])
def test_a_metaclass_that_cannot_tell_is_refused_and_is_no_concern_of_a_publisher(bus, error):
    class Meta(type):
        fails = True

        def __subclasscheck__(cls, other):
            if Meta.fails:
                raise error("ask somebody else")
            return False

    class Unsure(metaclass=Meta):
        pass

    with pytest.raises(OptionError, match="Unsure cannot tell its subclasses: ask somebody else"):
        bus.subscribe((Deposit, Unsure), anything, subclasses=True)
    Meta.fails = False
    bus.subscribe(Unsure, anything, subclasses=True)
    Meta.fails = True
    assert bus.publish(Deposit(1)) == 0


def test_type_ids_are_subscribed_to_one_by_one(bus):
    def handler(event: Deposit | Withdrawal) -> None: ...

    with pytest.raises(TypeIdError, match=r"a type id is an integer from 0 to 0xFFFFFFFF, not \(1, 2\) \(tuple\)"):
        bus.subscribe_to((1, 2), anything)
    with pytest.raises(HandlerTypeError, match="which is several classes, and a type id belongs to one"):
        bus.subscribe_to(0x7120, handler)


def test_an_id_that_belongs_to_another_class_is_refused(bus):
    class Rival:
        __event_type__ = 0x7101

    bus.subscribe(Rival, anything)
    with pytest.raises(EventClassError, match="type id 0x7101 belongs to"):
        bus.subscribe((Deposit, Stated), anything)
    assert [one.event_class for one in bus.subscriptions()] == [Rival]


# --- letting go ---


@pytest.mark.parametrize("mode", ["queued", "direct"])
@pytest.mark.parametrize("subclasses", [False, True])
def test_cancelling_ends_it_for_all_classes(bus, recorder, mode, subclasses):
    subscription = bus.subscribe(BOTH, recorder, mode=mode, subclasses=subclasses)
    assert [bus.publish(event) for event in mixed(2)] == [1, 1]
    recorder.wait_for(2)
    subscription.cancel()
    assert [bus.publish(event) for event in mixed(2)] == [0, 0]
    assert [bus.count(event_class) for event_class in BOTH] == [0, 0]
    assert not subscription.active


def test_what_was_published_before_the_end_of_a_block_is_delivered(bus, recorder):
    with bus.subscribe(BOTH, recorder) as subscription:
        bus.publish_many(mixed(100))
    assert recorder.events == mixed(100)
    assert not subscription.active


def test_a_subscription_is_found_by_all_of_its_classes(bus, make_recorder):
    handler, other = make_recorder(), make_recorder()
    both = bus.subscribe(BOTH, handler)
    family = bus.subscribe(BOTH, other, subclasses=True)
    plain = bus.subscribe(Deposit, handler)
    three = bus.subscribe((*BOTH, Other), handler)
    assert bus.subscriptions((Withdrawal, Deposit)) == [both, family]
    assert bus.subscriptions(Deposit) == [plain]
    assert bus.subscriptions((Deposit,)) == [plain]
    assert bus.subscriptions((Deposit, Other)) == []
    assert bus.off(handler, (Withdrawal, Deposit)) == 1
    assert bus.off(handler, Deposit) == 1
    assert set(bus.subscriptions()) == {family, three}
    assert bus.off(handler) == 1


def test_replace_replaces_the_subscription_to_the_same_classes(bus, recorder):
    def handler(event: Deposit | Withdrawal) -> None: ...

    handler.__qualname__ = "handler"
    old = bus.subscribe(handler, replace=True)
    plain = bus.subscribe(Deposit, handler, replace=True)
    new = bus.subscribe((Withdrawal, Deposit), handler, replace=True)
    assert not old.active
    assert set(bus.subscriptions()) == {plain, new}


@pytest.mark.usefixtures("collected_classes")
def test_the_classes_live_as_long_as_the_subscription_and_no_longer(bus, eventually):
    class Passing:
        pass

    alive = weakref.ref(Passing)
    subscription = bus.subscribe((Passing, Deposit), anything)
    bus.publish(Passing())
    del Passing
    gc.collect()
    assert alive() is not None
    subscription.cancel()
    eventually(lambda: not bus.stats().topics or all(not topic.subscriptions for topic in bus.stats().topics))
    del subscription
    eventually(lambda: gc.collect() >= 0 and alive() is None)
    assert bus.publish(Deposit(0)) == 0


def test_the_last_subscription_takes_the_cost_with_it(bus, recorder, eventually):
    """When it has left, events of its classes go as if there had been none."""
    for options in ({}, {"context": "publisher"}, {"mode": "direct"}, {"subclasses": True}):
        subscription = bus.subscribe(BOTH, recorder, **options)
        bus.publish(Deposit(0))
        subscription.cancel()
        eventually(lambda: all(type(topic.event_class) is not tuple for topic in bus.stats().topics))
    assert bus.publish_to(ringcast.events.type_id(Deposit), Deposit(1)) == 0


def test_a_subscription_that_joins_while_another_leaves_gets_every_event(bus, spawn, deadline):
    """Subscriptions to the same classes share what the last one of them takes away."""
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            bus.subscribe(BOTH, anything).cancel()

    coming = spawn(come_and_go)
    try:
        for turn in range(200):
            got = []
            with bus.subscribe(BOTH, got.append):
                for event in mixed(4, first=turn):
                    assert bus.publish(event) >= 1
            assert numbers(got) == [*range(turn, turn + 4)]
    finally:
        stop.set()
        coming.result(deadline)


# --- what is shown ---


def test_the_numbers_are_those_of_one_topic(bus, make_recorder, deadline):
    bus.subscribe(BOTH, make_recorder())
    bus.subscribe((Withdrawal, Deposit), make_recorder(), context="publisher")
    bus.subscribe(BOTH, make_recorder(), subclasses=True)
    bus.publish_many(mixed(5))
    assert bus.wait_idle(deadline)
    several = [topic for topic in bus.stats().topics if type(topic.event_class) is tuple]
    assert [(topic.type_id, topic.subclasses, topic.published) for topic in several] == [
        (None, False, 5),
        (None, True, 5),
    ]
    assert [len(topic.subscriptions) for topic in several] == [2, 1]
    names = [ringcast.stats.event_name(topic) for topic in several]
    name = f"{__name__}.Deposit | {__name__}.Withdrawal"
    assert names == [name, f"{name} and subclasses"]


def test_a_subscription_names_its_classes(bus, recorder):
    assert " to Deposit | Withdrawal, queued" in repr(bus.subscribe(BOTH, recorder))
    assert " to Deposit | Withdrawal and subclasses, queued" in repr(bus.subscribe(BOTH, recorder, subclasses=True))


def test_the_metaclass_of_the_classes_is_not_asked(bus, recorder, deadline):
    class Hostile(type):
        def __eq__(cls, other):
            raise AssertionError("compared")

        def __hash__(cls):
            raise AssertionError("hashed")

    one, two = Hostile("One", (), {"number": 1}), Hostile("Two", (), {"number": 2})
    subscription = bus.subscribe((one, two, one), recorder)
    assert bus.subscriptions((two, one)) == [subscription]
    assert (bus.publish(one()), bus.publish(two())) == (1, 1)
    assert len(bus.stats().topics) == 3
    bus.close(deadline)
    assert numbers(recorder.events) == [1, 2]


@pytest.mark.forks
def test_a_child_of_a_fork_goes_on_with_it(run_until_done):
    run_until_done(
        PRELUDE
        + """
bus, got = Dispatcher(), []
bus.subscribe((Tick, Other), lambda event: got.append((type(event), event.number)))
assert bus.publish(Tick(0)) == 1 and bus.wait_idle(DEADLINE)

def child():
    got.clear()
    assert [bus.publish(event) for event in (Tick(1), Other(2), Tick(3))] == [1, 1, 1]
    bus.close(DEADLINE)
    assert got == [(Tick, 1), (Other, 2), (Tick, 3)]

assert fork(child) == 0
assert bus.publish(Other(4)) == 1
bus.close(DEADLINE)
assert got == [(Tick, 0), (Other, 4)]
"""
    )


def test_every_order_of_naming_is_one_set_of_classes(bus, make_recorder, deadline):
    recorders = [make_recorder() for _ in range(6)]
    orders = itertools.permutations((Deposit, Withdrawal, Other))
    for recorder, order in zip(recorders, orders, strict=True):
        assert bus.subscribe(order, recorder).event_class == order
    assert bus.publish(Other(1)) == 6
    assert len([topic for topic in bus.stats().topics if topic.type_id is None]) == 1
    bus.close(deadline)
    assert [numbers(recorder.events) for recorder in recorders] == [[1]] * 6
