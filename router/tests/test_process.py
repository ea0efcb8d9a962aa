"""A model's server as a real child process: every state, every way to start and to end, whatever the child does."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import shlex
import signal
import socket
import stat
import sys
import time
from dataclasses import dataclass, field, replace

import psutil
import pytest
from conftest import responder_command, wait_until
from limits import DEADLINE

from ringcast_router.config.model import Liveness, Model
from ringcast_router.errors import StartError
from ringcast_router.logs import RING, LogStore
from ringcast_router.ports import LOOPBACK, free_ports
from ringcast_router.processes import Process, State
from ringcast_router.processes import process as processes
from ringcast_router.processes.child import Child
from ringcast_router.processes.health import Health
from ringcast_router.processes.output import Output

START, READY, STOPPING, STOPPED = State.STARTING, State.READY, State.STOPPING, State.STOPPED


@dataclass
class Watched:
    """A process, and what it told of its states."""

    process: Process
    logs: LogStore
    states: list[State] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def changed(self, model: str, old: State, new: State, reason: str) -> None:
        assert model == self.process.model.id
        assert old is (self.states[-1] if self.states else STOPPED)
        self.states.append(new)
        self.reasons.append(reason)

    @property
    def printed(self) -> bytes:
        return self.logs.history(self.process.model.id)

    async def printed_number(self, word: str) -> int:
        """Wait for a line `WORD NUMBER` of the server, and return the number."""
        await wait_until(lambda: f"{word} ".encode() in self.printed and self.printed.endswith(b"\n"))
        return next(int(line.split()[1]) for line in self.printed.decode().splitlines() if line.startswith(word))


@pytest.fixture
async def make(no_child_left):
    """`make(cmd, **settings)`: the server of a model A that is started with `cmd`; closed at the end."""
    made = []

    def make_one(cmd, **settings):
        port = settings.pop("port", None) or free_ports()
        logs = LogStore()
        settings.setdefault("proxy", f"http://{LOOPBACK}:{port}")
        model = Model("A", cmd=cmd.replace("${PORT}", str(port)), **settings)
        watched = Watched(None, logs)
        watched.process = Process(model, logs=logs, changed=watched.changed)
        made.append(watched.process)
        return watched

    yield make_one
    for process in made:
        await asyncio.wait_for(asyncio.gather(process.stop(grace=0), process.close()), DEADLINE)


def python(text: str) -> str:
    """Return a command that runs a small Python program."""
    return f"{sys.executable} -c {shlex.quote(text)}"


IDLE = python("import signal; signal.pause()")
STUBBORN = python(
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', 1, flush=True); signal.pause()"
)


def exists(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# States


async def test_a_server_is_started_serves_and_is_stopped(make):
    a = make(responder_command("A"))
    assert (a.process.state, a.process.pid, a.process.ready_at) == (STOPPED, None, None)
    await a.process.start()
    assert a.process.state is READY
    assert exists(a.process.pid)
    assert a.process.ready_at == pytest.approx(time.monotonic(), abs=1)
    pid = a.process.pid
    await a.process.stop(reason="enough")
    assert (a.process.state, a.process.pid, a.process.ready_at) == (STOPPED, None, None)
    assert not psutil.pid_exists(pid)
    assert a.states == [START, READY, STOPPING, STOPPED]
    assert a.reasons[2:] == ["enough", "enough"]


async def test_without_pidfds_as_on_macos_a_thread_notices_the_end(make, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    a = make(responder_command("A"))
    for _ in range(2):
        await a.process.start()
        await a.process.stop()
    await a.process.start()
    os.kill(a.process.pid, signal.SIGKILL)
    await wait_until(lambda: a.process.state is STOPPED)
    assert a.states == [START, READY, STOPPING, STOPPED] * 2 + [START, READY, STOPPED]


async def test_a_start_of_a_ready_server_and_a_stop_of_a_stopped_one_do_nothing(make):
    a = make(IDLE, check_endpoint="none")
    await a.process.stop()
    assert a.states == []
    await a.process.start()
    await a.process.start()
    assert a.states == [START, READY]


@pytest.mark.parametrize("running", [False, True])
async def test_close_is_final(make, running):
    a = make(IDLE, check_endpoint="none")
    if running:
        await a.process.start()
    await a.process.close()
    await a.process.close()
    assert a.states == ([START, READY, STOPPING, STOPPED] if running else []) + [State.SHUTDOWN]
    with pytest.raises(StartError, match="shutting down"):
        await a.process.start()


@pytest.mark.parametrize("endpoint", ["/health", "health", "/v1/models", "/deep/er?x=1"])
async def test_ready_is_a_200_at_the_check_endpoint_below_the_proxy_url(make, endpoint):
    port = free_ports()
    asked = asyncio.Queue()

    async def answer(reader, writer):
        asked.put_nowait((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    a = make(IDLE, proxy=f"http://localhost:{port}/base/", check_endpoint=endpoint)
    starting = asyncio.create_task(a.process.start())
    await wait_until(lambda: a.process.pid)
    async with await asyncio.start_server(answer, LOOPBACK, port):
        await asyncio.wait_for(starting, DEADLINE)
    assert asked.get_nowait() == f"/base/{endpoint.lstrip('/')}"


async def test_a_server_that_says_503_is_not_ready_yet(make):
    a = make(responder_command("A", load=0.4))
    began = time.monotonic()
    await a.process.start()
    assert time.monotonic() - began >= 0.4


async def test_ready_is_noticed_within_50_ms_of_the_port_answering(make):
    late = []
    for _ in range(5):
        port = free_ports()
        a = make(IDLE, port=port)
        starting = asyncio.create_task(a.process.start())
        await wait_until(lambda a=a: a.process.pid)
        await asyncio.wait({starting}, timeout=0.3)  # the pauses between the looks are long by now

        async def well(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(well, LOOPBACK, port):
            began = time.monotonic()
            await asyncio.wait_for(starting, DEADLINE)
            late.append(time.monotonic() - began)
    assert sorted(late)[2] < 0.05, late


async def test_the_environment_is_the_routers_and_what_the_model_adds(make, monkeypatch):
    monkeypatch.setenv("OF_THE_ROUTER", "1")
    a = make(
        python("import os; print(os.environ['OF_THE_ROUTER'], os.environ['B'], os.getpgid(0) == os.getpid())"),
        env=("B=x=y",),
    )
    with pytest.raises(StartError) as caught:
        await a.process.start()
    assert caught.value.tail == "1 x=y True"


# Starts that fail


def not_executable(tmp_path):
    file = tmp_path / "program"
    file.write_text("#!/bin/sh\n")
    file.chmod(stat.S_IRUSR)
    return str(file)


@pytest.mark.parametrize(
    ("cmd", "reason", "tail"),
    [
        (lambda tmp: "/no/such/program --x", "'/no/such/program' does not exist", ""),
        (not_executable, "may not be executed", ""),
        (lambda tmp: f"{sys.executable} 'a\0b'", "cannot be started", ""),
        (lambda tmp: "", "`cmd` cannot be used", ""),
        (
            lambda tmp: responder_command("A", crash_after=0),
            "exited with status 1 before",
            "A: cannot load: this is the reason",
        ),
        (lambda tmp: python("import os; os.kill(os.getpid(), 9)"), "was killed by SIGKILL before", ""),
        (
            lambda tmp: python("print(*range(50), sep=chr(10))"),
            "exited with status 0 before",
            "\n".join(map(str, range(30, 50))),
        ),
    ],
)
async def test_a_start_that_fails_says_why_at_once_with_the_last_lines(make, tmp_path, cmd, reason, tail):
    a = make(cmd(tmp_path))
    with pytest.raises(StartError) as caught:
        await asyncio.wait_for(a.process.start(), DEADLINE)
    assert reason in caught.value.reason
    assert caught.value.tail == tail
    assert caught.value.model == "A"
    assert a.states == [START, STOPPED]
    assert reason in a.reasons[-1]
    assert a.process.pid is None


@pytest.mark.parametrize(
    ("flags", "met"),
    [({"hang": True}, "did not answer"), ({"load": 600}, "status 503"), ({"listen_after": 600}, "nobody listens")],
)
async def test_a_start_that_takes_too_long_says_what_the_last_look_met(make, monkeypatch, flags, met):
    monkeypatch.setattr("ringcast_router.processes.health.PATIENCE", 0.2)
    a = make(responder_command("A", **flags), health_check_timeout=1)
    with pytest.raises(StartError, match=f"was not ready after 1 s: .*{met}"):
        await a.process.start()
    assert a.states == [START, STOPPED]


async def test_a_start_after_a_failed_one_tries_again(make, tmp_path):
    flag = tmp_path / "flag"
    a = make(python(f"import os, signal; os.path.exists('{flag}') and signal.pause()"), check_endpoint="none")
    port = free_ports()
    a.process.update(replace(a.process.model, proxy=f"http://{LOOPBACK}:{port}", check_endpoint="/health"))
    with pytest.raises(StartError):
        await a.process.start()
    flag.touch()
    a.process.update(replace(a.process.model, check_endpoint="none"))
    await a.process.start()
    assert a.process.state is READY


@pytest.fixture
async def foreign(make):
    """A server of somebody else, for which a model's could be taken."""
    foreign = make(responder_command("foreign"))
    await foreign.process.start()
    return foreign


