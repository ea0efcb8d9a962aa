"""`AsyncIOEventEmitter`, as in `pyee.asyncio`."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, ensure_future, iscoroutine, wait
from collections.abc import Callable
from functools import partial
from typing import Any

from ringcast.compat.pyee.base import EventEmitter

__all__ = ["AsyncIOEventEmitter"]


class AsyncIOEventEmitter(EventEmitter):
    """An emitter whose listeners may be `async def` functions, or return futures of asyncio.

    `emit` does not wait for them: a coroutine becomes a task at once, in a copy of the context of `emit`. The emitter
    holds the task until it is done. What a listener raises, be it `async` or not, is emitted as `error`; a cancelled
    task is no error.

    Listeners may be added and removed in any thread. `emit`, `cancel` and `wait_for_complete` belong in the thread of
    the event loop, as tasks do.
    """

    def __init__(self, loop: AbstractEventLoop | None = None) -> None:
        """Make an emitter.

        Args:
            loop: where the tasks run; without it, in the loop that runs when `emit` is called.
        """
        super().__init__()
        self._loop = loop
        self._waiting: set[Future[Any]] = set()

    def _emit_run(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            result = f(*args, **kwargs)
        except Exception as error:
            self.emit("error", error)
            return
        if iscoroutine(result):
            try:
                future: Future[Any] = ensure_future(result, loop=self._loop)
            except BaseException:
                result.close()  # without a loop it would never run
                raise
        elif isinstance(result, Future):
            future = result
        else:
            return
        self._waiting.add(future)
        future.add_done_callback(partial(_done, self))

    async def wait_for_complete(self) -> None:
        """Return when the tasks that there are now are done. What they raise is not raised here.

        Not to be awaited in a listener, which would wait for itself.
        """
        if waiting := list(self._waiting):
            await wait(waiting)

    def cancel(self) -> None:
        """Cancel all tasks, and let go of them."""
        for future in list(self._waiting):
            future.cancel()
        self._waiting.clear()

    @property
    def complete(self) -> bool:
        """Whether there is no task that is not done."""
        return not self._waiting


def _done(emitter: AsyncIOEventEmitter, future: Future[Any]) -> None:
    emitter._waiting.discard(future)
    if not future.cancelled() and (error := future.exception()) is not None:
        emitter.emit("error", error)
