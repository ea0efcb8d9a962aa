# Pools: the threads of a dispatcher, and what they ask of it (csrc/rc_host.h).
#
# A dispatcher has two, so that Python handlers and native ones never wait for each other. The workers of the second
# stay detached from the interpreter, and attach themselves only when a subscription has ended. A thread that Python
# does not know may schedule a task of theirs: so nobody pins the dispatcher for them. Instead it is kept while it has
# native subscriptions (native_dispatchers), and after the last until nothing of that pool is scheduled.

native_dispatchers = set()   # Cores that have native subscriptions, or a native task after these


cdef start_thread(Pool pool, target, loop, str name):
    """Starts a thread, adds it to those of the pool and takes out those that have ended. Any number of threads may be
    here. Where it raises anything but a StartError or MemoryError (what a signal's handler has raised), the thread may
    be started all the same."""
    if threading.get_ident() != PyThread_get_thread_ident():
        raise StartError(
            f"{name} cannot be started: gevent or eventlet has patched `threading`, and a greenlet would stop the "
            "thread that it runs in. Leave threads unpatched, by gevent.monkey.patch_all(thread=False) or "
            "eventlet.monkey_patch(thread=False); or subscribe with mode='direct', which needs no threads"
        )
    with pool.threads_lock:
        for old in list(pool.threads):
            if not old.is_there() and old in pool.threads:   # a finalizer that has come in here may have taken it out
                pool.threads.remove(old)
    # daemon: a handler that never returns must not keep the interpreter; Dispatcher closes at exit
    thread = Thread(target=target, args=(loop,), name=name, daemon=True)
    pool.threads.append(thread)   # first: an interrupt may come in as soon as it runs
    try:
        thread.start()
    except RuntimeError as error:   # "can't start new thread", or "... at interpreter shutdown"
        if error.__context__ is not None:   # a signal's handler has raised inside a `with` that cannot end therefore
            thread.start_was_interrupted()
            raise error.__context__
        pool.threads.remove(thread)
        raise StartError(f"{name} cannot be started: {error}") from error
    except MemoryError:
        pool.threads.remove(thread)
        raise
    except BaseException:
        thread.start_was_interrupted()
        raise


