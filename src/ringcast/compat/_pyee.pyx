"""The compiled part of `ringcast.compat.pyee`: the listeners of an emitter, and `emit`.

`EventEmitter` itself is a Python class (pyee/base.py), so that it can be subclassed, combined with other classes and
patched like the original. `equip` gives the class what is compiled.

Threads: listeners change under the lock of `Events`. `emit` takes no lock: it reads an immutable tuple from a dict, by
a call that gives a reference of its own. A listener that is added or removed takes that tuple away, and the next emit
makes a new one.
"""

cimport cython

import sys
from _thread import RLock
from cpython.object cimport PyObject

from ringcast.compat._functions import function_of

cdef extern from *:
    """
    #include <Python.h>

    /* A reference of its own, NULL where the key is absent, -1 after an exception. */
    static inline int rc_dict_get(PyObject *dict, PyObject *key, PyObject **value)
    {
    #if PY_VERSION_HEX >= 0x030D0000
        return PyDict_GetItemRef(dict, key, value);
    #else
        *value = PyDict_GetItemWithError(dict, key);  /* there is a GIL: nobody takes the value away meanwhile */
        Py_XINCREF(*value);
        return *value != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
    #endif
    }

    /* Whether a class has a __getattribute__ of its own, which may find other methods than the class has. */
    static inline int rc_looks_up_by_itself(PyObject *kind)
    {
        PyTypeObject *type = (PyTypeObject *)kind;
        PyObject *found, *usual;
        int result;
        if (type->tp_getattro == PyObject_GenericGetAttr)
            return 0;
        found = PyObject_GetAttrString(kind, "__getattribute__");
        usual = found != NULL ? PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__getattribute__") : NULL;
        result = usual == NULL ? -1 : found != usual;
        Py_XDECREF(found);
        Py_XDECREF(usual);
        return result;
    }

    /* Whether an object has one of two names in its own dict. */
    static inline int rc_has_own(PyObject *object, PyObject *first, PyObject *second)
    {
        PyObject *dict = PyObject_GenericGetDict(object, NULL);
        int result;
        if (dict == NULL)
            return -1;
        result = PyDict_Contains(dict, first);
        if (result == 0)
            result = PyDict_Contains(dict, second);
        Py_DECREF(dict);
        return result;
    }

    static PyMethodDef rc_emit_definition = {
        "emit", NULL, METH_FASTCALL | METH_KEYWORDS,
        "emit($self, event, *args, **kwargs)\\n--\\n\\n"
        "Call each listener of `event` with `args` and `kwargs`, in the order in which the listeners were added.\\n\\n"
        "A listener that is added meanwhile is not called; one that is removed is still called, unless by `once`.\\n"
        "The exception of a listener is raised, and the listeners after it are not called.\\n"
        "Any thread may call this.\\n\\n"
        "Args:\\n"
        "    event: the name of the event, or any other hashable object.\\n"
        "    args: what the listeners are called with.\\n"
        "    kwargs: the same, by name.\\n\\n"
        "Returns:\\n"
        "    True if there are listeners, else False.\\n\\n"
        "Raises:\\n"
        "    PyeeError: the event is \\"error\\", has no listeners, and its first argument is no exception.\\n"
        "    Exception: that argument, if it is one; or what a listener raises."
    };

    typedef PyObject *(*rc_emit_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

    static PyObject *rc_emit_method(PyObject *type, rc_emit_function function)
    {
        rc_emit_definition.ml_meth = (PyCFunction)(void (*)(void))function;
        return PyDescr_NewMethod((PyTypeObject *)type, &rc_emit_definition);
    }
    """
    ctypedef object (*rc_emit_function)(object, PyObject *const *, Py_ssize_t, PyObject *)
    int rc_dict_get(dict, object key, PyObject **value) except -1
    bint rc_looks_up_by_itself(object kind) except -1
    bint rc_has_own(object thing, object first, object second) except -1
    object rc_emit_method(object type, rc_emit_function)
    object PyObject_Vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    Py_ssize_t PyTuple_GET_SIZE(object)
    void Py_DECREF(PyObject *)

cdef object call_handlers = None
cdef object emit_run = None
cdef object is_finalizing = sys.is_finalizing  # kept, because the end of the program takes names out of modules


