"""What handlers look like and what they take: `ringcast.handlers`.

This module has no ``from __future__ import annotations``: a string annotation here is one that is written as such.
"""

import asyncio
import functools
import gc
import sys
import typing
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
    Optional,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Union,
    runtime_checkable,
)
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

import ringcast
from ringcast import Dispatcher
from ringcast.callables import handler_name
from ringcast.errors import EventClassError, HandlerTypeError
from ringcast.handlers import Accepts, check_accepts, inspect_handler, named_classes, sole_class

T = TypeVar("T")


class Tick:
    pass


class Loud(Tick):
    pass


class Quote:
    pass


class Envelope(Generic[T]):
    pass


Bound = TypeVar("Bound", bound=Tick)
LateBound = TypeVar("LateBound", bound="Tick")
Either = TypeVar("Either", Tick, Quote)
Price = NewType("Price", int)


class Row(TypedDict):
    price: float


class Priced(Protocol):
    price: float


@runtime_checkable
class Sized(Protocol):
    def size(self) -> int: ...


def annotated(annotation: Any) -> Callable[[Any], None]:
    def handler(event: Any) -> None:
        pass

    handler.__annotations__ = {"event": annotation}
    return handler


def look(handler: object) -> Accepts:
    """Inspect as `subscribe` does: with the frame of the function that calls."""
    return inspect_handler(handler, sys._getframe(1))


def on_tick(tick: Tick) -> None:
    pass


def on_tick_string(tick: "Tick") -> None:
    pass


class Service:
    class Inner:
        pass

    def method(self, tick: Tick) -> None:
        pass

    def method_string(self, tick: "Tick") -> None:
        pass

    def of_the_body(self, inner: "Inner") -> None:
        pass

    @classmethod
    def of_the_class(cls, tick: "Tick") -> None:
        pass

    @staticmethod
    def static(tick: "Tick") -> None:
        pass

    def __call__(self, tick: "Tick") -> None:
        pass


class SubService(Service):
    pass


class Built:
    """A class as a handler: its instances are made from events."""

    def __init__(self, tick: "Tick") -> None:
        pass


def two(quote: Quote, tick: "Tick", *, scale: int = 1) -> None:
    pass


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


# The class of the annotation


@pytest.mark.parametrize(
    "handler",
    [
        on_tick,
        on_tick_string,
        Service().method,
        Service().method_string,
        SubService().method_string,
        Service.of_the_class,
        Service().of_the_class,
        Service.static,
        Service.__dict__["static"],
        Service(),
        SubService(),
        Built,
        functools.partial(two, Quote()),
        functools.partial(two, Quote(), scale=2),
        functools.partial(functools.partial(two, scale=2), Quote()),
        functools.partial(Service.method_string, Service()),
        functools.partial(Service().method_string),
        decorated(on_tick),
        decorated(decorated(on_tick_string)),
        decorated(Service().method_string),
        functools.partial(decorated(two), Quote()),
        functools.lru_cache(on_tick_string),
    ],
)
def test_any_kind_of_handler_shows_its_class(handler: object) -> None:
    accepts = inspect_handler(handler)
    assert (accepts.named, accepts.parameter, accepts.objection) == ((Tick,), "'tick'", "")
    assert sole_class(accepts) is Tick


@pytest.mark.parametrize(
    ("annotation", "classes"),
    [
        (Annotated[Tick, "fast"], (Tick,)),
        (Annotated["Tick", "fast"], (Tick,)),
        ("Annotated[Tick, 'fast']", (Tick,)),
        (Envelope[int], (Envelope,)),
        (Envelope["Tick"], (Envelope,)),
        ("Envelope[NoSuchName]", None),
        (dict[str, int], (dict,)),
        (typing.Dict[str, int], (dict,)),  # noqa: UP006
        (type[Tick], (type,)),
        (None, (type(None),)),
        ("'Tick'", (Tick,)),
    ],
)
def test_one_class_in_many_spellings(annotation: object, classes: tuple[type, ...] | None) -> None:
    accepts = look(annotated(annotation))
    assert accepts.classes == classes
    assert accepts.named == (classes or ())


