"""Passes a request on to a model's server, and its answer back, as the bytes come.

aiohttp's defaults are those of a client that wants whole documents: 100 connections, 5 minutes in all, answers
decompressed, redirects followed, cookies kept. All that would break a router is set by name here.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, istr
from yarl import URL

from ringcast_router.config.model import NOTHING, Model, Timeouts
from ringcast_router.errors import Refused
from ringcast_router.front.ahead import ReadAhead
from ringcast_router.front.body import Outgoing
from ringcast_router.front.connections import IdleClosed, ServerRequest, connector
from ringcast_router.front.keys import ROUTER
from ringcast_router.processes.health import OURS

log = logging.getLogger(__name__)

Sent = bytes | Outgoing | ReadAhead | None
"""What is sent as the body of a request: all of it, from a file, as it comes from the client, or nothing."""

# What belongs to one connection and is not passed on, in either direction (RFC 9110, 7.6.1). Expect is answered by
# this server: its client is told to go on before the body is read. The length is set anew.
_OF_CONNECTION = (
    hdrs.CONNECTION,
    hdrs.KEEP_ALIVE,
    hdrs.PROXY_AUTHENTICATE,
    hdrs.PROXY_AUTHORIZATION,
    istr("Proxy-Connection"),
    hdrs.TE,
    hdrs.TRAILER,
    hdrs.TRANSFER_ENCODING,
    hdrs.UPGRADE,
)
_FOR_EVER = 30 * 86400.0  # seconds that stand for a time-out of 0, which means none

_BROKEN = (aiohttp.ClientError, OSError, TimeoutError)


class Connections:
    """The connections to the models' servers: client sessions for each set of time-outs. Event loop's thread only."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[Timeouts, bool], aiohttp.ClientSession] = {}

    def session(self, timeouts: Timeouts, *, fresh: bool = False) -> aiohttp.ClientSession:
        """Return the session whose connections have these time-outs; with `fresh`, none that was used before."""
        session = self._sessions.get((timeouts, fresh))
        if session is None:
            session = self._sessions[timeouts, fresh] = _make_session(timeouts, fresh)
        return session

    async def close(self) -> None:
        """Close all connections."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        await asyncio.gather(*(session.close() for session in sessions))


_CONNECTIONS = web.AppKey("connections", Connections)


def install(app: web.Application) -> None:
    """Give an application its connections; they are closed when the application is."""

    async def close(app: web.Application) -> None:
        await app[_CONNECTIONS].close()

    app[_CONNECTIONS] = Connections()
    app.on_cleanup.append(close)


@contextlib.asynccontextmanager
async def body_of(request: web.Request) -> AsyncIterator[Sent]:
    """Give the body of a request that is passed on as it comes: all of it where it has come already."""
    content = request.content
    if not request.body_exists:
        yield None
    elif content.is_eof() and content.exception() is None:
        yield content.read_nowait()
    else:
        ahead = ReadAhead(content)
        try:
            yield ahead
        finally:
            await ahead.close()


async def forward(request: web.Request, model: Model, path: str, body: Sent) -> web.StreamResponse:
    """Pass a request on to a model's server, and its answer to the client.

    Where the server breaks off in the middle of its answer, the client's connection is closed without the end that
    its protocol asks for, so that no client takes the half for the whole. Where the client leaves, the caller's task is
    cancelled (or the next write fails), and with it the connection to the server is closed.

    Args:
        request: The client's request.
        model: The model; its server must be ready.
        path: The path and query to ask the server for, encoded.
        body: What to send.

    Returns:
        The answer, which is sent already.

    Raises:
        Refused: The server cannot be reached or broke off before its answer began (502), or took longer than
            `timeouts.responseHeader` for its head (504), or the body cannot be read from its file (500).
    """
    upstream = await ask(request, model, path, body)
    del body  # it is sent, and the answer can take an hour
    try:
        return await answer_with(request, model, upstream)
    finally:
        upstream.release()


async def ask(
    request: web.Request, model: Model, path: str, body: Sent, *, change: Mapping[str, str | None] = NOTHING
) -> aiohttp.ClientResponse:
    """Send a request to a model's server, and return its answer as soon as its head is here. See `forward`.

    The caller must call the answer's `release` in every case. An answer that is not read to its end closes its
    connection then, which tells the server that nobody wants the rest.

    Args:
        request: The client's request.
        model: The model; its server must be ready.
        path: The path and query to ask the server for, encoded.
        body: What to send.
        change: Headers of the client that become others, or (None) are not passed on.

    Raises:
        Refused: As `forward` does.
    """
    connections = request.app[_CONNECTIONS]
    url = URL(model.proxy.rstrip("/") + path, encoded=True)
    what = request.method, url, _request_headers(request, body, change), body, model.timeouts.response_header
    try:
        try:
            answer = await _send(connections.session(model.timeouts), *what)
        except (IdleClosed, aiohttp.ClientConnectionResetError):
            # The server closed a kept connection as the request was on its way, most likely unread. Where the server
            # did read it, it is done twice: inference has no effect that a second time would spoil.
            if isinstance(body, ReadAhead) or (isinstance(body, Outgoing) and not body.keep()):
                raise
            answer = await _send(connections.session(model.timeouts, fresh=True), *what)
    except _BROKEN as error:
        cause = error.__cause__  # where the body could not be read, which is not the server's fault
        if isinstance(cause, web.RequestPayloadError):
            raise Refused(400, f"the body breaks off: {cause}") from None
        if isinstance(cause, Refused):
            raise cause from None
        raise _unreachable(model, error) from None
    strange = ""
    if answer.status == 101 and hdrs.UPGRADE not in change:
        strange = "changed to another protocol, which nobody asked for"
    elif answer.status < 100:
        strange = f"answered with status {answer.status}, which is none"
    if strange:
        answer.close()
        message = f"{model.id}: its server {strange}"
        raise Refused(502, message, type="server_error", code="upstream_error")
    return answer


async def answer_with(request: web.Request, model: Model, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Answer a client with what a model's server answers. Returns when the client has it, or has left."""
    if upstream.content.is_eof() and (body := upstream.content.read_nowait()):
        # All of it came with its head: it goes out with its head, in one write.
        whole = web.Response(
            status=upstream.status, reason=upstream.reason, headers=_passed(upstream.headers), body=body
        )
        with contextlib.suppress(ConnectionError):
            await begin(whole, request, model)
            await whole.write_eof()
        return whole
    response = response_like(upstream)
    if is_event_stream(upstream):
        response.headers["X-Accel-Buffering"] = "no"  # or nginx holds the chunks back
    with contextlib.suppress(ConnectionError):  # the client has left: nobody is there to be told
        await begin(response, request, model)
        await relay(request, model, upstream, response)
    return response


