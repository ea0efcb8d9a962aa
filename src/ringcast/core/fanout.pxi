# Fan-out: publishing an event, the quick way (publish_quickly) and all others.
#
# The quick way is for a class whose events go to one topic that has room and no direct handlers. All else goes
# publish_slow -> publish_in_one (a topic) or publish_to_all (several).

cdef inline rc_topic *look_up(PyObject *core, PyObject *event) noexcept:
    """What the registry has for the event's class, or NULL."""
    return <rc_topic *>rc_registry_find(&(<Core>core).by_class, class_key(Py_TYPE(event)))


cdef publish_event(Core core, event, int64_t timeout):
    """Publishes an event, whatever there is to do."""
    return publish_slow(core, look_up(<PyObject *>core, <PyObject *>event), event, timeout)


cdef publish_slow(Core core, rc_topic *c, event, int64_t timeout):
    """The same where look_up has found `c`. No Python code has run since then: it could let go of what is there."""
    cdef tuple wide
    if c == NULL:
        c = find_class(core, type(event))   # seen for the first time, or closed
    if c.kind == RC_OF_CLASS:
        return publish_in_one(core, <Topic>c.host, event, timeout)
    wide = follow(core, &c, event)
    return publish_in(core, c, event, wide, timeout)


cdef publish_in(Core core, rc_topic *c, event, tuple wide, int64_t timeout):
    """Publishes in a topic (NULL: nobody has used its id) and in wide ones."""
    cdef Topic own
    if c != NULL:
        own = <Topic>c.host
        if not wide:
            return publish_in_one(core, own, event, timeout)
        if not own.is_unused():   # else only base classes are subscribed to
            return publish_to_all(core, [own, *wide], event, timeout)
    if len(wide) == 1:
        return publish_in_one(core, <Topic>wide[0], event, timeout)
    return publish_to_all(core, list(wide), event, timeout)


cdef publish_in_one(Core core, Topic topic, event, int64_t timeout):
    """Publishes in a topic, and its context topic."""
    cdef uint32_t subscribers = subscribers_of(topic.c)
    cdef tuple direct
    if topic.find_context_topic() is not None:
        return publish_to_all(core, [topic], event, timeout)
    if subscribers != 0:
        prepare(core, topic)
    direct = topic.take_direct()   # before the claim: while that succeeds, no close has cancelled any
    if subscribers == 0:
        if rc_u32_load(&core.closing):
            give_back(direct, 0, forks)
            core.check_open()   # raises
        if len(direct) == 0 and may_be_mistaken(<PyObject *>event):
            refuse_mistaken(event)
    elif try_publish(topic.c, <PyObject *>event, rc_u64_load(&topic.c.limit)) != RC_CLAIMED:
        give_back(direct, 0, forks)
        direct = publish_when_room(core, topic, event, timeout)
    if len(direct) != 0:
        if subscribers == 0:
            rc_u64_count(&topic.c.only_direct, 1)
        deliver_direct(core, direct, event)
    return subscribers + len(direct)


cdef publish_to_all(Core core, list topics, event, int64_t timeout):
    """Publishes in several topics: in all of them, or in none."""
    cdef Topic topic, context_topic
    cdef list targets = []   # (topic, what to publish there)
    cdef list unqueued = []   # topics that have direct handlers only
    cdef list taken = [()] * len(topics)   # of each the direct subscriptions
    cdef tuple direct
    cdef Py_ssize_t reached = 0, stored = 0, at
    cdef rc_claim claim = RC_CLAIMED
    cdef int64_t deadline = timeout if timeout < 0 else time.monotonic_ns() + timeout
    for topic in topics:
        if subscribers_of(topic.c) != 0:
            targets.append((topic, event))
        context_topic = topic.find_context_topic()
        if context_topic is not None and subscribers_of(context_topic.c) != 0:
            targets.append((context_topic, envelop(event)))
    for topic, _ in targets:
        prepare(core, topic)
        await_room(core, topic, deadline)
    try:
        for at in range(len(topics)):
            topic = <Topic>topics[at]
            members = taken[at] = topic.take_direct()
            if len(<tuple>members) != 0 and subscribers_of(topic.c) == 0:
                unqueued.append(topic)
        direct = tuple(sorted([sub for members in taken for sub in members], key=direct_rank_of_all))
        rc_u32_add_seq(&core.sharing, 1)   # seq: before the look at `shut`, with await_sharing
        if rc_u32_load_seq(&core.shut):
            claim = RC_CLOSED
        else:   # no Python code runs in here: close waits for the end of it
            # Looked at before anything is stored: with the GIL nobody takes the room or the memory from the claims.
            # A publisher in C may, but it leaves the reserve.
            for topic, what in targets:
                claim = rc_ring_look(&topic.c.ring, core.most_waiting + RESERVE)
                if claim != RC_CLAIMED:
                    break
        # from here to the wake nothing is allocated, as that may fail
        if claim == RC_CLAIMED:
            for topic, what in targets:
                reached += rc_u32_load(&topic.c.subscribers)
                # there was room; if others came in between, this goes a little past it rather than to stay half
                # done
                claim = put(topic.c, <PyObject *>what, core.most_waiting + RESERVE)
                if claim != RC_CLAIMED:
                    break
                stored += 1
        rc_u32_add_seq(&core.sharing, <uint32_t>-1)
        for at in range(stored):
            rc_bus_wake((<Topic>(<tuple>targets[at])[0]).c)
        if claim != RC_CLAIMED:
            raise_refusal(core, topic, claim)   # where it stopped
    except BaseException:
        for members in taken:
            give_back(<tuple>members, 0, forks)
        raise
    for topic in unqueued:
        rc_u64_count(&topic.c.only_direct, 1)
    if direct:
        deliver_direct(core, direct, event)
    elif reached == 0 and may_be_mistaken(<PyObject *>event):
        refuse_mistaken(event)
    return reached + len(direct)


