"""The compiled core: composes the primitives of csrc/ with Python's objects. The only file that knows both.

The way of an event, from top to bottom of this file:

    Core.publish        class -> topic (registry), claim a slot (ring), store, schedule the topic if it is idle
    Pool.work           a worker takes the topic off the run queue
    run_topic           for each subscription that runs with its topic: a turn
    run_turn            calls one handler for a run of events
    advance             moves the gate to what all subscriptions have seen and releases those events

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


# --- publish: claim, store, schedule ---------------------------------------------------------------------

cdef inline rc_claim try_publish(topic_t *topic, PyObject *event, uint64_t limit) noexcept nogil:
    cdef rc_slot *slot
    cdef rc_claim claim = rc_ring_claim(&topic.ring, limit, &slot)
    if claim == RC_CLAIMED:
        Py_INCREF(event)
        rc_ring_publish(slot, event)
        if rc_task_now(&topic.task) == RC_IDLE:
            schedule(topic, &topic.task, topic.topic)
    return claim


cdef void schedule(topic_t *topic, rc_task *task, PyObject *owner) noexcept nogil:
    """Queues the topic's task or the lane of one of its subscriptions, if it is idle."""
    if rc_task_now(task) != RC_IDLE:
        return
    Py_INCREF(topic.core)   # before it is queued: the worker may be done with it at once
    Py_INCREF(owner)
    if not rc_pool_schedule(topic.pool, task):   # another thread did, or all is delivered and the workers are gone
        Py_DECREF(owner)
        Py_DECREF(topic.core)


# --- deliver: turns ------------------------------------------------------------------------------------

cdef enum turn_t:
    TURN_DONE
    TURN_CUT      # it lasted over a tick
    TURN_SPLIT    # the subscription is now in its own lane, which this worker holds; the topic is another's


