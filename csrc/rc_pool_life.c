/* The beginning and the end of a pool and of its workers, and what is left of it after a fork. */
#include "rc_memory.h"
#include "rc_pool.h"

int rc_pool_init(
    rc_pool *pool, const rc_host *calls, rc_pool *beside, uint32_t max_workers, uint32_t spare,
    uint32_t parallel, int64_t tick, int64_t linger
)
{
    memset(pool, 0, sizeof *pool);
    rc_task_init(&pool->nothing, RC_LANE, NULL);
    pool->calls = calls;
    pool->progress = beside != NULL ? &beside->own_progress : &pool->own_progress;
    pool->max_workers = max_workers;
    pool->spare = spare;
    pool->parallel = parallel;
    pool->tick = tick;
    pool->linger = linger;
    pool->workers = rc_aligned_zalloc((max_workers + spare) * sizeof(rc_worker));
    if (pool->workers == NULL) return -1;
    if (rc_mutex_init(&pool->mutex) != 0) goto no_mutex;
    if (rc_park_init(&pool->work) != 0) goto no_work;
    if (rc_park_init(&pool->watch) != 0) goto no_watch;
    if (rc_park_init(&pool->own_progress) != 0) goto no_progress;
    return 0;
no_progress:
    rc_park_destroy(&pool->watch);
no_watch:
    rc_park_destroy(&pool->work);
no_work:
    rc_mutex_destroy(&pool->mutex);
no_mutex:
    rc_aligned_free(pool->workers);
    return -1;
}

void rc_pool_destroy(rc_pool *pool)
{
    for (rc_worker *worker = pool->all, *next; worker != NULL; worker = next) {
        next = worker->next;
        if (!worker->is_own) continue;
        rc_park_destroy(&worker->waiting);
        rc_aligned_free(worker);
    }
    rc_park_destroy(&pool->own_progress);
    rc_park_destroy(&pool->watch);
    rc_park_destroy(&pool->work);
    rc_mutex_destroy(&pool->mutex);
    rc_aligned_free(pool->workers);
}

void rc_task_init(rc_task *task, rc_task_kind kind, void *owner)
{
    memset(task, 0, sizeof *task);
    task->kind = kind;
    atomic_init(&task->state, kind == RC_LANE ? RC_SHARED : RC_IDLE);
    task->owner = owner;
}

/* --- workers ---------------------------------------------------------------------------------- */

void rc_pool_add(rc_pool *pool, rc_worker *worker)
{
    rc_worker **at = &pool->all; /* those with a place come in the order of their places */
    while (*at != NULL) at = &(*at)->next;
    *at = worker;
}

void rc_pool_wake_own(rc_pool *pool)
{
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next)
        if (worker->is_own) rc_park_wake_all(&worker->waiting);
}

int rc_pool_hire(rc_pool *pool, rc_worker *own)
{
    int hires;
    rc_mutex_lock(&pool->mutex);
    hires = own == NULL || rc_pool_needs_thread(own);
    if (own == NULL)
        pool->starting++;
    else if (hires)
        own->hired = 1;
    rc_mutex_unlock(&pool->mutex);
    return hires;
}

int rc_pool_is_staffed(rc_pool *pool)
{
    int staffed;
    rc_mutex_lock(&pool->mutex);
    staffed = pool->alive + pool->starting > 0;
    rc_mutex_unlock(&pool->mutex);
    return staffed;
}

/* Whether no lane needs the own worker any more, and no thread comes to it. */
static int is_free(const rc_worker *worker)
{
    return worker->is_own && worker->only == NULL && !worker->alive && !worker->hired;
}

static rc_worker *own_worker_new(void)
{
    rc_worker *worker = rc_aligned_zalloc(sizeof *worker);
    if (worker == NULL) return NULL;
    worker->is_own = 1;
    if (rc_park_init(&worker->waiting) == 0) return worker;
    rc_aligned_free(worker);
    return NULL;
}

