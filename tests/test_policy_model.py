"""A plain-Python model of policies and modes beside the dispatcher, under random calls.

While handlers are held the model knows every subscription exactly: the event in hand, those that wait, and what was
dropped. While they run, only the accounts must balance: how far a handler has come is not the model's to know.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule
from limits import DEADLINE

from ringcast import Dispatcher, PublishTimeoutError, QueueFullError

MOST_SUBSCRIPTIONS = 7
"""In one example; each held handler takes a worker."""

KEYS = 3
DROPPING = ("drop_newest", "drop_oldest", "latest", "latest by key")


class Event:
    def __init__(self, number):
        self.number = number


@dataclass(eq=False)
class Expected:
    """What the model knows of a subscription, and the handler that it has."""

    machine: "PolicyMachine"
    mode: str
    policy: str
    max_queue: int
    batch: int | None = None
    active: bool = True
    discarded: bool = False
    accepted: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    in_hand: int | None = None
    delivered: int = 0
    dropped: int = 0
    subscription: object = None

    def __post_init__(self):
        self.arrived = threading.Semaphore(0)

    def subscribe(self, bus, loop):
        options = {"mode": self.mode}
        if self.mode != "direct":
            options |= {"policy": self.policy.partition(" ")[0], "max_queue": self.max_queue, "batch": self.batch}
        if self.policy == "latest by key":
            options["key"] = lambda event: event.number % KEYS
        if self.mode == "asyncio":
            options["loop"] = loop
        handler = {"queued": self.held, "direct": self.direct, "asyncio": self.held_on_the_loop}[self.mode]
        self.subscription = bus.subscribe(Event, handler, **options)

    # --- the handlers ---

    def direct(self, event):
        self.received.append(event.number)

    def held(self, what):
        self.arrived.release()
        assert self.machine.flow.wait(2 * DEADLINE)
        self.received += self.numbers(what)

    async def held_on_the_loop(self, what):
        self.arrived.release()
        await self.machine.loop_flow.wait()
        self.received += self.numbers(what)

    def numbers(self, what):
        events = [what] if self.batch is None else what
        assert 1 <= len(events) <= (self.batch or 1)
        return [event.number for event in events]

    # --- the model, while handlers are held ---

    @property
    def pending(self):
        return len(self.waiting) + (self.in_hand is not None)

    @property
    def full(self):
        """Where publishers are held up or refused the event in hand counts, where events are dropped it does not."""
        return (len(self.waiting) if self.policy in DROPPING else self.pending) >= self.max_queue

    @property
    def in_doubt(self):
        """Whether it may or may not be full: cancelled, or with an event in hand that may have left the queue."""
        return self.full and (not self.active or (self.mode == "asyncio" and len(self.waiting) < self.max_queue))

    def accept(self, number):
        """The event comes in; nothing but the policy decides what becomes of it."""
        self.accepted.append(number)
        if self.mode == "direct":
            self.delivered += 1
        elif self.in_hand is None:
            self.in_hand = number
        elif self.policy == "latest":
            self.dropped += len(self.waiting)
            self.waiting = deque([number])
        elif self.policy == "latest by key" and number % KEYS in [other % KEYS for other in self.waiting]:
            place = [other % KEYS for other in self.waiting].index(number % KEYS)
            self.waiting[place] = number
            self.dropped += 1
        elif not self.full or self.policy not in ("drop_newest", "drop_oldest", "latest by key"):
            self.waiting.append(number)
        else:
            self.dropped += 1
            if self.policy != "drop_newest":
                self.waiting.popleft()
                self.waiting.append(number)

    def discard(self):
        self.dropped += len(self.waiting)
        self.waiting.clear()
        self.active, self.discarded = False, True

    def let_go(self):
        self.delivered += self.pending if self.mode != "direct" else 0
        kept = [] if self.in_hand is None else [self.in_hand, *self.waiting]
        self.in_hand = None
        self.waiting.clear()
        return kept


class PolicyMachine(RuleBasedStateMachine):
    subscriptions = Bundle("subscriptions")

    def __init__(self):
        super().__init__()
        self.flow = threading.Event()
        self.flow.set()
        self.loop = asyncio.new_event_loop()
        self.loop_flow = asyncio.Event()
        self.loop_flow.set()
        self.thread = threading.Thread(target=self.loop.run_forever, name="policy-loop", daemon=True)
        self.thread.start()
        self.bus = Dispatcher(max_workers=MOST_SUBSCRIPTIONS + 2, name="policy")
        self.expected = []
        self.number = 0
        self.pause = threading.Event()

    def eventually(self, condition):
        for _ in range(int(DEADLINE * 1000)):
            if condition():
                return
            self.pause.wait(0.001)
        pytest.fail(f"did not become true in {DEADLINE} s")

    def on_the_loop(self, function):
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (function(), done.set()))
        assert done.wait(DEADLINE)

    def publish(self):
        """What publish returns, or the class of what it raises for want of room."""
        try:
            return self.bus.publish(Event(self.number), timeout=0)
        except (QueueFullError, PublishTimeoutError) as error:
            return type(error)

    def publish_many(self, count, form, timeout):
        """How many of the next events are published, and the class of what is raised for want of room, or None."""
        events = [Event(number) for number in range(self.number, self.number + count)]
        try:
            assert self.bus.publish_many(form(events), timeout=timeout) == count
        except (QueueFullError, PublishTimeoutError) as error:
            return error.published, type(error)
        return count, None

    def refusals(self):
        """What an event that is published now must raise, one of these if there are any, and whether it may."""
        refusals = {"raise": QueueFullError, "block": PublishTimeoutError}
        behind = [each for each in self.expected if each.mode != "direct" and each.full and each.policy in refusals]
        return {refusals[each.policy] for each in behind if not each.in_doubt}, any(each.in_doubt for each in behind)

    # --- rules ---

    @precondition(lambda self: len(self.expected) < MOST_SUBSCRIPTIONS)
    @rule(
        target=subscriptions,
        mode=st.sampled_from(["queued", "queued", "queued", "asyncio", "asyncio", "direct"]),
        policy=st.sampled_from(["block", "raise", *DROPPING]),
        max_queue=st.sampled_from([1, 2, 5, 20]),
        batch=st.sampled_from([None, None, 1, 3, 1000]),
    )
    def subscribe(self, mode, policy, max_queue, batch):
        policy, batch = ("block", None) if mode == "direct" else (policy, batch)
        expected = Expected(self, mode, policy, max_queue, batch)
        expected.subscribe(self.bus, self.loop)
        self.expected.append(expected)
        return expected

    @rule(count=st.integers(1, 60))
    def publish_while_held(self, count):
        self.flow.clear()
        self.on_the_loop(self.loop_flow.clear)
        for _ in range(count):
            errors, doubtful = self.refusals()
            result = self.publish()
            if result in errors or (doubtful and result in (QueueFullError, PublishTimeoutError)):
                continue  # nobody has it, as the counts will tell
            assert not errors
            assert result == self.accept()

    def accept(self):
        """The next event is published. Returns how many it reaches, once those of them that were idle have it."""
        receivers = [expected for expected in self.expected if expected.active]
        for each in receivers:
            newly_held = each.mode != "direct" and each.in_hand is None
            each.accept(self.number)
            if newly_held:
                assert each.arrived.acquire(timeout=DEADLINE)
        self.number += 1
        return len(receivers)

    @rule(count=st.integers(1, 60), form=st.sampled_from([list, iter]))
    def publish_many_while_held(self, count, form):
        self.publish_while_held(1)
        if any(each.active and each.mode != "direct" and each.in_hand is None for each in self.expected):
            return  # it was refused; how many of the next ones an idle handler of batches takes is not known
        done, error = self.publish_many(count, form, timeout=0)
        for _ in range(done):
            errors, _ = self.refusals()
            assert not errors
            self.accept()
        if error is not None:
            errors, doubtful = self.refusals()
            assert error in errors or doubtful

    @rule(count=st.integers(1, 100), form=st.sampled_from([None, list, iter]))
    def publish_while_running(self, count, form):
        self.let_go()
        receivers = [expected for expected in self.expected if expected.active]
        before = {each: len(each.received) for each in receivers}
        published = []
        if form is not None:
            done, error = self.publish_many(count, form, timeout=DEADLINE)
            assert error is None or (error is QueueFullError and any(each.policy == "raise" for each in receivers))
            published += range(self.number, self.number + done)
            self.number += count
        for _ in range(count if form is None else 0):
            try:
                assert self.bus.publish(Event(self.number), timeout=DEADLINE) == len(receivers)
            except QueueFullError:
                assert any(each.policy == "raise" for each in receivers)
            else:
                published.append(self.number)
            self.number += 1
        for each in receivers:
            subscription = each.subscription
            self.eventually(lambda subscription=subscription: subscription.pending == 0)
            new = each.received[before[each] :]
            each.accepted += published
            each.delivered += len(new)
            each.dropped += len(published) - len(new)
            if each.policy == "latest by key":
                # replaced in place: in order by key only
                for key in range(KEYS):
                    of_key = [number for number in new if number % KEYS == key]
                    assert of_key == sorted(set(of_key) & set(published))
            elif each.policy in DROPPING:
                assert new == sorted(set(new) & set(published))
            else:
                assert new == published
            if published and each.policy in ("drop_oldest", "latest"):
                assert new[-1] == published[-1]  # the newest is never dropped
            while each.arrived.acquire(blocking=False):
                pass

    @rule()
    def let_go(self):
        before = {each: len(each.received) for each in self.expected}
        kept = {each: each.let_go() for each in self.expected}
        self.flow.set()
        self.on_the_loop(self.loop_flow.set)
        for each, numbers in kept.items():
            subscription = each.subscription
            self.eventually(lambda subscription=subscription: subscription.pending == 0)
            if each.mode != "direct":
                assert each.received[before[each] :] == numbers
            while each.arrived.acquire(blocking=False):
                pass

    @rule(expected=subscriptions, discard=st.booleans())
    def cancel(self, expected, discard):
        expected.subscription.cancel(discard=discard)
        expected.active = False
        if discard:
            expected.discard()

    # --- what must hold ---

    @invariant()
    def the_counts_are_the_models(self):
        assert self.bus.count(Event) == sum(expected.active for expected in self.expected)
        for expected in self.expected:
            subscription = expected.subscription
            assert subscription.active == expected.active
            counts = (subscription.pending, subscription.delivered, subscription.dropped)
            assert counts[1:] == (expected.delivered, expected.dropped)
            if not expected.discarded:  # its event in hand may count or not
                assert counts[0] == expected.pending
                assert sum(counts) == len(expected.accepted)
            assert subscription.errors == 0

    def teardown(self):
        self.flow.set()
        self.on_the_loop(self.loop_flow.set)
        try:
            self.bus.close(DEADLINE)
            for expected in self.expected:
                subscription = expected.subscription
                assert subscription.pending == 0
                assert subscription.delivered == len(expected.received)
                assert subscription.delivered + subscription.dropped == len(expected.accepted)
        finally:
            for _ in range(2):  # a wake-up that close has crossed may begin a task, which is to end
                self.on_the_loop(lambda: None)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(DEADLINE)
            self.loop.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("policy-")]


TestPolicyModel = pytest.mark.thread_unsafe(reason="looks for threads by name")(PolicyMachine.TestCase)
TestPolicyModel.settings = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
