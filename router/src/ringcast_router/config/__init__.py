"""The configuration: read from files (`load`) or from text (`loads`), and given as a frozen `Config`.

A file goes through these steps, each a module: `environment` and `reader` (text to tree), `merge` (several files),
`schema` with `decode`, `macros` and `models` (tree to settings, with every default), `routing` and `unserved` (checks),
`build` (settings to `Config`). Only `reader` needs more than the standard library.
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ringcast_router.config import source
from ringcast_router.config.build import build
from ringcast_router.config.commands import split_command
from ringcast_router.config.merge import merge
from ringcast_router.config.model import Config
from ringcast_router.config.reload import keep
from ringcast_router.errors import ConfigError

__all__ = ["Config", "ConfigError", "describe", "keep", "load", "loads", "split_command"]


def load(paths: Sequence[str | Path], *, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration from files.

    Args:
        paths: The files, at least one; several are merged in this order.
        environ: The environment variables; by default those of this process.

    Raises:
        ConfigError: A file cannot be read, or the configuration cannot be used. Names file, line, key, and what would
            be right.
    """
    from ringcast_router.config import reader  # needs PyYAML; planners and schedulers do without

    if not paths:
        raise ConfigError("no configuration file is named")
    seen: set[Path] = set()
    roots = []
    for path in map(Path, paths):
        text = _text_of(path)  # first: a circle of links cannot be resolved
        if path.resolve() in seen:
            raise ConfigError("this file is named twice", file=str(path))
        seen.add(path.resolve())
        roots.append(reader.read(text, str(path), os.environ if environ is None else environ))
    return build(merge(roots))


def loads(text: str, *, environ: Mapping[str, str] | None = None, file: str = "") -> Config:
    """Read a configuration from text.

    Args:
        text: YAML.
        environ: The environment variables; by default those of this process.
        file: A name for errors.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    from ringcast_router.config import reader  # needs PyYAML; planners and schedulers do without

    return build(reader.read(text, file, os.environ if environ is None else environ))


def describe(config: Config) -> str:
    """Return the resolved configuration as YAML: the original's keys with every default, and ours below `ringcast`."""
    from ringcast_router.config import reader  # needs PyYAML; planners and schedulers do without

    return reader.dump({**config.resolved(), "ringcast": _own(config)})


def _own(config: Config) -> dict[str, object]:
    """Return what holds of the settings below `ringcast:`, in the file's names."""
    fair = asdict(config.fair)
    return {
        "scheduler": config.scheduler,
        "router": config.router,
        "fair": {name: "auto" if value is None else value for name, value in fair.items()},
        "queue": asdict(config.queue),
        "keys": [{**asdict(key), "models": None if key.models is None else sorted(key.models)} for key in config.keys],
        "models": {
            model.id: {
                "priority": model.priority,
                "pinned": model.pinned,
                "liveness": asdict(model.liveness),
                "resources": dict(model.resources),
            }
            for model in config.models.values()
        },
    }


def _text_of(path: Path) -> str:
    data = b""
    try:
        data = source.read(path)
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not text in UTF-8", file=str(path), line=line) from None
