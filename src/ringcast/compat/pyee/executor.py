"""`ExecutorEventEmitter`, as in `pyee.executor`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

from ringcast.compat.pyee.base import EventEmitter

__all__ = ["ExecutorEventEmitter"]


class ExecutorEventEmitter(EventEmitter):
    """An emitter whose listeners run in an executor of `concurrent.futures`, each call a task of its own.

    `emit` does not wait for them. An exception of a listener is emitted as `error`. As a context manager the emitter
    shuts its executor down. Any thread may call any method.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        """Make an emitter.

        Args:
            executor: where the listeners run; by default a ThreadPoolExecutor of the emitter's own.
        """
        super().__init__()
        self._executor = ThreadPoolExecutor() if executor is None else executor

    def _emit_run(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._executor.submit(f, *args, **kwargs).add_done_callback(partial(_done, self))

    def shutdown(self, wait: bool = True) -> None:
        """Shut the executor down.

        Args:
            wait: whether to return only when the calls under way, and those that wait, are done.
        """
        self._executor.shutdown(wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


def _done(emitter: ExecutorEventEmitter, future: Future[Any]) -> None:
    if future.cancelled():
        return
    error = future.exception()
    if isinstance(error, Exception):
        emitter.emit("error", error)
    elif error is not None:
        raise error  # KeyboardInterrupt and the like: the executor reports them
