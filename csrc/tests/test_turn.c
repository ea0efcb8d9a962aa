/* rc_turn: how far a turn goes, what ends it, and what is counted of it. */
#define _GNU_SOURCE
#include "../rc_turn.h"
#include "check.h"
#include "host.h"

enum { PUBLISHED = 20 };
static const int64_t MILLISECOND = 1000000;

/* A topic with one member and PUBLISHED events, whose task the only worker holds. `called` is what
 * the handler does. */
typedef struct stage {
    rc_member member; /* first: the handler finds its stage */
    rc_topic *topic;
    rc_pool pool;
    rc_worker *worker;
    rc_mail mail;
    void (*called)(struct stage *);
    uint64_t handled, pauses, released;
    uint64_t last_running; /* what the member said while its handler was called last */
    int is_child;
} stage;

static stage here;

static int deliver(rc_worker *worker, rc_member *member, rc_span *span)
{
    stage *at = (stage *)member;
    do {
        at->handled++;
        at->last_running = rc_u32_load(&member->running);
        if (at->called != NULL) at->called(at);
        if (at->is_child) return 0;
        span->calls++;
        rc_u64_store(&member->cursor, ++span->next);
    } while (span->next < span->end && !rc_turn_attention(worker));
    return 1;
}

static int deliver_mail(rc_worker *worker, rc_member *member, rc_span *span)
{
    stage *at = (stage *)member;
    uint64_t missed;
    (void)worker;
    if (rc_mail_take(&at->mail, &missed) == NULL) {
        span->end = span->next;
        return 1;
    }
    at->handled++;
    at->last_running = rc_u32_load(&member->running);
    span->calls++;
    span->next++;
    return 1;
}

static void paused(void)
{
    /* nobody is in the handler: a discarding cancel leaves nothing */
    CHECK_EQUAL(rc_u32_load(&here.member.running), 0);
    here.pauses++;
}

static void let_go(void **events, size_t count)
{
    (void)events;
    here.released += count;
}

static const rc_host host = {.unpin = end_of_work, .pause = paused, .drop = let_go};

static void set_up_for(size_t record_size, void (*called)(stage *))
{
    stage *at = &here;
    memset(at, 0, sizeof *at);
    CHECK(rc_pool_init(&at->pool, &host, NULL, 2, 0, 1, MILLISECOND, MILLISECOND) == 0);
    at->topic = rc_aligned_zalloc(sizeof *at->topic);
    CHECK(
        at->topic != NULL &&
        rc_topic_init(at->topic, &at->pool, &at->pool, 1000, 0, 0, record_size) == 0
    );
    at->topic->timing = 1;
    rc_member_init(&at->member, at->topic);
    at->member.max_queue = 1000;
    at->member.deliver = deliver;
    CHECK(rc_topic_join(at->topic, &at->member) == 0);
    at->called = called;
    rc_pool_hire(&at->pool, NULL);
    at->worker = rc_pool_join(&at->pool, NULL);
    CHECK(rc_pool_schedule(&at->pool, &at->topic->task));
    CHECK(rc_pool_take(&at->pool, at->worker) == &at->topic->task);
}

static void set_up(void (*called)(stage *))
{
    set_up_for(0, called);
    for (int number = 0; number < PUBLISHED; number++) {
        rc_slot *slot;
        CHECK(rc_ring_claim(&here.topic->ring, 1000, &slot) == RC_CLAIMED);
        rc_ring_publish(slot, &here);
    }
}

static int turn(uint64_t end) { return rc_turn(&here.pool, here.worker, &here.member, end); }

static void left(rc_member *member) { CHECK(member == &here.member); }

static void tear_down(void)
{
    static const rc_host last = {.left = left};
    int is_events = here.topic->ring.record_size == 0;
    CHECK_EQUAL(rc_u32_load(&here.member.running), 0);
    CHECK(!rc_turn_running(here.worker));
    if (here.worker->task == &here.topic->task) rc_task_release(&here.topic->task, RC_IDLE);
    rc_pool_leave(&here.pool, here.worker);
    rc_pool_stop(&here.pool);
    while (rc_pool_outstanding(&here.pool) != 0) { /* the topic that was split from its lane */
        CHECK(rc_pool_take(&here.pool, here.worker) == &here.topic->task);
        rc_pool_leave(&here.pool, here.worker);
    }
    CHECK(rc_pool_take(&here.pool, here.worker) == NULL);
    rc_topic_leave(here.topic, &here.member);
    rc_member_drop(&last, &here.member);
    rc_topic_drop(here.topic);
    if (is_events) CHECK_EQUAL(here.released, PUBLISHED); /* each once */
    rc_pool_destroy(&here.pool);
    if (here.member.mail != NULL) rc_mail_destroy(here.member.mail);
}

