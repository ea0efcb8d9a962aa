"""Groups, matrix and scheduler: which of the several forms the file uses, and whether what it says can be."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ringcast_router.config.macros import Scope
from ringcast_router.config.tree import Node
from ringcast_router.errors import ConfigError
from ringcast_router.planning import sets

DEFAULT_GROUP = "(default)"
_VAR = re.compile(r"[a-zA-Z0-9.-]{1,32}")


def finish(settings: dict[str, Any], root: Node, names: Mapping[str, str], scope: Scope) -> None:
    """Bring the legacy keys and `routing` to one form, fill in defaults, and check.

    Args:
        settings: The whole result so far; `groups`, `matrix` and `routing` are changed.
        root: The tree, for the places of errors.
        names: The id that each name of a model stands for.
        scope: Takes the warnings.

    Raises:
        ConfigError: The file uses both forms, or what it says cannot be.
    """
    router = settings["routing"]["router"]
    key = _choose(settings, root)
    if settings["matrix"] is not None:
        place = root.get(*key.split("."), "matrix") if key else root.get("matrix")
        _check_matrix(settings["matrix"], settings["models"], place, _path(key, "matrix"))
        router["use"] = "matrix"
    else:
        place = root.get(*key.split("."), "groups") if key else root.get("groups")
        _check_groups(settings["groups"], settings["models"], place, _path(key, "groups"), scope)
        settings["groups"] = with_default(settings["groups"], settings["models"])
        router["use"] = "group"
    router["settings"] = {"groups": settings["groups"], "matrix": settings["matrix"]}
    _check_scheduler(settings["routing"]["scheduler"], root, names)


def _choose(settings: dict[str, Any], root: Node) -> str:
    """Put the groups or the matrix that hold under the top-level keys; return the path of where they come from."""
    router = settings["routing"]["router"]
    key = "routing.router.settings"
    legacy = [name for name in ("groups", "matrix") if settings[name]]
    if legacy and (router["use"] or router["settings"]["matrix"] or router["settings"]["groups"]):
        message = f"stands beside `routing.router`; move it to {key}.{legacy[0]}"
        root.get(legacy[0]).fail(legacy[0], message)
    if len(legacy) > 1:
        root.get("matrix").fail("matrix", "stands beside `groups`; a file has one of them")
    if legacy:
        return ""
    use = router["use"]
    match use:
        case "matrix":
            settings["matrix"] = router["settings"]["matrix"]
            if settings["matrix"] is None:
                root.get("routing", "router", "use").fail(
                    "routing.router.use", f"is matrix, but {key}.matrix is missing"
                )
        case "" | "group":
            settings["groups"] = router["settings"]["groups"]
        case _:
            wanted = "must be group or matrix"
            own = "; a planner of your own is named by ringcast.router"
            root.get("routing", "router", "use").fail("routing.router.use", f"{wanted}, not {use!r}{own}")
    return key


def _path(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def with_default(groups: Mapping[str, Any], models: Iterable[str]) -> dict[str, Any]:
    """Return groups with the one of all models that are in no other."""
    grouped = {member for name, group in groups.items() if name != DEFAULT_GROUP for member in group["members"]}
    rest = sorted(set(models) - grouped)
    default = {"swap": True, "exclusive": True, "persistent": False, "members": rest}
    return {**groups, DEFAULT_GROUP: default}


def _check_groups(groups: Mapping[str, Any], models: Mapping[str, Any], node: Node, key: str, scope: Scope) -> None:
    group_of: dict[str, str] = {}
    for name, group in groups.items():
        place, path = node.get(name, "members"), f"{key}.{name}.members"
        for member in group["members"]:
            if member in group_of:
                where = "twice" if group_of[member] == name else f"here and in {group_of[member]}"
                place.fail(path, f"{member} stands {where}; a model is in one group, once")
            group_of[member] = name
            if member not in models:
                scope.warn(place, path, f"there is no model {member!r}{near(member, models)}")


def _check_matrix(matrix: Mapping[str, Any], models: Mapping[str, Any], node: Node, key: str) -> None:
    for name, model in matrix["vars"].items():
        place, path = node.get("vars", name), f"{key}.vars.{name}"
        if not _VAR.fullmatch(name):
            place.fail(path, "the name of a var has 1 to 32 letters, digits, - and .")
        if model not in models:
            place.fail(path, f"there is no model {model!r}{near(model, models)}")
    for name, cost in matrix["evict_costs"].items():
        place, path = node.get("evict_costs", name), f"{key}.evict_costs.{name}"
        if cost < 1:
            place.fail(path, f"must be at least 1, not {cost}")
        if name not in matrix["vars"] and name not in models:
            place.fail(path, f"there is no var or model {name!r}{near(name, [*matrix['vars'], *models])}")
    try:
        sets.resolve(matrix["sets"].items(), matrix["vars"], models, f"{key}.sets")
    except ConfigError as error:
        name = error.key.removeprefix(f"{key}.sets").removeprefix(".")
        node.get("sets", *([name] if name else [])).fail(error.key, error.message)


def _check_scheduler(scheduler: dict[str, Any], root: Node, names: Mapping[str, str]) -> None:
    key = "routing.scheduler"
    scheduler["use"] = scheduler["use"] or "fifo"
    if scheduler["use"] != "fifo":
        wanted = "must be fifo; another scheduler is named by ringcast.scheduler"
        root.get(*key.split("."), "use").fail(f"{key}.use", f"{wanted}, not {scheduler['use']!r}")
    key = "routing.scheduler.settings.fifo.priority"
    known_model(scheduler["settings"]["fifo"]["priority"], names, root.get(*key.split(".")), key)


def known_model(priorities: Iterable[str], names: Mapping[str, str], node: Node, key: str) -> None:
    """Check that each key of a mapping names a model.

    Raises:
        ConfigError: One does not.
    """
    for name in priorities:
        if name not in names:
            node.get(name).fail(f"{key}.{name}", f"there is no model {name!r}{near(name, names)}")


def near(name: str, known: Iterable[str]) -> str:
    """Return a question after the nearest known name, for the end of a sentence; "" where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