@cython.final
@cython.no_gc_clear
cdef class Pool:
    """Threads of one dispatcher. They hold the Pool and, only while something is outstanding, the Core."""
    cdef rc_pool c
    cdef bint made
    cdef Pool main            # of the native pool: the one that is told when something is done; else None
    cdef rc_u32 watched       # whether the watch runs
    cdef rc_u32 is_left       # of the native pool: its last subscription has gone
    cdef str name
    cdef list threads
    # Held while ended threads are taken out of `threads`. It is re-entrant, because a finalizer may run meanwhile in
    # the thread that holds it, and start a thread.
    cdef object threads_lock
    cdef rc_mutex entrance       # see `take`
    cdef int number
    cdef list listeners          # called once when there is progress: for event loops, which cannot wait in a park
    cdef object listeners_lock   # re-entrant, because finalizers may come in anywhere
    cdef rc_u32 listening        # whether there are listeners

    def __cinit__(self, Pool main or None, str name, uint32_t max_workers, uint32_t spare, uint32_t parallel):
        if rc_pool_init(
            &self.c, &calls if main is None else &native_calls, NULL if main is None else &main.c, max_workers, spare,
            parallel, TICK, LINGER,
        ):
            raise MemoryError
        if rc_mutex_init(&self.entrance):
            rc_pool_destroy(&self.c)
            raise MemoryError
        self.made = True
        self.c.host = <PyObject *>self
        if main is not None and parallel > 1:   # with one CPU a pause would be the producer's time
            self.c.patience = PATIENCE
        self.main = main
        self.name = name
        self.threads = []
        self.threads_lock = threading.RLock()
        self.listeners = []
        self.listeners_lock = threading.RLock()

    def __dealloc__(self):
        if self.made:
            rc_mutex_destroy(&self.entrance)
            rc_pool_destroy(&self.c)

    cdef listen(self, listener):
        """Has `listener()` called once, from any thread, when there is progress. The caller then looks, and once more
        right after this returns."""
        with self.listeners_lock:
            self.listeners.append(listener)
            rc_u32_store_seq(&self.listening, 1)   # seq: before the caller's next look, with tell_of_progress

    cdef forget(self, listener):
        """Takes back what `listen` was told, if it has not been called."""
        with self.listeners_lock:
            if listener in self.listeners:
                self.listeners.remove(listener)

    cdef start(self):
        """Starts the watch and a first worker; after an interrupted call, what is not there yet. In a forked child
        own workers, too."""
        cdef rc_worker *own = rc_pool_without_thread(&self.c)
        if not rc_pool_is_staffed(&self.c):
            self.start_worker(NULL)
        while own != NULL and not self.c.stopping:
            self.start_worker(own)
            own = rc_pool_without_thread(&self.c)
        if not rc_u32_load(&self.watched):
            start_thread(self, ringcast_watch, self.watch, f"{self.name}-watch")

    cdef start_worker(self, rc_worker *own):
        """Starts the thread of an own worker, unless it is there; or of one more for all (NULL)."""
        if not rc_pool_hire(&self.c, own):
            return
        try:
            self.number += 1
            name = f"{self.name}-worker-{self.number}" if self.main is None else f"{self.name}-{self.number}"
            start_thread(self, ringcast_worker, functools.partial(self.work, <uintptr_t>own), name)
        except BaseException:
            rc_pool_dismiss(&self.c, own)
            raise

    def work(self, uintptr_t own=0):
        """A worker's thread: runs what the queue gives it, or an own worker's lane."""
        cdef rc_worker *worker = rc_pool_join(&self.c, <rc_worker *>own)
        name_thread()
        if worker != NULL and self.main is None:
            self.run_tasks(worker)
        elif worker != NULL:
            with nogil:
                run_native_tasks(&self.c, worker)
                rc_mutex_lock(&self.entrance)   # as in `take`
            rc_mutex_unlock(&self.entrance)

    cdef run_tasks(self, rc_worker *worker):
        cdef rc_task *task = self.take(worker)
        while task != NULL:
            rc_pool_pin(&self.c)
            rc_bus_run(&self.c, worker, task)
            task = self.take(worker)

    cdef rc_task *take(self, rc_worker *worker) noexcept:
        """Waits for the next task of the worker, or for its end: NULL. One thread at a time then waits for the GIL, and
        the others for that one: each that waits for the GIL itself wakes up every 5 ms, and where one event or `close`
        has woken a thousand, they would do nothing else."""
        cdef rc_task *task = rc_pool_take_now(&self.c, worker)   # without giving up the GIL
        if task == NULL:
            with nogil:
                task = rc_pool_take(&self.c, worker)
                rc_mutex_lock(&self.entrance)   # its holder waits for the GIL only, and nobody for it with the GIL
            rc_mutex_unlock(&self.entrance)
        return task

    def watch(self):
        """The watch's thread: sees which workers are stuck, and starts those that are wanted."""
        cdef int found = 0
        if rc_u32_exchange(&self.watched, 1):   # an interrupted start was made up for by another
            return
        name_thread()
        while not found & RC_WATCH_STOP:
            with nogil:
                found = rc_pool_watch(&self.c)
                while self.main is not None and found == RC_WATCH_STUCK:   # no native handler waits for the GIL
                    rc_pool_split_stuck(&self.c)
                    found = rc_pool_watch(&self.c)
            # Attached again, which under the GIL took as long as others ran: who only waited for the GIL
            # has gone on meanwhile, and is found so by the second look that the split takes.
            if found & RC_WATCH_STUCK:
                rc_pool_split_stuck(&self.c)
            while rc_pool_wants_worker(&self.c):
                try:
                    self.start_worker(NULL)
                except StartError:   # no more threads: those there are go on; try again in a while
                    if self.c.stopping:   # at the end of a program there will be none: this one helps out
                        rc_pool_hire(&self.c, NULL)
                        self.work()
                        return
                    with nogil:
                        rc_park_wait(&self.c.watch, rc_park_prepare(&self.c.watch), TICK)

    cdef bint wait(self, int64_t timeout, Subscription sub, Core core) except -1:
        """Waits until `sub` has had its last event, or for all if it is None. Returns whether that is so after
        `timeout` ns (below 0: no limit). A worker does not wait: it may be the one that is waited for; nor does a
        thread that judges events for a mailbox."""
        cdef uint32_t ticket
        cdef int64_t deadline = time.monotonic_ns() + timeout, left = SLICE
        cdef bint done
        running = running_loop()
        while True:
            leave_closed_loops(core)
            ticket = rc_park_prepare(self.c.progress)
            done = rc_u32_load_seq(&sub.c.retired) != 0 if sub is not None else core.outstanding() == 0
            if timeout >= 0:
                left = deadline - time.monotonic_ns()
            if done or left <= 0 or core.is_worker():
                rc_park_cancel(self.c.progress)
                return done
            left = min(left, SLICE)
            with nogil:
                rc_park_wait(self.c.progress, ticket, left)
            PyErr_CheckSignals()
            if running is not None and self.needs_loop(sub, core):
                raise LoopBlockedError(
                    "this wait would stop the event loop that has events to handle: use aclose(), or async with"
                )

    cdef bint needs_loop(self, Subscription sub, Core core) except -1:
        """Whether what is waited for needs the event loop that runs here: `sub`, or all if it is None."""
        cdef Topic full
        if sub is None:
            return is_run_here(core)
        full = waited_for(core, &self.c, &sub.c.lane)
        return full is not None and stops_its_loop(core, full)


