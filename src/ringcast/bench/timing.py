"""The way of timing: what all measurements of Ringcast share, `benchmarks/` of the repository as well.

What is compared is measured in turn, in one process, several times: `in_turn`. Then each repeat has a ratio of its own,
and the median of these is not shifted by a machine that changes its speed in between: `ratio`.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
PARTS = 10  # in which a call is timed


class Spread(NamedTuple):
    """Where repeated values lie."""

    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""

    @property
    def relative(self) -> float:
        """From the lower to the upper quartile, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9 of at least two values."""
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    return {"p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998]}


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """How many times `others` the values are: the median of the ratios of repeats, which were taken in turn."""
    return statistics.median(one / other for one, other in zip(values, others, strict=False))


def in_turn(
    measures: Sequence[Callable[[], T]], repeats: int, between: Callable[[], object] = lambda: None
) -> list[list[T]]:
    """Call the measures in turn, `repeats` times, so that what the machine does meanwhile meets all of them.

    Args:
        measures: each returns what it has measured. In each repeat another one is the first.
        repeats: how often each is called.
        between: is called before each repeat. Then garbage is collected.

    Returns:
        A list for each measure: what it has returned, in order.
    """
    found: list[list[T]] = [[] for _ in measures]
    order = list(range(len(measures)))
    for repeat in range(repeats):
        between()
        gc.collect()
        first = repeat % max(1, len(order))
        for at in order[first:] + order[:first]:
            found[at].append(measures[at]())
    return found


def seconds(run: Callable[[], object]) -> float:
    """How long a call of `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def per_event(run: Callable[[], object], events: int) -> float:
    """Nanoseconds for each of so many events that `run` handles; its loop is among them."""
    return seconds(run) / events * 1e9


def least(measure: Callable[[], float], times: int) -> float:
    """The least of several values: for what is always the same if nothing disturbs, and is only ever added to."""
    return min(measure() for _ in range(times))


def repeat_call(call: Callable[[Any], object], argument: object, times: int) -> None:
    """The loop that costs least."""
    for _ in itertools.repeat(None, times):
        call(argument)


def _repeat_nothing(times: int) -> None:
    for _ in itertools.repeat(None, times):
        pass


def per_call(loop: Callable[[int], object], calls: int) -> float:
    """Nanoseconds for a call, without the loop around it.

    Loop and calls are timed in turn in ten parts, and the least of each counts: what it takes when nothing interrupts.

    Args:
        loop: makes as many calls as it is told, as `repeat_call` does.
        calls: how many in all.
    """
    part = calls // PARTS
    called, empty = [], []
    for _ in range(PARTS):
        called.append(seconds(lambda: loop(part)))
        empty.append(seconds(lambda: _repeat_nothing(part)))
    return (min(called) - min(empty)) / part * 1e9
