"""Mode "asyncio": async handlers on their loop, streams, wait_for, and publishing and closing without blocking it.

Everything runs on asyncio's own loop, with and without tasks that begin at once, and on uvloop.
"""

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from limits import DEADLINE

from ringcast import (
    ClosedError,
    CloseTimeoutError,
    Dispatcher,
    LoopBlockedError,
    LoopClosedError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    StreamError,
    WaitTimeoutError,
    aio,
)
from ringcast._core import EMPTY
from ringcast.aio import Runner


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class FineTick(Tick):
    pass


@dataclass(frozen=True, slots=True)
class Other:
    number: int


class Kept:
    """An async handler that keeps its events, and waits in each call until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.numbers: list[int] = []
        self.begun: list[int] = []
        self.most_at_once = 0
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def __call__(self, event: Tick) -> None:
        self.begun.append(event.number)
        self.most_at_once = max(self.most_at_once, len(self.begun) - len(self.numbers))
        await self.go.wait()
        self.numbers.append(event.number)


async def until(condition):
    """Lets the loop go on until the condition is true. The test's deadline ends it where it never is."""
    while not condition():
        await asyncio.sleep(0.001)


async def some_turns():
    """Lets the loop go round a few times: what has not happened then waits for something."""
    for _ in range(20):
        await asyncio.sleep(0.001)


@pytest.fixture
def run(loop_factory, deadline):
    """Runs a coroutine function on a new loop, within the deadline."""

    def start(main):
        async def limited():
            async with asyncio.timeout(2 * deadline):
                return await main()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(limited())

    return start


@pytest.fixture
def other_loop(loop_factory, no_thread_left, deadline):
    """A loop that runs in a thread of its own."""
    loop = loop_factory()
    thread = threading.Thread(target=loop.run_forever, name="loop", daemon=True)
    thread.start()
    yield loop
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(deadline)
        loop.close()


# --- handlers ---


def kinds_of_async_handlers(seen):
    async def function(tick: Tick) -> None:
        await asyncio.sleep(0)
        seen.append((tick.number, threading.get_ident()))

    async def two(name: str, tick: Tick) -> None:
        await function(tick)

    class Listener:
        async def method(self, tick: Tick) -> None:
            await function(tick)

        async def __call__(self, tick: Tick) -> None:
            await function(tick)

    return {
        "function": function,
        "method": Listener().method,
        "object": Listener(),
        "partial": functools.partial(two, "name"),
        "partial of an object": functools.partial(Listener()),
        "partial of a partial of a method": functools.partial(functools.partial(Listener().method)),
    }


@pytest.mark.parametrize("kind", kinds_of_async_handlers([]))
@pytest.mark.parametrize("named", [True, False])
def test_async_handlers_of_every_kind_run_on_the_loop_in_order(run, kind, named):
    async def main():
        seen = []
        handler = kinds_of_async_handlers(seen)[kind]
        async with Dispatcher() as bus:
            subscription = bus.subscribe(Tick, handler) if named else bus.subscribe(handler)
            assert subscription.mode == "asyncio"
            for number in range(100):
                assert bus.publish(Tick(number)) == 1
        assert seen == [(number, threading.get_ident()) for number in range(100)]
        assert (subscription.delivered, subscription.pending, subscription.dropped) == (100, 0, 0)

    run(main)


def test_by_decorator(run):
    async def main():
        seen = []
        async with Dispatcher() as bus:

            @bus.on
            async def first(tick: Tick) -> None:
                seen.append(("first", tick.number))

            @bus.on(Tick, concurrency=2)
            async def second(tick) -> None:
                seen.append(("second", tick.number))

            assert bus.publish(Tick(0)) == 2
        assert sorted(seen) == [("first", 0), ("second", 0)]

    run(main)


def test_an_event_that_comes_when_the_last_one_is_done_with_is_handled_too(run, bus):
    class Late:
        """A subscription that gets an event at the worst moment: when the runner has just been told there is none."""

        def __init__(self, bus, subscription) -> None:
            self._bus, self._subscription, self._left = bus, subscription, 3

        def __getattr__(self, name):
            return getattr(self._subscription, name)

        def _next(self):
            event = self._subscription._next()
            if event is EMPTY and self._left:
                self._bus.publish(Tick(4 - self._left))
                self._left -= 1
            return event

    async def main():
        handler = Kept()
        subscription = bus.subscribe(handler)
        loop = asyncio.get_running_loop()
        subscription._set_consumer(Runner(Late(bus, subscription), loop, 1).wake, loop)
        bus.publish(Tick(0))
        await until(lambda: len(handler.numbers) == 4)
        assert handler.numbers == [0, 1, 2, 3]

    run(main)


def test_events_from_other_threads_arrive_in_order(run, spawn):
    async def main():
        seen = []

        async def handler(tick: Tick) -> None:
            seen.append(tick.number)
            if tick.number % 100 == 0:
                await asyncio.sleep(0)

        def publish_all(first):
            for number in range(first, first + 5000):
                bus.publish(Tick(number))

        async with Dispatcher(max_queue=100) as bus:
            bus.subscribe(handler)
            await asyncio.gather(*(asyncio.wrap_future(spawn(publish_all, first)) for first in (0, 5000, 10_000)))
        assert sorted(seen) == list(range(15_000))
        for first in (0, 5000, 10_000):
            assert [number for number in seen if first <= number < first + 5000] == [*range(first, first + 5000)]

    run(main)


def test_it_delays_no_queued_subscriber(run, recorder):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            bus.subscribe(handler)
            bus.subscribe(Tick, recorder)
            for number in range(100):
                assert bus.publish(Tick(number)) == 2
            await until(lambda: len(recorder.events) == 100)
            assert handler.numbers == []
            handler.go.set()
        assert handler.numbers == list(range(100))

    run(main)


