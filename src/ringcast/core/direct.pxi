# Direct delivery: handlers that run inside publish, on the publishing thread.
#
# A direct handler may publish. What it publishes is handed to direct handlers when the event at hand has been handed to
# all of them: every handler sees the events in one order, and no chain of events fills the stack. So a thread that is
# delivering has a list of what is to follow; that list is found through the thread.

cdef extern from *:
    """
    /* What this thread is at, for the handlers that it calls meanwhile: a delivery of a Core's, or the picking of
     * events of a pool's; and what it was at before. Not on the stack: a handler may switch to another greenlet, which
     * has the same thread, and uses the same stack until it switches back. What began last need not end first. */
    typedef struct rc_place { void *of; PyObject *follow; struct rc_place *outer; } rc_place;
    typedef struct rc_places { rc_place *now; rc_place first; } rc_places;   /* first: mostly suffices, cannot fail */
    static _Thread_local rc_places deliveries, pickings;
    /* Not inline: to find a thread's variable takes a call, which compilers make again for each use of the address. */
    #if defined(_MSC_VER)
    #define RC_NOINLINE __declspec(noinline)
    #else
    #define RC_NOINLINE __attribute__((noinline))
    #endif
    static RC_NOINLINE rc_places *rc_deliveries(void) { return &deliveries; }
    static RC_NOINLINE rc_places *rc_pickings(void) { return &pickings; }
    static inline rc_place *rc_place_find(const rc_places *all, const void *of)
    {
        rc_place *at = all->now;
        while (at != NULL && at->of != of) at = at->outer;
        return at;
    }
    static inline rc_place *rc_place_enter(rc_places *all, void *of)
    {
        rc_place *place = all->first.of == NULL ? &all->first : PyMem_Malloc(sizeof *place);
        if (place != NULL) {
            place->of = of;
            place->follow = NULL;
            place->outer = all->now;
            all->now = place;
        }
        return place;
    }
    static inline void rc_place_leave(rc_places *all, rc_place *place)
    {
        rc_place **at = &all->now;
        while (*at != place) at = &(*at)->outer;
        *at = place->outer;
        if (place == &all->first)
            place->of = NULL;
        else
            PyMem_Free(place);
    }
    """
    ctypedef struct rc_place:
        PyObject *follow   # of a delivery: list of (subscriptions, event), owned, or NULL
    ctypedef struct rc_places:
        pass
    rc_places *rc_deliveries() nogil
    rc_places *rc_pickings() nogil
    rc_place *rc_place_find(const rc_places *all, const void *of) nogil
    rc_place *rc_place_enter(rc_places *all, void *of)
    void rc_place_leave(rc_places *all, rc_place *place)


cdef inline bint is_delivering(PyObject *core) noexcept:
    """Whether this thread is inside a direct handler of the dispatcher."""
    return rc_place_find(rc_deliveries(), <void *>core) != NULL


cdef deliver_direct(Core core, tuple subscriptions, event):
    """Calls the handlers, or has them called by the delivery that this thread is in already.

    Raises:
        ExceptionGroup: what the handlers have raised, by the dispatcher's choice. `published` is 1: the event was.
        BaseException: what is no Exception (KeyboardInterrupt, SystemExit), the first of them.
        Either when all handlers have run.
        MemoryError: none has run.
    """
    cdef rc_places *deliveries = rc_deliveries()
    cdef rc_place *now = rc_place_find(deliveries, <void *>core)
    cdef list follow, raised = None   # made when there is something to put there
    if now != NULL:
        if now.follow == NULL:
            follow = []
            Py_INCREF(<PyObject *>follow)
            now.follow = <PyObject *>follow
        (<list>now.follow).append((subscriptions, event))
        return
    now = rc_place_enter(deliveries, <void *>core)
    if now == NULL:
        raise MemoryError
    try:
        raised = call_direct(core, subscriptions, event, raised)
        while now.follow != NULL:
            follow = <list>now.follow
            Py_DECREF(now.follow)
            now.follow = NULL
            for later in follow:
                raised = call_direct(core, <tuple>later[0], later[1], raised)
    finally:
        rc_place_leave(deliveries, now)
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
