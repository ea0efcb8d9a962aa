"""The errors that the router answers with: in OpenAI's shape, in Anthropic's on its paths, or as a page or text."""

import html
import logging
import math
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ringcast_router.errors import Refused, quoted

log = logging.getLogger(__name__)

# The words of Anthropic's API. Its client takes the class of its exceptions from the status, `type` is for its user.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_object(refused: Refused, request: web.BaseRequest) -> dict[str, Any]:
    """Return the JSON that tells `refused` to the client of `request`.

    OpenAI's clients read `error`, with `message`, `type`, `param` and `code`. Anthropic's read `error` too, with words
    of their own in `type`, and expect `"type": "error"` beside it; that is added on their paths, and nothing is lost.
    `src` tells the router's errors from those of a model server, as in the original.
    """
    error = {"message": refused.message, "type": refused.type, "param": refused.param, "code": refused.code}
    if not request.path.startswith(("/v1/messages", "/v/messages")):
        return {"src": "ringcast-router", "error": error}
    error["type"] = _ANTHROPIC_TYPES.get(
        refused.status, "api_error" if refused.status >= 500 else "invalid_request_error"
    )
    return {"type": "error", "src": "ringcast-router", "error": error}


def answer(refused: Refused, request: web.BaseRequest) -> web.Response:
    """Return the answer that tells `refused` to the client of `request`, in the form that its `Accept` prefers."""
    form = preferred(request.headers.get("Accept", ""))
    response: web.Response
    if form == "text/html":
        title = f"{refused.status} {html.escape(refused.code or refused.type)}"
        page = f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{html.escape(refused.message)}</p>\n"
        response = web.Response(status=refused.status, text=page, content_type=form)
    elif form == "text/plain":
        response = web.Response(status=refused.status, text=f"{refused.message}\n", content_type=form)
    else:
        response = web.json_response(error_object(refused, request), status=refused.status)
    let_pages_read(request, response)  # also what is answered before the application is asked
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after)))
    if refused.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="ringcast-router"'  # lets a browser ask for the key
    return response


def let_pages_read(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Let the page that asks read the answer, as the preflight promised; what a model's server says of that stays."""
    if origin := request.headers.get("Origin"):
        response.headers.setdefault("Access-Control-Allow-Origin", origin)


def preferred(accept: str) -> str:
    """Return which of the forms of an error the header `Accept` prefers: JSON, unless a page or text comes first."""
    ranked: list[tuple[float, str]] = []
    for entry in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in entry.split(";"))
        if kind in ("application/json", "text/html", "text/plain"):
            ranked.append((_quality(parameters), kind))
    # `max` takes the first of equals, which is the order in which the client names them.
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else "application/json"


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what handlers raise, and what aiohttp raises before it calls one. Must be around the whole application.

    What was not foreseen is logged with its traceback; the client gets a sentence, never the traceback.
    """
    try:
        if (expected := request.headers.get("Expect")) and expected.lower() != "100-continue":
            message = f"nothing is known of Expect: {quoted(expected)}; leave the header out, or send 100-continue"
            raise Refused(417, message, code="expectation_failed", param="Expect")
        return await handler(request)
    except Refused as refused:
        return answer(refused, request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = answer(Refused(error.status, _sentence(error, request), code=_code(error)), request)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            return web.Response(status=499)  # the client has left, and nobody reads this
        log.exception("%s %s failed", request.method, request.path)
        if request.writer.output_size:  # the answer has begun: only its end can tell that something is wrong
            raise
        message = "the router failed to answer; its log says why"
        return answer(Refused(500, message, type="server_error", code="internal_error"), request)


def _sentence(error: web.HTTPException, request: web.Request) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{quoted(request.path)} does not take {request.method}, but {allowed}"
    if error.status == 404:
        return f"there is no {quoted(request.path)} here"
    return error.text or error.reason


def _code(error: web.HTTPException) -> str:
    return error.reason.lower().replace(" ", "_")
