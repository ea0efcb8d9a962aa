"""The compiled core: composes the primitives of csrc/ with Python's objects. The only file that knows both.

The way of an event, by file and function:

    core/fanout.pxi         publish_quickly class -> topic (registry)
    core/publish.pxi        try_publish     claim a slot (ring), store, schedule the topic if it is idle
    core/pool.pxi           Pool.work       a worker takes the topic off the run queue
    csrc/rc_bus.c           run_topic       for each subscription that runs with its topic: a turn
    csrc/rc_turn.h          rc_turn         times it, and ends it where others are held up
    core/deliver.pxi        deliver_events  calls one handler for a span of events (core/batch.pxi: with batches)
    csrc/rc_topic.c         rc_topic_make_room moves the gate to what all have seen
    core/pool.pxi           drop_events     releases those events

and where a subscription asks for more: core/direct.pxi (handlers inside publish), core/mailbox.pxi (policies that
drop), core/options.pxi (once, where, weak, context), core/route.pxi (base classes and contexts: events that go to
several topics). core/fork.pxi is for forked children.

Threads and locks. A topic is run by whoever holds its task (csrc/rc_pool.h); so is a lane. `rc_topic.lock` guards the
topic's members and makes its holder the ring's releaser. Under a C lock no Python object is made or released and no
Python code runs. No line relies on the GIL unless a comment beside it says so.

References. A slot of a ring owns one reference to its event. While anything of a dispatcher is outstanding, one
reference to its Core is held (rc_host.pin), so a Core with nothing to deliver is an ordinary object that reference
counting and the garbage collector can free. What C leads to stays as long as C can come to it: a Topic's struct by
rc_topic.holds, a Subscription by Topic.owned, which the garbage collector sees, until rc_host.left. What touches a
count is declared without `nogil`, so that Cython lets only attached threads come there; a RINGCAST_DEBUG build asserts
it. core/types.pxi says how objects stay whole.
"""
import contextvars
import functools
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from itertools import count as count_from
from operator import index
from types import GenericAlias

from ringcast.errors import (
    ClosedError,
    EventClassError,
    HandlerTypeError,
    LoopBlockedError,
    LoopClosedError,
    OptionError,
    PublishTimeoutError,
    QueueFullError,
    RecordError,
    RingcastError,
    StartError,
    TypeIdError,
)
from ringcast._threads import Thread, ringcast_watch, ringcast_worker
from ringcast.events import (
    brief, check_type_id, class_mro, class_name, class_names, defines, identify, is_defined_again, joined_names, short,
    shown,
)
from ringcast.handlers import handler_name
from ringcast.values import flag

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred, PyErr_SetInterrupt, PyErr_SetString
from cpython.object cimport PyObject, PyTypeObject
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from ringcast._csrc cimport *

cdef extern from *:
    """
    _Static_assert(sizeof(void *) == 8, "Ringcast needs a 64-bit compiler");
    #ifndef NDEBUG
    /* A RINGCAST_DEBUG build asserts at each touch of a reference count, also at those that Cython writes, that the
     * thread is attached to the interpreter. Where one is not, a count is lost when two threads change it at once: too
     * seldom for tests to see. Nor does ThreadSanitizer, which knows the free-threaded build only, where they are
     * atomic. */
    static inline void checked_incref(PyObject *object) { assert(PyGILState_Check()); Py_INCREF(object); }
    static inline void checked_decref(PyObject *object) { assert(PyGILState_Check()); Py_DECREF(object); }
    static inline void checked_xincref(PyObject *object) { if (object != NULL) checked_incref(object); }
    static inline void checked_xdecref(PyObject *object) { if (object != NULL) checked_decref(object); }
    #undef Py_INCREF
    #undef Py_DECREF
    #undef Py_XINCREF
    #undef Py_XDECREF
    #define Py_INCREF(object) checked_incref((PyObject *)(object))
    #define Py_DECREF(object) checked_decref((PyObject *)(object))
    #define Py_XINCREF(object) checked_xincref((PyObject *)(object))
    #define Py_XDECREF(object) checked_xdecref((PyObject *)(object))
    #endif
    """

cdef extern from "Python.h":
    # Not nogil, as each of these touches a reference count or runs Python code: so Cython lets no function call them
    # that may run detached.
    ctypedef PyObject *(*vectorcallfunc)(PyObject *, PyObject **, size_t, PyObject *)
    void Py_INCREF(PyObject *)
    void Py_DECREF(PyObject *)
    PyObject *PyObject_Vectorcall(PyObject *, PyObject **, size_t, PyObject *)
    PyObject *PyList_New(Py_ssize_t) except NULL
    void PyErr_SetObject(PyObject *, PyObject *)
    void PyList_SET_ITEM(PyObject *, Py_ssize_t, PyObject *)
    int PyContext_Enter(PyObject *)
    int PyContext_Exit(PyObject *)

