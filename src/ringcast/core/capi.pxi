# The C API (include/ringcast.h): the table of functions that other extensions find in a capsule.

cdef extern from "ringcast.h" nogil:
    int RINGCAST_API_VERSION
    ctypedef struct ringcast_topic:
        pass
    ctypedef enum ringcast_status:
        RINGCAST_OK
        RINGCAST_FULL
        RINGCAST_CLOSED
        RINGCAST_NO_MEMORY
        RINGCAST_FAILED
    ctypedef struct ringcast_api:
        uint32_t version
        uint32_t size
        ringcast_topic *(*topic_new)(PyObject *dispatcher, PyObject *record_type) noexcept
        void (*topic_free)(ringcast_topic *topic) noexcept
        size_t (*record_size)(const ringcast_topic *topic) noexcept
        ringcast_status (*publish)(
            ringcast_topic *topic, const void *records, size_t count, int64_t timeout, size_t *published
        ) noexcept
        PyObject *(*subscribe)(
            PyObject *dispatcher, PyObject *record_type, rc_native_handler handler, void *userdata, PyObject *owner
        ) noexcept

cdef struct lease_t:     # what a ringcast_topic is: a lease on a topic and its Core. What is here are references
    PyObject *core
    PyObject *topic
    rc_topic *c               # the topic's

cdef enum:
    SPINS = 2000    # looks at the gate before a native publisher parks: about 20 us, longer than a reader's turn


cdef ringcast_topic *api_topic_new(PyObject *dispatcher, PyObject *record_type) except NULL with gil:
    cdef Core core
    cdef Topic found
    cdef lease_t *lease
    if not isinstance(<object>dispatcher, Core):
        raise TypeError(f"a Dispatcher is needed, not {type(<object>dispatcher).__name__}")
    core = <Core>dispatcher
    found = record_topic(core, <object>record_type)
    lease = <lease_t *>PyMem_RawMalloc(sizeof(lease_t))
    if lease == NULL:
        raise MemoryError
    lease.c = found.c
    lease.core = dispatcher
    lease.topic = <PyObject *>found
    share_reference(lease.core)
    share_reference(lease.topic)
    return <ringcast_topic *>lease


cdef void api_topic_free(ringcast_topic *topic) noexcept with gil:
    cdef lease_t *lease = <lease_t *>topic
    if lease == NULL:
        return
    rc_pool_pin(lease.c.pool)   # for a task that was scheduled on this lease
    Py_DECREF(lease.topic)
    Py_DECREF(lease.core)
    PyMem_RawFree(lease)


cdef size_t api_record_size(const ringcast_topic *topic) noexcept nogil:
    return (<lease_t *>topic).c.ring.record_size


cdef ringcast_status api_publish(
    ringcast_topic *topic, const void *records, size_t count, int64_t timeout, size_t *published
) noexcept nogil:
    cdef lease_t *lease = <lease_t *>topic
    cdef rc_topic *c = lease.c
    cdef const char *at = <const char *>records
    cdef size_t size = c.ring.record_size
    cdef int64_t deadline = -1 if timeout < 0 else rc_clock_now() + timeout
    cdef uint64_t done = 0, gate, limit
    cdef rc_claim claim = RC_CLAIMED
    cdef ringcast_status status = RINGCAST_OK
    while True:
        if rc_u32_load(&c.has_other_routes) != 0:   # also where that has come about while this waited
            status = publish_attached(lease, at + done * size, count - done, deadline, &done)
            break
        if subscribers_of(c) == 0:
            if rc_u32_load(&(<Core>lease.core).closing):
                status = RINGCAST_CLOSED
            else:
                done = count
            break
        gate = rc_ring_gate(&c.ring)
        limit = rc_u64_load(&c.limit)
        done += publish_detached(c, at + done * size, count - done, limit, &claim)
        if done == count:
            break
        if claim == RC_FULL and rc_pool_current(c.native_pool) != NULL:
            limit = c.ring.max_queue + c.ring.reserve   # a native handler: it may be what would make the room
            done += publish_detached(c, at + done * size, count - done, limit, &claim)
            if done == count:
                break
        if claim != RC_FULL or limit > c.ring.max_queue:
            status = RINGCAST_NO_MEMORY
            if claim == RC_CLOSED:
                status = RINGCAST_CLOSED
            elif claim == RC_FULL:
                status = RINGCAST_FULL
            break
        # who has what room is worked out with the subscriptions' own limits, and without those that have ended
        if rc_u32_load(&c.special_members) != 0 or rc_u32_load(&c.limited) != 0:
            status = publish_attached(lease, at + done * size, 1, deadline, &done)
            if status != RINGCAST_OK:
                break
        elif not await_room_detached(c, gate, deadline):
            status = RINGCAST_FULL
            break
    if published != NULL:
        published[0] = done
    return status


