# Classes: which topic the events of a class, or of an id, go to.
#
# What asks classes (their ids, issubclass) may be anybody's code, and take locks that another thread holds when it
# publishes. So such code never runs under Core.lock: find_class, find_event_id, own_topic and record_topic are called
# without it, and forget_class takes it. All else here is called under it.

@cython.final
@cython.no_gc_clear
cdef class ClassEntry:
    """What a dispatcher knows of an event class. It is the callback of a weak reference to the class, and so goes with
    the class: another class at the same address is not taken for it."""
    cdef uint64_t address
    cdef object core_reference
    cdef tuple topics           # that are bound to the class
    cdef tuple replaced         # that were, until the class was defined again

    def __call__(self, reference):
        core = self.core_reference()
        if core is not None:
            forget_class(<Core>core, self, reference)


cdef rc_topic *find_class(Core core, event_class) except NULL:
    """The topic of a class, which is made known if it is not, or &by_instance. Not under core.lock."""
    cdef uint64_t key = class_key(<PyTypeObject *>event_class)
    cdef rc_topic *found = <rc_topic *>rc_registry_find_locked(&core.by_class, key)
    cdef list unknown, wide
    cdef dict answers = {}   # wide topic -> whether the class is one of its, with its id or as a subclass
    cdef Scope scope
    identity = layout = None
    if found != NULL:
        return found
    while True:
        with core.lock:
            core.check_open()
            found = <rc_topic *>rc_registry_find_locked(&core.by_class, key)
            if found != NULL:   # by another thread, meanwhile
                return found
            unknown = [each for each in core.wide if each not in answers]
            if identity is not None and not unknown:
                wide = [each for each in core.wide if answers[each]]
                return make_known(core, event_class, identity, <Layout>layout, wide)
        if identity is None:
            identity = identify(event_class)
            layout = None if identity.type_id is None else layout_of(identity.owner)
        for each in unknown:
            scope = <Scope>(<Topic>each).scope
            answers[each] = scope.has_id(identity.type_id) or scope.has_subclass(event_class)


cdef rc_topic *make_known(Core core, event_class, identity, Layout layout, list wide) except NULL:
    """The topic of a class that is new, which belongs to these wide topics too."""
    cdef rc_topic *found = &by_instance
    cdef Topic topic
    if identity.type_id is not None:
        topic = topic_of_id(core, identity.type_id, identity.automatic, layout)
        bind_class(core, topic, identity.owner)
        found = topic.c
    entry_of(core, event_class)
    if wide:
        found = route_to(core, event_class, found, wide)
    if rc_registry_put(&core.by_class, class_key(<PyTypeObject *>event_class), found) != 0:
        raise MemoryError
    return found


cdef rc_topic *find_event_id(Core core, type_id, event) except? NULL:
    """The topic of an id, or NULL where nobody has used it, for an event that may be published under it."""
    cdef uint32_t checked = check_type_id(type_id)
    cdef rc_topic *found = <rc_topic *>rc_registry_find(&core.by_id, id_key(checked))
    cdef Topic topic
    cdef bint is_doubtful = may_be_mistaken(<PyObject *>event)
    if found != NULL and rc_u64_load(&found.event_class) == class_key(Py_TYPE(<PyObject *>event)):
        return found
    while True:
        with core.lock:   # while it is held no topic goes, as one of an automatic id does with its class
            core.check_open()
            topic = core.topics.get(checked)
            if topic is None:
                return NULL
            owner = class_of(core, topic)
            if is_doubtful and owner is None and topic.reach() == 0:
                return topic.c   # an id that is still open does not become that of what publish will refuse
            if not is_doubtful or owner is None or is_instance(event, owner):
                check_event(core, topic, type(event))
                return topic.c   # of an automatic id: the event keeps the class, and that the topic
        refuse_mistaken(event)   # without the lock: it asks the metaclass
        is_doubtful = False


cdef inline bint is_instance(event, event_class) noexcept:
    """isinstance, but no metaclass is asked."""
    return PyType_IsSubtype(Py_TYPE(<PyObject *>event), <PyTypeObject *>event_class)


cdef Topic own_topic(Core core, event_class):
    """The topic of a class, which is made known if it is not; None where its instances compute their ids. Not under
    core.lock."""
    cdef rc_topic *found
    while True:
        find_class(core, event_class)
        with core.lock:   # under which no topic goes
            found = <rc_topic *>rc_registry_find_locked(&core.by_class, class_key(<PyTypeObject *>event_class))
            if found != NULL:
                return (
                    <Topic>found.host if found.kind == RC_OF_CLASS
                    else (<Route>found.host).own if found.kind == RC_ROUTE else None
                )
            core.check_open()   # which takes all out: or its class of the id has just gone


cdef Topic record_topic(Core core, record_type):
    """The topic of a record type."""
    cdef Topic topic
    if not isinstance(record_type, type) or layout_of(record_type) is None:
        raise RecordError(f"a record type is needed, not {shown(record_type)}: make one with ringcast.record")
    topic = own_topic(core, record_type)
    if topic is None or topic.layout is None:
        raise RecordError(
            f"the events of {class_name(record_type)} are kept as objects, since its type id was used before it "
            "was known to be a record type's: use the class before the id"
        )
    return topic


