"""A dispatcher that tells OpenTelemetry what it does. Needs its API: pip install 'ringcast[opentelemetry]'.

    from ringcast.tracing import TracedDispatcher
    bus = TracedDispatcher()          # otherwise a Dispatcher like any other

Each `publish` is a span of kind PRODUCER, and each call of a handler one of kind CONSUMER, which is its child: also on
another thread, or in an event loop, later. What a handler publishes hangs below the handler's span. Names and
attributes are those of OpenTelemetry's conventions for messaging, with the event class as the destination:

    publish shop.Order    messaging.destination.name, messaging.operation.*, ringcast.subscribers (how many it reaches)
    process shop.Order    messaging.destination.name, messaging.operation.*, code.function.name (the handler)

What a handler raises is recorded on its span, and goes on to `on_error`. A plain Dispatcher knows nothing of all this.
"""

from __future__ import annotations

import asyncio
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, get_tracer

from ringcast._core import MODES, Options, RecordBatch, Subscription
from ringcast.aio import Feed
from ringcast.callables import full_handler_name, handler_name
from ringcast.dispatcher import Dispatcher, Handler
from ringcast.events import class_name, error_says, error_text
from ringcast.failures import own_traceback
from ringcast.handlers import Accepts
from ringcast.subscribing import E

__all__ = ["TracedDispatcher"]

Attributes = dict[str, str | int]


