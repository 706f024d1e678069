/* Texts of a job's later requests, which an encoder reads while it is open for an earlier one. If
 * components do not stay open, each encoder is loaded once for many prompts instead of once for
 * each. The encoded texts stay in the host's memory until their request comes. */
#ifndef TESSERA_PIPELINES_TEXT_AHEAD_H
#define TESSERA_PIPELINES_TEXT_AHEAD_H

#include "pipelines/prompt_reading.h"

enum { TEXT_AHEAD_MOST = 64 };                /* requests */
#define TEXT_AHEAD_BYTES ((size_t)64 << 20)   /* kept at most */

struct kept_reading;

struct text_ahead {
    const tessera_request *requests[TEXT_AHEAD_MOST]; /* whose texts come next; only their words differ from the present request */
    int count;
    size_t room;               /* bytes that may be kept now */
    size_t bytes;              /* kept */
    struct kept_reading *kept; /* a list */
};

/* Moves what `encoder` made of the request's texts into run->arena; *found: there was something. */
tessera_status text_ahead_take(struct text_ahead *ahead, const char *encoder, const tessera_request *request, struct run *run,
                               struct prompt_reading *out, bool *found, tessera_error *error);
/* Whether there is something to take. */
bool text_ahead_has(const struct text_ahead *ahead, const char *encoder, const tessera_request *request);
/* Whether another reading of this size may be kept. */
bool text_ahead_has_room(const struct text_ahead *ahead, struct prompt_reading reading);
/* Keeps a copy of `reading`. MEMORY. */
tessera_status text_ahead_keep(struct text_ahead *ahead, const char *encoder, const tessera_request *request, struct run *run,
                               const struct prompt_reading *reading, tessera_error *error);
/* Zeros are allowed. */
void text_ahead_free(struct text_ahead *ahead);

#endif
