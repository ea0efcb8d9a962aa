"""The demo: surveys a folder with one event per file and folder, and subscribers of different speed.

Each subscriber is a small object with one handler method. What it has gathered is written by that handler only,
and a subscription is never run by two workers at once: so there is no lock in this file. The results are read
after `close`, when all is delivered.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import stat
import sys
import sysconfig
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ringcast import CloseTimeoutError, Dispatcher, HandlerFailure, Subscription

TOP = 5  # rows of each list in the report
REFRESH = 0.1  # seconds between two looks at the counters
_JUNCTION = 0xA0000003  # Windows' other kind of link to a folder; 0 and absent elsewhere

Row = tuple[str, str, str]


# The events and their subscribers --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileFound:
    """A regular file: its path, its size in bytes, and if it has several hard links, what they share."""

    path: str
    size: int
    identity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FolderFound:
    """A folder: its path, and how many levels it lies below the one that is surveyed."""

    path: str
    depth: int


class Suffixes:
    """Counts files by suffix."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()

    def count(self, file: FileFound) -> None:
        """Handle a file."""
        self.files[os.path.splitext(file.path)[1].lower() or "(none)"] += 1


class Total:
    """Counts files and their bytes."""

    def __init__(self) -> None:
        self.files = self.bytes = 0

    def add(self, file: FileFound) -> None:
        """Handle a file."""
        self.files += 1
        self.bytes += file.size


class Largest:
    """Keeps the largest files."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, str]] = []

    def keep(self, file: FileFound) -> None:
        """Handle a file."""
        push = heapq.heappush if len(self.heap) < TOP else heapq.heappushpop
        push(self.heap, (file.size, file.path))


class Duplicates:
    """Finds files of equal content. The slow one: it reads every file that is not the only one of its size.

    A file that cannot be read makes the handler raise. That is counted and reported, and stops nothing.
    """

    def __init__(self) -> None:
        self.stopped = False  # set by the main thread, to not wait for a huge file after Ctrl-C
        self.copies: dict[tuple[int, bytes], list[str]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._unread: dict[int, list[str]] = {}
        self._read: set[int] = set()

    def compare(self, file: FileFound) -> None:
        """Handle a file. Empty files, and further hard links to one file, are no duplicates."""
        if file.size == 0 or file.identity in self._seen:
            return
        if file.identity is not None:
            self._seen.add(file.identity)
        unread = self._unread.setdefault(file.size, [])
        unread.append(file.path)
        while unread and (len(unread) > 1 or file.size in self._read):
            path = unread.pop(0)
            self.copies.setdefault((file.size, self._digest(path)), []).append(path)
            self._read.add(file.size)

    def _digest(self, path: str) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb", buffering=0) as content:
            while not self.stopped and (chunk := content.read(1 << 20)):
                digest.update(chunk)
        return digest.digest()


class Deepest:
    """Counts folders and keeps the deepest."""

    def __init__(self) -> None:
        self.folders = 0
        self.heap: list[tuple[int, str]] = []

    def keep(self, folder: FolderFound) -> None:
        """Handle a folder."""
        self.folders += 1
        push = heapq.heappush if len(self.heap) < TOP else heapq.heappushpop
        push(self.heap, (folder.depth, folder.path))


# The publisher ---------------------------------------------------------------------------------------


class Walk:
    """Iterates over the events of a folder tree. Follows no links, opens no special files, survives errors."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.links = self.special = self.unreadable = 0
        self.examples: list[str] = []

    def __iter__(self) -> Iterator[FileFound | FolderFound]:
        folders = [FolderFound(self.root, 0)]
        while folders:
            folder = folders.pop()
            yield folder
            try:
                with os.scandir(folder.path) as entries:
                    for entry in entries:
                        found = self._look_at(entry, folder.depth + 1)
                        if isinstance(found, FolderFound):
                            folders.append(found)
                        elif found is not None:
                            yield found
            except OSError as error:
                self._note(folder.path, error)

    def _look_at(self, entry: os.DirEntry[str], depth: int) -> FileFound | FolderFound | None:
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._note(entry.path, error)
            return None
        if stat.S_ISLNK(info.st_mode) or getattr(info, "st_reparse_tag", 0) == _JUNCTION:
            self.links += 1
        elif stat.S_ISDIR(info.st_mode):
            return FolderFound(entry.path, depth)
        elif stat.S_ISREG(info.st_mode):
            return FileFound(entry.path, info.st_size, (info.st_dev, info.st_ino) if info.st_nlink > 1 else None)
        else:
            self.special += 1
        return None

    def _note(self, path: str, error: OSError) -> None:
        self.unreadable += 1
        if len(self.examples) < TOP:
            self.examples.append(f"{path}: {error.strerror or error}")


