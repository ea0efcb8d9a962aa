"""Planners: which models must go so that another can be loaded."""

from ringcast_router import plugins
from ringcast_router.config.model import Config
from ringcast_router.planning.group import GroupPlanner
from ringcast_router.planning.interface import Plan, Planner, View
from ringcast_router.planning.matrix import MatrixPlanner

__all__ = ["GroupPlanner", "MatrixPlanner", "Plan", "Planner", "View", "make_planner"]


def make_planner(config: Config) -> Planner:
    """Return the planner that the configuration names: `group`, `matrix`, or one of somebody's own.

    Raises:
        ConfigError: There is no such planner, or the configuration is wrong for it.
    """
    with plugins.placed(config):
        kind = plugins.find(config.router, {"group": GroupPlanner, "matrix": MatrixPlanner}, "planner")
        planner: Planner = plugins.make(kind, config.router, "planner", Planner, config)
        return planner
