/* rc_park: no sleep with the condition true, and no wake-up lost. */
#define _GNU_SOURCE
#include "../rc_park.h"
#include "check.h"

enum { MILLISECOND = 1000000, MANY = 8 };

/* A wait that nobody wakes ends after its timeout, and not before. */
static void times_out(void)
{
    rc_park park;
    int64_t began = nanoseconds_now();
    CHECK(rc_park_init(&park) == 0);
    CHECK_EQUAL(rc_park_wait(&park, rc_park_prepare(&park), 5 * MILLISECOND), RC_TIMED_OUT);
    CHECK(nanoseconds_now() - began >= 5 * MILLISECOND);
    rc_park_destroy(&park);
}

/* A timeout of nothing returns at once, and one over a second is a second and the rest (not cut or
 * refused). */
static void takes_any_timeout(void)
{
    rc_park park;
    int64_t began;
    CHECK(rc_park_init(&park) == 0);
    CHECK_EQUAL(rc_park_wait(&park, rc_park_prepare(&park), 0), RC_TIMED_OUT);
    began = nanoseconds_now();
    CHECK_EQUAL(
        rc_park_wait(&park, rc_park_prepare(&park), 1000 * MILLISECOND + 999999), RC_TIMED_OUT
    );
    CHECK(nanoseconds_now() - began >= 1000 * MILLISECOND + 999999);
    rc_park_destroy(&park);
}

/* A ticket from before a wake does not sleep, whether one or all were woken. */
static void old_ticket_does_not_sleep(void)
{
    rc_park park;
    CHECK(rc_park_init(&park) == 0);
    for (int all = 0; all <= 1; all++) {
        uint32_t ticket = rc_park_prepare(&park);
        rc_park_wake(&park, all);
        CHECK_EQUAL(rc_park_wait(&park, ticket, RC_FOREVER), RC_WOKEN);
    }
    rc_park_destroy(&park);
}

/* A wake before anybody announced itself leaves nothing behind: the next ticket sleeps. */
static void wake_without_waiters_is_forgotten(void)
{
    rc_park park;
    CHECK(rc_park_init(&park) == 0);
    rc_park_wake_all(&park);
    rc_park_wake_one(&park);
    CHECK_EQUAL(rc_u32_load(&park.epoch), 0);
    CHECK_EQUAL(rc_park_wait(&park, rc_park_prepare(&park), MILLISECOND), RC_TIMED_OUT);
    rc_park_destroy(&park);
}

/* cancel and the end of wait both take back what prepare announced. */
static void nobody_stays_announced(void)
{
    rc_park park;
    uint32_t ticket;
    CHECK(rc_park_init(&park) == 0);
    rc_park_prepare(&park);
    ticket = rc_park_prepare(&park);
    CHECK_EQUAL(rc_u32_load(&park.waiters), 2);
    rc_park_cancel(&park);
    CHECK_EQUAL(rc_park_wait(&park, ticket, 0), RC_TIMED_OUT);
    CHECK_EQUAL(rc_u32_load(&park.waiters), 0);
    rc_park_destroy(&park);
}

/* The epoch may wrap: a wake at its very end still changes the ticket. */
static void epoch_wraps(void)
{
    rc_park park;
    uint32_t ticket;
    CHECK(rc_park_init(&park) == 0);
    rc_u32_store(&park.epoch, UINT32_MAX);
    ticket = rc_park_prepare(&park);
    CHECK_EQUAL(ticket, UINT32_MAX);
    rc_park_wake_all(&park);
    CHECK_EQUAL(rc_u32_load(&park.epoch), 0);
    CHECK_EQUAL(rc_park_wait(&park, ticket, RC_FOREVER), RC_WOKEN);
    rc_park_destroy(&park);
}

/* A ticket is told from the next 2**32 - 1 epochs, whatever it is. (The one after those is its own
 * again: a thread would have to stay between prepare and wait for as many wakes, of which each is a
 * call of the kernel.) */
