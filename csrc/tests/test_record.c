/* rc_record, and claims of several positions at once: every accepted record once, in order, to
 * every cursor; what was handed out of a page stays as it was for as long as the page is held. */
/* build: -DRC_FAIL_ALLOC */
#define _GNU_SOURCE
#include "../rc_memory.h"
#include "../rc_mutex.h"
#include "../rc_record.h"
#include "check.h"

enum { PAGE = RC_PAGE_SLOTS, SIZE_MOST = 200, RUN_MOST = 3 * PAGE };

/* --- one thread ------------------------------------------------------------------------------- */

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
};
static const size_t sizes[] = {1, 3, 8, 16, 24, SIZE_MOST};
#define EACH(index, array) (size_t index = 0; index < sizeof(array) / sizeof(array)[0]; index++)

static void
ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start, size_t record_size)
{
    CHECK(rc_record_ring_init(ring, max_queue, reserve, start, record_size) == 0);
}

/* The byte at `offset` of the record that the tests with one thread write at a position: no two
 * near ones are alike. */
static unsigned char byte_at(uint64_t position, size_t offset)
{
    uint64_t mixed = (position * 31 + offset + 1) * UINT64_C(0x9E3779B97F4A7C15);
    return (unsigned char)(mixed >> 56);
}

static void fill(unsigned char *records, uint64_t position, uint64_t count, size_t record_size)
{
    for (uint64_t at = 0; at < count; at++)
        for (size_t offset = 0; offset < record_size; offset++)
            records[at * record_size + offset] = byte_at(position + at, offset);
}

static void
check_filled(const unsigned char *records, uint64_t position, uint64_t count, size_t record_size)
{
    for (uint64_t at = 0; at < count; at++)
        for (size_t offset = 0; offset < record_size; offset++)
            CHECK_EQUAL(records[at * record_size + offset], byte_at(position + at, offset));
}

/* Publishes up to `count` records, run by run, as long as there is room. Returns how many. */
static uint64_t put(rc_ring *ring, uint64_t limit, uint64_t count)
{
    static unsigned char records[RUN_MOST * SIZE_MOST];
    uint64_t done = 0, tail = rc_ring_tail(ring);
    CHECK(count <= RUN_MOST);
    fill(records, tail, count, ring->record_size);
    while (done < count) {
        rc_run run;
        uint64_t waiting = rc_ring_tail(ring) - rc_ring_gate(ring),
                 room = limit > waiting ? limit - waiting : 0;
        rc_claim claim = rc_ring_claim_run(ring, limit, count - done, &run);
        if (claim == RC_FULL) {
            CHECK_EQUAL(room, 0);
            break;
        }
        CHECK_EQUAL(claim, RC_CLAIMED);
        CHECK_EQUAL(run.position, tail + done);
        CHECK(run.page == rc_ring_page(ring, run.position));
        CHECK(run.count >= 1 && run.count <= count - done && run.count <= room);
        CHECK(run.position / PAGE == (run.position + run.count - 1) / PAGE); /* side by side */
        rc_record_write(&run, records + done * ring->record_size, ring->record_size);
        rc_record_publish(&run);
        done += run.count;
        CHECK_EQUAL(rc_ring_tail(ring), tail + done);
    }
    return done;
}

/* Reads all that is published from the gate on, checks it, and passes it. */
static void take_all(rc_ring *ring)
{
    uint64_t position = rc_ring_gate(ring), end = rc_record_published(ring, position, UINT64_MAX);
    CHECK_EQUAL(end, rc_ring_tail(ring));
    while (position < end) {
        uint64_t count = rc_ring_run(position, end);
        check_filled(rc_record_at(ring, position), position, count, ring->record_size);
        position += count;
    }
    rc_record_move_gate(ring, end);
    CHECK_EQUAL(rc_ring_gate(ring), end);
}