def test_a_handler_that_raises_is_reported_and_gets_the_next_event(run):
    async def main():
        failures, seen = [], []

        async def handler(tick: Tick) -> None:
            await asyncio.sleep(0)
            if tick.number % 2:
                raise ValueError(tick.number)
            seen.append(tick.number)

        async with Dispatcher(on_error=failures.append) as bus:
            subscription = bus.subscribe(handler)
            for number in range(6):
                bus.publish(Tick(number))
        assert seen == [0, 2, 4]
        assert [(failure.event, failure.exception.args) for failure in failures] == [
            (Tick(number), (number,)) for number in (1, 3, 5)
        ]
        assert (subscription.errors, subscription.delivered) == (3, 6)

    run(main)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_ends_the_loop_and_is_a_failure(make_bus, loop_factory, recorder, exception, deadline):
    bus = make_bus(on_error=recorder)
    subscriptions = []

    async def main():
        async def handler(tick: Tick) -> None:
            if tick.number == 1:
                raise exception

        subscriptions.append(bus.subscribe(handler))
        for number in range(4):
            bus.publish(Tick(number))
        await asyncio.Event().wait()

    with pytest.raises(exception), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    bus.close(deadline)
    [subscription] = subscriptions
    assert (subscription.delivered + subscription.dropped, subscription.pending) == (4, 0)
    assert subscription.errors >= 1  # uvloop goes on for a turn, and ends the next call as well
    reported = [type(failure.exception) for failure in recorder.events]
    # a loop that takes long to be shut down, as under AddressSanitizer, may have handled the rest meanwhile
    assert (LoopClosedError in reported) == (subscription.dropped > 0), (reported, subscription)


class InterruptedLoop(asyncio.SelectorEventLoop):
    """Where a signal's handler raises while it is told of events."""

    def __init__(self):
        super().__init__()
        self.raises = []

    def call_soon_threadsafe(self, *arguments, **context):
        if self.raises:
            raise self.raises.pop()
        return super().call_soon_threadsafe(*arguments, **context)


@pytest.fixture
def interrupted_loop():
    loop = InterruptedLoop()
    yield loop
    loop.close()


@pytest.mark.thread_unsafe(reason="an interrupt is the main thread's")
def test_an_interrupt_while_the_loop_is_told_of_an_event_costs_no_event_and_is_raised(interrupted_loop, recorder):
    async def handler(tick: Tick) -> None:
        recorder(tick)

    bus = Dispatcher()
    subscription = bus.subscribe(handler, loop=interrupted_loop)
    interrupted_loop.raises.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 -- by publish, or just after it
        bus.publish(Tick(0))
        for _ in range(10):
            pass
    bus.publish(Tick(1))
    interrupted_loop.run_until_complete(bus.aclose())
    assert recorder.events == [Tick(0), Tick(1)]
    assert (subscription.errors, subscription.dropped) == (0, 0)


@pytest.mark.thread_unsafe(reason="sets a hook of the process")
@pytest.mark.parametrize("failures", [1, 2])
def test_another_exception_while_the_loop_is_told_of_an_event_is_shown(
    interrupted_loop, recorder, make_recorder, monkeypatch, failures
):
    handled, unraisable = make_recorder(), []

    async def handler(tick: Tick) -> None:
        handled(tick)

    bus = Dispatcher(on_error=recorder)
    subscription = bus.subscribe(handler, loop=interrupted_loop)
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    interrupted_loop.raises += [TimeoutError("by a handler of SIGALRM")] * failures
    bus.publish(Tick(0))
    interrupted_loop.run_until_complete(bus.aclose())
    assert [shown.exc_type for shown in unraisable] == [TimeoutError]
    assert "event loop" in unraisable[0].object
    if failures == 1:
        assert (handled.events, recorder.events) == ([Tick(0)], [])
    else:  # given up, and said so
        assert (handled.events, subscription.dropped, subscription.active) == ([], 1, False)
        assert "cannot be told of events; events dropped: 1" in str(recorder.events[0].exception)


def test_with_raise_the_failures_of_async_handlers_are_logged(run, caplog):
    async def main():
        async def handler(tick: Tick) -> None:
            raise ValueError

        async with Dispatcher(on_error="raise") as bus:
            bus.subscribe(handler)
            assert bus.publish(Tick(0)) == 1

    with caplog.at_level(logging.ERROR, "ringcast"):
        run(main)
    assert [type(record.exc_info[1]) for record in caplog.records] == [ValueError]


def test_cancel_delivers_what_was_accepted_or_drops_it(run):
    async def main():
        async with Dispatcher() as bus:
            for discard, expected in ((False, [0, 1, 2]), (True, [0])):
                handler = Kept(held=True)
                subscription = bus.subscribe(handler)
                for number in range(3):
                    bus.publish(Tick(number))
                await until(lambda handler=handler: handler.begun)
                subscription.cancel(discard=discard)
                assert bus.publish(Tick(3)) == 0
                handler.go.set()
                await until(lambda subscription=subscription: subscription.pending == 0)
                assert handler.numbers == expected
                assert (subscription.delivered, subscription.dropped) == (len(expected), 3 - len(expected))

    run(main)


async def cancel_beside(bus, queued_handler):
    """Cancels a subscription that has events to handle, beside a queued one for which nothing was published yet: there
    are no workers then. Returns the queued one, when the other has handled its events."""
    handler = Kept(held=True)
    subscription = bus.subscribe(handler)
    for number in range(3):
        bus.publish(Tick(number))
    await until(lambda: handler.begun)
    queued = bus.subscribe(Tick, queued_handler)
    subscription.cancel()
    handler.go.set()
    await until(lambda: subscription.pending == 0)
    assert handler.numbers == [0, 1, 2]
    return queued


def test_cancel_beside_a_queued_subscription_leaves_nothing_to_wait_for(run, recorder, deadline):
    async def main():
        bus = Dispatcher()
        await cancel_beside(bus, recorder)
        assert bus.wait_idle(0)
        assert bus.stats().workers == 0
        await bus.aclose(deadline)

    run(main)


def test_cancel_beside_a_queued_subscription_delays_nobody_who_comes_later(run, recorder):
    async def main():
        async with Dispatcher() as bus:
            queued = await cancel_beside(bus, recorder)
            queued.cancel()
            later = Kept()
            bus.subscribe(later)
            assert bus.publish(Tick(3)) == 1
            await until(lambda: later.numbers == [3])
            bus.subscribe(Tick, recorder)
            assert bus.publish(Tick(4)) == 2
            await until(lambda: later.numbers == [3, 4])
        assert recorder.events == [Tick(4)]

    run(main)


# --- loop ---


@pytest.mark.parametrize("left", ["in the loop", "in the handler"])
def test_leaving_the_block_of_a_subscription_waits_for_what_was_accepted(run, left):
    async def main():
        async with Dispatcher() as bus:
            handler = Kept()

            async def leaving(tick: Tick) -> None:
                async with subscription:
                    await handler(tick)

            subscription = bus.subscribe(handler if left == "in the loop" else leaving)
            if left == "in the loop":
                async with subscription as entered:
                    assert entered is subscription
                    bus.publish(Tick(0))
                    bus.publish(Tick(1))
                assert handler.numbers == [0, 1]
            else:
                bus.publish(Tick(0))
                bus.publish(Tick(1))
                await until(lambda: handler.numbers == [0, 1])
            assert not subscription.active

    run(main)


