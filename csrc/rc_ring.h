/* The ring: one bounded log of events, written once and read by any number of cursors.
 *
 *     gate ............ cursors ............ tail ............ gate + limit
 *       seen by all       each subscription    next to claim     no room beyond
 *
 * Producers claim a position with one compare-and-swap of the tail and then store the event in its
 * slot; a slot that is not NULL is published. So a consumer never takes a hole for an event, and no
 * separate sequence number is needed: eight bytes a slot. The releaser empties the slots that all
 * cursors have passed and then moves the gate. After the LMAX Disruptor (sequences, gating) and
 * tokio's broadcast channel (one log, a cursor per receiver).
 *
 * Slots come in pages that are attached when the tail reaches them and detached when the gate
 * leaves them. A topic with little waiting keeps using the same page or two, which stay in the
 * cache and cost 4 KiB; a burst takes as many as it needs and gives them back.
 *
 * What the pages hold is one of two things: pointers to events (this header), or the bytes of
 * records (rc_record.h). Claims, the gate and the pages' coming and going are the same for both.
 *
 * Invariants
 *   1. gate <= each cursor that keeps it back <= tail; the gate is within the published prefix.
 *      A new cursor starts at the tail.
 *   2. A slot is NULL outside [gate, tail), so a producer finds its slot empty.
 *   3. tail - gate <= max_queue + reserve, and the pages hold a page more than that: the page of a
 *      position that can be claimed is never still attached for the lap before.
 *   4. After rc_ring_close no claim succeeds.
 *
 * Who may call what: rc_ring_claim, rc_ring_claim_run, rc_ring_publish, rc_ring_close,
 * rc_ring_tail, rc_ring_gate: any thread. Readers of slots: any thread whose cursor holds the gate
 * back. rc_ring_take, rc_ring_move_gate: one thread at a time, the releaser.
 */
#ifndef RC_RING_H
#define RC_RING_H

#include "rc_atomic.h"
#include "rc_park.h"

#define RC_PAGE_SLOTS UINT64_C(512)
/* In the tail: refuses every claim by itself. So positions end with it; nothing guards against
 * going there, which takes 292 years at an event each nanosecond. */
#define RC_RING_CLOSED (UINT64_C(1) << 63)

typedef _Atomic(void *) rc_slot;
typedef struct rc_page {
    rc_slot slots[RC_PAGE_SLOTS];
} rc_page;
typedef _Atomic(void *) rc_page_ref; /* to an rc_page or, in a ring of records, an rc_record_page */

typedef struct rc_ring {
    /* the producers' line */
    RC_ALIGNED rc_u64 tail;
    rc_u64 gate_seen; /* the gate as a producer last read it: spares others the releaser's line */
    /* the releaser's line */
    RC_ALIGNED rc_u64 gate;
    /* read at each event; of these, `spare` is written once a page, `room` by whoever waits there
     */
    RC_ALIGNED _Atomic(rc_page_ref *) pages; /* NULL until the first claim */
    uint64_t page_mask;
    uint64_t max_queue;
    uint64_t reserve;
    size_t record_size; /* bytes; 0: a ring of events */
    rc_page_ref spare;  /* one detached page, kept for the next attach */
    rc_park room;       /* where producers wait for the gate */
} rc_ring;

_Static_assert(
    offsetof(rc_ring, gate) - offsetof(rc_ring, tail) >= RC_CACHE_LINE, "tail and gate share a line"
);
_Static_assert(
    offsetof(rc_ring, pages) - offsetof(rc_ring, gate) >= RC_CACHE_LINE,
    "gate and pages share a line"
);

typedef enum { RC_CLAIMED, RC_FULL, RC_CLOSED, RC_NO_MEMORY } rc_claim;

/* Positions side by side in one page, that were claimed together. */
typedef struct rc_run {
    uint64_t position; /* the first */
    uint64_t count;
    void *page;
} rc_run;

/* Prepares a ring in which `max_queue` events may wait, and `reserve` more for claims that say so.
 * Positions start at `start` (0, but for tests). Allocates nothing yet. Returns 0, or -1 where no
 * park can be made. */
int rc_ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start);

/* Frees the pages. All events must have been taken, and no other thread may use the ring. */
void rc_ring_destroy(rc_ring *ring);

