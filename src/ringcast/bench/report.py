"""Shows results in the terminal, with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ringcast.bench.results import Results, Verdict
from ringcast.bench.tables import LEGEND, number, origin, tables


def show(results: Results, console: Console) -> None:
    """Print a table for each section and mode, what was skipped, and what speaks against the figures."""
    console.print(origin(results), highlight=False)
    for title, columns, rows in tables(results):
        table = _table(title, columns)
        for way, cells in rows:
            table.add_row(way, *cells)
        console.print(table)
    if results.rows:
        console.print(LEGEND)
    for name, why in results.skipped.items():
        console.print(f"skipped: {name}: {why}", style="yellow", markup=False)
    for warning in results.warnings:
        console.print(f"NOISY MACHINE: {warning}", style="bold red", markup=False)


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def show_comparison(verdicts: Sequence[Verdict], old: Results, new: Results, bound: float, console: Console) -> None:
    """Print what has become slower or faster, and what makes that doubtful."""
    table = _table(f"since ringcast {old.ringcast}", ["before", "now", "change", ""])
    for each in sorted(verdicts, key=lambda verdict: -verdict.change):
        if each.verdict != "same":
            style = "bold red" if each.verdict == "slower" and each.key.ours else ""
            change, unit = f"{each.change:+.0%}", each.unit
            table.add_row(
                str(each.key),
                f"{number(each.old)} {unit}",
                f"{number(each.new)} {unit}",
                change,
                each.verdict,
                style=style,
            )
    if table.row_count:
        console.print(table)
    same = sum(each.verdict == "same" for each in verdicts)
    console.print(f"{same} of {len(verdicts)} rows that both have are the same within {bound:.0%} and their spread.")
    for name, was in old.machine.items():
        if new.machine.get(name) != was:
            console.print(
                f"DOUBTFUL: {name} was {was!r} and is {new.machine.get(name)!r}", style="bold red", markup=False
            )
    if old.reference and new.reference and abs(new.reference / old.reference - 1) > bound:
        was_ns, is_ns = number(old.reference), number(new.reference)
        console.print(
            f"DOUBTFUL: the machine has another speed: a loop in plain Python took {was_ns} ns and now takes {is_ns}",
            style="bold red",
            markup=False,
        )
