/* rc_memory and rc_clock: zeroed, aligned, counted; and a clock that does not go back. */
/* build: -DRC_FAIL_ALLOC */
#define _GNU_SOURCE
#include "../rc_clock.h"
#include "../rc_memory.h"
#include "check.h"

static const size_t sizes[] = {
    0, 1, 8, RC_CACHE_LINE - 1, RC_CACHE_LINE, RC_CACHE_LINE + 1, 1000, 4096, 1 << 20
};
#define COUNT (sizeof sizes / sizeof sizes[0])

/* Memory is zeroed, also where it has been used before, and what is aligned begins a cache line. */
static void memory_is_zeroed_and_aligned(void)
{
    for (int round = 0; round < 3; round++)
        for (int aligned = 0; aligned <= 1; aligned++)
            for (size_t at = 0; at < COUNT; at++) {
                unsigned char *memory = aligned ? rc_aligned_zalloc(sizes[at])
                                                : rc_zalloc(sizes[at]);
                CHECK(memory != NULL || sizes[at] == 0);
                if (aligned) CHECK_EQUAL((uintptr_t)memory % RC_CACHE_LINE, 0);
                for (size_t byte = 0; byte < sizes[at]; byte++) CHECK_EQUAL(memory[byte], 0);
                if (sizes[at] != 0) memset(memory, 0xff, sizes[at]);
                aligned ? rc_aligned_free(memory) : rc_free(memory);
            }
}

/* NULL may be freed. */
static void nothing_may_be_freed(void)
{
    uint64_t live = rc_alloc_live();
    rc_aligned_free(NULL);
    rc_free(NULL);
    CHECK_EQUAL(rc_alloc_live(), live);
}

/* Exactly those allocations fail that a test has named; all are counted, and what is live. */
static void fails_where_it_is_told(void)
{
    for (uint64_t succeed = 0; succeed < 4; succeed++)
        for (uint64_t fail = 0; fail < 4; fail++) {
            uint64_t live = rc_alloc_live();
            void *memory[9];
            rc_fail_alloc(succeed, fail);
            for (uint64_t at = 0; at < 9; at++) {
                memory[at] = at % 2 ? rc_zalloc(10) : rc_aligned_zalloc(10);
                CHECK_EQUAL(memory[at] == NULL, at >= succeed && at < succeed + fail);
            }
            CHECK_EQUAL(rc_alloc_count(), 9);
            CHECK_EQUAL(rc_alloc_live() - live, 9 - fail);
            for (uint64_t at = 0; at < 9; at++)
                at % 2 ? rc_free(memory[at]) : rc_aligned_free(memory[at]);
            CHECK_EQUAL(rc_alloc_live(), live);
        }
    rc_fail_alloc(2, UINT64_MAX); /* for good */
    for (int at = 0; at < 2; at++) rc_free(rc_zalloc(1));
    for (int at = 0; at < 100; at++) CHECK(rc_zalloc(1) == NULL);
    rc_fail_alloc(0, 0);
}

/* More than there is: refused, not cut. */
static void too_much_is_refused(void)
{
    /* volatile: compilers know better what becomes of such calls */
    volatile size_t half = SIZE_MAX / 2 + 1;
    void *volatile memory;
#if !defined(SANITIZED) /* whose allocators end the program */
    CHECK((memory = rc_zalloc(half)) == NULL);
    CHECK((memory = rc_aligned_zalloc(half)) == NULL);
#endif
    /* which cannot be rounded up */
    CHECK((memory = rc_aligned_zalloc(2 * (half - 1) - 2)) == NULL);
}

/* The clock counts nanoseconds and does not go back. */
static void clock_does_not_go_back(void)
{
    int64_t began = rc_clock_now(), real = nanoseconds_now(), last = began;
    while (nanoseconds_now() - real < 20000000) {
        int64_t now = rc_clock_now();
        CHECK(now >= last);
        last = now;
    }
    CHECK(rc_clock_now() - began >= 20000000);
}

int main(void)
{
    RUN(memory_is_zeroed_and_aligned);
    RUN(nothing_may_be_freed);
    RUN(fails_where_it_is_told);
    RUN(too_much_is_refused);
    RUN(clock_does_not_go_back);
    return 0;
}
