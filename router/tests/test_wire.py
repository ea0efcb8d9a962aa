"""What exact bytes become: paths, headers, errors of HTTP itself, HEAD, origins, and changes of the protocol."""

import asyncio
import json
from typing import Any

import pytest
from limits import DEADLINE
from links import BODY, OK, Link, Upstream, post, raw

from ringcast_router.errors import MOST_QUOTED


async def all_answered(served: Any, data: bytes) -> bytes:
    """Send bytes, and return all that comes until the router closes the connection."""
    reader, writer = await raw(served, data)
    got = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    return got


def get(path: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: r", b"Connection: close", *headers, b"", b""])


# Paths


@pytest.mark.parametrize(
    "path",
    [
        b"/a%0Ab",
        b"/a%0d%0aX-Injected:%201",
        b"/a%2Fb%2fc",
        b"/%2e%2e/./../b//c/",
        b"/a%3Fb%23c?d=%3f%26&e=+%20&&f",
        b"/a??b=?",
        b"/%zz%ff%00",
        b"/x;y=1,2:3@4!$&'()*~[]|",
        b"/",
    ],
)
@pytest.mark.parametrize("prefix", [b"/upstream/m", b"/comfyui"])
async def test_a_path_reaches_the_server_as_it_was_written(
    serve: Any, upstream: Upstream, prefix: bytes, path: bytes
) -> None:
    settings = f"cmd: sleep 3600, proxy: 'http://127.0.0.1:{upstream.port}', checkEndpoint: none"
    served = await serve(f"models:\n  m: {{{settings}}}\n  comfyui_auto: {{{settings}}}\n")
    assert (await all_answered(served, get(prefix + path))).startswith(b"HTTP/1.1 200 OK")
    assert upstream.links[0].first.encode("latin-1") == b"GET " + path + b" HTTP/1.1"


@pytest.mark.parametrize("path", ["/api/models/unload/a%0Ab", "/api/models/load/%0A", "/logs/stream/%0A"])
async def test_an_encoded_line_break_in_a_name_is_a_name_like_any_other(front: Any, path: str) -> None:
    served = await front()
    method = "GET" if path.startswith("/logs") else "POST"
    answer = await served.request(method, path)
    assert answer.json["error"]["code"] in ("model_not_found", "log_not_found")


# Headers


@pytest.mark.parametrize("value", [b"caf\xe9", "caf\u00e9".encode(), b"\xff\xfe\x80", b"a\tb", b""])
async def test_bytes_of_headers_pass_in_both_directions(front: Any, upstream: Upstream, value: bytes) -> None:
    async def script(link: Link) -> None:
        await link.read()
        await link.send(
            OK.replace(b"200 OK", b"200 " + value.replace(b"\t", b" ")).replace(
                b"\r\n", b"\r\nX-A: " + value + b"\r\n", 1
            )
        )

    upstream.script = script
    served = await front()
    got = await all_answered(served, get(b"/upstream/m/x", b"X-Title: " + value, b"Origin: http://" + value))
    head = got.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0].rstrip() == (b"HTTP/1.1 200 " + value.replace(b"\t", b" ")).rstrip()
    assert b"X-A: " + value in head
    assert upstream.links[0].headers["x-title"].encode("latin-1") == value


@pytest.mark.parametrize(
    "header",
    [
        b"Accept: \xe9",
        b"Authorization: Bearer \xe9",
        b"Authorization: Basic \xe9",
        b"x-api-key: \xff",
        b"X-Priority: \xe9",
        b"Origin: \xe9",
        b"Content-Type: \xe9",
        b"Content-Type: multipart/form-data; boundary=\xe9",
        b"Content-Encoding: \xe9",
        b"Expect: \xe9",
        b"Connection: \xe9, close",
        b"Upgrade: \xe9",
        b"Cookie: \xe9",
        b"Host: \xe9",
        b"Access-Control-Request-Headers: \xe9",
    ],
)
@pytest.mark.parametrize("top", ["", "apiKeys: [secret]\n"], ids=["without keys", "with keys"])
async def test_no_header_makes_the_router_fail(front: Any, header: bytes, top: str) -> None:
    served = await front(top=top)
    for method, path in (
        (b"POST", b"/v1/completions"),
        (b"GET", b"/upstream/m/x"),
        (b"OPTIONS", b"/"),
        (b"GET", b"/no"),
    ):
        head = get(path, header, b"Content-Length: %d" % len(BODY), method=method)
        status = int((await all_answered(served, head + BODY)).split()[1])
        assert status < 500, (path, status)


