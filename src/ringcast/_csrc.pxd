# The C side as Cython sees it. Atomics stay behind C functions: no .pyx names one.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "rc_atomic.h" nogil:
    ctypedef struct rc_u32:
        pass
    ctypedef struct rc_u64:
        pass
    void rc_cpu_relax()
    uint32_t rc_u32_load(const rc_u32 *word)
    uint64_t rc_u64_load(const rc_u64 *word)
    void rc_u32_store(rc_u32 *word, uint32_t value)
    void rc_u64_store(rc_u64 *word, uint64_t value)
    uint32_t rc_u32_load_seq(const rc_u32 *word)
    uint64_t rc_u64_load_seq(const rc_u64 *word)
    void rc_u32_store_seq(rc_u32 *word, uint32_t value)
    void rc_u64_store_seq(rc_u64 *word, uint64_t value)
    uint32_t rc_u32_add_seq(rc_u32 *word, uint32_t more)
    uint64_t rc_u64_add_seq(rc_u64 *word, uint64_t more)
    uint32_t rc_u32_exchange(rc_u32 *word, uint32_t value)
    void rc_u64_count(rc_u64 *word, uint64_t more)

cdef extern from "rc_memory.h" nogil:
    void *rc_aligned_zalloc(size_t size)
    void rc_aligned_free(void *memory)

cdef extern from "rc_mutex.h" nogil:
    ctypedef struct rc_mutex:
        pass
    int rc_mutex_init(rc_mutex *mutex)
    void rc_mutex_destroy(rc_mutex *mutex)
    void rc_mutex_lock(rc_mutex *mutex)
    void rc_mutex_unlock(rc_mutex *mutex)

cdef extern from "rc_park.h" nogil:
    ctypedef struct rc_park:
        pass
    uint32_t rc_park_prepare(rc_park *park)
    void rc_park_cancel(rc_park *park)
    int rc_park_wait(rc_park *park, uint32_t ticket, int64_t timeout)
    void rc_park_wake_all(rc_park *park)

cdef extern from "rc_mail.h" nogil:
    ctypedef struct rc_mail:
        rc_mutex mutex
    int rc_mail_init(rc_mail *mail, uint64_t most)
    void rc_mail_destroy(rc_mail *mail)
    void *rc_mail_put(rc_mail *mail, void *event, bint keep_newest)
    void rc_mail_miss(rc_mail *mail)
    void *rc_mail_take(rc_mail *mail, uint64_t *missed)
    uint64_t rc_mail_size(const rc_mail *mail)

cdef extern from "rc_clock.h" nogil:
    int64_t rc_clock_now()

cdef extern from "rc_thread.h" nogil:
    void rc_thread_name(const char *name)

cdef extern from "rc_registry.h" nogil:
    ctypedef struct rc_registry:
        rc_mutex writers
    int rc_registry_init(rc_registry *registry)
    void rc_registry_destroy(rc_registry *registry)
    int rc_registry_put(rc_registry *registry, uint64_t key, void *value)
    void *rc_registry_remove(rc_registry *registry, uint64_t key)
    void *rc_registry_find(const rc_registry *registry, uint64_t key)
    void *rc_registry_find_locked(rc_registry *registry, uint64_t key)

cdef extern from "rc_ring.h" nogil:
    ctypedef struct rc_slot:
        pass
    ctypedef struct rc_ring:
        uint64_t max_queue
        uint64_t reserve
        size_t record_size
        rc_park room
    ctypedef enum rc_claim:
        RC_CLAIMED
        RC_FULL
        RC_CLOSED
        RC_NO_MEMORY
    ctypedef struct rc_run:
        uint64_t position
        uint64_t count
    int rc_ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start)
    void rc_ring_destroy(rc_ring *ring)
    void rc_ring_close(rc_ring *ring)
    rc_claim rc_ring_claim(rc_ring *ring, uint64_t limit, rc_slot **slot)
    rc_claim rc_ring_claim_run(rc_ring *ring, uint64_t limit, uint64_t most, rc_run *run)
    rc_claim rc_ring_look(rc_ring *ring, uint64_t limit)
    rc_slot *rc_run_slots(const rc_run *run)
    void rc_ring_publish(rc_slot *slot, void *event)
    void rc_ring_await_gate(rc_ring *ring, uint64_t gate, int64_t timeout)
    void rc_ring_wake(rc_ring *ring)
    void rc_ring_await_event(const rc_ring *ring, uint64_t position)
    uint64_t rc_ring_tail(const rc_ring *ring)
    uint64_t rc_ring_gate(const rc_ring *ring)
    uint64_t rc_ring_published(const rc_ring *ring, uint64_t position, uint64_t most)
    rc_slot *rc_ring_slot(const rc_ring *ring, uint64_t position)
    uint64_t rc_ring_run(uint64_t position, uint64_t end)
    void *rc_slot_event(const rc_slot *slot)
    void *rc_ring_page(const rc_ring *ring, uint64_t position)
    void rc_ring_pause(unsigned spins)
    void *rc_ring_take(rc_ring *ring, uint64_t position)
    void rc_ring_move_gate(rc_ring *ring, uint64_t gate)
    void rc_ring_abandon(rc_ring *ring, void *kept)

