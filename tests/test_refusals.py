"""What is refused at the call: handlers, hooks and values that could only go wrong later, and in silence."""

import asyncio
import copy
import functools
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Optional, Protocol, TypedDict, TypeVar, runtime_checkable
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import pytest
from limits import DEADLINE

import ringcast
from ringcast import ClosedError, Dispatcher, EventClassError, HandlerTypeError, OptionError, RingcastError, TypeIdError

T = TypeVar("T")


class Tick:
    saved_in: object = None


class Session:
    pass


def on_tick(tick: Tick) -> None: ...


async def on_tick_async(tick: Tick) -> None: ...


def on_tuple(event: tuple[Tick, Session]) -> None: ...


def on_records(records: "ringcast.RecordBatch[Tick]") -> None: ...


class Abstract(ABC):
    @abstractmethod
    def method(self): ...


class Row(TypedDict):
    price: float


@dataclass
class Priced:
    price: float


class Numbered:
    __event_type__ = 0x77

    def __init__(self, number): ...


# --- what Ringcast calls and does not await ---


async def asynchronous(_): ...


def generator(_):
    yield


async def asynchronous_generator(_):
    yield


class Asynchronous:
    async def __call__(self, _): ...

    async def method(self, _): ...


NO_HOOKS = {
    "an async def function": asynchronous,
    "one in a partial": functools.partial(asynchronous),
    "an async method": Asynchronous().method,
    "an object whose call is async": Asynchronous(),
    "a mock of an async function": AsyncMock(),
    "a generator function": generator,
    "a static method that is one": staticmethod(generator),
    "an asynchronous generator function": asynchronous_generator,
    "two arguments": lambda one, two: True,
    "no argument": lambda: True,
    "a keyword without a default": lambda one, *, two: True,
    "a partial that no call fits": functools.partial(on_tick, 1, 2),
    "an exception class": ValueError,
    "a partial of one": functools.partial(ValueError, 1),
    "no callable": 5,
    "a word": "raised",
}
PLACES = {
    "on_error": lambda bus, hook: Dispatcher(on_error=hook),
    "where": lambda bus, hook: bus.subscribe(Tick, on_tick, where=hook),
    "where of a batch": lambda bus, hook: bus.subscribe(Tick, print, where=hook, batch=10),
    "where of a decorator": lambda bus, hook: bus.on(Tick, where=hook)(on_tick),
    "where of an id": lambda bus, hook: bus.subscribe_to(0x42, on_tick, where=hook),
    "key": lambda bus, hook: bus.subscribe(Tick, on_tick, policy="latest", key=hook),
}


