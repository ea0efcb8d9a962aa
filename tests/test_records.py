"""Records: event classes of a fixed binary layout, whose instances are stored in the queue itself.

What they are, how they are declared, and how they are published and delivered. What NumPy and others make of them is in
test_record_arrays.py.
"""

from __future__ import annotations

import asyncio
import collections.abc
import copy
import ctypes
import gc
import inspect
import json
import math
import operator
import pickle
import struct
import sys
import threading
import weakref
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pytest

from ringcast import (
    ClosedError,
    Dispatcher,
    EventClassError,
    PublishTimeoutError,
    QueueFullError,
    Record,
    RecordBatch,
    RecordError,
    Subscription,
    record,
)
from ringcast.records import (
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    timestamp,
    uint8,
    uint16,
    uint32,
    uint64,
)


@record
class Trade:
    """A price and what it was paid for."""

    price: float64
    size: int32
    symbol: Annotated[bytes, 4] = b"none"

    scale: ClassVar[int] = 100

    def value(self) -> float:
        return self.price * self.size


@record
class Number:
    """The smallest record with a place for its number."""

    number: int64


@record
class Large:
    number: int64
    rest: Annotated[bytes, 4088]


class Outer:
    @record
    class Nested:
        number: int


def numbers(count, start=0):
    return [Number(number) for number in range(start, start + count)]


def packed(count, start=0):
    return struct.pack(f"={count}q", *range(start, start + count))


def values(batches):
    return [each.number for batch in batches for each in batch]


# --- declaration ---

FIELDS = [
    (int8, "b", ctypes.c_int8, -128, 127),
    (int16, "h", ctypes.c_int16, -(2**15), 2**15 - 1),
    (int32, "i", ctypes.c_int32, -(2**31), 2**31 - 1),
    (int64, "q", ctypes.c_int64, -(2**63), 2**63 - 1),
    (uint8, "B", ctypes.c_uint8, 0, 255),
    (uint16, "H", ctypes.c_uint16, 0, 2**16 - 1),
    (uint32, "I", ctypes.c_uint32, 0, 2**32 - 1),
    (uint64, "Q", ctypes.c_uint64, 0, 2**64 - 1),
    (float32, "f", ctypes.c_float, -1.5, 3.0e38),
    (float64, "d", ctypes.c_double, -1e300, math.inf),
    (timestamp, "q", ctypes.c_int64, -(2**63), 2**63 - 1),
    (int, "q", ctypes.c_int64, -(2**63), 2**63 - 1),
    (float, "d", ctypes.c_double, -1e300, math.inf),
    (bool, "?", ctypes.c_bool, False, True),
]


def declare(name, **annotations):
    return record(type(name, (), {"__annotations__": annotations, "__module__": __name__}))


@pytest.mark.parametrize(("annotation", "code", "ctype", "least", "most"), FIELDS)
def test_a_field_of_each_kind(annotation, code, ctype, least, most):
    made = declare("Made", field=annotation)
    assert made.itemsize == ctypes.sizeof(ctype)
    for value in (least, most, 0):
        instance = made(value)
        expected = ctype(value).value
        assert instance.field == expected
        assert type(instance.field) is type(expected)
        assert bytes(instance) == struct.pack(f"={code}", value)
    assert made.field.format == code
    assert (made.field.name, made.field.offset, made.field.size) == ("field", 0, made.itemsize)
    if isinstance(least, int) and not isinstance(least, bool):
        for wrong in (least - 1, most + 1):
            with pytest.raises(ValueError, match=f"Made.field: an int from {least} to {most} is needed, not {wrong}"):
                made(wrong)


def test_half_precision():
    made = declare("Made", field=float16)
    assert made.itemsize == 2
    assert made(1.5).field == 1.5
    assert math.isnan(made(math.nan).field)
    assert bytes(made(65504.0)) == struct.pack("e", 65504.0)


@pytest.mark.parametrize(("annotation", "value"), [(float16, 1e6), (float32, 1e39), (float32, -1e300)])
def test_a_number_too_large_for_a_float_field(annotation, value):
    with pytest.raises(OverflowError, match=r"Made\.field"):
        declare("Made", field=annotation)(value)
    assert declare("Made", field=annotation)(math.inf).field == math.inf


@pytest.mark.parametrize("value", ["text", None, b"1", 1.5])
def test_a_value_of_another_type(value):
    with pytest.raises(TypeError, match=r"Made\.field"):
        declare("Made", field=int32)(value)
    if value != 1.5:
        with pytest.raises(TypeError, match=r"Made\.field"):
            declare("Made", field=float)(value)
    with pytest.raises(TypeError, match=r"Made\.field: True or False is needed"):
        declare("Made", field=bool)(value)


def test_fixed_bytes_are_padded_with_zeros():
    made = declare("Made", field=Annotated[bytes, 4])
    assert made(b"ab").field == b"ab"
    assert bytes(made(b"ab")) == b"ab\0\0"
    assert made(b"abcd").field == b"abcd"
    assert made(b"a\0\0").field == b"a"  # as in NumPy
    assert made(b"\0a").field == b"\0a"
    assert made(bytearray(b"x")) == made(memoryview(b"x")) == made(b"x")
    with pytest.raises(ValueError, match="4 bytes are the most, not 5"):
        made(b"abcde")
    with pytest.raises(TypeError, match=r"Made\.field"):
        made("text")


@pytest.mark.parametrize(
    "codes", ["bq", "bhiq", "qb", "?d?", "fbd", "BIHQ", "bbbh", "dqb", "hf", "b?h", "qqqqqb", "iiiiiiiiiiiib"]
)
def test_a_class_is_laid_out_as_c_lays_out_a_struct(codes):
    by_code = {code: (annotation, ctype) for annotation, code, ctype, *_ in FIELDS}
    names = [f"field{number}" for number in range(len(codes))]
    made = declare("Made", **{name: by_code[code][0] for name, code in zip(names, codes, strict=True)})

    class Struct(ctypes.Structure):
        _fields_ = [(name, by_code[code][1]) for name, code in zip(names, codes, strict=True)]

    assert made.itemsize == ctypes.sizeof(Struct)
    for name in names:
        assert getattr(made, name).offset == getattr(Struct, name).offset
    instance = made(*[number % 2 for number in range(len(codes))])
    theirs = Struct.from_buffer_copy(instance)
    for name in names:
        assert getattr(theirs, name) == getattr(instance, name)