static int attached_pages(const rc_ring *ring)
{
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_relaxed);
    int count = 0;
    for (uint64_t at = 0; pages != NULL && at <= ring->page_mask; at++)
        count += atomic_load_explicit(&pages[at], memory_order_relaxed) != NULL;
    return count;
}

static rc_record_page *spare(const rc_ring *ring)
{
    return atomic_load_explicit(&ring->spare, memory_order_relaxed);
}

static uint32_t holders(rc_record_page *page) { return rc_u32_load(&page->holders); }

/* Exactly max_queue records may wait, whatever they are claimed with and wherever the positions
 * stand. */
static void holds_exactly_max_queue(void)
{
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                ring_init(&ring, limits[limit], 0, starts[start], 8);
                for (uint64_t lap = 0; lap < 3; lap++) {
                    uint64_t each = lap == 0 ? 1 : lap == 1 ? 7 : RUN_MOST, done = 0, put_now;
                    do done += put_now = put(&ring, ring.max_queue, each);
                    while (put_now == each);
                    CHECK_EQUAL(done, limits[limit]);
                    CHECK_EQUAL(put(&ring, ring.max_queue, 1), 0);
                    take_all(&ring);
                }
                rc_ring_destroy(&ring);
            }
}

/* Room that comes back in any portions is claimed in any portions, exactly up to the limit, and the
 * reserve beyond it. */
static void room_comes_back_in_portions(void)
{
    uint64_t random = 7;
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                uint64_t reserve = limits[(limit + start) % 10], gate;
                ring_init(&ring, limits[limit], reserve, starts[start], 3);
                for (int step = 0; step < 60; step++) {
                    uint64_t end;
                    while (put(&ring, ring.max_queue, 1 + next_random(&random) % 100) > 0) continue;
                    CHECK_EQUAL(rc_ring_tail(&ring) - rc_ring_gate(&ring), ring.max_queue);
                    while (put(&ring, ring.max_queue + reserve, 1 + next_random(&random) % 100) > 0)
                        continue;
                    CHECK_EQUAL(
                        rc_ring_tail(&ring) - rc_ring_gate(&ring), ring.max_queue + reserve
                    );
                    CHECK_EQUAL(put(&ring, ring.max_queue, 5), 0);
                    gate = rc_ring_gate(&ring);
                    end = gate + reserve + next_random(&random) % (ring.max_queue + 1);
                    while (gate < end) { /* the gate may stop anywhere, also inside a run */
                        uint64_t next = gate + 1 + next_random(&random) % (end - gate);
                        for (; gate < next; gate++)
                            check_filled(rc_record_at(&ring, gate), gate, 1, 3);
                        rc_record_move_gate(&ring, gate);
                    }
                }
                /* a reader goes on from the start of a run only: the rest is passed by its end */
                rc_record_move_gate(&ring, rc_ring_tail(&ring));
                rc_ring_destroy(&ring);
            }
}

/* Records of any size are read as they were written, in runs of any length, over the ends of pages.
 */
static void records_of_any_size(void)
{
    uint64_t random = 3;
    for
        EACH(size, sizes)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                ring_init(&ring, 3 * PAGE + 1, 0, starts[start], sizes[size]);
                for (int step = 0; step < 20; step++) {
                    put(&ring, ring.max_queue, 1 + next_random(&random) % RUN_MOST);
                    take_all(&ring);
                }
                rc_ring_destroy(&ring);
            }
}

/* The published prefix ends at the first run that is claimed and not published yet; a run is
 * published as one. */
