"""The drop-in for pyee: what it promises, and random programs that run the same on it and on pyee itself."""

import asyncio
import contextvars
import copy
import functools
import gc
import importlib
import inspect
import itertools
import pickle
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import DEADLINE

from ringcast.compat import pyee
from ringcast.compat.pyee import EventEmitter, PyeeError, PyeeException
from ringcast.compat.pyee import cls as pyee_cls
from ringcast.compat.pyee.asyncio import AsyncIOEventEmitter
from ringcast.compat.pyee.executor import ExecutorEventEmitter
from ringcast.compat.pyee.uplift import unwrap, uplift

MODULES = ["", ".base", ".asyncio", ".executor", ".cls", ".uplift"]


@pytest.fixture
def emitter():
    return EventEmitter()


@pytest.fixture
def calls():
    return []


def noop(*args, **kwargs):
    pass


def other(*args, **kwargs):
    pass


# --- emit ---------------------------------------------------------------------------------------------------------


def test_listeners_are_called_in_the_order_in_which_they_were_added(emitter, calls):
    for number in range(5):
        emitter.on("event", functools.partial(calls.append, number))
    assert emitter.emit("event") is True
    assert calls == [0, 1, 2, 3, 4]


def test_emit_without_listeners_is_false_and_leaves_no_event_behind(emitter):
    assert emitter.emit("event", 1) is False
    assert emitter.event_names() == set()


@pytest.mark.parametrize("kind", ["function", "method", "builtin", "partial", "object", "class"])
def test_any_callable_gets_all_arguments_as_they_are(emitter, kind):
    got = []

    def function(*args, **kwargs):
        got.append((args, kwargs))

    class Object:
        def __call__(self, *args, **kwargs):
            function(*args, **kwargs)

        method = __call__

    listener = {
        "function": function,
        "method": Object().method,
        "builtin": functools.partial(function).__call__,
        "partial": functools.partial(function),
        "object": Object(),
        "class": type("Class", (), {"__init__": lambda self, *args, **kwargs: function(*args, **kwargs)}),
    }[kind]
    emitter.on("event", listener)
    for args, kwargs in [((), {}), ((1,), {}), ((1, [2]), {}), ((), {"a": 1}), (tuple(range(9)), {"a": 1, "b": 2})]:
        assert emitter.emit("event", *args, **kwargs) is True
        assert got.pop() == (args, kwargs)


def test_each_listener_has_keyword_arguments_of_its_own(emitter, calls):
    def first(**kwargs):
        kwargs["more"] = 2

    emitter.on("event", first)
    emitter.on("event", lambda **kwargs: calls.append(kwargs))
    emitter.emit("event", given=1)
    assert calls == [{"given": 1}]


