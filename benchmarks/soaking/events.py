"""What a soak publishes, and who publishes it: numbered events and records, in all the ways that there are."""

from __future__ import annotations

import collections
import contextvars
import ctypes
import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

from ringcast import ClosedError, Dispatcher, PublishTimeoutError, QueueFullError, _core, record
from ringcast.records import int64

try:
    import numpy
except ImportError:  # records are then published from buffers of other kinds only
    numpy = None  # type: ignore[assignment]

publisher_context: contextvars.ContextVar[int] = contextvars.ContextVar("publisher")


class Event:
    """The `number`-th event of its publisher, the `of_base`-th that is no record, the `of_type`-th of its class."""

    __slots__ = ("number", "of_base", "of_type", "publisher")

    def __init__(self, publisher: int, number: int, of_base: int, of_type: int) -> None:
        self.publisher = publisher
        self.number = number
        self.of_base = of_base
        self.of_type = of_type


class Red(Event):
    __slots__ = ()


class Green(Event):
    __slots__ = ()
    __event_type__ = 0x11


class Blue(Event):
    """Its instances are counted."""

    __slots__ = ("_finalized", "made")

    def __init__(self, publisher: int, number: int, of_base: int, of_type: int) -> None:
        super().__init__(publisher, number, of_base, of_type)
        self.made = Freed.now
        self.made.made[publisher] += 1

    def __del__(self) -> None:
        self.made.freed.append(1)


class Freed:
    """How many events of the class that counts them were made (by publisher), and freed, in a round."""

    now: Freed

    def __init__(self) -> None:
        self.made: collections.Counter[int] = collections.Counter()
        self.freed: collections.deque[int] = collections.deque()  # append is atomic


@record
class Dot:
    publisher: int64
    number: int64
    of_type: int64
    check: int64


@record
class Line:
    """Too long to be part of the object itself."""

    __event_type__ = 0x12
    publisher: int64
    number: int64
    of_type: int64
    check: int64
    text: Annotated[bytes, 40]


class Seen(NamedTuple):
    """A record as a native handler has found it in memory."""

    publisher: int
    number: int
    of_type: int
    check: int
    text: bytes = b""


LAYOUTS = {Dot: struct.Struct("=qqqq"), Line: struct.Struct("=qqqq40s")}
CLASSES: tuple[type[Event], ...] = (Red, Green, Blue)
RECORDS: tuple[type, ...] = (Dot, Line)
IDS = {Green: 0x11, Line: 0x12}
GROUPS = {**dict.fromkeys(CLASSES, (Event, object)), **dict.fromkeys(RECORDS, (object,))}
"""Of each class, the base classes that are subscribed to."""
KINDS: tuple[type, ...] = (*CLASSES, *RECORDS, Event, object)
"""All that is subscribed to."""


def place(event: Any, kind: type) -> int:
    """The place of an event among those of its publisher that are of this kind, from 1."""
    number: int = event.number if kind is object else event.of_base if kind is Event else event.of_type
    return number


def check_of(publisher: int, number: int, of_type: int) -> int:
    return (publisher * 1_000_003 ^ number * 10_007 ^ of_type) + 0x5EED


def is_whole(item: Any) -> bool:
    """Whether a record is as it was made."""
    if item.check != check_of(item.publisher, item.number, item.of_type):
        return False
    text = getattr(item, "text", b"")
    return not text or text.rstrip(b"\0") == b"%040d" % item.number


