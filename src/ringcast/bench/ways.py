"""Ringcast's ways, one or two for each mode."""

from __future__ import annotations

import array
import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ringcast import Dispatcher, record
from ringcast._add_up import add_up
from ringcast.bench.work import Channel, Load, Tally, Way, count_batches
from ringcast.records import uint64

BATCH = 256  # events in a list or buffer, in the modes "batch" and "native"


@contextmanager
def queued(load: Load) -> Iterator[Channel]:
    """One publish for each event, one call of a handler for each delivery, on a worker."""
    with Dispatcher() as bus:
        for event_class, handlers in zip(load.classes, load.handlers(), strict=True):
            for handler in handlers:
                bus.subscribe(event_class, handler)
        yield Channel([bus.publish] * len(load.classes), [make() for make in load.classes], bus.wait_idle)


@contextmanager
def direct(load: Load) -> Iterator[Channel]:
    """Handlers are called by publish."""
    with Dispatcher() as bus:
        for event_class, handlers in zip(load.classes, load.handlers(), strict=True):
            for handler in handlers:
                bus.subscribe(event_class, handler, mode="direct")
        yield Channel([bus.publish] * len(load.classes), [make() for make in load.classes])


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="bench-loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def coroutines(load: Load) -> Iterator[Channel]:
    """Published from a thread, handled by `async def` handlers on a loop in another one."""
    with event_loop() as loop, Dispatcher() as bus:
        for event_class, handlers in zip(load.classes, load.handlers_on_loop(), strict=True):
            for handler in handlers:
                bus.subscribe(event_class, handler, loop=loop)
        yield Channel([bus.publish] * len(load.classes), [make() for make in load.classes], load.settle)


@contextmanager
def streams(load: Load) -> Iterator[Channel]:
    """Published from a thread, taken from `async for` by a task for each subscriber on a loop in another one."""
    handlers = load.handlers_on_loop(asynchronous=False)

    async def consume(stream: Any, handler: Callable[[Any], object]) -> None:
        async with stream:
            async for event in stream:
                handler(event)

    async def start(bus: Dispatcher) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(consume(bus.stream(event_class), handler))
            for event_class, of_type in zip(load.classes, handlers, strict=True)
            for handler in of_type
        ]

    async def end(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with event_loop() as loop, Dispatcher() as bus:
        tasks = asyncio.run_coroutine_threadsafe(start(bus), loop).result()
        try:
            yield Channel([bus.publish] * len(load.classes), [make() for make in load.classes], load.settle)
        finally:
            asyncio.run_coroutine_threadsafe(end(tasks), loop).result()


@contextmanager
def batches(load: Load, many: bool, size: int = BATCH) -> Iterator[Channel]:
    """Lists of events out; in, one by one or lists as well."""
    with Dispatcher() as bus:
        for event_class, handlers in zip(load.classes, load.handlers(count_batches), strict=True):
            for handler in handlers:
                bus.subscribe(event_class, handler, batch=size)
        events = [make() for make in load.classes]
        if many:
            yield Channel([bus.publish_many] * len(events), [[event] * size for event in events], bus.wait_idle)
        else:
            yield Channel([bus.publish] * len(events), events, bus.wait_idle)


def trade(number: int) -> Any:
    """A record type of two fields, 16 bytes."""
    return record(type(f"Trade{number}", (), {"__annotations__": {"price": float, "size": int}}))


@contextmanager
def records(load: Load, batch: int | None = None) -> Iterator[Channel]:
    """Records that are made and published one by one."""
    with Dispatcher() as bus:
        kinds = [trade(number) for number in range(load.shape.types)]
        made = load.handlers(None if batch is None else count_batches)
        for kind, handlers in zip(kinds, made, strict=True):
            for handler in handlers:
                if batch is None:
                    bus.subscribe(kind, handler)
                else:
                    bus.subscribe(kind, handler, batch=batch)
        yield Channel([bus.publish] * len(kinds), kinds, bus.wait_idle, makes=True)


class Totals:
    """What a native handler keeps: how many records there were, and the sum of their first fields."""

    def __init__(self) -> None:
        self.memory = array.array("Q", [0, 0])

    def seen(self) -> int:
        """How many; -1 if the sum shows that they were not those that were published."""
        count, total = self.memory
        return count if total == count // BATCH * sum(range(BATCH)) else -1


def native_tally() -> Tally:
    """A native handler has no Python handler: here it is the memory that it counts in."""
    totals = Totals()
    return Tally(totals.memory, totals.seen)  # type: ignore[arg-type]


def sequence(number: int) -> Any:
    """A record type of 16 bytes whose first field is counted up."""
    return record(type(f"Sequence{number}", (), {"__annotations__": {"number": uint64, "value": float}}))


def sequence_bytes() -> bytes:
    """BATCH records of it."""
    return array.array("Q", [part for number in range(BATCH) for part in (number, 0)]).tobytes()


@contextmanager
def native(load: Load) -> Iterator[Channel]:
    """Records side by side in, C functions out."""
    with Dispatcher() as bus:
        kinds = [sequence(number) for number in range(load.shape.types)]
        for kind, memories in zip(kinds, load.handlers(native_tally), strict=True):
            for memory in memories:
                bus.subscribe_native(kind, add_up, memory)
        sends = [_publish_records(bus, kind) for kind in kinds]
        yield Channel(sends, [sequence_bytes()] * len(kinds), bus.wait_idle)


def _publish_records(bus: Dispatcher, kind: Any) -> Callable[[bytes], object]:
    return lambda buffer: bus.publish_many(buffer, kind)


WAYS = [
    Way("Ringcast", "queued", queued),
    Way("Ringcast", "direct", direct),
    Way("Ringcast, async def", "asyncio", coroutines),
    Way("Ringcast, stream", "asyncio", streams),
    Way("Ringcast", "batch", partial(batches, many=False)),
    Way("Ringcast, publish_many", "batch", partial(batches, many=True), unit=BATCH),
    Way("Ringcast, batch=512", "record", partial(records, batch=512)),
    Way("Ringcast", "record", records),
    Way("Ringcast, publish_many", "native", native, unit=BATCH),
]
