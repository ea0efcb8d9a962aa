"""The compiled core: composes the primitives of csrc/ with Python's objects. The only file that knows both.

The way of an event, by file and function:

    core/dispatcher.pxi     Core.publish    class -> topic (registry)
    core/publish.pxi        try_publish     claim a slot (ring), store, schedule the topic if it is idle
    core/pool.pxi           Pool.work       a worker takes the topic off the run queue
    core/deliver.pxi        run_topic       for each subscription that runs with its topic: a turn
                            run_turn        calls one handler for a run of events
    core/topic.pxi          advance         moves the gate to what all have seen and releases those events

and where a subscription asks for more: core/direct.pxi (handlers inside publish), core/mailbox.pxi (policies that
drop), core/options.pxi (once, where, weak, context), core/route.pxi (base classes and contexts: events that go to
several topics).

Threads and locks. A topic is run by whoever holds its task (csrc/rc_pool.h); so is a lane. `topic_t.lock` guards the
tuple of the topic's subscriptions and makes its holder the ring's releaser. Under a C lock no Python object is made
or released and no Python code runs. Nothing here relies on the GIL, except where a line says so.

References. A slot of a ring owns one reference to its event. A task that is scheduled owns one to its Core and one
to its Topic or Subscription, so nothing is freed while it may still be run, and a Core with nothing to deliver
is an ordinary object that reference counting and the garbage collector can free.
"""
import contextvars
import sys
import threading
import time
import weakref

from ringcast.errors import (
    ClosedError,
    EventClassError,
    LoopClosedError,
    PublishTimeoutError,
    QueueFullError,
    TypeIdError,
)
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

cdef double PICK_SECONDS = 0.01   # how long a thread waits for another one that picks events for a mailbox

cdef enum:
    BATCH = 256           # events a subscription is given in a turn, before the others have theirs
    TIMED = 64            # every so many turns are timed
    RESERVE = 65_536      # events that handlers may publish beyond max_queue where waiting would never end
    CALM_RUNS = 8         # quick runs after which a subscription leaves its own lane
    SLOW_TURNS = 2        # turns in a row that lasted over a tick, after which it gets one
    TICK = 10_000_000     # ns between two looks of the watch at busy workers
    LINGER = 1_000_000_000   # ns after which an extra worker without work ends
    SLICE = 100_000_000   # ns: how long a wait leaves signals (Ctrl-C) unhandled at most

cdef extern from *:
    """
    #define NOBODY UINT32_MAX
    #define NEVER UINT64_MAX
    """
    const uint32_t NOBODY   # in topic_t.plain: an event reaches nobody
    const uint64_t NEVER    # an end that is not set


# Where the handler of a subscription runs.
cdef enum mode_t:
    QUEUED    # on the pool's workers
    DIRECT    # inside publish
    LOOP      # on an event loop, or wherever its consumer is: see Subscription._next

# What happens to an event when a subscription is `max_queue` events behind.
cdef enum policy_t:
    BLOCK
    RAISE
    DROP_NEWEST
    DROP_OLDEST
    LATEST

MODES = ("queued", "direct", "asyncio")                                     # by mode_t
POLICIES = ("block", "raise", "drop_newest", "drop_oldest", "latest")       # by policy_t

# What the registries lead to.
cdef enum kind_t:
    TOPIC
    ROUTE         # a class whose events also go elsewhere: `topic` is a Route
    BY_INSTANCE   # a class whose instances compute their ids

cdef struct topic_t:
    rc_ring ring              # first: see wait_for_room
    rc_task task
    rc_u32 plain              # what publish returns where queueing is all it has to do; NOBODY; else 0
    rc_u64 limit              # how many events may wait in the ring before publish asks who holds them up
    rc_u64 end                # of the published events that the holder of the task has found
    rc_mutex lock
    rc_u32 subscribers        # active subscriptions that have their events from the ring
    rc_u32 pooled             # of the members: those that run on the pool's workers
    rc_u32 limited            # of the members: those whose max_queue is less than the ring's
    rc_u32 room_waiters       # somebody waits for room without blocking: see Topic.waiters
    kind_t kind
    bint timing               # whether turns are timed
    uint64_t high_water       # most events that were seen waiting
    PyTypeObject *event_class  # NULL while open; not owned (see ClassReference)
    PyObject *topic           # the Topic (or Route) and the Core, not owned
    PyObject *core
    rc_pool *pool

cdef struct subscription_t:
    rc_u64 cursor             # the next event for the handler; with a mailbox: for the mailbox
    rc_u64 end                # where a cancelled subscription ends, or NEVER
    rc_u32 retired            # cancelled, and its last event is delivered
    rc_u64 failures           # calls that have raised
    rc_u32 running            # whether its handler has begun with the event at the cursor (within a turn, it has)
    rc_task lane
    topic_t *topic
    vectorcallfunc call       # what is called for each event, and on what: the handler, or guarded_call on the
    PyObject *callee          # Subscription. Not owned
    PyObject *subscription    # the Subscription, not owned
    rc_mail *mail             # where its policy drops events, else NULL
    rc_u64 calls              # ended; not counted where the cursor tells
    rc_u64 filtered           # of the calls: those in which `where` did not let the event pass
    rc_u64 filtered_early     # events that `where` did not let into the mailbox
    rc_u64 lost               # events that were dropped by its policy
    rc_u64 keyed              # events that wait by key
    rc_u64 unheard            # of the calls: those in which nobody was left to handle the event
    rc_u64 taken              # events that were taken out for the handler; not counted where the cursor tells
    rc_u64 lag                # of the lost ones: those just before the one that was handed over last
    rc_u32 discarded          # of a direct one: also what was published is to be dropped
    rc_u32 fired              # `once`: the one call has begun
    mode_t mode
    policy_t policy
    bint picky                # with a mailbox: where or key says what goes there
    bint by_key               # the mailbox keeps the latest event of each key
    uint64_t max_queue
    uint64_t start            # the cursor at subscribe
    uint64_t cancelled_at     # the tail at cancel
    uint64_t high_water       # most events that were seen waiting
    uint64_t turns            # counted to time every few of them
    uint64_t timed            # calls, in `time` ns
    uint64_t time
    uint32_t slow             # turns in a row that lasted over a tick
    uint32_t calm             # runs of the lane in a row that did not

# What the registry has for a class whose instances compute their ids.
cdef topic_t by_instance
by_instance.kind = BY_INSTANCE

cdef rc_u64 nowhere   # the cursor of what holds no gate back
rc_u64_store(&nowhere, NEVER)

EMPTY = object()   # what Subscription._next returns when there is nothing


include "core/publish.pxi"
include "core/direct.pxi"
include "core/deliver.pxi"
include "core/mailbox.pxi"
include "core/options.pxi"
include "core/topic.pxi"
include "core/subscription.pxi"
include "core/route.pxi"
include "core/pool.pxi"
include "core/dispatcher.pxi"
