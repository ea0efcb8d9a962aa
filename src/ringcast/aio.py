"""Asyncio: handlers that are `async def`, streams of events, and publishing and closing without blocking the loop.

The core wakes an event loop once when there are events for it again after all were taken (by `Subscription._next`);
what comes until all are taken costs no wake-up. So a batch of events costs the loop one.

This module is imported when it is first needed, and asyncio with it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from ringcast._core import EMPTY, Core, Envelope, Subscription, begin_wait, end_wait, nanoseconds, seconds_to_leave
from ringcast.closing import still_at_work
from ringcast.errors import (
    ClosedError,
    CloseTimeoutError,
    OptionError,
    PublishTimeoutError,
    StreamError,
    WaitTimeoutError,
)
from ringcast.events import brief, class_names, shown

if TYPE_CHECKING:
    from ringcast.dispatcher import Dispatcher

__all__ = ["Stream"]

E = TypeVar("E")

LEAST_PAUSE, LONGEST_PAUSE = 0.001, 0.1  # seconds between two looks for what a closing dispatcher is not told of
NAME_AFTER = 1.0  # seconds for which a close waits for a stream before it says so
PAUSE = 0.01  # seconds between a call that was cancelled, or ends the loop, and the next: the loop may be shut down
TURN = 0.0002  # seconds for which calls that wait for nothing may follow each other before the loop goes on


class Call:
    """A call of an `async def` handler, while it is under way: what its task, and those that it begins, can see."""

    __slots__ = ("subscription", "task")

    def __init__(self, subscription: weakref.ref[Subscription[Any]], task: asyncio.Task[Any] | None) -> None:
        self.subscription: weakref.ref[Subscription[Any]] | None = subscription  # None: it has ended
        self.task = task


# of the innermost handler; tasks inherit it, and so do threads of asyncio.to_thread
_call: contextvars.ContextVar[Call] = contextvars.ContextVar("ringcast_call")


def choose_loop(loop: object, remedy: str = "subscribe inside one, or give it as loop=") -> asyncio.AbstractEventLoop:
    """Return the loop that was given, or the running one.

    Args:
        loop: an event loop, or None.
        remedy: what a message says to do where none is running.

    Raises:
        OptionError: none was given and none is running, or it is closed, or no loop.
    """
    if loop is None:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            raise OptionError(f"there is no running event loop: {remedy}") from None
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise OptionError(f"loop must be an asyncio event loop, not {shown(loop)}")
    if loop.is_closed():
        raise OptionError(f"the event loop is closed: {brief(loop)}")
    return loop


class Runner:
    """Calls an `async def` handler, each time in a task of its event loop: at most `concurrency` at once.

    All but `wake` runs in the loop. The runner has no task of its own: whoever cancels all tasks of a loop ends the
    calls in hand, and not the subscription.
    """

    def __init__(self, subscription: Subscription[Any], loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self._subscription = subscription
        self._reference = weakref.ref(subscription)
        self._loop = loop
        self._concurrency = concurrency
        self._in_batches = subscription.batch is not None
        self._context = contextvars.copy_context()  # the subscriber's: not that of whoever publishes
        self._calls: set[asyncio.Task[BaseException | None]] = set()  # under way, or in a pause after their end
        self._goes_on = False  # _go_on is to come: wake-ups until then have nothing to do

    def wake(self) -> None:
        """There are events. Any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._loop.call_soon_threadsafe(self._begin_calls, context=self._context)

    def _begin_calls(self) -> None:
        """Handle events until there are none, or as many calls are under way as may be.

        An event that comes later wakes this again, or is seen when a call ends: no wake-up is lost.
        """
        if self._goes_on or self._subscription._is_over():
            return
        turn = self._loop.time() + TURN
        while len(self._calls) < self._concurrency and (event := self._subscription._next()) is not EMPTY:
            events = len(event) if self._in_batches else 1  # before the call: the handler may change the list
            call = self._begin(event)
            self._calls.add(call)
            if not call.done():
                call.add_done_callback(functools.partial(self._ended, event, events), context=self._context)
                continue
            self._finish(event, events, call)
            if self._loop.time() > turn:
                # the events that handlers have published meanwhile have each woken this: only one is to go on, or the
                # wake-ups multiply, and the loop has no turn for others
                self._goes_on = True
                self._loop.call_soon(self._go_on, context=self._context)
                return

    def _go_on(self) -> None:
        self._goes_on = False
        self._begin_calls()

    def _ended(self, event: Any, events: int, call: asyncio.Task[BaseException | None]) -> None:
        self._finish(event, events, call)
        self._begin_calls()

    def _finish(self, event: Any, events: int, call: asyncio.Task[BaseException | None]) -> None:
        """Report how a call has ended, and make place for the next one.

        Raises:
            KeyboardInterrupt, SystemExit: the handler has raised it. The loop raises it, as if it came out of the task.
        """
        try:
            ending = call.result()
        except BaseException as error:
            self._leave(call, at_once=not call.cancelling())
            self._subscription._failed(error, event, events)
            return
        self._leave(call, at_once=ending is None)
        if ending is None:
            self._subscription._done(events)
        else:
            self._subscription._failed(ending, event, events)
            raise ending

    def _leave(self, call: asyncio.Task[BaseException | None], at_once: bool) -> None:
        """Make place for the next call, or after a pause where this may be the end of the loop."""
        if at_once:
            self._calls.discard(call)
        else:
            self._loop.call_later(PAUSE, self._resume, call, context=self._context)

    def _resume(self, call: asyncio.Task[BaseException | None]) -> None:
        """Go on after a pause. If that was the end of the loop, this does not come any more."""
        self._calls.discard(call)
        self._begin_calls()

    def _begin(self, event: Any) -> asyncio.Task[BaseException | None]:
        """Run the handler in a task of its own, so that what it does to its context ends with it.

        From Python 3.12 on the task begins at once. A call that waits for nothing has then ended, and has cost no turn
        of the loop, which is nearly all that a task costs.
        """
        context = self._context
        if type(event) is Envelope:
            context, event = event.context, event.event
        if sys.version_info >= (3, 12) and self._loop.get_task_factory() is None:
            return asyncio.Task(self._call(event), loop=self._loop, context=context.copy(), eager_start=True)
        return self._loop.create_task(self._call(event), context=context.copy())

    async def _call(self, event: Any) -> BaseException | None:
        """Call the handler. Return what is to end the loop, which a task that has begun at once cannot raise there."""
        call = Call(self._reference, asyncio.current_task())
        _call.set(call)  # in a context of its own: see _begin
        try:
            handler: Any = self._subscription.handler
            if handler is not None:  # None: a weak one, gone just now
                self._subscription._check_answer(await handler(event))
        except (KeyboardInterrupt, SystemExit) as error:
            return error
        finally:
            call.subscription = call.task = None
        return None


