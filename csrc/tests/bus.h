/* A bus whose host is C: its handlers check what they are given, and its calls check when they
 * come. For the tests of what csrc/ composes (rc_bus.h). Every event, every subscription and every
 * pin is accounted for.
 */
#ifndef BUS_H
#define BUS_H

#include "../rc_bus.h"
#include "../rc_memory.h"
#include "../rc_registry.h"
#include "../rc_turn.h"
#include "check.h"

enum { TOPICS_MOST = 4, FROM_MOST = 8, MAGIC = 0x52494e47, TOPIC_KEY = 1000, RESERVE = 65536 };
static const int64_t MILLISECOND = 1000000;

/* Plain fields: the ring, the mailbox and the tokens hand them over. */
typedef struct event {
    uint32_t magic, from, number;
    uint32_t
        hops; /* how often it is published again, in the next topic, by its last subscription */
    rc_u32 references; /* the ring's, and each mailbox's */
} event;

/* What a subscription has had, kept when it has left. */
typedef struct tally {
    uint64_t handled;
    uint32_t next[FROM_MOST]; /* the number that may come next from each publisher */
    int seen[FROM_MOST];
} tally;

typedef struct subscription {
    RC_ALIGNED rc_member member; /* first: a lane leads to its subscription */
    rc_u32 busy;                 /* 1 while its handler is called */
    tally had;
    tally *keeps;  /* where `had` goes at the end, or NULL */
    int in_order;  /* no event may be missing between two of a publisher */
    int any_order; /* events of a publisher come by several ways */
    int is_slow;   /* every bus.slow_every-th call takes bus.slow_for */
    int hands_on;  /* it publishes events with hops left in the next topic */
    int deserted;  /* its topic was emptied under it: it does not retire */
    void (*called)(struct subscription *); /* what its handler does besides, or NULL */
    rc_u32 told;                           /* of a loop: how often its consumer was told */
    rc_park bell;                          /* its consumer waits here to be told */
    rc_worker *own;                        /* the worker that alone runs it, or NULL */
    rc_mail in_place;
} subscription;

/* A worker's thread. When it has ended, another one may have its place. */
typedef struct staff {
    pthread_t thread;
    void *(*run)(void *);
    void *argument;
    rc_u32 is_done; /* it does nothing any more, and can be joined without a wait */
} staff;

typedef struct bus {
    rc_registry registry;
    rc_pool pool, native_pool;
    rc_topic *topics[TOPICS_MOST];
    uint32_t count;
    staff staff[64];
    uint32_t staffed; /* of them: those that were started */
    pthread_t watches[2];
    uint32_t watched;  /* of the watches: those that were started */
    int stepped;       /* the test plays the workers and the watch */
    rc_mutex starting; /* whoever starts a thread has it */
    uint64_t slow_every;
    int64_t slow_for;
    rc_u64 made, freed, refused; /* events */
    rc_u64 subscribed, left;     /* members */
    rc_u64 splits, waits, reserve_used;
    rc_u64 starts, moves, pauses; /* calls of the host */
    rc_u32 pins;
    rc_u32 over;
} bus;

static bus shared;

static inline bus *bus_of(const rc_topic *topic) { return topic->bus; }

/* --- events ----------------------------------------------------------------------------------- */

static inline event *event_new(bus *all, event what)
{
    event *made = malloc(sizeof *made);
    CHECK(made != NULL);
    *made = what;
    made->magic = MAGIC;
    atomic_init(&made->references, 1);
    rc_u64_count(&all->made, 1);
    return made;
}

static inline void event_keep(event *kept)
{
    CHECK_EQUAL(kept->magic, MAGIC);
    atomic_fetch_add_explicit(&kept->references, 1, memory_order_relaxed);
}

static inline void event_drop(event *dropped)
{
    CHECK_EQUAL(dropped->magic, MAGIC);
    /* acq_rel: whoever frees it comes after all who have used it */
    if (atomic_fetch_sub_explicit(&dropped->references, 1, memory_order_acq_rel) != 1) return;
    dropped->magic = 0;
    free(dropped);
    rc_u64_count(&shared.freed, 1);
}

/* --- mailboxes -------------------------------------------------------------------------------- */

