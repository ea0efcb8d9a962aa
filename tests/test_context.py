"""context="publisher": the handler runs in a copy of the context variables that `publish` was called in."""

import asyncio
import contextvars
import decimal
import gc
import sys
import threading
import time
import types
import weakref
from dataclasses import dataclass

import pytest

from ringcast import Dispatcher, OptionError

request = contextvars.ContextVar("request", default="none")


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


def publish_in(value, bus, *events):
    """Publishes with `request` set to a value, in a context of its own."""

    def publish():
        request.set(value)
        for event in events:
            bus.publish(event)

    contextvars.copy_context().run(publish)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, ["none"] * 3), ({"context": None}, ["none"] * 3), ({"context": "publisher"}, "abc")]
)
def test_a_queued_handler_sees_the_publishers_context_only_where_it_asks_for_it(bus, recorder, options, expected):
    bus.subscribe(Tick, lambda tick: recorder(request.get()), **options)
    for number, value in enumerate("abc"):
        publish_in(value, bus, Tick(number))
    assert recorder.wait_for(3) == list(expected)


def test_events_that_wait_each_have_the_context_that_they_were_published_in(bus, gate, recorder):
    def handler(tick: Tick) -> None:
        gate.hold()
        recorder((tick.number, request.get()))

    bus.subscribe(handler, context="publisher")
    publish_in("a", bus, Tick(0), Tick(1))
    gate.wait_until_held()
    publish_in("b", bus, Tick(2))
    publish_in("a", bus, Tick(3))
    bus.publish(Tick(4))
    gate.open()
    assert recorder.wait_for(5) == [(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "none")]


def test_each_event_has_a_copy_which_the_handler_may_change(bus, recorder):
    def handler(tick: Tick) -> None:
        recorder(request.get())
        request.set("changed")

    def publish():
        request.set("set")
        for number in range(3):
            bus.publish(Tick(number))
        return recorder.wait_for(3), request.get()

    bus.subscribe(handler, context="publisher")
    assert contextvars.copy_context().run(publish) == (["set"] * 3, "set")


def test_changes_of_the_publisher_after_publish_are_not_seen(bus, gate, recorder):
    def handler(tick: Tick) -> None:
        gate.hold()
        recorder(request.get())

    def publish():
        request.set("before")
        bus.publish(Tick(0))
        gate.wait_until_held()
        bus.publish(Tick(1))
        request.set("after")

    bus.subscribe(handler, context="publisher")
    contextvars.copy_context().run(publish)
    gate.open()
    assert recorder.wait_for(2) == ["before", "before"]


def test_subscribers_of_one_event_do_not_share_the_copy(bus, make_recorder):
    recorders = [make_recorder() for _ in range(3)]
    plain = make_recorder()

    def subscribe(recorder):
        def handler(tick: Tick) -> None:
            recorder(request.get())
            request.set("mine")

        bus.subscribe(handler, context="publisher")

    for recorder in recorders:
        subscribe(recorder)
    bus.subscribe(Tick, lambda tick: plain(request.get()))
    publish_in("a", bus, Tick(0), Tick(1))
    assert [recorder.wait_for(2) for recorder in recorders] == [["a", "a"]] * 3
    assert plain.wait_for(2) == ["none", "none"]


def test_it_goes_on_into_what_the_handler_publishes(bus, recorder):
    class Other:
        pass

    bus.subscribe(Tick, lambda tick: bus.publish(Other()), context="publisher")
    bus.subscribe(Other, lambda other: recorder(request.get()), context="publisher")
    publish_in("a", bus, Tick(0))
    assert recorder.wait_for(1) == ["a"]


def test_a_handler_that_raises_leaves_no_context_behind(make_bus, recorder):
    bus = make_bus(on_error=lambda failure: None)

    def failing(tick: Tick) -> None:
        request.set("left")
        raise ValueError

    bus.subscribe(failing, context="publisher")
    bus.subscribe(Tick, lambda tick: recorder(request.get()))
    publish_in("a", bus, Tick(0), Tick(1))
    assert recorder.wait_for(2) == ["none", "none"]


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
def test_with_a_dropping_policy_the_events_that_are_kept_keep_their_context(bus, gate, recorder, eventually, policy):
    def handler(tick: Tick) -> None:
        gate.hold()
        recorder((tick.number, request.get()))

    subscription = bus.subscribe(handler, context="publisher", policy=policy, max_queue=3)
    publish_in("0", bus, Tick(0))
    gate.wait_until_held()
    for number in range(1, 10):
        publish_in(str(number), bus, Tick(number))
    gate.open()
    eventually(lambda: subscription.pending == 0)
    assert len(recorder.events) == subscription.delivered > 1
    assert all(value == str(number) for number, value in recorder.events)


@pytest.mark.parametrize(("context", "expected"), [("publisher", "a"), (None, "none")])
def test_an_async_handler_has_it_through_all_its_awaits(make_bus, spawn, context, expected, deadline):
    async def main():
        seen, done = [], asyncio.Event()
        async with make_bus() as bus:

            async def handler(tick: Tick) -> None:
                seen.append((tick.number, request.get(), threading.get_ident()))
                await asyncio.sleep(0)
                seen.append((tick.number, request.get(), threading.get_ident()))
                request.set("changed")
                if tick.number == 1:
                    done.set()

            bus.subscribe(handler, context=context)
            await asyncio.to_thread(publish_in, "a", bus, Tick(0), Tick(1))
            async with asyncio.timeout(deadline):
                await done.wait()
        return seen

    here = threading.get_ident()
    assert asyncio.run(main()) == [(number, expected, here) for number in (0, 0, 1, 1)]


