"""Subscriptions of every mode, policy and shape whose handler is held while events wait: for test_ends."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from dataclasses import dataclass
from typing import Any

from limits import DEADLINE

from ringcast import Dispatcher, Subscription, record
from ringcast.records import int64

EVENTS = 4
MODES = ["queued", "own thread", "asyncio", "direct", "native", "stream"]
POLICIES = ["block", "raise", "drop_newest", "drop_oldest", "latest"]
SHAPES = ["single", "batch", "record"]
NATIVE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@record
class Reading:
    number: int64


def has_meaning(mode: str, policy: str, shape: str) -> bool:
    """Whether there are such subscriptions: direct ones have no batches, native ones take records and drop nothing."""
    if mode == "direct":
        return shape != "batch"
    if mode == "native":
        return shape == "record" and policy in ("block", "raise")
    return True


CELLS = [
    (mode, policy, shape)
    for mode in MODES
    for policy in POLICIES
    for shape in SHAPES
    if has_meaning(mode, policy, shape)
]


def start_loop() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """An event loop, and the thread of its own in which it runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    return loop, thread


class Owner:
    """Whose method handles the events of a Case, and is all that a weak subscription keeps."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def handle(self, what: Any) -> None:
        case = self.case
        if case.mode == "direct" and not case.begun.is_set():
            case.publish_rest()  # which waits for the end of this call
        case.hold()
        case.note(what)

    async def handle_async(self, what: Any) -> None:
        self.case.begun.set()
        await self.case.opened_in_loop.wait()
        self.case.note(what)


class Case:
    """A subscription whose handler is held in its first call, with more events waiting; or a stream that is not read.

    Attributes:
        bus: the dispatcher, whose default policy is that of the subscription.
        returned: the numbers of the events with which calls have returned, or that the stream has given.
        in_hand: those with which the handler is held.
    """

    def __init__(self, mode: str, policy: str, shape: str, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self.mode, self.policy, self.loop = mode, policy, loop
        self.bus = Dispatcher(policy=policy, name=policy, exit_timeout=0.2)  # type: ignore[arg-type]
        self.event_class = Reading if shape == "record" else Tick
        self.returned: list[int] = []
        self.in_hand = [] if mode == "stream" else [0]
        self.begun, self.opened, self.opened_in_loop = threading.Event(), threading.Event(), asyncio.Event()
        if shape == "batch":
            options["batch"] = 3
        self.owner: Owner | None = Owner(self)
        self.reader = self.publisher = None
        self.subscription = self.subscribe(options)
        if mode == "direct":
            self.publisher = threading.Thread(target=self.publish, args=(0,), name="publisher", daemon=True)
            self.publisher.start()
        else:
            self.publish(0)
        assert mode == "stream" or self.begun.wait(DEADLINE)
        if mode != "direct":
            self.publish_rest()

    def subscribe(self, options: dict[str, Any]) -> Subscription[Any]:
        assert self.owner is not None
        if self.mode == "native":
            self.function = NATIVE(self.handle_native)
            return self.bus.subscribe_native(Reading, self.function)
        if self.mode == "stream":
            ready = asyncio.run_coroutine_threadsafe(self.make_stream(options), self.loop).result(DEADLINE)
            self.reader = asyncio.run_coroutine_threadsafe(self.read(ready), self.loop)
            return ready.subscription
        if self.mode == "asyncio":
            return self.bus.subscribe(self.event_class, self.owner.handle_async, loop=self.loop, **options)
        if self.mode == "own thread":
            return self.bus.subscribe(self.event_class, self.owner.handle, own_thread=True, **options)
        return self.bus.subscribe(self.event_class, self.owner.handle, mode=self.mode, **options)

    async def make_stream(self, options: dict[str, Any]) -> Any:
        return self.bus.stream(self.event_class, **options)

    async def read(self, stream: Any) -> None:
        await self.opened_in_loop.wait()
        async for what in stream:
            self.note(what)

    def publish(self, number: int) -> None:
        self.bus.publish(self.event_class(number))

    def publish_rest(self) -> None:
        for number in range(1, EVENTS):
            self.publish(number)

    def handle_native(self, records: int, count: int, stride: int, userdata: object) -> None:
        numbers = (ctypes.c_int64 * count).from_address(records)
        self.hold()
        self.returned += numbers[:]

    def hold(self) -> None:
        self.begun.set()
        if not self.opened.wait(4 * DEADLINE):
            raise TimeoutError("nobody has let the handler go on")

    def note(self, what: Any) -> None:
        self.returned += [what.number] if isinstance(what, self.event_class) else [event.number for event in what]

    def open(self) -> None:
        """Let the handler go on, or the stream be read."""
        self.opened.set()
        self.loop.call_soon_threadsafe(self.opened_in_loop.set)

    def finish(self) -> None:
        """Wait for the threads and tasks of the case itself; its subscription has ended."""
        if self.publisher is not None:
            self.publisher.join(DEADLINE)
        if self.reader is not None:
            self.reader.result(DEADLINE)

    def is_listed(self) -> bool:
        return any(topic.subscriptions for topic in self.bus.stats().topics)

    def expected(self, discarded: bool) -> list[int]:
        """The numbers of the events that are to be delivered, in all."""
        if discarded:
            return self.in_hand
        if self.policy == "latest" and self.mode not in ("direct", "native"):
            return [*self.in_hand, EVENTS - 1]
        return list(range(EVENTS))

    def check(self, discarded: bool = False, accepted: int = EVENTS) -> None:
        """After the end: what was accepted is delivered or dropped, and counted, and no call is under way."""
        sub = self.subscription
        assert self.returned == self.expected(discarded)[:accepted], self.returned
        assert (sub.active, sub.pending, self.is_listed()) == (False, 0, False), sub
        assert (sub.delivered, sub.dropped) == (len(self.returned), accepted - len(self.returned)), sub