class Publisher:
    """One sequence of events: from one thread at a time. `issued` counts before publish, `accepted` after it."""

    def __init__(self, identity: int) -> None:
        self.identity = identity
        self.issued = dict.fromkeys(KINDS, 0)
        self.accepted = dict.fromkeys(KINDS, 0)
        self.refused = 0
        self.ways: collections.Counter[str] = collections.Counter()

    def next(self, kind: type) -> Any:
        for each in (kind, *GROUPS[kind]):
            self.issued[each] += 1
        number, of_type = self.issued[object], self.issued[kind]
        if kind in CLASSES:
            return kind(self.identity, number, self.issued[Event], of_type)
        check = check_of(self.identity, number, of_type)
        if kind is Dot:
            return Dot(self.identity, number, of_type, check)
        return Line(self.identity, number, of_type, check, b"%040d" % number)

    def settle(self, kinds: list[type], accepted: int) -> None:
        """Of the last events, which were of these kinds, the first `accepted` were published."""
        for kind in kinds[:accepted]:
            for each in (kind, *GROUPS[kind]):
                self.accepted[each] += 1
        for kind in kinds[accepted:]:  # they have reached nobody: the next ones are to have their numbers
            self.refused += 1
            for each in (kind, *GROUPS[kind]):
                self.issued[each] -= 1


class Failure(Exception):
    """What failing handlers and generators raise."""


# --- from C ----------------------------------------------------------------------------------------------------


