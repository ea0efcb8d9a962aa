"""The HTTP server: what it prepares when it starts, and its end for clients that are just connecting."""

import asyncio
import errno
import logging
import socket
import tempfile

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


async def test_connections_that_are_not_accepted_for_want_of_files_are_told_of_in_one_line(serve, caplog):
    """asyncio tells of each with a traceback, a thousand times a second."""
    await serve("models: {}")
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "too many files"),
    }
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            asyncio.get_running_loop().call_exception_handler(context)
    assert [record.getMessage() for record in caplog.records] == [
        "connections are not accepted for want of files: [Errno 24] too many files"
    ]


async def test_the_folder_of_temporary_files_is_found_while_there_is_room(serve, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    await serve("models: {}")
    assert tempfile.tempdir is not None
