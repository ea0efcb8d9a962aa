/* The bus (rc_bus.h), step by step: this thread plays the publishers, the workers, the watch and
 * the consumers, so it is decided who does what before what. Where two are at work at once, one of
 * them is called by a handler of the other. For what threads do to each other: test_bus.c. */
/* build: -DRC_FAIL_ALLOC -DRC_COUNT_LOCKS */
#define _GNU_SOURCE
#include "bus.h"

enum { MANY = 20, QUEUE = 100 };

/* --- one thread plays all --------------------------------------------------------------------- */

static rc_worker *hire(rc_pool *pool)
{
    rc_pool_hire(pool, NULL);
    return rc_pool_join(pool, NULL);
}

/* Of each pool one; a test hires more. */
static rc_worker *worker, *native_worker;

static void set_up(shape how)
{
    how.stepped = 1;
    if (how.topics == 0) how.topics = 1;
    if (how.max_queue == 0) how.max_queue = QUEUE;
    if (how.max_workers == 0) how.max_workers = how.parallel = 2;
    bus_open(how);
    native_worker = hire(&shared.native_pool);
    worker = hire(&shared.pool);
}

/* The one whose handlers are called. */
static rc_worker *at_work;

/* The worker runs one task, if there is one. */
static int step(rc_pool *pool, rc_worker *by)
{
    rc_worker *before = at_work;
    rc_task *task = rc_pool_take_now(pool, by);
    if (task == NULL) return 0;
    rc_pool_pin(pool);
    at_work = by;
    rc_bus_run(pool, by, task);
    at_work = before;
    return 1;
}

/* One of the own workers runs its lane, if there is one to be run. */
static int step_own(rc_pool *pool)
{
    for (rc_worker *each = pool->all; each != NULL; each = each->next)
        if (each->is_own && each->alive && step(pool, each)) return 1;
    return 0;
}

static int run_all(void)
{
    int steps = 0;
    while (step(&shared.pool, worker) || step(&shared.native_pool, native_worker) ||
           step_own(&shared.pool) || step_own(&shared.native_pool))
        steps++;
    return steps;
}

static void end_own_workers(rc_pool *pool)
{
    for (rc_worker *each = pool->all; each != NULL; each = each->next)
        if (each->is_own && each->alive) CHECK(rc_pool_take(pool, each) == NULL);
}

static void tear_down(void)
{
    bus_begin_close(&shared);
    run_all();
    end_own_workers(&shared.pool);
    end_own_workers(&shared.native_pool);
    CHECK(rc_pool_take(&shared.pool, worker) == NULL);
    CHECK(rc_pool_take(&shared.native_pool, native_worker) == NULL);
    bus_end_close(&shared);
}

static void publish_some(rc_topic *topic, uint32_t count)
{
    uint32_t number = (uint32_t)(rc_ring_tail(&topic->ring) - topic->first);
    for (; count > 0; count--, number++)
        CHECK(publish(topic, (event){.number = number}) == RC_CLAIMED);
}

/* A subscription that goes with the last token or snapshot. */
static subscription *keep_by_topic(subscription *sub)
{
    let_go(sub);
    return sub;
}

static subscription *subscribe_with(rc_topic *topic, void (*called)(subscription *))
{
    subscription *sub = subscribe(topic, RC_BLOCK, 0);
    sub->called = called;
    return keep_by_topic(sub);
}

/* --- threads that start late ------------------------------------------------------------------ */

static void the_first_event_starts_the_threads(void)
{
    subscription *sub;
    set_up((shape){.starts_late = 1});
    sub = subscribe_with(shared.topics[0], NULL);
    CHECK_EQUAL(rc_u32_load(&shared.topics[0]->quick_reply), 0); /* publish has more to do */
    CHECK_EQUAL(rc_u64_load(&shared.starts), 0);
    publish_some(shared.topics[0], 1);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    CHECK_EQUAL(rc_u32_load(&shared.topics[0]->quick_reply), 1);
    CHECK_EQUAL(rc_pool_outstanding(&shared.pool), 1);
    publish_some(shared.topics[0], 1);
    CHECK_EQUAL(run_all(), 1);
    CHECK_EQUAL(sub->had.handled, 2);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    tear_down();
}

static void without_events_no_thread_starts(void)
{
    set_up((shape){.starts_late = 1});
    cancel(subscribe_with(shared.topics[0], NULL), 0);
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    tear_down();
    CHECK_EQUAL(rc_u64_load(&shared.starts), 0);
}

/* A publisher that is not attached cannot start what it takes the host's objects to start. */
static void a_detached_publisher_starts_native_threads_only(void)
{
    counted so_far = {0, 0, 0};
    subscription *native, *sub;
    rc_topic *topic;
    set_up((shape){.starts_late = 1, .record_size = sizeof(uint64_t)});
    topic = shared.topics[0];
    native = subscribe_natively(topic, &so_far);
    publish_record(topic, 0);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    CHECK(rc_u32_load(&shared.native_pool.started) && !rc_u32_load(&shared.pool.started));
    sub = subscribe_with(topic, NULL);
    cancel(sub, 1); /* it is run by nobody here: records are none of its handler's */
    sub = subscription_new(topic);
    CHECK(join(sub));
    store_record(topic, 1);
    CHECK_EQUAL(rc_bus_wake_detached(topic), 1);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    CHECK_EQUAL(rc_pool_outstanding(&shared.pool), 0);
    rc_bus_wake(topic); /* an attached one does it */
    CHECK_EQUAL(rc_u64_load(&shared.starts), 2);
    CHECK_EQUAL(rc_pool_outstanding(&shared.pool), 1);
    cancel(sub, 1);
    let_go(sub);
    let_go(native);
    tear_down();
    CHECK_EQUAL(so_far.records, 2);
}

/* --- loops ------------------------------------------------------------------------------------ */

/* Once for as long as it has not taken all; no worker is needed for that, and none is started. */
static void a_loop_is_told_once(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.starts_late = 1});
    topic = shared.topics[0];
    sub = subscribe_loop(topic, 0);
    CHECK_EQUAL(rc_u32_load(&topic->quick_reply), 1);
    publish_some(topic, 3);
    CHECK_EQUAL(rc_u32_load(&sub->told), 1);
    CHECK_EQUAL(rc_task_now(&topic->task), RC_IDLE);
    CHECK_EQUAL(rc_pool_outstanding(&shared.pool), 1); /* the token of its lane */
    CHECK_EQUAL(consume_all(sub), 3);
    CHECK_EQUAL(rc_ring_gate(&topic->ring), 3);
    check_nothing_stays_behind(&shared);
    CHECK_EQUAL(consume_all(sub), 0); /* it may come for nothing */
    publish_some(topic, 1);
    CHECK_EQUAL(rc_u32_load(&sub->told), 2);
    CHECK_EQUAL(consume_all(sub), 1);
    let_go(sub);
    tear_down();
    CHECK_EQUAL(rc_u64_load(&shared.starts), 0);
}

