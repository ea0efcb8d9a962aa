"""Event classes and their type ids.

Every class can be an event class. Its type id comes from one of three places, and the class of the method
resolution order that is nearest decides:

* it is *stated*: ``__event_type__ = 0x01`` in the class or in a base class. The id belongs to the class that
  states it, its *owner*;
* it is *computed by the instance*: ``__event_type__`` is a descriptor (a property, a slot), or only
  annotated;
* it is *automatic*: nothing of the kind is found. The class gets a number from the upper half of the range,
  which no other class of the process gets, and which its subclasses do not inherit.

The questions are put to the class's own dictionaries, never to its attributes: a metaclass, or a base class
with a `__getattr__`, has no say, and no code of the class is run (except the `__index__` of a stated id).
"""

from __future__ import annotations

import operator
import os
import threading
import types
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeGuard, Union

from ringcast.errors import EventClassError, TypeIdError

__all__ = [
    "Identity",
    "brief",
    "check_event_class",
    "check_one_class",
    "check_type_id",
    "class_mro",
    "class_name",
    "class_names",
    "class_namespace",
    "defines",
    "error_says",
    "error_text",
    "event_classes",
    "full_class_name",
    "identify",
    "is_class",
    "is_defined_again",
    "is_several",
    "is_union",
    "joined_names",
    "no_class_hint",
    "plain_int",
    "short",
    "shown",
    "type_id",
]

_ATTRIBUTE: Final = "__event_type__"
_MAX_TYPE_ID: Final = 0xFFFF_FFFF
_FIRST_AUTOMATIC: Final = 0x8000_0000
_BRIEF: Final = 80  # characters, as the two below
_NAME: Final = 200
ERROR_TEXT: Final = 500
_SHOWN_CLASSES: Final = 5  # of several, in messages and metrics

