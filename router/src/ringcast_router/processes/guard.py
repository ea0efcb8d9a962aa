"""No orphans: a small process that ends what the router started when the router itself is killed.

SIGKILL leaves the router no time to stop anything. The guard reads a pipe whose other end the router alone holds. The
kernel closes that end when the router dies, however it dies; the guard then runs the stop commands of the servers that
are left, kills their process groups, and ends. This needs neither polling nor a parent-death signal, which macOS does
not have and which on Linux follows the thread, not the process.

The guard is this very file, run by its path: it imports little, and nothing of the router. It has a session of its own
and ignores the signals that end the router. What it does not reach: a descendant that has left its process group, and
a server of a router that is killed within the fraction of a millisecond between its start and its entry here. Windows
has job objects that kill on close for this; they are not used in this version, which starts servers on POSIX only.
"""

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ()  # what ends a router

STOP_COMMAND_FIRST = 1.0  # seconds that a stop command has before its server is killed
STOP_COMMAND_IN_ALL = 60.0  # seconds after which the guard waits for stop commands no longer
CLOSE = 5.0  # seconds that the guard has to end when the router closes it
STUCK = 1.0  # seconds that a guard may leave its pipe full; it reads at once, so one that does not is replaced

log = logging.getLogger("ringcast_router.processes.guard")


class Guard:
    """The router's end of the guard. Event loop's thread only.

    Where the guard dies, or does not read, the next `watch` or `forget` starts another and tells it all. Where none can
    be started, that is logged, and the one after tries again.
    """

    def __init__(self) -> None:
        self._started = False
        self._popen: subprocess.Popen[bytes] | None = None
        self._watched: dict[int, bytes] = {}

    @property
    def pid(self) -> int | None:
        """The process id of the guard, None while there is none."""
        return None if self._popen is None else self._popen.pid

    async def start(self) -> None:
        """Start the guard process. Returns at once: what it is told meanwhile waits in its pipe."""
        if not self._started:
            self._spawn()
            self._started = True

    def watch(self, pgid: int, stop: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        """Have a process group killed when the router dies.

        Args:
            pgid: The id of the group.
            stop: A command to run then: program and arguments.
            environment: What the command's environment has; None: the router's.
        """
        message = {"watch": pgid, "stop": list(stop), "environment": environment and dict(environment)}
        self._watched[pgid] = json.dumps(message).encode() + b"\n"
        self._tell(self._watched[pgid])

    def forget(self, pgid: int) -> None:
        """Leave a process group alone from now on: its leader is reaped, and another process may get its id."""
        if self._watched.pop(pgid, None) is not None:
            self._tell(json.dumps({"forget": pgid}).encode() + b"\n")

    async def close(self) -> None:
        """End the guard process, and with it what is still watched. Idempotent."""
        popen, self._popen = self._popen, None
        self._started = False
        if popen is None:
            return
        assert popen.stdin is not None
        with contextlib.suppress(OSError):
            popen.stdin.close()
        try:
            await asyncio.to_thread(popen.wait, CLOSE)
        except subprocess.TimeoutExpired:  # a stop command takes longer: the guard goes on alone
            log.warning("the guard still runs stop commands")
        self._watched.clear()

    def _spawn(self) -> None:
        # -I and -S: neither the user's environment nor site-packages are read.
        with _blocked_signals():  # which the guard inherits, until it ignores them
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        assert self._popen.stdin is not None
        os.set_blocking(self._popen.stdin.fileno(), False)
        for message in self._watched.values():
            self._write(message)

    def _tell(self, message: bytes) -> None:
        if not self._started:
            return  # `start` tells all
        try:
            if self._popen is not None:
                self._write(message)
                return
        except OSError as error:
            log.warning("the guard process is of no use any more (%s); another is started", error)
        try:
            self._end_guard()
            self._spawn()
        except OSError as error:
            self._end_guard()
            log.error("no guard process: %s; model servers stay if the router is killed now", error)

    def _write(self, message: bytes) -> None:
        assert self._popen is not None
        assert self._popen.stdin is not None
        pipe, view = self._popen.stdin, memoryview(message)
        while view:  # a pipe may take a part of a long message
            written = pipe.write(view)
            if written is None and not select.select([], [pipe], [], STUCK)[1]:
                raise TimeoutError(f"it has read nothing for {STUCK:g} s")
            view = view[written or 0 :]

    def _end_guard(self) -> None:
        """End a guard that is of no use. Not by closing its pipe alone: it would kill what it watches."""
        popen, self._popen = self._popen, None
        if popen is None:
            return
        popen.kill()
        popen.wait()
        assert popen.stdin is not None
        with contextlib.suppress(OSError):
            popen.stdin.close()


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Have the signals that end a router wait; for this thread alone, and for a process that it starts."""
    if not _ENDING:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# From here on: the guard process itself.


def serve() -> None:
    """Read what is to be watched until the router is gone, then end it."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    if _ENDING:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)  # stop commands are started with what this process has
    watched: dict[int, tuple[list[str], dict[str, str] | None]] = {}
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            break  # the router died in the middle of a message
        message = json.loads(line)
        if "watch" in message:
            watched[message["watch"]] = (message["stop"], message["environment"])
        else:
            watched.pop(message["forget"], None)
    end(watched)


def end(watched: Mapping[int, tuple[list[str], dict[str, str] | None]]) -> None:
    """Run the stop commands, and kill all groups: at once where there is no command, else soon."""
    commands: dict[int, subprocess.Popen[bytes]] = {}
    for group, (stop, environment) in watched.items():
        if stop:
            with contextlib.suppress(OSError, ValueError):
                commands[group] = subprocess.Popen(
                    stop,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
    kill(group for group in watched if group not in commands)
    wait(commands.values(), STOP_COMMAND_FIRST)
    kill(commands)
    wait(commands.values(), STOP_COMMAND_IN_ALL - STOP_COMMAND_FIRST)


def kill(groups: Iterable[int]) -> None:
    """Kill process groups."""
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def wait(commands: Iterable[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for commands, together no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    for command in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(max(0.0, deadline - time.monotonic()))


if __name__ == "__main__":
    serve()
