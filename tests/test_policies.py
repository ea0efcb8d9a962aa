"""Policies: what happens to an event for a subscriber that is `max_queue` events behind.

No policy takes away the event that a handler is at work on. It counts as one of `max_queue` where publishers are held
up or refused; beside it, a dropping policy keeps `max_queue` more.
"""

import enum
import threading
import time
from dataclasses import dataclass

import pytest

from ringcast import OptionError, PublishTimeoutError, QueueFullError, RingcastError

DROPPING = ["drop_newest", "drop_oldest", "latest"]
POLICIES = ["block", "raise", *DROPPING]


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


@dataclass(frozen=True, slots=True)
class Quote:
    symbol: str
    number: int


class Held:
    """A handler that waits at the gate in its first call, and keeps each event and what it has then missed."""

    def __init__(self, gate) -> None:
        self.gate = gate
        self.numbers: list[int] = []
        self.lags: list[int] = []
        self.subscription = None

    def __call__(self, event: object) -> None:
        self.lags.append(self.subscription.lag)
        self.gate.hold()
        self.numbers.append(event.number)


@pytest.fixture
def subscribe(bus, make_gate):
    """Subscribes a handler and has it held in the event 0, which nobody else has seen."""

    def start(policy, event=Tick(0), **options):
        gate = make_gate()
        handler = Held(gate)
        handler.subscription = bus.subscribe(type(event), handler, policy=policy, **options)
        bus.publish(event)
        gate.wait_until_held()
        return handler

    return start


def counters(subscription):
    return {name: getattr(subscription, name) for name in ("pending", "delivered", "dropped")}


def let_go(handler, eventually):
    handler.gate.open()
    eventually(lambda: handler.subscription.pending == 0)


# --- each policy where its handler is held ---


@pytest.mark.parametrize(
    ("policy", "max_queue", "expected"),
    [
        ("drop_newest", 1, [0, 1]),
        ("drop_newest", 4, [0, 1, 2, 3, 4]),
        ("drop_newest", 600, list(range(601))),
        ("drop_oldest", 1, [0, 999]),
        ("drop_oldest", 4, [0, 996, 997, 998, 999]),
        ("drop_oldest", 600, [0, *range(400, 1000)]),
        ("latest", 1, [0, 999]),
        ("latest", 600, [0, 999]),
    ],
)
def test_what_a_dropping_policy_keeps_of_1000_events(bus, subscribe, eventually, policy, max_queue, expected):
    handler = subscribe(policy, max_queue=max_queue)
    subscription = handler.subscription
    for number in range(1, 1000):
        bus.publish(Tick(number), timeout=0)  # raises if it would have to wait
    kept = len(expected)
    assert counters(subscription) == {"pending": kept, "delivered": 0, "dropped": 1000 - kept}
    let_go(handler, eventually)
    assert handler.numbers == expected
    assert counters(subscription) == {"pending": 0, "delivered": kept, "dropped": 1000 - kept}


@pytest.mark.parametrize("end", ["active", "cancelled", "discarded"])
@pytest.mark.parametrize("options", [{}, {"batch": 10}, {"where": bool}, {"batch": 10, "where": bool}], ids=str)
@pytest.mark.parametrize("policy", DROPPING)
def test_what_drops_holds_up_no_publisher_while_its_handler_is_at_work(make_bus, gate, deadline, policy, options, end):
    """Also not when it is cancelled, and its handler has not returned from its last event."""
    bus = make_bus(max_queue=10)
    seen = []
    subscription = bus.subscribe(Tick, gate.hold, policy=policy, **options)
    bus.subscribe(Tick, seen.append)
    bus.publish(Tick(0))
    gate.wait_until_held()
    if end != "active":
        subscription.cancel(discard=end == "discarded")
    for number in range(1, 100):
        bus.publish(Tick(number), timeout=deadline)
    gate.open()
    bus.close(deadline)
    assert [tick.number for tick in seen] == list(range(100))


@pytest.mark.parametrize("policy", POLICIES)
def test_below_max_queue_all_policies_deliver_everything(bus, subscribe, eventually, policy):
    amount = 1 if policy == "latest" else 9
    handler = subscribe(policy, max_queue=10)
    for number in range(1, 1 + amount):
        assert bus.publish(Tick(number), timeout=0) == 1
    let_go(handler, eventually)
    assert handler.numbers == list(range(1 + amount))
    assert counters(handler.subscription) == {"pending": 0, "delivered": 1 + amount, "dropped": 0}


