/* rc_registry: a hit is always right; find_locked never misses. */
#define _GNU_SOURCE
#include "../rc_registry.h"
#include "check.h"

typedef struct topic {
    uint64_t key;
    uint64_t step; /* of the writer that registered it */
} topic;

static uint64_t capacity(const rc_registry *registry)
{
    return atomic_load_explicit(&registry->table, memory_order_relaxed)->mask + 1;
}

static uint64_t count(const rc_registry *registry)
{
    return atomic_load_explicit(&registry->table, memory_order_relaxed)->count;
}

static void *both_finds(rc_registry *registry, uint64_t key)
{
    void *found = rc_registry_find(registry, key);
    CHECK(rc_registry_find_locked(registry, key) == found);
    return found;
}

/* --- one thread ------------------------------------------------------------------------------- */

/* What was put is found under its key and no other, until it is replaced or removed. */
static void finds_what_was_put(void)
{
    rc_registry registry;
    topic first, second;
    CHECK(rc_registry_init(&registry) == 0);
    CHECK(both_finds(&registry, 7) == NULL);
    CHECK(rc_registry_put(&registry, 7, &first) == 0);
    CHECK(both_finds(&registry, 7) == &first);
    CHECK(both_finds(&registry, 8) == NULL);
    CHECK(rc_registry_put(&registry, 7, &second) == 0);
    CHECK(both_finds(&registry, 7) == &second);
    CHECK_EQUAL(count(&registry), 1);
    CHECK(rc_registry_remove(&registry, 8) == NULL);
    CHECK(rc_registry_remove(&registry, 7) == &second);
    CHECK(rc_registry_remove(&registry, 7) == NULL);
    CHECK(both_finds(&registry, 7) == NULL);
    CHECK_EQUAL(count(&registry), 0);
    rc_registry_destroy(&registry);
}

/* Keys are any numbers but 0: small ones, addresses, the largest. */
static void takes_any_key(void)
{
    static topic topics[70];
    rc_registry registry;
    uint64_t keys[70], number = 0;
    for (int bit = 0; bit < 64; bit++) keys[number++] = UINT64_C(1) << bit;
    keys[number++] = UINT64_MAX;
    keys[number++] = UINT32_MAX;
    keys[number++] = (uint64_t)(uintptr_t)&registry;
    CHECK(rc_registry_init(&registry) == 0);
    for (uint64_t at = 0; at < number; at++)
        CHECK(rc_registry_put(&registry, keys[at], &topics[at]) == 0);
    for (uint64_t at = 0; at < number; at++) CHECK(both_finds(&registry, keys[at]) == &topics[at]);
    for (uint64_t at = 0; at < number; at++)
        CHECK(rc_registry_remove(&registry, keys[at]) == &topics[at]);
    rc_registry_destroy(&registry);
}

/* While a writer is at work a find reports a miss, of what is there too: it may be about to move.
 */
static void finds_nothing_while_a_writer_is_at_work(void)
{
    rc_registry registry;
    topic some;
    rc_u64 *version;
    CHECK(rc_registry_init(&registry) == 0);
    CHECK(rc_registry_put(&registry, 7, &some) == 0);
    version = &atomic_load_explicit(&registry.table, memory_order_relaxed)->version;
    rc_u64_store(version, UINT64_MAX - 1); /* even, the last one before it wraps */
    CHECK(rc_registry_find(&registry, 7) == &some);
    rc_u64_store(version, rc_u64_load(version) + 1); /* as it stands in the middle of a change */
    CHECK(rc_registry_find(&registry, 7) == NULL);
    CHECK(rc_registry_find_locked(&registry, 7) == &some);
    rc_u64_store(version, rc_u64_load(version) + 1);
    CHECK_EQUAL(rc_u64_load(version), 0);
    CHECK(rc_registry_find(&registry, 7) == &some);
    rc_registry_destroy(&registry);
}

