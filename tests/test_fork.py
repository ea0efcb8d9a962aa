"""fork: in the child subscriptions stay, what was waiting is the parent's, and workers start again.

Each program runs in an interpreter of its own, as no thread of the tests shall be forked. A child that hangs is ended
by its alarm.
"""

import os
import subprocess
import sys

import pytest
from forking import PRELUDE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.forks,
]


@pytest.fixture
def run_forking(run_until_done):
    return lambda program: run_until_done(PRELUDE + program)


@pytest.mark.parametrize(
    ("options", "waiting"),
    [
        ("", 99),
        ("own_thread=True", 99),
        ("where=lambda tick: True", 99),
        ("context='publisher'", 99),
        ("policy='raise'", 99),
        ("max_queue=10, policy='drop_newest'", 10),
        ("max_queue=10, policy='drop_oldest'", 10),
        ("policy='latest'", 1),
        ("policy='latest', own_thread=True", 1),
        ("policy='latest', max_queue=10, key=lambda tick: tick.number", 10),
        ("policy='drop_oldest', max_queue=10, where=lambda tick: True", 10),
    ],
)
def test_what_was_waiting_is_delivered_by_the_parent_and_dropped_by_the_child(run_forking, options, waiting):
    run_forking(f"""
bus, slow = Dispatcher(), Slow()
subscription = bus.subscribe(Tick, slow, {options})
bus.publish(Tick(0))
assert slow.held.wait(DEADLINE)
for number in range(1, 100):
    bus.publish(Tick(number))

def child():
    assert numbers(subscription) == (0, 100, 0, 0), subscription
    slow.opened.set()
    assert slow.got == []
    for number in range(1000, 1005):
        assert bus.publish(Tick(number)) == 1
        assert bus.wait_idle(DEADLINE)
    assert slow.got == list(range(1000, 1005)), slow.got
    assert numbers(subscription) == (5, 100, 0, 0), subscription
    bus.close(DEADLINE)
    assert threading.enumerate() == [threading.main_thread()]

assert fork(child) == 0
slow.opened.set()
bus.close(DEADLINE)
delivered, dropped, _, pending = numbers(subscription)
assert (len(slow.got), dropped, pending) == (delivered, 100 - delivered, 0)
assert delivered == {waiting + 1}, subscription
""")


def test_a_subscription_for_one_event_is_over_in_the_child_if_the_parent_has_begun(run_forking):
    run_forking("""
bus, slow, got = Dispatcher(), Slow(), []
begun = bus.subscribe(Tick, slow, once=True)
fresh = bus.subscribe(Other, got.append, once=True)
bus.publish(Tick())
assert slow.held.wait(DEADLINE)

def child():
    assert not begun.active and numbers(begun) == (0, 1, 0, 0), begun
    assert [bus.publish(event) for event in (Tick(), Other(1), Other(2))][:2] == [0, 1]
    bus.close(DEADLINE)
    assert [event.number for event in got] == [1]

assert fork(child) == 0
slow.opened.set()
bus.close(DEADLINE)
assert slow.got == [0]
""")


def test_an_idle_dispatcher_works_in_parent_and_child(run_forking):
    run_forking("""
bus, got = Dispatcher(), []
subscription = bus.subscribe(Tick, got.append)
bus.publish(Tick())
assert bus.wait_idle(DEADLINE)

def grandchild():
    bus.publish(Tick())
    bus.close(DEADLINE)
    assert len(got) == 3 and numbers(subscription) == (3, 0, 0, 0)

def child():
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert fork(grandchild) == 0
    bus.close(DEADLINE)
    assert len(got) == 2

assert fork(child) == 0
assert fork(child) == 0
bus.publish(Tick())
bus.close(DEADLINE)
assert len(got) == 2
""")


