# Publish: claim a slot, store the event, schedule the topic.
#
# Whoever stores an event takes a reference to it: so all this is for attached threads. Records are bytes: a thread that
# is not attached may store these (store_records) and wake those who wait for them (rc_bus_wake_detached).

cdef inline uint32_t subscribers_of(rc_topic *c) noexcept nogil:
    """How many subscriptions an event reaches that is published now. Waits for the end of a join that is under way: the
    last event of this thread may already be the new subscription's first. Then its next event must count that one."""
    if rc_u32_load(&c.joining) != 0:   # before the look at the count, which is there when this is 0 again
        rc_mutex_lock(&c.lock)
        rc_mutex_unlock(&c.lock)
    return rc_u32_load(&c.subscribers)


cdef inline rc_claim try_publish(rc_topic *c, PyObject *event, uint64_t limit) noexcept:
    cdef rc_claim claim = put(c, event, limit)
    if claim == RC_CLAIMED:
        rc_bus_wake(c)
    return claim


cdef inline rc_claim put(rc_topic *c, PyObject *event, uint64_t limit) noexcept:
    """Claims a slot and stores the event in it; the caller has to wake the topic."""
    cdef rc_slot *slot
    cdef rc_claim claim
    if c.ring.record_size != 0:
        return put_record(c, event, limit)
    claim = rc_ring_claim(&c.ring, limit, &slot)
    if claim == RC_CLAIMED:
        share_reference(event)
        rc_ring_publish(slot, event)
    return claim


cdef rc_claim put_record(rc_topic *c, PyObject *event, uint64_t limit) noexcept:
    cdef rc_run run
    cdef rc_claim claim = rc_ring_claim_run(&c.ring, limit, 1, &run)
    if claim == RC_CLAIMED:
        rc_record_write(&run, (<Record>event).data, c.ring.record_size)
        rc_record_publish(&run)
    return claim


cdef uint64_t try_publish_run(
    rc_topic *c, PyObject **events, uint64_t count, uint64_t limit, rc_claim *claim
) noexcept:
    """Publishes the first of these events, as many as there is room for, with a claim for each run of free slots.
    Returns how many; *claim says why not all."""
    cdef rc_run run
    cdef rc_slot *slots
    cdef uint64_t done = 0, at
    claim[0] = RC_CLAIMED
    if c.ring.record_size != 0:
        while done < count and claim[0] == RC_CLAIMED:
            claim[0] = try_publish(c, events[done], limit)
            done += claim[0] == RC_CLAIMED
        return done
    while done < count:
        claim[0] = rc_ring_claim_run(&c.ring, limit, count - done, &run)
        if claim[0] != RC_CLAIMED:
            break
        slots = rc_run_slots(&run)
        for at in range(run.count):
            share_reference(events[done + at])
            rc_ring_publish(&slots[at], events[done + at])
        done += run.count
        rc_bus_wake(c)
    return done


cdef uint64_t store_records(
    rc_topic *c, const char *records, uint64_t count, uint64_t limit, rc_claim *claim
) noexcept nogil:
    """Stores the first of these records, which stand side by side, and wakes native handlers. Any thread, attached or
    not; the caller then has to wake the other ones. Returns how many; *claim says why not all."""
    cdef size_t size = c.ring.record_size
    cdef rc_run run
    cdef uint64_t done = 0
    claim[0] = RC_CLAIMED
    while done < count:
        claim[0] = rc_ring_claim_run(&c.ring, limit, count - done, &run)
        if claim[0] != RC_CLAIMED:
            break
        rc_record_write(&run, records + done * size, size)
        rc_record_publish(&run)
        done += run.count
        rc_bus_schedule_natives(c)
    return done
