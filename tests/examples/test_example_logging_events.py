"""examples/logging_events.py: log records as events."""

import logging
import re

import pytest


@pytest.fixture
def example(load_example):
    return load_example("logging_events")


@pytest.fixture
def listen():
    """Attaches a handler to a logger, for the time of the test."""
    attached = []

    def attach(logger, handler):
        attached.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        return logger

    yield attach
    for logger, handler, level in reversed(attached):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_record_arrives_as_it_was_when_it_was_logged(example, listen, bus, recorder):
    bus.subscribe(example.Logged, recorder)
    logger = listen(logging.getLogger("shop.orders"), example.EventHandler(bus))
    items = ["apple"]
    logger.warning("order of %s", items)
    items.append("pear")
    (event,) = recorder.wait_for(1)
    assert (event.logger, event.level, event.message) == ("shop.orders", logging.WARNING, "order of ['apple']")


def test_a_slow_subscriber_holds_up_neither_the_logger_nor_a_quick_one(example, listen, bus, gate, recorder):
    sent = []

    def send(text):
        gate.hold()
        sent.append(text)

    bus.subscribe(example.Logged, recorder)
    slow = example.Alerts(send).subscribe(bus)
    logger = listen(logging.getLogger("shop"), example.EventHandler(bus))
    logger.warning("late: 0")
    gate.wait_until_held()
    total = 3 * example.Alerts.BACKLOG
    for number in range(1, total):
        logger.warning("late: %d", number)
    assert [event.message for event in recorder.wait_for(total)] == [f"late: {number}" for number in range(total)]
    assert sent == []
    gate.open()
    bus.close()
    assert len(sent) + slow.dropped == total
    assert slow.dropped >= total - 1 - example.Alerts.BACKLOG
    newest = range(total - (len(sent) - 1), total)
    assert sent == ["shop: late: 0", *(f"shop: late: {number}" for number in newest)]


def test_the_slow_subscriber_is_given_only_what_is_worth_an_alert(example, listen, bus):
    sent = []
    slow = example.Alerts(sent.append).subscribe(bus)
    logger = listen(logging.getLogger("shop"), example.EventHandler(bus))
    logger.info("taken")
    logger.error("lost")
    bus.close()
    assert sent == ["shop: lost"]
    assert (slow.delivered, slow.filtered, slow.dropped) == (1, 1, 0)


def test_a_subscriber_that_fails_is_logged_and_does_not_hear_of_it(example, listen, bus, caplog):
    def fail(event):
        raise ValueError("cannot be sent")

    failing = bus.subscribe(example.Logged, fail)
    root = listen(logging.getLogger(), example.EventHandler(bus))
    root.warning("late")
    logging.getLogger("ringcast.somewhere.below").warning("not for events")
    bus.close()
    assert (failing.delivered + failing.errors >= 1, failing.errors) == (True, 1)
    assert [record.name for record in caplog.records] == ["root", "ringcast.somewhere.below", "ringcast"]


def test_what_is_logged_after_close_is_left_out(example, listen, bus, capsys):
    logger = listen(logging.getLogger("shop"), example.EventHandler(bus))
    bus.close()
    logger.error("too late")
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_be_formatted_is_reported_as_logging_does(example, listen, bus, capsys):
    logger = listen(logging.getLogger("shop"), example.EventHandler(bus))
    logger.propagate = False  # pytest's own handler would raise
    try:
        logger.error("%d orders", "many")
    finally:
        logger.propagate = True
    assert "--- Logging error ---" in capsys.readouterr().err


def test_as_a_program(run_example):
    seconds, counted, alerts = run_example("logging_events")
    assert seconds.startswith("logging took ")
    assert counted == "counted: 5000 INFO, 1000 WARNING"
    sent, dropped = re.fullmatch(
        r"alerts: (\d+) sent, (\d+) dropped; the last: shop: order 4995 is late", alerts
    ).groups()
    assert int(sent) + int(dropped) == 1000
    assert int(dropped) > 0
