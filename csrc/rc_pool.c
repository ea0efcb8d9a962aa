#include "rc_pool.h"

/* The worker that this thread is. A thread works for one pool. */
static _Thread_local struct {
    const rc_pool *pool;
    rc_worker *worker;
} current;

/* The functions up to the next rule run under the pool's mutex. */

static void append(rc_queue *queue, rc_task *task)
{
    task->next = NULL;
    if (queue->first == NULL)
        queue->first = task;
    else
        queue->last->next = task;
    queue->last = task;
}

static rc_task *pop(rc_queue *queue)
{
    rc_task *task = queue->first;
    if (task != NULL) queue->first = task->next;
    return task;
}

/* How many workers are stuck and have others in their places. They hold lanes, but for one that is
 * alone in its topic while no other topic waits. */
static uint32_t set_aside(const rc_pool *pool)
{
    return pool->stuck < pool->spare ? pool->stuck : pool->spare;
}

/* How many workers there may be now. */
static uint32_t most_workers(const rc_pool *pool)
{
    uint32_t more = pool->stuck + pool->extra;
    return pool->max_workers + (more < pool->spare ? more : pool->spare);
}

static int topic_ready(const rc_pool *pool)
{
    return pool->topics.first != NULL && pool->on_topics < pool->parallel + pool->extra;
}

/* Lanes leave one worker for the topics, so that many slow handlers do not stop the quick ones.
 * Workers that wait for room hold lanes too (rc_pool_may_wait has split their
 * turns) and do not count: the
 * room may have to be made by a lane. */
static int lane_ready(const rc_pool *pool)
{
    uint32_t most = pool->max_workers > 1 ? pool->max_workers - 1 : 1;
    return pool->lanes.first != NULL && pool->on_lanes < most + pool->waiting + set_aside(pool);
}

static int task_ready(const rc_pool *pool) { return topic_ready(pool) || lane_ready(pool); }

static rc_task *hold_next(rc_pool *pool, rc_worker *worker)
{
    rc_task *task = NULL;
    if (worker->is_own) {
        /* scheduled, while its worker holds nothing: for this worker to run */
        if (worker->only != NULL && rc_task_now(worker->only) == RC_SCHEDULED) {
            task = worker->only;
            pool->on_own++;
        }
    } else if (topic_ready(pool)) {
        task = pop(&pool->topics);
        atomic_fetch_sub_explicit(&pool->topics_queued, 1, memory_order_relaxed);
        pool->on_topics++;
        if (pool->topics.first == NULL) pool->extra = 0;
    } else if (lane_ready(pool)) {
        task = pop(&pool->lanes);
        pool->on_lanes++;
    }
    worker->task = task;
    return task;
}

static void set_stuck(rc_pool *pool, rc_worker *worker, int stuck)
{
    pool->stuck = pool->stuck - worker->stuck + stuck;
    worker->stuck = stuck;
}

static void let_go(rc_pool *pool, rc_worker *worker)
{
    set_stuck(pool, worker, 0);
    if (worker->is_own)
        pool->on_own--;
    else if (worker->task->kind == RC_TOPIC)
        pool->on_topics--;
    else
        pool->on_lanes--;
    worker->task = NULL;
}

static void enqueue(rc_pool *pool, rc_task *task)
{
    if (task->kind == RC_TOPIC)
        atomic_fetch_add_explicit(&pool->topics_queued, 1, memory_order_relaxed);
    append(task->kind == RC_TOPIC ? &pool->topics : &pool->lanes, task);
}

static int spawn_wanted(const rc_pool *pool)
{
    return task_ready(pool) && pool->idle + pool->starting == 0 && pool->alive < most_workers(pool);
}

/* More than are needed while nothing is stuck: one of them ends when it has been idle for `linger`.
 */
static int too_many(const rc_pool *pool) { return pool->alive - pool->on_lanes > pool->parallel; }

static int busy(const rc_pool *pool) { return pool->on_topics + pool->on_lanes + pool->on_own > 0; }

/* What whoever changed the queue does about it, after the mutex: bits of WAKE_. */
enum { WAKE_WORKER = 1, WAKE_WATCH = 2 };

static int wakes(const rc_pool *pool)
{
    int what = 0;
    if (task_ready(pool) && pool->idle > 0) what |= WAKE_WORKER;
    /* a watch that is ticking sees by itself that workers are busy, but a spawn shall not wait for
     * its tick */
    if (spawn_wanted(pool) || (busy(pool) && !pool->watching)) what |= WAKE_WATCH;
    return what;
}

