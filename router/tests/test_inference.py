"""Model requests from the client's side: how the model is named, what is changed, and what is answered to mistakes."""

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest

from ringcast_router.events import RequestFinished
from ringcast_router.front.inference import BODY_PATHS, QUERY_PATHS, UNPREFIXED_PATHS

PLAIN = """
models:
  A: {{cmd: '{}', aliases: [a, org/alias]}}
  org/A: {{cmd: '{}'}}
"""


@pytest.fixture
async def served(serve: Any, responder: Any) -> Any:
    """A router with the models `A` (also `a` and `org/alias`) and `org/A`."""
    return await serve(PLAIN.format(responder("A"), responder("org/A")))


# Paths


@pytest.mark.parametrize("path", [*BODY_PATHS, *UNPREFIXED_PATHS])
async def test_every_path_with_a_body_leads_to_the_model_that_it_names(served: Any, path: str) -> None:
    answer = await served.post(path, json={"model": "a", "messages": [], "input": "x"})
    assert answer.status == 200
    if "path" in answer.json:  # the responder knows no such API, and tells what it was asked
        assert answer.json["path"] == (path.removeprefix("/v") if path.startswith("/v/") else path)
        assert answer.json["name"] == "A"


@pytest.mark.parametrize("path", QUERY_PATHS)
async def test_every_path_with_a_query_leads_to_the_model_that_it_names(served: Any, path: str) -> None:
    answer = await served.get(path, params={"model": "org/alias", "x": "y z"})
    assert (answer.json["name"], answer.json["method"]) == ("A", "GET")
    assert answer.json["path"].startswith(f"{path}?model=org")


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
async def test_a_form_names_its_model(served: Any, path: str) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF" * 1000, filename="a.wav")
    form.add_field("model", "a")
    answer = await served.post(path, data=form)
    assert (answer.status, answer.json["model"]) == (200, "a")


async def test_a_form_gets_the_name_that_the_server_knows(serve: Any, responder: Any) -> None:
    served = await serve(f"models:\n  A: {{cmd: '{responder('A')}', useModelName: whisper-1}}\n")
    form = aiohttp.FormData()
    form.add_field("model", "A")
    form.add_field("file", io.BytesIO(bytes(3_000_000)), filename="a.wav")
    answer = await served.post("/v1/audio/transcriptions", data=form)
    assert (answer.status, answer.json["model"]) == (200, "whisper-1")


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " identity , identity", ","])
async def test_a_body_without_a_coding_may_say_so(served: Any, coding: str) -> None:
    answer = await served.post(
        "/v1/chat/completions", data=b'{"model":"A","messages":[]}', headers={"Content-Encoding": coding}
    )
    assert answer.status == 200


# Mistakes


async def test_a_model_that_is_nested_deeply_is_a_mistake_like_any_other(served: Any) -> None:
    """Which depth can be parsed, and which can be written, depends on Python's version and on the stack in use."""
    for depth in (*range(850, 1000), *range(9900, 9990, 10), 11_000):
        answer = await served.post("/v1/chat/completions", data=b'{"model":' + b"[" * depth + b"]" * depth + b"}")
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"data": b""}, 400, "invalid_json"),
        ({"data": b"model=A"}, 400, "invalid_json"),
        ({"data": b'["model"]'}, 400, "invalid_json"),
        ({"data": b'{"model":"A"'}, 400, "invalid_json"),
        ({"data": b'{"model":"\xff"}'}, 400, "invalid_json"),
        ({"json": {}}, 400, "missing_model"),
        ({"json": {"model": ""}}, 400, "missing_model"),
        ({"json": {"model": None}}, 400, "missing_model"),
        ({"json": {"model": ["A"]}}, 400, "missing_model"),
        ({"json": {"model": "B"}}, 404, "model_not_found"),
        ({"json": {"model": {"a": 1}}}, 400, "missing_model"),
        ({"data": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, None),
        ({"data": b"x", "headers": {"Content-Encoding": "identity, gzip"}}, 415, None),
        ({"data": b"x", "headers": [("Content-Encoding", "identity"), ("Content-Encoding", "br")]}, 415, None),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "invalid_form"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "invalid_form"),
        ({"json": {"model": "A"}, "headers": {"X-Priority": "high"}}, 400, None),
    ],
)
async def test_mistakes_are_answered_in_openais_shape(
    served: Any, options: dict[str, Any], status: int, code: str | None
) -> None:
    answer = await served.post("/v1/chat/completions", **options)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}
    assert set(served.states().values()) == {"stopped"}


