"""The experiments that were made with the original router, made with this one.

Each test bears the letter of its experiment. Its docstring says what the original did (at the newer of the two states
that were tried); the test says what this router does. Models are in the default group, so mutually exclusive, unless
the test says otherwise.
"""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import aiohttp
import psutil
import pytest
from conftest import wait_until
from limits import DEADLINE

from ringcast_router.events import ModelStateChanged, RequestGranted, SwapStarted

FIFO = "routing: {scheduler: {use: fifo}}\n"


class Journal:
    """What the fake servers have written down: lines `TIME NAME WHAT PID`."""

    def __init__(self, path):
        self.path = path

    def lines(self, what, name=None):
        """The lines of a kind, as (time, name), in their order."""
        if not self.path.exists():
            return []
        split = (line.split() for line in self.path.read_text().splitlines())
        return [(float(at), who) for at, who, kind, _pid in split if kind == what and name in (None, who)]

    def names(self, what):
        return "".join(name for _, name in self.lines(what))

    def loads(self, name=None):
        return len(self.lines("start", name))


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal")


@pytest.fixture
def models(responder, journal):
    """`models(A={"load": 0.3}, B={})` is the part `models:` of a configuration; `config=` adds settings to a model."""

    def text(**models):
        lines = ["models:"]
        for name, flags in models.items():
            settings = flags.pop("config", "")
            lines += [f"  {name}:", f"    cmd: {responder(name, log=journal.path, **flags)}"]
            lines += [f"    {line}" for line in settings.splitlines()]
        return "\n".join(lines) + "\n"

    return text


@contextlib.contextmanager
def recorded(served, *events):
    """The events of some classes that are published within the block, in their order."""
    found = []
    subscriptions = [served.router.bus.subscribe(event, found.append, mode="direct") for event in events]
    try:
        yield found
    finally:
        for subscription in subscriptions:
            subscription.cancel()


@contextlib.asynccontextmanager
async def kept_busy(served, model, seconds):
    """Two clients ask for a model over and over, so that it is never idle; at the end so many seconds are over.

    Gives the list of their answers.
    """
    answers = []
    end = time.monotonic() + seconds

    async def client():
        while time.monotonic() < end:
            answers.append(await served.ask(model, wait=0.1))

    await served.ask(model)
    first = asyncio.create_task(client())
    await wait_until(lambda: served.router.owner.pending())
    async with asyncio.timeout(DEADLINE):
        await asyncio.sleep(0.05)  # the clients take turns: one is in the middle of a request when the other ends one
    second = asyncio.create_task(client())
    yield answers
    await asyncio.gather(first, second)
    assert {answer.status for answer in answers} == {200}


# Collation and fairness


@pytest.mark.parametrize("scheduler", ["", FIFO], ids=["fair", "fifo"])
async def test_a_a_burst_of_abcabc_takes_three_loads(serve, models, journal, scheduler):
    """Original: A A B B C C, 3 loads, 2.86 s."""
    served = await serve(scheduler + models(A={}, B={}, C={}))
    requests = []
    for model in "ABCABC":
        requests.append(served.begin(model, wait=0.1))
        await wait_until(lambda: len(served.router.owner.pending()) == len(requests))
    answers = await asyncio.gather(*requests)
    assert [answer.json["responseMessage"] for answer in answers] == list("ABCABC")
    assert journal.names("req") == "AABBCC"
    assert journal.names("start") == "ABC"


@pytest.mark.parametrize("priority", ["", ", priority: {B: 100}"], ids=["b", "s, with priority"])
async def test_b_a_model_that_is_kept_busy_does_not_starve_others(serve, models, priority):
    """Original: B came when A fell idle, after 20.09 s and 99 requests for A. Priority did not help."""
    served = await serve(f"ringcast: {{fair: {{max_wait: 1, min_residence: 0.5{priority}}}}}\n" + models(A={}, B={}))
    async with kept_busy(served, "A", 4.0) as answers:
        before = len(answers)
        b = await served.ask("B")
        assert b.status == 200
        assert b.seconds < 3.0
    assert len(answers) > before + 1  # A came back afterwards


