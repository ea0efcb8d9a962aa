"""The compiled part of `ringcast.compat.pyee`: the listeners of an emitter, and `emit`.

`EventEmitter` itself is a Python class (pyee/base.py), so that it can be subclassed, combined with other classes and
patched like the original. `equip` gives the class what is compiled.

Threads: listeners change under the lock of `Events`. `emit` takes no lock: it reads an immutable tuple from a dict, by
a call that gives a reference of its own. A listener that is added or removed takes that tuple away, and the next emit
makes a new one.
"""

from _thread import RLock
from cpython.object cimport PyObject

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

    static PyObject *rc_emit_descriptor(PyObject *type, rc_emit_function function)
    {
        rc_emit_definition.ml_meth = (PyCFunction)(void (*)(void))function;
        return PyDescr_NewMethod((PyTypeObject *)type, &rc_emit_definition);
    }
    """
    ctypedef object (*rc_emit_function)(object, PyObject *const *, Py_ssize_t, PyObject *)
    int rc_dict_get(dict, object key, PyObject **value) except -1
    bint rc_looks_up_by_itself(object kind) except -1
    object PyMethod_New(object function, object self)
    object rc_emit_descriptor(object type, rc_emit_function)
    object PyObject_Vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    Py_ssize_t PyTuple_GET_SIZE(object)
    void Py_DECREF(PyObject *)

cdef object call_handlers = None
cdef object emit_run = None


cdef class Events:
    """The listeners of an emitter: a mapping of each event to a dict of what was registered to what is called.

    Any thread may call the methods. What they return is the caller's own: a change of it changes nothing here.

    What only looks takes no lock, as with pyee: the one lookup or copy of a dict is one step for other threads.
    """

    cdef dict _handlers
    cdef dict _calls  # of some events: the values of the dict in _handlers, as a tuple
    cdef Py_ssize_t _changes
    cdef bint _overridden
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
            (<dict> self._handlers.setdefault(event, {}))[listener] = call
            self._forget(event)

    def remove(self, event, listener):
        """Remove a listener; where the event has none, do nothing.

        Raises:
            KeyError: the event has listeners, and this one is not among them.
        """
        cdef dict handlers
        with self.lock:
            handlers = self._handlers.get(event)
            if handlers is None:
                return
            _removed = handlers.pop(listener)  # freed when the lock is released
            if not handlers:
                self._handlers.pop(event, None)
            self._forget(event)

    def remove_all(self, event):
        """Remove all listeners of an event. The event stays among the names, as with pyee."""
        with self.lock:
            _removed = self._handlers.get(event)  # freed when the lock is released
            self._handlers[event] = {}
            self._forget(event)

    def clear(self):
        """Remove all listeners and events."""
        with self.lock:
            _removed = list(self._handlers.values())  # freed when the lock is released
            self._handlers.clear()
            self._changes += 1
            self._calls.clear()

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

    def override(self):
        """The emitter has methods of its own, which `emit` is to look up and call each time."""
        self._overridden = True

    def get(self, event, default=None):
        handlers = self._registered(event)
        return default if handlers is None else dict(handlers)

    def keys(self):
        return self._copy().keys()

    def values(self):
        return self._copy().values()

    def items(self):
        return self._copy().items()

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
    if "_emit_run" in emitter.__dict__ or "_call_handlers" in emitter.__dict__:
        events.override()


def events_of(emitter):
    """Return the listeners of an emitter; of what a program has assigned to `_events` itself, as tests do, a copy,
    which takes its place."""
    found = emitter._events
    if type(found) is Events:
        return found
    made = Events(found)
    with _adopting:  # of threads that find it at once, one replaces it
        if emitter._events is found:
            adopt(emitter, made)
    return emitter._events


cdef class Once:
    """What is called for a listener that is to be called once."""

    cdef readonly object emitter
    cdef readonly object event
    cdef readonly object listener

    def __cinit__(self, emitter, event, listener):
        self.emitter = emitter
        self.event = event
        self.listener = listener

    def __call__(self, *args, **kwargs):
        """Remove the listener and call it; if it has been removed already, return None."""
        cdef Events events = events_of(self.emitter)
        with events.lock:  # of threads that emit at once, one finds it
            if not events.has(self.event, self.listener):
                return None
            self.emitter._remove_listener(self.event, self.listener)
        return self.listener(*args, **kwargs)

    def __reduce__(self):
        return Once, (self.emitter, self.event, self.listener)


cdef class Hook:
    """A method that `emit` calls only where it is overridden: by a class, or by an attribute of the emitter.

    A data descriptor, so that an attribute of the emitter does not go unseen.
    """

    cdef readonly object __wrapped__
    cdef readonly str __name__

    def __cinit__(self, function):
        self.__wrapped__ = function
        self.__name__ = function.__name__

    @property
    def __doc__(self):
        return self.__wrapped__.__doc__

    def __get__(self, emitter, kind):
        if emitter is None:
            return self
        own = emitter.__dict__.get(self.__name__, self)
        return PyMethod_New(self.__wrapped__, emitter) if own is self else own

    def __set__(self, emitter, value):
        emitter.__dict__[self.__name__] = value
        events = emitter.__dict__.get("_events")
        if events is not None:
            events.override()

    def __delete__(self, emitter):
        if self.__name__ not in emitter.__dict__:
            raise AttributeError(self.__name__)
        del emitter.__dict__[self.__name__]

    def __call__(self, emitter, *args):
        return self.__wrapped__(emitter, *args)


cdef bint overrides_nothing(object emitter, Events events) except -1:
    """Whether `emit` may call the listeners itself."""
    kind = type(emitter)
    if rc_looks_up_by_itself(kind):
        return False
    return not events._overridden and kind._emit_run is emit_run and kind._call_handlers is call_handlers


cdef object emit(object self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames):
    if nargs == 0 or kwnames is not NULL and "event" in <tuple> kwnames:
        return emit_by_name(self, args, nargs, kwnames)
    events = self._events
    event = <object> args[0]
    if type(events) is not Events:
        events = events_of(self)
    if not overrides_nothing(self, <Events> events):
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
    kind._emit_run = emit_run = Hook(kind._emit_run)
    kind._call_handlers = call_handlers = Hook(kind._call_handlers)
    kind.emit = rc_emit_descriptor(kind, emit)
