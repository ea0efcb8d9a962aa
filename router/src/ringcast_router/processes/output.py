"""The output of a child: a pipe that the event loop reads.

The subprocess module of asyncio says that a child has ended only when its pipes are closed, so a grandchild that keeps
them open hangs it (cpython issue 119710). Here the pipe and the child's end have nothing to do with one another:
`close` reads what is there and leaves the pipe, whoever else holds it.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

PIECE = 64 * 1024  # bytes read in one turn of the event loop: other tasks have theirs in between
MOST_AT_THE_END = 1024 * 1024  # bytes read by `close`: a pipe holds less, unless somebody still writes


class Output:
    """Reads a pipe and hands on what comes. Event loop's thread only.

    Args:
        sink: Called with each piece; must not wait.

    Attributes:
        writer: The end of the pipe that the child gets; close it with `close_writer` when the child has it.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._reader, self.writer = os.pipe()
        self._open = True
        os.set_blocking(self._reader, False)
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def close_writer(self) -> None:
        """Leave the writing end to the child."""
        os.close(self.writer)

    def close(self) -> None:
        """Hand on what is in the pipe, and leave it. Idempotent."""
        left = MOST_AT_THE_END
        while self._open and left > 0 and (size := self._read()):
            left -= size
        self._leave()

    def _read(self) -> int:
        """Hand on one piece, and return its size; 0 where there is none now, or never again."""
        try:
            data = os.read(self._reader, PIECE)
        except (BlockingIOError, InterruptedError):
            return 0
        if not data:
            self._leave()
            return 0
        self._sink(data)
        return len(data)

    def _leave(self) -> None:
        if self._open:
            self._open = False
            # The loop may have closed before, when a test or a program ends in a hurry.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
