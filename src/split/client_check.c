/* Are answers right, and who lied? See client_parts.h.
 *
 *     exact       hashes of all answers are equal, or the majority's counts; without one this machine computes the part itself
 *     replicas    answers closer to one another than honest kernels are apart; the largest such group counts if it is a majority
 *     challenge   this machine computes the part itself, and compares the signed hash; or a worker of another operator does (client_dispute.c)
 *
 * A worker whose reproducible answer was wrong must send the hashes after each block. The first
 * that differs from ours names the block which convicts it; receipt.h says how. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "split/client_parts.h"

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for checking an answer");
}

/* ---- comparing ---- */

struct votes {
    int attempts[CLIENT_MOST_ATTEMPTS], count;              /* those with answers */
    bool agree[CLIENT_MOST_ATTEMPTS][CLIENT_MOST_ATTEMPTS]; /* by place in `attempts` */
};

static void vote(struct client *c, const struct client_task *task, struct votes *v) {
    uint64_t seed = 0; /* drawn now that all answers are in */
    double most = fmax(c->parts[task->part].tolerance, client_least_tolerance(c));
    *v = (struct votes){0};
    identity_random(&seed, sizeof seed, NULL);
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++)
        if (task->attempts[i].good) v->attempts[v->count++] = i;
    for (int i = 0; i < v->count; i++)
        for (int k = i; k < v->count; k++) {
            const struct remote_result *a = remote_call_result(task->attempts[v->attempts[i]].call),
                                       *b = remote_call_result(task->attempts[v->attempts[k]].call);
            bool equal = memcmp(a->reply.signed_fields.output_hash, b->reply.signed_fields.output_hash, CANONICAL_HASH_BYTES) == 0;
            if (!equal && c->verification.kind == VERIFY_REPLICAS) equal = client_distance(&a->answer, &b->answer, seed) <= most;
            v->agree[i][k] = v->agree[k][i] = equal;
        }
}

static bool all_agree(const struct votes *v) {
    for (int i = 0; i < v->count; i++)
        for (int k = 0; k < i; k++)
            if (!v->agree[i][k]) return false;
    return true;
}

/* Before an answer counts as wrong by its distance, that distance is compared with what this
 * machine's own kernels say of the same state. */
static tessera_status vote_fairly(struct client *c, const struct client_task *task, struct votes *v, tessera_error *error) {
    vote(c, task, v);
    if (c->verification.kind != VERIFY_REPLICAS || all_agree(v)) return TESSERA_OK;
    TRY(client_measure_tolerance(c, task->part, &task->state, error));
    vote(c, task, v);
    return TESSERA_OK;
}

/* Without a majority this machine's own answer decides, where bits can be compared. */
static tessera_status decide_alone(struct client *c, const struct client_task *task, const struct votes *v, int *winner, unsigned *losers,
                                   tessera_error *error) {
    struct split_answer own;
    tessera_status status = client_compute(c, task->part, &task->state, false, &own, error);
    for (int i = 0; i < v->count && status == TESSERA_OK; i++) {
        const struct remote_result *r = remote_call_result(task->attempts[v->attempts[i]].call);
        if (memcmp(r->reply.signed_fields.output_hash, own.output_hash, CANONICAL_HASH_BYTES) == 0)
            *winner = v->attempts[i];
        else
            *losers |= 1u << v->attempts[i];
    }
    split_answer_free(&own);
    return status;
}

static tessera_status without_majority(struct client *c, struct client_task *task, const struct votes *v, int *winner, unsigned *losers,
                                       tessera_error *error) {
    if (client_possible_answers(c, task) > v->count && v->count + 1 < CLIENT_MOST_ATTEMPTS) {
        task->wanted = v->count + 1;
        return TESSERA_OK;
    }
    if (c->verification.kind == VERIFY_EXACT && c->parts[task->part].own != NULL) {
        TRY(decide_alone(c, task, v, winner, losers, error));
        if (*winner >= 0) return TESSERA_OK;
    }
    char all[400] = "";
    for (int i = 0; i < v->count; i++) {
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%.120s", i > 0 ? ", " : "", c->workers[task->attempts[v->attempts[i]].worker].url);
    }
    return error_set(error, TESSERA_ERROR_IO,
                     "workers: the answers of part %d differ and no majority agrees (%s): name more replicas of it", task->part + 1, all);
}