cdef extern from "rc_record.h" nogil:
    ctypedef struct rc_record_page:
        pass
    const uint64_t RC_PAGE_SLOTS
    int rc_record_ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start, size_t record_size)
    rc_record_page *rc_record_page_new(size_t record_size)
    void rc_record_page_hold(rc_record_page *page)
    void rc_record_page_drop(rc_record_page *page)
    char *rc_record_in(rc_record_page *page, uint64_t position, size_t record_size)
    const char *rc_record_at(const rc_ring *ring, uint64_t position)
    void rc_record_write(const rc_run *run, const void *records, size_t record_size)
    void rc_record_publish(const rc_run *run)
    uint64_t rc_record_published(const rc_ring *ring, uint64_t position, uint64_t most)
    void rc_record_pass(rc_ring *ring, uint64_t gate)
    void rc_record_abandon(rc_ring *ring)

cdef extern from "rc_pool.h" nogil:
    ctypedef enum rc_task_kind:
        RC_TOPIC
        RC_LANE
    ctypedef enum rc_task_state:
        RC_IDLE
        RC_SCHEDULED
        RC_SHARED
    ctypedef struct rc_task:
        void *owner
        rc_u32 members
        rc_task_kind kind
    ctypedef struct rc_worker:
        rc_task *task
        rc_task *lane
        const rc_ring *ring
    ctypedef struct rc_pool:
        rc_park watch
        rc_park progress
        uint32_t max_workers
        int stopping
    int rc_pool_init(
        rc_pool *pool, uint32_t max_workers, uint32_t spare, uint32_t parallel, int64_t tick, int64_t linger
    )
    bint rc_calls_are_slow(int64_t elapsed, uint64_t calls)
    uint32_t rc_heat_after(uint32_t heat, int64_t elapsed, uint64_t calls, int cut)
    bint rc_heat_is_slow(uint32_t heat)
    uint32_t RC_HOTTEST
    void rc_pool_destroy(rc_pool *pool)
    void rc_task_init(rc_task *task, rc_task_kind kind, void *owner)
    rc_task_state rc_task_now(const rc_task *task)
    int rc_task_acquire(rc_task *task)
    void rc_task_release(rc_task *task, rc_task_state state)
    bint rc_task_give_back(rc_task *task)
    bint rc_pool_schedule(rc_pool *pool, rc_task *task)
    bint rc_pool_schedule_lent(rc_pool *pool, rc_task *task)
    bint rc_task_is_lent(const rc_task *task)
    bint rc_task_settle(rc_task *task)
    void rc_pool_hire(rc_pool *pool)
    void rc_pool_dismiss(rc_pool *pool)
    bint rc_pool_is_staffed(rc_pool *pool)
    rc_worker *rc_pool_join(rc_pool *pool)
    rc_task *rc_pool_take(rc_pool *pool, rc_worker *worker)
    rc_task *rc_pool_take_now(rc_pool *pool, rc_worker *worker)
    void rc_pool_yield(rc_pool *pool, rc_worker *worker)
    void rc_pool_leave(rc_pool *pool, rc_worker *worker)
    bint rc_pool_others(const rc_pool *pool)
    bint rc_pool_short_of_workers(rc_pool *pool)
    rc_worker *rc_pool_current(const rc_pool *pool)
    void rc_turn_begin(rc_worker *worker, rc_task *lane, const rc_ring *ring, const rc_u64 *cursor)
    bint rc_turn_running(const rc_worker *worker)
    bint rc_turn_end(rc_pool *pool, rc_worker *worker)
    bint rc_turn_attention(const rc_worker *worker)
    void rc_turn_attended(rc_worker *worker)
    int rc_pool_acquire(rc_pool *pool, rc_task *task)
    void rc_pool_hold(rc_pool *pool)
    void rc_pool_unhold(rc_pool *pool)
    bint rc_pool_may_wait(rc_pool *pool, rc_worker *worker, const rc_ring *ring)
    void rc_pool_waited(rc_pool *pool, rc_worker *worker)
    const rc_ring *rc_pool_waits_for(rc_pool *pool, const rc_task *lane)
    int RC_WATCH_STUCK
    int RC_WATCH_SPAWN
    int RC_WATCH_STOP
    int rc_pool_watch(rc_pool *pool)
    void rc_pool_split_stuck(rc_pool *pool)
    void rc_pool_call_attention(rc_pool *pool)
    bint rc_pool_wants_worker(rc_pool *pool)
    void rc_pool_stop(rc_pool *pool)
    void rc_pool_after_fork(rc_pool *pool)
    uint32_t rc_pool_workers(rc_pool *pool)
    uint32_t rc_pool_outstanding(const rc_pool *pool)

