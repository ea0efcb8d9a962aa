"""Planners and schedulers of one's own: found by `package.module:Class`, or by the name of an entry point."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
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
        except (Exception, SystemExit) as error:
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
    except (Exception, SystemExit) as error:
        where = installed[name].value
        raise ConfigError(f"{kind} {name!r} ({where}): {type(error).__name__}: {error}", key=key) from error


def make(factory: Any, name: str, kind: str, protocol: type, *arguments: object) -> Any:
    """Call a class that `find` returned, and look whether its object is of the kind.

    Raises:
        ConfigError: The call failed, or the object lacks methods of `protocol`, or they do not take its arguments.
    """
    key = KEYS[kind]
    try:
        made = factory(*arguments)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{kind} {name!r} cannot be made: {type(error).__name__}: {error}", key=key) from error
    methods = [method for method in vars(protocol) if not method.startswith("_")]
    lacking = [method for method in methods if not callable(getattr(made, method, None))]
    if lacking:
        what = f"has no method {', '.join(map(repr, lacking))}"
        raise ConfigError(f"{kind} {name!r} is no {kind}: {type(made).__name__} {what}", key=key)
    for method in methods:
        wanted = [*inspect.signature(getattr(protocol, method)).parameters][1:]  # without self
        if not _takes(getattr(made, method), len(wanted)):
            what = f"{type(made).__name__}.{method} does not take ({', '.join(wanted)})"
            raise ConfigError(f"{kind} {name!r} is no {kind}: {what}", key=key)
    return made


def _takes(method: Callable[..., object], count: int) -> bool:
    """Whether a method can be called with so many positional arguments, as far as it can be known."""
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # one that is not written in Python may not tell
        return True
    return True
