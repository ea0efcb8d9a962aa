# Dispatchers: from a class or id to its topic; publish, subscribe, close.

@cython.final
@cython.no_gc_clear
cdef class ClassEntry:
    """What a dispatcher knows of an event class. It is the callback of a weak reference to the class, and so goes with
    the class: another class at the same address is not taken for it."""
    cdef uint64_t address
    cdef object core_reference
    cdef tuple topics           # that are bound to the class
    cdef tuple replaced         # that were, until the class was defined again

    def __call__(self, reference):
        core = self.core_reference()
        if core is not None:
            (<Core>core).forget(self, reference)


@cython.no_gc_clear
cdef class Core:
    """The compiled base of Dispatcher, which documents it."""
    cdef rc_registry by_class   # address of the class -> rc_topic, or by_instance
    cdef rc_registry by_id      # type id + 1 -> rc_topic
    cdef int made
    cdef rc_u32 closing
    cdef bint ended             # _begin_close has done all it has to
    cdef rc_u32 shut            # the same for publish_to_all
    cdef rc_u32 sharing         # threads that are just claiming in several rings, which all stay open for that
    cdef readonly uint64_t max_queue
    cdef readonly uint32_t max_workers
    cdef readonly str name
    cdef Pool pool
    cdef Pool native_pool
    cdef uint64_t natives       # native subscriptions that have not had their last record
    cdef object starting        # held by whoever starts the threads
    cdef object lock            # of what follows; re-entrant, because finalizers may come in anywhere
    cdef dict topics            # type id -> Topic
    cdef dict classes           # address -> weak reference to the class, whose callback is a ClassEntry
    cdef dict routes            # address of a class -> Route
    # where a topic goes, by a new list: a finalizer that cancels may come in while the old one is walked
    cdef list wide              # Topics of the events of several classes: see core/route.pxi
    cdef rc_u32 unions          # how many of these have classes without their subclasses
    cdef list companions        # Topics of other topics' events, with contexts
    cdef list parted            # Topics whose class has gone, until their subscriptions have left
    cdef uint64_t subscribed    # subscriptions made
    cdef bint raises            # publish raises what direct handlers have raised
    cdef bint timing
    cdef dict room_waiters      # address of an rc_topic -> callables, each called once when there may be room there
    cdef rc_u32 waiting_handlers   # on event loops: see core/waiting.pxi
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        if rc_registry_init(&self.by_class) != 0:
            raise MemoryError
        self.made = 1
        if rc_registry_init(&self.by_id) != 0:
            raise MemoryError
        self.made = 2
        rc_u32_store(&self.closing, 1)   # until __init__
        self.starting = threading.Lock()
        self.lock = threading.RLock()
        self.topics = {}
        self.classes = {}
        self.routes = {}
        self.wide = []
        self.companions = []
        self.parted = []
        self.room_waiters = {}

    def __init__(
        self, uint64_t max_queue, uint32_t max_workers, uint32_t spare, uint32_t parallel, uint32_t cpus, str name,
        bint raises, bint timing
    ):
        if self.pool is not None:
            raise RuntimeError("a dispatcher is initialised once")
        self.max_queue = max_queue
        self.max_workers = max_workers
        self.name = name
        self.raises = raises
        self.timing = timing
        self.pool = Pool.__new__(Pool, None, name, max_workers, spare, parallel)
        self.native_pool = Pool.__new__(
            Pool, self.pool, f"{name}-native", max_workers, spare, min(cpus, max_workers)
        )
        self.pool.c.bus = self.native_pool.c.bus = <PyObject *>self
        rc_u32_store(&self.closing, 0)

    def __del__(self):
        # Nothing is outstanding, or there would be a pin: only idle threads are left. Another finalizer may
        # keep the dispatcher all the same: it is closed then. One that is closed already takes no lock: at the very end
        # of a program the locks of gevent and eventlet, which are Python code, work no more.
        if self.native_pool is not None and not self.ended:   # None: it was never made
            Core._begin_close(self)

    def __dealloc__(self):
        if self.native_pool is not None:   # again, as a subclass may have a __del__ of its own
            rc_pool_stop(&self.pool.c)
            rc_pool_stop(&self.native_pool.c)
            # A publisher in C may have scheduled a native task after the last native member left. There is nothing to
            # do for it, and it has no reference: it ends first.
            with nogil:
                end_tasks(&self.native_pool.c)
            self.pool.threads.clear()   # subscriptions that others keep have the pools, and need no thread
            self.native_pool.threads.clear()
        if self.made >= 1:
            rc_registry_destroy(&self.by_class)
        if self.made >= 2:
            rc_registry_destroy(&self.by_id)

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} has threads of its own: it is not copied or pickled; "
                        "each process and each copy makes one")

    # --- publish ---

    def publish(self, event, /, *, timeout=None):
        """Queues an event for all that are subscribed to its class, calls its direct handlers, and returns.

        The event is written once, whatever the number of subscribers. Takes no lock; any number of threads may
        publish at once. Events of one type reach every subscriber in the order in which they were published.

        At `max_queue` events that the slowest subscriber has not finished it waits for room, or does what the policy of
        that subscription says. Inside a handler it waits only where that can end: for room that this very handler, or
        handlers that wait for it, would have to make it does not wait, but goes past `max_queue`, by 65,536 events at
        most.

        Direct handlers run when the event is queued for the others. What a direct handler publishes reaches direct
        handlers after the event at hand has reached all of them, and before the outermost publish returns.

        Args:
            event: an object of any class. Its class, or its `__event_type__`, says what type it is of.
            timeout: how long to wait for room, in seconds; None: as long as it takes.

        Returns:
            How many subscriptions it reaches, an int. (Those that are subscribed or cancelled at the very moment may
            or may not be among them.)

        Raises:
            ClosedError: the dispatcher is closed, or was closed while this waited.
            EventClassError: the event's type id belongs to another class; or a class, in place of an event, would reach
                nobody.
            TypeIdError: its `__event_type__` is no integer from 0 to 2**32 - 1.
            QueueFullError: a subscription of policy "raise" is `max_queue` behind; or inside a handler, 65,536 events
                past `max_queue`.
            PublishTimeoutError: there was no room in time.
            KeyboardInterrupt: Ctrl-C ended the wait for room.
            MemoryError: no memory for the queue. (Without the GIL an event that is also for base classes, or for
                handlers that want the publisher's context, may have reached some of them.)
            StartError: the first publish to a queued handler could start no thread.
            After each of these the event has reached nobody.
            ExceptionGroup: with `on_error="raise"`, what direct handlers have raised, when all have run. (A
                BaseExceptionGroup where one of it is no Exception.)
            KeyboardInterrupt, SystemExit, or what ends a greenlet or its wait: the first that a direct handler has
                raised, as it is, when all have run; what else they have raised goes to `on_error` then.
        """
        return self.publish_rare(event, nanoseconds(timeout))   # see publish_quickly

    def publish_to(self, type_id, event, /, *, timeout=None):
        """Queues an event under a type id, whatever its class says; otherwise as `publish`.

        Args:
            type_id: from 0 to 2**32 - 1.
            event: an instance of the class that the id belongs to, if it belongs to one; else the id is that class's
                from now on. (An id that nobody is subscribed to stays open.)
            timeout: as for `publish`.

        Returns:
            How many subscriptions it reaches, an int.

        Raises:
            The same as `publish`.
        """
        cdef rc_topic *topic = self.find_event_id(type_id, event)
        cdef rc_topic *by_class
        cdef tuple wide = ()
        if self.wide:
            by_class = self.find_class(type(event))
            if by_class.kind == RC_ROUTE:
                wide = (<Route>by_class.host).wide_topics()
            wide = self.wide_under(topic, wide)
        return self.publish_in(topic, event, wide, nanoseconds(timeout))

    def publish_many(self, events, record_type=None, /, *, timeout=None):
        """Publishes events one after the other, as `publish` does each, but claims room for as many at once as there
        are free slots side by side.

        Their order is kept. Events of other publishers may come in between, where one such run ends and the next
        begins; within a run they may not.

        Args:
            events: an iterable of events, of one class or several. A list or tuple is taken as it is when the call
                begins; anything else is taken in parts of 256 events, so what a generator has given is published at the
                latest when 256 are together, or it ends. If it raises, what it gave before is published, and the
                exception is raised.
                Or records: a structured NumPy array of one dimension, a RecordBatch, or, with `record_type`, any buffer
                of their bytes. They are copied in runs of up to 512.
            record_type: the type of the records. Where it is not given, it is the one that was declared with the
                array's dtype.
            timeout: how long all of them together may wait for room, in seconds; None: as long as it takes.

        Returns:
            How many events it has published, an int: all of them.

        Raises:
            EventClassError: the records are not of that type, or of no type.
            The same as `publish`. RingcastErrors, and the ExceptionGroup of direct handlers, have the attribute
                `published`: how many events were published, with the one that the direct handlers failed on. The event
                after these, and all that follow, have reached nobody.
        """
        cdef int64_t left = nanoseconds(timeout)
        cdef int64_t deadline = -1 if left < 0 else time.monotonic_ns() + left
        cdef uint64_t done = 0
        if record_type is None and (type(events) is list or type(events) is tuple):
            return self.publish_events(tuple(events), done, deadline)
        from ringcast.records import check_batch   # which needs this module

        records = check_batch(events, record_type)
        if records is not None:
            return self.publish_buffer(records[0], records[1], deadline)
        iterator = iter(events)
        while True:
            some, failure = take_some(iterator)
            done = self.publish_events(some, done, deadline)
            if failure is not None:
                raise failure
            if len(<tuple>some) < BATCH:
                return done

    cdef uint64_t publish_buffer(self, record_type, source, int64_t deadline) except? <uint64_t>-1:
        """Publishes records that stand side by side in a buffer. Returns how many."""
        cdef rc_topic *found = self.find_class(record_type)
        cdef Layout layout = layout_of(record_type)
        cdef Py_buffer buffer
        cdef uint64_t count
        PyObject_GetBuffer(source, &buffer, PyBUF_SIMPLE)
        try:
            count = buffer.len // layout.size
            self.publish_records(found, layout, <const char *>buffer.buf, count, deadline)
        finally:
            PyBuffer_Release(&buffer)
        return count

    cdef publish_records(self, rc_topic *c, Layout layout, const char *records, uint64_t count, int64_t deadline):
        cdef Topic topic
        cdef uint64_t done = 0
        cdef rc_claim claim
        try:
            if c.kind == RC_OF_CLASS and (<Topic>c.host).layout is layout:
                topic = <Topic>c.host
                self.prepare(topic)
                while done < count and rc_u32_load(&c.elsewhere) == 0:
                    if subscribers_of(c) == 0:   # nobody is subscribed any more
                        self.check_open()
                        return
                    done += self.copy_records(c, records + done * layout.size, count - done, &claim)
                    if claim != RC_CLAIMED:   # no room, or closed: one the long way, which waits
                        self.publish_rare(new_record(layout, records + done * layout.size), time_left(deadline))
                        done += 1
            while done < count:   # they also go where events are objects
                self.publish_rare(new_record(layout, records + done * layout.size), time_left(deadline))
                done += 1
        except (RingcastError, BaseExceptionGroup) as error:
            error.published = done + getattr(error, "published", 0)   # see deliver_direct
            raise

    cdef uint64_t copy_records(self, rc_topic *c, const char *records, uint64_t count, rc_claim *claim) noexcept:
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

    cdef uint64_t publish_events(self, tuple events, uint64_t before, int64_t deadline) except? <uint64_t>-1:
        """Publishes these, after `before` others of the same call. Returns how many that makes."""
        cdef PyObject **items = PyTuple_Items(<PyObject *>events)
        cdef Py_ssize_t count = len(events), at = 0, end, most
        cdef PyTypeObject *event_class
        cdef rc_topic *topic
        cdef uint32_t subscribers
        cdef rc_claim claim
        try:
            while at < count:
                event_class = Py_TYPE(items[at])
                topic = <rc_topic *>rc_registry_find(&self.by_class, class_key(event_class))
                subscribers = 0 if topic == NULL else rc_u32_load(&topic.plain)
                if subscribers == RC_NOBODY and PyType_Check(items[at]):   # publish_rare refuses it
                    subscribers = 0
                if subscribers != 0:
                    # no further than one claim can reach: where the queue is full, this looks again after each event
                    most = min(count, at + <Py_ssize_t>RC_PAGE_SLOTS)
                    end = at + 1
                    while end < most and Py_TYPE(items[end]) == event_class:
                        end += 1
                    if subscribers == RC_NOBODY:
                        self.check_open()   # a close may have just cancelled them
                        at = end
                        continue
                    at += try_publish_run(topic, &items[at], end - at, rc_u64_load(&topic.limit), &claim)
                    if claim == RC_CLAIMED:
                        continue
                self.publish_rare(events[at], time_left(deadline))
                at += 1
        except (RingcastError, BaseExceptionGroup) as error:
            error.published = before + at + getattr(error, "published", 0)
            raise
        return before + count

    def _publish_beyond(self, event):
        """As publish, for a handler whose wait for room would never end: goes past max_queue."""
        return self.publish_rare(event, BEYOND)

    cdef publish_rare(self, event, int64_t timeout):
        """Everything but a plain claim in a ring that has room for it."""
        cdef tuple wide = ()
        cdef rc_topic *topic = <rc_topic *>rc_registry_find(&self.by_class, class_key(Py_TYPE(<PyObject *>event)))
        if topic == NULL:
            topic = self.find_class(type(event))   # seen for the first time, or closed
        if topic.kind == RC_OF_CLASS:
            return self.publish_in_one(<Topic>topic.host, event, timeout)
        if topic.kind == RC_ROUTE:
            route = <Route>topic.host
            wide = (<Route>route).wide_topics()
            topic = (<Topic>(<Route>route).own).c if (<Route>route).own is not None else &by_instance
        if topic.kind == RC_BY_INSTANCE:
            topic = self.find_event_id(event.__event_type__, event)
            wide = self.wide_under(topic, wide)
        return self.publish_in(topic, event, wide, timeout)

    cdef tuple wide_under(self, rc_topic *topic, tuple wide):
        """The wide topics of an event that is published under an id which its class does not state. `topic`: that of
        the id, or NULL. `wide`: those that its class leads to."""
        cdef Topic each
        cdef uint32_t type_id
        cdef list reached, of_id = []
        if rc_u32_load(&self.unions) == 0:
            return wide
        reached = [each for each in wide if len((<Scope>each.scope).bases) != 0]
        if topic != NULL:
            type_id = (<Topic>topic.host).type_id
            with self.lock:
                of_id = [each for each in self.wide if (<Scope>each.scope).has_id(type_id) and each not in reached]
        return tuple(reached + of_id)

    cdef publish_in(self, rc_topic *topic, event, tuple wide, int64_t timeout):
        """Publishes in a topic (NULL: nobody has used its id) and in wide ones."""
        cdef Topic own
        if topic != NULL:
            own = <Topic>topic.host
            if not wide:
                return self.publish_in_one(own, event, timeout)
            if not own.is_unused():   # else only base classes are subscribed to
                return self.publish_to_all([own, *wide], event, timeout)
        if len(wide) == 1:
            return self.publish_in_one(<Topic>wide[0], event, timeout)
        return self.publish_to_all(list(wide), event, timeout)

    @cython.final
    cdef publish_in_one(self, Topic topic, event, int64_t timeout):
        """Publishes in a topic, and its companion."""
        cdef uint32_t subscribers = subscribers_of(topic.c)
        cdef tuple direct
        if topic.find_companion() is not None:
            return self.publish_to_all([topic], event, timeout)
        if subscribers != 0:
            self.prepare(topic)
        direct = topic.take_direct()   # before the claim: while that succeeds, no close has cancelled any
        if subscribers == 0:
            if rc_u32_load(&self.closing):
                give_back(direct, 0, forks)
                self.check_open()   # raises
            if len(direct) == 0 and PyType_Check(<PyObject *>event):
                refuse_class(event)
        elif try_publish(topic.c, <PyObject *>event, rc_u64_load(&topic.c.limit)) != RC_CLAIMED:
            give_back(direct, 0, forks)
            direct = self.publish_when_room(topic, event, timeout)
        if len(direct) != 0:
            if subscribers == 0:
                rc_u64_count(&topic.c.only_direct, 1)
            deliver_direct(self, direct, event)
        return subscribers + len(direct)

    cdef publish_to_all(self, list topics, event, int64_t timeout):
        """Publishes in several topics: in all of them, or in none."""
        cdef Topic topic, companion
        cdef list targets = []   # (topic, what to publish there)
        cdef list unqueued = []   # topics that have direct handlers only
        cdef list taken = [()] * len(topics)   # of each the direct subscriptions
        cdef tuple direct
        cdef Py_ssize_t reached = 0, stored = 0, at
        cdef rc_claim claim = RC_CLAIMED
        cdef int64_t deadline = timeout if timeout < 0 else time.monotonic_ns() + timeout
        for topic in topics:
            if subscribers_of(topic.c) != 0:
                targets.append((topic, event))
            companion = topic.find_companion()
            if companion is not None and subscribers_of(companion.c) != 0:
                targets.append((companion, envelop(event)))
        for topic, _ in targets:
            self.prepare(topic)
            self.await_room(topic, deadline)
        try:
            for at in range(len(topics)):
                topic = <Topic>topics[at]
                members = taken[at] = topic.take_direct()
                if len(<tuple>members) != 0 and subscribers_of(topic.c) == 0:
                    unqueued.append(topic)
            direct = tuple(sorted([sub for members in taken for sub in members], key=direct_rank_of_all))
            rc_u32_add_seq(&self.sharing, 1)   # seq: before the look at `shut`, with await_sharing
            if rc_u32_load_seq(&self.shut):
                claim = RC_CLOSED
            else:   # no Python code runs in here: close waits for the end of it
                # Looked at before anything is stored: with the GIL nobody takes the room or the memory from the claims.
                # A publisher in C may, but it leaves the reserve.
                for topic, what in targets:
                    claim = rc_ring_look(&topic.c.ring, self.max_queue + RESERVE)
                    if claim != RC_CLAIMED:
                        break
            # from here to the wake nothing is allocated, as that may fail
            if claim == RC_CLAIMED:
                for topic, what in targets:
                    reached += rc_u32_load(&topic.c.subscribers)
                    # there was room; if others came in between, this goes a little past it rather than to stay half
                    # done
                    claim = put(topic.c, <PyObject *>what, self.max_queue + RESERVE)
                    if claim != RC_CLAIMED:
                        break
                    stored += 1
            rc_u32_add_seq(&self.sharing, <uint32_t>-1)
            for at in range(stored):
                rc_bus_wake((<Topic>(<tuple>targets[at])[0]).c)
            if claim != RC_CLAIMED:
                self.claimed(topic, claim)   # where it stopped
        except BaseException:
            for members in taken:
                give_back(<tuple>members, 0, forks)
            raise
        for topic in unqueued:
            rc_u64_count(&topic.c.only_direct, 1)
        if direct:
            deliver_direct(self, direct, event)
        elif reached == 0 and PyType_Check(<PyObject *>event):
            refuse_class(event)
        return reached + len(direct)

    cdef prepare(self, Topic topic):
        """Starts the threads, if the topic needs any; the next publish need not come here then."""
        if rc_u32_load(&topic.c.pooled) != 0:
            self.start(self.pool)
        if rc_u32_load(&topic.c.plain) == 0:
            rc_mutex_lock(&topic.c.lock)
            rc_topic_set_plain(topic.c)
            rc_mutex_unlock(&topic.c.lock)

    cdef start(self, Pool pool):
        """Starts the threads of a pool, unless they are there. Not under self.lock, and without waiting for long where
        another call does so: whoever starts a thread waits for it, and the new thread may first have to run a finalizer
        that publishes or forgets a class."""
        if rc_u32_load(&pool.c.started):
            return
        starting = self.starting   # a fork replaces it
        if not starting.acquire(timeout=START_SECONDS):
            return
        try:
            if not rc_u32_load(&pool.c.started):
                pool.start()
                rc_u32_store(&pool.c.started, 1)
        finally:
            starting.release()

    # --- waiting for room ---

    cdef tuple publish_when_room(self, Topic topic, event, int64_t timeout):
        """Publishes in a ring that has refused the claim, after waiting for room if that is why. Returns the direct
        subscriptions of that moment."""
        cdef rc_claim claim
        cdef uint64_t gate, limit
        cdef uint32_t ticket
        cdef bint reserve = False
        cdef int64_t deadline = timeout if timeout < 0 else time.monotonic_ns() + timeout
        while True:
            ticket = rc_park_prepare(&topic.c.ring.room)   # before the look at what there is room for
            try:
                gate = rc_ring_gate(&topic.c.ring)
                limit = self.max_queue + RESERVE if reserve else topic.room_limit()
                direct = topic.take_direct()   # before the claim, as in publish_in
                claim = try_publish(topic.c, <PyObject *>event, limit)
                if claim == RC_CLAIMED:
                    return direct
                give_back(direct, 0, forks)
                if claim != RC_FULL or reserve:
                    self.claimed(topic, claim)   # raises
                reserve = self.wait_for_room(topic, gate, ticket, deadline)
            finally:
                rc_park_cancel(&topic.c.ring.room)

    cdef await_room(self, Topic topic, int64_t deadline):
        """Waits until there is room in the ring, or none is needed."""
        cdef uint64_t gate
        cdef uint32_t ticket
        while True:
            ticket = rc_park_prepare(&topic.c.ring.room)   # as in publish_when_room
            try:
                gate = rc_ring_gate(&topic.c.ring)
                if rc_ring_tail(&topic.c.ring) - gate < topic.room_limit():
                    return
                self.check_open()
                if self.wait_for_room(topic, gate, ticket, deadline):
                    if rc_ring_tail(&topic.c.ring) - gate >= self.max_queue + RESERVE:
                        self.claimed(topic, RC_FULL)
                    return
            finally:
                rc_park_cancel(&topic.c.ring.room)

    cdef claimed(self, Topic topic, rc_claim claim):
        """Raises what is to be raised of a claim that was made for good."""
        if claim == RC_CLOSED:
            raise closed_error(f"{self!r} is closed: it accepts no events")
        if claim == RC_NO_MEMORY:
            raise MemoryError
        if claim == RC_FULL:
            coroutine = current_coroutine()
            if coroutine is not None and not self.is_worker():
                raise QueueFullError(
                    f"the coroutine {coroutine} has published {RESERVE} events beyond max_queue={self.max_queue} to "
                    f"{describe(None, topic)} that wait for the event loop which it does not let go on: "
                    "`await bus.apublish(event)` waits for room"
                )
            raise QueueFullError(
                f"handlers have published {RESERVE} events beyond max_queue={self.max_queue} to "
                f"{describe(None, topic)} that wait for these very handlers: raise max_queue, or publish "
                "fewer events for each event handled"
            )

    cdef bint wait_for_room(self, Topic topic, uint64_t gate, uint32_t ticket, int64_t deadline) except -1:
        """Waits for the gate to move from `gate`, or a while. Returns True where that would never end: then the reserve
        is to be used. `ticket` of the ring's park is from before the caller has found that there is no room."""
        cdef rc_pool *pool = &self.pool.c
        cdef rc_worker *worker = rc_pool_current(pool)
        cdef Subscription refusing = topic.refusing()
        cdef int64_t left = SLICE
        if refusing is not None:
            raise QueueFullError(f"{refusing!r} has max_queue={refusing.max_queue} events pending")
        if deadline >= 0:
            left = min(left, deadline - time.monotonic_ns())
            if left <= 0:
                raise PublishTimeoutError(f"no room in time for an event of {describe(None, topic)} in {self!r}")
        if deadline == BEYOND or topic.is_run_here():   # waiting would stop the loop that is to make room
            return True
        if worker == NULL and self.stops_itself(topic):
            return True
        if worker != NULL:
            if rc_turn_running(worker):   # a ring is the first field of its topic
                rc_topic_advance(<rc_topic *>worker.ring)
            if not rc_pool_may_wait(pool, worker, &topic.c.ring):
                return True
        try:
            # for what this worker will do only after its wait, perhaps
            if worker != NULL and rc_u32_load(&self.waiting_handlers) != 0:
                for other in self.all_topics():
                    self.tell_room_waiters((<Topic>other).c)
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

    cdef bint stops_itself(self, Topic topic) except -1:
        """Whether to wait for room would stop the event loop that runs here, and with it what is to make the room."""
        running = running_loop()
        if running is None:
            return False
        with self.lock:
            return stands_still(topic, running, set())

    def _when_room(self, event, waiter):
        """Has `waiter()` called once, from any thread, when there may be room for an event that publish had no room
        for. The caller then tries again, and once more right after this returns.

        Returns:
            What _forget_waiter takes where nobody waits any more."""
        cdef Topic topic
        cdef list topics = self.topics_of(event)
        for topic in topics:
            with self.lock:
                self.room_waiters.setdefault(<uintptr_t>topic.c, []).append(waiter)
                rc_u32_store_seq(&topic.c.room_waiters, 1)   # seq: before the caller's next look, with advance
        return topics

    def _forget_waiter(self, list topics, waiter):
        """Takes back what _when_room was told, as far as it has not been called."""
        cdef Topic topic
        with self.lock:
            for topic in topics:
                waiters = self.room_waiters.get(<uintptr_t>topic.c, ())
                if waiter in waiters:
                    waiters.remove(waiter)
                    if not waiters:
                        del self.room_waiters[<uintptr_t>topic.c]

    cdef tell_room_waiters(self, rc_topic *topic):
        with self.lock:
            waiters = self.room_waiters.pop(<uintptr_t>topic, ())
            rc_u32_store_seq(&topic.room_waiters, 0)
        for waiter in waiters:
            try:
                waiter()
            except RuntimeError:   # its event loop is closed: nobody waits any more
                pass

    cdef list topics_of(self, event):
        cdef rc_topic *found = self.find_class(type(event))
        cdef Topic topic
        cdef tuple wide = ()
        cdef list topics
        if found.kind == RC_ROUTE:
            wide = (<Route>found.host).wide_topics()
            found = (<Topic>(<Route>found.host).own).c if (<Route>found.host).own is not None else &by_instance
        if found.kind == RC_BY_INSTANCE:
            found = self.find_event_id(event.__event_type__, event)
            wide = self.wide_under(found, wide)
        topics = list(wide)
        if found != NULL:
            topics.append(<Topic>found.host)
        companions = [topic.find_companion() for topic in topics]
        return topics + [companion for companion in companions if companion is not None]

    # --- topics and event classes: all under self.lock, but for find_class, wide_topic, own_topic and find_event_id.
    # What asks classes (their ids, issubclass) may be anybody's code, and take locks that another thread holds when it
    # publishes: it is never run under self.lock. ---

    cdef rc_topic *find_class(self, event_class) except NULL:
        """The topic of a class, which is made known if it is not, or &by_instance. Not under self.lock."""
        cdef uint64_t key = class_key(<PyTypeObject *>event_class)
        cdef rc_topic *found = <rc_topic *>rc_registry_find_locked(&self.by_class, key)
        cdef list unknown, wide
        cdef dict answers = {}   # wide topic -> whether the class is one of its, with its id or as a subclass
        cdef Scope scope
        identity = layout = None
        if found != NULL:
            return found
        while True:
            with self.lock:
                self.check_open()
                found = <rc_topic *>rc_registry_find_locked(&self.by_class, key)
                if found != NULL:   # by another thread, meanwhile
                    return found
                unknown = [each for each in self.wide if each not in answers]
                if identity is not None and not unknown:
                    wide = [each for each in self.wide if answers[each]]
                    return self.make_known(event_class, identity, <Layout>layout, wide)
            if identity is None:
                identity = identify(event_class)
                layout = None if identity.type_id is None else layout_of(identity.owner)
            for each in unknown:
                scope = <Scope>(<Topic>each).scope
                answers[each] = scope.has_id(identity.type_id) or scope.has_subclass(event_class)

    cdef rc_topic *make_known(self, event_class, identity, Layout layout, list wide) except NULL:
        """The topic of a class that is new, which belongs to these wide topics too."""
        cdef rc_topic *found = &by_instance
        cdef Topic topic
        if identity.type_id is not None:
            topic = self.topic(identity.type_id, identity.automatic, layout)
            self.bind(topic, identity.owner)
            found = topic.c
        self.entry_of(event_class)
        if wide:
            found = self.route(event_class, found, wide)
        if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>event_class), found) != 0:
            raise MemoryError
        return found

    cdef rc_topic *route(self, event_class, rc_topic *found, list wide) except NULL:
        """The route of a class whose entry was `found`, with these wide topics more."""
        cdef Route route = self.routes.get(id(event_class))   # which may be out of use: see drop_deserted
        own = <Topic>found.host if found.kind == RC_OF_CLASS else None
        if found.kind != RC_ROUTE and (route is None or route.own is not own):
            route = Route.__new__(Route, own)
            self.routes[id(event_class)] = route
        for topic in wide:
            route.add(<Topic>topic)
        return route.c

    cdef Topic wide_topic(self, Scope scope):
        """The topic of all events that a scope has. Not under self.lock."""
        cdef Topic topic
        cdef list known, unknown
        cdef dict answers = {}   # id of a class -> (the class, whether it is a subclass)
        while True:
            with self.lock:
                self.check_open()
                for topic in self.wide:
                    if (<Scope>topic.scope).key == scope.key:
                        return topic
                known = [reference() for reference in self.classes.values()]
                unknown = [one for one in known if one is not None and id(one) not in answers]
                if not unknown:
                    return self.make_wide_topic(scope, list(answers.values()))
            for one in unknown:
                answers[id(one)] = (one, scope.has_subclass(one))

    cdef Topic make_wide_topic(self, Scope scope, list known):
        """The same where there is none yet. `known`: the classes that are, each with whether it is a subclass."""
        cdef Topic topic = Topic.__new__(Topic, self, 0, False)
        cdef rc_topic *found
        topic.passing = True
        topic.scope = scope
        for one, belongs in known:
            found = <rc_topic *>rc_registry_find_locked(&self.by_class, class_key(<PyTypeObject *>one))
            if found == NULL or not (belongs or scope.has_id(id_of(found))):
                continue
            found = self.route(one, found, [topic])
            if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>one), found) != 0:
                raise MemoryError
        self.wide.append(topic)
        if scope.ids:
            rc_u32_store(&self.unions, rc_u32_load(&self.unions) + 1)
        return topic

    cdef Topic companion(self, Topic topic):
        """The topic of the same events, each with the context of its publisher."""
        cdef Topic companion
        if topic.companion is None:
            companion = Topic.__new__(Topic, self, topic.type_id, topic.automatic)
            companion.passing = True
            companion.scope = topic.scope
            self.companions.append(companion)
            topic.set_companion(companion)
        return topic.companion

    cdef drop_deserted(self, Topic topic):
        """Lets go of a wide topic or a companion that its last subscription has left: what publish costs, and which
        classes are kept, is then as it was before. Not under a topic's lock."""
        cdef Topic other
        with self.lock:
            # A closed dispatcher finds no topics. (A publisher that has found this one holds a reference to it; what it
            # still stores there is for nobody, and goes with the topic.)
            if rc_u32_load(&self.closing) or not topic.is_deserted():
                return
            if topic in self.wide:
                self.wide = [other for other in self.wide if other is not topic]
                if (<Scope>topic.scope).ids:
                    rc_u32_store(&self.unions, rc_u32_load(&self.unions) - 1)
                self.end_routes(topic)
                return
            self.parted = [other for other in self.parted if other is not topic]
            self.companions = [other for other in self.companions if other is not topic]
            for other in self.wide if topic.scope is not None else [self.topics.get(topic.type_id)]:
                if other is not None and other.companion is topic:
                    other.set_companion(None)
                    if other.passing:
                        self.drop_deserted(other)

    cdef end_routes(self, Topic topic):
        """Has no route lead to the wide topic any more, and classes without routes found as if there had been none."""
        cdef Route route
        cdef rc_topic *found
        for address, route in list(self.routes.items()):
            if topic not in route.wide:
                continue
            route.remove(topic)
            found = &by_instance if route.own is None else (<Topic>route.own).c
            if not route.wide and rc_registry_put(&self.by_class, address, found) != 0:
                raise MemoryError

    cdef rc_topic *find_event_id(self, type_id, event) except? NULL:
        """The topic of an id, or NULL where nobody has used it, for an event that may be published under it."""
        cdef uint32_t checked = check_type_id(type_id)
        cdef rc_topic *found = <rc_topic *>rc_registry_find(&self.by_id, id_key(checked))
        cdef Topic topic
        if found != NULL and rc_u64_load(&found.event_class) == class_key(Py_TYPE(<PyObject *>event)):
            return found
        with self.lock:   # while it is held no topic goes, as one of an automatic id does with its class
            self.check_open()
            topic = self.topics.get(checked)
            if topic is None:
                return NULL
            self.check_event(topic, type(event))
        return topic.c   # of an automatic id: the event keeps the class, and that the topic

    cdef Topic topic(self, uint32_t type_id, bint automatic, Layout layout=None):
        cdef Topic topic = self.topics.get(type_id)
        if topic is None:
            topic = Topic.__new__(Topic, self, type_id, automatic, layout)
            # an automatic id goes with its class, and then its topic; so only publish finds it without the lock
            if not automatic and rc_registry_put(&self.by_id, id_key(type_id), topic.c) != 0:
                raise MemoryError
            self.topics[type_id] = topic
        return topic

    cdef ClassEntry entry_of(self, event_class):
        cdef ClassEntry entry = None
        reference = self.classes.get(id(event_class))
        if reference is not None:
            entry = reference.__callback__
        if entry is None:
            entry = ClassEntry.__new__(ClassEntry)
            entry.address = id(event_class)
            entry.core_reference = weakref.ref(self)
            entry.topics = entry.replaced = ()
            self.classes[entry.address] = weakref.ref(event_class, entry)
        return entry

    cdef bind(self, Topic topic, event_class):
        """Makes the topic that of the class, if it is still open, or that of the same class before it was defined
        again: its subscriptions stay, and the events of both go there."""
        cdef uint64_t key = class_key(<PyTypeObject *>event_class), bound = rc_u64_load(&topic.c.event_class)
        cdef ClassEntry entry, former
        if bound == key:
            return
        entry = self.entry_of(event_class)
        if topic in entry.replaced:   # another one has taken its place since
            return
        if bound != 0:
            owner = self.class_of(topic)
            # not of records: what is in the ring is laid out as the first class has it
            if owner is None or topic.layout is not None or not is_defined_again(owner, event_class):
                raise EventClassError(
                    f"type id {topic.type_id:#x} belongs to "
                    f"{'a class that is just being freed' if owner is None else class_name(owner)}: "
                    f"{class_name(event_class)}{another_of_that_name(owner, event_class)} needs an id of its own"
                )
            former = self.entry_of(owner)
            former.topics = tuple([each for each in former.topics if each is not topic])
            former.replaced += (topic,)
        entry.topics += (topic,)
        rc_u64_store(&topic.c.event_class, key)

    cdef object class_of(self, Topic topic):
        """The class that the topic is bound to. None while it is open, and where the class is just being freed: its
        address is still there then, but nobody may take a reference to it any more."""
        reference = self.classes.get(rc_u64_load(&topic.c.event_class))
        return None if reference is None else reference()

    cdef check_event(self, Topic topic, event_class):
        """Makes sure that an event of the class may be published under the topic's id."""
        owner = None if topic.automatic else self.class_of(topic)
        if owner is None:
            self.bind(topic, event_class)
        elif not PyType_IsSubtype(<PyTypeObject *>event_class, <PyTypeObject *>owner):
            for base in class_mro(event_class):   # a subclass of what the owner has taken the place of, or will
                if is_defined_again(owner, base):
                    self.bind(topic, base)
                    break
            else:
                self.bind(topic, event_class)   # raises

    cdef forget(self, ClassEntry entry, reference):
        """The class is about to be freed, to which this was the reference."""
        cdef Topic topic
        with self.lock:
            rc_registry_remove(&self.by_class, entry.address)
            if self.classes.get(entry.address) is reference:
                del self.classes[entry.address]
                self.routes.pop(entry.address, None)
            for topic in entry.topics:
                rc_u64_store(&topic.c.event_class, 0)
                if topic.automatic and self.topics.pop(topic.type_id, None) is not None and topic.owned:
                    topic.passing = True
                    self.parted = [*self.parted, topic]

    cdef check_open(self):
        if rc_u32_load(&self.closing):
            raise closed_error(f"{self!r} is closed")

    # --- subscribe and count: the checks of the handler are Dispatcher's ---

    def _subscribe_class(self, event_class, handler, Options options):
        """`event_class`: a class, or a tuple of several, each once. `options.bases`: those whose subclasses count."""
        cdef Scope scope
        cdef Topic found
        if type(event_class) is tuple or options.bases:
            scope = self.scope(event_class if type(event_class) is tuple else (event_class,), options.bases)
            while True:
                found = self.wide_topic(scope)
                with self.lock:
                    self.check_open()
                    if found in self.wide:   # else its last subscription has just left
                        return self.join(found, handler, event_class, options)
        found = self.own_topic(event_class)
        with self.lock:
            self.check_own(found, event_class)
            return self.join(found, handler, event_class, options)

    cdef Scope scope(self, tuple classes, tuple bases):
        """That of these classes, of some of them (`bases`) with their subclasses; the others' ids are theirs from now
        on."""
        cdef Topic found
        cdef list ids = []
        for event_class in classes:
            if not any([event_class is base for base in bases]):
                found = self.own_topic(event_class)
                with self.lock:
                    self.check_own(found, event_class)
                    ids.append(found.type_id)
        return Scope.__new__(Scope, classes, bases, ids)

    cdef check_own(self, Topic found, event_class):
        """Makes sure that a plain subscription to the class may be in the topic which own_topic has found."""
        self.check_open()
        if found is None:
            raise TypeIdError(
                f"the instances of {class_name(event_class)} compute their type ids: use "
                "subscribe_to(type_id, handler)"
            )
        owner = self.class_of(found)
        if owner is None:   # it was inherited from a class that is no base any more, and is gone
            self.bind(found, event_class)
        elif owner is not event_class and not is_defined_again(owner, event_class):
            raise EventClassError(
                f"{class_name(event_class)} inherits type id {found.type_id:#x} from "
                f"{class_name(owner)}, and its events go where those of that class go: subscribe to that class, or "
                f"state an __event_type__ in {class_name(event_class)}"
            )

    def _subscribe_id(self, type_id, event_class, handler, Options options):
        cdef Topic topic
        cdef uint32_t checked = check_type_id(type_id)
        layout = None if event_class is None else layout_of(event_class)
        with self.lock:
            self.check_open()
            topic = self.topic(checked, False, <Layout>layout)
            if event_class is not None:
                self.bind(topic, event_class)
            return self.join(topic, handler, event_class, options)

    cdef Topic own_topic(self, event_class):
        """The topic of a class, which is made known if it is not; None where its instances compute their ids. Not under
        self.lock."""
        cdef rc_topic *found
        while True:
            self.find_class(event_class)
            with self.lock:   # under which no topic goes
                found = <rc_topic *>rc_registry_find_locked(&self.by_class, class_key(<PyTypeObject *>event_class))
                if found != NULL:
                    return (
                        <Topic>found.host if found.kind == RC_OF_CLASS
                        else (<Route>found.host).own if found.kind == RC_ROUTE else None
                    )
                self.check_open()   # which takes all out: or its class of the id has just gone

    cdef Topic record_topic(self, record_type):
        """The topic of a record type."""
        cdef Topic topic
        if not isinstance(record_type, type) or layout_of(record_type) is None:
            raise RecordError(f"a record type is needed, not {shown(record_type)}: make one with ringcast.record")
        topic = self.own_topic(record_type)
        if topic is None or topic.layout is None:
            raise RecordError(
                f"the events of {class_name(record_type)} are kept as objects, since its type id was used before it "
                "was known to be a record type's: use the class before the id"
            )
        return topic

    def _subscribe_native(self, record_type, handler, userdata, Options options):
        cdef Topic topic
        cdef uintptr_t address = address_of(handler)
        data = Userdata.__new__(Userdata, userdata)
        topic = self.record_topic(record_type)
        self.start(self.native_pool)   # without the lock: the caller waits until the thread runs
        with self.lock:
            self.check_open()
            if self.natives == 0:
                native_dispatchers.add(self)
            self.natives += 1
            try:
                return self.join(topic, handler, record_type, options, address, data)
            except BaseException:
                self.native_left()
                raise

    cdef void native_left(self) noexcept:
        """A native subscription has had its last record, or was not made."""
        with self.lock:
            self.natives -= 1
            # seq: before the look at what is outstanding, with unpin_native
            rc_u32_store_seq(&self.native_pool.is_left, self.natives == 0)
        self.let_go_of_natives()

    cdef void let_go_of_natives(self) noexcept:
        """Lets go of the dispatcher if it has no native subscriptions, and none of their tasks is scheduled; else the
        worker that ends the last task comes here again."""
        with self.lock:
            if self.natives == 0 and rc_pool_outstanding(&self.native_pool.c) == 0:
                rc_u32_store(&self.native_pool.is_left, 0)
                native_dispatchers.discard(self)

    cdef uint32_t outstanding(self) noexcept:
        return rc_pool_outstanding(&self.pool.c) + rc_pool_outstanding(&self.native_pool.c)

    cdef bint is_worker(self) noexcept:
        """Whether the calling thread is at something that whoever waits for all deliveries waits for: inside a
        handler, or picking events for a mailbox."""
        return (
            is_waited_for(&self.pool.c) or rc_pool_current(&self.native_pool.c) != NULL
            or is_delivering(<PyObject *>self)
        )

    cdef Subscription join(self, Topic topic, handler, event_class, Options options, uintptr_t native=0, data=None):
        cdef Subscription sub
        if options.with_context:
            topic = self.companion(topic)
        try:
            sub = new_subscription(self, topic, handler, event_class, options, native, data)
        except BaseException:
            if topic.passing:
                self.drop_deserted(topic)
            raise
        self.subscribed += 1
        sub.number = self.subscribed
        return sub

    def _class_of(self, type_id):
        """The class that a type id belongs to, or None."""
        cdef Topic topic
        cdef uint32_t checked = type_id
        with self.lock:
            topic = self.topics.get(checked)
            return None if topic is None else self.class_of(topic)

    def _count(self, type_id, event_class):
        """How many subscriptions there are to the id, also among several, and to base classes of the class."""
        cdef Topic topic
        cdef Scope scope
        cdef uint32_t checked = type_id
        cdef Py_ssize_t count
        cdef list wide
        with self.lock:
            if rc_u32_load(&self.closing):
                return 0
            topic = self.topics.get(checked)
            wide = list(self.wide)
        count = 0 if topic is None else topic.reach()
        for topic in wide:
            scope = topic.scope
            if scope.has_id(checked) or (event_class is not None and scope.has_subclass(event_class)):
                count += topic.reach()
        return count

    # --- close ---

    @property
    def closed(self):
        return rc_u32_load(&self.closing) != 0

    cdef list all_topics(self):
        with self.lock:
            return [*self.topics.values(), *self.wide, *self.companions, *self.parted]

    def _begin_close(self, bint discard=False):
        """Refuses events and subscriptions from now on, and lets the workers end when all is delivered. `discard` drops
        what is waiting, also after a first close without."""
        cdef Topic topic
        cdef Subscription sub
        with self.lock:
            if self.native_pool is None:
                return
            if self.ended and not discard:
                return
            rc_u32_store(&self.closing, 1)   # what follows may be done twice: it may be stopped by a lack of memory
            # publish finds no topic any more, and looks at `closing`
            for address in self.classes:
                rc_registry_remove(&self.by_class, address)
            for type_id in self.topics:
                rc_registry_remove(&self.by_id, id_key(type_id))
        self.await_sharing()
        for topic in self.all_topics():
            rc_ring_close(&topic.c.ring)
            rc_bus_settle(topic.c)
            self.tell_room_waiters(topic.c)
            for sub in topic.all_members():
                sub.cancel(discard=discard)
        rc_pool_stop(&self.pool.c)
        rc_pool_stop(&self.native_pool.c)
        with self.lock:
            self.ended = True

    cdef await_sharing(self):
        """Lets an event that is just being stored in several rings come into all of them, which takes a few
        instructions. It cannot be this thread that does it: no Python code runs in between."""
        rc_u32_store_seq(&self.shut, 1)   # seq: before the look at `sharing`
        while rc_u32_load_seq(&self.sharing) != 0:
            time.sleep(0.0001)

    def _await_close(self, int64_t timeout):
        """Waits for the deliveries and the threads, `timeout` ns at most (below 0: no limit). Returns whether all
        is done. Inside a handler it does not wait and returns True."""
        cdef int64_t deadline = time.monotonic_ns() + timeout
        if self.native_pool is None or self.is_worker():   # None: of a class that forgot __init__
            return True
        if not self.pool.wait(timeout, None, self):
            return False
        while True:   # while the watch lives it may start a worker for the last of the work
            there = [thread for thread in self.threads() if thread.is_there()]
            if not there:
                return True
            for thread in there:
                if not thread.wait_until_gone(None if timeout < 0 else max(0, deadline - time.monotonic_ns()) / 1e9):
                    return False

    def _has_ended(self):
        """Whether all is delivered and the threads have ended. Does not wait."""
        if self.native_pool is None:
            return True
        return self.outstanding() == 0 and not any([thread.is_there() for thread in self.threads()])

    cdef list threads(self):
        """Those that it has started and that end when it is closed; not the one that asks."""
        me = threading.current_thread()   # a finalizer may run in the watch
        return [thread for thread in self.pool.threads + self.native_pool.threads if thread is not me]

    def _is_in_handler(self):
        """Whether the calling thread is inside a handler, which whoever waits for all deliveries waits for."""
        return self.native_pool is not None and self.is_worker()

    def _listen(self, listener):
        """Has `listener()` called once, from any thread, when something has ended that others wait for. The caller
        looks once more right after this returns."""
        if self.native_pool is not None:   # None: of a class that forgot __init__
            self.pool.listen(listener)

    def _forget(self, listener):
        """Takes back what _listen was told, if it has not been called."""
        if self.native_pool is not None:
            self.pool.forget(listener)

    def _subscriptions(self):
        """All subscriptions that have not had their last event, a list."""
        cdef Topic topic
        return [sub for topic in self.all_topics() for sub in topic.all_members()]

    def _is_run_here(self):
        """Whether events wait for the event loop that runs in this thread."""
        running = running_loop()
        if running is None:
            return False
        return any([
            (<Subscription>sub).event_loop() is running and sub.pending for sub in self._subscriptions()
        ])

    def _leave_closed_loops(self):
        """Gives up what waits for event loops that are closed."""
        cdef Topic topic
        for topic in self.all_topics():
            topic.leave_closed_loops()

    def _await_idle(self, int64_t timeout):
        """Waits until all that was accepted is delivered, `timeout` ns at most (below 0: no limit). Returns whether
        that is so. Inside a handler it does not wait."""
        return self.native_pool is None or self.pool.wait(timeout, None, self)

    def _stats(self):
        """(workers, [(type id or None, event class, published, pending, high water, subscriptions,
        with subclasses), ...])"""
        cdef Topic topic
        cdef Scope scope
        rows = []
        for topic in self.all_topics():
            subscriptions = [*topic.all_members()]
            scope = topic.scope
            if scope is not None:
                event_class = scope.classes if len(scope.classes) > 1 else scope.classes[0]
            else:
                with self.lock:
                    event_class = self.class_of(topic)
                if rc_u64_load(&topic.c.event_class) == 0 and not subscriptions and pending_in(topic) == 0:
                    continue   # an id that is nobody's any more
            rows.append((
                None if scope is not None else topic.type_id, event_class,
                rc_ring_tail(&topic.c.ring) - topic.c.first + rc_u64_load(&topic.c.only_direct),
                pending_in(topic),
                max([rc_u64_load(&topic.c.high_water)]
                    + [rc_u64_load(&(<Subscription>sub).c.high_water) for sub in subscriptions]),
                subscriptions, scope is not None and scope.with_subclasses(),
            ))
        if self.native_pool is None:
            return 0, rows
        return rc_pool_workers(&self.pool.c) + rc_pool_workers(&self.native_pool.c), rows


