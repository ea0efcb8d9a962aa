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
    void rc_ring_close(rc_ring *ring)
    rc_claim rc_ring_claim(rc_ring *ring, uint64_t limit, rc_slot **slot)
    rc_claim rc_ring_claim_run(rc_ring *ring, uint64_t limit, uint64_t most, rc_run *run)
    rc_claim rc_ring_look(rc_ring *ring, uint64_t limit)
    rc_slot *rc_run_slots(const rc_run *run)
    void rc_ring_publish(rc_slot *slot, void *event)
    void rc_ring_await_gate(rc_ring *ring, uint64_t gate, int64_t timeout)
    void rc_ring_await_event(const rc_ring *ring, uint64_t position)
    uint64_t rc_ring_tail(const rc_ring *ring)
    uint64_t rc_ring_gate(const rc_ring *ring)
    rc_slot *rc_ring_slot(const rc_ring *ring, uint64_t position)
    uint64_t rc_ring_run(uint64_t position, uint64_t end)
    void *rc_slot_event(const rc_slot *slot)
    void *rc_ring_page(const rc_ring *ring, uint64_t position)
    void rc_ring_pause(unsigned spins)
    void rc_ring_abandon(rc_ring *ring, void *kept)

cdef extern from "rc_record.h" nogil:
    ctypedef struct rc_record_page:
        pass
    const uint64_t RC_PAGE_SLOTS
    rc_record_page *rc_record_page_new(size_t record_size)
    void rc_record_page_hold(rc_record_page *page)
    void rc_record_page_drop(rc_record_page *page)
    char *rc_record_in(rc_record_page *page, uint64_t position, size_t record_size)
    const char *rc_record_at(const rc_ring *ring, uint64_t position)
    void rc_record_write(const rc_run *run, const void *records, size_t record_size)
    void rc_record_publish(const rc_run *run)
    void rc_record_abandon(rc_ring *ring)

cdef extern from "rc_host.h":
    # What C calls. Those that it calls from any thread attach themselves (`with gil`).
    ctypedef struct rc_host:
        void (*pin)(rc_pool *pool) noexcept
        void (*unpin)(rc_pool *pool) noexcept
        void (*start)(rc_topic *topic, rc_pool *pool) noexcept
        void (*pause)() noexcept
        void (*drop)(void **events, size_t count) noexcept
        void (*wake)(rc_member *member) noexcept
        void (*moved)(rc_topic *topic) noexcept
        void (*retired)(rc_member *member) noexcept
        void (*left)(rc_member *member) noexcept

cdef extern from "rc_topic.h" nogil:
    ctypedef struct rc_topic   # see below

cdef extern from "rc_member.h" nogil:
    ctypedef struct rc_member   # see below

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
        rc_task_kind kind
    ctypedef struct rc_worker:
        rc_task *task
        rc_task *lane
        const rc_ring *ring
        int is_own
    ctypedef struct rc_pool:
        rc_park watch
        rc_park *progress
        rc_u32 started
        uint32_t patience
        int stopping
        PyObject *host             # the Pool
        PyObject *bus              # its Core
    int rc_pool_init(
        rc_pool *pool, const rc_host *calls, rc_pool *beside, uint32_t max_workers, uint32_t spare, uint32_t parallel,
        int64_t tick, int64_t linger
    )
    void rc_pool_destroy(rc_pool *pool)
    void rc_task_release(rc_task *task, rc_task_state state)
    bint rc_task_give_back(rc_task *task)
    bint rc_pool_hire(rc_pool *pool, rc_worker *own)
    void rc_pool_dismiss(rc_pool *pool, rc_worker *own)
    bint rc_pool_is_staffed(rc_pool *pool)
    rc_worker *rc_pool_join(rc_pool *pool, rc_worker *own)
    rc_worker *rc_pool_own(rc_pool *pool)
    void rc_pool_bind(rc_pool *pool, rc_worker *own, rc_task *lane)
    void rc_pool_disown(rc_pool *pool, rc_worker *own)
    rc_worker *rc_pool_without_thread(rc_pool *pool)
    rc_task *rc_pool_take(rc_pool *pool, rc_worker *worker)
    rc_task *rc_pool_take_now(rc_pool *pool, rc_worker *worker)
    rc_worker *rc_pool_current(const rc_pool *pool)
    bint rc_turn_running(const rc_worker *worker)
    bint rc_turn_attention(const rc_worker *worker)
    bint rc_pool_may_wait(rc_pool *pool, rc_worker *worker, const rc_ring *ring)
    void rc_pool_waited(rc_pool *pool, rc_worker *worker)
    const rc_ring *rc_pool_waits_for(rc_pool *pool, const rc_task *lane)
    int RC_WATCH_STUCK
    int RC_WATCH_STOP
    int rc_pool_watch(rc_pool *pool)
    void rc_pool_split_stuck(rc_pool *pool)
    bint rc_pool_wants_worker(rc_pool *pool)
    void rc_pool_stop(rc_pool *pool)
    void rc_pool_after_fork(rc_pool *pool)
    uint32_t rc_pool_workers(rc_pool *pool)
    uint32_t rc_pool_outstanding(const rc_pool *pool)

