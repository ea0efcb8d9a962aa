"""What the router publishes on its `ringcast.Dispatcher`: one frozen dataclass for each kind of change.

Times called `at` are seconds since the epoch, as of `time.time`; durations are in seconds. The owner publishes and
never waits: readers subscribe with a policy that drops (`latest` with `key=` the model for states, `drop_oldest` for
logs).
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelStateChanged:
    """A model's server went from one state to another. States are those of `processes.State`."""

    model: str
    old: str
    new: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class RequestQueued:
    """A request waits for its model: for a swap, or for a place."""

    request: int
    model: str
    at: float


@dataclass(frozen=True, slots=True)
class RequestGranted:
    """A request may be passed on to its model's server, after `waited` seconds."""

    request: int
    model: str
    waited: float
    at: float


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """A request has left the router.

    `outcome` is `served`, `refused` (answered with an error of the router) or `left` (its client went before the
    grant). `status` is the HTTP status that the client got, 0 where the client got none.
    """

    request: int
    model: str
    outcome: str
    status: int
    at: float


@dataclass(frozen=True, slots=True)
class InFlightChanged:
    """How many granted requests of a model have not ended, and how many wait."""

    model: str
    in_flight: int
    waiting: int
    at: float


@dataclass(frozen=True, slots=True)
class SwapStarted:
    """The servers of `evict` are being stopped, then the server of `model` is started.

    `request` is the id of the request that asked, or 0 for a load that no request asked for; `rule` says by which rule
    of the planner the evicted ones were chosen, `cost` what that rule counted.
    """

    ticket: int
    model: str
    evict: tuple[str, ...]
    request: int
    rule: str
    cost: float
    at: float


@dataclass(frozen=True, slots=True)
class SwapFinished:
    """A swap ended after `seconds`: the model is ready, or `error` says why not."""

    ticket: int
    model: str
    error: str
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """A new configuration is in force, or `error` says why the old one stays."""

    kept: tuple[str, ...]
    drained: tuple[str, ...]
    error: str
    at: float


@dataclass(frozen=True, slots=True)
class LogLines:
    """Output that arrived. `source` is `proxy` for the router's own lines, else the model's id."""

    source: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ModelPreloaded:
    """A model that the configuration names under `hooks.on_startup.preload` was loaded, or could not be."""

    model: str
    success: bool
    at: float


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """Another profile, or none (""), is active."""

    active: str
    pins: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0