@pytest.mark.parametrize("context", ["subscriber", 1, contextvars.copy_context()])
def test_other_contexts_are_refused(bus, context):
    with pytest.raises(OptionError):
        bus.subscribe(Tick, lambda tick: None, context=context)


# --- the context of a queued handler -------------------------------------------------------------------------------


KINDS = {
    "single": ({}, lambda handler: lambda tick: handler()),
    "batch": ({"batch": 10}, lambda handler: lambda ticks: [handler() for _ in ticks]),
    "drops": ({"policy": "drop_oldest"}, lambda handler: lambda tick: handler()),
    "batch that drops": (
        {"policy": "drop_oldest", "batch": 10},
        lambda handler: lambda ticks: [handler() for _ in ticks],
    ),
    "guarded": ({"where": lambda tick: True}, lambda handler: lambda tick: handler()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_queued_handler_keeps_what_it_sets_and_no_other_handler_sees_it(bus, recorder, kind):
    options, adapt = KINDS[kind]

    def change():
        recorder(("changer", request.get()))
        request.set("changed")

    bus.subscribe(Tick, adapt(change), **options)
    bus.subscribe(Tick, adapt(lambda: recorder(("reader", request.get()))), **options)
    for number in range(3):
        bus.publish(Tick(number))
        assert bus.wait_idle(10)
    said = recorder.wait_for(6)
    assert [value for who, value in said if who == "changer"] == ["none", "changed", "changed"]
    assert [value for who, value in said if who == "reader"] == ["none"] * 3


def test_one_handler_does_not_change_the_decimal_context_of_another(bus, recorder):
    class Round:
        pass

    before = decimal.getcontext().prec  # this thread has one, which the handlers have copies of
    bus.subscribe(Round, lambda event: setattr(decimal.getcontext(), "prec", 3))
    bus.subscribe(Tick, lambda tick: recorder(str(decimal.Decimal("1234.56") * 3)))
    for event in (Tick(0), Round(), Tick(1)):
        bus.publish(event)
        assert bus.wait_idle(10)
    assert recorder.wait_for(2) == ["3703.68", "3703.68"]
    assert decimal.getcontext().prec == before


def test_a_queued_handler_begins_with_the_context_in_which_it_was_subscribed(bus, recorder):
    def subscribe():
        request.set("at subscribe")
        bus.subscribe(Tick, lambda tick: recorder(request.get()))
        request.set("later")

    contextvars.copy_context().run(subscribe)
    bus.publish(Tick(0))
    assert recorder.wait_for(1) == ["at subscribe"]
    assert request.get() == "none"


def test_a_failure_is_reported_in_the_context_of_its_handler(recorder):
    with Dispatcher(on_error=lambda failure: recorder(request.get())) as bus:

        def fail(tick: Tick) -> None:
            request.set("of the handler")
            raise ValueError

        bus.subscribe(fail)
        bus.publish(Tick(0))
        assert recorder.wait_for(1) == ["of the handler"]


def test_a_slow_handler_keeps_its_context_from_thread_to_thread(bus, recorder):
    def handler(tick: Tick) -> None:
        recorder((threading.get_ident(), request.get()))
        request.set(str(tick.number))
        time.sleep(0.005)  # slow: it gets a thread of its own

    bus.subscribe(handler)
    bus.subscribe(Tick, lambda tick: None)
    for number in range(10):
        bus.publish(Tick(number))
    said = recorder.wait_for(10)
    assert [value for _, value in said] == ["none", *map(str, range(9))]


def test_a_handler_with_the_publishers_context_has_a_decimal_context_of_its_own(bus):
    before = decimal.getcontext().prec
    bus.subscribe(Tick, lambda tick: setattr(decimal.getcontext(), "prec", 3), context="publisher")
    bus.publish(Tick(0))
    assert bus.wait_idle(10)
    assert decimal.getcontext().prec == before


@pytest.mark.thread_unsafe(reason="decimal is replaced for the whole process")
def test_subscribing_while_decimal_is_just_being_imported(bus, recorder, monkeypatch):
    monkeypatch.setitem(sys.modules, "decimal", types.ModuleType("decimal"))  # as far as another thread has come
    bus.subscribe(Tick, lambda tick: recorder(tick.number))
    bus.publish(Tick(1))
    assert recorder.wait_for(1) == [1]


def test_a_handler_that_leaves_its_context_wrong_is_shown_and_has_a_context_again(run_python):
    result = run_python("""
import contextvars, ctypes
from ringcast import Dispatcher

enter = ctypes.pythonapi.PyContext_Enter
enter.argtypes = [ctypes.py_object]
number = contextvars.ContextVar("number", default=0)

class Tick:
    pass

def handler(tick):
    number.set(number.get() + 1)
    print(number.get())
    if number.get() == 2:
        enter(contextvars.Context())

with Dispatcher() as bus:
    bus.subscribe(Tick, handler)
    for _ in range(4):
        bus.publish(Tick())
        bus.wait_idle(10)
""")
    assert result.stdout.split() == ["1", "2", "3", "4"]
    assert result.stderr.startswith("Exception ignored in: 'while the context of a handler was left'")
    assert result.stderr.count("RuntimeError: cannot exit context") == 1
    assert "UnraisableHookArgs" not in result.stderr  # which is how the default hook refuses other objects


def test_a_subscription_that_has_ended_keeps_no_context(bus):
    class Request:
        pass

    def subscribe():
        current = Request()
        request.set(current)
        return bus.subscribe(Tick, lambda tick: None), weakref.ref(current)

    subscription, reference = contextvars.copy_context().run(subscribe)
    gc.collect()
    assert reference() is not None
    with subscription:
        bus.publish(Tick(0))
    assert bus.wait_idle(10)
    gc.collect()
    assert reference() is None