/* The table grows before it is more than half full and keeps every entry. */
static void grows_and_keeps_all(void)
{
    enum { MANY = 5000 };
    static topic topics[MANY];
    rc_registry registry;
    CHECK(rc_registry_init(&registry) == 0);
    for (uint64_t at = 0; at < MANY; at++) {
        CHECK(rc_registry_put(&registry, at + 1, &topics[at]) == 0);
        CHECK(count(&registry) * 2 <= capacity(&registry));
        if (at % 97 == 0)
            for (uint64_t before = 0; before <= at; before++)
                CHECK(both_finds(&registry, before + 1) == &topics[before]);
    }
    for (uint64_t at = 0; at < MANY; at++) CHECK(both_finds(&registry, at + 1) == &topics[at]);
    CHECK(both_finds(&registry, MANY + 1) == NULL);
    rc_registry_destroy(&registry);
}

/* A replacement or a removal in a half full table does not grow it. */
static void replacing_does_not_grow(void)
{
    rc_registry registry;
    topic some;
    CHECK(rc_registry_init(&registry) == 0);
    while ((count(&registry) + 1) * 2 <= capacity(&registry))
        CHECK(rc_registry_put(&registry, count(&registry) + 1, &some) == 0);
    for (uint64_t round = 0, full = capacity(&registry); round < 100; round++) {
        CHECK(rc_registry_put(&registry, 1, &some) == 0);
        CHECK(rc_registry_remove(&registry, 2) == &some);
        CHECK(rc_registry_put(&registry, 2, &some) == 0);
        CHECK_EQUAL(capacity(&registry), full);
    }
    rc_registry_destroy(&registry);
}

/* Looks for `wanted` keys whose place in the registry's table is `home`. */
static void keys_at_home(const rc_registry *registry, uint64_t home, uint64_t *keys, int wanted)
{
    const rc_table *table = atomic_load_explicit(&registry->table, memory_order_relaxed);
    for (uint64_t key = 1; wanted > 0; key++)
        if (rc_registry_hash(table, key) == home) keys[--wanted] = key;
}

/* Keys that collide are all found, also past the table's end, and removing any of them in any order
 * leaves the others. */
static void removal_closes_the_gap(void)
{
    enum { KEYS = 4, ORDERS = 24 };
    static topic topics[KEYS];
    for (uint64_t home = 0; home < 8; home++)
        for (int mixed = 0; mixed <= 1; mixed++)
            for (int order = 0; order < ORDERS; order++) {
                rc_registry registry;
                uint64_t keys[KEYS], others[2];
                int left[KEYS] = {0, 1, 2, 3};
                CHECK(rc_registry_init(&registry) == 0);
                CHECK_EQUAL(capacity(&registry), 8);
                keys_at_home(&registry, home, keys, KEYS);
                keys_at_home(&registry, (home + 1) % 8, others, 2);
                if (mixed) { /* two of them belong one further: the run has two homes */
                    keys[1] = others[0];
                    keys[2] = others[1];
                }
                for (int at = 0; at < KEYS; at++)
                    CHECK(rc_registry_put(&registry, keys[at], &topics[at]) == 0);
                CHECK_EQUAL(capacity(&registry), 8);
                for (int number = KEYS, code = order; number > 0; number--) {
                    int which = code % number, gone = left[which];
                    code /= number;
                    left[which] = left[number - 1];
                    CHECK(rc_registry_remove(&registry, keys[gone]) == &topics[gone]);
                    CHECK(both_finds(&registry, keys[gone]) == NULL);
                    for (int at = 0; at < number - 1; at++)
                        CHECK(both_finds(&registry, keys[left[at]]) == &topics[left[at]]);
                }
                CHECK_EQUAL(count(&registry), 0);
                rc_registry_destroy(&registry);
            }
}

