"""What type checkers accept, and what they infer. Never run: see tests/test_typing.py."""

import abc
import functools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias, assert_type, runtime_checkable

import ringcast
import ringcast.compat.blinker as blinker
from ringcast import Dispatcher, HandlerFailure, Record, RecordBatch, Stream, Subscription, record
from ringcast.records import float64, int32, timestamp


@dataclass
class Event:
    when: float


@dataclass
class Tick(Event):
    price: float


@dataclass
class Single:
    """Made of one argument: as a callable, it could be taken for a handler."""

    value: int


@runtime_checkable
class Priced(Protocol):
    price: float


class Abstract(abc.ABC):
    @abc.abstractmethod
    def price(self) -> float: ...


def quick(tick: Tick) -> None: ...


def any_event(event: Event) -> int:
    return 1


def with_default(tick: Tick, retries: int = 0) -> None: ...


def for_single(single: Single) -> None: ...


async def asynchronous(tick: Tick) -> int:
    return 1


class Handler:
    def method(self, tick: Tick) -> None: ...

    def __call__(self, tick: Tick) -> None: ...


def expensive(tick: Tick) -> bool:
    return tick.price > 100


bus = Dispatcher(max_queue=10, policy="drop_oldest", timing=False, on_error="raise", name="typed")

# subscribe: the class comes from the annotation or is told, and is that of the subscription.

assert_type(bus.subscribe(quick), Subscription[Tick])
assert_type(bus.subscribe(with_default), Subscription[Tick])
assert_type(bus.subscribe(asynchronous), Subscription[Tick])
assert_type(bus.subscribe(Handler().method), Subscription[Tick])
assert_type(bus.subscribe(Handler()), Subscription[Tick])
assert_type(bus.subscribe(Tick, quick), Subscription[Tick])
assert_type(bus.subscribe(Tick, any_event), Subscription[Tick])  # a handler of the base class takes it too
assert_type(bus.subscribe(Tick, lambda tick: tick.price), Subscription[Tick])
assert_type(bus.subscribe(Single, for_single), Subscription[Single])
assert_type(bus.subscribe(Tick, functools.partial(with_default, retries=3)), Subscription[Tick])
ticks: list[Tick] = []
assert_type(bus.subscribe(Tick, ticks.append), Subscription[Tick])
bus.subscribe(object, print)

# Options. What takes an event is given one of the class.

assert_type(bus.subscribe(quick, mode="direct", priority=1, once=True), Subscription[Tick])
assert_type(bus.subscribe(quick, mode=None, policy=None, max_queue=None, key=None, where=None), Subscription[Tick])
assert_type(bus.subscribe(quick, where=lambda tick: tick.price > 1), Subscription[Tick])
assert_type(bus.subscribe(Tick, quick, policy="latest", key=lambda tick: tick.price), Subscription[Tick])
assert_type(bus.subscribe(Tick, any_event, where=expensive, max_queue=1), Subscription[Tick])
assert_type(bus.subscribe(asynchronous, mode="asyncio", concurrency=2, context="publisher"), Subscription[Tick])
bus.subscribe(Handler().method, weak=True)
assert_type(bus.subscribe(Event, any_event, subclasses=True), Subscription[Event])
bus.subscribe(Priced, lambda priced: print(priced.price), subclasses=True)
bus.subscribe(Abstract, lambda abstract: print(abstract.price()), subclasses=True)

# subscribe_to

assert_type(bus.subscribe_to(1, quick), Subscription[Tick])
assert_type(bus.subscribe_to(1, quick, policy="drop_newest", where=expensive), Subscription[Tick])

# on: in all its forms the function can still be called as it was written.


@bus.on
def on_plain(tick: Tick) -> int:
    return 1


@bus.on()
def on_empty(tick: Tick) -> int:
    return 1


@bus.on(mode="direct", priority=2)
def on_options(tick: Tick) -> int:
    return 1


@bus.on(Tick)
def on_class(tick: Tick) -> int:
    return 1


@bus.on(Tick, where=lambda tick: tick.price > 1, policy="latest", key=lambda tick: tick.price)
def on_class_options(tick: Event) -> int:
    return 1


@bus.on(Single)
def on_single(single: Single) -> int:
    return 1


@bus.on
async def on_async(tick: Tick) -> int:
    return 1


