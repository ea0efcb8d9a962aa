"""Where Ringcast is not the fastest: what a row pays for being more than what stands beside it.

    python benchmarks/slower.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/measure.py. What is wanted only says that it got no worse.
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator

from measure import Row, Tick, compare, handlers, per_event, time_loop
from modes import direct_to_one
from ratios import publish_to_one
from ringcast import Dispatcher

CALLS = 100_000  # a tenth of them, which is what `time_loop` times at once, fits between two switches of a busy machine


def direct_call() -> float:
    return direct_to_one(CALLS)


def publish_call() -> float:
    return publish_to_one(CALLS)


def call(calls: int = CALLS) -> float:
    (handler,) = handlers(1)
    return time_loop(handler, calls)


def simple_queue_put(calls: int = CALLS) -> float:
    items: queue.SimpleQueue[Tick] = queue.SimpleQueue()
    return time_loop(items.put, calls)


def subscribe_and_cancel(times: int = 1_000) -> float:
    (handler,) = handlers(1)
    with Dispatcher() as bus:
        start = time.perf_counter()
        for _ in range(times):
            bus.subscribe(Tick, handler).cancel()
        return per_event(time.perf_counter() - start, times)


def blinker_connect_and_disconnect(times: int = 10_000) -> float:
    from blinker import Signal

    (handler,) = handlers(1)
    signal = Signal()
    start = time.perf_counter()
    for _ in range(times):
        signal.connect(handler, weak=False)
        signal.disconnect(handler)
    return per_event(time.perf_counter() - start, times)


def rows() -> Iterator[Row]:
    yield Row("direct, 1 handler / handler(event)", direct_call, call, 5)
    yield Row("publish to 1 subscriber / SimpleQueue.put", publish_call, simple_queue_put, 3)
    yield Row(
        "subscribe and cancel / blinker connect and disconnect",
        subscribe_and_cancel,
        blinker_connect_and_disconnect,
        40,
        peer="blinker",
    )


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
