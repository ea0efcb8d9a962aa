"""Finds the members of a JSON object's top level while its bytes arrive, without keeping them.

A request's body can be 100 MB of base64, and the model's name can be its last member. The scanner sees each byte once,
in chunks that may end anywhere, and remembers only where each member of the top level stands. What is nested is
skipped: strings and brackets must be closed in order there, the rest is left to the model server, which parses it.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from ringcast_router.errors import Refused

MAX_MEMBERS = 10_000
MAX_NAME = 4096  # bytes of a member's name
MAX_SCALAR = 4096  # bytes of a number
MAX_DEPTH = 10_000
SLICE = 1 << 12  # bytes that are scanned at once
PATIENCE = 0.002  # seconds after which others may run before the next slice

# Possessive, so that nothing is remembered for a way back: a string can be as long as the body. Each match ends at the
# first byte that does not belong, or at the end of the chunk.
_BLANK = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_FLAT = rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+'
_LOW = rb"%b(?:(?:\[%b\]|\{%b\})%b)*+" % (_FLAT, _FLAT, _FLAT, _FLAT)
# Up to a bracket, or to a string that the chunk does not end; over objects and lists of at most two levels.
# Text between two brackets is looked at three times at most.
_NESTED = re.compile(rb"%b(?:(?:\[%b\]|\{%b\})%b)*+" % (_LOW, _LOW, _LOW, _LOW), re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\r\n,:{}\[\]\"]*+")
# A member whose name ends within the chunk, up to the bracket that opens its value, or to what follows its value, a
# string or a scalar.
_SHORT = re.compile(
    rb'[ \t\r\n]*+"([^"\\]{0,64}+)"[ \t\r\n]*+:[ \t\r\n]*+(?:([\[{])|'
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"|true|false|null|-?(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,20})?)[ \t\r\n]*+([,}]))',
    re.DOTALL,
)
_SCALARS = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_MARK = b"\xef\xbb\xbf"  # the byte order mark, which some clients send
_SPACE, _QUOTE, _BACKSLASH, _COLON, _COMMA, _BRACE, _BRACKET, _END = b' "\\:,{[}'
_CLOSING = {_BRACE: _END, _BRACKET: ord("]")}


async def in_slices(feed: Callable[[bytes], None], data: bytes) -> None:
    """Feed a scanner, and let others run where that takes long.

    Raises:
        Refused: `feed` does.
    """
    began = time.monotonic()
    for at in range(0, len(data), SLICE):
        if at and time.monotonic() - began > PATIENCE:
            await asyncio.sleep(0)
            began = time.monotonic()
        feed(data[at : at + SLICE])


class Member(NamedTuple):
    """Where a member of the top level stands, in bytes from the body's start.

    Attributes:
        name: The name, decoded.
        start: The quote that opens the name.
        value: The first byte of the value.
        end: The byte after the value.
    """

    name: str
    start: int
    value: int
    end: int


class JSONScanner:
    """Takes a JSON object in chunks. One object for each body, one thread.

    Args:
        offset: Where its first byte stands in the body: members are found by their places in that.

    Attributes:
        members: The members of the top level that are complete, in their order; a name can come more than once.
    """

    def __init__(self, offset: int = 0) -> None:
        self.members: list[Member] = []
        self._offset = offset  # of the chunk's first byte
        self._marked = 0  # bytes of the byte order mark seen
        self._escaped = False  # the last chunk ended within an escape
        self._name = bytearray()
        self._scalar = bytearray()
        self._start = self._value = 0
        self._open = bytearray()  # the brackets that would close what is open, innermost last
        # A function, not a bound method: no reference cycle, so a scanner goes with its last reference.
        self._state: _State = JSONScanner._at_mark

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refused: They cannot belong to a JSON object (400).
        """
        at, end = 0, len(chunk)
        while at < end:
            at = self._state(self, chunk, at)
        self._offset += end

    def close(self) -> list[Member]:
        """Return the members. Call when all bytes are fed.

        Raises:
            Refused: The object is not complete (400).
        """
        if self._state is not JSONScanner._after_object:
            self._refuse("the body ends too early" if self._offset else "the body is empty", 0)
        return self.members

    # The states. Each takes the chunk from `at` on, and returns the place up to which it has taken it.

    def _at_mark(self, chunk: bytes, at: int) -> int:
        if self._marked < len(_MARK) and chunk[at] == _MARK[self._marked]:
            self._marked += 1
            return at + 1
        if 0 < self._marked < len(_MARK):
            self._refuse("half a byte order mark", at)
        self._state = JSONScanner._at_object
        return at

    def _at_object(self, chunk: bytes, at: int) -> int:
        return self._expect(chunk, at, _OBJECTS, "a JSON object")

    def _at_first_name(self, chunk: bytes, at: int) -> int:
        at = _end(_BLANK, chunk, at)
        if at < len(chunk):
            if chunk[at] == _END:
                self._state = JSONScanner._after_object
                return at + 1
            self._state = JSONScanner._at_name
        return at

    def _at_name(self, chunk: bytes, at: int) -> int:
        if (short := _SHORT.match(chunk, at)) is not None:  # most members; the rest goes step by step
            self._name += short[1]
            self._start = self._offset + short.start(1) - 1
            end = short.end()
            if short[2]:
                self._value = self._offset + end - 1
                self._open.append(_CLOSING[chunk[end - 1]])
                self._state = JSONScanner._in_nested
            else:
                self._value = self._offset + short.start(3)
                self._add_member(short.end(3))
                self._state = _AFTER[chunk[end - 1]]
            return end
        at = _end(_BLANK, chunk, at)
        self._start = self._offset + at
        return self._expect(chunk, at, _NAMES, "a name in quotes")

    def _in_name(self, chunk: bytes, at: int) -> int:
        quote = self._find_quote(chunk, at)
        self._name += chunk[at:quote]
        if len(self._name) > MAX_NAME:
            self._refuse(f"a name of more than {MAX_NAME} bytes", at)
        if quote < len(chunk):
            self._state = JSONScanner._at_colon
        return quote + 1

    def _at_colon(self, chunk: bytes, at: int) -> int:
        return self._expect(chunk, at, _COLONS, "a colon")

    def _at_value(self, chunk: bytes, at: int) -> int:
        at = _end(_BLANK, chunk, at)
        if at == len(chunk):
            return at
        self._value = self._offset + at
        first = chunk[at]
        if first == _QUOTE:
            self._state = JSONScanner._in_string
            return at + 1
        if first in _CLOSING:
            self._open.append(_CLOSING[first])
            self._state = JSONScanner._in_nested
            return at + 1
        self._state = JSONScanner._in_scalar
        return at

    def _in_string(self, chunk: bytes, at: int) -> int:
        quote = self._find_quote(chunk, at)
        if quote < len(chunk):
            self._add_member(quote + 1)
        return quote + 1

    def _in_scalar(self, chunk: bytes, at: int) -> int:
        end = _end(_SCALAR, chunk, at)
        self._scalar += chunk[at:end]
        if len(self._scalar) > MAX_SCALAR:
            self._refuse(f"a number of more than {MAX_SCALAR} bytes", at)
        if end < len(chunk):
            if not _SCALARS.fullmatch(self._scalar):
                self._refuse("no JSON value", at)
            self._scalar.clear()
            self._add_member(end)
        return end

    def _in_nested(self, chunk: bytes, at: int) -> int:
        while (at := _end(_NESTED, chunk, at)) < len(chunk):
            byte = chunk[at]
            at += 1
            if byte == _QUOTE:  # a string that the chunk does not close
                self._state = JSONScanner._in_nested_string
                return at
            if byte in _CLOSING:
                self._open.append(_CLOSING[byte])
                if len(self._open) > MAX_DEPTH:
                    self._refuse(f"nested deeper than {MAX_DEPTH} levels", at)
            elif byte != self._open.pop():
                self._refuse(f"{chr(byte)} closes nothing", at - 1)
            elif not self._open:
                self._add_member(at)
                return at
        return at

    def _in_nested_string(self, chunk: bytes, at: int) -> int:
        quote = self._find_quote(chunk, at)
        if quote < len(chunk):
            self._state = JSONScanner._in_nested
        return quote + 1

    def _after_value(self, chunk: bytes, at: int) -> int:
        return self._expect(chunk, at, _AFTER, "a comma or }")

    def _after_object(self, chunk: bytes, at: int) -> int:
        return self._expect(chunk, at, _NOTHING, "nothing after the object")

    # What several states do.

    def _expect(self, chunk: bytes, at: int, states: "Mapping[int, _State]", what: str) -> int:
        """Go past blanks and one byte, which decides the next state."""
        if at < len(chunk) and chunk[at] <= _SPACE:
            at = _end(_BLANK, chunk, at)
        if at < len(chunk):
            state = states.get(chunk[at])
            if state is None:
                self._refuse(f"{what} is expected", at)
            self._state = state
        return at + 1

    def _find_quote(self, chunk: bytes, at: int) -> int:
        """Return the place of the quote that closes the string, or the chunk's end."""
        if self._escaped:
            self._escaped = False
            at += 1
        at = _end(_STRING, chunk, at)
        if at < len(chunk) and chunk[at] == _BACKSLASH:  # what it escapes is in the next chunk
            self._escaped = True
            at += 1
        return at

    def _add_member(self, end: int) -> None:
        if len(self.members) == MAX_MEMBERS:
            self._refuse(f"more than {MAX_MEMBERS} members", end)
        try:
            name = json.loads(b'"' + self._name + b'"') if _BACKSLASH in self._name else self._name.decode()
        except ValueError:
            self._refuse("a name that is not UTF-8, or has a wrong escape", end)
        self._name.clear()
        self.members.append(Member(name, self._start, self._value, self._offset + end))
        self._state = JSONScanner._after_value

    def _refuse(self, what: str, at: int) -> NoReturn:
        raise Refused(400, f"the body is not a JSON object: {what} (at byte {self._offset + at})", code="invalid_json")


_State = Callable[[JSONScanner, bytes, int], int]

# For each place the bytes that may stand there, and the state after each.
_OBJECTS: Mapping[int, _State] = {_BRACE: JSONScanner._at_first_name}
_NAMES: Mapping[int, _State] = {_QUOTE: JSONScanner._in_name}
_COLONS: Mapping[int, _State] = {_COLON: JSONScanner._at_value}
_AFTER: Mapping[int, _State] = {_COMMA: JSONScanner._at_name, _END: JSONScanner._after_object}
_NOTHING: Mapping[int, _State] = {}


def _end(pattern: re.Pattern[bytes], chunk: bytes, at: int) -> int:
    match = pattern.match(chunk, at)
    assert match is not None  # each pattern matches the empty string
    return match.end()
