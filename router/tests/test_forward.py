"""How requests and answers pass: headers, bodies, streams, breaks on either side, time-outs, upgrades.

The model's server is a script of each test's own, which sees and sends exact bytes.
"""

import asyncio
import contextlib
import errno
import gc
import io
import os
import random
import signal
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from conftest import wait_until
from limits import DEADLINE
from links import BODY, IDLE, OK, STREAM, Link, Upstream, post, raw

from ringcast_router import owner
from ringcast_router.front import ahead, connections, forward, loading
from ringcast_router.front import body as front_body
from ringcast_router.front.body import Body

# What reaches the server


@pytest.mark.parametrize("time_out", [0, 60])
async def test_a_body_that_cannot_be_read_from_its_file_is_not_the_servers_fault(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, time_out: int
) -> None:
    served = await front(f"timeouts: {{responseHeader: {time_out}}}")

    def fail(*_span: int) -> bytes:
        raise OSError(errno.EIO, "out of luck")

    class Broken(io.BytesIO):
        read = fail

    monkeypatch.setattr(tempfile, "TemporaryFile", Broken)
    answer = await served.post("/v1/completions", data=io.BytesIO(BODY[:-1] + b',"x":"' + b"x" * (3 << 20) + b'"}'))
    assert (answer.status, answer.json["error"]["code"]) == (500, "storage_failed")
    assert served.router.owner.pending() == []


