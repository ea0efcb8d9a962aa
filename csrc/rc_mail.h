/* The mailbox: what waits for a subscription that rather drops events than holds up a publisher.
 *
 * Such a subscription has its events taken out of the ring at once, so that its cursor never holds
 * the gate back, and kept here: a bounded queue that knows what to do when it is full, and how many
 * events are missing between two.
 *
 * Invariant: an event that was put is either taken once, or was handed back by rc_mail_put, and
 * counted in the `missed` of the next event that is taken.
 *
 * Who may call what: any thread that holds the mailbox's mutex, except rc_mail_size.
 */
#ifndef RC_MAIL_H
#define RC_MAIL_H

#include "rc_atomic.h"
#include "rc_mutex.h"

typedef struct rc_letter {
    void *event;
    uint64_t missed; /* events dropped between the one before and this one */
} rc_letter;

typedef struct rc_mail {
    rc_mutex mutex;
    rc_letter *letters; /* a ring of `room` entries, a power of two that grows up to `most` */
    uint64_t first, count, room;
    uint64_t most;   /* events that may wait */
    uint64_t missed; /* dropped after the last one that waits */
    rc_u64 size;     /* count, for a look without the mutex */
} rc_mail;

/* Returns 0, or -1 where there are no more mutexes. Takes memory at the first event only. */
int rc_mail_init(rc_mail *mail, uint64_t most);

/* The mailbox must be empty. */
void rc_mail_destroy(rc_mail *mail);

/* Puts an event. Returns the event that is dropped for it, or NULL: where `most` are waiting, the
 * oldest if `keep_newest`, else the event itself. Without memory to grow, it counts as full with
 * what it has. */
void *rc_mail_put(rc_mail *mail, void *event, int keep_newest);

/* Counts an event that was dropped elsewhere, after those that wait. */
static inline void rc_mail_miss(rc_mail *mail) { mail->missed++; }

/* Takes the oldest event, or NULL; *missed is how many were dropped before it. */
void *rc_mail_take(rc_mail *mail, uint64_t *missed);

/* How many events wait: exact under the mutex. Any thread. */
static inline uint64_t rc_mail_size(const rc_mail *mail)
{
    /* seq_cst: with the lane's state, as the ring's tail (rc_pool.h) */
    return atomic_load_explicit(&mail->size, memory_order_seq_cst);
}

#endif
