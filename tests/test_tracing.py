"""TracedDispatcher: publishing and handling as spans of OpenTelemetry, seen with its own SDK."""

import asyncio
import contextvars
import functools
import gc
import itertools
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ringcast import ClosedError, Dispatcher
from ringcast.tracing import TracedDispatcher


@dataclass
class Order:
    amount: int


@dataclass
class Invoice:
    amount: int


ORDER, INVOICE = f"{__name__}.Order", f"{__name__}.Invoice"


class Clerk:
    """Handles orders with a method."""

    def __init__(self):
        self.seen = []

    def book(self, order: Order) -> None:
        self.seen.append(order)


def ignore(failure):
    """For on_error."""


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    made.shutdown()


@pytest.fixture
def traced(provider, deadline):
    bus = TracedDispatcher(on_error=ignore, tracer_provider=provider)
    yield bus
    bus.close(deadline)


@pytest.fixture
def spans(traced, exporter, deadline):
    """All finished spans of a kind, once everything is delivered and closed."""

    def get(kind):
        traced.close(deadline)
        return [span for span in exporter.get_finished_spans() if span.kind is kind]

    return get


@pytest.fixture
def span(spans):
    """The only finished span of a kind."""

    def get(kind):
        (found,) = spans(kind)
        return found

    return get


def parent(span):
    return span.parent.span_id if span.parent else None


# Spans ----------------------------------------------------------------------------------------------


def test_publish_is_a_producer_span(traced, span):
    traced.subscribe(Order, lambda order: None)
    assert traced.publish(Order(1)) == 1
    found = span(SpanKind.PRODUCER)
    assert found.name == f"publish {ORDER}"
    assert dict(found.attributes) == {
        "messaging.system": "ringcast",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": ORDER,
        "ringcast.subscribers": 1,
    }


def test_many_at_once_are_one_producer_span_above_those_of_their_handlers(traced, spans):
    traced.subscribe(Order, lambda order: None)
    assert traced.publish_many([Order(1), Order(2)]) == 2
    (publisher,) = spans(SpanKind.PRODUCER)
    assert publisher.name == f"publish {ORDER}"
    assert publisher.attributes["messaging.batch.message_count"] == 2
    assert [parent(each) for each in spans(SpanKind.CONSUMER)] == [publisher.context.span_id] * 2


def test_many_of_several_classes_have_no_destination(traced, span):
    assert traced.publish_many([Order(1), Invoice(2)]) == 2
    found = span(SpanKind.PRODUCER)
    assert found.name == "publish"
    assert "messaging.destination.name" not in found.attributes


def test_each_batch_is_one_consumer_span_that_stands_alone(traced, spans):
    batches = []
    traced.subscribe(Order, batches.append, batch=10)
    traced.publish_many([Order(1), Order(2), Order(3)])
    found = spans(SpanKind.CONSUMER)
    # a worker that runs beside the publisher may find the first ones before the last are there
    assert [each.attributes["messaging.batch.message_count"] for each in found] == [len(batch) for batch in batches]
    assert sum(map(len, batches)) == 3
    assert {each.name for each in found} == {f"process {ORDER}"}
    assert all(parent(each) is None for each in found)


def test_events_of_several_classes_are_named_after_their_own(traced, spans):
    def handler(event: Order | Invoice) -> None: ...

    traced.subscribe(handler)
    traced.publish_many([Order(1), Invoice(2)])
    assert [each.name for each in spans(SpanKind.CONSUMER)] == [f"process {ORDER}", f"process {__name__}.Invoice"]


def test_a_batch_of_several_classes_has_no_destination(traced, spans, gate):
    def handler(events: list[Order | Invoice]) -> None:
        gate.hold()

    traced.subscribe(handler, batch=10)
    traced.publish(Order(0))
    gate.wait_until_held()  # what follows waits for the handler, and comes as one batch
    traced.publish_many([Order(1), Invoice(2)])
    gate.open()
    one, both = spans(SpanKind.CONSUMER)
    assert (one.name, one.attributes["messaging.destination.name"]) == (f"process {ORDER}", ORDER)
    assert (both.name, both.attributes["messaging.batch.message_count"]) == ("process", 2)
    assert "messaging.destination.name" not in both.attributes


