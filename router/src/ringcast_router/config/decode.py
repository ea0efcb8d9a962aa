"""Decoders: from a value of the tree to a value of the right type, as leniently as Go's yaml.v3.

A decoder is a function of node, key and scope. For a null, or where the file has nothing, it returns the default. So a
float is cut where a whole number is asked for, a string field takes numbers as they are written, a boolean field takes
`yes` and `on`; but a quoted number is no number.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ringcast_router.config import macros
from ringcast_router.config.macros import Scope
from ringcast_router.config.tree import Node, join

Decoder = Callable[[Node, str, Scope], Any]

_TRUE = ("y", "Y", "yes", "on")
_FALSE = ("n", "N", "no", "off")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(f"(?:{_PART})+")
_LONGEST = 2**63 // 10**9  # seconds: what Go's durations hold
_LARGEST = 2**63  # bytes
_SIZES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?")


def text(default: str = "", later: tuple[str, ...] = ()) -> Decoder:
    """Decode a string; `later` are macros that may be left over."""

    def decode(node: Node, key: str, scope: Scope) -> str:
        if isinstance(node.value, tuple | dict):
            node.fail(key, f"must be a string, not {node.kind}")
        if node.is_null:
            node = replace(node, value=default, text=default)
        return scope.resolve(node, key, later).text

    return decode


def choice(*words: str, default: str) -> Decoder:
    """Decode one of some words."""
    plain = text(default)

    def decode(node: Node, key: str, scope: Scope) -> str:
        word: str = plain(node, key, scope)
        if word not in words:
            node.fail(key, f"must be one of {', '.join(words)}, not {word!r}")
        return word

    return decode


def integer(default: int = 0, least: int | None = None) -> Decoder:
    """Decode a whole number; a fraction is cut off."""

    def decode(node: Node, key: str, scope: Scope) -> int:
        node = scope.resolve(node, key)
        if node.is_null:
            return default
        if isinstance(node.value, bool) or not isinstance(node.value, int | float) or not math.isfinite(node.value):
            node.fail(key, f"must be a whole number, not {node.kind}{_without_quotes(node)}")
        if least is not None and node.value < least:
            node.fail(key, f"must be at least {least}, not {node.text}")
        return int(node.value)

    return decode


def number(default: float | None, least: float = 0.0, auto: bool = False) -> Decoder:
    """Decode a number; with `auto`, that word means None."""

    def decode(node: Node, key: str, scope: Scope) -> float | None:
        node = scope.resolve(node, key)
        if node.is_null:
            return default
        if auto and node.value == "auto":
            return None
        if isinstance(node.value, bool) or not isinstance(node.value, int | float) or not math.isfinite(node.value):
            wanted = 'a number or "auto"' if auto else "a number"
            node.fail(key, f"must be {wanted}, not {node.kind}{_without_quotes(node)}")
        if node.value < least:
            node.fail(key, f"must be at least {least:g}, not {node.text}")
        return float(node.value)

    return decode


def _without_quotes(node: Node) -> str:
    return "; write it without quotes" if isinstance(node.value, str) and node.value.strip("-+.").isdigit() else ""


def boolean(default: bool | None = False) -> Decoder:
    """Decode a boolean."""

    def decode(node: Node, key: str, scope: Scope) -> bool | None:
        node = scope.resolve(node, key)
        if node.is_null:
            return default
        if isinstance(node.value, bool):
            return node.value
        if node.value in _TRUE and isinstance(node.value, str):
            return True
        if node.value in _FALSE and isinstance(node.value, str):
            return False
        node.fail(key, f"must be true or false, not {node.kind}")

    return decode


def duration(default: str) -> Decoder:
    """Decode a duration such as `1m30s`, to seconds."""
    plain = text(default)

    def decode(node: Node, key: str, scope: Scope) -> float:
        written: str = plain(node, key, scope)
        if not _DURATION.fullmatch(written) or isinstance(node.value, int | float):
            node.fail(key, f"must be a duration such as 10s or 1m30s, not {node.kind}")
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(_PART, written)) / 10**9
        if seconds > _LONGEST:
            node.fail(key, f"must be at most {_LONGEST // 3600} hours")
        return seconds

    return decode


def write_duration(seconds: float) -> str:
    """Return a duration of at least a second as Go writes it: `90.5` as `1m30.5s`."""
    minutes, rest = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(int(minutes), 60)
    tail = f"{round(rest, 9):.9f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{tail}" if hours else f"{minutes}m{tail}" if minutes else tail


def size(node: Node, key: str, scope: Scope) -> int:
    """Decode an amount such as `14GiB` or `8GB`, or a bare number."""
    written: str = text("0")(node, key, scope)
    found = _SIZE.fullmatch(written)
    if found is None:
        node.fail(key, f"must be an amount such as 14GiB or a number, not {node.kind}")
    amount, unit, binary = found.groups()
    bytes_ = float(amount) * float(1024 if binary else 1000) ** _SIZES[unit]
    if bytes_ > _LARGEST:
        node.fail(key, f"must be at most {_LARGEST >> 40} TiB")
    return round(bytes_)


def texts(default: tuple[str, ...] = ()) -> Decoder:
    """Decode a list of strings; nulls in it are dropped."""
    item_of = text()

    def decode(node: Node, key: str, scope: Scope) -> list[str]:
        return (
            [
                item_of(item, f"{key}[{index}]", scope)
                for index, item in enumerate(_items(node, key))
                if not item.is_null
            ]
            if not node.is_null
            else list(default)
        )

    return decode


def sequence(item_of: Decoder) -> Decoder:
    """Decode a list."""

    def decode(node: Node, key: str, scope: Scope) -> list[Any]:
        return [item_of(item, f"{key}[{index}]", scope) for index, item in enumerate(_items(node, key))]

    return decode


def mapping(member_of: Decoder, keys_too: bool = False) -> Decoder:
    """Decode a mapping whose keys are free; with `keys_too` macros are put into the keys."""

    def decode(node: Node, key: str, scope: Scope) -> dict[str, Any]:
        found = {}
        for name, member in members_of(node, key).items():
            path = f"{key}.{name}"
            if keys_too:
                name = scope.resolve(Node(name, name, member.file, member.line), path).text
            found[name] = member_of(member, path, scope)
        return found

    return decode


def anything(node: Node, key: str, scope: Scope) -> Any:
    """Decode whatever stands there to Python's own types, as it is to appear in JSON."""
    match node.value:
        case tuple():
            return [anything(item, f"{key}[{index}]", scope) for index, item in enumerate(node.value)]
        case dict():
            return {name: anything(member, f"{key}.{name}", scope) for name, member in node.value.items()}
        case _:
            value = scope.resolve(node, key).value
            if isinstance(value, float) and not math.isfinite(value):
                node.fail(key, f"JSON has no {node.text}")
            return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else value


