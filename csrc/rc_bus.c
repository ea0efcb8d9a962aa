#include "rc_bus.h"

#include "rc_turn.h"

enum {
    WORTH_IT = 256, /* records: with fewer, a worker with patience waits before it chases the
                       producer's newest line */
    PAUSES = 200,   /* relax instructions of such a wait, about 2 us */
};

/* The members of a topic that one pool runs. */
typedef struct crew {
    rc_topic *topic;
    rc_task *task;
    rc_pool *pool;
    rc_u64 *found;
    int native;
} crew;

static crew crew_of(rc_topic *topic, int native)
{
    if (native)
        return (crew){topic, &topic->native_task, topic->native_pool, &topic->native_seen, 1};
    return (crew){topic, &topic->task, topic->pool, &topic->host_seen, 0};
}

static uint32_t first_of(const crew *crew, const rc_members *members)
{
    return crew->native ? members->first_native : 0;
}

static uint32_t last_of(const crew *crew, const rc_members *members)
{
    return crew->native ? members->count : members->first_native;
}

/* --- schedule --------------------------------------------------------------------------------- */

static rc_member *member_of(const rc_task *lane) { return lane->owner; }

/* Gives a task to the workers. */
static void enqueue(rc_topic *topic, rc_pool *pool, rc_task *task, int attached)
{
    const rc_host *calls = pool->calls;
    /* the token's hold, before it is queued: the worker may be done with it at once */
    if (task->kind == RC_TOPIC)
        rc_topic_keep(topic);
    else
        rc_member_keep(member_of(task));
    if (attached ? rc_pool_schedule(pool, task) : rc_pool_schedule_detached(pool, task)) return;
    /* another thread did, or all is delivered and the workers are gone */
    if (task->kind == RC_TOPIC)
        rc_topic_drop(topic);
    else
        rc_member_drop(calls, member_of(task));
}

/* Whether one of the host's crew runs on the pool's workers, and these are started. */
static int has_workers(const rc_topic *topic)
{
    return rc_u32_load(&topic->pooled) != 0 && rc_u32_load(&topic->pool->started) != 0;
}

static void run_here(rc_topic *topic);

void rc_bus_schedule(rc_topic *topic, rc_task *task)
{
    int native = task->kind == RC_TOPIC ? task == &topic->native_task
                                        : member_of(task)->mode == RC_NATIVE;
    rc_pool *pool = native ? topic->native_pool : topic->pool;
    if (rc_task_now(task) != RC_IDLE) return;
    /* a forked child */
    if (native && !rc_u32_load(&pool->started)) pool->calls->start(topic, pool);
    if (task == &topic->task && !has_workers(topic))
        run_here(topic);
    else if (task->kind == RC_LANE && member_of(task)->mode == RC_LOOP)
        pool->calls->wake(member_of(task));
    else
        enqueue(topic, pool, task, !native);
}

/* Whether a loop is to be told of records: not while it is at what it was told of before. */
static int has_idle_loop(rc_topic *topic)
{
    int found = 0;
    rc_mutex_lock(&topic->lock);
    for (uint32_t at = 0; at < topic->members->first_native; at++) {
        const rc_member *member = topic->members->all[at];
        found |= member->mode == RC_LOOP && rc_task_now(&member->lane) == RC_IDLE;
    }
    rc_mutex_unlock(&topic->lock);
    return found;
}

int rc_bus_wake_detached(rc_topic *topic)
{
    rc_bus_schedule_natives(topic);
    /* seq: as there */
    if (rc_u32_load_seq(&topic->task.members) == 0 || rc_task_now(&topic->task) != RC_IDLE)
        return 0;
    if (!has_workers(topic)) return rc_u32_load(&topic->pooled) != 0 || has_idle_loop(topic);
    enqueue(topic, topic->pool, &topic->task, 0);
    return 0;
}

/* --- topics and lanes ------------------------------------------------------------------------- */

/* Finds what was published since the last look, for the holder of the task. Two cores that write
 * and read one cache line in turn halve the speed of both; so where there is little, a worker with
 * patience lets the producer get ahead. */
static uint64_t find(const crew *crew)
{
    rc_topic *topic = crew->topic;
    uint64_t most = crew->native ? RC_TURN_RECORDS : rc_u32_load(&topic->look_ahead),
             before = rc_u64_load(crew->found);
    uint64_t end = rc_topic_look(topic, most), tail, gate;
    uint32_t left = crew->pool->patience;
    while (left != 0 && end - before < WORTH_IT) {
        uint64_t seen = end;
        for (int pauses = 0; pauses < PAUSES; pauses++) rc_cpu_relax();
        end = rc_topic_look(topic, most);
        left = end == before ? left - 1 : end != seen;
    }
    for (unsigned spins = 0; end == before && rc_ring_tail(&topic->ring) != end; spins++) {
        rc_ring_pause(spins); /* claimed: published within a few instructions */
        end = rc_topic_look(topic, most);
    }
    tail = rc_ring_tail(&topic->ring);
    /* after the tail, which it may have passed meanwhile: rather too few than too many */
    gate = rc_ring_gate(&topic->ring);
    if (tail > gate + rc_u64_load(&topic->high_water))
        rc_u64_store(&topic->high_water, tail - gate);
    rc_u64_store(crew->found, end);
    return end;
}

