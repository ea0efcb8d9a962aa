"""What the router promises in time, asked and measured: `python benchmarks/behaviour.py [NAME ...]`.

Each row runs the command `ringcast-router` as a process of its own, with fake model servers:

starvation          two clients keep A busy for 20 s, B is asked for after 0.4 s (max_wait 3 s, min_residence 1 s)
stubborn neighbour  a request to a ready model while another, which ignores SIGTERM, is being stopped
reload              a comment is added to the configuration while 3 models run and are asked all the time
killed              SIGKILL to the router with 8 models

The exit status is 1 if a bound is missed.
"""

import argparse
import asyncio
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from ringcast_router import responder
from ringcast_router.ports import LOOPBACK, free_ports


@dataclass(frozen=True)
class Row:
    """What was asked for and what was measured, in the unit; `holds` says whether the bound was kept."""

    what: str
    asked: str
    measured: str
    holds: bool


class Router:
    """The command as a process of its own, and a client of it."""

    def __init__(
        self, process: asyncio.subprocess.Process, url: str, file: Path, client: aiohttp.ClientSession
    ) -> None:
        self.process = process
        self.file = file
        self._url = url
        self._client = client

    async def ask(self, model: str, wait: float = 0.0) -> float:
        """Return the seconds that an answer took.

        Raises:
            RuntimeError: It was an error.
        """
        began = time.perf_counter()
        body = {"model": model, "wait": wait}
        async with self._client.post(f"{self._url}/v1/chat/completions", json=body) as response:
            text = await response.text()
            if response.status != 200:
                raise RuntimeError(f"{model}: status {response.status}: {text}")
        return time.perf_counter() - began

    async def post(self, path: str) -> Any:
        async with self._client.post(self._url + path) as response:
            return await response.text()

    async def states(self) -> dict[str, str]:
        async with self._client.get(f"{self._url}/running") as response:
            running = json.loads(await response.text())["running"]
        return {entry["model"]: entry["state"] for entry in running}

    def servers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if responder.__file__ in child.cmdline()]


def write(folder: str, models: Mapping[str, str], settings: str) -> Path:
    lines = [settings, f"startPort: {free_ports(len(models))}", "models:"]
    for name, flags in models.items():
        server = f"{shlex.quote(sys.executable)} {shlex.quote(responder.__file__)}"
        lines += [f"  {name}:", f"    cmd: {server} --port ${{PORT}} --name {name} {flags}"]
    file = Path(folder, "config.yaml")
    file.write_text("\n".join(lines) + "\n")
    return file


@contextlib.asynccontextmanager
async def router(models: Mapping[str, str], settings: str = "") -> AsyncIterator[Router]:
    """Run a router; `models` gives each model's flags for the responder."""
    with tempfile.TemporaryDirectory() as folder:
        file = write(folder, models, settings)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ringcast_router", "--config", str(file), "--listen", f"{LOOPBACK}:0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        greeting = (await process.stderr.readline()).decode()
        url = greeting.partition(" on ")[2].partition(": ")[0]
        if not url:
            raise RuntimeError(f"the router did not start: {greeting}")
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
                yield Router(process, url, file, client)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def starvation() -> Row:
    settings = "ringcast: {fair: {max_wait: 3, min_residence: 1}}"
    async with router({"A": "", "B": ""}, settings) as served:
        await served.ask("A")
        end = time.perf_counter() + 20

        async def busy() -> None:
            while time.perf_counter() < end:
                await served.ask("A", 0.2)

        clients = [asyncio.create_task(busy())]
        await asyncio.sleep(0.1)  # so that one of the two is always being served
        clients.append(asyncio.create_task(busy()))
        await asyncio.sleep(0.3)
        waited = await served.ask("B")
        await asyncio.gather(*clients)
    return Row("starvation: B served within", "5 s", f"{waited:.2f} s", waited <= 5)


async def stubborn_neighbour() -> Row:
    settings = "unloadTimeout: 3\ngroups: {all: {swap: false, members: [R, S]}}"
    async with router({"R": "", "S": "--ignore-term"}, settings) as served:
        await asyncio.gather(served.ask("R"), served.ask("S"))
        alone = [await served.ask("R") for _ in range(200)]
        unload = asyncio.create_task(served.post("/api/models/unload/S"))

        async def is_stopping() -> bool:
            return (await served.states())["S"] == "stopping"

        await until(is_stopping)
        meanwhile = [await served.ask("R") for _ in range(200)]
        if not await is_stopping():
            raise RuntimeError("S was stopped before the requests had ended")
        await unload
    more = (max(meanwhile) - statistics.median(alone)) * 1e3
    return Row("stubborn neighbour: more than otherwise, longest of 200", "50 ms", f"{more:.1f} ms", more < 50)


async def reload() -> Row:
    settings = "groups: {all: {swap: false, members: [A, B, C]}}"
    async with router(dict.fromkeys("ABC", ""), settings) as served:
        await asyncio.gather(*map(served.ask, "ABC"))
        before = {server.pid for server in served.servers()}
        asked = 0
        over = False

        async def keep_asking(model: str) -> None:
            nonlocal asked
            while not over:
                await served.ask(model, 0.02)
                asked += 1

        clients = [asyncio.create_task(keep_asking(model)) for model in "ABC" * 2]
        with served.file.open("a") as file:
            file.write("# a comment\n")
        kept = json.loads(await served.post("/api/reload"))["kept"]
        seen = asked

        async def has_gone_on() -> bool:
            return asked > seen + 50

        await until(has_gone_on)
        over = True
        failed = [end for end in await asyncio.gather(*clients, return_exceptions=True) if end is not None]
        restarted = len(before ^ {server.pid for server in served.servers()})
    fine = not failed and not restarted and len(kept) == 3
    measured = f"{restarted} and {len(failed)} (of {asked})"
    return Row("reload with a comment added: servers restarted, requests failed", "0 and 0", measured, fine)


async def killed() -> Row:
    names = [f"m{number}" for number in range(8)]
    settings = f"groups: {{all: {{swap: false, members: [{', '.join(names)}]}}}}"
    async with router(dict.fromkeys(names, "--ignore-term"), settings) as served:
        await asyncio.gather(*map(served.ask, names))
        servers = served.servers()
        if len(servers) != 8:
            raise RuntimeError(f"{len(servers)} of 8 servers run")
        served.process.kill()
        began = time.perf_counter()
        _, alive = await asyncio.to_thread(psutil.wait_procs, servers, 2.0)
        seconds = time.perf_counter() - began
        for server in alive:
            server.kill()
    measured = f"{len(alive)} (the last ended after {seconds:.2f} s)"
    return Row("SIGKILL with 8 models: alive 2 s later", "0", measured, not alive)


ROWS: Mapping[str, Callable[[], Awaitable[Row]]] = {
    "starvation": starvation,
    "stubborn": stubborn_neighbour,
    "reload": reload,
    "killed": killed,
}


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which rows: {', '.join(ROWS)}; by default all")
    names = parser.parse_args().names or list(ROWS)
    if unknown := set(names) - ROWS.keys():
        parser.error(f"there is no row {min(unknown)!r}; there are {', '.join(ROWS)}")
    print(f"{'':68}{'asked':>12}  measured")
    rows = []
    for name in names:
        rows.append(row := await ROWS[name]())
        print(f"{row.what:68}{row.asked:>12}  {row.measured}{'' if row.holds else '  MISSED'}", flush=True)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