@pytest.mark.parametrize("hook", NO_HOOKS.values(), ids=NO_HOOKS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_hook_that_could_not_be_called_is_refused(bus, place, hook):
    with pytest.raises(OptionError) as caught:
        place(bus, hook)
    assert isinstance(caught.value, RingcastError)
    assert not bus.subscriptions()


@pytest.mark.parametrize("hook", NO_HOOKS.values(), ids=NO_HOOKS)
def test_a_hook_of_a_stream_that_could_not_be_called_is_refused(bus, hook):
    async def main():
        with pytest.raises(OptionError):
            bus.stream(Tick, where=hook)
        with pytest.raises(OptionError):
            await bus.wait_for(Tick, where=hook)

    asyncio.run(main())
    assert not bus.subscriptions()


@pytest.mark.parametrize(
    "hook", [bool, str, len, Mock(return_value=True), lambda *one: True, functools.partial(max, 1)]
)
def test_whatever_can_be_called_with_one_argument_is_a_hook(bus, hook):
    bus.subscribe(Tick, on_tick, where=hook)
    Dispatcher(on_error=hook).close()


class Plain:
    def __init__(self, event): ...


class Measured(Plain):
    def __len__(self):
        return 0


class Made:
    def __new__(cls, event):
        return event.saved_in


class MetaCall(type):
    def __call__(cls, event):
        return event.saved_in


class Called(metaclass=MetaCall): ...


@dataclass
class Compared:
    event: Tick


@pytest.mark.parametrize("cls", [Plain, object, list, dict, frozenset, bool, Measured, Made, Called, Compared])
def test_a_class_is_a_hook_only_where_its_instances_can_differ(bus, cls):
    """An instance of a class that does not say how true it is, or what it is equal to, says nothing about the event."""
    differ_in_truth = cls in (list, dict, frozenset, bool, Measured, Made, Called)
    differ_in_equality = cls in (list, dict, frozenset, bool, Made, Called, Compared)
    for differ, options in (
        (differ_in_truth, {"where": cls}),
        (differ_in_equality, {"policy": "latest", "key": cls}),
    ):
        if differ or cls is object:  # object takes no argument
            continue
        with pytest.raises(OptionError, match="is a class, whose instances are all"):
            bus.subscribe(Tick, on_tick, **options)
    assert not bus.subscriptions()
    if differ_in_truth:
        bus.subscribe(Tick, on_tick, where=cls)
    if differ_in_equality:
        bus.subscribe(Tick, on_tick, policy="latest", key=cls)


def test_the_message_names_the_hook_and_what_is_wrong(bus):
    with pytest.raises(OptionError, match=r"where=.*asynchronous is an async def function, which nobody would await"):
        bus.subscribe(Tick, on_tick, where=asynchronous)
    with pytest.raises(OptionError, match=r"on_error=.* takes no positional argument, .* the failure"):
        Dispatcher(on_error=lambda: None)


# --- handlers ---


def with_session(function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        return function(Session(), *arguments, **named)

    return wrapper


def with_database(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments, database=1)

    return wrapper


@with_database
def store(tick: Tick, database: int) -> None: ...


@with_database
def store_all(ticks: list[Tick], database: int) -> None: ...


def passed_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@passed_on
def first_of(tick: Tick, *args: int) -> None: ...


@with_session
def save(session: Session, tick: Tick) -> None:
    tick.saved_in = session


def on_ticks(ticks: list[Tick]) -> None: ...


NO_HANDLERS = {
    "a parameter that a wrapper fills": (lambda bus: bus.subscribe(save), HandlerTypeError, "any of which may get"),
    "one that a wrapper adds": (lambda bus: bus.subscribe(store), HandlerTypeError, r"\('tick', 'database'\), any"),
    "which takes another class": (lambda bus: bus.subscribe(Session, store), EventClassError, "is for .*Tick or int"),
    "a list that a wrapper takes": (lambda bus: bus.subscribe(Tick, store_all), EventClassError, "needs batch="),
    "the handler is forgotten": (
        lambda bus: bus.subscribe(Tick),
        HandlerTypeError,
        r"there is no handler: subscribe\(",
    ),
    "swapped": (
        lambda bus: bus.subscribe(on_tick, Tick),
        EventClassError,
        r"comes first: subscribe\(.*Tick, .*on_tick",
    ),
    "a list without batch": (lambda bus: bus.subscribe(on_ticks), HandlerTypeError, "batch=100"),
    "a list decorated": (lambda bus: bus.on(on_ticks), HandlerTypeError, "batch=100"),
    "a list, and its class": (lambda bus: bus.subscribe(Tick, on_ticks), EventClassError, "of lists needs batch="),
    "what a call returns": (lambda bus: bus.subscribe(on_tick(Tick())), HandlerTypeError, "is it called already"),
    "what a decorator returns": (lambda bus: bus.on(on_tick(Tick())), HandlerTypeError, "its decorator return nothing"),
    "a generator": (lambda bus: bus.subscribe(Tick, generator(Tick())), HandlerTypeError, "is it called already"),
    "a name": (lambda bus: bus.on("tick"), HandlerTypeError, r"or a handler is needed, not 'tick' .*not by name$"),
    "a name for a class": (lambda bus: bus.subscribe("tick", on_tick), EventClassError, r"by class, not by name$"),
    "a name of a stream": (lambda bus: asyncio.run(read(bus, "tick")), EventClassError, r"by class, not by name$"),
    "a mode": (lambda bus: bus.on("direct"), HandlerTypeError, r"not 'direct' \(str\): mode=\"direct\"$"),
    "a policy": (lambda bus: bus.on("latest"), HandlerTypeError, r"not 'latest' \(str\): policy=\"latest\"$"),
    "a mode for a class": (lambda bus: bus.subscribe("direct", on_tick), EventClassError, ': mode="direct"$'),
    "a mode for a handler": (lambda bus: bus.subscribe(on_tick, "direct"), HandlerTypeError, ': mode="direct"$'),
    "a mode in the third place": (lambda bus: bus.subscribe(Tick, on_tick, "direct"), HandlerTypeError, '="direct"$'),
    "a mode after a class": (lambda bus: bus.on(Tick, "direct"), HandlerTypeError, r'\(2 given\): mode="direct"$'),
    "a mode after an id": (lambda bus: bus.subscribe_to(5, on_tick, "direct"), HandlerTypeError, ': mode="direct"$'),
    "an id": (lambda bus: bus.on(5), HandlerTypeError, "a type id is subscribed to with subscribe_to$"),
    "nothing": (lambda bus: bus.subscribe(), HandlerTypeError, r"takes a handler, or .* \(0 given\)$"),
    "too much": (lambda bus: bus.subscribe(1, 2, 3, 4), HandlerTypeError, r"\(4 given\)$"),
    "classes one by one": (
        lambda bus: bus.subscribe(Tick, Session, on_tick),
        HandlerTypeError,
        r"\(3 given\); several classes are given as a tuple: subscribe\(\([\w.]*Tick, [\w.]*Session\), [\w.]*on_t",
    ),
    "classes one by one, to decorate": (
        lambda bus: bus.on(Tick, Session),
        HandlerTypeError,
        r"\(2 given\); several classes are given as a tuple: on\(\([\w.]*Tick, [\w.]*Session\)\)$",
    ),
    "a class and a handler, to decorate": (
        lambda bus: bus.on(Tick, on_tick),
        HandlerTypeError,
        r"\(2 given\); both are for subscribe: subscribe\([\w.]*Tick, [\w.]*on_tick\)$",
    ),
    "too much to decorate": (lambda bus: bus.on(1, 2, 3), HandlerTypeError, r"event class or a handler \(3 given\)$"),
    "an id, a class and a handler": (
        lambda bus: bus.subscribe_to(5, Tick, on_tick),
        HandlerTypeError,
        r"\(3 given\); the class is that of the handler's annotation: subscribe_to\(5, [\w.]*on_tick\)$",
    ),
    "an event's class for its id": (
        lambda bus: bus.publish_to(Tick, Tick()),
        TypeIdError,
        r"not class [\w.]*Tick: publish\(event\) finds the id by the event's class$",
    ),
    "a class to decorate for": (
        lambda bus: ringcast.on_type(Tick),
        TypeIdError,
        r"not class [\w.]*Tick: a class is subscribed to with subscribe\([\w.]*Tick, handler\)$",
    ),
    "a class for an id": (
        lambda bus: bus.subscribe_to(Tick, on_tick),
        TypeIdError,
        r"not class [\w.]*Tick: a class is subscribed to with subscribe\([\w.]*Tick, [\w.]*on_tick\)$",
    ),
    "a name for an id": (lambda bus: bus.subscribe_to("tick", on_tick), TypeIdError, r"not 'tick' \(str\)$"),
    "a name for what is let go": (
        lambda bus: bus.off(on_tick, "Tick"),
        TypeIdError,
        r"^off\(\) takes an event class or",
    ),
    "a name for what is found": (lambda bus: bus.subscriptions("Tick"), TypeIdError, r"^subscriptions\(\) takes an ev"),
    "a partial that no call fits": (
        lambda bus: bus.subscribe(Tick, functools.partial(on_tick, 1, 2)),
        HandlerTypeError,
        "on_tick, a partial, cannot be called at all: too many positional arguments",
    ),
    "a partial of an argument that there is not": (
        lambda bus: bus.on(Tick)(functools.partial(on_tick, scale=2)),
        HandlerTypeError,
        "a partial, cannot be called at all: got an unexpected keyword argument 'scale'",
    ),
    "an exception class": (
        lambda bus: bus.subscribe(Tick, ValueError),
        HandlerTypeError,
        "ValueError is an exception class: a call makes an exception, which nobody raises",
    ),
    "a hint for a handler": (
        lambda bus: bus.subscribe(Tick, Optional[Tick]),  # noqa: UP045
        HandlerTypeError,
        "a handler is called with events, and .* is a type hint",
    ),
    "a list of a class for a handler": (
        lambda bus: bus.subscribe_to(5, list[Tick]),
        HandlerTypeError,
        "a handler is called with events, and .* is a type hint",
    ),
    "a union for a handler": (
        lambda bus: bus.subscribe_to(5, Tick | None),
        HandlerTypeError,
        "a handler is a callable, not",
    ),
    "a tuple of classes in an annotation": (
        lambda bus: bus.subscribe(on_tuple),
        HandlerTypeError,
        "which is one tuple: several classes are annotated as a union, First | Second",
    ),
    "Any for a class": (
        lambda bus: bus.subscribe(Any, print),
        EventClassError,
        r"^Any is no event class: subscribe\(object, handler\) is to the events of all classes$",
    ),
    "an abstract class": (
        lambda bus: bus.subscribe(Abstract, print),
        EventClassError,
        r"Abstract is abstract, so its events are those of subclasses: subclasses=True$",
    ),
    "an abstract class of the library among others": (
        lambda bus: bus.on((Tick, Sequence))(print),
        EventClassError,
        "Sequence is abstract, so its events are those of subclasses: subclasses=True",
    ),
    "a TypedDict": (
        lambda bus: bus.subscribe(Row, print),
        EventClassError,
        "Row is a TypedDict: its instances are plain dicts, of class dict",
    ),
    "an event class for a handler": (
        lambda bus: bus.subscribe(Tick, Priced),
        HandlerTypeError,
        r"Priced is an event class, and no handler; several classes are given as a tuple: \(First, [\w.]*Priced\)",
    ),
    "a class that states an id for a handler": (
        lambda bus: bus.subscribe_to(5, Numbered),
        HandlerTypeError,
        "Numbered is an event class, and no handler",
    ),
    "a class for a handler that is let go": (
        lambda bus: bus.off(Tick),
        HandlerTypeError,
        r"Tick is a class, and no handler here. .* bus.subscriptions\([\w.]*Tick\): subscription.cancel\(\)",
    ),
    "a named handler": (
        lambda bus: bus.subscribe(Tick, handler=on_tick),
        OptionError,
        r"^handler= has no name in a call: subscribe\(event_class, handler\)",
    ),
    "a batch of records of a class that is none": (
        lambda bus: bus.subscribe(Tick, on_records, batch=10),
        HandlerTypeError,
        r"takes a RecordBatch, and [\w.]*Tick is no record type: its events come in a list, list\[[\w.]*Tick\]",
    ),
    "a stream outside a loop": (
        lambda bus: bus.stream(Tick),
        OptionError,
        "there is no running event loop: a stream is made in the loop that reads it",
    ),
    "an event for its class": (
        lambda bus: bus.count(Tick()),
        TypeIdError,
        r"^count\(\) takes an event class or a type",
    ),
}


async def read(bus, event_class):
    bus.stream(event_class)


@pytest.mark.parametrize(("subscribe", "error", "words"), NO_HANDLERS.values(), ids=NO_HANDLERS)
def test_a_handler_that_would_not_get_its_event_is_refused(bus, subscribe, error, words):
    with pytest.raises(error, match=words):
        subscribe(bus)
    assert not bus.subscriptions()


def test_what_a_wrapper_fills_does_no_harm_where_the_class_is_named(bus):
    bus.subscribe(Tick, save)
    tick = Tick()
    bus.publish(tick)
    assert bus.wait_idle(DEADLINE)
    assert type(tick.saved_in) is Session


def test_an_id_of_another_class_than_those_of_a_wrapped_function_is_refused(bus):
    def on_session(session: Session) -> None: ...

    bus.subscribe_to(5, on_session)
    with pytest.raises(EventClassError, match=r"is for .*Tick or int"):
        bus.subscribe_to(5, store)


def test_arguments_that_are_passed_on_are_no_parameter_of_that_name(bus):
    assert bus.subscribe(first_of).event_class is Tick


def test_tuples_can_be_events(bus):
    got = []
    assert bus.subscribe(tuple, got.append).event_class is tuple
    assert bus.subscribe(tuple, on_tuple).event_class is tuple
    bus.publish((Tick(), Session()))
    assert bus.wait_idle(DEADLINE)
    assert len(got) == 1


def test_a_class_in_the_place_of_a_handler_says_so_when_it_is_called(bus):
    @bus.on
    class Show:
        def __call__(self, tick: Tick) -> None: ...

    for call in (lambda: Show(), lambda: Show(1, 2), lambda: Show(on_tick, level=1)):
        with pytest.raises(HandlerTypeError, match=r"on\([\w.<>]*Show\) decorates one handler .* with subscribe"):
            call()
    assert not bus.subscriptions()


def test_lists_can_be_events(bus):
    got = []
    bus.subscribe(list, lambda numbers: got.append(numbers))
    bus.subscribe(Tick, on_ticks, batch=2)
    bus.publish([1, 2])
    assert bus.wait_idle(DEADLINE)
    assert got == [[1, 2]]


class Box(Generic[T]):
    pass


class WithoutReferences:
    __slots__ = ()

    def method(self, event) -> None: ...


def test_a_generic_alias_is_no_class(bus):
    for alias in (Box[int], Box[T], list[int]):
        with pytest.raises(EventClassError, match=r"a class, not .*: the instances of all (Box|list)\["):
            bus.subscribe(alias, print)


def test_an_object_without_weak_references_has_no_weak_handler(bus):
    with pytest.raises(OptionError, match=r"WithoutReferences has none: add '__weakref__' to its __slots__"):
        bus.subscribe(Tick, WithoutReferences().method, weak=True)
    assert not bus.subscriptions()


OF_THE_CLASS = {
    "on": lambda: Dispatcher.on(on_tick),
    "on with a class": lambda: Dispatcher.on(Tick),
    "on with an option": lambda: Dispatcher.on(Tick, mode="direct"),
    "subscribe": lambda: Dispatcher.subscribe(on_tick),
    "subscribe with a class": lambda: Dispatcher.subscribe(Tick, on_tick),
    "subscribe_to": lambda: Dispatcher.subscribe_to(5, 6, on_tick),
    "subscribe_native": lambda: Dispatcher.subscribe_native(Tick, Tick, on_tick),
    "off": lambda: Dispatcher.off(on_tick, Tick),
    "subscriptions": lambda: Dispatcher.subscriptions(Tick),
    "count": lambda: Dispatcher.count(Tick, Tick),
    "close": lambda: Dispatcher.close(5),
    "wait_idle": lambda: Dispatcher.wait_idle(5),
    "stats": lambda: Dispatcher.stats(5),
    "stream": lambda: Dispatcher.stream(Tick, Tick),
    "wait_for": lambda: asyncio.run(Dispatcher.wait_for(Tick, Tick)),
    "apublish": lambda: asyncio.run(Dispatcher.apublish(Tick, Tick())),
    "aclose": lambda: asyncio.run(Dispatcher.aclose(5)),
}


@pytest.mark.parametrize("call", OF_THE_CLASS.values(), ids=OF_THE_CLASS)
def test_a_method_of_the_class_is_no_method_of_a_dispatcher(call):
    with pytest.raises(
        HandlerTypeError, match=r"(\w+) is called on a dispatcher, .*: bus = Dispatcher\(\), and then bus"
    ):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Dispatcher.publish(Tick()),
        lambda: Dispatcher.publish_many([Tick()]),
        lambda: Dispatcher.publish_to(5, Tick()),
        lambda: Dispatcher.apublish(Tick()),
        lambda: Dispatcher.stream(Tick),
        lambda: Dispatcher.wait_for(Tick),
        lambda: Dispatcher.off(on_tick),
    ],
)
def test_no_method_of_the_class_is_silent(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("name", "value"),
    [("on_error", print), ("policy", "raise"), ("timing", False), ("exit_timeout", None), ("name", "x")],
)
def test_a_setting_can_be_read_and_is_not_set_afterwards(bus, name, value):
    before = getattr(bus, name)
    with pytest.raises(AttributeError):
        setattr(bus, name, value)
    assert getattr(bus, name) == before


