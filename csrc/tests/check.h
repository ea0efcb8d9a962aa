/* What the test programs share: a check that NDEBUG does not take away, threads, and a common
 * start.
 *
 * A program that hangs is ended by its alarm: a lost wake-up is a failure, not a wait.
 */
#ifndef CHECK_H
#define CHECK_H

#include "../rc_atomic.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* what a program may take in the slowest variant, with room to spare */
enum { CHECK_SECONDS = 60 };

#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed(#condition, __func__, __FILE__, __LINE__))
#define CHECK_EQUAL(got, expected)                                                                 \
    check_equal(                                                                                   \
        (uint64_t)(got), (uint64_t)(expected), #got " == " #expected, __func__, __FILE__, __LINE__ \
    )
#define RUN(test) (check_wanted(#test) ? (alarm(CHECK_SECONDS), test()) : (void)0)

static inline _Noreturn void
check_failed(const char *what, const char *test, const char *file, int line)
{
    fprintf(stderr, "%s:%d: %s: not so: %s\n", file, line, test, what);
    abort();
}

static inline void check_equal(
    uint64_t got, uint64_t expected, const char *what, const char *test, const char *file, int line
)
{
    if (got == expected) return;
    fprintf(
        stderr, "%s:%d: %s: not so: %s (%llu, %llu)\n", file, line, test, what,
        (unsigned long long)got, (unsigned long long)expected
    );
    abort();
}

/* Whether to run the test: where CHECK_ONLY names one, that one alone. CHECK_VERBOSE tells the
 * names, to find the one that hangs. */
static inline int check_wanted(const char *test)
{
    const char *only = getenv("CHECK_ONLY");
    if (only != NULL && strcmp(only, test) != 0) return 0;
    if (getenv("CHECK_VERBOSE") != NULL) fprintf(stderr, "%s\n", test);
    return 1;
}

static inline int64_t nanoseconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void sleep_for(int64_t nanoseconds)
{
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    nanosleep(&time, NULL);
}

/* Between two looks at what another thread does. Not by sched_yield: on a loaded machine that gives
 * a whole slice, milliseconds, to each thread that computes; who has slept for a moment comes
 * before these. */
static inline void wait_a_little(int spins)
{
    if (spins < 200)
        rc_cpu_relax();
    else
        sleep_for(1);
}

static inline pthread_t thread_start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

static inline void thread_join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

/* Where threads meet: returns when `count` threads have come. Can be used again and again. */
typedef struct meeting {
    rc_u32 come;
    uint32_t count;
} meeting;

static inline void meet(meeting *place)
{
    /* the upper limit of this thread's round: all of it must have come. acq_rel: hands over what
     * each did before */
    uint32_t mine = atomic_fetch_add_explicit(&place->come, 1, memory_order_acq_rel);
    uint32_t all = mine - mine % place->count + place->count;
    for (int spins = 0;
         (int32_t)(atomic_load_explicit(&place->come, memory_order_acquire) - all) < 0; spins++)
        if (spins < 1000)
            rc_cpu_relax();
        else
            sched_yield();
}

/* A small generator of numbers that look random (xorshift64, Marsaglia), the same in every run. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