/* Any sequence of put and remove does what it does to a plain array. */
static void agrees_with_a_plain_array(void)
{
    enum { KEYS = 60, STEPS = 30000 };
    static topic topics[KEYS][3];
    for (uint64_t spread = 0; spread < 3; spread++) {
        rc_registry registry;
        void *model[KEYS] = {NULL};
        uint64_t random = 88172645463325252u + spread, live = 0;
        CHECK(rc_registry_init(&registry) == 0);
        for (int step = 0; step < STEPS; step++) {
            uint64_t at = next_random(&random) % KEYS, what = next_random(&random) % 4;
            uint64_t key = spread == 0 ? at + 1 : spread == 1 ? (at + 1) << 4 : (at + 1) << 58;
            if (what == 3 || (step / 2000) % 2) {
                CHECK(rc_registry_remove(&registry, key) == model[at]);
                live -= model[at] != NULL;
                model[at] = NULL;
            } else {
                CHECK(rc_registry_put(&registry, key, &topics[at][what]) == 0);
                live += model[at] == NULL;
                model[at] = &topics[at][what];
            }
            CHECK_EQUAL(count(&registry), live);
            at = next_random(&random) % KEYS;
            key = spread == 0 ? at + 1 : spread == 1 ? (at + 1) << 4 : (at + 1) << 58;
            CHECK(both_finds(&registry, key) == model[at]);
        }
        rc_registry_destroy(&registry);
    }
}

/* --- readers beside writers ------------------------------------------------------------------- */

enum { STABLE = 20, VOLATILE = 40, READERS = 2 };

typedef struct shared_registry {
    rc_registry registry;
    topic stable[STABLE];
    topic *made; /* of the writer, one for each step: plain fields, handed over by the registry
                    alone */
    uint64_t steps;
    uint64_t keys;              /* the volatile keys; the more, the more it grows */
    rc_u64 put_begun[VOLATILE]; /* the step of the last put of that key that has begun */
    rc_u64
        remove_done[VOLATILE]; /* the last put of that key whose removal or replacement has ended */
    rc_u32 over;
    rc_u64 hits, misses;
} shared_registry;

static uint64_t stable_key(uint64_t at) { return 1000 + 8 * at; }
static uint64_t volatile_key(uint64_t at) { return 1004 + 8 * at; }

static void *read_while_written(void *argument)
{
    shared_registry *shared = argument;
    uint64_t random = (uint64_t)(uintptr_t)&random | 1, hits = 0, misses = 0, last[VOLATILE] = {0};
    do {
        uint64_t number = next_random(&random), at = number % STABLE;
        topic *found = rc_registry_find(&shared->registry, stable_key(at));
        hits += found != NULL;
        misses += found == NULL;
        /* never misses */
        if (found == NULL) found = rc_registry_find_locked(&shared->registry, stable_key(at));
        CHECK(found == &shared->stable[at]);
        CHECK_EQUAL(found->key, stable_key(at));

        at = (number >> 32) % shared->keys;
        {
            uint64_t gone = rc_u64_load_seq(&shared->remove_done[at]);
            found = number >> 63 ? rc_registry_find(&shared->registry, volatile_key(at))
                                 : rc_registry_find_locked(&shared->registry, volatile_key(at));
            if (found == NULL) continue;
            CHECK_EQUAL(found->key, volatile_key(at)); /* of that key, */
            CHECK(found->step > gone);                 /* not gone before the call, */
            CHECK(found->step <= rc_u64_load_seq(&shared->put_begun[at])); /* not from after it, */
            /* and not older than what this reader saw before */
            CHECK(found->step >= last[at]);
            last[at] = found->step;
        }
    } while (!rc_u32_load(&shared->over));
    atomic_fetch_add_explicit(&shared->hits, hits, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->misses, misses, memory_order_relaxed);
    return NULL;
}

static void write_volatile(shared_registry *shared)
{
    uint64_t random = 2463534242, now[VOLATILE] = {0};
    for (uint64_t step = 1; step <= shared->steps; step++) {
        uint64_t number = next_random(&random), at = number % shared->keys;
        if (number >> 62 == 0 || now[at] == 0) { /* put, or replace */
            topic *made = &shared->made[step];
            *made = (topic){volatile_key(at), step};
            rc_u64_store_seq(&shared->put_begun[at], step);
            CHECK(rc_registry_put(&shared->registry, made->key, made) == 0);
            if (now[at] != 0) rc_u64_store_seq(&shared->remove_done[at], now[at]);
            now[at] = step;
        } else {
            CHECK(
                rc_registry_remove(&shared->registry, volatile_key(at)) == &shared->made[now[at]]
            );
            rc_u64_store_seq(&shared->remove_done[at], now[at]);
            now[at] = 0;
        }
    }
}

