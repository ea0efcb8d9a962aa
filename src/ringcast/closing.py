"""How a dispatcher, or a `with` block of one, ends: what is waited for, what is given up, and how that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ringcast._core import Subscription, is_interrupt, nanoseconds, seconds_to_leave, seconds_to_wait
from ringcast.errors import CloseTimeoutError, LoopBlockedError
from ringcast.events import short
from ringcast.subscribing import check_dispatcher
from ringcast.values import flag

if TYPE_CHECKING:
    from ringcast.dispatcher import Dispatcher

__all__ = ["aleave", "close", "leave", "name_pending", "still_at_work", "wait_idle"]

LEFT_BY_EXCEPTION = "the block was left by an exception"


def wait_idle(dispatcher: Dispatcher, timeout: float | None) -> bool:
    """See Dispatcher.wait_idle."""
    check_dispatcher(dispatcher, "wait_idle")
    limit = nanoseconds(timeout)
    if limit != 0 and dispatcher._is_run_here():
        raise LoopBlockedError(
            "wait_idle() would stop the event loop that has events to handle: await asyncio.to_thread(wait_idle)"
        )
    return dispatcher._await_idle(limit)


def close(dispatcher: Dispatcher, timeout: float | None, *, discard: bool) -> None:
    """See Dispatcher.close."""
    check_dispatcher(dispatcher, "close")
    limit = nanoseconds(timeout)
    flag("discard", discard)
    if dispatcher._is_run_here():
        from ringcast import aio

        if not aio.in_handler():
            raise LoopBlockedError(
                "close() would stop the event loop that has events to handle: await aclose(), or use async with"
            )
        dispatcher._begin_close(discard)
        return
    dispatcher._begin_close(discard)
    patience = seconds_to_wait(dispatcher, dispatcher._exit_timeout)
    if patience is None or 0 <= limit <= nanoseconds(patience):
        if not dispatcher._await_close(limit):
            raise CloseTimeoutError(still_at_work(dispatcher, limit / 1e9))
    elif not dispatcher._await_close(nanoseconds(patience)):
        from ringcast import aio

        aio.tell_of_lost_patience(dispatcher)


def leave(dispatcher: Dispatcher, exception: BaseException | None) -> None:
    """Close at the end of a `with` block, which an exception has ended, or none."""
    if exception is None:
        dispatcher.close()
    elif (
        _begins_to_leave(dispatcher, exception)
        and not dispatcher._is_run_here()  # the loop goes on with them
        and not dispatcher._await_close(nanoseconds(seconds_to_leave(exception, dispatcher._exit_timeout)))
    ):
        _give_up(dispatcher, LEFT_BY_EXCEPTION, stuck=True)


async def aleave(dispatcher: Dispatcher, exception: BaseException | None) -> None:
    """Close at the end of an `async with` block, which an exception has ended, or none."""
    if exception is None:
        await dispatcher.aclose()
    elif _begins_to_leave(dispatcher, exception):
        try:
            await dispatcher.aclose(seconds_to_leave(exception, dispatcher._exit_timeout))
        except CloseTimeoutError:
            _give_up(dispatcher, LEFT_BY_EXCEPTION, stuck=True)


def _begins_to_leave(dispatcher: Dispatcher, exception: BaseException) -> bool:
    """Begin to close at the end of a block that an exception has ended. Return whether to wait for deliveries."""
    if is_interrupt(exception):
        _give_up(dispatcher, f"the block was left by {type(exception).__name__}", stuck=False)
        return False
    for subscription in dispatcher._subscriptions():  # which the block will not read any more
        if subscription._is_stream():
            subscription.cancel(discard=True)
    dispatcher._begin_close()
    return True


def _give_up(dispatcher: Dispatcher, why: str, *, stuck: bool) -> None:
    """Close, drop what no handler has begun, and name that: first dropped, or some of it may be handled meanwhile.

    `stuck`: events in hand are named, too; their handlers had their time.
    """
    dispatcher._begin_close()
    before = [(subscription, subscription.dropped) for subscription in dispatcher._subscriptions()]
    dispatcher._begin_close(discard=True)
    for subscription, dropped in before:
        in_hand = subscription.pending if stuck else 0
        _name_undelivered(dispatcher, subscription, subscription.dropped - dropped + in_hand, why)
    dispatcher._named = dispatcher._named or stuck


def name_pending(dispatcher: Dispatcher, why: str) -> None:
    """Log each handler that has not handled all its events, one line each, once."""
    named, dispatcher._named = dispatcher._named, True
    if not named:
        for subscription in dispatcher._subscriptions():
            _name_undelivered(dispatcher, subscription, subscription.pending, why)


def _name_undelivered(dispatcher: Dispatcher, subscription: Subscription[Any], events: int, why: str) -> None:
    if events:
        import logging

        logging.getLogger("ringcast").error(
            "%s has not handled %d events of %r: %s",
            _reader_name(subscription, "handler "),
            events,
            dispatcher.name,
            why,
        )


def still_at_work(dispatcher: Dispatcher, timeout: float) -> str:
    """Return the message of a close that ran out of `timeout`, in seconds: it names the handlers with events left."""
    stuck = [sub for sub in dispatcher._subscriptions() if sub.pending]
    names = ", ".join(f"{_reader_name(sub)} ({sub.pending} pending)" for sub in stuck[:5])
    more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
    return f"not all was delivered within {timeout:g} s; still at work: {names}{more}"


def _reader_name(subscription: Subscription[Any], kind: str = "") -> str:
    """Return the name of a handler, after what messages call it; or what a stream, which has no name, is of."""
    return ("" if subscription._is_stream() else kind) + short(subscription._name())
