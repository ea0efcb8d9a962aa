"""ringcast.testing: the pytest plugin, seen from a test suite that uses it, and what is in it besides."""

import gc
import inspect
import re
import weakref
from dataclasses import dataclass

import pytest

from ringcast import Dispatcher, HandlerFailure
from ringcast.testing import CheckedDispatcher, drain

pytest_plugins = ["pytester"]

PROLOGUE = """
    import threading
    import pytest
    from ringcast.testing import drain

    class Order:
        def __init__(self, amount):
            self.amount = amount
        def __repr__(self):
            return f"Order({self.amount})"
"""


@dataclass
class Order:
    amount: int


def fail(order: Order) -> None:
    raise ValueError(f"no stock for {order.amount}")


@pytest.fixture
def checked(deadline):
    bus = CheckedDispatcher()
    yield bus
    bus.close(deadline)


@pytest.fixture
def suite(pytester):
    """Runs a test suite that uses the plugin, in a process of its own; gives the result."""

    def run(tests):
        pytester.makeconftest('pytest_plugins = ["ringcast.testing"]')
        pytester.makepyfile(PROLOGUE + tests)
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly", timeout=60)

    return run


# drain ----------------------------------------------------------------------------------------------


def test_after_drain_everything_is_delivered(bus):
    seen = []
    bus.subscribe(Order, seen.append)
    for amount in range(1000):
        bus.publish(Order(amount))
    drain(bus)
    assert seen == [Order(amount) for amount in range(1000)]


def test_drain_waits_also_for_what_handlers_publish(bus):
    seen = []

    @bus.on
    def split(order: Order) -> None:
        seen.append(order.amount)
        if order.amount:
            bus.publish(Order(order.amount - 1))

    bus.publish(Order(100))
    drain(bus)
    assert seen == list(range(100, -1, -1))


def test_drain_of_a_dispatcher_without_events_is_done_at_once(bus):
    drain(bus, timeout=0)
    bus.close()
    drain(bus, timeout=0)


def test_drain_fails_when_the_time_is_over_and_names_who_is_pending(bus, gate, recorder):
    bus.subscribe(Order, gate.hold)
    bus.subscribe(Order, recorder)
    for amount in range(3):
        bus.publish(Order(amount))
    gate.wait_until_held()
    recorder.wait_for(3)
    message = "not all was delivered within 0.01 s; pending: conftest.Gate.hold (3 pending)"
    with pytest.raises(AssertionError, match=re.escape(message)):
        drain(bus, timeout=0.01)


@pytest.mark.thread_unsafe(reason="its gates are opened when all threads are done")
def test_drain_names_not_more_than_one_can_read(bus, make_gate):
    gates = [make_gate() for _ in range(12)]
    for gate in gates:
        bus.subscribe(Order, gate.hold)
    bus.publish(Order(1))
    gates[0].wait_until_held()
    with pytest.raises(AssertionError, match=r"and 2 more$"):
        drain(bus, timeout=0.01)


def test_drain_refuses_a_negative_timeout(bus):
    with pytest.raises(ValueError, match="timeout"):
        drain(bus, timeout=-1)


# CheckedDispatcher ----------------------------------------------------------------------------------


def test_check_is_content_without_failures(checked, recorder):
    checked.subscribe(Order, recorder)
    checked.publish(Order(1))
    drain(checked)
    checked.check()
    assert checked.failures == []


def test_check_tells_which_handler_failed_on_what(checked):
    checked.subscribe(fail)
    checked.publish(Order(7))
    drain(checked)
    with pytest.raises(AssertionError) as failed:
        checked.check()
    assert str(failed.value).splitlines() == [
        "a handler failed:",
        f"  {__name__}.fail on Order(amount=7): ValueError('no stock for 7')",
    ]
    (cause,) = failed.value.__cause__.exceptions
    assert cause is checked.failures[0].exception
    assert cause.__traceback__ is not None


def test_check_shows_not_more_failures_than_one_can_read(checked):
    checked.subscribe(fail)
    for amount in range(12):
        checked.publish(Order(amount))
    drain(checked)
    with pytest.raises(AssertionError, match=r"^handlers failed 12 times:(.|\n)*\n  and 2 more$"):
        checked.check()