def test_a_block_that_would_wait_for_its_own_loop_is_refused(run_python, loop_source):
    program = f"""
import asyncio
{loop_source}
from ringcast import Dispatcher, LoopBlockedError

async def main():
    async def handler(number: int) -> None:
        print(number)
    async with Dispatcher() as bus:
        with bus.subscribe(handler):
            pass
        try:
            with bus.subscribe(handler) as subscription:
                bus.publish(1)
        except LoopBlockedError:
            print("refused", subscription.active)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""
    result = run_python(program)
    assert (result.returncode, result.stdout) == (0, "refused False\n1\n"), result.stderr


def test_the_loop_is_the_running_one_or_the_given(run, other_loop):
    async def main():
        idents = {}

        def handler(name):
            async def keep(tick: Tick) -> None:
                idents[name] = threading.get_ident()

            return keep

        async with Dispatcher() as bus:
            bus.subscribe(handler("running"))
            bus.subscribe(handler("given"), loop=other_loop)
            assert bus.publish(Tick(0)) == 2
        assert idents["running"] == threading.get_ident() != idents["given"]

    run(main)


def test_a_loop_can_be_given_where_none_runs(make_bus, other_loop, recorder, deadline):
    bus = make_bus()

    async def handler(tick: Tick) -> None:
        await asyncio.sleep(0)
        recorder(tick.number)

    subscription = bus.subscribe(handler, loop=other_loop)
    for number in range(100):
        bus.publish(Tick(number))
    bus.close(deadline)
    assert recorder.events == list(range(100))
    assert subscription.delivered == 100


def test_without_a_loop_an_async_handler_is_refused(bus):
    async def handler(tick: Tick) -> None:
        pass

    with pytest.raises(OptionError, match="loop"):
        bus.subscribe(handler)
    assert bus.count(Tick) == 0


def test_a_closed_loop_is_refused(bus, loop_factory):
    async def handler(tick: Tick) -> None:
        pass

    loop = loop_factory()
    loop.close()
    with pytest.raises(OptionError, match="closed"):
        bus.subscribe(handler, loop=loop)


# --- the task of a call ---


@pytest.fixture(params=["waits for nothing", "waits", "has a task factory"])
def pausing(request):
    """A coroutine function that handlers await. A call that waits for nothing may have ended when its task is made."""

    async def pause():
        if request.param == "waits":
            await asyncio.sleep(0)
        if request.param == "has a task factory" and asyncio.get_running_loop().get_task_factory() is None:
            asyncio.get_running_loop().set_task_factory(
                lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options)
            )

    return pause


def test_each_call_is_a_task_with_a_context_of_its_own(run, pausing):
    async def main():
        name = contextvars.ContextVar("name", default="none")
        tasks, names = [], []

        async def handler(tick: Tick) -> None:
            names.append(name.get())
            name.set(f"of {tick.number}")
            tasks.append(asyncio.current_task())
            await pausing()
            assert asyncio.current_task() is tasks[-1]
            names.append(name.get())

        await pausing()
        name.set("the subscriber's")
        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler)
            name.set("of a publisher")
            for number in range(3):
                bus.publish(Tick(number))
        assert len(set(tasks)) == 3
        assert asyncio.current_task() not in tasks
        assert names == ["the subscriber's", "of 0", "the subscriber's", "of 1", "the subscriber's", "of 2"]
        assert subscription.errors == 0

    run(main)


def test_no_wake_up_is_lost_between_two_events(run, bus, spawn, deadline):
    # an event comes at the very moment at which the call for the one before ends
    async def main():
        handled = 0

        async def handler(tick: Tick) -> None:
            nonlocal handled
            handled += 1

        def publish():
            for number in range(1, 3001):
                bus.publish(Tick(number))
                end = time.monotonic() + deadline
                while handled < number:
                    assert time.monotonic() < end, f"event {number} was never handled"

        subscription = bus.subscribe(handler)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            await asyncio.wrap_future(spawn(publish))
        finally:
            sys.setswitchinterval(interval)
        assert (handled, subscription.pending) == (3000, 0)

    run(main)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_cancelling_all_tasks_of_a_loop_that_goes_on_ends_the_calls_in_hand_only(run, recorder, concurrency):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher(on_error=recorder) as bus:
            subscription = bus.subscribe(handler, concurrency=concurrency)
            for number in range(6):
                bus.publish(Tick(number))
            await until(lambda: len(handler.begun) == concurrency)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            handler.go.set()
            await until(lambda: len(handler.numbers) == 6 - concurrency)
            assert subscription.active
            assert bus.publish(Tick(6)) == 1
        assert handler.numbers == list(range(concurrency, 7))
        assert [type(failure.exception) for failure in recorder.events] == [asyncio.CancelledError] * concurrency
        assert (subscription.delivered, subscription.errors, subscription.dropped) == (7, concurrency, 0)

    run(main)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_task_of_one_call_can_be_cancelled_and_the_others_go_on(run, pausing, concurrency, recorder):
    async def main():
        seen = []

        async def handler(tick: Tick) -> None:
            if tick.number % 2:
                asyncio.current_task().cancel()
            await pausing()
            seen.append(tick.number)
            await asyncio.sleep(0)

        await pausing()
        async with Dispatcher(on_error=recorder) as bus:
            subscription = bus.subscribe(handler, concurrency=concurrency)
            for number in range(6):
                bus.publish(Tick(number))
        assert [number for number in seen if number % 2 == 0] == [0, 2, 4]
        assert sorted(failure.event.number for failure in recorder.events) == [1, 3, 5]
        assert {type(failure.exception) for failure in recorder.events} == {asyncio.CancelledError}
        assert (subscription.delivered, subscription.errors) == (6, 3)

    run(main)


def test_a_timeout_in_a_handler_ends_what_it_is_around(run, pausing):
    async def main():
        seen = []

        async def handler(tick: Tick) -> None:
            await pausing()
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append(tick.number)

        await pausing()
        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler)
            for number in range(3):
                bus.publish(Tick(number))
        assert seen == [0, 1, 2]
        assert subscription.errors == 0

    run(main)


def test_a_task_that_a_handler_starts_is_no_handler_and_waits_in_aclose(run, pausing):
    async def main():
        bus, ended = Dispatcher(), []

        async def close() -> None:
            await bus.aclose()
            ended.append("close")

        async def handler(tick: Tick) -> None:
            await pausing()
            closing.append(asyncio.create_task(close()))
            await some_turns()
            ended.append("handler")

        closing = []
        await pausing()
        bus.subscribe(handler)
        bus.publish(Tick(0))
        await until(lambda: closing)
        await closing[0]
        assert ended == ["handler", "close"]

    run(main)


CHILDREN = {
    "gather": lambda make: asyncio.gather(make()),
    "task": lambda make: asyncio.create_task(make()),
    "wait_for": lambda make: asyncio.wait_for(make(), DEADLINE),
    "thread": lambda make: asyncio.to_thread(asyncio.run, make()),
}


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
@pytest.mark.parametrize("leaves", [False, True], ids=["aclose", "async with"])
def test_a_handler_that_awaits_what_waits_for_it_goes_on_after_exit_timeout(run, pausing, child, leaves):
    async def main():
        bus, ended = Dispatcher(exit_timeout=0.05), []

        async def end() -> None:
            if leaves:
                async with subscription:
                    pass
            else:
                await bus.aclose()

        async def handler(tick: Tick) -> None:
            await pausing()
            await child(end)
            ended.append(tick.number)

        await pausing()
        subscription = bus.subscribe(handler)
        bus.publish(Tick(0))
        await until(lambda: ended)
        await bus.aclose(DEADLINE)
        assert subscription.delivered == 1

    run(main)


def test_calls_that_wait_for_nothing_leave_the_loop_its_turns(run):
    async def main():
        enough, most = False, 0

        async def handler(tick: Tick) -> None:
            nonlocal most
            most = tick.number
            if not enough and most < 1_000_000:
                bus.publish(Tick(most + 1))

        async with Dispatcher() as bus:
            bus.subscribe(handler)
            bus.publish(Tick(0))
            for _ in range(20):
                await asyncio.sleep(0)
            enough = True
        assert most < 1_000_000

    run(main)


# --- concurrency ---


@pytest.mark.parametrize("concurrency", [1, 3, 10])
def test_so_many_events_are_handled_at_once_and_no_more(run, concurrency):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            bus.subscribe(handler, concurrency=concurrency)
            for number in range(30):
                bus.publish(Tick(number))
            await until(lambda: len(handler.begun) == concurrency)
            await some_turns()
            assert handler.begun == list(range(concurrency))  # begun in order
            handler.go.set()
        assert sorted(handler.numbers) == list(range(30))
        assert handler.most_at_once == concurrency

    run(main)


def test_with_a_concurrency_of_1_the_order_holds_whatever_the_handler_awaits(run):
    async def main():
        seen, running = [], 0

        async def handler(tick: Tick) -> None:
            nonlocal running
            running += 1
            assert running == 1
            for _ in range(tick.number % 4):
                await asyncio.sleep(0)
            seen.append(tick.number)
            running -= 1

        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler, concurrency=1)
            for number in range(200):
                bus.publish(Tick(number))
        assert seen == list(range(200))
        assert subscription.errors == 0

    run(main)


def test_with_more_the_events_behind_a_slow_one_are_handled(run):
    async def main():
        go, seen = asyncio.Event(), []

        async def handler(tick: Tick) -> None:
            if tick.number == 0:
                await go.wait()
            seen.append(tick.number)

        async with Dispatcher() as bus:
            bus.subscribe(handler, concurrency=2)
            for number in range(100):
                bus.publish(Tick(number))
            await until(lambda: len(seen) == 99)
            go.set()
        assert seen == [*range(1, 100), 0]

    run(main)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "queued"},
        {"mode": "direct"},
        {"priority": 1},
        {"concurrency": 0},
        {"concurrency": "2"},
        {"concurrency": True},
        {"loop": 5},
    ],
)
def test_options_that_make_no_sense_are_refused(run, options):
    async def main():
        async def handler(tick: Tick) -> None:
            pass

        async with Dispatcher() as bus:
            with pytest.raises(OptionError):
                bus.subscribe(handler, **options)

    run(main)


# --- back-pressure ---


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop_newest", [0, 1, 2, 3, 4]), ("drop_oldest", [0, 6, 7, 8, 9]), ("latest", [0, 9])],
)
def test_dropping_policies_keep_what_queued_ones_keep(run, policy, expected):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler, policy=policy, max_queue=4)
            bus.publish(Tick(0))
            await until(lambda: handler.begun)
            for number in range(1, 10):
                assert bus.publish(Tick(number), timeout=0) == 1
            assert (subscription.pending, subscription.dropped) == (len(expected), 10 - len(expected))
            handler.go.set()
        assert handler.numbers == expected
        assert (subscription.delivered, subscription.dropped) == (len(expected), 10 - len(expected))

    run(main)


@pytest.mark.parametrize(("policy", "error"), [("block", PublishTimeoutError), ("raise", QueueFullError)])
def test_policies_that_refuse_do_so_at_max_queue(run, policy, error):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler, policy=policy, max_queue=4)
            for number in range(4):
                bus.publish(Tick(number), timeout=0)
            with pytest.raises(error):
                bus.publish(Tick(4), timeout=0)
            assert subscription.pending == 4
            handler.go.set()
        assert handler.numbers == [0, 1, 2, 3]

    run(main)


def test_a_publisher_in_another_thread_waits_for_the_handler(run, spawn):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            subscription = bus.subscribe(handler, max_queue=4)

            def publish_all():
                for number in range(100):
                    bus.publish(Tick(number))

            publisher = spawn(publish_all)
            await until(lambda: handler.begun and subscription.pending >= 4)
            await some_turns()
            assert not publisher.done()
            assert 4 <= subscription.pending <= 5  # the one in hand, which has left the queue, may count or not
            handler.go.set()
            await asyncio.wrap_future(publisher)
        assert handler.numbers == list(range(100))

    run(main)


def test_an_async_handler_that_fills_its_own_queue_does_not_deadlock(run_python, loop_source):
    # in a process of its own, because a loop that is blocked cannot keep a deadline
    program = f"""