def test_bytes_are_aligned_as_char_arrays():
    class Struct(ctypes.Structure):
        _fields_ = [("a", ctypes.c_int16), ("b", ctypes.c_char * 3), ("c", ctypes.c_int32)]

    made = declare("Made", a=int16, b=Annotated[bytes, 3], c=int32)
    assert (made.itemsize, made.c.offset, made.b.offset) == (ctypes.sizeof(Struct), Struct.c.offset, Struct.b.offset)


def test_padding_is_zero():
    made = declare("Made", small=int8, large=int64)
    assert bytes(made(1, 2)) == struct.pack("=b7xq", 1, 2)
    assert made.format == "T{=b:small:7x=q:large:}"


def test_what_a_declared_class_keeps():
    assert Trade.__name__ == Trade.__qualname__ == "Trade"
    assert Trade.__module__ == __name__
    assert Trade.__doc__ == "A price and what it was paid for."
    assert Trade.scale == 100
    assert Trade(2.0, 3).value() == 6.0
    assert Trade.__match_args__ == ("price", "size", "symbol")
    assert issubclass(Trade, Record)
    assert Trade.itemsize == 16
    assert Outer.Nested.__qualname__ == "Outer.Nested"


def test_defaults():
    assert Trade(1.0, 2) == Trade(1.0, 2, b"none") == Trade(size=2, price=1.0)
    with pytest.raises(TypeError, match="Trade needs a value for 'size'"):
        Trade(1.0)

    with pytest.raises(RecordError, match=r"Bad\.b needs a default"):

        @record
        class Bad:
            a: int = 1
            b: int

    with pytest.raises(RecordError, match=r"the default of Worse\.a"):

        @record
        class Worse:
            a: int8 = 1000


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((1.0, 2, b"", 4), {}, "takes 3 values"),
        ((1.0, 2), {"price": 2.0}, "two values for 'price'"),
        ((1.0, 2), {"volume": 2.0}, "no field 'volume'"),
        ((), {}, "needs a value for 'price'"),
        ((1.0,), {"volume": 2.0}, "no field 'volume'"),
    ],
)
def test_wrong_arguments(arguments, named, message):
    with pytest.raises(TypeError, match=message):
        Trade(*arguments, **named)


def test_local_classes_see_local_names():
    local_type = uint16
    Letters = Annotated[bytes, 3]

    @record
    class Local:
        number: local_type
        letters: Letters

    assert Local.itemsize == 6
    assert Local.number.format == "H"


def test_the_signature_of_a_record_class_is_that_of_its_fields():
    class Priced:
        price: float64
        size: int32
        urgent: bool = False
        symbol: Annotated[bytes, 8] = b""

    made = record(Priced)
    assert str(inspect.signature(made)) == "(price: float, size: int, urgent: bool = False, symbol: bytes = b'')"
    assert inspect.signature(made).bind(1.5, 3, symbol=b"XN").arguments == {"price": 1.5, "size": 3, "symbol": b"XN"}
    with pytest.raises(TypeError):
        inspect.signature(made).bind(1.5)
    assert made(1.5, 3) == made(1.5, 3)


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        raise ZeroDivisionError

    def __repr__(self):
        return "an unhashable one"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (str, "is annotated"),
        (bytes, "is annotated"),
        (list[int], "is annotated"),
        (Annotated[bytes, 0], "is annotated"),
        (Annotated[bytes, -1], "is annotated"),
        (Annotated[bytes, "4"], "is annotated"),
        (Annotated[str, 4], "is annotated"),
        (int | None, "is annotated"),
        (None, "is annotated"),
        (object, "is annotated"),
        (Trade, "is annotated"),
        ("Missing", "cannot be resolved"),
        (Annotated[bytes, 4097], "4097 bytes; 4096 is the most"),
        (Annotated[bytes, 2**70], "[0-9]{22} bytes; 4096 is the most"),
        (Annotated[bytes, 10**5000], "of an instance of int bytes; 4096 is the most"),
        (Unhashable(), "is annotated an unhashable one: a field is"),
    ],
)
def test_fields_that_have_no_fixed_layout(annotation, message):
    with pytest.raises(RecordError, match=message):
        declare("Made", field=annotation)


@pytest.mark.parametrize("name", ["itemsize", "format", "dtype", "__layout__", "__class__", "__init__"])
def test_names_that_no_field_may_have(name):
    with pytest.raises(RecordError, match="no name for a field"):
        declare("Made", **{name: int})


def test_a_class_without_fields():
    with pytest.raises(RecordError, match="Empty has no fields"):

        @record
        class Empty:
            pass


def test_a_record_type_has_no_base_class_and_is_none():
    with pytest.raises(RecordError, match="no base class"):

        @record
        class Derived(Outer):
            number: int

    with pytest.raises(RecordError, match="none can be derived"):

        class Finer(Trade):
            pass

    with pytest.raises(RecordError, match="no base class"):
        record(Trade)

    with pytest.raises(RecordError, match="no base class"):

        @record
        class Both(Record, Generic[TypeVar("T")]):
            number: int


def test_a_declaration_may_have_record_as_its_base_class_for_type_checkers(bus, recorder, deadline):
    class Declared(Record):
        __event_type__ = 0x71
        number: int
        text: Annotated[bytes, 4] = b"x"

        def doubled(self):
            return 2 * self.number

    with pytest.raises(RecordError, match="it has no layout of its own, as record gives one"):
        bus.subscribe(Declared, recorder)
    made = record(Declared)
    assert (made.__bases__, made.itemsize, made.format) == ((Record,), 16, record(plain_twin()).format)
    bus.subscribe(made, recorder)
    bus.publish_many([made(1), made(2, b"yz")])
    bus.close(deadline)
    assert [(one.doubled(), one.text) for one in recorder.events] == [(2, b"x"), (4, b"yz")]


