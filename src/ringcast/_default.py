"""The process-wide dispatcher, for programs that need just one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Unpack, overload

from ringcast._core import RecordBatch, Subscription
from ringcast.dispatcher import Dispatcher
from ringcast.options import HandlerOptions, check_names
from ringcast.signatures import shown_as
from ringcast.subscribing import E, H, check_subscribed_id, subscribe_id

default = Dispatcher()
"""The dispatcher of `on`, `on_type`, `off` and `emit`. Has no threads before the first event, and is closed at exit."""

on = default.on
"""`default.on`: subscribes the decorated function to the classes that it is annotated with, or to those given."""

off = default.off
"""`default.off`: cancels the subscriptions of a handler."""

emit = default.publish
"""`default.publish`: queues an event for its subscribers and returns how many they are."""


@overload
def on_type(type_id: int, /, **options: Unpack[HandlerOptions[Any]]) -> Callable[[H], H]: ...
@overload
def on_type(
    type_id: int, handler: Callable[[E], object], /, **options: Unpack[HandlerOptions[E]]
) -> Subscription[E]: ...
@overload
def on_type(
    type_id: int, handler: Callable[[list[E]], object], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
) -> Subscription[E]: ...
@overload
def on_type(
    type_id: int, handler: Callable[[RecordBatch[E]], object], /, *, batch: int, **options: Unpack[HandlerOptions[E]]
) -> Subscription[E]: ...
@shown_as("type_id, handler=None, /")
def on_type(type_id: int, handler: Any = None, /, **options: Any) -> Any:
    """Subscribes to a type id on the default dispatcher: `on_type(1, handler)`, or `@on_type(1)` as a decorator.

    Args:
        type_id: from 0 to 2**32 - 1.
        handler: any callable that takes one positional argument.
        options: as for `Dispatcher.subscribe`; also `batch`.

    Returns:
        The Subscription; as a decorator, the decorated function itself.

    Raises:
        The same as `Dispatcher.subscribe_to`.
    """
    if handler is not None:
        return subscribe_id(default, type_id, handler, sys._getframe(1), options)

    # at this call, not at that of the decorator
    check_names(options)
    checked = check_subscribed_id(type_id)

    def decorate(handler: H) -> H:
        subscribe_id(default, checked, handler, sys._getframe(1), options)
        return handler

    return decorate