def test_block_waits_for_room_and_drops_nothing(bus, subscribe, spawn, eventually, deadline):
    handler = subscribe("block", max_queue=4)
    accepted = [0]

    def publish_all():
        for number in range(1, 100):
            bus.publish(Tick(number))
            accepted.append(number)

    publisher = spawn(publish_all)
    eventually(lambda: len(accepted) == 4)
    with pytest.raises(TimeoutError):
        publisher.result(0.05)
    assert counters(handler.subscription) == {"pending": 4, "delivered": 0, "dropped": 0}
    let_go(handler, eventually)
    publisher.result(deadline)
    eventually(lambda: handler.subscription.delivered == 100)
    assert handler.numbers == list(range(100))


def test_raise_refuses_the_event_for_all(bus, subscribe, make_recorder, eventually, deadline):
    blocking, dropping, seen = make_recorder(), make_recorder(), []
    bus.subscribe(Tick, blocking)
    dropper = bus.subscribe(Tick, dropping, policy="drop_newest")
    bus.subscribe(Tick, lambda tick: seen.append(tick.number), mode="direct")
    handler = subscribe("raise", max_queue=3)
    assert [bus.publish(Tick(number)) for number in (1, 2)] == [4, 4]
    for number in range(3, 10):
        with pytest.raises(QueueFullError):
            bus.publish(Tick(number))
    assert counters(handler.subscription) == {"pending": 3, "delivered": 0, "dropped": 0}
    let_go(handler, eventually)
    assert bus.publish(Tick(10)) == 4
    bus.close(deadline)
    for numbers in (
        handler.numbers,
        seen,
        [tick.number for tick in blocking.events],
        [tick.number for tick in dropping.events],
    ):
        assert numbers == [0, 1, 2, 10]
    assert dropper.dropped == 0


# --- latest by key ---


def test_latest_by_key_keeps_the_newest_of_each_in_the_place_of_the_first(bus, subscribe, eventually):
    handler = subscribe("latest", Quote("-", 0), key=lambda quote: quote.symbol)
    for number, symbol in enumerate("abcabbdac", 1):
        bus.publish(Quote(symbol, number), timeout=0)
    assert counters(handler.subscription) == {"pending": 5, "delivered": 0, "dropped": 5}
    let_go(handler, eventually)
    assert handler.numbers == [0, 8, 6, 9, 7]  # a, b, c, d


def test_latest_by_key_does_not_replace_the_event_in_hand(bus, subscribe, eventually):
    handler = subscribe("latest", Quote("a", 0), key=lambda quote: quote.symbol)
    for number in (1, 2, 3):
        bus.publish(Quote("a", number), timeout=0)
    let_go(handler, eventually)
    assert handler.numbers == [0, 3]
    assert handler.subscription.dropped == 2


def test_latest_by_key_starts_again_once_its_events_are_delivered(bus, recorder, eventually):
    subscription = bus.subscribe(Quote, recorder, policy="latest", key=lambda quote: quote.symbol)
    for number in range(100):
        bus.publish(Quote("ab"[number % 2], number))
        eventually(lambda: subscription.pending == 0)
    assert [quote.number for quote in recorder.events] == list(range(100))
    assert subscription.dropped == 0


# --- nobody else pays ---


@pytest.mark.parametrize("policy", DROPPING)
def test_a_dropping_subscriber_costs_no_other_an_event_nor_blocks_a_publisher(
    bus, subscribe, make_recorder, policy, deadline
):
    # far more than max_queue, and more than fit the pages that the ring begins with
    amount = 20_000
    before, after, seen = make_recorder(), make_recorder(), []
    bus.subscribe(Tick, before, max_queue=amount + 1)
    handler = subscribe(policy, max_queue=2)
    bus.subscribe(Tick, after, max_queue=amount + 1)
    bus.subscribe(Tick, lambda tick: seen.append(tick.number), mode="direct")
    for number in range(1, amount):
        assert bus.publish(Tick(number), timeout=deadline) >= 3
    assert [tick.number for tick in before.wait_for(amount)] == list(range(amount))
    assert [tick.number for tick in after.wait_for(amount - 1)] == list(range(1, amount))
    assert seen == list(range(1, amount))
    subscription = handler.subscription
    assert subscription.pending <= 3  # with the one in hand
    assert subscription.dropped + subscription.pending == amount


