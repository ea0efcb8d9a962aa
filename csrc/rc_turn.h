/* The turn: a worker calls the handler of one member for a run of events.
 *
 * One loop for all kinds of handlers. They differ in rc_member.deliver, which is called once for a
 * span of events, and not once an event: so it can keep what it needs in registers.
 *
 * Who may call what: the worker that holds the task of the member's topic, or the member's lane.
 */
#ifndef RC_TURN_H
#define RC_TURN_H

#include "rc_clock.h"
#include "rc_record.h"
#include "rc_topic.h"

enum {
    RC_TURN_EVENTS = RC_LOOK, /* that a member is given in a turn, before the others have theirs */
    RC_TURN_RECORDS = 4096,   /* the same for a C function, which takes many at a time */
    RC_TURN_TICKS =
        2, /* looks of the watch after which a turn is cut: at least one tick has passed then */
};

/* The cursor of what holds no gate back. */
static const rc_u64 rc_nowhere = RC_NEVER;

/* How many events the next turn may have. One call at a time of what may be slow: several such
 * members are found out soon. */
static inline uint64_t rc_turn_limit(const rc_member *member)
{
    if (member->mode == RC_NATIVE) return RC_TURN_RECORDS;
    return member->heat == 0 ? RC_TURN_EVENTS : 1;
}

/* Says that the handler has begun with the event at the cursor, and shortens the span to the end of
 * the member. A mailbox needs neither: the events that were taken and are not finished say so. */
static inline void rc_turn_enter(rc_member *member, rc_span *span)
{
    uint64_t end;
    if (member->mail != NULL) return;
    rc_u32_store_seq(
        &member->running, 1
    ); /* seq: before the look at its end, with rc_member_holds_gate */
    end = rc_u64_load_seq(&member->end);
    if (end < span->end) span->end = end;
}

static inline void rc_turn_exit(rc_member *member)
{
    if (member->mail == NULL) rc_u32_store(&member->running, 0);
}

/* Gives the member a turn that ends at `end`: a position, or of a mailbox a number of events.
 * Returns 1 if the turn was split: the worker now holds the member's lane, and the topic's task is
 * another's. */
static inline int rc_turn(rc_pool *pool, rc_worker *worker, rc_member *member, uint64_t end)
{
    rc_topic *topic = member->topic;
    rc_span span = {0, end, 0};
    const rc_u64 *cursor = &rc_nowhere;
    uint64_t waiting;
    int64_t started, elapsed;
    int ticks = 0, cut = 0;
    if (member->mail != NULL)
        waiting = rc_mail_size(member->mail);
    else {
        cursor = &member->cursor;
        span.next = rc_u64_load(cursor);
        waiting = rc_ring_tail(&topic->ring) - span.next;
    }
    rc_turn_begin(worker, &member->lane, &topic->ring, cursor, member->max_queue);
    rc_turn_enter(member, &span);
    if (waiting > rc_u64_load(&member->high_water)) rc_u64_store(&member->high_water, waiting);
    started = rc_clock_now();
    while (span.next < span.end) {
        if (!member->deliver(worker, member, &span)) {
            rc_turn_exit(member);
            return rc_turn_end(pool, worker);
        }
        if (!rc_turn_attention(worker)) continue;
        if (rc_turn_attended(worker) & RC_TICK) ticks++;
        rc_turn_exit(member);
        rc_topic_make_room(topic); /* makes room for publishers */
        if (pool->calls->pause != NULL) pool->calls->pause();
        rc_turn_enter(member, &span);
        cut = ticks == RC_TURN_TICKS || rc_calls_are_slow(rc_clock_now() - started, span.calls);
        if (cut) break;
    }
    elapsed = rc_clock_now() - started;
    member->heat = rc_heat_after(member->heat, elapsed, span.calls, cut);
    if (topic->timing) {
        rc_u64_count(&member->time, (uint64_t)elapsed);
        rc_u64_count(&member->timed, span.calls);
    }
    rc_turn_exit(member);
    return rc_turn_end(pool, worker);
}

/* Delivers records to a C function, page by page. */
static inline int rc_deliver_native(rc_worker *worker, rc_member *member, rc_span *span)
{
    rc_ring *ring = &member->topic->ring;
    do {
        uint64_t count = rc_ring_run(span->next, span->end);
        /* with these the handler has begun: a cancel leaves them */
        rc_u32_store(&member->running, (uint32_t)count);
        member->native(
            rc_record_at(ring, span->next), (size_t)count, ring->record_size, member->userdata
        );
        span->next += count;
        span->calls++;
        rc_u64_store(&member->cursor, span->next);
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

#endif
