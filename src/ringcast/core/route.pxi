# Routes: classes whose events go to more topics than their own.
#
# A subscription to several classes, or to a base class, has a topic of its own, a wide one. All events of these classes
# are published in the wide topic as well: so they are in one order, that of the claims in its ring. Which classes these
# are is found out once, when a class or such a subscription is new: the registry then leads from the class to a Route
# instead of to its topic. Subscriptions of the same Scope share a wide topic. A topic's context topic has the same
# events, each with the context of its publisher.
#
# Wide topics and context topics are made for subscriptions, and go with the last of them (drop_deserted). A Route
# stays as long as its class, empty perhaps: a publisher may have just found it in the registry, without a reference.

@cython.final
@cython.no_gc_clear
cdef class Scope:
    """Which events a wide topic is for: those of some classes, and of some others with their subclasses.

    Of the former, the type ids count: the events that a plain subscription to the class would get. So an event of a
    subclass that inherits the id belongs to it, one of the class that takes the place of a class of a stated id, and
    one that is published under the id."""
    cdef readonly tuple classes   # all of them, as the first subscription has named them
    cdef readonly tuple bases     # those whose subclasses count
    cdef frozenset ids            # the type ids of the others
    cdef object key               # equal for the same classes, by address: a metaclass may define __eq__

    def __cinit__(self, tuple classes, tuple bases, ids):
        addresses = frozenset([id(base) for base in bases])
        self.classes = classes
        self.bases = bases
        self.ids = frozenset(ids)
        self.key = (addresses, frozenset([id(one) for one in classes]) - addresses)

    cdef bint has_id(self, type_id):
        """Whether the events of a type id belong to it, by that alone. None: the instances of a class compute it."""
        return type_id in self.ids

    cdef bint has_subclass(self, event_class) except -1:
        """Whether the events of a class belong to it as those of a subclass. Not under the Core's lock."""
        for base in self.bases:
            if is_subclass(event_class, base):
                return True
        return False

    cdef bint with_subclasses(self):
        return len(self.bases) == len(self.classes)


@cython.final
@cython.no_gc_clear
cdef class Route:
    """Where the events of one class go besides their own topic."""
    cdef rc_topic *c            # what the registry has; only its lock, kind and topic are used
    cdef readonly object own   # the class's Topic, or None where its instances compute their ids
    cdef tuple wide            # the Topics; replaced, never changed; guarded by c.lock

    def __cinit__(self, Topic own=None):
        self.own = own
        self.wide = ()
        self.c = <rc_topic *>rc_aligned_zalloc(sizeof(rc_topic))
        if self.c == NULL or rc_mutex_init(&self.c.lock):
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        self.c.kind = RC_ROUTE
        self.c.host = <PyObject *>self

    def __dealloc__(self):
        if self.c != NULL:
            rc_mutex_destroy(&self.c.lock)
            rc_aligned_free(self.c)

    cdef tuple wide_topics(self):
        cdef tuple wide
        rc_mutex_lock(&self.c.lock)
        wide = self.wide
        rc_mutex_unlock(&self.c.lock)
        return wide

    cdef add(self, Topic topic):
        """Under the Core's lock."""
        self.set_wide(self.wide + (topic,))

    cdef remove(self, Topic topic):
        """Under the Core's lock."""
        self.set_wide(tuple([each for each in self.wide if each is not topic]))

    cdef void set_wide(self, tuple wide) noexcept:
        cdef tuple old = self.wide   # kept alive until after the lock
        cdef int more = (len(wide) != 0) - (len(old) != 0)
        rc_mutex_lock(&self.c.lock)
        self.wide = wide
        rc_mutex_unlock(&self.c.lock)
        if more != 0 and self.own is not None:
            (<Topic>self.own).count_routes(more)


def is_subclass(event_class, base):
    """issubclass, but False where a Protocol or metaclass cannot tell. Whoever publishes is not to be told of that: it
    has to do with a subscription of others."""
    try:
        return issubclass(event_class, base)
    except Exception:
        return False


cdef tuple wide_under(Core core, rc_topic *c, tuple wide):
    """The wide topics of an event that is published under an id which its class does not state. `c`: that of
    the id, or NULL. `wide`: those that its class leads to."""
    cdef Topic each
    cdef uint32_t type_id
    cdef list reached, of_id = []
    if rc_u32_load(&core.unions) == 0:
        return wide
    reached = [each for each in wide if len((<Scope>each.scope).bases) != 0]
    if c != NULL:
        type_id = (<Topic>c.host).type_id
        with core.lock:
            of_id = [each for each in core.wide if (<Scope>each.scope).has_id(type_id) and each not in reached]
    return tuple(reached + of_id)


cdef tuple follow(Core core, rc_topic **c, event):
    """The wide topics of an event. `c`: what find_class has for its class; then its own topic, or NULL where nobody has
    used its id. No Python code has run between: it could let go of what is there."""
    cdef tuple wide = ()
    cdef Route route
    if c[0].kind == RC_ROUTE:
        route = <Route>c[0].host
        wide = route.wide_topics()
        c[0] = (<Topic>route.own).c if route.own is not None else &by_instance
    if c[0].kind == RC_BY_INSTANCE:
        c[0] = find_event_id(core, event.__event_type__, event)
        wide = wide_under(core, c[0], wide)
    return wide


