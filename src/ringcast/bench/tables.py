"""Results as tables of text, and these as Markdown. The terminal's are in report.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ringcast.bench.results import Results, Row
from ringcast.bench.timing import ratio

TITLES = {
    "throughput": "{mode}: ns for an event that reaches all subscribers",
    "scaling": "{mode}, many subscribers or types: ns for an event that reaches all subscribers",
    "latency": "{mode}: µs from when an event was due to its handler",
    "memory": "{mode}: bytes for an event that waits",
}
LEGEND = (
    "Types x subscribers of each type. Medians of repeats in turn; ± from the median to the further quartile. "
    "x: how many times as much as the first row. The ns include the publisher's loop and a handler that "
    "counts. All events were delivered."
)


class Table(NamedTuple):
    """What one section has on one mode."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    """The way, and a cell for each column."""


def number(value: float) -> str:
    """Three digits, more only before the point; thousands are marked."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def origin(results: Results) -> str:
    """What was measured, and where."""
    machine = results.machine
    return (
        f"ringcast {results.ringcast}, {machine['python']}, {machine['system']}, {machine['processor']}, "
        f"{machine['cpus']} CPUs"
    )


def tables(results: Results) -> Iterator[Table]:
    """A table for each section and mode that there is."""
    for section, title in TITLES.items():
        of_section = [row for row in results.rows if row.section == section]
        for mode in dict.fromkeys(row.mode for row in of_section):
            of_mode = [row for row in of_section if row.mode == mode]
            heading = title.format(mode=mode)
            yield _percentiles(heading, of_mode) if section == "latency" else _medians(heading, of_mode)


def markdown(results: Results) -> str:
    """All tables, with what they mean above, and below what was skipped and what speaks against the figures."""
    parts = [f"{origin(results)}.", LEGEND]
    for title, columns, rows in tables(results):
        parts.append(f"**{title}**")
        lines = [["", *columns], ["---", *["---:"] * len(columns)], *([way, *cells] for way, cells in rows)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"Skipped: {name}: {why}." for name, why in results.skipped.items()]
    parts += [f"Noisy machine: {warning}." for warning in results.warnings]
    return "\n\n".join(parts) + "\n"


def _medians(title: str, rows: Sequence[Row]) -> Table:
    shapes = list(dict.fromkeys((row.types, row.subscribers) for row in rows))
    ways = list(dict.fromkeys(row.way for row in rows))
    cells = {(row.way, (row.types, row.subscribers)): row for row in rows}
    return Table(
        title,
        [f"{types}x{subscribers}" for types, subscribers in shapes],
        [(way, [_cell(cells.get((way, shape)), cells.get((ways[0], shape))) for shape in shapes]) for way in ways],
    )


def _cell(row: Row | None, first: Row | None) -> str:
    if row is None:
        return "-"
    median, low, high = row.spread
    text = f"{number(median)} ±{max(median - low, high - median) / median:.0%}" if median else number(median)
    if first is None or first is row or not all(first.values):
        return text
    return f"{text} x{number(ratio(row.values, first.values))}"


def _percentiles(title: str, rows: Sequence[Row]) -> Table:
    rates = list(dict.fromkeys(row.rate for row in rows))
    names = list(rows[0].percentiles)
    cells = {(row.way, row.rate): row.percentiles for row in rows}
    return Table(
        title,
        [f"{name} at {rate:,}/s" for rate in rates for name in names],
        [
            (way, [number(cells[way, rate][name]) for rate in rates for name in names])
            for way in dict.fromkeys(row.way for row in rows)
        ],
    )
