"""How long an event takes to its handler while events are offered at a fixed rate.

Events are sent on a schedule, whether those before have arrived or not. The time of an event counts from when it was
due, so that a way that holds up its sender is charged for all that waits behind it; only by how much the sender
overslept is not counted. The ways are taken in turn, one repeat after the other.
"""

from __future__ import annotations

import gc
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from ringcast.bench.results import Row
from ringcast.bench.timing import percentiles
from ringcast.bench.work import PATIENCE, Channel, Handler, Load, LostEvents, Shape, Tally, Way

MODES = ("queued", "direct", "asyncio")
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

    def handlers(self, make: Callable[[], Tally]) -> list[list[Handler]]:
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


def offer(send: Callable[[Stamp], object], rate: int, events: int) -> None:
    """Send events on schedule, the next one as soon as it is due and the one before is sent."""
    clock = time.perf_counter_ns
    period = 1_000_000_000 // rate
    due = woke = clock()
    for _ in range(events):
        due += period
        while (left := due - clock()) > 0:
            time.sleep(left / 1e9)
            woke = clock()
        send(Stamp(max(due, woke)))


def able(ways: Sequence[Way], modes: Sequence[str]) -> list[Way]:
    """The ways whose latency is measured."""
    return [way for way in ways if way.mode in modes and way.mode in MODES and way.name not in LEFT_OUT]


def measure(
    ways: Sequence[Way], rates: Sequence[int], repeats: int, seconds: float, between: Callable[[], object]
) -> Iterator[Row]:
    """Rows for each rate and way; a value is the median of a repeat of about `seconds`.

    Raises:
        LostEvents: a handler has not had what was sent.
    """
    with ExitStack() as stack:
        opened: list[tuple[Way, TimedLoad, Channel]] = []
        for way in ways:
            load = TimedLoad()
            opened.append((way, load, stack.enter_context(way.open(load))))
        for rate in rates:
            events = max(2, round(rate * seconds))
            taken: list[list[list[int]]] = [[] for _ in opened]
            for repeat in range(repeats + 1):
                between()
                gc.collect()
                for own, (way, load, channel) in zip(taken, opened, strict=True):
                    offer(channel.sends[0], rate, events if repeat else max(2, events // 10))  # first the warm-up
                    try:
                        found = load.take(events if repeat else max(2, events // 10))
                    except LostEvents as error:
                        raise LostEvents(f"{way.name}, {way.mode}, {rate}/s: {error}") from None
                    if repeat:
                        own.append(found)
            for own, (way, _, _) in zip(taken, opened, strict=True):
                yield Row(
                    "latency",
                    way.mode,
                    way.name,
                    1,
                    1,
                    "us",
                    tuple(percentiles(found)["p50"] / 1000 for found in own),
                    rate,
                    events,
                    {
                        name: value / 1000
                        for name, value in percentiles([one for found in own for one in found]).items()
                    },
                )
