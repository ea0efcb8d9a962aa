"""Time per event, from the first that is sent until the last handler has had the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec

from ringcast.bench import peers, ways
from ringcast.bench.results import Row
from ringcast.bench.timing import in_turn, least, per_event
from ringcast.bench.work import Channel, Load, LostEvents, Shape, Way, feed

ALL = [*ways.WAYS, *peers.WAYS]
MODES = ("queued", "direct", "asyncio", "batch", "record", "native")
SCALED = ("Ringcast", "SimpleQueue, a thread each", "SimpleQueue, one thread", "dict and loop", "blinker")
MOST_EVENTS = 2_000_000  # of a run, whatever the time


def available(all_ways: Iterable[Way]) -> tuple[list[Way], dict[str, str]]:
    """Those ways whose packages are installed; and why the others are not there, by name."""
    there, skipped = [], {}
    for way in all_ways:
        if way.package is None or find_spec(way.package) is not None:
            there.append(way)
        else:
            skipped[way.name] = f"{way.distribution} is not installed"
    return there, skipped


class Running:
    """A way that is open, with its load.

    Args:
        way: what is timed.
        load: what it was opened with.
        channel: what it has opened.
        send: what sends items into the channel.
    """

    def __init__(self, way: Way, load: Load, channel: Channel, send: Callable[[Channel, int], object] = feed) -> None:
        self.way = way
        self.load = load
        self.channel = channel
        self.send = send
        self.step = way.unit * load.shape.types  # every type gets the same
        self.events = self.step

    def run(self) -> float:
        """Nanoseconds for each of `events` events, all of them checked."""
        self.load.expect(self.events)
        nanoseconds = per_event(self._deliver, self.events)
        try:
            self.load.check()
        except LostEvents as error:
            raise LostEvents(f"{self.way.name}, {self.way.mode}, {self.load.shape}: {error}") from None
        return nanoseconds

    def _deliver(self) -> None:
        self.send(self.channel, self.events // self.way.unit)
        self.channel.settle()

    def calibrate(self, seconds: float) -> None:
        """Choose how many events take about so long. What this runs is the warm-up."""
        while True:
            taken = least(self.run, 2) * self.events / 1e9  # one may have met with an interruption
            if taken >= seconds / 3 or self.events * self.load.shape.subscribers >= MOST_EVENTS:
                break
            more = self._whole(self.events * min(10.0, max(2.0, seconds / max(taken, 1e-9))))
            if more <= self.events:  # the most there may be, in whole steps
                break
            self.events = more
        self.events = self._whole(self.events * seconds / taken)

    def _whole(self, events: float) -> int:
        most = min(events, MOST_EVENTS)
        return max(1, round(most / self.step)) * self.step


def measure(
    shape: Shape, chosen: Sequence[Way], repeats: int, seconds: float, section: str, between: Callable[[], object]
) -> list[Row]:
    """Time the ways in turn.

    Args:
        shape: types and subscribers.
        chosen: the ways, of one mode.
        repeats: how often each is timed.
        seconds: how long a run is to take, about.
        section: that of the rows.
        between: is called before each repeat.

    Returns:
        A row for each way: ns per event.

    Raises:
        LostEvents: a handler has not had what was published.
    """
    with ExitStack() as stack:
        running = []
        for way in chosen:
            load = Load(shape)
            running.append(Running(way, load, stack.enter_context(way.open(load))))
        for each in running:
            each.calibrate(seconds)
        values = in_turn([each.run for each in running], repeats, between)
    return [
        Row(section, each.way.mode, each.way.name, *shape, "ns/event", tuple(own), events=each.events)
        for each, own in zip(running, values, strict=True)
    ]


def matrix(
    chosen: Sequence[Way], modes: Sequence[str], shapes: Sequence[Shape]
) -> Iterator[tuple[str, Shape, list[Way]]]:
    """What there is to measure: for each mode and shape the ways that can."""
    for mode in modes:
        for shape in shapes:
            able = [way for way in chosen if way.mode == mode and shape.types * shape.subscribers <= way.most]
            if able:
                yield mode, shape, able