@pytest.mark.parametrize(
    ("annotation", "classes", "why"),
    [
        (Any, None, "every class"),
        (object, None, "every class"),
        ("Any", None, "every class"),
        (Optional[Tick], (Tick, type(None)), "which may be None: leave that out"),  # noqa: UP045
        (Optional["Tick"], (Tick, type(None)), "which may be None: leave that out"),
        (Tick | Quote | None, (Tick, Quote, type(None)), "which may be None: leave that out"),
        (Union[Tick, Envelope[int], Any], None, "where typing.Any is every class"),  # noqa: UP007
        (Tick | T, None, "where ~T is a type variable"),
        (Tick | Price, (Tick, int), "where .*Price is a NewType"),
        ("Tick | Literal['a']", (Tick, str), r"where typing.Literal\['a'\] is not a class"),
        (Union[Tick, Row], (Tick, dict), "where .*Row is a TypedDict"),  # noqa: UP007
        (Union["Priced", Tick], (Priced, Tick), "where .*Priced is a protocol"),
        (T, None, "type variable"),
        (Bound, (Tick,), "type variable"),
        (LateBound, (Tick,), "type variable"),
        (Either, (Tick, Quote), "type variable"),
        (Price, (int,), "NewType"),
        (Literal["a", "b", 1], (str, int), "not a class"),
        (Row, (dict,), "TypedDict"),
        (Priced, (Priced,), "protocol"),
        (5, None, "not a class"),
    ],
)
def test_what_is_not_one_class_is_refused_by_the_implicit_form_only(
    annotation: object, classes: tuple[type, ...] | None, why: str
) -> None:
    accepts = look(annotated(annotation))
    assert accepts.classes == classes
    assert accepts.named == ()
    with pytest.raises(HandlerTypeError, match=rf"parameter 'event' of handler .*{why}.*subscribe\(EventClass"):
        sole_class(accepts)


PlainAlias: TypeAlias = Tick | Quote


@pytest.mark.parametrize(
    ("annotation", "classes"),
    [
        (Union[Tick, Quote], (Tick, Quote)),  # noqa: UP007
        (Tick | Quote, (Tick, Quote)),
        (Quote | Tick, (Quote, Tick)),
        ("Tick | Quote", (Tick, Quote)),
        ("Union['Tick', Quote]", (Tick, Quote)),
        (Union["Tick", "Quote"], (Tick, Quote)),
        (Annotated[Tick | Quote, "fast"], (Tick, Quote)),
        (Annotated["Tick", "fast"] | Quote, (Tick, Quote)),
        (PlainAlias, (Tick, Quote)),
        ("PlainAlias", (Tick, Quote)),
        ("PlainAlias | Envelope[int]", (Tick, Quote, Envelope)),
        (Tick | Envelope[int] | Envelope[str], (Tick, Envelope)),
    ],
)
def test_a_union_names_several_classes(annotation: object, classes: tuple[type, ...]) -> None:
    accepts = look(annotated(annotation))
    assert (accepts.named, accepts.classes, accepts.objection) == (classes, classes, "")
    assert named_classes(accepts) == classes
    with pytest.raises(HandlerTypeError, match=r"parameter 'event' of handler .* is several classes, and a type id"):
        sole_class(accepts)


@pytest.mark.parametrize("annotation", [list[Tick | Quote], "list[Tick | Quote]", Sequence[Union["Tick", Quote]]])
def test_a_list_of_a_union_is_a_batch_of_several_classes(annotation: object) -> None:
    assert inspect_handler(annotated(annotation), batch=True).named == (Tick, Quote)
    with pytest.raises(HandlerTypeError, match="a list of events; say how many at most: batch=100"):
        named_classes(look(annotated("list[Tick | Quote]")))
    with pytest.raises(HandlerTypeError, match="a list of events"):
        named_classes(look(annotated(Tick | list[Tick])))
    with pytest.raises(HandlerTypeError, match=r"annotate it list\[EventClass\]"):
        inspect_handler(annotated(list[Tick] | list[Quote]), batch=True)


