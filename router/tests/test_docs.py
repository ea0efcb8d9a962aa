"""What the documentation shows is what the router does."""

import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from ringcast_router.command import _parser, normalise
from ringcast_router.config import load, loads
from ringcast_router.front import connections
from ringcast_router.front.body import IN_MEMORY
from ringcast_router.planning.interface import View

ROOT = Path(__file__).parent.parent
TEXTS = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "docs" / "index.md")}


def blocks(language):
    found = []
    for name, text in TEXTS.items():
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)):
            found.append(pytest.param(block, id=f"{name} {number}"))
    return found


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "models:" in block.values[0]])
def test_a_configuration_loads_without_a_warning(text):
    assert loads(text).warnings == ()


async def test_the_stand_in_of_the_readme_serves_its_request(serve):
    """As the README says: its file without a model, and its request."""
    [config] = [
        block for block in re.findall(r"```yaml\n(.*?)```", TEXTS["README.md"], re.DOTALL) if "responder" in block
    ]
    [body] = re.findall(r"curl http://127.0.0.1:8080/v1/chat/completions -d '(.*)'", TEXTS["README.md"])
    served = await serve(config.replace("cmd: python ", f"cmd: {sys.executable} ").replace("--load 1", "--load 0"))
    answer = await served.request("POST", "/v1/chat/completions", data=body)
    assert answer.status == 200, answer.text
    assert json.loads(answer.text)["model"] == "small"


def commands():
    """Return each command line that the documents show, without comments."""
    found = [
        re.findall(r"^    (ringcast-router (?!.*\|).*?)(?:  +#.*)?$", text, re.MULTILINE) for text in TEXTS.values()
    ]
    return sorted(set(itertools.chain.from_iterable(found)))


@pytest.mark.parametrize("line", commands())
def test_the_flags_of_each_command_line_exist(line):
    assert _parser().parse_args(normalise(shlex.split(line)[1:])).run


def test_the_error_line_that_the_documentation_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("models:\n  large:\n    cmd: x ${PORT}\n    tll: 600\n")
    [warning] = load(["config.yaml"]).warnings
    assert warning in TEXTS["index.md"]


async def test_the_limits_are_those_of_the_documentation(serve):
    text = TEXTS["index.md"]
    served = await serve("models: {}")
    said = {int(number.replace(",", "")) for number in re.findall(r"may have ([\d,]+) bytes", text)}
    assert said == {8190}
    assert (await served.request("GET", f"/health?{'x' * 8_100}")).status == 200
    assert (await served.request("GET", f"/health?{'x' * 8_300}")).status == 414
    assert (await served.request("GET", "/health", headers={"X-Long": "x" * 8_300})).status == 431
    assert "Beyond 1 MiB" in text
    assert IN_MEMORY == 1024 * 1024
    assert f"for {connections.STALLED:.0f} seconds is given up" in text


@pytest.mark.parametrize("text", blocks("python"))
def test_the_planner_evicts_what_has_been_ready_for_longest(text):
    names = {}
    exec(compile(text, "docs/index.md", "exec"), names)
    planner = names["Oldest"](loads("models: {}"))
    view = View(running=("a", "b", "c"), ready_at={"a": 2.0, "b": 1.0, "c": 3.0}, now=4.0)
    assert planner.plan("d", view).evict == ("b",)
    assert planner.plan("a", view).evict == ()
    assert "b" in planner.plan("d", view).rule
    busy = View(running=("a", "b", "c"), ready_at=view.ready_at, inflight={"b": 1}, now=4.0)
    assert planner.plan("d", busy).evict == ("a",)


async def test_each_endpoint_of_the_table_is_there(serve):
    served = await serve("models: {}")
    table = TEXTS["index.md"].partition("\n## Endpoints\n")[2].partition("\n## ")[0]
    asked = 0
    for cell in re.findall(r"^\| ((?:GET|POST|any) .*?) \|", table, re.MULTILINE):
        for method, paths in re.findall(r"(GET|POST|any) ([^A-Z].*?)(?=, (?:GET|POST) |$)", cell):
            for path in paths.split(", "):
                if path in ("/api/events", "/logs/stream"):  # which do not end
                    continue
                options = {} if method == "GET" else {"json": {"model": "nobody"}}
                answer = await served.request("GET" if method == "any" else method, path, **options)
                said = answer.text
                assert "there is no /" not in said, (method, path, said)
                assert answer.status != 405, (method, path)
                asked += 1
    assert asked > 35


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_links_within_the_documentation_lead_somewhere(text):
    here = ROOT / "docs" if text is TEXTS["index.md"] else ROOT
    titles = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in titles
        elif "://" not in target:
            assert (here / target).exists(), target