def test_each_call_of_a_handler_is_a_consumer_span_below_it(traced, span):
    def book(order: Order) -> None: ...

    traced.subscribe(book)
    traced.publish(Order(1))
    found = span(SpanKind.CONSUMER)
    assert found.name == f"process {ORDER}"
    assert dict(found.attributes) == {
        "messaging.system": "ringcast",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": ORDER,
        "code.function.name": f"{__name__}.{book.__qualname__}",
    }
    publisher = span(SpanKind.PRODUCER)
    assert parent(found) == publisher.context.span_id
    assert found.context.trace_id == publisher.context.trace_id
    assert found.status.status_code is StatusCode.UNSET


def test_every_event_has_the_span_of_its_own_publisher(traced, gate, spans):
    traced.subscribe(Order, gate.hold)
    for amount in range(3):
        traced.publish(Order(amount))  # the first call is still at the gate
    gate.open()
    publishers = [span.context.span_id for span in spans(SpanKind.PRODUCER)]
    assert [parent(span) for span in spans(SpanKind.CONSUMER)] == publishers


def test_several_handlers_of_an_event_are_siblings(traced, spans):
    for _ in range(3):
        traced.subscribe(Order, Clerk().book)
    traced.publish(Order(1))
    (publisher,) = spans(SpanKind.PRODUCER)
    assert [parent(span) for span in spans(SpanKind.CONSUMER)] == [publisher.context.span_id] * 3


def test_the_publisher_s_own_span_is_above_it(traced, provider, span):
    traced.subscribe(Order, lambda order: None)
    with provider.get_tracer("test").start_as_current_span("request") as request:
        traced.publish(Order(1))
    assert parent(span(SpanKind.PRODUCER)) == request.get_span_context().span_id


def test_what_a_handler_publishes_hangs_below_the_handler(traced, spans, deadline):
    @traced.on
    def book(order: Order) -> None:
        traced.publish(Invoice(order.amount))

    traced.subscribe(Invoice, lambda invoice: None)
    traced.publish(Order(1))
    assert traced.wait_idle(deadline)
    by_name = {span.name: span for kind in (SpanKind.PRODUCER, SpanKind.CONSUMER) for span in spans(kind)}
    chain = [f"publish {ORDER}", f"process {ORDER}", f"publish {INVOICE}", f"process {INVOICE}"]
    for above, below in itertools.pairwise(chain):
        assert parent(by_name[below]) == by_name[above].context.span_id


def test_a_direct_handler_s_span_lies_within_that_of_the_publisher(traced, span):
    traced.subscribe(Order, Clerk().book, mode="direct")
    traced.publish(Order(1))
    outer, inner = span(SpanKind.PRODUCER), span(SpanKind.CONSUMER)
    assert parent(inner) == outer.context.span_id
    assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time


def test_an_async_handler_s_span_lasts_until_it_is_done(traced, exporter, deadline):
    current = []

    async def main():
        done = asyncio.Event()

        async def book(order: Order) -> None:
            await asyncio.sleep(0)
            current.append(trace.get_current_span().get_span_context().span_id)
            done.set()

        traced.subscribe(book)
        assert await traced.apublish(Order(1)) == 1
        await asyncio.wait_for(done.wait(), deadline)
        await traced.aclose()

    asyncio.run(main())
    outer, inner = (
        next(span for span in exporter.get_finished_spans() if span.kind is kind)
        for kind in (SpanKind.PRODUCER, SpanKind.CONSUMER)
    )
    assert parent(inner) == outer.context.span_id
    assert current == [inner.context.span_id]
    assert len(exporter.get_finished_spans()) == 2  # apublish is not also a publish


def test_publish_to_tells_the_type_id(traced, span):
    traced.subscribe_to(7, Clerk().book)
    assert traced.publish_to(7, Order(1)) == 1
    assert span(SpanKind.PRODUCER).attributes["ringcast.type_id"] == 7
    assert parent(span(SpanKind.CONSUMER)) == span(SpanKind.PRODUCER).context.span_id