cdef uint64_t publish_detached(
    rc_topic *c, const char *records, uint64_t count, uint64_t limit, rc_claim *claim
) noexcept nogil:
    """Publishes the first of these records. Returns how many; *claim says why not all."""
    cdef uint64_t done = store_records(c, records, count, limit, claim)
    if done and rc_bus_wake_detached(c):
        wake_attached(c)
    return done


cdef void wake_attached(rc_topic *c) noexcept with gil:
    rc_bus_wake(c)


cdef bint await_room_detached(rc_topic *c, uint64_t gate, int64_t deadline) noexcept nogil:
    """Waits for the gate to move from `gate`, or a while. Returns False when the time is over."""
    cdef int64_t left = SLICE
    cdef int spins = 0
    while spins < SPINS and rc_ring_gate(&c.ring) == gate and (<Core>c.bus).native_pool.c.patience != 0:
        rc_cpu_relax()
        spins += 1
    if rc_ring_gate(&c.ring) != gate:
        return True
    if deadline >= 0:
        left = min(left, deadline - rc_clock_now())
        if left <= 0:
            return False
    rc_ring_await_gate(&c.ring, gate, left)
    return True


cdef ringcast_status publish_attached(
    lease_t *lease, const char *records, uint64_t count, int64_t deadline, uint64_t *done
) noexcept with gil:
    """Publishes records one by one as objects, as Python does: the way for all that is out of the ordinary."""
    cdef Core core = <Core>lease.core
    cdef Layout layout = (<Topic>lease.c.host).layout
    cdef ringcast_status status = RINGCAST_OK
    cdef uint64_t at
    for at in range(count):
        try:
            publish_event(
                core, new_record(layout, records + at * layout.size),
                -1 if deadline < 0 else max(0, deadline - rc_clock_now()),
            )
        except closed_error:
            return RINGCAST_CLOSED
        except (QueueFullError, PublishTimeoutError):
            return RINGCAST_FULL
        except MemoryError:
            return RINGCAST_NO_MEMORY
        except BaseException as exception:   # direct handlers: the others have had the record
            show_unraisable(exception, "in a direct handler, called by ringcast_publish")
            status = RINGCAST_FAILED
        done[0] += 1
    return status


cdef set_aside(exception, str where):
    """For what cannot be raised where it came up, as not only publish comes there: an interrupt is raised by the main
    thread as soon as it can be, anything else is shown."""
    if isinstance(exception, KeyboardInterrupt):
        PyErr_SetInterrupt()
    else:
        show_unraisable(exception, where)


cdef show_unraisable(exception, str where):
    """Has sys.unraisablehook show an exception, and `where` as its object."""
    write_unraisable(<PyObject *>exception, <PyObject *>where)


cdef PyObject *api_subscribe(
    PyObject *dispatcher, PyObject *record_type, rc_native_handler handler, void *userdata, PyObject *owner
) except NULL with gil:
    cdef object subscription
    if not isinstance(<object>dispatcher, Core):
        raise TypeError(f"a Dispatcher is needed, not {type(<object>dispatcher).__name__}")
    subscription = (<object>dispatcher).subscribe_native(
        <object>record_type, <uintptr_t>handler, None if userdata == NULL else <uintptr_t>userdata
    )
    (<Subscription>subscription).keeps = None if owner == NULL else <object>owner
    Py_INCREF(<PyObject *>subscription)
    return <PyObject *>subscription


cdef ringcast_api api
api.version = RINGCAST_API_VERSION
api.size = sizeof(ringcast_api)
api.topic_new = <ringcast_topic *(*)(PyObject *, PyObject *) noexcept>api_topic_new
api.topic_free = api_topic_free
api.record_size = api_record_size
api.publish = api_publish
api.subscribe = <PyObject *(*)(PyObject *, PyObject *, rc_native_handler, void *, PyObject *) noexcept>api_subscribe
_C_API = PyCapsule_New(&api, "ringcast._core._C_API", NULL)