import asyncio
{loop_source}
from ringcast import Dispatcher

async def main():
    seen = []
    async with Dispatcher(max_queue=2) as bus:
        async def handler(number: int) -> None:
            if number == 0:
                for other in range(1, 1001):
                    bus.publish(other)
            seen.append(number)
        bus.subscribe(handler)
        bus.publish(0)
        while len(seen) < 1001:
            await asyncio.sleep(0.001)
    assert seen == list(range(1001))

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""
    result = run_python(program)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("event_class", [int, object])
def test_beyond_the_reserve_publish_in_the_loop_raises_and_loses_nothing(run, event_class):
    # where waiting would stop the loop it goes past max_queue, as a handler does; but not for ever
    async def main():
        seen, accepted = [], []

        async def handler(event) -> None:
            seen.append(event)

        async with Dispatcher(max_queue=10) as bus:
            subscription = bus.subscribe(event_class, handler)
            with pytest.raises(QueueFullError, match=r"coroutine .*main has published .*apublish"):  # noqa: PT012
                for number in range(70_000):
                    bus.publish(number)
                    accepted.append(number)
        assert len(seen) == len(accepted)
        assert seen == accepted
        assert subscription.dropped == 0

    run(main)


# --- apublish ---


def test_apublish_returns_the_number_of_subscriptions(run, recorder):
    async def main():
        async with Dispatcher() as bus:
            assert await bus.apublish(Tick(0)) == 0
            bus.subscribe(Tick, recorder)
            bus.subscribe(Kept())
            assert await bus.apublish(Tick(1)) == 2
        assert recorder.events == [Tick(1)]

    run(main)


