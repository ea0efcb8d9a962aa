"""The router's HTTP server: it listens, and comes to its end in order."""

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Any, Self

from aiohttp import web

from ringcast_router.front.app import make_app
from ringcast_router.front.body import find_folder
from ringcast_router.front.connections import ClientRunner
from ringcast_router.router import Router

log = logging.getLogger(__name__)

DRAIN = 10.0
"""Half of the seconds that requests in flight may take to end when the router shuts down: aiohttp waits twice."""

ARRIVE = 0.05
"""Seconds that a connection which was just accepted has for its request, when the router begins to shut down."""

BACKLOG = 1024
"""How many connections may wait to be accepted."""

FULL = 10.0
"""Seconds between two lines about connections that are not accepted."""


class Server:
    """A router that listens on an address. Made by `start`. Event loop's thread only.

    Attributes:
        router: The router.
        url: Where clients reach it, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, router: Router, runner: web.AppRunner, listener: socket.socket, url: str) -> None:
        self.router = router
        self.url = url
        self._runner = runner
        self._listener = listener
        self._hurried = asyncio.Event()

    @classmethod
    async def start(cls, router: Router, host: str, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Start the router, and listen.

        Args:
            router: The router, not started. The server starts it and closes it.
            host: An address or a host name; "" means every interface.
            port: The port; 0 lets the system choose one.
            tls: With it clients speak HTTPS.

        Raises:
            OSError: Nobody can listen there: the port is in use, or needs more rights, or there is no such host.
                Whatever is raised, the router is closed.
        """
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(router.close)
            listener = _bind(host, port)
            undo.callback(listener.close)
            runner = ClientRunner(
                make_app(router),
                handler_cancellation=True,  # a client that leaves ends its request; aiohttp does not by itself
                auto_decompress=False,  # bodies are passed on as they come
                access_log=None,
                shutdown_timeout=DRAIN,
            )
            undo.push_async_callback(runner.cleanup)
            find_folder()
            _tell_once_of_many(asyncio.get_running_loop())
            await router.start()
            await runner.setup()
            await web.SockSite(runner, listener, ssl_context=tls).start()
            undo.pop_all()
        name = f"[{host}]" if ":" in host else host or "0.0.0.0"
        scheme = "http" if tls is None else "https"
        return cls(router, runner, listener, f"{scheme}://{name}:{listener.getsockname()[1]}")

    async def close(self, within: float = 30.0) -> None:
        """Stop listening, let requests in flight end, then stop all model servers.

        Args:
            within: Seconds that all of this may take. What is left then is cut off, as by `hurry`.
        """
        self.router.shutdown()  # what waits is refused, endless answers end
        orderly = asyncio.create_task(self._close())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({orderly, hurried}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not orderly.done():
            log.warning("cutting off the requests in flight, and killing the model servers")
            orderly.cancel()
            servers = self.router.processes.values()
            await asyncio.gather(*(server.stop(grace=0) for server in servers), orderly, return_exceptions=True)
            if self._runner.server is not None:
                await self._runner.server.shutdown(0.1)
            orderly = asyncio.create_task(self._close())
        await orderly

    def hurry(self) -> None:
        """Have `close` wait no longer for requests and servers."""
        self._hurried.set()

    async def _stop_accepting(self) -> None:
        """Have each connection that was accepted be read, or refused, and none be forgotten.

        asyncio forgets a connection that it has accepted and not yet attached to its server when the server closes
        (CPython's gh-109564). aiohttp closes connections without a request, and never reads the request of one that
        was attached a moment before. Both clients would wait for an answer until they give up.
        """
        if self._listener.fileno() < 0:  # `close` was cut off after this
            return
        with contextlib.suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().remove_reader(self._listener)
        await asyncio.sleep(ARRIVE)

    async def _close(self) -> None:
        await self._stop_accepting()
        await self._runner.cleanup()
        await self.router.close()


def _tell_once_of_many(loop: asyncio.AbstractEventLoop) -> None:
    """Have connections that cannot be accepted told of in a line, every FULL seconds.

    asyncio tells of each with a traceback: on Python 3.11 as often as BACKLOG says, and a second later again.
    """
    quiet_until = 0.0

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal quiet_until
        if "out of system resource" not in context.get("message", ""):
            loop.default_exception_handler(context)
        elif loop.time() >= quiet_until:
            quiet_until = loop.time() + FULL
            log.error("connections are not accepted for want of files: %s", context.get("exception"))

    loop.set_exception_handler(handle)


def _bind(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