def test_the_settings_are_those_that_were_given(make_bus):
    bus = make_bus(on_error=print, policy="raise", timing=False, exit_timeout=1.5)
    assert (bus.on_error, bus.policy, bus.timing, bus.exit_timeout) == (print, "raise", False, 1.5)
    assert make_bus(on_error="raise").on_error == "raise"


def test_an_abstract_class_with_an_id_or_with_subclasses_has_events(bus):
    class Base(ABC):
        __event_type__ = 0x78

        @abstractmethod
        def method(self): ...

    class Made(Base):
        def method(self): ...

    got = []
    bus.subscribe(Base, got.append)
    bus.subscribe(Abstract, got.append, subclasses=True)
    bus.publish(Made())
    bus.publish(type("Made", (Abstract,), {"method": len})())
    assert bus.wait_idle(DEADLINE)
    assert len(got) == 2


# --- functions in the body of a class ---


class Body:
    def of_instance(self, tick: Tick): ...

    @classmethod
    def of_class(cls, tick: Tick): ...

    @staticmethod
    def of_none(tick: Tick): ...


NO_METHODS = {
    "a function of instances": (vars(Body)["of_instance"], "use the bound method of an instance"),
    "a class method": (vars(Body)["of_class"], "subscribe the method of the class, when the class is made"),
    "its function": (vars(Body)["of_class"].__func__, "subscribe the method of the class, when the class is made"),
}


