"""Speed of `ringcast.compat.pyee` beside pyee: the same calls on both, in turn, in one process; imports in fresh ones.

    python benchmarks/compat_pyee.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/measure.py. An import is milliseconds of a whole process, times a million.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from measure import Row, compare, handlers, per_event

OURS, THEIRS = "ringcast.compat.pyee", "pyee"


def emitter(module: str, kind: str, listeners: int) -> Any:
    """An emitter with so many listeners for "tick"; of a subclass with attributes, as programs have them."""
    base: Any = importlib.import_module(f"{module}.asyncio" if kind == "asyncio" else module)
    if kind == "asyncio":
        made = base.AsyncIOEventEmitter()
    elif kind == "subclass":

        class Client(base.EventEmitter):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.name = "client"

        made = Client()
    else:
        made = base.EventEmitter()
    for listener in handlers(listeners):
        made.on("tick", listener)
    return made


def emit(module: str, kind: str, listeners: int) -> float:
    """Nanoseconds for a call of emit with one argument, the loop taken off; as `time_loop` measures."""
    call = emitter(module, kind, listeners).emit
    calls = max(200, 20_000 // max(1, listeners))
    called, empty = [], []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(calls):
            call("tick", None)
        called.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(calls):
            pass
        empty.append(time.perf_counter() - start)
    return per_event(min(called) - min(empty), calls)


def on_and_remove(module: str, rounds: int = 5_000) -> float:
    """Nanoseconds to add a listener to ten others and remove it."""
    made, (listener,) = emitter(module, "plain", 10), handlers(1)
    start = time.perf_counter()
    for _ in range(rounds):
        made.on("tick", listener)
        made.remove_listener("tick", listener)
    return per_event(time.perf_counter() - start, rounds)


def once(module: str, rounds: int = 5_000) -> float:
    """Nanoseconds to add a listener with `once`, and emit."""
    made, (listener,) = emitter(module, "plain", 0), handlers(1)
    start = time.perf_counter()
    for _ in range(rounds):
        made.once("tick", listener)
        made.emit("tick", None)
    return per_event(time.perf_counter() - start, rounds)


def coroutines(module: str, rounds: int = 2_000) -> float:
    """Nanoseconds from emit until the coroutine of one listener is done."""

    async def run() -> float:
        made = emitter(module, "asyncio", 0)

        async def listener(event: object) -> None:
            pass

        made.on("tick", listener)
        start = time.perf_counter()
        for _ in range(rounds):
            made.emit("tick", None)
        await made.wait_for_complete()
        return per_event(time.perf_counter() - start, rounds)

    return asyncio.run(run())


def importing(module: str) -> float:
    """Nanoseconds of a process that imports the module, a process that imports nothing taken off."""

    def process(program: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - start

    return (min(process(f"import {module}") for _ in range(5)) - min(process("") for _ in range(5))) * 1e9


def row(name: str, measure: Callable[..., float], faster: float, *arguments: object) -> Row:
    def side(module: str) -> Callable[[], float]:
        return functools.partial(measure, module, *arguments)

    return Row(name, side(OURS), side(THEIRS), 1 / faster, peer="pyee")


def rows() -> Iterator[Row]:
    for listeners, faster in ((1, 4), (10, 3), (100, 3)):
        yield row(f"emit to {listeners}", emit, faster, "plain", listeners)
    yield row("emit to none", emit, 2, "plain", 0)
    yield row("emit to 1, of a subclass with attributes", emit, 4, "subclass", 1)
    yield row("emit to 10 functions, asyncio", emit, 1, "asyncio", 10)
    yield row("emit and run a coroutine, asyncio", coroutines, 0.8)
    yield row("on and remove_listener, beside 10 others", on_and_remove, 1)
    yield row("once and emit", once, 1)
    yield row("import", importing, 1)


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
