"""Resident memory for an event that waits: how much a process grows by while its subscribers are held.

Each measurement has a process of its own, `python -m ringcast.bench.memory WAY SUBSCRIBERS EVENTS`, which prints the
bytes for an event. Needs psutil.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import gc
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from ringcast import Dispatcher
from ringcast.bench.results import Row
from ringcast.bench.timing import in_turn
from ringcast.bench.ways import trade
from ringcast.bench.work import Load, LostEvents, Shape

Hold = tuple[
    Callable[[], object], Callable[[], int]
]  # adds one event, and lets all go and says how many deliveries came


@contextmanager
def ringcast(subscribers: int, events: int, records: bool) -> Iterator[Hold]:
    """Subscribers of whom the first is held in its first call."""
    held, entered = threading.Event(), threading.Event()
    seen = 0

    def wait(event: object) -> None:
        nonlocal seen
        seen += 1
        entered.set()
        held.wait()

    load = Load(Shape(1, subscribers))
    kind = trade(0) if records else load.classes[0]
    with Dispatcher(max_queue=events) as bus:
        bus.subscribe(kind, wait)
        others = [bus.subscribe(kind, handler) for handler in load.handlers()[0][1:]]
        shared = None if records else kind()

        def add() -> None:
            bus.publish(kind(101.5, 7) if records else shared)

        def finish() -> int:
            entered.wait()
            held.set()
            bus.wait_idle()
            return seen + sum(other.delivered for other in others)

        yield add, finish


@contextmanager
def queues(subscribers: int, events: int, make: Callable[[], Any], objects: bool) -> Iterator[Hold]:
    """A queue for each subscriber, and nobody who takes from them."""
    made = [make() for _ in range(subscribers)]
    puts = [getattr(each, "put_nowait", None) or each.put for each in made]
    kind: Any = dataclasses.make_dataclass("Trade", [("price", float), ("size", int)], slots=True)
    shared = kind(101.5, 7)

    def add() -> None:
        event = kind(101.5, 7) if objects else shared
        for put in puts:
            put(event)

    yield add, lambda: sum(each.qsize() for each in made)


class Holder(NamedTuple):
    """A way to hold events that wait."""

    mode: str
    open: Callable[[int, int], Any]


HOLDERS = {
    "Ringcast": Holder("queued", lambda subscribers, events: ringcast(subscribers, events, False)),
    "SimpleQueue": Holder("queued", lambda subscribers, events: queues(subscribers, events, queue.SimpleQueue, False)),
    "asyncio.Queue": Holder("queued", lambda subscribers, events: queues(subscribers, events, asyncio.Queue, False)),
    "Ringcast, records": Holder("record", lambda subscribers, events: ringcast(subscribers, events, True)),
    "SimpleQueue of dataclasses": Holder(
        "record", lambda subscribers, events: queues(subscribers, events, queue.SimpleQueue, True)
    ),
}


def held(name: str, subscribers: int, events: int) -> float:
    """Bytes that this process grows by for an event, all of them held at once.

    Raises:
        LostEvents: they were not all there.
    """
    resident()  # what it imports leaves free memory
    first = events // 4  # these take what the process has free already
    with HOLDERS[name].open(subscribers, first + events) as (add, finish):
        for _ in range(first):
            add()
        gc.collect()
        give_free_memory_back()
        before = resident()
        for _ in range(events):
            add()
        grown = resident() - before
        there = finish()
    if there != subscribers * (first + events):
        raise LostEvents(f"{name}: {there} deliveries of {subscribers * (first + events)} came")
    return float(grown) / events


def give_free_memory_back() -> None:
    """Let glibc return its free pages: events would fill them without any growth. Other systems have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def resident() -> int:
    """Bytes of resident memory after garbage is collected, without pages of files: the system takes these back."""
    import psutil

    gc.collect()
    usage = psutil.Process().memory_info()
    return int(usage.rss - getattr(usage, "shared", 0))  # macOS and Windows do not tell


def held_by_a_process(name: str, subscribers: int, events: int, timeout: float | None = None) -> float:
    """`held` in a new process.

    Raises:
        LostEvents: the process has failed.
        subprocess.TimeoutExpired: it has not ended after `timeout` seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", "ringcast.bench.memory", name, str(subscribers), str(events)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, "MIMALLOC_PURGE_DELAY": "0"},  # free pages go back at once, not while it measures
    )
    if done.returncode:
        raise LostEvents(f"memory of {name}: {done.stderr.strip()}")
    return float(done.stdout)


def measure(
    modes: Iterable[str], subscribers: Iterable[int], repeats: int, events: int, between: Callable[[], object]
) -> Iterator[Row]:
    """Rows for each way and number of subscribers.

    Raises:
        LostEvents: a process has failed.
    """
    cases = [(name, count) for count in subscribers for name, holder in HOLDERS.items() if holder.mode in modes]
    values = in_turn([partial(held_by_a_process, *case, events) for case in cases], repeats, between)
    for (name, count), own in zip(cases, values, strict=True):
        yield Row("memory", HOLDERS[name].mode, name, 1, count, "bytes/event", tuple(own), events=events)


if __name__ == "__main__":
    print(held(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