@pytest.mark.parametrize("value", [b"a\x01b", b"a\x7fb", b"a\x00b"])
async def test_a_control_character_in_a_header_is_refused(front: Any, upstream: Upstream, value: bytes) -> None:
    served = await front()
    assert (await all_answered(served, get(b"/upstream/m/x", b"X-A: " + value))).split()[1] == b"400"

    async def script(link: Link) -> None:
        await link.read()
        await link.send(OK.replace(b"\r\n", b"\r\nX-A: " + value + b"\r\n", 1))

    upstream.script = script
    assert (await all_answered(served, get(b"/upstream/m/x"))).split()[1] == b"502"


async def test_headers_that_are_repeated_pass_in_both_directions(front: Any, upstream: Upstream) -> None:
    values = [b"1", b"2, 3", b"1"]

    async def script(link: Link) -> None:
        link.body = await link.reader.readuntil(b"\r\n\r\n")  # here: the head, in which a name may come again
        lines = b"".join(b"Set-Cookie: %b\r\nX-A: %b\r\n" % (value, value) for value in values)
        await link.send(OK.replace(b"\r\n", b"\r\n" + lines, 1))

    upstream.script = script
    served = await front()
    sent = [name + value for value in values for name in (b"X-A: ", b"Cookie: ")]
    got = await all_answered(served, get(b"/upstream/m/x", *sent, b"X-Forwarded-For: a", b"X-Forwarded-For: b"))
    asked = upstream.links[0].body.split(b"\r\n")
    for head, name in (
        (asked, b"X-A: "),
        (asked, b"Cookie: "),
        (got.split(b"\r\n"), b"X-A: "),
        (got.split(b"\r\n"), b"Set-Cookie: "),
    ):
        assert [line for line in head if line.startswith(name)] == [name + value for value in values]
    assert b"X-Forwarded-For: a, b, 127.0.0.1" in asked


# Errors of HTTP itself


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
        (get("/upstream/m/\u00e9".encode()), 400, "bad_request"),
        (get(b"/upstream/m/?\xff"), 400, "bad_request"),
        (b'FO"O / HTTP/1.1\r\nHost: r\r\n\r\n', 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (get(b"*"), 400, "bad_request"),
        (get(b"http://[::1/x"), 400, "bad_request"),
        (get(b"/", b"no colon"), 400, "bad_request"),
        (get(b"/", b"Content-Length: -5"), 400, "bad_request"),
        (get(b"/", b"Content-Length: 5", CHUNKED), 400, "bad_request"),
        (get(b"/", b"X: " + b"a" * 9000), 431, "headers_too_large"),
        (get(b"/", *(b"X-%d: 1" % number for number in range(200))), 431, "headers_too_large"),
        (get(b"/" + b"a" * 9000), 414, "uri_too_long"),
        (get(b"/v1/completions", CHUNKED, method=b"POST") + b"ZZZ\r\n", 400, "bad_request"),
        (get(b"/upstream/m/x", CHUNKED, method=b"POST") + b"ZZZ\r\n", 400, "bad_request"),
        (get(b"/nowhere"), 404, "not_found"),
        (get(b"/v1/completions", method=b"DELETE"), 405, "method_not_allowed"),
        (post(b"{}", "Expect: foo", "Connection: close"), 417, "expectation_failed"),
        (post(b"{}", "Expect: foo", "Connection: close", path="/nowhere"), 417, "expectation_failed"),
        (post(b"{}", f"Expect: {'x' * 5000}", "Connection: close"), 417, "expectation_failed"),
    ],
)
async def test_errors_of_http_are_answered_in_openais_shape(front: Any, data: bytes, status: int, code: str) -> None:
    served = await front()
    got = await all_answered(served, data)
    head, _, body = got.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"Content-Type: application/json" in head
    answer = json.loads(body)
    assert answer["src"] == "ringcast-router"
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code
    assert len(body) < 1000
    assert (await served.get("/health")).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("GET", "/upstream/{}"),
        ("GET", "/{}"),
        ("DELETE", "/api/models/load/{}"),
        ("POST", "/api/models/load/{}"),
        ("POST", "/api/inflight/{}/cancel"),
        ("GET", "/api/plan?model={}"),
        ("GET", "/props?model={}"),
        ("GET", "/logs/stream/{}"),
        ("GET", "/logs/{}"),
    ],
)
@pytest.mark.parametrize("name", ["x" * 5000, "\u00e9" * 1300], ids=["letters", "encoded"])
async def test_an_error_does_not_repeat_a_long_name_at_length(
    front: Any, caplog: pytest.LogCaptureFixture, method: str, path: str, name: str
) -> None:
    served = await front(top="ringcast: {keys: [{key: all, admin: true}, {key: few, models: []}]}\n")
    for key in ("all", "few"):
        options: dict[str, Any] = {"json": {"model": name * 90}} if path == "/v1/completions" else {}
        answer = await served.request(method, path.format(name), headers={"x-api-key": key}, **options)
        assert 400 <= answer.status < 500
        assert len(answer.json["error"]["message"]) < MOST_QUOTED + 150
    assert all(len(record.getMessage()) < MOST_QUOTED + 150 for record in caplog.records)


