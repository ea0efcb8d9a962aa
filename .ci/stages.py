"""Runs the stages of CI, all or those that are named, and none again for which nothing has changed.

    python .ci/stages.py [--list] [STAGE...]

A stage is a script, .ci/stage/NAME, and a row of .ci/stages.toml. The script runs in a folder of its own with copies of
the row's inputs and of nothing else, so that what is no input cannot change the result. A stage that succeeds leaves a
file in the cache, under a hash of all that can: see `Runner.key`. A failure leaves none. Nor does anything that is
skipped because MAY_SKIP asks for it.

Environment variables: CI_CACHE=0 begins with an empty cache and runs everything, CI_CACHE=FOLDER says where the cache
is (default: ringcast-ci in the user's cache folder). CI_JOBS says how many stages run at a time (2), PYTHON which
Python is tested (python3). MAY_SKIP has the names, with spaces between, of tools, interpreters and libraries that may
be missing; without it a stage fails that lacks one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import fnmatch
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT_DAYS = {"results": 30, "environments": 3, "builds": 3}

# Variables of the caller that compilers, Python, pip, sanitizers or the tests read.
READ = re.compile(
    r"(CC|AR|(C|CPP|LD)FLAGS|SOURCE_DATE_EPOCH|MAY_SKIP|(PYTHON|PIP_|TEST_|RINGCAST_|OPENBLAS_).*|.*SAN_OPTIONS)$"
)

# What the interpreter is, as far as a result can depend on it.
IDENTITY = """
import platform, sys, sysconfig
variables = map(sysconfig.get_config_var, ("CC", "CFLAGS", "Py_GIL_DISABLED"))
print(sys.version, sys._base_executable, platform.libc_ver(), *variables)
"""


class StageError(Exception):
    """A stage cannot run, or the table is wrong."""


class LeftOut(Exception):
    """A stage is not run for want of something that MAY_SKIP names."""


@dataclass(frozen=True)
class Stage:
    """A row of the table. What a row leaves out is as here."""

    name: str
    inputs: tuple[str, ...]
    """Files, folders, and patterns in which `*` stands for anything, also for slashes; `!` leaves out."""
    environment: str = "main"
    build: Mapping[str, str] | None = None
    """Switches of setup.py with which the extension is built beside the sources; without it there is none."""
    tools: tuple[str, ...] = ()
    """Programs, named like their Debian packages, that are installed where they are missing."""
    minutes: float = 20
    alone: bool = False
    """Measures something: no other stage runs meanwhile."""
    always: bool = False
    """Runs last, and also where nothing has changed."""
    only_named: bool = False
    """Decides on no change: it runs where it is named."""
    dated: bool = False
    """Installs packages by itself, whose versions nobody knows before: runs again every day."""
    git: bool = False
    """Needs the history, and is run again where there is another release."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has packages, but not Ringcast."""

    python: Path
    identity: str
    packages: str
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a stage went."""

    stage: Stage
    good: bool
    ran: bool
    seconds: float
    line: str


class Table:
    """.ci/stages.toml"""

    def __init__(self, path: Path) -> None:
        table = tomllib.loads(path.read_text("utf-8"))
        self.environments: dict[str, dict[str, list[str] | str]] = table["environments"]
        self.core: list[str] = table["groups"]["core"]
        self.stages: dict[str, Stage] = {}
        known = {field.name for field in dataclasses.fields(Stage)} - {"name"}
        for name, row in table["stages"].items():
            if unknown := row.keys() - known:
                raise StageError(f"stage {name}: {', '.join(sorted(unknown))}: a row has {', '.join(sorted(known))}")
            if wrong := [switch for switch in row.get("build", ()) if not switch.startswith("RINGCAST_")]:
                raise StageError(f"stage {name}: {', '.join(wrong)}: the switches of setup.py begin with RINGCAST_")
            row["inputs"] = tuple(self._without_groups(row["inputs"], table["groups"]))
            row["tools"] = tuple(row.get("tools", ()))
            self.stages[name] = Stage(name, **row)

    @property
    def deciding(self) -> list[str]:
        """The names of the stages that run where none is named."""
        return [name for name, stage in self.stages.items() if not stage.only_named]

    def _without_groups(self, inputs: Iterable[str], groups: Mapping[str, list[str]]) -> Iterable[str]:
        for entry in inputs:
            sign, name = ("!", entry[1:]) if entry.startswith("!") else ("", entry)
            if name.startswith("@"):
                yield from (sign + each for each in self._without_groups(groups[name[1:]], groups))
            else:
                yield entry


class Runner:
    """Runs stages of one work tree."""

    def __init__(self, root: Path, cache: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.table = Table(root / ".ci" / "stages.toml")
        self._root, self._cache = root, cache
        self._environ = dict(environ)
        self._may_skip = set(environ.get("MAY_SKIP", "").split())
        self._files = tracked(root)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._running: set[int] = set()
        self._logs = root / "build" / "ci"
        self._logs.mkdir(parents=True, exist_ok=True)

    def run(self, stages: Iterable[Stage], jobs: int = 2) -> list[Outcome]:
        """Run the stages, as many at a time as may be, and show what each says when it has ended."""
        stages = list(stages)
        alone = [stage for stage in stages if stage.alone and not stage.always]
        last = [stage for stage in stages if stage.always]
        with ThreadPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(self.run_one, [stage for stage in stages if stage not in alone + last]))
        return outcomes + [self.run_one(stage) for stage in alone + last]

    def run_one(self, stage: Stage) -> Outcome:
        """Run a stage, unless the cache knows that it succeeds."""
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix=f"ringcast-{stage.name}-", ignore_cleanup_errors=True) as folder:
                outcome = self._run_in(stage, Path(folder))
        except LeftOut as reason:
            outcome = Outcome(stage, True, False, 0.0, f"LEFT OUT: {reason}")
        except StageError as error:
            outcome = Outcome(stage, False, False, time.monotonic() - started, str(error))
        mark = "===" if outcome.good else "!!!"
        text = f"{mark} {stage.name}: {outcome.line}\n"
        if outcome.ran:
            text = f"\n{mark} {stage.name}\n{self.log(stage).read_text('utf-8', 'replace')}{text}"
        with self._locks["output"]:
            print(text, end="", flush=True)
        return outcome

    def log(self, stage: Stage) -> Path:
        """The file with what the stage has said."""
        return self._logs / f"{stage.name}.log"

    def _run_in(self, stage: Stage, folder: Path) -> Outcome:
        tree = folder / "tree"
        self.copy(self.inputs(stage), tree)
        self._provide_tools(stage)
        environment = self.environment(stage.environment)
        key = self.key(stage, tree, environment)
        result = self._cache / "results" / key
        if result.exists() and not stage.always:
            known = json.loads(result.read_text())
            os.utime(result)
            line = f"not run: nothing has changed since {known['at']}, when it passed in {known['seconds']:.0f} s"
            return Outcome(stage, True, False, 0.0, f"{line} ({key[:12]})")
        started = time.monotonic()
        if stage.build is not None:
            self._build(stage.build, environment, tree)
        if stage.git:
            (tree / ".git").write_text(f"gitdir: {git(self._root, 'rev-parse', '--absolute-git-dir')}\n")
        status = self._execute(stage, tree, environment)
        seconds = time.monotonic() - started
        if status == 0 and not self._may_skip:
            result.parent.mkdir(parents=True, exist_ok=True)
            at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
            write(result, json.dumps({"stage": stage.name, "at": at, "seconds": seconds}))
        line = f"{'passed' if status == 0 else f'FAILED ({status})'} in {seconds:.0f} s"
        return Outcome(stage, status == 0, True, seconds, line)

    def _execute(self, stage: Stage, tree: Path, environment: Environment) -> int | str:
        """Run the script to its end, with all processes that it has left."""
        variables = self._environ | {
            "PYTHON": str(environment.python),
            "PATH": f"{environment.python.parent}{os.pathsep}{self._environ['PATH']}",
            "MAY_SKIP": " ".join([*sorted(self._may_skip), *environment.lacks]),
            "GIT_OPTIONAL_LOCKS": "0",
        }
        if stage.build is not None:
            variables["PYTHONPATH"] = str(tree / "src")
        with self.log(stage).open("wb") as log:
            process = subprocess.Popen(
                [tree / ".ci" / "stage" / stage.name], cwd=tree, env=variables,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self._running.add(process.pid)
            try:
                return process.wait(stage.minutes * 60)
            except subprocess.TimeoutExpired:
                return f"not done after {stage.minutes:g} minutes"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                self._running.discard(process.pid)
                process.wait()

    def end(self, signal_number: int, frame: object) -> None:
        """Handle a signal: end this program and all stages that run."""
        for group in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        os._exit(128 + signal_number)

    def inputs(self, stage: Stage) -> list[str]:
        """The files that the row names, the script, and this program.

        Raises:
            StageError: a name or pattern fits no file, so that the row is not true any more.
        """
        chosen = set(select(self._files, [".ci/stages.py", f".ci/stage/{stage.name}"], stage.name))
        return sorted(chosen.union(select(self._files, stage.inputs, stage.name)))

    def copy(self, names: Iterable[str], to: Path) -> None:
        """Copy files of the work tree, with their modes."""
        for name in names:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._root / name, to / name, follow_symlinks=False)

    def key(self, stage: Stage, tree: Path, environment: Environment) -> str:
        """A hash of all that can change the result of a stage.

        That is: the row; the inputs, the script and this program, as they were copied; the interpreter; the versions of
        all packages that are installed for it; the compiler, the tools and the machine; the variables that are read.
        Where the stage installs packages by itself also the date: tomorrow the newest versions may be others.
        """
        parts: list[object] = [dataclasses.astuple(stage), digest_folder(tree), machine(self._environ)]
        parts += [environment.identity, environment.packages, self._read()]
        parts += [[tool, version(tool)] for tool in stage.tools]
        if stage.dated:
            parts.append(today())
        if stage.git:
            parts.append(git(self._root, "tag", "--list", "--format=%(refname) %(objectname)", "v*"))
        return digest(parts)

    def _read(self) -> dict[str, str]:
        return {name: value for name, value in sorted(self._environ.items()) if READ.match(name)}

    def _provide_tools(self, stage: Stage) -> None:
        with self._locks["tools"]:
            for tool in stage.tools:
                if shutil.which(tool) is None:
                    install(tool)
                if shutil.which(tool) is None:
                    if tool in self._may_skip:
                        raise LeftOut(f"there is no {tool}, as MAY_SKIP has it")
                    raise StageError(f"there is no {tool}, and it cannot be installed")

    def environment(self, name: str) -> Environment:
        """The virtual environment of that name, made anew every day: so the newest versions of packages are tested."""
        row = self.table.environments[name]
        with self._locks[f"environment {name}"]:
            interpreter = self._interpreter(str(row["interpreter"]), name)
            identity = call(interpreter, "-c", IDENTITY)
            requirements = self._requirements(row)
            parts = [row, identity, requirements, today(), self._read()]
            folder = self._cache / "environments" / f"{name}-{digest(parts)[:16]}"
            complete = folder / "packages.json"
            if not complete.exists():
                print(f"=== environment {name}: {interpreter}", flush=True)
                shutil.rmtree(folder, ignore_errors=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
                write(complete, json.dumps(self._install(interpreter, folder, requirements, row)))
            os.utime(folder)
            packages, lacks = json.loads(complete.read_text())
            return Environment(folder / "bin" / "python", identity, packages, tuple(lacks))

    def _interpreter(self, row: str, name: str) -> str:
        """The path of the Python: PYTHON's, or one that tools/interpreter builds once."""
        if not row:
            return call(self._environ.get("PYTHON", "python3"), "-c", "import sys; print(sys._base_executable)")
        command = [str(self._root / "tools" / "interpreter"), row]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 77 and "interpreters" in self._may_skip:
            raise LeftOut(f"there is no interpreter '{row}', as MAY_SKIP has it")
        if done.returncode:
            raise StageError(f"environment {name}: there is no interpreter '{row}': see above")
        return done.stdout.strip()

    def _requirements(self, row: Mapping[str, list[str] | str]) -> list[str]:
        """What the row names, and what the extras that it names ask for."""
        project = tomllib.loads((self._root / "pyproject.toml").read_text("utf-8"))
        extras = project["project"]["optional-dependencies"]
        wanted = [*project["build-system"]["requires"], *row.get("packages", ())]
        for extra in row.get("extras", ()):
            wanted += extras[extra]
        return sorted(set(wanted))

    def _install(
        self, interpreter: str, folder: Path, requirements: list[str], row: Mapping[str, list[str] | str]
    ) -> tuple[str, list[str]]:
        """Install into a new environment, and return the versions of all packages, and those that have no wheel."""
        call(interpreter, "-m", "venv", folder)
        python, lacks = folder / "bin" / "python", list(row.get("lacks", ()))
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *row.get("options", ())]
        for package in row.get("may_lack", ()):
            wanted = [requirement for requirement in requirements if re.match(rf"{package}\b", requirement)]
            if subprocess.run([*pip, *wanted], stderr=subprocess.DEVNULL, check=False).returncode:
                print(f"!!! {package} HAS NO WHEEL for {interpreter}: the tests that need it are skipped", flush=True)
                requirements = [requirement for requirement in requirements if requirement not in wanted]
                lacks.append(package)
        if requirements:
            call(*pip, *requirements)
        return call(python, "-m", "pip", "freeze", "--all"), lacks

    def _build(self, switches: Mapping[str, str], environment: Environment, tree: Path) -> None:
        """Put the extensions into a tree, each once built for an interpreter and set of switches.

        Those are the core, and the drop-in modules whose sources are among the inputs.
        """
        with tempfile.TemporaryDirectory(prefix="ringcast-build-") as folder:
            source = Path(folder, "source")
            self.copy(select(self._files, self.table.core, "core"), source)
            self.copy((str(path.relative_to(tree)) for path in tree.glob("src/ringcast/compat/*.pyx")), source)
            parts = [digest_folder(source), switches, environment.identity, environment.packages]
            key = digest([*parts, machine(self._environ), self._read()])
            built = self._cache / "builds" / key
            with self._locks[f"build {key}"]:
                if not built.exists():
                    for name in ("README.md", "LICENSE"):  # pyproject.toml names them
                        (source / name).touch()
                    variables = self._environ | dict(switches)
                    command = ["setup.py", "-q", "egg_info", "build_ext", "--inplace"]
                    call(environment.python, *command, cwd=source, env=variables)
                    new = built.with_suffix(f".{os.getpid()}")
                    shutil.copytree(source / "src" / "ringcast.egg-info", new / "ringcast.egg-info")
                    for extension in (source / "src").rglob("*.so"):
                        place = new / extension.relative_to(source / "src")
                        place.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(extension, place)
                    new.rename(built)
        os.utime(built)
        shutil.copytree(built, tree / "src", dirs_exist_ok=True)

    def prune(self) -> None:
        """Remove what has not been used for days."""
        for kind, days in KEPT_DAYS.items():
            for path in (self._cache / kind).glob("*"):
                if time.time() - path.stat().st_mtime > days * 86400:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def tracked(root: Path) -> list[str]:
    """The files of a work tree, without what git ignores."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted(name for name in set(names) if name and (root / name).is_file())


def select(files: Iterable[str], patterns: Iterable[str], stage: str) -> list[str]:
    """The files that are one of the patterns, in one, or fit one; without those that a later pattern with `!` has.

    Raises:
        StageError: a pattern has no file.
    """
    files = list(files)
    chosen: set[str] = set()
    for entry in patterns:
        pattern = entry.removeprefix("!")
        found = {
            file
            for file in files
            if file == pattern or file.startswith(f"{pattern}/") or fnmatch.fnmatchcase(file, pattern)
        }
        if not found:
            raise StageError(f"{stage}: there is no file '{pattern}': see .ci/stages.toml")
        chosen = chosen - found if entry != pattern else chosen | found
    return sorted(chosen)


def digest(parts: object) -> str:
    """A hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_folder(folder: Path) -> str:
    """A hash of all files of a folder: their names, modes and contents."""
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    return digest(
        [
            (str(path.relative_to(folder)), path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        ]
    )


def machine(environ: Mapping[str, str]) -> list[str]:
    """The kind of machine: system, processor, and compiler."""
    try:
        processor = re.findall(r"^model name.*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        system = Path("/etc/os-release").read_text()
    except OSError:
        processor, system = [], platform.platform()
    compilers = [version(*compiler.split()) for compiler in (environ.get("CC", "cc"), "gcc")]
    return [platform.machine(), platform.release(), system, *processor, *compilers]


def version(*command: str) -> str:
    """What a program says of its version; nothing where there is none."""
    if shutil.which(command[0]) is None:
        return ""
    option = "-V" if command[0] == "spin" else "--version"
    return subprocess.run([*command, option], capture_output=True, text=True, check=False).stdout


def install(package: str) -> None:
    """Install a Debian package, where that is possible without being asked for a password."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if any(shutil.which(program) is None for program in [*prefix[:1], "apt-get"]):
        return
    apt = [*prefix, "apt-get", "-q"]
    subprocess.run([*apt, "update"], stdout=subprocess.DEVNULL, check=False)
    subprocess.run([*apt, "install", "-y", "--no-install-recommends", package], stdout=subprocess.DEVNULL, check=False)


def today() -> str:
    """The date, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def git(root: Path, *arguments: str) -> str:
    """What git says."""
    return call("git", "-C", root, *arguments)


def call(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        StageError: the command has failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StageError(f"{' '.join(words[:8])} failed: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """A line for each stage, and one for all."""
    lines = [f"{outcome.stage.name:20s} {outcome.line.splitlines()[0]}" for outcome in outcomes]
    failed = [outcome.stage.name for outcome in outcomes if not outcome.good]
    ran = sum(outcome.ran for outcome in outcomes)
    lines.append(f"{len(outcomes)} stages, {ran} run, in {seconds / 60:.1f} minutes: ")
    return "\n".join(lines) + (f"FAILED: {', '.join(failed)}" if failed else "all is well")


def main(argv: list[str] | None = None) -> int:
    """Run stages and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the names of all stages, as JSON, and run none")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="all, if none is named")
    options = parser.parse_args(argv)
    if options.list:
        print(json.dumps(Table(ROOT / ".ci" / "stages.toml").deciding))
        return 0
    with contextlib.ExitStack() as stack:
        wanted = os.environ.get("CI_CACHE", "")
        if wanted == "0":
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringcast-ci-")))
        else:
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            cache = Path(wanted or Path(caches, "ringcast-ci")).resolve()
        runner = Runner(ROOT, cache)
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background ignores SIGINT
            signal.signal(number, runner.end)
        if unknown := set(options.stages) - runner.table.stages.keys():
            parser.error(f"no stage {', '.join(sorted(unknown))}: there are {', '.join(runner.table.stages)}")
        started = time.monotonic()
        stages = [runner.table.stages[name] for name in options.stages or runner.table.deciding]
        outcomes = runner.run(stages, int(os.environ.get("CI_JOBS", "2")))
        runner.prune()
    print(f"\n{summary(outcomes, time.monotonic() - started)}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
