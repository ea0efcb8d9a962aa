#include "rc_mail.h"

#include "rc_memory.h"

int rc_mail_init(rc_mail *mail, uint64_t most)
{
    memset(mail, 0, sizeof *mail);
    mail->most = most;
    return rc_mutex_init(&mail->mutex);
}

void rc_mail_destroy(rc_mail *mail)
{
    assert(mail->count == 0);
    rc_free(mail->letters);
    rc_mutex_destroy(&mail->mutex);
}

static rc_letter *letter_at(rc_mail *mail, uint64_t at)
{
    return &mail->letters[(mail->first + at) & (mail->room - 1)];
}

/* seq_cst: with rc_mail_size */
static void tell_size(rc_mail *mail)
{
    atomic_store_explicit(&mail->size, mail->count, memory_order_seq_cst);
}

/* Doubles the room. Returns 0 without memory. */
static int grow(rc_mail *mail)
{
    uint64_t room = mail->room ? 2 * mail->room : 8;
    rc_letter *letters = rc_zalloc(room * sizeof *letters);
    if (letters == NULL) return 0;
    for (uint64_t at = 0; at < mail->count; at++) letters[at] = *letter_at(mail, at);
    rc_free(mail->letters);
    mail->letters = letters;
    mail->first = 0;
    mail->room = room;
    return 1;
}

void *rc_mail_put(rc_mail *mail, void *event, int keep_newest)
{
    void *dropped = NULL;
    int full = mail->count >= mail->most || (mail->count == mail->room && !grow(mail));
    if (full && (!keep_newest || mail->count == 0)) {
        mail->missed++;
        return event;
    }
    if (full) {
        uint64_t missed;
        dropped = rc_mail_take(mail, &missed);
        if (mail->count > 0)
            letter_at(mail, 0)->missed += missed + 1;
        else
            mail->missed += missed + 1;
    }
    *letter_at(mail, mail->count) = (rc_letter){event, mail->missed};
    mail->missed = 0;
    mail->count++;
    tell_size(mail);
    return dropped;
}

void *rc_mail_take(rc_mail *mail, uint64_t *missed)
{
    rc_letter letter;
    if (mail->count == 0) return NULL;
    letter = *letter_at(mail, 0);
    mail->first = (mail->first + 1) & (mail->room - 1);
    mail->count--;
    tell_size(mail);
    *missed = letter.missed;
    return letter.event;
}
