# Native delivery: C functions that are called with runs of records where these stand, without the GIL.
#
# They have a pool of their own beside that of the Python handlers, so that neither ever waits for the other: workers
# that stay detached from the interpreter, and take the GIL only when a subscription has ended. A topic has a second
# task for them.
#
# A token of a native task owns no references, since who makes it need not be attached. Instead a dispatcher is kept
# alive while it has native subscriptions (native_dispatchers), and after the last until nothing of them is scheduled;
# and so is a subscription that ends in a lane of its own (NativePool.release).

cdef enum:
    NATIVE_RUN = 4096     # records that the native worker looks for at a time
    WORTH_IT = 256        # records: with fewer, it pauses before it chases the producer's newest line
    PAUSES = 200          # relax instructions of a pause, about 2 us
    PATIENCE = 10         # pauses without a record, after which the worker parks


native_dispatchers = set()   # Cores that have native subscriptions


@cython.final
@cython.no_gc_clear
cdef class NativePool:
    """The threads of a dispatcher that run native handlers. They hold the NativePool only."""
    cdef rc_pool c
    cdef bint made
    cdef Pool main            # whose `progress` is told when something is done
    cdef list threads
    cdef int number
    cdef list released        # Cores and Subscriptions that need not be kept any more, once nothing is scheduled
    cdef object released_lock  # re-entrant, because finalizers may come in anywhere
    cdef rc_u32 has_released
    cdef rc_u32 started
    cdef rc_u32 watched       # whether the watch runs
    cdef uint32_t patience    # 0 with one CPU, where a pause would be the producer's time

    def __cinit__(self, Pool main, uint32_t max_workers, uint32_t spare, uint32_t parallel):
        if rc_pool_init(&self.c, max_workers, spare, parallel, TICK, LINGER):
            raise MemoryError
        self.made = True
        self.main = main
        self.threads = []
        self.released = []
        self.released_lock = threading.RLock()
        self.patience = PATIENCE if parallel > 1 else 0

    def __dealloc__(self):
        if self.made:
            rc_pool_destroy(&self.c)

    cdef void release(self, what) noexcept:
        """Lets go of something when nothing is scheduled."""
        try:
            with self.released_lock:
                self.released.append(what)
                rc_u32_store(&self.has_released, 1)
        except BaseException as exception:   # no memory, or a signal's handler has raised: it stays for good
            Py_INCREF(<PyObject *>what)
            set_aside(exception, "while a native subscription ended")

    cdef let_go(self):
        """Lets go of what was released, if nothing is scheduled; else whoever ends the last task does."""
        with self.released_lock:   # what comes now may be known to a task that is scheduled now
            if rc_pool_outstanding(&self.c) != 0:
                return
            released, self.released = self.released, []   # freed after the lock
            rc_u32_store(&self.has_released, 0)

    cdef start(self):
        """Starts the watch and a first worker, unless they are there."""
        if rc_u32_exchange(&self.started, 1):
            return
        try:   # what is not there yet, as in Pool.start
            if not rc_pool_is_staffed(&self.c):
                self.start_worker()
            if not rc_u32_load(&self.watched):
                start_thread(self.threads, ringcast_watch, self.watch, f"{self.main.name}-native-watch")
        except BaseException:
            rc_u32_store(&self.started, 0)
            raise

    cdef start_worker(self):
        self.number += 1
        rc_pool_hire(&self.c)
        try:
            start_thread(self.threads, ringcast_worker, self.work, f"{self.main.name}-native-{self.number}")
        except BaseException:
            rc_pool_dismiss(&self.c)
            raise

    def work(self):
        """A worker's thread."""
        name_thread()
        cdef rc_worker *worker = rc_pool_join(&self.c)
        cdef bint ends = worker == NULL
        while not ends:
            with nogil:
                ends = run_native_tasks(worker, &self.c, self.main, &self.has_released, self.patience)
            if not ends:
                self.let_go()

    def watch(self):
        """The watch's thread."""
        cdef int found = 0
        if rc_u32_exchange(&self.watched, 1):
            return
        name_thread()
        while not found & RC_WATCH_STOP:
            with nogil:
                found = rc_pool_watch(&self.c)
                while found & RC_WATCH_STUCK and not found & (RC_WATCH_STOP | RC_WATCH_SPAWN):
                    rc_pool_split_stuck(&self.c)
                    found = rc_pool_watch(&self.c)
            if found & RC_WATCH_STUCK:
                rc_pool_split_stuck(&self.c)
            while rc_pool_wants_worker(&self.c):
                try:
                    self.start_worker()
                except StartError:   # no more threads: those there are go on; try again in a while
                    with nogil:
                        rc_park_wait(&self.c.watch, rc_park_prepare(&self.c.watch), TICK)