cdef extern from "rc_topic.h" nogil:
    ctypedef struct rc_topic   # see below

cdef extern from "rc_member.h":
    ctypedef struct rc_member   # see below
    ctypedef struct rc_span:
        uint64_t next
        uint64_t end
        uint64_t calls
    ctypedef bint (*rc_deliver)(rc_worker *worker, rc_member *member, rc_span *span) noexcept

cdef extern from "rc_member.h" nogil:
    const uint64_t RC_NEVER
    ctypedef enum rc_mode:
        RC_QUEUED
        RC_DIRECT
        RC_LOOP
        RC_NATIVE
    ctypedef enum rc_policy:
        RC_BLOCK
        RC_RAISE
        RC_DROP_NEWEST
        RC_DROP_OLDEST
        RC_LATEST
    ctypedef void (*rc_native_handler)(const void *records, size_t count, size_t stride, void *userdata) noexcept nogil
    ctypedef struct rc_member:
        rc_u64 cursor
        rc_u64 end
        rc_u32 running
        rc_u32 retired
        rc_task lane
        rc_topic *topic
        PyObject *host             # the Subscription
        rc_mode mode
        rc_policy policy
        rc_deliver deliver
        uint64_t max_queue
        uint32_t batch
        uint32_t heat
        rc_mail *mail
        bint picky
        bint by_key
        rc_u64 keyed
        rc_u32 picked
        rc_u32 pick_lasts
        rc_u64 lag
        rc_native_handler native
        void *userdata
        bint gone
        uint64_t in_hand
        rc_u64 start
        rc_u64 cancelled_at
        rc_u64 taken
        rc_u64 calls
        rc_u64 failures
        rc_u64 heard
        rc_u64 unheard
        rc_u64 filtered
        rc_u64 filtered_early
        rc_u64 lost
        rc_u32 discarded
        rc_u32 fired
        rc_u64 high_water
        rc_u64 timed
        rc_u64 time

cdef extern from "rc_topic.h" nogil:
    const uint32_t RC_NOBODY
    ctypedef enum rc_kind:
        RC_OF_CLASS
        RC_ROUTE
        RC_BY_INSTANCE
    ctypedef struct rc_topic:
        rc_ring ring
        rc_task task
        rc_u32 plain
        rc_u32 subscribers
        rc_u64 limit
        rc_u32 joining
        rc_u32 pooled
        rc_u32 limited
        rc_u32 particular
        rc_u32 elsewhere
        rc_u32 accompanied
        rc_u32 turn
        rc_u32 room_waiters
        rc_kind kind
        bint timing
        rc_pool *pool
        PyObject *host             # the Topic, or the Route
        PyObject *bus              # the Core
        rc_task native_task
        rc_pool *native_pool
        rc_u64 end
        rc_mutex lock
        rc_u64 high_water
        rc_u64 native_end
        rc_member **cursors
        uint32_t cursor_count
        uint64_t first
        uint64_t disowned
        rc_u64 only_direct
        rc_u64 event_class

cdef extern from "rc_turn.h":   # not nogil: it calls handlers, which are Python's
    ctypedef void (*rc_pause)(rc_topic *topic) noexcept
    bint rc_turn(rc_pool *pool, rc_worker *worker, rc_member *member, uint64_t end, rc_pause pause)

cdef extern from "rc_turn.h" nogil:
    const uint64_t RC_TURN_EVENTS
    uint64_t rc_turn_limit(const rc_member *member)
    ctypedef void (*rc_pause_detached "rc_pause")(rc_topic *topic) noexcept nogil
    # the same for a member whose handler is a C function
    bint rc_turn_detached "rc_turn"(
        rc_pool *pool, rc_worker *worker, rc_member *member, uint64_t end, rc_pause_detached pause
    )
    bint rc_deliver_native(rc_worker *worker, rc_member *member, rc_span *span) noexcept
