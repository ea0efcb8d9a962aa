"""The set language of the matrix: which models may run together.

    expression := and ('|' and)*
    and        := atom ('&' atom)*
    atom       := name | '+' name | '(' expression ')'

A name is a var, or else a model's id: letters, digits, `_`, `-` and `.`. `+name` stands for the set of that name. An
expression means a family of sets of models: a name the one set with that model, `|` the sets of either side, `&` each
set of the left side joined with each of the right.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ringcast_router.errors import ConfigError

DEEPEST = 100  # brackets within brackets, and sets that refer to sets
TOKEN = re.compile(r"\s*(?:(?P<name>[\w.-]+)|(?P<sign>[&|()+]))")


@dataclass(frozen=True, slots=True)
class Name:
    """A model; before `resolve` a var or a model."""

    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """The set of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class All:
    """One set of each part, joined (`&`)."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Any:
    """The sets of all parts (`|`)."""

    parts: tuple["Expression", ...]


Expression = Name | Reference | All | Any


def parse(text: str, key: str = "") -> Expression:
    """Parse one expression.

    Args:
        text: The expression.
        key: Where it stands in the configuration, for the error.

    Raises:
        ConfigError: It is not an expression; the error names the column, counted from 1.
    """
    return _Parser(text, key).parse()


def resolve(
    sets: Iterable[tuple[str, str]], variables: Mapping[str, str], models: Collection[str], key: str = "matrix.sets"
) -> dict[str, Expression]:
    """Parse the sets of a matrix, replace vars by model ids, and order the sets.

    Args:
        sets: Pairs of name and expression, in the order of the file.
        variables: From the short name to the model's id; a var goes before a model of the same name.
        models: The ids that exist.
        key: Where the sets stand in the configuration, for errors.

    Returns:
        The expressions by name: as in the file, but a set that another refers to stands before that one.

    Raises:
        ConfigError: There is no set, an expression is wrong, a name is unknown, or sets refer to themselves.
    """
    parsed = {name: parse(text, f"{key}.{name}") for name, text in sets}
    if not parsed:
        raise ConfigError("a matrix needs at least one set", key=key)
    for name, expression in parsed.items():
        for leaf in leaves(expression):
            if isinstance(leaf, Reference):
                if leaf.name not in parsed:
                    raise ConfigError(f"+{leaf.name} refers to a set that is not defined", key=f"{key}.{name}")
            elif variables.get(leaf.name, leaf.name) not in models:
                raise ConfigError(f"{leaf.name!r} is neither a var nor a model's id", key=f"{key}.{name}")
    return {name: _replace(parsed[name], variables) for name in _in_order(parsed, key)}


def leaves(expression: Expression) -> Iterator[Name | Reference]:
    """Yield the names and references of an expression from left to right."""
    if isinstance(expression, Name | Reference):
        yield expression
    else:
        for part in expression.parts:
            yield from leaves(part)


def _replace(expression: Expression, variables: Mapping[str, str]) -> Expression:
    match expression:
        case Name(name):
            return Name(variables.get(name, name))
        case Reference():
            return expression
        case All(parts):
            return All(tuple(_replace(part, variables) for part in parts))
        case Any(parts):
            return Any(tuple(_replace(part, variables) for part in parts))


def _in_order(parsed: Mapping[str, Expression], key: str) -> list[str]:
    """Return the names of all sets, each after those that it refers to (depth first)."""
    order: dict[str, None] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise ConfigError(f"sets refer to one another in a circle: {circle}", key=f"{key}.{name}")
        if name in order:
            return
        if len(path) == DEEPEST:
            raise ConfigError(f"sets refer to one another more than {DEEPEST} deep", key=f"{key}.{name}")
        path.append(name)
        for leaf in leaves(parsed[name]):
            if isinstance(leaf, Reference):
                visit(leaf.name)
        path.pop()
        order[name] = None

    for name in parsed:
        visit(name)
    return list(order)


class _Parser:
    """Recursive descent over the tokens of one expression; `""` is the token after the last."""

    def __init__(self, text: str, key: str) -> None:
        self._text = text
        self._key = key
        self._tokens = list(self._scan())
        self._next = 0
        self._open = 0

    def parse(self) -> Expression:
        if len(self._tokens) == 1:
            raise self._error("the expression is empty", 0)
        expression = self._any()
        if self._peek():
            raise self._error(f"expected '&', '|' or the end, found {self._peek()!r}", self._column())
        return expression

    def _scan(self) -> Iterator[tuple[str, int]]:
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._error(
                    f"unexpected character {self._text[at]!r}; a model whose id has such a character needs a var", at
                )
            at = match.end()
            token = match["name"] or match["sign"]
            yield token, at - len(token)
        yield "", end

    def _any(self) -> Expression:
        parts = [self._all()]
        while self._take("|"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._atom()]
        while self._take("&"):
            parts.append(self._atom())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _atom(self) -> Expression:
        if self._take("("):
            opened = self._tokens[self._next - 1][1]
            self._open += 1
            if self._open > DEEPEST:
                raise self._error(f"brackets are nested more than {DEEPEST} deep", opened)
            expression = self._any()
            self._open -= 1
            if not self._take(")"):
                raise self._error(f"')' is missing for the '(' of column {opened + 1}", self._column())
            return expression
        if self._take("+"):
            return Reference(self._name("the name of a set after '+'"))
        return Name(self._name("a model, '+' or '('"))

    def _name(self, wanted: str) -> str:
        token = self._peek()
        if not token or token in "&|()+":
            raise self._error(f"expected {wanted}, found {repr(token) if token else 'the end'}", self._column())
        self._next += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _column(self) -> int:
        return self._tokens[self._next][1]

    def _take(self, sign: str) -> bool:
        found = self._peek() == sign
        self._next += found
        return found

    def _error(self, message: str, at: int) -> ConfigError:
        return ConfigError(f"column {at + 1}: {message}: {self._text!r}", key=self._key)