@pytest.mark.parametrize("max_queue", [(2, 5), (5, 2)])
def test_every_blocking_subscription_has_its_own_max_queue(bus, subscribe, recorder, max_queue, eventually, deadline):
    handler = subscribe("block", max_queue=max_queue[0])
    quick = bus.subscribe(Tick, recorder, max_queue=max_queue[1])
    assert (handler.subscription.max_queue, quick.max_queue) == max_queue
    for number in range(1, max_queue[0]):
        bus.publish(Tick(number), timeout=deadline)  # which may have to wait for the quick one
    with pytest.raises(PublishTimeoutError):
        bus.publish(Tick(max_queue[0]), timeout=0)
    let_go(handler, eventually)
    assert handler.numbers == list(range(max_queue[0]))
    assert [tick.number for tick in recorder.wait_for(max_queue[0] - 1)] == handler.numbers[1:]


def test_what_a_dropping_subscriber_drops_is_released(bus, subscribe, eventually):
    released = []

    class Watched:
        number = 1

        def __del__(self):
            released.append(1)

    for policy in DROPPING:
        released.clear()
        handler = subscribe(policy, Watched(), max_queue=2)
        for _ in range(10):
            bus.publish(Watched())
        eventually(lambda handler=handler: len(released) == handler.subscription.dropped > 0)
        handler.subscription.cancel(discard=True)
        let_go(handler, eventually)


# --- timeouts ---


@pytest.mark.parametrize("timeout", [0, 0.0, 0.05])
@pytest.mark.parametrize("how", ["publish", "publish_to"])
def test_publish_gives_up_after_its_timeout_and_nobody_has_the_event(
    bus, subscribe, recorder, eventually, timeout, how, deadline
):
    handler = subscribe("block", max_queue=2)
    dropper = bus.subscribe(Tick, recorder, policy="drop_newest")
    type_id = handler.subscription.type_id
    publish = bus.publish if how == "publish" else lambda event, **options: bus.publish_to(type_id, event, **options)
    assert publish(Tick(1), timeout=timeout) == 2
    start = time.monotonic()
    with pytest.raises(PublishTimeoutError) as raised:
        publish(Tick(2), timeout=timeout)
    assert timeout <= time.monotonic() - start < deadline
    assert isinstance(raised.value, RingcastError)
    assert isinstance(raised.value, TimeoutError)
    let_go(handler, eventually)
    assert publish(Tick(3), timeout=timeout) == 2
    bus.close(deadline)
    assert handler.numbers == [0, 1, 3]
    assert [tick.number for tick in recorder.events] == [1, 3]
    assert dropper.dropped == 0


def test_a_timeout_that_is_not_needed_costs_nothing(bus, subscribe, spawn, eventually, deadline):
    handler = subscribe("block", max_queue=1)
    begun = threading.Event()

    def publish():
        begun.set()
        return bus.publish(Tick(1), timeout=deadline)

    publisher = spawn(publish)
    assert begun.wait(deadline)
    with pytest.raises(TimeoutError):
        publisher.result(0.05)
    handler.gate.open()
    assert publisher.result(deadline) == 1
    eventually(lambda: handler.numbers == [0, 1])


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_timeout_below_0_is_refused(bus, recorder, timeout):
    bus.subscribe(Tick, recorder)
    with pytest.raises(ValueError, match="timeout"):
        bus.publish(Tick(0), timeout=timeout)


# --- lag ---


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # of 0 to 9 the events that are kept, then 10: how many were dropped before each
        ("drop_newest", {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 10: 5}),
        ("drop_oldest", {0: 0, 6: 5, 7: 0, 8: 0, 9: 0, 10: 0}),
        ("latest", {0: 0, 9: 8, 10: 0}),
        ("block", {0: 0, 1: 0, 2: 0, 3: 0, 10: 0}),
    ],
)
def test_lag_tells_a_handler_how_many_events_it_has_missed(bus, subscribe, eventually, policy, expected):
    handler = subscribe(policy, max_queue=4)
    for number in range(1, 4 if policy == "block" else 10):
        bus.publish(Tick(number), timeout=0)
    let_go(handler, eventually)
    bus.publish(Tick(10))
    eventually(lambda: handler.subscription.delivered == len(expected))
    assert dict(zip(handler.numbers, handler.lags, strict=True)) == expected


# --- accounting ---


