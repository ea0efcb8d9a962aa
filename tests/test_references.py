"""Reference counts: what is published, however it is, and whoever is woken by it, leaves them as they were."""

import gc
import re
import sys
import threading
from pathlib import Path

import pytest
from limits import DEADLINE

from ringcast import _core, record
from ringcast.records import uint64

RECORDS = 262_144  # 4 MiB of them: they are copied without the GIL


@record
class Item:
    producer: uint64
    number: uint64


@pytest.fixture
def topic_of():
    """The topic of a subscription, an object of the core."""
    return lambda subscription: next(one for one in gc.get_referents(subscription) if type(one) is _core.Topic)


@pytest.fixture
def count_beside(spawn):
    """Runs something while another thread counts references to some objects up and down, all the time."""

    def run(something, *objects):
        stop = threading.Event()

        def count():
            while not stop.is_set():
                for _ in range(100):
                    taken = list(objects)
                    taken.clear()

        counting = spawn(count)
        try:
            something()
        finally:
            stop.set()
        counting.result(DEADLINE)

    return run


@pytest.mark.parametrize("options", [{}, {"batch": 65_536}, {"policy": "drop_oldest"}], ids=str)
def test_large_publish_many_counts_no_reference_without_the_gil(make_bus, topic_of, count_beside, eventually, options):
    bus = make_bus(max_queue=2 * RECORDS)
    subscription = bus.subscribe(Item, lambda records: None, **options)
    topic, data = topic_of(subscription), bytes(RECORDS * Item.itemsize)
    bus.publish_many(data[: 16 * Item.itemsize], Item)
    assert bus.wait_idle(DEADLINE)

    def counts():
        return [sys.getrefcount(one) for one in (bus, topic, subscription)]

    before = []
    eventually(lambda: before == counts() or (before.clear(), before.extend(counts()))[0])  # once the worker is done
    part = RECORDS // 8 if not options else RECORDS  # one by one they take longer

    def publish():
        for _ in range(20):
            assert bus.publish_many(data[: part * Item.itemsize], Item) == part

    count_beside(publish, bus, topic, subscription)
    assert bus.wait_idle(4 * DEADLINE)
    eventually(lambda: counts() == before)
    if "policy" not in options:
        assert subscription.delivered == 20 * part + 16


def test_large_publish_many_wakes_handlers_while_it_copies(make_bus, make_gate):
    bus, gate = make_bus(max_queue=2 * RECORDS), make_gate()
    bus.subscribe(Item, gate.hold, batch=10)
    assert bus.publish_many(bytes(RECORDS * Item.itemsize), Item) == RECORDS
    gate.wait_until_held()


def test_no_function_that_touches_a_count_is_declared_as_one_that_needs_no_gil():
    # as long as none is, Cython refuses to call one where the GIL may not be held
    counting = re.compile(r"\b(Py_X?(INCREF|DECREF)|Py_NewRef|Py(Object|List|Tuple|Dict)_\w+|rc_share|raise_current)\(")
    declaration = re.compile(r" +\w[\w ]* \*?\w+\([^()]*\)( except \S+)?( noexcept)?( nogil)?$")
    sources = sorted((Path(__file__).parent.parent / "src/ringcast").rglob("*.p[yx][xdi]"))
    if not sources:
        pytest.skip("the installed package has no sources")
    found = []
    for source in sources:
        is_nogil = False
        for line in source.read_text().splitlines():
            if line.startswith("cdef"):
                is_nogil = line.startswith("cdef extern") and "nogil" in line
            if counting.search(line) and declaration.match(line):
                found.append(line)
                assert not is_nogil, f"{source.name}: {line}"
                assert not line.endswith("nogil"), f"{source.name}: {line}"
    assert len(found) >= 6, found  # it has seen them
