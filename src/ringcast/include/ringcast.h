/* The C API of Ringcast: publish records, and have them delivered to C functions, without the GIL.
 *
 *     #include <ringcast.h>                       (in the directory that ringcast.get_include() gives)
 *
 *     if (ringcast_import() < 0) return NULL;     once, where the module is made; each file that includes this does it
 *
 *     ringcast_topic *ticks = ringcast_topic_new(dispatcher, Tick);
 *     Py_BEGIN_ALLOW_THREADS
 *     ringcast_publish(ticks, &tick, 1, RINGCAST_FOREVER, NULL);
 *     Py_END_ALLOW_THREADS
 *     ringcast_topic_free(ticks);
 *
 * From Cython: `cimport ringcast`. A record type's instances are laid out as its `format` says; of one declared by a class
 * that is the layout of a C struct with the same members.
 *
 * Versions. What is here stays as it is for a RINGCAST_API_VERSION; functions may be added at the end of ringcast_api.
 * ringcast_import refuses a Ringcast of another version, or with fewer functions than this header has.
 */
#ifndef RINGCAST_H
#define RINGCAST_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RINGCAST_API_VERSION 1
#define RINGCAST_FOREVER (-1)

/* One record type in one dispatcher, looked up once. Keeps both alive. */
typedef struct ringcast_topic ringcast_topic;

/* Is called with `count` records side by side, `stride` bytes each, without the GIL. They stay there until it returns. */
typedef void (*ringcast_handler)(const void *records, size_t count, size_t stride, void *userdata);

typedef enum {
    RINGCAST_OK = 0,
    RINGCAST_FULL,      /* there was no room in time; or a subscription of policy "raise" is its max_queue behind */
    RINGCAST_CLOSED,    /* the dispatcher is closed, or was closed meanwhile */
    RINGCAST_NO_MEMORY,
    RINGCAST_FAILED     /* a direct handler has raised; sys.unraisablehook has the exception */
} ringcast_status;

typedef struct ringcast_api {
    uint32_t version;
    uint32_t size; /* bytes of this struct */
    ringcast_topic *(*topic_new)(PyObject *dispatcher, PyObject *record_type);
    void (*topic_free)(ringcast_topic *topic);
    size_t (*record_size)(const ringcast_topic *topic);
    ringcast_status (*publish)(ringcast_topic *topic, const void *records, size_t count, int64_t timeout, size_t *published);
    PyObject *(*subscribe)(PyObject *dispatcher, PyObject *record_type, ringcast_handler handler, void *userdata,
                           PyObject *owner);
} ringcast_api;

static const ringcast_api *ringcast_functions;

/* Makes the functions below usable. With the GIL. Returns 0, or -1 with an ImportError. */
static inline int ringcast_import(void)
{
    const ringcast_api *found = (const ringcast_api *)PyCapsule_Import("ringcast._core._C_API", 0);
    if (found == NULL) return -1;
    if (found->version != RINGCAST_API_VERSION || found->size < sizeof(ringcast_api)) {
        PyErr_Format(PyExc_ImportError,
                     "this module was built for version %d of Ringcast's C API (%d bytes); the Ringcast that is installed has "
                     "version %d (%d bytes): build the module anew, or install the Ringcast that it was built with",
                     RINGCAST_API_VERSION, (int)sizeof(ringcast_api), (int)found->version, (int)found->size);
        return -1;
    }
    ringcast_functions = found;
    return 0;
}

/* Looks a record type up. With the GIL. Returns NULL with an exception: RecordError, ClosedError, TypeError, MemoryError. */
static inline ringcast_topic *ringcast_topic_new(PyObject *dispatcher, PyObject *record_type)
{
    return ringcast_functions->topic_new(dispatcher, record_type);
}

/* The other end of it; NULL does nothing. With the GIL. No thread may be publishing with it. */
static inline void ringcast_topic_free(ringcast_topic *topic)
{
    ringcast_functions->topic_free(topic);
}

/* Bytes of a record. Any thread. */
static inline size_t ringcast_record_size(const ringcast_topic *topic)
{
    return ringcast_functions->record_size(topic);
}

/* Publishes records that stand side by side, in order; others may publish between runs of up to 512.
 *
 * Any thread, also one that Python does not know, any number at once; without the GIL or with it. (With it, it may wait
 * for room that only a Python handler can make: release it.) It takes the GIL by itself where that has to be: to tell an
 * event loop that is idle, to start the first worker, and where the type has direct handlers, or subscriptions to its base
 * classes or with policies that drop, or when there is no room for these.
 *
 * It waits for room `timeout` nanoseconds at most, RINGCAST_FOREVER as long as it takes. Inside a native handler it never waits
 * but goes past max_queue by 65,536 records at most, and then says RINGCAST_FULL.
 *
 * *published (may be NULL) is how many were published: all of them on RINGCAST_OK. */
static inline ringcast_status ringcast_publish(ringcast_topic *topic, const void *records, size_t count, int64_t timeout,
                                               size_t *published)
{
    return ringcast_functions->publish(topic, records, count, timeout, published);
}

/* What Dispatcher.subscribe_native does. With the GIL. `owner` (may be NULL) is kept until the subscription ends, for
 * what `userdata` and the handler need. Returns a new reference to the Subscription, or NULL with an exception. */
static inline PyObject *ringcast_subscribe(PyObject *dispatcher, PyObject *record_type, ringcast_handler handler,
                                           void *userdata, PyObject *owner)
{
    return ringcast_functions->subscribe(dispatcher, record_type, handler, userdata, owner);
}

#ifdef __cplusplus
}
#endif

#endif
