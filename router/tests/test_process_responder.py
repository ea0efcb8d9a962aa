"""The responder as a model server: the clients that users have can use it, and its knobs do what they say."""

import hashlib
import os
import sys

import aiohttp
import anthropic
import openai
import psutil
import pytest
from conftest import responder_command, wait_until

from ringcast_router import responder
from ringcast_router.config.model import Model
from ringcast_router.logs import LogStore
from ringcast_router.ports import LOOPBACK, free_ports
from ringcast_router.processes import Process, State

WORDS = "".join(f"w{number} " for number in range(10))
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def start(no_child_left):
    """`await start(**flags)` runs a responder named A; its `model.proxy` is its URL."""
    started = []

    async def start_one(cmd=None, **flags):
        port = free_ports()
        cmd = cmd or responder_command("A", port=port, **flags)
        model = Model("A", cmd=cmd.replace("${PORT}", str(port)), proxy=f"http://{LOOPBACK}:{port}")
        process = Process(model, logs=LogStore(), changed=lambda *_: None)
        started.append(process)
        await process.start()
        return process

    yield start_one
    for process in started:
        await process.stop(grace=0)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_file_runs_by_its_path(start):
    process = await start(f"{sys.executable} -I {responder.__file__} --port ${{PORT}}")
    assert process.state is State.READY


async def test_the_package_openai_can_use_it(start):
    process = await start()
    async with openai.AsyncOpenAI(base_url=f"{process.model.proxy}/v1", api_key="k") as client:
        chat = await client.chat.completions.create(model="x", messages=HELLO)
        assert (chat.choices[0].message.content, chat.usage.completion_tokens, chat.model) == (WORDS, 10, "A")
        options = {"stream": True, "stream_options": {"include_usage": True}, "extra_body": {"n": 3}}
        chunks = [c async for c in await client.chat.completions.create(model="x", messages=HELLO, **options)]
        assert "".join(chunk.choices[0].delta.content for chunk in chunks[:-1]) == "w0 w1 w2 "
        assert (chunks[-2].choices[0].finish_reason, chunks[-1].usage.completion_tokens) == ("stop", 3)
        assert (await client.completions.create(model="x", prompt="p")).choices[0].text == WORDS
        vectors = (await client.embeddings.create(model="x", input=["a", "bcd"])).data
        assert [vector.embedding[0] for vector in vectors] == [1.0, 3.0]
        assert [model.id async for model in client.models.list()] == ["A"]
        heard = await client.audio.transcriptions.create(model="whisper", file=("a.wav", bytes(70_000)))
        assert (heard.text, heard.model, heard.sizes) == ("heard by A", "whisper", {"model": 7, "file": 70_000})


async def test_the_package_anthropic_can_use_it(start):
    process = await start()
    async with anthropic.AsyncAnthropic(base_url=process.model.proxy, api_key="k") as client:
        message = await client.messages.create(model="x", max_tokens=5, messages=HELLO)
        assert (message.content[0].text, message.usage.output_tokens) == (WORDS, 10)
        async with client.messages.stream(model="x", max_tokens=5, messages=HELLO) as stream:
            assert "".join([text async for text in stream.text_stream]) == WORDS
            assert (await stream.get_final_message()).usage.output_tokens == 10


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65_535, 65_536, 300_000])
async def test_a_websocket_gets_its_messages_back(start, session, size):
    process = await start()
    async with session.ws_connect(f"{process.model.proxy}/ws") as socket:
        await socket.send_bytes(message := os.urandom(size))
        assert await socket.receive_bytes() == message
        await socket.ping()
        await socket.send_str("text")
        assert await socket.receive_str() == "text"


@pytest.mark.parametrize("chunked", [False, True])
async def test_any_other_path_tells_what_was_sent(start, session, chunked):
    process = await start()
    body = os.urandom(300_000)

    async def pieces():
        for at in range(0, len(body), 70_000):
            yield body[at : at + 70_000]

    url = f"{process.model.proxy}/any/path?x=1"
    async with session.put(url, data=pieces() if chunked else body, headers={"X-Mine": "2"}) as response:
        told = await response.json()
    assert (told["method"], told["path"], told["headers"]["x-mine"]) == ("PUT", "/any/path?x=1", "2")
    assert (told["length"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("where", ["query", "header", "body"])
async def test_knobs_are_taken_from_query_header_and_body(start, session, where):
    process = await start()
    options = {"query": {}, "header": {"headers": {"X-Responder-Status": "429"}}, "body": {"json": {"status": 429}}}
    url = process.model.proxy + ("/x?status=429" if where == "query" else "/x")
    async with session.post(url, **options[where]) as response:
        assert response.status == 429


@pytest.mark.parametrize("knob", ["die", "cut"])
async def test_a_stream_that_is_broken_ends_visibly_after_so_many_chunks(start, session, knob):
    process = await start()
    got = b""
    with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012 - the error comes somewhere in the middle
        async with session.post(f"{process.model.proxy}/v1/completions", json={"stream": True, knob: 3}) as response:
            async for piece in response.content.iter_any():
                got += piece
    assert got.count(b"data: ") == 3
    if knob == "die":
        await wait_until(lambda: process.state is State.STOPPED)
    else:
        assert process.state is State.READY


async def test_the_log_tells_of_a_client_that_leaves(start, session, tmp_path):
    log = tmp_path / "log"
    process = await start(log=log)
    with pytest.raises(TimeoutError):
        await session.get(f"{process.model.proxy}/x?wait=600", timeout=aiohttp.ClientTimeout(total=0.1))
    await wait_until(lambda: " left " in log.read_text())
    assert [line.split()[2] for line in log.read_text().splitlines()] == ["start", "req", "left"]


async def test_it_crashes_at_the_request_that_it_is_told(start, session):
    process = await start(crash_after=2)
    await session.get(f"{process.model.proxy}/x")
    with pytest.raises(aiohttp.ClientError):
        await session.get(f"{process.model.proxy}/x")
    await wait_until(lambda: process.state is State.STOPPED)
    assert "crashed at request 2" in process._logs.tail("A")


def test_it_imports_nothing_of_the_router_and_no_more_than_it_needs():
    heavy = ("aiohttp", "yaml", "ringcast", "email", "hashlib")
    code = f"import sys, ringcast_router.responder; print([name for name in {heavy} if name in sys.modules])"
    assert psutil.Popen([sys.executable, "-c", code], stdout=-1, text=True).communicate()[0] == "[]\n"
