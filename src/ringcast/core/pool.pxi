# The pool: the threads of a dispatcher.

cdef start_thread(list threads, target, loop, str name):
    """Starts a thread, adds it to the list and takes out those that have ended. Where it raises anything but a
    StartError or MemoryError (what a signal's handler has raised), the thread may be started all the same."""
    if threading.get_ident() != PyThread_get_thread_ident():
        raise StartError(
            f"{name} cannot be started: gevent or eventlet has patched `threading`, and a greenlet would stop the "
            "thread that it runs in. Leave threads unpatched, by gevent.monkey.patch_all(thread=False) or "
            "eventlet.monkey_patch(thread=False); or subscribe with mode='direct', which needs no threads"
        )
    for old in list(threads):
        if not old.is_there():
            threads.remove(old)
    # daemon: a handler that never returns must not keep the interpreter; Dispatcher closes at exit
    thread = Thread(target=target, args=(loop,), name=name, daemon=True)
    threads.append(thread)   # first: an interrupt may come in as soon as it runs
    try:
        thread.start()
    except RuntimeError as error:   # "can't start new thread", or "... at interpreter shutdown"
        if error.__context__ is not None:   # a signal's handler has raised inside a `with` that cannot end therefore
            thread.start_was_interrupted()
            raise error.__context__
        threads.remove(thread)
        raise StartError(f"{name} cannot be started: {error}") from error
    except MemoryError:
        threads.remove(thread)
        raise
    except BaseException:
        thread.start_was_interrupted()
        raise


@cython.final
@cython.no_gc_clear
cdef class Pool:
    """The threads of one dispatcher. They hold the Pool and, only while they run a task, the Core."""
    cdef rc_pool c
    cdef bint made
    cdef rc_u32 watched       # whether the watch runs
    cdef str name
    cdef list threads
    cdef int number
    cdef list listeners          # called once when there is progress: for event loops, which cannot wait in a park
    cdef object listeners_lock   # re-entrant, because finalizers may come in anywhere
    cdef rc_u32 listening        # whether there are listeners

    def __cinit__(self, str name, uint32_t max_workers, uint32_t spare, uint32_t parallel):
        if rc_pool_init(&self.c, max_workers, spare, parallel, TICK, LINGER):
            raise MemoryError
        self.made = True
        self.name = name
        self.threads = []
        self.listeners = []
        self.listeners_lock = threading.RLock()

    def __dealloc__(self):
        if self.made:
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
        """Starts the watch and a first worker; after an interrupted call, what is not there yet."""
        if not rc_pool_is_staffed(&self.c):
            self.start_worker()
        if not rc_u32_load(&self.watched):
            start_thread(self.threads, ringcast_watch, self.watch, f"{self.name}-watch")

    cdef start_worker(self):
        self.number += 1
        rc_pool_hire(&self.c)
        try:
            start_thread(self.threads, ringcast_worker, self.work, f"{self.name}-worker-{self.number}")
        except BaseException:
            rc_pool_dismiss(&self.c)
            raise

    def work(self):
        """A worker's thread: runs what the queue gives it."""
        cdef rc_worker *worker = rc_pool_join(&self.c)
        cdef rc_task *task
        name_thread()
        while worker != NULL:
            task = rc_pool_take_now(&self.c, worker)   # without giving up the GIL
            if task == NULL:
                with nogil:
                    task = rc_pool_take(&self.c, worker)
                if task == NULL:
                    return
            if task.kind == RC_TOPIC:
                if rc_task_is_lent(task):
                    own_token(<rc_topic *>task.owner)
                run_topic(worker, <rc_topic *>task.owner)
            else:
                run_lane(worker, <Subscription>(<rc_member *>task.owner).host)

    def watch(self):
        """The watch's thread: sees which workers are stuck, and starts those that are wanted."""
        cdef int found = 0
        if rc_u32_exchange(&self.watched, 1):   # an interrupted start was made up for by another
            return
        name_thread()
        while not found & RC_WATCH_STOP:
            with nogil:
                found = rc_pool_watch(&self.c)
            # Attached again, which under the GIL took as long as others ran: who only waited for the GIL
            # has gone on meanwhile, and is found so by the second look that the split takes.
            if found & RC_WATCH_STUCK:
                rc_pool_split_stuck(&self.c)
            while rc_pool_wants_worker(&self.c):
                try:
                    self.start_worker()
                except StartError:   # no more threads: those there are go on; try again in a while
                    if self.c.stopping:   # at the end of a program there will be none: this one helps out
                        rc_pool_hire(&self.c)
                        self.work()
                        return
                    with nogil:
                        rc_park_wait(&self.c.watch, rc_park_prepare(&self.c.watch), TICK)

    cdef bint wait(self, int64_t timeout, Subscription sub, Core core) except -1:
        """Waits until `sub` has had its last event, or for all if it is None. Returns whether that is so after
        `timeout` ns (below 0: no limit). A worker does not wait: it may be the one that is waited for; nor does a
        thread that picks events for a mailbox."""
        cdef uint32_t ticket
        cdef int64_t deadline = time.monotonic_ns() + timeout, left = SLICE
        cdef bint done
        running = running_loop()
        while True:
            core._leave_closed_loops()
            ticket = rc_park_prepare(&self.c.progress)
            done = rc_u32_load_seq(&sub.c.retired) != 0 if sub is not None else core.outstanding() == 0
            if timeout >= 0:
                left = deadline - time.monotonic_ns()
            if done or left <= 0 or core.is_worker():
                rc_park_cancel(&self.c.progress)
                return done
            left = min(left, SLICE)
            with nogil:
                rc_park_wait(&self.c.progress, ticket, left)
            PyErr_CheckSignals()
            if running is not None and self.needs_loop(sub, core):
                raise LoopBlockedError(
                    "this wait would stop the event loop that has events to handle: use aclose(), or async with"
                )

    cdef bint needs_loop(self, Subscription sub, Core core) except -1:
        """Whether what is waited for needs the event loop that runs here: `sub`, or all if it is None."""
        cdef const rc_ring *ring
        if sub is None:
            return core._is_run_here()
        ring = rc_pool_waits_for(&self.c, &sub.c.lane)   # a ring is the first field of its topic
        return ring != NULL and core.stops_itself(<Topic>(<rc_topic *>ring).host)


cdef inline void tell_of_progress(Core core) noexcept:
    """Tells the event loops that wait in aclose, or at the end of an `async with`, after something has ended."""
    if rc_u32_load_seq(&core.pool.listening) != 0:   # seq: after what has ended, with Pool.listen
        tell_listeners(core.pool)


cdef inline void tell_if_idle(Core core) noexcept:
    """The same where it may have been the last thing that was outstanding: nobody waits for one of several."""
    if rc_u32_load_seq(&core.pool.listening) != 0 and core.outstanding() == 0:   # seq: as above
        tell_listeners(core.pool)


cdef inline void unhold(Core core) noexcept:
    """Ends what rc_pool_hold or rc_pool_acquire has begun."""
    rc_pool_unhold(&core.pool.c)
    tell_if_idle(core)


cdef void tell_listeners(Pool pool) noexcept with gil:
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
