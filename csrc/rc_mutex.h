/* A mutex for what is off the publish path: writers of the registry, the pool, a topic's
 * subscriptions.
 *
 * Rule for all of Ringcast: under an rc_mutex nothing allocates Python objects, drops a reference
 * or takes the GIL, so a holder never waits for anybody and whoever waits may keep the GIL
 * meanwhile.
 */
#ifndef RC_MUTEX_H
#define RC_MUTEX_H

#include "rc_memory.h"

/* Built with RC_COUNT_LOCKS: how many mutexes the calling thread has, for tests. */
#if defined(RC_COUNT_LOCKS)
extern _Thread_local int rc_mutexes_held;
#define RC_COUNT_LOCK(more) (rc_mutexes_held += (more))
#else
#define RC_COUNT_LOCK(more) ((void)0)
#endif

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
typedef SRWLOCK rc_mutex;
static inline int rc_mutex_init(rc_mutex *mutex)
{
    InitializeSRWLock(mutex);
    return rc_alloc_fails() ? -1 : 0;
}
static inline void rc_mutex_destroy(rc_mutex *mutex) { (void)mutex; }
static inline void rc_mutex_lock(rc_mutex *mutex)
{
    AcquireSRWLockExclusive(mutex);
    RC_COUNT_LOCK(1);
}
static inline void rc_mutex_unlock(rc_mutex *mutex)
{
    RC_COUNT_LOCK(-1);
    ReleaseSRWLockExclusive(mutex);
}
#else
#include <pthread.h>
typedef pthread_mutex_t rc_mutex;
static inline int rc_mutex_init(rc_mutex *mutex)
{
    return rc_alloc_fails() ? -1 : pthread_mutex_init(mutex, NULL);
}
static inline void rc_mutex_destroy(rc_mutex *mutex) { pthread_mutex_destroy(mutex); }
static inline void rc_mutex_lock(rc_mutex *mutex)
{
    pthread_mutex_lock(mutex);
    RC_COUNT_LOCK(1);
}
static inline void rc_mutex_unlock(rc_mutex *mutex)
{
    RC_COUNT_LOCK(-1);
    pthread_mutex_unlock(mutex);
}
#endif

#endif
