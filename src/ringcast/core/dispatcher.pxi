# Dispatchers: from a class or id to its topic; publish, subscribe, close.

class ClassReference(weakref.ref):
    """A dispatcher's knowledge of an event class: gone with the class, so that another class at the same address
    is not taken for it."""
    __slots__ = ("address", "core_reference", "topics")

    def __init__(self, event_class, _callback):
        super().__init__(event_class, _callback)
        self.address = id(event_class)
        self.topics = []   # that are bound to the class


def forget_class(reference):
    core = reference.core_reference()
    if core is not None:
        (<Core>core).forget(reference)


cdef class Core:
    """The compiled base of Dispatcher, which documents it."""
    cdef rc_registry by_class   # address of the class -> topic_t, or by_instance
    cdef rc_registry by_id      # type id + 1 -> topic_t
    cdef int made
    cdef bint started
    cdef bint closing
    cdef readonly uint64_t max_queue
    cdef readonly uint32_t max_workers
    cdef readonly str name
    cdef Pool pool
    cdef object lock            # of what follows; re-entrant, because finalizers may come in anywhere
    cdef dict topics            # type id -> Topic
    cdef dict classes           # address -> ClassReference
    cdef dict routes            # address of a class -> Route
    cdef list wide              # Topics of the subclasses' events of some class
    cdef list companions        # Topics of other topics' events, with contexts
    cdef uint64_t subscribed    # subscriptions made
    cdef bint raises            # publish raises what direct handlers have raised
    cdef bint timing
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        if rc_registry_init(&self.by_class) != 0:
            raise MemoryError
        self.made = 1
        if rc_registry_init(&self.by_id) != 0:
            raise MemoryError
        self.made = 2
        self.closing = True   # until __init__
        self.lock = threading.RLock()
        self.topics = {}
        self.classes = {}
        self.routes = {}
        self.wide = []
        self.companions = []

    def __init__(
        self, uint64_t max_queue, uint32_t max_workers, uint32_t parallel, str name, bint raises, bint timing
    ):
        if self.pool is not None:
            raise RuntimeError("a dispatcher is initialised once")
        self.max_queue = max_queue
        self.max_workers = max_workers
        self.name = name
        self.raises = raises
        self.timing = timing
        self.pool = Pool(name, max_workers, parallel)
        self.closing = False

    def __del__(self):
        # nothing is scheduled, or the task would hold a reference: only idle threads are left
        if self.pool is not None:
            rc_pool_stop(&self.pool.c)

    def __dealloc__(self):
        if self.made >= 1:
            rc_registry_destroy(&self.by_class)
        if self.made >= 2:
            rc_registry_destroy(&self.by_id)

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
            EventClassError: the event's type id belongs to another class.
            TypeIdError: its `__event_type__` is no integer from 0 to 2**32 - 1.
            QueueFullError: a subscription of policy "raise" is `max_queue` behind; or inside a handler, 65,536 events
                past `max_queue`.
            PublishTimeoutError: there was no room in time.
            KeyboardInterrupt: Ctrl-C ended the wait for room.
            MemoryError: no memory for the queue.
            After each of these the event has reached nobody.
            ExceptionGroup: what direct handlers have raised, with `on_error="raise"`, when all have run. What they
                raise and is no Exception (KeyboardInterrupt, SystemExit) is raised as it is, when all have run.
        """
        return self.publish_rare(event, timeout)   # see publish_quickly

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
        cdef topic_t *topic = self.find_event_id(type_id, event)
        cdef topic_t *by_class
        cdef tuple wide = ()
        if self.wide:
            by_class = self.find_class(type(event))
            if by_class.kind == ROUTE:
                wide = (<Route>by_class.topic).wide_topics()
        return self.publish_in(topic, event, wide, nanoseconds(timeout))

    cdef publish_rare(self, event, timeout):
        """Everything but a plain claim in a ring that has room for it."""
        cdef tuple wide = ()
        cdef topic_t *topic = <topic_t *>rc_registry_find(&self.by_class, class_key(Py_TYPE(<PyObject *>event)))
        if topic == NULL:
            topic = self.find_class(type(event))   # seen for the first time, or closed
        if topic.kind == ROUTE:
            route = <Route>topic.topic
            wide = (<Route>route).wide_topics()
            topic = (<Topic>(<Route>route).own).c if (<Route>route).own is not None else &by_instance
        if topic.kind == BY_INSTANCE:
            topic = self.find_event_id(event.__event_type__, event)
        return self.publish_in(topic, event, wide, -1 if timeout is None else nanoseconds(timeout))

    cdef publish_in(self, topic_t *topic, event, tuple wide, int64_t timeout):
        """Publishes in a topic (NULL: nobody has used its id) and in wide ones."""
        cdef uint32_t subscribers
        cdef Topic own = None
        if topic != NULL:
            own = <Topic>topic.topic
            subscribers = rc_u32_load(&topic.subscribers)
            if not wide and own.companion is None:
                if subscribers != 0:
                    self.prepare(own)
                    if try_publish(topic, <PyObject *>event, rc_u64_load(&topic.limit)) != RC_CLAIMED:
                        self.publish_when_room(own, event, timeout)
                direct = own.direct_members()
                if len(<tuple>direct) != 0:
                    deliver_direct(self, <tuple>direct, event)
                return subscribers + len(<tuple>direct)
        return self.publish_to_all([own, *wide] if own is not None else list(wide), event, timeout)

    cdef publish_to_all(self, list topics, event, int64_t timeout):
        """Publishes in several topics: in all of them, or in none."""
        cdef Topic topic
        cdef list targets = []   # (topic, what to publish there)
        cdef tuple direct = ()
        cdef Py_ssize_t reached = 0
        cdef int64_t deadline = -1 if timeout < 0 else time.monotonic_ns() + timeout
        for topic in topics:
            if rc_u32_load(&topic.c.subscribers) != 0:
                targets.append((topic, event))
            if topic.companion is not None and rc_u32_load(&topic.companion.c.subscribers) != 0:
                targets.append((topic.companion, envelop(event)))
            direct += topic.direct_members()
        for topic, _ in targets:
            self.prepare(topic)
            self.await_room(topic, deadline)
        for topic, what in targets:
            reached += rc_u32_load(&topic.c.subscribers)
            # there was room; if others came in between, this goes a little past it rather than to stay half done
            self.claimed(topic, try_publish(topic.c, <PyObject *>what, self.max_queue + RESERVE))
        if direct:
            if len(topics) > 1:
                direct = tuple(sorted(direct, key=direct_rank_of_all))
            deliver_direct(self, direct, event)
        return reached + len(direct)

    cdef prepare(self, Topic topic):
        """Starts the threads, if the topic needs any; the next publish need not come here then."""
        if not self.started and rc_u32_load(&topic.c.pooled) != 0:
            with self.lock:
                if not self.started:
                    self.pool.start()
                    self.started = True
        if rc_u32_load(&topic.c.plain) == 0:
            rc_mutex_lock(&topic.c.lock)
            topic.set_plain()
            rc_mutex_unlock(&topic.c.lock)

    # --- waiting for room ---

    cdef publish_when_room(self, Topic topic, event, int64_t timeout):
        """Publishes in a ring that has refused the claim, after waiting for room if that is why."""
        cdef rc_claim claim
        cdef uint64_t gate, limit
        cdef bint reserve = False
        cdef int64_t deadline = -1 if timeout < 0 else time.monotonic_ns() + timeout
        while True:
            gate = rc_ring_gate(&topic.c.ring)
            limit = self.max_queue + RESERVE if reserve else topic.room_limit()
            claim = try_publish(topic.c, <PyObject *>event, limit)
            if claim != RC_FULL or reserve:
                self.claimed(topic, claim)
                return
            reserve = self.wait_for_room(topic, gate, deadline)

    cdef await_room(self, Topic topic, int64_t deadline):
        """Waits until there is room in the ring, or none is needed."""
        cdef uint64_t gate
        while True:
            gate = rc_ring_gate(&topic.c.ring)
            if rc_ring_tail(&topic.c.ring) - gate < topic.room_limit():
                return
            self.check_open()
            if self.wait_for_room(topic, gate, deadline):
                if rc_ring_tail(&topic.c.ring) - gate >= self.max_queue + RESERVE:
                    self.claimed(topic, RC_FULL)
                return

    cdef claimed(self, Topic topic, rc_claim claim):
        """Raises what is to be raised of a claim that was made for good."""
        if claim == RC_CLOSED:
            raise ClosedError(f"{self!r} is closed: it accepts no events")
        if claim == RC_NO_MEMORY:
            raise MemoryError
        if claim == RC_FULL:
            raise QueueFullError(
                f"handlers have published {RESERVE} events beyond max_queue={self.max_queue} to "
                f"{describe(None, topic)} that wait for these very handlers: raise max_queue, or publish "
                "fewer events for each event handled"
            )

    cdef bint wait_for_room(self, Topic topic, uint64_t gate, int64_t deadline) except -1:
        """Waits for the gate to move from `gate`, or a while. Returns True where that would never end: then the reserve
        is to be used."""
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
        if topic.is_run_here():   # waiting would stop the loop that is to make room
            return True
        if worker != NULL:
            if rc_turn_running(worker):   # a ring is the first field of its topic
                advance(<Topic>(<topic_t *>worker.ring).topic)
            if not rc_pool_may_wait(pool, worker, &topic.c.ring):
                return True
        try:
            with nogil:
                rc_ring_await_gate(&topic.c.ring, gate, left)
            PyErr_CheckSignals()
            topic.leave_closed_loops()
        finally:
            if worker != NULL:
                rc_pool_waited(pool, worker)
        return False

    def _when_room(self, event, waiter):
        """Has `waiter()` called once, from any thread, when there may be room for an event that publish had no room
        for. The caller then tries again, and once more right after this returns."""
        cdef Topic topic
        for topic in self.topics_of(event):
            with self.lock:
                topic.waiters.append(waiter)
                rc_u32_store_seq(&topic.c.room_waiters, 1)   # seq: before the caller's next look, with advance

    cdef list topics_of(self, event):
        cdef topic_t *found = self.find_class(type(event))
        cdef Topic topic
        cdef list topics = []
        if found.kind == ROUTE:
            topics += (<Route>found.topic).wide_topics()
            found = (<Topic>(<Route>found.topic).own).c if (<Route>found.topic).own is not None else &by_instance
        if found.kind == BY_INSTANCE:
            found = self.find_event_id(event.__event_type__, event)
        if found != NULL:
            topics.append(<Topic>found.topic)
        return topics + [topic.companion for topic in topics if topic.companion is not None]

    # --- topics and event classes: all under self.lock, but for the two finds ---

    cdef topic_t *find_class(self, event_class) except NULL:
        """The topic of a class, which is made known if it is not, or &by_instance."""
        cdef topic_t *found = <topic_t *>rc_registry_find_locked(&self.by_class, class_key(<PyTypeObject *>event_class))
        cdef Topic topic
        if found != NULL:
            return found
        with self.lock:
            self.check_open()
            identity = identify(event_class)
            if identity.type_id is None:
                found = &by_instance
            else:
                topic = self.topic(identity.type_id, identity.automatic)
                self.bind(topic, identity.owner)
                found = topic.c
            self.reference(event_class)
            wide = [each for each in self.wide if is_subclass(event_class, (<Topic>each).wide_class)]
            if wide:
                found = self.route(event_class, found, wide)
            if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>event_class), found) != 0:
                raise MemoryError
        return found

    cdef topic_t *route(self, event_class, topic_t *found, list wide) except NULL:
        """The route of a class whose entry was `found`, with these wide topics more."""
        cdef Route route
        if found.kind == ROUTE:
            route = <Route>found.topic
        else:
            route = Route(<Topic>found.topic if found.kind == TOPIC else None)
            self.routes[id(event_class)] = route
        for topic in wide:
            route.add(<Topic>topic)
        return route.c

    cdef Topic wide_topic(self, event_class):
        """The topic of all events of a class and its subclasses."""
        cdef Topic topic
        cdef topic_t *found
        for topic in self.wide:
            if topic.wide_class is event_class:
                return topic
        topic = Topic(self, 0, False)
        topic.wide_class = event_class
        known = [reference() for reference in self.classes.values()]
        for one in known:
            if one is None or not is_subclass(one, event_class):
                continue
            found = <topic_t *>rc_registry_find_locked(&self.by_class, class_key(<PyTypeObject *>one))
            if found == NULL:
                continue
            found = self.route(one, found, [topic])
            if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>one), found) != 0:
                raise MemoryError
        self.wide.append(topic)
        return topic

    cdef Topic companion(self, Topic topic):
        """The topic of the same events, each with the context of its publisher."""
        cdef Topic companion
        if topic.companion is None:
            companion = Topic(self, topic.type_id, topic.automatic)
            companion.wide_class = topic.wide_class
            self.companions.append(companion)
            rc_mutex_lock(&topic.c.lock)
            topic.companion = companion
            topic.set_plain()
            rc_mutex_unlock(&topic.c.lock)
        return topic.companion

    cdef topic_t *find_event_id(self, type_id, event) except? NULL:
        """The topic of an id, or NULL where nobody has used it, for an event that may be published under it."""
        cdef topic_t *topic = self.find_id(check_type_id(type_id))
        if topic != NULL and topic.event_class != Py_TYPE(<PyObject *>event):
            self.check_event(<Topic>topic.topic, type(event))
        return topic

    cdef topic_t *find_id(self, uint32_t type_id) except? NULL:
        """The topic of an id, or NULL where nobody has used it."""
        cdef topic_t *found = <topic_t *>rc_registry_find(&self.by_id, id_key(type_id))
        cdef Topic topic
        if found != NULL:
            return found
        with self.lock:
            self.check_open()
            topic = self.topics.get(type_id)
        return NULL if topic is None else topic.c

    cdef Topic topic(self, uint32_t type_id, bint automatic):
        cdef Topic topic = self.topics.get(type_id)
        if topic is None:
            topic = Topic(self, type_id, automatic)
            # an automatic id goes with its class, and then its topic; so only publish finds it without the lock
            if not automatic and rc_registry_put(&self.by_id, id_key(type_id), topic.c) != 0:
                raise MemoryError
            self.topics[type_id] = topic
        return topic

    cdef reference(self, event_class):
        reference = self.classes.get(id(event_class))
        if reference is None:
            reference = ClassReference(event_class, forget_class)
            reference.core_reference = weakref.ref(self)
            self.classes[reference.address] = reference
        return reference

    cdef bind(self, Topic topic, event_class):
        """Makes the topic that of the class, if it is still open."""
        if topic.c.event_class == NULL:
            self.reference(event_class).topics.append(topic)
            topic.c.event_class = <PyTypeObject *>event_class
        elif topic.c.event_class != <PyTypeObject *>event_class:
            raise EventClassError(
                f"type id {topic.type_id:#x} belongs to {class_name(<object>topic.c.event_class)}: "
                f"{class_name(event_class)} needs an id of its own"
            )

    cdef check_event(self, Topic topic, event_class):
        """Makes sure that an event of the class may be published under the topic's id."""
        with self.lock:
            if topic.c.event_class != NULL and not topic.automatic:
                if PyType_IsSubtype(<PyTypeObject *>event_class, topic.c.event_class):
                    return
            self.bind(topic, event_class)

    cdef forget(self, reference):
        """The class is about to be freed."""
        cdef Topic topic
        with self.lock:
            rc_registry_remove(&self.by_class, reference.address)
            if self.classes.get(reference.address) is reference:
                del self.classes[reference.address]
                self.routes.pop(reference.address, None)
            for topic in reference.topics:
                topic.c.event_class = NULL
                if topic.automatic:
                    self.topics.pop(topic.type_id, None)

    cdef check_open(self):
        if self.closing:
            raise ClosedError(f"{self!r} is closed")

    # --- subscribe and count: the checks of the handler are Dispatcher's ---

    def _subscribe_class(self, event_class, handler, Options options):
        cdef topic_t *topic
        cdef Topic found
        with self.lock:
            self.check_open()
            if options.wide:
                return self.join(self.wide_topic(event_class), handler, event_class, options)
            topic = self.find_class(event_class)
            found = None
            if topic.kind == ROUTE:
                found = (<Route>topic.topic).own
            elif topic.kind == TOPIC:
                found = <Topic>topic.topic
            if found is None:
                raise TypeIdError(
                    f"the instances of {class_name(event_class)} compute their type ids: use "
                    "subscribe_to(type_id, handler)"
                )
            if found.c.event_class != <PyTypeObject *>event_class:
                owner = <object>found.c.event_class
                raise EventClassError(
                    f"{class_name(event_class)} inherits type id {found.type_id:#x} from "
                    f"{class_name(owner)}, and its events go where those of that class go: subscribe to that class, or "
                    f"state an __event_type__ in {class_name(event_class)}"
                )
            return self.join(found, handler, event_class, options)

    def _subscribe_id(self, type_id, event_class, handler, Options options):
        cdef Topic topic
        with self.lock:
            self.check_open()
            topic = self.topic(check_type_id(type_id), False)
            if event_class is not None:
                self.bind(topic, event_class)
            return self.join(topic, handler, event_class, options)

    cdef Subscription join(self, Topic topic, handler, event_class, Options options):
        cdef Subscription sub
        if options.with_context:
            topic = self.companion(topic)
        sub = new_subscription(self, topic, handler, event_class, options)
        self.subscribed += 1
        sub.number = self.subscribed
        return sub

    def _class_of(self, type_id):
        """The class that a type id belongs to, or None."""
        cdef Topic topic
        with self.lock:
            topic = self.topics.get(type_id)
            if topic is None or topic.c.event_class == NULL:
                return None
            return <object>topic.c.event_class

    def _count(self, type_id, event_class):
        """How many subscriptions there are to the id, and to base classes of the class."""
        cdef Topic topic
        with self.lock:
            if self.closing:
                return 0
            topic = self.topics.get(type_id)
            wide = [] if event_class is None else [
                each for each in self.wide if is_subclass(event_class, (<Topic>each).wide_class)
            ]
        return (0 if topic is None else topic.reach()) + sum([(<Topic>each).reach() for each in wide])

    # --- close ---

    @property
    def closed(self):
        return self.closing

    cdef list all_topics(self):
        with self.lock:
            return [*self.topics.values(), *self.wide, *self.companions]

    def _begin_close(self):
        """Refuses events and subscriptions from now on, and lets the workers end when all is delivered."""
        cdef Topic topic
        cdef Subscription sub
        with self.lock:
            if self.closing:
                return
            self.closing = True
            # publish finds no topic any more, and looks at `closing`
            for address in self.classes:
                rc_registry_remove(&self.by_class, address)
            for type_id in self.topics:
                rc_registry_remove(&self.by_id, id_key(type_id))
        for topic in self.all_topics():
            rc_ring_close(&topic.c.ring)
            topic.settle()
            topic.tell_room_waiters()
            for sub in topic.members() + topic.direct_members():
                sub.cancel()
        rc_pool_stop(&self.pool.c)

    def _await_close(self, int64_t timeout):
        """Waits for the deliveries and the threads, `timeout` ns at most (below 0: no limit). Returns whether all
        is done. Inside a handler it does not wait and returns True."""
        cdef int64_t deadline = time.monotonic_ns() + timeout
        if rc_pool_current(&self.pool.c) != NULL:
            return True
        if not self.pool.wait(timeout, None, self):
            return False
        while True:   # while the watch lives it may start a worker for the last of the work
            alive = [
                thread
                for thread in list(self.pool.threads)
                if thread.is_alive() and thread is not threading.current_thread()   # a finalizer in the watch
            ]
            if not alive:
                return True
            for thread in alive:
                thread.join(None if timeout < 0 else max(0, deadline - time.monotonic_ns()) / 1e9)
                if thread.is_alive():
                    return False

    def _subscriptions(self):
        """All subscriptions that have not had their last event, a list."""
        cdef Topic topic
        return [sub for topic in self.all_topics() for sub in topic.members() + topic.direct_members()]

    def _is_run_here(self):
        """Whether events wait for the event loop that runs in this thread."""
        running = running_loop()
        return running is not None and any([sub.loop is running and sub.pending for sub in self._subscriptions()])

    def _leave_closed_loops(self):
        """Gives up what waits for event loops that are closed."""
        cdef Topic topic
        for topic in self.all_topics():
            topic.leave_closed_loops()

    def _await_idle(self, int64_t timeout):
        """Waits until all that was accepted is delivered, `timeout` ns at most (below 0: no limit). Returns whether
        that is so. Inside a handler it does not wait."""
        return self.pool.wait(timeout, None, self)

    def _stats(self):
        """(workers, [(type id or None, event class, published, pending, high water, subscriptions), ...])"""
        cdef Topic topic
        rows = []
        for topic in self.all_topics():
            subscriptions = [*topic.members(), *topic.direct_members()]
            event_class = topic.wide_class
            if event_class is None and topic.c.event_class != NULL:
                event_class = <object>topic.c.event_class
            rows.append((
                None if topic.wide_class is not None else topic.type_id, event_class, rc_ring_tail(&topic.c.ring),
                rc_ring_tail(&topic.c.ring) - rc_ring_gate(&topic.c.ring), topic.c.high_water, subscriptions,
            ))
        return rc_pool_workers(&self.pool.c), rows


