"""The face of the package: names, arguments, and bad calls, which fail at the call with nothing half done."""

import asyncio
import importlib.metadata
import inspect
import pydoc
import threading
import typing
from dataclasses import dataclass
from unittest.mock import create_autospec

import numpy
import pytest

import ringcast
from ringcast import (
    ClosedError,
    CloseTimeoutError,
    Dispatcher,
    EventClassError,
    HandlerFailure,
    HandlerTypeError,
    OptionError,
    QueueFullError,
    RingcastError,
    StartError,
    TypeIdError,
    _core,
)
from ringcast._core import Core
from ringcast.options import DEFAULTS, HandlerOptions


@dataclass(frozen=True, slots=True)
class Tick:
    __event_type__ = 0x50
    number: int = 0


class Other:
    pass


def on_tick(tick: Tick) -> None:
    pass


# --- the package ---


def test_importing_it_imports_no_asyncio(run_python):
    result = run_python(
        "import sys, ringcast; ringcast.Dispatcher; assert 'asyncio' not in sys.modules; ringcast.Stream"
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_package_exports_its_api():
    names = {
        *["Dispatcher", "Subscription", "HandlerFailure", "on", "on_type", "off", "emit", "default", "type_id"],
        *["RingcastError", "ClosedError", "EventClassError", "HandlerTypeError", "TypeIdError"],
        *["QueueFullError", "CloseTimeoutError", "StartError", "InstallError", "__version__"],
        *["record", "Record", "RecordBatch", "RecordError", "get_include"],
        *[
            "DispatcherStats",
            "Stream",
            "SubscriptionStats",
            "TopicStats",
            "HandlerOptions",
            "OptionError",
            "PublishTimeoutError",
            "LoopBlockedError",
            "LoopClosedError",
            "WaitTimeoutError",
            "StreamError",
        ],
    }
    assert names == set(ringcast.__all__)
    assert all(hasattr(ringcast, name) for name in names)
    assert ringcast.__version__ == importlib.metadata.version("ringcast")


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ClosedError, RuntimeError),
        (EventClassError, TypeError),
        (HandlerTypeError, TypeError),
        (TypeIdError, ValueError),
        (QueueFullError, Exception),
        (CloseTimeoutError, TimeoutError),
        (ringcast.WaitTimeoutError, TimeoutError),
        (StartError, RuntimeError),
        (ringcast.StreamError, RuntimeError),
        (ringcast.InstallError, ImportError),
        (ringcast.InstallError, ValueError),
    ],
)
def test_exceptions_have_one_base_and_a_builtin_one(error, base):
    assert issubclass(error, RingcastError)
    assert issubclass(error, base)
    assert issubclass(RingcastError, Exception)


def test_handler_failure_is_a_named_tuple():
    assert HandlerFailure._fields == ("exception", "event", "subscription")


def test_everything_public_is_documented():
    for name in ringcast.__all__:
        if not name.startswith("__"):
            assert getattr(ringcast, name).__doc__, name
    for public in (ringcast.Dispatcher, ringcast.Subscription):
        for name in dir(public):
            if not name.startswith("_"):
                assert getattr(public, name).__doc__, f"{public.__name__}.{name}"


def test_help_shows_nothing_that_is_for_the_compiler():
    for value in vars(_core).values():
        if isinstance(value, type):
            assert not [name for name in vars(value) if name.startswith("__pyx")], value
    text = pydoc.render_doc(Dispatcher) + pydoc.render_doc(ringcast.Subscription)
    assert "__pyx" not in text


def public_callables():
    yield from ((name, value) for name in ringcast.__all__ if callable(value := getattr(ringcast, name)))
    for owner in (Dispatcher, ringcast.Subscription, ringcast.RecordBatch, ringcast.Stream):
        for name in dir(owner):
            if not name.startswith("_") and callable(value := getattr(owner, name)):
                yield f"{owner.__name__}.{name}", value


@pytest.mark.parametrize(("name", "function"), [pair for pair in public_callables() if not isinstance(pair[1], type)])
def test_every_function_tells_its_signature(name, function):
    inspect.signature(function)
    assert not (inspect.getdoc(function) or "(").startswith(f"{name.rpartition('.')[2]}(")


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("publish", (), {}),
        ("publish", (Tick(1),), {"time_out": 1}),
        ("publish_to", (1,), {}),
        ("publish_many", (), {}),
        ("close", (1, 2), {}),
        ("subscribe_to", (1,), {}),
        ("off", (), {}),
        ("subscribe", (), {}),
        ("subscribe", (Tick, print, print), {}),
        ("subscribe", (Tick, print), {"polcy": "latest"}),
        ("subscribe_to", (1, print, print), {}),
        ("subscribe_to", (1, print), {"handler": print}),
        ("on", (Tick, print), {}),
        ("on", (Tick,), {"batch_size": 1}),
    ],
)
def test_a_signature_refuses_what_the_call_refuses(method, arguments, named):
    with Dispatcher() as bus:
        bound = getattr(bus, method)
        with pytest.raises(TypeError):
            bound(*arguments, **named)
        with pytest.raises(TypeError):
            inspect.signature(bound).bind(*arguments, **named)
        if not hasattr(Core, method):  # unittest.mock looks at the signatures of Python functions only
            with pytest.raises(TypeError):
                getattr(create_autospec(Dispatcher)(), method)(*arguments, **named)