class Api(ctypes.Structure):
    """ringcast_api of ringcast.h. `publish` is called without the GIL."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("topic_new", ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.py_object)),
        ("topic_free", ctypes.PYFUNCTYPE(None, ctypes.c_void_p)),
        ("record_size", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)),
        (
            "publish",
            ctypes.CFUNCTYPE(
                ctypes.c_int,
                ctypes.c_void_p,
                ctypes.c_char_p,
                ctypes.c_size_t,
                ctypes.c_int64,
                ctypes.POINTER(ctypes.c_size_t),
            ),
        ),
    )


def c_api() -> Api:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return Api.from_address(get_pointer(_core._C_API, b"ringcast._core._C_API"))


API = c_api()
OK, FULL, CLOSED = range(3)


class CTopic:
    """What C code publishes records of a type by."""

    def __init__(self, bus: Dispatcher, kind: type) -> None:
        self.pointer = API.topic_new(bus, kind)

    def publish(self, records: bytes, count: int, timeout: int) -> tuple[int, int]:
        """Returns the status and how many were published."""
        published = ctypes.c_size_t()
        return API.publish(self.pointer, records, count, timeout, ctypes.byref(published)), published.value

    def free(self) -> None:
        API.topic_free(self.pointer)


# --- the ways to publish ---------------------------------------------------------------------------------------


class Call:
    """One call of the dispatcher by a publisher: what it has published, and what it was refused."""

    def __init__(self, bus: Dispatcher, publisher: Publisher, chance: random.Random, most: int) -> None:
        self.bus = bus
        self.publisher = publisher
        self.chance = chance
        self.most = most
        self.kinds: list[type] = []  # of the events that were made
        self.done = 0  # of which so many were published

    def next(self, kinds: tuple[type, ...]) -> Any:
        kind = self.chance.choice(kinds)
        self.kinds.append(kind)
        return self.publisher.next(kind)

    def count(self) -> int:
        return min(self.most, self.chance.choice((1, 2, 5, 30, 300, 700)))

    def timeout(self) -> float | None:
        return None if self.chance.random() < 0.6 else self.chance.random() * 0.01

    def publish(self) -> None:
        self.bus.publish(self.next(CLASSES + RECORDS))
        self.done = 1

    def publish_timeout(self) -> None:
        self.bus.publish(self.next(CLASSES + RECORDS), timeout=self.chance.random() * 0.01)
        self.done = 1

    def publish_to(self) -> None:
        event = self.next((Green, Line))
        self.bus.publish_to(IDS[type(event)], event)
        self.done = 1

    def publish_list(self) -> None:
        kinds = self.chance.choice((CLASSES, CLASSES, (Red,), (Blue,), RECORDS, CLASSES + RECORDS))
        events = [self.next(kinds) for _ in range(self.count())]
        self.done = self.bus.publish_many(self.chance.choice((list, tuple))(events), timeout=self.timeout())

    def publish_generator(self) -> None:
        fails = self.chance.random() < 0.2
        count = self.count()

        def give() -> Iterator[Any]:
            for _ in range(count):
                yield self.next(CLASSES + RECORDS)
            if fails:
                raise Failure

        try:
            self.done = self.bus.publish_many(give(), timeout=self.timeout())
        except Failure:  # what it gave before is published
            self.done = len(self.kinds)

    def records(self) -> tuple[type, bytes]:
        kind = self.chance.choice(RECORDS)
        return kind, b"".join([bytes(self.next((kind,))) for _ in range(self.count())])

    def publish_buffer(self) -> None:
        kind, data = self.records()
        forms: list[Callable[[bytes], Any]] = [bytes, bytearray, memoryview]
        if numpy is not None:
            forms += [lambda data: numpy.frombuffer(data, dtype=kind.dtype)] * 3  # type: ignore[attr-defined]
        records = self.chance.choice(forms)(data)
        typed = () if hasattr(records, "dtype") and self.chance.random() < 0.5 else (kind,)
        self.done = self.bus.publish_many(records, *typed, timeout=self.timeout())

    def publish_from_c(self) -> None:
        kind, data = self.records()
        topic = CTopic(self.bus, kind)
        try:
            timeout = self.timeout()
            nanoseconds = -1 if timeout is None else int(timeout * 1e9)
            status, self.done = topic.publish(data, len(self.kinds), nanoseconds)
        finally:
            topic.free()
        if status == CLOSED:
            raise ClosedError("closed, as C is told")
        if status not in (OK, FULL) or (status == OK) != (self.done == len(self.kinds)):
            raise AssertionError(f"ringcast_publish: {status}, {self.done} of {len(self.kinds)} published")


WAYS = {
    "publish": (Call.publish, 40),
    "publish, timeout": (Call.publish_timeout, 5),
    "publish_to": (Call.publish_to, 5),
    "publish_many, list": (Call.publish_list, 5),
    "publish_many, generator": (Call.publish_generator, 3),
    "publish_many, records": (Call.publish_buffer, 4),
    "from C": (Call.publish_from_c, 3),
}
WEIGHTS = [weight for _, weight in WAYS.values()]


def publish_some(
    bus: Dispatcher,
    publisher: Publisher,
    chance: random.Random,
    most: int = 1000,
    wait: bool = True,
    name: str | None = None,
) -> bool:
    """Publishes the next events of a publisher, in one way or another. False when the dispatcher is closed.

    Args:
        bus: the dispatcher.
        publisher: whose events.
        chance: chooses what is not given.
        most: how many, at most.
        wait: a while after an event that was refused.
        name: of the way.
    """
    if name is None:
        (name,) = chance.choices(list(WAYS), WEIGHTS)
    way, _ = WAYS[name]
    call = Call(bus, publisher, chance, most)
    token = publisher_context.set(publisher.identity)
    opened = True
    try:
        way(call)
    except (QueueFullError, PublishTimeoutError) as error:
        call.done = error.published
    except ClosedError as error:
        call.done = max(call.done, error.published)
        opened = False
    finally:
        publisher.settle(call.kinds, call.done)
        publisher.ways[name] += call.done
        publisher_context.reset(token)
    if opened and call.done < len(call.kinds) and wait:
        time.sleep(0.001)
    return opened


async def apublish_one(bus: Dispatcher, publisher: Publisher, chance: random.Random) -> bool:
    """The same in an event loop."""
    call = Call(bus, publisher, chance, 1)
    publisher_context.set(publisher.identity)
    try:
        await bus.apublish(call.next(CLASSES + RECORDS), timeout=chance.choice((None, 0.01)))
        call.done = 1
    except (PublishTimeoutError, QueueFullError):
        pass
    except ClosedError:
        return False
    finally:
        publisher.settle(call.kinds, call.done)
        publisher.ways["apublish"] += call.done
    return True
