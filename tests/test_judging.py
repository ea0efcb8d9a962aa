"""`where` and `key` of dropping policies: code of the user's that runs on a worker's or on a publisher's thread, before
an event takes room. It may take long, and it may do what a handler may.
"""

import asyncio
import sys
import threading
import time

import pytest
from limits import DEADLINE

from ringcast import ClosedError

POLICIES = ["drop_newest", "drop_oldest", "latest", "latest by key"]


@pytest.fixture(params=POLICIES)
def judge(request):
    """Makes the options of a subscription whose `where`, or `key`, calls a function with each event."""

    def options(function):
        def where(number):
            function(number)
            return True

        def key(number):
            function(number)
            return number

        if request.param == "latest by key":
            return {"policy": "latest", "key": key}
        return {"policy": request.param, "where": where}

    return options


def accounted(subscription):
    return (subscription.delivered, subscription.dropped, subscription.pending)


@pytest.fixture
def held_elsewhere(bus, judge, make_gate, recorder, spawn):
    """A subscription that has handled 0, whose event 1 is being judged in a thread that is held, and is no worker."""
    handler_gate, gate = make_gate(), make_gate()

    def handler(number: int) -> None:
        if number == 0:
            handler_gate.hold()
        recorder(number)

    def judging(number):
        if number == 1:
            gate.hold()

    subscription = bus.subscribe(handler, **judge(judging))
    bus.publish(0)
    handler_gate.wait_until_held()
    bus.publish(1)
    looker = spawn(lambda: subscription.pending)  # which has what was published moved to the mailbox
    gate.wait_until_held()
    handler_gate.open()
    recorder.wait_for(1)
    return subscription, gate, looker


def test_an_event_that_is_being_picked_is_pending(bus, held_elsewhere, recorder, deadline):
    subscription, gate, looker = held_elsewhere
    assert subscription.pending == 1
    assert not bus.wait_idle(0.05)
    gate.open()
    looker.result(deadline)
    assert bus.wait_idle(deadline)
    assert recorder.events == [0, 1]
    assert accounted(subscription) == (2, 0, 0)


def test_close_delivers_an_event_that_is_being_picked(bus, held_elsewhere, recorder, spawn, eventually, deadline):
    subscription, gate, looker = held_elsewhere
    closing = spawn(bus.close)
    eventually(lambda: not subscription.active)
    gate.open()
    closing.result(deadline)
    looker.result(deadline)
    assert recorder.events == [0, 1]
    assert accounted(subscription) == (2, 0, 0)


def test_discarding_drops_an_event_that_is_being_picked(bus, held_elsewhere, recorder, deadline):
    subscription, gate, looker = held_elsewhere
    subscription.cancel(discard=True)
    gate.open()
    looker.result(deadline)
    bus.close(deadline)
    assert recorder.events == [0]
    assert accounted(subscription) == (1, 1, 0)


def test_it_may_close_the_dispatcher_on_a_publishers_thread(make_bus, judge, gate, recorder, deadline):
    bus = make_bus(max_queue=1)
    publisher = threading.get_ident()

    def judging(number):
        if threading.get_ident() == publisher:
            bus.close()

    def handler(number: int) -> None:
        if number == 0:
            gate.hold()
        recorder(number)

    subscription = bus.subscribe(handler, **judge(judging))
    bus.publish(0)
    gate.wait_until_held()
    bus.publish(1)
    with pytest.raises(ClosedError):
        bus.publish(2)  # finds the ring full, and judges
    gate.open()
    bus.close(deadline)
    assert recorder.events == [0, 1]
    assert accounted(subscription) == (2, 0, 0)


def test_it_holds_up_no_publisher(make_bus, judge, gate, make_recorder, deadline):
    bus = make_bus(max_queue=10)
    mine, others = make_recorder(), make_recorder()
    subscription = bus.subscribe(int, mine, **judge(gate.hold))
    bus.subscribe(int, others)
    bus.publish(0)
    gate.wait_until_held()
    for number in range(1, 1000):
        bus.publish(number, timeout=deadline)
    assert others.wait_for(1000) == list(range(1000))
    gate.open()
    bus.close(deadline)
    assert mine.events == sorted(set(mine.events))
    assert mine.events
    assert accounted(subscription) == (len(mine.events), 1000 - len(mine.events), 0)


