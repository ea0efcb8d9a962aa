"""A request between its arrival and its end, as those see it who serve it."""

import asyncio
from typing import TYPE_CHECKING

from ringcast_router.errors import Refused
from ringcast_router.processes import Process
from ringcast_router.scheduling.interface import Request

if TYPE_CHECKING:
    from ringcast_router.owner import Owner


class Pending:
    """One request on its way: it waits, is granted its model's server, and ends. Made by `Owner.submit`.

    The caller of `submit` must call `end` in every case: until then the request holds its place in the queue or at the
    server. Used on the event loop's thread only.

    Attributes:
        id: A number that no other request of this router has.
        model: The id of its model.
        aborted: Why it was ended by somebody else after it was granted; None where it was not. Its task is cancelled.
    """

    __slots__ = ("_ended", "_owner", "_process", "_refused", "_task", "_waiter", "aborted", "id", "model", "request")

    def __init__(self, owner: "Owner", request: Request) -> None:
        self.id = request.id
        self.model = request.model
        self.request = request
        self._owner = owner
        self._process: Process | None = None
        self._refused: Refused | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()
        self._ended = False
        self.aborted: Refused | None = None

    async def granted(self) -> Process:
        """Wait for the grant, and return the server that the request may be passed on to.

        Raises:
            Refused: The router answers the request itself.
        """
        if self._process is None and self._refused is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._refused is not None:
            raise self._refused
        assert self._process is not None
        return self._process

    @property
    def is_granted(self) -> bool:
        """Whether the request has its server."""
        return self._process is not None

    @property
    def position(self) -> int:
        """The place in the queue, from 1; 0 when the request does not wait in it."""
        return self._owner.scheduler.position(self.id)

    def end(self, status: int = 0) -> None:
        """Say that the request is over: its place goes to the next. Further calls do nothing.

        Args:
            status: The HTTP status that the client got; 0 where the client got none.
        """
        if not self._ended:
            self._ended = True
            self._owner._end(self, status)

    def abort(self, why: Refused) -> None:
        """End somebody else's request: it is refused where it waits, else the task that handed it in is cancelled.

        Args:
            why: What its client is told, unless the answer has begun.
        """
        if self._process is None:
            if self._decide(None, why):
                self.end(why.status)  # at once, or the scheduler could still grant it
        elif self._task is not None and self.aborted is None:
            self.aborted = why
            self._task.cancel()

    def _decide(self, process: Process | None, refused: Refused | None) -> bool:
        """Say what becomes of it, and return whether that was still open: the first word holds."""
        if self._process is not None or self._refused is not None:
            return False
        self._process = process
        self._refused = refused
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True
