"""The kinds of event loops that the tests run on: asyncio's own, the same with tasks that begin at once, and uvloop.

RINGCAST_LOOP=eager or uvloop has all tests run on one of these, also those that are programs of their own.
"""

import asyncio
from pathlib import Path

LOOPS = {
    "asyncio": "from asyncio import new_event_loop",
    "uvloop": "from uvloop import new_event_loop",
    "eager": """
import asyncio
from asyncio import new_event_loop as new_plain_loop

def new_event_loop():
    loop = new_plain_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop
""",
}
"""Source of Python that makes a function `new_event_loop`."""


def loop_factory_of(source):
    """The function that the source makes."""
    names = {}
    exec(source, names)
    return names["new_event_loop"]


def use(kind):
    """Has `asyncio.run` and `asyncio.new_event_loop` make loops of that kind in this process.

    A policy would do so too, but is deprecated from Python 3.14 on.
    """
    asyncio.new_event_loop = asyncio.events.new_event_loop = loop_factory_of(LOOPS[kind])


def prologue(kind):
    """A line for the beginning of a program that is to use loops of that kind."""
    folder = str(Path(__file__).parent)
    return f"import sys; sys.path.insert(0, {folder!r}); import loops; loops.use({kind!r}); del sys.path[0], loops\n"
