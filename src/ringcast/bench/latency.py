"""How long an event takes to its handler while events are offered at a fixed rate.

Events are sent on a schedule, whether those before have arrived or not. The time of an event counts from when it was
due, so that a way that holds up its sender is charged for all that waits behind it; only by how much the sender
overslept is not counted. The ways are taken in turn, one repeat after the other. A busy publisher goes on computing
after each event, and the handler's thread has to get the GIL from it.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from ringcast.bench.results import Row
from ringcast.bench.timing import in_turn, percentiles
from ringcast.bench.work import PATIENCE, Channel, Handler, Load, LostEvents, Shape, Tally, Way

MODES = ("queued", "direct", "asyncio")
BUSY = 0.001  # seconds for which a busy publisher goes on computing after each event
BUSY_RATE = 500  # events a second: it then sleeps as long
LEFT_OUT = ("pyee", "psygnal", "PyPubSub", "nautilus_trader")  # of those that call at once, two say enough


class Stamp:
    """An event that knows when it was due, in ns."""

    __slots__ = ("due",)

    def __init__(self, due: int = 0) -> None:
        self.due = due


class TimedLoad(Load):
    """One type, one handler, which keeps how long events took, in ns."""

    def __init__(self) -> None:
        super().__init__(Shape(1, 1))
        self.classes = [Stamp]
        self.taken: list[int] = []
        self._arrived: queue.SimpleQueue[None] = queue.SimpleQueue()

    def handlers(self, make: Callable[[], Tally] | None = None) -> list[list[Handler]]:
        """The one handler, whatever counting ones were wanted."""
        return self._one(asynchronous=False)

    def handlers_on_loop(self, asynchronous: bool = True) -> list[list[Handler]]:
        """The same as a coroutine."""
        return self._one(asynchronous)

    def _one(self, asynchronous: bool) -> list[list[Handler]]:
        keep, arrived, clock = self.taken.append, self._arrived.put, time.perf_counter_ns

        def handler(stamp: Stamp) -> None:
            keep(clock() - stamp.due)
            arrived(None)

        async def coroutine(stamp: Stamp) -> None:
            handler(stamp)

        return [[coroutine if asynchronous else handler]]

    def take(self, events: int) -> list[int]:
        """Wait for so many events, and return how long they took."""
        try:
            for _ in range(events):
                self._arrived.get(timeout=PATIENCE)
        except queue.Empty:
            raise LostEvents(f"{len(self.taken)} of {events} events came") from None
        taken = self.taken.copy()
        self.taken.clear()
        if len(taken) != events or not self._arrived.empty():
            raise LostEvents(f"{len(taken)} events came, {events} were sent")
        return taken


def compute(seconds: float) -> None:
    """Hold the GIL, as far as the interpreter lets a thread hold it."""
    end = time.perf_counter_ns() + round(seconds * 1e9)
    while time.perf_counter_ns() < end:
        pass


def offer(send: Callable[[Stamp], object], rate: int, events: int, busy: float = 0.0) -> None:
    """Send events on schedule, the next one as soon as it is due and the one before is sent.

    Args:
        send: takes an event.
        rate: events a second.
        events: how many.
        busy: seconds for which the publisher goes on computing after each.
    """
    clock = time.perf_counter_ns
    period = 1_000_000_000 // rate
    due = woke = clock()
    for _ in range(events):
        due += period
        while (left := due - clock()) > 0:
            time.sleep(left / 1e9)
            woke = clock()
        send(Stamp(max(due, woke)))
        if busy:
            compute(busy)


def able(ways: Sequence[Way], modes: Sequence[str]) -> list[Way]:
    """The ways whose latency is measured."""
    return [way for way in ways if way.mode in modes and way.mode in MODES and way.name not in LEFT_OUT]


class Timed(NamedTuple):
    """A way that is open, with its load."""

    way: Way
    load: TimedLoad
    channel: Channel

    def take(self, rate: int, events: int, busy: float) -> list[int]:
        """How long the events took that are offered, in ns."""
        offer(self.channel.sends[0], rate, events, busy)
        try:
            return self.load.take(events)
        except LostEvents as error:
            raise LostEvents(f"{self.way.name}, {self.way.mode}, {rate}/s: {error}") from None


def measure(
    ways: Sequence[Way], rates: Sequence[int], repeats: int, seconds: float, between: Callable[[], object]
) -> Iterator[Row]:
    """Rows for each rate and way, and for those to other threads with a busy publisher.

    A value is the median of a repeat of about `seconds`.

    Raises:
        LostEvents: a handler has not had what was sent.
    """
    with ExitStack() as stack:
        opened = []
        for way in ways:
            load = TimedLoad()
            opened.append(Timed(way, load, stack.enter_context(way.open(load))))
        queued = [timed for timed in opened if timed.way.mode == "queued"]
        for rate, busy, some in [*((rate, 0.0, opened) for rate in rates), (BUSY_RATE, BUSY, queued)]:
            events = max(2, round(rate * seconds))
            for timed in some:
                timed.take(rate, max(2, events // 10), busy)  # the warm-up
            taken = in_turn([partial(timed.take, rate, events, busy) for timed in some], repeats, between)
            for timed, own in zip(some, taken, strict=True):
                every = percentiles([one for found in own for one in found])
                yield Row(
                    "latency",
                    timed.way.mode + ", busy publisher" * bool(busy),
                    timed.way.name,
                    1,
                    1,
                    "us",
                    tuple(percentiles(found)["p50"] / 1000 for found in own),
                    rate,
                    events,
                    {name: value / 1000 for name, value in every.items()},
                )
