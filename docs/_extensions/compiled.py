"""Sphinx: the reference from docstrings, also those of the compiled core.

Compiled methods have docstrings but neither types nor source that Sphinx could find. The types come from the stub
`_core.pyi`, the source from the files that `_core.pyx` is made of. Docstrings are in Google's style, with two
liberties that Sphinx's reader of it does not know: an entry of `Raises:` may be a sentence or name several
exceptions, and the docstring of an attribute may contain a colon.
"""

import ast
import copy
import functools
import importlib
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext import napoleon
from sphinx.util import logging

PACKAGE = Path(__file__).parents[2] / "src" / "ringcast"
MODULE = "ringcast._core"
DERIVED = {"Core": "Dispatcher"}  # the compiled methods of these classes are documented as those of the other

GOOGLE = napoleon.Config(napoleon_use_param=False, napoleon_use_rtype=False)
INDENT = 4

logger = logging.getLogger(__name__)

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Tags = dict[str, tuple[str, int, int]]


@functools.cache
def stub() -> dict[str, list[Definition]]:
    """The methods and properties in the stub, as `Class.name`; several of a name are overloads."""
    definitions: dict[str, list[Definition]] = {}
    for each in ast.parse((PACKAGE / "_core.pyi").read_text("utf-8")).body:
        for node in each.body if isinstance(each, ast.ClassDef) else ():
            if isinstance(node, Definition):
                definitions.setdefault(f"{each.name}.{node.name}", []).append(node)
    return definitions


def is_compiled(member: object) -> bool:
    """Whether it is a method or property of a compiled class."""
    return getattr(getattr(member, "__objclass__", None), "__module__", None) == MODULE


def declarations(member: Any) -> list[Definition]:
    """What the stub says of a method or property of a compiled class."""
    return stub().get(f"{member.__objclass__.__name__}.{member.__name__}", []) if is_compiled(member) else []


def signature(
    app: Sphinx, what: str, name: str, member: object, options: object, compiled: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """For `autodoc-process-signature`: arguments and result, with types. Of overloads, the arguments that they have
    together, as the compiled method takes them.
    """
    found = declarations(member)
    if not found or what != "method":
        return None
    results = {ast.unparse(each.returns) for each in found if each.returns is not None}
    result = results.pop() if len(results) == 1 else None
    if len(found) > 1:
        return re.sub(r"^\(self(, )?", "(", compiled or ""), result
    arguments = copy.deepcopy(found[0].args)
    del (arguments.posonlyargs or arguments.args)[0]  # self
    return f"({ast.unparse(arguments)})", result


def docstring(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    """For `autodoc-process-docstring`: makes reStructuredText of it, in place."""
    found = declarations(member)
    if not found and is_compiled(member):
        logger.warning("%s is not in the stub _core.pyi", name)
    if what in ("attribute", "property"):
        if found and found[0].returns is not None:
            lines += ["", f":type: ``{ast.unparse(found[0].returns)}``"]
        return
    converted: list[str] = []
    for part in parts(lines):
        if part[0] == "Returns:":
            converted += [":Returns:", *part[1:], ""]
        elif part[0] == "Raises:":
            converted += [*raises(part), ""]
        else:
            converted += [*napoleon.GoogleDocstring(literal(part), GOOGLE, app, what, name, member).lines(), ""]
    lines[:] = converted


def parts(lines: list[str]) -> list[list[str]]:
    """The sections `Returns:` and `Raises:`, and what stands between."""
    own = ("Returns:", "Raises:")
    found: list[list[str]] = []
    for line in lines:
        if not found or line in own or (found[-1][0] in own and re.match(r"\S", line)):
            found.append([])
        found[-1].append(line)
    return found


def literal(lines: list[str]) -> list[str]:
    """The lines, what is indented after a colon and an empty line made a literal block."""
    following = [*lines[2:], "", ""]
    return [
        line + ":" if line.endswith(":") and after == "" and indent(code) > indent(line) and ">>>" not in code else line
        for line, after, code in zip(lines, [*lines[1:], None], following, strict=False)
    ]


def indent(line: str) -> int:
    """How far a line is indented; 0 for an empty one."""
    return len(line) - len(line.lstrip())


def raises(section: list[str]) -> list[str]:
    """The section `Raises:` as a list of exceptions and sentences."""
    result = [":Raises:"]
    for line in filter(str.strip, section[1:]):
        names, colon, text = line.strip().partition(": ")
        if indent(line) > INDENT:
            result.append("      " + line.strip())
        elif colon and re.fullmatch(r"\w+(, \w+)*", names):
            result.append(f"    * {', '.join(f'`{each}`' for each in names.split(', '))}: {text}")
        else:
            result.append("    * " + line.strip())
    return result


@functools.cache
def source() -> tuple[str, Tags]:
    """The source of the compiled module, and where in it its classes and their methods are: first line, last line."""
    root = (PACKAGE / "_core.pyx").read_text("utf-8")
    text = re.sub(r'^include "(.*)"$', lambda match: (PACKAGE / match[1]).read_text("utf-8"), root, flags=re.MULTILINE)
    tags: Tags = {}
    lines = text.splitlines()
    owner = ""
    for number, line in enumerate(lines, 1):
        if match := re.match(r"cdef class (\w+)", line):
            owner = match[1]
            tags[owner] = ("class", number, end_of_block(lines, number))
        elif re.match(r"\S", line) and not line.startswith(("#", "@")):
            owner = ""
        elif owner and (match := re.match(r"    def (\w+)", line)):
            for name in (owner, DERIVED.get(owner, owner)):
                tags[f"{name}.{match[1]}"] = ("def", number, end_of_block(lines, number))
    return text, tags


def end_of_block(lines: list[str], first: int) -> int:
    """The last line of the block that begins with line `first`."""
    last = first
    for number, line in enumerate(lines[first:], first + 1):
        if line.strip():
            if indent(line) <= indent(lines[first - 1]) and not line.lstrip().startswith(")"):
                break
            last = number
    return last


def find_source(app: Sphinx, module: str) -> tuple[str, Tags] | None:
    """For `viewcode-find-source`."""
    return source() if module == MODULE else None


def follow(app: Sphinx, module: str | None, attribute: str) -> str | None:
    """For `viewcode-follow-imported`: the module that the source of an attribute is in, if that is the compiled one."""
    if module is None:  # of a property of a compiled base class
        return None
    member: Any = importlib.import_module(module)
    for name in attribute.split("."):
        member = getattr(member, name, None)
    return MODULE if is_compiled(member) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("viewcode-find-source", find_source)
    app.connect("viewcode-follow-imported", follow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
