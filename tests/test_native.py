"""Native handlers and the C API: C functions that are called with runs of records, and records published from C.

The C side is tests/native/client.c, built once for all tests here. They are skipped where there is no C compiler.
"""

import array
import ctypes
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from pathlib import Path

import pytest
from forking import fork

import ringcast
from ringcast import (
    ClosedError,
    CloseTimeoutError,
    EventClassError,
    HandlerTypeError,
    OptionError,
    QueueFullError,
    RecordError,
    _core,
    record,
)
from ringcast.records import uint64

OK, FULL, CLOSED, NO_MEMORY, FAILED = range(5)
FOREVER = -1

# the int64s that the C handlers count in
COUNT, SUM, DISORDER, WITH_GIL, MOST = range(5)
ARRIVED, RELEASED, PASSED = range(3)


HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


@record
class Item:
    producer: uint64
    number: uint64


def counters():
    return array.array("q", [0] * 32)


def items(count, producer=0):
    return b"".join(bytes(Item(producer, number)) for number in range(count))


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """The extension tests/native/client.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("native") / f"client{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [f"-I{ringcast.get_include()}", f"-I{sysconfig.get_path('include')}"]
    link = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
    source = Path(__file__).parent / "native" / "client.c"
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *includes, *link]
    subprocess.run([*command, str(source), "-o", str(built), "-pthread"], check=True)
    spec = importlib.util.spec_from_file_location("client", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def publish(client):
    """Publishes from so many threads that Python does not know; 0: from this one."""

    def run(bus, threads, count, part=1, timeout=FOREVER):
        return client.publish(bus, Item, threads, count, part, timeout)

    return run


@pytest.fixture
def make_held(make_bus, client, eventually):
    """Subscribes native handlers that hold at their first record; they are let go at the end."""
    made = []

    def make(bus, **options):
        gate = counters()
        made.append(gate)
        return gate, bus.subscribe_native(Item, client.hold, gate, **options)

    yield make
    for gate in made:
        gate[RELEASED] = 1


# --- delivery ---------------------------------------------------------------------------------------------


def test_a_native_handler_gets_every_record_in_order_and_without_the_gil(bus, client):
    seen = counters()
    subscription = bus.subscribe_native(Item, client.observe, seen)
    assert bus.publish_many(items(10_000), Item) == 10_000
    assert bus.publish(Item(0, 10_000)) == 1
    bus.close()
    assert (seen[COUNT], seen[SUM], seen[DISORDER]) == (10_001, sum(range(10_001)), 0)
    # PyGILState_Check is always true where there is no GIL to hold and the thread has a state
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        assert seen[WITH_GIL] == 0
    assert seen[MOST] <= 512
    assert (subscription.delivered, subscription.pending, subscription.dropped) == (10_001, 0, 0)
    assert subscription.mode == "native"


@pytest.mark.parametrize("part", [1, 7, 64])
def test_records_of_threads_that_python_does_not_know_reach_all_in_the_order_of_each(bus, client, publish, part):
    threads, count = 4, 20_000
    native = [counters() for _ in range(3)]
    for seen in native:
        bus.subscribe_native(Item, client.observe, seen)
    last, disorder = {}, []

    def check(item: Item) -> None:
        if item.number != last.get(item.producer, -1) + 1:
            disorder.append(item)
        last[item.producer] = item.number

    bus.subscribe(Item, check)
    assert publish(bus, threads, count, part) == [(OK, count)] * threads
    bus.close()
    for seen in native:
        assert (seen[COUNT], seen[SUM], seen[DISORDER]) == (threads * count, threads * sum(range(count)), 0)
    assert last == dict.fromkeys(range(threads), count - 1)
    assert disorder == []


def test_back_pressure_loses_nothing(make_bus, client, publish):
    bus, seen = make_bus(max_queue=10), counters()
    bus.subscribe_native(Item, client.observe, seen)
    assert publish(bus, 2, 20_000) == [(OK, 20_000)] * 2
    assert bus.publish_many(items(1000, producer=5), Item) == 1000
    bus.close()
    assert (seen[COUNT], seen[DISORDER]) == (41_000, 0)


def test_a_held_native_handler_delays_no_other_native_one(bus, client, make_held, eventually, deadline):
    gate, held = make_held(bus)
    seen = counters()
    bus.subscribe_native(Item, client.observe, seen)
    bus.publish(Item(0, 0))
    eventually(lambda: gate[ARRIVED])
    bus.publish_many(items(5000, producer=1), Item)
    eventually(lambda: seen[COUNT] == 5001)
    assert held.pending == 5001
    gate[RELEASED] = 1
    assert bus.wait_idle(deadline)
    assert gate[PASSED] == held.delivered == 5001


def test_native_and_python_handlers_do_not_wait_for_each_other(bus, client, make_held, gate, recorder, eventually):
    held_native, _ = make_held(bus)
    bus.subscribe(Item, gate.hold)
    seen = counters()
    bus.subscribe_native(Item, client.observe, seen)
    bus.subscribe(Item, recorder)
    bus.publish(Item(0, 0))
    gate.wait_until_held()
    eventually(lambda: held_native[ARRIVED])
    bus.publish_many(items(1000, producer=1), Item)
    eventually(lambda: seen[COUNT] == 1001)
    assert len(recorder.wait_for(1001)) == 1001


@pytest.mark.thread_unsafe(reason="the C handler publishes to one topic of the process")
def test_a_native_handler_that_publishes_into_its_own_full_queue_does_not_wait_for_itself(make_bus, client, deadline):
    bus, seen = make_bus(max_queue=4), counters()
    bus.subscribe_native(Item, client.observe, seen)
    bus.subscribe_native(Item, client.forward)
    client.start_forwarding(bus, Item)
    for producer in range(8):
        bus.publish(Item(producer, 20))
    assert bus.wait_idle(deadline)
    assert client.stop_forwarding() == (8 * 20, 0)
    assert seen[COUNT] == 8 * 21


def test_one_subscription_that_joins_late_misses_what_was_before(bus, client, deadline):
    early, late = counters(), counters()
    bus.subscribe_native(Item, client.observe, early)
    bus.publish_many(items(100), Item)
    assert bus.wait_idle(deadline)
    bus.subscribe_native(Item, client.observe, late)
    bus.publish_many(items(50, producer=1), Item)
    bus.close()
    assert (early[COUNT], late[COUNT]) == (150, 50)


def test_native_handlers_come_and_go_while_records_are_published(bus, client, publish, spawn, deadline):
    steady = counters()
    bus.subscribe_native(Item, client.observe, steady)
    publishing = spawn(publish, bus, 2, 100_000, 16)
    rounds = 0
    while not publishing.done() or rounds < 20:
        seen = counters()
        with bus.subscribe_native(Item, client.observe, seen) as subscription:
            pass
        assert seen[COUNT] == subscription.delivered
        assert (seen[DISORDER], subscription.pending) == (0, 0)
        rounds += 1
    assert publishing.result(deadline) == [(OK, 100_000)] * 2
    bus.close()
    assert (steady[COUNT], steady[DISORDER]) == (200_000, 0)


# --- the end ----------------------------------------------------------------------------------------------


def test_cancel_delivers_what_was_accepted_and_nothing_later(bus, client, make_held, eventually, deadline):
    gate, subscription = make_held(bus)
    bus.publish_many(items(10), Item)
    eventually(lambda: gate[ARRIVED])
    subscription.cancel()
    assert bus.publish_many(items(5), Item) == 5
    gate[RELEASED] = 1
    assert bus.wait_idle(deadline)
    assert gate[PASSED] == subscription.delivered == 10
    assert bus.count(Item) == 0


def test_cancel_with_discard_drops_and_counts_what_its_handler_has_not_begun(
    bus, client, make_held, eventually, deadline
):
    gate, subscription = make_held(bus)
    bus.publish(Item(0, 0))
    eventually(lambda: gate[ARRIVED])
    bus.publish_many(items(1000), Item)
    subscription.cancel(discard=True)
    gate[RELEASED] = 1
    assert bus.wait_idle(deadline)
    assert gate[PASSED] == subscription.delivered == 1
    assert subscription.dropped == 1000


def test_slow_subscriptions_end_in_their_lanes_while_their_topic_is_run(bus, client, spawn, eventually, deadline):
    """Whoever runs the topic looks at members that the workers of their lanes have just freed: seen by sanitizers."""
    over = threading.Event()

    def publish():
        while not over.is_set():
            bus.publish_many(items(10), Item)

    @HANDLER
    def be_slow(*arguments):
        time.sleep(0.002)

    bus.subscribe_native(Item, client.observe, counters())  # quick: the topic is run without end
    publishing = spawn(publish)
    subscriptions = []
    for _ in range(20):
        subscriptions.extend(bus.subscribe_native(Item, be_slow) for _ in range(4))
        eventually(lambda: all(subscription.delivered >= 10 for subscription in subscriptions))
        while subscriptions:
            subscriptions.pop().cancel(discard=True)  # which was all that kept it
    over.set()
    publishing.result(deadline)
    assert bus.wait_idle(deadline)
    assert bus.count(Item) == 1


def test_a_subscription_that_never_got_anything_can_be_left(bus, client):
    with bus.subscribe_native(Item, client.observe, counters()) as subscription:
        assert bus.count(Item) == 1
    assert not subscription.active
    assert bus.count(Item) == 0


def test_close_names_the_native_handler_that_is_stuck(make_bus, client, make_held, eventually):
    bus = make_bus()
    gate, _ = make_held(bus)
    bus.publish(Item(0, 0))
    eventually(lambda: gate[ARRIVED])
    with pytest.raises(CloseTimeoutError, match=r"int \(1 pending\)"):
        bus.close(timeout=0.05)
    gate[RELEASED] = 1
    bus.close()
    assert gate[PASSED] == 1


def test_a_dispatcher_lives_while_it_has_native_subscriptions_and_no_longer(client, eventually):
    bus, seen = ringcast.Dispatcher(), counters()
    subscription = bus.subscribe_native(Item, client.observe, seen)
    bus.publish(Item(0, 0))
    gone = weakref.ref(bus)
    del bus
    gc.collect()
    eventually(lambda: seen[COUNT] == 1)
    assert gone() is not None
    subscription.cancel()

    def is_gone():
        gc.collect()
        return gone() is None

    eventually(is_gone)
    assert not subscription.active


def test_idle_native_workers_do_not_wake_up(client, run_python):
    pytest.importorskip("psutil")
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("counts context switches as Linux does")
    program = f"""
        import array, importlib.util, psutil, threading
        from ringcast import Dispatcher, record
        from ringcast.records import uint64
        spec = importlib.util.spec_from_file_location("client", {client.__file__!r})
        client = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(client)
        @record
        class Item:
            producer: uint64
            number: uint64
        with Dispatcher() as bus:
            bus.subscribe_native(Item, client.observe, array.array("q", [0] * 32))
            bus.publish(Item(0, 0))
            assert bus.wait_idle(5)
            pause = threading.Event()
            pause.wait(0.1)
            def switches():
                with open("/proc/self/task/%d/status" % tid) as status:
                    return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
            counts = []
            tids = [thread.native_id for thread in threading.enumerate() if thread is not threading.main_thread()]
            assert len(tids) >= 2
            for _ in range(2):
                total = 0
                for tid in tids:
                    total += switches()
                counts.append(total)
                pause.wait(1)
            assert counts[0] == counts[1], counts
    """
    result = run_python("\n".join(line[8:] for line in program.splitlines()))
    assert (result.returncode, result.stderr) == (0, "")


# --- what it is told --------------------------------------------------------------------------------------


def test_a_function_of_ctypes_is_a_native_handler(bus):
    got = []

    @HANDLER
    def handler(records, count, stride, userdata):
        got.append(ctypes.string_at(records, count * stride))

    bus.subscribe_native(Item, handler)
    bus.publish_many(items(100), Item)
    bus.close()
    assert b"".join(got) == items(100)


def test_a_callback_of_cffi_is_a_native_handler(bus):
    cffi = pytest.importorskip("cffi")
    ffi, got = cffi.FFI(), []

    @ffi.callback("void(void *, size_t, size_t, void *)")
    def handler(records, count, stride, userdata):
        got.append(bytes(ffi.buffer(records, count * stride)))

    bus.subscribe_native(Item, int(ffi.cast("uintptr_t", handler)))
    bus.publish_many(items(100), Item)
    bus.close()
    assert b"".join(got) == items(100)


def test_a_cfunc_of_numba_is_a_native_handler(bus):
    numba = pytest.importorskip("numba")
    numpy = pytest.importorskip("numpy")
    types = numba.types

    @numba.cfunc(types.void(types.voidptr, types.size_t, types.size_t, types.CPointer(types.uint64)))
    def add(records, count, stride, total):
        numbers = numba.carray(records, (count, 2), types.uint64)
        for at in range(count):
            total[0] += numbers[at, 1]

    total = numpy.zeros(1, numpy.uint64)
    bus.subscribe_native(Item, add, total)
    bus.publish_many(items(1000), Item)
    bus.close()
    assert total[0] == sum(range(1000))


CYTHON = """
# cython: freethreading_compatible=True
from libc.stdint cimport int64_t

