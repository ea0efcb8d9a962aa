"""What a handler takes: its signature, and the class or classes of its annotation.

`inspect_handler` looks at a handler once, when it is subscribed, and refuses what could never be called.
What it finds is an `Accepts`, which answers the three questions a subscription has: which one class does
the handler name (`sole_class`), does it name one (`Accepts.sole`), and does it take the events of a given
class (`check_accepts`).

The annotation is that of the parameter which receives the event, and only a string there is evaluated.
Names in it are looked up where Python would look if it were no string: in the class body the method stands
in, among the type parameters, in the enclosing functions, in the module. A class that is local to the
function which subscribes is found in that function's frame.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, TypeVar, Union

from ringcast.errors import EventClassError, HandlerTypeError
from ringcast.events import class_mro, class_name, class_namespace, is_class, shown

# Importing `inspect` takes half as long as importing Ringcast: it waits for the first handler to be looked at.
if TYPE_CHECKING:
    import inspect

__all__ = ["Accepts", "check_accepts", "handler_name", "inspect_handler", "sole_class"]

_MAX_DEPTH: Final = 50  # of wrappers around a handler, and of aliases within an annotation
_CO_OPTIMIZED: Final = 1  # inspect.CO_OPTIMIZED
_REMEDY: Final = "annotate it with one event class, or name the class: subscribe(EventClass, handler), on(EventClass)"


class Accepts(NamedTuple):
    """What a handler takes. It holds the classes strongly, and not the handler.

    Attributes:
        handler: the handler's name, as `handler_name` gives it.
        parameter: the name of the parameter that receives the event, or None for a callable that does not
            tell its signature (some built-in ones).
        annotation: the annotation of that parameter as messages show it; empty when there is none.
        classes: the classes that the handler takes, or None when it takes anything: no annotation, `Any`,
            `object`, or an annotation that cannot be resolved.
        objection: why the annotation does not name exactly one event class; empty when it does.
        asynchronous: whether a call gives something to await.
    """

    handler: str
    parameter: str | None
    annotation: str
    classes: tuple[type, ...] | None
    objection: str
    asynchronous: bool = False

    @property
    def sole(self) -> type | None:
        """The one event class that the annotation names, or None."""
        return None if self.objection or self.classes is None else self.classes[0]


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
        HandlerTypeError: the handler is not callable; cannot be called with exactly one positional
            argument; or is a generator or an asynchronous one, which a call would not run.
    """
    name = handler_name(handler)
    if not callable(handler):
        raise HandlerTypeError(f"a handler is a callable, not {shown(handler)}")
    if isinstance(handler, staticmethod):
        return inspect_handler(handler.__func__, frame, batch=batch)
    asynchronous = _is_asynchronous(handler, name)
    signature = _call_signature(handler)
    if signature is None:
        return Accepts(name, None, "", None, f"handler {name} does not tell its signature; {_REMEDY}", asynchronous)
    accepts = _read(handler, name, _event_parameter(signature, name), frame, batch)
    return accepts._replace(asynchronous=asynchronous)


def sole_class(accepts: Accepts) -> type:
    """Return the one event class that a handler's annotation names.

    Args:
        accepts: from `inspect_handler`.

    Returns:
        The class.

    Raises:
        HandlerTypeError: the annotation is missing, cannot be resolved, or names no class, several, or every
            class. The message names the handler and its parameter, and says what to do instead.
    """
    event_class = accepts.sole
    if event_class is None:
        raise HandlerTypeError(accepts.objection)
    return event_class


def check_accepts(accepts: Accepts, event_class: type, type_id: int) -> None:
    """Check that a handler takes the events of a class.

    It does when its annotation names the class, a base of it (also a virtual one), or a union with one of
    these, and when it takes anything. What cannot be decided, as with a protocol without run-time check, is
    let through.

    Args:
        accepts: from `inspect_handler`.
        event_class: the class of the events.
        type_id: the type id they have, for the message.

    Raises:
        EventClassError: the handler is for another class. The message names both classes and the id.
    """
    if accepts.classes is None or any(_is_subclass(event_class, base) for base in accepts.classes):
        return
    named = " or ".join(class_name(base) for base in accepts.classes)
    raise EventClassError(
        f"type id 0x{type_id:08x} has the event class {class_name(event_class)}; handler {accepts.handler} "
        f"is for {named} (parameter {accepts.parameter!r})"
    )