cdef bint run_native_tasks(
    rc_worker *worker, rc_pool *pool, Pool main, rc_u32 *has_released, uint32_t patience
) noexcept nogil:
    """Runs what the queue gives the worker. Returns True when the worker is to end, False when there is something to
    be released, and nothing is scheduled."""
    cdef rc_task *task
    while True:
        task = rc_pool_take(pool, worker)
        if task == NULL:
            return True
        if task.kind == RC_TOPIC:
            run_native_topic(worker, <rc_topic *>task.owner, patience)
        else:
            run_native_lane(worker, <rc_member *>task.owner)
        rc_park_wake_all(&main.c.progress)
        if rc_pool_outstanding(pool) != 0:
            continue
        # seq: after what is outstanding, with Pool.listen
        if rc_u32_load_seq(&main.listening) != 0 and rc_pool_outstanding(&main.c) == 0:
            tell_listeners(main)
        if rc_u32_load(has_released) != 0:
            return False


cdef void await_tasks(rc_pool *pool, rc_park *progress) noexcept nogil:
    """Waits until nothing is scheduled."""
    cdef uint32_t ticket
    while True:
        ticket = rc_park_prepare(progress)
        if rc_pool_outstanding(pool) == 0:
            rc_park_cancel(progress)
            return
        rc_park_wait(progress, ticket, SLICE)


cdef void schedule_native(rc_topic *c) noexcept nogil:
    """Has the native subscriptions of a topic run, if there are any and they are idle. Any thread, attached or not."""
    if rc_u32_load_seq(&c.native_task.members) != 0 and rc_task_now(&c.native_task) == RC_IDLE:
        if rc_u32_load(&(<Core>c.bus).native_pool.started) == 0:   # a forked child
            start_natives(c)
        rc_pool_schedule(c.native_pool, &c.native_task)


cdef void start_natives(rc_topic *c) noexcept with gil:
    (<Core>c.bus).native_pool.start()


cdef inline bint has_native_work(rc_member *sub, uint64_t found) noexcept nogil:
    """Whether it has records before `found`, or is over."""
    cdef uint64_t cursor = rc_u64_load_seq(&sub.cursor), end = rc_u64_load_seq(&sub.end)
    return cursor < min(found, end) or cursor >= end


cdef rc_member *native_member(rc_topic *c, uint32_t at) noexcept nogil:
    """The native subscription number `at` of a topic, or NULL. It stays for as long as the caller holds the topic's
    native task: see NativePool.release."""
    cdef rc_member *sub = NULL
    cdef uint32_t first
    rc_mutex_lock(&c.lock)
    first = c.cursor_count - rc_u32_load(&c.native_task.members)
    if first + at < c.cursor_count:
        sub = c.cursors[first + at]
    rc_mutex_unlock(&c.lock)
    return sub


cdef uint64_t find_for_natives(rc_topic *c, uint32_t patience) noexcept nogil:
    """Finds the next published records, for the holder of the native task. Two cores that write and read one cache line
    in turn halve the speed of both; so where there are few, the reader lets the producer get ahead."""
    cdef uint64_t found, seen
    cdef uint32_t left = patience
    cdef int at
    found = look_for_events(c, NATIVE_RUN)
    while left != 0 and found - rc_u64_load(&c.native_end) < WORTH_IT:
        seen = found
        for at in range(PAUSES):
            rc_cpu_relax()
        found = look_for_events(c, NATIVE_RUN)
        left = left - 1 if found == rc_u64_load(&c.native_end) else 0 if found == seen else 1
    rc_u64_store(&c.native_end, found)
    return found


