"""Shows in the terminal what a dispatcher is doing, like top. Needs rich: pip install 'ringcast[demo]'.

`watch(dispatcher)` does so in a program of one's own: it reads `Dispatcher.stats()` at intervals, and takes the rates
from two of them. `python -m ringcast top` shows it with a program of its own that has subscribers of each kind.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ringcast._core import Subscription
from ringcast.dispatcher import Dispatcher
from ringcast.failures import HandlerFailure
from ringcast.stats import DispatcherStats, SubscriptionStats, TopicStats, event_name

__all__ = ["watch"]

# The columns, and in a terminal their width in characters. What is not in it is what the name may take.
NUMBERS = {"per s": 6, "total": 6, "pending": 7, "most": 6, "dropped": 7, "filtered": 8, "errors": 6, "mean": 8}
KINDS = {"mode": 7, "policy": 11}  # left out where it is narrow
NARROW = 110
LEAST_NAME = 12
PLAIN_WIDTH = 100_000  # in a pipe nothing is cut

Key = tuple[str, int | None, str, int]  # event, type id, handler, and its number among those of the same name


def watch(
    dispatcher: Dispatcher, *, seconds: float | None = None, interval: float = 0.5, console: Console | None = None
) -> None:
    """Shows the numbers of a dispatcher until it is closed, on the calling thread.

    In a terminal there is a table that is brought up to date. Elsewhere (a pipe, a file) one plain table is printed at
    the end, or after one interval if no end was given. "per s" is the rate since the last look: of events published,
    and of calls of the handler.

    Args:
        dispatcher: the dispatcher. Any thread may watch it; to do so in a handler blocks that handler.
        seconds: how long to watch, more than 0; None: until the dispatcher is closed or Ctrl-C.
        interval: seconds between two looks, more than 0.
        console: a rich console to show it on; None: standard output.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ValueError: seconds or interval is not more than 0.
    """
    for name, value in (("seconds", seconds), ("interval", interval)):
        if value is not None and not value > 0:  # also NaN
            raise ValueError(f"{name} must be more than 0, not {value}")
    console = Console() if console is None else console
    if console.is_terminal:
        end = math.inf if seconds is None else time.monotonic() + seconds
        with Live(console=console, auto_refresh=False) as live:
            for view in _views(dispatcher, interval, end, console):
                live.update(view, refresh=True)
    else:
        _print_once(dispatcher, interval if seconds is None else seconds, console)


def _views(dispatcher: Dispatcher, interval: float, end: float, console: Console) -> Iterator[Group]:
    """The table at once, without rates, and then after each interval until the end."""
    view = _View(console)
    while True:
        stats = dispatcher.stats()
        now = time.monotonic()
        yield view.show(stats, now)
        if stats.closed or now >= end:
            return
        time.sleep(min(interval, end - now))


def _print_once(dispatcher: Dispatcher, seconds: float, console: Console) -> None:
    view = _View(console)
    view.show(dispatcher.stats(), time.monotonic())
    time.sleep(seconds)
    width, console.width = console.width, PLAIN_WIDTH
    try:
        console.print(view.show(dispatcher.stats(), time.monotonic()))
    finally:
        console.width = width


class _View:
    """Makes the table of one look; remembers the look before it, for the rates.

    In a terminal it fits into its width, from 80 characters; elsewhere names and numbers are in full.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts: dict[Key, int] = {}
        self._time = 0.0

    def show(self, stats: DispatcherStats, now: float) -> Group:
        """What is shown of `stats`, read at `now` (monotonic, in seconds)."""
        before, passed = self._counts, now - self._time
        self._counts, self._time = {}, now

        def rate(key: Key, count: int) -> str:
            self._counts[key] = count
            # Less than before: a subscription of the same name has ended, and this is another one.
            if key not in before or passed <= 0 or count < before[key]:
                return ""
            return self._number((count - before[key]) / passed)

        table = self._table()
        for topic in stats.topics:
            event = event_name(topic)
            self._add(table, self._topic(topic, rate((event, topic.type_id, "", 0), topic.published)), "bold")
            same: dict[str, int] = {}
            for sub in topic.subscriptions:
                number = same[sub.handler] = same.get(sub.handler, 0) + 1
                key = (event, topic.type_id, sub.handler, number)
                self._add(table, self._subscription(sub, rate(key, sub.delivered)))
        state = "closed" if stats.closed else "open"
        workers = "1 worker" if stats.workers == 1 else f"{stats.workers} workers"
        return Group(self._text(f"{stats.name}: {state}, {workers}"), table)

    def _table(self) -> Table:
        if not self._terminal:
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        else:
            table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        table.add_column("event, handler", no_wrap=True)
        for column, width in (KINDS if self._wide else {}).items():
            table.add_column(column, width=width if self._terminal else None, no_wrap=True)
        for column, width in NUMBERS.items():
            table.add_column(column, width=width if self._terminal else None, no_wrap=True, justify="right")
        return table

    def _add(self, table: Table, row: list[str], style: str = "") -> None:
        name, mode, policy, *numbers = row
        if self._terminal:
            # The end of a name tells more than its beginning.
            others = [*NUMBERS.values(), *(KINDS.values() if self._wide else ())]
            room = max(LEAST_NAME, self._console.width - sum(others) - len(others))
            indent = " " * (len(name) - len(name.lstrip()))
            name = name if len(name) <= room else f"{indent}..{name[len(indent) + 2 - room :]}"
        kinds = [mode, policy] if self._wide else []
        table.add_row(self._text(name), *kinds, *numbers, style=style)

    def _topic(self, topic: TopicStats, rate: str) -> list[str]:
        counts = (topic.published, topic.pending, topic.high_water)
        return [event_name(topic), "", "", rate, *map(self._number, counts), "", "", "", ""]

    def _subscription(self, sub: SubscriptionStats, rate: str) -> list[str]:
        name = f"  {sub.handler}" if sub.active else f"  {sub.handler} (cancelled)"
        counts = (sub.delivered, sub.pending, sub.high_water, sub.dropped, sub.filtered, sub.errors)
        return [name, sub.mode, sub.policy, rate, *map(self._number, counts), _duration(sub.handler_seconds)]

    def _number(self, number: float) -> str:
        if self._terminal:  # at most six characters: 99,999, then 100k, 1.23M, 12.3M, 123M, ...
            for unit, least, factor in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e5, 1e3)):
                if number >= least:
                    return f"{number / factor:,.{_digits(number / factor)}f}{unit}"
        return f"{number:,.0f}"

    @property
    def _terminal(self) -> bool:
        return self._console.is_terminal

    @property
    def _wide(self) -> bool:
        return not self._terminal or self._console.width >= NARROW

    def _text(self, text: str) -> Text:
        """Neither markup nor control characters nor what the terminal's encoding lacks."""
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return Text(shown.encode(self._console.encoding, "backslashreplace").decode(self._console.encoding))


