/* A host that has nothing to do, for tests of what never asks it for more. */
#ifndef HOST_H
#define HOST_H

#include "../rc_pool.h"

static inline void end_of_work(rc_pool *pool) { (void)pool; }

/* What the watch does to every worker once a tick. */
static inline void call_as_the_watch_does(rc_pool *pool)
{
    rc_mutex_lock(&pool->mutex);
    for (rc_worker *worker = pool->all; worker != NULL; worker = worker->next)
        atomic_fetch_or(&worker->attention, RC_TICK);
    rc_mutex_unlock(&pool->mutex);
}

static const rc_host no_host = {.unpin = end_of_work};

#endif
