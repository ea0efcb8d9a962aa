"""Reads a web server's access log: counts, keeps what failed, and tells who causes many failures.

    pip install ringcast
    python examples/access_log.py access.log failures.csv
    tail -F access.log | python examples/access_log.py - failures.csv

What the tutorial of the documentation builds step by step. One thread reads lines and publishes a `Request` for each.
Three subscribers take them: a quick one counts; one writes failures to a file; one looks for clients that fail often,
and publishes a `Suspect`, which a slow subscriber tells somebody. However slow that is, the log is read at full speed.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from ringcast import Dispatcher

LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+)[^"]*" (\d{3}) (\d+|-)')
OFTEN = 10  # failures of one client that make it a suspect


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the log: who wanted what, and with which status and how many bytes the server answered."""

    client: str
    time: str
    method: str
    path: str
    status: int
    size: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A client has failed so often."""

    client: str
    failures: int


class Report:
    """Counts requests by status, and bytes."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.size = 0

    def count(self, request: Request) -> None:
        """Handle a request."""
        self.statuses[request.status] += 1
        self.size += request.size


class FailureFile:
    """Writes requests to a CSV file.

    Args:
        file: where to, open for writing.
    """

    def __init__(self, file: TextIO) -> None:
        self._rows = csv.writer(file)

    def write(self, request: Request) -> None:
        """Handle a request."""
        self._rows.writerow([request.time, request.client, request.method, request.path, request.status])


class Watch:
    """Publishes a Suspect for every OFTEN failures of a client.

    Args:
        bus: where to publish.
    """

    def __init__(self, bus: Dispatcher) -> None:
        self._bus = bus
        self._failures: Counter[str] = Counter()

    def count(self, request: Request) -> None:
        """Handle a request that has failed."""
        self._failures[request.client] += 1
        failures = self._failures[request.client]
        if failures % OFTEN == 0:
            self._bus.publish(Suspect(request.client, failures))


def has_failed(request: Request) -> bool:
    """Whether the server has answered with an error."""
    return request.status >= 400


def read(lines: Iterable[str], bus: Dispatcher) -> int:
    """Publish a Request for each line.

    Args:
        lines: of the log, in the common or combined format.
        bus: where to publish.

    Returns:
        How many lines were of another format and left out.
    """
    unknown = 0
    for line in lines:
        match = LINE.match(line)
        if match is None:
            unknown += 1
            continue
        client, time, method, path, status, size = match.groups()
        bus.publish(Request(client, time, method, path, int(status), 0 if size == "-" else int(size)))
    return unknown


def watch_log(lines: Iterable[str], failures: TextIO, tell: Callable[[Suspect], object]) -> str:
    """Read a log to its end.

    Args:
        lines: of the log.
        failures: where requests that failed are written.
        tell: is called with each Suspect, and may take its time: of a client that has become worse while it is busy
            it is told the newest only.

    Returns:
        A report for people.
    """
    report = Report()
    with Dispatcher() as bus:
        bus.subscribe(report.count)
        bus.subscribe(FailureFile(failures).write, where=has_failed)
        bus.subscribe(Watch(bus).count, where=has_failed)
        bus.subscribe(Suspect, tell, policy="latest", key=lambda suspect: suspect.client)
        unknown = read(lines, bus)
        bus.wait_idle()  # Watch still publishes; a closed dispatcher would not let it
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    return f"{report.statuses.total()} requests ({statuses}), {report.size} bytes, {unknown} lines left out"


def main() -> None:
    """The command line: LOG FAILURES, where `-` is the standard input."""
    if len(sys.argv) != 3:
        sys.exit("usage: python access_log.py LOG FAILURES")
    with (
        open(0 if sys.argv[1] == "-" else sys.argv[1], encoding="utf-8", errors="replace") as log,
        open(sys.argv[2], "w", encoding="utf-8", newline="") as failures,
    ):
        print(watch_log(log, failures, lambda suspect: print(f"{suspect.client}: {suspect.failures} failures")))


if __name__ == "__main__":
    main()
