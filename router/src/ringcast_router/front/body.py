"""The bytes of a request: in memory while they are few, beyond that in a temporary file."""

import asyncio
import contextlib
import errno
import logging
import mmap
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Self

from aiohttp import hdrs, web

from ringcast_router.errors import Refused
from ringcast_router.front.connections import IDLE_RACE
from ringcast_router.front.scan import SLICE, in_slices

log = logging.getLogger(__name__)

IN_MEMORY = 1 << 20  # bytes of a body that are kept in memory, and what is written to a file at once
AT_ONCE = 1 << 16  # bytes of a body that are sent with its head; a larger one is sent in pieces
PIECE = 1 << 18  # bytes of such a piece

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
    """The bytes of one request, complete, in memory or in a file. A context manager: leaving the block forgets them.

    They are needed until they are sent, and not while an answer is written for an hour: see `outgoing`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # all of it, while it has no more than AT_ONCE bytes
        # Then all of it, or what is not yet in the file. A map, for the memory of a bytearray that is released remains
        # the process's wherever something small has come to lie behind it.
        self._map: mmap.mmap | None = None
        self._in_map = 0
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._forgetting: asyncio.TimerHandle | None = None

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
                if scan is None:
                    pass
                elif len(chunk) <= SLICE:
                    scan(chunk)
                else:
                    await in_slices(scan, chunk)
                await body._append(chunk)
            await body._complete()
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
        self._end_forgetting()
        self._buffer = bytearray()
        if self._map is not None:
            self._map.close()
            self._map, self._in_map = None, 0
        close_file(self._file)
        self._file, self._in_file = None, 0

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._in_file + self._in_map + len(self._buffer)

    def read(self, start: int, end: int) -> bytes:
        """Return a piece that is known to be short: reading it delays everybody.

        Raises:
            Refused: It is longer than `IN_MEMORY` (413), or cannot be read (500).
        """
        if end - start > IN_MEMORY:
            raise Refused(413, f"a member that the router has to read has more than {IN_MEMORY} bytes")
        if self._file is None:
            return bytes(self._buffer[start:end]) if self._map is None else self._map[start:end]
        with refusals("read back"):
            self._file.seek(start)
            piece = self._file.read(end - start)
            if len(piece) < end - start:
                raise OSError(errno.EIO, "what was stored is shorter than what was written")
        return piece

    def outgoing(self, parts: Iterable[bytes | Span] | None = None) -> "bytes | Outgoing":
        """Hand over what is sent on: bytes where they are few, else what reads them in pieces. Call once.

        Bytes are the caller's, and no longer kept here. Pieces can be read again, as another try of the request does;
        some time after they have been read to their end this body forgets them.

        Args:
            parts: New bytes, and pieces of this body, in their order. None is the whole body.
        """
        size = self.size
        if parts is None and size <= AT_ONCE:  # most requests
            whole = bytes(self._buffer)
        else:
            outgoing = Outgoing(self, ((0, size),) if parts is None else tuple(parts))
            if max(size, outgoing.size) > AT_ONCE:
                return outgoing
            whole = b"".join(part if isinstance(part, bytes) else self.read(*part) for part in outgoing.parts)
        self._buffer = bytearray()
        return whole

    async def _append(self, chunk: bytes) -> None:
        if self._map is None:
            self._buffer += chunk
            if len(self._buffer) <= AT_ONCE:
                return
            chunk, self._buffer = bytes(self._buffer), bytearray()
            with refusals("store"):
                self._map = mmap.mmap(-1, IN_MEMORY)
        at = 0
        while at < len(chunk):
            if self._in_map == IN_MEMORY:
                await self._store()
            fits = chunk[at : at + IN_MEMORY - self._in_map]
            self._map[self._in_map : self._in_map + len(fits)] = fits
            self._in_map += len(fits)
            at += len(fits)

    async def _complete(self) -> None:
        """Have all of a body that has a file in the file."""
        if self._file is not None and self._map is not None:
            await self._store()
            self._map.close()
            self._map = None

    async def _store(self) -> None:
        """Move what the map holds to the file."""
        assert self._map is not None
        with refusals("store"):
            if self._file is None:
                self._file = open_file()
            await asyncio.to_thread(self._file.write, self._map[: self._in_map])
        self._in_file += self._in_map
        self._in_map = 0

    async def _piece(self, start: int, end: int) -> bytes:
        end = min(start + PIECE, end)
        return self.read(start, end) if self._file is None else await asyncio.to_thread(self.read, start, end)

    def _forget_soon(self) -> None:
        # A server that closes a kept connection does so within IDLE_RACE; the news needs a moment to get here.
        self._forgetting = asyncio.get_running_loop().call_later(2 * IDLE_RACE, self.close)

    def _end_forgetting(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None


def _is_encoded(request: web.BaseRequest) -> bool:
    if hdrs.CONTENT_ENCODING not in request.headers:
        return False
    codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).split(",")
    return any(coding.strip().lower() not in ("", "identity") for coding in codings)


def find_folder() -> None:
    """Have the folder of temporary files found now: where it is full, Python says that there is none.

    Without one the router works as long as no body needs a file.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        log.warning("bodies of more than %d bytes will be refused: %s", IN_MEMORY, error)


def open_file() -> IO[bytes]:
    """Return a new temporary file. Not for another thread: a reader that is cancelled meanwhile could not close it."""
    return tempfile.TemporaryFile()


def close_file(file: IO[bytes] | None) -> None:
    """Close a temporary file, if there is one. What could not be stored in it is not wanted any more."""
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what fails within the block by this machine into `Refused`: want of room, files or memory, or a fault."""
    try:
        yield
    except OSError as error:
        # Python lists the folders that it has tried, which is no business of a client's: see find_folder
        why = "there is no folder for temporary files" if isinstance(error, FileNotFoundError) else error.strerror
        message = f"the router cannot {what} a body of this size: {why}"
        log.error("%s", message)
        status, code = _FAULT if error.errno is None else _MEANINGS.get(error.errno, _FAULT)
        after = 1 if status == 503 else None
        raise Refused(status, message, type="server_error", code=code, retry_after=after) from None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A body that is sent piece by piece. Valid while its `Body` has it."""

    body: Body
    parts: tuple[bytes | Span, ...]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts)

    def keep(self) -> bool:
        """Say whether the bytes are still here to be sent again; if so, they stay until they are."""
        self.body._end_forgetting()
        return self.body.size > 0

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
                piece = await self.body._piece(at, end)
                at += len(piece)
                yield piece
        self.body._forget_soon()
