"""What has gone wrong always reaches somebody: once, and in few words."""

import asyncio
import collections.abc
import functools
import gc
import logging
import re
import traceback
import warnings
from dataclasses import dataclass

import pytest
from limits import DEADLINE

from ringcast import Dispatcher, EventClassError, HandlerFailure, HandlerTypeError, OptionError, PublishTimeoutError

pytestmark = pytest.mark.thread_unsafe(reason="a dispatcher and the list of its failures go together")


@dataclass(frozen=True)
class Tick:
    number: int = 0


async def save(tick: Tick) -> None:
    raise AssertionError("nobody awaits this")


def generate(tick: Tick):
    raise AssertionError("nobody goes through this")
    yield


async def generate_async(tick: Tick):
    raise AssertionError("nobody goes through this")
    yield


def forget(function):
    """A decorator that does not care what the function is."""

    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    del wrapper.__wrapped__
    return wrapper


UNRUN = {save: "a coroutine", generate: "a generator", generate_async: "an asynchronous generator"}


@pytest.fixture
def failures():
    return []


@pytest.fixture
def bus(make_bus, failures):
    return make_bus(on_error=failures.append)


@pytest.fixture
def no_warning():
    """Fails the test for a coroutine that Python says was never awaited."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(each.message) for each in seen] == []


# --- code that nobody runs ---


@pytest.mark.thread_unsafe(reason="looks at all warnings of the process")
@pytest.mark.parametrize(
    "options", [{}, {"mode": "direct"}, {"once": True}, {"policy": "latest"}, {"batch": 10}], ids=str
)
@pytest.mark.parametrize("function", UNRUN, ids=lambda function: function.__name__)
def test_a_handler_that_returns_code_which_nobody_runs_has_failed(bus, failures, no_warning, function, options):
    subscription = bus.subscribe(Tick, forget(function), **options)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (failure,) = failures
    assert type(failure.exception) is HandlerTypeError
    assert str(failure.exception).startswith(
        f"handler {__name__}.{function.__name__} has returned {UNRUN[function]}, which"
    )
    assert (subscription.delivered, subscription.errors) == (1, 1)


def test_the_report_says_what_to_do(bus, failures):
    bus.subscribe(Tick, forget(save))
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert str(failures[0].exception).endswith(
        "nobody runs: subscribe the async def function itself, or make what wraps it async def as well"
    )


class Request(collections.abc.Coroutine):
    """As `session.post(url)` of aiohttp: to be awaited, and no coroutine of an async def function."""

    closed = False

    def __await__(self):
        raise AssertionError("nobody awaits this")

    def send(self, value):
        raise AssertionError("nobody runs this")

    throw = send

    def close(self):
        Request.closed = True


@pytest.mark.parametrize("options", [{}, {"mode": "direct"}, {"once": True}, {"mode": "asyncio"}], ids=str)
def test_so_has_one_that_returns_another_kind_of_coroutine(bus, failures, options):
    async def forget_it(tick):
        return Request()

    async def main():
        Request.closed = False
        bus.subscribe(Tick, forget_it if options.get("mode") == "asyncio" else lambda tick: Request(), **options)
        bus.publish(Tick())
        await bus.aclose(DEADLINE)

    asyncio.run(main())
    (failure,) = failures
    assert re.search(r"has returned <.*Request object .*> \(.*\), which nobody runs: .*await", str(failure.exception))
    assert Request.closed


def test_a_future_that_a_handler_returns_is_let_be(bus, failures):
    async def main():
        bus.subscribe(Tick, lambda tick: asyncio.get_running_loop().create_future(), mode="direct")
        bus.subscribe(Tick, lambda tick: asyncio.ensure_future(asyncio.sleep(0)), mode="direct")
        assert bus.publish(Tick()) == 2
        await asyncio.sleep(0)

    asyncio.run(main())
    assert failures == []


REMEDIES = {"a coroutine": "await it in the handler"}


@pytest.mark.thread_unsafe(reason="looks at all warnings of the process")
@pytest.mark.parametrize(
    "options", [{}, {"once": True}, {"policy": "latest"}, {"batch": 10}, {"concurrency": 3}], ids=str
)
@pytest.mark.parametrize("function", UNRUN, ids=lambda function: function.__name__)
def test_an_async_handler_that_returns_code_which_nobody_runs_has_failed(bus, failures, no_warning, function, options):
    async def forgetful(events):
        return function(events)

    async def main():
        subscription = bus.subscribe(Tick, forgetful, **options)
        bus.publish(Tick())
        await bus.aclose(DEADLINE)
        return subscription

    subscription = asyncio.run(main())
    (failure,) = failures
    assert type(failure.exception) is HandlerTypeError
    what = UNRUN[function]
    remedy = REMEDIES.get(what, "go through it in the handler")
    name = f"{forgetful.__module__}.{forgetful.__qualname__}"
    assert str(failure.exception) == f"handler {name} has returned {what}, which nobody runs: {remedy}"
    assert (subscription.delivered, subscription.errors) == (1, 1)


def test_a_task_that_an_async_handler_returns_is_let_be(bus, failures):
    ran = []

    async def work(number):
        ran.append(number)

    async def begin(tick: Tick):
        kept.append(work(tick.number))
        return kept[-1]

    async def begin_task(tick: Tick):
        return asyncio.create_task(work(tick.number))

    async def main():
        bus.subscribe(begin)
        bus.subscribe(begin_task)
        bus.publish(Tick(1))
        await bus.aclose(DEADLINE)
        await kept[0]

    kept: list = []
    asyncio.run(main())
    assert ran == [1, 1]
    assert failures == []


@pytest.mark.parametrize("mode", ["queued", "direct"])
def test_code_that_somebody_else_runs_is_let_be(bus, failures, mode):
    loop, ran = asyncio.new_event_loop(), []

    async def work(number):
        ran.append(number)

    def gather():
        while True:
            ran.append((yield))

    tasks, generator = [], gather()
    next(generator)

    def begin(tick: Tick):
        coroutine = work(tick.number)
        tasks.append(loop.create_task(coroutine))
        return coroutine

    def pass_on(tick: Tick):
        generator.send(tick.number)
        return generator

    bus.subscribe(begin, mode=mode)
    bus.subscribe(pass_on, mode=mode)
    for number in (1, 2):
        bus.publish(Tick(number))
    assert bus.wait_idle(DEADLINE)
    loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
    assert sorted(ran) == [1, 1, 2, 2]
    assert failures == []


def test_what_else_a_handler_returns_is_its_own_business(bus, failures):
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    for result in (0, "text", [], future, iter([])):
        bus.subscribe(Tick, lambda tick, result=result: result)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    loop.close()
    assert failures == []


@pytest.mark.thread_unsafe(reason="looks at all warnings of the process")
@pytest.mark.parametrize(
    "options",
    [
        {"where": forget(save)},
        {"where": forget(save), "mode": "direct"},
        {"where": forget(save), "policy": "drop_oldest"},
        {"key": forget(save), "policy": "latest"},
    ],
    ids=["where", "where, direct", "where, dropping", "key"],
)
def test_a_where_or_key_that_answers_with_a_coroutine_has_failed(bus, failures, no_warning, options):
    got = []
    subscription = bus.subscribe(Tick, got.append, **options)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (failure,) = failures
    assert f"={__name__}.save has returned a coroutine, which nobody runs: a plain function" in str(failure.exception)
    assert (got, subscription.errors, subscription.dropped) == ([], 1, 1)


@pytest.mark.thread_unsafe(reason="looks at all warnings of the process")
def test_an_on_error_that_returns_a_coroutine_is_named_and_the_failure_logged(make_bus, caplog, no_warning):
    async def tell(failure):
        raise AssertionError("nobody awaits this")

    bus = make_bus(on_error=forget(tell))
    bus.subscribe(Tick, lambda tick: 1 / 0)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert "has returned a coroutine" in str(record.exc_info[1])


# --- who is told of what ---


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("exception", [asyncio.CancelledError, GeneratorExit, Fatal, ValueError])
def test_what_a_direct_handler_raises_is_not_the_publishers(bus, failures, exception):
    after = []

    def handler(tick: Tick) -> None:
        raise exception

    bus.subscribe(handler, mode="direct")
    bus.subscribe(Tick, after.append, mode="direct")
    assert bus.publish(Tick()) == 2
    assert [type(failure.exception) for failure in failures] == [exception]
    assert after == [Tick()]


def test_a_cancelled_future_of_a_direct_handler_does_not_cancel_the_publishers_task(bus, failures):
    async def main():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        bus.subscribe(Tick, lambda tick: future.result(), mode="direct")

        async def publish():
            bus.publish(Tick())
            return "went on"

        return await asyncio.create_task(publish())

    assert asyncio.run(main()) == "went on"
    assert [type(failure.exception) for failure in failures] == [asyncio.CancelledError]


def test_a_publisher_that_wants_what_is_raised_gets_all_of_it(make_bus):
    bus = make_bus(on_error="raise")
    for exception in (ValueError, asyncio.CancelledError):

        def handler(tick: Tick, exception=exception) -> None:
            raise exception

        bus.subscribe(Tick, handler, mode="direct")
    with pytest.raises(BaseExceptionGroup) as raised:
        bus.publish(Tick())
    assert [type(each) for each in raised.value.exceptions] == [ValueError, asyncio.CancelledError]
    assert raised.value.published == 1
    with pytest.raises(BaseExceptionGroup) as raised:
        bus.publish_many([Tick(), Tick()])
    assert raised.value.published == 1


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_but_an_interrupt_is(bus, failures, exception):
    def handler(tick: Tick) -> None:
        raise exception

    bus.subscribe(handler, mode="direct")
    with pytest.raises(exception):
        bus.publish(Tick())
    assert failures == []


# --- reports that lead to reports ---


class ToBus(logging.Handler):
    def __init__(self, bus):
        super().__init__()
        self.bus = bus

    def emit(self, record):
        self.bus.publish(record)


@pytest.fixture
def log(make_bus, monkeypatch):
    """A logger, of which Ringcast's is a child as of all others are of the root, and a dispatcher for its records."""
    bus = make_bus()
    root, ours = logging.getLogger("program"), logging.getLogger("ringcast")
    handler = ToBus(bus)
    monkeypatch.setattr(ours, "parent", root)
    root.addHandler(handler)
    yield root, bus
    root.removeHandler(handler)