@cython.final
@cython.no_gc_clear
cdef class OwnThread:
    """A thread that runs one subscription and nothing else, and ends with it."""
    cdef Pool pool
    cdef rc_worker *worker

    def __dealloc__(self):
        self.end()

    cdef void end(self) noexcept:
        if self.worker != NULL:
            rc_pool_disown(&self.pool.c, self.worker)
            self.worker = NULL


cdef OwnThread new_own_thread(Pool pool):
    """Starts it. Not under core.lock: see start_pool."""
    cdef OwnThread own = OwnThread.__new__(OwnThread)
    own.pool = pool
    own.worker = rc_pool_own(&pool.c)
    if own.worker == NULL:
        raise MemoryError
    pool.start_worker(own.worker)
    return own


cdef inline void tell_of_progress(Core core) noexcept:
    """Tells the event loops that wait in aclose, or at the end of an `async with`, after something has ended."""
    if rc_u32_load_seq(&core.pool.listening) != 0:   # seq: after what has ended, with Pool.listen
        tell_listeners(&core.pool.c)


cdef void run_native_tasks(rc_pool *pool, rc_worker *worker) noexcept nogil:
    cdef rc_task *task = rc_pool_take(pool, worker)
    while task != NULL:
        rc_bus_run_natives(pool, worker, task)
        task = rc_pool_take(pool, worker)


cdef void end_tasks(rc_pool *pool) noexcept nogil:
    """Waits until nothing is scheduled in the native pool. One of its workers, which may be the only one, runs what is
    queued."""
    cdef rc_worker *worker = rc_pool_current(pool)
    cdef rc_task *task
    cdef uint32_t ticket
    while worker != NULL and not worker.is_own:   # which runs nothing else: it leaves that to the others
        task = rc_pool_take_now(pool, worker)
        if task == NULL:
            return
        rc_bus_run_natives(pool, worker, task)
    while True:
        ticket = rc_park_prepare(pool.progress)
        if rc_pool_outstanding(pool) == 0:
            rc_park_cancel(pool.progress)
            return
        rc_park_wait(pool.progress, ticket, SLICE)


cdef void tell_listeners(rc_pool *told) noexcept with gil:
    cdef Pool pool = <Pool>told.host
    with pool.listeners_lock:
        listeners, pool.listeners = pool.listeners, []
        rc_u32_store_seq(&pool.listening, 0)
    for listener in listeners:
        try:
            listener()
        except RuntimeError:   # its event loop is closed: nobody waits any more
            pass
        except BaseException as exception:   # a signal's handler has raised meanwhile
            set_aside(exception, "while an event loop was told of progress")


cdef name_thread():
    """Gives the thread its name also for the system (`top -H`, debuggers), as Python does since 3.14."""
    if sys.version_info >= (3, 14):
        return
    try:
        rc_thread_name(threading.current_thread().name.encode("ascii", "replace"))
    except MemoryError:   # then without
        pass


cdef start_pool(Core core, Pool pool):
    """Starts the threads of a pool, unless they are there. Not under core.lock, and without waiting for long where
    another call does so: whoever starts a thread waits for it, and the new thread may first have to run a finalizer
    that publishes or forgets a class."""
    if rc_u32_load(&pool.c.started):
        return
    starting = core.starting   # a fork replaces it
    if not starting.acquire(timeout=START_SECONDS):
        return
    try:
        if not rc_u32_load(&pool.c.started):
            pool.start()
            rc_u32_store(&pool.c.started, 1)
    finally:
        starting.release()


cdef void native_left(Core core) noexcept:
    """A native subscription has had its last record, or was not made."""
    with core.lock:
        core.natives -= 1
        # seq: before the look at what is outstanding, with unpin_native
        rc_u32_store_seq(&core.native_pool.is_left, core.natives == 0)
    let_go_if_no_natives(core)


