"""Inside its call a handler may publish, subscribe, cancel and close, also where queues are full."""

import threading
from dataclasses import dataclass

import pytest

from ringcast import ClosedError, QueueFullError

RESERVE = 65_536
"""How many events handlers may publish beyond max_queue where waiting would never end."""

WORKERS = pytest.mark.parametrize("max_workers", [1, 2, None])


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class Ping:
    hops: int


@dataclass(frozen=True, slots=True)
class Pong:
    hops: int


# --- publish ---


@WORKERS
def test_a_handler_publishes_to_its_own_topic(make_bus, max_workers, recorder):
    bus = make_bus(max_workers=max_workers)

    def handler(tick: Tick) -> None:
        recorder(tick.number)
        if tick.number:
            assert bus.publish(Tick(tick.number - 1)) == 1

    bus.subscribe(handler)
    bus.publish(Tick(1000))
    assert recorder.wait_for(1001) == list(range(1000, -1, -1))


@WORKERS
def test_a_handler_publishes_10_000_events_into_its_own_full_queue(make_bus, max_workers, make_recorder):
    bus = make_bus(max_queue=4, max_workers=max_workers)
    recorder, beside = make_recorder(), make_recorder()

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            for number in range(1, 10_001):
                assert bus.publish(Tick(number)) == 2
        recorder(tick.number)

    subscription = bus.subscribe(handler)
    bus.subscribe(Tick, beside)
    bus.publish(Tick(0))

    assert recorder.wait_for(10_001) == list(range(10_001))
    assert [tick.number for tick in beside.wait_for(10_001)] == list(range(10_001))
    assert subscription.errors == 0


@WORKERS
@pytest.mark.parametrize("max_queue", [1, 4])
def test_a_chain_of_handlers_with_full_queues_does_not_deadlock(make_bus, max_workers, max_queue, deadline):
    bus = make_bus(max_queue=max_queue, max_workers=max_workers)
    roots = 200
    # a Ping(4) makes 2 Pong(3), each of which makes a Ping(2), and so on
    expected = roots * (1 + 2 + 2 + 4 + 4)
    seen, all_seen, lock = 0, threading.Event(), threading.Lock()

    def count():
        nonlocal seen
        with lock:
            seen += 1
            if seen == expected:
                all_seen.set()

    def ping(event: Ping) -> None:
        if event.hops:
            bus.publish(Pong(event.hops - 1))
            bus.publish(Pong(event.hops - 1))
        count()

    def pong(event: Pong) -> None:
        if event.hops:
            bus.publish(Ping(event.hops - 1))
        count()

    subscriptions = [bus.subscribe(ping), bus.subscribe(pong)]
    for _ in range(roots):
        bus.publish(Ping(4))
    assert all_seen.wait(deadline), f"{seen} of {expected}"
    bus.close(deadline)
    assert seen == expected
    assert [subscription.errors for subscription in subscriptions] == [0, 0]


def test_handlers_that_flood_each_other_do_not_deadlock(make_bus, make_recorder, deadline):
    # both queues are full, and the only one who could empty either is waiting to publish into the other
    bus = make_bus(max_queue=2, max_workers=4)
    pings, pongs = make_recorder(), make_recorder()
    both_begun = threading.Barrier(2)

    def flood(number, recorder, answer):
        if number == 0:
            both_begun.wait(deadline)
            for number_sent in range(1, 1001):
                bus.publish(answer(number_sent))
        recorder(number)

    def ping(event: Ping) -> None:
        flood(event.hops, pings, Pong)

    def pong(event: Pong) -> None:
        flood(event.hops, pongs, Ping)

    subscriptions = [bus.subscribe(ping), bus.subscribe(pong)]
    bus.publish(Ping(0))
    bus.publish(Pong(0))
    assert pings.wait_for(1001) == list(range(1001))
    assert pongs.wait_for(1001) == list(range(1001))
    assert [subscription.errors for subscription in subscriptions] == [0, 0]


