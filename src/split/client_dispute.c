/* Answers of two workers to one request that differ, where this machine did not compute it: who
 * lied? See client_parts.h.
 *
 *     both sign their hashes after each block; the first that differs names a block
 *     the state before it: the request's, or one of the two gives it, and both have signed its hash
 *     that block alone is judged: by this machine, if it has the weights; else a worker of a third operator computes the request
 *
 * Who cannot say how an answer came about loses. Of losers a receipt remains (receipt.h), which
 * anybody with the weights can judge. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "split/client_parts.h"

enum { PAUSE_MICROSECONDS = 10000 };

struct request {
    struct workers_unit unit;
    int part;
    const struct denoiser_state *state;
};

/* One of the workers, and what it signed. */
struct side {
    int worker;
    const struct client_answer *answer;
    struct receipt receipt; /* .count 0: it has not said its hashes */
    bool loses;
    char why[300];
};

/* ---- asking ---- */

tessera_status client_ask_hashes(struct client *c, int worker, struct workers_unit unit, int part, const struct denoiser_state *state,
                                 struct remote_call **out, tessera_error *error) {
    struct remote_input input = client_input(c, unit, part, worker, state);
    TRY(remote_hashes(c->workers[worker].remote, &input, NULL, out, error));
    TRY(remotes_wait_for(c->remotes, *out, error));
    const struct remote_result *r = remote_call_result(*out);
    return r->outcome == REMOTE_DONE ? TESSERA_OK : error_set(error, TESSERA_ERROR_IO, "%s", r->error.message);
}

