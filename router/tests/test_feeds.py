"""The event feed and the log streams: what readers are told, and that a reader who does not read delays nobody."""

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager

import psutil
import pytest
from limits import DEADLINE

from ringcast_router.events import LogLines, ModelStateChanged

MIB = 1 << 20
PIECE = 64 * 1024


class Feed:
    """A reader of `/api/events`."""

    def __init__(self, response):
        self.response = response

    async def message(self):
        """The next message: its type, and what its `data` says."""
        async with asyncio.timeout(DEADLINE):
            block = await self.response.content.readuntil(b"\n\n")
        first, second, *rest = block.decode().split("\n")
        assert first == "event:message"
        assert second.startswith("data:{")
        assert rest == ["", ""]
        envelope = json.loads(second.removeprefix("data:"))
        assert envelope.keys() == {"type", "data"}
        return envelope["type"], json.loads(envelope["data"])

    async def until(self, kind, condition=lambda data: True):
        """The data of the first message of that type of which the condition is true."""
        while True:
            found, data = await self.message()
            if found == kind and condition(data):
                return data


@asynccontextmanager
async def events(served):
    async with served.session.get(served.url + "/api/events") as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        yield Feed(response)


@pytest.fixture
async def served(serve, responder):
    return await serve(
        f"models:\n  A: {{cmd: '{responder('A')}', aliases: [first], name: The A}}\n  B: {{cmd: '{responder('B')}'}}\n"
    )


def state_of(model, state):
    return lambda entries: {entry["id"]: entry["state"] for entry in entries}[model] == state


# /api/events


async def test_a_reader_is_first_told_how_things_are(served):
    async with events(served) as feed:
        messages = [await feed.message() for _ in range(6)]
    assert [kind for kind, _ in messages] == [
        "logData",
        "logData",
        "modelStatus",
        "uiConfig",
        "profileChanged",
        "inflight",
    ]
    assert [messages[0][1]["source"], messages[1][1]["source"]] == ["proxy", "upstream"]
    assert messages[2][1] == [
        {
            "id": "A",
            "name": "The A",
            "description": "",
            "state": "stopped",
            "unlisted": False,
            "peerID": "",
            "aliases": ["first"],
        },
        {"id": "B", "name": "", "description": "", "state": "stopped", "unlisted": False, "peerID": ""},
    ]
    assert messages[4][1] == {"active": None}
    assert messages[5][1] == {"operation": "snapshot", "requests": []}


async def test_each_state_of_a_model_reaches_the_reader(served):
    async with events(served) as feed:
        request = served.begin("A")
        await feed.until("modelStatus", state_of("A", "ready"))
        await request
        unload = asyncio.create_task(served.get("/unload"))
        await feed.until("modelStatus", state_of("A", "stopped"))
        await unload


async def test_requests_are_listed_while_they_are_in_flight(served):
    async with events(served) as feed:
        request = served.begin("A", wait=0.6)
        listed = await feed.until("inflight", lambda data: any(entry["granted"] for entry in data["requests"]))
        (entry,) = listed["requests"]
        assert entry["model"] == "A"
        assert entry["id"].isdigit()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", entry["timestamp"])
        await feed.until("inflight", lambda data: data["requests"] == [])
        await request


async def test_a_finished_request_is_told_as_activity(served):
    async with events(served) as feed:
        await served.ask("A")
        assert (await feed.until("activity"))["id"] >= 1


async def test_a_swap_is_told_with_what_it_evicted_and_why(served):
    await served.ask("A")
    async with events(served) as feed:
        await served.ask("B")
        started = await feed.until("swapStarted")
        assert (started["model"], started["evict"]) == ("B", ["A"])
        assert started["rule"]
        finished = await feed.until("swapFinished")
        assert (finished["ticket"], finished["error"]) == (started["ticket"], "")
        assert finished["seconds"] > 0


async def test_output_of_a_server_is_told_also_when_a_character_comes_in_two_pieces(served):
    text = "größer\n".encode()
    async with events(served) as feed:
        await feed.until("inflight")
        for piece in (text[:3], text[3:]):
            served.router.logs.write("A", piece)
        got = ""
        while "\n" not in got:
            data = await feed.until("logData", lambda data: data["source"] == "upstream")
            got += data["data"]
        assert got == "größer\n"


async def test_a_new_configuration_is_told(served):
    async with events(served) as feed:
        await feed.until("inflight")
        served.file.write_text(served.file.read_text().replace("The A", "Another A"))
        await served.post("/api/reload")
        await feed.until("modelStatus", lambda entries: entries[0]["name"] == "Another A")


async def test_the_feed_ends_in_order_when_the_router_shuts_down(served):
    async with events(served) as feed:
        await feed.until("inflight")
        served.router.shutdown()
        async with asyncio.timeout(DEADLINE):
            await feed.response.content.read()  # raises where the end is not the protocol's