/* Moves what the ring has for the member to its mailbox. Any thread. */
static inline void absorb(rc_member *member)
{
    enum { SOME = 16 };
    rc_ring *ring = &member->topic->ring;
    event *dropped[SOME];
    uint64_t begin, cursor, stop;
    uint32_t count;
    do {
        rc_mutex_lock(&member->mail->mutex);
        begin = cursor = rc_u64_load(&member->cursor);
        stop = rc_u64_load(&member->end);
        /* past its end its place in the ring is not kept any more */
        stop = cursor >= stop
                   ? cursor
                   : rc_ring_published(ring, cursor, stop - cursor < SOME ? stop - cursor : SOME);
        for (count = 0; cursor < stop; cursor++) {
            event *got = rc_slot_event(rc_ring_slot(ring, cursor));
            event_keep(got);
            got = rc_mail_put(member->mail, got, member->policy == RC_DROP_OLDEST);
            if (got != NULL) dropped[count++] = got;
        }
        rc_u64_store_seq(&member->cursor, cursor);
        rc_u64_count(&member->lost, count);
        rc_mutex_unlock(&member->mail->mutex);
        for (uint32_t at = 0; at < count; at++) event_drop(dropped[at]);
    } while (cursor - begin == SOME);
}

/* Counts as taken before it leaves the mailbox: see rc_member_is_over. */
static inline event *take_mail(rc_member *member)
{
    uint64_t missed;
    event *got;
    absorb(member);
    rc_mutex_lock(&member->mail->mutex);
    if (rc_mail_size(member->mail) != 0) rc_u64_count(&member->handed_out, 1);
    got = rc_mail_take(member->mail, &missed);
    rc_mutex_unlock(&member->mail->mutex);
    return got;
}

/* --- publish ---------------------------------------------------------------------------------- */

/* Makes room as far as it depends on nobody's handler. */
static inline void make_room(rc_topic *topic)
{
    rc_members *members = rc_topic_members(topic);
    for (uint32_t at = 0; at < members->count; at++)
        if (members->all[at]->mail != NULL) absorb(members->all[at]);
    rc_members_drop(topic, members);
    rc_topic_look(topic, RC_NEVER);
    rc_topic_make_room(topic);
}

/* Waits for room in a full topic, also inside a handler. Returns 0 where that would never end. */
static inline int await_room(rc_topic *topic, uint64_t gate)
{
    bus *all = bus_of(topic);
    rc_worker *worker = rc_pool_current(&all->pool);
    make_room(topic);
    if (rc_ring_gate(&topic->ring) != gate) return 1;
    if (worker != NULL) {
        rc_topic_make_room((rc_topic *)worker->ring);
        if (!rc_pool_may_wait(&all->pool, worker, &topic->ring)) return 0;
    }
    rc_u64_count(&all->waits, 1);
    /* for ever also inside a handler: it is asked anew whenever the gate has moved */
    rc_ring_await_gate(&topic->ring, gate, RC_FOREVER);
    if (worker != NULL) rc_pool_waited(&all->pool, worker);
    return 1;
}

/* Publishes, by any thread, worker or not. Returns why it is not published, or RC_CLAIMED. */
static inline rc_claim publish(rc_topic *topic, event what)
{
    bus *all = bus_of(topic);
    uint64_t limit = topic->ring.max_queue;
    event *made = event_new(all, what);
    rc_slot *slot;
    for (;;) {
        uint64_t gate = rc_ring_gate(&topic->ring);
        rc_claim claim = rc_ring_claim(&topic->ring, limit, &slot);
        if (claim == RC_CLAIMED) break;
        if (claim != RC_FULL) {
            if (claim == RC_NO_MEMORY) rc_u64_count(&all->refused, 1);
            event_drop(made);
            return claim;
        }
        CHECK(limit == topic->ring.max_queue); /* the reserve is enough */
        if (await_room(topic, gate)) continue;
        rc_u64_count(&all->reserve_used, 1);
        limit += topic->ring.reserve;
    }
    rc_ring_publish(slot, made);
    rc_bus_wake(topic);
    return RC_CLAIMED;
}

/* --- handlers --------------------------------------------------------------------------------- */

