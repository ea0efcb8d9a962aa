"""What free-threaded Python gives: 4 types, a handler of about 10 us of Python code each, with the GIL and without.

python benchmarks/parallel.py [--events N] [--rounds N] [--at-least RATIO]

To be run with a free-threaded interpreter: it runs itself with PYTHON_GIL=1 and PYTHON_GIL=0 in turn and prints the
events per second of each, the medians of the rounds, and the ratio. With --at-least it fails where the ratio is less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time

from ringcast import Dispatcher
from ringcast.testing import drain

SECONDS = 10e-6  # of work in a handler
TYPES = 4


def work(turns: int) -> None:
    total = 0
    for number in range(turns):
        total += number


def seconds_of(turns: int) -> float:
    """How long work() takes for so many turns: the least of several, as what else runs only adds to it."""
    least = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            work(turns)
        least = min(least, (time.perf_counter() - started) / 100)
    return least


def handlers(turns: int) -> list[tuple[type, object]]:
    """One class and one handler of its own for each type."""
    made: list[tuple[type, object]] = []
    for number in range(TYPES):

        def handler(event: object) -> None:
            work(turns)

        made.append((type(f"Event{number}", (), {}), handler))
    return made


def measure(events: int, turns: int) -> dict[str, float]:
    """Publishes so many events, of the types in turn; the time from the first until all are delivered."""
    made = handlers(turns)
    with Dispatcher(max_queue=max(events, 1)) as bus:
        subscriptions = [bus.subscribe(event_class, handler) for event_class, handler in made]
        for event_class, _ in made:  # threads are started before the clock
            bus.publish(event_class())
        drain(bus)
        published = [event_class() for event_class, _ in made]
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(events // TYPES):
            for event in published:
                bus.publish(event)
        drain(bus)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        delivered = sum(subscription.delivered for subscription in subscriptions)
    assert delivered == events // TYPES * TYPES + TYPES, delivered
    return {
        "rate": events / seconds,
        "cpu": processor / events,
        "cores": processor / seconds,
        "work": seconds_of(turns),
    }


def run(gil: str, events: int, turns: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--once", str(turns), "--events", str(events)]
    result = subprocess.run(command, env={**os.environ, "PYTHON_GIL": gil}, stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-least", type=float, metavar="RATIO")
    parser.add_argument("--once", type=int, metavar="TURNS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.events, options.once)))
        return
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit("needs a free-threaded interpreter")

    turns = round(SECONDS / seconds_of(1000) * 1000)
    rounds = [(run("1", options.events, turns), run("0", options.events, turns)) for _ in range(options.rounds)]
    with_gil = statistics.median(one["rate"] for one, _ in rounds)
    without = statistics.median(other["rate"] for _, other in rounds)
    microseconds = statistics.median(each["work"] for both in rounds for each in both) * 1e6
    print(f"{TYPES} types, a handler of {microseconds:.1f} us each, {options.events:,} events, {options.rounds} rounds")
    for label, rate, each in (
        ("with the GIL", with_gil, [one for one, _ in rounds]),
        ("without", without, [other for _, other in rounds]),
    ):
        cores, cpu = (statistics.median(one[key] for one in each) for key in ("cores", "cpu"))
        print(f"{label:16} {rate:10,.0f} events/s, {cores:.2f} cores in use, {cpu * 1e6:.1f} us of them for each event")
    print(
        f"ratio            {without / with_gil:10.2f}   of the medians; by round: "
        + " ".join(f"{other['rate'] / one['rate']:.2f}" for one, other in rounds)
    )
    if options.at_least and without / with_gil < options.at_least:
        sys.exit(f"the ratio is less than {options.at_least}")


if __name__ == "__main__":
    main()