def test_a_child_may_cancel_subscribe_and_drop_the_dispatcher(run_forking):
    run_forking("""
bus, slow = Dispatcher(), Slow()
cancelled = [bus.subscribe(Tick, slow) for _ in range(3)]
discarded = bus.subscribe(Tick, slow)
kept = bus.subscribe(Tick, slow)
for number in range(10):
    bus.publish(Tick(number))
assert slow.held.wait(DEADLINE)
for subscription in cancelled:
    subscription.cancel()
discarded.cancel(discard=True)
before = numbers(discarded)

def child():
    global bus
    for subscription in cancelled:
        with subscription:
            pass
        assert numbers(subscription) == (0, 10, 0, 0), subscription
    assert sum(numbers(discarded)) == 10 and discarded.pending == 0, discarded
    assert bus.count(Tick) == 1
    with kept:
        pass
    assert numbers(kept) == (0, 10, 0, 0)
    got = []
    with bus.subscribe(Tick, got.append):
        bus.publish(Tick())
    assert len(got) == 1
    bus = None
    gc.collect()

assert fork(child) == 0
slow.opened.set()
bus.close(DEADLINE)
assert len(slow.got) == 40 + discarded.delivered
""")


def test_what_is_waiting_is_not_finalized_in_the_child(run_forking):
    run_forking("""
finalized = []

class File(Tick):
    def __del__(self):
        finalized.append(self.number)

bus, slow = Dispatcher(), Slow()
bus.subscribe(File, slow)
for policy in ("drop_oldest", "latest"):
    bus.subscribe(File, slow, policy=policy)
for number in range(1000):
    bus.publish(File(number))
assert slow.held.wait(DEADLINE)

def child():
    global bus
    bus.publish(File(5000))
    slow.opened.set()
    bus.close(DEADLINE)
    bus = None
    gc.collect()
    assert slow.got == [5000] * 3
    assert finalized == [5000]

assert fork(child) == 0
slow.opened.set()
bus.close(DEADLINE)
assert sorted(finalized) == list(range(1000))
""")


def test_a_handler_forks_and_the_child_ends_there(run_forking):
    run_forking("""
codes, got = [], []
bus = Dispatcher(max_queue=10)
other = bus.subscribe(Other, got.append)

def forking(tick):
    def child():
        assert numbers(subscription)[::3] == (tick.number, 1), subscription   # the event in hand
        for number in range(100):   # its own full queue: with nobody to make room
            bus.publish(Tick(number))
            bus.publish(Other(number))
        assert other.pending <= 10
        with bus.subscribe(Other, got.append) as another:
            bus.publish(Other())
        bus.close()
    codes.append(fork(child))

subscription = bus.subscribe(Tick, forking)
for number in range(5):
    bus.publish(Tick(number))
assert bus.wait_idle(DEADLINE)
bus.close(DEADLINE)
assert codes == [0] * 5 and got == []
""")


@pytest.mark.parametrize("policy", ["block", "drop_oldest"])
def test_a_handler_forks_and_the_child_goes_on_as_a_worker(run_forking, policy):
    run_forking(f"""
pids, seen = [], []
bus = Dispatcher(max_workers=1)

def forking(tick):
    seen.append(tick.number)
    if tick.number == 50:
        pid = os.fork()
        pids.append(pid)
        if pid == 0:
            signal.alarm(int(2 * DEADLINE))
            for number in range(1000, 2000):
                bus.publish(Tick(number))
    if tick.number == 1999:   # only in the child
        late = subscription.pending
        ok = seen == [*range(51), *range(1000, 2000)] and late == 1 and subscription.delivered == 1050
        os._exit(0 if ok and subscription.dropped == 949 else 1)

held = threading.Event()
bus.subscribe(Other, lambda other: held.wait(DEADLINE))   # until all is published
subscription = bus.subscribe(Tick, forking, policy={policy!r})
bus.publish(Other())
for number in range(1000):
    bus.publish(Tick(number))
held.set()
assert bus.wait_idle(DEADLINE)
bus.close(DEADLINE)
assert seen == list(range(1000))
assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
""")


def test_a_handler_that_has_its_own_lane_forks(run_forking):
    run_forking("""
codes, quick = [], []
bus = Dispatcher()

def forking(tick):
    # held up until the quick one has got all: it has a lane of its own by then
    end = time.monotonic() + DEADLINE
    while len(quick) < 5:
        assert time.monotonic() < end
        time.sleep(0.001)
    def child():
        bus.publish(Tick(5))
        bus.publish(Other())
        while len(quick) < 6:
            time.sleep(0.001)
    codes.append(fork(child))

bus.subscribe(Tick, forking)
bus.subscribe(Tick, quick.append)
for number in range(5):
    bus.publish(Tick(number))
assert bus.wait_idle(DEADLINE)
bus.close(DEADLINE)
assert codes == [0] * 5 and len(quick) == 5
""")


