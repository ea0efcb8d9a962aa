"""Record types: event classes of a fixed binary layout, whose instances are stored in the queue itself.

A record type is declared by a class with annotated fields,

    @record
    class Trade:
        price: float64
        size: int32
        symbol: Annotated[bytes, 8] = b""

or made from a structured NumPy dtype, `Trade = record(dtype, name="Trade")`. A class is laid out as C lays out a
struct of the same fields, so that native handlers can read it as one; a dtype keeps its own layout.
"""

from __future__ import annotations

import struct
import sys
import typing
import weakref
from types import AsyncGeneratorType, CoroutineType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    TypeGuard,
    TypeVar,
    dataclass_transform,
    get_origin,
    overload,
)

from ringcast._core import Layout, Record, RecordBatch, RecordField
from ringcast.annotations import annotation_text
from ringcast.callables import class_attribute, is_a
from ringcast.errors import EventClassError, RecordError
from ringcast.events import brief, class_name, error_says, is_class, short, shown

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "record",
    "timestamp",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

T = TypeVar("T")

MAX_RECORD_SIZE = 4096  # bytes: a page of the queue has room for 512 records


class Scalar(NamedTuple):
    """What a field is: the character of the module `struct`, and of a time its kind and unit as NumPy has them."""

    code: str
    kind: str = ""
    unit: str | None = None


int8 = Annotated[int, Scalar("b")]
int16 = Annotated[int, Scalar("h")]
int32 = Annotated[int, Scalar("i")]
int64 = Annotated[int, Scalar("q")]
uint8 = Annotated[int, Scalar("B")]
uint16 = Annotated[int, Scalar("H")]
uint32 = Annotated[int, Scalar("I")]
uint64 = Annotated[int, Scalar("Q")]
float16 = Annotated[float, Scalar("e")]
float32 = Annotated[float, Scalar("f")]
float64 = Annotated[float, Scalar("d")]
timestamp = Annotated[int, Scalar("q", "M", "ns")]
"""Nanoseconds since 1970, an int; in NumPy datetime64[ns]."""

_PLAIN: dict[Any, Scalar] = {int: Scalar("q"), float: Scalar("d"), bool: Scalar("?")}
# By NumPy's kind and size. Its int64 and long long, and so on, are one to a record.
_NUMPY = {
    **{("i", size): code for size, code in zip((1, 2, 4, 8), "bhiq", strict=True)},
    **{("u", size): code for size, code in zip((1, 2, 4, 8), "BHIQ", strict=True)},
    **{("f", size): code for size, code in zip((2, 4, 8), "efd", strict=True)},
    ("b", 1): "?",
    ("M", 8): "q",
    ("m", 8): "q",
}

_declared: weakref.WeakSet[type[Record]] = weakref.WeakSet()


@overload
def record(declaration: type[T], /) -> type[T]: ...
@overload
def record(declaration: Any, /, *, name: str) -> type[Record]: ...
@dataclass_transform(frozen_default=True, eq_default=True)
def record(declaration: Any, /, *, name: str | None = None) -> Any:
    """Makes a record type: of a class with annotated fields, as a decorator, or of a structured NumPy dtype.

    Fields of a class are annotated with `int8` to `int64`, `uint8` to `uint64`, `float16` to `float64` or `timestamp`
    of this module, with `int` (64 bits), `float` (64 bits), `bool`, `Annotated[bytes, 8]` (8 bytes, shorter values are
    padded with zeros), or a NumPy scalar class; they may have defaults. The class may have methods, and an
    `__event_type__`. None can be derived from it. It may have one base class, Record, by which type checkers know
    `itemsize`, `format` and `dtype`: `class Trade(Record)`.

    Instances are made with the fields' values, in order or by name. They do not change.

    Args:
        declaration: the class, or the dtype. Fields of a dtype are numbers, bools, times or fixed bytes of the
            machine's byte order; not other dtypes, arrays or objects.
        name: of a dtype's record type.

    Returns:
        The record type, a subclass of `Record`. Beside its fields it has `itemsize` (bytes), `format` (as in PEP 3118)
        and `dtype` (imports NumPy).

    Raises:
        RecordError: a field is none of these, there is none, or a record would have more than 4,096 bytes.

    Thread-safe.
    """
    if is_class(declaration):
        if name is not None:
            raise RecordError("name= is for a dtype; a class has a name")
        return _from_class(declaration, sys._getframe(1))
    if getattr(declaration, "fields", None) is None or not hasattr(declaration, "itemsize"):
        raise RecordError(f"a record type is made of a class or a structured NumPy dtype, not {shown(declaration)}")
    if not isinstance(name, str) or not name.isidentifier():
        raise RecordError(f"the record type of a dtype needs a name, name='Trade', not {brief(name)}")
    return _from_dtype(declaration, name, sys._getframe(1).f_globals.get("__name__", "__main__"))


