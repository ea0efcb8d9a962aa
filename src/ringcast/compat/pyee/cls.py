"""Methods as listeners, as in `pyee.cls`: `@evented` on a class, `@on("event")` on its methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ringcast.compat.pyee.base import EventEmitter

Cls = TypeVar("Cls", bound=type)
Method = TypeVar("Method", bound=Callable[..., Any])


class _Marked(threading.local):
    """The methods that `on` has marked since the last `evented`: of the class that this thread is in."""

    def __init__(self) -> None:
        self.methods: list[tuple[str, Callable[..., Any]]] = []


_marked = _Marked()


def on(event: str) -> Callable[[Method], Method]:
    """Return a decorator for a method of an `evented` class, which will listen to `event` in each instance."""

    def mark(method: Method) -> Method:
        _marked.methods.append((event, method))
        return method

    return mark


def _bound(method: Callable[..., Any], instance: object) -> Callable[..., Any]:
    """A listener of its own each time: bound methods are equal, and a method may be marked twice for one event."""

    @wraps(method)
    def listener(*args: Any, **kwargs: Any) -> Any:
        return method(instance, *args, **kwargs)

    return listener


def evented(cls: Cls) -> Cls:
    """Have each instance of a class listen with the methods that are marked with `on`.

    The instance listens on its attribute `event_emitter`. Where it has none after `__init__`, it gets an EventEmitter.

    Returns:
        The class itself, with another `__init__`.
    """
    methods, _marked.methods = _marked.methods, []
    initialise = cls.__init__  # type: ignore[misc]

    @wraps(initialise)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        if not hasattr(self, "event_emitter"):
            self.event_emitter = EventEmitter()
        for event, method in methods:
            self.event_emitter.on(event, _bound(method, self))

    cls.__init__ = __init__  # type: ignore[misc]
    return cls
