/* The member: one subscription's place in a topic, and what is counted of it.
 *
 * Who may write what: `cursor` and `running` belong to whoever runs the member (the holder of its
 * topic's task, or of its lane; of a mailbox, whoever holds the mailbox's mutex). `end` moves under
 * the topic's lock. Counters are counted by any thread. What is no atomic word is set before the
 * member joins its topic, but where a lock is named.
 */
#ifndef RC_MEMBER_H
#define RC_MEMBER_H

#include "rc_mail.h"
#include "rc_pool.h"

#define RC_NEVER UINT64_MAX /* an end that is not set */

/* Where the handler runs. */
typedef enum {
    RC_QUEUED, /* on the pool's workers */
    RC_DIRECT, /* inside publish */
    RC_LOOP,   /* on an event loop, or wherever its consumer is */
    RC_NATIVE, /* a C function, on the native pool's workers */
} rc_mode;

/* What happens to an event when the member is `max_queue` events behind. */
typedef enum { RC_BLOCK, RC_RAISE, RC_DROP_NEWEST, RC_DROP_OLDEST, RC_LATEST } rc_policy;

typedef void (*rc_native_handler)(const void *records, size_t count, size_t stride, void *userdata);

typedef struct rc_member rc_member;

/* What is left of a turn (rc_turn.h). */
typedef struct rc_span {
    uint64_t next;  /* the position of the next event; of a mailbox: how many were taken */
    uint64_t end;   /* where the turn ends, in the same way */
    uint64_t calls; /* of the handler, in this turn */
} rc_span;

/* Calls the handler with events of the span: with one at least, and until the worker's attention is
 * called for, at which it looks after each call, or the span ends. Moves `next` and the member's
 * cursor after each call, and counts `calls`. A mailbox that is empty moves `end` to `next`.
 * Returns 0 where the handler has forked and this is the child: the rest of the turn is the
 * parent's. */
typedef int (*rc_deliver)(rc_worker *worker, rc_member *member, rc_span *span);

struct rc_member {
    rc_u32 holds;   /* 1 until it has retired, and what can still come to it: snapshots, and its
                       lane's token */
    rc_u64 cursor;  /* the next event for the handler; with a mailbox: for the mailbox */
    rc_u64 end;     /* where a cancelled member ends, or RC_NEVER */
    rc_u32 running; /* how many events, from the cursor on, the handler is at work with */
    rc_u32 retired; /* cancelled, and its last event is delivered */
    rc_task lane;
    struct rc_topic *topic;
    void *host; /* what the host has for it. Not owned */
    rc_mode mode;
    rc_policy policy;
    rc_deliver deliver; /* NULL where no worker runs it */
    uint64_t max_queue;
    uint32_t batch; /* how many events the handler takes at a time, as a list; 0: one, as itself */
    uint32_t heat;  /* how slow it was in its last turns: rc_heat_after */

    /* where it has a mailbox, which is where its policy drops events; else NULL */
    rc_mail *mail;
    int is_judged;        /* the host says what goes there: where= or key= */
    int by_key;           /* the host keeps the latest event of each key instead */
    rc_u64 keyed;         /* events that wait by key */
    rc_u32 being_judged;  /* an event is out of the ring, and the host decides on it */
    rc_u32 judging_lasts; /* so it has been for longer than a thread waits for that */
    rc_u64 lag;           /* events dropped between the two that the handler was given last */

    /* where it has a C function */
    rc_native_handler native;
    void *userdata;

    /* where it runs on an event loop; under the topic's lock */
    int loop_closed;  /* the loop is closed, what was in hand is given up */
    uint64_t in_hand; /* what the consumer was given and is not done with */

