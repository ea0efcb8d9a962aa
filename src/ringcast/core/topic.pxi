# Topics: the subscriptions of one type id, and the gate.

cdef void advance(Topic topic) noexcept:
    """Moves the gate to the last cursor and releases the events that it has passed. Any thread."""
    cdef topic_t *c = topic.c
    cdef PyObject *events[BATCH]
    cdef uint64_t gate, target, cursor
    cdef Py_ssize_t count = BATCH, at
    while count == BATCH:
        rc_mutex_lock(&c.lock)
        gate = rc_ring_gate(&c.ring)
        target = rc_u64_load(&c.end)
        for at in range(len(topic.subscriptions)):
            cursor = rc_u64_load(&(<Subscription>topic.subscriptions[at]).c.cursor)
            if cursor < target:
                target = cursor
        count = 0
        while count < BATCH and gate + count < target:
            events[count] = <PyObject *>rc_ring_take(&c.ring, gate + count)
            count += 1
        if count:
            rc_ring_move_gate(&c.ring, gate + count)
        rc_mutex_unlock(&c.lock)
        for at in range(count):   # not under the lock: the last reference runs finalizers
            Py_DECREF(events[at])
    if rc_u32_load(&c.limited) != 0:
        rc_ring_wake(&c.ring)   # a cursor other than that of the gate may have made room
    if rc_u32_load_seq(&c.room_waiters) != 0:   # seq: after the gate, with Core._when_room
        topic.tell_room_waiters()


