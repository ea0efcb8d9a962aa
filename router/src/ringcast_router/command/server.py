"""The router's HTTP server: it listens, and comes to its end in order."""

import asyncio
import logging
import ssl
from typing import Self

from aiohttp import web

from ringcast_router.front.app import make_app
from ringcast_router.router import Router

log = logging.getLogger(__name__)

DRAIN = 20.0
"""Seconds that requests in flight may take to end when the router shuts down; then they are cut off."""


class Server:
    """A router that listens on an address. Made by `start`. Event loop's thread only.

    Attributes:
        url: Where clients reach it, such as `http://127.0.0.1:8080`.
    """

    def __init__(self, router: Router, runner: web.AppRunner, url: str) -> None:
        self.router = router
        self.url = url
        self._runner = runner
        self._hurried = asyncio.Event()

    @classmethod
    async def start(cls, router: Router, host: str, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Listen.

        Args:
            router: The router, started. The server closes it.
            host: An address or a host name; "" means every interface.
            port: The port; 0 lets the system choose one.
            tls: With it clients speak HTTPS.

        Raises:
            OSError: Nobody can listen there: the port is in use, or needs more rights.
        """
        # A client that leaves must end its request: aiohttp cancels handlers only where it is told to.
        runner = web.AppRunner(
            make_app(router),
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            shutdown_timeout=DRAIN,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host or None, port, ssl_context=tls, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        name = f"[{host}]" if ":" in host else host or "0.0.0.0"
        scheme = "http" if tls is None else "https"
        return cls(router, runner, f"{scheme}://{name}:{runner.addresses[0][1]}")

    async def close(self, timeout: float = 30.0) -> None:
        """Stop listening, let requests in flight end, then stop all model servers.

        Args:
            timeout: Seconds that all of this may take. Then it is done by `hurry`.
        """
        self.router.shutdown()  # what waits is refused, endless answers end
        orderly = asyncio.create_task(self._close())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({orderly, hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not orderly.done():
            log.warning("cutting off the requests in flight, and killing the model servers")
            orderly.cancel()
            servers = self.router.processes.values()
            await asyncio.gather(*(server.stop(grace=0) for server in servers), orderly, return_exceptions=True)
            orderly = asyncio.create_task(self._close())
        await orderly

    def hurry(self) -> None:
        """Have `close` wait no longer for requests and servers."""
        self._hurried.set()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self.router.close()
