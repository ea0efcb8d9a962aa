"""Dispatcher.stats(): the numbers of a dispatcher, its topics and its subscriptions."""

import asyncio
import dataclasses
import gc
import pickle
import threading
import weakref
from dataclasses import dataclass

import pytest
from limits import DEADLINE

from ringcast import Dispatcher
from ringcast.stats import DispatcherStats, SubscriptionStats, collect, event_name


@dataclass
class Tick:
    price: float


@dataclass
class Order:
    amount: int


def topic_of(stats, event_class):
    """The one topic of a class."""
    (found,) = [topic for topic in stats.topics if topic.event_class is event_class]
    return found


def only(stats, event_class):
    """The one subscription of a class."""
    (found,) = topic_of(stats, event_class).subscriptions
    return found


def test_a_new_dispatcher_has_nothing_to_tell(make_bus):
    assert make_bus(name="quiet").stats() == DispatcherStats("quiet", closed=False, workers=0, topics=())


def test_a_closed_dispatcher_says_so_and_still_tells_what_was(bus, recorder):
    bus.subscribe(Tick, recorder)
    bus.publish(Tick(1.0))
    bus.close()
    stats = bus.stats()
    assert (stats.closed, stats.workers) == (True, 0)
    assert all(topic.published == 1 for topic in stats.topics)


def test_topics_are_told_with_id_class_and_what_was_published(bus, recorder, deadline):
    bus.subscribe(Tick, recorder)
    bus.subscribe_to(7, recorder)
    for _ in range(3):
        bus.publish(Tick(1.0))
    assert bus.wait_idle(deadline)
    stats = bus.stats()
    assert topic_of(stats, Tick).published == 3
    (seventh,) = [topic for topic in stats.topics if topic.type_id == 7]
    assert (seventh.event_class, seventh.published) == (None, 0)


def test_subscriptions_are_told_in_the_order_they_were_made_by_handler_name(bus, recorder):
    def first(tick: Tick) -> None: ...

    def second(tick: Tick) -> None: ...

    for handler in (first, second, recorder):
        bus.subscribe(Tick, handler)
    where = "test_subscriptions_are_told_in_the_order_they_were_made_by_handler_name.<locals>"
    assert [sub.handler for sub in topic_of(bus.stats(), Tick).subscriptions] == [
        f"{__name__}.{where}.first",
        f"{__name__}.{where}.second",
        "conftest.Recorder",
    ]


def test_events_that_wait_are_pending_and_leave_a_high_water_mark(bus, gate, deadline):
    bus.subscribe(Tick, gate.hold)
    bus.publish(Tick(0.0))
    gate.wait_until_held()
    for _ in range(9):
        bus.publish(Tick(1.0))
    held = bus.stats()
    assert topic_of(held, Tick).pending == only(held, Tick).pending == 10
    gate.open()
    assert bus.wait_idle(deadline)
    done = bus.stats()
    assert topic_of(done, Tick).pending == only(done, Tick).pending == 0
    assert only(done, Tick).delivered == 10
    assert topic_of(done, Tick).high_water >= 9  # a mark is taken where it costs nothing: near, not exact
    assert only(done, Tick).high_water >= 9


def test_failed_calls_are_delivered_and_errors(make_bus, deadline):
    bus = make_bus(on_error=lambda failure: None)

    def fail_on_odd(order: Order) -> None:
        if order.amount % 2:
            raise ValueError(order.amount)

    bus.subscribe(fail_on_odd)
    for amount in range(5):
        bus.publish(Order(amount))
    assert bus.wait_idle(deadline)
    sub = only(bus.stats(), Order)
    assert (sub.delivered, sub.errors) == (5, 2)


def test_what_where_declines_is_filtered(bus, recorder, deadline):
    bus.subscribe(Order, recorder, where=lambda order: order.amount > 2)
    for amount in range(5):
        bus.publish(Order(amount))
    assert bus.wait_idle(deadline)
    sub = only(bus.stats(), Order)
    assert (sub.delivered, sub.filtered) == (2, 3)


def test_what_a_policy_drops_is_dropped(bus, gate, deadline):
    bus.subscribe(Order, gate.hold, policy="drop_newest", max_queue=2)
    bus.publish(Order(0))
    gate.wait_until_held()
    for amount in range(1, 10):
        bus.publish(Order(amount))
    gate.open()
    assert bus.wait_idle(deadline)
    sub = only(bus.stats(), Order)
    assert sub.policy == "drop_newest"
    assert sub.delivered + sub.dropped == 10
    assert sub.dropped >= 7


