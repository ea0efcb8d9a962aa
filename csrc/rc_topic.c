#include "rc_topic.h"

#include "rc_memory.h"
#include "rc_record.h"

enum { BATCH = 256 }; /* events that are let go of at a time */

/* --- members ---------------------------------------------------------------------------------- */

/* Of all topics that have no members; never freed. */
static rc_members nobody = {.holders = 1};

static rc_members *hold(rc_members *members)
{
    /* relaxed: the caller has it, or the lock keeps it */
    atomic_fetch_add_explicit(&members->holders, 1, memory_order_relaxed);
    return members;
}

static rc_members *members_new(uint32_t most)
{
    rc_members *members;
    if (most == 0) return hold(&nobody);
    members = rc_zalloc(sizeof *members + most * sizeof members->all[0]);
    if (members != NULL) atomic_init(&members->holders, 1);
    return members;
}

static void add(rc_members *members, rc_member *member)
{
    rc_member_keep(member);
    if (member->mode != RC_NATIVE) members->first_native = members->count + 1;
    members->all[members->count++] = member;
}

void rc_topic_set_quick_reply(rc_topic *topic)
{
    uint32_t reply = 0;
    if (!rc_u32_load(&topic->has_other_routes)) {
        reply = rc_u32_load(&topic->subscribers);
        if (reply == 0)
            reply = RC_NOBODY;
        else if (rc_u32_load(&topic->pooled) != 0 && !rc_u32_load(&topic->pool->started))
            reply = 0;
    }
    rc_u32_store(&topic->quick_reply, reply);
}

/* Under the lock. */
static void count_active(rc_topic *topic, int more)
{
    rc_u32_store(&topic->subscribers, rc_u32_load(&topic->subscribers) + (uint32_t)more);
    rc_topic_set_quick_reply(topic);
}

/* Whether publishers wait for the member before the ring is full. */
static int is_narrow(const rc_topic *topic, const rc_member *member)
{
    return member->mail == NULL && member->max_queue < topic->ring.max_queue;
}

/* Whether publish has to ask the member before it waits for room, or may not wait. */
static int is_special(const rc_topic *topic, const rc_member *member)
{
    return member->mail != NULL || member->policy == RC_RAISE || member->mode == RC_LOOP ||
           is_narrow(topic, member);
}

/* Under the lock. */
static void set_limits(rc_topic *topic)
{
    uint64_t limit = topic->ring.max_queue;
    uint32_t limited = 0;
    for (uint32_t at = 0; at < topic->members->count; at++) {
        const rc_member *member = topic->members->all[at];
        int has_ended = rc_u64_load(&member->end) != RC_NEVER;
        int narrows = is_narrow(topic, member);
        limited += (uint32_t)(has_ended || narrows);
        if (narrows && !has_ended && member->max_queue < limit) limit = member->max_queue;
    }
    rc_u32_store(&topic->limited, limited);
    rc_u64_store(&topic->limit, limit);
}

/* Under the lock. */
static void set_members(rc_topic *topic, rc_members *members)
{
    uint32_t pooled = 0, special = 0, look_ahead = RC_LOOK;
    for (uint32_t at = 0; at < members->count; at++) {
        const rc_member *member = members->all[at];
        pooled += member->mode == RC_QUEUED;
        special += (uint32_t)is_special(topic, member);
        if (member->batch > look_ahead) look_ahead = member->batch;
    }
    topic->members = members;
    set_limits(topic);
    rc_u32_store(&topic->look_ahead, look_ahead);
    rc_u32_store(&topic->pooled, pooled);
    rc_u32_store(&topic->special_members, special);
    /* seq: before rc_topic_join reads the tail, with whoever looks at them after a claim */
    rc_u32_store_seq(&topic->task.members, members->first_native);
    rc_u32_store_seq(&topic->native_task.members, members->count - members->first_native);
}

void rc_topic_ended(rc_topic *topic)
{
    count_active(topic, -1);
    set_limits(topic);
}

