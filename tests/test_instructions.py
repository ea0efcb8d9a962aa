"""The check of instruction counts: what it compares with, how it counts, and when it fails. (CI runs it whole.)"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "instructions.py"
pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason="in a checkout only"),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]


@pytest.fixture(scope="module")
def instructions():
    spec = importlib.util.spec_from_file_location("instructions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path):
    """A repository, and what commits to it."""

    def git(*command):
        identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True)

    def commit(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", f"write {text}")

    git("init", "-q")
    return tmp_path, commit, git


def subject(root, commit):
    done = subprocess.run(
        ["git", "log", "-1", "--format=%s", commit], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_clone_without_what_to_compare_with_fails(instructions, repository, capsys, monkeypatch):
    root, commit, _ = repository
    commit("setup.py", "first")
    monkeypatch.delenv("MAY_SKIP", raising=False)
    assert instructions.main([], root) == 1
    assert "!!! INSTRUCTION COUNTS NOT CHECKED: this clone has no release" in capsys.readouterr().out


def test_without_a_release_it_is_the_commit_that_is_named_whatever_has_come_since(instructions, repository):
    root, commit, git = repository
    commit("setup.py", "first")
    git("branch", "base")
    commit("setup.py", "second")
    commit("setup.py", "third")
    assert subject(root, instructions.find_base(root, "base")) == "write first"


def test_with_a_release_it_is_the_last_one_before_this_commit(instructions, repository):
    root, commit, git = repository
    commit("setup.py", "first")
    git("tag", "v1")
    commit("setup.py", "second")
    git("tag", "other")
    commit("setup.py", "third")
    git("tag", "v2")
    assert instructions.find_base(root) == "v1"


def test_a_change_of_what_is_not_built_needs_no_count(instructions, repository, capsys):
    root, commit, _ = repository
    commit("setup.py", "first")
    commit("README.md", "second")
    assert instructions.main(["--base", "HEAD^"], root) == 0
    assert "nothing that Ringcast is built from has changed since" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["setup.py", "src/new.py", "csrc/new.c"])
def test_a_change_that_is_not_committed_counts(instructions, repository, name):
    root, commit, _ = repository
    commit("setup.py", "first")
    assert not instructions.is_changed(root, "HEAD")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("changed")
    assert instructions.is_changed(root, "HEAD")


@pytest.mark.parametrize(("may_skip", "status"), [("", 1), ("spin", 1), ("spin valgrind", 0)])
def test_without_valgrind_it_fails_unless_that_is_asked_for(
    instructions, repository, capsys, monkeypatch, may_skip, status
):
    root, commit, _ = repository
    commit("setup.py", "first")
    commit("setup.py", "second")
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    monkeypatch.setenv("MAY_SKIP", may_skip)
    assert instructions.main(["--base", "HEAD^"], root) == status
    assert "!!! INSTRUCTION COUNTS NOT CHECKED: there is no valgrind here" in capsys.readouterr().out


def test_a_commit_that_is_not_there_is_an_error(instructions, repository, capsys):
    root, commit, _ = repository
    commit("setup.py", "first")
    with pytest.raises(SystemExit) as stop:
        instructions.main(["--base", "v7"], root)
    assert stop.value.code == 2
    assert "there is no commit v7 in this clone" in capsys.readouterr().err


def test_the_working_tree_is_copied_without_what_git_ignores(instructions, repository, tmp_path_factory):
    root, commit, _ = repository
    commit(".gitignore", "*.o")
    commit("src/a.c", "first")
    (root / "src" / "a.c").write_text("changed")
    (root / "src" / "new.c").write_text("new")
    (root / "src" / "a.o").write_text("ignored")
    copy = tmp_path_factory.mktemp("copy")
    instructions.copy_tree(root, copy)
    files = {file.name: file.read_text() for file in (copy / "src").iterdir()}
    assert files == {"a.c": "changed", "new.c": "new"}


def test_an_event_takes_what_the_run_of_twice_as_many_takes_more(instructions):
    start, end = (5_000_000, 0), (1_000, 0)
    counts = [start, (70, 7), (1000, 100), (1800, 150), (90, 9), (2000, 200), (2400, 220), end]
    counts = [instructions.Count(*each) for each in counts]
    assert instructions.by_path(["publish", "direct"], counts, 10) == {"publish": (80.0, 5.0), "direct": (40.0, 2.0)}
    with pytest.raises(ValueError, match="7 dumps for 2 paths"):
        instructions.by_path(["publish", "direct"], counts[:-1], 10)


DUMP = """\
version: 1
positions: line
events: Ir
summary: 12345

ob=(1) /usr/bin/python3
fl=(1) ceval.c
fn=(1) evaluate
10 7
cob=(2) /somewhere/ringcast/_core.cpython-311.so
cfi=(2) ring.h
cfn=(2) claim
calls=3 20
+1 90
* 5

ob=(2)
fl=(2)
fn=(2)
20 30
cob=(1)
cfn=(1)
calls=1 10
21 1000
-1 4
"""


def test_instructions_of_our_own_functions_are_counted_without_what_they_call(instructions):
    assert instructions.read(DUMP) == (12345, 34)
    with pytest.raises(ValueError, match="no total"):
        instructions.read("version: 1\n")


@pytest.mark.parametrize(
    ("all_now", "ours_now", "slow"), [(1049, 106, False), (1051, 100, True), (600, 60, False), (1000, 107, True)]
)
def test_it_fails_beyond_a_bound_of_all_and_beyond_one_of_our_own(instructions, all_now, ours_now, slow):
    before, now = instructions.Count(1000, 100), instructions.Count(all_now, ours_now)
    line, found = instructions.judge("direct", before, now, 0.05, 6)
    assert found is slow
    assert line.startswith("direct")
    assert line.endswith("TOO SLOW") is slow


def test_each_path_runs():
    done = subprocess.run(
        [sys.executable, SCRIPT.with_name("hot_paths.py"), "500"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 15