/* A topic with both is run by a worker, which tells the loop. */
static void a_worker_tells_a_loop(void)
{
    for (int starts_late = 0; starts_late < 2; starts_late++) {
        subscription *loop, *sub;
        rc_topic *topic;
        set_up((shape){.starts_late = starts_late});
        topic = shared.topics[0];
        loop = subscribe_loop(topic, 0);
        sub = subscribe_with(topic, NULL);
        publish_some(topic, 2);
        /* who starts the workers looks who else is concerned */
        CHECK_EQUAL(rc_u32_load(&loop->told), starts_late);
        run_all();
        CHECK_EQUAL(rc_u32_load(&loop->told), 1);
        CHECK_EQUAL(sub->had.handled, 2);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), 0); /* the loop has had nothing yet */
        CHECK_EQUAL(consume_all(loop), 2);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), 2);
        let_go(loop);
        tear_down();
    }
}

static void a_loop_is_told_of_records_by_an_attached_thread(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.record_size = sizeof(uint64_t)});
    topic = shared.topics[0];
    CHECK_EQUAL(rc_bus_wake_detached(topic), 0); /* there is nobody */
    sub = subscribe_loop(topic, 0);
    store_record(topic, 0);
    CHECK_EQUAL(rc_bus_wake_detached(topic), 1);
    CHECK_EQUAL(rc_u32_load(&sub->told), 0);
    rc_bus_wake(topic);
    CHECK_EQUAL(rc_u32_load(&sub->told), 1);
    store_record(topic, 1);
    CHECK_EQUAL(rc_bus_wake_detached(topic), 0); /* it is told */
    cancel(sub, 1);
    let_go(sub);
    tear_down();
}

enum when { BEFORE_IT_CAME, WITH_ONE_IN_HAND, AFTER_ALL };

/* Cancels a loop's subscription that was to have 3 events. */
static void cancel_a_loop(uint64_t mailbox, enum when when, int discard)
{
    uint64_t taken = when == BEFORE_IT_CAME ? 0 : when == WITH_ONE_IN_HAND ? 1 : 3;
    event *in_hand = NULL;
    subscription *sub;
    tally kept = {0};
    set_up((shape){.topics = 1});
    sub = subscribe_loop(shared.topics[0], mailbox);
    sub->keeps = &kept;
    publish_some(shared.topics[0], 3);
    run_all();
    if (when == WITH_ONE_IN_HAND) in_hand = consumer_take(sub);
    if (when == AFTER_ALL) CHECK_EQUAL(consume_all(sub), 3);
    cancel(sub, discard);
    publish_some(shared.topics[0], 1); /* not for it */
    /* it is over when nothing is left for it, also where its consumer does not come */
    CHECK_EQUAL(rc_u32_load(&sub->member.retired), in_hand == NULL && (discard || taken == 3));
    cancel(sub, 0); /* changes nothing */
    if (in_hand != NULL) consumer_handle(sub, in_hand);
    CHECK_EQUAL(rc_u32_load(&sub->member.retired), discard || taken == 3);
    CHECK_EQUAL(consume_all(sub), discard ? 0 : 3 - taken);
    CHECK(rc_u32_load(&sub->member.retired));
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE); /* the token was given back */
    rc_bus_schedule(shared.topics[0], &sub->member.lane); /* who is late finds it retired */
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
    CHECK_EQUAL(rc_u64_load(&shared.left), 0);
    let_go(sub);
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    CHECK_EQUAL(kept.handled, discard ? taken : 3);
    tear_down();
}

static void a_loop_has_what_was_there_at_a_cancel(void)
{
    for (uint64_t mailbox = 0; mailbox <= 5; mailbox += 5)
        for (enum when when = BEFORE_IT_CAME; when <= AFTER_ALL; when++)
            cancel_a_loop(mailbox, when, 0);
}

static void a_loop_has_nothing_after_a_cancel_that_discards(void)
{
    for (uint64_t mailbox = 0; mailbox <= 5; mailbox += 5)
        for (enum when when = BEFORE_IT_CAME; when <= AFTER_ALL; when++)
            cancel_a_loop(mailbox, when, 1);
}

/* --- room ------------------------------------------------------------------------------------- */

static void who_waits_for_room_is_told(void)
{
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    subscribe_with(topic, NULL);
    publish_some(topic, 3);
    run_all();
    CHECK_EQUAL(rc_u64_load(&shared.moves), 0); /* nobody waits */
    rc_u32_store_seq(&topic->room_waiters, 1);
    rc_topic_make_room(topic);
    CHECK_EQUAL(rc_u64_load(&shared.moves), 0); /* there is no more room than before */
    publish_some(topic, 3);
    run_all();
    CHECK(rc_u64_load(&shared.moves) > 0);
    rc_u32_store_seq(&topic->room_waiters, 0);
    tear_down();
}

/* What waits for a member that has ended keeps the gate where it is, and nobody from publishing. */
static void a_member_that_has_ended_holds_up_no_publisher(void)
{
    for (int discard = 0; discard < 2; discard++) {
        subscription *ended, *quick;
        rc_topic *topic;
        uint64_t before;
        set_up((shape){.topics = 1});
        topic = shared.topics[0];
        ended = subscribe(topic, RC_BLOCK, 0);
        quick = subscribe(topic, RC_BLOCK, 0);
        publish_some(topic, QUEUE / 2);
        rc_u32_store(&ended->member.running, 1); /* its handler is in a call */
        CHECK_EQUAL(rc_topic_room(topic), QUEUE);
        rc_u32_store_seq(&topic->room_waiters, 1);
        before = rc_u64_load(&shared.moves);
        cancel(ended, discard);
        CHECK(rc_u64_load(&shared.moves) > before); /* whoever waits is told */
        CHECK_EQUAL(rc_topic_room(topic), QUEUE);   /* the other one is as far behind */
        rc_u64_store(&quick->member.cursor, QUEUE / 2);
        rc_topic_make_room(topic);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), 0);
        CHECK_EQUAL(rc_topic_room(topic), QUEUE / 2 + QUEUE);
        CHECK_EQUAL(
            rc_u32_load(&topic->limited), 1
        ); /* a cursor makes room while the gate stands */
        rc_u64_store(&quick->member.cursor, 0);
        rc_u32_store(&ended->member.running, 0);
        rc_u32_store_seq(&topic->room_waiters, 0);
        run_all();
        CHECK_EQUAL(rc_u32_load(&topic->limited), 0);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), QUEUE / 2);
        let_go(ended);
        let_go(quick);
        tear_down();
    }
}

