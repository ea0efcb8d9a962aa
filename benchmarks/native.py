"""Speed of batches, records and native handlers, and what subscribers and types cost.

    python benchmarks/native.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/ratios.py. It needs NumPy and a C compiler, for benchmarks/native/client.c. With the
environment variable RINGCAST_YARDSTICK, the path of a C program that prints lines
`1xSUBSCRIBERS  publish NS ns   delivery NS ns` of a broadcast ring of its own, native delivery is set beside that.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import ringcast
from checks import Row, compare
from ratios import QUEUED, delivery, held
from ringcast import Dispatcher, record
from ringcast.bench import ways
from ringcast.bench.timing import per_event, repeat_call
from ringcast.bench.work import Way, ignore_events

BATCHES = Way("publish_many", "batch", functools.partial(ways.batches, many=True, size=1000), unit=1000)
YARDSTICK = os.environ.get("RINGCAST_YARDSTICK")


@record
class Pair:
    """16 bytes, as client.c has them."""

    payload: int
    more: int


@functools.cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """Where the C programs are built; gone at the end."""
    return tempfile.TemporaryDirectory()


def compiled(source: Path, name: str, *flags: str) -> Path:
    built = Path(scratch().name) / name
    subprocess.run(["cc", "-O3", *flags, str(source), "-o", str(built), "-pthread"], check=True)
    return built


@functools.cache
def client() -> ModuleType:
    source = Path(__file__).parent / "native" / "client.c"
    includes = [f"-I{ringcast.get_include()}", f"-I{sysconfig.get_path('include')}"]
    built = compiled(source, f"client{sysconfig.get_config_var('EXT_SUFFIX')}", "-shared", "-fPIC", *includes)
    spec = importlib.util.spec_from_file_location("client", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- records -----------------------------------------------------------------------------------------------------


@functools.cache
def array() -> np.ndarray[Any, Any]:
    values = np.zeros(2_000_000, Pair.dtype)
    values["payload"] = 1
    return values


def records_to_native(part: int) -> float:
    """Per record, publish_many of arrays to a native handler that sums a field."""
    values, total = array(), np.zeros(8, np.uint64)
    bus = Dispatcher()
    bus.subscribe_native(Pair, client().add, total)

    def run() -> None:
        for at in range(0, len(values), part):
            bus.publish_many(values[at : at + part])
        bus.close()

    nanoseconds = per_event(run, len(values))
    assert list(total[:2]) == [len(values)] * 2
    return nanoseconds


def copied_and_summed(part: int) -> float:
    """Per record, NumPy copies the same arrays and then sums the field."""
    values = array()

    def run() -> None:
        total = 0
        for at in range(0, len(values), part):
            total += int(values[at : at + part].copy()["payload"].sum())
        assert total == len(values)

    return per_event(run, len(values))


# --- from C to C ---------------------------------------------------------------------------------------------------


def native(subscribers: int, events: int, threads: int = 1) -> float:
    """Per delivery, from threads in C to handlers in C, from the start until close has delivered all."""
    totals = np.zeros((subscribers, 8), np.uint64)
    bus = Dispatcher()
    for total in totals:
        bus.subscribe_native(Pair, client().add, total)

    def run() -> None:
        client().publish(bus, Pair, events, threads)
        bus.close()

    nanoseconds = per_event(run, events * subscribers)
    assert (totals[:, 0] == events).all()
    return nanoseconds


@functools.cache
def yardstick() -> Path:
    assert YARDSTICK is not None
    return compiled(Path(YARDSTICK), "yardstick")


def ring_alone(subscribers: int) -> float:
    """Per delivery, what the yardstick prints: the median of its own repeats."""
    output = subprocess.run([str(yardstick())], capture_output=True, text=True, check=True).stdout
    values = re.findall(rf"^1x{subscribers} .*delivery +([0-9.]+) ns", output, re.MULTILINE)
    return statistics.median(map(float, values))


# --- a native subscriber beside Python ones ---------------------------------------------------------------------------


def python_handlers(beside: bool, events: int = 300_000) -> float:
    """Per record, published one by one to a Python handler, with a native one beside it or without."""
    event, total = Pair(1, 0), np.zeros(8, np.uint64)
    bus = Dispatcher()
    bus.subscribe(Pair, ignore_events().handler)
    if beside:
        bus.subscribe_native(Pair, client().add, total)

    def run() -> None:
        repeat_call(bus.publish, event, events)
        bus.close()

    return per_event(run, events)


# --- subscribers, types, publishers -----------------------------------------------------------------------------------


def held_publish(types: int, subscribers: int, used: int, calls: int = 200_000) -> float:
    """One call of publish with the loop around it, in turn over `used` of the types; nothing is handled meanwhile."""
    with held(types, subscribers, calls) as (bus, classes):
        events = [event_class() for event_class in classes[:used]]
        for event in events:  # every topic has its pages, and is scheduled
            bus.publish(event)
        turns = events * max(1, 10_000 // used)  # as many in each case: the loop costs the same
        rounds = calls // len(turns)

        def run() -> None:
            publish = bus.publish
            for _ in range(rounds):
                for event in turns:
                    publish(event)

        return per_event(run, rounds * len(turns))


def rows() -> Iterator[Row]:
    yield Row(
        "publish_many(1,000) to batch=1000 / publish and a handler of one",
        functools.partial(delivery, BATCHES, 1, 1_000_000),
        functools.partial(delivery, QUEUED, 1, 1_000_000),
        0.25,
    )
    for part in (1_000, 2_000_000):
        yield Row(
            f"records, publish_many of {part:,} to a native sum / NumPy copy and sum",
            functools.partial(records_to_native, part),
            functools.partial(copied_and_summed, part),
            3,
        )
    if YARDSTICK:
        for subscribers, events in ((1, 5_000_000), (10, 3_000_000), (100, 500_000)):
            yield Row(
                f"native to native, {subscribers} subscribers, per delivery / the yardstick",
                functools.partial(native, subscribers, events),
                functools.partial(ring_alone, subscribers),
                1.25,
            )
    yield Row(
        "a Python handler of records with a native one beside it / without",
        functools.partial(python_handlers, True),
        functools.partial(python_handlers, False),
        1.05,
    )
    yield Row(
        "publish to 1,000 subscribers / to 1",
        functools.partial(held_publish, 1, 1000, 1),
        functools.partial(held_publish, 1, 1, 1),
        1.3,
    )
    yield Row(
        "publish to 1 type of 10,000 / of 1",
        functools.partial(held_publish, 10_000, 1, 1),
        functools.partial(held_publish, 1, 1, 1),
        1.5,
    )
    for used in (10, 100, 1_000, 10_000):
        yield Row(
            f"publish to {used:,} types in turn / to 1, over and over",
            functools.partial(held_publish, used, 1, used),
            functools.partial(held_publish, 1, 1, 1),
            1.5,
        )
    for threads in (2, 4, 8):
        yield Row(
            f"native to native, {threads} publishers / 1 publisher",
            functools.partial(native, 1, 2_000_000, threads),
            functools.partial(native, 1, 2_000_000),
            10,
        )


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
