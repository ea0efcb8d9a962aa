/* A model of one topic: the ring's claim, publish and gate, the parks, and how the topic's task is scheduled and made
 * idle. Checked exhaustively by csrc/model/check. The names are those of the C code and of src/ringcast/core/.
 *
 * Memory. Under sequential consistency a missing fence does no harm, so stores go through store buffers, as on x86: a
 * store is seen by others some time later, in order (process `memory`). STORE is a store up to release; FENCE makes
 * it sequentially consistent; a read-modify-write (compare-and-swap, lock of a mutex) empties the buffer first. What only
 * weaker machines do (a relaxed store that overtakes, a load that comes early) stands where it matters, as a mutation.
 * No process reads a variable that may be in its own buffer: it has the value in a local one.
 *
 * Mutations. Each -DNO_... takes away one fence or one check, and names the C code that it stands for. csrc/model/check
 * has the list and which invariant each of them breaks.
 *
 * Bounds: PRODUCERS producers with EACH events each, WORKERS workers, one subscription, MAX_QUEUE events in the ring,
 * which has just as many slots. With -DCLOSE the dispatcher is closed meanwhile; with -DBLOCKED the handler does not return
 * before the producers are done. Waits have no timeouts and no spurious ends here: they would only hide a lost wake-up.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef EACH
#define EACH 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef MAX_QUEUE
#define MAX_QUEUE 1
#endif

#define TOTAL (PRODUCERS * EACH)
#define THREADS (PRODUCERS + WORKERS + 1)
#define CLOSER (PRODUCERS + WORKERS)

#include "invariants.h"

/* --- memory ------------------------------------------------------------------------------------------------------- */

#define SLOT(position) ((position) % MAX_QUEUE)  /* 0 is NULL, else the event: 1 + producer * EACH + number */
#define BODY(event) (MAX_QUEUE + (event) - 1)    /* what the event's producer has written in it */
#define GATE (MAX_QUEUE + TOTAL)
#define CURSOR (GATE + 1)
#define END (GATE + 2)
#define STATE (GATE + 3)
#define WORDS (GATE + 4)

#define IDLE 0
#define SCHEDULED 1

#include "memory.h"

/* Words that are changed by read-modify-write alone need no buffer. */
byte tail;
bool closed;                     /* the upper bit of the tail */
byte gate_seen;                  /* a store of it that others see late only makes them look again */
bool locked;                     /* rc_topic.lock: its holder has fenced what it has stored, but for a mutation */
byte room_waiters, work_waiters; /* of the two parks: where producers wait for room, and workers for tasks */
byte progress_waiters;           /* where close waits for deliveries */
bool ticket[THREADS];            /* whether the thread has a ticket that is still that of the epoch */
bool asleep[THREADS];

/* under the pool's mutex: what the mutex guards is done in one step */
bool queued;
byte idle, outstanding, alive;
bool stopping;

/* what the check knows */
byte accepted, delivered;
byte next[PRODUCERS]; /* the number that is expected from each */
byte handling;
byte producing; /* producers that are not done */

/* --- rc_park.h ------------------------------------------------------------------------------------------------------ */

/* FUTEX_WAIT: the kernel compares and falls asleep in one step */
inline futex_wait()
{
#ifdef NO_TICKET /* rc_park_wait: the kernel compares the epoch with the ticket */
    asleep[me] = true;
#else
    asleep[me] = ticket[me];
#endif
    !asleep[me]
}

inline raise_epoch(first, last) /* rc_park_wake_slow, first step */
{
    d_step {
        other = first;
        do
        :: other <= last -> ticket[other] = false; other++
        :: else -> other = 0; break
        od
    }
}

inline wake(first, last) /* rc_park_wake_slow, second step */
{
    d_step {
        other = first;
        do
        :: other <= last -> asleep[other] = false; other++
        :: else -> other = 0; break
        od
    }
}

inline wake_all_producers() /* rc_park_wake_all(&ring->room) */
{
    if
    :: room_waiters != 0 -> /* rc_park_wake: seq_cst, after the gate or the closed bit */
#ifndef NO_EPOCH /* rc_park_wake_slow: raises the epoch before it wakes */
        raise_epoch(0, PRODUCERS - 1);
#endif
        wake(0, PRODUCERS - 1)
    :: room_waiters == 0
    fi
}

inline wake_one_worker() /* rc_park_wake_one(&pool->work) */
{
    if
    :: work_waiters != 0 ->
#ifndef NO_WORK_EPOCH /* rc_park_wake_slow: raises the epoch before it wakes */
        raise_epoch(PRODUCERS, PRODUCERS + WORKERS - 1);
#endif
        atomic {
            if
            :: asleep[PRODUCERS] -> asleep[PRODUCERS] = false
#if WORKERS > 1
            :: asleep[PRODUCERS + 1] -> asleep[PRODUCERS + 1] = false
#endif
            :: else
            fi
        }
    :: work_waiters == 0
    fi
}

