"""What goes on, told to readers as it happens: `/api/events` as server-sent events, `/logs` and `/logs/stream` as text.

Each reader has Ringcast streams of its own. What only says "look again" (states, requests in flight) comes by the
policy `latest`; output of the servers comes by `drop_oldest`, and a line tells the reader where some is missing. So a
reader that stops reading holds a bounded number of events, and neither the router nor another reader waits for it.
"""

import asyncio
import codecs
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import web
from ringcast import Stream

from ringcast_router.errors import Refused, quoted
from ringcast_router.events import (
    ConfigReloaded,
    InFlightChanged,
    LogLines,
    ModelStateChanged,
    ProfileChanged,
    RequestFinished,
    SwapFinished,
    SwapStarted,
)
from ringcast_router.front.keys import ROUTER
from ringcast_router.front.listing import model_status
from ringcast_router.logs import MAX_BEHIND
from ringcast_router.router import Router

PACE = 0.25  # seconds between two snapshots of the requests in flight

E = TypeVar("E")
Send = Callable[[str, Any], Awaitable[None]]

_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would hold the lines back
}


def routes() -> list[web.RouteDef]:
    """Return the routes of this module."""
    return [
        web.get("/api/events", events),
        web.get("/logs", logs),
        web.get("/logs/stream", log_stream),
        web.get("/logs/stream/{source:(?s:.+)}", log_stream),
    ]


# /api/events


async def events(request: web.Request) -> web.StreamResponse:
    """Send all that goes on until the client leaves, in the original's form.

    Each message is `event:message` and `data:{"type": ..., "data": ...}`, where `data` is JSON once more, as a string.
    """
    router = request.app[ROUTER]
    response = web.StreamResponse(headers=_HEADERS)
    response.content_type = "text/event-stream"

    writing = asyncio.Lock()  # one write at a time waits for the client

    async def send(kind: str, data: Any) -> None:
        message = json.dumps({"type": kind, "data": json.dumps(data, separators=(",", ":"))}, separators=(",", ":"))
        async with writing:
            await response.write(f"event:message\ndata:{message}\n\n".encode())

    feed = _Feed(router, send)
    readers = feed.readers()  # before the snapshot: what changes after it is not missed
    return await _serve(request, response, feed.snapshot(), readers)


class _Feed:
    """What one reader of `/api/events` is told."""

    def __init__(self, router: Router, send: Send) -> None:
        self._router = router
        self._send = send
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}

    def readers(self) -> list[Coroutine[Any, Any, None]]:
        """Subscribe, and return what is to run until the reader leaves."""
        stream = self._router.bus.stream
        swaps: list[Stream[Any]] = [
            stream(SwapStarted, policy="drop_oldest", max_queue=MAX_BEHIND),
            stream(SwapFinished, policy="drop_oldest", max_queue=MAX_BEHIND),
        ]
        return [
            _each(stream(ModelStateChanged, policy="latest"), self._models),
            _each(stream(ConfigReloaded, policy="latest"), self._models),
            _each(stream(ProfileChanged, policy="latest"), self._profile),
            _each(stream(RequestFinished, policy="latest"), self._activity),
            _each(stream(InFlightChanged, policy="latest"), self._in_flight, pace=PACE),
            _each(self._router.log_bus.stream(LogLines, policy="drop_oldest", max_queue=MAX_BEHIND), self._log),
            *(_each(of_swaps, self._swap) for of_swaps in swaps),
        ]

    async def snapshot(self) -> None:
        """Send how things are now."""
        logs = self._router.logs
        histories = {source: logs.history(source).decode(errors="replace") for source in ("proxy", "upstream")}
        for source, text in histories.items():
            await self._send("logData", {"source": source, "data": text})
        await self._models()
        await self._send("uiConfig", self._router.config.resolved().get("ui", {}))
        await self._send("profileChanged", {"active": None})
        await self._in_flight()

    async def _models(self, event: object = None, missed: int = 0) -> None:
        await self._send("modelStatus", model_status(self._router))

    async def _profile(self, event: ProfileChanged, missed: int) -> None:
        await self._send("profileChanged", {"active": event.active or None})
        await self._models()

    async def _activity(self, event: RequestFinished, missed: int) -> None:
        await self._send("activity", {"id": event.request})

    async def _in_flight(self, event: object = None, missed: int = 0) -> None:
        await self._send("inflight", {"operation": "snapshot", "requests": in_flight(self._router)})

    async def _swap(self, event: SwapStarted | SwapFinished, missed: int) -> None:
        # Not in the original: the decision log. Its clients pass over types that they do not know.
        kind = "swapStarted" if isinstance(event, SwapStarted) else "swapFinished"
        await self._send(kind, dataclasses.asdict(event))

    async def _log(self, event: LogLines, missed: int) -> None:
        source = "proxy" if event.source == "proxy" else "upstream"
        if missed:
            self._decoders.clear()
            await self._send("logData", {"source": source, "data": _marker(missed).decode()})
        # A character's bytes may come in two pieces; pieces of different servers alternate.
        decoder = self._decoders.get(event.source)
        if decoder is None:
            decoder = self._decoders[event.source] = codecs.getincrementaldecoder("utf-8")("replace")
        await self._send("logData", {"source": source, "data": decoder.decode(event.data)})


