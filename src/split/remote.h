/* Workers as a client sees them: requests that are under way at the same time, over libcurl, in one
 * thread and without waiting.
 *
 *     remotes_open
 *       remote_open (URL, pin, token)              one per worker
 *         remote_describe --> remotes_wait ... remotes_next --> result.description
 *         remote_run, remote_run, ... --> remotes_wait ... remotes_next --> result.answer, result.reply
 *         remote_call_end                          for each call, also one that is under way: then it is given up
 *       remote_close
 *     remotes_close
 *
 * A connection is HTTPS with TLS 1.3 and the worker's pinned key; names and authorities do not
 * count. Connections stay open and are used again. A reply has passed all checks when it is handed
 * out: it is of this request, job, part and specification, is signed with the pinned key, its state
 * has the form that follows from the model, all numbers are finite, and the signed hash of the
 * output is that of what came. What is left to the caller is whether the numbers are right.
 *
 * Constants of a job travel once per worker: whole at first, by digest later, and whole again if
 * the worker asks for them. */
#ifndef TESSERA_SPLIT_REMOTE_H
#define TESSERA_SPLIT_REMOTE_H

#include "split/worker.h"

struct remotes;
struct remote;
struct remote_call;

struct remote_options {
    const char *url;   /* https://HOST:PORT, or http:// of this machine where `insecure` */
    const char *pin;   /* "sha256//...", as tessera worker prints it */
    const char *token; /* or NULL */
    bool insecure;
    double connect_seconds; /* until TLS is agreed */
    double stall_seconds;   /* without a byte while a request leaves or a reply comes */
    double whole_seconds;   /* from start to end, the worker's queue and computing included */
};
struct remote_options remote_default_options(void); /* 10, 20 and 300 seconds */

tessera_status remotes_open(struct remotes **out, tessera_error *error);
void remotes_close(struct remotes *remotes); /* after all its workers; NULL is allowed */
/* Connects nothing yet. ARGUMENT where URL or pin are none, or the URL is plain HTTP and must not
 * be. Strings are copied. */
tessera_status remote_open(struct remotes *remotes, const struct remote_options *options, struct remote **out, tessera_error *error);
void remote_close(struct remote *remote); /* after all its calls; NULL is allowed */

/* ---- what comes back ---- */

enum remote_outcome {
    REMOTE_DONE,
    REMOTE_BUSY,    /* full, too many requests, or it stops: again after retry_seconds, or another worker */
    REMOTE_LOST,    /* cannot be reached, another certificate, or too slow: another worker */
    REMOTE_REFUSED, /* it will not do this: the token is wrong, it has another part, the request is too large, or none at all */
    REMOTE_WRONG    /* its reply is not what it must be: nothing of this worker is to be used any more */
};
struct remote_result {
    enum remote_outcome outcome;
    tessera_error error; /* naming the worker; where the outcome is not REMOTE_DONE */
    double retry_seconds;
    double seconds;      /* from the call's start to its end */
    uint64_t bytes_sent, bytes_received; /* with heads, without TLS */
    struct worker_description description; /* of remote_describe */
    struct denoiser_state answer;          /* of remote_run: for split_answer_merge; lies in the call's memory */
    struct denoiser_state before;          /* of remote_state: within the part; lies in the memories of call and request */
    struct wire_reply reply;               /* of all but remote_describe: what is signed, and the signatures */
    const uint8_t (*hashes)[CANONICAL_HASH_BYTES]; /* of remote_hashes: [reply.num_hashes] */
};

/* ---- calls ---- */

/* Constants of one of a picture's predictions (or of both, where they travel together), from one
 * request of a job to the next. Zeros at first. */
struct remote_constants {
    bool known;
    uint8_t digests[STATE_SKIPS][STATE_DIGEST_BYTES];
};

struct remote_input {
    uint8_t job[SPLIT_NONCE_BYTES]; /* random, and one for each picture: a worker keeps few constants of a job */
    uint8_t part_digest[CANONICAL_HASH_BYTES];
    const char *specification; /* that was agreed: of the worker's description */
    uint32_t step, row;        /* row: which prediction, as in struct wire_request */
    uint32_t block;                  /* of remote_state */
    const struct denoiser *denoiser; /* of the client's model: a description is enough */
    struct run *run;                 /* for the forms of states; its backend shares the host's memory */
    const struct split_range *range;
    const struct denoiser_state *state; /* that enters the range; its memory stays until the call's end */
    struct remote_constants *constants; /* stays until the call's end */
};

/* Each starts a call; `user` is the caller's (remote_call_user). Pointers of `input` must stay
 * valid until the call's end. MEMORY, or the run's error. */
tessera_status remote_describe(struct remote *remote, void *user, struct remote_call **out, tessera_error *error);
tessera_status remote_run(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out,
                          tessera_error *error);
/* The hashes of the state after each block, signed: what a challenge asks for. */
tessera_status remote_hashes(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out,
                             tessera_error *error);

/* The state before a block of the part, not its first: no signature proves it, but its hash does,
 * which the worker or another one has signed. */
tessera_status remote_state(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out,
                            tessera_error *error);

/* Lets calls go on, and returns as soon as one has finished, or after `seconds` (0: at once). */
tessera_status remotes_wait(struct remotes *remotes, double seconds, tessera_error *error);
/* Lets calls go on until this one has finished; remotes_next hands it out like any other. */
tessera_status remotes_wait_for(struct remotes *remotes, const struct remote_call *call, tessera_error *error);
/* A call that has finished, each once, in the order in which they did; NULL: none more. */
struct remote_call *remotes_next(struct remotes *remotes);
const struct remote_result *remote_call_result(const struct remote_call *call);
void *remote_call_user(const struct remote_call *call);
void remote_call_end(struct remote_call *call); /* NULL is allowed */

#endif
