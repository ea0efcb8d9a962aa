r"""What a model's `filters` and `useModelName` change in a JSON body.

In this order: the model's name, `stripParams`, `setParams` sorted by name, `setParamsByID` of the name that the client
used. `model` itself can be neither stripped nor set. A name with dots is a path into nested objects, as in the
original (`chat_template_kwargs.enable_thinking`); `\.` is a dot that belongs to the name.

Only the members that change are parsed. The others are copied as they came, byte by byte; what is set comes last.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ringcast_router.config.model import Model
from ringcast_router.errors import Refused
from ringcast_router.front.body import Body, Span
from ringcast_router.front.scan import Member

_GONE = object()
_STEP = re.compile(r"(?:[^.\\]|\\.|\\$)+")


def rewrite(body: Body, members: Sequence[Member], model: Model, requested: str) -> list[bytes | Span] | None:
    """Return the body that the model's server gets, as parts for `Body.outgoing`; None where nothing changes.

    Args:
        body: The body as it came.
        members: Its top level, as the scanner found it.
        model: Says what to change.
        requested: The name that the client used, an id or an alias.

    Raises:
        Refused: A nested value that must change is no JSON or nested too deeply (400), or too large to change (413).
    """
    filters = model.filters
    if not (model.use_model_name or filters.strip_params or filters.set_params or filters.set_params_by_id):
        return None
    try:
        return _changed(body, members, model, requested)
    except RecursionError:  # what can be parsed may still be too deep to be written
        raise Refused(400, "a value that has to be changed is nested too deeply", code="invalid_json") from None


def _changed(body: Body, members: Sequence[Member], model: Model, requested: str) -> list[bytes | Span] | None:
    filters = model.filters
    changes = _Changes(body, members)
    if model.use_model_name:
        changes.values["model"] = model.use_model_name
    for name in sorted({name.strip() for name in filters.strip_params.split(",")} - {"", "model"}):
        changes.strip(_path(name))
    for params in (filters.set_params, filters.set_params_by_id.get(requested, {})):
        for name in sorted(params.keys() - {"model"}):
            changes.set(_path(name), params[name])
    return changes.parts()


class _Changes:
    """The members of the top level that differ from those of the body."""

    def __init__(self, body: Body, members: Sequence[Member]) -> None:
        self.values: dict[str, Any] = {}  # by name; _GONE for those that are stripped
        self._body = body
        self._members = members

    def set(self, path: Sequence[str], value: Any) -> None:
        """Set what `path` names; objects on the way that are missing are made."""
        top, *rest = path
        self.values[top] = _with(self._current(top), rest, value) if rest else value

    def strip(self, path: Sequence[str]) -> None:
        """Take away what `path` names, where there is such a thing."""
        top, *rest = path
        if not rest:
            self.values[top] = _GONE
        elif isinstance(current := self._current(top), dict):
            self.values[top] = _without(current, rest)

    def parts(self) -> list[bytes | Span] | None:
        """Return the new body: the members that stay, in runs copied with the commas between them, then those set."""
        added = [(name, value) for name, value in self.values.items() if value is not _GONE]
        if not added and not any(member.name in self.values for member in self._members):
            return None
        pieces: list[bytes | Span] = []
        run: Span | None = None
        for member in self._members:
            if member.name not in self.values:
                run = (run[0] if run else member.start, member.end)
            elif run:
                pieces.append(run)
                run = None
        if run:
            pieces.append(run)
        pieces += [_encoded(name, value) for name, value in added]
        parts: list[bytes | Span] = [b"{"]
        for index, piece in enumerate(pieces):
            parts += (b",", piece) if index else (piece,)
        return [*parts, b"}"]

    def _current(self, name: str) -> Any:
        """Return the value of a member as it is by now; _GONE where there is none."""
        if name in self.values:
            return self.values[name]
        member = next((member for member in reversed(self._members) if member.name == name), None)
        return _GONE if member is None else value_of(self._body, member)


def _encoded(name: str, value: Any) -> bytes:
    text = json.dumps({name: value}, ensure_ascii=False, default=str)[1:-1]
    return text.encode(errors="backslashreplace")  # a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape


def value_of(body: Body, member: Member) -> Any:
    """Return the parsed value of a member.

    Raises:
        Refused: It is no JSON or nested too deeply (400), or longer than fits in memory (413).
    """
    try:
        return json.loads(body.read(member.value, member.end))
    except ValueError as error:
        raise Refused(400, f"the value of {member.name!r} is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise Refused(400, f"the value of {member.name!r} is nested too deeply", code="invalid_json") from None


def _with(current: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    fields: Mapping[str, Any] = current if isinstance(current, dict) else {}
    return {**fields, path[0]: _with(fields.get(path[0]), path[1:], value)}


def _without(current: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {name: value for name, value in current.items() if name != first}
    nested = current.get(first)
    return {**current, first: _without(nested, rest)} if isinstance(nested, dict) else dict(current)


def _path(name: str) -> list[str]:
    if "." not in name:
        return [name]
    return [re.sub(r"\\(.)", r"\1", step) for step in _STEP.findall(name)] or [name]
