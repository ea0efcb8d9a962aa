"""The clients that people use, unchanged, against a whole router: openai, anthropic, curl."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def served(serve: Any, responder: Any) -> Any:
    """A router with keys, a model `A` and one that cannot start, `broken`."""
    return await serve(
        f"""
models:
  A: {{cmd: '{responder("A")}', aliases: [gpt-4o]}}
  broken: {{cmd: '{responder("broken", crash_after=0)}'}}
ringcast:
  keys: [{{key: secret}}, {{key: narrow, models: [broken]}}]
"""
    )


@pytest.fixture
async def client(served: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client of that router."""
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="secret", max_retries=0) as made:
        yield made


@pytest.fixture
async def claude(served: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client of that router."""
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key="secret", max_retries=0) as made:
        yield made


# openai


async def test_openai_asks_by_an_alias(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (answer.choices[0].message.content or "").startswith("w0 w1")


async def test_openai_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="A", messages=ASK, stream=True, extra_body={"n": 3})
    words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(words) == "w0 w1 w2 "


async def test_openai_lists_models_and_embeds(client: openai.AsyncOpenAI) -> None:
    assert {model.id async for model in await client.models.list()} == {"A", "broken"}
    assert (await client.embeddings.create(model="A", input="x")).data


async def test_openai_sends_a_recording(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(model="A", file=("a.wav", bytes(2_000_000)))
    assert answer is not None


@pytest.mark.parametrize(
    ("model", "key", "error", "code"),
    [
        ("nothing", "secret", openai.NotFoundError, "model_not_found"),
        ("A", "wrong", openai.AuthenticationError, "invalid_api_key"),
        ("A", "narrow", openai.PermissionDeniedError, "model_not_allowed"),
        ("", "secret", openai.BadRequestError, "missing_model"),
        ("broken", "secret", openai.InternalServerError, "start_failed"),
    ],
)
async def test_openai_raises_the_class_that_fits(
    served: Any, model: str, key: str, error: type[openai.APIStatusError], code: str
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=model, messages=ASK)
    assert caught.value.code == code
    assert caught.value.message


async def test_openai_notices_a_stream_that_breaks_off(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="A", messages=ASK, stream=True, extra_body={"cut": 2})
    words = []

    async def read() -> None:
        async for chunk in stream:
            words.append(chunk)

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert words


async def test_openai_raises_what_happens_within_a_stream_that_tells_of_loading(serve: Any, responder: Any) -> None:
    served = await serve(
        f"sendLoadingState: true\nmodels:\n  broken: {{cmd: '{responder('broken', crash_after=0)}'}}\n"
    )
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(model="broken", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="this is the reason"):
            await anext(chunk async for chunk in stream if chunk.choices[0].finish_reason)


async def test_openai_that_leaves_a_stream_frees_the_place(served: Any, client: openai.AsyncOpenAI, until: Any) -> None:
    stream = await client.chat.completions.create(
        model="A", messages=ASK, stream=True, extra_body={"n": 10_000, "gap": 0.01}
    )
    async for _chunk in stream:
        break
    assert served.router.owner.scheduler.in_flight("A") == 1
    await stream.close()
    await until(lambda: served.router.owner.scheduler.in_flight("A") == 0)


# anthropic


async def test_anthropic_asks_and_streams(claude: anthropic.AsyncAnthropic) -> None:
    answer = await claude.messages.create(model="A", max_tokens=9, messages=ASK)
    assert answer.content[0].type == "text"
    async with claude.messages.stream(model="A", max_tokens=9, messages=ASK) as stream:
        text = "".join([word async for word in stream.text_stream])
    assert text.startswith("w0 w1")


@pytest.mark.parametrize(
    ("model", "key", "error", "kind"),
    [
        ("nothing", "secret", anthropic.NotFoundError, "not_found_error"),
        ("A", "wrong", anthropic.AuthenticationError, "authentication_error"),
        ("A", "narrow", anthropic.PermissionDeniedError, "permission_error"),
        ("", "secret", anthropic.BadRequestError, "invalid_request_error"),
        ("broken", "secret", anthropic.InternalServerError, None),
    ],
)
async def test_anthropic_raises_the_class_that_fits(
    served: Any, model: str, key: str, error: type[anthropic.APIStatusError], kind: str | None
) -> None:
    async with anthropic.AsyncAnthropic(base_url=served.url, api_key=key, max_retries=0) as client:
        with pytest.raises(error) as caught:
            await client.messages.create(model=model, max_tokens=9, messages=ASK)
    body: Any = caught.value.body
    assert body["type"] == "error"
    if kind is not None:
        assert body["error"]["type"] == kind


# curl


async def curl(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--no-buffer", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin), 20)
    assert process.returncode is not None
    return process.returncode, output


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
KEY = ("--header", "Authorization: Bearer secret")


@needs_curl
async def test_curl_with_no_content_type_of_json(served: Any) -> None:
    body = json.dumps({"model": "A", "messages": ASK})
    _, output = await curl(*KEY, "--data", body, f"{served.url}/v1/chat/completions")
    assert json.loads(output)["choices"]


@needs_curl
async def test_curl_waits_for_100_before_it_sends_two_megabytes(served: Any) -> None:
    body = json.dumps({"image": "A" * 2_000_000, "model": "A"}).encode()
    expect = ("--header", "Expect: 100-continue", "--data-binary", "@-")
    _, output = await curl(*KEY, *expect, f"{served.url}/v1/images/generations", stdin=body)
    assert json.loads(output)["length"] == len(body)


@needs_curl
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
async def test_curl_reports_a_stream_that_breaks_off(served: Any, version: str) -> None:
    body = json.dumps({"model": "A", "messages": ASK, "stream": True, "cut": 2})
    status, output = await curl(*KEY, version, "--data", body, f"{served.url}/v1/chat/completions")
    assert output.startswith(b"data: ")
    assert status in (18, 56), "a partial answer, or a reset"


@needs_curl
async def test_curl_logs_in_as_a_browser_does(served: Any) -> None:
    _, output = await curl("--user", "anybody:secret", f"{served.url}/running")
    assert json.loads(output)["running"] == []
