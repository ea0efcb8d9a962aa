"""Finds the fields of a multipart form while its bytes arrive, without keeping its files."""

from collections.abc import Sequence
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple, NoReturn

from ringcast_router.errors import Refused
from ringcast_router.front.body import Body, Span

MAX_PARTS = 1000
MAX_HEADERS = 16 * 1024  # bytes of the headers of one part
MAX_VALUE = 4096  # bytes of the field `model`


class Part(NamedTuple):
    """One part of a form: the field's name, "" without one, and where its content stands in the body, in bytes."""

    name: str
    start: int
    end: int


class FormScanner:
    """Takes a `multipart/form-data` body in chunks, which may end anywhere. One object for each body, one thread.

    Args:
        content_type: The request's `Content-Type`.

    Attributes:
        parts: The parts that are complete, in their order.

    Raises:
        Refused: The content type names no boundary (400).
    """

    def __init__(self, content_type: str) -> None:
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_boundary()
        if not boundary:
            self._refuse("its Content-Type names no boundary")
        self.parts: list[Part] = []
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        # The first delimiter may begin the body: then the line break that belongs to it is thought.
        self._rest = b"\r\n"
        self._offset = -len(self._rest)  # of the first byte of `_rest`
        self._name: str | None = None  # of the part that is open
        self._start = 0
        self._in_headers = False
        self._complete = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refused: They cannot belong to a form (400).
        """
        if self._complete:  # what follows the last delimiter means nothing
            return
        data = self._rest + chunk if self._rest else chunk
        at = 0
        while not self._complete:
            if self._in_headers:
                # `at` is after a delimiter: "--" ends the form, else a line break, headers and an empty line follow.
                if data.startswith(b"--", at):
                    self._complete = True
                    break
                end = data.find(b"\r\n\r\n", at)
                if end < 0:
                    if len(data) - at > MAX_HEADERS:
                        self._refuse(f"the headers of a part have more than {MAX_HEADERS} bytes")
                    break
                self._open_part(data[at:end], end + 4)
                at = end + 4
            else:
                found = data.find(self._delimiter, at)
                if found < 0:
                    at = max(at, len(data) - len(self._delimiter) + 1)
                    break
                self._close_part(found)
                at = found + len(self._delimiter)
                self._in_headers = True
        self._rest = b"" if self._complete else data[at:]
        self._offset += at

    def close(self) -> list[Part]:
        """Return the parts. Call when all bytes are fed.

        Raises:
            Refused: The form is not complete (400).
        """
        if not self._complete:
            self._refuse("it ends too early")
        return self.parts

    def _open_part(self, headers: bytes, start: int) -> None:
        if len(self.parts) == MAX_PARTS:
            self._refuse(f"it has more than {MAX_PARTS} parts")
        _padding, line_break, lines = headers.partition(b"\r\n")
        try:
            parsed = BytesHeaderParser().parsebytes(lines if line_break else b"")
            name = parsed.get_param("name", "", header="content-disposition")
        except (MessageError, ValueError) as error:
            self._refuse(f"the headers of a part cannot be read: {error}")
        self._name = str(name[2] if isinstance(name, tuple) else name)
        self._start = self._offset + start
        self._in_headers = False

    def _close_part(self, end: int) -> None:
        if self._name is not None:
            self.parts.append(Part(self._name, self._start, max(self._start, self._offset + end)))
            self._name = None

    def _refuse(self, what: str) -> NoReturn:
        raise Refused(400, f"the body is not a multipart form: {what}", code="invalid_form")


def field(body: Body, parts: Sequence[Part], name: str) -> str | None:
    """Return the value of the first field `name`; None where there is none.

    Raises:
        Refused: It is longer than any model's name, or not UTF-8 (400).
    """
    part = next((part for part in parts if part.name == name), None)
    if part is None:
        return None
    if part.end - part.start > MAX_VALUE:
        raise Refused(400, f"the field {name!r} has more than {MAX_VALUE} bytes", param=name)
    try:
        return body.read(part.start, part.end).decode()
    except UnicodeDecodeError:
        raise Refused(400, f"the field {name!r} is not UTF-8", param=name) from None


def rewrite(body: Body, parts: Sequence[Part], name: str, value: str) -> list[bytes | Span]:
    """Return the form with `value` in every field `name`, as parts for `Body.outgoing`."""
    pieces: list[bytes | Span] = []
    at = 0
    for part in parts:
        if part.name == name:
            pieces += [(at, part.start), value.encode()]
            at = part.end
    return [*pieces, (at, body.size)]