def test_check_takes_exit_and_ctrl_c_of_a_handler_for_failures(checked):
    @checked.on
    def leave(order: Order) -> None:
        raise SystemExit(order.amount)

    checked.publish(Order(1))
    drain(checked)
    with pytest.raises(AssertionError, match="SystemExit"):
        checked.check()


def test_a_failure_that_was_expected_is_looked_at_and_cleared(checked):
    subscription = checked.subscribe(fail)
    checked.publish(Order(7))
    drain(checked)
    (failure,) = checked.failures
    assert isinstance(failure, HandlerFailure)
    assert (failure.event, failure.subscription) == (Order(7), subscription)
    checked.failures.clear()
    checked.check()


def test_it_takes_the_settings_of_a_dispatcher():
    with CheckedDispatcher(10, 2, "orders", policy="raise", timing=False, exit_timeout=1) as bus:
        assert (bus.max_queue, bus.max_workers, bus.name) == (10, 2, "orders")
        assert (bus.policy, bus.timing, bus.exit_timeout) == ("raise", False, 1)
    ours, theirs = (set(inspect.signature(cls).parameters) for cls in (CheckedDispatcher, Dispatcher))
    assert ours == theirs - {"on_error"}


def test_it_is_freed_by_reference_counting():
    gc.disable()
    try:
        bus = CheckedDispatcher()
        gone = weakref.ref(bus)
        del bus
        assert gone() is None
    finally:
        gc.enable()


# The fixture ----------------------------------------------------------------------------------------


def test_a_test_in_which_all_goes_well_passes(suite):
    result = suite("""
    def test_order(ringcast_dispatcher):
        booked = []
        ringcast_dispatcher.subscribe(Order, booked.append)
        ringcast_dispatcher.publish(Order(1))
        drain(ringcast_dispatcher)
        assert [order.amount for order in booked] == [1]
    """)
    result.assert_outcomes(passed=1)


def test_a_handler_s_failure_is_an_error_of_the_test_with_its_traceback(suite):
    result = suite("""
    def book(order):
        raise ValueError("no stock")

    def test_order(ringcast_dispatcher):
        ringcast_dispatcher.subscribe(Order, book)
        ringcast_dispatcher.publish(Order(7))
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*in book", "*ValueError: no stock", "*a handler failed:"])
    result.stdout.fnmatch_lines(["*.book on Order(7): ValueError('no stock')"])


def test_an_expected_failure_is_no_error(suite):
    result = suite("""
    def book(order):
        raise ValueError("no stock")

    def test_order(ringcast_dispatcher):
        ringcast_dispatcher.subscribe(Order, book)
        ringcast_dispatcher.publish(Order(7))
        drain(ringcast_dispatcher)
        assert [str(failure.exception) for failure in ringcast_dispatcher.failures] == ["no stock"]
        ringcast_dispatcher.failures.clear()
    """)
    result.assert_outcomes(passed=1)


def test_every_test_has_a_dispatcher_of_its_own_that_is_closed_after_it(suite):
    result = suite("""
    used = []

    @pytest.mark.parametrize("number", [1, 2])
    def test_order(ringcast_dispatcher, number):
        assert ringcast_dispatcher.publish(Order(1)) == 0
        ringcast_dispatcher.subscribe(Order, lambda order: None)
        ringcast_dispatcher.publish(Order(1))
        used.append(ringcast_dispatcher)

    def test_after():
        assert len(set(used)) == 2
        assert all(dispatcher.closed for dispatcher in used)
        assert threading.enumerate() == [threading.main_thread()]
    """)
    result.assert_outcomes(passed=3)


def test_a_handler_that_is_stuck_is_an_error_that_names_it(suite):
    result = suite("""
    import ringcast.testing

    ringcast.testing.TIMEOUT = 0.05
    opened = threading.Event()

    def wait(order):
        opened.wait(30)

    def test_order(ringcast_dispatcher):
        ringcast_dispatcher.subscribe(Order, wait)
        ringcast_dispatcher.publish(Order(1))

    def test_after():
        opened.set()
    """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*AssertionError: at the end of the test not all was delivered*.wait (1 pending)"])


def test_the_plugin_is_not_there_unless_it_is_asked_for(pytester):
    pytester.makepyfile("""
    import sys

    def test_nothing_is_loaded():
        assert "ringcast" not in sys.modules

    def test_order(ringcast_dispatcher):
        pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'ringcast_dispatcher' not found"])