/* --- topics and their members ----------------------------------------------------------------- */

int rc_topic_init(
    rc_topic *topic, rc_pool *pool, rc_pool *native_pool, uint64_t max_queue, uint64_t reserve,
    uint64_t first, size_t record_size
)
{
    if (record_size == 0
            ? rc_ring_init(&topic->ring, max_queue, reserve, first)
            : rc_record_ring_init(&topic->ring, max_queue, reserve, first, record_size))
        return -1;
    if (rc_mutex_init(&topic->lock)) {
        rc_ring_destroy(&topic->ring);
        return -1;
    }
    atomic_init(&topic->holds, 1);
    rc_task_init(&topic->task, RC_TOPIC, topic);
    rc_task_init(&topic->native_task, RC_TOPIC, topic);
    topic->pool = pool;
    topic->native_pool = native_pool;
    topic->first = first;
    rc_u64_store(&topic->found_end, first);
    rc_u64_store(&topic->host_seen, first);
    rc_u64_store(&topic->native_seen, first);
    set_members(topic, hold(&nobody));
    rc_topic_set_quick_reply(topic);
    return 0;
}

void rc_topic_keep(rc_topic *topic)
{
    /* relaxed: the caller has it */
    atomic_fetch_add_explicit(&topic->holds, 1, memory_order_relaxed);
}

void rc_topic_drop(rc_topic *topic)
{
    /* acq_rel: whoever frees it comes after all who have used it */
    if (atomic_fetch_sub_explicit(&topic->holds, 1, memory_order_acq_rel) != 1) return;
    rc_u64_store(&topic->found_end, rc_ring_tail(&topic->ring)); /* what is left is for nobody */
    rc_topic_move_gate(topic);
    rc_members_drop(topic, topic->members);
    rc_ring_destroy(&topic->ring);
    rc_mutex_destroy(&topic->lock);
    rc_aligned_free(topic);
}

void rc_member_keep(rc_member *member)
{
    /* relaxed: the caller has it */
    atomic_fetch_add_explicit(&member->holds, 1, memory_order_relaxed);
}

void rc_member_drop(const rc_host *calls, rc_member *member)
{
    /* acq_rel: whoever lets go of it comes after all who have used it */
    if (atomic_fetch_sub_explicit(&member->holds, 1, memory_order_acq_rel) == 1)
        calls->left(member);
}

rc_members *rc_topic_members(rc_topic *topic)
{
    rc_members *members;
    rc_mutex_lock(&topic->lock);
    members = hold(topic->members);
    rc_mutex_unlock(&topic->lock);
    return members;
}

void rc_members_drop(rc_topic *topic, rc_members *members)
{
    const rc_host *calls = topic->pool->calls; /* the topic may go with its last member */
    /* acq_rel: as in rc_member_drop */
    if (atomic_fetch_sub_explicit(&members->holders, 1, memory_order_acq_rel) != 1) return;
    for (uint32_t at = 0; at < members->count; at++) rc_member_drop(calls, members->all[at]);
    rc_free(members);
}

/* Has the topic go on with `next` in place of `old`, which the caller holds. Returns 0 where others
 * were quicker. `joins` is one of `next` that the topic did not have, or NULL. */
static int replace(rc_topic *topic, rc_members *old, rc_members *next, rc_member *joins)
{
    int replaced;
    rc_mutex_lock(&topic->lock);
    replaced = topic->members == old;
    if (replaced && joins != NULL) {
        rc_u32_store_seq(&topic->joining, 1); /* seq, as what follows: before the tail is read */
        if (rc_u32_load(&topic->quick_reply) == RC_NOBODY) rc_u32_store_seq(&topic->quick_reply, 0);
    }
    if (replaced) set_members(topic, next);
    if (replaced && joins != NULL) {
        /* under the lock the gate stands still, at or before the tail: it cannot pass the new
         * cursor */
        rc_u64_store(&joins->start, rc_ring_tail(&topic->ring));
        rc_u64_store(&joins->cursor, rc_u64_load(&joins->start));
        count_active(topic, 1);
        rc_u32_store(&topic->joining, 0);
    }
    rc_mutex_unlock(&topic->lock);
    rc_members_drop(topic, replaced ? old : next); /* the topic's own, or what is of no use */
    rc_members_drop(topic, old);
    return replaced;
}

