"""The threads of a dispatcher, and what they run, by names that can be read in a traceback.

`faulthandler` and other tools that show the stacks of all threads see Python functions only, and before Python 3.14 not
the names of the threads. So there is one around each loop of the compiled core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Thread", "ringcast_watch", "ringcast_worker"]

START_LASTS = 1.0  # seconds that a thread may take to come into being, after whoever has started it was interrupted


class Thread(threading.Thread):
    """A thread of a dispatcher, of which can be told whether it is there even where its start was interrupted."""

    _entered = False
    # of a thread in whose `is_alive` a signal's handler has raised Python 3.11 says for ever that it is not alive
    _left = False
    _interrupted_at: float | None = None

    def run(self) -> None:
        """Run the target."""
        self._entered = True
        try:
            super().run()
        finally:
            self._left = True

    def start_was_interrupted(self) -> None:
        """Note that `start` has raised, perhaps after the system had made the thread."""
        self._interrupted_at = time.monotonic()

    def is_there(self) -> bool:
        """Whether it runs or may be about to. `is_alive` is false of a thread that has not come to its first line."""
        if self._entered:
            return not self._left or self.is_alive()
        return self._interrupted_at is None or time.monotonic() < self._interrupted_at + START_LASTS

    def wait_until_gone(self, timeout: float | None) -> bool:
        """Wait until it is not there.

        Args:
            timeout: in seconds; None: as long as it takes.

        Returns:
            Whether it is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._left and self.is_there():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if self._entered and self.is_alive():
                break  # joined below
            time.sleep(0.001)
        if self._entered:
            self.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self.is_there()


def ringcast_worker(work: Callable[[], None]) -> None:
    """A worker: calls handlers."""
    work()


def ringcast_watch(watch: Callable[[], None]) -> None:
    """The watch: looks for workers that are stuck in a handler."""
    watch()
