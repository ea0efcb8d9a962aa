"""What the router uses of the processor for a small JSON request, beside a bare proxy: `python benchmarks/requests.py`.

Rounds through the router and through the proxy alternate; the processor time is that of their processes. The exit
status is 1 if the bound is missed.
"""

import argparse
import asyncio
import statistics
import sys

from serving import LOOPBACK, Served, all_served, read_answer, report, request

BOUND = 1.5  # times the bare proxy
CLIENTS = 8


async def ask(port: int, times: int) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    data = request({})
    for _ in range(times):
        writer.write(data)
        await read_answer(reader)
    writer.close()


async def one_round(served: Served, requests: int) -> float:
    """Return the seconds of processor time per request."""
    before = served.cpu()
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(ask(served.port, requests // CLIENTS))
    return (served.cpu() - before) / requests


async def measure(rounds: int, requests: int) -> int:
    with all_served() as (_upstream, router, proxy):
        for served in (router, proxy):  # the router first: it starts the model
            await served.listening()
            await one_round(served, 800)
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(await one_round(router, requests))
            bare.append(await one_round(proxy, requests))
    our, their = statistics.median(ours) * 1e6, statistics.median(bare) * 1e6
    print(f"processor time per request, median of {rounds} rounds of {requests}: {our:.0f} us, bare {their:.0f} us")
    return report([("processor time, times the bare proxy's", our / their, "times", BOUND)])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=8000, help="per round")
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rounds, arguments.requests))


if __name__ == "__main__":
    sys.exit(main())
