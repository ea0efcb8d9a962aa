"""A table of ratios with limits: what the scripts that set a limit share. How it is timed: ringcast.bench.timing.

A value is nanoseconds per operation. Both sides of a row are timed in turn, in one process. The `x` of a row is how
many times as long theirs takes as ours: above 1 ours is quicker. Handlers do nothing, and the events of a run are one
object: ringcast.bench.work.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import os
import platform
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyperf

from ringcast import __version__
from ringcast.bench.timing import in_turn, ratio, spread

Measure = Callable[[], float]


class Row(NamedTuple):
    """One line of the table: `ours` against `theirs`, with ours/theirs to be at most `limit`."""

    name: str
    ours: Measure
    theirs: Measure
    limit: float
    peer: str | None = None  # the package that `theirs` needs; where it is absent the row is named and skipped


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
        ours, theirs = in_turn([row.ours, row.theirs], options.repeats)
        x = ratio(theirs, ours)
        results += [benchmark(f"{row.name}: ours", ours), benchmark(f"{row.name}: theirs", theirs)]
        missed += x < 1 / row.limit
        mark = "   MISSED" if x < 1 / row.limit else ""
        medians = f"{spread(ours).median:9.1f} {spread(theirs).median:9.1f}"
        print(f"{row.name:66s} {medians} {x:7.2f}  >= {1 / row.limit:.2g}{mark}")
    if options.output:
        pyperf.BenchmarkSuite(results).dump(options.output, replace=True)
    return 1 if missed else 0
