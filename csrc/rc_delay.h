/* Delays: built with RC_DELAYS, each place that has an atomic operation waits before it now and
 * then, as if the system had taken the processor away just there. What goes wrong in a window of a
 * few instructions goes wrong within seconds.
 *
 * Every place has turns of its own: at most one delay in 10 to 40 ms, whatever the other places do.
 * So the rare paths have as many as the hot one, which is not slowed down by much. A delay lasts
 * for up to 0.2 ms.
 *
 * Needs GCC or Clang. Of use where threads run at the same time: without the GIL, and in
 * csrc/tests.
 */
#ifndef RC_DELAY_H
#define RC_DELAY_H

#include <stdint.h>

/* A place: when its next delay is due, in ns of rc_clock_now. */
typedef struct rc_delay_place {
    _Atomic(int64_t) due;
} rc_delay_place;

/* Waits if it is the place's turn. Any thread. */
void rc_delay(rc_delay_place *place);

#define RC_DELAY                     \
    ({                               \
        static rc_delay_place place; \
        rc_delay(&place);            \
    })

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit
#define atomic_load_explicit(word, order)         (RC_DELAY, __atomic_load_n(word, order))
#define atomic_store_explicit(word, value, order) (RC_DELAY, __atomic_store_n(word, value, order))
#define atomic_exchange_explicit(word, value, order) \
    (RC_DELAY, __atomic_exchange_n(word, value, order))
#define atomic_fetch_add_explicit(word, value, order) \
    (RC_DELAY, __atomic_fetch_add(word, value, order))
#define atomic_fetch_sub_explicit(word, value, order) \
    (RC_DELAY, __atomic_fetch_sub(word, value, order))
#define atomic_compare_exchange_strong_explicit(word, expected, value, order, failed) \
    (RC_DELAY, __atomic_compare_exchange_n(word, expected, value, 0, order, failed))
#define atomic_compare_exchange_weak_explicit(word, expected, value, order, failed) \
    (RC_DELAY, __atomic_compare_exchange_n(word, expected, value, 1, order, failed))

#endif