/* Makes every later claim fail with RC_CLOSED and wakes the waiting producers. Idempotent. */
void rc_ring_close(rc_ring *ring);

/* What rc_ring_claim does when the quick way is barred: reads the gate anew, attaches the page.
 * RC_CLAIMED means: try again. */
rc_claim rc_ring_claim_slow(rc_ring *ring, uint64_t position, uint64_t limit);

/* The page of `position`, which must be attached. */
static inline void *rc_ring_page(const rc_ring *ring, uint64_t position)
{
    /* relaxed: whoever holds a position has acquired it after its page was attached */
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_relaxed);
    return atomic_load_explicit(
        &pages[(position / RC_PAGE_SLOTS) & ring->page_mask], memory_order_relaxed
    );
}

/* The slot of `position`, whose page must be attached. */
static inline rc_slot *rc_ring_slot(const rc_ring *ring, uint64_t position)
{
    return &((rc_page *)rc_ring_page(ring, position))->slots[position % RC_PAGE_SLOTS];
}

/* How many positions from `position` on stand side by side, at most up to `end`. */
static inline uint64_t rc_ring_run(uint64_t position, uint64_t end)
{
    uint64_t left = RC_PAGE_SLOTS - position % RC_PAGE_SLOTS;
    return end - position < left ? end - position : left;
}

/* Claims the next positions, as many as are free below `limit` events (max_queue, or max_queue +
 * reserve), stand side by side, and are wanted: at least one, at most `most`. On RC_CLAIMED the run
 * is the caller's, who must publish all of it soon and without failing. Lock-free: a failed attempt
 * means that another producer has claimed. */
static inline rc_claim rc_ring_claim_run(rc_ring *ring, uint64_t limit, uint64_t most, rc_run *run)
{
    uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        /* acquire: the slots below this gate have been emptied, and their pages detached (release
         * in rc_ring_move_gate, passed on by the release in rc_ring_claim_slow) */
        uint64_t gate = atomic_load_explicit(&ring->gate_seen, memory_order_acquire);
        /* with attach() */
        rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_acquire);
        void *page = NULL;
        uint64_t count = most;
        if (position - gate < limit && pages != NULL) /* a closed tail is far beyond any limit */
            /* acquire: the page's slots are NULL (release in attach()) */
            page = atomic_load_explicit(
                &pages[(position / RC_PAGE_SLOTS) & ring->page_mask], memory_order_acquire
            );
        if (page == NULL) {
            rc_claim claim = rc_ring_claim_slow(ring, position, limit);
            if (claim != RC_CLAIMED) return claim;
            position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
            continue;
        }
        if (most > 1) { /* one there is for certain */
            uint64_t room = limit - (position - gate);
            count = rc_ring_run(position, position + (most < room ? most : room));
        }
        /* seq_cst: the claim is also the publisher's fence. It comes before the publisher's look at
         * whether the topic is scheduled, and pairs with a worker that first unschedules the topic
         * and then reads the tail: one of the two sees the other. */
        if (atomic_compare_exchange_weak_explicit(
                &ring->tail, &position, position + count, memory_order_seq_cst, memory_order_relaxed
            )) {
            run->position = position;
            run->count = count;
            run->page = page;
            return RC_CLAIMED;
        }
    }
}

/* The slots of a claimed run of events. */
static inline rc_slot *rc_run_slots(const rc_run *run)
{
    return &((rc_page *)run->page)->slots[run->position % RC_PAGE_SLOTS];
}

/* Claims one position. On RC_CLAIMED *slot is the caller's, who must rc_ring_publish it soon and
 * without failing. */
static inline rc_claim rc_ring_claim(rc_ring *ring, uint64_t limit, rc_slot **slot)
{
    rc_run run;
    rc_claim claim = rc_ring_claim_run(ring, limit, 1, &run);
    if (claim == RC_CLAIMED) *slot = rc_run_slots(&run);
    return claim;
}

/* What a claim would come to now, without making it: RC_CLAIMED says that it has room and memory,
 * which others may take before it is made. For whoever is to claim in several rings, or in none.
 * Any thread. */
