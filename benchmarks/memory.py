"""What many types cost in memory: resident size for a subscriber and an event each.

    python benchmarks/memory.py [--types N] [--limit MIB]

Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import sys

from ringcast import Dispatcher
from ringcast.bench.memory import resident
from ringcast.bench.work import Load, Shape, ignore_events


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=100.0, help="MiB")
    options = parser.parse_args()
    classes = Load(Shape(options.types, 1)).classes
    events = [event_class() for event_class in classes]
    handler = ignore_events().handler
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
