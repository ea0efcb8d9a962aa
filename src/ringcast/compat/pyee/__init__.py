"""A drop-in for pyee 13: `import ringcast.compat.pyee as pyee`.

The same names with the same behaviour, and a compiled `emit`. `asyncio`, `executor`, `cls` and `uplift` are modules as
in pyee. `pyee.trio` and `pyee.twisted` have no counterpart here: importing them is a ModuleNotFoundError.
"""

from ringcast.compat.pyee import base
from ringcast.compat.pyee.base import EventEmitter, PyeeError, PyeeException

__all__ = ["EventEmitter", "Handler", "PyeeError", "PyeeException"]


def __getattr__(name):
    if name == "Handler":
        return base.Handler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
