"""How long an event takes to its handler, at a low rate: what does not show in a throughput.

    python benchmarks/latency.py [--events N]

One event every millisecond, so that nothing ever waits behind another event. The time is from before `publish` (or
`put`) to the first line of the handler. In the rows "busy" the publisher goes on computing after each event, and the
handler's thread has to get the GIL from it. The ways are taken in turn, event by event, in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ringcast import Dispatcher, __version__

PERIOD = 0.001  # seconds between two events


class Stamp:
    """An event that knows when it was sent, in ns."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = time.perf_counter_ns()


class Times:
    """A handler that keeps how long each event took, in ns."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._arrived = threading.Semaphore(0)

    def __call__(self, stamp: Stamp) -> None:
        self.taken.append(time.perf_counter_ns() - stamp.sent)
        self._arrived.release()

    def wait(self) -> None:
        self._arrived.acquire()

    def row(self) -> str:
        cuts = statistics.quantiles(self.taken, n=1000, method="inclusive")
        return " ".join(f"{value / 1000:9.1f}" for value in (cuts[499], cuts[989], cuts[998]))


Send = Callable[[Stamp], object]


@contextmanager
def ringcast(times: Times, mode: str) -> Iterator[Send]:
    with Dispatcher() as bus:
        bus.subscribe(Stamp, times, mode=mode)
        yield bus.publish


@contextmanager
def simple_queue(times: Times) -> Iterator[Send]:
    items: queue.SimpleQueue[Stamp | None] = queue.SimpleQueue()

    def consume() -> None:
        while (stamp := items.get()) is not None:
            times(stamp)

    thread = threading.Thread(target=consume)
    thread.start()
    yield items.put
    items.put(None)
    thread.join()


@contextmanager
def call(times: Times) -> Iterator[Send]:
    yield times


def compute(seconds: float) -> None:
    """Hold the GIL, as far as the interpreter lets a thread hold it."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=3000, help="for each row")
    events = parser.parse_args().events
    rows = {name: Times() for name in ("call", "direct", "queued", "SimpleQueue", "queued, busy", "SimpleQueue, busy")}
    with ExitStack() as stack:
        sends: dict[str, Send] = {}
        for name, times in rows.items():
            way = {
                "call": lambda times: call(times),
                "direct": lambda times: ringcast(times, "direct"),
                "queued": lambda times: ringcast(times, "queued"),
                "SimpleQueue": lambda times: simple_queue(times),
            }[name.partition(",")[0]]
            sends[name] = stack.enter_context(way(times))
        for _ in range(events):
            for name, send in sends.items():
                send(Stamp())
                if name.endswith("busy"):
                    compute(PERIOD)
                rows[name].wait()
                time.sleep(PERIOD)
    print(f"ringcast {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs")
    print(f"{'µs from publish to the handler':30s} {'p50':>9s} {'p99':>9s} {'p99.9':>9s}")
    for name, times in rows.items():
        print(f"{name:30s} {times.row()}")


if __name__ == "__main__":
    main()
