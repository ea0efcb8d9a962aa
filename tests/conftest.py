"""What the tests share: dispatchers, threads and handlers under control, and waits with a deadline.

Every wait has a deadline, so that a deadlock is a failure and not a hang. Nothing here sleeps to let
something happen: a test waits for the thing itself. No test may leave a thread behind.
"""

import asyncio
import functools
import gc
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from limits import DEADLINE
from loops import LOOPS, loop_factory_of, prologue, use

from ringcast import Dispatcher, settings

LOOP = os.environ.get("RINGCAST_LOOP")


class Gate:
    """Where a handler waits until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def hold(self, event: object = None) -> None:
        """For the handler: wait until the gate is open. Can be subscribed as it is."""
        self._arrived.release()
        if not self._opened.wait(2 * DEADLINE):
            raise TimeoutError("the test never opened the gate")

    def wait_until_held(self, handlers: int = 1) -> None:
        """For the test: wait until so many more handlers have come to the gate."""
        for _ in range(handlers):
            assert self._arrived.acquire(timeout=DEADLINE), "no handler came to the gate"

    def open(self) -> None:
        self._opened.set()


class Recorder:
    """A handler that keeps its events, and for which a test can wait."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._more = threading.Condition()

    def __call__(self, event: Any) -> None:
        with self._more:
            self.events.append(event)
            self._more.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        """The events, once there are `count` of them."""
        with self._more:
            if not self._more.wait_for(lambda: len(self.events) >= count, DEADLINE):
                pytest.fail(f"{len(self.events)} of {count} events came in {DEADLINE} s")
            return list(self.events)


def with_fixtures_of_its_own(test: Callable[..., None]) -> Callable[..., None]:
    """Has each thread in which pytest-run-parallel runs the test use a dispatcher, gate and recorder of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        own: dict[str, Any] = {"bus": Dispatcher(), "gate": Gate(), "recorder": Recorder()}
        try:
            test(*arguments, **{name: own.get(name, value) for name, value in fixtures.items()})
        finally:
            own["gate"].open()
            own["bus"].close(DEADLINE)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if int(config.getoption("parallel_threads", 1)) == 1:
        return
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("thread_unsafe") is None:
            item.obj = with_fixtures_of_its_own(item.obj)


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background, for what tests start as well
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # the whole suite under stress: RINGCAST_SWITCH_INTERVAL=1e-6 python -m pytest
    if interval := os.environ.get("RINGCAST_SWITCH_INTERVAL"):
        sys.setswitchinterval(float(interval))
    # the same where positions are near their end: RINGCAST_FIRST_POSITION=9223372035781033984 python -m pytest
    if position := os.environ.get("RINGCAST_FIRST_POSITION"):
        settings.FIRST_POSITION = int(position)
    # the same on another kind of event loop: RINGCAST_LOOP=eager python -m pytest
    if LOOP:
        use(LOOP)


@pytest.fixture
def deadline() -> float:
    """Seconds after which a wait has failed."""
    return DEADLINE


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits for what cannot be notified of: a counter of the dispatcher, the end of a thread."""

    def wait(condition: Callable[[], object], timeout: float = DEADLINE) -> None:
        end = time.monotonic() + timeout
        pause = threading.Event()
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"did not become true in {timeout} s")
            pause.wait(0.001)

    return wait


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fails a test after which a thread is there that was not there before."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    if left:
        gc.collect()  # dispatchers that the test has dropped
    end = time.monotonic() + DEADLINE / 3
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert not alive, f"threads left behind: {alive}"


@pytest.fixture
def spawn(no_thread_left: None) -> Iterator[Callable[..., Future[Any]]]:
    """Runs a function in a thread of its own: `spawn(function, *arguments)` gives its future."""
    threads: list[threading.Thread] = []

    def start(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # the test gets it from the future
                future.set_exception(error)

        thread = threading.Thread(target=run, name="spawned", daemon=True)
        threads.append(thread)
        thread.start()
        return future

    yield start
    for thread in threads:
        thread.join(DEADLINE)


@pytest.fixture
def make_bus(spawn: object) -> Iterator[Callable[..., Dispatcher]]:
    """Makes dispatchers that are closed at the end."""
    made: list[Dispatcher] = []

    def make(**arguments: Any) -> Dispatcher:
        dispatcher = Dispatcher(**arguments)
        made.append(dispatcher)
        return dispatcher

    yield make
    while made:
        made.pop().close(DEADLINE)


@pytest.fixture
def bus(make_bus: Callable[..., Dispatcher]) -> Dispatcher:
    """A dispatcher with the default settings, closed at the end."""
    return make_bus()


@pytest.fixture
def make_gate(make_bus: object) -> Iterator[Callable[[], Gate]]:
    """Makes gates that are opened at the end, before the dispatchers are closed."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    return make_gate()


@pytest.fixture
def make_recorder() -> Callable[[], Recorder]:
    return Recorder


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(params=LOOPS)
def loop_source(request: pytest.FixtureRequest) -> str:
    """Source of Python that makes a function `new_event_loop`: of each kind in turn."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    if request.param == "eager" and sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    return LOOPS[request.param]


@pytest.fixture
def loop_factory(loop_source: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops of each kind in turn."""
    return loop_factory_of(loop_source)


@pytest.fixture
def collected_classes() -> None:
    """Skips a test where classes are never freed."""
    if sys.version_info < (3, 14) and sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("free-threaded Python 3.13 keeps all classes for ever once a thread was started")


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in an interpreter of its own, with warnings as errors."""

    def run(program: str, timeout: float = 2 * DEADLINE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-c", (prologue(LOOP) if LOOP else "") + program]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def run_until_done(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], None]:
    """Runs a program in an interpreter of its own, in which all has to go well and nothing may be printed."""

    def run(program: str) -> None:
        result = run_python(program + "\nprint('done')", timeout=4 * DEADLINE)
        assert result.stderr == ""
        assert (result.returncode, result.stdout) == (0, "done\n")

    return run
