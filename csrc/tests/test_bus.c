/* All primitives together, composed as src/ringcast/core/ composes them: registry, ring, pool, park and mailbox, with
 * publishers, workers, subscriptions that come and go (with and without what waits for them) and a close in between.
 * Every event is accounted for, for every subscription. */
/* build: -DRC_FAIL_ALLOC */
#define _GNU_SOURCE
#include "../rc_memory.h"
#include "../rc_registry.h"
#include "../rc_turn.h"
#include "check.h"

enum {
    TOPICS = 3, PUBLISHERS = 3, CHANGERS = 2, MEMBERS_MOST = 8, SUBS_MOST = 400, BATCH = 16, MAGIC = 0x52494e47,
    TOPIC_KEY = 1000
};
static const int64_t MILLISECOND = 1000000;

/* Plain fields: the ring, the mailbox and the tokens hand them over. */
typedef struct event {
    uint32_t magic, from, number;
    rc_u32 references; /* the ring's, and each mailbox's */
} event;

typedef struct subscription {
    RC_ALIGNED rc_member member; /* first: a lane leads to its subscription */
    rc_u32 busy;                 /* 1 while its handler is called */
    /* plain: the holder's */
    uint64_t handled;
    uint32_t next[PUBLISHERS]; /* the number that may come next from each */
    int seen[PUBLISHERS];
    rc_mail in_place;
} subscription;

typedef struct bus_topic {
    rc_topic topic; /* first: a member's topic, and a worker's ring, lead to it */
    subscription *members[MEMBERS_MOST];
    uint32_t count;
} bus_topic;

typedef struct members { subscription *all[MEMBERS_MOST]; uint32_t count; } members;

typedef struct bus {
    rc_registry registry;
    rc_pool pool;
    bus_topic topics[TOPICS];
    subscription subs[SUBS_MOST]; /* never used again, so that whoever still knows one may look at it */
    rc_u32 subscribed;
    pthread_t threads[64];
    rc_u32 started;
    pthread_t watch;
    uint64_t slow_every;
    rc_u64 made, freed, refused, splits, waits;
    rc_u32 over;
} bus;

static bus shared;

static bus *bus_of(const bus_topic *topic) { return topic->topic.bus; }

static bus_topic *topic_of(const subscription *sub) { return (bus_topic *)sub->member.topic; }

/* --- events ----------------------------------------------------------------------------------------------------- */

static event *event_new(bus *all, uint32_t from, uint32_t number)
{
    event *made = malloc(sizeof *made);
    CHECK(made != NULL);
    made->magic = MAGIC;
    made->from = from;
    made->number = number;
    atomic_init(&made->references, 1);
    rc_u64_count(&all->made, 1);
    return made;
}

static void event_keep(event *kept)
{
    CHECK_EQUAL(kept->magic, MAGIC);
    atomic_fetch_add_explicit(&kept->references, 1, memory_order_relaxed);
}

static void event_drop(bus *all, event *dropped)
{
    CHECK_EQUAL(dropped->magic, MAGIC);
    /* acq_rel: whoever frees it comes after all who have used it */
    if (atomic_fetch_sub_explicit(&dropped->references, 1, memory_order_acq_rel) != 1) return;
    dropped->magic = 0;
    free(dropped);
    rc_u64_count(&all->freed, 1);
}

/* --- topics ------------------------------------------------------------------------------------------------------ */

static void schedule(bus *all, rc_task *task)
{
    if (rc_task_now(task) == RC_IDLE) rc_pool_schedule(&all->pool, task);
}

static void release_passed(bus_topic *topic)
{
    event *gone[BATCH];
    uint64_t gate, target;
    int count;
    do {
        rc_mutex_lock(&topic->topic.lock);
        gate = rc_ring_gate(&topic->topic.ring);
        target = rc_u64_load(&topic->topic.end);
        for (uint32_t at = 0; at < topic->count; at++) {
            uint64_t cursor = rc_u64_load(&topic->members[at]->member.cursor);
            if (cursor < target) target = cursor;
        }
        for (count = 0; count < BATCH && gate + (uint64_t)count < target; count++)
            gone[count] = rc_ring_take(&topic->topic.ring, gate + (uint64_t)count);
        if (count > 0) rc_ring_move_gate(&topic->topic.ring, gate + (uint64_t)count);
        rc_mutex_unlock(&topic->topic.lock);
        for (int at = 0; at < count; at++) event_drop(bus_of(topic), gone[at]);
    } while (count == BATCH);
}

