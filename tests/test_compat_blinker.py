"""`ringcast.compat.blinker`: what it does; that it does what blinker does, in any order of calls; and with threads."""

import asyncio
import copy
import functools
import gc
import importlib
import inspect
import os
import pickle
import subprocess
import sys
import sysconfig
import threading
import weakref
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import blinker as original
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ringcast.compat
import ringcast.compat.blinker as ours
from ringcast import InstallError, RingcastError
from ringcast.compat.blinker import ANY, NamedSignal, Namespace, Signal

# there functions and what they hold may live until a collection
WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Sender:
    """Has weak references, and is the same as itself only."""


class Button:
    """Has a method that is a receiver."""

    def __init__(self) -> None:
        self.pressed = []

    def press(self, sender: object, **keywords: object) -> str:
        self.pressed.append((sender, keywords))
        return "pressed"


def first(sender, **keywords):
    return "first", sender, keywords


def second(sender, **keywords):
    return "second", sender, keywords


async def asynchronous(sender, **keywords):
    return "asynchronous", sender, keywords


# --- sending -----------------------------------------------------------------------------------------------------


def test_a_send_calls_each_receiver_and_returns_what_each_has_returned():
    signal = Signal()
    for receiver in (first, second):
        assert signal.connect(receiver) is receiver
    results = signal.send("sender", number=1)
    assert sorted(results, key=lambda result: result[1][0]) == [
        (first, ("first", "sender", {"number": 1})),
        (second, ("second", "sender", {"number": 1})),
    ]


def test_without_a_sender_receivers_get_none():
    signal = Signal()
    signal.connect(first)
    assert signal.send() == [(first, ("first", None, {}))]
    assert signal.send(number=1) == [(first, ("first", None, {"number": 1}))]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 8, 200])
def test_any_number_of_keywords_goes_through(count):
    keywords = {f"number{at}": at for at in range(count)}
    signal, button = Signal(), Button()
    signal.connect(first)
    signal.connect(button.press)
    assert dict(signal.send(3, **keywords))[first] == ("first", 3, keywords)
    assert button.pressed == [(3, keywords)]


def test_keywords_may_have_the_names_of_parameters():
    signal = Signal()
    signal.connect(first)
    assert signal.send(1, self=2, receiver=3, weak=4) == [(first, ("first", 1, {"self": 2, "receiver": 3, "weak": 4}))]
    with pytest.raises(TypeError, match="sender"):
        signal.send(1, sender=2)


def test_two_senders_are_refused():
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3 were given"):
        Signal().send(1, 2)


def test_what_a_receiver_raises_comes_out_and_the_signal_goes_on_working():
    def fail(sender):
        raise KeyError("mine")

    signal = Signal()
    signal.connect(fail)
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            signal.send()
    signal.disconnect(fail)
    assert signal.send() == []


def test_a_receiver_that_another_disconnects_during_a_send_is_not_called():
    called = []

    def one(sender):
        called.append(1)
        signal.disconnect(other)

    def other(sender):
        called.append(2)
        signal.disconnect(one)

    signal = Signal()
    signal.connect(one)
    signal.connect(other)
    signal.send()
    assert len(called) == 1


def test_a_receiver_that_another_connects_during_a_send_is_called_from_the_next_one_on():
    def connect(sender):
        signal.connect(first)

    signal = Signal()
    signal.connect(connect)
    assert [receiver for receiver, _ in signal.send()] == [connect]
    assert {receiver for receiver, _ in signal.send()} == {connect, first}


def test_a_receiver_may_send_the_same_signal():
    depths = []

    def nest(sender):
        depths.append(sender)
        return signal.send(sender - 1) if sender else []

    signal = Signal()
    signal.connect(nest)
    assert signal.send(3) == [(nest, [(nest, [(nest, [(nest, [])])])])]
    assert depths == [3, 2, 1, 0]


def test_a_subclass_may_say_who_receives():
    class Loud(Signal):
        def receivers_for(self, sender):
            yield first
            yield from super().receivers_for(sender)

    signal = Loud()
    signal.connect(second)
    assert [receiver for receiver, _ in signal.send(1)] == [first, second]


def test_a_muted_signal_calls_nobody():
    signal = Signal()
    signal.connect(first)
    with signal.muted():
        assert signal.is_muted
        assert signal.send() == []
        assert asyncio.run(signal.send_async()) == []
        assert list(signal.receivers_for(None)) == [first]
    assert not signal.is_muted
    assert len(signal.send()) == 1


# --- coroutine functions -----------------------------------------------------------------------------------------


def test_send_async_awaits_coroutine_functions():
    signal = Signal()
    signal.connect(asynchronous)
    assert asyncio.run(signal.send_async("s", number=1)) == [(asynchronous, ("asynchronous", "s", {"number": 1}))]


def test_a_receiver_of_the_other_kind_needs_a_wrapper():
    def to_coroutine_function(function):
        async def call(*arguments, **keywords):
            return ["awaited", function(*arguments, **keywords)]

        return call

    def to_function(function):
        return lambda *arguments, **keywords: ["run", asyncio.run(function(*arguments, **keywords))]

    signal = Signal()
    signal.connect(asynchronous)
    with pytest.raises(RuntimeError, match="asynchronous"):
        signal.send()
    run = ["run", ("asynchronous", 1, {"number": 2})]
    assert signal.send(1, _async_wrapper=to_function, number=2) == [(asynchronous, run)]
    assert signal.send(1, number=2, _async_wrapper=to_function) == [(asynchronous, run)]
    signal.disconnect(asynchronous)
    signal.connect(first)
    with pytest.raises(RuntimeError, match="first"):
        asyncio.run(signal.send_async())
    awaited = ["awaited", ("first", 1, {"number": 2})]
    assert asyncio.run(signal.send_async(1, _sync_wrapper=to_coroutine_function, number=2)) == [(first, awaited)]
    assert signal.send(1, _async_wrapper=to_function) == [(first, ("first", 1, {}))]


def test_coroutine_functions_are_known_in_all_their_forms():
    from functools import partial
    from unittest.mock import AsyncMock

    class Receiver:
        async def method(self, sender):
            return None

    for receiver in (Receiver().method, partial(asynchronous, number=1), AsyncMock()):
        signal = Signal()
        signal.connect(receiver, weak=False)
        with pytest.raises(RuntimeError, match="coroutine function"):
            signal.send()


# --- methods of signals and emitters as receivers ---------------------------------------------------------------


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("weak", [True, False])
def test_a_signal_may_be_sent_by_another(module, weak):
    signal, other, sender = module.Signal(), module.Signal(), Sender()
    other.connect(first)
    signal.connect(other.send, sender, weak=weak)
    signal.connect(other.send, "a", weak=weak)
    assert len(signal.receivers) == 1
    assert signal.send(sender, number=1) == [(other.send, [(first, ("first", sender, {"number": 1}))])]
    assert list(signal.receivers_for("a")) == [other.send]
    signal.disconnect(other.send, sender)
    assert signal.send(sender) == []
    signal.disconnect(other.send)
    assert (signal.send("a"), signal.receivers) == ([], {})
    with signal.connected_to(other.send):
        assert len(signal.send("a")) == 1
    assert signal.send("a") == []


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("weak", [True, False])
def test_a_signal_that_another_sends_is_kept_only_if_that_is_asked_for(module, weak):
    signal, other = module.Signal(), module.Signal()
    signal.connect(other.send, weak=weak)
    reference = weakref.ref(other)
    del other
    gc.collect()
    assert (reference() is None, len(signal.receivers), len(signal.send())) == ((True, 0, 0) if weak else (False, 1, 1))


METHODS = ["send", "receivers_for", "has_receivers_for", "_disconnect", "_clear_state", "_cleanup_bookkeeping"]


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("name", METHODS)
def test_a_bound_method_of_a_signal_is_a_receiver_as_any_other(module, name):
    signal, other = module.Signal(), module.Signal()
    method = getattr(other, name)
    key = (id(getattr(module.Signal, name)), id(other))
    for weak in (True, False):
        signal.connect(getattr(other, name), weak=weak)
        assert (list(signal.receivers), list(signal.receivers_for(None))) == ([key], [method])
        signal.disconnect(getattr(other, name))
        assert signal.receivers == {}
    signal.connect(getattr(other, name), sender=method)
    assert list(signal.receivers_for(getattr(other, name))) == [method]


