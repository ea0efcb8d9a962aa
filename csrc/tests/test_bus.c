/* The bus (rc_bus.h): publishers, workers, subscriptions that come and go (with and without what
 * waits for them), handlers that are slow or publish, and a close in between. Every event is
 * accounted for, for every subscription: see bus.h. */
/* build: -DRC_FAIL_ALLOC -DRC_COUNT_LOCKS */
#define _GNU_SOURCE
#include "bus.h"

enum { TOPICS = 3, PUBLISHERS = 3, CHANGERS = 2 };

/* --- the threads of a test -------------------------------------------------------------------- */

typedef struct thread {
    bus *bus;
    uint32_t number, each;
    int with_own; /* some of its subscriptions have workers of their own */
    uint64_t published[TOPICS];
} thread;

/* Publishes in all topics in turn, until it has published `each` or they are closed. */
static void *publish_all(void *argument)
{
    thread *me = argument;
    uint32_t left = me->each;
    for (uint32_t step = 0; left > 0; step++) {
        uint32_t number = (step + me->number) % TOPICS;
        rc_topic *topic = rc_registry_find(&me->bus->registry, TOPIC_KEY + number);
        rc_claim claim = RC_CLOSED;
        if (topic == NULL) topic = rc_registry_find_locked(&me->bus->registry, TOPIC_KEY + number);
        if (topic != NULL)
            claim = publish(
                topic, (event){.from = me->number, .number = (uint32_t)me->published[number]}
            );
        if (claim == RC_CLOSED) break;
        if (claim == RC_CLAIMED) {
            me->published[number]++;
            left--;
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
        rc_topic *topic = me->bus->topics[next_random(&state) % TOPICS];
        rc_policy policy = policies[next_random(&state) % 3];
        uint64_t most = 1 + next_random(&state) % 20,
                 until = rc_ring_tail(&topic->ring) + next_random(&state) % 60;
        int wait = next_random(&state) % 2 == 0,
            is_own = me->with_own && next_random(&state) % 3 != 0;
        subscription *sub = subscribe_as(topic, policy, policy == RC_BLOCK ? 0 : most, is_own);
        if (sub == NULL) continue;
        for (int spins = 0; rc_ring_tail(&topic->ring) < until && spins < 210; spins++)
            wait_a_little(spins);
        cancel(sub, next_random(&state) % 2 == 0);
        if (next_random(&state) % 4 == 0) cancel(sub, 1); /* a second cancel, that discards */
        if (wait) {
            await_retired(sub);
            CHECK(!rc_member_is_over(&sub->member));
        }
        let_go(sub);
    }
    return NULL;
}

typedef struct run {
    uint64_t max_queue, first;
    uint32_t max_workers, parallel, spare, each, changes;
    uint64_t close_after; /* events in the first topic; 0: all are published first */
    uint64_t slow_every;
    int starts_late; /* the threads, when there is something for them */
    int with_own;    /* there are members with workers of their own */
} run;

static void run_bus(run how)
{
    thread publishers[PUBLISHERS], changers[CHANGERS];
    pthread_t threads[PUBLISHERS + CHANGERS];
    tally all_of_it[TOPICS], all_of_own[TOPICS];
    uint64_t published = 0, live = rc_alloc_live();
    bus *all = bus_open((shape){
        .topics = TOPICS,
        .max_queue = how.max_queue,
        .first = how.first,
        .max_workers = how.max_workers,
        .parallel = how.parallel,
        .spare = how.spare,
        .starts_late = how.starts_late
    });
    memset(all_of_it, 0, sizeof all_of_it);
    memset(all_of_own, 0, sizeof all_of_own);
    all->slow_every = how.slow_every;
    all->slow_for = MILLISECOND;
    /* these are there from the beginning to the end */
    for (uint32_t number = 0; number < TOPICS; number++) {
        subscription *sub = subscribe(all->topics[number], RC_BLOCK, 0);
        CHECK(sub != NULL);
        sub->keeps = &all_of_it[number];
        let_go(sub);
        sub = subscribe(all->topics[number], number % 2 ? RC_DROP_NEWEST : RC_DROP_OLDEST, 7);
        CHECK(sub != NULL);
        let_go(sub);
        if (!how.with_own) continue;
        sub = subscribe_as(all->topics[number], RC_BLOCK, 0, 1);
        CHECK(sub != NULL);
        sub->keeps = &all_of_own[number];
        let_go(sub);
    }
    for (uint32_t at = 0; at < PUBLISHERS; at++) {
        publishers[at] = (thread){.bus = all, .number = at, .each = how.each};
        threads[at] = thread_start(publish_all, &publishers[at]);
    }
    for (uint32_t at = 0; at < CHANGERS; at++) {
        changers[at] = (thread){
            .bus = all, .number = at, .each = how.changes, .with_own = how.with_own
        };
        threads[PUBLISHERS + at] = thread_start(subscribe_and_cancel, &changers[at]);
    }
    if (how.close_after != 0) {
        for (int spins = 0; rc_ring_tail(&all->topics[0]->ring) - how.first < how.close_after;
             spins++)
            wait_a_little(spins);
        /* subscribe is refused from now on, as by a closed dispatcher */
        rc_u32_store(&all->over, 1);
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
        /* as many as publish has said */
        CHECK_EQUAL(rc_ring_tail(&all->topics[number]->ring) - how.first, accepted);
        published += accepted;
    }
    if (how.close_after == 0) CHECK_EQUAL(published, (uint64_t)PUBLISHERS * how.each);
    bus_end_close(all);
    /* nothing was cancelled before the close: all, one by one */
    for (uint32_t number = 0; number < TOPICS; number++) {
        uint64_t accepted = 0;
        for (uint32_t at = 0; at < PUBLISHERS; at++) accepted += publishers[at].published[number];
        CHECK_EQUAL(all_of_it[number].handled, accepted);
        CHECK_EQUAL(all_of_own[number].handled, how.with_own ? accepted : 0);
        for (uint32_t at = 0; at < PUBLISHERS; at++)
            if (all_of_it[number].seen[at])
                CHECK_EQUAL(all_of_it[number].next[at], publishers[at].published[number]);
    }
    CHECK_EQUAL(rc_alloc_live(), live);
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Subscriptions come and go beside publishers: each gets what was published while it was there. */
static void subscriptions_come_and_go(void)
{
    run_bus((run){.max_queue = 50, .max_workers = 3, .parallel = 1, .each = 4000, .changes = 60});
    run_bus((run){
        .max_queue = 50,
        .max_workers = 4,
        .parallel = 3,
        .each = 4000,
        .changes = 60,
        .starts_late = 1
    });
    CHECK(rc_u64_load(&shared.starts) > 0);
}

/* The same with queues that are full all the time: what drops never holds up a publisher, what
 * blocks does. */
static void full_queues(void)
{
    run_bus((run){.max_queue = 2, .max_workers = 3, .parallel = 2, .each = 1500, .changes = 60});
    CHECK(rc_u64_load(&shared.waits) > 0);
}

/* Handlers that take their time: turns are split, lanes come and go; also where others take the
 * places of workers that are stuck. */
static void slow_handlers_come_and_go(void)
{
    for (uint32_t spare = 0; spare <= 2; spare += 2) {
        run_bus((run){
            .max_queue = 64,
            .max_workers = spare == 0 ? 4 : 2,
            .parallel = 2,
            .spare = spare,
            .each = 1200,
            .changes = 30,
            .slow_every = 40
        });
        CHECK(rc_u64_load(&shared.splits) > 0);
    }
}

/* Positions that pass 2**32 and 2**62, and that come close to the closed bit. */
static void from_any_position(void)
{
    const uint64_t starts[] = {
        (UINT64_C(1) << 32) - 700, (UINT64_C(1) << 62) - 700, RC_RING_CLOSED - 1 - PUBLISHERS * 1500
    };
    for (size_t at = 0; at < sizeof starts / sizeof starts[0]; at++)
        run_bus((run){
            .max_queue = 600,
            .first = starts[at],
            .max_workers = 3,
            .parallel = 2,
            .each = 1500,
            .changes = 30,
            .slow_every = 500
        });
}

/* close in the middle of it all: what was accepted is delivered, what is refused was not. */
static void close_in_between(void)
{
    for (uint64_t round = 0; round < 20; round++)
        run_bus((run){
            .max_queue = 1 + round * 3,
            .max_workers = 3,
            .parallel = 1 + (uint32_t)round % 3,
            .each = 100000,
            .changes = 40,
            .close_after = 1 + round * round * 3,
            .slow_every = round % 4 == 3 ? 25 : 0
        });
}

/* Members with workers of their own among others, in queues of any size, with any number of other
 * workers; slow ones too. Workers end with their members, and begin again with others. */
static void own_members_come_and_go(void)
{
    for (uint32_t workers = 1; workers <= 3; workers++)
        for (uint64_t max_queue = 2; max_queue <= 50; max_queue += 48)
            run_bus((run){
                .max_queue = max_queue,
                .max_workers = workers,
                .parallel = workers > 2 ? 2 : 1,
                .each = 1200,
                .changes = 60,
                .slow_every = max_queue == 2 ? 0 : 50,
                .starts_late = workers == 2,
                .with_own = 1
            });
}

/* Events that were accepted are had by members of any kind; the workers end, with their lanes or
 * with the pool. */
static void close_beside_own_members(void)
{
    for (uint64_t round = 0; round < 20; round++)
        run_bus((run){
            .max_queue = 1 + round * 3,
            .max_workers = 1 + (uint32_t)round % 3,
            .parallel = 1,
            .each = 100000,
            .changes = 40,
            .close_after = 1 + round * round * 3,
            .slow_every = round % 4 == 3 ? 25 : 0,
            .with_own = 1
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

/* Allocations fail now and then: a publish is refused, a mailbox drops, a subscription is not made;
 * all is accounted for. */
static void without_memory_now_and_then(void)
{
    for (uint64_t round = 0; round < 6; round++) {
        pthread_t failing;
        uint64_t live = rc_alloc_live();
        thread publishers[PUBLISHERS];
        thread changer = {.bus = &shared, .number = 1, .each = 40, .with_own = round % 2 == 1};
        pthread_t threads[PUBLISHERS], changing;
        bus_open((shape){
            .topics = TOPICS,
            .max_queue = 1200,
            .first = RC_PAGE_SLOTS - 3,
            .max_workers = 3,
            .parallel = 2
        });
        for (uint32_t number = 0; number < TOPICS; number++) {
            let_go(subscribe(shared.topics[number], RC_BLOCK, 0));
            let_go(subscribe(shared.topics[number], RC_DROP_OLDEST, 300));
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

/* --- handlers that publish, and topics that fall idle ----------------------------------------- */

/* What the subscriptions of each topic have had. The first is slow where any is; the last hands
 * events on. */
static tally had[TOPICS_MOST][3];

/* `owns`: bits of those members that have workers of their own, in each topic. */
static void open_with_own(
    uint32_t topics, uint32_t members, uint64_t max_queue, uint32_t max_workers, uint32_t parallel,
    uint32_t owns
)
{
    memset(had, 0, sizeof had);
    bus_open((shape){
        .topics = topics, .max_queue = max_queue, .max_workers = max_workers, .parallel = parallel
    });
    for (uint32_t number = 0; number < topics; number++)
        for (uint32_t at = 0; at < members; at++) {
            subscription *sub = subscribe_as(shared.topics[number], RC_BLOCK, 0, owns >> at & 1);
            CHECK(sub != NULL);
            sub->keeps = &had[number][at];
            sub->is_slow = at == 0;
            sub->hands_on = at == members - 1;
            let_go(sub);
        }
}

static void open_with(
    uint32_t topics, uint32_t members, uint64_t max_queue, uint32_t max_workers, uint32_t parallel
)
{
    open_with_own(topics, members, max_queue, max_workers, parallel, 0);
}

static void close_all(void)
{
    bus_begin_close(&shared);
    bus_end_close(&shared);
}

typedef struct publisher {
    uint32_t accepted;
    uint32_t from, first, each, hops;
    uint32_t pause_every; /* waits a little once in so many events, so that the topic falls idle; 0:
                             never */
} publisher;

static void pause_after(uint32_t number)
{
    for (uint64_t spins = number % 13 * 60; spins > 0; spins--) rc_cpu_relax();
}

/* Each publisher has a topic of its own where there are several. */
static void *publish_each(void *argument)
{
    publisher *me = argument;
    rc_topic *topic = shared.topics[me->from % shared.count];
    for (uint32_t number = me->first; number < me->first + me->each; number++) {
        CHECK(
            publish(topic, (event){.from = me->from, .number = number, .hops = me->hops}) ==
            RC_CLAIMED
        );
        if (me->pause_every != 0 && number % me->pause_every == 0) pause_after(number);
    }
    return NULL;
}

static void run_publishers(uint32_t publishers, uint32_t each, uint32_t hops, uint32_t pause_every)
{
    publisher from[FROM_MOST];
    pthread_t threads[FROM_MOST];
    for (uint32_t at = 0; at < publishers; at++) {
        from[at] = (publisher){.from = at, .each = each, .hops = hops, .pause_every = pause_every};
        threads[at] = thread_start(publish_each, &from[at]);
    }
    for (uint32_t at = 0; at < publishers; at++) thread_join(threads[at]);
    await_deliveries(&shared);
    check_nothing_stays_behind(&shared);
}

static void check_each_has_had(uint32_t topics, uint32_t members, uint64_t events)
{
    for (uint32_t number = 0; number < topics; number++)
        for (uint32_t at = 0; at < members; at++) CHECK_EQUAL(had[number][at].handled, events);
}

/* One event at a time, each into a topic that has just fallen idle or is about to: none stays
 * behind. */
static void no_event_stays_behind(void)
{
    uint32_t published = 0;
    open_with(1, 1, 100, 2, 1);
    for (uint32_t round = 0; round < 3000; round++) {
        for (uint32_t left = 1 + round % 3; left > 0; left--)
            CHECK(publish(shared.topics[0], (event){.number = published++}) == RC_CLAIMED);
        await_deliveries(&shared);
        check_nothing_stays_behind(&shared);
    }
    close_all();
    check_each_has_had(1, 1, published);
}

/* Several publishers into a topic that falls idle all the time. */
static void publishers_beside_a_topic_that_falls_idle(void)
{
    open_with(1, 2, 1000, 2, 1);
    run_publishers(4, 6000, 0, 1);
    close_all();
    check_each_has_had(1, 2, 4 * 6000);
}

/* A small queue and publishers that wait for room in it. */
static void publishers_that_wait_for_room(void)
{
    open_with(2, 3, 3, 3, 2);
    run_publishers(4, 1500, 0, 0);
    close_all();
    check_each_has_had(2, 3, 2 * 1500);
}

/* Slow handlers: turns are split, lanes come and go, and all see everything in order. */
static void slow_handlers_go_to_lanes_and_back(void)
{
    open_with(2, 3, 64, 4, 1);
    shared.slow_every = 20;
    shared.slow_for = 3 * MILLISECOND / 2;
    run_publishers(4, 1500, 0, 50);
    CHECK(rc_u64_load(&shared.splits) > 0);
    close_all();
    check_each_has_had(2, 3, 2 * 1500);
}

/* Every other call is a slow one's: it gets a lane, and comes back with the next. */
static void heat_up_and_cool_down(subscription *sub)
{
    sub->member.heat = sub->had.handled % 2 == 0 ? RC_HOTTEST : 1;
}

/* A few events at a time, with pauses of all lengths, into one topic that falls idle with what runs
 * its members: none stays behind. `owns`: as in open_with_own. `called`: what all handlers do
 * besides, or NULL. */
static void
fall_idle_beside_the_topic(uint32_t count, uint32_t owns, void (*called)(subscription *))
{
    uint32_t published = 0;
    rc_members *members;
    open_with_own(1, count, 100, 3, 1, owns);
    members = rc_topic_members(shared.topics[0]);
    for (uint32_t at = 0; at < count; at++) ((subscription *)members->all[at])->called = called;
    rc_members_drop(shared.topics[0], members);
    for (uint32_t round = 0; round < 2000; round++) {
        for (uint32_t left = 1 + round % 4; left > 0; left--) {
            CHECK(publish(shared.topics[0], (event){.number = published++}) == RC_CLAIMED);
            pause_after(round + left);
        }
        await_deliveries(&shared);
        check_nothing_stays_behind(&shared);
    }
    close_all();
    check_each_has_had(1, count, published);
}

/* Lanes that fall idle or back to their topic, each beside the worker that finds events for it. */
static void lanes_that_fall_idle_beside_their_topic(void)
{
    fall_idle_beside_the_topic(2, 0, heat_up_and_cool_down);
}

/* Own workers of the first and the last member, that fall idle each at its own time. */
static void own_workers_that_fall_idle_beside_their_topic(void)
{
    fall_idle_beside_the_topic(3, 5, NULL);
}

/* In a circle an event of a publisher comes by several ways: of these none overtakes what came by
 * the same way only. */
static void forget_the_order(void)
{
    for (uint32_t number = 0; number < shared.count; number++) {
        rc_members *members = rc_topic_members(shared.topics[number]);
        for (uint32_t at = 0; at < members->count; at++)
            ((subscription *)members->all[at])->any_order = 1;
        rc_members_drop(shared.topics[number], members);
    }
}

/* Handlers that publish in a circle of topics whose queues are full: none waits for ever, with any
 * number of workers. */
static void handlers_that_publish_in_a_circle(void)
{
    for (uint32_t workers = 1; workers <= 4; workers++)
        for (uint64_t max_queue = 1; max_queue <= 4; max_queue += 3) {
            open_with(3, 2, max_queue, workers, workers > 2 ? 2 : 1);
            forget_the_order();
            run_publishers(3, 80, 5, 0);
            close_all();
            check_each_has_had(3, 2, 3 * 80 * 2);
        }
}

/* The same with handlers that are slow now and then, so that lanes wait for lanes. */
static void slow_handlers_that_publish_in_a_circle(void)
{
    for (uint32_t workers = 2; workers <= 4; workers++) {
        open_with(3, 2, 2, workers, 1);
        forget_the_order();
        shared.slow_every = 25;
        shared.slow_for = MILLISECOND;
        run_publishers(3, 120, 5, 0);
        close_all();
        check_each_has_had(3, 2, 3 * 120 * 2);
    }
}

/* The same with own workers: of the handlers that publish, of the slow ones, or of all; so that
 * they wait for each other, and for others, and these for them. */
static void own_handlers_that_publish_in_a_circle(void)
{
    for (uint32_t owns = 1; owns <= 3; owns++)
        for (uint32_t workers = 1; workers <= 3; workers++) {
            open_with_own(3, 2, 1 + workers % 2, workers, 1, owns);
            forget_the_order();
            shared.slow_every = 40;
            shared.slow_for = MILLISECOND / 2;
            run_publishers(3, 80, 5, 0);
            close_all();
            check_each_has_had(3, 2, 3 * 80 * 2);
        }
}

static void *publish_until_closed(void *argument)
{
    publisher *me = argument;
    while (publish(shared.topics[0], (event){.from = me->from, .number = me->accepted}) ==
           RC_CLAIMED)
        pause_after(++me->accepted);
    return NULL;
}

/* close beside publishers: what was accepted is delivered, also what a publisher has claimed or is
 * about to queue. */
static void close_beside_publishers(void)
{
    for (uint32_t round = 0; round < 80; round++) {
        publisher from[2];
        pthread_t threads[2];
        uint64_t accepted = 0;
        open_with(1, 1, 1000, 2, 1);
        for (uint32_t at = 0; at < 2; at++) {
            from[at] = (publisher){.from = at};
            threads[at] = thread_start(publish_until_closed, &from[at]);
        }
        for (int spins = 0; rc_ring_tail(&shared.topics[0]->ring) < round % 50; spins++)
            wait_a_little(spins);
        bus_begin_close(&shared);
        for (uint32_t at = 0; at < 2; at++) {
            thread_join(threads[at]);
            accepted += from[at].accepted;
        }
        bus_end_close(&shared);
        check_each_has_had(1, 1, accepted);
    }
}

/* The last member leaves beside publishers, which have seen it: what they store then is let go of
 * as well. */
static void the_last_one_leaves_beside_publishers(void)
{
    bus_open((shape){.topics = 1, .max_queue = 1000, .max_workers = 2, .parallel = 2});
    for (uint32_t round = 0; round < 400; round++) {
        pthread_t threads[2];
        publisher from[2];
        subscription *sub = subscribe(shared.topics[0], RC_BLOCK, 0);
        for (uint32_t at = 0; at < 2; at++) {
            from[at] = (publisher){.from = at, .each = 20 + round % 40, .pause_every = 7};
            threads[at] = thread_start(publish_each, &from[at]);
        }
        pause_after(round);
        cancel(sub, round % 2 == 0);
        let_go(sub);
        for (uint32_t at = 0; at < 2; at++) thread_join(threads[at]);
        await_deliveries(&shared);
        check_nothing_stays_behind(&shared);
    }
    close_all();
}

/* --- loops ------------------------------------------------------------------------------------ */

/* Comes when it is told, until the subscription is over. */
static void *consume(void *argument)
{
    subscription *sub = argument;
    while (!rc_u32_load_seq(&sub->member.retired)) {
        uint32_t ticket, told = rc_u32_load_seq(&sub->told);
        consume_all(sub);
        ticket = rc_park_prepare(&sub->bell);
        if (rc_u32_load_seq(&sub->told) != told || rc_u32_load_seq(&sub->member.retired))
            rc_park_cancel(&sub->bell);
        else
            rc_park_wait(&sub->bell, ticket, RC_FOREVER);
    }
    return NULL;
}

/* Loops that come and go beside publishers, in a topic without workers and beside a member that
 * needs them: the consumer is told of each event, and of the end. */
static void loops_come_and_go(void)
{
    for (uint32_t others = 0; others < 2; others++) {
        open_with(1, others, 50, 2, 1);
        for (uint32_t round = 0; round < 40; round++) {
            rc_topic *topic = shared.topics[0];
            publisher from[2];
            pthread_t threads[3];
            subscription *sub = subscribe_loop(topic, round % 2 == 0 ? 0 : 7);
            uint64_t until = rc_ring_tail(&topic->ring) + 7 * (round % 20);
            threads[2] = thread_start(consume, sub);
            for (uint32_t at = 0; at < 2; at++) {
                from[at] = (publisher){.from = at, .first = round * 100, .each = 100};
                threads[at] = thread_start(publish_each, &from[at]);
            }
            for (int spins = 0; rc_ring_tail(&topic->ring) < until; spins++) wait_a_little(spins);
            cancel(sub, round % 3 == 0);
            for (uint32_t at = 0; at < 3; at++) thread_join(threads[at]);
            CHECK_EQUAL(rc_task_now(&sub->member.lane), RC_IDLE);
            let_go(sub);
            await_deliveries(&shared);
            check_nothing_stays_behind(&shared);
        }
        close_all();
        check_each_has_had(1, others, 40 * 2 * 100);
    }
}

/* --- what is pending -------------------------------------------------------------------------- */

enum { PENDING_QUEUE = 2, PENDING_MAIL = 5 };

/* What was published before a look, and is not done after it, is pending in it: an event that moves
 * on meanwhile may count twice, and never not at all. */
static void *look_at_what_is_pending(void *argument)
{
    rc_topic *topic = shared.topics[0];
    rc_members *members = rc_topic_members(topic);
    (void)argument;
    while (!rc_u32_load(&shared.over)) {
        uint64_t before = rc_ring_tail(&topic->ring), pending = rc_topic_pending(topic);
        CHECK(before <= pending + rc_ring_gate(&topic->ring));
        CHECK(pending <= PENDING_QUEUE);
        for (uint32_t at = 0; at < members->count; at++) {
            const rc_member *member = members->all[at];
            before = rc_ring_tail(&topic->ring);
            pending = rc_member_pending(member);
            if (member->mail == NULL)
                CHECK(before <= pending + rc_u64_load(&member->cursor));
            else
                CHECK(before <= pending + rc_u64_load(&member->calls) + rc_u64_load(&member->lost));
            CHECK(pending <= PENDING_QUEUE + (member->mail == NULL ? 0 : PENDING_MAIL + 1));
        }
    }
    rc_members_drop(topic, members);
    return NULL;
}

static void what_is_pending_beside_publishers(void)
{
    pthread_t looking;
    open_with(1, 1, PENDING_QUEUE, 2, 1);
    let_go(subscribe(shared.topics[0], RC_DROP_OLDEST, PENDING_MAIL));
    looking = thread_start(look_at_what_is_pending, NULL);
    run_publishers(2, 4000, 0, 7);
    rc_u32_store(&shared.over, 1);
    thread_join(looking);
    close_all();
    check_each_has_had(1, 1, 2 * 4000);
}

/* --- native members --------------------------------------------------------------------------- */

/* Records for native members, of which some come and go: each has all that was published while it
 * was there, in order. */
static void natives_come_and_go(void)
{
    enum { RECORDS = 30000, EVERY = 100 };
    counted all_of_it = {0, 0, 4000}, all_of_own = {0, 0, 3000}, some = {0, 0, 0};
    subscription *guest = NULL;
    uint64_t began = 0;
    bus_open((shape){
        .topics = 1,
        .max_queue = 700,
        .max_workers = 3,
        .parallel = 2,
        .record_size = sizeof(uint64_t)
    });
    let_go(subscribe_natively(shared.topics[0], &all_of_it));
    let_go(subscribe_natively_as(shared.topics[0], &all_of_own, 1));
    for (uint64_t number = 0; number < RECORDS; number++) {
        if (number % EVERY == 0) {
            if (guest != NULL) {
                cancel(guest, 0);
                await_retired(guest);
                CHECK_EQUAL(some.records, number - began);
                let_go(guest);
            }
            began = number;
            some = (counted){0, 0, number % 1000 == 0 ? 40 : 0};
            guest = subscribe_natively_as(shared.topics[0], &some, number % 300 == 0);
        }
        publish_record(shared.topics[0], number);
    }
    let_go(guest);
    close_all();
    CHECK_EQUAL(all_of_it.records, RECORDS);
    CHECK_EQUAL(all_of_own.records, RECORDS);
    CHECK_EQUAL(some.records, EVERY);
}

/* --- pins ------------------------------------------------------------------------------------- */

/* A publisher that is not attached schedules a topic on its lease and ends that at once, while the
 * worker takes the topic. The bus is pinned by one of both while the topic is run, once, and by
 * nobody when all is quiet. */
static void a_lease_ends_beside_the_worker(void)
{
    enum { ROUNDS = 5000 };
    open_with(1, 1, 100, 2, 1);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        rc_topic *topic = shared.topics[0];
        rc_slot *slot;
        CHECK(rc_ring_claim(&topic->ring, 100, &slot) == RC_CLAIMED);
        rc_ring_publish(slot, event_new(&shared, (event){.number = round}));
        CHECK_EQUAL(rc_bus_wake_detached(topic), 0);
        for (uint32_t pause = 0; pause < round % 50; pause++) rc_cpu_relax();
        rc_pool_pin(&shared.pool);
        await_deliveries(&shared);
        for (unsigned spins = 0; rc_u32_load(&shared.pins) != 0; spins++) rc_ring_pause(spins);
    }
    close_all();
    check_each_has_had(1, 1, ROUNDS);
}

int main(void)
{
    RUN(subscriptions_come_and_go);
    RUN(full_queues);
    RUN(slow_handlers_come_and_go);
    RUN(from_any_position);
    RUN(close_in_between);
    RUN(own_members_come_and_go);
    RUN(close_beside_own_members);
    RUN(without_memory_now_and_then);
    RUN(no_event_stays_behind);
    RUN(publishers_beside_a_topic_that_falls_idle);
    RUN(publishers_that_wait_for_room);
    RUN(slow_handlers_go_to_lanes_and_back);
    RUN(lanes_that_fall_idle_beside_their_topic);
    RUN(close_beside_publishers);
    RUN(handlers_that_publish_in_a_circle);
    RUN(slow_handlers_that_publish_in_a_circle);
    RUN(own_handlers_that_publish_in_a_circle);
    RUN(own_workers_that_fall_idle_beside_their_topic);
    RUN(the_last_one_leaves_beside_publishers);
    RUN(loops_come_and_go);
    RUN(what_is_pending_beside_publishers);
    RUN(natives_come_and_go);
    RUN(a_lease_ends_beside_the_worker);
    return 0;
}
