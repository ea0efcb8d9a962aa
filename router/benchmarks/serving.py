"""What the benchmarks of the front share: a lean model server, a bare proxy, a router, and what their processes use.

The bare proxy is the least that passes requests through with aiohttp. Run as a program, this file is the server or the
proxy: `python serving.py upstream PORT`, `python serving.py proxy PORT UPSTREAM_PORT`.
"""

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
from aiohttp import ClientSession, TCPConnector, web

from ringcast_router.ports import LOOPBACK, free_ports

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
HOP_BY_HOP = ("Host", "Connection", "Transfer-Encoding", "Content-Length")
CHUNK = b'data: {"object":"chat.completion.chunk","at":%.6f,"choices":[{"delta":{"content":"word "}}]}\n\n'


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer requests: `stream` gives `n` chunks, `gap` seconds apart, each with the time of its sending."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = 0
            if b"content-length: " in head:
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if length > 1 << 20:
                while length:
                    length -= len(await reader.read(min(length, 1 << 18)))
            body = await reader.readexactly(length)
            asked = json.loads(body) if body[:1] == b"{" else {}
            streams, count, gap = (asked.get(name, 0) for name in ("stream", "n", "gap"))
            del body, asked  # a thousand of them would fill the memory
            if streams:
                writer.write(HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked"))
                for _ in range(count):
                    chunk = CHUNK % time.monotonic()
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await asyncio.sleep(gap)
                writer.write(b"0\r\n\r\n")
            else:
                text = json.dumps({"choices": [{"message": {"role": "assistant", "content": "word " * 50}}]}).encode()
                writer.write(HEAD % (b"application/json", b"Content-Length: %d" % len(text)) + text)
            await writer.drain()
    writer.close()


async def serve_upstream(port: int) -> None:
    server = await asyncio.start_server(answer, LOOPBACK, port, backlog=4096)
    await server.serve_forever()


async def serve_proxy(port: int, upstream: int) -> None:
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.StreamResponse:
            headers = request.headers.copy()
            for name in HOP_BY_HOP:
                headers.popall(name, None)
            url = f"http://{LOOPBACK}:{upstream}{request.path_qs}"
            async with session.request(request.method, url, data=await request.read(), headers=headers) as got:
                headers = got.headers.copy()
                headers.popall("Transfer-Encoding", None)
                response = web.StreamResponse(status=got.status, headers=headers)
                await response.prepare(request)
                async for chunk in got.content.iter_any():
                    await response.write(chunk)
                return response

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port, backlog=4096).start()
        await asyncio.Event().wait()


class Served:
    """A process that listens."""

    def __init__(self, port: int, command: list[str]) -> None:
        self.port = port
        self._process = subprocess.Popen(command)
        self._usage = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        """Seconds of processor time used so far."""
        times = self._usage.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Bytes of memory in use."""
        return int(self._usage.memory_info().rss)

    async def listening(self) -> None:
        for _ in range(3000):
            with contextlib.suppress(OSError):
                _reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                writer.close()
                return
            await asyncio.sleep(0.01)
        raise RuntimeError(f"nobody listens on {self.port}")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@contextlib.contextmanager
def all_served() -> Iterator[tuple[int, Served, Served]]:
    """Start a router with the model `m`, and a bare proxy; give the port of the model's server, and the two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for thousands of connections, here and in the children
    upstream = free_ports(3)
    proxy, router = upstream + 1, upstream + 2
    me = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        command = " ".join([*me, "upstream", str(upstream)])
        config.write_text(
            f"models:\n  m:\n    cmd: {command}\n    proxy: http://{LOOPBACK}:{upstream}\n    concurrencyLimit: 10000\n"
        )
        listen = f"{LOOPBACK}:{router}"
        served = [
            Served(router, [sys.executable, "-m", "ringcast_router", "--config", str(config), "--listen", listen]),
            Served(proxy, [*me, "proxy", str(proxy), str(upstream)]),
        ]
        try:
            yield upstream, served[0], served[1]
        finally:
            for one in served:
                one.end()


def request(body: dict[str, object]) -> bytes:
    """Return a request for a chat completion, in bytes."""
    data = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello " * 20}], **body}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer none\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read an answer that has a length; return its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(head.decode())
    return await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of a stream. Raises RuntimeError where it is no stream, or does not end in order."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    try:
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise RuntimeError("a stream broke off") from error


def report(rows: list[tuple[str, float, str, float]]) -> int:
    """Print what was measured beside what is asked; return the exit status: 1 where something is missed.

    Args:
        rows: For each figure its name, the value, the unit, and the largest value that is good enough.
    """
    print(f"{'':46} {'measured':>10} {'asked':>10}")
    for name, value, unit, most in rows:
        print(f"{name:46} {value:10.3f} {most:10.3f} {unit}{'' if value <= most else '   MISSED'}")
    return int(any(value > most for _name, value, _unit, most in rows))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream", port]:
            asyncio.run(serve_upstream(int(port)))
        case ["proxy", port, upstream]:
            asyncio.run(serve_proxy(int(port), int(upstream)))
        case _:
            sys.exit(__doc__)
