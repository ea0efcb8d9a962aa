"""The paths of model requests: find the model's name, wait for its server, pass the request on.

A request that names no model, or whose body is not JSON, is answered with 400 and what is missing; the original answers
404 to both. An unknown model is 404, as OpenAI answers it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from ringcast_router.config.model import Model
from ringcast_router.errors import Refused, quoted
from ringcast_router.front import auth, filters, multipart
from ringcast_router.front.body import Body, Span
from ringcast_router.front.forward import Sent, body_of, forward
from ringcast_router.front.keys import ROUTER
from ringcast_router.front.loading import loading_stream
from ringcast_router.front.multipart import FormScanner
from ringcast_router.front.scan import JSONScanner, Member
from ringcast_router.front.websocket import forward_upgrade, is_upgrade
from ringcast_router.processes import State

BODY_PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/rerank",
    "/reranking",
    "/v1/rerank",
    "/v1/reranking",
    "/infill",
    "/completion",
    "/v1/audio/speech",
    "/v1/audio/voices",
    "/v1/audio/transcriptions",
    "/v1/images/generations",
    "/v1/images/edits",
    "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img",
    "/audioapi/v1/tasks/run",
)
# Servers without the prefix /v1: the model's server is asked for the path without /v.
UNPREFIXED_PATHS = (
    "/v/chat/completions",
    "/v/responses",
    "/v/completions",
    "/v/messages",
    "/v/messages/count_tokens",
    "/v/embeddings",
    "/v/rerank",
    "/v/reranking",
)
QUERY_PATHS = ("/v1/audio/voices", "/sdapi/v1/loras", "/props")


_KINDS: Mapping[type, str] = {dict: "an object", list: "a list", bool: "a boolean"}


def routes() -> list[web.RouteDef]:
    """Return the routes of this module."""
    return [
        *(web.post(path, by_body) for path in (*BODY_PATHS, *UNPREFIXED_PATHS)),
        *(web.get(path, by_query) for path in QUERY_PATHS),
    ]


async def by_body(request: web.Request) -> web.StreamResponse:
    """Serve a request whose body, a JSON object or a multipart form, names the model."""
    path = request.rel_url.raw_path_qs
    if path.startswith("/v/"):
        path = path.removeprefix("/v")
    scanner = FormScanner(request.headers["Content-Type"]) if _is_form(request) else JSONScanner()
    with await Body.receive(request, scanner.feed) as body:
        asked = _asked_in_form(body, scanner) if isinstance(scanner, FormScanner) else _asked_in_json(body, scanner)
        return await serve(request, asked.model, path, asked)


async def by_query(request: web.Request) -> web.StreamResponse:
    """Serve a request whose query names the model."""
    return await serve(request, _checked(request.query.get("model"), "the query"), request.rel_url.raw_path_qs)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for.

    Attributes:
        model: The name that the client uses.
        streams: Whether the client wants a stream of events.
        sent: Returns what the model's server gets for it: the body as it is, or changed as the model says.
    """

    model: str
    streams: bool
    sent: Callable[[Model], Awaitable[Sent]]


