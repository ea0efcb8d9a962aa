"""A small model server for the demo, the tests and the benchmarks: `python -m ringcast_router.responder --port P`.

Speaks as much of HTTP/1.1 as model servers do, with the standard library alone, and starts quickly. The file can be run
by its path as well.

| path | answer |
| --- | --- |
| /health | 503 until `--load` seconds are over, then 200 |
| /v1/models | a list with the one model |
| /v1/chat/completions, /v1/completions, /v1/embeddings | as OpenAI's; `stream` is heeded |
| /v1/messages | as Anthropic's; `stream` is heeded |
| a multipart form, at any path | the names and sizes of its fields, and the value of `model` |
| /ws | a websocket that sends every message back |
| any other | method, path, headers, length and SHA-256 of the body |

A request is steered by *knobs*: members of its JSON body, else headers such as `X-Responder-Wait`, else its query.

| knob | meaning |
| --- | --- |
| wait | seconds before the answer begins |
| n | how many words the answer has; in a stream, how many chunks (default 10) |
| gap | seconds between two chunks |
| die | after so many chunks (without a stream: at once) the process ends, without a goodbye |
| cut | after so many chunks the connection is closed without the last chunk |
| status | the HTTP status to answer with |
| print | megabytes to write to the standard output first |

With `--log FILE` a line `TIME NAME WHAT PID` is appended for `start`, `req`, `done`, `left` (the client went before the
answer was whole, or the connection was cut as asked), `sigterm` and `exit`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

MEGABYTE = 1_000_000
KNOBS = ("wait", "n", "gap", "die", "cut", "status", "print")
REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Unavailable"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="ringcast_router.responder", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="model", help="the name that answers bear")
    parser.add_argument("--load", type=float, default=0.0, metavar="S", help="seconds for which /health says 503")
    parser.add_argument("--listen-after", type=float, default=0.0, metavar="S", help="seconds before it listens at all")
    parser.add_argument("--ignore-term", action="store_true", help="do not end at SIGTERM")
    parser.add_argument("--stop-delay", type=float, default=0.0, metavar="S", help="seconds from SIGTERM to the end")
    parser.add_argument("--crash-after", type=int, metavar="N", help="end with status 1 at request N; 0: at the start")
    parser.add_argument("--hang", action="store_true", help="take connections, never answer")
    parser.add_argument(
        "--fork-grandchild",
        nargs="?",
        const="group",
        choices=("group", "session"),
        help="have a child that ignores SIGTERM and holds the output open, in the same process group or a new session",
    )
    parser.add_argument("--print", type=float, default=0.0, metavar="MB", dest="megabytes", help="print at the start")
    parser.add_argument("--log", metavar="FILE", help="append what happens to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the server until SIGTERM."""
    options = parse(arguments)
    if options.fork_grandchild:
        fork_grandchild(new_session=options.fork_grandchild == "session")
    print_megabytes(options.megabytes)
    if options.crash_after == 0:
        print(f"{options.name}: cannot load: this is the reason", file=sys.stderr, flush=True)
        sys.exit(1)
    asyncio.run(Responder(options).run())


def fork_grandchild(new_session: bool) -> None:
    """Start a child that holds the standard output open, ignores SIGTERM and does nothing; print its id."""
    pid = os.fork()
    if pid:
        print(f"grandchild {pid}", flush=True)
        return
    if new_session:
        os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def print_megabytes(megabytes: float) -> None:
    """Write lines of 100 bytes to the standard output, in large pieces."""
    piece = (b"x" * 99 + b"\n") * 1000
    left = int(megabytes * MEGABYTE)
    while left > 0:
        sys.stdout.buffer.write(piece[:left])
        left -= len(piece)
    sys.stdout.buffer.flush()


class Request:
    """One request: its head and body, and the knobs that steer the answer."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.path = urlsplit(target).path
        self.headers = headers
        self.body = body
        try:
            parsed = json.loads(body) if body[:1] == b"{" else {}
        except ValueError:
            parsed = {}
        self.json: dict[str, Any] = parsed
        query = parse_qs(urlsplit(target).query)
        self._knobs = {
            knob: float(value)
            for knob in KNOBS
            for value in [parsed.get(knob, headers.get(f"x-responder-{knob}", query.get(knob, [None])[0]))]
            if isinstance(value, (int, float, str))
        }

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> "Request":
        """Read the next request of a connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            pieces = []
            while size := int((await reader.readline()).partition(b";")[0], 16):
                pieces.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            body = b"".join(pieces)
        return cls(method, target, headers, body)

    def knob(self, name: str, default: float = 0.0) -> float:
        """Return what the client set a knob to."""
        return self._knobs.get(name, default)

    def counts_down_to(self, name: str, chunks: int) -> bool:
        """Whether a knob that counts chunks is set, and so many have been sent."""
        return name in self._knobs and chunks >= self._knobs[name]


