/* The pool: the run queue, and what each worker is doing.
 *
 * A task is something that one worker at a time runs: a topic (which runs the subscriptions that
 * share it), or a lane of its own for one slow subscription. A task that is scheduled is a token:
 * it is either in the run queue or held by exactly one worker, and only the holder runs handlers.
 * Idle tasks cost nothing.
 *
 * Idle and scheduled (the invariant: no event waits while its task is idle)
 *   whoever makes work   makes it visible (the claim of the ring), then looks at the task's state;
 *   the worker           makes the task idle, then looks for work once more (rc_task_release).
 *   Both are sequentially consistent, so the event is seen by one of them.
 *
 * Slow handlers. Each turn (a run of calls of one subscription's handler) is timed;
 * rc_heat_after says from its turns which subscription is slow. A slow one runs in a lane of its
 * own until its calls are quick again.
 *
 * Stuck handlers. While workers are busy a watch looks at them once a tick: it raises
 * RC_TICK in `attention` of each worker that is inside a turn. The worker lowers that after each
 * call. Where it is still up a tick later, one call has lasted for a tick: the worker is stuck. Its
 * turn is split: the subscription gets its lane, held by the worker that is stuck in it, and the
 * topic goes back to the run queue for another worker. A stuck worker does not count for
 * max_workers (as a goroutine in a system call does not count for GOMAXPROCS): up to `spare` others
 * take the places of those that are stuck. Topics that have queued up behind a stuck worker may be
 * stuck too, and to find that out one after another takes a tick or two each; so for as many
 * workers as there are such topics the limit on topics at once is lifted, until the queue is empty.
 *
 * Own workers. A lane may have a worker of its own, which runs nothing else: all calls of its
 * handler are in one thread. Such a lane is never shared and never queued: it is scheduled, and its
 * worker comes. The worker is in no limit of the pool, stands in no other's place, and ends with
 * its lane, or with the pool.
 *
 * Who may call what: every function but rc_pool_init and rc_pool_destroy may be called from any
 * thread, except that those with an rc_worker are for that worker's thread alone. They block on the
 * pool's mutex only, unless said.
 */
#ifndef RC_POOL_H
#define RC_POOL_H

#include "rc_host.h"
#include "rc_mutex.h"
#include "rc_park.h"
#include "rc_ring.h"

typedef enum { RC_TOPIC, RC_LANE } rc_task_kind;

typedef enum {
    RC_IDLE,      /* nothing to do; whoever makes work acquires and queues it */
    RC_SCHEDULED, /* queued, or held by a worker */
    RC_SHARED,    /* lanes only: the subscription runs with its topic, the lane is not in use */
} rc_task_state;

typedef struct rc_task {
    struct rc_task *next;  /* in the run queue */
    struct rc_worker *own; /* lanes: the worker that alone may run it, or NULL */
    void *owner;           /* the caller's: what the task belongs to */
    rc_u32 state;          /* one of rc_task_state */
    rc_u32 members;        /* topics: how many members it runs */
    rc_task_kind kind;
} rc_task;

typedef struct rc_queue {
    rc_task *first, *last;
} rc_queue;

/* The state of a worker's turn. Only the watch (or the worker itself, before it blocks) splits it.
 * While the pool's mutex is held SPLIT may also say that the turn is frozen, which is taken back.
 */
enum { RC_TURN_NONE, RC_TURN_RUNNING, RC_TURN_SPLIT };

/* Who calls for a worker's attention: bits of `attention`. */
enum {
    RC_TICK = 1,  /* the watch, once a tick */
    RC_CANCEL = 2 /* who has changed how far a subscription may go */
};

typedef struct rc_worker {
    /* read by the worker after each call of a handler, written once a tick, and by
     * each cancel that discards */
    RC_ALIGNED rc_u32 attention;
    rc_u32 turn;
    /* all below: written by the worker or under the pool's mutex; read under the mutex while turn
     * is RUNNING */
    rc_task *task;       /* what it holds */
    rc_task *lane;       /* the lane of the subscription whose turn it is */
    const rc_ring *ring; /* that subscription's ring, and its cursor there */
    const rc_u64 *cursor;
    uint64_t most;            /* events that may wait for it there */
    const rc_ring *waits_for; /* the full ring in which it waits for room */
    int asked;                /* depends_on has been here */
    int stuck;                /* the watch has found it so at its last look; see set_aside */
    int alive;
    struct rc_worker *next; /* in `all` */
    /* own workers, under the mutex: */
    int is_own;      /* fixed */
    int hired;       /* its thread is being started */
    rc_task *only;   /* the lane that it is there for; NULL: none any more */
    rc_park waiting; /* it waits here for that lane to be scheduled */
} rc_worker;

