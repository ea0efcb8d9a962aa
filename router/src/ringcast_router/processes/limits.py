"""How many files the router may have open: a request takes two connections, and a large body a file besides.

Many systems let a process open 1,024 at first, and more if it asks for more (the soft and the hard limit). The router
asks. A model server gets back what the router had at first: programs that use `select` break beyond 1,024.
"""

import contextlib
import sys

if sys.platform != "win32":
    import resource

ENOUGH = 8192  # 2,000 streams take half of these
_MACOS_MOST = 10_240  # macOS takes no more of a process whose hard limit is infinite

_first: tuple[int, int] | None = None  # the limits before they were raised; None where they were not


def raise_open_files() -> int | None:
    """Raise the limit of open files of this process as far as it goes.

    Returns:
        The limit that holds now where it is lower than `ENOUGH`, else None. Windows has no such limit.
    """
    global _first
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _MACOS_MOST):
        if soft == hard or (wanted != resource.RLIM_INFINITY and wanted <= soft):
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            _first = _first or (soft, hard)
            soft = wanted
            break
    return soft if soft != resource.RLIM_INFINITY and soft < ENOUGH else None


def restore_open_files(pid: int) -> None:
    """Give a child the limit that this process had before it was raised. On Linux; elsewhere the child keeps it."""
    if _first is not None and sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has ended, or has become another user's
            resource.prlimit(pid, resource.RLIMIT_NOFILE, _first)