static members members_now(bus_topic *topic)
{
    members now;
    rc_mutex_lock(&topic->topic.lock);
    memcpy(now.all, topic->members, sizeof now.all);
    now.count = topic->count;
    rc_mutex_unlock(&topic->topic.lock);
    return now;
}

/* --- mailboxes ---------------------------------------------------------------------------------------------------- */

/* Moves what the ring has for the subscription to its mailbox. Any thread. */
static void absorb(subscription *sub)
{
    bus *all = bus_of(topic_of(sub));
    rc_ring *ring = &sub->member.topic->ring;
    event *dropped[BATCH];
    uint64_t begin, cursor, stop;
    uint32_t count;
    do {
        rc_mutex_lock(&sub->member.mail->mutex);
        begin = cursor = rc_u64_load(&sub->member.cursor);
        stop = rc_u64_load(&sub->member.end);
        /* past its end its place in the ring is not kept any more */
        stop = cursor >= stop ? cursor : rc_ring_published(ring, cursor, stop - cursor < BATCH ? stop - cursor : BATCH);
        for (count = 0; cursor < stop; cursor++) {
            event *got = rc_slot_event(rc_ring_slot(ring, cursor));
            event_keep(got);
            got = rc_mail_put(sub->member.mail, got, sub->member.policy == RC_DROP_OLDEST);
            if (got != NULL) dropped[count++] = got;
        }
        rc_u64_store_seq(&sub->member.cursor, cursor);
        rc_u64_count(&sub->member.lost, count);
        rc_mutex_unlock(&sub->member.mail->mutex);
        for (uint32_t at = 0; at < count; at++) event_drop(all, dropped[at]);
    } while (cursor - begin == BATCH);
}

static event *take_mail(subscription *sub, uint64_t *missed)
{
    event *got;
    absorb(sub);
    rc_mutex_lock(&sub->member.mail->mutex);
    got = rc_mail_take(sub->member.mail, missed);
    rc_mutex_unlock(&sub->member.mail->mutex);
    return got;
}

/* --- deliver -------------------------------------------------------------------------------------------------------- */

static void handle(subscription *sub, const event *got)
{
    bus *all = bus_of(topic_of(sub));
    CHECK_EQUAL(atomic_exchange_explicit(&sub->busy, 1, memory_order_relaxed), 0); /* never by two at once */
    CHECK_EQUAL(got->magic, MAGIC);
    if (sub->seen[got->from]) { /* none twice, none overtaken; and none missing where none may be dropped */
        if (sub->member.policy == RC_BLOCK)
            CHECK_EQUAL(got->number, sub->next[got->from]);
        else
            CHECK(got->number >= sub->next[got->from]);
    }
    sub->seen[got->from] = 1;
    sub->next[got->from] = got->number + 1;
    sub->handled++;
    if (all->slow_every != 0 && sub->handled % all->slow_every == 0) {
        int64_t until = nanoseconds_now() + MILLISECOND;
        while (nanoseconds_now() < until) sched_yield();
    }
    atomic_store_explicit(&sub->busy, 0, memory_order_relaxed);
}

