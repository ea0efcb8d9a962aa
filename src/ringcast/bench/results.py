"""What was measured: rows, their JSON, and the comparison with older ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ringcast.bench.timing import Spread, spread

FORMAT = 1
UNITS = ("ns/event", "us", "bytes/event")
SECTIONS = ("throughput", "latency", "memory", "scaling")


class ResultsError(Exception):
    """A file has no results that can be read."""


class Key(NamedTuple):
    """What a row measures: the same in an older result."""

    section: str
    mode: str
    way: str
    types: int
    subscribers: int
    rate: int

    @property
    def ours(self) -> bool:
        """Whether it is Ringcast."""
        return self.way.startswith("Ringcast")

    def __str__(self) -> str:
        rate = f", {self.rate}/s" if self.rate else ""
        return f"{self.section}, {self.mode}, {self.way}, {self.types}x{self.subscribers}{rate}"


@dataclass(frozen=True)
class Row:
    """What one way took: a value for each repeat, in `unit`. For latency a value is the median of its repeat."""

    section: str
    mode: str
    way: str
    types: int
    subscribers: int
    """Of each type."""
    unit: str
    values: tuple[float, ...]
    rate: int = 0
    """Events a second that were offered; 0: as many as go."""
    events: int = 0
    """In each repeat."""
    percentiles: dict[str, float] = field(default_factory=dict)
    """Over all repeats, in `unit`."""

    @property
    def key(self) -> Key:
        """What it measures."""
        return Key(self.section, self.mode, self.way, self.types, self.subscribers, self.rate)

    @property
    def spread(self) -> Spread:
        """Median and quartiles of the values."""
        return spread(self.values)


@dataclass(frozen=True)
class Results:
    """All rows of a run, and where they come from."""

    ringcast: str
    """The version."""
    machine: dict[str, str]
    """What machine.describe() says."""
    rows: tuple[Row, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    """Ways that were not measured, and why."""
    warnings: tuple[str, ...] = ()
    """What made the machine noisy."""
    reference: float = 0.0
    """ns for a round of a loop in plain Python, meanwhile: how fast the machine was."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """From JSON.

        Raises:
            ResultsError: it is no file of results, or of another format.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultsError(f"{path} cannot be read: {error}") from None
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
            raise ResultsError(f"{path} has no results of format {FORMAT} of python -m ringcast bench")
        try:
            rows = tuple(_row(row) for row in found.pop("rows"))
            return cls(rows=rows, warnings=tuple(found.pop("warnings")), **found)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{path} has results that are not whole: {error}") from None


def _row(found: dict[str, Any]) -> Row:
    names = {each.name for each in fields(Row)}
    if found.keys() != names:
        raise ValueError(f"a row has {sorted(found)}, not {sorted(names)}")
    row = Row(**{**found, "values": tuple(map(float, found["values"]))})
    if row.section not in SECTIONS or row.unit not in UNITS or not row.values:
        raise ValueError(f"no such row: {row.key}, {row.unit}, {len(row.values)} values")
    return row


class Verdict(NamedTuple):
    """How a row compares with the same of an older run."""

    key: Key
    unit: str
    old: float
    new: float
    verdict: Literal["slower", "faster", "same"]

    @property
    def change(self) -> float:
        """0.1: 10 % more than before."""
        return self.new / self.old - 1


def compare(old: Iterable[Row], new: Iterable[Row], bound: float) -> list[Verdict]:
    """Say what has become slower, faster or larger, and what is new as it was.

    A row is slower if its median is more than `bound` above the old one (0.1: 10 %) and its lower quartile is above the
    old upper one: what lies within the spread of both is the same. Rows that only one of the two has are left out.
    """
    before = {row.key: row for row in old}
    verdicts = []
    for row in new:
        other = before.get(row.key)
        if other is None or other.unit != row.unit:
            continue
        was, now = other.spread, row.spread
        verdict: Literal["slower", "faster", "same"] = "same"
        if now.median > was.median * (1 + bound) and now.low > was.high:
            verdict = "slower"
        elif was.median > now.median * (1 + bound) and was.low > now.high:
            verdict = "faster"
        verdicts.append(Verdict(row.key, row.unit, was.median, now.median, verdict))
    return verdicts
