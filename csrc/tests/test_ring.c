/* rc_ring: every accepted event once, in order, to every cursor; never more than the limit. */
#define _GNU_SOURCE
#include "../rc_ring.h"
#include "../rc_mutex.h"
#include "check.h"

#include <sys/resource.h>

enum { PAGE = RC_PAGE_SLOTS };

/* --- one thread ------------------------------------------------------------------------------- */

/* Events of the tests with one thread are numbers: the position they should have, and one more
 * (NULL is none). */
static void *numbered(uint64_t position) { return (void *)(uintptr_t)(position + 1); }

static void ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start)
{
    CHECK(rc_ring_init(ring, max_queue, reserve, start) == 0);
}

/* Publishes one event where there is room. Returns what the claim said. */
static rc_claim put(rc_ring *ring, uint64_t limit)
{
    rc_slot *slot = NULL;
    uint64_t position = rc_ring_tail(ring);
    rc_claim claim = rc_ring_claim(ring, limit, &slot);
    if (claim == RC_CLAIMED) {
        CHECK(slot == rc_ring_slot(ring, position));
        CHECK(rc_slot_event(slot) == NULL);
        rc_ring_publish(slot, numbered(position));
        CHECK_EQUAL(rc_ring_tail(ring), position + 1);
    }
    return claim;
}

/* Takes `count` events, checks that they are the next ones, and moves the gate. */
static void take(rc_ring *ring, uint64_t count)
{
    uint64_t position = rc_ring_gate(ring), end = position + count;
    CHECK_EQUAL(rc_ring_published(ring, position, count), end);
    for (; position < end; position++) {
        CHECK(rc_slot_event(rc_ring_slot(ring, position)) == numbered(position));
        CHECK(rc_ring_take(ring, position) == numbered(position));
    }
    rc_ring_move_gate(ring, end);
}

static void take_all(rc_ring *ring) { take(ring, rc_ring_tail(ring) - rc_ring_gate(ring)); }

static int attached_pages(const rc_ring *ring)
{
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_relaxed);
    int count = 0;
    for (uint64_t at = 0; pages != NULL && at <= ring->page_mask; at++)
        count += atomic_load_explicit(&pages[at], memory_order_relaxed) != NULL;
    return count;
}

static int has_spare(const rc_ring *ring)
{
    return atomic_load_explicit(&ring->spare, memory_order_relaxed) != NULL;
}

static const uint64_t limits[] = {1,        2,           3,        10,
                                  PAGE - 1, PAGE,        PAGE + 1, 3 * PAGE - 1,
                                  3 * PAGE, 3 * PAGE + 1};
static const uint64_t starts[] = {
    0,
    1,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    8 * PAGE - 1,
    (UINT64_C(1) << 32) - 3,
    (UINT64_C(1) << 62) - 2 * PAGE - 1,
    (UINT64_C(1) << 62) - 1,
    UINT64_C(1) << 62,
    (UINT64_C(1) << 62) + PAGE - 1,
    RC_RING_CLOSED - 100 * PAGE - 1,
};
#define EACH(index, array) (size_t index = 0; index < sizeof(array) / sizeof(array)[0]; index++)

/* Exactly max_queue events may wait, whatever max_queue is and wherever the positions stand. */
static void holds_exactly_max_queue(void)
{
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                ring_init(&ring, limits[limit], 0, starts[start]);
                for (int lap = 0; lap < 3; lap++) {
                    for (uint64_t count = 0; count < limits[limit]; count++)
                        CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                    CHECK_EQUAL(rc_ring_tail(&ring) - rc_ring_gate(&ring), limits[limit]);
                    take_all(&ring);
                }
                rc_ring_destroy(&ring);
            }
}

/* Each event taken makes room for one more: a full ring stays usable at its limit for many laps. */
static void room_comes_back_one_by_one(void)
{
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                ring_init(&ring, limits[limit], 0, starts[start]);
                while (put(&ring, ring.max_queue) == RC_CLAIMED) continue;
                for (int step = 0; step < 5 * PAGE; step++) {
                    take(&ring, 1);
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                }
                take_all(&ring);
                rc_ring_destroy(&ring);
            }
}

/* Claims that name the reserve go past max_queue, by exactly the reserve; the others stay refused.
 */