def test_a_missing_annotation_is_anything() -> None:
    accepts = look(lambda event: None)
    assert (accepts.classes, accepts.annotation) == (None, "")
    with pytest.raises(HandlerTypeError, match=r"parameter 'event' of handler .*<lambda> has no annotation; "):
        sole_class(accepts)


def test_an_unresolvable_string_is_anything_and_the_implicit_form_names_it() -> None:
    accepts = look(annotated("NoSuchName"))
    assert accepts.classes is None
    with pytest.raises(HandlerTypeError, match=r"parameter 'event' .*'NoSuchName' cannot be resolved \(NameError"):
        sole_class(accepts)


@pytest.mark.parametrize("text", ["", "Tick[", "1 / 0", "Tick.Missing", "(" * 500, "Optional['NoSuchName']"])
def test_an_annotation_that_fails_in_any_way_is_unresolvable(text: str) -> None:
    accepts = look(annotated(text))
    assert accepts.classes is None
    with pytest.raises(HandlerTypeError, match="cannot be resolved"):
        sole_class(accepts)


def test_only_the_annotation_of_the_event_is_evaluated() -> None:
    def handler(tick: "Tick", more: "1 / 0" = 0) -> "no_such_name":  # type: ignore  # noqa: F821
        pass

    assert sole_class(look(handler)) is Tick


def test_variadic_positional_arguments_take_events() -> None:
    def handler(*ticks: "Tick") -> None:
        pass

    assert sole_class(look(handler)) is Tick


@pytest.mark.thread_unsafe(reason="binds an id of the default dispatcher")
def test_every_way_to_subscribe_finds_the_names_of_the_function_that_calls_it() -> None:
    class Local:
        __event_type__ = 0x7E57

    def handler(event: "Local") -> None:
        pass

    with Dispatcher() as bus:
        bus.subscribe(handler)
        bus.subscribe(Local, handler)
        bus.subscribe_to(0x7E57, handler)
        bus.on(handler)
        bus.on(Local)(handler)
        assert bus.count(Local) == 5
    subscription = ringcast.on_type(0x7E57, handler)
    ringcast.on_type(0x7E57)(handler)
    assert subscription.event_class is Local
    for each in ringcast.default._subscriptions():
        each.cancel()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
def test_type_parameters_and_aliases() -> None:
    namespace: dict[str, Any] = {"__name__": __name__, "Tick": Tick, "Envelope": Envelope}
    exec(
        "def bounded[E: Tick](event: E): ...\n"
        "def bounded_string[E: Tick](event: 'E'): ...\n"
        "def unresolved[E: NoSuchName](event: E): ...\n"
        "class Box[E: Tick]:\n"
        "    def method(self, event: 'E'): ...\n"
        "type Alias = Tick\n"
        "type Wide[X] = Envelope[X]\n"
        "type Circle = Circle\n"
        "type Union = Tick | Union\n"
        "type Several = Tick | Envelope[int]\n",
        namespace,
    )
    for handler in (namespace["bounded"], namespace["bounded_string"], namespace["Box"]().method):
        accepts = look(handler)
        assert (accepts.classes, accepts.named) == ((Tick,), ())
    assert "cannot be resolved" in look(namespace["unresolved"]).objection
    assert sole_class(look(annotated(namespace["Alias"]))) is Tick
    assert sole_class(look(annotated(namespace["Wide"][int]))) is Envelope
    assert look(annotated(namespace["Circle"])).classes is None
    assert look(annotated(namespace["Union"])).classes is None
    assert look(annotated(namespace["Several"])).named == (Tick, Envelope)


