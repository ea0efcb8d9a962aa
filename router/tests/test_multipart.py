"""How the fields of a multipart form are found and changed, wherever its chunks end."""

import asyncio
import itertools
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.errors import Refused
from ringcast_router.front import multipart
from ringcast_router.front.body import IN_MEMORY, Body, Outgoing
from ringcast_router.front.multipart import MAX_HEADERS, MAX_PARTS, MAX_VALUE, FormScanner, Part

TYPE = 'multipart/form-data; boundary="xX-b"'
# Content that comes close to a delimiter, so that the search for one has something to go wrong on.
PIECES = st.sampled_from([b"\r", b"\n", b"-", b"--xX", b"xX-b", b"\r\n--xX-", b"a", b"\x00"])
CONTENT = st.lists(PIECES).map(b"".join).filter(lambda content: b"\r\n--xX-b" not in b"\r\n" + content + b"\r\n")
FIELDS = st.lists(st.tuples(st.sampled_from(["model", "file", "n"]), CONTENT), max_size=5)


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [b'--xX-b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v) for n, v in fields]
    return b"".join(parts) + b"--xX-b--\r\n"


def scan(data: bytes, cuts: list[int] | None = None, content_type: str = TYPE) -> list[Part]:
    scanner = FormScanner(content_type)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, end in itertools.pairwise(places):
        scanner.feed(data[start:end])
    return scanner.close()


async def body_with(data: bytes) -> Body:
    body = Body()
    await body._append(data)
    await body._complete()
    return body


async def sent(data: bytes, value: str) -> bytes:
    """Return the form with another model in it, as it is sent."""
    with await body_with(data) as body:
        outgoing = body.outgoing(multipart.rewrite(body, scan(data), "model", value))
        if isinstance(outgoing, Outgoing):
            return b"".join([chunk async for chunk in outgoing])
        return outgoing


@given(fields=FIELDS, cuts=st.lists(st.integers(0)))
def test_every_field_stands_where_the_scanner_says(fields: list[tuple[str, bytes]], cuts: list[int]) -> None:
    data = form(*fields)
    for parts in (scan(data, cuts), scan(data, list(range(len(data))))):
        assert [(part.name, data[part.start : part.end]) for part in parts] == fields


@given(fields=FIELDS, cut=st.integers(0))
def test_a_form_that_is_cut_short_is_refused(fields: list[tuple[str, bytes]], cut: int) -> None:
    data = form(*fields).removesuffix(b"\r\n")
    with pytest.raises(Refused, match="ends too early"):
        scan(data[: cut % len(data)])


@given(fields=FIELDS)
def test_another_model_replaces_the_field_and_nothing_else(fields: list[tuple[str, bytes]]) -> None:
    expected = form(*((name, b"other" if name == "model" else value) for name, value in fields))
    assert asyncio.run(sent(form(*fields), "other")) == expected


def test_a_form_on_disk_is_changed_in_pieces() -> None:
    recording = b"A" * (3 * IN_MEMORY)
    data = form(("model", b"m"), ("file", recording))
    assert asyncio.run(sent(data, "whisper")) == form(("model", b"whisper"), ("file", recording))


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (b'content-disposition: form-data; filename="a; name=b"; name="model"', "model"),
        (b"Content-Disposition: form-data; name=model", "model"),
        (b"Content-Type: text/plain\r\nContent-Disposition: form-data; name=model", "model"),
        (b"Content-Disposition: form-data;\r\n name=model", "model"),
        (b"Content-Type: text/plain", ""),
    ],
)
def test_spellings_of_a_parts_headers(headers: bytes, name: str) -> None:
    data = b"prologue\r\n--xX-b  \r\n" + headers + b"\r\n\r\nvalue\r\n--xX-b--epilogue"
    (part,) = scan(data)
    assert (part.name, data[part.start : part.end]) == (name, b"value")


def test_a_form_as_the_standard_library_writes_it() -> None:
    message = EmailMessage()
    message.make_mixed(boundary="xX-b")
    message.add_attachment(b"abc", "audio", "wav", filename="a.wav", params={"name": "ignored"})
    assert len(scan(message.as_bytes().replace(b"\n", b"\r\n"))) == 1


@pytest.mark.parametrize(
    ("data", "content_type", "what"),
    [
        (b"", TYPE, "ends too early"),
        (form(("model", b"m")), "multipart/form-data", "no boundary"),
        (b"--xX-b\r\nA: " + b"b" * (MAX_HEADERS + 1), TYPE, "headers of a part"),
        (form(*[("n", b"1")] * (MAX_PARTS + 1)), TYPE, "parts"),
    ],
)
def test_what_is_no_form_is_refused_with_400(data: bytes, content_type: str, what: str) -> None:
    with pytest.raises(Refused, match=what) as caught:
        scan(data, content_type=content_type)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("model", b"m")], "m"),
        ([("n", b"1"), ("model", "größe".encode())], "größe"),
        ([("model", b"first"), ("model", b"second")], "first"),
        ([("n", b"1")], None),
        ([("model", b"")], ""),
    ],
)
async def test_the_value_of_a_field(fields: list[tuple[str, bytes]], value: str | None) -> None:
    data = form(*fields)
    with await body_with(data) as body:
        assert multipart.field(body, scan(data), "model") == value


@pytest.mark.parametrize("value", [b"\xff", b"m" * (MAX_VALUE + 1)])
async def test_a_value_that_can_be_no_name_is_refused(value: bytes) -> None:
    data = form(("model", value))
    with await body_with(data) as body, pytest.raises(Refused) as caught:
        multipart.field(body, scan(data), "model")
    assert (caught.value.status, caught.value.param) == (400, "model")