cdef Topic topic_of_id(Core core, uint32_t type_id, bint automatic, Layout layout=None):
    cdef Topic topic = core.topics.get(type_id)
    if topic is None:
        topic = Topic.__new__(Topic, core, type_id, automatic, layout)
        # an automatic id goes with its class, and then its topic; so only publish finds it without the lock
        if not automatic and rc_registry_put(&core.by_id, id_key(type_id), topic.c) != 0:
            raise MemoryError
        core.topics[type_id] = topic
    return topic


cdef ClassEntry entry_of(Core core, event_class):
    cdef ClassEntry entry = None
    reference = core.classes.get(id(event_class))
    if reference is not None:
        entry = reference.__callback__
    if entry is None:
        entry = ClassEntry.__new__(ClassEntry)
        entry.address = id(event_class)
        entry.core_reference = weakref.ref(core)
        entry.topics = entry.replaced = ()
        core.classes[entry.address] = weakref.ref(event_class, entry)
    return entry


cdef bind_class(Core core, Topic topic, event_class):
    """Makes the topic that of the class, if it is still open, or that of the same class before it was defined
    again: its subscriptions stay, and the events of both go there."""
    cdef uint64_t key = class_key(<PyTypeObject *>event_class), bound = rc_u64_load(&topic.c.event_class)
    cdef ClassEntry entry, former
    if bound == key:
        return
    entry = entry_of(core, event_class)
    if topic in entry.replaced:   # another one has taken its place since
        return
    if bound != 0:
        owner = class_of(core, topic)
        # not of records: what is in the ring is laid out as the first class has it. Nor of an automatic id, which goes
        # with the first class, and the topic with it
        if owner is None or topic.layout is not None or topic.automatic or not is_defined_again(owner, event_class):
            raise EventClassError(
                f"type id {topic.type_id:#x} belongs to "
                f"{'a class that is just being freed' if owner is None else class_name(owner)}: "
                f"{class_name(event_class)}{another_of_that_name(owner, event_class)} "
                + ("takes its place in a new dispatcher only: records lie in the queue as the first class has them"
                   if owner is not None and topic.layout is not None and is_defined_again(owner, event_class)
                   else "needs an id of its own")
            )
        former = entry_of(core, owner)
        former.topics = tuple([each for each in former.topics if each is not topic])
        former.replaced += (topic,)
    entry.topics += (topic,)
    rc_u64_store(&topic.c.event_class, key)


cdef object class_of(Core core, Topic topic):
    """The class that the topic is bound to. None while it is open, and where the class is just being freed: its
    address is still there then, but nobody may take a reference to it any more."""
    reference = core.classes.get(rc_u64_load(&topic.c.event_class))
    return None if reference is None else reference()


cdef check_event(Core core, Topic topic, event_class):
    """Makes sure that an event of the class may be published under the topic's id."""
    owner = None if topic.automatic else class_of(core, topic)
    if owner is None:
        bind_class(core, topic, event_class)
    elif not PyType_IsSubtype(<PyTypeObject *>event_class, <PyTypeObject *>owner):
        for base in class_mro(event_class):   # a subclass of what the owner has taken the place of, or will
            if is_defined_again(owner, base):
                bind_class(core, topic, base)
                break
        else:
            bind_class(core, topic, event_class)   # raises


cdef check_own(Core core, Topic found, event_class):
    """Makes sure that a plain subscription to the class may be in the topic which own_topic has found."""
    core.check_open()
    if found is None:
        raise TypeIdError(
            f"the instances of {class_name(event_class)} compute their type ids: use "
            "subscribe_to(type_id, handler)"
        )
    owner = class_of(core, found)
    if owner is None:   # it was inherited from a class that is no base any more, and is gone
        bind_class(core, found, event_class)
    elif owner is not event_class and not is_defined_again(owner, event_class):
        raise EventClassError(
            f"{class_name(event_class)} inherits type id {found.type_id:#x} from "
            f"{class_name(owner)}, and its events go where those of that class go: subscribe to that class, or "
            f"state an __event_type__ in {class_name(event_class)}"
        )


cdef forget_class(Core core, ClassEntry entry, reference):
    """The class is about to be freed, to which this was the reference."""
    cdef Topic topic
    with core.lock:
        rc_registry_remove(&core.by_class, entry.address)
        if core.classes.get(entry.address) is reference:
            del core.classes[entry.address]
            core.routes.pop(entry.address, None)
        for topic in entry.topics:
            rc_u64_store(&topic.c.event_class, 0)
            if topic.automatic and core.topics.pop(topic.type_id, None) is not None and topic.owned:
                topic.passing = True
                core.parted = [*core.parted, topic]


def another_of_that_name(owner, event_class):
    """What tells two classes apart in a message that names both."""
    same = owner is not None and class_name(owner) == class_name(event_class)
    return " (another class of that name)" if same else ""


cdef inline uint64_t class_key(PyTypeObject *event_class) noexcept nogil:
    return <uint64_t><uintptr_t>event_class


cdef inline uint64_t id_key(uint32_t type_id) noexcept nogil:
    return <uint64_t>type_id + 1   # 0 is the registry's empty key


cdef object id_of(rc_topic *found):
    """The type id that a class has, which leads to `found` in the registry; None where its instances compute it."""
    if found.kind == RC_ROUTE:
        return None if (<Route>found.host).own is None else (<Topic>(<Route>found.host).own).type_id
    return (<Topic>found.host).type_id if found.kind == RC_OF_CLASS else None