static void unlock_and_wake(rc_pool *pool)
{
    int what = wakes(pool);
    rc_mutex_unlock(&pool->mutex);
    if (what & WAKE_WORKER) rc_park_wake_one(&pool->work);
    if (what & WAKE_WATCH) rc_park_wake_all(&pool->watch);
}

/* Whether the topic whose turn the worker is in could be handed to another one. */
static int splittable(const rc_pool *pool, const rc_worker *worker)
{
    return worker->task != NULL && worker->task->kind == RC_TOPIC && pool->max_workers > 1;
}

/* Keeps the turn from ending until the mutex is free: its fields may be read. Returns 0 if it has
 * ended already. */
static int freeze(rc_worker *worker)
{
    uint32_t running = RC_TURN_RUNNING;
    /* acq_rel: acquires what rc_turn_begin wrote; from here to the unlock the worker waits in
     * rc_turn_end */
    return atomic_compare_exchange_strong_explicit(
        &worker->turn, &running, RC_TURN_SPLIT, memory_order_acq_rel, memory_order_relaxed
    );
}

/* release: what was read while it was frozen was read before the worker's next turn, with the
 * acquire in rc_turn_end */
static void thaw(rc_worker *worker)
{
    atomic_store_explicit(&worker->turn, RC_TURN_RUNNING, memory_order_release);
}

/* One more is outstanding. */
static void begin(rc_pool *pool)
{
    /* relaxed: whoever waits for it to be 0 again begins after this, by the mutex or by what it has
     * published */
    atomic_fetch_add_explicit(&pool->outstanding, 1, memory_order_relaxed);
}

/* A frozen turn's subscription goes into a lane of its own, and its topic back to the queue. */
static void split(rc_pool *pool, rc_worker *worker)
{
    rc_task *topic = worker->task;
    let_go(pool, worker);
    worker->task = worker->lane;
    pool->on_lanes++;
    /* relaxed: whoever holds the topic next takes it from the queue, under this mutex */
    atomic_store_explicit(&worker->lane->state, RC_SCHEDULED, memory_order_relaxed);
    begin(pool);
    enqueue(pool, topic);
}

/* ---------------------------------------------------------------------------------------------- */

/* Under the mutex, attached. */
static void pin_bus(rc_pool *pool)
{
    if (rc_u32_load(&pool->pinned) || pool->calls->pin == NULL) return;
    rc_u32_store(&pool->pinned, 1);
    pool->calls->pin(pool);
}

/* Whether no worker can come to the task any more: the pool has stopped, and all was delivered. */
static int has_ended(const rc_pool *pool, const rc_task *task)
{
    if (!pool->stopping) return 0;
    if (task->own != NULL) return !task->own->alive && !task->own->hired;
    return pool->alive + pool->starting == 0;
}

static int schedule(rc_pool *pool, rc_task *task, int attached)
{
    rc_worker *own;
    rc_mutex_lock(&pool->mutex);
    if (has_ended(pool, task) || !rc_task_acquire(task)) {
        rc_mutex_unlock(&pool->mutex);
        return 0;
    }
    begin(pool); /* before it can be done */
    if (attached) pin_bus(pool);
    own = task->own;
    if (own != NULL) {
        rc_mutex_unlock(&pool->mutex); /* the task may be done and gone from here on */
        rc_park_wake_one(&own->waiting);
    } else {
        enqueue(pool, task);
        unlock_and_wake(pool);
    }
    return 1;
}

int rc_pool_schedule(rc_pool *pool, rc_task *task) { return schedule(pool, task, 1); }

int rc_pool_schedule_detached(rc_pool *pool, rc_task *task) { return schedule(pool, task, 0); }

void rc_pool_pin(rc_pool *pool)
{
    /* mostly; and so it stays while the caller's task is outstanding */
    if (rc_u32_load(&pool->pinned)) return;
    rc_mutex_lock(&pool->mutex);
    if (rc_pool_outstanding(pool) != 0) pin_bus(pool);
    rc_mutex_unlock(&pool->mutex);
}

int rc_pool_acquire(rc_pool *pool, rc_task *task)
{
    int acquired;
    rc_mutex_lock(&pool->mutex);
    acquired = rc_task_acquire(task);
    if (acquired) {
        begin(pool);
        pin_bus(pool);
    }
    rc_mutex_unlock(&pool->mutex);
    return acquired;
}

