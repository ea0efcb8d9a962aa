"""What the benchmarks that compare share: the timing of a call, and a table of rows, ours against theirs.

A value is nanoseconds per operation. Both sides of a row are timed in turn, in one process. The `x` of a row
is how many times as long theirs takes as ours: above 1 ours is quicker. It is the median of its repeats, so a machine
that changes its speed between repeats does not shift it.
Handlers do nothing; every one is a function of its own, as in a real program. The events of a run are one object: the
cost of making events is not the dispatcher's.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyperf

from ringcast import __version__

Measure = Callable[[], float]


class Tick:
    """An event."""

    __slots__ = ()


class Row(NamedTuple):
    """One line of the table: `ours` against `theirs`, with ours/theirs to be at most `limit`."""

    name: str
    ours: Measure
    theirs: Measure
    limit: float
    peer: str | None = None  # the package that `theirs` needs; where it is absent the row is named and skipped


def handlers(count: int) -> list[Callable[[Tick], None]]:
    """No-op handlers, each with code of its own."""
    return [eval("lambda event: None") for _ in range(count)]


def per_event(seconds: float, events: int) -> float:
    return seconds / events * 1e9


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


def python_loop(subscribers: int, events: int) -> float:
    """Per event, the handlers called in a loop."""
    functions, event = handlers(subscribers), Tick()
    start = time.perf_counter()
    for _ in range(events):
        for function in functions:
            function(event)
    return per_event(time.perf_counter() - start, events)


def benchmark(name: str, nanoseconds: list[float]) -> pyperf.Benchmark:
    run = pyperf.Run(
        [value * 1e-9 for value in nanoseconds],
        metadata={"name": name, "python_version": platform.python_version(), "ringcast": __version__},
        collect_metadata=False,
    )
    return pyperf.Benchmark([run])


def compare(description: str | None, rows: Iterable[Row]) -> int:
    """The command line of a comparison: times the rows, prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="how often each side of a row is timed")
    parser.add_argument("--rows", default="*", help="only rows whose name matches this pattern, as in '*SimpleQueue*'")
    parser.add_argument("--output", help="write all values as pyperf JSON")
    options = parser.parse_args()
    rows = [row for row in rows if fnmatch.fnmatch(row.name, options.rows)]
    if not rows:
        parser.error(f"no row's name matches {options.rows!r}; a part of a name is matched by '*PART*'")
    print(f"ringcast {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs")
    print(f"{'ns per event (median)':66s} {'ours':>9s} {'theirs':>9s} {'x':>7s}  wanted")
    results, missed = [], 0
    for row in rows:
        if row.peer is not None and importlib.util.find_spec(row.peer) is None:
            print(f"{row.name:66s} skipped: {row.peer} is not installed")
            continue
        row.ours(), row.theirs()  # warm-up: specialised bytecode, first pages
        values = [(row.ours(), row.theirs()) for _ in range(options.repeats)]
        ours, theirs = (list(side) for side in zip(*values, strict=True))
        ratio = statistics.median(one / other for one, other in values)
        results += [benchmark(f"{row.name}: ours", ours), benchmark(f"{row.name}: theirs", theirs)]
        missed += ratio > row.limit
        mark = "" if ratio <= row.limit else "   MISSED"
        medians = f"{statistics.median(ours):9.1f} {statistics.median(theirs):9.1f}"
        print(f"{row.name:66s} {medians} {1 / ratio:7.2f}  >= {1 / row.limit:.2g}{mark}")
    if options.output:
        pyperf.BenchmarkSuite(results).dump(options.output, replace=True)
    return 1 if missed else 0
