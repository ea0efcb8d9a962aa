/* rc_pool: who runs what, when a turn is split, who may wait; and the whole of a dispatcher,
 * composed as src/ringcast/_core.pyx composes it, in which no event may stay behind. */
#define _GNU_SOURCE
#include "../rc_pool.h"
#include "check.h"
#include "host.h"

#include <sys/wait.h>

static const int64_t MILLISECOND = 1000000;

/* A worker's thread, started and joined. */
static rc_worker *hire(rc_pool *pool)
{
    rc_pool_hire(pool, NULL);
    return rc_pool_join(pool, NULL);
}

/* --- one thread: the pool as a table of who holds what ---------------------------------------- */

/* One thread plays all workers here: nothing blocks, so every step is decided. */
enum { WORKERS = 4, TASKS = 6 };

typedef struct stage {
    rc_pool pool;
    rc_worker *worker[WORKERS];
    rc_task topic[TASKS], lane[TASKS];
    rc_ring ring[TASKS];
    rc_u64 cursor[TASKS];
} stage;

static void stage_open(stage *at, uint32_t max_workers, uint32_t parallel)
{
    memset(at, 0, sizeof *at);
    CHECK(
        rc_pool_init(
            &at->pool, &no_host, NULL, max_workers, 0, parallel, MILLISECOND, MILLISECOND
        ) == 0
    );
    for (uint32_t number = 0; number < max_workers && number < WORKERS; number++)
        CHECK((at->worker[number] = hire(&at->pool)) != NULL);
    for (int number = 0; number < TASKS; number++) {
        rc_task_init(&at->topic[number], RC_TOPIC, &at->ring[number]);
        rc_task_init(&at->lane[number], RC_LANE, &at->cursor[number]);
        rc_u32_store(&at->topic[number].members, 2);
        CHECK(rc_ring_init(&at->ring[number], 4, 4, 0) == 0);
    }
}

static void stage_close(stage *at)
{
    for (int number = 0; number < TASKS; number++) {
        uint64_t position = rc_ring_gate(&at->ring[number]), tail = rc_ring_tail(&at->ring[number]);
        while (position < tail) rc_ring_take(&at->ring[number], position++);
        rc_ring_move_gate(&at->ring[number], tail);
        rc_ring_destroy(&at->ring[number]);
    }
    rc_pool_destroy(&at->pool);
}

static void push(stage *at, rc_task *task)
{
    if (task->kind == RC_LANE) rc_task_release(task, RC_IDLE);
    CHECK(rc_pool_schedule(&at->pool, task));
}

static rc_task *take(stage *at, int worker)
{
    return rc_pool_take_now(&at->pool, at->worker[worker]);
}

static void leave(stage *at, int worker)
{
    rc_task_release(
        at->worker[worker]->task, at->worker[worker]->task->kind == RC_LANE ? RC_SHARED : RC_IDLE
    );
    rc_pool_leave(&at->pool, at->worker[worker]);
}

/* The worker begins a turn of the first subscription of the topic `number`. */
static void begin(stage *at, int worker, int number)
{
    rc_turn_begin(
        at->worker[worker], &at->lane[number], &at->ring[number], &at->cursor[number], UINT64_MAX
    );
}

/* The watch finds every turn that is running stuck. */
static void split_all(stage *at)
{
    call_as_the_watch_does(&at->pool);
    rc_pool_split_stuck(&at->pool);
}

static void fill(rc_ring *ring)
{
    static int event;
    rc_slot *slot;
    while (rc_ring_claim(ring, ring->max_queue, &slot) == RC_CLAIMED) rc_ring_publish(slot, &event);
}

/* A topic begins idle, and a lane shared: its subscription runs with the topic. */
static void tasks_begin_at_rest(void)
{
    rc_task topic, lane;
    rc_task_init(&topic, RC_TOPIC, NULL);
    rc_task_init(&lane, RC_LANE, NULL);
    CHECK_EQUAL(rc_task_now(&topic), RC_IDLE);
    CHECK_EQUAL(rc_task_now(&lane), RC_SHARED);
}

/* A task that is idle is acquired once; released it can be acquired again. A shared lane cannot. */
static void token_is_given_once(void)
{
    rc_task task;
    rc_task_init(&task, RC_TOPIC, NULL);
    CHECK(rc_task_acquire(&task));
    CHECK(!rc_task_acquire(&task));
    CHECK_EQUAL(rc_task_now(&task), RC_SCHEDULED);
    rc_task_release(&task, RC_SHARED);
    CHECK(!rc_task_acquire(&task));
    rc_task_release(&task, RC_IDLE);
    CHECK(rc_task_acquire(&task));
}

/* There are max_workers workers at most, and a thread knows which it is, in this pool only. */
static void workers_are_limited(void)
{
    stage at;
    rc_pool other;
    stage_open(&at, 2, 1);
    CHECK(hire(&at.pool) == NULL);
    CHECK(rc_pool_current(&at.pool) == at.worker[1]);
    CHECK(rc_pool_init(&other, &no_host, NULL, 1, 0, 1, 1, 1) == 0);
    CHECK(rc_pool_current(&other) == NULL);
    rc_pool_destroy(&other);
    stage_close(&at);
}

/* Topics are taken in the order in which they were pushed; one that is put back goes behind the
 * others. */
static void topics_are_first_in_first_out(void)
{
    stage at;
    stage_open(&at, 1, 1);
    for (int number = 0; number < 3; number++) push(&at, &at.topic[number]);
    CHECK(take(&at, 0) == &at.topic[0]);
    CHECK(rc_pool_others(&at.pool));
    rc_pool_yield(&at.pool, at.worker[0]);
    for (int number = 1; number <= 3; number++) {
        CHECK(take(&at, 0) == &at.topic[number % 3]);
        leave(&at, 0);
    }
    CHECK(!rc_pool_others(&at.pool));
    CHECK(take(&at, 0) == NULL);
    stage_close(&at);
}

/* What is queued or held is outstanding, each task once, until its worker leaves it. */
static void outstanding_is_what_is_scheduled(void)
{
    stage at;
    stage_open(&at, 2, 2);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    push(&at, &at.topic[0]);
    push(&at, &at.topic[1]);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 2);
    take(&at, 0);
    rc_pool_yield(&at.pool, at.worker[0]);
    take(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 2);
    begin(&at, 0, 1);
    split_all(&at);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 3); /* the lane also */
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 2);
    while (take(&at, 0) != NULL) leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* `parallel` workers at most run topics. */
static void topics_run_in_parallel_up_to_a_limit(void)
{
    for (uint32_t parallel = 1; parallel <= 3; parallel++) {
        stage at;
        stage_open(&at, 4, parallel);
        for (int number = 0; number < 4; number++) push(&at, &at.topic[number]);
        for (uint32_t number = 0; number < parallel; number++)
            CHECK(take(&at, number) == &at.topic[number]);
        CHECK(take(&at, 3) == NULL);
        leave(&at, 0);
        CHECK(take(&at, 3) == &at.topic[parallel]);
        stage_close(&at);
    }
}

/* Lanes run beside the topics, but one worker stays for the topics. A single worker runs both. */
static void lanes_leave_one_worker_for_the_topics(void)
{
    stage at;
    stage_open(&at, 3, 1);
    for (int number = 0; number < 3; number++) push(&at, &at.lane[number]);
    CHECK(take(&at, 0) == &at.lane[0]);
    CHECK(take(&at, 1) == &at.lane[1]);
    CHECK(take(&at, 2) == NULL);
    push(&at, &at.topic[0]);
    CHECK(take(&at, 2) == &at.topic[0]);
    leave(&at, 0);
    CHECK(take(&at, 0) == &at.lane[2]);
    stage_close(&at);

    stage_open(&at, 1, 1);
    push(&at, &at.lane[0]);
    push(&at, &at.topic[0]);
    CHECK(take(&at, 0) == &at.topic[0]); /* topics first */
    leave(&at, 0);
    CHECK(take(&at, 0) == &at.lane[0]);
    stage_close(&at);
}

/* A worker that is stuck does not count for max_workers: another may take its place, up to `spare`.
 */
static void stuck_workers_are_replaced_by_spare_ones(void)
{
    rc_pool pool;
    rc_task topic, lane[3];
    rc_ring ring;
    rc_u64 cursor;
    rc_worker *worker[3];
    rc_u64_store(&cursor, 0);
    CHECK(rc_pool_init(&pool, &no_host, NULL, 2, 1, 1, MILLISECOND, MILLISECOND) == 0);
    CHECK(rc_ring_init(&ring, 4, 4, 0) == 0);
    rc_task_init(&topic, RC_TOPIC, NULL);
    rc_u32_store(&topic.members, 3);
    CHECK(rc_pool_schedule(&pool, &topic));
    for (int number = 0; number < 3; number++) {
        CHECK(rc_pool_wants_worker(&pool));
        CHECK((worker[number] = hire(&pool)) != NULL);
        CHECK(rc_pool_take_now(&pool, worker[number]) == &topic);
        rc_task_init(&lane[number], RC_LANE, NULL);
        rc_turn_begin(worker[number], &lane[number], &ring, &cursor, UINT64_MAX);
        CHECK_EQUAL(rc_pool_watch(&pool), RC_WATCH_STUCK);
        rc_pool_split_stuck(&pool); /* the topic is back in the queue */
    }
    CHECK(!rc_pool_wants_worker(&pool)); /* 2 and 1 to spare are stuck */
    CHECK(hire(&pool) == NULL);
    for (int number = 0; number < 3; number++) {
        CHECK(rc_turn_end(&pool, worker[number]));
        rc_task_release(&lane[number], RC_SHARED);
        rc_pool_leave(&pool, worker[number]);
    }
    CHECK(rc_pool_take_now(&pool, worker[0]) == &topic);
    rc_task_release(&topic, RC_IDLE);
    rc_pool_leave(&pool, worker[0]);
    CHECK_EQUAL(rc_pool_outstanding(&pool), 0);
    rc_ring_destroy(&ring);
    rc_pool_destroy(&pool);
}

