"""The settings of a dispatcher: what its constructor is given, checked, and what follows for its threads."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from ringcast.errors import OptionError
from ringcast.events import brief, class_name, short
from ringcast.options import check_hook
from ringcast.values import flag, plain_str, whole

__all__ = ["Settings", "check_settings"]

MAX_QUEUE_LIMIT = 2**32  # beyond any use; keeps positions far from the end of 64 bits
FIRST_POSITION = 0  # of each ring; positions end at 2**63, and tests begin near that
SPARE_WORKERS = 1_000  # threads that may take the places of stuck ones; each has a stack, so there is an end


class Settings(NamedTuple):
    """The arguments of the compiled core, in its order.

    Attributes:
        max_queue: as for `Dispatcher`.
        max_workers: how many threads may run handlers, but for those that are stuck.
        spare: how many threads more may take the places of stuck ones.
        parallel: how many threads run handlers at once though none is slow.
        cpus: the CPUs that this process may use.
        name: the prefix of the threads' names.
        raises: whether what direct handlers raise is raised by `publish`.
        timing: whether the time of handlers is kept.
        first_position: where the positions of its rings begin.
    """

    max_queue: int
    max_workers: int
    spare: int
    parallel: int
    cpus: int
    name: str
    raises: bool
    timing: bool
    first_position: int


def check_settings(max_queue: object, max_workers: object, on_error: object, name: object, timing: object) -> Settings:
    """Check arguments of `Dispatcher` and fill in what they leave open.

    Raises:
        OptionError: one of them is not as `Dispatcher` says.
    """
    cpus = _cpu_count()
    workers = min(32, cpus + 4) if max_workers is None else whole("max_workers", max_workers, 1, 2**16)
    spare = SPARE_WORKERS if max_workers is None else 0
    word, prefix = plain_str(on_error), plain_str(name)
    if word not in (None, "raise"):
        raise OptionError(f'on_error must be callable, "raise" or None, not {brief(on_error)}')
    if on_error is not None and word is None:
        check_hook("on_error", on_error, "the failure")
    if name is not None and prefix is None:
        raise OptionError(f"name must be a str or None, not {short(class_name(type(name)))}")
    parallel = 1 if _gil_enabled() else min(cpus, workers)
    queue = whole("max_queue", max_queue, 1, MAX_QUEUE_LIMIT)
    raises, timed = word == "raise", flag("timing", timing)
    return Settings(queue, workers, spare, parallel, cpus, prefix or "ringcast", raises, timed, FIRST_POSITION)


def _cpu_count() -> int:
    """The CPUs that this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gil_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()
