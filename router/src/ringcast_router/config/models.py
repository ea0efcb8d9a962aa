"""The models of a configuration: their macros and ports, defaults that the whole file gives, their names."""

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ringcast_router.config import macros
from ringcast_router.config.commands import without_comments
from ringcast_router.config.decode import Decoder, members_of
from ringcast_router.config.macros import PORT, Scope
from ringcast_router.config.schema import MODEL
from ringcast_router.config.tree import Node

_LAST_PORT = 65535
_URL = re.compile(
    r"https?://[^/\s:?#@]+(:\d+)?([/?#]\S*)?|https?://\[[0-9a-fA-F:.]+\](:\d+)?([/?#]\S*)?", re.IGNORECASE
)


class Ports:
    """Gives the models their ports, in the order in which they ask.

    Args:
        start: The first port.
        kept: Ports that models have already, by id.
        taken: Ports that no other model may get.

    Attributes:
        given: The ports so far, by model id.
    """

    def __init__(self, start: int, kept: Mapping[str, int], taken: Collection[int]) -> None:
        self.given: dict[str, int] = {}
        self._next = start
        self._kept = kept
        self._taken = frozenset(taken) | frozenset(kept.values())

    def give(self, model_id: str, node: Node, key: str) -> int:
        """Return the port of a model.

        Raises:
            ConfigError: There is none left.
        """
        port = self._kept.get(model_id, 0)
        if not port:
            while self._next in self._taken:
                self._next += 1
            port = self._next
            self._next += 1
        if port > _LAST_PORT:
            node.fail(key, f"there is no port left above startPort for this model; the last is {_LAST_PORT}")
        self.given[model_id] = port
        return port


def decoder(ports: Ports) -> Decoder:
    """Return the decoder of `models`. Its result is in the order of the ids, in which ports are given."""

    def decode(node: Node, key: str, scope: Scope) -> dict[str, Any]:
        return {name: _model(name, member, scope, ports) for name, member in sorted(members_of(node, key).items())}

    return decode


def _model(model_id: str, node: Node, scope: Scope, ports: Ports) -> dict[str, Any]:
    key = f"models.{model_id}"
    node = replace(node, value={name: _bare(name, member) for name, member in members_of(node, key).items()})
    scope = scope.of_model(model_id, macros.decode(node.get("macros"), f"{key}.macros", scope))
    if PORT in str(scope.put_in(node.get("cmd"), f"{key}.cmd")):
        scope = scope.with_port(ports.give(model_id, node, key))
    elif node.get("proxy").is_null or PORT in str(scope.put_in(node.get("proxy"), f"{key}.proxy")):
        wanted = "use ${PORT} in `cmd`, or give `proxy` the URL at which the server listens"
        node.get("proxy").fail(f"{key}.proxy", f"uses ${{PORT}}, but `cmd` does not: {wanted}")
    settings: dict[str, Any] = MODEL(node, key, scope)
    if node.get("cmdStop").is_null and sys.platform == "win32":
        settings["cmdStop"] = "taskkill /f /t /pid ${PID}"
    return settings


def _bare(name: str, node: Node) -> Node:
    """Return a command without its comment lines, in which `${...}` means nothing; other values as they are."""
    if name not in ("cmd", "cmdStop") or not isinstance(node.value, str):
        return node
    text = without_comments(node.text)
    return replace(node, value=text, text=text)


def finish(settings: dict[str, Any], root: Node, scope: Scope) -> None:
    """Fill in what the models take from the whole file, and check them.

    Raises:
        ConfigError: A value cannot be used, or two models have one name.
    """
    for model_id, model in settings["models"].items():
        key = f"models.{model_id}"
        node = root.get("models", model_id)
        if model["ttl"] == -1:
            model["ttl"] = settings["globalTTL"]
        model["unloadTimeout"] = model["unloadTimeout"] or settings["unloadTimeout"]
        model["healthCheckTimeout"] = settings["healthCheckTimeout"]
        if model["sendLoadingState"] is None:
            model["sendLoadingState"] = settings["sendLoadingState"]
        legacy = model["filters"].pop("strip_params")
        model["filters"]["stripParams"] = model["filters"]["stripParams"] or legacy
        if not _can_be_asked(model["proxy"]):
            wanted = (
                "must be a URL such as http://127.0.0.1:8080, with a port from 1 to 65535 and a host of valid labels"
            )
            node.get("proxy").fail(f"{key}.proxy", f"{wanted}, not {model['proxy']!r}")
        if model["concurrencyLimit"] < 0:
            limit = node.get("concurrencyLimit")
            scope.warn(limit, f"{key}.concurrencyLimit", f"{limit.text} is treated as 0, which means 10")
        for entry in model["env"]:
            if entry.find("=") < 1:
                scope.warn(node.get("env"), f"{key}.env", f"{entry!r} is not of the form NAME=value; it has no effect")
    _aliases(settings["models"], root)


def _can_be_asked(text: str) -> bool:
    """Whether a text is a URL whose host can be looked up and whose port can be connected to."""
    if not _URL.fullmatch(text):
        return False
    try:
        url = urlsplit(text)
        (url.hostname or "").encode("idna")
        return url.port != 0
    except ValueError:  # a port above 65535, a label that is empty or too long, no IPv6 address in brackets
        return False


def _aliases(models: Mapping[str, Any], root: Node) -> None:
    """Check that no alias stands for two models, and make the keys of setParamsByID aliases."""
    owners: dict[str, str] = {}

    def claim(alias: str, model_id: str, node: Node, key: str) -> None:
        owner = owners.setdefault(alias, model_id)
        if owner != model_id:
            node.fail(key, f"{alias!r} is an alias of {owner} already; a name can stand for one model only")

    for model_id, model in models.items():
        node, key = root.get("models", model_id, "aliases"), f"models.{model_id}.aliases"
        for alias in model["aliases"]:
            if model["aliases"].count(alias) > 1:
                node.fail(key, f"{alias!r} stands here twice; name it once")
            claim(alias, model_id, node, key)
    for model_id, model in models.items():
        node, key = root.get("models", model_id, "filters", "setParamsByID"), f"models.{model_id}.filters.setParamsByID"
        for name in sorted(model["filters"]["setParamsByID"]):
            if name == model_id:
                continue
            if name in models:
                node.fail(key, f"{name!r} is the id of another model; use an alias of {model_id}")
            claim(name, model_id, node, key)
            if name not in model["aliases"]:
                model["aliases"].append(name)


def names(models: Mapping[str, Any]) -> dict[str, str]:
    """Return the id that each id and alias stands for; an id goes before an alias."""
    aliases = {alias: model_id for model_id, model in models.items() for alias in model["aliases"]}
    return {**aliases, **{model_id: model_id for model_id in models}}