@bus.on(Tick, concurrency=4)
async def on_class_async(tick: Tick) -> int:
    return 1


@ringcast.on
def on_default(tick: Tick) -> int:
    return 1


@ringcast.on_type(1)
def on_type(tick: Tick) -> int:
    return 1


tick = Tick(0.0, 1.0)
assert_type(on_plain(tick=tick), int)
assert_type(on_empty(tick=tick), int)
assert_type(on_options(tick=tick), int)
assert_type(on_class(tick), int)
assert_type(on_class_options(tick), int)
assert_type(on_single(Single(1)), int)
assert_type(on_default(tick=tick), int)
assert_type(on_type(tick=tick), int)

# Letting go

assert_type(bus.off(on_plain), int)
assert_type(bus.off(on_class, Tick) + bus.off(on_type, 1) + ringcast.off(on_default), int)
assert_type(bus.subscriptions(), list[Subscription[Any]])
assert_type(bus.subscriptions(Tick), list[Subscription[Any]])
assert_type(bus.subscribe(quick, replace=True), Subscription[Tick])

# Several classes: the subscription is of their union, which the handler must take.


def either(event: Tick | Single) -> int:
    return 1


def any_of_three(event: Tick | Single | str) -> None: ...


def any_of_four(event: Tick | Single | str | bytes) -> None: ...


def either_list(events: list[Tick | Single]) -> int:
    return 1


async def either_later(event: Tick | Single) -> None: ...


Either: TypeAlias = Tick | Single


def by_alias(event: Either) -> None: ...


def by_string(event: "Tick | Single") -> None: ...


assert_type(bus.subscribe(either), Subscription[Tick | Single])
assert_type(bus.subscribe(any_of_four), Subscription[Tick | Single | str | bytes])
assert_type(bus.subscribe(by_alias), Subscription[Tick | Single])
assert_type(bus.subscribe(by_string), Subscription[Tick | Single])
assert_type(bus.subscribe(either_later, concurrency=2), Subscription[Tick | Single])
assert_type(bus.subscribe(either_list, batch=10), Subscription[Tick | Single])
assert_type(bus.subscribe((Tick, Single), either), Subscription[Tick | Single])
assert_type(bus.subscribe((Tick, Single, str), any_of_three), Subscription[Tick | Single | str])
assert_type(bus.subscribe((Tick,), quick), Subscription[Tick])
assert_type(bus.subscribe((Tick, Single), either, mode="direct", where=lambda event: True), Subscription[Tick | Single])
bus.subscribe((Tick, Single), print)
bus.subscribe((Tick, Single), lambda event: print(event.price if isinstance(event, Tick) else event.value))
assert_type(bus.subscribe((Tick, Single), either_list, batch=10), Subscription[Tick | Single])
bus.subscribe((Event, Single), lambda event: None, subclasses=True)
# mypy wants to be told what a tuple of more than three has
four: tuple[type[Tick | Single | str | bytes], ...] = (Tick, Single, str, bytes)
assert_type(bus.subscribe(four, any_of_four), Subscription[Tick | Single | str | bytes])


@bus.on
def on_union(event: Tick | Single) -> int:
    return 1


@bus.on((Tick, Single))
def on_either(event: Tick | Single) -> int:
    return 1


@bus.on((Tick, Single, str), once=True)
def on_three(event: Tick | Single | str) -> int:
    return 1


@bus.on((Tick, Single), batch=10)
def on_either_batch(events: list[Tick | Single]) -> int:
    return 1


assert_type(on_union(event=Tick(0.0, 1.0)) + on_either(Single(1)) + on_three("") + on_either_batch([]), int)
assert_type(bus.off(on_either, (Tick, Single)), int)
assert_type(bus.subscriptions((Tick, Single)), list[Subscription[Any]])

# Batches: the handler takes a list, and the subscription is of what is in it.


def for_list(ticks: list[Tick]) -> int:
    return len(ticks)


def for_sequence(ticks: Sequence[Tick]) -> None: ...


async def for_list_later(ticks: list[Tick]) -> None: ...