async def test_an_error_of_the_server_that_is_nested_deeply_is_told_as_text(front: Any, upstream: Upstream) -> None:
    deep = b'{"error":' + b"[" * 30_000 + b"]" * 30_000 + b"}"

    async def answer(link: Link) -> None:
        await link.read()
        await link.send(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%b" % (len(deep), deep))

    upstream.script = answer
    served = await front("sendLoadingState: true")
    told = await served.post("/v1/chat/completions", data=BODY)
    assert told.status == 200
    assert "answered 400 instead of a stream: {" in told.text


async def test_a_body_without_filters_reaches_the_server_byte_by_byte(front: Any, upstream: Upstream) -> None:
    served = await front()
    body = b'\xef\xbb\xbf { "model" : "m", "x":1.50, "x":[ 1,2 ] }\n'
    assert (await served.post("/v1/completions?a=b%20c", data=body)).body == b"ok"
    (link, *_) = upstream.links
    assert link.first == "POST /v1/completions?a=b%20c HTTP/1.1"
    assert link.body == body
    assert link.headers["content-length"] == str(len(body))


async def test_headers_of_the_connection_stay_and_the_others_pass(front: Any, upstream: Upstream) -> None:
    served = await front()
    reader, writer = await raw(
        served,
        post(
            BODY,
            "Connection: close, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Proxy-Authorization: secret",
            "X-Passed: a",
            "X-Passed: b",
            "Accept-Encoding: gzip",
            "Authorization: Bearer of-the-server",
            "Cookie: a=b",
            "X-Forwarded-For: 10.0.0.1",
        ),
    )
    await reader.read()
    writer.close()
    headers = upstream.links[0].headers
    assert not headers.keys() & {"x-hop", "keep-alive", "te", "proxy-authorization", "user-agent", "accept"}
    assert headers["x-passed"] == "b"
    assert headers["host"] == "router"
    assert headers["accept-encoding"] == "gzip"
    assert headers["authorization"] == "Bearer of-the-server"
    assert headers["cookie"] == "a=b"
    assert headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"


async def test_a_key_of_the_routers_does_not_reach_the_server(front: Any, upstream: Upstream) -> None:
    served = await front(top="apiKeys: [secret]\n")
    for headers in ({"Authorization": "Bearer secret"}, {"x-api-key": "secret"}):
        assert (await served.post("/v1/completions", data=BODY, headers=headers)).status == 200
    assert (await served.post("/v1/completions", data=BODY)).status == 401
    assert len([link for link in upstream.links if link.first]) == 2
    assert not any("secret" in str(link.headers) for link in upstream.links)


async def test_a_client_that_waits_for_100_is_told_to_go_on(front: Any, upstream: Upstream) -> None:
    served = await front()
    reader, writer = await raw(served, post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 13"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"model":"m"}')
    assert await reader.readuntil(b"ok")
    writer.close()
    assert "expect" not in upstream.links[0].headers
    assert upstream.links[0].body == b'{"model":"m"}'


@pytest.mark.parametrize("length_known", [True, False])
async def test_a_body_on_the_way_straight_to_a_server_passes_as_it_comes(
    front: Any, upstream: Upstream, length_known: bool
) -> None:
    served = await front()
    await served.router.load("m")  # a body whose request waits is read to its end first
    first_came = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read_head()
        await link.reader.readuntil(b"first")
        first_came.set()
        await link.reader.readuntil(b"second")
        await link.send(OK)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await first_came.wait()  # the first piece is there before the second is sent
        yield b"second"

    upstream.script = script
    headers = {"Content-Length": "11"} if length_known else {}
    answer = await served.request("PUT", "/upstream/m/files/x?y=1", data=body(), headers=headers)
    assert answer.status == 200
    assert upstream.links[0].first == "PUT /files/x?y=1 HTTP/1.1"
    expected = {"content-length": "11"} if length_known else {"transfer-encoding": "chunked"}
    assert expected.items() <= upstream.links[0].headers.items()


@pytest.mark.parametrize("path", ["/v1/completions", "/upstream/m/x"])
async def test_a_request_that_had_to_wait_is_passed_on_when_its_body_is_complete(
    front: Any, upstream: Upstream, path: str
) -> None:
    """While it waits its body is read, or nobody would see its client leave; then it goes on with its length."""
    served = await front("concurrencyLimit: 1")
    came, go_on = asyncio.Event(), asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        came.set()
        await go_on.wait()
        await link.send(OK)

    upstream.script = script
    first = served.begin("m")
    await asyncio.wait_for(came.wait(), DEADLINE)
    half = BODY[:7]
    head = f"POST {path} HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    reader, writer = await raw(served, head + b"%x\r\n%b\r\n" % (len(half), half))
    if path.startswith("/upstream"):
        await wait_until(lambda: len(served.router.owner.pending()) == 2, what="two requests")
    go_on.set()
    assert (await first).status == 200
    await wait_until(lambda: all(one.is_granted for one in served.router.owner.pending()), what="a place")
    assert (await served.get("/health")).status == 200
    assert [bool(link.first) for link in upstream.links] in ([True], [True, False]), "the body has not come yet"
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY) - len(half), BODY[len(half) :]))
    assert await asyncio.wait_for(reader.readuntil(b"ok"), DEADLINE)
    writer.close()
    (_, second, *_) = [link for link in upstream.links if link.first]
    assert (second.body, second.headers["content-length"]) == (BODY, str(len(BODY)))


ERROR = b'{"error": {"message": "too long", "code": "context"}}'


@pytest.mark.parametrize(
    ("pieces", "length", "told"),
    [
        ([ERROR], len(ERROR), '"code": "context"'),
        ([ERROR[:9], ERROR[9:20], ERROR[20:]], len(ERROR), '"code": "context"'),
        ([ERROR[:20]], len(ERROR), "answered 400 instead of a stream"),  # the rest never comes
        ([b"x" * (1 << 16)] * 3, 3 << 16, "answered 400 instead of a stream: xxx"),
        ([], 0, "answered 400 instead of a stream"),
    ],
    ids=["whole", "in pieces", "hanging", "large", "empty"],
)
async def test_an_error_after_loading_is_read_to_its_end(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], length: int, told: str
) -> None:
    monkeypatch.setattr(loading, "_ERROR_TIME", DEADLINE if sum(map(len, pieces)) == length else 0.2)
    over = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        await link.send(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % length)
        for piece in pieces:
            await asyncio.sleep(0.02)  # each comes by itself; the test holds where they do not
            await link.send(piece)
        await over.wait()

    upstream.script = script
    served = await front("sendLoadingState: true")
    answer = await served.post("/v1/chat/completions", data=BODY)
    over.set()
    assert told in answer.text
    assert len(answer.body) < 1 << 16