class Survey:
    """The subscribers, the dispatcher between the walk and them, and the numbers of one run."""

    def __init__(self, root: str) -> None:
        self.walk = Walk(root)
        self.suffixes, self.total, self.largest = Suffixes(), Total(), Largest()
        self.duplicates, self.deepest = Duplicates(), Deepest()
        self.subscriptions: list[Subscription[Any]] = []
        self.failures: deque[HandlerFailure] = deque(maxlen=TOP)  # the last ones; all are counted
        self.published, self.seconds = 0, 0.0

    def run(self, progress: Progress) -> None:
        """Publish everything and wait until it is delivered. Ctrl-C drops what is still queued."""
        start = time.perf_counter()
        with Dispatcher(on_error=self.failures.append, name="demo") as bus:
            # Each handler's event class is taken from its annotation.
            handlers = (self.suffixes.count, self.total.add, self.largest.keep, self.duplicates.compare)
            self.subscriptions += [bus.subscribe(handler) for handler in handlers]
            self.subscriptions.append(bus.subscribe(self.deepest.keep))
            try:
                self._publish(bus, progress)
                self._deliver(bus, progress)
            except BaseException:
                self.duplicates.stopped = True
                for subscription in self.subscriptions:
                    subscription.cancel(discard=True)
                raise
        self.seconds = time.perf_counter() - start

    def _publish(self, bus: Dispatcher, progress: Progress) -> None:
        task = progress.add_task("publishing", total=None)
        for event in self.walk:
            bus.publish(event)
            self.published += 1
            if self.published % 256 == 0:
                progress.update(task, completed=self.published)
        progress.update(task, completed=self.published, total=self.published)

    def _deliver(self, bus: Dispatcher, progress: Progress) -> None:
        behind = self._behind()
        task = progress.add_task("delivering", total=behind)
        while True:
            try:
                return bus.close(timeout=REFRESH)
            except CloseTimeoutError:  # not an error here: time to show how far it is
                progress.update(task, completed=behind - self._behind())

    def _behind(self) -> int:
        """How many events the slowest subscription has still to see."""
        return max(subscription.pending for subscription in self.subscriptions)


# The report ------------------------------------------------------------------------------------------


