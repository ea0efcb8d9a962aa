"""A model's server that is a script of each test's own, which sees and sends exact bytes; and a client that does."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Script = Callable[["Link"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
IDLE = f"{sys.executable} -c 'import time; time.sleep(3600)'"  # the model's process; its port is the test's own


class Link:
    """The connection on which the router asks for one thing: what came, and the means to answer in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.first = ""
        self.headers: dict[str, str] = {}
        self.body = b""

    async def read_head(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.first = head[0]
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}

    async def read(self) -> None:
        await self.read_head()
        if "content-length" in self.headers:
            self.body = await self.reader.readexactly(int(self.headers["content-length"]))
        elif "transfer-encoding" in self.headers:
            while size := int(await self.reader.readline(), 16):
                self.body += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))


class Upstream:
    """A model's server that runs a script for each request, and keeps the links."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.script: Script = self.answer_ok
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def answer_ok(self, link: Link) -> None:
        await link.read()
        await link.send(OK)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not reader.at_eof():
                link = Link(reader, writer)
                self.links.append(link)
                await self.script(link)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the router has closed the connection, or the test is over
        finally:
            writer.close()
            self._tasks.discard(task)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def raw(served: Any, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send bytes to the router."""
    port = int(served.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


def post(body: bytes, *headers: str, path: str = "/v1/completions", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: router", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


BODY = b'{"model":"m","stream":true}'
