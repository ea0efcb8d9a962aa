# Subscriptions: what `subscribe` returns.

@cython.final
@cython.no_gc_clear
cdef class Subscription:
    """What `subscribe` returns: one handler's place among the events of one class, or of several.

    Calling it or `cancel()` ends it; so does leaving a `with` or `async with` block, which also waits until all that
    was accepted for it is delivered. Any thread may use it. A subscription does not keep its dispatcher alive.
    """
    cdef rc_member c
    cdef vectorcallfunc call   # what is called for each event, and on what: the handler, or guarded_call on this. Not
    cdef PyObject *callee      # owned
    cdef Topic topic
    cdef object target         # the handler, or a weak reference to it
    cdef object classes   # event_class
    cdef object core_reference
    cdef object where
    cdef bint once
    cdef bint weak
    cdef bint guarded          # admit() decides which events its handler gets
    cdef int64_t priority
    cdef uint64_t number       # in the order in which they were subscribed
    cdef object key
    cdef dict by_key           # key -> Latest, guarded by keyed_lock
    cdef object keyed_lock     # re-entrant: comparing keys may run any code
    cdef object judging        # held by the thread that judges events for the mailbox
    cdef Userdata userdata     # of a native one
    cdef object keeps          # what else is kept for a native one
    cdef object context        # of a queued one: a copy of the one in which it was subscribed. See deliver_in_context
    cdef rc_deliver deliver    # the same: what is called in the context
    cdef OwnThread runs_in     # the thread that it has, or had until its end, for itself; None: any worker runs it
    cdef object waker          # tells the consumer of a RC_LOOP subscription that there is something; guarded by c.lock
    cdef object _loop          # its event loop, or None; the same
    cdef bint orphaned         # the event loop is that of the process which forked this one
    cdef uint32_t concurrency  # of its handlers there; of a stream 0
    cdef list waits            # for each of these that waits for room: in which Topics. Guarded by the Core's lock
    cdef object __weakref__

    __class_getitem__ = classmethod(GenericAlias)   # Subscription[Tick]: for annotations

    def __dealloc__(self):
        cdef uint64_t missed
        cdef PyObject *event
        if self.c.mail == NULL:
            return
        event = <PyObject *>rc_mail_take(self.c.mail, &missed)   # of a consumer that never came
        while event != NULL:
            Py_DECREF(event)
            event = <PyObject *>rc_mail_take(self.c.mail, &missed)
        rc_mail_destroy(self.c.mail)
        rc_aligned_free(self.c.mail)

    def __reduce__(self):
        raise TypeError("a Subscription is its dispatcher's: it is not copied or pickled; its numbers are in stats()")

    # --- for whoever runs it ---

    cdef void retire(self) noexcept:
        """Leaves the topic for good."""
        if self.c.mode != RC_DIRECT:
            rc_bus_retire(&self.c)
            return
        try:
            self.topic.leave_direct(self)
        except MemoryError:   # it will go with the next one that leaves
            pass
        if rc_u32_exchange(&self.c.retired, 1) == 0:
            rc_pool_unhold(self.c.topic.pool)   # see cancel_direct
        rc_u32_store_seq(&self.c.retired, 1)   # seq: a condition of `progress`
        rc_park_wake_all(self.c.topic.pool.progress)
        self.on_retired()

    cdef void on_retired(self) noexcept:
        """What is to be done besides, in any thread."""
        cdef Core core = <Core>self.c.topic.bus
        if self.c.mode == RC_LOOP:   # who was told of the end just now need not come
            return_token(self)
        tell_of_progress(core)
        if self.c.mode == RC_NATIVE:
            native_left(core)
        if self.topic.passing and self.c.mode == RC_DIRECT:   # of the others: when C does not come to them any more
            self.leave_deserted()

    cdef void leave_deserted(self) noexcept:
        """It may have been the last subscription for which its topic was made."""
        core = self.core_reference()
        if core is not None:
            try:
                drop_deserted(<Core>core, self.topic)
            except BaseException as exception:   # no memory, or Ctrl-C: the topic stays until the dispatcher goes
                set_aside(exception, f"while the last subscription left {describe(None, self.topic)}")

    cdef object admit(self, event):
        """The handler, if it is to have this event: its conditions are met, and there still is a handler."""
        if self.where is not None and self.c.mail == NULL:
            try:
                wanted = bool(ask(self.where, unwrapped(event), "where"))
            except BaseException as exception:
                rc_u64_count(&self.c.abandoned, 1)
                note_option(exception, "where", self.where)
                raise
            if not wanted:
                rc_u64_count(&self.c.filtered, 1)
                return None
        handler = self.target() if self.weak else self.target
        if handler is None or (self.once and rc_u32_exchange(&self.c.once_used, 1)):
            rc_u64_count(&self.c.abandoned, 1)
            return None
        if self.once:
            self.cancel_for(True)
        return handler

    cdef uint64_t waiting(self) noexcept:
        """How many accepted events its handler has not finished."""
        if self.c.mode != RC_DIRECT and self.c.mail != NULL:
            absorb(&self.c)
        return rc_member_pending(&self.c)

    cdef object event_loop(self):
        """`loop`: it is set when other threads know the subscription already."""
        rc_mutex_lock(&self.c.topic.lock)
        loop = self._loop
        rc_mutex_unlock(&self.c.topic.lock)
        return loop

    # --- for the consumer of a RC_LOOP subscription, one thread at a time: see core/consumer.pxi ---

    def _set_consumer(self, waker, loop, uint32_t concurrency=0):
        """See set_consumer."""
        set_consumer(self, waker, loop, concurrency)

    def _next(self):
        """See next_for_consumer."""
        return next_for_consumer(self)

    @cython.always_allow_keywords(False)   # else Cython takes a reference for the time of the call
    def _check_answer(self, answer, /):
        """Checks what a call of its `async def` handler has returned. The caller keeps no reference to that.

        Raises:
            HandlerTypeError: it is code that nobody would run.
        """
        if is_unrun(<PyObject *>answer):
            remedy = f"{'await' if is_like_coroutine(<PyObject *>answer) else 'go through'} it in the handler"
            refuse_unrun(answer, f"handler {handler_name(self.handler)}", remedy)

    def _done(self, uint64_t events):
        """See event_done."""
        event_done(self, events)

    def _failed(self, exception, taken, uint64_t events):
        """See event_failed."""
        event_failed(self, exception, taken, events)

    def _abandon(self):
        """See abandon."""
        abandon(self, None)

    def _is_stream(self):
        """Whether its events are taken by a stream."""
        return self.c.mode == RC_LOOP and self.concurrency == 0

    def _is_of(self, core):
        """Whether it is one of this dispatcher."""
        return self.core_reference() is core

    def _is_over(self):
        """Whether there will be no more events for it."""
        return rc_u32_load(&self.c.retired) != 0 or self.core_reference() is None

    # --- for everybody ---

    def cancel(self, *, discard=False):
        """Ends the subscription: what is published from now on does not reach it. Idempotent; does not wait.

        Args:
            discard: drop what was accepted for it and its handler has not begun, and count it in `dropped`;
                also after a first cancel without. Otherwise that is still delivered.

        Raises:
            OptionError: `discard` is no bool. It is not cancelled.
            MemoryError: no memory to take a direct handler out. It is not cancelled.
        """
        self.cancel_for(flag("discard", discard))

    cdef cancel_for(self, bint discard):
        """`cancel`, for the core's own."""
        cdef bint nothing_waits
        core = self.core_reference()
        if core is None:
            return   # nobody can publish any more, and nothing is waiting
        if self.c.mode == RC_DIRECT:
            self.cancel_direct(discard)
            return
        if self.c.mail != NULL:
            absorb(&self.c)
            rc_mutex_lock(&self.c.mail.mutex)   # the cursor stands still
        nothing_waits = rc_bus_set_end(&self.c, discard)
        if self.c.mail != NULL:
            rc_mutex_unlock(&self.c.mail.mutex)
            if discard:
                empty_mail(&self.c)
        if self.c.mode == RC_LOOP and (discard or nothing_waits):
            consumer_idle(self)   # nothing is left for its consumer, which may never come: nobody waits for that
            tell_consumer(self)
        else:
            rc_bus_after_end(&self.c, discard)

    cdef cancel_direct(self, bint discard):
        cdef rc_topic *c = self.c.topic
        if rc_u64_load(&self.c.end) == RC_NEVER:
            self.topic.part(self)   # first, as it takes memory
        rc_mutex_lock(&c.lock)
        if rc_u64_load(&self.c.end) == RC_NEVER:
            rc_pool_hold(c.pool)   # close waits for the calls that are under way, until it retires
            rc_u64_store(&self.c.cancelled_at, rc_ring_tail(&c.ring))
            rc_u64_store(&self.c.cursor, rc_u64_load(&self.c.cancelled_at))   # it has nothing in the ring
            # seq: before the look at the calls under way, with end_direct
            rc_u64_store_seq(&self.c.end, rc_u64_load(&self.c.cancelled_at))
        if discard:
            rc_u32_store(&self.c.discarded, 1)
        rc_mutex_unlock(&c.lock)
        if rc_member_is_over(&self.c):   # else whoever calls its handler retires it
            self.retire()

    def __call__(self):
        """The same as `cancel()`."""
        self.cancel()

    def __enter__(self):
        """The subscription itself."""
        return self

    def __exit__(self, exception_type, exception, traceback):
        """Cancels, and waits until all that was accepted is delivered and the handler has returned, in all threads.
        Inside a handler of the dispatcher it does not wait: the handler may be the one that is waited for, or hold what
        that one needs.

        A block that is left by an exception must not hide it: it waits for the dispatcher's `exit_timeout` at most, and
        what is left is delivered later. (Not by GeneratorExit: a generator that is closed ends as one that returns.) By
        an interrupt (KeyboardInterrupt, the cancellation of a task, or a group with one of them) what its handler has
        not begun is dropped and counted, and nothing is waited for.

        Raises:
            LoopBlockedError: what is left needs the event loop that runs here: use `async with`.
            KeyboardInterrupt: Ctrl-C ended the wait.
            After each of these the subscription is cancelled all the same.
        """
        core = self.core_reference()
        self.cancel_for(is_interrupt(exception))
        if core is None or is_interrupt(exception):
            return
        loop = self.event_loop()
        if loop is not None and loop is running_loop() and not self._is_over():
            from ringcast import aio

            if not aio.in_handler() and exception is None:
                raise LoopBlockedError(f"to wait for {self!r} would stop the loop that it needs: use `async with`")
            return
        patience = seconds_to_leave(exception, core._exit_timeout)
        if patience is None:
            patience = seconds_to_wait(core, core._exit_timeout)
        (<Core>core).pool.wait(nanoseconds(patience), self, <Core>core)

    async def __aenter__(self):
        """The subscription itself."""
        return self

    async def __aexit__(self, exception_type, exception, traceback):
        """The same as leaving a `with` block, but waits without blocking the event loop."""
        from ringcast import aio

        self.cancel_for(is_interrupt(exception))
        if not is_interrupt(exception):
            await aio.leave(self, exception)

    def _name(self):
        """What messages and numbers call its handler, a str. A stream has no name, but what it is of."""
        if self._is_stream():
            return f"stream of {class_names(self.classes)}"
        handler = self.handler
        return "a method of an object that is gone" if handler is None else handler_name(handler)

    def _dispatcher(self):
        """Its dispatcher, or None where that is gone."""
        return self.core_reference()

    @property
    def loop(self):
        """The event loop that its handler runs in, or its stream is read in; None for the other modes."""
        return self.event_loop()

    @property
    def handler(self):
        """The callable, which the dispatcher holds strongly until the last event is delivered; with `weak` None when
        its owner is gone. Of a stream a callable that is no handler."""
        return self.target() if self.weak else self.target

    @property
    def type_id(self):
        """The type id of its events, an int; None where it takes those of several classes."""
        return None if self.topic.scope is not None else self.topic.type_id

    @property
    def mode(self):
        """Where its handler runs: "queued", "direct", "asyncio" or "native"."""
        return MODES[self.c.mode]

    @property
    def event_class(self):
        """The class of its events; of several classes a tuple of them; None where `subscribe_to` was told no class."""
        return self.classes

    @property
    def policy(self):
        """What happens at `max_queue`: "block", "raise", "drop_newest", "drop_oldest" or "latest"."""
        return POLICIES[self.c.policy]

    @property
    def max_queue(self):
        """How many events may wait for it, an int."""
        return self.c.max_queue

    @property
    def batch(self):
        """How many events its handler is given at a time, at most, an int; None where it is given them one by one."""
        return self.c.batch or None

    @property
    def own_thread(self):
        """Whether its handler runs in a thread of its own, a bool."""
        return self.runs_in is not None

    @property
    def active(self):
        """Whether events that are published now reach it: until it is cancelled or the dispatcher closed."""
        return rc_u64_load(&self.c.end) == RC_NEVER and self.core_reference() is not None

    @property
    def pending(self):
        """How many events were accepted for it and are not finished by its handler, an int."""
        return self.waiting()

    @property
    def delivered(self):
        """How many events its handler was called with, an int: of calls that have ended, by return or exception."""
        cdef uint64_t ended, unheard
        if self.guarded or self.c.mode == RC_LOOP:   # an event may be known as filtered while it is still in hand
            return rc_u64_load(&self.c.handled)
        unheard = rc_u64_load(&self.c.abandoned)   # for want of memory; of a direct one: discarded
        if self.c.mail != NULL or self.c.mode == RC_DIRECT:
            ended = rc_u64_load(&self.c.calls)
        else:
            ended = rc_u64_load(&self.c.cursor) - rc_u64_load(&self.c.start)
        return max(ended, unheard) - unheard

    @property
    def dropped(self):
        """How many accepted events it never got: because of its policy or of `cancel(discard=True)`, because its event
        loop was closed, because its `where` or `key` has raised, or because nobody was left to handle them (`once`,
        `weak`). An int."""
        cdef uint64_t cursor = rc_u64_load(&self.c.cursor), end = rc_u64_load(&self.c.end)
        cdef uint64_t count = rc_u64_load(&self.c.abandoned)
        if self.c.mail != NULL:
            absorb(&self.c)
            count += rc_u64_load(&self.c.lost)
        if self.c.mode == RC_DIRECT or end == RC_NEVER or end == rc_u64_load(&self.c.cancelled_at):
            return count
        return count + rc_u64_load(&self.c.cancelled_at) - max(cursor, end)

    @property
    def filtered(self):
        """How many events `where` has kept from its handler, an int."""
        return rc_u64_load(&self.c.filtered) + rc_u64_load(&self.c.filtered_early)

    @property
    def lag(self):
        """How many events its policy has dropped between the event that its handler was given last and the one before,
        an int. To be read in the handler."""
        return rc_u64_load(&self.c.lag)

    @property
    def errors(self):
        """How many calls of its handler (or of its `where` or `key`) have raised, an int."""
        return rc_u64_load(&self.c.failures)

    @property
    def high_water(self):
        """The most events that were seen waiting when its handler began a turn, an int; see `pending` for now."""
        return rc_u64_load(&self.c.high_water)

    @property
    def handler_seconds(self):
        """How long a call of its handler takes, the mean of those that were timed; None if none was."""
        cdef uint64_t timed = rc_u64_load(&self.c.timed)
        return rc_u64_load(&self.c.time) / <double>timed / 1e9 if timed else None

    def __repr__(self):
        state = "active" if self.active else "cancelled"
        return (
            f"<Subscription of {self._name()} to {describe(self.classes, self.topic)}, "
            f"{self.mode}{' in a thread of its own' if self.own_thread else ''}, {self.policy}: "
            f"{state}, {self.pending} pending, {self.delivered} delivered, {self.dropped} dropped, "
            f"{self.errors} errors>"
        )


