/* A part that computes: from the message of one state to the message of another. What a worker does
 * with a request, a client that checks one, and a judge.
 *
 *     request --check--> state --blocks first .. end - 1 (--finish)--> state --pack--> answer
 *
 * One call at a time per part: the backend's threads are busy with it. */
#ifndef TESSERA_SPLIT_PART_H
#define TESSERA_SPLIT_PART_H

#include "split/manifest.h"

struct split_part;

struct split_part_options {
    tessera_kernels kernels; /* TESSERA_KERNELS_REPRODUCIBLE where bits are to be compared */
    enum dtype dtype;        /* of activations: DTYPE_F32 or DTYPE_BF16; both sides of a job must have the same */
    int threads;             /* 0: all */
    bool streamed;           /* a block's weights are read when it is computed, and dropped after it; else all are read on opening */
    bool known_digest;       /* of a model's folder: the digest may come from an earlier time, if no file has changed since (known_digests.h) */
    const struct manifest *manifest; /* that must list the part; or NULL */
    struct split_limits limits;      /* zeros: the defaults */
};

/* A part file, or the range of a model's folder. Errors: part_file.h's; FORMAT where the manifest
 * does not list it. */
tessera_status split_part_open(const char *path, const struct split_part_options *options, struct split_part **out, tessera_error *error);
tessera_status split_part_open_model(const char *folder, const struct split_range *range, const struct split_part_options *options,
                                     struct split_part **out, tessera_error *error);
/* The same part by other kernels, with the weights that `part` has open: their digest is known, and
 * computed once. The two compute in turns, and this one is closed first. */
tessera_status split_part_open_with(struct split_part *part, tessera_kernels kernels, struct split_part **out, tessera_error *error);
void split_part_close(struct split_part *part); /* NULL is fine */

const struct part_header *split_part_header(const struct split_part *part); /* class, configuration, range, digest */
const struct denoiser *split_part_denoiser(const struct split_part *part);
struct run *split_part_run_of(struct split_part *part); /* its backend and type; for the forms of range.h */
/* What its answers are computed by, as it is signed: "tessera-split-1 reproducible bf16",
 * "tessera-split-1 fast f32". Answers of "fast" specifications differ between machines by rounding:
 * no equality of bits may be asked of them. */
#define SPLIT_SPECIFICATION_CHARS 64
const char *split_part_specification(const struct split_part *part);

/* An empty store for the constants of one job (models/state.h): they are kept until
 * state_store_close, which comes before the part's end. */
struct state_store split_part_store(struct split_part *part);
/* The length of the request that begins with these bytes, once SPLIT_HEAD_BYTES of it are there (a
 * shorter message: all of it); who receives it allocates that much, and no more. FORMAT naming the
 * field where it is none for this part, or passes the limits. Allocates nothing, and may be called
 * while the part computes. */
tessera_status split_part_request_bytes(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job, size_t *whole,
                                        tessera_error *error);
/* Which constants (bits of enum state_field) a request, which is all there, names by digests that
 * the store has not: they must be sent whole. 0 where none is missing. Errors as above. */
tessera_status split_part_missing(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job, const struct state_store *store,
                                  unsigned *missing, tessera_error *error);

struct split_request {
    const uint8_t *bytes; /* the message, aligned to 64; not changed */
    size_t size;
    uint64_t job;              /* that its head must name: split_job_number of the nonce */
    struct state_store *store; /* of the job */
    bool block_hashes;         /* also the hash of the state after each block */
    /* NULL: the whole part; else these blocks of it alone, and `bytes` is the state as it stands
     * within the part before them (split_state_form): one block of a dispute. */
    const struct split_range *only;
    void (*between)(void *user); /* after each block; or NULL */
    void *user;
};
/* The state that a request holds, in its bytes and in the store, which keeps its constants. Errors:
 * FORMAT naming the field; MEMORY. */
tessera_status split_part_read(struct split_part *part, const struct split_request *request, struct denoiser_state *state,
                               tessera_error *error);

struct split_answer {
    uint8_t *bytes; /* the message, aligned to 64; owned */
    size_t size;
    uint8_t input_hash[CANONICAL_HASH_BYTES], output_hash[CANONICAL_HASH_BYTES]; /* split_state_hash */
    /* block_hashes: [num_hashes], owned: of the state after each block, as if the part ended there,
     * and with `finish` of the prediction; the last is output_hash. */
    uint8_t (*hashes)[CANONICAL_HASH_BYTES];
    int num_hashes;
};
/* Errors: FORMAT naming the field where the request is wrong, also where a number is not finite, or
 * the result is not; MEMORY. Then the answer is empty; otherwise it is the caller's to free. */
tessera_status split_part_compute(struct split_part *part, const struct split_request *request, struct split_answer *answer,
                                  tessera_error *error);
void split_answer_free(struct split_answer *answer);

/* The number in the messages' heads of a job with this nonce: its first 8 bytes, little-endian. */
enum { SPLIT_NONCE_BYTES = 32 };
uint64_t split_job_number(const uint8_t nonce[SPLIT_NONCE_BYTES]);

#endif
