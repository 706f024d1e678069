/* Hashes over fields, each of which is written in one way only: what digests and signatures of this
 * room are over.
 *
 *     u32, u64     little-endian
 *     text         a u32 length, and that many bytes
 *     a name       of what follows, such as "tessera-reply-1", and a 0 byte: bytes of one kind never pass for another's
 *
 * The hash is SHA-256. */
#ifndef TESSERA_SPLIT_CANONICAL_H
#define TESSERA_SPLIT_CANONICAL_H

#include <stdint.h>

#include <openssl/sha.h>

enum { CANONICAL_HASH_BYTES = 32 };

struct canonical {
    SHA256_CTX sha;
};

void canonical_begin(struct canonical *c, const char *name);
void canonical_bytes(struct canonical *c, const void *data, size_t bytes);
void canonical_u32(struct canonical *c, uint32_t value);
void canonical_u64(struct canonical *c, uint64_t value);
void canonical_text(struct canonical *c, const char *text);
void canonical_end(struct canonical *c, uint8_t out[CANONICAL_HASH_BYTES]);

/* SHA-256 of some bytes as they are. */
void canonical_hash(const void *data, size_t bytes, uint8_t out[CANONICAL_HASH_BYTES]);

#endif