static void reserve_is_beyond_max_queue(void)
{
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                uint64_t reserve = limits[(limit + start) % 10];
                ring_init(&ring, limits[limit], reserve, starts[start]);
                for (int lap = 0; lap < 3; lap++) {
                    while (put(&ring, ring.max_queue) == RC_CLAIMED) continue;
                    for (uint64_t count = 0; count < reserve; count++) {
                        CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                        CHECK_EQUAL(put(&ring, ring.max_queue + reserve), RC_CLAIMED);
                    }
                    CHECK_EQUAL(put(&ring, ring.max_queue + reserve), RC_FULL);
                    take(&ring, reserve);
                    /* back at max_queue, no room yet */
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                    take(&ring, 1);
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
                    take_all(&ring);
                }
                rc_ring_destroy(&ring);
            }
}

/* A closed ring refuses every claim, full or not, and still gives what it had accepted. */
static void closed_refuses_claims(void)
{
    for
        EACH(start, starts)
    for (uint64_t waiting = 0; waiting <= 3; waiting++) {
        rc_ring ring;
        uint64_t tail = starts[start] + waiting;
        ring_init(&ring, 3, 2, starts[start]);
        for (uint64_t count = 0; count < waiting; count++) CHECK_EQUAL(put(&ring, 3), RC_CLAIMED);
        rc_ring_close(&ring);
        rc_ring_close(&ring); /* idempotent */
        CHECK_EQUAL(put(&ring, 3), RC_CLOSED);
        CHECK_EQUAL(put(&ring, 5), RC_CLOSED);
        CHECK_EQUAL(rc_ring_tail(&ring), tail);
        CHECK_EQUAL(rc_ring_published(&ring, starts[start], PAGE), tail);
        take_all(&ring);
        CHECK_EQUAL(put(&ring, 5), RC_CLOSED);
        rc_ring_destroy(&ring);
    }
}

/* Positions go up to the closed bit, and a ring that stands right before it works and closes as any
 * other. */
static void serves_up_to_the_last_position(void)
{
    for
        EACH(limit, limits)
        {
            const uint64_t last = RC_RING_CLOSED - 1, count = 3 * limits[limit] + 2 * PAGE;
            rc_ring ring;
            ring_init(&ring, limits[limit], 0, last - count);
            for (uint64_t step = 0; step < count; step++) {
                CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
                if (rc_ring_tail(&ring) - rc_ring_gate(&ring) == limits[limit]) {
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_FULL);
                    take(&ring, 1 + step % limits[limit]);
                }
            }
            CHECK_EQUAL(rc_ring_tail(&ring), last);
            rc_ring_close(&ring);
            CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLOSED);
            CHECK_EQUAL(rc_ring_tail(&ring), last);
            CHECK_EQUAL(rc_ring_published(&ring, rc_ring_gate(&ring), UINT64_MAX), last);
            take_all(&ring);
            CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLOSED);
            rc_ring_destroy(&ring);
        }
}

/* A ring that never saw an event has allocated nothing, closed or not. */
static void allocates_at_the_first_claim(void)
{
    rc_ring ring;
    ring_init(&ring, 50000, 65536, 0);
    CHECK(atomic_load_explicit(&ring.pages, memory_order_relaxed) == NULL);
    CHECK_EQUAL(rc_ring_published(&ring, 0, 100), 0);
    rc_ring_close(&ring);
    CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLOSED);
    CHECK(atomic_load_explicit(&ring.pages, memory_order_relaxed) == NULL);
    rc_ring_destroy(&ring);
}

/* A large limit takes no memory as long as little is waiting: of the table of pages only what is
 * used is touched. */
static void a_look_says_what_a_claim_would_come_to(void)
{
    for (size_t start = 0; start < sizeof starts / sizeof *starts; start++) {
        rc_ring ring;
        CHECK(rc_ring_init(&ring, 4, 4, starts[start]) == 0);
        for (uint64_t count = 0; count < 8; count++) {
            CHECK_EQUAL(rc_ring_look(&ring, 4), count < 4 ? RC_CLAIMED : RC_FULL);
            CHECK_EQUAL(rc_ring_look(&ring, 8), RC_CLAIMED);
            CHECK_EQUAL(rc_ring_tail(&ring), starts[start] + count); /* nothing is claimed */
            CHECK(attached_pages(&ring) >= 1);                       /* and memory is there */
            CHECK_EQUAL(put(&ring, 8), RC_CLAIMED);
        }
        CHECK_EQUAL(rc_ring_look(&ring, 8), RC_FULL);
        rc_ring_close(&ring);
        CHECK_EQUAL(rc_ring_look(&ring, 9), RC_CLOSED);
        take_all(&ring);
        rc_ring_destroy(&ring);
    }
}

