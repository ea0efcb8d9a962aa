"""Draws results, with matplotlib: one picture, a part for each section and mode."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")  # draws into files; needs no display

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullLocator

from ringcast.bench.results import Results, Row
from ringcast.bench.timing import Spread

COLUMNS = 2
WIDTH = 8.6  # inches of 96 pixels: that of a README on the web, so that text has its size there
OURS = "#1f5fa8"  # Ringcast's
OURS_TOO = "#7fb0e0"  # another one of Ringcast's
THEIRS = ("#d98c3f", "#a8a8a8", "#6f9e6f", "#b06f9a", "#c7b04a", "#8c7a6b", "#5f5f5f")
SETTINGS = {
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # which matplotlib brings
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.titlesize": 9,
    "lines.markersize": 4,
    "svg.fonttype": "none",  # text stays text: small, and can be read
    "svg.hashsalt": "ringcast",  # the same results make the same file
}
SECONDS = EngFormatter("s", sep=" ")
BYTES = FuncFormatter(lambda value, _: f"{value:g} B")
NUMBERS = FuncFormatter(lambda value, _: f"{value:,g}")


class Part(NamedTuple):
    """A part of the picture."""

    draw: Callable[[Any, Sequence[Row]], None]
    rows: list[Row]
    height: int
    """In lines of text, without what stands around."""


def colours(ways: Sequence[str]) -> dict[str, str]:
    """A colour for each way: blue for Ringcast's."""
    theirs = iter(THEIRS * len(ways))
    ours = iter((OURS, OURS_TOO) * len(ways))
    return {way: next(ours if way.startswith("Ringcast") else theirs) for way in ways}


def draw(results: Results, path: Path) -> None:
    """Draw all sections that there are.

    Args:
        results: with at least one row.
        path: the file to write, .svg or .png.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        groups.setdefault((row.section, "" if row.section == "memory" else row.mode), []).append(row)
    parts = [
        Part(part, own, height or len({row.way for row in own}))
        for section, part, height in (
            ("throughput", _throughput, 0),
            ("latency", _latency, 0),
            ("memory", _memory, 0),
            ("scaling", _scaling, 10),
        )
        for own in [rows for key, rows in groups.items() if key[0] == section]
    ]
    lines = [parts[at : at + COLUMNS] for at in range(0, len(parts), COLUMNS)] or [[]]
    heights = [0.7 + 0.2 * max((part.height for part in line), default=0) for line in lines]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
        every: Any = figure.subplots(len(lines), COLUMNS, squeeze=False, height_ratios=heights)
        for axes, part in zip(every.flat, parts, strict=False):
            part.draw(axes, part.rows)
        for axes in every.flat[len(parts) :]:
            axes.set_axis_off()
        machine = results.machine
        where = f"{machine['python']}, {machine['processor']}, {machine['cpus']} CPUs"
        figure.suptitle(f"ringcast {results.ringcast}, {where}. Further left, or lower, is better.")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
    if path.suffix == ".svg":
        indents_and_digits = r"(?<=\n)\s+|(?<=\.\d\d)\d+"  # of which nothing can be seen
        path.write_text(re.sub(indents_and_digits, "", path.read_text(encoding="utf-8")), encoding="utf-8")


def _throughput(axes: Any, rows: Sequence[Row]) -> None:
    """From the fewest subscribers to the most, with the fewest types."""
    axes.set_title(f"{rows[0].mode}: time for an event")
    _by_subscribers(axes, rows, 1e-9, SECONDS, "to")


def _memory(axes: Any, rows: Sequence[Row]) -> None:
    """The same, of all modes."""
    axes.set_title("memory for an event")
    _by_subscribers(axes, rows, 1, BYTES, "waits for")


def _by_subscribers(axes: Any, rows: Sequence[Row], unit: float, ticks: Any, what: str) -> None:
    types = min(row.types for row in rows)
    rows = [row for row in rows if row.types == types]
    counts = sorted({min(row.subscribers for row in rows), max(row.subscribers for row in rows)})
    values = {
        way: {row.subscribers: row.spread for row in rows if row.way == way and row.subscribers in counts}
        for way in dict.fromkeys(row.way for row in rows)
    }
    names = [f"{count} {'(dot)' if count == counts[0] else '(circle)'}" for count in counts]
    _dots(axes, {way: list(own.values()) for way, own in values.items()}, unit, ticks)
    axes.set_xlabel(f"{what} {' and '.join(names)} subscriber{'s' * (counts[-1] > 1)}")


def _latency(axes: Any, rows: Sequence[Row]) -> None:
    """p50, p99 and p99.9 at the lowest rate."""
    rate = min(row.rate for row in rows)
    values = {row.way: [Spread(*[each] * 3) for each in row.percentiles.values()] for row in rows if row.rate == rate}
    axes.set_title(f"{rows[0].mode}: time to the handler")
    _dots(axes, values, 1e-6, SECONDS)
    first, *others = rows[0].percentiles
    axes.set_xlabel(f"{rate:,} events a second: {first} (dot), {', '.join(others)}")


def _dots(axes: Any, values: dict[str, list[Spread]], unit: float, ticks: Any) -> None:
    """A line for each way: a dot for the first of its values, circles for the others."""
    for at, (way, colour) in enumerate(colours(list(values)).items()):
        own = [Spread(*(unit * value for value in each)) for each in values[way]]
        axes.plot([each.median for each in own], [at] * len(own), ":", color=colour, linewidth=1)
        for _, low, high in own:
            if low < high:
                axes.plot([low, high], [at, at], color=colour, linewidth=4, alpha=0.4)
        axes.plot(own[0].median, at, "o", color=colour)
        axes.plot([each.median for each in own[1:]], [at] * (len(own) - 1), "o", color=colour, fillstyle="none")
    axes.set_yticks(range(len(values)), list(values))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(values) - 0.5, -0.5)
    _logarithmic(axes.xaxis, ticks)


def _logarithmic(axis: Any, ticks: Any) -> None:
    """Powers of ten, and at least one of them. Values of 0 or less stand at the edge; without others, it is linear."""
    high = axis.get_data_interval()[1]
    if high > 0:
        low = axis.get_minpos()
        set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
        set_scale("log")
        axis.set_view_interval(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), ignore=True)
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(ticks)  # the scale has set its own


def _scaling(axes: Any, rows: Sequence[Row]) -> None:
    """The time for an event against the number of subscribers (solid) and of types (dashed)."""
    for way, colour in colours(list(dict.fromkeys(row.way for row in rows))).items():
        own = sorted((row for row in rows if row.way == way), key=lambda row: row.key)
        for style, points in (
            ("o-", [(row.subscribers, row.spread.median * 1e-9) for row in own if row.types == 1]),
            ("o--", [(row.types, row.spread.median * 1e-9) for row in own if row.subscribers == 1]),
        ):
            if len(points) > 1:
                label = way if style == "o-" else None
                axes.plot(*zip(*points, strict=True), style, color=colour, markersize=3, label=label)
    _logarithmic(axes.xaxis, NUMBERS)
    _logarithmic(axes.yaxis, SECONDS)
    axes.set_title(f"{rows[0].mode}: time for an event")
    axes.set_xlabel("number of subscribers (solid), of types (dashed)")
    axes.set_ylim(top=axes.get_ylim()[1] * 30)  # room for the legend
    axes.legend(fontsize=7, frameon=False, loc="upper left")
