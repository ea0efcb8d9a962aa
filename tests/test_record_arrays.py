"""Records and the libraries that take arrays: NumPy, pandas, Arrow and Polars, each where it is installed."""

import pickle
import struct
from typing import Annotated

import pytest

from ringcast import Dispatcher, EventClassError, PublishTimeoutError, RecordBatch, RecordError, record
from ringcast.records import float32, float64, int8, int16, int32, int64, timestamp, uint16, uint32, uint64

np = pytest.importorskip("numpy")


@record
class Trade:
    price: float64
    size: int32
    symbol: Annotated[bytes, 4]


@record
class Quote:
    """One of each size, with padding."""

    flag: bool
    price: float32
    when: timestamp
    small: int8
    count: uint16


PACKED = np.dtype([("price", "<f8"), ("size", "<i4"), ("symbol", "S4"), ("flag", "?")])
Packed = record(PACKED, name="Packed")

trades = np.zeros(2000, Trade.dtype)
trades["price"] = np.arange(2000) * 0.5
trades["size"] = np.arange(2000)
trades["symbol"] = b"ab"


@pytest.fixture
def batches(bus):
    """Publishes an array of `Trade` to a handler of batches, and gives those."""

    def deliver(array, record_type=None, batch=512):
        got = []
        bus.subscribe(record_type or Trade, got.append, batch=batch)
        assert bus.publish_many(array, record_type) == len(array)
        bus.close()
        return got

    return deliver


def joined(batches):
    return np.concatenate([batch.array for batch in batches])


# --- declaration ---


def test_the_dtype_of_a_class_is_that_of_a_struct():
    assert Trade.dtype == np.dtype([("price", "f8"), ("size", "i4"), ("symbol", "S4")])
    fields = [("flag", "?"), ("price", "f4"), ("when", "M8[ns]"), ("small", "i1"), ("count", "u2")]
    assert Quote.dtype == np.dtype(fields, align=True)
    assert Quote.dtype.itemsize == Quote.itemsize
    assert Trade.dtype is Trade.dtype


def test_numpy_scalar_classes_are_fields():
    @record
    class Made:
        a: np.float32
        b: np.int16
        c: np.bool_
        d: np.uint64

    assert Made.dtype == np.dtype([("a", "f4"), ("b", "i2"), ("c", "?"), ("d", "u8")], align=True)
    assert Made(np.float32(1.5), np.int16(-2), np.bool_(True), np.uint64(2**64 - 1)).d == 2**64 - 1


@pytest.mark.parametrize(
    "scalar", [np.longdouble, np.complex64, np.str_, np.bytes_, np.void, np.object_, np.datetime64]
)
def test_numpy_scalar_classes_that_are_none(scalar):
    with pytest.raises(RecordError):
        record(type("Made", (), {"__annotations__": {"field": scalar}}))


def test_a_record_type_of_a_packed_dtype():
    assert Packed.__name__ == Packed.__qualname__ == "Packed"
    assert Packed.__module__ == __name__
    assert Packed.itemsize == PACKED.itemsize == 17
    assert Packed.dtype is PACKED
    assert bytes(Packed(1.5, 2, b"ab", True)) == struct.pack("=di4s?", 1.5, 2, b"ab", True)
    assert pickle.loads(pickle.dumps(Packed(1.5, 2, b"ab", True))) == Packed(1.5, 2, b"ab", True)