static void ticket_holds_for_all_other_epochs(void)
{
    const uint32_t tickets[] = {0,         1, 7, UINT32_MAX / 2, UINT32_MAX / 2 + 1, UINT32_MAX - 1,
                                UINT32_MAX};
    const uint32_t wakes[] = {1, 2, UINT32_MAX / 2, UINT32_MAX / 2 + 1, UINT32_MAX - 1, UINT32_MAX};
    for (size_t at = 0; at < sizeof tickets / sizeof tickets[0]; at++)
        for (size_t after = 0; after < sizeof wakes / sizeof wakes[0]; after++) {
            rc_park park;
            uint32_t ticket;
            CHECK(rc_park_init(&park) == 0);
            rc_u32_store(&park.epoch, tickets[at]);
            ticket = rc_park_prepare(&park);
            /* as if there had been so many but one */
            rc_u32_store(&park.epoch, tickets[at] + wakes[after] - 1);
            rc_park_wake_one(&park);
            CHECK_EQUAL(rc_park_wait(&park, ticket, RC_FOREVER), RC_WOKEN);
            rc_park_destroy(&park);
        }
}

/* --- several threads -------------------------------------------------------------------------- */

typedef struct counter {
    rc_park park;
    rc_u32 tokens;
    rc_u32 handed_out;
    uint32_t rounds;
} counter;

static int take_token(counter *shared)
{
    uint32_t tokens = atomic_load_explicit(&shared->tokens, memory_order_seq_cst);
    while (tokens > 0)
        if (atomic_compare_exchange_weak_explicit(
                &shared->tokens, &tokens, tokens - 1, memory_order_seq_cst, memory_order_seq_cst
            ))
            return 1;
    return 0;
}

/* The waiter as rc_park.h tells it. */
static void await_token(counter *shared)
{
    for (;;) {
        uint32_t ticket = rc_park_prepare(&shared->park);
        if (take_token(shared)) {
            rc_park_cancel(&shared->park);
            break;
        }
        rc_park_wait(&shared->park, ticket, RC_FOREVER);
    }
    atomic_fetch_add_explicit(&shared->handed_out, 1, memory_order_relaxed);
}

static void *take_rounds(void *argument)
{
    counter *shared = argument;
    for (uint32_t round = 0; round < shared->rounds; round++) await_token(shared);
    return NULL;
}

static void counter_init(counter *shared, uint32_t rounds)
{
    memset(shared, 0, sizeof *shared);
    CHECK(rc_park_init(&shared->park) == 0);
    rc_u32_store(&shared->park.epoch, UINT32_MAX - 50); /* it wraps soon */
    shared->rounds = rounds;
}

static void await_waiters(counter *shared, uint32_t count)
{
    while (rc_u32_load_seq(&shared->park.waiters) < count) sched_yield();
}

/* wake_all wakes everybody who waits. */
static void wake_all_wakes_all(void)
{
    counter shared;
    pthread_t threads[MANY];
    counter_init(&shared, 1);
    for (int at = 0; at < MANY; at++) threads[at] = thread_start(take_rounds, &shared);
    await_waiters(&shared, MANY);
    rc_u32_store_seq(&shared.tokens, MANY);
    rc_park_wake_all(&shared.park);
    for (int at = 0; at < MANY; at++) thread_join(threads[at]);
    CHECK_EQUAL(rc_u32_load(&shared.handed_out), MANY);
    CHECK_EQUAL(rc_u32_load(&shared.park.waiters), 0);
    rc_park_destroy(&shared.park);
}

/* wake_one wakes somebody each time: as many calls as there are waiters are enough for all of them.
 */
static void wake_one_wakes_one(void)
{
    counter shared;
    pthread_t threads[MANY];
    counter_init(&shared, 1);
    for (int at = 0; at < MANY; at++) threads[at] = thread_start(take_rounds, &shared);
    await_waiters(&shared, MANY);
    for (int at = 0; at < MANY; at++) {
        atomic_fetch_add_explicit(&shared.tokens, 1, memory_order_seq_cst);
        rc_park_wake_one(&shared.park);
    }
    for (int at = 0; at < MANY; at++) thread_join(threads[at]);
    CHECK_EQUAL(rc_u32_load(&shared.handed_out), MANY);
    rc_park_destroy(&shared.park);
}

typedef struct table_tennis {
    rc_park parks[2];
    rc_u32 turn;
    uint32_t rounds;
    uint64_t ball; /* plain: the park's protocol alone hands it over */
} table_tennis;

static void play(table_tennis *game, uint32_t me)
{
    for (uint32_t round = 0; round < game->rounds; round++) {
        for (;;) {
            uint32_t ticket = rc_park_prepare(&game->parks[me]);
            if (rc_u32_load_seq(&game->turn) == me) {
                rc_park_cancel(&game->parks[me]);
                break;
            }
            rc_park_wait(&game->parks[me], ticket, RC_FOREVER);
        }
        CHECK_EQUAL(game->ball, 2 * (uint64_t)round + me);
        game->ball++;
        rc_u32_store_seq(&game->turn, 1 - me);
        rc_park_wake_one(&game->parks[1 - me]);
    }
}

