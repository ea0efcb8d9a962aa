from ringcast.compat.pyee.base import EventEmitter, Handler, PyeeError, PyeeException

__all__ = ["EventEmitter", "Handler", "PyeeError", "PyeeException"]
