"""metrics.register(): a dispatcher's numbers as Prometheus metrics."""

import gc
import itertools
import os
import threading
import weakref
from dataclasses import dataclass

import prometheus_client
import pytest
from forking import PRELUDE
from prometheus_client.parser import text_string_to_metric_families

from ringcast import Dispatcher, OptionError, metrics
from ringcast.events import class_name


@dataclass
class Tick:
    price: float


TICK = f"{__name__}.Tick"


class Handler:
    """Two of these have one name."""

    def handle(self, tick: Tick) -> None: ...


HANDLE = f"{__name__}.Handler.handle"


def fail(tick: Tick) -> None:
    raise ValueError(tick)


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry()


@pytest.fixture
def value(registry):
    """The value of one time series; None if there is none."""

    def get(name, dispatcher="ringcast", event=TICK, handler=None):
        labels = {"dispatcher": dispatcher, "event": event, "handler": handler}
        return registry.get_sample_value(name, {label: text for label, text in labels.items() if text is not None})

    return get


def scrape(registry):
    """All samples of the text format, as a dict; fails on what Prometheus would refuse: a series that comes twice."""
    samples = {}
    for family in text_string_to_metric_families(prometheus_client.generate_latest(registry).decode()):
        for sample in family.samples:
            series = (sample.name, *sorted(sample.labels.items()))
            assert series not in samples
            samples[series] = sample.value
    return samples


def test_counters_and_gauges_of_a_topic(bus, gate, registry, value, deadline):
    metrics.register(bus, registry)
    bus.subscribe(Tick, gate.hold)
    for _ in range(3):
        bus.publish(Tick(1.0))
    gate.wait_until_held()
    assert value("ringcast_published_total") == 3
    assert value("ringcast_pending") == 3
    assert value("ringcast_subscriptions") == 1
    gate.open()
    assert bus.wait_idle(deadline)
    assert value("ringcast_published_total") == 3
    assert value("ringcast_pending") == 0
    assert value("ringcast_high_water") >= 2


def test_counters_and_gauges_of_a_handler(make_bus, registry, value, deadline):
    bus = make_bus(on_error=lambda failure: None)
    metrics.register(bus, registry)
    bus.subscribe(fail)
    for _ in range(3):
        bus.publish(Tick(1.0))
    assert bus.wait_idle(deadline)
    name = f"{__name__}.fail"
    assert value("ringcast_handler_delivered_total", handler=name) == 3
    assert value("ringcast_handler_errors_total", handler=name) == 3
    assert value("ringcast_handler_dropped_total", handler=name) == 0
    assert value("ringcast_handler_filtered_total", handler=name) == 0
    assert value("ringcast_handler_pending", handler=name) == 0
    assert value("ringcast_handler_high_water", handler=name) >= 1


def test_workers_of_a_dispatcher(bus, gate, registry, value):
    metrics.register(bus, registry)
    assert value("ringcast_workers", event=None) == 0
    bus.subscribe(Tick, gate.hold)
    bus.publish(Tick(1.0))
    gate.wait_until_held()
    assert value("ringcast_workers", event=None) >= 1


def test_the_mean_time_of_a_call(bus, registry, value, deadline):
    metrics.register(bus, registry)
    bus.subscribe(Handler().handle)
    assert value("ringcast_handler_mean_seconds", handler=HANDLE) is None  # nothing sampled: no series, not 0
    for _ in range(2000):
        bus.publish(Tick(1.0))
    assert bus.wait_idle(deadline)
    assert 0.0 < value("ringcast_handler_mean_seconds", handler=HANDLE) < 1.0


def test_what_a_policy_drops_and_where_declines(bus, gate, registry, value, deadline):
    metrics.register(bus, registry)
    bus.subscribe(Tick, gate.hold, policy="drop_newest", max_queue=1)
    bus.subscribe(Tick, fail, where=lambda tick: False)
    bus.publish(Tick(1.0))
    gate.wait_until_held()
    for _ in range(10):
        bus.publish(Tick(1.0))
    gate.open()
    assert bus.wait_idle(deadline)
    assert value("ringcast_handler_dropped_total", handler="conftest.Gate.hold") >= 9
    assert value("ringcast_handler_filtered_total", handler=f"{__name__}.fail") == 11


def test_an_id_without_a_class_is_named_by_its_number(bus, recorder, registry, value):
    metrics.register(bus, registry)
    bus.subscribe_to(0x2A, recorder)
    assert value("ringcast_subscriptions", event="0x0000002a") == 1


def test_several_classes_are_named_together(bus, recorder, registry, value):
    class Other:
        pass

    metrics.register(bus, registry)
    bus.subscribe((Tick, Other), recorder)
    bus.subscribe((Tick, Other), recorder, subclasses=True)
    assert [bus.publish(event) for event in (Tick(1.0), Other())] == [2, 2]
    name = f"{TICK} | {class_name(Other)}"
    assert value("ringcast_published_total", event=name) == 2
    assert value("ringcast_published_total", event=f"{name} and subclasses") == 2
    assert value("ringcast_published_total") == 0  # nobody is subscribed to the class alone


def test_dispatchers_are_told_apart_by_name(make_bus, registry, value):
    for name, events in (("first", 1), ("second", 2)):
        bus = make_bus(name=name)
        metrics.register(bus, registry)
        bus.subscribe(Handler().handle)
        for _ in range(events):
            bus.publish(Tick(1.0))
    assert value("ringcast_published_total", "first") == 1
    assert value("ringcast_published_total", "second") == 2
    scrape(registry)