static void large_limit_takes_no_memory(void)
{
    struct rusage before, after;
    rc_ring ring;
    ring_init(&ring, UINT64_C(1) << 31, 0, 0); /* 64 MiB of page references */
    getrusage(RUSAGE_SELF, &before);
    CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
    getrusage(RUSAGE_SELF, &after);
#if defined(__GLIBC__) && \
    !defined(SANITIZED) /* sanitizers touch it all, and so do some other C libraries */
    CHECK(after.ru_maxrss - before.ru_maxrss < 8 * 1024); /* KiB */
#endif
    take_all(&ring);
    rc_ring_destroy(&ring);
}

/* The table has a page more than the limit covers, and a power of two of them (invariant 3). */
static void has_a_page_more_than_the_limit(void)
{
    for
        EACH(limit, limits)
        for
            EACH(reserve, limits)
            {
                rc_ring ring;
                uint64_t count;
                ring_init(&ring, limits[limit], limits[reserve], 0);
                count = ring.page_mask + 1;
                CHECK((count & ring.page_mask) == 0);
                CHECK((count - 1) * PAGE >= limits[limit] + limits[reserve]);
                rc_ring_destroy(&ring);
            }
}

/* With little waiting the ring keeps to two pages, the one in use and the spare, for any number of
 * laps. */
static void little_waiting_uses_two_pages(void)
{
    rc_ring ring;
    ring_init(&ring, 50000, 65536, 0);
    for (int step = 0; step < 300 * PAGE; step++) {
        CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
        CHECK(attached_pages(&ring) + has_spare(&ring) <= 2 || step % PAGE != 0);
        take(&ring, 1);
    }
    CHECK(attached_pages(&ring) <= 1);
    rc_ring_destroy(&ring);
}

/* A burst takes as many pages as it needs and gives all but the spare back. */
static void burst_gives_its_pages_back(void)
{
    for
        EACH(start, starts)
        {
            rc_ring ring;
            uint64_t pages = (starts[start] + 10 * PAGE - 1) / PAGE - starts[start] / PAGE + 1;
            ring_init(&ring, 50000, 0, starts[start]);
            for (int burst = 0; burst < 3; burst++) {
                for (int count = 0; count < 10 * PAGE; count++)
                    CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
                CHECK_EQUAL(attached_pages(&ring), pages);
                take_all(&ring);
                CHECK(attached_pages(&ring) <= 1);
                CHECK(has_spare(&ring));
            }
            rc_ring_destroy(&ring);
        }
}

/* The published prefix ends at the first position that is claimed and not published yet. */
static void published_ends_at_a_hole(void)
{
    for
        EACH(start, starts)
        {
            rc_ring ring;
            rc_slot *slots[3];
            uint64_t first = starts[start];
            ring_init(&ring, 10, 0, first);
            for (int at = 0; at < 3; at++)
                CHECK_EQUAL(rc_ring_claim(&ring, 10, &slots[at]), RC_CLAIMED);
            CHECK_EQUAL(rc_ring_published(&ring, first, 10), first);
            rc_ring_publish(slots[2], numbered(first + 2));
            rc_ring_publish(slots[1], numbered(first + 1));
            CHECK_EQUAL(rc_ring_published(&ring, first, 10), first);
            CHECK_EQUAL(rc_ring_published(&ring, first + 1, 10), first + 3);
            rc_ring_publish(slots[0], numbered(first));
            CHECK_EQUAL(rc_ring_published(&ring, first, 10), first + 3);
            /* at most what was asked for */
            CHECK_EQUAL(rc_ring_published(&ring, first, 2), first + 2);
            CHECK_EQUAL(rc_ring_published(&ring, first, 0), first);
            rc_ring_await_event(&ring, first); /* returns at once */
            take_all(&ring);
            rc_ring_destroy(&ring);
        }
}