cdef class Events:
    """The listeners of an emitter: a mapping of each event to a dict of what was registered to what is called.

    Any thread may call the methods. What they return is the caller's own: a change of it changes nothing here.

    What only looks takes no lock, as with pyee: the one lookup or copy of a dict is one step for other threads.
    """

    cdef dict _handlers
    cdef dict _calls  # of some events: the values of the dict in _handlers, as a tuple
    cdef Py_ssize_t _changes
    cdef readonly object lock

    def __cinit__(self, handlers=()):
        self._handlers = {event: dict(of_event) for event, of_event in dict(handlers).items()}
        self._calls = {}
        self.lock = RLock()  # a listener's __eq__, or what runs when a listener is freed, may come back here

    def add(self, event, listener, call):
        """Have `call` called for `event`; a listener that is there already keeps its place.

        Raises:
            TypeError: the event or listener is not hashable.
        """
        hash(listener)  # else an event without listeners would stay behind
        with self.lock:
            self._add(event, listener, call)

    cdef int _add(self, event, listener, call) except -1:
        """Under the lock."""
        (<dict> self._handlers.setdefault(event, {}))[listener] = call
        self._forget(event)
        return 0

    cdef object _remove(self, event, listener):
        """Under the lock. What is returned is to be freed without it."""
        cdef dict handlers = self._handlers.get(event)
        if handlers is None:
            return None
        removed = handlers.pop(listener)
        if not handlers:
            self._handlers.pop(event, None)
        self._forget(event)
        return removed

    cdef object _remove_all(self, event):
        """The same for all listeners of an event."""
        removed = self._handlers.get(event)
        self._handlers[event] = {}
        self._forget(event)
        return removed

    def listeners(self, event):
        """Return the listeners of an event, as they were registered, in a list."""
        return list(self._registered(event) or ())

    def has(self, event, listener):
        """Return whether the event has this listener."""
        return listener in (self._registered(event) or ())

    def names(self):
        """Return the events, in a set."""
        return set(self._handlers)

    def calls(self, event):
        """Return what to call for an event, in a tuple."""
        return self._of(event)

    def get(self, event, default=None):
        handlers = self._registered(event)
        return default if handlers is None else dict(handlers)

    def keys(self):
        return self._copy().keys()

    def values(self):
        return self._copy().values()

    def items(self):
        return self._copy().items()

    def copy(self):
        return self._copy()

    def __or__(self, other):
        return self._copy() | (other._copy() if type(other) is Events else other)

    def __ror__(self, other):
        return other | self._copy()

    def __reversed__(self):
        return reversed(self._copy())

    def __getitem__(self, event):
        handlers = self._registered(event)
        if handlers is None:
            raise KeyError(event)
        return dict(handlers)

    def __contains__(self, event):
        return event in self._handlers

    def __iter__(self):
        return iter(list(self._handlers))

    def __len__(self):
        return len(self._handlers)

    def __repr__(self):
        return repr(self._copy())

    def __eq__(self, other):
        return self._copy() == (other._copy() if type(other) is Events else other)

    def __reduce__(self):
        return Events, (self._copy(),)

    def _copy(self):
        with self.lock:
            return {event: dict(handlers) for event, handlers in self._handlers.items()}

    cdef object _registered(self, event):
        """The dict of an event, or None."""
        cdef PyObject *found = NULL
        if not rc_dict_get(self._handlers, event, &found):
            return None
        handlers = <object> found
        Py_DECREF(found)
        return handlers

    cdef tuple _of(self, event):
        cdef PyObject *found = NULL
        if rc_dict_get(self._calls, event, &found):
            calls = <tuple> <object> found
            Py_DECREF(found)
            return calls
        if event not in self._handlers:
            return ()
        return self._gather(event)

    cdef tuple _gather(self, event):
        """The same, made anew: under the lock, and again if what runs meanwhile has come back and changed listeners."""
        cdef Py_ssize_t changes
        with self.lock:
            while True:
                changes = self._changes
                calls = tuple((<dict> self._handlers.get(event, {})).values())
                if calls:
                    self._calls[event] = calls
                if changes == self._changes:
                    return calls
                self._calls.pop(event, None)

    cdef int _forget(self, event) except -1:
        self._changes += 1
        self._calls.pop(event, None)
        return 0