/* A member with a max_queue of its own limits all; it is told of also where the gate stands. */
static void room_is_what_the_member_that_is_behind_most_leaves(void)
{
    subscription *narrow, *mailbox, *loop;
    rc_topic *topic;
    uint64_t before;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    CHECK_EQUAL(rc_topic_room(topic), QUEUE + RESERVE); /* nobody is behind */
    loop = subscribe_loop(topic, 0);                    /* which holds the gate back */
    CHECK_EQUAL(rc_topic_room(topic), QUEUE);
    narrow = subscription_new(topic);
    narrow->in_order = 1;
    narrow->member.deliver = deliver_events;
    narrow->member.max_queue = 4;
    CHECK(join(narrow));
    mailbox = subscribe(topic, RC_DROP_OLDEST, 2); /* its max_queue is no concern of publishers */
    CHECK_EQUAL(rc_u32_load(&topic->limited), 1);
    CHECK_EQUAL(rc_u64_load(&topic->limit), 4);
    CHECK_EQUAL(rc_topic_room(topic), 4);
    publish_some(topic, 3);
    CHECK_EQUAL(rc_topic_room(topic), 4);
    rc_u32_store_seq(&topic->room_waiters, 1);
    before = rc_u64_load(&shared.moves);
    run_all();
    CHECK_EQUAL(rc_ring_gate(&topic->ring), 0);
    CHECK_EQUAL(rc_topic_room(topic), 3 + 4);
    CHECK(rc_u64_load(&shared.moves) > before);
    publish_some(topic, 2);
    before = rc_u64_load(&shared.moves);
    cancel(narrow, 0); /* it needs no room for what is to come */
    CHECK(rc_u64_load(&shared.moves) > before);
    CHECK_EQUAL(rc_topic_room(topic), QUEUE);
    CHECK_EQUAL(rc_u64_load(&topic->limit), QUEUE);
    rc_u32_store_seq(&topic->room_waiters, 0);
    run_all();
    CHECK_EQUAL(rc_u32_load(&topic->limited), 0);
    CHECK_EQUAL(consume_all(loop), 5);
    let_go(narrow);
    let_go(mailbox);
    let_go(loop);
    tear_down();
}

/* Who waits in the ring for room that a member's own max_queue has limited is woken when that
 * leaves, though the gate stands. */
static void room_is_made_by_a_member_that_leaves(void)
{
    subscription *narrow, *loop;
    rc_topic *topic;
    uint32_t ticket;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    loop = subscribe_loop(topic, 0);
    narrow = subscription_new(topic);
    narrow->member.deliver = deliver_events;
    narrow->member.max_queue = 4;
    CHECK(join(narrow));
    publish_some(topic, 4);
    run_all();
    ticket = rc_park_prepare(&topic->ring.room);
    cancel(narrow, 0);
    CHECK(rc_u32_load(&narrow->member.retired));
    CHECK_EQUAL(rc_ring_gate(&topic->ring), 0);
    CHECK(rc_u32_load(&topic->ring.room.epoch) != ticket);
    rc_park_cancel(&topic->ring.room);
    CHECK_EQUAL(consume_all(loop), 4);
    let_go(narrow);
    let_go(loop);
    tear_down();
}

/* While a handler waits for room, it can be asked for which. */
static void wait_for_the_other_topic(subscription *sub)
{
    const rc_ring *other = &shared.topics[1]->ring;
    CHECK(rc_pool_waits_for(&shared.pool, &sub->member.lane) == NULL);
    CHECK(rc_pool_may_wait(&shared.pool, at_work, other));
    CHECK(rc_pool_waits_for(&shared.pool, &sub->member.lane) == other);
    rc_pool_waited(&shared.pool, at_work);
    CHECK(rc_pool_waits_for(&shared.pool, &sub->member.lane) == NULL);
}

static void it_is_known_which_room_a_handler_waits_for(void)
{
    for (int is_own = 0; is_own < 2; is_own++) {
        subscription *sub;
        set_up((shape){.topics = 2});
        sub = subscribe_as(shared.topics[0], RC_BLOCK, 0, is_own);
        sub->called = wait_for_the_other_topic;
        keep_by_topic(sub);
        publish_some(shared.topics[0], 1);
        run_all();
        CHECK_EQUAL(sub->had.handled, 1);
        tear_down();
    }
}

/* --- close ------------------------------------------------------------------------------------ */

static void *close_topic(void *argument)
{
    rc_topic *topic = argument;
    rc_ring_close(&topic->ring);
    rc_bus_settle(topic);
    return NULL;
}

/* It has looked, and goes on. */
static void await_a_look(rc_topic *topic)
{
    for (int spins = 0; rc_u64_load(&topic->found_end) == 0; spins++) wait_a_little(spins);
}

/* A close waits for publishers that have claimed; what they publish then is delivered. */
static void close_waits_for_what_is_claimed(void)
{
    rc_slot *slots[2], *none;
    pthread_t closing;
    subscription *sub;
    tally kept = {0};
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe_with(topic, NULL);
    sub->keeps = &kept;
    for (int at = 0; at < 2; at++)
        CHECK(rc_ring_claim(&topic->ring, QUEUE, &slots[at]) == RC_CLAIMED);
    closing = thread_start(close_topic, topic);
    rc_ring_publish(slots[0], event_new(&shared, (event){.number = 0}));
    await_a_look(topic);
    CHECK(rc_ring_claim(&topic->ring, QUEUE, &none) == RC_CLOSED);
    CHECK_EQUAL(rc_task_now(&topic->task), RC_IDLE);
    rc_ring_publish(slots[1], event_new(&shared, (event){.number = 1}));
    thread_join(closing);
    CHECK_EQUAL(rc_task_now(&topic->task), RC_SCHEDULED);
    tear_down();
    CHECK_EQUAL(kept.handled, 2);
}

static void close_waits_for_records_that_are_claimed(void)
{
    enum { RUN = 3 };
    static const uint64_t numbers[2 * RUN] = {0, 1, 2, 3, 4, 5};
    counted so_far = {0, 0, 0};
    pthread_t closing;
    rc_topic *topic;
    rc_run runs[2];
    set_up((shape){.record_size = sizeof numbers[0]});
    topic = shared.topics[0];
    keep_by_topic(subscribe_natively(topic, &so_far));
    for (int at = 0; at < 2; at++) {
        CHECK(rc_ring_claim_run(&topic->ring, QUEUE, RUN, &runs[at]) == RC_CLAIMED);
        rc_record_write(&runs[at], &numbers[at * RUN], sizeof numbers[0]);
    }
    closing = thread_start(close_topic, topic);
    rc_record_publish(&runs[0]);
    await_a_look(topic);
    rc_record_publish(&runs[1]);
    thread_join(closing);
    CHECK_EQUAL(rc_task_now(&topic->native_task), RC_SCHEDULED);
    tear_down();
    CHECK_EQUAL(so_far.records, 2 * RUN);
}

/* Who is late finds the workers gone: the tasks stay idle, and nothing is kept for them. */
static void heat_up(subscription *sub) { sub->member.heat = RC_HOTTEST; }

static void nothing_is_scheduled_when_the_workers_are_gone(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe_with(topic, heat_up);
    publish_some(topic, 2);
    run_all();
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
    rc_pool_stop(&shared.pool);
    CHECK(rc_pool_take(&shared.pool, worker) == NULL);
    rc_bus_schedule(topic, &topic->task);
    rc_bus_schedule(topic, &sub->member.lane);
    CHECK_EQUAL(rc_task_now(&topic->task), RC_IDLE);
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
    CHECK_EQUAL(rc_u32_load(&topic->holds), 1);
    CHECK_EQUAL(rc_u32_load(&sub->member.holds), 2); /* its own and that of the members */
    bus_begin_close(&shared);
    CHECK(rc_pool_take(&shared.native_pool, native_worker) == NULL);
    bus_end_close(&shared);
}

