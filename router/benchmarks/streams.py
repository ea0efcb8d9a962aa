"""What streams cost: `python benchmarks/streams.py`.

First the processor time per chunk beside a bare proxy's, with 100 clients at 50 chunks a second, in alternating rounds.
Then how much later a chunk comes through the router than straight from the model's server. Then the memory of 2,000
streams in which nothing happens for a while, and whether all of them end in order. The exit status is 1 if a bound is
missed.
"""

import argparse
import asyncio
import re
import statistics
import sys
import time

from serving import LOOPBACK, Served, all_served, chunks, report, request

CPU_BOUND = 1.3  # times the bare proxy
DELAY_BOUND = 1.0  # ms
MEMORY_BOUND = 250.0  # MiB
CLIENTS = 100
GAP = 0.02  # seconds between two chunks of a stream

_SENT_AT = re.compile(rb'"at":([0-9.]+)')


async def stream(port: int, count: int, gap: float, delays: list[float] | None = None) -> int:
    """Read one stream; return the number of its chunks, and note how long each was on its way."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request({"stream": True, "n": count, "gap": gap}))
    seen = 0
    async for chunk in chunks(reader):
        now = time.monotonic()
        sent = _SENT_AT.findall(chunk)
        seen += len(sent)
        if delays is not None:
            delays += [now - float(at) for at in sent]
    writer.close()
    return seen


async def streams(port: int, clients: int, count: int, gap: float) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream(port, count, gap)) for _ in range(clients)]
    lost = [task for task in tasks if task.result() != count]
    if lost:
        raise RuntimeError(f"{len(lost)} streams lost chunks")


async def cpu_per_chunk(served: Served, seconds: float) -> float:
    count = int(seconds / GAP)
    before = served.cpu()
    await streams(served.port, CLIENTS, count, GAP)
    return (served.cpu() - before) / (CLIENTS * count)


async def measure_memory(router: Served, many: int, seconds: float) -> float:
    """Open `many` streams, two chunks each, and return the memory of the router between these, in MiB."""
    reading = asyncio.create_task(streams(router.port, many, 2, seconds))
    await asyncio.sleep(seconds * 0.9)  # all are open by now, or the streams tell
    memory = router.memory() / 2**20
    await reading
    return memory


async def measure(rounds: int, seconds: float, many: int) -> int:
    with all_served() as (upstream, router, proxy):
        for served in (router, proxy):  # the router first: it starts the model
            await served.listening()
            await streams(served.port, 10, 10, 0.001)
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(await cpu_per_chunk(router, seconds))
            bare.append(await cpu_per_chunk(proxy, seconds))
        through: list[float] = []
        straight: list[float] = []
        for _ in range(rounds):
            await stream(router.port, 100, 0.01, through)
            await stream(upstream, 100, 0.01, straight)
        delay = (statistics.median(through) - statistics.median(straight)) * 1000
        memory = await measure_memory(router, many, 30)
    our, their = statistics.median(ours) * 1e6, statistics.median(bare) * 1e6
    print(f"processor time per chunk, median of {rounds} rounds: {our:.0f} us, bare {their:.0f} us")
    return report(
        [
            ("processor time per chunk, times the bare proxy's", our / their, "times", CPU_BOUND),
            ("later than straight from the server, median", delay, "ms", DELAY_BOUND),
            (f"memory with {many} idle streams", memory, "MiB", MEMORY_BOUND),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="per round")
    parser.add_argument("--many", type=int, default=2000, help="idle streams")
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rounds, arguments.seconds, arguments.many))


if __name__ == "__main__":
    sys.exit(main())
