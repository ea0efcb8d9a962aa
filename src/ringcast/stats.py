"""What `Dispatcher.stats()` gives: the numbers of a dispatcher, its topics and its subscriptions, at one moment.

They are plain values that hold no handler and no event, so they can be kept, compared and sent elsewhere. Two of
them and the time between make a rate (see `ringcast.top`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ringcast.events import class_names

if TYPE_CHECKING:
    from ringcast._core import Core, Subscription

__all__ = ["DispatcherStats", "SubscriptionStats", "TopicStats", "collect", "event_name"]


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """How one subscription is doing. Counts are of events, since it was made.

    Attributes:
        handler: the handler's name: `module.qualname`, and for a callable object that of its class.
        mode: where the handler runs: "queued", "direct", "asyncio" or "native".
        policy: what a full queue does: "block", "raise", "drop_newest", "drop_oldest" or "latest".
        active: false once it is cancelled; until what was accepted before is delivered, it is still listed.
        delivered: events that the handler was called with, failed calls included.
        dropped: accepted events that it did not get: see `Subscription.dropped`.
        filtered: events that its `where` declined.
        errors: calls of the handler, or of its `where` or `key`, that raised.
        pending: events that wait for the handler now, with the one it is busy with. At rest, delivered, dropped,
            filtered and pending make up what was published for it. While events move, and while a failure is reported,
            one may be counted twice, never not at all.
        high_water: the most that `pending` has been seen at.
        handler_seconds: mean time of one call, in seconds; of a direct handler over a sample. None: not timed, or
            `timing` is off.
    """

    handler: str
    mode: str
    policy: str
    active: bool
    delivered: int
    dropped: int
    filtered: int
    errors: int
    pending: int
    high_water: int
    handler_seconds: float | None


@dataclass(frozen=True, slots=True)
class TopicStats:
    """How all that belongs to one type id, to several classes, or to a class with its subclasses, is doing.

    Counts are of events, since the type was first used.

    Attributes:
        type_id: from 0 to 2**32 - 1; None for subscriptions to several classes, or to a class with its subclasses.
        event_class: the class that the id belongs to, None while it is open; or those that the subscriptions are to: of
            several classes a tuple.
        published: events that reached a subscription of this topic when they were published; an event may reach several
            topics. So of a class it is 0 while only subscriptions to several classes, or to base classes, get the
            events.
        pending: events that at least one subscription has still to take: those that drop events take them at once, and
            have what waits in their own `pending`.
        high_water: the most that `pending` has been seen at.
        subscriptions: in the order in which they were made; the direct ones after the others, in the order of their
            priority.
        subclasses: whether the events of subclasses are among them.
    """

    type_id: int | None
    event_class: type[Any] | tuple[type[Any], ...] | None
    published: int
    pending: int
    high_water: int
    subscriptions: tuple[SubscriptionStats, ...]
    subclasses: bool = False

    @property
    def delivered(self) -> int:
        """The sum over the subscriptions; those that have ended do not count any more. So it is with the next ones."""
        return sum(sub.delivered for sub in self.subscriptions)

    @property
    def dropped(self) -> int:
        """The sum over the subscriptions."""
        return sum(sub.dropped for sub in self.subscriptions)

    @property
    def filtered(self) -> int:
        """The sum over the subscriptions."""
        return sum(sub.filtered for sub in self.subscriptions)

    @property
    def errors(self) -> int:
        """The sum over the subscriptions."""
        return sum(sub.errors for sub in self.subscriptions)

    @property
    def handler_seconds(self) -> float | None:
        """Mean time of one call of a handler, in seconds, over those subscriptions of which it is known; None: of none.
        Each counts by the calls that it has had.
        """
        known = [(sub.handler_seconds, sub.delivered) for sub in self.subscriptions if sub.handler_seconds is not None]
        calls = sum(delivered for _, delivered in known)
        return sum(seconds * delivered for seconds, delivered in known) / calls if calls else None


@dataclass(frozen=True, slots=True)
class DispatcherStats:
    """How a dispatcher is doing.

    Attributes:
        name: the name it was given, "ringcast" by default.
        closed: whether `close` has been called.
        workers: threads that run handlers now.
        topics: one for each type id that a class or a subscription has, for each class subscribed to with subclasses,
            and for each set of several classes.
    """

    name: str
    closed: bool
    workers: int
    topics: tuple[TopicStats, ...]


def collect(core: Core) -> DispatcherStats:
    """Read the numbers of a dispatcher. What `Dispatcher.stats()` does; use that.

    May be called from any thread, and inside a handler. Each number is right at the moment it is read, but the
    dispatcher goes on meanwhile: sums over several of them may be off by what happened in between.

    Args:
        core: the dispatcher, open or closed.

    Returns:
        The numbers; they do not change any more.
    """
    workers, rows = core._stats()
    topics: dict[object, TopicStats] = {}
    for row in rows:
        topic = _topic(*row)
        key = _key(topic)
        topics[key] = _joined(topics[key], topic) if key in topics else topic
    return DispatcherStats(core.name, core.closed, workers, tuple(topics.values()))


def event_name(topic: TopicStats) -> str:
    """Name what a topic has the events of, for people: the class or classes, or the type id in hexadecimal while it has
    none.
    """
    if topic.event_class is None:
        return f"0x{topic.type_id:08x}"
    name = class_names(topic.event_class)
    return f"{name} and subclasses" if topic.subclasses else name


def _key(topic: TopicStats) -> object:
    """What the rows of one topic have in common, and no others."""
    if topic.type_id is not None:
        return topic.type_id
    classes = topic.event_class if type(topic.event_class) is tuple else (topic.event_class,)
    return frozenset(map(id, classes)), topic.subclasses


def _joined(one: TopicStats, other: TopicStats) -> TopicStats:
    """One topic of two rows: the core keeps the subscriptions that want the publisher's context by themselves."""
    return dataclasses.replace(
        one,
        event_class=one.event_class or other.event_class,
        published=max(one.published, other.published),  # mostly the same events
        pending=max(one.pending, other.pending),
        high_water=max(one.high_water, other.high_water),
        subscriptions=one.subscriptions + other.subscriptions,
    )


def _topic(
    type_id: int | None,
    event_class: type[Any] | tuple[type[Any], ...] | None,
    published: int,
    pending: int,
    high_water: int,
    subscriptions: list[Subscription[Any]],
    subclasses: bool = False,
) -> TopicStats:
    of_each = tuple(_subscription(sub) for sub in subscriptions)
    return TopicStats(type_id, event_class, published, pending, high_water, of_each, subclasses)


def _subscription(sub: Subscription[Any]) -> SubscriptionStats:
    return SubscriptionStats(
        handler=sub._name(),
        mode=sub.mode,
        policy=sub.policy,
        active=sub.active,
        delivered=sub.delivered,
        dropped=sub.dropped,
        filtered=sub.filtered,
        errors=sub.errors,
        pending=sub.pending,
        high_water=sub.high_water,
        handler_seconds=sub.handler_seconds,
    )