/* --- what is pending: published = handled + dropped + pending, at each instant ---------------- */

static uint64_t accounts_checked;

/* Of one that blocks or is on a loop. Its handler may be at work. */
static void check_pending(subscription *sub)
{
    rc_member *member = &sub->member;
    uint64_t tail = rc_ring_tail(&member->topic->ring), start = rc_u64_load(&member->start);
    /* `handle` counts before it calls this: what is under way is pending still */
    uint64_t done = sub->had.handled - rc_u32_load(&sub->busy);
    CHECK_EQUAL(tail - start, done + rc_u64_load(&member->lost) + rc_member_pending(member));
    CHECK_EQUAL(rc_topic_pending(member->topic), tail - rc_ring_gate(&member->topic->ring));
    accounts_checked++;
}

static void each_event_is_handled_dropped_or_pending(void)
{
    subscription *subs[4];
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    publish_some(topic, 2); /* for nobody */
    run_all();
    subs[0] = subscribe(topic, RC_BLOCK, 0);
    subs[1] = subscribe(topic, RC_DROP_OLDEST, 5);
    subs[2] = subscribe_loop(topic, 0);
    subs[3] = subscribe_loop(topic, 5);
    for (int each = 0; each < 4; each++) {
        subs[each]->called = check_pending;
        if (each % 2 == 1) subs[each]->in_order = 0;
    }
    for (uint32_t round = 0; round < MANY; round++) {
        event *in_hand[2];
        publish_some(topic, round % 9);
        for (int each = 0; each < 4; each++) check_pending(subs[each]);
        if (round % 2 == 1) make_room(topic); /* the mailboxes take, and drop, what there is */
        for (int each = 0; each < 4; each++) check_pending(subs[each]);
        if (round % 3 != 0) run_all();
        for (int each = 0; each < 4; each++) check_pending(subs[each]);
        for (int loop = 0; loop < 2; loop++) in_hand[loop] = consumer_take(subs[2 + loop]);
        for (int each = 0; each < 4; each++) check_pending(subs[each]);
        for (int loop = 0; loop < 2; loop++)
            if (in_hand[loop] != NULL) consumer_handle(subs[2 + loop], in_hand[loop]);
        if (round % 4 == 0) consume_all(subs[2]);
        for (int each = 0; each < 4; each++) check_pending(subs[each]);
    }
    CHECK(rc_u64_load(&subs[1]->member.lost) + rc_u64_load(&subs[3]->member.lost) > 0);
    for (int each = 0; each < 4; each++) cancel(subs[each], 0);
    run_all();
    for (int each = 0; each < 4; each++) {
        if (each >= 2) consume_all(subs[each]);
        CHECK_EQUAL(rc_member_pending(&subs[each]->member), 0);
        let_go(subs[each]);
    }
    CHECK(accounts_checked > MANY * 4);
    tear_down();
}

/* Of a direct handler only the calls that are under way are pending. */
static void what_a_direct_handler_is_at_is_pending(void)
{
    subscription *sub;
    set_up((shape){.topics = 1});
    publish_some(shared.topics[0], 3);
    sub = subscription_new(shared.topics[0]);
    sub->member.mode = RC_DIRECT;
    rc_u64_count(&sub->member.handed_out, 2);
    CHECK_EQUAL(rc_member_pending(&sub->member), 2);
    rc_u64_count(&sub->member.calls, 2);
    CHECK_EQUAL(rc_member_pending(&sub->member), 0);
    free(sub);
    run_all();
    tear_down();
}

/* --- how far a worker looks, and who calls for its attention ---------------------------------- */

static uint64_t largest_batch;

/* As a host that hands over lists of events. */
static int deliver_batches(rc_worker *by, rc_member *member, rc_span *span)
{
    do {
        uint64_t count = span->end - span->next;
        if (count > member->batch) count = member->batch;
        if (count > largest_batch) largest_batch = count;
        for (uint64_t at = 0; at < count; at++)
            handle(
                (subscription *)member,
                rc_slot_event(rc_ring_slot(&member->topic->ring, span->next + at))
            );
        span->next += count;
        span->calls++;
        rc_u64_store(&member->cursor, span->next);
    } while (span->next < span->end && !rc_turn_attention(by));
    return 1;
}

/* Batches are as large as can be: also larger than what is looked for otherwise, and of a slow
 * member, which has one call a turn. */
static void a_batch_is_filled_with_what_there_is(void)
{
    enum { BATCH = RC_LOOK + 50 };
    for (uint32_t heat = 0; heat < 2; heat++) {
        subscription *sub;
        rc_topic *topic;
        set_up((shape){.max_queue = 1000});
        topic = shared.topics[0];
        CHECK_EQUAL(rc_u32_load(&topic->look_ahead), RC_LOOK);
        sub = subscription_new(topic);
        sub->member.deliver = deliver_batches;
        sub->member.batch = BATCH;
        sub->member.heat = heat;
        CHECK(join(sub));
        CHECK_EQUAL(rc_u32_load(&topic->look_ahead), BATCH);
        publish_some(topic, BATCH + 10);
        largest_batch = 0;
        run_all();
        CHECK_EQUAL(largest_batch, BATCH);
        CHECK_EQUAL(sub->had.handled, BATCH + 10);
        cancel(sub, 0);
        CHECK_EQUAL(rc_u32_load(&topic->look_ahead), RC_LOOK);
        let_go(sub);
        tear_down();
    }
}

static subscription *other;
static uint64_t had_when_the_other_began;

static void tick(subscription *sub)
{
    (void)sub;
    for (rc_worker *each = shared.pool.all; each != NULL; each = each->next)
        atomic_fetch_or(&each->attention, RC_TICK);
}

static void see_how_much_the_other_has_had(subscription *sub)
{
    if (sub->had.handled == 1) had_when_the_other_began = other->had.handled;
}

/* The watch comes by at each call: the turn is cut, and the others have theirs. */
static void a_turn_that_lasts_is_cut_for_the_others(void)
{
    subscription *second;
    set_up((shape){.topics = 1});
    other = subscribe_with(shared.topics[0], tick);
    second = subscribe_with(shared.topics[0], see_how_much_the_other_has_had);
    publish_some(shared.topics[0], MANY);
    run_all();
    CHECK(had_when_the_other_began > 0 && had_when_the_other_began <= RC_TURN_TICKS);
    CHECK(rc_u64_load(&shared.pauses) > 0);
    CHECK_EQUAL(other->had.handled, MANY);
    CHECK_EQUAL(second->had.handled, MANY);
    tear_down();
}

static void cancel_the_other_in_the_third(subscription *sub)
{
    if (sub->had.handled == 3) cancel(other, 1);
}

static void cancel_itself_in_the_third(subscription *sub)
{
    if (sub->had.handled != 3) return;
    cancel(sub, 1);
    /* with this one the handler has begun */
    CHECK_EQUAL(rc_u64_load(&sub->member.end), rc_u64_load(&sub->member.cursor) + 1);
}

