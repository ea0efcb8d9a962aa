"""What machine this is, and whether it is quiet enough to measure on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from ringcast.bench.results import Row
from ringcast.bench.timing import least, per_event, spread

STEADY = 0.05  # how far the quartiles of the reference may be apart, as a part of the median
BUSY = 0.5  # processes that want to run, for each CPU
ROW_NOISY = 0.15  # how far the quartiles of a row may be apart
ROUNDS = 20_000  # of the reference loop: about a millisecond


def describe() -> dict[str, str]:
    """The machine and the interpreter, as text by name. Rows of two runs compare only where these are the same."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "processor": _processor(),
        "cpus": str(cpus()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}{'' if gil else ', free-threaded'}",
    }


def cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def load_average() -> float | None:
    """Processes that want to run, the mean of the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def reference() -> float:
    """How many ns a round of a loop in plain Python takes, the least of three: always the same if nothing disturbs."""

    def run() -> None:
        for _ in range(ROUNDS):
            pass

    return least(lambda: per_event(run, ROUNDS), 3)


class Watch:
    """Looks at the machine before and between the measurements."""

    def __init__(self) -> None:
        self._before = load_average()
        self._taken = [reference()]

    def look(self) -> None:
        """Times the reference once more."""
        self._taken.append(reference())

    @property
    def median(self) -> float:
        """How many ns a round of the reference loop took."""
        return spread(self._taken).median

    def warnings(self, rows: list[Row]) -> list[str]:
        """What speaks against trusting the rows; nothing on a quiet machine."""
        return noise(self._before, cpus(), self._taken, rows)


def noise(busy: float | None, processors: int, references: list[float], rows: list[Row]) -> list[str]:
    """Judge what a Watch has seen.

    Args:
        busy: the load average before the start.
        processors: how many CPUs there are.
        references: what the reference loop took, in ns.
        rows: what was measured meanwhile.

    Returns:
        A sentence for each thing that is wrong.
    """
    found = []
    if busy is not None and busy > BUSY * processors:
        found.append(f"other programs were running: load average {busy:.1f} on {processors} CPUs before the start")
    steady = spread(references).relative
    if steady > STEADY:
        found.append(
            f"the machine's speed changed: a loop in plain Python spread by {steady:.0%} (quiet: below {STEADY:.0%})"
        )
    wide = [row for row in rows if len(row.values) > 1 and row.spread.relative > ROW_NOISY]
    if len(wide) > len(rows) / 4:
        found.append(f"{len(wide)} of {len(rows)} rows spread by more than {ROW_NOISY:.0%}")
    return found
