/* Store, then look: of two threads that each change something and then look at what the other
 * changes, one must see the other. Both sides at the same moment, over and over: where a fence is
 * missing, a store buffer shows it here within a part of the time, if there are two processors that
 * have the time. (csrc/model/ shows it always.) */
#define _GNU_SOURCE
#include "../rc_pool.h"
#include "../rc_ring.h"
#include "check.h"

static const int64_t FOR = 400000000; /* nanoseconds for each test */

typedef struct duel {
    RC_ALIGNED meeting begin;
    RC_ALIGNED meeting end;
    RC_ALIGNED rc_u32 over;
    /* each side's own line */
    RC_ALIGNED uint64_t left_saw;
    RC_ALIGNED uint64_t right_saw;
    RC_ALIGNED rc_ring ring;
    rc_task task;
    RC_ALIGNED rc_u64 number;
    rc_slot *slot;
    uint32_t ticket;
    void (*left)(struct duel *), (*right)(struct duel *), (*settle)(struct duel *);
} duel;

static void wait_longer_each_time(uint64_t round)
{
    for (uint64_t spins = round % 8; spins > 0; spins--) rc_cpu_relax();
}

static void *left_side(void *argument)
{
    duel *at = argument;
    for (uint64_t round = 0;; round++) {
        meet(&at->begin);
        if (rc_u32_load(&at->over)) return NULL;
        wait_longer_each_time(round / 8);
        at->left(at);
        meet(&at->end);
    }
}

static void fight(void (*left)(duel *), void (*right)(duel *), void (*settle)(duel *))
{
    static duel at;
    int64_t until = nanoseconds_now() + FOR;
    pthread_t other;
    memset(&at, 0, sizeof at);
    at.begin.count = at.end.count = 2;
    at.left = left;
    at.right = right;
    CHECK(rc_ring_init(&at.ring, 4, 0, 0) == 0);
    rc_task_init(&at.task, RC_TOPIC, NULL);
    other = thread_start(left_side, &at);
    for (uint64_t round = 0; nanoseconds_now() < until; round++) {
        CHECK(rc_task_acquire(&at.task));
        meet(&at.begin);
        wait_longer_each_time(round);
        at.right(&at);
        meet(&at.end);
        CHECK(at.left_saw || at.right_saw);
        settle(&at);
        rc_task_release(&at.task, RC_IDLE);
    }
    rc_u32_store(&at.over, 1);
    meet(&at.begin);
    thread_join(other);
    rc_ring_destroy(&at.ring);
}

static void claim_and_look_at_the_task(duel *at)
{
    CHECK_EQUAL(rc_ring_claim(&at->ring, 4, &at->slot), RC_CLAIMED);
    rc_ring_publish(at->slot, at);
    at->left_saw = rc_task_now(&at->task) == RC_IDLE;
}

static void make_idle_and_look_at_the_tail(duel *at)
{
    uint64_t end = rc_ring_gate(&at->ring);
    rc_task_release(&at->task, RC_IDLE);
    at->right_saw = rc_ring_tail(&at->ring) != end;
}

static void take_the_event(duel *at)
{
    uint64_t position = rc_ring_gate(&at->ring);
    CHECK(rc_ring_take(&at->ring, position) == at);
    rc_ring_move_gate(&at->ring, position + 1);
}

/* A publisher that claims and a worker that makes the topic idle: one of them sees to the event. */
static void claim_or_idle_is_seen(void)
{
    fight(claim_and_look_at_the_task, make_idle_and_look_at_the_tail, take_the_event);
}

static void prepare_and_look_at_the_gate(duel *at)
{
    uint64_t gate = at->ring.max_queue - 4 + rc_u64_load(&at->number); /* what it was */
    at->ticket = rc_park_prepare(&at->ring.room);
    /* as rc_ring_await_gate */
    at->left_saw = atomic_load_explicit(&at->ring.gate, memory_order_seq_cst) != gate;
}

static void move_the_gate(duel *at)
{
    rc_slot *slot;
    uint64_t gate = rc_ring_gate(&at->ring);
    uint32_t epoch = rc_u32_load(&at->ring.room.epoch);
    CHECK_EQUAL(rc_ring_claim(&at->ring, 4, &slot), RC_CLAIMED);
    rc_ring_publish(slot, at);
    CHECK(rc_ring_take(&at->ring, gate) == at);
    rc_ring_move_gate(&at->ring, gate + 1);
    /* it has seen a waiter, and woken it */
    at->right_saw = rc_u32_load(&at->ring.room.epoch) != epoch;
}

static void stop_waiting(duel *at)
{
    rc_park_cancel(&at->ring.room);
    rc_u64_store(&at->number, rc_ring_gate(&at->ring));
}

/* A producer that is about to wait for room and a releaser that makes some: the one sees the gate,
 * or the other the waiter. */
static void gate_or_waiter_is_seen(void)
{
    fight(prepare_and_look_at_the_gate, move_the_gate, stop_waiting);
}

static void store_the_end_and_look_at_the_lane(duel *at)
{
    /* to have it in the cache: the look that follows comes early then, if it can */
    (void)rc_task_now(&at->task);
    rc_u64_store_seq(&at->number, rc_u64_load(&at->number) + 1);
    at->left_saw = rc_task_now(&at->task) == RC_IDLE;
}

static void make_idle_and_look_at_the_end(duel *at)
{
    uint64_t before = at->ticket;
    rc_task_release(&at->task, RC_IDLE);
    at->right_saw = rc_u64_load_seq(&at->number) != before;
}

static void note_the_end(duel *at) { at->ticket = (uint32_t)rc_u64_load(&at->number); }

/* A topic that finds events and a lane that falls idle: one of them sees to the events. */
static void end_or_idle_lane_is_seen(void)
{
    fight(store_the_end_and_look_at_the_lane, make_idle_and_look_at_the_end, note_the_end);
}

int main(void)
{
    RUN(claim_or_idle_is_seen);
    RUN(gate_or_waiter_is_seen);
    RUN(end_or_idle_lane_is_seen);
    return 0;
}
