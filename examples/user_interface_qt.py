"""A window of Qt that shows how far worker threads are, however fast they tell.

    pip install 'ringcast[examples]'
    python examples/user_interface_qt.py

Shows how events come to a thread that must not be kept busy, and that alone may touch the window. Two workers publish
a `Progress` for every step, many thousands a second. The queue keeps the newest of each job (`policy="latest"` with a
`key`), a `Mailbox` carries them to the thread of the window with one wake for a whole batch, and the window is painted
as often as it can be: never later than the last event, and never more often than that.

Needs PySide6-Essentials. Without a screen: QT_QPA_PLATFORM=offscreen. With `--close` the window closes when the jobs
are done.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QApplication, QFormLayout, QLabel, QProgressBar, QWidget

from ringcast import Dispatcher, Subscription


@dataclass(frozen=True, slots=True)
class Progress:
    """A job has done so many of its steps, and has found so many primes."""

    job: str
    done: int
    steps: int
    primes: int


class Mailbox(QObject):
    """Carries events to the thread that has made it: the newest of each job, and one wake for all that are there.

    `put` never waits for that thread. So neither does a worker, nor a `close` that waits for the workers: the two
    ways in which a program with a window comes to a deadlock.

    Args:
        show: is called with a batch, in the thread that has made the mailbox, whose event loop must run.
    """

    _wake = Signal()

    def __init__(self, show: Callable[[Iterable[Progress]], object]) -> None:
        super().__init__()
        self._show = show
        self._newest: dict[str, Progress] = {}
        self._lock = threading.Lock()
        # Queued: the slot runs in the event loop of the mailbox's thread, whichever thread emits.
        self._wake.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def put(self, event: Progress) -> None:
        """Handle an event, in a worker thread of the dispatcher."""
        with self._lock:
            awake = bool(self._newest)  # a wake is on its way, and will find this event too
            self._newest[event.job] = event
        if not awake:
            self._wake.emit()

    def _deliver(self) -> None:
        with self._lock:
            batch, self._newest = self._newest, {}
        self._show(batch.values())


class Window(QWidget):
    """A bar for every job. Lives in the thread of the application, as every widget does.

    Args:
        bus: where the jobs publish their `Progress`.
        jobs: their names.
        on_close: is called when the window is closed, before its subscription ends.
    """

    def __init__(self, bus: Dispatcher, jobs: Iterable[str], on_close: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.setWindowTitle("Primes")
        self.batches = 0
        self.bars = {job: QProgressBar() for job in jobs}
        self.primes = {job: QLabel("0") for job in self.bars}
        layout = QFormLayout(self)
        for job, bar in self.bars.items():
            layout.addRow(job, bar)
            layout.addRow("primes", self.primes[job])
        self._on_close = on_close
        self._mailbox = Mailbox(self.show_progress)
        self.subscription: Subscription[Progress] = bus.subscribe(
            self._mailbox.put, policy="latest", key=lambda event: event.job
        )

    def show_progress(self, batch: Iterable[Progress]) -> None:
        """Show the newest events. In the thread of the application."""
        self.batches += 1
        for event in batch:
            self.bars[event.job].setRange(0, event.steps)
            self.bars[event.job].setValue(event.done)
            self.primes[event.job].setText(f"{event.primes:,}")
        if all(bar.maximum() == bar.value() for bar in self.bars.values()):
            self.done()

    def done(self) -> None:
        """Called when all jobs are done."""
        self.setWindowTitle("Primes: done")

    def closeEvent(self, event: QCloseEvent) -> None:
        """End the work and the subscription; what has not been shown is dropped."""
        self._on_close()
        self.subscription.cancel(discard=True)
        super().closeEvent(event)


class ClosingWindow(Window):
    """Closes when all jobs are done."""

    def done(self) -> None:
        """Close."""
        self.close()


def count_primes(bus: Dispatcher, job: str, numbers: range, stop: threading.Event) -> None:
    """Count primes, with an event for every number looked at. Runs in a thread of its own."""
    primes = 0
    for done, number in enumerate(numbers, start=1):
        if stop.is_set():
            return
        primes += number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        bus.publish(Progress(job, done, len(numbers), primes))


def main(arguments: list[str] | None = None) -> int:
    """Show the window until it is closed. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Counts primes in two threads, and shows how far they are.")
    parser.add_argument("--close", action="store_true", help="close the window when the jobs are done")
    options = parser.parse_args(arguments)
    application = QApplication(sys.argv[:1])
    stop = threading.Event()
    jobs = {"small numbers": range(20_000), "large numbers": range(1_000_000, 1_005_000)}
    with Dispatcher() as bus:
        window = (ClosingWindow if options.close else Window)(bus, jobs, on_close=stop.set)
        window.show()
        workers = [threading.Thread(target=count_primes, args=(bus, job, jobs[job], stop)) for job in jobs]
        for worker in workers:
            worker.start()
        status = application.exec()
        for worker in workers:
            worker.join()
    counters = window.subscription
    print(f"{counters.delivered} events delivered, {counters.dropped} replaced by newer ones")
    print(f"{window.batches} updates of the window")
    return status


if __name__ == "__main__":
    sys.exit(main())
