"""The options of a subscription: what `subscribe` may be told besides class and handler, and what of it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypedDict, TypeVar

from ringcast._core import MODES, POLICIES, Options
from ringcast.annotations import is_protocol, is_typed_dict
from ringcast.callables import (
    attribute,
    call_signature,
    class_attribute,
    event_parameter,
    handler_name,
    has_name_of_its_own,
    is_asynchronous,
)
from ringcast.errors import EventClassError, HandlerTypeError, OptionError
from ringcast.events import brief, class_name, defines, error_says, identify, is_class, plain_int, short, shown
from ringcast.handlers import Accepts
from ringcast.values import flag, plain_str, whole

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "DEFAULTS",
    "HandlerOptions",
    "Mode",
    "Policy",
    "check_concurrency",
    "check_hook",
    "check_max_queue",
    "check_names",
    "check_policy",
    "resolve",
]

Mode = Literal["queued", "direct", "asyncio"]
Policy = Literal["block", "raise", "drop_newest", "drop_oldest", "latest"]


E = TypeVar("E")


MAX_BATCH = 65_536  # events; a list of them is 512 KiB


class HandlerOptions(TypedDict, Generic[E], total=False):
    """Keyword arguments of `subscribe`, `subscribe_to` and `on`. There is one more, `batch=`, which changes what the
    handler is given.

    Args:
        mode: where the handler runs: "queued" on a worker thread, "direct" inside `publish`, "asyncio" on an event
            loop. By default "asyncio" for an `async def` handler, else "queued".
        policy: what happens when `max_queue` events wait for this subscription: `publish` waits ("block"), raises
            QueueFullError ("raise"), or an event is dropped and counted: the one that is published ("drop_newest"), the
            one that has waited longest ("drop_oldest"), or all but the newest ("latest": max_queue is 1). By default
            the dispatcher's. The event in hand counts too, but for "asyncio" handlers and policies that drop.
        max_queue: how many events may wait for this subscription; from 1 to the dispatcher's, which is the default.
        key: with policy "latest": the newest event of each key is kept, of at most `max_queue` keys. A key keeps its
            place in the order. Runs on a worker's or a publisher's thread, as `where` does there.
        once: the subscription ends with the first event that it handles.
        where: only events for which it is true reach the handler; the others are counted in `filtered`. An event for
            which it raises is dropped, and reported as a failure. It runs where the handler runs; with a dropping
            policy, on a worker's or a publisher's thread, before an event takes room. There it holds up no publisher
            for longer than one call of it and some 10 ms: then events are dropped which it was not asked about.
        weak: the handler, a bound method, does not keep its owner alive; the subscription ends with the owner.
        subclasses: also the events of all subclasses, of each class that is named. So it always is for `object` and
            protocols.
        priority: direct handlers of higher priority are called first; 0 by default.
        context: "publisher": the handler runs in a copy of the `contextvars` context in which the event was published.
        loop: the event loop of an "asyncio" handler; by default the one that is running.
        concurrency: how many calls of an "asyncio" handler may be under way at once; 1, the default, keeps the order.
        own_thread: all calls of a "queued" handler are in one thread, which is there for this subscription only and
            ends with it: for what must stay in the thread that made it (sqlite3 connections, COM, GUI toolkits, CUDA
            contexts). By default a handler's thread may be another one at each turn. It costs a thread, and a further
            switch between threads when an event finds the handler idle. In a forked child it is another thread.
        replace: ends what a notebook's cell, or a module, left when it ran the last time: the subscriptions of earlier
            functions of the same module and name, and those of this very function to the same class or type id. They
            still handle what was published before.
    """

    mode: Mode | None
    policy: Policy | None
    max_queue: int | None
    key: Callable[[E], Hashable] | None
    once: bool
    where: Callable[[E], object] | None
    weak: bool
    subclasses: bool
    priority: int
    context: Literal["publisher"] | None
    loop: asyncio.AbstractEventLoop | None
    concurrency: int
    own_thread: bool
    replace: bool


DEFAULTS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("batch", *HandlerOptions.__annotations__)),
    **dict.fromkeys(("once", "weak", "subclasses", "own_thread", "replace"), False),
    "priority": 0,
    "concurrency": 1,
}
"""What each option is where it is not given, None where nothing is asked for. To give it says nothing more."""


if TYPE_CHECKING:  # each takes as long as a module to make

    class StreamOptions(TypedDict, Generic[E], total=False):
        """Keyword arguments of `stream`, but `batch=`: `Dispatcher.stream` says what they mean."""

        max_queue: int | None
        policy: Policy | None
        where: Callable[[E], object] | None
        subclasses: bool

    class WaitOptions(TypedDict, Generic[E], total=False):
        """Keyword arguments of `wait_for`: `Dispatcher.wait_for` says what they mean."""

        where: Callable[[E], object] | None
        timeout: float | None
        subclasses: bool


def check_names(options: Mapping[str, Any]) -> None:
    """Raise OptionError where one of the options does not exist."""
    unknown = options.keys() - DEFAULTS.keys()
    if unknown:
        known = ", ".join(sorted(DEFAULTS))
        raise OptionError(f"unknown option {short(repr(min(unknown)))}; there are: {known}")


def check_policy(policy: object) -> Policy:
    """Return the policy, or raise OptionError."""
    word = plain_str(policy)
    if word not in POLICIES:
        raise OptionError(f"policy must be one of {', '.join(map(repr, POLICIES))}, not {brief(policy)}")
    return word  # type: ignore[return-value]


def check_max_queue(value: object, most: int) -> int:
    """Return the value, an int from 1 to `most`, the dispatcher's, or raise OptionError."""
    number = plain_int(value)
    if number is not None and number > most:
        raise OptionError(f"max_queue must be from 1 to {most}, the max_queue of the dispatcher, not {brief(number)}")
    return whole("max_queue", value, 1, most)