static void run_readers(uint64_t steps, uint64_t keys)
{
    static shared_registry shared;
    pthread_t readers[READERS];
    memset(&shared, 0, sizeof shared);
    shared.steps = steps;
    shared.keys = keys;
    shared.made = calloc(steps + 1, sizeof *shared.made);
    CHECK(shared.made != NULL);
    CHECK(rc_registry_init(&shared.registry) == 0);
    for (uint64_t at = 0; at < STABLE; at++) {
        shared.stable[at].key = stable_key(at);
        CHECK(rc_registry_put(&shared.registry, stable_key(at), &shared.stable[at]) == 0);
    }
    /* even, as between two changes; it wraps soon */
    rc_u64_store(
        &atomic_load_explicit(&shared.registry.table, memory_order_relaxed)->version,
        UINT64_MAX - 2001
    );
    for (int at = 0; at < READERS; at++) readers[at] = thread_start(read_while_written, &shared);
    write_volatile(&shared);
    rc_u32_store(&shared.over, 1);
    for (int at = 0; at < READERS; at++) thread_join(readers[at]);
    /* where readers hardly came to run */
    CHECK(rc_u64_load(&shared.hits) > 0 || rc_u64_load(&shared.misses) < 100);
    rc_registry_destroy(&shared.registry);
    free(shared.made);
}

/* A hit beside a writer is what was registered for that very key during the call; find_locked
 * misses nothing. */
static void hits_are_right_beside_a_writer(void) { run_readers(60000, 12); }

/* The same in a table as small and as full as it gets, where each removal moves entries. */
static void hits_are_right_while_entries_move(void) { run_readers(60000, VOLATILE); }

/* The same while the table is replaced by larger ones, over and over. */
static void hits_are_right_while_it_grows(void)
{
    for (int round = 0; round < 100; round++) run_readers(100, VOLATILE);
}

typedef struct own_keys {
    rc_registry *registry;
    uint64_t first;
} own_keys;

static void *put_and_remove_own(void *argument)
{
    enum { KEYS = 100, ROUNDS = 60 };
    own_keys *mine = argument;
    static topic some;
    for (int round = 0; round < ROUNDS; round++) {
        for (uint64_t at = 0; at < KEYS; at++) {
            CHECK(rc_registry_put(mine->registry, mine->first + at, &some) == 0);
            CHECK(rc_registry_find_locked(mine->registry, mine->first + at) == &some);
        }
        for (uint64_t at = 0; at < KEYS; at++)
            CHECK(rc_registry_remove(mine->registry, mine->first + at) == &some);
    }
    return NULL;
}

/* Writers at once: each finds all of what it registered, and in the end nothing is left. */
static void writers_do_not_disturb_each_other(void)
{
    enum { WRITERS = 3 };
    rc_registry registry;
    own_keys keys[WRITERS];
    pthread_t writers[WRITERS];
    CHECK(rc_registry_init(&registry) == 0);
    for (uint64_t at = 0; at < WRITERS; at++) {
        keys[at] = (own_keys){&registry, 1 + 1000 * at};
        writers[at] = thread_start(put_and_remove_own, &keys[at]);
    }
    for (int at = 0; at < WRITERS; at++) thread_join(writers[at]);
    CHECK_EQUAL(count(&registry), 0);
    rc_registry_destroy(&registry);
}

int main(void)
{
    RUN(finds_what_was_put);
    RUN(takes_any_key);
    RUN(finds_nothing_while_a_writer_is_at_work);
    RUN(grows_and_keeps_all);
    RUN(replacing_does_not_grow);
    RUN(removal_closes_the_gap);
    RUN(agrees_with_a_plain_array);
    RUN(hits_are_right_beside_a_writer);
    RUN(hits_are_right_while_entries_move);
    RUN(hits_are_right_while_it_grows);
    RUN(writers_do_not_disturb_each_other);
    return 0;
}
