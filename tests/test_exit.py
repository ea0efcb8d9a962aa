"""Interpreter exit at every stage: what was accepted is delivered in time; nothing crashes, hangs or prints."""

import os
import signal
import subprocess
import sys
import sysconfig
import time

import pytest

# Free-threaded Python 3.13 crashes at its end, 1 time in 30, while a daemon thread computes: without Ringcast, too.
CRASHES = sys.version_info < (3, 14) and sysconfig.get_config_var("Py_GIL_DISABLED")

PRELUDE = """
import atexit, gc, os, sys, threading, time

if BEFORE:
    atexit.register(lambda: last_words())   # runs after Ringcast's own

import ringcast
from ringcast import ClosedError, Dispatcher

def say(text):
    os.write(1, f"{text}\\n".encode())

class Tick:
    def __init__(self, number=0):
        self.number = number

def show(tick):
    say(tick.number)

"""


@pytest.fixture
def run_to_exit(run_python):
    """Runs a program; gives what it said, line by line. What it logs at its end is given, too."""

    def run(program, before=False, code=0, logged="", or_code=None):
        result = run_python(PRELUDE.replace("BEFORE", repr(before)) + program, timeout=60)
        assert result.stderr == logged
        assert result.returncode in (code, code if or_code is None else or_code)
        return result.stdout.split()

    return run


def undelivered(handler, count, why="the program has ended", name="ringcast", module="__main__."):
    """The line that names a handler."""
    return f"handler {module}{handler} has not handled {count} events of {name!r}: {why}\n"


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no thread at its end: StartError")
def test_publishing_in_an_atexit_handler_is_delivered(run_to_exit):
    said = run_to_exit("""
bus = Dispatcher()
bus.subscribe(Tick, show)
@atexit.register
def goodbye():
    for number in range(100):
        bus.publish(Tick(number))
    late = Dispatcher()
    late.subscribe(Tick, show)
    late.publish(Tick(100))
""")
    assert sorted(map(int, said)) == list(range(101))


def test_what_is_registered_after_the_import_may_publish_by_the_default_dispatcher(run_python):
    result = run_python("""
import atexit, ringcast

class Tick:
    pass

atexit.register(lambda: print(ringcast.emit(Tick())))   # the first time that anything of ringcast is asked for
ringcast.on(Tick, mode="direct")(lambda tick: print("handled"))
""")
    assert (result.stdout.split(), result.stderr) == (["handled", "1"], "")


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no thread at its end: StartError")
def test_publishing_in_an_atexit_handler_that_runs_later_is_refused(run_to_exit):
    said = run_to_exit(
        """
from ringcast import emit

bus = Dispatcher()
bus.subscribe(Tick, show)
bus.publish(Tick(1))

def last_words():
    for refused in (lambda: bus.publish(Tick(2)), lambda: bus.subscribe(Tick, show), lambda: emit(Tick())):
        try:
            refused()
        except ClosedError:
            say("closed")
    late = Dispatcher()   # nobody closes this one: its threads are daemons
    late.subscribe(Tick, show)
    late.publish(Tick(3))
    late.close()
""",
        before=True,
    )
    assert said == ["1", "closed", "closed", "closed", "3"]


@pytest.mark.parametrize(
    "end", ["", "sys.exit(0)", "raise SystemExit", "threading.Thread(target=lambda: None).start()"]
)
def test_a_daemon_thread_that_publishes_for_ever(run_to_exit, end):
    said = run_to_exit(f"""
bus = Dispatcher(max_queue=10)
count = [0, 0]
def handler(tick):
    count[0] += 1
bus.subscribe(Tick, handler)
def publish():
    try:
        while True:
            bus.publish(Tick())
            count[1] += 1
    except ClosedError:
        pass
for _ in range(3):
    threading.Thread(target=publish, daemon=True).start()
atexit.register(lambda: None)
while count[0] < 1000:
    time.sleep(0.001)
{end}
""")
    assert said == []


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 starts no thread at its end: StartError")
def test_dispatchers_that_are_made_in_a_daemon_thread_meanwhile(run_to_exit):
    said = run_to_exit("""
made = [0]
def make():
    try:
        while True:
            bus = Dispatcher()
            bus.subscribe(Tick, lambda tick: None)
            bus.publish(Tick())
            made[0] += 1
    except ClosedError:
        pass
for _ in range(2):
    threading.Thread(target=make, daemon=True).start()
while made[0] < 50:
    time.sleep(0.001)
""")
    assert said == []