def port_of(watched):
    return int(watched.process.model.proxy.rpartition(":")[2])


@pytest.mark.parametrize("settings", [{}, {"check_endpoint": "none"}], ids=["checked", "not checked"])
@pytest.mark.parametrize("where", ["in the command", "in the environment"])
async def test_a_port_that_somebody_else_listens_on_is_refused(make, foreign, monkeypatch, where, settings):
    """The server that waits there would pass for the model's until the model's own finds its port taken."""
    monkeypatch.setattr(processes, "LET_GO", 0.1)
    port = port_of(foreign)
    if where == "in the command":
        a = make(python(f"{port}; import signal; signal.pause()"), port=port, **settings)
    else:
        a = make(IDLE, port=port, env=(f"HOST={LOOPBACK}:{port}",), **settings)
    with pytest.raises(StartError) as failure:
        await a.process.start()
    who = f"{psutil.Process(foreign.process.pid).name()} (process {foreign.process.pid})"
    if not sys.platform.startswith("linux"):
        who = "somebody else"
    why = f"{who} listens on {LOOPBACK}:{port} already: end that, or give the model another port"
    assert failure.value.reason == why
    assert a.states == [START, STOPPED]
    assert a.process.pid is None


async def test_a_port_that_somebody_else_lets_go_is_waited_for(make, foreign):
    a = make(responder_command("A"), port=port_of(foreign))
    starting = asyncio.create_task(a.process.start())
    await wait_until(lambda: START in a.states)
    await foreign.process.stop()
    await starting
    assert a.states == [START, READY]