def test_a_handler_waits_where_another_worker_makes_room(make_bus):
    bus = make_bus(max_queue=4)
    received = []
    most_pending = 0

    def receive(event: Pong) -> None:
        nonlocal most_pending
        most_pending = max(most_pending, receiver.pending)
        received.append(event.hops)

    def source(event: Ping) -> None:
        for number in range(1000):
            bus.publish(Pong(number))

    receiver = bus.subscribe(receive)
    with bus.subscribe(source):
        bus.publish(Ping(0))
    with receiver:
        pass
    assert received == list(range(1000))
    assert most_pending <= 4


def test_beyond_the_reserve_publish_raises_and_what_was_accepted_is_delivered(make_bus, recorder, deadline):
    max_queue = 10
    bus = make_bus(max_queue=max_queue)
    accepted, refused = [], []

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            try:
                for number in range(1, RESERVE + 2 * max_queue):
                    bus.publish(Tick(number))
                    accepted.append(number)
            except QueueFullError as error:
                refused.append(error)
        recorder(tick.number)

    subscription = bus.subscribe(handler)
    bus.publish(Tick(0))
    recorder.wait_for(1)
    assert len(refused) == 1
    assert RESERVE <= len(accepted) <= RESERVE + max_queue
    recorder.wait_for(1 + len(accepted))
    assert bus.publish(Tick(-1)) == 1  # and it goes on
    bus.close(2 * deadline)
    assert recorder.events == [0, *accepted, -1]
    assert subscription.errors == 0


# --- subscribe ---


def test_a_handler_subscribes_another_which_sees_the_events_from_then_on(bus, make_recorder, deadline):
    first, second = make_recorder(), make_recorder()

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            bus.subscribe(Tick, second)
        first(tick.number)

    bus.subscribe(handler)
    assert bus.publish(Tick(0)) == 1
    first.wait_for(1)
    assert bus.publish(Tick(1)) == 2
    bus.close(deadline)
    assert first.events == [0, 1]
    assert [tick.number for tick in second.events] == [1]


def test_a_handler_subscribes_to_a_topic_of_its_own_making(bus, recorder):
    def handler(tick: Tick) -> None:
        bus.subscribe_to(500, recorder)
        bus.publish_to(500, tick)

    bus.subscribe(handler)
    event = Tick(0)
    bus.publish(event)
    assert recorder.wait_for(1) == [event]


# --- cancel ---


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize("target", ["itself", "another"])
def test_a_handler_cancels(bus, make_gate, make_recorder, discard, target, deadline):
    # While both are held in event 0, 1 to 4 are accepted; then the first cancels one of the two.
    gates = [make_gate(), make_gate()]
    recorders = [make_recorder(), make_recorder()]

    def canceller(tick: Tick) -> None:
        if tick.number == 0:
            gates[0].hold()
            cancelled.cancel(discard=discard)
            assert not cancelled.active
        recorders[0](tick.number)

    def other(tick: Tick) -> None:
        if tick.number == 0:
            gates[1].hold()
        recorders[1](tick.number)

    subscriptions = [bus.subscribe(canceller), bus.subscribe(other)]
    which = 0 if target == "itself" else 1
    cancelled, remaining = subscriptions[which], subscriptions[1 - which]
    for number in range(5):
        assert bus.publish(Tick(number)) == 2
    for gate in gates:
        gate.wait_until_held()
    gates[0].open()
    recorders[0].wait_for(1)
    assert bus.count(Tick) == 1
    assert bus.publish(Tick(5)) == 1
    gates[1].open()
    bus.close(deadline)

    assert recorders[1 - which].events == [0, 1, 2, 3, 4, 5]
    assert recorders[which].events == ([0] if discard else [0, 1, 2, 3, 4])
    assert cancelled.dropped == (4 if discard else 0)
    assert cancelled.delivered == (1 if discard else 5)
    assert cancelled.pending == 0
    assert remaining.delivered == 6
    assert [subscription.errors for subscription in subscriptions] == [0, 0]


