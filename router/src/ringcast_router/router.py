"""The router as a whole: puts the parts together, reads the configuration again, and brings everything to its end."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from ringcast import CloseTimeoutError, Dispatcher

from ringcast_router import logs as router_logs
from ringcast_router.config import Config, ConfigError, keep
from ringcast_router.config.model import Model
from ringcast_router.errors import Refused
from ringcast_router.events import ConfigReloaded, ModelPreloaded
from ringcast_router.owner import Owner
from ringcast_router.planning import make_planner
from ringcast_router.processes import Guard, Process, State
from ringcast_router.processes.process import Changed
from ringcast_router.scheduling import make_scheduler

log = logging.getLogger(__name__)

LAST_LINES = 2.0
"""Seconds that the copy of the logs to the standard output has at the end: nobody may be reading it."""


class Router:
    """A router without its HTTP front: configuration, dispatcher, logs, owner and servers. Event loop's thread only.

    Args:
        read: Reads the configuration; called now, and again by each `reload`. It may raise `ConfigError`.

    Attributes:
        config: The configuration in force.
        bus: All events of `events.py` but `LogLines` are published here.
        log_bus: `LogLines` are published here. A dispatcher holds what a policy has dropped until its own queue is
            full; this one's is short, as output is large.
        logs: The output of the servers, and the router's own log.
        owner: Takes requests and gives them their servers.
        closing: Set when the router begins to shut down; endless answers end then.
        started_at: When this router was made, in seconds since the epoch.

    Raises:
        ConfigError: The configuration cannot be used.
    """

    def __init__(self, read: Callable[[], Config]) -> None:
        self._read = read
        self.config = read()
        self.bus = Dispatcher()
        self.log_bus = Dispatcher(max_queue=router_logs.MAX_QUEUE, exit_timeout=0)
        self.logs = router_logs.LogStore(self.log_bus)
        self.closing = asyncio.Event()
        self.started_at = time.time()
        self._guard = Guard()
        self._reloading = asyncio.Lock()
        self._preload: asyncio.Task[None] | None = None
        scheduler = make_scheduler(self.config, make_planner(self.config))
        self.owner = Owner(self.config, scheduler, self._make_process, self.bus)

    @property
    def processes(self) -> Mapping[str, Process]:
        """The server of each model."""
        return self.owner.processes

    async def start(self) -> None:
        """Start what runs beside requests: the guard that leaves no orphans, and the preload. Call once."""
        router_logs.configure(self.config, self.logs)
        for warning in self.config.warnings:
            log.warning("%s", warning)
        await self._guard.start()
        self._preload = asyncio.create_task(self._load_first(self.config.preload), name="preload")

    async def load(self, model: str) -> None:
        """Load a model as a request would, and wait until it is ready.

        Raises:
            Refused: It is unknown, did not start, or the router is shutting down.
        """
        self.owner.load(model)
        request = self.owner.submit(model)
        try:
            await request.granted()
        finally:
            request.end()

    async def unload(self, models: Iterable[str] | None = None) -> None:
        """Unload these models (None: all), and wait until their servers are stopped. Delays nobody else's request."""
        names = [name for name in (self.processes if models is None else models) if name in self.processes]
        processes = [self.processes[name] for name in names]
        self.owner.unload(names)
        await asyncio.gather(*(process.stop(reason="unloaded") for process in processes))

    async def reload(self, *, asked: bool = True) -> ConfigReloaded:
        """Read the configuration again and put it in force. A bad one changes nothing.

        Args:
            asked: Somebody asked for it. Where only a file has changed, one that has lost all models is taken for one
                that is being written, or lost, and is bad.

        Returns:
            What became of it, as it is published: `error` is "" or says why the old configuration stays.
        """
        async with self._reloading:
            kept: frozenset[str] = frozenset()
            drained: tuple[str, ...] = ()
            error = ""
            try:
                new = await asyncio.to_thread(self._read)
                if not asked and self.config.models and not new.models:
                    raise ConfigError(
                        "it has no models any more: is it being written? SIGHUP or POST /api/reload puts it in force"
                    )
                live = {one.model.port for one in self.processes.values() if one.state is not State.STOPPED}
                new, kept = await asyncio.to_thread(keep, self.config, new, live)  # it may build all models again
                if new.scheduler != self.config.scheduler:
                    make_scheduler(new, make_planner(new))  # one that cannot be had is found out now
                    log.warning("the scheduler %r takes effect at the next start", new.scheduler)
                drained = self.owner.reload(new, kept)
            except ConfigError as failure:
                error = str(failure)
                log.error("the configuration stays as it was: %s", error)
            except Exception as failure:
                error = f"it cannot be put in force: {type(failure).__name__}: {failure}"
                log.exception("the configuration stays as it was: %s", error)
            else:
                self.config = new
                router_logs.configure(new, self.logs)
                log.info("configuration read again: %d models kept, %d drained", len(kept), len(drained))
            event = ConfigReloaded(tuple(sorted(kept)), drained, error, time.time())
            self.bus.publish(event)
            return event

    def shutdown(self) -> None:
        """Begin to shut down: what waits is refused, endless answers end; requests in flight go on."""
        self.closing.set()
        if self._preload is not None:
            self._preload.cancel()
        self.owner.shutdown()

    async def close(self) -> None:
        """Stop all servers, and return when no child is left. Calls `shutdown` first."""
        self.shutdown()
        if self._preload is not None:
            await asyncio.gather(self._preload, return_exceptions=True)
        await self.owner.close()
        await self._guard.close()
        await self.bus.aclose()
        with contextlib.suppress(CloseTimeoutError):
            await self.log_bus.aclose(LAST_LINES)

    def _make_process(self, model: Model, changed: Changed) -> Process:
        return Process(model, logs=self.logs, changed=changed, guard=self._guard)

    async def _load_first(self, models: Iterable[str]) -> None:
        """Load what the configuration names, one after another."""
        for model in models:
            try:
                await self.load(model)
            except Refused as failure:
                log.error("preload of %s: %s", model, failure.message)
            state = self.processes[model].state if model in self.processes else State.STOPPED
            self.bus.publish(ModelPreloaded(model, state is State.READY, time.time()))
