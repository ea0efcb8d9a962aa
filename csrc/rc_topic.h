/* The topic: all that belongs to one type id of one dispatcher.
 *
 * Who may call what: there are no functions here. `lock` guards the members, and makes its holder the ring's releaser.
 */
#ifndef RC_TOPIC_H
#define RC_TOPIC_H

#include "rc_member.h"
#include "rc_mutex.h"
#include "rc_pool.h"
#include "rc_ring.h"

#define RC_NOBODY UINT32_MAX /* in `plain`: an event reaches nobody */

/* What a registry leads to. */
typedef enum {
    RC_OF_CLASS,    /* a topic */
    RC_ROUTE,       /* a class whose events also go elsewhere: `host` is a route */
    RC_BY_INSTANCE, /* a class whose instances compute their ids */
} rc_kind;

typedef struct rc_topic {
    rc_ring ring;        /* first: a ring that is waited for leads to its topic */

    /* read by a publisher at each event; written when subscriptions come and go, and when the task is scheduled */
    RC_ALIGNED rc_task task;
    rc_u32 plain;        /* what publish returns where queueing is all that is to be done; RC_NOBODY; else 0 */
    rc_u32 subscribers;  /* members that are active */
    rc_u64 limit;        /* how many events may wait in the ring before publish asks who holds them up */
    rc_u32 joining;      /* one more member is just added */
    rc_u32 pooled;       /* of the members: those that run on the pool's workers */
    rc_u32 limited;      /* of the members: those whose max_queue is less than the ring's */
    rc_u32 particular;   /* of the members: those with a max_queue or policy of their own which publish must ask */
    rc_u32 elsewhere;    /* whether its events also go to direct handlers, a companion or wide topics */
    rc_u32 accompanied;  /* whether it has a companion */
    rc_u32 turn;         /* how many events the holder of the task looks for at a time: as many as a batch takes */
    rc_u32 room_waiters; /* somebody waits for room without blocking */
    rc_kind kind;
    int timing;          /* whether the time of handlers is kept */
    rc_pool *pool;
    void *host;          /* what the host has for it, and its dispatcher. Not owned */
    void *bus;
    rc_task native_task; /* what runs the native members, on the native pool; otherwise as `task` */
    rc_pool *native_pool;

    /* written by workers at each look */
    RC_ALIGNED rc_u64 end; /* of the published events that were found; moved under the lock */
    rc_mutex lock;
    rc_u64 high_water;   /* most events that were seen waiting */
    rc_u64 native_end;   /* as `end`, for the holder of the native task */

    /* seldom used */
    rc_member **cursors; /* of records: all members, native ones last; guarded by the lock */
    uint32_t cursor_count;
    uint64_t first;      /* where the ring begins: 0, but for tests */
    uint64_t disowned;   /* in a forked child: the events before it are the parent's */
    rc_u64 only_direct;  /* events that only direct handlers have seen: they are not in the ring */
    rc_u64 event_class;  /* what the host knows the class by, 0 while open */
} rc_topic;

_Static_assert(offsetof(rc_topic, end) % RC_CACHE_LINE == 0, "a worker's look writes to a line that publishers read");
_Static_assert(offsetof(rc_topic, task) % RC_CACHE_LINE == 0, "the ring's last line is written by those who wait for room");
_Static_assert(offsetof(rc_topic, end) - offsetof(rc_topic, limit) >= RC_CACHE_LINE, "limit and end share a line");
_Static_assert(offsetof(rc_topic, end) - offsetof(rc_topic, plain) >= RC_CACHE_LINE, "plain and end share a line");

#endif
