/* What the files of the client share: which worker has which part, what is under way, and what was
 * answered. Private to them.
 *
 *     workers.c          include/tessera_workers.h
 *     client.c           pipelines/workers.h: requests through the parts, one worker or another
 *     client_prepare.c   the known-answer test
 *     client_check.c     are answers right, and who lied
 *     client_dispute.c   two workers differ, and this machine has not computed it itself; receipts
 *     client_distance.c  how far answers lie apart, and how far honest ones may
 *     client_compute.c   this machine's own parts
 *     client_tasks.c     the answers of tasks, and their ends
 *     client_workers.c   opening, descriptions, who is used and who is not
 *
 * A file calls only those below it in this list. */
#ifndef TESSERA_SPLIT_CLIENT_PARTS_H
#define TESSERA_SPLIT_CLIENT_PARTS_H

#include "pipelines/workers.h"
#include "split/remote.h"
#include "split/verification.h"
#include "split/workers_file.h"

enum { CLIENT_MOST_UNDER_WAY = 2 }; /* requests at one worker: one is computed while another travels */
enum { CLIENT_MOST_FAILURES = 3 };  /* in a row, after which a worker counts as gone */
enum { CLIENT_MOST_ATTEMPTS = VERIFY_MOST_REPLICAS + 2 };

struct client_worker {
    char *url, *operator_name, *pin, *token; /* owned */
    int part;
    struct remote *remote;
    struct worker_description description;
    bool described, tested; /* it has said what it is; its known answer was right */
    bool gone;              /* it does not answer: asked again in the next job */
    char *dropped;          /* why it is never asked again; owned */
    char *receipt;          /* the file that convicts it; owned */
    int under_way, failures_in_row;
    double retry_at, busy_since; /* busy_since: 0: it is not */
    double usual;                /* seconds of a request so far; 0: there was none */
    uint64_t requests, failures, checks, bytes_sent, bytes_received;
    double seconds;
    char last_error[256];
};

struct client_part {
    struct split_range range;
    uint8_t digest[CANONICAL_HASH_BYTES];
    int first_worker, count; /* of client.workers */
    struct split_part *own;  /* this machine's, streamed: what answers are compared with; owned; NULL: it has not the weights */
    char specification[SPLIT_SPECIFICATION_CHARS]; /* of answers whose bits can be compared with this machine's, or one another's */
    bool is_reproducible;    /* it */
    double tolerance;        /* as far as it was measured: answers by different kernels to a picture's states agree up to it */
    bool told_few,
        unchecked; /* said that fewer workers are left than are to be compared; answers were taken as they came that should not */
};

/* A signed answer that a picture goes on with. */
struct client_answer {
    bool there, verified;
    int worker;
    struct receipt_reply reply;
    uint8_t signature[IDENTITY_SIGNATURE_BYTES];
};

struct client_attempt {
    struct remote_call *call; /* NULL: none */
    int worker;
    bool good; /* the answer is there */
};

/* A unit on its way through the parts. */
struct client_task {
    struct workers_unit unit;
    int part;   /* where it is; num_parts: it is back */
    int wanted; /* answers of different workers for this part */
    double since;
    struct denoiser_state state;
    void *memory;             /* of the state as it came; owned */
    struct remote_call **won; /* [num_parts] calls in whose memory the state lies; owned */
    struct client_attempt attempts[CLIENT_MOST_ATTEMPTS];
    struct client_task *next;
};

struct client {
    struct tessera_workers handle; /* first: the public handle is this */
    struct remotes *remotes;
    struct client_worker *workers; /* [num_workers], by part; owned */
    int num_workers;
    struct client_part *parts; /* [num_parts], owned */
    int num_parts;
    struct manifest manifest;
    bool has_manifest;
    struct verification verification;
    double timeout;
    char *receipts; /* folder; owned; NULL: the current one */
    tessera_notice notice;
    void *notice_user;
    char *folder; /* of the model whose parts are open; owned; NULL: none */
    /* the job */
    struct workers_job job;
    bool prepared;                        /* workers were tested for it */
    uint8_t (*nonces)[SPLIT_NONCE_BYTES]; /* [pictures] */
    struct remote_constants *constants;   /* [pictures][predictions][parts] */
    struct client_answer *answers;        /* [pictures][steps][predictions][parts] */
    int *rewinds;                         /* [pictures] the step to go back to; job.steps: none */
    struct client_task *tasks, *given;    /* under way; whose state the loop has */
};

static inline struct client *client_of(tessera_workers *workers) {
    return (struct client *)workers;
}
static inline struct remote_constants *client_constants(const struct client *c, struct workers_unit u, int part) {
    return &c->constants[((size_t)u.picture * (size_t)c->job.predictions + (size_t)u.prediction) * (size_t)c->num_parts + (size_t)part];
}
static inline struct client_answer *client_answer_at(const struct client *c, struct workers_unit u, int part) {
    return &c->answers[(((size_t)u.picture * (size_t)c->job.steps + (size_t)u.step) * (size_t)c->job.predictions + (size_t)u.prediction) *
                           (size_t)c->num_parts +
                       (size_t)part];
}

/* ---- client_workers.c ---- */

tessera_status client_open_workers(struct client *c, const struct workers_file *file, tessera_error *error);
void client_close_workers(struct client *c);
/* Asks what the workers have that have not said it; `ranges`: takes the parts' ranges from them,
 * where there is no manifest. IO where a part has no worker. */