/* A run of slots that stand side by side ends with its page. */
static void run_ends_with_the_page(void)
{
    CHECK_EQUAL(rc_ring_run(0, 3), 3);
    CHECK_EQUAL(rc_ring_run(0, PAGE), PAGE);
    CHECK_EQUAL(rc_ring_run(0, 2 * PAGE), PAGE);
    CHECK_EQUAL(rc_ring_run(PAGE - 1, PAGE + 5), 1);
    CHECK_EQUAL(rc_ring_run(PAGE, PAGE + 5), 5);
    CHECK_EQUAL(rc_ring_run(7, 7), 0);
    CHECK_EQUAL(rc_ring_run((UINT64_C(1) << 62) - 2, (UINT64_C(1) << 62) + 2), 2);
}

/* A producer whose position is out of date is told to try again, and harms nothing even where it
 * attaches a page. */
static void stale_producer_is_harmless(void)
{
    rc_ring ring;
    ring_init(&ring, 2 * PAGE, 0, 0);
    for (int count = 0; count < 3 * PAGE / 2; count++)
        CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
    take(&ring, PAGE);
    /* the gate has passed it */
    CHECK_EQUAL(rc_ring_claim_slow(&ring, 3, ring.max_queue), RC_CLAIMED);
    /* claimed by another meanwhile */
    CHECK_EQUAL(rc_ring_claim_slow(&ring, PAGE + 1, ring.max_queue), RC_CLAIMED);
    CHECK_EQUAL(attached_pages(&ring), 1);
    /* a page ahead of the tail */
    CHECK_EQUAL(rc_ring_claim_slow(&ring, 2 * PAGE + 5, ring.max_queue), RC_CLAIMED);
    CHECK_EQUAL(attached_pages(&ring), 2);
    for (int step = 0; step < 9 * PAGE; step++) {
        CHECK_EQUAL(put(&ring, ring.max_queue), RC_CLAIMED);
        take(&ring, 1);
    }
    take_all(&ring);
    rc_ring_destroy(&ring);
}

/* The gate as producers last saw it may go back to an older value: claims then look again, and stay
 * exact. */
static void old_gate_seen_is_harmless(void)
{
    rc_ring ring;
    ring_init(&ring, 10, 0, PAGE - 5);
    for (int step = 0; step < 5 * PAGE; step++) {
        uint64_t gate = rc_ring_gate(&ring);
        while (put(&ring, 10) == RC_CLAIMED) continue;
        CHECK_EQUAL(rc_ring_tail(&ring) - gate, 10);
        take(&ring, 1 + step % 10);
        /* what a slow producer may do */
        atomic_store_explicit(&ring.gate_seen, gate, memory_order_release);
    }
    take_all(&ring);
    rc_ring_destroy(&ring);
}

/* Waiting for the gate returns at once where it has moved or the ring is closed, and else sleeps.
 */
static void awaits_the_gate(void)
{
    rc_ring ring;
    ring_init(&ring, 1, 1, 0);
    CHECK_EQUAL(put(&ring, 1), RC_CLAIMED);
    rc_ring_await_gate(&ring, 0, 1000000); /* it has not moved: this one times out */
    take_all(&ring);
    rc_ring_await_gate(&ring, 0, RC_FOREVER);
    CHECK_EQUAL(put(&ring, 1), RC_CLAIMED);
    rc_ring_close(&ring);
    rc_ring_await_gate(&ring, 1, RC_FOREVER);
    CHECK_EQUAL(rc_u32_load(&ring.room.waiters), 0);
    take_all(&ring);
    rc_ring_destroy(&ring);
}

/* --- several threads -------------------------------------------------------------------------- */

/* An event that tells who published it. Its fields are plain: the ring alone hands them over, and
 * ThreadSanitizer and AddressSanitizer see a reader that is too early or too late. */
typedef struct event {
    uint64_t magic;
    uint32_t producer;
    uint32_t number;
} event;

enum { MAGIC = 0x52494e47, PRODUCERS_MOST = 4, CONSUMERS_MOST = 3 };

