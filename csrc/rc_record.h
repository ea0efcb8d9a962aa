/* Records: events of a fixed binary layout, whose bytes stand in the ring itself.
 *
 * The ring of rc_ring.h, whose pages hold, instead of pointers, records side by side: a reader
 * takes a run of them as one array, and a producer copies its own in as one. Since a record's bytes
 * cannot say whether it is published, the page keeps that beside them: at the first position of
 * each claimed run, how long it is. One store publishes a run of any length, and a reader goes from
 * run to run.
 *
 * Pages are counted, and that is how long a reader may keep what it reads: the ring holds a page
 * while it is attached, and so does each batch that was handed out of it. A page that a batch still
 * holds when the gate leaves it is not used again but freed with its last batch. So nothing that
 * was handed out is ever overwritten.
 *
 * Invariants, beside those of the ring
 *   5. A reader goes on only from the start of a run: from a position that rc_record_published has
 * returned, or the ring's start.
 *   6. A page's run marks are 0 when it is attached.
 *
 * Who may call what: claims, rc_record_write, rc_record_publish, rc_record_page_hold and _drop: any
 * thread. rc_record_published: whoever holds the gate back, or is the releaser.
 * rc_record_move_gate: the releaser.
 */
#ifndef RC_RECORD_H
#define RC_RECORD_H

#include "rc_ring.h"

#include <string.h>

typedef struct rc_record_page {
    rc_u32 holders; /* the ring, and the batches that read it */
    /* at the first position of a run: how long it is, once it is published */
    rc_u16 runs[RC_PAGE_SLOTS];
    RC_ALIGNED unsigned char records[];
} rc_record_page;

_Static_assert(RC_PAGE_SLOTS <= UINT16_MAX, "a run of a whole page has a mark");

/* As rc_ring_init, for records of `record_size` bytes (at least 1). */
int rc_record_ring_init(
    rc_ring *ring, uint64_t max_queue, uint64_t reserve, uint64_t start, size_t record_size
);

/* An empty page with one holder, or NULL without memory. */
rc_record_page *rc_record_page_new(size_t record_size);

/* One holder more. The caller knows that there is one: it holds the gate back, or the page.
 * Wait-free. */
static inline void rc_record_page_hold(rc_record_page *page)
{
    /* relaxed: the caller already has access to what the page holds */
    atomic_fetch_add_explicit(&page->holders, 1, memory_order_relaxed);
}

/* One holder less; the last one frees the page. */
void rc_record_page_drop(rc_record_page *page);

/* The ring lets go of a page, all of which was read. Returns 1 where nobody else holds it: it is
 * empty and the ring's once more; 0 where it is left to the others. */
int rc_record_page_empty(rc_record_page *page);

static inline unsigned char *
rc_record_in(rc_record_page *page, uint64_t position, size_t record_size)
{
    return page->records + position % RC_PAGE_SLOTS * record_size;
}

/* The bytes of the record at `position`, whose page must be attached. Up to the end of its page
 * (rc_ring_run) others follow side by side. */
static inline const void *rc_record_at(const rc_ring *ring, uint64_t position)
{
    return rc_record_in(rc_ring_page(ring, position), position, ring->record_size);
}

/* Fills a claimed run from `records`, which stand side by side. Wait-free. */
static inline void rc_record_write(const rc_run *run, const void *records, size_t record_size)
{
    unsigned char *into = rc_record_in(run->page, run->position, record_size);
    /* sizes that the compiler knows are copied without a call */
    if (run->count == 1 && record_size == 16)
        memcpy(into, records, 16);
    else if (run->count == 1 && record_size == 8)
        memcpy(into, records, 8);
    else
        memcpy(into, records, run->count * record_size);
}

/* Publishes a run that was filled. Wait-free. */
static inline void rc_record_publish(const rc_run *run)
{
    rc_record_page *page = run->page;
    assert(
        atomic_load_explicit(&page->runs[run->position % RC_PAGE_SLOTS], memory_order_relaxed) == 0
    );
    /* release: the records' bytes are there for whoever acquires the mark */
    atomic_store_explicit(
        &page->runs[run->position % RC_PAGE_SLOTS], (uint16_t)run->count, memory_order_release
    );
}

/* The end of the published runs from `position` (the start of one) on, the first that is at least
 * `most` away. */
uint64_t rc_record_published(const rc_ring *ring, uint64_t position, uint64_t most);

/* Moves the gate on to `gate`, unless it is there already: what is before it was read by all. Wakes
 * waiting producers. Releaser only. */
void rc_record_move_gate(rc_ring *ring, uint64_t gate);

/* In a forked child, before it has a second thread: empties the ring; what is in it is the
 * parent's. */
void rc_record_abandon(rc_ring *ring);

#endif
