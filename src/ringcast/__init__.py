"""Ringcast: a fast in-process event dispatcher.

Typed events, any number of subscribers each with one ordered, asynchronous consumer, back-pressure, nothing lost.
The hot path is compiled; there is nothing to install but this package.
"""

from typing import TYPE_CHECKING, Any

from ringcast._core import Subscription
from ringcast._default import default, emit, on, on_type
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
    RingcastError,
    TypeIdError,
)
from ringcast.events import type_id
from ringcast.options import HandlerOptions
from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats

if TYPE_CHECKING:
    from ringcast.aio import Stream

__version__ = "0.1.0"

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
    "RingcastError",
    "Stream",
    "Subscription",
    "SubscriptionStats",
    "TopicStats",
    "TypeIdError",
    "__version__",
    "default",
    "emit",
    "on",
    "on_type",
    "type_id",
]


def __getattr__(name: str) -> Any:
    """Stream is imported when it is asked for: it brings asyncio, which takes longer than all the rest."""
    if name == "Stream":
        from ringcast.aio import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