class TracedDispatcher(Dispatcher):
    """A Dispatcher whose events can be followed: a span for each publish, and one for each call of a handler.

    Handlers run in a copy of the publisher's context, as with the option `context="publisher"`; so it is not only
    the span that they see, but all context variables. `Subscription.handler` is a wrapper, which has the handler as
    `__wrapped__`.

    Args:
        arguments: as for `Dispatcher`.
        tracer_provider: where the spans go; None: OpenTelemetry's global one.
        options: as for `Dispatcher`.

    Raises:
        The same as `Dispatcher`.
    """

    def __init__(self, *arguments: Any, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracer = get_tracer("ringcast", tracer_provider=tracer_provider)
        # A subscription to a bound method may hold it weakly: then this is what keeps the wrapper.
        self._wrappers: weakref.WeakKeyDictionary[Subscription[Any], Callable[..., object]]
        self._wrappers = weakref.WeakKeyDictionary()

    def publish(self, event: object, /, *, timeout: float | None = None) -> int:
        """As `Dispatcher.publish`, in a span."""
        with _publishing(self._tracer, event) as span:
            return _reached(span, super().publish(event, timeout=timeout))

    def publish_to(self, type_id: int, event: object, /, *, timeout: float | None = None) -> int:
        """As `Dispatcher.publish_to`, in a span with the attribute `ringcast.type_id`."""
        with _publishing(self._tracer, event, type_id) as span:
            return _reached(span, super().publish_to(type_id, event, timeout=timeout))

    def publish_many(
        self, events: Any, record_type: type[Any] | None = None, /, *, timeout: float | None = None
    ) -> int:
        """As `Dispatcher.publish_many`, in one span for all of them, with the attribute
        `messaging.batch.message_count`. It is above the spans of handlers of single events.
        """
        of = events.record_class if isinstance(events, RecordBatch) else record_type
        if of is None and isinstance(events, list | tuple):
            of = _class_of_all(events)
        attributes = _attributes("publish", "send", of)
        with self._tracer.start_as_current_span(
            _span_name("publish", of), kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            published = super().publish_many(events, record_type, timeout=timeout)
            span.set_attribute("messaging.batch.message_count", published)
            return published

    async def apublish(self, event: object, /, *, timeout: float | None = None) -> int:
        """As `Dispatcher.apublish`, in a span."""
        with _publishing(self._tracer, event) as span:
            return _reached(span, await super().apublish(event, timeout=timeout))

    # All ways to subscribe go through these, when the handler's signature and annotation have been looked at.

    def _resolve(self, accepts: Accepts, handler: Any, classes: tuple[type, ...], options: Any) -> Options:
        # A direct handler is in the publisher's context anyway.
        # The events of a batch come from several contexts: its span stands alone.
        alone = options.get("mode") == "direct" or options.get("batch") is not None
        if not alone and not isinstance(handler, Feed):
            options = {**options, "context": "publisher"}
        return super()._resolve(accepts, handler, classes, options)

    def _subscribe_class(
        self, event_class: type[E] | tuple[type[E], ...], handler: Handler[E], options: Options
    ) -> Subscription[E]:
        handler = _traced(self._tracer, handler, options)
        return self._keep(handler, super()._subscribe_class(event_class, handler, options))

    def _subscribe_id(
        self, type_id: int, event_class: type[Any] | None, handler: Handler[E], options: Options
    ) -> Subscription[E]:
        handler = _traced(self._tracer, handler, options)
        return self._keep(handler, super()._subscribe_id(type_id, event_class, handler, options))

    def _original(self, handler: Any) -> Any:
        if isinstance(handler, MethodType):
            return MethodType(getattr(handler.__func__, "__wrapped__", handler.__func__), handler.__self__)
        return getattr(handler, "__wrapped__", handler)

    def _keep(self, handler: Handler[E], subscription: Subscription[E]) -> Subscription[E]:
        if isinstance(handler, MethodType):
            self._wrappers[subscription] = handler.__func__
        return subscription


def _traced(tracer: Tracer, handler: Any, options: Options) -> Any:
    """A handler that calls `handler` in a span; for a bound method it is one, too. A stream stays what it is."""
    if isinstance(handler, Feed):
        return handler
    if isinstance(handler, MethodType):
        return MethodType(_wrapper(tracer, handler, handler.__func__, options), handler.__self__)
    return _wrapper(tracer, handler, handler, options)


def _wrapper(tracer: Tracer, handler: Any, function: Any, options: Options) -> Callable[..., object]:
    """Calls `function`, in a span named after `handler`, with the same arguments; the last one is what it handles."""
    asynchronous, batch = MODES[options.mode] == "asyncio", options.batch != 0
    name = handler_name(handler)
    wrapper: Any
    if asynchronous:

        async def call_async(*arguments: Any) -> object:
            with _processing(tracer, name, arguments[-1], batch):
                return await function(*arguments)

        wrapper = call_async
    else:

        def call(*arguments: Any) -> object:
            with _processing(tracer, name, arguments[-1], batch):
                return function(*arguments)

        wrapper = call
    # It is to have the handler's name in logs and stats, but not its attributes, as it would by functools.wraps.
    wrapper.__module__, wrapper.__qualname__, wrapper.__wrapped__ = None, full_handler_name(handler), function
    return wrapper  # type: ignore[no-any-return]


@contextmanager
def _publishing(tracer: Tracer, event: object, type_id: int | None = None) -> Iterator[Span]:
    attributes = _attributes("publish", "send", type(event))
    if type_id is not None:
        attributes["ringcast.type_id"] = type_id
    with tracer.start_as_current_span(
        _span_name("publish", type(event)), kind=SpanKind.PRODUCER, attributes=attributes
    ) as span:
        yield span


def _reached(span: Span, subscribers: int) -> int:
    span.set_attribute("ringcast.subscribers", subscribers)
    return subscribers


@contextmanager
def _processing(tracer: Tracer, handler: str, taken: Any, batch: bool) -> Iterator[None]:
    of = _class_of_all(taken) if batch else type(taken)
    attributes = _attributes("process", "process", of)
    if batch:
        attributes["messaging.batch.message_count"] = len(taken)
    attributes["code.function.name"] = handler
    # OpenTelemetry records only what is an Exception; for Ringcast SystemExit is a failure of a handler, too.
    with tracer.start_as_current_span(
        _span_name("process", of),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            _record(span, error)
            span.set_status(Status(StatusCode.ERROR, error_text(error)))
            span.set_attribute("error.type", class_name(type(error)))
            raise


def _record(span: Span, error: BaseException) -> None:
    """Record an exception as `Span.record_exception` does, which fails where the exception has no text."""
    attributes = {
        "exception.type": class_name(type(error)),
        "exception.message": error_says(error),
        "exception.stacktrace": own_traceback(error) or "".join(traceback.format_exception(error)),
        "exception.escaped": "False",
    }
    span.add_event("exception", attributes)


def _class_of_all(events: Any) -> type | None:
    """The class of a batch of events, or None where they are of several, or there are none."""
    classes = {type(events[0])} if isinstance(events, RecordBatch) else set(map(type, events))
    return classes.pop() if len(classes) == 1 else None


def _span_name(operation: str, of: type | None) -> str:
    return operation if of is None else f"{operation} {class_name(of)}"


def _attributes(operation: str, kind: str, of: type | None) -> Attributes:
    """Of a span; `of` is the class of the events, or None where they are of several."""
    attributes: Attributes = {
        "messaging.system": "ringcast",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }
    if of is not None:
        attributes["messaging.destination.name"] = class_name(of)
    return attributes
