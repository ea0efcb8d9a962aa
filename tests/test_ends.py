"""The ends of a subscription: in every mode, under every policy, done means that the handler has returned.

One table: the cells of `ends` (mode, policy, shape), and for each the ways to end. Cells without a meaning are not in
it, by `ends.has_meaning` and `End.modes`.
"""

import asyncio
import os
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ends import CELLS, EVENTS, MODES, Case, start_loop
from limits import DEADLINE

from ringcast import CloseTimeoutError


@dataclass(frozen=True)
class End:
    """A way to end a subscription whose handler is held.

    Attributes:
        act: does so.
        waits: whether it returns only when the handler has returned.
        discards: whether what the handler has not begun is dropped.
        accepted: how many events the subscription has got.
        options: of the subscription.
        modes: for which there is such an end.
    """

    act: Callable[[Case], object]
    waits: bool = True
    discards: bool = False
    accepted: int = EVENTS
    options: dict[str, Any] = field(default_factory=dict)
    modes: tuple[str, ...] = tuple(MODES)


def leave_block(case):
    with case.subscription:
        pass


def leave_async_block(case):
    async def leave():
        async with case.subscription:
            pass

    asyncio.run(leave())


def discard_and_leave(case):
    case.subscription.cancel(discard=True)
    leave_block(case)


def close_in_time(case):
    with pytest.raises(CloseTimeoutError, match=r"\d pending"):
        case.bus.close(0)
    assert case.returned == []
    case.bus.close()


def drop_owner(case):
    case.owner = None  # the call that is under way keeps it


HANDLERS = ("queued", "own thread", "asyncio", "direct")  # those that take all options
# Free-threaded Python frees an object that its last user leaves in another thread than the one that made it when that
# one comes to it: until then the owner of a weak subscription is there, and gets events.
FREED_AT_ONCE = not sysconfig.get_config_var("Py_GIL_DISABLED")
ENDS = {
    "cancel": End(lambda case: case.subscription.cancel(), waits=False),
    "cancel, discarding": End(lambda case: case.subscription.cancel(discard=True), waits=False, discards=True),
    "with": End(leave_block),
    "with, discarding": End(discard_and_leave, discards=True),
    "async with": End(leave_async_block),
    "once": End(leave_block, options={"once": True}, accepted=1, modes=HANDLERS),
    "weak": End(drop_owner, options={"weak": True}, waits=False, discards=True, modes=HANDLERS * FREED_AT_ONCE),
    "close": End(lambda case: case.bus.close()),
    "close with a timeout": End(close_in_time),
    "close, discarding": End(lambda case: case.bus.close(discard=True), discards=True),
    "aclose": End(lambda case: asyncio.run(case.bus.aclose())),
    "aclose, discarding": End(lambda case: asyncio.run(case.bus.aclose(discard=True)), discards=True),
}
TABLE = [(*cell, end) for cell in CELLS for end in ENDS if cell[0] in ENDS[end].modes]


@pytest.fixture(scope="module")
def loop():
    loop, thread = start_loop()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    loop.close()


@pytest.mark.parametrize(("mode", "policy", "shape", "end"), TABLE, ids=map(" ".join, TABLE))
def test_the_end_is_when_the_handler_has_returned(loop, spawn, eventually, deadline, mode, policy, shape, end):
    how = ENDS[end]
    case = Case(mode, policy, shape, loop, **how.options)
    try:
        ending = spawn(how.act, case)
        if not how.waits or (how.discards and mode == "stream"):  # a stream has nothing in hand
            ending.result(deadline)
        else:
            with pytest.raises(TimeoutError):
                ending.result(0.01)
        if how.waits and how.discards and case.in_hand:  # else it may find all delivered
            eventually(lambda: not case.subscription.active)
            eventually(lambda: mode == "direct" or case.subscription.pending == len(case.in_hand))
        if case.in_hand:  # also while it ends
            assert case.is_listed()
            assert case.subscription.pending > 0
        assert case.returned == []
        case.open()
        ending.result(deadline)
        eventually(lambda: how.waits or not case.is_listed())
        if how.waits:
            assert not case.is_listed()
        case.finish()
        case.check(discarded=how.discards, accepted=how.accepted)
    finally:
        case.open()
        case.bus.close(deadline)


# --- the end of a program, and forks: programs of their own, each with a case of every policy ---

PRELUDE = f"""
import atexit, os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # since 3.12: fork while there are threads
sys.path.insert(0, {str(Path(__file__).parent)!r})
cases = []

def report():   # after all is closed: what was registered first is called last
    for case in cases:
        print(case.policy, case.returned == case.expected(False), case.subscription.pending)
        if case.returned == case.expected(False):
            case.finish()   # a loop that the end of the program stops would name the task that was to see the end

atexit.register(report)
from ends import DEADLINE, EVENTS, POLICIES, Case, has_meaning, start_loop

def make_cases(mode, shape):
    for policy in POLICIES:
        if has_meaning(mode, policy, shape):
            cases.append(Case(mode, policy, shape, loop))

loop, _ = start_loop()
"""
PROGRAMS = sorted({(mode, shape) for mode, _, shape in CELLS})


def policies_of(mode, shape):
    return [policy for each, policy, other in CELLS if (each, other) == (mode, shape)]


@pytest.mark.parametrize(("mode", "shape"), PROGRAMS)
def test_a_program_that_ends_delivers_what_was_accepted(run_python, mode, shape):
    result = run_python(
        f"{PRELUDE}make_cases({mode!r}, {shape!r})\n"
        "atexit.register(lambda: [case.open() for case in cases])   # at the end, before dispatchers are closed\n"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{policy} True 0" for policy in policies_of(mode, shape)]


@pytest.mark.parametrize(("mode", "shape"), PROGRAMS)
def test_a_program_that_ends_names_what_was_not_delivered(run_python, mode, shape):
    result = run_python(f"{PRELUDE}make_cases({mode!r}, {shape!r})")
    assert result.returncode == 0
    left = [line.split() for line in result.stdout.splitlines()]
    assert [policy for policy, _, _ in left] == policies_of(mode, shape)
    assert result.stderr.count("has not handled") == len(left), result.stderr
    reader = "stream of" if mode == "stream" else "handler"
    for policy, delivered, pending in left:
        assert (delivered, int(pending) > 0) == ("False", True)
        assert re.search(rf"^{reader} .* has not handled {pending} events of '{policy}'", result.stderr, re.M), (
            result.stderr
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.forks
@pytest.mark.parametrize(("mode", "shape"), PROGRAMS)
def test_a_fork_leaves_what_waits_to_the_parent(run_python, mode, shape):
    result = run_python(
        f"{PRELUDE}make_cases({mode!r}, {shape!r})"
        """
def in_child(case):
    signal.alarm(int(2 * DEADLINE))
    sub = case.subscription
    assert sub.pending == 0, sub
    assert (sub.delivered, sub.dropped) == (0, EVENTS), sub
    assert sub.active == (case.mode not in ("asyncio", "stream")), sub
    case.opened.set()
    case.publish(EVENTS)   # the first call publishes no more: it has begun in the parent
    with sub:
        pass
    assert case.returned == [EVENTS][:sub.delivered], case.returned
    assert (sub.delivered, sub.pending) == (sub.mode not in ("asyncio",), 0), sub

for case in cases:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            in_child(case)
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, case.policy
    case.open()
    case.bus.close(DEADLINE)
    case.finish()
    case.check()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{policy} True 0" for policy in policies_of(mode, shape)]