/* The lane of a stuck worker leaves room for another lane, where there are workers to spare. */
static void lanes_that_are_stuck_make_room_for_lanes(void)
{
    for (uint32_t spare = 0; spare < 2; spare++) {
        stage at;
        stage_open(&at, 2, 1);
        at.pool.spare = spare; /* there are places for more workers than 2, but none joins */
        push(&at, &at.lane[0]);
        push(&at, &at.lane[1]);
        CHECK(take(&at, 0) == &at.lane[0]);
        begin(&at, 0, 0);
        CHECK(take(&at, 1) == NULL); /* is kept for topics */
        CHECK(rc_pool_schedule(&at.pool, &at.topic[0]));
        CHECK(take(&at, 1) == &at.topic[0]);
        begin(&at, 1, 1);
        CHECK_EQUAL(rc_pool_watch(&at.pool), RC_WATCH_STUCK); /* both are */
        CHECK(!rc_turn_end(&at.pool, at.worker[1]));
        leave(&at, 1);
        CHECK(take(&at, 1) == (spare ? &at.lane[1] : NULL));
        CHECK(!rc_turn_end(&at.pool, at.worker[0]));
        leave(&at, 0);
        if (!spare) CHECK(take(&at, 1) == &at.lane[1]);
        leave(&at, 1);
        CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
        stage_close(&at);
    }
}

/* Topics that wait behind a stuck worker are run at once, as many as there are; then the limit is
 * there again. */
static void topics_behind_a_stuck_worker_run_at_once(void)
{
    stage at;
    stage_open(&at, 4, 1);
    for (int number = 0; number < 4; number++) push(&at, &at.topic[number]);
    CHECK(take(&at, 0) == &at.topic[0]);
    begin(&at, 0, 0);
    CHECK(take(&at, 1) == NULL);
    split_all(&at);
    for (int number = 1; number < 4; number++) CHECK(take(&at, number) == &at.topic[number]);
    for (int number = 1; number < 4; number++) leave(&at, number);
    /* what was split has gone to the end of the queue, which is empty now */
    CHECK(take(&at, 1) == &at.topic[0]);
    push(&at, &at.topic[1]);
    CHECK(take(&at, 2) == NULL);
    leave(&at, 1);
    CHECK(take(&at, 2) == &at.topic[1]);
    leave(&at, 2);
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* One slow turn is no evidence, two with few quick ones between are, and so is one of several slow
 * calls. Then as many quick turns cool it down. */
static void heat_is_raised_by_slow_turns_and_cools_down(void)
{
    uint32_t heat = rc_heat_after(0, RC_SLOW_CALL, 1, 0);
    CHECK(heat != 0 && !rc_heat_is_slow(heat));
    CHECK(rc_heat_is_slow(rc_heat_after(heat, RC_SLOW_CALL, 1, 0)));
    for (int turn = 0; turn < RC_HOT - 1; turn++)
        heat = rc_heat_after(heat, RC_SLOW_CALL - 1, 1, 0);
    CHECK(rc_heat_is_slow(rc_heat_after(heat, RC_SLOW_CALL, 1, 0)));
    CHECK_EQUAL(rc_heat_after(heat, 0, 1, 0), 0);
    CHECK_EQUAL(rc_heat_after(0, (int64_t)RC_SURE * RC_SLOW_CALL, RC_SURE, 0), RC_HOTTEST);
    CHECK_EQUAL(rc_heat_after(RC_HOTTEST, RC_SLOW_CALL, 1, 0), RC_HOTTEST);
    CHECK_EQUAL(rc_heat_after(0, (int64_t)RC_SLOW_CALL * 255, 256, 0), 0); /* quick calls */
    /* quick calls, but a turn too long */
    CHECK_EQUAL(rc_heat_after(0, (int64_t)RC_SLOW_CALL * 12, 256, 1), RC_HOT);
    /* no call: cancelled just then */
    CHECK_EQUAL(rc_heat_after(0, (int64_t)RC_SLOW_CALL * 9, 0, 0), 0);
    heat = RC_HOTTEST;
    for (int turn = 0; turn < RC_HOTTEST; turn++) {
        CHECK(heat != 0);
        heat = rc_heat_after(heat, 0, 1, 0);
    }
    CHECK_EQUAL(heat, 0);
}

/* A turn that is split leaves its worker with the lane, and the topic to another worker, at once.
 */
static void split_hands_the_topic_on(void)
{
    stage at;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    CHECK(take(&at, 0) == &at.topic[0]);
    begin(&at, 0, 0);
    CHECK(take(&at, 1) == NULL);
    split_all(&at);
    CHECK(at.worker[0]->task == &at.lane[0]);
    CHECK_EQUAL(rc_task_now(&at.lane[0]), RC_SCHEDULED);
    CHECK_EQUAL(rc_task_now(&at.topic[0]), RC_SCHEDULED);
    CHECK(take(&at, 1) == &at.topic[0]);
    split_all(&at); /* once only */
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    CHECK_EQUAL(rc_task_now(&at.lane[0]), RC_SHARED);
    leave(&at, 1);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* A turn that holds up nothing but the release of what its subscription has already seen is split.
 */
static void split_for_the_release_of_events(void)
{
    stage at;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    rc_u32_store(&at.topic[0].members, 1);
    begin(&at, 0, 0);
    rc_u64_store(&at.cursor[0], 1); /* the gate is still at 0 */
    split_all(&at);
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    CHECK(take(&at, 1) == &at.topic[0]);
    leave(&at, 1);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* A turn is not split where it holds nobody up, has given its attention, has ended, or is a lane's.
 */
static void split_spares_who_is_not_in_the_way(void)
{
    stage at;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);

    rc_u32_store(&at.topic[0].members, 1); /* alone in its topic, and no other topic waits */
    begin(&at, 0, 0);
    split_all(&at);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));
    CHECK(at.worker[0]->task == &at.topic[0]);

    push(&at, &at.topic[1]); /* another topic waits, but the worker has given its attention */
    begin(&at, 0, 0);
    call_as_the_watch_does(&at.pool);
    CHECK(rc_turn_attention(at.worker[0]));
    CHECK_EQUAL(rc_turn_attended(at.worker[0]), RC_TICK);
    rc_pool_split_stuck(&at.pool);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));

    begin(&at, 0, 0);
    rc_pool_call_attention(&at.pool); /* a cancel's call says nothing of how long its own lasts */
    rc_pool_split_stuck(&at.pool);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));

    split_all(&at); /* no turn */
    CHECK(at.worker[0]->task == &at.topic[0]);

    begin(&at, 0, 0);
    /* the call that came before is answered by the beginning */
    CHECK(!rc_turn_attention(at.worker[0]));
    split_all(&at); /* now it is in the way */
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    CHECK(at.worker[0]->task == &at.lane[0]);

    begin(&at, 0, 0); /* in its lane it is in nobody's way */
    split_all(&at);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    stage_close(&at);
}

/* The watch asks for a worker where there is a task and none to run it, and stops with the pool. */
static void watch_asks_for_workers_and_stops(void)
{
    rc_pool pool;
    rc_task task;
    rc_worker *worker;
    CHECK(rc_pool_init(&pool, &no_host, NULL, 2, 0, 1, MILLISECOND, MILLISECOND) == 0);
    rc_task_init(&task, RC_TOPIC, NULL);
    CHECK(!rc_pool_wants_worker(&pool));
    CHECK(rc_pool_schedule(&pool, &task));
    CHECK(rc_pool_wants_worker(&pool));
    CHECK_EQUAL(rc_pool_watch(&pool), RC_WATCH_SPAWN);
    rc_pool_hire(&pool, NULL);
    CHECK(!rc_pool_wants_worker(&pool)); /* one is coming */
    rc_pool_dismiss(&pool, NULL);
    CHECK(rc_pool_wants_worker(&pool)); /* its thread could not be started */
    worker = hire(&pool);
    CHECK(rc_pool_take(&pool, worker) == &task);
    CHECK(!rc_pool_wants_worker(&pool));
    rc_pool_stop(&pool);
    rc_task_release(&task, RC_IDLE);
    rc_pool_leave(&pool, worker);
    CHECK_EQUAL(rc_pool_watch(&pool), RC_WATCH_STOP);
    CHECK(rc_pool_take(&pool, worker) == NULL);
    rc_pool_destroy(&pool);
}

/* An interrupt comes in while a thread is started: whoever starts it cannot tell whether it runs,
 * and takes the hire back. */
static void a_hire_is_taken_back_before_or_after_its_thread_joins(void)
{
    rc_pool pool;
    CHECK(rc_pool_init(&pool, &no_host, NULL, 3, 0, 1, MILLISECOND, MILLISECOND) == 0);
    CHECK(!rc_pool_is_staffed(&pool));
    rc_pool_hire(&pool, NULL);
    CHECK(rc_pool_is_staffed(&pool));
    rc_pool_dismiss(&pool, NULL);
    CHECK(!rc_pool_is_staffed(&pool));
    CHECK(
        rc_pool_join(&pool, NULL) == NULL
    ); /* its thread comes all the same, and finds no place */
    CHECK_EQUAL(rc_pool_workers(&pool), 0);
    CHECK(hire(&pool) != NULL);
    rc_pool_dismiss(&pool, NULL); /* after the thread has joined: nothing is taken back */
    CHECK_EQUAL(rc_pool_workers(&pool), 1);
    CHECK(hire(&pool) != NULL);
    CHECK_EQUAL(rc_pool_workers(&pool), 2);
    rc_pool_destroy(&pool);
}

/* A host that counts how often its bus is pinned. */
static int pins;

static void pin_counted(rc_pool *pool)
{
    (void)pool;
    pins++;
}

static void unpin_counted(rc_pool *pool)
{
    CHECK_EQUAL(rc_pool_outstanding(pool), 0); /* the last act */
    pins--;
}

static const rc_host counting_host = {.pin = pin_counted, .unpin = unpin_counted};