def test_the_metaclass_of_the_event_class_is_not_asked() -> None:
    class Hostile(type):
        def __getattribute__(cls, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(cls, other: object) -> bool:
            raise AssertionError("compared")

        def __hash__(cls) -> int:
            raise AssertionError("hashed")

    class Event(metaclass=Hostile):
        pass

    for accepts in (look(annotated(Event)), look(annotated("Event"))):
        assert accepts.named[0] is Event
        check_accepts(accepts, Event, 1)


# Names of string annotations


def test_a_class_that_is_local_to_the_subscribing_function() -> None:
    class Local:
        pass

    def handler(event: "Local") -> None:
        pass

    assert sole_class(look(handler)) is Local
    assert [sole_class(look(h)) for h in (handler, handler)] == [Local, Local]


def test_a_local_class_hides_one_of_the_module_for_handlers_written_there() -> None:
    module_tick = Tick

    def subscribe_elsewhere() -> tuple[type | None, type | None]:
        class Tick:
            pass

        def handler(event: "Tick") -> None:
            pass

        return sole_class(look(handler)), sole_class(look(on_tick_string))

    local, of_module = subscribe_elsewhere()
    assert local is not module_tick
    assert of_module is module_tick


def test_a_local_class_that_the_handler_uses_is_found_from_anywhere() -> None:
    def make() -> Callable[[Any], object]:
        class Local:
            pass

        def handler(event: "Local") -> object:
            return Local

        return handler

    handler = make()
    assert sole_class(inspect_handler(handler)) is handler(None)


def test_a_local_class_that_cannot_be_seen_is_unresolvable() -> None:
    def make() -> Callable[[Any], object]:
        class Hidden:
            pass

        def handler(event: "Hidden") -> None:
            pass

        return handler

    assert "'Hidden' cannot be resolved" in look(make()).objection


def test_a_class_of_the_class_body_of_a_method() -> None:
    assert sole_class(look(Service().of_the_body)) is Service.Inner
    assert sole_class(look(SubService().of_the_body)) is Service.Inner


def test_a_string_is_resolved_where_the_wrapped_function_was_written() -> None:
    namespace: dict[str, Any] = {"__name__": "elsewhere", "functools": functools}
    exec(
        "class Tick: pass\n"
        "def foreign(function):\n"
        "    @functools.wraps(function)\n"
        "    def wrapper(tick): return function(tick)\n"
        "    return wrapper\n",
        namespace,
    )
    assert sole_class(look(namespace["foreign"](on_tick_string))) is Tick


def test_a_wrapper_that_adds_an_argument_keeps_the_parameter_of_the_same_name() -> None:
    def with_quote(function: Callable[[Quote, Tick], None]) -> Callable[[Tick], None]:
        @functools.wraps(function)
        def wrapper(tick: Any) -> None:
            function(Quote(), tick)

        return wrapper

    assert sole_class(look(with_quote(two))) is Tick


def test_locals_are_left_alone_when_no_name_asks_for_them() -> None:
    # Up to Python 3.12 a frame that was asked for its locals keeps them alive.
    quote = Quote()
    gone = weakref.ref(quote)
    assert sole_class(look(on_tick_string)) is Tick
    del quote
    gc.collect()
    assert gone() is None


# Whether it can be called


@pytest.mark.parametrize("handler", [None, 1, "handler", Tick(), Service.__dict__["of_the_class"]])
def test_what_is_not_callable_is_refused(handler: object) -> None:
    with pytest.raises(HandlerTypeError, match="a handler is a callable, not "):
        inspect_handler(handler)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda: None, "takes no positional argument"),
        (lambda *, tick: None, "keyword-only parameter 'tick' has no default"),
        (lambda **events: None, "takes no positional argument"),
        (lambda tick, quote: None, r"needs 2 arguments \(tick, quote\).*give parameter 'quote' a default"),
        (lambda tick, *, scale: None, "keyword-only parameter 'scale' has no default"),
        (two, r"needs 2 arguments \(quote, tick\)"),
        (functools.partial(on_tick, Tick()), "takes no positional argument"),
        (functools.partial(on_tick, tick=Tick()), "takes no positional argument"),
        (Service.method, "needs 2 arguments .*bound method of an instance"),
        (functools.wraps(on_tick)(lambda: None), "takes no positional argument"),
    ],
)
def test_what_cannot_be_called_with_one_argument_is_refused(handler: object, message: str) -> None:
    with pytest.raises(HandlerTypeError, match=message):
        inspect_handler(handler)


def test_more_parameters_with_defaults_are_fine() -> None:
    def handler(tick: Tick, scale: int = 1, *rest: int, flag: bool = False, **more: int) -> None:
        pass

    assert sole_class(look(handler)) is Tick