def handler_name(handler: object) -> str:
    """Return a readable name of a handler for logs; never raises.

    A function or method gives ``module.qualname``, a `functools.partial` the name of what it calls, a
    callable object the name of its class.
    """
    for _ in range(_MAX_DEPTH):
        if is_class(handler):
            return class_name(handler)
        if not isinstance(handler, functools.partial):
            break
        handler = handler.func
    try:
        qualname = getattr(handler, "__qualname__", None)
        module = getattr(handler, "__module__", None)
    except Exception:  # a proxy whose attributes cannot be had
        qualname = None
    if type(qualname) is not str:
        return class_name(type(handler))
    return f"{module}.{qualname}" if type(module) is str and module != "builtins" else qualname


# Can it be called ------------------------------------------------------------------------------------


def _is_asynchronous(handler: object, name: str) -> bool:
    """Tell whether a call gives something to await; refuse a handler that a call does not run but only prepares."""
    import inspect

    for layer in _layers(handler):
        if inspect.iscoroutinefunction(layer):
            return True
        if inspect.isasyncgenfunction(layer):
            what = "an asynchronous generator function"
        elif inspect.isgeneratorfunction(layer):
            what = "a generator function (it has a yield), which a call does not run"
        else:
            continue
        raise HandlerTypeError(f"handler {name} is {what}; a handler is a plain function or an async def one")
    return False


def _layers(handler: object) -> typing.Iterator[object]:
    """Yield a handler and what a call of it calls; not what it wraps, which the wrapper runs as it likes."""
    for _ in range(_MAX_DEPTH):
        yield handler
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, MethodType):
            handler = handler.__func__
        elif isinstance(handler, FunctionType) or is_class(handler):
            return
        else:
            call = _class_attribute(type(handler), "__call__")
            if not isinstance(call, FunctionType):
                return
            handler = call


