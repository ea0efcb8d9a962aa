"""Speed beside others: each row times Ringcast and what a Python user would take instead, in turn, in one process.

    python benchmarks/ratios.py [--repeats N] [--rows PATTERN] [--output FILE.json]

Times of calls are without the loop around them. Deliveries are those of `python -m ringcast bench`, the same ways, but
to handlers that do nothing, where that has handlers that count. A peer that is not installed is named and its row
skipped. Where Ringcast is not the fastest, what is wanted only says that it got no worse.
"""

from __future__ import annotations

import collections
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from checks import Row, compare
from ringcast import Dispatcher
from ringcast.bench import peers, throughput
from ringcast.bench.timing import per_call, per_event, repeat_call
from ringcast.bench.work import Load, Shape, Way, feed_one, ignore_events

WAYS = {(way.mode, way.name): way for way in throughput.ALL}
QUEUED, DIRECT, STREAM = WAYS["queued", "Ringcast"], WAYS["direct", "Ringcast"], WAYS["asyncio", "Ringcast, stream"]
THREADS = WAYS["queued", "SimpleQueue, a thread each"]
ASYNCIO_QUEUE = Way("asyncio.Queue", "asyncio", partial(peers.asyncio_queues, asynchronous=False))
FEW = 100_000  # calls, of which the tenth that is timed at once fits between two switches of a busy machine

# --- one call ------------------------------------------------------------------------------------------------------


def deque_append(calls: int = 500_000) -> float:
    return per_call(partial(repeat_call, collections.deque(maxlen=0).append, object()), calls)


def simple_queue_put(calls: int = FEW) -> float:
    return per_call(partial(repeat_call, queue.SimpleQueue().put, object()), calls)


def plain_call(calls: int = FEW) -> float:
    return per_call(partial(repeat_call, ignore_events().handler, object()), calls)


@contextmanager
def held(types: int, subscribers: int, calls: int) -> Iterator[tuple[Dispatcher, list[type]]]:
    """Subscribers, of the first type so many, of all others one. One of each is held in its first call, so that only
    publishing is timed.
    """
    gate = threading.Event()
    load = Load(Shape(types, 1))
    with Dispatcher(max_queue=2 * calls) as bus:
        for event_class in load.classes:
            bus.subscribe(event_class, lambda event: gate.wait())
        for _ in range(subscribers - 1):
            bus.subscribe(load.classes[0], ignore_events().handler)
        yield bus, load.classes
        gate.set()


def publish_to_one(calls: int = 200_000) -> float:
    with held(1, 1, calls) as (bus, (event_class,)):
        return per_call(partial(repeat_call, bus.publish, event_class()), calls)


def publish_to_none(calls: int = 500_000) -> float:
    (event_class,) = Load(Shape(1, 1)).classes
    with Dispatcher() as bus:
        bus.subscribe(event_class, ignore_events().handler).cancel()
        return per_call(partial(repeat_call, bus.publish, event_class()), calls)


def send(way: Way, calls: int) -> float:
    """A send that calls one handler."""
    with way.open(Load(Shape(1, 1), ignore_events)) as channel:
        return per_call(partial(repeat_call, channel.sends[0], channel.items[0]), calls)


def plain_handler(event):  # type: ignore[no-untyped-def]  # without an annotation, which subscribing would look up
    pass


def subscribe_and_cancel(times: int = 1_000) -> float:
    (event_class,) = Load(Shape(1, 1)).classes
    with Dispatcher() as bus:

        def run() -> None:
            for _ in range(times):
                bus.subscribe(event_class, plain_handler).cancel()

        return per_event(run, times)


def blinker_connect_and_disconnect(times: int = 10_000) -> float:
    from blinker import Signal

    signal = Signal()

    def run() -> None:
        for _ in range(times):
            signal.connect(plain_handler, weak=False)
            signal.disconnect(plain_handler)

    return per_event(run, times)


# --- from the first that is sent to the end of the last handler ----------------------------------------------------


def delivery(way: Way, subscribers: int, events: int) -> float:
    """Per event of one type."""
    load = Load(Shape(1, subscribers), ignore_events)
    with way.open(load) as channel:
        running = throughput.Running(way, load, channel, feed_one)
        running.events = events
        return running.run()


def python_loop(subscribers: int, events: int) -> float:
    """Per event, the handlers called in a loop."""
    handlers, event = [ignore_events().handler for _ in range(subscribers)], object()

    def run() -> None:
        for _ in range(events):
            for handler in handlers:
                handler(event)

    return per_event(run, events)


def rows() -> Iterator[Row]:
    yield Row("publish to 1 subscriber / deque(maxlen=0).append", publish_to_one, deque_append, 2.5)
    yield Row("publish to none / publish to 1 subscriber", publish_to_none, publish_to_one, 0.7)
    yield Row("publish to 1 subscriber / SimpleQueue.put", partial(publish_to_one, FEW), simple_queue_put, 3)
    for subscribers, events, faster in ((1, 1_000_000, 1.5), (10, 200_000, 3), (100, 20_000, 5)):
        ours, theirs = (partial(delivery, way, subscribers, events) for way in (QUEUED, THREADS))
        yield Row(f"queued, {subscribers} subscribers / SimpleQueue and thread each", ours, theirs, 1 / faster)
    ours, theirs = partial(delivery, QUEUED, 100, 20_000), partial(python_loop, 100, 20_000)
    yield Row("queued, 100 subscribers / for handler in handlers: handler(event)", ours, theirs, 0.9)
    yield Row(
        "direct, 100 handlers / for handler in handlers: handler(event)",
        lambda: delivery(DIRECT, 100, 20_000) / 100,  # per delivery
        lambda: python_loop(100, 20_000) / 100,
        0.9,
    )
    for call, faster in (
        ("blinker Signal.send", 15),
        ("pyee EventEmitter.emit", 8),
        ("psygnal SignalInstance.emit", 20),
    ):
        peer = call.partition(" ")[0]
        ours, theirs = partial(send, DIRECT, 500_000), partial(send, WAYS["direct", peer], 50_000)
        yield Row(f"direct, 1 handler / {call}", ours, theirs, 1 / faster, peer)
    yield Row("direct, 1 handler / handler(event)", partial(send, DIRECT, FEW), plain_call, 5)
    ours, theirs = partial(delivery, STREAM, 1, 200_000), partial(delivery, ASYNCIO_QUEUE, 1, 20_000)
    yield Row("asyncio stream / asyncio.Queue and call_soon_threadsafe", ours, theirs, 1 / 5)
    yield Row(
        "subscribe and cancel / blinker connect and disconnect",
        subscribe_and_cancel,
        blinker_connect_and_disconnect,
        40,
        peer="blinker",
    )


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
