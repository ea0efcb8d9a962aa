# The consumer of a RC_LOOP subscription: an event loop's task, or a stream's reader.
#
# No worker calls its handler: the consumer takes the events, one thread at a time. Who has something for it takes the
# token of its lane and wakes it, once. It gives the token back when it has taken all (consumer_idle).

cdef set_consumer(Subscription sub, waker, loop, uint32_t concurrency):
    """Says who the consumer is.

    Args:
        waker: `waker()` is called, from any thread, when there are events, and again when there are some after
            next_for_consumer has given the last one.
        loop: the event loop in which the consumer runs, or None.
        concurrency: how many handlers may be at work at a time; 0: it is a stream.
    """
    core = sub.core_reference()
    rc_mutex_lock(&sub.c.topic.lock)
    sub.concurrency = concurrency
    sub.waker = waker   # in place of None, as the loop
    sub._loop = loop
    rc_mutex_unlock(&sub.c.topic.lock)
    consumer_idle(sub)


cdef object next_for_consumer(Subscription sub):
    """The next event, or batch of events, or EMPTY. The consumer says event_done or event_failed of it when it is
    handled."""
    taken = EMPTY
    owner = sub.core_reference()   # kept until the end: it may be all that keeps the topic
    if owner is None or sub.orphaned:
        return EMPTY
    rc_pool_hold(sub.c.topic.pool)   # close waits for what was taken, and it keeps the dispatcher, until event_done
    while True:
        taken = take_batch(sub) if sub.c.batch else take_admitted(sub)
        if sub.orphaned:   # `where` or `key` has forked, and in the child nothing of this is counted any more
            return EMPTY
        if not rc_member_has_events(&sub.c, rc_ring_tail(&sub.c.topic.ring)):
            consumer_idle(sub)
        elif taken is EMPTY and not sub.c.is_judged:   # one has come just now
            continue
        elif taken is EMPTY:   # another thread is judging: nobody else tells when it has found something
            sub.event_loop().call_later(JUDGE_SECONDS, sub.waker)
        break
    if taken is EMPTY:
        rc_pool_unhold(sub.c.topic.pool)
    else:
        rc_mutex_lock(&sub.c.topic.lock)
        sub.c.in_hand += 1
        rc_mutex_unlock(&sub.c.topic.lock)
    return taken


cdef object take_batch(Subscription sub):
    cdef list events = []
    cdef uint64_t lag = 0
    cdef uint64_t taken = 0
    try:
        while taken < sub.c.batch:
            event = take_admitted(sub)
            if event is EMPTY:
                break
            taken += 1
            events.append(event)
            lag += rc_u64_load(&sub.c.lag)
        rc_u64_store(&sub.c.lag, lag)
        if not events:
            return EMPTY
        return events if sub.topic.layout is None else batch_of(sub.topic.layout, events)
    except MemoryError as exception:
        rc_u64_count(&sub.c.calls, taken)
        report_lost_batch(sub, taken, exception)
        return EMPTY


cdef object take_admitted(Subscription sub):
    """The next event that its conditions let pass, or EMPTY."""
    cdef PyObject *raw
    while True:
        raw = take_mail(&sub.c) if sub.c.mail != NULL else take_event(sub)
        if raw == NULL:
            return EMPTY
        event = <object>raw
        Py_DECREF(raw)
        if not sub.guarded:
            return event
        try:
            if sub.admit(event) is not None:
                return event
        except BaseException as exception:   # `where` has raised
            rc_u64_count(&sub.c.failures, 1)
            report_or_interrupt(<Core>sub.c.topic.bus, exception, unwrapped(event), sub)
        rc_u64_count(&sub.c.calls, 1)


cdef PyObject *take_event(Subscription sub) noexcept:
    """The event at the cursor, with a reference, or NULL. Records for which there is no memory are lost."""
    cdef PyObject *event = NULL
    while take_one(sub, &event):
        if event != NULL:
            return event
        rc_u64_count(&sub.c.calls, 1)
        report_lost_record(&sub.c)
    return NULL


cdef bint take_one(Subscription sub, PyObject **event) noexcept:
    """Takes the event at the cursor (NULL: a record, and no memory for its object). It counts as taken before it
    leaves the ring: see rc_member_pending and rc_member_is_over. Returns whether there is one."""
    cdef rc_topic *c = sub.c.topic
    cdef uint64_t cursor = rc_u64_load(&sub.c.cursor), waiting, end
    cdef unsigned spins = 0
    rc_u32_store_seq(&sub.c.running, 1)   # seq: before the look at its end, with rc_member_holds_gate, _is_over
    end = min(rc_u64_load_seq(&sub.c.end), rc_ring_tail(&c.ring))
    if cursor >= end:
        rc_u32_store(&sub.c.running, 0)
        return False
    waiting = end - cursor
    if waiting > rc_u64_load(&sub.c.high_water):
        rc_u64_store(&sub.c.high_water, waiting)
    if c.ring.record_size == 0:
        rc_ring_await_event(&c.ring, cursor)
    else:
        while rc_topic_published(c, cursor, 1) == cursor:
            rc_ring_pause(spins)
            spins += 1
    event[0] = event_at(c, cursor)
    rc_u64_count(&sub.c.handed_out, 1)
    rc_u64_store_seq(&sub.c.cursor, cursor + 1)
    rc_u32_store_seq(&sub.c.running, 0)   # seq: before consumer_idle, for the end that a cancel has moved meanwhile
    if waiting == 1 or cursor % 64 == 63 or rc_u32_load(&c.limited) != 0:
        rc_topic_make_room(c)
    return True


