/* A worker: one part of a model, computed for whoever has a token, over HTTPS.
 *
 *     GET  /health      200 "ok"; needs no token
 *     GET  /metrics     counters as Prometheus reads them
 *     GET  /v1/part     which part this is and how it is computed: JSON (struct worker_description)
 *     POST /v1/run      a request of wire.h -> a reply with the state that leaves the part
 *     POST /v1/hashes   the same request    -> a reply with the hash of the state after each block
 *     POST /v1/state    the same, and a block -> a reply with the state before that block, for whoever judges it
 *
 * Replies are signed, but for the last. The worker reads all of its part at the start and computes
 * its digest from the weights, so that it never serves a part that is not what its manifest says.
 * docs/strangers.md is the guide, and has the protocol. */
#ifndef TESSERA_SPLIT_WORKER_H
#define TESSERA_SPLIT_WORKER_H

#include "split/server.h"
#include "split/wire.h"

struct worker_options {
    const char *part;         /* a file of `tessera split` */
    const char *manifest;     /* a file that must list the part; or NULL */
    const char *manifest_pin; /* of the manifest's owner; NULL: anyone */
    const char *identity;     /* a file of identity_make */
    const char *tokens;       /* a file; NULL: whoever reaches the port may use the worker, which is on loopback then */
    bool insecure;            /* plain HTTP, on loopback only */
    const char *host;
    int port; /* 0: any free one */
    tessera_kernels kernels;
    enum dtype dtype; /* DTYPE_F32 or DTYPE_BF16 */
    int threads;      /* 0: all */
    struct server_limits limits;
    struct split_limits shapes; /* zeros: the defaults */
    size_t most_request_bytes;
    size_t most_kept_bytes; /* of replies for retries; and as much again of jobs' constants */
};
/* What the command's help says. */
struct worker_options worker_default_options(void);

struct worker;

/* Answers from now on. Errors: of the files (part, manifest, identity, tokens), naming them;
 * server_start's. */
tessera_status worker_start(const struct worker_options *options, struct worker **out, tessera_error *error);
int worker_port(const struct worker *worker);
const struct part_header *worker_part(const struct worker *worker);
const char *worker_specification(const struct worker *worker);
/* Reads the token file again; counts as of tokens_replace. On failure the tokens stay as they are.
 * Errors as of tokens_read. */
tessera_status worker_reload_tokens(struct worker *worker, int *revoked, int *added, tessera_error *error);
void worker_pin(const struct worker *worker, char out[IDENTITY_PIN_CHARS]);
/* The request that is computed ends and is answered, those that wait get 503. NULL is allowed. */
void worker_stop(struct worker *worker);

/* ---- /v1/part ---- */

/*     {"protocol": 1, "specification": "tessera-split-1 reproducible bf16", "class": "SD3Transformer2DModel", "digest": "<hex>",
 *      "first": 1, "last": 11, "has_last_block": false, "public_key": "<base64>", "most_request_bytes": 268435456,
 *      "most_tokens": 16384, "most_text_tokens": 2048, "most_batch": 8, "kernels": "reproducible avx2", "threads":
 * 8} */
struct worker_description {
    char specification[SPLIT_SPECIFICATION_CHARS], class_name[64], kernels[64];
    uint8_t digest[CANONICAL_HASH_BYTES];
    struct split_range range;
    struct identity_public worker;
    int64_t most_request_bytes, most_tokens, most_text_tokens, most_batch, threads;
};
/* The text of such an object, which the caller frees; NULL when memory is out. */
char *worker_description_text(const struct worker_description *description);
/* FORMAT naming the field. `name` stands for the worker in messages. */
tessera_status worker_description_parse(const char *name, const char *text, size_t length, struct worker_description *out,
                                        tessera_error *error);

#endif