assert_type(bus.subscribe(for_list, batch=10), Subscription[Tick])
assert_type(bus.subscribe(for_sequence, batch=10), Subscription[Tick])
assert_type(bus.subscribe(for_list_later, batch=10, concurrency=2), Subscription[Tick])
assert_type(bus.subscribe(Tick, for_list, batch=10, policy="drop_oldest", where=expensive), Subscription[Tick])
assert_type(bus.subscribe(Tick, for_sequence, batch=10), Subscription[Tick])
assert_type(bus.subscribe(Tick, lambda ticks: print(ticks[0].price), batch=10), Subscription[Tick])
assert_type(bus.subscribe(Tick, ticks.extend, batch=10, where=lambda tick: tick.price > 1), Subscription[Tick])
assert_type(bus.subscribe_to(1, for_list, batch=10), Subscription[Tick])
assert_type(ringcast.on_type(1, for_list, batch=10), Subscription[Tick])
assert_type(bus.subscribe(for_list, batch=10).batch, int | None)
bus.subscribe(object, print, batch=10)


@bus.on(batch=10)
def on_batch(ticks: list[Tick]) -> int:
    return 1


@bus.on(Tick, batch=10, where=lambda tick: tick.price > 1)
def on_class_batch(ticks: list[Tick]) -> int:
    return 1


@bus.on(Tick, batch=10)
async def on_class_batch_async(ticks: Sequence[Tick]) -> int:
    return 1


assert_type(on_batch(ticks=[]), int)
assert_type(on_class_batch([]), int)

# Records: declared as a dataclass is, with a constructor of the fields. A batch of them is a RecordBatch.


@record
class Trade:
    price: float64
    size: int32
    when: timestamp = 0
    symbol: Annotated[bytes, 8] = b""
    scale: ClassVar[int] = 100

    def value(self) -> float:
        return self.price * self.size


trade = Trade(1.5, 2, symbol=b"abc")
assert_type(trade, Trade)
assert_type(trade.price, float)
assert_type(trade.size, int)
assert_type(trade.symbol, bytes)
assert_type(trade.value(), float)
assert_type(Trade.scale, int)


@record
class Order(Record):  # what has Record as its base is known to have its attributes
    price: float64
    size: int32 = 1


order = Order(1.5, size=2)
assert_type(order.price, float)
assert_type(Order.itemsize, int)
assert_type(order.itemsize, int)
assert_type(Order.format, str)
assert_type(memoryview(order), memoryview)


def for_trade(trade: Trade) -> None: ...


def for_trades(trades: RecordBatch[Trade]) -> None:
    assert_type(trades[0], Trade)
    assert_type(trades[1:], RecordBatch[Trade])
    assert_type(trades["price"], memoryview)
    assert_type(trades.record_class, type[Trade])
    assert_type(len(trades), int)
    assert_type([trade for trade in trades], list[Trade])  # noqa: C416
    sequence: Sequence[Trade] = trades
    for_many_trades(sequence)
    bus.publish_many(trades)


def for_many_trades(trades: Sequence[Trade]) -> None: ...


assert_type(bus.subscribe(for_trade), Subscription[Trade])
assert_type(bus.subscribe(Trade, for_trade), Subscription[Trade])
assert_type(bus.subscribe(for_trades, batch=10), Subscription[Trade])
assert_type(bus.subscribe(Trade, for_trades, batch=10, where=lambda trade: trade.size > 1), Subscription[Trade])
assert_type(bus.subscribe(for_many_trades, batch=10), Subscription[Trade])
assert_type(bus.subscribe_to(1, for_trades, batch=10), Subscription[Trade])
assert_type(ringcast.on_type(1, for_trades, batch=10), Subscription[Trade])


@bus.on(batch=10)
def on_trades(trades: RecordBatch[Trade]) -> int:
    return 1


@bus.on(Trade, batch=10)
def on_class_trades(trades: RecordBatch[Trade]) -> int:
    return 1


assert_type(record(object(), name="Made"), type[Record])
assert_type(bus.subscribe_native(Trade, 0x1000), Subscription[Trade])
assert_type(bus.subscribe_native(Trade, 0x1000, bytearray(8), max_queue=10, policy="raise"), Subscription[Trade])

# publish


def some_ticks() -> Iterator[Tick]:
    yield Tick(0.0, 1.0)