async def test_a_stop_ends_the_wait_for_a_port(make, foreign, monkeypatch):
    monkeypatch.setattr(processes, "LET_GO", 1000.0)
    a = make(responder_command("A"), port=port_of(foreign))
    starting = asyncio.create_task(a.process.start())
    await wait_until(lambda: START in a.states)
    await asyncio.wait_for(a.process.stop(reason="unloaded"), DEADLINE)
    with pytest.raises(StartError, match="unloaded"):
        await starting


async def test_a_command_that_names_no_port_may_attach_to_a_server_that_listens_already(make, foreign):
    a = make(IDLE, port=port_of(foreign))
    await a.process.start()
    assert a.states == [START, READY]


async def test_a_command_that_names_no_port_and_ends_has_no_server(make, foreign, monkeypatch):
    a = make(python("import time; time.sleep(0.3)"), port=port_of(foreign))
    monkeypatch.setattr(processes, "DOUBT", 1000.0)
    with pytest.raises(StartError, match=r"exited with status 0 before it was ready; .* was taken by somebody else"):
        await a.process.start()
    assert READY not in a.states


# Stops


@pytest.mark.parametrize("grace", [0.0, 0.3])
async def test_who_ignores_sigterm_is_killed_when_the_grace_is_over(make, grace):
    a = make(STUBBORN, check_endpoint="none")
    await a.process.start()
    await a.printed_number("up")
    began = time.monotonic()
    await a.process.stop(grace)
    assert grace <= time.monotonic() - began < grace + 1
    assert a.states == [START, READY, STOPPING, STOPPED]


