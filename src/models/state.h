/* A block's state as a message: the one door by which it leaves a process.
 *
 *     head     64 bytes   "TDST", version, flags, the job's number, rows, columns, text_tokens, tensors, skips
 *     record   64 bytes   one per tensor: field, dtype, dimensions, by_digest, shape, bytes
 *     ...
 *     body     of each record in turn, from a multiple of 64 bytes on: the tensor's elements, or the digest in their place
 *
 * All numbers are little-endian. A message is complete: picture, text, text_mask, conditioning and skips. What stays the same during a job
 * may be sent once: later messages name it by its SHA-256. The receiver says what it expects, which its model knows from its own blocks;
 * every field is compared with that, and the message's length with what follows from it, before anything is read or allocated. Tensors
 * that are unpacked lie in the message. `cut` does not travel: it is the receiver's own. */
#ifndef TESSERA_MODELS_STATE_H
#define TESSERA_MODELS_STATE_H

#include "models/denoiser.h"

enum { STATE_VERSION = 1, STATE_HEAD_BYTES = 64, STATE_DIGEST_BYTES = 32 };

/* The fields in the order in which they travel; skip i is STATE_SKIPS + i. */
enum state_field { STATE_PICTURE, STATE_TEXT, STATE_TEXT_MASK, STATE_COND, STATE_SKIPS };

struct state_message {
    uint64_t job;
    bool skipped;       /* the sender left its blocks out (a step cache) */
    unsigned by_digest; /* bit f: field f (below STATE_SKIPS) travels as its digest */
};

/* Where tensors that were sent once are kept: of this digest and length, or NULL. */
struct state_store {
    const void *(*find)(void *user, const uint8_t digest[STATE_DIGEST_BYTES], size_t bytes);
    void *user;
};

/* How long the message of such a state is; 0 where that passes all bounds. Tensors need dtype, ndim and shape; ndim 0 is empty. */
size_t denoiser_state_bytes(const struct denoiser_state *state, unsigned by_digest);
/* Writes the state, whose tensors lie in the host's memory, to `out` [denoiser_state_bytes]. */
void denoiser_state_pack(const struct denoiser_state *state, const struct state_message *message, uint8_t *out);
/* Reads a message of `size` bytes, which the state's tensors then lie in (bytes must be aligned to 64), or in the store (which may be NULL
 * if nothing comes by digest). `expected`: the state as it must be, with or without data. Errors: FORMAT, naming the field. */
tessera_status denoiser_state_unpack(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, const struct state_store *store,
                                     struct denoiser_state *out, struct state_message *message, tessera_error *error);
void denoiser_state_digest(const void *data, size_t bytes, uint8_t digest[STATE_DIGEST_BYTES]);

#endif
