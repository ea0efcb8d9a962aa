"""The bytes of a request: in memory while they are few, beyond that in a temporary file."""

import asyncio
import contextlib
import errno
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import IO, Self

from aiohttp import StreamReader, hdrs, web

from ringcast_router.errors import Refused

log = logging.getLogger(__name__)

IN_MEMORY = 1 << 20  # bytes of a body that are kept in memory, and what is written to or read from a file at once

AHEAD = 1 << 17  # bytes of a body on its way that are read before the server has taken those that came before
PATIENCE = 2.0  # seconds that a server has to take some of them before the rest is read and kept

Span = tuple[int, int]
"""Where a piece of a body begins and ends, in bytes."""


# What an error of the temporary file means for the client: status and code. Any other is a fault of this machine.
_NO_SPACE = 507, "no_space"
_OVERLOADED = 503, "overloaded"
_MEANINGS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EMFILE: _OVERLOADED,
    errno.ENFILE: _OVERLOADED,
    errno.ENOMEM: _OVERLOADED,
}
_FAULT = 500, "storage_failed"


class Body:
    """The bytes of one request, complete. A context manager: leaving the block removes the file."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # all of it, or what is not yet in the file
        self._file: IO[bytes] | None = None
        self._in_file = 0

    @classmethod
    async def receive(cls, request: web.BaseRequest, scan: Callable[[bytes], None] | None = None) -> Self:
        """Read the body of `request` to its end.

        Args:
            request: Nothing of its body may have been read.
            scan: Called with each chunk in turn. What it raises ends the reading and is raised. None takes any bytes.

        Raises:
            Refused: The body is compressed (415), breaks off (400), or cannot be stored: for want of room (507),
                of files or memory (503), or by a fault of this machine (500).
        """
        if scan is not None and _is_encoded(request):
            raise Refused(415, "send the body without Content-Encoding: the router has to read the model's name in it")
        body = cls()
        try:
            while chunk := await request.content.readany():
                if scan is not None:
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
        _forget(self._file)
        self._file = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._in_file + len(self._buffer)

    def read(self, start: int, end: int) -> bytes:
        """Return a piece that is known to be short: reading it delays everybody.

        Raises:
            Refused: It is longer than `IN_MEMORY` (413), or cannot be read (500).
        """
        if end - start > IN_MEMORY:
            raise Refused(413, f"a member that the router has to read has more than {IN_MEMORY} bytes")
        if self._file is None:
            return bytes(self._buffer[start:end])
        piece = b""
        if start < self._in_file:
            piece = _read_from(self._file, start, min(end, self._in_file) - start)
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
                raise _refused(error, "store") from None
            self._in_file += len(self._buffer)
            self._buffer.clear()

    def _read_block(self, start: int, end: int) -> bytes:
        return self.read(start, min(start + IN_MEMORY // 4, end))


def _is_encoded(request: web.BaseRequest) -> bool:
    codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ())).split(",")
    return any(coding.strip().lower() not in ("", "identity") for coding in codings)


def _refused(error: OSError, what: str) -> Refused:
    message = f"the router cannot {what} a body of this size: {error.strerror}"
    log.error("%s", message)
    status, code = _FAULT if error.errno is None else _MEANINGS.get(error.errno, _FAULT)
    after = 1 if status == 503 else None
    return Refused(status, message, type="server_error", code=code, retry_after=after)


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
        """Yield the bytes.

        Raises:
            Refused: They cannot be read (500).
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            at, end = part
            while at < end:
                block = await asyncio.to_thread(self.body._read_block, at, end)
                yield block
                at += len(block)


class ReadAhead:
    """A body that is passed on as it comes; what comes while its server takes nothing is read all the same, and kept.

    A client that is not read from is not seen to leave, as the end of its connection stands behind its bytes. So a
    server that does not read would keep the request of a client that has gone. `close` must be called.

    Args:
        content: Where the body comes from. Nobody else may read from it before `close`.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._kept = bytearray()  # what comes after the bytes in the file
        self._file: IO[bytes] | None = None
        self._stored = 0  # bytes written to the file, and bytes read back from it
        self._read_back = 0
        self._file_lock = asyncio.Lock()
        self._came = asyncio.Event()
        self._taken = asyncio.Event()
        self._stalled = False
        self._stall: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None  # once the server has stalled

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Call once.

        Raises:
            web.RequestPayloadError: The body breaks off.
            Refused: It cannot be kept: see `Body.receive`.
        """
        loop = asyncio.get_running_loop()
        while self._reading is None:
            if not (chunk := await self._content.readany()):
                return
            self._stall = loop.call_later(PATIENCE, self._begin_to_read)
            yield chunk
            self._stall.cancel()
        while True:
            is_all = self._reading.done()
            if is_all:
                self._reading.result()  # raises what broke the reading off
            self._came.clear()
            if block := await self._take():
                yield block
            elif is_all:
                return
            else:
                await self._came.wait()

    async def close(self) -> None:
        """Read no more, and forget the bytes."""
        if self._stall is not None:
            self._stall.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        _forget(self._file)
        self._file = None

    def _begin_to_read(self) -> None:
        self._stalled = True
        self._reading = asyncio.create_task(self._read(), name="read a body ahead")

    async def _read(self) -> None:
        try:
            while chunk := await self._content.readany():
                self._kept += chunk
                self._came.set()
                if len(self._kept) >= AHEAD and not self._stalled:
                    self._stalled = not await self._is_taken_from()
                if len(self._kept) >= IN_MEMORY:
                    await self._store()
        finally:
            self._came.set()

    async def _is_taken_from(self) -> bool:
        self._taken.clear()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._taken.wait()
        except TimeoutError:
            return False
        return True

    async def _take(self) -> bytes:
        """Return the next bytes; b"" where none are there yet."""
        async with self._file_lock:
            if self._read_back < self._stored:
                block = await asyncio.to_thread(self._read_block)
                self._read_back += len(block)
            else:
                block = bytes(self._kept)
                self._kept = bytearray()
                self._stalled = False
                _forget(self._file)
                self._file, self._stored, self._read_back = None, 0, 0
        self._taken.set()
        return block

    async def _store(self) -> None:
        async with self._file_lock:
            data, self._kept = self._kept, bytearray()
            try:
                if self._file is None:
                    # in this thread: a reader that is cancelled meanwhile could not close it
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115
                await asyncio.to_thread(self._append, self._file, data)
            except OSError as error:
                raise _refused(error, "store") from None
            self._stored += len(data)

    def _append(self, file: IO[bytes], data: bytearray) -> None:
        file.seek(self._stored)
        file.write(data)

    def _read_block(self) -> bytes:
        return _read_from(self._file, self._read_back, min(IN_MEMORY // 4, self._stored - self._read_back))


def _read_from(file: IO[bytes] | None, start: int, count: int) -> bytes:
    assert file is not None
    try:
        file.seek(start)
        piece = file.read(count)
    except OSError as error:
        raise _refused(error, "read back") from None
    if len(piece) < count:
        raise _refused(OSError(errno.EIO, "the temporary file is shorter than what was written"), "read back")
    return piece


def _forget(file: IO[bytes] | None) -> None:
    if file is not None:
        with contextlib.suppress(OSError):  # what could not be stored is not wanted any more
            file.close()