def test_the_event_may_be_given_by_name_but_once(emitter, calls):
    emitter.on("event", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert emitter.emit(event="event", a=1) is True
    assert calls == [((), {"a": 1})]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'event'"):
        emitter.emit()
    with pytest.raises(TypeError, match="multiple values for argument 'event'"):
        emitter.emit("event", event="event")


def test_an_event_is_any_hashable_object(emitter, calls):
    for event in (None, 3, ("a", 1), EventEmitter):
        emitter.on(event, calls.append)
        assert emitter.emit(event, event)
    assert calls == [None, 3, ("a", 1), EventEmitter]
    with pytest.raises(TypeError, match="unhashable"):
        emitter.emit([])
    with pytest.raises(TypeError, match="unhashable"):
        emitter.on([], noop)


def test_an_exception_leaves_emit_and_the_listeners_after_it_are_not_called(emitter, calls):
    error = ValueError("mine")

    def fail():
        raise error

    emitter.on("event", functools.partial(calls.append, 1))
    emitter.on("event", fail)
    emitter.on("event", functools.partial(calls.append, 2))
    with pytest.raises(ValueError, match="mine") as raised:
        emitter.emit("event")
    assert raised.value is error
    assert calls == [1]


def test_a_listener_that_emits_for_ever_is_a_recursion_error(emitter):
    emitter.on("event", lambda: emitter.emit("event"))
    with pytest.raises(RecursionError):
        emitter.emit("event")


def test_a_listener_that_is_added_by_a_listener_is_called_from_the_next_emit_on(emitter, calls):
    def second():
        calls.append(2)

    def first():
        calls.append(1)
        emitter.on("event", second)

    emitter.on("event", first)
    emitter.emit("event")
    emitter.emit("event")
    assert calls == [1, 1, 2]


@pytest.mark.parametrize("everything", ["remove_listener", "remove_all_listeners", "all events"])
def test_a_listener_that_is_removed_by_a_listener_is_still_called_but_not_one_of_once(emitter, calls, everything):
    def first():
        if everything == "remove_listener":
            emitter.remove_listener("event", second)
            emitter.remove_listener("event", third)
        elif everything == "remove_all_listeners":
            emitter.remove_all_listeners("event")
        else:
            emitter.remove_all_listeners()

    def second():
        calls.append(2)

    def third():
        calls.append(3)

    emitter.once("event", first)
    emitter.on("event", second)
    emitter.once("event", third)
    emitter.emit("event")
    assert calls == [2]
    assert emitter.emit("event") is False


def test_emit_keeps_neither_its_arguments_nor_what_was_removed(emitter):
    class Thing:
        def __call__(self, argument, *, keyword):
            pass

    things = [Thing() for _ in range(4)]
    references = [weakref.ref(thing) for thing in things]
    emitter.on("event", things[0])
    emitter.once("event", things[1])
    emitter.emit("event", things[2], keyword=things[3])
    emitter.remove_listener("event", things[0])
    things.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


# --- adding and removing ------------------------------------------------------------------------------------------


def test_all_ways_of_adding_return_the_listener_itself(emitter):
    for add in (emitter.on, emitter.add_listener, emitter.once):
        assert add("event", noop) is noop
    for decorator in (emitter.on("event"), emitter.listens_to("event"), emitter.once("event")):
        assert decorator(noop) is noop
    assert emitter.listeners("event") == [noop]


def test_a_listener_that_is_added_again_keeps_its_place_and_becomes_what_it_was_added_as_last(emitter, calls):
    def first():
        calls.append(1)

    emitter.on("event", first)
    emitter.on("event", functools.partial(calls.append, 2))
    emitter.once("event", first)
    emitter.emit("event")
    emitter.emit("event")
    assert calls == [1, 2, 2]


def test_bound_methods_that_are_equal_are_one_listener(emitter):
    class Object:
        def method(self):
            pass

    thing = Object()
    emitter.on("event", thing.method)
    emitter.on("event", thing.method)
    assert len(emitter.listeners("event")) == 1
    emitter.remove_listener("event", thing.method)
    assert emitter.event_names() == set()


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
def test_the_emit_of_another_emitter_may_be_a_listener(module, calls):
    kind = importlib.import_module(module).EventEmitter
    emitter, other = kind(), kind()
    other.on("number", calls.append)
    for add in (emitter.on, emitter.once):
        add("event", other.emit)
        add("event", other.emit)
        assert emitter.listeners("event") == [other.emit]
        assert emitter.emit("event", "number", 1)
        if add == emitter.on:
            emitter.remove_listener("event", other.emit)
        assert emitter.event_names() == set()
    assert calls == [1, 1]
    emitter.on("event", other.emit)
    with pytest.raises(KeyError):
        emitter.remove_listener("event", emitter.emit)


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
def test_emit_is_bound_as_a_function_is(module):
    kind = importlib.import_module(module).EventEmitter
    emitter, other = kind(), kind()
    method, function = emitter.emit, kind.emit
    assert inspect.ismethod(method)
    assert inspect.isroutine(function)
    assert (method.__self__, method.__func__) == (emitter, function)
    assert function.__get__(None, kind) is function
    assert method == emitter.emit != other.emit
    assert hash(method) == hash(emitter.emit)
    assert weakref.WeakMethod(method)() == method
    assert (method.__name__, method.__qualname__, vars(function)) == ("emit", "EventEmitter.emit", {})
    assert function.__module__ == f"{module}.base"
    assert repr(function).startswith("<function EventEmitter.emit at ")
    assert list(inspect.signature(method).parameters) == ["event", "args", "kwargs"]
    assert pickle.loads(pickle.dumps(function)) is copy.deepcopy(function) is function
    assert copy.copy(method) == method
    twin = copy.deepcopy(method)
    assert (type(twin.__self__), twin.__func__) == (kind, function)
    assert twin != method
    with mock.patch.object(emitter, "emit", autospec=True) as replaced:
        emitter.emit("event", 1)
        with pytest.raises(TypeError):
            emitter.emit()
    assert replaced.call_args == mock.call("event", 1)


def test_a_bound_emit_can_be_pickled_with_its_emitter(emitter):
    emitter.on("event", noop)
    method = pickle.loads(pickle.dumps(emitter.emit))
    assert method.__self__.listeners("event") == [noop]
    assert method("event") is True


def test_a_copy_of_an_emitter_that_emits_another_has_a_copy_of_the_other(emitter):
    other = Named("a")
    emitter.on("event", other.emit)
    twin = copy.deepcopy(emitter)
    twin.emit("event", "event", 1)
    assert other.heard == []
    assert twin.listeners("event")[0].__self__.heard == [(1,)]


def test_removing_the_last_listener_removes_the_event(emitter):
    emitter.on("event", noop)
    emitter.remove_listener("event", noop)
    assert emitter.event_names() == set()
    assert emitter.emit("event") is False


def test_removing_what_is_not_there_is_a_key_error_only_where_the_event_has_listeners(emitter):
    emitter.remove_listener("event", noop)
    emitter.on("event", other)
    with pytest.raises(KeyError) as raised:
        emitter.remove_listener("event", noop)
    assert raised.value.args == (noop,)
    assert emitter.listeners("event") == [other]


def test_remove_all_listeners_of_one_event_keeps_its_name_and_of_all_events_keeps_nothing(emitter):
    emitter.on("event", noop)
    emitter.on("other", noop)
    emitter.remove_all_listeners("event")
    assert (emitter.event_names(), emitter.listeners("event")) == ({"event", "other"}, [])
    assert emitter.emit("event") is False
    emitter.remove_all_listeners()
    assert emitter.event_names() == set()
    assert emitter.emit("other") is False


def test_a_listener_that_cannot_be_hashed_leaves_nothing_behind(emitter):
    class Listener(list):
        def __call__(self):
            pass

    with pytest.raises(TypeError, match="unhashable"):
        emitter.on("event", Listener())
    assert emitter.event_names() == set()


def test_what_the_queries_return_is_the_callers_own(emitter):
    emitter.on("event", noop)
    emitter.listeners("event").clear()
    emitter.event_names().clear()
    emitter._events["event"].clear()
    assert (emitter.listeners("event"), emitter.event_names()) == ([noop], {"event"})
    assert emitter.emit("event")


def test_a_listener_may_use_the_emitter_while_it_is_compared_and_while_it_is_freed(emitter, calls):
    """The lock is the thread's own: neither waits for itself."""

    class Listener:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            calls.append(emitter.event_names())
            emitter.on("compared", noop)
            return self is other

        def __call__(self):
            pass

        def __del__(self):
            emitter.on("freed", noop)

    emitter.on("event", Listener())
    second = Listener()
    emitter.on("event", second)
    assert emitter.emit("event")
    emitter.remove_listener("event", second)
    assert emitter.emit("event")
    del second
    emitter.remove_all_listeners("event")
    gc.collect()
    assert {"event", "compared", "freed"} <= emitter.event_names()
    assert {"event"} in calls
    assert emitter.emit("event") is False


# --- once ---------------------------------------------------------------------------------------------------------


def test_once_is_removed_before_it_is_called(emitter, calls):
    def listener(depth):
        calls.append((depth, emitter.listeners("event")))
        if depth:
            emitter.emit("event", depth - 1)

    emitter.once("event", listener)
    assert emitter.emit("event", 3) is True
    assert emitter.emit("event", 3) is False
    assert calls == [(3, [])]


def test_once_that_raises_is_removed_all_the_same(emitter):
    emitter.once("event", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        emitter.emit("event")
    assert emitter.emit("event") is False


def test_once_may_add_itself_again(emitter, calls):
    def listener():
        calls.append(1)
        emitter.once("event", listener)

    emitter.once("event", listener)
    emitter.emit("event")
    emitter.emit("event")
    assert calls == [1, 1]


def test_calling_a_listener_of_once_directly_does_not_remove_it(emitter, calls):
    @emitter.once("event")
    def listener():
        calls.append(1)

    listener()
    assert emitter.emit("event")
    assert calls == [1, 1]


ASKED = {
    "name": lambda f: f.__name__,
    "qualified name": lambda f: f.__qualname__,
    "weak reference": lambda f: weakref.ref(f)() is f,
    "parameters": lambda f: [each.kind for each in inspect.signature(f).parameters.values()],
    "attribute": lambda f: (setattr(f, "number", 1), f.number, dict(vars(f))),
    "hash": lambda f: f in {f: 1},
    "wrapped": lambda f: functools.wraps(f)(lambda: None).__name__,
    "updated wrapper": lambda f: (
        functools.update_wrapper(f, other, ["__module__", "__name__", "__qualname__", "__doc__", "__annotations__"])
        is f,
        [getattr(f, name) for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")],
        f.__wrapped__ is other,
        sorted(vars(f)),
    ),
    "module": lambda f: f.__module__.removeprefix("ringcast.compat."),
    "docstring": lambda f: (f.__doc__, setattr(f, "__doc__", "said"), f.__doc__),
    "annotations": lambda f: (f.__annotations__, f.__annotations__ is f.__annotations__),
    "renamed": lambda f: (setattr(f, "__name__", "a"), setattr(f, "__qualname__", "b.a"), f.__name__, f.__qualname__),
    "unwrapped": lambda f: inspect.unwrap(f) is f,
    "coroutine function": lambda f: inspect.iscoroutinefunction(f) or asyncio.iscoroutine(f),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("add", ["on", "once"])
def test_what_is_called_for_a_listener_can_be_asked_the_same_as_with_pyee(asked, add):
    """By an `_emit_run` that logs or counts calls."""
    answers = []
    for module in ("pyee", "ringcast.compat.pyee"):

        class Asking(importlib.import_module(module).EventEmitter):
            def _emit_run(self, f, args, kwargs):
                answers.append(ASKED[asked](f))
                return super()._emit_run(f, args, kwargs)

        emitter = Asking()
        getattr(emitter, add)("event", lambda: answers.append("called"))
        emitter.emit("event")
    assert answers[:2] == answers[2:]
    assert answers[1] == "called"


# --- the events with a meaning ------------------------------------------------------------------------------------


def test_new_listener_is_emitted_before_the_listener_is_there(emitter, calls):
    emitter.on("new_listener", lambda event, listener: calls.append((event, listener, emitter.listeners(event))))
    emitter.on("event", noop)
    emitter.once("event", other)
    assert calls == [("event", noop, []), ("event", other, [noop])]


def test_new_listener_that_raises_prevents_the_listener(emitter):
    def refuse(event, listener):
        raise ValueError(event)

    emitter.on("new_listener", refuse)
    with pytest.raises(ValueError, match="event"):
        emitter.on("event", noop)
    assert emitter.listeners("event") == []


def test_error_without_listeners_raises_the_exception(emitter, calls):
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as raised:
        emitter.emit("error", error)
    assert raised.value is error
    emitter.on("error", calls.append)
    assert emitter.emit("error", error) is True
    assert calls == [error]


@pytest.mark.parametrize("args", [(), ("text",), (3, ValueError()), (KeyboardInterrupt("text"),), (ValueError,)])
def test_error_that_is_no_exception_is_a_pyee_error(emitter, args):
    with pytest.raises(PyeeError, match="Uncaught, unspecified 'error' event: ") as raised:
        emitter.emit("error", *args)
    assert str(raised.value).endswith(f": {args[0] if args else None}")
    assert isinstance(raised.value, PyeeException)


# --- subclasses, and what programs do to a class --------------------------------------------------------------------


def hooked(module, log):
    """A subclass of a module's emitter that logs each method that is called."""

    class Hooked(module.EventEmitter):
        def _add_event_handler(self, event, k, v):
            log("add", event)
            return super()._add_event_handler(event, k, v)

        def _remove_listener(self, event, f):
            log("remove", event)
            return super()._remove_listener(event, f)

        def _call_handlers(self, event, args, kwargs):
            log("call", event, len(args), sorted(kwargs))
            return super()._call_handlers(event, args, kwargs)

        def _emit_run(self, f, args, kwargs):
            log("run", len(args), sorted(kwargs))
            return super()._emit_run(f, args, kwargs)

        def _emit_handle_potential_error(self, event, error):
            log("unheard", event)
            return super()._emit_handle_potential_error(event, error)

        def emit(self, event, *args, **kwargs):
            log("emit", event)
            return super().emit(event, *args, **kwargs)

    return Hooked


def test_each_method_that_a_subclass_overrides_is_called(calls):
    emitter = hooked(pyee, lambda *entry: calls.append(entry))()
    emitter.once("event", noop)
    emitter.emit("event", 1, a=2)
    emitter.emit("event")
    assert [entry[:2] for entry in calls] == [
        ("add", "event"),
        ("emit", "new_listener"),
        ("call", "new_listener"),
        ("unheard", "new_listener"),
        ("emit", "event"),
        ("call", "event"),
        ("run", 1),
        ("remove", "event"),
        ("emit", "event"),
        ("call", "event"),
        ("unheard", "event"),
    ]


def test_what_call_handlers_returns_is_what_emit_returns():
    class Emitter(EventEmitter):
        def _call_handlers(self, event, args, kwargs):
            return event

    assert Emitter().emit("anything") == "anything"


@pytest.mark.parametrize("name", ["_emit_run", "_call_handlers", "_emit_handle_potential_error", "emit"])
@pytest.mark.parametrize("where", ["instance", "class", "subclass", "before __init__", "through __dict__ in a copy"])
def test_a_method_that_is_replaced_at_run_time_is_called(name, where):
    """As unittest.mock does."""

    class Emitter(EventEmitter):
        def __init__(self):
            if where == "before __init__":
                setattr(self, name, replaced)
            super().__init__()

    replaced = mock.Mock(return_value=True)
    emitter = Emitter()
    if name != "_emit_handle_potential_error":
        emitter._events.add("event", noop, noop)
    emitter.emit("event")
    if where == "before __init__":
        assert replaced.called
        return
    if where == "through __dict__ in a copy":
        emitter = copy.copy(emitter)
        emitter.__setstate__({name: replaced})
        emitter.emit("event")
        assert replaced.called
        return
    target = {"instance": emitter, "class": EventEmitter, "subclass": Emitter}[where]
    with mock.patch.object(target, name, replaced):
        emitter.emit("event")
        assert replaced.called
    count = replaced.call_count
    emitter.emit("event")
    assert replaced.call_count == count
    assert name not in vars(emitter)


# A class is one for all threads: pytest-run-parallel would patch EventEmitter in several at once.
test_a_method_that_is_replaced_at_run_time_is_called = pytest.mark.thread_unsafe(
    test_a_method_that_is_replaced_at_run_time_is_called
)


def overrides_by_super(base, name):
    def override(self, *args):
        return getattr(super(kind, self), name)(*args)

    kind = type("Sub", (base,), {name: override})
    return kind


def overrides_by_name(base, name):
    return type("Sub", (base,), {name: lambda self, *args: getattr(base, name)(self, *args)})


def overrides_in_a_mixin(base, name):
    class Mixin:
        pass

    def override(self, *args):
        return getattr(super(Mixin, self), name)(*args)

    setattr(Mixin, name, override)
    return type("Sub", (Mixin, base), {})


def overrides_nothing(base, name):
    return type("Sub", (base,), {})


SUBCLASSES = [overrides_by_super, overrides_by_name, overrides_in_a_mixin, overrides_nothing]


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("name", ["_emit_run", "_call_handlers", "_emit_handle_potential_error", "emit"])
@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_a_method_that_is_replaced_may_call_what_it_has_replaced(module, name, subclass, calls):
    """As tracers do, and mocks with `wraps`; also where a class overrides it and calls `super()`."""
    emitter = subclass(importlib.import_module(module).EventEmitter, name)()
    emitter.on("event", calls.append)
    event = "other" if name == "_emit_handle_potential_error" else "event"
    usual = getattr(emitter, name)
    for put in (functools.partial(setattr, emitter, name), functools.partial(vars(emitter).__setitem__, name)):
        put(replaced := mock.Mock(wraps=usual))
        assert emitter.emit(event, 1) is (event == "event")
        delattr(emitter, name)
        emitter.emit(event, 2)
        assert replaced.call_count == 1
    assert calls == ([1, 2, 1, 2] if event == "event" else [])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("name", ["_emit_run", "_call_handlers"])
def test_super_does_not_see_what_is_replaced_on_the_emitter(module, name, calls):
    base = importlib.import_module(module).EventEmitter

    class Traced(base):
        def usual(self, *args):
            return getattr(super(), name)(*args)

    emitter = Traced()
    emitter.on("event", calls.append)
    setattr(emitter, name, emitter.usual)
    emitter.emit("event", 1)
    assert calls == [1]


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("name", ["_emit_run", "_call_handlers"])
@pytest.mark.thread_unsafe(reason="patches a class")
def test_a_method_that_is_replaced_is_seen_whatever_was_replaced_before(module, name):
    base = importlib.import_module(module).EventEmitter
    emitter = base()
    emitter.on("event", noop)
    before = emitter._events
    with mock.patch.object(base, name):
        setattr(emitter, name, replaced := mock.Mock())
    emitter.emit("event")
    assert replaced.call_count == 1
    delattr(emitter, name)
    emitter.remove_all_listeners()
    setattr(emitter, name, replaced)
    emitter._events = before
    emitter.emit("event")
    assert replaced.call_count == 2


@pytest.mark.parametrize("name", ["_emit_run", "_call_handlers", "_add_event_handler", "on", "once", "listeners"])
def test_the_methods_are_functions_as_with_pyee(name):
    function = getattr(EventEmitter, name)
    assert inspect.isfunction(function)
    assert (function.__name__, function.__qualname__) == (name, f"EventEmitter.{name}")
    with mock.patch.object(EventEmitter, name, autospec=True) as replaced:
        emitter = EventEmitter()
        getattr(emitter, name)(*range(len(inspect.signature(function).parameters) - 1))
    assert replaced.call_args.args[0] is emitter


test_the_methods_are_functions_as_with_pyee = pytest.mark.thread_unsafe(test_the_methods_are_functions_as_with_pyee)


def test_a_class_that_looks_up_its_methods_by_itself_is_asked(calls):
    class Asked(EventEmitter):
        def __getattribute__(self, name):
            if name == "_emit_run":
                return lambda f, args, kwargs: calls.append(args)
            return super().__getattribute__(name)

    class Delegating(EventEmitter):
        def __getattr__(self, name):
            raise AttributeError(name)

    for kind in (Asked, Delegating):
        emitter = kind()
        emitter.on("event", lambda number: calls.append(number))
        emitter.emit("event", 1)
    assert calls == [(1,), 1]


@pytest.mark.parametrize("base", [dict, list, ValueError, threading.Thread])
def test_an_emitter_may_also_be_something_else(base, calls):
    class Both(EventEmitter, base):
        def __init__(self):
            base.__init__(self)
            super().__init__()

        __hash__ = object.__hash__

    both = Both()
    both.on("event", calls.append)
    both.emit("event", 1)
    assert isinstance(both, base)
    assert calls == [1]


def test_an_emitter_that_was_not_initialised_says_so():
    class Emitter(EventEmitter):
        def __init__(self):
            pass

    for use in (lambda emitter: emitter.on("event", noop), lambda emitter: emitter.emit("event")):
        with pytest.raises(AttributeError, match="'Emitter' object has no attribute '_events'"):
            use(Emitter())


def test_initialising_again_removes_all_listeners(emitter):
    emitter.on("event", noop)
    emitter.__init__()
    assert emitter.emit("event") is False


def test_emit_has_a_signature_and_a_docstring():
    assert list(inspect.signature(EventEmitter.emit).parameters) == ["self", "event", "args", "kwargs"]
    assert "Returns:" in inspect.getdoc(EventEmitter.emit)
    assert EventEmitter.emit.__qualname__ == "EventEmitter.emit"


# --- pickle and copy ----------------------------------------------------------------------------------------------


class Named(EventEmitter):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.heard = []
        self.on("event", self.hear)
        self.once("event", other)

    def hear(self, *args):
        self.heard.append(args)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda emitter: pickle.loads(pickle.dumps(emitter))])
def test_a_pickle_or_deep_copy_has_the_attributes_and_listeners_and_is_independent(duplicate):
    original = Named("a")
    twin = duplicate(original)
    assert (type(twin), twin.name) == (Named, "a")
    assert twin.listeners("event") == [twin.hear, other]
    twin.emit("event", 1)
    assert (twin.heard, original.heard) == ([(1,)], [])
    assert twin.listeners("event") == [twin.hear]  # `other` was called once, and removed from where it was called
    assert original.listeners("event") == [original.hear, other]
    assert twin._lock is not original._lock


def test_a_listener_of_once_that_was_renamed_can_be_pickled_and_copied(emitter):
    emitter.once("event", noop)
    call = emitter._events["event"][noop]
    call.__module__ = "somewhere"
    for duplicate in (pickle.loads(pickle.dumps(call)), copy.copy(call)):
        assert (type(duplicate), duplicate.listener) == (type(call), noop)
    assert pickle.loads(pickle.dumps(type(call))) is type(call)


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda events: events.copy()])
def test_listeners_may_be_kept_and_put_back(module, duplicate, calls):
    """As fixtures do that isolate a test."""
    emitter = importlib.import_module(module).EventEmitter()
    listener = functools.partial(print, end="")
    emitter.once("event", noop)
    emitter.on("event", listener)
    kept = duplicate(emitter._events)
    emitter.once("more", noop)
    emitter._events = kept
    assert (len(emitter.listeners("event")), emitter.event_names()) == (2, {"event"})
    assert emitter.emit("event")
    assert len(emitter.listeners("event")) == 1
    assert noop not in emitter.listeners("event")