static void published_ends_at_a_hole(void)
{
    for
        EACH(start, starts)
        {
            rc_ring ring;
            rc_run runs[3];
            unsigned char records[10 * 8];
            uint64_t first = starts[start], ends[3];
            ring_init(&ring, 3 * PAGE, 0, first, 8);
            for (int at = 0; at < 3; at++) {
                CHECK_EQUAL(rc_ring_claim_run(&ring, ring.max_queue, 10, &runs[at]), RC_CLAIMED);
                fill(records, runs[at].position, runs[at].count, 8);
                rc_record_write(&runs[at], records, 8);
                ends[at] = runs[at].position + runs[at].count;
            }
            CHECK_EQUAL(rc_record_published(&ring, first, 100), first);
            rc_record_publish(&runs[1]);
            CHECK_EQUAL(rc_record_published(&ring, first, 100), first);
            CHECK_EQUAL(rc_record_published(&ring, ends[0], 100), ends[1]);
            rc_record_publish(&runs[0]);
            CHECK_EQUAL(rc_record_published(&ring, first, 100), ends[1]);
            CHECK_EQUAL(rc_record_published(&ring, first, 1), ends[0]); /* whole runs */
            CHECK_EQUAL(rc_record_published(&ring, first, ends[0] - first), ends[0]);
            CHECK_EQUAL(rc_record_published(&ring, first, ends[0] - first + 1), ends[1]);
            CHECK_EQUAL(rc_record_published(&ring, first, 0), first);
            rc_record_publish(&runs[2]);
            take_all(&ring);
            rc_ring_destroy(&ring);
        }
}

/* A run of a whole page has its mark too, and the marks are gone when the page is used again. */
static void marks_of_whole_pages(void)
{
    rc_ring ring;
    ring_init(&ring, 2 * PAGE, 0, 0, 8);
    for (int lap = 0; lap < 10; lap++) {
        rc_record_page *page;
        CHECK_EQUAL(put(&ring, ring.max_queue, PAGE), PAGE);
        page = rc_ring_page(&ring, lap * PAGE);
        CHECK_EQUAL(atomic_load(&page->runs[0]), PAGE);
        CHECK_EQUAL(rc_record_published(&ring, lap * PAGE, 1), (lap + 1) * PAGE);
        take_all(&ring);
        CHECK(spare(&ring) == page); /* the same one in each lap */
        for (int at = 0; at < PAGE; at++) CHECK_EQUAL(atomic_load(&page->runs[at]), 0);
    }
    /* runs that differ from lap to lap: a mark that was left behind would be taken for a run */
    for (int lap = 10; lap < 40; lap++) {
        for (uint64_t left = PAGE; left > 0;)
            left -= put(&ring, ring.max_queue, (uint64_t)lap < left ? (uint64_t)lap : left);
        take_all(&ring);
    }
    rc_ring_destroy(&ring);
}

/* A closed ring refuses runs, full or not, and still gives what it had accepted. */
static void closed_refuses_runs(void)
{
    for
        EACH(start, starts)
    for (uint64_t waiting = 0; waiting <= 3; waiting++) {
        rc_ring ring;
        rc_run run;
        ring_init(&ring, 3, 2, starts[start], 16);
        CHECK_EQUAL(put(&ring, 3, waiting), waiting);
        rc_ring_close(&ring);
        CHECK_EQUAL(rc_ring_claim_run(&ring, 3, 1, &run), RC_CLOSED);
        CHECK_EQUAL(rc_ring_claim_run(&ring, 5, 100, &run), RC_CLOSED);
        CHECK_EQUAL(rc_ring_tail(&ring), starts[start] + waiting);
        take_all(&ring);
        CHECK_EQUAL(rc_ring_claim_run(&ring, 5, 100, &run), RC_CLOSED);
        rc_ring_destroy(&ring);
    }
}

/* A ring that never saw a record has allocated nothing; one that is destroyed with a page attached
 * leaks none. */
static void allocates_at_the_first_claim(void)
{
    rc_ring ring;
    ring_init(&ring, 50000, 65536, 0, 4096);
    CHECK(atomic_load_explicit(&ring.pages, memory_order_relaxed) == NULL);
    CHECK_EQUAL(rc_record_published(&ring, 0, 100), 0);
    rc_record_move_gate(&ring, 0);
    rc_ring_destroy(&ring);
}

