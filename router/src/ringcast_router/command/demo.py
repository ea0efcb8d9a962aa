"""See it work: three fake models on this machine, half a minute, no network.

Three small servers stand for models that take seconds to load, and only one of them may be loaded at a time. First
several clients ask for A B C A B C at once; then two clients keep A busy while a third asks for B. All of it goes
through the real router. At the end a table says what it cost, and what the requests would have cost in the order in
which they came. The exit status is 1 if an answer was wrong or the bounds were missed.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import shlex
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from ringcast_router.command.server import Server
from ringcast_router.command.view import View
from ringcast_router.config import loads
from ringcast_router.ports import LOOPBACK, free_ports
from ringcast_router.router import Router

EXAMPLE = """\
examples:
  ringcast-router demo
  ringcast-router demo --load 0.5
"""

MODELS = "ABC"
BURST = "ABCABCABCABC"
MAX_WAIT = 1.5  # loads: where a load takes twice as long, so does the demo
BUSY = 3.0  # loads for which two clients keep A busy
REQUEST = 0.2  # loads that a request takes
SPARE = 1.0  # seconds by which a bound is wider, for machines that have more to do
ALL_RIGHT = "All answers came from the right model."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the demo and its answer. Times are in seconds since the demo began."""

    model: str
    at: float
    seconds: float
    answered_by: str

    @property
    def right(self) -> bool:
        """Whether the server of the model that was asked for has answered."""
        return self.answered_by == self.model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `demo`."""
    parser.add_argument("--load", type=float, default=2.0, metavar="S", help="seconds that a model takes to load (2)")


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit status."""
    return asyncio.run(_run(options.load))


def configuration(load: float) -> str:
    """Return the demo's configuration: three models, of which one may be loaded at a time."""
    lines = ["models:"]
    for name in MODELS:
        command = [shlex.quote(sys.executable), "-m", "ringcast_router.responder", "--port", "${PORT}"]
        command += ["--name", name, "--load", str(load)]
        lines += [f"  {name}:", f"    cmd: {json.dumps(' '.join(command))}"]
    fair = f"fair: {{max_wait: {MAX_WAIT * load}, min_residence: {load / 2}}}"
    lines += ["logToStdout: none", "ringcast:", f"  {fair}"]
    return "\n".join(lines)


async def _run(load: float) -> int:
    text = f"startPort: {free_ports(len(MODELS))}\n{configuration(load)}"
    router = Router(lambda: loads(text))
    server = await Server.start(router, LOOPBACK, 0)
    view = View(router)
    showing = asyncio.create_task(view.run())
    try:
        async with aiohttp.ClientSession() as session:
            clients = Clients(session, server.url, load)
            view.say(f"A router on {server.url}, three models that take {load:g} s to load, room for one.\n")
            view.note = f"{len(BURST)} requests at once: {BURST}"
            burst = await clients.burst()
            loads_of_burst = sum(map(len, view.loads.values()))
            view.note = (
                f"two clients keep A busy for {BUSY * load:g} s; another asks for B; max_wait is {MAX_WAIT * load:g} s"
            )
            other = await clients.starve()
    finally:
        await server.close()
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing
    report = Report(load, burst, other, view.loads, loads_of_burst)
    print(report.text())
    return 0 if report.fine else 1


