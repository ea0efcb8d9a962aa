"""How much memory bodies need: `python benchmarks/bodies.py [--megabytes N] [--streams N]`.

A JSON body whose model comes last, and an upload in a form; each is sent while the router's memory is read every few
milliseconds. Then streams that asked with bodies just small enough to be kept in memory: how much of it they still use
when the model's server has the bodies. The exit status is 1 if a bound is missed.
"""

import argparse
import asyncio
import sys

from serving import LOOPBACK, Served, all_served, chunks, read_answer, report, request

BOUND = 64.0  # MiB more than before
BLOCK = 1 << 18
STREAMS_BOUND = 128.0  # KiB more than before for each stream


async def send(port: int, path: str, content_type: str, head: bytes, size: int, tail: bytes) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    length = len(head) + size + len(tail)
    lines = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(lines.encode() + head)
    for at in range(0, size, BLOCK):
        writer.write(b"A" * min(BLOCK, size - at))
        await writer.drain()
    writer.write(tail)
    await read_answer(reader)
    writer.close()


async def highest(router: Served, sending: "asyncio.Task[None]") -> float:
    """Return how much more memory the router uses at most until `sending` is done, in MiB."""
    before = peak = router.memory()
    while not sending.done():
        await asyncio.sleep(0.002)
        peak = max(peak, router.memory())
    await sending
    return (peak - before) / 2**20


async def stream(port: int, closing: asyncio.Event) -> None:
    """Ask for a stream with a body of 1 MB, read its first chunk, and stay."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(request({"stream": True, "n": 2, "gap": 3600, "padding": "A" * 1_000_000}))
    await anext(chunks(reader))
    await closing.wait()
    writer.close()


async def measure_streams(router: Served, many: int) -> float:
    """Return how much more memory the router uses per stream, in KiB, while `many` are open."""
    before = router.memory()
    closing = asyncio.Event()
    open_ones: list[asyncio.Task[None]] = []
    for _ in range(many):
        open_ones.append(asyncio.create_task(stream(router.port, closing)))
        await asyncio.sleep(0.01)  # one after another: what is on the way at once is not measured here
    await asyncio.sleep(3)
    used = router.memory() - before
    closing.set()
    await asyncio.gather(*open_ones)
    return used / many / 2**10


async def measure(megabytes: int, many: int) -> int:
    size = megabytes * 1_000_000
    bodies = {
        "JSON": ("/v1/chat/completions", "application/json", b'{"image":"', b'","model":"m"}'),
        "form": (
            "/v1/audio/transcriptions",
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
            b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
        ),
    }
    rows = []
    with all_served() as (_upstream, router, _proxy):
        await router.listening()
        reader, writer = await asyncio.open_connection(LOOPBACK, router.port)
        writer.write(request({}))  # starts the model
        await read_answer(reader)
        for name, (path, kind, head, tail) in bodies.items():
            sending = asyncio.create_task(send(router.port, path, kind, head, size, tail))
            rows.append((f"{name} body of {megabytes} MB, more memory", await highest(router, sending), "MiB", BOUND))
        writer.close()
        used = await measure_streams(router, many)
        rows.append((f"{many} streams with bodies of 1 MB, for each", used, "KiB", STREAMS_BOUND))
    return report(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--streams", type=int, default=1000)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.megabytes, arguments.streams))


if __name__ == "__main__":
    sys.exit(main())
