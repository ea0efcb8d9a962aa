#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "rc_park.h"

#include "rc_memory.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#if defined(RC_PARK_FUTEX)

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

int rc_park_init(rc_park *park)
{
    atomic_init(&park->epoch, 0);
    atomic_init(&park->waiters, 0);
    return rc_alloc_fails() ? -1 : 0;
}

void rc_park_destroy(rc_park *park) { (void)park; }

rc_waited rc_park_wait(rc_park *park, uint32_t ticket, int64_t timeout)
{
    struct timespec limit = {
        .tv_sec = (time_t)(timeout / 1000000000), .tv_nsec = (long)(timeout % 1000000000)
    };
    int timed_out = 0;
    /* the kernel compares the epoch with the ticket itself, so a wake between prepare and here is
     * not lost */
    if (syscall(
            SYS_futex, &park->epoch, FUTEX_WAIT_PRIVATE, ticket, timeout < 0 ? NULL : &limit, NULL,
            0
        ) != 0)
        timed_out = errno == ETIMEDOUT;
    rc_park_cancel(park);
    return timed_out ? RC_TIMED_OUT : RC_WOKEN;
}

void rc_park_wake_slow(rc_park *park, int all)
{
    /* release: what the waker changed is there for whoever takes the new ticket */
    atomic_fetch_add_explicit(&park->epoch, 1, memory_order_release);
    syscall(SYS_futex, &park->epoch, FUTEX_WAKE_PRIVATE, all ? INT_MAX : 1, NULL, NULL, 0);
}

#elif defined(RC_PARK_ADDRESS)

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

int rc_park_init(rc_park *park)
{
    atomic_init(&park->epoch, 0);
    atomic_init(&park->waiters, 0);
    return rc_alloc_fails() ? -1 : 0;
}

void rc_park_destroy(rc_park *park) { (void)park; }

rc_waited rc_park_wait(rc_park *park, uint32_t ticket, int64_t timeout)
{
    int64_t rounded_up = (timeout + 999999) / 1000000;
    DWORD milliseconds = timeout < 0              ? INFINITE
                         : rounded_up >= INFINITE ? INFINITE - 1
                                                  : (DWORD)rounded_up;
    int timed_out = 0;
    if (!WaitOnAddress((volatile void *)&park->epoch, &ticket, sizeof ticket, milliseconds))
        timed_out = GetLastError() == ERROR_TIMEOUT;
    rc_park_cancel(park);
    return timed_out ? RC_TIMED_OUT : RC_WOKEN;
}

void rc_park_wake_slow(rc_park *park, int all)
{
    atomic_fetch_add_explicit(&park->epoch, 1, memory_order_release); /* as in the futex version */
    if (all)
        WakeByAddressAll((void *)&park->epoch);
    else
        WakeByAddressSingle((void *)&park->epoch);
}

#else /* RC_PARK_COND */

int rc_park_init(rc_park *park)
{
    pthread_condattr_t attributes;
    int failed;
    atomic_init(&park->epoch, 0);
    atomic_init(&park->waiters, 0);
    if (rc_alloc_fails() || pthread_mutex_init(&park->mutex, NULL) != 0) return -1;
    pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    failed = pthread_cond_init(&park->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (failed) pthread_mutex_destroy(&park->mutex);
    return failed ? -1 : 0;
}

void rc_park_destroy(rc_park *park)
{
    pthread_cond_destroy(&park->changed);
    pthread_mutex_destroy(&park->mutex);
}

static int wait_until_changed(rc_park *park, int64_t timeout)
{
    struct timespec limit = {
        .tv_sec = (time_t)(timeout / 1000000000), .tv_nsec = (long)(timeout % 1000000000)
    };
    if (timeout < 0) return pthread_cond_wait(&park->changed, &park->mutex);
#if defined(__APPLE__)
    return pthread_cond_timedwait_relative_np(&park->changed, &park->mutex, &limit);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    limit.tv_sec += now.tv_sec;
    limit.tv_nsec += now.tv_nsec;
    if (limit.tv_nsec >= 1000000000) {
        limit.tv_nsec -= 1000000000;
        limit.tv_sec += 1;
    }
    return pthread_cond_timedwait(&park->changed, &park->mutex, &limit);
#endif
}

rc_waited rc_park_wait(rc_park *park, uint32_t ticket, int64_t timeout)
{
    int timed_out = 0;
    pthread_mutex_lock(&park->mutex);
    /* relaxed: the mutex orders it after the waker's increment */
    if (atomic_load_explicit(&park->epoch, memory_order_relaxed) == ticket)
        timed_out = wait_until_changed(park, timeout) == ETIMEDOUT;
    pthread_mutex_unlock(&park->mutex);
    rc_park_cancel(park);
    return timed_out ? RC_TIMED_OUT : RC_WOKEN;
}

void rc_park_wake_slow(rc_park *park, int all)
{
    pthread_mutex_lock(&park->mutex);
    atomic_fetch_add_explicit(&park->epoch, 1, memory_order_release);
    if (all)
        pthread_cond_broadcast(&park->changed);
    else
        pthread_cond_signal(&park->changed);
    pthread_mutex_unlock(&park->mutex);
}

#endif
