"""Speed beside others: each row times Ringcast and what a Python user would take instead, in turn, in one process.

    python benchmarks/ratios.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/measure.py.
"""

from __future__ import annotations

import collections
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator

from measure import Row, Tick, compare, handlers, per_event, python_loop, time_loop
from ringcast import Dispatcher

# --- one call of publish -----------------------------------------------------------------------------------


def deque_append(calls: int = 500_000) -> float:
    return time_loop(collections.deque(maxlen=0).append, calls)


def publish_to_one(calls: int = 200_000) -> float:
    """The subscriber is held in its first call, so that only publishing is timed."""
    held = threading.Event()
    with Dispatcher(max_queue=calls) as bus:
        bus.subscribe(Tick, lambda event: held.wait())
        nanoseconds = time_loop(bus.publish, calls)
        held.set()
    return nanoseconds


def publish_to_none(calls: int = 500_000) -> float:
    with Dispatcher() as bus:
        bus.subscribe(Tick, lambda event: None).cancel()
        return time_loop(bus.publish, calls)


# --- from publish to the end of the last handler -----------------------------------------------------------------


def queued(subscribers: int, events: int) -> float:
    """Per event, from the first publish until close has delivered all."""
    bus = Dispatcher()
    for handler in handlers(subscribers):
        bus.subscribe(Tick, handler)
    publish, event = bus.publish, Tick()
    start = time.perf_counter()
    for _ in range(events):
        publish(event)
    bus.close()
    return per_event(time.perf_counter() - start, events)


def simple_queues(subscribers: int, events: int) -> float:
    """Per event, a queue.SimpleQueue and a thread for each subscriber."""

    def consume(get: Callable[[], object], handler: Callable[..., None]) -> None:
        while (event := get()) is not None:
            handler(event)

    queues: list[queue.SimpleQueue[Tick | None]] = [queue.SimpleQueue() for _ in range(subscribers)]
    threads = [
        threading.Thread(target=consume, args=(each.get, handler))
        for each, handler in zip(queues, handlers(subscribers), strict=True)
    ]
    for thread in threads:
        thread.start()
    puts, event = [each.put for each in queues], Tick()
    start = time.perf_counter()
    if subscribers == 1:
        put = puts[0]
        for _ in range(events):
            put(event)
    else:
        for _ in range(events):
            for put in puts:
                put(event)
    for put in puts:
        put(None)
    for thread in threads:
        thread.join()
    return per_event(time.perf_counter() - start, events)


def rows() -> Iterator[Row]:
    yield Row("publish to 1 subscriber / deque(maxlen=0).append", publish_to_one, deque_append, 2.5)
    yield Row("publish to none / publish to 1 subscriber", publish_to_none, publish_to_one, 0.7)
    for subscribers, events, faster in ((1, 1_000_000, 1.5), (10, 200_000, 3), (100, 20_000, 5)):

        def ours(subscribers: int = subscribers, events: int = events) -> float:
            return queued(subscribers, events)

        def theirs(subscribers: int = subscribers, events: int = events) -> float:
            return simple_queues(subscribers, events)

        yield Row(f"queued, {subscribers} subscribers / SimpleQueue and thread each", ours, theirs, 1 / faster)
    yield Row(
        "queued, 100 subscribers / for handler in handlers: handler(event)",
        lambda: queued(100, 20_000),
        lambda: python_loop(100, 20_000),
        0.9,
    )


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