/* The bus is pinned once while anything is outstanding, whoever has begun with it. */
static void the_bus_is_pinned_while_something_is_outstanding(void)
{
    rc_pool pool;
    rc_task first, second;
    rc_worker *worker;
    CHECK(rc_pool_init(&pool, &counting_host, NULL, 1, 0, 1, MILLISECOND, MILLISECOND) == 0);
    rc_task_init(&first, RC_TOPIC, NULL);
    rc_task_init(&second, RC_TOPIC, NULL);
    worker = hire(&pool);
    rc_pool_hold(&pool);
    CHECK_EQUAL(pins, 1);
    CHECK(rc_pool_schedule(&pool, &first));
    CHECK_EQUAL(pins, 1);
    rc_pool_unhold(&pool);
    CHECK_EQUAL(pins, 1); /* the task is there still */
    CHECK(rc_pool_take(&pool, worker) == &first);
    rc_task_release(&first, RC_IDLE);
    rc_pool_leave(&pool, worker);
    CHECK_EQUAL(pins, 0);
    /* by a thread that is not attached: the worker pins it, or the end of the lease; and whoever
     * comes later does not */
    CHECK(rc_pool_schedule_detached(&pool, &second));
    CHECK_EQUAL(pins, 0);
    rc_pool_pin(&pool);
    rc_pool_pin(&pool);
    CHECK_EQUAL(pins, 1);
    CHECK(rc_pool_take(&pool, worker) == &second);
    rc_task_release(&second, RC_IDLE);
    rc_pool_leave(&pool, worker);
    CHECK_EQUAL(pins, 0);
    rc_pool_pin(&pool); /* nothing is outstanding: nobody would take the pin back */
    CHECK_EQUAL(pins, 0);
    rc_pool_destroy(&pool);
}

/* The watch finds a call that lasts for a tick, after it has called for attention a tick before. */
static void watch_finds_who_is_stuck(void)
{
    stage at;
    int64_t began;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    begin(&at, 0, 0);
    began = nanoseconds_now();
    CHECK_EQUAL(rc_pool_watch(&at.pool), RC_WATCH_STUCK);
    CHECK(nanoseconds_now() - began >= 2 * MILLISECOND);
    rc_pool_split_stuck(&at.pool);
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    stage_close(&at);
}

/* A worker that is one too many ends after lingering; the last one, and those that are needed,
 * stay. */
static void extra_workers_linger_and_end(void)
{
    stage at;
    int64_t began = nanoseconds_now();
    stage_open(&at, 3, 1);
    push(&at, &at.topic[0]);
    CHECK(take(&at, 0) == &at.topic[0]);
    CHECK(rc_pool_take(&at.pool, at.worker[1]) == NULL);
    CHECK(rc_pool_take(&at.pool, at.worker[2]) == NULL);
    CHECK(nanoseconds_now() - began >= 2 * MILLISECOND);
    CHECK_EQUAL(at.pool.alive, 1);
    leave(&at, 0);
    push(&at, &at.topic[0]);
    CHECK((at.worker[1] = hire(&at.pool)) != NULL); /* its place is free again */
    CHECK(rc_pool_take(&at.pool, at.worker[1]) == &at.topic[0]);
    leave(&at, 1);
    stage_close(&at);
}

/* A pool that stops still has everything run that is scheduled; then take returns NULL. */
static void stop_runs_what_is_scheduled(void)
{
    stage at;
    stage_open(&at, 1, 1);
    push(&at, &at.topic[0]);
    push(&at, &at.lane[1]);
    rc_pool_stop(&at.pool);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == &at.topic[0]);
    push(&at, &at.topic[2]); /* a handler that was running has published */
    leave(&at, 0);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == &at.topic[2]);
    leave(&at, 0);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == &at.lane[1]);
    leave(&at, 0);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == NULL);
    CHECK(rc_pool_current(&at.pool) == NULL);
    CHECK_EQUAL(rc_pool_watch(&at.pool), RC_WATCH_STOP);
    stage_close(&at);
}

/* A task that others than the workers run counts until it is given back; so does what is held. */
static void what_others_run_is_outstanding(void)
{
    stage at;
    stage_open(&at, 1, 1);
    CHECK(rc_pool_acquire(&at.pool, &at.topic[0]));
    CHECK(!rc_pool_acquire(&at.pool, &at.topic[0]));
    CHECK(!rc_pool_schedule(&at.pool, &at.topic[0]));
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 1);
    CHECK(take(&at, 0) == NULL); /* it is not the workers' */
    rc_pool_hold(&at.pool);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 2);
    CHECK(rc_task_give_back(&at.topic[0]));
    CHECK(!rc_task_give_back(&at.topic[0]));
    rc_pool_unhold(&at.pool);
    rc_pool_stop(&at.pool);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 1);
    rc_pool_unhold(&at.pool);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == NULL);
    CHECK_EQUAL(rc_pool_watch(&at.pool), RC_WATCH_STOP);
    stage_close(&at);
}

static void *take_one(void *argument)
{
    rc_pool *pool = argument;
    rc_worker *worker = hire(pool);
    return rc_pool_take(pool, worker);
}

/* A worker without a task stays as long as another has one, which may make more; it is woken for
 * that, and to end. */
static void stop_keeps_workers_until_the_last_task(void)
{
    for (int more = 0; more <= 1; more++) {
        stage at;
        pthread_t other;
        void *taken;
        stage_open(&at, 2, 2);
        at.pool.linger = RC_FOREVER;
        push(&at, &at.topic[0]);
        CHECK(take(&at, 0) == &at.topic[0]);
        rc_pool_stop(&at.pool);
        CHECK(at.worker[1]->alive);
        at.worker[1]->alive = 0; /* the other thread is this worker */
        at.pool.alive--;
        other = thread_start(take_one, &at.pool);
        while (rc_u32_load_seq(&at.pool.work.waiters) == 0) sched_yield();
        if (more) push(&at, &at.topic[1]);
        if (!more) leave(&at, 0);
        CHECK(pthread_join(other, &taken) == 0);
        CHECK(taken == (more ? &at.topic[1] : NULL));
        stage_close(&at);
    }
}

/* What is scheduled is outstanding from the same moment on; a second call, a shared lane or a
 * stopped pool schedule nothing. */
static void scheduling_counts_at_once(void)
{
    stage at;
    stage_open(&at, 1, 1);
    CHECK(rc_pool_schedule(&at.pool, &at.topic[0]));
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 1);
    CHECK(!rc_pool_schedule(&at.pool, &at.topic[0]));
    CHECK(!rc_pool_schedule(&at.pool, &at.lane[0]));
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 1);
    CHECK(take(&at, 0) == &at.topic[0]);
    CHECK(!rc_pool_schedule(&at.pool, &at.topic[0])); /* held */
    leave(&at, 0);
    rc_pool_stop(&at.pool);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == NULL);
    CHECK(!rc_pool_schedule(&at.pool, &at.topic[0]));
    CHECK_EQUAL(rc_task_now(&at.topic[0]), RC_IDLE);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* A lane is to be yielded where topics wait and every worker that there may be holds a lane. */
static void lanes_are_yielded_where_workers_are_short(void)
{
    stage at;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    /* both get stuck in subscriptions of the same topic */
    for (int worker = 0; worker < 2; worker++) {
        CHECK(take(&at, worker) == &at.topic[0]);
        CHECK(!rc_pool_short_of_workers(&at.pool));
        begin(&at, worker, worker);
        split_all(&at);
        CHECK(rc_turn_end(&at.pool, at.worker[worker]));
    }
    CHECK(rc_pool_short_of_workers(&at.pool));
    rc_pool_yield(&at.pool, at.worker[1]);
    CHECK(!rc_pool_short_of_workers(&at.pool));
    CHECK(take(&at, 1) == &at.topic[0]); /* topics first */
    leave(&at, 1);
    CHECK(take(&at, 1) == NULL); /* one worker stays for the topics */
    leave(&at, 0);
    CHECK(take(&at, 1) == &at.lane[1]);
    stage_close(&at);
}

/* A single worker's turn is not split: there is nobody to hand the topic to. */
static void single_worker_is_not_split(void)
{
    stage at;
    stage_open(&at, 1, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    begin(&at, 0, 0);
    split_all(&at);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    stage_close(&at);
}

/* --- who may wait for room inside a handler --------------------------------------------------- */

/* Not for room that its own subscription has to make. */
static void may_not_wait_for_itself(void)
{
    stage at;
    stage_open(&at, 3, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    begin(&at, 0, 0);
    fill(&at.ring[0]);
    CHECK(!rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[0]));
    CHECK(!rc_turn_end(&at.pool, at.worker[0])); /* and then nothing is handed on */
    CHECK_EQUAL(at.pool.waiting, 0);
    leave(&at, 0);
    stage_close(&at);
}

/* Nor where another member holds the gate back, which may have ended, or have more room: it is as
 * far behind as it may be. */
static void may_not_wait_for_itself_behind_the_gate(void)
{
    for (uint64_t most = 1; most < 4; most++) {
        stage at;
        stage_open(&at, 3, 1);
        push(&at, &at.topic[0]);
        take(&at, 0);
        rc_turn_begin(at.worker[0], &at.lane[0], &at.ring[0], &at.cursor[0], most);
        fill(&at.ring[0]);
        rc_u64_store(&at.cursor[0], rc_ring_tail(&at.ring[0]) - 2);
        CHECK_EQUAL(rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[0]), most > 2);
        if (most > 2) rc_pool_waited(&at.pool, at.worker[0]);
        (void)rc_turn_end(&at.pool, at.worker[0]);
        leave(&at, 0);
        stage_close(&at);
    }
}

/* But for room that others make, also in its own ring; what it holds is handed on. */
static void may_wait_for_others(void)
{
    stage at;
    stage_open(&at, 3, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    begin(&at, 0, 0);
    fill(&at.ring[0]);
    fill(&at.ring[1]);
    CHECK(rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[1]));
    CHECK(take(&at, 1) == &at.topic[0]);
    leave(&at, 1);
    rc_pool_waited(&at.pool, at.worker[0]);
    rc_u64_store(&at.cursor[0], 3); /* another subscription of its ring holds the gate back */
    CHECK(rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[0]));
    rc_pool_waited(&at.pool, at.worker[0]);
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* Not in a circle: each of `number` workers waits for room that the next has to make; the last is
 * refused. */
