"""A child process in a process group of its own: started, signalled, and waited for by the event loop."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from ringcast_router.processes.limits import restore_open_files
from ringcast_router.processes.output import Output

LOOK_AGAIN = 0.01  # seconds between two looks at a group whose leader has ended
LONGEST_DEATH = 10.0  # seconds after SIGKILL for which a group is waited for

log = logging.getLogger(__name__)


class Child:
    """A child process, the leader of its group. Event loop's thread only; POSIX only.

    Args:
        arguments: The program and its arguments.
        environment: The whole environment of the child.
        sink: Called with each piece of what the child, or a descendant, writes to standard output or error.

    Attributes:
        pid: The process id, which is the id of the group as well.
        exited: Done when the child has ended: its return code, as subprocess has it. The child stays a zombie until
            `kill`: as long as it is one, its id cannot become another's, so every signal reaches its group alone.

    Raises:
        OSError: The program cannot be started.
        ValueError: An argument or the environment holds a null character.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], sink: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._output = Output(sink)
        try:
            self._popen = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output.writer,
                stderr=self._output.writer,
                process_group=0,
            )
        except BaseException:
            self._output.close_writer()
            self._output.close()
            raise
        self._output.close_writer()
        self.pid = self._popen.pid
        restore_open_files(self.pid)
        self._reaped = False
        self._watch_exit()

    def _watch_exit(self) -> None:
        if sys.platform == "linux":
            try:
                pidfd = os.pidfd_open(self.pid)
            except (AttributeError, OSError):  # an old kernel
                pass
            else:
                self._loop.add_reader(pidfd, self._see_exit, pidfd)
                return
        threading.Thread(target=self._wait_in_thread, name=f"wait for {self.pid}", daemon=True).start()

    def _see_exit(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._has_exited(_wait(self._popen))

    def _wait_in_thread(self) -> None:
        code = _wait(self._popen)
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._has_exited, code)

    def _has_exited(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens where nobody is left."""
        if self._reaped:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def group_gone(self) -> None:
        """Wait until the child has ended, and with it all members of its group."""
        await asyncio.wait({self.exited})
        while group_is_alive(self.pid):  # noqa: ASYNC110 - no event says that a group is empty
            await asyncio.sleep(LOOK_AGAIN)

    async def kill(self) -> None:
        """Kill the group, and return when all of it is gone, the child reaped and its output read. Idempotent.

        A member that the kernel cannot end, such as one that waits for a broken disk, is left after `LONGEST_DEATH`.
        """
        self.send(signal.SIGKILL)
        await asyncio.wait({self.exited})
        try:
            async with asyncio.timeout(LONGEST_DEATH):
                if not self._reaped:
                    await self.group_gone()  # a killed process holds its memory until the kernel has taken it apart
        except TimeoutError:
            log.warning("processes of the group %d still run %g s after SIGKILL", self.pid, LONGEST_DEATH)
        self._popen.wait()
        self._reaped = True
        self._output.close()

    def describe_exit(self) -> str:
        """Return how the child has ended, in words."""
        code = self.exited.result()
        if code >= 0:
            return f"exited with status {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a child, without reaping it where the system can; return its code as subprocess has it."""
    if sys.platform == "darwin" and sys.version_info < (3, 13):
        return child.wait()
    result = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert result is not None  # only WNOHANG gives none
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def group_is_alive(group: int) -> bool:
    """Whether a process group has a member that is no zombie.

    A zombie whose new parent never reaps it, as in containers without an init, must not count: it would be waited for
    in vain.
    """
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM where only zombies are left
        return False
    return not sys.platform.startswith("linux") or any(_groups_of_living(group))


def _groups_of_living(group: int) -> "filter[str]":
    return filter(lambda name: name.isdigit() and _is_living_member(name, group), os.listdir("/proc"))


def _is_living_member(pid: str, group: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, member_of, *_ = file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended
        return False
    return int(member_of) == group and state not in (b"Z", b"X")
