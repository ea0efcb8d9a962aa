"""What a Python user would take instead of Ringcast. Packages are imported when they are used.

Where there are several ways to use a peer, it is the one that its documentation shows, in its quickest form.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ringcast._add_up import add_up
from ringcast.bench.ways import BATCH, event_loop, native_tally, sequence_bytes
from ringcast.bench.work import Channel, Handler, Load, Way, count_batches, per_type

# --- queue.SimpleQueue and threads --------------------------------------------------------------------------------


@contextmanager
def consumers(
    consume: Callable[[Callable[[], Any], Any], None], targets: Sequence[Any]
) -> Iterator[tuple[list[queue.SimpleQueue[Any]], Callable[[], None]]]:
    """A queue and a thread for each target, in which `consume(get, target)` runs until it gets None, again and again.

    Yields the queues, and a function that waits until all that is in them is consumed.
    """
    queues: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in targets]
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    ending = False

    def work(get: Callable[[], Any], target: Any) -> None:
        while not ending:
            consume(get, target)
            done.put(None)

    def settle() -> None:
        for each in queues:
            each.put(None)
        for _ in queues:
            done.get()

    threads = [
        threading.Thread(target=work, args=(each.get, target), name="bench-consumer")
        for each, target in zip(queues, targets, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield queues, settle
    finally:
        ending = True
        settle()
        for thread in threads:
            thread.join()


def call_each(get: Callable[[], Any], handler: Handler) -> None:
    """A consumer: one handler."""
    while (event := get()) is not None:
        handler(event)


def call_all(get: Callable[[], Any], handlers: dict[type, list[Handler]]) -> None:
    """A consumer: the handlers of the event's class."""
    while (event := get()) is not None:
        for handler in handlers[type(event)]:
            handler(event)


def put_to(queues: list[queue.SimpleQueue[Any]]) -> Callable[[Any], object]:
    """What puts into all of them."""
    puts = [each.put for each in queues]
    if len(puts) == 1:
        return puts[0]

    def send(event: object) -> None:
        for put in puts:
            put(event)

    return send


@contextmanager
def thread_each(load: Load) -> Iterator[Channel]:
    """A queue and a thread for each subscriber."""
    handlers = [handler for of_type in load.handlers() for handler in of_type]
    with consumers(call_each, handlers) as (queues, settle):
        sends = [put_to(some) for some in per_type(queues, load.shape.subscribers)]
        yield Channel(sends, [make() for make in load.classes], settle)


@contextmanager
def one_thread(load: Load) -> Iterator[Channel]:
    """One queue, one thread, and a loop over the handlers: where a slow one delays all others."""
    table = dict(zip(load.classes, load.handlers(), strict=True))
    with consumers(call_all, [table]) as ((events,), settle):
        yield Channel([events.put] * len(load.classes), [make() for make in load.classes], settle)


def call_with_list(get: Callable[[], Any], handler: Handler, get_nowait: Callable[[], Any]) -> None:
    """A consumer: what is there, at most BATCH, as a list."""
    open_ = True
    while open_ and (event := get()) is not None:
        events = [event]
        append = events.append
        try:
            while len(events) < BATCH:
                if (event := get_nowait()) is None:
                    open_ = False
                    break
                append(event)
        except queue.Empty:
            pass
        handler(events)


@contextmanager
def thread_each_drained(load: Load) -> Iterator[Channel]:
    """A queue and a thread for each subscriber, which takes all that is there into a list."""
    handlers = [handler for of_type in load.handlers(count_batches) for handler in of_type]

    def consume(get: Any, handler: Handler) -> None:
        call_with_list(get, handler, get.__self__.get_nowait)

    with consumers(consume, handlers) as (queues, settle):
        sends = [put_to(some) for some in per_type(queues, load.shape.subscribers)]
        yield Channel(sends, [make() for make in load.classes], settle)


@contextmanager
def thread_each_of_lists(load: Load) -> Iterator[Channel]:
    """A queue of lists and a thread for each subscriber."""
    handlers = [handler for of_type in load.handlers(count_batches) for handler in of_type]
    with consumers(call_each, handlers) as (queues, settle):
        sends = [put_to(some) for some in per_type(queues, load.shape.subscribers)]
        yield Channel(sends, [[make()] * BATCH for make in load.classes], settle)


@contextmanager
def thread_each_of_objects(load: Load) -> Iterator[Channel]:
    """A queue and a thread for each subscriber; events are dataclasses with slots, made one by one."""
    kinds = [
        dataclasses.make_dataclass(f"Trade{number}", [("price", float), ("size", int)], slots=True)
        for number in range(load.shape.types)
    ]
    handlers = [handler for of_type in load.handlers() for handler in of_type]
    with consumers(call_each, handlers) as (queues, settle):
        sends = [put_to(some) for some in per_type(queues, load.shape.subscribers)]
        yield Channel(sends, kinds, settle, makes=True)


@contextmanager
def thread_each_ctypes(load: Load) -> Iterator[Channel]:
    """A queue of buffers and a thread for each, which calls the same C function by ctypes: without the GIL."""
    get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    address = get_pointer(add_up, get_name(add_up))
    function = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)(address)

    def call_function(get: Callable[[], Any], pointer: int) -> None:
        while (records := get()) is not None:
            function(records, BATCH, 16, pointer)

    memories: list[Any] = [memory for of_type in load.handlers(native_tally) for memory in of_type]
    with consumers(call_function, [memory.buffer_info()[0] for memory in memories]) as (queues, settle):
        sends = [put_to(some) for some in per_type(queues, load.shape.subscribers)]
        yield Channel(sends, [sequence_bytes()] * load.shape.types, settle)


