"""What the documentation shows is what the router does."""

import re
from pathlib import Path

import pytest

from ringcast_router.config import loads
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
