"""A long run of everything at once, with an account that has to balance to the event.

    python benchmarks/soak.py --seconds 60 [--seed N] [--round SECONDS] [--break lose|double|swap|count|change|invent]

Rounds of a few seconds, each with a dispatcher of random settings: publishers in threads, in handlers, in an event loop
and from C, of single events and of many, of objects and of records; subscriptions of all modes and policies, of events
and of batches, with and without filters, some slow, some failing; some of them for the whole round, others subscribed
and cancelled in every way meanwhile. Each handler keeps a ledger of what it is given. At the end of a round the
dispatcher is closed, in half of the rounds while the publishers are still at it, and the oracle compares:

    published = delivered + dropped + filtered      for each subscription (dropped: by its policy, or discarded)
    delivered = what its handler has seen, errors = what it has raised
    order     = of each publisher's events no one overtakes another; without a dropping policy none is missing
    contents  = records are as they were published, also those that were kept
    lifetime  = every event is freed

For a subscription of the whole round "published" is exact. For one that comes or goes while events are published it is
known but for the events that each publisher may have in flight at that moment: these bounds are checked.

Exits with 1 if anything does not balance, or nothing moves for a minute. --break falsifies ledgers of every kind, to
show that the oracle can fail. The same seed gives the same settings, not the same interleaving.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import random
import sys
import time

from soaking.ledger import BREAKS
from soaking.rounds import STALL, Round

SHOWN = 60  # complaints
COLUMNS = ("subscriptions", "accounted", "delivered", "dropped", "filtered", "errors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--round", type=float, default=3.0, help="seconds of publishing in each round")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--break", dest="falsify", choices=BREAKS, default="", help="show that the oracle can fail")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}, Python {sys.version.split()[0]}, GIL {getattr(sys, '_is_gil_enabled', lambda: True)()}")
    report = Report()
    started, rounds = time.monotonic(), 0
    while rounds == 0 or time.monotonic() - started < options.seconds:
        faulthandler.dump_traceback_later(options.round + 20 * STALL, exit=True)  # where a round itself cannot tell
        one = Round(seed + rounds, options.falsify)
        for complaint in one.run(min(options.round, options.seconds)):
            report.wrong += 1
            if report.wrong <= SHOWN:
                print(f"round {rounds} (seed {seed + rounds}): {complaint}", flush=True)
        report.add(one)
        rounds += 1
    report.show(rounds, time.monotonic() - started)
    return 1 if report.wrong else 0


class Report:
    """The figures of all rounds."""

    def __init__(self) -> None:
        self.wrong = 0
        self.refused = 0
        self.ways: collections.Counter[str] = collections.Counter()
        self.shapes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.policies: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def add(self, one: Round) -> None:
        self.refused += sum(publisher.refused for publisher in one.publishers)
        self.ways.update(one.ways())
        for ledger in one.ledgers:
            sub = ledger.subscription
            figures = {name: getattr(sub, name) for name in COLUMNS[2:]}
            figures |= {"subscriptions": 1, "accounted": sub.delivered + sub.dropped + sub.filtered}
            self.shapes[ledger.shape].update(figures)
            self.policies[sub.policy].update(figures)

    def show(self, rounds: int, elapsed: float) -> None:
        print(f"\n{'':26s}" + "".join(f"{column:>15s}" for column in COLUMNS))
        for table in (self.shapes, self.policies):
            for name in sorted(table):
                print(f"{name:26s}" + "".join(f"{table[name][column]:15,d}" for column in COLUMNS))
            print()
        total: collections.Counter[str] = collections.Counter()
        for row in self.shapes.values():
            total.update(row)
        print(f"{'all':26s}" + "".join(f"{total[column]:15,d}" for column in COLUMNS))
        print("\npublished: " + "; ".join(f"{name} {count:,d}" for name, count in sorted(self.ways.items())))
        published = sum(self.ways.values()) - self.ways["wait_for"]
        print(f"{rounds} rounds in {elapsed:.0f} s: {published:,d} events published, {self.refused:,d} refused")
        if self.wrong:
            print(f"THE ACCOUNT DOES NOT BALANCE: {self.wrong} complaints")
        else:
            print("the account balances: 0 complaints")


if __name__ == "__main__":
    sys.exit(main())
