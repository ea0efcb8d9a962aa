"""Upgraded connections: once a model's server has agreed, the bytes pass both ways as they are.

Nothing of the new protocol is read, so frames, extensions, pings and close codes reach the other side untouched.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import StreamReader, hdrs, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter

from ringcast_router.config.model import Model
from ringcast_router.front.forward import answer_with, ask, begin, response_like

_READ_AHEAD = 1 << 16  # bytes that wait for a slow side before the quick one is paused


def is_upgrade(request: web.BaseRequest) -> bool:
    """Say whether a request asks for another protocol on its connection, such as a websocket.

    An offer of HTTP/2, which some clients make with every request, is none: it is left unanswered. So is any wish that
    comes with a body, for the body has to pass first.
    """
    if request.body_exists:
        return False
    if request.headers.get(hdrs.UPGRADE, "h2c").lower() == "h2c":
        return False
    options = {option.strip().lower() for option in request.headers.get(hdrs.CONNECTION, "").split(",")}
    return "upgrade" in options


async def forward_upgrade(request: web.Request, model: Model, path: str) -> web.StreamResponse:
    """Pass a request for an upgrade on; where the server agrees, pass bytes both ways until one side closes.

    Args:
        request: The client's request, for which `is_upgrade` is true.
        model: The model; its server must be ready.
        path: The path and query to ask the server for, encoded.

    Returns:
        The answer, which is sent already; its connection is closed.

    Raises:
        Refused: The server cannot be reached (502), or did not answer in time (504).
    """
    wish = {"Connection": "Upgrade", "Upgrade": request.headers["Upgrade"]}
    upstream = await ask(request, model, path, None, change=wish)
    try:
        connection = upstream.connection
        if upstream.status != 101 or connection is None or connection.protocol is None:
            return await answer_with(request, model, upstream)
        response = response_like(upstream)
        response.headers.update({"Connection": "Upgrade", "Upgrade": upstream.headers.get("Upgrade", wish["Upgrade"])})
        response.force_close()
        await begin(response, request, model)
        from_server, from_client = _Unparsed(connection.protocol), _Unparsed(request.protocol)
        connection.protocol.set_parser(from_server, from_server.reader)
        request.protocol.set_parser(from_client)  # type: ignore[arg-type]  # only its two methods are called
        to_server = StreamWriter(connection.protocol, asyncio.get_running_loop())
        await _first_of(_pump(from_server.reader, response.write), _pump(from_client.reader, to_server.write))
        return response
    finally:
        upstream.release()


class _Unparsed:
    """Stands where aiohttp has the parser of websocket frames, and takes the bytes as they are."""

    def __init__(self, protocol: BaseProtocol) -> None:
        self.reader = StreamReader(protocol, _READ_AHEAD, loop=asyncio.get_running_loop())

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.reader.feed_eof()


async def _pump(reader: StreamReader, write: Callable[[bytes], Awaitable[None]]) -> None:
    with contextlib.suppress(ConnectionError):  # the side that is written to has closed
        while chunk := await reader.readany():
            await write(chunk)


async def _first_of(*pumps: Awaitable[None]) -> None:
    """Wait until one ends, and end the others: who shuts down one direction ends the connection, as with nginx."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
