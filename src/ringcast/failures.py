"""Failures of handlers: what `on_error` is given of them, and what is logged where there is none, or where it fails."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ringcast._core import Subscription, ask
from ringcast.callables import handler_name
from ringcast.events import brief

__all__ = ["HandlerFailure", "log_failure", "report_failure"]


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

    But the failure of a handler of log records, or of one that was called while something was logged, is written to
    `sys.stderr`, by `logging.lastResort`: the former would be called with it, and may fail for ever; and what is logged
    in the course of the latter is ignored by `logging` (since Python 3.13.4).
    """
    name = handler_name(failure.subscription.handler)
    _log_error(failure.event, failure.exception, "handler %s failed on %s", name, brief(failure.event))


def _log_error(event: object, exception: BaseException, message: str, *arguments: str) -> None:
    """Log an exception that has to do with an event."""
    import logging  # not before: it would be a good part of the time that importing Ringcast takes

    logger = logging.getLogger("ringcast")
    is_logging = getattr(getattr(logging.Logger, "_tls", None), "in_progress", False)  # so Logger.handle asks
    if not _is_of(event, logging.LogRecord) and not is_logging:
        logger.error(message, *arguments, exc_info=exception)
    elif logging.lastResort is not None:
        trace = (type(exception), exception, exception.__traceback__)
        logging.lastResort.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, message, arguments, trace))


def _is_of(event: object, event_class: type) -> bool:
    """Whether it is such an event, or a batch with one."""
    return isinstance(event, event_class) or (
        isinstance(event, list) and any(isinstance(each, event_class) for each in event)
    )


def report_failure(on_error: Callable[[HandlerFailure], object], failure: HandlerFailure) -> None:
    """Call `on_error`. Whatever that raises ends here, but for a Ctrl-C in the main thread."""
    if _is_of(failure.event, HandlerFailure):
        on_error = log_failure  # a handler of what `on_error` publishes: with each failure it would be given one more
    try:
        ask(on_error, failure, "on_error")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            _thread.interrupt_main()  # raised by the main thread as soon as it can be
        names = handler_name(on_error), handler_name(failure.subscription.handler), brief(failure.exception)
        _log_error(failure.event, error, "on_error %s failed on a failure of handler %s: %s", *names)
