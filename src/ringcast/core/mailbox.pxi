# Mailboxes: subscriptions whose policy drops events rather than to hold up a publisher.
#
# Their cursor never holds the gate back for long: whoever needs room, or an event, has what the ring holds moved to the
# mailbox. That is done before each event that is taken out, so the policy decides as if it stood at `publish`: what
# has been published since is judged by what was waiting then.

cdef void absorb(rc_member *member) noexcept:
    """Moves the events that the ring has for the subscription to its mailbox. Any thread.

    What is published meanwhile is for the next look: else who only asks for a number would stay here for as long as
    others publish."""
    cdef rc_ring *ring = &member.topic.ring
    cdef uint64_t last = RC_NEVER   # not known yet
    cdef PyObject *dropped[BATCH]
    cdef PyObject *event
    cdef uint64_t begin, cursor, end, count, at
    if member.is_judged:
        absorb_judged(member, rc_ring_tail(ring), JUDGE_SECONDS, None)
        return
    if member.topic.ring.record_size != 0:
        absorb_records(member, rc_ring_tail(ring))
        return
    while True:
        rc_mutex_lock(&member.mail.mutex)
        begin = cursor = rc_u64_load(&member.cursor)
        end = find_end(member, cursor, BATCH)
        if cursor == end:   # mostly: this is asked before each event that is taken
            rc_mutex_unlock(&member.mail.mutex)
            break
        count = 0
        while cursor < end:
            event = <PyObject *>rc_slot_event(rc_ring_slot(ring, cursor))
            share_reference(event)   # the cursor keeps it in the ring until here
            cursor += 1
            event = <PyObject *>rc_mail_put(member.mail, event, member.policy != RC_DROP_NEWEST)
            if event != NULL:
                dropped[count] = event
                count += 1
        rc_u64_store_seq(&member.cursor, cursor)   # seq: after the size of the mailbox, for rc_member_has_events
        rc_u64_count(&member.lost, count)
        rc_mutex_unlock(&member.mail.mutex)
        for at in range(count):   # not under the mutex: the last reference runs finalizers
            Py_DECREF(dropped[at])
        if cursor - begin < BATCH:
            break
        if last == RC_NEVER:
            last = rc_ring_tail(ring)
        if cursor >= last:
            break


cdef void absorb_records(rc_member *member, uint64_t last) noexcept:
    """The same for records, whose objects are made before the lock is taken."""
    cdef PyObject *event
    cdef bint more = True
    while more and rc_u64_load(&member.cursor) < last:
        event = blank(member.topic)
        rc_mutex_lock(&member.mail.mutex)
        more = read_next(member, &event)
        if more and event != NULL:
            event = <PyObject *>rc_mail_put(member.mail, event, member.policy != RC_DROP_NEWEST)
            rc_u64_count(&member.lost, event != NULL)
        elif more:
            rc_u64_count(&member.lost, 1)
        if more:   # seq: after the size of the mailbox, for rc_member_has_events
            rc_u64_store_seq(&member.cursor, rc_u64_load(&member.cursor) + 1)
        rc_mutex_unlock(&member.mail.mutex)
        if event != NULL:
            Py_DECREF(event)


cdef PyObject *blank(rc_topic *c) noexcept:
    """A new object for a record, or NULL without memory."""
    try:
        record = blank_record((<Topic>c.host).layout)
    except BaseException:   # also where its class was robbed of its layout
        return NULL
    Py_INCREF(<PyObject *>record)
    return <PyObject *>record


cdef bint read_next(rc_member *member, PyObject **event) noexcept:
    """Gives the event at the cursor, with a reference; a record in the blank object that is given (NULL: it is lost).
    Returns whether there is one. Under its mailbox's mutex. The caller moves the cursor."""
    cdef uint64_t cursor = rc_u64_load(&member.cursor)
    if cursor >= find_end(member, cursor, 1):
        return False
    if member.topic.ring.record_size == 0:
        event[0] = <PyObject *>rc_slot_event(rc_ring_slot(&member.topic.ring, cursor))
        Py_INCREF(event[0])
    elif event[0] != NULL:
        memcpy((<Record>event[0]).data, rc_record_at(&member.topic.ring, cursor), member.topic.ring.record_size)
    return True


cdef inline uint64_t find_end(rc_member *member, uint64_t cursor, uint64_t most) noexcept nogil:
    """The end of what has been published for it, from its cursor on. Under its mailbox's mutex."""
    cdef uint64_t end = rc_u64_load(&member.end)
    if cursor >= end:   # its place in the ring is not kept any more
        return cursor
    return rc_topic_published(member.topic, cursor, min(most, end - cursor))


