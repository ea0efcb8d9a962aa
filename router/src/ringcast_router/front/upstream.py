"""Paths that lead straight to a model's server: `/upstream/MODEL/PATH`, and `/comfyui/PATH` for the model of that name.

Bodies pass as they come: no filter of the model's applies. A path that `upstream.ignorePaths` matches, such as a style
sheet that a browser's open page asks for, is passed on to a model that is ready, and loads none.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

from aiohttp import web

from ringcast_router.config.model import Config
from ringcast_router.errors import Refused, quoted
from ringcast_router.front.inference import serve
from ringcast_router.front.keys import ROUTER

_COMFYUI = "comfyui_auto"


def routes() -> list[web.RouteDef]:
    """Return the routes of this module."""
    return [
        web.get("/upstream", to_models),
        web.route("*", "/upstream/{rest:(?s:.*)}", upstream),
        web.get("/comfyui", to_comfyui),
        web.route("*", "/comfyui/{rest:(?s:.*)}", comfyui),
    ]


async def to_models(_request: web.Request) -> web.StreamResponse:
    """Lead a browser to the list of the models; the original leads to its page of them."""
    raise web.HTTPFound("/v1/models")


async def to_comfyui(_request: web.Request) -> web.StreamResponse:
    """Add the slash without which the page's relative links lead elsewhere."""
    raise web.HTTPMovedPermanently("/comfyui/")


async def upstream(request: web.Request) -> web.StreamResponse:
    """Pass any request on to the model that the path names."""
    rest = request.rel_url.raw_path.removeprefix("/upstream/")
    config = request.app[ROUTER].config
    found = split(config, rest)
    if found is None:
        raise Refused(404, f"no model's name begins {quoted(unquote(rest))}", code="model_not_found", param="model")
    name, path = found
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    if not path:
        location = f"/upstream/{quote(name)}/{query}"
        if request.method in ("GET", "HEAD"):
            raise web.HTTPMovedPermanently(location)
        raise web.HTTPPermanentRedirect(location)
    return await serve(request, name, path + query, only_ready=_ignores(config, path))


async def comfyui(request: web.Request) -> web.StreamResponse:
    """Pass any request on to the model `comfyui_auto`."""
    path = request.rel_url.raw_path_qs.removeprefix("/comfyui")
    ignored = _ignores(request.app[ROUTER].config, path.partition("?")[0])
    return await serve(request, _COMFYUI, path, only_ready=ignored)


def split(config: Config, rest: str) -> tuple[str, str] | None:
    """Split what follows `/upstream/` into a model's name and the path to ask its server for.

    Names can contain slashes, so several can begin the path: the longest counts.

    Args:
        config: Says which names there are.
        rest: The rest of the path, encoded.

    Returns:
        The name, and the path with its leading slash, still encoded, or "" where nothing follows the name; None where
        no name begins `rest`.
    """
    steps = rest.split("/")
    for count in range(len(steps), 0, -1):
        name = unquote("/".join(steps[:count]))
        if config.model_id(name) is not None:
            return name, "".join(f"/{step}" for step in steps[count:])
    return None


def _ignores(config: Config, path: str) -> bool:
    return any(pattern.search(unquote(path)) for pattern in _patterns(config.ignore_paths))


@lru_cache(maxsize=4)
def _patterns(expressions: Sequence[str]) -> list[re.Pattern[str]]:
    return [re.compile(expression) for expression in expressions]