def test_modes_and_policies_are_told(make_bus, recorder):
    bus = make_bus(policy="drop_oldest")
    bus.subscribe(Tick, recorder, mode="direct")
    bus.subscribe(Tick, recorder)
    bus.subscribe(Tick, recorder, policy="latest")
    queued, latest, direct = topic_of(bus.stats(), Tick).subscriptions
    assert direct.mode == "direct"
    assert (queued.mode, queued.policy) == ("queued", "drop_oldest")
    assert (latest.mode, latest.policy) == ("queued", "latest")


def test_a_class_with_its_subclasses_is_a_topic_without_id(bus, recorder, deadline):
    class Urgent(Order):
        """An order."""

    bus.subscribe(Order, recorder)
    bus.subscribe(Order, recorder, subclasses=True)
    for event in (Order(1), Urgent(2)):
        bus.publish(event)
    assert bus.wait_idle(deadline)
    topics = {
        (topic.type_id is None, event_name(topic)): topic.published
        for topic in bus.stats().topics
        if topic.subscriptions
    }
    assert topics == {(False, f"{__name__}.Order"): 1, (True, f"{__name__}.Order and subclasses"): 2}


def test_subscriptions_with_the_publishers_context_belong_to_the_same_topic(bus, recorder, deadline):
    def plain(tick: Tick) -> None: ...

    bus.subscribe(plain)
    bus.subscribe(Tick, recorder, context="publisher")
    for _ in range(3):
        bus.publish(Tick(1.0))
    assert bus.wait_idle(deadline)
    topic = topic_of(bus.stats(), Tick)
    assert topic.published == 3
    assert [sub.delivered for sub in topic.subscriptions] == [3, 3]


@pytest.mark.parametrize("others", [{}, {"context": "publisher"}, {"policy": "latest"}, {"mode": "direct"}])
def test_what_only_direct_handlers_saw_is_published_too(bus, others):
    bus.subscribe(Tick, lambda tick: None, mode="direct")
    for _ in range(3):
        bus.publish(Tick(1.0))
    assert topic_of(bus.stats(), Tick).published == 3
    bus.subscribe(Tick, lambda tick: None, **others)
    for _ in range(3):
        bus.publish(Tick(1.0))
    assert topic_of(bus.stats(), Tick).published == 6


def test_direct_handlers_of_a_class_with_its_subclasses_count_as_well(bus):
    bus.subscribe(Order, lambda order: None, mode="direct", subclasses=True)
    bus.subscribe(Tick, lambda tick: None)
    for event in (Order(1), Order(2), Tick(1.0)):
        bus.publish(event)
    published = {event_name(topic): topic.published for topic in bus.stats().topics if topic.subscriptions}
    assert published == {f"{__name__}.Order and subclasses": 2, f"{__name__}.Tick": 1}


def test_a_topic_has_the_sums_of_its_subscriptions(make_bus, gate, deadline):
    bus = make_bus(on_error=lambda failure: None)

    def fail(tick: Tick) -> None:
        raise ValueError

    bus.subscribe(fail)
    bus.subscribe(Tick, lambda tick: None, where=lambda tick: tick.price > 1)
    bus.subscribe(Tick, gate.hold, policy="drop_oldest", max_queue=1)
    bus.publish(Tick(0.0))
    gate.wait_until_held()
    for price in (1.0, 2.0, 3.0):
        bus.publish(Tick(price))
    gate.open()
    assert bus.wait_idle(deadline)
    topic = topic_of(bus.stats(), Tick)
    assert (topic.published, topic.delivered, topic.errors) == (4, 4 + 2 + 2, 4)
    assert (topic.filtered, topic.dropped) == (2, 2)
    assert 0 < topic.handler_seconds < 15
    assert dataclasses.replace(topic, subscriptions=()).handler_seconds is None


def test_a_cancelled_subscription_is_told_as_inactive_until_it_is_served(bus, gate, eventually):
    subscription = bus.subscribe(Tick, gate.hold)
    bus.publish(Tick(1.0))
    gate.wait_until_held()
    subscription.cancel()
    assert not only(bus.stats(), Tick).active
    gate.open()
    eventually(lambda: not any(topic.subscriptions for topic in bus.stats().topics))


def test_the_time_of_a_call_is_sampled(make_bus, deadline):
    timed, untimed = make_bus(), make_bus(timing=False)
    for bus in (timed, untimed):
        bus.subscribe(Tick, lambda tick: None)
        for _ in range(2000):
            bus.publish(Tick(1.0))
        assert bus.wait_idle(deadline)
    assert 0.0 < only(timed.stats(), Tick).handler_seconds < 1.0
    assert only(untimed.stats(), Tick).handler_seconds is None