static inline void handle(subscription *sub, const event *got)
{
    bus *all = bus_of(sub->member.topic);
    /* never by two at once */
    CHECK_EQUAL(atomic_exchange_explicit(&sub->busy, 1, memory_order_relaxed), 0);
    /* the bus cannot go */
    CHECK(rc_u32_load(&all->pins) != 0);
    CHECK_EQUAL(rc_u32_load(&sub->member.retired), 0);
    CHECK_EQUAL(got->magic, MAGIC);
    /* none twice, none overtaken; and none missing where none may be dropped */
    if (sub->had.seen[got->from] && !sub->any_order) {
        if (sub->in_order)
            CHECK_EQUAL(got->number, sub->had.next[got->from]);
        else
            CHECK(got->number >= sub->had.next[got->from]);
    }
    sub->had.seen[got->from] = 1;
    sub->had.next[got->from] = got->number + 1;
    sub->had.handled++;
    if (sub->called != NULL) sub->called(sub);
    if (sub->is_slow && all->slow_every != 0 && sub->had.handled % all->slow_every == 0)
        sleep_for(all->slow_for);
    if (sub->hands_on && got->hops > 0) {
        uint32_t next = 0;
        while (all->topics[next] != sub->member.topic) next++;
        next = (next + 1) % all->count;
        CHECK(
            publish(all->topics[next], (event){0, got->from, got->number, got->hops - 1, 0}) ==
            RC_CLAIMED
        );
    }
    atomic_store_explicit(&sub->busy, 0, memory_order_relaxed);
}

