"""From the text of a file to its tree. The only module that needs PyYAML."""

from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from ringcast_router.config import environment, scalars
from ringcast_router.config.tree import Node, Scalar, join
from ringcast_router.errors import ConfigError

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = "plain"  # the tag of a scalar without quotes and without a tag of its own
_STRING = _PREFIX + "str"
_MERGE = "<<"
# Aliases of aliases can stand for more than any memory holds.
_MOST_VALUES = 100_000
_MOST_CHARACTERS = 10_000_000
_DEEPEST = 100
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's parser, which knows YAML 1.1, without its view of what plain scalars mean."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _STRING
        return _PREFIX + ("seq" if kind is yaml.SequenceNode else "map")

    def descend_resolver(self, current_node: yaml.Node, current_index: object) -> None: ...

    def ascend_resolver(self) -> None: ...


def read(text: str, file: str, environ: Mapping[str, str]) -> Node:
    """Return the tree of one file: `${env.NAME}` replaced, anchors and merge keys resolved.

    Of several documents the first counts.

    Args:
        text: The text of the file.
        file: Its name, for errors; "" where it comes from no file.
        environ: The environment variables.

    Raises:
        ConfigError: It is not YAML or not a mapping, a key occurs twice, or a variable is not set.
    """
    if environment.occurs_in(text):
        try:
            names = environment.names_in(_compose(text, file))
        except ConfigError:  # such as `[${env.KEY}]`, which is YAML only afterwards
            names = environment.names_in_lines(text, file)
        text = environment.replace(text, names, environ)
    root = _compose(text, file)
    if not root.is_null and not isinstance(root.value, dict):
        root.fail("", f"the file must hold a mapping such as `models: ...`, not {root.kind}")
    return root


def dump(data: object) -> str:
    """Return data as YAML."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _compose(text: str, file: str) -> Node:
    loader = _Loader(text)
    try:
        node = loader.get_node() if loader.check_node() else None
        return Node(file=file, line=1) if node is None else _Converter(file).convert(node, node.start_mark.line + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"not YAML: {problem}", file=file, line=mark.line + 1 if mark else 0) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"not YAML: {error.reason} ({error.character!r})", file=file, line=line) from None
    except RecursionError:
        raise ConfigError("values are nested too deeply", file=file) from None
    finally:
        loader.dispose()


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper without anchors: what stands at two places is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _Converter:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._open: set[int] = set()  # the nodes that are being converted
        self._values = 0
        self._characters = 0

    def convert(self, node: Any, line: int, path: str = "") -> Node:
        self._values += 1
        if self._values > _MOST_VALUES:
            self._fail(line, path, f"with its aliases replaced, the file has more than {_MOST_VALUES:,} values")
        if isinstance(node, yaml.ScalarNode):
            self._count(node.value, line, path)
            return Node(self._scalar(node, line, path), node.value, self._file, line)
        if id(node) in self._open:
            self._fail(line, path, "an anchor contains itself")
        if len(self._open) >= _DEEPEST:
            self._fail(line, path, f"values are nested more than {_DEEPEST} deep")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                items = tuple(
                    self.convert(item, item.start_mark.line + 1, f"{path}[{index}]")
                    for index, item in enumerate(node.value)
                )
                return Node(items, "", self._file, line)
            return Node(self._mapping(node, path), "", self._file, line)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._fail(line, path, "a key must be a word, not a list or mapping")
            self._count(key.value, line, path)
            inner = join(path, key.value)
            if key.tag == _PLAIN and key.value == _MERGE:
                for name, member in self._merge(self.convert(value, line, inner), inner).items():
                    merged.setdefault(name, member)
            elif key.value in own:
                self._fail(line, inner, f"this key occurs twice, first in line {own[key.value].line}; name it once")
            else:
                own[key.value] = self.convert(value, line, inner)
        return {**merged, **own}

    def _count(self, text: str, line: int, path: str) -> None:
        self._characters += len(text)
        if self._characters > _MOST_CHARACTERS:
            message = f"with its aliases replaced, the file has more than {_MOST_CHARACTERS:,} characters"
            self._fail(line, path, message)

    def _merge(self, source: Node, path: str) -> dict[str, Node]:
        """Return what the value of a merge key adds: a mapping, or a list of them, the first of which wins."""
        if isinstance(source.value, tuple):
            found: dict[str, Node] = {}
            for item in reversed(source.value):
                found.update(self._merge(item, path))
            return found
        if not isinstance(source.value, dict):
            self._fail(source.line, path, f"`<<` takes a mapping or a list of mappings, not {source.kind}")
        return source.value

    def _scalar(self, node: yaml.ScalarNode, line: int, path: str) -> Scalar:
        tag = node.tag.removeprefix(_PREFIX)
        if tag == _PLAIN:
            return scalars.resolve(node.value)
        if tag not in ("int", "float", "bool", "null"):
            return str(node.value)
        value = scalars.resolve(node.value)
        if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value).__name__ != {"null": "NoneType"}.get(tag, tag):
            self._fail(line, path, f"{node.value!r} is no !!{tag}")
        return value

    def _fail(self, line: int, path: str, message: str) -> NoReturn:
        raise ConfigError(message, file=self._file, line=line, key=path)
