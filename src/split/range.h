/* Which blocks of a denoiser go together, and what of the state crosses their borders.
 *
 *     skips on the stack   a b c d          a b | d'           the part of blocks first .. end - 1 takes c and d, and leaves d'
 *                          ---------- part ---------->
 *     sent to the part         c d           d'  comes back
 *
 * A message to a part holds the picture, the text, its mask, the conditioning and those skips that
 * its blocks take: the top of the stack. Its answer holds what blocks change: the picture, the text
 * where blocks change it, and the skips that its blocks leave. With `finish` the answer holds the
 * prediction in the picture's place, F32 [B, H, W, out_channels], and nothing else. All messages
 * are those of models/state.h.
 *
 * Client:  split_request_state -> denoiser_state_pack -> the worker -> split_answer_read ->
 * split_answer_merge */
#ifndef TESSERA_SPLIT_RANGE_H
#define TESSERA_SPLIT_RANGE_H

#include "models/state.h"
#include "split/canonical.h"

struct split_range {
    int first, end; /* blocks first .. end - 1 */
    bool finish;    /* and what follows the last block: the final norm and projection; end is num_blocks then */
};
/* ARGUMENT where a model of so many blocks has no such range. */
tessera_status split_range_check(const struct split_range *range, int num_blocks, tessera_error *error);

/* What differs between the states of one model: everything else follows from its configuration. */
struct split_shape {
    int64_t batch, rows, columns; /* of tokens (U-Nets: of latent places) */
    int64_t text_tokens;          /* of all of the text, with registers */
    bool text_mask;
};
enum { SPLIT_HEAD_BYTES = STATE_HEAD_BYTES + STATE_SKIPS * STATE_RECORD_BYTES };
/* What a process is willing to compute with. Zeros: the defaults. */
struct split_limits {
    int64_t batch;       /* default 8 */
    int64_t tokens;      /* rows * columns; default 65536 */
    int64_t text_tokens; /* default 2048 */
};

/* The shape that a message to a part says it has: the head and the records of picture, text and
 * mask are read, which lie in the first SPLIT_HEAD_BYTES; nothing is allocated. FORMAT naming the
 * field, also where it passes the limits (NULL: the defaults). Everything else of the message is
 * compared later, with what follows from the shape. */
tessera_status split_shape_read(const struct denoiser *denoiser, const uint8_t *bytes, size_t size, const struct split_limits *limits,
                                struct split_shape *out, tessera_error *error);
/* The shape of a state that this process holds. */
struct split_shape split_shape_of(const struct denoiser_state *state);

/* The form (without data) of the state within a part where `block` begins: range->first: the
 * message to the part; a later block: with the skips that the part holds there. The run says the
 * type of activations; errors stick to it. denoiser_state_bytes(&form, 0) is the length of the
 * message where all constants come whole. */
struct denoiser_state split_state_form(const struct denoiser *denoiser, struct run *run, const struct split_range *range, int block,
                                       const struct split_shape *shape);
/* Of the answer after the part's block end - 1, and with `finish` after what follows the last block. */
struct denoiser_state split_answer_form(const struct denoiser *denoiser, struct run *run, const struct split_range *range, int end,
                                        bool finish, const struct split_shape *shape);

/* The fields of `state` (which enters the range) that are sent to the part; the same memory. */
struct denoiser_state split_request_state(const struct denoiser *denoiser, const struct split_range *range,
                                          const struct denoiser_state *state);
/* Empties what no block from `block` on looks at: the text behind the last block that reads it. */
void split_state_trim(const struct denoiser *denoiser, int block, struct denoiser_state *state);
/* The fields of a part's state that its answer holds; the same memory. */
struct denoiser_state split_answer_state(const struct denoiser *denoiser, const struct denoiser_state *state);
/* The prediction in place of the last block's state: the rest is gone. */
struct denoiser_state split_finished_state(const struct denoiser_state *state, struct tensor prediction);
/* Reads a part's answer, whose tensors then lie in `bytes` (aligned to 64). `job`: the number of
 * the request. FORMAT naming the field, also where a number is not finite. */
tessera_status split_answer_read(const struct denoiser *denoiser, struct run *run, const struct split_range *range,
                                 const struct split_shape *shape, uint64_t job, const uint8_t *bytes, size_t size,
                                 struct denoiser_state *out, tessera_error *error);
/* `state`, which entered the range, becomes the one that leaves it: the same memory but for what
 * the answer brings. With range->finish it is split_finished_state. */
void split_answer_merge(const struct denoiser *denoiser, const struct split_range *range, struct denoiser_state *state,
                        const struct denoiser_state *answer);

/* The same within a part: `state`, which entered it, becomes the one before block `end`, with the
 * skips that the part holds there. */
void split_answer_merge_within(const struct denoiser *denoiser, int end, struct denoiser_state *state, const struct denoiser_state *answer);

/* SHA-256 of a state, by which both sides name it: of what a part's message holds
 * (split_request_state), however its constants travelled, and after the part of the same fields
 * with what the answer brought (split_answer_merge of that state). Tensors in the order of
 * models/state.h, in canonical.h's bytes:
 *
 *     "tessera-state-1\0", u64 rows, columns, text_tokens, u32 tensors, skips
 *     for each tensor:  u32 field, dtype, ndim, u64 shape[ndim], SHA-256 of its bytes
 *
 * Tensors lie in the host's memory. */
void split_state_hash(const struct denoiser_state *state, uint8_t out[CANONICAL_HASH_BYTES]);

#endif
