"""Drop-in modules: the public interfaces of other event libraries, on compiled code.

A program imports one by its name, as in ``import ringcast.compat.blinker as blinker``. For libraries that import the
original themselves, `install` puts it in the original's place.
"""

import sys
from importlib import import_module
from types import ModuleType

from ringcast._modules import imported
from ringcast.errors import InstallError

__all__ = ["install"]

# name of the original: its modules that programs import, and what takes their place
_REPLACEMENTS = {
    "blinker": {"blinker": "ringcast.compat.blinker", "blinker.base": "ringcast.compat._signals"},
    "pyee": {
        f"pyee{module}": f"ringcast.compat.pyee{module}"
        for module in ("", ".asyncio", ".base", ".cls", ".executor", ".uplift")
    },
}


class _Replacement(ModuleType):
    """A module that stands in `sys.modules` under another name as well."""

    def __repr__(self) -> str:
        return f"{super().__repr__().removesuffix('>')}, in place of {self.__replaces__}>"


def install(name: str) -> ModuleType:
    """Put a drop-in module in the place of the original, for libraries that import the original themselves.

    From then on ``import blinker`` is `ringcast.compat.blinker`, in the whole process. Call it before anything imports
    the original. Another call does nothing. The original need not be installed. If it is, in whatever version, the
    drop-in still does what blinker 1.9 or pyee 13 does.

    Args:
        name: the name of the original, such as ``"blinker"``.

    Returns:
        The drop-in module. Its `repr` says in whose place it is.

    Raises:
        InstallError: there is no drop-in for this name; or the original is imported already, so that a part of the
            program would go on with it. Nothing is replaced then.

    Any thread may call it.
    """
    if name not in _REPLACEMENTS:
        known = ", ".join(sorted(_REPLACEMENTS))
        raise InstallError(f"there is no drop-in module for {name!r}; there are for: {known}", name=name)
    modules = {original: import_module(ours) for original, ours in _REPLACEMENTS[name].items()}
    for original in [each for each in list(sys.modules) if each == name or each.startswith(f"{name}.")]:
        found = imported(original)
        if found is not None and found is not modules.get(original):
            raise InstallError(
                f"{original} is imported already ({found!r}), and what has imported it would go on with it; "
                f"call ringcast.compat.install({name!r}) before anything imports it",
                name=original,
            )
    for original, module in modules.items():
        module.__dict__["__replaces__"] = original
        module.__class__ = _Replacement
        sys.modules[original] = module
    return modules[name]
