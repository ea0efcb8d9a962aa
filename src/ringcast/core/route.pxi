# Routes: classes whose events go to more topics than their own.
#
# A subscription to several classes, or to a base class, has a topic of its own, a wide one. All events of these classes
# are published in the wide topic as well: so they are in one order, that of the claims in its ring. Which classes these
# are is found out once, when a class or such a subscription is new: the registry then leads from the class to a Route
# instead of to its topic. Subscriptions of the same Scope share a wide topic. A topic's companion is the same for the
# context of the publisher.
#
# Wide topics and companions are made for subscriptions, and go with the last of them (Core.drop_deserted). A Route
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
    """issubclass, but False where a Protocol or metaclass cannot tell."""
    try:
        return issubclass(event_class, base)
    except TypeError:
        return False