/* The worker's hashes after each block into the receipt; why it has none that count. */
static tessera_status take_hashes(struct client *c, const struct request *q, int worker, const struct client_answer *answer,
                                  struct receipt *out, tessera_error *error) {
    struct remote_call *call = NULL;
    tessera_status status = client_ask_hashes(c, worker, q->unit, q->part, q->state, &call, error);
    const struct remote_result *r = status == TESSERA_OK ? remote_call_result(call) : NULL;
    if (r != NULL && memcmp(r->reply.signed_fields.output_hash, answer->reply.output_hash, CANONICAL_HASH_BYTES) != 0)
        status = error_set(error, TESSERA_ERROR_FORMAT, "asked again, it signed another answer to the same request");
    if (status == TESSERA_OK) {
        size_t bytes = r->reply.num_hashes * sizeof *out->hashes;
        *out = (struct receipt){.reply = answer->reply,
                                .range = c->parts[q->part].range,
                                .worker = c->workers[worker].description.worker,
                                .hashes = malloc(bytes)};
        memcpy(out->signature, answer->signature, sizeof out->signature);
        memcpy(out->blocks_signature, r->reply.blocks_signature, sizeof out->blocks_signature);
        if (out->hashes != NULL) memcpy(out->hashes, r->hashes, bytes);
        out->count = out->hashes != NULL ? (int)r->reply.num_hashes : 0;
        if (out->hashes == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a receipt");
    }
    remote_call_end(call);
    return status;
}

/* The state before the block at `place`, whose hash is hashes[place - 1], from one of `workers`.
 * *call (or NULL) holds it. */
static tessera_status fetch_state(struct client *c, const struct request *q, int place, const struct receipt *hashes, const int *workers,
                                  int count, struct remote_call **call, struct denoiser_state *out, tessera_error *error) {
    *call = NULL;
    *out = split_request_state(c->job.denoiser, &c->parts[q->part].range, q->state);
    if (place == 0) return TESSERA_OK;
    for (int i = 0; i < count; i++) {
        struct remote_input input = client_input(c, q->unit, q->part, workers[i], q->state);
        input.block = (uint32_t)(c->parts[q->part].range.first + place);
        TRY(remote_state(c->workers[workers[i]].remote, &input, NULL, call, error));
        TRY(remotes_wait_for(c->remotes, *call, error));
        const struct remote_result *r = remote_call_result(*call);
        if (r->outcome == REMOTE_DONE && memcmp(r->reply.signed_fields.output_hash, hashes->hashes[place - 1], CANONICAL_HASH_BYTES) == 0) {
            *out = r->before;
            return TESSERA_OK;
        }
        remote_call_end(*call);
        *call = NULL;
    }
    return error_set(error, TESSERA_ERROR_IO, "no worker gives the state before block %d, which they have signed",
                     c->parts[q->part].range.first + place);
}

/* ---- receipts ---- */

tessera_status client_save_receipt(struct client *c, int worker, int part, const struct receipt *receipt, tessera_error *error) {
    const struct receipt_reply *r = &receipt->reply;
    uint8_t key[CANONICAL_HASH_BYTES];
    char name[96];
    canonical_hash(receipt->worker.bytes, sizeof receipt->worker.bytes, key);
    snprintf(name, sizeof name, "receipt-%02x%02x%02x%02x-part%d-step%u-row%u-%02x%02x%02x%02x.json", r->job[0], r->job[1], r->job[2],
             r->job[3], part + 1, r->step, r->row, key[0], key[1], key[2], key[3]);
    char *path = file_join(c->receipts != NULL ? c->receipts : ".", name);
    tessera_status status = path != NULL ? receipt_write(receipt, path, error)
                                         : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a receipt");
    if (status != TESSERA_OK) {
        free(path);
        return status;
    }
    free(c->workers[worker].receipt);
    c->workers[worker].receipt = path;
    client_say(c, "worker %s %s at block %d: receipt %s", c->workers[worker].url,
               c->workers[worker].dropped != NULL ? "gave another result" : "is in dispute", receipt->block, path);
    return TESSERA_OK;
}

tessera_status client_accuse(struct client *c, int worker, int witness, struct workers_unit unit, int part,
                             const struct denoiser_state *state, const struct client_answer *answer, tessera_error *error) {
    const struct request q = {unit, part, state};
    struct remote_call *theirs = NULL, *call = NULL;
    struct receipt receipt = {0};
    struct denoiser_state before;
    int place = 0;
    tessera_status status = take_hashes(c, &q, worker, answer, &receipt, error);
    bool contradicts =
        status == TESSERA_OK && memcmp(receipt.hashes[receipt.count - 1], answer->reply.output_hash, CANONICAL_HASH_BYTES) != 0;
    if (status == TESSERA_OK && !contradicts) {
        status = client_ask_hashes(c, witness, unit, part, state, &theirs, error);
        if (status == TESSERA_OK) place = receipt_first_difference(&receipt, remote_call_result(theirs)->hashes);
        if (place == receipt.count)
            status = error_set(error, TESSERA_ERROR_FORMAT,
                               "its hashes after each block are right, and do not lead to the answer that it signed");
    }
    if (status == TESSERA_OK) status = fetch_state(c, &q, place, &receipt, &witness, 1, &call, &before, error);
    receipt.block = c->parts[part].range.first + place;
    if (status == TESSERA_OK) status = receipt_set_state(&receipt, c->job.denoiser, &before, error);
    if (status == TESSERA_OK) status = client_save_receipt(c, worker, part, &receipt, error);
    remote_call_end(theirs);
    remote_call_end(call);
    receipt_free(&receipt);
    return status;
}

/* ---- two that differ ---- */

/* How the side's answer came about; it loses where it cannot say, or says two things. */
static void substantiate(struct client *c, const struct request *q, struct side *s) {
    tessera_error why = {0};
    if (take_hashes(c, q, s->worker, s->answer, &s->receipt, &why) != TESSERA_OK) {
        s->loses = true;
        snprintf(s->why, sizeof s->why, "it does not say how its answer for step %d of picture %d came about: %.150s", q->unit.step + 1,
                 q->unit.picture + 1, why.message);
        return;
    }
    s->loses = memcmp(s->receipt.hashes[s->receipt.count - 1], s->answer->reply.output_hash, CANONICAL_HASH_BYTES) != 0;
    s->receipt.block = s->receipt.range.first;
}

static bool is_another(const struct client *c, int worker, const int *not_of, int count) {
    bool another = true;
    for (int i = 0; i < count; i++) another = another && strcmp(c->workers[worker].operator_name, c->workers[not_of[i]].operator_name) != 0;
    return another;
}

/* Computes the request at once, at a worker of an operator that none of `not_of` [count] has; *call
 * NULL: there is none. */
static tessera_status run_at_another(struct client *c, const struct request *q, const int *not_of, int count, int *worker,
                                     struct remote_call **call, tessera_error *error) {
    const struct client_part *part = &c->parts[q->part];
    *call = NULL;
    *worker = -1;
    for (;;) {
        bool any = false;
        int best = -1;
        for (int i = part->first_worker; i < part->first_worker + part->count; i++) {
            const struct client_worker *w = &c->workers[i];
            if (!client_worker_usable(w) || !is_another(c, i, not_of, count)) continue;
            any = true;
            if (w->retry_at <= clock_seconds() && (best < 0 || w->usual < c->workers[best].usual)) best = i;
        }
        if (!any) return TESSERA_OK;
        if (best < 0) {
            usleep(PAUSE_MICROSECONDS);
            TRY(remotes_wait(c->remotes, 0, error));
            continue;
        }
        struct remote_input input = client_input(c, q->unit, q->part, best, q->state);
        TRY(remote_run(c->workers[best].remote, &input, NULL, call, error));
        TRY(remotes_wait_for(c->remotes, *call, error));
        *worker = best;
        if (client_take_result(c, best, *call)) return TESSERA_OK;
        remote_call_end(*call);
        *call = NULL;
    }
}

/* The block in dispute, on this machine. */
static tessera_status judge(struct client *c, int part, struct side sides[2], tessera_error *error) {
    for (int i = 0; i < 2; i++) {
        enum receipt_verdict verdict;
        TRY(receipt_judge(&sides[i].receipt, c->parts[part].own, &verdict, error));
        sides[i].loses = verdict != RECEIPT_CLEARED;
    }
    return TESSERA_OK;
}

/* A third operator's answer to the whole request. */
static tessera_status ask_third(struct client *c, const struct request *q, struct side sides[2], tessera_error *error) {
    const int not_of[] = {sides[0].worker, sides[1].worker};
    struct remote_call *call;
    int worker;
    bool same[2] = {false, false};
    TRY(run_at_another(c, q, not_of, 2, &worker, &call, error));
    for (int i = 0; i < 2 && call != NULL; i++)
        same[i] = memcmp(remote_call_result(call)->reply.signed_fields.output_hash, sides[i].answer->reply.output_hash,
                         CANONICAL_HASH_BYTES) == 0;
    for (int i = 0; i < 2; i++) sides[i].loses = same[1 - i];
    remote_call_end(call);
    return TESSERA_OK;
}

/* Neither side is wrong in what it says of itself: which block is in dispute, and whose result of
 * it is right? */
static tessera_status decide(struct client *c, const struct request *q, struct side sides[2], tessera_error *error) {
    const int workers[] = {sides[0].worker, sides[1].worker};
    int place = receipt_first_difference(&sides[0].receipt, (const uint8_t(*)[CANONICAL_HASH_BYTES])sides[1].receipt.hashes);
    struct remote_call *call = NULL;
    struct denoiser_state before;
    tessera_status status = fetch_state(c, q, place, &sides[0].receipt, workers, 2, &call, &before, error);
    for (int i = 0; i < 2 && status == TESSERA_OK; i++) {
        sides[i].receipt.block = sides[i].receipt.range.first + place;
        status = receipt_set_state(&sides[i].receipt, c->job.denoiser, &before, error);
    }
    if (status == TESSERA_OK) status = c->parts[q->part].own != NULL ? judge(c, q->part, sides, error) : ask_third(c, q, sides, error);
    remote_call_end(call);
    return status;
}

/* The receipt of a side; of one that contradicts itself the state does not matter. */
static void keep_receipt(struct client *c, const struct request *q, struct side *s) {
    tessera_error why = {0};
    tessera_status status = TESSERA_OK;
    struct denoiser_state sent = split_request_state(c->job.denoiser, &c->parts[q->part].range, q->state);
    if (s->receipt.count == 0) return;
    if (s->receipt.state == NULL) status = receipt_set_state(&s->receipt, c->job.denoiser, &sent, &why);
    if (status == TESSERA_OK) status = client_save_receipt(c, s->worker, q->part, &s->receipt, &why);
    if (status != TESSERA_OK) client_say(c, "worker %s: no receipt: %s", c->workers[s->worker].url, why.message);
}

static void drop_losers(struct client *c, const struct request *q, struct side sides[2]) {
    for (int i = 0; i < 2; i++) {
        if (!sides[i].loses) continue;
        if (sides[i].why[0] == 0)
            snprintf(sides[i].why, sizeof sides[i].why, "its answer for step %d of picture %d is wrong", q->unit.step + 1,
                     q->unit.picture + 1);
        client_drop(c, sides[i].worker, "%s", sides[i].why);
        keep_receipt(c, q, &sides[i]);
    }
}

static tessera_status undecided(struct client *c, const struct request *q, struct side sides[2], tessera_error *error) {
    for (int i = 0; i < 2; i++) keep_receipt(c, q, &sides[i]);
    return error_set(
        error, TESSERA_ERROR_IO,
        "workers: %s and %s gave different answers to one request of part %d, and nobody can tell whose is right: name a worker of a "
        "third operator, or judge their receipts with the model's weights (tessera verify)",
        c->workers[sides[0].worker].url, c->workers[sides[1].worker].url, q->part + 1);
}

/* *lost: bits of the two that lied. */
static tessera_status settle_dispute(struct client *c, const struct request *q, struct side sides[2], tessera_error *error) {
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < 2; i++) substantiate(c, q, &sides[i]);
    if (!sides[0].loses && !sides[1].loses) status = decide(c, q, sides, error);
    if (status == TESSERA_OK && !sides[0].loses && !sides[1].loses) status = undecided(c, q, sides, error);
    if (status == TESSERA_OK) drop_losers(c, q, sides);
    for (int i = 0; i < 2; i++) receipt_free(&sides[i].receipt);
    return status;
}

