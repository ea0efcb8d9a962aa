# Room: publishers that wait for it.
#
# A thread waits in the park of the ring. A task of an event loop must not stop its loop: it leaves a callable, which is
# called when there may be room.

cdef tuple publish_when_room(Core core, Topic topic, event, int64_t timeout):
    """Publishes in a ring that has refused the claim, after waiting for room if that is why. Returns the direct
    subscriptions of that moment."""
    cdef rc_claim claim
    cdef uint64_t gate
    cdef uint32_t ticket
    cdef bint reserve = False
    cdef int64_t deadline = timeout if timeout < 0 else time.monotonic_ns() + timeout
    while True:
        ticket = rc_park_prepare(&topic.c.ring.room)   # before the look at what there is room for
        try:
            gate = rc_ring_gate(&topic.c.ring)
            if not reserve:
                topic.make_room()
            direct = topic.take_direct()   # before the claim, as in publish_in_one
            if reserve:
                claim = put(topic.c, <PyObject *>event, core.most_waiting + RESERVE)
            else:
                claim = topic.put_where_room(<PyObject *>event)
            if claim == RC_CLAIMED:
                rc_bus_wake(topic.c)
                return direct
            give_back(direct, 0, forks)
            if claim != RC_FULL or reserve:
                raise_refusal(core, topic, claim)   # raises
            reserve = wait_for_room(core, topic, gate, ticket, deadline)
        finally:
            rc_park_cancel(&topic.c.ring.room)


cdef await_room(Core core, Topic topic, int64_t deadline):
    """Waits until there is room in the ring, or none is needed."""
    cdef uint64_t gate
    cdef uint32_t ticket
    while True:
        ticket = rc_park_prepare(&topic.c.ring.room)   # as in publish_when_room
        try:
            gate = rc_ring_gate(&topic.c.ring)
            topic.make_room()
            if rc_ring_tail(&topic.c.ring) - gate < rc_topic_room(topic.c):
                return
            core.check_open()
            if wait_for_room(core, topic, gate, ticket, deadline):
                if rc_ring_tail(&topic.c.ring) - gate >= core.most_waiting + RESERVE:
                    raise_refusal(core, topic, RC_FULL)
                return
        finally:
            rc_park_cancel(&topic.c.ring.room)


cdef raise_refusal(Core core, Topic topic, rc_claim claim):
    """Raises what a claim says that is not to be made again; nothing where it succeeded."""
    if claim == RC_CLOSED:
        core.check_open()   # raises
    if claim == RC_NO_MEMORY:
        raise MemoryError
    if claim == RC_FULL:
        coroutine = current_coroutine()
        if coroutine is not None and not core.is_worker():
            raise QueueFullError(
                f"the coroutine {coroutine} has published {RESERVE} events beyond max_queue={core.most_waiting} to "
                f"{describe_topic(core, topic)} that wait for the event loop which it does not let go on: "
                "`await bus.apublish(event)` waits for room"
            )
        raise QueueFullError(
            f"handlers have published {RESERVE} events beyond max_queue={core.most_waiting} to "
            f"{describe_topic(core, topic)} that wait for these very handlers: raise max_queue, or publish "
            "fewer events for each event handled"
        )


