"""Asks a model's server whether it is well: one GET on a connection of its own, as short as it can be.

The first looks at a starting server come quickly after one another, later ones slower. Somebody who does not listen yet
costs nearly nothing to ask, so the pauses stay below 40 ms there: the first answer is noticed within 50 ms. A server
that says "not yet" is asked at pauses of 2 % of the time that its load has taken so far, 250 ms at most: many servers
write a line of log for each look.
"""

import asyncio
import errno
import re
import ssl
import time
from urllib.parse import urlsplit

from ringcast_router.config.model import Model

OK = 200
FIRST_PAUSE = 0.005  # seconds
LONGEST_PAUSE = 0.04
LONGEST_PAUSE_AFTER_AN_ANSWER = 0.25
SHARE_OF_THE_LOAD = 0.02
PATIENCE = 5.0  # seconds for one look: a server that loads in its only thread takes connections and answers later
OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}  # of the router: they say nothing about the server
NO_WAY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH)  # such as to ::1 where there is no IPv6
LOCAL = ("localhost", "127.0.0.1", "::1")


class Health:
    """The health check of one server.

    Args:
        model: Its `proxy` and `check_endpoint` say what to ask.

    Attributes:
        port: The port.
        last: What the last look has met, in words.
        is_ours: Whether the last look has failed for want of something that the router needs to look.
    """

    def __init__(self, model: Model) -> None:
        url = urlsplit(model.proxy)
        self.last = "nobody has been asked"
        self.is_ours = False
        self.checks = model.check_endpoint.strip() != "none"
        self._host = url.hostname or "localhost"
        self._secure = url.scheme == "https"
        self.port = url.port or (443 if self._secure else 80)
        target = f"{url.path.rstrip('/')}/{model.check_endpoint.strip().lstrip('/')}"
        host = url.netloc.rpartition("@")[2]
        self._request = (
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
            "User-Agent: ringcast-router\r\nConnection: close\r\n\r\n"
        ).encode()

    @property
    def address(self) -> str:
        """Host and port, as text."""
        return f"{self._host}:{self.port}"

    async def until_well(self) -> None:
        """Return when the server answers with status 200."""
        began = time.monotonic()
        pause = FIRST_PAUSE
        while (status := await self.look(PATIENCE)) != OK:
            longest = LONGEST_PAUSE
            if status:
                slow = SHARE_OF_THE_LOAD * (time.monotonic() - began)
                longest = max(LONGEST_PAUSE, min(slow, LONGEST_PAUSE_AFTER_AN_ANSWER))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)

    async def look(self, within: float) -> int:
        """Ask once.

        Args:
            within: Seconds for all of it.

        Returns:
            The HTTP status, or 0 where there was no answer; `last` says more.
        """
        self.is_ours = False
        try:
            async with asyncio.timeout(within):
                status = await self._ask()
        except TimeoutError:
            self.last = f"{self.address} did not answer within {within:g} s"
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.last = f"nobody listens on {self.address}" if _is_refusal(error) else f"{self.address}: {error}"
            self.is_ours = isinstance(error, OSError) and error.errno in OURS
        else:
            self.last = f"{self.address} answered with status {status}"
            return status
        return 0

    async def is_taken(self) -> bool:
        """Whether somebody listens there already, before the server is started. Asked of this machine only."""
        if self._host not in LOCAL:
            return False
        try:
            await self._connect(1.0)
        except OSError:  # a time-out is one
            return False
        return True

    async def is_deserted(self, within: float) -> bool:
        """Whether nobody listens there any more. A server that is only busy is connected to: its system does that."""
        self.is_ours = False
        try:
            await self._connect(within)
        except OSError as error:
            if not _is_refusal(error):
                return False
        else:
            return False
        self.last = f"nobody listens on {self.address}"
        return True

    async def _connect(self, within: float) -> None:
        async with asyncio.timeout(within):
            _, writer = await asyncio.open_connection(self._host, self.port)
        writer.close()

    async def _ask(self) -> int:
        context = ssl.create_default_context() if self._secure else None
        reader, writer = await asyncio.open_connection(self._host, self.port, ssl=context)
        try:
            writer.write(self._request)
            line = await reader.readuntil(b"\n")
            version, status, *_ = line.split(None, 2)
            if not version.startswith(b"HTTP/"):
                raise ValueError("the answer is not HTTP")
            return int(status)
        finally:
            writer.close()


def _is_refusal(error: Exception) -> bool:
    """Whether a connection was refused at each address of the host that can be reached from here.

    Of several addresses asyncio tells in the text alone.
    """
    if isinstance(error, ConnectionRefusedError):
        return True
    numbers = {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
    return isinstance(error, OSError) and errno.ECONNREFUSED in numbers <= {errno.ECONNREFUSED, *NO_WAY}
