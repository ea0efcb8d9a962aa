"""Compiled methods that are bound as functions of Python are.

The originals' methods are functions, and a bound one is a `types.MethodType`: it has weak references by way of
`weakref.WeakMethod`, a `__func__` that stays the same, and can be pickled. What Python makes of a compiled method is a
built-in method, which has nothing of that. So a compiled method is wrapped in what is bound as a function is. A call
such as `signal.send(x)` makes no bound method, as with functions: that is what Py_TPFLAGS_METHOD_DESCRIPTOR says.
"""

cdef extern from *:
    """
    #include <Python.h>
    #include <stddef.h>
    #include <structmember.h>

    typedef PyObject *(*rc_fast_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

    typedef struct {
        PyObject_HEAD
        vectorcallfunc vectorcall;
        PyObject *method; /* the method descriptor that it stands for */
        PyObject *name, *qualname, *module, *doc, *annotations;
        PyObject *dict, *weak_references;
    } rc_function;

    /* What the method descriptor itself does is done here for most, as its steps are a tenth of a send. */
    static PyObject *rc_function_quick_call(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
    {
        PyMethodDescrObject *method = (PyMethodDescrObject *)((rc_function *)self)->method;
        Py_ssize_t given = PyVectorcall_NARGS(count);
        PyObject *result;
        if (given < 1 || !PyObject_TypeCheck(args[0], PyDescr_TYPE(method))) /* which says what is wrong */
            return PyObject_Vectorcall((PyObject *)method, args, count, names);
        if (Py_EnterRecursiveCall(" while calling a Python object"))
            return NULL;
        result = ((rc_fast_function)(void (*)(void))method->d_method->ml_meth)(args[0], args + 1, given - 1, names);
        Py_LeaveRecursiveCall();
        return result;
    }

    static PyObject *rc_function_call(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
    {
        return PyObject_Vectorcall(((rc_function *)self)->method, args, count, names);
    }

    static PyObject *rc_function_bind(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(type))
    {
        return instance == NULL || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
    }

    static PyObject *rc_function_repr(PyObject *self)
    {
        return PyUnicode_FromFormat("<function %S at %p>", ((rc_function *)self)->qualname, (void *)self);
    }

    /* Pickled, and copied, by its name. */
    static PyObject *rc_function_reduce(PyObject *self, PyObject *Py_UNUSED(nothing))
    {
        return PyObject_GetAttrString(self, "__qualname__");
    }

    static PyObject *rc_function_text_signature(PyObject *self, void *Py_UNUSED(nothing))
    {
        return PyObject_GetAttrString(((rc_function *)self)->method, "__text_signature__");
    }

    static int rc_function_traverse(PyObject *self, visitproc visit, void *arg)
    {
        rc_function *function = (rc_function *)self;
        Py_VISIT(function->method);
        Py_VISIT(function->name);
        Py_VISIT(function->qualname);
        Py_VISIT(function->module);
        Py_VISIT(function->doc);
        Py_VISIT(function->annotations);
        Py_VISIT(function->dict);
        return 0;
    }

    /* `method` stays, because this may still be called. It is in a cycle with its class only, which clears its dict. */
    static int rc_function_clear(PyObject *self)
    {
        rc_function *function = (rc_function *)self;
        Py_CLEAR(function->name);
        Py_CLEAR(function->qualname);
        Py_CLEAR(function->module);
        Py_CLEAR(function->doc);
        Py_CLEAR(function->annotations);
        Py_CLEAR(function->dict);
        return 0;
    }

    static void rc_function_dealloc(PyObject *self)
    {
        PyObject_GC_UnTrack(self);
        if (((rc_function *)self)->weak_references != NULL)
            PyObject_ClearWeakRefs(self);
        rc_function_clear(self);
        Py_XDECREF(((rc_function *)self)->method);
        PyObject_GC_Del(self);
    }

    static PyMemberDef rc_function_members[] = {
        {"__name__", T_OBJECT, offsetof(rc_function, name), 0, NULL},
        {"__qualname__", T_OBJECT, offsetof(rc_function, qualname), 0, NULL},
        {"__module__", T_OBJECT, offsetof(rc_function, module), 0, NULL},
        {"__doc__", T_OBJECT, offsetof(rc_function, doc), 0, NULL},
        {"__annotations__", T_OBJECT, offsetof(rc_function, annotations), 0, NULL},
        {NULL, 0, 0, 0, NULL},
    };

    static PyGetSetDef rc_function_properties[] = {
        {"__text_signature__", rc_function_text_signature, NULL, NULL, NULL},
        {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };

    static PyMethodDef rc_function_methods[] = {
        {"__reduce__", rc_function_reduce, METH_NOARGS, NULL},
        {NULL, NULL, 0, NULL},
    };

    static PyTypeObject rc_function_type = {
        PyVarObject_HEAD_INIT(NULL, 0)
        .tp_name = "ringcast.compat.function",
        .tp_basicsize = sizeof(rc_function),
        .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR
            | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .tp_dealloc = rc_function_dealloc,
        .tp_traverse = rc_function_traverse,
        .tp_clear = rc_function_clear,
        .tp_repr = rc_function_repr,
        .tp_vectorcall_offset = offsetof(rc_function, vectorcall),
        .tp_call = PyVectorcall_Call,
        .tp_descr_get = rc_function_bind,
        .tp_dictoffset = offsetof(rc_function, dict),
        .tp_weaklistoffset = offsetof(rc_function, weak_references),
        .tp_members = rc_function_members,
        .tp_getset = rc_function_properties,
        .tp_methods = rc_function_methods,
    };

    /* A function that calls a method descriptor, for the class that programs find under these names. */
    static PyObject *rc_function_new(PyObject *method, PyObject *module, PyObject *class_name)
    {
        rc_function *made;
        if (PyType_Ready(&rc_function_type) < 0)
            return NULL;
        made = PyObject_GC_New(rc_function, &rc_function_type);
        if (made == NULL)
            return NULL;
        made->vectorcall = ((PyMethodDescrObject *)method)->d_method->ml_flags == (METH_FASTCALL | METH_KEYWORDS)
            ? rc_function_quick_call : rc_function_call;
        made->method = Py_NewRef(method);
        made->name = PyObject_GetAttrString(method, "__name__");
        made->qualname = made->name != NULL ? PyUnicode_FromFormat("%U.%U", class_name, made->name) : NULL;
        made->module = Py_NewRef(module);
        made->doc = PyObject_GetAttrString(method, "__doc__");
        made->annotations = PyDict_New();
        made->dict = NULL;
        made->weak_references = NULL;
        PyObject_GC_Track(made);
        if (made->qualname == NULL || made->doc == NULL || made->annotations == NULL)
            Py_CLEAR(made);
        return (PyObject *)made;
    }
    """
    object rc_function_new(object method, str module, str class_name)


def function_of(method, str module, str class_name):
    """What a class has in place of a compiled method of its base, and which is bound as a function is.

    Args:
        method: a method descriptor, whose class or a subclass of that will have it.
        module: the module that programs import the class from; also for pickles.
        class_name: the class's name there.
    """
    return rc_function_new(method, module, class_name)
