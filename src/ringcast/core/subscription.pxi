# Subscriptions: what `subscribe` returns.

@cython.final
cdef class Subscription:
    """What `subscribe` returns: one handler's place among the events of one type.

    Calling it or `cancel()` ends it; so does leaving a `with` block, which also waits until all that was accepted
    for it is delivered. Any thread may use it. A subscription does not keep its dispatcher alive.

    Attributes:
        handler: the callable. The dispatcher holds it strongly until the last event is delivered.
        event_class: the class of the events, or None where `subscribe_to` was told none.
    """
    cdef subscription_t c
    cdef Topic topic
    cdef readonly object handler
    cdef readonly object event_class
    cdef object core_reference
    cdef object __weakref__

    def __init__(self, *_, **__):
        raise TypeError("subscriptions are made by Dispatcher.subscribe")

    def __class_getitem__(cls, item):
        return cls   # Subscription[Tick] is for type checkers

    cdef bint has_events(self) noexcept:
        return rc_u64_load(&self.c.cursor) < min(rc_u64_load_seq(&self.c.topic.end), rc_u64_load_seq(&self.c.end))

    cdef bint is_over(self) noexcept:
        """Whether it is cancelled and has had its last event, but has not left yet. For whoever runs it."""
        return rc_u64_load(&self.c.cursor) >= rc_u64_load_seq(&self.c.end) and not rc_u32_load(&self.c.retired)

    cdef bint has_work(self, uint64_t end) noexcept:
        return rc_u64_load(&self.c.cursor) < min(end, rc_u64_load_seq(&self.c.end)) or self.is_over()

    cdef void retire(self) noexcept:
        """Leaves the topic for good."""
        self.topic.leave(self)
        rc_u32_store_seq(&self.c.retired, 1)   # seq: a condition of `progress`
        rc_park_wake_all(&self.c.topic.pool.progress)

    cdef uint64_t waiting(self) noexcept:
        """How many accepted events its handler has not finished."""
        cdef uint64_t cursor = rc_u64_load(&self.c.cursor)
        cdef uint64_t end = min(rc_u64_load_seq(&self.c.end), rc_ring_tail(&self.c.topic.ring))
        return end - cursor if end > cursor else 0

    def cancel(self, *, bint discard=False):
        """Ends the subscription: what is published from now on does not reach it. Idempotent; does not wait.

        Args:
            discard: drop what was accepted for it and its handler has not begun, and count it in `dropped`;
                also after a first cancel without. Otherwise that is still delivered.
        """
        cdef topic_t *topic = self.c.topic
        cdef uint64_t cursor, begun
        core = self.core_reference()
        if core is None:
            return   # nobody can publish any more, and nothing is waiting
        rc_mutex_lock(&topic.lock)
        cursor = rc_u64_load(&self.c.cursor)
        if rc_u64_load(&self.c.end) == NEVER:
            self.c.cancelled_at = rc_ring_tail(&topic.ring)
            rc_u64_store_seq(&self.c.end, self.c.cancelled_at)   # seq: before the look at the task in schedule()
            rc_u32_store(&topic.subscribers, rc_u32_load(&topic.subscribers) - 1)
        begun = cursor + rc_u32_load(&self.c.running)
        if discard and begun < rc_u64_load(&self.c.end):
            rc_u64_store_seq(&self.c.end, begun)
        rc_mutex_unlock(&topic.lock)
        if cursor >= self.c.cancelled_at:   # its handler has finished all, nobody runs it
            if self.is_over():
                self.retire()
            return
        if discard:
            rc_pool_call_attention(topic.pool)
        schedule(topic, &topic.task, topic.topic)

    def __call__(self):
        """The same as `cancel()`."""
        self.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Cancels, and waits until all that was accepted is delivered (inside a handler it does not wait).

        Raises:
            KeyboardInterrupt: Ctrl-C ended the wait; the subscription is cancelled all the same.
        """
        core = self.core_reference()
        self.cancel()
        if core is not None:
            (<Core>core).pool.wait_retired(self)

    @property
    def type_id(self):
        """The type id of its events, an int."""
        return self.topic.type_id

    @property
    def active(self):
        """Whether events that are published now reach it: until it is cancelled or the dispatcher closed."""
        return rc_u64_load(&self.c.end) == NEVER and self.core_reference() is not None

    @property
    def pending(self):
        """How many events were accepted for it and are not finished by its handler, an int."""
        return self.waiting()

    @property
    def delivered(self):
        """How many calls of its handler have ended, by return or exception, an int."""
        return rc_u64_load(&self.c.cursor) - self.c.start

    @property
    def dropped(self):
        """How many accepted events it never got because of `cancel(discard=True)`, an int."""
        cdef uint64_t cursor = rc_u64_load(&self.c.cursor)
        if rc_u64_load(&self.c.end) == NEVER or rc_u64_load(&self.c.end) == self.c.cancelled_at:
            return 0
        return self.c.cancelled_at - max(cursor, rc_u64_load(&self.c.end))

    @property
    def errors(self):
        """How many calls of its handler have raised, an int."""
        return rc_u32_load(&self.c.errors)

    def __repr__(self):
        state = "active" if self.active else "cancelled"
        return (
            f"<Subscription of {handler_name(self.handler)} to {describe(self.event_class, self.topic.type_id)}: "
            f"{state}, {self.pending} pending, {self.delivered} delivered, {self.dropped} dropped, "
            f"{self.errors} errors>"
        )


cdef Subscription new_subscription(Core core, Topic topic, handler, event_class):
    cdef Subscription sub = Subscription.__new__(Subscription)
    sub.core_reference = weakref.ref(core)
    sub.topic = topic
    sub.handler = handler
    sub.event_class = event_class
    sub.c.topic = topic.c
    sub.c.handler = <PyObject *>handler
    sub.c.subscription = <PyObject *>sub
    rc_task_init(&sub.c.lane, RC_LANE, &sub.c)
    rc_u64_store(&sub.c.end, NEVER)
    topic.join(sub)
    return sub
