"""What aiohttp's two ends of a connection leave undone: breaks that nobody would notice, and bytes that get lost.

aiohttp tells the reader of a body neither of a chunk that is malformed, nor of a client that leaves while nobody reads
on. Both would keep a request, and with it a model, for ever. It writes headers without the bytes that are no UTF-8, and
answers some errors before an application has a say. This module depends on names that are private to aiohttp; its tests
say which.
"""

# ruff: noqa: D102 - what overrides a method of aiohttp is described there

import asyncio
import logging
import re
import select
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp import hdrs, http_writer, web
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import _EXC_SENTINEL
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from multidict import CIMultiDict

from ringcast_router.errors import Refused
from ringcast_router.front import answers

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether a client that is not read from is still there."""

IDLE_RACE: Final = 1.0
"""Seconds after its request within which a kept connection that closes counts as one that had been idle too long."""

STALLED: Final = 60.0
"""Seconds after which a server that takes no byte of an upgraded connection is given up."""

# A client's end shows up here though bytes before it are still unread. Windows has no `poll`.
_LEFT = getattr(select, "POLLRDHUP", 0) or getattr(select, "POLLHUP", 0)


class IdleClosed(aiohttp.ServerDisconnectedError):
    """A connection that had been used before was closed without a byte of an answer, soon after the request."""


class ServerConnection(ResponseHandler):
    """The router's end of a connection to a model's server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._requests = 0
        self._asked_at = 0.0

    def set_response_params(self, **params: Any) -> None:
        self._requests += 1
        self._asked_at = self._loop.time()
        super().set_response_params(**params)

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _EXC_SENTINEL) -> None:
        lost = isinstance(exc, aiohttp.ClientOSError) or (
            isinstance(exc, aiohttp.ServerDisconnectedError) and isinstance(exc.message, str)  # else: a piece of a head
        )
        if lost and self._requests > 1 and self._loop.time() - self._asked_at < IDLE_RACE:
            exc = IdleClosed()
        super().set_exception(exc, exc_cause)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._loop.call_later(STALLED, self._look, self.transport.get_write_buffer_size())

    def _look(self, waited: int) -> None:
        """Give up a server that reads nothing: its client's leaving may hide behind the bytes that nobody takes.

        Bodies are read ahead for that (`ahead.ReadAhead`), and a busy server may be late to read one. What is upgraded
        has no end, so it cannot be kept.
        """
        if self.transport is None or not self.writing_paused:
            return
        waits = self.transport.get_write_buffer_size()
        if waits == waited and self.upgraded:
            self.transport.abort()
        else:
            self._loop.call_later(STALLED, self._look, waits)

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the body is malformed"))


class ServerRequest(aiohttp.ClientRequest):
    """A request to a model's server: aiohttp adds none of the headers that the router's client did not send.

    `skip_auto_headers` does the same, and makes two dictionaries of headers for each request.
    """

    _skip_auto_headers = CIMultiDict({hdrs.CONTENT_TYPE: None})

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        pass


def connector(**options: Any) -> aiohttp.TCPConnector:
    """Return a connector whose connections are `ServerConnection`s; `options` are those of `aiohttp.TCPConnector`."""
    made = aiohttp.TCPConnector(**options)
    made._factory = partial(ServerConnection, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return made


class ClientConnection(web.RequestHandler):
    """The router's end of a connection to a client."""

    __slots__ = ("_looking",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._looking = False

    def data_received(self, data: bytes) -> None:
        queued = len(self._messages)
        super().data_received(data)
        if len(self._messages) > queued:
            self._end_broken_body()

    def _end_broken_body(self) -> None:
        """Tell the reader of a body that it is malformed: what follows a body without an end can only be an error."""
        if len(self._messages) > 1:
            payload = self._messages[-2][1]
        elif self._current_request is not None:
            payload = self._current_request.content
        else:
            return
        if not payload.is_eof():
            self._messages.pop()  # one answer is enough, and the connection is of no more use
            payload.set_exception(web.RequestPayloadError("it is malformed"))
            payload.feed_eof()
            self.close()

    def _pause_transport_reading(self) -> None:
        super()._pause_transport_reading()
        if _LEFT and not self._looking:
            self._looking = True
            self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        """Close the connection where its client has left: while it is not read from, asyncio does not notice."""
        self._looking = False
        transport = self.transport
        if transport is None or transport.is_closing() or transport.is_reading():
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), _LEFT)
        if poll.poll(0):
            transport.abort()
        else:
            self._looking = True
            self._loop.call_later(LOOK_EVERY, self._look)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        refused = _not_http(exc, self.max_line_size)
        log.debug("%s sent what is no HTTP request: %s", request.remote, refused.message)
        response = answers.answer(refused, request)
        response.force_close()
        return response


class ClientRunner(web.AppRunner):
    """Runs an application whose clients' connections are `ClientConnection`s."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            partial(answers.errors, handler=made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> ClientConnection:
        return ClientConnection(self, loop=self._loop, **self._kwargs)


def _not_http(error: HttpProcessingError, limit: int) -> Refused:
    if isinstance(error, LineTooLong):
        # aiohttp does not say what was too long; a path is what begins with a slash.
        if bytes(error.args[0][:1]) == b"/":
            return Refused(414, f"the path and query have more than {limit} bytes", code="uri_too_long")
        return Refused(431, f"a header has more than {limit} bytes", code="headers_too_large")
    if error.message.startswith("Too many headers"):
        return Refused(431, "there are too many headers", code="headers_too_large")
    sentence = error.message.split("\n", 1)[0].rstrip(":. ")
    return Refused(400, f"this is no HTTP request: {sentence[:200]}", code="bad_request")


def _head(status_line: str, headers: CIMultiDict[str]) -> bytes:
    """Return the head of a request or an answer, in bytes.

    Names and values are text, in which bytes that are no UTF-8 stand as lone surrogates. aiohttp leaves those out.

    Raises:
        ValueError: There is a control character, which could begin a header of its own.
    """
    if status_line.isascii() and all(map(str.isascii, headers.values())):
        return _ascii_head(status_line, headers)
    lines = [status_line, *(f"{name}: {value}" for name, value in headers.items())]
    if any(_CONTROL.search(line) for line in lines):
        raise ValueError("a control character in a header")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ascii_head = http_writer._serialize_headers
http_writer._serialize_headers = _head  # both ends write their heads with it, and let nobody give them another
