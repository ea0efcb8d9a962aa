"""One model's server: the states that it goes through, and the task that takes it from one to the next.

A *life* is what lies between two times of being stopped: a child is started, answers, is watched, and is ended. One
task, `_live`, leads each life from its beginning to its end and is the only one that changes the state. Whoever wants
something of it says so (`start`, `stop`) and waits. So a start that meets a stop waits for it, starts that meet share
one child, and a stop ends a start that is on its way.
"""

import asyncio
import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ringcast_router.config.model import Model
from ringcast_router.errors import StartError
from ringcast_router.logs import LogStore, Ring
from ringcast_router.processes import command
from ringcast_router.processes.child import Child
from ringcast_router.processes.guard import Guard
from ringcast_router.processes.health import OK, PATIENCE, Health
from ringcast_router.processes.listeners import who_listens
from ringcast_router.processes.state import State

Changed = Callable[[str, State, State, str], None]

TAIL = 20  # lines of output that an error carries
RECENT = 16 * 1024  # bytes of a life's output kept for that
GRACE_OF_A_START = 5.0  # seconds at most from SIGTERM to SIGKILL for a server that is not ready yet
STOP_COMMAND_LEAST = 2.0  # seconds that a stop command has even where the server is killed at once
LOOK_AT_SETTINGS = 60.0  # seconds after which a server that is not watched may be watched, after a reload
DOUBT = 1.0  # seconds that a server must outlive the first answer where its port was taken before it started
LOOK_AT_PORT = 0.05  # seconds between two looks at a port that is still taken
LET_GO = 2.0  # seconds for which a server waits for its port, which a container may hold for a moment after its end

log = logging.getLogger(__name__)


