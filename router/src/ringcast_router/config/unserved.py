"""Checks of what this version accepts and does not serve: a file that is wrong for the original is wrong here."""

from collections.abc import Mapping
from typing import Any

from ringcast_router.config.decode import write_duration
from ringcast_router.config.routing import near
from ringcast_router.config.tree import Node

_SHORTEST = 5  # seconds


def finish(settings: dict[str, Any], root: Node, names: Mapping[str, str]) -> None:
    """Check profiles, selectors, peers, store and performance.

    Raises:
        ConfigError: One of them cannot be used.
    """
    if settings["store"] is not None and not settings["store"]["path"]:
        root.get("store").fail("store.path", "must name a file")
    seconds = settings["performance"]["every"] or _SHORTEST
    if seconds < _SHORTEST:
        root.get("performance", "every").fail("performance.every", f"must be at least {_SHORTEST}s")
    settings["performance"]["every"] = write_duration(seconds)
    for name, peer in settings["peers"].items():
        peer["filters"]["stripParams"] = peer["filters"]["stripParams"] or peer["filters"].pop("strip_params")
        peer["filters"].pop("strip_params", None)
        _need(root.get("peers", name), f"peers.{name}", peer, "proxy", "models")
    known = {*names, *settings["selectors"]}
    for name, peer in settings["peers"].items():
        known.update(peer["models"], (f"{name}/{model}" for model in peer["models"]))
    for name, profile in settings["profiles"].items():
        _need(root.get("profiles", name), f"profiles.{name}", profile, "pins")
        for pin, target in profile["pins"].items():
            if target and target not in known:
                key = f"profiles.{name}.pins.{pin}"
                root.get("profiles", name, "pins", pin).fail(key, f"there is no model {target!r}{near(target, known)}")
    for name, selector in settings["selectors"].items():
        _check_selector(name, selector, root, names, known - settings["selectors"].keys())


def _check_selector(
    name: str, selector: Mapping[str, Any], root: Node, names: Mapping[str, str], known: set[str]
) -> None:
    node, key = root.get("selectors", name), f"selectors.{name}"
    _need(node, key, selector, "strategy", "targets")
    if name in names:
        node.fail(key, f"{name!r} is the name of a model already")
    if selector["strategy"] not in ("warm", "pin", "spillover"):
        place = node.get("strategy")
        place.fail(f"{key}.strategy", f"must be one of warm, pin, spillover, not {selector['strategy']!r}")
    allowed = known if selector["strategy"] == "pin" else set(names)
    for target in selector["targets"]:
        if target not in allowed:
            node.get("targets").fail(f"{key}.targets", f"there is no model {target!r}{near(target, allowed)}")


def _need(node: Node, key: str, section: Mapping[str, Any], *members: str) -> None:
    for name in members:
        if not section[name]:
            node.get(name).fail(f"{key}.{name}", "is needed and must not be empty")
