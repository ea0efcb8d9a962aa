"""The compiled part of the drop-in for blinker: who is connected to whom, and `send`.

What a send needs is a *plan*: for one sender, the links to its receivers in their order. A plan never changes: to
connect or disconnect throws away the plans that are wrong now, under the lock, and the next send makes a new one. So
a send takes no lock. Before each call it looks whether `receivers` still has what the link was made of. So a receiver
that is disconnected during a send is not called by it.

The order of receivers is that of the sets that hold their keys. For a program to see the order that blinker gives it,
keys, sets and what is done to the sets are the same: keys are `id`s, and the receivers of a sender are the union of two
sets, or the copy of one.
"""

cimport cython
from cpython.long cimport PyLong_FromVoidPtr
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.method cimport PyMethod_Check, PyMethod_GET_FUNCTION, PyMethod_GET_SELF
from cpython.object cimport PyObject

import os
import sys
from _thread import RLock
from weakref import WeakMethod, ref

cdef extern from *:
    """
    #include <stdatomic.h>

    typedef _Atomic(int) rc_flag;
    static inline int rc_flag_get(rc_flag *flag) { return atomic_load_explicit(flag, memory_order_relaxed); }
    static inline void rc_flag_set(rc_flag *flag, int value)
    {
        atomic_store_explicit(flag, value, memory_order_relaxed);
    }

    /* What a weak reference is to, or None. */
    static inline PyObject *rc_referent(PyObject *weak)
    {
        PyObject *found = NULL;
    #if PY_VERSION_HEX >= 0x030D0000
        if (PyWeakref_GetRef(weak, &found) < 0)
            return NULL;
    #else
        found = PyWeakref_GetObject(weak); /* borrowed; before 3.13 there is always the GIL */
        if (found == NULL)
            return NULL;
        if (found != Py_None)
            return Py_NewRef(found);
        found = NULL;
    #endif
        return found != NULL ? found : Py_NewRef(Py_None);
    }

    /* What a dict has under a key, or None. The `get` that Cython makes borrows from the dict what another thread
     * may take out of it. */
    static inline PyObject *rc_get(PyObject *dict, PyObject *key)
    {
        PyObject *found = NULL;
        if (!PyDict_Check(dict)) { /* None, after the garbage collector was here */
            PyErr_SetString(PyExc_TypeError, "the signal is gone");
            return NULL;
        }
    #if PY_VERSION_HEX >= 0x030D0000
        if (PyDict_GetItemRef(dict, key, &found) < 0)
            return NULL;
    #else
        found = PyDict_GetItemWithError(dict, key);
        if (found == NULL && PyErr_Occurred())
            return NULL;
        Py_XINCREF(found);
    #endif
        return found != NULL ? found : Py_NewRef(Py_None);
    }

    /* A function of Python that has no attributes, and so nothing but its code says what it is. */
    static inline int rc_is_bare_function(PyObject *object)
    {
        return PyFunction_Check(object) && ((PyFunctionObject *)object)->func_dict == NULL;
    }

    /* Gives a type a method that gets its arguments as they lie on the caller's stack, which Cython has no word for. */
    static int rc_add_method(PyTypeObject *type, PyMethodDef *definition)
    {
        PyObject *method = PyDescr_NewMethod(type, definition);
        int result = method == NULL ? -1 : PyDict_SetItemString(type->tp_dict, definition->ml_name, method);
        Py_XDECREF(method);
        PyType_Modified(type);
        return result;
    }
    """
    ctypedef struct rc_flag:
        pass
    int rc_flag_get(rc_flag *flag)
    void rc_flag_set(rc_flag *flag, int value)
    object rc_referent(object weak)
    object rc_get(object container, object key)
    bint rc_is_bare_function(object thing)
    int rc_add_method(PyTypeObject *type, PyMethodDef *definition) except -1

    ctypedef struct PyTypeObject:
        pass
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL
    int METH_KEYWORDS
    int CO_COROUTINE
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    bint PyCFunction_Check(object thing)
    object PyMethod_New(object function, object instance)
    object PyObject_Vectorcall(object function, PyObject *const *args, size_t count, PyObject *names)

# How many arguments of a receiver lie on the stack of `send`; more are allocated.
cdef enum:
    FEW = 8

