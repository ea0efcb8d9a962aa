"""The planner `group`: models that exclude one another because of the groups that they are in."""

from functools import lru_cache

from ringcast_router.config.model import Config, Group
from ringcast_router.planning.interface import Plan, View

DEFAULT_GROUP = "(default)"  # of the models that no group names


class GroupPlanner:
    """Evicts by two rules: members of a group with `swap` take turns, and a group with `exclusive` wants to be alone.

    Exclusive is a property of the *target's* group: loading a model of an exclusive group evicts the others, loading
    another model beside a running exclusive one does not. The original router has this one-way meaning, and
    configurations rely on it. `persistent` protects a group from others, not its members from one another.

    A model that no group names is in the group `(default)`, with `swap` and `exclusive`.
    """

    by_running = True

    def __init__(self, config: Config) -> None:
        default = config.groups.get(DEFAULT_GROUP, Group())
        self._default = (DEFAULT_GROUP, default)
        self._group_of = {member: (name, group) for name, group in config.groups.items() for member in group.members}
        self._plan = lru_cache(maxsize=4096)(self._make_plan)

    def plan(self, target: str, view: View) -> Plan:
        """Return what must go so that `target` can be loaded, by the groups alone; nothing has a cost."""
        return self._plan(target, view.running)

    def _make_plan(self, target: str, running: tuple[str, ...]) -> Plan:
        rules = {model: rule for model in running if model != target and (rule := self._rule(target, model))}
        return Plan(evict=tuple(sorted(rules)), rule=rules)

    def _rule(self, target: str, other: str) -> str:
        """Return the rule by which `other` must go for `target`; "" where it may stay."""
        name, group = self._group_of.get(target, self._default)
        other_name, other_group = self._group_of.get(other, self._default)
        if name == other_name:
            return f"swap in group {name}" if group.swap else ""
        return f"group {name} is exclusive" if group.exclusive and not other_group.persistent else ""
