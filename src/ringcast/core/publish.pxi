# Publish: claim a slot, store the event, schedule the topic.

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
    """Has the topic's task, or the lane of one of its subscriptions, run if it is idle."""
    if rc_task_now(task) != RC_IDLE:
        return
    if task.kind == RC_TOPIC and rc_u32_load(&topic.pooled) == 0:
        run_here(topic)
        return
    if task.kind == RC_LANE and (<subscription_t *>task.owner).mode == LOOP:
        wake_consumer(owner)
        return
    Py_INCREF(topic.core)   # before it is queued: the worker may be done with it at once
    Py_INCREF(owner)
    if not rc_pool_schedule(topic.pool, task):   # another thread did, or all is delivered and the workers are gone
        Py_DECREF(owner)
        Py_DECREF(topic.core)


cdef void run_here(topic_t *c) noexcept with gil:
    """Runs a topic none of whose subscriptions needs a worker, in the thread that has something for it: what there is
    to do is to wake event loops. The caller holds a reference to the Core."""
    cdef Topic topic = <Topic>c.topic
    cdef Subscription sub
    cdef uint64_t end
    while rc_pool_acquire(c.pool, &c.task):
        end = find_events(c)
        for sub in topic.members():
            if rc_task_now(&sub.c.lane) == RC_IDLE and sub.has_work(end):
                schedule(c, &sub.c.lane, <PyObject *>sub)
        advance(topic)
        rc_task_release(&c.task, RC_IDLE)
        rc_pool_unhold(c.pool)
        if not topic.has_work():
            break
        if rc_u32_load(&c.pooled) != 0:   # another subscription has come, which does need one
            schedule(c, &c.task, c.topic)
            break


cdef void wake_consumer(PyObject *owner) noexcept with gil:
    """Tells an event loop that there are events, once for as long as it has not taken them all."""
    cdef Subscription sub = <Subscription>owner
    if not rc_pool_acquire(sub.c.topic.pool, &sub.c.lane):
        return
    Py_INCREF(sub.c.topic.core)   # the lane's token: nothing is freed before its consumer rests
    Py_INCREF(owner)
    try:
        sub.waker()
    except BaseException as exception:   # the loop is closed
        sub._abandon(exception)
