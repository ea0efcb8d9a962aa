# Batches: handlers that take a list of events at a time, or a RecordBatch of records.

cdef bint deliver_batch(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """Calls the handler with what there is, at most `batch` events at a time."""
    cdef rc_topic *c = member.topic
    cdef Subscription sub = <Subscription>member.host
    cdef uint64_t end = batch_end(c, span.next, min(span.end, span.next + member.batch)), count = end - span.next
    rc_u32_store(&member.running, <uint32_t>count)   # with these it has begun: see cancel
    try:
        call_with_batch(sub, gather(sub, span.next, end))
    except BaseException as exception:   # no memory, or its class was robbed of its layout
        report_lost_batch(sub, count, exception)
    span.next = end
    span.calls += 1
    if end <= c.disowned:   # the handler has forked, and this is the child
        rc_u64_count(&member.start, <uint64_t>0 - count)   # so these count as delivered
        return False
    rc_u64_store(&member.cursor, end)
    return True


cdef bint deliver_mail_batch(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """The same with what is in the mailbox. One batch, then the others have their turn."""
    cdef Subscription sub = <Subscription>member.host
    cdef uint64_t taken = 0
    try:
        batch = gather_mail(sub, &taken)
        call_with_batch(sub, batch)
    except BaseException as exception:
        report_lost_batch(sub, taken, exception)
    rc_u64_count(&member.calls, taken)
    span.next = span.end
    span.calls += 1
    return True


cdef inline uint64_t batch_end(rc_topic *c, uint64_t position, uint64_t end) noexcept:
    """Where a batch that could go on up to `end` has to end: one of records at the end of their page."""
    return end if c.ring.record_size == 0 else position + rc_ring_run(position, end)


cdef object gather(Subscription sub, uint64_t position, uint64_t end):
    """The events from `position` up to `end`, which its cursor keeps in the ring; of them those that it admits."""
    cdef rc_topic *c = sub.c.topic
    cdef Py_ssize_t count = end - position, at
    cdef PyObject *event
    cdef PyObject *filled
    cdef rc_record_page *page
    cdef list events
    cdef Layout layout = sub.topic.layout
    if sub.guarded:
        events = []
        while position < end:
            if layout is None:
                admit_to_batch(sub, <object>rc_slot_event(rc_ring_slot(&c.ring, position)), events)
            else:
                admit_to_batch(sub, new_record(layout, rc_record_at(&c.ring, position)), events)
            position += 1
        return events if layout is None else batch_of(layout, events)
    if layout is not None:
        page = <rc_record_page *>rc_ring_page(&c.ring, position)
        return new_batch(layout, page, rc_record_at(&c.ring, position), count)
    filled = PyList_New(count)
    for at in range(count):
        event = <PyObject *>rc_slot_event(rc_ring_slot(&c.ring, position + at))
        Py_INCREF(event)
        PyList_SET_ITEM(filled, at, event)
    events = <list>filled
    Py_DECREF(filled)
    return events


cdef object gather_mail(Subscription sub, uint64_t *taken):
    """Up to a batch of events from the mailbox, and how many are taken out for it. Those that its conditions keep out
    are finished with that."""
    cdef list events = []
    cdef PyObject *raw
    cdef uint64_t lag = 0
    taken[0] = 0
    for _ in range(sub.c.batch):
        raw = take_mail(&sub.c)
        if raw == NULL:
            break
        taken[0] += 1
        lag += rc_u64_load(&sub.c.lag)
        event = <object>raw
        Py_DECREF(raw)
        if not sub.guarded:
            events.append(event)
        elif not admit_to_batch(sub, event, events):
            rc_u64_count(&sub.c.calls, 1)
            taken[0] -= 1
    rc_u64_store(&sub.c.lag, lag)   # of all of them
    return events if sub.topic.layout is None else batch_of(sub.topic.layout, events)


cdef bint admit_to_batch(Subscription sub, event, list events) except -1:
    """Adds the event to the batch if it is to be there; returns whether it is."""
    try:
        if sub.admit(event) is not None:
            events.append(event)
            return True
    except BaseException as exception:   # `where` has raised
        rc_u64_count(&sub.c.failures, 1)
        report(<Core>sub.c.topic.bus, exception, event, sub)
    return False


cdef void call_with_batch(Subscription sub, batch) noexcept:
    cdef PyObject *arguments[2]
    cdef PyObject *result
    cdef Py_ssize_t events = len(batch)   # before the call: its handler may empty the list
    if events == 0:
        return
    handler = sub.target() if sub.weak else sub.target
    if handler is None:   # a weak one, gone just now
        rc_u64_count(&sub.c.abandoned, <uint64_t>events)
        return
    arguments[1] = <PyObject *>batch
    result = PyObject_Vectorcall(<PyObject *>handler, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
    if sub.guarded:
        rc_u64_count(&sub.c.handled, <uint64_t>events)
    end_call(&sub.c, arguments[1], result)


cdef void report_lost_batch(Subscription sub, uint64_t count, exception) noexcept:
    """What its handler would be given cannot be made, mostly for want of memory."""
    rc_u64_count(&sub.c.failures, 1)
    rc_u64_count(&sub.c.abandoned, count)
    if isinstance(exception, MemoryError):
        exception = MemoryError(f"no memory for a batch of {count}")
    report(<Core>sub.c.topic.bus, exception, None, sub)
