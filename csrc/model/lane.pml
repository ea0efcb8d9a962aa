/* A model of a topic's task and of the lane of one of its subscriptions: how the subscription gets a lane (its turn is
 * split, or was cut), is run there, and goes back to its topic. Checked by csrc/model/check, as dispatcher.pml, which
 * see for the manner. Publishing is one step here, and a worker without a task needs no waking: that is dispatcher.pml's.
 *
 * Bounds: one producer with EVENTS events, WORKERS workers, one subscription, SPLITS splits or cuts.
 */
#ifndef EVENTS
#define EVENTS 3
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SPLITS
#define SPLITS 2
#endif
#define THREADS (WORKERS + 1)
#define PRODUCER WORKERS

#include "invariants.h"

#define CURSOR 0
#define END 1
#define TOPIC 2 /* the state of the topic's task */
#define LANE 3  /* and of the lane's */
#define WORDS 4

#define IDLE 0
#define SCHEDULED 1
#define SHARED 2

#include "memory.h"

byte tail;
byte splits;

/* under the pool's mutex */
bool topic_queued, lane_queued;

/* the turn of each worker, and whether what it holds is the topic (that can be split) or the lane */
#define NONE 0
#define RUNNING 1
#define SPLIT 2
byte turn[WORKERS];
bool holds_topic[WORKERS];

/* what the check knows */
byte handling, delivered;
bool resting[WORKERS];

inline schedule_topic() /* schedule, rc_pool_schedule */
{
    if
    :: mem[TOPIC] == IDLE ->
        atomic {
            FENCED;
            if
            :: mem[TOPIC] == IDLE -> mem[TOPIC] = SCHEDULED; topic_queued = true
            :: else
            fi
        }
    :: mem[TOPIC] != IDLE
    fi
}

inline schedule_lane()
{
    if
    :: mem[LANE] == IDLE ->
        atomic {
            FENCED;
            if
#ifdef NO_ACQUIRE /* rc_task_acquire: a compare-and-swap, not "it was idle when I looked" */
            :: true -> mem[LANE] = SCHEDULED; lane_queued = true
#else
            :: mem[LANE] == IDLE -> mem[LANE] = SCHEDULED; lane_queued = true
#endif
            :: else
            fi
        }
    :: mem[LANE] != IDLE
    fi
}

proctype producer(byte me)
{
    byte number;
    do
    :: number < EVENTS ->
        atomic { FENCED; tail++; number++ };
        schedule_topic()
    :: number == EVENTS -> break
    od
}

inline run_turn() /* ends with `split`, or `cut`: after a call that was slow, before the end */
{
    turn[me] = RUNNING; /* rc_turn_begin */
    do
    :: cursor < end ->
        atomic { HOLDS(one_at_a_time, handling == 0); handling++ };
        atomic {
            HOLDS(no_duplicate, cursor >= delivered);
            HOLDS(no_reorder, cursor <= delivered);
            delivered++;
            handling--;
            cursor++
        };
        STORE(CURSOR, cursor);
        if
        :: splits < SPLITS && holds_topic[me] -> splits++; cut = true; break
        :: true
        fi
    :: cursor >= end -> break
    od;
    atomic { /* rc_turn_end */
        FENCED;
#ifdef NO_TURN_CAS /* rc_turn_end: a compare-and-swap, that sees a split, and no store */
        split = false;
#else
        split = (turn[me] == SPLIT);
#endif
        turn[me] = NONE
    }
}

inline has_work() /* has_work of rc_bus.c: the end, then the tail, then the lane's state, then the cursor */
{
    end = mem[END];
    more = (tail != end);
    if
    :: more
#ifndef NO_MEMBERS_LOOK /* has_work: looks also at those that run with the topic, and at lanes that are idle */
    :: !more ->
        state = mem[LANE];
        if
        :: state != SCHEDULED -> more = (mem[CURSOR] < end)
        :: else
        fi;
        state = 0
#else
    :: else
#endif
    fi
}