# --- the quick way of publish ---

cdef extern from *:
    """
    /* The method's function, and Cython's own of it, which takes the arguments apart. */
    typedef PyObject *(*rc_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    static rc_method publish_with_arguments;
    static void replace_publish(PyObject *descriptor, void *quick)
    {
        PyMethodDef *method = ((PyMethodDescrObject *)descriptor)->d_method;
        assert(method->ml_flags == (METH_FASTCALL | METH_KEYWORDS));
        publish_with_arguments = (rc_method)(void (*)(void))method->ml_meth;
        method->ml_meth = (PyCFunction)(void (*)(void))quick;
    }
    """
    object publish_with_arguments(PyObject *, PyObject **, Py_ssize_t, PyObject *)
    void replace_publish(object descriptor, void *quick)


cdef object publish_quickly(PyObject *core, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """publish(event) where queueing is all there is to do. Stands before Core.publish, because taking arguments with
    keywords apart costs as much as a third of the rest."""
    cdef topic_t *topic
    cdef uint32_t subscribers
    if count == 1 and names == NULL:
        topic = <topic_t *>rc_registry_find(&(<Core>core).by_class, class_key(Py_TYPE(arguments[0])))
        if topic != NULL:
            subscribers = rc_u32_load(&topic.plain)
            if subscribers == NOBODY:
                return 0
            if subscribers != 0 and try_publish(topic, arguments[0], rc_u64_load(&topic.limit)) == RC_CLAIMED:
                return subscribers
    return publish_with_arguments(core, arguments, count, names)


replace_publish(Core.__dict__["publish"], <void *>publish_quickly)


cdef inline uint64_t class_key(PyTypeObject *event_class) noexcept nogil:
    return <uint64_t><uintptr_t>event_class


cdef inline uint64_t id_key(uint32_t type_id) noexcept nogil:
    return <uint64_t>type_id + 1   # 0 is the registry's empty key


cdef str describe(event_class, Topic topic):
    if topic.wide_class is not None:
        return f"{topic.wide_class.__qualname__} and subclasses"
    return f"type id {topic.type_id:#x}" if event_class is None else f"{event_class.__qualname__} ({topic.type_id:#x})"


cdef int64_t nanoseconds(timeout) except -2:
    """-1 for None, else the time in ns."""
    if timeout is None:
        return -1
    seconds = float(timeout)
    if not seconds >= 0:   # also what is not a number
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return <int64_t>(min(seconds, 1e9) * 1e9)


def direct_rank_of_all(Subscription sub):
    return (-sub.priority, sub.number)
