/* Without memory: each allocation in turn fails; the call says so, nothing is lost or leaks, and it
 * goes on later. */
/* build: -DRC_FAIL_ALLOC */
#define _GNU_SOURCE
#include "../rc_mail.h"
#include "../rc_memory.h"
#include "../rc_pool.h"
#include "../rc_registry.h"
#include "../rc_ring.h"
#include "check.h"
#include "host.h"

static void *numbered(uint64_t number) { return (void *)(uintptr_t)(number + 1); }

static void nothing_fails_any_more(void) { rc_fail_alloc(0, 0); }

/* `make` makes something and takes it apart again; it returns 0, or -1 where it could not be made.
 * Runs it with each of its allocations failing, until there are no more of them. Returns how many
 * there were. */
static uint64_t fail_each(int (*make)(void))
{
    uint64_t live = rc_alloc_live(), at = 0;
    for (;; at++) {
        int failed;
        rc_fail_alloc(at, 1);
        failed = make();
        CHECK_EQUAL(rc_alloc_live(), live);
        if (rc_alloc_count() <= at) { /* it made fewer: none has failed */
            CHECK_EQUAL(failed, 0);
            break;
        }
        CHECK_EQUAL(failed, -1);
    }
    nothing_fails_any_more();
    return at;
}

static int make_park(void)
{
    rc_park park;
    if (rc_park_init(&park) != 0) return -1;
    rc_park_destroy(&park);
    return 0;
}

static int make_mail(void)
{
    rc_mail mail;
    if (rc_mail_init(&mail, 10) != 0) return -1;
    rc_mail_destroy(&mail);
    return 0;
}

static int make_registry(void)
{
    rc_registry registry;
    if (rc_registry_init(&registry) != 0) return -1;
    rc_registry_destroy(&registry);
    return 0;
}

static int make_pool(void)
{
    rc_pool pool;
    if (rc_pool_init(&pool, &no_host, NULL, 3, 0, 1, 1000000, 1000000) != 0) return -1;
    rc_pool_destroy(&pool);
    return 0;
}

static int make_ring(void)
{
    rc_ring ring;
    if (rc_ring_init(&ring, 10, 10, 0) != 0) return -1;
    rc_ring_destroy(&ring);
    return 0;
}

/* What cannot be made says so and leaves nothing behind. (Also a mutex or a park that the system
 * refuses.) */
static void making_fails_cleanly(void)
{
    CHECK_EQUAL(fail_each(make_park), 1);
    CHECK_EQUAL(fail_each(make_mail), 1);
    CHECK_EQUAL(fail_each(make_ring), 1);
    CHECK_EQUAL(fail_each(make_registry), 2); /* the table, the mutex */
    CHECK_EQUAL(fail_each(make_pool), 5);     /* the workers, the mutex, three parks */
}

static rc_claim put(rc_ring *ring, uint64_t limit)
{
    rc_slot *slot;
    uint64_t position = rc_ring_tail(ring);
    rc_claim claim = rc_ring_claim(ring, limit, &slot);
    if (claim == RC_CLAIMED) rc_ring_publish(slot, numbered(position));
    CHECK_EQUAL(rc_ring_tail(ring), position + (claim == RC_CLAIMED));
    return claim;
}

static void take_all(rc_ring *ring)
{
    uint64_t position = rc_ring_gate(ring), tail = rc_ring_tail(ring);
    for (; position < tail; position++) CHECK(rc_ring_take(ring, position) == numbered(position));
    rc_ring_move_gate(ring, tail);
}