@pytest.mark.parametrize("module", [ours, original])
def test_the_questions_of_a_signal_may_be_asked_by_another(module):
    signal, asked = module.Signal(), module.Signal()
    asked.connect(first, "a")
    signal.connect(asked.has_receivers_for)
    signal.connect(asked.receivers_for)
    answers = dict(signal.send("a"))
    assert answers[asked.has_receivers_for] is True
    assert list(answers[asked.receivers_for]) == [first]


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_bound_as_blinkers_are(name):
    answers = []
    for module in (original, ours):

        class Subclass(module.Signal):
            def up(self):
                return getattr(super(), name)

        signal = Subclass()
        method, function = getattr(signal, name), getattr(module.Signal, name)
        answers.append(
            (
                inspect.ismethod(method) and inspect.isroutine(function) and not inspect.isbuiltin(method),
                method.__self__ is signal and method.__func__ is function is function.__get__(None, Subclass),
                method == getattr(signal, name) == signal.up() and hash(method) == hash(getattr(signal, name)),
                method != getattr(Subclass(), name),
                weakref.WeakMethod(method)() == method and weakref.ref(function)() is function,
                copy.deepcopy(function) is copy.copy(function) is function,
                pickle.loads(pickle.dumps(function)) is function,
                copy.copy(method) == method,
                (method.__name__, method.__qualname__, function.__name__, function.__qualname__, vars(function)),
                [(each.name, each.kind, each.default) for each in parameters_of(method)],
                inspect.iscoroutinefunction(method),
                repr(function).split(" at ")[0],
                repr(method).split(" of ")[0],
            )
        )
        wrapper = functools.wraps(method)(lambda: None)
        assert (wrapper.__name__, wrapper.__wrapped__) == (name, method)
        assert function.__doc__ == method.__doc__ == wrapper.__doc__
    assert answers[0] == answers[1]
    assert all(answers[0][:8])


def test_a_method_refuses_what_is_no_signal():
    for function in (Signal.send, Signal.receivers_for, Signal._clear_state):
        for arguments in ((), (1,), (Sender(), 2)):
            with pytest.raises(TypeError, match=r"descriptor|argument"):
                function(*arguments)
    with pytest.raises(TypeError, match="positional"):
        Signal().send(1, 2)
    with pytest.raises(TypeError, match="cannot create"):
        type(Signal.send)()


@pytest.mark.parametrize("module", [ours, original])
def test_a_signal_that_sends_itself_is_a_recursion_error(module):
    signal = module.Signal()
    signal.connect(signal.send)
    with pytest.raises(RecursionError):
        signal.send()


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("name", ["send", "receivers_for", "has_receivers_for"])
def test_a_mock_of_a_method_of_one_signal_has_its_signature(module, name):
    signal = module.Signal()
    with mock.patch.object(signal, name, autospec=True) as replaced:
        getattr(signal, name)("a")
        with pytest.raises(TypeError):
            getattr(signal, name)("a", "b")
    assert replaced.call_args == mock.call("a")


@pytest.mark.parametrize("signals", [ours, original])
@pytest.mark.parametrize("emitters", ["pyee", "ringcast.compat.pyee"])
@pytest.mark.parametrize("weak", [True, False])
def test_a_signal_may_be_emitted_by_an_emitter_and_the_other_way(signals, emitters, weak):
    signal, emitter, heard = signals.Signal(), importlib.import_module(emitters).EventEmitter(), []
    emitter.on("a", lambda **keywords: heard.append(keywords))
    signal.connect(emitter.emit, weak=weak)
    assert signal.send("a", number=1) == [(emitter.emit, True)]
    signal.disconnect(emitter.emit)
    assert (signal.send("a"), heard) == ([], [{"number": 1}])
    signal.connect(first)
    emitter.on("b", signal.send)
    emitter.on("b", signal.send)
    assert (emitter.listeners("b"), emitter.emit("b", "a")) == ([signal.send], True)
    emitter.remove_listener("b", signal.send)
    assert emitter.emit("b") is False


# --- senders -----------------------------------------------------------------------------------------------------


def test_a_receiver_for_a_sender_is_called_for_that_one_only():
    signal, sender = Signal(), Sender()
    signal.connect(first, sender)
    assert [len(signal.send(each)) for each in (sender, Sender(), None, ANY)] == [1, 0, 0, 0]


def test_strings_and_integers_are_compared_by_value_and_other_senders_by_identity():
    signal = Signal()
    signal.connect(first, "a string")
    signal.connect(first, 1000)
    equal, same = (1.5, [1]), (2.5, [2])
    signal.connect(first, equal)
    signal.connect(first, same)
    assert len(signal.send("".join(["a ", "string"]))) == 1
    assert len(signal.send(int("1000"))) == 1
    assert len(signal.send((1.5, [1]))) == 0
    assert len(signal.send(same)) == 1


def test_zero_is_a_sender_like_others():
    """With blinker 1.9 connecting for it fails, and leaves the receiver connected to all."""
    signal = Signal()
    signal.connect(first, 0)
    assert (len(signal.send(0)), len(signal.send(False)), len(signal.send(1))) == (1, 1, 0)


def test_a_bound_method_is_the_same_sender_each_time():
    signal, button = Signal(), Button()
    signal.connect(first, button.press)
    assert len(signal.send(button.press)) == 1
    assert len(signal.send(Button().press)) == 0


def test_nothing_is_sent_twice_to_one_receiver():
    signal = Signal()
    for sender in ("a", ANY, "a"):
        signal.connect(first, sender)
    assert len(signal.send("a")) == 1


def test_a_receiver_is_disconnected_from_one_sender_or_from_all():
    signal = Signal()
    for sender in ("a", "b", "c"):
        signal.connect(first, sender)
    signal.disconnect(first, "a")
    assert [len(signal.send(each)) for each in "abc"] == [0, 1, 1]
    signal.disconnect(first)
    assert [len(signal.send(each)) for each in "abc"] == [0, 0, 0]
    assert not signal.receivers


def test_disconnecting_what_is_not_connected_does_nothing():
    signal = Signal()
    signal.connect(first)
    signal.disconnect(second)
    signal.disconnect(second, "a")
    assert len(signal.send("a")) == 1


def test_a_sender_that_is_gone_leaves_nothing_behind():
    signal, sender = Signal(), Sender()
    signal.connect(first, sender)
    signal.connect(second, "a")
    there = weakref.ref(sender)
    assert len(signal.send(sender)) == 1
    del sender
    gc.collect()
    assert there() is None
    assert set(signal._by_sender) == {ANY, "a"}
    assert not signal._weak_senders


def test_it_is_known_who_may_receive():
    signal, sender = Signal(), Sender()
    assert not signal.has_receivers_for(ANY)
    signal.connect(first, sender)
    assert signal.has_receivers_for(sender)
    assert not signal.has_receivers_for(None)
    assert not signal.has_receivers_for(ANY)
    assert list(signal.receivers_for(sender)) == [first]
    assert list(signal.receivers_for(None)) == []
    signal.connect(second)
    assert signal.has_receivers_for(None)
    assert signal.has_receivers_for(ANY)


# --- weak and strong ---------------------------------------------------------------------------------------------


def test_a_receiver_that_is_gone_is_disconnected():
    signal, button = Signal(), Button()
    signal.connect(button.press)
    signal.connect(button.press, "a")
    assert len(signal.send("a")) == 1
    del button
    gc.collect()
    assert not signal.receivers
    assert signal.send("a") == []


def test_a_method_goes_with_its_instance_and_not_with_the_bound_method():
    signal, button = Signal(), Button()
    signal.connect(button.press)
    gc.collect()
    assert signal.send(1, number=2)[0][1] == "pressed"
    assert signal.send(1)[0][0] == button.press
    assert button.pressed == [(1, {"number": 2}), (1, {})]


def test_a_receiver_is_kept_if_that_is_asked_for():
    signal = Signal()
    signal.connect(Button().press, weak=False)
    gc.collect()
    assert len(signal.send()) == 1