@pytest.mark.parametrize("priority", ["", ", settings: {fifo: {priority: {B: 100}}}"], ids=["b", "s, with priority"])
async def test_b_with_fifo_it_does_as_in_the_original(serve, models, priority):
    """Original: the same."""
    served = await serve(f"routing: {{scheduler: {{use: fifo{priority}}}}}\n" + models(A={}, B={}))
    async with kept_busy(served, "A", 1.5) as answers:
        b = await served.ask("B")
    assert b.status == 200
    assert b.seconds > 1.0  # all the while A was kept busy
    assert len(answers) > 1


async def test_k_fourteen_requests_for_a_cold_model_are_all_served(serve, models):
    """Original: 10 times 200, 4 times 429: its limit counts those that wait."""
    served = await serve(models(A={}))
    with recorded(served, RequestGranted) as granted:
        answers = await asyncio.gather(*(served.ask("A", wait=0.1) for _ in range(14)))
    assert Counter(answer.status for answer in answers) == {200: 14}
    assert len(granted) == 14


async def test_k_with_fifo_ten_are_served_and_four_refused(serve, models):
    """Original: the same."""
    served = await serve(FIFO + models(A={}))
    answers = await asyncio.gather(*(served.ask("A") for _ in range(14)))
    assert Counter(answer.status for answer in answers) == {200: 10, 429: 4}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["Retry-After"]
    assert refused.json["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize(("scheduler", "expected"), [("", {200: 14}), (FIFO, {200: 10, 429: 4})], ids=["fair", "fifo"])
async def test_r_fourteen_requests_behind_a_busy_model(serve, models, scheduler, expected):
    """Original: 10 wait, 4 times 429."""
    served = await serve(scheduler + models(A={}, B={}))
    await served.ask("A")
    busy = served.begin("A", wait=0.5)
    await wait_until(lambda: served.router.owner.pending())
    answers = await asyncio.gather(*(served.ask("B") for _ in range(14)))
    assert Counter(answer.status for answer in answers) == expected
    assert (await busy).status == 200


@pytest.mark.parametrize("scheduler", ["", FIFO], ids=["fair", "fifo"])
async def test_l_a_client_that_leaves_the_queue_causes_no_load(serve, models, journal, scheduler):
    """Original: the same at the newer state; at the older B was loaded for nobody."""
    served = await serve(scheduler + models(A={}, B={}))
    await served.ask("A")
    busy = served.begin("A", wait=0.5)
    await wait_until(lambda: served.router.owner.pending())
    leaves = served.begin("B")
    await wait_until(lambda: len(served.router.owner.pending()) == 2)
    leaves.cancel()
    assert (await busy).status == 200
    await wait_until(lambda: served.router.owner.pending() == [])
    assert (await served.ask("A")).status == 200
    assert (journal.loads("A"), journal.loads("B")) == (1, 0)


# Loading and unloading


async def test_c_ttl_counts_from_the_moment_at_which_the_model_is_ready(serve, models):
    """Original: ttl 60 s, client gone during the load: ready at 3.3 s, stopped at 4.3 s."""
    served = await serve(models(A={"load": 0.4, "config": "ttl: 2"}))
    with recorded(served, ModelStateChanged) as changes:
        client = served.begin("A")
        await served.until("A", "starting")
        client.cancel()
        await served.until("A", "ready")
        await served.until("A", "stopped")
    at = {change.new: change.at for change in changes}
    assert 1.9 < at["stopping"] - at["ready"] < 4


async def test_d_an_unload_calls_the_swap_to_that_model_off(serve, models, journal):
    """Original: X slow to stop, Y asked, Y unloaded, Z asked: Y and Z, mutually exclusive, both ready for good."""
    served = await serve("unloadTimeout: 1\n" + models(X={"ignore_term": True}, Y={}, Z={}))
    await served.ask("X")
    y = served.begin("Y")
    await served.until("X", "stopping")
    unload = asyncio.create_task(served.post("/api/models/unload/Y"))
    z = served.begin("Z")
    assert (await y).status >= 500
    assert (await z).status == 200
    assert (await unload).status == 200
    assert served.states() == {"X": "stopped", "Y": "stopped", "Z": "ready"}
    assert journal.loads("Y") == 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("how", ["unload", "remove"])
@pytest.mark.parametrize("scheduler", ["", FIFO], ids=["fair", "fifo"])
async def test_d_a_load_that_is_called_off_before_its_first_report_starts_no_server(serve, scheduler, how, turns):
    """Whatever the turn of the event loop in which it is called off: two exclusive servers never run at once."""

    stubborn = """sh -c 'trap "" TERM; while :; do sleep 0.05; done'"""
    settings = f"{{cmd: {json.dumps(stubborn)}, proxy: 'http://h', checkEndpoint: none}}"
    served = await serve(f"unloadTimeout: 1\n{scheduler}models:\n  Y: {settings}\n  Z: {settings}\n")
    owner = served.router.owner
    y = owner.submit("Y")
    for _ in range(turns):
        await asyncio.sleep(0)
    if how == "unload":
        owner.unload(["Y"])
    else:
        owner.reload(replace(owner.config, models={"Z": owner.config.models["Z"]}), frozenset({"Z"}))
    z = owner.submit("Z")
    try:
        async with asyncio.timeout(DEADLINE):
            await z.granted()
        children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        running = [child for child in children if child.cmdline()[:1] == ["sh"]]
        assert [child.pid for child in running] == [served.router.processes["Z"].pid]
    finally:
        y.end()
        z.end()


async def test_e_an_unload_delays_no_request_for_a_neighbour(serve, models):
    """Original: 9.5 s for a request to the neighbour."""
    served = await serve(
        "unloadTimeout: 3\ngroups: {all: {swap: false, members: [R, S]}}\n" + models(R={}, S={"ignore_term": True})
    )
    await asyncio.gather(served.ask("R"), served.ask("S"))
    alone = statistics.median([(await served.ask("R")).seconds for _ in range(20)])
    unload = asyncio.create_task(served.post("/api/models/unload/S"))
    await served.until("S", "stopping")
    meanwhile = statistics.median([(await served.ask("R")).seconds for _ in range(20)])
    assert served.state("S") == "stopping"
    assert meanwhile < alone + 0.05
    await unload


async def test_f_a_model_that_cannot_start_evicts_nobody_more_than_once(serve, models, journal):
    """Original: K cannot start; K W K W K W takes 4 loads of W."""
    served = await serve(models(W={}, K={"crash_after": 0}))
    await served.ask("W")
    with recorded(served, SwapStarted) as swaps:
        for _ in range(3):
            k = await served.ask("K")
            assert k.status == 503
            assert "this is the reason" in k.json["error"]["message"]
            assert (await served.ask("W")).status == 200
    # Its first try costs W its place. Then it is let alone for 1 s, 2 s, and so on.
    tries = sum(swap.model == "K" for swap in swaps)
    assert tries < 3
    assert journal.loads("W") == 1 + tries


async def test_g_an_eviction_has_the_grace_of_an_unload(serve, models):
    """Original: 15.3 s, as an eviction used healthCheckTimeout."""
    served = await serve("healthCheckTimeout: 15\nunloadTimeout: 1\n" + models(X={"ignore_term": True}, Y={}))
    await served.ask("X")
    y = await served.ask("Y")
    assert y.status == 200
    assert 1.0 <= y.seconds < 5


@pytest.mark.parametrize("stop_delay", [0, 3], ids=["h", "z, preloaded and slow to stop"])
async def test_h_a_comment_in_the_configuration_restarts_nothing(serve, models, journal, stop_delay):
    """Original: h: W stopped. z: the new copy could not bind the port that the old one held, and W was gone."""
    preload = "hooks: {on_startup: {preload: [W]}}\nunloadTimeout: 1\n" if stop_delay else ""
    served = await serve(preload + models(W={"stop_delay": stop_delay}))
    if preload:
        await served.until("W", "ready")
    await served.ask("W")
    pid = served.router.processes["W"].pid
    request = served.begin("W", wait=0.3)
    served.file.write_text(served.file.read_text() + "# a comment\n")
    assert (await served.post("/api/reload")).json["kept"] == ["W"]
    assert (await request).status == 200
    assert (await served.ask("W")).status == 200
    assert served.router.processes["W"].pid == pid
    assert journal.loads() == 1


@pytest.mark.parametrize(("scheduler", "kept"), [("", True), (FIFO, False)], ids=["fair", "fifo"])
async def test_i_a_request_for_a_ready_model_evicts_nobody(serve, models, scheduler, kept):
    """Original: E (of an exclusive group) ready, N (of another) loaded later; E asked again: N stopped."""
    groups = "groups:\n  e: {exclusive: true, members: [E]}\n  n: {exclusive: false, members: [N]}\n"
    served = await serve(scheduler + groups + models(E={}, N={}))
    await served.ask("E")
    await served.ask("N")
    assert served.states() == {"E": "ready", "N": "ready"}
    await served.ask("E")
    assert served.state("E") == "ready"
    assert (served.state("N") == "ready") == kept


async def test_p_a_server_that_is_never_healthy_is_given_up(serve, models):
    """Original: 500 after 15.3 s."""

    def shorter(config):
        short = {name: replace(model, health_check_timeout=1) for name, model in config.models.items()}
        return replace(config, models=short)

    served = await serve(models(A={"load": 600}), change=shorter)
    answer = await served.ask("A")
    assert answer.status == 503
    assert 1.0 <= answer.seconds < 5
    assert served.state("A") == "stopped"


async def test_v_a_matrix_lets_models_of_one_set_load_in_parallel(serve, models):
    """Original: in parallel."""
    matrix = """
matrix:
  vars: {a: A, b: B, e: E, f: F}
  sets: {pairs: "(a | b) & (e | f)"}
"""
    served = await serve(matrix + models(A={}, B={"load": 0.5}, E={}, F={"load": 0.5}))
    b, f = served.begin("B"), served.begin("F")
    await wait_until(lambda: (served.state("B"), served.state("F")) == ("starting", "starting"))
    assert [(await b).status, (await f).status] == [200, 200]
    assert served.states() == {"A": "stopped", "B": "ready", "E": "stopped", "F": "ready"}


async def test_w_a_model_of_another_group_loads_beside_an_exclusive_one_that_is_loading(serve, models):
    """Original: both load and stay."""
    groups = "groups:\n  c: {exclusive: true, members: [C]}\n  a: {exclusive: false, members: [A]}\n"
    served = await serve(groups + models(A={}, C={"load": 0.5}))
    c = served.begin("C")
    await served.until("C", "starting")
    assert (await served.ask("A")).status == 200
    assert (await c).status == 200
    assert served.states() == {"A": "ready", "C": "ready"}


async def test_x_after_an_unload_during_its_start_a_model_is_loaded_anew(serve, models, journal):
    """Original: the waiter gets 500, then a new load."""
    served = await serve(models(A={"load": 0.5}))
    waiting = served.begin("A")
    await served.until("A", "starting")
    await wait_until(lambda: journal.loads() == 1)
    assert (await served.get("/unload")).status == 200
    assert (await waiting).status >= 500
    assert (await served.ask("A")).status == 200
    assert journal.loads() == 2


async def test_bb_a_swap_costs_little_more_than_the_server_itself(serve, models, responder, free_port):
    """Original: 0.258 to 0.278 s each with a server that takes no time: a fixed pause of 250 ms."""
    served = await serve(models(A={}, B={}))
    bare = statistics.median([await start_alone(responder, free_port()) for _ in range(5)])
    await served.ask("A")
    swaps = []
    for model in "BA" * 6:
        answer = await served.ask(model)
        assert answer.json["responseMessage"] == model
        swaps.append(answer.seconds)
    assert statistics.median(swaps) < bare + 0.2


async def start_alone(responder, port):
    """How long the fake server takes from its start until its port answers, and to end, without a router."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*responder("A", port=port).split(), stdout=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.002)
        writer.close()
    finally:
        process.terminate()
        await process.wait()
    return time.monotonic() - began


# Servers that fail


async def test_n_a_server_that_dies_is_a_502_before_the_answer_begins(serve, models):
    """Original: 502 with an empty body."""
    served = await serve(models(A={}))
    await served.ask("A")
    request = served.begin("A", wait=600)
    await wait_until(lambda: served.router.owner.pending())
    os.killpg(served.router.processes["A"].pid, signal.SIGKILL)
    answer = await request
    assert answer.status == 502
    assert answer.json["error"]["message"]


async def test_n_a_server_that_dies_in_mid_stream_is_seen_by_the_client(serve, models):
    """Original: a clean end, so that the client takes the half for the whole."""
    served = await serve(models(A={}))
    with pytest.raises(aiohttp.ClientPayloadError):
        await served.ask("A", stream=True, n=10, die=3)
    await served.until("A", "stopped")
    assert (await served.ask("A")).status == 200


async def test_o_an_unload_cuts_requests_in_flight_at_once(serve, models):
    """Original: 502 at once."""
    served = await serve(models(A={}))
    await served.ask("A")
    request = served.begin("A", wait=600)
    await wait_until(lambda: served.router.owner.pending())
    await served.get("/unload")
    assert (await request).status == 502


async def test_q_a_server_that_hangs_is_restarted(serve, models, journal):
    """Original: requests hang, the state stays ready."""
    served = await serve(
        "unloadTimeout: 1\nringcast: {models: {A: {liveness: {every: 0.3, failures: 2}}}}\n" + models(A={})
    )
    await served.ask("A")
    os.killpg(served.router.processes["A"].pid, signal.SIGSTOP)
    await wait_until(lambda: journal.loads() == 2)
    assert (await served.ask("A")).status == 200


# The router as a process of its own


@contextlib.asynccontextmanager
async def router_process(file):
    """The command as a process of its own: gives it, and the URL that it listens on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ringcast_router", "--config", str(file), "--listen", "127.0.0.1:0",
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE):
            greeting = (await process.stderr.readline()).decode()
        yield process, greeting.partition(" on ")[2].partition(": ")[0]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(url, model, data=None):
    body = {"json": {"model": model}} if data is None else {"data": data}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", **body) as response:
        await response.read()
        return response.status