def _bare_signature(handler: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of the handler itself, whatever it wraps."""
    import inspect

    if sys.version_info >= (3, 14):
        # Annotations are evaluated late there: the names in them must not make a signature fail.
        from annotationlib import Format

        return inspect.signature(handler, follow_wrapped=False, annotation_format=Format.STRING)
    return inspect.signature(handler, follow_wrapped=False)


def _full_signature(handler: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of what the handler wraps."""
    import inspect

    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(handler, annotation_format=Format.FORWARDREF)
    return inspect.signature(handler)


def _call_signature(handler: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of the handler itself, or of what it wraps when it is compiled and shows none."""
    for signature in (_bare_signature, _full_signature):
        with contextlib.suppress(Exception):  # a __signature__ may be computed, and fail in any way
            return signature(handler)
    return None


def _event_parameter(signature: inspect.Signature, name: str) -> inspect.Parameter:
    """Return the parameter that receives the event, or refuse a handler that one argument is wrong for."""
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in positional if p.default is p.empty]
    if len(needed) > 1:
        hint = "; subscribe the bound method of an instance" if needed[0] == "self" else ""
        raise HandlerTypeError(
            f"handler {name} needs {len(needed)} arguments ({', '.join(needed)}), but is called with one, "
            f"the event: give parameter {needed[1]!r} a default{hint}"
        )
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty:
            raise HandlerTypeError(
                f"handler {name} is called with one argument, the event, but its keyword-only parameter "
                f"{p.name!r} has no default"
            )
        if p.kind is p.VAR_POSITIONAL:
            positional.append(p)
    if not positional:
        raise HandlerTypeError(f"handler {name} takes no positional argument, but is called with one, the event")
    return positional[0]


# What is it annotated --------------------------------------------------------------------------------


class _UnresolvedError(Exception):
    """A string in an annotation cannot be evaluated."""


def _read(
    handler: Callable[..., Any], name: str, parameter: inspect.Parameter, frame: FrameType | None, batch: bool
) -> Accepts:
    """Read the annotation of `parameter`, or of the one it stands for in the function the handler wraps."""
    parameter = _declared(handler, parameter)
    where = f"parameter {parameter.name!r} of handler {name}"
    annotation: object = parameter.annotation
    if annotation is parameter.empty:
        return Accepts(name, parameter.name, "", None, f"{where} has no annotation; {_REMEDY}")
    text = _annotation_text(annotation)
    names = _Names(handler, frame)
    try:
        annotation = _concrete(annotation, names)
        if batch:
            annotation = _concrete(_member(annotation, f"{where} is annotated {text!r}"), names)
        classes = _classes(annotation, names, 0)
    except _UnresolvedError as error:
        return Accepts(name, parameter.name, text, None, f"{where}: {error}; {_REMEDY}")
    why = _unfit(annotation)
    objection = f"{where} is annotated {text!r}, {why}; {_REMEDY}" if why else ""
    return Accepts(name, parameter.name, text, classes, objection)


def _member(annotation: object, found: str) -> object:
    """Return the annotation of the events in a batch: `Tick` of `list[Tick]`, or of anything else that a list is."""
    container = annotation if is_class(annotation) else typing.get_origin(annotation)
    if annotation is Any or annotation is object or isinstance(annotation, TypeVar):
        return Any
    if not is_class(container) or not _takes_batches(container):
        raise HandlerTypeError(f"{found}: with batch= it is given a list of events; annotate it list[EventClass]")
    members = typing.get_args(annotation)
    return members[0] if members else Any


def _takes_batches(container: type) -> bool:
    from ringcast._core import RecordBatch  # which needs this module

    return issubclass(list, container) or container is RecordBatch


def _declared(handler: Callable[..., Any], parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter of the wrapped function (`functools.wraps`) that `parameter` passes the event to.

    That is the one of the same name, which a wrapper that adds arguments of its own leaves in any place, and
    else the first.
    """
    try:
        declared = _full_signature(handler).parameters
    except Exception:
        # What is wrapped has no signature, or it wraps itself, or (since Python 3.14) an annotation raises;
        # in that case `parameter` has the annotation as a string.
        return parameter
    candidates = [
        p for p in declared.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    for candidate in candidates:
        if candidate.name == parameter.name:
            return candidate
    return candidates[0] if candidates else parameter


def _annotation_text(annotation: object) -> str:
    if is_class(annotation):
        return class_name(annotation)
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    try:
        return repr(annotation)
    except Exception:  # a message must come out, whatever a __repr__ does
        return class_name(type(annotation))


def _concrete(annotation: object, names: _Names) -> object:
    """Take off what only stands around an annotation: quotes, `Annotated`, the name of an alias."""
    for _ in range(_MAX_DEPTH):
        if is_class(annotation):
            return annotation
        if isinstance(annotation, typing.ForwardRef):
            annotation = annotation.__forward_arg__
        if _is_alias(typing.get_origin(annotation)):  # a generic one: the arguments do not change the class
            annotation = typing.get_origin(annotation)
        if isinstance(annotation, str):
            annotation = names.evaluate(annotation)
        elif typing.get_origin(annotation) is Annotated:
            annotation = annotation.__origin__  # type: ignore[attr-defined]
        elif _is_alias(annotation):
            annotation = _lazily(annotation, "__value__")
        else:
            return annotation
    raise _UnresolvedError(f"annotation {_annotation_text(annotation)!r} is nested too deeply")


def _classes(annotation: object, names: _Names, depth: int) -> tuple[type, ...] | None:
    """Return the classes whose instances fit an annotation, or None for all."""
    if depth > _MAX_DEPTH:
        raise _UnresolvedError(f"annotation {_annotation_text(annotation)!r} refers to itself")
    annotation = _concrete(annotation, names)
    if annotation is Any or annotation is object:
        return None
    if annotation is None:
        return (type(None),)
    if is_class(annotation):
        return (dict if _is_typed_dict(annotation) else annotation,)
    if _is_union(annotation):
        return _all_classes(typing.get_args(annotation), names, depth)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return tuple({type(value): None for value in typing.get_args(annotation)})
    if is_class(origin):
        return _classes(origin, names, depth + 1)
    if isinstance(annotation, typing.NewType):
        return _classes(annotation.__supertype__, names, depth + 1)
    if isinstance(annotation, TypeVar):
        constraints = _lazily(annotation, "__constraints__")
        if constraints:
            return _all_classes(typing.cast("tuple[object, ...]", constraints), names, depth)
        bound = _lazily(annotation, "__bound__")
        return None if bound is None else _classes(bound, names, depth + 1)
    return None


def _all_classes(members: tuple[object, ...], names: _Names, depth: int) -> tuple[type, ...] | None:
    found: dict[int, type] = {}  # by address: metaclasses may define __eq__
    for member in members:
        classes = _classes(member, names, depth + 1)
        if classes is None:
            return None
        found.update((id(cls), cls) for cls in classes)
    return tuple(found.values())


def _unfit(annotation: object) -> str:
    """Say why an annotation (made concrete) does not name one event class; empty when it does."""
    if annotation is Any or annotation is object:
        return "which is every class"
    if not is_class(annotation):
        if _is_union(annotation):
            return "which is several classes"
        if isinstance(annotation, TypeVar):
            return "which is a type variable"
        if isinstance(annotation, typing.NewType):
            return "which is a NewType: its instances are of the class it stands for"
        annotation = type(None) if annotation is None else typing.get_origin(annotation)
    if not is_class(annotation):
        return "which is not a class"
    if _is_typed_dict(annotation):
        return "which is a TypedDict: its instances are plain dicts"
    if _class_attribute(annotation, "_is_protocol") is True:
        return "which is a protocol: no event is of exactly that class"
    return ""


def _is_union(annotation: object) -> bool:
    origin = typing.get_origin(annotation)
    return origin is Union or origin is types.UnionType


def _is_alias(annotation: object) -> bool:
    return sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType)


def _is_typed_dict(cls: type) -> bool:
    is_dict = any(base is dict for base in class_mro(cls)[1:])
    return is_dict and _class_attribute(cls, "__required_keys__") is not None


def _lazily(holder: object, attribute: str) -> object:
    """Get what Python 3.12 and newer evaluate only now: an alias's value, a type variable's bound."""
    try:
        return getattr(holder, attribute)
    except Exception as error:  # whatever the expression raises
        raise _UnresolvedError(f"{attribute} of {holder!r} cannot be resolved ({_brief(error)})") from error


def _is_subclass(event_class: type, base: type) -> bool:
    if any(cls is base for cls in class_mro(event_class)):
        return True
    try:
        return issubclass(event_class, base)
    except Exception:
        # A protocol without run-time check, or a metaclass that fails: nothing speaks against the class.
        return True


def _class_attribute(cls: type, name: str) -> object:
    for base in class_mro(cls):
        if name in class_namespace(base):
            return class_namespace(base)[name]
    return None


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# Names in string annotations -------------------------------------------------------------------------


class _Names(Mapping[str, object]):
    """The names that a string annotation of a handler may use, found one by one.

    Nothing is copied beforehand: to take a function's local variables off its frame costs time, and up to
    Python 3.12 it keeps them all alive until the function returns.
    """

    def __init__(self, handler: object, frame: FrameType | None) -> None:
        function, owner = _definition(handler)
        self._globals: dict[str, object] = getattr(function, "__globals__", {})
        self._body = _class_body(function, owner)
        self._near = _own_names(function, self._body)
        # Up to Python 3.11 a comprehension is a function of its own, whose caller is the one that is meant.
        while frame is not None and frame.f_code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>"):
            frame = frame.f_back
        self._frame = frame
        self._written_there = (
            frame is not None
            and frame.f_globals is self._globals
            and getattr(function, "__qualname__", "").startswith(frame.f_code.co_qualname + ".<locals>.")
        )

    def evaluate(self, text: str) -> object:
        """Evaluate a string annotation."""
        try:
            return eval(text, self._globals, self)
        except Exception as error:  # an annotation is any expression, and may fail in any way
            raise _UnresolvedError(f"annotation {text!r} cannot be resolved ({_brief(error)})") from error

    def __getitem__(self, name: str) -> object:
        for namespace in self._near:
            if name in namespace:
                return namespace[name]
        if self._written_there and self._is_local(name):
            return self._local(name)
        if name in self._globals:
            return self._globals[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        # Last, because a function that only subscribes a handler may use the names of the handler's module
        # otherwise.
        if self._is_local(name):
            return self._local(name)
        raise KeyError(name)

    def _is_local(self, name: str) -> bool:
        if self._frame is None:
            return False
        code = self._frame.f_code
        if not code.co_flags & _CO_OPTIMIZED:  # a module or a class body: its locals are a dictionary
            return name in self._frame.f_locals
        variables = (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
        return name in variables and name in self._frame.f_locals

    def _local(self, name: str) -> object:
        assert self._frame is not None
        return self._frame.f_locals[name]

    def __iter__(self) -> typing.Iterator[str]:
        raise NotImplementedError("names are only looked up")

    def __len__(self) -> int:
        raise NotImplementedError("names are only looked up")


def _definition(handler: object) -> tuple[object, type | None]:
    """Find the function whose signature a handler shows, and the class it was reached through.

    This goes the way that `inspect.signature` goes.
    """
    owner: type | None = None
    for _ in range(_MAX_DEPTH):
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, MethodType):
            owner = handler.__self__ if is_class(handler.__self__) else type(handler.__self__)
            handler = handler.__func__
        elif is_class(handler):
            owner = handler
            constructors = (_class_attribute(owner, "__new__"), _class_attribute(owner, "__init__"))
            handler = next((c for c in map(_plain, constructors) if isinstance(c, FunctionType)), None)
        elif _has(handler, "__wrapped__") and not _has(handler, "__signature__"):
            handler = handler.__wrapped__  # type: ignore[attr-defined]
        elif _has(handler, "__globals__"):
            return handler, owner
        else:
            owner = type(handler)
            handler = _class_attribute(owner, "__call__")
            if not _has(handler, "__globals__"):
                break
    return None, owner


def _plain(attribute: object) -> object:
    return attribute.__func__ if isinstance(attribute, staticmethod) else attribute


def _has(value: object, name: str) -> bool:
    try:
        return hasattr(value, name)
    except Exception:  # a proxy whose attributes cannot be had
        return False


def _class_body(function: object, owner: type | None) -> type | None:
    """Find the class in whose body a method was written: `owner`, which it was reached through, or a base."""
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    for cls in () if owner is None else class_mro(owner):
        if class_name(cls) == f"{getattr(function, '__module__', None)}.{outer}":
            return cls
    return None


def _own_names(function: object, body: type | None) -> list[Mapping[str, object]]:
    """Return the names nearest to a function: class body, type parameters, enclosing functions' variables."""
    near: list[Mapping[str, object]] = []
    parameters = [*getattr(function, "__type_params__", ())]
    if body is not None:
        near.append(class_namespace(body))
        parameters = [*class_namespace(body).get("__type_params__", ()), *parameters]
    near.append({parameter.__name__: parameter for parameter in parameters})
    # Since Python 3.14 a function evaluates its annotations in a function of their own, with a closure of
    # its own.
    for code_of in (function, getattr(function, "__annotate__", None)):
        near.append(_closure(code_of))
    return near


def _closure(function: object) -> dict[str, object]:
    if not isinstance(function, FunctionType):
        return {}
    names: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    return names
