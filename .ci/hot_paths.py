"""The hot paths, for .ci/instructions.py to count: python .ci/hot_paths.py EVENTS

Runs each path three times, to warm up, with EVENTS and with 2 EVENTS, and prints its name. Before each run and at the
end it calls `os.getppid`, at which the counter writes down what it has. Beyond the paths it uses only what the first
version had, and leaves out paths that the Ringcast which is imported does not have.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from itertools import repeat
from typing import Any

from ringcast import Dispatcher

WARM_UP = 1_000  # events
BATCH = 100


class Tick:
    """An event."""

    __slots__ = ()


def to_a_held_handler(events: int, publish: Callable[[Dispatcher, int], object], deliver: bool) -> None:
    """Publish while the handler is held in its first call; then let it have the rest, or drop that."""
    entered, held = threading.Event(), threading.Event()

    def wait(event: object) -> None:
        if not entered.is_set():
            entered.set()
            held.wait()

    with Dispatcher(max_queue=events + 1) as bus:
        subscription = bus.subscribe(Tick, wait)
        bus.publish(Tick())
        entered.wait()
        publish(bus, events)
        if not deliver:
            subscription.cancel(discard=True)
        held.set()
    if subscription.delivered + subscription.dropped != events + 1:
        raise SystemExit(f"{subscription.delivered} delivered and {subscription.dropped} dropped of {events + 1}")


def one_by_one(bus: Dispatcher, events: int) -> None:
    """Call publish for each event."""
    publish = bus.publish
    for event in repeat(Tick(), events):
        publish(event)


def many_at_once(bus: Dispatcher, events: int) -> None:
    """Call publish_many for each BATCH of events."""
    publish_many: Any = bus.publish_many
    for batch in repeat([Tick()] * BATCH, events // BATCH):
        publish_many(batch)


def direct(events: int) -> None:
    """A handler inside publish."""
    seen = 0

    def count(event: object) -> None:
        nonlocal seen
        seen += 1

    with Dispatcher() as bus:
        bus.subscribe(Tick, count, mode="direct")
        one_by_one(bus, events)
    if seen != events:
        raise SystemExit(f"{seen} delivered of {events}")


PATHS: dict[str, Callable[[int], None]] = {
    "publish to one": lambda events: to_a_held_handler(events, one_by_one, deliver=False),
    "publish to one and deliver": lambda events: to_a_held_handler(events, one_by_one, deliver=True),
    "publish_many to one": lambda events: to_a_held_handler(events, many_at_once, deliver=False),
    "direct": direct,
}

NEEDS = {"publish_many to one": "publish_many"}


def main(events: int) -> None:
    """Run them all."""
    gc.disable()
    for name, path in PATHS.items():
        if name in NEEDS and not hasattr(Dispatcher, NEEDS[name]):
            continue
        print(name)
        for times in (WARM_UP, events, 2 * events):
            os.getppid()
            path(times)
    os.getppid()


if __name__ == "__main__":
    main(int(sys.argv[1]))