def test_a_record_type_of_an_aligned_dtype_with_gaps():
    dtype = np.dtype({"names": ["b", "a"], "formats": ["<i8", "u1"], "offsets": [16, 3], "itemsize": 40})
    made = record(dtype, name="Made")
    assert (made.a.offset, made.b.offset, made.itemsize) == (3, 16, 40)
    assert made.__match_args__ == ("a", "b")  # as they stand in memory
    instance = made(a=7, b=-1)
    array = np.frombuffer(instance, dtype)
    assert (array[0]["a"], array[0]["b"]) == (7, -1)


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D", "25s"])
def test_times(unit):
    dtype = np.dtype([("when", f"M8[{unit}]"), ("long", f"m8[{unit}]")])
    made = record(dtype, name="Made")
    assert (made.when.kind, made.when.unit, made.long.kind, made.long.unit) == ("M", unit, "m", unit)
    array = np.array([(1, 2)], dtype)
    assert made(*[int(value) for value in array.view("i8")]) == made(1, 2)
    assert made(1, 2).when == 1


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ([("a", "O")], "a number"),
        ([("a", "U4")], "a number"),
        ([("a", "V4")], "a number"),
        ([("a", "c8")], "a number"),
        ([("a", "g")], "a number"),
        ([("a", "S0")], "a number"),
        ([("a", "f8", 3)], "a number"),
        ([("a", "i4", (2, 2))], "a number"),
        ([("a", [("b", "i4")])], "a number"),
        ([("a", ">i4")], "byte order"),
        ([("a", ">f8")], "byte order"),
        ([("a", "M8")], "a number"),
        ([("a b", "i4")], "no name for an attribute"),
        ([("dtype", "i4")], "no name for a field"),
        ([("a", "S5000")], "4096 is the most"),
        ({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}, "overlaps"),
        ("i4", "structured"),
        ([], "no fields|structured"),
    ],
)
def test_dtypes_that_are_no_records(dtype, message):
    with pytest.raises(RecordError, match=message):
        record(np.dtype(dtype), name="Made")


@pytest.mark.parametrize("name", [None, "", "not a name", 1])
def test_the_record_type_of_a_dtype_needs_a_name(name):
    with pytest.raises(RecordError, match="needs a name"):
        record(PACKED, name=name)


def test_instances_are_made_of_numpy_scalars():
    row = trades[7]
    assert Trade(*row) == Trade(3.5, 7, b"ab")
    assert np.asarray(Trade(3.5, 7, b"ab")) == row
    assert np.frombuffer(Trade(3.5, 7, b"ab"), Trade.dtype)[0] == row


# --- publishing arrays ---


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 2000])
def test_arrays(bus, recorder, count):
    bus.subscribe(Trade, recorder)
    assert bus.publish_many(trades[:count], Trade) == count
    assert recorder.wait_for(count) == [Trade(*row) for row in trades[:count].tolist()]


def test_arrays_without_a_record_type():
    """It is the one that was declared with the dtype."""
    with Dispatcher() as bus:
        got = []
        bus.subscribe(Quote, got.append)
        bus.publish_many(np.ones(3, Quote.dtype))
    assert got == [Quote(True, 1.0, 1, 1, 1)] * 3


@pytest.mark.thread_unsafe(reason="the dtype is unknown to the process but once")
def test_arrays_of_an_unknown_or_ambiguous_dtype(bus):
    unknown = np.zeros(3, [("nobody", "i4"), ("knows", "i4")])
    with pytest.raises(EventClassError, match="no record type: declare one"):
        bus.publish_many(unknown)
    first = record(unknown.dtype, name="First")
    assert bus.publish_many(unknown) == 3
    second = record(unknown.dtype, name="Second")
    with pytest.raises(EventClassError, match=r"First or .*Second: say which, publish_many\(array, RecordType\)"):
        bus.publish_many(unknown)
    assert bus.publish_many(unknown, first) == bus.publish_many(unknown, second) == 3


@pytest.mark.parametrize(
    "dtype",
    [
        [("price", "f8"), ("size", "i4")],
        [("price", "f4"), ("size", "i4"), ("symbol", "S4")],
        [("price", ">f8"), ("size", "i4"), ("symbol", "S4")],
        [("cost", "f8"), ("size", "i4"), ("symbol", "S4")],
        [("price", "f8"), ("size", "i4"), ("symbol", "S8")],
        "f8",
        "u1",
    ],
)
def test_arrays_of_another_dtype(bus, dtype):
    bus.subscribe(Trade, print)
    with pytest.raises(EventClassError, match="has no records of"):
        bus.publish_many(np.zeros(16, dtype), Trade)


@pytest.mark.parametrize("array", [trades.reshape(40, 50), trades[0], trades[:1].reshape(())])
def test_arrays_of_another_dimension(bus, array):
    bus.subscribe(Trade, print)
    with pytest.raises(EventClassError, match="one dimension, not"):
        bus.publish_many(array, Trade)


