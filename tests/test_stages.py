"""The stages of CI: what runs again when something changes, and that no failure and nothing that is skipped is kept.

Each test has a work tree with two small stages and its own cache; the runner is the one that CI uses.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "stages.py"

pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason="in a checkout only"),
    pytest.mark.skipif(sys.platform == "win32", reason="the stages are shell scripts"),
    pytest.mark.skipif(not (shutil.which("git") and shutil.which("bash")), reason="needs git and bash"),
]

TABLE = """
[groups]
core = ["core.c"]
sources = ["src", "*.toml"]

[environments.main]
interpreter = ""

[stages.first]
inputs = ["@sources", "tests/test_first.py"]

[stages.second]
inputs = ["other.txt"]
"""


@pytest.fixture(scope="module")
def stages():
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("ci_stages", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Tree:
    """A work tree, in which each stage writes a line into the file `ran` when it runs."""

    def __init__(self, stages, root: Path, cache: Path) -> None:
        self.stages, self.root, self.cache = stages, root, cache
        self.environ = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
        self.write(".ci/stages.py", "the runner")
        self.write(".ci/stages.toml", TABLE)
        self.write("pyproject.toml", "[build-system]\nrequires = []\n[project]\noptional-dependencies = {}\n")
        for name in ("src/module.py", "tests/test_first.py", "other.txt", "core.c"):
            self.write(name, "as it was")
        for name in ("first", "second"):
            self.script(name)
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def script(self, name: str, *lines: str) -> None:
        """A script that says that it has run, and then does `lines`."""
        self.write(f".ci/stage/{name}", "\n".join(["#!/bin/sh", f"echo {name} >>{self.root}/ran", *lines, ""]))
        (self.root / f".ci/stage/{name}").chmod(0o755)

    def row(self, name: str, text: str) -> None:
        """Append to the row of a stage."""
        table = (self.root / ".ci/stages.toml").read_text()
        self.write(".ci/stages.toml", table.replace(f"[stages.{name}]\n", f"[stages.{name}]\n{text}\n"))

    def runner(self):
        return self.stages.Runner(self.root, self.cache, self.environ)

    def run(self, *names: str):
        """Run the stages, all if none is named, and return their outcomes and the names of those that have run."""
        ran = self.root / "ran"
        ran.unlink(missing_ok=True)
        runner = self.runner()
        outcomes = runner.run([runner.table.stages[name] for name in names or runner.table.stages])
        return outcomes, sorted(ran.read_text().split()) if ran.exists() else []

    def ran(self, *names: str) -> list[str]:
        return self.run(*names)[1]


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """Where the environment is, made once for all tests here."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def tree(stages, environments, tmp_path):
    root, cache = tmp_path / "root", tmp_path / "cache"
    root.mkdir()
    cache.mkdir()
    (cache / "environments").symlink_to(environments)
    return Tree(stages, root, cache)


def test_what_has_passed_is_not_run_again_and_says_so(tree):
    assert tree.ran() == ["first", "second"]
    outcomes, ran = tree.run()
    assert ran == []
    assert all(outcome.good and not outcome.ran for outcome in outcomes)
    assert all("not run: nothing has changed since" in outcome.line for outcome in outcomes)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("src/module.py", ["first"]),
        ("src/new.py", ["first"]),
        ("tests/test_first.py", ["first"]),
        ("other.txt", ["second"]),
        (".ci/stages.py", ["first", "second"]),
        ("README.md", []),
    ],
)
def test_a_change_of_an_input_runs_the_stages_that_have_it(tree, name, again):
    tree.ran()
    tree.write(name, "changed")
    assert tree.ran() == again
    assert tree.ran() == []


def test_an_input_with_an_exclamation_mark_is_left_out_also_where_it_is_a_group(tree):
    table = (tree.root / ".ci/stages.toml").read_text()
    tree.write(".ci/stages.toml", table.replace('inputs = ["other.txt"]', 'inputs = ["*.txt", "src", "!@sources"]'))
    tree.script("second", f"find . -type f | sort >{tree.root}/seen")
    tree.ran()
    assert (tree.root / "seen").read_text().split() == ["./.ci/stage/second", "./.ci/stages.py", "./other.txt"]
    tree.write("src/module.py", "changed")
    assert tree.ran() == ["first"]


def test_a_file_that_has_gone_is_a_change(tree):
    tree.write("src/more.py", "")
    tree.ran()
    (tree.root / "src/more.py").unlink()
    assert tree.ran() == ["first"]


