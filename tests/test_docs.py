"""Every Python example in the documentation, the README and the docstrings runs, and prints what it is said to print.

The examples of a page share their names, from top to bottom. A block of the language `output` is what the Python blocks
since the one before it have printed, all of it. A comment `% invisible-code-block: python` holds what an example needs
and a reader does not.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="pip install 'ringcast[docs]' for these tests")

from sybil import Example, Sybil
from sybil.document import PythonDocStringDocument
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser
from sybil.parsers.rest import DocTestParser

import ringcast

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [path for path in sorted((ROOT / "src" / "ringcast").glob("*.py")) if ">>>" in path.read_text("utf-8")]


class Page:
    """Runs the examples of one page and compares what they print with what the page shows."""

    def __init__(self) -> None:
        self._run = PythonEvaluator()
        self._printed = ""
        self.parsers = (
            CodeBlockParser(language="python", evaluator=self.run),
            CodeBlockParser(language="output", evaluator=self.compare),
        )

    def run(self, example: Example) -> None:
        """Also what other threads print is the example's: it leaves none behind that would print later."""
        example.namespace["__name__"] = "__main__"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._run(example)
        self._printed += printed.getvalue()

    def compare(self, example: Example) -> None:
        """What was printed since the last comparison is what the page shows."""
        printed, self._printed = self._printed, ""
        assert printed.splitlines() == example.parsed.splitlines(), f"{example.path}:{example.line}"

    def check_all_shown(self) -> None:
        """The page shows all that its examples have printed."""
        assert self._printed == ""


def run_page(path: Path) -> None:
    page = Page()
    for example in Sybil(page.parsers, pattern="*.md").parse(path):
        example.evaluate()
    if path.name != "README.md":
        page.check_all_shown()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_examples_of_a_page_run_and_print_what_it_shows(path: Path) -> None:
    run_page(path)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_examples_of_docstrings_run(path: Path) -> None:
    sybil = Sybil([DocTestParser()], pattern="*.py", document_types={".py": PythonDocStringDocument})
    for example in sybil.parse(path):
        example.evaluate()


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n\n```output\n2\n```\n",
        "```python\nprint(1)\n```\n",
        "```output\n1\n```\n",
        "```python\nassert not 1\n```\n",
    ],
    ids=["another output", "no output", "no example", "an example that fails"],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(AssertionError):
        run_page(path)


@pytest.mark.parametrize("public", [each for each in ringcast.__all__ if not each.startswith("_")])
def test_the_reference_has_every_public_name(public: str) -> None:
    reference = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    assert re.search(rf":: ringcast\.{public}\b", reference)
