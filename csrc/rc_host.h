/* The host: what the C side asks of whoever has the handlers. One table for each pool.
 *
 * Attached is a thread that may touch the host's objects: the workers of a pool with `pin`, and
 * whoever calls a function that says so. None of these is called under an rc_mutex, but for `pin`.
 */
#ifndef RC_HOST_H
#define RC_HOST_H

#include <stddef.h>

struct rc_pool;
struct rc_topic;
struct rc_member;

typedef struct rc_host {
    /* Something is outstanding from now on: the bus has to stay. Attached; only counts. NULL: the
     * pool's workers are not attached, and somebody else keeps the bus. */
    void (*pin)(struct rc_pool *pool);
    /* Nothing is outstanding any more: the bus may go. The caller does nothing with the bus
     * afterwards. */
    void (*unpin)(struct rc_pool *pool);
    /* Starts the pool's threads, if they are not there. Attaches itself. */
    void (*start)(struct rc_topic *topic, struct rc_pool *pool);
    /* Lets other threads run, within a long turn. NULL: they run anyway. */
    void (*pause)(void);
    /* Lets go of events that all have seen. Attached; may run anything. */
    void (*drop)(void **events, size_t count);
    /* Tells the consumer of a member that runs on a loop that there is something for it. Attached.
     */
    void (*wake)(struct rc_member *member);
    /* Somebody waits for room without blocking, and there may be some. Attaches itself. */
    void (*moved)(struct rc_topic *topic);
    /* The member has retired. Attaches itself. */
    void (*retired)(struct rc_member *member);
    /* No thread can come to the member any more. Attaches itself; the member may go with it. */
    void (*left)(struct rc_member *member);
} rc_host;

#endif