def test_a_finalizer_and_a_predicate_fork(run_forking):
    run_forking("""
codes = []

class Forking(Tick):
    def __del__(self):
        codes.append(fork(lambda: bus.publish(Other())))

bus, got = Dispatcher(), []
bus.subscribe(Forking, lambda event: None)
bus.subscribe(Other, got.append, policy="drop_oldest", where=lambda event: codes.append(fork(lambda: None)) is None)
for number in range(20):
    bus.publish(Forking(number))
    bus.publish(Other(number))
assert bus.wait_idle(DEADLINE)
bus.close(DEADLINE)
assert len(got) == 20 and codes == [0] * 40, codes
""")


def test_a_direct_handler_forks_and_goes_on_in_both(run_forking):
    run_forking("""
bus, got = Dispatcher(), []
queued = bus.subscribe(Other, got.append)

def forking(tick):
    if tick.number == 0:
        bus.publish(Tick(1))
        codes.append(fork(lambda: (bus.publish(Tick(2)), bus.publish(Other()), bus.wait_idle(DEADLINE))))
    seen.append(tick.number)

codes, seen = [], []
bus.subscribe(Tick, forking, mode="direct")
bus.publish(Tick(0))
assert seen == [0, 1] and codes == [0]

def child():
    bus.publish(Tick(3))
    assert seen == [0, 1, 3]

assert fork(child) == 0
bus.close(DEADLINE)
""")


def test_after_a_direct_handler_has_forked_no_call_is_waited_for_in_either(run_forking):
    run_forking("""
bus, pids, opened = Dispatcher(), [], threading.Event()
held = threading.Event()

def forking(tick):
    if tick.number == 0:
        bus.publish(Tick(1))
        pids.append(os.fork())
        signal.alarm(int(2 * DEADLINE))
        bus.publish(Tick(2))
    if tick.number == 3:
        held.set()
        assert opened.wait(DEADLINE)

sub = bus.subscribe(Tick, forking, mode="direct")
code = 1
try:
    bus.publish(Tick(0))
    assert numbers(sub) == (3, 0, 0, 0), sub
    publisher = threading.Thread(target=bus.publish, args=(Tick(3),))
    publisher.start()
    assert held.wait(DEADLINE)
    assert numbers(sub) == (3, 0, 0, 1), sub
    opened.set()
    with sub:
        pass
    assert numbers(sub) == (4, 0, 0, 0), sub
    publisher.join()
    code = 0
finally:
    if pids[0] == 0:
        if code:
            traceback.print_exc()
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
signal.alarm(0)
""")


# Where another thread is when this one forks, held by `hold()`. What that has published the child counts as dropped.
HELD_IN = {
    "where, drop_oldest": "subscribe(policy='drop_oldest', where=hold)",
    "where, drop_newest": "subscribe(policy='drop_newest', where=hold)",
    "where, latest": "subscribe(policy='latest', where=hold)",
    "where of batches": "subscribe(policy='drop_oldest', where=hold, batch=3)",
    "where, block": "subscribe(where=hold)",
    "where, direct": "subscribe(where=hold, mode='direct')",
    "where, context": "subscribe(policy='drop_oldest', where=hold, context='publisher')",
    "key": "subscribe(policy='latest', max_queue=10, key=hold)",
    "comparison of keys": "subscribe(policy='latest', max_queue=10, key=Key)",
    "finalizer of a dropped event": "subscribe(policy='drop_oldest', max_queue=1, where=lambda tick: True, held=gone)",
    "finalizer of a replaced event": "subscribe(policy='latest', key=lambda tick: 1, held=gone)",
    "handler": "subscribe(handler=hold)",
    "handler of mail": "subscribe(handler=hold, policy='drop_oldest')",
    "handler, direct": "subscribe(handler=hold, mode='direct')",
    "where in the cancel of a subscription for one": "subscribe(policy='drop_oldest', once=True, where=hold_second)",
}

CHILD_DOES = {
    "leaves the block": "with subscription: pass",
    "cancels": "subscription.cancel(); assert bus.wait_idle(DEADLINE)",
    "discards": "subscription.cancel(discard=True); assert bus.wait_idle(DEADLINE)",
    "closes": "bus.close(DEADLINE)",
    "publishes and closes": "publish_more(); bus.close(DEADLINE)",
    "publishes and leaves": "publish_more()\n    with subscription: pass",
}


