"""Several files make one configuration: mappings merge, lists follow one another, scalars must agree."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

from ringcast_router.config.tree import Node, join

# Below these keys each member is one thing, which one file alone describes.
_ONE_FILE_EACH = frozenset(
    {
        "models",
        "groups",
        "profiles",
        "selectors",
        "peers",
        "matrix",
        "routing.router.settings.groups",
        "routing.router.settings.matrix",
        "ringcast.models",
    }
)


def merge(roots: Iterable[Node]) -> Node:
    """Return the tree of several files together, in their order.

    Raises:
        ConfigError: Two files say different things about one key; the error names the later place.
    """
    return reduce(_merge, roots)


def _merge(first: Node, second: Node, key: str = "") -> Node:
    if second.is_null:
        return first
    if first.is_null:
        return second
    match first.value, second.value:
        case dict(), dict():
            merged = dict(first.value)
            for name, member in second.value.items():
                path = join(key, name)
                if name in merged and key in _ONE_FILE_EACH:
                    member.fail(path, f"is described in {_place(merged[name])} already; describe it in one file")
                merged[name] = _merge(merged[name], member, path) if name in merged else member
            return replace(first, value=merged)
        case tuple(), tuple():
            return replace(first, value=first.value + second.value)
        case (dict() | tuple(), _) | (_, dict() | tuple()):
            second.fail(key, f"is {second.kind} here and {first.kind} in {_place(first)}")
    if (first.value, first.text) != (second.value, second.text):
        second.fail(key, f"is {second.text!r} here and {first.text!r} in {_place(first)}; say it once")
    return first


def _place(node: Node) -> str:
    return f"{node.file}:{node.line}"
