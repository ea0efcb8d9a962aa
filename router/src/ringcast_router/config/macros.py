"""`${name}`: macros, put into the values of a file.

A macro's value may name macros that are defined before it. So they are put in from the last to the first.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ringcast_router.config import scalars
from ringcast_router.config.tree import Node, Scalar
from ringcast_router.errors import printable

RESERVED = ("PORT", "MODEL_ID", "PID")
PORT = "${PORT}"
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
_LONGEST = 63
_MOST_ADDED = 10_000_000  # characters that macros may add to a configuration: macros of macros multiply

Macro = tuple[str, Scalar]


@dataclass(slots=True)
class Budget:
    """How many characters macros may still add to a configuration."""

    left: int = _MOST_ADDED


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds where a value is decoded: the macros, and where warnings go.

    Attributes:
        macros: In the order of their definition; None where no macros are put in, as below `ringcast:`.
        warnings: Takes what is worth telling and no error.
        budget: What macros may still add; shared by all scopes of a configuration.
    """

    macros: tuple[Macro, ...] | None = ()
    warnings: list[str] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)

    def without_macros(self) -> "Scope":
        """Return the same scope for values in which `${...}` means nothing."""
        return replace(self, macros=None)

    def of_model(self, model_id: str, macros: Iterable[Macro]) -> "Scope":
        """Return the scope of a model: its id, the macros so far, its own; one of its own may replace one so far."""
        merged = dict(self.macros or ())
        merged.update(macros)
        return replace(self, macros=(("MODEL_ID", model_id), *merged.items()))

    def with_port(self, port: int) -> "Scope":
        """Return this scope with a port. Put in last of all."""
        return replace(self, macros=(("PORT", port), *(self.macros or ())))

    def put_in(self, node: Node, key: str) -> Scalar:
        """Return a text with the macros put in; a text that is one macro and nothing else becomes the macro's value.

        Args:
            node: The text.
            key: Its path, for errors.

        Raises:
            ConfigError: The macros add more than a configuration may have of them.
        """
        text = node.text
        for name, value in reversed(self.macros or ()):
            use = f"${{{name}}}"
            if text == use and not isinstance(value, str):
                return value
            written = scalars.write(value)
            # Counted before it is done: nested macros can stand for more than any memory holds.
            self.budget.left -= max(0, text.count(use) * (len(written) - len(use)))
            if self.budget.left < 0:
                node.fail(
                    key,
                    f"the macro {use} makes this too long: macros may add {_MOST_ADDED:,} characters to a file",
                )
            text = text.replace(use, written)
        return text

    def resolve(self, node: Node, key: str, later: tuple[str, ...] = ()) -> Node:
        """Return a scalar with the macros put in.

        Args:
            node: The scalar.
            key: Its path, for errors.
            later: Names that are put in at another time and may be left over.

        Raises:
            ConfigError: It names a macro that does not exist.
        """
        if self.macros is None or not isinstance(node.value, str) or "${" not in node.text:
            return node
        value = self.put_in(node, key)
        if not isinstance(value, str):
            return replace(node, value=value, text=scalars.write(value))
        for name in _USE.findall(value):
            if name not in later:
                node.fail(key, self._unknown(name))
        return replace(node, value=value, text=value)

    def _unknown(self, name: str) -> str:
        if name == "PORT":
            return "${PORT} is known only in a model whose `cmd` uses it"
        if name == "PID":
            return "${PID} is known only in `cmdStop`"
        use = f"${{{name}}}"
        if name == "MODEL_ID":
            return f"{use} is known only in a model"
        if name in dict(self.macros or ()):
            user = next((known for known, value in self.macros or () if use in str(value)), "")
            if not user:
                return f"{use} comes about only as other macros are put together; write it out"
            return (
                f"the macro ${{{user}}} uses {use}, which is defined after it; define {use} before ${{{user}}} "
                "(a model's macros stand after those of the whole file)"
            )
        folded = {known.lower(): known for known, _ in self.macros or ()}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        return f"there is no macro {use}" + (
            f"; did you mean ${{{folded[near[0]]}}}?" if near else "; define it in `macros`"
        )

    def warn(self, node: Node, key: str, message: str) -> None:
        """Note a warning about a place in the file."""
        place = f"{node.file}:{node.line}" if node.file else f"line {node.line}"
        said = f"{printable(key)}: {message}"
        self.warnings.append(f"{place}: {said}" if node.line else said)


def decode(node: Node, key: str, scope: Scope) -> tuple[Macro, ...]:
    """Return the macros of a mapping, in its order.

    Raises:
        ConfigError: A name or a value cannot be used, or a macro names itself.
    """
    if not node.is_null and not isinstance(node.value, dict):
        node.fail(key, f"must be a mapping, not {node.kind}")
    return tuple((name, _value(name, member, f"{key}.{name}")) for name, member in node.members().items())


def _value(name: str, node: Node, key: str) -> Scalar:
    if name in RESERVED:
        node.fail(key, f"the name {name} is taken by the router; choose another")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        node.fail(key, f"the name of a macro has letters, digits, _ and - only, {_LONGEST} of them at most")
    if node.is_null or isinstance(node.value, tuple | dict):
        node.fail(key, f"must be a string, a number or a boolean, not {node.kind}")
    if isinstance(node.value, str) and f"${{{name}}}" in node.text:
        node.fail(key, "names itself; a macro may use those that are defined before it")
    return node.value