static int deliver_events(rc_worker *worker, rc_member *member, rc_span *span)
{
    subscription *sub = (subscription *)member;
    do {
        handle(sub, rc_slot_event(rc_ring_slot(&member->topic->ring, span->next)));
        span->calls++;
        rc_u64_store(&member->cursor, ++span->next);
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

static int deliver_mail(rc_worker *worker, rc_member *member, rc_span *span)
{
    subscription *sub = (subscription *)member;
    uint64_t missed = 0;
    do {
        event *got = take_mail(sub, &missed);
        if (got == NULL) {
            span->end = span->next;
            break;
        }
        handle(sub, got);
        event_drop(bus_of(topic_of(sub)), got);
        span->calls++;
        span->next++;
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

static void pause_in_turn(rc_topic *topic) { release_passed((bus_topic *)topic); }

static int has_events(subscription *sub, uint64_t end)
{
    uint64_t own = rc_u64_load_seq(&sub->member.end);
    if (rc_u64_load_seq(&sub->member.cursor) < (end < own ? end : own)) return 1;
    return sub->member.mail != NULL && rc_mail_size(sub->member.mail) != 0;
}

static int is_over(subscription *sub)
{
    if (rc_u64_load_seq(&sub->member.cursor) < rc_u64_load_seq(&sub->member.end) || rc_u32_load(&sub->member.retired)) return 0;
    return sub->member.mail == NULL || rc_mail_size(sub->member.mail) == 0;
}

static int has_work(subscription *sub, uint64_t end) { return has_events(sub, end) || is_over(sub); }

/* Leaves the topic for good. */
static void retire(subscription *sub)
{
    bus_topic *topic = topic_of(sub);
    rc_mutex_lock(&topic->topic.lock);
    for (uint32_t at = 0; at < topic->count; at++)
        if (topic->members[at] == sub) {
            topic->members[at] = topic->members[--topic->count];
            break;
        }
    rc_u32_store(&topic->topic.task.members, topic->count);
    rc_mutex_unlock(&topic->topic.lock);
    release_passed(topic);
    rc_u32_store_seq(&sub->member.retired, 1);
    rc_park_wake_all(&bus_of(topic)->pool.progress);
}

static int topic_has_work(bus_topic *topic)
{
    uint64_t end = rc_u64_load(&topic->topic.end);
    members now;
    if (rc_ring_tail(&topic->topic.ring) != end) return 1;
    now = members_now(topic);
    for (uint32_t at = 0; at < now.count; at++)
        if (rc_task_now(&now.all[at]->member.lane) != RC_SCHEDULED && has_work(now.all[at], end)) return 1;
    return 0;
}

/* Returns 1 if the turn was split. Fewer events than as shipped: more turns. */
static int turn(bus *all, rc_worker *worker, subscription *sub, uint64_t end)
{
    uint64_t cursor = rc_u64_load(&sub->member.cursor), limit = rc_turn_limit(&sub->member);
    if (limit > BATCH) limit = BATCH;
    if (sub->member.mail != NULL)
        return has_events(sub, end) && rc_turn(&all->pool, worker, &sub->member, limit, pause_in_turn);
    if (end > cursor + limit) end = cursor + limit;
    return cursor < end && rc_turn(&all->pool, worker, &sub->member, end, pause_in_turn);
}

static void run_lane(bus *all, rc_worker *worker, subscription *sub)
{
    bus_topic *topic = topic_of(sub);
    release_passed(topic);
    for (;;) {
        uint64_t end = rc_u64_load_seq(&topic->topic.end);
        while (has_events(sub, end)) {
            CHECK(!turn(all, worker, sub, end));
            release_passed(topic);
            if (rc_pool_short_of_workers(&all->pool)) {
                rc_pool_yield(&all->pool, worker);
                return;
            }
            end = rc_u64_load_seq(&topic->topic.end);
        }
        if (is_over(sub)) retire(sub);
        if (sub->handled % 2 == 0) {
            rc_task_release(&sub->member.lane, RC_SHARED);
            schedule(all, &topic->topic.task);
            break;
        }
        rc_task_release(&sub->member.lane, RC_IDLE);
        if (!has_work(sub, rc_u64_load_seq(&topic->topic.end)) || !rc_task_acquire(&sub->member.lane)) break;
    }
    rc_pool_leave(&all->pool, worker);
}

static void run_topic(bus *all, rc_worker *worker, bus_topic *topic)
{
    for (;;) {
        uint64_t end = rc_u64_load(&topic->topic.end);
        members now;
        if (rc_ring_tail(&topic->topic.ring) != end) rc_ring_await_event(&topic->topic.ring, end);
        end = rc_ring_published(&topic->topic.ring, end, BATCH);
        rc_u64_store_seq(&topic->topic.end, end);
        now = members_now(topic);
        for (uint32_t at = 0; at < now.count; at++) {
            subscription *sub = now.all[at];
            if (rc_task_now(&sub->member.lane) != RC_SHARED) {
                if (has_work(sub, end)) schedule(all, &sub->member.lane);
                continue;
            }
            if (turn(all, worker, sub, end)) {
                rc_u64_count(&all->splits, 1);
                run_lane(all, worker, sub);
                return;
            }
            if (is_over(sub)) retire(sub);
        }
        release_passed(topic);
        if (!topic_has_work(topic)) {
            rc_task_release(&topic->topic.task, RC_IDLE);
            if (!topic_has_work(topic) || !rc_task_acquire(&topic->topic.task)) break;
        }
        if (rc_pool_others(&all->pool)) {
            rc_pool_yield(&all->pool, worker);
            return;
        }
    }
    rc_pool_leave(&all->pool, worker);
}

static void *work(void *argument)
{
    bus *all = argument;
    rc_worker *worker = rc_pool_join(&all->pool);
    while (worker != NULL) {
        rc_task *task = rc_pool_take_now(&all->pool, worker);
        if (task == NULL) task = rc_pool_take(&all->pool, worker);
        if (task == NULL) break;
        if (task->kind == RC_TOPIC)
            run_topic(all, worker, task->owner);
        else
            run_lane(all, worker, task->owner);
    }
    return NULL;
}

static void *watch_workers(void *argument)
{
    bus *all = argument;
    int found = 0;
    while (!(found & RC_WATCH_STOP)) {
        found = rc_pool_watch(&all->pool);
        if (found & RC_WATCH_STUCK) rc_pool_split_stuck(&all->pool);
        while (rc_pool_wants_worker(&all->pool)) {
            uint32_t number = rc_u32_load(&all->started);
            CHECK(number < sizeof all->threads / sizeof all->threads[0]);
            rc_pool_hire(&all->pool);
            all->threads[number] = thread_start(work, all);
            rc_u32_store(&all->started, number + 1);
        }
    }
    return NULL;
}

/* --- publish --------------------------------------------------------------------------------------------------------- */

/* Makes room as far as it depends on nobody's handler. */
static void make_room(bus_topic *topic)
{
    members now = members_now(topic);
    for (uint32_t at = 0; at < now.count; at++)
        if (now.all[at]->member.mail != NULL) absorb(now.all[at]);
    release_passed(topic);
}

/* Returns whether it was published: not where the topic is closed, unknown, or there was no memory. */
static int publish(bus *all, uint64_t key, uint32_t from, uint32_t number, int *closed)
{
    bus_topic *topic = rc_registry_find(&all->registry, key);
    rc_slot *slot;
    event *made;
    if (topic == NULL) topic = rc_registry_find_locked(&all->registry, key);
    if (topic == NULL) return 0;
    made = event_new(all, from, number);
    for (;;) {
        uint64_t gate = rc_ring_gate(&topic->topic.ring);
        rc_claim claim = rc_ring_claim(&topic->topic.ring, topic->topic.ring.max_queue, &slot);
        if (claim == RC_CLAIMED) break;
        if (claim != RC_FULL) {
            event_drop(all, made);
            *closed = claim == RC_CLOSED;
            if (claim == RC_NO_MEMORY) rc_u64_count(&all->refused, 1);
            return 0;
        }
        make_room(topic);
        if (rc_ring_gate(&topic->topic.ring) != gate) continue;
        rc_u64_count(&all->waits, 1);
        rc_ring_await_gate(&topic->topic.ring, gate, RC_FOREVER);
    }
    rc_ring_publish(slot, made);
    schedule(all, &topic->topic.task);
    return 1;
}

/* --- subscribe, cancel, close ----------------------------------------------------------------------------------------- */

static subscription *subscribe(bus_topic *topic, rc_policy policy, uint64_t most)
{
    bus *all = bus_of(topic);
    uint32_t number = atomic_fetch_add_explicit(&all->subscribed, 1, memory_order_relaxed);
    subscription *sub = &all->subs[number];
    CHECK(number < SUBS_MOST);
    sub->member.topic = &topic->topic;
    sub->member.policy = policy;
    sub->member.deliver = policy == RC_BLOCK ? deliver_events : deliver_mail;
    rc_task_init(&sub->member.lane, RC_LANE, sub);
    rc_u64_store(&sub->member.end, RC_NEVER);
    if (policy != RC_BLOCK) {
        if (rc_mail_init(&sub->in_place, most) != 0) {
            rc_u32_store(&sub->member.retired, 1); /* it has never been there */
            return NULL;
        }
        sub->member.mail = &sub->in_place;
    }
    rc_mutex_lock(&topic->topic.lock);
    CHECK(topic->count < MEMBERS_MOST);
    topic->members[topic->count++] = sub;
    rc_u32_store(&topic->topic.task.members, topic->count);
    rc_u64_store(&sub->member.start, rc_ring_tail(&topic->topic.ring)); /* under the lock the gate cannot pass it */
    rc_u64_store(&sub->member.cursor, rc_u64_load(&sub->member.start));
    rc_mutex_unlock(&topic->topic.lock);
    return sub;
}

static void cancel(subscription *sub, int discard)
{
    bus_topic *topic = topic_of(sub);
    uint64_t cursor, begun, missed;
    event *got;
    if (sub->member.mail != NULL) {
        absorb(sub);
        rc_mutex_lock(&sub->member.mail->mutex); /* the cursor stands still */
    }
    rc_mutex_lock(&topic->topic.lock);
    cursor = rc_u64_load(&sub->member.cursor);
    if (rc_u64_load(&sub->member.end) == RC_NEVER) {
        rc_u64_store(&sub->member.cancelled_at, rc_ring_tail(&topic->topic.ring));
        rc_u64_store_seq(&sub->member.end, rc_u64_load(&sub->member.cancelled_at));
    }
    begun = cursor + (sub->member.mail == NULL); /* the handler may have begun with the event at the cursor */
    if (discard && begun < rc_u64_load(&sub->member.end)) rc_u64_store_seq(&sub->member.end, begun);
    rc_mutex_unlock(&topic->topic.lock);
    if (sub->member.mail != NULL) {
        rc_mutex_unlock(&sub->member.mail->mutex);
        while (discard && (got = take_mail(sub, &missed)) != NULL) {
            rc_u64_count(&sub->member.lost, 1);
            event_drop(bus_of(topic), got);
        }
    }
    if (cursor >= rc_u64_load(&sub->member.cancelled_at) && (sub->member.mail == NULL || rc_mail_size(sub->member.mail) == 0)) {
        if (is_over(sub)) retire(sub);
        return;
    }
    if (discard) rc_pool_call_attention(&bus_of(topic)->pool);
    schedule(bus_of(topic), &topic->topic.task);
}

static void await_retired(subscription *sub)
{
    rc_park *progress = &bus_of(topic_of(sub))->pool.progress;
    for (;;) {
        uint32_t ticket = rc_park_prepare(progress);
        if (rc_u32_load_seq(&sub->member.retired)) {
            rc_park_cancel(progress);
            return;
        }
        rc_park_wait(progress, ticket, RC_FOREVER);
    }
}

/* All that was published while it was subscribed is handled, dropped or discarded, each once. */
static void check_account(subscription *sub)
{
    rc_member *member = &sub->member;
    uint64_t end = rc_u64_load(&member->end), cursor = rc_u64_load(&member->cursor);
    uint64_t cancelled_at = rc_u64_load(&member->cancelled_at), discarded = cancelled_at - end;
    CHECK(rc_u32_load(&member->retired));
    if (member->topic == NULL || (member->policy != RC_BLOCK && member->mail == NULL)) return; /* no memory for it */
    if (end > cancelled_at) discarded = 0;
    if (cursor > end) discarded = cancelled_at - cursor; /* it had gone further */
    CHECK_EQUAL(sub->handled + rc_u64_load(&member->lost) + discarded, cancelled_at - rc_u64_load(&member->start));
}

static void bus_open(bus *all, uint64_t max_queue, uint64_t start, uint32_t max_workers, uint32_t parallel)
{
    memset(all, 0, sizeof *all);
    CHECK(rc_registry_init(&all->registry) == 0);
    CHECK(rc_pool_init(&all->pool, max_workers, 0, parallel, MILLISECOND / 5, MILLISECOND) == 0);
    for (uint32_t number = 0; number < TOPICS; number++) {
        bus_topic *topic = &all->topics[number];
        CHECK(rc_ring_init(&topic->topic.ring, max_queue, 0, start) == 0);
        CHECK(rc_mutex_init(&topic->topic.lock) == 0);
        rc_task_init(&topic->topic.task, RC_TOPIC, topic);
        rc_u64_store(&topic->topic.end, start);
        topic->topic.bus = all;
        CHECK_EQUAL(rc_registry_put(&all->registry, TOPIC_KEY + number, topic), 0);
    }
    all->watch = thread_start(watch_workers, all);
}

static void settle(bus_topic *topic)
{
    uint64_t position, tail;
    rc_mutex_lock(&topic->topic.lock); /* the gate stands still */
    position = rc_ring_gate(&topic->topic.ring);
    tail = rc_ring_tail(&topic->topic.ring);
    while ((position = rc_ring_published(&topic->topic.ring, position, tail - position)) != tail)
        rc_ring_await_event(&topic->topic.ring, position);
    rc_mutex_unlock(&topic->topic.lock);
    if (tail != rc_u64_load_seq(&topic->topic.end)) schedule(bus_of(topic), &topic->topic.task);
}

static void bus_begin_close(bus *all)
{
    for (uint32_t number = 0; number < TOPICS; number++) rc_registry_remove(&all->registry, TOPIC_KEY + number);
    for (uint32_t number = 0; number < TOPICS; number++) {
        bus_topic *topic = &all->topics[number];
        members now;
        rc_ring_close(&topic->topic.ring);
        settle(topic);
        now = members_now(topic);
        for (uint32_t at = 0; at < now.count; at++) cancel(now.all[at], 0);
    }
    rc_pool_stop(&all->pool);
}

static void await_deliveries(bus *all)
{
    for (;;) {
        uint32_t ticket = rc_park_prepare(&all->pool.progress);
        if (rc_pool_outstanding(&all->pool) == 0) {
            rc_park_cancel(&all->pool.progress);
            return;
        }
        rc_park_wait(&all->pool.progress, ticket, RC_FOREVER);
    }
}

/* After bus_begin_close, with all other threads gone: everything was delivered and accounted for, and freed once. */
static void bus_end_close(bus *all)
{
    await_deliveries(all);
    thread_join(all->watch);
    for (uint32_t at = 0; at < rc_u32_load(&all->started); at++) thread_join(all->threads[at]);
    for (uint32_t at = 0; at < rc_u32_load(&all->subscribed); at++) {
        check_account(&all->subs[at]);
        if (all->subs[at].member.mail != NULL) rc_mail_destroy(all->subs[at].member.mail);
    }
    for (uint32_t number = 0; number < TOPICS; number++) {
        bus_topic *topic = &all->topics[number];
        CHECK_EQUAL(topic->count, 0);
        CHECK_EQUAL(rc_ring_gate(&topic->topic.ring), rc_ring_tail(&topic->topic.ring));
        CHECK_EQUAL(rc_u64_load(&topic->topic.end), rc_ring_tail(&topic->topic.ring));
        CHECK_EQUAL(rc_task_now(&topic->topic.task), RC_IDLE);
        CHECK_EQUAL(rc_u32_load(&topic->topic.ring.room.waiters), 0);
        rc_ring_destroy(&topic->topic.ring);
        rc_mutex_destroy(&topic->topic.lock);
    }
    CHECK_EQUAL(all->pool.alive + all->pool.idle + all->pool.on_topics + all->pool.on_lanes + all->pool.waiting, 0);
    rc_pool_destroy(&all->pool);
    rc_registry_destroy(&all->registry);
    CHECK_EQUAL(rc_u64_load(&all->made), rc_u64_load(&all->freed));
}

/* --- the threads of a test -------------------------------------------------------------------------------------------- */

typedef struct thread {
    bus *bus;
    uint32_t number, each;
    uint64_t published[TOPICS];
} thread;

/* Publishes in all topics in turn, until it has published `each` in all or they are closed. */
static void *publish_all(void *argument)
{
    thread *me = argument;
    uint32_t left = me->each;
    int closed = 0;
    for (uint32_t step = 0; left > 0 && !closed; step++) {
        uint32_t topic = (step + me->number) % TOPICS;
        if (publish(me->bus, TOPIC_KEY + topic, me->number, (uint32_t)me->published[topic], &closed)) {
            me->published[topic]++;
            left--;
        } else if (rc_registry_find_locked(&me->bus->registry, TOPIC_KEY) == NULL) {
            break; /* all are closed */
        } else {
            sched_yield();
        }
        if (step % 61 == 0)
            for (uint64_t spins = step % 13 * 100; spins > 0; spins--) rc_cpu_relax();
    }
    return NULL;
}

/* Subscriptions that come and go. */
static void *subscribe_and_cancel(void *argument)
{
    static const rc_policy policies[] = {RC_BLOCK, RC_DROP_NEWEST, RC_DROP_OLDEST};
    thread *me = argument;
    uint64_t state = 11 + me->number;
    for (uint32_t round = 0; round < me->each && !rc_u32_load(&me->bus->over); round++) {
        bus_topic *topic = &me->bus->topics[next_random(&state) % TOPICS];
        subscription *sub = subscribe(topic, policies[next_random(&state) % 3], 1 + next_random(&state) % 20);
        uint64_t until = rc_ring_tail(&topic->topic.ring) + next_random(&state) % 60;
        int wait = next_random(&state) % 2 == 0;
        if (sub == NULL) continue;
        for (int spins = 0; rc_ring_tail(&topic->topic.ring) < until && spins < 200; spins++) sched_yield();
        cancel(sub, next_random(&state) % 2 == 0);
        if (next_random(&state) % 4 == 0) cancel(sub, 1); /* a second cancel, that discards */
        if (wait) {
            await_retired(sub);
            CHECK(!is_over(sub));
        }
    }
    return NULL;
}

typedef struct run {
    uint64_t max_queue, start;
    uint32_t max_workers, parallel, each, changes;
    uint64_t close_after; /* events in the first topic; 0: all are published first */
    uint64_t slow_every;
} run;

static void run_bus(run how)
{
    bus *all = &shared;
    thread publishers[PUBLISHERS], changers[CHANGERS];
    pthread_t threads[PUBLISHERS + CHANGERS];
    uint64_t published = 0, live = rc_alloc_live();
    bus_open(all, how.max_queue, how.start, how.max_workers, how.parallel);
    all->slow_every = how.slow_every;
    for (uint32_t number = 0; number < TOPICS; number++) { /* these are there from the beginning to the end */
        CHECK(subscribe(&all->topics[number], RC_BLOCK, 0) != NULL);
        while (subscribe(&all->topics[number], number % 2 ? RC_DROP_NEWEST : RC_DROP_OLDEST, 7) == NULL) continue;
    }
    for (uint32_t at = 0; at < PUBLISHERS; at++) {
        publishers[at] = (thread){.bus = all, .number = at, .each = how.each};
        threads[at] = thread_start(publish_all, &publishers[at]);
    }
    for (uint32_t at = 0; at < CHANGERS; at++) {
        changers[at] = (thread){.bus = all, .number = at, .each = how.changes};
        threads[PUBLISHERS + at] = thread_start(subscribe_and_cancel, &changers[at]);
    }
    if (how.close_after != 0) {
        while (rc_ring_tail(&all->topics[0].topic.ring) - how.start < how.close_after) sched_yield();
        rc_u32_store(&all->over, 1); /* subscribe is refused from now on, as by a closed dispatcher */
        for (uint32_t at = 0; at < CHANGERS; at++) thread_join(threads[PUBLISHERS + at]);
        bus_begin_close(all);
    }
    for (uint32_t at = 0; at < PUBLISHERS; at++) thread_join(threads[at]);
    if (how.close_after == 0) {
        for (uint32_t at = 0; at < CHANGERS; at++) thread_join(threads[PUBLISHERS + at]);
        bus_begin_close(all);
    }
    for (uint32_t number = 0; number < TOPICS; number++) {
        uint64_t accepted = 0;
        for (uint32_t at = 0; at < PUBLISHERS; at++) accepted += publishers[at].published[number];
        CHECK_EQUAL(rc_ring_tail(&all->topics[number].topic.ring) - how.start, accepted); /* as many as publish has said */
        published += accepted;
    }
    if (how.close_after == 0) CHECK_EQUAL(published, (uint64_t)PUBLISHERS * how.each);
    bus_end_close(all);
    for (uint32_t number = 0; number < TOPICS; number++) { /* nothing was cancelled before the close: all, one by one */
        uint64_t accepted = 0;
        for (uint32_t at = 0; at < PUBLISHERS; at++) accepted += publishers[at].published[number];
        CHECK_EQUAL(all->subs[2 * number].handled, accepted);
        for (uint32_t at = 0; at < PUBLISHERS; at++)
            if (all->subs[2 * number].seen[at])
                CHECK_EQUAL(all->subs[2 * number].next[at], publishers[at].published[number]);
    }
    CHECK_EQUAL(rc_alloc_live(), live);
}

/* --- tests --------------------------------------------------------------------------------------------------------------- */

/* Subscriptions come and go beside publishers: each gets what was published while it was there. */
static void subscriptions_come_and_go(void)
{
    run_bus((run){.max_queue = 50, .max_workers = 3, .parallel = 1, .each = 4000, .changes = 60});
    run_bus((run){.max_queue = 50, .max_workers = 4, .parallel = 3, .each = 4000, .changes = 60});
}

/* The same with queues that are full all the time: what drops never holds up a publisher, what blocks does. */
static void full_queues(void)
{
    run_bus((run){.max_queue = 2, .max_workers = 3, .parallel = 2, .each = 1500, .changes = 60});
    CHECK(rc_u64_load(&shared.waits) > 0);
}

/* Handlers that take their time: turns are split, lanes come and go. */
static void slow_handlers(void)
{
    run_bus((run){.max_queue = 64, .max_workers = 4, .parallel = 2, .each = 1200, .changes = 30, .slow_every = 40});
    CHECK(rc_u64_load(&shared.splits) > 0);
}

/* Positions that pass 2**32 and 2**62, and that come close to the closed bit. */
static void from_any_position(void)
{
    const uint64_t starts[] = {(UINT64_C(1) << 32) - 700, (UINT64_C(1) << 62) - 700, RC_RING_CLOSED - 1 - PUBLISHERS * 1500};
    for (size_t at = 0; at < sizeof starts / sizeof starts[0]; at++)
        run_bus((run){
            .max_queue = 600, .start = starts[at], .max_workers = 3, .parallel = 2, .each = 1500, .changes = 30,
            .slow_every = 500
        });
}

/* close in the middle of it all: what was accepted is delivered, what is refused was not. */
static void close_in_between(void)
{
    for (uint64_t round = 0; round < 20; round++)
        run_bus((run){
            .max_queue = 1 + round * 3, .max_workers = 3, .parallel = 1 + (uint32_t)round % 3, .each = 100000,
            .changes = 40, .close_after = 1 + round * round * 3, .slow_every = round % 4 == 3 ? 25 : 0
        });
}

static void *fail_at_random(void *argument)
{
    bus *all = argument;
    uint64_t state = 5;
    while (!rc_u32_load(&all->over)) {
        rc_fail_alloc(next_random(&state) % 3, next_random(&state) % 4);
        sched_yield();
    }
    rc_fail_alloc(0, 0);
    return NULL;
}

/* Allocations fail now and then: a publish is refused, a mailbox drops, a subscription is not made; all is accounted for. */
static void without_memory_now_and_then(void)
{
    for (uint64_t round = 0; round < 6; round++) {
        pthread_t failing;
        uint64_t live = rc_alloc_live();
        thread publishers[PUBLISHERS], changer = {.bus = &shared, .number = 1, .each = 40};
        pthread_t threads[PUBLISHERS], changing;
        bus_open(&shared, 1200, RC_PAGE_SLOTS - 3, 3, 2);
        for (uint32_t number = 0; number < TOPICS; number++) {
            CHECK(subscribe(&shared.topics[number], RC_BLOCK, 0) != NULL);
            CHECK(subscribe(&shared.topics[number], RC_DROP_OLDEST, 300) != NULL);
        }
        failing = thread_start(fail_at_random, &shared);
        for (uint32_t at = 0; at < PUBLISHERS; at++) {
            publishers[at] = (thread){.bus = &shared, .number = at, .each = 3000};
            threads[at] = thread_start(publish_all, &publishers[at]);
        }
        changing = thread_start(subscribe_and_cancel, &changer);
        for (uint32_t at = 0; at < PUBLISHERS; at++) thread_join(threads[at]);
        thread_join(changing);
        rc_u32_store(&shared.over, 1);
        thread_join(failing);
        bus_begin_close(&shared);
        bus_end_close(&shared);
        CHECK_EQUAL(rc_u64_load(&shared.made) - rc_u64_load(&shared.refused), PUBLISHERS * 3000);
        CHECK_EQUAL(rc_alloc_live(), live);
    }
}

int main(void)
{
    RUN(subscriptions_come_and_go);
    RUN(full_queues);
    RUN(slow_handlers);
    RUN(from_any_position);
    RUN(close_in_between);
    RUN(without_memory_now_and_then);
    return 0;
}