static inline int deliver_events(rc_worker *worker, rc_member *member, rc_span *span)
{
    do {
        handle(
            (subscription *)member, rc_slot_event(rc_ring_slot(&member->topic->ring, span->next))
        );
        span->calls++;
        rc_u64_store(&member->cursor, ++span->next);
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

static inline int deliver_mail(rc_worker *worker, rc_member *member, rc_span *span)
{
    do {
        event *got = take_mail(member);
        if (got == NULL) {
            span->end = span->next;
            break;
        }
        handle((subscription *)member, got);
        rc_u64_count(&member->calls, 1);
        event_drop(got);
        span->calls++;
        span->next++;
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

/* --- subscribe and cancel --------------------------------------------------------------------- */

/* A subscription that the caller holds, and that has not joined yet. */
static inline subscription *subscription_new(rc_topic *topic)
{
    subscription *sub = aligned_alloc(RC_CACHE_LINE, sizeof *sub);
    CHECK(sub != NULL);
    memset(sub, 0, sizeof *sub);
    rc_member_init(&sub->member, topic);
    sub->member.max_queue = topic->ring.max_queue;
    rc_member_keep(&sub->member);
    return sub;
}

/* Returns 0 without memory: then it is not made. */
static inline int join(subscription *sub)
{
    if (rc_topic_join(sub->member.topic, &sub->member) != 0) return 0;
    rc_u64_count(&bus_of(sub->member.topic)->subscribed, 1);
    return 1;
}

static inline rc_pool *pool_of(const rc_member *member)
{
    return member->mode == RC_NATIVE ? member->topic->native_pool : member->topic->pool;
}

static inline void start_own_worker(rc_pool *pool, rc_worker *own);

/* Gives a subscription that has not joined yet a worker of its own, which is started. Returns 0
 * without memory. */
static inline int give_own_worker(subscription *sub)
{
    rc_pool *pool = pool_of(&sub->member);
    rc_worker *own = rc_pool_own(pool);
    if (own == NULL) return 0;
    start_own_worker(pool, own);
    rc_pool_bind(pool, own, &sub->member.lane);
    sub->own = own;
    return 1;
}

static inline void end_own_worker(subscription *sub)
{
    if (sub->own != NULL) rc_pool_disown(pool_of(&sub->member), sub->own);
}

/* Returns a subscription that the caller holds (let_go), or NULL without memory. `most`: of a
 * mailbox; 0: it has none. `is_own`: it has a worker of its own. */
static inline subscription *
subscribe_as(rc_topic *topic, rc_policy policy, uint64_t most, int is_own)
{
    subscription *sub = subscription_new(topic);
    sub->in_order = policy == RC_BLOCK;
    sub->is_slow = 1;
    sub->member.policy = policy;
    sub->member.deliver = most == 0 ? deliver_events : deliver_mail;
    if (most != 0 && rc_mail_init(&sub->in_place, most) != 0) {
        free(sub);
        return NULL;
    }
    if (most != 0) sub->member.mail = &sub->in_place;
    if ((!is_own || give_own_worker(sub)) && join(sub)) return sub;
    end_own_worker(sub);
    if (most != 0) rc_mail_destroy(&sub->in_place);
    free(sub);
    return NULL;
}

static inline subscription *subscribe(rc_topic *topic, rc_policy policy, uint64_t most)
{
    return subscribe_as(topic, policy, most, 0);
}

static inline void let_go(subscription *sub)
{
    rc_member_drop(sub->member.topic->pool->calls, &sub->member);
}

/* --- the consumer of a loop: one thread, as src/ringcast/core/consumer.pxi -------------------- */

/* Gives the token back, if it is out. Any thread. */
static inline void return_token(subscription *sub)
{
    rc_pool *pool = sub->member.topic->pool;
    if (!rc_task_give_back(&sub->member.lane)) return;
    rc_pool_unhold(pool);
    rc_member_drop(pool->calls, &sub->member); /* the token's hold */
}

/* The consumer has seen all there is: from now on it is to be told when there is more. */
static inline void consumer_idle(subscription *sub)
{
    rc_member *member = &sub->member;
    if (rc_member_is_over(member)) rc_bus_retire(member);
    return_token(sub);
    if (rc_member_has_work(member, rc_ring_tail(&member->topic->ring)))
        rc_bus_schedule(member->topic, &member->lane);
}

static inline event *take_from_ring(rc_member *member)
{
    rc_ring *ring = &member->topic->ring;
    uint64_t cursor = rc_u64_load(&member->cursor), end, tail;
    event *got = NULL;
    rc_u32_store_seq(&member->running, 1); /* seq: before the look at its end */
    end = rc_u64_load_seq(&member->end);
    tail = rc_ring_tail(ring);
    if (cursor < (end < tail ? end : tail)) {
        rc_ring_await_event(ring, cursor);
        got = rc_slot_event(rc_ring_slot(ring, cursor));
        event_keep(got);
        rc_u64_count(&member->handed_out, 1);
        rc_u64_store_seq(&member->cursor, cursor + 1);
    }
    rc_u32_store_seq(&member->running, 0); /* seq: before consumer_idle */
    if (got != NULL) rc_topic_make_room(member->topic);
    return got;
}

/* The next event, which the consumer then has in hand; or NULL. */
static inline event *consumer_take(subscription *sub)
{
    rc_member *member = &sub->member;
    rc_pool *pool = member->topic->pool;
    event *got;
    int more;
    rc_pool_hold(pool);
    do {
        got = member->mail != NULL ? take_mail(member) : take_from_ring(member);
        more = rc_member_has_events(member, rc_ring_tail(&member->topic->ring));
    } while (got == NULL && more);
    if (!more) consumer_idle(sub);
    if (got == NULL) rc_pool_unhold(pool);
    return got;
}

static inline void consumer_handle(subscription *sub, event *got)
{
    rc_member *member = &sub->member;
    rc_pool *pool = member->topic->pool;
    handle(sub, got);
    event_drop(got);
    rc_mutex_lock(&member->topic->lock); /* with rc_bus_set_end: one of both finds it over */
    rc_u64_count(&member->handled, 1);
    rc_u64_count(&member->calls, 1);
    rc_mutex_unlock(&member->topic->lock);
    if (rc_u64_load(&member->end) != RC_NEVER && rc_member_is_over(member)) rc_bus_retire(member);
    rc_pool_unhold(pool);
}

/* Takes and handles all that there is. Returns how many events there were. */
static inline uint64_t consume_all(subscription *sub)
{
    uint64_t count = 0;
    for (event *got = consumer_take(sub); got != NULL; got = consumer_take(sub), count++)
        consumer_handle(sub, got);
    return count;
}

/* A subscription whose events a consumer takes, when it is told. `most`: as of subscribe. */
static inline subscription *subscribe_loop(rc_topic *topic, uint64_t most)
{
    subscription *sub = subscription_new(topic);
    sub->in_order = most == 0;
    sub->member.mode = RC_LOOP;
    sub->member.policy = most == 0 ? RC_BLOCK : RC_DROP_OLDEST;
    CHECK(rc_park_init(&sub->bell) == 0);
    if (most != 0) {
        CHECK(rc_mail_init(&sub->in_place, most) == 0);
        sub->member.mail = &sub->in_place;
    }
    /* as if it had been told: nobody tells it before it has come for the first time */
    rc_task_release(&sub->member.lane, RC_IDLE);
    rc_member_keep(&sub->member);
    CHECK(rc_pool_acquire(topic->pool, &sub->member.lane));
    CHECK(join(sub));
    consumer_idle(sub);
    return sub;
}

/* --- the end of a subscription ---------------------------------------------------------------- */

static inline void cancel(subscription *sub, int discard)
{
    rc_member *member = &sub->member;
    event *got;
    int nothing_waits;
    if (member->mail != NULL) {
        absorb(member);
        rc_mutex_lock(&member->mail->mutex); /* the cursor stands still */
    }
    nothing_waits = rc_bus_set_end(member, discard);
    if (member->mail != NULL) {
        rc_mutex_unlock(&member->mail->mutex);
        while (discard && (got = take_mail(member)) != NULL) {
            rc_u64_count(&member->lost, 1);
            rc_u64_count(&member->handed_out, (uint64_t)-1); /* not by a handler */
            event_drop(got);
        }
    }
    if (member->mode == RC_LOOP && (discard || nothing_waits)) {
        consumer_idle(sub); /* nothing is left for its consumer, which may never come */
        rc_park_wake_all(&sub->bell);
    } else
        rc_bus_after_end(member, discard);
}

static inline void await_retired(subscription *sub)
{
    rc_park *progress = sub->member.topic->pool->progress;
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
static inline void check_account(const subscription *sub)
{
    const rc_member *member = &sub->member;
    uint64_t end = rc_u64_load(&member->end), cursor = rc_u64_load(&member->cursor);
    uint64_t cancelled_at = rc_u64_load(&member->cancelled_at);
    /* its handler may have gone further */
    uint64_t discarded = cancelled_at - (cursor > end ? cursor : end);
    CHECK(rc_u32_load(&member->retired));
    CHECK_EQUAL(
        sub->had.handled + rc_u64_load(&member->lost) + discarded,
        cancelled_at - rc_u64_load(&member->start)
    );
}

/* --- what the C side asks for ----------------------------------------------------------------- */

/* No call but `pin` comes under a lock: it may take any, or wait for who has one. */
static inline void check_no_lock(void) { CHECK_EQUAL(rc_mutexes_held, 0); }

static inline void pin_bus(rc_pool *pool)
{
    bus *all = pool->bus;
    atomic_fetch_add(&all->pins, 1); /* more than one, while that of before is on its way back */
}

static inline void unpin_bus(rc_pool *pool)
{
    bus *all = pool->bus;
    check_no_lock();
    CHECK(atomic_fetch_sub(&all->pins, 1) >= 1);
}

static inline void unpin_natives(rc_pool *pool)
{
    (void)pool;
    check_no_lock();
}

static inline void pause_turn(void)
{
    check_no_lock();
    rc_u64_count(&shared.pauses, 1);
}

static inline void drop_events(void **events, size_t count)
{
    check_no_lock();
    for (size_t at = 0; at < count; at++) event_drop(events[at]);
}

static inline void on_retired(rc_member *member)
{
    check_no_lock();
    CHECK(rc_u32_load(&member->retired));
    if (member->mode == RC_LOOP) return_token((subscription *)member);
}

/* Tells the consumer once for as long as it has not come and taken all. */
static inline void wake_consumer(rc_member *member)
{
    subscription *sub = (subscription *)member;
    rc_pool *pool = member->topic->pool;
    check_no_lock();
    rc_member_keep(member); /* the token's hold */
    if (!rc_pool_acquire(pool, &member->lane)) {
        rc_member_drop(pool->calls, member);
    } else if (rc_u32_load_seq(&member->retired)) { /* seq: with rc_bus_retire: one gives it back */
        return_token(sub);
    } else {
        atomic_fetch_add(&sub->told, 1);
        rc_park_wake_all(&sub->bell);
    }
}

static inline void start_watch(bus *all, rc_pool *pool);

static inline void start_threads(rc_topic *topic, rc_pool *pool)
{
    bus *all = pool->bus;
    check_no_lock();
    rc_u64_count(&all->starts, 1);
    rc_mutex_lock(&all->starting);
    if (!rc_u32_load(&pool->started)) start_watch(all, pool);
    rc_mutex_unlock(&all->starting);
    rc_mutex_lock(&topic->lock);
    rc_topic_set_quick_reply(topic);
    rc_mutex_unlock(&topic->lock);
}

static inline void room_moved(rc_topic *topic)
{
    check_no_lock();
    rc_u64_count(&bus_of(topic)->moves, 1);
}

static inline void on_left(rc_member *member)
{
    subscription *sub = (subscription *)member;
    bus *all = bus_of(member->topic);
    check_no_lock();
    CHECK_EQUAL(rc_u32_load(&sub->busy), 0);
    if (member->native == NULL && !sub->deserted) check_account(sub);
    if (member->mail != NULL) rc_mail_destroy(member->mail);
    if (member->mode == RC_LOOP) rc_park_destroy(&sub->bell);
    if (sub->keeps != NULL) *sub->keeps = sub->had;
    end_own_worker(sub);
    memset(sub, 0xdd, sizeof *sub);
    free(sub);
    rc_u64_count(&all->left, 1);
}

static const rc_host calls = {
    .pin = pin_bus,
    .unpin = unpin_bus,
    .start = start_threads,
    .pause = pause_turn,
    .drop = drop_events,
    .wake = wake_consumer,
    .moved = room_moved,
    .retired = on_retired,
    .left = on_left
};
static const rc_host native_calls = {
    .unpin = unpin_natives, .start = start_threads, .retired = on_retired, .left = on_left
};

/* --- native members --------------------------------------------------------------------------- */

typedef struct counted {
    uint64_t records, next;
    uint64_t slow_every; /* 0: never. Then it gets a lane */
} counted;

static inline void count_in_order(const void *records, size_t count, size_t stride, void *userdata)
{
    counted *so_far = userdata;
    for (size_t at = 0; at < count; at++) {
        uint64_t number;
        memcpy(&number, (const char *)records + at * stride, sizeof number);
        if (so_far->records != 0) CHECK_EQUAL(number, so_far->next);
        so_far->next = number + 1;
        so_far->records++;
        if (so_far->slow_every != 0 && so_far->records % so_far->slow_every == 0) {
            int64_t until = nanoseconds_now() + 3 * MILLISECOND;
            while (nanoseconds_now() < until) rc_cpu_relax();
        }
    }
}

static inline subscription *subscribe_natively_as(rc_topic *topic, counted *so_far, int is_own)
{
    subscription *sub = subscription_new(topic);
    sub->member.mode = RC_NATIVE;
    sub->member.deliver = rc_deliver_native;
    sub->member.native = count_in_order;
    sub->member.userdata = so_far;
    if (is_own) CHECK(give_own_worker(sub));
    CHECK(join(sub));
    return sub;
}

static inline subscription *subscribe_natively(rc_topic *topic, counted *so_far)
{
    return subscribe_natively_as(topic, so_far, 0);
}

/* Stores a record; the caller has to wake the topic. Waits for room. */
static inline void store_record(rc_topic *topic, uint64_t number)
{
    rc_run run;
    for (;;) {
        uint64_t gate = rc_ring_gate(&topic->ring);
        rc_claim claim = rc_ring_claim_run(&topic->ring, topic->ring.max_queue, 1, &run);
        if (claim == RC_CLAIMED) break;
        CHECK(claim == RC_FULL);
        rc_ring_await_gate(&topic->ring, gate, RC_FOREVER);
    }
    rc_record_write(&run, &number, sizeof number);
    rc_record_publish(&run);
}

static inline void publish_record(rc_topic *topic, uint64_t number)
{
    store_record(topic, number);
    CHECK_EQUAL(rc_bus_wake_detached(topic), 0);
}

/* --- threads ---------------------------------------------------------------------------------- */

static inline void run_tasks(rc_pool *pool, rc_worker *worker)
{
    while (worker != NULL) {
        rc_task *task = rc_pool_take_now(pool, worker);
        if (task == NULL) task = rc_pool_take(pool, worker);
        if (task == NULL) break;
        rc_pool_pin(pool);
        rc_bus_run(pool, worker, task);
    }
}

static inline void *work(void *argument)
{
    rc_pool *pool = argument;
    run_tasks(pool, rc_pool_join(pool, NULL));
    return NULL;
}

static inline void *run_staff(void *argument)
{
    staff *me = argument;
    me->run(me->argument);
    rc_u32_store(&me->is_done, 1);
    return NULL;
}

static inline void start_thread(bus *all, void *(*run)(void *), void *argument)
{
    uint32_t at = 0;
    rc_mutex_lock(&all->starting);
    while (at < all->staffed && !rc_u32_load(&all->staff[at].is_done)) at++;
    CHECK(at < sizeof all->staff / sizeof all->staff[0]);
    if (at < all->staffed)
        thread_join(all->staff[at].thread);
    else
        all->staffed++;
    all->staff[at] = (staff){.run = run, .argument = argument};
    all->staff[at].thread = thread_start(run_staff, &all->staff[at]);
    rc_mutex_unlock(&all->starting);
}

/* What the thread of an own worker is told, and frees. */
typedef struct post {
    rc_pool *pool;
    rc_worker *own;
} post;

static inline void *work_alone(void *argument)
{
    post its = *(post *)argument;
    free(argument);
    run_tasks(its.pool, rc_pool_join(its.pool, its.own));
    return NULL;
}

/* Where the test plays the workers, it is this thread. */
static inline void start_own_worker(rc_pool *pool, rc_worker *own)
{
    bus *all = pool->bus;
    post *its;
    CHECK(rc_pool_hire(pool, own));
    if (all->stepped) {
        CHECK(rc_pool_join(pool, own) == own);
        return;
    }
    its = malloc(sizeof *its);
    CHECK(its != NULL);
    *its = (post){pool, own};
    start_thread(all, work_alone, its);
}

static inline void *watch_workers(void *argument)
{
    rc_pool *pool = argument;
    bus *all = pool->bus;
    int found = 0;
    while (!(found & RC_WATCH_STOP)) {
        found = rc_pool_watch(pool);
        if (found & RC_WATCH_STUCK) {
            rc_pool_split_stuck(pool);
            rc_u64_count(&all->splits, 1);
        }
        while (rc_pool_wants_worker(pool)) {
            rc_pool_hire(pool, NULL);
            start_thread(all, work, pool);
        }
    }
    return NULL;
}

static inline void start_watch(bus *all, rc_pool *pool)
{
    if (!all->stepped) all->watches[all->watched++] = thread_start(watch_workers, pool);
    rc_u32_store(&pool->started, 1);
}

/* --- open and close --------------------------------------------------------------------------- */

typedef struct shape {
    uint32_t topics;
    uint64_t max_queue, first;
    uint32_t max_workers, parallel, spare;
    size_t record_size;
    int stepped;     /* without threads */
    int starts_late; /* when there is something for them */
} shape;

static inline void
open_pool(bus *all, rc_pool *pool, const rc_host *table, rc_pool *beside, shape how)
{
    CHECK(
        rc_pool_init(
            pool, table, beside, how.max_workers, how.spare, how.parallel, MILLISECOND / 5,
            MILLISECOND
        ) == 0
    );
    pool->bus = all;
}

static inline bus *bus_open(shape how)
{
    bus *all = &shared;
    memset(all, 0, sizeof *all);
    all->stepped = how.stepped;
    CHECK(rc_registry_init(&all->registry) == 0);
    CHECK(rc_mutex_init(&all->starting) == 0);
    open_pool(all, &all->pool, &calls, NULL, how);
    open_pool(all, &all->native_pool, &native_calls, &all->pool, how);
    all->count = how.topics;
    for (uint32_t number = 0; number < all->count; number++) {
        rc_topic *topic = rc_aligned_zalloc(sizeof *topic);
        CHECK(topic != NULL);
        CHECK(
            rc_topic_init(
                topic, &all->pool, &all->native_pool, how.max_queue, RESERVE, how.first,
                how.record_size
            ) == 0
        );
        topic->bus = all;
        all->topics[number] = topic;
        CHECK_EQUAL(rc_registry_put(&all->registry, TOPIC_KEY + number, topic), 0);
    }
    if (!how.starts_late) {
        start_watch(all, &all->pool);
        start_watch(all, &all->native_pool);
    }
    return all;
}

/* Refuses events from now on, and lets the workers end when all is delivered. Publishers may still
 * be at it. */
static inline void bus_begin_close(bus *all)
{
    for (uint32_t number = 0; number < all->count; number++)
        rc_registry_remove(&all->registry, TOPIC_KEY + number);
    for (uint32_t number = 0; number < all->count; number++) {
        rc_members *members;
        rc_ring_close(&all->topics[number]->ring);
        rc_bus_settle(all->topics[number]);
        members = rc_topic_members(all->topics[number]);
        for (uint32_t at = 0; at < members->count; at++)
            cancel((subscription *)members->all[at], 0);
        rc_members_drop(all->topics[number], members);
    }
    rc_pool_stop(&all->pool);
    rc_pool_stop(&all->native_pool);
}

static inline void await_deliveries(bus *all)
{
    for (;;) {
        uint32_t ticket = rc_park_prepare(all->pool.progress);
        if (rc_pool_outstanding(&all->pool) + rc_pool_outstanding(&all->native_pool) == 0) {
            rc_park_cancel(all->pool.progress);
            return;
        }
        rc_park_wait(all->pool.progress, ticket, RC_FOREVER);
    }
}

static inline void check_quiet(const rc_pool *pool)
{
    CHECK_EQUAL(rc_u32_load(&pool->outstanding), 0);
    CHECK_EQUAL(pool->alive + pool->idle + pool->on_topics + pool->on_lanes + pool->waiting, 0);
    CHECK_EQUAL(pool->own + pool->on_own, 0);
    CHECK_EQUAL(rc_u32_load(&pool->topics_queued), 0);
}

/* Nothing is scheduled, nobody publishes: then nothing is left anywhere. */
static inline void check_nothing_stays_behind(bus *all)
{
    CHECK_EQUAL(rc_pool_outstanding(&all->pool), 0);
    for (uint32_t number = 0; number < all->count; number++) {
        rc_topic *topic = all->topics[number];
        uint64_t tail = rc_ring_tail(&topic->ring);
        CHECK_EQUAL(rc_u64_load(&topic->found_end), tail);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), tail);
        CHECK_EQUAL(rc_task_now(&topic->task), RC_IDLE);
        CHECK_EQUAL(rc_u32_load(&topic->ring.room.waiters), 0);
        for (uint32_t at = 0; at < topic->members->count; at++) {
            CHECK_EQUAL(rc_u64_load(&topic->members->all[at]->cursor), tail);
            CHECK(rc_task_now(&topic->members->all[at]->lane) != RC_SCHEDULED);
        }
    }
}

/* After bus_begin_close, with all publishers gone: everything was delivered and accounted for, and
 * freed once. */
static inline void bus_end_close(bus *all)
{
    await_deliveries(all);
    for (uint32_t at = 0; at < all->watched; at++) thread_join(all->watches[at]);
    for (uint32_t at = 0; at < all->staffed; at++) thread_join(all->staff[at].thread);
    check_nothing_stays_behind(all);
    for (uint32_t number = 0; number < all->count; number++) {
        CHECK_EQUAL(all->topics[number]->members->count, 0);
        CHECK_EQUAL(rc_u32_load(&all->topics[number]->holds), 1); /* no token holds it */
        rc_topic_drop(all->topics[number]);
    }
    check_quiet(&all->pool);
    check_quiet(&all->native_pool);
    CHECK_EQUAL(rc_u32_load(&all->pins), 0);
    rc_pool_destroy(&all->native_pool);
    rc_pool_destroy(&all->pool);
    rc_registry_destroy(&all->registry);
    rc_mutex_destroy(&all->starting);
    CHECK_EQUAL(rc_u64_load(&all->made), rc_u64_load(&all->freed));
    CHECK_EQUAL(rc_u64_load(&all->subscribed), rc_u64_load(&all->left));
}

#endif
