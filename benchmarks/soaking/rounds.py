"""Rounds of a soak: a few seconds of everything at once with one dispatcher, and then its account."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from ringcast import ClosedError, CloseTimeoutError, Dispatcher, QueueFullError, settings
from soaking.events import CLASSES, IDS, RECORDS, WAYS, Dot, Event, Freed, Publisher, Red, apublish_one, publish_some
from soaking.ledger import Ledger, Owner

FIRST_POSITIONS = (0, 2**32 - 700, 2**63 - 2**40 - 300)  # of rings; positions end at 2**63
STALL = 60.0  # seconds without any delivery after which a round hangs
LOOK = 1.0  # seconds between two looks at that
POLICIES = ("block", "raise", "drop_newest", "drop_oldest", "latest")
WEIGHTS = (4, 1, 2, 2, 2)
# What a subscription may be: where its handler runs, whether it takes batches, whether it is of records.
SHAPES = (
    *[(mode, batches, records) for mode in ("queued", "asyncio", "stream") for batches in (0, 1) for records in (0, 1)],
    ("direct", 0, 0),
    ("direct", 0, 1),
    ("native", 0, 1),
)
CHURNED = (*[shape for shape in SHAPES if shape[0] != "stream"], ("queued", 0, 0), ("native", 0, 1))


class Round:
    """A few seconds with one dispatcher."""

    def __init__(self, seed: int, falsify: str) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.falsify = falsify
        self.failures = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.complaints: list[str] = []
        self.ledgers: list[Ledger] = []
        self.publishers: list[Publisher] = []
        self.streams: list[asyncio.Task[None]] = []  # the tasks that take the events of streams
        self.owners: dict[int, object] = {}
        self.waited_for = 0
        chance = self.chance
        settings.FIRST_POSITION = chance.choice(FIRST_POSITIONS)
        self.bus = Dispatcher(
            max_queue=chance.choice((1, 7, 100, 2000, 2000, 50_000, 50_000)),
            max_workers=chance.choice((None, None, 1, 2, 5)),
            on_error=self.count_failure,
            policy=chance.choices(POLICIES, WEIGHTS)[0],
        )
        # what makes events go to several topics stays for good, and keeps records from going the quick way
        self.with_contexts = chance.random() < 0.5
        self.with_object = chance.random() < 0.3
        self.loop = asyncio.new_event_loop()
        self.loop_thread = threading.Thread(target=self.loop.run_forever, name="soak-loop", daemon=True)

    def count_failure(self, failure: Any) -> None:
        with self.lock:
            self.failures += 1

    def publisher(self) -> Publisher:
        self.publishers.append(Publisher(len(self.publishers)))
        return self.publishers[-1]

    def counts(self, which: str, kind: type) -> dict[int, int]:
        return {p.identity: getattr(p, which)[kind] for p in self.publishers}

    # --- subscriptions ---

    def kind(self, chance: random.Random, records: int) -> type:
        if records:
            return chance.choice(RECORDS)
        return chance.choice((*CLASSES, Event, object) if self.with_object else (*CLASSES, Event))

    def ledger(self, shape: tuple[str, int, int], chance: random.Random, whole_round: bool) -> Ledger:
        """A ledger of a subscription that is still to be made, with the options for it."""
        mode, batches, records = shape
        kind = self.kind(chance, records)
        traits = {mode}
        options: dict[str, Any] = {}
        if mode != "direct":
            able = POLICIES[:2] if mode == "native" else POLICIES
            options["policy"] = chance.choices(able, WEIGHTS[: len(able)])[0]
            if chance.random() < 0.3:
                options["max_queue"] = chance.randint(1, self.bus.max_queue)
        if mode in ("queued", "native") and chance.random() < 0.2:
            traits.add("own_thread")
            options["own_thread"] = True
        if batches:
            options["batch"] = chance.choice((1, 3, 100, 2000))
        if kind in (Event, object):
            options["subclasses"] = True
        likely = {"where": 0.25, "slow": 0.2, "failing": 0.2}
        for trait in {"native": ["slow"], "stream": ["where"]}.get(mode, likely):
            if chance.random() < likely[trait]:
                traits.add(trait)
        ledger = Ledger(kind, options, traits, random.Random(chance.random()))
        if "where" in traits:
            options["where"] = ledger.where
        if mode in ("queued", "direct", "asyncio"):
            self.choose_more(ledger, chance, whole_round)
        return ledger

    def choose_more(self, ledger: Ledger, chance: random.Random, whole_round: bool) -> None:
        """What only handlers written in Python have."""
        options, traits = ledger.options, ledger.traits
        (mode,) = traits & {"queued", "direct", "asyncio"}
        options["mode"] = mode
        if options.get("policy") == "latest" and chance.random() < 0.5:
            traits.add("key")
            options["key"] = ledger.key
        if mode != "direct" and not ledger.batch and self.with_contexts and chance.random() < 0.3:
            traits.add("context")
            options["context"] = "publisher"
        if mode == "direct":
            options["priority"] = chance.randrange(3)
        if mode == "asyncio":
            options["loop"] = self.loop
            if chance.random() < 0.3:
                traits.add("concurrent")
                options["concurrency"] = 3
        if not whole_round and chance.random() < 0.1:
            traits.add("once")
            options["once"] = True
        elif not whole_round and mode != "asyncio" and chance.random() < 0.1:
            traits.add("weak")
            options["weak"] = True

    def subscribe(self, shape: tuple[str, int, int], chance: random.Random, whole_round: bool) -> Ledger:
        """Subscribes a ledger of any shape but a stream."""
        ledger = self.ledger(shape, chance, whole_round)
        handler: Any = ledger.handle_async if shape[0] == "asyncio" else ledger.handle
        if "weak" in ledger.traits:
            owner = Owner(ledger)
            self.owners[id(ledger)] = owner
            handler = owner.handle
        if not whole_round:
            ledger.hold("before subscribe", self.counts("accepted", ledger.kind))
        if shape[0] == "native":
            ledger.subscription = self.bus.subscribe_native(
                ledger.kind, ledger.native_handler(), None, **ledger.options
            )
        elif not whole_round and ledger.kind in IDS and chance.random() < 0.3:
            ledger.subscription = self.bus.subscribe_to(IDS[ledger.kind], handler, **ledger.options)
        else:
            ledger.subscription = self.bus.subscribe(ledger.kind, handler, **ledger.options)
        if not whole_round:
            ledger.hold("after subscribe", self.counts("issued", ledger.kind))
        self.ledgers.append(ledger)
        return ledger

    def cancel(self, ledger: Ledger, chance: random.Random) -> None:
        subscription = ledger.subscription
        ledger.hold("before cancel", self.counts("accepted", ledger.kind))
        if "weak" in ledger.traits:
            self.owners.pop(id(ledger))
        how = chance.random()
        if how < 0.3:
            ledger.traits.add("discarded")
            subscription.cancel(discard=True)
        elif how < 0.5:
            with subscription:
                pass
        elif how < 0.75:
            subscription()
        else:
            subscription.cancel()
        ledger.hold("after cancel", self.counts("issued", ledger.kind))

    # --- threads ---

    def publish(self, publisher: Publisher, chance: random.Random) -> None:
        while not self.stop.is_set():
            for _ in range(chance.choice((1, 10, 300))):
                if not publish_some(self.bus, publisher, chance) or self.stop.is_set():
                    return
            if chance.random() < 0.3:
                self.stop.wait(chance.random() * 0.01)

    def churn(self, chance: random.Random) -> None:
        """Subscribes and cancels."""
        kept: list[Ledger] = []
        try:
            while not self.stop.is_set():
                if len(kept) < 5 or (len(kept) < 20 and chance.random() < 0.5):
                    kept.append(self.subscribe(chance.choice(CHURNED), chance, whole_round=False))
                else:
                    self.cancel(kept.pop(chance.randrange(len(kept))), chance)
                if chance.random() < 0.05:  # a look from outside
                    self.bus.stats()
                    self.bus.wait_idle(0.001)
                    for ledger in list(self.ledgers):
                        ledger.check_kept(0)
                self.stop.wait(chance.random() * 0.01)
        except ClosedError:
            pass

    # --- in the event loop ---

    async def publish_async(self, publisher: Publisher, chance: random.Random) -> None:
        while not self.stop.is_set():
            if not await apublish_one(self.bus, publisher, chance):
                return
            if chance.random() < 0.1:
                await asyncio.sleep(0)

    async def churn_async(self, chance: random.Random) -> None:
        """Streams that come and go, subscriptions that are left with `async with`, and waits for a single event."""
        try:
            while not self.stop.is_set():
                await chance.choice((self.pass_stream, self.pass_subscription, self.wait_for))(chance)
                await asyncio.sleep(chance.random() * 0.02)
        except ClosedError:
            pass

    async def pass_stream(self, chance: random.Random) -> None:
        shape = ("stream", chance.randrange(2), chance.randrange(2))
        ledger, stream = self.stream(shape, chance, whole_round=False)
        task = self.loop.create_task(self.consume(ledger, stream))
        await asyncio.sleep(chance.random() * 0.05)
        ledger.hold("before cancel", self.counts("accepted", ledger.kind))
        ledger.traits.add("discarded")
        if chance.random() < 0.5:
            async with stream:
                pass
        else:
            stream.cancel()
        ledger.hold("after cancel", self.counts("issued", ledger.kind))
        await task

    async def pass_subscription(self, chance: random.Random) -> None:
        ledger = self.subscribe(("asyncio", chance.randrange(2), chance.randrange(2)), chance, whole_round=False)
        async with ledger.subscription:
            await asyncio.sleep(chance.random() * 0.02)
            ledger.hold("before cancel", self.counts("accepted", ledger.kind))
        ledger.hold("after cancel", self.counts("issued", ledger.kind))

    async def wait_for(self, chance: random.Random) -> None:
        """The event is the next one of its publisher, or of those that `where` lets pass."""
        kind = self.kind(chance, chance.randrange(2))
        ledger = Ledger(kind, {}, {"where"} if chance.random() < 0.5 else set(), chance)
        where = (lambda event: event.number % 3 == 0) if "where" in ledger.traits else None
        before = self.counts("accepted", kind)
        task = self.loop.create_task(
            self.bus.wait_for(kind, where=where, timeout=chance.random() * 0.1, subclasses=kind in (Event, object))
        )
        await asyncio.sleep(0)  # it is subscribed now
        after = self.counts("issued", kind)
        try:
            event = await task
        except TimeoutError:
            return
        self.waited_for += 1
        ledger.note(event)
        first = ledger.first.get(event.publisher, ledger.handled.get(event.publisher, 0))
        if where is not None and not where(event):
            ledger.complain("wait_for gave what `where` had not let pass")
        if first <= before[event.publisher] or (where is None and first > after[event.publisher] + 1):
            ledger.complain(f"wait_for gave event {first}, not {before[event.publisher] + 1}")
        self.complaints += ledger.complaints

    def stream(self, shape: tuple[str, int, int], chance: random.Random, whole_round: bool) -> tuple[Ledger, Any]:
        ledger = self.ledger(shape, chance, whole_round)
        if not whole_round:
            ledger.hold("before subscribe", self.counts("accepted", ledger.kind))
        stream = self.bus.stream(ledger.kind, **ledger.options)
        if not whole_round:
            ledger.hold("after subscribe", self.counts("issued", ledger.kind))
        ledger.subscription = stream.subscription
        self.ledgers.append(ledger)
        return ledger, stream

    async def consume(self, ledger: Ledger, stream: Any) -> None:
        async for what in stream:
            ledger.take(what)
            if self.chance.random() < 0.01:
                await asyncio.sleep(0.001)

    async def start_stream(self, shape: tuple[str, int, int], chance: random.Random) -> None:
        ledger, stream = self.stream(shape, chance, whole_round=True)
        self.streams.append(self.loop.create_task(self.consume(ledger, stream)))

    def in_loop(self, coroutine: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    # --- the round ---

    def run(self, seconds: float) -> list[str]:
        """Everything at once. Returns what does not balance."""
        chance = self.chance
        Freed.now = Freed()
        self.loop_thread.start()
        if self.falsify:
            self.subscribe_falsified()
        self.subscribe_for_the_round()
        if self.falsify:
            self.publish_for_falsified()
        publishers = [self.publisher() for _ in range(3)]
        coroutine_publisher = self.publisher()
        for name in WAYS:  # whatever the others come to
            publish_some(self.bus, publishers[0], chance, name=name)
        self.in_loop(apublish_one(self.bus, publishers[0], chance)).result()
        threads = [self.thread(self.publish, one, self.fork()) for one in publishers]
        threads += [self.thread(self.churn, self.fork()) for _ in range(2)]
        for thread in threads:
            thread.start()
        futures = [
            self.in_loop(self.publish_async(coroutine_publisher, self.fork())),
            self.in_loop(self.churn_async(self.fork())),
        ]
        under_fire, asynchronous = chance.random() < 0.5, chance.random() < 0.3
        time.sleep(seconds)
        if under_fire:
            self.close(asynchronous)
        self.stop.set()
        for thread in threads:
            self.wait(lambda thread=thread: (thread.join(LOOK), not thread.is_alive())[1], "a thread to end")
        for future in futures:
            self.wait_for_future(future)
        self.close(asynchronous)
        for task in self.streams:
            self.wait_for_future(self.in_loop(await_task(task)))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.loop_thread.join()
        self.loop.close()
        return list(self.balance())

    def fork(self) -> random.Random:
        return random.Random(self.chance.random())

    def thread(self, target: Callable[..., object], *arguments: Any) -> threading.Thread:
        """A thread that is still to be started; what it raises is a complaint."""

        def run() -> None:
            try:
                target(*arguments)
            except BaseException:
                self.complaints.append(traceback.format_exc())

        return threading.Thread(target=run, name=f"soak-{target.__name__}")

    def subscribe_for_the_round(self) -> None:
        """One subscription of each shape, and some more; a few of them publish."""
        shapes = [*SHAPES, *self.chance.choices(CHURNED, k=4)]
        self.chance.shuffle(shapes)
        relays = 3
        for shape in shapes:
            if shape[0] == "stream":
                self.in_loop(self.start_stream(shape, self.fork())).result()
                continue
            ledger = self.subscribe(shape, self.chance, whole_round=True)
            able = "queued" in ledger.traits or ("asyncio" in ledger.traits and "concurrent" not in ledger.traits)
            if relays and able and self.chance.random() < 0.2:
                relays -= 1
                ledger.relay = (self.bus, self.publisher())

    def subscribe_falsified(self) -> None:
        """Subscriptions of each shape whose ledgers are to be found false."""
        for mode, batches, records in SHAPES:
            options: dict[str, Any] = {"policy": "block", **({"batch": 5} if batches else {})}
            ledger = Ledger(Dot if records else Red, options, {mode}, random.Random(0))
            ledger.falsify = self.falsify
            if mode == "stream":
                self.in_loop(self.start_falsified(ledger)).result()
            elif mode == "native":
                ledger.subscription = self.bus.subscribe_native(ledger.kind, ledger.native_handler(), policy="block")
            elif mode == "asyncio":
                ledger.subscription = self.bus.subscribe(ledger.kind, ledger.handle_async, loop=self.loop, **options)
            elif mode == "direct":
                ledger.subscription = self.bus.subscribe(ledger.kind, ledger.handle, mode="direct")
            else:
                ledger.subscription = self.bus.subscribe(ledger.kind, ledger.handle, **options)
            self.ledgers.append(ledger)

    async def start_falsified(self, ledger: Ledger) -> None:
        stream = self.bus.stream(ledger.kind, **ledger.options)
        ledger.subscription = stream.subscription
        self.streams.append(self.loop.create_task(self.consume(ledger, stream)))

    def publish_for_falsified(self) -> None:
        """As many events as it takes to find them false, however little time the other publishers have."""
        publisher = self.publisher()
        for kind in (Red, Dot) * 12:
            event, accepted = publisher.next(kind), False
            while not accepted:
                try:
                    self.bus.publish(event)
                    accepted = True
                except QueueFullError:  # of a subscription of policy "raise"
                    time.sleep(0.001)
            publisher.settle([kind], 1)
        if self.falsify == "invent":
            for kind in (Red, Dot):
                publisher.next(kind)
                publisher.settle([kind], 1)

    # --- waiting, with an eye on whether anything goes on ---

    def progress(self) -> int:
        ledgers = list(self.ledgers)
        subs = [ledger.subscription for ledger in ledgers]
        return sum(sub.delivered + sub.dropped + sub.filtered + (not sub.active) for sub in subs) + len(subs)

    def wait(self, done: Callable[[], object], what: str) -> None:
        """Waits until `done()`, which waits for LOOK seconds at most. If nothing moves for STALL seconds meanwhile,
        tells what there is to know and ends the process: however slow the machine, that is a hang."""
        moved, before = time.monotonic(), self.progress()
        while not done():
            now = self.progress()
            if now != before:
                moved, before = time.monotonic(), now
            elif time.monotonic() - moved > STALL:
                self.give_up(what)

    def wait_for_future(self, future: concurrent.futures.Future[Any]) -> None:
        self.wait(lambda: concurrent.futures.wait([future], LOOK).done, "a coroutine to end")
        if (failure := future.exception()) is not None:
            self.complaints.append("".join(traceback.format_exception(failure)))

    def close(self, asynchronous: bool) -> None:
        def closed() -> bool:
            try:
                if asynchronous:
                    self.in_loop(self.bus.aclose(LOOK)).result()
                else:
                    self.bus.close(LOOK)
            except CloseTimeoutError:
                return False
            return True

        self.wait(closed, "the dispatcher to close")

    def give_up(self, what: str) -> None:
        print(f"A HANG, in a round that began with seed {self.seed}: waited for {what}")
        for ledger in self.ledgers:
            if ledger.subscription.pending or ledger.subscription.active:
                options = {name: value for name, value in ledger.options.items() if name != "loop"}
                print(f"{ledger}, {options}, held {ledger.held}")
        sys.stdout.flush()
        faulthandler.dump_traceback()
        os._exit(1)

    # --- the account ---

    def balance(self) -> Iterator[str]:
        yield from self.complaints
        for ledger in self.ledgers:
            for complaint in ledger.balance(self.publishers):
                yield f"{ledger}: {complaint}"
        raised = sum(sum(ledger.raised.values()) for ledger in self.ledgers)
        if self.failures != raised:
            yield f"on_error was called {self.failures} times, but handlers have raised {raised} times"
        self.owners.clear()
        made = sum(Freed.now.made.values())
        for ledger in self.ledgers:
            ledger.swapped = None
        gc.collect()
        if len(Freed.now.freed) != made:
            yield f"{made} events made of the class that counts, but {len(Freed.now.freed)} freed"

    def ways(self) -> collections.Counter[str]:
        """How many events were published in which way, and how many were waited for."""
        total: collections.Counter[str] = collections.Counter({"wait_for": self.waited_for})
        for publisher in self.publishers:
            total.update(publisher.ways)
        return total


async def await_task(task: asyncio.Task[None]) -> None:
    await task