TAKE_OPTIONS = {
    Dispatcher.subscribe: ["self", "event_class_or_handler", "handler"],
    Dispatcher.subscribe_to: ["self", "type_id", "handler"],
    Dispatcher.on: ["self", "event_class_or_handler"],
    ringcast.on_type: ["type_id", "handler"],
}


@pytest.mark.parametrize("function", TAKE_OPTIONS)
def test_what_takes_the_options_of_a_subscription_shows_each_of_them(function):
    parameters = inspect.signature(function).parameters.values()
    assert [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY] == TAKE_OPTIONS[function]
    options = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert options.keys() == {*HandlerOptions.__annotations__, "batch"}
    assert len(parameters) == len(TAKE_OPTIONS[function]) + len(options)
    assert "own_thread=False" in pydoc.render_doc(function)
    assert f"def {function.__name__}(" in inspect.getsource(function)
    assert inspect.signature(function).return_annotation == function.__annotations__["return"]
    with pytest.raises(NotImplementedError):  # what is shown is never called
        function.__wrapped__(*TAKE_OPTIONS[function])
    assert typing.get_type_hints(function).keys() >= {"options", "return"}


@pytest.mark.parametrize("mode", ["queued", "direct", "asyncio"])
def test_to_give_the_default_of_an_option_says_nothing_more(mode):
    async def handle(tick):
        pass

    async def both():
        async with Dispatcher() as bus:
            handler = handle if mode == "asyncio" else print
            return [repr(bus.subscribe(Tick, handler, **{**given, "mode": mode})) for given in ({}, DEFAULTS)]

    plain, explicit = asyncio.run(both())
    assert plain == explicit


@pytest.mark.parametrize("zero", [0, numpy.int64(0), True - 1])
def test_a_default_is_one_of_any_class_of_integers(bus, zero):
    bus.subscribe(Tick, print, priority=zero, concurrency=zero + 1)
    for options in ({"priority": zero + 1}, {"concurrency": zero}, {"concurrency": None}, {"priority": False}):
        with pytest.raises(OptionError, match="does not go with this subscription"):
            bus.subscribe(Tick, print, **options)


# --- the constructor ---


def test_a_dispatcher_has_defaults():
    with Dispatcher() as bus:
        assert bus.max_queue == 50_000
        assert 5 <= bus.max_workers <= 32  # as concurrent.futures has it: min(32, cpus + 4)
        assert bus.name == "ringcast"
        assert bus.closed is False


def test_a_dispatcher_takes_its_settings(make_bus, recorder):
    bus = make_bus(max_queue=7, max_workers=3, on_error=lambda failure: None, name="prices")
    assert (bus.max_queue, bus.max_workers, bus.name) == (7, 3, "prices")
    with bus.subscribe(Tick, recorder):
        bus.publish(Tick())
        names = [thread.name for thread in threading.enumerate()]
        assert any(name.startswith("prices-worker-") for name in names)
    for name in ("max_queue", "max_workers", "name", "closed"):
        with pytest.raises(AttributeError):
            setattr(bus, name, getattr(bus, name))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_queue": 0}, ValueError),
        ({"max_queue": -1}, ValueError),
        ({"max_queue": 2**70}, ValueError),
        ({"max_queue": "10"}, TypeError),
        ({"max_queue": 1.5}, TypeError),
        ({"max_queue": None}, TypeError),
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": "2"}, TypeError),
        ({"max_workers": 2.0}, TypeError),
        ({"on_error": 3}, TypeError),
        ({"name": 3}, TypeError),
        ({"name": b"x"}, TypeError),
        ({"policy": "never"}, ValueError),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_by_name(arguments, error):
    (name,) = arguments
    with pytest.raises(error, match=name):
        Dispatcher(**arguments)


# --- good calls ---


def test_subscribe_takes_the_class_from_the_annotation_or_as_an_argument(bus):
    subscriptions = [
        bus.subscribe(on_tick),
        bus.subscribe(Tick, on_tick),
        bus.subscribe(Tick, lambda tick: None),
        bus.subscribe_to(0x50, on_tick),
    ]
    assert bus.count(Tick) == bus.count(0x50) == 4
    assert {subscription.type_id for subscription in subscriptions} == {0x50}
    assert bus.publish(Tick()) == bus.publish_to(0x50, Tick()) == 4


def test_on_is_a_decorator_bare_and_with_a_class(bus, recorder):
    @bus.on
    def first(tick: Tick) -> None:
        recorder(("first", tick.number))

    @bus.on(Tick)
    def second(tick) -> None:
        recorder(("second", tick.number))

    assert callable(first)
    assert first.__name__ == "first"
    assert second.__name__ == "second"
    assert bus.count(Tick) == 2
    bus.publish(Tick(3))
    assert sorted(recorder.wait_for(2)) == [("first", 3), ("second", 3)]