@pytest.mark.parametrize("does", CHILD_DOES.values(), ids=CHILD_DOES)
@pytest.mark.parametrize("held_in", HELD_IN.values(), ids=HELD_IN)
def test_the_child_ends_what_a_thread_was_at_that_is_not_there(run_forking, held_in, does):
    run_forking(f"""
parent, main = os.getpid(), threading.current_thread()
held, opened, two_published, got = threading.Event(), threading.Event(), threading.Event(), []
bus = Dispatcher(max_queue=100)

def hold(tick, getpid=os.getpid, current=threading.current_thread):   # bound: finalizers run also at the very end
    if getpid() == parent and current() is not main:
        held.set()
        assert opened.wait(DEADLINE)
    return True

def hold_second(tick):
    return hold(tick) if tick.number else two_published.wait(DEADLINE)

class Key:
    def __init__(self, tick):
        self.number = tick.number
    def __hash__(self):
        return 1
    def __eq__(self, other):
        return hold(self) and self.number == other.number

class Gone(Tick):
    def __del__(self):
        hold(self)

def gone(number):
    return Gone(number)

def subscribe(held=Tick, handler=None, **options):
    global make, event_class
    make, event_class = held, Gone if held is gone else Tick
    return bus.subscribe(event_class, handler or (lambda tick: got.append(tick)), **options)

def publish_some():
    number = 0
    while not held.is_set():   # a worker may have handled one before the next is there to be dropped or compared
        bus.publish(make(number))
        number += 1
        if number == 2:
            two_published.set()

def publish_more():
    for number in range(5, 8):
        bus.publish(make(number))

subscription = {held_in}
publisher = threading.Thread(target=publish_some, daemon=True)
publisher.start()
assert held.wait(DEADLINE)

def child():
    before = numbers(subscription)
    assert before[3] == 0, subscription
    {does}
    for each in threading.enumerate():
        assert each is threading.current_thread() or bus.closed is False, each
    delivered, dropped, filtered, pending = numbers(subscription)
    assert pending == 0 and dropped >= before[1], subscription
    assert delivered - before[0] + dropped - before[1] <= 3, subscription
    bus.close(DEADLINE)

assert fork(child) == 0
opened.set()
publisher.join(DEADLINE)
bus.close(DEADLINE)
assert subscription.pending == 0
""")


@pytest.mark.parametrize("held_in", [HELD_IN[name] for name in HELD_IN if "where, " in name or name == "key"])
def test_the_child_counts_each_event_of_a_thread_that_is_not_there_once(run_forking, held_in):
    run_forking(f"""
parent, main = os.getpid(), threading.current_thread()
held, opened = threading.Event(), threading.Event()
bus = Dispatcher()

def hold(tick):
    if os.getpid() == parent and tick.number == 0:
        held.set()
        assert opened.wait(DEADLINE)
    return True

def subscribe(**options):
    return bus.subscribe(Tick, lambda tick: None, **options)

subscription = {held_in}
publisher = threading.Thread(target=bus.publish, args=(Tick(0),))
publisher.start()
assert held.wait(DEADLINE)

def child():
    assert numbers(subscription) == (0, 1, 0, 0), subscription
    bus.publish(Tick(1))
    with subscription:
        pass
    assert numbers(subscription) == (1, 1, 0, 0), subscription

assert fork(child) == 0
opened.set()
publisher.join(DEADLINE)
bus.close(DEADLINE)
assert numbers(subscription) == (1, 0, 0, 0), subscription
""")