typedef struct rc_pool {
    rc_mutex mutex;
    rc_queue topics, lanes;
    rc_u32 topics_queued; /* a hint for rc_pool_others */
    uint32_t max_workers;
    uint32_t spare;     /* how many more there may be while workers are stuck */
    uint32_t used;      /* of `workers`: those before it have been used, and are in `all` */
    uint32_t parallel;  /* how many workers may run topics at once: 1 under the GIL */
    uint32_t extra;     /* how many more may, until no topic is queued: see rc_pool_split_stuck */
    uint32_t stuck;     /* workers that are stuck */
    uint32_t starting;  /* workers hired that have not joined yet: places for threads to join */
    uint32_t alive;     /* workers that have joined and not ended */
    uint32_t idle;      /* of them: parked, or about to */
    uint32_t on_topics; /* of them: holding a topic */
    uint32_t on_lanes;  /* of them: holding a lane */
    uint32_t waiting;   /* of them: waiting for room inside a handler */
    uint32_t own;       /* own workers that have joined and not ended */
    uint32_t on_own;    /* of them: holding their lanes */
    int stopping;
    int watching;       /* the watch sleeps a tick at most, no wake needed */
    rc_u32 outstanding; /* tasks scheduled: 0 means that everything accepted was delivered */
    rc_u32 pinned;      /* the host keeps the bus for what is outstanding; moved under the mutex */
    rc_u32 started;     /* whether its threads are; the host's */
    uint32_t patience;  /* looks at a quiet ring before a worker parks; 0: it parks at once */
    int64_t tick;       /* nanoseconds */
    int64_t linger;     /* nanoseconds after which an extra worker without work ends */
    rc_park work;       /* workers wait here for tasks */
    rc_park watch;      /* the watch waits here for busy workers */
    rc_park *progress;  /* whoever waits for deliveries (close, cancel): of this pool, or of the one
                           beside it */
    rc_park own_progress;
    const rc_host *calls;
    void *host; /* what the host has for it, and its dispatcher. Not owned */
    void *bus;
    rc_worker *workers; /* max_workers + spare of them */
    rc_worker *all;     /* that have been used, and own ones; each is there until the pool goes */
    rc_task nothing;    /* the lane of own workers that have none yet: never scheduled */
} rc_pool;

/* Returns 0, or -1 when there is no memory. `parallel` at least 1 and at most max_workers.
 * `beside`: the pool whose `progress` is told of what this one has done, too; or NULL. */
int rc_pool_init(
    rc_pool *pool, const rc_host *calls, rc_pool *beside, uint32_t max_workers, uint32_t spare,
    uint32_t parallel, int64_t tick, int64_t linger
);

/* No thread may use the pool any more. */
void rc_pool_destroy(rc_pool *pool);

void rc_task_init(rc_task *task, rc_task_kind kind, void *owner);

/* --- making work ------------------------------------------------------------------------------ */

/* The state of the task: the quick look after a claim. */
static inline rc_task_state rc_task_now(const rc_task *task)
{
    /* seq_cst: after the claim's compare-and-swap, and against rc_task_release; see the invariant
     * above */
    return (rc_task_state)atomic_load_explicit(&task->state, memory_order_seq_cst);
}

/* Makes an idle task scheduled. Returns 1 if it was this call that did: the caller then holds the
 * token. */
static inline int rc_task_acquire(rc_task *task)
{
    uint32_t idle = RC_IDLE;
    /* seq_cst: also acquires what the last holder wrote */
    return atomic_compare_exchange_strong_explicit(
        &task->state, &idle, RC_SCHEDULED, memory_order_seq_cst, memory_order_seq_cst
    );
}

/* Gives the token back: `state` is RC_IDLE, or RC_SHARED to let a lane's subscription run with its
 * topic again. The caller then looks for work once more and, if there is some, acquires the task
 * that is to do it. */