def _digits(number: float) -> int:
    """How many digits after the point leave three in all."""
    return 2 if number < 10 else 1 if number < 100 else 0


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds * 1e6:.1f} us"


# The example -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quote:
    """A price, of which there are many."""

    symbol: str
    price: float


@dataclass(frozen=True, slots=True)
class Order:
    """An order, of which there are some."""

    symbol: str
    amount: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is wrong, now and then."""

    text: str


SYMBOLS = ("ABLE", "BAKER", "CHARLIE", "DOG")
BEAT = 0.01  # seconds between two bursts of the publisher
QUOTES = 100  # in a burst


class Exchange:
    """A program to watch: a thread that publishes, and subscribers that are quick, slow, picky, and failing."""

    def __init__(self) -> None:
        self.prices: dict[str, float] = {}
        self.volume = 0
        self.failures: deque[HandlerFailure] = deque(maxlen=10)
        self._stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Dispatcher]:
        """Publishes from a thread of its own meanwhile; in the end drops what is still queued."""
        with Dispatcher(on_error=self.failures.append, name="exchange") as bus:
            subscriptions: list[Subscription[Any]] = [
                bus.subscribe(self.keep_price, mode="direct"),
                bus.subscribe(self.draw_chart, policy="latest", key=lambda quote: quote.symbol),
                bus.subscribe(self.record, policy="drop_oldest", max_queue=1000),
                bus.subscribe(self.book),
                bus.subscribe(self.check_large, where=lambda order: order.amount > 90),
                bus.subscribe(self.notify),
            ]
            publisher = threading.Thread(target=self._publish, args=(bus,), name="exchange-publisher")
            publisher.start()
            try:
                yield bus
            finally:
                self._stop.set()
                publisher.join()
                for subscription in subscriptions:
                    subscription.cancel(discard=True)

    def _publish(self, bus: Dispatcher) -> None:
        beat = 0
        while not self._stop.wait(BEAT):
            beat += 1
            for number in range(QUOTES):
                bus.publish(Quote(SYMBOLS[number % len(SYMBOLS)], 100 + (beat + number) % 17))
            bus.publish(Order(SYMBOLS[beat % len(SYMBOLS)], beat % 100))
            if beat % 10 == 0:
                bus.publish(Alarm(f"beat {beat}"))

    def keep_price(self, quote: Quote) -> None:
        """Quick, and needed at once: on the publisher's thread."""
        self.prices[quote.symbol] = quote.price

    def draw_chart(self, quote: Quote) -> None:
        """Slow; only the newest quote of each symbol is of use to it."""
        time.sleep(0.05)

    def record(self, quote: Quote) -> None:
        """Not quick enough; the oldest quotes are dropped."""
        time.sleep(0.001)

    def book(self, order: Order) -> None:
        """Quick, and must see every order."""
        self.volume += order.amount

    def check_large(self, order: Order) -> None:
        """Picky, and fails at times: its subscription has a condition."""
        if order.amount % 5 == 0:
            raise ValueError(f"cannot check {order}")

    def notify(self, alarm: Alarm) -> None:
        """Slow, but there is little to do."""
        time.sleep(0.02)


def run(seconds: float | None = None, once: bool = False) -> int:
    """Watch the example.

    Args:
        seconds: how long, more than 0; None: until Ctrl-C, and where there is no terminal for one second.
        once: print one plain table after one second, or after `seconds`, also in a terminal.

    Returns:
        The exit status, 0.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ValueError: seconds is not more than 0.
    """
    with Exchange().running() as bus:
        if once:
            watch(bus, seconds=seconds, interval=1.0, console=Console(force_terminal=False))
        else:
            watch(bus, seconds=seconds, interval=0.5 if Console().is_terminal else 1.0)
    return 0
