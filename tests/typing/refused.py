"""What type checkers refuse: each line with the codes of mypy and pyright. Never run: see tests/test_typing.py."""

# pyright: basic
# In strict mode, pyright reports the consequences of each of these errors as well.

from dataclasses import dataclass

import ringcast
import ringcast.compat.blinker as blinker
from ringcast import Dispatcher, HandlerFailure, RecordBatch, Stream, Subscription, record
from ringcast.records import int32


@dataclass
class Tick:
    price: float


@dataclass
class Trade:
    volume: int


def for_tick(tick: Tick) -> None: ...


def for_trade(trade: Trade) -> None: ...


def for_either(event: Tick | Trade) -> None: ...


def two(tick: Tick, trade: Trade) -> None: ...


def nothing() -> None: ...


def large(trade: Trade) -> bool:
    return trade.volume > 100


def unhashable(tick: Tick) -> list[float]:
    return [tick.price]


def wrong_report(failure: Tick) -> None: ...


def for_ticks(ticks: list[Tick]) -> None: ...


def for_trades(trades: list[Trade]) -> None: ...


@record
class Quote:
    size: int32


def for_quotes(quotes: RecordBatch[Quote]) -> None: ...


bus = Dispatcher()

# The handler is of another class, or cannot be called with an event.
bus.subscribe(Tick, for_trade)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, two)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, nothing)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, lambda tick: tick.volume)  # error: attr-defined | reportAttributeAccessIssue
bus.subscribe(1, for_tick)  # error: call-overload | reportArgumentType,reportCallIssue
bus.subscribe_to("1", for_tick)  # error: call-overload | reportArgumentType
bus.off("for_tick")  # error: arg-type | reportArgumentType
bus.off(for_tick, for_trade)  # error: arg-type | reportArgumentType
bus.subscribe(for_tick, replace="yes")  # error: call-overload | reportArgumentType
wrong: Subscription[Trade] = bus.subscribe(Tick, for_tick)  # error: arg-type | reportAssignmentType


@bus.on(Tick)  # error: arg-type | reportArgumentType
def on_class(trade: Trade) -> None: ...


@bus.on(Tick, once=True)  # error: arg-type | reportArgumentType
def on_class_options(trade: Trade) -> None: ...


bus.on(1)  # error: call-overload | reportArgumentType,reportCallIssue

# Several classes: the handler takes not all of them, or they are not given as a tuple.
bus.subscribe((Tick, Trade), for_tick)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe((Tick, Trade, str), for_either)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe((Tick, Trade), lambda event: event.volume)  # error: union-attr | reportAttributeAccessIssue
bus.subscribe((Tick, Trade), for_either, where=large)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe((Tick, 1), for_either)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe([Tick, Trade], for_either)  # error: call-overload | reportArgumentType,reportCallIssue
bus.subscribe((Tick, Trade), for_ticks, batch=10)  # error: arg-type | reportArgumentType,reportCallIssue
wrong_of_two: Subscription[Tick] = bus.subscribe((Tick, Trade), for_either)  # error: arg-type | reportAssignmentType


@bus.on((Tick, Trade))  # error: arg-type | reportArgumentType
def on_either(tick: Tick) -> None: ...


# An option has another name, value or class.
bus.subscribe(for_tick, polcy="latest")  # error: call-overload | reportCallIssue
bus.subscribe(for_tick, policy="newest")  # error: call-overload | reportArgumentType
bus.subscribe(for_tick, mode="thread")  # error: call-overload | reportArgumentType
bus.subscribe(Tick, for_tick, context="subscriber")  # error: call-overload | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_tick, where=large)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_tick, where=lambda tick: tick.volume > 1)  # error: attr-defined | reportAttributeAccessIssue
bus.subscribe(Tick, for_tick, key=unhashable)  # error: arg-type | reportArgumentType,reportCallIssue
bus.on(mode="thread")  # error: call-overload | reportArgumentType
Dispatcher(policy="newest")  # error: arg-type | reportArgumentType
Dispatcher(on_error="log")  # error: arg-type | reportArgumentType
Dispatcher(on_error=wrong_report)  # error: arg-type | reportArgumentType
bus.publish(Tick(1.0), 1.0)  # error: call-arg | reportCallIssue

# Batches and records.
bus.subscribe(Tick, for_ticks)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_trades, batch=10)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_quotes, batch=10)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_tick, batch=10)  # error: arg-type | reportArgumentType,reportCallIssue
bus.subscribe(for_ticks, batch="10")  # error: call-overload | reportArgumentType,reportCallIssue
bus.subscribe(Tick, for_ticks, batch=10, where=large)  # error: arg-type | reportArgumentType,reportCallIssue
Quote("1")  # error: arg-type | reportArgumentType
Quote()  # error: call-arg | reportCallIssue
Quote(1).size = 2  # error: misc | reportAttributeAccessIssue
bus.publish_many(1)  # error: arg-type | reportArgumentType


@bus.on(Tick, batch=10)  # error: arg-type | reportArgumentType,reportCallIssue
def on_class_batch(trades: list[Trade]) -> None: ...


def report(failure: HandlerFailure) -> None:
    failure.event = None  # error: misc | reportAttributeAccessIssue


async def consume() -> None:
    _trades: Stream[Trade] = bus.stream(Tick)  # error: arg-type | reportAssignmentType
    bus.stream(Tick, where=large)  # error: arg-type | reportArgumentType,reportCallIssue
    bus.stream(Tick, policy="newest")  # error: call-overload | reportArgumentType,reportCallIssue
    bus.stream(Tick, batch="10")  # error: call-overload | reportArgumentType,reportCallIssue
    _either: Stream[Tick] = bus.stream((Tick, Trade))  # error: arg-type | reportAssignmentType
    _one: Tick = await bus.wait_for((Tick, Trade))  # error: arg-type | reportAssignmentType
    _list: Stream[list[Tick]] = bus.stream(Tick)  # error: arg-type | reportAssignmentType
    _trade: Trade = await bus.wait_for(Tick)  # error: arg-type | reportAssignmentType
    await bus.wait_for(Tick, where=large)  # error: arg-type | reportArgumentType,reportCallIssue
    async for tick in bus.stream(Tick):
        for_trade(tick)  # error: arg-type | reportArgumentType


saved = blinker.signal("saved")
saved.connect(1)  # error: type-var | reportArgumentType
saved.send("editor", "path")  # error: call-arg,arg-type | reportCallIssue
blinker.signal()  # error: call-arg | reportCallIssue

_misspelt = ringcast.Dispatchr  # error: attr-defined | reportAttributeAccessIssue
