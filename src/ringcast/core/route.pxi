# Routes: classes whose events go to more topics than their own.
#
# A subscription to a base class has a topic of its own, a wide one, which all events of its subclasses are published in
# as well. Which those are is found out once, when a class or such a subscription is new: the registry then leads from
# the class to a Route instead of to its topic. A topic's companion is the same for the context of the publisher.

@cython.final
@cython.no_gc_clear
cdef class Route:
    """Where the events of one class go besides their own topic."""
    cdef topic_t *c            # what the registry has; only its lock, kind and topic are used
    cdef readonly object own   # the class's Topic, or None where its instances compute their ids
    cdef tuple wide            # the Topics; replaced, never changed; guarded by c.lock

    def __cinit__(self, Topic own=None):
        self.own = own
        self.wide = ()
        self.c = <topic_t *>rc_aligned_zalloc(sizeof(topic_t))
        if self.c == NULL or rc_mutex_init(&self.c.lock):
            rc_aligned_free(self.c)
            self.c = NULL
            raise MemoryError
        self.c.kind = ROUTE
        self.c.topic = <PyObject *>self

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
        cdef tuple old = self.wide, new = old + (topic,)
        rc_mutex_lock(&self.c.lock)
        self.wide = new   # `old` keeps the other one alive until after the lock
        rc_mutex_unlock(&self.c.lock)


def is_subclass(event_class, base):
    """issubclass, but False where a Protocol or metaclass cannot tell."""
    try:
        return issubclass(event_class, base)
    except TypeError:
        return False
