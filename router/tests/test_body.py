"""Where the bytes of a request are kept, and what happens where they cannot be."""

import asyncio
import contextlib
import errno
import io
import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from conftest import wait_until

from ringcast_router.errors import Refused
from ringcast_router.front import ahead as front_ahead
from ringcast_router.front import body as front_body
from ringcast_router.front.ahead import ReadAhead
from ringcast_router.front.body import AT_ONCE, IN_MEMORY, Body, Outgoing


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The temporary files that a test makes."""
    made: list[Any] = []
    original = tempfile.TemporaryFile

    def make() -> Any:
        made.append(original())
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    yield made
    assert all(file.closed for file in made)


async def filled(*chunks: bytes) -> Body:
    body = Body()
    for chunk in chunks:
        await body._append(chunk)
    await body._complete()
    return body


async def all_of(sent: bytes | Outgoing) -> bytes:
    return sent if isinstance(sent, bytes) else b"".join([chunk async for chunk in sent])


@pytest.mark.parametrize("size", [0, 1, AT_ONCE, AT_ONCE + 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY + 5])
@pytest.mark.parametrize("chunk", [70_000, 1 << 18, 3 * IN_MEMORY], ids=["odd", "even", "larger"])
@pytest.mark.parametrize("changed", [False, True], ids=["whole", "changed"])
async def test_what_is_sent_is_what_came(files: list[Any], size: int, chunk: int, changed: bool) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    with await filled(*(data[at : at + chunk] for at in range(0, size, chunk))) as body:
        assert body.size == size
        assert len(files) == (size > IN_MEMORY)
        for start, end in ((0, min(10, size)), (max(0, size - 10), size), (size // 2, size // 2)):
            assert body.read(start, end) == data[start:end]
        if changed:
            sent = body.outgoing([b"<", (size // 3, size // 2), b">", (size // 2, size)])
            expected = b"<" + data[size // 3 : size // 2] + b">" + data[size // 2 :]
        else:
            sent, expected = body.outgoing(), data
        assert await all_of(sent) == expected
        if isinstance(sent, Outgoing):
            assert sent.size == len(expected)
            assert sent.keep(), "another try needs them"
            assert await all_of(sent) == expected
        else:
            assert len(sent) <= AT_ONCE + 2


@pytest.mark.parametrize("size", [1, AT_ONCE, AT_ONCE + 1, IN_MEMORY, 3 * IN_MEMORY])
async def test_what_has_been_sent_is_forgotten(
    files: list[Any], monkeypatch: pytest.MonkeyPatch, until: Any, size: int
) -> None:
    monkeypatch.setattr(front_body, "IDLE_RACE", 0.05)
    with await filled(bytes(size)) as body:
        sent = body.outgoing()
        await all_of(sent)
        await until(lambda: body.size == 0)
        assert all(file.closed for file in files)
        assert not (isinstance(sent, Outgoing) and sent.keep()), "there is nothing left for another try"


async def test_memory_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_size: int) -> Any:
        raise OSError(errno.ENOMEM, "out of luck")

    monkeypatch.setattr(mmap, "mmap", fail)
    with Body() as body, pytest.raises(Refused, match="cannot store a body of this size: out of luck") as caught:
        await body._append(bytes(AT_ONCE + 1))
    assert (caught.value.status, caught.value.code) == (503, "overloaded")


async def test_what_has_to_be_read_at_once_may_not_be_long() -> None:
    with await filled(bytes(2 * IN_MEMORY)) as body, pytest.raises(Refused) as caught:
        body.read(0, IN_MEMORY + 1)
    assert caught.value.status == 413


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files have no room."""
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        yield


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.usefixtures("full_disk")
async def test_a_full_disk_is_told() -> None:
    with Body() as body, pytest.raises(Refused, match="No space left") as caught:
        await body._append(bytes(IN_MEMORY + 1))
    assert (caught.value.status, caught.value.code) == (507, "no_space")


