# Routes: classes whose events go to more topics than their own.
#
# A subscription to a base class has a topic of its own, a wide one, which all events of its subclasses are published in
# as well. Which those are is found out once, when a class or such a subscription is new: the registry then leads from
# the class to a Route instead of to its topic. A topic's companion is the same for the context of the publisher.
#
# Wide topics and companions are made for subscriptions, and go with the last of them (Core.drop_deserted). A Route
# stays as long as its class, empty perhaps: a publisher may have just found it in the registry, without a reference.

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
