/* The parts that this machine has itself, with which it compares what workers have and answer. See
 * client_parts.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "split/client_parts.h"

enum { ALIGNMENT = 64 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for this machine's parts");
}

/* ---- this machine's parts ---- */

/* Is the worker's arithmetic what the job needs? */
static void check_specification(struct client *c, int worker) {
    const struct client_worker *w = &c->workers[worker];
    const char *dtype = c->job.run->dtype == DTYPE_F32 ? "f32" : "bf16", *own = strrchr(w->description.specification, ' ');
    bool reproducible = strstr(w->description.specification, " reproducible ") != NULL;
    bool needs_bits = c->verification.kind == VERIFY_EXACT || c->verification.kind == VERIFY_CHALLENGE;
    if (own == NULL || strcmp(own + 1, dtype) != 0)
        client_drop(c, worker, "it computes \"%s\", but this client computes in %s: --dtype says in what", w->description.specification,
                    dtype);
    else if (!reproducible && (needs_bits || c->job.run->backend->reproducible))
        client_drop(c, worker, "it computes \"%s\", which gives other bits on other machines: %s", w->description.specification,
                    needs_bits ? "only --verify replicas can check that" : "--kernels reproducible needs reproducible workers");
}

static tessera_status other_model(int index, tessera_status status, const tessera_error *why, tessera_error *error) {
    return error_set(error, status, "workers: part %d is none of this model: %s", index + 1, why->message);
}

/* Which answers to compare bit by bit: those of this arithmetic. */
static void name_bits(struct client *c, struct client_part *part) {
    bool needed = c->job.run->backend->reproducible || c->verification.kind == VERIFY_EXACT || c->verification.kind == VERIFY_CHALLENGE;
    for (int i = part->first_worker; i < part->first_worker + part->count && !needed; i++)
        needed = c->workers[i].described && strstr(c->workers[i].description.specification, " reproducible ") != NULL;
    part->is_reproducible = needed;
    snprintf(part->specification, sizeof part->specification, SPLIT_SPECIFICATION " %s %s", needed ? "reproducible" : "fast",
             c->job.run->dtype == DTYPE_F32 ? "f32" : "bf16");
}

/* This machine's copy of a part, streamed. */
static tessera_status open_own_part(struct client *c, int index, tessera_error *error) {
    struct client_part *part = &c->parts[index];
    const struct split_part_options options = {.kernels = part->is_reproducible ? TESSERA_KERNELS_REPRODUCIBLE : TESSERA_KERNELS_BEST,
                                               .dtype = c->job.run->dtype,
                                               .threads = c->job.run->backend->threads,
                                               .streamed = true,
                                               .known_digest = true,
                                               .limits = {.batch = 1 << 10, .tokens = 1 << 24, .text_tokens = 1 << 20}};
    tessera_error why = {0};
    tessera_status status = split_part_open_model(c->job.folder, &part->range, &options, &part->own, &why);
    if (status != TESSERA_OK) return other_model(index, status, &why, error);
    memcpy(part->digest, split_part_header(part->own)->digest, sizeof part->digest);
    if (!c->has_manifest || memcmp(part->digest, c->manifest.parts[index].digest, sizeof part->digest) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "workers: part %d of the manifest (model %.100s) holds other weights than %s: take the manifest of this model",
                     index + 1, c->manifest.model, c->job.folder);
}

/* Of a part whose weights are not here its owner's word is known: the manifest. */
static tessera_status know_part(struct client *c, int index, const struct part_header *header, tessera_error *error) {
    struct client_part *part = &c->parts[index];
    int first = part->range.first, last = part->range.end - 1;
    if (!c->has_manifest)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "workers: %s has no weights of part %d, blocks %d to %d, with which to compare what workers have: name the manifest of the "
            "model's owner in the list of workers (\"manifest\", \"manifest_pin\")",
            c->job.folder, index + 1, first, last);
    if (strcmp(c->manifest.class_name, header->class_name) != 0 || strcmp(c->manifest.configuration, header->configuration) != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "workers: the manifest is of model %.100s, whose configuration is not that of %s",
                         c->manifest.model, c->job.folder);
    if (c->verification.kind == VERIFY_REPLICAS)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "verify replicas: needs the weights of blocks %d to %d, to measure how far apart honest answers may lie, and %s has none: "
            "take exact=N or challenge=K, with reproducible workers",
            first, last, c->job.folder);
    memcpy(part->digest, c->manifest.parts[index].digest, sizeof part->digest);
    client_say(c,
               "part %d, blocks %d to %d: the weights are not here: its workers are known by the manifest%s, and compared with one another",
               index + 1, first, last, c->parts[index].count > 1 ? "" : " alone");
    return TESSERA_OK;
}

