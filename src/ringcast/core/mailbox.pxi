# Mailboxes: subscriptions whose policy drops events rather than to hold up a publisher.
#
# Their cursor never holds the gate back for long: whoever needs room, or an event, has what the ring holds moved to the
# mailbox. That is done before each event that is taken out, so the policy decides as if it stood at `publish`: what
# has been published since is judged by what was waiting then.

cdef void absorb(subscription_t *sub) noexcept nogil:
    """Moves the events that the ring has for the subscription to its mailbox. Any thread."""
    cdef rc_ring *ring = &sub.topic.ring
    cdef PyObject *dropped[BATCH]
    cdef PyObject *event
    cdef uint64_t begin, cursor, end, count, at
    if sub.by_key:
        absorb_by_key(sub)
        return
    while True:
        rc_mutex_lock(&sub.mail.mutex)
        begin = cursor = rc_u64_load(&sub.cursor)
        end = min(rc_u64_load(&sub.end), rc_ring_published(ring, cursor, BATCH))
        count = 0
        while cursor < end:
            event = <PyObject *>rc_slot_event(rc_ring_slot(ring, cursor))
            Py_INCREF(event)   # the cursor keeps it in the ring until here
            cursor += 1
            event = <PyObject *>rc_mail_put(sub.mail, event, sub.policy != DROP_NEWEST)
            if event != NULL:
                dropped[count] = event
                count += 1
        rc_u64_store_seq(&sub.cursor, cursor)   # seq: after the size of the mailbox, for has_events
        rc_u64_count(&sub.lost, count)
        rc_mutex_unlock(&sub.mail.mutex)
        for at in range(count):   # not under the mutex: the last reference runs finalizers
            Py_DECREF(dropped[at])
        if cursor - begin < BATCH:
            break


cdef PyObject *take_mail(subscription_t *sub) noexcept nogil:
    """The next event for the handler, with a reference, or NULL. For whoever runs the subscription."""
    cdef PyObject *event
    cdef uint64_t missed = 0
    absorb(sub)
    if sub.by_key:
        return take_by_key(sub)
    rc_mutex_lock(&sub.mail.mutex)
    event = <PyObject *>rc_mail_take(sub.mail, &missed)
    rc_mutex_unlock(&sub.mail.mutex)
    if event != NULL:
        rc_u64_store(&sub.lag, missed)
    return event


cdef void empty_mail(subscription_t *sub) noexcept nogil:
    """Drops what is waiting, after its end was set to its cursor. Any thread."""
    cdef PyObject *event = take_mail(sub)
    while event != NULL:
        rc_u64_count(&sub.lost, 1)
        Py_DECREF(event)
        event = take_mail(sub)


cdef inline uint64_t mail_size(subscription_t *sub) noexcept nogil:
    return rc_mail_size(sub.mail) + rc_u64_load_seq(&sub.keyed)


# --- the latest by key ---

@cython.final
cdef class Latest:
    """The newest event of one key."""
    cdef object event
    cdef uint64_t position   # in the ring
    cdef uint64_t missed     # events of the key that it has replaced


cdef void absorb_by_key(subscription_t *c) noexcept with gil:
    """`key` is the user's code: it may take long, raise, and publish. So no lock is held while it runs, and two threads
    may be here at once; what they find out is put in order by the events' positions."""
    cdef Subscription sub = <Subscription>c.subscription
    cdef uint64_t position
    cdef PyObject *raw
    core = sub.core_reference()
    if core is None:
        return
    while True:
        rc_mutex_lock(&c.mail.mutex)
        position = rc_u64_load(&c.cursor)
        raw = NULL
        if position < min(rc_u64_load(&c.end), rc_ring_published(&c.topic.ring, position, 1)):
            raw = <PyObject *>rc_slot_event(rc_ring_slot(&c.topic.ring, position))
            Py_INCREF(raw)
            rc_u64_store_seq(&c.cursor, position + 1)
        rc_mutex_unlock(&c.mail.mutex)
        if raw == NULL:
            return
        event = <object>raw
        Py_DECREF(raw)
        try:
            put_by_key(sub, sub.key(unwrapped(event)), event, position)
            schedule(c.topic, &c.topic.task, c.topic.topic)   # whoever looked meanwhile has found nothing
        except BaseException as exception:
            rc_u64_count(&c.lost, 1)
            rc_u64_count(&c.failures, 1)
            (<Core>core)._report_failure(exception, unwrapped(event), sub)


cdef put_by_key(Subscription sub, key, event, uint64_t position):
    """Keeps the event if it is the newest of its key. A key keeps its place in the order of delivery."""
    cdef Latest latest
    with sub.keyed_lock:
        latest = sub.by_key.get(key)
        if latest is None:
            if len(sub.by_key) == sub.c.max_queue:   # the key that has waited longest has to go
                sub.by_key.pop(next(iter(sub.by_key)))
                rc_u64_count(&sub.c.keyed, <uint64_t>-1)
                rc_u64_count(&sub.c.lost, 1)
            latest = Latest.__new__(Latest)
            sub.by_key[key] = latest
            rc_u64_count(&sub.c.keyed, 1)
        else:
            rc_u64_count(&sub.c.lost, 1)
            latest.missed += 1
            if position < latest.position:
                return
        latest.event = event
        latest.position = position


cdef PyObject *take_by_key(subscription_t *c) noexcept with gil:
    cdef Subscription sub = <Subscription>c.subscription
    cdef Latest latest
    with sub.keyed_lock:
        for key in sub.by_key:
            latest = sub.by_key.pop(key)
            break
        else:
            return NULL
    rc_u64_count(&c.keyed, <uint64_t>-1)
    rc_u64_store(&c.lag, latest.missed)
    Py_INCREF(<PyObject *>latest.event)
    return <PyObject *>latest.event
