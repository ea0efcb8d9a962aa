# Publish: claim a slot, store the event, schedule the topic.
#
# Whoever stores an event takes a reference to it, and a token owns references (see _core.pyx): so all this is for
# attached threads. Records are bytes: a thread that is not attached may store these (store_records) and wake those who
# wait for them (wake_detached).

cdef inline uint32_t subscribers_of(rc_topic *c) noexcept nogil:
    """How many subscriptions an event reaches that is published now. Where one is just being added, after that: a
    thread whose last event, claimed in view of a subscriber that was there before, is the first for the new one has to
    find it for its next event, too."""
    if rc_u32_load(&c.joining) != 0:   # before the look at the count, which is there when this is 0 again
        rc_mutex_lock(&c.lock)
        rc_mutex_unlock(&c.lock)
    return rc_u32_load(&c.subscribers)


cdef inline rc_claim try_publish(rc_topic *topic, PyObject *event, uint64_t limit) noexcept:
    cdef rc_claim claim = put(topic, event, limit)
    if claim == RC_CLAIMED:
        wake(topic)
    return claim


cdef inline rc_claim put(rc_topic *topic, PyObject *event, uint64_t limit) noexcept:
    """Claims a slot and stores the event in it; the caller has to wake the topic."""
    cdef rc_slot *slot
    cdef rc_claim claim
    if topic.ring.record_size != 0:
        return put_record(topic, event, limit)
    claim = rc_ring_claim(&topic.ring, limit, &slot)
    if claim == RC_CLAIMED:
        rc_share(event)
        rc_ring_publish(slot, event)
    return claim


cdef inline void wake(rc_topic *topic) noexcept:
    """Has the topic's tasks run that are idle, after something was stored."""
    cdef bint idle
    if topic.ring.record_size != 0:
        idle = wake_natives(topic)
    else:
        idle = rc_task_now(&topic.task) == RC_IDLE
    if idle:
        schedule(topic, &topic.task, topic.host)


cdef rc_claim put_record(rc_topic *topic, PyObject *event, uint64_t limit) noexcept:
    cdef rc_run run
    cdef rc_claim claim = rc_ring_claim_run(&topic.ring, limit, 1, &run)
    if claim == RC_CLAIMED:
        rc_record_write(&run, (<Record>event).data, topic.ring.record_size)
        rc_record_publish(&run)
    return claim


cdef uint64_t try_publish_run(
    rc_topic *topic, PyObject **events, uint64_t count, uint64_t limit, rc_claim *claim
) noexcept:
    """Publishes the first of these events, as many as there is room for, with a claim for each run of free slots.
    Returns how many; *claim says why not all."""
    cdef rc_run run
    cdef rc_slot *slots
    cdef uint64_t done = 0, at
    claim[0] = RC_CLAIMED
    if topic.ring.record_size != 0:
        while done < count and claim[0] == RC_CLAIMED:
            claim[0] = try_publish(topic, events[done], limit)
            done += claim[0] == RC_CLAIMED
        return done
    while done < count:
        claim[0] = rc_ring_claim_run(&topic.ring, limit, count - done, &run)
        if claim[0] != RC_CLAIMED:
            break
        slots = rc_run_slots(&run)
        for at in range(run.count):
            rc_share(events[done + at])
            rc_ring_publish(&slots[at], events[done + at])
        done += run.count
        if rc_task_now(&topic.task) == RC_IDLE:
            schedule(topic, &topic.task, topic.host)
    return done


cdef uint64_t store_records(
    rc_topic *topic, const char *records, uint64_t count, uint64_t limit, rc_claim *claim
) noexcept nogil:
    """Stores the first of these records, which stand side by side, and wakes native handlers. Any thread, attached or
    not; the caller then has to wake the other ones. Returns how many; *claim says why not all."""
    cdef size_t size = topic.ring.record_size
    cdef rc_run run
    cdef uint64_t done = 0
    claim[0] = RC_CLAIMED
    while done < count:
        claim[0] = rc_ring_claim_run(&topic.ring, limit, count - done, &run)
        if claim[0] != RC_CLAIMED:
            break
        rc_record_write(&run, records + done * size, size)
        rc_record_publish(&run)
        done += run.count
        schedule_native(topic)
    return done


cdef bint wake_natives(rc_topic *topic) noexcept nogil:
    """Has the native subscriptions of a topic of records run. Returns whether there are others, and their task is idle.
    Any thread, attached or not."""
    schedule_native(topic)
    # seq: after the claim, with Topic.join. Either this sees the new member, or it begins after this run
    return rc_u32_load_seq(&topic.task.members) != 0 and rc_task_now(&topic.task) == RC_IDLE


