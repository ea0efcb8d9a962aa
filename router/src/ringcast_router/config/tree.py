"""A parsed configuration: values with the place in the file where each stands."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ringcast_router.errors import ConfigError

Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file.

    Attributes:
        value: A scalar as YAML resolves it, a tuple of nodes for a list, a dict of nodes for a mapping.
        text: A scalar as it is written, without its quotes; "" for lists and mappings.
        file: The file's name; "" where the text came from no file.
        line: The line, counted from 1; a member of a mapping has the line of its key. 0 where there is none.
    """

    value: "Scalar | tuple[Node, ...] | dict[str, Node]" = None
    text: str = ""
    file: str = ""
    line: int = 0

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here."""
        return self.value is None

    @property
    def kind(self) -> str:
        """The kind of value, in words for errors."""
        match self.value:
            case None:
                return "nothing"
            case bool():
                return f"the boolean {self.text}"
            case int() | float():
                return f"the number {self.text}"
            case str():
                return f"the string {self.text!r}"
            case tuple():
                return "a list"
            case _:
                return "a mapping"

    def members(self) -> "Mapping[str, Node]":
        """Return the members of a mapping; none where this is something else."""
        return self.value if isinstance(self.value, dict) else {}

    def items(self) -> "Iterator[Node]":
        """Yield the items of a list; none where this is something else."""
        if isinstance(self.value, tuple):
            yield from self.value

    def get(self, *path: str) -> "Node":
        """Return the value at a path of keys; where the file has none, nothing at the place of the last one it has."""
        node = self
        for name in path:
            node = node.members().get(name) or Node(file=node.file, line=node.line)
        return node

    def fail(self, key: str, message: str) -> NoReturn:
        """Raise a `ConfigError` that names this place.

        Args:
            key: The path of the key, such as `models.small.ttl`.
            message: What is wrong and what would be right.
        """
        raise ConfigError(message, file=self.file, line=self.line, key=key)


def join(key: str, name: str) -> str:
    """Return the path of a member of the mapping at `key`."""
    return f"{key}.{name}" if key else name