def check_hook(option: str, value: object, given: str = "the event") -> None:
    """Check a callable that is called with one argument, and whose result nobody awaits.

    Args:
        option: which one it is, for messages.
        value: as given.
        given: what it is called with, for messages.

    Raises:
        OptionError: it is not callable, is `async def`, a generator, or an exception class, or cannot be called with
            one argument; or is a class whose instances say nothing as `where` or `key`.
    """
    if not callable(value):
        raise OptionError(f"{option} must be callable, not {shown(value)}")
    name = f"{option}={handler_name(value)}"
    try:
        asynchronous = is_asynchronous(value, name)
        if (signature := call_signature(value, name)) is not None:
            event_parameter(signature, name, given)
    except HandlerTypeError as error:
        raise OptionError(str(error)) from None
    if asynchronous:
        raise OptionError(f"{name} is an async def function, which nobody would await: {option} must be a plain one")
    if option in _SAY_NOTHING and is_class(value) and _inherits(type(value), type, "__call__"):
        names, why = _SAY_NOTHING[option]
        if all(_inherits(value, object, each) for each in names):
            raise OptionError(f"{name} is a class, whose instances {why}: {option} must tell the events apart")


# of an instance of a class that defines none of these methods itself
_SAY_NOTHING: Final = {
    "where": (("__new__", "__bool__", "__len__"), "are all true"),
    "key": (("__new__", "__eq__"), "are all different"),
}


def _inherits(cls: type, base: type, name: str) -> bool:
    """Tell whether a class has an attribute from this base, or neither has one."""
    return class_attribute(cls, name) is class_attribute(base, name)


def resolve(
    accepts: Accepts,
    handler: Callable[[Any], object],
    classes: tuple[type, ...],
    dispatcher_policy: Policy,
    dispatcher_max_queue: int,
    options: Mapping[str, Any],
) -> Options:
    """Check the options against each other, the handler and the class, and fill in what they leave open.

    Args:
        accepts: what the handler is.
        handler: the handler.
        classes: what is subscribed to; empty for a bare type id.
        dispatcher_policy: the policy where none is given.
        dispatcher_max_queue: the most that `max_queue` may be, and its default.
        options: as given.

    Returns:
        What the core takes.

    Raises:
        OptionError: an option is unknown or has a bad value, or two do not go together.
    """
    check_names(options)
    options = {**DEFAULTS, **options}
    mode = _mode(accepts, options)
    policy = options["policy"]
    policy = dispatcher_policy if policy is None else check_policy(policy)
    max_queue = options["max_queue"]
    most = dispatcher_max_queue if max_queue is None else check_max_queue(max_queue, dispatcher_max_queue)
    if mode == "direct":
        _refuse(options, "a direct handler has no queue", "policy", "max_queue", "key", "batch")
        _refuse(options, "a direct handler runs in the publisher's context anyway", "context")
    else:
        _refuse(options, "only direct handlers have priorities", "priority")
    own_thread = _flag(options, "own_thread")
    if own_thread and mode != "queued":
        runs = "inside publish, in the publisher's thread" if mode == "direct" else "in the thread of its event loop"
        raise OptionError(f'own_thread= is for mode="queued": this handler runs {runs}')
    if mode != "asyncio":
        _refuse(options, 'it is for mode="asyncio"', "loop", "concurrency")
    key, where = options["key"], options["where"]
    if key is not None and policy != "latest":
        raise OptionError('key= is for policy="latest"')
    for name, value in (("key", key), ("where", where)):
        if value is not None:
            check_hook(name, value)
    batch = options["batch"]
    if batch is not None:
        whole("batch", batch, 1, MAX_BATCH)
        _refuse(options, "the events of a batch come from several contexts", "context")
    context = options["context"]
    if context is not None and plain_str(context) != "publisher":
        raise OptionError(f'context must be None or "publisher", not {brief(context)}')
    weak = _flag(options, "weak")
    if weak and not _is_bound_method(handler):
        raise OptionError(f"weak=True is for bound methods of Python classes; {handler_name(handler)} is none")
    if weak and type(handler.__self__).__weakrefoffset__ == 0:  # type: ignore[attr-defined]
        owner = type(handler.__self__)  # type: ignore[attr-defined]
        remedy = "add '__weakref__' to its __slots__" if defines(owner, "__slots__") else "cancel() it instead"
        raise OptionError(f"weak=True needs a weak reference, and {class_name(owner)} has none: {remedy}")
    if _flag(options, "replace") and not has_name_of_its_own(handler):
        name = handler_name(handler)
        raise OptionError(f"replace=True is for functions of a module or class, which it finds by name: {name} is none")
    return Options(
        mode,
        policy,
        most,
        key=key,
        where=where,
        once=_flag(options, "once"),
        weak=weak,
        bases=_bases(classes, options),
        with_context=context is not None,
        priority=whole("priority", options["priority"], -(2**62), 2**62),
        batch=batch or 0,
        own_thread=own_thread,
    )