static tessera_status open_part(struct client *c, int index, tessera_error *error) {
    struct part_header header;
    bool is_here = false;
    name_bits(c, &c->parts[index]);
    tessera_error why = {0};
    tessera_status status = part_file_is_in_model(c->job.folder, &c->parts[index].range, &header, &is_here, &why);
    if (status != TESSERA_OK) other_model(index, status, &why, error);
    if (status == TESSERA_OK && !is_here) status = know_part(c, index, &header, error);
    part_header_free(&header);
    return status == TESSERA_OK && is_here ? open_own_part(c, index, error) : status;
}

tessera_status client_open_parts(struct client *c, tessera_error *error) {
    if (c->folder != NULL && strcmp(c->folder, c->job.folder) == 0) return TESSERA_OK;
    for (int p = 0; p < c->num_parts; p++) {
        split_part_close(c->parts[p].own);
        c->parts[p].own = NULL;
        c->parts[p].tolerance = 0;
        TRY(open_part(c, p, error));
    }
    for (int i = 0; i < c->num_workers; i++) c->workers[i].tested = false;
    free(c->folder);
    c->folder = strdup(c->job.folder);
    return c->folder != NULL ? TESSERA_OK : out_of_memory(error);
}

void client_check_digests(struct client *c) {
    for (int i = 0; i < c->num_workers; i++) {
        const struct client_worker *w = &c->workers[i];
        if (!w->described || !client_worker_usable(w)) continue;
        if (memcmp(w->description.digest, c->parts[w->part].digest, CANONICAL_HASH_BYTES) != 0)
            client_drop(c, i, "its part has another digest than the same blocks of this model: it has other weights");
        else
            check_specification(c, i);
    }
}

/* ---- this machine's answer ---- */

/* While this machine computes, requests that are under way go on: a worker that waits for the rest
 * of one would close its connection. */
static void move_transfers(void *user) {
    struct client *c = user;
    tessera_error ignored = {0};
    remotes_wait(c->remotes, 0, &ignored); /* what libcurl has to say comes up at the next wait */
}

tessera_status client_make_request(struct client *c, const struct split_range *range, const struct denoiser_state *state,
                                   struct split_request *out, uint8_t **memory, tessera_error *error) {
    struct denoiser_state sent = split_request_state(c->job.denoiser, range, state);
    struct state_message message = {.constants = denoiser_state_constants(c->job.denoiser)};
    size_t size = denoiser_state_bytes(&sent, 0);
    *memory = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (*memory == NULL) return out_of_memory(error);
    *out = (struct split_request){.bytes = *memory, .size = size, .between = move_transfers, .user = c};
    return denoiser_state_pack(&sent, &message, c->job.run->backend, *memory, error);
}

tessera_status client_compute_on(struct client *c, struct split_part *on, const struct denoiser_state *state, bool hashes,
                                 struct split_answer *out, tessera_error *error) {
    struct state_store store = split_part_store(on);
    struct split_request request;
    uint8_t *memory = NULL;
    *out = (struct split_answer){0};
    tessera_status status = client_make_request(c, &split_part_header(on)->range, state, &request, &memory, error);
    if (status == TESSERA_OK) {
        request.store = &store;
        request.block_hashes = hashes;
        status = split_part_compute(on, &request, out, error);
    }
    state_store_close(&store);
    free(memory);
    return status;
}

tessera_status client_compute(struct client *c, int part, const struct denoiser_state *state, bool hashes, struct split_answer *out,
                              tessera_error *error) {
    return client_compute_on(c, c->parts[part].own, state, hashes, out, error);
}