/* Whether somebody has to look at what is published. Events are let go of also where no member is
 * left: a publisher may have just seen one. Records are of no concern to natives that are gone. */
static int has_readers(const crew *crew)
{
    /* seq: as in rc_bus_schedule_natives */
    return !crew->native || rc_u32_load_seq(&crew->task->members) != 0;
}

/* Whether the holder of the task has something to do. Also its last look after it has released it:
 * so it reads no slot, which another holder may have emptied meanwhile. */
static int has_work(const crew *crew)
{
    rc_topic *topic = crew->topic;
    uint64_t end = rc_u64_load(crew->found);
    int found = 0;
    if (rc_ring_tail(&topic->ring) != end && has_readers(crew)) return 1;
    rc_mutex_lock(&topic->lock);
    for (uint32_t at = first_of(crew, topic->members); at < last_of(crew, topic->members) && !found;
         at++) {
        const rc_member *member = topic->members->all[at];
        found = rc_task_now(&member->lane) != RC_SCHEDULED && rc_member_has_work(member, end);
    }
    rc_mutex_unlock(&topic->lock);
    return found;
}

/* Gives a member its turn of the events before `end`, if there are any for it. Returns whether the
 * turn was split. */
static int run_turn(rc_pool *pool, rc_worker *worker, rc_member *member, uint64_t end)
{
    uint64_t cursor, limit = rc_turn_limit(member), own = rc_u64_load_seq(&member->end);
    if (member->mail != NULL)
        return rc_member_has_events(member, end) &&
               rc_turn(pool, worker, member, member->batch != 0 ? 1 : limit);
    cursor = rc_u64_load(&member->cursor);
    if (limit < member->batch) limit = member->batch;
    if (own < end) end = own;
    if (cursor >= end) return 0;
    return rc_turn(pool, worker, member, end - cursor < limit ? end : cursor + limit);
}

/* Runs a member whose lane the worker holds, a slow one or the worker's own, until it has caught up
 * with its topic. */
static void run_lane(rc_pool *pool, rc_worker *worker, rc_member *member)
{
    const rc_host *calls = pool->calls;
    rc_topic *topic = member->topic;
    const int for_good = member->lane.own != NULL; /* this worker runs it, and nothing else */
    uint64_t end;
    for (;;) {
        rc_topic_make_room(topic); /* at first for the turn that was split */
        end = rc_u64_load_seq(&topic->found_end);
        while (rc_member_has_events(member, end)) {
            run_turn(pool, worker, member, end);
            rc_topic_make_room(topic);
            if (!for_good && rc_pool_short_of_workers(pool)) {
                rc_pool_yield(pool, worker);
                return;
            }
            end = rc_u64_load_seq(&topic->found_end);
        }
        if (rc_member_is_over(member)) rc_bus_retire(member);
        if (!for_good && member->heat == 0) {
            rc_task_release(&member->lane, RC_SHARED);
            /* its worker may have found events while the lane was scheduled, and passed it over */
            rc_bus_schedule(topic, member->mode == RC_NATIVE ? &topic->native_task : &topic->task);
            break;
        }
        rc_task_release(&member->lane, RC_IDLE);
        if (!rc_member_has_work(member, rc_u64_load_seq(&topic->found_end)) ||
            !rc_task_acquire(&member->lane))
            break;
    }
    /* in this order: with the last that is outstanding the bus may go, and with it, for the garbage
     * collector, whatever only the member refers to */
    rc_pool_put_down(pool, worker);
    rc_member_drop(calls, member);
    rc_pool_unhold(pool);
}

/* Gives each member of the crew a turn. Returns the member whose turn was split and whose lane the
 * worker now holds; else NULL. */
static rc_member *
run_members(const crew *crew, rc_worker *worker, const rc_members *members, uint64_t end)
{
    for (uint32_t at = first_of(crew, members); at < last_of(crew, members); at++) {
        rc_member *member = members->all[at];
        if (rc_task_now(&member->lane) != RC_SHARED) {
            if (rc_member_has_work(member, end)) rc_bus_schedule(crew->topic, &member->lane);
            continue;
        }
        if (run_turn(crew->pool, worker, member, end)) return member;
        if (rc_heat_is_slow(member->heat) && crew->pool->max_workers > 1) {
            rc_task_release(&member->lane, RC_IDLE);
            if (rc_member_has_work(member, end)) rc_bus_schedule(crew->topic, &member->lane);
        } else if (rc_member_is_over(member))
            rc_bus_retire(member);
    }
    return NULL;
}

/* Runs the topic, whose task the worker holds, until all is delivered or others are to have their
 * turn. */