def test_a_shallow_copy_shares_the_listeners_as_with_pyee(emitter):
    twin = copy.copy(emitter)
    twin.on("event", noop)
    assert emitter.listeners("event") == [noop]
    assert emitter.emit("event")


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
def test_removing_all_listeners_of_an_emitter_leaves_those_of_its_copy(module):
    emitter = importlib.import_module(module).EventEmitter()
    emitter.on("event", noop)
    emitter.on("other", noop)
    twin = copy.copy(emitter)
    twin.remove_all_listeners("other")
    assert emitter.listeners("other") == []
    twin.remove_all_listeners()
    assert (emitter.listeners("event"), twin.listeners("event")) == ([noop], [])
    twin.on("event", other)
    assert (emitter.listeners("event"), twin.listeners("event")) == ([noop], [other])
    assert (emitter.emit("event"), twin.emit("event"), emitter.emit("other")) == (True, True, False)


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("empty", ["remove_all_listeners", "__init__"])
def test_all_listeners_that_were_removed_may_be_put_back(module, empty, calls):
    """As fixtures do that isolate a test."""
    emitter = importlib.import_module(module).EventEmitter()
    emitter.on("event", calls.append)
    emitter.once("event", noop)
    before = emitter._events
    for number in range(2):
        getattr(emitter, empty)()
        assert (emitter.emit("event", "nobody"), emitter.event_names()) == (False, set())
        emitter.once("event", other)
        emitter._events = before
        assert other not in emitter.listeners("event")
        assert emitter.emit("event", number) is True
    assert calls == [0, 1]
    assert emitter.listeners("event") == [calls.append]