cdef struct Item:
    int64_t producer
    int64_t number

cdef api void add(const void *records, size_t count, size_t stride, void *userdata) noexcept nogil:
    cdef size_t at
    for at in range(count):
        (<int64_t *>userdata)[0] += (<const Item *>records)[at].number
"""


def test_a_nogil_function_of_cython_is_a_native_handler(bus, client, tmp_path):
    pytest.importorskip("Cython")
    (tmp_path / "adder.pyx").write_text(CYTHON)
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "-q", "-3", "-i", "adder.pyx"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    spec = importlib.util.spec_from_file_location("adder", next(tmp_path.glob("adder*.so")))
    adder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adder)
    total = counters()
    bus.subscribe_native(Item, adder.__pyx_capi__["add"], total)
    bus.publish_many(items(1000), Item)
    bus.close()
    assert total[0] == sum(range(1000))


def new_capsule(pointer, name):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule_names.append(name)
    return new(pointer, name, None)


capsule_names = []  # a capsule points to its name


@pytest.mark.parametrize(
    "name",
    [
        None,
        b"void (const void *, size_t, size_t, void *)",
        b"void (void const *, size_t, size_t, void *)",
        b"void (*)(const void *, size_t, size_t, void *)",
    ],
)
def test_a_capsule_is_a_native_handler(bus, client, name):
    seen = counters()
    bus.subscribe_native(Item, new_capsule(client.observe, name), seen)
    bus.publish(Item(0, 3))
    bus.close()
    assert (seen[COUNT], seen[SUM]) == (1, 3)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (print, "not .*print"),
        ("add", "not 'add'"),
        (None, "not None"),
        (True, "not True"),
        (0, "not at 0x0"),
        (-1, "not at -0x1"),
        (1 << 64, "not at 0x10000000000000000"),
        (1.5, "not 1.5"),
        (new_capsule(1, b"double (double)"), r"a capsule of 'double \(double\)' is no native handler"),
    ],
)
def test_what_has_no_address_of_a_handler_is_refused(bus, handler, message):
    with pytest.raises(HandlerTypeError, match=message):
        bus.subscribe_native(Item, handler)
    assert bus.count(Item) == 0


@pytest.mark.parametrize("userdata", [b"read-only", "text", 1.5, -1, 1 << 64, True])
def test_userdata_that_is_no_address_or_writable_buffer_is_refused(bus, userdata):
    with pytest.raises(OptionError, match="userdata is an address"):
        bus.subscribe_native(Item, 1, userdata)


def test_a_buffer_of_userdata_is_kept_and_locked_until_the_subscription_ends(bus, client, deadline):
    seen = counters()
    with bus.subscribe_native(Item, client.observe, seen):
        with pytest.raises(BufferError):
            seen.append(0)
        gone = weakref.ref(seen)
        bus.publish(Item(0, 0))
    assert bus.wait_idle(deadline)
    assert gone() is seen
    assert seen[COUNT] == 1


def test_userdata_may_be_an_address_or_a_capsule(bus, client):
    seen = [counters(), counters()]
    addresses = [each.buffer_info()[0] for each in seen]
    bus.subscribe_native(Item, client.observe, addresses[0])
    bus.subscribe_native(Item, client.observe, new_capsule(addresses[1], b"any"))
    bus.publish(Item(0, 0))
    bus.close()
    assert [each[COUNT] for each in seen] == [1, 1]


@pytest.mark.parametrize("event_class", [int, object, type("Plain", (), {}), ringcast.Record])
def test_a_class_that_is_no_record_type_is_refused(bus, event_class):
    with pytest.raises(RecordError, match="a record type is needed"):
        bus.subscribe_native(event_class, 1)


def test_what_is_no_class_is_refused(bus):
    with pytest.raises(EventClassError, match="an event class is a class"):
        bus.subscribe_native(Item(0, 0), 1)


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest", "lossy"])
def test_a_native_handler_drops_nothing(bus, client, policy):
    with pytest.raises(OptionError, match="policy"):
        bus.subscribe_native(Item, client.observe, policy=policy)


def test_native_is_no_mode_of_subscribe(bus):
    with pytest.raises(OptionError, match="subscribe_native"):
        bus.subscribe(Item, print, mode="native")


def test_a_closed_dispatcher_refuses(make_bus, client):
    bus = make_bus()
    bus.close()
    with pytest.raises(ClosedError):
        bus.subscribe_native(Item, client.observe)


def test_an_id_that_was_used_before_its_record_type_was_known_keeps_objects(bus, client, recorder):
    @record
    class Late:
        __event_type__ = 0x77
        number: uint64

    bus.subscribe_to(0x77, recorder)
    with pytest.raises(RecordError, match="use the class before the id"):
        bus.subscribe_native(Late, client.observe)
    bus.publish(Late(1))
    assert recorder.wait_for(1) == [Late(1)]


# --- the C API --------------------------------------------------------------------------------------------


def test_the_header_is_where_get_include_says():
    assert (Path(ringcast.get_include()) / "ringcast.h").is_file()


def test_what_c_publishes_for_nobody_reaches_nobody(bus, publish):
    assert publish(bus, 1, 10) == [(OK, 10)]


def test_c_is_told_that_the_dispatcher_is_closed(make_bus, client, publish):
    for subscribed in (False, True):
        bus = make_bus()
        if subscribed:
            bus.subscribe_native(Item, client.observe, counters())
        topic_of_open = publish(bus, 1, 1)
        bus.close()
        assert topic_of_open == [(OK, 1)]
        with pytest.raises(ClosedError):
            publish(bus, 1, 1)


def test_a_close_ends_the_wait_of_a_publisher_in_c(make_bus, client, make_held, publish, spawn, eventually, deadline):
    bus = make_bus(max_queue=4)
    gate, subscription = make_held(bus)
    publishing = spawn(publish, bus, 1, 100)
    eventually(lambda: subscription.pending == 4)
    closing = spawn(bus.close)
    assert publishing.result(deadline) == [(CLOSED, 4)]
    gate[RELEASED] = 1
    closing.result(deadline)
    assert gate[PASSED] == 4


def test_a_direct_handler_that_joins_while_a_publisher_in_c_waits_has_the_rest(
    make_bus, make_held, publish, recorder, spawn, eventually, deadline
):
    bus = make_bus(max_queue=4)
    gate, subscription = make_held(bus)
    publishing = spawn(publish, bus, 1, 64, 64)
    eventually(lambda: subscription.pending == 4)
    bus.subscribe(Item, recorder, mode="direct")
    gate[RELEASED] = 1
    assert publishing.result(deadline) == [(OK, 64)]
    assert [item.number for item in recorder.wait_for(60)] == list(range(4, 64))


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("part", [1, 64])
def test_a_cancelled_subscription_whose_handler_hangs_holds_up_no_publisher_in_c(
    make_bus, client, publish, gate, part, discard
):
    bus, seen = make_bus(max_queue=10), counters()
    hung = bus.subscribe(Item, lambda item: gate.hold())
    bus.subscribe_native(Item, client.observe, seen)
    bus.publish(Item(0, 0))
    gate.wait_until_held()
    hung.cancel(discard=discard)
    assert publish(bus, 2, 1000, part) == [(OK, 1000)] * 2
    gate.open()


@pytest.mark.parametrize("part", [1, 64])
def test_a_publisher_in_c_waits_no_longer_than_its_timeout(make_bus, make_held, publish, part):
    bus = make_bus(max_queue=10)
    gate, subscription = make_held(bus)
    assert publish(bus, 1, 100, part, timeout=1_000_000) == [(FULL, 10)]
    assert publish(bus, 0, 100, part, timeout=0) == [(FULL, 0)]
    gate[RELEASED] = 1
    bus.close()
    assert gate[PASSED] == subscription.delivered == 10


def test_a_subscription_of_policy_raise_refuses_records_of_c_and_python(make_bus, make_held, publish):
    bus = make_bus()
    gate, _ = make_held(bus, policy="raise", max_queue=3)
    assert publish(bus, 1, 100) == [(FULL, 3)]
    with pytest.raises(QueueFullError) as raised:
        bus.publish_many(items(10), Item)
    assert raised.value.published == 0
    gate[RELEASED] = 1
    bus.close()
    assert gate[PASSED] == 3


def test_a_python_subscription_that_drops_never_holds_up_a_publisher_in_c(make_bus, client, publish, gate):
    bus, seen = make_bus(max_queue=10), counters()
    bus.subscribe_native(Item, client.observe, seen)
    dropping = bus.subscribe(Item, gate.hold, policy="drop_oldest", max_queue=5)
    assert publish(bus, 2, 1000) == [(OK, 1000)] * 2
    gate.open()
    bus.close()
    assert (seen[COUNT], seen[DISORDER]) == (2000, 0)
    assert dropping.delivered + dropping.dropped == 2000


def test_what_c_publishes_reaches_every_kind_of_subscription(bus, client, publish):
    direct, tap, context = [], [], []
    seen = counters()
    bus.subscribe_native(Item, client.observe, seen)
    bus.subscribe(Item, direct.append, mode="direct")
    bus.subscribe(object, tap.append)
    bus.subscribe(Item, context.append, context="publisher")
    assert publish(bus, 1, 100, 8) == [(OK, 100)]
    bus.close()
    expected = [Item(0, number) for number in range(100)]
    assert direct == tap == context == expected
    assert (seen[COUNT], seen[DISORDER]) == (100, 0)


def test_what_c_publishes_reaches_subscriptions_to_several_classes(bus, publish, recorder, deadline):
    class Other:
        pass

    bus.subscribe((Item, Other), recorder)
    assert publish(bus, 1, 100, 8) == [(OK, 100)]
    assert bus.publish(Other()) == 1
    bus.close(deadline)
    assert recorder.events[:-1] == [Item(0, number) for number in range(100)]
    assert type(recorder.events[-1]) is Other


def test_what_a_direct_handler_raises_ends_a_publish_from_c_as_failed(make_bus, publish, monkeypatch):
    bus, told = make_bus(on_error="raise"), []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fail(item: Item) -> None:
        raise ValueError(item.number)

    bus.subscribe(Item, fail, mode="direct")
    assert publish(bus, 1, 1) == [(FAILED, 1)]
    assert [type(each.exc_value) for each in told] == [ExceptionGroup]


def test_a_python_handler_that_joins_later_is_woken_by_a_publisher_in_c(bus, client, publish, recorder):
    bus.subscribe_native(Item, client.observe, counters())
    publish(bus, 1, 10)
    bus.subscribe(Item, recorder)
    publish(bus, 1, 10)
    assert len(recorder.wait_for(10)) == 10


@pytest.mark.parametrize("options", [{}, {"batch": 100}, {"policy": "drop_oldest"}], ids=str)
def test_what_c_publishes_leaves_reference_counts_as_they_were(make_bus, publish, spawn, eventually, options, deadline):
    # each call of `publish` takes a lease on the topic and ends it at once, while the worker begins and ends to run
    bus, stop = make_bus(), threading.Event()
    subscription = bus.subscribe(Item, lambda item: None, **options)
    topic = next(one for one in gc.get_referents(subscription) if type(one) is _core.Topic)

    def counts():
        return [sys.getrefcount(one) for one in (bus, topic, subscription)]

    def count():
        while not stop.is_set():
            taken = [bus, topic, subscription]
            taken.clear()

    publish(bus, 1, 1)
    assert bus.wait_idle(deadline)
    before = []
    eventually(lambda: before == counts() or before.__setitem__(slice(None), counts()))  # once the worker is done
    counting = spawn(count)
    try:
        for number in range(300):
            publish(bus, number % 3, 5)
    finally:
        stop.set()
    counting.result(deadline)
    assert bus.wait_idle(deadline)
    eventually(lambda: counts() == before)


def test_a_dispatcher_is_dropped_while_what_c_has_published_waits(publish, eventually, deadline):
    for _ in range(50):
        bus, got = ringcast.Dispatcher(name="dropped"), []
        bus.subscribe(Item, got.append)
        publish(bus, 2, 10)  # whose lease is over
        del bus
        eventually(lambda got=got: len(got) == 20)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("dropped-")])


def test_a_publisher_in_c_does_not_wait_for_the_gil(bus, publish, recorder, spawn, deadline):
    subscription = bus.subscribe(Item, recorder)
    publish(bus, 0, 1)
    recorder.wait_for(1)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # seconds: from here on this thread has the GIL until it waits for something
    try:
        publishing = spawn(publish, bus, 4, 1000)
        end = time.monotonic() + deadline
        while bus.stats().topics[0].published < 4001 and time.monotonic() < end:
            pass
        assert bus.stats().topics[0].published == 4001
    finally:
        sys.setswitchinterval(interval)
    publishing.result(deadline)
    assert bus.wait_idle(deadline)
    assert subscription.delivered == 4001


def test_a_subscription_made_in_c_keeps_its_owner(bus, client, eventually):
    class Owner:
        pass

    owner, seen = Owner(), counters()
    gone = weakref.ref(owner)
    subscription = client.subscribe_observer(bus, Item, seen.buffer_info()[0], owner)
    del owner
    gc.collect()
    assert gone() is not None
    bus.publish(Item(0, 0))
    with subscription:
        pass
    assert seen[COUNT] == 1
    del subscription

    def is_gone():
        gc.collect()
        return gone() is None

    eventually(is_gone)


@pytest.mark.parametrize("arguments", [(object(), Item), (None, Item)])
def test_the_c_api_refuses_what_is_no_dispatcher(client, arguments):
    with pytest.raises(TypeError, match="a Dispatcher is needed"):
        client.publish(*arguments, 1, 1, 1, 0)
    with pytest.raises(TypeError, match="a Dispatcher is needed"):
        client.subscribe_observer(*arguments, 0, None)


def test_the_c_api_refuses_what_is_no_record_type(bus, client):
    for event_class in (int, "Item", None):
        with pytest.raises(RecordError):
            client.publish(bus, event_class, 1, 1, 1, 0)


@pytest.mark.parametrize(("version", "size"), [(2, 1000), (0, 1000), (1, 8)])
def test_another_version_of_the_c_api_is_an_import_error(client, monkeypatch, version, size):
    table = (ctypes.c_uint32 * 64)(version, size)
    monkeypatch.setattr(_core, "_C_API", new_capsule(ctypes.addressof(table), b"ringcast._core._C_API"))
    spec = importlib.util.spec_from_file_location("client", client.__file__)
    with pytest.raises(ImportError, match=f"built for version 1 .* installed has version {version}"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_native_delivery_goes_on_in_a_forked_child(bus, client, deadline):
    seen = counters()
    bus.subscribe_native(Item, client.observe, seen)
    bus.publish(Item(0, 0))
    assert bus.wait_idle(deadline)

    def child():
        bus.publish_many(items(100, producer=1), Item)
        assert bus.wait_idle(deadline)
        assert seen[COUNT] == 101

    assert fork(child) == 0
    bus.publish(Item(0, 1))
    bus.close()
    assert seen[COUNT] == 2


@pytest.mark.forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("own_thread", [False, True])
@pytest.mark.parametrize("is_native", [False, True])
@pytest.mark.parametrize("by_threads", [0, 1])
def test_what_is_published_in_c_in_a_forked_child_is_delivered(
    bus, client, deadline, own_thread, is_native, by_threads
):
    if is_native:
        subscription = bus.subscribe_native(Item, client.observe, counters(), own_thread=own_thread)
    else:
        subscription = bus.subscribe(Item, lambda item: None, own_thread=own_thread)

    def child():
        client.publish(bus, Item, by_threads, 3, 1, -1)
        bus.close(deadline)
        assert subscription.delivered == 3

    assert fork(child) == 0


def test_threads_of_the_native_pool_have_names(bus, client):
    bus.subscribe_native(Item, client.observe, counters())
    names = {thread.name for thread in threading.enumerate()}
    assert {"ringcast-native-1", "ringcast-native-watch"} <= names
