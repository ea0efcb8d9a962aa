# For `cimport ringcast`: the C API as Cython sees it. include/ringcast.h says what the functions do; add
# ringcast.get_include() to the include_dirs of the extension, and call ringcast_import() once.
from libc.stdint cimport int64_t

cdef extern from "ringcast.h":
    enum:
        RINGCAST_API_VERSION
        RINGCAST_FOREVER
    ctypedef struct ringcast_topic:
        pass
    ctypedef void (*ringcast_handler)(
        const void *records, size_t count, size_t stride, void *userdata
    ) noexcept nogil
    ctypedef enum ringcast_status:
        RINGCAST_OK
        RINGCAST_FULL
        RINGCAST_CLOSED
        RINGCAST_NO_MEMORY
        RINGCAST_FAILED
    int ringcast_import() except -1
    ringcast_topic *ringcast_topic_new(object dispatcher, object record_type) except NULL
    void ringcast_topic_free(ringcast_topic *topic)
    size_t ringcast_record_size(const ringcast_topic *topic) noexcept nogil
    ringcast_status ringcast_publish(
        ringcast_topic *topic, const void *records, size_t count, int64_t timeout, size_t *published
    ) noexcept nogil
    object ringcast_subscribe(
        object dispatcher, object record_type, ringcast_handler handler, void *userdata, void *owner
    )
