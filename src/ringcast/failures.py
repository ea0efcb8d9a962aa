"""Failures of handlers: what `on_error` is given of them, and what is logged where there is none, or where it fails."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from ringcast._core import Subscription, ask
from ringcast.callables import handler_name, is_a
from ringcast.events import ERROR_TEXT, brief, error_text, full_class_name, short

__all__ = ["HandlerFailure", "log_failure", "own_traceback", "report_failure"]

CHAIN = 10  # exceptions, each of which has led to the next
FRAMES = 50
TRACEBACK = 20_000  # characters


class HandlerFailure(NamedTuple):
    """What `on_error` is given: a handler has raised."""

    exception: BaseException
    """What was raised, with its traceback."""
    event: Any
    """The event that the handler was given; None for a LoopClosedError."""
    subscription: Subscription[Any]
    """The handler's subscription."""


HandlerFailure.__module__ = "ringcast.dispatcher"  # its name in messages, metrics and pickles is older than this module


def log_failure(failure: HandlerFailure) -> None:
    """Logs to the logger `ringcast` at level ERROR, with the traceback. The default of `on_error`.

    Of a traceback that is longer than some 20,000 characters, as where the exception has an enormous text, the
    beginning and the end are shown.

    But the failure of a handler of log records, or of one that was called while something was logged, is written to
    `sys.stderr`, by `logging.lastResort`: the former would be called with it, and may fail for ever; and what is logged
    in the course of the latter is ignored by `logging` (since Python 3.13.4).
    """
    name = short(failure.subscription._name())
    _log_error(failure.event, failure.exception, "handler %s failed on %s", name, brief(failure.event))


def _log_error(event: object, exception: BaseException, message: str, *arguments: str) -> None:
    """Log an exception that has to do with an event."""
    import logging  # not before: it would be a good part of the time that importing Ringcast takes

    logger = logging.getLogger("ringcast")
    is_logging = getattr(getattr(logging.Logger, "_tls", None), "in_progress", False)  # so Logger.handle asks
    aside = is_logging or _is_of(event, logging.LogRecord)
    text = own_traceback(exception)
    if text is None and not aside:
        logger.error(message, *arguments, exc_info=exception)
        return
    trace = (type(exception), exception, exception.__traceback__)
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, arguments, trace)
    record.exc_text = text  # where it is set, formatters make none of exc_info
    if not aside:
        if logger.isEnabledFor(logging.ERROR):
            logger.handle(record)
    elif logging.lastResort is not None:
        logging.lastResort.handle(record)


def own_traceback(exception: BaseException) -> str | None:
    """Return the traceback of an exception where that of Python would fail, or is too long to be logged; else None.

    It is at most some 20,000 characters, whatever the exception says of itself.
    """
    if _is_tame(exception):  # nearly always: it is not to be formatted twice
        return None
    import traceback

    try:
        text = "".join(traceback.format_exception(exception))
        if len(text) <= TRACEBACK:
            return None
    except KeyboardInterrupt:
        raise
    except BaseException:
        stack = "".join(traceback.format_tb(exception.__traceback__))
        text = f"Traceback (most recent call last):\n{stack}{error_text(exception)}"
    return short(text.rstrip("\n"), TRACEBACK)


def _is_tame(exception: BaseException) -> bool:
    """Whether Python's own traceback of an exception, and of those that led to it, is short, and sure to come out."""
    chain = [exception]
    for each in chain:
        if len(chain) > CHAIN or is_a(each, BaseExceptionGroup) or is_a(each, SyntaxError):
            return False
        try:  # all of these may be code of its class
            text: object = str(each)
            has_notes = bool(getattr(each, "__notes__", None))
            before = each.__cause__, each.__context__
            is_deep = _is_deep(each.__traceback__)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return False
        if (
            has_notes
            or is_deep
            or type(text) is not str
            or max(len(text), len(full_class_name(type(each)))) > ERROR_TEXT
        ):
            return False
        chain += [other for other in before if other is not None and all(other is not one for one in chain)]
    return True


def _is_deep(frames: TracebackType | None) -> bool:
    """Whether a traceback has more than FRAMES frames. Python shows all, where not one function calls itself."""
    for _ in range(FRAMES):
        if frames is None:
            return False
        frames = frames.tb_next
    return True


def _is_of(event: object, event_class: type) -> bool:
    """Whether it is such an event, or a batch with one."""
    return is_a(event, event_class) or (is_a(event, list) and any(is_a(each, event_class) for each in event))


def report_failure(on_error: Callable[[HandlerFailure], object], failure: HandlerFailure) -> None:
    """Call `on_error`. Whatever that raises ends here, but for a Ctrl-C in the main thread."""
    if _is_of(failure.event, HandlerFailure):
        on_error = log_failure  # a handler of what `on_error` publishes: with each failure it would be given one more
    try:
        ask(on_error, failure, "on_error")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            _thread.interrupt_main()  # raised by the main thread as soon as it can be
        names = short(handler_name(on_error)), short(failure.subscription._name())
        why = brief(failure.exception)
        _log_error(failure.event, error, "on_error %s failed on a failure of handler %s: %s", *names, why)
