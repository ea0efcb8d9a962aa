r"""What a model's `filters` and `useModelName` change in a JSON body.

In this order: the model's name, `stripParams`, `setParams` sorted by name, `setParamsByID` of the name that the client
used. `model` itself can be neither stripped nor set. A name with dots is a path into nested objects, as in the
original (`chat_template_kwargs.enable_thinking`); `\.` is a dot that belongs to the name.

Bytes that do not change are copied as they came, on every level: a number keeps its digits. What is set comes last.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ringcast_router.config.model import Model
from ringcast_router.front.body import Body, Span
from ringcast_router.front.scan import JSONScanner, Member, in_slices

_GONE = object()
_STEP = re.compile(r"(?:[^.\\]|\\.|\\$)+")


async def rewrite(body: Body, members: Sequence[Member], model: Model, requested: str) -> list[bytes | Span] | None:
    """Return the body that the model's server gets, as parts for `Body.outgoing`; None where nothing changes.

    Args:
        body: The body as it came.
        members: Its top level, as the scanner found it.
        model: Says what to change.
        requested: The name that the client used, an id or an alias.

    Raises:
        Refused: A nested object that must change is malformed (400), or too large to be read at once (413).
    """
    filters = model.filters
    if not (model.use_model_name or filters.strip_params or filters.set_params or filters.set_params_by_id):
        return None
    edit = _Edit()
    if model.use_model_name:
        edit.set(["model"], model.use_model_name)
    for name in sorted({name.strip() for name in filters.strip_params.split(",")} - {"", "model"}):
        edit.strip(_path(name))
    for params in (filters.set_params, filters.set_params_by_id.get(requested, {})):
        for name in sorted(params.keys() - {"model"}):
            edit.set(_path(name), params[name])
    return await _spliced(body, members, edit) if edit.changes else None


class _Edit:
    """What changes in an object.

    Attributes:
        changes: By the member's name: `_GONE`, its new value, or the `_Edit` of an object that stays.
    """

    def __init__(self) -> None:
        self.changes: dict[str, Any] = {}

    def set(self, path: Sequence[str], value: Any) -> None:
        """Set what `path` names; objects on the way that are missing are made."""
        top, *rest = path
        if not rest:
            self.changes[top] = value
            return
        inner = self.changes.setdefault(top, _Edit())
        if isinstance(inner, _Edit):
            inner.set(rest, value)
        else:
            self.changes[top] = _with(inner, rest, value)

    def strip(self, path: Sequence[str]) -> None:
        """Take away what `path` names, where there is such a thing. Not after `set`."""
        top, *rest = path
        if not rest:
            self.changes[top] = _GONE
        elif isinstance(inner := self.changes.setdefault(top, _Edit()), _Edit):
            inner.strip(rest)

    def made(self) -> dict[str, Any]:
        """Return what it sets, as the object that is made where there is none; {} where it only strips."""
        made = {}
        for name, change in self.changes.items():
            value = change.made() or _GONE if isinstance(change, _Edit) else change
            if value is not _GONE:
                made[name] = value
        return made


async def _spliced(body: Body, members: Sequence[Member], edit: _Edit) -> list[bytes | Span] | None:
    """Return an object with an edit made, as parts; None where nothing changes.

    The members that stay come in runs copied with the commas between them, then those that have changed.
    """
    last = {member.name: member for member in members}  # of members of one name the last counts
    changed: dict[str, list[bytes | Span]] = {}  # by name; nothing for those that go
    for name, change in edit.changes.items():
        member = last.get(name)
        if change is _GONE:
            if member is not None:
                changed[name] = []
        elif not isinstance(change, _Edit):
            changed[name] = [_encoded(name, change)]
        elif member is not None and body.read(member.value, member.value + 1) == b"{":
            if (inner := await _spliced(body, await _members_in(body, member), change)) is not None:
                changed[name] = [(member.start, member.value), *inner]
        elif made := change.made():
            changed[name] = [_encoded(name, made)]
    if not changed:
        return None
    pieces: list[list[bytes | Span]] = [[run] for run in _runs(members, changed)]
    pieces += [parts for parts in changed.values() if parts]
    parts: list[bytes | Span] = [b"{"]
    for index, piece in enumerate(pieces):
        parts += [b",", *piece] if index else piece
    return [*parts, b"}"]


def _runs(members: Sequence[Member], changed: Mapping[str, object]) -> list[Span]:
    """Return where the members that do not change stand; neighbours together."""
    runs: list[Span] = []
    together = False
    for member in members:
        if member.name in changed:
            together = False
        else:
            start = runs.pop()[0] if together else member.start
            runs.append((start, member.end))
            together = True
    return runs


async def _members_in(body: Body, member: Member) -> list[Member]:
    scanner = JSONScanner(member.value)
    await in_slices(scanner.feed, body.read(member.value, member.end))
    return scanner.close()


def _encoded(name: str, value: Any) -> bytes:
    text = json.dumps({name: value}, ensure_ascii=False, default=str)[1:-1]
    return text.encode(errors="backslashreplace")  # a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape


def _with(current: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    fields: Mapping[str, Any] = current if isinstance(current, dict) else {}
    return {**fields, path[0]: _with(fields.get(path[0]), path[1:], value)}


def _path(name: str) -> list[str]:
    if "." not in name:
        return [name]
    return [re.sub(r"\\(.)", r"\1", step) for step in _STEP.findall(name)] or [name]
