"""What a scheduler knows of the model servers: their states, the swaps under way, and what was measured."""

import math
from dataclasses import dataclass, field

from ringcast_router.scheduling.waiting import Waiter, WaitingList

STOPPED, STARTING, READY, STOPPING = "stopped", "starting", "ready", "stopping"
DEMAND_TIME = 300.0  # seconds after which a request counts 1/e in the demand
NEW_SHARE = 0.5  # of the newest load in the measured load time


@dataclass(slots=True, eq=False)
class Swap:
    """A swap under way.

    Attributes:
        evict: What the plan evicts. What was stopping already is not in it: that may be asked for again meanwhile.
        joined: The waiters that its end answers (fifo alone).
        was_ready: The server was reported ready; it may have stopped again before the end of the swap is told.
    """

    ticket: int
    model: str
    evict: tuple[str, ...]
    began: float
    joined: list[Waiter] = field(default_factory=list)
    was_ready: bool = False


@dataclass(slots=True, eq=False)
class Server:
    """One model's server, and who waits for it.

    Attributes:
        id: The model's id.
        state: As it was reported last, one of `processes.State`.
        leaving: A stop was ordered and has not come to its end: the server holds its memory, and serves nobody new.
        draining: A reload has changed the model: the server stops when its requests in flight have ended.
        swap: The swap that loads the model, if one is under way.
        ready_at: When it became ready; `last_end`: when a request ended last.
        batch: Those who waited when it became ready: they are granted before it may be evicted (fair alone).
        failures: Loads that failed in a row; `retry_at`: before that time no other is tried (fair alone).
        held_up: A waiter could have been placed, had the old server been gone (fifo alone).
    """

    id: str
    state: str = STOPPED
    leaving: bool = False
    draining: bool = False
    in_flight: int = 0
    ready_at: float = 0.0
    last_end: float = -math.inf
    swap: Swap | None = None
    queue: WaitingList = field(default_factory=WaitingList)
    batch: dict[int, Waiter] = field(default_factory=dict)
    failures: int = 0
    retry_at: float = 0.0
    error: str = ""
    held_up: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether requests may be passed on to it."""
        return self.state == READY and not self.leaving and not self.draining and self.swap is None

    @property
    def is_running(self) -> bool:
        """Whether planners count it: it is there and nobody has told it to go, or it is coming."""
        return self.swap is not None or (self.state != STOPPED and not self.leaving)

    @property
    def waiting(self) -> int:
        """How many requests and loads wait for it."""
        return len(self.queue) + (len(self.swap.joined) if self.swap is not None else 0)

    def leave(self) -> None:
        """Note that a stop was ordered."""
        self.leaving = self.state != STOPPED
        self.draining = False
        self.batch.clear()


class Measures:
    """Load times and demand of the models, as measured; both forget."""

    def __init__(self) -> None:
        self.load_time: dict[str, float] = {}
        self._demand: dict[str, tuple[float, float]] = {}  # the value, and as of when

    def loaded(self, model: str, seconds: float) -> None:
        """Note that a load took `seconds`."""
        before = self.load_time.get(model, seconds)
        self.load_time[model] = before + NEW_SHARE * (seconds - before)

    def asked(self, model: str, now: float) -> None:
        """Note that a request asked for a model."""
        value, at = self._demand.get(model, (0.0, now))
        self._demand[model] = value * math.exp((at - now) / DEMAND_TIME) + 1 / DEMAND_TIME, now

    def demand(self, now: float) -> dict[str, float]:
        """Return the requests per second that asked for each model lately."""
        return {model: value * math.exp((at - now) / DEMAND_TIME) for model, (value, at) in self._demand.items()}

    def forget(self, model: str) -> None:
        """Drop what is known of a model that is no more."""
        self.load_time.pop(model, None)
        self._demand.pop(model, None)
