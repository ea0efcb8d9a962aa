"""The settings of a dispatcher: what its constructor is given, checked, and what follows for its threads."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from ringcast.errors import OptionError
from ringcast.events import brief
from ringcast.options import check_hook, whole

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
    raises = on_error == "raise" if isinstance(on_error, str) else False
    if isinstance(on_error, str) and not raises:
        raise OptionError(f'on_error must be callable, "raise" or None, not {brief(on_error)}')
    if on_error is not None and not raises:
        check_hook("on_error", on_error, "the failure")
    if name is not None and not isinstance(name, str):
        raise OptionError(f"name must be a str or None, not {type(name).__name__}")
    if not isinstance(timing, bool):
        raise OptionError(f"timing must be True or False, not {type(timing).__name__}")
    parallel = 1 if _gil_enabled() else min(cpus, workers)
    queue = whole("max_queue", max_queue, 1, MAX_QUEUE_LIMIT)
    return Settings(queue, workers, spare, parallel, cpus, name or "ringcast", raises, timing, FIRST_POSITION)


def _cpu_count() -> int:
    """The CPUs that this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gil_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()