# What `type` itself answers, whatever the metaclass of the class makes of these names.
_namespace_of = type.__dict__["__dict__"].__get__
_mro_of = type.__dict__["__mro__"].__get__
_name_of = type.__dict__["__name__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


class Identity(NamedTuple):
    """What a class says about the type id of its events.

    `type_id` is the id, or None when every instance computes its own. `owner` is the class the id belongs
    to: the one that states it, or for an automatic id the class itself; for None the class that says so.
    `automatic` tells whether nobody stated the id, so that it ends with its class.
    """

    type_id: int | None
    owner: type
    automatic: bool = False


def is_class(value: object) -> TypeGuard[type]:
    """Tell whether `value` is a class, also when it lies about its ``__class__``."""
    return issubclass(type(value), type)


def class_mro(cls: type) -> tuple[type, ...]:
    """Return the method resolution order of `cls` without asking its metaclass."""
    mro: tuple[type, ...] = _mro_of(cls)
    return mro


def class_namespace(cls: type) -> Mapping[str, Any]:
    """Return the dictionary of `cls` itself, read-only, without asking its metaclass."""
    namespace: Mapping[str, Any] = _namespace_of(cls)
    return namespace


def class_name(cls: type) -> str:
    """Return ``module.qualname`` of `cls` for messages, shortened, without asking its metaclass."""
    return short(full_class_name(cls))


def full_class_name(cls: type) -> str:
    """Return the same, however long, to tell classes apart."""
    module = class_namespace(cls).get("__module__", "builtins")
    name = str(_qualname_of(cls))
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def joined_names(names: list[str]) -> str:
    """Return the names of several classes as one, the first of them where they are many."""
    if len(names) > _SHOWN_CLASSES:
        shown_here = _SHOWN_CLASSES - 1
        names = [*names[:shown_here], f"{len(names) - shown_here} more"]
    return " | ".join(names)


def class_names(event_class: type | tuple[type, ...]) -> str:
    """Return the name of a class, or the names of several, for messages."""
    classes: Any = event_class if type(event_class) is tuple else (event_class,)
    return joined_names([class_name(cls) for cls in classes])


def is_defined_again(former: type, cls: type) -> bool:
    """Tell whether a class takes the place of another: a cell of a notebook or a module that was run again.

    That is a class of the same module and name; but neither a subclass of the other, nor one whose name tells that it
    stands in a function, which may make another at each call.
    """
    name = full_class_name(cls)
    if former is cls or name != full_class_name(former) or "<locals>" in name:
        return False
    related = (*class_mro(cls), *class_mro(former))  # compared by identity: a metaclass may define __eq__
    return sum(each is cls or each is former for each in related) == 2


def identify(event_class: type) -> Identity:
    """Tell where the type id of the instances of a class comes from.

    Args:
        event_class: any class.

    Returns:
        Its `Identity`. An automatic id is given out by the first call and stays the same for as long as the
        class lives; no id is given out twice. The class is not kept alive.

    Raises:
        EventClassError: `event_class` is not a class.
        TypeIdError: the class states something that is neither a type id nor a descriptor; or all automatic
            ids are used up.

    May be called by any number of threads at once.
    """
    check_event_class(event_class)
    for cls in class_mro(event_class):
        namespace = class_namespace(cls)
        if _ATTRIBUTE in namespace:
            stated = namespace[_ATTRIBUTE]
            if defines(type(stated), "__get__"):
                return Identity(None, cls)
            try:
                return Identity(check_type_id(stated), cls)
            except TypeIdError as error:
                raise TypeIdError(f"{_ATTRIBUTE} of {class_name(cls)}: {error}") from error
        if _annotates(namespace):
            return Identity(None, cls)
    return Identity(_automatic_id(event_class), event_class, automatic=True)


def type_id(event_class: type) -> int:
    """Return the type id of the events of a class.

    Args:
        event_class: a class whose id is stated (also by a base class) or automatic.

    Returns:
        The id, from 0 to 0xFFFF_FFFF. Automatic ids start at 0x8000_0000.

    Raises:
        EventClassError: `event_class` is not a class; or it is several.
        TypeIdError: the instances of the class compute the id, or the class states one that is out of range.

    May be called by any number of threads at once.
    """
    check_one_class(event_class, "a type id")
    identity = identify(event_class)
    if identity.type_id is None:
        is_field = _annotates(class_namespace(identity.owner))
        hint = "; if all have one id, annotate it ClassVar[int] and give it a value" if is_field else ""
        raise TypeIdError(
            f"{class_name(event_class)} has no type id of its own: each instance computes one "
            f"({_ATTRIBUTE} of {class_name(identity.owner)}); subscribe to the id itself with subscribe_to{hint}"
        )
    return identity.type_id


def is_union(value: object) -> bool:
    """Tell whether `value` is `A | B`, `Union[A, B]` or `Optional[A]`."""
    return issubclass(type(value), types.UnionType) or (not is_class(value) and _origin(value) is Union)


def is_several(value: object) -> bool:
    """Tell whether `value` is meant as several classes, but not given as a tuple."""
    return issubclass(type(value), list | set | frozenset) or is_union(value)


def _origin(value: object) -> object:
    try:
        return getattr(value, "__origin__", None)
    except Exception:  # a proxy whose attributes cannot be had
        return None


def check_event_class(value: object) -> None:
    """Check that `value` is a class.

    Raises:
        EventClassError: it is something else. For `Box[int]` the message names `Box`; for a union or a list it tells
            how several classes are given, for an int what takes type ids, and for a str that events have no names.
    """
    if value is Any:  # which is a class since Python 3.11
        raise EventClassError("Any is no event class: subscribe(object, handler) is to the events of all classes")
    if not is_class(value):
        raise EventClassError(f"an event class is a class, not {shown(value)}{no_class_hint(value)}")


def no_class_hint(value: object) -> str:
    """Say what may have been meant with what is given as an event class, and is no class; or nothing."""
    if is_several(value):
        return ": several classes are given as a tuple, (First, Second)"
    if type(value) is int:
        return ": a type id is subscribed to with subscribe_to"
    if issubclass(type(value), str):
        return ": events are told apart by class, not by name"
    origin = _origin(value)
    name = origin.__name__ if is_class(origin) else ""
    return f": the instances of all {name}[...] are of class {name}" if name else ""


def check_one_class(value: object, what: str) -> None:
    """Check that `value` is not meant as several classes, where `what` is of one.

    Raises:
        EventClassError: it is a union, a tuple, a list or a set.
    """
    if is_several(value) or issubclass(type(value), tuple):
        raise EventClassError(f"an event class is a class, not {shown(value)}: {what} is of one, so ask for each")


def event_classes(value: object) -> tuple[type, ...]:
    """Return the classes that a subscription is told.

    Args:
        value: a class, or a tuple of classes, each of which counts once.

    Raises:
        EventClassError: it is something else, or has something else in it, or is empty.
    """
    if not issubclass(type(value), tuple):  # not isinstance, which asks the metaclass of a class
        check_event_class(value)
        return (value,)  # type: ignore[return-value]
    classes: tuple[type, ...] = tuple(value)  # type: ignore[arg-type]
    for each in classes:
        check_event_class(each)
    if not classes:
        raise EventClassError("a subscription is to one class at least, and the tuple is empty")
    return tuple({id(each): each for each in classes}.values())  # by address: metaclasses may define __eq__


def check_type_id(value: object) -> int:
    """Return `value` as a type id.

    Args:
        value: an integer from 0 to 0xFFFF_FFFF, or an object whose ``__index__`` gives one. Not a bool: a
            truth value in the place of an id is a mistake.

    Returns:
        A plain int.

    Raises:
        TypeIdError: `value` is anything else.
    """
    number = plain_int(value)
    if number is None or not 0 <= number <= _MAX_TYPE_ID:
        raise TypeIdError(f"a type id is an integer from 0 to 0xFFFFFFFF, not {shown(value)}")
    return number


def plain_int(value: object) -> int | None:
    """Return an integer of any class, as one of NumPy, as a plain int.

    Returns:
        None for a bool, which in the place of a number is a mistake, and for what is no integer, or fails to be one.
    """
    if type(value) is int:
        return value
    if type(value) is bool or not defines(type(value), "__index__"):
        return None
    try:
        # int.__int__, because what comes out may be a subclass of int with comparisons of its own
        return int.__int__(operator.index(value))  # type: ignore[arg-type]
    except Exception:  # of its __index__
        return None


def short(text: str, most: int = _NAME) -> str:
    """Return a text, or its beginning and its end where it has more than `most` characters."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 3]}...{text[-end:]}"


def brief(value: object, most: int = _BRIEF) -> str:
    """Return what `repr` says, at most `most` characters of it, or where that fails what it is an instance of."""
    try:
        text = str.__str__(repr(value))  # which may be an instance of a subclass
    except KeyboardInterrupt:
        raise
    except BaseException:  # a message must come out, whatever a __repr__ does
        return f"an instance of {class_name(type(value))}"
    return text if len(text) <= most else text[: most - 3] + "..."


def shown(value: object) -> str:
    """Return a short text for `value` and its class for messages. Raises nothing but a Ctrl-C."""
    if is_class(value):
        return f"class {class_name(value)}"
    text, name = brief(value), class_name(type(value))
    return text if text == f"an instance of {name}" else f"{text} ({name})"


def error_says(error: BaseException) -> str:
    """Return what `str` says of an exception, shortened; where that fails what Python's tracebacks say then."""
    try:
        return short(str.__str__(str(error)), ERROR_TEXT)
    except KeyboardInterrupt:
        raise
    except BaseException:  # as in `brief`
        return "<exception str() failed>"


def error_text(error: BaseException) -> str:
    """Return the class and the text of an exception for messages, as the last line of a traceback has them."""
    name, text = short(_name_of(type(error))), error_says(error)
    return f"{name}: {text}" if text else name


def defines(cls: type, name: str) -> bool:
    """Tell whether `cls` or a base of it has `name` in its own dictionary."""
    # publish with a timeout comes here: any() with a generator takes twice as long, and crashes 3.12 without memory
    for base in class_mro(cls):  # noqa: SIM110
        if name in class_namespace(base):
            return True
    return False


def _annotates(namespace: Mapping[str, Any]) -> bool:
    """Tell whether a class body annotates the attribute, without evaluating any annotation."""
    for key in ("__annotations__", "__annotations_cache__"):
        annotations = namespace.get(key)
        if isinstance(annotations, dict) and _ATTRIBUTE in annotations:
            return True
    # Since Python 3.14 a class keeps a function that makes its annotations. The names it would put into the
    # dictionary are among its constants, so that it need not be called: that would evaluate the annotations.
    for key in ("__annotate_func__", "__annotate__"):
        annotate = namespace.get(key)
        if isinstance(annotate, FunctionType) and _ATTRIBUTE in annotate.__code__.co_consts:
            return True
    return False


class _Automatic(weakref.ref[type]):
    """The automatic id of one class, kept until the class dies."""

    __slots__ = ("address", "type_id")

    address: int
    type_id: int


# By the address of the class, because a metaclass may define __eq__ and __hash__. An entry goes when its
# class dies, and an entry counts only if its reference still leads to the class asked about, so that a
# class that is born at the address of a dead one never gets the dead one's id.
_automatic: Final[dict[int, _Automatic]] = {}
# Reentrant: the garbage collector may run `_forget` in a thread that is just adding an entry.
_lock: Final = threading.RLock()
if hasattr(os, "register_at_fork"):  # no child inherits it from a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_next_automatic = _FIRST_AUTOMATIC


def _forget(
    dead: _Automatic,
    # Bound here because module globals may be gone when the last classes die at interpreter exit.
    entries: dict[int, _Automatic] = _automatic,
    lock: AbstractContextManager[bool] = _lock,
) -> None:
    with lock:
        if dead.address in entries and entries[dead.address] is dead:  # not `get`: see `_given`
            del entries[dead.address]


def _given(cls: type) -> int | None:
    """Return the automatic id of `cls`, or None when it has none yet."""
    # Without the lock: an entry is complete before it can be found, and stays for as long as its class lives,
    # which the caller sees to.
    # Not `get`: on free-threaded Python 3.13 that holds the dictionary's mutex while it looks a key up, and may
    # want it again where another thread made the key. It then waits for itself, for dozens of turns.
    try:
        entry = _automatic[id(cls)]
    except KeyError:
        return None
    return entry.type_id if entry() is cls else None


def _automatic_id(cls: type) -> int:
    """Return the automatic id of `cls`; give one out when it has none yet."""
    global _next_automatic
    if (given := _given(cls)) is not None:
        return given
    address = id(cls)
    with _lock:
        if (given := _given(cls)) is not None:  # by another thread, meanwhile
            return given
        if _next_automatic > _MAX_TYPE_ID:
            raise TypeIdError(f"no automatic type id is left for {class_name(cls)}: state one ({_ATTRIBUTE})")
        entry = _Automatic(cls, _forget)
        entry.address = address
        entry.type_id = _next_automatic
        _next_automatic += 1
        _automatic[address] = entry
        return entry.type_id
