# Native handlers: C functions that are called with runs of records where these stand, without the GIL. A worker calls
# them by rc_deliver_native (csrc/rc_turn.h); here is what Python code may give as one.

cdef uintptr_t address_of(what) except? 0:
    """Where a C function is: an address, a capsule, a function of ctypes or a cfunc of numba."""
    cdef const char *name
    if isinstance(what, int) and not isinstance(what, bool):
        if not 0 < what <= <uintptr_t>-1:
            raise HandlerTypeError(f"a native handler is at an address, not at {what:#x}")
        return what
    if PyCapsule_CheckExact(what):
        name = PyCapsule_GetName(what)
        if name != NULL and (<bytes>name).replace(b" ", b"") not in HANDLER_NAMES:
            raise HandlerTypeError(
                f"a capsule of {(<bytes>name).decode(errors='replace')!r} is no native handler: that is a "
                f"{HANDLER_SIGNATURE.decode()!r}, or a capsule without a name"
            )
        return <uintptr_t>PyCapsule_GetPointer(what, name)
    ctypes = get_or_none(sys.modules, "ctypes")
    if ctypes is not None and isinstance(what, ctypes._CFuncPtr):
        return ctypes.cast(what, ctypes.c_void_p).value
    address = getattr(what, "address", None)   # numba.cfunc
    if type(address) is int and address > 0:
        return address
    raise HandlerTypeError(
        "a native handler is the address of a C function, a capsule of one, a function of ctypes, or a cfunc of numba; "
        f"not {shown(what)}"
    )


cdef extern from *:
    """
    #define NATIVE_SIGNATURE "void (const void *, size_t, size_t, void *)"
    """
    const char *NATIVE_SIGNATURE   # a capsule keeps the pointer: no object is to own these bytes


HANDLER_SIGNATURE = <bytes>NATIVE_SIGNATURE
# as C writes the type of a pointer to one, as Cython names the capsules in __pyx_capi__, with and without noexcept
# nogil
HANDLER_NAMES = {
    text.replace(b" ", b"")
    for text in (
        HANDLER_SIGNATURE,
        b"void (*)(const void *, size_t, size_t, void *)",
        b"void (void const *, size_t, size_t, void *)",
        b"ringcast_handler",
    )
}


@cython.final
@cython.no_gc_clear
cdef class Userdata:
    """The pointer that a native handler is given, and what keeps it good."""
    cdef void *pointer
    cdef Py_buffer buffer
    cdef bint exported
    cdef object owner

    def __cinit__(self, what):
        self.owner = what
        if what is None:
            return
        if isinstance(what, int) and not isinstance(what, bool):
            if not 0 <= what <= <uintptr_t>-1:
                raise OptionError(f"userdata is an address, not {what:#x}")
            self.pointer = <void *><uintptr_t>what
        elif PyCapsule_CheckExact(what):
            self.pointer = PyCapsule_GetPointer(what, PyCapsule_GetName(what))
        else:
            try:
                PyObject_GetBuffer(what, &self.buffer, PyBUF_WRITABLE)
            except (TypeError, BufferError, ValueError) as error:
                raise OptionError(
                    f"userdata is an address, a capsule or a writable buffer, not {shown(what)}"
                ) from error
            self.exported = True
            self.pointer = self.buffer.buf

    def __dealloc__(self):
        if self.exported:
            PyBuffer_Release(&self.buffer)
