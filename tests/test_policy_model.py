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

from ringcast import Dispatcher, PublishTimeoutError, QueueFullError

DEADLINE = 15.0
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
            options |= {"policy": self.policy.partition(" ")[0], "max_queue": self.max_queue}
        if self.policy == "latest by key":
            options["key"] = lambda event: event.number % KEYS
        if self.mode == "asyncio":
            options["loop"] = loop
        handler = {"queued": self.held, "direct": self.direct, "asyncio": self.held_on_the_loop}[self.mode]
        self.subscription = bus.subscribe(Event, handler, **options)

    # --- the handlers ---

    def direct(self, event):
        self.received.append(event.number)

    def held(self, event):
        self.arrived.release()
        assert self.machine.flow.wait(2 * DEADLINE)
        self.received.append(event.number)

    async def held_on_the_loop(self, event):
        self.arrived.release()
        await self.machine.loop_flow.wait()
        self.received.append(event.number)

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

    # --- rules ---

    @precondition(lambda self: len(self.expected) < MOST_SUBSCRIPTIONS)
    @rule(
        target=subscriptions,
        mode=st.sampled_from(["queued", "queued", "queued", "asyncio", "asyncio", "direct"]),
        policy=st.sampled_from(["block", "raise", *DROPPING]),
        max_queue=st.sampled_from([1, 2, 5, 20]),
    )
    def subscribe(self, mode, policy, max_queue):
        expected = Expected(self, mode, policy if mode != "direct" else "block", max_queue)
        expected.subscribe(self.bus, self.loop)
        self.expected.append(expected)
        return expected

    @rule(count=st.integers(1, 60))
    def publish_while_held(self, count):
        self.flow.clear()
        self.on_the_loop(self.loop_flow.clear)
        for _ in range(count):
            receivers = [expected for expected in self.expected if expected.active]
            refusals = {"raise": QueueFullError, "block": PublishTimeoutError}
            behind = [each for each in self.expected if each.mode != "direct" and each.full and each.policy in refusals]
            errors = {refusals[each.policy] for each in behind if not each.in_doubt}
            doubtful = any(each.in_doubt for each in behind)
            result = self.publish()
            if result in errors or (doubtful and result in (QueueFullError, PublishTimeoutError)):
                continue  # nobody has it, as the counts will tell
            assert not errors
            assert result == len(receivers)
            for each in receivers:
                newly_held = each.mode != "direct" and each.in_hand is None
                each.accept(self.number)
                if newly_held:
                    assert each.arrived.acquire(timeout=DEADLINE)
            self.number += 1

    @rule(count=st.integers(1, 100))
    def publish_while_running(self, count):
        self.let_go()
        receivers = [expected for expected in self.expected if expected.active]
        before = {each: len(each.received) for each in receivers}
        published = []
        for _ in range(count):
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


TestPolicyModel = PolicyMachine.TestCase
TestPolicyModel.settings = settings(
    max_examples=100,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
