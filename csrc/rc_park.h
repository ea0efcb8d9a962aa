/* Park and wake: how a thread sleeps in the kernel until a condition may have changed.
 *
 * An event count, after Dmitry Vyukov's and folly's EventCount. The waiter
 *
 *     for (;;) {
 *         uint32_t ticket = rc_park_prepare(&park);
 *         if (condition) { rc_park_cancel(&park); break; }
 *         rc_park_wait(&park, ticket, timeout);
 *     }
 *
 * and the waker changes the condition and calls rc_park_wake_all (or _one).
 *
 * Invariant: no sleep with the condition true. prepare announces the waiter and then the waiter
 * looks at the condition; the waker changes the condition and then looks for waiters. Both sides
 * are sequentially consistent, so at least one of them sees the other, if the condition itself is
 * read and written with memory_order_seq_cst or under one mutex.
 *
 * Any thread may call any function at any time. prepare, cancel and wake are wait-free apart from
 * the kernel's own call; wait blocks.
 */
#ifndef RC_PARK_H
#define RC_PARK_H

#include "rc_atomic.h"

/* The kernel's own primitive where there is one, else (macOS and others, or -DRC_PARK_COND) a mutex
 * and a condition. */
#if defined(RC_PARK_COND)
#elif defined(__linux__)
#define RC_PARK_FUTEX
#elif defined(_WIN32)
#define RC_PARK_ADDRESS
#else
#define RC_PARK_COND
#endif
#if defined(RC_PARK_COND)
#include <pthread.h>
#endif

#define RC_FOREVER (-1)

typedef struct rc_park {
    rc_u32 epoch;   /* raised by every wake: a ticket from before it no longer sleeps */
    rc_u32 waiters; /* threads between prepare and the end of wait */
#if defined(RC_PARK_COND)
    pthread_mutex_t mutex;
    pthread_cond_t changed;
#endif
} rc_park;

typedef enum { RC_WOKEN = 0, RC_TIMED_OUT = 1 } rc_waited;

/* Returns 0, or -1 where the system has no more mutexes. */
int rc_park_init(rc_park *park);
void rc_park_destroy(rc_park *park);

static inline uint32_t rc_park_prepare(rc_park *park)
{
    /* seq_cst: pairs with the load of waiters in rc_park_wake, see the invariant above */
    atomic_fetch_add_explicit(&park->waiters, 1, memory_order_seq_cst);
    return atomic_load_explicit(&park->epoch, memory_order_seq_cst);
}

static inline void rc_park_cancel(rc_park *park)
{
    atomic_fetch_sub_explicit(&park->waiters, 1, memory_order_relaxed);
}

/* Sleeps until a wake that came after `ticket` was taken, or for `timeout` nanoseconds (RC_FOREVER:
 * no limit). May return RC_WOKEN without a wake, and does so when a signal arrives. Ends what
 * prepare began. */
rc_waited rc_park_wait(rc_park *park, uint32_t ticket, int64_t timeout);

void rc_park_wake_slow(rc_park *park, int all);

static inline void rc_park_wake(rc_park *park, int all)
{
    /* seq_cst: pairs with the increment in rc_park_prepare */
    if (atomic_load_explicit(&park->waiters, memory_order_seq_cst) != 0)
        rc_park_wake_slow(park, all);
}
static inline void rc_park_wake_one(rc_park *park) { rc_park_wake(park, 0); }
static inline void rc_park_wake_all(rc_park *park) { rc_park_wake(park, 1); }

#endif