async def test_the_grace_is_the_models_unload_timeout(make):
    a = make(STUBBORN, check_endpoint="none", unload_timeout=1, health_check_timeout=300)
    await a.process.start()
    await a.printed_number("up")
    began = time.monotonic()
    await a.process.stop()
    assert 1 <= time.monotonic() - began < 2


async def test_a_second_stop_with_a_shorter_grace_shortens_the_first(make):
    a = make(STUBBORN, check_endpoint="none", unload_timeout=600)
    await a.process.start()
    await a.printed_number("up")
    first = asyncio.create_task(a.process.stop(reason="first"))
    await wait_until(lambda: a.process.state is STOPPING)
    await asyncio.wait_for(a.process.stop(grace=0, reason="second"), DEADLINE)
    await first
    assert a.reasons[-1] == "first"


async def test_a_cancelled_stop_goes_on(make):
    a = make(responder_command("A", stop_delay=0.2))
    await a.process.start()
    stopping = asyncio.create_task(a.process.stop())
    await wait_until(lambda: a.process.state is STOPPING)
    stopping.cancel()
    await wait_until(lambda: a.process.state is STOPPED)


async def test_the_stop_reaches_all_of_the_group_and_leaves_it_the_grace(make, tmp_path):
    """A wrapper ends at SIGTERM at once; the server that it runs has work to do before it ends."""
    log = tmp_path / "log"
    a = make(f"sh -c '{responder_command('A', stop_delay=0.3, log=log)}; true'")
    await a.process.start()
    await a.process.stop()
    assert [line.split()[2] for line in log.read_text().splitlines()][-2:] == ["sigterm", "exit"]


@pytest.mark.parametrize("where", ["group", "session"])
async def test_a_grandchild_that_holds_the_output_hangs_nothing(make, where):
    a = make(responder_command("A", fork_grandchild=where), unload_timeout=1)
    await a.process.start()
    grandchild = await a.printed_number("grandchild")
    try:
        began = time.monotonic()
        await a.process.stop()
        took = time.monotonic() - began
        if where == "group":  # it ignores SIGTERM as well, and is killed with its group
            assert 1 <= took < 2
            await wait_until(lambda: not exists(grandchild))
        else:
            assert took < 0.9
            assert exists(grandchild)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(grandchild, signal.SIGKILL)


async def test_a_stop_ends_a_start_that_is_on_its_way(make):
    a = make(responder_command("A", load=600))
    starts = [asyncio.create_task(a.process.start()) for _ in range(3)]
    await wait_until(lambda: a.process.pid and a.printed)
    await asyncio.wait_for(a.process.stop(reason="unloaded"), DEADLINE)
    for start in starts:
        with pytest.raises(StartError, match="stopped while it was starting: unloaded"):
            await start
    assert a.states == [START, STOPPED]


async def test_a_stop_right_after_a_start_leaves_nothing(make):
    a = make(responder_command("A"))
    starting = asyncio.create_task(a.process.start())
    await asyncio.sleep(0)
    await a.process.stop()
    with pytest.raises(StartError, match="stopped"):
        await starting
    assert (a.process.state, a.process.pid) == (STOPPED, None)


async def test_a_start_that_meets_a_stop_waits_for_it(make, tmp_path):
    log = tmp_path / "log"
    a = make(responder_command("A", stop_delay=0.3, log=log))
    await a.process.start()
    stopping = asyncio.create_task(a.process.stop())
    await wait_until(lambda: a.process.state is STOPPING)
    await asyncio.gather(*(a.process.start() for _ in range(10)))
    assert stopping.done()
    assert a.states == [START, READY, STOPPING, STOPPED, START, READY]
    words = [line.split()[2] for line in log.read_text().splitlines()]
    assert words == ["start", "sigterm", "exit", "start"]  # one after another, and one


async def test_fifty_starts_share_one_child_also_when_some_are_cancelled(make, tmp_path):
    log = tmp_path / "log"
    a = make(responder_command("A", load=0.3, log=log))
    starts = [asyncio.create_task(a.process.start()) for _ in range(50)]
    await wait_until(lambda: a.process.pid)
    for start in starts[:25]:
        start.cancel()
    results = await asyncio.gather(*starts, return_exceptions=True)
    assert results[25:] == [None] * 25
    assert log.read_text().count(" start ") == 1


