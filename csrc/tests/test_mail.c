/* rc_mail: what waits, what is dropped, and how many are missing between two. */
#define _GNU_SOURCE
#include "../rc_mail.h"
#include "check.h"

static void *event(uint64_t number) { return (void *)(uintptr_t)number; }

static uint64_t put(rc_mail *mail, uint64_t number, int keep_newest)
{
    return (uint64_t)(uintptr_t)rc_mail_put(mail, event(number), keep_newest);
}

/* Takes an event and checks how many were dropped before it. */
static void takes(rc_mail *mail, uint64_t number, uint64_t missed)
{
    uint64_t got_missed = 99;
    CHECK_EQUAL((uintptr_t)rc_mail_take(mail, &got_missed), number);
    CHECK_EQUAL(got_missed, missed);
}

static void mail_open(rc_mail *mail, uint64_t most) { CHECK(rc_mail_init(mail, most) == 0); }

static void mail_close(rc_mail *mail)
{
    uint64_t missed;
    CHECK(rc_mail_take(mail, &missed) == NULL);
    CHECK_EQUAL(rc_mail_size(mail), 0);
    rc_mail_destroy(mail);
}

static void keeps_the_order_while_there_is_room(void)
{
    rc_mail mail;
    mail_open(&mail, 1000);
    /* grows in the first lap, wraps around in the others */
    for (uint64_t lap = 0; lap < 3; lap++) {
        for (uint64_t number = 1; number <= 700; number++) CHECK_EQUAL(put(&mail, number, 1), 0);
        CHECK_EQUAL(rc_mail_size(&mail), 700);
        for (uint64_t number = 1; number <= 700; number++) takes(&mail, number, 0);
    }
    mail_close(&mail);
}

static void full_it_drops_the_oldest(void)
{
    rc_mail mail;
    mail_open(&mail, 3);
    for (uint64_t number = 1; number <= 3; number++) CHECK_EQUAL(put(&mail, number, 1), 0);
    CHECK_EQUAL(put(&mail, 4, 1), 1);
    CHECK_EQUAL(put(&mail, 5, 1), 2);
    takes(&mail, 3, 2);
    takes(&mail, 4, 0);
    CHECK_EQUAL(put(&mail, 6, 1), 0);
    takes(&mail, 5, 0);
    takes(&mail, 6, 0);
    mail_close(&mail);
}

static void full_it_drops_the_newest(void)
{
    rc_mail mail;
    mail_open(&mail, 2);
    CHECK_EQUAL(put(&mail, 1, 0), 0);
    CHECK_EQUAL(put(&mail, 2, 0), 0);
    CHECK_EQUAL(put(&mail, 3, 0), 3);
    CHECK_EQUAL(put(&mail, 4, 0), 4);
    takes(&mail, 1, 0);
    CHECK_EQUAL(put(&mail, 5, 0), 0);
    takes(&mail, 2, 0);
    takes(&mail, 5, 2); /* 3 and 4 are missing before it, and not before 2 */
    mail_close(&mail);
}

static void keeps_only_the_latest(void)
{
    rc_mail mail;
    mail_open(&mail, 1);
    CHECK_EQUAL(put(&mail, 1, 1), 0);
    for (uint64_t number = 2; number <= 10; number++)
        CHECK_EQUAL(put(&mail, number, 1), number - 1);
    takes(&mail, 10, 9);
    CHECK_EQUAL(put(&mail, 11, 1), 0);
    takes(&mail, 11, 0);
    mail_close(&mail);
}

/* Whatever is put, dropped and taken: every event is accounted for, once, and in order. */
static void accounts_for_every_event(void)
{
    uint64_t state = 42;
    for (int round = 0; round < 200; round++) {
        rc_mail mail;
        uint64_t most = 1 + next_random(&state) % 20, taken = 0, dropped = 0, missed_in_all = 0,
                 last = 0;
        int keep_newest = round % 2;
        mail_open(&mail, most);
        for (uint64_t number = 1; number <= 500; number++) {
            dropped += put(&mail, number, keep_newest) != 0;
            CHECK(rc_mail_size(&mail) <= most);
            while (next_random(&state) % 3 == 0) {
                uint64_t missed = 0, got = (uintptr_t)rc_mail_take(&mail, &missed);
                if (got == 0) break;
                CHECK_EQUAL(got, last + missed + 1);
                last = got;
                taken++;
                missed_in_all += missed;
            }
        }
        CHECK_EQUAL(taken + dropped + rc_mail_size(&mail), 500);
        for (uint64_t missed = 0, got; (got = (uintptr_t)rc_mail_take(&mail, &missed)) != 0;
             last = got) {
            CHECK_EQUAL(got, last + missed + 1);
            missed_in_all += missed;
        }
        CHECK_EQUAL(missed_in_all + mail.missed, dropped);
        mail_close(&mail);
    }
}

int main(void)
{
    RUN(keeps_the_order_while_there_is_room);
    RUN(full_it_drops_the_oldest);
    RUN(full_it_drops_the_newest);
    RUN(keeps_only_the_latest);
    RUN(accounts_for_every_event);
    return 0;
}