# HEAD


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/v1/models",
        "/running",
        "/logs",
        "/logs/stream",
        "/logs/stream/m",
        "/api/events",
        "/api/version",
    ],
)
async def test_head_is_answered_with_headers_alone(front: Any, path: str) -> None:
    served = await front()
    reader, writer = await raw(served, get(path.encode(), method=b"HEAD").replace(b"Connection: close\r\n", b""))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    writer.write(get(b"/health"))  # the connection is good for another request
    rest = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b"\r\n\r\nOK")


# Pages of other origins


@pytest.mark.parametrize(
    ("method", "path", "status", "more"),
    [
        ("GET", "/v1/models", 200, {}),
        ("GET", "/running", 200, {}),
        ("GET", "/api/version", 200, {}),
        ("GET", "/api/plan?model=m", 200, {}),
        ("HEAD", "/api/events", 200, {}),
        ("HEAD", "/logs/stream", 200, {}),
        ("POST", "/v1/completions", 200, {}),
        ("POST", "/v1/chat/completions", 200, {}),
        ("GET", "/upstream/m/x", 200, {}),
        ("GET", "/upstream", 302, {}),
        ("GET", "/nowhere", 404, {}),
        ("DELETE", "/v1/models", 405, {}),
        ("OPTIONS", "/v1/models", 204, {}),
        ("GET", "/v1/models", 417, {"Expect": "miracles"}),
    ],
)
async def test_a_page_of_another_origin_may_read_every_answer(
    front: Any, method: str, path: str, status: int, more: dict[str, str]
) -> None:
    served = await front("sendLoadingState: true")
    body = BODY if method == "POST" else None
    headers = {"Origin": "http://page"}
    answer = await served.request(method, path, data=body, headers=headers | more, allow_redirects=False)
    assert answer.status == status
    assert answer.headers.getall("Access-Control-Allow-Origin") in (["http://page"], ["*"])
    assert "Access-Control-Allow-Origin" not in (await served.get("/health")).headers


async def test_what_a_server_says_of_origins_stays(front: Any, upstream: Upstream) -> None:
    async def script(link: Link) -> None:
        await link.read()
        await link.send(OK.replace(b"\r\n", b"\r\nAccess-Control-Allow-Origin: http://only\r\n", 1))

    upstream.script = script
    served = await front()
    answer = await served.get("/upstream/m/x", headers={"Origin": "http://page"})
    assert answer.headers.getall("Access-Control-Allow-Origin") == ["http://only"]


# Changes of the protocol


@pytest.mark.parametrize("setting", [(), ("sendLoadingState: true",)], ids=["plain", "told of loading"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/upstream/m/x"])
async def test_a_change_of_the_protocol_that_nobody_asked_for_is_the_servers_fault(
    front: Any, upstream: Upstream, path: str, setting: Any
) -> None:
    async def script(link: Link) -> None:
        await link.read()
        await link.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
        assert await link.reader.read() == b"", "its connection is of no more use"

    upstream.script = script
    served = await front(*setting)
    answer = await asyncio.wait_for(served.post(path, data=BODY), DEADLINE)
    if setting and "chat" in path:  # told in the stream that has begun
        assert answer.status == 200
        assert "nobody asked for" in answer.text
    else:
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("path", ["/v1/completions", "/upstream/m/x"])
@pytest.mark.parametrize("protocol", ["websocket", "foo"])
async def test_a_body_passes_though_its_request_wishes_another_protocol(
    front: Any, upstream: Upstream, path: str, protocol: str
) -> None:
    served = await front()
    reader, writer = await raw(served, post(BODY, "Connection: Upgrade", f"Upgrade: {protocol}", path=path))
    assert (await asyncio.wait_for(reader.readuntil(b"ok"), DEADLINE)).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.write(get(b"/health"))  # the connection has stayed one of HTTP
    assert (await asyncio.wait_for(reader.read(), DEADLINE)).endswith(b"OK")
    writer.close()
    assert upstream.links[0].body == BODY
    assert "upgrade" not in upstream.links[0].headers


async def test_a_status_that_is_none_is_refused(front: Any, upstream: Upstream) -> None:
    async def script(link: Link) -> None:
        await link.read()
        await link.send(b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok")

    upstream.script = script
    served = await front()
    answer = await served.post("/v1/completions", data=BODY)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")
