"""Fails if a hot path takes more instructions than it did. They are counted by valgrind, so noise does not matter.

    python .ci/instructions.py [--base COMMIT] [--bound PERCENT] [--more INSTRUCTIONS]

Builds the working tree and a commit before it: COMMIT; or the last release, if there is a tag v*; or until there is
one, BASE. (Not the previous one: many commits may each bring a little, and several come at once.) Runs each path of
.ci/hot_paths.py under callgrind with N and with 2 N events; the difference, by N, is what an event takes, without what
a dispatcher takes. Counts all instructions, and apart from them those in our own functions: most of a delivery is
CPython's call of the handler, in which a slow-down of ours would not be seen. Fails when there is nothing to compare
with, or no valgrind, unless MAY_SKIP names `valgrind`.

Where a slow-down is wanted, say so by --bound, or take as COMMIT one that has it, in .ci/run. Uses nothing but the
standard library, git and pip.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BASE = "256b6879c1952a3d177933336831cec472029a01"  # before the core took its next shape
EVENTS = 10_000
BUILT_FROM = ("src", "csrc", "setup.py", "pyproject.toml")


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, keeping what it says."""
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def checked(*command: str | Path, cwd: Path = ROOT) -> str:
    """What it says. Ends the program if it fails."""
    done = run(*command, cwd=cwd)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def loudly(why: str) -> int:
    """Say that nothing was checked, and return the exit status."""
    line = f"!!! INSTRUCTION COUNTS NOT CHECKED: {why} !!!"
    print("!" * len(line), line, "!" * len(line), sep="\n")
    return 0 if "valgrind" in os.environ.get("MAY_SKIP", "").split() else 1


def find_base(root: Path, otherwise: str = BASE) -> str | None:
    """The commit to compare with: of the last release before HEAD, or `otherwise`; None if the clone has neither."""
    tag = run("git", "describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^", cwd=root)
    if tag.returncode == 0:
        return tag.stdout.strip()
    return otherwise if has(root, otherwise) else None


def has(root: Path, commit: str) -> bool:
    """Whether the clone has such a commit."""
    return run("git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", cwd=root).returncode == 0


def is_changed(root: Path, base: str) -> bool:
    """Whether the working tree differs from the commit in what the package is built from."""
    differs = run("git", "diff", "--quiet", base, "--", *BUILT_FROM, cwd=root).returncode != 0
    new = run("git", "ls-files", "--others", "--exclude-standard", "--", *BUILT_FROM, cwd=root)
    return differs or bool(new.stdout.strip())


