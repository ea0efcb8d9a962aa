"""The end of the HTTP server, for clients that are just connecting."""

import asyncio
import socket

import pytest


@pytest.mark.parametrize("late", range(10), ids="{} turns after".format)
async def test_a_client_that_comes_with_the_end_is_answered_or_refused_at_once(serve, responder, deadline, until, late):
    served = await serve(f"models: {{A: {{cmd: '{responder('A')}'}}}}")
    await served.ask("A")
    in_flight = served.begin("A", wait=3 * deadline)  # else all connections are closed, whatever happened to them
    await until(lambda: served.router.owner.scheduler.in_flight("A"))
    address = served.url.removeprefix("http://").split(":")
    client = socket.create_connection(address, timeout=deadline)  # not yet accepted: the loop has had no turn
    closing = asyncio.create_task(served.server.close())
    for _ in range(late):  # in which the connection is accepted, made, and the server closed, one after the other
        await asyncio.sleep(0)
    try:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n")
        answer = await asyncio.to_thread(client.recv, 64)
    except ConnectionError:
        answer = b""
    finally:
        client.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 200 OK")
    in_flight.cancel()
    await closing
