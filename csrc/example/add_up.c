/* A native handler: an example of one, and what the benchmark suite and the tests use, as they have
 * no compiler. The module ringcast._add_up has nothing but a capsule of it. */
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Adds to two uint64: how many records there were, and the sum of the uint64 at the beginning of
 * each. */
static void add_up(const void *records, size_t count, size_t stride, void *userdata)
{
    uint64_t *totals = userdata;
    const char *at = records;
    uint64_t sum = 0;
    for (size_t record = 0; record < count; record++) {
        uint64_t first;
        memcpy(&first, at + record * stride, sizeof first); /* at any address */
        sum += first;
    }
    totals[0] += count;
    totals[1] += sum;
}

static int add_handler(PyObject *module)
{
    PyObject *handler = PyCapsule_New(
        (void *)add_up, "void (const void *, size_t, size_t, void *)", NULL
    );
    int failed = PyModule_AddObjectRef(module, "add_up", handler);
    Py_XDECREF(handler);
    return failed;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_handler},
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* nothing here changes after the import */
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ringcast._add_up",
    .m_doc = "A native handler that counts records and adds up their first eight bytes: `add_up`.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__add_up(void) { return PyModuleDef_Init(&definition); }