_AWAITED = {CoroutineType: "await it", AsyncGeneratorType: "publish each of its events, in an async for"}


def check_batch(events: object, event_class: object) -> tuple[type[Record], object] | None:
    """Find out whether what `publish_many` was given is a buffer of records.

    Args:
        events: anything.
        event_class: the record type they are to be of, or None: to be found by the array's dtype.

    Returns:
        The record type, and an object that has the records' bytes side by side as its buffer; None where `events` is to
        be iterated over.

    Raises:
        EventClassError: there is no such record type, or there are several; or the buffer is not of it.
    """
    if event_class is not None and not is_record_type(event_class):
        raise EventClassError(
            "publish_many takes one iterable of events; what may follow it is the record type of an array or buffer, "
            f"not {shown(event_class)}"
        )
    if isinstance(events, (RecordBatch, Record)):
        found = events.record_class if isinstance(events, RecordBatch) else type(events)
        if event_class not in (None, found):
            raise EventClassError(f"these are records of {class_name(found)}, not of {class_name(event_class)}")
        return found, events
    dtype = getattr(events, "dtype", None)
    if event_class is None and getattr(dtype, "names", None) is None:
        if not any(class_attribute(type(events), name) for name in ("__iter__", "__getitem__")):
            remedy = next((way for kind, way in _AWAITED.items() if is_a(events, kind)), "publish takes one")
            raise EventClassError(f"publish_many takes an iterable of events, not {shown(events)}: {remedy}")
        return None
    if event_class is None:
        event_class = _declared_as(dtype)
    elif dtype is None:
        return event_class, _raw(events, event_class)
    elif dtype != event_class.dtype:
        raise EventClassError(f"an array of {dtype} has no records of {class_name(event_class)}: {event_class.dtype}")
    dimensions = getattr(events, "ndim", None)
    if dimensions != 1:
        raise EventClassError(f"records are published from an array of one dimension, not {dimensions}")
    import numpy

    # as bytes, because NumPy makes no buffer of times
    return event_class, numpy.ascontiguousarray(events).view(numpy.uint8)


def is_record_type(value: object) -> TypeGuard[type[Record]]:
    return is_class(value) and issubclass(value, Record) and value is not Record


def _raw(events: Any, event_class: type[Record]) -> memoryview:
    try:
        view = memoryview(events)
    except TypeError:
        raise EventClassError(
            f"records of {class_name(event_class)} are published from a buffer of their bytes, not {shown(events)}"
        ) from None
    if view.format != event_class.format and view.format.lstrip("<>=@!") not in ("B", "b", "c"):
        raise EventClassError(
            f"a buffer of format {view.format!r} has no records of {class_name(event_class)}: {event_class.format!r}"
        )
    if not view.c_contiguous:
        raise EventClassError("records are published from a contiguous buffer")
    if view.nbytes % event_class.itemsize:
        raise EventClassError(
            f"{view.nbytes} bytes are no whole number of records of {class_name(event_class)}, "
            f"which have {event_class.itemsize} each"
        )
    return view


def _declared_as(dtype: Any) -> type[Record]:
    """The one record type that has this dtype."""
    found = [each for each in list(_declared) if each.dtype == dtype]
    if len(found) == 1:
        return found[0]
    if not found:
        raise EventClassError(f"dtype {dtype} is that of no record type: declare one with record(dtype, name=...)")
    names = " or ".join(sorted({class_name(each) for each in found}))
    # in a notebook a cell that runs again declares its record type again
    raise EventClassError(
        f"dtype {dtype} is that of {len(found)} record types, {names}: say which, publish_many(array, RecordType)"
    )


# --- making the class ------------------------------------------------------------------------------------------


