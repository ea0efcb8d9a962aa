# Direct delivery: handlers that run inside publish, on the publishing thread.
#
# A direct handler may publish. What it publishes is handed to direct handlers when the event at hand has been handed to
# all of them: every handler sees the events in one order, and no chain of events fills the stack. So a thread that is
# delivering has a list of what is to follow; that list is found through the thread.

cdef extern from *:
    """
    /* What this thread is at, for the handlers that it calls meanwhile: a delivery of a Core's, or the judging of
     * events of a pool's for a subscription; and what it was at before. Not on the stack: a handler may switch to
     * another greenlet, which has the same thread, and uses the same stack until it switches back. What began last
     * need not end first. */
    typedef struct place_t { void *of; void *at; PyObject *follow; struct place_t *outer; } place_t;
    typedef struct places { place_t *now; place_t first; } places;   /* first: mostly suffices, cannot fail */
    static _Thread_local places deliveries, judgings;
    /* Not inline: to find a thread's variable takes a call, which compilers make again for each use of the address. */
    #if defined(_MSC_VER)
    #define NOT_INLINE __declspec(noinline)
    #else
    #define NOT_INLINE __attribute__((noinline))
    #endif
    static NOT_INLINE places *thread_deliveries(void) { return &deliveries; }
    static NOT_INLINE places *thread_judgings(void) { return &judgings; }
    static inline place_t *find_place(const places *all, const void *of)
    {
        place_t *at = all->now;
        while (at != NULL && at->of != of) at = at->outer;
        return at;
    }
    static inline uint32_t count_places(const places *all, const void *of, const void *at)
    {
        uint32_t count = 0;
        for (const place_t *place = all->now; place != NULL; place = place->outer)
            count += place->of == of && (at == NULL || place->at == at);
        return count;
    }
    static inline place_t *enter_place(places *all, void *of, void *at)
    {
        place_t *place = all->first.of == NULL ? &all->first : PyMem_Malloc(sizeof *place);
        if (place != NULL) {
            place->of = of;
            place->at = at;
            place->follow = NULL;
            place->outer = all->now;
            all->now = place;
        }
        return place;
    }
    static inline void leave_place(places *all, place_t *place)
    {
        place_t **at = &all->now;
        while (*at != place) at = &(*at)->outer;
        *at = place->outer;
        if (place == &all->first)
            place->of = NULL;
        else
            PyMem_Free(place);
    }
    """
    ctypedef struct place_t:
        PyObject *follow   # of a delivery: list of (subscriptions, event), owned, or NULL
    ctypedef struct places:
        pass
    places *thread_deliveries() nogil
    places *thread_judgings() nogil
    place_t *find_place(const places *all, const void *of) nogil
    uint32_t count_places(const places *all, const void *of, const void *at) nogil   # `at` NULL: any
    place_t *enter_place(places *all, void *of, void *at)
    void leave_place(places *all, place_t *place)


cdef inline bint is_delivering(PyObject *core) noexcept:
    """Whether this thread is inside a direct handler of the dispatcher."""
    return find_place(thread_deliveries(), <void *>core) != NULL


cdef deliver_direct(Core core, tuple subscriptions, event):
    """Calls the handlers, or has them called by the delivery that this thread is in already.

    Args:
        subscriptions: from Topic.take_direct. Those that are not called, for want of memory, are given back.

    Raises:
        BaseExceptionGroup: what the handlers have raised, by the dispatcher's choice; an ExceptionGroup where each is
            an Exception. `published` is 1: the event was.
        BaseException: what is the publisher's (is_publishers), the first of it that a handler has raised.
        Either when all handlers have run.
        MemoryError: none has run.
    """
    cdef places *deliveries = thread_deliveries()
    cdef place_t *now = find_place(deliveries, <void *>core)
    cdef list follow = None, raised = None   # made when there is something to put there
    cdef tuple later
    cdef Py_ssize_t at = 0, ended = 0
    cdef uint64_t taken_at = forks
    if now != NULL:
        try:
            if now.follow == NULL:
                follow = []
                Py_INCREF(<PyObject *>follow)
                now.follow = <PyObject *>follow
            (<list>now.follow).append((subscriptions, event, forks))
        except MemoryError:
            give_back(subscriptions, 0, forks)
            raise
        return
    now = enter_place(deliveries, <void *>core, NULL)
    if now == NULL:
        give_back(subscriptions, 0, forks)
        raise MemoryError
    try:
        raised = call_direct(core, subscriptions, event, taken_at, raised, &ended)
        while now.follow != NULL:
            follow = follow_of(now)
            at = 0
            while at < len(follow):
                later = <tuple>follow[at]
                at += 1
                subscriptions, taken_at = <tuple>later[0], later[2]
                raised = call_direct(core, subscriptions, later[1], taken_at, raised, &ended)
    except BaseException:   # no memory to keep what a handler has raised
        give_back(subscriptions, ended, taken_at)
        if follow is not None:
            give_back_all(follow, at)
        if now.follow != NULL:
            give_back_all(follow_of(now), 0)
        leave_place(deliveries, now)
        raise
    leave_place(deliveries, now)
    if raised is not None:
        for first, _, _ in raised:
            if is_publishers(first):
                break
        else:   # an ExceptionGroup, where each of them is an Exception
            handlers = "1 direct handler" if len(raised) == 1 else f"{len(raised)} direct handlers"
            group = BaseExceptionGroup(f"{handlers} failed", [exception for exception, _, _ in raised])
            group.published = 1
            raise group
        for exception, failed_on, sub in raised:   # the publisher gets one only; the others are not to be lost
            if exception is not first:
                report(core, exception, failed_on, <Subscription>sub)
        raise first


