/* Zeroed memory, also on cache-line boundaries (malloc promises 16 bytes only): where all memory of
 * csrc/ comes from.
 *
 * Built with RC_FAIL_ALLOC it can be made to fail, for tests of what happens without memory. What
 * the system makes (mutexes, parks) counts as an allocation too. Without RC_FAIL_ALLOC none of that
 * exists.
 */
#ifndef RC_MEMORY_H
#define RC_MEMORY_H

#include "rc_atomic.h"

#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#include <malloc.h>
#endif

#if defined(RC_FAIL_ALLOC)

/* From now on the next `succeed` allocations of the process succeed and the `fail` after them fail;
 * then all succeed again. Any thread; allocations of others at this very moment may or may not be
 * counted. */
void rc_fail_alloc(uint64_t succeed, uint64_t fail);

/* How many allocations were asked for since rc_fail_alloc, also those that failed. Any thread. */
uint64_t rc_alloc_count(void);

/* How many blocks of memory are allocated and not freed. Any thread. */
uint64_t rc_alloc_live(void);

/* Counts an allocation; whether it is to fail. Any thread. */
int rc_alloc_fails(void);

/* Counts blocks: 1 and -1. Any thread. */
void rc_alloc_count_live(int64_t more);

#else
static inline int rc_alloc_fails(void) { return 0; }
static inline void rc_alloc_count_live(int64_t more) { (void)more; }
#endif

/* Returns `size` zeroed bytes, or NULL when there is no memory. The system's own zeros where they
 * are many: what is not used of a large table takes no memory. Thread-safe. Free with rc_free. */
static inline void *rc_zalloc(size_t size)
{
    void *memory = rc_alloc_fails() ? NULL : calloc(1, size);
    if (memory != NULL) rc_alloc_count_live(1);
    return memory;
}

/* NULL is let be. */
static inline void rc_free(void *memory)
{
    if (memory != NULL) rc_alloc_count_live(-1);
    free(memory);
}

/* Returns `size` zeroed bytes at a multiple of RC_CACHE_LINE, or NULL when there is no memory.
 * Thread-safe. Free with rc_aligned_free. */
static inline void *rc_aligned_zalloc(size_t size)
{
    size_t rounded = (size + RC_CACHE_LINE - 1) / RC_CACHE_LINE * RC_CACHE_LINE;
    void *memory;
    if (rounded < size || rc_alloc_fails()) return NULL;
#if defined(_WIN32)
    memory = _aligned_malloc(rounded, RC_CACHE_LINE);
#else
    memory = aligned_alloc(RC_CACHE_LINE, rounded);
#endif
    if (memory == NULL) return NULL;
    rc_alloc_count_live(1);
    return memset(memory, 0, rounded);
}

/* NULL is let be. */
static inline void rc_aligned_free(void *memory)
{
    if (memory != NULL) rc_alloc_count_live(-1);
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