def plain_twin():
    class Declared:
        number: int
        text: Annotated[bytes, 4] = b"x"

    return Declared


@pytest.mark.parametrize("what", [1, None, "Trade", [("a", int)], print])
def test_what_is_no_declaration(what):
    with pytest.raises(RecordError, match="a class or a structured NumPy dtype"):
        record(what, name="Made")


def test_a_class_has_its_name():
    with pytest.raises(RecordError, match="name= is for a dtype"):
        record(Outer, name="Made")


# --- instances ---


def test_records_do_not_change():
    trade = Trade(1.0, 2)
    for change in (
        lambda: setattr(trade, "price", 2.0),
        lambda: setattr(trade, "other", 2.0),
        lambda: delattr(trade, "price"),
        lambda: setattr(trade, "__class__", Number),
        lambda: trade.__init__(3.0, 4),
    ):
        with pytest.raises((AttributeError, TypeError)):
            change()
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(trade, "__class__", Large)  # whose bytes it does not have
    assert type(trade) is trade.__class__ is Trade
    with pytest.raises(TypeError, match="read-only"):
        memoryview(trade).cast("B")[0] = 1
    assert trade == Trade(1.0, 2)


def test_equality_and_hash():
    assert Trade(1.0, 2) == Trade(1.0, 2)
    assert hash(Trade(1.0, 2)) == hash(Trade(1.0, 2))
    assert Trade(1.0, 2) != Trade(1.0, 3)
    assert Number(1) != Outer.Nested(1)
    assert Number(1) != 1
    assert Trade(math.nan, 1) != Trade(math.nan, 1)
    assert Trade(0.0, 1) == Trade(-0.0, 1)
    assert len({Number(1), Number(1), Number(2)}) == 2


@pytest.mark.parametrize("instance", [Trade(1.5, -2, b"ab"), Number(-1), Outer.Nested(3), Large(7, b"x" * 4088)])
def test_copies(instance):
    assert copy.copy(instance) == copy.deepcopy(instance) == instance
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(instance, protocol))
        assert again == instance
        assert type(again) is type(instance)
    if sys.version_info >= (3, 13):
        assert copy.replace(instance) == instance


def test_replace():
    assert Trade(1.0, 2).__replace__(size=3) == Trade(1.0, 3)
    if sys.version_info >= (3, 13):
        assert copy.replace(Trade(1.0, 2), price=2.0) == Trade(2.0, 2)
    with pytest.raises(TypeError, match="volume"):
        Trade(1.0, 2).__replace__(volume=3)


def test_repr_and_match():
    assert repr(Trade(1.5, 2)) == "Trade(price=1.5, size=2, symbol=b'none')"
    assert repr(Outer.Nested(1)) == "Outer.Nested(number=1)"
    match Trade(1.5, 2):
        case Trade(price, size=2):
            assert price == 1.5
        case _:
            pytest.fail("does not match")


def test_an_instance_is_a_buffer_of_its_bytes():
    trade = Trade(1.5, 2, b"ab")
    view = memoryview(trade)
    assert bytes(trade) == view.tobytes() == struct.pack("=di4s", 1.5, 2, b"ab")
    assert (view.readonly, view.ndim, view.shape, view.itemsize, view.nbytes) == (True, 1, (1,), 16, 16)
    assert view.format == Trade.format == "T{=d:price:=i:size:4s:symbol:}"
    del trade
    gc.collect()
    assert view.tobytes() == struct.pack("=di4s", 1.5, 2, b"ab")


def test_threads_may_read_one_record_at_once(make_bus, recorder, spawn, deadline):
    """ThreadSanitizer sees what is written by one of them."""
    bus = make_bus()
    bus.subscribe(Trade, recorder, batch=10)
    bus.publish(Trade(1.5, 2, b"ab"))
    [batch] = recorder.wait_for(1)
    trade, together = batch[0], threading.Barrier(2)

    def read():
        seen = []
        for _ in range(100):
            together.wait(deadline)
            seen += [bytes(trade), memoryview(trade).shape, trade.symbol, hash(trade), repr(trade), trade == batch[0]]
            seen += [bytes(batch), memoryview(batch).shape, batch["size"].tolist(), len(batch), list(batch)]
        return seen

    first, second = [reading.result(deadline) for reading in [spawn(read), spawn(read)]]
    assert first == second
    assert first[:3] == [struct.pack("=di4s", 1.5, 2, b"ab"), (1,), b"ab"]


def test_an_instance_that_was_not_initialised_is_zeros():
    assert Trade.__new__(Trade) == Trade(0.0, 0, b"")
    assert Large.__new__(Large) == Large(0, b"")


def test_the_base_class_has_no_fields():
    with pytest.raises(TypeError, match="declare a class"):
        Record()
    empty = Record.__new__(Record)
    for use in (memoryview, bytes, hash, operator.methodcaller("__reduce__"), Number.number.__get__):
        with pytest.raises(TypeError):
            use(empty)
    assert "Record" in repr(empty)

    class Pretender(Record):
        __layout__ = Number.__layout__

    with pytest.raises(TypeError, match="Pretender is no record type"):
        Pretender(1)


def test_a_subclass_that_slipped_through_has_no_instances():
    class Careless:
        def __init_subclass__(cls):
            pass

    class Slipped(Careless, Trade):
        __layout__ = Large.__layout__

    with pytest.raises(TypeError, match="Slipped is no record type"):
        Slipped(1.0, 2)


def test_a_field_reads_records_of_its_class_alone():
    for wrong in (Number(1), Trade, None, "text"):
        if wrong is not None:
            with pytest.raises(TypeError, match="is no field of"):
                Trade.price.__get__(wrong)
    field = declare("Made", field=int64).field
    gc.collect()  # its class is gone, and others may stand where its layout was
    for _ in range(100):
        with pytest.raises(TypeError, match="is no field of"):
            field.__get__(declare("Another", field=int8)(1))