def test_what_has_no_weak_references_is_refused_and_nothing_is_connected():
    signal = Signal()
    with pytest.raises(TypeError, match="weak reference"):
        signal.connect([])
    assert not signal.receivers
    assert not signal._by_receiver
    assert not signal.has_receivers_for(None)


def test_a_receiver_may_go_during_a_send():
    signal, called = Signal(), []
    objects = {}

    class Receiver:
        def __init__(self, name):
            self.name = name

        def __call__(self, sender):
            called.append(self.name)
            objects.pop("b" if self.name == "a" else "a", None)

    for name in "ab":
        objects[name] = Receiver(name)
        signal.connect(objects[name])
    signal.send()
    gc.collect()
    assert len(called) == 1
    assert len(signal.receivers) == 1


def test_a_signal_does_not_outlive_its_last_reference():
    signal = Signal()
    signal.connect(first)
    signal.connect(second, Sender())
    signal.send()
    gone = weakref.ref(signal)
    gc.disable()
    try:
        del signal
        assert gone() is None or WITHOUT_GIL
    finally:
        gc.enable()


def test_a_signal_that_keeps_what_keeps_it_is_collected():
    signal, button = Signal(), Button()
    button.signal = signal
    signal.connect(button.press, weak=False)
    signal.connect(signal.send, weak=False)
    signal.send_async(1).close()
    gone = weakref.ref(signal)
    del signal, button
    gc.collect()
    assert gone() is None


# --- contexts, decorators, signals of signals ----------------------------------------------------------------------


def test_a_receiver_is_connected_for_a_block():
    signal = Signal()
    with signal.connected_to(lambda sender: 1, "a"):
        assert [result for _, result in signal.send("a")] == [1]
        assert signal.send("b") == []
    assert not signal.receivers

    def fail():
        with signal.connected_to(first):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not signal.receivers


def test_a_decorator_connects_for_a_sender():
    signal = Signal()

    @signal.connect_via("a")
    def receiver(sender):
        return sender

    name = weakref.ref(receiver)
    del receiver
    gc.collect()
    assert signal.send("a") == [(name(), "a")]
    assert signal.send("b") == []


def test_signals_tell_of_receivers_that_come_and_go():
    signal, told = Signal(), []

    def connected(of, /, **keywords):
        told.append(("connected", of, keywords))

    def disconnected(of, /, **keywords):
        told.append(("disconnected", of, keywords))

    assert not signal.receiver_connected.receivers
    assert signal.receiver_connected is signal.receiver_connected
    signal.receiver_connected.connect(connected)
    signal.receiver_disconnected.connect(disconnected)
    signal.connect(first, "a")
    signal.disconnect(first, "a")
    assert told == [
        ("connected", signal, {"receiver": first, "sender": "a", "weak": True}),
        ("disconnected", signal, {"receiver": first, "sender": "a"}),
    ]


@pytest.mark.parametrize(("raised", "connected"), [(TypeError, False), (ValueError, True)])
def test_a_type_error_of_who_is_told_undoes_the_connection(raised, connected):
    def refuse(of, /, **keywords):
        raise raised

    for module in (ours, original):
        signal = module.Signal()
        signal.receiver_connected.connect(refuse)
        with pytest.raises(raised):
            signal.connect(first)
        assert bool(signal.receivers) is connected, module


# --- names -------------------------------------------------------------------------------------------------------


def test_a_namespace_makes_each_signal_once():
    signals = Namespace()
    saved = signals.signal("saved", doc="A file was saved.")
    assert saved is signals.signal("saved") is signals["saved"]
    assert isinstance(saved, NamedSignal)
    assert (saved.name, saved.__doc__) == ("saved", "A file was saved.")
    assert "'saved'" in repr(saved)
    assert "missing" not in signals


@pytest.mark.parametrize("module", [ours, original])
def test_a_namespace_of_a_subclass_may_keep_its_signals_by_itself(module):
    class Folding(module.Namespace):
        def __contains__(self, name):
            return super().__contains__(name.lower())

        def __getitem__(self, name):
            return super().__getitem__(name.lower())

        def __setitem__(self, name, signal):
            super().__setitem__(name.lower(), signal)

    signals = Folding()
    assert signals.signal("Saved") is signals.signal("saved") is signals["SAVED"]
    assert list(signals) == ["saved"]


def test_there_is_a_namespace_for_the_process():
    assert ours.signal("test-compat-blinker") is ours.default_namespace["test-compat-blinker"]


def test_everything_public_of_blinker_is_here_with_the_same_arguments():
    assert set(original.__all__) <= set(ours.__all__)
    for name in ("Signal", "NamedSignal", "Namespace"):
        theirs, mine = getattr(original, name), getattr(ours, name)
        for public in [each for each in vars(theirs) if not each.startswith("_")]:
            assert hasattr(mine, public), public
            if inspect.isfunction(getattr(theirs, public)):
                parameters = [
                    [(each.name, each.kind, each.default) for each in [*parameters_of(getattr(of, public))][1:]]
                    for of in (theirs, mine)
                ]
                assert str(parameters[0]) == str(parameters[1]), public


def parameters_of(function: Callable[..., object]) -> Iterator[inspect.Parameter]:
    yield from inspect.signature(function).parameters.values()