inline wake_all_workers() /* rc_park_wake_all(&pool->work) */
{
    if
    :: work_waiters != 0 ->
        raise_epoch(PRODUCERS, PRODUCERS + WORKERS - 1);
        wake(PRODUCERS, PRODUCERS + WORKERS - 1)
    :: work_waiters == 0
    fi
}

/* --- rc_pool.h: one task --------------------------------------------------------------------------------------------- */

inline schedule() /* rc_bus_schedule and rc_pool_schedule */
{
    if
    :: mem[STATE] == IDLE -> /* rc_task_now: seq_cst, after the claim */
        atomic {
            FENCED;
            if
            :: stopping && alive == 0 /* the workers are gone */
#ifdef NO_ACQUIRE /* rc_task_acquire: a compare-and-swap, not "it was idle when I looked" */
            :: !(stopping && alive == 0) ->
#else
            :: !(stopping && alive == 0) && mem[STATE] == IDLE ->
#endif
                mem[STATE] = SCHEDULED;
                outstanding++;
                queued = true;
                to_wake = idle > 0
            :: else
            fi
        };
        if
        :: to_wake -> to_wake = false; wake_one_worker()
        :: else
        fi
    :: mem[STATE] != IDLE
    fi
}

/* --- rc_topic.c -------------------------------------------------------------------------------------------------------- */

inline advance()
{
    atomic {
        FENCED && !locked;
        gate = mem[GATE];
        target = mem[END];
#ifndef NO_CURSOR /* advance: the gate goes no further than the last cursor */
        if
        :: mem[CURSOR] < target -> target = mem[CURSOR]
        :: else
        fi;
#endif
        locked = gate < target /* else it would be unlocked at once */
    };
    if
    :: gate < target ->
#ifdef NO_GATE_RELEASE /* rc_ring_move_gate: a store with release; here the emptied slots come after it */
        STORE(GATE, target);
#endif
        do
        :: gate < target -> STORE(SLOT(gate), 0); gate++ /* rc_ring_take */
        :: gate == target -> break
        od;
#ifndef NO_GATE_RELEASE
        STORE(GATE, target);
#endif
#ifndef NO_GATE_FENCE /* rc_ring_move_gate: memory_order_seq_cst */
        FENCED;
#endif
#ifndef NO_GATE_WAKE /* rc_ring_move_gate: rc_park_wake_all */
        wake_all_producers();
#endif
        atomic { FENCED; locked = false }
    :: gate >= target
    fi;
    atomic { gate = 0; target = 0 }
}

/* --- core/publish.pxi and rc_ring_claim --------------------------------------------------------------------------------- */

#define HAS_ROOM(position, gate) (gate <= position && position - gate < MAX_QUEUE) /* position - gate < limit, unsigned */

mtype = { CLAIMED, FULL, CLOSED };

inline try_publish()
{
    claim = 0;
    do
    :: claim == 0 ->
        atomic {
            position = tail;
            if
            :: closed -> claim = CLOSED
            :: else
            fi
        };
        if
        :: claim == CLOSED
#ifdef NO_LIMIT /* rc_ring_claim: position - gate < limit */
        :: claim == 0 ->
#else
        :: claim == 0 && HAS_ROOM(position, gate_seen) ->
#endif
#ifdef NO_CLAIM_FENCE /* rc_ring_claim: the compare-and-swap is seq_cst; else the look at the task may come before it */
            early = mem[STATE];
#endif
#ifdef NO_CAS /* rc_ring_claim: a compare-and-swap, not a load and a store */
            atomic { FENCED; tail = position + 1; claim = CLAIMED; accepted++ }
#else
            atomic {
                FENCED;
                if
                :: tail == position && !closed -> tail = position + 1; claim = CLAIMED; accepted++
                :: else
                fi
            }
#endif
#ifndef NO_LIMIT
        :: claim == 0 && !HAS_ROOM(position, gate_seen) -> /* rc_ring_claim_slow */
            gate = mem[GATE];
            if
            :: HAS_ROOM(position, gate) -> gate_seen = gate
            :: !HAS_ROOM(position, gate) ->
                atomic {
                    if
                    :: closed -> claim = CLOSED
                    :: !closed && tail == position -> claim = FULL
                    :: else
                    fi
                }
            fi
#endif
        fi
    :: claim == CLAIMED ->
        atomic { HOLDS(no_loss, mem[SLOT(position)] == 0) }; /* rc_ring_publish finds the slot empty */
#ifdef NO_PUBLISH_RELEASE /* rc_ring_publish: a store with release; here the slot comes before what it hands over */
        STORE(SLOT(position), event);
        STORE(BODY(event), 1);
#else
        STORE(SLOT(position), event);
#endif
#ifdef NO_CLAIM_FENCE
        if
        :: early == IDLE -> schedule()
        :: else
        fi;
#else
        schedule();
#endif
        break
    :: claim == FULL || claim == CLOSED -> break
    od;
    gate = 0
}