@pytest.mark.parametrize("max_queue", [1, 3, 64])
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_published_is_delivered_dropped_or_pending(bus, make_recorder, spawn, policy, max_queue, deadline):
    amount, publishers = 2000, 3
    recorders = [make_recorder() for _ in range(2)]
    subscriptions = [bus.subscribe(Tick, each, policy=policy, max_queue=max_queue) for each in recorders]

    def publish_all(publisher):
        accepted = []
        for number in range(publisher, publishers * amount, publishers):
            try:
                bus.publish(Tick(number))
                accepted.append(number)
            except QueueFullError:
                assert policy == "raise"
        return accepted

    futures = [spawn(publish_all, publisher) for publisher in range(publishers)]
    accepted = [future.result(2 * deadline) for future in futures]
    for subscription in subscriptions:
        assert subscription.pending <= max_queue + 1
    bus.close(deadline)
    total = sum(map(len, accepted))
    for subscription, recorder in zip(subscriptions, recorders, strict=True):
        assert subscription.delivered == len(recorder.events)
        assert subscription.pending == 0
        assert subscription.delivered + subscription.dropped == total
        assert policy in DROPPING or subscription.dropped == 0
        for publisher, numbers in enumerate(accepted):  # nothing twice, nothing out of order, nothing of the refused
            received = [tick.number for tick in recorder.events if tick.number % publishers == publisher]
            assert received == sorted(set(received) & set(numbers))


@pytest.mark.parametrize("policy", DROPPING)
def test_close_delivers_what_a_dropping_subscriber_has_kept(bus, subscribe, spawn, policy, deadline):
    handler = subscribe(policy, max_queue=3)
    for number in range(1, 10):
        bus.publish(Tick(number))
    pending = handler.subscription.pending
    closer = spawn(bus.close, deadline)
    handler.gate.open()
    closer.result(deadline)
    assert len(handler.numbers) == pending == 10 - handler.subscription.dropped


@pytest.mark.parametrize("policy", DROPPING)
def test_discarding_counts_what_was_kept_as_dropped_too(bus, subscribe, eventually, policy):
    handler = subscribe(policy, max_queue=3)
    for number in range(1, 10):
        bus.publish(Tick(number))
    handler.subscription.cancel(discard=True)
    assert handler.subscription.dropped == 9  # all but the one in hand
    let_go(handler, eventually)
    assert handler.numbers == [0]


# --- settings ---


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_of_the_dispatcher_holds_where_none_is_given(make_bus, recorder, policy):
    bus = make_bus(policy=policy, max_queue=7)
    inherited = bus.subscribe(Tick, recorder)
    own = bus.subscribe(Tick, recorder, policy="block", max_queue=3)
    assert (inherited.policy, inherited.max_queue) == (policy, 1 if policy == "latest" else 7)
    assert (own.policy, own.max_queue) == ("block", 3)


def test_without_options_a_subscription_blocks_at_the_dispatchers_max_queue(bus, recorder):
    subscription = bus.subscribe(Tick, recorder)
    assert (subscription.mode, subscription.policy, subscription.max_queue) == ("queued", "block", bus.max_queue)
    assert (subscription.lag, subscription.filtered) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "drop"},
        {"policy": 1},
        {"max_queue": 0},
        {"max_queue": 101},
        {"max_queue": True},
        {"max_queue": 1.0},
        {"key": hash},
        {"policy": "drop_oldest", "key": hash},
        {"policy": "latest", "key": "symbol"},
    ],
)
def test_options_that_make_no_sense_are_refused(make_bus, recorder, options):
    bus = make_bus(max_queue=100)
    with pytest.raises(OptionError):
        bus.subscribe(Tick, recorder, **options)
    assert bus.count(Tick) == 0


class EqualToAll:
    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.mark.parametrize("policy", ["drop", 1, EqualToAll()])
def test_so_is_a_dispatcher_with_such_a_policy(make_bus, policy):
    with pytest.raises(OptionError):
        make_bus(policy=policy)


def test_options_may_be_members_of_enumerations(make_bus, recorder):
    class Word(enum.StrEnum):
        QUEUED = "queued"
        LATEST = "latest"
        PUBLISHER = "publisher"

    bus = make_bus(policy=Word.LATEST)
    subscription = bus.subscribe(Tick, recorder, mode=Word.QUEUED, policy=Word.LATEST, context=Word.PUBLISHER)
    assert (subscription.policy, subscription.mode) == ("latest", "queued")
    assert bus.subscribe(Tick, recorder).policy == "latest"


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
def test_a_dropping_subscription_holds_up_no_publisher_while_its_only_worker_is_stuck(make_bus, gate, policy):
    bus = make_bus(max_queue=2, max_workers=1)
    subscription = bus.subscribe(Tick, gate.hold, policy=policy)
    bus.publish(Tick(0))
    gate.wait_until_held()
    for number in range(1, 1000):
        assert bus.publish(Tick(number), timeout=0) == 1
    assert bus.publish_many([Tick(number) for number in range(1000)], timeout=0) == 1000
    gate.open()
    bus.close()
    assert subscription.delivered + subscription.dropped == 2000