def test_publishing_from_finalizers_when_modules_are_torn_down(run_to_exit):
    said = run_to_exit("""
class Last:
    def __init__(self, name, closed_error=ClosedError, write=os.write):   # bound: there are no modules any more
        self.name, self.bus, self.closed_error, self.write = name, bus, closed_error, write
    def __del__(self):
        try:
            self.bus.publish(self)
        except self.closed_error:
            self.write(1, f"{self.name}\\n".encode())

class Cycle(Last):   # which the garbage collector frees before the modules go
    def __init__(self):
        super().__init__("cycle")
        self.itself = self
    def __del__(self):
        try:
            self.bus.subscribe(Tick, print)
        except ClosedError:
            say("refused")
        self.bus.close()
        assert self.bus.count(Last) == 0
        super().__del__()

bus = Dispatcher()
bus.subscribe(Tick, show)
bus.publish(Tick(1))
last = Last("last")
sys.last = Last("sys.last")
Cycle()
""")
    assert said[:3] == ["1", "refused", "cycle"]
    assert "sys.last" in said[3:]  # the other may come after the built-in functions have gone


STUCK = {
    "waits": "threading.Event().wait()",
    "sleeps": "[time.sleep(0.001) for _ in iter(int, 1)]",
    "computes": "[None for _ in iter(int, 1)]",
    "holds a lock": "lock.acquire(); lock.acquire()",
    "publishes": "[bus.publish(Tick(-1)) for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("how", STUCK)
def test_a_handler_that_is_stuck_in_any_way(run_to_exit, how):
    start = time.monotonic()
    # One that computes gives the GIL back every 5 ms, and each line of `show` waits for it: 20 take 0.1 of the 2 s.
    said = run_to_exit(
        f"""
lock, entered = threading.Lock(), threading.Event()
class Other: pass
def stuck(other):
    entered.set()
    {STUCK[how]}
bus = Dispatcher(on_error=lambda failure: None, exit_timeout=2)
bus.subscribe(Other, stuck)
bus.subscribe(Tick, lambda tick: show(tick) if tick.number >= 0 else None)
bus.publish(Other())
entered.wait()
for number in range(20):
    bus.publish(Tick(number))
""",
        logged="" if how == "publishes" else undelivered("stuck", 1),  # which ends with a ClosedError
        or_code=-signal.SIGSEGV if how == "computes" and CRASHES else None,
    )
    assert said == [str(number) for number in range(20)]
    assert time.monotonic() - start < 20


def test_what_is_not_delivered_in_time_is_named(run_to_exit):
    run_to_exit(
        """
entered = threading.Event()
def stuck(tick):
    entered.set()
    threading.Event().wait()
def quick(tick):
    pass
one, other = Dispatcher(exit_timeout=0.1, name="one"), Dispatcher(exit_timeout=0, name="other")
for bus in (one, other):
    bus.subscribe(Tick, stuck)
    bus.publish_many([Tick(number) for number in range(16)])
one.subscribe(int, quick)
entered.wait()
one.publish(5)
""",
        logged=undelivered("stuck", 16, name="one") + undelivered("stuck", 16, name="other"),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.forks
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_delivers_and_names_what_is_left(tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text("""
import multiprocessing, os, sys, threading
import ringcast

class Tick:
    pass

def quick(tick):
    os.write(1, b"quick\\n")

def stuck(tick):
    threading.Event().wait()

def run():
    bus = ringcast.Dispatcher(exit_timeout=0.3)
    bus.subscribe(Tick, quick)
    bus.subscribe(Tick, stuck)
    for _ in range(3):
        bus.publish(Tick())

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0
""")
    result = subprocess.run([sys.executable, program, method], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["quick"] * 3
    module = "__main__." if method == "fork" else "__mp_main__."
    assert result.stderr == undelivered("stuck", 3, module=module)


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
entered, held = threading.Event(), threading.Event()
def handler(tick):
    entered.set()
    held.wait()
try:
    with Dispatcher() as bus:
        subscription = bus.subscribe(Tick, handler)
        for number in range(1000):
            bus.publish(Tick(number))
        entered.wait()
        EXCEPTION
except BaseException as exception:
    say(f"{type(exception).__name__} {subscription.dropped} {subscription.pending} {bus.closed}")
held.set()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal to oneself")
def test_an_interrupt_in_a_block_with_a_backlog_ends_at_once(run_to_exit):
    said = run_to_exit(
        INTERRUPTED.replace("EXCEPTION", "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"),
        logged=undelivered("handler", 999, "the block was left by KeyboardInterrupt"),  # the one in hand is no loss
    )
    assert said == ["KeyboardInterrupt", "999", "1", "True"]


def test_an_exception_in_a_block_is_seen_though_a_handler_waits_for_ever(run_to_exit):
    said = run_to_exit(
        INTERRUPTED.replace("EXCEPTION", "raise ValueError").replace("Dispatcher()", "Dispatcher(exit_timeout=0.1)"),
        logged=undelivered("handler", 1000, "the block was left by an exception"),
    )
    assert said == ["ValueError", "999", "1", "True"]


def test_a_handler_of_an_event_loop_that_nobody_runs_any_more(run_to_exit):
    said = run_to_exit(
        """
import asyncio
async def handler(tick: Tick) -> None:
    say(tick.number)
async def main():
    bus.subscribe(handler)
    bus.publish(Tick(1))
    await asyncio.sleep(0.01)
bus = Dispatcher(exit_timeout=0.2)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
bus.publish(Tick(2))
""",
        logged=undelivered("handler", 1),
    )
    assert said == ["1"]


def test_a_program_that_ends_by_an_exception(run_python):
    result = run_python(
        PRELUDE.replace("BEFORE", "False")
        + """
bus = Dispatcher()
bus.subscribe(Tick, show)
for number in range(1000):
    bus.publish(Tick(number))
raise ValueError("the end")
"""
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ValueError: the end"
    assert result.stderr.count("Traceback") == 1
    assert result.stdout.split() == [str(number) for number in range(1000)]


def test_an_exit_within_a_handler_is_the_handlers_alone(run_to_exit):
    said = run_to_exit("""
def handler(tick):
    show(tick)
    sys.exit(5)
bus = Dispatcher(on_error=lambda failure: say(type(failure.exception).__name__))
bus.subscribe(Tick, handler)
bus.publish(Tick(1))
bus.publish(Tick(2))
""")
    assert said == ["1", "SystemExit", "2", "SystemExit"]


# --- one interpreter of a process ---

SUBINTERPRETER = """
import sys
import ringcast

def run(source):
    '''Runs the source in a subinterpreter; gives its error as text, or "".'''
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
        interpreter = interpreters.create()
        error = interpreters.exec(interpreter, source)
        interpreters.destroy(interpreter)
        return "" if error is None else error.formatted
    import _xxsubinterpreters as interpreters
    interpreter = interpreters.create()
    try:
        interpreters.run_string(interpreter, source)
    except interpreters.RunFailedError as error:
        return str(error)
    finally:
        interpreters.destroy(interpreter)
    return ""
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's subinterpreters")
def test_a_second_interpreter_of_the_process_is_refused_with_a_clear_error(run_python):
    result = run_python(
        SUBINTERPRETER
        + """
from ringcast import Dispatcher
for _ in range(3):
    error = run("from ringcast import Dispatcher")
    assert "ImportError" in error and "interpreter" in error, error
with Dispatcher() as bus:   # and the first one is not harmed
    got = []
    bus.subscribe(int, got.append)
    bus.publish(1)
assert got == [1]
print("done")
"""
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
