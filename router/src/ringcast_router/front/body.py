"""The bytes of a request: in memory while they are few, beyond that in a temporary file."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import IO, Self

from aiohttp import hdrs, web

from ringcast_router.errors import Refused

IN_MEMORY = 1 << 20  # bytes of a body that are kept in memory, and what is written to or read from a file at once

Span = tuple[int, int]
"""Where a piece of a body begins and ends, in bytes."""


class Body:
    """The bytes of one request, complete. A context manager: leaving the block removes the file."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # all of it, or what is not yet in the file
        self._file: IO[bytes] | None = None
        self._in_file = 0

    @classmethod
    async def receive(cls, request: web.BaseRequest, scan: Callable[[bytes], None]) -> Self:
        """Read the body of `request` to its end.

        Args:
            request: Nothing of its body may have been read.
            scan: Called with each chunk in turn. What it raises ends the reading and is raised.

        Raises:
            Refused: The body is compressed (415), breaks off (400), or there is no room for it (507).
        """
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise Refused(415, "send the body without Content-Encoding: the router has to read the model's name in it")
        body = cls()
        try:
            while chunk := await request.content.readany():
                scan(chunk)
                await body._append(chunk)
        except BaseException as error:
            body.close()
            if isinstance(error, web.RequestPayloadError):
                raise Refused(400, f"the body breaks off: {error}") from None
            raise
        return body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the bytes. Further calls do nothing."""
        self._buffer = bytearray()  # not cleared: a thread may be writing the old one
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be stored is not wanted any more
                self._file.close()
            self._file = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._in_file + len(self._buffer)

    def read(self, start: int, end: int) -> bytes:
        """Return a piece that is known to be short: reading it delays everybody.

        Raises:
            Refused: It is longer than `IN_MEMORY` (413).
        """
        if end - start > IN_MEMORY:
            raise Refused(413, f"a member that the router has to read has more than {IN_MEMORY} bytes")
        if self._file is None:
            return bytes(self._buffer[start:end])
        piece = b""
        if start < self._in_file:
            self._file.seek(start)
            piece = self._file.read(min(end, self._in_file) - start)
        return piece + self._buffer[max(start - self._in_file, 0) : max(end - self._in_file, 0)]

    def outgoing(self, parts: Iterable[bytes | Span] | None = None) -> "bytes | Outgoing":
        """Return what is sent on: bytes where all is in memory, else what reads it in pieces.

        Args:
            parts: New bytes, and pieces of this body, in their order. None is the whole body.
        """
        if parts is None:
            if self._file is None:
                return bytes(self._buffer)
            parts = [(0, self.size)]
        if self._file is None:
            return b"".join(part if isinstance(part, bytes) else self._buffer[slice(*part)] for part in parts)
        return Outgoing(self, tuple(parts))

    async def _append(self, chunk: bytes) -> None:
        self._buffer += chunk
        if len(self._buffer) > IN_MEMORY:
            try:
                if self._file is None:
                    # in this thread: a reader that is cancelled meanwhile could not close it
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115
                await asyncio.to_thread(self._file.write, self._buffer)
            except OSError as error:
                message = f"the router cannot store a body of this size: {error.strerror}"
                raise Refused(507, message, type="server_error", code="no_space") from None
            self._in_file += len(self._buffer)
            self._buffer.clear()

    def _read_block(self, start: int, end: int) -> bytes:
        return self.read(start, min(start + IN_MEMORY // 4, end))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A body that is sent from its file, piece by piece. Valid while its `Body` is open."""

    body: Body
    parts: tuple[bytes | Span, ...]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            at, end = part
            while at < end:
                block = await asyncio.to_thread(self.body._read_block, at, end)
                yield block
                at += len(block)