def another_of_that_name(owner, event_class):
    """What tells two classes apart in a message that names both."""
    same = owner is not None and class_name(owner) == class_name(event_class)
    return " (another class of that name)" if same else ""


cdef refuse_class(event_class):
    """For a class in place of an event, which has reached nobody."""
    if not identify(type(event_class)).automatic:   # a metaclass that was made for events
        return
    name = class_name(event_class)
    raise EventClassError(
        f"an event is published, and {name} is a class: publish({name}(...)). "
        f"(Where classes are the events, subscribe to {class_name(type(event_class))} first)"
    )


# --- the quick way of publish ---

cdef extern from *:
    """
    /* Cython's function of the method, which takes the arguments apart. */
    typedef PyObject *(*rc_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    static rc_method publish_with_arguments;

    /* Gives the class a method of the same name, flags and docstring whose function is `quick`. */
    static int rc_put_before(PyObject *owner, PyObject *descriptor, void *quick)
    {
        static PyMethodDef method;
        PyObject *name = PyDescr_NAME(descriptor), *ours;
        int failed;
        method = *((PyMethodDescrObject *)descriptor)->d_method;
        assert(method.ml_flags == (METH_FASTCALL | METH_KEYWORDS));
        publish_with_arguments = (rc_method)(void (*)(void))method.ml_meth;
        method.ml_meth = (PyCFunction)(void (*)(void))quick;
        ours = PyDescr_NewMethod((PyTypeObject *)owner, &method);
        if (ours == NULL)
            return -1;
        failed = PyDict_SetItem(((PyTypeObject *)owner)->tp_dict, name, ours);
        Py_DECREF(ours);
        PyType_Modified((PyTypeObject *)owner);
        return failed;
    }
    """
    object publish_with_arguments(PyObject *, PyObject **, Py_ssize_t, PyObject *)
    int rc_put_before(object owner, object descriptor, void *quick) except -1