def test_a_publish_that_reaches_nobody_says_so(traced, span):
    assert traced.publish(Order(1)) == 0
    assert span(SpanKind.PRODUCER).attributes["ringcast.subscribers"] == 0


# Errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exception", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_handler_raises_is_recorded_on_its_span_and_reported(provider, exporter, exception, deadline):
    failures = []
    with TracedDispatcher(on_error=failures.append, tracer_provider=provider) as bus:

        @bus.on
        def book(order: Order) -> None:
            raise exception("no stock")

        bus.publish(Order(1))
    publisher, handler = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)
    assert handler.status.status_code is StatusCode.ERROR
    assert handler.status.description == f"{exception.__name__}: no stock"
    assert handler.attributes["error.type"] == exception.__name__
    (event,) = handler.events
    assert event.attributes["exception.message"] == "no stock"
    assert "in book" in event.attributes["exception.stacktrace"]
    assert publisher.status.status_code is StatusCode.UNSET
    (failure,) = failures
    assert isinstance(failure.exception, exception)


class HostileError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class EnormousError(Exception):
    def __str__(self):
        return "x" * 1_000_000


@pytest.mark.parametrize("exception", [HostileError, EnormousError])
def test_what_is_recorded_is_short_and_comes_out_whatever_the_exception_says_of_itself(provider, exporter, exception):
    failures = []
    with TracedDispatcher(on_error=failures.append, tracer_provider=provider) as bus:

        @bus.on
        def book(order: Order) -> None:
            raise exception

        bus.publish(Order(1))
    _publisher, handler = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)
    assert handler.status.status_code is StatusCode.ERROR
    assert handler.status.description.startswith(f"{exception.__name__}: ")
    (event,) = handler.events
    assert "in book" in event.attributes["exception.stacktrace"]
    assert event.attributes["exception.type"] == f"{__name__}.{exception.__name__}"
    assert len(handler.to_json()) < 30_000
    assert [type(failure.exception) for failure in failures] == [exception]


def test_a_publish_that_fails_has_the_error_on_its_span(traced, span):
    traced.close()
    with pytest.raises(ClosedError):
        traced.publish(Order(1))
    found = span(SpanKind.PRODUCER)
    assert found.status.status_code is StatusCode.ERROR
    assert [event.name for event in found.events] == ["exception"]


# Subscribing ----------------------------------------------------------------------------------------


def test_handlers_keep_their_names_and_can_be_found(traced):
    clerk = Clerk()
    subscription = traced.subscribe(clerk.book)
    (topic,) = traced.stats().topics
    assert topic.subscriptions[0].handler == f"{__name__}.Clerk.book"
    assert subscription.handler.__self__ is clerk
    assert subscription.handler.__wrapped__ is Clerk.book


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (functools.partial(lambda kind, order: None, "kind"), f"{__name__}.<lambda>"),
        (print, "print"),
        (functools.partial(print, end=""), "print"),
    ],
)
def test_any_callable_can_be_a_handler(traced, handler, name):
    traced.subscribe(Order, handler)
    assert [sub.handler for topic in traced.stats().topics for sub in topic.subscriptions] == [name]


@pytest.mark.parametrize(
    "make",
    [
        lambda recorder: recorder,
        lambda recorder: recorder.__call__,
        lambda recorder: recorder.events.append,
        lambda recorder: functools.partial(recorder),
        lambda recorder: lambda tick: recorder(tick),
    ],
    ids=["an object", "a method", "a built-in method", "a partial", "a function"],
)
@pytest.mark.parametrize("mode", ["queued", "direct"])
def test_a_handler_is_let_go_by_what_was_subscribed(traced, recorder, make, mode):
    handler = make(recorder)
    traced.subscribe(Order, handler, mode=mode)
    traced.on(Order, mode=mode)(handler)
    assert traced.off(lambda order: None) == 0
    assert traced.off(handler) == 2
    assert traced.publish(Order(1)) == 0


def test_callable_objects_are_handlers_named_after_their_class(traced, recorder, span):
    traced.subscribe(Order, recorder)
    traced.publish(Order(1))
    assert span(SpanKind.CONSUMER).attributes["code.function.name"] == "conftest.Recorder"
    assert recorder.events == [Order(1)]


