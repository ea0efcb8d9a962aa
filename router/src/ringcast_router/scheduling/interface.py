"""What a scheduler is: events in, effects out, time as an argument. No clock, no I/O, no asyncio."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a scheduler sees it.

    `arrival` is in seconds of the clock of `now`, and never below that of a request that came before. A larger
    `priority` goes first.
    """

    id: int
    model: str
    arrival: float
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The request may be passed on to its model's server now. Ends with `on_serve_done`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Reject:
    """The request is answered with an error and forgotten.

    `code` is one of `model_not_found` (404), `queue_full` (429), `concurrency_limit` (429), `queue_timeout` (503),
    `start_failed` (500 in fifo, 503 in fair), `backoff` (503), `unloaded` (500), `never_fits` (422), `removed` (404),
    `planner_failed` (500), `shutting_down` (503). `retry_after` is in seconds, None where no other try makes sense.
    """

    request: Request
    status: int
    code: str
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class StartSwap:
    """Stop the models of `evict`, wait until all are stopped, then start `model`. Ends with `on_swap_done(ticket)`.

    `evict` may hold models that are stopping already: only the wait is left for these. `request` asked for it, None
    for a load that no request asked for.
    """

    ticket: int
    model: str
    evict: tuple[str, ...]
    request: Request | None
    rule: Mapping[str, str]
    cost: float = 0.0
    set: str = ""


@dataclass(frozen=True, slots=True)
class AbortSwap:
    """The swap is over for the scheduler: its target must not become ready. Its ticket is dead from now on."""

    ticket: int
    model: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop these models; nothing waits for it. `on_state` tells when each is stopped."""

    models: tuple[str, ...]


Effect = Grant | Reject | StartSwap | AbortSwap | Stop


class Scheduler(Protocol):
    """Decides who is served, and which model is loaded when.

    All methods are called by one thread, the owner's; none waits. Each returns the effects in the order in which they
    must be carried out. `now` never goes back. States are those of `processes.State`, as words.
    """

    def on_request(self, request: Request, now: float) -> list[Effect]:
        """A request arrived."""
        ...

    def on_cancel(self, request_id: int, now: float) -> list[Effect]:
        """The client of a request that was not granted has gone. Unknown ids change nothing."""
        ...

    def on_swap_done(self, ticket: int, error: str, now: float, seconds: float = 0.0) -> list[Effect]:
        """A swap ended: `error` is "" and the model ready, or says why not. A dead ticket changes nothing."""
        ...

    def on_serve_done(self, request_id: int, now: float) -> list[Effect]:
        """A granted request has ended, in whatever way."""
        ...

    def on_state(self, model: str, state: str, now: float) -> list[Effect]:
        """A server changed its state, whether by itself (crash) or because it was told to: each transition is reported.

        A server that was told to stop holds its memory until "stopped" is reported: its model is not started before.
        """
        ...

    def on_load(self, model: str, now: float) -> list[Effect]:
        """Somebody asked that `model` be loaded without a request (preload, the page's button)."""
        ...

    def on_unload(self, models: Iterable[str], now: float) -> list[Effect]:
        """Somebody asked that these models be unloaded; those waiting for them are told."""
        ...

    def on_reload(self, config: object, keep: frozenset[str], now: float) -> list[Effect]:
        """Another `config.model.Config` is in force. Servers of models not in `keep` must go; see the owner."""
        ...

    def on_tick(self, now: float) -> list[Effect]:
        """The time of `wake_at` has come."""
        ...

    def on_shutdown(self, now: float) -> list[Effect]:
        """The router ends: whatever waits is told."""
        ...

    def wake_at(self) -> float | None:
        """Return the next time at which an answer can change by itself, or None."""
        ...

    def position(self, request_id: int) -> int:
        """Return the place in the queue of a waiting request, from 1; 0 where it does not wait."""
        ...

    def waiting(self, model: str) -> int:
        """Return how many requests wait for `model`."""
        ...

    def in_flight(self, model: str) -> int:
        """Return how many granted requests of `model` have not ended."""
        ...

    def explain(self, model: str, now: float) -> dict[str, object]:
        """Return what a request for `model` would meet now, in the shape of `GET /api/plan`; changes nothing."""
        ...