static void it_goes_up_to_its_end_and_counts(void)
{
    set_up(NULL);
    CHECK(!turn(7));
    CHECK_EQUAL(here.handled, 7);
    CHECK_EQUAL(here.last_running, 1);
    CHECK_EQUAL(rc_u64_load(&here.member.cursor), 7);
    CHECK_EQUAL(rc_u64_load(&here.member.timed), 7);
    CHECK_EQUAL(rc_u64_load(&here.member.high_water), PUBLISHED);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, PUBLISHED);
    CHECK_EQUAL(rc_u64_load(&here.member.timed), PUBLISHED);
    CHECK_EQUAL(here.pauses, 0);
    tear_down();
}

static void it_keeps_no_times_where_the_topic_does_not(void)
{
    set_up(NULL);
    here.topic->timing = 0;
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(rc_u64_load(&here.member.timed) + rc_u64_load(&here.member.time), 0);
    tear_down();
}

static void it_does_not_go_beyond_the_end_of_its_member(void)
{
    set_up(NULL);
    rc_u64_store(&here.member.end, 3);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, 3);
    CHECK(!turn(PUBLISHED)); /* nor when there is nothing left */
    CHECK_EQUAL(here.handled, 3);
    tear_down();
}

/* As a cancel that discards does, and its call for attention. */
static void cancel_in_the_fifth(stage *at)
{
    if (at->handled != 5) return;
    rc_u64_store_seq(
        &at->member.end, rc_u64_load(&at->member.cursor) + rc_u32_load(&at->member.running)
    );
    rc_pool_call_attention(&at->pool);
}

static void a_cancel_ends_it_after_the_call_that_is_under_way(void)
{
    set_up(cancel_in_the_fifth);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, 5);
    CHECK_EQUAL(here.pauses, 1);
    tear_down();
}

/* As the watch does once a tick. */
static void tick(stage *at) { call_as_the_watch_does(&at->pool); }

static void it_is_cut_at_the_second_look_of_the_watch(void)
{
    set_up(tick);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, RC_TURN_TICKS);
    CHECK_EQUAL(here.pauses, RC_TURN_TICKS);
    CHECK_EQUAL(here.member.heat, RC_HOT);       /* as a slow turn */
    CHECK_EQUAL(rc_turn_limit(&here.member), 1); /* so the next turn is one call */
    tear_down();
}

static void cancel_another(stage *at) { rc_pool_call_attention(&at->pool); }

static void it_is_not_cut_by_the_cancels_of_others(void)
{
    set_up(cancel_another);
    CHECK(!turn(PUBLISHED));
    /* unless delays have made its calls slow */
    CHECK(here.handled == PUBLISHED || here.member.heat == RC_HOT);
    tear_down();
}

static void take_two_milliseconds(stage *at)
{
    int64_t until = rc_clock_now() + 2 * MILLISECOND;
    while (rc_clock_now() < until) rc_cpu_relax();
    tick(at);
}

static void it_is_cut_at_the_first_look_where_its_calls_are_slow(void)
{
    set_up(take_two_milliseconds);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, 1);
    CHECK_EQUAL(here.member.heat, RC_HOT);
    CHECK(rc_u64_load(&here.member.time) >= 2 * (uint64_t)MILLISECOND);
    here.called = NULL;
    for (int quick = 0; quick < RC_HOT; quick++) CHECK(!turn(1 + (uint64_t)quick % PUBLISHED));
    CHECK_EQUAL(here.member.heat, 0);
    CHECK_EQUAL(rc_turn_limit(&here.member), RC_TURN_EVENTS);
    tear_down();
}

/* As the watch does with a worker that has not lowered its attention for a tick. */
static void split_in_the_second(stage *at)
{
    if (at->handled != 2) return;
    tick(at);
    rc_u32_store(&at->topic->task.members, 2); /* it holds another one up */
    rc_pool_split_stuck(&at->pool);
}

