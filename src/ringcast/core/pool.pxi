# The pool: the threads of a dispatcher.

@cython.final
cdef class Pool:
    """The threads of one dispatcher. They hold the Pool and, only while they run a task, the Core."""
    cdef rc_pool c
    cdef bint made
    cdef str name
    cdef list threads
    cdef int number

    def __cinit__(self, str name, uint32_t max_workers, uint32_t parallel):
        if rc_pool_init(&self.c, max_workers, parallel, TICK, LINGER):
            raise MemoryError
        self.made = True
        self.name = name
        self.threads = []

    def __dealloc__(self):
        if self.made:
            rc_pool_destroy(&self.c)

    cdef start(self):
        """Starts the watch and a first worker."""
        self.start_worker()
        self.start_thread(self.watch, f"{self.name}-watch")

    cdef start_worker(self):
        self.number += 1
        rc_pool_hire(&self.c)
        try:
            self.start_thread(self.work, f"{self.name}-worker-{self.number}")
        except BaseException:
            rc_pool_dismiss(&self.c)
            raise

    cdef start_thread(self, target, str name):
        # daemon: a handler that never returns must not keep the interpreter; Dispatcher closes at exit
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)
        for old in list(self.threads):
            if not old.is_alive():
                self.threads.remove(old)

    def work(self):
        """A worker's thread: runs what the queue gives it."""
        cdef rc_worker *worker = rc_pool_join(&self.c)
        cdef rc_task *task
        while worker != NULL:
            task = rc_pool_take_now(&self.c, worker)   # without giving up the GIL
            if task == NULL:
                with nogil:
                    task = rc_pool_take(&self.c, worker)
                if task == NULL:
                    return
            if task.kind == RC_TOPIC:
                run_topic(worker, <topic_t *>task.owner)
            else:
                run_lane(worker, <Subscription>(<subscription_t *>task.owner).subscription)

    def watch(self):
        """The watch's thread: sees which workers are stuck, and starts those that are wanted."""
        cdef int found = 0
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
                except RuntimeError:   # no more threads: those there are go on; try again in a while
                    with nogil:
                        rc_park_wait(&self.c.watch, rc_park_prepare(&self.c.watch), TICK)

    cdef bint wait_retired(self, Subscription sub, Core core) except -1:
        return self.wait(-1, sub, core)

    cdef bint wait(self, int64_t timeout, Subscription sub, Core core) except -1:
        """Waits until `sub` has had its last event, or for all if it is None. Returns whether that is so after
        `timeout` ns (below 0: no limit). A worker does not wait: it may be the one that is waited for."""
        cdef uint32_t ticket
        cdef int64_t deadline = time.monotonic_ns() + timeout, left = SLICE
        cdef bint done
        while True:
            ticket = rc_park_prepare(&self.c.progress)
            done = rc_u32_load_seq(&sub.c.retired) != 0 if sub is not None else rc_pool_outstanding(&self.c) == 0
            if timeout >= 0:
                left = deadline - time.monotonic_ns()
            if done or left <= 0 or rc_pool_current(&self.c) != NULL:
                rc_park_cancel(&self.c.progress)
                return done
            left = min(left, SLICE)
            with nogil:
                rc_park_wait(&self.c.progress, ticket, left)
            PyErr_CheckSignals()
            core._leave_closed_loops()