/* A cancel that discards, inside a handler: the one that is cancelled gets nothing more, the other
 * goes on. */
static void a_cancel_that_discards_ends_a_turn(void)
{
    tally kept[2] = {{0}, {0}};
    subscription *sub;
    set_up((shape){.topics = 1});
    sub = subscribe_with(shared.topics[0], cancel_the_other_in_the_third);
    other = subscribe(shared.topics[0], RC_BLOCK, 0);
    other->keeps = &kept[0];
    keep_by_topic(other);
    publish_some(shared.topics[0], MANY);
    run_all();
    CHECK_EQUAL(kept[0].handled, 0);
    CHECK_EQUAL(sub->had.handled, MANY);
    sub->called = cancel_itself_in_the_third;
    sub->had = (tally){0};
    rc_u64_store(&sub->member.start, rc_u64_load(&sub->member.cursor));
    sub->keeps = &kept[1];
    publish_some(shared.topics[0], MANY);
    run_all();
    CHECK_EQUAL(kept[1].handled, 3);
    CHECK_EQUAL(rc_u64_load(&shared.left), 2);
    CHECK_EQUAL(rc_ring_gate(&shared.topics[0]->ring), 2 * MANY);
    tear_down();
}

/* A worker with patience looks again before it leaves: nothing is lost or overtaken by that. */
static void a_patient_worker_looks_again(void)
{
    counted so_far = {0, 0, 0};
    set_up((shape){.record_size = sizeof(uint64_t)});
    shared.native_pool.patience = 3;
    keep_by_topic(subscribe_natively(shared.topics[0], &so_far));
    for (uint64_t number = 0; number < MANY; number++) {
        publish_record(shared.topics[0], number);
        if (number % 3 == 0) run_all();
    }
    run_all();
    CHECK_EQUAL(so_far.records, MANY);
    tear_down();
}

/* --- slow and stuck --------------------------------------------------------------------------- */

/* A slow member gets a lane, has all its events there in order, and comes back when it is quick. */
static void a_slow_member_gets_a_lane_until_it_is_quick(void)
{
    subscription *sub, *quick;
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe_with(topic, heat_up);
    sub->member.heat = RC_HOTTEST; /* one call a turn */
    quick = subscribe_with(topic, NULL);
    publish_some(topic, 3);
    CHECK(step(&shared.pool, worker)); /* the topic: one event, and the lane is scheduled */
    CHECK_EQUAL(sub->had.handled, 1);
    CHECK_EQUAL(quick->had.handled, 3);
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_SCHEDULED);
    CHECK(step(&shared.pool, worker)); /* the lane */
    CHECK_EQUAL(sub->had.handled, 3);
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE); /* hot: it keeps its lane */
    publish_some(topic, 1);
    CHECK(step(&shared.pool, worker));
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_SCHEDULED);
    sub->called = NULL;
    for (run_all(); rc_task_now(&sub->member.lane) != RC_SHARED; run_all()) publish_some(topic, 1);
    CHECK_EQUAL(sub->had.handled, rc_ring_tail(&topic->ring));
    check_nothing_stays_behind(&shared);
    tear_down();
}

static subscription *stuck[2], *quick[2];
static rc_worker *second_worker, *spare_worker;

static void get_stuck_too(subscription *sub)
{
    if (sub->had.handled != 1) return;
    while (!(rc_pool_watch(&shared.pool) & RC_WATCH_STUCK)) {}
    rc_pool_split_stuck(&shared.pool);
    CHECK_EQUAL(shared.pool.stuck, 2);
    /* both topics wait, and one more may come for them */
    CHECK(rc_pool_wants_worker(&shared.pool));
    CHECK((spare_worker = hire(&shared.pool)) != NULL);
    CHECK(hire(&shared.pool) == NULL);
    while (step(&shared.pool, spare_worker)) {}
    for (int each = 0; each < 2; each++) {
        CHECK_EQUAL(stuck[each]->had.handled, 1);
        CHECK_EQUAL(quick[each]->had.handled, 3);
    }
}

static void get_stuck(subscription *sub)
{
    if (sub->had.handled == 1) CHECK(step(&shared.pool, second_worker));
}

/* Both workers are inside handlers that do not return. A spare one runs their topics on; when it
 * is not needed any more, it ends. */
static void a_spare_worker_takes_the_place_of_one_that_is_stuck(void)
{
    set_up((shape){.topics = 2, .max_workers = 2, .parallel = 2, .spare = 1});
    second_worker = hire(&shared.pool);
    for (int each = 0; each < 2; each++) {
        stuck[each] = subscribe_with(shared.topics[each], each == 0 ? get_stuck : get_stuck_too);
        quick[each] = subscribe_with(shared.topics[each], NULL);
        publish_some(shared.topics[each], 3);
    }
    CHECK(step(&shared.pool, worker));
    CHECK(spare_worker != NULL);
    CHECK_EQUAL(shared.pool.stuck, 0);
    run_all();
    for (int each = 0; each < 2; each++) CHECK_EQUAL(stuck[each]->had.handled, 3);
    CHECK_EQUAL(shared.pool.alive, 3);
    CHECK(rc_pool_take(&shared.pool, spare_worker) == NULL);
    CHECK_EQUAL(shared.pool.alive, 2);
    bus_begin_close(&shared);
    run_all();
    CHECK(rc_pool_take(&shared.pool, second_worker) == NULL);
    tear_down();
}

/* --- own workers ------------------------------------------------------------------------------ */

static subscription *subscribe_own_with(rc_topic *topic, void (*called)(subscription *))
{
    subscription *sub = subscribe_as(topic, RC_BLOCK, 0, 1);
    CHECK(sub != NULL);
    sub->called = called;
    return keep_by_topic(sub);
}

static uint32_t heat_to_have;

static void be_run_by_its_own(subscription *sub)
{
    CHECK(at_work == sub->own);
    CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_SCHEDULED);
    sub->member.heat = heat_to_have;
}

/* However slow it is; the others find its events, and do no more about it. */
static void an_own_worker_alone_runs_its_member(void)
{
    static const uint32_t heats[] = {0, 1, RC_HOT, RC_HOTTEST};
    for (size_t at = 0; at < sizeof heats / sizeof heats[0]; at++) {
        subscription *sub, *beside;
        rc_topic *topic;
        heat_to_have = heats[at];
        set_up((shape){.topics = 1});
        topic = shared.topics[0];
        sub = subscribe_own_with(topic, be_run_by_its_own);
        beside = subscribe_with(topic, NULL);
        for (uint64_t round = 1; round <= 3; round++) {
            CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
            publish_some(topic, MANY);
            CHECK(!step(&shared.pool, sub->own)); /* it does not look at topics */
            CHECK(step(&shared.pool, worker));
            CHECK_EQUAL(beside->had.handled, round * MANY);
            CHECK_EQUAL(sub->had.handled, (round - 1) * MANY);
            CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_SCHEDULED);
            CHECK(!step(&shared.pool, worker));
            CHECK_EQUAL(rc_ring_gate(&topic->ring), (round - 1) * MANY);
            CHECK(step(&shared.pool, sub->own));
            CHECK_EQUAL(sub->had.handled, round * MANY);
            check_nothing_stays_behind(&shared);
            CHECK_EQUAL(rc_u32_load(&shared.pins), 0);
        }
        tear_down();
    }
}