def test_a_listener_that_is_added_while_all_are_removed_is_added_before_or_after_it(emitter, spawn):
    start, done = threading.Barrier(3), threading.Event()

    def add(number):
        start.wait(DEADLINE)
        for turn in range(1000):
            listener = functools.partial(noop, turn)
            emitter.on(number, listener)
            emitter.once(number, other)
            assert emitter.listeners(number) in ([listener, other], [other], [listener], [])
            emitter.emit(number)
            emitter.remove_all_listeners(number)
        emitter.on("last", add)
        emitter.on("last", noop)
        return len(emitter.listeners("last"))

    def remove():
        start.wait(DEADLINE)
        while not done.is_set():
            emitter.remove_all_listeners()

    removing = spawn(remove)
    adding = [spawn(add, number) for number in range(2)]
    try:
        assert all(future.result(DEADLINE) <= 2 for future in adding)
    finally:
        done.set()
    removing.result(DEADLINE)
    emitter.on("last", noop)
    assert noop in emitter.listeners("last")
    emitter.remove_all_listeners()
    assert emitter.event_names() == set()


def test_what_all_listeners_are_removed_of_is_freed_without_the_lock(emitter, spawn):
    went_on = []

    class Listener:
        def __call__(self):
            pass

        def __del__(self):
            went_on.append(spawn(emitter.on, "freed", noop).result(DEADLINE))

    for number, remove in enumerate(
        [
            lambda: emitter.remove_all_listeners(),
            lambda: emitter.remove_all_listeners("event"),
            lambda: emitter.remove_listener("event", Equal(None)),
        ]
    ):
        emitter.on("event", Equal(Listener()))
        emitter.emit("event")
        remove()
        gc.collect()
        assert went_on == [noop] * (number + 1)


class Equal:
    """A listener that is equal to all of its class."""

    def __init__(self, kept):
        self.kept = kept

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return True

    def __call__(self):
        pass


def test_the_state_that_pyee_pickles_can_be_loaded():
    emitter = EventEmitter.__new__(EventEmitter)
    emitter.__setstate__({"_events": {"event": OrderedDict([(noop, noop)])}, "name": "a"})
    assert (emitter.listeners("event"), emitter.name) == ([noop], "a")
    assert emitter.emit("event")


def test_the_listeners_look_like_the_dict_that_pyee_has(emitter):
    emitter.on("event", noop)
    events = emitter._events
    assert events == {"event": {noop: noop}}
    assert (list(events), len(events), "event" in events, "other" in events) == (["event"], 1, True, False)
    assert repr(events) == repr({"event": {noop: noop}})
    with pytest.raises(KeyError):
        events["other"]


def test_the_listeners_can_be_looked_at_as_in_a_dict(emitter):
    for event in ("c", "a", "b"):
        emitter.on(event, noop)
    events = emitter._events
    usual = {event: {noop: noop} for event in ("c", "a", "b")}
    assert list(events) == list(events.keys()) == ["c", "a", "b"]
    assert list(events.values()) == list(usual.values())
    assert dict(events.items()) == dict(events) == usual
    assert (events.get("a"), events.get("d"), events.get("d", 1)) == ({noop: noop}, None, 1)
    assert (events.copy(), events | {1: 2}, {1: 2} | events) == (usual, usual | {1: 2}, {1: 2} | usual)
    assert (events | events, list(reversed(events)), type(events.copy())) == (usual, ["b", "a", "c"], dict)
    events.get("a").clear()
    events.copy().clear()
    assert emitter.emit("a")
    with pytest.raises(TypeError, match="unhashable"):
        events.get([])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize(
    "use",
    [
        lambda emitter: emitter.emit("event", 1),
        lambda emitter: emitter.on("event", noop),
        lambda emitter: emitter.once("other", noop),
        lambda emitter: emitter.remove_listener("event", noop),
        lambda emitter: emitter.remove_all_listeners("event"),
        lambda emitter: emitter.listeners("event"),
        lambda emitter: emitter.event_names(),
    ],
)
def test_the_listeners_may_be_replaced_as_a_whole(module, use, calls):
    """As tests do, which begin anew or take the listeners away for a time."""
    emitter = importlib.import_module(module).EventEmitter()

    def heard(number):
        calls.append(number)

    emitter.on("event", noop)
    before = emitter._events
    with mock.patch.object(emitter, "_events", {"event": OrderedDict({noop: noop, heard: heard})}):
        use(emitter)
        emitter.emit("event", 2)
        assert (2 in calls) == (heard in emitter.listeners("event"))
    assert emitter._events is before
    emitter._events = {}
    assert (emitter.emit("event", 3), emitter.event_names(), emitter.listeners("event")) == (False, set(), [])
    emitter.once("event", heard)
    assert (emitter.emit("event", 4), emitter.emit("event", 5)) == (True, False)
    assert calls[-1] == 4