/* With little waiting the ring keeps to two pages; a burst gives all but the spare back. */
static void pages_come_and_go_again(void)
{
    for
        EACH(start, starts)
        {
            rc_ring ring;
            ring_init(&ring, 50000, 0, starts[start], 16);
            for (int step = 0; step < 40; step++) {
                CHECK_EQUAL(put(&ring, ring.max_queue, 100), 100);
                CHECK(attached_pages(&ring) + (spare(&ring) != NULL) <= 3);
                take_all(&ring);
                CHECK(attached_pages(&ring) <= 1);
            }
            for (int burst = 0; burst < 3; burst++) {
                for (int part = 0; part < 4; part++)
                    CHECK_EQUAL(put(&ring, ring.max_queue, RUN_MOST), RUN_MOST);
                CHECK(attached_pages(&ring) >= 12);
                take_all(&ring);
                CHECK(attached_pages(&ring) <= 1);
                CHECK(spare(&ring) != NULL);
            }
            rc_ring_destroy(&ring);
        }
}

/* A page that a batch holds is not used again, and its records stay as they were; it is freed with
 * its last batch. */
static void held_pages_stay_as_they_were(void)
{
    for
        EACH(start, starts)
        {
            rc_ring ring;
            rc_record_page *page;
            const unsigned char *records;
            uint64_t first = starts[start], count;
            ring_init(&ring, 2 * PAGE, 0, first, 24);
            CHECK_EQUAL(put(&ring, ring.max_queue, 100), 100);
            count = rc_ring_run(first, first + 100);
            page = rc_ring_page(&ring, first);
            records = rc_record_at(&ring, first);
            rc_record_page_hold(page);
            rc_record_page_hold(page); /* a slice of the batch */
            CHECK_EQUAL(holders(page), 3);
            take_all(&ring);
            for (int lap = 0; lap < 20; lap++) {
                CHECK_EQUAL(put(&ring, ring.max_queue, PAGE), PAGE);
                take_all(&ring);
                CHECK(spare(&ring) != page);
                CHECK(rc_ring_page(&ring, rc_ring_tail(&ring)) != page);
                check_filled(records, first, count, 24);
            }
            CHECK_EQUAL(holders(page), 2); /* the ring has let go */
            rc_record_page_drop(page);
            rc_ring_destroy(&ring);
            check_filled(records, first, count, 24); /* it outlives its ring */
            rc_record_page_drop(page);
        }
}

/* A page whose batches have gone before the gate leaves it is used again. */
static void pages_that_were_held_are_used_again(void)
{
    rc_ring ring;
    ring_init(&ring, PAGE, 0, 0, 8);
    for (int lap = 0; lap < 10; lap++) {
        rc_record_page *page;
        CHECK_EQUAL(put(&ring, ring.max_queue, PAGE), PAGE);
        page = rc_ring_page(&ring, rc_ring_gate(&ring));
        rc_record_page_hold(page);
        rc_record_page_drop(page);
        take_all(&ring);
        CHECK(spare(&ring) == page);
        CHECK_EQUAL(holders(page), 1);
    }
    rc_ring_destroy(&ring);
}

/* --- runs of events --------------------------------------------------------------------------- */

static void *numbered(uint64_t position) { return (void *)(uintptr_t)(position + 1); }

/* Runs of events are claimed as those of records: side by side, up to the limit, at least one where
 * there is room. */
