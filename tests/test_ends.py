"""The ends of a subscription: in every mode, under every policy, done means that the handler has returned."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from ringcast import CloseTimeoutError, record
from ringcast.records import int64


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@record
class Reading:
    number: int64


POLICIES = ["block", "raise", "drop_newest", "drop_oldest", "latest"]
SHAPES = {"single": (Tick, {}), "batch": (Tick, {"batch": 3}), "record": (Reading, {})}
EVENTS = 4


class Case:
    """A subscription whose handler is held in its first call, with more events waiting for it."""

    def __init__(self, bus, mode, policy, shape, gate, loop):
        self.bus, self.gate, self.loop = bus, gate, loop
        self.event_class, options = SHAPES[shape]
        self.returned: list[int] = []  # the numbers of the events with which calls have returned
        if mode == "asyncio":
            options = {**options, "loop": loop}
        handler = self.handle_async if mode == "asyncio" else self.handle
        self.subscription = bus.subscribe(self.event_class, handler, policy=policy, **options)
        self.begun = threading.Event()
        bus.publish(self.event_class(0))
        gate.wait_until_held()
        for number in range(1, EVENTS):
            bus.publish(self.event_class(number))

    def note(self, what):
        self.returned += [what.number] if type(what) is self.event_class else [event.number for event in what]

    def handle(self, what):
        self.gate.hold()
        self.note(what)

    async def handle_async(self, what):
        await self.loop.run_in_executor(None, self.gate.hold)
        self.note(what)

    def check(self, discarded=False):
        """After the end: what was accepted is delivered or dropped, and no call is under way."""
        sub = self.subscription
        assert self.returned[0] == 0
        assert self.returned == sorted(self.returned)
        assert (sub.active, sub.pending) == (False, 0)
        assert sub.delivered == len(self.returned)
        assert sub.delivered + sub.dropped == EVENTS
        if discarded:
            assert self.returned == [0]
        elif sub.policy in ("block", "raise", "drop_newest", "drop_oldest"):
            assert self.returned == list(range(EVENTS))
        else:
            assert self.returned == [0, EVENTS - 1]


@pytest.fixture
def loop(no_thread_left, deadline):
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(deadline)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(deadline)
    loop.close()


def leave_block(case):
    with case.subscription:
        pass


def leave_async_block(case):
    async def leave():
        async with case.subscription:
            pass

    asyncio.run(leave())


def cancel_and_leave(case):
    case.subscription.cancel()
    leave_block(case)


def discard_and_leave(case):
    case.subscription.cancel(discard=True)
    leave_block(case)


def close_in_time(case):
    with pytest.raises(CloseTimeoutError, match="handle"):
        case.bus.close(0)
    assert case.returned == []
    case.bus.close()


def aclose(case):
    asyncio.run(case.bus.aclose())


ENDS = {
    "with": leave_block,
    "async with": leave_async_block,
    "cancel": cancel_and_leave,
    "cancel, discarding": discard_and_leave,
    "close": lambda case: case.bus.close(),
    "close with a timeout": close_in_time,
    "close, discarding": lambda case: case.bus.close(discard=True),
    "aclose": aclose,
    "aclose, discarding": lambda case: asyncio.run(case.bus.aclose(discard=True)),
}


@pytest.mark.parametrize("mode", ["queued", "asyncio"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ENDS)
def test_the_end_is_when_the_handler_has_returned(bus, gate, spawn, loop, mode, policy, shape, end, deadline):
    case = Case(bus, mode, policy, shape, gate, loop)
    ending = spawn(ENDS[end], case)
    with pytest.raises(TimeoutError):
        ending.result(0.03)
    assert case.returned == []
    assert case.subscription.pending > 0
    assert [sub for topic in bus.stats().topics for sub in topic.subscriptions]  # also while it ends
    gate.open()
    ending.result(deadline)
    case.check(discarded="discarding" in end)


@pytest.mark.parametrize("mode", ["queued", "asyncio"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_that_is_called_once_ends_when_that_call_has_returned(
    bus, gate, spawn, loop, mode, policy, shape, deadline
):
    event_class, options = SHAPES[shape]
    options = {key: value for key, value in options.items() if key != "batch"}
    if mode == "asyncio":
        options["loop"] = loop
    returned = []

    async def handle_async(event):
        await loop.run_in_executor(None, gate.hold)
        returned.append(event.number)

    def handle(event):
        gate.hold()
        returned.append(event.number)

    subscription = bus.subscribe(
        event_class, handle_async if mode == "asyncio" else handle, policy=policy, once=True, **options
    )
    bus.publish(event_class(0))
    gate.wait_until_held()
    assert not subscription.active
    ending = spawn(lambda: subscription.__exit__(None, None, None))
    with pytest.raises(TimeoutError):
        ending.result(0.03)
    gate.open()
    ending.result(deadline)
    assert returned == [0]
    assert (subscription.delivered, subscription.pending, subscription.dropped) == (1, 0, 0)