class Broken:
    """A temporary file whose methods of some names fail."""

    def __init__(self, error: OSError, *failing: str) -> None:
        self._file = io.BytesIO()
        self._error = error
        self._failing = failing

    def __getattr__(self, name: str) -> Any:
        if name in self._failing:
            raise self._error
        return getattr(self._file, name)


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (errno.ENOSPC, 507, "no_space"),
        (errno.EDQUOT, 507, "no_space"),
        (errno.EFBIG, 507, "no_space"),
        (errno.EMFILE, 503, "overloaded"),
        (errno.ENFILE, 503, "overloaded"),
        (errno.ENOMEM, 503, "overloaded"),
        (errno.EIO, 500, "storage_failed"),
        (errno.EACCES, 500, "storage_failed"),
        (errno.EROFS, 500, "storage_failed"),
    ],
)
@pytest.mark.parametrize("when", ["opened", "written"])
async def test_what_it_means_that_a_body_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, when: str, number: int, status: int, code: str
) -> None:
    error = OSError(number, "out of luck")

    def make() -> Any:
        if when == "opened":
            raise error
        return Broken(error, "write")

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    with Body() as body, pytest.raises(Refused, match="cannot store a body of this size: out of luck") as caught:
        await body._append(bytes(IN_MEMORY + 1))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert (caught.value.retry_after is not None) == (status == 503)


@pytest.mark.parametrize("failing", ["read", "seek"])
async def test_a_body_that_cannot_be_read_back_is_this_machines_fault(
    monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: Broken(OSError(errno.EIO, "out of luck"), failing))
    with await filled(bytes(2 * IN_MEMORY)) as body:
        with pytest.raises(Refused, match="cannot read back a body of this size: out of luck") as caught:
            body.read(0, 10)
        assert (caught.value.status, caught.value.code) == (500, "storage_failed")
        with pytest.raises(Refused, match="cannot read back"):
            await all_of(body.outgoing())


async def test_no_folder_for_temporary_files_is_told_without_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/secret']")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with Body() as body, pytest.raises(Refused, match=r"there is no folder for temporary files$") as caught:
        await body._append(bytes(IN_MEMORY + 1))
    assert (caught.value.status, caught.value.code) == (500, "storage_failed")


async def test_a_file_that_has_become_shorter_ends_in_an_error_and_not_never(files: list[Any]) -> None:
    with await filled(bytes(2 * IN_MEMORY)) as body:
        files[0].truncate(IN_MEMORY)
        with pytest.raises(Refused, match="shorter than what was written"):
            await all_of(body.outgoing())


@pytest.mark.parametrize("how", ["refused", "broken off"])
async def test_a_body_that_is_not_taken_leaves_no_file(files: list[Any], how: str) -> None:
    """Over a real connection: the scanner refuses after 2 MiB, or the client leaves after that."""
    came: list[BaseException] = []
    reached: list[int] = []

    some_is_stored = asyncio.Event()

    def scan(chunk: bytes) -> None:
        reached.append(len(chunk))
        if sum(reached) > 2 * IN_MEMORY:
            some_is_stored.set()
        if how == "refused" and sum(reached) > 2 * IN_MEMORY:
            raise Refused(400, "enough")

    async def handle(request: web.Request) -> web.Response:
        try:
            await Body.receive(request, scan)
        except BaseException as error:
            came.append(error)
            raise
        return web.Response()

    async def send() -> Any:
        for _ in range(5):
            yield bytes(IN_MEMORY)
        if how == "broken off":
            await some_is_stored.wait()
            raise RuntimeError("the client has no more")

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        with contextlib.suppress(aiohttp.ClientError, RuntimeError):
            await session.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", data=send())
    await runner.cleanup()
    assert came
    assert files


async def test_a_body_on_its_way_that_cannot_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Any:
        raise OSError(errno.ENOSPC, "out of luck")

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    monkeypatch.setattr(front_ahead, "PATIENCE", 0.0)
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(Mock(asyncio.Transport))
    content = StreamReader(protocol, 1 << 30, loop=loop)
    content.feed_data(b"begin")
    ahead = ReadAhead(content)
    chunks = aiter(ahead)
    assert await anext(chunks) == b"begin"
    content.feed_data(bytes(IN_MEMORY))
    content.feed_eof()
    await wait_until(lambda: ahead._reading and ahead._reading.done(), what="the end of the reading")
    with pytest.raises(Refused, match="cannot store a body of this size: out of luck") as caught:
        await anext(chunks)
    assert (caught.value.status, caught.value.code) == (507, "no_space")
    await ahead.close()
