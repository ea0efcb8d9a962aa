"""Any class can be an event class: those of the standard library and those of pydantic, msgspec and attrs.

    pip install 'ringcast[examples]'
    python examples/event_classes.py

Shows the same event in five kinds of class, each once with a type id that Ringcast gives it and once with one that it
states itself (`__event_type__`). Nothing has to be inherited or registered: the class only has to be a class. A stated
id is for where it must not depend on the order in which modules are imported: when it is logged, stored or sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import attrs
import msgspec
import pydantic

from ringcast import Dispatcher, type_id

# With type ids by themselves -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataclassTick:
    """Of the standard library. The best to begin with."""

    symbol: str
    price: float


class NamedTupleTick(NamedTuple):
    """Of the standard library; immutable, and can be unpacked."""

    symbol: str
    price: float


@attrs.frozen
class AttrsTick:
    """Of attrs; as a dataclass, with validators and converters."""

    symbol: str
    price: float = attrs.field(converter=float)


class MsgspecTick(msgspec.Struct, frozen=True):
    """Of msgspec; the quickest to make, and to encode."""

    symbol: str
    price: float


class PydanticTick(pydantic.BaseModel, frozen=True):
    """Of pydantic; checks what it is given. Worth it where events are made from input."""

    symbol: str
    price: pydantic.PositiveFloat


# With type ids that they state -----------------------------------------------------------------------
# ClassVar says to each of the libraries that this is no field.


@dataclass(frozen=True, slots=True)
class DataclassTrade:
    """A dataclass that states its id."""

    __event_type__: ClassVar[int] = 0x0101
    symbol: str
    volume: int


class _TradeFields(NamedTuple):
    symbol: str
    volume: int


class NamedTupleTrade(_TradeFields):
    """A named tuple that states its id. In a class below: in the tuple's own, type checkers take all for fields."""

    __slots__ = ()
    __event_type__: ClassVar[int] = 0x0102


@attrs.frozen
class AttrsTrade:
    """A class of attrs that states its id."""

    __event_type__: ClassVar[int] = 0x0103
    symbol: str
    volume: int = attrs.field(converter=int)


class MsgspecTrade(msgspec.Struct, frozen=True):
    """A struct of msgspec that states its id."""

    __event_type__: ClassVar[int] = 0x0104
    symbol: str
    volume: int


class PydanticTrade(pydantic.BaseModel, frozen=True):
    """A model of pydantic that states its id."""

    __event_type__: ClassVar[int] = 0x0105
    symbol: str
    volume: pydantic.PositiveInt


EVENTS: tuple[Any, ...] = (
    DataclassTick("ABC", 101.5),
    NamedTupleTick("ABC", 101.5),
    AttrsTick("ABC", "101.5"),
    MsgspecTick("ABC", 101.5),
    PydanticTick(symbol="ABC", price=101.5),
    DataclassTrade("ABC", 200),
    NamedTupleTrade("ABC", 200),
    AttrsTrade("ABC", "200"),
    MsgspecTrade("ABC", 200),
    PydanticTrade(symbol="ABC", volume=200),
)


def deliver(events: tuple[Any, ...]) -> dict[type, list[Any]]:
    """Publish events to one subscriber for each of their classes.

    Args:
        events: the events, of any classes.

    Returns:
        By class, what its subscriber was given.

    Raises:
        RuntimeError: an event has not reached exactly one subscriber.
    """
    arrived: dict[type, list[Any]] = {}
    with Dispatcher() as bus:
        for event_class in {type(event): None for event in events}:
            bus.subscribe(event_class, arrived.setdefault(event_class, []).append)
        for event in events:
            if bus.publish(event) != 1:
                raise RuntimeError(f"{event!r} has not reached exactly one subscriber")
    return arrived


def main() -> None:
    """Print every class, its type id, and the event that has arrived."""
    for event_class, events in deliver(EVENTS).items():
        how = "stated" if hasattr(event_class, "__event_type__") else "automatic"
        for event in events:
            print(f"{event_class.__name__:<16} 0x{type_id(event_class):08x} {how:<10} {event}")


if __name__ == "__main__":
    main()