cdef bint wait_for_room(Core core, Topic topic, uint64_t gate, uint32_t ticket, int64_t deadline) except -1:
    """Waits for the gate to move from `gate`, or a while. Returns True where that would never end: then the reserve
    is to be used. `ticket` of the ring's park is from before the caller has found that there is no room."""
    cdef rc_pool *pool = &core.pool.c
    cdef rc_worker *worker = rc_pool_current(pool)
    cdef Subscription refusing = topic.refusing()
    cdef int64_t left = SLICE
    if refusing is not None:
        raise QueueFullError(f"{refusing!r} has max_queue={refusing.max_queue} events pending")
    if deadline >= 0:
        left = min(left, deadline - time.monotonic_ns())
        if left <= 0:
            raise PublishTimeoutError(
                f"no room in time for an event of {describe_topic(core, topic)}: {topic.who_is_behind()}"
            )
    if deadline == BEYOND or topic.is_run_here():   # waiting would stop the loop that is to make room
        return True
    if worker == NULL and stops_its_loop(core, topic):
        return True
    if worker != NULL:
        if rc_turn_running(worker):   # a ring is the first field of its topic
            rc_topic_make_room(<rc_topic *>worker.ring)
        if not rc_pool_may_wait(pool, worker, &topic.c.ring):
            return True
    try:
        # for what this worker will do only after its wait, perhaps
        if worker != NULL and rc_u32_load(&core.waiting_handlers) != 0:
            for other in core.all_topics():
                tell_of_room(core, (<Topic>other).c)
        with nogil:
            if rc_u32_load(&topic.c.limited) != 0:   # a cursor may have made room without the gate
                rc_park_prepare(&topic.c.ring.room)
                rc_park_wait(&topic.c.ring.room, ticket, left)
            else:
                rc_ring_await_gate(&topic.c.ring, gate, left)
        PyErr_CheckSignals()
        topic.leave_closed_loops()
    finally:
        if worker != NULL:
            rc_pool_waited(pool, worker)
    return False


cdef bint stops_its_loop(Core core, Topic topic) except -1:
    """Whether to wait for room would stop the event loop that runs here, and with it what is to make the room."""
    running = running_loop()
    if running is None:
        return False
    with core.lock:
        return stands_still(topic, running, set())


def when_room(Core core, event, waiter):
    """Has `waiter()` called once, from any thread, when there may be room for an event that publish had no room
    for. The caller then tries again, and once more right after this returns.

    Returns:
        What forget_waiter takes where nobody waits any more."""
    cdef Topic topic
    cdef list topics = topics_of(core, event)
    for topic in topics:
        with core.lock:
            core.room_waiters.setdefault(<uintptr_t>topic.c, []).append(waiter)
            # seq: before the caller's next look, with rc_topic_tell_of_room
            rc_u32_store_seq(&topic.c.room_waiters, 1)
    return topics


def forget_waiter(Core core, list topics, waiter):
    """Takes back what when_room was told, as far as it has not been called."""
    cdef Topic topic
    with core.lock:
        for topic in topics:
            waiters = core.room_waiters.get(<uintptr_t>topic.c, ())
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del core.room_waiters[<uintptr_t>topic.c]


cdef tell_of_room(Core core, rc_topic *c):
    """Calls those who wait for room there without blocking."""
    with core.lock:
        waiters = core.room_waiters.pop(<uintptr_t>c, ())
        rc_u32_store_seq(&c.room_waiters, 0)
    for waiter in waiters:
        try:
            waiter()
        except RuntimeError:   # its event loop is closed: nobody waits any more
            pass


cdef list topics_of(Core core, event):
    """The topics that an event would be published in."""
    cdef rc_topic *found = find_class(core, type(event))
    cdef Topic topic
    cdef list topics = list(follow(core, &found, event))
    if found != NULL:
        topics.append(<Topic>found.host)
    context_topics = [topic.find_context_topic() for topic in topics]
    return topics + [context_topic for context_topic in context_topics if context_topic is not None]


cpdef int64_t nanoseconds(timeout, str name="timeout") except -2:
    """-1 for None, else the time in ns."""
    if timeout is None:
        return -1
    # a str has neither; a bool was meant for something else
    if isinstance(timeout, bool) or not (defines(type(timeout), "__float__") or defines(type(timeout), "__index__")):
        raise OptionError(f"{name} must be None or a number of seconds, not {shown(timeout)}")
    try:
        seconds = float(timeout)
    except OverflowError:
        raise OptionError(f"{name} must be None or a number of seconds that a float can be, not {brief(timeout)}")
    except Exception as error:   # of its class
        raise OptionError(f"{name} must be None or a number of seconds, not {shown(timeout)}") from error
    if not seconds >= 0:   # also what is not a number
        raise OptionError(f"{name} must be None or at least 0 seconds, not {brief(timeout)}")
    return <int64_t>(min(seconds, 1e9) * 1e9)


cdef inline int64_t time_left(int64_t deadline):
    """Until a deadline, in ns; -1 where there is none."""
    return -1 if deadline < 0 else max(0, deadline - time.monotonic_ns())
