"""Which classes an annotation names.

Only a string is evaluated. Names in it are looked up where Python would look if it were no string: in the class body in
which the method stands, among the type parameters, in the enclosing functions, in the module. A class that is local to
the function which subscribes is found in that function's frame.
"""

from __future__ import annotations

import builtins
import functools
import sys
import typing
from collections.abc import Iterator, Mapping
from types import FrameType, FunctionType, MethodType
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

from ringcast.callables import MAX_DEPTH, attribute, class_attribute, is_a, plain
from ringcast.events import (
    brief,
    class_mro,
    class_name,
    class_namespace,
    error_text,
    full_class_name,
    is_class,
    is_union,
    short,
)

_MAX_DEPTH: Final = 50  # of aliases and containers within an annotation
ANNOTATION: Final = 200  # characters
_CO_OPTIMIZED: Final = 1  # inspect.CO_OPTIMIZED


class UnresolvedError(Exception):
    """A string in an annotation cannot be evaluated."""


def annotation_text(annotation: object) -> str:
    """Return an annotation as messages show it."""
    if is_class(annotation):
        return class_name(annotation)
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    return short(annotation) if isinstance(annotation, str) else brief(annotation, ANNOTATION)


def concrete(annotation: object, names: Names) -> object:
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
    raise UnresolvedError(f"annotation {annotation_text(annotation)!r} is nested too deeply")


def classes_of(annotation: object, names: Names, depth: int) -> tuple[type, ...] | None:
    """Return the classes whose instances fit an annotation, or None for all."""
    if depth > _MAX_DEPTH:
        raise UnresolvedError(f"annotation {annotation_text(annotation)!r} refers to itself")
    annotation = concrete(annotation, names)
    if annotation is Any or annotation is object:
        return None
    if annotation is None:
        return (type(None),)
    if is_class(annotation):
        return (dict if is_typed_dict(annotation) else annotation,)
    if is_union(annotation):
        return _all_classes(typing.get_args(annotation), names, depth)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return tuple({type(value): None for value in typing.get_args(annotation)})
    if is_class(origin):
        return classes_of(origin, names, depth + 1)
    if isinstance(annotation, typing.NewType):
        return classes_of(annotation.__supertype__, names, depth + 1)
    if isinstance(annotation, TypeVar):
        constraints = _lazily(annotation, "__constraints__")
        if constraints:
            return _all_classes(typing.cast("tuple[object, ...]", constraints), names, depth)
        bound = _lazily(annotation, "__bound__")
        return None if bound is None else classes_of(bound, names, depth + 1)
    return None


def _all_classes(members: tuple[object, ...], names: Names, depth: int) -> tuple[type, ...] | None:
    found: dict[int, type] = {}  # by address: metaclasses may define __eq__
    for member in members:
        classes = classes_of(member, names, depth + 1)
        if classes is None:
            return None
        found.update((id(cls), cls) for cls in classes)
    return tuple(found.values())


def members(annotation: object, names: Names, depth: int = 0) -> list[object]:
    """Return what an annotation (made concrete) is a union of, itself if it is none."""
    if depth > _MAX_DEPTH:
        raise UnresolvedError(f"annotation {annotation_text(annotation)!r} refers to itself")
    if is_class(annotation) or not is_union(annotation):
        return [annotation]
    found = [concrete(member, names) for member in typing.get_args(annotation)]
    return [each for member in found for each in members(member, names, depth + 1)]


def unfit(alternatives: list[object]) -> str:
    """Say why what an annotation is a union of (`members`) are not event classes; empty when they are."""
    for member in alternatives:
        if len(alternatives) > 1 and (member is None or member is type(None)):
            return "which may be None: leave that out, as a handler is given an event at each call"
        if why := _unfit(member):
            return f"which {why}" if len(alternatives) == 1 else f"where {annotation_text(member)} {why}"
    return ""


def _unfit(annotation: object) -> str:
    if annotation is Any or annotation is object:
        return "is every class, to whose events one subscribes with subscribe(object, handler)"
    if not is_class(annotation):
        if isinstance(annotation, TypeVar):
            return "is a type variable"
        if isinstance(annotation, typing.NewType):
            return "is a NewType: its instances are of the class it stands for"
        if is_a(annotation, tuple):
            return "is a tuple: several classes are annotated as a union, First | Second"
        annotation = type(None) if annotation is None else typing.get_origin(annotation)
        if annotation is tuple:
            return "is one tuple: several classes are annotated as a union, First | Second"
    if not is_class(annotation):
        return "is not a class"
    if is_typed_dict(annotation):
        return "is a TypedDict: its instances are plain dicts"
    if is_protocol(annotation):
        return "is a protocol: no event is of exactly that class"
    return ""


def _is_alias(annotation: object) -> bool:
    return sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType)


def is_protocol(cls: type) -> bool:
    """Tell whether a class is a protocol, and none that only has the members of one."""
    return class_attribute(cls, "_is_protocol") is True and any(base is Protocol for base in class_mro(cls))


def is_typed_dict(cls: type) -> bool:
    """Tell whether a class is a TypedDict, which has no instances of its own."""
    is_dict = any(base is dict for base in class_mro(cls)[1:])
    return is_dict and class_attribute(cls, "__required_keys__") is not None


def _lazily(holder: object, name: str) -> object:
    """Get what Python 3.12 and newer evaluate only now: an alias's value, a type variable's bound."""
    try:
        return getattr(holder, name)
    except Exception as error:  # whatever the expression raises
        raise UnresolvedError(f"{name} of {holder!r} cannot be resolved ({error_text(error)})") from error


# Names in string annotations ---


class Names(Mapping[str, object]):
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
            raise UnresolvedError(f"annotation {short(text)!r} cannot be resolved ({error_text(error)})") from error

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

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("names are only looked up")

    def __len__(self) -> int:
        raise NotImplementedError("names are only looked up")


def _definition(handler: object) -> tuple[object, type | None]:
    """Find the function whose signature a handler shows, and the class it was reached through.

    This goes the way that `inspect.signature` goes.
    """
    owner: type | None = None
    for _ in range(MAX_DEPTH):
        if is_a(handler, functools.partial):
            handler = handler.func
        elif is_a(handler, MethodType):
            owner = handler.__self__ if is_class(handler.__self__) else type(handler.__self__)
            handler = handler.__func__
        elif is_class(handler):
            owner = handler
            constructors = (class_attribute(owner, "__new__"), class_attribute(owner, "__init__"))
            handler = next((c for c in map(plain, constructors) if is_a(c, FunctionType)), None)
        elif attribute(handler, "__wrapped__") is not None and attribute(handler, "__signature__") is None:
            handler = attribute(handler, "__wrapped__")
        elif attribute(handler, "__globals__") is not None:
            return handler, owner
        else:
            owner = type(handler)
            handler = class_attribute(owner, "__call__")
            if attribute(handler, "__globals__") is None:
                break
    return None, owner


def _class_body(function: object, owner: type | None) -> type | None:
    """Find the class in whose body a method was written: `owner`, which it was reached through, or a base."""
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    for cls in () if owner is None else class_mro(owner):
        if full_class_name(cls) == f"{getattr(function, '__module__', None)}.{outer}":
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
    if not is_a(function, FunctionType):
        return {}
    names: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    return names
