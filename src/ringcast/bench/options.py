"""The arguments of `python -m ringcast bench`. Imports nothing that is heavy, because every command's help needs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECTIONS = ("throughput", "latency", "memory", "scaling")
MODES = ("queued", "direct", "asyncio", "batch", "record", "native")

# What is measured unless said otherwise: in full, and with --quick.
FULL: dict[str, Any] = {
    "types": [1, 10],
    "subscribers": [1, 10, 100],
    "rates": [1_000, 10_000],
    "repeats": 5,
    "seconds": 0.15,
    "latency_seconds": 1.0,
    "memory_events": 200_000,
    "scale_subscribers": [1, 10, 100, 1000],
    "scale_types": [1, 10, 100, 1000, 10_000],
}
QUICK: dict[str, Any] = {
    "types": [1, 10],
    "subscribers": [1, 10],
    "rates": [1_000],
    "repeats": 3,
    "seconds": 0.02,
    "latency_seconds": 0.1,
    "memory_events": 50_000,
    "scale_subscribers": [1, 100],
    "scale_types": [1, 1000],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its arguments."""
    parser.add_argument(
        "--quick", action="store_true", help="a short form, to see that all works; its figures say little"
    )
    parser.add_argument(
        "--sections", type=_choice(SECTIONS), default=list(SECTIONS), metavar="A,B", help=_one_of(SECTIONS)
    )
    parser.add_argument("--modes", type=_choice(MODES), default=list(MODES), metavar="A,B", help=_one_of(MODES))
    parser.add_argument("--types", type=_numbers(10_000), metavar="N,M", help="numbers of types; 1,10")
    parser.add_argument(
        "--subscribers", type=_numbers(10_000), metavar="N,M", help="numbers of subscribers of each type; 1,10,100"
    )
    parser.add_argument(
        "--rates", type=_numbers(1_000_000), metavar="N,M", help="events a second for latency; 1000,10000"
    )
    parser.add_argument("--repeats", type=_number(1000), metavar="N", help="how often each is measured; 5")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="how long a run for throughput is to take; 0.15")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables, for a page")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them: .svg or .png (needs matplotlib)")
    parser.add_argument(
        "--from",
        type=Path,
        dest="source",
        metavar="FILE",
        help="measure nothing: show, write, plot or compare what --json wrote",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="say what has become slower since OLD was written; exit with 1 if any has",
    )
    parser.add_argument(
        "--bound", type=_percent, default=0.1, metavar="PERCENT", help="how much slower counts as such; 10"
    )


def settle(arguments: argparse.Namespace) -> argparse.Namespace:
    """Fill in what was left open, by the full or the quick form."""
    for name, value in (QUICK if arguments.quick else FULL).items():
        if getattr(arguments, name, None) is None:
            setattr(arguments, name, value)
    return arguments


def _one_of(names: tuple[str, ...]) -> str:
    return f"only these, of {', '.join(names)}"


def _choice(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in names:
                raise argparse.ArgumentTypeError(f"there is no {name!r}, only {', '.join(names)}")
        return [name for name in names if name in chosen]

    return parse


def _number(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"not a whole number from 1 to {most}: {text!r}")
        return int(text)

    return parse


def _numbers(most: int) -> Callable[[str], list[int]]:
    return lambda text: sorted({_number(most)(part) for part in text.split(",")})


def _seconds(text: str) -> float:
    return _between(text, 0.001, 60, "a number of seconds")


def _percent(text: str) -> float:
    return _between(text, 0.1, 1000, "a percentage") / 100


def _between(text: str, least: float, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"not {what} from {least:g} to {most:g}: {text!r}")
    return value