@cython.final
cdef class Topic:
    """All that belongs to one type id of one dispatcher."""
    cdef topic_t *c
    cdef tuple subscriptions   # that have their events from the ring. Replaced, never changed; guarded by c.lock
    cdef tuple direct          # that are called inside publish, in this order; the same
    cdef Topic companion       # the same events, each with the context of its publisher; or None
    cdef list waiters          # called when there may be room; guarded by the Core's lock
    cdef readonly uint32_t type_id
    cdef readonly bint automatic   # the id goes with its class
    cdef object wide_class     # for a topic of subclasses' events: the class; else None

    def __cinit__(self, Core core, uint32_t type_id, bint automatic):
        self.subscriptions = self.direct = ()
        self.waiters = []
        self.type_id = type_id
        self.automatic = automatic
        self.c = <topic_t *>rc_aligned_zalloc(sizeof(topic_t))
        if self.c == NULL or rc_ring_init(&self.c.ring, core.max_queue, RESERVE, 0) or rc_mutex_init(&self.c.lock):
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        rc_task_init(&self.c.task, RC_TOPIC, self.c)
        self.c.topic = <PyObject *>self
        self.c.core = <PyObject *>core
        self.c.pool = &core.pool.c
        self.c.timing = core.timing
        rc_u64_store(&self.c.limit, core.max_queue)
        self.set_plain()

    def __dealloc__(self):
        cdef uint64_t position
        if self.c == NULL:
            return
        # only what a publisher left behind that a close overtook: see Core.close
        for position in range(rc_ring_gate(&self.c.ring), rc_ring_tail(&self.c.ring)):
            Py_DECREF(<PyObject *>rc_ring_take(&self.c.ring, position))
        rc_ring_move_gate(&self.c.ring, rc_ring_tail(&self.c.ring))
        rc_ring_destroy(&self.c.ring)
        rc_mutex_destroy(&self.c.lock)
        rc_aligned_free(self.c)

    cdef tuple members(self):
        cdef tuple subscriptions
        rc_mutex_lock(&self.c.lock)
        subscriptions = self.subscriptions
        rc_mutex_unlock(&self.c.lock)
        return subscriptions

    cdef tuple direct_members(self):
        cdef tuple direct
        rc_mutex_lock(&self.c.lock)
        direct = self.direct
        rc_mutex_unlock(&self.c.lock)
        return direct

    cdef void join(self, Subscription sub):
        """Adds a subscription, which starts with the next event to be published."""
        cdef tuple old, new
        cdef bint joined = False, direct = sub.c.mode == DIRECT
        while not joined:
            old = self.direct_members() if direct else self.members()
            new = old + (sub,)
            if direct:   # higher priorities first; sorted() keeps the order of equal ones
                new = tuple(sorted(new, key=direct_rank))
            rc_mutex_lock(&self.c.lock)
            joined = old is (self.direct if direct else self.subscriptions)
            if joined and direct:
                self.direct = new
                self.set_plain()
            elif joined:
                self.set_members(new)
                # under the lock the gate stands still, at or before the tail: it cannot pass the new cursor
                sub.c.start = rc_ring_tail(&self.c.ring)
                rc_u64_store(&sub.c.cursor, sub.c.start)
                self.count_subscribers(1)
            rc_mutex_unlock(&self.c.lock)

    cdef void leave(self, Subscription sub):
        """Takes out a subscription that has had its last event, and lets the gate pass it."""
        cdef tuple old, new
        cdef bint left = False, direct = sub.c.mode == DIRECT
        while not left:
            old = self.direct_members() if direct else self.members()
            new = tuple([member for member in old if member is not sub])
            rc_mutex_lock(&self.c.lock)
            left = old is (self.direct if direct else self.subscriptions)
            if left and direct:
                self.direct = new
                self.set_plain()
            elif left:
                self.set_members(new)
            rc_mutex_unlock(&self.c.lock)
        advance(self)

    cdef void set_members(self, tuple members) noexcept:
        """Under the lock; the caller holds the old tuple, so that it is not released here."""
        cdef uint64_t limit = self.c.ring.max_queue
        cdef uint32_t pooled = 0, limited = 0
        cdef Py_ssize_t at
        cdef subscription_t *sub
        for at in range(len(members)):
            sub = &(<Subscription>members[at]).c
            pooled += sub.mode == QUEUED
            if sub.mail == NULL and sub.max_queue < self.c.ring.max_queue:
                limited += 1
                limit = min(limit, sub.max_queue)
        self.subscriptions = members
        rc_u32_store(&self.c.task.members, <uint32_t>len(members))
        rc_u32_store(&self.c.pooled, pooled)
        rc_u32_store(&self.c.limited, limited)
        rc_u64_store(&self.c.limit, limit)

    cdef void count_subscribers(self, int more) noexcept:
        """Under the lock."""
        rc_u32_store(&self.c.subscribers, rc_u32_load(&self.c.subscribers) + more)
        self.set_plain()

    cdef void set_plain(self) noexcept:
        """Under the lock: tells publish whether all it has to do is to queue, or nothing at all."""
        cdef uint32_t plain = 0
        if len(self.direct) == 0 and self.companion is None:
            plain = rc_u32_load(&self.c.subscribers)
            if plain == 0:
                plain = NOBODY
            elif rc_u32_load(&self.c.pooled) != 0 and not (<Core>self.c.core).started:
                plain = 0
        rc_u32_store(&self.c.plain, plain)

    cdef uint64_t room_limit(self):
        """How many events may be between the gate and the tail now, that no subscription which holds up publishers is
        its max_queue behind; after what drops events rather has been made to do so."""
        cdef Subscription sub
        cdef uint64_t gate, limit
        for sub in self.members():
            if sub.c.mail != NULL:
                absorb(&sub.c)
        advance(self)
        rc_mutex_lock(&self.c.lock)
        gate = rc_ring_gate(&self.c.ring)
        limit = self.c.ring.max_queue
        if rc_u32_load(&self.c.limited) != 0:
            for at in range(len(self.subscriptions)):
                limit = min(limit, (<Subscription>self.subscriptions[at]).room_from(gate))
        rc_mutex_unlock(&self.c.lock)
        return limit

    cdef Subscription refusing(self):
        """A subscription of policy "raise" that is its max_queue behind, or None."""
        cdef Subscription sub
        for sub in self.members():
            if sub.c.policy == RAISE and sub.c.mail == NULL and sub.waiting() >= sub.c.max_queue:
                return sub
        return None

    cdef Py_ssize_t reach(self):
        """How many subscriptions an event reaches."""
        cdef Py_ssize_t count = rc_u32_load(&self.c.subscribers) + len(self.direct_members())
        return count if self.companion is None else count + self.companion.reach()

    cdef bint is_run_here(self):
        """Whether one of its subscriptions has its events handled by the event loop that runs in this thread."""
        cdef Subscription sub
        running = running_loop()
        if running is not None:
            for sub in self.members():
                if sub.loop is running:
                    return True
        return False

    cdef leave_closed_loops(self):
        """Gives up what waits for event loops that are closed."""
        cdef Subscription sub
        for sub in self.members():
            if sub.loop is not None and sub.loop.is_closed():
                sub._abandon()

    cdef tell_room_waiters(self):
        cdef Core core = <Core>self.c.core
        with core.lock:
            waiters, self.waiters = self.waiters, []
            rc_u32_store_seq(&self.c.room_waiters, 0)
        for waiter in waiters:
            try:
                waiter()
            except RuntimeError:   # its event loop is closed: nobody waits any more
                pass

    cdef void settle(self) noexcept:
        """After the ring was closed: waits for producers that have claimed and not yet published, and makes sure that
        what they have published is scheduled."""
        cdef uint64_t position, tail
        rc_mutex_lock(&self.c.lock)   # the gate stands still, the pages stay
        position = rc_ring_gate(&self.c.ring)
        tail = rc_ring_tail(&self.c.ring)
        while True:
            position = rc_ring_published(&self.c.ring, position, tail - position)
            if position == tail:
                break
            rc_ring_await_event(&self.c.ring, position)
        rc_mutex_unlock(&self.c.lock)
        if tail != rc_u64_load_seq(&self.c.end):
            schedule(self.c, &self.c.task, self.c.topic)

    cdef bint has_work(self):
        """Whether the holder of the task has something to do. Also its last look after it has released it: so it
        reads no slot, which another holder may have emptied meanwhile."""
        cdef uint64_t end = rc_u64_load(&self.c.end)
        cdef Subscription sub
        if rc_ring_tail(&self.c.ring) != end:
            return True
        for sub in self.members():
            if rc_task_now(&sub.c.lane) != RC_SCHEDULED and sub.has_work(end):
                return True
        return False


cdef running_loop():
    """The event loop that runs in this thread, or None. asyncio is not imported for the question."""
    asyncio = sys.modules.get("asyncio.events")
    return None if asyncio is None else asyncio._get_running_loop()


def direct_rank(Subscription sub):
    return -sub.priority
