"""What the threads of a dispatcher run, by names that can be read in a traceback.

`faulthandler` and other tools that show the stacks of all threads see Python functions only, and before Python 3.14 not
the names of the threads. So there is one around each loop of the compiled core.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ringcast_watch", "ringcast_worker"]


def ringcast_worker(work: Callable[[], None]) -> None:
    """A worker: calls handlers."""
    work()


def ringcast_watch(watch: Callable[[], None]) -> None:
    """The watch: looks for workers that are stuck in a handler."""
    watch()