static void may_not_wait_in_a_circle(void)
{
    for (int number = 2; number < WORKERS; number++) {
        stage at;
        stage_open(&at, WORKERS, WORKERS);
        for (int each = 0; each < number; each++) {
            push(&at, &at.topic[each]);
            take(&at, each);
            begin(&at, each, each);
            fill(&at.ring[each]);
        }
        for (int each = 0; each < number - 1; each++)
            CHECK(rc_pool_may_wait(&at.pool, at.worker[each], &at.ring[each + 1]));
        CHECK(!rc_pool_may_wait(&at.pool, at.worker[number - 1], &at.ring[0]));
        rc_u64_store(&at.cursor[0], 1); /* the first is not what its ring's gate waits for */
        CHECK(rc_pool_may_wait(&at.pool, at.worker[number - 1], &at.ring[0]));
        rc_pool_waited(&at.pool, at.worker[number - 1]);
        rc_u64_store(&at.cursor[0], 0);
        /* or it does not wait any more: the circle is open */
        rc_pool_waited(&at.pool, at.worker[0]);
        CHECK(rc_pool_may_wait(&at.pool, at.worker[number - 1], &at.ring[0]));
        CHECK(!rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[1]));
        stage_close(&at);
    }
}

/* Not the last worker that could run anything, whatever it waits for: a single worker never waits.
 */
static void last_worker_may_not_wait(void)
{
    for (uint32_t workers = 1; workers <= 3; workers++) {
        stage at;
        stage_open(&at, workers, workers);
        fill(&at.ring[5]);
        for (uint32_t each = 0; each < workers; each++) {
            push(&at, &at.topic[each]);
            take(&at, each);
            begin(&at, each, each);
            CHECK_EQUAL(
                rc_pool_may_wait(&at.pool, at.worker[each], &at.ring[5]), each + 1 < workers
            );
        }
        stage_close(&at);
    }
}

/* Not outside a turn: what the worker holds could not be handed on. */
static void may_not_wait_outside_a_turn(void)
{
    stage at;
    stage_open(&at, 3, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    CHECK(!rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[1]));
    begin(&at, 0, 0);
    CHECK(!rc_turn_end(&at.pool, at.worker[0]));
    CHECK(!rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[1]));
    leave(&at, 0);
    stage_close(&at);
}

/* Workers that wait do not keep the lanes from being run: the room that they wait for may have to
 * be made there. */
static void waiting_leaves_workers_to_the_lanes(void)
{
    stage at;
    stage_open(&at, 2, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    begin(&at, 0, 0);
    fill(&at.ring[1]);
    push(&at, &at.lane[1]); /* the slow subscription of that ring, queued */
    CHECK(rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[1]));
    CHECK(take(&at, 1) == &at.topic[0]);
    leave(&at, 1);
    CHECK(take(&at, 1) == &at.lane[1]);
    stage_close(&at);
}

/* Whoever is refused or not is decided quickly, also where many wait for many: layers of workers,
 * each of them serving one ring of its layer and waiting for that of the next. */
static void deciding_takes_no_time(void)
{
    enum { LAYERS = 16, WIDTH = 3, MANY = LAYERS * WIDTH + 2 };
    static rc_pool pool;
    static rc_task topics[MANY], lanes[MANY];
    static rc_ring rings[LAYERS + 1];
    static rc_u64 cursors[MANY];
    rc_worker *worker;
    int64_t began;
    CHECK(rc_pool_init(&pool, &no_host, NULL, MANY, 0, MANY, MILLISECOND, MILLISECOND) == 0);
    for (int layer = 0; layer <= LAYERS; layer++) CHECK(rc_ring_init(&rings[layer], 1, 0, 0) == 0);
    for (int number = 0; number < MANY - 1; number++) {
        int layer = number / WIDTH;
        rc_task_init(&topics[number], RC_TOPIC, NULL);
        rc_task_init(&lanes[number], RC_LANE, NULL);
        CHECK((worker = hire(&pool)) != NULL);
        CHECK(rc_pool_schedule(&pool, &topics[number]));
        CHECK(rc_pool_take_now(&pool, worker) != NULL);
        if (number == LAYERS * WIDTH) break;
        rc_turn_begin(worker, &lanes[number], &rings[layer], &cursors[number], UINT64_MAX);
        CHECK(rc_pool_may_wait(&pool, worker, &rings[layer + 1]));
    }
    /* the last one serves nobody's ring and waits for the first layer: it may, and has to look at
     * them all */
    rc_turn_begin(worker, &lanes[MANY - 2], &rings[LAYERS], &cursors[MANY - 2], UINT64_MAX);
    rc_u64_store(&cursors[MANY - 2], 1);
    began = nanoseconds_now();
    CHECK(rc_pool_may_wait(&pool, worker, &rings[0]));
    CHECK(nanoseconds_now() - began < 50 * MILLISECOND);
    for (int layer = 0; layer <= LAYERS; layer++) rc_ring_destroy(&rings[layer]);
    rc_pool_destroy(&pool);
}

/* --- own workers ------------------------------------------------------------------------------ */

/* An own worker, whose thread has joined. `lane`: the one that it is there for; NULL: to come. */
static rc_worker *hire_own(rc_pool *pool, rc_task *lane)
{
    rc_worker *own = rc_pool_own(pool);
    CHECK(own != NULL);
    CHECK(rc_pool_hire(pool, own));
    CHECK(rc_pool_join(pool, own) == own);
    if (lane != NULL) rc_pool_bind(pool, own, lane);
    return own;
}

static void leave_own(rc_pool *pool, rc_worker *own)
{
    rc_task_release(own->task, RC_IDLE);
    rc_pool_leave(pool, own);
}

static void begin_own(stage *at, rc_worker *own, int number)
{
    rc_turn_begin(own, &at->lane[number], &at->ring[number], &at->cursor[number], UINT64_MAX);
}

/* The own worker takes its lane and begins a turn there. */
static void begin_in_lane(stage *at, rc_worker *own, int number)
{
    push(at, &at->lane[number]);
    CHECK(rc_pool_take_now(&at->pool, own) == &at->lane[number]);
    begin_own(at, own, number);
}

/* Whatever else waits; and no other worker takes that lane. */
static void an_own_worker_takes_its_lane_and_nothing_else(void)
{
    stage at;
    rc_worker *own[2];
    stage_open(&at, 2, 2);
    own[0] = hire_own(&at.pool, NULL);
    CHECK(rc_pool_current(&at.pool) == own[0]);
    push(&at, &at.topic[0]);
    CHECK(rc_pool_take_now(&at.pool, own[0]) == NULL); /* it has no lane yet */
    rc_pool_bind(&at.pool, own[0], &at.lane[0]);
    CHECK_EQUAL(rc_task_now(&at.lane[0]), RC_IDLE); /* not shared */
    CHECK(at.lane[0].own == own[0]);
    own[1] = hire_own(&at.pool, &at.lane[1]);
    CHECK(own[0] != own[1]);
    push(&at, &at.topic[1]);
    push(&at, &at.lane[2]);
    for (int each = 0; each < 2; each++) CHECK(rc_pool_take_now(&at.pool, own[each]) == NULL);
    push(&at, &at.lane[0]);
    CHECK(!rc_pool_schedule(&at.pool, &at.lane[0])); /* once, as any */
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 4);
    CHECK(rc_pool_take_now(&at.pool, own[1]) == NULL);
    CHECK(take(&at, 0) == &at.topic[0]);
    CHECK(take(&at, 1) == &at.topic[1]);
    leave(&at, 0);
    CHECK(take(&at, 0) == &at.lane[2]);
    leave(&at, 0);
    CHECK(take(&at, 0) == NULL);
    CHECK(rc_pool_take(&at.pool, own[0]) == &at.lane[0]);
    CHECK(own[0]->task == &at.lane[0]);
    push(&at, &at.lane[1]);
    CHECK(rc_pool_take_now(&at.pool, own[1]) == &at.lane[1]);
    for (int each = 0; each < 2; each++) {
        leave_own(&at.pool, own[each]);
        CHECK(rc_pool_take_now(&at.pool, own[each]) == NULL);
    }
    leave(&at, 1);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* It counts with the workers that there are, and nowhere else. */
