"""Changes of files as events, with a subscriber for each kind of change.

    pip install 'ringcast[examples]'
    python examples/watch_files.py FOLDER        (Ctrl-C ends it)

Shows event classes as the way to route: who wants new files subscribes to `FileAdded`, and who wants every change
subscribes to their base class with `subclasses=True`. The watcher (`watchfiles`) publishes from the main thread.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from ringcast import Dispatcher

TIMEOUT = 100  # ms after which a quiet `watch` comes back


@dataclass(frozen=True, slots=True)
class FileChanged:
    """A file has changed in some way."""

    path: Path


class FileAdded(FileChanged):
    """A file is new, or has come from elsewhere."""


class FileModified(FileChanged):
    """A file's content or attributes have changed."""


class FileDeleted(FileChanged):
    """A file is gone."""


@dataclass(frozen=True, slots=True)
class Watching:
    """From now on changes in a folder are seen."""

    folder: Path


EVENTS = {
    watchfiles.Change.added: FileAdded,
    watchfiles.Change.modified: FileModified,
    watchfiles.Change.deleted: FileDeleted,
}


def watch(bus: Dispatcher, folder: Path, stop: threading.Event) -> None:
    """Publish `Watching` once, and then the changes in a folder and below it, until told to stop.

    Args:
        bus: where to publish.
        folder: the folder.
        stop: ends it when set, from any thread.

    Raises:
        FileNotFoundError: there is no such folder.
        KeyboardInterrupt: Ctrl-C.
    """
    published = False
    # `watch` sets its watches when it is first asked for changes, and tells nobody. But it comes back after a time
    # without changes: then they are set.
    for changes in watchfiles.watch(
        folder, stop_event=stop, step=20, rust_timeout=TIMEOUT, yield_on_timeout=True, raise_interrupt=True
    ):
        if not published:
            bus.publish(Watching(folder))
            published = True
        for change, path in changes:
            bus.publish(EVENTS[change](Path(path)))


class Tally:
    """Keeps the names by kind of change: each handler has a list of its own, so none needs a lock."""

    def __init__(self) -> None:
        self.added: list[Path] = []
        self.modified: list[Path] = []
        self.deleted: list[Path] = []

    def subscribe(self, bus: Dispatcher) -> None:
        """Subscribe a handler to each kind. Their classes are taken from the annotations."""
        bus.subscribe(self.add)
        bus.subscribe(self.modify)
        bus.subscribe(self.delete)

    def add(self, event: FileAdded) -> None:
        """Handle a new file."""
        self.added.append(event.path)

    def modify(self, event: FileModified) -> None:
        """Handle a file with other content."""
        self.modified.append(event.path)

    def delete(self, event: FileDeleted) -> None:
        """Handle a file that is gone."""
        self.deleted.append(event.path)


def main(arguments: list[str] | None = None) -> int:
    """Print what changes in a folder. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Prints what changes in a folder.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder.resolve()
    if not folder.is_dir():
        print(f"no such folder: {folder}", file=sys.stderr)
        return 1
    tally = Tally()
    with Dispatcher() as bus:

        @bus.on
        def ready(event: Watching) -> None:
            print(f"watching {event.folder}", flush=True)

        @bus.on(FileChanged, subclasses=True)
        def show(event: FileChanged) -> None:
            print(f"{type(event).__name__}: {event.path.relative_to(folder)}", flush=True)

        tally.subscribe(bus)
        with contextlib.suppress(KeyboardInterrupt):  # what has been published is still delivered
            watch(bus, folder, threading.Event())
    print(f"{len(tally.added)} added, {len(tally.modified)} modified, {len(tally.deleted)} deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
