"""Speed of the modes `direct` and `asyncio` beside others: each against what a Python user would take instead.

    python benchmarks/modes.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/measure.py. A peer that is not installed is named and its row skipped.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

from measure import Row, Tick, compare, handlers, per_event, python_loop, time_loop
from ringcast import Dispatcher

# --- direct: one call of publish, in which one handler is called ----------------------------------------------


def direct_to_one(calls: int = 500_000) -> float:
    (handler,) = handlers(1)
    with Dispatcher() as bus:
        bus.subscribe(Tick, handler, mode="direct")
        return time_loop(bus.publish, calls)


def blinker_send(calls: int = 50_000) -> float:
    from blinker import Signal

    (handler,) = handlers(1)
    signal = Signal()
    signal.connect(handler, weak=False)
    return time_loop(signal.send, calls)


def pyee_emit(calls: int = 50_000) -> float:
    from pyee import EventEmitter

    emitter, (handler,) = EventEmitter(), handlers(1)
    emitter.on("tick", handler)
    return time_loop(functools.partial(emitter.emit, "tick"), calls)  # a partial costs less than a lambda


def psygnal_emit(calls: int = 50_000) -> float:
    from psygnal import SignalInstance

    (handler,) = handlers(1)
    signal = SignalInstance((Tick,))
    signal.connect(handler)
    return time_loop(signal.emit, calls)


# --- direct: many handlers ---------------------------------------------------------------------------------------


def direct(subscribers: int, events: int) -> float:
    """Per event, all handlers called."""
    with Dispatcher() as bus:
        for handler in handlers(subscribers):
            bus.subscribe(Tick, handler, mode="direct")
        publish, event = bus.publish, Tick()
        start = time.perf_counter()
        for _ in range(events):
            publish(event)
        return per_event(time.perf_counter() - start, events)


# --- asyncio: from another thread into a coroutine -------------------------------------------------------------


async def fed_by_a_thread(events: int, feed: Callable[[], None], consume: Callable[[], Awaitable[None]]) -> float:
    """Per event, from the start of the thread that feeds until the coroutine has all."""
    start = time.perf_counter()
    thread = threading.Thread(target=feed)
    thread.start()
    await consume()
    nanoseconds = per_event(time.perf_counter() - start, events)
    thread.join()
    return nanoseconds


def stream(events: int = 200_000) -> float:
    async def main() -> float:
        async with Dispatcher() as bus, bus.stream(Tick) as ticks:
            publish, event = bus.publish, Tick()

            def feed() -> None:
                for _ in range(events):
                    publish(event)

            async def consume() -> None:
                left = events
                async for _ in ticks:
                    left -= 1
                    if not left:
                        return

            return await fed_by_a_thread(events, feed, consume)

    return asyncio.run(main())


def asyncio_queue(events: int = 20_000) -> float:
    """An asyncio.Queue, which other threads may only reach through the loop."""

    async def main() -> float:
        loop, queue, event = asyncio.get_running_loop(), asyncio.Queue[Tick](), Tick()
        put = queue.put_nowait

        def feed() -> None:
            for _ in range(events):
                loop.call_soon_threadsafe(put, event)

        async def consume() -> None:
            for _ in range(events):
                await queue.get()

        return await fed_by_a_thread(events, feed, consume)

    return asyncio.run(main())


def rows() -> Iterator[Row]:
    yield Row("direct, 1 handler / blinker Signal.send", direct_to_one, blinker_send, 1 / 15, "blinker")
    yield Row("direct, 1 handler / pyee EventEmitter.emit", direct_to_one, pyee_emit, 1 / 8, "pyee")
    yield Row("direct, 1 handler / psygnal SignalInstance.emit", direct_to_one, psygnal_emit, 1 / 20, "psygnal")
    yield Row(
        "direct, 100 handlers / for handler in handlers: handler(event)",
        lambda: direct(100, 20_000) / 100,
        lambda: python_loop(100, 20_000) / 100,
        0.9,
    )
    yield Row("asyncio stream / asyncio.Queue and call_soon_threadsafe", stream, asyncio_queue, 1 / 5)


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
