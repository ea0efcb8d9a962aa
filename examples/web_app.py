"""A web application that streams events to browsers, as server-sent events.

    pip install 'ringcast[examples]'
    python examples/web_app.py              then: curl -N http://127.0.0.1:8000/ticks?symbol=ABC

Shows `bus.stream`: an `async for` over what other threads publish. Every client has a stream of its own, of the last
100 ticks: a client that reads too slowly misses the oldest (`policy="drop_oldest"`), is told how many (`lag`), and
slows down neither the publisher nor the other clients. A client that goes away ends its stream.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ringcast import Dispatcher, Stream

BACKLOG = 100  # ticks that may wait for a client


@dataclass(frozen=True, slots=True)
class Tick:
    """A price."""

    symbol: str
    price: float


class EventStream(StreamingResponse):
    """Sends a stream of ticks as server-sent events, and cancels it when the client has gone.

    Args:
        ticks: the stream; the response cancels it in the end.
    """

    def __init__(self, ticks: Stream[Tick]) -> None:
        super().__init__(self._messages(), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.ticks = ticks

    async def _messages(self) -> AsyncIterator[str]:
        yield ": listening\n\n"  # a comment: the client knows that it is subscribed, and hears all from now on
        async for tick in self.ticks:
            message = f"data: {json.dumps(asdict(tick))}\n\n"
            if missed := self.ticks.lag:
                message = f"event: missed\ndata: {missed}\n\n" + message
            yield message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. However that ends, by the client, the server or an error, the stream is cancelled here."""
        async with self.ticks:
            await super().__call__(scope, receive, send)


def make_app(bus: Dispatcher) -> Starlette:
    """Make the application.

    Args:
        bus: where the ticks are published, from any thread.

    Returns:
        The ASGI application, with the routes `/ticks` (all, or those of `?symbol=`) and `/clients` (how many).
    """

    async def ticks(request: Request) -> Response:
        symbol = request.query_params.get("symbol")
        wanted = None if symbol is None else lambda tick: tick.symbol == symbol
        return EventStream(bus.stream(Tick, max_queue=BACKLOG, policy="drop_oldest", where=wanted))

    async def clients(request: Request) -> Response:
        return PlainTextResponse(str(bus.count(Tick)))

    return Starlette(routes=[Route("/ticks", ticks), Route("/clients", clients)])


def publish_ticks(bus: Dispatcher, stop: threading.Event) -> None:
    """Publish ten ticks a second until told to stop. Runs in a thread of its own."""
    for number in itertools.count():
        if stop.wait(0.1):
            return
        bus.publish(Tick("ABC" if number % 2 else "XYZ", 100 + number % 7))


def main() -> None:
    """Serve on port 8000 of this machine until Ctrl-C."""
    stop = threading.Event()
    with Dispatcher() as bus:
        publisher = threading.Thread(target=publish_ticks, args=(bus, stop))
        publisher.start()
        try:
            # Streams do not end by themselves: on Ctrl-C the clients that are left are sent away after a second.
            uvicorn.run(make_app(bus), port=8000, timeout_graceful_shutdown=1)
        finally:
            stop.set()
            publisher.join()


if __name__ == "__main__":
    main()
