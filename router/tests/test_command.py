"""The command line: its flags and their forms, `check`, and `serve` as a process of its own with its signals."""

import asyncio
import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import psutil
import pytest
import yaml
from limits import DEADLINE

from ringcast_router import __version__
from ringcast_router.command import COMMANDS, _parser, main, normalise
from ringcast_router.command.files import Files, watch
from ringcast_router.command.serve import UsageError, default_address, greeting, make_tls, parse_address
from ringcast_router.command.server import Server
from ringcast_router.command.simulate import LOADS
from ringcast_router.config import loads
from ringcast_router.errors import ConfigError
from ringcast_router.router import Router

# Its words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["serve"]),
        (["--config", "a.yaml"], ["serve", "--config", "a.yaml"]),
        (["-config", "a.yaml", "-listen", ":80"], ["serve", "--config", "a.yaml", "--listen", ":80"]),
        (["-config=a.yaml", "-watch-config"], ["serve", "--config=a.yaml", "--watch-config"]),
        (["-config-dir", "d", "-tls-cert-file=c"], ["serve", "--config-dir", "d", "--tls-cert-file=c"]),
        (["-tls-key-file", "k"], ["serve", "--tls-key-file", "k"]),
        (["-version"], ["--version"]),
        (["check", "-config", "a.yaml"], ["check", "--config", "a.yaml"]),
        (["-h"], ["-h"]),
        (["--help"], ["--help"]),
    ],
)
def test_the_flags_of_the_original_are_taken_with_one_dash_and_without_a_command(words, expected):
    assert normalise(words) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8080", ("", 8080)),
        ("8080", ("", 8080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:80", ("::", 80)),
    ],
)
def test_an_address_is_host_and_port(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", ":", "host", "host:", "host:http", "host:65536", "host:-1", "::1:80", "a:8²"])
def test_what_is_no_address_is_refused_with_its_right_form(text):
    with pytest.raises(UsageError, match=r"HOST:PORT|\[::1\]:8080"):
        parse_address(text)


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".", "a." + "y" * 70])
def test_a_host_that_cannot_be_is_refused(host):
    with pytest.raises(UsageError, match="its labels have 1 to 63 characters"):
        parse_address(f"{host}:80")


@pytest.mark.parametrize(
    ("keys", "tls", "expected"),
    [
        ("[]", False, ("127.0.0.1", 8080)),
        ("[]", True, ("127.0.0.1", 8443)),
        ("[k]", False, ("", 8080)),
        ("[k]", True, ("", 8443)),
    ],
)
def test_without_keys_only_this_machine_is_let_in(keys, tls, expected):
    assert default_address(loads(f"apiKeys: {keys}"), tls) == expected


@pytest.mark.parametrize(
    ("url", "keys", "given", "says"),
    [
        ("http://127.0.0.1:1", "[]", False, "only this machine reaches it"),
        ("http://127.0.0.1:1", "[]", True, None),
        ("http://[::1]:1", "[]", True, None),
        ("http://0.0.0.0:1", "[]", True, "anybody who reaches this address may use it"),
        ("http://0.0.0.0:1", "[k]", False, None),
    ],
)
def test_the_greeting_says_who_can_reach_the_router(url, keys, given, says):
    line = greeting(url, loads(f"apiKeys: {keys}"), given)
    assert url in line
    assert "\n" not in line
    assert says is None or says in line
    assert ("keys" in line) == (says is not None)


