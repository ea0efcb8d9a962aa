"""Command lines: how they are split into arguments without a shell, and which lines of them are comments."""

from ringcast_router.errors import ConfigError

_BLANKS = " \t\n"
_ESCAPED_IN_DOUBLE_QUOTES = '"\\$`'


def split_command(text: str) -> list[str]:
    r"""Split a command line into arguments.

    Lines that begin with `#` are comments; a `\` at the end of a line is a space. Spaces, tabs and newlines separate
    arguments. A backslash takes away the meaning of the next character; within single quotes it is a
    character like others, within double quotes it is one too unless `"`, `\`, `$` or a backtick follows. Nothing is
    expanded. A quote that is not closed runs to the end.

    Raises:
        ConfigError: There is no argument.
    """
    arguments: list[str] = []
    word: list[str] | None = None  # None between arguments, since "" is an argument
    quote = ""
    characters = iter(_joined(text))
    for character in characters:
        if quote:
            assert word is not None
            if character == quote:
                quote = ""
            elif character == "\\" and quote == '"':
                following = next(characters, "")
                word.append(following if following and following in _ESCAPED_IN_DOUBLE_QUOTES else "\\" + following)
            else:
                word.append(character)
        elif character in _BLANKS:
            if word is not None:
                arguments.append("".join(word))
            word = None
        else:
            word = [] if word is None else word
            if character in "'\"":
                quote = character
            else:
                word.append(next(characters, "") if character == "\\" else character)
    if word is not None:
        arguments.append("".join(word))
    if not arguments:
        raise ConfigError("the command is empty: it needs a program")
    return arguments


def without_comments(text: str) -> str:
    """Return a command without the lines that begin with `#`."""
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith("#"))


def _joined(text: str) -> str:
    """Return a command without comments and without the backslashes at the ends of lines."""
    lines = []
    for line in without_comments(text).split("\n"):
        bare = line.strip()
        lines.append(bare[:-1] + " " if bare.endswith("\\") else line)
    return "\n".join(lines)