@pytest.mark.thread_unsafe(reason="sys.stderr, and loggers, are everybody's")
@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"mode": "direct"}], ids=["queued", "batch", "direct"])
def test_the_failure_of_a_handler_of_log_records_is_no_log_record(log, capsys, options):
    root, bus = log
    calls = []

    def send(record) -> None:
        calls.append(record)
        raise ConnectionError("cannot send")

    bus.subscribe(logging.LogRecord, send, **options)
    root.warning("one line")
    assert bus.wait_idle(DEADLINE)
    assert len(calls) == 1
    shown = capsys.readouterr().err
    assert shown.count("<LogRecord: program") == 1
    assert shown.count("ConnectionError: cannot send") == 1


@pytest.mark.thread_unsafe(reason="sys.stderr, and loggers, are everybody's")
def test_what_fails_while_something_is_logged_is_not_lost(make_bus, capsys, caplog):
    """Python 3.13.4 and newer ignore what is logged while a thread is logging."""
    bus = make_bus()
    logger = logging.getLogger("program")

    class Publishing(logging.Handler):
        def emit(self, record):
            bus.publish(Tick(len(record.getMessage())))

    def fail(tick: Tick) -> None:
        raise ConnectionError("cannot send")

    bus.subscribe(fail, mode="direct")
    handler = Publishing()
    logger.addHandler(handler)
    try:
        logger.warning("four")
    finally:
        logger.removeHandler(handler)
    assert "fail failed on Tick(number=4)" in capsys.readouterr().err + caplog.text