def test_it_holds_up_a_publisher_that_judges_itself_for_one_call_and_a_while(make_bus, judge, gate, recorder, deadline):
    """The worker is in the handler: who finds no room has the ring's events judged, and has not to judge them all."""
    bus = make_bus(max_queue=1000)

    def handler(number: int) -> None:
        gate.hold()
        recorder(number)

    subscription = bus.subscribe(handler, **judge(lambda number: time.sleep(0.002)))
    longest = 0.0
    for number in range(1100):
        start = time.monotonic()
        bus.publish(number)
        longest = max(longest, time.monotonic() - start)
    gate.open()
    bus.close(deadline)
    assert longest < 1  # all of them would take more than two seconds
    assert recorder.events == sorted(set(recorder.events))
    assert accounted(subscription) == (len(recorder.events), 1100 - len(recorder.events), 0)


def test_who_asks_for_a_number_judges_what_was_published_before_and_no_more(make_bus, judge, gate, deadline):
    """Else `stats()` would not return for as long as others publish faster than events are judged."""
    bus = make_bus(max_queue=10, max_workers=1)
    judged = []

    def judging(number):
        judged.append(number)
        if number < 100:
            bus.publish(number + 1)

    bus.subscribe(str, gate.hold)  # holds the one worker up
    subscription = bus.subscribe(int, lambda number: None, **judge(judging))
    bus.publish("")
    gate.wait_until_held()
    bus.publish(1)
    for looks in (1, 2, 3):
        subscription.pending  # noqa: B018
        assert judged == list(range(1, looks + 1))
    gate.open()
    assert bus.wait_idle(deadline)
    assert judged == list(range(1, 101))


def test_it_may_publish_into_its_own_full_queue(make_bus, judge, gate, recorder, deadline):
    bus = make_bus(max_queue=2)

    def judging(number):
        if number < 10:
            for _ in range(3):
                bus.publish(10 + number, timeout=deadline)

    subscription = bus.subscribe(int, recorder, **judge(judging))
    for number in range(10):
        bus.publish(number, timeout=deadline)
    assert bus.wait_idle(deadline)
    delivered, dropped, pending = accounted(subscription)
    [topic] = bus.stats().topics
    assert topic.published > 10
    assert (delivered + dropped, pending, subscription.errors) == (topic.published, 0, 0)


def test_events_that_another_thread_is_judging_when_the_loop_comes_for_them_are_handled(make_bus, deadline):
    bus = make_bus()
    held, opened, seen = threading.Event(), threading.Event(), []

    def where(event):
        held.set()
        return opened.wait(deadline)

    async def main():
        handled = asyncio.Event()

        async def handler(event: int) -> None:
            seen.append(event)
            if event == 2:
                handled.set()

        subscription = bus.subscribe(handler, policy="drop_oldest", where=where)
        bus.publish(1)
        bus.publish(2)  # the loop is told, and comes when this function waits
        looker = threading.Thread(target=lambda: subscription.pending)
        looker.start()
        assert held.wait(deadline)
        await asyncio.sleep(0.1)  # the loop has been here and has found nothing
        assert seen == []
        opened.set()
        await asyncio.wait_for(handled.wait(), deadline)
        looker.join(deadline)
        assert seen == [1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_publish_raises_what_is_no_exception_of_its_pick_and_its_event_is_not_queued(
    make_bus, judge, gate, deadline, exception
):
    failures = []
    bus = make_bus(max_queue=1, on_error=failures.append)
    publisher = threading.get_ident()

    def judging(number):
        if threading.get_ident() == publisher:
            raise exception

    def handler(number: int) -> None:
        gate.hold()

    subscription = bus.subscribe(handler, **judge(judging))
    bus.publish(0)
    gate.wait_until_held()
    bus.publish(1)
    with pytest.raises(exception):
        bus.publish(2)  # finds the ring full, and judges 1
    gate.open()
    bus.close(deadline)
    assert failures == []
    assert subscription.errors == 1
    assert accounted(subscription) == (1, 1, 0)


@pytest.mark.thread_unsafe(reason="a Ctrl-C is the main thread's")
@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="needs the main thread")
def test_a_ctrl_c_in_a_pick_is_raised_also_where_the_call_raises_nothing(make_bus, judge, gate, deadline):
    failures = []
    bus = make_bus(max_workers=1, on_error=failures.append)

    def judging(number):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    bus.subscribe(str, gate.hold)  # holds the one worker up
    subscription = bus.subscribe(int, lambda number: None, **judge(judging))
    bus.publish("")
    gate.wait_until_held()
    bus.publish(1)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 -- by the property, or just after it
        subscription.pending  # noqa: B018
        eventually_interrupted = threading.Event()
        eventually_interrupted.wait(deadline)
    gate.open()
    bus.close(deadline)
    assert failures == []
    assert accounted(subscription) == (0, 1, 0)


