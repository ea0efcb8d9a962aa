"""What becomes of all dispatchers when the process ends, and when it forks."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from ringcast._core import after_fork_in_child, after_fork_in_parent, before_fork, nanoseconds
from ringcast._modules import imported
from ringcast.closing import name_pending

if TYPE_CHECKING:
    from ringcast.dispatcher import Dispatcher

__all__ = ["close_all", "dispatchers", "register"]

EXIT_PRIORITY = 100  # among what multiprocessing does at the end of a process: before it closes its queues (10)

# By their addresses. A WeakSet would do, but going through one fails when another thread drops a dispatcher meanwhile.
_live: weakref.WeakValueDictionary[int, Dispatcher] = weakref.WeakValueDictionary()
_live_lock = threading.RLock()  # re-entrant: a finalizer that makes a dispatcher may come in anywhere


def register(dispatcher: Dispatcher) -> None:
    """Have a new dispatcher closed at the end of the program, and prepared for forks. Does not keep it alive."""
    with _live_lock:
        _live[id(dispatcher)] = dispatcher


def dispatchers() -> list[Dispatcher]:
    """Return those that are alive."""
    with _live_lock:
        return [dispatcher for reference in _live.valuerefs() if (dispatcher := reference()) is not None]


def close_all() -> None:
    """Deliver at the end of the program what was accepted, within `exit_timeout`, and name what was not delivered.

    `ringcast/__init__.py` has it called.
    """
    begun = time.monotonic()
    living = dispatchers()
    for dispatcher in living:
        dispatcher._begin_close()
    try:
        for dispatcher in living:
            if dispatcher._exit_timeout is None:
                dispatcher._await_close(-1)
            else:
                left = begun + dispatcher._exit_timeout - time.monotonic()
                dispatcher._await_close(nanoseconds(max(0.0, left)))
    finally:  # also when Ctrl-C has ended the wait
        for dispatcher in living:
            name_pending(dispatcher, "the program has ended")


_told = False  # whether multiprocessing was told what to call when a process begins


def _tell_multiprocessing() -> None:
    """Have `close_all` called at the end of a process of multiprocessing, which goes without `atexit`.

    When such a process begins, multiprocessing forgets what is to be done at the end, and then makes the calls that
    were registered for after a fork.
    """
    global _told
    util = imported("multiprocessing.util")
    if util is None:
        return
    if not _told:
        _told = True  # so it is in the processes that this one forks
        util.register_after_fork(close_all, _close_with_process)
    if sys.modules["multiprocessing.process"].parent_process() is not None:  # it has begun already
        _close_with_process(close_all)


def _close_with_process(close: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, close, exitpriority=EXIT_PRIORITY)


class _Forking(threading.local):
    """The dispatchers that this thread has prepared for its fork, and what to tell them afterwards."""

    dispatchers: tuple[tuple[Dispatcher, bool], ...] = ()


_forking = _Forking()


def _before_fork() -> None:
    # in one order: two threads may fork at once
    living = sorted(dispatchers(), key=id)
    _forking.dispatchers = tuple([(dispatcher, before_fork(dispatcher)) for dispatcher in living])


def _after_fork_in_parent() -> None:
    prepared, _forking.dispatchers = _forking.dispatchers, ()
    for dispatcher, locked in prepared:
        after_fork_in_parent(dispatcher, locked)


def _after_fork_in_child() -> None:
    global _live, _live_lock
    prepared, _forking.dispatchers = _forking.dispatchers, ()
    _live_lock = threading.RLock()
    _live = weakref.WeakValueDictionary({id(dispatcher): dispatcher for dispatcher, _ in prepared})
    for dispatcher, locked in prepared:
        after_fork_in_child(dispatcher, locked)
    _tell_multiprocessing()


_tell_multiprocessing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
