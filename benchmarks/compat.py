"""Speed of the drop-in modules beside the originals: the same calls on both, in turn, in one process.

    python benchmarks/compat.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/checks.py. An import is milliseconds of a whole process, times a million.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from checks import Row, compare
from ringcast.bench.timing import least, per_call, per_event, seconds
from ringcast.bench.work import ignore_events

RECEIVERS = {
    "": "lambda sender: None",
    "with a keyword": "lambda sender, number: None",
    "with a keyword, of any": "lambda sender, **extra: None",  # as receivers of Flask's signals are mostly written
}


def send(module: str, count: int, own_sender: bool, receivers: str) -> float:
    """Nanoseconds for a send, with its loop; the receivers are for all senders or for the one that sends."""
    signal: Any = importlib.import_module(module).Signal()
    kept: list[Callable[..., None]] = [eval(RECEIVERS[receivers]) for _ in range(count)]
    sender = object()
    for receiver in kept:
        signal.connect(receiver, *([sender] if own_sender else []), weak=True)
    call, sends = signal.send, 20_000 // count + 200

    def send_with_keyword() -> None:
        for _ in range(sends):
            call(sender, number=1)

    def send_alone() -> None:
        for _ in range(sends):
            call(sender)

    return per_event(send_with_keyword if receivers else send_alone, sends)


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
    for _ in range(listeners):
        made.on("tick", ignore_events().handler)
    return made


def emit(module: str, kind: str, listeners: int) -> float:
    """Nanoseconds for a call of emit with one argument, without the loop."""
    call = emitter(module, kind, listeners).emit

    def loop(times: int) -> None:
        for _ in range(times):
            call("tick", None)

    return per_call(loop, 10 * max(200, 20_000 // max(1, listeners)))


def on_and_remove(module: str, rounds: int = 5_000) -> float:
    """Nanoseconds to add a listener to ten others and remove it."""
    made, listener = emitter(module, "plain", 10), ignore_events().handler

    def run() -> None:
        for _ in range(rounds):
            made.on("tick", listener)
            made.remove_listener("tick", listener)

    return per_event(run, rounds)


def once(module: str, rounds: int = 5_000) -> float:
    """Nanoseconds to add a listener with `once`, and emit."""
    made, listener = emitter(module, "plain", 0), ignore_events().handler

    def run() -> None:
        for _ in range(rounds):
            made.once("tick", listener)
            made.emit("tick", None)

    return per_event(run, rounds)


def coroutines(module: str, rounds: int = 2_000) -> float:
    """Nanoseconds from emit until the coroutine of one listener is done."""

    async def listener(event: object) -> None:
        pass

    async def run() -> None:
        for _ in range(rounds):
            made.emit("tick", None)
        await made.wait_for_complete()

    made = emitter(module, "asyncio", 0)
    made.on("tick", listener)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        return per_event(lambda: loop.run_until_complete(run()), rounds)


def importing(module: str) -> float:
    """Nanoseconds of a process that imports the module, a process that imports nothing taken off."""

    def process(program: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", program], check=True))

    return (least(lambda: process(f"import {module}"), 5) - least(lambda: process(""), 5)) * 1e9


def row(original: str, what: str, measure: Callable[..., float], faster: float, *arguments: object) -> Row:
    def side(module: str) -> Callable[[], float]:
        return functools.partial(measure, module, *arguments)

    ours = side(f"ringcast.compat.{original}")
    return Row(f"{original}: {what}", ours, side(original), 1 / faster, peer=original)


def rows() -> Iterator[Row]:
    for count, faster in ((1, 5), (10, 5), (100, 4)):
        for own_sender in (False, True):
            for receivers in RECEIVERS:
                what = f"send to {count}" + ", by sender" * own_sender + f", {receivers}" * bool(receivers)
                yield row("blinker", what, send, faster, count, own_sender, receivers)
    yield row("blinker", "import", importing, 1)
    for listeners, faster in ((1, 4), (10, 3), (100, 3)):
        yield row("pyee", f"emit to {listeners}", emit, faster, "plain", listeners)
    yield row("pyee", "emit to none", emit, 2, "plain", 0)
    yield row("pyee", "emit to 1, of a subclass with attributes", emit, 4, "subclass", 1)
    yield row("pyee", "emit to 10 functions, asyncio", emit, 1, "asyncio", 10)
    yield row("pyee", "emit and run a coroutine, asyncio", coroutines, 0.8)
    yield row("pyee", "on and remove_listener, beside 10 others", on_and_remove, 1)
    yield row("pyee", "once and emit", once, 1)
    yield row("pyee", "import", importing, 1)


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
