"""Runs the test suites of other packages on Ringcast's drop-in modules: compat.py [SUITE...]

Each suite is that of an sdist from the package index, unmodified, in a virtual environment of its own. That has
Ringcast and what the suite needs, but not the package whose place a drop-in takes. All of it happens in build/compat.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "compat"


def locked(source: Path) -> list[str]:
    """The versions in uv.lock, with which the package's authors run its tests; of several the one for newer Pythons."""
    versions: dict[str, str] = {}
    for package in tomllib.loads((source / "uv.lock").read_text("utf-8"))["package"]:
        name, version = package["name"], package.get("version", "0")
        versions[name] = max(version, versions.get(name, version), key=as_numbers)
    return [f"{name}=={version}" for name, version in versions.items()]


def as_numbers(version: str) -> list[int]:
    """A version, so that it can be compared."""
    return [int(part) for part in re.findall(r"\d+", version)]


def flask_needs(source: Path) -> list[str]:
    """What Flask and its tests ask for. It is installed without blinker, and so without what it asks for by itself."""
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))
    needed = [*project["project"]["dependencies"], *project["dependency-groups"]["tests"]]
    return [requirement for requirement in needed if not requirement.startswith("blinker")]


@dataclass(frozen=True)
class Suite:
    """The tests of a package."""

    sdist: str
    """What pip is to download."""
    drop_in: str
    """The package in whose place the drop-in is."""
    needs: Callable[[Path], list[str]]
    """Requirements, of the unpacked sdist, for a run of its tests."""
    constraints: Callable[[Path], list[str]] = lambda source: []
    """Versions, of the unpacked sdist; of packages, too, that nothing needs."""
    installed: bool = True
    """Whether the package itself is installed, because it is not what the drop-in replaces."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Files of tests that cannot be run, and why."""


SUITES = {
    "blinker": Suite(
        sdist="blinker==1.9.0",
        drop_in="blinker",
        needs=lambda source: (source / "requirements" / "tests.txt").read_text("utf-8").splitlines(),
        installed=False,
        left_out=(("tests/test_symbol.py", "tests a class of blinker._utilities, a private module"),),
    ),
    "flask": Suite(sdist="flask==3.1.3", drop_in="blinker", needs=flask_needs, constraints=locked),
    "pyee": Suite(
        sdist="pyee==13.0.1",
        drop_in="pyee",
        needs=lambda source: ["pytest", "pytest-asyncio"],
        installed=False,
        left_out=(
            ("tests/test_trio.py", "tests pyee.trio, which has no drop-in"),
            ("tests/test_twisted.py", "tests pyee.twisted, which has no drop-in"),
        ),
    ),
}


def main(names: list[str]) -> None:
    """Run the suites; the first that fails ends it."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    tools = make_venv(WORK / "tools")
    run(tools, "-m", "pip", "wheel", "-q", "--no-deps", "-w", WORK, ROOT)
    for name in names or SUITES:
        print(f"--- {name}: {SUITES[name].sdist}", flush=True)
        check(name, SUITES[name], tools)


def check(name: str, suite: Suite, tools: Path) -> None:
    """Install what a suite needs, and run it."""
    folder = WORK / name
    source = unpack(suite.sdist, tools, folder)
    python = make_venv(folder / "venv")
    needed, versions = folder / "needs.txt", folder / "versions.txt"
    needed.write_text("\n".join(suite.needs(source)))
    versions.write_text("\n".join(suite.constraints(source)))
    run(python, "-m", "pip", "install", "-q", "-r", needed, "-c", versions, *WORK.glob("ringcast-*.whl"))
    if suite.installed:
        run(python, "-m", "pip", "install", "-q", "--no-deps", source)
    else:
        shutil.rmtree(source / suite.drop_in, ignore_errors=True)  # beside its tests it could be imported
    ignored = []
    for file, reason in suite.left_out:
        if not (source / file).exists():
            sys.exit(f"{name}: there is no {file} to leave out")
        print(f"left out: {file}: {reason}", flush=True)
        ignored.append(f"--ignore={file}")
    environ = {
        **os.environ,
        "DROP_IN": suite.drop_in,
        "PYTHON": str(python),
        "PYTHONPATH": str(ROOT / ".ci"),
    }
    subprocess.run(
        [ROOT / ".ci" / "pytest", "-p", "drop_in", "-q", "-r", "fE", *ignored], cwd=source, env=environ, check=True
    )


def unpack(sdist: str, tools: Path, folder: Path) -> Path:
    """Download an sdist and unpack it; its folder."""
    package = sdist.partition("==")[0]
    run(tools, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package, "-d", folder, sdist)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def make_venv(folder: Path) -> Path:
    """An empty virtual environment; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def run(*command: str | Path) -> None:
    """Run a command, without what the environment says of Python."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run(command, check=True, env=environ)


if __name__ == "__main__":
    main(sys.argv[1:])
