/* A host that has nothing to do, for tests of what never asks it for more. */
#ifndef HOST_H
#define HOST_H

#include "../rc_pool.h"

static inline void end_of_work(rc_pool *pool) { (void)pool; }

static const rc_host no_host = {.unpin = end_of_work};

#endif
