"""The bytes of a request that are read before the model's server takes them."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import IO

from aiohttp import StreamReader

from ringcast_router.front.body import IN_MEMORY, PIECE, close_file, open_file, refusals

AHEAD = 1 << 17  # bytes of a body on its way that are read before the server has taken those that came before
PATIENCE = 2.0  # seconds that a server has to take some of them before the rest is read and kept


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
            Refused: It cannot be kept: see `body.Body.receive`.
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
        self._forget()

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
                self._forget()
        self._taken.set()
        return block

    async def _store(self) -> None:
        async with self._file_lock:
            data, self._kept = self._kept, bytearray()
            with refusals("store"):
                if self._file is None:
                    self._file = open_file()
                await asyncio.to_thread(self._append, self._file, data)
            self._stored += len(data)

    def _append(self, file: IO[bytes], data: bytearray) -> None:
        file.seek(self._stored)
        file.write(data)

    def _read_block(self) -> bytes:
        assert self._file is not None
        count = min(PIECE, self._stored - self._read_back)
        with refusals("read back"):
            self._file.seek(self._read_back)
            block = self._file.read(count)
            if len(block) < count:
                raise OSError(errno.EIO, "the temporary file is shorter than what was written")
        return block

    def _forget(self) -> None:
        close_file(self._file)
        self._file, self._stored, self._read_back = None, 0, 0
