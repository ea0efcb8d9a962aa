"""The hot paths, for .ci/instructions.py to count: python .ci/hot_paths.py EVENTS

Runs each path three times, to warm up, with EVENTS and with 2 EVENTS, and prints its name. Before each run and at the
end it calls `os.getppid`, at which the counter writes down what it has. It uses only what the commit to compare with
has, too.

The one worker is held in a handler of another class while events are published, and delivers them afterwards: so what
is counted does not depend on when threads take turns. For the same reason all runs on one CPU.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

from ringcast import Dispatcher, record

WARM_UP = 1_000  # events
BATCH = 100


class Base:
    """Of events."""

    __slots__ = ()


class Tick(Base):
    """An event."""

    __slots__ = ()


@record
class Trade:
    """A record."""

    price: float


@record
class HeldTrade:
    """Has the worker of native handlers wait."""

    price: float


HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


class Hold:
    """Has the worker wait."""


class Gate:
    """A handler that waits."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def wait(self, *arguments: object) -> None:
        """Handle an event, or records, until the gate is open."""
        self.entered.set()
        self.opened.wait()


@contextmanager
def held_worker(max_queue: int) -> Iterator[Dispatcher]:
    """A dispatcher whose one worker waits until the end of the block, and then delivers what was published in it."""
    gate = Gate()
    with Dispatcher(max_queue=max_queue, max_workers=1) as bus:
        bus.subscribe(Hold, gate.wait)
        bus.publish(Hold())
        gate.entered.wait()
        yield bus
        gate.opened.set()


def one_by_one(bus: Dispatcher, event: Any, events: int) -> None:
    """Call publish for each event."""
    publish = bus.publish
    for each in repeat(event, events):
        publish(each)


def many_at_once(bus: Dispatcher, event: Any, events: int) -> None:
    """Call publish_many for each BATCH of events."""
    publish_many: Any = bus.publish_many
    for batch in repeat([event] * BATCH, events // BATCH):
        publish_many(batch)


def as_buffers(bus: Dispatcher, event: Trade, events: int) -> None:
    """Call publish_many with the bytes of a BATCH of records."""
    publish_many: Any = bus.publish_many
    for batch in repeat(bytes(event) * BATCH, events // BATCH):
        publish_many(batch, Trade)


def ignore(event: object) -> None:
    """Handle an event."""


def queued(
    events: int,
    publish: Callable[[Dispatcher, Any, int], object] = one_by_one,
    event_class: type = Tick,
    event: object = Tick(),
    subscribers: int = 1,
    deliver: bool = True,
    **options: Any,
) -> None:
    """Publish, and deliver or drop; with several subscribers fewer events, so that there are as many deliveries."""
    with held_worker(events + 1) as bus:
        subscriptions = [bus.subscribe(event_class, ignore, **options) for _ in range(subscribers)]
        publish(bus, event, events // subscribers)
        if not deliver:
            for subscription in subscriptions:
                subscription.cancel(discard=True)
    expect(events if deliver else 0, sum(subscription.delivered for subscription in subscriptions))


def direct(events: int) -> None:
    """A handler inside publish."""
    with Dispatcher() as bus:
        subscription = bus.subscribe(Tick, ignore, mode="direct")
        one_by_one(bus, Tick(), events)
    expect(events, subscription.delivered)


def native(events: int) -> None:
    """A C function that does nothing with its arguments."""
    gate = Gate()
    wait = HANDLER(gate.wait)
    with Dispatcher(max_queue=events + 1, max_workers=1) as bus:
        bus.subscribe_native(HeldTrade, wait)
        bus.publish(HeldTrade(1.0))
        gate.entered.wait()
        subscription = bus.subscribe_native(Trade, ctypes.CDLL(None).getpid)
        as_buffers(bus, Trade(1.0), events)
        gate.opened.set()
    expect(events, subscription.delivered)


def loop(events: int) -> None:
    """A handler of an event loop."""

    async def handle(event: Tick) -> None:
        pass

    async def main() -> int:
        async with Dispatcher(max_queue=events + 1) as bus:
            subscription = bus.subscribe(handle)
            one_by_one(bus, Tick(), events)
            while subscription.delivered < events:
                await asyncio.sleep(0)
        return subscription.delivered

    expect(events, asyncio.run(main()))


def stream(events: int) -> None:
    """A stream."""

    async def main() -> int:
        async with Dispatcher(max_queue=events + 1) as bus, bus.stream(Tick) as ticks:
            one_by_one(bus, Tick(), events)
            for _ in range(events):
                await anext(ticks)
            return ticks.subscription.delivered

    expect(events, asyncio.run(main()))


def expect(wanted: int, delivered: int) -> None:
    """End the program where the path did something else."""
    if delivered != wanted:
        raise SystemExit(f"{delivered} delivered, not {wanted}")


PATHS: dict[str, Callable[[int], None]] = {
    "publish": partial(queued, deliver=False),
    "publish and deliver": queued,
    "publish_many": partial(queued, publish=many_at_once, deliver=False),
    "publish_many and deliver": partial(queued, publish=many_at_once),
    "to a handler of batches": partial(queued, publish=many_at_once, batch=BATCH),
    "to 100 subscribers": partial(queued, subscribers=100),
    "to a base class": partial(queued, event_class=Base, subclasses=True),
    "to a mailbox": partial(queued, policy="drop_oldest"),
    "records": partial(queued, event_class=Trade, event=Trade(1.0)),
    "records in buffers": partial(queued, event_class=Trade, event=Trade(1.0), publish=as_buffers),
    "records to batches": partial(queued, event_class=Trade, event=Trade(1.0), publish=as_buffers, batch=BATCH),
    "direct": direct,
    "native": native,
    "event loop": loop,
    "stream": stream,
}


def main(events: int) -> None:
    """Run them all."""
    gc.disable()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name, path in PATHS.items():
        print(name)
        for times in (WARM_UP, events, 2 * events):
            os.getppid()
            path(times)
    os.getppid()


if __name__ == "__main__":
    main(int(sys.argv[1]))