class Responder:
    """The server.

    Args:
        options: The command line's, as `parse` returns them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._name: str = options.name
        self._began = time.monotonic()
        self._requests = 0

    async def run(self) -> None:
        """Serve until SIGTERM, then end the process."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate, stop)
        self._log("start")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), self._options.listen_after)
        if not stop.is_set():
            await asyncio.start_server(self._serve, self._options.host, self._options.port, limit=1 << 20)
            print(f"{self._name} listens on {self._options.host}:{self._options.port}", flush=True)
        await stop.wait()
        if self._options.stop_delay:
            await asyncio.sleep(self._options.stop_delay)
        self._log("exit")
        sys.stdout.flush()
        os._exit(0)  # connections that are open are no reason to stay

    def _terminate(self, stop: asyncio.Event) -> None:
        self._log("sigterm")
        if not self._options.ignore_term:
            stop.set()

    def _log(self, what: str) -> None:
        if self._options.log:
            with open(self._options.log, "a") as file:
                file.write(f"{time.time():.3f} {self._name} {what} {os.getpid()}\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = False
        try:
            while True:
                request = await Request.read(reader)
                if self._options.hang:
                    await reader.read()  # until the client goes
                    return
                exchange = Exchange(self._name, request, reader, writer)
                if request.path == "/health":
                    loaded = time.monotonic() - self._began >= self._options.load
                    exchange.send(200 if loaded else 503, {"status": "ok" if loaded else "loading model"})
                    await writer.drain()
                    continue
                self._requests += 1
                self._log("req")
                if self._requests == self._options.crash_after:
                    print(f"{self._name}: crashed at request {self._requests}", file=sys.stderr, flush=True)
                    os._exit(1)
                answering = True
                await exchange.answer()
                answering = False
                self._log("done")
        except asyncio.IncompleteReadError:
            pass  # the client has no further request
        except ConnectionError:
            if answering:
                self._log("left")
        finally:
            writer.close()


class Exchange:
    """One request and its answer."""

    def __init__(self, name: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name = name
        self._request = request
        self._reader = reader
        self._writer = writer

    async def answer(self) -> None:
        """Answer the request as its path and knobs say.

        Raises:
            ConnectionError: The client left before the answer was whole, or the connection was cut as asked.
        """
        request = self._request
        print_megabytes(request.knob("print"))
        if request.knob("wait"):
            await self._sleep(request.knob("wait"))
        form = self._form()
        shape = SHAPES.get(request.path)
        if request.headers.get("upgrade", "").lower() == "websocket":
            await self._echo_messages()
        elif status := int(request.knob("status")):
            self.send(status, {"error": {"message": "as asked", "type": "responder_error", "code": status}})
        elif form is not None:
            self.send(200, form)
        elif shape is not None and request.json.get("stream") is True:
            await self._stream(shape)
        elif request.counts_down_to("die", int(request.knob("die"))):
            os._exit(1)
        else:
            self.send(200, self._whole(shape))
        await self._writer.drain()

    def send(self, status: int, answer: dict[str, Any]) -> None:
        """Send a whole answer."""
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def _sleep(self, seconds: float) -> None:
        """Wait, or notice that the client has left. A client that sends its next request early is not foreseen."""
        gone = asyncio.ensure_future(self._reader.read(1))
        done, _ = await asyncio.wait({gone}, timeout=seconds)
        if done:
            raise ConnectionResetError("the client has left")
        gone.cancel()
        await asyncio.wait({gone})

    def _words(self) -> list[str]:
        return [f"w{number} " for number in range(int(self._request.knob("n", 10)))]

    def _whole(self, shape: "type[Shape] | None") -> dict[str, Any]:
        request = self._request
        if shape is not None:
            return shape(self._name, request.json, self._words()).whole()
        if request.path == "/v1/models":
            entry = {"id": self._name, "object": "model", "created": int(time.time()), "owned_by": "responder"}
            return {"object": "list", "data": [entry]}
        if request.path == "/v1/embeddings":
            return embeddings(self._name, request.json)
        from hashlib import sha256

        return {
            "name": self._name,
            "responseMessage": self._name,
            "method": request.method,
            "path": request.target,
            "headers": request.headers,
            "length": len(request.body),
            "sha256": sha256(request.body).hexdigest(),
        }

    async def _stream(self, shape: "type[Shape]") -> None:
        request, writer = self._request, self._writer
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        gap = request.knob("gap")
        for number, event in enumerate(shape(self._name, request.json, self._words()).events()):
            if request.counts_down_to("die", number):
                await writer.drain()
                os._exit(1)
            if request.counts_down_to("cut", number):
                await writer.drain()
                raise ConnectionAbortedError("cut, as asked")
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            if gap:
                await self._sleep(gap)
        writer.write(b"0\r\n\r\n")

    def _form(self) -> dict[str, Any] | None:
        kind = self._request.headers.get("content-type", "")
        if not kind.startswith("multipart/"):
            return None
        from email.message import Message
        from email.parser import BytesHeaderParser

        def parameters(header: str) -> dict[str, str]:
            message = Message()
            message["Content-Disposition"] = header
            return dict(message.get_params(header="Content-Disposition") or [])

        sizes: dict[str, int] = {}
        model = None
        boundary = b"\r\n--" + parameters(kind)["boundary"].encode()
        for part in (b"\r\n" + self._request.body).split(boundary)[1:-1]:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            name = parameters(BytesHeaderParser().parsebytes(head)["Content-Disposition"] or "").get("name", "")
            sizes[name] = len(content)
            if name == "model":
                model = content.decode()
        return {"name": self._name, "model": model, "sizes": sizes, "text": f"heard by {self._name}"}

    async def _echo_messages(self) -> None:
        from base64 import b64encode
        from hashlib import sha1

        key = self._request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = b64encode(sha1(key.encode()).digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._writer.write(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        opcode = 0
        while opcode != 8:  # close
            first, second = await self._reader.readexactly(2)
            opcode = first & 0x0F
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            mask = await self._reader.readexactly(4)
            masked = await self._reader.readexactly(size)
            repeated = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(masked, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
            if size < 126:
                length = bytes([size])
            else:
                length = b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
            if opcode == 9:  # a ping is answered with a pong
                first = first & 0xF0 | 10
            if opcode != 10:
                self._writer.write(bytes([first]) + length + payload)
                await self._writer.drain()


class Shape:
    """How an API writes an answer. One instance for one answer.

    Args:
        name: The server's name: it is the answer's `model`.
        asked: The request's JSON.
        words: The answer's text, in pieces.
    """

    def __init__(self, name: str, asked: dict[str, Any], words: list[str]) -> None:
        self.name = name
        self.asked = asked
        self.words = words

    def whole(self) -> dict[str, Any]:
        """Return the answer as one object."""
        raise NotImplementedError

    def events(self) -> Iterator[bytes]:
        """Return the answer as server-sent events."""
        raise NotImplementedError

    @property
    def prompt_tokens(self) -> int:
        """The prompt's words."""
        return len(json.dumps(self.asked.get("messages", self.asked.get("prompt", ""))).split())


class OpenAI(Shape):
    """What completions and chat completions of OpenAI have in common."""

    kind = "text_completion"

    def choice(self, text: str, whole: bool) -> dict[str, Any]:
        """Return the part of a choice that bears the text."""
        return {"text": text}

    def whole(self) -> dict[str, Any]:
        """Return the answer as one object."""
        choice = {"index": 0, "finish_reason": "stop", **self.choice("".join(self.words), whole=True)}
        return {**self._base(self.kind), "responseMessage": self.name, "choices": [choice], "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        """Return a chunk for each word, then the end, and the usage where it was asked for."""
        base = self._base("chat.completion.chunk" if self.kind == "chat.completion" else self.kind)
        for word in self.words:
            yield sse({**base, "choices": [{"index": 0, "finish_reason": None, **self.choice(word, whole=False)}]})
        yield sse({**base, "choices": [{"index": 0, "finish_reason": "stop", **self.choice("", whole=False)}]})
        if (self.asked.get("stream_options") or {}).get("include_usage"):
            yield sse({**base, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _base(self, kind: str) -> dict[str, Any]:
        return {"id": "answer-1", "object": kind, "created": int(time.time()), "model": self.name}

    def _usage(self) -> dict[str, int]:
        prompt, answer = self.prompt_tokens, len(self.words)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


class OpenAIChat(OpenAI):
    """OpenAI's chat completions."""

    kind = "chat.completion"

    def choice(self, text: str, whole: bool) -> dict[str, Any]:
        """Return the message, or what is added to it."""
        return {"message" if whole else "delta": {"role": "assistant", "content": text}}


class Anthropic(Shape):
    """Anthropic's messages."""

    def whole(self) -> dict[str, Any]:
        """Return the answer as one object."""
        content = [{"type": "text", "text": "".join(self.words)}]
        return {**self._message(content, "end_turn"), "usage": self._usage(), "responseMessage": self.name}

    def events(self) -> Iterator[bytes]:
        """Return the events of a message with one block of text."""
        yield self._event("message_start", message={**self._message([], None), "usage": self._usage()})
        yield self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in self.words:
            yield self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        yield self._event("content_block_stop", index=0)
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": len(self.words)})
        yield self._event("message_stop")

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.name}
        return {**message, "content": content, "stop_reason": reason, "stop_sequence": None}

    def _usage(self) -> dict[str, int]:
        return {"input_tokens": self.prompt_tokens, "output_tokens": len(self.words)}

    @staticmethod
    def _event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\n".encode() + sse({"type": kind, **members})


SHAPES: dict[str, type[Shape]] = {
    "/v1/chat/completions": OpenAIChat,
    "/v1/completions": OpenAI,
    "/v1/messages": Anthropic,
}


def sse(data: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def embeddings(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return a vector of four numbers for each input, in the encoding that was asked for."""
    texts = asked.get("input", [])
    texts = [texts] if isinstance(texts, str) else texts
    vectors: list[list[float] | str] = [[float(len(str(text))), 1.0, 0.5, 0.0] for text in texts]
    if asked.get("encoding_format") == "base64":
        from base64 import b64encode
        from struct import pack

        vectors = [b64encode(pack("<4f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "model": name, "data": data, "usage": usage, "responseMessage": name}


if __name__ == "__main__":
    main()
