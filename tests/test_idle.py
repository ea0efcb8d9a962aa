"""An idle dispatcher costs nothing: no thread of it wakes up."""

import contextlib
import sys
import threading
import time
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the context switches from /proc")
@pytest.mark.thread_unsafe(reason="looks at every thread of the process")
def test_no_thread_of_an_idle_dispatcher_wakes_up(make_bus, gate, eventually):
    bus = make_bus(name="idle")
    calls = []

    def switches():
        """Per thread of the dispatcher: how often it was given the processor."""
        counts = {}
        for thread in threading.enumerate():
            if thread.name.startswith("idle-"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # an extra worker that ends just now
                    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
                    lines = [line for line in status.splitlines() if "ctxt_switches" in line]
                    counts[thread.name] = sum(int(line.split()[1]) for line in lines)
        return counts

    def stays_asleep():
        before = switches()
        threading.Event().wait(0.5)  # the time that is measured
        return before and switches() == before

    subscriptions = [bus.subscribe_to(number % 100, calls.append) for number in range(1000)]
    bus.subscribe_to(1000, gate.hold)
    bus.publish_to(1000, gate)  # a slow one too, so that also the extra worker and the watch have to rest
    gate.wait_until_held()
    for number in range(100):
        bus.publish_to(number, number)
    eventually(lambda: len(calls) == 1000)
    gate.open()

    eventually(stays_asleep)  # once the extra workers are gone
    assert sum(subscription.delivered for subscription in subscriptions) == 1000


def test_publishers_that_wait_for_room_sleep(make_bus, gate, spawn, eventually, deadline):
    bus = make_bus()
    bus.subscribe(int, gate.hold, max_queue=1)
    bus.publish(0)
    gate.wait_until_held()
    waiting = [spawn(bus.publish, number) for number in range(3)]

    def stay_asleep():
        before = time.process_time()
        threading.Event().wait(0.5)  # the time that is measured
        return time.process_time() - before < 0.05  # they look ten times a second; awake, they take all of it

    eventually(stay_asleep)
    assert not any(future.done() for future in waiting)
    gate.open()
    assert [future.result(deadline) for future in waiting] == [1, 1, 1]
