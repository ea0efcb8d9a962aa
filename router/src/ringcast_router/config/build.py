"""From the tree of a file to the frozen `Config`. Needs nothing but the standard library."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ringcast_router.config import macros, models, routing, schema, unserved
from ringcast_router.config.decode import integer
from ringcast_router.config.macros import Scope
from ringcast_router.config.model import (
    Capabilities,
    Config,
    Fair,
    Filters,
    Group,
    Key,
    Liveness,
    Matrix,
    Model,
    Queue,
    Timeouts,
)
from ringcast_router.config.tree import Node

_SHORTEST_HEALTH_CHECK = 15
_UNLOAD_TIMEOUT = 10
_LEVELS = ("debug", "info", "warn", "error")


def build(root: Node, ports: Mapping[str, int] = MappingProxyType({}), taken: Collection[int] = ()) -> Config:
    """Return the configuration of a tree: macros put in, defaults filled in, checked.

    Args:
        root: The tree of the file, or of all files merged.
        ports: The ports that models have already, by id.
        taken: Ports that no other model may get.

    Raises:
        ConfigError: Something in it cannot be used; the error names the place.
    """
    scope = Scope(macros=macros.decode(root.get("macros"), "macros", Scope()))
    start = integer(5800, least=1)(root.get("startPort"), "startPort", scope)
    given = models.Ports(start, ports, taken)
    settings = schema.top(models.decoder(given))(root, "", scope)
    own = settings.pop("ringcast")
    _finish_globals(settings, root, scope)
    models.finish(settings, root, scope)
    names = models.names(settings["models"])
    all_groups = settings["groups"] or settings["routing"]["router"]["settings"]["groups"]
    routing.finish(settings, root, names, scope)
    _finish_preload(settings, root, names, scope)
    unserved.finish(settings, root, names)
    ignored = settings["upstream"]["ignorePaths"] or [schema.IGNORED_PATHS]
    if not settings["upstream"]["ignorePaths"]:
        settings["upstream"] = {}
    fifo = {
        names[name]: priority
        for name, priority in settings["routing"]["scheduler"]["settings"]["fifo"]["priority"].items()
    }
    priorities = {**fifo, **_priorities(own, root, names)}
    config = Config(
        models={
            name: _model(name, settings["models"][name], given.given.get(name, 0), priorities, own)
            for name in settings["models"]
        },
        groups={name: _group(group) for name, group in routing.with_default(all_groups, settings["models"]).items()},
        matrix=_matrix(settings["matrix"]),
        router=own["router"] or settings["routing"]["router"]["use"],
        scheduler=_scheduler(own, root, scope),
        fifo_priority=fifo,
        fair=Fair(*(own["fair"][name] for name in ("max_wait", "min_residence", "linger", "max_batch"))),
        queue=Queue(**own["queue"]),
        keys=_keys(settings["apiKeys"], own["keys"], root, names),
        preload=tuple(settings["hooks"]["on_startup"]["preload"]),
        log_level=settings["logLevel"].lower() if settings["logLevel"].lower() in _LEVELS else "info",
        log_time_format=settings["logTimeFormat"],
        log_to_stdout=settings["logToStdout"],
        include_aliases_in_list=settings["includeAliasesInList"],
        send_loading_state=settings["sendLoadingState"],
        health_check_timeout=settings["healthCheckTimeout"],
        unload_timeout=settings["unloadTimeout"],
        ignore_paths=tuple(ignored),
        settings=settings,
        source=root,
    )
    if config.router == "matrix" and config.matrix is None:
        root.get("ringcast", "router").fail("ringcast.router", "is matrix, but the file has no matrix")
    return replace(config, warnings=tuple(scope.warnings))


def _finish_globals(settings: dict[str, Any], root: Node, scope: Scope) -> None:
    settings["healthCheckTimeout"] = max(settings["healthCheckTimeout"], _SHORTEST_HEALTH_CHECK)
    settings["unloadTimeout"] = settings["unloadTimeout"] or _UNLOAD_TIMEOUT
    activity = settings["ui"]["activity"]
    headers: dict[str, str] = {}
    for header in filter(None, map(str.strip, activity["session_id"])):
        headers.setdefault(header.lower(), header)
    activity["session_id"] = list(headers.values())
    if settings["logLevel"].lower() not in _LEVELS:
        scope.warn(
            root.get("logLevel"), "logLevel", f"{settings['logLevel']!r} acts as info; {', '.join(_LEVELS)} exist"
        )
    for index, key in enumerate(settings["apiKeys"]):
        _check_key(key, root.get("apiKeys"), f"apiKeys[{index}]")
    for pattern in settings["upstream"]["ignorePaths"]:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            place = root.get("upstream", "ignorePaths")
            place.fail("upstream.ignorePaths", f"{pattern!r} is no regular expression: {error}")


def _finish_preload(settings: dict[str, Any], root: Node, names: Mapping[str, str], scope: Scope) -> None:
    hook = settings["hooks"]["on_startup"]
    wanted = [name for name in map(str.strip, hook["preload"]) if name]
    for name in wanted:
        if name not in names:
            key = "hooks.on_startup.preload"
            scope.warn(root.get(*key.split(".")), key, f"there is no model {name!r}{routing.near(name, names)}")
    hook["preload"] = [names[name] for name in wanted if name in names]


def _scheduler(own: Mapping[str, Any], root: Node, scope: Scope) -> str:
    """Return the scheduler's name: what `ringcast:` says, else what the file says, else ours."""
    if own["scheduler"]:
        return str(own["scheduler"])
    use = root.get("routing", "scheduler", "use")
    if use.is_null:
        return "fair"
    message = "fifo sets no bound on waiting; `ringcast: {scheduler: fair}` does, and the original ignores that"
    scope.warn(use, "routing.scheduler.use", message)
    return "fifo"