cdef list follow_of(place_t *now):
    follow = <list>now.follow
    Py_DECREF(now.follow)
    now.follow = NULL
    return follow


cdef inline int64_t sample_call(rc_member *member) noexcept nogil:
    """Returns the time if this call is one of those that are timed, else 0: two looks at the clock take as long as a
    quick handler does. Several threads may be here."""
    cdef uint64_t calls = rc_u64_load(&member.calls)
    return rc_clock_now() if calls % TIMED == 0 and member.topic.timing else 0


cdef uint64_t forks = 0   # by which this process came about, counted once for each dispatcher


cdef inline void end_direct(Subscription sub) noexcept:
    """After the end of a call was counted, or that there will be none: retires it if it was its last."""
    # seq: after what was counted, with the end that a cancel moves before its look at that
    if rc_u64_load_seq(&sub.c.end) != RC_NEVER and rc_member_is_over(&sub.c):
        sub.retire()


cdef inline void count_direct(Subscription sub, uint64_t taken_at) noexcept:
    """Counts the end of a call. `taken_at`: see call_direct."""
    if taken_at != forks:
        rc_u64_count(&sub.c.handed_out, 1)
    rc_u64_add_seq(&sub.c.calls, 1)
    end_direct(sub)


cdef void give_back(tuple subscriptions, Py_ssize_t first, uint64_t taken_at) noexcept:
    """Says of those from the number `first` on that they are not called with the event that Topic.take_direct has taken
    for them. `taken_at`: see call_direct."""
    cdef Subscription sub
    cdef Py_ssize_t at
    for at in range(first, len(subscriptions)):
        sub = <Subscription>subscriptions[at]
        if taken_at == forks:
            rc_u64_add_seq(&sub.c.handed_out, <uint64_t>-1)
        end_direct(sub)


cdef void give_back_all(list follow, Py_ssize_t first) noexcept:
    """The same of those of what was to follow, from the number `first` on."""
    cdef Py_ssize_t at
    for at in range(first, len(follow)):
        give_back(<tuple>(<tuple>follow[at])[0], 0, (<tuple>follow[at])[2])


cdef list call_direct(Core core, tuple subscriptions, event, uint64_t taken_at, list raised, Py_ssize_t *ended):
    """Calls the handlers. Returns what was raised and is for the publisher, with what was before: a list of (exception,
    event, Subscription).

    Args:
        taken_at: `forks` when they were taken. In the child of a handler that forks, and goes on there, nobody waits
            for what it was at: see disown_direct.
        ended: is set to the number of subscriptions with which this is through, also where it raises.
    """
    cdef PyObject *arguments[2]
    cdef PyObject *result
    cdef Subscription sub
    cdef int64_t started
    arguments[1] = <PyObject *>event
    ended[0] = 0
    for sub in subscriptions:
        if rc_u32_load(&sub.c.discarded):   # perhaps by a handler before it
            rc_u64_count(&sub.c.abandoned, 1)
        else:
            started = sample_call(&sub.c)
            result = sub.call(sub.callee, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
            if started != 0:
                rc_u64_count(&sub.c.time, <uint64_t>(rc_clock_now() - started))
                rc_u64_count(&sub.c.timed, 1)
            if result == PYTHON_NONE:   # mostly
                Py_DECREF(result)
            else:
                result = checked(&sub.c, result)
                if result == NULL:
                    raised = after_failure(core, sub, event, raised)
                else:
                    Py_DECREF(result)
        count_direct(sub, taken_at)
        ended[0] += 1
    return raised


cdef bint is_publishers(exception) except -1:
    """Whether it is for the thread or greenlet that publishes, whatever that has called: to end it, or its wait. A
    CancelledError is not: it is of what the handler waited for, and not of the publisher's task."""
    if isinstance(exception, Exception):
        return False
    if isinstance(exception, (KeyboardInterrupt, SystemExit)):
        return True
    for module, name in (("greenlet", "GreenletExit"), ("gevent.timeout", "Timeout"), ("eventlet.timeout", "Timeout")):
        loaded = get_or_none(sys.modules, module)
        if loaded is not None and isinstance(exception, getattr(loaded, name, ())):
            return True
    return False


cdef list after_failure(Core core, Subscription sub, event, list raised):
    """Reports what a handler has just raised, or adds it to what is for the publisher. Returns that, as call_direct."""
    rc_u64_count(&sub.c.failures, 1)
    try:
        raise_current()
    except BaseException as exception:
        if not core.raises and not is_publishers(exception):
            report(core, exception, event, sub)
        elif raised is None:
            raised = [(exception, event, sub)]
        else:
            raised.append((exception, event, sub))
    return raised
