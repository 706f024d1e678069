/* Bearer tokens: who may use a worker. A token file has one token per line; empty lines and lines
 * that begin with '#' do not count.
 *
 * The file is kept as SHA-256 digests. A token that comes is digested, too, and compared with every
 * digest in constant time, so that the time of an answer tells nothing about the tokens. */
#ifndef TESSERA_SPLIT_TOKENS_H
#define TESSERA_SPLIT_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { TOKENS_MOST = 256, TOKEN_LEAST_BYTES = 16, TOKEN_MOST_BYTES = 512, TOKEN_DIGEST_BYTES = 32 };

/* A token's number is its place, which it keeps when the file is read again. */
struct tokens {
    int count;                 /* of places that were ever taken */
    bool revoked[TOKENS_MOST]; /* it is no longer in the file; the place is free */
    uint8_t digests[TOKENS_MOST][TOKEN_DIGEST_BYTES];
};

/* IO where the file cannot be read or everybody may read it; FORMAT where a line is no token (too
 * short, too long, or has blanks), or there is none. */
tessera_status tokens_read(const char *path, struct tokens *out, tessera_error *error);
/* `tokens` becomes what `read` (of tokens_read) has: those in both keep their numbers. Sets
 * *revoked and *added to how many went and came. */
void tokens_replace(struct tokens *tokens, const struct tokens *read, int *revoked, int *added);
/* The token's number, from the value of a header "Authorization: Bearer TOKEN"; -1: none of these
 * (`header` may be NULL). */
int tokens_find(const struct tokens *tokens, const char *header);
/* The first token of such a file, for a client: the caller frees. Errors as of tokens_read. */
tessera_status tokens_read_first(const char *path, char **out, tessera_error *error);

#endif