def test_instances_have_no_memory_of_their_own_but_their_bytes():
    assert not hasattr(Number(1), "__dict__")
    with pytest.raises(TypeError):
        weakref.ref(Number(1))


def test_classes_and_subscriptions_can_be_subscripted():
    assert RecordBatch[Trade].__args__ == (Trade,)
    assert Subscription[Trade].__args__ == (Trade,)


# --- publish and handlers ---


def test_a_handler_is_given_equal_records_in_order(bus, recorder):
    bus.subscribe(Trade, recorder)
    trades = [Trade(number * 0.5, number, str(number).encode()) for number in range(5000)]
    for trade in trades[:2500]:
        assert bus.publish(trade) == 1
    assert bus.publish_many(trades[2500:]) == 2500
    assert recorder.wait_for(5000) == trades
    assert all(type(trade) is Trade for trade in recorder.events)


def test_a_record_that_a_handler_keeps_stays_as_it_was(bus, recorder):
    kept, views = [], []

    def handler(number: Number) -> None:
        if number.number % 3 == 0:
            kept.append(number)
        elif number.number % 3 == 1:
            views.append(memoryview(number))

    bus.subscribe(handler)
    bus.publish_many(numbers(30_000))
    bus.close()
    assert [each.number for each in kept] == list(range(0, 30_000, 3))
    assert [struct.unpack("=q", view)[0] for view in views] == list(range(1, 30_000, 3))
    assert len({id(each) for each in kept}) == len(kept)


def test_a_record_in_a_traceback_stays_as_it_was(make_bus):
    failures = []
    bus = make_bus(on_error=failures.append)

    def handler(number: Number) -> None:
        if number.number % 10 == 0:
            raise ValueError(number)

    bus.subscribe(handler)
    bus.publish_many(numbers(1000))
    bus.close()
    assert [failure.event.number for failure in failures] == list(range(0, 1000, 10))
    assert [failure.exception.args[0].number for failure in failures] == list(range(0, 1000, 10))


def test_a_record_that_another_thread_takes_stays_as_it_was(bus, spawn, deadline):
    handed, took, checked = [None], threading.Semaphore(0), []

    def handler(number: Number) -> None:
        if number.number % 50 == 0:
            handed[0] = number
            took.release()

    def take():
        for _ in range(200):
            assert took.acquire(timeout=deadline)
            mine = handed[0]
            before = mine.number
            for _ in range(20):
                assert mine.number == before
            checked.append(before)

    taking = spawn(take)
    bus.subscribe(handler)
    bus.publish_many(numbers(10_000))
    taking.result(deadline)
    assert all(number % 50 == 0 for number in checked)


def test_records_of_the_largest_size(make_bus, make_recorder):
    bus = make_bus(max_queue=1000)
    single, batches = make_recorder(), make_recorder()
    bus.subscribe(Large, single)
    bus.subscribe(Large, batches, batch=100)
    records = [Large(number, str(number).encode() * 100) for number in range(1500)]
    bus.publish_many(records)
    bus.close()
    assert single.events == [each for batch in batches.events for each in batch] == records
    assert Large.itemsize == 4096


@pytest.mark.parametrize("max_queue", [1, 7, 511, 512, 513, 2000])
@pytest.mark.parametrize("form", ["one by one", "list", "generator", "bytes"])
def test_nothing_is_lost_at_the_ends_of_pages(make_bus, make_recorder, max_queue, form):
    bus = make_bus(max_queue=max_queue)
    single, batches = make_recorder(), make_recorder()
    bus.subscribe(Number, single)
    of_batches = bus.subscribe(Number, batches, batch=300)
    count = 3000
    if form == "one by one":
        for each in numbers(count):
            bus.publish(each)
    elif form == "bytes":
        assert bus.publish_many(packed(count), Number) == count
    else:
        assert bus.publish_many(iter(numbers(count)) if form == "generator" else numbers(count)) == count
    bus.close()
    assert [each.number for each in single.events] == values(batches.events) == list(range(count))
    assert all(1 <= len(batch) <= min(300, max_queue) for batch in batches.events)
    assert of_batches.delivered == count


def test_several_publishers_and_subscribers(make_bus, make_recorder, spawn, deadline):
    bus = make_bus(max_queue=700)
    single, batches = make_recorder(), make_recorder()
    bus.subscribe(Number, single)
    bus.subscribe(Number, batches, batch=1000)

    def publish(publisher):
        for start in range(0, 3000, 100):
            first = publisher * 1_000_000 + start
            if publisher % 2:
                bus.publish_many(packed(100, first), Number)
            else:
                bus.publish_many(numbers(100, first))

    for publishing in [spawn(publish, publisher) for publisher in range(3)]:
        publishing.result(deadline)
    bus.close()
    seen = [each.number for each in single.events]
    assert seen == values(batches.events)
    for publisher in range(3):
        assert [number % 1_000_000 for number in seen if number // 1_000_000 == publisher] == list(range(3000))


# --- publish_many of bytes ---


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("b")])
@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 20_000])
def test_buffers_of_bytes(bus, recorder, form, count):
    bus.subscribe(Number, recorder)
    assert bus.publish_many(form(packed(count)), Number) == count
    assert [each.number for each in recorder.wait_for(count)] == list(range(count))


def test_buffers_of_records(bus, recorder):
    bus.subscribe(Number, recorder)
    assert bus.publish_many(Number(7), Number) == 1
    assert bus.publish_many((ctypes.c_char * 16)(*packed(2)), Number) == 2
    assert [each.number for each in recorder.wait_for(3)] == [7, 0, 1]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (b"1234567", "7 bytes are no whole number of records"),
        (memoryview(bytes(32))[::2], "contiguous"),
        (memoryview(bytes(16)).cast("d"), "format 'd'"),
        (Trade(1.0, 2), r"records of .*Trade, not of .*Number"),
        ([Number(1)], "from a buffer of their bytes, not"),
        ((Number(1),), "from a buffer of their bytes, not"),
        (iter([Number(1)]), "from a buffer of their bytes, not"),
        (None, "from a buffer of their bytes, not"),
        ("text", "from a buffer of their bytes, not"),
    ],
)
def test_what_is_no_buffer_of_records(bus, events, message):
    bus.subscribe(Number, print)
    with pytest.raises(EventClassError, match=message):
        bus.publish_many(events, Number)