static void an_own_worker_is_in_no_limit(void)
{
    stage at;
    rc_worker *own;
    stage_open(&at, 2, 1);
    own = hire_own(&at.pool, &at.lane[0]);
    CHECK_EQUAL(rc_pool_workers(&at.pool), 3);
    CHECK_EQUAL(at.pool.alive, 2);
    begin_in_lane(&at, own, 0);
    CHECK_EQUAL(at.pool.on_own, 1);
    CHECK_EQUAL(at.pool.on_lanes + at.pool.on_topics, 0);
    /* lanes leave one worker to the topics, as many as there are without it */
    push(&at, &at.lane[1]);
    push(&at, &at.topic[0]);
    push(&at, &at.topic[1]);
    CHECK(take(&at, 0) == &at.topic[0]);
    CHECK(take(&at, 1) == &at.lane[1]);
    /* one waits, and one worker holds a lane that is not its own */
    CHECK(!rc_pool_short_of_workers(&at.pool));
    begin(&at, 0, 2);
    split_all(&at);
    CHECK(rc_pool_short_of_workers(&at.pool));
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    leave(&at, 0);
    leave(&at, 1);
    for (int left = 2; left > 0; left--) {
        CHECK(take(&at, 0) != NULL);
        CHECK(take(&at, 1) == NULL); /* in parallel with others: not */
        leave(&at, 0);
    }
    CHECK(!rc_turn_end(&at.pool, own));
    leave_own(&at.pool, own);
    CHECK_EQUAL(at.pool.on_own + at.pool.on_lanes + at.pool.on_topics, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

/* Nobody is wanted for its lane, and it does for nobody who is wanted for others. */
static void an_own_worker_stands_in_no_others_place(void)
{
    rc_pool pool;
    rc_task lane, topic;
    rc_worker *own;
    CHECK(rc_pool_init(&pool, &no_host, NULL, 1, 0, 1, MILLISECOND, MILLISECOND) == 0);
    rc_task_init(&lane, RC_LANE, NULL);
    rc_task_init(&topic, RC_TOPIC, NULL);
    own = rc_pool_own(&pool);
    CHECK(rc_pool_hire(&pool, own));
    CHECK(!rc_pool_is_staffed(&pool)); /* nor while its thread is on its way */
    CHECK(rc_pool_schedule(&pool, &topic));
    CHECK(rc_pool_wants_worker(&pool));
    CHECK(rc_pool_join(&pool, NULL) == NULL);
    CHECK(rc_pool_join(&pool, own) == own);
    CHECK(rc_pool_wants_worker(&pool));
    CHECK(!rc_pool_is_staffed(&pool));
    CHECK_EQUAL(rc_pool_watch(&pool), RC_WATCH_SPAWN);
    CHECK(hire(&pool) != NULL);
    CHECK(hire(&pool) == NULL); /* max_workers are there */
    CHECK(!rc_pool_wants_worker(&pool));
    CHECK(rc_pool_take_now(&pool, &pool.workers[0]) == &topic);
    rc_pool_bind(&pool, own, &lane);
    CHECK(rc_pool_schedule(&pool, &lane));
    CHECK(!rc_pool_wants_worker(&pool));
    CHECK(!rc_pool_others(&pool)); /* no topic waits */
    CHECK(rc_pool_take_now(&pool, own) == &lane);
    leave_own(&pool, own);
    rc_task_release(&topic, RC_IDLE);
    rc_pool_leave(&pool, &pool.workers[0]);
    CHECK_EQUAL(rc_pool_outstanding(&pool), 0);
    rc_pool_destroy(&pool);
}

/* What is scheduled for it pins the bus, as what is for any. */
static void the_bus_is_pinned_for_own_workers(void)
{
    rc_pool pool;
    rc_task lane;
    rc_worker *own;
    CHECK(rc_pool_init(&pool, &counting_host, NULL, 1, 0, 1, MILLISECOND, MILLISECOND) == 0);
    rc_task_init(&lane, RC_LANE, NULL);
    own = hire_own(&pool, &lane);
    CHECK_EQUAL(pins, 0);
    for (int detached = 0; detached < 2; detached++) {
        CHECK(detached ? rc_pool_schedule_detached(&pool, &lane) : rc_pool_schedule(&pool, &lane));
        CHECK_EQUAL(pins, !detached);
        CHECK(rc_pool_take(&pool, own) == &lane);
        rc_pool_pin(&pool);
        CHECK_EQUAL(pins, 1);
        leave_own(&pool, own);
        CHECK_EQUAL(pins, 0);
    }
    rc_pool_destroy(&pool);
}

/* The watch calls for its attention as for any, but never finds it stuck, nor splits its turn. */
static void an_own_worker_is_never_stuck(void)
{
    stage at;
    rc_worker *own;
    stage_open(&at, 2, 1);
    own = hire_own(&at.pool, &at.lane[0]);
    begin_in_lane(&at, own, 0);
    push(&at, &at.topic[1]);
    CHECK(take(&at, 0) == &at.topic[1]);
    begin(&at, 0, 1);
    CHECK_EQUAL(rc_pool_watch(&at.pool), RC_WATCH_STUCK); /* the other one */
    CHECK_EQUAL(at.pool.stuck, 1);
    CHECK(!own->stuck);
    CHECK(rc_turn_attention(own));
    rc_pool_split_stuck(&at.pool);
    CHECK(rc_turn_end(&at.pool, at.worker[0]));
    CHECK_EQUAL(at.pool.on_lanes, 1);
    CHECK(own->task == &at.lane[0]);
    CHECK_EQUAL(rc_turn_attended(own), RC_TICK);
    CHECK(!rc_turn_end(&at.pool, own));
    leave_own(&at.pool, own);
    leave(&at, 0);
    CHECK(take(&at, 0) == &at.topic[1]);
    leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);
}

static void *watch_once(void *argument)
{
    CHECK_EQUAL(rc_pool_watch(argument), RC_WATCH_STOP);
    return NULL;
}

/* Also where it is the only one at work: a watch that sleeps is woken for that. */
static void the_watch_ticks_for_an_own_worker(void)
{
    stage at;
    rc_worker *own;
    pthread_t watching;
    stage_open(&at, 1, 1);
    own = hire_own(&at.pool, &at.lane[0]);
    watching = thread_start(watch_once, &at.pool);
    for (int spins = 0; rc_u32_load_seq(&at.pool.watch.waiters) == 0; spins++) wait_a_little(spins);
    begin_in_lane(&at, own, 0);
    for (int spins = 0; !rc_turn_attention(own); spins++) wait_a_little(spins);
    CHECK_EQUAL(rc_turn_attended(own), RC_TICK);
    CHECK(!rc_turn_end(&at.pool, own));
    rc_pool_stop(&at.pool);
    leave_own(&at.pool, own);
    thread_join(watching);
    stage_close(&at);
}

/* --- own workers: waiting for room inside a handler ------------------------------------------- */

/* The others can run anything still: it waits also where there is one worker only, or where all
 * others but one wait. */
static void an_own_worker_waits_beside_a_single_worker(void)
{
    for (uint32_t workers = 1; workers <= 2; workers++) {
        stage at;
        rc_worker *own[2];
        stage_open(&at, workers, workers);
        fill(&at.ring[4]);
        for (int each = 0; each < 2; each++) {
            own[each] = hire_own(&at.pool, &at.lane[each]);
            CHECK(!rc_pool_may_wait(&at.pool, own[each], &at.ring[4])); /* outside a turn: no */
            begin_in_lane(&at, own[each], each);
            CHECK(rc_pool_waits_for(&at.pool, &at.lane[each]) == NULL);
            CHECK(rc_pool_may_wait(&at.pool, own[each], &at.ring[4]));
            CHECK(rc_pool_waits_for(&at.pool, &at.lane[each]) == &at.ring[4]);
            CHECK(own[each]->task == &at.lane[each]);
        }
        CHECK_EQUAL(at.pool.waiting, 0);
        /* and so the others may, as if these were not there */
        for (uint32_t each = 0; each < workers; each++) {
            push(&at, &at.topic[2 + each]);
            CHECK(take(&at, (int)each) != NULL); /* this one, or what the one before was at */
            begin(&at, (int)each, 2 + (int)each);
            CHECK_EQUAL(
                rc_pool_may_wait(&at.pool, at.worker[each], &at.ring[4]), each + 1 < workers
            );
        }
        CHECK_EQUAL(at.pool.waiting, workers - 1);
        for (int each = 0; each < 2; each++) {
            rc_pool_waited(&at.pool, own[each]);
            CHECK(rc_pool_waits_for(&at.pool, &at.lane[each]) == NULL);
            CHECK(!rc_turn_end(&at.pool, own[each]));
            leave_own(&at.pool, own[each]);
        }
        CHECK_EQUAL(at.pool.waiting, workers - 1);
        stage_close(&at);
    }
}

/* Not for room that its own subscription has to make, but in its own ring for what others do. */
static void an_own_worker_may_not_wait_for_itself(void)
{
    stage at;
    rc_worker *own;
    stage_open(&at, 3, 1);
    own = hire_own(&at.pool, &at.lane[0]);
    begin_in_lane(&at, own, 0);
    fill(&at.ring[0]);
    CHECK(!rc_pool_may_wait(&at.pool, own, &at.ring[0]));
    CHECK(rc_pool_waits_for(&at.pool, &at.lane[0]) == NULL);
    rc_u64_store(&at.cursor[0], 3);
    CHECK(rc_pool_may_wait(&at.pool, own, &at.ring[0]));
    rc_pool_waited(&at.pool, own);
    CHECK(!rc_turn_end(&at.pool, own));
    leave_own(&at.pool, own);
    stage_close(&at);
}

/* Each of `number` workers waits for room that the next has to make, and the last is refused.
 * `owns`: which of them are own ones. */
static void wait_in_a_circle(int number, int owns)
{
    stage at;
    rc_worker *who[WORKERS];
    int last = number - 1;
    stage_open(&at, WORKERS, WORKERS);
    for (int each = 0; each < number; each++) {
        fill(&at.ring[each]);
        if (owns >> each & 1) {
            who[each] = hire_own(&at.pool, &at.lane[each]);
            begin_in_lane(&at, who[each], each);
            continue;
        }
        who[each] = at.worker[each];
        push(&at, &at.topic[each]);
        CHECK(take(&at, each) == &at.topic[each]);
        begin(&at, each, each);
    }
    for (int each = 0; each < last; each++)
        CHECK(rc_pool_may_wait(&at.pool, who[each], &at.ring[each + 1]));
    CHECK(!rc_pool_may_wait(&at.pool, who[last], &at.ring[0]));
    rc_u64_store(&at.cursor[0], 1); /* the first is not what its ring's gate waits for */
    CHECK(rc_pool_may_wait(&at.pool, who[last], &at.ring[0]));
    rc_pool_waited(&at.pool, who[last]);
    rc_u64_store(&at.cursor[0], 0);
    rc_pool_waited(&at.pool, who[0]); /* or it does not wait any more: the circle is open */
    CHECK(rc_pool_may_wait(&at.pool, who[last], &at.ring[0]));
    CHECK(!rc_pool_may_wait(&at.pool, who[0], &at.ring[1]));
    stage_close(&at);
}

static void own_workers_may_not_wait_in_a_circle(void)
{
    for (int number = 2; number <= 3; number++)
        for (int owns = 1; owns < 1 << number; owns++) wait_in_a_circle(number, owns);
}

/* --- own workers: their threads --------------------------------------------------------------- */

/* A thread is started where one is needed, and finds its place if it is still to come. */
static void an_own_worker_is_hired_once(void)
{
    rc_pool pool;
    rc_task lane;
    rc_worker *own, *late, *gone;
    CHECK(rc_pool_init(&pool, &no_host, NULL, 1, 0, 1, MILLISECOND, MILLISECOND) == 0);
    rc_task_init(&lane, RC_LANE, NULL);
    own = rc_pool_own(&pool);
    CHECK(rc_pool_without_thread(&pool) == NULL); /* whoever has it is just starting one */
    CHECK(rc_pool_join(&pool, own) == NULL);      /* nobody is expected */
    CHECK(rc_pool_hire(&pool, own));
    CHECK(rc_pool_without_thread(&pool) == NULL);
    CHECK(!rc_pool_hire(&pool, own)); /* it is hired */
    rc_pool_dismiss(&pool, own);
    CHECK(rc_pool_hire(&pool, own)); /* its thread could not be started: another one */
    CHECK(rc_pool_join(&pool, own) == own);
    CHECK(!rc_pool_hire(&pool, own)); /* it has its thread */
    rc_pool_dismiss(&pool, own);      /* too late: nothing is taken back */
    CHECK(!rc_pool_hire(&pool, own));
    CHECK(rc_pool_join(&pool, own) == NULL); /* and it has one only */
    CHECK_EQUAL(rc_pool_workers(&pool), 1);
    rc_pool_bind(&pool, own, &lane);
    CHECK(!rc_pool_hire(&pool, own));

    late = rc_pool_own(&pool);
    CHECK(rc_pool_hire(&pool, late));
    rc_pool_dismiss(&pool, late);
    CHECK(rc_pool_join(&pool, late) == NULL); /* its thread comes all the same: no place */

    gone = rc_pool_own(&pool);
    CHECK(rc_pool_hire(&pool, gone));
    rc_pool_disown(&pool, gone);
    CHECK(rc_pool_join(&pool, gone) == NULL); /* it has no lane any more */
    CHECK(!rc_pool_hire(&pool, gone));
    CHECK_EQUAL(rc_pool_workers(&pool), 1);
    CHECK_EQUAL(pool.alive + pool.starting, 0); /* none of this was a place for others */
    rc_pool_destroy(&pool);
}

/* What was an own worker is one again for another lane, but not while a thread is there, or comes.
 */
static void an_own_worker_is_used_again(void)
{
    stage at;
    rc_worker *first, *second, *third;
    stage_open(&at, 3, 1);
    push(&at, &at.topic[0]);
    take(&at, 0);
    CHECK(rc_pool_take(&at.pool, at.worker[2]) == NULL); /* one too many; it is nobody's own */
    first = hire_own(&at.pool, &at.lane[0]);
    CHECK(first->is_own);
    second = rc_pool_own(&at.pool);
    CHECK(second != first);                 /* which has its lane */
    CHECK(rc_pool_own(&at.pool) != second); /* which has one to come */
    CHECK(rc_pool_hire(&at.pool, second));
    rc_pool_disown(&at.pool, first);
    rc_pool_disown(&at.pool, second);
    third = rc_pool_own(&at.pool);
    CHECK(third != first && third != second); /* a thread is there, and one is on its way */
    CHECK(rc_pool_join(&at.pool, second) == NULL);
    CHECK(rc_pool_own(&at.pool) == second);
    CHECK(rc_pool_take_now(&at.pool, first) == NULL);
    CHECK(rc_pool_own(&at.pool) != first); /* it has only found nothing */
    CHECK(rc_pool_take(&at.pool, first) == NULL);
    CHECK(rc_pool_current(&at.pool) == NULL);
    CHECK(hire_own(&at.pool, &at.lane[1]) == first);
    push(&at, &at.lane[1]);
    CHECK(rc_pool_take(&at.pool, first) == &at.lane[1]);
    leave_own(&at.pool, first);
    CHECK_EQUAL(rc_pool_workers(&at.pool), 3);
    leave(&at, 0);
    stage_close(&at);
}

typedef struct own_thread {
    rc_pool *pool;
    rc_worker *own;
    rc_u32 runs; /* how often its lane was run */
} own_thread;

static void *run_own(void *argument)
{
    own_thread *me = argument;
    CHECK(rc_pool_join(me->pool, me->own) == me->own);
    for (rc_task *task; (task = rc_pool_take(me->pool, me->own)) != NULL;) {
        CHECK(task == me->own->only);
        atomic_fetch_add(&me->runs, 1);
        leave_own(me->pool, me->own);
    }
    return NULL;
}

static pthread_t start_own(own_thread *me, rc_pool *pool, rc_task *lane)
{
    me->pool = pool;
    rc_u32_store(&me->runs, 0);
    me->own = rc_pool_own(pool);
    CHECK(rc_pool_hire(pool, me->own));
    if (lane != NULL) rc_pool_bind(pool, me->own, lane);
    return thread_start(run_own, me);
}

static void await_parked(const rc_worker *own)
{
    for (int spins = 0; rc_u32_load_seq(&own->waiting.waiters) == 0; spins++) wait_a_little(spins);
}

static void await_runs(own_thread *of, uint32_t runs)
{
    for (int spins = 0; atomic_load(&of->runs) != runs; spins++) wait_a_little(spins);
}

/* It is woken for its lane, and for no other; it is no idle worker that could come for others. */
static void an_own_worker_is_woken_for_its_lane(void)
{
    stage at;
    own_thread own[2];
    pthread_t threads[2];
    stage_open(&at, 1, 1);
    at.worker[0]->alive = 0; /* there is nobody for topics */
    at.pool.alive = 0;
    for (int each = 0; each < 2; each++) {
        threads[each] = start_own(&own[each], &at.pool, &at.lane[each]);
        await_parked(own[each].own);
    }
    rc_mutex_lock(&at.pool.mutex);
    CHECK_EQUAL(at.pool.idle, 0);
    rc_mutex_unlock(&at.pool.mutex);
    push(&at, &at.topic[0]);
    CHECK(rc_pool_wants_worker(&at.pool));
    CHECK((at.worker[0] = hire(&at.pool)) != NULL);
    CHECK(take(&at, 0) == &at.topic[0]);
    leave(&at, 0);
    for (uint32_t run = 1; run <= 20; run++) {
        await_parked(own[1].own);
        CHECK(rc_pool_schedule(&at.pool, &at.lane[1]));
        await_runs(&own[1], run);
        while (rc_task_now(&at.lane[1]) != RC_IDLE) sched_yield();
    }
    CHECK_EQUAL(atomic_load(&own[0].runs), 0);
    for (int each = 0; each < 2; each++) {
        rc_pool_disown(&at.pool, own[each].own);
        thread_join(threads[each]);
    }
    CHECK_EQUAL(rc_pool_workers(&at.pool), 1);
    stage_close(&at);
}

/* A worker that waits for work ends with its lane, or where none has come. */
static void an_own_worker_ends_with_its_lane(void)
{
    for (int bound = 0; bound < 2; bound++) {
        stage at;
        own_thread own;
        pthread_t thread;
        stage_open(&at, 1, 1);
        thread = start_own(&own, &at.pool, bound ? &at.lane[0] : NULL);
        await_parked(own.own);
        CHECK_EQUAL(rc_pool_workers(&at.pool), 2);
        rc_pool_disown(&at.pool, own.own);
        thread_join(thread);
        CHECK_EQUAL(rc_pool_workers(&at.pool), 1);
        CHECK_EQUAL(at.pool.alive, 1);
        stage_close(&at);
    }
}

/* --- own workers: the end and the fork -------------------------------------------------------- */

/* It ends when nothing is outstanding, and not before: what others are at may make work for it. */
static void stop_keeps_own_workers_until_the_last_task(void)
{
    for (int busy = 0; busy < 2; busy++) {
        stage at;
        own_thread own;
        pthread_t thread;
        stage_open(&at, 1, 1);
        thread = start_own(&own, &at.pool, &at.lane[0]);
        if (busy) push(&at, &at.topic[0]);
        if (busy) CHECK(take(&at, 0) == &at.topic[0]);
        await_parked(own.own);
        rc_pool_stop(&at.pool);
        if (busy) {
            for (uint32_t run = 1; run <= 10; run++) {
                await_parked(own.own);
                CHECK(rc_pool_schedule(&at.pool, &at.lane[0]));
                await_runs(&own, run);
                while (rc_task_now(&at.lane[0]) != RC_IDLE) sched_yield();
            }
            await_parked(own.own);
            leave(&at, 0);
        }
        thread_join(thread);
        CHECK(!rc_pool_schedule(&at.pool, &at.lane[0])); /* nobody is there for it */
        CHECK_EQUAL(rc_task_now(&at.lane[0]), RC_IDLE);
        CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
        CHECK_EQUAL(rc_pool_workers(&at.pool), 1);
        stage_close(&at);
    }
}

/* A stopped pool takes a task while the worker that is to run it is there, or comes; others make no
 * difference. */
static void after_the_end_nothing_is_scheduled_for_own_workers(void)
{
    stage at;
    rc_worker *own;
    stage_open(&at, 1, 1);
    own = rc_pool_own(&at.pool);
    rc_pool_bind(&at.pool, own, &at.lane[0]);
    CHECK(rc_pool_hire(&at.pool, own));
    rc_pool_stop(&at.pool);
    CHECK(rc_pool_schedule(&at.pool, &at.lane[0])); /* its thread is on its way */
    CHECK(rc_pool_join(&at.pool, own) == own);
    CHECK(rc_pool_take(&at.pool, own) == &at.lane[0]);
    leave_own(&at.pool, own);
    push(&at, &at.lane[0]); /* it is there */
    CHECK(rc_pool_take(&at.pool, own) == &at.lane[0]);
    leave_own(&at.pool, own);
    CHECK(rc_pool_take(&at.pool, own) == NULL);
    CHECK(!rc_pool_schedule(&at.pool, &at.lane[0])); /* the other worker is, but is not for it */
    CHECK_EQUAL(rc_task_now(&at.lane[0]), RC_IDLE);
    push(&at, &at.topic[0]);
    CHECK(take(&at, 0) == &at.topic[0]);
    leave(&at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 0);
    stage_close(&at);

    stage_open(&at, 1, 1);
    own = hire_own(&at.pool, &at.lane[0]);
    rc_pool_stop(&at.pool);
    CHECK(rc_pool_take(&at.pool, at.worker[0]) == NULL);
    CHECK(!rc_pool_schedule(&at.pool, &at.topic[0])); /* the own one is, but is not for it */
    push(&at, &at.lane[0]);
    CHECK(rc_pool_take(&at.pool, own) == &at.lane[0]);
    leave_own(&at.pool, own);
    stage_close(&at);
}

/* --- fork: what is left in the child ---------------------------------------------------------- */

/* Forks, as a handler does, and has the child check what it has of the pool. */
static void fork_and(void (*check)(stage *), stage *at)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(CHECK_SECONDS);
        rc_pool_after_fork(&at->pool);
        check(at);
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(status, 0);
}