async def test_mistakes_of_get_requests(served: Any) -> None:
    assert (await served.get("/props")).status == 400
    assert (await served.get("/props?model=B")).status == 404
    answer = await served.get("/v1/chat/completions")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.json["error"]["code"] == "method_not_allowed"
    assert (await served.get("/nowhere")).json["error"]["message"] == "there is no '/nowhere' here"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/event-stream", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("text/plain", "text/plain"),
        ("text/html;q=0.5, application/json;q=0.9", "application/json"),
        ("text/plain;q=x, text/html;q=0.1", "text/html"),
    ],
)
async def test_an_error_has_the_form_that_the_client_prefers(served: Any, accept: str, kind: str) -> None:
    answer = await served.post("/v1/completions", json={"model": "<b>"}, headers={"Accept": accept})
    assert answer.status == 404
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    assert ("<b>" in answer.text) is (kind != "text/html"), "what a client sent is not markup"


async def test_a_page_of_another_origin_can_read_an_error(served: Any) -> None:
    answer = await served.post("/v1/completions", json={}, headers={"Origin": "http://page"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://page"


async def test_anthropics_paths_answer_in_anthropics_shape(served: Any) -> None:
    answer = await served.post("/v1/messages", json={"model": "B"})
    assert answer.status == 404
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "not_found_error"


async def test_an_unforeseen_error_is_logged_and_its_traceback_kept_from_the_client(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise LookupError("inner secret")

    monkeypatch.setattr(served.router.owner, "submit", broken)
    answer = await served.ask("A")
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "inner secret" in caplog.text


async def test_a_model_that_cannot_start_is_an_error_with_its_last_words(serve: Any, responder: Any) -> None:
    served = await serve(f"models:\n  A: {{cmd: '{responder('A', crash_after=0)}'}}\n")
    answer = await served.ask("A")
    assert answer.status in (500, 503)
    assert "this is the reason" in answer.json["error"]["message"]


# Filters and keys


async def test_filters_go_by_the_name_that_the_client_used(serve: Any, responder: Any) -> None:
    served = await serve(
        f"""
models:
  A:
    cmd: '{responder("A")}'
    useModelName: real
    filters:
      stripParams: "temperature"
      setParams: {{n: 3}}
      setParamsByID: {{"A:five": {{n: 5}}}}
"""
    )
    for name, words in (("A", 3), ("A:five", 5)):
        answer = await served.ask(name, temperature=1, n=1)
        assert len(answer.json["choices"][0]["message"]["content"].split()) == words


async def test_a_key_opens_its_models_only(serve: Any, responder: Any) -> None:
    served = await serve(
        PLAIN.format(responder("A"), responder("org/A"))
        + "ringcast: {keys: [{key: small, models: [A], admin: false}, {key: all}]}\n"
    )
    small, everything = {"Authorization": "Bearer small"}, {"x-api-key": "all"}
    assert (await served.ask("a", headers=small)).status == 200
    answer = await served.ask("org/A", headers=small)
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_allowed")
    assert (await served.get("/upstream/org/A/x", headers=small)).status == 403
    assert (await served.get("/running", headers=small)).status == 403
    assert (await served.get("/running", headers=everything)).status == 200
    answer = await served.ask("A")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="ringcast-router"')


# Straight to a server


@pytest.mark.parametrize(
    ("path", "name", "asked"),
    [
        ("/upstream/A/", "A", "/"),
        ("/upstream/A/x/y?z=1&z=%20", "A", "/x/y?z=1&z=%20"),
        ("/upstream/a//x", "A", "//x"),
        ("/upstream/org/A/x%2Fy", "org/A", "/x%2Fy"),
        ("/upstream/org%2FA/x", "org/A", "/x"),
        ("/upstream/org/alias/A/", "A", "/A/"),
    ],
)
async def test_a_path_leads_straight_to_its_model(served: Any, path: str, name: str, asked: str) -> None:
    from yarl import URL

    for method in ("GET", "DELETE"):
        async with served.session.request(method, URL(served.url + path, encoded=True)) as response:
            answer = await response.json()
            assert (answer["name"], answer["path"], answer["method"]) == (name, asked, method)


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308)])
async def test_a_model_without_its_slash_is_redirected(served: Any, method: str, status: int) -> None:
    answer = await served.request(method, "/upstream/org/alias?x=1", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (status, "/upstream/org/alias/?x=1")
    assert served.state("A") == "stopped"


async def test_a_path_without_a_model_is_404(served: Any) -> None:
    assert (await served.get("/upstream/B/x")).status == 404
    assert (await served.get("/upstream/org/x")).status == 404
    answer = await served.get("/upstream", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/v1/models")


async def test_ignored_paths_are_served_by_a_ready_model_and_load_none(served: Any) -> None:
    answer = await served.get("/upstream/A/style.css")
    assert (answer.status, answer.json["error"]["code"], served.state("A")) == (409, "not_loaded", "stopped")
    assert (await served.get("/upstream/A/page")).status == 200
    assert (await served.get("/upstream/A/style.css")).status == 200


async def test_comfyui_has_a_path_of_its_own(serve: Any, responder: Any) -> None:
    served = await serve(f"models:\n  comfyui_auto: {{cmd: '{responder('C')}'}}\n")
    answer = await served.get("/comfyui/api/queue?x=1")
    assert (answer.json["name"], answer.json["path"]) == ("C", "/api/queue?x=1")
    assert (await served.get("/comfyui", allow_redirects=False)).headers["Location"] == "/comfyui/"


async def test_without_a_comfyui_its_path_is_404(served: Any) -> None:
    assert (await served.get("/comfyui/x")).status == 404


# The stream that tells of loading


def events(answer: Any) -> list[Any]:
    return [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]


def thoughts(answer: Any) -> str:
    deltas = [choice["delta"] for event in events(answer) for choice in event.get("choices", [])]
    return "".join(delta.get("reasoning_content", "") for delta in deltas)


def loading(command: str) -> str:
    return f"sendLoadingState: true\nmodels:\n  A: {{cmd: '{command}'}}\n"


async def test_a_stream_tells_of_loading_and_goes_on_with_the_answer(serve: Any, responder: Any) -> None:
    served = await serve(loading(responder("A", load=1.2)))
    answer = await served.ask("A", stream=True, n=2)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert thoughts(answer).startswith("Loading A\n")
    assert "Ready after" in thoughts(answer)
    contents = [c["delta"].get("content") for event in events(answer) for c in event["choices"]]
    assert "".join(filter(None, contents)) == "w0 w1 "
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {}), ("/v1/chat/completions", {"stream": False}), ("/v1/completions", {"stream": True})],
)
async def test_only_streams_of_chats_tell_of_loading(serve: Any, responder: Any, path: str, body: Any) -> None:
    served = await serve(loading(responder("A")))
    answer = await served.post(path, json={"model": "A", **body})
    assert answer.status == 200
    assert "Loading" not in answer.text


