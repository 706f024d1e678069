/* The list of a split model's parts, signed by its owner: JSON.
 *
 *     {"specification": "tessera-split-1", "model": "...", "class": "...", "configuration": "...", "blocks": 24,
 *      "parts": [{"file": "sd3-1-of-2.safetensors", "first": 1, "last": 11, "has_last_block": false, "bytes": 123, "digest": "<64 hex>"}, ...],
 *      "public_key": "<base64 of SubjectPublicKeyInfo>", "signature": "<base64>"}
 *
 * The signature (Ed25519) is over the SHA-256 of these bytes (canonical.h), not over the JSON:
 *
 *     "tessera-manifest-1\0", text specification, model, class, configuration, u32 blocks, u32 parts, and for each part:
 *         text file, u32 first, last, has_last_block, u64 bytes, digest
 *
 * It is the owner's word only where the reader knows the owner's pin: who has none learns that the
 * file is whole, not from whom it is. */
#ifndef TESSERA_SPLIT_MANIFEST_H
#define TESSERA_SPLIT_MANIFEST_H

#include "split/identity.h"
#include "split/part_file.h"

enum { MANIFEST_MOST_PARTS = 1024, MANIFEST_MOST_BYTES = 4 << 20 };

struct manifest_part {
    char *file; /* owned; a plain name beside the manifest */
    struct split_range range;
    uint64_t bytes;
    uint8_t digest[CANONICAL_HASH_BYTES];
};
struct manifest {
    char *model, *class_name, *configuration; /* owned */
    int blocks, count;
    struct manifest_part *parts; /* [count], in the order of the blocks, without overlap; owned */
    struct identity_public owner;
    uint8_t signature[IDENTITY_SIGNATURE_BYTES];
};

/* Reads a manifest, checks every field and the signature. `pin`: of the owner, or NULL where any
 * will do. FORMAT naming file and field; FORMAT, too, where the signature or the pin does not fit.
 * manifest_free either way. */
tessera_status manifest_open(const char *path, const char *pin, struct manifest *out, tessera_error *error);
/* The same over bytes; `name` stands for the file in messages. */
tessera_status manifest_parse(const char *name, const char *text, size_t length, const char *pin, struct manifest *out,
                              tessera_error *error);
/* Signs it and writes it to `path`. */
tessera_status manifest_write(struct manifest *manifest, const struct identity *owner, const char *path, tessera_error *error);
void manifest_free(struct manifest *manifest); /* zeros are fine */

/* The entry of a part with this content; NULL where there is none. Class, configuration and range
 * are part of the digest. */
const struct manifest_part *manifest_find(const struct manifest *manifest, const uint8_t digest[CANONICAL_HASH_BYTES]);

#endif