static inline void rc_task_release(rc_task *task, rc_task_state state)
{
    /* seq_cst, not release: the look for work that follows must not come before it */
    atomic_store_explicit(&task->state, state, memory_order_seq_cst);
}

/* The same to RC_IDLE for a token that several threads may give back. Returns 1 if it was this call
 * that did. */
static inline int rc_task_give_back(rc_task *task)
{
    uint32_t scheduled = RC_SCHEDULED;
    /* seq_cst: as rc_task_release */
    return atomic_compare_exchange_strong_explicit(
        &task->state, &scheduled, RC_IDLE, memory_order_seq_cst, memory_order_seq_cst
    );
}

/* Acquires and queues a task if it is idle, and wakes a worker if one may run it now. Acquired,
 * counted as outstanding and queued under one mutex: a close between these would let the workers
 * end before the task is queued. Returns 1 if it was this call that scheduled it; 0 where it was
 * scheduled already, is shared, or the pool has stopped and its workers are gone. */
int rc_pool_schedule(rc_pool *pool, rc_task *task);

/* The same, by a thread that is not attached and cannot pin the bus. The worker that takes the task
 * does (rc_pool_pin), or the end of the lease which keeps the bus until then: whichever is first.
 */
int rc_pool_schedule_detached(rc_pool *pool, rc_task *task);

/* Pins the bus where something is outstanding and nobody has pinned it. Attached. */
void rc_pool_pin(rc_pool *pool);

/* For a task that is run by others than the pool's workers: acquires it if it is idle, and counts
 * it as outstanding, under one mutex, as rc_pool_schedule does. Returns 1 if it was this call that
 * acquired it. */
int rc_pool_acquire(rc_pool *pool, rc_task *task);

/* Something is outstanding (counted by rc_pool_acquire or by rc_pool_hold) until rc_pool_unhold. */
void rc_pool_hold(rc_pool *pool);
void rc_pool_unhold(rc_pool *pool);

/* --- workers ---------------------------------------------------------------------------------- */

/* Announces that a worker's thread is being started, so that no other is started for the same task:
 * that of `own`, an own worker, or NULL: of any other. The thread joins. Returns 0 where that own
 * worker needs no thread: it has one, or no lane. Whoever cannot start the thread, or cannot tell
 * whether it is started (an interrupt came in between), takes the announcement back with
 * rc_pool_dismiss: that does nothing once a thread has joined for it, and a thread that comes later
 * finds no place. */
int rc_pool_hire(rc_pool *pool, rc_worker *own);
void rc_pool_dismiss(rc_pool *pool, rc_worker *own);

/* Registers the thread of an own worker, or of any other (NULL). Returns NULL where none is hired,
 * or max_workers + spare are there already: the thread is to end then. */
rc_worker *rc_pool_join(rc_pool *pool, rc_worker *own);

/* An own worker, whose lane is to come: hire its thread, then rc_pool_bind. Returns NULL without
 * memory. */
rc_worker *rc_pool_own(rc_pool *pool);

/* The worker is the one that runs the lane, which is idle from now on, not shared. Before its
 * subscription joins a topic. */
void rc_pool_bind(rc_pool *pool, rc_worker *own, rc_task *lane);

/* The lane, if there is one, is scheduled no more: the worker ends. Once for each own worker, whose
 * memory another lane may then be given. */
void rc_pool_disown(rc_pool *pool, rc_worker *own);

/* An own worker that has a lane and no thread, or NULL. In a forked child. */
rc_worker *rc_pool_without_thread(rc_pool *pool);

/* For the pool's own use, under its mutex: a worker is used from now on; own workers look whether
 * they are to end. */
void rc_pool_add(rc_pool *pool, rc_worker *worker);
void rc_pool_wake_own(rc_pool *pool);

/* The same: whether an own worker has a lane, and no thread for it. */
static inline int rc_pool_needs_thread(const rc_worker *own)
{
    return own->only != NULL && !own->alive && !own->hired;
}

/* Whether there are workers, or such as are being started. */
int rc_pool_is_staffed(rc_pool *pool);

/* Takes the next task, waiting for it in the kernel; the worker of a pool with pins then calls
 * rc_pool_pin. Returns NULL when the worker is to end: the pool stops, or the worker is one too
 * many. After NULL the worker must not use the pool again. Blocks. */
