"""A plain-Python model beside the dispatcher, under random calls: both must deliver and count the same."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from ringcast import ClosedError, Dispatcher

DEADLINE = 15.0


class Event:
    def __init__(self, number):
        self.number = number


class Stated(Event):
    __event_type__ = 0x70


class Inheriting(Stated):
    """Goes to the topic of Stated."""


class Automatic(Event):
    pass


class ByInstance(Event):
    __event_type__ = property(lambda self: 0x71 + self.number % 2)


def topic_of(event):
    """The model's idea of where an event goes."""
    if type(event) is ByInstance:
        return 0x71 + event.number % 2
    return Automatic if type(event) is Automatic else Stated


EVENT_CLASSES = st.sampled_from([Stated, Inheriting, Automatic, ByInstance])
TOPICS = st.sampled_from([Stated, Automatic, 0x71, 0x72])


@dataclass(eq=False)
class Expected:
    """What the model knows of a subscription, and the handler that it has."""

    topic: object
    machine: "DispatcherMachine"
    fails: bool
    active: bool = True
    discarded: bool = False
    accepted: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    subscription: object = None

    def __call__(self, event: object) -> None:
        assert self.machine.flow.wait(DEADLINE)
        self.received.append(event.number)
        if self.fails:
            raise ValueError("on purpose")


class DispatcherMachine(RuleBasedStateMachine):
    subscriptions = Bundle("subscriptions")

    def __init__(self):
        super().__init__()
        self.flow = threading.Event()  # cleared: every handler waits, and events pile up
        self.flow.set()
        self.number = 0
        self.expected = []
        self.closed = False
        self.failures = 0
        self.most_waiting = 0

    @initialize(max_queue=st.sampled_from([1, 2, 5, 600]), max_workers=st.sampled_from([1, 2, None]))
    def make(self, max_queue, max_workers):
        self.max_queue = max_queue
        self.bus = Dispatcher(max_queue, max_workers, on_error=self.on_error, name="model")

    def on_error(self, failure):
        self.failures += 1

    def active(self, topic):
        return [expected for expected in self.expected if expected.active and expected.topic == topic]

    # --- rules ---

    @rule(target=subscriptions, topic=TOPICS, fails=st.booleans())
    def subscribe(self, topic, fails):
        handler = Expected(topic, self, fails)
        subscribe = self.bus.subscribe_to if isinstance(topic, int) else self.bus.subscribe
        if self.closed:
            with pytest.raises(ClosedError):
                subscribe(topic, handler)
            return multiple()
        handler.subscription = subscribe(topic, handler)
        self.expected.append(handler)
        return handler

    @rule(event_class=EVENT_CLASSES, count=st.integers(1, 30))
    def publish(self, event_class, count):
        for _ in range(count):
            event = event_class(self.number)
            if self.closed:
                with pytest.raises(ClosedError):
                    self.bus.publish(event)
                continue
            topic = topic_of(event)
            if not self.flow.is_set():
                waiting = [self.waiting(expected) for expected in self.expected if expected.topic == topic]
                if max(waiting, default=0) >= self.max_queue:
                    continue  # it would wait for ever
            receivers = self.active(topic)
            assert self.bus.publish(event) == len(receivers)
            for expected in receivers:
                expected.accepted.append(self.number)
            self.number += 1

    def waiting(self, expected):
        """At most so many events of this subscription are not delivered."""
        return 0 if expected.discarded else len(expected.accepted) - expected.subscription.delivered

    @rule(expected=subscriptions, how=st.sampled_from(["call", "cancel", "discard"]))
    def cancel(self, expected, how):
        if how == "discard":
            expected.subscription.cancel(discard=True)
            expected.discarded = True
        else:
            expected.subscription() if how == "call" else expected.subscription.cancel()
        expected.active = False

    @precondition(lambda self: self.flow.is_set())
    @rule(expected=consumes(subscriptions))
    def leave(self, expected):
        with expected.subscription:
            pass
        expected.active = False
        self.check_drained(expected)

    @precondition(lambda self: not self.closed)
    @rule()
    def hold(self):
        self.flow.clear()

    @rule()
    def let_go(self):
        self.flow.set()

    @precondition(lambda self: self.flow.is_set())
    @rule()
    def close(self):
        self.bus.close(DEADLINE)
        self.closed = True
        for expected in self.expected:
            self.check_drained(expected)

    # --- what must hold ---

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "bus"):
            return
        assert self.bus.closed == self.closed
        if not self.closed:
            for topic in (Stated, Automatic, 0x71, 0x72):
                assert self.bus.count(topic) == len(self.active(topic))
        for expected in self.expected:
            subscription = expected.subscription
            if not self.closed:
                assert subscription.active == expected.active
            assert 0 <= subscription.pending <= self.max_queue
            assert expected.discarded or subscription.dropped == 0
            assert expected.received == expected.accepted[: len(expected.received)]

    def check_drained(self, expected):
        subscription = expected.subscription
        assert subscription.pending == 0
        assert subscription.delivered + subscription.dropped == len(expected.accepted)
        assert expected.received == expected.accepted[: subscription.delivered]
        assert subscription.errors == (len(expected.received) if expected.fails else 0)
        if not expected.discarded:
            assert expected.received == expected.accepted

    def teardown(self):
        self.flow.set()
        if hasattr(self, "bus"):
            self.bus.close(DEADLINE)
            for expected in self.expected:
                self.check_drained(expected)
            assert self.failures == sum(expected.subscription.errors for expected in self.expected)
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("model-")]


TestModel = DispatcherMachine.TestCase
TestModel.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
