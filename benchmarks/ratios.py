"""Speed as ratios: each row times Ringcast and what a Python user would take instead, in turn, in one process.

    python benchmarks/ratios.py [--repeats N] [--rows PATTERN] [--output FILE.json]

A value is nanoseconds per operation. The ratio of a row is the median of the ratios of its repeats, so a machine
that changes its speed between repeats does not shift it. Handlers do nothing; every one is a function of its own,
as in a real program. The events of a run are one object: the cost of making events is not the dispatcher's.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import os
import platform
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyperf

from ringcast import Dispatcher, __version__

Measure = Callable[[], float]


class Tick:
    """An event."""

    __slots__ = ()


class Row(NamedTuple):
    """One line of the table: `ours` against `theirs`, wanted as ours/theirs at most `limit`."""

    name: str
    ours: Measure
    theirs: Measure
    limit: float
    faster: bool = False  # shown as "times faster": theirs/ours at least 1/limit


def handlers(count: int) -> list[Callable[[Tick], None]]:
    """No-op handlers, each with code of its own."""
    return [eval("lambda event: None") for _ in range(count)]


def per_event(seconds: float, events: int) -> float:
    return seconds / events * 1e9


# --- one call of publish -----------------------------------------------------------------------------------


def time_loop(call: Callable[[Tick], object], calls: int) -> float:
    """Nanoseconds for a call from a Python loop, the loop itself taken off: the least of ten runs of each, which
    is what the loop costs when nothing interrupts it."""
    event, part = Tick(), calls // 10
    called, empty = [], []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(part):
            call(event)
        called.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(part):
            pass
        empty.append(time.perf_counter() - start)
    return per_event(min(called) - min(empty), part)


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


def python_loop(subscribers: int, events: int) -> float:
    """Per event, the handlers called in a loop."""
    functions, event = handlers(subscribers), Tick()
    start = time.perf_counter()
    for _ in range(events):
        for function in functions:
            function(event)
    return per_event(time.perf_counter() - start, events)


def rows() -> Iterator[Row]:
    yield Row("publish to 1 subscriber / deque(maxlen=0).append", publish_to_one, deque_append, 2.5)
    yield Row("publish to none / publish to 1 subscriber", publish_to_none, publish_to_one, 0.7)
    for subscribers, events, faster in ((1, 1_000_000, 1.5), (10, 200_000, 3), (100, 20_000, 5)):

        def ours(subscribers: int = subscribers, events: int = events) -> float:
            return queued(subscribers, events)

        def theirs(subscribers: int = subscribers, events: int = events) -> float:
            return simple_queues(subscribers, events)

        yield Row(f"queued, {subscribers} subscribers / SimpleQueue and thread each", ours, theirs, 1 / faster, True)
    yield Row(
        "queued, 100 subscribers / for handler in handlers: handler(event)",
        lambda: queued(100, 20_000),
        lambda: python_loop(100, 20_000),
        0.9,
    )


def benchmark(name: str, nanoseconds: list[float]) -> pyperf.Benchmark:
    run = pyperf.Run(
        [value * 1e-9 for value in nanoseconds],
        metadata={"name": name, "python_version": platform.python_version(), "ringcast": __version__},
        collect_metadata=False,
    )
    return pyperf.Benchmark([run])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="how often each side of a row is timed")
    parser.add_argument("--rows", default="*", help="only rows whose name matches this pattern, as in '*SimpleQueue*'")
    parser.add_argument("--output", help="write all values as pyperf JSON")
    options = parser.parse_args()
    print(f"ringcast {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs")
    print(f"{'ns per event (median)':66s} {'ours':>9s} {'theirs':>9s} {'ratio':>7s}  wanted")
    results, missed = [], 0
    for row in rows():
        if not fnmatch.fnmatch(row.name, options.rows):
            continue
        row.ours(), row.theirs()  # warm-up: specialised bytecode, first pages
        values = [(row.ours(), row.theirs()) for _ in range(options.repeats)]
        ours, theirs = (list(side) for side in zip(*values, strict=True))
        ratio = statistics.median(one / other for one, other in values)
        results += [benchmark(f"{row.name}: ours", ours), benchmark(f"{row.name}: theirs", theirs)]
        missed += ratio > row.limit
        shown, wanted = (
            (f"{1 / ratio:6.2f}x", f">= {1 / row.limit:.1f}x faster")
            if row.faster
            else (f"{ratio:7.2f}", f"<= {row.limit:.1f}")
        )
        mark = "" if ratio <= row.limit else "   MISSED"
        medians = f"{statistics.median(ours):9.1f} {statistics.median(theirs):9.1f}"
        print(f"{row.name:66s} {medians} {shown:>7s}  {wanted}{mark}")
    if options.output:
        pyperf.BenchmarkSuite(results).dump(options.output, replace=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
