# Fork: what becomes of a dispatcher in the child.
#
# In the child there is no thread but the one that called fork. Subscriptions stay. Events that are waiting belong to
# the parent, which delivers them: the child drops and counts them. It does not release them, and neither what the
# parent's threads had in their hands: an object whose finalizer deletes a file or says goodbye over a connection would
# do so for the parent, which still needs both. So these references are kept for good, as Python keeps those of the
# other threads' frames. Workers start again at the first publish that needs them.
#
# A thread that is not in the child may have held any mutex of csrc/: the pools' (which workers take detached), a
# topic's, a mailbox's, a registry's. So each of these is initialised again, and so is each park. The Core's lock is
# held across the fork, so that what it guards is whole.
#
# The one thread may be a worker: a handler has forked. It keeps its task and, where it has one in hand, its event, and
# finds out when the handler returns (rc_deliver).

cdef double FORK_SECONDS = 1.0   # how long a fork waits for a thread that subscribes


def before_fork(Core core):
    """Before a fork, in the thread that calls it. Returns what the two below are told."""
    return core.lock.acquire(timeout=FORK_SECONDS)


def after_fork_in_parent(Core core, bint locked):
    if locked:
        core.lock.release()


def after_fork_in_child(Core core, bint locked):
    global forks
    cdef rc_worker *worker
    forks += 1
    if not locked:   # its holder is not here any more
        core.lock = threading.RLock()
        core.lock.acquire()
    try:
        rc_mutex_init(&core.by_class.writers)
        rc_mutex_init(&core.by_id.writers)
        for route in core.routes.values():
            rc_mutex_init(&(<Route>route).c.lock)
        if core.native_pool is None:   # it was just being made
            return
        rc_pool_after_fork(&core.pool.c)
        rc_pool_after_fork(&core.native_pool.c)
        for _ in range(count_places(thread_judgings(), &core.pool.c, NULL)):   # `where` or `key` has forked: it goes on
            rc_pool_hold(&core.pool.c)
        keep_for_good(core.room_waiters)   # for event loops of the parent
        core.room_waiters = {}
        keep_for_good(core.pool.listeners)   # the same
        core.pool.listeners = []
        core.pool.listeners_lock = threading.RLock()
        rc_u32_store(&core.pool.listening, 0)
        rc_mutex_init(&core.pool.entrance)
        rc_mutex_init(&core.native_pool.entrance)
        core.native_pool.threads = []
        core.native_pool.threads_lock = threading.RLock()
        core.pool.threads_lock = threading.RLock()
        rc_u32_store(&core.native_pool.watched, 0)
        rc_u32_store(&core.pool.watched, 0)
        worker = rc_pool_current(&core.pool.c)
        core.pool.threads = [] if worker == NULL else [threading.current_thread()]
        rc_u32_store(&core.sharing, 0)
        core.starting = threading.Lock()
        for topic in core.all_topics():
            disown_topic(<Topic>topic, worker)
            disown_direct(<Topic>topic, is_delivering(<PyObject *>core))
    finally:
        core.lock.release()


cdef disown_topic(Topic topic, rc_worker *worker):
    """Leaves what is waiting to the parent. `worker` is what this thread is, or NULL."""
    cdef rc_topic *c = topic.c
    cdef uint64_t tail = rc_ring_tail(&c.ring), cursor
    cdef Subscription sub
    cdef Subscription here = None   # whose handler has forked
    cdef uint64_t in_hand = 0   # how many events of the ring it has
    cdef uint64_t holding = 0   # how many of them stay there: one, that is handed over as it is
    cdef PyObject *event = NULL
    rc_mutex_init(&c.lock)
    rc_u32_store(&c.joining, 0)
    for sub in topic.members():
        if worker != NULL and rc_turn_running(worker) and worker.lane == &sub.c.lane:
            here = sub
            cursor = rc_u64_load(&sub.c.cursor)
            if sub.c.mail == NULL and cursor < tail:
                in_hand = rc_u32_load(&sub.c.running)
            if in_hand and sub.c.batch == 0 and c.ring.record_size == 0:
                holding = 1
                event = <PyObject *>rc_slot_event(rc_ring_slot(&c.ring, cursor))
    for sub in topic.members():
        disown_subscription(sub, tail, sub is here, in_hand if sub is here else 0, holding if sub is here else 0)
    if c.ring.record_size == 0:
        rc_ring_abandon(&c.ring, event)
    else:
        rc_record_abandon(&c.ring)
        rc_task_release(&c.native_task, RC_IDLE)
        rc_u64_store(&c.native_seen, tail)
    rc_u64_store(&c.found_end, tail)
    rc_u64_store(&c.host_seen, tail)
    c.disowned = tail
    if worker == NULL or worker.task != &c.task:
        rc_task_release(&c.task, RC_IDLE)
    rc_u32_store(&c.room_waiters, 0)
    for sub in topic.members():
        if worker == NULL or worker.task != &sub.c.lane:
            is_shared = sub.c.mode != RC_LOOP and sub.runs_in is None
            rc_task_release(&sub.c.lane, RC_SHARED if is_shared else RC_IDLE)
        if sub is not here and rc_member_is_over(&sub.c):
            sub.retire()
    rc_mutex_lock(&c.lock)
    rc_topic_set_quick_reply(c)
    rc_mutex_unlock(&c.lock)


