# Subscribe: what Dispatcher has checked becomes a Subscription in the topic of its class, id or classes.

def subscribe_class(Core core, event_class, handler, Options options):
    """`event_class`: a class, or a tuple of several, each once. `options.bases`: those whose subclasses count."""
    cdef Scope scope
    cdef Topic found
    if type(event_class) is tuple or options.bases:
        scope = scope_of(core, event_class if type(event_class) is tuple else (event_class,), options.bases)
        while True:
            found = wide_topic(core, scope)
            with core.lock:
                core.check_open()
                if found in core.wide:   # else its last subscription has just left
                    return join(core, found, handler, event_class, options)
    found = own_topic(core, event_class)
    with core.lock:
        check_own(core, found, event_class)
        return join(core, found, handler, event_class, options)


def subscribe_id(Core core, type_id, event_class, handler, Options options):
    cdef Topic topic
    cdef uint32_t checked = check_type_id(type_id)
    layout = None if event_class is None else layout_of(event_class)
    with core.lock:
        core.check_open()
        topic = topic_of_id(core, checked, False, <Layout>layout)
        if event_class is not None:
            bind_class(core, topic, event_class)
        return join(core, topic, handler, event_class, options)


def subscribe_native(Core core, record_type, handler, userdata, Options options):
    cdef Topic topic
    cdef uintptr_t address = address_of(handler)
    data = Userdata.__new__(Userdata, userdata)
    topic = record_topic(core, record_type)
    start_pool(core, core.native_pool)   # without the lock: the caller waits until the thread runs
    with core.lock:
        core.check_open()
        if core.natives == 0:
            native_dispatchers.add(core)
        core.natives += 1
        try:
            return join(core, topic, handler, record_type, options, address, data)
        except BaseException:
            native_left(core)
            raise


cdef Subscription join(
    Core core, Topic topic, handler, event_class, Options options, uintptr_t native=0, Userdata data=None
):
    cdef Subscription sub
    if options.with_context:
        topic = context_topic_of(core, topic)
    try:
        sub = new_subscription(core, topic, handler, event_class, options, native, data)
    except BaseException:
        if topic.passing:
            drop_deserted(core, topic)
        raise
    core.subscribed += 1
    sub.number = core.subscribed
    return sub