static void run_topic(const crew *crew, rc_worker *worker)
{
    rc_topic *topic = crew->topic;
    for (;;) {
        uint64_t end = find(crew);
        rc_members *members = rc_topic_members(topic);
        rc_member *split = run_members(crew, worker, members, end);
        if (split != NULL) {
            split->heat = RC_HOTTEST;
            /* The watch has made the lane's token during the call. Takes the token's hold now: up
             * to here the snapshot has kept the member. */
            rc_member_keep(split);
            rc_members_drop(topic, members);
            run_lane(crew->pool, worker, split);
            return;
        }
        rc_members_drop(topic, members);
        rc_topic_make_room(topic);
        if (!has_work(crew)) {
            rc_task_release(crew->task, RC_IDLE);
            if (!has_work(crew) || !rc_task_acquire(crew->task)) break;
        }
        if (rc_pool_others(crew->pool)) {
            rc_pool_yield(crew->pool, worker);
            return;
        }
    }
    rc_pool_leave(crew->pool, worker);
    rc_topic_drop(topic); /* which needs nothing but the pools: the worker's thread has these */
}

void rc_bus_run(rc_pool *pool, rc_worker *worker, rc_task *task)
{
    if (task->kind == RC_LANE)
        run_lane(pool, worker, member_of(task));
    else {
        rc_topic *topic = task->owner;
        crew its = crew_of(topic, task == &topic->native_task);
        run_topic(&its, worker);
    }
}

/* Runs a topic in the thread that has something for it: none of its members needs a worker, or
 * there are no workers yet. What there is to do is to wake loops, and to start workers for the
 * others if they have events. */
static void run_here(rc_topic *topic)
{
    crew its = crew_of(topic, 0);
    while (rc_pool_acquire(topic->pool, &topic->task)) {
        uint64_t end = find(&its);
        rc_members *members = rc_topic_members(topic);
        for (uint32_t at = 0; at < members->first_native; at++) {
            rc_member *member = members->all[at];
            /* own workers come with the others */
            if (member->mode == RC_LOOP && rc_task_now(&member->lane) == RC_IDLE &&
                rc_member_has_work(member, end))
                rc_bus_schedule(topic, &member->lane);
        }
        rc_members_drop(topic, members);
        rc_topic_make_room(topic);
        rc_task_release(&topic->task, RC_IDLE);
        rc_pool_unhold(topic->pool);
        if (!has_work(&its)) break;
        if (rc_u32_load(&topic->pooled) != 0) {
            topic->pool->calls->start(topic, topic->pool);
            enqueue(topic, topic->pool, &topic->task, 1);
            break;
        }
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

void rc_bus_retire(rc_member *member)
{
    rc_topic *topic = member->topic;
    const rc_host *calls = topic->pool->calls;
    rc_topic_leave(topic, member);
    /* seq: a condition of `progress`, and before the look at the lane, with the host's `wake`. Of
     * two threads one goes on. */
    if (atomic_exchange_explicit(&member->retired, 1, memory_order_seq_cst)) return;
    rc_topic_move_gate(topic);
    /* also where the gate has not moved: the limit may have been its own */
    rc_ring_wake(&topic->ring);
    rc_topic_tell_of_room(topic);
    rc_park_wake_all(topic->pool->progress);
    calls->retired(member);
    rc_member_drop(calls, member);
}

int rc_bus_set_end(rc_member *member, int discard)
{
    rc_topic *topic = member->topic;
    uint64_t cursor, begun;
    rc_mutex_lock(&topic->lock);
    cursor = rc_u64_load(&member->cursor);
    if (rc_u64_load(&member->end) == RC_NEVER) {
        rc_u64_store(&member->cancelled_at, rc_ring_tail(&topic->ring));
        /* seq: before the look at the task */
        rc_u64_store_seq(&member->end, rc_u64_load(&member->cancelled_at));
        rc_topic_ended(topic);
    }
    begun = cursor + rc_u32_load(&member->running);
    if (discard && begun < rc_u64_load(&member->end)) rc_u64_store_seq(&member->end, begun);
    if (discard) rc_u32_store(&member->discarded, 1);
    rc_mutex_unlock(&topic->lock);
    return cursor >= rc_u64_load(&member->cancelled_at) && rc_member_letters(member) == 0;
}

void rc_bus_after_end(rc_member *member, int discard)
{
    rc_topic *topic = member->topic;
    int native = member->mode == RC_NATIVE;
    if (rc_member_is_over(member)) { /* nothing was waiting, and nobody is at it */
        rc_bus_retire(member);
        return;
    }
    if (discard) {
        rc_pool_call_attention(native ? topic->native_pool : topic->pool);
        /* the gate passes what is for nobody, also where no worker is free to come */
        rc_topic_look(topic, RC_NEVER);
    }
    rc_topic_make_room(topic); /* publishers need not wait for it any more */
    /* whoever runs it retires it */
    rc_bus_schedule(topic, native ? &topic->native_task : &topic->task);
}

void rc_bus_settle(rc_topic *topic)
{
    crew hosts = crew_of(topic, 0);
    unsigned spins = 0;
    while (rc_topic_look(topic, RC_NEVER) != rc_ring_tail(&topic->ring)) {
        rc_ring_pause(spins);
        spins++;
    }
    if (has_work(&hosts)) rc_bus_schedule(topic, &topic->task);
    rc_bus_schedule_natives(topic);
}
