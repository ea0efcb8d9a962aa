"""A plain-Python model beside the dispatcher, under random calls: both must deliver and count the same."""

import threading
from collections import Counter
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
from limits import DEADLINE

from ringcast import ClosedError, Dispatcher, PublishTimeoutError

LEAST_EVENTS = 100
"""As many are published before a close, at least."""


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
    batch: int | None = None
    active: bool = True
    discarded: bool = False
    accepted: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # of these, in the topic's log
    received: list[int] = field(default_factory=list)
    subscription: object = None

    calls: int = 0

    def __call__(self, what: object) -> None:
        assert self.machine.flow.wait(DEADLINE)
        events = [what] if self.batch is None else what
        assert 1 <= len(events) <= (self.batch or 1)
        self.received += [event.number for event in events]
        self.calls += 1
        if self.fails:
            raise ValueError("on purpose")

    def accept(self, number: int, position: int) -> None:
        self.accepted.append(number)
        self.positions.append(position)

    @property
    def oldest(self) -> int | None:
        """The position of the oldest event that it has not finished: what the gate does not pass."""
        delivered = self.subscription.delivered  # before pending: it may be handling them just now
        return self.positions[delivered] if self.subscription.pending else None


class DispatcherMachine(RuleBasedStateMachine):
    subscriptions = Bundle("subscriptions")

    def __init__(self):
        super().__init__()
        self.flow = threading.Event()  # cleared: every handler waits, and events pile up
        self.flow.set()
        self.number = 0
        self.expected = []
        self.tails = Counter()  # how many events of each topic were for anybody
        self.closed = False
        self.failures = []

    @initialize(
        target=subscriptions,
        max_queue=st.sampled_from([1, 2, 5, 600]),
        max_workers=st.sampled_from([1, 2, None]),
        topics=st.lists(TOPICS, min_size=1, max_size=4),
    )
    def make(self, max_queue, max_workers, topics):
        self.max_queue = max_queue
        self.bus = Dispatcher(max_queue, max_workers, on_error=self.on_error, name="model")
        return multiple(*[self.subscribe(topic, False, None) for topic in topics])

    def on_error(self, failure):
        self.failures.append(failure)  # from several workers at once

    def accept(self, event):
        """The event is published. Returns how many it reaches."""
        topic = topic_of(event)
        receivers = self.active(topic)
        for expected in receivers:
            expected.accept(event.number, self.tails[topic])
        self.tails[topic] += bool(receivers)
        return len(receivers)

    def oldest(self, topic):
        """The position of the oldest event of a topic that is not finished by all."""
        oldest = [expected.oldest for expected in self.expected if expected.topic == topic]
        return min([each for each in oldest if each is not None], default=self.tails[topic])

    def active(self, topic):
        return [expected for expected in self.expected if expected.active and expected.topic == topic]

    # --- rules ---

    @rule(target=subscriptions, topic=TOPICS, fails=st.booleans(), batch=st.sampled_from([None, None, 1, 3, 1000]))
    def subscribe(self, topic, fails, batch):
        handler = Expected(topic, self, fails, batch)
        subscribe = self.bus.subscribe_to if isinstance(topic, int) else self.bus.subscribe
        if self.closed:
            with pytest.raises(ClosedError):
                subscribe(topic, handler, batch=batch)
            return multiple()
        handler.subscription = subscribe(topic, handler, batch=batch)
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
            if not self.flow.is_set() and self.tails[topic] - self.oldest(topic) >= self.max_queue:
                continue  # it would wait for ever
            reached = self.bus.publish(event)
            assert reached == self.accept(event)
            self.number += 1

    @rule(
        event_classes=st.lists(EVENT_CLASSES, max_size=8),
        times=st.sampled_from([1, 5, 100]),
        form=st.sampled_from([list, tuple, iter]),
    )
    def publish_many(self, event_classes, times, form):
        events = [event_class(self.number + at) for at, event_class in enumerate(event_classes * times)]
        if self.closed:
            with pytest.raises(ClosedError):
                self.bus.publish_many(form(events))
            return
        done, held = len(events), not self.flow.is_set()
        oldest = {topic_of(event): self.oldest(topic_of(event)) for event in events}
        refused = None
        try:
            assert self.bus.publish_many(form(events), timeout=0 if held else None) == done
        except PublishTimeoutError as error:
            done = error.published
            refused = topic_of(events[done])
            assert held
        for event in events[:done]:
            self.accept(event)
        if refused is not None:  # for want of room: handlers may have gone on since `oldest` was found, but not back
            assert self.tails[refused] - oldest[refused] >= self.max_queue
        self.number += len(events)

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

    @precondition(lambda self: self.flow.is_set() and self.number > LEAST_EVENTS)  # or else most examples begin with it
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
            received = list(expected.received)  # which goes on
            assert received == expected.accepted[: len(received)]

    def check_drained(self, expected):
        subscription = expected.subscription
        assert subscription.pending == 0
        assert subscription.delivered + subscription.dropped == len(expected.accepted)
        assert expected.received == expected.accepted[: subscription.delivered]
        assert subscription.errors == (expected.calls if expected.fails else 0)
        if not expected.discarded:
            assert expected.received == expected.accepted

    def teardown(self):
        self.flow.set()
        if hasattr(self, "bus"):
            self.bus.close(DEADLINE)
            for expected in self.expected:
                self.check_drained(expected)
            assert len(self.failures) == sum(expected.subscription.errors for expected in self.expected)
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("model-")]


TestModel = pytest.mark.thread_unsafe(reason="looks for threads by name")(DispatcherMachine.TestCase)
TestModel.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
