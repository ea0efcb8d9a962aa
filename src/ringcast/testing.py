"""Aids for testing programs that use Ringcast. All but the fixture are of use without pytest.

For pytest, in the root `conftest.py`:

    pytest_plugins = ["ringcast.testing"]

and in a test:

    from ringcast.testing import drain

    def test_an_order_is_booked(ringcast_dispatcher):
        booked = []
        ringcast_dispatcher.subscribe(Order, booked.append)
        take_order(ringcast_dispatcher)
        drain(ringcast_dispatcher)
        assert booked == [Order(1)]

After `drain` everything is delivered, so a list is all it takes to record events. The plugin is not loaded by itself
(there is no entry point): a fixture should come into a test suite because the suite asks for it, not because of what
is installed beside it, and runs that test something else should not import Ringcast.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringcast.dispatcher import EXIT_TIMEOUT, Dispatcher
from ringcast.errors import CloseTimeoutError
from ringcast.events import brief, short
from ringcast.failures import HandlerFailure
from ringcast.options import Policy

__all__ = ["CheckedDispatcher", "drain"]

TIMEOUT = 5.0  # seconds; far more than a test should need, and yet no hang
SHOWN = 10  # failures and handlers that a message names


def drain(dispatcher: Dispatcher, timeout: float = TIMEOUT) -> None:
    """Waits until all events that were published are delivered, also those that handlers publish meanwhile.

    Not inside a handler, which would have to wait for itself.

    Args:
        dispatcher: the dispatcher, open or closed.
        timeout: how long to wait, in seconds.

    Raises:
        AssertionError: the time is over; the message names the handlers that have events pending, and how many. Or this
            is inside a handler.
        OptionError: the timeout is no time.
    """
    if not dispatcher.wait_idle(timeout):
        if dispatcher._is_in_handler():
            raise AssertionError("drain() does not wait inside a handler, whose end it would wait for: call it outside")
        raise AssertionError(f"not all was delivered within {timeout} s; pending: {_pending(dispatcher)}")


class CheckedDispatcher(Dispatcher):
    """A Dispatcher that keeps the failures of handlers for the test to look at.

    A test that expects a failure looks at it in `failures` and clears the list.

    Args:
        max_queue: as for `Dispatcher`.
        max_workers: as for `Dispatcher`.
        name: as for `Dispatcher`.
        policy: as for `Dispatcher`.
        timing: as for `Dispatcher`.
        exit_timeout: as for `Dispatcher`.

    Attributes:
        failures: what `on_error` was given, in the order in which the handlers failed.

    Raises:
        OptionError: as for `Dispatcher`.
    """

    failures: list[HandlerFailure]

    def __init__(
        self,
        max_queue: int = 50_000,
        max_workers: int | None = None,
        name: str | None = None,
        *,
        policy: Policy = "block",
        timing: bool = True,
        exit_timeout: float | None = EXIT_TIMEOUT,
    ) -> None:
        # Not a method of this class: the dispatcher would hold itself, and be freed by the garbage collector only.
        failures: list[HandlerFailure] = []
        super().__init__(
            max_queue, max_workers, failures.append, name, policy=policy, timing=timing, exit_timeout=exit_timeout
        )
        self.failures = failures

    def check(self) -> None:
        """Fails if a handler has failed. Call `drain` or `close` before, so that no failure is still to come.

        Raises:
            AssertionError: there are `failures`. The message names the handlers, their events and the exceptions;
                its cause is a group of the exceptions, with their tracebacks.
        """
        if not self.failures:
            return
        failures = list(self.failures)
        lines = [
            f"{short(failure.subscription._name())} on {brief(failure.event)}: {brief(failure.exception)}"
            for failure in failures[:SHOWN]
        ]
        if len(failures) > SHOWN:
            lines.append(f"and {len(failures) - SHOWN} more")
        group = BaseExceptionGroup("handlers failed", [failure.exception for failure in failures[:SHOWN]])
        head = "a handler failed:" if len(failures) == 1 else f"handlers failed {len(failures)} times:"
        raise AssertionError("\n  ".join([head, *lines])) from group


def _pending(dispatcher: Dispatcher) -> str:
    stats = dispatcher.stats()
    waiting = [(sub.handler, sub.pending) for topic in stats.topics for sub in topic.subscriptions if sub.pending]
    shown = [f"{handler} ({pending} pending)" for handler, pending in waiting[:SHOWN]]
    if len(waiting) > SHOWN:
        shown.append(f"and {len(waiting) - SHOWN} more")
    return ", ".join(shown) or "nothing any more"


try:
    import pytest
except ModuleNotFoundError:  # as with unittest
    pass
else:
    __all__ += ["ringcast_dispatcher"]

    @pytest.fixture
    def ringcast_dispatcher() -> Iterator[CheckedDispatcher]:
        """A dispatcher for one test, closed after it. The test gets an error if a handler failed or is stuck.

        "Stuck" is what has not delivered everything within 5 seconds of the end of the test.
        """
        dispatcher = CheckedDispatcher()
        yield dispatcher
        try:
            dispatcher.close(TIMEOUT)
        except CloseTimeoutError as error:
            raise AssertionError(f"at the end of the test {error}") from None
        finally:
            dispatcher.check()
