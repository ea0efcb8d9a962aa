"""Asyncio: handlers that are `async def`, streams of events, and publishing and closing without blocking the loop.

The core wakes an event loop once when there are events for it again after all were taken (by `Subscription._next`);
what comes until all are taken costs no wake-up. So a batch of events costs the loop one.

This module is imported when it is first needed, and asyncio with it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ringcast._core import EMPTY, Core, Envelope, Subscription
from ringcast.errors import ClosedError, CloseTimeoutError, OptionError, PublishTimeoutError

if TYPE_CHECKING:
    from ringcast.dispatcher import Dispatcher

__all__ = ["Stream"]

E = TypeVar("E")

SLICE = 100_000_000  # ns that a helping thread waits at a time: how late it notices that nobody waits for it

_runners: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()  # the tasks that call handlers


def choose_loop(loop: object) -> asyncio.AbstractEventLoop:
    """Return the loop that was given, or the running one.

    Raises:
        OptionError: none was given and none is running, or it is closed, or no loop.
    """
    if loop is None:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            raise OptionError("there is no running event loop: subscribe inside one, or give it as loop=") from None
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise OptionError(f"loop must be an asyncio event loop, not {type(loop).__name__}")
    if loop.is_closed():
        raise OptionError(f"the event loop is closed: {loop!r}")
    return loop


class Runner:
    """Calls an `async def` handler, in tasks of its event loop: at most `concurrency` at once.

    All but `wake` runs in the loop.
    """

    def __init__(self, subscription: Subscription[Any], loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self._subscription = subscription
        self._loop = loop
        self._concurrency = concurrency
        self._context = contextvars.copy_context()  # the subscriber's: not that of whoever publishes
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There are events. Any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._loop.call_soon_threadsafe(self._start, context=self._context)

    def _start(self) -> None:
        if len(self._tasks) < self._concurrency and not self._subscription._is_over():
            task = self._loop.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # by whoever shuts the loop down
            self._subscription._abandon()
        elif (failure := task.exception()) is not None:
            raise failure

    async def _run(self) -> None:
        """Handle events until there are none."""
        subscription = self._subscription
        while (event := subscription._next()) is not EMPTY:
            if self._concurrency > 1:
                self._start()  # for the next event, which need not wait for this one
            try:
                await self._call(event)
            except asyncio.CancelledError as error:
                subscription._failed(error, event)
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            except BaseException as error:
                subscription._failed(error, event)
            else:
                subscription._done()

    async def _call(self, event: Any) -> None:
        """Run the handler in a task of its own, so that what it does to its context ends with it."""
        handler: Any = self._subscription.handler
        if handler is None:  # a weak one, gone just now
            return
        context = self._context
        if type(event) is Envelope:
            context, event = event.context, event.event
        task = self._loop.create_task(_await(handler, event), context=context.copy())
        _runners.add(task)
        await task


async def _await(handler: Callable[[Any], Awaitable[object]], event: Any) -> None:
    await handler(event)


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
    """The events of a class as an asynchronous iterator. Made by `Dispatcher.stream`, for one task at a time.

    It ends when it is cancelled, or when the dispatcher is closed and all that was accepted has been taken. As an
    asynchronous context manager it cancels itself; so it does when nobody refers to it any more.

    Attributes:
        subscription: its Subscription, with the counters.
    """

    def __init__(self, subscribe: Callable[[Feed], Subscription[E]], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        feed = Feed(self, loop)
        self.subscription: Subscription[E] = subscribe(feed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """The next event.

        Raises:
            StopAsyncIteration: there will be none.
            RuntimeError: another task waits for it already, or this is another event loop.
        """
        subscription = self.subscription
        while True:
            event = subscription._next()
            if event is not EMPTY:
                subscription._done()
                return event  # type: ignore[no-any-return]
            if subscription._is_over():
                raise StopAsyncIteration
            if self._future is not None:
                raise RuntimeError("a stream is for one task at a time")
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


async def wait_for(dispatcher: Dispatcher, stream: Stream[E], timeout: float | None) -> E:
    """See Dispatcher.wait_for."""
    try:
        async with asyncio.timeout(timeout):
            async for event in stream:
                return event
    finally:
        stream.cancel()
    raise ClosedError(f"{dispatcher!r} was closed before there was such an event")


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
                dispatcher._when_room(event, functools.partial(loop.call_soon_threadsafe, _resolve, room))
                try:  # it may have come in between
                    return Core.publish(dispatcher, event, timeout=0)
                except PublishTimeoutError:
                    await room
    except TimeoutError as error:
        if isinstance(error, PublishTimeoutError):
            raise
        raise PublishTimeoutError(f"no room in time for {event!r} in {dispatcher!r}") from None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def aclose(dispatcher: Dispatcher, timeout: float | None, nanoseconds: int) -> None:
    """See Dispatcher.aclose."""
    loop = asyncio.get_running_loop()
    dispatcher._begin_close()
    if asyncio.current_task() in _runners:  # a handler: it would wait for itself
        return
    deadline = None if timeout is None else loop.time() + nanoseconds / 1e9
    while True:
        left = SLICE if deadline is None else int(min(SLICE, max(0.0, deadline - loop.time()) * 1e9))
        if await loop.run_in_executor(None, dispatcher._await_close, left):
            return
        if deadline is not None and loop.time() >= deadline:
            raise CloseTimeoutError(dispatcher._still_at_work(timeout))


def in_handler() -> bool:
    """Whether the calling task runs an `async def` handler."""
    try:
        return asyncio.current_task() in _runners
    except RuntimeError:  # no loop runs here
        return False
