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
    if sub.picky:
        absorb_picked(sub)
        return
    while True:
        rc_mutex_lock(&sub.mail.mutex)
        begin = cursor = rc_u64_load(&sub.cursor)
        end = find_end(sub, cursor, BATCH)
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


cdef inline uint64_t find_end(subscription_t *sub, uint64_t cursor, uint64_t most) noexcept nogil:
    """The end of what has been published for it, from its cursor on. Under its mailbox's mutex."""
    cdef uint64_t end = rc_u64_load(&sub.end)
    if cursor >= end:   # its place in the ring is not kept any more
        return cursor
    return rc_ring_published(&sub.topic.ring, cursor, min(most, end - cursor))


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


# --- with a `where` or a `key` ---

@cython.final
cdef class Latest:
    """The newest event of one key."""
    cdef object event
    cdef uint64_t missed   # events of the key that it has replaced


cdef void absorb_picked(subscription_t *c) noexcept with gil:
    """The same where the user's code says what goes to the mailbox. That code may take long, raise, and publish: so no
    C lock is held while it runs, and a thread that finds another one here does not wait for long: it looks again
    later, as it does where there is no room."""
    cdef Subscription sub = <Subscription>c.subscription
    cdef bint picked = False
    core = sub.core_reference()
    if core is None or not sub.picking.acquire(timeout=PICK_SECONDS):
        return
    try:
        while pick_next(sub, <Core>core):
            picked = True
    finally:
        sub.picking.release()
    if picked:
        schedule(c.topic, &c.topic.task, c.topic.topic)   # whoever looked meanwhile has found nothing


cdef bint pick_next(Subscription sub, Core core):
    """Takes the next event out of the ring, if there is one."""
    cdef subscription_t *c = &sub.c
    cdef PyObject *raw = NULL
    cdef uint64_t cursor
    rc_mutex_lock(&c.mail.mutex)
    cursor = rc_u64_load(&c.cursor)
    if cursor < find_end(c, cursor, 1):
        raw = <PyObject *>rc_slot_event(rc_ring_slot(&c.topic.ring, cursor))
        Py_INCREF(raw)
        rc_u64_store_seq(&c.cursor, cursor + 1)
    rc_mutex_unlock(&c.mail.mutex)
    if raw == NULL:
        return False
    event = <object>raw
    Py_DECREF(raw)
    try:
        if sub.where is not None and not sub.where(unwrapped(event)):
            rc_u64_count(&c.filtered_early, 1)
        elif c.by_key:
            put_by_key(sub, sub.key(unwrapped(event)), event)
        else:
            Py_INCREF(raw)
            rc_mutex_lock(&c.mail.mutex)
            raw = <PyObject *>rc_mail_put(c.mail, raw, c.policy != DROP_NEWEST)
            rc_mutex_unlock(&c.mail.mutex)
            if raw != NULL:
                rc_u64_count(&c.lost, 1)
                Py_DECREF(raw)
    except BaseException as exception:
        rc_u64_count(&c.lost, 1)
        rc_u64_count(&c.failures, 1)
        core._report_failure(exception, unwrapped(event), sub)
    return True


cdef put_by_key(Subscription sub, key, event):
    """Keeps the event as the newest of its key. A key keeps its place in the order of delivery."""
    cdef Latest latest
    with sub.keyed_lock:
        latest = sub.by_key.get(key)
        if latest is not None:
            rc_u64_count(&sub.c.lost, 1)
            latest.missed += 1
            latest.event = event
            return
        if <uint64_t>len(sub.by_key) == sub.c.max_queue:   # the key that has waited longest has to go
            sub.by_key.pop(next(iter(sub.by_key)))
            rc_u64_count(&sub.c.keyed, <uint64_t>-1)
            rc_u64_count(&sub.c.lost, 1)
        latest = Latest.__new__(Latest)
        latest.event = event
        sub.by_key[key] = latest
        rc_u64_count(&sub.c.keyed, 1)
        sub.c.high_water = max(sub.c.high_water, <uint64_t>len(sub.by_key))


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