@pytest.mark.parametrize("options", ["policy='latest', key=forking", "policy='drop_oldest', where=forking"])
def test_where_or_key_forks_on_a_thread_that_is_no_worker_and_goes_on_in_both(run_forking, options):
    run_forking(f"""
bus, pids, got = Dispatcher(max_workers=1), [], []
main = threading.current_thread()

def forking(tick):
    if tick.number == 1 and not pids and threading.current_thread() is main:
        pids.append(os.fork())
        if pids[0] == 0:
            signal.alarm(int(2 * DEADLINE))
    return True

slow = Slow()
bus.subscribe(Other, slow)   # holds the one worker up
subscription = bus.subscribe(Tick, lambda tick: got.append(tick.number), {options})
bus.publish(Other())
assert slow.held.wait(DEADLINE)
code = 1
try:
    bus.publish(Tick(1))
    subscription.pending   # has the event picked here
    slow.opened.set()
    with subscription:
        pass
    assert numbers(subscription) == (1, 0, 0, 0) and got == [1], (got, subscription)
    assert bus.wait_idle(DEADLINE)
    code = 0
finally:
    if pids[0] == 0:
        if code:
            traceback.print_exc()
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
bus.close(DEADLINE)
""")


def test_asyncio_subscriptions_end_in_the_child_as_their_loop_is_the_parents(run_forking):
    run_forking("""
async def main():
    bus, got = Dispatcher(), []
    started, go_on = asyncio.Event(), asyncio.Event()
    failures = []

    async def handler(tick: Tick) -> None:
        started.set()
        await go_on.wait()
        got.append(tick.number)

    subscription = bus.subscribe(handler, concurrency=3)
    dropping = bus.subscribe(Tick, handler, policy="drop_oldest", max_queue=5)
    stream = bus.stream(Tick)
    for number in range(10):
        bus.publish(Tick(number))
    await started.wait()
    await asyncio.sleep(0)

    def child():
        for each in (subscription, dropping, stream.subscription):
            assert not each.active and each.pending == 0, each
            assert each.delivered + each.dropped == 10, each
        assert bus.count(Tick) == 0 and bus.publish(Tick()) == 0
        assert bus.wait_idle(DEADLINE)

        async def anew():
            again, finished = [], asyncio.Event()
            async def second(tick: Tick) -> None:
                again.append(tick.number)
                finished.set()
            bus.subscribe(second)
            assert bus.publish(Tick(77)) == 1
            await finished.wait()
            await bus.aclose(DEADLINE)
            assert again == [77]
        thread = threading.Thread(target=asyncio.run, args=(anew(),))   # in this one the parent's loop is still running
        thread.start()
        thread.join()
        assert got == []

    loop = asyncio.get_running_loop()
    assert fork(child) == 0
    assert await loop.run_in_executor(None, fork, child) == 0   # from a thread that is not the loop's
    go_on.set()
    assert [(await anext(stream)).number for _ in range(10)] == list(range(10))
    await bus.aclose(DEADLINE)
    assert subscription.delivered == 10 and got.count(9) == 2

asyncio.run(main())
""")


def test_a_fork_while_others_look_for_modules(run_forking):
    """On free-threaded Python `sys.modules.get` holds a mutex, which the child then finds held."""
    run_forking("""
stop = threading.Event()

def look():
    while not stop.is_set():
        sys.modules.copy()   # as inspect does

threads = [threading.Thread(target=look) for _ in range(2)]
for thread in threads:
    thread.start()

got = []
bus = Dispatcher()
bus.subscribe(Tick, got.append)

def child():
    bus.publish(Tick(1))
    bus.close(DEADLINE)
    assert len(got) == 1, got

codes = [fork(child) for _ in range(10)]
stop.set()
for thread in threads:
    thread.join()
bus.close()
assert codes == [0] * 10, codes
""")


def test_a_fork_while_others_publish_subscribe_and_close(run_forking):
    run_forking("""
stop = threading.Event()
bus = Dispatcher(max_queue=100)
received = []
kept = bus.subscribe(Tick, received.append)
bus.subscribe(Tick, lambda tick: None, policy="latest", key=lambda tick: tick.number % 7)
bus.subscribe(object, lambda tick: None, policy="drop_newest", max_queue=3)

def publish():
    while not stop.is_set():
        bus.publish(Tick(1))

def subscribe():
    while not stop.is_set():
        event_class = type("Passing", (Tick,), {})
        with bus.subscribe(event_class, lambda event: None):
            bus.publish(event_class())

def close():
    while not stop.is_set():
        with Dispatcher() as passing:
            passing.subscribe(Tick, lambda tick: None)
            passing.publish(Tick())

threads = [threading.Thread(target=target) for target in (publish, publish, subscribe, close)]
for thread in threads:
    thread.start()

def child():
    before = len(received)
    assert sum(numbers(kept)[:2]) >= 0 and kept.pending == 0, kept
    for number in range(500):
        bus.publish(Tick(number))
    event_class = type("New", (Tick,), {})
    with bus.subscribe(event_class, received.append):
        bus.publish(event_class())
    bus.close(DEADLINE)
    assert len(received) == before + 501
    with Dispatcher() as another:
        another.subscribe(Tick, received.append)
        another.publish(Tick())

codes = [fork(child) for _ in range(25)]
stop.set()
for thread in threads:
    thread.join(DEADLINE)
bus.close(DEADLINE)
assert codes == [0] * 25, codes
""")