tessera_status client_compare(struct client *c, struct client_task *task, int *winner, unsigned *losers, tessera_error *error) {
    struct votes v;
    int best = -1, most = 0;
    *winner = -1;
    *losers = 0;
    TRY(vote_fairly(c, task, &v, error));
    for (int i = 0; i < v.count; i++) {
        int with = 0;
        for (int k = 0; k < v.count; k++) with += v.agree[i][k];
        if (with > most) best = i, most = with;
    }
    if (2 * most <= v.count) return without_majority(c, task, &v, winner, losers, error);
    *winner = v.attempts[best];
    for (int k = 0; k < v.count; k++)
        if (!v.agree[best][k]) *losers |= 1u << v.attempts[k];
    return TESSERA_OK;
}

/* ---- receipts ---- */

static bool same_hashes(const struct split_answer *own, const struct remote_result *hashes) {
    return memcmp(own->hashes, hashes->hashes, (size_t)own->num_hashes * sizeof *own->hashes) == 0;
}

static tessera_status write_receipt(struct client *c, int worker, int part, const struct denoiser_state *state,
                                    const struct client_answer *answer, const struct remote_result *hashes, const struct split_answer *own,
                                    tessera_error *error) {
    struct split_part *own_part = c->parts[part].own;
    struct receipt receipt = {
        .reply = answer->reply, .range = c->parts[part].range, .worker = c->workers[worker].description.worker, .count = own->num_hashes};
    struct state_store store = split_part_store(own_part);
    struct split_request request;
    uint8_t *memory = NULL;
    size_t hash_bytes = (size_t)own->num_hashes * sizeof *own->hashes;
    if (same_hashes(own, hashes))
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "its hashes after each block are right, and do not lead to the answer that it signed");
    memcpy(receipt.signature, answer->signature, sizeof receipt.signature);
    memcpy(receipt.blocks_signature, hashes->reply.blocks_signature, sizeof receipt.blocks_signature);
    receipt.hashes = malloc(hash_bytes);
    tessera_status status = receipt.hashes != NULL ? client_make_request(c, &receipt.range, state, &request, &memory, error)
                                                   : out_of_memory(error);
    if (receipt.hashes != NULL) memcpy(receipt.hashes, hashes->hashes, hash_bytes);
    request.store = &store;
    if (status == TESSERA_OK)
        status = receipt_accuse(&receipt, own_part, &request, (const uint8_t(*)[CANONICAL_HASH_BYTES])own->hashes, error);
    if (status == TESSERA_OK) status = client_save_receipt(c, worker, part, &receipt, error);
    state_store_close(&store);
    receipt_free(&receipt);
    free(memory);
    return status;
}

static tessera_status seek_receipt(struct client *c, int worker, struct workers_unit unit, int part, const struct denoiser_state *state,
                                   const struct client_answer *answer, tessera_error *error) {
    struct remote_call *call = NULL;
    struct split_answer own = {0};
    tessera_status status = client_compute(c, part, state, true, &own, error);
    if (status == TESSERA_OK) status = client_ask_hashes(c, worker, unit, part, state, &call, error);
    if (status == TESSERA_OK) {
        const struct remote_result *r = remote_call_result(call);
        if (memcmp(r->reply.signed_fields.output_hash, answer->reply.output_hash, CANONICAL_HASH_BYTES) != 0)
            status = error_set(error, TESSERA_ERROR_FORMAT, "asked again, it signed another answer to the same request");
        else
            status = write_receipt(c, worker, part, state, answer, r, &own, error);
    }
    remote_call_end(call);
    split_answer_free(&own);
    return status;
}

