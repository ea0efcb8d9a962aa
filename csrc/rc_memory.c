#include "rc_mutex.h"

#if defined(RC_COUNT_LOCKS)
_Thread_local int rc_mutexes_held;
#endif

#if defined(RC_FAIL_ALLOC)

/* Relaxed throughout: each is a count of its own. */
static rc_u64 asked, first_to_fail, how_many_fail, live;

void rc_fail_alloc(uint64_t succeed, uint64_t fail)
{
    atomic_store_explicit(&how_many_fail, 0, memory_order_relaxed);
    atomic_store_explicit(&asked, 0, memory_order_relaxed);
    atomic_store_explicit(&first_to_fail, succeed, memory_order_relaxed);
    atomic_store_explicit(&how_many_fail, fail, memory_order_relaxed);
}

uint64_t rc_alloc_count(void) { return atomic_load_explicit(&asked, memory_order_relaxed); }

uint64_t rc_alloc_live(void) { return atomic_load_explicit(&live, memory_order_relaxed); }

int rc_alloc_fails(void)
{
    uint64_t before = atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed);
    uint64_t first = atomic_load_explicit(&first_to_fail, memory_order_relaxed);
    return before >= first &&
           before - first < atomic_load_explicit(&how_many_fail, memory_order_relaxed);
}

void rc_alloc_count_live(int64_t more)
{
    atomic_fetch_add_explicit(&live, (uint64_t)more, memory_order_relaxed);
}

#endif
