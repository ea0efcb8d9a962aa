"""The command line: `python -m ringcast`."""

from __future__ import annotations

import argparse
import sys

from ringcast import __version__
from ringcast.bench.options import add_arguments


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
    top = commands.add_parser(
        "top",
        help="watch a dispatcher at work: rates, queues, errors",
        description="Run a small program with subscribers of each kind, and show the numbers of its dispatcher until "
        "Ctrl-C; without a terminal, one table after a second. ringcast.top.watch(dispatcher) does the same in a "
        "program of yours. Needs rich: pip install 'ringcast[demo]'.",
    )
    top.add_argument("--seconds", metavar="N", type=_seconds, help="end after N seconds")
    top.add_argument("--once", action="store_true", help="print one plain table, after a second or N, and end")
    top.set_defaults(run=_top)
    bench = commands.add_parser(
        "bench",
        help="measure Ringcast beside what one would take instead",
        description="Measure throughput, latency, memory and what many subscribers and types cost, for each mode, "
        "beside queues, asyncio and event libraries that are installed, in turn on this machine. In full it takes "
        "some minutes. Needs rich and the peers: pip install 'ringcast[bench]'.",
    )
    add_arguments(bench)
    bench.set_defaults(run=_bench)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"not a number of seconds between 0 and a million: {text!r}")
    return seconds


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from ringcast.demo import run
    except ModuleNotFoundError as error:
        return _missing("demo", error)
    return run(arguments.folder)


def _top(arguments: argparse.Namespace) -> int:
    try:
        from ringcast.top import run
    except ModuleNotFoundError as error:
        return _missing("top", error)
    return run(arguments.seconds, arguments.once)


def _bench(arguments: argparse.Namespace) -> int:
    try:
        from ringcast.bench.command import run
    except ModuleNotFoundError as error:
        return _missing("bench", error, "bench")
    return run(arguments)


def _missing(command: str, error: ModuleNotFoundError, extra: str = "demo") -> int:
    if (error.name or "").partition(".")[0] != "rich":
        raise error
    print(f"ringcast {command}: rich is missing; pip install 'ringcast[{extra}]'", file=sys.stderr)
    return 2


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