cdef void run_native_topic(rc_worker *worker, rc_topic *c, uint32_t patience) noexcept nogil:
    """Runs the topic whose native task the worker holds until all is delivered or others are to have their turn."""
    cdef rc_member *sub
    cdef uint64_t found
    cdef uint32_t at
    while True:
        found = find_for_natives(c, patience)
        at = 0
        sub = native_member(c, at)
        while sub != NULL:
            if rc_task_now(&sub.lane) != RC_SHARED:
                if has_native_work(sub, found):
                    rc_pool_schedule(c.native_pool, &sub.lane)
                at += 1
            elif rc_u64_load(&sub.cursor) < min(found, rc_u64_load(&sub.end)):
                if rc_turn_detached(c.native_pool, worker, sub, found, advance_records):
                    sub.heat = RC_HOTTEST
                    run_native_lane(worker, sub)
                    return
                if rc_heat_is_slow(sub.heat) and c.native_pool.max_workers > 1:
                    rc_task_release(&sub.lane, RC_IDLE)
                    if has_native_work(sub, found):
                        rc_pool_schedule(c.native_pool, &sub.lane)
            elif rc_u64_load_seq(&sub.cursor) >= rc_u64_load_seq(&sub.end):
                retire_native(sub)   # and the next one takes its place
            else:
                at += 1
            sub = native_member(c, at)
        advance_records(c)
        if not topic_has_native_work(c):
            rc_task_release(&c.native_task, RC_IDLE)
            if not topic_has_native_work(c) or not rc_task_acquire(&c.native_task):
                break
        if rc_pool_others(c.native_pool):
            rc_pool_yield(c.native_pool, worker)
            return
    rc_pool_leave(c.native_pool, worker)


cdef bint topic_has_native_work(rc_topic *c) noexcept nogil:
    """Whether there are records that were not looked at, or a subscription that runs with the topic is over."""
    cdef rc_member *sub
    cdef uint32_t at = 0
    if rc_ring_tail(&c.ring) != rc_u64_load(&c.native_end) and rc_u32_load(&c.native_task.members) != 0:
        return True
    sub = native_member(c, at)
    while sub != NULL:
        if rc_task_now(&sub.lane) != RC_SCHEDULED and has_native_work(sub, rc_u64_load(&c.native_end)):
            return True
        at += 1
        sub = native_member(c, at)
    return False


cdef void run_native_lane(rc_worker *worker, rc_member *sub) noexcept nogil:
    """Runs the slow subscription whose lane the worker holds until it has caught up with its topic."""
    cdef rc_topic *c = sub.topic
    cdef uint64_t found
    while True:
        advance_records(c)   # at first for the turn that was split
        found = look_for_events(c, NATIVE_RUN)
        while rc_u64_load(&sub.cursor) < min(found, rc_u64_load(&sub.end)):
            rc_turn_detached(c.native_pool, worker, sub, found, advance_records)
            advance_records(c)
            if rc_pool_short_of_workers(c.native_pool):
                rc_pool_yield(c.native_pool, worker)
                return
            found = look_for_events(c, NATIVE_RUN)
        if rc_u64_load_seq(&sub.cursor) >= rc_u64_load_seq(&sub.end):
            retire_native_lane(worker, sub)
            return
        if sub.heat == 0:
            rc_task_release(&sub.lane, RC_SHARED)
            schedule_native(c)   # it may have published meanwhile without looking at this one
            break
        rc_task_release(&sub.lane, RC_IDLE)
        if not has_native_work(sub, rc_u64_load_seq(&c.end)) or not rc_task_acquire(&sub.lane):
            break
    rc_pool_leave(c.native_pool, worker)