inline await_gate() /* rc_ring_await_gate(gate_before) */
{
#ifdef NO_PREPARE_FENCE /* rc_park_prepare: the addition is seq_cst; else the look at the gate may come before it */
    seen = mem[GATE];
#endif
    atomic { FENCED; room_waiters++ };
    ticket[me] = true;
#ifndef NO_PREPARE_FENCE
    seen = mem[GATE];
#endif
    if
#ifndef NO_LOOK /* rc_ring_await_gate: looks at the gate once more before it waits */
    :: seen != gate_before
#endif
#ifndef NO_CLOSED_LOOK /* rc_ring_await_gate: and whether the ring is closed */
    :: closed
#endif
    :: else -> futex_wait()
    fi;
    atomic { room_waiters--; seen = 0; ticket[me] = false } /* rc_park_cancel */
}

proctype producer(byte me)
{
    byte number, event, position, gate, target, gate_before, seen, other;
    mtype claim;
    bool to_wake;
#ifdef NO_CLAIM_FENCE
    byte early;
#endif
    do
    :: number < EACH && claim != CLOSED ->
        atomic {
            event = 1 + me * EACH + number;
#ifndef NO_PUBLISH_RELEASE
            mem[BODY(event)] = 1 /* seen in time by all who see the slot */
#endif
        };
        try_publish();
        do /* publish_when_room */
        :: claim == FULL ->
            gate_before = mem[GATE];
            advance(); /* room_limit */
            try_publish();
            if
            :: claim == FULL -> await_gate()
            :: else
            fi
        :: claim != FULL -> break
        od;
        atomic { number++; event = 0; position = 0; gate_before = 0 }
    :: number == EACH || claim == CLOSED -> break
    od;
    atomic { FENCED; producing-- }
}

/* --- rc_bus.c ------------------------------------------------------------------------------------------------------------ */

inline has_work(end) /* has_work of rc_bus.c; a turn takes all that was found, so that only the tail tells of more */
{
#ifdef NO_TAIL_LOOK /* has_work: looks at the tail, which the claim moves, not at the slot, which comes later */
    more = (mem[SLOT(end)] != 0)
#else
    more = (tail != end)
#endif
}

inline handle()
{
#ifdef BLOCKED
    producing == 0;
#endif
    atomic { HOLDS(one_at_a_time, handling == 0); handling++ };
    atomic {
        event = mem[SLOT(cursor)];
        HOLDS(no_hole, event != 0 && mem[BODY(event)] == 1);
        if
        :: event != 0 ->
            HOLDS(no_duplicate, (event - 1) % EACH >= next[(event - 1) / EACH]);
            HOLDS(no_reorder, (event - 1) % EACH <= next[(event - 1) / EACH]);
            next[(event - 1) / EACH]++;
            delivered++
        :: else
        fi;
        handling--;
        cursor++;
        event = 0
    }
}

