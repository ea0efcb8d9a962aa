"""What an idle dispatcher costs: processor time and context switches of its threads (Linux).

    python benchmarks/idle.py [--seconds N] [--subscriptions N] [--types N]

Every type has had an event, so the threads are there. Exits with 1 if a thread of the dispatcher ran meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from ringcast import Dispatcher


class Usage(NamedTuple):
    """What one thread has used so far."""

    nanoseconds: int
    switches: int


def usage(thread: threading.Thread) -> Usage:
    task = Path("/proc/self/task") / str(thread.native_id)
    status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
    switches = int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])
    return Usage(int((task / "schedstat").read_text().split()[0]), switches)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--subscriptions", type=int, default=1000)
    parser.add_argument("--types", type=int, default=100)
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        print("idle: needs Linux's /proc", file=sys.stderr)
        return 2
    with Dispatcher(name="idle") as bus:
        subscriptions = [
            bus.subscribe_to(number % options.types, lambda event: None) for number in range(options.subscriptions)
        ]
        for type_id in range(options.types):
            bus.publish_to(type_id, "event")
        deadline = time.monotonic() + 10
        while any(subscription.pending for subscription in subscriptions) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1.5)  # the watch ends its last tick, extra workers end
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("idle-")]
        before = {thread.name: usage(thread) for thread in threads}
        time.sleep(options.seconds)
        after = {thread.name: usage(thread) for thread in threads}
    for name, used in after.items():
        cpu, switches = used.nanoseconds - before[name].nanoseconds, used.switches - before[name].switches
        print(f"{name}: {cpu / 1e6:.3f} ms of processor, {switches} context switches in {options.seconds:g} s")
    return 1 if after != before else 0


if __name__ == "__main__":
    sys.exit(main())
