#include "rc_record.h"

#include "rc_memory.h"

int rc_record_ring_init(
    rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start, size_t record_size
)
{
    assert(record_size > 0);
    if (rc_ring_init(ring, max_queue, reserve, start) != 0) return -1;
    ring->record_size = record_size;
    return 0;
}

rc_record_page *rc_record_page_new(size_t record_size)
{
    /* zeroed, the bytes too: what a batch shows beside its records is never another's memory */
    rc_record_page *page = rc_aligned_zalloc(sizeof *page + RC_PAGE_SLOTS * record_size);
    if (page != NULL) atomic_init(&page->holders, 1);
    return page;
}

void rc_record_page_drop(rc_record_page *page)
{
    /* acq_rel: what each holder has read was read before the page is freed */
    if (atomic_fetch_sub_explicit(&page->holders, 1, memory_order_acq_rel) == 1)
        rc_aligned_free(page);
}

int rc_record_page_empty(rc_record_page *page)
{
    /* acq_rel: as in rc_record_page_drop, but for the page's next use */
    if (atomic_fetch_sub_explicit(&page->holders, 1, memory_order_acq_rel) != 1) return 0;
    /* relaxed: nobody else knows the page; the ring's recycle() and attach() hand it on */
    atomic_store_explicit(&page->holders, 1, memory_order_relaxed);
    for (uint64_t at = 0; at < RC_PAGE_SLOTS; at++)
        atomic_store_explicit(&page->runs[at], 0, memory_order_relaxed);
    return 1;
}

uint64_t rc_record_published(const rc_ring *ring, uint64_t position, uint64_t most)
{
    /* acquire: a position below the tail has its page attached before it was claimed */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire) & ~RC_RING_CLOSED,
             end = position;
    while (end != tail && end - position < most) {
        rc_record_page *page = rc_ring_page(ring, end);
        /* acquire: pairs with rc_record_publish */
        uint64_t count = atomic_load_explicit(
            &page->runs[end % RC_PAGE_SLOTS], memory_order_acquire
        );
        if (count == 0) break;
        end += count;
    }
    return end;
}

void rc_record_abandon(rc_ring *ring)
{
    rc_park_init(&ring->room); /* anew: threads that are not here any more may have waited in it */
    rc_record_move_gate(ring, rc_ring_tail(ring));
}

void rc_record_move_gate(rc_ring *ring, uint64_t gate)
{
    uint64_t position = rc_ring_gate(ring);
    if (gate <= position) return;
    for (uint64_t last = position | (RC_PAGE_SLOTS - 1); last < gate; last += RC_PAGE_SLOTS)
        rc_ring_detach(ring, last);
    rc_ring_move_gate(ring, gate);
}
