"""Event classes: which topic an event goes to, subclasses, ids of instances, and one class per id."""

import enum
import functools
import gc
import importlib
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import pytest

from ringcast import EventClassError, TypeIdError, record, type_id


@dataclass
class Plain:
    """States no id."""

    number: int = 0


class PlainChild(Plain):
    pass


class Stated:
    __event_type__ = 0x10


class Inheriting(Stated):
    pass


class Overriding(Stated):
    __event_type__ = 0x11


# --- any class ---


@dataclass
class Data:
    number: int = 0


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    number: int = 0


class Named(NamedTuple):
    number: int = 0


class Slots:
    __slots__ = ()


class Colour(enum.Enum):
    RED = 1


class Flags(enum.IntFlag):
    A = 1


class OddMeta(type):
    """Classes that claim to be equal: identity must decide."""

    def __eq__(cls, other):
        return True

    def __hash__(cls):
        return 1


class Odd(metaclass=OddMeta):
    pass


class OddToo(metaclass=OddMeta):
    pass


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("an event is never compared")

    def __bool__(self):
        raise RuntimeError("an event is never asked whether it is true")


EVENTS = [
    *[Data(), FrozenSlots(), Named(), Slots(), Colour.RED, Flags.A, Odd(), OddToo(), Unhashable()],
    *[0, True, 1.5, "text", b"bytes", None, (), [], {}, ValueError("an exception"), len, Data],
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_any_class_is_an_event_class(bus, make_recorder, event, deadline):
    recorders = {id(type(other)): make_recorder() for other in EVENTS}
    for other in EVENTS:
        bus.subscribe(type(other), recorders[id(type(other))])
    assert bus.count(type(event)) == 1
    assert bus.publish(event) == 1
    bus.close(deadline)
    for class_id, recorder in recorders.items():
        assert len(recorder.events) == (class_id == id(type(event)))
    assert recorders[id(type(event))].events[0] is event


# --- subclasses ---


def test_a_class_without_an_id_has_a_topic_of_its_own_and_so_has_each_subclass(bus, make_recorder, deadline):
    base, child = make_recorder(), make_recorder()
    bus.subscribe(Plain, base)
    assert bus.publish(PlainChild()) == 0
    bus.subscribe(PlainChild, child)
    assert bus.publish(PlainChild()) == 1
    assert bus.publish(Plain()) == 1
    bus.close(deadline)
    assert [type(event) for event in base.events] == [Plain]
    assert [type(event) for event in child.events] == [PlainChild]
    assert type_id(Plain) != type_id(PlainChild)


def test_events_of_a_subclass_that_inherits_the_id_go_to_the_topic_of_its_owner(bus, recorder, deadline):
    bus.subscribe(Stated, recorder)
    assert bus.publish(Inheriting()) == 1
    assert bus.publish(Stated()) == 1
    assert bus.publish_to(0x10, Inheriting()) == 1
    assert bus.count(Inheriting) == bus.count(Stated) == bus.count(0x10) == 1
    bus.close(deadline)
    assert [type(event) for event in recorder.events] == [Inheriting, Stated, Inheriting]


def test_a_subclass_that_inherits_the_id_cannot_be_subscribed_to(bus, recorder):
    with pytest.raises(EventClassError, match=r"(?s)(?=.*Inheriting)(?=.*Stated).*\b0x0*10\b"):
        bus.subscribe(Inheriting, recorder)
    assert bus.count(0x10) == 0
    bus.subscribe(Stated, recorder)


def test_a_subclass_that_states_an_id_of_its_own_has_its_own_topic(bus, make_recorder, deadline):
    base, child = make_recorder(), make_recorder()
    bus.subscribe(Stated, base)
    bus.subscribe(Overriding, child)
    assert bus.publish(Overriding()) == 1
    assert bus.publish(Stated()) == 1
    bus.close(deadline)
    assert [type(event) for event in base.events] == [Stated]
    assert [type(event) for event in child.events] == [Overriding]


# --- ids of instances ---


class ByProperty:
    def __init__(self, type_id: Any) -> None:
        self.id = type_id

    @property
    def __event_type__(self) -> int:
        return self.id


class BySlot:
    __slots__ = ("__event_type__",)

    def __init__(self, type_id: Any) -> None:
        self.__event_type__ = type_id


class ByCachedProperty:
    def __init__(self, type_id: Any) -> None:
        self.id = type_id

    @functools.cached_property
    def __event_type__(self) -> int:
        return self.id


@dataclass
class ByField:
    __event_type__: int


BY_INSTANCE = pytest.mark.parametrize("event_class", [ByProperty, BySlot, ByCachedProperty, ByField])


@BY_INSTANCE
def test_instances_can_compute_their_id(bus, make_recorder, event_class, deadline):
    recorders = {type_id: make_recorder() for type_id in (0, 1, 2**32 - 1)}
    for number, recorder in recorders.items():
        bus.subscribe_to(number, recorder)
    for number in (0, 1, 2**32 - 1, 1):
        assert bus.publish(event_class(number)) == 1
    assert bus.publish(event_class(3)) == 0
    bus.close(deadline)
    for number, recorder in recorders.items():
        assert [event.__event_type__ for event in recorder.events] == [number] * (1 + (number == 1))


@BY_INSTANCE
def test_a_class_whose_instances_compute_their_id_is_subscribed_to_by_id_only(bus, recorder, event_class):
    with pytest.raises(TypeIdError, match="subscribe_to"):
        bus.subscribe(event_class, recorder)
    bus.subscribe_to(5, recorder)
    event = event_class(5)
    assert bus.publish(event) == 1
    assert recorder.wait_for(1) == [event]


@BY_INSTANCE
@pytest.mark.parametrize("wrong", [-1, 2**32, "1", 1.0, None, True])
def test_an_instance_that_computes_a_wrong_id_is_refused(bus, recorder, event_class, wrong):
    bus.subscribe_to(1, recorder)
    with pytest.raises(TypeIdError):
        bus.publish(event_class(wrong))
    with bus.subscribe_to(1, recorder):
        assert bus.publish(event_class(1)) == 2
    assert len(recorder.events) == 2


def test_an_exception_of_the_instance_comes_out_of_publish(bus, recorder):
    class Broken:
        @property
        def __event_type__(self) -> int:
            raise ZeroDivisionError

    bus.subscribe_to(1, recorder)
    with pytest.raises(ZeroDivisionError):
        bus.publish(Broken())
    assert recorder.events == []


# --- one id, one class ---


def make_class(name, **namespace):
    return type(name, (), namespace)


def test_the_second_class_that_states_an_id_is_refused(bus, recorder, deadline):
    first, second = make_class("First", __event_type__=0x20), make_class("Second", __event_type__=0x20)
    conflict = pytest.raises(EventClassError, match=r"(?s)(?=.*First)(?=.*Second).*\b0x0*20\b")
    bus.subscribe(first, recorder)
    with conflict:
        bus.subscribe(second, recorder)
    with conflict:
        bus.publish(second())
    with conflict:
        bus.publish_to(0x20, second())
    assert bus.count(0x20) == 1
    assert bus.publish(first()) == 1
    bus.close(deadline)
    assert [type(event) for event in recorder.events] == [first]


def test_the_first_publish_binds_an_id_also_without_subscribers(bus, recorder):
    first, second = make_class("First", __event_type__=0x21), make_class("Second", __event_type__=0x21)
    assert bus.publish(first()) == 0
    with pytest.raises(EventClassError):
        bus.subscribe(second, recorder)
    with pytest.raises(EventClassError):
        bus.publish(second())
    bus.subscribe(first, recorder)


def test_an_id_stays_bound_after_its_last_subscription_while_the_class_lives(bus, recorder):
    first, second = make_class("First", __event_type__=0x22), make_class("Second", __event_type__=0x22)
    bus.subscribe(first, recorder).cancel()
    with pytest.raises(EventClassError):
        bus.subscribe(second, recorder)


@pytest.mark.usefixtures("collected_classes")
def test_an_id_is_free_again_when_its_class_has_been_collected(bus, make_recorder, eventually):
    first = make_class("First", __event_type__=0x23)
    with bus.subscribe(first, make_recorder()):
        bus.publish(first())
    alive = weakref.ref(first)
    del first

    def is_collected():
        gc.collect()
        return alive() is None

    eventually(is_collected)
    second, recorder = make_class("Second", __event_type__=0x23), make_recorder()
    bus.subscribe(second, recorder)
    assert bus.publish(second()) == 1
    assert type(recorder.wait_for(1)[0]) is second


@pytest.mark.usefixtures("collected_classes")
def test_a_class_that_is_just_being_freed_is_not_handed_out(bus):
    dying, newcomer, found = make_class("Dying", __event_type__=0x26), make_class("Newcomer"), []
    bus.publish(dying())

    def look(_):  # called by the garbage collector, before the dispatcher is told
        found.extend(topic.event_class for topic in bus.stats().topics)
        with pytest.raises(EventClassError, match=r"0x26 belongs to a class that is just being freed"):
            bus.publish_to(0x26, newcomer())
        found.append("looked")

    reference = weakref.ref(dying, look)
    del dying
    gc.collect()
    assert reference() is None
    assert found == [None, "looked"]
    bus.publish_to(0x26, newcomer())  # now the id is free
    assert [topic.event_class for topic in bus.stats().topics] == [newcomer]


@pytest.mark.usefixtures("collected_classes")
def test_the_id_of_a_base_class_that_is_none_any_more_is_free(bus, recorder):
    root = make_class("Root")
    base = type("Base", (root,), {"__event_type__": 0x27})
    derived = type("Derived", (base,), {})
    bus.publish(derived())  # where the events of Base go
    derived.__bases__ = (root,)
    alive = weakref.ref(base)
    del base
    gc.collect()
    assert alive() is None
    bus.subscribe(derived, recorder)
    assert bus.publish(derived()) == 1
    assert type(recorder.wait_for(1)[0]) is derived


def test_an_id_without_annotation_is_open_until_the_first_event_or_annotated_handler(bus, recorder):
    def annotated(event: Plain) -> None:
        pass

    bus.subscribe_to(0x30, recorder)
    bus.subscribe_to(0x31, recorder)
    assert bus.publish_to(0x30, Plain()) == 1
    with pytest.raises(EventClassError, match=r"(?s)(?=.*Plain)(?=.*Data).*\b0x0*30\b"):
        bus.publish_to(0x30, Data())
    bus.subscribe_to(0x30, annotated)

    bus.subscribe_to(0x31, annotated)
    with pytest.raises(EventClassError):
        bus.publish_to(0x31, Data())
    assert bus.publish_to(0x31, PlainChild()) == 2  # an instance of the class


def test_an_id_that_nobody_uses_takes_any_event_and_binds_nothing(bus):
    assert bus.publish_to(0x32, Plain()) == 0
    assert bus.publish_to(0x32, Data()) == 0
    assert bus.count(0x32) == 0


def test_two_dispatchers_bind_their_ids_by_themselves(make_bus, recorder):
    first, second = make_class("First", __event_type__=0x24), make_class("Second", __event_type__=0x24)
    one, other = make_bus(), make_bus()
    one.subscribe(first, recorder)
    other.subscribe(second, recorder)
    assert one.publish(first()) == other.publish(second()) == 1


# --- a class that comes and goes ---


@pytest.mark.usefixtures("collected_classes")
@pytest.mark.parametrize("stated", [False, True])
def test_a_class_at_the_address_of_a_collected_one_is_a_class_of_its_own(bus, make_recorder, stated):
    addresses, type_ids, repeated = set(), set(), 0
    for number in range(500):
        namespace = {"__event_type__": 0x1000 + number} if stated else {}
        event_class, recorder = make_class(f"Class{number}", **namespace), make_recorder()
        repeated += id(event_class) in addresses
        addresses.add(id(event_class))

        assert bus.count(event_class) == 0
        assert bus.publish(event_class()) == 0
        with bus.subscribe(event_class, recorder):
            assert bus.publish(event_class()) == 1
        assert [type(event) for event in recorder.events] == [event_class]
        assert type_id(event_class) not in type_ids
        type_ids.add(type_id(event_class))

        recorder.events.clear()
        del event_class
        gc.collect()
        if repeated == 20:
            break
    if not repeated:
        pytest.skip("this interpreter never used an address again")


@pytest.mark.usefixtures("collected_classes")
def test_a_class_that_takes_the_address_of_an_instance_computing_one(bus, make_recorder):
    # the kinds of the class that was and of the class that is differ
    addresses, repeated = {}, 0
    for number in range(500):
        kind = number % 3
        namespace = [
            {},
            {"__event_type__": 0x2000 + number},
            {"__event_type__": property(lambda self: 0x1FFF)},
        ]
        event_class, recorder = make_class(f"Class{number}", **namespace[kind]), make_recorder()
        repeated += addresses.get(id(event_class), kind) != kind
        addresses[id(event_class)] = kind

        subscribe = bus.subscribe_to if kind == 2 else bus.subscribe
        with subscribe(0x1FFF if kind == 2 else event_class, recorder):
            assert bus.publish(event_class()) == 1
        assert [type(event) for event in recorder.events] == [event_class]

        recorder.events.clear()
        del event_class
        gc.collect()
        if repeated == 20:
            break
    if not repeated:
        pytest.skip("this interpreter never used an address again")


# --- classes that are defined again: by a notebook's cell, or a module, that runs again ---

STATED = "class Started:\n    __event_type__ = 0x42\n"


def run_cell(names, cell):
    exec(cell, names)
    return names["Started"]


@pytest.fixture
def notebook():
    return {"__name__": "notebook"}


def test_a_class_that_states_its_id_takes_the_place_of_the_one_before(bus, notebook, deadline):
    got = []
    first = run_cell(notebook, STATED)
    bus.subscribe(first, got.append)
    second = run_cell(notebook, STATED)
    assert second is not first
    assert bus.publish(second()) == 1  # the subscription stays
    assert bus.publish(first()) == 1  # as do events that were there already
    bus.subscribe(second, got.append)
    assert (bus.publish(second()), bus.publish(first())) == (2, 2)
    assert bus.wait_idle(deadline)
    assert [type(event) for event in got].count(second) == 3
    assert [topic.event_class for topic in bus.stats().topics] == [second]


def test_a_handler_of_the_class_before_may_still_be_subscribed(bus, notebook, deadline):
    first = run_cell(notebook, STATED)
    got = []

    def show(started):
        got.append(started)

    show.__annotations__["started"] = first
    bus.subscribe(show)
    second = run_cell(notebook, STATED)
    bus.publish(second())
    bus.subscribe(show)
    bus.subscribe_to(0x42, show)
    assert bus.publish(second()) == 3
    assert bus.wait_idle(deadline)
    assert len(got) == 4


@pytest.mark.usefixtures("collected_classes")
def test_it_goes_with_its_subscriptions_when_both_classes_are_freed(bus, notebook):
    run_cell(notebook, STATED)
    bus.subscribe(notebook["Started"], lambda started: None).cancel()
    run_cell(notebook, STATED)
    bus.publish(notebook.pop("Started")())
    gc.collect()

    class Other:
        __event_type__ = 0x42

    assert bus.publish(Other()) == 0  # the id is open again


def test_a_class_with_slots_that_a_decorator_makes_again_is_the_same(bus):
    cell = "@dataclass(slots=True)\nclass Started:\n    __event_type__: ClassVar[int] = 0x42\n"
    names = {"__name__": "notebook", "dataclass": keep_first(bus), "ClassVar": ClassVar}
    exec(cell, names)
    assert bus.publish(names["Started"]()) == 1


def keep_first(bus):
    """A decorator that subscribes to the class that it is given, before it is made again with slots."""

    def decorate(slots):
        def make(cls):
            bus.subscribe(cls, lambda event: None)
            return dataclass(slots=slots)(cls)

        return make

    return decorate


def test_a_module_that_is_loaded_again(bus, tmp_path, monkeypatch):
    (tmp_path / "ringcast_events_again.py").write_text(STATED)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("ringcast_events_again")
    bus.subscribe(module.Started, lambda started: None)
    module = importlib.reload(module)
    assert bus.publish(module.Started()) == 1


def test_with_an_automatic_id_the_class_is_another_one(bus, notebook):
    cell = "class Started:\n    pass\n"
    bus.subscribe(run_cell(notebook, cell), lambda started: None)
    assert bus.publish(run_cell(notebook, cell)()) == 0


def test_classes_of_one_name_that_a_function_makes_are_told_apart(bus):
    def make():
        class Started:
            __event_type__ = 0x42

        return Started

    bus.subscribe(make(), lambda started: None)
    with pytest.raises(EventClassError) as refused:
        bus.publish(make()())
    name = f"{__name__}.{make.__qualname__}.<locals>.Started"
    assert str(refused.value) == (
        f"type id 0x42 belongs to {name}: {name} (another class of that name) needs an id of its own"
    )


def test_a_record_type_that_is_defined_again_is_refused(bus, notebook):
    cell = "@record\nclass Started:\n    __event_type__: ClassVar[int] = 0x42\n    at: float\n"
    notebook |= {"record": record, "ClassVar": ClassVar}
    bus.subscribe(run_cell(notebook, cell), lambda started: None)
    with pytest.raises(EventClassError, match="another class of that name"):
        bus.publish(run_cell(notebook, cell)(1.0))


def test_subclasses_of_both_go_there_whichever_was_published_last(bus, notebook):
    bus.subscribe(first := run_cell(notebook, STATED), lambda started: None)
    of_first = type("OfFirst", (first,), {})
    second = run_cell(notebook, STATED)
    of_second = type("OfSecond", (second,), {})
    for event_class in (second, of_first, first, of_second, second, of_second, of_first):
        assert bus.publish(event_class()) == 1
        assert bus.publish_to(0x42, event_class()) == 1
    assert [topic.event_class for topic in bus.stats().topics] == [second]


def test_a_subclass_of_the_same_name_is_no_class_that_is_defined_again(bus, notebook):
    run_cell(notebook, STATED)
    bus.publish(notebook["Started"]())
    inheriting = run_cell(notebook, "class Started(Started):\n    pass\n")
    with pytest.raises(EventClassError, match="inherits type id 0x42"):
        bus.subscribe(inheriting, lambda started: None)