proctype worker(byte me)
{
    byte cursor, end_found, event, gate, target, other;
    byte waits;
    bool to_wake, more;
    do
    :: atomic { /* rc_pool_take, under the mutex */
        FENCED;
        if
        :: queued -> queued = false
        :: !queued && stopping && outstanding == 0 -> alive--; break
        :: else ->
            idle++;
#ifndef NO_TICKET_UNDER_MUTEX /* rc_pool_take: rc_park_prepare comes before the mutex is unlocked */
            work_waiters++;
            ticket[me] = true;
#endif
            goto waiting
        fi };
        goto holding;
waiting:
#ifdef NO_TICKET_UNDER_MUTEX
        work_waiters++;
        ticket[me] = true;
#endif
        futex_wait();
        atomic { work_waiters--; ticket[me] = false }; /* rc_park_cancel */
        idle--; /* under the mutex, as what follows */
        goto next_task;
holding: /* run_topic: the worker holds the task */
        atomic { cursor = mem[CURSOR]; end_found = mem[END] };
        do
        :: /* find */
#ifndef NO_AWAIT_EVENT /* rc_ring_await_event and rc_ring_published: what is claimed and not yet published is no event */
            if
            :: tail != end_found -> mem[SLOT(end_found)] != 0
            :: tail == end_found
            fi;
            do
            :: end_found < tail && mem[SLOT(end_found)] != 0 -> end_found++
            :: end_found == tail || mem[SLOT(end_found)] == 0 -> break
            od;
#else
            end_found = tail;
#endif
            STORE(END, end_found);
            FENCED;
            do /* rc_turn */
            :: cursor < end_found -> handle(); STORE(CURSOR, cursor)
            :: cursor == end_found -> break
            od;
            advance();
            has_work(end_found);
            if
            :: more
            :: !more ->
                STORE(STATE, IDLE); /* rc_task_release */
#ifndef NO_IDLE_FENCE /* rc_task_release: memory_order_seq_cst */
                FENCED;
#endif
#ifdef NO_SECOND_LOOK /* run_topic: looks for work once more after it has made the task idle */
                more = false;
#else
                end_found = mem[END];
                has_work(end_found);
#endif
#ifdef NO_TASK_FIRST /* run_topic: acquires the task and then waits for the slot, which another worker may have emptied */
                if
                :: more -> mem[SLOT(end_found)] != 0
                :: else
                fi;
#endif
                if
                :: more ->
                    atomic { /* rc_task_acquire */
                        FENCED;
                        if
                        :: mem[STATE] == IDLE -> mem[STATE] = SCHEDULED
                        :: else -> more = false
                        fi
                    }
                :: else
                fi;
                if
                :: more -> goto holding
                :: else -> break
                fi
            fi
        od;
        /* rc_pool_leave, done() */
#ifdef NO_DONE_FENCE /* done: outstanding is counted with seq_cst, before the look at who waits */
        waits = progress_waiters;
#endif
        atomic { FENCED; outstanding--; to_wake = (outstanding == 0 && stopping); cursor = 0; end_found = 0; more = false };
        if
        :: to_wake -> to_wake = false;
#ifndef NO_LAST_WAKE /* done: the last task that is done wakes the workers, so that they end */
            wake_all_workers()
#endif
        :: else
        fi;
#ifdef CLOSE
#ifndef NO_PROGRESS_WAKE /* done: rc_park_wake_all(&pool->progress) */
#ifndef NO_DONE_FENCE
        waits = progress_waiters;
#endif
        if
        :: waits != 0 -> raise_epoch(CLOSER, CLOSER); wake(CLOSER, CLOSER)
        :: waits == 0
        fi;
        waits = 0;
#endif
#endif
next_task:
        skip
    od
}

#ifdef CLOSE
/* begin_close */
proctype closer(byte me)
{
    byte other, position;
    bool to_wake;
    closed = true; /* rc_ring_close */
#ifndef NO_CLOSE_WAKE /* rc_ring_close: rc_park_wake_all */
    wake_all_producers();
#endif
#ifndef NO_SETTLE /* settle: what was claimed is waited for and scheduled, before the workers may end */
    atomic { !locked -> locked = true };
    position = mem[GATE];
    do
    :: position < tail -> mem[SLOT(position)] != 0; position++
    :: position == tail -> break
    od;
    locked = false;
    schedule();
#endif
    stopping = true; /* rc_pool_stop */
    wake_all_workers();
    do /* Pool.wait */
    :: progress_waiters++;
        ticket[me] = true;
        if
#ifndef NO_PROGRESS_LOOK /* wait: looks whether all is done once more before it waits */
        :: outstanding == 0 -> break
#endif
        :: else -> futex_wait()
        fi;
        atomic { progress_waiters--; ticket[me] = false }
    od
}
#endif

init {
    byte other;
    atomic {
        producing = PRODUCERS;
        alive = WORKERS;
        do
        :: other < PRODUCERS -> run producer(other); other++
        :: other >= PRODUCERS && other < PRODUCERS + WORKERS -> run worker(other); other++
        :: other == PRODUCERS + WORKERS -> break
        od;
#ifdef CLOSE
        run closer(CLOSER);
#endif
        other = 0
    };
    /* nobody can go on any more: all are done or asleep */
    timeout;
    atomic {
        HOLDS(no_sleeping_worker, tail == mem[CURSOR] || !asleep[PRODUCERS] || !asleep[PRODUCERS + WORKERS - 1]);
        HOLDS(no_sleeping_producer, !asleep[0] && !asleep[PRODUCERS - 1]);
        HOLDS(no_loss, delivered == accepted);
#ifdef CLOSE
        HOLDS(no_stuck_thread, producing == 0 && alive == 0 && !asleep[CLOSER])
#else
        HOLDS(no_loss, accepted == TOTAL);
        HOLDS(no_stuck_thread, producing == 0 && asleep[PRODUCERS] && asleep[PRODUCERS + WORKERS - 1])
#endif
    }
}