/* ---- challenges ---- */

static bool same_answer(const struct client_answer *said, const struct remote_result *r) {
    return memcmp(said->reply.output_hash, r->reply.signed_fields.output_hash, CANONICAL_HASH_BYTES) == 0;
}

/* The two say the same: both are verified, and the state goes on. */
static void agree(struct client *c, const struct request *q, int other, const struct remote_result *r, struct denoiser_state *state) {
    struct client_answer *answer = client_answer_at(c, q->unit, q->part);
    if (!answer->verified) c->workers[answer->worker].checks++;
    c->workers[other].checks++;
    answer->verified = true;
    split_answer_merge(c->job.denoiser, &c->parts[q->part].range, state, &r->answer);
}

static void say_unchecked(struct client *c, int part) {
    if (!c->parts[part].unchecked)
        client_say(c, "part %d: no worker of another operator is left to ask: answers are not checked", part + 1);
    c->parts[part].unchecked = true;
}

tessera_status client_check_elsewhere(struct client *c, struct workers_unit unit, int part, struct denoiser_state *state,
                                      struct remote_call **memory, enum client_checked *outcome, tessera_error *error) {
    const struct client_answer said = *client_answer_at(c, unit, part);
    const struct denoiser_state entering = *state;
    const struct request q = {unit, part, &entering};
    for (*outcome = CLIENT_UNCHECKED;;) {
        int other;
        TRY(run_at_another(c, &q, &said.worker, 1, &other, memory, error));
        if (*memory == NULL) {
            if (c->parts[part].own == NULL) say_unchecked(c, part);
            return TESSERA_OK;
        }
        const struct remote_result *r = remote_call_result(*memory);
        if (same_answer(&said, r)) {
            agree(c, &q, other, r, state);
            *outcome = CLIENT_RIGHT;
            return TESSERA_OK;
        }
        struct client_answer theirs = {.there = true, .worker = other, .reply = r->reply.signed_fields};
        memcpy(theirs.signature, r->reply.signature, sizeof theirs.signature);
        struct side sides[2] = {{.worker = said.worker, .answer = &said}, {.worker = other, .answer = &theirs}};
        tessera_status status = settle_dispute(c, &q, sides, error);
        remote_call_end(*memory);
        *memory = NULL;
        TRY(status);
        for (int i = 0; i < 2; i++)
            if (sides[i].loses) client_void(c, sides[i].worker);
        if (!sides[0].loses) continue; /* another one's word is needed */
        *outcome = CLIENT_WRONG;
        return TESSERA_OK;
    }
}
