"""What the demo shows while it runs: lines that are drawn anew on a terminal, a line for each change elsewhere."""

import asyncio
import sys
import time
from collections import Counter
from typing import Any, TextIO

from ringcast import Stream

from ringcast_router.events import InFlightChanged, ModelStateChanged, RequestFinished, SwapFinished
from ringcast_router.router import Router

REFRESH = 0.1  # seconds between two drawings
BAR = 12  # characters

_COLOURS = {"stopped": "2", "starting": "33", "ready": "32", "stopping": "35"}


class View:
    """The state of each model, its requests, and how often it was loaded; fed by the router's events.

    Args:
        router: Whose events to show.
        out: Where to show them. Only a terminal is drawn on.

    Attributes:
        loads: For each model, the seconds that each of its loads took.
        note: A line that stands below the models.
    """

    def __init__(self, router: Router, out: TextIO = sys.stdout) -> None:
        self.loads: dict[str, list[float]] = {model: [] for model in router.config.models}
        self.note = ""
        self._out = out
        self._drawn = 0  # lines on the terminal that are ours
        self._began = time.monotonic()
        self._states = dict.fromkeys(self.loads, "stopped")
        self._since = dict.fromkeys(self.loads, self._began)
        self._counts = dict.fromkeys(self.loads, (0, 0))
        self._served: Counter[str] = Counter()
        # Nothing here may be missed, as the table at the end is made of it; a demo publishes little.
        self._streams: list[Stream[Any]] = [
            router.bus.stream(event) for event in (ModelStateChanged, InFlightChanged, RequestFinished, SwapFinished)
        ]

    async def run(self) -> None:
        """Show what goes on until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for stream in self._streams:
                    group.create_task(self._follow(stream))
                while self._out.isatty():
                    self._draw()
                    await asyncio.sleep(REFRESH)
        finally:
            for stream in self._streams:
                stream.cancel()
            if self._out.isatty():
                self._draw()

    def say(self, line: str) -> None:
        """Print a line that stays: above the models on a terminal."""
        self._erase()
        print(line, file=self._out, flush=True)

    async def _follow(self, stream: Stream[Any]) -> None:
        async for event in stream:
            match event:
                case ModelStateChanged(model, _old, new, reason):
                    self._states[model], self._since[model] = new, time.monotonic()
                    if not self._out.isatty():
                        self.say(f"{self._elapsed():5.1f} s  {model}  {new:8}  {reason}".rstrip())
                case InFlightChanged(model, in_flight, waiting):
                    self._counts[model] = in_flight, waiting
                case RequestFinished(_request, model, "served"):
                    self._served[model] += 1
                case SwapFinished(_ticket, model, "", seconds):
                    self.loads[model].append(seconds)

    def _draw(self) -> None:
        lines = [f"{self._elapsed():5.1f} s   {'':{BAR + 10}}  waiting  in flight  served  loads"]
        for model, state in self._states.items():
            in_flight, waiting = self._counts[model]
            lines.append(
                f"  {model:5} {self._bar(model, state)}  {waiting:7}  {in_flight:9}  {self._served[model]:6}"
                f"  {len(self.loads[model]):5}"
            )
        lines.append(f"  {self.note}")
        self._erase()
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn = len(lines)

    def _bar(self, model: str, state: str) -> str:
        """Return the state in words and as a bar: how far a load is, by how long the last one took."""
        past = self.loads[model]
        share = {"ready": 1.0, "starting": (time.monotonic() - self._since[model]) / (past[-1] if past else 3.0)}
        filled = round(BAR * min(1.0, share.get(state, 0.0)))
        return f"\x1b[{_COLOURS.get(state, '0')}m{state:8} {'█' * filled}{'·' * (BAR - filled)}\x1b[0m"

    def _erase(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _elapsed(self) -> float:
        return time.monotonic() - self._began