def _mode(accepts: Accepts, options: Mapping[str, Any]) -> str:
    if options["mode"] is None:
        return "asyncio" if accepts.asynchronous else "queued"
    mode = plain_str(options["mode"])
    if mode == "native":
        raise OptionError("native handlers are subscribed with subscribe_native")
    if mode not in MODES:
        raise OptionError(f"mode must be one of {', '.join(map(repr, MODES[:3]))}, not {brief(options['mode'])}")
    if accepts.asynchronous != (mode == "asyncio"):
        kind = "an async def function" if accepts.asynchronous else "no async def function"
        raise OptionError(f'handler {accepts.handler} is {kind}: its mode cannot be "{mode}"')
    return mode


def _bases(classes: tuple[type, ...], options: Mapping[str, Any]) -> tuple[type, ...]:
    """Return those of the classes whose subclasses' events come too."""
    wide = _flag(options, "subclasses")
    if wide and not classes:
        raise OptionError("subclasses=True needs an event class, not a type id")
    bases = tuple(each for each in classes if wide or each is object or is_protocol(each))
    for each in classes:
        _check_instances(each, any(each is base for base in bases))
    for each in bases:
        try:
            issubclass(type("_Probe", (), {}), each)  # a class that nobody has asked about before
        except Exception as error:
            hint = "; a protocol must be runtime_checkable, and have methods only" if is_protocol(each) else ""
            raise OptionError(f"{class_name(each)} cannot tell its subclasses: {error_says(error)}{hint}") from None
    return bases


def _check_instances(cls: type, with_subclasses: bool) -> None:
    """Refuse a class of which there is no instance, and so no event.

    Raises:
        EventClassError: that is so.
    """
    if is_typed_dict(cls):
        raise EventClassError(f"{class_name(cls)} is a TypedDict: its instances are plain dicts, of class dict")
    is_abstract = type.__dict__["__flags__"].__get__(cls) & _ABSTRACT
    if is_abstract and not with_subclasses and identify(cls).automatic:  # else subclasses may inherit its id
        raise EventClassError(f"{class_name(cls)} is abstract, so its events are those of subclasses: subclasses=True")


_ABSTRACT: Final = 1 << 20  # Py_TPFLAGS_IS_ABSTRACT: it has abstract methods


def _is_bound_method(handler: object) -> bool:
    return attribute(handler, "__self__") is not None and attribute(handler, "__func__") is not None


def _refuse(options: Mapping[str, Any], why: str, *names: str) -> None:
    for name in names:
        if not _is_default(options[name], DEFAULTS[name]):
            raise OptionError(f"{name}= does not go with this subscription: {why}")


def _is_default(value: object, default: object) -> bool:
    number = None if default is None else plain_int(value)  # any integer of that value, and no code of other classes
    return value is default or (number is not None and number == default)


def _flag(options: Mapping[str, Any], name: str) -> bool:
    return flag(name, options[name])


def check_concurrency(options: Mapping[str, Any]) -> int:
    """The option `concurrency`, an int from 1."""
    return whole("concurrency", options.get("concurrency", 1), 1, 2**31)
