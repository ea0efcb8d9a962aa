"""A handler's exception is reported and counted; it never stops the worker or the other handlers."""

import logging
import traceback
from dataclasses import dataclass

import pytest

from ringcast import HandlerFailure


@dataclass(frozen=True, slots=True)
class Tick:
    number: int


class Oops(Exception):
    pass


class Fatal(BaseException):
    pass


def fail_on_odd(tick: Tick) -> None:
    if tick.number % 2:
        raise Oops(tick.number)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "ringcast")
    return caplog


def test_the_failing_handler_and_the_others_still_get_every_event(make_bus, recorder, log, deadline):
    bus = make_bus()
    failing = bus.subscribe(fail_on_odd)
    other = bus.subscribe(Tick, recorder)
    events = [Tick(number) for number in range(1000)]
    for event in events:
        assert bus.publish(event) == 2
    bus.close(deadline)

    assert recorder.events == events
    assert (failing.errors, other.errors) == (500, 0)
    assert (failing.delivered, other.delivered) == (1000, 1000)
    assert (failing.pending, failing.dropped) == (0, 0)
    assert len(log.records) == 500


def test_on_error_gets_the_exception_the_event_and_the_subscription(make_bus, recorder, log, deadline):
    bus = make_bus(on_error=recorder)
    subscription = bus.subscribe(fail_on_odd)
    event = Tick(1)
    bus.publish(event)
    (failure,) = recorder.wait_for(1)
    bus.close(deadline)

    assert type(failure) is HandlerFailure
    exception, failed_event, failed_subscription = failure
    assert exception is failure.exception
    assert (type(exception), exception.args) == (Oops, (1,))
    assert traceback.extract_tb(exception.__traceback__)[-1].name == "fail_on_odd"
    assert failed_event is failure.event is event
    assert failed_subscription is failure.subscription is subscription
    assert log.records == []  # on_error takes the place of the log


def test_by_default_the_log_has_the_traceback_and_the_name_of_the_handler(bus, log, deadline):
    bus.subscribe(fail_on_odd)
    bus.publish(Tick(1))
    bus.close(deadline)

    (record,) = log.records
    assert (record.name, record.levelno) == ("ringcast", logging.ERROR)
    assert "fail_on_odd" in record.getMessage()
    assert type(record.exc_info[1]) is Oops
    assert "raise Oops(tick.number)" in log.text


@pytest.mark.parametrize("exception", [Fatal, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_exceptions_of_any_kind_are_handled_alike(make_bus, recorder, exception, deadline):
    failures = []
    bus = make_bus(on_error=failures.append)

    def handler(tick: Tick) -> None:
        if tick.number == 0:
            raise exception("on purpose")
        recorder(tick.number)

    subscription = bus.subscribe(handler)
    for number in range(3):
        bus.publish(Tick(number))
    bus.close(deadline)

    assert recorder.events == [1, 2]
    assert [type(failure.exception) for failure in failures] == [exception]
    assert subscription.errors == 1


@pytest.mark.parametrize("exception", [ValueError, Fatal])
def test_an_on_error_that_raises_is_contained_and_logged(make_bus, make_recorder, log, exception, deadline):
    recorder, failures = make_recorder(), make_recorder()

    def on_error(failure):
        failures(failure)
        raise exception("on_error is broken")

    bus = make_bus(on_error=on_error)
    subscription = bus.subscribe(fail_on_odd)
    bus.subscribe(Tick, recorder)
    for number in range(4):
        bus.publish(Tick(number))
    bus.close(deadline)

    assert [tick.number for tick in recorder.events] == [0, 1, 2, 3]
    assert [failure.event.number for failure in failures.events] == [1, 3]
    assert subscription.errors == 2
    assert [record.name for record in log.records if record.levelno >= logging.ERROR] == ["ringcast"] * 2
    assert "on_error is broken" in log.text


def test_on_error_may_publish(make_bus, recorder):
    def on_error(failure: HandlerFailure) -> None:
        bus.publish(failure)

    bus = make_bus(on_error=on_error)
    bus.subscribe(fail_on_odd)
    bus.subscribe(HandlerFailure, recorder)
    bus.publish(Tick(1))
    (failure,) = recorder.wait_for(1)
    assert failure.event == Tick(1)


def test_a_handler_that_cannot_be_called_with_the_event_fails_as_any_other(make_bus, deadline):
    # its signature cannot be read, so subscribing cannot refuse it
    failures = []
    bus = make_bus(on_error=failures.append)
    subscription = bus.subscribe(Tick, vars)  # a Tick has no __dict__
    bus.publish(Tick(0))
    bus.close(deadline)
    assert type(failures[0].exception) is TypeError
    assert subscription.errors == 1


@pytest.mark.parametrize("error", [OSError, SystemExit])  # for which CPython would end the process
@pytest.mark.parametrize("mode", ["queued", "direct"])
def test_what_even_the_log_cannot_contain_stops_neither_the_handlers_nor_publish(
    bus, recorder, monkeypatch, mode, error, deadline
):
    class Broken(logging.Handler):
        def emit(self, record):
            raise error("the log is broken")

    def failing(number: int) -> None:
        raise ValueError(number)

    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", lambda event: unraisable.append(event.exc_type))
    broken = Broken()
    logging.getLogger("ringcast").addHandler(broken)
    try:
        subscription = bus.subscribe(failing, mode=mode)
        bus.subscribe(int, recorder, mode=mode)
        for number in range(3):
            bus.publish(number)
        assert bus.wait_idle(deadline)
    finally:
        logging.getLogger("ringcast").removeHandler(broken)
    assert recorder.events == [0, 1, 2]
    assert (subscription.delivered, subscription.errors) == (3, 3)
    assert unraisable == [error] * 3
