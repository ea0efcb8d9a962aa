"""`where` and `key` of dropping policies: code of the user's that runs on a worker's or on a publisher's thread, before
an event takes room. It may take long, and it may do what a handler may.
"""

import asyncio
import threading

import pytest

from ringcast import ClosedError

POLICIES = ["drop_newest", "drop_oldest", "latest", "latest by key"]


@pytest.fixture(params=POLICIES)
def pick(request):
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
def held_elsewhere(bus, pick, make_gate, recorder, spawn):
    """A subscription that has handled 0, whose event 1 is being picked in a thread that is held, and is no worker."""
    handler_gate, gate = make_gate(), make_gate()

    def handler(number: int) -> None:
        if number == 0:
            handler_gate.hold()
        recorder(number)

    def picking(number):
        if number == 1:
            gate.hold()

    subscription = bus.subscribe(handler, **pick(picking))
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


def test_it_may_close_the_dispatcher_on_a_publishers_thread(make_bus, pick, gate, recorder, deadline):
    bus = make_bus(max_queue=1)
    publisher = threading.get_ident()

    def picking(number):
        if threading.get_ident() == publisher:
            bus.close()

    def handler(number: int) -> None:
        if number == 0:
            gate.hold()
        recorder(number)

    subscription = bus.subscribe(handler, **pick(picking))
    bus.publish(0)
    gate.wait_until_held()
    bus.publish(1)
    with pytest.raises(ClosedError):
        bus.publish(2)  # finds the ring full, and picks
    gate.open()
    bus.close(deadline)
    assert recorder.events == [0, 1]
    assert accounted(subscription) == (2, 0, 0)


def test_it_holds_up_no_publisher(make_bus, pick, gate, make_recorder, deadline):
    bus = make_bus(max_queue=10)
    mine, others = make_recorder(), make_recorder()
    subscription = bus.subscribe(int, mine, **pick(gate.hold))
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


def test_it_may_publish_into_its_own_full_queue(make_bus, pick, gate, recorder, deadline):
    bus = make_bus(max_queue=2)

    def picking(number):
        if number < 10:
            for _ in range(3):
                bus.publish(10 + number, timeout=deadline)

    subscription = bus.subscribe(int, recorder, **pick(picking))
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
    make_bus, pick, gate, deadline, exception
):
    failures = []
    bus = make_bus(max_queue=1, on_error=failures.append)
    publisher = threading.get_ident()

    def picking(number):
        if threading.get_ident() == publisher:
            raise exception

    def handler(number: int) -> None:
        gate.hold()

    subscription = bus.subscribe(handler, **pick(picking))
    bus.publish(0)
    gate.wait_until_held()
    bus.publish(1)
    with pytest.raises(exception):
        bus.publish(2)  # finds the ring full, and picks 1
    gate.open()
    bus.close(deadline)
    assert failures == []
    assert subscription.errors == 1
    assert accounted(subscription) == (1, 1, 0)


@pytest.mark.thread_unsafe(reason="a Ctrl-C is the main thread's")
@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="needs the main thread")
def test_a_ctrl_c_in_a_pick_is_raised_also_where_the_call_raises_nothing(make_bus, pick, gate, deadline):
    failures = []
    bus = make_bus(max_workers=1, on_error=failures.append)

    def picking(number):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    bus.subscribe(str, gate.hold)  # holds the one worker up
    subscription = bus.subscribe(int, lambda number: None, **pick(picking))
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
