"""What `subscribe`, `on`, `off` and their kin are given: told apart, checked, and handed to the compiled core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_args, overload

from ringcast._core import MODES, Core, Options, RecordBatch, Subscription
from ringcast.callables import attribute, full_handler_name, handler_name, has_name_of_its_own, is_a, is_same, plain
from ringcast.errors import EventClassError, HandlerTypeError, OptionError, RecordError, TypeIdError
from ringcast.events import (
    brief,
    check_event_class,
    check_one_class,
    check_type_id,
    class_name,
    class_names,
    event_classes,
    identify,
    is_class,
    is_several,
    is_union,
    no_class_hint,
    shown,
    type_id,
)
from ringcast.handlers import (
    Accepts,
    check_accepts,
    hint_at,
    inspect_handler,
    named_classes,
    option_hint,
    sole_class,
)
from ringcast.options import Policy, check_concurrency, check_max_queue, check_names, check_policy
from ringcast.values import flag

if TYPE_CHECKING:
    from ringcast.aio import Feed, Stream
    from ringcast.dispatcher import Dispatcher

__all__ = [
    "BatchDecorator",
    "Decorator",
    "Handler",
    "check_dispatcher",
    "check_subscribed_id",
    "count",
    "find",
    "off",
    "on",
    "stream",
    "subscribe",
    "subscribe_id",
    "subscribe_native",
]

E = TypeVar("E")
R = TypeVar("R")
H = TypeVar("H", bound=Callable[[Any], object])
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Handler = Callable[[E], object]
# mypy joins the classes in a tuple of any length to one, often to object: so two and three have overloads of their own,
# which stand before those of all other numbers
Two = tuple[type[A], type[B]]
Three = tuple[type[A], type[B], type[C]]
Classes = type[E] | tuple[type[E], ...]

ASYNCIO = MODES.index("asyncio")


class Decorator(Protocol[E]):
    """What `on(EventClass)` gives: decorates a handler of that class and leaves its type as it is."""

    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]:
        """Subscribe the handler and return it."""


class BatchDecorator(Protocol[E]):
    """The same for `on(EventClass, batch=N)`, whose handler takes batches."""

    @overload
    def __call__(self, handler: Callable[[list[E]], R], /) -> Callable[[list[E]], R]: ...
    @overload
    def __call__(self, handler: Callable[[RecordBatch[E]], R], /) -> Callable[[RecordBatch[E]], R]: ...


def subscribe(dispatcher: Dispatcher, arguments: tuple[Any, ...], frame: FrameType, options: Any) -> Subscription[Any]:
    """See Dispatcher.subscribe. `frame` is that of its caller."""
    check_dispatcher(dispatcher, "subscribe")
    if named := [name for name in ("event_class", "handler") if name in options]:
        raise OptionError(f"{named[0]}= has no name in a call: subscribe(event_class, handler)")
    batch = options.get("batch") is not None
    if len(arguments) == 1:
        (handler,) = arguments
        if name := _classes_text(handler):
            are = "is a class" if is_class(handler) else "are classes"
            raise HandlerTypeError(f"{name} {are}, and there is no handler: subscribe({name}, handler)")
        accepts = inspect_handler(handler, frame, batch=batch)
        return _subscribe_classes(dispatcher, accepts, named_classes(accepts), handler, options)
    if len(arguments) != 2:
        raise _wrong_number(arguments)
    event_class, handler = arguments
    if _are_swapped(handler, event_class):
        call = f"subscribe({_classes_text(handler)}, {handler_name(event_class)})"
        raise EventClassError(f"the event class comes first: {call}")
    if hint := option_hint(event_class):
        raise EventClassError(f"an event class is a class, not {shown(event_class)}{hint}")
    accepts = inspect_handler(handler, frame, batch=batch)
    return _subscribe_classes(dispatcher, accepts, event_class, handler, options)


def _subscribe_classes(
    dispatcher: Dispatcher, accepts: Accepts, named: object, handler: Callable[[E], object], options: Any
) -> Subscription[E]:
    """Subscribe to what is named, a class or a tuple of classes, when it is found to be right."""
    classes = event_classes(named)
    resolved = dispatcher._resolve(accepts, handler, classes, options)
    bases = {id(base) for base in resolved.bases}
    for each in classes:
        check_accepts(accepts, each, None if id(each) in bases else type_id(each))
    if accepts.records:
        _check_batch_of_records(accepts.handler, classes, bool(bases))
    start = _consumer(resolved, options)
    return _replacing(dispatcher, start(dispatcher._subscribe_class(_one_or_all(classes), handler, resolved)), options)


def _check_batch_of_records(handler: str, classes: tuple[type, ...], with_subclasses: bool) -> None:
    """Check what is subscribed to by a handler, of this name, that takes a RecordBatch.

    Raises:
        HandlerTypeError: it is not one record type.
    """
    from ringcast.records import is_record_type

    if with_subclasses or len(classes) > 1:
        why, item = "which has the records of one type: those of several classes come", "First | Second"
    elif not is_record_type(classes[0]):
        item = class_name(classes[0])
        why = f"and {item} is no record type: its events come"
    else:
        return
    raise HandlerTypeError(f"handler {handler} takes a RecordBatch, {why} in a list, list[{item}]")


def subscribe_id(
    dispatcher: Dispatcher, type_id: int, handler: Callable[[E], object], frame: FrameType, options: Any
) -> Subscription[E]:
    """See Dispatcher.subscribe_to. `frame` is that of its caller."""
    check_dispatcher(dispatcher, "subscribe_to")
    accepts = inspect_handler(handler, frame, batch=options.get("batch") is not None)
    type_id = check_subscribed_id(type_id, handler_name(handler))
    known = dispatcher._class_of(type_id)
    if known is not None:
        check_accepts(accepts, known, type_id)
    elif accepts.classes is not None:
        known = sole_class(accepts)
    resolved = dispatcher._resolve(accepts, handler, (), options)
    start = _consumer(resolved, options)
    return _replacing(dispatcher, start(dispatcher._subscribe_id(type_id, known, handler, resolved)), options)


def check_subscribed_id(type_id: object, handler: str = "handler") -> int:
    """Return the type id that is subscribed to, or raise TypeIdError. `handler`: its name, for messages."""
    try:
        return check_type_id(type_id)
    except TypeIdError as error:
        if name := _classes_text(type_id):
            raise TypeIdError(f"{error}: a class is subscribed to with subscribe({name}, {handler})") from None
        raise


def _replacing(dispatcher: Dispatcher, subscription: Subscription[E], options: Any) -> Subscription[E]:
    """Do what `replace=True` asks for. The new subscription is there before the old ones go: no event is lost."""
    if options.get("replace"):
        new = subscription.handler
        for old in dispatcher._subscriptions():
            handler = old.handler
            if old is subscription:
                continue
            if is_same(handler, new):  # stacked decorators subscribe one function to several classes
                if old.type_id == subscription.type_id and _is_to_same(old, subscription):
                    old.cancel()
            elif has_name_of_its_own(handler) and full_handler_name(handler) == full_handler_name(new):
                old.cancel()
    return subscription


def subscribe_native(
    dispatcher: Dispatcher,
    record_type: type[E],
    handler: object,
    userdata: object,
    max_queue: int | None,
    policy: Policy | None,
    own_thread: bool,
) -> Subscription[E]:
    """See Dispatcher.subscribe_native."""
    check_dispatcher(dispatcher, "subscribe_native")
    if is_a(record_type, tuple) or is_several(record_type):
        raise RecordError(
            "a native handler is given the records of one type, side by side in memory: several types are several "
            f"subscriptions, not {shown(record_type)}"
        )
    check_event_class(record_type)
    dispatcher._check_open()
    resolved: Policy = dispatcher._policy if policy is None else check_policy(policy)
    if resolved not in ("block", "raise"):
        raise OptionError(f'the policy of a native handler is "block" or "raise", not {resolved!r}')
    most = dispatcher.max_queue if max_queue is None else check_max_queue(max_queue, dispatcher.max_queue)
    resolved_options = Options("native", resolved, most, own_thread=flag("own_thread", own_thread))
    return dispatcher._subscribe_native(record_type, handler, userdata, resolved_options)


def on(dispatcher: Dispatcher, target: Any, frame: FrameType, options: Any) -> Any:
    """See Dispatcher.on. `frame` is that of its caller; without a target it is an ellipsis."""
    check_dispatcher(dispatcher, "on")
    # here and below: at this call, not at that of the decorator
    dispatcher._check_open()
    check_names(options)
    are_several = is_a(target, tuple) or is_several(target)
    if target is not ... and not is_class(target) and not are_several:
        if not callable(plain(target)):
            hint = hint_at(target) or no_class_hint(target)
            raise HandlerTypeError(f"an event class or a handler is needed, not {shown(target)}{hint}")
        accepts = inspect_handler(target, frame)
        _subscribe_classes(dispatcher, accepts, named_classes(accepts), target, options)
        return target
    if are_several:
        event_classes(target)

    def decorate(*handlers: Any, **named: object) -> Any:
        if len(handlers) != 1 or named:  # it stands in the place of a class that was meant to be a handler
            raise HandlerTypeError(
                f"on({'' if target is ... else _classes_text(target)}) decorates one handler ({len(handlers)} given). "
                "It takes a class as what is subscribed to: an instance that can be called is subscribed with subscribe"
            )
        (handler,) = handlers
        accepts = inspect_handler(handler, sys._getframe(1), batch=options.get("batch") is not None)
        _subscribe_classes(dispatcher, accepts, named_classes(accepts) if target is ... else target, handler, options)
        return handler

    return decorate


def stream(dispatcher: Dispatcher, event_class: Any, **options: Any) -> Stream[Any]:
    """See Dispatcher.stream."""
    check_dispatcher(dispatcher, "stream")
    from ringcast import aio

    loop = aio.choose_loop(None, "a stream is made in the loop that reads it")
    if options["max_queue"] is not None:
        check_max_queue(options["max_queue"], dispatcher.max_queue)
    options = {"mode": "asyncio", **options}

    def begin(feed: Feed) -> Subscription[Any]:
        classes = event_classes(event_class)
        accepts = Accepts(f"stream of {class_names(classes)}", "", "", None, "", asynchronous=True)
        resolved = dispatcher._resolve(accepts, feed, classes, options)
        subscription: Subscription[Any] = dispatcher._subscribe_class(_one_or_all(classes), feed, resolved)
        subscription._set_consumer(feed.wake, loop)
        return subscription

    return aio.Stream(begin, loop)


def off(dispatcher: Dispatcher, handler: Any, event_class_or_id: Any) -> int:
    """See Dispatcher.off."""
    check_dispatcher(dispatcher, "off")
    if _are_swapped(handler, event_class_or_id):
        call = f"off({handler_name(event_class_or_id)}, {_classes_text(handler)})"
        raise HandlerTypeError(f"the handler comes first: {call}")
    if not callable(handler) or is_union(handler) or is_a(handler, Subscription):
        hint = "; a Subscription is ended by its cancel()" if is_a(handler, Subscription) else hint_at(handler)
        raise HandlerTypeError(f"a handler is a callable, not {shown(handler)}{hint}")
    active = find(dispatcher, event_class_or_id, "off")
    found = [one for one in active if is_same(dispatcher._original(one.handler), handler)]
    if not found and is_class(handler):
        name = class_name(handler)
        raise HandlerTypeError(
            f"{name} is a class, and no handler here. To end what is subscribed to it: "
            f"for subscription in bus.subscriptions({name}): subscription.cancel()"
        )
    for subscription in found:
        subscription.cancel()
    return len(found)


def find(dispatcher: Dispatcher, event_class_or_id: Any, method: str = "subscriptions") -> list[Subscription[Any]]:
    """See Dispatcher.subscriptions. `method` is what was called, for messages."""
    check_dispatcher(dispatcher, method)
    active = [one for one in dispatcher._subscriptions() if one.active]
    if event_class_or_id is None:
        return active
    if not (is_class(event_class_or_id) or is_a(event_class_or_id, tuple) or is_several(event_class_or_id)):
        number = _check_id_for(method, event_class_or_id)
        return [one for one in active if one.type_id == number]
    classes = event_classes(event_class_or_id)
    if len(classes) > 1:
        wanted = _events_of(classes)
        several = [(one, one.event_class) for one in active]
        return [one for one, them in several if type(them) is tuple and _events_of(them) == wanted]
    stated = identify(classes[0]).type_id  # None where the instances compute their ids
    # a subscription to a class and its subclasses has no id
    return [one for one in active if one.event_class is classes[0] or (stated is not None and one.type_id == stated)]


def count(dispatcher: Dispatcher, event_class_or_id: Any) -> int:
    """See Dispatcher.count."""
    check_dispatcher(dispatcher, "count")
    if is_class(event_class_or_id):
        return dispatcher._count(type_id(event_class_or_id), event_class_or_id)
    check_one_class(event_class_or_id, "what an event reaches")
    return dispatcher._count(_check_id_for("count", event_class_or_id), None)


# --- what is refused, and what may have been meant ---


def check_dispatcher(value: object, method: str) -> None:
    """Refuse a method that is called on the class: the first argument then stands in the place of the dispatcher.

    Raises:
        HandlerTypeError: that is so.
    """
    if not is_a(value, Core):
        raise HandlerTypeError(
            f"{method} is called on a dispatcher, not on its class, and {shown(value)} is none: bus = Dispatcher(), "
            f"and then bus.{method}"
        )


def _wrong_number(arguments: tuple[object, ...]) -> HandlerTypeError:
    """The error for `subscribe(Deposit, Withdrawal, handler)` and other calls with none or more than two arguments."""
    remedy = ""
    if arguments:
        *first, last = arguments
        remedy = option_hint(last)
        if callable(last) and not is_class(last) and (several := _classes_text(tuple(first))):
            remedy = f"; several classes are given as a tuple: subscribe({several}, {handler_name(last)})"
    given = f"subscribe() takes a handler, or an event class and a handler ({len(arguments)} given)"
    return HandlerTypeError(given + remedy)


def too_many_for_on(target: object, others: tuple[object, ...]) -> HandlerTypeError:
    """The error for `on(Deposit, Withdrawal)`, `on(Deposit, handler)` and other calls with more than one argument."""
    remedy = option_hint(others[-1])
    if several := _classes_text((target, *others)):
        remedy = f"; several classes are given as a tuple: on({several})"
    elif len(others) == 1 and callable(others[0]) and (name := _classes_text(target)):
        remedy = f"; both are for subscribe: subscribe({name}, {handler_name(others[0])})"
    return HandlerTypeError(f"on() takes an event class or a handler ({1 + len(others)} given){remedy}")


def too_many_for_subscribe_to(type_id: object, handler: object, others: tuple[object, ...]) -> HandlerTypeError:
    """The error for `subscribe_to(5, Deposit, handler)` and other calls with more than two arguments."""
    remedy = option_hint(others[-1])
    if _classes_text(handler) and len(others) == 1 and callable(others[0]):
        call = f"subscribe_to({brief(type_id)}, {handler_name(others[0])})"
        remedy = f"; the class is that of the handler's annotation: {call}"
    return HandlerTypeError(f"subscribe_to() takes a type id and a handler ({2 + len(others)} given){remedy}")


def _check_id_for(method: str, value: object) -> int:
    """Return the type id that a method is given, which also takes event classes."""
    try:
        return check_type_id(value)
    except TypeIdError as error:
        raise TypeIdError(f"{method}() takes an event class or a type id: {error}{no_class_hint(value)}") from None


def _are_swapped(handler: object, event_class: object) -> bool:
    """Whether what is given as the handler is an event class, or several, and what is given as these is a handler."""
    # list[int] and Union[A, B] are callable
    is_type = is_class(event_class) or is_class(attribute(event_class, "__origin__")) or is_union(event_class)
    return bool(_classes_text(handler)) and callable(event_class) and not is_type


def _classes_text(value: object) -> str:
    """Return a class, or several in a tuple or union, as a call would name it; empty where it is something else."""
    if is_class(value):
        return class_name(value)
    if is_union(value):
        value = get_args(value)
    if not is_a(value, tuple) or not value or not all(map(is_class, value)):
        return ""
    return f"({', '.join(map(class_name, value))}{',' if len(value) == 1 else ''})"


def _one_or_all(classes: tuple[type[E], ...]) -> type[E] | tuple[type[E], ...]:
    """What a subscription to these classes has as its event class."""
    return classes if len(classes) > 1 else classes[0]


def _events_of(classes: tuple[type, ...]) -> frozenset[object]:
    """What tells the events of some classes from those of others: ids, and classes whose instances compute theirs."""
    stated = [identify(each).type_id for each in classes]
    return frozenset(
        ("class", id(each)) if number is None else number for each, number in zip(classes, stated, strict=True)
    )


def _is_to_same(one: Subscription[Any], other: Subscription[Any]) -> bool:
    """Whether both are to the same class, or to the same classes."""
    if type(one.event_class) is tuple and type(other.event_class) is tuple:
        return _events_of(one.event_class) == _events_of(other.event_class)
    return one.event_class is other.event_class


def _consumer(resolved: Options, options: Any) -> Callable[[Subscription[E]], Subscription[E]]:
    """What starts a new subscription: checks first what may be wrong with the loop, so that nothing is half done."""
    if resolved.mode != ASYNCIO:
        return lambda subscription: subscription
    from ringcast import aio

    loop, concurrency = aio.choose_loop(options.get("loop")), check_concurrency(options)

    def start(subscription: Subscription[E]) -> Subscription[E]:
        subscription._set_consumer(aio.Runner(subscription, loop, concurrency).wake, loop, concurrency)
        return subscription

    return start
