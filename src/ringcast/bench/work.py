"""The work that all ways are given, and what a way is.

Handlers count their events and do nothing else, or nothing at all; each has code of its own, as in a real program. The
events of a type are one object, because making events is not the dispatcher's work; in the mode "record", where it is,
they are made one by one.
"""

from __future__ import annotations

import itertools
import queue
import types
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ringcast.bench.timing import repeat_call

Handler = Callable[[Any], Any]
T = TypeVar("T")
PATIENCE = 60.0  # seconds without an event after which a run has failed


class LostEvents(Exception):
    """A handler has not had what was published."""


class Shape(NamedTuple):
    """How many types there are, and how many subscribers each of them has."""

    types: int
    subscribers: int

    def __str__(self) -> str:
        return f"{self.types}x{self.subscribers}"


class Tally(NamedTuple):
    """A handler, and how many events it has had so far."""

    handler: Handler
    seen: Callable[[], int] | None
    """None: it does not count."""
    expect: Callable[[int], None] | None = None
    """Says how many it will have had when it is to say that it is done; None: it does not say so."""


def own_code(function: types.FunctionType) -> types.FunctionType:
    """Give a closure a code object of its own, which it would share with its like."""
    function.__code__ = function.__code__.replace()
    return function


def count_events() -> Tally:
    """For handlers that are called with one event."""
    seen = 0

    def handler(event: object) -> None:
        nonlocal seen
        seen += 1

    own_code(handler)  # type: ignore[arg-type]
    return Tally(handler, lambda: seen)


def ignore_events() -> Tally:
    """The same without the count: for the time that is the dispatcher's alone, with nothing to check it by."""

    def handler(event: object) -> None:
        pass

    own_code(handler)  # type: ignore[arg-type]
    return Tally(handler, None)


def count_events_on_loop(done: Callable[[None], object], asynchronous: bool) -> Tally:
    """For an event loop: calls `done` with the last event that is expected. (`wait_idle` has the waiting thread look on
    after each run of events, and where a run is one event of a coroutine that doubles the time.)
    """
    seen = last = 0

    def handler(event: object) -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            done(None)

    async def coroutine(event: object) -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            done(None)

    def expect(events: int) -> None:
        nonlocal last
        last = events

    chosen = coroutine if asynchronous else handler
    own_code(chosen)  # type: ignore[arg-type]
    return Tally(chosen, lambda: seen, expect)


def count_batches() -> Tally:
    """For handlers that are called with several events at once."""
    seen = 0

    def handler(events: Sequence[object]) -> None:
        nonlocal seen
        seen += len(events)

    own_code(handler)  # type: ignore[arg-type]
    return Tally(handler, lambda: seen)


class Load:
    """What one way is to deliver: event classes and handlers for a shape.

    Args:
        shape: types and subscribers.
        make: makes a handler of single events.
    """

    def __init__(self, shape: Shape, make: Callable[[], Tally] = count_events) -> None:
        self.shape = shape
        self._make = make
        self.classes: list[type] = [type(f"Event{number}", (), {"__slots__": ()}) for number in range(shape.types)]
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._tallies: list[Tally] = []
        self._expected: list[int] = []

    def handlers(self, make: Callable[[], Tally] | None = None) -> list[list[Handler]]:
        """Make the handlers, a list of them for each type; those of single events, or others."""
        make = make or self._make
        self._tallies = [make() for _ in range(self.shape.types * self.shape.subscribers)]
        self._expected = [0] * len(self._tallies)
        return per_type([tally.handler for tally in self._tallies], self.shape.subscribers)

    def handlers_on_loop(self, asynchronous: bool = True) -> list[list[Handler]]:
        """The same for an event loop: handlers for which `settle` can wait."""
        return self.handlers(partial(count_events_on_loop, self._done.put, asynchronous))

    def expect(self, events: int) -> None:
        """Say that so many will be published, the same number of each type."""
        share, rest = divmod(events, self.shape.types)
        if rest:
            raise ValueError(f"{events} events are no whole number for each of {self.shape.types} types")
        for number, tally in enumerate(self._tallies):
            self._expected[number] += share
            if tally.expect is not None:
                tally.expect(self._expected[number])

    def settle(self) -> None:
        """Wait for the handlers of `handlers_on_loop`.

        Raises:
            LostEvents: the events do not come.
        """
        try:
            for _ in self._tallies:
                self._done.get(timeout=PATIENCE)
        except queue.Empty:
            self.check()
            raise LostEvents("the handlers never said that they were done") from None

    def check(self) -> None:
        """Raise LostEvents unless each handler that counts has had its share of all that was expected, and no more."""
        for number, (tally, expected) in enumerate(zip(self._tallies, self._expected, strict=True)):
            if tally.seen is not None and tally.seen() != expected:
                type_number, handler = divmod(number, self.shape.subscribers)
                raise LostEvents(f"handler {handler} of type {type_number} has had {tally.seen()} of {expected} events")


def per_type(items: Sequence[T], subscribers: int) -> list[list[T]]:
    """Cut into runs of as many as a type has subscribers."""
    return [list(items[start : start + subscribers]) for start in range(0, len(items), subscribers)]


class Channel(NamedTuple):
    """A way at work: where events go in, and how to wait until they have come out."""

    sends: Sequence[Callable[[Any], object]]
    """For each type what is called with an item."""
    items: Sequence[Any]
    """For each type what it is called with."""
    settle: Callable[[], object] = lambda: None
    """Returns when all that was sent is delivered."""
    makes: bool = False
    """Whether items are event classes, called with a price and a size for each event."""


class Way(NamedTuple):
    """One way to get events to handlers."""

    name: str
    mode: str
    open: Callable[[Load], AbstractContextManager[Channel]]
    package: str | None = None
    """What it needs to have installed, by the name that is imported."""
    distribution: str | None = None
    """The same, by the name that is installed."""
    unit: int = 1
    """Events in an item."""
    most: int = 10_000
    """Handlers that it is asked to serve at most."""


def feed_one(channel: Channel, items: int) -> None:
    """Send items to the one type that there is: the loop that costs least."""
    repeat_call(channel.sends[0], channel.items[0], items)


def feed(channel: Channel, items: int) -> None:
    """Send items to all types in turn: the loop that all ways share."""
    pairs: Iterable[tuple[Callable[[Any], object], Any]] = itertools.islice(
        itertools.cycle(list(zip(channel.sends, channel.items, strict=True))), items
    )
    if channel.makes:
        for send, make in pairs:
            send(make(101.5, 7))
    else:
        for send, item in pairs:
            send(item)