# cmdStop


async def test_the_stop_command_gets_the_process_id_and_its_output_is_logged(make):
    stop = (
        python("import os, sys; print('stopping', sys.argv[1], flush=True); os.kill(int(sys.argv[1]), 15)") + " ${PID}"
    )
    a = make(IDLE, check_endpoint="none", cmd_stop=stop)
    await a.process.start()
    pid = a.process.pid
    await a.process.stop()
    assert f"stopping {pid}\n".encode() in a.printed


@pytest.mark.parametrize("stop", ["/no/such/program", "false", python("import sys; sys.exit(3)")])
async def test_a_stop_command_that_fails_is_followed_by_sigterm(make, stop):
    a = make(IDLE, check_endpoint="none", cmd_stop=stop, unload_timeout=60)
    await a.process.start()
    await asyncio.wait_for(a.process.stop(), DEADLINE)


async def test_a_stop_command_that_hangs_is_killed_with_the_server(make):
    a = make(IDLE, check_endpoint="none", cmd_stop=STUBBORN, unload_timeout=3)
    await a.process.start()
    began = time.monotonic()
    await a.process.stop()
    assert 3 <= time.monotonic() - began < 4


async def test_a_stop_command_that_works_on_when_the_server_has_ended_may_end(make, tmp_path):
    file = tmp_path / "done"
    stop = (
        python(f"import os, sys, time; os.kill(int(sys.argv[1]), 15); time.sleep(0.3); open('{file}', 'w')") + " ${PID}"
    )
    a = make(IDLE, check_endpoint="none", cmd_stop=stop)
    await a.process.start()
    await a.process.stop()
    assert file.exists()


# Ends that nobody asked for


async def test_a_server_that_crashes_is_stopped_and_can_be_started_again(make):
    a = make(responder_command("A", fork_grandchild="group"))
    await a.process.start()
    grandchild = await a.printed_number("grandchild")
    os.kill(a.process.pid, signal.SIGKILL)
    await wait_until(lambda: a.process.state is STOPPED)
    assert a.states == [START, READY, STOPPED]
    assert "SIGKILL" in a.reasons[-1]
    await wait_until(lambda: not exists(grandchild))
    await a.process.start()
    assert a.process.state is READY


async def test_a_start_right_after_a_crash_gets_a_new_child(make):
    """Also in the moment in which the end is known, and the state does not say so yet."""
    a = make(responder_command("A"))
    await a.process.start()
    dead = a.process.pid
    starts = []
    a.process._child.exited.add_done_callback(lambda _: starts.append(asyncio.create_task(a.process.start())))
    os.kill(dead, signal.SIGKILL)
    await wait_until(lambda: starts)
    await starts[0]
    assert a.process.pid not in (None, dead)
    assert a.states == [START, READY, STOPPED, START, READY]


async def test_a_hung_server_is_noticed_and_started_again(make):
    a = make(responder_command("A"), liveness=Liveness(every=0.2, failures=3), unload_timeout=1)
    await a.process.start()
    hung = a.process.pid
    os.kill(hung, signal.SIGSTOP)
    began = time.monotonic()
    await wait_until(lambda: STOPPING in a.states)
    assert time.monotonic() - began < 0.2 * 4 + 0.3
    await a.process.start()
    assert a.states == [START, READY, STOPPING, START, READY]
    assert "did not answer" in a.reasons[2]
    assert a.process.pid != hung


async def test_a_stop_during_a_restart_wins(make):
    a = make(responder_command("A"), liveness=Liveness(every=0.1, failures=1), unload_timeout=60)
    await a.process.start()
    os.kill(a.process.pid, signal.SIGSTOP)
    await wait_until(lambda: STOPPING in a.states)
    starting = asyncio.create_task(a.process.start())
    await asyncio.sleep(0)
    await asyncio.wait_for(a.process.stop(grace=0, reason="unloaded"), DEADLINE)
    with pytest.raises(StartError, match="unloaded"):
        await starting
    assert a.states == [START, READY, STOPPING, STOPPED]