class _Life:
    """What one life needs beside the process: who waits for it, and whether and how it is to end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stop_asked: asyncio.Future[None] = loop.create_future()
        self.ready: asyncio.Future[StartError | None] = loop.create_future()
        self.reason = ""  # of the stop
        self.grace: float | None = None
        self.recent = Ring(RECENT)
        self.task: asyncio.Task[None] | None = None
        self._deadline = float("inf")
        self._nearer = asyncio.Event()

    @property
    def is_ending(self) -> bool:
        """Whether a stop was asked for."""
        return self.stop_asked.done()

    def decide(self, failure: StartError | None) -> None:
        """Tell those who wait for the start how it went. Only the first call counts."""
        if not self.ready.done():
            self.ready.set_result(failure)

    def ask_to_stop(self, grace: float | None, reason: str) -> None:
        """Have it end. Of several calls the first gives the reason, and the shortest grace counts."""
        if not self.is_ending:
            self.reason = reason
            self.grace = grace
            self.stop_asked.set_result(None)
        if grace is not None:
            self.end_within(grace)

    def end_within(self, seconds: float) -> None:
        """Bring the time of the kill nearer; it is never moved away."""
        if (deadline := time.monotonic() + seconds) < self._deadline:
            self._deadline = deadline
            self._nearer.set()

    def breathe(self) -> None:
        """Begin anew with another child."""
        self.ready = asyncio.get_running_loop().create_future()
        self._deadline = float("inf")

    async def time_is_over(self) -> None:
        """Wait until the time of the kill."""
        while (left := self._deadline - time.monotonic()) > 0:
            self._nearer.clear()
            try:
                async with asyncio.timeout(left):
                    await self._nearer.wait()
            except TimeoutError:
                pass


class _Outcome(NamedTuple):
    """What became of one child: why its start failed (None: it did not), why it ended, whether another follows."""

    failure: StartError | None
    reason: str
    again: bool = False


class Process:
    """One model's server. Event loop's thread only.

    Args:
        model: The model.
        logs: Gets the output of the server, under the model's id.
        changed: Called synchronously at each change: the model's id, the old state, the new one, the reason ("" where
            there is none to tell). It must not raise and must not wait.
        guard: Told of each child, so that none outlives the router.

    Attributes:
        model: The model. `update` replaces it.
        state: The state now.
        ready_at: Since when it is ready, as of `time.monotonic`; None while it is not.
    """

    def __init__(self, model: Model, *, logs: LogStore, changed: Changed, guard: Guard | None = None) -> None:
        self.model = model
        self.state = State.STOPPED
        self.ready_at: float | None = None
        self._logs = logs
        self._changed = changed
        self._guard = guard
        self._life: _Life | None = None
        self._child: Child | None = None
        self._in_flight = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The id of the child, None where there is none."""
        return None if self._child is None else self._child.pid

    def update(self, model: Model) -> None:
        """Replace the model; a server that runs keeps running. What started it must be equal, unless it is stopped."""
        self.model = model

    def begin(self) -> None:
        """Say that a request is being passed on: a server that only fails to answer is taken to be busy meanwhile."""
        self._in_flight += 1

    def end(self) -> None:
        """Say that a request that was begun is over."""
        self._in_flight -= 1

    async def start(self) -> None:
        """Start the server where it does not run, and return when it is ready.

        Cancelling this leaves the start on its way.

        Raises:
            StartError: It did not become ready, was stopped before that, or the process is closed.
        """
        while True:
            if self._closing:
                raise StartError(self.model.id, "the router is shutting down")
            if self._life is None:
                self._life = _Life()
                self._life.task = asyncio.create_task(self._live(self._life), name=f"server of {self.model.id}")
            life = self._life
            if life.is_ending or (self.state is State.READY and not self._child_lives()):
                await self._until_over(life)
                continue
            failure = await asyncio.shield(life.ready)
            if failure is not None:
                raise StartError(failure.model, failure.reason, failure.tail)
            return

    async def stop(self, grace: float | None = None, reason: str = "") -> None:
        """Stop the server, and return when it has ended and its group with it. A start on its way is aborted.

        The stop command, or SIGTERM to the group, comes first; what is left when the grace is over is killed.
        Cancelling this leaves the stop on its way.

        Args:
            grace: Seconds that the server has to end by itself; 0 kills at once. By default the model's
                `unload_timeout`, for a server that is not ready yet 5 s at most. A stop that meets another makes its
                grace shorter, never longer.
            reason: Why, for `changed`.
        """
        if (life := self._life) is not None:
            life.ask_to_stop(grace, reason)
            await self._until_over(life)

    def ask_to_stop(self, reason: str = "") -> None:
        """Ask for a stop as `stop` does, and do not wait. No child is started after this but by another `start`."""
        if self._life is not None:
            self._life.ask_to_stop(None, reason)

    async def close(self) -> None:
        """Stop the server for good. Idempotent."""
        self._closing = True
        await self.stop(reason="the router is shutting down")
        if self.state is not State.SHUTDOWN:
            self._set(State.SHUTDOWN, "")

    def forget_output(self) -> None:
        """Drop what is kept of the server's output: its model is no more."""
        self._logs.forget(self.model.id)

    @staticmethod
    async def _until_over(life: _Life) -> None:
        assert life.task is not None
        await asyncio.wait({life.task})

    def _child_lives(self) -> bool:
        return self._child is not None and not self._child.exited.done()

    def _set(self, state: State, reason: str) -> None:
        old, self.state = self.state, state
        self.ready_at = time.monotonic() if state is State.READY else None
        log.debug("%s: %s -> %s%s", self.model.id, old, state, f" ({reason})" if reason else "")
        try:
            self._changed(self.model.id, old, state, reason)
        except Exception:
            log.exception("%s: whoever was told of %s -> %s failed", self.model.id, old, state)

    # The life of a server. Only its task runs what follows.

    async def _live(self, life: _Life) -> None:
        outcome = _Outcome(None, "", again=True)
        try:
            while outcome.again:
                self._set(State.STARTING, outcome.reason)
                outcome = await self._live_once(life)
        except Exception:
            log.exception("%s: the task of its server failed", self.model.id)
            outcome = self._failed(life, "the router failed to lead its server; its log says why")
        finally:
            self._life = None
            self._set(State.STOPPED, outcome.reason)
            life.decide(outcome.failure or StartError(self.model.id, outcome.reason or "it was stopped"))

    async def _live_once(self, life: _Life) -> _Outcome:
        """Lead one child from its start to its end."""
        model = self.model
        health = Health(model)
        names_port = command.names_port(model, health.port)
        taken = not life.is_ending and (names_port or health.checks) and await health.is_taken()
        try:
            if taken and names_port:
                await self._port_let_go(life, health)
                taken = False
            if life.is_ending:
                return self._failed(life, f"stopped before it was started: {life.reason}")
            child = self._spawn(life)
        except StartError as failure:
            return _Outcome(failure, failure.reason)
        try:
            self._child = child
            if self._guard is not None:
                self._guard.watch(child.pid, command.stop_arguments(model, child.pid), command.environment(model))
            if why := await self._until_ready(child, life, health, taken):
                await self._end(child, life, min(GRACE_OF_A_START, self.model.unload_timeout))
            else:
                self._set(State.READY, "")
                life.decide(None)
                unwell = await self._until_over_or_unwell(child, life, health)
                return await self._end_of_ready(child, life, unwell)
        finally:
            await child.kill()
            self._child = None
            if self._guard is not None:
                self._guard.forget(child.pid)
        return self._failed(life, why)

    async def _end_of_ready(self, child: Child, life: _Life, unwell: str) -> _Outcome:
        """End a child that was ready, because of a stop, by itself, or because it no longer answers."""
        if child.exited.done() and not life.is_ending:
            why = f"the server {child.describe_exit()} by itself"
            log.warning("%s: %s", self.model.id, why)
            return _Outcome(None, why)
        if not life.is_ending:
            log.warning("%s: %s; it is started again", self.model.id, unwell)
            life.breathe()  # whoever asks for a start from now on waits for the next child
        why = life.reason if life.is_ending else unwell
        self._set(State.STOPPING, why)
        await self._end(child, life, self.model.unload_timeout)
        if life.is_ending:
            return _Outcome(None, life.reason)
        return _Outcome(None, why, again=True)

    def _failed(self, life: _Life, why: str) -> _Outcome:
        return _Outcome(StartError(self.model.id, why, life.recent.tail(TAIL)), why)

    async def _port_let_go(self, life: _Life, health: Health) -> None:
        """Wait until nobody listens on the port that the server is going to listen on, or a stop is asked for.

        Who listens once the server has been started is not looked into: in front of a container that is another process
        than the model's, as a rule one of another user or group.

        Raises:
            StartError: Somebody keeps it, who would be taken for the model's server.
        """
        until = time.monotonic() + LET_GO
        while not life.is_ending and await health.is_taken():
            if time.monotonic() > until:
                who = await asyncio.to_thread(who_listens, health.port) or "somebody else"
                why = f"{who} listens on {health.address} already: end that, or give the model another port"
                raise StartError(self.model.id, why)
            await asyncio.wait({life.stop_asked}, timeout=LOOK_AT_PORT)

    def _spawn(self, life: _Life) -> Child:
        model = self.model
        if os.name == "nt":
            raise StartError(model.id, "this version starts model servers on Linux and macOS only")
        arguments = command.start_arguments(model)
        environment = command.environment(model)
        life.recent = recent = Ring(RECENT)

        def sink(data: bytes) -> None:
            recent.write(data)
            self._logs.write(model.id, data)

        try:
            return Child(arguments, environment, sink)
        except (OSError, ValueError) as error:
            raise StartError(model.id, command.why_not_started(arguments[0], error)) from error

    async def _until_ready(self, child: Child, life: _Life, health: Health, taken: bool) -> str:
        """Wait until the server answers.

        Args:
            child: The server.
            life: Its life.
            health: Its health check.
            taken: Somebody listened on its port before it was started, and its command does not name the port. That may
                be the server, to which the command only attaches. Where it is not, the command's own finds its port
                taken, and ends after a while; so it must outlive the first answer.

        Returns:
            "", or why it is not going to be ready.
        """

        async def answer() -> None:
            if health.checks:
                await health.until_well()
            if taken:
                log.warning("%s: somebody listened on %s before it was started", self.model.id, health.address)
                await asyncio.sleep(DOUBT)

        timeout = self.model.health_check_timeout
        answered = await _unless_over(answer(), child, life, timeout)
        if life.is_ending:
            return f"stopped while it was starting: {life.reason}".rstrip(": ")
        if child.exited.done():
            why = f"the server {child.describe_exit()} before it was ready"
            return f"{why}; {health.address} was taken by somebody else" if taken else why
        return "" if answered else f"the server was not ready after {timeout} s: {health.last}"

    async def _until_over_or_unwell(self, child: Child, life: _Life, health: Health) -> str:
        """Wait until a ready server has ended, is to end, or no longer answers; return how that showed, or "".

        While requests are in flight it is asked for nothing, and unwell only where nobody listens on its port. It may
        be busy with a long prompt and answer late, or say that it has no place. Where it hangs, the clients' leaving
        ends the requests, and the looks go on.
        """

        async def fail() -> None:
            failures = 0
            spent = 0.0
            while failures < max(1, self.model.liveness.failures):
                every = self.model.liveness.every
                await asyncio.sleep(every - spent if every > 0 else LOOK_AT_SETTINGS)
                began = time.monotonic()
                if health.checks and every > 0 and await self._is_unwell(health, min(every, PATIENCE)):
                    failures += not health.is_ours  # where the router could not even ask, nothing is known
                else:
                    failures = 0
                spent = time.monotonic() - began

        return health.last if await _unless_over(fail(), child, life) else ""

    async def _is_unwell(self, health: Health, within: float) -> bool:
        if self._in_flight:
            return await health.is_deserted(within)
        return await health.look(within) != OK and not self._in_flight

    async def _end(self, child: Child, life: _Life, grace: float) -> None:
        """Have a child and its group end by themselves; return when they have, or when their time is over."""
        began = time.monotonic()
        life.end_within(grace if life.grace is None else life.grace)
        asking = asyncio.create_task(self._ask_to_end(child))
        over = asyncio.create_task(life.time_is_over())
        gone = asyncio.create_task(child.group_gone())
        try:
            await asyncio.wait({over, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():  # a stop command may have more to do than to end this child
                if over.done():
                    child.send(signal.SIGKILL)
                await asyncio.wait({asking, over}, return_when=asyncio.FIRST_COMPLETED)
                if (left := began + STOP_COMMAND_LEAST - time.monotonic()) > 0:
                    await asyncio.wait({asking}, timeout=left)
        finally:
            await _cancel(asking, over, gone)

    async def _ask_to_end(self, child: Child) -> None:
        """Run the stop command; where there is none, or it fails, send SIGTERM to the group."""
        model = self.model
        if arguments := command.stop_arguments(model, child.pid):
            sink = functools.partial(self._logs.write, model.id)
            why = await command.run(arguments, command.environment(model), sink, self._guard)
            if not why:
                return
            log.warning("%s: `cmdStop` failed, so SIGTERM is sent: %s", model.id, why)
        child.send(signal.SIGTERM)


async def _unless_over(work: Coroutine[Any, Any, None], child: Child, life: _Life, within: float | None = None) -> bool:
    """Do something until it is done, the child has exited, a stop is asked for, or so many seconds are over.

    Returns:
        Whether the work was done.
    """
    task = asyncio.create_task(work)
    try:
        ends: set[asyncio.Future[Any]] = {task, child.exited, life.stop_asked}
        await asyncio.wait(ends, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # raises what it has raised
        return task.done()
    finally:
        await _cancel(task)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
