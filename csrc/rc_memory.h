/* Zeroed memory on cache-line boundaries. malloc promises 16 bytes only. */
#ifndef RC_MEMORY_H
#define RC_MEMORY_H

#include "rc_atomic.h"

#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#include <malloc.h>
#endif

/* Returns `size` zeroed bytes at a multiple of RC_CACHE_LINE, or NULL when there is no memory.
 * Thread-safe. Free with rc_aligned_free. */
static inline void *rc_aligned_zalloc(size_t size)
{
    size_t rounded = (size + RC_CACHE_LINE - 1) / RC_CACHE_LINE * RC_CACHE_LINE;
#if defined(_WIN32)
    void *memory = _aligned_malloc(rounded, RC_CACHE_LINE);
#else
    void *memory = aligned_alloc(RC_CACHE_LINE, rounded);
#endif
    if (memory != NULL) memset(memory, 0, rounded);
    return memory;
}

static inline void rc_aligned_free(void *memory)
{
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