void rc_pool_hold(rc_pool *pool)
{
    rc_mutex_lock(&pool->mutex);
    begin(pool);
    pin_bus(pool);
    rc_mutex_unlock(&pool->mutex);
}

/* One less is outstanding. Unlocks the mutex, and wakes whom that concerns. */
static void done(rc_pool *pool)
{
    const rc_host *calls = pool->calls;
    /* seq_cst: the condition of those who wait in `progress` */
    int last = atomic_fetch_sub_explicit(&pool->outstanding, 1, memory_order_seq_cst) == 1;
    int stops = last && pool->stopping,
        unpins = last && (calls->pin == NULL || rc_u32_load(&pool->pinned));
    /* from here on the pin is this thread's: it keeps the pool until the end */
    if (last) rc_u32_store(&pool->pinned, 0);
    if (stops) rc_pool_wake_own(pool);
    unlock_and_wake(pool);
    if (stops) { /* the workers may end now */
        rc_park_wake_all(&pool->work);
        rc_park_wake_all(&pool->watch);
    }
    rc_park_wake_all(pool->progress);
    if (unpins) calls->unpin(pool);
}

void rc_pool_unhold(rc_pool *pool)
{
    rc_mutex_lock(&pool->mutex);
    done(pool);
}

/* Nobody starts a thread for the own worker any more: any worker may run its lane, lest a close
 * waits for ever. Under the mutex. */
static void do_without(rc_pool *pool, rc_worker *own)
{
    rc_task *lane = own->only;
    if (lane == &pool->nothing) return;
    own->only = NULL;
    lane->own = NULL;
    if (rc_task_now(lane) == RC_SCHEDULED) enqueue(pool, lane);
}

void rc_pool_dismiss(rc_pool *pool, rc_worker *own)
{
    rc_mutex_lock(&pool->mutex);
    if (own == NULL)
        pool->starting -= pool->starting > 0;
    else {
        own->hired = 0;
        if (pool->stopping && rc_pool_needs_thread(own)) do_without(pool, own);
    }
    unlock_and_wake(pool);
}

void rc_pool_stop(rc_pool *pool)
{
    rc_mutex_lock(&pool->mutex);
    pool->stopping = 1;
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next)
        if (worker->is_own && rc_pool_needs_thread(worker)) do_without(pool, worker);
    rc_pool_wake_own(pool);
    rc_mutex_unlock(&pool->mutex);
    rc_park_wake_all(&pool->work);
    rc_park_wake_all(&pool->watch);
}

/* A place for the thread of a worker that is hired, under the mutex; or NULL. */
static rc_worker *find_place(rc_pool *pool, rc_worker *own)
{
    uint32_t at = 0, most = pool->max_workers + pool->spare;
    if (own != NULL) {
        int is_hired = own->hired;
        own->hired = 0;
        return is_hired && own->only != NULL ? own : NULL;
    }
    if (pool->starting == 0) return NULL;
    pool->starting--;
    while (at < most && pool->workers[at].alive) at++;
    if (at == most) return NULL;
    if (at == pool->used) {
        pool->used++;
        rc_pool_add(pool, &pool->workers[at]);
    }
    return &pool->workers[at];
}

rc_worker *rc_pool_join(rc_pool *pool, rc_worker *own)
{
    rc_worker *worker;
    rc_mutex_lock(&pool->mutex);
    worker = find_place(pool, own);
    if (worker != NULL) {
        worker->alive = 1;
        pool->alive += !worker->is_own;
        pool->own += worker->is_own;
        current.pool = pool;
        current.worker = worker;
    }
    rc_mutex_unlock(&pool->mutex);
    return worker;
}

int rc_pool_short_of_workers(rc_pool *pool)
{
    int short_of;
    rc_mutex_lock(&pool->mutex);
    short_of = pool->topics.first != NULL && pool->on_lanes >= pool->max_workers + set_aside(pool);
    rc_mutex_unlock(&pool->mutex);
    return short_of;
}

rc_worker *rc_pool_current(const rc_pool *pool)
{
    return current.pool == pool ? current.worker : NULL;
}

rc_task *rc_pool_take_now(rc_pool *pool, rc_worker *worker)
{
    rc_task *task;
    rc_mutex_lock(&pool->mutex);
    task = hold_next(pool, worker);
    unlock_and_wake(pool);
    return task;
}