static void a_split_leaves_the_worker_with_the_lane(void)
{
    set_up(split_in_the_second);
    CHECK(turn(PUBLISHED));
    /* the turn itself goes on, unless delays have made its calls slow */
    CHECK(here.handled == PUBLISHED || here.member.heat == RC_HOT);
    CHECK(here.worker->task == &here.member.lane);
    CHECK_EQUAL(rc_task_now(&here.member.lane), RC_SCHEDULED);
    tear_down();
}

static void fork_in_the_third(stage *at) { at->is_child = at->handled == 3; }

static void in_a_forked_child_it_ends_at_once_and_counts_no_time(void)
{
    set_up(fork_in_the_third);
    CHECK(!turn(PUBLISHED));
    CHECK_EQUAL(here.handled, 3);
    CHECK_EQUAL(rc_u64_load(&here.member.timed), 0);
    CHECK_EQUAL(here.member.heat, 0);
    tear_down();
}

static void a_mailbox_is_emptied_and_its_cursor_holds_nothing_back(void)
{
    set_up(NULL);
    here.member.mail = &here.mail;
    here.member.deliver = deliver_mail;
    CHECK(rc_mail_init(&here.mail, 10) == 0);
    for (int number = 0; number < 5; number++) CHECK(rc_mail_put(&here.mail, &here, 1) == NULL);
    CHECK(!turn(2));
    CHECK_EQUAL(here.handled, 2);
    /* else the gate would wait for the handler of a member that drops */
    CHECK_EQUAL(here.last_running, 0);
    CHECK_EQUAL(rc_u64_load(&here.member.high_water), 5);
    CHECK(here.worker->cursor == &rc_nowhere);
    CHECK(!turn(100));
    CHECK_EQUAL(here.handled, 5);
    CHECK_EQUAL(rc_u64_load(&here.member.timed), 5);
    tear_down();
}

static uint64_t got[4], runs, stride_seen;

static void native(const void *records, size_t count, size_t stride, void *userdata)
{
    CHECK(userdata == &here);
    CHECK_EQUAL(rc_u32_load(&here.member.running), count);
    memcpy(&got[runs % 4], records, sizeof got[0]);
    stride_seen = stride;
    here.handled += count;
    runs++;
}

static void a_c_function_is_given_its_records_page_by_page(void)
{
    enum { MANY = 1000 };
    static uint64_t records[MANY];
    rc_run run;
    uint64_t done = 0;
    set_up_for(sizeof records[0], NULL);
    here.member.deliver = rc_deliver_native;
    here.member.native = native;
    here.member.userdata = &here;
    for (uint64_t number = 0; number < MANY; number++) records[number] = number;
    while (done < MANY) {
        CHECK(rc_ring_claim_run(&here.topic->ring, MANY, MANY - done, &run) == RC_CLAIMED);
        rc_record_write(&run, &records[done], sizeof records[0]);
        rc_record_publish(&run);
        done += run.count;
    }
    CHECK(!turn(MANY));
    CHECK_EQUAL(here.handled, MANY);
    CHECK_EQUAL(runs, 2);
    CHECK_EQUAL(got[0], 0);
    CHECK_EQUAL(got[1], RC_PAGE_SLOTS);
    CHECK_EQUAL(stride_seen, sizeof records[0]);
    CHECK_EQUAL(rc_u64_load(&here.member.timed), 2); /* calls */
    tear_down();
}

int main(void)
{
    RUN(it_goes_up_to_its_end_and_counts);
    RUN(it_keeps_no_times_where_the_topic_does_not);
    RUN(it_does_not_go_beyond_the_end_of_its_member);
    RUN(a_cancel_ends_it_after_the_call_that_is_under_way);
    RUN(it_is_cut_at_the_second_look_of_the_watch);
    RUN(it_is_not_cut_by_the_cancels_of_others);
    RUN(it_is_cut_at_the_first_look_where_its_calls_are_slow);
    RUN(a_split_leaves_the_worker_with_the_lane);
    RUN(in_a_forked_child_it_ends_at_once_and_counts_no_time);
    RUN(a_mailbox_is_emptied_and_its_cursor_holds_nothing_back);
    RUN(a_c_function_is_given_its_records_page_by_page);
    return 0;
}
