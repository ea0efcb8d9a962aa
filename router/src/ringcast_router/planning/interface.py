"""What a planner is: it says which models must go so that another can be loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

NOTHING: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """Return the empty mapping: a default of a field, which before Python 3.12 may not be `NOTHING` itself."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class View:
    """What a planner may look at. One view serves a whole pass of the scheduler, so answers do not flip within it.

    Attributes:
        running: The models whose servers are not stopped, and the targets of swaps under way; sorted.
        ready_at: For each ready model, when it became ready.
        inflight: For each model, how many granted requests have not ended; a model without any is left out.
        load_time: For each model that was loaded before, how many seconds its load takes, as measured.
        demand: For each model, how many requests per second asked for it lately (a decaying average).
        now: The time of this pass, in seconds, of the same clock as `ready_at`.
    """

    running: tuple[str, ...] = ()
    ready_at: Mapping[str, float] = field(default_factory=nothing)
    inflight: Mapping[str, int] = field(default_factory=nothing)
    load_time: Mapping[str, float] = field(default_factory=nothing)
    demand: Mapping[str, float] = field(default_factory=nothing)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What must go for a target, and why.

    Attributes:
        evict: The models to stop, sorted. Never contains the target.
        rule: For each evicted model, the rule that chose it, in a few words.
        set: The name of the matrix set that was chosen; "" elsewhere.
        target_set: The models that may run together after the swap, where the planner knows them; sorted.
        cost: What the planner counted; 0 where it counts nothing.
    """

    evict: tuple[str, ...] = ()
    rule: Mapping[str, str] = field(default_factory=nothing)
    set: str = ""
    target_set: tuple[str, ...] = ()
    cost: float = 0.0


class Planner(Protocol):
    """Says what must go for a target. Pure: the same view gives the same plan; it is asked speculatively and often.

    A planner that looks at `view.running` alone may say so by a class attribute `by_running = True`: its plans are then
    kept until something starts or stops, and deciding costs less.

    A planner of one's own is a class with this method; its constructor is given the `config.model.Config`. The
    configuration names it as `package.module:Class` (or by an entry point of the group `ringcast_router.planners`).
    """

    def plan(self, target: str, view: View) -> Plan:
        """Return what must go so that `target`, a model's id, can be loaded (or stay)."""
        ...