def test_a_change_of_the_script_or_of_its_row_runs_the_stage(tree):
    tree.ran()
    tree.script("second", "true")
    assert tree.ran() == ["second"]
    tree.row("second", "minutes = 5")
    # the table is an input of the stage `first` of this tree
    assert "second" in tree.ran()


@pytest.mark.parametrize("what", ["mode", "variable", "packages", "interpreter", "compiler"])
def test_all_else_that_can_change_the_result_runs_the_stage(tree, what, monkeypatch):
    tree.ran()
    if what == "mode":
        (tree.root / "other.txt").chmod(0o600)
    elif what == "variable":
        tree.environ["CFLAGS"] = "-O0"
    elif what == "compiler":
        version = tree.stages.version
        monkeypatch.setattr(
            tree.stages, "version", lambda *command: version(*command) + (" 99" if command == ("gcc",) else "")
        )
    else:
        environment = tree.stages.Runner.environment

        def other(runner, name):
            attribute = "identity" if what == "interpreter" else what
            found = environment(runner, name)
            return tree.stages.dataclasses.replace(found, **{attribute: getattr(found, attribute) + " other"})

        monkeypatch.setattr(tree.stages.Runner, "environment", other)
    assert "second" in tree.ran()


def test_a_stage_that_installs_packages_by_itself_runs_again_on_another_day(tree, monkeypatch):
    tree.row("second", "dated = true")
    tree.ran()
    runner = tree.runner()
    stage, environment = runner.table.stages["second"], runner.environment("main")
    key = runner.key(stage, tree.root / "src", environment)
    monkeypatch.setattr(tree.stages, "today", lambda: "2000-01-01")
    assert runner.key(stage, tree.root / "src", environment) != key


def test_a_failure_is_not_kept(tree):
    tree.script("second", "exit 3")
    for _ in range(2):
        outcomes, ran = tree.run("second")
        assert ran == ["second"]
        assert [outcome.good for outcome in outcomes] == [False]
        assert "FAILED (3)" in outcomes[0].line


def test_what_was_skipped_because_that_was_asked_for_is_not_kept(tree):
    tree.environ["MAY_SKIP"] = "something"
    assert tree.ran("second") == ["second"]
    assert tree.ran("second") == ["second"]
    del tree.environ["MAY_SKIP"]
    assert tree.ran("second") == ["second"]


def test_a_stage_that_always_runs_does(tree):
    tree.row("second", "always = true")
    assert tree.ran() == ["first", "second"]
    assert tree.ran() == ["second"]


def test_an_empty_cache_runs_everything(tree):
    tree.ran()
    for path in (tree.cache / "results").iterdir():
        path.unlink()
    assert tree.ran() == ["first", "second"]


def test_a_stage_sees_its_inputs_and_nothing_else(tree):
    tree.script("second", f"find . -type f | sort >{tree.root}/seen")
    assert tree.ran("second") == ["second"]
    assert (tree.root / "seen").read_text().split() == ["./.ci/stage/second", "./.ci/stages.py", "./other.txt"]


def test_an_input_that_is_not_there_is_a_failure(tree):
    (tree.root / "other.txt").unlink()
    outcomes, ran = tree.run("second")
    assert (outcomes[0].good, ran) == (False, [])
    assert "there is no file 'other.txt'" in outcomes[0].line


def test_a_row_with_a_word_that_means_nothing_is_an_error(tree):
    tree.row("second", "aloen = true")
    with pytest.raises(tree.stages.StageError, match="stage second: aloen: a row has alone, always"):
        tree.runner()


def test_a_switch_of_the_build_that_setup_py_would_not_know_is_an_error(tree):
    tree.row("second", 'build = { RINGCAST_DEBUG = "1", WERROR = "1" }')
    with pytest.raises(tree.stages.StageError, match="stage second: WERROR: the switches"):
        tree.runner()


@pytest.mark.parametrize(
    ("may_skip", "good", "line"), [("", False, "there is no no-such"), ("no-such", True, "LEFT OUT")]
)
def test_a_tool_that_is_missing_is_a_failure_unless_that_is_asked_for(tree, monkeypatch, may_skip, good, line):
    monkeypatch.setattr(tree.stages, "install", lambda package: None)
    tree.row("second", 'tools = ["no-such"]')
    tree.environ["MAY_SKIP"] = may_skip
    outcomes, ran = tree.run("second")
    assert (outcomes[0].good, ran) == (good, [])
    assert line in outcomes[0].line