class Lock:
    """A lock of a program, which counts."""

    def __init__(self):
        self.taken = 0

    def __enter__(self):
        self.taken += 1

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("make", [Lock, threading.Lock, threading.RLock])
def test_a_lock_that_the_program_has_assigned_stays(module, make, calls):
    emitter = importlib.import_module(module).EventEmitter()
    lock = emitter._lock = make()
    for use in (
        lambda: emitter.on("event", calls.append),
        lambda: emitter.remove_all_listeners(),
        lambda: setattr(emitter, "_events", {"event": OrderedDict({noop: noop})}),
        lambda: emitter.once("event", calls.append),
        lambda: emitter.emit("event", 1),
        lambda: emitter.remove_all_listeners("event"),
    ):
        use()
        assert emitter._lock is lock
    assert calls == [1]


def test_the_lock_stays_that_of_the_listeners_when_they_are_replaced(emitter):
    """So who holds it keeps others out, also while the listeners are replaced."""
    lock = emitter._lock
    for replace in (emitter.remove_all_listeners, lambda: setattr(emitter, "_events", {"event": {}})):
        replace()
        emitter.on("event", noop)
        assert emitter.listeners("event") == [noop]
        assert emitter._lock is emitter._events.lock is lock
    del emitter._lock
    emitter._events = {}
    emitter.on("event", noop)
    assert emitter._lock.acquire(False)
    emitter._lock.release()


def test_a_method_that_was_replaced_stays_so_when_the_listeners_are_replaced(emitter, calls):
    emitter._emit_run = lambda f, args, kwargs: calls.append(args)
    emitter._events = {"event": {noop: noop}}
    emitter.emit("event", 1)
    assert calls == [(1,)]


# --- asyncio ------------------------------------------------------------------------------------------------------