cdef extern from "rc_pool.h":   # not nogil, as each of these may pin the bus, or let go of it
    void rc_pool_pin(rc_pool *pool)
    int rc_pool_acquire(rc_pool *pool, rc_task *task)
    void rc_pool_hold(rc_pool *pool)
    void rc_pool_unhold(rc_pool *pool)

cdef extern from "rc_member.h":
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
        bint is_judged
        bint by_key
        rc_u64 keyed
        rc_u32 being_judged
        rc_u32 judging_lasts
        rc_u64 lag
        rc_native_handler native
        void *userdata
        bint loop_closed
        uint64_t in_hand
        rc_u64 start
        rc_u64 cancelled_at
        rc_u64 handed_out
        rc_u64 calls
        rc_u64 failures
        rc_u64 handled
        rc_u64 abandoned
        rc_u64 filtered
        rc_u64 filtered_early
        rc_u64 lost
        rc_u32 discarded
        rc_u32 once_used
        rc_u64 high_water
        rc_u64 timed
        rc_u64 time
    void rc_member_init(rc_member *member, rc_topic *topic)
    void rc_member_keep(rc_member *member)
    uint64_t rc_member_letters(const rc_member *member)
    uint64_t rc_member_unfinished(const rc_member *member)
    bint rc_member_has_events(const rc_member *member, uint64_t end)
    bint rc_member_is_over(const rc_member *member)
    bint rc_member_has_work(const rc_member *member, uint64_t end)

cdef extern from "rc_topic.h" nogil:
    const uint32_t RC_NOBODY
    ctypedef enum rc_kind:
        RC_OF_CLASS
        RC_ROUTE
        RC_BY_INSTANCE
    ctypedef struct rc_topic:
        rc_ring ring
        rc_task task
        rc_u32 quick_reply
        rc_u32 subscribers
        rc_u64 limit
        rc_u32 joining
        rc_u32 pooled
        rc_u32 limited
        rc_u32 special_members
        rc_u32 has_other_routes
        rc_u32 has_context_topic
        rc_u32 look_ahead
        rc_u32 room_waiters
        rc_kind kind
        bint timing
        rc_pool *pool
        PyObject *host             # the Topic, or the Route
        PyObject *bus              # the Core
        rc_task native_task
        rc_pool *native_pool
        rc_u64 found_end
        rc_mutex lock
        rc_u64 high_water
        rc_u64 host_seen
        rc_u64 native_seen
        uint64_t first
        uint64_t disowned
        rc_u64 only_direct
        rc_u64 event_class
    ctypedef struct rc_members:
        uint32_t count
        rc_member **all
    int rc_topic_init(
        rc_topic *topic, rc_pool *pool, rc_pool *native_pool, uint64_t max_queue, uint64_t reserve, uint64_t first,
        size_t record_size
    )
    rc_members *rc_topic_members(rc_topic *topic)
    int rc_topic_join(rc_topic *topic, rc_member *member)
    void rc_topic_ended(rc_topic *topic)
    void rc_topic_set_quick_reply(rc_topic *topic)
    uint64_t rc_topic_look(rc_topic *topic, uint64_t most)
    uint64_t rc_topic_published(rc_topic *topic, uint64_t position, uint64_t most)
    uint64_t rc_topic_room(rc_topic *topic)
    uint64_t rc_topic_room_now(const rc_topic *topic)
    uint64_t rc_topic_pending(const rc_topic *topic)
    uint64_t rc_member_pending(const rc_member *member)

cdef extern from "rc_topic.h":   # not nogil: with the last hold the host's objects may go, and with the gate events
    void rc_topic_drop(rc_topic *topic)
    void rc_members_drop(rc_topic *topic, rc_members *members)
    void rc_member_drop(const rc_host *calls, rc_member *member)
    void rc_topic_empty(rc_topic *topic)
    bint rc_topic_move_gate(rc_topic *topic)
    void rc_topic_make_room(rc_topic *topic)
    void rc_topic_tell_of_room(rc_topic *topic)

cdef extern from "rc_bus.h":   # not nogil: all these may call the host
    void rc_bus_run(rc_pool *pool, rc_worker *worker, rc_task *task)
    void rc_bus_schedule(rc_topic *topic, rc_task *task)
    void rc_bus_wake(rc_topic *topic)
    void rc_bus_retire(rc_member *member)
    bint rc_bus_set_end(rc_member *member, bint discard)
    void rc_bus_after_end(rc_member *member, bint discard)
    void rc_bus_settle(rc_topic *topic)

cdef extern from "rc_bus.h" nogil:
    # the same of the native crew, which calls only what attaches itself
    void rc_bus_run_natives "rc_bus_run"(rc_pool *pool, rc_worker *worker, rc_task *task)
    void rc_bus_schedule_natives(rc_topic *topic)
    bint rc_bus_wake_detached(rc_topic *topic)

cdef extern from "rc_turn.h" nogil:
    bint rc_deliver_native(rc_worker *worker, rc_member *member, rc_span *span) noexcept