def alive(processes):
    return [child for child in processes if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["y, SIGTERM", "y', SIGKILL"])
@pytest.mark.parametrize("stubborn", [False, True], ids=["quick", "stubborn"])
async def test_y_no_server_outlives_the_router(no_child_left, models, tmp_path, free_port, number, stubborn):
    """Original: after SIGTERM none at the newer state (at the older 3 of 8), after SIGKILL all 8."""
    file = tmp_path / "config.yaml"
    names = [f"m{index}" for index in range(8)]
    file.write_text(
        f"startPort: {free_port(8)}\nunloadTimeout: 1\ngroups: {{all: {{swap: false, members: {names}}}}}\n"
        + models(**{name: {"ignore_term": stubborn} for name in names})
    )
    async with router_process(file) as (process, url):
        assert await asyncio.gather(*(ask(url, name) for name in names)) == [200] * 8
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 8
        process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            await process.wait()
        ended = time.monotonic()
        await wait_until(lambda: not alive(children))
        assert time.monotonic() - ended < 2.0


async def test_u_a_large_body_is_not_held_in_memory(no_child_left, models, tmp_path, free_port):
    """Original: a JSON body of 100 MB took the process from 17 to 692 MB."""
    file = tmp_path / "config.yaml"
    file.write_text(f"startPort: {free_port()}\n" + models(A={}))
    piece = b"x" * 1_000_000

    async def body():
        yield b'{"model": "A", "messages": [{"role": "user", "content": "'
        for _ in range(100):
            yield piece
        yield b'"}]}'

    async with router_process(file) as (process, url):
        assert await ask(url, "A") == 200
        memory = psutil.Process(process.pid).memory_info
        before = most = memory().rss
        request = asyncio.create_task(ask(url, "A", body()))
        while not request.done():
            most = max(most, memory().rss)
            await asyncio.wait({request}, timeout=0.01)
        assert await request == 200
    assert most - before < 64 * 2**20