def test_apublish_waits_for_room_and_the_loop_goes_on(run, gate, recorder):
    async def main():
        def handler(tick: Tick) -> None:
            gate.hold()
            recorder(tick.number)

        async with Dispatcher() as bus:
            bus.subscribe(handler, max_queue=2)
            for number in range(2):
                await bus.apublish(Tick(number))
            waiting = asyncio.create_task(bus.apublish(Tick(2)))
            await some_turns()
            assert not waiting.done()
            gate.open()
            assert await waiting == 1
        assert recorder.events == [0, 1, 2]

    run(main)


def test_an_apublish_that_waits_costs_nothing(run, gate):
    async def main():
        async with Dispatcher() as bus:
            bus.subscribe(Tick, gate.hold, max_queue=1)
            await bus.apublish(Tick(0))
            looks = 0
            when_room = bus._when_room

            def counted(event, waiter):
                nonlocal looks
                looks += 1
                return when_room(event, waiter)

            bus._when_room = counted
            waiting = asyncio.create_task(bus.apublish(Tick(1)))
            await until(lambda: looks)
            await asyncio.to_thread(gate.wait_until_held)
            await some_turns()
            before = looks
            await some_turns()
            assert looks == before
            gate.open()
            await waiting

    run(main)


def test_apublish_waits_for_an_async_handler_on_the_same_loop(run):
    async def main():
        handler = Kept()
        async with Dispatcher(max_queue=2) as bus:
            bus.subscribe(handler)
            for number in range(500):
                assert await bus.apublish(Tick(number)) == 1
        assert handler.numbers == list(range(500))

    run(main)


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_apublish_gives_up_after_its_timeout(run, gate, timeout):
    async def main():
        async with Dispatcher() as bus:
            subscription = bus.subscribe(Tick, gate.hold, max_queue=1)
            await bus.apublish(Tick(0), timeout=timeout)
            start = asyncio.get_running_loop().time()
            with pytest.raises(PublishTimeoutError):
                await bus.apublish(Tick(1), timeout=timeout)
            assert asyncio.get_running_loop().time() - start >= 0.9 * timeout
            gate.open()
        assert subscription.delivered == 1

    run(main)


def test_an_apublish_that_is_cancelled_has_not_published(run, gate, recorder):
    async def main():
        def handler(tick: Tick) -> None:
            gate.hold()
            recorder(tick.number)

        async with Dispatcher() as bus:
            bus.subscribe(handler, max_queue=1)
            await bus.apublish(Tick(0))
            waiting = asyncio.create_task(bus.apublish(Tick(1)))
            await some_turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gate.open()
            await bus.apublish(Tick(2))
        assert recorder.events == [0, 2]

    run(main)


def test_apublish_raises_when_the_dispatcher_is_closed_meanwhile(run, gate):
    async def main():
        bus = Dispatcher()
        bus.subscribe(Tick, gate.hold, max_queue=1)
        await bus.apublish(Tick(0))
        waiting = asyncio.create_task(bus.apublish(Tick(1)))
        await some_turns()
        closing = asyncio.create_task(bus.aclose())
        with pytest.raises(ClosedError):
            await waiting
        assert not closing.done()
        gate.open()
        await closing
        with pytest.raises(ClosedError):
            await bus.apublish(Tick(2))

    run(main)


# --- stream ---


def test_a_stream_gives_the_events_of_a_class_in_order(run):
    async def main():
        seen = []
        async with Dispatcher() as bus, bus.stream(Tick) as stream:
            assert bus.count(Tick) == 1
            for number in range(100):
                bus.publish(Tick(number))
                bus.publish(Other(number))
            async for tick in stream:
                seen.append(tick.number)
                if tick.number == 99:
                    break
            assert bus.count(Tick) == 1  # it goes on: leaving the loop does not end it
        assert bus.closed
        assert seen == list(range(100))
        assert not stream.subscription.active

    run(main)


def test_a_stream_is_fed_by_other_threads(run, spawn, deadline):
    async def main():
        amount = 20_000

        def publish_all():
            for number in range(amount):
                bus.publish(Tick(number))

        async with Dispatcher(max_queue=1000) as bus, bus.stream(Tick) as stream:
            publisher = spawn(publish_all)
            for number in range(amount):
                assert (await anext(stream)).number == number
            publisher.result(deadline)
            assert stream.subscription.delivered == amount

    run(main)


def test_a_stream_that_is_waited_for_gets_the_next_event(run):
    async def main():
        async with Dispatcher() as bus, bus.stream(Tick) as stream:
            for number in range(10):
                waiting = asyncio.create_task(anext(stream))
                await asyncio.sleep(0)
                assert not waiting.done()
                bus.publish(Tick(number))
                assert await waiting == Tick(number)

    run(main)


@pytest.mark.parametrize("how", ["cancel", "aclose", "bus"])
def test_a_stream_ends_when_it_is_cancelled_or_the_dispatcher_closed(run, how):
    async def main():
        bus = Dispatcher()
        stream = bus.stream(Tick)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        if how == "cancel":
            stream.cancel()
        else:
            await (stream.aclose() if how == "aclose" else bus.aclose())
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await bus.aclose()

    run(main)


def test_a_stream_gives_what_was_accepted_before_the_dispatcher_was_closed(run):
    async def main():
        bus = Dispatcher()
        stream = bus.stream(Tick)
        for number in range(10):
            bus.publish(Tick(number))
        closing = asyncio.create_task(bus.aclose())
        await some_turns()
        assert [tick.number async for tick in stream] == list(range(10))
        await closing
        assert stream.subscription.delivered == 10

    run(main)