typedef struct consumer {
    RC_ALIGNED rc_u64 cursor;
    struct flow *flow;
    uint64_t seen;
    uint32_t next[PRODUCERS_MOST]; /* the number expected from each producer */
} consumer;

typedef struct producer {
    struct flow *flow;
    uint32_t id;
    uint64_t accepted;
    int refused; /* by close */
} producer;

typedef struct flow {
    rc_ring ring;
    uint32_t producers, consumers;
    uint32_t each; /* events of each producer */
    uint64_t start;
    rc_u32 over; /* all producers have ended */
    rc_mutex releasing;
    uint64_t released;
    consumer consumer[CONSUMERS_MOST];
    producer producer[PRODUCERS_MOST];
} flow;

/* publish as a thread outside the workers does it. Returns 0 when the ring is closed. */
static int publish_waiting(rc_ring *ring, void *what)
{
    rc_slot *slot;
    for (;;) {
        uint64_t gate = rc_ring_gate(ring);
        rc_claim claim = rc_ring_claim(ring, ring->max_queue, &slot);
        if (claim == RC_CLAIMED) break;
        CHECK(claim != RC_NO_MEMORY);
        if (claim == RC_CLOSED) return 0;
        rc_ring_await_gate(ring, gate, RC_FOREVER);
    }
    rc_ring_publish(slot, what);
    return 1;
}

static void *produce(void *argument)
{
    producer *me = argument;
    for (uint32_t number = 0; number < me->flow->each; number++) {
        event *made = malloc(sizeof *made);
        CHECK(made != NULL);
        *made = (event){MAGIC, me->id, number};
        if (!publish_waiting(&me->flow->ring, made)) {
            free(made);
            me->refused = 1;
            break;
        }
        me->accepted++;
    }
    return NULL;
}

/* The releaser: empties what all cursors have passed. Any consumer may do it, one at a time. */
static void release_passed(flow *all)
{
    uint64_t gate, least;
    rc_mutex_lock(&all->releasing);
    gate = rc_ring_gate(&all->ring);
    least = rc_u64_load(&all->consumer[0].cursor);
    for (uint32_t at = 1; at < all->consumers; at++) {
        uint64_t cursor = rc_u64_load(&all->consumer[at].cursor);
        if (cursor < least) least = cursor;
    }
    for (uint64_t position = gate; position < least; position++) {
        event *gone = rc_ring_take(&all->ring, position);
        CHECK_EQUAL(gone->magic, MAGIC);
        gone->magic = 0;
        free(gone);
        all->released++;
    }
    if (gate < least) rc_ring_move_gate(&all->ring, least);
    rc_mutex_unlock(&all->releasing);
}

static void *consume(void *argument)
{
    consumer *me = argument;
    flow *all = me->flow;
    uint64_t position = rc_u64_load(&me->cursor);
    for (;;) {
        uint32_t over = rc_u32_load(&all->over); /* read first: nothing is published after it */
        uint64_t end = rc_ring_published(&all->ring, position, 100);
        uint64_t waiting = rc_ring_tail(&all->ring) - rc_ring_gate(&all->ring);
        /* the gate may be newer than the tail */
        CHECK(waiting <= all->ring.max_queue || (int64_t)waiting < 0);
        if (position == end) {
            if (over && position == rc_ring_tail(&all->ring)) break;
            sched_yield();
            continue;
        }
        while (position < end) {
            uint64_t run = rc_ring_run(position, end);
            rc_slot *slot = rc_ring_slot(&all->ring, position);
            for (uint64_t at = 0; at < run; at++) {
                event *got = rc_slot_event(slot + at);
                CHECK_EQUAL(got->magic, MAGIC);
                CHECK(got->producer < all->producers);
                /* none lost, none twice, none overtaken */
                CHECK_EQUAL(got->number, me->next[got->producer]);
                me->next[got->producer]++;
                me->seen++;
            }
            position += run;
        }
        rc_u64_store(&me->cursor, position);
        release_passed(all);
    }
    return NULL;
}

/* Runs it and checks that every consumer has seen what was accepted. `close_after`: close when so
 * many were released. */