def response_like(upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Return an answer with the status and the headers of a model server's, still to be sent."""
    return web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=_passed(upstream.headers))


async def begin(response: web.StreamResponse, request: web.Request, model: Model) -> None:
    """Send the head of an answer of a model's server.

    Raises:
        ConnectionError: The client has left.
        Refused: There is a control character in a header (502).
    """
    try:
        await response.prepare(request)
    except ValueError:
        log.warning("%s: its server's answer has a control character in a header", model.id)
        message = f"{model.id}: its server's answer has a control character in a header"
        raise Refused(502, message, type="server_error", code="upstream_error") from None


async def relay(
    request: web.Request, model: Model, upstream: aiohttp.ClientResponse, response: web.StreamResponse
) -> None:
    """Pass the body of an answer on, chunk by chunk as they come.

    Raises:
        ConnectionError: The client has left.
    """
    content = upstream.content
    while True:
        try:
            chunk = await content.readany()
        except _BROKEN as error:
            log.warning("%s: its server broke off in the middle of an answer: %s", model.id, error)
            cut_off(request)
            return
        if not chunk:
            return
        await response.write(chunk)


def cut_off(request: web.Request) -> None:
    """Close a client's connection so that an answer that has begun cannot be taken for a whole one."""
    transport = request.transport
    if transport is None:
        return
    if request.version >= aiohttp.HttpVersion11:
        transport.close()  # what is written goes out; the last chunk, or the rest of the length, is missing
        return
    # For an older client the end of the connection is the end of the answer; only a reset tells it of a break.
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def is_event_stream(upstream: aiohttp.ClientResponse) -> bool:
    """Say whether an answer is a stream of server-sent events."""
    return upstream.headers.get("Content-Type", "").startswith("text/event-stream")


