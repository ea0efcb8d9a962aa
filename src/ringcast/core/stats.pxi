# Statistics: what Dispatcher.stats and Dispatcher.count are made of.

cdef tuple stats_rows(Core core):
    """(workers, [(type id or None, event class, published, pending, high water, subscriptions,
    with subclasses), ...])"""
    cdef Topic topic
    cdef Scope scope
    rows = []
    for topic in core.all_topics():
        subscriptions = [*topic.all_members()]
        scope = topic.scope
        if scope is not None:
            event_class = scope.classes if len(scope.classes) > 1 else scope.classes[0]
        else:
            with core.lock:
                event_class = class_of(core, topic)
            if rc_u64_load(&topic.c.event_class) == 0 and not subscriptions and rc_topic_pending(topic.c) == 0:
                continue   # an id that is nobody's any more
        rows.append((
            None if scope is not None else topic.type_id, event_class,
            rc_ring_tail(&topic.c.ring) - topic.c.first + rc_u64_load(&topic.c.only_direct),
            rc_topic_pending(topic.c),
            max([rc_u64_load(&topic.c.high_water)]
                + [rc_u64_load(&(<Subscription>sub).c.high_water) for sub in subscriptions]),
            subscriptions, scope is not None and scope.with_subclasses(),
        ))
    if core.native_pool is None:
        return 0, rows
    return rc_pool_workers(&core.pool.c) + rc_pool_workers(&core.native_pool.c), rows


cdef Py_ssize_t count_subscriptions(Core core, type_id, event_class) except -1:
    """How many subscriptions there are to the id, also among several, and to base classes of the class."""
    cdef Topic topic
    cdef Scope scope
    cdef uint32_t checked = type_id
    cdef Py_ssize_t count
    cdef list wide
    with core.lock:
        if rc_u32_load(&core.closing):
            return 0
        topic = core.topics.get(checked)
        wide = list(core.wide)
    count = 0 if topic is None else topic.reach()
    for topic in wide:
        scope = topic.scope
        if scope.has_id(checked) or (event_class is not None and scope.has_subclass(event_class)):
            count += topic.reach()
    return count
