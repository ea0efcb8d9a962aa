"""The dispatcher as Python sees it: checks what it is given and leaves the work to the compiled core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from ringcast import closing, subscribing
from ringcast._core import Core, Options, RecordBatch, Subscription, nanoseconds
from ringcast.events import brief, short
from ringcast.exit_and_fork import register
from ringcast.failures import HandlerFailure, log_failure, report_failure
from ringcast.handlers import Accepts
from ringcast.options import HandlerOptions, Policy, check_policy, resolve
from ringcast.settings import check_settings
from ringcast.signatures import shown_as
from ringcast.subscribing import A, B, BatchDecorator, C, Classes, Decorator, E, H, Handler, Three, Two
from ringcast.values import flag

if TYPE_CHECKING:
    from ringcast.aio import Stream
    from ringcast.options import StreamOptions, WaitOptions
    from ringcast.stats import DispatcherStats

__all__ = ["BatchDecorator", "Decorator", "Dispatcher", "Handler", "HandlerFailure", "log_failure"]

EXIT_TIMEOUT = 5.0  # seconds, the default of exit_timeout


class Dispatcher(Core):
    """Delivers events to the handlers that are subscribed to their type, each in order and by itself.

    All methods may be called from any thread and from inside a handler.

    Args:
        max_queue: how many events of one type may wait for the slowest of its subscribers, from 1; then `publish`
            waits. Handlers may go past it where waiting would never end (see `publish`).
        max_workers: how many threads may run handlers, from 1. One is used, more only for handlers that are slow
            (and, on free-threaded Python, one for each CPU); one of them is kept for handlers that are not. By default
            min(32, CPUs + 4), as in `concurrent.futures`, and one more for each handler that is stuck in a call, up to
            1,000 more: quick handlers run however many others hang. A number that is given is never exceeded: when as
            many handlers hang, the others wait.
        on_error: is called with a HandlerFailure when a handler raises, on the thread of the handler; but not for
            failures of a handler of HandlerFailure, which are logged. By default all failures are logged, to the logger
            `ringcast`. "raise": what direct handlers raise is raised by `publish` as an ExceptionGroup, when all have
            run; of other handlers it is logged.
        name: the prefix of the threads' names, "ringcast" by default.
        policy: that of subscriptions which state none; see `HandlerOptions`.
        timing: whether the time of handlers is kept, for `Subscription.handler_seconds`.
        exit_timeout: how long the end of the program, of a `with` block that an exception ends, or of a close in what
            an `async def` handler has begun, waits for the deliveries, in seconds; None: as long as they take. What is
            left then is named in the logger `ringcast`.

    Raises:
        OptionError: an argument is not as above.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Tick:
        ...     price: float
        >>> with Dispatcher() as bus:
        ...     @bus.on
        ...     def show(tick: Tick) -> None:
        ...         print(tick.price)
        ...     subscribers = bus.publish(Tick(101.5))
        101.5
    """

    # for a subclass that forgot to call __init__: such a one is closed
    _policy: Policy = "block"
    _exit_timeout: float | None = EXIT_TIMEOUT

    def __init__(
        self,
        max_queue: int = 50_000,
        max_workers: int | None = None,
        on_error: Callable[[HandlerFailure], object] | Literal["raise"] | None = None,
        name: str | None = None,
        *,
        policy: Policy = "block",
        timing: bool = True,
        exit_timeout: float | None = EXIT_TIMEOUT,
    ) -> None:
        settings = check_settings(max_queue, max_workers, on_error, name, timing)
        self._policy = check_policy(policy)
        nanoseconds(exit_timeout, "exit_timeout")
        self._exit_timeout = exit_timeout
        self._named = False
        super().__init__(**settings)
        self._on_error = on_error if callable(on_error) else log_failure
        register(self)

    @overload
    def subscribe(self, handler: Handler[E], /, **options: Unpack[HandlerOptions[E]]) -> Subscription[E]: ...
    @overload
    def subscribe(
        self, handler: Handler[list[E]], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe(
        self, handler: Handler[RecordBatch[E]], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe(
        self, event_class: Two[A, B], handler: Handler[A | B], /, **options: Unpack[HandlerOptions[A | B]]
    ) -> Subscription[A | B]: ...
    @overload
    def subscribe(
        self, event_class: Three[A, B, C], handler: Handler[A | B | C], /, **options: Unpack[HandlerOptions[A | B | C]]
    ) -> Subscription[A | B | C]: ...
    @overload
    def subscribe(
        self, event_class: Classes[E], handler: Handler[E], /, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe(
        self,
        event_class: Two[A, B],
        handler: Handler[list[A | B]],
        /,
        *,
        batch: int,
        **options: Unpack[HandlerOptions[A | B]],
    ) -> Subscription[A | B]: ...
    @overload
    def subscribe(
        self,
        event_class: Three[A, B, C],
        handler: Handler[list[A | B | C]],
        /,
        *,
        batch: int,
        **options: Unpack[HandlerOptions[A | B | C]],
    ) -> Subscription[A | B | C]: ...
    @overload
    def subscribe(
        self, event_class: Classes[E], handler: Handler[list[E]], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe(
        self,
        event_class: type[E],
        handler: Handler[RecordBatch[E]],
        /,
        *,
        batch: int,
        **options: Unpack[HandlerOptions[E]],
    ) -> Subscription[E]: ...
    @shown_as("self, event_class_or_handler, handler=None, /")
    def subscribe(self, *arguments: Any, **options: Any) -> Subscription[Any]:
        """Has `handler` called with every event of a class, or of several, that is published from now on, in order.

        `subscribe(handler)` takes the class from the annotation of the handler's parameter,
        `subscribe(event_class, handler)` is told it. An event's exact class counts: subclasses are event classes
        of their own, unless they inherit an `__event_type__`; with `subclasses=True` their events come too.

        Several classes are a union in the annotation, `event: Deposit | Withdrawal`, or a tuple of classes. This is one
        subscription: it has one queue, and the events come in the order of publishing across the classes.

        Args:
            event_class: any class, or a tuple of classes. `object` and protocols stand for all that are instances of
                them.
            handler: any callable that takes one positional argument; an `async def` one runs on an event loop. It is
                held strongly until the subscription is cancelled. What it returns is ignored; but a coroutine or a
                generator, which nobody would run, is a failure of the handler.
            batch: the handler takes a list of events instead, what is there and at most so many, from 1 to 65,536. It
                never waits for a batch to fill. Of a record type it takes a RecordBatch, of up to 512; of several
                classes a list in any case.
            options: where and how it is called; see `HandlerOptions`.

        Returns:
            The Subscription, by which it is cancelled.

        Raises:
            HandlerTypeError: the handler cannot be called so, or its annotation names no class.
            EventClassError: the handler is annotated with another class, or the class's id is another class's.
            TypeIdError: the class states a bad id, or its instances compute it (then use `subscribe_to`).
            OptionError: an option is unknown, has a bad value, or does not go with the others.
            ClosedError: the dispatcher is closed.
            StartError: with `own_thread`, no thread can be started.
        """
        return subscribing.subscribe(self, arguments, sys._getframe(1), options)

    def _resolve(self, accepts: Accepts, handler: Any, classes: tuple[type, ...], options: Any) -> Options:
        self._check_open()
        return resolve(accepts, handler, classes, self._policy, self.max_queue, options)

    @overload
    def subscribe_to(
        self, type_id: int, handler: Handler[E], /, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe_to(
        self, type_id: int, handler: Handler[list[E]], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @overload
    def subscribe_to(
        self, type_id: int, handler: Handler[RecordBatch[E]], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> Subscription[E]: ...
    @shown_as("self, type_id, handler, /")
    def subscribe_to(
        self, type_id: int, handler: Callable[..., object], /, *others: object, **options: Any
    ) -> Subscription[Any]:
        """Has `handler` called with every event that is published under a type id from now on, in order.

        The id belongs to the class that the handler is annotated with. Without annotation it stays open, and is
        that of the first annotated handler or event.

        Args:
            type_id: from 0 to 2**32 - 1.
            handler: as for `subscribe`.
            batch: as for `subscribe`.
            options: as for `subscribe`.

        Returns:
            The Subscription, by which it is cancelled.

        Raises:
            TypeIdError: the id is out of range or no integer.
            HandlerTypeError: the handler cannot be called with one positional argument, or is annotated with several
                classes while the id is still open.
            EventClassError: the id belongs to another class than the handler's.
            OptionError: an option is unknown, has a bad value, or does not go with the others.
            ClosedError: the dispatcher is closed.
            StartError: with `own_thread`, no thread can be started.
        """
        if others:
            raise subscribing.too_many_for_subscribe_to(type_id, handler, others)
        return subscribing.subscribe_id(self, type_id, handler, sys._getframe(1), options)

    def subscribe_native(
        self,
        record_type: type[E],
        handler: object,
        userdata: object = None,
        /,
        *,
        max_queue: int | None = None,
        policy: Policy | None = None,
        own_thread: bool = False,
    ) -> Subscription[E]:
        """Has a C function called with all records of a type that are published from now on, in order and without the
        GIL:

            void handler(const void *records, size_t count, size_t stride, void *userdata)

        `records` are `count` records side by side, `stride` bytes each; they stay there until it returns. It runs on
        threads that only native handlers run on, never on two at once for one subscription, and must not raise, nor
        jump out.

        Args:
            record_type: a class made by `record`.
            handler: the function: its address, a capsule of it, a function of ctypes (`CFUNCTYPE`), or a cfunc of
                numba; of cffi, its address, `int(ffi.cast("uintptr_t", function))`. The object is kept until the
                subscription ends. What is at the address is trusted.
            userdata: what it is given: an address, a capsule, a writable buffer (such as a NumPy array), which is kept
                and locked until the subscription ends, or None for a null pointer.
            max_queue: as in `HandlerOptions`.
            policy: "block" or "raise".
            own_thread: as in `HandlerOptions`.

        Returns:
            The Subscription. Until it is cancelled, or the dispatcher closed, the dispatcher stays alive.

        Raises:
            RecordError: `record_type` is no record type, or there are several.
            HandlerTypeError: there is no address in `handler`.
            OptionError: `userdata`, `max_queue`, `policy` or `own_thread` is not as above.
            ClosedError: the dispatcher is closed.
            StartError: no thread can be started.
        """
        return subscribing.subscribe_native(self, record_type, handler, userdata, max_queue, policy, own_thread)

    @overload
    def on(self, event_class: Two[A, B], /, **options: Unpack[HandlerOptions[A | B]]) -> Decorator[A | B]: ...
    @overload
    def on(
        self, event_class: Three[A, B, C], /, **options: Unpack[HandlerOptions[A | B | C]]
    ) -> Decorator[A | B | C]: ...
    @overload
    def on(self, event_class: Classes[E], /, **options: Unpack[HandlerOptions[E]]) -> Decorator[E]: ...
    @overload
    def on(
        self, event_class: Two[A, B], /, *, batch: int, **options: Unpack[HandlerOptions[A | B]]
    ) -> BatchDecorator[A | B]: ...
    @overload
    def on(
        self, event_class: Three[A, B, C], /, *, batch: int, **options: Unpack[HandlerOptions[A | B | C]]
    ) -> BatchDecorator[A | B | C]: ...
    @overload
    def on(
        self, event_class: Classes[E], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
    ) -> BatchDecorator[E]: ...
    @overload
    def on(self, handler: H, /) -> H: ...
    @overload
    def on(self, /, *, batch: int, **options: Unpack[HandlerOptions[Any]]) -> Callable[[H], H]: ...
    @overload
    def on(self, /, **options: Unpack[HandlerOptions[Any]]) -> Callable[[H], H]: ...
    @shown_as("self, event_class_or_handler=None, /")
    def on(self, target: Any = ..., /, *others: object, **options: Any) -> Any:
        """Subscribes the decorated function: `@bus.on` by its annotation, `@bus.on(Tick)` to that class,
        `@bus.on((Deposit, Withdrawal))` to several; all with options: `@bus.on(mode="direct")`.

        A class, or a tuple of classes, is taken as what is subscribed to, any other callable as the handler. (So to
        decorate a class whose instances can be called subscribes none of them: `subscribe` the instance.)

        Returns:
            The function itself, so that it can still be called and decorated again; with a class or options, what
            decorates it.

        Raises:
            The same as `subscribe`.
        """
        if others:
            raise subscribing.too_many_for_on(target, others)
        return subscribing.on(self, target, sys._getframe(1), options)

    def off(
        self,
        handler: Callable[..., object],
        event_class_or_id: type | tuple[type[Any], ...] | int | None = None,
        /,
    ) -> int:
        """Cancels the subscriptions of a handler: for those made by a decorator, or elsewhere.

        What was published before is still handled, as after `Subscription.cancel`.

        Args:
            handler: as it was subscribed; of a bound method any other one of the same object and function. Another
                `functools.partial` is another handler.
            event_class_or_id: only those to this class, to this type id, or to exactly these classes (a tuple). One
                to several classes is not found by one of them. None: all.

        Returns:
            How many there were.

        Raises:
            HandlerTypeError: there cannot be such a handler.
            EventClassError: a tuple of what are not classes, an empty one, or a union.
            TypeIdError: an integer out of range.
        """
        return subscribing.off(self, handler, event_class_or_id)

    def subscriptions(
        self, event_class_or_id: type | tuple[type[Any], ...] | int | None = None, /
    ) -> list[Subscription[Any]]:
        """The subscriptions that are active now, those of streams among them, in no certain order: a new list.

        Args:
            event_class_or_id: only those to this class, or to this type id; those to base classes, or to several
                classes, are not. Of a tuple of classes: those to exactly these. None: all.

        Raises:
            EventClassError: a tuple of what are not classes, an empty one, or a union.
            TypeIdError: an integer out of range.
        """
        return subscribing.find(self, event_class_or_id)

    def count(self, event_class_or_id: type | int, /) -> int:
        """How many subscriptions an event of that class, or under that type id, reaches now, an int. (Those to several
        classes count for each of them. Those to base classes count for a class, not for an id.)

        Args:
            event_class_or_id: one class, or a type id from 0 to 2**32 - 1.

        Raises:
            EventClassError: several classes.
            TypeIdError: an integer out of range, or a class whose instances compute their ids.
        """
        return subscribing.count(self, event_class_or_id)

    # --- asyncio ---

    @overload
    def stream(
        self, event_class: Two[A, B], /, *, batch: None = None, **options: Unpack[StreamOptions[A | B]]
    ) -> Stream[A | B]: ...
    @overload
    def stream(
        self, event_class: Two[A, B], /, *, batch: int, **options: Unpack[StreamOptions[A | B]]
    ) -> Stream[list[A | B]]: ...
    @overload
    def stream(
        self, event_class: Three[A, B, C], /, *, batch: None = None, **options: Unpack[StreamOptions[A | B | C]]
    ) -> Stream[A | B | C]: ...
    @overload
    def stream(
        self, event_class: Three[A, B, C], /, *, batch: int, **options: Unpack[StreamOptions[A | B | C]]
    ) -> Stream[list[A | B | C]]: ...
    @overload
    def stream(
        self, event_class: Classes[E], /, *, batch: None = None, **options: Unpack[StreamOptions[E]]
    ) -> Stream[E]: ...
    @overload
    def stream(
        self, event_class: Classes[E], /, *, batch: int, **options: Unpack[StreamOptions[E]]
    ) -> Stream[list[E]]: ...
    def stream(
        self,
        event_class: Any,
        /,
        *,
        max_queue: int | None = None,
        policy: Policy | None = None,
        where: Callable[[Any], object] | None = None,
        subclasses: bool = False,
        batch: int | None = None,
    ) -> Stream[Any]:
        """The events of a class, or of several, that are published from now on, for `async for`. In an event loop.

        Args:
            event_class: as for `subscribe`.
            max_queue: how many events may wait to be taken; the dispatcher's by default.
            policy: what happens then; the dispatcher's by default.
            where: only events for which it is true.
            subclasses: also the events of subclasses.
            batch: as for `subscribe`: the stream gives lists of events (of a record type, a RecordBatch), of what is
                there and at most so many.

        Returns:
            A Stream.

        Raises:
            OptionError: an argument is not as above, or no event loop is running.
            The same as `subscribe` otherwise.
        """
        return subscribing.stream(
            self, event_class, max_queue=max_queue, policy=policy, where=where, subclasses=subclasses, batch=batch
        )

    @overload
    async def wait_for(self, event_class: Two[A, B], /, **options: Unpack[WaitOptions[A | B]]) -> A | B: ...
    @overload
    async def wait_for(
        self, event_class: Three[A, B, C], /, **options: Unpack[WaitOptions[A | B | C]]
    ) -> A | B | C: ...
    @overload
    async def wait_for(self, event_class: Classes[E], /, **options: Unpack[WaitOptions[E]]) -> E: ...
    async def wait_for(
        self,
        event_class: Any,
        /,
        *,
        where: Callable[[Any], object] | None = None,
        timeout: float | None = None,
        subclasses: bool = False,
    ) -> Any:
        """Returns the next event of a class, or of several, that is published.

        Args:
            event_class: as for `subscribe`.
            where: the next event for which it is true.
            timeout: in seconds; None: as long as it takes.
            subclasses: also an event of a subclass.

        Raises:
            OptionError: a timeout that is no time, or no event loop is running.
            WaitTimeoutError: there was none in time.
            ClosedError: the dispatcher is closed, or was closed first.
            The same as `subscribe` otherwise.
        """
        from ringcast import aio

        subscribing.check_dispatcher(self, "wait_for")
        limit = aio.seconds(timeout)
        # the next event, not the newest: a policy that drops the older for the newer would lose it
        policy: Policy | None = "drop_newest" if self._policy in ("drop_oldest", "latest") else None
        stream = self.stream(event_class, policy=policy, where=where, subclasses=subclasses)
        return await aio.wait_for(self, event_class, stream, limit)

    async def apublish(self, event: object, /, *, timeout: float | None = None) -> int:
        """The same as `publish`, but waits for room without blocking the event loop. An `apublish` that is cancelled
        has not published. Where an `async def` handler itself awaits it, and the room would have to be made by handlers
        that wait for this very one, it does not wait but goes past `max_queue`, as `publish` does.

        Args:
            event: as for `publish`.
            timeout: how long to wait for room, in seconds; None: as long as it takes.

        Returns:
            How many subscriptions the event reaches, an int.

        Raises:
            The same as `publish`.
        """
        from ringcast import aio

        subscribing.check_dispatcher(self, "apublish")
        return await aio.apublish(self, event, aio.seconds(timeout))

    async def aclose(self, timeout: float | None = None, *, discard: bool = False) -> None:
        """The same as `close`, but waits without blocking the event loop, and without a thread. From inside a handler
        it does not wait.

        A stream that is kept and not read is waited for, too: its events were accepted. After a second of that it is
        named in the logger `ringcast`.

        Args:
            timeout, discard: as for `close`.

        Raises:
            CloseTimeoutError, OptionError: as for `close`.
        """
        from ringcast import aio

        subscribing.check_dispatcher(self, "aclose")
        await aio.aclose(self, aio.seconds(timeout), flag("discard", discard))

    async def __aenter__(self) -> Self:
        """The same as the beginning of a `with` block."""
        return self.__enter__()

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the dispatcher, as the end of a `with` block does, without blocking the event loop."""
        await closing.aleave(self, exception)

    # --- insight, waiting and closing ---

    def stats(self) -> DispatcherStats:
        """The numbers of the dispatcher, its topics and its subscriptions now: plain values, which do not change."""
        from ringcast.stats import collect

        subscribing.check_dispatcher(self, "stats")
        return collect(self)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Waits until everything that was accepted is delivered: for tests. From inside a handler it does not wait.

        Args:
            timeout: how long, in seconds; None: as long as it takes.

        Returns:
            Whether that is so.

        Raises:
            OptionError: a timeout that is no time.
            LoopBlockedError: events wait for the event loop that runs here: use `asyncio.to_thread`.
        """
        return closing.wait_idle(self, timeout)

    def close(self, timeout: float | None = None, *, discard: bool = False) -> None:
        """Accepts nothing more, delivers what was accepted, and ends the worker threads. May be called again.

        From inside a handler it does not wait: the deliveries go on after it.

        Args:
            timeout: how long to wait for the deliveries, in seconds; None: as long as they take. In a task or thread
                that an `async def` handler has begun no longer than `exit_timeout`: the handler may wait for it.
            discard: stop now: what no handler has begun is dropped, and counted in `dropped` of its subscription; only
                handlers at work are waited for. Also after a close without.

        Raises:
            CloseTimeoutError: the time is over and there are events left. They are still delivered if their
                handlers go on; a later `close` waits for that again.
            KeyboardInterrupt: Ctrl-C ended the wait.
            LoopBlockedError: events wait for the event loop that runs here: use `aclose`. Nothing is closed, unless
                that came out only while this waited.
            OptionError: a timeout that is no time, or `discard` is no bool.
        """
        closing.close(self, timeout, discard=discard)

    def __enter__(self) -> Self:
        """The dispatcher itself, or ClosedError where it is closed."""
        self._check_open()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the dispatcher, waiting for all deliveries.

        A block that is left by an exception must not hide it: the deliveries then have `exit_timeout` seconds, streams
        are not waited for, and what is left is named in the logger `ringcast` and dropped. By an interrupt (Ctrl-C, the
        cancellation of a task, or a group with one of them) all that no handler has begun is dropped at once, and
        nothing is waited for. GeneratorExit is no failure: the generator whose block it ends waits as if it returned,
        but not for streams.
        """
        closing.leave(self, exception)

    def _report_failure(self, exception: BaseException, event: Any, subscription: Subscription[Any]) -> None:
        """Called by the core."""
        report_failure(self._on_error, HandlerFailure(exception, event, subscription))

    def __repr__(self) -> str:
        pending = [subscription.pending for subscription in self._subscriptions()]
        state = f"{'closed' if self.closed else 'open'}, {len(pending)} subscriptions"
        most = f"at most {max(pending, default=0)} of {self.max_queue} events pending"
        return f"<{short(type(self).__name__)} {brief(self.name)}: {state}, {most}>"