class Clients:
    """The clients of the demo: they ask a router, and keep what they were answered."""

    def __init__(self, session: aiohttp.ClientSession, url: str, load: float) -> None:
        self._session = session
        self._url = url
        self._load = load
        self._began = time.monotonic()

    async def burst(self) -> list[Asked]:
        """Ask for all of `BURST` at once, in its order."""
        async with asyncio.TaskGroup() as group:
            tasks = []
            for model in BURST:
                tasks.append(group.create_task(self._ask(model, REQUEST * self._load)))
                await asyncio.sleep(0.01)  # so that they come in this order
        return [task.result() for task in tasks]

    async def starve(self) -> list[Asked]:
        """Keep A busy with two clients, and ask for B once; return all that was asked, that for B last."""
        await self._ask("A", 0.0)  # so that A is loaded
        end = time.monotonic() + BUSY * self._load

        async def keep_busy() -> list[Asked]:
            asked = []
            while time.monotonic() < end:
                asked.append(await self._ask("A", REQUEST * self._load))
            return asked

        async with asyncio.TaskGroup() as group:
            busy = [group.create_task(keep_busy())]
            await asyncio.sleep(REQUEST * self._load / 2)  # so that one of the two is always being served
            busy.append(group.create_task(keep_busy()))
            await asyncio.sleep(REQUEST * self._load)
            other = group.create_task(self._ask("B", 0.0))
        asked = sorted(itertools.chain.from_iterable(task.result() for task in busy), key=lambda one: one.at)
        return [*asked, other.result()]

    async def _ask(self, model: str, wait: float) -> Asked:
        began = time.monotonic()
        body = {"model": model, "messages": [{"role": "user", "content": "who are you?"}], "wait": wait}
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            answer = await response.json()
        name = str(answer.get("responseMessage", answer)) if response.status == 200 else f"status {response.status}"
        return Asked(model, began - self._began, time.monotonic() - began, name)


class Report:
    """What the demo has measured.

    Args:
        load: The seconds of a load, as asked for.
        burst: The requests of the burst, in their order.
        other: The requests of the second part; the last is the one for B.
        loads: For each model, the seconds of each load.
        loads_of_burst: How many of the loads were the burst's.
    """

    def __init__(
        self,
        load: float,
        burst: list[Asked],
        other: list[Asked],
        loads: dict[str, list[float]],
        loads_of_burst: int,
    ) -> None:
        self._asked_load = load
        self._asked = [*burst, *other]
        self._burst = burst
        self._waited_for_b = other[-1].seconds
        self._loads = loads
        self._loads_of_burst = loads_of_burst
        every = list(itertools.chain.from_iterable(loads.values()))
        self._load = statistics.median(every) if every else 0.0

    @property
    def bound(self) -> float:
        """Seconds within which B must be answered: max_wait, what is being served, a swap, and a second to spare."""
        return (MAX_WAIT + REQUEST) * self._asked_load + self._load + SPARE

    @property
    def fine(self) -> bool:
        """Whether all answers were right and the bounds were kept."""
        return (
            all(one.right for one in self._asked)
            and self._loads_of_burst <= len(MODELS)
            and self._waited_for_b <= self.bound
        )

    def text(self) -> str:
        """Return the table."""
        rows: list[tuple[str, ...]] = [("model", "requests", "loads", "loading", "median wait", "longest wait")]
        for model in MODELS:
            rows.append(self._row(model, [one for one in self._asked if one.model == model], self._loads[model]))
        rows.append(self._row("all", self._asked, list(itertools.chain.from_iterable(self._loads.values()))))
        load, collated = self._load, self._loads_of_burst
        naive = switches(one.model for one in self._burst)
        wrong = sum(not one.right for one in self._asked)
        return "\n".join(
            [
                "",
                *(f"{row[0]:8}{row[1]:>10}{row[2]:>8}{row[3]:>10}{row[4]:>14}{row[5]:>15}" for row in rows),
                "",
                f"The burst {BURST}: {collated} loads, {collated * load:.1f} s of loading ({load:.2f} s each).",
                f"In the order in which it came: {naive} loads, {naive * load:.1f} s.",
                f"B, asked for while two clients kept A busy for {BUSY * self._asked_load:g} s:"
                f" answered after {self._waited_for_b:.1f} s (bound: {self.bound:.1f} s).",
                "A router that always serves what is loaded would have answered B when A fell idle.",
                f"{wrong} of {len(self._asked)} answers were wrong." if wrong else ALL_RIGHT,
            ]
        )

    @staticmethod
    def _row(name: str, asked: list[Asked], loads: list[float]) -> tuple[str, ...]:
        waits = [one.seconds for one in asked] or [0.0]
        seconds = f"{sum(loads):.1f} s", f"{statistics.median(waits):.1f} s", f"{max(waits):.1f} s"
        return name, str(len(asked)), str(len(loads)), *seconds


def switches(models: Iterable[str]) -> int:
    """Return how many loads it takes to serve requests in their order, where one model at a time is loaded."""
    return sum(1 for _ in itertools.groupby(models))
