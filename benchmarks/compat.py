"""Speed of the drop-in modules beside the originals: each row times both, in turn, in one process.

    python benchmarks/compat.py [--repeats N] [--rows PATTERN] [--output FILE.json]

How: benchmarks/measure.py. A row of `import` is a whole process that does nothing else.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from measure import Measure, Row, Tick, compare, per_event

ORIGINALS = {"blinker": "ringcast.compat.blinker"}


def blinker_send(module: str, count: int, own_sender: bool, keyword: bool) -> float:
    """Per send, the loop of the sends included; the receivers are for all senders or for the one that sends."""
    signal: Any = import_module(module).Signal()
    code = "lambda sender, number: None" if keyword else "lambda sender: None"
    receivers: list[Callable[..., None]] = [eval(code) for _ in range(count)]
    sender = Tick()
    for receiver in receivers:
        signal.connect(receiver, *([sender] if own_sender else []), weak=True)
    send, sends = signal.send, 20_000 // count + 200
    start = time.perf_counter()
    if keyword:
        for _ in range(sends):
            send(sender, number=1)
    else:
        for _ in range(sends):
            send(sender)
    return per_event(time.perf_counter() - start, sends)


def importing(module: str) -> float:
    """Per process, the least of five."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        taken.append(time.perf_counter() - start)
    return per_event(min(taken), 1)


def both(measure: Callable[..., float], name: str, *arguments: Any) -> tuple[Measure, Measure]:
    """A measure of ours and of the original."""
    return functools.partial(measure, ORIGINALS[name], *arguments), functools.partial(measure, name, *arguments)


def rows() -> Iterator[Row]:
    for count, faster in ((1, 5), (10, 5), (100, 4)):
        for own_sender in (False, True):
            for keyword in (False, True):
                name = f"blinker send to {count}" + ", by sender" * own_sender + ", with a keyword" * keyword
                yield Row(name, *both(blinker_send, "blinker", count, own_sender, keyword), 1 / faster, "blinker")
    yield Row("import blinker", *both(importing, "blinker"), 1.0, "blinker")


if __name__ == "__main__":
    sys.exit(compare(__doc__, rows()))
