"""examples/web_app.py: server-sent events from `bus.stream`.

The client is played by the tests, which speak ASGI with the application as a server does: that way they say when a
client reads and when it goes away. One test has a real server and real clients.
"""

import asyncio
import contextlib
import json

import pytest


@pytest.fixture
def example(load_example):
    return load_example("web_app")


@pytest.fixture
def run(deadline):
    """Runs a coroutine function to its end, with a deadline."""

    def run(main):
        async def within_the_deadline():
            async with asyncio.timeout(deadline):
                return await main()

        return asyncio.run(within_the_deadline())

    return run


class Client:
    """Asks an application for a path, reads the answer message by message, and goes away."""

    def __init__(self, app, path, spec_version="2.3"):
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [],
            "server": ("testserver", 80),
            "client": ("testclient", 50000),
        }
        self._asked = self._gone = False
        self._leave = asyncio.Event()
        self._messages = asyncio.Queue(1)  # the application waits until the client has read
        self._answer = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if self._gone:
            raise OSError("the client has gone")
        await self._messages.put(message)

    async def read(self):
        """The next message: the status and headers first, then pieces of the body; None at the end."""
        message = await self._messages.get()
        if message["type"] == "http.response.start":
            return message["status"], dict(message["headers"])
        return message["body"].decode() if message["more_body"] else None

    async def listening(self):
        """Read until the stream is subscribed."""
        status, headers = await self.read()
        assert (status, headers[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
        assert await self.read() == ": listening\n\n"
        return self

    async def leave(self):
        """Go away, and wait for the application to notice, as a server of ASGI 2.3 does."""
        self._leave.set()
        await self._answer

    async def leave_in_silence(self):
        """Go away so that the application notices when it sends, as with a server of ASGI 2.4."""
        self._gone = True


def ticks_of(messages):
    """The ticks in the body of an answer, and how many were missed before each."""
    missed = 0
    for message in messages.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in message.splitlines())
        if fields.get("event") == "missed":
            missed = int(fields["data"])
        elif "data" in fields:
            yield missed, json.loads(fields["data"])
            missed = 0


def test_ticks_of_another_thread_arrive_in_order(example, bus, run, spawn):
    async def main():
        client = await Client(example.make_app(bus), "/ticks").listening()
        published = spawn(lambda: [bus.publish(example.Tick("ABC", price)) for price in (1.5, 2.5, 3.5)])
        messages = [await client.read() for _ in range(3)]
        assert published.result() == [1, 1, 1]
        await client.leave()
        return messages

    assert run(main) == [f'data: {{"symbol": "ABC", "price": {price}}}\n\n' for price in (1.5, 2.5, 3.5)]


def test_a_client_is_sent_only_what_it_has_asked_for(example, bus, run):
    async def main():
        client = await Client(example.make_app(bus), "/ticks?symbol=ABC").listening()
        for symbol in ("XYZ", "ABC"):
            bus.publish(example.Tick(symbol, 1.0))
        message = await client.read()
        await client.leave()
        return message

    assert list(ticks_of(run(main))) == [(0, {"symbol": "ABC", "price": 1.0})]


def test_the_stream_ends_when_its_client_goes(example, bus, run):
    async def main():
        app = example.make_app(bus)
        first, second = await Client(app, "/ticks").listening(), await Client(app, "/ticks").listening()
        assert bus.count(example.Tick) == 2
        await first.leave()
        assert bus.count(example.Tick) == 1
        bus.publish(example.Tick("ABC", 1.0))
        assert "1.0" in await second.read()
        await second.leave()
        assert bus.count(example.Tick) == 0

    run(main)


def test_the_stream_ends_when_sending_shows_that_the_client_has_gone(example, bus, run):
    async def main():
        client = await Client(example.make_app(bus), "/ticks", spec_version="2.4").listening()
        await client.leave_in_silence()
        bus.publish(example.Tick("ABC", 1.0))
        with contextlib.suppress(Exception):  # ClientDisconnect, which servers take for what it is
            await client._answer
        assert bus.count(example.Tick) == 0

    run(main)


def test_a_client_that_does_not_read_misses_the_oldest_and_holds_up_nobody(example, bus, run, spawn):
    published = 10 * example.BACKLOG

    async def main():
        app = example.make_app(bus)
        slow, quick = await Client(app, "/ticks").listening(), await Client(app, "/ticks?symbol=END").listening()
        spawn(lambda: [bus.publish(example.Tick("ABC", price)) for price in range(published)]).result()
        bus.publish(example.Tick("END", 0.0))
        assert "END" in await quick.read()  # while the slow one has not read anything
        body = ""
        while "END" not in body:
            body += await slow.read()
        await slow.leave()
        await quick.leave()
        return body

    received = list(ticks_of(run(main)))
    prices = [tick["price"] for _, tick in received[:-1]]
    assert prices == sorted(prices)
    assert prices[-1] == published - 1
    assert len(received) + sum(missed for missed, _ in received) == published + 1
    assert len(received) < published


def test_clients_are_counted(example, bus, run):
    async def main():
        app = example.make_app(bus)
        listener = await Client(app, "/ticks").listening()
        asking = Client(app, "/clients")
        assert (await asking.read())[0] == 200
        message = await asking._messages.get()
        await listener.leave()
        return message["body"]

    assert run(main) == b"1"


def test_streams_end_when_the_dispatcher_closes(example, bus, run):
    async def main():
        client = await Client(example.make_app(bus), "/ticks").listening()
        bus.publish(example.Tick("ABC", 1.0))
        await bus.aclose()
        assert "1.0" in await client.read()
        assert await client.read() is None
        await client._answer

    run(main)


def test_a_real_server_streams_to_real_clients(example, make_bus, spawn, eventually, deadline):
    httpx = pytest.importorskip("httpx")
    bus = make_bus()
    app = example.make_app(bus)
    config = example.uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = example.uvicorn.Server(config)
    served = spawn(server.run)
    try:
        eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=deadline, trust_env=False) as http:
            with http.stream("GET", "/ticks") as answer:
                lines = answer.iter_lines()
                assert next(lines) == ": listening"
                bus.publish(example.Tick("ABC", 1.0))
                assert next(line for line in lines if line) == 'data: {"symbol": "ABC", "price": 1.0}'
                assert http.get("/clients").text == "1"
            eventually(lambda: http.get("/clients").text == "0")  # the connection is closed
    finally:
        server.should_exit = True
        served.result(deadline)


def test_ticks_are_published_until_told_to_stop(example, bus, spawn, recorder, deadline):
    stop = example.threading.Event()
    bus.subscribe(example.Tick, recorder)
    publishing = spawn(example.publish_ticks, bus, stop)
    assert {tick.symbol for tick in recorder.wait_for(2)} == {"ABC", "XYZ"}
    stop.set()
    publishing.result(deadline)
