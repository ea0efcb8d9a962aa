"""Which modules the program has imported, asked without importing them."""

from __future__ import annotations

import sys
from types import ModuleType


def imported(name: str) -> ModuleType | None:
    """Return a module if it is imported.

    Not by `sys.modules.get`: on free-threaded Python 3.13 that method holds the mutex of the dict. A process that is
    forked meanwhile has the mutex held for ever, and this is asked in the child.
    """
    try:
        return sys.modules[name]
    except KeyError:
        return None
