"""`${env.NAME}`: environment variables, put into the text of a file before it is parsed."""

import re
from collections.abc import Mapping

from ringcast_router.config.tree import Node, join

_VARIABLE = re.compile(r"\$\{env\.([a-zA-Z_][a-zA-Z0-9_]*)\}")


def occurs_in(text: str) -> bool:
    """Return whether a text names a variable, be it in a comment."""
    return _VARIABLE.search(text) is not None


Place = tuple[Node, str]  # a value, and the path of its key


def names_in(root: Node) -> dict[str, Place]:
    """Return the variables that are named in a tree, which has no comments, with the place where each is first."""
    found: dict[str, Place] = {}
    waiting: list[Place] = [(root, "")]
    while waiting:
        node, path = waiting.pop()
        for name in _VARIABLE.findall(node.text):
            found.setdefault(name, (node, path))
        inner: list[Place] = [(item, f"{path}[{index}]") for index, item in enumerate(node.items())]
        for key, member in node.members().items():
            inner.append((Node(key, key, member.file, member.line), join(path, key)))
            inner.append((member, join(path, key)))
        waiting.extend(reversed(inner))
    return found


def names_in_lines(text: str, file: str) -> dict[str, Place]:
    """Return the variables that are named in a text that is not YAML yet, with the line where each is first."""
    found: dict[str, Place] = {}
    for number, line in enumerate(text.split("\n"), 1):
        for name in _VARIABLE.findall(line):
            found.setdefault(name, (Node(line, line, file, number), ""))
    return found


def replace(text: str, names: Mapping[str, Place], environ: Mapping[str, str]) -> str:
    r"""Return the text with the values of variables in it.

    `\` and `"` of a value are escaped: right within double quotes, where secrets should stand.

    Args:
        text: The text of the file.
        names: The variables to replace; others (in comments) stay as they are.
        environ: The environment variables.

    Raises:
        ConfigError: A variable is not set, or its value has a line break, which would change the file's structure, or
            bytes that are not UTF-8.
    """
    values = {}
    for name, (node, key) in names.items():
        if name not in environ:
            node.fail(key, f"the environment variable {name} is not set; set it, or do not name ${{env.{name}}}")
        if any(character in environ[name] for character in "\n\r\0"):
            node.fail(
                key, f"the environment variable {name} has a line break or a null character, which cannot stand here"
            )
        if any("\ud800" <= character <= "\udfff" for character in environ[name]):  # bytes that Python could not decode
            node.fail(key, f"the environment variable {name} is not text in UTF-8")
        values[name] = environ[name].replace("\\", "\\\\").replace('"', '\\"')
    return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), text)
