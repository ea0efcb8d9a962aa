"""What a swap costs beside the upstream's own stop and start: `python benchmarks/swaps.py [--rounds N] [--load S]`.

Two servers take turns. Bare: SIGTERM, wait for the exit, start the other with subprocess, and poll its health as fast
as the machine can. Ours: `Process.stop`, `Process.start`. The rounds of both alternate in one run. The second table is
the time from a port's first answer until `Process.start` has returned. The exit status is 1 if a bound is missed.
"""

import argparse
import asyncio
import http.client
import shlex
import statistics
import subprocess
import sys
import time

from ringcast_router import responder
from ringcast_router.config.model import Model
from ringcast_router.logs import LogStore
from ringcast_router.ports import LOOPBACK, free_ports
from ringcast_router.processes import Guard, Process

SWAP_BOUND = 0.060  # seconds that a swap may cost more than bare
NOTICE_BOUND = 0.050  # seconds after the first answer


def command(port: int, load: float) -> list[str]:
    return [sys.executable, responder.__file__, "--port", str(port), "--load", str(load)]


def is_well(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Bare:
    """The least that stops one server and starts another."""

    def __init__(self, ports: tuple[int, int], load: float) -> None:
        self.commands = [command(port, load) for port in ports]
        self.ports = ports
        self.running: subprocess.Popen[bytes] | None = None

    def swap_to(self, which: int) -> float:
        began = time.perf_counter()
        self.stop()
        self.running = subprocess.Popen(self.commands[which], stdout=subprocess.DEVNULL)
        while not is_well(self.ports[which]):
            time.sleep(0.001)
        return time.perf_counter() - began

    def stop(self) -> None:
        if self.running is not None:
            self.running.terminate()
            self.running.wait()


class Ours:
    """The same by processes of the router, with a guard."""

    def __init__(self, ports: tuple[int, int], load: float) -> None:
        self.guard = Guard()
        logs = LogStore()
        self.processes = [
            Process(
                Model(f"m{port}", cmd=shlex.join(command(port, load)), proxy=f"http://{LOOPBACK}:{port}"),
                logs=logs,
                changed=lambda *_: None,
                guard=self.guard,
            )
            for port in ports
        ]

    async def swap_to(self, which: int) -> float:
        began = time.perf_counter()
        await self.processes[1 - which].stop()
        await self.processes[which].start()
        return time.perf_counter() - began

    async def close(self) -> None:
        await asyncio.gather(*(process.close() for process in self.processes))
        await self.guard.close()


async def swaps(rounds: int, load: float) -> tuple[list[float], list[float]]:
    first = free_ports(4)
    bare, ours = Bare((first, first + 1), load), Ours((first + 2, first + 3), load)
    await ours.guard.start()
    times: tuple[list[float], list[float]] = [], []
    try:
        for number in range(rounds + 1):
            for kind, seconds in enumerate(
                (await asyncio.to_thread(bare.swap_to, number % 2), await ours.swap_to(number % 2))
            ):
                if number:  # the first has nothing to stop
                    times[kind].append(seconds)
    finally:
        bare.stop()
        await ours.close()
    return times


async def notices(rounds: int) -> list[float]:
    """Return how long after the first answer of a port a start returned; the ports answer after 0.1 to 1.5 s."""
    times = []
    for number in range(rounds):
        port = free_ports()
        model = Model("m", cmd="sleep 600", proxy=f"http://localhost:{port}")
        process = Process(model, logs=LogStore(), changed=lambda *_: None)
        starting = asyncio.create_task(process.start())
        await asyncio.sleep(0.1 + 1.4 * number / rounds)

        async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(well, LOOPBACK, port):
            began = time.perf_counter()
            await starting
            times.append(time.perf_counter() - began)
        await process.close()
    return times


def row(name: str, times: list[float]) -> str:
    return f"{name:28}{statistics.median(times) * 1e3:10.1f}{max(times) * 1e3:10.1f}"


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--load", type=float, default=0.0, metavar="S", help="seconds that a server says 503")
    options = parser.parse_args()
    bare, ours = await swaps(options.rounds, options.load)
    noticed = await notices(options.rounds)
    more = statistics.median(ours) - statistics.median(bare)
    print(f"{'milliseconds':28}{'median':>10}{'longest':>10}")
    print(row("swap, bare", bare))
    print(row("swap, ours", ours))
    print(row("ready noticed after", noticed))
    print(f"A swap costs {more * 1e3:.1f} ms more than bare; the bound is {SWAP_BOUND * 1e3:.0f} ms.")
    return 0 if more <= SWAP_BOUND and statistics.median(noticed) <= NOTICE_BOUND else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
