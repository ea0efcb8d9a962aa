# Topics: the subscriptions of one type id, and the gate.

cdef uint64_t look_for_events(rc_topic *c, uint64_t most) noexcept nogil:
    """Looks for published events behind those that were found: at most `most`, of records at least, if there are.
    Returns the end of those that were found. Any thread, attached or not."""
    cdef uint64_t end
    rc_mutex_lock(&c.lock)   # the gate, which is never beyond that end, stands still, and the pages stay
    end = rc_u64_load(&c.end)
    if rc_ring_tail(&c.ring) != end:
        if c.ring.record_size != 0:
            end = rc_record_published(&c.ring, end, most)
        else:
            end = rc_ring_published(&c.ring, end, most)
        rc_u64_store_seq(&c.end, end)   # seq: before the look at a lane's state, with run_lane and run_native_lane
    rc_mutex_unlock(&c.lock)
    return end


cdef uint64_t find_published(rc_topic *c, uint64_t position, uint64_t most) noexcept nogil:
    """The end of what is published from `position` on, at most `most` further. The caller holds the gate back there."""
    cdef uint64_t end
    if c.ring.record_size == 0:
        return rc_ring_published(&c.ring, position, most)
    end = rc_u64_load(&c.end)
    if position >= end:   # only from the start of a run can one go on
        end = look_for_events(c, position - end + most)
    return min(end, position + most) if end > position else position


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


cdef void advance(Topic topic) noexcept:
    """Moves the gate to the last cursor and releases the events that it has passed, and tells those who wait for room.
    Any thread that has moved a cursor."""
    # where some have a max_queue of their own, a cursor other than that of the gate may have made room
    if move_gate(topic) or rc_u32_load(&topic.c.limited) != 0:
        tell_of_room(topic.c)


cdef void advance_records(rc_topic *c) noexcept nogil:
    """The same for a topic of records. Any thread, attached or not."""
    if pass_records(c) or rc_u32_load(&c.limited) != 0:
        tell_of_room(c)


cdef void tell_of_room(rc_topic *c) noexcept nogil:
    if rc_u32_load(&c.limited) != 0:
        rc_ring_wake(&c.ring)
    if rc_u32_load_seq(&c.room_waiters) != 0:   # seq: after the gate, with Core._when_room
        tell_room_waiters(c)


cdef void tell_room_waiters(rc_topic *c) noexcept with gil:
    (<Topic>c.host).tell_room_waiters()


cdef inline bint holds_gate(rc_member *sub) noexcept nogil:
    """Whether its cursor keeps the gate back: until it has had its last event, and nobody is at what was discarded."""
    # seq: the end, which a cancel has moved, before the look at whether a turn has begun with the end that was before
    if rc_u64_load_seq(&sub.cursor) < rc_u64_load_seq(&sub.end):
        return True
    return rc_u32_load_seq(&sub.running) != 0 and rc_u32_load(&sub.retired) == 0


cdef bint pass_records(rc_topic *c) noexcept nogil:
    """As move_gate, for records, which nobody has to release."""
    cdef uint64_t target, gate
    cdef uint32_t at
    rc_mutex_lock(&c.lock)
    gate = rc_ring_gate(&c.ring)
    target = rc_u64_load(&c.end)
    for at in range(c.cursor_count):
        if holds_gate(c.cursors[at]):
            target = min(target, rc_u64_load(&c.cursors[at].cursor))
    rc_record_pass(&c.ring, target)
    rc_mutex_unlock(&c.lock)
    return target > gate


cdef bint move_gate(Topic topic) noexcept:
    """Moves the gate to the last cursor and releases the events that it has passed. Returns whether it has moved."""
    cdef rc_topic *c = topic.c
    cdef rc_member *sub
    cdef PyObject *events[BATCH]
    cdef uint64_t gate, target, cursor
    cdef Py_ssize_t count = BATCH, at
    cdef bint moved = False
    if c.ring.record_size != 0:
        return pass_records(c)
    while count == BATCH:
        rc_mutex_lock(&c.lock)
        gate = rc_ring_gate(&c.ring)
        target = rc_u64_load(&c.end)
        for at in range(len(topic.subscriptions)):
            sub = &(<Subscription>topic.subscriptions[at]).c
            cursor = rc_u64_load(&sub.cursor)
            if cursor < target and holds_gate(sub):
                target = cursor
        count = 0
        while count < BATCH and gate + count < target:
            events[count] = <PyObject *>rc_ring_take(&c.ring, gate + count)
            count += 1
        if count:
            moved = True
            rc_ring_move_gate(&c.ring, gate + count)
        rc_mutex_unlock(&c.lock)
        for at in range(count):   # not under the lock: the last reference runs finalizers
            Py_DECREF(events[at])
    return moved