/* Whether the worker, which has found no task, is to end. */
static int is_to_end(const rc_pool *pool, const rc_worker *worker, rc_waited waited)
{
    if (pool->stopping && rc_pool_outstanding(pool) == 0) return 1;
    if (worker->is_own) return worker->only == NULL;
    return waited == RC_TIMED_OUT && too_many(pool);
}

rc_task *rc_pool_take(rc_pool *pool, rc_worker *worker)
{
    const int others = !worker->is_own; /* what it waits for is for any worker */
    rc_park *park = others ? &pool->work : &worker->waiting;
    rc_task *task;
    rc_waited waited = RC_WOKEN;
    rc_mutex_lock(&pool->mutex);
    for (;;) {
        uint32_t ticket;
        int64_t timeout;
        task = hold_next(pool, worker);
        if (task != NULL || is_to_end(pool, worker, waited)) break;
        pool->idle += others;
        timeout = others && too_many(pool) ? pool->linger : RC_FOREVER;
        ticket = rc_park_prepare(park);
        rc_mutex_unlock(&pool->mutex);
        waited = rc_park_wait(park, ticket, timeout);
        rc_mutex_lock(&pool->mutex);
        pool->idle -= others;
    }
    if (task == NULL) {
        worker->alive = 0;
        pool->alive -= others;
        pool->own -= !others;
        current.pool = NULL;
    }
    unlock_and_wake(pool);
    return task;
}

void rc_pool_yield(rc_pool *pool, rc_worker *worker)
{
    rc_task *task = worker->task;
    rc_mutex_lock(&pool->mutex);
    let_go(pool, worker);
    enqueue(pool, task);
    unlock_and_wake(pool);
}

void rc_pool_put_down(rc_pool *pool, rc_worker *worker)
{
    rc_mutex_lock(&pool->mutex);
    let_go(pool, worker);
    rc_mutex_unlock(&pool->mutex); /* rc_pool_unhold wakes whom it concerns */
}

void rc_pool_leave(rc_pool *pool, rc_worker *worker)
{
    rc_mutex_lock(&pool->mutex);
    let_go(pool, worker);
    done(pool);
}

int rc_turn_end_frozen(rc_pool *pool, rc_worker *worker)
{
    int was_split;
    /* whoever has frozen the turn is done with it when the mutex is free */
    rc_mutex_lock(&pool->mutex);
    was_split = atomic_load_explicit(&worker->turn, memory_order_relaxed) == RC_TURN_SPLIT;
    atomic_store_explicit(&worker->turn, RC_TURN_NONE, memory_order_relaxed);
    rc_mutex_unlock(&pool->mutex);
    return was_split;
}

/* Whether room in `ring` depends on `me`: it has to be made by me, or by a worker that waits for
 * room that depends on me. Only workers that wait are looked at (and me): the others go on by
 * themselves. Each waits for one ring and is asked once, so the walk is short however many wait for
 * many. */
static int depends_on(rc_pool *pool, const rc_ring *ring, const rc_worker *me)
{
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next) {
        if (!worker->alive || worker->asked || (worker != me && worker->waits_for == NULL))
            continue;
        if (!rc_turn_makes_room(worker, ring)) continue;
        if (worker == me) return 1;
        worker->asked = 1;
        if (depends_on(pool, worker->waits_for, me)) return 1;
    }
    return 0;
}

int rc_pool_may_wait(rc_pool *pool, rc_worker *worker, const rc_ring *ring)
{
    int may;
    /* outside a turn (an event's finalizer publishes) the worker holds a topic that cannot be
     * handed on */
    if (!rc_turn_running(worker)) return 0;
    rc_mutex_lock(&pool->mutex);
    for (rc_worker *each = pool->all; each != NULL; each = each->next) each->asked = 0;
    /* the last worker that could run anything does not wait */
    may = (worker->is_own || pool->waiting + 1 < pool->max_workers) &&
          !depends_on(pool, ring, worker);
    if (may) {
        if (splittable(pool, worker) && freeze(worker)) split(pool, worker);
        set_stuck(pool, worker, 0);
        worker->waits_for = ring;
        pool->waiting += !worker->is_own;
    }
    unlock_and_wake(pool);
    return may;
}

void rc_pool_waited(rc_pool *pool, rc_worker *worker)
{
    rc_mutex_lock(&pool->mutex);
    worker->waits_for = NULL;
    pool->waiting -= !worker->is_own;
    rc_mutex_unlock(&pool->mutex);
}

