"""What `python -m ringcast bench` does. Needs rich."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from ringcast import __version__
from ringcast.bench import latency, memory, throughput
from ringcast.bench.machine import Watch, describe
from ringcast.bench.options import settle
from ringcast.bench.report import show, show_comparison
from ringcast.bench.results import Results, ResultsError, Row, compare
from ringcast.bench.tables import markdown
from ringcast.bench.work import LostEvents, Shape, Way

PLAIN_WIDTH = 160  # columns where there is no terminal


def run(arguments: argparse.Namespace) -> int:
    """Measure, or read what was measured; show, write, draw and compare it.

    Args:
        arguments: as options.add_arguments has them.

    Returns:
        The exit status: 0; 1 if something is slower than in the results to compare with, events were lost, or a file
        cannot be read or written; 2 if something is not installed.
    """
    settle(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    try:
        old = Results.read(arguments.compare) if arguments.compare else None  # before the minutes that measuring takes
        if arguments.plot and (wrong := _cannot_draw(arguments.plot)):
            print(f"ringcast bench: {wrong}", file=sys.stderr)
            return 2
        results = Results.read(arguments.source) if arguments.source else measure(arguments, console)
        show(results, console)
        if arguments.json:
            results.write(arguments.json)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(results), encoding="utf-8")
        if arguments.plot:
            from ringcast.bench.plots import draw

            draw(results, arguments.plot)
    except (LostEvents, ResultsError, OSError) as error:
        print(f"ringcast bench: {error}", file=sys.stderr)
        return 1
    if old is None:
        return 0
    verdicts = compare(old.rows, results.rows, arguments.bound)
    show_comparison(verdicts, old, results, arguments.bound, console)
    return 1 if any(each.verdict == "slower" and each.key.ours for each in verdicts) else 0


def _cannot_draw(path: Path) -> str | None:
    if path.suffix not in (".svg", ".png"):
        return f"a plot is an .svg or .png file, not {path.name}"
    if find_spec("matplotlib") is None:
        return "matplotlib is missing; pip install 'ringcast[bench]'"
    return None


def measure(arguments: argparse.Namespace, console: Console) -> Results:
    """Measure what the arguments ask for.

    Raises:
        LostEvents: a way has not delivered what was published.
    """
    ways, skipped = throughput.available(throughput.ALL)
    ways = [way for way in ways if way.mode in arguments.modes]
    if "memory" in arguments.sections and find_spec("psutil") is None:
        skipped["memory"] = "psutil is not installed"
        arguments.sections = [section for section in arguments.sections if section != "memory"]
    watch = Watch()
    rows: list[Row] = []
    with console.status("") as status:

        def doing(what: str) -> None:
            status.update(f"measuring {what}")

        for row in _rows(arguments, ways, watch.look, doing):
            rows.append(row)
    return Results(
        ringcast=__version__,
        machine=describe(),
        rows=tuple(rows),
        skipped=skipped,
        warnings=tuple(watch.warnings(rows)),
        reference=watch.median,
    )


def _rows(
    arguments: argparse.Namespace, ways: list[Way], between: Callable[[], object], doing: Callable[[str], None]
) -> Iterator[Row]:
    repeats, seconds = arguments.repeats, arguments.seconds
    if "throughput" in arguments.sections:
        shapes = [Shape(types, count) for types in arguments.types for count in arguments.subscribers]
        for mode, shape, able in throughput.matrix(ways, arguments.modes, shapes):
            doing(f"throughput: {mode}, {shape.types} types x {shape.subscribers} subscribers")
            yield from throughput.measure(shape, able, repeats, seconds, "throughput", between)
    if "latency" in arguments.sections:
        doing("latency")
        able = latency.able(ways, arguments.modes)
        yield from latency.measure(able, arguments.rates, repeats, arguments.latency_seconds, between)
    if "memory" in arguments.sections:
        doing("memory")
        yield from memory.measure(arguments.modes, (1, 10), min(repeats, 3), arguments.memory_events, between)
    if "scaling" in arguments.sections:
        shapes = [Shape(1, count) for count in arguments.scale_subscribers]
        shapes += [Shape(types, 1) for types in arguments.scale_types if types > 1]
        scaled = [way for way in ways if way.name in throughput.SCALED]
        modes = [mode for mode in arguments.modes if mode in ("queued", "direct")]
        for mode, shape, able in throughput.matrix(scaled, modes, shapes):
            doing(f"scaling: {mode}, {shape.types} types x {shape.subscribers} subscribers")
            yield from throughput.measure(shape, able, repeats, seconds, "scaling", between)