async def test_a_ready_model_has_nothing_to_tell(serve: Any, responder: Any) -> None:
    served = await serve(loading(responder("A")))
    await served.ask("A")
    assert thoughts(await served.ask("A", stream=True)) == ""


async def test_a_load_that_fails_is_an_error_within_the_stream(serve: Any, responder: Any) -> None:
    served = await serve(loading(responder("A", crash_after=0)))
    answer = await served.ask("A", stream=True)
    assert answer.status == 200
    assert "this is the reason" in events(answer)[-1]["error"]["message"]


async def test_an_error_of_the_server_stays_an_error_within_the_stream(serve: Any, responder: Any) -> None:
    served = await serve(loading(responder("A")))
    answer = await served.ask("A", stream=True, status=429)
    assert answer.status == 200
    assert events(answer)[-1]["error"]["type"] == "responder_error"


async def test_a_server_that_dies_within_the_stream_ends_it_visibly(serve: Any, responder: Any) -> None:
    served = await serve(loading(responder("A")))
    with pytest.raises(aiohttp.ClientPayloadError):
        await served.ask("A", stream=True, die=1)


@pytest.mark.parametrize(
    ("flags", "body", "status"),
    [
        ({}, {}, 200),
        ({"crash_after": 0}, {}, 503),  # the load fails
        ({}, {"status": 429}, 429),  # the server refuses
    ],
)
async def test_what_became_of_a_request_is_told_though_its_stream_begins_with_200(
    serve: Any, responder: Any, until: Any, flags: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    served = await serve(loading(responder("A", **flags)))
    finished: list[RequestFinished] = []
    served.router.bus.subscribe(RequestFinished, finished.append, mode="direct")
    assert (await served.ask("A", stream=True, **body)).status == 200
    await until(lambda: finished)
    assert [event.status for event in finished] == [status]


async def test_a_client_that_leaves_while_it_is_told_of_loading_is_forgotten(
    serve: Any, responder: Any, until: Any
) -> None:
    served = await serve(loading(responder("A", load=60)))
    task = served.begin("A", stream=True)
    await until(lambda: served.router.owner.scheduler.waiting("A") == 1)
    task.cancel()
    await until(lambda: served.router.owner.scheduler.waiting("A") == 0)
    await asyncio.gather(task, return_exceptions=True)