cdef disown_direct(Topic topic, bint here):
    """Leaves to the parent what its threads have in hand for direct handlers, and counts that as dropped. `here`: one
    of these handlers has forked, and goes on in the child. Which of the events are its own is not known: then nothing
    is counted, and nobody waits for it, as whoever could is inside."""
    cdef Subscription sub
    cdef uint64_t in_hands, tail = rc_ring_tail(&topic.c.ring)
    for sub in topic.direct_members():
        if rc_u32_load(&sub.c.once_used):   # whoever was to cancel it may not be here any more
            sub.cancel_for(True)
    for sub in topic.direct_members() + topic.ending_members():
        in_hands = rc_member_unfinished(&sub.c)
        if here:
            rc_u64_store(&sub.c.handed_out, rc_u64_load(&sub.c.calls))
        else:
            rc_u64_count(&sub.c.abandoned, in_hands)
            rc_u64_count(&sub.c.calls, in_hands)
    for sub in topic.ending_members():
        rc_u64_store(&sub.c.end, min(tail, rc_u64_load(&sub.c.end)))   # else its cancel has just begun
        rc_u32_store(&sub.c.retired, 1)   # not `retire`: what it would let go of is not held here
    topic.ending = ()


cdef disown_subscription(Subscription sub, uint64_t tail, bint here, uint64_t in_hand, uint64_t holding):
    """Moves the cursor past what is waiting, or to the event in hand, which is now the last one in the ring, and counts
    what it has passed as dropped. `here`: its handler has forked, with `in_hand` events of the ring, of which `holding`
    stay there."""
    cdef rc_member *member = &sub.c
    cdef uint64_t cursor = rc_u64_load(&member.cursor), end = min(tail, rc_u64_load(&member.end)), missed = 0
    cdef uint64_t dropped = 0, delivered = 0, in_hands, waiting = end - cursor if end > cursor else 0
    cdef bint cancelled = rc_u64_load(&member.end) != RC_NEVER
    # this thread does, and goes on with that
    cdef bint judges = count_places(thread_judgings(), member.topic.pool, member) != 0
    if cancelled and rc_u64_load(&member.end) != rc_u64_load(&member.cancelled_at):   # these were dropped before
        dropped = rc_u64_load(&member.cancelled_at) - max(cursor, end)
    # its event loop is the parent's; or whoever was to cancel it, after its one event, is not here any more
    if not cancelled and (member.mode == RC_LOOP or (rc_u32_load(&member.once_used) and not here)):
        cancelled = True
        rc_topic_ended(member.topic)
    if member.mail != NULL:
        rc_mutex_init(&member.mail.mutex)
        while rc_mail_take(member.mail, &missed) != NULL:
            waiting += 1
        waiting += rc_u64_load(&member.keyed)
        rc_u64_store(&member.keyed, 0)
        if member.is_judged and not judges:   # perhaps another thread did, which is not here any more
            waiting += rc_u32_load(&member.being_judged)
            rc_u32_store(&member.being_judged, 0)
            rc_u32_store(&member.judging_lasts, 0)
            sub.judging = threading.Lock()
        if member.by_key:
            keep_for_good(sub.by_key)
            sub.by_key = {}
            sub.keyed_lock = threading.RLock()
        rc_u64_count(&member.lost, dropped + waiting)
    elif member.mode == RC_LOOP:
        rc_u64_count(&member.abandoned, dropped + waiting)
        rc_u64_count(&member.calls, dropped + waiting)
        rc_u64_count(&member.handed_out, dropped + waiting)
    if member.mail != NULL or member.mode == RC_LOOP:
        in_hands = rc_member_unfinished(&sub.c)
        if here:   # all of them are this worker's: those its handler has, or those of which it makes a batch
            in_hands = 0
        rc_u64_count(&member.abandoned, in_hands)
        rc_u64_count(&member.calls, in_hands)
        rc_u64_store(&member.cursor, tail)
    else:   # its numbers go by the cursor
        delivered = sub.delivered
        rc_u64_count(&member.abandoned, dropped + waiting - in_hand)
        rc_u64_store(&member.cursor, tail - holding)
        rc_u64_store(&member.start, tail - holding - delivered - rc_u64_load(&member.abandoned))
    if cancelled:
        rc_u64_store(&member.cancelled_at, tail)
        rc_u64_store(&member.end, tail)
    if not here:   # in the parent a worker, or another thread, may have been at it
        rc_u32_store(&member.running, 0)
        if sub.context is not None:   # that thread is still in the context, and does not leave it here
            sub.context = sub.context.copy()
    member.heat = 0
    if member.mode == RC_LOOP:   # not released: the loop's tasks and the handlers in them would be ended by that
        sub.orphaned = True
        keep_for_good(sub.waker)
        sub.waker = None


cdef keep_for_good(what):
    Py_INCREF(<PyObject *>what)
