/* The topic: all that belongs to one type id of one dispatcher.
 *
 * `lock` guards the members, and makes its holder the ring's releaser. Who only goes through the
 * members takes a snapshot: an array that never changes, and whose members stay for as long as it
 * is held.
 *
 * A topic has two crews: the members that are run by the host's pool, and the native ones. Each has
 * a task, a pool, and what it has found.
 *
 * Who may call what: any thread; where the ring has events, not records, an attached one
 * (rc_host.h) calls those that say so.
 */
#ifndef RC_TOPIC_H
#define RC_TOPIC_H

#include "rc_member.h"
#include "rc_mutex.h"
#include "rc_pool.h"
#include "rc_ring.h"

enum { RC_LOOK = 256 }; /* how many events a crew looks for at a time */

#define RC_NOBODY UINT32_MAX /* in `quick_reply`: an event reaches nobody */

/* What a registry leads to. */
typedef enum {
    RC_OF_CLASS,    /* a topic */
    RC_ROUTE,       /* a class whose events also go elsewhere: `host` is a route */
    RC_BY_INSTANCE, /* a class whose instances compute their ids */
} rc_kind;

/* The members at some moment, the native ones last. */
typedef struct rc_members {
    rc_u32 holders;
    uint32_t count;
    uint32_t first_native; /* `count` where there is none */
    rc_member *all[];
} rc_members;

typedef struct rc_topic {
    rc_ring ring; /* first: a ring that is waited for leads to its topic */

    /* read by a publisher at each event; written when subscriptions come and go, and when the task
     * is scheduled */
    RC_ALIGNED rc_task task;
    rc_u32 quick_reply; /* what publish returns where queueing is all it has to do; RC_NOBODY; else
                           0 */
    rc_u32 subscribers; /* members that are active */
    rc_u64 limit;   /* how many events may wait in the ring before publish asks who holds them up */
    rc_u32 joining; /* one more member is just added */
    rc_u32 pooled;  /* of the members: those that run on the pool's workers */
    rc_u32 limited; /* of the members: those that may make room while the gate stands, as their
                     * max_queue is less than the ring's or they have ended */
    rc_u32 special_members;   /* of the members: those that publish must ask, for a max_queue or
                                 policy of their own */
    rc_u32 has_other_routes;  /* its events also go to direct handlers, a context topic or wide
                                 topics */
    rc_u32 has_context_topic; /* the host has one for it */
    rc_u32 look_ahead;   /* how many events the host's crew looks for at a time: as many as a batch
                            takes */
    rc_u32 room_waiters; /* somebody waits for room without blocking */
    rc_kind kind;
    int timing; /* whether the time of handlers is kept */
    rc_pool *pool;
    void *host; /* what the host has for it, and its dispatcher. Not owned */
    void *bus;
    rc_task native_task; /* what runs the native members, on the native pool; otherwise as `task` */
    rc_pool *native_pool;

    /* written by workers at each look */
    RC_ALIGNED rc_u64
        found_end; /* where the published events end that were found; moved under the lock */
    rc_mutex lock;
    rc_u64 high_water;  /* most events that were seen waiting */
    rc_u64 host_seen;   /* the `found_end` that the host's crew has seen */
    rc_u64 native_seen; /* the same of the native one */

    /* seldom used */
    rc_members *members; /* those that take their events from the ring; guarded by the lock */
    rc_u32 holds;        /* the host's object, and tokens */
    uint64_t first;      /* where the ring begins: 0, but for tests */
    uint64_t disowned;   /* in a forked child: the events before it are the parent's */
    rc_u64 only_direct;  /* events that only direct handlers have seen: they are not in the ring */
    rc_u64 event_class;  /* what the host knows the class by, 0 while open */
} rc_topic;