int rc_topic_join(rc_topic *topic, rc_member *member)
{
    rc_members *old, *next;
    do {
        uint32_t at = 0;
        old = rc_topic_members(topic);
        next = members_new(old->count + 1);
        if (next == NULL) {
            rc_members_drop(topic, old);
            return -1;
        }
        while (at < (member->mode == RC_NATIVE ? old->count : old->first_native))
            add(next, old->all[at++]);
        add(next, member);
        while (at < old->count) add(next, old->all[at++]);
    } while (!replace(topic, old, next, member));
    return 0;
}

static int stays(const rc_member *member, const rc_member *leaving)
{
    return member != leaving && !rc_u32_load(&member->retired);
}

void rc_topic_leave(rc_topic *topic, rc_member *member)
{
    rc_members *old, *next;
    do {
        uint32_t stay = 0;
        old = rc_topic_members(topic);
        for (uint32_t at = 0; at < old->count; at++) stay += (uint32_t)stays(old->all[at], member);
        next = members_new(stay);
        if (next == NULL) {
            rc_members_drop(topic, old);
            return;
        }
        for (uint32_t at = 0; at < old->count && next->count < stay; at++)
            if (stays(old->all[at], member)) add(next, old->all[at]);
    } while (!replace(topic, old, next, NULL));
}

void rc_topic_empty(rc_topic *topic)
{
    rc_members *old;
    rc_mutex_lock(&topic->lock);
    old = topic->members;
    set_members(topic, hold(&nobody));
    rc_u32_store(&topic->subscribers, 0);
    rc_u32_store(&topic->quick_reply, 0);
    rc_mutex_unlock(&topic->lock);
    rc_members_drop(topic, old);
}

/* --- events ----------------------------------------------------------------------------------- */

uint64_t rc_topic_look(rc_topic *topic, uint64_t most)
{
    uint64_t end;
    /* the gate, which is never beyond that end, stands still, and the pages stay */
    rc_mutex_lock(&topic->lock);
    end = rc_u64_load(&topic->found_end);
    if (rc_ring_tail(&topic->ring) != end) {
        end = topic->ring.record_size != 0 ? rc_record_published(&topic->ring, end, most)
                                           : rc_ring_published(&topic->ring, end, most);
        /* seq: before the look at a lane's state, with run_lane */
        rc_u64_store_seq(&topic->found_end, end);
    }
    rc_mutex_unlock(&topic->lock);
    return end;
}

uint64_t rc_topic_published(rc_topic *topic, uint64_t position, uint64_t most)
{
    uint64_t end;
    if (topic->ring.record_size == 0) return rc_ring_published(&topic->ring, position, most);
    end = rc_u64_load(&topic->found_end);
    if (position >= end) /* only from the start of a run can one go on */
        end = rc_topic_look(topic, position - end + most);
    if (end <= position) return position;
    return end - position < most ? end : position + most;
}

/* The least of the cursors that hold the gate back, and of what was found. */
static uint64_t next_gate(const rc_topic *topic)
{
    uint64_t target = rc_u64_load(&topic->found_end);
    for (uint32_t at = 0; at < topic->members->count; at++) {
        const rc_member *member = topic->members->all[at];
        uint64_t cursor = rc_u64_load(&member->cursor);
        if (cursor < target && rc_member_holds_gate(member)) target = cursor;
    }
    return target;
}