def test_leaving_a_stream_drops_what_nobody_will_take(run):
    async def main():
        async with Dispatcher() as bus:
            async with bus.stream(Tick) as stream:
                for number in range(10):
                    bus.publish(Tick(number))
                assert (await anext(stream)).number == 0
            assert bus.count(Tick) == 0
            await until(lambda: stream.subscription.pending == 0)
            subscription = stream.subscription
            assert subscription.delivered + subscription.dropped == 10

    run(main)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("drop_newest", [0, 1, 2, 3]), ("drop_oldest", [6, 7, 8, 9]), ("latest", [9])],
)
def test_a_stream_has_a_policy(run, policy, expected):
    async def main():
        async with Dispatcher() as bus, bus.stream(Tick, max_queue=4, policy=policy) as stream:
            for number in range(10):
                bus.publish(Tick(number), timeout=0)
            assert [(await anext(stream)).number for _ in expected] == expected
            assert stream.subscription.dropped == 10 - len(expected)
            assert stream.subscription.policy == policy

    run(main)


def test_a_stream_that_blocks_holds_publishers_until_it_is_read(run):
    async def main():
        async with Dispatcher() as bus, bus.stream(Tick, max_queue=4) as stream:
            for number in range(4):
                bus.publish(Tick(number), timeout=0)
            with pytest.raises(PublishTimeoutError):
                bus.publish(Tick(4), timeout=0)
            waiting = asyncio.create_task(bus.apublish(Tick(4)))
            assert [(await anext(stream)).number for _ in range(5)] == [0, 1, 2, 3, 4]
            assert await waiting == 1

    run(main)


