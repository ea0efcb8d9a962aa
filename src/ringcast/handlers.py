"""What a handler takes: the class or classes of its annotation.

`inspect_handler` looks at a handler once, when it is subscribed, and refuses what could never be called.
What it finds is an `Accepts`, which answers the questions a subscription has: which classes does the handler name
(`named_classes`), which one class (`sole_class`), and does it take the events of a given class (`check_accepts`).

The annotation is that of the parameter which receives the event: see `callables.event_parameter` for the parameter,
`annotations.classes_of` for the classes.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from types import CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from ringcast.annotations import Names, UnresolvedError, annotation_text, classes_of, concrete, members, unfit
from ringcast.callables import (
    METHOD_REMEDIES,
    call_signature,
    class_attribute,
    event_parameter,
    full_signature,
    handler_name,
    is_a,
    is_asynchronous,
    plain,
)
from ringcast.errors import EventClassError, HandlerTypeError
from ringcast.events import class_mro, class_name, is_class, is_defined_again, is_union, short, shown
from ringcast.values import plain_str

if TYPE_CHECKING:
    import inspect

__all__ = ["Accepts", "check_accepts", "hint_at", "inspect_handler", "named_classes", "option_hint", "sole_class"]

_NAMED: Final = "name the class: subscribe(EventClass, handler), on(EventClass)"
_REMEDY: Final = f"annotate it with the event class, or {_NAMED}"


class Accepts(NamedTuple):
    """What a handler takes. It holds the classes strongly, and not the handler.

    Attributes:
        handler: the handler's name, as `handler_name` gives it.
        parameter: the parameter that receives the event, as messages show it: its name in quotes, or several where a
            wrapper may give the event to any of them; empty for a callable that does not tell its signature (some
            built-in ones).
        annotation: the annotation of that parameter as messages show it; empty when there is none.
        classes: the classes that the handler takes, or None when it takes anything: no annotation, `Any`,
            `object`, or an annotation that cannot be resolved.
        objection: why the annotation does not name event classes, one or several; empty when it does.
        asynchronous: whether a call gives something to await.
        hint: what may be missing in the subscription, if the class of its events is none of these.
        records: whether the annotation is a RecordBatch, which has records of one type only.
    """

    handler: str
    parameter: str
    annotation: str
    classes: tuple[type, ...] | None
    objection: str
    asynchronous: bool = False
    hint: str = ""
    records: bool = False

    @property
    def named(self) -> tuple[type, ...]:
        """The event classes that the annotation names; empty where there is an objection."""
        return () if self.objection or self.classes is None else self.classes


def inspect_handler(handler: object, frame: FrameType | None = None, *, batch: bool = False) -> Accepts:
    """Look at a handler: can it be called with an event, and what does it take.

    Args:
        handler: any callable.
        frame: the frame of the function that subscribes; names in a string annotation are looked up there
            too. Its local variables are not touched unless such a name asks for them.
        batch: it is called with a batch of events; the classes are those of the events.

    Returns:
        What the handler takes.

    Raises:
        HandlerTypeError: the handler is not callable, or only a type hint; cannot be called with exactly one positional
            argument; or is a generator or an asynchronous one, which a call would not run, or an exception class.
    """
    handler = plain(handler)
    name = handler_name(handler)
    if not callable(handler):
        raise HandlerTypeError(f"a handler is a callable, not {shown(handler)}{hint_at(handler)}")
    if is_class(handler) and _is_made_for_events(handler):
        raise HandlerTypeError(
            f"{name} is an event class, and no handler; several classes are given as a tuple: (First, {name})"
        )
    if _is_hint(handler):
        raise HandlerTypeError(f"a handler is called with events, and {shown(handler)} is a type hint")
    asynchronous = is_asynchronous(handler, f"handler {name}")
    signature = call_signature(handler, f"handler {name}")
    if signature is None:
        return Accepts(name, "", "", None, f"handler {name} does not tell its signature; {_REMEDY}", asynchronous)
    accepts = _read(handler, name, event_parameter(signature, f"handler {name}"), frame, batch)
    return accepts._replace(asynchronous=asynchronous)


def _is_made_for_events(cls: type) -> bool:
    """Tell whether a class is a dataclass, a named tuple or a record, or states a type id."""
    fields = ("__dataclass_fields__", "_fields", "__layout__", "__event_type__")
    return any(class_attribute(cls, name) is not None for name in fields)


def _is_hint(value: object) -> bool:
    """Tell whether it is `Tick | None`, `list[Tick]` or the like, which are no handlers, though Python calls some."""
    try:
        return is_union(value) or typing.get_origin(value) is not None
    except Exception:  # of a proxy
        return False


def hint_at(value: object) -> str:
    """Say what may have been meant with what is given as a handler, and is no callable; or nothing."""
    called = "is it called already, show(event) in place of show"
    if value is None:
        return f": {called}, or does its decorator return nothing?"
    if is_a(value, CoroutineType) or is_a(value, GeneratorType):
        return f": {called}?"
    if is_a(value, classmethod):
        return f": {METHOD_REMEDIES['cls']}"
    return option_hint(value)


def option_hint(value: object) -> str:
    """Say which option a word is for; or nothing."""
    from ringcast._core import MODES, POLICIES  # which needs this module

    word = plain_str(value)
    for option, words in (("mode", MODES), ("policy", POLICIES)):
        if word in words:
            return f': {option}="{word}"'
    return ""


def named_classes(accepts: Accepts) -> tuple[type, ...]:
    """Return the event classes that a handler's annotation names: one, or those of a union.

    Args:
        accepts: from `inspect_handler`.

    Returns:
        The classes, each once.

    Raises:
        HandlerTypeError: the annotation is missing, cannot be resolved, or names no class, or every class. The message
            names the handler and its parameter, and says what to do instead.
    """
    if not accepts.named:
        raise HandlerTypeError(accepts.objection)
    return accepts.named


def sole_class(accepts: Accepts) -> type:
    """Return the one event class that a handler's annotation names.

    Args:
        accepts: from `inspect_handler`.

    Returns:
        The class.

    Raises:
        HandlerTypeError: as for `named_classes`; or there are several.
    """
    event_class, *others = named_classes(accepts)
    if others:
        raise HandlerTypeError(
            f"parameter {accepts.parameter} of handler {accepts.handler} is annotated {accepts.annotation!r}, which is "
            f"several classes, and a type id belongs to one: annotate it with that one"
        )
    return event_class


def check_accepts(accepts: Accepts, event_class: type, type_id: int | None) -> None:
    """Check that a handler takes the events of a class.

    It does when its annotation names the class, a base of it (also a virtual one), or a union with one of these; when
    the class has taken the place of the annotated one (a cell of a notebook that was run again); and when it takes
    anything. What cannot be decided, as with a protocol without run-time check, is let through.

    Args:
        accepts: from `inspect_handler`.
        event_class: the class of the events.
        type_id: the type id they have, for the message; None where the subclasses' events, with others, come too.

    Raises:
        EventClassError: the handler is for another class. The message names both classes and the id.
    """
    if accepts.classes is None or any(
        _is_subclass(event_class, base) or is_defined_again(base, event_class) for base in accepts.classes
    ):
        return
    named = " or ".join(class_name(base) for base in accepts.classes)
    given = class_name(event_class)
    if type_id is None:
        subject = f"these are events of {given} and its subclasses"
    else:
        subject = f"type id {type_id:#x} has the event class {given}"
    raise EventClassError(
        f"{subject}; handler {accepts.handler} is for {named} (parameter {accepts.parameter}){accepts.hint}"
    )


def _read(
    handler: Callable[..., Any], name: str, parameter: inspect.Parameter, frame: FrameType | None, batch: bool
) -> Accepts:
    """Read the annotation of `parameter`, or of what it stands for in the function that the handler wraps."""
    names = Names(handler, frame)
    readings = [_read_one(name, declared, names, batch) for declared in _declared(handler, parameter)]
    if len(readings) == 1:
        return readings[0]
    # Any of them may get the event: what the one or the other takes may be meant, but none is named.
    several = ", ".join(reading.parameter for reading in readings)
    known = [reading.classes for reading in readings]
    classes = None if None in known else tuple(cls for each in known if each is not None for cls in each)
    objection = f"handler {name} wraps a function of several parameters ({several}), any of which may get the event"
    return Accepts(name, several, "", classes, f"{objection}; {_REMEDY}", hint=readings[0].hint)


def _read_one(name: str, parameter: inspect.Parameter, names: Names, batch: bool) -> Accepts:
    shown_name = repr(short(parameter.name))
    where = f"parameter {shown_name} of handler {name}"
    annotation: object = parameter.annotation
    if annotation is parameter.empty:
        return Accepts(name, shown_name, "", None, f"{where} has no annotation; {_REMEDY}")
    text = annotation_text(annotation)
    try:
        annotation = concrete(annotation, names)
        records = batch and _is_record_batch(_container(annotation))
        bare = _bare_container(annotation) if batch else ""
        if batch:
            annotation = concrete(_member(annotation, f"{where} is annotated {text!r}"), names)
        classes = classes_of(annotation, names, 0)
        alternatives = members(annotation, names)
    except UnresolvedError as error:
        return Accepts(name, shown_name, text, None, f"{where}: {error}; {_REMEDY}")
    why, remedy, hint = unfit(alternatives), _REMEDY, ""
    if not batch and any(map(_is_list_of, alternatives)):
        why, hint = "which is a list of events", "; a handler of lists needs batch="
        remedy = "say how many at most: batch=100"
        if any(_container(each) is list for each in alternatives):
            remedy += ", or, where lists are published, name the class: subscribe(list, handler)"
    if why and bare:
        why, remedy = "which does not say of what", f"annotate it {bare}[EventClass], or {_NAMED}"
    objection = f"{where} is annotated {text!r}, {why}; {remedy}" if why else ""
    return Accepts(name, shown_name, text, classes, objection, hint=hint, records=records)


def _is_list_of(annotation: object) -> bool:
    """Tell whether an annotation is `list[Tick]`, a RecordBatch or the like: `list` alone can be an event class."""
    return _is_record_batch(annotation) or (not is_class(annotation) and _takes_batches(_container(annotation)))


def _member(annotation: object, found: str) -> object:
    """Return the annotation of the events in a batch: `Tick` of `list[Tick]`, or of anything else that a list is."""
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return Any
    if not _takes_batches(_container(annotation)):
        raise HandlerTypeError(f"{found}: with batch= it is given a list of events; annotate it list[EventClass]")
    return next(iter(typing.get_args(annotation)), Any)


def _bare_container(annotation: object) -> str:
    """Return what holds a batch, where its annotation does not tell the class of the events; else an empty text."""
    container = _container(annotation)
    if container is object or not _takes_batches(container) or typing.get_args(annotation):
        return ""
    return "RecordBatch" if _is_record_batch(container) else "list"


def _container(annotation: object) -> object:
    return annotation if is_class(annotation) else typing.get_origin(annotation)


def _takes_batches(container: object) -> bool:
    return is_class(container) and (issubclass(list, container) or _is_record_batch(container))


def _is_record_batch(container: object) -> bool:
    from ringcast._core import RecordBatch  # which needs this module

    return container is RecordBatch


def _declared(handler: Callable[..., Any], parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Return the parameters of the wrapped function (`functools.wraps`) that `parameter` may pass the event to.

    That is the one of the same name, which a wrapper that adds arguments of its own leaves in any place. Else it is the
    first, if the function can be called with one argument: where it needs several, the wrapper adds the others, before
    the event or after it.
    """
    try:
        declared = full_signature(handler).parameters
    except Exception:
        # What is wrapped has no signature, or it wraps itself, or (since Python 3.14) an annotation raises;
        # in that case `parameter` has the annotation as a string.
        return [parameter]
    candidates = [p for p in declared.values() if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if parameter.kind is not parameter.VAR_POSITIONAL:
        for candidate in candidates:
            if candidate.name == parameter.name:
                return [candidate]
    needed = [p for p in candidates if p.kind is not p.VAR_POSITIONAL and p.default is p.empty]
    return needed if len(needed) > 1 else candidates[:1] or [parameter]


def _is_subclass(event_class: type, base: type) -> bool:
    if any(cls is base for cls in class_mro(event_class)):
        return True
    try:
        return issubclass(event_class, base)
    except Exception:
        # A protocol without run-time check, or a metaclass that fails: nothing speaks against the class.
        return True
