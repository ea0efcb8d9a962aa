/* The invariants. Where one does not hold, an assertion fails that has its name. With -DONLY=IS_(name) that one alone. */

bool no_loss = true;              /* an accepted event stays in its slot until it is delivered */
bool no_duplicate = true;         /* it is delivered once */
bool no_reorder = true;           /* the events of a producer are delivered in their order */
bool no_hole = true;              /* what is delivered has been published, with all that its producer wrote before */
bool one_at_a_time = true;        /* the handler is never run by two workers */
bool no_sleeping_worker = true;   /* not all workers sleep with an event pending */
bool no_sleeping_producer = true; /* no producer sleeps when all is delivered, or when the ring is closed */
bool no_stuck_thread = true;      /* nobody waits for what cannot come */

#define IS_no_loss 1
#define IS_no_duplicate 2
#define IS_no_reorder 3
#define IS_no_hole 4
#define IS_one_at_a_time 5
#define IS_no_sleeping_worker 6
#define IS_no_sleeping_producer 7
#define IS_no_stuck_thread 8

#ifndef ONLY
#define ONLY 0
#endif

bool broken; /* the first that is broken counts: what comes of it says nothing */

#define HOLDS(invariant, condition) \
    if \
    :: !broken && !(condition) -> \
        broken = true; \
        invariant = false; \
        if \
        :: ONLY == 0 || ONLY == IS_##invariant -> assert(invariant) \
        :: else \
        fi \
    :: else \
    fi
