"""After the last subscription has gone everything is as before: classes, topics of stats(), and what publish costs."""

import asyncio
import gc
import threading
import timeit
import weakref

import pytest

from ringcast import Dispatcher

TIMES = 3  # a publish to a wide topic or a context topic takes six to ten times as long as one to a plain handler


class Tick:
    pass


class Bid(Tick):
    pass


KINDS = {
    "queued": {},
    "direct": {"mode": "direct"},
    "batch": {"batch": 8},
    "drop_oldest": {"policy": "drop_oldest"},
    "latest": {"policy": "latest"},
    "key": {"policy": "latest", "key": id},
    "raise": {"policy": "raise"},
    "where": {"where": lambda event: True},
    "once": {"once": True},
    "context": {"context": "publisher"},
}
SCOPES = {"class": {}, "subclasses": {"subclasses": True}}
ENDS = {
    "cancel": lambda sub: sub.cancel(),
    "discard": lambda sub: sub.cancel(discard=True),
    "with": lambda sub: sub.__exit__(None, None, None),
}

kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
scopes = pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


def handler_of(options, handle):
    """A handler that the options go with."""
    return (lambda events: [handle(event) for event in events]) if "batch" in options else handle


@kinds
@scopes
@ends
@pytest.mark.parametrize("published", [0, 3])
def test_a_class_is_released_with_all_that_was_its(
    bus, recorder, deadline, eventually, collected_classes, options, scope, end, published
):
    event_class = type("Event", (), {})
    subscription = bus.subscribe(event_class, handler_of(options, recorder), **options, **scope)
    for _ in range(published):
        bus.publish(event_class())
    end(subscription)
    assert bus.wait_idle(deadline)
    recorder.events.clear()
    gone = weakref.ref(event_class)
    del event_class, subscription

    def released():
        gc.collect()  # a class is a circle; and the worker may be just letting go of its last event
        return gone() is None

    eventually(released)
    assert bus.stats().topics == ()


@pytest.fixture
def cost(bus, deadline):
    """How long a publish takes, in seconds: the least of some that are side by side."""

    def measure(event):
        times = timeit.repeat(lambda: bus.publish(event), number=2_000, repeat=9)
        assert bus.wait_idle(deadline)
        return min(times) / 2_000

    return measure


@pytest.mark.parametrize("own", ["queued", "none"])
@pytest.mark.parametrize("name", ["context", "subclasses", "subclasses and context", "subclasses and direct"])
def test_publish_costs_what_it_did_before(bus, cost, eventually, own, name):
    options = {
        "context": {"context": "publisher"},
        "subclasses": {"subclasses": True},
        "subclasses and context": {"subclasses": True, "context": "publisher"},
        "subclasses and direct": {"subclasses": True, "mode": "direct"},
    }[name]
    event = Tick()
    if own == "queued":
        bus.subscribe(Tick, lambda tick: None)
    before = cost(event)
    taps = [bus.subscribe(Tick, lambda tick: None, **options) for _ in range(2)]
    assert bus.publish(event) == len(taps) + (own == "queued")
    taps[0].cancel()
    assert bus.publish(event) == 1 + (own == "queued")
    taps[1].cancel()
    eventually(lambda: cost(event) < TIMES * before)


def test_a_tap_of_all_leaves_its_topic_while_others_of_the_class_go_on(bus, make_recorder, deadline):
    one, other = make_recorder(), make_recorder()
    bus.subscribe(Tick, one, subclasses=True)
    tap = bus.subscribe(object, other, subclasses=True)
    bus.publish(Bid())
    tap.cancel()
    bus.publish(Bid())
    assert bus.wait_idle(deadline)
    assert (len(one.events), len(other.events)) == (2, 1)
    assert [topic.event_class for topic in bus.stats().topics if topic.type_id is None] == [Tick]


@kinds
def test_a_tap_that_comes_again_gets_the_events_again(bus, make_recorder, deadline, options):
    for _ in range(5):
        recorder = make_recorder()
        with bus.subscribe(Tick, handler_of(options, recorder), subclasses=True, **options):
            assert bus.publish(Bid()) == 1
            assert bus.wait_idle(deadline)
        assert len(recorder.events) == 1
        assert bus.publish(Bid()) == 0


def test_a_context_that_nobody_wants_any_more_is_not_copied(bus, recorder, deadline):
    plain = bus.subscribe(Tick, recorder)
    bus.subscribe(Tick, recorder, context="publisher").cancel()
    assert bus.publish(Tick()) == 1
    assert bus.wait_idle(deadline)
    assert (plain.delivered, len(recorder.events)) == (1, 1)
    with bus.subscribe(Tick, recorder, context="publisher"):
        assert bus.publish(Tick()) == 2
        assert bus.wait_idle(deadline)
    assert len(recorder.events) == 3


def test_an_id_without_class_and_subscriptions_is_not_in_the_numbers(bus, recorder):
    subscription = bus.subscribe_to(7, recorder)
    assert [topic.type_id for topic in bus.stats().topics] == [7]
    subscription.cancel()
    assert bus.stats().topics == ()
    with bus.subscribe_to(7, recorder):
        assert [topic.type_id for topic in bus.stats().topics] == [7]


def test_a_stream_to_base_classes_leaves_nothing(deadline):
    async def main():
        async with Dispatcher() as bus:
            async with bus.stream(Tick, subclasses=True) as ticks:
                bus.publish(Bid())
                async for _ in ticks:
                    break
            return [topic for topic in bus.stats().topics if topic.type_id is None]

    assert asyncio.run(asyncio.wait_for(main(), deadline)) == []


@pytest.mark.parametrize(
    "options", [{}, {"mode": "direct"}, {"context": "publisher"}], ids=["queued", "direct", "context"]
)
def test_others_lose_nothing_while_taps_come_and_go(make_bus, spawn, deadline, options):
    publishers, rounds = 3, 40
    bus = make_bus(max_queue=64)  # else each tap that leaves waits for all that is before its end
    stop = threading.Event()
    seen = {number: [] for number in range(publishers)}

    class Numbered(Tick):
        def __init__(self, publisher, at):
            self.publisher = publisher
            self.at = at

    def publish(number):
        at = 0
        while not stop.is_set():
            bus.publish(Numbered(number, at))
            at += 1
        return at

    bus.subscribe(Numbered, lambda event: seen[event.publisher].append(event.at))
    published = [spawn(publish, number) for number in range(publishers)]
    for _ in range(rounds):
        got = {number: [] for number in range(publishers)}
        with bus.subscribe(
            Tick, lambda event, got=got: got[event.publisher].append(event.at), subclasses=True, **options
        ):
            bus.publish(Numbered(0, -1))
        for ats in got.values():  # each publisher's events without a hole, whichever came before and after
            ats = [at for at in ats if at >= 0]
            if ats:
                assert sorted(ats) == list(range(min(ats), max(ats) + 1))
    stop.set()
    counts = [future.result(deadline) for future in published]
    assert bus.wait_idle(deadline)
    for number, count in enumerate(counts):
        assert [at for at in seen[number] if at >= 0] == list(range(count))
    assert [topic.event_class for topic in bus.stats().topics] == [Numbered]
