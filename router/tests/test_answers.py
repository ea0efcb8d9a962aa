"""What the outermost middleware makes of what handlers raise."""

from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from ringcast_router.errors import Refused
from ringcast_router.front import answers


async def outcome(error: BaseException, *, client_is_there: bool = True, begun: bool = False) -> Any:
    """Return how a request is answered whose handler raises `error`."""
    transport = mock.Mock(is_closing=lambda: not client_is_there)
    writer = mock.Mock(output_size=100 if begun else 0)
    request = make_mocked_request("GET", "/v1/x", transport=transport, writer=writer)

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise error

    return await answers.errors(request, handler)


async def test_a_refusal_says_when_to_come_back() -> None:
    response = await outcome(Refused(429, "full", code="queue_full", retry_after=1.2))
    assert (response.status, response.headers["Retry-After"]) == (429, "2")
    assert (await outcome(Refused(503, "soon", retry_after=0))).headers["Retry-After"] == "1"
    assert "Retry-After" not in (await outcome(Refused(404, "never"))).headers


async def test_a_redirect_stays_a_redirect() -> None:
    with pytest.raises(web.HTTPFound):
        await outcome(web.HTTPFound("/ui"))


async def test_a_client_that_has_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    await outcome(ConnectionResetError(), client_is_there=False)
    assert not caplog.records


async def test_a_connection_that_fails_elsewhere_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert (await outcome(ConnectionResetError())).status == 500
    assert caplog.records


async def test_an_error_after_the_answer_began_cuts_the_answer_off() -> None:
    with pytest.raises(LookupError):  # whereupon the server closes the connection
        await outcome(LookupError(), begun=True)