tessera_status client_describe_workers(struct client *c, bool ranges, tessera_error *error);
/* May it be asked (though it may be busy)? */
bool client_worker_usable(const struct client_worker *w);
/* Never again. The first reason stays. */
void client_drop(struct client *c, int worker, const char *format, ...) __attribute__((format(printf, 3, 4)));
void client_say(const struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* IO naming what each worker of the part said last, where none of it is usable. */
tessera_status client_check_part(const struct client *c, int part, tessera_error *error);
/* What a call says of its worker: counts it, and sets it aside where it failed. True where the
 * answer is there. */
bool client_take_result(struct client *c, int worker, struct remote_call *call);
/* What a request of this unit to a part is. */
struct remote_input client_input(struct client *c, struct workers_unit unit, int part, int worker, const struct denoiser_state *state);

/* ---- client_tasks.c ---- */

/* Has the task asked this worker, or with `operators` one of the same operator? */
bool client_tried(const struct client *c, const struct client_task *task, int worker, bool operators);
/* How many answers of a task's part are there, or without `good` there or under way. */
int client_attempts(const struct client_task *task, bool good);
/* How many answers a task's part can have: those that are there or under way, and those of workers
 * that it has not asked yet. */
int client_possible_answers(const struct client *c, const struct client_task *task);
void client_end_attempt(struct client *c, struct client_attempt *attempt);
void client_free_task(struct client *c, struct client_task *task);
/* The answers of a worker that were not verified are void, and what pictures did since then. */
void client_void(struct client *c, int worker);

/* ---- client_compute.c ---- */

/* Opens this machine's parts for the job's model, those whose weights are here. */
tessera_status client_open_parts(struct client *c, tessera_error *error);
/* Drops workers that have other weights than this machine's parts or the manifest, or other
 * arithmetic than the job needs. */
void client_check_digests(struct client *c);
/* What is asked of the blocks of `range` for this state: *out but its store; job 0, constants
 * whole. Its bytes are *memory, which the caller frees. */
tessera_status client_make_request(struct client *c, const struct split_range *range, const struct denoiser_state *state,
                                   struct split_request *out, uint8_t **memory, tessera_error *error);
/* The state's fields that a part's request holds, computed by this machine's part; split_answer_free. */
tessera_status client_compute(struct client *c, int part, const struct denoiser_state *state, bool hashes, struct split_answer *out,
                              tessera_error *error);
/* The same on a part that is open: with other kernels, say. */
tessera_status client_compute_on(struct client *c, struct split_part *on, const struct denoiser_state *state, bool hashes,
                                 struct split_answer *out, tessera_error *error);

/* ---- client_prepare.c ---- */

/* Opens this machine's parts for the job's model, compares digests, and gives each worker that was
 * not tested a request whose answer is known. `state`: the first one of the job, for its kind. */
tessera_status client_prepare(struct client *c, const struct denoiser_state *state, tessera_error *error);

/* ---- client_check.c ---- */

/* All wanted answers of a task's part are there: the attempt to go on with; -1: more answers are
 * needed. *losers: bits of attempts that lied. */
tessera_status client_compare(struct client *c, struct client_task *task, int *winner, unsigned *losers, tessera_error *error);
/* A worker's signed answer to this state was wrong: it is dropped and named, and a receipt is
 * written where it can be: by this machine's part, or by what `witness` says, a worker whose answer
 * was right (-1: none). */
void client_convict(struct client *c, int worker, int witness, struct workers_unit unit, int part, const struct denoiser_state *state,
                    const struct client_answer *answer);
tessera_status client_check_unit(struct client *c, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error);

/* ---- client_dispute.c ---- */

/* The file that convicts a worker, or that it is to be judged by, beside the notice. */
tessera_status client_save_receipt(struct client *c, int worker, int part, const struct receipt *receipt, tessera_error *error);
/* What a worker says its hashes after each block are. */
tessera_status client_ask_hashes(struct client *c, int worker, struct workers_unit unit, int part, const struct denoiser_state *state,
                                 struct remote_call **out, tessera_error *error);
/* Writes the worker's receipt by the hashes and the state of a witness. */
tessera_status client_accuse(struct client *c, int worker, int witness, struct workers_unit unit, int part,
                             const struct denoiser_state *state, const struct client_answer *answer, tessera_error *error);
enum client_checked { CLIENT_UNCHECKED, CLIENT_RIGHT, CLIENT_WRONG };
/* Asks a worker of another operator for one part of a unit whose answer was taken as it came.
 * RIGHT: the state goes on with that, which lies in
 * *memory; WRONG: the answer is void, and its worker dropped; UNCHECKED: there is none to ask. IO where nobody can tell who of two is
 * right. */
tessera_status client_check_elsewhere(struct client *c, struct workers_unit unit, int part, struct denoiser_state *state,
                                      struct remote_call **memory, enum client_checked *outcome, tessera_error *error);

/* ---- client_distance.c ---- */

/* How far two answers lie apart: |a - b| / |a|, of all their numbers after random projections whose seed is
 * `seed`. */
double client_distance(const struct denoiser_state *a, const struct denoiser_state *b, uint64_t seed);
/* The same, of a part's answers to a state. */
tessera_status client_answer_distance(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *a,
                                      const struct denoiser_state *b, double *distance, tessera_error *error);
/* What answers by different kernels agree up to without a measurement. */
double client_least_tolerance(const struct client *c);
/* Raises the part's tolerance to what this machine's two kinds of kernels say of this state, which
 * costs as much as computing the part twice. */
tessera_status client_measure_tolerance(struct client *c, int part, const struct denoiser_state *state, tessera_error *error);
/* Is a worker's answer to the known-answer test near enough to this machine's? Tolerances are
 * measured only where it is farther than the least one: that costs as much as the test. */
tessera_status client_test_agrees(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *known,
                                  const struct denoiser_state *answer, double *distance, bool *agrees, tessera_error *error);

/* ---- client.c ---- */

extern const struct workers_calls client_calls;

#endif
