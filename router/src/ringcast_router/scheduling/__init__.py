"""Schedulers: who is served, and which model is loaded when."""

from ringcast_router import plugins
from ringcast_router.config.model import Config
from ringcast_router.planning.interface import Planner
from ringcast_router.scheduling.fair import FairScheduler
from ringcast_router.scheduling.fifo import FifoScheduler
from ringcast_router.scheduling.interface import Scheduler

__all__ = ["FairScheduler", "FifoScheduler", "Scheduler", "make_scheduler"]


def make_scheduler(config: Config, planner: Planner) -> Scheduler:
    """Return the scheduler that the configuration names: `fair`, `fifo`, or one of somebody's own.

    Raises:
        ConfigError: There is no such scheduler.
    """
    with plugins.placed(config):
        kind = plugins.find(config.scheduler, {"fair": FairScheduler, "fifo": FifoScheduler}, "scheduler")
        scheduler: Scheduler = plugins.make(kind, config.scheduler, "scheduler", Scheduler, config, planner)
        return scheduler