@pytest.mark.parametrize("path", ["/api/events", "/logs/stream"])
async def test_a_reader_who_has_left_leaves_nothing_behind(served, until, path):
    kinds = (served.router.bus, ModelStateChanged), (served.router.log_bus, LogLines)

    def subscriptions():
        return [bus.count(event) for bus, event in kinds]

    before = subscriptions()
    async with served.session.get(served.url + path):
        await until(lambda: subscriptions() != before)
    await until(lambda: subscriptions() == before)


# /logs


async def read(served, path, until):
    """What comes from a log stream until `until` has come."""
    got = b""
    async with served.session.get(served.url + path) as response, asyncio.timeout(DEADLINE):
        assert response.status == 200
        assert response.content_type == "text/plain"
        served.router.logs.write("A", b"A says this now\n")
        served.router.logs.write("B", b"B says this now\n")
        served.router.logs.write("proxy", b"the router says this now\n")
        while until not in got:
            chunk = await response.content.readany()
            assert chunk
            got += chunk
    return got.decode()


@pytest.mark.parametrize(
    ("path", "sources"),
    [
        ("/logs/stream", {"A", "B", "the router"}),
        ("/logs/stream/proxy", {"the router"}),
        ("/logs/stream/upstream", {"A", "B"}),
        ("/logs/stream/A", {"A"}),
        ("/logs/stream/first", {"A"}),
        ("/logs/stream/B", {"B"}),
    ],
)
@pytest.mark.parametrize("history", [True, False], ids=["with history", "without"])
async def test_a_log_stream_gives_its_sources_history_and_what_comes(served, path, sources, history):
    served.router.logs.write("A", b"A said this before\n")
    served.router.logs.write("B", b"B said this before\n")
    served.router.logs.write("proxy", b"the router said this before\n")
    last = "the router" if "the router" in sources else "B" if "B" in sources else "A"
    got = await read(served, path if history else f"{path}?no-history", f"{last} says this now\n".encode())
    for source in ("A", "B", "the router"):
        assert (f"{source} said this before\n" in got) == (history and source in sources)
        assert (f"{source} says this now\n" in got) == (source in sources)


async def test_logs_are_what_was_said_so_far(served):
    served.router.logs.write("A", b"A said this before\n")
    answer = await served.get("/logs")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "A said this before\n" in answer.text


async def test_an_unknown_log_is_refused_by_naming_those_that_there_are(served):
    answer = await served.get("/logs/stream/nobody")
    assert answer.status == 400
    assert "proxy, upstream, A, B" in answer.json["error"]["message"]


# A reader who does not read


def connect(served, path):
    """A client who sends a request, and reads nothing."""
    host, port = served.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.connect((host, int(port)))
    client.setblocking(False)
    client.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    return client


async def write_logs(served, pieces):
    for number in range(pieces):
        served.router.logs.write("A", (b"%7d " % number) + b"x" * (PIECE - 9) + b"\n")
        await asyncio.sleep(0)  # other tasks have their turn, as they have between two reads of a pipe


@pytest.mark.parametrize("path", ["/logs/stream/A?no-history", "/logs/stream", "/api/events"])
async def test_a_reader_who_does_not_read_costs_bounded_memory_and_delays_nobody(served, until, path):
    pieces = 100 * MIB // PIECE
    await served.ask("A")
    before_readers = served.router.log_bus.count(LogLines)
    with connect(served, path):
        await until(lambda: served.router.log_bus.count(LogLines) > before_readers)
        await write_logs(served, 400)  # the queues are full now: what they hold is the bound
        before = psutil.Process().memory_info().rss
        writing = asyncio.create_task(write_logs(served, pieces))
        slowest = 0.0
        while not writing.done():
            answer = await served.ask("A")
            assert answer.status == 200
            slowest = max(slowest, answer.seconds)
        await writing
        grown = psutil.Process().memory_info().rss - before
    assert grown < 32 * MIB
    assert slowest < 1.0


async def test_a_reader_who_was_too_slow_is_told_how_much_is_missing(served, until):
    pieces = 800
    before_readers = served.router.log_bus.count(LogLines)
    with connect(served, "/logs/stream/A?no-history") as client:
        await until(lambda: served.router.log_bus.count(LogLines) > before_readers)
        await write_logs(served, pieces)
        loop = asyncio.get_running_loop()
        got = b""
        async with asyncio.timeout(DEADLINE):
            while b"%7d " % (pieces - 1) not in got or not got.endswith(b"x\n"):
                got += await loop.sock_recv(client, MIB)
    numbers = [int(number) for number in re.findall(rb"^ *(\d+) x{100}", got, re.MULTILINE)]
    missing = [int(number) for number in re.findall(rb"\[(\d+) pieces of output are missing here", got)]
    assert numbers == sorted(set(numbers))  # in order, none twice
    assert missing
    assert len(numbers) + sum(missing) == pieces