def is_interrupt(exception):
    """Whether it asks for a quick end: Ctrl-C, or the cancellation of a task, also as one of a group."""
    if isinstance(exception, BaseExceptionGroup):
        return any([is_interrupt(each) for each in exception.exceptions])
    asyncio = get_or_none(sys.modules, "asyncio.exceptions")   # not imported for the question
    return isinstance(exception, KeyboardInterrupt) or (
        asyncio is not None and isinstance(exception, asyncio.CancelledError)
    )


def seconds_to_wait(core, exit_timeout):
    """How long to wait for deliveries, in seconds; None: as long as they take. Limited where a handler of an event loop
    may wait for the one that asks: see aio.is_begun_by_handler."""
    aio = get_or_none(sys.modules, "ringcast.aio")   # not imported for the question
    return exit_timeout if aio is not None and aio.is_begun_by_handler(core) else None


def seconds_to_leave(exception, exit_timeout):
    """How long the end of a block waits for deliveries, in seconds; None: as long as they take.

    Args:
        exception: what has ended the block, no interrupt. GeneratorExit is an ordinary end: whoever closes a generator
            has it return.
        exit_timeout: how long for other exceptions, which are not to be hidden.
    """
    return None if exception is None or isinstance(exception, GeneratorExit) else exit_timeout


