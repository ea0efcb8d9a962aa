"""Reads the bytes of a configuration file, which need not be a regular one: a shell's `<(…)` is a pipe."""

import os
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 5.0
"""Seconds within which a pipe must be written to its end: nobody can be kept waiting by one that nobody writes to."""


def read(path: Path) -> bytes:
    """Return all that a file holds, or what is written to a pipe.

    Raises:
        OSError: It cannot be read; a `TimeoutError` where it is a pipe that is not written to its end in time.
    """
    if stat.S_ISREG(path.stat().st_mode) or not hasattr(select, "poll"):  # Windows has neither
        return path.read_bytes()
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        return b"".join(_pieces(file.fileno()))


def _pieces(descriptor: int) -> Iterator[bytes]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            if not (piece := os.read(descriptor, 1 << 16)):
                return
            yield piece
    raise TimeoutError(None, f"this is no regular file, and nobody has written it to its end within {PATIENCE:g} s")
