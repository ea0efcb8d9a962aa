#include "rc_ring.h"

#include "rc_memory.h"
#include "rc_record.h"

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#define yield_processor() SwitchToThread()
#else
#include <sched.h>
#define yield_processor() sched_yield()
#endif

int rc_ring_init(rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start)
{
    /* a page more than the limit (invariant 3), rounded up to a power of two of pages */
    uint64_t least = (max_queue + reserve + RC_PAGE_SLOTS - 1) / RC_PAGE_SLOTS + 1, count = 1;
    while (count < least) count *= 2;
    memset(ring, 0, sizeof *ring);
    atomic_init(&ring->tail, start);
    atomic_init(&ring->gate_seen, start);
    atomic_init(&ring->gate, start);
    ring->page_mask = count - 1;
    ring->max_queue = max_queue;
    ring->reserve = reserve;
    return rc_park_init(&ring->room);
}

static void *new_page(const rc_ring *ring)
{
    return ring->record_size ? (void *)rc_record_page_new(ring->record_size)
                             : rc_aligned_zalloc(sizeof(rc_page));
}

static void free_page(const rc_ring *ring, void *page)
{
    if (ring->record_size && page != NULL)
        rc_record_page_drop(page);
    else
        rc_aligned_free(page);
}

void rc_ring_destroy(rc_ring *ring)
{
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_relaxed);
    assert(rc_ring_tail(ring) == rc_ring_gate(ring));
    if (pages != NULL)
        for (uint64_t at = 0; at <= ring->page_mask; at++)
            free_page(ring, atomic_load_explicit(&pages[at], memory_order_relaxed));
    rc_free(pages);
    free_page(ring, atomic_load_explicit(&ring->spare, memory_order_relaxed));
    rc_park_destroy(&ring->room);
}

void rc_ring_close(rc_ring *ring)
{
    /* seq_cst: after it whoever prepares to wait for room finds the ring closed, or is woken here
     */
    atomic_fetch_or_explicit(&ring->tail, RC_RING_CLOSED, memory_order_seq_cst);
    rc_park_wake_all(&ring->room);
}

/* The table of pages, made at the first claim: most topics of a large program never see an event.
 */
static rc_page_ref *page_table(rc_ring *ring)
{
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_acquire), *none = NULL;
    if (pages != NULL) return pages;
    pages = rc_zalloc((ring->page_mask + 1) * sizeof *pages);
    if (pages == NULL) return NULL;
    /* acq_rel: the zeros are there for the others; acquire: or theirs for us */
    if (atomic_compare_exchange_strong_explicit(
            &ring->pages, &none, pages, memory_order_acq_rel, memory_order_acquire
        ))
        return pages;
    rc_free(pages);
    return none;
}

/* Keeps an empty page for the next attach, or frees it. */
static void recycle(rc_ring *ring, void *page)
{
    void *none = NULL;
    /* release: the page's NULLs are there for attach() */
    if (!atomic_compare_exchange_strong_explicit(
            &ring->spare, &none, page, memory_order_release, memory_order_relaxed
        ))
        free_page(ring, page);
}

/* Attaches a page for `position`. Several producers may try at once; one page stays. A producer
 * whose position is out of date attaches an empty page early, for a later lap: no harm. */
static int attach(rc_ring *ring, uint64_t position)
{
    rc_page_ref *pages = page_table(ring), *at;
    void *page, *none = NULL;
    if (pages == NULL) return -1;
    at = &pages[(position / RC_PAGE_SLOTS) & ring->page_mask];
    if (atomic_load_explicit(at, memory_order_acquire) != NULL) return 0;
    page = atomic_exchange_explicit(&ring->spare, NULL, memory_order_acquire); /* with recycle() */
    if (page == NULL) page = new_page(ring);
    if (page == NULL) return -1;
    /* release: the slots are NULL for whoever acquires the page */
    if (!atomic_compare_exchange_strong_explicit(
            at, &none, page, memory_order_release, memory_order_relaxed
        ))
        recycle(ring, page);
    return 0;
}

rc_claim rc_ring_claim_slow(rc_ring *ring, uint64_t position, uint64_t limit)
{
    uint64_t gate;
    if (position & RC_RING_CLOSED) return RC_CLOSED;
    /* seq_cst: in a producer's loop of prepare, claim, wait this is the look at the condition
     * (rc_park.h) */
    gate = atomic_load_explicit(&ring->gate, memory_order_seq_cst);
    if (position - gate >= limit) {
        /* the position may be out of date, and the ring closed or moved on meanwhile */
        uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_seq_cst);
        if (tail & RC_RING_CLOSED) return RC_CLOSED;
        return tail == position ? RC_FULL : RC_CLAIMED;
    }
    /* release: hands on what the load of the gate acquired. An older value than another producer's
     * may overwrite it; that only makes the next claim look again. */
    atomic_store_explicit(&ring->gate_seen, gate, memory_order_release);
    return attach(ring, position) == 0 ? RC_CLAIMED : RC_NO_MEMORY;
}

void rc_ring_detach(rc_ring *ring, uint64_t position)
{
    rc_page_ref *pages = atomic_load_explicit(&ring->pages, memory_order_relaxed);
    rc_page_ref *at = &pages[(position / RC_PAGE_SLOTS) & ring->page_mask];
    void *page = atomic_load_explicit(at, memory_order_relaxed);
    atomic_store_explicit(at, NULL, memory_order_relaxed); /* released by rc_ring_move_gate */
    /* it is now that of the batches which read it */
    if (ring->record_size && !rc_record_page_empty(page)) return;
    recycle(ring, page);
}

void rc_ring_await_gate(rc_ring *ring, uint64_t gate, int64_t timeout)
{
    uint32_t ticket = rc_park_prepare(&ring->room);
    /* seq_cst on both: the condition of the park */
    if ((atomic_load_explicit(&ring->tail, memory_order_seq_cst) & RC_RING_CLOSED) ||
        atomic_load_explicit(&ring->gate, memory_order_seq_cst) != gate)
        rc_park_cancel(&ring->room);
    else
        rc_park_wait(&ring->room, ticket, timeout);
}

void rc_ring_pause(unsigned spins)
{
    enum { SPINS = 200 };
    if (spins < SPINS)
        rc_cpu_relax();
    else
        yield_processor();
}

void rc_ring_await_event(const rc_ring *ring, uint64_t position)
{
    rc_slot *slot = rc_ring_slot(ring, position);
    for (unsigned spins = 0; atomic_load_explicit(slot, memory_order_acquire) == NULL; spins++)
        rc_ring_pause(spins);
}

void rc_ring_abandon(rc_ring *ring, void *kept)
{
    uint64_t end = rc_ring_tail(ring) - (kept != NULL);
    rc_park_init(&ring->room); /* anew: threads that are not here any more may have waited in it */
    for (uint64_t position = rc_ring_gate(ring); position != end; position++)
        rc_ring_take(ring, position);
    if (kept != NULL) atomic_store_explicit(rc_ring_slot(ring, end), kept, memory_order_relaxed);
    rc_ring_move_gate(ring, end);
}