@pytest.mark.parametrize("handler", NO_METHODS)
def test_what_is_no_method_yet_is_refused_with_what_to_do(bus, handler):
    function, remedy = NO_METHODS[handler]
    for subscribe in (bus.on, bus.subscribe, lambda handler: bus.subscribe(Tick, handler), bus.on(Tick)):
        with pytest.raises(HandlerTypeError, match=f": {remedy}$"):
            subscribe(function)
    for method in (Body().of_instance, Body.of_class, Body.of_none, vars(Body)["of_none"]):
        bus.on(method)
    assert bus.count(Tick) == 4


# --- what a class, a hint or an option says by itself ---


class PlainInt(int):
    def on_tick(self, tick: Tick): ...


@runtime_checkable
class HasPrice(Protocol):
    def price(self) -> float: ...


@runtime_checkable
class HasItem(HasPrice, Protocol):
    item: str


REFUSED_BY_ITSELF = {
    "no weak references": (
        OptionError,
        "PlainInt has none: cancel",
        lambda bus: bus.subscribe(PlainInt().on_tick, weak=True),
    ),
    "RecordBatch without batch=": (
        HandlerTypeError,
        "say how many at most: batch=100$",
        lambda bus: bus.subscribe(on_bare_records),
    ),
    "a closed dispatcher": (ClosedError, "is closed", lambda bus: (bus.close(), bus.on(Tick))),
    "nothing for a closed one": (ClosedError, "is closed", lambda bus: (bus.close(), bus.publish_many([]))),
    "count": (TypeIdError, "instances of all Box.* are of class Box", lambda bus: bus.count(Box[int])),
    "off": (TypeIdError, "instances of all Box.* are of class Box", lambda bus: bus.off(print, Box[int])),
    "a misspelled timeout": (
        EventClassError,
        r"an object and tiemout=: .*; the only option is timeout=$",
        lambda bus: bus.publish(Tick(), tiemout=5),
    ),
}


