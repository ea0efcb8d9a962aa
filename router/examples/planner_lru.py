"""A planner of one's own: at most three models are loaded; the one that became ready first goes first.

The configuration names it by `ringcast: {router: "planner_lru:Oldest"}`, with this folder on PYTHONPATH.
"""

from ringcast_router.config.model import Config
from ringcast_router.planning.interface import Plan, View

MOST = 3


class Oldest:
    """Evicts what has been ready for longest, idle models before busy ones."""

    def __init__(self, config: Config) -> None:
        self.pinned = {model.id for model in config.models.values() if model.pinned}

    def plan(self, target: str, view: View) -> Plan:
        """Return what must go for `target`."""
        others = [model for model in view.running if model not in (target, *self.pinned)]
        others.sort(key=lambda model: (model in view.inflight, view.ready_at.get(model, view.now)))
        too_many = len(set(view.running) | {target}) - MOST
        evict = sorted(others[: max(0, too_many)])
        return Plan(tuple(evict), dict.fromkeys(evict, f"ready for longest of {MOST}"))
