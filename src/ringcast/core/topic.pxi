# Topics: the subscriptions of one type id, and the gate.

cdef PyObject *event_at(rc_topic *c, uint64_t position) noexcept:
    """The event at a position that is published and that the caller holds the gate back from; with a reference. NULL
    where there is no memory for the object of a record."""
    cdef PyObject *event
    if c.ring.record_size == 0:
        event = <PyObject *>rc_slot_event(rc_ring_slot(&c.ring, position))
        Py_INCREF(event)
        return event
    return record_at(c, position)


cdef PyObject *record_at(rc_topic *c, uint64_t position) noexcept:
    try:
        record = new_record((<Topic>c.host).layout, rc_record_at(&c.ring, position))
    except BaseException:   # also where its class was robbed of its layout
        return NULL
    Py_INCREF(<PyObject *>record)
    return <PyObject *>record


@cython.final
cdef class Topic:
    """All that belongs to one type id of one dispatcher."""
    cdef rc_topic *c
    cdef dict owned            # the subscriptions that c.members, tokens and snapshots lead to, each until it has left
    cdef tuple direct          # that publish calls, in this order. Replaced, never changed; guarded by c.lock
    cdef tuple ending          # direct ones that are cancelled and not over: their handlers are at work; the same
    cdef Topic context_topic   # the same events with the contexts of their publishers; or None: see find_context_topic
    cdef Layout layout         # of records; None: a topic of events
    cdef int routes            # of its classes that lead to wide topics as well; guarded by c.lock
    cdef bint passing          # goes with the last of its subscriptions: a wide or context topic, one that has parted
    cdef readonly uint32_t type_id
    cdef readonly bint automatic   # the id goes with its class
    cdef object scope          # of a wide topic and its context topic: which events they are for, a Scope; else None
    cdef Pool pool             # what c.pool and c.native_pool point into
    cdef Pool native_pool

    def __cinit__(self, Core core, uint32_t type_id, bint automatic, Layout layout=None):
        self.owned = {}
        self.direct = self.ending = ()
        self.layout = layout
        self.type_id = type_id
        self.automatic = automatic
        self.pool = core.pool
        self.native_pool = core.native_pool
        self.c = <rc_topic *>rc_aligned_zalloc(sizeof(rc_topic))
        if self.c == NULL or rc_topic_init(
            self.c, &core.pool.c, &core.native_pool.c, core.most_waiting, RESERVE, core.first_position,
            0 if layout is None else layout.size,
        ):
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        self.c.host = <PyObject *>self
        self.c.bus = <PyObject *>core
        self.c.timing = core.is_timed

    def __dealloc__(self):
        if self.c != NULL:
            rc_topic_drop(self.c)

    cdef void let_go(self) noexcept:
        """For the garbage collector: lets go of the subscriptions, through which circles go. Only finalizers can still
        use the topic; for these it is one that all subscriptions have left."""
        cdef tuple direct, ending
        rc_mutex_lock(&self.c.lock)
        direct = self.direct   # released after the lock
        ending = self.ending
        self.direct = self.ending = ()
        rc_mutex_unlock(&self.c.lock)
        rc_topic_empty(self.c)
        self.owned.clear()

    cdef tuple members(self):
        """The subscriptions of now that take their events from the ring."""
        cdef rc_members *members = rc_topic_members(self.c)
        cdef uint32_t at
        try:
            return tuple([<Subscription>members.all[at].host for at in range(members.count)])
        finally:
            rc_members_drop(self.c, members)

    cdef tuple direct_members(self):
        cdef tuple direct
        rc_mutex_lock(&self.c.lock)
        direct = self.direct
        rc_mutex_unlock(&self.c.lock)
        return direct

    cdef tuple ending_members(self):
        cdef tuple ending
        rc_mutex_lock(&self.c.lock)
        ending = self.ending
        rc_mutex_unlock(&self.c.lock)
        return ending

    cdef tuple all_members(self):
        """Those that have not had their last event."""
        return self.members() + self.direct_members() + self.ending_members()

    cdef tuple take_direct(self):
        """The direct subscriptions, each of which is to be called with one event (deliver_direct) or to be given back
        (give_back). Until then it is not over."""
        cdef tuple direct
        cdef Py_ssize_t at
        rc_mutex_lock(&self.c.lock)   # after a cancel nobody takes it any more: see part
        direct = self.direct
        for at in range(len(direct)):
            rc_u64_count(&(<Subscription>direct[at]).c.handed_out, 1)
        rc_mutex_unlock(&self.c.lock)
        return direct

    cdef Topic find_context_topic(self):
        cdef Topic context_topic
        if not rc_u32_load(&self.c.has_context_topic):   # mostly
            return None
        rc_mutex_lock(&self.c.lock)
        context_topic = self.context_topic
        rc_mutex_unlock(&self.c.lock)
        return context_topic

    cdef void set_context_topic(self, Topic context_topic) noexcept:
        """Under the Core's lock. The caller holds the context topic that was before."""
        rc_mutex_lock(&self.c.lock)
        self.context_topic = context_topic
        rc_u32_store(&self.c.has_context_topic, context_topic is not None)
        self.set_other_routes()
        rc_mutex_unlock(&self.c.lock)

    cdef bint is_unused(self):
        """Whether an event that is published now would be for nobody here, nor in its context topic."""
        return subscribers_of(self.c) == 0 and len(self.direct_members()) == 0 and self.find_context_topic() is None

    cdef bint is_deserted(self):
        """Whether no subscription is left, nor any that C can still come to, nor a context topic, which goes with the
        last of its own. Under the Core's lock, so that none joins meanwhile."""
        return not self.owned and not self.direct_members() and not self.ending_members() and self.context_topic is None

    cdef join(self, Subscription sub):
        """Adds a subscription, which starts with the next event to be published."""
        if sub.c.mode == RC_DIRECT:
            self.join_direct(sub)
            return
        self.owned[sub] = None
        if rc_topic_join(self.c, &sub.c):
            del self.owned[sub]
            raise MemoryError

    cdef join_direct(self, Subscription sub):
        cdef tuple old, new
        cdef bint joined = False
        while not joined:
            old = self.direct_members()
            new = tuple(sorted(old + (sub,), key=direct_rank))   # which keeps the order of equal ones
            rc_mutex_lock(&self.c.lock)
            joined = old is self.direct
            if joined:
                self.direct = new
                self.set_other_routes()
            rc_mutex_unlock(&self.c.lock)

    cdef part(self, Subscription sub):
        """Takes a direct subscription out of what publish calls. It is `ending` until it leaves."""
        cdef tuple old, new, ending, more
        cdef bint parted = False
        while not parted:
            old = self.direct_members()
            new = tuple([member for member in old if member is not sub])
            ending = self.ending_members()
            more = ending + (sub,)
            rc_mutex_lock(&self.c.lock)
            parted = old is self.direct and ending is self.ending
            if parted:
                self.direct = new
                if len(new) < len(old):   # else another thread cancels it as well
                    self.ending = more
                self.set_other_routes()
            rc_mutex_unlock(&self.c.lock)

    cdef leave_direct(self, Subscription sub):
        """Takes out a direct subscription that has had its last event."""
        cdef tuple old, new
        cdef bint left = False
        while not left:
            old = self.ending_members()
            new = tuple([
                member for member in old if member is not sub and not rc_u32_load(&(<Subscription>member).c.retired)
            ])
            rc_mutex_lock(&self.c.lock)
            left = old is self.ending
            if left:
                self.ending = new
            rc_mutex_unlock(&self.c.lock)

    cdef void set_other_routes(self) noexcept:
        """Under the lock: tells publish whether its events also go to others than the members."""
        others = len(self.direct) != 0 or self.context_topic is not None or self.routes != 0
        rc_u32_store(&self.c.has_other_routes, others)
        rc_topic_set_quick_reply(self.c)

    cdef void count_routes(self, int more) noexcept:
        rc_mutex_lock(&self.c.lock)
        self.routes += more
        self.set_other_routes()
        rc_mutex_unlock(&self.c.lock)

    cdef make_room(self):
        """Makes what room there can be: those that drop events rather than to hold up publishers are made to do so, and
        the gate is moved."""
        cdef Subscription sub
        for sub in self.members():
            if sub.c.mail != NULL:
                make_room(&sub.c)
        rc_topic_look(self.c, RC_NEVER)   # also where the topic's worker is stuck in a handler
        # Waiters call this, too: if each call told all of them, they would wake each other for ever.
        if rc_topic_move_gate(self.c):
            rc_topic_tell_of_room(self.c)

    cdef rc_claim put_where_room(self, PyObject *event) noexcept:
        """Claims a slot and stores the event, if that leaves no subscription which holds up publishers more than its
        max_queue behind. The caller has to wake the topic."""
        cdef rc_claim claim
        rc_mutex_lock(&self.c.lock)
        claim = put(self.c, event, rc_topic_room_now(self.c))
        rc_mutex_unlock(&self.c.lock)
        return claim

    cdef Subscription refusing(self):
        """A subscription of policy "raise" that is active and its max_queue behind, or None."""
        cdef Subscription sub
        for sub in self.members():
            if sub.c.policy != RC_RAISE or sub.c.mail != NULL or rc_u64_load(&sub.c.end) != RC_NEVER:
                continue
            if sub.waiting() >= sub.c.max_queue:
                return sub
        return None

    cdef str who_is_behind(self):
        """What messages say of a subscription that holds up publishers."""
        cdef Subscription sub
        for sub in self.members():
            if self.is_behind(sub):
                return f"{sub!r} has max_queue={sub.max_queue} events pending"
        for sub in self.members():
            if rc_u64_load(&sub.c.end) != RC_NEVER:
                return f"{sub!r} still handles what came before its end, and {RESERVE} events wait beside it"
        return "room has been made just now"

    cdef Py_ssize_t reach(self):
        """How many subscriptions an event reaches."""
        cdef Py_ssize_t count = rc_u32_load(&self.c.subscribers) + len(self.direct_members())
        cdef Topic context_topic = self.find_context_topic()
        return count if context_topic is None else count + context_topic.reach()

    cdef bint is_run_here(self):
        """Whether an active subscription that is its max_queue behind has its events handled by the event loop of this
        thread."""
        cdef Subscription sub
        running = running_loop()
        if running is not None:
            for sub in self.members():
                if sub.event_loop() is running and self.is_behind(sub):
                    return True
        return False

    cdef bint is_behind(self, Subscription sub) noexcept:
        """Whether the subscription is active and has no more room in the ring."""
        return (
            sub.c.mail == NULL and rc_u64_load(&sub.c.end) == RC_NEVER
            and rc_ring_tail(&self.c.ring) - rc_u64_load(&sub.c.cursor) >= sub.c.max_queue
        )

    cdef leave_closed_loops(self):
        """Gives up what waits for event loops that are closed."""
        cdef Subscription sub
        for sub in self.members():
            loop = sub.event_loop()
            if loop is not None and loop.is_closed():
                abandon(sub, None)