/* A claim that finds no memory for its page takes no position: the next one that does gets it. */
static void claims_without_memory_are_refused(void)
{
    const uint64_t starts[] = {0, RC_PAGE_SLOTS - 1, (UINT64_C(1) << 62) + 5};
    uint64_t live = rc_alloc_live();
    for (size_t start = 0; start < sizeof starts / sizeof starts[0]; start++) {
        rc_ring ring;
        uint64_t attempts = 0, accepted = 0;
        CHECK(rc_ring_init(&ring, 5000, 0, starts[start]) == 0);
        for (uint64_t fails = 1; fails <= 2; fails++) { /* the table of pages, and then the page */
            rc_fail_alloc(fails - 1, 1);
            CHECK_EQUAL(put(&ring, 5000), RC_NO_MEMORY);
        }
        rc_fail_alloc(0, UINT64_MAX); /* for good: all that has room in attached pages goes on */
        CHECK_EQUAL(put(&ring, 5000), RC_NO_MEMORY);
        rc_fail_alloc(1, UINT64_MAX);
        while (put(&ring, 5000) == RC_CLAIMED) accepted++;
        CHECK_EQUAL(accepted, RC_PAGE_SLOTS - starts[start] % RC_PAGE_SLOTS);
        CHECK_EQUAL(put(&ring, 5000), RC_NO_MEMORY);
        take_all(&ring);
        CHECK_EQUAL(put(&ring, 5000), RC_CLAIMED); /* in the page that was given back: the spare */
        take_all(&ring);
        nothing_fails_any_more();
        for (int lap = 0; lap < 4; lap++) { /* every second attempt for a page fails */
            for (accepted = 0; accepted < 5000;) {
                rc_claim claim;
                rc_fail_alloc(0, attempts % 2 == 0);
                claim = put(&ring, 5000);
                CHECK_EQUAL(
                    claim, rc_alloc_count() != 0 && attempts % 2 == 0 ? RC_NO_MEMORY : RC_CLAIMED
                );
                accepted += claim == RC_CLAIMED;
                attempts += rc_alloc_count() != 0;
            }
            CHECK_EQUAL(put(&ring, 5000), RC_FULL);
            take_all(&ring);
        }
        CHECK(attempts > 40);
        nothing_fails_any_more();
        rc_ring_close(&ring);
        rc_fail_alloc(0, 1);
        CHECK_EQUAL(put(&ring, 5000), RC_CLOSED); /* closed before out of memory */
        nothing_fails_any_more();
        rc_ring_destroy(&ring);
        CHECK_EQUAL(rc_alloc_live(), live);
    }
}

/* A mailbox that cannot grow counts as full with what it has: every event is kept or handed back,
 * and counted. */
static void mailbox_without_memory_is_full(void)
{
    uint64_t live = rc_alloc_live();
    for (int keep_newest = 0; keep_newest <= 1; keep_newest++)
        for (uint64_t grows = 0; grows <= 4; grows++) {
            rc_mail mail;
            uint64_t dropped = 0, missed = 0, last = 0, missed_in_all = 0,
                     room = grows == 0 ? 0 : UINT64_C(4) << grows;
            CHECK(rc_mail_init(&mail, 1000) == 0);
            rc_fail_alloc(grows, UINT64_MAX);
            for (uint64_t number = 1; number <= 100; number++)
                dropped += rc_mail_put(&mail, (void *)(uintptr_t)number, keep_newest) != NULL;
            CHECK_EQUAL(rc_mail_size(&mail), room);
            CHECK_EQUAL(dropped, 100 - room);
            nothing_fails_any_more();
            for (uint64_t number = 101; number <= 200; number++) /* and now it has room again */
                CHECK(rc_mail_put(&mail, (void *)(uintptr_t)number, keep_newest) == NULL);
            for (uintptr_t got; (got = (uintptr_t)rc_mail_take(&mail, &missed)) != 0; last = got) {
                /* whoever reads it knows exactly what is missing before it */
                CHECK_EQUAL(got, last + missed + 1);
                missed_in_all += missed;
            }
            CHECK_EQUAL(last, 200);
            CHECK_EQUAL(missed_in_all, dropped);
            rc_mail_destroy(&mail);
            CHECK_EQUAL(rc_alloc_live(), live);
        }
}

