/* The beginning and the end of a pool, and what is left of it after a fork. */
#include "rc_memory.h"
#include "rc_pool.h"

int rc_pool_init(
    rc_pool *pool, const rc_host *calls, rc_pool *beside, uint32_t max_workers, uint32_t spare,
    uint32_t parallel, int64_t tick, int64_t linger
)
{
    memset(pool, 0, sizeof *pool);
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

void rc_pool_stop(rc_pool *pool)
{
    rc_mutex_lock(&pool->mutex);
    pool->stopping = 1;
    rc_mutex_unlock(&pool->mutex);
    rc_park_wake_all(&pool->work);
    rc_park_wake_all(&pool->watch);
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
    pool->alive = me != NULL;
    pool->on_topics = held != NULL && held->kind == RC_TOPIC;
    pool->on_lanes = held != NULL && held->kind == RC_LANE;
    pool->waiting = me != NULL && me->waits_for != NULL;
    for (uint32_t at = 0; at < rc_u32_load(&pool->used); at++)
        if (&pool->workers[at] != me) memset(&pool->workers[at], 0, sizeof *me);
    if (me != NULL) {
        me->stuck = 0;
        rc_u32_store(&me->attention, RC_CANCEL);
    }
}