@pytest.mark.parametrize("record_type", [int, Record, "Number", 1, Outer])
def test_what_is_no_record_type(bus, record_type):
    with pytest.raises(EventClassError):
        bus.publish_many(packed(1), record_type)


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc")])
def test_bytes_without_a_record_type_are_refused(bus, data):
    with pytest.raises(EventClassError, match="the bytes of records are published with their record type"):
        bus.publish_many(data)


@pytest.mark.parametrize("policy", ["block", "raise"])
def test_buffers_stop_at_a_full_queue(make_bus, gate, policy):
    bus = make_bus(max_queue=600)
    bus.subscribe(Number, gate.hold, policy=policy)
    with pytest.raises(PublishTimeoutError if policy == "block" else QueueFullError) as caught:
        bus.publish_many(packed(1000), Number, timeout=0)
    assert caught.value.published == 600
    gate.open()


def test_close_stops_a_buffer(make_bus, gate, recorder, spawn, deadline):
    bus = make_bus(max_queue=10)

    def handler(number: Number) -> None:
        gate.hold()
        recorder(number.number)

    bus.subscribe(handler)
    publishing = spawn(bus.publish_many, packed(1000), Number)
    gate.wait_until_held()
    closing = spawn(bus.close)
    error = publishing.exception(deadline)
    assert isinstance(error, ClosedError)
    gate.open()
    closing.result(deadline)
    assert recorder.events == list(range(error.published))
    with pytest.raises(ClosedError) as caught:
        bus.publish_many(packed(10), Number)
    assert caught.value.published == 0


def test_a_buffer_is_not_published_further_when_the_last_subscription_ends(make_bus, gate, spawn, deadline):
    bus = make_bus(max_queue=10)
    subscription = bus.subscribe(Number, gate.hold)
    publishing = spawn(bus.publish_many, packed(1000), Number)
    gate.wait_until_held()
    subscription.cancel(discard=True)
    gate.open()
    assert publishing.result(deadline) == 1000


# --- batches ---


def hold_batches(bus, gate, recorder, batch, **options):
    """Subscribes a batch handler that is held in its first batch, the record -1."""

    def handler(records):
        if records[0] == Number(-1):
            gate.hold()
        recorder(records)

    subscription = bus.subscribe(Number, handler, batch=batch, **options)
    bus.publish(Number(-1))
    gate.wait_until_held()
    return subscription


def test_a_batch_is_a_sequence_of_records(bus, gate, recorder):
    hold_batches(bus, gate, recorder, 512)
    bus.publish_many(numbers(100))
    gate.open()
    bus.close()
    batch = recorder.events[1]
    assert type(batch) is RecordBatch
    assert batch.record_class is Number
    assert len(batch) == 100
    assert list(batch) == numbers(100)
    assert batch[0] == batch[-100] == Number(0)
    assert batch[99] == batch[-1] == Number(99)
    assert list(batch[10:20]) == numbers(10, 10)
    assert list(batch[90:1000]) == numbers(10, 90)
    assert list(batch[20:10]) == []
    assert list(batch[10:90][10:20]) == numbers(10, 20)
    assert batch == batch[:] != batch[1:]
    assert batch != list(batch)
    assert repr(batch) == "<RecordBatch of 100 Number>"
    assert Number(5) in batch
    assert isinstance(batch, collections.abc.Sequence)
    assert batch.index(Number(5)) == batch.index(Number(5), -97, 50) == 5
    assert (batch.count(Number(5)), batch.count(Number(100)), batch.count(5)) == (1, 0, 0)
    assert list(reversed(batch)) == numbers(100)[::-1]
    match batch:
        case [first, *_, last]:
            assert (first, last) == (Number(0), Number(99))
        case _:
            raise AssertionError("it matches no sequence")
    for missing in (Number(100), 5):
        with pytest.raises(ValueError, match="not in list"):
            batch.index(missing)
    with pytest.raises(ValueError, match="not in list"):
        batch.index(Number(5), 6)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"a RecordBatch .* not copied or pickled; list\(batch\) and batch.array"):
            way(batch)
    for wrong in (100, -101, 2**70):
        with pytest.raises(IndexError):
            batch[wrong]
    with pytest.raises(ValueError, match="step 1"):
        batch[::2]
    with pytest.raises(KeyError):
        batch["price"]
    with pytest.raises(TypeError):
        batch[1.5]
    with pytest.raises(TypeError):
        hash(batch)
    with pytest.raises(TypeError):
        batch[0] = Number(1)
    with pytest.raises(TypeError):
        RecordBatch()


def test_a_batch_is_a_buffer(bus, gate, recorder):
    hold_batches(bus, gate, recorder, 512)
    bus.publish_many(numbers(100))
    gate.open()
    bus.close()
    batch = recorder.events[1]
    view = memoryview(batch)
    assert view.readonly
    assert (view.shape, view.strides, view.itemsize, view.format) == ((100,), (8,), 8, Number.format)
    assert view.tobytes() == bytes(batch) == packed(100)
    assert memoryview(batch[10:20]).tobytes() == packed(10, 10)
    assert memoryview(batch[10:10]).nbytes == 0
    with pytest.raises(TypeError, match="read-only"):
        view.cast("B")[0] = 1
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * 8).from_buffer(batch)


