/* The name of a thread as the system shows it. */
#ifndef RC_THREAD_H
#define RC_THREAD_H

#if defined(__linux__)
#include <sys/prctl.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

/* Names the calling thread, by the first 15 bytes where the system takes no more. Does nothing
 * where it is not known how to. Any thread. */
static inline void rc_thread_name(const char *name)
{
#if defined(__linux__)
    prctl(PR_SET_NAME, name, 0, 0, 0);
#elif defined(__APPLE__)
    pthread_setname_np(name);
#else
    (void)name;
#endif
}

#endif
