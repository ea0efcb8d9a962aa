"""What the schedulers would make of a load: the shipped schedulers and planners, in virtual time."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ringcast_router.config.model import Config
from ringcast_router.planning import make_planner
from ringcast_router.scheduling import make_scheduler
from ringcast_router.simulation.traces import Trace, agents, bursts, read, zipf
from ringcast_router.simulation.world import Costs, Job, World

__all__ = ["Costs", "Job", "Report", "Trace", "World", "agents", "bursts", "compare", "read", "run", "zipf"]

COMPARED = ("fifo", "fair")


@dataclass(frozen=True)
class Report:
    """What a scheduler made of a load. Times are in seconds of virtual time.

    Attributes:
        scheduler: Its name.
        requests: How many requests came; `served`: were granted; `refused`: were refused, by code.
        swaps: How many swaps there were.
        loading: How long swaps took, all together.
        duration: From the beginning to the end of the last request.
        waits: How long each request that was served had waited, the shortest first.
    """

    scheduler: str
    requests: int
    served: int
    refused: dict[str, int]
    swaps: int
    loading: float
    duration: float
    waits: Sequence[float]

    def wait(self, share: float) -> float:
        """Return the wait that `share` (0 to 1) of the served requests did not exceed; 0 where none was served."""
        if not self.waits:
            return 0.0
        return self.waits[max(0, math.ceil(share * len(self.waits)) - 1)]

    @property
    def throughput(self) -> float:
        """Requests served per second."""
        return self.served / self.duration if self.duration else 0.0

    def rows(self) -> list[tuple[str, str]]:
        """Return names and values, for people."""
        refused = ", ".join(f"{count} {code}" for code, count in sorted(self.refused.items())) or "0"
        return [
            ("requests", str(self.requests)),
            ("served", str(self.served)),
            ("refused", refused),
            ("swaps", str(self.swaps)),
            ("loading", f"{self.loading:.1f} s"),
            ("duration", f"{self.duration:.1f} s"),
            ("served per second", f"{self.throughput:.3f}"),
            ("wait, median", f"{self.wait(0.5):.2f} s"),
            ("wait, 99 of 100", f"{self.wait(0.99):.2f} s"),
            ("wait, longest", f"{self.wait(1):.2f} s"),
        ]

    def __str__(self) -> str:
        return table(["", self.scheduler], [list(row) for row in self.rows()])


def run(config: Config, trace: Trace, scheduler: str | None = None) -> Report:
    """Play a load.

    Args:
        config: The models and what may run together. Ports and commands do not matter.
        trace: The load.
        scheduler: The scheduler's name; by default the one that the configuration names.

    Raises:
        ConfigError: There is no such scheduler or planner.
    """
    config = replace(config, scheduler=scheduler or config.scheduler)
    world = World(make_scheduler(config, make_planner(config)), trace.costs)
    world.add(trace.jobs)
    for jobs in trace.agents:
        world.add_agent(iter(jobs))
    world.run()
    waits = sorted(visit.granted - visit.came for visit in world.visits if visit.granted is not None)
    return Report(
        scheduler=config.scheduler,
        requests=len(world.visits),
        served=len(waits),
        refused=dict(Counter(visit.code for visit in world.visits if visit.code)),
        swaps=world.swaps,
        loading=world.loading,
        duration=max((visit.ended for visit in world.visits if visit.ended is not None), default=0.0),
        waits=waits,
    )


def compare(config: Config, trace: Trace, schedulers: Sequence[str] = COMPARED) -> str:
    """Play a load with several schedulers; return a table for people."""
    reports = [run(config, trace, scheduler) for scheduler in schedulers]
    names = [name for name, _ in reports[0].rows()]
    rows = [[name, *(report.rows()[index][1] for report in reports)] for index, name in enumerate(names)]
    return table(["", *(report.scheduler for report in reports)], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with its columns under one another, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