cdef object _adopting = RLock()


def adopt(emitter, Events events not None):
    """Give an emitter its listeners."""
    emitter._events = events
    emitter._lock = events.lock


cdef int put_in_place(emitter, Events events) except -1:
    """Give an emitter listeners in the place of what the program has assigned to `_events`. Who holds its lock goes on
    keeping others out; what else the program has assigned to `_lock` stays there."""
    lock = getattr(emitter, "_lock", None)
    if type(lock) is RLock:
        events.lock = lock
    elif lock is None:
        emitter._lock = events.lock
    emitter._events = events
    return 0


def events_of(emitter):
    """Return the listeners of an emitter; of what a program has assigned to `_events` itself, as tests do, a copy,
    which takes its place."""
    found = emitter._events
    if type(found) is Events:
        return found
    made = Events(found)
    if is_finalizing():  # a thread that has ended with the lock will not give it back, and there is no other left
        adopt(emitter, made)
        return made
    with _adopting:  # of threads that find it at once, one replaces it
        if emitter._events is found:
            put_in_place(emitter, made)
    return emitter._events


cdef Events locked(emitter):
    """The listeners of an emitter, with their lock: until then another thread may have put others in their place."""
    cdef Events events
    while True:
        events = events_of(emitter)
        events.lock.acquire()
        try:
            current = emitter._events is events
        except BaseException:
            events.lock.release()
            raise
        if current:
            return events
        events.lock.release()


def add(emitter, event, listener, call):
    """`Events.add` for the listeners that an emitter has."""
    hash(listener)
    cdef Events events = locked(emitter)
    try:
        events._add(event, listener, call)
    finally:
        events.lock.release()


def remove(emitter, event, listener):
    """Remove a listener; where the event has none, do nothing.

    Raises:
        KeyError: the event has listeners, and this one is not among them.
    """
    cdef Events events = locked(emitter)
    try:
        _removed = events._remove(event, listener)  # freed when the lock is released
    finally:
        events.lock.release()


def remove_all(emitter, event):
    """Remove all listeners of an event. The event stays among the names, as with pyee."""
    cdef Events events = locked(emitter)
    try:
        _removed = events._remove_all(event)  # freed when the lock is released
    finally:
        events.lock.release()


def clear(emitter):
    """Remove all listeners and events of an emitter. Who else has them, be it a copy of the emitter or a test that puts
    them back, keeps them."""
    cdef Events events = locked(emitter)  # what it frees is freed when the lock is released
    cdef Events empty
    try:
        empty = Events()
        empty.lock = events.lock  # so that what another thread adds at once is added before or after this
        emitter._events = empty
    finally:
        events.lock.release()


# What a program finds out about what is called for a listener of `once`, which with pyee is a function.
cdef dict of_pyee = {
    "__name__": "g",
    "__qualname__": "EventEmitter.once.<locals>._wrapper.<locals>.g",
    "__module__": "ringcast.compat.pyee.base",
    "__doc__": None,
}