/* A registry that cannot grow refuses the key, and keeps and finds all the others. */
static void registry_without_memory_refuses_keys(void)
{
    uint64_t live = rc_alloc_live(), refused = 0;
    rc_registry registry;
    CHECK(rc_registry_init(&registry) == 0);
    for (uint64_t key = 1; key <= 1000;) {
        int failed;
        rc_fail_alloc(0, 1 + refused % 2); /* sometimes twice in a row */
        failed = rc_registry_put(&registry, key, numbered(key));
        if (!failed) {
            key++;
            continue;
        }
        refused++;
        CHECK(rc_registry_find(&registry, key) == NULL);
        CHECK(rc_registry_find_locked(&registry, key) == NULL);
        for (uint64_t other = 1; other < key; other++)
            CHECK(rc_registry_find(&registry, other) == numbered(other));
        /* to replace a value takes no memory */
        CHECK_EQUAL(rc_registry_put(&registry, 1, numbered(1)), 0);
        CHECK(rc_registry_remove(&registry, key) == NULL);
        nothing_fails_any_more();
        CHECK_EQUAL(rc_registry_put(&registry, key, numbered(key)), 0);
        key++;
    }
    nothing_fails_any_more();
    CHECK(refused >= 8); /* once for each doubling */
    for (uint64_t key = 1; key <= 1000; key++)
        CHECK(rc_registry_find(&registry, key) == numbered(key));
    rc_registry_destroy(&registry);
    CHECK_EQUAL(rc_alloc_live(), live);
}

/* --- several threads -------------------------------------------------------------------------- */

enum { PRODUCERS = 3, EACH = 4000 };

typedef struct flow {
    rc_ring ring;
    rc_u64 refused;
    rc_u32 over;
} flow;

static void *produce(void *argument)
{
    flow *all = argument;
    for (uint64_t number = 0; number < EACH;) {
        rc_slot *slot;
        uint64_t gate = rc_ring_gate(&all->ring);
        rc_claim claim = rc_ring_claim(&all->ring, all->ring.max_queue, &slot);
        if (claim == RC_CLAIMED) {
            rc_ring_publish(slot, numbered(number++));
        } else if (claim == RC_NO_MEMORY) {
            rc_u64_count(&all->refused, 1);
            sched_yield();
        } else {
            rc_ring_await_gate(&all->ring, gate, RC_FOREVER);
        }
    }
    return NULL;
}

static void *fail_at_random(void *argument)
{
    flow *all = argument;
    uint64_t state = 7;
    while (rc_u32_load(&all->over) == 0) {
        rc_fail_alloc(next_random(&state) % 3, next_random(&state) % 3);
        sched_yield();
    }
    nothing_fails_any_more();
    return NULL;
}

/* Producers whose claims find no memory now and then: what was accepted is all there, and nothing
 * else. */
static void producers_without_memory_lose_nothing(void)
{
    static flow all;
    pthread_t producers[PRODUCERS], failing;
    uint64_t live = rc_alloc_live(), taken = 0, sum = 0;
    memset(&all, 0, sizeof all);
    CHECK(rc_ring_init(&all.ring, 3 * RC_PAGE_SLOTS, 0, RC_PAGE_SLOTS - 3) == 0);
    failing = thread_start(fail_at_random, &all);
    for (int at = 0; at < PRODUCERS; at++) producers[at] = thread_start(produce, &all);
    while (taken < PRODUCERS * EACH) {
        uint64_t gate = rc_ring_gate(&all.ring), end = rc_ring_published(&all.ring, gate, 300);
        for (uint64_t position = gate; position < end; position++, taken++)
            sum += (uintptr_t)rc_ring_take(&all.ring, position);
        if (gate != end)
            rc_ring_move_gate(&all.ring, end);
        else
            sched_yield();
    }
    for (int at = 0; at < PRODUCERS; at++) thread_join(producers[at]);
    rc_u32_store(&all.over, 1);
    thread_join(failing);
    CHECK_EQUAL(rc_ring_tail(&all.ring), rc_ring_gate(&all.ring));
    CHECK_EQUAL(sum, (uint64_t)PRODUCERS * EACH * (EACH + 1) / 2);
    rc_ring_destroy(&all.ring);
    CHECK_EQUAL(rc_alloc_live(), live);
}

int main(void)
{
    RUN(making_fails_cleanly);
    RUN(claims_without_memory_are_refused);
    RUN(mailbox_without_memory_is_full);
    RUN(registry_without_memory_refuses_keys);
    RUN(producers_without_memory_lose_nothing);
    return 0;
}