cdef void wake_detached(rc_topic *topic) noexcept nogil:
    """As `wake`, for a publisher in C, on whose lease the topic and its Core live (see api_topic_new). A token that is
    made here owns nothing, because nothing may be counted here: it stands on the lease, until the worker that takes
    it takes its references (own_token), or the lease ends and leaves its own to it (api_topic_free)."""
    if not wake_natives(topic):
        return
    if has_workers(topic):
        rc_pool_schedule_lent(topic.pool, &topic.task)
    elif rc_u32_load(&topic.pooled) != 0 or has_idle_lane(topic):
        run_here_attaching(topic)


cdef void own_token(rc_topic *topic) noexcept:
    """Takes the references of a token that a publisher in C has made, for the worker that has taken it."""
    Py_INCREF(topic.bus)   # first: up to here the lease keeps both
    Py_INCREF(topic.host)
    if not rc_task_settle(&topic.task):   # the lease has just ended, and has left its own
        Py_DECREF(topic.host)
        Py_DECREF(topic.bus)


cdef inline bint has_workers(rc_topic *topic) noexcept nogil:
    """Whether one of its subscriptions runs on the pool's workers, and these are started."""
    return rc_u32_load(&topic.pooled) != 0 and rc_u32_load(&(<Core>topic.bus).started) != 0


cdef bint has_idle_lane(rc_topic *topic) noexcept nogil:
    """Whether an event loop is to be told of records: not while it is at what it was told of before."""
    cdef bint found = False
    cdef uint32_t at
    rc_mutex_lock(&topic.lock)
    for at in range(topic.cursor_count):
        found = found or (topic.cursors[at].mode == RC_LOOP and rc_task_now(&topic.cursors[at].lane) == RC_IDLE)
    rc_mutex_unlock(&topic.lock)
    return found


cdef void schedule(rc_topic *topic, rc_task *task, PyObject *owner) noexcept:
    """Has the topic's task, or the lane of one of its subscriptions, run if it is idle."""
    if rc_task_now(task) != RC_IDLE:
        return
    if task.kind == RC_TOPIC and not has_workers(topic):
        run_here(topic)
    elif task.kind == RC_LANE and (<rc_member *>task.owner).mode == RC_LOOP:
        wake_consumer(owner)
    else:
        enqueue(topic, task, owner)


cdef void enqueue(rc_topic *topic, rc_task *task, PyObject *owner) noexcept:
    """Gives a task to the workers."""
    rc_share(topic.bus)   # before it is queued: the worker may be done with it at once
    rc_share(owner)
    if not rc_pool_schedule(topic.pool, task):   # another thread did, or all is delivered and the workers are gone
        Py_DECREF(owner)
        Py_DECREF(topic.bus)


cdef void run_here_attaching(rc_topic *c) noexcept with gil:
    run_here(c)


cdef void run_here(rc_topic *c) noexcept:
    """Runs a topic in the thread that has something for it: none of its subscriptions needs a worker, or there are no
    workers yet. What there is to do is to wake event loops, and to start workers for the others if they have events.
    The caller holds a reference to the Core."""
    cdef Topic topic = <Topic>c.host
    cdef Subscription sub
    cdef uint64_t end
    while rc_pool_acquire(c.pool, &c.task):
        end = find_events(c)
        for sub in topic.members():
            if sub.c.mode != RC_NATIVE and rc_task_now(&sub.c.lane) == RC_IDLE and sub.has_work(end):
                schedule(c, &sub.c.lane, <PyObject *>sub)
        advance(topic)
        rc_task_release(&c.task, RC_IDLE)
        unhold(<Core>c.bus)
        if not topic.has_work():
            break
        if rc_u32_load(&c.pooled) != 0:
            start_workers(topic)
            enqueue(c, &c.task, c.host)
            break


cdef void start_workers(Topic topic) noexcept:
    """For those who did not publish themselves: publish starts them before it claims, and raises what comes of it."""
    try:
        (<Core>topic.c.bus).prepare(topic)
    except BaseException as exception:   # no more threads: whoever publishes next tries again
        set_aside(exception, "while starting workers")


cdef void wake_consumer(PyObject *owner) noexcept:
    """Tells an event loop that there are events, once for as long as it has not taken them all."""
    cdef Subscription sub = <Subscription>owner
    rc_share(sub.c.topic.bus)   # the lane's token: nothing is freed before its consumer rests, which may be at once
    rc_share(owner)
    if not rc_pool_acquire(sub.c.topic.pool, &sub.c.lane):
        Py_DECREF(owner)
        Py_DECREF(sub.c.topic.bus)
        return
    if rc_u32_load_seq(&sub.c.retired):   # seq: after the token was taken, with retire: one of the two gives it back
        sub.rest()
        return
    try:
        sub.waker()   # was set before the token was given back for the first time
    except BaseException as exception:
        sub.not_told(exception)
