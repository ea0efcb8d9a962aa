"""What the tests share: whole routers on free ports, fake model servers, and waits with a deadline.

Nothing here sleeps to let something happen: a test waits for the thing itself, and every wait has a deadline. A test
that leaves a child process behind fails.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest
from hypothesis import HealthCheck, settings
from limits import DEADLINE
from links import IDLE, Upstream

from ringcast_router.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from ringcast_router.command.server import Server
    from ringcast_router.config.model import Config
    from ringcast_router.router import Router


# On a loaded machine an example, or making one, takes as long as the machine lets it.
settings.register_profile("router", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("router")


def responder_command(name: str, **flags: object) -> str:
    """Return the command of a fake model server, for a configuration file; see `ringcast_router.responder`.

    `load=0.3` becomes `--load 0.3`, `ignore_term=True` becomes `--ignore-term`, and what is False or None is left out.
    The port is `${PORT}` unless `port=` names one.
    """
    words = [sys.executable, "-m", "ringcast_router.responder", "--name", name]
    for flag, value in {"port": "${PORT}", **flags}.items():
        if value is not None and value is not False:
            words.append(f"--{flag.replace('_', '-')}")
            if value is not True:
                words.append(str(value))
    return " ".join(words)


async def wait_until(condition: Callable[[], object], within: float = DEADLINE, what: str = "the condition") -> None:
    """Wait for what cannot be notified of. Fails the test after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not become true in {within} s")
        await asyncio.sleep(0.003)


@dataclass
class Answer:
    """What a client got: `seconds` from the request to the end of the body."""

    status: int
    headers: Any
    body: bytes
    seconds: float
    at: float  # time.monotonic() at its end

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Served:
    """A router that listens on a free port of this machine."""

    server: "Server"
    router: "Router"
    url: str
    session: aiohttp.ClientSession
    file: Path  # its configuration
    running: set["asyncio.Task[Answer]"] = field(default_factory=set)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        began = time.monotonic()
        async with self.session.request(method, self.url + path, **options) as response:
            body = await response.read()
            ended = time.monotonic()
            return Answer(response.status, response.headers, body, ended - began, ended)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.request("POST", path, **options)

    async def ask(self, model: str, *, headers: dict[str, str] | None = None, **body: Any) -> Answer:
        """Send a chat request. The responder heeds `wait` (seconds), `stream`, `n` and `gap` of the body."""
        messages = [{"role": "user", "content": "hello"}]
        return await self.post(
            "/v1/chat/completions", json={"model": model, "messages": messages, **body}, headers=headers
        )

    def begin(self, model: str, **body: Any) -> "asyncio.Task[Answer]":
        """Send a chat request and go on; the task ends with its answer. Cancelling it is the client's leaving."""
        task = asyncio.create_task(self.ask(model, **body))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    def state(self, model: str) -> str:
        return str(self.router.processes[model].state)

    def states(self) -> dict[str, str]:
        return {model: str(process.state) for model, process in self.router.processes.items()}

    async def until(self, model: str, state: str) -> None:
        await wait_until(lambda: self.state(model) == state, what=f"{model} {state}")


@pytest.fixture
def deadline() -> float:
    """Seconds after which a wait has failed."""
    return DEADLINE


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """`await until(condition)`: waits with a deadline."""
    return wait_until


@pytest.fixture
def free_port() -> Callable[..., int]:
    """`free_port()` is a port that nobody listens on; `free_port(n)` the first of n in a row."""
    return free_ports


@pytest.fixture
def responder() -> Callable[..., str]:
    """`responder("A", load=0.3)` is the command line of a fake model server, for a configuration."""
    return responder_command


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """Fails a test that leaves a child process behind, and kills the child."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    yield
    left = [child for child in me.children(recursive=True) if child not in before]
    _, alive = psutil.wait_procs(left, timeout=DEADLINE)
    names = [" ".join(child.cmdline()) for child in alive if child.is_running()]
    for child in alive:
        child.kill()
    assert not names, f"child processes left behind: {names}"


@pytest.fixture
async def serve(no_child_left: None, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """`await serve(text)` starts a whole router from the text of a configuration, and gives a `Served`.

    Where the text names no `startPort`, the models' servers get free ports. `change` alters what was read. At the end
    of the test everything is closed.
    """
    from ringcast_router.command.server import Server
    from ringcast_router.config import load
    from ringcast_router.router import Router

    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(text: str, change: Callable[["Config"], "Config"] = lambda config: config) -> Served:
        if "startPort:" not in text:
            text = f"startPort: {free_ports(20)}\n{text}"
        file = tmp_path / f"config{len(ends)}.yaml"
        file.write_text(text)
        router = Router(lambda: change(load([file])))
        server = await Server.start(router, LOOPBACK, 0)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=3 * DEADLINE)
        )
        served = Served(server, router, server.url, session, file)

        async def end() -> None:
            for task in served.running:
                task.cancel()
            await asyncio.gather(*served.running, return_exceptions=True)
            await session.close()
            await asyncio.wait_for(server.close(), 2 * DEADLINE)

        ends.append(end)
        return served

    yield start
    for end in reversed(ends):
        await end()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A model's server; set its `script`."""
    made = Upstream()
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await made.end()


@pytest.fixture
async def front(serve: Any, upstream: Upstream) -> Any:
    """`await front()` starts a router whose model `m` is the upstream; further lines of its settings may be given."""

    async def start(*lines: str, top: str = "") -> Any:
        settings = "".join(f"    {line}\n" for line in lines)
        return await serve(
            f"models:\n  m:\n    cmd: {IDLE}\n    proxy: http://127.0.0.1:{upstream.port}\n"
            f"    checkEndpoint: none\n{settings}{top}"
        )

    return start
