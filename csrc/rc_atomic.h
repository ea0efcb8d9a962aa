/* Atomics, cache lines and the pause instruction: the words that the other headers are written in.
 *
 * Every atomic access of csrc/ names its memory order at the call. The plain choice is relaxed for
 * counters and statistics, acquire/release for what hands data over; anything else is argued where
 * it stands.
 */
#ifndef RC_ATOMIC_H
#define RC_ATOMIC_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#if defined(_MSC_VER)
#include <intrin.h>
#endif
#if defined(RC_DELAYS)
#include "rc_delay.h"
#endif

/* What is written by different cores stands at least this far apart. */
#define RC_CACHE_LINE 64
#define RC_ALIGNED    _Alignas(RC_CACHE_LINE)

typedef _Atomic(uint16_t) rc_u16;
typedef _Atomic(uint32_t) rc_u32;
typedef _Atomic(uint64_t) rc_u64;

/* Tells the core that this is a spin loop. */
static inline void rc_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(_M_X64) || defined(_M_IX86)
    _mm_pause();
#elif defined(__aarch64__)
    /* yield is a no-op on most cores; isb waits about as long as pause */
    __asm__ volatile("isb" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Accessors for callers that cannot name C11 atomics (Cython): acquire and release, and `_seq` for
 * the sides of a store-then-look protocol, which needs sequential consistency. */
static inline uint32_t rc_u32_load(const rc_u32 *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}
static inline uint64_t rc_u64_load(const rc_u64 *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}
static inline void rc_u32_store(rc_u32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}
static inline void rc_u64_store(rc_u64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}
static inline uint32_t rc_u32_load_seq(const rc_u32 *word)
{
    return atomic_load_explicit(word, memory_order_seq_cst);
}
static inline uint64_t rc_u64_load_seq(const rc_u64 *word)
{
    return atomic_load_explicit(word, memory_order_seq_cst);
}
static inline void rc_u32_store_seq(rc_u32 *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_seq_cst);
}
static inline void rc_u64_store_seq(rc_u64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_seq_cst);
}

static inline uint32_t rc_u32_add_seq(rc_u32 *word, uint32_t more)
{
    return atomic_fetch_add_explicit(word, more, memory_order_seq_cst);
}

static inline uint64_t rc_u64_add_seq(rc_u64 *word, uint64_t more)
{
    return atomic_fetch_add_explicit(word, more, memory_order_seq_cst);
}

/* acq_rel: of several threads one gets the old value, and sees what the others did before */
static inline uint32_t rc_u32_exchange(rc_u32 *word, uint32_t value)
{
    return atomic_exchange_explicit(word, value, memory_order_acq_rel);
}

/* A statistic that several threads count up. */
static inline void rc_u64_count(rc_u64 *word, uint64_t more)
{
    atomic_fetch_add_explicit(word, more, memory_order_relaxed);
}

#if defined(RC_DELAYS) /* each call of an accessor is a place of its own */
#define rc_u32_load(word)             (RC_DELAY, rc_u32_load(word))
#define rc_u64_load(word)             (RC_DELAY, rc_u64_load(word))
#define rc_u32_store(word, value)     (RC_DELAY, rc_u32_store(word, value))
#define rc_u64_store(word, value)     (RC_DELAY, rc_u64_store(word, value))
#define rc_u32_load_seq(word)         (RC_DELAY, rc_u32_load_seq(word))
#define rc_u64_load_seq(word)         (RC_DELAY, rc_u64_load_seq(word))
#define rc_u32_store_seq(word, value) (RC_DELAY, rc_u32_store_seq(word, value))
#define rc_u64_store_seq(word, value) (RC_DELAY, rc_u64_store_seq(word, value))
#define rc_u32_add_seq(word, more)    (RC_DELAY, rc_u32_add_seq(word, more))
#define rc_u64_add_seq(word, more)    (RC_DELAY, rc_u64_add_seq(word, more))
#define rc_u32_exchange(word, value)  (RC_DELAY, rc_u32_exchange(word, value))
#define rc_u64_count(word, more)      (RC_DELAY, rc_u64_count(word, more))
#endif

#endif
