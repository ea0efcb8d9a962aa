"""What mypy and pyright say of code that uses Ringcast, with all their strictness.

`typing/accepted.py` must be free of errors, and so `typing/compat_pyee.py`, a program that is typed against pyee. In
`typing/refused.py` each line that is marked `# error: X | Y` must have the error X of mypy and Y of pyright (or
several, with commas), and no other line any: so an error that is missing fails as well.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"
SOURCE = Path(__file__).parents[1] / "src"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))
DEADLINE = 300  # seconds; mypy without its cache, on a busy machine

Error = tuple[str, int, str]  # file, line, code


def run(*command: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(SOURCE), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=FOLDER,
        env=environment,
    )
    assert result.returncode in (0, 1), result.stdout + result.stderr  # others: the checker itself has failed
    return result.stdout


def mypy(cache: Path) -> Iterator[Error]:
    pytest.importorskip("mypy")
    files = FILES
    output = run(
        "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "--python-version=3.11", "--output=json", *files
    )
    for line in output.splitlines():
        found = json.loads(line)
        if found["severity"] == "error":
            yield found["file"], found["line"], found["code"]


def pyright(cache: Path) -> Iterator[Error]:
    pytest.importorskip("pyright")
    report = json.loads(run("pyright", "--project", str(FOLDER), "--pythonpath", sys.executable, "--outputjson"))
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            yield Path(found["file"]).name, found["range"]["start"]["line"] + 1, found.get("rule", "")


def expected(column: int) -> set[Error]:
    """The errors that are marked: `column` 0 those of mypy, 1 those of pyright."""
    marks = {}
    for number, line in enumerate((FOLDER / "refused.py").read_text().splitlines(), start=1):
        if mark := re.search(r"# error: (\S+) \| (\S+)$", line):
            marks[number] = mark.groups()
    assert marks
    return {("refused.py", number, code) for number, codes in marks.items() for code in codes[column].split(",")}


@pytest.mark.parametrize(("column", "checker"), [(0, mypy), (1, pyright)])
def test_exactly_the_marked_lines_are_refused(column, checker, tmp_path):
    found, marked = set(checker(tmp_path)), expected(column)
    unexpected, missing = sorted(found - marked), sorted(marked - found)
    # Unexpected: should have been accepted, or has another code. Missing: should have been refused.
    assert {"unexpected": unexpected, "missing": missing} == {"unexpected": [], "missing": []}