const rc_ring *rc_pool_waits_for(rc_pool *pool, const rc_task *lane)
{
    const rc_ring *ring = NULL;
    rc_mutex_lock(&pool->mutex);
    for (rc_worker *worker = pool->all; worker != NULL && ring == NULL; worker = worker->next)
        if (worker->alive && worker->waits_for != NULL && worker->lane == lane)
            ring = worker->waits_for;
    rc_mutex_unlock(&pool->mutex);
    return ring;
}

/* Whether the watch has called for the worker's attention a tick ago, and has not got it. One that
 * waits for room is not stuck: see lane_ready. Nor is an own one: it is in nobody's way. */
static int is_stuck(const rc_worker *worker)
{
    /* relaxed: only says that no call of the handler has ended */
    uint32_t attention = atomic_load_explicit(&worker->attention, memory_order_relaxed);
    return worker->alive && !worker->is_own && rc_turn_running(worker) &&
           (attention & RC_TICK) != 0 && worker->waits_for == NULL;
}

/* Whether a frozen turn holds up others, or the release of events that all have seen. */
static int holds_up(const rc_pool *pool, const rc_worker *worker)
{
    return rc_u32_load(&worker->task->members) > 1 || pool->topics.first != NULL ||
           rc_u64_load(worker->cursor) != rc_ring_gate(worker->ring);
}

int rc_pool_watch(rc_pool *pool)
{
    int found = RC_WATCH_NOTHING;
    rc_mutex_lock(&pool->mutex);
    while (found == RC_WATCH_NOTHING) {
        uint32_t ticket = rc_park_prepare(&pool->watch);
        int ticking = busy(pool);
        rc_waited waited;
        if (spawn_wanted(pool)) found |= RC_WATCH_SPAWN;
        if (pool->stopping && rc_pool_outstanding(pool) == 0) found |= RC_WATCH_STOP;
        if (found) {
            rc_park_cancel(&pool->watch);
            break;
        }
        pool->watching = ticking;
        rc_mutex_unlock(&pool->mutex);
        waited = rc_park_wait(&pool->watch, ticket, ticking ? pool->tick : RC_FOREVER);
        rc_mutex_lock(&pool->mutex);
        pool->watching = 0;
        if (waited != RC_TIMED_OUT) continue;
        for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next) {
            set_stuck(pool, worker, is_stuck(worker));
            if (worker->stuck)
                found |= splittable(pool, worker) ? RC_WATCH_STUCK : RC_WATCH_NOTHING;
            else if (worker->alive && rc_turn_running(worker))
                /* relaxed: carries nothing; an update, so that it passes on what a cancel's call
                 * carries */
                atomic_fetch_or_explicit(&worker->attention, RC_TICK, memory_order_relaxed);
        }
    }
    rc_mutex_unlock(&pool->mutex);
    return found;
}

void rc_pool_split_stuck(rc_pool *pool)
{
    uint32_t splits = 0;
    rc_mutex_lock(&pool->mutex);
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next) {
        if (!is_stuck(worker) || !splittable(pool, worker) || !freeze(worker)) continue;
        if (holds_up(pool, worker)) {
            split(pool, worker);
            set_stuck(pool, worker, 1); /* still, in its lane: let_go has taken it back */
            splits++;
        } else
            thaw(worker);
    }
    /* the topics that were split are back in the queue, and are not what has waited */
    if (splits != 0) {
        uint32_t room = pool->on_topics < pool->parallel ? pool->parallel - pool->on_topics : 0;
        uint32_t waited = rc_u32_load(&pool->topics_queued) - splits;
        pool->extra = waited > room ? waited - room : 0;
    }
    unlock_and_wake(pool);
}

void rc_pool_call_attention(rc_pool *pool)
{
    /* Under the mutex: a worker that joins afterwards sees what the caller has changed. */
    rc_mutex_lock(&pool->mutex);
    /* release: what the caller changed before is there for the worker that sees it; an update, so
     * that the same holds for what another caller changed just before */
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next)
        atomic_fetch_or_explicit(&worker->attention, RC_CANCEL, memory_order_release);
    rc_mutex_unlock(&pool->mutex);
}

int rc_pool_wants_worker(rc_pool *pool)
{
    int wanted;
    rc_mutex_lock(&pool->mutex);
    wanted = spawn_wanted(pool);
    rc_mutex_unlock(&pool->mutex);
    return wanted;
}