/* The last one that there was: more is found while it is called. */
static void publish_two_more_in_the_third(subscription *sub)
{
    if (sub->had.handled != 3) return;
    publish_some(sub->member.topic, 2);
    CHECK(step(&shared.pool, worker));
}

static void an_own_worker_goes_on_with_what_comes_meanwhile(void)
{
    subscription *sub;
    set_up((shape){.topics = 1});
    sub = subscribe_own_with(shared.topics[0], publish_two_more_in_the_third);
    publish_some(shared.topics[0], 3);
    CHECK(step(&shared.pool, worker));
    CHECK(step(&shared.pool, sub->own));
    CHECK_EQUAL(sub->had.handled, 5);
    check_nothing_stays_behind(&shared);
    tear_down();
}

static void split_now(void)
{
    tick(NULL);
    rc_pool_split_stuck(&shared.pool);
}

static void get_split(subscription *sub)
{
    if (sub->had.handled != 1) return;
    split_now();
    CHECK(step(&shared.pool, second_worker));
}

static void get_split_and_see_the_own_one_run(subscription *sub)
{
    if (sub->had.handled != 1) return;
    split_now();
    CHECK(rc_pool_short_of_workers(&shared.pool));
    CHECK(step(&shared.pool, other->own));
    CHECK_EQUAL(other->had.handled, 3);
    CHECK_EQUAL(rc_task_now(&other->member.lane), RC_IDLE);
}

/* Workers that hold lanes give them up for topics that wait. An own one could not take those. */
static void an_own_worker_does_not_yield(void)
{
    set_up((shape){.topics = 2});
    second_worker = hire(&shared.pool);
    heat_to_have = RC_HOTTEST; /* one call a turn */
    other = subscribe_own_with(shared.topics[1], be_run_by_its_own);
    other->member.heat = RC_HOTTEST;
    publish_some(shared.topics[1], 3);
    CHECK(step(&shared.pool, worker));
    subscribe_with(shared.topics[0], get_split);
    subscribe_with(shared.topics[0], get_split_and_see_the_own_one_run);
    publish_some(shared.topics[0], 1);
    CHECK(step(&shared.pool, worker));
    CHECK_EQUAL(other->had.handled, 3);
    run_all();
    check_nothing_stays_behind(&shared);
    bus_begin_close(&shared);
    run_all();
    CHECK(rc_pool_take(&shared.pool, second_worker) == NULL);
    tear_down();
}

enum stage { NOT_FOUND, SCHEDULED, IN_THE_THIRD, HAD_ALL };
static int discards;

static void be_cancelled_in_the_third(subscription *sub)
{
    if (sub->had.handled == 3) cancel(sub, discards);
}

/* Cancels an own member that was to have 5 events. Its worker ends with it. */
static void cancel_an_own_member(uint64_t mailbox, enum stage when, int discard)
{
    const uint64_t before[] = {0, 0, 3, 5};
    tally kept = {0};
    subscription *sub;
    rc_topic *topic;
    rc_worker *own;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe_as(topic, mailbox != 0 ? RC_DROP_OLDEST : RC_BLOCK, mailbox, 1);
    sub->keeps = &kept;
    own = sub->own;
    discards = discard;
    if (when == IN_THE_THIRD) sub->called = be_cancelled_in_the_third;
    keep_by_topic(sub);
    publish_some(topic, 5);
    if (when != NOT_FOUND) CHECK(step(&shared.pool, worker));
    if (when >= IN_THE_THIRD) CHECK(step(&shared.pool, own));
    if (when != IN_THE_THIRD) cancel(sub, discard);
    /* what it has had, and nobody is at, is let go of in the cancel; the rest by its worker */
    CHECK_EQUAL(rc_u64_load(&shared.left), when >= IN_THE_THIRD || (discard && when == NOT_FOUND));
    publish_some(topic, 1); /* not for it */
    run_all();
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    CHECK_EQUAL(kept.handled, discard ? before[when] : 5);
    CHECK_EQUAL(rc_ring_gate(&topic->ring), 6);
    check_nothing_stays_behind(&shared);
    CHECK(own->only == NULL);
    CHECK(rc_pool_take(&shared.pool, own) == NULL);
    CHECK_EQUAL(rc_pool_workers(&shared.pool), 1);
    tear_down();
}

static void an_own_member_has_what_was_there_at_a_cancel(void)
{
    for (uint64_t mailbox = 0; mailbox <= 5; mailbox += 5)
        for (enum stage when = NOT_FOUND; when <= HAD_ALL; when++)
            cancel_an_own_member(mailbox, when, 0);
}

static void an_own_member_has_nothing_after_a_cancel_that_discards(void)
{
    for (uint64_t mailbox = 0; mailbox <= 5; mailbox += 5)
        for (enum stage when = NOT_FOUND; when <= HAD_ALL; when++)
            cancel_an_own_member(mailbox, when, 1);
}

/* The thread that lets go of it last ends its worker, whichever that is; the next one has it. */
static void the_worker_of_a_member_that_has_left_is_used_again(void)
{
    subscription *sub;
    rc_worker *own;
    set_up((shape){.topics = 1});
    sub = subscribe_as(shared.topics[0], RC_BLOCK, 0, 1);
    own = sub->own;
    cancel(sub, 0);
    CHECK_EQUAL(rc_u64_load(&shared.left), 0);
    CHECK(own->only == &sub->member.lane);
    let_go(sub);
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    CHECK(own->only == NULL);
    CHECK(rc_pool_take(&shared.pool, own) == NULL);
    sub = subscribe_own_with(shared.topics[0], be_run_by_its_own);
    CHECK(sub->own == own);
    publish_some(shared.topics[0], 2);
    run_all();
    CHECK_EQUAL(sub->had.handled, 2);
    tear_down();
}

static void an_own_member_has_all_that_was_there_at_a_close(void)
{
    for (int found = 0; found < 2; found++) {
        tally kept = {0};
        set_up((shape){.topics = 1});
        heat_to_have = 0;
        subscribe_own_with(shared.topics[0], be_run_by_its_own)->keeps = &kept;
        publish_some(shared.topics[0], 5);
        if (found) CHECK(step(&shared.pool, worker));
        tear_down();
        CHECK_EQUAL(kept.handled, 5);
    }
}

static void an_own_worker_empties_its_mailbox(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    heat_to_have = 0;
    sub = keep_by_topic(subscribe_as(topic, RC_DROP_OLDEST, 3, 1));
    sub->called = be_run_by_its_own;
    publish_some(topic, 10);
    make_room(topic); /* the mailbox has them, the ring is empty */
    CHECK_EQUAL(rc_ring_gate(&topic->ring), 10);
    CHECK(step(&shared.pool, worker));
    CHECK_EQUAL(sub->had.handled, 0);
    CHECK(!step(&shared.pool, worker));
    CHECK(step(&shared.pool, sub->own));
    CHECK_EQUAL(sub->had.handled, 3);
    CHECK_EQUAL(rc_u64_load(&sub->member.lost), 7);
    check_nothing_stays_behind(&shared);
    tear_down();
}

