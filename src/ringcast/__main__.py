"""The command line: `python -m ringcast`."""

from __future__ import annotations

import argparse
import sys

from ringcast import __version__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ringcast", description="Ringcast, an event dispatcher.")
    parser.add_argument("--version", action="version", version=f"ringcast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="survey a folder: one event per file and folder, several subscribers",
        description="Walk a folder, publish an event for each file and folder, and show what the subscribers "
        "made of them. Needs rich: pip install 'ringcast[demo]'.",
    )
    demo.add_argument("folder", metavar="DIR", nargs="?", help="default: Python's standard library")
    demo.set_defaults(run=_demo)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from ringcast.demo import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        print("ringcast demo: rich is missing; pip install 'ringcast[demo]'", file=sys.stderr)
        return 2
    return run(arguments.folder)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit status: 0, 1 (cannot be done), 2 (something is not installed) or 130 (Ctrl-C).

    Raises:
        SystemExit: by argparse, with status 2 for wrong usage and 0 for `--help` and `--version`.
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except KeyboardInterrupt:
        print("ringcast: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