static void it_starts_anew(stage *at)
{
    CHECK(rc_pool_current(&at->pool) == NULL);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
    CHECK(!rc_pool_is_staffed(&at->pool));
    CHECK(!rc_u32_load(&at->pool.started) && !rc_u32_load(&at->pool.pinned));
    CHECK(!rc_pool_others(&at->pool));
    CHECK_EQUAL(at->pool.on_topics + at->pool.on_lanes + at->pool.waiting + at->pool.stuck, 0);
    for (int number = 0; number < 3; number++) /* their places are free */
        CHECK((at->worker[number] = hire(&at->pool)) == &at->pool.workers[number]);
    CHECK(take(at, 0) == NULL);
    rc_task_release(&at->topic[0], RC_IDLE); /* as the host does */
    push(at, &at->topic[0]);
    CHECK(take(at, 0) == &at->topic[0]);
    begin(at, 0, 0);
    CHECK(!rc_turn_end(&at->pool, at->worker[0]));
    leave(at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
}

static void *fork_elsewhere(void *at)
{
    fork_and(it_starts_anew, at);
    return NULL;
}

/* Tasks and workers are the parent's, whatever these are at: inside turns, stuck, waiting; and a
 * thread that is not here any more may have had the mutex. */
static void a_child_begins_with_neither_tasks_nor_workers(void)
{
    static stage at; /* where the leak check of the child finds it */
    stage_open(&at, 3, 3);
    rc_u32_store(&at.pool.started, 1);
    for (int number = 0; number < 3; number++) {
        push(&at, &at.topic[number]);
        if (number == 2) break; /* this one is queued */
        take(&at, number);
        begin(&at, number, number);
    }
    fill(&at.ring[5]);
    CHECK(rc_pool_may_wait(&at.pool, at.worker[0], &at.ring[5]));
    split_all(&at);
    push(&at, &at.lane[4]);
    rc_pool_hire(&at.pool, NULL);
    rc_mutex_lock(&at.pool.mutex);
    thread_join(thread_start(fork_elsewhere, &at));
    rc_mutex_unlock(&at.pool.mutex);
    stage_close(&at);
}

static void it_has_its_topic(stage *at)
{
    rc_worker *me = at->worker[2];
    CHECK(rc_pool_current(&at->pool) == me);
    CHECK(me->task == &at->topic[2]);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 1);
    CHECK_EQUAL(rc_pool_workers(&at->pool), 1);
    CHECK_EQUAL(at->pool.on_topics, 1);
    CHECK_EQUAL(at->pool.on_lanes + at->pool.waiting + at->pool.stuck, 0);
    CHECK(rc_turn_attended(me) == RC_CANCEL); /* its events are the parent's */
    CHECK(!rc_turn_end(&at->pool, me));
    leave(at, 2);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
}

