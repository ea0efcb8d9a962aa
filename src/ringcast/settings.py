"""The settings of a dispatcher: what its constructor is given, checked, and what follows for its threads."""

from __future__ import annotations

import os
import sys
from typing import Any

from ringcast.errors import OptionError
from ringcast.events import brief, class_name
from ringcast.options import check_hook
from ringcast.values import flag, plain_str, whole

__all__ = ["check_settings"]

MAX_QUEUE_LIMIT = 2**32  # beyond any use; keeps positions far from the end of 64 bits
FIRST_POSITION = 0  # of each ring; positions end at 2**63, and tests begin near that
SPARE_WORKERS = 1_000  # threads that may take the places of stuck ones; each has a stack, so there is an end


def check_settings(
    max_queue: object, max_workers: object, on_error: object, name: object, timing: object
) -> dict[str, Any]:
    """Check arguments of `Dispatcher` and fill in what they leave open.

    Returns:
        The arguments of the compiled core:
        max_queue: as for `Dispatcher`.
        max_workers: how many threads may run handlers, but for those that are stuck.
        spare: how many threads more may take the places of stuck ones.
        parallel: how many threads run handlers at once though none is slow.
        cpus: the CPUs that this process may use.
        name: the prefix of the threads' names.
        raises: whether what direct handlers raise is raised by `publish`.
        timing: whether the time of handlers is kept.
        first_position: where the positions of its rings begin.

    Raises:
        OptionError: one of them is not as `Dispatcher` says.
    """
    cpus = _cpu_count()
    workers = min(32, cpus + 4) if max_workers is None else whole("max_workers", max_workers, 1, 2**16)
    word, prefix = plain_str(on_error), plain_str(name)
    if word not in (None, "raise"):
        raise OptionError(f'on_error must be callable, "raise" or None, not {brief(on_error)}')
    if on_error is not None and word is None:
        check_hook("on_error", on_error, "the failure")
    if name is not None and prefix is None:
        raise OptionError(f"name must be a str or None, not {class_name(type(name))}")
    return {
        "max_queue": whole("max_queue", max_queue, 1, MAX_QUEUE_LIMIT),
        "max_workers": workers,
        "spare": SPARE_WORKERS if max_workers is None else 0,
        "parallel": 1 if _gil_enabled() else min(cpus, workers),
        "cpus": cpus,
        "name": prefix or "ringcast",
        "raises": word == "raise",
        "timing": flag("timing", timing),
        "first_position": FIRST_POSITION,
    }


def _cpu_count() -> int:
    """The CPUs that this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gil_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()