cdef void let_go_if_no_natives(Core core) noexcept:
    """Lets go of the dispatcher if it has no native subscriptions, and none of their tasks is scheduled; else the
    worker that ends the last task comes here again."""
    with core.lock:
        if core.natives == 0 and rc_pool_outstanding(&core.native_pool.c) == 0:
            rc_u32_store(&core.native_pool.is_left, 0)
            native_dispatchers.discard(core)


# --- what the C side asks for: csrc/rc_host.h ---------------------------------------------------------------------

cdef void pin(rc_pool *pool) noexcept:
    share_reference(pool.bus)


cdef void unpin(rc_pool *pool) noexcept:
    cdef PyObject *core = pool.bus
    # seq: after what is outstanding, with Pool.listen
    if rc_u32_load_seq(&(<Core>core).pool.listening) != 0 and (<Core>core).outstanding() == 0:
        tell_listeners(pool)
    Py_DECREF(core)


cdef void unpin_native(rc_pool *pool) noexcept nogil:
    """The Core may be gone already: nothing but the pools is used here."""
    cdef rc_pool *main = &(<Pool>pool.host).main.c
    if rc_u32_load_seq(&(<Pool>pool.host).main.listening) != 0 and rc_pool_outstanding(main) == 0:   # seq: as above
        tell_listeners(main)
    if rc_u32_load_seq(&(<Pool>pool.host).is_left):   # seq: after what is outstanding, with native_left
        let_go_of_natives(pool)


cdef void let_go_of_natives(rc_pool *pool) noexcept with gil:
    """Keeps the dispatcher no longer, if it has no native subscriptions any more and nothing is scheduled."""
    for core in list(native_dispatchers):
        if &(<Core>core).native_pool.c == pool:
            let_go_if_no_natives(<Core>core)


cdef void start_threads(rc_topic *c, rc_pool *pool) noexcept with gil:
    """For those who did not publish themselves: publish starts them before it claims, and raises what comes of it."""
    cdef Core core = <Core>c.bus
    try:
        start_pool(core, <Pool>pool.host)
        rc_mutex_lock(&c.lock)
        rc_topic_set_quick_reply(c)
        rc_mutex_unlock(&c.lock)
    except BaseException as exception:   # no more threads: whoever publishes next tries again
        set_aside(exception, "while starting workers")


cdef void let_others_run() noexcept:
    """Also where the handlers are compiled functions, which never give up the GIL."""
    with nogil:
        pass


cdef void drop_events(void **events, size_t count) noexcept:
    cdef size_t at
    for at in range(count):
        Py_DECREF(<PyObject *>events[at])


cdef void wake_consumer(rc_member *member) noexcept:
    """Tells an event loop that there are events, once for as long as it has not taken them all."""
    cdef Subscription sub = <Subscription>member.host
    rc_member_keep(member)   # the token's hold: see return_token
    if not rc_pool_acquire(member.topic.pool, &member.lane):
        rc_member_drop(&calls, member)
        return
    if rc_u32_load_seq(&member.retired):   # seq: after the token was taken, with rc_bus_retire: one gives it back
        return_token(sub)
        return
    try:
        sub.waker()   # was set before the token was given back for the first time
    except BaseException as exception:
        not_told(sub, exception)


cdef void tell_room_waiters(rc_topic *c) noexcept with gil:
    """The Topic may be gone already; the Core is not."""
    try:
        tell_of_room(<Core>c.bus, c)
    except BaseException as exception:   # a signal's handler has raised meanwhile
        set_aside(exception, "while publishers were told of room")


cdef void on_retired(rc_member *member) noexcept with gil:
    (<Subscription>member.host).on_retired()


cdef void on_left(rc_member *member) noexcept with gil:
    """Lets go of the subscription, and of a topic that is there for its subscriptions only. Not before: the garbage
    collector would free both, which it sees refer to each other, while C still comes to them."""
    cdef Subscription sub = <Subscription>member.host   # kept until pop has unlocked the dictionary
    sub.topic.owned.pop(sub, None)
    sub.context = None   # which keeps what its variables have
    if sub.runs_in is not None:
        sub.runs_in.end()
    if sub.topic.passing:
        sub.leave_deserted()


cdef rc_host calls
calls.pin = pin
calls.unpin = unpin
calls.start = start_threads
calls.pause = let_others_run
calls.drop = drop_events
calls.wake = wake_consumer
calls.moved = tell_room_waiters
calls.retired = on_retired
calls.left = on_left

cdef rc_host native_calls = calls
native_calls.pin = NULL
native_calls.unpin = <void (*)(rc_pool *) noexcept>unpin_native
native_calls.pause = NULL
