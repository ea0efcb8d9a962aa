"""Who listens on a port of this machine, for errors that name whom to end. Linux tells; elsewhere nobody is known."""

import contextlib
import os
from collections.abc import Iterator

_LISTENS = "0A"  # the state of a socket in /proc/net/tcp


def who_listens(port: int) -> str:
    """Return the program that listens on a TCP port, such as `python3 (process 4242)`; "" where it is not known.

    Processes of other users are not known, but to root. Reads all of /proc, so not for the event loop's thread.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if sockets:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if not sockets.isdisjoint(_open_files(pid)):
                return f"{_name(pid)} (process {pid})"
    return ""


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines, None)  # the heads of the columns
            for line in lines:
                _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
                if state == _LISTENS and int(address.rpartition(":")[2], 16) == port:
                    yield inode


def _open_files(pid: str) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a program"