@pytest.mark.parametrize("busy", [True, False])
async def test_a_server_that_answers_nobody_is_taken_to_be_busy_while_a_request_is_in_flight(make, busy):
    """A long prompt can keep a server of one thread from answering for minutes."""
    a = make(responder_command("A"), liveness=Liveness(every=0.05, failures=2), unload_timeout=0)
    await a.process.start()
    a.process.begin()
    os.kill(a.process.pid, signal.SIGSTOP)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wait_until(lambda: STOPPING in a.states), 0.5)
    assert a.process.state is READY
    if not busy:
        a.process.end()
        await wait_until(lambda: STOPPING in a.states)


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
async def test_a_server_that_no_longer_listens_is_started_again_also_with_a_request_in_flight(make, host):
    """That it is busy does not excuse it: a busy server is still connected to."""
    deaf = python(
        "import signal, socket\n"
        f"listener = socket.create_server(('{LOOPBACK}', ${{PORT}}))\n"
        "client, _ = listener.accept()\n"
        "client.recv(9999)\n"
        "client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')\n"
        "client.close()\n"
        "listener.close()\n"
        "signal.pause()\n"
    )
    port = free_ports()
    liveness = Liveness(every=0.05, failures=3)
    a = make(deaf, port=port, proxy=f"http://{host}:{port}", liveness=liveness, unload_timeout=0)
    await a.process.start()
    a.process.begin()
    await wait_until(lambda: STOPPING in a.states)
    assert a.reasons[2] == f"nobody listens on {host}:{port}"


@pytest.mark.parametrize(
    ("numbers", "refused"),
    [
        ([errno.ECONNREFUSED, errno.ECONNREFUSED], True),
        ([errno.EADDRNOTAVAIL, errno.ECONNREFUSED], True),
        ([errno.ECONNREFUSED, errno.ETIMEDOUT], False),
        ([errno.ENETUNREACH, errno.EADDRNOTAVAIL], False),
    ],
)
async def test_a_host_of_several_addresses_is_deserted_where_each_that_can_be_reached_refuses(
    monkeypatch, numbers, refused
):
    """`localhost` is often both ::1 and 127.0.0.1. Then asyncio raises an error that has no number."""
    addresses = ["('::1', 1, 0, 0)", "('127.0.0.1', 1)"]
    told = ", ".join(f"[Errno {n}] Connect call failed {a}" for n, a in zip(numbers, addresses, strict=True))

    async def connect(*_, **__):
        raise OSError(f"Multiple exceptions: {told}")

    monkeypatch.setattr(asyncio, "open_connection", connect)
    health = Health(Model("A", proxy="http://localhost:1"))
    assert await health.is_deserted(1.0) is refused
    assert await health.look(1.0) == 0
    assert (health.last == "nobody listens on localhost:1") is refused


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_what_the_router_lacks_is_no_fault_of_the_server(make, monkeypatch, number):
    a = make(responder_command("A"), liveness=Liveness(every=0.02, failures=2))
    await a.process.start()
    looks = []

    async def open_no_connection(*_, **__):
        looks.append(number)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as lacking:
        lacking.setattr(asyncio, "open_connection", open_no_connection)
        await wait_until(lambda: len(looks) > 5)
    assert a.states == [START, READY]


async def test_an_entry_of_env_without_a_value_changes_nothing(make, monkeypatch):
    monkeypatch.setenv("GREETING", "hello")
    show = "import os, signal; print('[%s]' % os.environ['GREETING'], flush=True); signal.pause()"
    a = make(python(show), check_endpoint="none", env=("GREETING",))
    await a.process.start()
    await wait_until(lambda: a.printed.endswith(b"\n"))
    assert a.printed == b"[hello]\n"


# Output and leaks


async def test_a_hundred_megabytes_of_output_cost_little_memory_and_delay_nobody(make):
    a = make(responder_command("A", print=100))
    memory = psutil.Process().memory_info
    before = most = memory().rss
    starting = asyncio.create_task(a.process.start())
    longest = 0.0
    while not starting.done():
        began = time.thread_time()  # what other programs take of the machine does not count
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
        most = max(most, memory().rss)
    await starting
    assert most - before < 32 << 20
    assert longest < 0.05
    assert len(a.printed) == RING
    assert a.printed.endswith(b"A listens on " + a.process.model.proxy.removeprefix("http://").encode() + b"\n")