void client_convict(struct client *c, int worker, int witness, struct workers_unit unit, int part, const struct denoiser_state *state,
                    const struct client_answer *answer) {
    const struct client_part *p = &c->parts[part];
    bool bits = strstr(answer->reply.specification, " reproducible ") != NULL && strcmp(answer->reply.specification, p->specification) == 0;
    tessera_error why = {0};
    client_drop(c, worker, "its answer for step %d of picture %d is wrong", unit.step + 1, unit.picture + 1);
    if (!bits || c->workers[worker].receipt != NULL || (p->own == NULL && witness < 0)) return;
    tessera_status status = p->own != NULL ? seek_receipt(c, worker, unit, part, state, answer, &why)
                                           : client_accuse(c, worker, witness, unit, part, state, answer, &why);
    if (status != TESSERA_OK) client_say(c, "worker %s: no receipt convicts it before others: %s", c->workers[worker].url, why.message);
}

/* ---- challenges ---- */

/* One part of a unit whose answer was taken as it came. The state goes on with this machine's own
 * answer, which lies in *memory. */
static tessera_status check_part(struct client *c, struct workers_unit unit, int part, struct denoiser_state *state,
                                 struct split_answer *memory, bool *right, tessera_error *error) {
    struct client_answer *answer = client_answer_at(c, unit, part), said = *answer;
    const struct split_range *range = &c->parts[part].range;
    struct split_shape shape = split_shape_of(state);
    struct denoiser_state read;
    TRY(client_compute(c, part, state, false, memory, error));
    if (memcmp(memory->input_hash, said.reply.input_hash, CANONICAL_HASH_BYTES) != 0)
        return error_set(error, TESSERA_ERROR_INTERNAL,
                         "this machine's own blocks gave two results for one step: answers cannot be checked with them");
    *right = memcmp(memory->output_hash, said.reply.output_hash, CANONICAL_HASH_BYTES) == 0;
    if (!*right) {
        client_convict(c, said.worker, -1, unit, part, state, &said);
        client_void(c, said.worker);
        return TESSERA_OK;
    }
    if (!answer->verified) c->workers[said.worker].checks++;
    answer->verified = true;
    TRY(split_answer_read(c->job.denoiser, c->job.run, range, &shape, 0, memory->bytes, memory->size, &read, error));
    split_answer_merge(c->job.denoiser, range, state, &read);
    return TESSERA_OK;
}

/* Where the state that this machine's, or another worker's, answer leads to lies. */
struct memory {
    struct split_answer own;
    struct remote_call *call;
};

static tessera_status check_one(struct client *c, struct workers_unit unit, int part, struct denoiser_state *state, struct memory *memory,
                                bool *right, tessera_error *error) {
    enum client_checked outcome = CLIENT_UNCHECKED;
    if (c->verification.asks || c->parts[part].own == NULL)
        TRY(client_check_elsewhere(c, unit, part, state, &memory->call, &outcome, error));
    *right = outcome == CLIENT_RIGHT;
    if (outcome != CLIENT_UNCHECKED || c->parts[part].own == NULL) return TESSERA_OK;
    return check_part(c, unit, part, state, &memory->own, right, error);
}

tessera_status client_check_unit(struct client *c, struct workers_unit unit, const struct denoiser_state *given, tessera_error *error) {
    struct memory *memories = calloc((size_t)c->num_parts, sizeof *memories);
    struct denoiser_state state = *given;
    bool right = true;
    tessera_status status = memories != NULL ? TESSERA_OK : out_of_memory(error);
    for (int p = 0; p < c->num_parts && right && status == TESSERA_OK; p++) {
        if (!client_answer_at(c, unit, p)->there) break; /* void since another check */
        status = check_one(c, unit, p, &state, &memories[p], &right, error);
    }
    for (int p = 0; memories != NULL && p < c->num_parts; p++) {
        split_answer_free(&memories[p].own);
        remote_call_end(memories[p].call);
    }
    free(memories);
    return status;
}
