/* The bus: who runs what. It composes topics, members and pools; the host has the handlers
 * (rc_host.h).
 *
 * A topic is run by the worker that holds its task. The worker finds what was published, gives each
 * member a turn, and moves the gate. A slow member has a lane: a task of its own, which another
 * worker runs in the same way. A task without work is idle. Whoever brings work schedules it.
 *
 * Tokens. A task that is queued holds its topic, or its member: neither goes while a worker may
 * come to it. The bus is pinned while anything is outstanding.
 *
 * The end of a member: rc_bus_set_end says where it ends. It is over (rc_member_is_over) when its
 * handler has returned from the last event before that. Then it retires (rc_bus_retire): it is no
 * member any more. It has left (rc_host.left) when no snapshot and no token leads to it.
 *
 * Who may call what: an attached thread. Two exceptions: any thread may call
 * rc_bus_wake_detached, and all that concerns only the native task of a topic of records.
 */
#ifndef RC_BUS_H
#define RC_BUS_H

#include "rc_topic.h"

/* Runs the task that the worker has taken, until there is no work for it or others are to have
 * their turn. */
void rc_bus_run(rc_pool *pool, rc_worker *worker, rc_task *task);

/* Schedules a topic's task, or the lane of one of its members, if it is idle. */
void rc_bus_schedule(rc_topic *topic, rc_task *task);

/* Schedules the native task, if there are native members and it is idle. */
static inline void rc_bus_schedule_natives(rc_topic *topic)
{
    /* seq: after the claim, with rc_topic_join. Either this sees the new member, or it begins after
     * this run */
    if (rc_u32_load_seq(&topic->native_task.members) != 0 &&
        rc_task_now(&topic->native_task) == RC_IDLE)
        rc_bus_schedule(topic, &topic->native_task);
}

/* Schedules the topic's tasks that are idle, after something was published. */
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

/* Sets the end of a member that takes its events from the ring: no event that is published from now
 * on is for it, and with `discard` none that its handler has not begun with. Returns whether
 * nothing waits for it. */
int rc_bus_set_end(rc_member *member, int discard);

/* After rc_bus_set_end, for a member that a pool runs: retires it if it is over. Else wakes its
 * worker, which retires it later. */
void rc_bus_after_end(rc_member *member, int discard);

/* After the ring was closed: waits for publishers that have claimed and not yet published.
 * Schedules what they have published. */
void rc_bus_settle(rc_topic *topic);

#endif