cdef void retire_native(rc_member *c) noexcept with gil:
    """The only time that a native worker takes the GIL: the subscription has had its last record."""
    cdef Subscription sub = <Subscription>c.host   # whose last reference may be the topic's
    cdef Core core = <Core>c.topic.bus
    sub.retire()
    core.native_left()


cdef void retire_native_lane(rc_worker *worker, rc_member *c) noexcept with gil:
    """The same, and gives up its lane. Whoever runs the topic may have just found the member there (native_member): it
    is freed when nothing of the pool is scheduled."""
    cdef Subscription sub = <Subscription>c.host
    cdef Core core = <Core>c.topic.bus
    sub.retire()
    core.native_pool.release(sub)
    core.native_left()
    rc_pool_leave(&core.native_pool.c, worker)


# --- addresses ---------------------------------------------------------------------------------------------------

cdef uintptr_t address_of(what) except? 0:
    """Where a C function is: an address, a capsule, a function of ctypes or a cfunc of numba."""
    cdef const char *name
    if isinstance(what, int) and not isinstance(what, bool):
        if not 0 < what <= <uintptr_t>-1:
            raise HandlerTypeError(f"a native handler is at an address, not at {what:#x}")
        return what
    if PyCapsule_CheckExact(what):
        name = PyCapsule_GetName(what)
        if name != NULL and (<bytes>name).replace(b" ", b"") not in HANDLER_NAMES:
            raise HandlerTypeError(
                f"a capsule of {(<bytes>name).decode(errors='replace')!r} is no native handler: that is a "
                f"{HANDLER_SIGNATURE.decode()!r}, or a capsule without a name"
            )
        return <uintptr_t>PyCapsule_GetPointer(what, name)
    ctypes = rc_get(sys.modules, "ctypes")
    if ctypes is not None and isinstance(what, ctypes._CFuncPtr):
        return ctypes.cast(what, ctypes.c_void_p).value
    address = getattr(what, "address", None)   # numba.cfunc
    if type(address) is int and address > 0:
        return address
    raise HandlerTypeError(
        "a native handler is the address of a C function, a capsule of one, a function of ctypes, or a cfunc of numba; "
        f"not {shown(what)}"
    )


cdef extern from *:
    """
    #define RC_HANDLER_SIGNATURE "void (const void *, size_t, size_t, void *)"
    """
    const char *RC_HANDLER_SIGNATURE   # a capsule keeps the pointer: no object is to own these bytes


HANDLER_SIGNATURE = <bytes>RC_HANDLER_SIGNATURE
# as C writes the type of a pointer to one, as Cython names the capsules in __pyx_capi__, with and without noexcept
# nogil
HANDLER_NAMES = {
    text.replace(b" ", b"")
    for text in (
        HANDLER_SIGNATURE,
        b"void (*)(const void *, size_t, size_t, void *)",
        b"void (void const *, size_t, size_t, void *)",
        b"ringcast_handler",
    )
}


@cython.final
@cython.no_gc_clear
cdef class Userdata:
    """The pointer that a native handler is given, and what keeps it good."""
    cdef void *pointer
    cdef Py_buffer buffer
    cdef bint exported
    cdef object owner

    def __cinit__(self, what):
        self.owner = what
        if what is None:
            return
        if isinstance(what, int) and not isinstance(what, bool):
            if not 0 <= what <= <uintptr_t>-1:
                raise OptionError(f"userdata is an address, not {what:#x}")
            self.pointer = <void *><uintptr_t>what
        elif PyCapsule_CheckExact(what):
            self.pointer = PyCapsule_GetPointer(what, PyCapsule_GetName(what))
        else:
            try:
                PyObject_GetBuffer(what, &self.buffer, PyBUF_WRITABLE)
            except (TypeError, BufferError, ValueError) as error:
                raise OptionError(
                    f"userdata is an address, a capsule or a writable buffer, not {shown(what)}"
                ) from error
            self.exported = True
            self.pointer = self.buffer.buf

    def __dealloc__(self):
        if self.exported:
            PyBuffer_Release(&self.buffer)