def on_bare_records(records: ringcast.RecordBatch): ...


@pytest.mark.parametrize("what", REFUSED_BY_ITSELF)
def test_what_cannot_be_meant_is_refused_with_the_reason(bus, what):
    error, words, call = REFUSED_BY_ITSELF[what]
    with pytest.raises(error, match=words):
        call(bus)


def test_a_protocol_with_data_members_is_refused_whatever_was_asked_before(bus):
    bus.subscribe(HasPrice, print)  # after which Python remembers that int is no HasPrice, and so no HasItem
    with pytest.raises(OptionError, match="a protocol must be runtime_checkable, and have methods only"):
        bus.subscribe(HasItem, print)


def test_a_record_type_that_is_defined_again_needs_a_new_dispatcher(bus):
    def cell():
        @ringcast.record
        class Row:
            __event_type__ = 0x5151
            number: int

        Row.__qualname__ = "Row"
        return Row

    first, second = cell(), cell()
    bus.subscribe(first, print)
    for call in (lambda: bus.subscribe(second, print), lambda: bus.publish(second(1))):
        with pytest.raises(EventClassError, match="takes its place in a new dispatcher only: records lie in the queue"):
            call()
    with Dispatcher() as new:
        new.subscribe(second, print)


# --- copies ---


def public_objects(bus):
    yield bus, "each process and each copy makes one"
    yield bus.subscribe(Tick, print), r"its numbers are in stats\(\)"
    yield bus.stream(Tick), "another task calls Dispatcher.stream"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps, lambda one: pickle.dumps(one, 0)])
