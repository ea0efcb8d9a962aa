/* The bus: who runs what. It composes topics, members and pools; the host has the handlers
 * (rc_host.h).
 *
 * A topic is run by the worker that holds its task: it finds what was published, gives each member
 * a turn, and moves the gate. A slow member has a lane, which is run in the same way by a worker of
 * its own. What either has no more work for is idle, and scheduled again by whoever has some.
 *
 * Tokens. A task that is scheduled holds its topic, or its member, so that neither goes while a
 * worker may come to it. The bus is pinned while anything is outstanding.
 *
 * Who may call what: an attached thread, except that rc_bus_..._detached, and all of a topic of
 * records whose task is the native one, need not be.
 */
#ifndef RC_BUS_H
#define RC_BUS_H

#include "rc_topic.h"

/* Runs the task that the worker has taken, until there is no work for it or others are to have
 * their turn. */
void rc_bus_run(rc_pool *pool, rc_worker *worker, rc_task *task);

/* Has a topic's task, or the lane of one of its members, run if it is idle. */
void rc_bus_schedule(rc_topic *topic, rc_task *task);

/* Has the native members run, if there are any and they are idle. */
static inline void rc_bus_schedule_natives(rc_topic *topic)
{
    /* seq: after the claim, with rc_topic_join. Either this sees the new member, or it begins after
     * this run */
    if (rc_u32_load_seq(&topic->native_task.members) != 0 &&
        rc_task_now(&topic->native_task) == RC_IDLE)
        rc_bus_schedule(topic, &topic->native_task);
}

/* Has all run that is idle, after something was published. */
static inline void rc_bus_wake(rc_topic *topic)
{
    if (topic->ring.record_size != 0) {
        rc_bus_schedule_natives(topic);
        if (rc_u32_load_seq(&topic->task.members) == 0) return; /* seq: as above */
    }
    if (rc_task_now(&topic->task) == RC_IDLE) rc_bus_schedule(topic, &topic->task);
}

/* The same, for a publisher that holds a lease on the topic and its bus. Returns 1 where an
 * attached thread has to do it (rc_bus_wake). */
int rc_bus_wake_detached(rc_topic *topic);

/* Ends a member that has had its last event. Idempotent. The caller holds it. */
void rc_bus_retire(rc_member *member);

/* Says where a member ends that takes its events from the ring: no event that is published from now
 * on is for it, and with `discard` none that its handler has not begun with. Returns whether
 * nothing waits for it. */
int rc_bus_end(rc_member *member, int discard);

/* Has a member that rc_bus_end has ended, and that a pool runs, retire when it has had what is left
 * for it. */
void rc_bus_finish(rc_member *member, int discard);

/* After the ring was closed: waits for publishers that have claimed and not yet published, and has
 * run what they have published. */
void rc_bus_settle(rc_topic *topic);

#endif
