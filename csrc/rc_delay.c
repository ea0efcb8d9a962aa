#if defined(RC_DELAYS)
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 199309L
#endif
#include "rc_delay.h"
#include "rc_clock.h"

#include <time.h>

enum { SHORTEST_REST = 10000000, REST_SPREAD = 30000000, LONGEST_DELAY = 200000 }; /* ns */

void rc_delay(rc_delay_place *place)
{
    static _Thread_local uint64_t random;
    const int64_t now = rc_clock_now();
    struct timespec delay = {0, 0};
    /* relaxed, here and below: two threads that see the same turn both wait, which does no harm */
    if (now < __atomic_load_n(&place->due, __ATOMIC_RELAXED)) return;
    if (random == 0) random = (uint64_t)now ^ (uint64_t)(uintptr_t)&random;
    random ^= random << 13; /* xorshift64 (Marsaglia 2003) */
    random ^= random >> 7;
    random ^= random << 17;
    __atomic_store_n(
        &place->due, now + SHORTEST_REST + (int64_t)(random % REST_SPREAD), __ATOMIC_RELAXED
    );
    delay.tv_nsec = (long)((random >> 32) % LONGEST_DELAY);
    nanosleep(&delay, NULL);
}
#else
typedef int rc_delay_unused; /* a file is not empty in C */
#endif