def test_what_cannot_be_copied_says_what_to_do_instead(bus, duplicate):
    async def main():
        for value, words in public_objects(bus):
            with pytest.raises(TypeError, match=f"a {type(value).__name__} .* not copied or pickled; {words}"):
                duplicate(value)

    asyncio.run(main())


# --- mocks stand for what they were made of ---


def plain_mocks():
    return [Mock(), MagicMock(), Mock(spec=on_tick), MagicMock(spec=on_tick), create_autospec(on_tick)]


def async_mocks():
    specified = [Mock(spec=on_tick_async), MagicMock(spec=on_tick_async), create_autospec(on_tick_async)]
    return [AsyncMock(), AsyncMock(spec=on_tick_async), *specified]


@pytest.mark.parametrize("which", range(len(plain_mocks())))
def test_a_mock_of_a_function_is_a_queued_handler(bus, which):
    mock = plain_mocks()[which]
    assert bus.subscribe(Tick, mock).mode == "queued"
    tick = Tick()
    bus.publish(tick)
    assert bus.wait_idle(DEADLINE)
    mock.assert_called_once_with(tick)


@pytest.mark.parametrize("which", range(len(async_mocks())))
def test_a_mock_of_an_async_function_is_an_asyncio_handler(which):
    mock = async_mocks()[which]

    async def main():
        async with Dispatcher() as bus:
            assert bus.subscribe(Tick, mock).mode == "asyncio"
            tick = Tick()
            bus.publish(tick)
        mock.assert_awaited_once_with(tick)

    asyncio.run(main())


def test_a_mock_with_another_signature_is_refused(bus):
    with pytest.raises(HandlerTypeError, match="needs 2 arguments"):
        bus.subscribe(Tick, create_autospec(lambda one, two: None))