static void runs_of_events(void)
{
    for
        EACH(limit, limits)
        for
            EACH(start, starts)
            {
                rc_ring ring;
                uint64_t random = 5 + limit;
                CHECK(rc_ring_init(&ring, limits[limit], 0, starts[start]) == 0);
                for (int step = 0; step < 100; step++) {
                    uint64_t wanted = 1 + next_random(&random) % (2 * PAGE),
                             gate = rc_ring_gate(&ring), end;
                    rc_run run;
                    while (rc_ring_claim_run(&ring, ring.max_queue, wanted, &run) == RC_CLAIMED) {
                        uint64_t room = ring.max_queue - (run.position - gate);
                        uint64_t most = wanted < room ? wanted : room;
                        CHECK_EQUAL(run.count, rc_ring_run(run.position, run.position + most));
                        for (uint64_t at = 0; at < run.count; at++) {
                            CHECK(
                                rc_run_slots(&run) + at == rc_ring_slot(&ring, run.position + at)
                            );
                            rc_ring_publish(rc_run_slots(&run) + at, numbered(run.position + at));
                        }
                    }
                    CHECK_EQUAL(rc_ring_tail(&ring) - gate, ring.max_queue);
                    end = gate + 1 + next_random(&random) % ring.max_queue;
                    CHECK_EQUAL(rc_ring_published(&ring, gate, end - gate), end);
                    for (; gate < end; gate++) CHECK(rc_ring_take(&ring, gate) == numbered(gate));
                    rc_ring_move_gate(&ring, end);
                }
                for (uint64_t gate = rc_ring_gate(&ring); gate < rc_ring_tail(&ring); gate++)
                    CHECK(rc_ring_take(&ring, gate) == numbered(gate));
                rc_ring_move_gate(&ring, rc_ring_tail(&ring));
                rc_ring_destroy(&ring);
            }
}

/* --- several threads -------------------------------------------------------------------------- */

/* A record that tells who published it, and whether it is whole. */
typedef struct trade {
    uint32_t producer;
    uint32_t number;
    uint64_t check;
} trade;

static uint64_t check_of(uint32_t producer, uint32_t number)
{
    return ((uint64_t)producer << 32 | number) * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

enum { PRODUCERS_MOST = 4, CONSUMERS_MOST = 3, KEPT = 16 };

/* What a consumer keeps of what it has read: later it must be as it was. */
typedef struct batch {
    rc_record_page *page;
    const trade *records;
    uint64_t count, sum;
} batch;

typedef struct consumer {
    RC_ALIGNED rc_u64 cursor;
    struct flow *flow;
    uint64_t seen;
    uint64_t random;
    batch kept[KEPT];
    uint32_t next[PRODUCERS_MOST];
} consumer;

typedef struct producer {
    struct flow *flow;
    uint32_t id;
    uint64_t accepted;
    uint64_t random;
    int refused;
} producer;

typedef struct flow {
    rc_ring ring;
    uint32_t producers, consumers, each;
    rc_u32 over;
    rc_mutex lock; /* of the releaser, and of `found` */
    uint64_t found;
    consumer consumer[CONSUMERS_MOST];
    producer producer[PRODUCERS_MOST];
} flow;

static void *produce(void *argument)
{
    producer *me = argument;
    rc_ring *ring = &me->flow->ring;
    trade some[700];
    uint32_t number = 0;
    while (number < me->flow->each && !me->refused) {
        uint64_t most = next_random(&me->random) % 4 == 0 ? 700 : 8;
        uint64_t count = 1 + next_random(&me->random) % most, done = 0;
        if (count > me->flow->each - number) count = me->flow->each - number;
        for (uint64_t at = 0; at < count; at++)
            some[at] = (trade){
                me->id, number + (uint32_t)at, check_of(me->id, number + (uint32_t)at)
            };
        while (done < count) {
            uint64_t gate = rc_ring_gate(ring);
            rc_run run;
            rc_claim claim = rc_ring_claim_run(ring, ring->max_queue, count - done, &run);
            if (claim == RC_CLOSED) {
                me->refused = 1;
                break;
            }
            if (claim == RC_FULL) {
                rc_ring_await_gate(ring, gate, RC_FOREVER);
                continue;
            }
            CHECK_EQUAL(claim, RC_CLAIMED);
            rc_record_write(&run, some + done, sizeof(trade));
            rc_record_publish(&run);
            done += run.count;
        }
        me->accepted += done;
        number += (uint32_t)done;
    }
    return NULL;
}

/* The published prefix; found under the lock, since the gate may stand anywhere inside a run
 * (invariant 5). */
static uint64_t find(flow *all)
{
    uint64_t found;
    rc_mutex_lock(&all->lock);
    found = all->found = rc_record_published(&all->ring, all->found, 1000);
    rc_mutex_unlock(&all->lock);
    return found;
}

static void release_passed(flow *all)
{
    uint64_t least;
    rc_mutex_lock(&all->lock);
    least = all->found;
    for (uint32_t at = 0; at < all->consumers; at++) {
        uint64_t cursor = rc_u64_load(&all->consumer[at].cursor);
        if (cursor < least) least = cursor;
    }
    rc_record_move_gate(&all->ring, least);
    rc_mutex_unlock(&all->lock);
}

static uint64_t sum_of(const trade *records, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t at = 0; at < count; at++) sum = sum * 31 + records[at].check;
    return sum;
}

