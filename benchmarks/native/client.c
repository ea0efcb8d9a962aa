/* A client of the C API for benchmarks/native.py: a thread that Python does not know publishes records one by one, and native
 * handlers look at each. */
#include <ringcast.h>

#include <pthread.h>
#include <time.h>

typedef struct { uint64_t payload, more; } event_t;

typedef struct {
    ringcast_topic *topic;
    uint64_t events;
    ringcast_status status;
} job_t;

static void *publish_all(void *argument)
{
    job_t *job = argument;
    for (uint64_t i = 0; i < job->events && job->status == RINGCAST_OK; i++) {
        event_t event = {i, 0};
        job->status = ringcast_publish(job->topic, &event, 1, RINGCAST_FOREVER, NULL);
    }
    return NULL;
}

/* publish(topic capsule, events): publishes them from one more thread and waits for it. */
static PyObject *publish(PyObject *self, PyObject *arguments)
{
    PyObject *dispatcher, *record_type;
    unsigned long long events;
    unsigned threads;
    job_t jobs[64] = {{0}};
    pthread_t ids[64];
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OOKI", &dispatcher, &record_type, &events, &threads)) return NULL;
    for (unsigned i = 0; i < threads; i++) {
        jobs[i].topic = ringcast_topic_new(dispatcher, record_type);
        jobs[i].events = events / threads;
        if (jobs[i].topic == NULL) return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (unsigned i = 0; i < threads; i++) pthread_create(&ids[i], NULL, publish_all, &jobs[i]);
    for (unsigned i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    Py_END_ALLOW_THREADS
    for (unsigned i = 0; i < threads; i++) {
        ringcast_topic_free(jobs[i].topic);
        if (jobs[i].status != RINGCAST_OK) return PyErr_Format(PyExc_RuntimeError, "publish: status %d", jobs[i].status);
    }
    Py_RETURN_NONE;
}

typedef struct { uint64_t count, sum; char line[48]; } total_t;

static void add(const void *records, size_t count, size_t stride, void *userdata)
{
    const event_t *event = records;
    total_t *total = userdata;
    (void)stride;
    for (size_t i = 0; i < count; i++) total->sum += event[i].payload;
    total->count += count;
}

static PyMethodDef methods[] = {{"publish", publish, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "client", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_client(void)
{
    PyObject *module;
    if (ringcast_import() < 0) return NULL;
    module = PyModule_Create(&definition);
    if (module != NULL) PyModule_AddObject(module, "add", PyLong_FromVoidPtr((void *)(uintptr_t)add));
    return module;
}
