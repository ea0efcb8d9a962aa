"""Where the type id of an event class comes from: `ringcast.events`."""

from __future__ import annotations

import enum
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import FunctionType
from typing import Any, ClassVar, NamedTuple

import pytest

from ringcast import Dispatcher, events
from ringcast.errors import EventClassError, TypeIdError
from ringcast.events import Identity, check_type_id, class_name, identify, type_id

FIRST_AUTOMATIC = 0x8000_0000


class Index:
    """Not an int, but usable as one."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> Any:
        return self.value


# Stated ids


def test_a_class_states_its_id() -> None:
    class Tick:
        __event_type__ = 0x01

    assert identify(Tick) == Identity(1, Tick)
    assert type_id(Tick) == 1


def test_a_subclass_inherits_the_id_and_the_owner() -> None:
    class Tick:
        __event_type__ = 1

    class Loud(Tick):
        pass

    assert identify(Loud) == Identity(1, Tick)


def test_the_nearest_statement_of_the_mro_counts() -> None:
    class Tick:
        __event_type__ = 1

    class Other:
        __event_type__ = 2

    class Own(Tick):
        __event_type__ = 3

    class Both(Other, Tick):
        pass

    assert identify(Own) == Identity(3, Own)
    assert identify(Both) == Identity(2, Other)


@pytest.mark.parametrize("bound", [0, 0xFFFF_FFFF])
def test_both_ends_of_the_range_may_be_stated(bound: int) -> None:
    assert type_id(type("Edge", (), {"__event_type__": bound})) == bound


def test_an_index_or_an_enum_member_is_an_integer() -> None:
    class Ids(enum.IntEnum):
        TICK = 7

    class Tick:
        __event_type__ = Ids.TICK

    class Quote:
        __event_type__ = Index(8)

    assert (type_id(Tick), type(type_id(Tick))) == (7, int)
    assert type_id(Quote) == 8


@pytest.mark.parametrize(
    "stated", [True, False, -1, 2**32, pytest.param(10**5000, id="huge"), 1.0, "1", b"1", None, (), Index("1")]
)
def test_anything_else_is_refused_and_the_message_names_the_class(stated: object) -> None:
    cls = type("Tick", (), {"__event_type__": stated, "__module__": "market"})
    with pytest.raises(TypeIdError, match=r"__event_type__ of market\.Tick: a type id is an integer from 0 to"):
        identify(cls)


def test_a_dataclass_default_is_a_stated_id() -> None:
    @dataclass
    class Tick:
        __event_type__: ClassVar[int] = 5

    assert identify(Tick) == Identity(5, Tick)


# Ids that the instance computes


def test_descriptors_are_computed_by_the_instance() -> None:
    class Property:
        @property
        def __event_type__(self) -> int:
            return 1

    class Cached:
        @functools.cached_property
        def __event_type__(self) -> int:
            return 1

    class Slot:
        __slots__ = ("__event_type__",)

    @dataclass(slots=True)
    class Slotted:
        __event_type__: int

    for cls in (Property, Cached, Slot, Slotted):
        assert identify(cls) == Identity(None, cls)
        with pytest.raises(TypeIdError, match=rf"{cls.__name__} has no type id.*subscribe_to"):
            type_id(cls)


def test_an_annotation_without_a_value_is_computed_by_the_instance() -> None:
    @dataclass
    class Tick:
        __event_type__: int
        price: float

    class Sub(Tick):
        pass

    assert identify(Tick) == Identity(None, Tick)
    assert identify(Sub) == Identity(None, Tick)


def test_a_subclass_may_state_what_its_base_only_declares() -> None:
    class Base:
        __event_type__: int

    class Tick(Base):
        __event_type__ = 4

    assert identify(Tick) == Identity(4, Tick)


def test_a_subclass_may_compute_what_its_base_states() -> None:
    class Base:
        __event_type__ = 4

    class Tick(Base):
        @property
        def __event_type__(self) -> int:  # type: ignore[override]
            return 9

    assert identify(Tick) == Identity(None, Tick)


def test_annotations_that_are_made_late_are_found_and_not_evaluated() -> None:
    # What Python 3.14 leaves in a class body: a function, which here would fail.
    def annotate(format: int) -> dict[str, Any]:
        return {"__event_type__": 1 / 0}

    def annotate_others(format: int) -> dict[str, Any]:
        return {"price": 1 / 0}

    assert isinstance(annotate, FunctionType)
    computed = type("Computed", (), {"__annotate_func__": annotate})
    automatic = type("Automatic", (), {"__annotate_func__": annotate_others})
    assert identify(computed) == Identity(None, computed)
    assert type_id(automatic) >= FIRST_AUTOMATIC


def test_annotations_are_not_evaluated() -> None:
    class Tick:
        price: there_is_no_such_name  # type: ignore[name-defined]  # noqa: F821

    assert type_id(Tick) >= FIRST_AUTOMATIC


# Automatic ids


def test_a_class_without_a_statement_gets_an_id_of_the_upper_half_and_keeps_it() -> None:
    class Tick(NamedTuple):
        price: float

    first = identify(Tick)
    assert first == identify(Tick)
    assert first.owner is Tick
    assert first.type_id in range(FIRST_AUTOMATIC, 2**32)


def test_automatic_ids_are_not_inherited() -> None:
    class Tick:
        pass

    class Loud(Tick):
        pass

    assert type_id(Tick) != type_id(Loud)
    assert identify(Loud).owner is Loud


def test_built_in_classes_have_ids_too() -> None:
    assert len({type_id(cls) for cls in (int, bool, str, object, type, type(None))}) == 6


def test_threads_that_ask_at_once_get_the_same_id() -> None:
    classes = [type(f"Event{n}", (), {}) for n in range(200)]
    start = threading.Barrier(8)

    def ask() -> list[int]:
        start.wait()
        return [type_id(cls) for cls in classes]

    with ThreadPoolExecutor(8) as pool:
        answers = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == len(classes)


def test_an_id_that_is_given_out_is_found_while_another_thread_gives_one_out(
    spawn: Callable[..., Future[int]], deadline: float
) -> None:
    class Tick:
        pass

    given = type_id(Tick)
    with events._lock:
        assert spawn(type_id, Tick).result(deadline) == given


@pytest.mark.usefixtures("collected_classes")
def test_an_automatic_id_does_not_keep_the_class_alive() -> None:
    gc.collect()  # classes of other tests
    known = len(events._automatic)
    cls = type("Tick", (), {})
    type_id(cls)
    assert len(events._automatic) == known + 1
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert gone() is None
    assert len(events._automatic) <= known


@pytest.mark.usefixtures("collected_classes")
def test_a_class_at_the_address_of_a_dead_one_gets_an_id_of_its_own() -> None:
    ids: set[int] = set()
    for _ in range(200):
        cls = type("Tick", (), {})
        ids.add(type_id(cls))
        del cls
        gc.collect(0)
    assert len(ids) == 200


def test_an_entry_whose_class_is_another_one_does_not_count() -> None:
    class Dead:
        pass

    class Tick:
        pass

    stale = type_id(Dead)
    events._automatic[id(Tick)] = events._automatic[id(Dead)]
    try:
        assert type_id(Tick) != stale
        assert type_id(Dead) == stale
    finally:
        del events._automatic[id(Tick)]


def test_no_id_is_given_out_when_all_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_next_automatic", 0xFFFF_FFFF)
    last, too_many = type("Last", (), {}), type("TooMany", (), {})
    assert type_id(last) == 0xFFFF_FFFF
    with pytest.raises(TypeIdError, match=r"no automatic type id is left for .*TooMany"):
        type_id(too_many)
    assert type_id(last) == 0xFFFF_FFFF


# Classes that answer in their own way


class Hostile(type):
    """A metaclass whose every answer is wrong."""

    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")

    def __eq__(cls, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(cls) -> int:
        raise AssertionError("hashed")

    def __instancecheck__(cls, instance: object) -> bool:
        raise AssertionError("instance checked")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise AssertionError("subclass checked")


def test_the_metaclass_is_not_asked() -> None:
    class Plain(metaclass=Hostile):
        pass

    class Stated(metaclass=Hostile):
        __event_type__ = 6

    class Computed(metaclass=Hostile):
        __event_type__: int

    assert type_id(Plain) == type_id(Plain) >= FIRST_AUTOMATIC
    assert type_id(Stated) == 6
    assert identify(Computed).type_id is None
    assert class_name(Stated).endswith(".Stated")


def test_the_metaclass_of_the_owner_is_not_asked_of_a_class_that_is_published(bus: Dispatcher) -> None:
    class Owner(metaclass=Hostile):
        __event_type__ = 77

    class Plain:
        pass

    bus.subscribe_to(77, lambda event: None)
    bus.publish_to(77, object.__new__(Owner))  # the id is Owner's from now on
    with pytest.raises(EventClassError, match=r"an event is published, and .*Plain is a class"):
        bus.publish_to(77, Plain)


def test_an_automatic_id_stays_with_the_first_class_when_that_is_defined_again(bus: Dispatcher) -> None:
    def define() -> type:
        class Again:
            pass

        return Again

    first, second = define(), define()
    bus.publish(first())
    with pytest.raises(EventClassError, match="needs an id of its own"):
        bus.publish_to(type_id(first), second())
    subscription = bus.subscribe(first, lambda event: None)
    assert (bus.publish(first()), bus.count(first), bus.subscriptions(first)) == (1, 1, [subscription])


def test_what_a_metaclass_makes_up_is_no_statement() -> None:
    class Meta(type):
        __event_type__ = 3

        def __getattr__(cls, name: str) -> int:
            return 3

    class Tick(metaclass=Meta):
        pass

    assert type_id(Tick) >= FIRST_AUTOMATIC


@pytest.mark.parametrize("not_a_class", [1, "Tick", None, object(), list[int], int | str])
def test_only_a_class_has_an_id(not_a_class: Any) -> None:
    with pytest.raises(EventClassError, match="an event class is a class, not "):
        type_id(not_a_class)


def test_an_object_that_pretends_to_be_a_class_is_none() -> None:
    class Liar:
        __class__ = type  # type: ignore[assignment]

    with pytest.raises(EventClassError):
        identify(Liar())  # type: ignore[arg-type]


# check_type_id


def test_check_returns_a_plain_int() -> None:
    class Id(int):
        def __ge__(self, other: object) -> bool:
            raise AssertionError("compared")

        __le__ = __lt__ = __gt__ = __ge__  # type: ignore[assignment]

    for value in (3, Id(3), Index(3)):
        assert type(check_type_id(value)) is int
        assert check_type_id(value) == 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, r"True \(bool\)"),
        (-1, r"-1 \(int\)"),
        (2**32, r"4294967296 \(int\)"),
        pytest.param(10**5000, r"an instance of int", id="huge"),
        (1.5, r"1\.5 \(float\)"),
        ("1", r"'1' \(str\)"),
        (None, r"None \(NoneType\)"),
        (int, "class int"),
        ("x" * 1000, r"'x{76}\.\.\. \(str\)"),
    ],
)
def test_check_shows_what_was_given_and_what_would_be_right(value: object, shown: str) -> None:
    with pytest.raises(TypeIdError, match=rf"^a type id is an integer from 0 to 0xFFFFFFFF, not {shown}$"):
        check_type_id(value)


def test_check_reports_also_what_cannot_be_shown() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeIdError, match=r"not an instance of .*Mute"):
        check_type_id(Mute())
