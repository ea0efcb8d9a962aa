# Direct delivery: handlers that run inside publish, on the publishing thread.
#
# A direct handler may publish. What it publishes is handed to direct handlers when the event at hand has been handed to
# all of them: every handler sees the events in one order, and no chain of events fills the stack. So a thread that is
# delivering has a list of what is to follow; that list is found through the thread.

cdef extern from *:
    """
    /* A delivery that is under way in this thread, and the one that it is inside of (of another dispatcher). */
    typedef struct rc_direct { PyObject *core; PyObject *follow; struct rc_direct *outer; } rc_direct;
    static _Thread_local rc_direct *rc_direct_now;
    static inline rc_direct *rc_direct_get(void) { return rc_direct_now; }
    static inline void rc_direct_set(rc_direct *now) { rc_direct_now = now; }
    """
    ctypedef struct rc_direct:
        PyObject *core
        PyObject *follow   # list of (subscriptions, event), owned, or NULL
        rc_direct *outer
    rc_direct *rc_direct_get() nogil
    void rc_direct_set(rc_direct *now) nogil


cdef deliver_direct(Core core, tuple subscriptions, event):
    """Calls the handlers, or has them called by the delivery that this thread is in already.

    Raises:
        ExceptionGroup: what the handlers have raised, by the dispatcher's choice. `published` is 1: the event was.
        BaseException: what is no Exception (KeyboardInterrupt, SystemExit), the first of them.
        Either when all handlers have run.
    """
    cdef rc_direct *outer = rc_direct_get()
    cdef rc_direct *at = outer
    cdef rc_direct now
    cdef list follow, raised = None   # made when there is something to put there
    while at != NULL:
        if at.core == <PyObject *>core:
            if at.follow == NULL:
                follow = []
                Py_INCREF(<PyObject *>follow)
                at.follow = <PyObject *>follow
            (<list>at.follow).append((subscriptions, event))
            return
        at = at.outer
    now.core = <PyObject *>core
    now.follow = NULL
    now.outer = outer
    rc_direct_set(&now)
    try:
        raised = call_direct(core, subscriptions, event, raised)
        while now.follow != NULL:
            follow = <list>now.follow
            Py_DECREF(now.follow)
            now.follow = NULL
            for later in follow:
                raised = call_direct(core, <tuple>later[0], later[1], raised)
    finally:
        rc_direct_set(outer)
    if raised is not None:
        for first, _, _ in raised:
            if not isinstance(first, Exception):
                break
        else:
            group = ExceptionGroup(f"{len(raised)} direct handlers failed", [exception for exception, _, _ in raised])
            group.published = 1
            raise group
        for exception, failed_on, sub in raised:   # the publisher gets one only; the others are not to be lost
            if exception is not first:
                report(core, exception, failed_on, <Subscription>sub)
        raise first


cdef inline int64_t sample_call(subscription_t *sub) noexcept nogil:
    """Returns the time if this call is one of those that are timed, else 0: two looks at the clock take as long as a
    quick handler does. Several threads may be here."""
    cdef uint64_t calls = rc_u64_load(&sub.calls)
    return rc_clock_now() if calls % TIMED == 0 and sub.topic.timing else 0


cdef list call_direct(Core core, tuple subscriptions, event, list raised):
    """Calls the handlers. Returns what was raised and is for the publisher, with what was before: a list of (exception,
    event, Subscription)."""
    cdef PyObject *arguments[2]
    cdef PyObject *result
    cdef Subscription sub
    cdef int64_t started
    arguments[1] = <PyObject *>event
    for sub in subscriptions:
        if rc_u32_load(&sub.c.discarded):   # perhaps by a handler before it
            rc_u64_count(&sub.c.unheard, 1)
            continue
        started = sample_call(&sub.c)
        result = sub.c.call(sub.c.callee, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if started != 0:
            rc_u64_count(&sub.c.time, <uint64_t>(rc_clock_now() - started))
            rc_u64_count(&sub.c.timed, 1)
        rc_u64_count(&sub.c.calls, 1)
        if result != NULL:
            Py_DECREF(result)
            continue
        rc_u64_count(&sub.c.failures, 1)
        try:
            raise_current()
        except BaseException as exception:
            if isinstance(exception, Exception) and not core.raises:
                report(core, exception, event, sub)
            elif raised is None:
                raised = [(exception, event, sub)]
            else:
                raised.append((exception, event, sub))
    return raised