cdef uint64_t first_position = 0   # of the rings that are made from now on


def _start_positions_at(uint64_t position):
    """For tests: topics that are made from now on begin at this position, not at 0. Positions end at 2**63."""
    global first_position
    first_position = position


@cython.final
cdef class Topic:
    """All that belongs to one type id of one dispatcher."""
    cdef rc_topic *c
    cdef tuple subscriptions   # that have their events from the ring. Replaced, never changed; guarded by c.lock
    cdef tuple direct          # that are called inside publish, in this order; the same
    cdef tuple ending          # direct ones that are cancelled and not over: their handlers are at work; the same
    cdef Topic companion       # the same events, each with the context of its publisher; or None. See find_companion
    cdef list waiters          # called when there may be room; guarded by the Core's lock
    cdef Layout layout         # of records; None: a topic of events
    cdef int routes            # of its classes that lead to wide topics as well; guarded by c.lock
    cdef bint passing          # a wide topic or a companion: goes with the last of its subscriptions
    cdef readonly uint32_t type_id
    cdef readonly bint automatic   # the id goes with its class
    cdef object scope          # of a wide topic and its companion: which events they are for, a Scope; else None
    cdef Pool pool             # what c.pool and c.native_pool point into
    cdef NativePool native_pool

    def __cinit__(self, Core core, uint32_t type_id, bint automatic, Layout layout=None):
        cdef int failed
        self.subscriptions = self.direct = self.ending = ()
        self.waiters = []
        self.layout = layout
        self.type_id = type_id
        self.automatic = automatic
        self.pool = core.pool
        self.native_pool = core.native_pool
        self.c = <rc_topic *>rc_aligned_zalloc(sizeof(rc_topic))
        failed = self.c == NULL
        if not failed and layout is None:
            failed = rc_ring_init(&self.c.ring, core.max_queue, RESERVE, first_position)
        elif not failed:
            failed = rc_record_ring_init(&self.c.ring, core.max_queue, RESERVE, first_position, layout.size)
        if not failed and rc_mutex_init(&self.c.lock):
            rc_ring_destroy(&self.c.ring)
            failed = True
        if failed:
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        rc_task_init(&self.c.task, RC_TOPIC, self.c)
        rc_task_init(&self.c.native_task, RC_TOPIC, self.c)
        self.c.host = <PyObject *>self
        self.c.bus = <PyObject *>core
        self.c.pool = &core.pool.c
        self.c.native_pool = &core.native_pool.c
        self.c.timing = core.timing
        rc_u32_store(&self.c.turn, RC_TURN_EVENTS)
        rc_u64_store(&self.c.limit, core.max_queue)
        self.c.first = rc_ring_tail(&self.c.ring)
        rc_u64_store(&self.c.end, self.c.first)
        rc_u64_store(&self.c.native_end, self.c.first)
        self.set_plain()

    def __dealloc__(self):
        cdef uint64_t position
        if self.c == NULL:
            return
        # only what a publisher left behind that a close overtook: see Core.close
        if self.c.ring.record_size == 0:
            for position in range(rc_ring_gate(&self.c.ring), rc_ring_tail(&self.c.ring)):
                Py_DECREF(<PyObject *>rc_ring_take(&self.c.ring, position))
            rc_ring_move_gate(&self.c.ring, rc_ring_tail(&self.c.ring))
        else:
            rc_record_pass(&self.c.ring, rc_ring_tail(&self.c.ring))
        rc_ring_destroy(&self.c.ring)
        rc_mutex_destroy(&self.c.lock)
        PyMem_RawFree(self.c.cursors)
        rc_aligned_free(self.c)

    cdef void let_go(self) noexcept:
        """For the garbage collector: lets go of the subscriptions, through which circles go. Only finalizers can still
        use the topic; for these it is one that all subscriptions have left."""
        cdef tuple members, direct, ending
        rc_mutex_lock(&self.c.lock)
        members = self.subscriptions   # released after the lock
        direct = self.direct
        ending = self.ending
        self.direct = self.ending = ()
        self.set_members(())
        rc_u32_store(&self.c.subscribers, 0)
        rc_u32_store(&self.c.plain, 0)   # not set_plain: the Core may be gone
        rc_mutex_unlock(&self.c.lock)

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
            rc_u64_count(&(<Subscription>direct[at]).c.taken, 1)
        rc_mutex_unlock(&self.c.lock)
        return direct

    cdef Topic find_companion(self):
        cdef Topic companion
        if not rc_u32_load(&self.c.accompanied):   # mostly
            return None
        rc_mutex_lock(&self.c.lock)
        companion = self.companion
        rc_mutex_unlock(&self.c.lock)
        return companion

    cdef void set_companion(self, Topic companion) noexcept:
        """Under the Core's lock. The caller holds the companion that was before."""
        rc_mutex_lock(&self.c.lock)
        self.companion = companion
        rc_u32_store(&self.c.accompanied, companion is not None)
        self.set_plain()
        rc_mutex_unlock(&self.c.lock)

    cdef bint is_unused(self):
        """Whether an event that is published now would be for nobody here, nor in its companion."""
        return subscribers_of(self.c) == 0 and len(self.direct_members()) == 0 and self.find_companion() is None

    cdef bint is_deserted(self):
        """Whether no subscription is left, nor a companion, which goes with the last of its own. Under the Core's lock,
        so that none joins meanwhile."""
        return not self.all_members() and self.companion is None

    cdef join(self, Subscription sub):
        """Adds a subscription, which starts with the next event to be published."""
        cdef tuple old, new
        cdef bint joined = False, direct = sub.c.mode == RC_DIRECT
        cdef rc_member **cursors
        cdef rc_member **replaced
        while not joined:
            old = self.direct_members() if direct else self.members()
            new = old + (sub,)
            # of direct ones, higher priorities first; native ones last. sorted() keeps the order of equal ones
            new = tuple(sorted(new, key=direct_rank if direct else native_rank))
            cursors = replaced = NULL
            if self.layout is not None:
                cursors = <rc_member **>PyMem_RawMalloc(len(new) * sizeof(void *))
                if cursors == NULL:
                    raise MemoryError
            rc_mutex_lock(&self.c.lock)
            joined = old is (self.direct if direct else self.subscriptions)
            if joined and direct:
                self.direct = new
                self.set_plain()
            elif joined:
                replaced = self.c.cursors
                self.c.cursors = cursors
                cursors = NULL
                rc_u32_store_seq(&self.c.joining, 1)   # seq, as what follows: before the tail is read
                if rc_u32_load(&self.c.plain) == RC_NOBODY:
                    rc_u32_store_seq(&self.c.plain, 0)
                self.set_members(new)
                # under the lock the gate stands still, at or before the tail: it cannot pass the new cursor
                rc_u64_store(&sub.c.start, rc_ring_tail(&self.c.ring))
                rc_u64_store(&sub.c.cursor, rc_u64_load(&sub.c.start))
                self.count_subscribers(1)
                rc_u32_store(&self.c.joining, 0)
            rc_mutex_unlock(&self.c.lock)
            PyMem_RawFree(cursors)
            PyMem_RawFree(replaced)

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
                self.set_plain()
            rc_mutex_unlock(&self.c.lock)

    cdef void leave(self, Subscription sub):
        """Takes out a subscription that has had its last event."""
        cdef tuple old, new
        cdef bint left = False, direct = sub.c.mode == RC_DIRECT
        while not left:
            old = self.ending_members() if direct else self.members()
            new = tuple([
                member for member in old if member is not sub and not rc_u32_load(&(<Subscription>member).c.retired)
            ])
            rc_mutex_lock(&self.c.lock)
            left = old is (self.ending if direct else self.subscriptions)
            if left and direct:
                self.ending = new
            elif left:
                self.set_members(new)
            rc_mutex_unlock(&self.c.lock)

    cdef void set_members(self, tuple members) noexcept:
        """Under the lock; the caller holds the old tuple, so that it is not released here."""
        cdef uint64_t limit = self.c.ring.max_queue
        cdef uint32_t pooled = 0, limited = 0, turn = RC_TURN_EVENTS, native = 0, particular = 0
        cdef Py_ssize_t at
        cdef rc_member *sub
        for at in range(len(members)):
            sub = &(<Subscription>members[at]).c
            pooled += sub.mode == RC_QUEUED
            native += sub.mode == RC_NATIVE
            turn = max(turn, sub.batch)
            particular += (
                sub.mail != NULL or sub.policy == RC_RAISE or sub.mode == RC_LOOP
                or sub.max_queue < self.c.ring.max_queue
            )
            if sub.mail == NULL and sub.max_queue < self.c.ring.max_queue:
                limited += 1
                limit = min(limit, sub.max_queue)
            if self.c.cursors != NULL:   # has room for them: join has made it, and leave takes some away
                self.c.cursors[at] = sub
        self.subscriptions = members
        rc_u32_store(&self.c.turn, turn)
        self.c.cursor_count = <uint32_t>len(members)
        rc_u32_store(&self.c.pooled, pooled)
        rc_u32_store(&self.c.limited, limited)
        rc_u32_store(&self.c.particular, particular)
        rc_u64_store(&self.c.limit, limit)
        # seq: before join reads the tail, with wake_natives
        rc_u32_store_seq(&self.c.task.members, <uint32_t>len(members) - native)
        rc_u32_store_seq(&self.c.native_task.members, native)

    cdef void count_subscribers(self, int more) noexcept:
        """Under the lock."""
        rc_u32_store(&self.c.subscribers, rc_u32_load(&self.c.subscribers) + more)
        self.set_plain()

    cdef void set_plain(self) noexcept:
        """Under the lock: tells publish whether all it has to do is to queue, or nothing at all."""
        cdef uint32_t plain = 0
        cdef bint elsewhere = len(self.direct) != 0 or self.companion is not None or self.routes != 0
        rc_u32_store(&self.c.elsewhere, elsewhere)
        if not elsewhere:
            plain = rc_u32_load(&self.c.subscribers)
            if plain == 0:
                plain = RC_NOBODY
            elif rc_u32_load(&self.c.pooled) != 0 and not rc_u32_load(&(<Core>self.c.bus).started):
                plain = 0
        rc_u32_store(&self.c.plain, plain)

    cdef void pass_unwanted(self) noexcept:
        """Lets the gate pass what nobody waits for any more, also where no worker is free to come to it."""
        look_for_events(self.c, RC_NEVER)
        advance(self)

    cdef void count_routes(self, int more) noexcept:
        rc_mutex_lock(&self.c.lock)
        self.routes += more
        self.set_plain()
        rc_mutex_unlock(&self.c.lock)

    cdef uint64_t room_limit(self):
        """How many events may be between the gate and the tail now, that no subscription which holds up publishers is
        its max_queue behind; after what drops events rather has been made to do so."""
        cdef Subscription sub
        cdef uint64_t gate, limit
        for sub in self.members():
            if sub.c.mail != NULL:
                make_room(&sub.c)
        look_for_events(self.c, RC_NEVER)   # also where the topic's worker is stuck in a handler
        if move_gate(self):   # else nobody is told: those who wait would wake each other to look, and so on for ever
            tell_of_room(self.c)
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
            if sub.c.policy == RC_RAISE and sub.c.mail == NULL and sub.waiting() >= sub.c.max_queue:
                return sub
        return None

    cdef Py_ssize_t reach(self):
        """How many subscriptions an event reaches."""
        cdef Py_ssize_t count = rc_u32_load(&self.c.subscribers) + len(self.direct_members())
        cdef Topic companion = self.find_companion()
        return count if companion is None else count + companion.reach()

    cdef bint is_run_here(self):
        """Whether one of its subscriptions has its events handled by the event loop that runs in this thread."""
        cdef Subscription sub
        running = running_loop()
        if running is not None:
            for sub in self.members():
                if sub.event_loop() is running:
                    return True
        return False

    cdef leave_closed_loops(self):
        """Gives up what waits for event loops that are closed."""
        cdef Subscription sub
        for sub in self.members():
            loop = sub.event_loop()
            if loop is not None and loop.is_closed():
                sub._abandon()

    cdef tell_room_waiters(self):
        cdef Core core = <Core>self.c.bus
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
        cdef unsigned spins = 0
        while look_for_events(self.c, RC_NEVER) != rc_ring_tail(&self.c.ring):
            rc_ring_pause(spins)
            spins += 1
        if self.has_work():
            schedule(self.c, &self.c.task, self.c.host)
        schedule_native(self.c)

    cdef bint has_work(self):
        """Whether the holder of the task has something to do. Also its last look after it has released it: so it
        reads no slot, which another holder may have emptied meanwhile."""
        cdef uint64_t end = rc_u64_load(&self.c.end)
        cdef Subscription sub
        if rc_ring_tail(&self.c.ring) != end:
            return True
        for sub in self.members():
            if sub.c.mode != RC_NATIVE and rc_task_now(&sub.c.lane) != RC_SCHEDULED and sub.has_work(end):
                return True
        return False


cdef inline uint64_t between(uint64_t before, uint64_t cursor, uint64_t end) noexcept nogil:
    """How many events there are from a cursor up to the tail, which was `before` when the cursor was read, and `end`
    after that. Of those that came in between one counts: the others may have taken its room."""
    return 0 if end <= cursor else max(min(before, end), cursor + 1) - cursor


cdef running_loop():
    """The event loop that runs in this thread, or None. asyncio is not imported for the question."""
    asyncio = rc_get(sys.modules, "asyncio.events")
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


def native_rank(Subscription sub):
    return sub.c.mode == RC_NATIVE
