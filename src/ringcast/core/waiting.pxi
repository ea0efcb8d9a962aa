# Waiting for room that never comes: what the handlers of event loops add to what the pool knows of its workers.
#
# A queued handler that waits for room is known to the pool (rc_pool_may_wait). A handler of an event loop waits in
# `apublish`, or stops its whole loop in `publish`. Whoever begins such a wait last closes the circle, and finds it: the
# handler itself, or a worker, which has the handlers that wait look once more.

cdef bint stands_still(Topic topic, loop, set seen):
    """Whether a subscription that is its max_queue behind in the topic will not go on: its handler waits for room in
    such a topic, or runs in `loop`, which is to be stopped. Under the Core's lock.

    All topics that the answer depends on are taken to stand still at first, and those that do not are taken out until
    no more are: so each is looked at as often as there are topics, at most, however they wait for each other.

    Args:
        loop: an event loop, or None.
        seen: an empty set."""
    cdef Topic each
    cdef list blocks, found = [topic]
    cdef dict blocked = {}   # topic -> for each of its subscriptions that is behind: see blocks_of
    seen.add(topic)
    for each in found:   # which grows meanwhile
        blocks = blocks_of(each, loop)
        blocked[each] = blocks
        for calls in blocks:
            for topics in calls:
                for other in topics:
                    if other not in seen:
                        seen.add(other)
                        found.append(other)
    going = True
    while going:
        going = False
        for each in found:
            if each in seen and not any([
                all([any([other in seen for other in topics]) for topics in calls]) for calls in blocked[each]
            ]):
                seen.discard(each)
                going = True
    return topic in seen


cdef list blocks_of(Topic topic, loop):
    """For each subscription that is its max_queue behind in the topic and that may not go on by itself: for each of its
    calls that are under way the topics of which it waits for room. No calls: it does not go on in any case."""
    cdef Subscription sub
    cdef uint64_t in_hand
    cdef Topic full
    cdef list blocks = []
    for sub in topic.members():
        if not topic.is_behind(sub):
            continue
        if sub.c.mode == RC_LOOP:
            running = sub.event_loop()   # also before what is set with it
            if running is None:
                continue
            if running is loop:
                blocks.append([])
                continue
            rc_mutex_lock(&sub.c.topic.lock)
            in_hand = sub.c.in_hand   # calls, each with an event or a batch
            rc_mutex_unlock(&sub.c.topic.lock)
            if in_hand == 0 or in_hand < sub.concurrency or <uint64_t>len(sub.waits) < in_hand:
                continue   # another call can begin, or one is under way
            blocks.append(list(sub.waits))
        else:
            full = waited_for(<Core>topic.c.bus, topic.c.pool, &sub.c.lane)
            if full is not None:
                blocks.append([[full]])
    return blocks


cdef Topic waited_for(Core core, rc_pool *pool, const rc_task *lane):
    """The topic in which the handler of a lane, in a call on a worker, waits for room; or None. It is looked for by its
    address: when the wait has ended meanwhile the topic may have gone."""
    cdef const rc_ring *ring = rc_pool_waits_for(pool, lane)
    cdef Topic topic
    if ring != NULL:
        for topic in core.all_topics():
            if &topic.c.ring == ring:
                return topic
    return None


def begin_wait(Core core, event, Subscription sub):
    """Notes that a handler of the subscription, on its event loop, waits for room for the event.

    Returns:
        What end_wait is to be given, or None where the wait would never end: then nothing is noted."""
    cdef list topics = topics_of(core, event)
    rc_topic_make_room(sub.c.topic)   # what it has taken is room for those who wait for it
    with core.lock:
        sub.waits.append(topics)
        count_waiting(core, 1)   # before the look, with the worker that begins to wait at this moment
        for topic in topics:
            if stands_still(topic, None, set()):
                end_wait(core, sub, topics)
                return None
    return topics


def end_wait(Core core, Subscription sub, list topics):
    """The wait that begin_wait has noted is over."""
    with core.lock:
        sub.waits.remove(topics)   # this one or an equal one
        count_waiting(core, -1)


cdef void count_waiting(Core core, int more) noexcept:
    """Under the Core's lock."""
    rc_u32_store(&core.waiting_handlers, rc_u32_load(&core.waiting_handlers) + more)
