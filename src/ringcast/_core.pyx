"""The compiled core: composes the primitives of csrc/ with Python's objects. The only file that knows both.

The way of an event, by file and function:

    core/dispatcher.pxi     Core.publish    class -> topic (registry)
    core/publish.pxi        try_publish     claim a slot (ring), store, schedule the topic if it is idle
    core/pool.pxi           Pool.work       a worker takes the topic off the run queue
    core/deliver.pxi        run_topic       for each subscription that runs with its topic: a turn
                            run_turn        calls one handler for a run of events
    core/topic.pxi          advance         moves the gate to what all have seen and releases those events

Threads and locks. A topic is run by whoever holds its task (csrc/rc_pool.h); so is a lane. `topic_t.lock` guards the
tuple of the topic's subscriptions and makes its holder the ring's releaser. Under a C lock no Python object is made
or released and no Python code runs. Nothing here relies on the GIL, except where a line says so.

References. A slot of a ring owns one reference to its event. A task that is scheduled owns one to its Core and one
to its Topic or Subscription, so nothing is freed while it may still be run, and a Core with nothing to deliver
is an ordinary object that reference counting and the garbage collector can free.
"""
import threading
import time
import weakref

from ringcast.errors import ClosedError, EventClassError, QueueFullError, TypeIdError
from ringcast.events import check_type_id, class_name, identify
from ringcast.handlers import handler_name

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred, PyErr_SetString
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from ringcast._csrc cimport *

cdef extern from "Python.h" nogil:
    # Declared nogil to be usable in functions that touch raw pointers only; every caller is attached.
    ctypedef PyObject *(*vectorcallfunc)(PyObject *, PyObject **, size_t, PyObject *)
    const size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyTypeObject *Py_TYPE(PyObject *)
    void Py_INCREF(PyObject *)
    void Py_DECREF(PyObject *)
    vectorcallfunc PyVectorcall_Function(PyObject *)
    PyObject *PyObject_Vectorcall(PyObject *, PyObject **, size_t, PyObject *)
    bint PyType_IsSubtype(PyTypeObject *, PyTypeObject *)
    bint PyType_Check(PyObject *)

cdef extern from *:
    """
    /* Returns with the exception that is set: lets Cython's try/except catch what a raw call raised. */
    static PyObject *raise_current(void) { return NULL; }
    """
    object raise_current()

cdef enum:
    BATCH = 256           # events a subscription is given in a turn, before the others have theirs
    RESERVE = 65_536      # events that handlers may publish beyond max_queue where waiting would never end
    CALM_RUNS = 8         # quick runs after which a subscription leaves its own lane
    SLOW_TURNS = 2        # turns in a row that lasted over a tick, after which it gets one
    TICK = 10_000_000     # ns between two looks of the watch at busy workers
    LINGER = 1_000_000_000   # ns after which an extra worker without work ends
    SLICE = 100_000_000   # ns: how long a wait leaves signals (Ctrl-C) unhandled at most

cdef uint64_t NEVER = <uint64_t>-1


cdef struct topic_t:
    rc_ring ring              # first: see publish_when_room
    rc_task task
    rc_u32 subscribers        # active subscriptions: what publish returns
    rc_u64 end                # of the published events that the holder of the task has found
    rc_mutex lock
    PyTypeObject *event_class  # NULL while open; not owned (see ClassReference)
    PyObject *topic           # the Topic and the Core, not owned
    PyObject *core
    rc_pool *pool

cdef struct subscription_t:
    rc_u64 cursor             # the next event for the handler
    rc_u64 end                # where a cancelled subscription ends, or NEVER
    rc_u32 retired            # cancelled, and its last event is delivered
    rc_u32 errors
    rc_u32 running            # whether its handler has begun with the event at the cursor (within a turn, it has)
    rc_task lane
    topic_t *topic
    PyObject *handler         # owned by the Subscription
    PyObject *subscription    # the Subscription, not owned
    uint64_t start            # the cursor at subscribe
    uint64_t cancelled_at     # the tail at cancel
    uint32_t slow             # turns in a row that lasted over a tick
    uint32_t calm             # runs of the lane in a row that did not

# What the registry has for a class whose instances compute their ids. Has no subscribers, so that publish
# finds out only where it has something rare to do anyway.
cdef topic_t by_instance


include "core/publish.pxi"
include "core/deliver.pxi"
include "core/topic.pxi"
include "core/subscription.pxi"
include "core/pool.pxi"
include "core/dispatcher.pxi"
