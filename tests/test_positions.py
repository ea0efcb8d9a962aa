"""Positions in the queue far from where they begin: beyond 32 bits, and as near to their end as may be.

RINGCAST_FIRST_POSITION has any test run there (tests/conftest.py); .ci/run does so with those that positions matter to.
"""

import asyncio
import ctypes
import struct
from dataclasses import dataclass
from itertools import accumulate

import pytest

from ringcast import QueueFullError, record, settings
from ringcast.records import int64

PAGE = 512
LAST = 2**63  # where positions end
AMOUNT = 5000

pytestmark = pytest.mark.thread_unsafe(reason="where new topics begin is one for all threads")


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@record
class Number:
    number: int64


def packed(count, start=0):
    return struct.pack(f"={count}q", *range(start, start + count))


@pytest.fixture(params=[2**32 - 1000, 2**62 - 3, LAST - 3 * AMOUNT - 5], ids=["32 bits", "62 bits", "the end"])
def first(request, monkeypatch):
    """Where the rings of dispatchers begin that are made in the test. (It publishes at most 3 * AMOUNT events.)"""
    monkeypatch.setattr(settings, "FIRST_POSITION", request.param)
    return request.param


def test_topics_begin_there(first, make_bus, gate, recorder):
    # what shows it is where batches of records end: with their page at the latest
    bus = make_bus()
    bus.subscribe(Number, gate.hold)
    bus.subscribe(Number, recorder, batch=PAGE)
    bus.publish_many(packed(3 * PAGE), Number)
    gate.open()
    bus.close()
    before = PAGE - first % PAGE
    assert {before, before + PAGE, before + 2 * PAGE} <= set(accumulate([len(batch) for batch in recorder.events]))
    assert [each.number for batch in recorder.events for each in batch] == list(range(3 * PAGE))


@pytest.mark.parametrize("max_queue", [1, 100, 50_000])
def test_order_and_counts(first, make_bus, make_recorder, deadline, max_queue):
    bus = make_bus(max_queue=max_queue)
    early, late, batches = make_recorder(), make_recorder(), make_recorder()
    subscriptions = [bus.subscribe(Tick, early), bus.subscribe(Tick, batches, batch=7)]
    for number in range(AMOUNT):
        bus.publish(Tick(number))
    with bus.subscribe(Tick, late) as subscription:
        bus.publish_many([Tick(number) for number in range(AMOUNT, 2 * AMOUNT)], timeout=deadline)
    bus.publish(Tick(2 * AMOUNT))
    (topic,) = bus.stats().topics
    assert topic.published == 2 * AMOUNT + 1
    bus.close(deadline)
    everything = [Tick(number) for number in range(2 * AMOUNT + 1)]
    assert early.events == [tick for batch in batches.events for tick in batch] == everything
    assert late.events == everything[AMOUNT:-1]
    assert [(each.delivered, each.pending, each.dropped) for each in subscriptions] == [(2 * AMOUNT + 1, 0, 0)] * 2
    assert (subscription.delivered, subscription.dropped) == (AMOUNT, 0)


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("batch", [None, 4])
def test_cancel(first, bus, gate, deadline, discard, batch):
    subscription = bus.subscribe(Tick, gate.hold, batch=batch)
    bus.publish(Tick(0))
    gate.wait_until_held()
    for number in range(1, 10):
        bus.publish(Tick(number))
    assert (subscription.pending, subscription.high_water) == (10, 1)
    subscription.cancel(discard=discard)
    gate.open()
    bus.close(deadline)
    assert (subscription.delivered, subscription.dropped) == ((1, 9) if discard else (10, 0))


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop_newest", [1, 2, 3]), ("drop_oldest", [7, 8, 9]), ("latest", [9]), ("raise", [1, 2]), ("block", [1, 2])],
)
@pytest.mark.parametrize("kind", [Tick, Number])
def test_policies(first, make_bus, gate, deadline, policy, kept, kind):
    seen = []

    def handle(event):
        gate.hold()
        seen.append(event.number)

    bus = make_bus()
    subscription = bus.subscribe(kind, handle, policy=policy, max_queue=3)
    bus.publish(kind(0))
    gate.wait_until_held()
    refused = 0
    for number in range(1, 10):
        try:
            bus.publish(kind(number), timeout=0)
        except (QueueFullError, TimeoutError):
            refused += 1
    gate.open()
    bus.close(deadline)
    assert seen == [0, *kept]
    assert subscription.delivered + subscription.dropped + refused == 10
    assert refused == (7 if policy in ("raise", "block") else 0)


def test_records_one_by_one_in_batches_and_natively(first, make_bus, make_recorder, deadline):
    bus = make_bus(max_queue=1000)
    numbers, kept, native = [], make_recorder(), []

    def observe(records, count, stride, userdata):
        native.extend(struct.unpack(f"={count}q", ctypes.string_at(records, count * stride)))

    handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)(observe)
    bus.subscribe(Number, lambda each: numbers.append(each.number))
    bus.subscribe(Number, kept, batch=1000)
    subscription = bus.subscribe_native(Number, handler)
    bus.publish_many(packed(AMOUNT), Number, timeout=deadline)
    for number in range(AMOUNT, 2 * AMOUNT):
        bus.publish(Number(number))
    bus.close(deadline)
    everything = list(range(2 * AMOUNT))
    assert numbers == native == [each.number for batch in kept.events for each in batch] == everything
    assert (subscription.delivered, subscription.dropped) == (2 * AMOUNT, 0)


@pytest.mark.parametrize("kind", [Tick, Number])
@pytest.mark.parametrize("batch", [None, 10])
def test_a_stream(first, make_bus, deadline, kind, batch):
    async def main():
        bus = make_bus(max_queue=100)
        stream = bus.stream(kind, batch=batch)

        async def publish():
            for number in range(AMOUNT):
                await bus.apublish(kind(number))
            await bus.aclose(deadline)

        publishing = asyncio.create_task(publish())
        taken = [what async for what in stream]
        await publishing
        return [each.number for what in taken for each in (what if batch else [what])], stream.subscription

    numbers, subscription = asyncio.run(main())
    assert numbers == list(range(AMOUNT))
    assert (subscription.delivered, subscription.dropped) == (AMOUNT, 0)