cdef running_loop():
    """The event loop that runs in this thread, or None. asyncio is not imported for the question."""
    asyncio = get_or_none(sys.modules, "asyncio.events")
    return None if asyncio is None else asyncio._get_running_loop()


cdef enum:
    CO_COROUTINE = 0x80   # in co_flags: see the module `inspect`


cdef current_coroutine():
    """The name of the innermost coroutine that runs in this thread, or None."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_flags & CO_COROUTINE:
        frame = frame.f_back
    return None if frame is None else frame.f_code.co_qualname


def direct_rank(Subscription sub):
    return -sub.priority


cdef object qualname_of = type.__dict__["__qualname__"].__get__   # whatever a metaclass makes of it


cdef str describe_topic(Core core, Topic topic):
    """The topic's class and id, for messages."""
    with core.lock:
        event_class = class_of(core, topic)
    return describe(event_class, topic)


cdef str describe(event_class, Topic topic):
    """The same for a class that is known, or None."""
    cdef Scope scope = topic.scope
    if scope is not None:
        name = joined_names([short(qualname_of(each)) for each in scope.classes])
        return f"{name} and subclasses" if scope.with_subclasses() else name
    if event_class is None:
        return f"type id {topic.type_id:#x}"
    return f"{short(qualname_of(event_class))} ({topic.type_id:#x})"