async def coroutine(tick: Tick) -> None:
    pass


async def asynchronous_generator(tick: Tick) -> Any:
    yield tick


def generator(tick: Tick) -> Any:
    yield tick


class AsyncService:
    async def __call__(self, tick: Tick) -> None:
        pass

    async def method(self, tick: Tick) -> None:
        pass


@pytest.mark.parametrize(
    "handler",
    [
        coroutine,
        functools.partial(coroutine),
        functools.partial(functools.partial(coroutine)),
        AsyncService(),
        AsyncService().method,
        functools.partial(AsyncService().method),
        functools.partial(AsyncService()),
        AsyncMock(),
    ],
)
def test_what_a_call_gives_to_await_is_asynchronous(handler: object) -> None:
    assert look(handler).asynchronous


@pytest.mark.parametrize("handler", [asynchronous_generator, generator, functools.partial(generator)])
def test_what_a_call_would_not_run_is_refused(handler: object) -> None:
    with pytest.raises(HandlerTypeError, match="generator function"):
        inspect_handler(handler)


def test_a_plain_function_around_a_coroutine_function_is_fine() -> None:
    @functools.wraps(coroutine)
    def handler(tick: Tick) -> None:
        asyncio.run(coroutine(tick))

    assert sole_class(look(handler)) is Tick
    assert not look(handler).asynchronous


@pytest.mark.parametrize("handler", [[].append, deque(maxlen=1).append, print, int, dict.fromkeys, Mock(), MagicMock()])
def test_built_in_and_mock_handlers_take_anything(handler: object) -> None:
    accepts = inspect_handler(handler)
    assert accepts.classes is None
    with pytest.raises(HandlerTypeError, match=r"subscribe\(EventClass, handler\)"):
        sole_class(accepts)


def test_a_handler_that_wraps_itself_is_inspected_all_the_same() -> None:
    def handler(tick: Tick) -> None:
        pass

    handler.__wrapped__ = handler  # type: ignore[attr-defined]
    assert sole_class(inspect_handler(handler)) is Tick


# Which events it takes


@pytest.mark.parametrize(
    "annotation",
    [Tick, Loud, object, Any, "Tick", "NoSuchName", Tick | None, Quote | Tick, Bound, Priced, Annotated[Tick, 1]],
)
def test_a_handler_takes_its_class_and_those_below(annotation: object) -> None:
    check_accepts(look(annotated(annotation)), Loud, 1)


@pytest.mark.parametrize("annotation", [Loud, Quote, "Quote", Quote | None, Envelope[Tick], Price, Row, Sized])
def test_a_handler_for_another_class_is_refused_with_both_classes_and_the_id(annotation: object) -> None:
    accepts = look(annotated(annotation))
    assert accepts.classes is not None
    with pytest.raises(
        EventClassError,
        match=rf"type id 0x2a has the event class .*Tick; handler .* is for .*{accepts.classes[0].__name__}",
    ):
        check_accepts(accepts, Tick, 42)


def test_virtual_bases_count() -> None:
    class Sizable:
        def size(self) -> int:
            return 0

    check_accepts(look(annotated(Sized)), Sizable, 1)


# Names


def test_handlers_have_readable_names() -> None:
    def nested(event: object) -> None:
        pass

    class Nameless:
        def __call__(self, event: object) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    here = __name__
    for handler, name in [
        (on_tick, f"{here}.on_tick"),
        (nested, f"{here}.test_handlers_have_readable_names.<locals>.nested"),
        (Service().method, f"{here}.Service.method"),
        (Service.of_the_class, f"{here}.Service.of_the_class"),
        (Service(), f"{here}.Service"),
        (Built, f"{here}.Built"),
        (functools.partial(functools.partial(two), Quote()), f"{here}.two"),
        (functools.partial(Service()), f"{here}.Service"),
        (decorated(on_tick), f"{here}.on_tick"),
        ([].append, "list.append"),
        (print, "print"),
        (Nameless(), f"{here}.test_handlers_have_readable_names.<locals>.Nameless"),
    ]:
        assert handler_name(handler) == name
