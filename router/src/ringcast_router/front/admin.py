"""The administrative endpoints: load and unload models, explain a plan, reload, end a request, health, version."""

import dataclasses

from aiohttp import web

from ringcast_router import __version__
from ringcast_router.errors import Refused, quoted
from ringcast_router.front.keys import ROUTER


def routes() -> list[web.RouteDef]:
    """Return the routes of this module."""
    return [
        web.get("/", about),
        web.get("/favicon.ico", no_icon),
        web.get("/health", healthy),
        web.get("/wol-health", healthy),
        web.get("/unload", unload_all, allow_head=False),  # HEAD changes nothing
        web.post("/api/models/unload", unload_all_api),
        web.post("/api/models/unload/{model:(?s:.+)}", unload_one),
        web.post("/api/models/load/{model:(?s:.+)}", load_one),
        web.post("/api/inflight/{id}/cancel", cancel),
        web.get("/api/plan", plan),
        web.post("/api/reload", reload),
        web.get("/api/version", version),
    ]


ABOUT = f"""ringcast-router {__version__}

POST /v1/chat/completions and the other inference paths: the body's "model" names the model
GET  /v1/models     the models            GET  /running       those that are loaded
GET  /unload        unload all            GET  /api/plan?model=X   what a request for X would meet
GET  /api/events    what goes on (SSE)    GET  /logs/stream   the output of the servers
GET  /health        OK                    GET  /api/version   the version
"""


async def about(request: web.Request) -> web.Response:
    """Answer with what there is to see here."""
    return web.Response(text=ABOUT)


async def no_icon(request: web.Request) -> web.Response:
    """Answer browsers, which ask for an icon unasked, with nothing."""
    return web.Response(status=204)


async def healthy(request: web.Request) -> web.Response:
    """Answer that the router runs. Says nothing of the models' servers."""
    return web.Response(text="OK")


async def version(request: web.Request) -> web.Response:
    """Answer with the router's version, in the original's shape."""
    return web.json_response({"version": __version__, "commit": "", "build_date": ""})


async def unload_all(request: web.Request) -> web.Response:
    """Stop all servers, and answer when they are stopped."""
    await request.app[ROUTER].unload()
    return web.Response(text="OK")


async def unload_all_api(request: web.Request) -> web.Response:
    """Do what `unload_all` does, and answer in JSON."""
    await request.app[ROUTER].unload()
    return web.json_response({"msg": "ok"})


async def unload_one(request: web.Request) -> web.Response:
    """Stop the server of one model, and answer when it is stopped."""
    await request.app[ROUTER].unload([_model(request, request.match_info["model"])])
    return web.Response(text="OK")


async def load_one(request: web.Request) -> web.Response:
    """Load a model as a request for it would, and answer when it is ready."""
    await request.app[ROUTER].load(_model(request, request.match_info["model"]))
    return web.Response(text="OK")


async def plan(request: web.Request) -> web.Response:
    """Answer with what a request for `?model=` would meet now. Changes nothing."""
    name = request.query.get("model", "")
    if not name:
        raise Refused(400, "name a model: /api/plan?model=NAME", code="model_missing", param="model")
    return web.json_response(request.app[ROUTER].owner.plan(_model(request, name)))


async def reload(request: web.Request) -> web.Response:
    """Read the configuration again. A bad one changes nothing, and the answer says what is wrong."""
    event = await request.app[ROUTER].reload()
    if event.error:
        raise Refused(422, f"the configuration stays as it was: {event.error}", code="config_invalid")
    return web.json_response(dataclasses.asdict(event))


async def cancel(request: web.Request) -> web.Response:
    """End a request that waits or is being served: its client gets 503, or half an answer where that has begun."""
    wanted = request.match_info["id"]
    for pending in request.app[ROUTER].owner.pending():
        if str(pending.id) == wanted:
            message = "an administrator ended this request"
            pending.abort(Refused(503, message, type="server_error", code="request_cancelled"))
            return web.json_response({"msg": "ok"})
    raise Refused(404, f"no request {quoted(wanted)} is in flight", code="request_not_found")


def _model(request: web.Request, name: str) -> str:
    """Return the id of a model that may be named by an alias."""
    model = request.app[ROUTER].config.model_id(name)
    if model is None:
        message = f"there is no model {quoted(name)}; GET /v1/models lists them"
        raise Refused(404, message, code="model_not_found", param="model")
    return model
