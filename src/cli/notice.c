/* See notice.h. */
#include "cli/notice.h"

#include <stdio.h>

#include "base/text.h"
#include "cli/progress.h"

/* FNV-1a. */
static unsigned long long digest_of(const char *text) {
    unsigned long long digest = 0xCBF29CE484222325u;
    for (; *text != 0; text++) digest = (digest ^ (unsigned char)*text) * 0x100000001B3u;
    return digest;
}

void notice_print(void *user, const char *text) {
    struct notices *notices = user;
    unsigned long long digest = digest_of(text);
    for (int i = 0; i < notices->count; i++)
        if (notices->seen[i] == digest) return;
    if (notices->count < NOTICE_MOST) notices->seen[notices->count++] = digest;
    if (notices->progress != NULL) progress_clear(notices->progress);
    fputs("tessera: ", stderr);
    text_print(stderr, text);
    fputc('\n', stderr);
}
