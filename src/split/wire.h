/* What client and worker send each other: the bodies of POST /v1/run, /v1/hashes and /v1/state
 * (docs/strangers.md has the rest of the protocol).
 *
 *     request   head 128 bytes, then the message of a state (models/state.h)
 *       0  "TDRQ"              4  u16 version         6  u16 flags, 0       8  u64 bytes of the state
 *      16  id [16]            32  job nonce [32]     64  part digest [32]  96  u32 step, u32 row
 *     104  u32 block (state; else 0)                                                                108  zeros
 *
 *     reply     head 448 bytes, then the message of a state (run, state), then hashes of 32 bytes each (hashes), of the state after each block
 *       0  "TDRP"              4  u16 version         6  u16 flags, 0       8  u64 bytes of the state
 *      16  id [16]            32  job nonce [32]     64  part digest [32]  96  u32 step, u32 row      104  u32 hashes, u32 0
 *     112  public key [44], 4 zeros                 160  specification [64], a text padded with zeros
 *     224  hash of the input [32]                   256  hash of the output [32]
 *     288  signature [64] of these                  352  signature [64] of these and the hashes; zeros without hashes
 *     416  zeros
 *
 * A reply to /v1/state holds the state before `block`, within the part, and the hash of that as the
 * output's. It has no signatures: whoever asks knows the hash from what the worker signed.
 *
 * Numbers are little-endian. The signatures are receipt.h's. A request is named by its id, which
 * the client draws at random: the same bytes sent again get the same reply, and other bytes under a
 * known id are refused. The message's constants come whole or by digest; a worker that lacks one
 * replies 424, one line for each digest it lacks, and the client sends them whole. */
#ifndef TESSERA_SPLIT_WIRE_H
#define TESSERA_SPLIT_WIRE_H

#include "split/receipt.h"

enum { WIRE_VERSION = 1, WIRE_ID_BYTES = 16, WIRE_REQUEST_BYTES = 128, WIRE_REPLY_BYTES = 448 };
enum { WIRE_UNKNOWN_CONSTANTS = 424 }; /* HTTP's "Failed Dependency" */

struct wire_request {
    uint8_t id[WIRE_ID_BYTES], job[SPLIT_NONCE_BYTES], part_digest[CANONICAL_HASH_BYTES];
    uint32_t step, row, block;
    uint64_t state_bytes;
};

void wire_request_write(const struct wire_request *request, uint8_t out[WIRE_REQUEST_BYTES]);
/* The head of a request of `whole` bytes of which `size` are there. FORMAT naming the field. */
tessera_status wire_request_read(const uint8_t *bytes, size_t size, size_t whole, struct wire_request *out, tessera_error *error);

struct wire_reply {
    uint8_t id[WIRE_ID_BYTES];
    struct receipt_reply signed_fields;
    struct identity_public worker;
    uint8_t signature[IDENTITY_SIGNATURE_BYTES], blocks_signature[IDENTITY_SIGNATURE_BYTES];
    uint64_t state_bytes;
    uint32_t num_hashes;
};

void wire_reply_write(const struct wire_reply *reply, uint8_t out[WIRE_REPLY_BYTES]);
/* A whole reply: its head, and that state and hashes fill the rest. FORMAT naming the field. */
tessera_status wire_reply_read(const uint8_t *bytes, size_t size, struct wire_reply *out, tessera_error *error);
/* Is it the reply to this request of the worker with this pin, and does it sign it? FORMAT saying
 * what differs. `hashes` [num_hashes]. */
tessera_status wire_reply_check(const struct wire_reply *reply, const struct wire_request *request, const char *specification,
                                const char *pin, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], tessera_error *error);

/* The digest by which a message names the constant `field`; the message was checked. False where
 * that comes whole, or not at all. */
bool wire_constant_digest(const uint8_t *state, size_t size, int field, uint8_t out[STATE_DIGEST_BYTES]);

#endif
