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


@cython.final
cdef class Topic:
    """All that belongs to one type id of one dispatcher."""
    cdef topic_t *c
    cdef tuple subscriptions   # replaced, never changed; guarded by c.lock
    cdef readonly uint32_t type_id
    cdef readonly bint automatic   # the id goes with its class

    def __cinit__(self, Core core, uint32_t type_id, bint automatic):
        self.subscriptions = ()
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

    cdef void join(self, Subscription sub):
        """Adds a subscription, which starts with the next event to be published."""
        cdef tuple old, new
        cdef bint joined = False
        while not joined:
            old = self.members()
            new = old + (sub,)
            rc_mutex_lock(&self.c.lock)
            joined = self.subscriptions is old
            if joined:
                self.set_members(new)
                # under the lock the gate stands still, at or before the tail: it cannot pass the new cursor
                sub.c.start = rc_ring_tail(&self.c.ring)
                rc_u64_store(&sub.c.cursor, sub.c.start)
                rc_u32_store(&self.c.subscribers, rc_u32_load(&self.c.subscribers) + 1)
            rc_mutex_unlock(&self.c.lock)

    cdef void leave(self, Subscription sub):
        """Takes out a subscription that has had its last event, and lets the gate pass it."""
        cdef tuple old, new
        cdef bint left = False
        while not left:
            old = self.members()
            new = tuple([member for member in old if member is not sub])
            rc_mutex_lock(&self.c.lock)
            left = self.subscriptions is old
            if left:
                self.set_members(new)
            rc_mutex_unlock(&self.c.lock)
        advance(self)

    cdef inline void set_members(self, tuple members) noexcept:
        """Under the lock; the caller holds the old tuple, so that it is not released here."""
        self.subscriptions = members
        rc_u32_store(&self.c.task.members, <uint32_t>len(members))

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
