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
    """Queues the topic's task or the lane of one of its subscriptions, if it is idle."""
    if rc_task_now(task) != RC_IDLE:
        return
    Py_INCREF(topic.core)   # before it is queued: the worker may be done with it at once
    Py_INCREF(owner)
    if not rc_pool_schedule(topic.pool, task):   # another thread did, or all is delivered and the workers are gone
        Py_DECREF(owner)
        Py_DECREF(topic.core)
