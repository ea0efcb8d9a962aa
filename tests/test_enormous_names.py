"""Messages are bounded in size, however long the names are that a program has made."""

import asyncio

import pytest

from ringcast import ClosedError, Dispatcher, EventClassError, HandlerTypeError, OptionError, RingcastError, record

LONG = "n" * 100_000
Long = type(LONG, (), {})


class Tick:
    pass


def made(text):
    """A function of a long name with these parameters."""
    namespace = {}
    exec(f"def {LONG}({text}): pass", {"Long": Long, "Tick": Tick}, namespace)
    return namespace[LONG]


REFUSED = {
    "an unknown option": (OptionError, lambda bus: bus.subscribe(Tick, print, **{LONG: 1})),
    "a handler without annotation": (HandlerTypeError, lambda bus: bus.subscribe(made("event"))),
    "a handler of many": (HandlerTypeError, lambda bus: bus.subscribe(made(f"{LONG}, b, c"))),
    "a keyword of a handler": (HandlerTypeError, lambda bus: bus.subscribe(made(f"event, *, {LONG}"))),
    "a handler of nothing": (HandlerTypeError, lambda bus: bus.subscribe(Tick, made(""))),
    "a handler of another class": (EventClassError, lambda bus: bus.subscribe(Tick, made("event: Long"))),
    "an annotation of a long parameter": (HandlerTypeError, lambda bus: bus.subscribe(made(f"{LONG}: 'unknown'"))),
    "a class in place of a handler": (HandlerTypeError, lambda bus: bus.subscribe(Long)),
    "several classes": (HandlerTypeError, lambda bus: bus.subscribe((Long, Tick))),
    "a class that is published": (EventClassError, lambda bus: bus.publish(Long)),
    "publish by a name": (EventClassError, lambda bus: bus.publish(**{LONG: 1})),
    "where": (OptionError, lambda bus: bus.subscribe(Tick, print, where=made("a, b"))),
    "key": (OptionError, lambda bus: bus.subscribe(Tick, print, policy="latest", key=made(""))),
    "weak": (OptionError, lambda bus: bus.subscribe(Tick, made("event"), weak=True)),
    "loop": (OptionError, lambda bus: bus.subscribe(Tick, wait, loop=Long())),
    "a policy": (OptionError, lambda bus: bus.subscribe(Tick, print, policy=LONG)),
    "priority": (OptionError, lambda bus: bus.subscribe(Tick, print, mode="direct", priority=Long())),
    "max_queue": (OptionError, lambda bus: Dispatcher(max_queue=Long())),
    "publish_many": (EventClassError, lambda bus: bus.publish_many(Long())),
    "off": (HandlerTypeError, lambda bus: bus.off(Long)),
    "another class under an id": (EventClassError, lambda bus: bus.publish_to(bus_id(bus, Long), Tick())),
    "a type id": (RingcastError, lambda bus: bus.subscribe_to(Long, print)),
    "a record type": (RingcastError, lambda bus: record(type(LONG, (), {"__annotations__": {LONG: Long}}))),
    "a record type without fields": (RingcastError, lambda bus: record(type(LONG, (), {}))),
    "a native handler": (RingcastError, lambda bus: bus.subscribe_native(Long, print)),
    "a closed dispatcher": (ClosedError, lambda bus: closed(Dispatcher(name=LONG)).subscribe(Long, made("event"))),
}


async def wait(event):
    pass


def closed(bus):
    bus.close()
    return bus


def bus_id(bus, event_class):
    """The id of a class that somebody has subscribed to."""
    return bus.subscribe(event_class, lambda event: None).type_id


@pytest.mark.parametrize("what", REFUSED)
def test_no_refusal_shows_a_name_whole(bus, what):
    expected, call = REFUSED[what]
    with pytest.raises(expected) as refused:
        call(bus)
    assert 20 < len(str(refused.value)) < 1_500


def test_no_representation_shows_a_name_whole(bus, deadline):
    subscription = bus.subscribe(Long, made("event"), policy="raise")
    assert len(repr(subscription)) < 1_000

    async def stream():
        async with Dispatcher() as inner:
            return repr(inner.stream(Long))

    assert len(asyncio.run(stream())) < 1_000
    assert len(repr(closed(type(LONG, (Dispatcher,), {})(name=LONG)))) < 1_000


def test_names_that_are_shown_alike_are_told_apart(bus):
    first, second = made("event"), made("event")
    second.__qualname__ = LONG[:50_000] + "m" + LONG[50_001:]
    bus.subscribe(Tick, first, replace=True)
    bus.subscribe(Tick, second, replace=True)
    assert bus.count(Tick) == 2
    bus.subscribe(Tick, made("event"), replace=True)  # in the place of the first
    assert bus.count(Tick) == 2
