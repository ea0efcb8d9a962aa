#include "rc_registry.h"

#include "rc_memory.h"

enum { SMALLEST = 8 };

static rc_table *new_table(uint64_t capacity, rc_table *replaced)
{
    rc_table *table = rc_zalloc(sizeof(rc_table) + capacity * sizeof(rc_entry));
    unsigned bits = 0;
    if (table == NULL) return NULL;
    while ((UINT64_C(1) << bits) < capacity) bits++;
    table->replaced = replaced;
    table->mask = capacity - 1;
    table->shift = 64 - bits;
    return table;
}

int rc_registry_init(rc_registry *registry)
{
    rc_table *table = new_table(SMALLEST, NULL);
    if (table == NULL) return -1;
    if (rc_mutex_init(&registry->writers) != 0) {
        rc_free(table);
        return -1;
    }
    atomic_init(&registry->table, table);
    return 0;
}

void rc_registry_destroy(rc_registry *registry)
{
    rc_table *table = atomic_load_explicit(&registry->table, memory_order_relaxed);
    while (table != NULL) {
        rc_table *replaced = table->replaced;
        rc_free(table);
        table = replaced;
    }
    rc_mutex_destroy(&registry->writers);
}

/* The functions below run under the writers' mutex: relaxed loads see the last writer's stores. */

static uint64_t key_at(const rc_table *table, uint64_t at)
{
    return atomic_load_explicit(&table->entries[at].key, memory_order_relaxed);
}

static void *value_at(const rc_table *table, uint64_t at)
{
    return atomic_load_explicit(&table->entries[at].value, memory_order_relaxed);
}

/* Where `key` stands, or the empty entry where it would. */
static uint64_t probe(const rc_table *table, uint64_t key)
{
    uint64_t at = rc_registry_hash(table, key);
    while (key_at(table, at) != key && key_at(table, at) != 0) at = (at + 1) & table->mask;
    return at;
}

static void set_entry(rc_table *table, uint64_t at, uint64_t key, void *value)
{
    /* release: a reader that sees one of these sees the odd version before it */
    atomic_store_explicit(&table->entries[at].value, value, memory_order_release);
    atomic_store_explicit(&table->entries[at].key, key, memory_order_release);
}

static void begin_change(rc_table *table)
{
    uint64_t version = atomic_load_explicit(&table->version, memory_order_relaxed);
    /* relaxed: the release stores of set_entry carry it to the readers */
    atomic_store_explicit(&table->version, version + 1, memory_order_relaxed);
}

static void end_change(rc_table *table)
{
    uint64_t version = atomic_load_explicit(&table->version, memory_order_relaxed);
    /* release: a reader that starts with this version sees all entries of the change */
    atomic_store_explicit(&table->version, version + 1, memory_order_release);
}

static rc_table *live_table(rc_registry *registry)
{
    return atomic_load_explicit(&registry->table, memory_order_relaxed);
}

static rc_table *grow(rc_registry *registry)
{
    rc_table *old = live_table(registry);
    rc_table *table = new_table((old->mask + 1) * 2, old);
    if (table == NULL) return NULL;
    for (uint64_t at = 0; at <= old->mask; at++)
        if (key_at(old, at) != 0)
            set_entry(table, probe(table, key_at(old, at)), key_at(old, at), value_at(old, at));
    table->count = old->count;
    /* release: pairs with the acquire in rc_registry_find */
    atomic_store_explicit(&registry->table, table, memory_order_release);
    return table;
}

int rc_registry_put(rc_registry *registry, uint64_t key, void *value)
{
    rc_table *table;
    uint64_t at;
    assert(key != 0 && value != NULL);
    rc_mutex_lock(&registry->writers);
    table = live_table(registry);
    at = probe(table, key);
    /* at most half full: short probes */
    if (key_at(table, at) == 0 && (table->count + 1) * 2 > table->mask + 1) {
        table = grow(registry);
        if (table == NULL) {
            rc_mutex_unlock(&registry->writers);
            return -1;
        }
        at = probe(table, key);
    }
    if (key_at(table, at) == 0) table->count++;
    begin_change(table);
    set_entry(table, at, key, value);
    end_change(table);
    rc_mutex_unlock(&registry->writers);
    return 0;
}

/* Empties entry `hole` and moves later ones of its run up, so that no probe ends too early
 * (Knuth 6.4, algorithm R). */
static void close_gap(rc_table *table, uint64_t hole)
{
    for (uint64_t at = (hole + 1) & table->mask; key_at(table, at) != 0;
         at = (at + 1) & table->mask) {
        uint64_t home = rc_registry_hash(table, key_at(table, at));
        /* its home lies behind the hole */
        if (((at - home) & table->mask) < ((at - hole) & table->mask)) continue;
        set_entry(table, hole, key_at(table, at), value_at(table, at));
        hole = at;
    }
    set_entry(table, hole, 0, NULL);
}

void *rc_registry_remove(rc_registry *registry, uint64_t key)
{
    rc_table *table;
    uint64_t at;
    void *value = NULL;
    assert(key != 0);
    rc_mutex_lock(&registry->writers);
    table = live_table(registry);
    at = probe(table, key);
    if (key_at(table, at) == key) {
        value = value_at(table, at);
        begin_change(table);
        close_gap(table, at);
        end_change(table);
        table->count--;
    }
    rc_mutex_unlock(&registry->writers);
    return value;
}

void *rc_registry_find_locked(rc_registry *registry, uint64_t key)
{
    rc_table *table;
    void *value;
    rc_mutex_lock(&registry->writers);
    table = live_table(registry);
    value = value_at(table, probe(table, key)); /* an empty entry's value is NULL */
    rc_mutex_unlock(&registry->writers);
    return value;
}
