"""Say what is wrong with a configuration, or may be.

Errors name file, line, key, and what would be right. Warnings name the full key, too, such as `models.large.cmd`. They
are about keys that are unknown or not served yet, and programs that are not there. The exit status is 1 if the
configuration cannot be used.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator

from ringcast_router.command import files
from ringcast_router.config import Config, describe, split_command
from ringcast_router.errors import ConfigError
from ringcast_router.planning import make_planner
from ringcast_router.scheduling import make_scheduler

EXAMPLE = """\
examples:
  ringcast-router check --config config.yaml
  ringcast-router check --config config.yaml --resolved
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `check`."""
    files.add_arguments(parser)
    parser.add_argument(
        "--resolved",
        action="store_true",
        help="print the configuration with every macro replaced and every default filled in, as YAML",
    )


def run(options: argparse.Namespace) -> int:
    """Check the files; return the exit status.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    config = files.Files.of(options).read()
    make_scheduler(config, make_planner(config))  # a name that stands for nothing, or a plug-in that cannot be had
    for warning in (*config.warnings, *missing_programs(config)):
        print(f"warning: {warning}", file=sys.stderr)
    if options.resolved:
        print(describe(config), end="")
    else:
        print(summary(config))
    return 0


def summary(config: Config) -> str:
    """Return what a configuration comes to, in one line."""
    counts = [(len(config.models), "model"), (len(config.keys), "key"), (len(config.preload), "preload")]
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count or noun == "model"]
    return f"fine: {', '.join(parts)}; scheduler {config.scheduler}, router {config.router}"


def missing_programs(config: Config) -> Iterator[str]:
    """Yield a warning for each program that a model's command names and that is not there."""
    users: dict[str, list[str]] = {}
    for model in config.models.values():
        path = next((entry[5:] for entry in reversed(model.env) if entry.startswith("PATH=")), os.environ.get("PATH"))
        try:
            program = split_command(model.cmd)[0] if model.cmd.strip() else ""
        except ConfigError:
            continue  # which loading has told
        if program and shutil.which(program, path=path) is None:
            users.setdefault(program, []).append(model.id)
    for program, models in users.items():
        yield f"models.{models[0]}.cmd: there is no program {program!r} (needed by {', '.join(models)})"