cdef PyObject *take_mail(rc_member *member) noexcept:
    """The next event for the handler, with a reference, or NULL. For whoever runs the subscription. It counts as taken
    before it leaves the mailbox: see rc_member_pending."""
    cdef PyObject *event
    cdef uint64_t waiting, missed = 0
    absorb(member)
    if member.by_key:
        return take_by_key(member)
    rc_mutex_lock(&member.mail.mutex)
    waiting = rc_mail_size(member.mail)   # the most since the last one was taken
    if waiting != 0:
        rc_u64_count(&member.handed_out, 1)
    if waiting > rc_u64_load(&member.high_water):
        rc_u64_store(&member.high_water, waiting)
    event = <PyObject *>rc_mail_take(member.mail, &missed)
    rc_mutex_unlock(&member.mail.mutex)
    if event != NULL:
        rc_u64_store(&member.lag, missed)
    return event


cdef void empty_mail(rc_member *member) noexcept:
    """Drops what is waiting, after its end was set to its cursor. Any thread."""
    cdef PyObject *event = take_mail(member)
    while event != NULL:
        rc_u64_count(&member.lost, 1)
        rc_u64_count(&member.handed_out, <uint64_t>-1)   # not by a handler
        Py_DECREF(event)
        event = take_mail(member)


# --- with a `where` or a `key` ---

@cython.final
@cython.no_gc_clear
cdef class Latest:
    """The newest event of one key."""
    cdef object event
    cdef uint64_t missed   # events of the key that it has replaced


cdef inline bint is_waited_for(rc_pool *pool) noexcept nogil:
    """Whether this thread is at something that whoever waits for all deliveries waits for: it must not wait itself."""
    return find_place(thread_judgings(), pool) != NULL or rc_pool_current(pool) != NULL


cdef void absorb_judged(rc_member *member, uint64_t last, double seconds, list raised) noexcept:
    """As absorb, where the user's code says what goes to the mailbox. That code may take long, raise, and publish: so
    no C lock is held while it runs, and a thread that finds another one here does not wait for longer than `seconds`:
    it looks again later. `raised`: see judge_next; it is of a publisher, who stays no longer than JUDGE_SECONDS and one
    call, and what is added there ends this."""
    cdef Subscription sub = <Subscription>member.host
    cdef rc_pool *pool = member.topic.pool
    cdef place_t *now
    cdef bint judged = False
    cdef int64_t until = 0
    core = sub.core_reference()
    judging = sub.judging   # a fork replaces it
    if core is None:
        return
    try:
        found = judging.acquire(timeout=seconds)
    except BaseException as exception:   # a signal's handler has raised in the main thread meanwhile
        if raised is None:
            set_aside(exception, "while another thread judged events")
        else:
            raised.append(exception)
        return
    if not found:
        rc_u32_store(&member.judging_lasts, 1)
        return
    now = enter_place(thread_judgings(), pool, member)
    if now == NULL:   # no memory: as if another thread were here
        judging.release()
        rc_u32_store(&member.judging_lasts, 1)
        return
    rc_pool_hold(pool)   # as long as an event is neither in the ring nor in the mailbox, close waits for it
    try:
        if raised is not None:
            until = rc_clock_now() + <int64_t>(JUDGE_SECONDS * 1e9)
        while not raised and rc_u64_load(&member.cursor) < last and judge_next(sub, <Core>core, raised):
            judged = True
            if raised is not None and rc_clock_now() > until:   # what is judged has made room
                break
    finally:
        leave_place(thread_judgings(), now)
        judging.release()
        if judged:
            rc_bus_schedule(member.topic, &member.topic.task)   # whoever looked meanwhile has found nothing
        rc_pool_unhold(pool)


cdef bint judge_next(Subscription sub, Core core, list raised):
    """Takes the next event out of the ring, if there is one. `raised` is of a publisher: what the user's code raises
    there and is the publisher's (is_publishers) is added to it, for publish to raise; or None."""
    cdef rc_member *member = &sub.c
    cdef PyObject *raw = blank(member.topic) if member.topic.ring.record_size != 0 else NULL
    cdef bint found
    rc_mutex_lock(&member.mail.mutex)
    found = read_next(member, &raw)
    if found:
        rc_u32_store_seq(&member.being_judged, 1)   # seq: before the cursor, for rc_member_is_over
        rc_u64_store_seq(&member.cursor, rc_u64_load(&member.cursor) + 1)
    rc_mutex_unlock(&member.mail.mutex)
    if not found:
        if raw != NULL:
            Py_DECREF(raw)
        return False
    if raw == NULL:   # no memory for the object of a record
        rc_u64_count(&member.lost, 1)
        rc_u32_store_seq(&member.being_judged, 0)
        return True
    event = <object>raw
    Py_DECREF(raw)
    option, function = "where", sub.where   # what is asked
    dropped = None   # kept to the end: its finalizer runs when the event is in the mailbox, and no more in hand
    try:
        if sub.where is not None and not ask(sub.where, unwrapped(event), "where"):
            rc_u64_count(&member.filtered_early, 1)
        elif member.by_key:
            option, function = "key", sub.key
            dropped = put_by_key(sub, ask(sub.key, unwrapped(event), "key"), event)
        else:
            share_reference(raw)
            rc_mutex_lock(&member.mail.mutex)
            if not rc_u32_load(&member.discarded):
                raw = <PyObject *>rc_mail_put(member.mail, raw, member.policy != RC_DROP_NEWEST)
            rc_mutex_unlock(&member.mail.mutex)
            if raw != NULL:
                rc_u64_count(&member.lost, 1)
                dropped = <object>raw
                Py_DECREF(raw)
    except BaseException as exception:
        rc_u64_count(&member.lost, 1)
        rc_u64_count(&member.failures, 1)
        note_option(exception, option, function)
        if raised is not None and is_publishers(exception):
            raised.append(exception)
        else:
            report_or_interrupt(core, exception, unwrapped(event), sub)
    finally:
        rc_u32_store(&member.judging_lasts, 0)
        rc_u32_store_seq(&member.being_judged, 0)   # seq: after the size of the mailbox, for rc_member_is_over
    return True