@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"mode": "direct"}], ids=["queued", "batch", "direct"])
def test_a_handler_of_failures_that_fails_is_logged_and_gets_no_failure_of_its_own(make_bus, caplog, options):
    bus = make_bus(on_error=lambda failure: bus.publish(failure))
    calls = []

    def note(failure) -> None:
        calls.append(failure)
        raise OSError("no room")

    bus.subscribe(HandlerFailure, note, **options)
    bus.subscribe(Tick, lambda tick: 1 / 0)
    bus.publish(Tick(7))
    assert bus.wait_idle(DEADLINE)
    assert len(calls) == 1
    assert [type(record.exc_info[1]) for record in caplog.records] == [OSError]


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")


class Enormous:
    def __repr__(self):
        return "x" * 1_000_000


class Untrue(str):
    def __len__(self):
        raise RuntimeError("no length")


class Misleading:
    def __repr__(self):
        return Untrue("misleading")


class Fateful:
    def __repr__(self):
        raise Fatal


class Elusive:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class HostileError(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


@pytest.mark.parametrize("batch", [None, 100])
@pytest.mark.parametrize(
    "event", [Hostile(), Enormous(), Misleading(), Fateful()], ids=lambda event: type(event).__name__
)
def test_a_report_comes_out_whatever_its_event_says_of_itself(make_bus, caplog, event, batch):
    bus = make_bus()

    def fail(event):
        raise HostileError

    bus.subscribe(type(event), fail, **({} if batch is None else {"batch": batch}))
    bus.publish_many([event] * 100)
    assert bus.wait_idle(DEADLINE)
    assert caplog.records
    for record in caplog.records:
        assert "fail failed on" in record.getMessage()
        assert len(record.getMessage()) < 300
        assert "HostileError" in logging.Formatter().format(record)


def test_so_does_that_of_an_event_that_hides_its_class(make_bus, caplog):
    def fail(event):
        raise ValueError("no")

    bus = make_bus()
    bus.subscribe(Elusive, fail)
    bus.publish(Elusive())
    assert bus.wait_idle(DEADLINE)
    (record,) = caplog.records
    assert "fail failed on" in record.getMessage()


def test_so_does_that_of_an_on_error_that_fails(make_bus, caplog):
    def on_error(failure):
        raise HostileError

    def fail(event: Hostile):
        raise HostileError

    bus = make_bus(on_error=on_error)
    bus.subscribe(fail)
    bus.publish(Hostile())
    assert bus.wait_idle(DEADLINE)
    (record,) = caplog.records
    assert "fail: an instance of" in record.getMessage()


class EnormousError(Exception):
    def __str__(self):
        return "x" * 1_000_000

    __repr__ = __str__


class UntrueError(Exception):
    def __str__(self):
        return Untrue("misleading")


class FatefulError(Exception):
    def __str__(self):
        raise Fatal


class ExitingError(Exception):
    def __str__(self):
        raise SystemExit


class HostileNotesError(Exception):
    @property
    def __notes__(self):
        raise Fatal


def with_notes():
    error = ValueError("no")
    error.add_note("x" * 1_000_000)
    return error


def with_causes():
    first = error = ValueError("no")
    for _ in range(1_000):
        error.__cause__ = ValueError("x" * 500)
        error = error.__cause__
    return first


def caused_by(cause):
    error = ValueError("no")
    error.__cause__ = cause
    return error


def with_deep_stack():
    def down(depth):
        up(depth)

    def up(depth):
        if depth == 0:
            raise ValueError("no")
        down(depth - 1)

    try:
        down(300)
    except ValueError as error:
        return error


WILD = {
    "deep": with_deep_stack,
    "hostile": HostileError,
    "enormous": EnormousError,
    "untrue": UntrueError,
    "fateful": FatefulError,
    "exiting": ExitingError,
    "notes": with_notes,
    "hostile notes": HostileNotesError,
    "causes": with_causes,
    "enormous cause": lambda: caused_by(EnormousError()),
    "hostile cause": lambda: caused_by(HostileNotesError()),
    "group": lambda: ExceptionGroup("no", [EnormousError(), HostileError()]),
    "enormous name": lambda: type("E" * 1_000_000, (Exception,), {})("no"),
    "syntax": lambda: SyntaxError("no", ("file", 1, 1, "x" * 1_000_000)),
}


@pytest.fixture(params=WILD)
def wild(request):
    return WILD[request.param]()


@pytest.mark.thread_unsafe(reason="sys.stderr is everybody's")
@pytest.mark.parametrize("event_class", [Tick, logging.LogRecord], ids=["logged", "to sys.stderr"])
def test_a_report_is_short_and_comes_out_whatever_the_exception_says_of_itself(
    make_bus, caplog, capsys, wild, event_class
):
    bus = make_bus()

    def fail(event):
        raise wild

    bus.subscribe(event_class, fail)
    bus.publish(Tick() if event_class is Tick else logging.makeLogRecord({}))
    assert bus.wait_idle(DEADLINE)
    if event_class is Tick:
        (record,) = caplog.records
        assert record.exc_info[1] is wild
        report = logging.Formatter().format(record)
    else:
        report = capsys.readouterr().err
    assert "fail failed on" in report
    assert "in fail" in report
    assert type(wild).__name__[:100] in report
    assert len(report) < 21_000


def test_what_python_can_show_is_left_to_it(make_bus, caplog):
    bus = make_bus()
    for exception in (ValueError("no"), caused_by(KeyError("no")), OSError(2, "no"), ValueError()):

        def fail(tick: Tick, exception=exception) -> None:
            raise exception

        bus.subscribe(fail)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert len(caplog.records) == 4
    for record in caplog.records:
        report = logging.Formatter().format(record)
        assert report.endswith("".join(traceback.format_exception(record.exc_info[1])).rstrip())


def test_so_is_that_of_an_on_error_that_fails_so(make_bus, caplog, wild):
    def on_error(failure):
        raise wild

    bus = make_bus(on_error=on_error)
    bus.subscribe(Tick, on_anything)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (record,) = caplog.records
    assert "on_error" in record.getMessage()
    assert len(record.getMessage()) < 500
    assert len(logging.Formatter().format(record)) < 21_000


def on_anything(event):
    raise EnormousError


def test_the_names_in_a_report_are_short(make_bus, caplog, deadline):
    def fail(event):
        raise ValueError

    fail.__qualname__ = "f" * 1_000_000
    bus = make_bus()
    bus.subscribe(Tick, fail)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (record,) = caplog.records
    assert len(record.getMessage()) < 500


async def publish_without_room(event):
    async with Dispatcher(max_queue=1) as bus:
        stream = bus.stream(type(event))
        await bus.apublish(event)
        try:
            await bus.apublish(event, timeout=0.01)
        finally:
            stream.cancel()


@pytest.mark.parametrize("event", [Hostile(), Enormous()], ids=lambda event: type(event).__name__)
def test_so_is_the_event_that_had_no_room(event):
    with pytest.raises(PublishTimeoutError) as raised:
        asyncio.run(publish_without_room(event))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("value", [Hostile(), Enormous()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("option", ["policy", "mode", "context", "once"])
def test_so_is_the_value_of_an_option(bus, option, value):
    with pytest.raises(OptionError, match=f"{option} must be") as raised:
        bus.subscribe(Tick, print, **{option: value})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("error", [HostileError, EnormousError])
def test_so_is_an_annotation_that_fails(bus, error):
    def fail():
        raise error

    def handler(event): ...

    handler.__annotations__["event"] = "fail()"
    with pytest.raises(HandlerTypeError, match=f"'fail\\(\\)' cannot be resolved \\({error.__name__}: ") as raised:
        bus.subscribe(handler)
    assert len(str(raised.value)) < 1_000


# --- classes in place of events ---


@pytest.mark.parametrize("publish", ["publish", "publish_many", "apublish"])
def test_a_class_in_place_of_an_event_is_refused_with_the_call_that_was_meant(publish):
    async def main():
        async with Dispatcher() as bus:
            bus.subscribe(Tick, lambda tick: None)
            calls = {
                "publish": lambda: bus.publish(Tick),
                "publish_many": lambda: bus.publish_many([Tick]),
            }
            with pytest.raises(EventClassError) as refused:
                await bus.apublish(Tick) if publish == "apublish" else calls[publish]()
            return str(refused.value)

    name = f"{__name__}.Tick"
    assert asyncio.run(main()).startswith(f"an event is published, and {name} is a class: publish({name}(...))")


async def make_tick():
    return Tick()


async def generate_ticks():
    yield Tick()


@pytest.mark.parametrize("calls_before", [0, 1])
@pytest.mark.parametrize("publish", ["publish", "publish_many", "publish_to", "apublish"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (make_tick, r"and this is <coroutine .*> \(coroutine\): await it: publish\(await \.\.\.\)$"),
        (lambda: (Tick() for _ in range(2)), r"and this is <generator .*> \(generator\): publish_many takes one$"),
        (
            generate_ticks,
            r"and this is <async_gen.*> \(async_generator\): publish each of its events, in an async for$",
        ),
    ],
)
def test_so_is_a_coroutine_and_a_generator_unless_somebody_takes_them(make, says, publish, calls_before):
    async def main():
        async with Dispatcher() as bus:
            bus.subscribe_to(7, lambda tick: None)
            bus.publish_to(7, Tick())
            calls = {
                "publish": bus.publish,
                "publish_many": lambda event: bus.publish_many([event]),
                "publish_to": lambda event: bus.publish_to(7, event),
            }

            async def call(event):
                return await bus.apublish(event) if publish == "apublish" else calls[publish](event)

            event = make()
            for _ in range(calls_before):
                subscription = bus.subscribe(object, lambda event: None)
                if publish != "publish_to":
                    assert await call(event) == 1
                subscription.cancel()
            with pytest.raises(EventClassError, match=says):
                await call(event)
            if hasattr(event, "close"):
                event.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (make_tick, "await it"),
        (generate_ticks, "publish each of its events, in an async for"),
        (Tick, "publish takes one"),
    ],
)
def test_publish_many_says_what_to_do_with_what_it_cannot_go_through(bus, make, remedy):
    events = make()
    with pytest.raises(EventClassError, match=f"publish_many takes an iterable of events, not .*: {remedy}$"):
        bus.publish_many(events)
    if hasattr(events, "close"):
        events.close()


@pytest.mark.parametrize("make", [make_tick, lambda: Tick, lambda: (tick for tick in ()), generate_ticks])
def test_what_is_refused_takes_no_open_type_id(bus, make):
    bus.subscribe_to(7, lambda event: None).cancel()  # so nobody has said what class it is of
    event = make()
    with pytest.raises(EventClassError, match="an event is published, and"):
        bus.publish_to(7, event)
    if hasattr(event, "close"):
        event.close()
    assert bus.publish_to(7, Tick()) == 0
    bus.subscribe_to(7, lambda event: None)
    assert bus.publish_to(7, Tick()) == 1


@pytest.mark.parametrize("calls_before", [0, 1])
def test_so_it_is_when_its_metaclass_is_known(bus, calls_before):
    for _ in range(calls_before):
        subscription = bus.subscribe(type, lambda cls: None)
        bus.publish(Tick)
        subscription.cancel()
    for _ in range(2):
        for publish in (bus.publish, lambda cls: bus.publish_many([cls])):
            with pytest.raises(EventClassError, match="is a class"):
                publish(Tick)


class Meta(type):
    pass


class SubMeta(Meta):
    pass


class OfSubMeta(metaclass=SubMeta):
    pass


@pytest.mark.parametrize(
    ("event_class", "options"),
    [(type, {}), (type, {"subclasses": True}), (Meta, {"subclasses": True}), (SubMeta, {}), (object, {})],
)
def test_where_classes_are_the_events_they_are_published(bus, event_class, options):
    got = []
    bus.subscribe(event_class, got.append, **options)
    event = Tick if event_class is type and not options else OfSubMeta
    assert bus.publish(event) == 1
    assert bus.publish_many([event]) == 1
    assert asyncio.run(bus.apublish(event)) == 1
    assert bus.wait_idle(DEADLINE)
    assert got == [event] * 3


def test_a_metaclass_that_states_its_id_is_made_for_events(bus):
    class Stated(type):
        __event_type__ = 0x77

    assert bus.publish(Stated("Event", (), {})) == 0


def test_a_class_under_an_id_of_nobody_is_published(bus):
    got = []
    bus.subscribe_to(9, got.append)
    assert bus.publish_to(9, Tick) == 1
    assert bus.wait_idle(DEADLINE)
    assert got == [Tick]


# --- where an exception comes from ---


class Undecided:
    def __bool__(self):
        raise ValueError("neither")


def divide(tick):
    return 1 / 0


OPTIONS = {
    "queued": {"where": divide},
    "direct": {"where": divide, "mode": "direct"},
    "batches": {"where": divide, "batch": 3},
    "an answer that is neither": {"where": lambda tick: Undecided()},
    "a policy that drops": {"where": divide, "policy": "drop_oldest"},
    "an answer that is neither, judged": {"where": lambda tick: Undecided(), "policy": "drop_newest"},
    "key": {"key": divide, "policy": "latest"},
    "a key with no hash": {"key": lambda tick: [], "policy": "latest"},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_traceback_says_that_an_option_has_raised_and_not_the_handler(make_bus, caplog, kind):
    options = OPTIONS[kind]
    option, function = ("key", options["key"]) if "key" in options else ("where", options["where"])
    bus = make_bus()
    bus.subscribe(Tick, lambda tick: None, **options)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert len(caplog.records) == 1
    text = logging.Formatter().format(caplog.records[0])
    assert text.endswith(
        f"raised by {option}={function.__module__}.{function.__qualname__}, before the handler was called"
    )


def test_it_is_said_once_of_an_exception_that_is_raised_again_and_again(bus, failures):
    known = ValueError("known")

    def where(tick: Tick) -> bool:
        raise known

    bus.subscribe(Tick, lambda tick: None, where=where)
    bus.publish_many([Tick()] * 5)
    assert bus.wait_idle(DEADLINE)
    assert len(failures) == 5
    assert len(known.__notes__) == 1


@pytest.mark.parametrize("exception", [asyncio.CancelledError, GeneratorExit, Fatal, SystemExit])
@pytest.mark.parametrize("options", [{}, {"policy": "drop_oldest"}, {"batch": 3}], ids=str)
def test_it_is_said_of_whatever_an_option_raises(bus, failures, exception, options):
    def where(tick: Tick) -> bool:
        raise exception

    bus.subscribe(Tick, lambda events: None, where=where, **options)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    (failure,) = failures
    assert type(failure.exception) is exception
    assert failure.exception.__notes__[0].startswith("raised by where=")


@pytest.mark.parametrize("hostile", ["add_note", "__notes__"])
def test_an_exception_that_takes_no_note_is_reported_as_it_is(bus, failures, hostile):
    def fail(*_):
        raise RuntimeError("no")

    error = type("Error", (Exception,), {hostile: fail if hostile == "add_note" else property(fail)})()

    def where(tick: Tick) -> bool:
        raise error

    bus.subscribe(Tick, lambda tick: None, where=where)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert [failure.exception for failure in failures] == [error]


def test_what_a_handler_raises_has_no_note(bus, failures):
    bus.subscribe(Tick, divide, where=lambda tick: True)
    bus.publish(Tick())
    assert bus.wait_idle(DEADLINE)
    assert not hasattr(failures[0].exception, "__notes__")