proctype worker(byte me)
{
    byte cursor, end, state;
    bool split, cut, more;
    do
    :: atomic {
        resting[me] = true;
        if
        :: topic_queued -> topic_queued = false; holds_topic[me] = true; resting[me] = false; goto topic
        :: lane_queued -> lane_queued = false; resting[me] = false; goto lane
        fi };

topic: /* run_topic */
        end = mem[END];
        if /* find */
        :: tail != end -> end = tail
        :: tail == end
        fi;
        STORE(END, end);
#ifndef NO_END_FENCE /* find: the end is stored with seq_cst, before the look at the lane */
        FENCED;
#endif
        state = mem[LANE];
        if
        :: state != SHARED ->
            state = 0;
            if
            :: mem[CURSOR] < end -> schedule_lane()
            :: mem[CURSOR] >= end
            fi
        :: state == SHARED ->
            state = 0;
            cursor = mem[CURSOR];
            if
            :: cursor < end ->
                run_turn();
                cursor = 0;
                if
                :: split -> split = false; cut = false; goto lane
                :: !split && cut ->
                    cut = false;
                    STORE(LANE, IDLE);
                    FENCED;
                    if
                    :: mem[CURSOR] < end -> schedule_lane()
                    :: mem[CURSOR] >= end
                    fi
                :: !split && !cut
                fi
            :: cursor >= end -> cursor = 0
            fi
        fi;
        has_work();
        if
        :: more -> goto topic
        :: !more
        fi;
        STORE(TOPIC, IDLE); /* rc_task_release */
#ifndef NO_IDLE_FENCE /* rc_task_release: memory_order_seq_cst */
        FENCED;
#endif
#ifndef NO_SECOND_LOOK /* run_topic: looks for work once more after it has made the task idle */
        has_work();
#endif
        if
        :: more ->
            more = false;
            atomic { /* rc_task_acquire */
                FENCED;
                if
                :: mem[TOPIC] == IDLE -> mem[TOPIC] = SCHEDULED; goto topic
                :: else
                fi
            }
        :: !more
        fi;
        goto leave;

lane: /* run_lane */
        end = mem[END];
        cursor = mem[CURSOR];
        if
        :: cursor < end ->
            run_turn();
            goto lane
        :: cursor >= end -> cursor = 0
        fi;
        if
        :: STORE(LANE, SHARED); /* it was calm: back to its topic */
#ifndef NO_SHARED_FENCE /* run_lane: rc_task_release(&lane, RC_SHARED) is seq_cst, before the look at the topic's state */
            FENCED;
#endif
#ifndef NO_SHARED_SCHEDULE /* run_lane: schedules the topic, which may have passed this one by */
            schedule_topic()
#endif
        :: STORE(LANE, IDLE);
#ifndef NO_LANE_FENCE /* rc_task_release: memory_order_seq_cst */
            FENCED;
#endif
#ifndef NO_LANE_LOOK /* run_lane: looks for events once more after it has made the lane idle */
            end = mem[END];
            if
            :: mem[CURSOR] < end ->
                atomic { /* rc_task_acquire */
                    FENCED;
                    if
                    :: mem[LANE] == IDLE -> mem[LANE] = SCHEDULED; goto lane
                    :: else
                    fi
                }
            :: mem[CURSOR] >= end
            fi
#endif
        fi;
leave:
        atomic { FENCED; end = 0; holds_topic[me] = false }
    od
}

/* The watch (rc_pool_split_stuck), or a worker that waits for room: pins a turn and splits it, under the mutex. */
active proctype watch()
{
    do
    :: atomic { splits < SPLITS && turn[0] == RUNNING && holds_topic[0] ->
        turn[0] = SPLIT; holds_topic[0] = false; splits++; mem[LANE] = SCHEDULED; topic_queued = true }
    :: atomic { splits < SPLITS && turn[1] == RUNNING && holds_topic[1] ->
        turn[1] = SPLIT; holds_topic[1] = false; splits++; mem[LANE] = SCHEDULED; topic_queued = true }
    od
}

init {
    atomic { mem[LANE] = SHARED; run worker(0); run worker(1); run producer(PRODUCER) };
    timeout;
    atomic {
        HOLDS(no_sleeping_worker, tail != EVENTS || delivered == EVENTS || !resting[0] || !resting[1]);
        HOLDS(no_stuck_thread, resting[0] && resting[1] && tail == EVENTS);
        HOLDS(no_loss, delivered == EVENTS)
    }
}
