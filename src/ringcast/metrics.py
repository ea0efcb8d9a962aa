"""Shows the numbers of dispatchers to Prometheus. Needs prometheus_client: pip install 'ringcast[prometheus]'.

    from ringcast import metrics
    metrics.register(bus)

Nothing is counted for it: at each scrape `Dispatcher.stats()` is read, so it costs nothing in between. These are the
metrics; counters end in `_total` where they are exposed:

    ringcast_published                     counter  events that reached a subscription, by topic
    ringcast_pending, ..._high_water       gauge    events some subscriber has still to see, by topic; the most so far
    ringcast_subscriptions                 gauge    how many there are, by topic
    ringcast_handler_delivered, _dropped, _filtered, _errors   counter  by handler
    ringcast_handler_pending, _high_water  gauge    by handler; of several subscriptions the longest queue
    ringcast_handler_mean_seconds          gauge    mean sampled time of one call, by handler
    ringcast_workers                       gauge    threads that run handlers, by dispatcher

All have the label `dispatcher` (its name), those of topics also `event` (the class's name, of several classes `A | B`,
or the type id in hexadecimal where it has no class), those of handlers also `handler`. What has the same labels is one
time series: two subscriptions of the same method of two objects, say. Give dispatchers names to tell them apart.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ringcast.callables import attribute, is_a
from ringcast.dispatcher import Dispatcher
from ringcast.errors import OptionError
from ringcast.events import shown
from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats, event_name

__all__ = ["register", "unregister"]

Labels = tuple[str, ...]
Series = dict[Labels, float]

_DISPATCHER = ("dispatcher",)
_TOPIC = ("dispatcher", "event")
_HANDLER = ("dispatcher", "event", "handler")

_TOTALS = {
    "ringcast_published": ("Events that reached a subscription.", _TOPIC),
    "ringcast_handler_delivered": ("Events that the handler was called with.", _HANDLER),
    "ringcast_handler_dropped": ("Events that the handler did not get.", _HANDLER),
    "ringcast_handler_filtered": ("Events that the subscription's condition declined.", _HANDLER),
    "ringcast_handler_errors": ("Calls of the handler that raised.", _HANDLER),
}
_GAUGES = {
    "ringcast_workers": ("Threads that run handlers.", _DISPATCHER),
    "ringcast_subscriptions": ("Subscriptions.", _TOPIC),
    "ringcast_pending": ("Events that a subscriber has still to see.", _TOPIC),
    "ringcast_high_water": ("The most events that were pending.", _TOPIC),
    "ringcast_handler_pending": ("Events that wait for the handler.", _HANDLER),
    "ringcast_handler_high_water": ("The most events that waited for the handler.", _HANDLER),
    "ringcast_handler_mean_seconds": ("Mean time of one call of the handler, sampled.", _HANDLER),
}


def register(dispatcher: Dispatcher, registry: CollectorRegistry | None = None) -> None:
    """Show a dispatcher's numbers in a registry from now on. A second call changes nothing.

    The registry does not keep the dispatcher alive: its time series end with it. Any thread may call this.

    Args:
        dispatcher: the dispatcher, open or closed. One registry takes any number of them.
        registry: where to show it; None: prometheus_client's default, which its HTTP servers expose.

    Raises:
        ValueError: another collector in the registry has metrics of these names.
        OptionError: an argument is not as above.
    """
    registry = _check("register", dispatcher, registry)
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _Collector()
            registry.register(collector)
            _collectors[registry] = collector
        collector.dispatchers.add(dispatcher)


def unregister(dispatcher: Dispatcher, registry: CollectorRegistry | None = None) -> None:
    """Show a dispatcher's numbers no more. Does nothing where they are not shown. Any thread may call this.

    Args:
        dispatcher: the dispatcher.
        registry: the same as for `register`.

    Raises:
        OptionError: an argument is not as above.
    """
    registry = _check("unregister", dispatcher, registry)
    with _lock:
        collector = _collectors.get(registry)
        if collector is not None:
            collector.dispatchers.discard(dispatcher)


def _check(function: str, dispatcher: object, registry: CollectorRegistry | None) -> CollectorRegistry:
    """Return the registry that is meant, if both arguments are what they are to be."""
    if not is_a(dispatcher, Dispatcher):
        raise OptionError(f"{function}(dispatcher, registry): a Dispatcher comes first, not {shown(dispatcher)}")
    if registry is None:
        return REGISTRY
    if not callable(attribute(registry, "register")):
        raise OptionError(f"{function}(dispatcher, registry): a CollectorRegistry is needed, not {shown(registry)}")
    return registry


class _Collector(Collector):
    """All dispatchers of one registry: the exposition formats want each metric in one piece."""

    def __init__(self) -> None:
        self.dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
        self.lock = threading.Lock()  # two scrapes at once
        self._monotone: defaultdict[str, _Monotone] = defaultdict(_Monotone)

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, by which the registry finds clashes."""
        return _families({}, {})

    def collect(self) -> Iterable[Metric]:
        """The metrics with the values of now."""
        with _lock:
            dispatchers = list(self.dispatchers)
        with self.lock:
            numbers = _Numbers()
            for dispatcher in dispatchers:
                numbers.add(dispatcher.stats())
            totals = {name: self._monotone[name].follow(series) for name, series in numbers.totals.items()}
        return _families(totals, numbers.gauges())


