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
from types import MethodDescriptorType
from weakref import WeakMethod, ref

from ringcast.compat._functions import function_of

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

    /* What a mapping has under a key, or None. The `get` that Cython makes for a dict borrows from it what another
     * thread may take out. */
    static inline PyObject *rc_get(PyObject *dict, PyObject *key)
    {
        PyObject *found = NULL;
        if (dict == Py_None) { /* deleted, by the program or by the garbage collector */
            PyErr_SetString(PyExc_AttributeError, "receivers");
            return NULL;
        }
        if (!PyDict_CheckExact(dict)) /* a program's own `receivers` */
            return PyObject_CallMethod(dict, "get", "(O)", key);
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

    /* Whether `self.name` may be another than what the type Core has: a program may give it to a subclass, to an
     * object, or to a type after its objects were made, and may say by itself how names are looked up. */
    static inline int rc_type_replaces(PyTypeObject *type, PyObject *name, PyObject *original)
    {
        return _PyType_Lookup(type, name) != original; /* which it borrows, and nobody uses */
    }

    static inline int rc_dict_replaces(PyObject *self, PyObject *name)
    {
        PyObject *dict;
        int result;
        if (Py_TYPE(self)->tp_dictoffset == 0)
            return 0;
        dict = PyObject_GenericGetDict(self, NULL);
        if (dict == NULL)
            return -1;
        result = PyDict_GET_SIZE(dict) != 0 ? PyDict_Contains(dict, name) : 0;
        Py_DECREF(dict);
        return result;
    }

    /* The version of a type: another after each change of it or of its bases, and another for each type. 0: unknown. */
    static inline int rc_type_version(PyObject *self)
    {
        return (int)Py_TYPE(self)->tp_version_tag;
    }

    /* The garbage collector runs code of the program, on the thread that allocates. Without the GIL, where threads
     * would change the switch at once, it runs between the steps of Python code only. */
    static inline int rc_pause_collector(void)
    {
    #ifdef Py_GIL_DISABLED
        return 0;
    #else
        return PyGC_Disable();
    #endif
    }

    #ifdef Py_GIL_DISABLED
    #define RC_WITHOUT_GIL 1
    #else
    #define RC_WITHOUT_GIL 0
    #endif

    /* Gives an attribute to a type, which the program itself cannot do with types of C. */
    static int rc_set_in_type(PyTypeObject *type, PyObject *name, PyObject *value)
    {
        int result = PyDict_SetItem(type->tp_dict, name, value);
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
    bint rc_type_replaces(type kind, object name, object original)
    bint rc_dict_replaces(object self, object name) except -1
    int rc_type_version(object self)
    bint rc_pause_collector()
    int PyGC_Enable()
    bint RC_WITHOUT_GIL
    bint PyWeakref_CheckRef(object thing)
    int rc_set_in_type(PyTypeObject *type, object name, object value) except -1

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
    object PyDescr_NewMethod(PyTypeObject *type, PyMethodDef *definition)
    object PyMethod_New(object function, object instance)
    object PyObject_Vectorcall(object function, PyObject *const *args, size_t count, PyObject *names)

# How many arguments of a receiver lie on the stack of `send`; more are allocated.
cdef enum:
    FEW = 8


cdef object _is_finalizing = sys.is_finalizing  # kept, because the end of the program takes names out of modules


@cython.final
cdef class _Lock:
    """One lock for all signals: it is held for the few steps of a connect or disconnect.

    Under it no code of the program may run: that may wait for a lock of its own, whose owner waits for this one. So the
    collector is paused, and what the steps let go of is kept until the lock is released. (What remains are the methods
    of a program's own `set_class` and `receivers`, and of senders whose class derives from `str` or `int`. With the
    first two the collector is not paused: they may look whether it is on, and what they switch off is to stay so.)

    Reentrant, because these may come back.
    """

    cdef object lock
    cdef object acquire
    cdef object give_back
    cdef int depth
    cdef bint collects
    cdef list kept

    def __cinit__(self):
        self.make()

    cdef int make(self) except -1:
        self.lock = RLock()
        self.acquire, self.give_back = self.lock.acquire, self.lock.release
        return 0

    cdef int renew(self) except -1:
        """In a child process: a thread of the parent may have held it."""
        if self.lock._is_owned():  # a method of a `set_class` has forked
            return 0
        return self.abandon()

    cdef int abandon(self) except -1:
        """Take another lock: the owner of this one has ended."""
        if self.depth and self.collects:
            PyGC_Enable()
        self.depth = 0
        self.kept = None
        return self.make()

    cdef int take(self, bint pauses) except -1:
        """To be followed by try and finally: `with` looks up and calls methods of Python, which costs a connect more
        than the lock itself. Whether the collector pauses is for the first call of a thread to say."""
        kept = []  # before the lock is taken: this may collect
        if not self.acquire(False):
            if _is_finalizing():  # no other thread runs any more
                self.abandon()
            self.acquire()
        if self.depth == 0:
            self.collects = pauses and rc_pause_collector()
            self.kept = kept
        self.depth += 1
        return 0

    cdef int release(self) except -1:
        kept = None  # freed at the end of this
        self.depth -= 1
        if self.depth == 0:
            kept = self.kept
            self.kept = None
            if self.collects:
                PyGC_Enable()
        self.give_back()
        return 0

    cdef int keep(self, object thing) except -1:
        """Under the lock: let something live until the lock is released."""
        try:
            self.kept.append(thing)
        except MemoryError:  # then it may die here: no step of a change may fail for this
            pass
        return 0

    cdef int keep_all(self, object things) except -1:
        try:
            self.kept.append(dict(things))
        except MemoryError:
            pass
        return 0


cdef _Lock _lock = _Lock()


def _renew_lock():
    _lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@cython.final
cdef class _Any:
    """The sender that stands for all senders. There is one, also after a copy or a pickle."""

    name = "ANY"

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


cdef object _iscoroutinefunction = None  # of inspect, which takes long to import: most receivers do without


cdef object _function_of(object receiver):
    return <object>PyMethod_GET_FUNCTION(receiver) if PyMethod_Check(receiver) else receiver


cdef int _load_inspect() except -1:
    global _iscoroutinefunction
    if _iscoroutinefunction is None:
        from inspect import iscoroutinefunction
        _iscoroutinefunction = iscoroutinefunction
    return 0


cdef int _prepare(object receiver) except -1:
    """Have at hand what tells whether it is a coroutine function: at the end of the program nothing can be imported."""
    cdef object function = _function_of(receiver)
    if not (rc_is_bare_function(function) or PyCFunction_Check(function)):
        _load_inspect()
    return 0


cdef bint _is_coroutine_function(object receiver) except -1:
    cdef object function = _function_of(receiver)
    if rc_is_bare_function(function):
        return (function.__code__.co_flags & CO_COROUTINE) != 0
    if PyCFunction_Check(function):
        return False
    try:
        _load_inspect()
    except ImportError:  # the program ends, and the receiver has become more than a function since it was connected
        return (getattr(getattr(function, "__code__", None), "co_flags", 0) & CO_COROUTINE) != 0
    return _iscoroutinefunction(receiver)


@cython.final
cdef class _Link:
    """How a send reaches one receiver. Threads and plans share links without a lock: none ever changes, but for what is
    found out about the receiver, which is the same for all."""

    cdef object key
    cdef object held  # what `receivers` has under the key: the receiver or a weak reference to it
    cdef object function  # of a method that is held weakly: a reference to its function; `held` gives the instance
    cdef bint weak
    cdef rc_flag coroutine_function  # 0: nobody has asked yet; 1: no; 2: yes

    cdef object receiver(self):
        """The receiver, or None if it is gone."""
        if not self.weak:
            return self.held
        target = rc_referent(self.held)
        if target is None or self.function is None:
            return target
        function = rc_referent(self.function)
        return None if function is None else PyMethod_New(function, target)


cdef inline bint _link_is_coroutine_function(_Link link, object receiver) except -1:
    """Asked right before the first call, as blinker does: the answer may be an exception."""
    cdef int known = rc_flag_get(&link.coroutine_function)
    if known == 0:
        known = 2 if _is_coroutine_function(receiver) else 1
        rc_flag_set(&link.coroutine_function, known)
    return known == 2


cdef _Link _link(object key, object held):
    """A link, or None if the receiver is gone."""
    cdef _Link link = _Link.__new__(_Link)
    cdef object receiver = held
    link.key = key
    link.held = held
    link.weak = PyWeakref_CheckRef(held)
    if link.weak:
        receiver = held()
        if receiver is None:
            return None
        if isinstance(held, WeakMethod):
            link.function = ref(receiver.__func__)
    return link


@cython.final
cdef class _WhenGone:
    """Called when a receiver or sender is gone that a signal knows weakly. It does not keep the signal."""

    cdef object key
    cdef object signal
    cdef bint is_sender

    def __call__(self, gone):
        if _is_finalizing():  # a thread that has ended with the lock will not give it back
            return
        signal = rc_referent(self.signal)
        if signal is None:
            return
        if self.is_sender:
            (<Core>signal).forget_sender(self.key, gone)
        else:
            (<Core>signal).forget_receiver(self.key, gone)


class _Nothing(dict):
    """The receivers of a signal whose `receivers` is something that is false, such as None."""

    __slots__ = ("assigned",)


cdef class Core:
    """What a signal is, without what blinker builds upon it in Python.

    What blinker has not is named `_rc_`, because a subclass may have any other name.
    """

    cdef object held_receivers  # a dict, or the mapping that a program has put in its place
    cdef readonly dict _by_receiver
    """Key of a receiver: the keys of its senders."""
    cdef readonly dict _by_sender
    """Key of a sender: the keys of the receivers that are for this sender. ANY is always one of the keys."""
    cdef readonly dict _weak_senders
    """Key of a sender: the weak reference that tells of its end."""
    cdef object set_type
    cdef dict links  # key of a receiver: how plans reach it; all links of `plans` are here
    cdef dict plans  # key of a sender, or ANY for those that have no receivers of their own: a tuple of links
    cdef list retired  # what `receivers` was before; another thread may be reading it
    cdef unsigned long long changes  # counted under the lock: whether a plan that was made without is still right
    cdef rc_flag muted_flag  # -1: the attribute is_muted was deleted
    cdef rc_flag usual_version  # that of the class when it had the methods of this one; see _is_usual
    cdef bint fresh  # neither connected nor initialised yet
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        self.held_receivers = {}
        self._by_receiver = {}
        self._by_sender = {}
        self._weak_senders = {}
        self.links = {}
        self.plans = {}
        self.set_type = set
        self.fresh = True

    cdef int take(self) except -1:
        return _lock.take(self.set_type is set and type(self.held_receivers) is dict)

    def _rc_reset(self):
        """Be as new: connected to nobody, with sets of the class that `set_class` is now."""
        set_type = self.set_class
        if self.fresh:
            self.fresh = False
            self.set_type = set_type
            return
        self.take()
        try:
            self.set_type = set_type
            self.clear()
            self.replace_receivers({})
        finally:
            _lock.release()

    @property
    def receivers(self):
        """Key of a receiver: the receiver, or a weak reference to it."""
        if self.held_receivers is None:
            raise AttributeError("receivers")
        if type(self.held_receivers) is _Nothing:
            return self.held_receivers.assigned
        return self.held_receivers

    @receivers.setter
    def receivers(self, receivers):
        if not hasattr(receivers, "get"):
            if receivers:
                raise TypeError(f"receivers has to be a mapping, and {receivers!r} is none")
            assigned, receivers = receivers, _Nothing()
            receivers.assigned = assigned
        self.take()
        try:
            self.replace_receivers(receivers)
        finally:
            _lock.release()

    @receivers.deleter
    def receivers(self):
        self.take()
        try:
            self.replace_receivers(None)
        finally:
            _lock.release()

    cdef int replace_receivers(self, object receivers) except -1:
        """Under the lock."""
        if RC_WITHOUT_GIL:
            if self.retired is None:
                self.retired = []
            self.retired.append(self.held_receivers)
        _lock.keep(self.held_receivers)
        self.fresh = False
        self.held_receivers = receivers
        return self.forget_links()

    @property
    def is_muted(self):
        """Whether `send` and `send_async` call nobody."""
        cdef int muted = rc_flag_get(&self.muted_flag)
        if muted < 0:
            raise AttributeError("is_muted")
        return muted != 0

    @is_muted.setter
    def is_muted(self, muted):
        rc_flag_set(&self.muted_flag, 1 if muted else 0)

    @is_muted.deleter
    def is_muted(self):
        rc_flag_set(&self.muted_flag, -1)  # as unittest.mock does before it sets what was there

    def has_receivers_for(self, sender):
        """Say whether there may be receivers for a sender, without a look at which of them are gone.

        Args:
            sender: the sender, or `ANY` for receivers that are for all senders.

        Returns:
            False if `send` would call nobody. True if it may call somebody.

        Any thread may call it.
        """
        if self.held_receivers is None:
            raise AttributeError("receivers")
        if not self.held_receivers:
            return False
        if rc_get(self._by_sender, _any):
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

    cdef bint ask_class(self) except -1:
        """What _is_usual is to know of the class, which is kept until the class changes."""
        cdef int version = rc_type_version(self)
        for name, original in _looked_up:
            if rc_type_replaces(type(self), name, original):
                return False
        rc_flag_set(&self.usual_version, version)  # of before: a change meanwhile has given it another
        return True

    # --- plans -----------------------------------------------------------------------------------------------

    cdef tuple plan(self, object sender):
        """The links to the receivers for a sender."""
        cdef object key = _any
        if self.held_receivers is None:
            raise AttributeError("receivers")
        if len(self._by_sender) > 1 or (self._by_sender and _any not in self._by_sender):
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
        cdef dict made = {}
        self.take()
        try:
            changes = self.changes
            for_all = self.bucket(_any)
            own = None if key is _any else rc_get(self._by_sender, key)
            keys = list(for_all.copy() if own is None else for_all | own)
        finally:
            _lock.release()
        for receiver_key in keys:
            link = self.link(receiver_key, made)
            if link is not None:
                links.append(link)
        plan = tuple(links)
        self.take()
        try:
            # not beside other links, which another thread has made meanwhile for another plan
            if changes == self.changes and self.links.keys().isdisjoint(made):
                self.plans[key] = plan
                self.links.update(made)
        finally:
            _lock.release()
        return plan

    cdef _Link link(self, object key, dict made):
        """The link to a receiver that all plans share, or a new one, which is put into `made`; None if it is gone.

        There is one also where `receivers` lacks the key: the program has taken it out, and may put it back.
        """
        held = rc_get(self.held_receivers, key)
        link = rc_get(self.links, key)
        if link is not None:
            if (<_Link>link).held is held:
                return <_Link>link
            self.let_go(<_Link>link)
        link = _link(key, held)
        if link is None:
            self.forget_receiver(key, held)
        else:
            made[key] = link
        return link

    cdef _Link current(self, _Link link):
        """The link, or what has taken its place since its plan was made; None if its receiver is disconnected."""
        held = rc_get(self.held_receivers, link.key)
        if held is not link.held:
            self.let_go(link)
            link = None if held is None else _link(link.key, held)
        return None if held is None else link

    cdef int let_go(self, _Link link) except -1:
        """`receivers` has no longer what the link was made of. If the program itself has done that, nobody has thrown
        away the link, and perhaps others, which may be all that keeps their receivers."""
        self.take()
        try:
            if rc_get(self.links, link.key) is link:
                self.forget_links()
        finally:
            _lock.release()
        return 0

    cdef int forget_links(self) except -1:
        """Under the lock: make all links and plans anew."""
        _lock.keep_all(self.links)
        self.links.clear()
        return self.changed(_any)

    cdef int changed(self, object sender_key) except -1:
        """Throw away the plans in which a change of the receivers for a sender shows. Under the lock."""
        self.changes += 1
        if sender_key is not _any:
            _lock.keep(self.plans.pop(sender_key, None))
        elif self.plans:
            _lock.keep_all(self.plans)
            self.plans.clear()
        return 0

    # --- connecting ------------------------------------------------------------------------------------------

    def _rc_connect(self, receiver, sender, weak):
        """Connect a receiver; all of it or, with an exception, nothing."""
        cdef object key = _key(receiver)
        cdef object sender_key = _any if sender is _any else _key(sender)
        cdef bint done = False
        if type(self.held_receivers) is _Nothing:
            raise TypeError(f"no receiver can be connected while receivers is {self.receivers!r}")
        held = _weak(receiver, self.when_gone(key, False)) if weak else receiver
        sender_ref = None if sender is _any else self.watch(sender, sender_key)
        _prepare(receiver)
        while not done:
            # Who has the keys now is asked without the lock, and what is there is kept so that the answer stays right.
            old, old_sender = rc_get(self.held_receivers, key), rc_get(self._weak_senders, sender_key)
            alive, alive_sender = _strong(old), _strong(old_sender)
            self.take()
            try:
                if (
                    rc_get(self.held_receivers, key) is old
                    and rc_get(self._weak_senders, sender_key) is old_sender
                ):
                    # another object had the same address, and nobody has told of its end yet
                    if old is not None and alive is None:
                        self.drop(key)
                    if old_sender is not None and alive_sender is None:
                        self.drop_sender(sender_key)
                    self.wire(key, held, sender_key, sender_ref)
                    done = True
            finally:
                _lock.release()

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

    cdef int wire(self, object key, object held, object sender_key, object sender_ref) except -1:
        """Under the lock. A send sees the receiver from the last step on: before, its key is in no set."""
        self.fresh = False
        old = rc_get(self.held_receivers, key)
        _lock.keep(old)
        if sender_ref is not None and sender_key not in self._weak_senders:
            self._weak_senders[sender_key] = sender_ref
        bucket = self.bucket(sender_key)
        senders = rc_get(self._by_receiver, key)
        known = senders is not None
        if not known:
            senders = self._by_receiver[key] = self.set_type()
        self.held_receivers[key] = held
        try:
            senders.add(sender_key)
            bucket.add(key)
        except BaseException:
            if old is None:
                self.drop(key)
            else:
                self.held_receivers[key] = old
            raise
        _lock.keep(self.links.pop(key, None))
        # a receiver that was there is in the plans of its other senders, too
        self.changed(_any if known else sender_key)
        return 0

    cdef object bucket(self, object sender_key):
        """The keys of the receivers for a sender."""
        bucket = rc_get(self._by_sender, sender_key)
        if bucket is None:
            bucket = self._by_sender[sender_key] = self.set_type()
        return bucket

    # --- disconnecting ---------------------------------------------------------------------------------------

    def _disconnect(self, receiver_id, sender_id):
        """Disconnect the receiver of a key from the sender of a key, or from all with `ANY`. Subclasses override it."""
        self.take()
        try:
            if sender_id is _any:
                self.drop(receiver_id)
            else:
                self.bucket(sender_id).discard(receiver_id)
                senders = rc_get(self._by_receiver, receiver_id)
                if senders is not None:
                    senders.discard(sender_id)
                self.changed(sender_id)
        finally:
            _lock.release()

    cdef int drop(self, object key) except -1:
        """Under the lock: disconnect a receiver from all."""
        senders = rc_get(self._by_receiver, key)
        _lock.keep(rc_get(self.held_receivers, key))
        self.held_receivers.pop(key, None)
        for container in (self._by_receiver, self.links):
            _lock.keep(rc_get(container, key))
            (<dict>container).pop(key, None)
        if senders is not None:
            for sender_key in senders:
                bucket = rc_get(self._by_sender, sender_key)
                if bucket is not None:
                    bucket.discard(key)
                self.changed(sender_key)
        return 0

    cdef int forget_receiver(self, object key, object gone) except -1:
        """A receiver is gone; unless its key is already that of another."""
        if not _is_usual(self) or rc_dict_replaces(self, "_disconnect"):
            if self.is_held_by(key, gone):
                self._disconnect(key, _any)
            return 0
        self.take()
        try:
            if self.is_held_by(key, gone):
                self.drop(key)
        finally:
            _lock.release()
        return 0

    cdef bint is_held_by(self, object key, object reference) except -1:
        """Also where the program has taken it out of `receivers`, and its connections are left."""
        held = rc_get(self.held_receivers, key)
        return held is reference or held is None and key in self._by_receiver

    cdef int forget_sender(self, object key, object gone) except -1:
        """A sender is gone; unless its key is already that of another."""
        self.take()
        try:
            if rc_get(self._weak_senders, key) is gone:
                self.drop_sender(key)
        finally:
            _lock.release()
        return 0

    cdef int drop_sender(self, object key) except -1:
        receivers = rc_get(self._by_sender, key)
        for container in (self._weak_senders, self._by_sender):
            _lock.keep(rc_get(container, key))
            (<dict>container).pop(key, None)
        for receiver_key in receivers or ():
            senders = rc_get(self._by_receiver, receiver_key)
            if senders is not None:
                senders.discard(key)
        self.changed(key)
        return 0

    def _rc_copy_to(self, Core copied not None):
        """Connect to a new signal what is connected to this one."""
        cdef list kept = []  # so that nothing ends before it is connected
        cdef set gone = set()
        self.take()
        try:
            copied.fresh = False
            copied.set_type = self.set_type
            watched = list(self._weak_senders.items())
            connected = [
                (key, held, list(rc_get(self._by_receiver, key) or ()))
                for key, held in list(self.held_receivers.items())
            ]
        finally:
            _lock.release()
        sender_refs = {}
        for sender_key, sender_ref in watched:
            sender = sender_ref()
            if sender is None:
                gone.add(sender_key)
            else:
                kept.append(sender)
                sender_refs[sender_key] = copied.watch(sender, sender_key)
        for key, held, senders in connected:
            receiver = _strong(held)
            if receiver is None:
                continue
            kept.append(receiver)
            if PyWeakref_CheckRef(held):
                held = _weak(receiver, copied.when_gone(key, False))
            self.take()
            try:
                copied.held_receivers[key] = held
                for sender_key in senders:
                    if sender_key not in gone:
                        copied.wire(key, held, sender_key, sender_refs.get(sender_key))
            finally:
                _lock.release()
        rc_flag_set(&copied.muted_flag, rc_flag_get(&self.muted_flag))

    def _cleanup_bookkeeping(self):
        """Forget the keys of receivers and senders that no connection is left of."""
        self.take()
        try:
            _lock.keep_all(self._by_receiver)
            _lock.keep_all(self._by_sender)
            for key, senders in list(self._by_receiver.items()):
                if not senders:
                    self._by_receiver.pop(key, None)
            for key, receivers in list(self._by_sender.items()):
                if not receivers:
                    _lock.keep(rc_get(self._weak_senders, key))
                    self._weak_senders.pop(key, None)
                    self._by_sender.pop(key, None)
            self.changed(_any)
        finally:
            _lock.release()

    def _clear_state(self):
        """Disconnect all receivers from all senders."""
        self.take()
        try:
            self.clear()
            _lock.keep_all(self.held_receivers)
            self.held_receivers.clear()
        finally:
            _lock.release()

    cdef int clear(self) except -1:
        """Under the lock: forget who is connected, but for `receivers`."""
        for container in (self._by_receiver, self._by_sender, self._weak_senders):
            _lock.keep_all(container)
            (<dict>container).clear()
        return self.forget_links()


cdef object _strong(object held):
    """What is held, or None if it is gone."""
    return held() if PyWeakref_CheckRef(held) else held


def make_id(thing):
    """What a signal knows a receiver or sender by."""
    return _key(thing)


cdef inline bint _is_usual(Core signal) except -1:
    """Whether the class of a signal has the methods of Core that `send` is to look up."""
    cdef int version = rc_type_version(signal)
    return version != 0 and version == rc_flag_get(&signal.usual_version) or signal.ask_class()


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
    if (rc_flag_get(&(<Core>self).muted_flag) or not _is_usual(<Core>self)) and self.is_muted:
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
    if not _is_usual(signal) or rc_dict_replaces(signal, "receivers_for"):
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
        result = _call(receiver, _link_is_coroutine_function(link, receiver), args, names, wrapper)
        results.append((receiver, result))
    return results


cdef inline object _call(
    object receiver, bint is_coroutine_function, PyObject *const *args, PyObject *names, object wrapper
):
    if is_coroutine_function:
        if wrapper is None:
            raise RuntimeError(
                f"Cannot send to a coroutine function: {receiver!r}; use send_async, or give send an _async_wrapper"
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


cdef int _add_methods() except -1:
    """Give Core `send`, which gets its arguments in a form that Cython has no word for, and have it bound as functions
    are; likewise all else that is a function with blinker: a program may take any of them for a receiver."""
    cdef object method
    cdef list methods = [
        method for name, method in Core.__dict__.items()
        if isinstance(method, MethodDescriptorType) and not name.startswith(("_rc_", "__"))
    ]
    methods.append(PyDescr_NewMethod(<PyTypeObject *>Core, &_send_definition))
    for method in methods:
        function = function_of(method, "ringcast.compat.blinker", "Signal")
        rc_set_in_type(<PyTypeObject *>Core, method.__name__, function)
    return 0


_add_methods()

# What blinker looks up on a signal. Programs replace it: tracers on the class, tests on one signal.
cdef tuple _looked_up = (
    *((name, Core.__dict__[name]) for name in ("receivers_for", "is_muted", "_disconnect")),
    ("__getattribute__", object.__getattribute__),
)