async def _send(
    session: aiohttp.ClientSession, method: str, url: URL, headers: Mapping[str, str], body: Sent, within: int
) -> aiohttp.ClientResponse:
    """Send a request; unless `within` is 0, the head of its answer must be here so many seconds after the body."""
    if not within:
        return await session.request(method, url, headers=headers, allow_redirects=False, data=body)
    try:
        async with asyncio.timeout(None) as until_head:

            def begin() -> None:
                with contextlib.suppress(RuntimeError):  # the head was here before the body was sent
                    until_head.reschedule(asyncio.get_running_loop().time() + within)

            if body is None or isinstance(body, bytes):
                begin()
                data: Any = body
            else:
                data = _followed_by(begin, body)
            return await session.request(method, url, headers=headers, allow_redirects=False, data=data)
    except TimeoutError:
        if until_head.expired():
            message = f"the model's server sent no answer within {within} s"
            raise Refused(504, message, type="server_error", code="upstream_timeout") from None
        raise


async def _followed_by(end: Callable[[], None], body: Outgoing | ReadAhead) -> AsyncIterator[bytes]:
    async for chunk in body:
        yield chunk
    end()


def _request_headers(request: web.Request, body: Sent, change: Mapping[str, str | None]) -> CIMultiDict[str]:
    headers = _passed(request.headers)
    headers.popall(hdrs.EXPECT, None)
    headers.popall(hdrs.CONTENT_LENGTH, None)
    if request.app[ROUTER].config.keys:  # the credentials are the router's own
        headers.popall(hdrs.AUTHORIZATION, None)
        headers.popall("x-api-key", None)
    for name, value in change.items():
        headers.popall(name, None)
        if value is not None:
            headers[name] = value
    if isinstance(body, Outgoing):
        headers[hdrs.CONTENT_LENGTH] = str(body.size)
    elif isinstance(body, ReadAhead) and hdrs.CONTENT_LENGTH in request.headers:
        headers[hdrs.CONTENT_LENGTH] = request.headers[hdrs.CONTENT_LENGTH]
    if remote := request.remote:
        headers[hdrs.X_FORWARDED_FOR] = ", ".join([*headers.getall(hdrs.X_FORWARDED_FOR, ()), remote])
    headers.setdefault(hdrs.X_FORWARDED_PROTO, request.scheme)
    return headers


def _passed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return a copy of headers without those of the connection, and without those that `Connection` names."""
    passed = CIMultiDict(headers)
    for options in passed.getall(hdrs.CONNECTION, ()):
        for option in options.split(","):
            if (name := option.strip()) and name.lower() not in ("keep-alive", "close"):
                passed.popall(name, None)
    for name in _OF_CONNECTION:
        passed.popall(name, None)
    return passed


def _unreachable(model: Model, error: BaseException) -> Refused:
    if isinstance(error, OSError) and error.errno in OURS:
        message = f"the router cannot connect to {model.id}: {os.strerror(error.errno)}"
        log.error("%s", message)
        return Refused(503, message, type="server_error", code="overloaded", retry_after=1)
    log.warning("%s: its server did not answer: %s: %s", model.id, type(error).__name__, error)
    if isinstance(error, aiohttp.ClientConnectorError):
        what = "cannot be reached"
    elif isinstance(error, TimeoutError):
        what = "took too long to accept the connection"
    else:
        what = "broke off before it answered"
    return Refused(502, f"{model.id}: its server {what}", type="server_error", code="upstream_error")


def _make_session(timeouts: Timeouts, fresh: bool) -> aiohttp.ClientSession:
    def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _name, _address = address
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        if timeouts.keepalive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):  # macOS has TCP_KEEPALIVE for KEEPIDLE
                if hasattr(socket, option):
                    made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), timeouts.keepalive)
        return made

    # aiohttp counts the TLS handshake into the time to connect.
    connect = timeouts.connect + timeouts.tls_handshake if timeouts.connect else None
    return aiohttp.ClientSession(
        connector=connector(
            limit=0,
            limit_per_host=0,
            force_close=fresh,
            keepalive_timeout=None if fresh else timeouts.idle_conn or _FOR_EVER,
            socket_factory=make_socket,
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect, sock_read=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=ServerRequest,
        trust_env=False,
        max_line_size=65536,
        max_field_size=65536,
    )