def _from_class(declaration: type, frame: FrameType) -> type[Record]:
    (base, *others) = declaration.__bases__
    if "__layout__" in declaration.__dict__ or others or (base is not object and base is not Record):
        raise RecordError(f"a record type has no base class but Record; {class_name(declaration)} has")
    try:
        hints = typing.get_type_hints(declaration, None, _Locals(frame), include_extras=True)
    except Exception as error:  # an annotation is any expression
        raise RecordError(
            f"the annotations of {class_name(declaration)} cannot be resolved: {error_says(error)}"
        ) from error
    fields, defaults, offset, alignment = [], [], 0, 1
    for name, hint in hints.items():
        if get_origin(hint) is ClassVar or hint is ClassVar:
            continue
        scalar, size = _scalar(declaration, name, hint)
        needed = 1 if scalar.code == "s" else size
        alignment = max(alignment, needed)
        offset = -(-offset // needed) * needed
        fields.append(RecordField(name, offset, size, *scalar))
        offset += size
        if name in declaration.__dict__:
            defaults.append(declaration.__dict__[name])
        elif defaults:
            raise RecordError(f"{_field_name(declaration, name)} needs a default, as fields before it have one")
    namespace = {
        name: value
        for name, value in declaration.__dict__.items()
        if name not in hints or get_origin(hints[name]) is ClassVar
        if name not in ("__dict__", "__weakref__")
    }
    namespace["__qualname__"] = declaration.__qualname__
    size = -(-offset // alignment) * alignment
    return _make(declaration.__name__, namespace, fields, tuple(defaults), size)


def _field_name(declaration: type, name: str) -> str:
    """What messages call a field."""
    return f"{class_name(declaration)}.{short(name)}"


def _scalar(declaration: type, name: str, hint: Any) -> tuple[Scalar, int]:
    """What a field is annotated as, and its size."""
    for plain, scalar in _PLAIN.items():
        if hint is plain:  # not `in`: any object may stand there
            return scalar, struct.calcsize(scalar.code)
    if get_origin(hint) is Annotated:
        base, mark = hint.__origin__, hint.__metadata__[0]
        if isinstance(mark, Scalar):
            return mark, struct.calcsize(mark.code)
        if base is bytes and type(mark) is int and mark > 0:
            if mark > MAX_RECORD_SIZE:
                where = _field_name(declaration, name)
                raise RecordError(f"{where} is of {brief(mark)} bytes; {MAX_RECORD_SIZE} is the most for a record")
            return Scalar("s"), mark
    if is_class(hint) and hint.__module__ == "numpy":
        import numpy

        return _numpy_scalar(numpy.dtype(hint), _field_name(declaration, name))
    raise RecordError(
        f"{_field_name(declaration, name)} is annotated {annotation_text(hint)}: a field is an int, float, bool, "
        "one of the sizes of ringcast.records (int32, float64, timestamp ...), or Annotated[bytes, SIZE]"
    )


def _from_dtype(dtype: Any, name: str, module: str) -> type[Record]:
    fields = []
    for field in dtype.names:
        field_type, offset = dtype.fields[field][:2]
        if not field.isidentifier():
            raise RecordError(f"field {field!r} of {dtype} is no name for an attribute")
        scalar, size = _numpy_scalar(field_type, f"field {field!r} of {name}")
        fields.append(RecordField(field, offset, size, *scalar))
    fields.sort(key=lambda field: field.offset)
    made = _make(name, {"__module__": module, "__qualname__": name}, fields, (), dtype.itemsize)
    made.__layout__.dtype = dtype
    return made


def _numpy_scalar(dtype: Any, what: str) -> tuple[Scalar, int]:
    if dtype.kind == "S" and dtype.itemsize:
        return Scalar("s"), dtype.itemsize
    code = _NUMPY.get((dtype.kind, dtype.itemsize))
    if dtype.str[1:] in ("M8", "m8"):  # of no unit: numbers that say nothing
        code = None
    if code is None or not dtype.isnative or dtype.subdtype is not None:
        raise RecordError(
            f"{what} is a {dtype}: a field is a number, a bool, a time or fixed bytes, in the machine's byte order"
        )
    if dtype.kind in "Mm":
        import numpy

        unit, count = numpy.datetime_data(dtype)
        return Scalar(code, dtype.kind, unit if count == 1 else f"{count}{unit}"), 8
    return Scalar(code), dtype.itemsize


def _make(
    name: str, namespace: dict[str, Any], fields: list[RecordField], defaults: tuple[object, ...], size: int
) -> type[Record]:
    if not fields:
        raise RecordError(f"{short(name)} has no fields")
    if size > MAX_RECORD_SIZE:
        raise RecordError(f"a record of {short(name)} has {size} bytes; {MAX_RECORD_SIZE} is the most")
    end = 0
    for field in fields:
        if field.offset < end:
            raise RecordError(f"field {field.name!r} of {name} overlaps another one")
        if field.name in _TAKEN or (field.name.startswith("__") and field.name.endswith("__")):
            raise RecordError(f"{field.name!r} is no name for a field: record types have an attribute of that name")
        end = field.offset + field.size
    layout = Layout(size, _format(fields, size).encode(), tuple(fields), defaults)
    for field, default in zip(fields[len(fields) - len(defaults) :], defaults, strict=True):
        try:
            field.check(default)
        except (TypeError, ValueError, OverflowError) as error:
            raise RecordError(f"the default of {name}.{field.name}: {error_says(error)}") from None
    namespace = {
        **namespace,
        **{field.name: field for field in fields},
        "__slots__": (),
        "__layout__": layout,
        "__match_args__": tuple(field.name for field in fields),
        "itemsize": size,
        "format": layout.format.decode(),
        "dtype": _Dtype(),
        "__signature__": _Signature(),
        "__init_subclass__": classmethod(_refuse_subclass),
    }
    made: type[Record] = type(name, (Record,), namespace)
    layout.bind(made)
    _declared.add(made)
    return made


_TAKEN = ("itemsize", "format", "dtype")


def _refuse_subclass(cls: type, /, **_: object) -> None:
    raise RecordError(f"{class_name(cls.__mro__[1])} is a record type: none can be derived from it")


def _format(fields: list[RecordField], size: int) -> str:
    """The layout as in PEP 3118: native sizes without alignment, the gaps as padding."""
    parts, end = [], 0
    for field in fields:
        parts += [f"{field.offset - end}x"] if field.offset > end else []
        parts.append(f"{field.size}s:{field.name}:" if field.format == "s" else f"={field.format}:{field.name}:")
        end = field.offset + field.size
    parts += [f"{size - end}x"] if size > end else []
    return f"T{{{''.join(parts)}}}"


class _Dtype:
    """The NumPy dtype of a record class, made when it is asked for."""

    def __get__(self, instance: object, owner: type[Record]) -> Any:
        layout = owner.__layout__
        if layout.dtype is None:
            layout.dtype = _dtype(layout)
        return layout.dtype


class _Signature:
    """What `inspect.signature` gives of a record class, made when it is asked for: `inspect` takes long to import."""

    def __get__(self, instance: object, owner: type[Record]) -> Any:
        from inspect import Parameter, Signature

        layout = owner.__layout__
        first = len(layout.fields) - len(layout.defaults)
        parameters = [
            Parameter(
                field.name,
                Parameter.POSITIONAL_OR_KEYWORD,
                default=layout.defaults[at - first] if at >= first else Parameter.empty,
                annotation=bytes if field.format == "s" else _PYTHON.get(field.format, int),
            )
            for at, field in enumerate(layout.fields)
        ]
        return Signature(parameters)


_PYTHON = {"e": float, "f": float, "d": float, "?": bool}  # what a field of this format is read as, else an int


def _dtype(layout: Layout) -> Any:
    import numpy

    formats = []
    for field in layout.fields:
        kind = field.kind or field.format
        size = field.size if kind == "s" else struct.calcsize(field.format)
        formats.append(f"{kind}8[{field.unit}]" if field.kind else f"S{size}" if kind == "s" else f"={kind}")
    return numpy.dtype(
        {
            "names": [field.name for field in layout.fields],
            "formats": formats,
            "offsets": [field.offset for field in layout.fields],
            "itemsize": layout.size,
        }
    )


class _Locals(dict[str, Any]):
    """The variables of the function in which a class is declared, looked up where an annotation asks for them."""

    def __init__(self, frame: FrameType) -> None:
        super().__init__()
        self._frame = frame

    def __missing__(self, name: str) -> object:
        return self._frame.f_locals[name]