@pytest.mark.parametrize("path", ["/v1/completions", "/upstream/m/x"])
async def test_an_offer_of_http_2_is_left_unanswered(front: Any, upstream: Upstream, path: str) -> None:
    served = await front()
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    reader, writer = await raw(served, post(BODY, *offer, path=path))
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    assert upstream.links[0].body == BODY
    assert not upstream.links[0].headers.keys() & {"upgrade", "http2-settings"}


@pytest.mark.parametrize(
    ("size", "began"),
    [(60_000, True), (900_000, True), (900_000, False), (3_000_000, True), (3_000_000, False)],
)
@pytest.mark.parametrize("setting", [(), ("useModelName: other",)], ids=["as it came", "filtered"])
async def test_a_body_is_not_kept_while_the_answer_is_awaited(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, setting: Any, size: int, began: bool
) -> None:
    """`began` says whether the answer's head has come; its rest can take an hour."""
    monkeypatch.setattr(front_body, "IDLE_RACE", 0.02)
    came, over = asyncio.Event(), asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        link.body = b""
        if began:
            await link.send(STREAM + b"2\r\nab\r\n")
        came.set()
        await over.wait()
        await link.send((b"" if began else STREAM) + b"0\r\n\r\n")

    upstream.script = script
    served = await front(*setting)
    await served.router.load("m")
    body = b'{"model":"m","x":"' + b"x" * size + b'"}'
    asking = asyncio.create_task(served.post("/v1/completions", data=io.BytesIO(body)))
    try:
        await asyncio.wait_for(came.wait(), DEADLINE)
        bodies = [one for one in gc.get_objects() if isinstance(one, Body)]
        assert bodies
        await wait_until(lambda: not any(one.size for one in bodies), what="the end of all copies")
    finally:
        over.set()
    assert (await asking).status == 200


# What reaches the client