def macro_list(node: Node, key: str, scope: Scope) -> list[dict[str, Any]]:
    """Decode macros; their values stay as they are."""
    return [{"name": name, "value": value} for name, value in macros.decode(node, key, scope)]


def section(keys: Mapping[str, Decoder]) -> Decoder:
    """Decode a mapping whose keys are known. The result has all of them; a key that is not known is warned of."""

    def decode(node: Node, key: str, scope: Scope) -> dict[str, Any]:
        members = members_of(node, key)
        for name, member in members.items():
            if name not in keys:
                scope.warn(member, join(key, name), f"unknown key{_near(name, keys)}; it has no effect")
        return {
            name: decode_member(members.get(name, Node(file=node.file, line=node.line)), join(key, name), scope)
            for name, decode_member in keys.items()
        }

    return decode


def noted(decoder: Decoder, note: str) -> Decoder:
    """Decode as another decoder, with a warning where the file has the key."""

    def decode(node: Node, key: str, scope: Scope) -> Any:
        if not node.is_null:
            scope.warn(node, key, note)
        return decoder(node, key, scope)

    return decode


def optional(decoder: Decoder) -> Decoder:
    """Decode as another decoder; null, or nothing, is None."""
    return lambda node, key, scope: None if node.is_null else decoder(node, key, scope)


def _near(name: str, known: Mapping[str, object]) -> str:
    folded = {word.lower().replace("_", ""): word for word in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), folded, n=1)
    return f"; did you mean `{folded[near[0]]}`?" if near else ""


def _items(node: Node, key: str) -> tuple[Node, ...]:
    if not node.is_null and not isinstance(node.value, tuple):
        node.fail(key, f"must be a list, not {node.kind}")
    return tuple(node.items())


def members_of(node: Node, key: str) -> Mapping[str, Node]:
    """Return the members of a mapping; none for a null.

    Raises:
        ConfigError: It is something else.
    """
    if not node.is_null and not isinstance(node.value, dict):
        node.fail(key, f"must be a mapping, not {node.kind}")
    return node.members()