def in_loop(function):
    """Runs an async test in a loop of its own."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), DEADLINE))

    return run


@in_loop
async def test_a_coroutine_becomes_a_task_that_the_emitter_holds_until_it_is_done(calls):
    emitter = AsyncIOEventEmitter()
    go_on = asyncio.Event()

    @emitter.on("event")
    async def listener(number, *, name):
        calls.append((number, name))
        await go_on.wait()
        calls.append("done")

    assert emitter.complete
    assert emitter.emit("event", 1, name="a") is True
    assert not emitter.complete
    gc.collect()
    await asyncio.sleep(0)
    go_on.set()
    await emitter.wait_for_complete()
    assert calls == [(1, "a"), "done"]
    assert emitter.complete


@in_loop
async def test_a_future_is_waited_for_and_its_exception_is_an_error(calls):
    emitter = AsyncIOEventEmitter()
    future = asyncio.get_running_loop().create_future()
    emitter.on("event", lambda: future)
    emitter.on("error", calls.append)
    emitter.emit("event")
    assert not emitter.complete
    error = ValueError()
    future.set_exception(error)
    await emitter.wait_for_complete()
    assert (calls, emitter.complete) == ([error], True)


@in_loop
async def test_exceptions_of_functions_and_coroutines_are_emitted_as_error(calls):
    emitter = AsyncIOEventEmitter()

    @emitter.on("event")
    def function():
        raise ValueError("function")

    @emitter.on("event")
    async def coroutine():
        raise ValueError("coroutine")

    emitter.on("error", lambda error: calls.append(str(error)))
    assert emitter.emit("event") is True
    assert calls == ["function"]
    await emitter.wait_for_complete()
    assert calls == ["function", "coroutine"]


@in_loop
async def test_without_a_listener_of_error_a_function_raises_and_a_coroutine_is_reported_by_the_loop(calls):
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: calls.append(context["exception"]))
    emitter = AsyncIOEventEmitter()
    error = ValueError()

    @emitter.on("coroutine")
    async def coroutine():
        raise error

    @emitter.on("function")
    def function():
        raise error

    with pytest.raises(ValueError):  # noqa: PT011 - it is that very object
        emitter.emit("function")
    emitter.emit("coroutine")
    await emitter.wait_for_complete()
    assert calls == [error]


@in_loop
async def test_cancel_cancels_the_tasks_lets_go_of_them_and_is_no_error(calls):
    emitter = AsyncIOEventEmitter()

    @emitter.on("event")
    async def listener():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            calls.append("ended")

    emitter.on("error", calls.append)
    emitter.emit("event")
    (task,) = emitter._waiting
    await asyncio.sleep(0)
    emitter.cancel()
    assert emitter.complete
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["ended"]


@in_loop
async def test_a_coroutine_runs_in_a_copy_of_the_context_of_emit(calls):
    variable = contextvars.ContextVar("variable", default=0)
    emitter = AsyncIOEventEmitter()

    @emitter.on("event")
    async def listener():
        await asyncio.sleep(0)
        calls.append(variable.get())
        variable.set(3)

    variable.set(1)
    emitter.emit("event")
    variable.set(2)
    await emitter.wait_for_complete()
    assert (calls, variable.get()) == ([1], 2)


@in_loop
async def test_giving_up_waiting_cancels_no_task(calls):
    emitter = AsyncIOEventEmitter()
    go_on = asyncio.Event()

    @emitter.once("event")
    async def listener():
        await go_on.wait()
        calls.append(1)

    emitter.emit("event")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(emitter.wait_for_complete(), 0)
    go_on.set()
    await emitter.wait_for_complete()
    assert calls == [1]


def test_a_coroutine_without_a_loop_is_an_error_at_the_call_and_is_closed():
    """No coroutine is left that was never awaited: that would be a warning."""
    emitter = AsyncIOEventEmitter()

    @emitter.on("event")
    async def listener():
        pass

    def emit_in_a_thread():
        with pytest.raises(RuntimeError, match=r"no (current|running) event loop"):
            emitter.emit("event")

    thread = threading.Thread(target=emit_in_a_thread)
    thread.start()
    thread.join()
    gc.collect()
    assert emitter.complete


def test_the_tasks_run_in_the_loop_that_is_given(calls):
    loop = asyncio.new_event_loop()
    emitter = AsyncIOEventEmitter(loop=loop)

    @emitter.on("event")
    async def listener():
        calls.append(asyncio.get_running_loop())

    emitter.emit("event")
    loop.run_until_complete(emitter.wait_for_complete())
    loop.close()
    assert calls == [loop]


# --- executors ----------------------------------------------------------------------------------------------------


def test_listeners_run_in_the_executor_and_leaving_the_block_waits_for_them(calls):
    with ExecutorEventEmitter() as emitter:
        emitter.on("event", lambda number, *, name: calls.append((number, name, threading.current_thread())))
        assert emitter.emit("event", 1, name="a") is True
    ((number, name, thread),) = calls
    assert (number, name) == (1, "a")
    assert thread is not threading.current_thread()
    with pytest.raises(RuntimeError, match="after shutdown"):
        emitter.emit("event", 2, name="b")


def test_an_executor_that_is_given_gets_the_listener_and_is_shut_down():
    executor = mock.Mock()
    executor.submit.return_value = Future()
    emitter = ExecutorEventEmitter(executor=executor)
    emitter.on("event", noop)
    emitter.emit("event", 1, a=2)
    emitter.shutdown(wait=False)
    with emitter:
        pass
    assert executor.mock_calls[0] == mock.call.submit(noop, 1, a=2)
    assert executor.shutdown.mock_calls == [mock.call(wait=False), mock.call(wait=True)]


def test_an_exception_in_the_executor_is_an_error_and_a_call_that_is_cancelled_is_none():
    futures = [Future(), Future(), Future()]
    submitted = []

    def submit(listener, *args):
        submitted.append((listener, args))
        return futures[len(submitted) - 1]

    emitter = ExecutorEventEmitter(SimpleNamespace(submit=submit))
    emitter.on("event", noop)
    emitter.on("error", other)
    emitter.emit("event")
    emitter.emit("event")
    futures[0].cancel()
    error = ValueError()
    futures[1].set_exception(error)
    assert submitted == [(noop, ()), (noop, ()), (other, (error,))]


KINDS = {"": "EventEmitter", ".asyncio": "AsyncIOEventEmitter", ".executor": "ExecutorEventEmitter"}


@pytest.mark.parametrize("module", KINDS)
def test_an_emitter_has_no_names_that_pyee_has_not(module):
    """Each would be in the way of a subclass, which may have methods and attributes of any other name."""
    theirs, ours = (
        getattr(importlib.import_module(name + module), KINDS[module])() for name in ("pyee", pyee.__name__)
    )
    assert {name for name in set(dir(ours)) - set(dir(theirs)) if not name.startswith("__")} == set()


@in_loop
async def test_a_subclass_may_use_any_name_for_its_own_purposes(calls):
    names = ("_done", "_set_up", "_adopt", "_report", "_join", "_part", "_on_error")
    attributes = {name: lambda self, *args, name=name: calls.append(name) for name in names}
    emitter = type("Subclass", (AsyncIOEventEmitter,), attributes)()

    @emitter.on("event")
    async def listener():
        raise ValueError

    errors = []
    emitter.on("error", errors.append)
    emitter.emit("event")
    await emitter.wait_for_complete()
    with type("Subclass", (ExecutorEventEmitter,), attributes)() as other:
        other.on("event", lambda: 1 / 0)
        other.on("error", errors.append)
        other.emit("event")
        while len(errors) < 2:
            await asyncio.sleep(0.001)
    copy.copy(emitter)
    assert [type(error) for error in errors] == [ValueError, ZeroDivisionError]
    assert (emitter.complete, calls) == (True, [])


# --- evented classes, and uplift ----------------------------------------------------------------------------------


def test_marked_methods_listen_in_each_instance(calls):
    @pyee_cls.evented
    class Evented:
        def __init__(self, name, *, size=0):
            self.name, self.size = name, size

        @pyee_cls.on("first")
        @pyee_cls.on("second")
        def listener(self, number):
            calls.append((self.name, number))

        def unmarked(self):
            raise AssertionError

    one, two = Evented("one", size=1), Evented("two")
    one.event_emitter.emit("first", 1)
    two.event_emitter.emit("second", 2)
    one.listener(3)
    assert calls == [("one", 1), ("two", 2), ("one", 3)]
    assert (one.size, two.size) == (1, 0)


def test_a_method_that_is_marked_twice_for_an_event_listens_twice(calls):
    for module in (pyee_cls, importlib.import_module("pyee.cls")):

        @module.evented
        class Evented:
            @module.on("event")
            @module.on("event")
            def listener(self, number):
                """A docstring."""
                calls.append(number)

            @module.on("other")
            @classmethod
            def uncallable(cls):
                pass

        emitter = Evented().event_emitter
        emitter.emit("event", 1)
        assert calls == [1, 1]
        assert [each.__doc__ for each in emitter.listeners("event")] == ["A docstring."] * 2
        with pytest.raises(TypeError, match="classmethod"):
            emitter.emit("other")
        calls.clear()


def test_an_evented_class_may_have_an_emitter_of_its_own_and_inherits(calls):
    class Base:
        def __init__(self):
            self.event_emitter = AsyncIOEventEmitter()

    @pyee_cls.evented
    class Evented(Base):
        @pyee_cls.on("event")
        def listener(self):
            calls.append("base")

    @pyee_cls.evented
    class Derived(Evented):
        @pyee_cls.on("event")
        def more(self):
            calls.append("derived")

    derived = Derived()
    assert isinstance(derived.event_emitter, AsyncIOEventEmitter)
    derived.event_emitter.emit("event")
    assert calls == ["base", "derived"]


def test_uplifted_emitters_can_be_parted_in_any_order_and_are_freed(calls):
    base = EventEmitter()
    first, second = uplift(EventEmitter, base), uplift(EventEmitter, base)
    for name, emitter in {"base": base, "first": first, "second": second}.items():
        emitter.on("event", functools.partial(calls.append, name))

    def heard(emitter):
        calls.clear()
        emitter.emit("event")
        return list(calls)

    assert (heard(base), heard(first), heard(second)) == (["base", "second"], ["first", "base"], ["second", "base"])
    unwrap(first)
    assert (heard(base), heard(first), heard(second)) == (["base", "second"], ["first"], ["second", "base"])
    unwrap(base)
    unwrap(base)
    assert (heard(base), heard(first), heard(second)) == (["base"], ["first"], ["second"])
    assert "emit" not in vars(base)
    uplift(EventEmitter, base)
    reference = weakref.ref(base)
    del base, emitter
    gc.collect()
    assert reference() is None


class AtOnce(Executor):
    """Calls in the thread that submits. It cannot be copied, like others."""

    def submit(self, function, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


class Lifted:
    """An emitter, one that it was uplifted to, and what their listeners hear."""

    def __init__(self, module, before=None, other="EventEmitter"):
        self.module = importlib.import_module(f"{module}.uplift")
        self.base = importlib.import_module(module).EventEmitter()
        if before:
            self.base.emit = before
        if other == "ExecutorEventEmitter":
            kind = importlib.import_module(f"{module}.executor").ExecutorEventEmitter
            self.new = self.module.uplift(kind, self.base, "new", "forward", AtOnce())
        else:
            self.new = self.module.uplift(type(self.base), self.base)
        self.heard = []
        self.base.on("event", lambda: self.heard.append("base"))
        self.new.on("event", lambda: self.heard.append("new"))

    def hears(self, emit, *args):
        self.heard.clear()
        return emit("event", *args), list(self.heard)

    def trace(self, emitter):
        """Replace its `emit` as a tracer does."""
        usual = emitter.emit
        emitter.emit = lambda *args, **kwargs: (self.heard.append("traced"), usual(*args, **kwargs))[1]


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("which", ["base", "new"])
@pytest.mark.parametrize("parted", ["base", "new", "not"])
def test_the_emit_of_an_uplifted_emitter_may_be_kept_and_is_a_function(module, which, parted):
    lifted = Lifted(module)
    emitter = getattr(lifted, which)
    kept = emitter.emit
    if parted != "not":
        lifted.module.unwrap(getattr(lifted, parted))
        assert lifted.hears(emitter.emit) == (True, [which])
    assert lifted.hears(kept) == (True, ["base", "new"] if which == "base" else ["new", "base"])
    assert inspect.isfunction(kept)
    assert (kept.__name__, kept.__wrapped__.__name__) == ("emit", "emit")
    assert kept.__doc__ == type(emitter).emit.__doc__
    assert lifted.hears(kept.__wrapped__) == (True, [which])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("traced", ["base", "new", "both"])
@pytest.mark.parametrize("parted", ["base", "new"])
@pytest.mark.parametrize("before", [False, True])
def test_unwrap_parts_emitters_whose_emit_was_replaced_since(module, traced, parted, before):
    called = []
    lifted = Lifted(module, before and (lambda event: called.append(event)))
    for name in ("base", "new"):
        if traced in (name, "both"):
            lifted.trace(getattr(lifted, name))
    for name, heard in (("base", ["base", "new"]), ("new", ["new", "base"])):
        tracer = ["traced"] if traced in (name, "both") else []
        assert lifted.hears(getattr(lifted, name).emit) == (True, tracer + heard)
    lifted.module.unwrap(getattr(lifted, parted))
    assert lifted.hears(lifted.new.emit) == (True, ["new"])
    assert lifted.hears(lifted.base.emit) == ((None, []) if before else (True, ["base"]))
    assert called == ["event"] * before
    lifted.module.unwrap(lifted.base)
    assert not hasattr(lifted.base, "unwrap")
    assert not hasattr(lifted.new, "unwrap")


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
def test_unwrap_parts_emitters_whose_emit_was_deleted_since(module):
    lifted = Lifted(module)
    del lifted.base.emit, lifted.new.emit
    lifted.module.unwrap(lifted.base)
    assert lifted.hears(lifted.base.emit) == (True, ["base"])
    assert lifted.hears(lifted.new.emit) == (True, ["new"])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
def test_a_copy_of_an_uplifted_emitter_does_not_part_it(module):
    lifted = Lifted(module)
    lifted.module.unwrap(copy.copy(lifted.base))
    assert lifted.hears(lifted.base.emit) == (True, ["base", "new"])
    lifted.module.unwrap(lifted.base)
    assert lifted.hears(lifted.base.emit) == (True, ["base"])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize(
    ("which", "duplicate", "other"),
    [
        *itertools.product(["base", "new"], [copy.copy, copy.deepcopy], ["EventEmitter"]),
        ("base", copy.copy, "ExecutorEventEmitter"),
        ("base", copy.deepcopy, "ExecutorEventEmitter"),  # whose executor cannot be copied
        ("new", copy.copy, "ExecutorEventEmitter"),
    ],
)
def test_a_copy_of_an_uplifted_emitter_is_not_linked_and_copies_no_other(module, which, duplicate, other):
    """With pyee the copy has the `emit` of the original, too."""
    lifted = Lifted(module, other=other)
    twin = duplicate(getattr(lifted, which))
    heard = ["base", "new"] if which == "base" else ["new", "base"]
    assert lifted.hears(twin.emit) == lifted.hears(getattr(lifted, which).emit) == (True, heard)
    before = twin.emit
    lifted.module.unwrap(twin)
    assert twin.emit is before
    assert lifted.hears(getattr(lifted, which).emit) == (True, heard)
    again = lifted.module.uplift(type(lifted.base), twin)
    assert again.emit("event") is True
    lifted.module.unwrap(again)
    assert again.emit("event") is False
    lifted.module.unwrap(lifted.base)
    assert lifted.hears(lifted.base.emit) == (True, ["base"])


@pytest.mark.parametrize("module", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("which", ["base", "new"])
def test_the_method_unwrap_warns_as_pyee_does(module, which):
    lifted = Lifted(module)
    with pytest.warns(DeprecationWarning, match=r"Patched ee.unwrap\(\) is deprecated"):
        getattr(lifted, which).unwrap()
    assert lifted.hears(lifted.base.emit) == (True, ["base"])
    assert lifted.hears(lifted.new.emit) == (True, ["new"])


def test_threads_emit_while_emitters_are_uplifted_and_parted(emitter, spawn):
    done = threading.Event()
    emitter.on("event", noop)

    def work():
        while not done.is_set():
            assert emitter.emit("event") is True

    futures = [spawn(work) for _ in range(2)]
    for _ in range(500):
        unwrap(uplift(EventEmitter, emitter))
    done.set()
    for future in futures:
        future.result(DEADLINE)
    assert set(vars(emitter)) == {"_events", "_lock"}


@pytest.mark.parametrize("option", ["error_handling", "proxy_new_listener"])
def test_an_option_of_uplift_that_there_is_not_changes_nothing(emitter, option):
    with pytest.raises(KeyError):
        uplift(EventEmitter, emitter, **{option: "sideways"})
    assert "emit" not in vars(emitter)


# --- threads ------------------------------------------------------------------------------------------------------


def test_threads_that_add_remove_and_emit_at_once_lose_no_listener_and_no_call(emitter, spawn):
    rounds, workers = 300, 4
    start = threading.Barrier(workers)
    heard = [0] * workers

    def work(number):
        def always():
            if threading.current_thread() is mine:
                heard[number] += 1

        mine = threading.current_thread()
        left = []
        start.wait(DEADLINE)
        emitter.on("event", always)
        for turn in range(rounds):
            listener = functools.partial(noop, turn)
            emitter.on("event", listener)
            emitter.emit("event")
            if turn % 50:
                emitter.remove_listener("event", listener)
            else:
                left.append(listener)
            emitter.on(f"other {turn % 3}", noop)
            emitter.remove_all_listeners(f"other {turn % 3}")
        return [always, *left]

    left = [listener for future in [spawn(work, n) for n in range(workers)] for listener in future.result(DEADLINE)]
    assert heard == [rounds] * workers
    listeners = emitter.listeners("event")
    assert len(listeners) == len(left)
    assert set(listeners) == set(left)


def test_of_threads_that_emit_at_once_one_calls_a_listener_of_once(emitter, spawn):
    rounds, workers = 100, 4
    start = threading.Barrier(workers)
    heard = []

    def work(number):
        for turn in range(rounds):
            if number == 0:
                emitter.once("event", functools.partial(heard.append, turn))
            start.wait(DEADLINE)
            emitter.emit("event")
            start.wait(DEADLINE)

    for future in [spawn(work, number) for number in range(workers)]:
        future.result(DEADLINE)
    assert heard == list(range(rounds))
    assert emitter.event_names() == set()


def test_an_emitter_is_initialised_again_while_another_thread_emits(emitter, spawn):
    done = threading.Event()

    def work():
        while not done.is_set():
            emitter.emit("event")

    future = spawn(work)
    for _ in range(1000):
        emitter.on("event", noop)
        emitter.__init__()
    done.set()
    future.result(DEADLINE)
    assert emitter.emit("event") is False


def test_of_threads_that_find_the_listeners_replaced_none_loses_what_another_adds(emitter, spawn):
    workers = 4

    def work(number, start):
        start.wait(DEADLINE)
        emitter.on("event", functools.partial(noop, number))
        return emitter.emit("event", number)

    for _ in range(100):
        emitter._events = {"event": {noop: noop}}
        start = threading.Barrier(workers)
        futures = [spawn(work, number, start) for number in range(workers)]
        assert all(future.result(DEADLINE) for future in futures)
        assert len(emitter.listeners("event")) == workers + 1


def test_what_only_looks_at_listeners_waits_for_nobody(emitter, spawn):
    """As with pyee: a thread that has a lock of the program may ask, while another holds the emitter."""
    emitter.on("event", noop)

    def look():
        events = emitter._events
        return emitter.listeners("event"), emitter.event_names(), events["event"], events.get("event"), list(events)

    with emitter._lock:
        looked = spawn(look).result(DEADLINE)
    assert looked == ([noop], {"event"}, {noop: noop}, {noop: noop}, ["event"])


def test_listeners_in_an_executor_may_change_the_listeners(calls):
    with ExecutorEventEmitter(ThreadPoolExecutor(4)) as emitter:
        emitter.on("error", calls.append)

        def listener(number):
            if number:
                emitter.once("event", functools.partial(listener, number - 1))
                emitter.emit("event")

        emitter.once("event", functools.partial(listener, 20))
        emitter.emit("event")
        while emitter.listeners("event"):
            threading.Event().wait(0.001)
    assert calls == []


# --- beside pyee --------------------------------------------------------------------------------------------------

original = pytest.importorskip("pyee")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_of_pyee_is_here_with_the_same_parameters(module):
    theirs, ours = (importlib.import_module(name + module) for name in ("pyee", "ringcast.compat.pyee"))
    named = {
        name: value
        for name, value in vars(theirs).items()
        if getattr(value, "__module__", None) == theirs.__name__ or name in getattr(theirs, "__all__", ())
    }
    left_out = {"Handlers", "Handler"} if module == ".cls" else set()  # what pyee.cls itself keeps its methods in
    for name in {name for name in named if not name.startswith("_")} - left_out:
        here, there = getattr(ours, name), named[name]
        if inspect.isfunction(there):
            assert parameters(here) == parameters(there), name
        elif inspect.isclass(there):
            assert set(dir(there)) <= set(dir(here)), name
            for method, function in inspect.getmembers(there, inspect.isfunction):
                if not method.startswith("_"):
                    assert parameters(getattr(here, method)) == parameters(function), method


def parameters(function):
    """Names and defaults; `self` of a compiled method is without a name."""
    found = inspect.signature(function).parameters.values()
    return [(each.name, each.default) for each in found]


class Stop(Exception):
    """What a listener raises."""


class Side:
    """A program that runs on pyee or on the drop-in, and a log of all that it could notice."""

    def __init__(self, module, kind, scripts, options):
        self.log = []
        self.scripts = scripts
        self.fuel = 40  # calls of listeners that do something: emits in listeners end
        base = importlib.import_module(f"{module}.base")
        if kind == "hooked":
            self.emitters = [hooked(base, lambda *entry: self.log.append(entry))()]
        elif kind == "asyncio":
            self.emitters = [importlib.import_module(f"{module}.asyncio").AsyncIOEventEmitter()]
        else:
            self.emitters = [base.EventEmitter()]
        if kind == "uplifted":
            module = importlib.import_module(f"{module}.uplift")
            self.emitters.append(module.uplift(base.EventEmitter, self.emitters[0], *options))
            self.unwrap = module.unwrap
        self.listeners = [self.listener(number, kind) for number in range(len(scripts))]

    def listener(self, number, kind):
        def work(args, kwargs):
            self.log.append((number, [self.named(arg) for arg in args], kwargs))
            if self.fuel > 0:
                self.fuel -= 1
                for step in self.scripts[number]:
                    self.step(step, nested=True)

        if kind == "asyncio" and number % 2:

            async def listener(*args, **kwargs):
                await asyncio.sleep(0)
                work(args, kwargs)

        else:

            def listener(*args, **kwargs):
                work(args, kwargs)

        return listener

    def named(self, value):
        """The same on both sides: a listener by its number, an exception by its class and arguments."""
        if value in self.listeners:
            return ("listener", self.listeners.index(value))
        if isinstance(value, BaseException):
            return (type(value).__name__, [self.named(arg) for arg in value.args])
        return value

    def step(self, step, nested=False):
        action, event, number, emitter = step
        emitter = self.emitters[emitter % len(self.emitters)]
        listener = self.listeners[number % len(self.listeners)]
        if action == "raise":
            if nested:
                raise Stop(number)
            return
        steps = {
            "on": lambda: emitter.on(event, listener),
            "add_listener": lambda: emitter.add_listener(event, listener),
            "listens_to": lambda: emitter.listens_to(event)(listener),
            "once": lambda: emitter.once(event, listener),
            "emit": lambda: emitter.emit(event, number),
            "emit by name": lambda: emitter.emit(event, a=number),
            "emit error": lambda: emitter.emit("error", Stop(number)),
            "remove": lambda: emitter.remove_listener(event, listener),
            "remove all": lambda: emitter.remove_all_listeners(event),
            "clear": lambda: emitter.remove_all_listeners(),
            "unwrap": lambda: self.unwrap(emitter) if hasattr(self, "unwrap") else None,
        }
        try:
            result = self.named(steps[action]())
        except Exception as error:
            self.log.append((action, "raised", self.named(error)))
            if nested and number % 2:
                raise
        else:
            self.log.append((action, result))

    async def run(self, program):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.log.append(self.named(context.get("exception"))))
        for step in program:
            self.step(step)
            for emitter in self.emitters:
                while not getattr(emitter, "complete", True):
                    await emitter.wait_for_complete()
            self.log.append(
                [
                    {event: [self.named(each) for each in emitter.listeners(event)] for event in emitter.event_names()}
                    for emitter in self.emitters
                ]
            )
        return self.log


STEPS = st.tuples(
    st.sampled_from(
        [
            *("on", "add_listener", "listens_to", "once", "once", "emit", "emit", "emit by name", "emit error"),
            *("remove", "remove", "remove all", "clear", "raise", "unwrap"),
        ]
    ),
    st.sampled_from(["a", "a", "a", "b", "error", "new_listener"]),
    st.integers(0, 5),
    st.integers(0, 1),
)


@pytest.mark.parametrize("kind", ["plain", "hooked", "asyncio", "uplifted"])
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scripts=st.lists(st.lists(STEPS, max_size=3), min_size=1, max_size=6),
    program=st.lists(STEPS, min_size=1, max_size=25),
    options=st.tuples(
        st.sampled_from(["new", "underlying", "neither"]), st.sampled_from(["forward", "backward", "both", "neither"])
    ),
)
def test_random_programs_make_the_same_calls_with_the_same_results(kind, scripts, program, options):
    theirs, ours = (
        asyncio.run(Side(module, kind, scripts, options).run(program)) for module in ("pyee", "ringcast.compat.pyee")
    )
    assert ours == theirs


def test_a_thread_that_ends_with_a_lock_at_the_end_of_the_program_keeps_nobody_waiting(run_python):
    program = """
