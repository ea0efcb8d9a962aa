"""Plain values that a user gives: integers, truth values and words, each taken as a plain one or refused.

An object of a subclass may compare, format or convert itself as it likes: so it is made plain before it is looked at.
"""

from __future__ import annotations

from ringcast.errors import OptionError
from ringcast.events import brief, class_name, plain_int

__all__ = ["flag", "plain_str", "whole"]


def plain_str(value: object) -> str | None:
    """Return the text of a str, also of a subclass; None for anything else."""
    return str.__str__(value) if issubclass(type(value), str) else None


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return the value of an option, an integer of any class from `least` to `most`, as an int.

    Raises:
        OptionError: it is something else.
    """
    number = plain_int(value)
    if number is None:
        raise OptionError(f"{name} must be an int, not {class_name(type(value))}")
    if not least <= number <= most:
        raise OptionError(f"{name} must be from {least} to {most}, not {brief(number)}")
    return number


def flag(name: str, value: object) -> bool:
    """Return the value of an option, a bool, or raise OptionError."""
    if value is not True and value is not False:
        raise OptionError(f"{name} must be True or False, not {brief(value)}")
    return value
