"""What free-threaded Python gives: 4 types, a handler of about 10 us of Python code each, with the GIL and without.

python benchmarks/parallel.py [--events N] [--rounds N] [--at-least RATIO]

To be run with a free-threaded interpreter: it runs itself with PYTHON_GIL=1 and PYTHON_GIL=0 in turn and prints the
events per second of each, the medians of the rounds, and the ratio. With --at-least it fails where the ratio is less.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import time
from functools import partial

from ringcast.bench import throughput, ways
from ringcast.bench.timing import in_turn, least, seconds, spread
from ringcast.bench.work import Load, Shape, Tally, Way

SECONDS = 10e-6  # of work in a handler
TYPES = 4
QUEUED = Way("Ringcast", "queued", ways.queued)


def median(values: list[float]) -> float:
    return spread(values).median


def work(turns: int) -> None:
    total = 0
    for number in range(turns):
        total += number


def seconds_of(turns: int) -> float:
    """How long work() takes for so many turns: the least of several, as what else runs only adds to it."""

    def run() -> None:
        for _ in range(100):
            work(turns)

    return least(lambda: seconds(run) / 100, 20)


def measure(events: int, turns: int) -> dict[str, float]:
    """Publishes so many events, of the types in turn; the time from the first until all are delivered."""

    def working() -> Tally:
        seen = 0

        def handler(event: object) -> None:
            nonlocal seen
            work(turns)
            seen += 1

        return Tally(handler, lambda: seen)

    load = Load(Shape(TYPES, 1), working)
    with QUEUED.open(load) as channel:
        running = throughput.Running(QUEUED, load, channel)
        running.run()  # threads are started before the clock
        running.events = events // TYPES * TYPES
        processor = time.process_time()
        elapsed = running.run() * running.events / 1e9
        processor = time.process_time() - processor
    return {
        "rate": running.events / elapsed,
        "cpu": processor / running.events,
        "cores": processor / elapsed,
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
    both = in_turn([partial(run, gil, options.events, turns) for gil in "10"], options.rounds)
    rates = [[each["rate"] for each in one] for one in both]
    microseconds = median([each["work"] for one in both for each in one]) * 1e6
    print(f"{TYPES} types, a handler of {microseconds:.1f} us each, {options.events:,} events, {options.rounds} rounds")
    for label, one, rate in zip(("with the GIL", "without"), both, rates, strict=True):
        cores, us = median([each["cores"] for each in one]), median([each["cpu"] for each in one]) * 1e6
        print(
            f"{label:16} {median(rate):10,.0f} events/s, {cores:.2f} cores in use, {us:.1f} us of them for each event"
        )
    with_gil, without = rates
    of_medians = median(without) / median(with_gil)
    by_round = " ".join(f"{other / one:.2f}" for one, other in zip(with_gil, without, strict=True))
    print(f"ratio            {of_medians:10.2f}   of the medians; by round: {by_round}")
    if options.at_least and of_medians < options.at_least:
        sys.exit(f"the ratio is less than {options.at_least}")


if __name__ == "__main__":
    main()
