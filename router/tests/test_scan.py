"""What the scanner of JSON bodies finds, whatever the document and wherever its chunks end."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.errors import Refused
from ringcast_router.front import scan as front_scan
from ringcast_router.front.scan import MAX_DEPTH, MAX_MEMBERS, MAX_NAME, SLICE, JSONScanner, Member, in_slices

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=8)


def scan(data: bytes, cuts: list[int] | None = None) -> list[Member]:
    """Feed `data` in chunks that end at `cuts`."""
    scanner = JSONScanner()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, end in itertools.pairwise(places):
        scanner.feed(data[start:end])
    return scanner.close()


def in_bytes(data: bytes) -> list[Member]:
    return scan(data, list(range(len(data))))


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        scan(data)
    return caught.value


@given(document=OBJECTS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 3]), cuts=st.lists(st.integers(0)))
def test_every_member_stands_where_the_scanner_says(
    document: dict[str, Any], ascii_only: bool, indent: int | None, cuts: list[int]
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    members = scan(data, cuts)
    assert [member.name for member in members] == list(document)
    for member in members:
        assert json.loads(data[member.value : member.end]) == document[member.name]
        assert json.loads(b"{" + data[member.start : member.end] + b"}") == {member.name: document[member.name]}


@given(document=OBJECTS)
def test_chunks_of_one_byte_give_what_one_chunk_gives(document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    assert in_bytes(data) == scan(data)


@given(document=OBJECTS, cut=st.integers(0))
def test_a_document_that_is_cut_short_is_refused(document: dict[str, Any], cut: int) -> None:
    data = json.dumps(document).encode()
    assert refusal(data[: cut % len(data)]).status == 400


@given(document=OBJECTS, tail=st.sampled_from([b"x", b"{}", b",", b"}", b"\x00"]))
def test_what_follows_the_object_is_refused(document: dict[str, Any], tail: bytes) -> None:
    assert "nothing after the object" in refusal(json.dumps(document).encode() + b" \n" + tail).message


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"{}", []),
        (b"\xef\xbb\xbf{}", []),
        (b" \r\n\t{ } \n", []),
        (b'{"model":"a","model":"b"}', ["model", "model"]),
        (b'{"mod\\u0065l":1}', ["model"]),
        (b'{"\\"":1}', ['"']),
        (b'{"\\\\":"\\\\"}', ["\\"]),
        (b'{"a":{"model":"}"},"b":["]",{}]}', ["a", "b"]),
        (b'{"a":-0.5e+3 ,"b" : null}', ["a", "b"]),
    ],
)
def test_spellings_of_json(data: bytes, names: list[str]) -> None:
    assert [member.name for member in scan(data)] == names
    assert [member.name for member in in_bytes(data)] == names


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"model"',
        b"model=a",
        b"\xef\xbb{}",
        b"\xff\xfe{\x00}\x00",
        b"{",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{,}",
        b'{"a" "b"}',
        b'{"a":1 "b":2}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":nul}',
        b'{"a":[}',
        b'{"a":{]}',
        b'{"a":[1}}',
        b'{"a":"}',
        b'{"a":"\\"}',
        b'{"a\xff":1}',
        b'{"a\\x":1}',
    ],
)
def test_what_is_no_json_object_is_refused_with_400(data: bytes) -> None:
    error = refusal(data)
    assert (error.status, error.code) == (400, "invalid_json")
    with pytest.raises(Refused):
        in_bytes(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'{"' + b"n" * (MAX_NAME + 1) + b'":1}', "a name of more than"),
        (b"{" + b",".join(b'"%d":1' % n for n in range(MAX_MEMBERS + 1)) + b"}", "members"),
        (b'{"a":' + b"[" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a":' + b"1" * 5000 + b"}", "a number of more than"),
    ],
)
def test_what_would_need_memory_without_limit_is_refused(data: bytes, what: str) -> None:
    assert what in refusal(data).message
    with pytest.raises(Refused, match=what):
        in_bytes(data)


def test_a_long_string_passes_in_chunks_without_being_kept() -> None:
    scanner = JSONScanner()
    scanner.feed(b'{"image":"')
    for _ in range(64):
        scanner.feed(b"\\n" + b"A" * 65533 + b"\\")
        scanner.feed(b'"')
    scanner.feed(b'","model":"m"}')
    image, model = scanner.close()
    assert (image.name, image.end - image.value) == ("image", 64 * 65537 + 2)
    assert model.name == "model"


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"}"), (b"{", b"]"), (b"[", b""), (b"[", b"]]")])
def test_a_bracket_that_does_not_belong_is_refused_at_every_depth(depth: int, opening: bytes, closing: bytes) -> None:
    data = b'{"a":' + b"[" * depth + b"1,[]," + opening + b'"]"' + closing + b"]" * depth + b',"b":1}'
    assert refusal(data).status == 400
    with pytest.raises(Refused):
        in_bytes(data)


@pytest.mark.parametrize("dense", [b"[1],", b"[[[[]]]],", b'{"a":{}},', b'"",', b"   "])
async def test_others_run_while_a_large_body_is_scanned(monkeypatch: pytest.MonkeyPatch, dense: bytes) -> None:
    monkeypatch.setattr(front_scan, "PATIENCE", 0)
    data = b'{"p":[' + dense * (100_000 // len(dense)) + b'1],"model":"m"}'
    scanner = JSONScanner()
    turns: list[int] = []
    fed = 0

    def feed(piece: bytes) -> None:
        nonlocal fed
        fed += len(piece)
        scanner.feed(piece)

    async def others() -> None:
        while fed < len(data):
            turns.append(fed)
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    await in_slices(feed, data)
    await waiting
    assert [member.name for member in scanner.close()] == ["p", "model"]
    assert max(after - before for before, after in itertools.pairwise(turns)) <= SLICE
    assert len(turns) >= len(data) // SLICE