/* A worker whose handler forks goes on in the child, with the topic that it holds. */
static void a_worker_that_forks_keeps_its_topic(void)
{
    stage at;
    stage_open(&at, 3, 3);
    for (int number = 0; number < 3; number++) {
        push(&at, &at.topic[number]);
        take(&at, number);
        begin(&at, number, number);
    }
    fork_and(it_has_its_topic, &at);
    CHECK_EQUAL(rc_pool_outstanding(&at.pool), 3); /* nothing has changed here */
    stage_close(&at);
}

static void it_has_its_lane(stage *at)
{
    rc_worker *me = at->worker[2];
    CHECK(me->task == &at->lane[2]);
    CHECK_EQUAL(at->pool.on_lanes, 1);
    CHECK_EQUAL(at->pool.on_topics, 0);
    CHECK_EQUAL(at->pool.waiting, 1);
    rc_pool_waited(&at->pool, me);
    CHECK_EQUAL(at->pool.waiting, 0);
    CHECK(rc_turn_end(&at->pool, me)); /* it was split, before the fork */
    leave(at, 2);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
}

/* Also one that waits for room, and so holds a lane. */
static void a_worker_that_forks_keeps_its_lane(void)
{
    stage at;
    stage_open(&at, 3, 3);
    push(&at, &at.topic[2]);
    take(&at, 2);
    begin(&at, 2, 2);
    fill(&at.ring[1]);
    CHECK(rc_pool_may_wait(&at.pool, at.worker[2], &at.ring[1]));
    fork_and(it_has_its_lane, &at);
    stage_close(&at);
}

/* Of the parent: in a turn, waiting; scheduled; still to come; without a lane, and without one and
 * a thread to come. */
static rc_worker *owns[5];

static void its_own_workers_have_no_threads(stage *at)
{
    CHECK_EQUAL(rc_pool_workers(&at->pool), 0);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
    CHECK_EQUAL(at->pool.on_own + at->pool.on_lanes + at->pool.waiting, 0);
    CHECK(rc_pool_waits_for(&at->pool, &at->lane[0]) == NULL);
    for (int number = 0; number < 3; number++) {
        rc_worker *own = rc_pool_without_thread(&at->pool);
        CHECK(own == owns[number]);
        CHECK(own->task == NULL && !rc_turn_running(own) && own->waits_for == NULL);
        CHECK(rc_pool_hire(&at->pool, own));
    }
    CHECK(rc_pool_without_thread(&at->pool) == NULL);
    for (int number = 0; number < 3; number++) {
        CHECK(rc_pool_join(&at->pool, owns[number]) == owns[number]);
        rc_task_release(&at->lane[number], RC_IDLE); /* as the host does */
        push(at, &at->lane[number]);
        CHECK(rc_pool_take(&at->pool, owns[number]) == &at->lane[number]);
        begin_own(at, owns[number], number);
        CHECK(!rc_turn_end(&at->pool, owns[number]));
        leave_own(&at->pool, owns[number]);
    }
    /* those without a lane stay for whoever is to bind them: it may be the thread that has forked
     */
    CHECK(rc_pool_without_thread(&at->pool) == NULL);
    rc_pool_bind(&at->pool, owns[3], &at->lane[3]);
    CHECK(rc_pool_without_thread(&at->pool) == owns[3]);
    rc_pool_disown(&at->pool, owns[3]);
    CHECK(rc_pool_own(&at->pool) == owns[3]);
    CHECK((at->worker[0] = hire(&at->pool)) == &at->pool.workers[0]);
    push(at, &at->topic[0]);
    CHECK(take(at, 0) == &at->topic[0]);
    leave(at, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
    rc_pool_stop(&at->pool);
    for (int number = 0; number < 3; number++) CHECK(rc_pool_take(&at->pool, owns[number]) == NULL);
}

static void *fork_beside_own_workers(void *at)
{
    fork_and(its_own_workers_have_no_threads, at);
    return NULL;
}

/* Own workers are there in the child, each with its lane, and have no threads. */
static void a_child_has_own_workers_without_threads(void)
{
    static stage at; /* where the leak check of the child finds it */
    stage_open(&at, 3, 3);
    fill(&at.ring[5]);
    owns[0] = hire_own(&at.pool, &at.lane[0]);
    begin_in_lane(&at, owns[0], 0);
    CHECK(rc_pool_may_wait(&at.pool, owns[0], &at.ring[5]));
    owns[1] = hire_own(&at.pool, &at.lane[1]);
    push(&at, &at.lane[1]);
    owns[2] = rc_pool_own(&at.pool);
    rc_pool_bind(&at.pool, owns[2], &at.lane[2]);
    CHECK(rc_pool_hire(&at.pool, owns[2]));
    owns[3] = hire_own(&at.pool, NULL);
    owns[4] = rc_pool_own(&at.pool);
    CHECK(rc_pool_hire(&at.pool, owns[4]));
    rc_mutex_lock(&at.pool.mutex);
    thread_join(thread_start(fork_beside_own_workers, &at));
    rc_mutex_unlock(&at.pool.mutex);
    CHECK(rc_pool_without_thread(&at.pool) == NULL); /* nothing has changed here */
    stage_close(&at);
}

static void it_is_its_own_worker(stage *at)
{
    rc_worker *me = owns[0];
    int waits = me->waits_for != NULL;
    CHECK(rc_pool_current(&at->pool) == me);
    CHECK(me->is_own && me->only == &at->lane[0] && me->task == &at->lane[0]);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 1);
    CHECK_EQUAL(rc_pool_workers(&at->pool), 1);
    CHECK_EQUAL(at->pool.alive, 0);
    CHECK_EQUAL(at->pool.on_own, 1);
    CHECK_EQUAL(at->pool.on_topics + at->pool.on_lanes + at->pool.waiting, 0);
    CHECK(rc_pool_without_thread(&at->pool) == owns[1]); /* this one has its thread */
    CHECK(!rc_pool_hire(&at->pool, me));
    if (waits) rc_pool_waited(&at->pool, me);
    CHECK_EQUAL(at->pool.waiting, 0);
    CHECK(rc_turn_attended(me) == RC_CANCEL); /* its events are the parent's */
    CHECK(!rc_turn_end(&at->pool, me));
    leave_own(&at->pool, me);
    CHECK_EQUAL(at->pool.on_own, 0);
    CHECK_EQUAL(rc_pool_outstanding(&at->pool), 0);
    push(at, &at->lane[0]);
    CHECK(rc_pool_take(&at->pool, me) == &at->lane[0]);
    leave_own(&at->pool, me);
    rc_pool_disown(&at->pool, me);
    CHECK(rc_pool_take(&at->pool, me) == NULL);
    CHECK_EQUAL(rc_pool_workers(&at->pool), 0);
    CHECK(rc_pool_own(&at->pool) == me);
}

/* An own worker whose handler forks goes on in the child with its lane; also one that waits. */
static void an_own_worker_that_forks_keeps_its_lane(void)
{
    for (int waits = 0; waits < 2; waits++) {
        static stage at;
        stage_open(&at, 3, 3);
        fill(&at.ring[5]);
        push(&at, &at.topic[1]);
        take(&at, 1);
        begin(&at, 1, 1);
        CHECK(rc_pool_may_wait(&at.pool, at.worker[1], &at.ring[5]));
        owns[1] = hire_own(&at.pool, &at.lane[3]);
        owns[0] = hire_own(&at.pool, &at.lane[0]);
        begin_in_lane(&at, owns[0], 0);
        if (waits) CHECK(rc_pool_may_wait(&at.pool, owns[0], &at.ring[5]));
        fork_and(it_is_its_own_worker, &at);
        CHECK_EQUAL(rc_pool_workers(&at.pool), 5);
        stage_close(&at);
    }
}