cdef make_room(rc_member *member):
    """For a publisher that finds no room: has what the ring holds for the subscription moved, if it can be.

    Raises:
        BaseException: what `where` or `key` has raised and is the publisher's, for publish to raise.
    """
    cdef list raised
    if not member.is_judged:
        absorb(member)
        return
    raised = []
    seconds = 0 if rc_u32_load(&member.judging_lasts) else JUDGE_SECONDS
    absorb_judged(member, rc_ring_tail(&member.topic.ring), seconds, raised)
    if raised:
        raise raised[0]
    if rc_u32_load(&member.judging_lasts):
        drop_unjudged(member)


cdef void drop_unjudged(rc_member *member) noexcept:
    """Makes room in a ring that is full of events which `where` or `key`, at work in another thread, does not come to:
    drops the first of them, as a publisher is not to wait for a subscription of this kind."""
    cdef PyObject *event = NULL
    cdef const rc_ring *ring
    cdef uint64_t cursor
    rc_mutex_lock(&member.mail.mutex)
    cursor = rc_u64_load(&member.cursor)
    ring = &member.topic.ring
    if rc_ring_tail(ring) - cursor >= ring.max_queue and cursor < find_end(member, cursor, 1):
        if member.topic.ring.record_size == 0:
            event = <PyObject *>rc_slot_event(rc_ring_slot(&member.topic.ring, cursor))
            Py_INCREF(event)
        rc_u64_count(&member.lost, 1)
        rc_mail_miss(member.mail)
        rc_u64_store_seq(&member.cursor, cursor + 1)
    rc_mutex_unlock(&member.mail.mutex)
    if event != NULL:
        Py_DECREF(event)


cdef put_by_key(Subscription sub, key, event):
    """Keeps the event as the newest of its key. A key keeps its place in the order of delivery. Returns what had to go
    for it: see judge_next."""
    cdef Latest latest
    dropped = None
    with sub.keyed_lock:
        latest = sub.by_key.get(key)   # which compares keys: the user's code, which can cancel
        if rc_u32_load(&sub.c.discarded):
            rc_u64_count(&sub.c.lost, 1)
            return None
        if latest is not None:
            rc_u64_count(&sub.c.lost, 1)
            latest.missed += 1
            dropped = latest.event
            latest.event = event
            return dropped
        if <uint64_t>len(sub.by_key) == sub.c.max_queue:   # the key that has waited longest has to go
            dropped = sub.by_key.pop(next(iter(sub.by_key)))
            rc_u64_count(&sub.c.lost, 1)
        latest = Latest.__new__(Latest)
        latest.event = event
        sub.by_key[key] = latest
        rc_u64_store_seq(&sub.c.keyed, <uint64_t>len(sub.by_key))   # seq: with rc_member_letters
        rc_u64_store(&sub.c.high_water, max(rc_u64_load(&sub.c.high_water), <uint64_t>len(sub.by_key)))
    return dropped


cdef PyObject *take_by_key(rc_member *member) noexcept:
    cdef Subscription sub = <Subscription>member.host
    cdef Latest latest
    cdef list rest
    failure = None
    try:
        with sub.keyed_lock:
            for key, latest in sub.by_key.items():
                break
            else:
                return NULL
            try:
                latest = sub.by_key.pop(key)   # which hashes the key, and may compare it
            except BaseException as exception:   # also a KeyError: its hash is another one now
                rest = [each for each in sub.by_key.values() if each is not latest]
                if <uint64_t>len(rest) == <uint64_t>len(sub.by_key):   # that code has had it taken
                    latest = None
                # those that wait are not found by their keys any more: what comes for these does not replace them
                sub.by_key = {object(): each for each in rest}
                failure = exception
            rc_u64_count(&member.handed_out, latest is not None)
            rc_u64_store_seq(&member.keyed, <uint64_t>len(sub.by_key))   # seq: with rc_member_letters
    except BaseException as exception:   # a signal's handler has raised in the wait for the lock
        set_aside(exception, "while an event was taken")
        return NULL
    if failure is not None:
        rc_u64_count(&member.failures, 1)
        report_or_interrupt(<Core>member.topic.bus, failure, None if latest is None else unwrapped(latest.event), sub)
    if latest is None:
        return NULL
    rc_u64_store(&member.lag, latest.missed)
    Py_INCREF(<PyObject *>latest.event)
    return <PyObject *>latest.event
