"""Which configuration files a command reads, and whether they have changed."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ringcast_router.config import Config, load
from ringcast_router.errors import ConfigError

DEFAULT = "config.yaml"
Signature = tuple[tuple[str, int, int, int], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name configuration files."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        action="append",
        default=[],
        help=f"a configuration file; may be given several times, the files are merged (default: {DEFAULT})",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="also all *.yaml and *.yml files of a folder, by name")


class Files:
    """The configuration files that a command line names. A folder is looked at anew each time.

    Args:
        files: Files, in the order in which they are merged.
        folder: A folder whose `*.yaml` and `*.yml` files come after them; None for none.
    """

    def __init__(self, files: Sequence[str], folder: str | None = None) -> None:
        self._files = [Path(file) for file in files]
        self._folder = None if folder is None else Path(folder)
        if not self._files and self._folder is None:
            self._files = [Path(DEFAULT)]

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Files":
        """Return the files that parsed options name."""
        return cls(options.config, options.config_dir)

    def paths(self) -> list[Path]:
        """Return the files as they are now.

        Raises:
            ConfigError: The folder cannot be read, or holds no such file.
        """
        if self._folder is None:
            return list(self._files)
        try:
            found = sorted(path for path in self._folder.iterdir() if path.suffix in (".yaml", ".yml"))
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=str(self._folder)) from None
        if not found and not self._files:
            raise ConfigError("there is no *.yaml or *.yml file in this folder", file=str(self._folder))
        return [*self._files, *found]

    def read(self) -> Config:
        """Read the configuration.

        Raises:
            ConfigError: It cannot be used.
        """
        paths = self.paths()
        if paths == [Path(DEFAULT)] and not paths[0].exists():
            raise ConfigError("there is no such file here: write one, or name yours by --config", file=DEFAULT)
        return load(paths)

    def signature(self) -> Signature:
        """Return what changes whenever a file does: name, inode, time of change, size. () while a file is missing."""
        try:
            stats = [(path, os.stat(path)) for path in self.paths()]
        except (OSError, ConfigError):
            return ()
        return tuple((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


async def watch(
    signature: Callable[[], Signature], changed: Callable[[], Awaitable[object]], every: float = 1.0
) -> None:
    """Call `changed` whenever files have changed. Runs until it is cancelled.

    Polls, since notifications of the system do not come over network file systems and bind mounts. A file that is being
    written may be empty for a moment: so `changed` waits until two looks in a row see the same.

    Args:
        signature: Says what the files are like; () while one is missing, which is not a change.
        changed: What to call.
        every: Seconds between two looks.
    """
    known = before = await asyncio.to_thread(signature)
    while True:
        await asyncio.sleep(every)
        now = await asyncio.to_thread(signature)
        if now and now == before and now != known:
            known = now
            await changed()
        before = now