/* The same on the native pool, beside a member that any worker runs. */
static void an_own_worker_runs_a_native_member(void)
{
    counted so_far = {0, 0, 0}, beside = {0, 0, 0};
    subscription *sub;
    rc_topic *topic;
    rc_worker *own;
    set_up((shape){.record_size = sizeof(uint64_t)});
    topic = shared.topics[0];
    sub = subscribe_natively_as(topic, &so_far, 1);
    own = sub->own;
    keep_by_topic(subscribe_natively(topic, &beside));
    for (uint64_t number = 0; number < 3 * MANY; number++) {
        publish_record(topic, number);
        if (number % MANY != MANY - 1) continue;
        CHECK(step(&shared.native_pool, native_worker));
        CHECK_EQUAL(beside.records, number + 1);
        CHECK_EQUAL(so_far.records, number + 1 - MANY);
        CHECK(!step(&shared.native_pool, native_worker));
        CHECK(step(&shared.native_pool, own));
        CHECK_EQUAL(so_far.records, number + 1);
        CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
        CHECK_EQUAL(rc_ring_gate(&topic->ring), number + 1);
    }
    publish_record(topic, 3 * MANY);
    cancel(sub, 0);
    let_go(sub);
    run_all();
    CHECK_EQUAL(so_far.records, 3 * MANY + 1);
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    CHECK(rc_pool_take(&shared.native_pool, own) == NULL);
    tear_down();
}

static void see_room_made_for_the_one_before(subscription *sub)
{
    uint64_t gate = rc_ring_gate(&sub->member.topic->ring);
    be_run_by_its_own(sub);
    if (heat_to_have != 0)
        CHECK_EQUAL(gate, sub->had.handled - 1); /* one call a turn */
    else
        CHECK(sub->had.handled > 3 ? gate >= 3 : gate == 0);
    if (sub->had.handled == 3) tick(NULL); /* which has it make room inside the turn */
}

/* Room is made while it goes on, and whoever waits for that is told. */
static void an_own_worker_makes_room_as_it_goes(void)
{
    for (uint32_t heat = 0; heat <= RC_HOTTEST; heat += RC_HOTTEST) {
        subscription *sub;
        rc_topic *topic;
        set_up((shape){.topics = 1});
        topic = shared.topics[0];
        heat_to_have = heat;
        sub = subscribe_own_with(topic, see_room_made_for_the_one_before);
        sub->member.heat = heat;
        publish_some(topic, 6);
        CHECK(step(&shared.pool, worker));
        rc_u32_store_seq(&topic->room_waiters, 1);
        CHECK(step(&shared.pool, sub->own));
        CHECK(rc_u64_load(&shared.moves) >= (heat == 0 ? 2 : 6));
        rc_u32_store_seq(&topic->room_waiters, 0);
        CHECK_EQUAL(sub->had.handled, 6);
        tear_down();
    }
}

static void publish_one_more(subscription *sub)
{
    be_run_by_its_own(sub);
    if (sub->had.handled <= 3) publish_some(sub->member.topic, 1);
}

/* The room would have to be made by itself. */
static void an_own_handler_publishes_into_its_own_full_topic(void)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        subscription *sub;
        set_up((shape){.max_queue = 3, .max_workers = workers, .parallel = workers});
        heat_to_have = 0;
        sub = subscribe_own_with(shared.topics[0], publish_one_more);
        CHECK(rc_pool_current(&shared.pool) == sub->own); /* this thread, for now */
        publish_some(shared.topics[0], 3);
        CHECK(step(&shared.pool, worker));
        CHECK(step(&shared.pool, sub->own));
        run_all();
        CHECK_EQUAL(sub->had.handled, 6);
        CHECK_EQUAL(rc_u64_load(&shared.waits), 0);
        CHECK(rc_u64_load(&shared.reserve_used) > 0);
        check_nothing_stays_behind(&shared);
        tear_down();
    }
}

/* A subscription for which there is no memory leaves nothing behind but, where it has come so far,
 * a worker that ends and is used again. */
static void without_memory_there_is_no_own_worker(void)
{
    uint64_t failed = 0, live;
    subscription *sub = NULL;
    rc_worker *own = NULL;
    set_up((shape){.topics = 1});
    live = rc_alloc_live();
    while (sub == NULL) {
        rc_fail_alloc(failed, 1);
        sub = subscribe_as(shared.topics[0], RC_BLOCK, 0, 1);
        if (sub != NULL) break;
        failed++;
        if (rc_pool_workers(&shared.pool) == 1) {
            CHECK_EQUAL(rc_alloc_live(), live);
            continue;
        }
        own = rc_pool_current(&shared.pool);
        CHECK(own->is_own && own->only == NULL);
        CHECK(rc_pool_take(&shared.pool, own) == NULL);
    }
    rc_fail_alloc(0, 0);
    CHECK(failed > 1);
    CHECK(own != NULL && sub->own == own);
    let_go(sub);
    tear_down();
}

/* As in a forked child, whose own worker has no thread yet. */
static void the_first_event_for_an_own_member_starts_the_threads(void)
{
    subscription *sub;
    set_up((shape){.starts_late = 1});
    heat_to_have = 0;
    sub = subscribe_own_with(shared.topics[0], be_run_by_its_own);
    publish_some(shared.topics[0], 1);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    publish_some(shared.topics[0], 1);
    run_all();
    CHECK_EQUAL(sub->had.handled, 2);
    CHECK_EQUAL(rc_u64_load(&shared.starts), 1);
    tear_down();
}

/* An own worker that has no thread, as in a forked child: `hired` where its thread is just being
 * started. */
static subscription *subscribe_without_thread(int hired)
{
    rc_pool *pool = &shared.pool;
    rc_topic *topic = shared.topics[0];
    subscription *sub = subscription_new(topic);
    sub->in_order = 1;
    sub->member.deliver = deliver_events;
    sub->own = rc_pool_own(pool);
    CHECK(sub->own != NULL);
    rc_pool_bind(pool, sub->own, &sub->member.lane);
    if (hired) CHECK(rc_pool_hire(pool, sub->own));
    CHECK(join(sub));
    return keep_by_topic(sub);
}

/* Where no thread could be started for an own worker, a close does not wait for one for ever:
 * any worker delivers what is left. */