class _Monotone:
    """Lets sums over subscriptions only grow, also when one of these ends and takes its share away.

    Prometheus takes a counter that falls for one that began again at 0, and would count what is left of the sum a
    second time.
    """

    def __init__(self) -> None:
        self._last: Series = {}
        self._lost: Series = {}

    def follow(self, series: Series) -> Series:
        for labels in self._last.keys() | series.keys():
            fallen = self._last.get(labels, 0) - series.get(labels, 0)
            if fallen > 0:
                self._lost[labels] = self._lost.get(labels, 0) + fallen
        self._last = series
        return {labels: value + self._lost.get(labels, 0) for labels, value in series.items()}


class _Numbers:
    """The numbers of some dispatchers, added up by labels."""

    def __init__(self) -> None:
        self.totals: dict[str, Series] = {name: defaultdict(float) for name in _TOTALS}
        self._gauges: dict[str, Series] = {name: defaultdict(float) for name in _GAUGES}
        self._calls: Series = defaultdict(float)  # what the mean times are weighed with

    def add(self, stats: DispatcherStats) -> None:
        self._gauges["ringcast_workers"][(stats.name,)] += stats.workers
        for topic in stats.topics:
            # Not the type id of a class: automatic ones differ from run to run.
            self._add_topic((stats.name, event_name(topic)), topic)

    def _add_topic(self, labels: Labels, topic: TopicStats) -> None:
        self.totals["ringcast_published"][labels] += topic.published
        self._gauges["ringcast_subscriptions"][labels] += len(topic.subscriptions)
        self._at_most("ringcast_pending", labels, topic.pending)
        self._at_most("ringcast_high_water", labels, topic.high_water)
        for sub in topic.subscriptions:
            self._add_subscription((*labels, sub.handler), sub)

    def _add_subscription(self, labels: Labels, sub: SubscriptionStats) -> None:
        self.totals["ringcast_handler_delivered"][labels] += sub.delivered
        self.totals["ringcast_handler_dropped"][labels] += sub.dropped
        self.totals["ringcast_handler_filtered"][labels] += sub.filtered
        self.totals["ringcast_handler_errors"][labels] += sub.errors
        self._at_most("ringcast_handler_pending", labels, sub.pending)
        self._at_most("ringcast_handler_high_water", labels, sub.high_water)
        if sub.handler_seconds is not None:
            calls = max(sub.delivered, 1)
            self._gauges["ringcast_handler_mean_seconds"][labels] += sub.handler_seconds * calls
            self._calls[labels] += calls

    def _at_most(self, name: str, labels: Labels, value: int) -> None:
        series = self._gauges[name]
        series[labels] = max(series[labels], value)

    def gauges(self) -> dict[str, Series]:
        seconds = self._gauges["ringcast_handler_mean_seconds"]
        return {**self._gauges, "ringcast_handler_mean_seconds": {at: seconds[at] / self._calls[at] for at in seconds}}


def _families(totals: dict[str, Series], gauges: dict[str, Series]) -> Iterator[Metric]:
    """The metrics in the form of prometheus_client, each with its series."""
    for name, (text, labels) in _TOTALS.items():
        yield _fill(CounterMetricFamily(name, text, labels=labels), totals.get(name, {}))
    for name, (text, labels) in _GAUGES.items():
        yield _fill(GaugeMetricFamily(name, text, labels=labels), gauges.get(name, {}))


def _fill(family: CounterMetricFamily | GaugeMetricFamily, series: Series) -> Metric:
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _renew_locks() -> None:
    """In the child of a fork, which has none of the threads that may have held them."""
    global _lock
    _lock = threading.Lock()
    for collector in list(_collectors.values()):
        collector.lock = threading.Lock()


_lock = threading.Lock()
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, _Collector] = weakref.WeakKeyDictionary()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
