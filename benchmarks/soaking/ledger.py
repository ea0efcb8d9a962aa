"""The ledger of a subscription: what its handler was given, and whether that balances."""

from __future__ import annotations

import asyncio
import collections
import ctypes
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ringcast import Dispatcher, RecordBatch
from soaking.events import LAYOUTS, RECORDS, Failure, Publisher, Seen, apublish_one, is_whole, place, publish_some
from soaking.events import publisher_context as context

NATIVE_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
PAGE = 512  # records that a batch has at most, unless it was gathered
KEPT = 20  # batches and records that are kept at a time
BREAKS = ("lose", "double", "swap", "count", "change", "invent")


class Ledger:
    """A subscription and what its handler has seen. All counts are by publisher: only one thread at a time has
    events of one publisher for one handler."""

    def __init__(self, kind: type, options: dict[str, Any], traits: set[str], chance: random.Random) -> None:
        self.kind = kind
        self.options = options
        self.traits = traits
        self.chance = chance
        self.batch: int | None = options.get("batch")
        self.subscription: Any = None
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.handled: dict[int, int] = {}  # the last one, where `where` comes first
        self.passed: collections.Counter[int] = collections.Counter()
        self.rejected: collections.Counter[int] = collections.Counter()
        self.raised: collections.Counter[int] = collections.Counter()
        self.seen_once: dict[int, set[int]] = {}
        self.complaints: list[str] = []
        self.lag = 0
        self.relay: tuple[Dispatcher, Publisher] | None = None
        self.held: dict[str, dict[int, int]] = {}  # what had been issued and accepted at certain moments
        self.kept: list[tuple[Any, bytes]] = []  # what a handler keeps of records, and what was in it
        self.keeping = threading.Lock()
        self.threads: set[int] = set()
        self.falsify = ""
        self.swapped: Any = None

    # --- what the dispatcher calls ---

    def where(self, event: Any) -> bool:
        # a dropping policy asks only of those that it has the time for
        self.check_order(event, self.last, self.lossless)
        if event.number % 3 == 0:
            self.rejected[event.publisher] += 1
            return False
        return True

    def key(self, event: Any) -> int:
        publisher: int = event.publisher
        return publisher

    def handle(self, what: Any) -> None:
        """The handler: of an event, or of a batch."""
        events = self.take(what)
        if "slow" in self.traits and self.chance.random() < 0.002:
            time.sleep(self.chance.random() * 0.03)
        asked = sum([event.number % 5 == 0 for event in events]) if self.relay is not None else 0
        if self.relay is not None and asked:
            publish_some(*self.relay, self.chance, most=asked, wait=False)
        self.fail(events)

    async def handle_async(self, what: Any) -> None:
        if self.chance.random() < 0.01:
            await asyncio.sleep(self.chance.random() * 0.002)
        events = self.take(what)
        if self.relay is not None and any(event.number % 5 == 0 for event in events):
            await apublish_one(*self.relay, self.chance)
        self.fail(events)

    def native_handler(self) -> Any:
        """The same as a C function of records."""
        layout = LAYOUTS[self.kind]

        def handle(records: int, count: int, stride: int, userdata: int | None) -> None:
            self.note_thread()
            data = ctypes.string_at(records, count * stride)
            if stride != layout.size or not 1 <= count <= PAGE:
                self.complain(f"a native handler was given {count} records of {stride} bytes each")
            self.note_all([Seen(*values) for values in layout.iter_unpack(data)])
            if "slow" in self.traits and self.chance.random() < 0.02:
                time.sleep(self.chance.random() * 0.03)
            if ctypes.string_at(records, count * stride) != data:
                self.complain("records changed while a native handler had them")

        return NATIVE_HANDLER(handle)

    def note_thread(self) -> None:
        """With a thread of its own all calls are in that one."""
        if "own_thread" in self.traits:
            self.threads.add(threading.get_ident())
            if len(self.threads) != 1:
                self.complain("a subscription with a thread of its own was called in another one")

    def take(self, what: Any) -> list[Any]:
        """Notes an event or a batch, and returns the events."""
        self.note_thread()
        events = [what]
        if self.batch is not None:
            events = list(what)
            expected = RecordBatch if self.kind in RECORDS else list
            if type(what) is not expected or len(what) != len(events) or not 1 <= len(events) <= self.batch:
                self.complain(f"a batch of at most {self.batch} was a {type(what).__name__} of {len(events)}")
        if self.kind in RECORDS and (self.falsify == "change" or self.chance.random() < 0.05):
            self.keep(what)
        self.note_all(events)
        if "concurrent" not in self.traits and "direct" not in self.traits and self.subscription is not None:
            self.lag += self.subscription.lag
        return events

    def fail(self, events: list[Any]) -> None:
        if "failing" not in self.traits:
            return
        for event in events:
            if event.number % 7 == 0:
                self.raised[event.publisher] += 1
                raise (Failure, KeyboardInterrupt, SystemExit)[
                    self.chance.randrange(3) if "queued" in self.traits else 0
                ]

    # --- records that are kept ---

    def keep(self, what: Any) -> None:
        """Keeps a record, or something of a batch, which is to stay as it is."""
        kept = what
        if self.batch is not None:
            views: list[Callable[[], Any]] = [lambda: what, lambda: what[1:], lambda: what["number"]]
            kept = self.chance.choice([*views, lambda: memoryview(what)])()
        with self.keeping:
            self.kept.append((kept, contents(kept)))
        if len(self.kept) > KEPT:
            self.check_kept(self.chance.randrange(KEPT))

    def check_kept(self, at: int) -> None:
        """Lets go of one of those that are kept."""
        with self.keeping:  # a direct handler runs in several threads
            if at >= len(self.kept):
                return
            kept, before = self.kept.pop(at)
        if contents(kept) != before:
            self.complain(f"a {type(kept).__name__} of {len(before)} bytes has changed while it was kept")

    # --- the account ---

    def note_all(self, events: list[Any]) -> None:
        for event in events:
            for each in self.falsified(event) if self.falsify else (event,):
                self.note(each)

    def note(self, event: Any) -> None:
        publisher = event.publisher
        self.passed[publisher] += 1
        if hasattr(event, "check") and not is_whole(event):
            self.complain(f"record {event!r} is not as it was published")
        if "context" in self.traits and context.get(None) != publisher:
            self.complain(f"an event of publisher {publisher} came with the context of another one")
        if "concurrent" in self.traits:
            numbers = self.seen_once.setdefault(publisher, set())
            number = place(event, self.kind)
            if number in numbers:
                self.complain(f"event {number} of publisher {publisher} came twice")
            numbers.add(number)
        elif "where" in self.traits:
            self.check_order(event, self.handled, lossless=False)
        else:
            self.check_order(event, self.last, self.lossless)

    def check_order(self, event: Any, seen: dict[int, int], lossless: bool) -> None:
        publisher = event.publisher
        number = place(event, self.kind)
        last = seen.get(publisher)
        if last is None:
            self.first.setdefault(publisher, number)
        elif number <= last:
            self.complain(f"event {number} of publisher {publisher} came after {last}")
        elif lossless and number != last + 1:
            self.complain(f"event {number} of publisher {publisher} came next to {last}")
        seen[publisher] = number

    def complain(self, text: str) -> None:
        if len(self.complaints) < 3:
            self.complaints.append(text)

    def falsified(self, event: Any) -> Iterator[Any]:
        """What is noted instead, once something has been noted: to show that the oracle can fail."""
        how = self.falsify
        if how not in ("lose", "double", "swap") or not self.passed[event.publisher]:
            yield event
        elif how == "swap" and self.swapped is None:
            self.swapped = event
        else:
            self.falsify = ""
            if how != "lose":
                yield event
                yield event if how == "double" else self.swapped

    # --- the oracle ---

    @property
    def lossless(self) -> bool:
        return self.options.get("policy", "block") in ("block", "raise")

    @property
    def shape(self) -> str:
        mode = "stream" if "stream" in self.traits else self.subscription.mode
        return mode + (", batches" if self.batch else "") + (", records" if self.kind in RECORDS else "")

    def __str__(self) -> str:
        return f"{self.shape}, {sorted(self.traits)}, {self.subscription!r}"

    def hold(self, moment: str, counts: dict[int, int]) -> None:
        self.held[moment] = counts

    def balance(self, publishers: list[Publisher]) -> Iterator[str]:
        """What does not balance, when the dispatcher is closed."""
        if self.falsify == "change":
            self.kept = [(kept, b"!" + before) for kept, before in self.kept]
        while self.kept:
            self.check_kept(0)
        yield from self.complaints
        yield from self.balance_counters()
        yield from self.balance_totals(publishers)
        yield from self.balance_ends(publishers)

    def balance_counters(self) -> Iterator[str]:
        sub = self.subscription
        seen, filtered, raised = (sum(count.values()) for count in (self.passed, self.rejected, self.raised))
        if self.falsify == "count":
            filtered += 1
        if sub.pending:
            yield f"{sub.pending} pending after close"
        if sub.delivered != seen:
            yield f"{sub.delivered} delivered, but its handler has seen {seen}"
        if sub.filtered != filtered:
            yield f"{sub.filtered} filtered, but `where` has said no {filtered} times"
        if sub.errors != raised:
            yield f"{sub.errors} errors, but its handler has raised {raised} times"
        if self.lag > sub.dropped:
            yield f"{sub.dropped} dropped, but lag told of {self.lag}"

    def bounds(self, publishers: list[Publisher]) -> Iterator[tuple[int, int, int, int, int]]:
        """Of each publisher: what it had published at least and at most when this was subscribed, and ended."""
        for publisher in publishers:
            identity, ended = publisher.identity, publisher.accepted[self.kind]
            before, after = (self.held.get(f"{when} subscribe", {}).get(identity, 0) for when in ("before", "after"))
            not_yet = self.held["before cancel"].get(identity, 0) if "before cancel" in self.held else ended
            no_more = self.held.get("after cancel", {}).get(identity, ended)
            yield identity, before, after, not_yet, no_more

    def balance_totals(self, publishers: list[Publisher]) -> Iterator[str]:
        sub = self.subscription
        bounds = list(self.bounds(publishers))
        least = sum(max(0, not_yet - after) for _, _, after, not_yet, _ in bounds)
        most = sum(max(0, no_more - before) for _, before, _, _, no_more in bounds)
        accounted = sub.delivered + sub.dropped + sub.filtered
        if not (0 if self.traits & {"once", "weak"} else least) <= accounted <= most:
            yield f"{least} to {most} published, but {accounted} accounted for"
        if "once" in self.traits:
            certain = least > 0 and self.lossless and not self.traits & {"where", "discarded"}
            if sub.delivered > 1 or (certain and sub.delivered == 0):
                yield f"{sub.delivered} delivered of one that was to come once"

    def balance_ends(self, publishers: list[Publisher]) -> Iterator[str]:
        """The first and the last of each publisher, where none may be missing."""
        if self.traits & {"once", "weak", "discarded", "concurrent"}:
            return
        if not self.lossless and ("where" not in self.traits or self.subscription.dropped):
            return
        for p, before, after, not_yet, no_more in self.bounds(publishers):
            if p not in self.last:
                if not_yet > after:
                    yield f"nothing of publisher {p}, which has published {not_yet - after} events"
            elif not before < self.first[p] <= after + 1:
                yield f"the first of publisher {p} was {self.first[p]}, not {before + 1}"
            elif not not_yet <= self.last[p] <= no_more:
                yield f"the last of publisher {p} was {self.last[p]}, not {not_yet}"


class Owner:
    """Of a weak handler."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def handle(self, what: Any) -> None:
        self.ledger.handle(what)


def contents(kept: Any) -> bytes:
    """The bytes of a record, a batch, or one field of a batch."""
    return kept.tobytes() if isinstance(kept, memoryview) else bytes(kept)
