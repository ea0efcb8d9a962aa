"""The planner `matrix`: named families of models that may run together, and what each costs to evict."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ringcast_router.config.model import Config, Matrix
from ringcast_router.planning import sets
from ringcast_router.planning.interface import Plan, View


class MatrixPlanner:
    """Evicts the cheapest models such that what stays, with the target, is part of an allowed set.

    A set allows its members and any part of them to run together. Among equal costs the first set wins: in the order of
    `sets.resolve`, and inside an expression from left to right. (But a part inside another one is left out early, as in
    llama-swap, though a later `&` could have made both equal.) A target that is in no set runs alone. For a target that
    runs already nothing is evicted.

    The families are never written out: a query looks only at the models that run and the target, where most sets of a
    family are the same, and each part of an expression keeps one set of those.

    Raises:
        ConfigError: The sets of the matrix are wrong (constructor).
    """

    by_running = True

    def __init__(self, config: Config) -> None:
        matrix = config.matrix or Matrix()
        self._sets = sets.resolve(matrix.sets, matrix.vars, config.models)
        self._costs = matrix.evict_costs
        self._bits: dict[str, int] = {}  # a set of models is an int with one bit for each
        for expression in self._sets.values():
            for leaf in sets.leaves(expression):
                if isinstance(leaf, sets.Name):
                    self._bit(leaf.name)
        self._plan = lru_cache(maxsize=4096)(self._make_plan)

    def plan(self, target: str, view: View) -> Plan:
        """Return what must go so that `target` can be loaded; `cost` is the sum of the evict costs."""
        return self._plan(target, view.running)

    def _make_plan(self, target: str, running: tuple[str, ...]) -> Plan:
        if target in running:
            name, _ = self._first_with(running)
            return Plan(set=name, target_set=tuple(sorted(running)))
        best: tuple[int, str, int] | None = None
        relevant = self._mask([*running, target])
        families: dict[str, list[int]] = {}
        for name, expression in self._sets.items():
            families[name] = self._family(expression, relevant, families)
            for candidate in families[name]:
                if candidate & self._bits.get(target, 0):
                    cost = sum(self._costs.get(m, 1) for m in running if not candidate & self._bits.get(m, 0))
                    if best is None or cost < best[0]:
                        best = (cost, name, candidate)
        if best is None:
            rules = dict.fromkeys(running, f"no set holds {target}: it runs alone")
            return Plan(evict=tuple(sorted(running)), rule=rules, target_set=(target,))
        total, name, allowed = best
        evict = tuple(sorted(m for m in running if not allowed & self._bits.get(m, 0)))
        rules = dict.fromkeys(evict, f"not in set {name}")
        members = tuple(sorted(model for model, bit in self._bits.items() if allowed & bit))
        return Plan(evict, rules, name, members, total)

    def can_run_together(self, models: Iterable[str]) -> bool:
        """Return whether one set allows all of `models`."""
        return self._first_with(models)[0] != ""

    def _first_with(self, models: Iterable[str]) -> tuple[str, int]:
        """Return the name of the first set that allows all of `models`, and its members; ("", 0) where none does."""
        wanted = list(models)
        if any(model not in self._bits for model in wanted):
            return "", 0
        relevant = self._mask(wanted)
        families: dict[str, list[int]] = {}
        for name, expression in self._sets.items():
            families[name] = self._family(expression, relevant, families)
            for candidate in families[name]:
                if candidate & relevant == relevant:
                    return name, candidate
        return "", 0

    def _family(self, expression: sets.Expression, relevant: int, families: Mapping[str, list[int]]) -> list[int]:
        """Return the sets of an expression, one of those that agree in the relevant models, and none inside another."""
        match expression:
            case sets.Name(name):
                return [self._bits[name]]
            case sets.Reference(name):
                return families[name]
            case sets.Any(parts):
                every = (chosen for part in parts for chosen in self._family(part, relevant, families))
                return _distinct(every, relevant)
            case sets.All(parts):
                family = [0]
                for part in parts:
                    others = self._family(part, relevant, families)
                    family = _distinct((one | other for one in family for other in others), relevant)
                return family

    def _mask(self, models: Iterable[str]) -> int:
        mask = 0
        for model in models:
            mask |= self._bits.get(model, 0)
        return mask

    def _bit(self, model: str) -> int:
        return self._bits.setdefault(model, 1 << len(self._bits))


def _distinct(family: Iterable[int], relevant: int) -> list[int]:
    """Keep the first of the sets that agree in the relevant models; drop those whose relevant part another contains."""
    first: dict[int, int] = {}
    for chosen in family:
        first.setdefault(chosen & relevant, chosen)
    if len(first) < 2:
        return list(first.values())
    # For each model the parts that hold it: those that all models of a part have in common contain that part. So 64
    # are compared at once; comparing each with each takes seconds where a dozen pairs run.
    parts = list(first)
    holders = {
        bit: int("".join("1" if part & bit else "0" for part in reversed(parts)), 2) for bit in _bits_of(relevant)
    }
    return [first[part] for part in parts if _holding(part, holders, len(parts)).bit_count() == 1]


def _holding(part: int, holders: Mapping[int, int], count: int) -> int:
    """Return which of `count` parts hold all models of `part`, itself among them, as an int with one bit for each."""
    holding = (1 << count) - 1
    for bit in _bits_of(part):
        holding &= holders[bit]
    return holding


def _bits_of(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