static void what_an_own_worker_without_a_thread_has_is_delivered_at_the_end(void)
{
    for (int hired = 0; hired < 2; hired++)
        for (int found = 0; found < 2; found++) {
            tally kept = {0};
            subscription *sub;
            set_up((shape){.topics = 1});
            sub = subscribe_without_thread(hired);
            sub->keeps = &kept;
            publish_some(shared.topics[0], 5);
            if (found) CHECK(step(&shared.pool, worker));
            CHECK(!found || !step(&shared.pool, worker)); /* not before the end */
            CHECK_EQUAL(sub->had.handled, 0);
            bus_begin_close(&shared);
            run_all();
            if (hired) {
                CHECK_EQUAL(sub->had.handled, 0); /* its thread may come */
                rc_pool_dismiss(&shared.pool, sub->own);
            }
            tear_down();
            CHECK_EQUAL(kept.handled, 5);
        }
}

/* --- topics ----------------------------------------------------------------------------------- */

static void a_topic_that_is_emptied_has_no_members(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe(topic, RC_BLOCK, 0);
    sub->deserted = 1;
    publish_some(topic, 2);
    run_all();
    rc_topic_empty(topic);
    CHECK_EQUAL(rc_u32_load(&topic->subscribers), 0);
    CHECK_EQUAL(rc_u32_load(&topic->quick_reply), 0);
    CHECK_EQUAL(rc_u32_load(&topic->pooled), 0);
    publish_some(topic, 2);
    CHECK_EQUAL(run_all(), 0);
    CHECK_EQUAL(sub->had.handled, 2);
    rc_member_drop(&calls, &sub->member); /* its own hold, as it does not retire */
    CHECK_EQUAL(rc_u64_load(&shared.left), 0);
    let_go(sub);
    CHECK_EQUAL(rc_u64_load(&shared.left), 1);
    tear_down();
}

static void what_is_published_ends_where_it_was_asked_to(void)
{
    subscription *sub;
    rc_topic *topic;
    set_up((shape){.topics = 1});
    topic = shared.topics[0];
    sub = subscribe_loop(topic, 0); /* its cursor holds the gate back */
    publish_some(topic, 5);
    CHECK_EQUAL(rc_topic_published(topic, 0, 3), 3);
    CHECK_EQUAL(rc_topic_published(topic, 2, 10), 5);
    CHECK_EQUAL(rc_topic_published(topic, 5, 10), 5);
    consume_all(sub);
    let_go(sub);
    tear_down();
}

/* Of records also inside a run, and not before they are all published. */
static void records_are_published_from_inside_a_run_on(void)
{
    static const uint64_t numbers[4] = {0, 1, 2, 3};
    subscription *sub;
    rc_topic *topic;
    rc_run run;
    set_up((shape){.record_size = sizeof numbers[0]});
    topic = shared.topics[0];
    sub = subscribe_loop(topic, 0);
    CHECK(rc_ring_claim_run(&topic->ring, QUEUE, 4, &run) == RC_CLAIMED);
    CHECK_EQUAL(rc_topic_published(topic, 0, 10), 0);
    rc_record_write(&run, numbers, sizeof numbers[0]);
    rc_record_publish(&run);
    CHECK_EQUAL(rc_topic_published(topic, 0, 1), 1);
    CHECK_EQUAL(rc_topic_published(topic, 2, 10), 4);
    store_record(topic, 4);
    CHECK_EQUAL(rc_topic_published(topic, 4, 10), 5);
    CHECK_EQUAL(rc_topic_published(topic, 5, 10), 5);
    cancel(sub, 1);
    let_go(sub);
    tear_down();
}

/* A topic, or a pool, for which there is no memory leaves nothing behind. */
static void without_memory_there_is_no_topic_and_no_pool(void)
{
    uint64_t live = rc_alloc_live(), topics = 0, pools = 0;
    rc_pool pool;
    int made;
    do {
        rc_fail_alloc(pools, 1);
        made = rc_pool_init(&pool, &calls, NULL, 2, 1, 1, MILLISECOND, MILLISECOND) == 0;
        pools += !made;
        if (!made) CHECK_EQUAL(rc_alloc_live(), live);
    } while (!made);
    CHECK(pools > 1);
    do {
        rc_topic *topic;
        rc_fail_alloc(0, 0);
        topic = rc_aligned_zalloc(sizeof *topic);
        rc_fail_alloc(topics, 1);
        made = rc_topic_init(topic, &pool, &pool, QUEUE, RESERVE, 0, 0) == 0;
        topics += !made;
        if (made)
            rc_topic_drop(topic);
        else
            rc_aligned_free(topic);
    } while (!made);
    CHECK(topics > 1);
    rc_fail_alloc(0, 0);
    rc_pool_destroy(&pool);
    CHECK_EQUAL(rc_alloc_live(), live);
}

int main(void)
{
    RUN(the_first_event_starts_the_threads);
    RUN(without_events_no_thread_starts);
    RUN(a_detached_publisher_starts_native_threads_only);
    RUN(a_loop_is_told_once);
    RUN(a_worker_tells_a_loop);
    RUN(a_loop_is_told_of_records_by_an_attached_thread);
    RUN(a_loop_has_what_was_there_at_a_cancel);
    RUN(a_loop_has_nothing_after_a_cancel_that_discards);
    RUN(who_waits_for_room_is_told);
    RUN(a_member_that_has_ended_holds_up_no_publisher);
    RUN(room_is_what_the_member_that_is_behind_most_leaves);
    RUN(room_is_made_by_a_member_that_leaves);
    RUN(it_is_known_which_room_a_handler_waits_for);
    RUN(close_waits_for_what_is_claimed);
    RUN(close_waits_for_records_that_are_claimed);
    RUN(nothing_is_scheduled_when_the_workers_are_gone);
    RUN(each_event_is_handled_dropped_or_pending);
    RUN(what_a_direct_handler_is_at_is_pending);
    RUN(a_batch_is_filled_with_what_there_is);
    RUN(a_turn_that_lasts_is_cut_for_the_others);
    RUN(a_cancel_that_discards_ends_a_turn);
    RUN(a_patient_worker_looks_again);
    RUN(a_slow_member_gets_a_lane_until_it_is_quick);
    RUN(a_spare_worker_takes_the_place_of_one_that_is_stuck);
    RUN(an_own_worker_alone_runs_its_member);
    RUN(an_own_worker_goes_on_with_what_comes_meanwhile);
    RUN(an_own_worker_does_not_yield);
    RUN(an_own_member_has_what_was_there_at_a_cancel);
    RUN(an_own_member_has_nothing_after_a_cancel_that_discards);
    RUN(the_worker_of_a_member_that_has_left_is_used_again);
    RUN(an_own_member_has_all_that_was_there_at_a_close);
    RUN(an_own_worker_empties_its_mailbox);
    RUN(an_own_worker_runs_a_native_member);
    RUN(an_own_worker_makes_room_as_it_goes);
    RUN(an_own_handler_publishes_into_its_own_full_topic);
    RUN(without_memory_there_is_no_own_worker);
    RUN(the_first_event_for_an_own_member_starts_the_threads);
    RUN(what_an_own_worker_without_a_thread_has_is_delivered_at_the_end);
    RUN(a_topic_that_is_emptied_has_no_members);
    RUN(what_is_published_ends_where_it_was_asked_to);
    RUN(records_are_published_from_inside_a_run_on);
    RUN(without_memory_there_is_no_topic_and_no_pool);
    return 0;
}