class Report:
    """Prints a survey. File names may hold anything: what cannot be printed is shown as an escape."""

    def __init__(self, survey: Survey, console: Console) -> None:
        self.survey, self.console = survey, console

    def show(self) -> None:
        """Print both tables, and what went wrong on the way."""
        self._line(f"Found in {self.survey.walk.root}")  # not the table's title, which would be folded to its width
        self.console.print(self._results())
        self._line("The dispatcher's counters")
        self.console.print(self._counters())
        survey, walk = self.survey, self.survey.walk
        rate = survey.published / survey.seconds if survey.seconds else 0.0
        self._line(f"{survey.published:,} events published, all delivered in {survey.seconds:.2f} s: {rate:,.0f}/s")
        if walk.links or walk.special:
            self._line(f"left out: {walk.links:,} links, {walk.special:,} special files")
        if walk.unreadable:
            self._line(f"could not be read: {walk.unreadable:,}", walk.examples)
        if errors := sum(subscription.errors for subscription in survey.subscriptions):
            last = [f"{_name(failure.subscription)}: {failure.exception}" for failure in survey.failures]
            self._line(f"handler errors: {errors:,}", last)

    def _results(self) -> Table:
        table = self._table("what", "which", "how much")
        for rows in self._sections():
            for what, which, amount in rows:
                table.add_row(self._text(what), self._text(which), amount)
            table.add_section()
        return table

    def _sections(self) -> Iterator[list[Row]]:
        survey, relative = self.survey, self._relative
        yield [("total", f"{survey.total.files:,} files", decimal(survey.total.bytes))]
        yield [("suffix", name, f"{files:,} files") for name, files in survey.suffixes.files.most_common(TOP)]
        yield [("largest", relative(path), decimal(size)) for size, path in sorted(survey.largest.heap)[::-1]]
        yield self._duplicates()
        yield [("folders", f"{survey.deepest.folders:,} folders", "")]
        yield [("deepest", relative(path), f"level {depth}") for depth, path in sorted(survey.deepest.heap)[::-1]]

    def _duplicates(self) -> list[Row]:
        groups = [((len(paths) - 1) * size, paths) for (size, _), paths in self.survey.duplicates.copies.items()]
        groups = [group for group in groups if len(group[1]) > 1]
        rows = [
            ("duplicates", f"{self._relative(paths[0])} ({len(paths)} copies)", f"{decimal(extra)} too much")
            for extra, paths in heapq.nlargest(TOP, groups)
        ]
        extra = sum(extra for extra, _ in groups)
        return [("duplicates", f"{len(groups):,} contents more than once", f"{decimal(extra)} too much"), *rows]

    def _counters(self) -> Table:
        columns = ("handler", "event class", "delivered", "pending", "errors", "dropped")
        table = self._table(*columns)
        for sub in self.survey.subscriptions:
            event_class = sub.event_class.__name__ if isinstance(sub.event_class, type) else "(any)"
            numbers = (sub.delivered, sub.pending, sub.errors, sub.dropped)
            table.add_row(_name(sub), event_class, *(f"{number:,}" for number in numbers))
        return table

    def _table(self, *columns: str) -> Table:
        # Plain in a pipe: no lines, and no folding of long names either.
        style = box.SIMPLE_HEAD if self.console.is_terminal else None
        table = Table(box=style)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index > 1 else "left", overflow="fold")
        return table

    def _line(self, text: str, details: list[str] | None = None) -> None:
        for line in (text, *("  " + detail for detail in details or ())):
            self.console.print(self._text(line), soft_wrap=True)

    def _text(self, text: str) -> Text:
        """Neither markup nor control characters nor what the terminal's encoding lacks."""
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return Text(shown.encode(self.console.encoding, "backslashreplace").decode(self.console.encoding))

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.survey.walk.root)


def _name(subscription: Subscription[Any]) -> str:
    return getattr(subscription.handler, "__qualname__", repr(subscription.handler))


def _why_not(folder: str) -> str | None:
    """Why a folder cannot be surveyed; None if it can."""
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        return "no such folder"
    except NotADirectoryError:
        return "not a folder"
    except (OSError, ValueError) as error:
        return f"cannot read the folder ({getattr(error, 'strerror', None) or error})"
    return None


def run(folder: str | None = None) -> int:
    """Survey a folder and print the report.

    Args:
        folder: a path; None: Python's standard library.

    Returns:
        The exit status: 0, or 1 if the folder is missing, is none, or cannot be read.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was queued is dropped.
    """
    root = sysconfig.get_path("stdlib") if folder is None else folder
    if reason := _why_not(root):
        print(f"ringcast demo: {reason}: {root!r}", file=sys.stderr)
        return 1
    survey = Survey(root)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True, disable=not screen.is_terminal) as bar:
        survey.run(bar)
    console = Console()
    if not console.is_terminal:
        console.width = 100_000
    Report(survey, console).show()
    return 0
