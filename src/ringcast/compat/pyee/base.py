"""`EventEmitter` and the exceptions, as in `pyee.base`."""

from ringcast.compat._pyee import Events, Once, add, adopt, clear, equip, events_of, remove, remove_all


class PyeeException(Exception):
    """The base of the exceptions of this package."""


class PyeeError(PyeeException):
    """An `error` event without a listener that was not given an exception."""


class EventEmitter:
    """Calls the listeners of named events, like Node's class of that name and like pyee's, but compiled.

    Two events have a meaning. `new_listener` is emitted with the name of an event and a listener before that listener
    is added. `error` is for exceptions: `emit("error", exception)` without a listener raises the exception.

    Any thread may call any method at any time. A subclass calls `super().__init__()` before it uses the emitter.
    """

    def __init__(self):
        adopt(self, Events())

    def __getstate__(self):
        """Return the attributes without the lock, for pickle and copy."""
        state = self.__dict__.copy()
        state.pop("_lock", None)
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        events = self._events
        # what the original has pickled is a dict
        adopt(self, events if isinstance(events, Events) else Events(events))

    def on(self, event, f=None):
        """Add a listener: `emitter.on("saved", f)`, or `@emitter.on("saved")` as a decorator.

        A listener that the event has already is not added again, and keeps its place.

        Args:
            event: the name of the event, or any other hashable object.
            f: what `emit` calls: any callable that is hashable.

        Returns:
            `f`; without it a decorator, which returns what it decorates.

        Raises:
            TypeError: the event or `f` is not hashable.
        """
        return self.listens_to(event) if f is None else self.add_listener(event, f)

    def listens_to(self, event):
        """Return a decorator that adds a listener."""

        def decorate(f):
            self._add_event_handler(event, f, f)
            return f

        return decorate

    def add_listener(self, event, f):
        """Add a listener and return it, as `on` with two arguments."""
        self._add_event_handler(event, f, f)
        return f

    def once(self, event, f=None):
        """Add a listener that is removed before its first call. Arguments and result are as for `on`.

        Of threads that emit at once, one calls the listener.
        """

        def decorate(f):
            self._add_event_handler(event, f, Once(self, event, f))
            return f

        return decorate if f is None else decorate(f)

    def remove_listener(self, event, f):
        """Remove a listener. Does nothing where the event has no listeners.

        Raises:
            KeyError: the event has listeners, and `f` is not one of them.
        """
        self._remove_listener(event, f)

    def remove_all_listeners(self, event=None):
        """Remove all listeners of an event; without one, of all events."""
        if event is None:
            clear(self)
        else:
            remove_all(self, event)

    def listeners(self, event):
        """Return the listeners of an event in a new list, in the order in which they are called."""
        return events_of(self).listeners(event)

    def event_names(self):
        """Return the events that have had a listener added and not removed by `remove_listener`, in a new set."""
        return events_of(self).names()

    # Not public, but overridden by programs, as the original's:

    def _add_event_handler(self, event, k, v):
        self.emit("new_listener", event, k)
        add(self, event, k, v)

    def _remove_listener(self, event, f):
        remove(self, event, f)

    def _call_handlers(self, event, args, kwargs):
        calls = events_of(self).calls(event)
        for call in calls:
            self._emit_run(call, args, kwargs)
        return bool(calls)

    def _emit_run(self, f, args, kwargs):
        f(*args, **kwargs)

    def _emit_handle_potential_error(self, event, error):
        if event == "error":
            if isinstance(error, Exception):
                raise error
            raise PyeeError(f"Uncaught, unspecified 'error' event: {error}")


equip(EventEmitter)


def __getattr__(name):
    """The type variable is made when asked for: `typing` takes longer to import than all the rest."""
    if name == "Handler":
        from collections.abc import Callable
        from typing import Any, TypeVar

        globals()[name] = TypeVar("Handler", bound=Callable[..., Any])
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
