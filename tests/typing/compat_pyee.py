"""A program that is typed against pyee, and uses the drop-in. It is free of errors with pyee's names as well."""

import asyncio
from collections.abc import Callable
from typing import Any

import ringcast.compat.pyee as pyee
from ringcast.compat.pyee import EventEmitter, Handler, PyeeError, PyeeException
from ringcast.compat.pyee.asyncio import AsyncIOEventEmitter
from ringcast.compat.pyee.cls import evented, on
from ringcast.compat.pyee.executor import ExecutorEventEmitter
from ringcast.compat.pyee.uplift import unwrap, uplift

emitter = EventEmitter()


@emitter.on("saved")
def show(path: str, size: int) -> None:
    print(path, size)


@emitter.listens_to("saved")
def count(path: str, size: int) -> int:
    return size


@emitter.once("saved")
def first(path: str, size: int) -> None:
    pass


shown: Callable[[str, int], None] = show
counted: int = count("a.txt", 1)
added: Callable[[str, int], int] = emitter.add_listener("saved", count)
also: Callable[[str, int], int] = emitter.on("saved", count)
handled: bool = emitter.emit("saved", "a.txt", size=1)
names: set[str] = emitter.event_names()
listeners: list[Callable[..., Any]] = emitter.listeners("saved")
emitter.remove_listener("saved", show)
emitter.remove_all_listeners("saved")
emitter.remove_all_listeners()
errors: list[type[Exception]] = [PyeeException, PyeeError, pyee.PyeeError]


class Client(AsyncIOEventEmitter):
    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(loop=loop)
        self.name = "client"

    def emit(self, event: str, *args: Any, **kwargs: Any) -> bool:
        return super().emit(event, *args, **kwargs)

    def add_listener(self, event: str, f: Handler) -> Handler:
        return super().add_listener(event, f)

    def once(self, event: str, f: Callable[..., Any] | None = None) -> Callable[..., Any]:
        return super().once(event, f)

    def remove_listener(self, event: str, f: Callable[..., Any]) -> None:
        super().remove_listener(event, f)


async def main() -> None:
    client = Client()

    @client.on("saved")
    async def wait(path: str) -> None:
        await asyncio.sleep(0)

    client.emit("saved", "a.txt")
    while not client.complete:
        await client.wait_for_complete()
    client.cancel()


with ExecutorEventEmitter() as background:
    background.on("saved", show)
    background.shutdown(wait=True)

lifted: AsyncIOEventEmitter = uplift(AsyncIOEventEmitter, emitter, error_handling="neither", proxy_new_listener="both")
unwrap(lifted)


@evented
class Editor:
    event_emitter: EventEmitter

    @on("saved")
    def saved(self, path: str) -> None:
        print(path)


Editor().event_emitter.emit("saved", "a.txt")
