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

    def __init__(self, uint64_t max_queue, uint32_t max_workers, uint32_t parallel, str name):
        if self.pool is not None:
            raise RuntimeError("a dispatcher is initialised once")
        self.max_queue = max_queue
        self.max_workers = max_workers
        self.name = name
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

    def publish(self, event, /):
        """Queues an event for all that are subscribed to its class, and returns.

        The event is written once, whatever the number of subscribers. Takes no lock; any number of threads may
        publish at once. Events of one type reach every subscriber in the order in which they were published.

        At `max_queue` events that the slowest subscriber has not finished it waits for room. Inside a handler it waits
        only where that can end: for room that this very handler, or handlers that wait for it, would have to make it
        does not wait, but goes past `max_queue`, by 65,536 events at most.

        Args:
            event: an object of any class. Its class, or its `__event_type__`, says what type it is of.

        Returns:
            How many subscriptions it was queued for, an int. (Those that are subscribed or cancelled at the very
            moment may or may not be among them.)

        Raises:
            ClosedError: the dispatcher is closed, or was closed while this waited.
            EventClassError: the event's type id belongs to another class.
            TypeIdError: its `__event_type__` is no integer from 0 to 2**32 - 1.
            QueueFullError: inside a handler, 65,536 events past `max_queue`.
            KeyboardInterrupt: Ctrl-C ended the wait for room.
            MemoryError: no memory for the queue.
            After each of these the event was not queued.
        """
        cdef topic_t *topic = <topic_t *>rc_registry_find(&self.by_class, class_key(Py_TYPE(<PyObject *>event)))
        if topic == NULL or topic == &by_instance:
            return self.publish_rare(event)
        return self.publish_in(topic, <PyObject *>event)

    def publish_to(self, type_id, event, /):
        """Queues an event under a type id, whatever its class says; otherwise as `publish`.

        Args:
            type_id: from 0 to 2**32 - 1.
            event: an instance of the class that the id belongs to, if it belongs to one; else the id is that class's
                from now on. (An id that nobody is subscribed to stays open.)

        Returns:
            How many subscriptions it was queued for, an int.

        Raises:
            The same as `publish`.
        """
        cdef topic_t *topic = self.find_id(check_type_id(type_id))
        if topic == NULL:
            return 0
        if topic.event_class != Py_TYPE(<PyObject *>event):
            self.check_event(<Topic>topic.topic, type(event))
        return self.publish_in(topic, <PyObject *>event)

    cdef publish_rare(self, event):
        """A class that is seen first, or one whose instances compute their ids."""
        cdef topic_t *topic = self.find_class(type(event))
        if topic == &by_instance:
            return self.publish_to(event.__event_type__, event)
        return self.publish_in(topic, <PyObject *>event)

    cdef inline publish_in(self, topic_t *topic, PyObject *event):
        cdef uint32_t subscribers = rc_u32_load(&topic.subscribers)
        if subscribers == 0:
            return 0
        if not self.started:
            self.start()
        if try_publish(topic, event, topic.ring.max_queue) != RC_CLAIMED:
            self.publish_when_room(topic, event)
        return subscribers

    cdef publish_when_room(self, topic_t *topic, PyObject *event):
        """Publishes in a ring that has refused the claim, after waiting for room if that is why."""
        cdef rc_pool *pool = &self.pool.c
        cdef rc_worker *worker = rc_pool_current(pool)
        cdef rc_claim claim = RC_FULL
        cdef uint64_t limit = topic.ring.max_queue, gate
        while True:
            gate = rc_ring_gate(&topic.ring)
            claim = try_publish(topic, event, limit)
            if claim == RC_CLAIMED:
                return
            if claim == RC_CLOSED:
                raise ClosedError(f"{self!r} is closed: it accepts no events")
            if claim == RC_NO_MEMORY:
                raise MemoryError
            if limit > topic.ring.max_queue:
                raise QueueFullError(
                    f"handlers have published {RESERVE} events beyond max_queue={self.max_queue} under type id "
                    f"{(<Topic>topic.topic).type_id:#x} that wait for these very handlers: raise max_queue, or publish "
                    "fewer events for each event handled"
                )
            advance(<Topic>topic.topic)
            if worker != NULL:
                if rc_turn_running(worker):   # a ring is the first field of its topic
                    advance(<Topic>(<topic_t *>worker.ring).topic)
                if not rc_pool_may_wait(pool, worker, &topic.ring):
                    limit = topic.ring.max_queue + topic.ring.reserve
                    continue
            try:
                with nogil:
                    rc_ring_await_gate(&topic.ring, gate, SLICE)
                PyErr_CheckSignals()
            finally:
                if worker != NULL:
                    rc_pool_waited(pool, worker)

    cdef start(self):
        with self.lock:
            if not self.started:
                self.pool.start()
                self.started = True

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
            if rc_registry_put(&self.by_class, class_key(<PyTypeObject *>event_class), found) != 0:
                raise MemoryError
        return found

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
            for topic in reference.topics:
                topic.c.event_class = NULL
                if topic.automatic:
                    self.topics.pop(topic.type_id, None)

    cdef check_open(self):
        if self.closing:
            raise ClosedError(f"{self!r} is closed")

    # --- subscribe and count: the checks of the handler are Dispatcher's ---

    def _subscribe_class(self, event_class, handler):
        cdef topic_t *topic
        with self.lock:
            self.check_open()
            topic = self.find_class(event_class)
            if topic == &by_instance:
                raise TypeIdError(
                    f"the instances of {class_name(event_class)} compute their type ids: use "
                    "subscribe_to(type_id, handler)"
                )
            if topic.event_class != <PyTypeObject *>event_class:
                owner = <object>topic.event_class
                raise EventClassError(
                    f"{class_name(event_class)} inherits type id {(<Topic>topic.topic).type_id:#x} from "
                    f"{class_name(owner)}, and its events go where those of that class go: subscribe to that class, or "
                    f"state an __event_type__ in {class_name(event_class)}"
                )
            return new_subscription(self, <Topic>topic.topic, handler, event_class)

    def _subscribe_id(self, type_id, event_class, handler):
        cdef Topic topic
        with self.lock:
            self.check_open()
            topic = self.topic(check_type_id(type_id), False)
            if event_class is not None:
                self.bind(topic, event_class)
            return new_subscription(self, topic, handler, event_class)

    def _class_of(self, type_id):
        """The class that a type id belongs to, or None."""
        cdef Topic topic
        with self.lock:
            topic = self.topics.get(type_id)
            if topic is None or topic.c.event_class == NULL:
                return None
            return <object>topic.c.event_class

    def _count(self, type_id):
        cdef Topic topic
        with self.lock:
            topic = self.topics.get(type_id)
        return 0 if topic is None or self.closing else rc_u32_load(&topic.c.subscribers)

    # --- close ---

    @property
    def closed(self):
        return self.closing

    cdef list all_topics(self):
        with self.lock:
            return list(self.topics.values())

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
            for sub in topic.members():
                sub.cancel()
        rc_pool_stop(&self.pool.c)

    def _await_close(self, int64_t timeout):
        """Waits for the deliveries and the threads, `timeout` ns at most (below 0: no limit). Returns whether all
        is done. Inside a handler it does not wait and returns True."""
        cdef int64_t deadline = time.monotonic_ns() + timeout
        if rc_pool_current(&self.pool.c) != NULL:
            return True
        if not self.pool.wait(timeout, None):
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
        return [sub for topic in self.all_topics() for sub in topic.members()]


cdef inline uint64_t class_key(PyTypeObject *event_class) noexcept nogil:
    return <uint64_t><uintptr_t>event_class


cdef inline uint64_t id_key(uint32_t type_id) noexcept nogil:
    return <uint64_t>type_id + 1   # 0 is the registry's empty key


cdef str describe(event_class, uint32_t type_id):
    return f"type id {type_id:#x}" if event_class is None else f"{event_class.__qualname__} ({type_id:#x})"
