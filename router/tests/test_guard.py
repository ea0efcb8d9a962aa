"""No orphans: what happens to the model servers when the router is killed, and to the guard when it is."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import responder_command, wait_until
from limits import DEADLINE

from ringcast_router.config.model import Model
from ringcast_router.logs import LogStore
from ringcast_router.ports import LOOPBACK, free_ports
from ringcast_router.processes import Guard, Process, State
from ringcast_router.processes.command import run

# A router in little: it starts the servers that it is told of, says so, and waits to be killed.
PARENT = """
import asyncio, json, sys
from ringcast_router.config.model import Model
from ringcast_router.logs import LogStore
from ringcast_router.processes import Guard, Process

async def main():
    logs, guard = LogStore(), Guard()
    await guard.start()
    processes = [
        Process(Model(**settings), logs=logs, changed=lambda *_: None, guard=guard)
        for settings in json.loads(sys.argv[1])
    ]
    await asyncio.gather(*(process.start() for process in processes))
    if sys.argv[2] == "stop one":
        await processes[0].stop()
    pids = [process.pid for process in processes]
    print(json.dumps({"servers": pids, "guard": guard.pid}), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def settings(count, stop="", **flags):
    first = free_ports(count)
    for port in range(first, first + count):
        cmd = responder_command(f"m{port}", port=port, **flags)
        yield {"id": f"m{port}", "cmd": cmd, "cmd_stop": stop, "proxy": f"http://{LOOPBACK}:{port}"}


class Parent:
    def __init__(self, models, then=""):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PARENT, json.dumps(list(models)), then],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        said = json.loads(self.popen.stdout.readline())
        self.servers = [psutil.Process(pid) for pid in said["servers"] if pid]
        self.guard = psutil.Process(said["guard"])
        self.all = [*self.servers, self.guard]
        for server in self.servers:
            self.all += server.children(recursive=True)

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)
        self.popen.wait(DEADLINE)

    def end(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
        for process in self.all:
            if process.is_running():
                process.kill()


@pytest.fixture
def parent():
    """`parent(models)` is a router in little, whose servers are ready."""
    parents = []

    def start(*arguments):
        parents.append(Parent(*arguments))
        return parents[-1]

    yield start
    for one in parents:
        one.end()


@pytest.fixture
def sleeper(no_child_left):
    """`sleeper()` is a process that does nothing, in a group of its own."""
    started = []

    def start():
        started.append(subprocess.Popen(["sleep", "600"], process_group=0))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_gone(processes, within):
    """Wait until processes that are no children of ours are gone (or zombies that nobody reaps); return those left."""
    end = time.monotonic() + within
    while (left := alive(processes)) and time.monotonic() < end:
        time.sleep(0.01)
    return left


@pytest.mark.parametrize(
    "flags",
    [{}, {"ignore_term": True}, {"stop_delay": 60}, {"fork_grandchild": "group"}],
    ids=lambda flags: str(*flags),
)
def test_no_child_is_alive_2_seconds_after_the_router_was_killed(parent, flags):
    router = parent(settings(8, **flags))
    assert len(alive(router.servers)) == 8
    router.kill()
    assert wait_gone(router.all, 2.0) == []


@pytest.mark.parametrize("works", ["works", "fails", "hangs", "does not exist"])
def test_the_stop_command_is_run_for_what_is_left(parent, tmp_path, works):
    file = tmp_path / "stopped"
    stop = {
        "works": f"sh -c 'echo $0 $GREETING >> {file}' ${{PID}}",
        "fails": "false",
        "hangs": "sleep 600",
        "does not exist": "/no/such/program",
    }[works]
    models = [{**model, "env": ["GREETING=hello"]} for model in settings(2, stop=stop)]
    router = parent(models)
    pids = sorted(server.pid for server in router.servers)
    router.kill()
    assert wait_gone(router.servers, 2.0) == []
    if works == "works":
        assert wait_gone([router.guard], 2.0) == []
        assert sorted(int(line.split()[0]) for line in file.read_text().splitlines()) == pids
        assert file.read_text().count("hello") == 2
    for sleeping in router.guard.children() if router.guard.is_running() else []:
        sleeping.kill()


def test_what_was_stopped_is_forgotten(parent, tmp_path):
    file = tmp_path / "stopped"
    stop = f"sh -c 'echo $0 >> {file}; kill $0' ${{PID}}"
    router = parent(settings(2, stop=stop), "stop one")
    (left,) = router.servers
    file.unlink()
    router.kill()
    assert wait_gone(router.all, 2.0) == []
    assert file.read_text() == f"{left.pid}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_guard_outlives_the_signals_that_end_a_router(parent, number):
    router = parent(settings(1))
    router.guard.send_signal(number)
    router.kill()
    assert wait_gone(router.all, DEADLINE) == []  # how soon, others measure


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_guard_outlives_these_signals_from_its_first_moment(sleeper, number):
    """A router that is ended as soon as it has begun leaves no orphan either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for _ in range(5):
        guard, watched = Guard(), sleeper()
        await guard.start()
        os.kill(guard.pid, number)
        guard.watch(watched.pid)
        await guard.close()
        assert watched.wait(DEADLINE) == -signal.SIGKILL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


async def test_a_guard_that_was_killed_is_replaced_and_told_of_all(no_child_left):
    guard, logs = Guard(), LogStore()
    await guard.start()
    processes = [
        Process(Model(**model), logs=logs, changed=lambda *_: None, guard=guard)
        for model in settings(2, ignore_term=True)
    ]
    await processes[0].start()
    first = guard.pid
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    await processes[1].start()
    assert guard.pid not in (None, first)
    await guard.close()  # ends what is still watched
    await wait_until(lambda: all(process.pid is None for process in processes))
    await asyncio.gather(*(process.close() for process in processes))


async def test_a_guard_that_does_not_read_is_replaced_and_told_of_all(sleeper):
    guard = Guard()
    await guard.start()
    first = guard.pid
    os.kill(first, signal.SIGSTOP)
    watched = [sleeper() for _ in range(3)]
    for process in watched:
        guard.watch(process.pid, [], {"LONG": "x" * 50_000})  # more than its pipe holds
    assert guard.pid != first
    assert not psutil.pid_exists(first)
    assert [process.poll() for process in watched] == [None] * 3
    await guard.close()
    assert [process.wait(DEADLINE) for process in watched] == [-signal.SIGKILL] * 3


async def test_where_no_guard_can_be_started_servers_run_and_the_next_message_tries_again(no_child_left, monkeypatch):
    guard, logs = Guard(), LogStore()
    await guard.start()
    a, b = (Process(Model(**model), logs=logs, changed=lambda *_: None, guard=guard) for model in settings(2))
    first = psutil.Process(guard.pid)
    first.kill()
    await wait_until(lambda: first.status() == psutil.STATUS_ZOMBIE)

    def spawn():
        raise OSError("no more processes")

    monkeypatch.setattr(guard, "_spawn", spawn)
    await a.start()
    assert (a.state, guard.pid) == (State.READY, None)
    monkeypatch.undo()
    await b.start()
    await guard.close()  # ends both: the new one was told of both
    await wait_until(lambda: a.pid is None and b.pid is None)
    await asyncio.gather(a.close(), b.close())


async def test_a_stop_command_that_runs_while_the_router_is_killed_ends(no_child_left):
    guard = Guard()
    await guard.start()
    running = asyncio.create_task(run(["sleep", "600"], dict(os.environ), lambda data: None, guard))
    await wait_until(lambda: len(psutil.Process().children()) == 2)
    await guard.close()  # as the end of the router does
    assert "SIGKILL" in await asyncio.wait_for(running, DEADLINE)


async def test_the_guard_ends_with_its_router_and_leaves_the_forgotten_alone(sleeper):
    guard = Guard()
    await guard.start()
    await guard.start()
    kept = sleeper()
    guard.watch(kept.pid)
    guard.forget(kept.pid)
    guard.forget(kept.pid)
    pid = guard.pid
    await guard.close()
    await guard.close()
    assert guard.pid is None
    assert not psutil.pid_exists(pid)
    assert kept.poll() is None


async def test_what_is_watched_before_the_start_is_told_at_the_start(sleeper):
    guard = Guard()
    watched = sleeper()
    guard.watch(watched.pid)
    await guard.start()
    await guard.close()
    assert watched.wait(DEADLINE) == -signal.SIGKILL


async def test_a_message_longer_than_a_pipe_holds_arrives(sleeper):
    guard = Guard()
    await guard.start()
    watched = sleeper()
    guard.watch(watched.pid, ["true"], {"LONG": "x" * 300_000})
    await guard.close()
    assert watched.wait(DEADLINE) == -signal.SIGKILL