async def test_all_that_was_printed_before_the_end_is_kept(make):
    a = make(python("import os; os.write(1, b'x' * 60000 + b'the end')"))
    with pytest.raises(StartError) as caught:
        await a.process.start()
    assert caught.value.tail.endswith("the end")
    assert a.printed.endswith(b"the end")


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="needs a pipe that can be made larger")
async def test_all_that_a_large_pipe_holds_at_the_end_is_kept():
    pieces = []
    output = Output(pieces.append)
    fcntl.fcntl(output.writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(output.writer, b"x" * 500_000 + b"the end")
    output.close()  # the writing end is open still, as with a grandchild
    output.close_writer()
    assert b"".join(pieces) == b"x" * 500_000 + b"the end"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
async def test_nothing_leaks(make):
    async def round_trip(a):
        await a.process.start()
        await a.process.stop(grace=0.2)
        broken = make("/no/such/program")
        with pytest.raises(StartError):
            await broken.process.start()

    a = make(responder_command("A", fork_grandchild="group"), cmd_stop="false")
    await round_trip(a)
    fds, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    for _ in range(3):
        await round_trip(a)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == fds
    assert len(asyncio.all_tasks()) == tasks
    assert psutil.Process().children() == []  # not even a zombie


@pytest.mark.parametrize("cmd", ["exit 3", "kill -9 $$", "sleep 600", "trap '' TERM; sleep 600 & wait; wait"])
@pytest.mark.parametrize("pidfd", [True, False], ids=["by pidfd", "in a thread"])
async def test_every_signal_reaches_an_id_that_cannot_be_anothers(no_child_left, monkeypatch, cmd, pidfd):
    """It is the child's as long as the child is not reaped, and it is reaped when there is nothing more to send."""
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    killpg = os.killpg

    def kill(group, number):
        assert psutil.pid_exists(group)
        os.waitid(os.P_PID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # ChildProcessError where it is reaped
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", kill)
    child = Child(["/bin/sh", "-c", cmd], dict(os.environ), lambda data: None)
    if "sleep" in cmd:
        child.send(signal.SIGTERM)
    else:
        await asyncio.wait_for(child.group_gone(), DEADLINE)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        child.send(signal.SIGTERM)  # as a stop does that comes just then
    await child.kill()
    assert not psutil.pid_exists(child.pid)
    assert child.describe_exit() in ("exited with status 3", "was killed by SIGKILL", "was killed by SIGTERM")
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("a signal to an id that is free"))
    child.send(signal.SIGTERM)
    await child.kill()


@pytest.mark.parametrize("ends", [True, False])
async def test_stopped_means_that_the_whole_group_is_gone(make, monkeypatch, caplog, ends):
    """A killed process with much memory takes its time to go; one that the kernel cannot end is given up."""
    looks = iter([True] * 5)
    monkeypatch.setattr("ringcast_router.processes.child.group_is_alive", lambda _: next(looks, not ends))
    monkeypatch.setattr("ringcast_router.processes.child.LONGEST_DEATH", DEADLINE if ends else 0.2)
    a = make(IDLE, check_endpoint="none")
    await a.process.start()
    os.kill(a.process.pid, signal.SIGKILL)
    await wait_until(lambda: a.process.state is STOPPED)
    assert next(looks, None) is None
    assert ("after SIGKILL" in caplog.text) is not ends


async def test_an_error_in_whoever_is_told_of_states_stops_nothing(no_child_left, caplog):
    def changed(*_):
        raise RuntimeError("told wrongly")

    process = Process(Model("A", cmd=IDLE, check_endpoint="none"), logs=LogStore(), changed=changed)
    await process.start()
    await process.close()
    assert process.state is State.SHUTDOWN
    assert "told wrongly" in caplog.text


async def test_ports_that_are_free_again_do_not_count_as_taken(make):
    """A swap to and fro on one port: the next server starts when the last has gone."""
    a = make(responder_command("A"))
    for _ in range(3):
        await a.process.start()
        with socket.create_connection((LOOPBACK, int(a.process.model.proxy.rpartition(":")[2]))):
            await a.process.stop()
    assert a.states == [START, READY, STOPPING, STOPPED] * 3
