"""What a callable is, whatever it is for: its name, what a call of it runs, and whether one argument fits."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import BuiltinMethodType, FunctionType, MethodType, MethodWrapperType
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

from ringcast._modules import imported
from ringcast.errors import HandlerTypeError
from ringcast.events import class_mro, class_namespace, error_says, full_class_name, is_class, short

# Importing `inspect` takes half as long as importing Ringcast: it waits for the first handler to be looked at.
if TYPE_CHECKING:
    import inspect

C = TypeVar("C")

MAX_DEPTH: Final = 50  # of wrappers around a callable
# Where a coroutine function is marked, and where the mark is that `inspect` and `asyncio` look for.
_MARKS: Final = (
    ("_is_coroutine_marker", "inspect", "_is_coroutine_mark"),
    ("_is_coroutine", "asyncio.coroutines", "_is_coroutine"),
)
# for functions in the body of a class, which are not methods yet, by their first parameter
METHOD_REMEDIES: Final = {
    "self": "use the bound method of an instance",
    "cls": "subscribe the method of the class, when the class is made",
}
_METHODS: Final = (MethodType, BuiltinMethodType, MethodWrapperType)  # made anew by each look at the attribute
_CO_GENERATOR, _CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200  # of `inspect`


def handler_name(handler: object) -> str:
    """Return a readable name of a handler for messages and logs, shortened; never raises.

    A function or method gives ``module.qualname``, a `functools.partial` the name of what it calls, a
    callable object the name of its class.
    """
    return short(full_handler_name(handler))


def full_handler_name(handler: object) -> str:
    """Return the same, however long, to tell handlers apart; never raises."""
    for _ in range(MAX_DEPTH):
        if is_class(handler):
            return full_class_name(handler)
        if not is_a(handler, functools.partial):
            break
        handler = handler.func
    qualname, module = attribute(handler, "__qualname__"), attribute(handler, "__module__")
    if type(qualname) is not str:
        return full_class_name(type(handler))
    return f"{module}.{qualname}" if type(module) is str and module != "builtins" else qualname


def has_name_of_its_own(handler: object) -> bool:
    """Tell whether `handler_name` names this callable alone: a function of a module or class.

    Not a lambda, `_`, a method of an object, nor what a function has made: for a decorator may name all alike.
    """
    if is_class(handler) or attribute(handler, "__self__") is not None:
        return False
    qualname = attribute(handler, "__qualname__")
    return type(qualname) is str and "<" not in qualname and qualname != "_"


def is_same(one: object, other: object) -> bool:
    """Tell whether two callables are the same function, object, or method of the same object."""
    one, other = plain(one), plain(other)
    return one is other or (type(one) in _METHODS and type(one) is type(other) and one == other)


def plain(value: object) -> object:
    """Return the function of a staticmethod, and anything else as it is."""
    return value.__func__ if is_a(value, staticmethod) else value


def is_a(value: object, cls: type[C]) -> TypeGuard[C]:
    """Tell whether a value is of a class, by its type: `isinstance` also asks the value, and mocks and proxies lie."""
    return issubclass(type(value), cls)


def attribute(value: object, name: str) -> object:
    """Return an attribute, or None where there is none, or it cannot be had, as of a proxy of nothing."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def is_asynchronous(handler: object, name: str) -> bool:
    """Tell whether a call gives something to await; refuse a callable that a call does not run but only prepares.

    Args:
        handler: any callable.
        name: what messages call it, such as "handler app.save".

    Raises:
        HandlerTypeError: it is a generator function, plain or asynchronous, or an exception class.
    """
    for layer in _layers(handler):
        if is_class(layer) and any(base is BaseException for base in class_mro(layer)):
            raise HandlerTypeError(f"{name} is an exception class: a call makes an exception, which nobody raises")
        flags = _code_flags(layer)
        if flags & _CO_COROUTINE or _is_marked_as_coroutine(layer):
            return True
        if flags & _CO_ASYNC_GENERATOR:
            what = "an asynchronous generator function"
        elif flags & _CO_GENERATOR:
            what = "a generator function (it has a yield), which a call does not run"
        else:
            continue
        raise HandlerTypeError(f"{name} is {what}: what it is to do would not be done")
    return False