@pytest.mark.parametrize("words", [["--version"], ["-version"]])
def test_version(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ringcast-router {__version__}\n"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in (*COMMANDS, "models:", "${PORT}", "--config", "Exit status"):
        assert word in text


def help_of(*words):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return shown.getvalue()


def test_the_help_says_whose_flags_stand_there_without_a_command():
    assert "Without a COMMAND the flags are those of `serve`" in help_of()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_s_help_has_examples(command):
    assert examples_of(command)


def examples_of(command):
    _, found, text = help_of(command).partition("\nexample")
    assert found
    return [line.split()[1:] for line in text.splitlines() if line.startswith("  ringcast-router ")]


@pytest.mark.parametrize("words", [words for command in ("check", "simulate") for words in examples_of(command)])
def test_each_example_of_the_help_works(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("models:\n  small: {cmd: 'x ${PORT}'}\n  large: {cmd: 'x ${PORT}'}\n")
    (tmp_path / "requests.jsonl").write_text('{"at": 0, "model": "small", "seconds": 1}\n')
    assert main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("words", [words for command in ("serve", "demo") for words in examples_of(command)])
def test_the_flags_of_each_other_example_exist(words, tmp_path):
    assert _parser().parse_args(words).run


@pytest.mark.parametrize(
    ("words", "hint"), [(["foo"], ""), (["chek", "--config", "a.yaml"], "did you mean check?"), (["config.yaml"], "")]
)
def test_a_command_that_does_not_exist_is_named_with_those_that_do(words, hint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"unknown command {words[0]};" in said
    assert "the commands are serve, check, simulate, demo" in said
    assert hint in said


@pytest.mark.parametrize("words", [["--nonsense"], ["check", "--confi", "a.yaml"], ["simulate", "--listen", ":1"]])
def test_a_wrong_command_line_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


# Its files


def test_the_files_of_a_folder_come_by_name_after_those_that_are_named(tmp_path):
    for name in ("b.yaml", "a.yml", "c.txt"):
        (tmp_path / name).write_text("")
    files = Files(["z.yaml"], str(tmp_path))
    assert [path.name for path in files.paths()] == ["z.yaml", "a.yml", "b.yaml"]


def test_the_default_file_is_for_those_who_name_none():
    assert [str(path) for path in Files([]).paths()] == ["config.yaml"]


@pytest.mark.parametrize("command", ["serve", "check", "simulate"])
def test_who_has_no_default_file_is_told_how_to_name_one(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command]) == 1
    said = capsys.readouterr().err
    assert "config.yaml: there is no such file here: write one, or name yours by --config" in said


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_files_is_an_error_that_names_it(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(ConfigError, match=re.escape(str(folder))):
        Files([], str(folder)).paths()


async def test_a_change_is_told_when_two_looks_see_the_same(until):
    """A file that is being written is empty for a moment, and one that is being replaced is missing."""
    whole, empty, other = ((("f", 1, 1, 9),), (("f", 1, 2, 0),), (("f", 1, 3, 12),))
    looks = iter([whole, whole, empty, (), other, other, other])
    told = []
    last = whole

    def signature():
        nonlocal last
        last = next(looks, last)
        return last

    async def changed():
        told.append(last)

    watching = asyncio.create_task(watch(signature, changed, every=0))
    await until(lambda: next(looks, None) is None and told)
    watching.cancel()
    assert told == [other]


# check


@pytest.fixture
def file(tmp_path):
    """Writes a configuration, and gives the file's name."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_check_of_a_good_file(file, capsys):
    assert main(["check", "--config", file(f"models: {{m: {{cmd: '{sys.executable} --port ${{PORT}}'}}}}")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("fine: 1 model; scheduler fair, router group")
    assert captured.err == ""


def test_check_prints_the_resolved_configuration(file, capsys):
    name = file(f"startPort: 9000\nmodels: {{m: {{cmd: '{sys.executable} ${{PORT}}'}}}}")
    assert main(["check", "--resolved", "--config", name]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["models"]["m"]["cmd"] == f"{sys.executable} 9000"
    assert resolved["models"]["m"]["proxy"] == "http://localhost:9000"


def test_check_warns_of_a_key_that_is_not_known_by_naming_the_nearest(file, capsys):
    text = f"models: {{m: {{cmd: '{sys.executable}', proxi: x, proxy: 'http://a:1'}}}}"
    assert main(["check", "--config", file(text)]) == 0
    said = capsys.readouterr().err
    assert "models.m.proxi" in said
    assert re.search(r"['`]proxy['`]", said)


def test_check_warns_of_a_program_that_is_not_there(file, capsys):
    assert main(["check", "--config", file("models: {m: {cmd: 'no-such-program --port ${PORT}'}}")]) == 0
    assert "there is no program 'no-such-program'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "models: [a]",
        "models: {m: {cmd: x, ttl: -5}}",
        "models: {m: {cmd: '${nothing}'}}",
        "a: [",
        "models: {m: {cmd: 1, cmd: 2}}",
    ],
)
@pytest.mark.parametrize("command", ["check", "serve", "simulate"])
def test_a_bad_file_is_one_line_and_status_1(file, capsys, text, command):
    name = file(text)
    assert main([command, "--config", name]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"ringcast-router: {name}:")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["check", "serve", "simulate"])
def test_a_missing_file_is_one_line_and_status_1(tmp_path, capsys, command):
    name = str(tmp_path / "nowhere.yaml")
    assert main([command, "--config", name]) == 1
    assert capsys.readouterr().err.count("\n") == 1


# simulate

THREE = "models: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}', aliases: [bee]}, c: {cmd: 'x ${PORT}'}}"


def rows(text):
    """The values of a table by their names: those of each scheduler."""
    head, *lines = text.splitlines()
    cells = (re.split(r" {2,}", line) for line in lines)
    return head.split(), {name: values for name, *values in cells}


@pytest.mark.parametrize("load", LOADS)
def test_simulate_plays_a_load_with_both_schedulers(file, capsys, load):
    assert main(["simulate", "--config", file(THREE), "--load", load, "--requests", "60"]) == 0
    schedulers, values = rows(capsys.readouterr().out)
    assert schedulers == ["fifo", "fair"]
    assert values["requests"] == ["60", "60"]
    assert all(int(swaps) >= 3 for swaps in values["swaps"])


def test_simulate_plays_a_trace_in_which_fair_bounds_the_wait(file, tmp_path, capsys):
    trace = tmp_path / "trace.jsonl"
    busy = [f'{{"at": {second}, "model": "a", "seconds": 1.5}}' for second in range(600)]
    trace.write_text("\n".join(["", '{"model": "a", "load": 5, "stop": 0}', *busy, '{"at": 9, "model": "bee"}']))
    assert main(["simulate", "--config", file(THREE), "--trace", str(trace)]) == 0
    _, values = rows(capsys.readouterr().out)
    fifo, fair = (float(wait.removesuffix(" s")) for wait in values["wait, longest"])
    assert fifo > 500
    assert fair < 60


def test_simulate_compares_the_schedulers_that_are_named(file, capsys):
    words = ["--scheduler", "fair", "--scheduler", "ringcast_router.scheduling.fifo:FifoScheduler"]
    assert main(["simulate", "--config", file(THREE), "--requests", "6", *words]) == 0
    schedulers, _ = rows(capsys.readouterr().out)
    assert schedulers[0] == "fair"
    assert len(schedulers) == 2


@pytest.mark.parametrize("line", ['{"at": 1, "model": "nobody"}', "nonsense", '{"at": -1, "model": "a"}'])
def test_a_wrong_line_of_a_trace_is_named(file, tmp_path, capsys, line):
    trace = tmp_path / "trace.jsonl"
    trace.write_text(f'{{"at": 1, "model": "a"}}\n{line}\n')
    assert main(["simulate", "--config", file(THREE), "--trace", str(trace)]) == 1
    assert capsys.readouterr().err.startswith(f"ringcast-router: {trace}:2: ")


def test_simulate_without_models_says_what_is_missing(file, capsys):
    assert main(["simulate", "--config", file("models: {}")]) == 1
    assert "models" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--requests", "0"], ["--rate", "-1"], ["--seconds", "nan"], ["--clients", "x"]])
def test_simulate_refuses_numbers_that_make_no_load(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *words])
    assert ended.value.code == 2
    assert words[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ringcast:\n  scheduler: fiar\n", ":2: ringcast.scheduler: no scheduler 'fiar'; did you mean 'fair'?"),
        ("ringcast:\n\n  router: gruop\n", ":3: ringcast.router: no planner 'gruop'; did you mean 'group'?"),
        ("ringcast: {router: 'no.such:Planner'}\n", ":1: ringcast.router: planner 'no.such:Planner': ModuleNotFound"),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_scheduler_or_planner_that_is_not_there_is_named_with_its_place(file, capsys, command, text, said):
    name = file(f"{text}models: {{A: {{cmd: 'server ${{PORT}}'}}}}\n")
    assert main([command, "--config", name]) == 1
    assert f"{name}{said}" in capsys.readouterr().err


# serve


class Command:
    """`ringcast-router serve` as a process of its own."""

    def __init__(self, process):
        self.process = process
        self.output = process.stderr or process.stdout
        self.said = ""
        self.url = ""

    async def until_said(self, pattern):
        """The first match of a pattern in what it says on stderr or stdout."""
        async with asyncio.timeout(DEADLINE):
            while (found := re.search(pattern, self.said)) is None:
                line = await self.output.readline()
                assert line, f"it ended without saying {pattern!r}: {self.said}"
                self.said += line.decode()
        return found

    async def end(self):
        """Its exit status."""
        async with asyncio.timeout(DEADLINE):
            self.said += (await self.output.read()).decode()
            return await self.process.wait()

    async def get(self, path, **options):
        async with aiohttp.ClientSession() as session, session.get(self.url + path, **options) as response:
            return response.status, await response.text()

    async def ask(self, model, **body):
        url = f"{self.url}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json={"model": model, **body}) as response:
            return response.status, await response.text()

    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def servers(self):
        return {child.pid for child in self.children() if "ringcast_router.responder" in child.cmdline()}


@pytest.fixture
async def serving(no_child_left, file, free_port):
    """`await serving(text, *flags)` starts the command and waits until it listens."""
    started = []

    async def start(text, *flags, listen="127.0.0.1:0", under=(), stdout=subprocess.PIPE):
        name = file(f"startPort: {free_port(4)}\n{text}")
        words = [*under, sys.executable, "-m", "ringcast_router", "--config", name, "--listen", listen, *flags]
        stderr = subprocess.STDOUT if stdout == subprocess.PIPE else subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdout=stdout, stderr=stderr)
        command = Command(process)
        started.append(command)
        found = await command.until_said(r" on (https?://\S+:\d+): ")
        command.url = found[1]
        return command

    yield start
    for command in started:
        with contextlib.suppress(ProcessLookupError):
            command.process.send_signal(signal.SIGKILL)
        await command.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_its_servers(serving, responder, number):
    command = await serving(f"models: {{A: {{cmd: '{responder('A')}'}}}}")
    assert (await command.ask("A"))[0] == 200
    children = command.children()
    assert children
    command.process.send_signal(number)
    assert await command.end() == 0
    assert "Traceback" not in command.said
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


async def test_a_request_in_flight_ends_before_the_router_does(serving, responder, until):
    command = await serving(f"models: {{A: {{cmd: '{responder('A')}'}}}}")
    await command.ask("A")
    request = asyncio.create_task(command.ask("A", wait=1.0))
    async with asyncio.timeout(DEADLINE):
        while '"granted": true' not in (await events_so_far(command)):
            pass
    command.process.send_signal(signal.SIGTERM)
    assert (await request)[0] == 200
    assert await command.end() == 0


async def events_so_far(command):
    """What `/api/events` says at its beginning, unescaped."""
    async with aiohttp.ClientSession() as session, session.get(command.url + "/api/events") as response:
        text = (await response.content.readuntil(b'"inflight"')) + await response.content.readuntil(b"\n\n")
        return text.decode().replace('\\"', '"').replace('":', '": ')


async def test_a_second_signal_waits_for_nobody(serving, responder):
    command = await serving(
        f"unloadTimeout: 600\nmodels: {{A: {{cmd: '{responder('A', ignore_term=True)}'}}}}",
    )
    request = asyncio.create_task(command.ask("A", wait=600))
    async with asyncio.timeout(DEADLINE):
        while '"granted": true' not in (await events_so_far(command)):
            pass
    command.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(aiohttp.ClientError):
            while True:  # until nobody listens any more: the signal has come
                await command.get("/health")
    began = time.monotonic()
    command.process.send_signal(signal.SIGTERM)
    assert await command.end() == 0
    assert time.monotonic() - began < 5
    with contextlib.suppress(aiohttp.ClientError):
        await request


async def test_a_router_whose_output_nobody_reads_ends_all_the_same(serving, responder):
    unread, pipe = os.pipe()
    try:
        model = responder("A", print=1)  # MiB, more than a pipe holds
        command = await serving(f"logToStdout: both\nmodels: {{A: {{cmd: '{model}'}}}}", stdout=pipe)
        assert (await command.ask("A"))[0] == 200
        command.process.send_signal(signal.SIGTERM)
        assert await command.end() == 0
    finally:
        os.close(unread)
        os.close(pipe)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the platform has no SIGHUP")
@pytest.mark.parametrize("how", ["SIGHUP", "watched"])
async def test_a_changed_file_is_read_again(serving, responder, tmp_path, how):
    command = await serving(
        f"models:\n  A: {{cmd: '{responder('A')}'}}\n", *(["--watch-config"] if how == "watched" else [])
    )
    await command.ask("A")
    servers = command.servers()
    with (tmp_path / "config.yaml").open("a") as config:  # a model that comes before A where ports are given out
        config.write(f"  '0': {{cmd: '{responder('0')}', aliases: [zero]}}\n")
    if how == "SIGHUP":
        command.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(DEADLINE):
        while "zero" not in (await command.get("/v1/models"))[1]:
            pass
    assert (await command.ask("A"))[0] == 200
    assert command.servers() == servers  # A has kept its server, and its port
    assert (await command.ask("zero"))[0] == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the platform has no SIGHUP")
@pytest.mark.parametrize("text", ["", "models: {}\n"])
async def test_a_watched_file_that_loses_all_models_changes_nothing_until_somebody_says_so(
    serving, responder, tmp_path, text
):
    command = await serving(f"models:\n  A: {{cmd: '{responder('A')}'}}\n", "--watch-config")
    await command.ask("A")
    servers = command.servers()
    (tmp_path / "config.yaml").write_text(text)
    async with asyncio.timeout(DEADLINE):
        while "it has no models any more: is it being written?" not in (await command.get("/logs"))[1]:
            pass
    assert command.servers() == servers
    command.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(DEADLINE):
        while (await command.ask("A"))[0] != 404:
            pass


async def test_a_port_in_use_is_one_line_and_status_1(file, no_child_left, responder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["--config", file(f"models: {{A: {{cmd: '{responder('A')}'}}}}"), "--listen", f"127.0.0.1:{port}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ringcast_router", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode() == (
        f"ringcast-router: cannot listen on 127.0.0.1:{port}: address already in use; --listen names another address\n"
    )


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), OSError(99, "x (while y)")])
def test_why_nobody_can_listen_is_said_in_words(file, capsys, monkeypatch, no_child_left, error):
    def bind(*_address):
        raise error

    monkeypatch.setattr("ringcast_router.command.server._bind", bind)
    assert main(["--config", file("models: {}"), "--listen", "nowhere.invalid:80"]) == 1
    words = "name or service not known" if isinstance(error, socket.gaierror) else os.strerror(99).lower()
    assert capsys.readouterr().err == (
        f"ringcast-router: cannot listen on nowhere.invalid:80: {words}; --listen names another address\n"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_during_the_start_is_heeded_when_that_is_over(serving, tmp_path, number):
    """The configuration is a pipe: the command reads, and so is starting, as long as nobody has written."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    words = ["-m", "ringcast_router", "--config", str(pipe), "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    command = Command(process)

    def write(signalled=False):
        with pipe.open("w") as writer:  # opens when somebody reads
            if signalled:
                process.send_signal(number)
            writer.write("models: {}")

    async with asyncio.timeout(DEADLINE):
        await asyncio.to_thread(write, signalled=True)
    await command.until_said(r" on http://\S+: 0 models")
    if number == signal.SIGHUP:
        async with asyncio.timeout(DEADLINE):
            await asyncio.to_thread(write)
        await command.until_said("configuration read again")
        process.send_signal(signal.SIGTERM)
    assert await command.end() == 0
    assert "Traceback" not in command.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the limits of another process")
async def test_it_opens_as_many_files_as_it_may_and_its_servers_as_many_as_ever(serving, responder):
    hard = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[1]
    text = f"models: {{A: {{cmd: '{responder('A')}'}}}}"
    command = await serving(text, under=["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh"])
    await command.ask("A")
    assert psutil.Process(command.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    (server,) = command.servers()
    assert psutil.Process(server).rlimit(psutil.RLIMIT_NOFILE) == (256, hard)
    assert "files open" not in command.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the limits of another process")
async def test_a_limit_of_open_files_that_stays_low_is_told_of(serving):
    command = await serving("models: {}", under=["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"])
    await command.until_said("this process may have 256 files open at once")


async def test_a_start_that_fails_closes_the_router(no_child_left, monkeypatch):
    async def fail(self):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("aiohttp.web.SockSite.start", fail)
    router = Router(lambda: loads("models: {}"))
    with pytest.raises(RuntimeError, match="out of luck"):
        await Server.start(router, "127.0.0.1", 0)
    assert router.closing.is_set()


async def test_a_missing_program_is_told_at_the_start_and_to_the_client(serving):
    command = await serving("models: {A: {cmd: 'no-such-program ${PORT}'}}")
    assert (
        "models.A.cmd: there is no program 'no-such-program'" in (await command.until_said(r".*no program.*\n")).group()
    )
    status, body = await command.ask("A")
    assert status == 503
    assert "no-such-program" in body
    assert "Traceback" not in command.said


# HTTPS


@pytest.fixture
def certificate(tmp_path):
    """A certificate and its key, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-out"]
    subprocess.run([*make, certificate, "-keyout", key], check=True, capture_output=True)
    return str(certificate), str(key)


async def test_with_a_certificate_it_speaks_https(serving, responder, certificate):
    command = await serving(
        f"models: {{A: {{cmd: '{responder('A')}'}}}}", "-tls-cert-file", certificate[0], "-tls-key-file", certificate[1]
    )
    assert command.url.startswith("https://")
    assert await command.get("/health", ssl=False) == (200, "OK")


@pytest.mark.parametrize(("certificate", "key"), [("a.pem", None), (None, "b.pem"), ("a.pem", "b.pem")])
def test_a_certificate_that_cannot_be_used_is_a_usage_error(certificate, key):
    with pytest.raises(UsageError, match="--tls-cert-file"):
        make_tls(certificate, key)


def test_a_usage_error_is_one_line_and_status_1(file, capsys):
    assert main(["--config", file("models: {}"), "--listen", "nowhere"]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("ringcast-router: --listen nowhere:")
    assert captured.count("\n") == 1