static inline rc_claim rc_ring_look(rc_ring *ring, uint64_t limit)
{
    return rc_ring_claim_slow(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed), limit);
}

/* Waits until the gate has moved from `gate`, or the ring is closed, a signal came, or `timeout`
 * nanoseconds are over (RC_FOREVER: no limit). A producer reads the gate, fails to claim, waits for
 * the gate to move and claims again; what it has concluded from who holds the gate back
 * (rc_pool_may_wait) is true for as long as it waits. Any thread. */
void rc_ring_await_gate(rc_ring *ring, uint64_t gate, int64_t timeout);

/* Wakes those who wait for the gate, also if it has not moved: something else that they go by has
 * changed. */
static inline void rc_ring_wake(rc_ring *ring) { rc_park_wake_all(&ring->room); }

/* For the loop that waits for another thread's next few instructions: relaxes at first, then lets
 * other threads run. */
void rc_ring_pause(unsigned spins);

/* Waits for the producer that has claimed `position` and not yet published it: a few instructions,
 * unless the system has taken the processor from it just there. The caller holds the gate back. */
void rc_ring_await_event(const rc_ring *ring, uint64_t position);

/* Publishes `event` (not NULL) in a claimed slot. Wait-free. */
static inline void rc_ring_publish(rc_slot *slot, void *event)
{
    assert(atomic_load_explicit(slot, memory_order_relaxed) == NULL);
    /* release: the event's contents are there for whoever acquires the slot */
    atomic_store_explicit(slot, event, memory_order_release);
}

/* The next position to be claimed. Wait-free. */
static inline uint64_t rc_ring_tail(const rc_ring *ring)
{
    /* seq_cst: pairs with the claim, see there */
    return atomic_load_explicit(&ring->tail, memory_order_seq_cst) & ~RC_RING_CLOSED;
}

/* What all cursors have passed. Wait-free. */
static inline uint64_t rc_ring_gate(const rc_ring *ring)
{
    return atomic_load_explicit(&ring->gate, memory_order_acquire);
}

/* The end of the published events from `position` on, at most `most` of them. Wait-free. */
static inline uint64_t rc_ring_published(const rc_ring *ring, uint64_t position, uint64_t most)
{
    /* acquire: a position below the tail has its page attached before it was claimed */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire) & ~RC_RING_CLOSED;
    uint64_t end = tail - position < most ? tail : position + most;
    /* acquire: pairs with rc_ring_publish */
    while (position != end &&
           atomic_load_explicit(rc_ring_slot(ring, position), memory_order_acquire) != NULL)
        position++;
    return position;
}

/* The event in a slot known to be published. */
static inline void *rc_slot_event(const rc_slot *slot)
{
    return atomic_load_explicit(slot, memory_order_relaxed); /* rc_ring_published has acquired it */
}

/* Takes the page that ends with `position` out of the ring. Releaser only. */
void rc_ring_detach(rc_ring *ring, uint64_t position);

/* Empties the slot of `position`, the first that was not taken yet, and returns its event. Releaser
 * only. */
static inline void *rc_ring_take(rc_ring *ring, uint64_t position)
{
    rc_slot *slot = rc_ring_slot(ring, position);
    void *event = atomic_load_explicit(slot, memory_order_acquire);
    atomic_store_explicit(slot, NULL, memory_order_relaxed); /* released by rc_ring_move_gate */
    if (position % RC_PAGE_SLOTS == RC_PAGE_SLOTS - 1) rc_ring_detach(ring, position);
    return event;
}

/* Moves the gate to `gate`: what is before it has been taken. Wakes waiting producers. Releaser
 * only. */
static inline void rc_ring_move_gate(rc_ring *ring, uint64_t gate)
{
    /* seq_cst, not release: also pairs with rc_park_prepare, so that a producer that is about to
     * wait for room sees this gate, or is seen waiting */
    atomic_store_explicit(&ring->gate, gate, memory_order_seq_cst);
    rc_park_wake_all(&ring->room);
}

/* In a forked child, before it has a second thread: empties the ring without a look at the events,
 * which are the parent's; but for `kept` (or NULL), which takes the place of the last one.
 * Positions go on as they are. */
void rc_ring_abandon(rc_ring *ring, void *kept);

#endif