@pytest.mark.parametrize("target", ["itself", "another"])
def test_leaving_a_subscription_inside_a_handler_does_not_wait(bus, gate, make_recorder, target, deadline):
    recorder = make_recorder()

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            gate.hold()
            with subscriptions[target]:
                pass
        recorder(tick.number)

    def other(event: Ping) -> None:
        gate.hold()

    subscriptions = {"itself": bus.subscribe(handler), "another": bus.subscribe(other)}
    bus.publish(Ping(0))
    for number in range(3):
        bus.publish(Tick(number))
    gate.wait_until_held(2)
    gate.open()
    bus.close(deadline)
    assert recorder.events == [0, 1, 2]
    assert not subscriptions[target].active
    assert subscriptions["itself"].errors == 0


# --- close ---


def test_a_handler_closes_the_dispatcher_without_waiting_for_itself(bus, gate, recorder, deadline):
    def handler(tick: Tick) -> None:
        if tick.number == 0:
            gate.hold()
            bus.close()
            for refused in (lambda: bus.publish(tick), lambda: bus.subscribe(handler)):
                with pytest.raises(ClosedError):
                    refused()
        recorder(tick.number)

    subscription = bus.subscribe(handler)
    for number in range(100):
        bus.publish(Tick(number))
    gate.wait_until_held()
    gate.open()
    recorder.wait_for(1)
    assert bus.closed
    with pytest.raises(ClosedError):
        bus.publish(Tick(100))
    bus.close(deadline)
    assert recorder.events == list(range(100))
    assert subscription.errors == 0


# --- code of event classes ---


@pytest.mark.parametrize("way", ["subscribe", "subscribe to a base class", "publish", "publish_many", "count"])
def test_code_of_event_classes_may_wait_for_another_thread_that_subscribes(bus, spawn, deadline, way):
    # as an import lock makes it: one thread asks a class, which waits for the other, which is about to subscribe
    waited = []

    this_thread = threading.get_ident()

    def wait_for_another_thread():
        if threading.get_ident() == this_thread:  # the other one asks the class, too
            waited.append(spawn(bus.subscribe, int, print).result(deadline))

    class Asked(type):
        def __subclasscheck__(cls, other):
            wait_for_another_thread()
            return super().__subclasscheck__(other)

    class Id:
        def __index__(self):
            wait_for_another_thread()
            return 0x99

    class Base(metaclass=Asked):
        pass

    class Event(Base):
        __event_type__ = Id()

    got = []
    bus.publish(Tick(1))  # a class that is known, and is asked for by a subscription to a base class
    if way != "subscribe":
        bus.subscribe(Base, got.append, subclasses=True, mode="direct")
    waited.clear()
    if way == "subscribe":
        bus.subscribe(Event, got.append, mode="direct")
    elif way == "subscribe to a base class":
        bus.subscribe(type("Other", (Base,), {}), got.append, subclasses=True)
    elif way == "publish":
        assert bus.publish(Event()) == 1
    elif way == "publish_many":
        assert bus.publish_many([Event(), Event()]) == 2
    else:
        assert bus.count(Event) == 1
    assert waited


def test_a_class_that_two_threads_make_known_at_once_is_known_once(bus, spawn, deadline):
    both, in_topics = threading.Barrier(2), []

    class Asked(type):
        def __subclasscheck__(cls, other):
            if other is Event and len(in_topics) < 2:
                in_topics.append(other)
                both.wait(deadline)
            return super().__subclasscheck__(other)

    class Base(metaclass=Asked):
        pass

    class Event(Base):
        pass

    got = []
    bus.subscribe(Base, got.append, subclasses=True, mode="direct")
    publishing = [spawn(bus.publish, Event()) for _ in range(2)]
    assert [each.result(deadline) for each in publishing] == [1, 1]
    assert len(got) == 2


def test_a_base_class_that_is_subscribed_to_while_a_class_is_made_known_has_its_events(bus, deadline):
    got = []

    class Late:
        pass

    class Asked(type):
        def __subclasscheck__(cls, other):
            if other is Event and not late:
                late.append(bus.subscribe(Late, got.append, subclasses=True, mode="direct"))
            return super().__subclasscheck__(other)

    class Base(metaclass=Asked):
        pass

    class Event(Base, Late, metaclass=Asked):
        pass

    late = []
    bus.subscribe(Base, got.append, subclasses=True, mode="direct")
    event = Event()
    assert bus.publish(event) == 2
    assert got == [event, event]