def _priorities(own: Mapping[str, Any], root: Node, names: Mapping[str, str]) -> dict[str, int]:
    """Return the priorities below `ringcast:`; what stands at a model itself goes first."""
    routing.known_model(
        own["fair"]["priority"], names, root.get("ringcast", "fair", "priority"), "ringcast.fair.priority"
    )
    found: dict[str, int] = {names[name]: priority for name, priority in own["fair"]["priority"].items()}
    for name, model in own["models"].items():
        if names.get(name) != name:
            near = f"; it is an alias of {names[name]}" if name in names else routing.near(name, names.values())
            root.get("ringcast", "models", name).fail(f"ringcast.models.{name}", f"there is no model {name!r}{near}")
        if model["priority"] is not None:
            found[name] = model["priority"]
    return found


def _keys(plain: list[str], own: list[dict[str, Any]], root: Node, names: Mapping[str, str]) -> tuple[Key, ...]:
    """Return the keys; one that stands in both lists has what `ringcast.keys` says."""
    found = {key: Key(key) for key in plain}
    seen: set[str] = set()
    for index, (entry, node) in enumerate(zip(own, root.get("ringcast", "keys").items(), strict=True)):
        path = f"ringcast.keys[{index}]"
        _check_key(entry["key"], node.get("key"), f"{path}.key")
        if entry["key"] in seen:
            node.get("key").fail(f"{path}.key", "stands in this list already")
        seen.add(entry["key"])
        for name in entry["models"] or ():
            if name not in names:
                node.get("models").fail(f"{path}.models", f"there is no model {name!r}{routing.near(name, names)}")
        scope = None if entry["models"] is None else frozenset(names[name] for name in entry["models"])
        found[entry["key"]] = Key(entry["key"], entry["priority"], entry["max_priority"], scope, entry["admin"])
    return tuple(found.values())


def _check_key(key: str, node: Node, path: str) -> None:
    if not key:
        node.fail(path, "a key must not be empty")
    if " " in key:
        node.fail(path, "a key cannot contain spaces")


def _model(
    name: str, model: Mapping[str, Any], port: int, priorities: Mapping[str, int], own: Mapping[str, Any]
) -> Model:
    extra = own["models"].get(name, {})
    return Model(
        id=name,
        cmd=model["cmd"],
        cmd_stop=model["cmdStop"],
        proxy=model["proxy"],
        check_endpoint=model["checkEndpoint"],
        ttl=model["ttl"],
        unload_timeout=model["unloadTimeout"],
        health_check_timeout=model["healthCheckTimeout"],
        aliases=tuple(model["aliases"]),
        env=tuple(model["env"]),
        name=model["name"],
        description=model["description"],
        use_model_name=model["useModelName"],
        unlisted=model["unlisted"],
        concurrency_limit=max(model["concurrencyLimit"], 0),
        send_loading_state=model["sendLoadingState"],
        macros=tuple((macro["name"], macro["value"]) for macro in model["macros"]),
        metadata=model["metadata"],
        filters=Filters(*(model["filters"][key] for key in ("stripParams", "setParams", "setParamsByID"))),
        timeouts=_timeouts(model["timeouts"]),
        ignore_websockets=model["compat"]["ignoreWebsockets"],
        capabilities=_capabilities(model["capabilities"]),
        priority=priorities.get(name, 0),
        liveness=Liveness(**extra.get("liveness", {})),
        pinned=extra.get("pinned", False),
        resources=extra.get("resources", {}),
        port=port,
    )


def _timeouts(timeouts: Mapping[str, int]) -> Timeouts:
    names = ("connect", "keepalive", "responseHeader", "tlsHandshake", "expectContinue", "idleConn")
    return Timeouts(*(timeouts[name] for name in names))


def _capabilities(found: Mapping[str, Any]) -> Capabilities:
    return Capabilities(tuple(found["in"]), tuple(found["out"]), found["tools"], found["reranker"], found["context"])


def _group(group: Mapping[str, Any]) -> Group:
    return Group(group["swap"], group["exclusive"], group["persistent"], tuple(group["members"]))


def _matrix(matrix: Mapping[str, Any] | None) -> Matrix | None:
    if matrix is None:
        return None
    costs = {matrix["vars"].get(name, name): cost for name, cost in matrix["evict_costs"].items()}
    return Matrix(matrix["vars"], costs, tuple(matrix["sets"].items()))