# One lock for all signals: it is held for the few steps of a connect or disconnect. Reentrant, because what these steps
# free may be the last of another receiver, whose end disconnects it.
cdef object _lock = RLock()


def _renew_lock():
    """In a child process: a thread of the parent may have held it."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@cython.final
cdef class _Any:
    """The sender that stands for all senders. There is one, also after a copy or a pickle."""

    def __repr__(self):
        return "ANY"

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return "ANY"  # of this module


cdef object _any = _Any()
ANY = _any


cdef object _key(object thing):
    """What a receiver or sender is known by: the value of a string or integer, the identity of everything else.

    A bound method is a new object each time; it is known by its function and its instance.
    """
    if PyMethod_Check(thing):
        return (
            PyLong_FromVoidPtr(<void *>PyMethod_GET_FUNCTION(thing)),
            PyLong_FromVoidPtr(<void *>PyMethod_GET_SELF(thing)),
        )
    if isinstance(thing, (str, int)):
        return thing
    return PyLong_FromVoidPtr(<void *>thing)


cdef object _weak(object thing, object when_gone):
    if PyMethod_Check(thing):
        return WeakMethod(thing, when_gone)
    return ref(thing, when_gone)


cdef bint _is_coroutine_function(object receiver) except -1:
    cdef object function = receiver
    if PyMethod_Check(receiver):
        function = <object>PyMethod_GET_FUNCTION(receiver)
    if rc_is_bare_function(function):
        return (function.__code__.co_flags & CO_COROUTINE) != 0
    if PyCFunction_Check(function):
        return False
    from inspect import iscoroutinefunction  # it takes long to import, and most receivers are functions
    return iscoroutinefunction(receiver)


@cython.final
cdef class _Link:
    """How a send reaches one receiver. Threads share links without a lock: none ever changes."""

    cdef object key
    cdef object held  # what `receivers` has under the key: the receiver or a weak reference to it
    cdef object function  # of a method that is held weakly: a reference to its function; `held` gives the instance
    cdef bint weak
    cdef bint is_coroutine_function

    cdef object receiver(self):
        """The receiver, or None if it is gone."""
        if not self.weak:
            return self.held
        target = rc_referent(self.held)
        if target is None or self.function is None:
            return target
        function = rc_referent(self.function)
        return None if function is None else PyMethod_New(function, target)


cdef _Link _link(object key, object held):
    """A link, or None if the receiver is gone."""
    cdef _Link link = _Link.__new__(_Link)
    cdef object receiver = held
    link.key = key
    link.held = held
    link.weak = isinstance(held, ref)
    if link.weak:
        receiver = held()
        if receiver is None:
            return None
        if isinstance(held, WeakMethod):
            link.function = ref(receiver.__func__)
    link.is_coroutine_function = _is_coroutine_function(receiver)
    return link


@cython.final
cdef class _WhenGone:
    """Called when a receiver or sender is gone that a signal knows weakly. It does not keep the signal."""

    cdef object key
    cdef object signal
    cdef bint is_sender

    def __call__(self, gone):
        if sys.is_finalizing():  # a thread that has ended with the lock will not give it back
            return
        signal = rc_referent(self.signal)
        if signal is None:
            return
        if self.is_sender:
            (<Core>signal).forget_sender(self.key, gone)
        else:
            (<Core>signal).forget_receiver(self.key, gone)


cdef class Core:
    """What a signal is, without what blinker builds upon it in Python."""

    cdef readonly dict receivers
    """Key of a receiver: the receiver, or a weak reference to it."""
    cdef readonly dict _by_receiver
    """Key of a receiver: the keys of its senders."""
    cdef readonly dict _by_sender
    """Key of a sender: the keys of the receivers that are for this sender; without those for all."""
    cdef readonly dict _weak_senders
    """Key of a sender: the weak reference that tells of its end."""
    cdef object for_all  # the keys of the receivers that are for all senders
    cdef object set_type
    cdef dict plans  # key of a sender, or ANY for those that have no receivers of their own: a tuple of links
    cdef unsigned long long changes  # counted under the lock: whether a plan that was made without is still right
    cdef rc_flag muted_flag
    cdef bint has_own_receivers_for  # a subclass says by itself who receives
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.receivers = {}
        self._by_receiver = {}
        self._by_sender = {}
        self._weak_senders = {}
        self.plans = {}
        self.set_type = self.set_class
        self.for_all = self.set_type()
        self.has_own_receivers_for = type(self).receivers_for is not _receivers_for

    @property
    def is_muted(self):
        """Whether `send` and `send_async` call nobody."""
        return rc_flag_get(&self.muted_flag) != 0

    @is_muted.setter
    def is_muted(self, muted):
        rc_flag_set(&self.muted_flag, 1 if muted else 0)

    def has_receivers_for(self, sender):
        """Say whether there may be receivers for a sender, without a look at which of them are gone.

        Args:
            sender: the sender, or `ANY` for receivers that are for all senders.

        Returns:
            False if `send` would call nobody. True if it may call somebody.

        Any thread may call it.
        """
        if not self.receivers:
            return False
        if self.for_all:
            return True
        return sender is not _any and _key(sender) in self._by_sender

    def receivers_for(self, sender):
        """Iterate over the receivers that `send` calls for a sender, in that order.

        Args:
            sender: the sender.

        Returns:
            An iterator of the receivers that are not gone when it comes to them.

        Any thread may call it.
        """
        cdef _Link link
        for link in self.plan(sender):
            link = self.current(link)
            if link is not None:
                receiver = link.receiver()
                if receiver is not None:
                    yield receiver
                else:
                    self.forget_receiver(link.key, link.held)

    # --- plans -----------------------------------------------------------------------------------------------

    cdef tuple plan(self, object sender):
        """The links to the receivers for a sender."""
        cdef object key = _any
        if len(self._by_sender):
            key = _key(sender)
            if key not in self._by_sender:
                key = _any
        plan = rc_get(self.plans, key)
        return self.make_plan(key) if plan is None else <tuple>plan

    cdef tuple make_plan(self, object key):
        """A plan, which is kept if nothing has changed meanwhile.

        Links are made without the lock, because that may call code of a receiver's class.
        """
        cdef unsigned long long changes
        cdef list links = []
        with _lock:
            changes = self.changes
            own = rc_get(self._by_sender, key)
            keys = list(self.for_all.copy() if own is None else self.for_all | own)
        for receiver_key in keys:
            held = rc_get(self.receivers, receiver_key)
            if held is not None:
                link = _link(receiver_key, held)
                if link is None:
                    self.forget_receiver(receiver_key, held)
                else:
                    links.append(link)
        plan = tuple(links)
        with _lock:
            if changes == self.changes:
                self.plans[key] = plan
        return plan

    cdef _Link current(self, _Link link):
        """The link, or what has taken its place since its plan was made; None if its receiver is disconnected."""
        held = rc_get(self.receivers, link.key)
        if held is link.held:
            return link
        return None if held is None else _link(link.key, held)

    cdef int changed(self, object sender_key) except -1:
        """Throw away the plans in which a change of the receivers for a sender shows. Under the lock."""
        self.changes += 1
        if sender_key is _any:
            self.plans.clear()
        else:
            self.plans.pop(sender_key, None)
        return 0

    # --- connecting ------------------------------------------------------------------------------------------

    def _connect(self, receiver, sender, weak):
        """Connect a receiver; all of it or, with an exception, nothing."""
        cdef object key = _key(receiver)
        cdef object sender_key = _any if sender is _any else _key(sender)
        held = _weak(receiver, self.when_gone(key, False)) if weak else receiver
        sender_ref = None if sender is _any else self.watch(sender, sender_key)
        # what the steps free is kept until the lock is released
        replaced = None
        with _lock:
            replaced = rc_get(self.receivers, key)
            if isinstance(replaced, ref) and replaced() is None:
                self.drop(key)  # another object had the same address, and nobody has told of its end yet
            if sender_ref is not None:
                self.adopt(sender_key, sender_ref)
            self.wire(key, held, sender_key)

    cdef object when_gone(self, object key, bint is_sender):
        cdef _WhenGone call = _WhenGone.__new__(_WhenGone)
        call.key = key
        call.signal = ref(self)
        call.is_sender = is_sender
        return call

    cdef object watch(self, object sender, object sender_key):
        """A weak reference that tells of the end of a sender, or None where there can be none."""
        if type(sender) is str or type(sender) is int:
            return None
        try:
            return _weak(sender, self.when_gone(sender_key, True))
        except TypeError:
            return None

    cdef int adopt(self, object sender_key, object sender_ref) except -1:
        """Under the lock: wait for the end of a sender, unless that is done already."""
        old = rc_get(self._weak_senders, sender_key)
        if old is not None and old() is None:
            self.drop_sender(sender_key)  # another object had the same address
            old = None
        if old is None:
            self._weak_senders[sender_key] = sender_ref
        return 0

    cdef int wire(self, object key, object held, object sender_key) except -1:
        """Under the lock. A send sees the receiver from the last step on: before, its key is in no set."""
        old = rc_get(self.receivers, key)
        bucket = self.bucket(sender_key)
        senders = rc_get(self._by_receiver, key)
        if senders is None:
            senders = self._by_receiver[key] = self.set_type()
        self.receivers[key] = held
        try:
            senders.add(sender_key)
            bucket.add(key)
        except BaseException:
            if old is None:
                self.drop(key)
            else:
                self.receivers[key] = old
            raise
        # a receiver that was there is in the plans of its other senders, too
        self.changed(sender_key if old is None else _any)
        return 0

    cdef object bucket(self, object sender_key):
        """The keys of the receivers for a sender."""
        if sender_key is _any:
            return self.for_all
        bucket = rc_get(self._by_sender, sender_key)
        if bucket is None:
            bucket = self._by_sender[sender_key] = self.set_type()
        return bucket

    # --- disconnecting ---------------------------------------------------------------------------------------

    def _disconnect(self, receiver, sender):
        """Disconnect a receiver from a sender, or from all with `ANY`."""
        cdef object key = _key(receiver)
        cdef object sender_key = _any if sender is _any else _key(sender)
        dropped = None
        with _lock:
            if sender_key is _any:
                dropped = self.drop(key)
            else:
                self.bucket(sender_key).discard(key)
                senders = rc_get(self._by_receiver, key)
                if senders is not None:
                    senders.discard(sender_key)
                self.changed(sender_key)

    cdef object drop(self, object key):
        """Under the lock: disconnect a receiver from all. Returns what was held, which must not die under the lock."""
        held = self.receivers.pop(key, None)
        senders = self._by_receiver.pop(key, None)
        if senders is not None:
            for sender_key in senders:
                bucket = self.for_all if sender_key is _any else rc_get(self._by_sender, sender_key)
                if bucket is not None:
                    bucket.discard(key)
                self.changed(sender_key)
        return held

    cdef int forget_receiver(self, object key, object gone) except -1:
        """A receiver is gone; unless its key is already that of another."""
        held = None
        with _lock:
            if rc_get(self.receivers, key) is gone:
                held = self.drop(key)
        return 0

    cdef int forget_sender(self, object key, object gone) except -1:
        """A sender is gone; unless its key is already that of another."""
        with _lock:
            if rc_get(self._weak_senders, key) is gone:
                self.drop_sender(key)
        return 0

    cdef int drop_sender(self, object key) except -1:
        self._weak_senders.pop(key, None)
        for receiver_key in self._by_sender.pop(key, ()):
            senders = rc_get(self._by_receiver, receiver_key)
            if senders is not None:
                senders.discard(key)
        self.changed(key)
        return 0

    def _copy_to(self, Core copied not None):
        """Connect to a new signal what is connected to this one."""
        cdef list kept = []  # what must not die under the lock
        with _lock:
            for sender_key, sender_ref in list(self._weak_senders.items()):
                sender = sender_ref()
                if sender is not None:
                    kept.append(sender)
                    copied.adopt(sender_key, copied.watch(sender, sender_key))
            for key, held in list(self.receivers.items()):
                receiver = held() if isinstance(held, ref) else held
                if receiver is not None:
                    kept.append(receiver)
                    if isinstance(held, ref):
                        held = _weak(receiver, copied.when_gone(key, False))
                    copied.receivers[key] = held
                    for sender_key in rc_get(self._by_receiver, key) or ():
                        if sender_key not in self._weak_senders or sender_key in copied._weak_senders:
                            copied.wire(key, held, sender_key)
        copied.is_muted = self.is_muted

    def _cleanup_bookkeeping(self):
        """Forget the keys of receivers and senders that no connection is left of."""
        with _lock:
            for key in [key for key, senders in self._by_receiver.items() if not senders]:
                del self._by_receiver[key]
            for key in [key for key, receivers in self._by_sender.items() if not receivers]:
                self._weak_senders.pop(key, None)
                del self._by_sender[key]
            self.changed(_any)

    def _clear_state(self):
        """Disconnect all receivers from all senders."""
        kept = None
        with _lock:
            kept = list(self.receivers.values())  # they must not die under the lock
            for held in (self.receivers, self._by_receiver, self._by_sender, self._weak_senders, self.for_all):
                held.clear()
            self.changed(_any)


cdef object _receivers_for = Core.receivers_for


# --- sending -------------------------------------------------------------------------------------------------

cdef object _send(object self, PyObject *const *args, Py_ssize_t count, PyObject *kwnames):
    """`Core.send`, with arguments as they lie on the caller's stack: the sender if there is one, then the values of the
    keywords in `kwnames`. Receivers get them in the same form."""
    cdef PyObject *few[FEW]
    cdef PyObject **stack = few
    cdef tuple names = None if kwnames == NULL else <tuple>kwnames
    cdef Py_ssize_t given = 0 if kwnames == NULL else len(names)
    cdef Py_ssize_t at, last = 2
    cdef object wrapper = None
    if count > 1:
        raise TypeError(f"send() takes from 1 to 2 positional arguments but {count + 1} were given")
    if rc_flag_get(&(<Core>self).muted_flag):
        return []
    if given + 2 > FEW:
        stack = <PyObject **>PyMem_Malloc((given + 2) * sizeof(PyObject *))
        if stack == NULL:
            raise MemoryError
    try:
        stack[0] = NULL  # the place of `self`, for receivers that are methods
        stack[1] = args[0] if count else <PyObject *>None
        for at in range(given):
            if names[at] == "_async_wrapper":
                wrapper = <object>args[count + at]
            else:
                stack[last] = args[count + at]
                last += 1
        if last - 2 < given:
            names = tuple([name for name in names if name != "_async_wrapper"])
        return _deliver(<Core>self, stack + 1, <PyObject *>names if last > 2 else NULL, wrapper)
    finally:
        if stack != few:
            PyMem_Free(stack)


cdef list _deliver(Core signal, PyObject *const *args, PyObject *names, object wrapper):
    """Call the receivers. `args` has the sender and the values of `names`, and a free place before them."""
    cdef list results = []
    cdef _Link link
    if signal.has_own_receivers_for:
        for receiver in signal.receivers_for(<object>args[0]):
            result = _call(receiver, _is_coroutine_function(receiver), args, names, wrapper)
            results.append((receiver, result))
        return results
    for link in signal.plan(<object>args[0]):
        link = signal.current(link)
        if link is None:
            continue
        receiver = link.receiver()
        if receiver is None:
            signal.forget_receiver(link.key, link.held)
            continue
        results.append((receiver, _call(receiver, link.is_coroutine_function, args, names, wrapper)))
    return results


cdef inline object _call(
    object receiver, bint is_coroutine_function, PyObject *const *args, PyObject *names, object wrapper
):
    if is_coroutine_function:
        if wrapper is None:
            raise RuntimeError(
                f"the receiver {receiver!r} is a coroutine function: use send_async, or give send an _async_wrapper"
            )
        receiver = wrapper(receiver)
    return PyObject_Vectorcall(receiver, args, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names)


cdef PyMethodDef _send_definition
_send_definition.ml_name = "send"
_send_definition.ml_meth = <PyCFunction><void *>_send
_send_definition.ml_flags = METH_FASTCALL | METH_KEYWORDS
_send_definition.ml_doc = (
    b"send($self, sender=None, /, *, _async_wrapper=None, **kwargs)\n--\n\n"
    b"Call the receivers for a sender, one after the other.\n\n"
    b"Args:\n"
    b"    sender: what the receivers get as their first argument, and by which they are chosen.\n"
    b"    _async_wrapper: makes a function of a receiver that is a coroutine function.\n"
    b"    kwargs: what else the receivers get.\n\n"
    b"Returns:\n"
    b"    A list of (receiver, what it has returned).\n\n"
    b"Raises:\n"
    b"    RuntimeError: a receiver is a coroutine function, and there is no `_async_wrapper`.\n"
    b"    Exception: what a receiver raises; those after it are not called.\n\n"
    b"Any thread may call it.\n"
)
rc_add_method(<PyTypeObject *>Core, &_send_definition)
