# A native handler for benchmarks and tests, which have no compiler: it looks at each record and keeps two totals.

cdef void count_records(const void *records, size_t count, size_t stride, void *userdata) noexcept nogil:
    """Adds to two uint64: how many records there were, and the sum of the uint64 at the beginning of each."""
    cdef uint64_t *totals = <uint64_t *>userdata
    cdef const char *at = <const char *>records
    cdef uint64_t total = 0
    cdef size_t i
    for i in range(count):
        total += (<const uint64_t *>(at + i * stride))[0]
    totals[0] += count
    totals[1] += total

_count_records = PyCapsule_New(<void *>count_records, NATIVE_SIGNATURE, NULL)
