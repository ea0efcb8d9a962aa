"""Ringcast: a fast in-process event dispatcher.

Typed events, any number of subscribers each with one ordered, asynchronous consumer, back-pressure, nothing lost.
The hot path is compiled; there is nothing to install but this package.
"""

import os
from typing import TYPE_CHECKING, Any

from ringcast._core import Record, RecordBatch, Subscription
from ringcast._default import default, emit, off, on, on_type
from ringcast.dispatcher import Dispatcher, HandlerFailure
from ringcast.errors import (
    ClosedError,
    CloseTimeoutError,
    EventClassError,
    HandlerTypeError,
    LoopBlockedError,
    LoopClosedError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    RecordError,
    RingcastError,
    StartError,
    TypeIdError,
    WaitTimeoutError,
)
from ringcast.events import type_id
from ringcast.options import HandlerOptions
from ringcast.records import record

if TYPE_CHECKING:
    from ringcast.aio import Stream
    from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats

__version__ = "0.2.0"


def get_include() -> str:
    """Return the directory of `ringcast.h`, for the include_dirs of an extension that uses the C API."""
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


def __getattr__(name: str) -> Any:
    """Stream and the stats are imported when asked for: asyncio, and dataclasses, take longer than all the rest."""
    if name == "Stream":
        from ringcast.aio import Stream

        return Stream
    if name in ("DispatcherStats", "SubscriptionStats", "TopicStats"):
        from ringcast import stats

        return getattr(stats, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