cdef class Once:
    """What is called for a listener that is to be called once.

    With pyee it is a function, which `_emit_run` of a subclass may ask for its name. This can be pickled.
    """

    cdef readonly object emitter
    cdef readonly object event
    cdef readonly object listener
    cdef dict changed  # of what a function says of itself, what the program has replaced
    cdef dict __dict__
    cdef object __weakref__

    def __cinit__(self, emitter, event, listener):
        self.emitter = emitter
        self.event = event
        self.listener = listener

    cdef object said(self, str name):
        with cython.critical_section(self):
            if self.changed is not None and name in self.changed:
                return self.changed[name]
        if name in of_pyee:
            return of_pyee[name]
        from typing import Any  # slow to import, and seldom asked for

        return self.say(name, {"args": Any, "kwargs": Any, "return": Any})

    cdef object say(self, str name, object value):
        with cython.critical_section(self):
            if self.changed is None:
                self.changed = {}
            self.changed[name] = value
        return value

    @property
    def __name__(self):
        return self.said("__name__")

    @__name__.setter
    def __name__(self, value):
        self.say("__name__", value)

    @property
    def __qualname__(self):
        return self.said("__qualname__")

    @__qualname__.setter
    def __qualname__(self, value):
        self.say("__qualname__", value)

    @property
    def __module__(self):
        return self.said("__module__")

    @__module__.setter
    def __module__(self, value):
        self.say("__module__", value)

    @property
    def __doc__(self):
        return self.said("__doc__")

    @__doc__.setter
    def __doc__(self, value):
        self.say("__doc__", value)

    @property
    def __annotations__(self):
        return self.said("__annotations__")

    @__annotations__.setter
    def __annotations__(self, value):
        self.say("__annotations__", value)

    @property
    def __signature__(self):
        from inspect import Parameter, Signature  # slow to import, and seldom asked for

        return Signature([Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)])

    def __call__(self, *args, **kwargs):
        """Remove the listener and call it; if it has been removed already, return None."""
        cdef Events events = locked(self.emitter)  # of threads that emit at once, one finds the listener
        try:
            if not events.has(self.event, self.listener):
                return None
            self.emitter._remove_listener(self.event, self.listener)
        finally:
            events.lock.release()
        return self.listener(*args, **kwargs)

    def __reduce__(self):
        return once, (self.emitter, self.event, self.listener)

    def __deepcopy__(self, memo):
        """Of a copy of the emitter, if that is what is copied; else, as in a copy of its `_events`, the same."""
        emitter = memo.get(id(self.emitter))
        if emitter is None:
            return self
        from copy import deepcopy

        return Once(emitter, deepcopy(self.event, memo), deepcopy(self.listener, memo))


def once(emitter, event, listener):
    """What a pickle has in the place of `Once`: the `__module__` of that class is the one of its instances."""
    return Once(emitter, event, listener)


cdef bint overrides_nothing(object emitter) except -1:
    """Whether `emit` may call the listeners itself."""
    kind = type(emitter)
    if rc_looks_up_by_itself(kind) or kind._emit_run is not emit_run or kind._call_handlers is not call_handlers:
        return False
    return not rc_has_own(emitter, "_emit_run", "_call_handlers")


cdef object emit(object self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames):
    if nargs == 0 or kwnames is not NULL and "event" in <tuple> kwnames:
        return emit_by_name(self, args, nargs, kwnames)
    events = self._events
    event = <object> args[0]
    if type(events) is not Events:
        events = events_of(self)
    if not overrides_nothing(self):
        return emit_in_steps(self, event, packed(args, 1, nargs), named(args, nargs, kwnames))
    cdef tuple calls = (<Events> events)._of(event)
    cdef Py_ssize_t count = PyTuple_GET_SIZE(calls)
    cdef Py_ssize_t i
    for i in range(count):
        PyObject_Vectorcall(PyTuple_GET_ITEM(calls, i), args + 1, nargs - 1, kwnames)
    if count == 0:
        self._emit_handle_potential_error(event, <object> args[1] if nargs > 1 else None)
        return False
    return True


cdef object emit_in_steps(object self, event, tuple args, dict kwargs):
    """The same by the methods that a subclass may override."""
    handled = self._call_handlers(event, args, kwargs)
    if not handled:
        self._emit_handle_potential_error(event, args[0] if args else None)
    return handled


cdef object emit_by_name(object self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames):
    """The same where `event` is given by name, or is missing, or is given twice."""
    cdef dict kwargs = named(args, nargs, kwnames)
    if "event" not in kwargs:
        raise TypeError("emit() missing 1 required positional argument: 'event'")
    if nargs > 0:
        raise TypeError("emit() got multiple values for argument 'event'")
    return emit_in_steps(self, kwargs.pop("event"), (), kwargs)


cdef tuple packed(PyObject *const *args, Py_ssize_t first, Py_ssize_t end):
    return tuple([<object> args[i] for i in range(first, end)])


cdef dict named(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames):
    if kwnames is NULL:
        return {}
    return {name: <object> args[nargs + i] for i, name in enumerate(<tuple> kwnames)}


def equip(kind):
    """Give `EventEmitter` its `emit`. To be called once, for the class itself: its subclasses inherit."""
    global emit_run, call_handlers
    emit_run, call_handlers = kind._emit_run, kind._call_handlers
    kind.emit = function_of(rc_emit_method(kind, emit), kind.__module__, kind.__qualname__)