cdef void consumer_idle(Subscription sub) noexcept:
    """The consumer has seen all there is: from now on it is to be told when there is more."""
    if rc_member_is_over(&sub.c):
        sub.retire()
    return_token(sub)
    if rc_member_has_work(&sub.c, rc_ring_tail(&sub.c.topic.ring)):
        rc_bus_schedule(sub.c.topic, &sub.c.lane)


cdef void return_token(Subscription sub) noexcept:
    """Gives the lane's token back, if it is out. The caller holds references to this and to the Core, and looks for
    work once more unless it has retired. Any thread: a consumer that has taken all, or a cancel that has left it
    nothing to take."""
    if not rc_task_give_back(&sub.c.lane):
        return
    rc_pool_unhold(sub.c.topic.pool)
    rc_member_drop(&calls, &sub.c)   # the token's hold: see wake_consumer


cdef event_done(Subscription sub, uint64_t events):
    """What next_for_consumer has given is handled: so many events. The consumer counts a batch when it is given one, as
    the handler may change the list."""
    if finish_events(sub, events):
        finish_hold(sub)


cdef event_failed(Subscription sub, exception, taken, uint64_t events):
    """The same, and its handler has raised."""
    if finish_events(sub, events):
        rc_u64_count(&sub.c.failures, 1)
        report(<Core>sub.c.topic.bus, exception, unwrapped(taken), sub)
        finish_hold(sub)


cdef bint finish_events(Subscription sub, uint64_t events) noexcept:
    """Counts what next_for_consumer has given as handled. Returns False if it was given up already: see abandon."""
    cdef bint gone
    if sub.orphaned:
        return False
    rc_mutex_lock(&sub.c.topic.lock)
    gone = sub.c.loop_closed
    if not gone:
        sub.c.in_hand -= 1
        rc_u64_count(&sub.c.handled, events)
        rc_u64_count(&sub.c.calls, events)
    rc_mutex_unlock(&sub.c.topic.lock)
    return not gone


cdef finish_hold(Subscription sub):
    """Nobody need wait for it any more."""
    if rc_u64_load(&sub.c.end) != RC_NEVER and rc_member_is_over(&sub.c):
        sub.retire()
    rc_pool_unhold(sub.c.topic.pool)


cdef not_told(Subscription sub, exception):
    """Its consumer could not be told of events: the loop is closed, or a signal's handler has raised meanwhile,
    which is no reason to lose events."""
    loop = sub.event_loop()
    if loop is None or loop.is_closed():
        abandon(sub, exception)
        return
    try:
        sub.waker()   # for the second time, perhaps: the consumer finds nothing then
    except BaseException as again:
        abandon(sub, again)
    set_aside(exception, f"while the event loop of {sub!r} was told of events")


cdef abandon(Subscription sub, exception):
    """The consumer will not come any more (its loop is closed): drops and counts what is waiting."""
    cdef uint64_t given, in_hand = 0
    core = sub.core_reference()
    loop = sub.event_loop()
    pending = sub.waiting() if core is not None else 0
    if loop is not None and loop.is_closed():   # also those in hand: their handlers will never end
        rc_mutex_lock(&sub.c.topic.lock)
        if not sub.c.loop_closed:
            sub.c.loop_closed = True
            in_hand = sub.c.in_hand
            given = rc_member_unfinished(&sub.c)
            rc_u64_count(&sub.c.abandoned, given)
            rc_u64_count(&sub.c.calls, given)
        rc_mutex_unlock(&sub.c.topic.lock)
    sub.cancel_for(True)
    for _ in range(in_hand):
        finish_hold(sub)
    if core is not None and pending:
        what = "is closed" if loop is None or loop.is_closed() else "cannot be told of events"
        failure = LoopClosedError(f"the event loop of {sub!r} {what}; events dropped: {pending}")
        failure.__cause__ = exception
        report(<Core>core, failure, None, sub)


cdef tell_consumer(Subscription sub):
    """That it is over. The consumer need not come for it."""
    rc_mutex_lock(&sub.c.topic.lock)
    waker = sub.waker
    rc_mutex_unlock(&sub.c.topic.lock)
    if waker is not None:
        try:
            waker()
        except RuntimeError:   # its loop is closed
            pass