# --- asyncio.Queue --------------------------------------------------------------------------------------------------


@contextmanager
def asyncio_queues(load: Load, asynchronous: bool = True) -> Iterator[Channel]:
    """A queue and a task for each subscriber; a thread reaches them through the loop, once for each event."""
    handlers = [handler for of_type in load.handlers_on_loop(asynchronous) for handler in of_type]

    async def consume(items: asyncio.Queue[Any], handler: Handler) -> None:
        while True:
            await handler(await items.get())

    async def consume_with_function(items: asyncio.Queue[Any], handler: Handler) -> None:
        while True:
            handler(await items.get())

    async def start() -> tuple[list[asyncio.Queue[Any]], list[asyncio.Task[None]]]:
        queues: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in handlers]
        run = consume if asynchronous else consume_with_function
        tasks = [asyncio.create_task(run(*pair)) for pair in zip(queues, handlers, strict=True)]
        return queues, tasks

    async def end(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def put_nowait_to(some: list[asyncio.Queue[Any]]) -> Callable[..., object]:
        puts = [each.put_nowait for each in some]
        if len(puts) == 1:
            return puts[0]

        def put_all(event: object) -> None:
            for put in puts:
                put(event)

        return put_all

    with event_loop() as loop:
        queues, tasks = asyncio.run_coroutine_threadsafe(start(), loop).result()
        sends = [
            functools.partial(loop.call_soon_threadsafe, put_nowait_to(some))
            for some in per_type(queues, load.shape.subscribers)
        ]
        try:
            yield Channel(sends, [make() for make in load.classes], load.settle)
        finally:
            asyncio.run_coroutine_threadsafe(end(tasks), loop).result()


# --- handlers called at once ------------------------------------------------------------------------------------


def called_at_once(connect: Callable[[Load, list[list[Handler]]], Sequence[Callable[[Any], object]]]) -> Any:
    """A way whose sends call the handlers; `connect` makes a send for each type."""

    @contextmanager
    def opened(load: Load) -> Iterator[Channel]:
        yield Channel(connect(load, load.handlers()), [make() for make in load.classes])

    return opened


def dict_and_loop(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """A dict of lists by class: what one writes without a library."""
    table = dict(zip(load.classes, handlers, strict=True))

    def send(event: object) -> None:
        for handler in table[type(event)]:
            handler(event)

    return [send] * len(handlers)


def blinker(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """A Signal for each type; the event is the sender."""
    signals = [import_module("blinker").Signal() for _ in handlers]
    for signal, of_type in zip(signals, handlers, strict=True):
        for handler in of_type:
            signal.connect(handler, weak=False)
    return [signal.send for signal in signals]


def pyee(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """One EventEmitter, an event name for each type."""
    emitter = import_module("pyee").EventEmitter()
    for number, of_type in enumerate(handlers):
        for handler in of_type:
            emitter.on(f"type{number}", handler)
    return [functools.partial(emitter.emit, f"type{number}") for number in range(len(handlers))]


def psygnal(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """A SignalInstance for each type."""
    signals = [import_module("psygnal").SignalInstance((event_class,)) for event_class in load.classes]
    for signal, of_type in zip(signals, handlers, strict=True):
        for handler in of_type:
            signal.connect(handler)
    return [signal.emit for signal in signals]


def pypubsub(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """One Publisher, a topic for each type."""
    publisher = import_module("pubsub.core").Publisher()
    for number, of_type in enumerate(handlers):
        for handler in of_type:
            publisher.subscribe(handler, f"type{number}")

    def sender(topic: str) -> Callable[[Any], object]:
        send = publisher.sendMessage
        return lambda event: send(topic, event=event)

    return [sender(f"type{number}") for number in range(len(handlers))]


def nautilus(load: Load, handlers: list[list[Handler]]) -> list[Callable[[Any], object]]:
    """One MessageBus, a topic for each type."""
    component = import_module("nautilus_trader.common.component")
    trader = import_module("nautilus_trader.model.identifiers").TraderId("BENCH-001")
    bus = component.MessageBus(trader_id=trader, clock=component.TestClock())
    for number, of_type in enumerate(handlers):
        for handler in of_type:
            bus.subscribe(f"type{number}", handler)
    return [functools.partial(bus.publish, f"type{number}") for number in range(len(handlers))]


WAYS = [
    Way("SimpleQueue, a thread each", "queued", thread_each, most=1000),
    Way("SimpleQueue, one thread", "queued", one_thread),
    Way("dict and loop", "direct", called_at_once(dict_and_loop)),
    Way("blinker", "direct", called_at_once(blinker), "blinker", "blinker"),
    Way("pyee", "direct", called_at_once(pyee), "pyee", "pyee"),
    Way("psygnal", "direct", called_at_once(psygnal), "psygnal", "psygnal"),
    Way("PyPubSub", "direct", called_at_once(pypubsub), "pubsub", "PyPubSub"),
    Way("nautilus_trader", "direct", called_at_once(nautilus), "nautilus_trader", "nautilus_trader"),
    Way("asyncio.Queue", "asyncio", asyncio_queues),
    Way("SimpleQueue, drained", "batch", thread_each_drained, most=1000),
    Way("SimpleQueue of lists", "batch", thread_each_of_lists, unit=BATCH, most=1000),
    Way("SimpleQueue of dataclasses", "record", thread_each_of_objects, most=1000),
    Way("SimpleQueue and ctypes", "native", thread_each_ctypes, unit=BATCH, most=1000),
]
