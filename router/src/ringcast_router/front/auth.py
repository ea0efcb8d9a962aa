"""Who may ask: API keys, their scopes and priorities, and the answers to a browser's preflight."""

import base64
import hmac
import re
from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from ringcast_router.config.model import Key
from ringcast_router.errors import Refused, quoted
from ringcast_router.front.answers import let_pages_read
from ringcast_router.front.keys import ROUTER

# What needs no key, as in the original.
PUBLIC = frozenset({"/", "/health", "/wol-health", "/favicon.ico", "/upstream"})
# What needs a key whose `admin` is true: it stops models, or shows commands, logs and requests of others.
_ADMIN = re.compile(r"/(api|logs|running|unload|metrics)(/|$)")

_KEY = web.RequestKey("key", Key)
_ANYBODY = Key("", admin=True)
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request pass whose key is one of the configuration's, and answer each OPTIONS.

    A request that a key let in loses its credentials: they are the router's, and no model server gets them. Without
    keys in the configuration they pass, for a model server may want a key of its own.

    Raises:
        Refused: The key is missing or unknown (401), or does not reach that far (403).
    """
    if request.method == "OPTIONS":  # a browser sends its preflight without credentials
        return preflight(request)
    keys = request.app[ROUTER].config.keys
    if keys and request.path not in PUBLIC:
        key = find(keys, credentials(request))
        if key is None:
            raise Refused(
                401,
                "the API key is missing or unknown: send one as `Authorization: Bearer KEY` or `x-api-key: KEY`",
                code="invalid_api_key",
            )
        if not key.admin and _ADMIN.match(request.path):
            raise Refused(403, f"this API key may not use {quoted(request.path)}", code="admin_only")
        request[_KEY] = key
    return await handler(request)


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """See `answers.let_pages_read`."""
    let_pages_read(request, response)


def key_of(request: web.Request) -> Key:
    """Return the key that let the request in; one that may do everything where the configuration has no keys."""
    key: Key = request.get(_KEY, _ANYBODY)
    return key


def allowed(key: Key, model: str) -> bool:
    """Say whether a key may use the model with the id `model`."""
    return key.models is None or model in key.models


def priority_of(request: web.BaseRequest, key: Key) -> int:
    """Return the priority of a key's request: the key's, or what `X-Priority` asks for, up to the key's maximum.

    Raises:
        Refused: `X-Priority` is not a number (400).
    """
    asked = request.headers.get("X-Priority")
    if asked is None:
        return key.priority
    try:
        return min(int(asked), max(key.max_priority, key.priority))
    except ValueError:
        raise Refused(400, f"X-Priority must be a whole number, not {quoted(asked)}", param="X-Priority") from None


def credentials(request: web.BaseRequest) -> str:
    """Return the key that a request brings: Basic's password, else Bearer's token, else x-api-key; "" without any."""
    scheme, _space, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            _user, _colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            password = ""
        if password:
            return password
    if scheme.lower() == "bearer" and value:
        return value.strip()
    return request.headers.get("x-api-key", "")


def find(keys: Sequence[Key], given: str) -> Key | None:
    """Return the key that `given` is. Takes the same time whichever it is, and however much of it is right."""
    found = None
    for key in keys:
        if hmac.compare_digest(key.key.encode(), given.encode("utf-8", "surrogateescape")):
            found = found or key
    return found


def preflight(request: web.BaseRequest) -> web.Response:
    """Return the answer to OPTIONS: pages of every origin may ask, with the headers that they name."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    names = [name.strip() for name in asked.split(",") if _TOKENS.fullmatch(name.strip())]
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": ", ".join(names) or "Content-Type, Authorization, Accept, X-Requested-With",
            "Access-Control-Max-Age": "86400",
        },
    )
