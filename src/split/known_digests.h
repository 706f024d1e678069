/* Digests of a model's parts that a client has computed before, so that its next job does not read
 * all weights again for them.
 *
 *     part-digests.json in the cache folder (base/cache.h)     { KEY: DIGEST, ... }, both in hexadecimal digits
 *
 * The key is a hash over the range, and of each file in the denoiser's folder over its name,
 * device, number, length, and the times when it and its entry were changed last: no program can set
 * the latter back. A client takes from here what it knows of its own files alone. Workers, the
 * factory and judges compute. */
#ifndef TESSERA_SPLIT_KNOWN_DIGESTS_H
#define TESSERA_SPLIT_KNOWN_DIGESTS_H

#include "split/range.h"

enum { KNOWN_KEY_CHARS = 2 * CANONICAL_HASH_BYTES + 1 };

/* Taken before the weights are read, and again after, when it must be the same. False where the
 * folder cannot be read, or has a file that was changed in the last seconds: another change at the
 * same tick of the clock would not show. */
bool known_digest_key(const char *folder, const struct split_range *range, char out[KNOWN_KEY_CHARS]);
bool known_digest_find(const char *key, uint8_t out[CANONICAL_HASH_BYTES]);
void known_digest_keep(const char *key, const uint8_t digest[CANONICAL_HASH_BYTES]);

#endif
