/* A clock for measuring how long something took. */
#ifndef RC_CLOCK_H
#define RC_CLOCK_H

#include <stdint.h>

/* Nanoseconds since some moment; never goes back. Any thread. */
int64_t rc_clock_now(void);

#endif