cdef object publish_quickly(PyObject *core, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """publish(event) where queueing is all there is to do. Comes before Core.publish, because taking arguments with
    keywords apart costs as much as a third of the rest."""
    cdef rc_topic *topic
    cdef uint32_t subscribers
    if count == 1 and names == NULL:
        topic = <rc_topic *>rc_registry_find(&(<Core>core).by_class, class_key(Py_TYPE(arguments[0])))
        if topic != NULL:
            subscribers = rc_u32_load(&topic.plain)
            if subscribers == RC_NOBODY:
                # or a close has just cancelled them; or a class is published in place of an event
                if rc_u32_load(&(<Core>core).closing) == 0 and not PyType_Check(arguments[0]):
                    return 0
            elif subscribers != 0 and try_publish(topic, arguments[0], rc_u64_load(&topic.limit)) == RC_CLAIMED:
                return subscribers
    return publish_with_arguments(core, arguments, count, names)


rc_put_before(Core, Core.__dict__["publish"], <void *>publish_quickly)


cdef inline uint64_t class_key(PyTypeObject *event_class) noexcept nogil:
    return <uint64_t><uintptr_t>event_class


cdef object id_of(rc_topic *found):
    """The type id that a class has, which leads to `found` in the registry; None where its instances compute it."""
    if found.kind == RC_ROUTE:
        return None if (<Route>found.host).own is None else (<Topic>(<Route>found.host).own).type_id
    return (<Topic>found.host).type_id if found.kind == RC_OF_CLASS else None


cdef inline uint64_t id_key(uint32_t type_id) noexcept nogil:
    return <uint64_t>type_id + 1   # 0 is the registry's empty key


cdef uint64_t pending_in(Topic topic):
    cdef uint64_t before = rc_ring_tail(&topic.c.ring), gate = rc_ring_gate(&topic.c.ring)
    return between(before, gate, rc_ring_tail(&topic.c.ring))


cdef inline int64_t time_left(int64_t deadline):
    """Until a deadline, in ns; -1 where there is none."""
    return -1 if deadline < 0 else max(0, deadline - time.monotonic_ns())


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


cdef object qualname_of = type.__dict__["__qualname__"].__get__   # whatever a metaclass makes of it


cdef str describe(event_class, Topic topic):
    cdef Scope scope = topic.scope
    if scope is not None:
        name = joined_names([qualname_of(each) for each in scope.classes])
        return f"{name} and subclasses" if scope.with_subclasses() else name
    return f"type id {topic.type_id:#x}" if event_class is None else f"{qualname_of(event_class)} ({topic.type_id:#x})"


cpdef int64_t nanoseconds(timeout, str name="timeout") except -2:
    """-1 for None, else the time in ns."""
    if timeout is None:
        return -1
    if not hasattr(timeout, "__float__") and not hasattr(timeout, "__index__"):   # a str has neither
        raise OptionError(f"{name} must be None or a number of seconds, not {timeout!r}")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = -1.0
    if not seconds >= 0:   # also what is not a number
        raise OptionError(f"{name} must be None or at least 0 seconds, not {timeout!r}")
    return <int64_t>(min(seconds, 1e9) * 1e9)


def direct_rank_of_all(Subscription sub):
    return (-sub.priority, sub.number)
