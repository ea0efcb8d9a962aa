"""Ringcast: a fast in-process event dispatcher.

Typed events, any number of subscribers each with one ordered, asynchronous consumer, back-pressure, nothing lost.
The hot path is compiled; there is nothing to install but this package.
"""

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

__version__ = "0.1.0"

__all__ = [
    "CloseTimeoutError",
    "ClosedError",
    "Dispatcher",
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
    "Subscription",
    "TypeIdError",
    "__version__",
    "default",
    "emit",
    "on",
    "on_type",
    "type_id",
]