def test_the_columns_of_a_batch(bus, recorder):
    bus.subscribe(Trade, recorder, batch=100)
    bus.publish(Trade(1.5, 2, b"ab"))
    [batch] = recorder.wait_for(1)
    prices, sizes = batch["price"], batch["size"]
    assert prices.tolist() == [1.5]
    assert sizes.tolist() == [2]
    assert batch["symbol"].tobytes() == b"ab\0\0"
    assert (prices.format, sizes.format, batch["symbol"].format) == ("d", "i", "4s")
    assert prices.strides == sizes.strides == (16,)
    assert prices.readonly


def test_a_batch_is_in_the_memory_of_the_queue(make_bus, gate, recorder):
    """Nothing is copied: what two handlers are given is one memory, and batches of a run stand side by side in it."""
    bus = make_bus()
    hold_batches(bus, gate, recorder, 100)
    other = []
    bus.subscribe(Number, other.append, batch=512)
    bus.publish_many(numbers(300))
    gate.open()
    bus.close()

    def address(batch):
        numpy = pytest.importorskip("numpy")
        return numpy.frombuffer(batch, numpy.uint8).ctypes.data

    batches = recorder.events[1:]
    first = address(batches[0])
    assert [address(batch) - first for batch in batches] == [8 * batch[0].number for batch in batches]
    starts = {address(each) + 8 * at: each[at] for each in recorder.events[1:] for at in range(len(each))}
    assert {address(each) + 8 * at: each[at] for each in other for at in range(len(each))} == starts


def test_batches_end_at_the_ends_of_pages(make_bus, gate, recorder):
    bus = make_bus()
    hold_batches(bus, gate, recorder, 65_536)
    bus.publish_many(packed(2000), Number)
    gate.open()
    bus.close()
    assert [len(batch) for batch in recorder.events] == [1, 511, 512, 512, 465]
    assert values(recorder.events[1:]) == list(range(2000))


def test_batches_that_are_kept_stay_as_they_were(make_bus, recorder):
    """For as long as the batch, or anything made of it, is kept; whatever is published meanwhile."""
    bus = make_bus(max_queue=5000)
    kept = []

    def handler(records):
        if len(kept) < 60:
            first = records[0].number
            form = (lambda batch: batch, memoryview, lambda batch: batch["number"], lambda batch: batch[1:])
            kept.append((len(kept) % 4, first, len(records), form[len(kept) % 4](records)))

    bus.subscribe(Number, handler, batch=100)
    data = packed(100_000)
    for _ in range(20):
        bus.publish_many(data, Number)
    bus.close()
    del bus
    gc.collect()
    for form, first, count, view in kept:
        expected = list(range(first, first + count))
        if form == 0:
            assert [each.number for each in view] == expected
        elif form == 1:
            assert list(struct.unpack(f"={count}q", view)) == expected
        elif form == 2:
            assert view.tolist() == expected
        else:
            assert [each.number for each in view] == expected[1:]


def test_a_batch_outlives_its_dispatcher(recorder):
    bus = Dispatcher()
    bus.subscribe(Number, recorder, batch=100)
    bus.publish_many(numbers(50))
    bus.close()
    batches = list(recorder.events)
    views = [memoryview(batch) for batch in batches]
    del bus, batches
    recorder.events.clear()
    gc.collect()
    assert b"".join(views) == packed(50)


def test_a_batch_can_be_published_again(make_bus, recorder):
    first, second = make_bus(), make_bus()
    second.subscribe(Number, recorder)

    def forward(records: RecordBatch[Number]) -> None:
        assert second.publish_many(records) == len(records)
        assert second.publish_many(records[1:], Number) == len(records) - 1

    first.subscribe(forward, batch=100)
    first.publish_many(numbers(1))
    assert recorder.wait_for(1) == numbers(1)
    first.close()
    with pytest.raises(EventClassError, match=r"records of .*Number, not of .*Trade"):
        second.publish_many(_batch_of(recorder, make_bus()), Trade)


def _batch_of(recorder, bus):
    batches = type(recorder)()
    bus.subscribe(Number, batches, batch=10)
    bus.publish(Number(1))
    return batches.wait_for(1)[0]


def test_the_class_comes_from_a_record_batch_annotation(bus, recorder):
    def handler(records: RecordBatch[Number]) -> None:
        recorder(records)

    def also(records: list[Number]) -> None:
        recorder(records)

    assert bus.subscribe(handler, batch=10).event_class is Number
    assert bus.subscribe(also, batch=10).event_class is Number
    bus.publish(Number(1))
    assert all(list(batch) == [Number(1)] for batch in recorder.wait_for(2))


# --- modes, policies and options ---


@pytest.mark.parametrize("batch", [None, 7])
@pytest.mark.parametrize("form", [numbers, packed])
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("block", range(40)),
        ("raise", range(40)),
        ("drop_newest", range(10)),
        ("drop_oldest", range(30, 40)),
        ("latest", range(39, 40)),
    ],
)
def test_policies(bus, gate, recorder, policy, kept, form, batch):
    def handler(what):
        if what == Number(-1) or (batch and what[0] == Number(-1)):
            gate.hold()
        recorder(list(what) if batch else [what])

    max_queue = 10 if policy.startswith("drop") else None
    subscription = bus.subscribe(Number, handler, policy=policy, max_queue=max_queue, batch=batch)
    bus.publish(Number(-1))
    gate.wait_until_held()
    bus.publish_many(form(40), *[Number] * (form is packed))
    gate.open()
    bus.close()
    assert values(recorder.events[1:]) == list(kept)
    assert subscription.delivered == len(kept) + 1
    assert subscription.dropped == 40 - len(kept)