rc_worker *rc_pool_own(rc_pool *pool)
{
    rc_worker *own;
    rc_mutex_lock(&pool->mutex);
    for (own = pool->all; own != NULL && !is_free(own);) own = own->next;
    if (own == NULL && (own = own_worker_new()) != NULL) rc_pool_add(pool, own);
    if (own != NULL) own->only = &pool->nothing;
    rc_mutex_unlock(&pool->mutex);
    return own;
}

void rc_pool_bind(rc_pool *pool, rc_worker *own, rc_task *lane)
{
    rc_mutex_lock(&pool->mutex);
    own->only = lane;
    lane->own = own;
    rc_task_release(lane, RC_IDLE);
    rc_mutex_unlock(&pool->mutex);
}

void rc_pool_disown(rc_pool *pool, rc_worker *own)
{
    rc_mutex_lock(&pool->mutex);
    own->only = NULL;
    rc_mutex_unlock(&pool->mutex);
    rc_park_wake_all(&own->waiting);
}

rc_worker *rc_pool_without_thread(rc_pool *pool)
{
    rc_worker *own;
    rc_mutex_lock(&pool->mutex);
    for (own = pool->all; own != NULL; own = own->next)
        if (own->is_own && own->only != &pool->nothing && rc_pool_needs_thread(own)) break;
    rc_mutex_unlock(&pool->mutex);
    return own;
}

/* --- fork ------------------------------------------------------------------------------------- */

/* Makes a worker as new, because its thread is not in the child. An own worker keeps its lane, for
 * which another thread is started. It also stays taken while its lane is still to come: the thread
 * that forks may be the one that is about to bind it. If it was another thread, nobody comes for
 * the worker, and it stays without use until the pool goes. */
static void forget(rc_worker *worker)
{
    rc_worker *next = worker->next;
    rc_task *only = worker->only;
    int is_own = worker->is_own;
    memset(worker, 0, sizeof *worker);
    worker->next = next;
    worker->only = only;
    worker->is_own = is_own;
}

void rc_pool_after_fork(rc_pool *pool)
{
    rc_worker *me = rc_pool_current(pool);
    rc_task *held = me != NULL ? me->task : NULL;
    /* Made anew: a thread that is not here any more may have held the mutex, or have slept in a
     * park. None of this can fail where it needs no memory, and the old ones, which may be in use,
     * are not to be destroyed. */
    rc_mutex_init(&pool->mutex);
    rc_park_init(&pool->work);
    rc_park_init(&pool->watch);
    rc_park_init(&pool->own_progress);
    memset(&pool->topics, 0, sizeof pool->topics);
    memset(&pool->lanes, 0, sizeof pool->lanes);
    rc_u32_store(&pool->topics_queued, 0);
    rc_u32_store(&pool->outstanding, held != NULL);
    /* the reference stays for good: what was busy is the parent's */
    if (held == NULL) rc_u32_store(&pool->pinned, 0);
    rc_u32_store(&pool->started, 0);
    pool->starting = pool->idle = 0;
    pool->stuck = pool->extra = 0;
    pool->watching = 0;
    pool->own = me != NULL && me->is_own;
    pool->alive = me != NULL && !me->is_own;
    pool->on_own = held != NULL && me->is_own;
    pool->on_topics = held != NULL && held->kind == RC_TOPIC;
    pool->on_lanes = held != NULL && held->kind == RC_LANE && !me->is_own;
    pool->waiting = me != NULL && me->waits_for != NULL && !me->is_own;
    pool->used = 0;
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next) {
        if (worker != me) forget(worker);
        if (worker->is_own)
            rc_park_init(&worker->waiting);
        else
            pool->used++; /* counted anew: a thread that joined may have been half way */
    }
    if (me != NULL) {
        me->stuck = 0;
        rc_u32_store(&me->attention, RC_CANCEL);
    }
}