# --- Ctrl-C, and keys that cannot be found again ---


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that os.kill sends to this thread")
@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
@pytest.mark.parametrize("call", ["bus.publish(Tick())", "subscription.pending", "bus.stats()"])
def test_ctrl_c_ends_a_wait_for_another_thread_that_judges(run_until_done, policy, call):
    run_until_done(f"""
import os, signal, threading, time
from ringcast import Dispatcher

signal.signal(signal.SIGINT, signal.default_int_handler)   # also where the tests run in the background

class Tick:
    pass

def slow(tick):
    time.sleep(0.005)   # of a Condition, as Event.wait has one, a Ctrl-C can cost the lock: so CPython
    return True

bus, stop = Dispatcher(max_queue=10), threading.Event()
subscription = bus.subscribe(Tick, lambda tick: None, policy={policy!r}, where=slow)

def publish_until_stopped():
    while not stop.is_set():
        bus.publish(Tick())

def call_until_interrupted():
    end = time.monotonic() + {DEADLINE}
    while time.monotonic() < end:
        {call}

publisher = threading.Thread(target=publish_until_stopped, daemon=True)   # else a failure would not end the program
publisher.start()
{call}   # once in peace: a first call may import, and a Ctrl-C there leaves files that are not closed
caught = 0
for _ in range(10):
    closed = threading.Lock()
    closed.acquire()

    def interrupt():
        closed.acquire()   # until Thread.start has returned, which waits for an Event
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    try:
        closed.release()
        call_until_interrupted()   # a loop's jump back may be outside of its try (CPython 3.13)
    except KeyboardInterrupt:
        caught += 1
    killer.join()
stop.set()
publisher.join()
bus.close(discard=True)
assert caught == 10, caught
""")


class Spoilt(Exception):
    pass


class Key:
    """A key that can be spoilt while it waits."""

    def __init__(self, number):
        self.number, self.fails = number, False

    def __hash__(self):
        if self.fails:
            raise Spoilt
        return self.number

    def __eq__(self, other):
        return self.number == other.number


def change_hash(key):
    key.number += 100


def fail_hash(key):
    key.fails = True


@pytest.mark.parametrize(("spoil", "error"), [(change_hash, KeyError), (fail_hash, Spoilt)])
def test_an_event_whose_key_cannot_be_found_again_is_delivered_and_told_of(
    make_bus, gate, recorder, spoil, error, deadline
):
    failures = []
    bus = make_bus(max_queue=10, max_workers=1, on_error=failures.append)
    keys = [Key(number) for number in range(4)]

    def handler(number: int) -> None:
        if number == 0:
            gate.hold()
        recorder(number)

    subscription = bus.subscribe(int, handler, policy="latest", key=keys.__getitem__)
    bus.publish(0)
    gate.wait_until_held()
    for number in (1, 2, 3):
        bus.publish(number)
    assert subscription.pending == 4  # with the one in hand; the others are judged now, by their keys
    spoil(keys[1])
    gate.open()
    assert bus.wait_idle(deadline)
    assert recorder.events == [0, 1, 2, 3]
    assert accounted(subscription) == (4, 0, 0)
    assert [(type(failure.exception), failure.event) for failure in failures] == [(error, 1)]
    assert subscription.errors == 1


def test_nothing_is_kept_where_the_comparison_of_keys_cancels(make_bus, gate, recorder, deadline):
    class Cancelling(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            subscription.cancel(discard=True)
            return super().__eq__(other)

    bus = make_bus(max_workers=1)

    def handler(number: int) -> None:
        gate.hold()
        recorder(number)

    subscription = bus.subscribe(int, handler, policy="latest", max_queue=10, key=lambda number: Cancelling(7))
    bus.publish(0)
    gate.wait_until_held()
    bus.publish(1)
    assert subscription.pending == 2
    bus.publish(2)  # whose key is compared with that of 1
    assert subscription.pending == 1  # the one in hand
    gate.open()
    assert bus.wait_idle(deadline)
    assert recorder.events == [0]
    assert accounted(subscription) == (1, 2, 0)
