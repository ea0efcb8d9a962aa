# Dispatchers: what Dispatcher has in C, and the face of it.
#
# The work is done elsewhere: core/classes.pxi finds the topic of an event, core/fanout.pxi publishes in it,
# core/room.pxi waits for room, core/many.pxi publishes many events, core/subscribe.pxi subscribes, core/close.pxi
# ends.

@cython.no_gc_clear
cdef class Core:
    """The compiled base of Dispatcher, which documents it."""
    cdef rc_registry by_class   # address of the class -> rc_topic, or by_instance
    cdef rc_registry by_id      # type id + 1 -> rc_topic
    cdef int made
    cdef rc_u32 closing
    cdef bint ended             # begin_close has done all it has to
    cdef rc_u32 shut            # as `closing`, for publish_to_all: see await_sharing
    cdef rc_u32 sharing         # threads that are just claiming in several rings, which all stay open for that
    cdef uint64_t most_waiting   # max_queue
    cdef uint32_t most_workers   # max_workers
    cdef str prefix              # name
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
    cdef rc_u32 wide_topics     # how many these are, for whoever has no lock
    cdef rc_u32 unions          # how many of these have classes without their subclasses
    cdef list context_topics    # Topics of other topics' events, with contexts
    cdef list parted            # Topics whose class has gone, until their subscriptions have left
    cdef uint64_t subscribed    # subscriptions made
    cdef bint raises            # publish raises what direct handlers have raised
    cdef bint is_timed
    cdef uint64_t first_position   # of the rings: 0, but for tests. Positions end at 2**63
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
        self.context_topics = []
        self.parted = []
        self.room_waiters = {}

    def __init__(
        self, uint64_t max_queue, uint32_t max_workers, uint32_t spare, uint32_t parallel, uint32_t cpus, str name,
        bint raises, bint timing, uint64_t first_position
    ):
        if self.pool is not None:
            raise RuntimeError("a dispatcher is initialised once")
        self.most_waiting = max_queue
        self.most_workers = max_workers
        self.prefix = name
        self.raises = raises
        self.is_timed = timing
        self.first_position = first_position
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
            begin_close(self, False)

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
            or may not be among them. Where the event loop of one has ended, the first event that it cannot be told
            of is counted here, dropped and reported.)

        Raises:
            ClosedError: the dispatcher is closed, or was closed while this waited.
            EventClassError: the event's type id belongs to another class; or a class, a coroutine or a generator, in
                place of an event, would reach nobody; or this was given anything but one event.
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
        return publish_event(self, event, nanoseconds(timeout))   # see publish_quickly

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
        cdef rc_topic *c
        cdef rc_topic *by_class
        cdef tuple wide = ()
        if PyType_Check(<PyObject *>type_id):
            try:
                check_type_id(type_id)
            except TypeIdError as error:
                raise TypeIdError(f"{error}: publish(event) finds the id by the event's class") from None
        c = find_event_id(self, type_id, event)
        if rc_u32_load(&self.wide_topics) != 0:
            by_class = find_class(self, type(event))
            if by_class.kind == RC_ROUTE:
                wide = (<Route>by_class.host).wide_topics()
            wide = wide_under(self, c, wide)
        return publish_in(self, c, event, wide, nanoseconds(timeout))

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
        self.check_open()
        if record_type is None and (type(events) is list or type(events) is tuple):
            return publish_events(self, tuple(events), done, deadline)
        from ringcast.records import check_batch   # which needs this module

        records = check_batch(events, record_type)
        if records is not None:
            return publish_buffer(self, records[0], records[1], deadline)
        iterator = iterator_of(events)
        while True:
            some, failure = take_some(iterator)
            done = publish_events(self, some, done, deadline)
            if failure is not None:
                raise failure
            if len(<tuple>some) < BATCH:
                return done

    def _publish_beyond(self, event):
        """As publish, for a handler whose wait for room would never end: goes past max_queue."""
        return publish_event(self, event, BEYOND)

    def _when_room(self, event, waiter):
        """See when_room."""
        return when_room(self, event, waiter)

    def _forget_waiter(self, list topics, waiter):
        """See forget_waiter."""
        forget_waiter(self, topics, waiter)

    cdef check_open(self):
        if rc_u32_load(&self.closing):
            if self.native_pool is None:
                name = class_name(type(self))
                raise closed_error(f"this dispatcher is not made: {name}.__init__ is to call super().__init__()")
            # no function of Python: finalizers come here when there are no modules any more
            raise closed_error(f"dispatcher {self.prefix[:200]!r} is closed: it takes no events and no subscriptions")

    def _check_open(self):
        """Raises ClosedError where it is closed, or was never made."""
        self.check_open()

    # --- subscribe: the checks of the handler are Dispatcher's ---

    cdef subscribe_by(self, subscribe, tuple arguments, Options options):
        """`subscribe(core, *arguments, options)`, with the thread of its own that the options may ask for."""
        options.start_own_thread(self)
        try:
            return subscribe(self, *arguments, options)
        finally:
            options.end_own_thread()

    def _subscribe_class(self, event_class, handler, Options options):
        """See subscribe_class."""
        return self.subscribe_by(subscribe_class, (event_class, handler), options)

    def _subscribe_id(self, type_id, event_class, handler, Options options):
        """See subscribe_id."""
        return self.subscribe_by(subscribe_id, (type_id, event_class, handler), options)

    def _subscribe_native(self, record_type, handler, userdata, Options options):
        """See subscribe_native."""
        return self.subscribe_by(subscribe_native, (record_type, handler, userdata), options)

    cdef uint32_t outstanding(self) noexcept:
        return rc_pool_outstanding(&self.pool.c) + rc_pool_outstanding(&self.native_pool.c)

    cdef bint is_worker(self) noexcept:
        """Whether the calling thread is at something that whoever waits for all deliveries waits for: inside a
        handler, or judging events for a mailbox."""
        return (
            is_waited_for(&self.pool.c) or rc_pool_current(&self.native_pool.c) != NULL
            or is_delivering(<PyObject *>self)
        )

    def _class_of(self, type_id):
        """The class that a type id belongs to, or None."""
        cdef Topic topic
        cdef uint32_t checked = type_id
        with self.lock:
            topic = self.topics.get(checked)
            return None if topic is None else class_of(self, topic)

    def _count(self, type_id, event_class):
        """See count_subscriptions."""
        return count_subscriptions(self, type_id, event_class)

    def _stats(self):
        """See stats_rows."""
        return stats_rows(self)

    # --- close ---

    @property
    def closed(self):
        """Whether it takes nothing more: `close` was called, a bool."""
        return rc_u32_load(&self.closing) != 0

    cdef list all_topics(self):
        with self.lock:
            return [*self.topics.values(), *self.wide, *self.context_topics, *self.parted]

    @property
    def policy(self):
        """The policy of subscriptions which state none, as the constructor was given it."""
        return self._policy

    @property
    def on_error(self):
        """What is called with a HandlerFailure; "raise" where the constructor was given that."""
        return "raise" if self.raises else self._on_error

    @property
    def max_queue(self):
        """How many events of one type may wait for the slowest of its subscribers, an int."""
        return self.most_waiting

    @property
    def max_workers(self):
        """How many threads may run handlers, an int; but for the places of those that are stuck in a call, where none
        was given."""
        return self.most_workers

    @property
    def name(self):
        """The prefix of the threads' names, a str."""
        return self.prefix

    @property
    def timing(self):
        """Whether the time of handlers is kept, a bool."""
        return self.is_timed

    @property
    def exit_timeout(self):
        """How long the end of the program, or of a block that an exception ends, waits for the deliveries, in seconds;
        None: as long as they take."""
        return self._exit_timeout

    def _original(self, handler):
        """What a subscription's handler is a wrapper of, where the dispatcher wraps handlers; else that itself."""
        return handler

    def _begin_close(self, bint discard=False):
        """See begin_close."""
        begin_close(self, discard)

    def _await_close(self, int64_t timeout):
        """See await_close."""
        return await_close(self, timeout)

    def _has_ended(self):
        """See has_ended."""
        return has_ended(self)

    def _is_run_here(self):
        """See is_run_here."""
        return is_run_here(self)

    def _leave_closed_loops(self):
        """See leave_closed_loops."""
        leave_closed_loops(self)

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

    def _await_idle(self, int64_t timeout):
        """Waits until all that was accepted is delivered, `timeout` ns at most (below 0: no limit). Returns whether
        that is so. Inside a handler it does not wait."""
        return self.native_pool is None or self.pool.wait(timeout, None, self)