/* Lets go of a batch, which must be as it was when it was kept. */
static void drop(batch *kept)
{
    if (kept->page == NULL) return;
    CHECK_EQUAL(sum_of(kept->records, kept->count), kept->sum);
    rc_record_page_drop(kept->page);
    kept->page = NULL;
}

static void *consume(void *argument)
{
    consumer *me = argument;
    flow *all = me->flow;
    uint64_t position = rc_u64_load(&me->cursor);
    for (;;) {
        uint32_t over = rc_u32_load(&all->over); /* read first: nothing is published after it */
        uint64_t end = find(all), count;
        if (position == end) {
            if (over && position == rc_ring_tail(&all->ring)) break;
            sched_yield();
            continue;
        }
        if (end - position > 300) end = position + 300; /* as a turn ends: also inside a run */
        while (position < end) {
            const trade *records = rc_record_at(&all->ring, position);
            count = rc_ring_run(position, end);
            if (next_random(&me->random) % 3 == 0) {
                batch *kept = &me->kept[next_random(&me->random) % KEPT];
                drop(kept);
                *kept = (batch){
                    rc_ring_page(&all->ring, position), records, count, sum_of(records, count)
                };
                rc_record_page_hold(kept->page);
            }
            for (uint64_t at = 0; at < count; at++) {
                CHECK(records[at].producer < all->producers);
                /* none lost, none overtaken */
                CHECK_EQUAL(records[at].number, me->next[records[at].producer]);
                CHECK_EQUAL(records[at].check, check_of(records[at].producer, records[at].number));
                me->next[records[at].producer]++;
            }
            me->seen += count;
            position += count;
            rc_u64_store(&me->cursor, position);
        }
        release_passed(all);
    }
    return NULL;
}

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
    all.found = start;
    ring_init(&all.ring, max_queue, 0, start, sizeof(trade));
    CHECK(rc_mutex_init(&all.lock) == 0);
    for (uint32_t at = 0; at < consumers; at++) {
        all.consumer[at].flow = &all;
        all.consumer[at].random = 11 + at;
        rc_u64_store(&all.consumer[at].cursor, start);
    }
    for (uint32_t at = 0; at < consumers; at++)
        taking[at] = thread_start(consume, &all.consumer[at]);
    for (uint32_t at = 0; at < producers; at++) {
        all.producer[at].flow = &all;
        all.producer[at].id = at;
        all.producer[at].random = 101 + at + start;
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
    CHECK_EQUAL(rc_u32_load(&all.ring.room.waiters), 0);
    rc_ring_destroy(&all.ring);
    for (uint32_t at = 0; at < consumers; at++) /* they outlive the ring */
        for (int kept = 0; kept < KEPT; kept++) drop(&all.consumer[at].kept[kept]);
    rc_mutex_destroy(&all.lock);
}

/* One producer and one consumer, the queue as small as it gets. */
static void flows_through_one_place(void) { run_flow(1, 1, 2000, 1, 0, 0); }