def test_handlers_and_dispatchers_of_one_name_are_added_up(make_bus, registry, value, deadline):
    for _ in range(2):
        bus = make_bus()
        metrics.register(bus, registry)
        for _ in range(2):
            bus.subscribe(Handler().handle)
        bus.publish(Tick(1.0))
        assert bus.wait_idle(deadline)
    assert value("ringcast_published_total") == 2
    assert value("ringcast_handler_delivered_total", handler=HANDLE) == 4
    scrape(registry)


def test_a_total_does_not_fall_when_a_subscription_ends(bus, registry, value, deadline):
    def delivered():
        return value("ringcast_handler_delivered_total", handler=HANDLE)

    metrics.register(bus, registry)
    with bus.subscribe(Handler().handle):
        bus.subscribe(Handler().handle)
        bus.publish(Tick(1.0))
        assert bus.wait_idle(deadline)
        assert delivered() == 2
    assert delivered() == 2
    bus.publish(Tick(1.0))
    assert bus.wait_idle(deadline)
    assert delivered() == 3


def test_to_register_again_changes_nothing(bus, registry, value):
    metrics.register(bus, registry)
    metrics.register(bus, registry)
    bus.subscribe(Handler().handle)
    assert value("ringcast_subscriptions") == 1


def test_unregistered_it_is_shown_no_more(bus, registry, value):
    metrics.register(bus, registry)
    assert value("ringcast_workers", event=None) == 0
    metrics.unregister(bus, registry)
    assert value("ringcast_workers", event=None) is None
    metrics.unregister(bus, registry)


def test_to_unregister_where_nothing_is_registered_does_nothing(bus, registry):
    metrics.unregister(bus, registry)


def test_the_default_is_the_default_registry(bus):
    metrics.register(bus)
    try:
        labels = {"dispatcher": "ringcast"}
        assert prometheus_client.REGISTRY.get_sample_value("ringcast_workers", labels) == 0
    finally:
        metrics.unregister(bus)


def test_metrics_of_the_same_name_are_refused(bus, registry):
    prometheus_client.Gauge("ringcast_workers", "not ours", registry=registry)
    with pytest.raises(ValueError, match="ringcast_workers"):
        metrics.register(bus, registry)


@pytest.mark.parametrize("call", [metrics.register, metrics.unregister])
def test_what_is_no_dispatcher_or_no_registry_is_refused(bus, registry, call):
    for dispatcher, other in ((registry, bus), ("x", registry), (Dispatcher, None)):
        with pytest.raises(
            OptionError, match=rf"^{call.__name__}\(dispatcher, registry\): a Dispatcher comes first, not "
        ):
            call(dispatcher, other)
    with pytest.raises(OptionError, match=r"a CollectorRegistry is needed, not 'x' \(str\)$"):
        call(bus, "x")
    assert not list(registry.collect())


def test_a_dispatcher_is_not_kept_alive(registry, value):
    bus = Dispatcher(name="gone")
    metrics.register(bus, registry)
    assert value("ringcast_workers", "gone", None) == 0
    gone = weakref.ref(bus)
    del bus
    gc.collect()
    assert gone() is None
    assert value("ringcast_workers", "gone", None) is None


def test_a_registry_is_not_kept_alive(bus):
    registry = prometheus_client.CollectorRegistry()
    metrics.register(bus, registry)
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_several_scrapes_at_once_while_subscriptions_come_and_go(bus, registry, spawn, deadline):
    metrics.register(bus, registry)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            with bus.subscribe(Handler().handle):
                bus.publish(Tick(1.0))

    def totals():
        seen = [scrape(registry) for _ in range(30)]
        for before, after in itertools.pairwise(seen):
            for series in before.keys() & after.keys():
                assert not series[0].endswith("_total") or before[series] <= after[series]

    churning = spawn(churn)
    scraping = [spawn(totals) for _ in range(2)]
    for future in scraping:
        future.result(deadline)
    stop.set()
    churning.result(deadline)


def test_every_metric_is_described_in_the_text_format(bus, registry):
    metrics.register(bus, registry)
    text = prometheus_client.generate_latest(registry).decode()
    assert "# TYPE ringcast_published_total counter" in text
    assert "# HELP ringcast_handler_mean_seconds Mean time of one call of the handler, sampled." in text
    assert 'ringcast_workers{dispatcher="ringcast"} 0.0' in text


@pytest.mark.forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_during_a_scrape_of_metrics(run_until_done):
    run_until_done(f"""{PRELUDE}
import prometheus_client
from ringcast import metrics

class Held(Dispatcher):
    def stats(self):
        if threading.current_thread() is not threading.main_thread():
            slow(Tick())
        return super().stats()

slow, bus, registry = Slow(), Held(), prometheus_client.CollectorRegistry()
metrics.register(bus, registry)
scraping = threading.Thread(target=prometheus_client.generate_latest, args=(registry,))
scraping.start()
assert slow.held.wait(DEADLINE)

def child():
    assert b"ringcast_workers" in prometheus_client.generate_latest(registry)

assert fork(child) == 0
slow.opened.set()
scraping.join(DEADLINE)
bus.close()
""")