cdef rc_topic *route_to(Core core, event_class, rc_topic *found, list wide) except NULL:
    """The route of a class whose entry was `found`, with these wide topics more."""
    cdef Route route = core.routes.get(id(event_class))   # which may be out of use: see drop_deserted
    own = <Topic>found.host if found.kind == RC_OF_CLASS else None
    if found.kind != RC_ROUTE and (route is None or route.own is not own):
        route = Route.__new__(Route, own)
        core.routes[id(event_class)] = route
    for topic in wide:
        route.add(<Topic>topic)
    return route.c


cdef Scope scope_of(Core core, tuple classes, tuple bases):
    """That of these classes, of some of them (`bases`) with their subclasses; the others' ids are theirs from now
    on."""
    cdef Topic found
    cdef list ids = []
    for event_class in classes:
        if not any([event_class is base for base in bases]):
            found = own_topic(core, event_class)
            with core.lock:
                check_own(core, found, event_class)
                ids.append(found.type_id)
    return Scope.__new__(Scope, classes, bases, ids)


cdef Topic wide_topic(Core core, Scope scope):
    """The topic of all events that a scope has. Not under core.lock."""
    cdef Topic topic
    cdef list known, unknown
    cdef dict answers = {}   # id of a class -> (the class, whether it is a subclass)
    while True:
        with core.lock:
            core.check_open()
            for topic in core.wide:
                if (<Scope>topic.scope).key == scope.key:
                    return topic
            known = [reference() for reference in core.classes.values()]
            unknown = [one for one in known if one is not None and id(one) not in answers]
            if not unknown:
                return make_wide_topic(core, scope, list(answers.values()))
        for one in unknown:
            answers[id(one)] = (one, scope.has_subclass(one))


cdef Topic make_wide_topic(Core core, Scope scope, list known):
    """The same where there is none yet. `known`: the classes that are, each with whether it is a subclass."""
    cdef Topic topic = Topic.__new__(Topic, core, 0, False)
    cdef rc_topic *found
    topic.passing = True
    topic.scope = scope
    for one, belongs in known:
        found = <rc_topic *>rc_registry_find_locked(&core.by_class, class_key(<PyTypeObject *>one))
        if found == NULL or not (belongs or scope.has_id(id_of(found))):
            continue
        found = route_to(core, one, found, [topic])
        if rc_registry_put(&core.by_class, class_key(<PyTypeObject *>one), found) != 0:
            raise MemoryError
    core.wide.append(topic)
    rc_u32_store(&core.wide_topics, <uint32_t>len(core.wide))
    if scope.ids:
        rc_u32_store(&core.unions, rc_u32_load(&core.unions) + 1)
    return topic


cdef Topic context_topic_of(Core core, Topic topic):
    """The topic of the same events, each with the context of its publisher."""
    cdef Topic context_topic
    if topic.context_topic is None:
        context_topic = Topic.__new__(Topic, core, topic.type_id, topic.automatic)
        context_topic.passing = True
        context_topic.scope = topic.scope
        core.context_topics.append(context_topic)
        topic.set_context_topic(context_topic)
    return topic.context_topic


cdef drop_deserted(Core core, Topic topic):
    """Lets go of a wide topic or a context topic that its last subscription has left: what publish costs, and which
    classes are kept, is then as it was before. Not under a topic's lock."""
    cdef Topic other
    with core.lock:
        # A closed dispatcher finds no topics. (A publisher that has found this one holds a reference to it; what it
        # still stores there is for nobody, and goes with the topic.)
        if rc_u32_load(&core.closing) or not topic.is_deserted():
            return
        if topic in core.wide:
            core.wide = [other for other in core.wide if other is not topic]
            rc_u32_store(&core.wide_topics, <uint32_t>len(core.wide))
            if (<Scope>topic.scope).ids:
                rc_u32_store(&core.unions, rc_u32_load(&core.unions) - 1)
            end_routes(core, topic)
            return
        core.parted = [other for other in core.parted if other is not topic]
        core.context_topics = [other for other in core.context_topics if other is not topic]
        for other in core.wide if topic.scope is not None else [core.topics.get(topic.type_id)]:
            if other is not None and other.context_topic is topic:
                other.set_context_topic(None)
                if other.passing:
                    drop_deserted(core, other)


cdef end_routes(Core core, Topic topic):
    """Has no route lead to the wide topic any more, and classes without routes found as if there had been none."""
    cdef Route route
    cdef rc_topic *found
    for address, route in list(core.routes.items()):
        if topic not in route.wide:
            continue
        route.remove(topic)
        found = &by_instance if route.own is None else (<Topic>route.own).c
        if not route.wide and rc_registry_put(&core.by_class, address, found) != 0:
            raise MemoryError
