"""Every example of the documentation has a variant that goes wrong, with the message that it gives.

A variant is the example with one mistake in it, such as a newcomer makes. The examples before it on the page run as
they stand there. `EXAMPLES` has the variants of each example by page and heading, and a number where a heading has
several.
"""

import contextlib
import gc
import io
import logging
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from limits import DEADLINE

from ringcast import (
    ClosedError,
    CloseTimeoutError,
    Dispatcher,
    EventClassError,
    HandlerTypeError,
    InstallError,
    LoopBlockedError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    RecordError,
    StreamError,
    TypeIdError,
    WaitTimeoutError,
)
from ringcast.compat.pyee import PyeeError

for library in ("blinker", "numpy", "prometheus_client", "psygnal", "pyee"):
    pytest.importorskip(library, reason="pip install 'ringcast[docs]' for these tests")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


# --- the examples of a page ---


class Block(NamedTuple):
    """A block of a page: an example, or what else is set apart from the text."""

    heading: str
    language: str
    text: str


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT if page.parent == ROOT else DOCS))


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, and the indented ones, which are commands or else Python."""
    heading, lines = "", text.splitlines()
    while lines:
        line = lines.pop(0)
        if fence := re.match(r"```(\S+)", line):
            end = lines.index("```")
            yield Block(heading, fence[1], "\n".join(lines[:end]))
            del lines[: end + 1]
        elif line.startswith("    "):
            indented = [line]
            while lines and (lines[0].startswith("    ") or not lines[0]):
                indented.append(lines.pop(0))
            is_command = re.match(r" +(pip|python3?|tail) ", line)
            yield Block(heading, "command" if is_command else "python", "\n".join(each[4:] for each in indented))
        elif line.startswith("#"):
            heading = line.lstrip("# ")


def examples_of(page: Path) -> dict[str, str]:
    """The Python examples of a page by their names: the heading, and a number where there are several."""
    found = [block for block in blocks_of(page.read_text("utf-8")) if block.language == "python"]
    headings = [block.heading for block in found]
    numbers = [headings[: at + 1].count(heading) for at, heading in enumerate(headings)]
    return {
        f"{block.heading}, {number}" if headings.count(block.heading) > 1 else block.heading: block.text
        for block, number in zip(found, numbers, strict=True)
    }


# --- what a variant is, and how it ends ---


class Ending(NamedTuple):
    """Where the message of a mistake is seen, of which class it is, and a regular expression that is in it."""

    where: str
    error: type[BaseException] | None
    words: str


def raised(error: type[BaseException], words: str) -> Ending:
    """The example ends with the exception."""
    return Ending("raised", error, words)


def logged(error: type[BaseException], words: str) -> Ending:
    """A handler fails, which the logger `ringcast` tells; the example itself goes on."""
    return Ending("logged", error, words)


def warned(words: str) -> Ending:
    """Python warns: of what was not awaited."""
    return Ending("warned", RuntimeWarning, words)


def printed(words: str) -> Ending:
    """The example prints the message, as it prints that of its own."""
    return Ending("printed", None, words)


class Wrong(NamedTuple):
    """A variant of an example.

    Attributes:
        mistake: what is wrong.
        changes: what is written in place of what.
        ending: what comes of it.
        then: lines after the example, where it only declares what they use.
    """

    mistake: str
    changes: dict[str, str]
    ending: Ending
    then: str = ""


NO_LOOP = "there is no running event loop: subscribe inside one, or give it as loop="
NO_ANNOTATION = "has no annotation; annotate it with the event class, or name the class"
NO_CALLABLE = "a handler is a callable, not "
IS_CALLED = r"is it called already, show\(event\) in place of show"
NEEDED = "an event class or a handler is needed, not "
NO_NAMES = "events are told apart by class, not by name"
NO_CLASS = "an event class is a class, not "
NO_ID = "a type id is an integer from 0 to 0xFFFFFFFF, not "
IS_CLOSED = "dispatcher 'ringcast' is closed: it takes no events and no subscriptions"
MODES = "mode must be one of 'queued', 'direct', 'asyncio', not "
POLICIES = "policy must be one of 'block', 'raise', 'drop_newest', 'drop_oldest', 'latest', not "
FAILED_ON = "handler .* failed on "
AS_A_CLASS = r"an event is published, and __main__.{0} is a class: publish\(__main__.{0}\(...\)\)"

EXAMPLES: dict[str, dict[str, list[Wrong]]] = {
    "README.md": {
        "Ringcast": [
            Wrong(
                "the annotation is forgotten",
                {"tick: Tick": "tick"},
                raised(HandlerTypeError, f"parameter 'tick' of handler __main__.show {NO_ANNOTATION}"),
            ),
            Wrong(
                "a name in the annotation is misspelt",
                {"tick: Tick": "tick: 'Tik'"},
                raised(
                    HandlerTypeError, r"'tick' .*annotation 'Tik' cannot be resolved \(NameError: name 'Tik' is not"
                ),
            ),
            Wrong(
                "the class in place of an instance",
                {"Tick(101.5)": "Tick"},
                raised(EventClassError, AS_A_CLASS.format("Tick")),
            ),
            Wrong(
                "a handler of two parameters",
                {"tick: Tick": "bus, tick: Tick"},
                raised(
                    HandlerTypeError, r"needs 2 arguments \(bus, tick\), but is called with one.*: take the event alone"
                ),
            ),
            Wrong(
                "an async handler without a loop",
                {"def show": "async def show"},
                raised(OptionError, NO_LOOP),
            ),
            Wrong(
                "published after the block",
                {"    bus.publish": "bus.publish"},
                raised(ClosedError, IS_CLOSED),
            ),
            Wrong(
                "a list is expected, with batch=",
                {"@bus.on ": "@bus.on(batch=100) "},
                raised(HandlerTypeError, r"with batch= it is given a list of events; annotate it list\[EventClass\]"),
            ),
            Wrong(
                "the class of dispatchers in place of one",
                {"@bus.on ": "@Dispatcher.on "},
                raised(
                    HandlerTypeError,
                    r"on is called on a dispatcher, not .*show .*is none: bus = Dispatcher\(\), and then bus.on$",
                ),
            ),
        ],
    },
    "tutorial.md": {
        "An event and a handler, 1": [
            Wrong(
                "an id without ClassVar is a field",
                {"    status: int": "    status: int\n    __event_type__: int = 0x01"},
                raised(TypeIdError, r"Request has no type id of its own: .* annotate it ClassVar\[int\]"),
                then="from ringcast import Dispatcher\nDispatcher().subscribe(Request, print)",
            ),
        ],
        "An event and a handler, 2": [
            Wrong(
                "the arguments are swapped",
                {"subscribe(show)": "subscribe(show, Request)"},
                raised(EventClassError, r"the event class comes first: subscribe\(__main__.Request, __main__.show\)"),
            ),
            Wrong(
                "the handler is forgotten",
                {"subscribe(show)": "subscribe(Request)"},
                raised(
                    HandlerTypeError,
                    r"Request is a class, and there is no handler: subscribe\(__main__.Request, handler\)",
                ),
            ),
            Wrong(
                "the handler is called",
                {"subscribe(show)": 'subscribe(show(Request("10.0.0.1", "/", 200)))'},
                raised(HandlerTypeError, rf"{NO_CALLABLE}None \(NoneType\): {IS_CALLED}"),
            ),
            Wrong(
                "the name of the class",
                {"subscribe(show)": 'subscribe("Request", show)'},
                raised(EventClassError, rf"{NO_CLASS}'Request' \(str\): {NO_NAMES}"),
            ),
            Wrong(
                "a handler changes the event",
                {"    print(request.status": "    request.status = 0\n    print(request.status"},
                logged(AttributeError, rf"{FAILED_ON}Request\(client='10.0.0.1'.*: cannot assign to field 'status'"),
            ),
        ],
        "Several handlers": [
            Wrong(
                "annotated with the events",
                {"count_client(request: Request)": "count_client(request: requests)"},
                raised(
                    HandlerTypeError, "parameter 'request' of handler __main__.count_client .* which is not a class"
                ),
            ),
            Wrong(
                "a handler of lists",
                {"count_client(request: Request)": "count_client(request: list[Request])"},
                raised(HandlerTypeError, "which is a list of events; say how many at most: batch=100"),
            ),
        ],
        "Only some events": [
            Wrong(
                "the list in place of its method",
                {"failed.append": "failed"},
                raised(HandlerTypeError, rf"{NO_CALLABLE}\[\] \(list\)"),
            ),
            Wrong(
                "no class for a method that has no annotation",
                {"Request, failed": "failed"},
                raised(HandlerTypeError, f"parameter 'object' of handler list.append {NO_ANNOTATION}"),
            ),
            Wrong(
                "a condition without a parameter",
                {"lambda request: request.status": "lambda: 200"},
                raised(
                    OptionError,
                    "where=__main__.<lambda> takes no positional argument, but is called with one, the event",
                ),
            ),
            Wrong(
                "a condition that is evaluated at once",
                {"lambda request: request.status": "200"},
                raised(OptionError, r"where must be callable, not False \(bool\)"),
            ),
            Wrong(
                "a condition that fails",
                {"request.status >=": "request.code >="},
                logged(AttributeError, rf"{FAILED_ON}Request\(.*'Request' object has no attribute 'code'"),
            ),
            Wrong(
                "an option is misspelt",
                {"where=": "when="},
                raised(OptionError, "unknown option 'when'; there are: batch, concurrency, .*weak, where"),
            ),
        ],
        "Handlers that fail": [
            Wrong(
                "a word in place of a function",
                {"on_error=report": 'on_error="report"'},
                raised(OptionError, "on_error must be callable, \"raise\" or None, not 'report'"),
            ),
            Wrong(
                "a report of two parameters",
                {"report(failure)": "report(exception, event)"},
                raised(OptionError, r"on_error=__main__.report needs 2 arguments .*: take the failure alone"),
            ),
            Wrong(
                "an async report",
                {"def report": "async def report"},
                raised(OptionError, "on_error=__main__.report is an async def function, which nobody would await"),
            ),
            Wrong(
                "the report fails itself",
                {"failure.exception": "failure.error"},
                logged(AttributeError, "on_error __main__.report failed on a failure of handler __main__.fragile"),
            ),
        ],
        "Events that lead to events": [
            Wrong(
                "a method of the class",
                {"Watch(bus).count": "Watch.count"},
                raised(HandlerTypeError, r"needs 2 arguments \(self, request\).*: use the bound method of an instance"),
            ),
            Wrong(
                "an instance that cannot be called",
                {"Watch(bus).count": "Watch(bus)"},
                raised(HandlerTypeError, rf"{NO_CALLABLE}<.*> \(__main__.Watch\)"),
            ),
            Wrong(
                "closed before the handlers have published",
                {
                    "    bus.wait_idle()\n": "",
                    "        self.failures[request.client] +=": (
                        "        while not self.bus.closed: pass\n        self.failures[request.client] +="
                    ),
                },
                logged(ClosedError, f"handler __main__.Watch.count failed on .*{IS_CLOSED}"),
            ),
            Wrong(
                "a handler publishes a class",
                {"Suspect(request.client, self.failures[request.client])": "Suspect"},
                logged(EventClassError, f"handler __main__.Watch.count failed on .*{AS_A_CLASS.format('Suspect')}"),
            ),
        ],
        "A slow handler": [
            Wrong(
                "a policy is misspelt",
                {'"latest"': '"newest"'},
                raised(OptionError, f"{POLICIES}'newest'"),
            ),
            Wrong(
                "a key without the policy",
                {'policy="latest", ': ""},
                raised(OptionError, 'key= is for policy="latest"'),
            ),
            Wrong(
                "the name of an attribute as the key",
                {"lambda suspect: suspect.client": '"client"'},
                raised(OptionError, r"key must be callable, not 'client' \(str\)"),
            ),
            Wrong(
                "a key that fails",
                {"lambda suspect: suspect.client": "lambda suspect: suspect.address", "told[-1]": "told"},
                logged(AttributeError, rf"{FAILED_ON}Suspect\(.*no attribute 'address'"),
            ),
            Wrong(
                "a key that cannot be hashed",
                {"lambda suspect: suspect.client": "lambda suspect: [suspect.client]", "told[-1]": "told"},
                logged(TypeError, "unhashable type: 'list'"),
            ),
        ],
    },
    "guides/asyncio.md": {
        "asyncio": [
            Wrong(
                "a plain with block in a coroutine",
                {"async with": "with", '        await asyncio.to_thread(bus.publish, Message("two"))\n': ""},
                raised(
                    LoopBlockedError,
                    r"close\(\) would stop the event loop that has .*: await aclose\(\), or use async with$",
                ),
            ),
            Wrong(
                "waiting inside of the loop",
                {"await asyncio.to_thread(": "bus.wait_idle()\n        await asyncio.to_thread("},
                raised(
                    LoopBlockedError,
                    r"wait_idle\(\) would stop the event loop that has .*: await asyncio.to_thread\(wait_idle\)$",
                ),
            ),
            Wrong(
                "an async handler in direct mode",
                {"@bus.on": '@bus.on(mode="direct")'},
                raised(OptionError, 'send is an async def function: its mode cannot be "direct"'),
            ),
            Wrong(
                "main is not run",
                {"asyncio.run(main())": "main()"},
                warned("coroutine 'main' was never awaited"),
            ),
            Wrong(
                "apublish is not awaited",
                {"await asyncio.to_thread(bus.publish, ": "bus.apublish(", 'Message("two"))': 'Message("two"))'},
                warned("coroutine 'Dispatcher.apublish' was never awaited"),
            ),
            Wrong(
                "subscribed in a thread, which has no loop",
                {
                    "        @bus.on\n": "",
                    '        bus.publish(Message("one"))': "        await asyncio.to_thread(bus.subscribe, send)",
                },
                raised(OptionError, NO_LOOP),
            ),
            Wrong(
                "a word in place of the loop",
                {"@bus.on": '@bus.on(loop="asyncio")'},
                raised(OptionError, "loop must be an asyncio event loop, not 'asyncio' .str."),
            ),
        ],
        "One at a time, or several": [
            Wrong(
                "several calls of a plain function",
                {"async def fetch": "def fetch", "await release.wait()": "pass"},
                raised(OptionError, 'concurrency= does not go with this subscription: it is for mode="asyncio"'),
            ),
            Wrong(
                "no call at all",
                {"concurrency=10": "concurrency=0"},
                raised(OptionError, "concurrency must be from 1 to 2147483648, not 0"),
            ),
            Wrong(
                "a coroutine in the handler is not awaited",
                {"await release.wait()": "release.wait()"},
                warned("coroutine 'Event.wait' was never awaited"),
            ),
        ],
        "A stream": [
            Wrong(
                "read by a plain for",
                {"async for": "for"},
                raised(TypeError, "'Stream' object is not iterable"),
            ),
            Wrong(
                "the class is forgotten",
                {"stream(Message, where=lambda message: message.text)": "stream(lambda message: message.text)"},
                raised(EventClassError, rf"{NO_CLASS}<function .*> \(function\)"),
            ),
            Wrong(
                "not left, and read by nobody",
                {
                    ", bus.stream(Message, where=lambda message: message.text) as messages:": ":",
                    "        for text": "        messages = bus.stream(Message)\n        for text",
                    "        async for": "        await bus.aclose(timeout=0)\n        async for",
                },
                raised(
                    CloseTimeoutError,
                    r"not all was delivered within 0 s; still at work: stream of __main__.Message \(3 pending\)$",
                ),
            ),
            Wrong(
                "read by two tasks",
                {"async for": "await asyncio.gather(*(anext(messages) for _ in range(4)))\n        async for"},
                raised(StreamError, "a stream is for one task at a time"),
            ),
            Wrong(
                "read in another loop",
                {"async for": "await asyncio.to_thread(asyncio.run, anext(messages))\n        async for"},
                raised(RuntimeError, "a stream is read in the event loop that it was made in"),
            ),
            Wrong(
                "made outside of a loop",
                {"asyncio.run(main())": "Dispatcher().stream(Message)"},
                raised(OptionError, "there is no running event loop: a stream is made in the loop that reads it"),
            ),
        ],
        "The next event": [
            Wrong(
                "published before the wait has begun",
                {
                    "        await asyncio.sleep(0) ": "        #",
                    "timeout=5": "timeout=0.01",
                },
                raised(WaitTimeoutError, "no __main__.Message came within 0.01 s$"),
            ),
            Wrong(
                "a condition that no event meets",
                {'== "yes"': '== "YES"', "timeout=5": "timeout=0.01"},
                raised(WaitTimeoutError, "no __main__.Message came within 0.01 s: where= is false for the 2 that came"),
            ),
            Wrong(
                "closed while somebody waits",
                {'        bus.publish(Message("yes"))': "        await bus.aclose()"},
                raised(ClosedError, "^dispatcher 'ringcast' was closed before there was such an event"),
            ),
            Wrong(
                "a time in words",
                {"timeout=5": 'timeout="5"'},
                raised(OptionError, "timeout must be None or a number of seconds, not '5'"),
            ),
        ],
    },
    "guides/back-pressure.md": {
        "Block": [
            Wrong(
                "the error of another policy",
                {"except PublishTimeoutError": "except QueueFullError"},
                raised(
                    PublishTimeoutError,
                    "no room in time for an event of .*: .* has max_queue=[0-9]+ events",
                ),
            ),
            Wrong(
                "a negative timeout",
                {"timeout=0": "timeout=-1"},
                raised(OptionError, "timeout must be None or at least 0 seconds, not -1"),
            ),
            Wrong(
                "no queue",
                {"max_queue=2": "max_queue=0"},
                raised(OptionError, "max_queue must be from 1 to 50000, not 0"),
            ),
            Wrong(
                "a longer queue than the dispatcher's",
                {"max_queue=2": "max_queue=100_000"},
                raised(OptionError, "max_queue must be from 1 to 50000, the max_queue of the dispatcher, not 100000"),
            ),
            Wrong(
                "closed while the handler hangs",
                {"go_on.set()\n": "", "bus.publish(Order(3))\n": "", "bus.close()": "bus.close(timeout=0)"},
                raised(
                    CloseTimeoutError, r"not all was delivered within 0 s; still at work: __main__.book \(2 pending\)"
                ),
            ),
            Wrong(
                "published after close",
                {"print(done)": "bus.publish(Order(4))"},
                raised(ClosedError, IS_CLOSED),
            ),
            Wrong(
                "subscribed after close",
                {"print(done)": "bus.subscribe(book)"},
                raised(ClosedError, IS_CLOSED),
            ),
            Wrong(
                "closed twice is no mistake, a block of a closed one is",
                {"print(done)": "bus.close()\nwith bus: pass"},
                raised(ClosedError, "dispatcher 'ringcast' is closed: it takes no events and no subscriptions"),
            ),
        ],
        "Raise": [
            Wrong(
                "the error of another policy",
                {"except QueueFullError": "except PublishTimeoutError"},
                raised(QueueFullError, "<Subscription of __main__.book to Order .*> has max_queue=2 events pending"),
            ),
            Wrong(
                "an option of the dispatcher",
                {'policy="raise"': 'on_error="raise"'},
                raised(OptionError, "unknown option 'on_error'; there are: batch"),
            ),
        ],
        "Drop, and know it": [
            Wrong(
                "a policy is misspelt",
                {'"drop_oldest"': '"drop-oldest"'},
                raised(OptionError, f"{POLICIES}'drop-oldest'"),
            ),
            Wrong(
                "a queue of a direct handler",
                {'max_queue=3, policy="drop_oldest"': 'max_queue=3, mode="direct"'},
                raised(OptionError, "max_queue= does not go with this subscription: a direct handler has no queue"),
            ),
        ],
        "Handlers that publish into full queues": [
            Wrong(
                "closed before the handlers have published",
                {
                    "    bus.wait_idle()\n": "",
                    "        global finished\n": "        global finished\n        while not bus.closed: pass\n",
                },
                logged(ClosedError, rf"handler __main__.split failed on Job\(size=100\): {IS_CLOSED}"),
            ),
            Wrong(
                "global is forgotten",
                {"        global finished\n": ""},
                logged(UnboundLocalError, r"handler __main__.split failed on Job\(size=1\)"),
            ),
        ],
    },
    "guides/batches-and-records.md": {
        "Many events at once": [
            Wrong(
                "batch= with a plain annotation",
                {"ticks: list[Tick]": "ticks: Tick"},
                raised(HandlerTypeError, r"with batch= it is given a list of events; annotate it list\[EventClass\]"),
            ),
            Wrong(
                "a list without batch=",
                {"Tick, batch=1000": "Tick"},
                raised(EventClassError, "store is for list .*; a handler of lists needs batch="),
            ),
            Wrong(
                "batch= in direct mode",
                {"batch=1000": 'batch=1000, mode="direct"'},
                raised(OptionError, "batch= does not go with this subscription: a direct handler has no queue"),
            ),
            Wrong(
                "batch= with the publisher's context",
                {"batch=1000": 'batch=1000, context="publisher"'},
                raised(OptionError, "context= does not go .*: the events of a batch come from several contexts"),
            ),
            Wrong(
                "an empty batch",
                {"batch=1000": "batch=0"},
                raised(OptionError, "batch must be from 1 to 65536, not 0"),
            ),
            Wrong(
                "one event to publish_many",
                {"[Tick(100.0), Tick(100.5), Tick(101.0)]": "Tick(100.0)"},
                raised(
                    EventClassError,
                    r"publish_many takes an iterable of events, not Tick\(price=100.0\) .*: publish takes one$",
                ),
            ),
            Wrong(
                "the events one by one to publish_many",
                {"[Tick(100.0), Tick(100.5), Tick(101.0)]": "Tick(100.0), Tick(100.5)"},
                raised(EventClassError, r"publish_many takes one iterable of events; .* not Tick\(price=100.5\)"),
            ),
        ],
        "Record types, 1": [
            Wrong(
                "a field of no fixed size",
                {"price: float64": "price: str"},
                raised(RecordError, "Trade.price is annotated str: a field is an int, float, bool, one of the sizes"),
            ),
            Wrong(
                "bytes of no size",
                {"Annotated[bytes, 4]": "bytes"},
                raised(RecordError, r"Trade.venue is annotated bytes: .* or Annotated\[bytes, SIZE\]"),
            ),
            Wrong(
                "a field that may be None",
                {"size: int32": "size: int | None"},
                raised(RecordError, r"Trade.size is annotated int \| None: a field is"),
            ),
            Wrong(
                "a default before a field without one",
                {"size: int32": "size: int32 = 1", ' = b""': ""},
                raised(RecordError, "Trade.venue needs a default, as fields before it have one"),
            ),
            Wrong(
                "a value of another type",
                {"101.5, 3": '"101.5", 3'},
                raised(TypeError, "Trade.price: must be real number, not str"),
            ),
            Wrong(
                "too many bytes",
                {'b"XN"': 'b"XNYSE"'},
                raised(ValueError, "Trade.venue: 4 bytes are the most, not 5"),
            ),
            Wrong(
                "a value is forgotten",
                {'Trade(0, 101.5, 3, b"XN")': "Trade(0, 101.5)"},
                raised(TypeError, "Trade needs a value for 'size'"),
            ),
            Wrong(
                "a record is changed",
                {"print(trade)": "trade.size = 4"},
                raised(AttributeError, "records do not change: 'size' of Trade cannot be set"),
            ),
            Wrong(
                "a base class",
                {"class Trade:": "class Trade(dict):"},
                raised(RecordError, "a record type has no base class but Record; __main__.Trade has"),
            ),
        ],
        "Record types, 2": [
            Wrong(
                "an array of no record type",
                {"Trade.dtype)": '[("price", float)])'},
                raised(
                    EventClassError,
                    r"dtype \[.*\] is that of no record type: declare one with record\(dtype, name=...\)$",
                ),
            ),
            Wrong(
                "a dtype of two record types",
                {"np.zeros(10_000, Trade.dtype)": "np.zeros(10_000, record(Trade.dtype, name='Trade').dtype)"},
                raised(
                    EventClassError,
                    r"that of 2 record types, __main__.Trade: say which, publish_many\(array, RecordType\)",
                ),
            ),
            Wrong(
                "the arguments are swapped",
                {"publish_many(array)": "publish_many(Trade, array)"},
                raised(
                    EventClassError,
                    "publish_many takes one iterable of events; .* record type of an array or buffer, not ",
                ),
            ),
            Wrong(
                "an array of two dimensions",
                {"publish_many(array)": "publish_many(array.reshape(100, 100))"},
                raised(EventClassError, "records are published from an array of one dimension, not 2"),
            ),
            Wrong(
                "bytes of half a record",
                {"publish_many(array)": 'publish_many(b"abc", Trade)'},
                raised(EventClassError, "3 bytes are no whole number of records of __main__.Trade, which have 24 each"),
            ),
            Wrong(
                "a RecordBatch of anything, and no class",
                {"Trade, batch=512": "batch=512", "RecordBatch[Trade]": "RecordBatch"},
                raised(
                    HandlerTypeError,
                    r"RecordBatch', which does not say of what; annotate it RecordBatch\[EventClass\], or name",
                ),
            ),
            Wrong(
                "a RecordBatch without batch=",
                {"Trade, batch=512": "Trade"},
                raised(EventClassError, "look is for RecordBatch .* needs batch="),
            ),
            Wrong(
                "a batch is changed",
                {
                    'highest.append(trades.array["price"].max())': 'trades.array["price"][0] = 1',
                    "max(highest)": "highest",
                },
                logged(ValueError, "handler __main__.look failed on .* read-only"),
            ),
        ],
    },
    "guides/delivery-modes.md": {
        "Which one": [
            Wrong(
                "a mode is misspelt",
                {'mode="direct", priority=1': 'mode="sync"'},
                raised(OptionError, f"{MODES}'sync'"),
            ),
            Wrong(
                "the mode is not named",
                {'mode="direct", priority=1': '"direct"'},
                raised(HandlerTypeError, rf"{NEEDED}'direct' \(str\): mode=\"direct\"$"),
            ),
            Wrong(
                "a priority of a queued handler",
                {'mode="direct", priority=1': "priority=1"},
                raised(
                    OptionError, "priority= does not go with this subscription: only direct handlers have priorities"
                ),
            ),
            Wrong(
                "a plain function on an event loop",
                {'mode="direct", priority=1': 'mode="asyncio"'},
                raised(OptionError, 'forget_cached is no async def function: its mode cannot be "asyncio"'),
            ),
        ],
        "Direct handlers that publish": [
            Wrong(
                "an async handler in direct mode",
                {"def second": "async def second"},
                raised(OptionError, 'second is an async def function: its mode cannot be "direct"'),
            ),
            Wrong(
                "a generator",
                {'print("second", step.number)': "yield step.number"},
                raised(
                    HandlerTypeError, r"second is a generator function \(it has a yield\), which a call does not run"
                ),
            ),
            Wrong(
                "a handler fails",
                {"Step(step.number + 1)": "Step(step.next)"},
                logged(
                    AttributeError, r"handler __main__.first failed on Step\(number=1\): 'Step' object has no attribute"
                ),
            ),
        ],
        "Direct handlers that raise": [
            Wrong(
                "except without a star",
                {"except*": "except"},
                raised(ExceptionGroup, "1 direct handler failed"),
            ),
            Wrong(
                "a word is misspelt",
                {'"raise"': '"raises"'},
                raised(OptionError, "on_error must be callable, \"raise\" or None, not 'raises'"),
            ),
            Wrong(
                "a queued handler raises nothing in publish",
                {'@bus.on(mode="direct")': "@bus.on"},
                logged(PermissionError, r"handler __main__.refuse failed on Saved\(path='b.txt'\)"),
            ),
        ],
    },
    "guides/events-and-handlers.md": {
        "Any class can be an event class, 1": [
            Wrong(
                "an option is misspelt",
                {"subclasses=": "subclass="},
                raised(OptionError, "unknown option 'subclass'; there are: .*subclasses"),
            ),
            Wrong(
                "the subclasses are listed",
                {"subclasses=True": "subclasses=(Express,)"},
                raised(OptionError, r"subclasses must be True or False, not \(<class '__main__.Express'>,\)"),
            ),
            Wrong(
                "a list of classes",
                {'Order, lambda order: print("order"': '[Order, Express], lambda order: print("order"'},
                raised(EventClassError, r"\(list\): several classes are given as a tuple, \(First, Second\)"),
            ),
            Wrong(
                "a lambda without a class",
                {'Order, lambda order: print("order"': 'lambda order: print("order"'},
                raised(HandlerTypeError, f"parameter 'order' of handler __main__.<lambda> {NO_ANNOTATION}"),
            ),
        ],
        "Any class can be an event class, 2": [
            Wrong(
                "a protocol that is not runtime_checkable",
                {"@runtime_checkable\n": ""},
                raised(OptionError, "Priced cannot tell its subclasses: .*; a protocol must be runtime_checkable"),
            ),
            Wrong(
                "a protocol as the annotation",
                {"    bus.subscribe(object, seen.append)": "    @bus.on\n    def tap(event: Priced): ..."},
                raised(HandlerTypeError, "which is a protocol: no event is of exactly that class"),
            ),
            Wrong(
                "object as the annotation",
                {"    bus.subscribe(object, seen.append)": "    @bus.on\n    def tap(event: object): ..."},
                raised(
                    HandlerTypeError,
                    r"is annotated 'object', which is every class, .* subscribe\(object, handler\); .* name the class",
                ),
            ),
        ],
        "Any class can be an event class, 3": [
            Wrong(
                "the class is forgotten",
                {"HasItem, print": "print"},
                raised(HandlerTypeError, f"parameter .* of handler print {NO_ANNOTATION}"),
            ),
        ],
        "Several classes, 1": [
            Wrong(
                "a tuple as the annotation",
                {"event: Deposit | Withdrawal": "event: (Deposit, Withdrawal)"},
                raised(
                    HandlerTypeError, r"which is a tuple: several classes are annotated as a union, First \| Second"
                ),
            ),
            Wrong(
                "a tuple as a hint",
                {"event: Deposit | Withdrawal": "event: tuple[Deposit, Withdrawal]"},
                raised(
                    HandlerTypeError, r"which is one tuple: several classes are annotated as a union, First \| Second"
                ),
            ),
            Wrong(
                "or in place of a bar",
                {
                    "event: Deposit | Withdrawal": "event: Deposit or Withdrawal",
                    "subscribe(account.book)": "subscribe((Deposit, Withdrawal), account.book)",
                },
                raised(
                    EventClassError, "has the event class __main__.Withdrawal; handler .*book is for __main__.Deposit "
                ),
            ),
            Wrong(
                "a union in place of a tuple",
                {"(Deposit, Withdrawal), entries": "Deposit | Withdrawal, entries"},
                raised(EventClassError, r"several classes are given as a tuple, \(First, Second\)"),
            ),
            Wrong(
                "no parentheses around the classes",
                {"(Deposit, Withdrawal), entries": "Deposit, Withdrawal, entries"},
                raised(
                    HandlerTypeError,
                    r"\(3 given\); several classes are given as a tuple: "
                    r"subscribe\(\(__main__.Deposit, __main__.Withdrawal\), list.append\)$",
                ),
            ),
            Wrong(
                "the name of a class in the tuple",
                {"(Deposit, Withdrawal), entries": '(Deposit, "Withdrawal"), entries'},
                raised(EventClassError, rf"{NO_CLASS}'Withdrawal' \(str\)"),
            ),
            Wrong(
                "a tuple of no class",
                {"(Deposit, Withdrawal), entries": "(), entries"},
                raised(EventClassError, "a subscription is to one class at least, and the tuple is empty"),
            ),
            Wrong(
                "a method of the class",
                {"account.book)": "Account.book)"},
                raised(HandlerTypeError, r"needs 2 arguments \(self, event\).*: use the bound method of an instance"),
            ),
        ],
        "Several classes, 2": [
            Wrong(
                "a class in place of an id",
                {"subscribe(book)": "subscribe_to(Deposit, book)"},
                raised(
                    TypeIdError,
                    rf"{NO_ID}class __main__.Deposit: a class is subscribed to with "
                    r"subscribe\(__main__.Deposit, __main__.book\)$",
                ),
            ),
            Wrong(
                "an id and a class",
                {"subscribe(book)": "subscribe_to(5, Deposit, book)", "except HandlerTypeError": "except KeyError"},
                raised(
                    HandlerTypeError,
                    r"subscribe_to\(\) takes a type id and a handler \(3 given\); the class is that of the handler's "
                    r"annotation: subscribe_to\(5, __main__.book\)",
                ),
            ),
            Wrong(
                "an id for several classes",
                {"Deposit | None": "Deposit | Withdrawal", "subscribe(book)": "subscribe_to(5, book)"},
                printed("which is several classes"),
            ),
        ],
        "Type ids, 1": [
            Wrong(
                "an id that is a word",
                {"    __event_type__: ClassVar[int] = 0x01\n\n": '    __event_type__: ClassVar[str] = "started"\n\n'},
                raised(TypeIdError, rf"__event_type__ of __main__.Started: {NO_ID}'started' \(str\)"),
            ),
            Wrong(
                "an id of 33 bits",
                {"    __event_type__: ClassVar[int] = 0x01\n\n": "    __event_type__: ClassVar[int] = 2**32\n\n"},
                raised(TypeIdError, f"{NO_ID}4294967296"),
            ),
            Wrong(
                "an id that is only annotated",
                {"    __event_type__: ClassVar[int] = 0x01\n\n": "    __event_type__: int\n\n"},
                raised(TypeIdError, r"each instance computes one .*annotate it ClassVar\[int\] and give it a value"),
            ),
            Wrong(
                "the id of an instance",
                {"type_id(Started)": "type_id(Started())"},
                raised(EventClassError, rf"{NO_CLASS}Started\(\) \(__main__.Started\)"),
            ),
        ],
        "Type ids, 2": [
            Wrong(
                "a class in place of an id",
                {"publish(Started)": "publish_to(Started, Started())"},
                raised(
                    TypeIdError, rf"{NO_ID}class __main__.Started: publish\(event\) finds the id by the event's class"
                ),
            ),
            Wrong(
                "an event of another class",
                {"publish(Started)": 'publish_to(0x01, Order("bolt"))', '.partition(". ")[0]': ""},
                printed("type id 0x1 belongs to __main__.Started: __main__.Order needs an id of its own"),
            ),
        ],
        "Any callable can be a handler, 1": [
            Wrong(
                "a condition of two parameters",
                {"async def cheap(order: Order)": "def cheap(order: Order, most: int)"},
                printed(
                    r"where=__main__.cheap needs 2 arguments \(order, most\), .* or give parameter 'most' a default"
                ),
            ),
            Wrong(
                "a condition that is a generator",
                {"async def": "def", "return": "yield"},
                printed("where=__main__.cheap is a generator function"),
            ),
            Wrong(
                "the handler is forgotten",
                {"Order, print": "Order"},
                raised(HandlerTypeError, "Order is a class, and there is no handler"),
            ),
        ],
        "Any callable can be a handler, 2": [
            Wrong(
                "a wrapper without an annotation",
                {"Order, save": "save"},
                raised(HandlerTypeError, f"parameter 'order' of handler .*wrapper {NO_ANNOTATION}"),
            ),
            Wrong(
                "a wrapper that hides a generator",
                {"async def save": "def save", 'print("never': 'yield print("never'},
                printed("wrapper has returned a generator, which nobody runs"),
            ),
            Wrong(
                "a decorator that returns nothing",
                {"    return wrapper\n": ""},
                raised(HandlerTypeError, rf"{NO_CALLABLE}None \(NoneType\)"),
            ),
        ],
        "Any callable can be a handler, 3": [
            Wrong(
                "a context in place of the word",
                {'context="publisher"': "context=contextvars.copy_context()"},
                raised(OptionError, 'context must be None or "publisher", not <'),
            ),
            Wrong(
                "the context of a direct handler",
                {'context="publisher"': 'context="publisher", mode="direct"'},
                raised(OptionError, "a direct handler runs in the publisher's context anyway"),
            ),
            Wrong(
                "weak=True of a function",
                {'context="publisher"': "weak=True"},
                raised(OptionError, "weak=True is for bound methods of Python classes; __main__.<lambda> is none"),
            ),
        ],
        "Ending a subscription, 1": [
            Wrong(
                "off of a subscription",
                {"print(got, subscription.active)": "bus.off(subscription)"},
                raised(HandlerTypeError, r"\(Subscription\); a Subscription is ended by its cancel\(\)"),
            ),
            Wrong(
                "a block of the decorator",
                {"bus.subscribe(Order": "bus.on(Order"},
                raised(
                    HandlerTypeError,
                    r"on\(\) takes an event class or a handler \(2 given\); both are for subscribe: "
                    r"subscribe\(__main__.Order, list.append\)$",
                ),
            ),
            Wrong(
                "an event is counted",
                {"print(got, subscription.active)": 'bus.count(Order("nut"))'},
                raised(TypeIdError, rf"count\(\) takes an event class or a type id: {NO_ID}Order\("),
            ),
            Wrong(
                "subscribed after close",
                {"\nprint(got)": "\nbus.subscribe(Order, got.append)"},
                raised(ClosedError, IS_CLOSED),
            ),
        ],
        "Ending a subscription, 2": [
            Wrong(
                "the arguments are swapped",
                {"bus.off(show), bus.off(show)": "bus.off(Order, show)"},
                raised(HandlerTypeError, r"the handler comes first: off\(__main__.show, __main__.Order\)"),
            ),
            Wrong(
                "the name of the handler",
                {"bus.off(show), bus.off(show)": 'bus.off("show")'},
                raised(HandlerTypeError, rf"{NO_CALLABLE}'show' \(str\)"),
            ),
            Wrong(
                "the name of the class",
                {"bus.off(show), bus.off(show)": 'bus.off(show, "Order")'},
                raised(TypeIdError, rf"off\(\) takes an event class or a type id: {NO_ID}'Order'"),
            ),
        ],
        "Ending a subscription, 3": [
            Wrong(
                "replace=True of a name that tells nothing",
                {"def show": "def _"},
                raised(OptionError, "replace=True is for functions of a module or class, .*: __main__._ is none"),
            ),
            Wrong(
                "what to replace is named",
                {"replace=True": "replace='show'"},
                raised(OptionError, "replace must be True or False, not 'show'"),
            ),
        ],
    },
    "guides/native.md": {
        "A C function as a handler": [
            Wrong(
                "a Python function",
                {"Sample, add, total": "Sample, print, total"},
                raised(
                    HandlerTypeError,
                    "a native handler is the address of a C function, a capsule of one, .*; not <built-in",
                ),
            ),
            Wrong(
                "no record type",
                {"@record\n": ""},
                raised(
                    RecordError, "a record type is needed, not class __main__.Sample: make one with ringcast.record"
                ),
            ),
            Wrong(
                "a list in place of memory",
                {"Sample, add, total": "Sample, add, [0]"},
                raised(OptionError, r"userdata is an address, a capsule or a writable buffer, not \[0\] \(list\)"),
            ),
            Wrong(
                "a policy that drops",
                {"Sample, add, total": 'Sample, add, total, policy="latest"'},
                raised(OptionError, 'the policy of a native handler is "block" or "raise", not \'latest\''),
            ),
            Wrong(
                "subscribed as a Python handler",
                {"subscribe_native(Sample, add, total)": "subscribe(Sample, add)"},
                logged(TypeError, r"failed on Sample\(value=0\): this function takes at least 4 arguments \(1 given\)"),
            ),
            Wrong(
                "a value of another type",
                {"Sample(value)": "Sample(str(value))"},
                raised(TypeError, "Sample.value: 'str' object cannot be interpreted as an integer"),
            ),
        ],
    },
    "guides/testing.md": {
        "Wait for what was published": [
            Wrong(
                "a method of the class",
                {"subscribe(self.ship)": "subscribe(Warehouse.ship)"},
                raised(HandlerTypeError, r"needs 2 arguments \(self, ordered\).*: use the bound method of an instance"),
            ),
            Wrong(
                "a handler that hangs",
                {
                    "        Warehouse(bus)\n": (
                        "        import threading\n"
                        "        globals()['gate'] = gate = threading.Event()\n"
                        "        bus.subscribe(Ordered, lambda ordered: gate.wait())\n"
                    ),
                    "        drain(bus)\n": "        try: drain(bus, 0)\n        finally: gate.set()\n",
                },
                raised(AssertionError, r"not all was delivered within 0 s; pending: .*<lambda> \(1 pending\)"),
            ),
            Wrong(
                "drain inside of a handler",
                {"shipped = []": "shipped = []\n        bus.subscribe(Shipped, lambda shipped: drain(bus))"},
                logged(AssertionError, r"drain\(\) does not wait inside a handler, whose end it would wait for"),
            ),
        ],
        "Fail when a handler fails": [
            Wrong(
                "nobody looks at the failures of a plain Dispatcher",
                {"CheckedDispatcher()": "Dispatcher()", "        bus.check()": "        pass"},
                logged(ValueError, r"handler __main__.refuse failed on Ordered\(item='nut'\): out of stock"),
            ),
            Wrong(
                "a report of its own",
                {"CheckedDispatcher()": "CheckedDispatcher(on_error=print)"},
                raised(TypeError, "unexpected keyword argument 'on_error'"),
            ),
            Wrong(
                "another error is expected",
                {"except AssertionError": "except ValueError"},
                raised(AssertionError, r"a handler failed:\n  __main__.refuse on Ordered\(item='nut'\): ValueError"),
            ),
        ],
        "Without threads": [
            Wrong(
                "the list in place of its method",
                {"shipped.append": "shipped"},
                raised(HandlerTypeError, rf"{NO_CALLABLE}\[\] \(list\)"),
            ),
            Wrong(
                "a method that fails",
                {"shipped.append": "shipped.remove"},
                raised(ExceptionGroup, "direct handler failed"),
            ),
        ],
        "Make a handler slow": [
            Wrong(
                "wait takes the event for a timeout",
                {
                    "lambda ordered: gate.wait()": "gate.wait",
                    "assert subscription.pending <= 2 ": "bus.wait_idle() ",
                },
                logged(TypeError, r"failed on Ordered\(item='a'\): .*not supported"),
            ),
            Wrong(
                "the default policy, and no room",
                {', policy="drop_newest"': "", "Ordered(item))": "Ordered(item), timeout=0)"},
                raised(PublishTimeoutError, "no room in time for an event of "),
            ),
        ],
    },
    "guides/threads.md": {
        "A handler's thread may change": [
            Wrong(
                "a connection of another thread",
                {"    database = None\n": '    database = sqlite3.connect(":memory:")\n'},
                logged(
                    sqlite3.ProgrammingError, "SQLite objects created in a thread can only be used in that same thread"
                ),
            ),
            Wrong(
                "in a mode that has a thread already",
                {"own_thread=True": 'own_thread=True, mode="direct"'},
                raised(OptionError, 'own_thread= is for mode="queued": this handler runs inside publish'),
            ),
            Wrong(
                "a thread in place of True",
                {"own_thread=True": "own_thread=__import__('threading').current_thread()"},
                raised(OptionError, "own_thread must be True or False, not <_MainThread"),
            ),
        ],
    },
    "guides/user-interfaces.md": {
        "Bringing events to the thread, 1": [
            Wrong(
                "no class for a method that takes any object",
                {},
                raised(HandlerTypeError, "parameter 'event' .*Mailbox.put is annotated 'object', which is every class"),
                then="with Dispatcher() as bus:\n    bus.subscribe(Mailbox(hash, print).put)",
            ),
            Wrong(
                "a method of the class",
                {},
                raised(HandlerTypeError, r"needs 2 arguments \(self, event\).*: use the bound method of an instance"),
                then="with Dispatcher() as bus:\n    bus.subscribe(object, Mailbox.put)",
            ),
        ],
        "Bringing events to the thread, 2": [
            Wrong(
                "the mailbox in place of its method",
                {"mailbox.put": "mailbox"},
                raised(HandlerTypeError, rf"{NO_CALLABLE}<.*> \(__main__.Mailbox\)"),
            ),
            Wrong(
                "the arguments are swapped",
                {"Progress, mailbox.put": "mailbox.put, Progress"},
                raised(
                    EventClassError,
                    r"the event class comes first: subscribe\(__main__.Progress, __main__.Mailbox.put\)",
                ),
            ),
            Wrong(
                "a key that fails",
                {"event.job": "event.name", "woken.wait()\n": ""},
                logged(
                    AttributeError, r"Mailbox.put failed on Progress\(job='copy', percent=0\): 'Progress' object has no"
                ),
            ),
        ],
    },
    "guides/watching.md": {
        "stats, 1": [
            Wrong(
                "the name in the first place",
                {'name="prices"': '"prices"'},
                raised(OptionError, "max_queue must be an int, not str"),
            ),
            Wrong(
                "stats is not called",
                {"stats().topics": "stats.topics"},
                raised(AttributeError, "object has no attribute 'topics'"),
            ),
            Wrong(
                "a number in place of the name",
                {'name="prices"': "name=5"},
                raised(OptionError, "name must be a str or None, not int"),
            ),
        ],
        "stats, 2": [
            Wrong(
                "the name of several classes",
                {"topic.event_class, ": "topic.event_class.__name__, "},
                raised(AttributeError, "'tuple' object has no attribute '__name__'"),
            ),
            Wrong(
                "a list of classes",
                {"(Tick, Trade)": "[Tick, Trade]"},
                raised(EventClassError, r"\(list\): several classes are given as a tuple, \(First, Second\)"),
            ),
        ],
        "Prometheus": [
            Wrong(
                "a handler without a parameter",
                {"lambda tick: None": "lambda: None"},
                raised(HandlerTypeError, "takes no positional argument, but is called with one, the event"),
            ),
            Wrong(
                "timing is no number",
                {'name="prices"': 'name="prices", timing=1'},
                raised(OptionError, "timing must be True or False, not 1"),
            ),
            Wrong(
                "the arguments are swapped",
                {"register(bus, registry)": "register(registry, bus)"},
                raised(OptionError, r"register\(dispatcher, registry\): a Dispatcher comes first, not <.*Registry\)$"),
            ),
            Wrong(
                "the name in place of the registry",
                {"register(bus, registry)": 'register(bus, "prices")'},
                raised(OptionError, r": a CollectorRegistry is needed, not 'prices' \(str\)$"),
            ),
        ],
        "Logging": [
            Wrong(
                "the class in place of an instance",
                {"Line(record.getMessage())": "Line"},
                raised(EventClassError, AS_A_CLASS.format("Line")),
            ),
            Wrong(
                "the handler of the log stays",
                {"    logging.getLogger().removeHandler(handler)": ""},
                raised(ClosedError, IS_CLOSED),
                then='logging.warning("after the block")',
            ),
            Wrong(
                "a handler fails",
                {"line.text": "line.message"},
                logged(AttributeError, r"failed on Line\(text='disk is almost full'\): 'Line' object has no attribute"),
            ),
        ],
    },
    "coming-from/blinker.md": {
        "Coming from blinker, 2": [
            Wrong(
                "a receiver as it was",
                {"show(saved: Saved)": "show(sender, *, path, size)"},
                raised(
                    HandlerTypeError,
                    "called with one argument, the event, but its keyword-only parameter 'path' has no default",
                ),
            ),
            Wrong(
                "the signal's name",
                {'mode="direct"': '"saved"'},
                raised(HandlerTypeError, rf"{NEEDED}'saved' \(str\): {NO_NAMES}"),
            ),
            Wrong(
                "sent as it was",
                {'Saved("editor", path=': '"editor", path=', "size=12))": "size=12)"},
                raised(
                    EventClassError,
                    "publish takes one object, the event, without a name, and was given an object and path=, size=:",
                ),
            ),
        ],
        "Without a change of the program, 1": [
            Wrong(
                "arguments without a name",
                {'path="a.txt", size=12': '"a.txt", 12'},
                raised(TypeError, r"send\(\) takes from 1 to 2 positional arguments but 4 were given"),
            ),
            Wrong(
                "an argument is forgotten",
                {", size=12": ""},
                raised(TypeError, "missing 1 required keyword-only argument: 'size'"),
            ),
        ],
        "Without a change of the program, 2": [
            Wrong(
                "installed after the import",
                {"import ringcast.compat\n": "import blinker\nimport ringcast.compat\n"},
                raised(
                    InstallError, r"is imported already .*; call ringcast.compat.install\('blinker'\) before anything"
                ),
            ),
            Wrong(
                "a name is misspelt",
                {'"blinker"': '"blinkr"'},
                raised(InstallError, "blinkr"),
            ),
        ],
    },
    "coming-from/kelindar-event.md": {
        "Coming from Go's kelindar/event": [
            Wrong(
                "an id that is a word",
                {"= 0x01": '= "0x01"'},
                raised(TypeIdError, rf"__event_type__ of __main__.Saved: {NO_ID}'0x01' \(str\)"),
            ),
            Wrong(
                "a negative id",
                {"= 0x01": "= -1"},
                raised(TypeIdError, rf"{NO_ID}-1 \(int\)"),
            ),
            Wrong(
                "ClassVar is forgotten, and a field after it has no default",
                {"ClassVar[int]": "int"},
                raised(TypeError, "non-default argument '?path'? follows default argument"),
            ),
        ],
        "What becomes what": [
            Wrong(
                "the class, whose instances compute the id",
                {"subscribe_to(0x107": "subscribe(Reading"},
                raised(
                    TypeIdError, "Reading has no type id of its own: .*; subscribe to the id itself with subscribe_to$"
                ),
            ),
            Wrong(
                "an id in place of a class",
                {"subscribe_to(0x107": "subscribe(0x107"},
                raised(EventClassError, rf"{NO_CLASS}263 \(int\): a type id is subscribed to with subscribe_to"),
            ),
            Wrong(
                "the property is forgotten",
                {"    @property\n": ""},
                raised(TypeIdError, rf"{NO_ID}<bound method Reading.__event_type__ .* \(method\)"),
            ),
            Wrong(
                "an id that is computed as a word",
                {"0x100 + self.sensor": '"sensor"'},
                raised(TypeIdError, rf"{NO_ID}'sensor' \(str\)"),
            ),
        ],
    },
    "coming-from/psygnal.md": {
        "Coming from psygnal, 2": [
            Wrong(
                "a slot as it was",
                {"show(saved: Saved)": "show(path: str, size: int)"},
                raised(HandlerTypeError, r"needs 2 arguments \(path, size\), .*: take the event alone"),
            ),
            Wrong(
                "emitted as it was",
                {'Saved("a.txt", 12)': '"a.txt", 12'},
                raised(
                    EventClassError,
                    "publish takes one object, the event, without a name, and was given 2 objects: publish",
                ),
            ),
            Wrong(
                "an option of connect",
                {'mode="direct"': 'thread="main"'},
                raised(OptionError, "unknown option 'thread'; there are: "),
            ),
        ],
    },
    "coming-from/pyee.md": {
        "The drop-in": [
            Wrong(
                "an argument is forgotten",
                {', "a.txt", 12': ', "a.txt"'},
                raised(TypeError, r"show\(\) missing 1 required positional argument: 'size'"),
            ),
            Wrong(
                "an error that nobody listens to",
                {'emit("saved"': 'emit("error"'},
                raised(PyeeError, "Uncaught, unspecified 'error' event: a.txt"),
            ),
        ],
        "What it looks like with Ringcast, 2": [
            Wrong(
                "the event's name",
                {'mode="direct"': '"saved"'},
                raised(HandlerTypeError, rf"{NEEDED}'saved' \(str\): {NO_NAMES}"),
            ),
            Wrong(
                "a class is misspelt",
                {"publish(Saved(": "publish(Svaed("},
                raised(NameError, "name 'Svaed' is not defined"),
            ),
            Wrong(
                "emitted as it was",
                {'Saved("a.txt", 12)': '"saved", "a.txt", 12'},
                raised(
                    EventClassError,
                    "publish takes one object, the event, without a name, and was given 3 objects: publish",
                ),
            ),
            Wrong(
                "an option that is no yes or no",
                {'mode="direct"': 'once="yes"'},
                raised(OptionError, "once must be True or False, not 'yes'"),
            ),
        ],
    },
    "coming-from/queue.md": {
        "Coming from queue.Queue, 2": [
            Wrong(
                "no class for a method that has no annotation",
                {"Order, received": "received"},
                raised(HandlerTypeError, f"of handler list.append {NO_ANNOTATION}"),
            ),
            Wrong(
                "no bound",
                {"max_queue=1000": "max_queue=0"},
                raised(OptionError, "max_queue must be from 1 to 4294967296, not 0"),
            ),
            Wrong(
                "an argument of Queue",
                {"max_queue=1000": "maxsize=1000"},
                raised(TypeError, "unexpected keyword argument 'maxsize'"),
            ),
            Wrong(
                "published after the block",
                {"\nprint(received)": '\nbus.publish(Order("nut"))'},
                raised(ClosedError, IS_CLOSED),
            ),
        ],
    },
}

OF_ANOTHER_LIBRARY = "another library's program, for comparison"
WITHOUT_VARIANT = {
    ("coming-from/blinker.md", "Coming from blinker, 1"): OF_ANOTHER_LIBRARY,
    ("coming-from/psygnal.md", "Coming from psygnal, 1"): OF_ANOTHER_LIBRARY,
    ("coming-from/pyee.md", "What it looks like with Ringcast, 1"): OF_ANOTHER_LIBRARY,
    ("coming-from/queue.md", "Coming from queue.Queue, 1"): OF_ANOTHER_LIBRARY,
    (
        "guides/testing.md",
        "The pytest fixture, 1",
    ): "a line of a conftest.py: tests/test_testing.py runs suites with it",
    ("guides/testing.md", "The pytest fixture, 2"): "a test with the fixture: tests/test_testing.py has some that fail",
}
NO_EXAMPLES = {
    "output": "what an example prints",
    "command": "for a shell",
    "c": "parts of C programs: tests/native and tests/test_native.py have whole ones",
    "go": "another language's program, for comparison",
    "text": "a picture in letters",
    "{image}": "a picture",
    "{eval-rst}": "a part of the reference, from docstrings: tests/test_docs.py runs their examples",
    "{literalinclude}": "a program of examples/: its tests are in tests/examples",
    "{include}": "a part of README.md, which is a page itself, the changelog, or tables of figures",
    "{toctree}": "a table of contents",
}


# --- the tests ---


VARIANTS = [
    pytest.param(page, example, variant, id=f"{page}-{example}-{variant.mistake}")
    for page, examples in EXAMPLES.items()
    for example, variants in examples.items()
    for variant in variants
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_example_has_a_variant_or_a_reason_to_have_none(page):
    listed = [example for example, variants in EXAMPLES.get(name_of(page), {}).items() if variants]
    excused = [example for name, example in WITHOUT_VARIANT if name == name_of(page)]
    assert sorted([*listed, *excused]) == sorted(examples_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_no_python_is_no_example(page):
    languages = {block.language for block in blocks_of(page.read_text("utf-8"))}
    assert languages <= {"python", *NO_EXAMPLES}


def test_every_page_of_the_table_is_a_page():
    assert {*EXAMPLES, *(page for page, _ in WITHOUT_VARIANT)} <= {*map(name_of, PAGES)}


@pytest.mark.parametrize(("page", "example", "variant"), VARIANTS)
def test_the_variant_gives_its_message(page, example, variant, program, caplog):
    examples = examples_of(ROOT / page if page == "README.md" else DOCS / page)
    before = [*examples][: [*examples].index(example)]
    for name in before:
        program.run(page, examples[name])
    caplog.clear()
    where, error, words = variant.ending
    text = changed(examples[example], variant)
    if where == "raised":
        with pytest.raises(error) as caught:
            program.run(page, text)
        assert re.search(words, str(caught.value), re.DOTALL)
    elif where == "warned":
        with pytest.warns(error, match=words):
            program.run(page, text)
    elif where == "logged":
        program.run(page, text)
        reports = [
            f"{record.getMessage()}: {record.exc_info[1]}"
            for record in caplog.records
            if record.name == "ringcast" and record.exc_info and isinstance(record.exc_info[1], error)
        ]
        assert any(re.search(words, report, re.DOTALL) for report in reports), caplog.text
    else:
        assert re.search(words, program.run(page, text))


def changed(text: str, variant: Wrong) -> str:
    for right, wrong in variant.changes.items():
        assert right in text, f"the example has no {right!r} any more"
        text = text.replace(right, wrong)
    return f"{text}\n{variant.then}\n"


class Program:
    """Runs the examples of a page, which share their names."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, page: str, text: str) -> str:
        """Run an example, and return what it has printed."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, page, "exec", dont_inherit=True), self.names)
        return out.getvalue()

    def end(self) -> None:
        """Let handlers go on that wait for the example, and close what it has left open."""
        left = [*self.names.values()]
        for gate in left:
            if isinstance(gate, threading.Event):
                gate.set()
        for dispatcher in left:
            if isinstance(dispatcher, Dispatcher):
                dispatcher.close(DEADLINE)
        self.names.clear()


@pytest.fixture
def program(spawn: object) -> Iterator[Program]:
    """A page's program. At its end its dispatchers are closed, and its classes are freed.

    For a record type is found by its dtype, also one of another test.
    """
    handlers = logging.getLogger().handlers[:]
    made = Program()
    yield made
    logging.getLogger().handlers[:] = handlers
    made.end()
    gc.collect()
