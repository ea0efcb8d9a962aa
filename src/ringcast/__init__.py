"""Ringcast: a fast in-process event dispatcher.

Typed events, any number of subscribers each with one ordered, asynchronous consumer, back-pressure, nothing lost.
The hot path is compiled; there is nothing to install but this package.
"""

import atexit as _atexit
import sys as _sys

TYPE_CHECKING = False  # as in typing, whose import takes longer than that of this module
if TYPE_CHECKING:
    from ringcast._core import Record, RecordBatch, Subscription
    from ringcast._default import default, emit, off, on, on_type
    from ringcast.aio import Stream
    from ringcast.dispatcher import Dispatcher
    from ringcast.errors import (
        ClosedError,
        CloseTimeoutError,
        EventClassError,
        HandlerTypeError,
        InstallError,
        LoopBlockedError,
        LoopClosedError,
        OptionError,
        PublishTimeoutError,
        QueueFullError,
        RecordError,
        RingcastError,
        StartError,
        StreamError,
        TypeIdError,
        WaitTimeoutError,
    )
    from ringcast.events import type_id
    from ringcast.failures import HandlerFailure
    from ringcast.options import HandlerOptions
    from ringcast.records import record
    from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats

__version__ = "0.2.0"


def get_include() -> str:
    """Return the directory of `ringcast.h`, for the include_dirs of an extension that uses the C API."""
    import os

    return os.path.join(os.path.dirname(__file__), "include")


__all__ = [
    "CloseTimeoutError",
    "ClosedError",
    "Dispatcher",
    "DispatcherStats",
    "EventClassError",
    "HandlerFailure",
    "HandlerOptions",
    "HandlerTypeError",
    "InstallError",
    "LoopBlockedError",
    "LoopClosedError",
    "OptionError",
    "PublishTimeoutError",
    "QueueFullError",
    "Record",
    "RecordBatch",
    "RecordError",
    "RingcastError",
    "StartError",
    "Stream",
    "StreamError",
    "Subscription",
    "SubscriptionStats",
    "TopicStats",
    "TypeIdError",
    "WaitTimeoutError",
    "__version__",
    "default",
    "emit",
    "get_include",
    "off",
    "on",
    "on_type",
    "record",
    "type_id",
]


if "_close_all" in globals():  # this module is loaded again
    _atexit.unregister(globals()["_close_all"])


def _close_all() -> None:
    """Close the dispatchers at the end of the program, if it has made any."""
    close_all = getattr(_sys.modules.get(f"{__name__}.exit_and_fork"), "close_all", None)
    if close_all is not None:
        close_all()


# Now, and not when the first dispatcher is made: what a program registers after the import runs before this.
_atexit.register(_close_all)

# Where a name comes from that is imported when it is asked for. So a drop-in module, or a part of Ringcast, costs its
# program no more than itself.
_NAMES = {
    "_core": ("Record", "RecordBatch", "Subscription"),
    "_default": ("default", "emit", "off", "on", "on_type"),
    "aio": ("Stream",),
    "dispatcher": ("Dispatcher",),
    "errors": (
        *("CloseTimeoutError", "ClosedError", "EventClassError", "HandlerTypeError", "InstallError"),
        *("LoopBlockedError", "LoopClosedError", "OptionError", "PublishTimeoutError", "QueueFullError"),
        *("RecordError", "RingcastError", "StartError", "StreamError", "TypeIdError", "WaitTimeoutError"),
    ),
    "events": ("type_id",),
    "failures": ("HandlerFailure",),
    "options": ("HandlerOptions",),
    "records": ("record",),
    "stats": ("DispatcherStats", "SubscriptionStats", "TopicStats"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:  # else a type checker takes any name for one of this module

    def __getattr__(name: str) -> object:
        """Import what a name stands for, a part of the interface or a module that makes it up; once."""
        module = _MODULES.get(name, name)
        if module not in _NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        full_name = f"{__name__}.{module}"
        __import__(full_name)  # not importlib, which is imported itself with it
        if module == name:
            return _sys.modules[full_name]
        value = globals()[name] = getattr(_sys.modules[full_name], name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