@pytest.mark.parametrize(
    "view",
    [
        trades[::3],
        trades[::-1],
        trades[5:700:7],
        trades[trades["size"] % 2 == 0],
        trades.reshape(40, 50)[:, 3],
        trades.view(np.recarray),
        np.frombuffer(trades.tobytes(), Trade.dtype),  # read-only
        trades[:0],
    ],
)
def test_views(batches, view):
    expected = view.copy()
    got = batches(view, Trade)
    assert len(expected) == 0 or (joined(got) == expected).all()


def test_what_is_published_is_a_copy(bus, gate, recorder):
    def handler(trade: Trade) -> None:
        gate.hold()
        recorder(trade.size)

    bus.subscribe(handler)
    mine = trades[:100].copy()
    bus.publish_many(mine, Trade)
    mine["size"] = -1
    gate.open()
    assert recorder.wait_for(100) == list(range(100))


def test_an_array_that_does_not_fit(make_bus, gate):
    bus = make_bus(max_queue=100)
    bus.subscribe(Trade, gate.hold)
    with pytest.raises(PublishTimeoutError) as caught:
        bus.publish_many(trades, Trade, timeout=0)
    assert caught.value.published == 100
    gate.open()


def test_a_plain_array_is_events_one_by_one(bus, recorder):
    bus.subscribe(np.float64, recorder)
    bus.publish_many(np.arange(3.0))
    assert recorder.wait_for(3) == [0.0, 1.0, 2.0]


def test_large_arrays_through_a_small_queue(make_bus, make_recorder):
    bus = make_bus(max_queue=700)
    single, got = make_recorder(), make_recorder()
    bus.subscribe(Trade, single)
    bus.subscribe(Trade, got, batch=512)
    large = np.tile(trades, 10)
    assert bus.publish_many(large, Trade) == 20_000
    bus.close()
    assert (joined(got.events) == large).all()
    assert [trade.size for trade in single.events] == large["size"].tolist()


# --- batches ---


def test_a_batch_as_an_array(batches):
    got = batches(trades, Trade)
    assert all(type(batch) is RecordBatch for batch in got)
    for batch in got:
        array = batch.array
        assert array.dtype == Trade.dtype
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array["price"] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        assert array.ctypes.data == np.frombuffer(batch, np.uint8).ctypes.data
        assert (array[::2]["size"] == array["size"][::2]).all()
        assert (batch[1:].array == array[1:]).all()
    assert (joined(got) == trades).all()


def test_asarray_and_array(batches):
    [batch, *_] = batches(trades[:100], Trade)
    view, copy = np.asarray(batch), np.array(batch)
    assert (view == batch.array).all()
    assert np.shares_memory(view, batch.array)
    assert not np.shares_memory(copy, batch.array)
    assert copy.flags.writeable
    assert batch.__array__().dtype == Trade.dtype
    assert np.shares_memory(batch.__array__(), batch.array)
    assert not np.shares_memory(batch.__array__(copy=True), batch.array)
    assert batch.__array__(Trade.dtype).dtype == Trade.dtype


def test_columns(batches):
    [batch, *_] = batches(trades[:100], Trade)
    for name in ("price", "size", "symbol"):
        column = np.asarray(batch[name])
        assert (column == trades[:100][name]).all()
        assert np.shares_memory(column, batch.array)
        assert not column.flags.writeable
    assert np.asarray(batch[:0]["price"]).shape == (0,)


def test_arrays_of_batches_stay_as_they_were(bus):
    kept = []

    def handler(batch: RecordBatch[Trade]) -> None:
        if len(kept) < 100:
            kept.append((batch[0].size, np.asarray(batch["size"]), batch.array[::2]["size"]))

    bus.subscribe(handler, batch=50)
    for _ in range(100):
        bus.publish_many(trades, Trade)
    bus.close()
    for first, sizes, even in kept:
        assert sizes.tolist() == [(first + at) % 2000 for at in range(len(sizes))]
        assert even.tolist() == sizes.tolist()[::2]


def test_a_batch_and_its_array_can_be_published_again(make_bus):
    first, second, got = make_bus(), make_bus(), []
    second.subscribe(Trade, got.append)

    def forward(batch: RecordBatch[Trade]) -> None:
        second.publish_many(batch)
        second.publish_many(batch.array, Trade)
        second.publish_many(np.asarray(batch), Trade)

    first.subscribe(forward, batch=10)
    first.publish_many(trades[:1], Trade)
    first.close()
    second.close()
    assert got == [Trade(0.0, 0, b"ab")] * 3


