"""What is left behind: nothing, after millions of events, subscriptions and dispatchers.

    python benchmarks/leaks.py [--full] [NAME...]

Each case runs in a fresh process and compares resident size and Python's allocated blocks after a warm-up with those at
the end. Exits with 1 where they grow, each time that a case is run. --full runs 10 million events, a million
subscriptions and 100,000 dispatchers; without it a fiftieth of that.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator

from ringcast import Dispatcher, QueueFullError
from ringcast.bench.memory import resident
from ringcast.bench.timing import seconds

BLOCKS = 500  # that may come and go: caches, free lists
KIBIBYTES = 4096
ROUNDS = 3  # in each of which a case has to grow to be found leaking


class Event:
    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number


class Counted(Event):
    """Counts how many were made and freed."""

    __slots__ = ()
    made = 0
    freed = 0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        Counted.made += 1

    def __del__(self) -> None:
        Counted.freed += 1


def ignore(event: object) -> None:
    pass


def fail(event: object) -> None:
    raise ValueError(event)


def events(count: int) -> None:
    """Events that are published, to handlers that take them, fail, or drop them."""
    with Dispatcher(on_error=ignore) as bus:
        bus.subscribe(Event, ignore)
        bus.subscribe(Event, ignore, policy="drop_oldest", max_queue=100)
        for number in range(count):
            bus.publish(Event(number))


def every_policy(count: int) -> None:
    """Events that are counted one by one: each is freed exactly once, whatever becomes of it."""
    Counted.made = Counted.freed = 0
    finalized: list[int] = []
    with Dispatcher(max_queue=100, on_error=ignore) as bus:
        bus.subscribe(Counted, ignore)
        bus.subscribe(Counted, fail)
        bus.subscribe(Counted, ignore, where=lambda event: event.number % 2)
        bus.subscribe(Counted, ignore, context="publisher")
        bus.subscribe(Counted, fail, mode="direct")
        bus.subscribe(object, ignore)
        for policy in ("drop_newest", "drop_oldest", "latest"):
            bus.subscribe(Counted, ignore, policy=policy, max_queue=10)
        bus.subscribe(Counted, ignore, policy="latest", key=lambda event: event.number % 100)
        bus.subscribe(Counted, fail, policy="drop_oldest", where=lambda event: 1 // (event.number % 3))
        refusing = bus.subscribe(Counted, ignore, policy="raise", max_queue=5)
        for number in range(count):
            event = Counted(number)
            if number % 1000 == 0:
                weakref.finalize(event, finalized.append, number)
            try:
                bus.publish(event)
            except QueueFullError:
                bus.wait_idle()
            if number % 5000 == 4999:
                refusing.cancel(discard=True)
                refusing = bus.subscribe(Counted, ignore, policy="raise", max_queue=5)
            del event
    gc.collect()
    assert Counted.made == count
    assert Counted.freed == count, f"{count} made, {Counted.freed} freed"
    assert sorted(finalized) == list(range(0, count, 1000))


def subscriptions(count: int) -> None:
    """Subscriptions that come and go, with and without events, to lasting and to passing classes."""
    with Dispatcher() as bus:
        for number in range(count):
            subscription = bus.subscribe(Event, ignore)
            if number % 4 == 0:
                bus.publish(Event(number))
            subscription.cancel(discard=number % 8 == 0)
            if number % 50 == 0:
                passing = type("Passing", (), {})
                with bus.subscribe(passing, ignore):
                    bus.publish(passing())
            if number % 64 == 0:
                bus.wait_idle()


def subscriptions_with_options(count: int) -> None:
    """The same with the options that have objects of their own."""
    options: tuple[dict[str, object], ...] = (
        {"policy": "drop_oldest", "max_queue": 3},
        {"policy": "latest", "key": id},
        {"policy": "drop_newest", "where": bool},
        {"context": "publisher"},
        {"mode": "direct"},
        {"once": True},
        {"subclasses": True},
    )
    with Dispatcher() as bus:
        for number in range(count):
            subscription = bus.subscribe(Event, ignore, **options[number % len(options)])  # type: ignore[call-overload]
            bus.publish(Event(number))
            subscription.cancel(discard=number % 3 == 0)
            if number % 64 == 0:
                bus.wait_idle()


def dispatchers(count: int) -> None:
    """Dispatchers that are made and dropped: most without an event and so without a thread."""
    for number in range(count):
        bus = Dispatcher()
        bus.subscribe(Event, ignore)
        bus.subscribe(Event, lambda event, bus=bus: None)  # a cycle, for the garbage collector
        if number % 20 == 0:
            bus.publish(Event(number))
            bus.close()
        elif number % 20 == 1:
            bus.publish(Event(number))


# by name: what to run, how much is full, and into how much it is cut otherwise
CASES: dict[str, tuple[Callable[[int], None], int]] = {
    "events": (events, 10_000_000),
    "every_policy": (every_policy, 1_000_000),
    "subscriptions": (subscriptions, 1_000_000),
    "subscriptions_with_options": (subscriptions_with_options, 500_000),
    "dispatchers": (dispatchers, 100_000),
}
SHORT = 50


def measure() -> tuple[int, int]:
    for _ in range(3):
        gc.collect()
    kibibytes = resident() // 1024  # first, as it imports what it needs
    return sys.getallocatedblocks(), kibibytes


def run_case(name: str, count: int) -> int:
    """Run a case, again where it has grown: a leak grows each time. The stacks of more threads than were there at once
    before, which a busy machine has, grow once: the system keeps them for the next threads."""
    function, _ = CASES[name]
    function(max(count // 20, 500))
    function(max(count // 5, 500))
    for _ in range(ROUNDS):
        before = measure()
        taken = seconds(lambda: function(count))
        blocks, kibibytes = (now - then for now, then in zip(measure(), before, strict=True))
        grown = blocks > BLOCKS or kibibytes > KIBIBYTES
        mark = "   GROWN" if grown else ""
        per = f"{taken / count * 1e6:8.2f} us each"
        print(f"{name:28s}{count:12,d}  {taken:7.1f} s  {per}  {blocks:+7d} blocks  {kibibytes:+7d} KiB{mark}")
        if not grown:
            return 0
    return 1


def commands(full: bool, names: list[str]) -> Iterator[list[str]]:
    for name in names or CASES:
        count = CASES[name][1] // (1 if full else SHORT)
        yield [sys.executable, __file__, "--case", name, "--count", str(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.names:
        if name not in CASES:
            parser.error(f"no such case: {name}")
    if options.case:
        return run_case(options.case, options.count)
    return max(subprocess.run(command, check=False).returncode for command in commands(options.full, options.names))


if __name__ == "__main__":
    sys.exit(main())