static void run_flow(
    uint32_t producers, uint32_t consumers, uint32_t each, uint64_t max_queue, uint64_t start,
    uint64_t close_after
)
{
    static flow all;
    pthread_t making[PRODUCERS_MOST], taking[CONSUMERS_MOST];
    uint64_t accepted = 0;
    int refused = 0;
    memset(&all, 0, sizeof all);
    all.producers = producers;
    all.consumers = consumers;
    all.each = each;
    ring_init(&all.ring, max_queue, 0, start);
    CHECK(rc_mutex_init(&all.releasing) == 0);
    for (uint32_t at = 0; at < consumers; at++) {
        all.consumer[at].flow = &all;
        rc_u64_store(&all.consumer[at].cursor, start);
    }
    for (uint32_t at = 0; at < consumers; at++)
        taking[at] = thread_start(consume, &all.consumer[at]);
    for (uint32_t at = 0; at < producers; at++) {
        all.producer[at].flow = &all;
        all.producer[at].id = at;
        making[at] = thread_start(produce, &all.producer[at]);
    }
    if (close_after > 0) {
        while (rc_ring_gate(&all.ring) - start < close_after) sched_yield();
        rc_ring_close(&all.ring);
    }
    for (uint32_t at = 0; at < producers; at++) {
        thread_join(making[at]);
        accepted += all.producer[at].accepted;
        refused += all.producer[at].refused;
    }
    rc_u32_store(&all.over, 1);
    for (uint32_t at = 0; at < consumers; at++) thread_join(taking[at]);
    for (uint32_t at = 0; at < consumers; at++) {
        CHECK_EQUAL(all.consumer[at].seen, accepted);
        for (uint32_t from = 0; from < producers; from++)
            CHECK_EQUAL(all.consumer[at].next[from], all.producer[from].accepted);
    }
    if (close_after == 0) CHECK_EQUAL(accepted, (uint64_t)producers * each);
    if (close_after > 0) CHECK_EQUAL(refused, producers);
    CHECK_EQUAL(rc_ring_tail(&all.ring) - start, accepted);
    CHECK_EQUAL(rc_ring_gate(&all.ring), rc_ring_tail(&all.ring));
    CHECK_EQUAL(all.released, accepted);
    CHECK_EQUAL(rc_u32_load(&all.ring.room.waiters), 0);
    rc_mutex_destroy(&all.releasing);
    rc_ring_destroy(&all.ring);
}

/* One producer and one consumer, the queue as small as it gets: each event waits for the one
 * before. */
static void flows_through_one_slot(void) { run_flow(1, 1, 3000, 1, 0, 0); }

/* Several producers that wait for room in the smallest queue: the park wakes them all, nobody is
 * forgotten. */
static void producers_share_one_slot(void) { run_flow(4, 2, 700, 1, PAGE - 1, 0); }

/* A small queue, producers that wait for room most of the time, several cursors. */
static void small_queue_loses_nothing(void)
{
    run_flow(4, 3, 3000, 7, (UINT64_C(1) << 62) - 5000, 0);
}

/* A queue of about a page: pages are attached and detached at every lap by all at once. */
static void pages_come_and_go(void)
{
    run_flow(4, 2, 7000, PAGE - 1, 3, 0);
    run_flow(3, 2, 7000, PAGE, PAGE / 2, 0);
    run_flow(3, 2, 7000, PAGE + 1, 0, 0);
}

/* Several threads, up to the last position. */
static void flows_up_to_the_last_position(void)
{
    run_flow(4, 2, 3000, PAGE, RC_RING_CLOSED - 1 - 4 * 3000, 0);
    run_flow(3, 2, 3000, 5, RC_RING_CLOSED - 1 - 3 * 3000, 0);
    run_flow(3, 2, 100000, PAGE, RC_RING_CLOSED - 1 - 3 * 100000, 2000); /* and closed on the way */
}

/* A queue that never fills: producers run free of the consumers. */
static void large_queue_loses_nothing(void) { run_flow(4, 2, 9000, 50000, 11, 0); }

/* close in the middle: what was accepted is delivered, and producers that wait for room are let go.
 */
static void close_lets_waiting_producers_go(void)
{
    for (uint64_t round = 0; round < 25; round++)
        run_flow(3, 1, UINT32_MAX, 1 + round % 5, round * 100, 1 + round * 7);
}