def copy_tree(root: Path, to: Path) -> None:
    """Copy the files of the working tree, but none that git ignores."""
    for name in checked("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root).split("\0"):
        if name and (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def copy_commit(root: Path, commit: str, to: Path) -> None:
    """Copy the files of a commit."""
    archive = to / ".archive.tar"
    checked("git", "archive", f"--output={archive}", commit, cwd=root)
    shutil.unpack_archive(archive, to)
    archive.unlink()


def build(source: Path, to: Path) -> Path:
    """Install the package of a source tree into a folder."""
    checked(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", to, source, cwd=source)
    return to


class Count(NamedTuple):
    """Instructions."""

    all: float
    ours: float  # in functions of the extension module


def read(dump: str) -> Count:
    """The instructions of one dump of callgrind, of all threads.

    A dump has, for each function, lines of `POSITION COST`. A line that follows `calls=` has what a called function has
    cost, which that function has, too. `ob=(NUMBER) FILE` says in which file the functions are that come after it, and
    the next time `ob=(NUMBER)`.
    """
    found = re.search(r"^(?:totals|summary): (\d+)", dump, re.MULTILINE)
    if found is None:
        raise ValueError("a dump of callgrind has no total")
    ours, here, names = 0, False, dict[str, str]()
    lines = iter(dump.splitlines())
    for line in lines:
        if line.startswith(("ob=", "cob=")):  # of the function itself, and of the one that it calls
            kind, _, value = line.partition("=")
            number, _, name = value.partition(" ")
            names.setdefault(number, name)
            if kind == "ob":
                here = Path(names[number]).name.startswith("_core.")
        elif line.startswith("calls="):
            next(lines)
        elif here and (cost := re.fullmatch(r"(?:\*|[+-]?\d+) (\d+)", line)):
            ours += int(cost[1])
    return Count(int(found[1]), ours)


def by_path(names: list[str], counts: list[Count], events: int) -> dict[str, Count]:
    """Instructions for an event of each path.

    Args:
        names: the paths, in the order in which they were run.
        counts: of all dumps, in their order: of the start, of three runs of each path, of the end.
        events: how many events the second run of a path had; the third one had twice as many.
    """
    if len(counts) != 3 * len(names) + 2:
        raise ValueError(f"{len(counts)} dumps for {len(names)} paths")
    runs = zip(names, counts[2::3], counts[3::3], strict=True)  # the last dump is of the end
    return {
        name: Count((twice.all - once.all) / events, (twice.ours - once.ours) / events) for name, once, twice in runs
    }


def count(package: Path, work: Path) -> dict[str, Count]:
    """Instructions for an event of each path that the package has."""
    dumps = work / "callgrind"
    done = run(
        "valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={dumps}", sys.executable, "-S",
        Path(__file__).with_name("hot_paths.py"), str(EVENTS),
        PYTHONPATH=str(package), PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1",
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"hot_paths.py failed:\n{done.stdout}{done.stderr}")
    numbered = sorted(work.glob("callgrind.*"), key=lambda file: int(file.suffix[1:]))
    counts = [read(file.read_text()) for file in [*numbered, dumps]]  # the last one has no number
    return by_path(done.stdout.splitlines(), counts, EVENTS)


def judge(path: str, before: Count, now: Count, bound: float, more: float) -> tuple[str, bool]:
    """A line for the path, and whether it has become too slow.

    Args:
        path: its name.
        before: instructions for an event.
        now: the same now.
        bound: how much more in all is too much; 0.05: 5 %.
        more: how many more in our own functions are too many.
    """
    change, own = now.all / before.all - 1, now.ours - before.ours
    slow = change > bound or own > more
    line = f"{path:26s} {before.all:9.1f} {now.all:9.1f} {change:+8.1%} {before.ours:9.1f} {now.ours:9.1f} {own:+8.1f}"
    return line + ("   TOO SLOW" if slow else ""), slow


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="COMMIT", help="what to compare with")
    parser.add_argument("--bound", type=float, default=5.0, metavar="PERCENT", help="how much more in all; 5")
    parser.add_argument(
        "--more", type=float, default=6.0, metavar="INSTRUCTIONS", help="how many more in our own functions; 6"
    )
    options = parser.parse_args(argv)
    base = options.base or find_base(root)
    if base is None:
        return loudly(f"this clone has no release before HEAD, and no commit {BASE:.7}, to compare with")
    if not has(root, base):
        parser.error(f"there is no commit {base} in this clone")
    name = checked("git", "log", "-1", "--format=%h %s", base, cwd=root).strip()
    if not is_changed(root, base):
        print(f"nothing that Ringcast is built from has changed since {name}")
        return 0
    if shutil.which("valgrind") is None:
        return loudly("there is no valgrind here")
    with tempfile.TemporaryDirectory(prefix="ringcast-instructions-") as temporary:
        old_source, new_source = Path(temporary, "old"), Path(temporary, "new")
        for source in (old_source, new_source):
            source.mkdir()
        copy_commit(root, base, old_source)
        copy_tree(root, new_source)
        counts = []
        for source in (old_source, new_source):
            counts.append(count(build(source, source / "build" / "package"), source))
        before, now = counts
    print(f"instructions for an event, in {name}, and now: in all, at most {options.bound:g} % more; and in our own")
    print(f"functions, at most {options.more:g} more (code generation moves some)")
    failed = False
    for path in now:
        line, slow = judge(path, before[path], now[path], options.bound / 100, options.more)
        print(line)
        failed |= slow
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
