# Many: publishing several events, or a buffer of records, with one call (publish_many).

cdef uint64_t publish_buffer(Core core, record_type, source, int64_t deadline) except? <uint64_t>-1:
    """Publishes records that stand side by side in a buffer. Returns how many."""
    cdef rc_topic *found = find_class(core, record_type)
    cdef Layout layout = layout_of(record_type)
    cdef Py_buffer buffer
    cdef uint64_t count
    PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE)
    try:
        count = buffer.len // layout.size
        publish_records(core, found, layout, <const char *>buffer.buf, count, deadline)
    finally:
        PyBuffer_Release(&buffer)
    return count


cdef publish_records(Core core, rc_topic *c, Layout layout, const char *records, uint64_t count, int64_t deadline):
    cdef Topic topic
    cdef uint64_t done = 0
    cdef rc_claim claim
    try:
        if c.kind == RC_OF_CLASS and (<Topic>c.host).layout is layout:
            topic = <Topic>c.host
            prepare(core, topic)
            while done < count and rc_u32_load(&c.has_other_routes) == 0:
                if subscribers_of(c) == 0:   # nobody is subscribed any more
                    core.check_open()
                    return
                done += copy_records(core, c, records + done * layout.size, count - done, &claim)
                if claim != RC_CLAIMED:   # no room, or closed: one the long way, which waits
                    publish_event(core, new_record(layout, records + done * layout.size), time_left(deadline))
                    done += 1
        while done < count:   # they also go where events are objects
            publish_event(core, new_record(layout, records + done * layout.size), time_left(deadline))
            done += 1
    except (RingcastError, BaseExceptionGroup) as error:
        error.published = done + getattr(error, "published", 0)   # see deliver_direct
        raise


cdef uint64_t copy_records(Core core, rc_topic *c, const char *records, uint64_t count, rc_claim *claim) noexcept:
    """Publishes the first of these, CHUNK_BYTES at most. Returns how many."""
    cdef uint64_t done, limit = rc_u64_load(&c.limit)
    if count * c.ring.record_size < MANY_BYTES:
        done = store_records(c, records, count, limit, claim)
    else:
        count = min(count, <uint64_t>(CHUNK_BYTES // c.ring.record_size))
        with nogil:   # others may run while much is copied
            done = store_records(c, records, count, limit, claim)
    if done:
        rc_bus_wake(c)
    return done


cdef uint64_t publish_events(Core core, tuple events, uint64_t before, int64_t deadline) except? <uint64_t>-1:
    """Publishes these, after `before` others of the same call. Returns how many that makes."""
    cdef PyObject **items = PyTuple_Items(<PyObject *>events)
    cdef Py_ssize_t count = len(events), at = 0, end, most
    cdef PyTypeObject *event_class
    cdef rc_topic *c
    cdef uint32_t subscribers
    cdef rc_claim claim
    try:
        while at < count:
            event_class = Py_TYPE(items[at])
            c = <rc_topic *>rc_registry_find(&core.by_class, class_key(event_class))
            subscribers = 0 if c == NULL else rc_u32_load(&c.quick_reply)
            if subscribers == RC_NOBODY and may_be_mistaken(items[at]):   # publish_slow refuses it
                subscribers = 0
            if subscribers != 0:
                # no further than one claim can reach: where the queue is full, this looks again after each event
                most = min(count, at + <Py_ssize_t>RC_PAGE_SLOTS)
                end = at + 1
                while end < most and Py_TYPE(items[end]) == event_class:
                    end += 1
                if subscribers == RC_NOBODY:
                    core.check_open()   # a close may have just cancelled them
                    at = end
                    continue
                at += try_publish_run(c, &items[at], end - at, rc_u64_load(&c.limit), &claim)
                if claim == RC_CLAIMED:
                    continue
            publish_event(core, events[at], time_left(deadline))
            at += 1
    except (RingcastError, BaseExceptionGroup) as error:
        error.published = before + at + getattr(error, "published", 0)
        raise
    return before + count


cdef iterator_of(events):
    """What publish_many goes through.

    Raises:
        EventClassError: it has no iterator, or is a text or bytes, of which each letter would be an event.
    """
    if isinstance(events, (str, bytes, bytearray)):
        hint = "" if isinstance(events, str) else ": the bytes of records are published with their record type"
        raise EventClassError(f"publish_many takes an iterable of events, not {shown(events)}{hint}")
    try:
        return iter(events)
    except TypeError as error:
        raise EventClassError(f"publish_many takes an iterable of events, not {shown(events)}") from error


cdef tuple take_some(iterator):
    """Up to BATCH more of an iterator, a tuple, and what it has raised after these, or None."""
    cdef list some = []
    failure = None
    try:
        for event in iterator:
            some.append(event)
            if len(some) == BATCH:
                break
    except BaseException as exception:
        failure = exception
    return tuple(some), failure
