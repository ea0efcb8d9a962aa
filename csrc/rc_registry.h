/* The registry: from a key (the address of an event's class, or a type id) to its topic.
 *
 * An open-addressing hash table that readers use without a lock. Writers hold a mutex and mark the
 * table as changing by an odd version (a seqlock); a reader that meets an odd or a changed version
 * reports a miss, and its caller asks again with rc_registry_find_locked.
 *
 * Reclamation. A reader may still be probing a table that has been replaced, so a replaced table is
 * kept until rc_registry_destroy. Tables are replaced only to double, hence all the kept ones
 * together are smaller than the live one. That is why entries are added and removed in place: a
 * table copied for every change could only be freed with the readers' help, which costs each of
 * them a fence for each event.
 *
 * Invariant: a find that returns a value returns one that was registered for that very key at some
 * moment during the call.
 */
#ifndef RC_REGISTRY_H
#define RC_REGISTRY_H

#include "rc_atomic.h"
#include "rc_mutex.h"

typedef struct rc_entry {
    rc_u64 key; /* 0: empty */
    _Atomic(void *) value;
} rc_entry;

typedef struct rc_table {
    rc_u64 version;            /* odd while a writer changes entries */
    struct rc_table *replaced; /* the smaller table before this one */
    uint64_t mask;
    unsigned shift; /* the hash is the product's upper bits */
    uint64_t count;
    rc_entry entries[];
} rc_table;

typedef struct rc_registry {
    _Atomic(rc_table *) table;
    rc_mutex writers;
} rc_registry;

/* Returns 0, or -1 when there is no memory. */
int rc_registry_init(rc_registry *registry);

/* The caller makes sure that no other thread uses the registry. */
void rc_registry_destroy(rc_registry *registry);

/* Registers `value` (not NULL) for `key` (not 0) in place of what was there.
 * Any thread, blocking. Returns 0, or -1 when there is no memory: nothing has changed then. */
int rc_registry_put(rc_registry *registry, uint64_t key, void *value);

/* Removes `key`. Any thread, blocking. Returns its value, or NULL when there was none. */
void *rc_registry_remove(rc_registry *registry, uint64_t key);

/* The value of `key` or NULL. Any thread, blocking, never misses. */
void *rc_registry_find_locked(rc_registry *registry, uint64_t key);

static inline uint64_t rc_registry_hash(const rc_table *table, uint64_t key)
{
    return key * UINT64_C(0x9E3779B97F4A7C15) >> table->shift; /* Fibonacci hashing, Knuth 6.4 */
}

/* The value of `key`, or NULL: not registered, or a writer is at work.
 * Any thread; takes no lock; wait-free while no writer is at work. */
static inline void *rc_registry_find(const rc_registry *registry, uint64_t key)
{
    /* acquire: pairs with the release in grow(), the table's contents are there */
    const rc_table *table = atomic_load_explicit(&registry->table, memory_order_acquire);
    /* acquire: the entries read below are not older than this version */
    uint64_t version = atomic_load_explicit(&table->version, memory_order_acquire);
    uint64_t at = rc_registry_hash(table, key);
    uint64_t found;
    void *value = NULL;
    /* acquire on both fields: whoever sees a writer's entry sees the odd version that came before
     * it */
    while ((found = atomic_load_explicit(&table->entries[at].key, memory_order_acquire)) != key &&
           found != 0)
        at = (at + 1) & table->mask;
    if (found == key) value = atomic_load_explicit(&table->entries[at].value, memory_order_acquire);
    if ((version & 1) || atomic_load_explicit(&table->version, memory_order_relaxed) != version)
        return NULL;
    return value;
}

#endif