def test_any_is_one_object_whatever_is_done_to_it():
    assert copy.copy(ANY) is copy.deepcopy([ANY])[0] is ANY is Signal.ANY
    assert all(pickle.loads(pickle.dumps(ANY, protocol)) is ANY for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
    assert repr(ANY) == "ANY"
    assert ANY.name == original.ANY.name


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_has_the_same_receivers_and_goes_its_own_way(make):
    signal, sender = NamedSignal("saved"), Sender()
    signal.connect(first)
    signal.connect(second, sender)
    signal.receiver_connected.connect(second)
    copied = make(signal)
    assert (type(copied), copied.name) == (NamedSignal, "saved")
    assert [receiver for receiver, _ in copied.send(sender)] == [receiver for receiver, _ in signal.send(sender)]
    copied.disconnect(first)
    assert len(signal.send(None)) == 1
    assert copied.send(None) == []
    assert copied.receiver_connected is not signal.receiver_connected


def test_a_signal_cannot_be_pickled_and_says_so():
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(Signal())


@pytest.mark.thread_unsafe(reason="reloads a module")
def test_a_reload_keeps_signals_and_classes():
    named = ours.signal("test-compat-blinker")
    before = dict(vars(ours))
    importlib.reload(ours)
    assert all(getattr(ours, name) is before[name] for name in ours.__all__)
    assert ours.signal("test-compat-blinker") is named


# --- all or nothing ----------------------------------------------------------------------------------------------


def test_a_connect_that_fails_connects_nothing():
    class Full(set):
        full = False

        def add(self, key):
            if Full.full:
                raise MemoryError
            super().add(key)

    class Small(Signal):
        set_class = Full

    signal = Small()
    signal.connect(first, "a")
    Full.full = True
    with pytest.raises(MemoryError):
        signal.connect(second, "a")
    with pytest.raises(MemoryError):
        signal.connect(first, "b", weak=False)
    Full.full = False
    assert [len(signal.send(each)) for each in (None, "a", "b")] == [0, 1, 0]
    assert list(signal.receivers.values()) == [weakref.ref(first)]


def test_without_memory_a_connect_connects_all_or_nothing_and_a_send_goes_on(run_python):
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    program = """
import _testcapi
from ringcast.compat.blinker import Signal

def receiver(sender, **keywords):
    return sender

class Sender: pass

sender, failed = Sender(), 0
for number in range(200):
    for what in ("connect", "send", "disconnect"):
        signal = Signal()
        if what != "connect":
            signal.connect(receiver, sender)
        arguments = (sender,) if what == "send" else (receiver, sender)
        call = getattr(signal, what)
        _testcapi.set_nomemory(number, number + 1)
        try:
            call(*arguments)
            done = True
        except MemoryError:
            done = False
        finally:
            _testcapi.remove_mem_hooks()
        failed += not done
        count = len(signal.send(sender))
        if what == "connect":
            assert count == done, (what, number)
        elif what == "send":
            assert count == 1, (what, number)
        elif done:
            assert count == 0, (what, number)
        signal.disconnect(receiver)
        signal.connect(receiver, sender)
        assert len(signal.send(sender)) == 1
assert failed > 10, failed
print("done")
"""
    result = run_python(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


# --- what programs replace -----------------------------------------------------------------------------------------


def replaced_on_the_instance(module, signal, name, value):
    setattr(signal, name, value.__get__(signal))


def replaced_in_the_dict_of_the_instance(module, signal, name, value):
    vars(signal)[name] = value.__get__(signal)


def replaced_on_its_class(module, signal, name, value):
    setattr(type(signal), name, value)


def replaced_by_another_class(module, signal, name, value):
    signal.__class__ = type("Other", (type(signal),), {name: value})


def replaced_by_getattribute(module, signal, name, value):
    class Other(type(signal)):
        def __getattribute__(self, asked):
            return value.__get__(self) if asked == name else super().__getattribute__(asked)

    signal.__class__ = Other


REPLACED = [
    replaced_on_the_instance,
    replaced_in_the_dict_of_the_instance,
    replaced_on_its_class,
    replaced_by_another_class,
    replaced_by_getattribute,
]


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("replace", REPLACED)
def test_who_receives_may_be_replaced_at_any_time(module, replace):
    """As tracers do, which wrap the receivers of each signal."""

    class Subclass(module.Signal):
        pass

    signal = Subclass()
    signal.connect(first)
    assert [receiver for receiver, _ in signal.send(1)] == [first]
    replace(module, signal, "receivers_for", lambda self, sender: iter([second]))
    assert [receiver for receiver, _ in signal.send(1)] == [second]


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("replace", REPLACED)
def test_how_receivers_are_disconnected_may_be_replaced_at_any_time(module, replace):
    class Subclass(module.Signal):
        pass

    signal, button, seen = Subclass(), Button(), []
    usual = module.Signal._disconnect

    def disconnect(self, receiver_id, sender_id):
        seen.append((receiver_id in self.receivers, sender_id))
        usual(self, receiver_id, sender_id)

    signal.connect(first)
    signal.connect(first, 7)
    signal.connect(button.press)
    replace(module, signal, "_disconnect", disconnect)
    signal.disconnect(first, 7)
    signal.disconnect(first)
    del button
    gc.collect()
    anybody = getattr(importlib.import_module(module.base.__name__), "ANY_ID")  # noqa: B009 - not of the stubs
    assert seen == [(True, 7), (True, anybody), (True, anybody)]
    assert not signal.receivers


@pytest.mark.thread_unsafe(reason="patches a class")
@pytest.mark.parametrize("module", [ours, original])
def test_a_mock_may_stand_for_each_method_and_attribute(module):
    signal = module.Signal()
    signal.connect(first)
    with mock.patch.object(module.Signal, "receivers_for", return_value=[second]):
        assert [receiver for receiver, _ in signal.send(1)] == [second]
    for muted in (True, False):
        signal.is_muted = muted
        with mock.patch.object(signal, "is_muted", not muted):
            assert bool(signal.send(1)) is muted
        assert signal.is_muted is muted
    with mock.patch.object(signal, "receivers", {}):
        assert signal.send(1) == []
        assert not signal.has_receivers_for(1)
    assert [receiver for receiver, _ in signal.send(1)] == [first]
    with mock.patch.object(signal, "send", return_value=[]):
        assert signal.send(1) == []
    assert [receiver for receiver, _ in signal.send(1)] == [first]


@pytest.mark.parametrize("module", [ours, original])
def test_a_subclass_may_say_by_itself_whether_it_is_muted(module):
    class Quiet(module.Signal):
        quiet = False

        @property
        def is_muted(self):
            return self.quiet

        @is_muted.setter
        def is_muted(self, muted):
            self.quiet = muted

    signal = Quiet()
    signal.connect(first)
    assert len(signal.send()) == 1
    signal.quiet = True
    assert signal.send() == []
    assert asyncio.run(signal.send_async()) == []


@pytest.mark.parametrize("module", [ours, original])
def test_an_attribute_that_was_deleted_is_missed_by_a_send(module):
    signal = module.Signal()
    signal.connect(first)
    del signal.is_muted
    for use in (signal.send, lambda: signal.is_muted):
        with pytest.raises(AttributeError, match="is_muted"):
            use()
    signal.is_muted = False
    assert len(signal.send()) == 1
    del signal.receivers
    with pytest.raises(AttributeError, match="receivers"):
        signal.receivers  # noqa: B018


@pytest.mark.parametrize("module", [ours, original])
def test_receivers_may_be_emptied_and_replaced(module):
    """The keys of senders stay: a receiver that comes again is again for its other senders."""
    signal = module.Signal()
    for sender in ("a", "b"):
        signal.connect(first, sender)
    before = signal.receivers
    for empty in (lambda: setattr(signal, "receivers", {}), lambda: signal.receivers.clear()):
        empty()
        assert [len(signal.send(each)) for each in "ab"] == [0, 0]
        signal.connect(first, "a")
        assert [len(signal.send(each)) for each in "ab"] == [1, 1]
    signal.receivers = before
    assert signal.receivers is before
    with pytest.raises(TypeError):
        ours.Signal().receivers = 3


@contextmanager
def by_mock(receivers):
    with mock.patch.dict(receivers, clear=True):
        yield


@contextmanager
def by_clear(receivers):
    before = dict(receivers)
    receivers.clear()
    yield
    receivers.update(before)


@contextmanager
def by_pop(receivers):
    before = {key: receivers.pop(key) for key in list(receivers)}
    yield
    for key, held in before.items():
        receivers[key] = held


TAKEN_OUT = [by_mock, by_clear, by_pop]


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("taken_out", TAKEN_OUT)
def test_receivers_that_are_taken_out_for_a_time_are_called_again_after_it(module, taken_out, weak):
    """As fixtures do that isolate a test; whatever happens meanwhile."""
    meanwhile = {
        "nothing": lambda signal: None,
        "send": lambda signal: signal.send("a"),
        "connect another": lambda signal: (signal.connect(second), signal.send("a")),
        "disconnect another": lambda signal: (signal.disconnect(second), signal.send("a")),
        "ask": lambda signal: (list(signal.receivers_for("a")), signal.has_receivers_for("a")),
        "send async": lambda signal: asyncio.run(signal.send_async("a")),
    }
    for what, do in meanwhile.items():
        signal, button = module.Signal(), Button()
        for sender in (module.ANY, "a"):
            signal.connect(first, sender, weak=weak)
        signal.connect(button.press, "a", weak=weak)
        for _ in range(2):
            for sender, count in (("a", 2), ("b", 1)):
                assert len(signal.send(sender)) == count, what
            with taken_out(signal.receivers):
                do(signal)
                meanwhile_called = [second] if what == "connect another" else []
                assert [receiver for receiver, _ in signal.send("a")] == meanwhile_called, what
            for _ in range(2):
                called = [receiver for receiver, _ in signal.send("a")]
                assert (called.count(first), called.count(button.press)) == (1, 1), what
            signal.disconnect(second)


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("connected", [True, False])
def test_a_receiver_that_takes_the_place_of_another_in_receivers_is_called_in_its_place(module, connected):
    signal = module.Signal()
    signal.connect(first, weak=False)
    (key,) = signal.receivers
    for receiver in (second, weakref.ref(first), first, weakref.ref(second)) * 2:
        signal.receivers[key] = receiver
        if connected:
            signal.connect(asynchronous, "a")
        called = receiver() if isinstance(receiver, weakref.ref) else receiver
        assert [called for called, _ in signal.send()] == [called]


# how what the program does makes blinker let go of a receiver
LET_GO = {
    "assign": lambda signal: setattr(signal, "receivers", {}),
    "delete and assign": lambda signal: (delattr(signal, "receivers"), setattr(signal, "receivers", {})),
    "clear": lambda signal: signal.receivers.clear(),
    "pop": lambda signal: [signal.receivers.pop(key) for key in list(signal.receivers)],
    "replace": lambda signal: signal.receivers.update({key: weakref.ref(first) for key in signal.receivers}),
    "clear and connect": lambda signal: (signal.receivers.clear(), signal.connect(first)),
    "clear the state": lambda signal: signal._clear_state(),
    "initialise": lambda signal: signal.__init__(),
}


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("let_go", LET_GO)
def test_a_receiver_that_is_no_longer_in_receivers_is_not_kept(module, let_go):
    signal, button, keeper = module.Signal(), Button(), Button()
    signal.connect(button.press, weak=False)
    signal.connect(keeper.press, "another", weak=False)
    assert (len(signal.send()), len(signal.send("another"))) == (1, 2)
    gone = weakref.ref(button), weakref.ref(keeper)
    del button, keeper
    LET_GO[let_go](signal)
    signal.send()
    if WITHOUT_GIL and module is ours and let_go in ("assign", "delete and assign", "initialise"):
        del signal  # without the GIL the dict that was there before lives as long as the signal
    gc.collect()
    assert [each() for each in gone] == [None, None]


class Listed:
    """A mapping that is no dict."""

    def __init__(self, items=()):
        self.items_of = list(dict(items).items())

    def get(self, key, default=None):
        return dict(self.items_of).get(key, default)

    def keys(self):
        return dict(self.items_of).keys()

    def items(self):
        return dict(self.items_of).items()

    def __getitem__(self, key):
        return dict(self.items_of)[key]

    def __setitem__(self, key, value):
        self.pop(key, None)
        self.items_of.append((key, value))

    def __len__(self):
        return len(self.items_of)

    def pop(self, key, default=None):
        found = self.get(key, default)
        self.items_of = [item for item in self.items_of if item[0] != key]
        return found

    def clear(self):
        self.items_of.clear()


class Logging(dict):
    """A dict with methods of its own."""

    def __init__(self, items=()):
        super().__init__(items)
        self.asked = []

    def get(self, key, default=None):
        self.asked.append(key)
        return super().get(key, default)

    def __setitem__(self, key, value):
        self.asked.append(key)
        super().__setitem__(key, value)


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("mapping", [OrderedDict, Logging, UserDict, Listed, lambda items=(): defaultdict(list, items)])
def test_receivers_may_be_any_mapping(module, mapping):
    signal, button = module.Signal(), Button()
    signal.connect(first)
    signal.receivers = before = mapping(signal.receivers)
    assert signal.receivers is before
    signal.connect(button.press, "a")
    assert len(before) == 2
    assert [len(signal.send(each)) for each in ("a", "b")] == [2, 1]
    assert len(list(signal.receivers_for("a"))) == 2
    assert signal.has_receivers_for("a")
    if isinstance(before, Logging):
        assert len(before.asked) > 2
    assert list(reversed(before)) == list(before)[::-1] if isinstance(before, OrderedDict) else True
    signal.disconnect(first)
    del button
    gc.collect()
    assert (len(before), signal.send("a"), signal.has_receivers_for("a")) == (0, [], False)
    signal.connect(second)
    if module is ours:
        assert len(copy.copy(signal).send()) == 1
    signal._clear_state()
    assert (len(before), signal.send()) == (0, [])


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("value", [None, [], set(), (), 0, "", False])
def test_receivers_may_be_anything_that_is_false(module, value):
    """As in programs that keep a signal quiet for a time."""
    signal = module.Signal()
    signal.connect(first)
    signal.connect(second, "a")
    before = signal.receivers
    signal.receivers = value
    assert signal.receivers is value
    assert (signal.send("a"), list(signal.receivers_for("a")), signal.has_receivers_for("a")) == ([], [], False)
    with pytest.raises((TypeError, IndexError)):
        signal.connect(asynchronous)
    signal.receivers = before
    assert len(signal.send("a")) == 2
    with mock.patch.object(signal, "receivers", value):
        assert asyncio.run(signal.send_async("a")) == []
        assert (signal.send("a"), signal.has_receivers_for("a")) == ([], False)
    assert [receiver for receiver, _ in signal.send("b")] == [first]
    signal.receivers = value
    signal.receivers = {}
    assert signal.send("a") == []


@pytest.mark.parametrize("value", [None, []])
def test_receivers_that_are_none_are_no_trouble_to_what_goes_or_is_copied(value):
    signal, button = Signal(), Button()
    signal.connect(button.press)
    signal.connect(first)
    before = signal.receivers
    signal.receivers = value
    del button
    gc.collect()
    signal.disconnect(first)
    assert copy.copy(signal).send() == []
    signal.receivers = before
    assert signal.send() == []
    signal.receivers = value
    signal._clear_state()
    signal.__init__()
    signal.connect(second)
    assert len(signal.send()) == 1


@pytest.mark.parametrize("value", [3, [1], "text", {1}])
def test_what_is_no_mapping_cannot_be_assigned_to_receivers(value):
    signal = Signal()
    signal.connect(first)
    with pytest.raises(TypeError, match="has to be a mapping"):
        signal.receivers = value
    assert len(signal.send()) == 1


@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("connected", [True, False])
def test_receivers_that_were_deleted_are_missed_by_all(module, connected):
    signal = module.Signal()
    if connected:
        signal.connect(first)
        signal.send()
    del signal.receivers
    uses = [
        lambda: signal.send(),
        lambda: list(signal.receivers_for(None)),
        lambda: signal.has_receivers_for(None),
        lambda: signal.connect(second),
        lambda: signal.disconnect(first),
    ]
    for use in uses:
        with pytest.raises(AttributeError, match="receivers"):
            use()
    signal.receivers = {}
    signal.connect(second)
    assert [receiver for receiver, _ in signal.send()] == [second]


@pytest.mark.parametrize("module", [ours, original])
def test_initialising_again_disconnects_all(module):
    signal = module.Signal()
    signal.connect(first)
    signal.connect(second, "a")
    signal.is_muted = True
    before = signal.receivers
    signal.__init__()
    assert not signal.is_muted
    assert (signal.send("a"), signal.receivers, signal.has_receivers_for("a")) == ([], {}, False)
    assert len(before) == 2
    signal.connect(first, "a")
    assert [receiver for receiver, _ in signal.send("a")] == [first]


@pytest.mark.parametrize("module", [ours, original])
def test_a_signal_may_choose_its_sets_before_it_is_initialised(module):
    class Ordered(module.Signal):
        def __init__(self):
            self.set_class = InOrder
            super().__init__()

    signal = Ordered()
    receivers = [lambda sender, number=number: number for number in range(20)]
    for sender in (module.ANY, "a"):
        for receiver in receivers:
            signal.connect(receiver, sender)
    assert [number for _, number in signal.send("a")] == list(range(20))
    assert isinstance(signal._by_sender["a"], InOrder)


def test_a_signal_has_no_names_that_blinker_has_not():
    """Each would be in the way of a subclass, which may have methods and attributes of any other name."""
    for name, arguments in (("Signal", ()), ("NamedSignal", ("saved",)), ("Namespace", ())):
        more = set(dir(getattr(ours, name)(*arguments))) - set(dir(getattr(original, name)(*arguments)))
        assert [each for each in more if not each.startswith(("_rc_", "__"))] == []


def test_a_subclass_may_use_any_name_for_its_own_purposes():
    used = []
    names = ("_connect", "_copy_to", "_copied", "_attributes", "_set_up", "_reset", "_plan", "_link", "_wire", "_key")
    attributes = {name: lambda self, *arguments, name=name: used.append(name) for name in names}
    signal = type("Subclass", (Signal,), attributes)()
    signal.connect(first)
    assert len(copy.copy(signal).send()) == len(copy.deepcopy(signal).send()) == len(signal.send()) == 1
    signal.disconnect(first)
    assert (signal.send(), used) == ([], [])


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_has_all_attributes_but_the_signals_of_the_signal(make):
    signal = Signal()
    signal.receiver_limit, signal.limit = 3, 4
    signal.receiver_connected.connect(first)
    signal.receiver_disconnected.connect(first)
    assert vars(make(signal)) == {"receiver_limit": 3, "limit": 4}


# --- in blinker's order, at blinker's time -----------------------------------------------------------------------


@pytest.mark.parametrize("forget", ["_cleanup_bookkeeping", "_clear_state"])
def test_receivers_are_in_blinkers_order_after_the_bookkeeping_is_cleaned_up(forget):
    """A set that was large keeps its room, and with it another order of what comes into it."""
    many = [lambda sender: None for _ in range(5000)]
    few = [lambda sender: None for _ in range(20)]
    orders = []
    for module in (original, ours):
        signal = module.Signal()
        for receiver in many:
            signal.connect(receiver)
        for receiver in many:
            signal.disconnect(receiver)
        getattr(signal, forget)()
        for receiver in few:
            signal.connect(receiver)
        orders.append([few.index(receiver) for receiver, _ in signal.send()])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("module", [ours, original])
def test_a_receiver_is_looked_at_right_before_its_call(module):
    """What one raises when it is asked whether it is a coroutine function does not prevent those before it."""

    class Hostile:
        def __getattr__(self, name):
            raise LookupError(name)

        def __call__(self, sender):
            raise AssertionError

    class Subclass(module.Signal):
        set_class = InOrder

    signal, called, hostile = Subclass(), [], Hostile()
    receiver = called.append
    signal.connect(receiver, weak=False)
    signal.connect(hostile, weak=False)
    with pytest.raises(LookupError):
        signal.send(1)
    assert called == [1]


@pytest.mark.parametrize("module", [ours, original])
def test_a_receiver_of_the_wrong_kind_is_refused_in_blinkers_words(module):
    for receiver, send, words in (
        (asynchronous, lambda signal: signal.send(), "Cannot send to a coroutine function"),
        (first, lambda signal: asyncio.run(signal.send_async()), "Cannot send to a non-coroutine function"),
    ):
        signal = module.Signal()
        signal.connect(receiver)
        with pytest.raises(RuntimeError, match=words):
            send(signal)


def test_a_send_at_the_end_of_the_program_calls_its_receivers(run_python):
    """Nothing can be imported then."""
    result = run_python("""
import builtins
from functools import partial
from ringcast.compat.blinker import Signal

def function(sender):
    return "function"

signal, late = Signal(), Signal()
with_attributes = partial(function)
function.attribute = 1
signal.connect(function)
signal.connect(with_attributes)

def plain(sender):
    return "plain"

late.connect(plain)
plain.attribute = 1

class AtEnd:
    def __init__(self):
        self.signals, self.kept = (signal, late), (function, with_attributes, plain)

    def __del__(self):
        for signal in self.signals:
            print(sorted(result for _, result in signal.send()))

builtins.at_end = AtEnd()
""")
    assert (result.returncode, result.stdout, result.stderr) == (0, "['function', 'function']\n['plain']\n", "")


def test_one_link_to_a_receiver_serves_all_senders():
    signal = Signal()
    receivers = [lambda sender: None for _ in range(30)]
    senders = [Sender() for _ in range(40)]
    for receiver in receivers:
        signal.connect(receiver)
    for sender in senders:
        signal.connect(first, sender)
    assert [len(signal.send(sender)) for sender in senders] == [31] * 40
    plans = [each for each in gc.get_referents(*gc.get_referents(signal)) if type(each) is tuple and len(each) == 31]
    assert len(plans) == 40
    assert len({id(link) for plan in plans for link in plan}) == 31


# --- locks of the program --------------------------------------------------------------------------------------------


@pytest.fixture
def connects_elsewhere(spawn, deadline):
    """Connects in another thread, as one does that has a lock of the program, and tells whether that goes on."""

    def connect():
        connected = spawn(Signal().connect, first)
        try:
            connected.result(deadline / 10)
        except TimeoutError:
            return False
        return True

    return connect


USES = {
    "connect": lambda signal, sender: signal.connect(second, sender),
    "connect again": lambda signal, sender: signal.connect(first),
    "disconnect": lambda signal, sender: signal.disconnect(first),
    "disconnect from one": lambda signal, sender: signal.disconnect(first, sender),
    "send": lambda signal, sender: signal.send(sender),
    "copy": lambda signal, sender: copy.copy(signal),
    "initialise": lambda signal, sender: signal.__init__(),
    "clean up": lambda signal, sender: signal._cleanup_bookkeeping(),
    "clear": lambda signal, sender: signal._clear_state(),
}


@pytest.mark.thread_unsafe(reason="sets when the garbage collector runs")
@pytest.mark.parametrize("use", USES)
def test_garbage_that_is_collected_while_a_signal_changes_finds_no_lock_taken(use, connects_elsewhere):
    """A finalizer may wait for a lock whose owner connects at that moment."""
    went_on = []

    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            went_on.append(connects_elsewhere())

    before = gc.get_threshold()
    try:
        for allocations in range(1, 25):
            signal, sender = Signal(), Sender()
            signal.connect(first)
            signal.connect(first, sender)
            gc.collect()
            Garbage()
            gc.set_threshold(gc.get_count()[0] + allocations)
            USES[use](signal, sender)
            gc.set_threshold(*before)
            gc.collect()
    finally:
        gc.set_threshold(*before)
    assert len(went_on) == 24
    assert all(went_on)
    assert gc.isenabled()


@pytest.mark.parametrize("use", ["connect", "clear", "initialise", "disconnect", "clean up"])
def test_what_a_change_frees_is_freed_without_the_lock(use, connects_elsewhere):
    went_on = []

    class Receiver:
        def __call__(self, sender):
            pass

        def __del__(self):
            went_on.append(connects_elsewhere())

    class Name(str):
        def __del__(self):
            went_on.append(connects_elsewhere())

    signal = Signal()
    signal.connect(Receiver(), weak=False)
    signal.send()
    signal.receivers.clear()
    receiver, name = Receiver(), Name("name")
    signal.connect(receiver, name, weak=False)
    signal.send(name)
    signal.disconnect(receiver)
    signal.connect(first)
    del receiver, name
    USES[use](signal, "any other")
    del signal
    gc.collect()
    assert len(went_on) == 3
    assert all(went_on)


@pytest.mark.thread_unsafe(reason="forks")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_collects_garbage_and_connects(run_python):
    result = run_python("""
import gc, os, threading
from ringcast.compat.blinker import Signal

class Slow(set):
    slow = False
    def add(self, key):
        if Slow.slow:
            inside.set()
            go_on.wait()
        super().add(key)

class Subclass(Signal):
    set_class = Slow

def receiver(sender):
    return sender

inside, go_on, signal = threading.Event(), threading.Event(), Subclass()
Slow.slow = True
thread = threading.Thread(target=signal.connect, args=(receiver,))
thread.start()
inside.wait()
Slow.slow = False
child = os.fork()
if child == 0:
    other = Signal()
    other.connect(receiver)
    os._exit(0 if gc.isenabled() and len(other.send()) == 1 else 1)
status = os.waitpid(child, 0)[1]
go_on.set()
thread.join()
print(os.waitstatus_to_exitcode(status), gc.isenabled(), len(signal.send()))
""")
    assert (result.stdout, result.stderr) == ("0 True 1\n", "")


@pytest.mark.thread_unsafe(reason="switches the garbage collector off")
@pytest.mark.parametrize("module", [ours, original])
@pytest.mark.parametrize("kind", ["set_class", "receivers"])
@pytest.mark.parametrize("use", USES)
def test_the_collector_is_and_stays_what_the_program_makes_of_it_meanwhile(module, kind, use):
    """A method of the program's own switches it off, or another thread does while that runs."""
    seen, watching = [], False

    def switched_off(method):
        def call(*arguments):
            if watching:
                seen.append(gc.isenabled())
                gc.disable()
            return method(*arguments)

        return call

    def own(kind, *names):
        return type("Own", (kind,), {name: switched_off(getattr(kind, name)) for name in names})

    class Subclass(module.Signal):
        set_class = own(InOrder, "add", "discard", "copy", "__or__") if kind == "set_class" else set

    signal, sender = Subclass(), Sender()
    if kind == "receivers":
        signal.receivers = own(dict, "get", "__setitem__", "pop", "clear")()
    signal.connect(first)
    signal.connect(first, sender)
    watching = True
    try:
        USES[use](signal, sender)
        assert gc.isenabled() is (not seen)
        assert seen[:1] in ([], [True])
    finally:
        watching = False
        gc.enable()


def test_a_thread_that_ends_with_the_lock_at_the_end_of_the_program_keeps_nobody_waiting(run_python):
    program = """
import builtins, gc, threading
from {module} import Signal

class Slow(set):
    def add(self, key):
        inside.set()
        threading.Event().wait()

class Subclass(Signal):
    set_class = Slow

class Sender: pass

def receiver(sender):
    return sender

def another(sender):
    return sender

inside, signal, usual = threading.Event(), Subclass(), Signal()
usual.connect(receiver)
threading.Thread(target=signal.connect, args=(receiver,), daemon=True).start()
inside.wait()

class AtEnd:
    def __init__(self):
        self.signal, self.kept, self.sender, self.enabled = usual, (receiver, another), Sender(), gc.isenabled

    def __del__(self):
        self.signal.connect(self.kept[1], "a")
        print(len(self.signal.send("a")), self.enabled())
        self.signal.disconnect(self.kept[0])
        print(len(self.signal.send("a")), self.enabled())
        self.signal.receivers = {{}}
        self.signal._clear_state()
        print(len(self.signal.send("a")), self.enabled())

builtins.at_end = AtEnd()
"""
    for module in ("blinker", "ringcast.compat.blinker"):
        result = run_python(program.format(module=module))
        assert (result.stdout, result.stderr) == ("2 True\n1 True\n0 True\n", ""), module


# --- beside blinker ----------------------------------------------------------------------------------------------

RECEIVERS = ["f0", "f1", "f2", "m0", "m1", "c0", "c1", "a0"]
SENDERS = ["none", "any", "string", "integer", "float", "o0", "o1", "method"]


class Objects:
    """Receivers and senders by their names. What a receiver is to do when it is called is `World.run`."""

    def __init__(self) -> None:
        self.world = None
        self.senders = {"none": None, "string": "string", "integer": 1000, "float": 1.5, "keeper": Button()}
        self.receivers = {}
        for name in RECEIVERS:
            self.make_receiver(name)
        for name in ("o0", "o1"):
            self.senders[name] = Sender()

    def make_receiver(self, name: str) -> None:
        objects = weakref.proxy(self)

        def function(sender, **keywords):
            return objects.world.run(name, sender, keywords)

        async def coroutine_function(sender, **keywords):
            return objects.world.run(name, sender, keywords)

        class Receiver:
            def method(self, sender, **keywords):
                return objects.world.run(name, sender, keywords)

            __call__ = method

        made = {"f": function, "a": coroutine_function, "m": Receiver(), "c": Receiver()}
        self.receivers[name] = made[name[0]]

    def receiver(self, name: str) -> Callable[..., object]:
        return self.receivers[name].method if name[0] == "m" else self.receivers[name]

    def sender(self, name: str) -> object:
        if name == "any":
            return self.world.any
        return self.senders["keeper"].press if name == "method" else self.senders[name]

    def kill(self, name: str) -> None:
        """One of a name goes and another comes."""
        if name in RECEIVERS:
            self.make_receiver(name)
        else:
            self.senders[name] = Sender()
        if WITHOUT_GIL:
            gc.collect()

    def name_of(self, thing: object) -> str:
        for name in RECEIVERS:
            if thing == self.receiver(name):
                return name
        for name in SENDERS:
            if thing is self.sender(name) or thing == self.senders["keeper"].press == self.sender(name):
                return name
        return "one that has gone"


class World:
    """A signal of one of the packages, and a record of all that happens to it."""

    def __init__(self, module: object, objects: Objects, script: dict[str, list[tuple[object, ...]]], set_class: type):
        class Subject(module.Signal):
            pass

        Subject.set_class = set_class
        self.signal, self.any, self.objects = Subject(), module.ANY, objects
        self.script = {name: list(actions) for name, actions in script.items()}
        self.happened: list[object] = []
        self.depth = 0
        self.is_told, self.raised = False, None
        self.taken_out = {}

    def run(self, name: str, sender: object, keywords: dict[str, object]) -> str:
        self.happened.append(("called", name, self.objects.name_of(sender), keywords))
        if self.script.get(name):
            self.do(self.script[name].pop())
        return f"result of {name}"

    def do(self, action: tuple[object, ...]) -> None:
        what, *arguments = action
        getattr(self, what)(*arguments)

    def step(self, action: tuple[object, ...]) -> list[object]:
        """Do it; what happened, and what can be seen after it."""
        self.objects.world = self
        self.happened = []
        try:
            self.do(action)
        except Exception as error:
            self.happened.append(("raised", type(error)))
        signal, objects = self.signal, self.objects
        for name in SENDERS:
            sender = objects.sender(name)
            receivers = [objects.name_of(receiver) for receiver in signal.receivers_for(sender)]
            self.happened.append((name, signal.has_receivers_for(sender), receivers))
        self.happened.append((len(signal.receivers), signal.is_muted))
        return self.happened

    def connect(self, receiver: str, sender: str, weak: bool) -> None:
        self.signal.connect(self.objects.receiver(receiver), self.objects.sender(sender), weak)

    def connect_via(self, receiver: str, sender: str, weak: bool) -> None:
        self.signal.connect_via(self.objects.sender(sender), weak)(self.objects.receiver(receiver))

    def disconnect(self, receiver: str, sender: str) -> None:
        self.signal.disconnect(self.objects.receiver(receiver), self.objects.sender(sender))

    def send(self, sender: str, keywords: dict[str, object]) -> None:
        self.depth += 1
        try:
            if self.depth < 4:
                self.results(self.signal.send(self.objects.sender(sender), **keywords))
        finally:
            self.depth -= 1

    def send_wrapped(self, sender: str) -> None:
        def wrap(receiver):
            def call(*arguments, **keywords):
                return asyncio.run(receiver(*arguments, **keywords))

            return call

        if self.depth == 0:  # the loop that runs may not run another
            self.results(self.signal.send(self.objects.sender(sender), _async_wrapper=wrap, wrapped=True))

    def send_async(self, sender: str) -> None:
        def wrap(receiver):
            async def call(*arguments, **keywords):
                return receiver(*arguments, **keywords)

            return call

        if self.depth == 0:
            self.depth += 1
            try:
                self.results(asyncio.run(self.signal.send_async(self.objects.sender(sender), _sync_wrapper=wrap)))
            finally:
                self.depth -= 1

    def results(self, results: list[tuple[object, object]]) -> None:
        self.happened.append(("sent", [(self.objects.name_of(receiver), result) for receiver, result in results]))

    def connected_to(self, receiver: str, sender: str) -> None:
        with self.signal.connected_to(self.objects.receiver(receiver), self.objects.sender(sender)):
            self.send(sender, {})

    def mute(self, muted: bool) -> None:
        self.signal.is_muted = muted

    def muted_send(self, sender: str) -> None:
        with self.signal.muted():
            self.send(sender, {})

    def fail(self) -> None:
        raise KeyError("a receiver has failed")

    def take_out(self) -> None:
        self.taken_out = self.taken_out | dict(self.signal.receivers)
        self.signal.receivers.clear()

    def put_back(self) -> None:
        self.signal.receivers.update(self.taken_out)

    def replace(self, mapping: type) -> None:
        self.signal.receivers = mapping(self.signal.receivers)

    def kill(self, name: str) -> None:
        self.objects.kill(name)

    def tell(self, raised: type[Exception] | None) -> None:
        """Have it told of receivers that come and go, from now on, by one receiver, which may raise. (Several would be
        called in the order of their addresses, which differ between the worlds.)"""

        def connected(signal, receiver, sender, weak):
            self.happened.append(("connected", self.objects.name_of(receiver), self.objects.name_of(sender), weak))
            if self.raised is not None:
                raise self.raised

        def disconnected(signal, receiver, sender):
            self.happened.append(("disconnected", self.objects.name_of(receiver), self.objects.name_of(sender)))

        if not self.is_told:
            self.signal.receiver_connected.connect(connected, weak=False)
            self.signal.receiver_disconnected.connect(disconnected, weak=False)
        self.is_told, self.raised = True, raised


class InOrder(dict):
    """A set in the order in which its members came."""

    def add(self, key):
        self[key] = None

    def discard(self, key):
        self.pop(key, None)

    def copy(self):
        return self | {}

    def __or__(self, other):
        return InOrder([*self.items(), *other.items()])


receivers, senders = st.sampled_from(RECEIVERS), st.sampled_from(SENDERS)
changes = [
    st.tuples(st.just("connect"), receivers, senders, st.booleans()),
    st.tuples(st.just("disconnect"), receivers, senders),
    st.tuples(st.just("disconnect"), receivers, st.just("any")),
]
sends = [
    st.tuples(st.just("send"), senders, st.sampled_from([{}, {"number": 1}, {"x": 1, "y": 2, "z": 3}])),
    st.tuples(st.just("connected_to"), receivers, senders),
    st.tuples(st.just("muted_send"), senders),
    st.tuples(st.just("send_wrapped"), senders),
    st.tuples(st.just("send_async"), senders),
]
others = [
    st.tuples(st.just("connect_via"), receivers, senders, st.booleans()),
    st.tuples(st.just("mute"), st.booleans()),
    *(st.tuples(st.just(what)) for what in ("take_out", "put_back")),
    st.tuples(st.just("replace"), st.sampled_from([dict, OrderedDict, UserDict])),
    st.tuples(st.just("tell"), st.sampled_from([None, None, TypeError, ValueError])),
]
kills = [st.tuples(st.just("kill"), st.sampled_from([*RECEIVERS, "o0", "o1"]))]
during = [*changes, st.tuples(st.just("fail")), st.tuples(st.just("send"), senders, st.just({}))]
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scripts(actions):
    return st.dictionaries(receivers, st.lists(st.one_of(actions), max_size=3), max_size=4)


@pytest.mark.thread_unsafe(reason="takes long: it collects often")
@many
@given(st.lists(st.one_of(*changes, *sends, *others, *kills), max_size=25), scripts(during))
def test_the_same_receivers_are_called_in_the_same_order_as_by_blinker(actions, script):
    """Both have the same objects, and so the order of blinker's sets, which is that of the objects' addresses."""
    objects = Objects()
    theirs, mine = (World(module, objects, script, set) for module in (original, ours))
    for action in actions:
        if action[0] == "kill":
            objects.world = theirs
            objects.kill(action[1])
            action = ("mute", theirs.signal.is_muted)  # which changes nothing: it only looks
        assert mine.step(action) == theirs.step(action)


@pytest.mark.thread_unsafe(reason="takes long: it collects often")
@many
@given(st.lists(st.one_of(*changes, *sends, *others, *kills), max_size=25), scripts([*during, *kills]))
def test_receivers_and_senders_that_go_during_a_send_are_missed_as_by_blinker(actions, script):
    """Each has objects of its own, which go while its receivers run, and sets in the order of connecting."""
    theirs, mine = (World(module, Objects(), script, InOrder) for module in (original, ours))
    for action in actions:
        assert mine.step(action) == theirs.step(action)


# --- threads -----------------------------------------------------------------------------------------------------


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.thread_unsafe(reason="it has its own threads, and sets how often they switch")
def test_threads_that_connect_disconnect_and_send_at_once_lose_no_receiver(spawn, deadline):
    signal = Signal()
    stays, start, done = Button(), threading.Barrier(4), threading.Event()
    signal.connect(stays.press)
    sender = Sender()

    def come_and_go(mine):
        start.wait(deadline)
        for number in range(400):
            button = Button()
            signal.connect(button.press, sender if number % 2 else ANY)
            assert [result for receiver, result in signal.send(sender, mine=mine) if receiver == button.press] == [
                "pressed"
            ]
            if number % 3 == 0:
                signal.disconnect(button.press)
            elif number % 3 == 1:
                signal.connect(button.press, Sender())
            del button
        last = Button()
        signal.connect(last.press, sender)
        return last

    def send():
        start.wait(deadline)
        while not done.is_set():
            for each in (sender, None):
                assert stays.press in [receiver for receiver, _ in signal.send(each)]

    with switching_often():
        threads = [spawn(come_and_go, number) for number in range(2)]
        sending = [spawn(send) for _ in range(2)]
        try:
            kept = [thread.result(deadline) for thread in threads]
        finally:
            done.set()
        for thread in sending:
            thread.result(deadline)
    gc.collect()
    assert len(signal.receivers) == 3
    stays.pressed.clear()
    assert {receiver for receiver, _ in signal.send(sender)} == {stays.press, *(each.press for each in kept)}
    assert [receiver for receiver, _ in signal.send(None)] == [stays.press]


@pytest.mark.thread_unsafe(reason="it has its own threads, and sets how often they switch")
def test_threads_send_while_all_that_can_be_replaced_is_replaced(spawn, deadline):
    class Subclass(Signal):
        pass

    def nobody(self, sender):
        return iter(())

    signal, sender, button, done = Subclass(), Sender(), Button(), threading.Event()
    start = threading.Barrier(3)
    known = {first, second, button.press}

    def send():
        start.wait(deadline)
        while not done.is_set():
            assert known.issuperset(receiver for receiver, _ in signal.send(sender))
            assert known.issuperset(signal.receivers_for(None))
            assert signal.has_receivers_for(sender) in (True, False)

    def change():
        start.wait(deadline)
        for number in range(300):
            signal.connect(button.press, sender)
            signal.connect(first, weak=False)
            signal.connect(second, number)
            assert len(copy.copy(signal).send(sender)) == 2
            Subclass.receivers_for = nobody
            del Subclass.receivers_for
            signal.receivers = {}
            signal._cleanup_bookkeeping()
            signal.connect(first)
            assert first in [receiver for receiver, _ in signal.send()]
            signal._clear_state() if number % 2 else signal.__init__()
        signal.connect(first)

    with switching_often():
        sending = [spawn(send) for _ in range(2)]
        try:
            spawn(change).result(deadline)
        finally:
            done.set()
        for thread in sending:
            thread.result(deadline)
    assert signal.send(sender) == [(first, ("first", sender, {}))]
    assert gc.isenabled()


@pytest.mark.thread_unsafe(reason="it has its own threads, and sets how often they switch")
def test_threads_that_ask_for_a_name_or_a_signal_of_a_signal_at_once_get_the_same(spawn, deadline):
    with switching_often():
        for _ in range(50):
            signals, start = Namespace(), threading.Barrier(4)

            def ask(signals=signals, start=start):
                start.wait(deadline)
                signal = signals.signal("saved")
                return id(signal), id(signal.receiver_connected)

            threads = [spawn(ask) for _ in range(4)]
            assert len({thread.result(deadline) for thread in threads}) == 1


# --- in the place of blinker -------------------------------------------------------------------------------------


def test_a_library_that_imports_blinker_gets_the_drop_in(run_python: Callable[..., subprocess.CompletedProcess[str]]):
    result = run_python("""
import sys
import ringcast.compat
module = ringcast.compat.install("blinker")
assert ringcast.compat.install("blinker") is module
import blinker
import blinker.base
from blinker import Namespace, signal
from blinker.base import Signal
import ringcast.compat.blinker
assert blinker is module is ringcast.compat.blinker
assert Signal is blinker.Signal is blinker.base.Signal
assert [name for name in sys.modules if name.startswith("blinker")] == ["blinker", "blinker.base"]
print(repr(blinker))
""")
    assert result.stderr == ""
    assert "ringcast.compat.blinker" in result.stdout
    assert "in place of blinker>" in result.stdout


@pytest.mark.parametrize("imported", ["import blinker", "import blinker.base"])
def test_it_is_refused_where_blinker_is_imported_already(run_python, imported):
    result = run_python(f"""
{imported}
import sys, ringcast.compat
theirs = sys.modules["blinker"], sys.modules["blinker.base"]
for error in (ringcast.RingcastError, ImportError):
    try:
        ringcast.compat.install("blinker")
    except error as refused:
        print(refused)
assert theirs == (sys.modules["blinker"], sys.modules["blinker.base"])
""")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 2
    assert "imported already" in result.stdout
    assert "ringcast.compat.install('blinker') before" in result.stdout


def test_a_name_without_a_drop_in_is_refused():
    with pytest.raises(InstallError, match=r"'blinkre'.*blinker") as refused:
        ringcast.compat.install("blinkre")
    assert isinstance(refused.value, RingcastError | ImportError | ValueError)


def test_importing_it_imports_nothing_of_the_dispatcher_and_nothing_slow(run_python):
    result = run_python("""
import sys
before = set(sys.modules)   # where tests run on uvloop, asyncio is imported already
import ringcast.compat.blinker
slow = {"asyncio", "dataclasses", "inspect", "logging", "threading", "typing", "ringcast._core", "ringcast.dispatcher"}
print(sorted(slow & (set(sys.modules) - before)))
""")
    assert (result.stdout, result.stderr) == ("[]\n", "")