def _code_flags(layer: object) -> int:
    """Return the flags of a function's code; of a mock those of what it stands for, as far as it shows them."""
    flags = attribute(attribute(layer, "__code__"), "co_flags")
    return flags if type(flags) is int else 0


def _is_marked_as_coroutine(layer: object) -> bool:
    """Tell whether it bears a mark: of `inspect.markcoroutinefunction`, Cython, or a mock of an async def function."""
    for own, module, name in _MARKS:
        mark = attribute(imported(module), name)
        if mark is not None and attribute(layer, own) is mark:
            return True
    return False


def _layers(handler: object) -> Iterator[object]:
    """Yield a handler and what a call of it calls; not what it wraps, which the wrapper runs as it likes."""
    for _ in range(MAX_DEPTH):
        yield handler
        if is_a(handler, functools.partial):
            handler = handler.func
        elif is_a(handler, MethodType) or is_a(handler, staticmethod):
            handler = handler.__func__
        elif is_a(handler, FunctionType) or is_class(handler):
            return
        else:
            call = class_attribute(type(handler), "__call__")
            if not is_a(call, FunctionType):
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


def full_signature(handler: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of what the handler wraps."""
    import inspect

    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(handler, annotation_format=Format.FORWARDREF)
    return inspect.signature(handler)


def call_signature(handler: Callable[..., Any], name: str) -> inspect.Signature | None:
    """Return the signature of the handler itself, or of what it wraps when it is compiled and shows none.

    Args:
        handler: any callable.
        name: as for `is_asynchronous`.

    Raises:
        HandlerTypeError: it is a `functools.partial`, and what that fills does not fit what it calls.
    """
    for signature in (_bare_signature, full_signature):
        with contextlib.suppress(Exception):  # a __signature__ may be computed, and fail in any way
            return signature(handler)
    if is_a(handler, functools.partial) and (called := call_signature(handler.func, name)) is not None:
        try:
            called.bind_partial(*handler.args, **handler.keywords)
        except TypeError as error:
            raise HandlerTypeError(f"{name}, a partial, cannot be called at all: {error_says(error)}") from None
    return None


def event_parameter(signature: inspect.Signature, name: str, given: str = "the event") -> inspect.Parameter:
    """Return the parameter that receives the one argument of a call.

    Args:
        signature: of the callable.
        name: as for `is_asynchronous`.
        given: what messages call the argument.

    Raises:
        HandlerTypeError: one positional argument is wrong for it.
    """
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [short(p.name) for p in positional if p.default is p.empty]
    if len(needed) > 1:
        remedy = f"take {given} alone, or give parameter {needed[1]!r} a default"
        if len(needed) == 2 and needed[0] in METHOD_REMEDIES:
            remedy = METHOD_REMEDIES[needed[0]]
        names = short(", ".join(needed))
        raise HandlerTypeError(
            f"{name} needs {len(needed)} arguments ({names}), but is called with one, {given}: {remedy}"
        )
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty:
            keyword = repr(short(p.name))
            raise HandlerTypeError(
                f"{name} is called with one argument, {given}, but its keyword-only parameter {keyword} has no default"
            )
        if p.kind is p.VAR_POSITIONAL:
            positional.append(p)
    if not positional:
        raise HandlerTypeError(f"{name} takes no positional argument, but is called with one, {given}")
    return positional[0]


def class_attribute(cls: type, name: str) -> object:
    """Return an attribute of a class or its bases as it stands there, or None; runs no code of the class."""
    for base in class_mro(cls):
        if name in class_namespace(base):
            return class_namespace(base)[name]
    return None