def in_flight(router: Router) -> list[dict[str, Any]]:
    """Return the requests that wait or are being served, in the order in which they came."""
    epoch = time.time() - time.monotonic()
    return [
        {
            "id": str(pending.id),
            "timestamp": datetime.fromtimestamp(epoch + pending.request.arrival, UTC).isoformat(),
            "model": pending.model,
            "granted": pending.is_granted,
        }
        for pending in router.owner.pending()
    ]


# /logs


async def logs(request: web.Request) -> web.Response:
    """Answer with the output so far: the router's and that of all models."""
    return web.Response(body=request.app[ROUTER].logs.history(""), content_type="text/plain")


async def log_stream(request: web.Request) -> web.StreamResponse:
    """Send the output so far (not with `?no-history`), then what comes, until the client leaves.

    Raises:
        Refused: There is no such source; the message names those that there are.
    """
    router = request.app[ROUTER]
    source = _source(router, request.match_info.get("source", ""))
    response = web.StreamResponse(headers=_HEADERS)
    response.content_type = "text/plain"
    stream = router.log_bus.stream(LogLines, policy="drop_oldest", max_queue=MAX_BEHIND, where=_of(source))
    history = b"" if "no-history" in request.query else router.logs.history(source)

    async def snapshot() -> None:
        if history:
            await response.write(history)

    async def write(event: LogLines, missed: int) -> None:
        await response.write(_marker(missed) + event.data if missed else event.data)

    return await _serve(request, response, snapshot(), [_each(stream, write)])


def _source(router: Router, name: str) -> str:
    """Return the source of the log store that a client means: a model may be named by an alias."""
    if name in ("", "proxy", "upstream"):
        return name
    model = router.config.model_id(name)
    if model is None:
        known = ", ".join(["proxy", "upstream", *sorted(router.config.models)])
        raise Refused(400, f"there is no log named {quoted(name)}; there are: {known}", code="log_not_found")
    return model


def _of(source: str) -> Callable[[LogLines], bool] | None:
    """Return what picks the events of a source out of all; None where all are wanted."""
    if not source:
        return None
    if source == "upstream":
        return lambda event: event.source != "proxy"
    return lambda event: event.source == source


# What both have in common


def _marker(missed: int) -> bytes:
    return f"\n[{missed} pieces of output are missing here: this reader was too slow]\n".encode()


async def _each(stream: Stream[E], handle: Callable[[E, int], Awaitable[None]], *, pace: float = 0.0) -> None:
    """Hand each event on, with the number of events that were dropped just before it.

    Args:
        stream: Ends with this call.
        handle: What is done with an event.
        pace: Seconds to pause after each, in which events by `latest` come to one.
    """
    async with stream:
        async for event in stream:
            await handle(event, stream.lag)
            if pace:
                await asyncio.sleep(pace)


async def _serve(
    request: web.Request,
    response: web.StreamResponse,
    snapshot: Coroutine[Any, Any, None],
    readers: list[Coroutine[Any, Any, None]],
) -> web.StreamResponse:
    """Answer with a snapshot, then with what the readers send, until the client leaves or the router closes."""
    closing = request.app[ROUTER].closing
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await snapshot
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(reader) for reader in readers]
            await closing.wait()
            for task in tasks:
                task.cancel()
        await response.write_eof()
    except* ConnectionError:
        pass  # the client has gone
    finally:
        for coroutine in (snapshot, *readers):
            coroutine.close()  # what was never begun
    return response
