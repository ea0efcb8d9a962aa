"""What many types cost in memory: resident size for a subscriber and an event each.

    python benchmarks/memory.py [--types N] [--limit MIB]

Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import gc
import sys

import psutil

from ringcast import Dispatcher


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=100.0, help="MiB")
    options = parser.parse_args()
    classes = [type(f"Event{number}", (), {"__slots__": ()}) for number in range(options.types)]
    events = [event_class() for event_class in classes]

    def handler(event: object) -> None:
        pass

    with Dispatcher() as bus:
        before = resident()
        subscriptions = [bus.subscribe(event_class, handler) for event_class in classes]
        for event in events:
            bus.publish(event)
        for subscription in subscriptions:
            with subscription:  # wait until it is delivered
                pass
        mebibytes = (resident() - before) / 2**20
    print(f"{options.types} types: {mebibytes:.1f} MiB, {mebibytes * 2**20 / options.types:.0f} bytes each")
    return 1 if mebibytes > options.limit else 0


if __name__ == "__main__":
    sys.exit(main())
