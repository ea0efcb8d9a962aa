"""The model servers: child processes that are started, watched and stopped."""

from ringcast_router.processes.guard import Guard
from ringcast_router.processes.process import Changed, Process
from ringcast_router.processes.state import State

__all__ = ["Changed", "Guard", "Process", "State"]
