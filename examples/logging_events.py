"""Log records as events: a `logging.Handler` that publishes, a quick subscriber and a slow one.

    pip install ringcast
    python examples/logging_events.py

Shows how a program that logs is never held up by where its log goes. The quick subscriber counts every record. The
slow one stands for a mail server or a database: it wants warnings only (`where`), and what it cannot keep up with is
dropped, oldest first, and counted (`policy="drop_oldest"`). So no logging call ever waits for it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ringcast import ClosedError, Dispatcher, Subscription


@dataclass(frozen=True, slots=True)
class Logged:
    """A log record, with its message already formatted: its arguments may change before a subscriber sees it."""

    logger: str
    level: int
    message: str
    created: float


class EventHandler(logging.Handler):
    """Publishes what is logged as `Logged` events.

    Records of the logger `ringcast` and those below it are left out: a subscriber that fails is logged there, and
    as an event that record would reach the same subscriber, fail again, and so on without end.

    Args:
        bus: where to publish.
        level: the lowest level to publish.
    """

    def __init__(self, bus: Dispatcher, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.bus = bus
        self.addFilter(lambda record: record.name.partition(".")[0] != "ringcast")

    def emit(self, record: logging.LogRecord) -> None:
        """Publish one record. Called by `logging`, in the thread that logs."""
        try:
            self.bus.publish(Logged(record.name, record.levelno, self.format(record), record.created))
        except ClosedError:
            pass  # something logs while the program ends: nobody listens any more
        except Exception:
            self.handleError(record)


class Levels:
    """The quick subscriber: counts records by level."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()

    def count(self, event: Logged) -> None:
        """Handle a record."""
        self.records[logging.getLevelName(event.level)] += 1


class Alerts:
    """The slow subscriber: sends warnings and worse to somewhere far away.

    Args:
        send: sends one text, and takes its time.
    """

    BACKLOG = 100
    """How many records may wait to be sent."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self.send = send

    def subscribe(self, bus: Dispatcher) -> Subscription[Logged]:
        """Subscribe to the records that are worth an alert."""
        return bus.subscribe(self.alert, where=self.worth_it, policy="drop_oldest", max_queue=self.BACKLOG)

    def worth_it(self, event: Logged) -> bool:
        """Whether a record is worth an alert."""
        return event.level >= logging.WARNING

    def alert(self, event: Logged) -> None:
        """Handle a record."""
        self.send(f"{event.logger}: {event.message}")


def work(logger: logging.Logger, orders: int) -> None:
    """Stand for a program that logs."""
    for number in range(orders):
        logger.info("order %d taken", number)
        if number % 5 == 0:
            logger.warning("order %d is late", number)


def main() -> None:
    """Log a burst of records, and print who has seen how many."""
    levels, sent = Levels(), list[str]()

    def send(text: str) -> None:
        time.sleep(0.002)  # the way to the server and back
        sent.append(text)

    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    with Dispatcher() as bus:
        handler = EventHandler(bus)
        logger.addHandler(handler)
        bus.subscribe(levels.count)
        alerts = Alerts(send).subscribe(bus)
        start = time.perf_counter()
        work(logger, orders=5_000)
        seconds = time.perf_counter() - start
        logger.removeHandler(handler)
    print(f"logging took {seconds:.3f} s")
    print(f"counted: {levels.records['INFO']} INFO, {levels.records['WARNING']} WARNING")
    print(f"alerts: {len(sent)} sent, {alerts.dropped} dropped; the last: {sent[-1]}")


if __name__ == "__main__":
    main()
