# Types: what keeps their objects whole, whatever Python code does to them.
#
# Python code reaches each type of the core, by gc.get_referents if not by name. No object of these types is ever made
# half, made again, or robbed of what it points at:
#   - What the core alone makes is of a sealed type. The core calls `T.__new__(T)`, which Cython makes a call of the C
#     function; for Python code that function raises.
#   - What Python code makes (Layout, RecordField, Options) is made whole by __cinit__, and has no __init__.
#   - Nothing is pickled or copied unless a type says how (auto_pickle in setup.py).
#   - The garbage collector empties none of these objects (no_gc_clear): finalizers of others may still use them.
#     Each circle has something else that can be emptied: a dict, a list, an instance, a function; or a Topic, where a
#     circle goes through its subscriptions.

cdef extern from *:
    """
    static PyObject *refuse_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
    {
        (void)arguments;
        (void)names;
        PyErr_Format(PyExc_TypeError, "%.200s objects are made by dispatchers only", type->tp_name);
        return NULL;
    }
    static inline void seal_type(PyObject *type)
    {
        ((PyTypeObject *)type)->tp_new = refuse_new;
        ((PyTypeObject *)type)->tp_vectorcall = NULL;   /* which Cython may set, and which comes before tp_new */
    }
    /* Takes what only other Cython modules would ask for out of help(), dir() and vars(). */
    static int hide_vtable(PyObject *type)
    {
        PyObject *namespace = ((PyTypeObject *)type)->tp_dict;
        PyObject *name = PyUnicode_InternFromString("__pyx_vtable__");
        int failed = name == NULL || (PyDict_Contains(namespace, name) == 1 && PyDict_DelItem(namespace, name) < 0);
        Py_XDECREF(name);
        PyType_Modified((PyTypeObject *)type);
        return failed ? -1 : 0;
    }
    static inline void clear_by(PyObject *type, int (*clear)(PyObject *))
    {
        ((PyTypeObject *)type)->tp_clear = clear;
    }
    """
    void seal_type(object type)
    int hide_vtable(object type) except -1
    void clear_by(object type, int (*clear)(PyObject *) noexcept)


cdef int clear_topic(PyObject *topic) noexcept:
    (<Topic>topic).let_go()
    return 0


for made_here in (
    ClassEntry, Envelope, Latest, OwnThread, Pool, RecordBatch, RecordColumn, Route, Scope, Subscription, Topic,
    Userdata,
):
    seal_type(made_here)
for made_here in list(globals().values()):
    if isinstance(made_here, type) and made_here.__module__ == __name__:
        hide_vtable(made_here)
del made_here
clear_by(Topic, clear_topic)