def test_a_fork_while_a_thread_is_held_up_in_subscribe_does_not_hang_the_child(run_forking):
    run_forking("""
inside, go_on = threading.Event(), threading.Event()

class Held(type):
    def __subclasscheck__(cls, other):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(2 * DEADLINE)
        return False

class Base(metaclass=Held):
    pass

bus, got = Dispatcher(), []
bus.publish(Tick())
thread = threading.Thread(target=bus.subscribe, args=(Base, got.append), kwargs={"subclasses": True})
thread.start()
assert inside.wait(DEADLINE)

def child():
    with bus.subscribe(Other, got.append):
        bus.publish(Other())
    assert len(got) == 1
    bus.close(DEADLINE)

assert fork(child) == 0
go_on.set()
thread.join()
bus.close(DEADLINE)
""")


def test_a_fork_while_a_dispatcher_is_closing(run_forking):
    run_forking("""
bus, slow = Dispatcher(), Slow()
bus.subscribe(Tick, slow)
for number in range(10):
    bus.publish(Tick(number))
assert slow.held.wait(DEADLINE)
closer = threading.Thread(target=bus.close)
closer.start()
while not bus.closed:
    pass

def child():
    bus.close(DEADLINE)
    try:
        bus.publish(Tick())
    except ringcast.ClosedError:
        pass
    else:
        raise AssertionError

assert fork(child) == 0
slow.opened.set()
closer.join(DEADLINE)
assert slow.got == list(range(10))
""")


def test_a_child_that_exits_delivers_what_it_has_published(run_python):
    result = run_python(
        PRELUDE
        + """
bus, slow = Dispatcher(), Slow()
bus.subscribe(Tick, slow)
bus.subscribe(Other, lambda other: os.write(1, b"%d\\n" % other.number))
for number in range(10):
    bus.publish(Tick(number))
slow.held.wait(DEADLINE)
pid = os.fork()
if pid == 0:
    signal.alarm(int(2 * DEADLINE))
    for number in range(100):
        bus.publish(Other(number))
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
slow.opened.set()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [str(number) for number in range(100)]


def test_many_dispatchers_that_are_gone_are_not_kept_for_forks(run_forking):
    run_forking("""
gone = weakref.ref(Dispatcher())
assert gone() is None
bus = Dispatcher()
assert fork(lambda: None) == 0
gone = weakref.ref(bus)
del bus
assert gone() is None
""")


PROCESSES = """
import multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import ringcast

class Tick:
    def __init__(self, number):
        self.number = number

bus = ringcast.Dispatcher()
got = []
subscription = bus.subscribe(Tick, got.append)
held, opened = threading.Event(), threading.Event()

def work(queue, count):
    "In the child; the dispatcher is the parent's where it was forked, or that of the module that was imported anew."
    opened.set()
    for number in range(count):
        bus.publish(Tick(number))
    assert ringcast.default.publish(Tick(0)) == 0
    bus.close(15)   # multiprocessing ends its processes without the usual exit
    queue.put(([tick.number for tick in got], subscription.dropped))

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[1] == "fork":
        bus.subscribe(Tick, lambda tick: (held.set(), opened.wait(30)))
        for number in range(20):
            bus.publish(Tick(number))
        held.wait(15)
        while subscription.delivered < 20:
            pass
        got.clear()
    queue = context.Queue()
    processes = [context.Process(target=work, args=(queue, 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        assert queue.get(timeout=60) == (list(range(50)), 0)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    opened.set()
    with context.Pool(2) as pool:
        assert pool.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    bus.close(15)
    print("done")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(tmp_path, method):
    program = tmp_path / "processes.py"
    program.write_text(PROCESSES)
    command = [sys.executable, "-W", "error", program, method]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