int rc_topic_move_gate(rc_topic *topic)
{
    void *events[BATCH];
    size_t count;
    int moved = 0;
    do {
        uint64_t gate, target;
        rc_mutex_lock(&topic->lock);
        gate = rc_ring_gate(&topic->ring);
        target = next_gate(topic);
        count = 0;
        if (topic->ring.record_size != 0) {
            rc_record_move_gate(&topic->ring, target);
            moved = target > gate;
        } else
            while (count < BATCH && gate + count < target) {
                events[count] = rc_ring_take(&topic->ring, gate + count);
                count++;
            }
        if (count != 0) {
            moved = 1;
            rc_ring_move_gate(&topic->ring, gate + count);
        }
        rc_mutex_unlock(&topic->lock);
        /* not under the lock: it may run anything */
        if (count != 0) topic->pool->calls->drop(events, count);
    } while (count == BATCH);
    return moved;
}

void rc_topic_make_room(rc_topic *topic)
{
    /* where some have a max_queue of their own, a cursor other than that of the gate may have made
     * room */
    if (rc_topic_move_gate(topic) || rc_u32_load(&topic->limited) != 0)
        rc_topic_tell_of_room(topic);
}

void rc_topic_tell_of_room(rc_topic *topic)
{
    if (rc_u32_load(&topic->limited) != 0) rc_ring_wake(&topic->ring);
    /* seq: after the gate, with whoever announces itself there and looks once more */
    if (rc_u32_load_seq(&topic->room_waiters) != 0) topic->pool->calls->moved(topic);
}

uint64_t rc_topic_room_now(const rc_topic *topic)
{
    uint64_t gate = rc_ring_gate(&topic->ring);
    uint64_t room = topic->ring.max_queue + topic->ring.reserve;
    for (uint32_t at = 0; at < topic->members->count; at++) {
        const rc_member *member = topic->members->all[at];
        uint64_t own = member->mail == NULL ? member->max_queue : topic->ring.max_queue;
        /* It needs no room for what is to come. While its handler is in a call the gate stands, and
         * others go past max_queue. */
        if (rc_u64_load(&member->end) != RC_NEVER) continue;
        own += rc_u64_load(&member->cursor) - gate;
        if (own < room) room = own;
    }
    return room;
}

uint64_t rc_topic_room(rc_topic *topic)
{
    uint64_t room;
    rc_mutex_lock(&topic->lock);
    room = rc_topic_room_now(topic);
    rc_mutex_unlock(&topic->lock);
    return room;
}

/* How many events there are from a cursor up to the tail, which was `before` when the cursor was
 * read, and `end` after that. Of those that came in between one counts: the others may have taken
 * its room. */
static uint64_t waiting_count(uint64_t before, uint64_t cursor, uint64_t end)
{
    if (end <= cursor) return 0;
    return (before < cursor + 1 ? cursor + 1 : before < end ? before : end) - cursor;
}

uint64_t rc_topic_pending(const rc_topic *topic)
{
    uint64_t before = rc_ring_tail(&topic->ring), gate = rc_ring_gate(&topic->ring);
    return waiting_count(before, gate, rc_ring_tail(&topic->ring));
}

uint64_t rc_member_pending(const rc_member *member)
{
    const rc_ring *ring = &member->topic->ring;
    uint64_t before, cursor, own, end, count;
    if (member->mode == RC_DIRECT) return rc_member_unfinished(member);
    /* what goes from the ring to the mailbox, and out of it, goes under this */
    if (member->mail != NULL) rc_mutex_lock(&member->mail->mutex);
    /* in the order in which an event goes: ring, being judged, mailbox, in hand */
    before = rc_ring_tail(ring);
    cursor = rc_u64_load_seq(&member->cursor);
    own = rc_u64_load_seq(&member->end);
    end = rc_ring_tail(ring);
    count = waiting_count(before, cursor, own < end ? own : end);
    if (member->mail != NULL) count += rc_u32_load_seq(&member->being_judged);
    count += rc_member_letters(member);
    if (member->mode == RC_LOOP || member->mail != NULL) count += rc_member_unfinished(member);
    if (member->mail != NULL) rc_mutex_unlock(&member->mail->mutex);
    return count;
}