assert_type(bus.publish(tick), int)
assert_type(bus.publish(trade), int)
assert_type(bus.publish_many([tick, trade]), int)
assert_type(bus.publish_many(some_ticks(), timeout=1), int)
assert_type(bus.publish_many(b"bytes of records", Trade), int)
assert_type(bus.publish_many(memoryview(b""), Trade, timeout=None), int)
assert_type(bus.publish(tick, timeout=0.5), int)
assert_type(bus.publish_to(1, tick, timeout=None), int)
assert_type(bus.wait_idle(1), bool)
assert_type(bus.count(Tick), int)

# Subscription

with bus.subscribe(quick) as subscription:
    assert_type(subscription, Subscription[Tick])
assert_type(subscription.event_class, type[Tick] | tuple[type[Tick], ...] | None)
assert_type(subscription.lag, int)
assert_type(subscription.dropped, int)
assert_type(subscription.filtered, int)
subscription.cancel(discard=True)
subscription()
subscriptions: list[Subscription[Any]] = [subscription, bus.subscribe(Single, for_single)]


# HandlerFailure


def report(failure: HandlerFailure) -> None:
    assert_type(failure.exception, BaseException)
    assert_type(failure.subscription, Subscription[Any])
    exception, _event, failed = failure
    assert_type(exception, BaseException)
    assert_type(failed, Subscription[Any])


with Dispatcher(on_error=report) as reporting:
    assert_type(reporting, Dispatcher)


# asyncio


async def consume() -> None:
    async with Dispatcher() as own:
        assert_type(own, Dispatcher)
        assert_type(own.stream(Tick), Stream[Tick])
        async for tick in own.stream(Tick, max_queue=10, policy="drop_oldest", where=lambda tick: tick.price > 1):
            assert_type(tick, Tick)
        assert_type(own.stream(Tick, batch=10), Stream[list[Tick]])
        async for some in own.stream(Tick, batch=10, where=lambda tick: tick.price > 1):
            assert_type(some, list[Tick])
        async with own.stream(Event, subclasses=True) as stream:
            assert_type(stream, Stream[Event])
            assert_type([event async for event in stream], list[Event])
            stream.cancel()
        assert_type(await own.wait_for(Tick), Tick)
        assert_type(await own.wait_for(Tick, where=expensive, timeout=1), Tick)
        assert_type(own.stream((Tick, Single)), Stream[Tick | Single])
        assert_type(own.stream((Tick, Single, str), policy="drop_oldest"), Stream[Tick | Single | str])
        assert_type(own.stream((Tick, Single), batch=10), Stream[list[Tick | Single]])
        async for event in own.stream((Tick, Single), where=either):
            assert_type(event, Tick | Single)
        assert_type(await own.wait_for((Tick, Single), timeout=1), Tick | Single)
        assert_type(await own.wait_for((Tick, Single, str)), Tick | Single | str)
        assert_type(await own.wait_for(Tick, where=lambda tick: tick.price > 1), Tick)
        assert_type(await own.apublish(Tick(0.0, 1.0), timeout=1), int)
        await own.aclose(timeout=1)


# --- a program that is written for blinker -----------------------------------------------------------------------

saved = blinker.signal("saved", doc="A file was saved.")
assert_type(saved, blinker.NamedSignal)
assert_type(blinker.Namespace().signal("saved"), blinker.NamedSignal)


@saved.connect
def on_saved(sender: object, *, path: str) -> int:
    return len(path)


@saved.connect_via("editor")
def on_saved_by_editor(sender: object, **extra: Any) -> None: ...


async def on_saved_later(sender: object, **extra: Any) -> None: ...


assert_type(on_saved(None, path="a"), int)
saved.connect(on_saved_later, sender=blinker.ANY, weak=False)
assert_type(saved.send("editor", path="a"), list[tuple[Callable[..., Any], Any]])
assert_type(saved.has_receivers_for(None), bool)
for receiver in saved.receivers_for("editor"):
    assert_type(receiver, Callable[..., Any])
with saved.muted(), saved.connected_to(on_saved, sender="editor"):
    saved.is_muted = True
saved.disconnect(on_saved, sender="editor")
saved.receiver_connected.connect(on_saved_later)


def to_function(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    return function


def to_coroutine_function(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    return function


async def send_saved() -> None:
    saved.send("editor", _async_wrapper=to_function)
    assert_type(
        await saved.send_async("editor", _sync_wrapper=to_coroutine_function, path="a"),
        list[tuple[Callable[..., Any], Any]],
    )