def test_a_stage_that_takes_too_long_is_ended_with_all_its_processes(tree):
    tree.row("second", "minutes = 0.005")
    tree.script("second", f"sleep 60 & echo $! >{tree.root}/child; wait")
    outcomes, _ = tree.run("second")
    assert not outcomes[0].good
    assert "not done after" in outcomes[0].line
    status = Path("/proc", (tree.root / "child").read_text().strip(), "status")
    assert not status.exists() or "zombie" in status.read_text()


def test_stages_run_two_at_a_time_but_those_that_measure_alone(tree, monkeypatch):
    together = threading.Barrier(2, timeout=15)
    running, most = set(), {}

    def run_one(runner, stage):
        running.add(stage.name)
        if not stage.alone:
            together.wait()
        most[stage.name] = len(running)
        if not stage.alone:
            together.wait()
        running.discard(stage.name)
        return tree.stages.Outcome(stage, True, True, 0.0, "")

    monkeypatch.setattr(tree.stages.Runner, "run_one", run_one)
    stage = tree.stages.Stage
    runner = tree.runner()
    outcomes = runner.run([stage("a", ()), stage("measures", (), alone=True), stage("b", ())])
    assert most == {"a": 2, "b": 2, "measures": 1}
    assert [outcome.stage.name for outcome in outcomes] == ["a", "b", "measures"]


def test_every_row_has_a_script_and_every_script_a_row(stages):
    table = stages.Table(ROOT / ".ci" / "stages.toml")
    scripts = {path.name for path in (ROOT / ".ci" / "stage").iterdir()}
    assert scripts == set(table.stages)
    assert all(os.access(ROOT / ".ci" / "stage" / name, os.X_OK) for name in scripts)
    assert {stage.environment for stage in table.stages.values()} <= table.environments.keys()
    assert any(stage.always for stage in table.stages.values())


def test_scripts_name_only_tests_that_there_are():
    files = list((ROOT / "tests").glob("test_*.py")) + list((ROOT / "csrc" / "tests").glob("test_*.c"))
    tests = {file.stem for file in files}.union(*(re.findall(r"def (test_\w+)", file.read_text()) for file in files))
    scripts = [ROOT / ".ci" / "core-tests", *(ROOT / ".ci" / "stage").iterdir()]
    text = "".join(script.read_text() for script in scripts)
    for words in re.findall(r"tests/test_\{\S*", text):  # {a,b}: bash expands it
        text += subprocess.run(["bash", "-c", f"echo {words}"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"(?<![\w{])test_\w+", text)) <= tests
    parts = set(" ".join(re.findall(r'-k "(.*)"', text)).split()) - {"and", "or", "not"}
    assert [part for part in parts if not any(part in test for test in tests)] == []


SKIPS = """
import pytest

def test_that_runs(): pass

@pytest.mark.skipif(True, reason={reason!r})
def test_that_does_not(): pass
"""


@pytest.mark.parametrize(
    ("reason", "may_skip", "status"),
    [
        ("could not import 'cffi': No module named 'cffi'", "", 1),
        ("could not import 'cffi': No module named 'cffi'", "uvloop", 1),
        ("could not import 'cffi': No module named 'cffi'", "uvloop cffi", 0),
        ("needs a C compiler", "", 1),
        ("type parameters came with Python 3.12", "", 0),
    ],
)
def test_a_test_that_is_skipped_for_want_of_something_fails(tmp_path, reason, may_skip, status):
    (tmp_path / "test_it.py").write_text(SKIPS.format(reason=reason))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    result = subprocess.run(
        [ROOT / ".ci" / "pytest", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable, "MAY_SKIP": may_skip},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert ("test_that_does_not" in result.stdout) == bool(status)


def test_a_file_that_is_skipped_as_a_whole_fails(tmp_path):
    (tmp_path / "test_it.py").write_text("import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n")
    (tmp_path / "test_other.py").write_text("def test_it(): pass\n")
    environ = {**os.environ, "PYTHON": sys.executable, "MAY_SKIP": ""}
    result = subprocess.run(
        [ROOT / ".ci" / "pytest", "-q", "."], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "no_such_module" in result.stdout


def test_the_workflow_runs_every_stage(stages):
    """It asks for the list, so that no stage can be forgotten."""
    listed = subprocess.run([sys.executable, SCRIPT, "--list"], capture_output=True, text=True, check=True, cwd=ROOT)
    table = stages.Table(ROOT / ".ci" / "stages.toml")
    assert json.loads(listed.stdout) == table.deciding
    assert set(table.stages) - set(table.deciding) == {"coverage"}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert ".ci/stages.py --list" in workflow
    assert "fromJSON(needs.list.outputs.stages)" in workflow
