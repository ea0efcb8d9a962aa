# Close: the end of a dispatcher, and waiting for deliveries.

cdef begin_close(Core core, bint discard):
    """Refuses events and subscriptions from now on, and lets the workers end when all is delivered. `discard` drops
    what is waiting, also after a first close without."""
    cdef Topic topic
    cdef Subscription sub
    with core.lock:
        if core.native_pool is None:
            return
        if core.ended and not discard:
            return
        rc_u32_store(&core.closing, 1)   # what follows may be done twice: it may be stopped by a lack of memory
        # publish finds no topic any more, and looks at `closing`
        for address in core.classes:
            rc_registry_remove(&core.by_class, address)
        for type_id in core.topics:
            rc_registry_remove(&core.by_id, id_key(type_id))
    await_sharing(core)
    for topic in core.all_topics():
        rc_ring_close(&topic.c.ring)
        rc_bus_settle(topic.c)
        tell_of_room(core, topic.c)
        for sub in topic.all_members():
            sub.cancel_for(discard)
    rc_pool_stop(&core.pool.c)
    rc_pool_stop(&core.native_pool.c)
    with core.lock:
        core.ended = True


cdef await_sharing(Core core):
    """Lets an event that is just being stored in several rings come into all of them, which takes a few
    instructions. It cannot be this thread that does it: no Python code runs in between."""
    rc_u32_store_seq(&core.shut, 1)   # seq: before the look at `sharing`
    while rc_u32_load_seq(&core.sharing) != 0:
        time.sleep(0.0001)


cdef bint await_close(Core core, int64_t timeout) except -1:
    """Waits for the deliveries and the threads, `timeout` ns at most (below 0: no limit). Returns whether all
    is done. Inside a handler it does not wait and returns True."""
    cdef int64_t deadline = time.monotonic_ns() + timeout
    if core.native_pool is None or core.is_worker():   # None: of a class that forgot __init__
        return True
    if not core.pool.wait(timeout, None, core):
        return False
    while True:   # while the watch lives it may start a worker for the last of the work
        there = [thread for thread in threads_of(core) if thread.is_there()]
        if not there:
            return True
        for thread in there:
            if not thread.wait_until_gone(None if timeout < 0 else max(0, deadline - time.monotonic_ns()) / 1e9):
                return False


cdef bint has_ended(Core core) except -1:
    """Whether all is delivered and the threads have ended. Does not wait."""
    if core.native_pool is None:
        return True
    return core.outstanding() == 0 and not any([thread.is_there() for thread in threads_of(core)])


cdef list threads_of(Core core):
    """Those that it has started and that end when it is closed; not the one that asks."""
    me = threading.current_thread()   # a finalizer may run in the watch
    return [thread for thread in core.pool.threads + core.native_pool.threads if thread is not me]


cdef bint is_run_here(Core core) except -1:
    """Whether events wait for the event loop that runs in this thread."""
    running = running_loop()
    if running is None:
        return False
    return any([
        (<Subscription>sub).event_loop() is running and sub.pending for sub in core._subscriptions()
    ])


cdef leave_closed_loops(Core core):
    """Gives up what waits for event loops that are closed."""
    cdef Topic topic
    for topic in core.all_topics():
        topic.leave_closed_loops()