def test_a_stream_selects(run):
    async def main():
        async with (
            Dispatcher() as bus,
            bus.stream(Tick, where=lambda tick: tick.number % 2) as odd,
            bus.stream(Tick, subclasses=True) as family,
        ):
            for number in range(6):
                bus.publish((Tick, FineTick)[number // 3](number))
            assert [(await anext(odd)).number for _ in range(1)] == [1]
            assert sorted([(await anext(family)).number for _ in range(6)]) == list(range(6))
            bus.publish(Tick(7))
            assert (await anext(odd)).number == 7
            assert odd.subscription.filtered == 2

    run(main)


def test_waiting_for_a_stream_can_be_cancelled_and_costs_no_event(run):
    async def main():
        async with Dispatcher() as bus, bus.stream(Tick) as stream:
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            bus.publish(Tick(0))
            waiting.cancel()  # before the loop has seen the event
            taken = []
            with contextlib.suppress(asyncio.CancelledError):
                taken.append(await waiting)
            bus.publish(Tick(1))
            while len(taken) < 2:
                taken.append(await anext(stream))
            assert taken == [Tick(0), Tick(1)]

    run(main)


def test_a_stream_is_read_in_its_own_loop_and_by_one_task(run, spawn, deadline):
    # so no two threads are ever in it
    async def main():
        async with Dispatcher() as bus, bus.stream(Tick) as stream:
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            bus.publish(Tick(0))
            with pytest.raises(StreamError, match="one task"):
                await anext(stream)
            assert await waiting == Tick(0)
            bus.publish(Tick(1))

            async def elsewhere():
                with pytest.raises(StreamError, match="event loop"):
                    await anext(stream)

            spawn(asyncio.run, elsewhere()).result(deadline)
            assert await anext(stream) == Tick(1)  # it has cost no event

    run(main)


# --- wait_for ---


async def begun(bus, coroutine, event_class=Tick):
    """The task of a wait_for that has subscribed."""
    task = asyncio.create_task(coroutine)
    await until(lambda: bus.count(event_class) == 1)
    return task


def test_wait_for_gives_the_next_event(run):
    async def main():
        async with Dispatcher() as bus:
            waiting = await begun(bus, bus.wait_for(Tick))
            for number in range(3):
                bus.publish(Tick(number))
            assert await waiting == Tick(0)
            assert bus.count(Tick) == 0

    run(main)


def test_wait_for_an_event_of_another_thread_that_fits(run, spawn, deadline):
    async def main():
        async with Dispatcher() as bus:
            waiting = await begun(bus, bus.wait_for(Tick, where=lambda tick: tick.number > 50, timeout=deadline))
            spawn(lambda: [bus.publish(Tick(number)) for number in range(100)])
            assert await waiting == Tick(51)
            assert bus.count(Tick) == 0

    run(main)


@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest", "drop_oldest", "latest"])
def test_wait_for_gives_the_next_event_whatever_the_dispatchers_policy(run, policy):
    async def main():
        async with Dispatcher(policy=policy, max_queue=3) as bus:
            waiting = asyncio.create_task(bus.wait_for(Tick))
            await some_turns()
            for number in range(3):
                bus.publish(Tick(number))
            assert await waiting == Tick(0)

    run(main)


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_wait_for_gives_up_after_its_timeout(run, timeout):
    async def main():
        async with Dispatcher() as bus:
            waiting = asyncio.create_task(bus.wait_for(Tick, where=lambda tick: tick.number > 5, timeout=timeout))
            await asyncio.sleep(0)
            bus.publish(Tick(0))
            with pytest.raises(WaitTimeoutError, match=rf"no .*Tick came within {timeout} s"):
                await waiting
            assert bus.count(Tick) == 0

    run(main)


def test_a_wait_for_that_is_cancelled_leaves_no_subscription(run):
    async def main():
        async with Dispatcher() as bus:
            waiting = await begun(bus, bus.wait_for(Tick))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert bus.count(Tick) == 0

    run(main)


def test_wait_for_that_gives_up_says_what_became_of_the_events_that_came(run):
    def where(tick):
        return tick.number > 1 or 1 / tick.number > 2

    async def main():
        async with Dispatcher(on_error=lambda failure: None) as bus:
            waiting = asyncio.create_task(bus.wait_for(Tick, where=where, timeout=0.1))
            await asyncio.sleep(0)
            for number in (0, 1, 1):
                bus.publish(Tick(number))
            with pytest.raises(WaitTimeoutError, match="is false for the 2 that came, where= has raised for 1"):
                await waiting

    run(main)


def test_wait_for_raises_when_the_dispatcher_closes_first(run):
    async def main():
        bus = Dispatcher()
        waiting = await begun(bus, bus.wait_for(Tick))
        await bus.aclose()
        with pytest.raises(ClosedError):
            await waiting
        with pytest.raises(ClosedError):
            await bus.wait_for(Tick)

    run(main)


# --- close ---


def test_async_with_delivers_what_was_accepted(run, recorder):
    async def main():
        handler = Kept()
        async with Dispatcher() as bus:
            bus.subscribe(handler)
            bus.subscribe(Tick, recorder)
            for number in range(1000):
                bus.publish(Tick(number))
        assert bus.closed
        assert handler.numbers == list(range(1000))
        assert len(recorder.events) == 1000

    run(main)


def test_aclose_waits_without_blocking_the_loop(run, gate):
    async def main():
        handler = Kept(held=True)
        bus = Dispatcher()
        bus.subscribe(handler)
        bus.subscribe(Tick, gate.hold)
        for number in range(10):
            bus.publish(Tick(number))
        closing = asyncio.create_task(bus.aclose())
        await some_turns()
        assert not closing.done()
        with pytest.raises(ClosedError):
            bus.publish(Tick(10))
        gate.open()
        await some_turns()
        assert not closing.done()
        handler.go.set()
        await closing
        assert handler.numbers == list(range(10))
        await bus.aclose()  # again

    run(main)


def test_aclose_gives_up_after_its_timeout_and_names_the_handler(run):
    async def main():
        handler = Kept(held=True)
        bus = Dispatcher()
        bus.subscribe(handler)
        bus.publish(Tick(0))
        for timeout in (0, 0.05):
            with pytest.raises(CloseTimeoutError, match="Kept"):
                await bus.aclose(timeout)
        handler.go.set()
        await bus.aclose()
        assert handler.numbers == [0]

    run(main)


@pytest.mark.parametrize("what", ["nothing", "a handler"])
def test_aclose_and_leaving_a_block_need_no_thread_of_the_executor(run, gate, what):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        occupied = loop.run_in_executor(None, gate.hold)
        await until(lambda: gate.wait_until_held() is None)
        handler = Kept(held=what == "a handler")
        async with Dispatcher() as bus:
            async with bus.subscribe(handler):
                bus.publish(Tick(0))
                loop.call_later(0.01, handler.go.set)
            assert handler.numbers == [0]
        with pytest.raises(CloseTimeoutError):
            await held_by(Kept(held=True)).aclose(0.05)
        assert not occupied.done()
        gate.open()
        await occupied

    def held_by(handler):
        bus = Dispatcher()
        bus.subscribe(handler)
        bus.publish(Tick(0))
        handler.go.set()
        handler.go = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, handler.go.set)
        return bus

    run(main)


def test_close_in_another_thread_waits_for_the_loop(run, spawn, deadline):
    async def main():
        handler = Kept(held=True)
        bus = Dispatcher()
        subscription = bus.subscribe(handler)
        for number in range(10):
            bus.publish(Tick(number))
        closer = spawn(bus.close, deadline)
        await some_turns()
        assert not closer.done()
        handler.go.set()
        await asyncio.wrap_future(closer)
        assert handler.numbers == list(range(10))
        assert subscription.delivered == 10

    run(main)


def test_close_in_a_loop_that_it_would_have_to_wait_for_is_refused(run):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            bus.subscribe(handler)
            bus.publish(Tick(0))
            await until(lambda: handler.begun)
            with pytest.raises(LoopBlockedError, match=r"await aclose\(\), or use async with$"):
                bus.close()
            assert not bus.closed
            assert bus.publish(Tick(1)) == 1  # nothing has changed
            handler.go.set()
        assert handler.numbers == [0, 1]

    run(main)


def test_to_wait_in_a_loop_for_what_it_has_to_do_is_refused_and_a_thread_can(run):
    async def main():
        handler = Kept(held=True)
        async with Dispatcher() as bus:
            bus.subscribe(handler)
            bus.publish(Tick(0))
            await until(lambda: handler.begun)
            with pytest.raises(LoopBlockedError, match=r"await asyncio.to_thread\(wait_idle\)$"):
                bus.wait_idle()
            waiting = asyncio.create_task(asyncio.to_thread(bus.wait_idle, DEADLINE))
            handler.go.set()
            assert await waiting
            assert handler.numbers == [0]

    run(main)


@pytest.mark.parametrize("cancelled", [False, True])
def test_close_in_a_loop_that_has_nothing_to_do_for_it_is_fine(run_python, loop_source, cancelled):
    # in a process of its own, because a loop that is blocked cannot keep a deadline
    program = f"""
import asyncio
{loop_source}
from ringcast import Dispatcher

async def main():
    seen = []
    bus = Dispatcher()
    async def handler(number: int) -> None:
        seen.append(number)
    subscription = bus.subscribe(handler)
    bus.publish(0)
    while subscription.pending:
        await asyncio.sleep(0.001)
    if {cancelled}:
        subscription.cancel()
        await asyncio.sleep(0)
    bus.close()
    assert seen == [0]

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""
    result = run_python(program)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_async_handler_may_close_the_dispatcher(run):
    # from inside a handler close does not wait
    async def main():
        seen = []
        bus = Dispatcher()

        async def handler(tick: Tick) -> None:
            seen.append(tick.number)
            if tick.number == 0:
                bus.close()
                with pytest.raises(ClosedError):
                    bus.publish(Tick(9))

        subscription = bus.subscribe(handler)
        for number in range(3):
            bus.publish(Tick(number))
        await until(lambda: bus.closed)
        await bus.aclose()
        assert seen == [0, 1, 2]
        assert subscription.errors == 0

    run(main)


def test_an_async_handler_may_aclose_the_dispatcher(run):
    # it waits for itself: so it must not wait
    async def main():
        seen = []
        bus = Dispatcher()

        async def handler(tick: Tick) -> None:
            if tick.number == 0:
                await bus.aclose()
            seen.append(tick.number)

        subscription = bus.subscribe(handler)
        for number in range(3):
            bus.publish(Tick(number))
        await until(lambda: bus.closed)
        await bus.aclose()
        assert seen == [0, 1, 2]
        assert subscription.errors == 0

    run(main)


def test_aclose_can_drop_what_no_handler_has_begun(run):
    async def main():
        handler = Kept(held=True)
        bus = Dispatcher()
        subscription = bus.subscribe(handler)
        for number in range(10):
            bus.publish(Tick(number))
        await until(lambda: handler.begun)
        closing = asyncio.create_task(bus.aclose(discard=True))
        await some_turns()
        assert not closing.done()
        handler.go.set()
        await closing
        assert handler.numbers == [0]
        assert (subscription.delivered, subscription.dropped, subscription.pending) == (1, 9, 0)

    run(main)


@pytest.mark.parametrize("exception", [ValueError, asyncio.CancelledError])
def test_an_exception_in_a_block_is_seen_though_nobody_reads_a_stream(run, exception):
    async def main():
        with pytest.raises(exception):  # noqa: PT012
            async with Dispatcher(exit_timeout=0.05) as bus:
                stream = bus.stream(Tick)
                bus.subscribe(Kept(held=exception is asyncio.CancelledError))
                bus.publish(Tick(0))
                raise exception
        assert bus.closed
        assert (stream.subscription.pending, stream.subscription.dropped) == (0, 1)

    run(main)


def test_a_stream_that_is_kept_and_not_read_is_named(run, caplog, monkeypatch):
    monkeypatch.setattr(aio, "NAME_AFTER", 0.01)

    async def main():
        bus = Dispatcher(name="named")
        stream = bus.stream(Tick)
        bus.publish(Tick(0))
        closing = asyncio.create_task(bus.aclose())
        await until(lambda: caplog.records)
        assert "'named' waits for a stream of" in caplog.text
        assert "Tick" in caplog.text
        assert [tick.number async for tick in stream] == [0]
        await closing

    with caplog.at_level(logging.WARNING, "ringcast"):
        run(main)


# --- a loop that ends before the dispatcher ---


@pytest.mark.parametrize("held", [False, True], ids=["between events", "inside a handler"])
@pytest.mark.parametrize("report", ["on_error", "log"])
def test_the_events_of_a_loop_that_is_gone_are_dropped_counted_and_reported(
    make_bus, loop_factory, recorder, caplog, held, report, deadline
):
    bus = make_bus(on_error=recorder if report == "on_error" else None)

    async def main():
        handler = Kept(held=held)
        subscription = bus.subscribe(handler)
        bus.publish(Tick(0))
        await until(lambda: handler.begun if held else subscription.delivered)
        await some_turns()
        return handler, subscription

    def publish_the_rest():  # while the loop stands still
        for number in range(1, 10):
            bus.publish(Tick(number))

    with caplog.at_level(logging.WARNING):
        if held:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                handler, subscription = runner.run(main())
                publish_the_rest()
            # which has cancelled the handler
        else:
            loop = loop_factory()
            handler, subscription = loop.run_until_complete(main())
            publish_the_rest()
            loop.close()  # without another turn
    bus.close(deadline)
    assert subscription.pending == 0
    assert subscription.delivered + subscription.dropped == 10
    assert subscription.dropped > 0
    assert len(handler.numbers) <= subscription.delivered
    if report == "on_error":
        assert LoopClosedError in [type(failure.exception) for failure in recorder.events]
        assert {failure.subscription for failure in recorder.events} == {subscription}
    else:
        assert [record for record in caplog.records if record.name == "ringcast"]


def test_a_handler_that_will_never_end_as_its_loop_is_closed_does_not_hold_up_close(
    make_bus, loop_factory, recorder, deadline
):
    bus = make_bus(on_error=recorder)

    async def main():
        handler = Kept(held=True)
        subscription = bus.subscribe(handler)
        for number in range(5):
            bus.publish(Tick(number))
        await until(lambda: handler.begun)
        return subscription

    loop = loop_factory()
    subscription = loop.run_until_complete(main())
    loop.close()  # with the handler's task pending: nobody cancels it
    bus.close(deadline)
    assert (subscription.delivered, subscription.dropped, subscription.pending) == (0, 5, 0)
    assert [type(failure.exception) for failure in recorder.events] == [LoopClosedError]
    recorder.events.clear()
    freed = weakref.ref(subscription)
    del subscription, loop
    gc.collect()  # the task, whose end then counts no more
    assert freed() is None
    assert recorder.events == []


def test_publishing_for_a_loop_that_is_gone_neither_hangs_nor_raises(
    make_bus, loop_factory, recorder, make_recorder, deadline
):
    other = make_recorder()
    bus = make_bus(max_queue=10, on_error=recorder)

    async def main():
        return bus.subscribe(Kept())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        subscription = runner.run(main())
    bus.subscribe(Tick, other)
    for number in range(100):
        assert bus.publish(Tick(number), timeout=deadline) in (1, 2)
    bus.close(deadline)
    assert len(other.events) == 100
    assert (subscription.delivered, subscription.pending) == (0, 0)
    assert subscription.dropped >= 1
    assert recorder.events


def test_a_loop_that_stands_still_holds_up_close_until_its_timeout(make_bus, loop_factory, deadline):
    bus = make_bus()
    loop = loop_factory()  # which nobody runs

    async def handler(tick: Tick) -> None:
        pass

    subscription = bus.subscribe(handler, loop=loop)
    bus.publish(Tick(0))
    with pytest.raises(CloseTimeoutError):
        bus.close(0.05)
    loop.close()
    bus.close(deadline)
    assert (subscription.delivered, subscription.dropped, subscription.pending) == (0, 1, 0)


def test_the_loop_of_a_program_may_end_with_its_dispatcher_open(run_python, loop_source):
    program = f"""
import asyncio
{loop_source}
from ringcast import Dispatcher

bus = Dispatcher()

async def main():
    async def handler(number: int) -> None:
        await asyncio.sleep(3600)
    bus.subscribe(handler)
    for number in range(10):
        bus.publish(number)
    await asyncio.sleep(0)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
print("end")
"""
    result = run_python(program)
    assert (result.returncode, result.stdout) == (0, "end\n")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_no_event_is_left_behind_with_eager_tasks(deadline):
    # each event is published when the one before it is handled: as the consumer is about to rest
    handled = threading.Semaphore(0)

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with Dispatcher() as bus:

            @bus.on
            async def handler(tick: Tick) -> None:
                handled.release()

            def publish():
                for number in range(20_000):
                    bus.publish(Tick(number))
                    assert handled.acquire(timeout=deadline), f"event {number} was not handled"

            await asyncio.to_thread(publish)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads meet there more often
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(interval)


def test_whoever_cancels_all_tasks_of_a_loop_ends_the_call_in_hand_and_not_the_subscription(run):
    async def main():
        failures, handled, begun = [], [], asyncio.Event()

        async def handler(tick: Tick) -> None:
            begun.set()
            if tick.number == 0:
                await asyncio.Event().wait()
            handled.append(tick.number)

        async with Dispatcher(on_error=failures.append) as bus:
            subscription = bus.subscribe(handler)
            bus.publish(Tick(0))
            await begun.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await until(lambda: failures)
            assert subscription.active
            assert bus.publish(Tick(1)) == 1
            await until(lambda: handled)
        assert [type(failure.exception) for failure in failures] == [asyncio.CancelledError]
        assert handled == [1]

    run(main)