cdef extern from "Python.h" nogil:
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyTypeObject *Py_TYPE(PyObject *)
    vectorcallfunc PyVectorcall_Function(PyObject *)
    bint PyType_IsSubtype(PyTypeObject *, PyTypeObject *)
    bint PyType_Check(PyObject *)
    bint PyGen_CheckExact(PyObject *)
    bint PyCoro_CheckExact(PyObject *)
    bint PyAsyncGen_CheckExact(PyObject *)

cdef extern from *:
    """
    /* Takes a reference that any thread may release. On free-threaded Python the thread that has made an object counts
     * its own references apart from those of all others. One that it took and another thread releases would be
     * settled by the first thread only: the object would live on until that thread runs Python code again, though
     * it may sleep, and each event would interrupt it. So this counts as a reference of the others. */
    static inline void share_reference(PyObject *object)
    {
        assert(PyGILState_Check());
    #ifdef Py_GIL_DISABLED
        /* relaxed, as in Py_INCREF: the caller has a reference, and hands over what it takes with a release */
        if (_Py_atomic_load_uint32_relaxed(&object->ob_ref_local) != _Py_IMMORTAL_REFCNT_LOCAL)
            _Py_atomic_add_ssize(&object->ob_ref_shared, (Py_ssize_t)1 << _Py_REF_SHARED_SHIFT);
    #else
        Py_INCREF(object);
    #endif
    }
    """
    void share_reference(PyObject *)

cdef extern from *:
    """
    /* Returns with the exception that is set: lets Cython's try/except catch what a raw call raised. */
    static PyObject *raise_current(void) { return NULL; }
    static inline PyObject **PyTuple_Items(PyObject *tuple) { return ((PyTupleObject *)tuple)->ob_item; }
    /* mapping.get(key); but on free-threaded Python that method locks a dict, and sys.modules is everybody's. */
    static inline PyObject *get_or_none(PyObject *mapping, PyObject *key)
    {
        PyObject *value = NULL;
    #if PY_VERSION_HEX >= 0x030D0000
        if (PyMapping_GetOptionalItem(mapping, key, &value) < 0)
            return NULL;
    #else
        value = PyObject_GetItem(mapping, key);
        if (value == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_KeyError))
                return NULL;
            PyErr_Clear();
        }
    #endif
        return value != NULL ? value : Py_NewRef(Py_None);
    }
    static void write_unraisable(PyObject *exception, PyObject *where)
    {
        PyObject *kind = (PyObject *)Py_TYPE(exception);
        PyErr_Restore(Py_NewRef(kind), Py_NewRef(exception), PyException_GetTraceback(exception));
        PyErr_WriteUnraisable(where);
    }
    """
    object raise_current()
    void write_unraisable(PyObject *exception, PyObject *where)
    object get_or_none(object mapping, object key)
    PyObject **PyTuple_Items(PyObject *) nogil   # for as long as the tuple lives

cdef extern from *:
    """
    /* An object of a class as its base makes it, whatever __new__ the class may have, and without __init__. */
    static inline PyObject *new_as_base_does(PyObject *base, PyObject *its_class, PyObject *nothing)
    {
        return ((PyTypeObject *)base)->tp_new((PyTypeObject *)its_class, nothing, NULL);
    }
    /* Integers of 1, 2, 4 and 8 bytes at any address. */
    static inline int64_t read_signed_bytes(const char *data, Py_ssize_t size)
    {
        int8_t one; int16_t two; int32_t four; int64_t eight;
        switch (size) {
        case 1: memcpy(&one, data, 1); return one;
        case 2: memcpy(&two, data, 2); return two;
        case 4: memcpy(&four, data, 4); return four;
        default: memcpy(&eight, data, 8); return eight;
        }
    }
    static inline uint64_t read_unsigned_bytes(const char *data, Py_ssize_t size)
    {
        uint64_t bits = (uint64_t)read_signed_bytes(data, size);
        return size == 8 ? bits : bits & ((UINT64_C(1) << 8 * size) - 1);
    }
    static inline void write_low_bytes(char *data, uint64_t bits, Py_ssize_t size)
    {
        uint8_t one = (uint8_t)bits; uint16_t two = (uint16_t)bits; uint32_t four = (uint32_t)bits;
        switch (size) {
        case 1: memcpy(data, &one, 1); break;
        case 2: memcpy(data, &two, 2); break;
        case 4: memcpy(data, &four, 4); break;
        default: memcpy(data, &bits, 8);
        }
    }
    """
    object new_as_base_does(object base, object its_class, tuple nothing)
    int64_t read_signed_bytes(const char *data, Py_ssize_t size) nogil
    uint64_t read_unsigned_bytes(const char *data, Py_ssize_t size) nogil
    void write_low_bytes(char *data, uint64_t bits, Py_ssize_t size) nogil
    bint PY_LITTLE_ENDIAN
    double PyFloat_Unpack2(const char *data, int little) except? -1
    int PyFloat_Pack2(double value, char *data, int little) except -1
    int PyFloat_Pack4(double value, char *data, int little) except -1
    Py_ssize_t Py_REFCNT(PyObject *) nogil
    Py_ssize_t PyNumber_AsSsize_t(object, object overflow) except? -1