_Static_assert(
    offsetof(rc_topic, found_end) % RC_CACHE_LINE == 0,
    "a worker's look writes to a line that publishers read"
);
_Static_assert(
    offsetof(rc_topic, task) % RC_CACHE_LINE == 0,
    "the ring's last line is written by those who wait for room"
);
_Static_assert(
    offsetof(rc_topic, found_end) - offsetof(rc_topic, limit) >= RC_CACHE_LINE,
    "limit and found_end share a line"
);
_Static_assert(
    offsetof(rc_topic, found_end) - offsetof(rc_topic, quick_reply) >= RC_CACHE_LINE,
    "quick_reply and found_end share a line"
);

/* Prepares zeroed memory as a topic without members, which the caller holds. Positions begin at
 * `first`. `record_size`: 0 for events. Returns 0, or -1 without memory. */
int rc_topic_init(
    rc_topic *topic, rc_pool *pool, rc_pool *native_pool, uint64_t max_queue, uint64_t reserve,
    uint64_t first, size_t record_size
);

/* A token, or somebody else, needs the topic. The last one to drop it lets go of the events that
 * are left (attached) and frees the memory, which was allocated by rc_aligned_zalloc. */
void rc_topic_keep(rc_topic *topic);
void rc_topic_drop(rc_topic *topic);

/* --- members ---------------------------------------------------------------------------------- */

/* The members of now. The caller drops them. */
rc_members *rc_topic_members(rc_topic *topic);
void rc_members_drop(rc_topic *topic, rc_members *members);

/* Nothing more comes to the member by way of the caller: the last of all tells the host
 * (rc_host.left). */
void rc_member_keep(rc_member *member);
void rc_member_drop(const rc_host *calls, rc_member *member);

/* Adds a member, which starts with the next event to be published. Returns 0, or -1 without memory.
 */
int rc_topic_join(rc_topic *topic, rc_member *member);

/* Takes out the member, and all that have retired. Without memory they go with the next one that
 * leaves; the gate does not wait for them. */
void rc_topic_leave(rc_topic *topic, rc_member *member);

/* Takes out all members, whatever they have not had. For a host that lets go of everything. */
void rc_topic_empty(rc_topic *topic);

/* A member's end has been set: it takes no more events, and holds up no publisher. Under the lock.
 */
void rc_topic_ended(rc_topic *topic);

/* Tells publish again whether all that it has to do is to queue, or nothing at all. Under the lock,
 * after a change of `has_other_routes`, or of whether the pool is started. */
void rc_topic_set_quick_reply(rc_topic *topic);

/* --- events ----------------------------------------------------------------------------------- */

/* Looks for more published events, at most `most`. Records come in whole runs: there may be more.
 * Returns the end of all that were found. */
uint64_t rc_topic_look(rc_topic *topic, uint64_t most);

/* The end of what is published from `position` on, at most `most` further. The caller holds the
 * gate back there. */
uint64_t rc_topic_published(rc_topic *topic, uint64_t position, uint64_t most);

/* Moves the gate to the last cursor, and lets go of the events that it has passed. Returns whether
 * it has moved. Attached, unless the ring has records. */
int rc_topic_move_gate(rc_topic *topic);

/* The same, and tells those who wait for room. For whoever has moved a cursor. */
void rc_topic_make_room(rc_topic *topic);

/* Tells those who wait for room that there may be some. */
void rc_topic_tell_of_room(rc_topic *topic);

/* The largest distance of gate and tail at which no member that holds up publishers is more than
 * its max_queue behind: one that has ended holds up none, as far as the ring's reserve goes. */
uint64_t rc_topic_room(rc_topic *topic);

/* The same under the lock: what is claimed before that is free again leaves no member further
 * behind, as the gate stands meanwhile. */
uint64_t rc_topic_room_now(const rc_topic *topic);

/* How many events are in the ring, those included that are published meanwhile and not counted yet.
 */
uint64_t rc_topic_pending(const rc_topic *topic);

/* How many events the member was to have and its handler has not finished. Counts an event twice
 * rather than not at all where that moves on meanwhile. Any thread. */
uint64_t rc_member_pending(const rc_member *member);

#endif