class Feed:
    """What a stream is subscribed by: does not keep the stream alive, so that one that is dropped ends."""

    def __init__(self, stream: Stream[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._stream = weakref.ref(stream)
        self._loop = loop
        self.__qualname__ = "Stream"

    def __call__(self, event: object) -> None:
        """A stream's events are taken, not delivered."""
        raise NotImplementedError

    def wake(self) -> None:
        """There are events. Any thread."""
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if (stream := self._stream()) is not None:
            stream._tell()


class Stream(Generic[E]):
    """The events of a class or of several, or lists of them, as an asynchronous iterator. Made by `Dispatcher.stream`.

    It is for one task at a time.

    It ends when it is cancelled, or when the dispatcher is closed and all that was accepted has been taken. As an
    asynchronous context manager it cancels itself; so it does when nobody refers to it any more.

    Attributes:
        subscription: its Subscription, with the counters.
    """

    def __init__(self, subscribe: Callable[[Feed], Subscription[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        feed = Feed(self, loop)
        self.subscription: Subscription[Any] = subscribe(feed)
        self._in_batches = self.subscription.batch is not None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream is of one task: it is not copied or pickled; another task calls Dispatcher.stream")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """The next event, or batch of events.

        Raises:
            StopAsyncIteration: there will be none.
            StreamError: another task waits for it already, or this is another event loop.
        """
        subscription = self.subscription
        if asyncio.get_running_loop() is not self._loop:  # so two threads are never here at once
            raise StreamError(f"a stream is read in the event loop that it was made in: {brief(self._loop)}")
        if self._future is not None:
            raise StreamError("a stream is for one task at a time")
        while True:
            event = subscription._next()
            if event is not EMPTY:
                subscription._done(len(event) if self._in_batches else 1)
                return event  # type: ignore[no-any-return]
            if subscription._is_over():
                raise StopAsyncIteration
            self._future = self._loop.create_future()
            try:
                await self._future
            finally:
                self._future = None

    def _tell(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    @property
    def lag(self) -> int:
        """How many events its policy has dropped just before the one that was taken last."""
        return self.subscription.lag

    def cancel(self) -> None:
        """End the stream and drop what was not taken. Idempotent; any thread."""
        self.subscription.cancel(discard=True)

    async def aclose(self) -> None:
        """The same as `cancel`."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        subscription = getattr(self, "subscription", None)
        if subscription is not None:
            subscription.cancel(discard=True)

    def __repr__(self) -> str:
        return f"<Stream: {self.subscription!r}>"


def seconds(timeout: float | None) -> float | None:
    """Return a timeout as asyncio takes it: a float, or None for no limit.

    Raises:
        OptionError: it is no time.
    """
    limit = nanoseconds(timeout)
    return None if limit < 0 else limit / 1e9


async def wait_for(
    dispatcher: Dispatcher, event_class: type[E] | tuple[type[E], ...], stream: Stream[E], timeout: float | None
) -> E:
    """See Dispatcher.wait_for."""
    try:
        async with asyncio.timeout(timeout) as limit:
            async for event in stream:
                return event
    except TimeoutError:
        if not limit.expired():
            raise
        declined, failed = stream.subscription.filtered, stream.subscription.errors
        but = f": where= is false for the {declined} that came" if declined else ""
        if failed:
            but += f"{',' if but else ':'} where= has raised for {failed}"
        raise WaitTimeoutError(f"no {class_names(event_class)} came within {timeout:g} s{but}") from None
    finally:
        stream.cancel()
    raise ClosedError(f"dispatcher {dispatcher.name!r} was closed before there was such an event")


async def apublish(dispatcher: Dispatcher, event: object, timeout: float | None) -> int:
    """See Dispatcher.apublish."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return Core.publish(dispatcher, event, timeout=0)
                except PublishTimeoutError:
                    room = loop.create_future()
                waiter = functools.partial(loop.call_soon_threadsafe, _resolve, room)
                topics = dispatcher._when_room(event, waiter)
                try:  # it may have come in between
                    return Core.publish(dispatcher, event, timeout=0)
                except PublishTimeoutError:
                    if not await _room_comes(dispatcher, event, room):
                        return dispatcher._publish_beyond(event)
                finally:
                    dispatcher._forget_waiter(topics, waiter)
    except TimeoutError as error:
        if isinstance(error, PublishTimeoutError):
            raise
    return Core.publish(dispatcher, event, timeout=0)  # or the error, which says who is behind


async def _room_comes(dispatcher: Dispatcher, event: object, room: asyncio.Future[None]) -> bool:
    """Wait for room; return False where it would never come, as handlers of event loops would wait for each other."""
    handling = _handled_itself()
    if handling is None or not handling._is_of(dispatcher):
        await room
        return True
    wait = begin_wait(dispatcher, event, handling)
    if wait is None:
        return False
    try:
        await room
    finally:
        end_wait(dispatcher, handling, wait)
    return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def aclose(dispatcher: Dispatcher, timeout: float | None, discard: bool) -> None:
    """See Dispatcher.aclose. `timeout`: from `seconds`."""
    dispatcher._begin_close(discard)
    if in_handler() or dispatcher._is_in_handler():  # it would wait for itself
        return
    naming = asyncio.get_running_loop().call_later(NAME_AFTER, _name_unread_streams, dispatcher)
    try:
        await _closed(dispatcher, timeout)
    finally:
        naming.cancel()


def _name_unread_streams(dispatcher: Dispatcher) -> None:
    for subscription in dispatcher._subscriptions():
        if subscription._is_stream() and subscription.pending:
            logging.getLogger("ringcast").warning(
                "aclose() of %r waits for a stream of %s: read it, or cancel it (%d pending)",
                dispatcher.name,
                class_names(subscription.event_class),  # type: ignore[arg-type]  # a stream is never to a bare id
                subscription.pending,
            )


async def _closed(dispatcher: Dispatcher, timeout: float | None) -> None:
    if not await _until(dispatcher, dispatcher._has_ended, timeout) and timeout is not None:  # else it has no end
        raise CloseTimeoutError(still_at_work(dispatcher, timeout))


async def leave(subscription: Subscription[Any], exception: BaseException | None = None) -> None:
    """Cancel the subscription and wait until all that was accepted for it is delivered; in a handler, do not wait.

    `exception`: what has ended the block.
    """
    subscription.cancel()
    dispatcher = subscription._dispatcher()
    if dispatcher is None or in_handler() or dispatcher._is_in_handler():
        return
    await _until(dispatcher, subscription._is_over, seconds_to_leave(exception, dispatcher._exit_timeout))


async def _until(dispatcher: Core, done: Callable[[], bool], timeout: float | None) -> bool:
    """Wait, without a thread, until `done()` is true, which it becomes by progress of the dispatcher.

    Returns:
        Whether it is true; False after `timeout` seconds (None: no limit). True also where this is given up after
        `exit_timeout`, as a handler has begun this task: to wait for the handler may be to wait for itself.
    """
    loop = asyncio.get_running_loop()
    patience = dispatcher._exit_timeout if is_begun_by_handler(dispatcher) else None
    impatient = patience is not None and (timeout is None or patience < timeout)
    if impatient:
        timeout = patience
    deadline = None if timeout is None else loop.time() + timeout
    pause = LEAST_PAUSE
    while True:
        dispatcher._leave_closed_loops()
        progress = loop.create_future()
        listener = functools.partial(loop.call_soon_threadsafe, _resolve, progress)
        dispatcher._listen(listener)
        try:
            if done():
                return True
            left = pause if deadline is None else min(pause, deadline - loop.time())
            if left <= 0:
                if impatient:
                    tell_of_lost_patience(dispatcher)
                return impatient
            # nobody tells of the end of a thread, or that another loop is closed
            look_again = loop.call_later(left, _resolve, progress)
            try:
                await progress
            finally:
                look_again.cancel()
        finally:
            dispatcher._forget(listener)
        pause = min(2 * pause, LONGEST_PAUSE)


def in_handler() -> bool:
    """Whether the calling task runs an `async def` handler."""
    return _handled_itself() is not None


def is_begun_by_handler(dispatcher: Core) -> bool:
    """Whether an `async def` handler of the dispatcher, whose call is under way, has begun the calling task, or thread
    (asyncio.to_thread): it may wait for this one.
    """
    call = _call.get(None)
    subscription = None if call is None or call.subscription is None else call.subscription()
    return subscription is not None and subscription._is_of(dispatcher) and not in_handler()


def tell_of_lost_patience(dispatcher: Core) -> None:
    """Say that a wait in what a handler has begun was given up."""
    logging.getLogger("ringcast").warning(
        "a task or thread that a handler of %r has begun has waited %s s for that handler, which may wait for it: the "
        "wait is given up. In a handler, call aclose() or close() itself: that does not wait",
        dispatcher.name,
        dispatcher._exit_timeout,
    )


def _handled_itself() -> Subscription[Any] | None:
    """The subscription whose `async def` handler the calling task runs."""
    call = _call.get(None)
    if call is None or call.subscription is None:
        return None
    try:
        return call.subscription() if call.task is asyncio.current_task() else None
    except RuntimeError:  # no loop runs here
        return None