def test_publish_and_count_tell_how_many_subscriptions_there_are(bus):
    assert bus.publish(Tick()) == bus.count(Tick) == 0
    subscriptions = []
    for number in range(1, 6):
        subscriptions.append(bus.subscribe(on_tick))
        assert bus.publish(Tick()) == bus.count(Tick) == number
    for number in reversed(range(5)):
        subscriptions.pop()()
        assert bus.publish(Tick()) == bus.count(Tick) == number


def test_repr_tells_name_and_state(bus, make_bus, deadline):
    bus = make_bus(name="prices")
    bus.subscribe(on_tick)
    assert "prices" in repr(bus)
    assert "1 subscription" in repr(bus)
    assert "closed" not in repr(bus)
    bus.close(deadline)
    assert "closed" in repr(bus)


# --- bad calls ---


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda bus: bus.subscribe(), TypeError),
        (lambda bus: bus.subscribe(Tick, on_tick, 3), TypeError),
        (lambda bus: bus.subscribe(42), HandlerTypeError),
        (lambda bus: bus.subscribe(None), HandlerTypeError),
        (lambda bus: bus.subscribe(Tick, None), HandlerTypeError),
        (lambda bus: bus.subscribe(Tick, "on_tick"), HandlerTypeError),
        (lambda bus: bus.subscribe("Tick", on_tick), TypeError),
        (lambda bus: bus.subscribe(0x50, on_tick), TypeError),
        (lambda bus: bus.subscribe(Tick(), on_tick), TypeError),
        (lambda bus: bus.subscribe(Other, on_tick), EventClassError),
        (lambda bus: bus.subscribe(lambda tick: None), HandlerTypeError),
        (lambda bus: bus.subscribe(Tick, lambda: None), HandlerTypeError),
        (lambda bus: bus.subscribe(Tick, lambda tick, more: None), HandlerTypeError),
        (lambda bus: bus.subscribe_to(0x50), TypeError),
        (lambda bus: bus.subscribe_to(0x50, None), HandlerTypeError),
        (lambda bus: bus.subscribe_to(-1, on_tick), TypeIdError),
        (lambda bus: bus.subscribe_to(2**32, on_tick), TypeIdError),
        (lambda bus: bus.subscribe_to("80", on_tick), TypeIdError),
        (lambda bus: bus.subscribe_to(True, on_tick), TypeIdError),
        (lambda bus: bus.subscribe_to(None, on_tick), TypeIdError),
        (lambda bus: bus.on(42), HandlerTypeError),
        (lambda bus: bus.on(Tick)(42), HandlerTypeError),
        (lambda bus: bus.publish(), TypeError),
        (lambda bus: bus.publish(Tick(), Tick()), TypeError),
        (lambda bus: bus.publish_to(0x50), TypeError),
        (lambda bus: bus.publish_to(-1, Tick()), TypeIdError),
        (lambda bus: bus.publish_to(2**32, Tick()), TypeIdError),
        (lambda bus: bus.publish_to("80", Tick()), TypeIdError),
        (lambda bus: bus.publish_to(Tick, Tick()), TypeIdError),
        (lambda bus: bus.publish_to(0x50, Other()), EventClassError),
        (lambda bus: bus.count(), TypeError),
        (lambda bus: bus.count(-1), TypeIdError),
        (lambda bus: bus.count(2**32), TypeIdError),
        (lambda bus: bus.count("Tick"), (TypeError, ValueError)),
        (lambda bus: bus.close("soon"), TypeError),
        (lambda bus: bus.close(float("nan")), ValueError),
        (lambda bus: bus.close(-1), ValueError),
    ],
)
def test_a_bad_call_fails_and_changes_nothing(bus, recorder, call, error):
    subscription = bus.subscribe(Tick, recorder)
    with pytest.raises(error):
        call(bus)
    assert not bus.closed
    assert bus.count(Tick) == 1
    assert bus.count(Other) == 0
    assert (subscription.active, subscription.pending, subscription.errors) == (True, 0, 0)
    assert bus.publish(Tick(1)) == 1
    assert recorder.wait_for(1) == [Tick(1)]


def test_a_refused_subscribe_leaves_an_open_id_open(bus, recorder):
    def on_other(event: Other, *, required) -> None:
        pass

    bus.subscribe_to(0x60, recorder)
    with pytest.raises(HandlerTypeError):
        bus.subscribe_to(0x60, on_other)
    assert bus.publish_to(0x60, Tick()) == 1  # it has not been bound to Other


def test_a_refused_subscribe_binds_no_id(bus, recorder):
    first = type("First", (), {"__event_type__": 0x61})
    second = type("Second", (), {"__event_type__": 0x61})
    with pytest.raises(HandlerTypeError):
        bus.subscribe(first, lambda: None)
    bus.subscribe(second, recorder)
    assert bus.publish(second()) == 1


def test_a_refused_call_does_not_start_a_thread(make_bus):
    bus = make_bus(name="refused")
    with pytest.raises(HandlerTypeError):
        bus.subscribe(42)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("refused-")]
