"""What `inspect.signature` and `help` show of a function that takes the options of a subscription."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from ringcast.options import DEFAULTS

__all__ = ["shown_as"]

F = TypeVar("F", bound=Callable[..., object])


def shown_as(positional: str) -> Callable[[F], F]:
    """Decorate a function that takes `**options`: it is shown with a keyword parameter for each of them.

    The function itself stays as it is, and refuses by itself what does not fit. What is shown is a second function,
    its `__wrapped__`, which is never called. A Signature would do the same, but `inspect`, which has that class, takes
    as long to import as all of Ringcast.

    Args:
        positional: the other parameters, as in a `def`: "self, type_id, handler, /".

    Returns:
        The decorator, which returns the function itself.
    """
    keywords = ", ".join(f"{name}={value}" for name, value in DEFAULTS.items())

    def decorate(function: F) -> F:
        assert isinstance(function, FunctionType)
        made: dict[str, Any] = {}
        source = f"def {function.__name__}({positional}, *, {keywords}): raise NotImplementedError"
        exec(source, function.__globals__, made)
        shown = made[function.__name__]
        shown.__annotations__["return"] = function.__annotations__["return"]
        shown.__doc__, shown.__qualname__ = function.__doc__, function.__qualname__
        # where inspect.getsource looks for the source
        place = function.__code__
        shown.__code__ = shown.__code__.replace(co_filename=place.co_filename, co_firstlineno=place.co_firstlineno)
        function.__wrapped__ = shown  # type: ignore[attr-defined]
        return function

    return decorate