async def serve(
    request: web.Request, name: str, path: str, asked: Asked | None = None, *, only_ready: bool = False
) -> web.StreamResponse:
    """Wait for a model's server, pass the request on, and say when it is over.

    Args:
        request: The client's request.
        name: The model's id, or an alias.
        path: The path and query to ask the model's server for, encoded.
        asked: What the body asks for; None passes the body on as it comes.
        only_ready: The request may not load the model: 409 unless it is ready.

    Returns:
        The answer, which is sent already.

    Raises:
        Refused: The model is unknown (404) or closed to this key (403), the router has no place for the request, the
            server did not start or did not answer.
    """
    router = request.app[ROUTER]
    model_id = router.config.model_id(name)
    if model_id is None:
        raise Refused(404, f"the model {quoted(name)} does not exist", code="model_not_found", param="model")
    key = auth.key_of(request)
    if not auth.allowed(key, model_id):
        raise Refused(
            403, f"this API key may not use the model {quoted(name)}", code="model_not_allowed", param="model"
        )
    priority = auth.priority_of(request, key)
    model = router.config.models[model_id]
    upgrade = asked is None and is_upgrade(request)
    uncounted = upgrade and model.ignore_websockets
    process = router.processes[model_id]
    if (only_ready or uncounted) and process.state is not State.READY:
        raise Refused(
            409, f"the model {quoted(name)} is not loaded, and this request does not load it", code="not_loaded"
        )
    if uncounted:
        return await forward_upgrade(request, process.model, path)
    pending = router.owner.submit(model_id, priority=priority)
    status = 0
    try:
        if asked is not None and model.send_loading_state and not pending.is_granted and _tells(asked, path):
            response, status = await loading_stream(request, pending, path, asked.sent)
            return response
        if asked is None and not upgrade and not pending.is_granted and request.body_exists:
            # Only a client that is read from is seen to leave, and one that has left must not load a model.
            with await Body.receive(request) as body:
                process = await pending.granted()
                response = await forward(request, process.model, path, body.outgoing())
        else:
            process = await pending.granted()
            if upgrade:
                response = await forward_upgrade(request, process.model, path)
            elif asked is not None:
                # The body by no name of its own, which would keep it while the answer is written.
                response = await forward(request, process.model, path, await asked.sent(process.model))
            else:
                async with body_of(request) as sent:
                    forwarding = forward(request, process.model, path, sent)
                    del sent  # as above
                    response = await forwarding
        status = response.status
        return response
    except Refused as refused:
        status = refused.status
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if pending.aborted is None or request.writer.output_size or task is None:
            raise
        task.uncancel()
        status = pending.aborted.status
        raise pending.aborted from None
    finally:
        pending.end(status)


def _tells(asked: Asked, path: str) -> bool:
    """Say whether the client reads a stream in which it can be told of loading."""
    return asked.streams and path.startswith("/v1/chat/completions")


def _is_form(request: web.BaseRequest) -> bool:
    # Clients are careless about the type of JSON (curl says form-urlencoded), so all that is no form is tried as JSON.
    return request.headers.get("Content-Type", "")[:10].lower() == "multipart/"


def _asked_in_json(body: Body, scanner: JSONScanner) -> Asked:
    members = scanner.close()
    # of members of one name the last counts, as for every parser that model servers use
    values = {member.name: member for member in members if member.name in ("model", "stream")}
    name = _checked(_value(body, values.get("model")), "the JSON body")
    streams = _value(body, values.get("stream")) is True
    return Asked(name, streams, partial(_sent_json, body, members, name))


def _asked_in_form(body: Body, scanner: FormScanner) -> Asked:
    parts = scanner.close()
    model = multipart.field(body, parts, "model")
    return Asked(_checked(model, "the form"), False, partial(_sent_form, body, parts))


def _value(body: Body, member: Member | None) -> object:
    """Return the value of a member; of an object or a list an empty one, for nobody asks what is in it."""
    if member is None:
        return None
    first = body.read(member.value, member.value + 1)
    if first in (b"{", b"["):
        return {} if first == b"{" else []
    try:
        return json.loads(body.read(member.value, member.end).decode())
    except ValueError as error:
        raise Refused(400, f"the value of {member.name!r} is not JSON: {error}", code="invalid_json") from None


async def _sent_json(body: Body, members: Sequence[Member], requested: str, model: Model) -> Sent:
    return body.outgoing(await filters.rewrite(body, members, model, requested))


async def _sent_form(body: Body, parts: Sequence[multipart.Part], model: Model) -> Sent:
    changed: list[bytes | Span] | None = None
    if model.use_model_name:
        changed = multipart.rewrite(body, parts, "model", model.use_model_name)
    return body.outgoing(changed)


def _checked(name: object, where: str) -> str:
    if isinstance(name, str) and name:
        return name
    if name is None or name == "":
        what = "names no model"
    else:
        what = f"has {_KINDS.get(type(name), 'a number')} as its model, not a name"
    raise Refused(400, f"{where} {what}: add the parameter `model`", code="missing_model", param="model")