/* --- interleavings: what two threads at once may and may not see ------------------------------ */

typedef struct interleaving {
    rc_pool pool;
    rc_worker *worker;
    rc_task lane;
    rc_ring ring;
    rc_u64 cursor, end;
    meeting start, finish;
    rc_u32 over; /* before a start: there is no round any more */
    int begins;  /* the worker begins a turn; else it has seen a call and gives its attention */
} interleaving;

static void *cancel_again_and_again(void *argument)
{
    interleaving *test = argument;
    for (uint64_t round = 1;; round++) {
        meet(&test->start);
        if (rc_u32_load(&test->over)) return NULL;
        rc_u64_store_seq(&test->end, round);
        rc_pool_call_attention(&test->pool);
        meet(&test->finish);
    }
}

/* A cancel changes how far a subscription may go and calls for attention, while the worker lowers
 * an older call. acceptable: the worker reads the new end, or is still called forbidden:  it reads
 * the old end, and the call is gone */
static void run_cancel_beside(int begins)
{
    static interleaving test;
    pthread_t canceller;
    int64_t deadline = nanoseconds_now() + 500 * MILLISECOND;
    memset(&test, 0, sizeof test);
    CHECK(rc_pool_init(&test.pool, &no_host, NULL, 1, 0, 1, MILLISECOND, MILLISECOND) == 0);
    CHECK(rc_ring_init(&test.ring, 1, 0, 0) == 0);
    test.worker = hire(&test.pool);
    test.start.count = test.finish.count = 2;
    canceller = thread_start(cancel_again_and_again, &test);
    for (uint64_t round = 1; round <= 5000 && nanoseconds_now() < deadline; round++) {
        uint64_t end;
        rc_pool_call_attention(&test.pool); /* the older call: the watch's, or another cancel's */
        meet(&test.start);
        if (begins)
            rc_turn_begin(test.worker, &test.lane, &test.ring, &test.cursor, UINT64_MAX);
        else if (rc_turn_attention(test.worker))
            rc_turn_attended(test.worker);
        end = rc_u64_load(&test.end);
        meet(&test.finish);
        CHECK(end == round || rc_turn_attention(test.worker));
        if (begins) CHECK(!rc_turn_end(&test.pool, test.worker));
    }
    rc_u32_store(&test.over, 1);
    meet(&test.start);
    thread_join(canceller);
    rc_ring_destroy(&test.ring);
    rc_pool_destroy(&test.pool);
}

/* A cancel is not lost to a turn that begins. */
static void cancel_beside_the_beginning_of_a_turn(void) { run_cancel_beside(1); }

/* A cancel is not lost to a worker that answers an older call. */
static void cancel_beside_given_attention(void) { run_cancel_beside(0); }

typedef struct split_race {
    rc_pool pool;
    rc_task topic, lane;
    rc_ring ring;
    rc_u64 cursor;
    rc_u32 over, holders, lane_holders;
    rc_u32 splits, turns;
    uint64_t guarded; /* plain: the holder of the topic's token alone writes it */
    uint64_t lane_guarded;
    uint32_t wanted;
} split_race;

static void *take_turns(void *argument)
{
    split_race *race = argument;
    rc_worker *worker = hire(&race->pool);
    rc_task *task;
    CHECK(worker != NULL);
    while ((task = rc_pool_take(&race->pool, worker)) != NULL) {
        int split = 0;
        CHECK(task == &race->topic);
        CHECK_EQUAL(atomic_fetch_add_explicit(&race->holders, 1, memory_order_relaxed), 0);
        for (int turn = 0; turn < 20 && !split; turn++) {
            race->guarded++;
            if (rc_task_now(&race->lane) != RC_SHARED) continue; /* runs beside us in its lane */
            race->lane_guarded++;
            /* from here the topic may go */
            atomic_fetch_sub_explicit(&race->holders, 1, memory_order_relaxed);
            rc_turn_begin(worker, &race->lane, &race->ring, &race->cursor, UINT64_MAX);
            atomic_fetch_add_explicit(&race->turns, 1, memory_order_relaxed);
            for (int spins = turn % 4 * 50; spins > 0; spins--) rc_cpu_relax();
            split = rc_turn_end(&race->pool, worker);
            if (!split)
                CHECK_EQUAL(atomic_fetch_add_explicit(&race->holders, 1, memory_order_relaxed), 0);
        }
        if (split) {
            CHECK(worker->task == &race->lane);
            CHECK_EQUAL(atomic_fetch_add_explicit(&race->lane_holders, 1, memory_order_relaxed), 0);
            race->lane_guarded++;
            atomic_fetch_add_explicit(&race->splits, 1, memory_order_relaxed);
            atomic_fetch_sub_explicit(&race->lane_holders, 1, memory_order_relaxed);
            rc_task_release(&race->lane, RC_SHARED);
            rc_pool_leave(&race->pool, worker);
            continue;
        }
        CHECK(worker->task == &race->topic);
        atomic_fetch_sub_explicit(&race->holders, 1, memory_order_relaxed);
        if (rc_u32_load(&race->over)) {
            rc_task_release(&race->topic, RC_IDLE);
            rc_pool_leave(&race->pool, worker);
        } else {
            rc_pool_yield(&race->pool, worker);
        }
    }
    return NULL;
}

/* A split that races with the end of the turn takes all of it or nothing: each token has one holder
 * at any time. */
static void split_beside_the_end_of_a_turn(void)
{
    static split_race race;
    pthread_t workers[2];
    int64_t deadline = nanoseconds_now() + 500 * MILLISECOND;
    memset(&race, 0, sizeof race);
    CHECK(rc_pool_init(&race.pool, &no_host, NULL, 2, 0, 2, MILLISECOND, MILLISECOND) == 0);
    CHECK(rc_ring_init(&race.ring, 1, 0, 0) == 0);
    rc_task_init(&race.topic, RC_TOPIC, NULL);
    rc_task_init(&race.lane, RC_LANE, NULL);
    rc_u32_store(&race.topic.members, 2);
    CHECK(rc_pool_schedule(&race.pool, &race.topic));
    for (int at = 0; at < 2; at++) workers[at] = thread_start(take_turns, &race);
    for (uint32_t round = 0; rc_u32_load(&race.splits) < 3000 && nanoseconds_now() < deadline;
         round++) {
        rc_u32_store(&race.topic.members, 1 + round % 2); /* 1: looked at and left alone */
        call_as_the_watch_does(&race.pool);
        rc_pool_split_stuck(&race.pool);
    }
    rc_u32_store(&race.over, 1);
    rc_pool_stop(&race.pool);
    for (int at = 0; at < 2; at++) thread_join(workers[at]);
    CHECK(rc_u32_load(&race.splits) > 0);
    CHECK(rc_u32_load(&race.turns) > rc_u32_load(&race.splits));
    CHECK_EQUAL(rc_pool_outstanding(&race.pool), 0);
    CHECK_EQUAL(race.lane_guarded, (uint64_t)rc_u32_load(&race.turns) + rc_u32_load(&race.splits));
    rc_ring_destroy(&race.ring);
    rc_pool_destroy(&race.pool);
}

int main(void)
{
    RUN(tasks_begin_at_rest);
    RUN(token_is_given_once);
    RUN(workers_are_limited);
    RUN(topics_are_first_in_first_out);
    RUN(outstanding_is_what_is_scheduled);
    RUN(topics_run_in_parallel_up_to_a_limit);
    RUN(lanes_leave_one_worker_for_the_topics);
    RUN(stuck_workers_are_replaced_by_spare_ones);
    RUN(lanes_that_are_stuck_make_room_for_lanes);
    RUN(topics_behind_a_stuck_worker_run_at_once);
    RUN(heat_is_raised_by_slow_turns_and_cools_down);
    RUN(split_hands_the_topic_on);
    RUN(split_for_the_release_of_events);
    RUN(split_spares_who_is_not_in_the_way);
    RUN(watch_asks_for_workers_and_stops);
    RUN(a_hire_is_taken_back_before_or_after_its_thread_joins);
    RUN(the_bus_is_pinned_while_something_is_outstanding);
    RUN(watch_finds_who_is_stuck);
    RUN(extra_workers_linger_and_end);
    RUN(stop_runs_what_is_scheduled);
    RUN(what_others_run_is_outstanding);
    RUN(stop_keeps_workers_until_the_last_task);
    RUN(scheduling_counts_at_once);
    RUN(lanes_are_yielded_where_workers_are_short);
    RUN(single_worker_is_not_split);
    RUN(may_not_wait_for_itself);
    RUN(may_not_wait_for_itself_behind_the_gate);
    RUN(may_wait_for_others);
    RUN(may_not_wait_in_a_circle);
    RUN(last_worker_may_not_wait);
    RUN(may_not_wait_outside_a_turn);
    RUN(waiting_leaves_workers_to_the_lanes);
    RUN(deciding_takes_no_time);
    RUN(an_own_worker_takes_its_lane_and_nothing_else);
    RUN(an_own_worker_is_in_no_limit);
    RUN(an_own_worker_stands_in_no_others_place);
    RUN(the_bus_is_pinned_for_own_workers);
    RUN(an_own_worker_is_never_stuck);
    RUN(the_watch_ticks_for_an_own_worker);
    RUN(an_own_worker_waits_beside_a_single_worker);
    RUN(an_own_worker_may_not_wait_for_itself);
    RUN(own_workers_may_not_wait_in_a_circle);
    RUN(an_own_worker_is_hired_once);
    RUN(an_own_worker_is_used_again);
    RUN(an_own_worker_is_woken_for_its_lane);
    RUN(an_own_worker_ends_with_its_lane);
    RUN(stop_keeps_own_workers_until_the_last_task);
    RUN(after_the_end_nothing_is_scheduled_for_own_workers);
    RUN(a_child_begins_with_neither_tasks_nor_workers);
    RUN(a_worker_that_forks_keeps_its_topic);
    RUN(a_worker_that_forks_keeps_its_lane);
    RUN(a_child_has_own_workers_without_threads);
    RUN(an_own_worker_that_forks_keeps_its_lane);
    RUN(cancel_beside_the_beginning_of_a_turn);
    RUN(cancel_beside_given_attention);
    RUN(split_beside_the_end_of_a_turn);
    return 0;
}