async def test_chunks_pass_as_they_come(front: Any, upstream: Upstream) -> None:
    served = await front()
    seen = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        await link.send(STREAM)
        for number in range(3):
            await link.send_chunk(b"data: %d\n\n" % number)
            await seen.wait()  # the next is not sent before the client has this one
            seen.clear()
        await link.send(b"0\r\n\r\n")

    upstream.script = script
    async with served.session.post(served.url + "/v1/completions", data=BODY) as response:
        assert response.headers["X-Accel-Buffering"] == "no"
        chunks = []
        while chunk := await response.content.readany():
            chunks.append(chunk)
            seen.set()
    assert chunks == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize(
    ("method", "answer", "status", "headers", "body"),
    [
        ("GET", b"204 No Content\r\nX-A: 1\r\n\r\n", 204, {"X-A": "1"}, b""),
        ("GET", b'304 Not Modified\r\nETag: "x"\r\nContent-Length: 9\r\n\r\n', 304, {"ETag": '"x"'}, b""),
        ("HEAD", b"200 OK\r\nContent-Length: 12345\r\n\r\n", 200, {"Content-Length": "12345"}, b""),
        ("GET", b"200 OK\r\nContent-Length: 0\r\n\r\n", 200, {"Content-Length": "0"}, b""),
        (
            "GET",
            b"302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
            302,
            {"Location": "/elsewhere"},
            b"",
        ),
        ("GET", b"418 I'm a teapot\r\nContent-Length: 3\r\n\r\ntea", 418, {}, b"tea"),
        ("GET", b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b!", 200, {}, b"\x1f\x8b!"),
        ("GET", b"200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 1\r\n\r\nx", 200, {"Set-Cookie": "a=1"}, b"x"),
        ("GET", b"200 OK\r\nConnection: close\r\n\r\nuntil the end", 200, {}, b"until the end"),
        (
            "GET",
            b"200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\n\r\n",
            200,
            {"Content-Length": "2"},  # all of it came at once
            b"ab",
        ),
        ("GET", b"200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n", 200, {}, b""),
        ("GET", b"103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, {}, b"x"),
    ],
)
async def test_answers_of_every_form_pass(
    front: Any, upstream: Upstream, method: str, answer: bytes, status: int, headers: dict[str, str], body: bytes
) -> None:
    served = await front()

    async def script(link: Link) -> None:
        await link.read()
        if "/second" in link.first:
            await link.send(OK)
            return
        await link.send(b"HTTP/1.1 " + answer)
        if b"Connection: close" in answer:
            link.writer.close()
            raise ConnectionError

    upstream.script = script
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with session.request(method, served.url + "/upstream/m/x", allow_redirects=False) as response:
            got = await response.read()
            assert (response.status, got) == (status, body)
            assert {name: response.headers.get(name) for name in headers} == headers
            assert "X-Hop" not in response.headers
            assert "Trailer" not in response.headers
        # The connection is good for another request.
        async with session.get(served.url + "/upstream/m/second") as response:
            assert await response.read() == b"ok"


async def test_an_http_1_0_client_gets_a_stream_that_ends_with_the_connection(front: Any, upstream: Upstream) -> None:
    served = await front()

    async def script(link: Link) -> None:
        await link.read()
        await link.send(STREAM + b"2\r\nab\r\n0\r\n\r\n")

    upstream.script = script
    reader, writer = await raw(served, post(BODY, version="1.0"))
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head
    assert body == b"ab"


# Breaks


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a process does that dies with unread data."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("end", [lambda writer: writer.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize("head", [STREAM + b"2\r\nab\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_that_breaks_off_does_not_end_in_order(
    front: Any, upstream: Upstream, end: Callable[[asyncio.StreamWriter], None], head: bytes, version: str
) -> None:
    served = await front()
    seen = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        await link.send(head)
        await seen.wait()
        end(link.writer)
        raise ConnectionError

    upstream.script = script
    reader, writer = await raw(served, post(BODY, version=version))
    got = await reader.readuntil(b"ab")
    seen.set()
    try:
        rest = await reader.read()
    except ConnectionResetError:
        rest = None  # the plainest of failures
    writer.close()
    if rest is not None:
        assert b"0\r\n\r\n" not in rest
        assert b"chunked" in got or b"Content-Length: 10" in got, "an end by closing would look whole"
    await wait_for_no_request(served)
    assert (await served.get("/health")).status == 200


async def wait_for_no_request(served: Any) -> None:
    await wait_until(lambda: not served.router.owner.pending(), what="the end of all requests")


@pytest.mark.parametrize("end", [lambda writer: writer.close(), reset], ids=["closed", "reset"])
async def test_a_server_that_breaks_off_before_its_answer_is_a_502_that_says_so(
    front: Any, upstream: Upstream, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    served = await front()

    async def script(link: Link) -> None:
        await link.read()
        end(link.writer)
        raise ConnectionError

    upstream.script = script
    answer = await served.post("/v1/completions", data=BODY)
    assert answer.status == 502
    assert answer.json["error"]["code"] == "upstream_error"
    assert answer.json["src"] == "ringcast-router"


async def test_a_malformed_answer_breaks_the_clients_off(front: Any, upstream: Upstream) -> None:
    served = await front()
    seen = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        await link.send(STREAM + b"2\r\nab\r\n")
        await seen.wait()
        await link.send(b"ZZZ\r\n")
        await link.reader.read()

    upstream.script = script
    reader, writer = await raw(served, post(BODY))
    await reader.readuntil(b"ab")
    seen.set()
    rest = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    assert b"0\r\n\r\n" not in rest
    await wait_for_no_request(served)


async def test_an_answer_that_is_malformed_from_the_first_is_a_502(front: Any, upstream: Upstream) -> None:
    async def script(link: Link) -> None:
        await link.read()
        await link.send(STREAM + b"ZZZ\r\n")
        await link.reader.read()

    upstream.script = script
    served = await front()
    assert (await served.post("/v1/completions", data=BODY)).status == 502


@pytest.mark.parametrize("path", ["/v1/completions", "/upstream/m/x"])
@pytest.mark.parametrize("together", [True, False])
async def test_a_malformed_body_is_a_400_and_ends_the_connection(
    front: Any, upstream: Upstream, path: str, together: bool
) -> None:
    served = await front()
    await served.router.load("m")
    head = f"POST {path} HTTP/1.1\r\nHost: router\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    reader, writer = await raw(served, head + b"5\r\nhello\r\n" + (b"ZZZ\r\n" if together else b""))
    if not together:
        await wait_until(lambda: path == "/v1/completions" or upstream.links, what="the request's arrival")
        await asyncio.sleep(0)
        writer.write(b"ZZZ\r\n")
    answer = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    assert answer.split()[1] == b"400"
    assert answer.count(b"HTTP/1.") == 1, "one answer is enough"
    assert b'"error"' in answer
    await wait_for_no_request(served)


async def test_a_server_that_has_closed_an_idle_connection_is_asked_on_a_new_one(
    front: Any, upstream: Upstream
) -> None:
    served = await front()

    async def script(link: Link) -> None:
        await link.read()
        if len(upstream.links) % 2 == 0:  # the second request of a connection meets its end
            link.writer.close()
            raise ConnectionError
        await link.send(OK)

    upstream.script = script
    answers = [await served.post("/v1/completions", data=BODY) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert len(upstream.links) > 4, "no connection was used twice"


LARGE = 30_000_000  # bytes: more than what the buffers on the way take


async def upload(served: Any) -> asyncio.StreamWriter:
    """Begin to send a body that is larger than what the buffers on the way take."""
    head = f"POST /upstream/m/x HTTP/1.1\r\nHost: r\r\nContent-Length: {LARGE}\r\n\r\n"
    _, writer = await raw(served, head.encode())
    writer.write(bytes(LARGE - 1))
    return writer


async def test_a_client_that_leaves_the_queue_in_the_middle_of_its_body_is_forgotten(
    front: Any, upstream: Upstream, until: Any
) -> None:
    served = await front("concurrencyLimit: 1")
    came = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read_head()
        came.set()
        await asyncio.Event().wait()

    upstream.script = script
    served.begin("m")
    await came.wait()
    writer = await upload(served)
    await until(lambda: len(served.router.owner.pending()) == 2)
    writer.transport.abort()
    await until(lambda: len(served.router.owner.pending()) == 1)


async def do_not_read(link: Link) -> None:
    link.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    await link.read_head()
    if "upgrade" in link.headers:
        await link.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    link.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def send_upgraded(served: Any) -> asyncio.StreamWriter:
    """Send more than what the buffers on the way take on an upgraded connection."""
    wish = b"GET /upstream/m/ws HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    reader, writer = await raw(served, wish)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes(LARGE))
    return writer


async def test_a_client_that_closes_in_an_upload_that_nobody_reads_is_forgotten(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of its connection stands behind the bytes that it has sent."""
    monkeypatch.setattr(ahead, "PATIENCE", 1.0)
    upstream.script = do_not_read
    served = await front()
    await served.router.load("m")
    unmoved = 0

    def is_full() -> bool:
        """Send what can be sent; say whether all buffers on the way were full at the last looks."""
        nonlocal unmoved
        unmoved += 1
        with contextlib.suppress(BlockingIOError):
            while client.send(bytes(1 << 16)):
                unmoved = 0
        return unmoved == 20

    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        client.sendall(f"POST /upstream/m/x HTTP/1.1\r\nHost: r\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
        client.setblocking(False)
        await wait_until(is_full, what="an upload that nobody reads")
    await wait_for_no_request(served)


async def test_a_server_that_reads_late_gets_all_of_an_upload(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be busy with another request meanwhile. The second half stalls once more."""
    monkeypatch.setattr(ahead, "PATIENCE", 0.01)
    monkeypatch.setattr(connections, "STALLED", 0.01)
    served = await front()
    await served.router.load("m")
    data = random.Random(1).randbytes(LARGE)
    got = bytearray()
    stored = asyncio.Semaphore(0)
    read = asyncio.Semaphore(0)
    store = ahead.ReadAhead._store

    async def store_and_tell(self: ahead.ReadAhead) -> None:
        await store(self)
        stored.release()

    async def send() -> AsyncIterator[bytes]:
        yield data[: LARGE // 2]
        await read.acquire()
        yield data[LARGE // 2 :]

    async def script(link: Link) -> None:
        await link.read_head()
        for _ in range(2):
            link.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(3):
                await stored.acquire()
            link.writer.transport.resume_reading()  # type: ignore[attr-defined]
            got.extend(await link.reader.readexactly(LARGE // 2))
            while not stored.locked():
                await stored.acquire()
            read.release()
        await link.send(OK)

    monkeypatch.setattr(ahead.ReadAhead, "_store", store_and_tell)
    upstream.script = script
    length = {"Content-Length": str(LARGE)}
    answer = await asyncio.wait_for(served.post("/upstream/m/x", data=send(), headers=length), DEADLINE)
    assert answer.status == 200
    assert bytes(got) == data


@pytest.mark.parametrize(
    ("send", "stalls"),
    [(upload, False), (send_upgraded, False), (send_upgraded, True)],
    ids=["a client leaves its upload", "a client leaves its upgrade", "an upgrade stalls"],
)
async def test_a_server_that_does_not_read_pins_no_request(
    front: Any, upstream: Upstream, until: Any, monkeypatch: pytest.MonkeyPatch, send: Any, stalls: bool
) -> None:
    """asyncio does not tell of the end of a connection that is not read from."""
    monkeypatch.setattr(connections, "STALLED" if stalls else "LOOK_EVERY", 0.2)
    upstream.script = do_not_read
    served = await front()
    await served.router.load("m")  # a body whose model is not ready is read to its end first
    writer = await send(served)
    clients = served.server._runner.server.connections
    await until(lambda: any(client.transport and not client.transport.is_reading() for client in clients))
    if not stalls:
        reset(writer)
    await wait_for_no_request(served)
    writer.close()


async def test_a_server_that_nobody_reaches_is_a_502_that_says_so(serve: Any, free_port: Any) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    served = await serve(f"models:\n  m:\n    cmd: {IDLE}\n    proxy: {proxy}\n    checkEndpoint: none\n")
    answer = await served.post("/v1/completions", data=BODY)
    assert (answer.status, answer.json["error"]["message"]) == (502, "m: its server cannot be reached")


@pytest.mark.parametrize("began", [False, True], ids=["before the answer", "in mid-stream"])
async def test_a_request_whose_server_has_ended_ends_though_its_connection_stays(
    front: Any, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    """Somebody who is not the model's process, as behind `docker run`, holds the connection."""
    monkeypatch.setattr(owner, "LEFT_BEHIND", 0.05)
    served = await front()
    came = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        if began:
            await link.send(STREAM + b"2\r\nab\r\n")
        came.set()
        await asyncio.Event().wait()

    upstream.script = script
    reader, writer = await raw(served, post(BODY))
    await came.wait()
    if began:
        await reader.readuntil(b"ab")
    os.kill(served.router.processes["m"].pid, signal.SIGKILL)
    await served.until("m", "stopped")
    await wait_for_no_request(served)
    if began:
        assert not (await asyncio.wait_for(reader.read(), DEADLINE)).endswith(b"0\r\n\r\n"), "no clean end"
    else:
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), DEADLINE)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"m: its server has ended" in answer
    assert served.router.owner.scheduler.in_flight("m") == 0
    writer.close()


async def test_a_router_without_files_to_connect_with_says_that_it_is_the_one(
    front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sockets:
        """The module, for a process that may open no more files."""

        def __getattr__(self, name: str) -> object:
            return getattr(socket, name)

        def socket(self, *arguments: object) -> None:
            raise OSError(errno.EMFILE, "too many")

    served = await front()
    monkeypatch.setattr(forward, "socket", Sockets())
    answer = await served.post("/v1/completions", data=BODY)
    assert (answer.status, answer.json["error"]["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("began", [False, True], ids=["before the answer", "in mid-stream"])
async def test_a_client_that_leaves_ends_the_request_to_the_server(front: Any, upstream: Upstream, began: bool) -> None:
    served = await front()
    came, left = asyncio.Event(), asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        if began:
            await link.send(STREAM + b"2\r\nab\r\n")
        came.set()
        assert await link.reader.read() == b""
        left.set()

    upstream.script = script
    reader, writer = await raw(served, post(BODY))
    await came.wait()
    if began:
        await reader.readuntil(b"ab")
    writer.close()
    await asyncio.wait_for(left.wait(), 20)
    await wait_for_no_request(served)


async def test_a_server_that_is_late_with_its_head_is_a_504(front: Any, upstream: Upstream) -> None:
    served = await front("timeouts: {responseHeader: 1}")
    left = asyncio.Event()

    async def script(link: Link) -> None:
        await link.read()
        assert await link.reader.read() == b""
        left.set()

    upstream.script = script
    began = time.monotonic()
    answer = await served.post("/v1/completions", data=BODY)
    assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
    assert 0.9 < time.monotonic() - began < 10
    await asyncio.wait_for(left.wait(), 20)


async def test_the_time_for_the_head_begins_after_the_body_and_ends_with_the_head(
    front: Any, upstream: Upstream
) -> None:
    served = await front("timeouts: {responseHeader: 1}")

    async def script(link: Link) -> None:
        await link.read()
        await link.send(STREAM)
        await asyncio.sleep(1.2)  # longer than the time for the head
        await link.send(b"2\r\nab\r\n0\r\n\r\n")

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(1.2)
        yield b"second"

    upstream.script = script
    answer = await served.post("/upstream/m/x", data=body())
    assert (answer.status, answer.body) == (200, b"ab")


# Upgrades


async def websocket_server(upstream: Upstream) -> str:
    """Start a websocket server that echoes text and closes as it is asked to; return its URL."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT and message.data.startswith("close "):
                await socket.close(code=int(message.data[6:]), message=b"as asked")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        closed.append(socket.close_code)
        return socket

    closed: list[int | None] = []
    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.runner, upstream.closed = runner, closed  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def websockets(serve: Any, upstream: Upstream) -> AsyncIterator[Any]:
    """`await websockets()` starts a router whose model `m` is a websocket server."""
    url = await websocket_server(upstream)

    async def start(compat: str = "{}") -> Any:
        return await serve(
            f"models:\n  m:\n    cmd: {IDLE}\n    proxy: {url}\n    checkEndpoint: none\n    compat: {compat}\n"
        )

    yield start
    await upstream.runner.cleanup()  # type: ignore[attr-defined]


async def test_frames_pass_both_ways_with_subprotocol_and_close_code(websockets: Any, upstream: Upstream) -> None:
    served = await websockets()
    async with served.session.ws_connect(
        served.url + "/upstream/m/ws", protocols=("chat",), compress=15, max_msg_size=0
    ) as connection:
        assert connection.protocol == "chat"
        assert connection.compress == 15
        await connection.send_str("hällo")
        assert await connection.receive_str() == "hällo"
        large = bytes(range(256)) * 20_000
        await connection.send_bytes(large)
        assert await connection.receive_bytes() == large
        await connection.ping(b"x")
        await connection.send_str("close 4321")
        message = await connection.receive()
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4321, "as asked")
    await wait_for_no_request(served)


async def test_the_clients_close_code_reaches_the_server(websockets: Any, upstream: Upstream, until: Any) -> None:
    served = await websockets()
    async with served.session.ws_connect(served.url + "/upstream/m/ws") as connection:
        await connection.close(code=4000)
    await until(lambda: upstream.closed == [4000])  # type: ignore[attr-defined]
    await wait_for_no_request(served)


async def test_an_upgrade_that_the_server_declines_is_an_ordinary_answer(websockets: Any) -> None:
    served = await websockets()
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await served.session.ws_connect(served.url + "/upstream/m/none")
    assert caught.value.status == 404


async def test_ignored_websockets_neither_load_a_model_nor_count(websockets: Any) -> None:
    served = await websockets("{ignoreWebsockets: true}")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await served.session.ws_connect(served.url + "/upstream/m/ws")
    assert (caught.value.status, served.state("m")) == (409, "stopped")
    await served.router.load("m")
    async with served.session.ws_connect(served.url + "/upstream/m/ws") as connection:
        await connection.send_str("a")
        assert await connection.receive_str() == "a"
        assert served.router.owner.scheduler.in_flight("m") == 0
