"""Compares an sdist with what git tracks: check_sdist.py dist/ringcast-VERSION.tar.gz

The rule: the sdist has every file that git tracks, but for those that only serve the repository, whose path starts
with a dot (.ci/, .github/, .gitignore and the like), and for router/, a distribution of its own; and nothing else, but
for what setuptools writes into each sdist.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN = {"PKG-INFO", "setup.cfg"}


def main(sdist: str) -> None:
    """Compare, and exit with a message if there is a difference."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {path for path in tracked.stdout.split("\0") if path and not path.startswith((".", "router/"))}
    with tarfile.open(sdist) as archive:
        paths = {member.name.partition("/")[2] for member in archive if member.isfile()}
    found = {path for path in paths - WRITTEN if not path.startswith("src/ringcast.egg-info/")}
    if found != expected:
        missing, added = sorted(expected - found), sorted(found - expected)
        sys.exit(f"{sdist}: missing {missing}, not tracked by git {added}: see MANIFEST.in")
    print(f"{sdist}: {len(found)} files, all that git tracks")


if __name__ == "__main__":
    main(sys.argv[1])
