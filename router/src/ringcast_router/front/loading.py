"""The stream that tells a client of chat completions that its model is being loaded, and then gives the answer.

With `sendLoadingState` a request that has to wait is answered with 200 at once. While it waits, chunks of
`reasoning_content` say what goes on; then the events of the model's server follow. What fails after that can be told
only within the stream: as an event with `error`, which OpenAI's clients raise.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from ringcast_router.config.model import Model
from ringcast_router.errors import Refused
from ringcast_router.front.answers import error_object
from ringcast_router.front.forward import Sent, ask, cut_off, is_event_stream, relay

if TYPE_CHECKING:
    from ringcast_router.pending import Pending

_TICK = 1.0  # seconds between two signs of life
_ERROR_TIME = 5.0  # seconds that the whole of such an error may take
_MAX_ERROR = 1 << 16  # bytes of an error of the model's server that are passed on


async def loading_stream(
    request: web.Request, pending: "Pending", path: str, sent: Callable[[Model], Sent]
) -> tuple[web.StreamResponse, int]:
    """Answer a request that waits with a stream: what it waits for, then the answer of the model's server.

    Args:
        request: The client's request.
        pending: The request on its way; the caller ends it.
        path: The path and query to ask the model's server for, encoded.
        sent: Returns what the model's server gets.

    Returns:
        The answer, which is sent already, and the status that the request would have been answered with had the stream
        not begun with 200.
    """
    status = 200
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    with contextlib.suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        try:
            model = await _tell_of_waiting(response, pending)
            # The stream has begun uncompressed, and must go on so.
            upstream = await ask(request, model, path, sent(model), change={"Accept-Encoding": None})
            try:
                if upstream.status == 200 and is_event_stream(upstream):
                    await relay(request, model, upstream, response)
                else:
                    status = 502 if upstream.status == 200 else upstream.status
                    await response.write(await _error_in(upstream))
            finally:
                upstream.release()
        except Refused as refused:
            status = refused.status
            await response.write(_event(error_object(refused, request)))
        except aiohttp.ClientError:
            status = 502
            cut_off(request)
    return response, status


async def _tell_of_waiting(response: web.StreamResponse, pending: "Pending") -> Model:
    """Say what the request waits for until it has its server; return the model as it is defined then."""
    began = time.monotonic()
    waiting = asyncio.ensure_future(pending.granted())
    try:
        await _think(response, pending, f"Loading {pending.model}\n")
        told = 0
        while not waiting.done():
            position = pending.position
            if position and position != told:
                await _think(response, pending, f"\nQueue position: #{position}\n")
                told = position
            await asyncio.wait({waiting}, timeout=_TICK)
            if not waiting.done():
                await _think(response, pending, ".")
        model: Model = (await waiting).model
        await _think(response, pending, f"\nReady after {time.monotonic() - began:.1f} s\n\n")
        return model
    finally:
        if not waiting.cancel() and not waiting.cancelled():
            waiting.exception()  # the client left when the answer came: nobody else looks at it


async def _think(response: web.StreamResponse, pending: "Pending", text: str) -> None:
    chunk = {
        "id": f"ringcast-{pending.id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": pending.model,
        "choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}],
    }
    await response.write(_event(chunk))


def _event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


async def _error_in(upstream: aiohttp.ClientResponse) -> bytes:
    """Return what a server answered that did not stream, as an event: its own error where it has one."""
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ERROR_TIME):
            while len(body) < _MAX_ERROR and (piece := await upstream.content.readany()):
                body += piece
    text = body[:_MAX_ERROR].decode(errors="replace")
    try:
        answer = json.loads(text)
        if isinstance(answer, dict) and answer.get("error"):
            return _event(answer)
    except (ValueError, RecursionError):
        pass  # no JSON, or nested too deeply: it is told as text
    message = f"the model's server answered {upstream.status} instead of a stream: {text[:1000]}"
    return _event({"error": {"message": message, "type": "server_error", "param": None, "code": "upstream_error"}})
