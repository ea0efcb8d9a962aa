"""How long a quick handler waits beside slow ones: fails where it was late too often.

    python benchmarks/neighbours.py [--late MS]

Slow handlers that wait (as for a network: without the GIL) get an event each, of the quick handler's class or of
classes of their own; then the quick handler gets one, and the same again when a slow call could have ended twice. The
slow ones subscribe first. Of 100 events the first 50 are left to Ringcast to learn who is slow; none of the last 50 may
come LATE ms (5) after it was published or later. Then 100 handlers of 100 classes hang at once, and the quick one is to
run.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time

from ringcast import Dispatcher
from ringcast.bench.latency import Stamp

EVENTS = 100
SLOW_MS = (2, 8, 18, 25, 100)
NEIGHBOURS = (1, 20)
HANGING = 100
HANGING_MS = 50  # within which the quick handler is to run beside them


def stamp() -> Stamp:
    """The quick handler's event, due at once."""
    return Stamp(time.perf_counter_ns())


def late_by(event: Stamp) -> float:
    """How long after it was published, in ms."""
    return (time.perf_counter_ns() - event.due) / 1e6


def waits(slow_ms: float, neighbours: int, same_class: bool) -> list[float]:
    """How long each event took to the quick handler, in ms."""
    taken: list[float] = []
    classes: list[type] = [Stamp] if same_class else [type(f"Slow{at}", (), {}) for at in range(neighbours)]
    with Dispatcher() as bus:
        for at in range(neighbours):
            bus.subscribe(classes[at % len(classes)], lambda event: time.sleep(slow_ms / 1000))
        bus.subscribe(Stamp, lambda event: taken.append(late_by(event)))
        for _ in range(EVENTS):
            if not same_class:
                for event_class in classes:
                    bus.publish(event_class())
            bus.publish(stamp())
            time.sleep(2 * slow_ms / 1000)
        bus.wait_idle()
    return taken


def beside_hanging() -> tuple[float, float]:
    """How long the quick handler waits, in ms: behind the events of those that hang, then when all of them do."""
    gate, entered = threading.Event(), threading.Semaphore(0)
    ran: list[float] = []
    has_run = threading.Semaphore(0)

    def hang(event: object) -> None:
        entered.release()
        gate.wait()

    def quick(event: Stamp) -> None:
        ran.append(late_by(event))
        has_run.release()

    with Dispatcher() as bus:
        classes = [type(f"Hanging{at}", (), {}) for at in range(HANGING)]
        for event_class in classes:
            bus.subscribe(event_class, hang)
        bus.subscribe(Stamp, quick)
        for event_class in classes:
            bus.publish(event_class())
        bus.publish(stamp())
        has_run.acquire()
        for _ in range(HANGING):
            entered.acquire()
        bus.publish(stamp())
        has_run.acquire()
        gate.set()
    return ran[0], ran[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--late", type=float, default=5.0, metavar="MS", help="from how many ms on an event is late")
    late = parser.parse_args().late
    missed = 0
    print(f"events late by {late:g} ms or more, of the last 50 (asked: 0)")
    print(f"{'neighbours':>10}  {'of':<13} {'each call':>9}  {'late':>4}  {'longest':>9}  {'late of the first 50':>20}")
    for same_class in (True, False):
        for neighbours in NEIGHBOURS:
            for slow_ms in SLOW_MS:
                taken = waits(slow_ms, neighbours, same_class)
                learning, rest = taken[: EVENTS // 2], taken[EVENTS // 2 :]
                count = sum(ms >= late for ms in rest)
                missed += count > 0
                whose = "its class" if same_class else "other classes"
                print(
                    f"{neighbours:>10}  {whose:<13} {slow_ms:>6} ms  {count:>4}  {max(rest):>6.1f} ms  "
                    f"{sum(ms >= late for ms in learning):>20}",
                    flush=True,
                )
    at_once, later = beside_hanging()
    missed += later > HANGING_MS
    print(f"{HANGING} hang: the quick one runs after {later:.0f} ms (asked: {HANGING_MS})")
    print(f"published right behind the events of those that hang: after {at_once:.0f} ms")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