def test_times_are_times(bus):
    got = []
    bus.subscribe(Quote, got.append, batch=10)
    sent = np.zeros(3, Quote.dtype)
    sent["when"] = np.array(["2024-01-02T03:04:05.678901234", "NaT", "1969-12-31"], "M8[ns]")
    bus.publish_many(sent, Quote)
    bus.close()
    assert joined(got)["when"].dtype == np.dtype("M8[ns]")
    assert joined(got)["when"].view("i8").tolist() == sent["when"].view("i8").tolist()
    assert got[0][0].when == 1_704_164_645_678_901_234


# --- others ---


def test_pandas(batches):
    pandas = pytest.importorskip("pandas")
    got = batches(trades, Trade)
    frame = pandas.concat([pandas.DataFrame(batch.array) for batch in got], ignore_index=True)
    assert list(frame.columns) == ["price", "size", "symbol"]
    assert frame["size"].tolist() == trades["size"].tolist()
    assert frame["price"].sum() == trades["price"].sum()
    columns = pandas.DataFrame({name: np.asarray(got[0][name]) for name in ("price", "size")})
    assert columns["price"].tolist() == trades["price"][: len(columns)].tolist()


def test_pandas_back_to_records(bus, recorder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"price": [1.5, 2.5], "size": np.array([1, 2], np.int32), "symbol": [b"a", b"b"]})
    bus.subscribe(Trade, recorder)
    rows = frame.to_records(index=False).astype(Trade.dtype)
    assert bus.publish_many(rows, Trade) == 2
    assert recorder.wait_for(2) == [Trade(1.5, 1, b"a"), Trade(2.5, 2, b"b")]


def test_arrow(batches):
    arrow = pytest.importorskip("pyarrow")
    got = batches(trades, Trade)
    tables = [
        arrow.table({name: arrow.array(np.ascontiguousarray(batch[name])) for name in ("price", "size", "symbol")})
        for batch in got
    ]
    table = arrow.concat_tables(tables)
    assert table.num_rows == 2000
    assert table["price"].to_pylist() == trades["price"].tolist()
    assert table["size"].to_pylist() == trades["size"].tolist()
    assert table["symbol"].to_pylist() == trades["symbol"].tolist()


def test_arrow_takes_the_memory_of_a_batch(bus):
    """Of a record of one field, whose values stand side by side, without a copy; and keeps it."""
    arrow = pytest.importorskip("pyarrow")

    @record
    class Price:
        price: float64

    kept = []

    def handler(batch: RecordBatch[Price]) -> None:
        buffer = arrow.py_buffer(batch)
        assert buffer.address == batch.array.ctypes.data
        kept.append((batch[0].price, arrow.Array.from_buffers(arrow.float64(), len(batch), [None, buffer])))

    bus.subscribe(handler, batch=100)
    for _ in range(20):
        bus.publish_many(np.arange(5000.0).tobytes(), Price)
    bus.close()
    for first, array in kept:
        assert array.to_pylist() == [(first + at) % 5000 for at in range(len(array))]


def test_polars(batches):
    polars = pytest.importorskip("polars")
    got = batches(trades, Trade)
    frame = polars.concat(
        [polars.DataFrame({name: np.ascontiguousarray(batch[name]) for name in ("price", "size")}) for batch in got]
    )
    assert frame["price"].to_list() == trades["price"].tolist()
    assert frame["size"].to_list() == trades["size"].tolist()
    assert polars.from_numpy(got[0].array[["price", "size"]])["size"].to_list() == list(range(len(got[0])))


@pytest.mark.parametrize("kind", [int8, int16, int32, int64, uint16, uint32, uint64, float32, float64])
def test_every_kind_of_number_there_and_back(bus, kind):
    made = record(type("Made", (), {"__annotations__": {"first": int8, "value": kind}}))
    got = []
    bus.subscribe(made, got.append, batch=10)
    sent = np.zeros(5, made.dtype)
    info = np.iinfo if sent["value"].dtype.kind in "iu" else np.finfo
    sent["value"] = [info(sent["value"].dtype).min, info(sent["value"].dtype).max, 0, 1, 2]
    bus.publish_many(sent, made)
    bus.close()
    assert joined(got)["value"].tolist() == sent["value"].tolist() == [each.value for batch in got for each in batch]
