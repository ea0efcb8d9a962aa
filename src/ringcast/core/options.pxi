# Options of a subscription that stand between an event and its handler: where, once, weak, context.
#
# A subscription without them has its handler called directly; one with them has guarded_call in its place. So they
# cost the others nothing.

@cython.final
@cython.no_gc_clear
cdef class Envelope:
    """An event together with the context in which it was published: what is in the ring of a topic's context topic."""
    cdef readonly object event
    cdef readonly object context


cdef Envelope envelop(event):
    cdef Envelope envelope = Envelope.__new__(Envelope)
    envelope.event = event
    envelope.context = contextvars.copy_context()
    return envelope


cdef copy_for_a_handler(context):
    """A copy of a context, in which a handler may do what it likes. Code changes the decimal context in place: the copy
    has a copy of that, too, as every thread has its own."""
    copied = context.copy()
    decimal = get_or_none(sys.modules, "decimal")   # which another thread may be just importing
    get, put = getattr(decimal, "getcontext", None), getattr(decimal, "setcontext", None)
    if get is not None and put is not None:
        copied.run(copy_decimal_context, get, put)
    return copied


def copy_decimal_context(get, put):
    put(get().copy())


def ask(function, event, str option):
    """What `where` or `key` says of an event, or `on_error` of a failure.

    Raises:
        HandlerTypeError: it says nothing: it has returned a coroutine.
        BaseException: whatever it raises.
    """
    answer = function(event)
    if is_unrun(<PyObject *>answer):
        refuse_unrun(answer, f"{option}={handler_name(function)}", "a plain function is needed")
    return answer


cdef note_option(exception, str option, function):
    """Says in the traceback that the exception comes from an option, and not from the handler."""
    if isinstance(exception, KeyboardInterrupt):   # Ctrl-C, which has nothing to do with it
        return
    note = f"raised by {option}={short(handler_name(function))}, before the handler was called"
    try:   # all of this may be code of its class
        if note not in getattr(exception, "__notes__", ()):   # one exception may be raised again and again
            exception.add_note(note)
    except Exception:
        pass


cdef inline object unwrapped(event):
    return (<Envelope>event).event if type(event) is Envelope else event


cdef object guarded_call(PyObject *callee, PyObject **arguments, size_t count, PyObject *names):
    """What a handler with options is called by: a vectorcall function, for which the Subscription is the callee."""
    cdef Subscription sub = <Subscription>callee
    event = <object>arguments[0]
    handler = sub.admit(event)
    if handler is None:
        return None
    try:
        if type(event) is Envelope:
            # a copy, as a context is entered by one thread at a time
            return copy_for_a_handler((<Envelope>event).context).run(handler, (<Envelope>event).event)
        return handler(event)
    finally:
        rc_u64_count(&sub.c.handled, 1)


@cython.final
@cython.no_gc_clear
cdef class Options:
    """What `subscribe` was told, checked by ringcast.options: made there, read here."""
    cdef readonly rc_mode mode
    cdef readonly rc_policy policy
    cdef readonly uint64_t max_queue
    cdef readonly uint32_t batch   # how many events the handler takes at a time, as a list; 0: one, as itself
    cdef readonly object key
    cdef readonly object where
    cdef readonly bint once
    cdef readonly bint weak
    cdef readonly tuple bases      # the classes whose subclasses' events come too
    cdef readonly bint with_context
    cdef readonly int64_t priority
    cdef readonly bint wants_own_thread
    cdef OwnThread own_thread      # started for the subscription, which takes it; else None

    def __cinit__(
        self, str mode, str policy, max_queue, *, key=None, where=None, bint once=False, bint weak=False,
        tuple bases=(), bint with_context=False, priority=0, batch=0, bint own_thread=False,
    ):
        self.mode = MODES.index(mode)
        self.policy = POLICIES.index(policy)
        self.max_queue = max_queue
        self.batch = batch
        self.key = key
        self.where = where
        self.once = once
        self.weak = weak
        self.bases = bases
        self.with_context = with_context
        self.priority = priority
        self.wants_own_thread = own_thread

    cdef start_own_thread(self, Core core):
        """Starts the thread that `own_thread` asks for. Not under core.lock: see start_pool."""
        if self.wants_own_thread:
            core.check_open()
            self.own_thread = new_own_thread(core.native_pool if self.mode == RC_NATIVE else core.pool)

    cdef void end_own_thread(self) noexcept:
        """Ends it where no subscription has taken it: not only with these options, which a traceback may keep."""
        if self.own_thread is not None:
            self.own_thread.end()
            self.own_thread = None
