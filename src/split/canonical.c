/* See canonical.h. libcrypto's functions that keep their state with the caller cannot fail, unlike
 * its newer ones; they are named so since 3.0. */
#define OPENSSL_API_COMPAT 0x10100000L
#include "split/canonical.h"

#include <string.h>

#include "base/little_endian.h"

void canonical_begin(struct canonical *c, const char *name) {
    SHA256_Init(&c->sha);
    canonical_bytes(c, name, strlen(name) + 1);
}

void canonical_bytes(struct canonical *c, const void *data, size_t bytes) {
    SHA256_Update(&c->sha, data, bytes);
}

static void number(struct canonical *c, uint64_t value, int bytes) {
    uint8_t little[8];
    little_endian_put(little, value, bytes);
    canonical_bytes(c, little, (size_t)bytes);
}

void canonical_u32(struct canonical *c, uint32_t value) {
    number(c, value, 4);
}

void canonical_u64(struct canonical *c, uint64_t value) {
    number(c, value, 8);
}

void canonical_text(struct canonical *c, const char *text) {
    size_t length = strlen(text);
    canonical_u32(c, (uint32_t)length);
    canonical_bytes(c, text, length);
}

void canonical_end(struct canonical *c, uint8_t out[CANONICAL_HASH_BYTES]) {
    SHA256_Final(out, &c->sha);
}

void canonical_hash(const void *data, size_t bytes, uint8_t out[CANONICAL_HASH_BYTES]) {
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, data, bytes);
    SHA256_Final(out, &sha);
}