static void *play_second(void *argument)
{
    play(argument, 1);
    return NULL;
}

/* Two threads that hand one another the turn never both sleep. */
static void no_wake_is_lost_between_two(void)
{
    static table_tennis game;
    pthread_t second;
    game.rounds = 20000;
    CHECK(rc_park_init(&game.parks[0]) == 0 && rc_park_init(&game.parks[1]) == 0);
    rc_u32_store(&game.parks[0].epoch, UINT32_MAX - 200);
    second = thread_start(play_second, &game);
    play(&game, 0);
    thread_join(second);
    CHECK_EQUAL(game.ball, 2 * (uint64_t)game.rounds);
    rc_park_destroy(&game.parks[0]);
    rc_park_destroy(&game.parks[1]);
}

static void *give_rounds(void *argument)
{
    counter *shared = argument;
    for (uint32_t round = 0; round < shared->rounds; round++) {
        atomic_fetch_add_explicit(&shared->tokens, 1, memory_order_seq_cst);
        rc_park_wake_one(&shared->park);
        if (round % 16 == 0) sched_yield(); /* let them fall asleep */
    }
    return NULL;
}

/* Many wakers and many waiters: one wake_one for each token, and no token stays behind with a
 * sleeper. */
static void no_wake_is_lost_between_many(void)
{
    enum { SIDE = 3 };
    counter shared;
    pthread_t threads[2 * SIDE];
    counter_init(&shared, 20000);
    for (int at = 0; at < SIDE; at++) {
        threads[2 * at] = thread_start(take_rounds, &shared);
        threads[2 * at + 1] = thread_start(give_rounds, &shared);
    }
    for (int at = 0; at < 2 * SIDE; at++) thread_join(threads[at]);
    CHECK_EQUAL(rc_u32_load(&shared.handed_out), SIDE * shared.rounds);
    CHECK_EQUAL(rc_u32_load(&shared.tokens), 0);
    CHECK_EQUAL(rc_u32_load(&shared.park.waiters), 0);
    rc_park_destroy(&shared.park);
}

typedef struct impatient {
    counter shared;
    rc_u32 given_up;
} impatient;

static void *take_or_give_up(void *argument)
{
    impatient *test = argument;
    for (uint32_t round = 0; round < test->shared.rounds;) {
        uint32_t ticket = rc_park_prepare(&test->shared.park);
        if (take_token(&test->shared)) {
            rc_park_cancel(&test->shared.park);
            round++;
        } else if (rc_park_wait(&test->shared.park, ticket, 20000) == RC_TIMED_OUT) {
            atomic_fetch_add_explicit(&test->given_up, 1, memory_order_relaxed);
        }
    }
    return NULL;
}

/* Waiters that time out while others are woken take nobody's wake-up with them. */
static void timeouts_lose_nothing(void)
{
    impatient test;
    pthread_t patient, hasty, giver[2];
    memset(&test, 0, sizeof test);
    counter_init(&test.shared, 5000);
    patient = thread_start(take_rounds, &test.shared);
    hasty = thread_start(take_or_give_up, &test);
    giver[0] = thread_start(give_rounds, &test.shared);
    giver[1] = thread_start(give_rounds, &test.shared);
    thread_join(patient);
    thread_join(hasty);
    thread_join(giver[0]);
    thread_join(giver[1]);
    CHECK_EQUAL(rc_u32_load(&test.shared.tokens), 0);
    CHECK_EQUAL(rc_u32_load(&test.shared.park.waiters), 0);
    rc_park_destroy(&test.shared.park);
}

int main(void)
{
    RUN(times_out);
    RUN(takes_any_timeout);
    RUN(old_ticket_does_not_sleep);
    RUN(wake_without_waiters_is_forgotten);
    RUN(nobody_stays_announced);
    RUN(epoch_wraps);
    RUN(ticket_holds_for_all_other_epochs);
    RUN(wake_all_wakes_all);
    RUN(wake_one_wakes_one);
    RUN(no_wake_is_lost_between_two);
    RUN(no_wake_is_lost_between_many);
    RUN(timeouts_lose_nothing);
    return 0;
}