import builtins, threading
from MODULE import EventEmitter

class Slow(EventEmitter):
    slow = False

    def __setattr__(self, name, value):
        if Slow.slow and name == "_events":
            inside.set()
            threading.Event().wait()
        super().__setattr__(name, value)

    def __getattribute__(self, name):
        if Slow.slow and name == "_emit_run":  # pyee puts nothing in the place of what is assigned to `_events`
            inside.set()
            threading.Event().wait()
        return super().__getattribute__(name)

inside, slow, other = threading.Event(), Slow(), EventEmitter()
slow._events = {"event": {print: print}}
Slow.slow = True
threading.Thread(target=slow.emit, args=("event",), daemon=True).start()
inside.wait()
other._events = {"event": {print: print}}

class AtEnd:
    def __init__(self):
        self.emitter, self.heard = other, print

    def __del__(self):
        self.emitter.emit("event", "heard")
        self.emitter.on("other", self.heard)
        self.emitter.emit("other", "heard")

builtins.at_end = AtEnd()
"""
    for module in ("pyee", "ringcast.compat.pyee"):
        result = run_python(program.replace("MODULE", module))
        assert (result.stdout, result.stderr) == ("heard\nheard\n", ""), module


# --- import -------------------------------------------------------------------------------------------------------


def test_importing_it_imports_nothing_slow(run_python):
    program = """