cdef prepare(Core core, Topic topic):
    """Starts the threads, if the topic needs any; the next publish need not come here then."""
    if rc_u32_load(&topic.c.pooled) != 0:
        start_pool(core, core.pool)
    if rc_u32_load(&topic.c.quick_reply) == 0:
        rc_mutex_lock(&topic.c.lock)
        rc_topic_set_quick_reply(topic.c)
        rc_mutex_unlock(&topic.c.lock)


cdef inline bint may_be_mistaken(PyObject *event) noexcept nogil:
    """Whether it is what is left by a call that makes events where the parentheses or the await are missing, or where
    there are several: a class, a coroutine or a generator."""
    return (
        PyType_Check(event) or PyCoro_CheckExact(event) or PyGen_CheckExact(event) or PyAsyncGen_CheckExact(event)
    )


cdef refuse_mistaken(event):
    """For what may be mistaken for an event, and has reached nobody."""
    cls = type(event)
    if PyType_Check(<PyObject *>event):
        if identify(cls).automatic:   # else its metaclass was made for events
            name = class_name(event)
            raise EventClassError(
                f"an event is published, and {name} is a class: publish({name}(...)). "
                f"(Where classes are the events, subscribe to {class_name(cls)} first)"
            )
        return
    if PyCoro_CheckExact(<PyObject *>event):
        remedy = "await it: publish(await ...)"
    elif PyGen_CheckExact(<PyObject *>event):
        remedy = "publish_many takes one"
    else:
        remedy = "publish each of its events, in an async for"
    raise EventClassError(f"an event is published, and this is {shown(event)}: {remedy}")


def direct_rank_of_all(Subscription sub):
    return (-sub.priority, sub.number)


# --- the quick way of publish ---

cdef extern from *:
    """
    /* Cython's function of the method, which takes the arguments apart. */
    typedef PyObject *(*method_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    static method_function publish_with_arguments;

    /* Gives the class a method of the same name, flags and docstring whose function is `quick`. */
    static int put_before(PyObject *owner, PyObject *descriptor, void *quick)
    {
        static PyMethodDef method;
        PyObject *name = PyDescr_NAME(descriptor), *ours;
        int failed;
        method = *((PyMethodDescrObject *)descriptor)->d_method;
        assert(method.ml_flags == (METH_FASTCALL | METH_KEYWORDS));
        publish_with_arguments = (method_function)(void (*)(void))method.ml_meth;
        method.ml_meth = (PyCFunction)(void (*)(void))quick;
        ours = PyDescr_NewMethod((PyTypeObject *)owner, &method);
        if (ours == NULL)
            return -1;
        failed = PyDict_SetItem(((PyTypeObject *)owner)->tp_dict, name, ours);
        Py_DECREF(ours);
        PyType_Modified((PyTypeObject *)owner);
        return failed;
    }
    """
    object publish_with_arguments(PyObject *, PyObject **, Py_ssize_t, PyObject *)
    int put_before(object owner, object descriptor, void *quick) except -1


cdef object publish_quickly(PyObject *core, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """publish(event) where queueing is all there is to do. Comes before Core.publish, because taking arguments with
    keywords apart costs as much as a third of the rest."""
    cdef rc_topic *c
    cdef uint32_t subscribers
    if count == 1 and names == NULL:
        c = look_up(core, arguments[0])
        if c != NULL:
            subscribers = rc_u32_load(&c.quick_reply)
            if subscribers == RC_NOBODY:
                # or a close has just cancelled them; or this is no event
                if rc_u32_load(&(<Core>core).closing) == 0 and not may_be_mistaken(arguments[0]):
                    return 0
            elif subscribers != 0 and try_publish(c, arguments[0], rc_u64_load(&c.limit)) == RC_CLAIMED:
                return subscribers
        return publish_slow(<Core>core, c, <object>arguments[0], FOREVER)
    check_arguments(count, () if names == NULL else <tuple>names)
    return publish_with_arguments(core, arguments, count, names)


cdef check_arguments(Py_ssize_t count, tuple names):
    """Refuses what Cython would refuse in words that do not help whoever publishes by name, or without an event class.

    Args:
        count: how many arguments have no name.
        names: those of the others.
    """
    others = [short(str.__str__(name)) for name in names if not str.__eq__(name, "timeout")]   # a str of any class
    if count == 1 and not others:
        return
    given = "nothing" if count == 0 else "an object" if count == 1 else f"{count} objects"
    also = "" if not others else "; the only option is timeout="
    if others:
        given += f" and {', '.join([f'{name}=' for name in others[:3]])}{', ...' if len(others) > 3 else ''}"
    raise EventClassError(
        f"publish takes one object, the event, without a name, and was given {given}: publish(event), or "
        f"publish(Saved('a.txt', 12)) of an event class for what belongs together{also}"
    )


put_before(Core, Core.__dict__["publish"], <void *>publish_quickly)
