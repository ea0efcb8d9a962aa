"""Who is let in: keys in all their spellings, scopes, priorities, preflights."""

import base64
from collections.abc import Mapping

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from ringcast_router.config.model import Config, Key
from ringcast_router.errors import Refused
from ringcast_router.front import auth
from ringcast_router.front.keys import ROUTER

KEYS = (
    Key("admin-key"),
    Key("plain-key", priority=1, max_priority=5, models=frozenset({"small"}), admin=False),
    Key("schlüssel", priority=3),
)


class WithKeys:
    """What of a router these tests need: a configuration."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.config = Config(keys=keys)


def request_to(
    path: str = "/v1/models",
    headers: Mapping[str, str] | None = None,
    keys: tuple[Key, ...] = KEYS,
    method: str = "GET",
) -> web.Request:
    app = web.Application()
    app[ROUTER] = WithKeys(keys)  # type: ignore[assignment]
    return make_mocked_request(method, path, headers=headers or {}, app=app)


async def ok(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="in")


async def let_in(request: web.Request) -> bool:
    try:
        return (await auth.authenticate(request, ok)).status == 200
    except Refused:
        return False


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, False),
        ({"Authorization": "Bearer admin-key"}, True),
        ({"Authorization": "bearer admin-key"}, True),
        ({"Authorization": "Bearer admin-ke"}, False),
        ({"Authorization": "Bearer admin-key2"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": "admin-key"}, False),
        ({"Authorization": basic("anybody", "admin-key")}, True),
        ({"Authorization": basic("", "admin-key")}, True),
        ({"Authorization": basic("admin-key", "")}, False),
        ({"Authorization": "Basic ???"}, False),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:admin-key").decode()}, False),
        ({"x-api-key": "admin-key"}, True),
        ({"X-API-Key": "plain-key"}, True),
        ({"x-api-key": "other"}, False),
        ({"x-api-key": ""}, False),
        ({"Authorization": "Bearer wrong", "x-api-key": "admin-key"}, False),
        ({"Authorization": basic("", "schlüssel")}, True),
    ],
)
async def test_where_a_key_is_found(headers: dict[str, str], good: bool) -> None:
    assert await let_in(request_to(headers=headers)) is good


@pytest.mark.parametrize("path", sorted(auth.PUBLIC))
async def test_paths_that_need_no_key(path: str) -> None:
    assert await let_in(request_to(path))


@pytest.mark.parametrize(
    "path", ["/v1/models", "/ui", "/ui/", "/healthy", "/health/", "/upstream/m/", "/metrics", "//"]
)
async def test_every_other_path_needs_one(path: str) -> None:
    assert not await let_in(request_to(path))
    assert await let_in(request_to(path, {"x-api-key": "admin-key"}))
    assert await let_in(request_to(path, keys=()))


@pytest.mark.parametrize(
    ("path", "for_all"),
    [
        ("/v1/chat/completions", True),
        ("/v1/models", True),
        ("/ui/models", True),
        ("/upstream/m/x", True),
        ("/api/events", False),
        ("/api/models/unload", False),
        ("/%61pi/reload", False),
        ("/logs", False),
        ("/logs/stream/m", False),
        ("/running", False),
        ("/unload", False),
        ("/metrics", False),
        ("/unloaded", True),
    ],
)
async def test_a_key_that_is_no_administrators_reaches_only_models(path: str, for_all: bool) -> None:
    assert await let_in(request_to(path, {"x-api-key": "plain-key"})) is for_all
    assert await let_in(request_to(path, {"x-api-key": "admin-key"}))


@pytest.mark.parametrize(
    ("key", "keys", "asked", "priority"),
    [
        ("", (), None, 0),
        ("", (), "7", 0),
        ("", (), "-7", -7),
        ("admin-key", KEYS, None, 0),
        ("admin-key", KEYS, "7", 0),
        ("plain-key", KEYS, None, 1),
        ("plain-key", KEYS, "4", 4),
        ("plain-key", KEYS, "9", 5),
        ("plain-key", KEYS, "-2", -2),
        ("schlüssel", KEYS, "9", 3),
    ],
)
async def test_priority_is_the_keys_or_what_is_asked_up_to_its_maximum(
    key: str, keys: tuple[Key, ...], asked: str | None, priority: int
) -> None:
    headers = {"Authorization": basic("", key)} | ({"X-Priority": asked} if asked is not None else {})
    request = request_to(headers=headers, keys=keys)
    assert await let_in(request)
    assert auth.priority_of(request, auth.key_of(request)) == priority


async def test_a_priority_that_is_no_number_is_refused() -> None:
    with pytest.raises(Refused, match="whole number") as caught:
        auth.priority_of(request_to(headers={"X-Priority": "high"}), Key("", admin=True))
    assert caught.value.status == 400


async def test_a_key_reaches_its_models_only() -> None:
    request = request_to(headers={"x-api-key": "plain-key"})
    assert await let_in(request)
    assert auth.allowed(auth.key_of(request), "small")
    assert not auth.allowed(auth.key_of(request), "large")
    assert auth.allowed(auth.key_of(request_to(keys=())), "large")


async def test_every_preflight_is_answered_without_a_key() -> None:
    headers = {"Origin": "http://page", "Access-Control-Request-Headers": "x-a, bad name, Authorization"}
    response = await auth.authenticate(request_to("/v1/anything", headers, method="OPTIONS"), ok)
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Headers"] == "x-a, Authorization"
