"""The commands of a model: what starts its server, and what stops it.

A command that stops a server serves where a signal does not reach it: `docker run` as `cmd` is only the client of a
container, and `docker stop NAME` as `cmdStop` ends the container itself.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping

from ringcast_router.config import split_command
from ringcast_router.config.model import Model
from ringcast_router.errors import ConfigError, StartError
from ringcast_router.processes.child import Child
from ringcast_router.processes.guard import Guard

log = logging.getLogger(__name__)


def start_arguments(model: Model) -> list[str]:
    """Return the program and arguments that start a model's server.

    Raises:
        StartError: The model has no command, or one that cannot be split.
    """
    try:
        return split_command(model.cmd)
    except ConfigError as error:
        raise StartError(model.id, f"`cmd` cannot be used: {error.message}") from error


def stop_arguments(model: Model, pid: int) -> list[str]:
    """Return the program and arguments that stop a model's server; [] where a signal does.

    Args:
        model: Its `cmd_stop` may contain `${PID}`.
        pid: The process id to put there.
    """
    if not model.cmd_stop.strip():
        return []
    try:
        return split_command(model.cmd_stop.replace("${PID}", str(pid)))
    except ConfigError as error:
        log.warning("%s: `cmdStop` cannot be used: %s", model.id, error.message)
        return []


def environment(model: Model) -> dict[str, str]:
    """Return the environment of a model's commands: the router's own, and what the model adds."""
    added = (entry.partition("=") for entry in model.env)
    return {**os.environ, **{name: value for name, equals, value in added if name and equals}}


def names_port(model: Model, port: int) -> bool:
    """Whether the command of a model, or what the model adds to its environment, names a port to listen on."""
    number = re.compile(rf"(?<!\d){port}(?!\d)", re.ASCII)
    return any(number.search(text) for text in (model.cmd, *model.env))


def why_not_started(program: str, error: Exception) -> str:
    """Return in words why a program could not be started."""
    match error:
        case FileNotFoundError():
            return f"the program {program!r} does not exist"
        case PermissionError():
            return f"the program {program!r} may not be executed"
    return f"the program {program!r} cannot be started: {error}"


async def run(
    arguments: list[str], env: Mapping[str, str], sink: Callable[[bytes], None], guard: Guard | None = None
) -> str:
    """Run a command to its end; when cancelled, kill it with its group.

    Args:
        arguments: The program and its arguments.
        env: The whole environment.
        sink: Gets the output.
        guard: Ends the command if the router is killed meanwhile.

    Returns:
        "" where it succeeded, else why it did not.
    """
    try:
        child = Child(arguments, env, sink)
    except (OSError, ValueError) as error:
        return why_not_started(arguments[0], error)
    try:
        if guard is not None:
            guard.watch(child.pid)
        await asyncio.wait({child.exited})
        return child.describe_exit() if child.exited.result() else ""
    finally:
        await child.kill()
        if guard is not None:
            guard.forget(child.pid)