cdef Subscription new_subscription(
    Core core, Topic topic, handler, event_class, Options options, uintptr_t native, Userdata userdata
):
    cdef Subscription sub
    if (options.mode == RC_NATIVE) != (native != 0):
        raise OptionError("a native handler, and no other, is an address")
    sub = Subscription.__new__(Subscription)
    sub.core_reference = weakref.ref(core)
    sub.topic = topic
    sub.target = handler
    sub.classes = event_class
    sub.where = options.where
    sub.once = options.once
    sub.weak = options.weak
    sub.priority = options.priority
    rc_member_init(&sub.c, topic.c)
    sub.c.host = <PyObject *>sub
    sub.c.mode = options.mode
    sub.c.policy = options.policy
    sub.c.max_queue = 1 if options.policy == RC_LATEST and options.key is None else options.max_queue
    if native != 0:
        sub.userdata = userdata
        sub.c.native = <rc_native_handler>native
        sub.c.userdata = userdata.pointer
    sub.c.batch = options.batch
    sub.guarded = sub.where is not None or sub.once or sub.weak or options.with_context
    if sub.guarded:
        sub.call = <vectorcallfunc>guarded_call
        sub.callee = <PyObject *>sub
    else:
        sub.call = PyVectorcall_Function(<PyObject *>handler)
        sub.callee = <PyObject *>handler
        if sub.call == NULL:
            sub.call = PyObject_Vectorcall
    if options.mode != RC_DIRECT and options.policy >= RC_DROP_NEWEST:
        sub.c.mail = <rc_mail *>rc_aligned_zalloc(sizeof(rc_mail))
        if sub.c.mail == NULL or rc_mail_init(sub.c.mail, sub.c.max_queue):
            rc_aligned_free(sub.c.mail)
            sub.c.mail = NULL
            raise MemoryError
        if options.key is not None or options.where is not None:
            sub.c.is_judged = True
            sub.judging = threading.Lock()
        if options.key is not None:
            sub.c.by_key = True
            sub.key = options.key
            sub.by_key = {}
            sub.keyed_lock = threading.RLock()
    if native != 0:
        sub.c.deliver = rc_deliver_native
    elif options.mode == RC_QUEUED:
        sub.c.deliver = deliver_in_context
        sub.context = copy_for_a_handler(contextvars.copy_context())
        if sub.c.mail != NULL:
            sub.deliver = deliver_mail_batch if sub.c.batch else deliver_mail
        elif sub.c.batch:
            sub.deliver = deliver_batch
        else:
            sub.deliver = deliver_events if topic.layout is None else deliver_records
    if options.own_thread is not None:
        sub.runs_in, options.own_thread = options.own_thread, None
        rc_pool_bind(&sub.runs_in.pool.c, sub.runs_in.worker, &sub.c.lane)
    if options.weak:
        watch_owner(sub)
    if options.mode != RC_LOOP:
        topic.join(sub)
        return sub
    sub.waits = []
    rc_task_release(&sub.c.lane, RC_IDLE)
    rc_member_keep(&sub.c)   # the token's hold. Nobody wakes its consumer before there is one: see set_consumer
    rc_pool_acquire(&core.pool.c, &sub.c.lane)
    try:
        topic.join(sub)
    except MemoryError:
        return_token(sub)
        raise
    return sub


cdef watch_owner(Subscription sub):
    """Cancels the subscription when the owner of its bound method is gone."""
    reference = weakref.ref(sub)

    def gone(_):
        subscription = reference()
        if subscription is not None:
            subscription.cancel(discard=True)

    sub.target = weakref.WeakMethod(sub.target, gone)