import sys
import threading
before = set(sys.modules)
import ringcast.compat.pyee
print(*sorted(set(sys.modules) - before))
from ringcast.compat.pyee import Handler
from ringcast.compat.pyee.base import Handler as same
print(Handler is same, Handler.__name__)
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
    imported, handler = result.stdout.splitlines()
    slow = {"asyncio", "concurrent.futures", "dataclasses", "inspect", "ringcast._core", "typing"}
    assert "ringcast.compat._pyee" in imported.split()
    assert slow.isdisjoint(imported.split())
    assert handler == "True Handler"


def test_install_puts_every_module_in_the_place_of_the_originals(run_python):
    program = """
import ringcast.compat
ringcast.compat.install("pyee")
import importlib
for name in ("", ".asyncio", ".base", ".cls", ".executor", ".uplift"):
    assert importlib.import_module(f"pyee{name}") is importlib.import_module(f"ringcast.compat.pyee{name}")
from pyee.asyncio import AsyncIOEventEmitter
from pyee import EventEmitter
import pyee
print(issubclass(AsyncIOEventEmitter, EventEmitter), pyee)
try:
    import pyee.trio
except ModuleNotFoundError as error:
    print(error)
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
    shown, missing = result.stdout.splitlines()
    assert shown.startswith("True <module 'ringcast.compat.pyee'")
    assert shown.endswith("in place of pyee>")
    assert missing == "No module named 'pyee.trio'"


def test_a_name_that_there_is_not_is_an_attribute_error():
    for module in (pyee, pyee.base):
        with pytest.raises(AttributeError, match="has no attribute 'Emitter'"):
            module.Emitter  # noqa: B018


@pytest.mark.parametrize("module", ["trio", "twisted"])
def test_what_needs_other_libraries_is_not_there(module):
    with pytest.raises(ModuleNotFoundError, match=module):
        importlib.import_module(f"ringcast.compat.pyee.{module}")