@pytest.mark.parametrize("batch", [None, 3])
def test_the_latest_by_key(bus, gate, recorder, batch):
    def handler(what):
        if not recorder.events:
            gate.hold()
        recorder(list(what) if batch else [what])

    bus.subscribe(Number, handler, policy="latest", key=lambda each: each.number % 4, batch=batch)
    bus.publish(Number(-1))
    gate.wait_until_held()
    bus.publish_many(packed(40), Number)
    gate.open()
    bus.close()
    assert values(recorder.events[1:]) == [36, 37, 38, 39]


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
@pytest.mark.parametrize("batch", [None, 10])
def test_where(bus, recorder, policy, batch):
    subscription = bus.subscribe(
        Number, recorder, where=lambda each: each.number % 3 == 0, policy=policy, batch=batch, max_queue=2000
    )
    bus.publish_many(packed(1000), Number)
    bus.close()
    assert (values(recorder.events) if batch else [each.number for each in recorder.events]) == list(range(0, 1000, 3))
    assert subscription.filtered == 666
    assert not batch or all(type(each) is RecordBatch for each in recorder.events)


@pytest.mark.parametrize("batch", [None, 10])
def test_once(bus, recorder, batch):
    subscription = bus.subscribe(Number, recorder, once=True, batch=batch)
    bus.publish_many(packed(100), Number)
    bus.close()
    assert len(recorder.events) == 1
    assert subscription.delivered == 1


def test_weak(bus, recorder, deadline):
    class Owner:
        def handle(self, number: Number) -> None:
            recorder(number)

    owner = Owner()
    subscription = bus.subscribe(owner.handle, weak=True)
    bus.publish(Number(1))
    assert recorder.wait_for(1) == [Number(1)]
    assert bus.wait_idle(deadline)
    del owner
    gc.collect()
    assert not subscription.active


def test_direct_handlers_and_taps(bus, make_recorder):
    direct, tap, of_records, queued = [], make_recorder(), make_recorder(), make_recorder()
    bus.subscribe(Number, direct.append, mode="direct")
    bus.subscribe(object, tap)
    bus.subscribe(Record, of_records, batch=100, subclasses=True)
    bus.subscribe(Number, queued, batch=100)
    bus.publish_many(packed(700), Number)
    bus.publish(Trade(1.0, 2))
    bus.close()
    assert direct == numbers(700)
    assert tap.events == [*numbers(700), Trade(1.0, 2)]
    assert [each for batch in of_records.events for each in batch] == [*numbers(700), Trade(1.0, 2)]
    assert values(queued.events) == list(range(700))


def test_context(bus, recorder):
    import contextvars

    variable = contextvars.ContextVar("variable")

    def handler(number: Number) -> None:
        recorder((number, variable.get()))

    bus.subscribe(handler, context="publisher")
    variable.set("set")
    bus.publish_many(packed(3), Number)
    assert recorder.wait_for(3) == [(each, "set") for each in numbers(3)]


def test_asyncio(make_bus):
    async def main():
        got, batches = [], []

        async def handler(number: Number) -> None:
            got.append(number)

        async def batch_handler(records: RecordBatch[Number]) -> None:
            await asyncio.sleep(0)
            batches.append(records)

        async with make_bus(max_queue=5000) as bus:
            bus.subscribe(handler)
            bus.subscribe(batch_handler, batch=700)
            stream = bus.stream(Number)
            waiting = asyncio.create_task(bus.wait_for(Number, where=lambda each: each.number == 1234))
            await asyncio.sleep(0)
            bus.publish_many(packed(3000), Number)
            assert [await anext(stream) for _ in range(3000)] == numbers(3000)
            assert await waiting == Number(1234)
            stream.cancel()
            assert await bus.apublish(Number(3000)) == 2
        assert got == numbers(3001)
        assert values(batches) == list(range(3001))
        assert max(map(len, batches)) <= 700
        assert all(type(batch) is RecordBatch for batch in batches)

    asyncio.run(main())


@pytest.mark.parametrize("batch", [1, 10, 1000])
def test_a_handler_publishes_into_its_own_full_queue(make_bus, recorder, batch, deadline):
    bus = make_bus(max_queue=5)

    def handler(records: RecordBatch[Number]) -> None:
        recorder(records)
        again = [Number(each.number + 1000) for each in records if each.number < 3000]
        bus.publish_many(b"".join(again), Number)

    bus.subscribe(handler, batch=batch)
    bus.publish_many(packed(1000), Number)
    bus.wait_idle(deadline)
    bus.close()
    assert sorted(values(recorder.events)) == list(range(4000))


@pytest.mark.parametrize("discard", [False, True])
def test_cancel(bus, gate, recorder, discard):
    subscription = hold_batches(bus, gate, recorder, 10)
    bus.publish_many(packed(1000), Number)
    subscription.cancel(discard=discard)
    bus.publish_many(packed(1000), Number)
    gate.open()
    bus.close()
    assert values(recorder.events[1:]) == ([] if discard else list(range(1000)))
    assert subscription.dropped == (1000 if discard else 0)
    assert subscription.pending == 0


@pytest.mark.parametrize("joins", ["direct", "subclasses", "context"])
def test_a_subscription_that_joins_while_many_wait_for_room_has_the_rest(
    make_bus, gate, recorder, spawn, deadline, joins
):
    options = {"direct": {"mode": "direct"}, "subclasses": {}, "context": {"context": "publisher"}}[joins]
    bus = make_bus(max_queue=1)
    bus.subscribe(Number, gate.hold)
    publishing = spawn(bus.publish_many, packed(10), Number)
    gate.wait_until_held()
    bus.subscribe(object if joins == "subclasses" else Number, recorder, **options)
    gate.open()
    assert publishing.result(deadline) == 10
    bus.close(deadline)
    numbers = [each.number for each in recorder.events]
    # the first of them is published; the second, which waited by itself, is also for what has joined its own topic
    assert numbers == list(range(1, 10)) or (joins != "direct" and numbers == list(range(2, 10)))


def test_close_delivers_what_is_pending(make_bus, gate, recorder, spawn, deadline):
    bus = make_bus()
    hold_batches(bus, gate, recorder, 100)
    bus.publish_many(packed(10_000), Number)
    closing = spawn(bus.close)
    gate.open()
    closing.result(deadline)
    assert values(recorder.events[1:]) == list(range(10_000))