static void *publish_one(void *argument)
{
    CHECK(publish_waiting(argument, numbered(7)));
    return NULL;
}

/* A gate that moves by several at once wakes all who wait: there is room for each. */
static void one_move_of_the_gate_wakes_all(void)
{
    for (int round = 0; round < 50; round++) {
        rc_ring ring;
        pthread_t waiting[3];
        ring_init(&ring, 3, 0, 0);
        for (int at = 0; at < 3; at++) CHECK_EQUAL(put(&ring, 3), RC_CLAIMED);
        for (int at = 0; at < 3; at++) waiting[at] = thread_start(publish_one, &ring);
        while (rc_u32_load_seq(&ring.room.waiters) < 3) sched_yield();
        take(&ring, 3);
        for (int at = 0; at < 3; at++) thread_join(waiting[at]);
        for (uint64_t position = 3; position < 6; position++)
            CHECK(rc_ring_take(&ring, position) == numbered(7));
        rc_ring_move_gate(&ring, 6);
        rc_ring_destroy(&ring);
    }
}

static void *close_soon(void *argument)
{
    rc_ring *ring = argument;
    while (rc_u32_load_seq(&ring->room.waiters) == 0) sched_yield();
    rc_ring_close(ring);
    return NULL;
}

/* A producer that waits for room in a ring that nobody empties is woken by close. */
static void close_wakes_a_sleeper(void)
{
    for (int round = 0; round < 200; round++) {
        rc_ring ring;
        pthread_t closer;
        ring_init(&ring, 1, 0, 0);
        CHECK_EQUAL(put(&ring, 1), RC_CLAIMED);
        closer = thread_start(close_soon, &ring);
        CHECK(!publish_waiting(&ring, numbered(1)));
        thread_join(closer);
        take_all(&ring);
        rc_ring_destroy(&ring);
    }
}

typedef struct late {
    rc_ring ring;
    rc_slot *slot;
    meeting start;
    uint64_t position;
} late;

static void *publish_late(void *argument)
{
    late *test = argument;
    meet(&test->start);
    for (uint64_t spins = test->position % 7 * 400; spins > 0; spins--) rc_cpu_relax();
    rc_ring_publish(test->slot, numbered(test->position));
    return NULL;
}

/* Whoever finds a position claimed and not published can wait for it, and then has the event. */
static void awaits_a_slow_producer(void)
{
    static late test;
    ring_init(&test.ring, 10, 0, 0);
    test.start.count = 2;
    for (test.position = 0; test.position < 200; test.position++) {
        pthread_t slow;
        CHECK_EQUAL(rc_ring_claim(&test.ring, 10, &test.slot), RC_CLAIMED);
        slow = thread_start(publish_late, &test);
        meet(&test.start);
        rc_ring_await_event(&test.ring, test.position);
        CHECK_EQUAL(rc_ring_published(&test.ring, test.position, 1), test.position + 1);
        thread_join(slow);
        take(&test.ring, 1);
    }
    rc_ring_destroy(&test.ring);
}

int main(void)
{
    RUN(holds_exactly_max_queue);
    RUN(room_comes_back_one_by_one);
    RUN(reserve_is_beyond_max_queue);
    RUN(a_look_says_what_a_claim_would_come_to);
    RUN(closed_refuses_claims);
    RUN(serves_up_to_the_last_position);
    RUN(allocates_at_the_first_claim);
    RUN(large_limit_takes_no_memory);
    RUN(has_a_page_more_than_the_limit);
    RUN(little_waiting_uses_two_pages);
    RUN(burst_gives_its_pages_back);
    RUN(published_ends_at_a_hole);
    RUN(run_ends_with_the_page);
    RUN(stale_producer_is_harmless);
    RUN(old_gate_seen_is_harmless);
    RUN(awaits_the_gate);
    RUN(flows_through_one_slot);
    RUN(producers_share_one_slot);
    RUN(small_queue_loses_nothing);
    RUN(pages_come_and_go);
    RUN(flows_up_to_the_last_position);
    RUN(large_queue_loses_nothing);
    RUN(close_lets_waiting_producers_go);
    RUN(one_move_of_the_gate_wakes_all);
    RUN(close_wakes_a_sleeper);
    RUN(awaits_a_slow_producer);
    return 0;
}
