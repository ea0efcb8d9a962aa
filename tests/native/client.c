/* What tests/test_native.py needs from C: publishers that Python does not know, and handlers that observe, hold and publish. */
#include <ringcast.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { PRODUCERS = 16 };

typedef struct { uint64_t producer, number; } record_t;

/* --- handlers: `userdata` is an array of int64, zero at first ------------------------------------------------------- */

enum { COUNT, SUM, DISORDER, WITH_GIL, MOST, LAST = 8 }; /* LAST: of each producer, its last number and one more */

static void observe(const void *records, size_t count, size_t stride, void *userdata)
{
    int64_t *seen = userdata;
    const char *at = records;
    if (PyGILState_Check()) seen[WITH_GIL]++;
    if ((int64_t)count > seen[MOST]) seen[MOST] = count;
    for (size_t i = 0; i < count; i++, at += stride) {
        const record_t *record = (const record_t *)at;
        if ((int64_t)record->number < seen[LAST + record->producer % PRODUCERS]) seen[DISORDER]++;
        seen[LAST + record->producer % PRODUCERS] = record->number + 1;
        seen[SUM] += record->number;
    }
    atomic_fetch_add((_Atomic int64_t *)&seen[COUNT], count);
}

enum { ARRIVED, RELEASED, PASSED };

/* Waits at its first record until RELEASED is set. */
static void hold(const void *records, size_t count, size_t stride, void *userdata)
{
    _Atomic int64_t *gate = userdata;
    (void)records, (void)stride;
    atomic_store(&gate[ARRIVED], 1);
    while (!atomic_load(&gate[RELEASED])) nanosleep(&(struct timespec){0, 1000000}, NULL);
    atomic_fetch_add(&gate[PASSED], count);
}

static ringcast_topic *forward_to;
static _Atomic int64_t forwarded, refused;

/* Publishes each record again with its number one less, down to 0. */
static void forward(const void *records, size_t count, size_t stride, void *userdata)
{
    const record_t *record = records;
    (void)stride, (void)userdata;
    for (size_t i = 0; i < count; i++)
        if (record[i].number > 0) {
            record_t next = {record[i].producer, record[i].number - 1};
            if (ringcast_publish(forward_to, &next, 1, RINGCAST_FOREVER, NULL) == RINGCAST_OK)
                atomic_fetch_add(&forwarded, 1);
            else
                atomic_fetch_add(&refused, 1);
        }
}

/* --- publishers ------------------------------------------------------------------------------------------------------- */

typedef struct {
    ringcast_topic *topic;
    uint64_t producer, count, part;
    int64_t timeout;
    ringcast_status status;
    size_t published;
} job_t;

static void *publish_job(void *argument)
{
    job_t *job = argument;
    record_t records[64];
    for (uint64_t number = 0; number < job->count && job->status == RINGCAST_OK;) {
        size_t count = 0, published = 0;
        for (; count < job->part && number + count < job->count; count++)
            records[count] = (record_t){job->producer, number + count};
        job->status = ringcast_publish(job->topic, records, count, job->timeout, &published);
        job->published += published;
        number += count;
    }
    return NULL;
}

/* publish(dispatcher, record_type, threads, count, part, timeout): each thread publishes `count` records, `part` at a time, and is
 * one that Python does not know; 0 threads: the calling one does. Returns [(status, published)]. */
static PyObject *publish(PyObject *self, PyObject *arguments)
{
    PyObject *dispatcher, *record_type, *result;
    unsigned threads;
    unsigned long long count, part;
    long long timeout;
    job_t jobs[PRODUCERS] = {{0}};
    pthread_t ids[PRODUCERS];
    ringcast_topic *topic;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OOIKKL", &dispatcher, &record_type, &threads, &count, &part, &timeout)) return NULL;
    topic = ringcast_topic_new(dispatcher, record_type);
    if (topic == NULL) return NULL;
    for (unsigned i = 0; i < PRODUCERS; i++)
        jobs[i] = (job_t){.topic = topic, .producer = i, .count = count, .part = part, .timeout = timeout};
    Py_BEGIN_ALLOW_THREADS
    if (threads == 0) publish_job(&jobs[0]);
    for (unsigned i = 0; i < threads; i++) pthread_create(&ids[i], NULL, publish_job, &jobs[i]);
    for (unsigned i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    Py_END_ALLOW_THREADS
    ringcast_topic_free(topic);
    result = PyList_New(0);
    for (unsigned i = 0; result != NULL && i < (threads ? threads : 1); i++) {
        PyObject *row = Py_BuildValue("in", (int)jobs[i].status, (Py_ssize_t)jobs[i].published);
        if (row == NULL || PyList_Append(result, row) < 0) Py_CLEAR(result);
        Py_XDECREF(row);
    }
    return result;
}

/* start_forwarding(dispatcher, record_type): where `forward` publishes; stop_forwarding() -> (forwarded, refused). */
static PyObject *start_forwarding(PyObject *self, PyObject *arguments)
{
    PyObject *dispatcher, *record_type;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OO", &dispatcher, &record_type)) return NULL;
    forward_to = ringcast_topic_new(dispatcher, record_type);
    atomic_store(&forwarded, 0);
    atomic_store(&refused, 0);
    if (forward_to == NULL) return NULL;
    Py_RETURN_NONE;
}

static PyObject *stop_forwarding(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    ringcast_topic_free(forward_to);
    forward_to = NULL;
    return Py_BuildValue("LL", (long long)atomic_load(&forwarded), (long long)atomic_load(&refused));
}

/* subscribe_observer(dispatcher, record_type, userdata address, owner). */
static PyObject *subscribe_observer(PyObject *self, PyObject *arguments)
{
    PyObject *dispatcher, *record_type, *owner;
    unsigned long long userdata;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OOKO", &dispatcher, &record_type, &userdata, &owner)) return NULL;
    return ringcast_subscribe(dispatcher, record_type, observe, (void *)(uintptr_t)userdata, owner);
}

static PyMethodDef methods[] = {
    {"publish", publish, METH_VARARGS, NULL},
    {"start_forwarding", start_forwarding, METH_VARARGS, NULL},
    {"stop_forwarding", stop_forwarding, METH_NOARGS, NULL},
    {"subscribe_observer", subscribe_observer, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    if (ringcast_import() < 0) return -1;
    if (PyModule_AddObject(module, "observe", PyLong_FromVoidPtr((void *)(uintptr_t)observe)) < 0) return -1;
    if (PyModule_AddObject(module, "hold", PyLong_FromVoidPtr((void *)(uintptr_t)hold)) < 0) return -1;
    return PyModule_AddObject(module, "forward", PyLong_FromVoidPtr((void *)(uintptr_t)forward));
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)fill},
#if defined(Py_GIL_DISABLED)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "client", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_client(void) { return PyModuleDef_Init(&definition); }
