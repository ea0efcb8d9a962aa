"""Builds the sdist of a distribution, the same bytes wherever and whenever: sdist.py PART OUTPUT

PART is the folder with the pyproject.toml: `.` or `router`. Setuptools packs what lies about, with times, modes and
owners of this machine. So the files are copied first that git tracks, and what setuptools has packed is packed again:
with the time of SOURCE_DATE_EPOCH or, where there is none, of the last commit. Needs git and the package `build`.

Then the sdist is compared with git. The rule: it has every file of its part that git tracks, but for those that only
serve the repository, whose path starts with a dot (.ci/, .github/, .gitignore and the like); and nothing else, but for
what setuptools writes into each sdist. (router/ is a distribution of its own.)
"""

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = {".": "", "router": "router/"}
WRITTEN = {"PKG-INFO", "setup.cfg"}


def build(part: str, output: Path) -> Path:
    """Build the sdist into `output`, which is made if need be, compare it with git, and return its path."""
    files = tracked(PARTS[part])
    with tempfile.TemporaryDirectory() as temporary:
        source, packed = Path(temporary, "source"), Path(temporary, "packed")
        for name in files:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / part / name, source / name)
        subprocess.run([sys.executable, "-m", "build", "-q", "--sdist", "--outdir", packed, source], check=True)
        (sdist,) = packed.iterdir()
        output.mkdir(parents=True, exist_ok=True)
        pack_again(sdist, output / sdist.name)
    compare(output / sdist.name, files)
    return output / sdist.name


def tracked(prefix: str) -> set[str]:
    """The files that the sdist of a part should have, below its folder."""
    paths = {path.removeprefix(prefix) for path in git("ls-files", "-z").split("\0") if path.startswith(prefix)}
    others = tuple(other for other in PARTS.values() if other and other != prefix)
    return {path for path in paths if path and not path.startswith((".", *others))}


def pack_again(packed: Path, to: Path) -> None:
    """Pack the files once more, so that their names and contents decide on every byte, and nothing else does."""
    time = epoch()
    with (
        tarfile.open(packed) as archive,
        to.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=time) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as again,
    ):
        for member in sorted(archive, key=lambda member: member.name):
            if not (member.isfile() or member.isdir()):
                sys.exit(f"{packed.name}: {member.name} is neither a file nor a folder")
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, time
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            again.addfile(plain, archive.extractfile(member))


def epoch() -> int:
    """The time of all that is in the sdist, in seconds since 1970."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct"))


def compare(sdist: Path, expected: set[str]) -> None:
    """Compare the files of an sdist with those that git tracks, and exit with a message if there is a difference."""
    with tarfile.open(sdist) as archive:
        paths = {member.name.partition("/")[2] for member in archive if member.isfile()}
    found = {path for path in paths - WRITTEN if ".egg-info/" not in path}
    if found != expected:
        missing, added = sorted(expected - found), sorted(found - expected)
        sys.exit(f"{sdist}: missing {missing}, not tracked by git {added}: see MANIFEST.in")
    print(f"{sdist}: {len(found)} files, all that git tracks")


def git(*arguments: str) -> str:
    """What git says of this repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