rc_task *rc_pool_take(rc_pool *pool, rc_worker *worker);

/* What rc_pool_take would return at once, else NULL without waiting; the worker stays busy. */
rc_task *rc_pool_take_now(rc_pool *pool, rc_worker *worker);

/* Puts the held task back at the end of the queue. */
void rc_pool_yield(rc_pool *pool, rc_worker *worker);

/* The worker is done with its task: it has released the token and, after its last look, not
 * acquired it again. Nothing may be outstanding any more after this, and the bus may go. */
void rc_pool_leave(rc_pool *pool, rc_worker *worker);

/* The first half of it: the worker has no task any more, which is outstanding still. The caller
 * lets go of what the task belongs to, and then calls rc_pool_unhold. */
void rc_pool_put_down(rc_pool *pool, rc_worker *worker);

/* Whether topics wait for a worker. A hint; takes no lock. */
static inline int rc_pool_others(const rc_pool *pool)
{
    return atomic_load_explicit(&pool->topics_queued, memory_order_relaxed) != 0;
}

/* Whether topics wait while all workers that there may be hold lanes: then a lane is to be yielded.
 */
int rc_pool_short_of_workers(rc_pool *pool);

/* The worker that the calling thread is, or NULL if it is none of this pool's. */
rc_worker *rc_pool_current(const rc_pool *pool);

/* Lowers the attention, and returns who has called for it. The caller then reads how far it may go.
 */
static inline uint32_t rc_turn_attended(rc_worker *worker)
{
    /* An exchange, with acquire: a call that comes at the same moment (rc_pool_call_attention) is
     * either the one that is taken here, and what the caller changed is seen, or it stays up. A
     * store would wipe it out unseen. */
    return atomic_exchange_explicit(&worker->attention, 0, memory_order_acquire);
}

/* Begins a turn of the subscription with that lane, ring and cursor, for which `most` events may
 * wait there. */
static inline void rc_turn_begin(
    rc_worker *worker, rc_task *lane, const rc_ring *ring, const rc_u64 *cursor, uint64_t most
)
{
    worker->lane = lane;
    worker->ring = ring;
    worker->cursor = cursor;
    worker->most = most;
    /* A cancel's call is not lost: either it is taken here, before the caller reads how far it may
     * go, or it is seen after a call of the handler. */
    if (atomic_load_explicit(&worker->attention, memory_order_relaxed))
        (void)rc_turn_attended(worker);
    /* release: a split reads the fields above */
    atomic_store_explicit(&worker->turn, RC_TURN_RUNNING, memory_order_release);
}

/* Whether the turn is that of a member which has to go on before there is room in `ring`: it holds
 * the gate back, or is as far behind as it may be (where the gate is held by a member that has
 * ended, or has more room). Under the mutex. */
static inline int rc_turn_makes_room(const rc_worker *worker, const rc_ring *ring)
{
    uint64_t cursor, tail;
    if (worker->ring != ring) return 0;
    cursor = rc_u64_load(worker->cursor);
    tail = rc_ring_tail(ring);
    return cursor == rc_ring_gate(ring) || (cursor < tail && tail - cursor >= worker->most);
}

/* Whether the worker is in a turn: inside a handler, if its own thread asks. */
static inline int rc_turn_running(const rc_worker *worker)
{
    return atomic_load_explicit(&worker->turn, memory_order_relaxed) != RC_TURN_NONE;
}

int rc_turn_end_frozen(rc_pool *pool, rc_worker *worker);

/* Ends the turn. Returns 1 if it was split meanwhile: the worker now holds the lane and no longer
 * the topic. */
static inline int rc_turn_end(rc_pool *pool, rc_worker *worker)
{
    uint32_t running = RC_TURN_RUNNING;
    /* acquire on failure: see what the split changed */
    if (atomic_compare_exchange_strong_explicit(
            &worker->turn, &running, RC_TURN_NONE, memory_order_acq_rel, memory_order_acquire
        ))
        return 0;
    return rc_turn_end_frozen(pool, worker);
}

/* Whether the watch (or a cancel) wants the worker's attention after this call of a handler. */
static inline int rc_turn_attention(const rc_worker *worker)
{
    /* acquire: with rc_pool_call_attention */
    return atomic_load_explicit(&worker->attention, memory_order_acquire) != 0;
}

