"""Planners and schedulers of one's own: found by `package.module:Class`, or by the name of an entry point."""

import contextlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ringcast_router.config.model import Config
from ringcast_router.errors import ConfigError

GROUPS = {"planner": "ringcast_router.planners", "scheduler": "ringcast_router.schedulers"}
KEYS = {"planner": "ringcast.router", "scheduler": "ringcast.scheduler"}


@contextlib.contextmanager
def placed(config: Config) -> Iterator[None]:
    """Have a `ConfigError` of `find` or `make` name file and line, where the configuration came from a file."""
    try:
        yield
    except ConfigError as error:
        node = config.source.get(*error.key.split(".")) if config.source and not error.line else None
        if node is None or not node.line:
            raise
        raise ConfigError(error.message, file=node.file, line=node.line, key=error.key) from error.__cause__


def find(name: str, built_in: Mapping[str, Any], kind: str) -> Any:
    """Return the class (or factory) that `name` stands for.

    Args:
        name: The name of a built-in one, `package.module:Class`, or the name of an entry point.
        built_in: The built-in ones by name.
        kind: `planner` or `scheduler`: chooses the group of entry points, and the words of errors.

    Raises:
        ConfigError: Nothing of that name can be found or imported; the error says what was looked for.
    """
    if name in built_in:
        return built_in[name]
    key = KEYS[kind]
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        try:
            module = import_module(module_name)
        except Exception as error:
            raise ConfigError(f"{kind} {name!r}: {type(error).__name__}: {error}", key=key) from error
        try:
            return getattr(module, attribute)
        except AttributeError:
            raise ConfigError(f"{kind} {name!r}: module {module_name} has no {attribute!r}", key=key) from None
    installed = {point.name: point for point in entry_points(group=GROUPS[kind])}
    if name not in installed:
        known = [*built_in, *sorted(installed)]
        near = "".join(f"; did you mean {match!r}?" for match in get_close_matches(name, known, 1))
        raise ConfigError(
            f"no {kind} {name!r}{near}; known are {', '.join(known)}, or give package.module:Class", key=key
        )
    try:
        return installed[name].load()
    except Exception as error:
        where = installed[name].value
        raise ConfigError(f"{kind} {name!r} ({where}): {type(error).__name__}: {error}", key=key) from error


def make(factory: Any, name: str, kind: str, method: str, *arguments: object) -> Any:
    """Call a class that `find` returned, and look whether its object is of the kind.

    Raises:
        ConfigError: The call failed, or the object lacks `method`.
    """
    key = KEYS[kind]
    try:
        made = factory(*arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{kind} {name!r} cannot be made: {type(error).__name__}: {error}", key=key) from error
    if not callable(getattr(made, method, None)):
        raise ConfigError(f"{kind} {name!r} is no {kind}: {type(made).__name__} has no method {method!r}", key=key)
    return made