def test_annotations_are_still_read_where_they_stand(traced):
    @dataclass
    class Local:
        pass

    def by_annotation(event: "Local") -> None: ...

    assert traced.subscribe(by_annotation).event_class is Local
    assert traced.on(by_annotation) is by_annotation
    assert traced.count(Local) == 2


def test_a_weak_subscription_lasts_as_long_as_its_object(traced, eventually, deadline):
    clerk, seen = Clerk(), []
    clerk.seen = seen
    traced.subscribe(clerk.book, weak=True)
    gc.collect()
    traced.publish(Order(1))
    assert traced.wait_idle(deadline)
    assert seen == [Order(1)]
    del clerk
    gc.collect()
    eventually(lambda: traced.count(Order) == 0)


def test_a_weak_async_method_is_traced_as_well(traced, exporter, deadline):
    class Office:
        def __init__(self):
            self.done = asyncio.Event()

        async def book(self, order: Order) -> None:
            self.done.set()

    async def main():
        office = Office()
        traced.subscribe(office.book, weak=True)
        gc.collect()
        await traced.apublish(Order(1))
        await asyncio.wait_for(office.done.wait(), deadline)
        await traced.aclose()

    asyncio.run(main())
    assert [span.kind for span in exporter.get_finished_spans()] == [SpanKind.PRODUCER, SpanKind.CONSUMER]


def test_streams_give_the_events_themselves_and_no_spans_but_the_publisher_s(traced, exporter):
    async def main():
        orders = traced.stream(Order)
        await traced.apublish(Order(1))
        closing = asyncio.create_task(traced.aclose())
        async with asyncio.timeout(15):
            seen = [order async for order in orders]
        await closing
        return seen

    assert asyncio.run(main()) == [Order(1)]
    assert [span.kind for span in exporter.get_finished_spans()] == [SpanKind.PRODUCER]


def test_events_of_subclasses_are_named_after_their_own_class(traced, span, recorder):
    class Urgent(Order):
        """An order."""

    traced.subscribe(Order, recorder, subclasses=True)
    traced.publish(Urgent(1))
    name = f"{__name__}.{Urgent.__qualname__}"
    assert span(SpanKind.CONSUMER).name == f"process {name}"
    assert parent(span(SpanKind.CONSUMER)) == span(SpanKind.PRODUCER).context.span_id


def test_handlers_see_the_publisher_s_context_variables(traced, deadline):
    user = contextvars.ContextVar("user")
    seen = []
    traced.subscribe(Order, lambda order: seen.append(user.get()))
    context = contextvars.copy_context()
    context.run(user.set, "ann")
    context.run(traced.publish, Order(1))
    traced.close(deadline)
    assert seen == ["ann"]


def test_it_is_a_dispatcher_with_all_its_settings(provider):
    with TracedDispatcher(10, 2, name="orders", tracer_provider=provider) as bus:
        assert (bus.max_queue, bus.max_workers, bus.name) == (10, 2, "orders")
        assert isinstance(bus, Dispatcher)


def test_handlers_of_enormous_names_are_told_apart():
    def make(middle):
        def handle(order: Order): ...

        handle.__qualname__ = "a" * 150 + middle + "z" * 60  # longer than messages show
        return handle

    with TracedDispatcher() as bus:
        bids, asks = make("bids"), make("asks")
        bus.subscribe(bids, replace=True)
        bus.subscribe(asks, replace=True)
        assert bus.count(Order) == 2
        assert bus.off(bids) == 1


def test_without_a_provider_it_works_and_costs_no_spans(deadline):
    seen = []
    with TracedDispatcher() as bus:
        bus.subscribe(Order, seen.append)
        assert bus.publish(Order(1)) == 1
    assert seen == [Order(1)]


def test_ringcast_itself_does_not_need_opentelemetry(run_python):
    result = run_python(
        "import sys; sys.modules['opentelemetry'] = None; import ringcast; assert 'ringcast.tracing' not in sys.modules"
    )
    assert (result.returncode, result.stderr) == (0, "")