/* --- how slow a subscription is --------------------------------------------------------------- */

/* Its heat: up at each slow turn, down by one at each quick one. One slow call (the first, which
 * imports; a thread that lost its processor) does not make a subscription slow; a second one soon
 * after does, or several in one turn. */
enum {
    RC_SLOW_CALL = 1000000 /* ns */,
    RC_SURE = 3 /* calls */,
    RC_HOT = 16,
    RC_HOTTEST = 2 * RC_HOT
};

/* Whether calls take long on average: as long as others may be made to wait by each. */
static inline int rc_calls_are_slow(int64_t elapsed, uint64_t calls)
{
    return calls != 0 && elapsed / RC_SLOW_CALL >= (int64_t)calls;
}

/* The heat after a turn of `calls` calls that took `elapsed` ns. `cut`: the turn was ended since it
 * lasted too long. Only the thread that runs the subscription's turns may call it. */
static inline uint32_t rc_heat_after(uint32_t heat, int64_t elapsed, uint64_t calls, int cut)
{
    int slow = rc_calls_are_slow(elapsed, calls);
    if (slow && calls >= RC_SURE) return RC_HOTTEST;
    if (slow || cut) return heat + RC_HOT < RC_HOTTEST ? heat + RC_HOT : RC_HOTTEST;
    return heat != 0 ? heat - 1 : 0;
}

/* Whether a subscription that runs with its topic is to have its lane. One that has it keeps it
 * until its heat is 0. */
static inline int rc_heat_is_slow(uint32_t heat) { return heat > RC_HOT; }

/* --- waiting for room inside a handler -------------------------------------------------------- */

/* Announces that the worker is about to wait for room in `ring`, so that others take over what it
 * holds. Returns 0 if that wait could never end, because the room would have to be made by this
 * worker, by workers that wait for it, or by nobody: the caller must not wait then. Else
 * rc_pool_waited ends it. The gate of the ring that the worker serves must have been moved as far
 * as it goes before. */
int rc_pool_may_wait(rc_pool *pool, rc_worker *worker, const rc_ring *ring);
void rc_pool_waited(rc_pool *pool, rc_worker *worker);

/* The ring for which the worker in the turn of the subscription with that lane waits, or NULL. */
const rc_ring *rc_pool_waits_for(rc_pool *pool, const rc_task *lane);

/* --- the watch -------------------------------------------------------------------------------- */

enum { RC_WATCH_NOTHING = 0, RC_WATCH_STUCK = 1, RC_WATCH_SPAWN = 2, RC_WATCH_STOP = 4 };

/* Waits until a tick has passed with workers busy, or a worker is wanted, or the pool stops.
 * Returns what there is to do (flags above). Sleeps for as long as no worker is busy. Blocks. */
int rc_pool_watch(rc_pool *pool);

/* Splits the turns that are stuck and hold others up, or the release of events. Lets the topics
 * that then wait for want of a worker be run all at once. */
void rc_pool_split_stuck(rc_pool *pool);

/* Raises the attention of every worker: a cancel has changed how far a subscription may go. */
void rc_pool_call_attention(rc_pool *pool);

/* Whether there is a task that only a new worker could run now. */
int rc_pool_wants_worker(rc_pool *pool);

/* --- the end ---------------------------------------------------------------------------------- */

/* Lets the workers end once nothing is scheduled any more, and the watch then. */
void rc_pool_stop(rc_pool *pool);

/* --- fork ------------------------------------------------------------------------------------- */

/* In a forked child, before it has a second thread: forgets the threads and the tasks, which are
 * the parent's. A calling thread that is a worker stays one, with the task that it holds, and its
 * attention is called for. */
void rc_pool_after_fork(rc_pool *pool);

/* How many workers there are, with own ones. */
static inline uint32_t rc_pool_workers(rc_pool *pool)
{
    uint32_t alive;
    rc_mutex_lock(&pool->mutex);
    alive = pool->alive + pool->own;
    rc_mutex_unlock(&pool->mutex);
    return alive;
}

/* How many tasks are scheduled. */
static inline uint32_t rc_pool_outstanding(const rc_pool *pool)
{
    /* a condition of `progress` */
    return atomic_load_explicit(&pool->outstanding, memory_order_seq_cst);
}

#endif