def test_a_dispatcher_that_is_dropped_with_records_pending(gate, recorder, deadline):
    """They keep it until they are delivered."""
    bus = Dispatcher()
    hold_batches(bus, gate, recorder, 100)
    bus.publish_many(packed(1000), Number)
    del bus
    gc.collect()
    gate.open()
    seen = recorder.wait_for(1)
    while len(values(seen[1:])) < 1000:
        seen = recorder.wait_for(len(seen) + 1)
    assert values(seen[1:]) == list(range(1000))


def test_handlers_of_one_type_are_of_one_speed_each(bus, gate, make_recorder):
    stuck, single, batches = make_recorder(), make_recorder(), make_recorder()
    hold_batches(bus, gate, stuck, 100)
    bus.subscribe(Number, single)
    bus.subscribe(Number, batches, batch=100)
    bus.publish_many(packed(5000), Number)
    assert [each.number for each in single.wait_for(5000)] == list(range(5000))
    assert stuck.events == []
    gate.open()
    bus.close()
    assert values(stuck.events[1:]) == values(batches.events) == list(range(5000))


# --- type ids ---


@record
class Stated:
    __event_type__ = 0x5100

    number: int64


@record
class Computed:
    number: int64

    @property
    def __event_type__(self):
        return 0x5200 + self.number % 2


def test_a_stated_id(bus, recorder):
    bus.subscribe_to(0x5100, recorder)
    bus.subscribe(Stated, recorder, batch=10)
    bus.publish(Stated(1))
    bus.publish_to(0x5100, Stated(2))
    bus.publish_many(packed(1, 3), Stated)
    bus.close()
    assert bus.count(0x5100) == 0
    single = [each.number for each in recorder.events if type(each) is Stated]
    assert single == values([each for each in recorder.events if type(each) is not Stated]) == [1, 2, 3]


def test_an_id_of_records_refuses_other_events(bus):
    bus.subscribe(Stated, print)
    for wrong in (Number(1), Trade(1.0, 2), "text", 1):
        with pytest.raises(EventClassError):
            bus.publish_to(0x5100, wrong)


def test_an_id_that_was_used_before_its_class_was_known_has_objects(bus, make_recorder):
    single, batches = make_recorder(), make_recorder()
    bus.subscribe_to(0x5100, single)
    bus.subscribe_to(0x5100, batches, batch=10)
    sent = [Stated(number) for number in range(300)]
    bus.publish_many(sent[:100])
    bus.publish_many(packed(200, 100), Stated)
    bus.close()
    assert single.events == sent
    assert single.events[0] is sent[0]
    assert [each for batch in batches.events for each in batch] == sent
    assert all(type(batch) is list for batch in batches.events)


def test_an_id_that_the_instance_computes(bus, make_recorder):
    even, odd = make_recorder(), make_recorder()
    bus.subscribe_to(0x5200, even)

    def of_odd(records: list[Computed]) -> None:
        odd(list(records))

    bus.subscribe_to(0x5201, of_odd, batch=10)
    bus.publish_many(packed(100), Computed)
    bus.publish(Computed(100))
    bus.close()
    assert [each.number for each in even.events] == list(range(0, 101, 2))
    assert values(odd.events) == list(range(1, 100, 2))


def test_publish_to_an_id_of_ones_own(bus, recorder):
    def handler(number: Number) -> None:
        recorder(number)

    bus.subscribe_to(0x5300, handler)
    assert bus.publish_to(0x5300, Number(1)) == 1
    with pytest.raises(EventClassError):
        bus.publish_to(0x5300, Trade(1.0, 2))
    assert recorder.wait_for(1) == [Number(1)]


# --- memory ---

LEAKS = """
import ctypes, gc, json, sys
from ringcast import Dispatcher, record
from ringcast.records import int64
from typing import Annotated

@record
class Large:
    number: int64
    rest: Annotated[bytes, 1016]

data = bytes(1024 * 2000)
in_use = []

def work(times):
    for _ in range(times):
        kept = []
        bus = Dispatcher(max_queue=2000)
        keep = lambda batch: kept.append((batch, memoryview(batch), batch["number"], batch[1:]))
        bus.subscribe(Large, keep, batch=300)
        bus.subscribe(Large, lambda each: kept.append(each), where=lambda each: False)
        bus.subscribe(Large, lambda batch: None, batch=1000, where=lambda each: True, policy="drop_oldest")
        bus.subscribe(Large, lambda each: None, once=True)
        for _ in range(5):
            bus.publish_many(data, Large)
        bus.publish_many([Large(1, b"x")] * 100)
        bus.close()
        del bus, kept, keep

class mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

try:
    count = ctypes.CDLL(None).mallinfo2
except AttributeError:
    sys.exit("this C library does not say what is in use")
count.restype = mallinfo2
for _ in range(5):
    work(6)
    gc.collect()
    info = count()
    in_use.append(info.uordblks + info.hblkhd)
print(json.dumps(in_use))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the allocator what is in use, as only glibc's can be")
def test_no_page_and_no_record_is_left_behind(run_python):
    """24 more rounds, each of which publishes 10 MB, leave as much memory in use as the 6 before them. (Not the size of
    the process, which is that of the most threads that have ever been at it at the same time.)"""
    result = run_python(LEAKS, timeout=120)
    if "does not say what is in use" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    in_use = json.loads(result.stdout)
    if in_use[0] == 0:
        pytest.skip("an allocator in the place of the C library's")
    assert in_use[-1] - in_use[0] < 1 << 18, in_use


def test_records_that_are_kept_are_released(run_python):
    program = """
import gc, sys
from ringcast import record
from typing import Annotated

for number in range(200):   # classes too: each has its layout
    @record
    class Local:
        number: int
        text: Annotated[bytes, 100] = b""
    Local(number)
before = sum(1 for each in gc.get_objects() if type(each).__name__ == "Layout")
del Local
gc.collect()
after = sum(1 for each in gc.get_objects() if type(each).__name__ == "Layout")
assert after == 0, (before, after)
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr


def test_any_is_no_field() -> None:
    with pytest.raises(RecordError, match="is annotated"):
        declare("Made", field=Any)
