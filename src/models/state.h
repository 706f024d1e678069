/* A block's state as a message: the one door by which it leaves a process, to the next stage of a
 * pipeline or to a worker.
 *
 *     head     64 bytes   "TDST", version, flags, the job's number, rows, columns, text_tokens, tensors, skips
 *     record   64 bytes   one per tensor: field, dtype, dimensions, how it comes, shape, bytes
 *     ...
 *     body     of each record in turn, from a multiple of 64 bytes on: the tensor's elements, or a digest in their place
 *
 * All numbers are little-endian. A message is complete: picture, text, text_mask, conditioning and
 * skips. What stays the same during a job (the text's mask, and the text where blocks only read it)
 * is a constant: it comes whole once, the receiver keeps it in the job's store, and later messages
 * name it by its SHA-256. The receiver derives what must come from its own model
 * (denoiser_state_expected). It compares every field with that, and the message's length with what
 * follows from it, before it reads or allocates anything. Tensors that are unpacked lie in the
 * message or in the store. `cut` does not travel: it is the receiver's own. */
#ifndef TESSERA_MODELS_STATE_H
#define TESSERA_MODELS_STATE_H

#include "models/denoiser.h"

enum { STATE_VERSION = 2, STATE_HEAD_BYTES = 64, STATE_RECORD_BYTES = 64, STATE_DIGEST_BYTES = 32 };

/* The fields in the order in which they travel; skip i is STATE_SKIPS + i. */
enum state_field { STATE_PICTURE, STATE_TEXT, STATE_TEXT_MASK, STATE_COND, STATE_SKIPS };

struct state_message {
    uint64_t job;
    bool skipped;                                     /* the sender left its blocks out (a step cache) */
    unsigned constants;                               /* bit f: field f is a constant */
    unsigned by_digest;                               /* bit f: field f is one that the receiver has: its digest goes in its place */
    uint8_t digests[STATE_SKIPS][STATE_DIGEST_BYTES]; /* of the constants */
};

/* ---- what must come ---- */

/* The form, without data, of the state that enters `block` of a model which is given inputs of
 * these forms: which fields there are, their types and shapes. Of its fields the picture, the text
 * and the conditioning are left out unless `carries` (DENOISER_CARRIES_*) has them; the mask comes
 * with the text. Skips: `maps` of those that come, bottom first. The run tells which tokens this
 * rank holds; an error sticks to it. in->latents and in->text need shapes only. */
struct denoiser_state denoiser_state_expected(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *in, int block,
                                              unsigned carries, const struct denoiser_map *maps, int num_maps);
/* The fields of its states that stay the same during a job, as bits. */
unsigned denoiser_state_constants(const struct denoiser *denoiser);

/* ---- constants that have come ---- */

/* More than this many constants are nobody's job: predictions, each alone and both together, of
 * text and mask. */
enum { STATE_STORE_MOST = 8 };
struct state_constant {
    uint8_t digest[STATE_DIGEST_BYTES];
    size_t bytes;
    void *data; /* in the backend's memory, owned */
};
/* The constants of one job. */
struct state_store {
    struct backend *backend; /* borrowed: whose memory they are kept in */
    int count;
    struct state_constant constants[STATE_STORE_MOST];
};
/* Of this digest and length, or NULL. */
const void *state_store_find(const struct state_store *store, const uint8_t digest[STATE_DIGEST_BYTES], size_t bytes);
void state_store_close(struct state_store *store); /* zeros are fine */

/* ---- messages ---- */

/* How long the message of such a state is; 0 where that passes all bounds. Tensors need dtype, ndim
 * and shape; ndim 0 is empty. */
size_t denoiser_state_bytes(const struct denoiser_state *state, unsigned by_digest);
/* Writes the state to `out` [denoiser_state_bytes] of host memory, each element once. Tensors lie
 * in the host's memory or in the backend's (NULL: the host's). Of constants that travel whole the
 * digests come into the message. Errors: the backend's. */
tessera_status denoiser_state_pack(const struct denoiser_state *state, struct state_message *message, struct backend *backend, uint8_t *out,
                                   tessera_error *error);
/* Do these first bytes of something begin such a message? */
bool denoiser_state_begins(const uint8_t *bytes, size_t size);
/* Compares the head and those records that lie within the first `size` bytes of a message with the
 * state as it must be; message->job and message->constants as in unpacking. Allocates nothing.
 * FORMAT, naming the first field that differs; OK where none does. */
tessera_status denoiser_state_check(const uint8_t *bytes, size_t size, const struct denoiser_state *expected,
                                    const struct state_message *message, tessera_error *error);
/* Reads a message of `size` bytes, in which the state's tensors then lie (bytes must be aligned to
 * 64), or in the store, which also takes new constants in. `expected`: the state as it must be;
 * message->job and message->constants as they must be, the rest is set. Errors: FORMAT, naming the
 * field, also where a number is not finite; MEMORY. */
tessera_status denoiser_state_unpack(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, struct state_store *store,
                                     struct denoiser_state *out, struct state_message *message, tessera_error *error);

#endif
