"""What is promised on free-threaded Python only."""

import asyncio
import os
import sys
import sysconfig
import threading
from dataclasses import dataclass

import pytest

from ringcast import Dispatcher

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED") or "PYTHON_GIL" in os.environ,  # which decides, not the modules
    reason="for free-threaded Python whose GIL is not set by PYTHON_GIL",
)

IMPORTS = """
import importlib, pkgutil, sys
import ringcast
for module in pkgutil.iter_modules(ringcast.__path__, "ringcast."):
    if module.name != "ringcast.__main__":
        importlib.import_module(module.name)
print(sys._is_gil_enabled())
"""


@dataclass(frozen=True)
class Tick:
    number: int


async def ignore(tick: Tick) -> None:
    pass


def test_importing_any_module_leaves_the_gil_off(run_python):
    result = run_python(IMPORTS)
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_the_gil_is_off_in_these_tests():
    assert not sys._is_gil_enabled()


@pytest.mark.thread_unsafe(reason="takes long: it has its own threads")
def test_cancels_that_cross_publishes_leave_nothing_to_wait_for(spawn, deadline):
    """A publisher that sees the end of a subscription may be about to tell its event loop when another thread lets it
    leave: nobody gave the lane's token back then, and close waited for ever, in about one of 600 rounds."""
    loops = [asyncio.new_event_loop() for _ in range(2)]
    threads = [spawn(loop.run_forever) for loop in loops]

    def publish_and_cancel(bus, start, subscriptions):
        start.wait(deadline)
        for subscription in subscriptions:
            bus.publish(Tick(0))
            subscription.cancel(discard=True)

    try:
        for _ in range(1500):
            bus = Dispatcher()
            subscriptions = [bus.subscribe(ignore, loop=loops[number % 2]) for number in range(16)]
            start = threading.Barrier(2)
            halves = [spawn(publish_and_cancel, bus, start, half) for half in (subscriptions[::2], subscriptions[1::2])]
            for half in halves:
                half.result(deadline)
            bus.close(deadline)
            assert [subscription.pending for subscription in subscriptions] == [0] * 16
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.result(deadline)
            loop.close()