def test_workers_are_the_threads_that_run_handlers(bus, gate):
    bus.subscribe(Tick, gate.hold)
    assert bus.stats().workers == 0
    bus.publish(Tick(1.0))
    gate.wait_until_held()
    assert bus.stats().workers >= 1


def test_a_handler_and_any_thread_may_ask(bus, spawn, deadline):
    seen = []
    asked = threading.Event()

    def ask(tick: Tick) -> None:
        seen.append(only(bus.stats(), Tick).pending)
        asked.set()

    bus.subscribe(ask)
    bus.publish(Tick(1.0))
    assert asked.wait(deadline)
    assert seen == [1]
    assert topic_of(spawn(bus.stats).result(deadline), Tick).published == 1


def test_asking_while_others_publish_and_subscribe_is_safe(bus, spawn, deadline):
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            with bus.subscribe(Tick, lambda tick: None):
                bus.publish(Tick(1.0))

    churning = spawn(churn)
    published = [sum(topic.published for topic in bus.stats().topics) for _ in range(300)]
    stop.set()
    churning.result(deadline)
    assert published == sorted(published)  # a count never goes back


# The values themselves ------------------------------------------------------------------------------


def test_stats_are_values(bus, recorder):
    bus.subscribe(Tick, recorder)
    stats = bus.stats()
    for value in (stats, topic_of(stats, Tick), only(stats, Tick)):
        assert not hasattr(value, "__dict__")
        field = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, "other")
    assert bus.stats() == stats
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_stats_keep_neither_the_dispatcher_nor_handlers_alive(make_bus):
    class Handler:
        def __call__(self, tick: Tick) -> None: ...

    handler = Handler()
    bus = Dispatcher()
    bus.subscribe(Tick, handler)
    gone = weakref.ref(handler)
    stats = bus.stats()
    bus.close()
    del bus, handler
    gc.collect()
    assert gone() is None
    assert stats.topics[0].subscriptions[0].handler.endswith("Handler")


def test_stats_are_the_numbers_of_the_subscription(bus, gate):
    """Each number is another one here, so that none can stand in the place of another."""

    def handle(tick: Tick) -> None:
        gate.hold()
        if tick.price == 1:
            raise ValueError

    sub = bus.subscribe(handle, policy="drop_newest", max_queue=4, where=lambda tick: tick.price >= 0)
    bus.publish(Tick(0))
    gate.wait_until_held()
    for price in (1, 2, 3, 4, -1, -2, -3, 5, 6):
        bus.publish(Tick(price))
    gate.open()
    assert bus.wait_idle(DEADLINE)
    expected = SubscriptionStats(
        handler=f"{handle.__module__}.{handle.__qualname__}",
        mode="queued",
        policy="drop_newest",
        active=True,
        delivered=5,
        dropped=2,
        filtered=3,
        errors=1,
        pending=0,
        high_water=4,
        handler_seconds=sub.handler_seconds,
    )
    stats = bus.stats()
    assert stats == collect(bus)
    assert stats.topics[0].subscriptions == (expected,)
    assert (stats.topics[0].published, stats.topics[0].event_class) == (10, Tick)
    assert sub.handler_seconds > 0


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"policy": "block"},
        {"policy": "raise"},
        {"policy": "drop_newest"},
        {"policy": "drop_oldest"},
        {"policy": "drop_oldest", "where": lambda tick: True},
        {"policy": "latest", "key": lambda tick: tick.price},
    ],
    ids=lambda options: " ".join(map(str, [options["policy"], *options][:3:2])),
)
def test_the_high_water_mark_is_what_has_waited_under_every_policy(bus, gate, options, batch):
    sub = bus.subscribe(Tick, lambda events: gate.hold(), max_queue=10, batch=batch, **options)
    bus.publish(Tick(0))
    gate.wait_until_held()
    for price in range(1, 6):
        bus.publish(Tick(price))
    gate.open()
    assert bus.wait_idle(DEADLINE)
    bus.publish(Tick(6))  # where it waits in the ring, the mark is taken when a turn begins
    assert bus.wait_idle(DEADLINE)
    assert 5 <= sub.high_water <= 6


def test_a_stream_is_called_by_what_it_is_of(bus):
    async def main():
        async with bus.stream((Tick, int)), bus.stream(Tick):
            return [sub.handler for topic in bus.stats().topics for sub in topic.subscriptions]

    name = f"stream of {__name__}.Tick"
    assert sorted(asyncio.run(main())) == [name, f"{name} | int"]


@pytest.mark.parametrize("timing", [1, None, "yes", NotImplemented])
def test_timing_is_true_or_false(timing):
    with pytest.raises(TypeError, match="timing must be True or False"):
        Dispatcher(timing=timing)
