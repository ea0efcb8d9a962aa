/* A host that has nothing to do, for tests of what never asks it for more. */
#ifndef HOST_H
#define HOST_H

#include "../rc_pool.h"

static inline void end_of_work(rc_pool *pool) { (void)pool; }

/* What the watch does to every worker once a tick. */
static inline void call_as_the_watch_does(rc_pool *pool)
{
    for (uint32_t at = 0; at < rc_u32_load(&pool->used); at++)
        atomic_fetch_or(&pool->workers[at].attention, RC_TICK);
}

static const rc_host no_host = {.unpin = end_of_work};

#endif