/* Several producers that wait for room in a small queue. */
static void small_queue_loses_nothing(void)
{
    run_flow(4, 3, 2000, 7, (UINT64_C(1) << 62) - 9000, 0);
}

/* A queue of about a page: pages are attached, detached and held at every lap by all at once. */
static void pages_come_and_go(void)
{
    run_flow(4, 2, 6000, PAGE - 1, 3, 0);
    run_flow(3, 2, 6000, PAGE, PAGE / 2, 0);
    run_flow(3, 3, 6000, PAGE + 1, 0, 0);
}

/* A queue that never fills. */
static void large_queue_loses_nothing(void) { run_flow(4, 2, 9000, 100000, 11, 0); }

/* close in the middle: what was accepted is delivered, and producers that wait for room are let go.
 */
static void close_lets_waiting_producers_go(void)
{
    for (uint64_t round = 0; round < 20; round++)
        run_flow(3, 1, UINT32_MAX, 1 + round * 60, round * 100, 1 + round * 97);
}

/* --- without memory --------------------------------------------------------------------------- */

/* One claim, of which the outcome is expected. */
static void expect_claim(rc_ring *ring, uint64_t count, rc_claim expected)
{
    unsigned char records[PAGE * 24];
    rc_run run = {0, 0, NULL};
    uint64_t tail = rc_ring_tail(ring);
    CHECK_EQUAL(rc_ring_claim_run(ring, ring->max_queue, count, &run), expected);
    if (expected != RC_CLAIMED) {
        CHECK_EQUAL(rc_ring_tail(ring), tail);
        return;
    }
    fill(records, run.position, run.count, ring->record_size);
    rc_record_write(&run, records, ring->record_size);
    rc_record_publish(&run);
}

/* Without memory for the park, the table or a page, nothing is claimed and nothing leaks; with it,
 * all goes on. */
static void claims_without_memory_are_refused(void)
{
    uint64_t live = rc_alloc_live();
    rc_ring ring;
    rc_fail_alloc(0, 1);
    CHECK(rc_record_ring_init(&ring, 10, 0, 0, 24) == -1); /* its park */
    ring_init(&ring, 3000, 0, PAGE - 2, 24);
    for (uint64_t succeed = 0; succeed < 2; succeed++) { /* the table of pages, and then the page */
        rc_fail_alloc(succeed, 1);
        expect_claim(&ring, 10, RC_NO_MEMORY);
    }
    for (int lap = 0; lap < 5; lap++) {
        while (rc_ring_tail(&ring) - rc_ring_gate(&ring) < 3000) {
            int needs_page;
            rc_fail_alloc(0, 1);
            needs_page = atomic_load(&ring.spare) == NULL &&
                         rc_ring_page(&ring, rc_ring_tail(&ring)) == NULL;
            expect_claim(&ring, 100, needs_page ? RC_NO_MEMORY : RC_CLAIMED);
            rc_fail_alloc(0, 0);
            if (needs_page) expect_claim(&ring, 100, RC_CLAIMED);
        }
        take_all(&ring);
    }
    rc_fail_alloc(0, 0);
    rc_ring_destroy(&ring);
    CHECK_EQUAL(rc_alloc_live(), live);
}

int main(void)
{
    RUN(claims_without_memory_are_refused);
    RUN(holds_exactly_max_queue);
    RUN(room_comes_back_in_portions);
    RUN(records_of_any_size);
    RUN(published_ends_at_a_hole);
    RUN(marks_of_whole_pages);
    RUN(closed_refuses_runs);
    RUN(allocates_at_the_first_claim);
    RUN(pages_come_and_go_again);
    RUN(held_pages_stay_as_they_were);
    RUN(pages_that_were_held_are_used_again);
    RUN(runs_of_events);
    RUN(flows_through_one_place);
    RUN(small_queue_loses_nothing);
    RUN(pages_come_and_go);
    RUN(large_queue_loses_nothing);
    RUN(close_lets_waiting_producers_go);
    return 0;
}
