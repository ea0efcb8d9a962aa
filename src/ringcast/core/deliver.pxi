# Deliver: what a turn (csrc/rc_turn.h) calls for a span of events.

cdef bint deliver_in_context(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """Has the subscription's `deliver` run in the subscription's own context (contextvars). What a handler sets there
    is there at its next event, and for no other handler that the same thread runs."""
    cdef Subscription sub = <Subscription>member.host
    cdef bint goes_on
    if PyContext_Enter(<PyObject *>sub.context) < 0:   # a handler has left it entered, or has given it away
        set_aside_raised("while the context of a handler was entered")
        sub.context = sub.context.copy()
        PyContext_Enter(<PyObject *>sub.context)   # which is new
    context = sub.context
    goes_on = sub.deliver(worker, member, span)
    if PyContext_Exit(<PyObject *>context) < 0:   # the handler has returned from inside another one
        set_aside_raised("while the context of a handler was left")
        sub.context = context.copy()
    return goes_on


cdef void set_aside_raised(str where) noexcept:
    try:
        raise_current()
    except BaseException as exception:
        set_aside(exception, where)


cdef bint deliver_events(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """Calls the handler with events one by one. They are borrowed from the ring: the cursor, which is moved after each
    call, keeps the gate from passing them."""
    cdef rc_topic *c = member.topic
    cdef PyObject *callee = (<Subscription>member.host).callee
    cdef vectorcallfunc call = (<Subscription>member.host).call
    cdef PyObject *arguments[2]   # [0] is the callee's to use (PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef PyObject *result
    cdef uint64_t position = span.next, left = rc_ring_run(position, span.end)
    cdef rc_slot *slot = rc_ring_slot(&c.ring, position)
    while True:
        arguments[1] = <PyObject *>rc_slot_event(slot)
        result = call(callee, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        end_call(member, arguments[1], result)
        position += 1
        slot += 1
        left -= 1
        rc_u64_store(&member.cursor, position)
        if left == 0 or rc_turn_attention(worker):
            break
    span.calls += position - span.next
    span.next = position
    if position < c.disowned:   # the handler has forked, and this is the child
        rc_u64_store(&member.cursor, c.disowned)
        return False
    return True


cdef bint deliver_records(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """The same with records: each is copied into an object, the same one again unless the handler keeps it."""
    cdef rc_topic *c = member.topic
    cdef PyObject *callee = (<Subscription>member.host).callee
    cdef vectorcallfunc call = (<Subscription>member.host).call
    cdef PyObject *arguments[2]
    cdef PyObject *result
    cdef uint64_t position = span.next
    cdef size_t size = c.ring.record_size
    cdef bint forked = False
    arguments[1] = NULL
    while True:
        # a record that nobody else knows may hold the next one; on free-threaded Python the count is then this thread's
        if arguments[1] != NULL and Py_REFCNT(arguments[1]) == 1:
            memcpy((<Record>arguments[1]).data, rc_record_at(&c.ring, position), size)
        else:
            if arguments[1] != NULL:
                Py_DECREF(arguments[1])
            arguments[1] = record_at(c, position)
        if arguments[1] == NULL:
            report_lost_record(member)
        else:
            result = call(callee, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
            end_call(member, arguments[1], result)
        position += 1
        if position <= c.disowned:   # the handler has forked, and this is the child
            rc_u64_count(&member.start, <uint64_t>-1)   # so this one counts as delivered
            forked = True
            break
        rc_u64_store(&member.cursor, position)
        if position == span.end or rc_turn_attention(worker):
            break
    span.calls += position - span.next
    span.next = position
    if arguments[1] != NULL:
        Py_DECREF(arguments[1])
    return not forked


cdef inline void end_call(rc_member *member, PyObject *event, PyObject *result) noexcept:
    """After a call of the handler with the event."""
    if result == PYTHON_NONE:   # mostly
        Py_DECREF(result)
    else:
        end_odd_call(member, event, result)


cdef void end_odd_call(rc_member *member, PyObject *event, PyObject *result) noexcept:
    result = checked(member, result)
    if result == NULL:
        report_failure(member, event)
    else:
        Py_DECREF(result)


cdef PyObject *checked(rc_member *member, PyObject *result) noexcept:
    """What a call of the handler has returned; or NULL, with an exception, where that is code that nobody would run."""
    if result == NULL or not is_unrun(result):
        return result
    try:
        remedy = "a plain function is needed"
        if PyCoro_CheckExact(result):
            remedy = "subscribe the async def function itself, or make what wraps it async def as well"
        elif is_like_coroutine(result):
            remedy = "make the handler async def, and await it there"
        refuse_unrun(<object>result, f"handler {handler_name((<Subscription>member.host).handler)}", remedy)
    except BaseException as exception:
        kind = type(exception)
        PyErr_SetObject(<PyObject *>kind, <PyObject *>exception)
    Py_DECREF(result)
    return NULL


cdef refuse_unrun(result, str name, str remedy):
    """Raises HandlerTypeError for a coroutine or generator that `name` has returned (is_unrun)."""
    if PyCoro_CheckExact(<PyObject *>result):
        what = "a coroutine"
    elif PyGen_CheckExact(<PyObject *>result):
        what = "a generator"
    else:
        what = "an asynchronous generator" if PyAsyncGen_CheckExact(<PyObject *>result) else shown(result)
    if hasattr(result, "close"):   # else Python warns that it was never awaited, and does not say by whom
        result.close()
    raise HandlerTypeError(f"{name} has returned {what}, which nobody runs: {remedy}")


cdef void report_lost_record(rc_member *member) noexcept:
    """There is no memory for the object that its handler would be given."""
    rc_u64_count(&member.failures, 1)
    rc_u64_count(&member.abandoned, 1)
    lost = MemoryError("no memory for a record, or no layout")
    report(<Core>member.topic.bus, lost, None, <Subscription>member.host)


cdef bint deliver_mail(rc_worker *worker, rc_member *member, rc_span *span) noexcept:
    """The same with what is in the mailbox. Each event is taken out, with a reference."""
    cdef PyObject *callee = (<Subscription>member.host).callee
    cdef vectorcallfunc call = (<Subscription>member.host).call
    cdef PyObject *arguments[2]
    cdef PyObject *result
    while True:
        arguments[1] = take_mail(member)
        if arguments[1] == NULL:
            span.end = span.next
            break
        result = call(callee, &arguments[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        end_call(member, arguments[1], result)
        rc_u64_count(&member.calls, 1)
        Py_DECREF(arguments[1])
        span.calls += 1
        span.next += 1
        if span.next == span.end or rc_turn_attention(worker):
            break
    return True


cdef void report(Core core, exception, event, Subscription sub) noexcept:
    """Hands a failure to the dispatcher. What comes out of that (a logging handler has raised, say) goes to
    sys.unraisablehook: it must neither stop the other handlers nor leave an event unfinished."""
    try:   # else Cython shows it, which ends the process where it is a SystemExit
        core._report_failure(exception, event, sub)
    except BaseException as error:
        show_unraisable(error, "while the failure of a handler was reported")


cdef void report_or_interrupt(Core core, exception, event, Subscription sub) noexcept:
    """Hands what `where` or `key` has raised to the dispatcher; but a Ctrl-C, which comes up in the main thread, is for
    the program there."""
    if isinstance(exception, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        set_aside(exception, "")
    else:
        report(core, exception, event, sub)


cdef void report_failure(rc_member *member, PyObject *event) noexcept:
    """Counts the exception that the handler has raised and hands it to the dispatcher."""
    rc_u64_count(&member.failures, 1)
    if PyErr_Occurred() == NULL:
        PyErr_SetString(SystemError, "the handler returned NULL without an exception")
    try:
        raise_current()
    except BaseException as exception:
        report(<Core>member.topic.bus, exception, unwrapped(<object>event), <Subscription>member.host)