    /* counters; where the cursor tells, `calls` and `handed_out` are not counted */
    rc_u64 start;        /* the cursor at the beginning */
    rc_u64 cancelled_at; /* the tail at cancel */
    rc_u64 handed_out;   /* events that were taken out for the handler */
    rc_u64 calls;        /* events with which calls have ended */
    rc_u64 failures;     /* calls that have raised */
    rc_u64 handled;   /* with conditions, and on event loops: events with which calls of the handler
                       have ended */
    rc_u64 abandoned; /* of `calls`: those in which nobody was left to handle the event, or `where`
                       has raised */
    rc_u64 filtered;  /* of `calls`: those in which `where` did not let the event pass */
    rc_u64 filtered_early; /* events that `where` did not let into the mailbox */
    rc_u64 lost;           /* events that were dropped by its policy */
    rc_u32 discarded;  /* cancelled with `discard`: what waits elsewhere than in the ring is dropped
                          too */
    rc_u32 once_used;  /* `once`: the one call has begun */
    rc_u64 high_water; /* most events that were seen waiting */
    rc_u64 timed;      /* calls of the handler, in `time` ns */
    rc_u64 time;
};

/* Prepares a zeroed member of the topic, which it is to join. */
static inline void rc_member_init(rc_member *member, struct rc_topic *topic)
{
    atomic_init(&member->holds, 1);
    atomic_init(&member->end, RC_NEVER);
    member->topic = topic;
    rc_task_init(&member->lane, RC_LANE, member);
}

/* --- what it has, and whether it is over: any thread ------------------------------------------ */

/* Events that were moved out of the ring and wait for the handler. */
static inline uint64_t rc_member_letters(const rc_member *member)
{
    return member->mail == NULL ? 0 : rc_mail_size(member->mail) + rc_u64_load_seq(&member->keyed);
}

/* Events that were taken for the handler and whose calls have not ended; 0 if the cursor tells. */
static inline uint64_t rc_member_unfinished(const rc_member *member)
{
    uint64_t calls = rc_u64_load_seq(&member->calls); /* first: one that ends meanwhile counts */
    /* several threads count: the two can be seen in any order */
    uint64_t out = rc_u64_load_seq(&member->handed_out);
    return out > calls ? out - calls : 0;
}

/* Whether there are events for it, of those before `end` in the ring. */
static inline int rc_member_has_events(const rc_member *member, uint64_t end)
{
    /* the cursor before the mailbox: it moves when the mailbox has what it has passed */
    uint64_t cursor = rc_u64_load_seq(&member->cursor), own = rc_u64_load_seq(&member->end);
    if (cursor < (end < own ? end : own)) return 1;
    return rc_member_letters(member) != 0;
}

/* Whether it is cancelled, its handler has returned from its last event, and it has not retired
 * yet. The one function that decides this, for every mode and policy. A 0 may be out of date at
 * once: then whoever finishes the last event asks again. */
static inline int rc_member_is_over(const rc_member *member)
{
    /* in the order in which an event goes: ring, being judged, mailbox, in hand */
    if (rc_u64_load_seq(&member->cursor) < rc_u64_load_seq(&member->end) ||
        rc_u32_load(&member->retired))
        return 0;
    if (member->mail != NULL &&
        (rc_u32_load_seq(&member->being_judged) || rc_member_letters(member) != 0))
        return 0;
    return rc_u32_load_seq(&member->running) == 0 && rc_member_unfinished(member) == 0;
}

/* Whether whoever runs it has something to do. */
static inline int rc_member_has_work(const rc_member *member, uint64_t end)
{
    return rc_member_has_events(member, end) || rc_member_is_over(member);
}

/* Whether its cursor keeps the gate back: until it has had its last event, and nobody is at what
 * was discarded. */
static inline int rc_member_holds_gate(const rc_member *member)
{
    /* seq: the end, which a cancel has moved, before the look at whether a turn has begun with the
     * end that was before */
    if (rc_u64_load_seq(&member->cursor) < rc_u64_load_seq(&member->end)) return 1;
    return rc_u32_load_seq(&member->running) != 0 && rc_u32_load(&member->retired) == 0;
}

#endif