cdef extern from *:
    """
    #define PYTHON_NONE Py_None
    /* Whether it is run by whoever awaits it: a coroutine, also of another kind, such as those of Cython and the
     * requests of aiohttp. A future or a task, which has no `send`, comes about by itself. */
    static inline int is_like_coroutine(PyObject *result)
    {
        PyAsyncMethods *methods = Py_TYPE(result)->tp_as_async;
        return methods != NULL && methods->am_await != NULL &&
               PyObject_HasAttrString((PyObject *)Py_TYPE(result), "send");
    }

    /* Whether it is a coroutine, or a generator, that only the caller has. Its code will not run: nobody is left to
     * await it, or to go through it. */
    static inline int is_unrun(PyObject *result)
    {
        return Py_REFCNT(result) == 1 && (PyCoro_CheckExact(result) || PyGen_CheckExact(result) ||
                                          PyAsyncGen_CheckExact(result) || is_like_coroutine(result));
    }
    """
    PyObject *PYTHON_NONE
    bint is_like_coroutine(PyObject *result)
    bint is_unrun(PyObject *result)

cdef double START_SECONDS = 0.1   # how long a publish waits for another one that starts the threads
cdef double JUDGE_SECONDS = 0.01   # how long a thread waits for another one that judges events for a mailbox

cdef enum:
    MANY_BYTES = 65_536   # of records, beyond which they are copied without the GIL
    CHUNK_BYTES = 1_048_576   # of them that are copied at a time, before their handlers are woken
    BATCH = 256           # events that are looked at at a time
    PATIENCE = 10         # looks of a native worker that finds nothing, 2 us apart, before it parks
    TIMED = 64            # every so many calls of a direct handler are timed
    RESERVE = 65_536      # events that handlers may publish beyond max_queue where waiting would never end
    TICK = 10_000_000     # ns between two looks of the watch at busy workers
    LINGER = 1_000_000_000   # ns after which an extra worker without work ends
    SLICE = 100_000_000   # ns: how long a wait leaves signals (Ctrl-C) unhandled at most

cdef enum:
    FOREVER = -1   # no timeout, among times in ns
    BEYOND = -3    # no wait: the reserve is to be used


MODES = ("queued", "direct", "asyncio", "native")                               # by rc_mode
POLICIES = ("block", "raise", "drop_newest", "drop_oldest", "latest")       # by rc_policy

# What the registry has for a class whose instances compute their ids.
cdef rc_topic by_instance
by_instance.kind = RC_BY_INSTANCE

EMPTY = object()   # what Subscription._next returns when there is nothing

cdef object closed_error = ClosedError   # a module's globals may be gone when the last finalizers publish at exit


include "core/record.pxi"
include "core/publish.pxi"
include "core/direct.pxi"
include "core/batch.pxi"
include "core/deliver.pxi"
include "core/mailbox.pxi"
include "core/options.pxi"
include "core/native.pxi"
include "core/topic.pxi"
include "core/subscription.pxi"
include "core/consumer.pxi"
include "core/classes.pxi"
include "core/route.pxi"
include "core/pool.pxi"
include "core/subscribe.pxi"
include "core/room.pxi"
include "core/waiting.pxi"
include "core/close.pxi"
include "core/stats.pxi"
include "core/many.pxi"
include "core/dispatcher.pxi"
include "core/fanout.pxi"
include "core/fork.pxi"
include "core/capi.pxi"
include "core/types.pxi"
