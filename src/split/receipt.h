/* What a worker signs, and what convicts it.
 *
 * A reply's signature (Ed25519) is over the SHA-256 of these bytes (canonical.h):
 *
 *     "tessera-reply-1\0", text specification, part digest [32], job nonce [32], u32 step, u32 row, hash of the input [32], of the output [32]
 *
 * On demand a worker also signs the hashes of the state after each block (part.h). The same fields
 * again, then the hashes:
 *
 *     "tessera-blocks-1\0", ... as above ..., u32 hashes, each [32]
 *
 * Block k's signed hashes before and after it (the input's before the first one), the state before
 * it, and its weights are all that a judge needs: the block is computed again with reproducible
 * kernels. A receipt is a file of these:
 *
 *     {"receipt": "tessera-receipt-1", "specification": "tessera-split-1 reproducible f32", "part_digest": "<hex>",
 *      "first": 1, "last": 11, "has_last_block": false, "job": "<hex>", "step": 3, "row": 0, "input_hash": "<hex>", "output_hash": "<hex>",
 *      "public_key": "<base64>", "signature": "<base64>", "block_hashes": ["<hex>", ...], "blocks_signature": "<base64>",
 *      "block": 4, "state": "<base64 of the state before that block, as a message>"}
 *
 * "block" counts in the whole model; num_blocks stands for what follows the last one. Publishing a
 * receipt reveals that hidden state. */
#ifndef TESSERA_SPLIT_RECEIPT_H
#define TESSERA_SPLIT_RECEIPT_H

#include "split/part.h"

/* The fields of a signed reply. */
struct receipt_reply {
    char specification[SPLIT_SPECIFICATION_CHARS];
    uint8_t part_digest[CANONICAL_HASH_BYTES], job[SPLIT_NONCE_BYTES];
    uint32_t step, row; /* row: the number of the prediction, 0 where both travel together */
    uint8_t input_hash[CANONICAL_HASH_BYTES], output_hash[CANONICAL_HASH_BYTES];
};

tessera_status receipt_sign(const struct receipt_reply *reply, const struct identity *worker, uint8_t signature[IDENTITY_SIGNATURE_BYTES],
                            tessera_error *error);
bool receipt_verify(const struct receipt_reply *reply, const struct identity_public *worker,
                    const uint8_t signature[IDENTITY_SIGNATURE_BYTES]);
/* The same with the hashes after each block. */
tessera_status receipt_sign_blocks(const struct receipt_reply *reply, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], int count,
                                   const struct identity *worker, uint8_t signature[IDENTITY_SIGNATURE_BYTES], tessera_error *error);
bool receipt_verify_blocks(const struct receipt_reply *reply, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], int count,
                           const struct identity_public *worker, const uint8_t signature[IDENTITY_SIGNATURE_BYTES]);

enum { RECEIPT_MOST_HASHES = 1024, RECEIPT_MOST_BYTES = 256 << 20 };
struct receipt {
    struct receipt_reply reply;
    struct split_range range; /* of the part */
    struct identity_public worker;
    uint8_t signature[IDENTITY_SIGNATURE_BYTES], blocks_signature[IDENTITY_SIGNATURE_BYTES];
    uint8_t (*hashes)[CANONICAL_HASH_BYTES]; /* [count]: end - first, and one more with range.finish; owned */
    int count;
    int block; /* that differs; range.end for the finish */
    uint8_t
        *state; /* [state_bytes] the state within the part before that block, as a message: job 0, constants whole, aligned to 64; owned */
    size_t state_bytes;
};

/* Every field checked, the signatures too: a receipt that is read holds what its worker signed.
 * FORMAT naming file and field. receipt_free either way. */
tessera_status receipt_open(const char *path, struct receipt *out, tessera_error *error);
tessera_status receipt_parse(const char *name, const char *text, size_t length, struct receipt *out, tessera_error *error);
tessera_status receipt_write(const struct receipt *receipt, const char *path, tessera_error *error);
void receipt_free(struct receipt *receipt); /* zeros are fine */
/* Makes the accusation out of what a worker signed: `receipt` has the reply, the range, the worker,
 * both signatures and the hashes; `part` is the accuser's own, reproducible; `request` is what the
 * worker was sent, with its constants whole or in the store; `own` [receipt->count] are the hashes
 * that the part gives for it (split_part_compute). Sets receipt->block, the first whose hash
 * differs (where none does: the part's first), and receipt->state. It proves nothing until
 * receipt_judge has said so. Errors as split_part_compute. */
tessera_status receipt_accuse(struct receipt *receipt, struct split_part *part, const struct split_request *request,
                              const uint8_t (*own)[CANONICAL_HASH_BYTES], tessera_error *error);

/* The same where a witness has said its hashes and given the state: receipt->block is set; `state`
 * stands within the part before it. MEMORY. */
tessera_status receipt_set_state(struct receipt *receipt, const struct denoiser *denoiser, const struct denoiser_state *state,
                                 tessera_error *error);
/* The place of the first of [receipt->count] hashes that differs; receipt->count where none does. */
int receipt_first_difference(const struct receipt *receipt, const uint8_t (*other)[CANONICAL_HASH_BYTES]);

enum receipt_verdict {
    RECEIPT_CLEARED,     /* the block gives what the worker signed: it is innocent of this */
    RECEIPT_CONVICTED,   /* the block gives something else */
    RECEIPT_CONTRADICTED /* convicted without computing: its hashes after each block do not end in the output that it signed */
};
/* Judges with the weights of `part`, which must be reproducible, of the receipt's specification,
 * and of its digest. ARGUMENT where the part is another one or its arithmetic is; FORMAT where the
 * receipt proves nothing: its state is not the one whose hash the worker signed. */
tessera_status receipt_judge(const struct receipt *receipt, struct split_part *part, enum receipt_verdict *verdict, tessera_error *error);

#endif