cdef turn_t run_turn(rc_worker *worker, topic_t *topic, subscription_t *sub, uint64_t stop) noexcept nogil:
    """Calls the handler for the events from its cursor up to `stop`. The events are borrowed from the ring:
    the cursor, which is moved after each call, keeps the gate from passing them."""
    cdef PyObject *handler = sub.handler
    cdef vectorcallfunc call = PyVectorcall_Function(handler)
    cdef PyObject *arguments[2]   # [0] is the callee's to use (PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef PyObject *result
    cdef rc_slot *slot
    cdef uint64_t position = rc_u64_load(&sub.cursor), left = 0
    cdef int ticks = 0
    cdef turn_t how = TURN_DONE
    if call == NULL:
        call = PyObject_Vectorcall
    rc_turn_begin(worker, &sub.lane, &topic.ring, &sub.cursor)
    rc_u32_store(&sub.running, 1)
    stop = min(stop, rc_u64_load(&sub.end))
    while position < stop:
        if left == 0:
            slot = rc_ring_slot(&topic.ring, position)
            left = rc_ring_run(position, stop)
        arguments[1] = <PyObject *>rc_slot_event(slot)
        result = call(handler, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if result == NULL:
            report_failure(sub, arguments[1])
        else:
            Py_DECREF(result)
        position += 1
        slot += 1
        left -= 1
        rc_u64_store(&sub.cursor, position)
        if rc_turn_attention(worker):
            rc_turn_attended(worker)
            rc_u32_store(&sub.running, 0)
            pause_in_turn(topic)
            rc_u32_store(&sub.running, 1)
            stop = min(stop, rc_u64_load(&sub.end))
            ticks += 1
            if ticks == 2:   # at least one tick has passed since the turn began
                how = TURN_CUT
                break
    rc_u32_store(&sub.running, 0)
    sub.slow = sub.slow + 1 if how == TURN_CUT else 0
    return TURN_SPLIT if rc_turn_end(topic.pool, worker) else how


cdef void pause_in_turn(topic_t *topic) noexcept with gil:
    """Once a tick: makes room for the publishers, and lets other threads run also where the handlers are
    compiled functions, which never give up the GIL."""
    advance(<Topic>topic.topic)
    with nogil:
        pass


cdef void report_failure(subscription_t *sub, PyObject *event) noexcept with gil:
    """Counts the exception that the handler has raised and hands it to the dispatcher."""
    rc_u32_store(&sub.errors, rc_u32_load(&sub.errors) + 1)   # one writer: whoever runs the subscription
    if PyErr_Occurred() == NULL:
        PyErr_SetString(SystemError, "the handler returned NULL without an exception")
    try:
        raise_current()
    except BaseException as exception:
        (<Core>sub.topic.core)._report_failure(exception, <object>event, <object>sub.subscription)


# --- deliver: topics and lanes ----------------------------------------------------------------------------

cdef void run_topic(rc_worker *worker, topic_t *c) noexcept:
    """Runs the topic whose task the worker holds until all is delivered or others are to have their turn."""
    cdef Core core = <Core>c.core
    cdef Topic topic = <Topic>c.topic
    cdef tuple members
    cdef Subscription sub
    cdef uint64_t end, cursor
    cdef turn_t how
    while True:
        members = topic.members()
        end = rc_u64_load(&c.end)
        if rc_ring_tail(&c.ring) != end:
            rc_ring_await_event(&c.ring, end)   # claimed: published within a few instructions
        end = rc_ring_published(&c.ring, end, BATCH)
        rc_u64_store_seq(&c.end, end)   # seq: before the look at a lane's state, with run_lane
        for sub in members:
            if rc_task_now(&sub.c.lane) != RC_SHARED:
                if sub.has_work(end):
                    schedule(c, &sub.c.lane, <PyObject *>sub)
                continue
            cursor = rc_u64_load(&sub.c.cursor)
            if cursor < end:
                how = run_turn(worker, c, &sub.c, min(end, cursor + BATCH))
                if how == TURN_CUT and sub.c.slow >= SLOW_TURNS and core.max_workers > 1:
                    sub.c.calm = 0
                    rc_task_release(&sub.c.lane, RC_IDLE)
                    if sub.has_work(end):
                        schedule(c, &sub.c.lane, <PyObject *>sub)
                elif how == TURN_SPLIT:
                    sub.c.calm = 0
                    Py_INCREF(c.core)   # the token of the lane that the worker now holds
                    Py_INCREF(<PyObject *>sub)
                    run_lane(worker, sub)
                    return
            if sub.is_over():
                sub.retire()
        advance(topic)
        if not topic.has_work():
            rc_task_release(&c.task, RC_IDLE)
            if not topic.has_work() or not rc_task_acquire(&c.task):
                break
        if rc_pool_others(c.pool):
            rc_pool_yield(c.pool, worker)   # the queue has the token and its references now
            return
    rc_pool_leave(c.pool, worker)
    Py_DECREF(<PyObject *>topic)
    Py_DECREF(<PyObject *>core)


cdef void run_lane(rc_worker *worker, Subscription sub) noexcept:
    """Runs the slow subscription whose lane the worker holds until it has caught up with its topic."""
    cdef topic_t *topic = sub.c.topic
    cdef Core core = <Core>topic.core
    cdef Topic owner = <Topic>topic.topic
    cdef bint calm = True
    cdef uint64_t stop
    while True:
        advance(owner)   # at first for the turn that was split
        while sub.has_events():
            stop = min(rc_u64_load_seq(&topic.end), rc_u64_load(&sub.c.cursor) + BATCH)
            if run_turn(worker, topic, &sub.c, stop) == TURN_CUT:
                calm = False
            advance(owner)
            if rc_pool_short_of_workers(topic.pool):
                rc_pool_yield(topic.pool, worker)   # the queue has the token and its references now
                return
        if sub.is_over():
            sub.retire()
        sub.c.calm = sub.c.calm + 1 if calm else 0
        if sub.c.calm >= CALM_RUNS:
            rc_task_release(&sub.c.lane, RC_SHARED)
            schedule(topic, &topic.task, topic.topic)   # it may have published meanwhile without looking at this one
            break
        rc_task_release(&sub.c.lane, RC_IDLE)
        if not sub.has_work(rc_u64_load_seq(&topic.end)) or not rc_task_acquire(&sub.c.lane):
            break
    rc_pool_leave(topic.pool, worker)
    Py_DECREF(<PyObject *>sub)
    Py_DECREF(<PyObject *>core)


cdef void advance(Topic topic) noexcept:
    """Moves the gate to the last cursor and releases the events that it has passed. Any thread."""
    cdef topic_t *c = topic.c
    cdef PyObject *events[BATCH]
    cdef uint64_t gate, target, cursor
    cdef Py_ssize_t count = BATCH, at
    while count == BATCH:
        rc_mutex_lock(&c.lock)
        gate = rc_ring_gate(&c.ring)
        target = rc_u64_load(&c.end)
        for at in range(len(topic.subscriptions)):
            cursor = rc_u64_load(&(<Subscription>topic.subscriptions[at]).c.cursor)
            if cursor < target:
                target = cursor
        count = 0
        while count < BATCH and gate + count < target:
            events[count] = <PyObject *>rc_ring_take(&c.ring, gate + count)
            count += 1
        if count:
            rc_ring_move_gate(&c.ring, gate + count)
        rc_mutex_unlock(&c.lock)
        for at in range(count):   # not under the lock: the last reference runs finalizers
            Py_DECREF(events[at])


@cython.final
cdef class Topic:
    """All that belongs to one type id of one dispatcher."""
    cdef topic_t *c
    cdef tuple subscriptions   # replaced, never changed; guarded by c.lock
    cdef readonly uint32_t type_id
    cdef readonly bint automatic   # the id goes with its class

    def __cinit__(self, Core core, uint32_t type_id, bint automatic):
        self.subscriptions = ()
        self.type_id = type_id
        self.automatic = automatic
        self.c = <topic_t *>rc_aligned_zalloc(sizeof(topic_t))
        if self.c == NULL or rc_ring_init(&self.c.ring, core.max_queue, RESERVE, 0) or rc_mutex_init(&self.c.lock):
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        rc_task_init(&self.c.task, RC_TOPIC, self.c)
        self.c.topic = <PyObject *>self
        self.c.core = <PyObject *>core
        self.c.pool = &core.pool.c

    def __dealloc__(self):
        cdef uint64_t position
        if self.c == NULL:
            return
        # only what a publisher left behind that a close overtook: see Core.close
        for position in range(rc_ring_gate(&self.c.ring), rc_ring_tail(&self.c.ring)):
            Py_DECREF(<PyObject *>rc_ring_take(&self.c.ring, position))
        rc_ring_move_gate(&self.c.ring, rc_ring_tail(&self.c.ring))
        rc_ring_destroy(&self.c.ring)
        rc_mutex_destroy(&self.c.lock)
        rc_aligned_free(self.c)

    cdef tuple members(self):
        cdef tuple subscriptions
        rc_mutex_lock(&self.c.lock)
        subscriptions = self.subscriptions
        rc_mutex_unlock(&self.c.lock)
        return subscriptions

    cdef void join(self, Subscription sub):
        """Adds a subscription, which starts with the next event to be published."""
        cdef tuple old, new
        cdef bint joined = False
        while not joined:
            old = self.members()
            new = old + (sub,)
            rc_mutex_lock(&self.c.lock)
            joined = self.subscriptions is old
            if joined:
                self.set_members(new)
                # under the lock the gate stands still, at or before the tail: it cannot pass the new cursor
                sub.c.start = rc_ring_tail(&self.c.ring)
                rc_u64_store(&sub.c.cursor, sub.c.start)
                rc_u32_store(&self.c.subscribers, rc_u32_load(&self.c.subscribers) + 1)
            rc_mutex_unlock(&self.c.lock)

    cdef void leave(self, Subscription sub):
        """Takes out a subscription that has had its last event, and lets the gate pass it."""
        cdef tuple old, new
        cdef bint left = False
        while not left:
            old = self.members()
            new = tuple([member for member in old if member is not sub])
            rc_mutex_lock(&self.c.lock)
            left = self.subscriptions is old
            if left:
                self.set_members(new)
            rc_mutex_unlock(&self.c.lock)
        advance(self)

    cdef inline void set_members(self, tuple members) noexcept:
        """Under the lock; the caller holds the old tuple, so that it is not released here."""
        self.subscriptions = members
        rc_u32_store(&self.c.task.members, <uint32_t>len(members))

    cdef void settle(self) noexcept:
        """After the ring was closed: waits for producers that have claimed and not yet published, and makes sure that
        what they have published is scheduled."""
        cdef uint64_t position, tail
        rc_mutex_lock(&self.c.lock)   # the gate stands still, the pages stay
        position = rc_ring_gate(&self.c.ring)
        tail = rc_ring_tail(&self.c.ring)
        while True:
            position = rc_ring_published(&self.c.ring, position, tail - position)
            if position == tail:
                break
            rc_ring_await_event(&self.c.ring, position)
        rc_mutex_unlock(&self.c.lock)
        if tail != rc_u64_load_seq(&self.c.end):
            schedule(self.c, &self.c.task, self.c.topic)

    cdef bint has_work(self):
        """Whether the holder of the task has something to do. Also its last look after it has released it: so it
        reads no slot, which another holder may have emptied meanwhile."""
        cdef uint64_t end = rc_u64_load(&self.c.end)
        cdef Subscription sub
        if rc_ring_tail(&self.c.ring) != end:
            return True
        for sub in self.members():
            if rc_task_now(&sub.c.lane) != RC_SCHEDULED and sub.has_work(end):
                return True
        return False


# --- subscriptions ----------------------------------------------------------------------------------------

@cython.final
cdef class Subscription:
    """What `subscribe` returns: one handler's place among the events of one type.

    Calling it or `cancel()` ends it; so does leaving a `with` block, which also waits until all that was accepted
    for it is delivered. Any thread may use it. A subscription does not keep its dispatcher alive.

    Attributes:
        handler: the callable. The dispatcher holds it strongly until the last event is delivered.
        event_class: the class of the events, or None where `subscribe_to` was told none.
    """
    cdef subscription_t c
    cdef Topic topic
    cdef readonly object handler
    cdef readonly object event_class
    cdef object core_reference
    cdef object __weakref__

    def __init__(self, *_, **__):
        raise TypeError("subscriptions are made by Dispatcher.subscribe")

    def __class_getitem__(cls, item):
        return cls   # Subscription[Tick] is for type checkers

    cdef bint has_events(self) noexcept:
        return rc_u64_load(&self.c.cursor) < min(rc_u64_load_seq(&self.c.topic.end), rc_u64_load_seq(&self.c.end))

    cdef bint is_over(self) noexcept:
        """Whether it is cancelled and has had its last event, but has not left yet. For whoever runs it."""
        return rc_u64_load(&self.c.cursor) >= rc_u64_load_seq(&self.c.end) and not rc_u32_load(&self.c.retired)

    cdef bint has_work(self, uint64_t end) noexcept:
        return rc_u64_load(&self.c.cursor) < min(end, rc_u64_load_seq(&self.c.end)) or self.is_over()

    cdef void retire(self) noexcept:
        """Leaves the topic for good."""
        self.topic.leave(self)
        rc_u32_store_seq(&self.c.retired, 1)   # seq: a condition of `progress`
        rc_park_wake_all(&self.c.topic.pool.progress)

    cdef uint64_t waiting(self) noexcept:
        """How many accepted events its handler has not finished."""
        cdef uint64_t cursor = rc_u64_load(&self.c.cursor)
        cdef uint64_t end = min(rc_u64_load_seq(&self.c.end), rc_ring_tail(&self.c.topic.ring))
        return end - cursor if end > cursor else 0

    def cancel(self, *, bint discard=False):
        """Ends the subscription: what is published from now on does not reach it. Idempotent; does not wait.

        Args:
            discard: drop what was accepted for it and its handler has not begun, and count it in `dropped`;
                also after a first cancel without. Otherwise that is still delivered.
        """
        cdef topic_t *topic = self.c.topic
        cdef uint64_t cursor, begun
        core = self.core_reference()
        if core is None:
            return   # nobody can publish any more, and nothing is waiting
        rc_mutex_lock(&topic.lock)
        cursor = rc_u64_load(&self.c.cursor)
        if rc_u64_load(&self.c.end) == NEVER:
            self.c.cancelled_at = rc_ring_tail(&topic.ring)
            rc_u64_store_seq(&self.c.end, self.c.cancelled_at)   # seq: before the look at the task in schedule()
            rc_u32_store(&topic.subscribers, rc_u32_load(&topic.subscribers) - 1)
        begun = cursor + rc_u32_load(&self.c.running)
        if discard and begun < rc_u64_load(&self.c.end):
            rc_u64_store_seq(&self.c.end, begun)
        rc_mutex_unlock(&topic.lock)
        if cursor >= self.c.cancelled_at:   # its handler has finished all, nobody runs it
            if self.is_over():
                self.retire()
            return
        if discard:
            rc_pool_call_attention(topic.pool)
        schedule(topic, &topic.task, topic.topic)

    def __call__(self):
        """The same as `cancel()`."""
        self.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Cancels, and waits until all that was accepted is delivered (inside a handler it does not wait).

        Raises:
            KeyboardInterrupt: Ctrl-C ended the wait; the subscription is cancelled all the same.
        """
        core = self.core_reference()
        self.cancel()
        if core is not None:
            (<Core>core).pool.wait_retired(self)

    @property
    def type_id(self):
        """The type id of its events, an int."""
        return self.topic.type_id

    @property
    def active(self):
        """Whether events that are published now reach it: until it is cancelled or the dispatcher closed."""
        return rc_u64_load(&self.c.end) == NEVER and self.core_reference() is not None

    @property
    def pending(self):
        """How many events were accepted for it and are not finished by its handler, an int."""
        return self.waiting()

    @property
    def delivered(self):
        """How many calls of its handler have ended, by return or exception, an int."""
        return rc_u64_load(&self.c.cursor) - self.c.start

    @property
    def dropped(self):
        """How many accepted events it never got because of `cancel(discard=True)`, an int."""
        cdef uint64_t cursor = rc_u64_load(&self.c.cursor)
        if rc_u64_load(&self.c.end) == NEVER or rc_u64_load(&self.c.end) == self.c.cancelled_at:
            return 0
        return self.c.cancelled_at - max(cursor, rc_u64_load(&self.c.end))

    @property
    def errors(self):
        """How many calls of its handler have raised, an int."""
        return rc_u32_load(&self.c.errors)

    def __repr__(self):
        state = "active" if self.active else "cancelled"
        return (
            f"<Subscription of {handler_name(self.handler)} to {describe(self.event_class, self.topic.type_id)}: "
            f"{state}, {self.pending} pending, {self.delivered} delivered, {self.dropped} dropped, "
            f"{self.errors} errors>"
        )


cdef Subscription new_subscription(Core core, Topic topic, handler, event_class):
    cdef Subscription sub = Subscription.__new__(Subscription)
    sub.core_reference = weakref.ref(core)
    sub.topic = topic
    sub.handler = handler
    sub.event_class = event_class
    sub.c.topic = topic.c
    sub.c.handler = <PyObject *>handler
    sub.c.subscription = <PyObject *>sub
    rc_task_init(&sub.c.lane, RC_LANE, &sub.c)
    rc_u64_store(&sub.c.end, NEVER)
    topic.join(sub)
    return sub


# --- workers ------------------------------------------------------------------------------------------------

@cython.final
cdef class Pool:
    """The threads of one dispatcher. They hold the Pool and, only while they run a task, the Core."""
    cdef rc_pool c
    cdef bint made
    cdef str name
    cdef list threads
    cdef int number

    def __cinit__(self, str name, uint32_t max_workers, uint32_t parallel):
        if rc_pool_init(&self.c, max_workers, parallel, TICK, LINGER):
            raise MemoryError
        self.made = True
        self.name = name
        self.threads = []

    def __dealloc__(self):
        if self.made:
            rc_pool_destroy(&self.c)

    cdef start(self):
        """Starts the watch and a first worker."""
        self.start_worker()
        self.start_thread(self.watch, f"{self.name}-watch")

    cdef start_worker(self):
        self.number += 1
        rc_pool_hire(&self.c)
        try:
            self.start_thread(self.work, f"{self.name}-worker-{self.number}")
        except BaseException:
            rc_pool_dismiss(&self.c)
            raise

    cdef start_thread(self, target, str name):
        # daemon: a handler that never returns must not keep the interpreter; Dispatcher closes at exit
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)
        for old in list(self.threads):
            if not old.is_alive():
                self.threads.remove(old)

    def work(self):
        """A worker's thread: runs what the queue gives it."""
        cdef rc_worker *worker = rc_pool_join(&self.c)
        cdef rc_task *task
        while worker != NULL:
            task = rc_pool_take_now(&self.c, worker)   # without giving up the GIL
            if task == NULL:
                with nogil:
                    task = rc_pool_take(&self.c, worker)
                if task == NULL:
                    return
            if task.kind == RC_TOPIC:
                run_topic(worker, <topic_t *>task.owner)
            else:
                run_lane(worker, <Subscription>(<subscription_t *>task.owner).subscription)

    def watch(self):
        """The watch's thread: sees which workers are stuck, and starts those that are wanted."""
        cdef int found = 0
        while not found & RC_WATCH_STOP:
            with nogil:
                found = rc_pool_watch(&self.c)
            # Attached again, which under the GIL took as long as others ran: who only waited for the GIL
            # has gone on meanwhile, and is found so by the second look that the split takes.
            if found & RC_WATCH_STUCK:
                rc_pool_split_stuck(&self.c)
            while rc_pool_wants_worker(&self.c):
                try:
                    self.start_worker()
                except RuntimeError:   # no more threads: those there are go on; try again in a while
                    with nogil:
                        rc_park_wait(&self.c.watch, rc_park_prepare(&self.c.watch), TICK)

    cdef bint wait_retired(self, Subscription sub) except -1:
        return self.wait(-1, sub)

    cdef bint wait(self, int64_t timeout, Subscription sub) except -1:
        """Waits until `sub` has had its last event, or for all if it is None. Returns whether that is so after
        `timeout` ns (below 0: no limit). A worker does not wait: it may be the one that is waited for."""
        cdef uint32_t ticket
        cdef int64_t deadline = time.monotonic_ns() + timeout, left = SLICE
        cdef bint done
        while True:
            ticket = rc_park_prepare(&self.c.progress)
            done = rc_u32_load_seq(&sub.c.retired) != 0 if sub is not None else rc_pool_outstanding(&self.c) == 0
            if timeout >= 0:
                left = deadline - time.monotonic_ns()
            if done or left <= 0 or rc_pool_current(&self.c) != NULL:
                rc_park_cancel(&self.c.progress)
                return done
            left = min(left, SLICE)
            with nogil:
                rc_park_wait(&self.c.progress, ticket, left)
            PyErr_CheckSignals()


# --- dispatchers ----------------------------------------------------------------------------------------------

class ClassReference(weakref.ref):
    """A dispatcher's knowledge of an event class: gone with the class, so that another class at the same address
    is not taken for it."""
    __slots__ = ("address", "core_reference", "topics")

    def __init__(self, event_class, _callback):
        super().__init__(event_class, _callback)
        self.address = id(event_class)
        self.topics = []   # that are bound to the class


def forget_class(reference):
    core = reference.core_reference()
    if core is not None:
        (<Core>core).forget(reference)


cdef class Core:
    """The compiled base of Dispatcher, which documents it."""
    cdef rc_registry by_class   # address of the class -> topic_t, or by_instance
    cdef rc_registry by_id      # type id + 1 -> topic_t
    cdef int made
    cdef bint started
    cdef bint closing
    cdef readonly uint64_t max_queue
    cdef readonly uint32_t max_workers
    cdef readonly str name
    cdef Pool pool
    cdef object lock            # of what follows; re-entrant, because finalizers may come in anywhere
    cdef dict topics            # type id -> Topic
    cdef dict classes           # address -> ClassReference
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        if rc_registry_init(&self.by_class) != 0:
            raise MemoryError
        self.made = 1
        if rc_registry_init(&self.by_id) != 0:
            raise MemoryError
        self.made = 2
        self.closing = True   # until __init__
        self.lock = threading.RLock()
        self.topics = {}
        self.classes = {}

    def __init__(self, uint64_t max_queue, uint32_t max_workers, uint32_t parallel, str name):
        if self.pool is not None:
            raise RuntimeError("a dispatcher is initialised once")
        self.max_queue = max_queue
        self.max_workers = max_workers
        self.name = name
        self.pool = Pool(name, max_workers, parallel)
        self.closing = False

    def __del__(self):
        # nothing is scheduled, or the task would hold a reference: only idle threads are left
        if self.pool is not None:
            rc_pool_stop(&self.pool.c)

    def __dealloc__(self):
        if self.made >= 1:
            rc_registry_destroy(&self.by_class)
        if self.made >= 2:
            rc_registry_destroy(&self.by_id)

    # --- publish ---

    def publish(self, event, /):
        """Queues an event for all that are subscribed to its class, and returns.

        The event is written once, whatever the number of subscribers. Takes no lock; any number of threads may
        publish at once. Events of one type reach every subscriber in the order in which they were published.

        At `max_queue` events that the slowest subscriber has not finished it waits for room. Inside a handler it waits
        only where that can end: for room that this very handler, or handlers that wait for it, would have to make it
        does not wait, but goes past `max_queue`, by 65,536 events at most.

        Args:
            event: an object of any class. Its class, or its `__event_type__`, says what type it is of.

        Returns:
            How many subscriptions it was queued for, an int. (Those that are subscribed or cancelled at the very
            moment may or may not be among them.)

        Raises:
            ClosedError: the dispatcher is closed, or was closed while this waited.
            EventClassError: the event's type id belongs to another class.
            TypeIdError: its `__event_type__` is no integer from 0 to 2**32 - 1.
            QueueFullError: inside a handler, 65,536 events past `max_queue`.
            KeyboardInterrupt: Ctrl-C ended the wait for room.
            MemoryError: no memory for the queue.
            After each of these the event was not queued.
        """
        cdef topic_t *topic = <topic_t *>rc_registry_find(&self.by_class, class_key(Py_TYPE(<PyObject *>event)))
        if topic == NULL or topic == &by_instance:
            return self.publish_rare(event)
        return self.publish_in(topic, <PyObject *>event)

    def publish_to(self, type_id, event, /):
        """Queues an event under a type id, whatever its class says; otherwise as `publish`.

        Args:
            type_id: from 0 to 2**32 - 1.
            event: an instance of the class that the id belongs to, if it belongs to one; else the id is that class's
                from now on. (An id that nobody is subscribed to stays open.)

        Returns:
            How many subscriptions it was queued for, an int.

        Raises:
            The same as `publish`.
        """
        cdef topic_t *topic = self.find_id(check_type_id(type_id))
        if topic == NULL:
            return 0
        if topic.event_class != Py_TYPE(<PyObject *>event):
            self.check_event(<Topic>topic.topic, type(event))
        return self.publish_in(topic, <PyObject *>event)

    cdef publish_rare(self, event):
        """A class that is seen first, or one whose instances compute their ids."""
        cdef topic_t *topic = self.find_class(type(event))
        if topic == &by_instance:
            return self.publish_to(event.__event_type__, event)
        return self.publish_in(topic, <PyObject *>event)

    cdef inline publish_in(self, topic_t *topic, PyObject *event):
        cdef uint32_t subscribers = rc_u32_load(&topic.subscribers)
        if subscribers == 0:
            return 0
        if not self.started:
            self.start()
        if try_publish(topic, event, topic.ring.max_queue) != RC_CLAIMED:
            self.publish_when_room(topic, event)
        return subscribers

    cdef publish_when_room(self, topic_t *topic, PyObject *event):
        """Publishes in a ring that has refused the claim, after waiting for room if that is why."""
        cdef rc_pool *pool = &self.pool.c
        cdef rc_worker *worker = rc_pool_current(pool)
        cdef rc_claim claim = RC_FULL
        cdef uint64_t limit = topic.ring.max_queue, gate
        while True:
            gate = rc_ring_gate(&topic.ring)
            claim = try_publish(topic, event, limit)
            if claim == RC_CLAIMED:
                return
            if claim == RC_CLOSED:
                raise ClosedError(f"{self!r} is closed: it accepts no events")
            if claim == RC_NO_MEMORY:
                raise MemoryError
            if limit > topic.ring.max_queue:
                raise QueueFullError(
                    f"handlers have published {RESERVE} events beyond max_queue={self.max_queue} under type id "
                    f"{(<Topic>topic.topic).type_id:#x} that wait for these very handlers: raise max_queue, or publish "
                    "fewer events for each event handled"
                )
            advance(<Topic>topic.topic)
            if worker != NULL:
                if rc_turn_running(worker):   # a ring is the first field of its topic
                    advance(<Topic>(<topic_t *>worker.ring).topic)
                if not rc_pool_may_wait(pool, worker, &topic.ring):
                    limit = topic.ring.max_queue + topic.ring.reserve
                    continue
            try:
                with nogil:
                    rc_ring_await_gate(&topic.ring, gate, SLICE)
                PyErr_CheckSignals()
            finally:
                if worker != NULL:
                    rc_pool_waited(pool, worker)

    cdef start(self):
        with self.lock:
            if not self.started:
                self.pool.start()
                self.started = True

    # --- topics and event classes: all under self.lock, but for the two finds ---

    cdef topic_t *find_class(self, event_class) except NULL:
        """The topic of a class, which is made known if it is not, or &by_instance."""
        cdef topic_t *found = <topic_t *>rc_registry_find_locked(&self.by_class, class_key(<PyTypeObject *>event_class))
        cdef Topic topic
        if found != NULL:
            return found
        with self.lock:
            self.check_open()
            identity = identify(event_class)
            if identity.type_id is None:
                found = &by_instance
            else:
                topic = self.topic(identity.type_id, identity.automatic)
                self.bind(topic, identity.owner)
                found = topic.c
            self.reference(event_class)
            if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>event_class), found) != 0:
                raise MemoryError
        return found

    cdef topic_t *find_id(self, uint32_t type_id) except? NULL:
        """The topic of an id, or NULL where nobody has used it."""
        cdef topic_t *found = <topic_t *>rc_registry_find(&self.by_id, id_key(type_id))
        cdef Topic topic
        if found != NULL:
            return found
        with self.lock:
            self.check_open()
            topic = self.topics.get(type_id)
        return NULL if topic is None else topic.c

    cdef Topic topic(self, uint32_t type_id, bint automatic):
        cdef Topic topic = self.topics.get(type_id)
        if topic is None:
            topic = Topic(self, type_id, automatic)
            # an automatic id goes with its class, and then its topic; so only publish finds it without the lock
            if not automatic and rc_registry_put(&self.by_id, id_key(type_id), topic.c) != 0:
                raise MemoryError
            self.topics[type_id] = topic
        return topic

    cdef reference(self, event_class):
        reference = self.classes.get(id(event_class))
        if reference is None:
            reference = ClassReference(event_class, forget_class)
            reference.core_reference = weakref.ref(self)
            self.classes[reference.address] = reference
        return reference

    cdef bind(self, Topic topic, event_class):
        """Makes the topic that of the class, if it is still open."""
        if topic.c.event_class == NULL:
            self.reference(event_class).topics.append(topic)
            topic.c.event_class = <PyTypeObject *>event_class
        elif topic.c.event_class != <PyTypeObject *>event_class:
            raise EventClassError(
                f"type id {topic.type_id:#x} belongs to {class_name(<object>topic.c.event_class)}: "
                f"{class_name(event_class)} needs an id of its own"
            )

    cdef check_event(self, Topic topic, event_class):
        """Makes sure that an event of the class may be published under the topic's id."""
        with self.lock:
            if topic.c.event_class != NULL and not topic.automatic:
                if PyType_IsSubtype(<PyTypeObject *>event_class, topic.c.event_class):
                    return
            self.bind(topic, event_class)

    cdef forget(self, reference):
        """The class is about to be freed."""
        cdef Topic topic
        with self.lock:
            rc_registry_remove(&self.by_class, reference.address)
            if self.classes.get(reference.address) is reference:
                del self.classes[reference.address]
            for topic in reference.topics:
                topic.c.event_class = NULL
                if topic.automatic:
                    self.topics.pop(topic.type_id, None)

    cdef check_open(self):
        if self.closing:
            raise ClosedError(f"{self!r} is closed")

    # --- subscribe and count: the checks of the handler are Dispatcher's ---

    def _subscribe_class(self, event_class, handler):
        cdef topic_t *topic
        with self.lock:
            self.check_open()
            topic = self.find_class(event_class)
            if topic == &by_instance:
                raise TypeIdError(
                    f"the instances of {class_name(event_class)} compute their type ids: use "
                    "subscribe_to(type_id, handler)"
                )
            if topic.event_class != <PyTypeObject *>event_class:
                owner = <object>topic.event_class
                raise EventClassError(
                    f"{class_name(event_class)} inherits type id {(<Topic>topic.topic).type_id:#x} from "
                    f"{class_name(owner)}, and its events go where those of that class go: subscribe to that class, or "
                    f"state an __event_type__ in {class_name(event_class)}"
                )
            return new_subscription(self, <Topic>topic.topic, handler, event_class)

    def _subscribe_id(self, type_id, event_class, handler):
        cdef Topic topic
        with self.lock:
            self.check_open()
            topic = self.topic(check_type_id(type_id), False)
            if event_class is not None:
                self.bind(topic, event_class)
            return new_subscription(self, topic, handler, event_class)

    def _class_of(self, type_id):
        """The class that a type id belongs to, or None."""
        cdef Topic topic
        with self.lock:
            topic = self.topics.get(type_id)
            if topic is None or topic.c.event_class == NULL:
                return None
            return <object>topic.c.event_class

    def _count(self, type_id):
        cdef Topic topic
        with self.lock:
            topic = self.topics.get(type_id)
        return 0 if topic is None or self.closing else rc_u32_load(&topic.c.subscribers)

    # --- close ---

    @property
    def closed(self):
        return self.closing

    cdef list all_topics(self):
        with self.lock:
            return list(self.topics.values())

    def _begin_close(self):
        """Refuses events and subscriptions from now on, and lets the workers end when all is delivered."""
        cdef Topic topic
        cdef Subscription sub
        with self.lock:
            if self.closing:
                return
            self.closing = True
            # publish finds no topic any more, and looks at `closing`
            for address in self.classes:
                rc_registry_remove(&self.by_class, address)
            for type_id in self.topics:
                rc_registry_remove(&self.by_id, id_key(type_id))
        for topic in self.all_topics():
            rc_ring_close(&topic.c.ring)
            topic.settle()
            for sub in topic.members():
                sub.cancel()
        rc_pool_stop(&self.pool.c)

    def _await_close(self, int64_t timeout):
        """Waits for the deliveries and the threads, `timeout` ns at most (below 0: no limit). Returns whether all
        is done. Inside a handler it does not wait and returns True."""
        cdef int64_t deadline = time.monotonic_ns() + timeout
        if rc_pool_current(&self.pool.c) != NULL:
            return True
        if not self.pool.wait(timeout, None):
            return False
        while True:   # while the watch lives it may start a worker for the last of the work
            alive = [
                thread
                for thread in list(self.pool.threads)
                if thread.is_alive() and thread is not threading.current_thread()   # a finalizer in the watch
            ]
            if not alive:
                return True
            for thread in alive:
                thread.join(None if timeout < 0 else max(0, deadline - time.monotonic_ns()) / 1e9)
                if thread.is_alive():
                    return False

    def _subscriptions(self):
        """All subscriptions that have not had their last event, a list."""
        cdef Topic topic
        return [sub for topic in self.all_topics() for sub in topic.members()]


cdef inline uint64_t class_key(PyTypeObject *event_class) noexcept nogil:
    return <uint64_t><uintptr_t>event_class


cdef inline uint64_t id_key(uint32_t type_id) noexcept nogil:
    return <uint64_t>type_id + 1   # 0 is the registry's empty key


cdef str describe(event_class, uint32_t type_id):
    return f"type id {type_id:#x}" if event_class is None else f"{event_class.__qualname__} ({type_id:#x})"
