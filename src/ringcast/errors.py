"""The exceptions of Ringcast.

All of them are a `RingcastError`, and each is also the built-in exception that a reader would expect, so that
``except TypeError`` and ``except TimeoutError`` work as they do elsewhere.
"""

from __future__ import annotations

__all__ = [
    "CloseTimeoutError",
    "ClosedError",
    "EventClassError",
    "HandlerTypeError",
    "InstallError",
    "LoopBlockedError",
    "LoopClosedError",
    "OptionError",
    "PublishTimeoutError",
    "QueueFullError",
    "RecordError",
    "RingcastError",
    "StartError",
    "StreamError",
    "TypeIdError",
    "WaitTimeoutError",
]


class RingcastError(Exception):
    """The base class of Ringcast's own exceptions.

    Attributes:
        published: where `publish_many` has raised it, how many events it had published before; else 0.
    """

    published: int = 0


class ClosedError(RingcastError, RuntimeError):
    """The dispatcher is closed.

    Raised by every way to publish or to subscribe once `close` was called, and by a `publish` that was
    waiting for room in a full queue when `close` was called.
    """


class EventClassError(RingcastError, TypeError):
    """What was given is no event, no event class, or not of the class that was asked for.

    Raised when a handler is subscribed, or an event is published, under a type id that belongs to another
    event class. The message names both classes and the id in hexadecimal. Also raised when something that
    is not a class is given as an event class, when a class is subscribed to under an id that it inherits,
    when a class, a coroutine or a generator that is published in place of an event would reach nobody, and when
    `publish` is given anything but one event.
    """


class HandlerTypeError(RingcastError, TypeError):
    """The handler cannot be used.

    Raised when a subscription is made with something that is not callable, that cannot be called with one
    positional argument, or that is a generator function, and by the forms that take the event class, or several, from
    the handler's annotation when it names none. The message names the handler and the parameter. Also raised by a call
    with the wrong number of arguments, and by a method of a dispatcher that is called on the class. Handed to
    `on_error` when a handler, `where` or `key` has returned a coroutine or a generator, which nobody would run.
    """


class StreamError(RingcastError, RuntimeError):
    """A stream is read by two tasks at once, or in another event loop than the one that it was made in."""


class TypeIdError(RingcastError, ValueError):
    """The type id is not an integer from 0 to 0xFFFF_FFFF.

    Raised wherever a type id is given or stated, with what was found in its place, and by
    `ringcast.type_id` for a class whose instances compute their id.
    """


class QueueFullError(RingcastError):
    """A queue is full, and `publish` is not to wait.

    Raised where a subscription of policy "raise" is its `max_queue` behind; and by a `publish` that could only wait for
    itself, inside a handler or in a coroutine, when also the reserve for such events is used up. The event has reached
    nobody.
    """


class OptionError(RingcastError, ValueError, TypeError):
    """An option is unknown, has a bad value, or does not go with another option or the handler.

    Raised for the options of a subscription, the arguments of `Dispatcher`, and timeouts.
    """


class RecordError(RingcastError, TypeError):
    """A record type cannot be made so, or is used as it cannot be.

    Raised by `record` where a field has no fixed binary layout, and where something is asked of a record type that it
    does not have, such as a native handler for a class that is none.
    """


class LoopBlockedError(RingcastError, RuntimeError):
    """A call in an event loop would have to wait for that very loop.

    Raised by `close` and `wait_idle` (use `aclose`, or `asyncio.to_thread` for `wait_idle`), and at the end of a `with`
    block of a subscription, which is cancelled (use `async with`). `close` has then closed nothing, unless that came
    out only while it waited.
    """


class PublishTimeoutError(RingcastError, TimeoutError):
    """There was no room for an event within the timeout of `publish`. The event has reached nobody."""


class WaitTimeoutError(RingcastError, TimeoutError):
    """There was no such event within the timeout of `wait_for`."""


class LoopClosedError(RingcastError, RuntimeError):
    """The event loop of a subscription was closed while events were waiting for it.

    Not raised but handed to `on_error`. The events were dropped and are counted in the subscription's `dropped`; the
    subscription is cancelled.
    """


class StartError(RingcastError, RuntimeError):
    """No worker thread can be started.

    The system has no more, the interpreter is shutting down, or gevent or eventlet has patched `threading`, so that
    there are only greenlets. Raised by the first `publish` to a queued handler, after which the event has reached
    nobody, by `subscribe_native`, and where a subscription with `own_thread=True` is made.
    """


class InstallError(RingcastError, ImportError, ValueError):
    """A drop-in module cannot take the place of the original.

    Raised by `ringcast.compat.install` where there is none of that name, and where the original is imported already.
    Nothing has been replaced.
    """


class CloseTimeoutError(RingcastError, TimeoutError):
    """`close` ran out of time.

    Raised when the accepted events were not all delivered within the timeout. The message names the
    handlers that are still at work. The dispatcher is closed all the same; a later `close` waits again.
    """
