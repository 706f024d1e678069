/* See part.h. */
#include "split/part.h"

#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/little_endian.h"
#include "nn/run.h"
#include "pipelines/pipeline.h"

enum { ALIGNMENT = 64 };

struct split_part {
    struct part_file opened, *file; /* file: opened, or another part's */
    struct backend *backend;
    struct run run;
    struct split_limits limits;
    bool streamed;
    char specification[SPLIT_SPECIFICATION_CHARS];
};

uint64_t split_job_number(const uint8_t nonce[SPLIT_NONCE_BYTES]) {
    return little_endian_get(nonce, 8);
}

/* ---- opening ---- */

/* The last block of the component's parts that the range has, and one more: the finish counts as a
 * block. */
static int last_part(const struct split_range *range) {
    return range->end + range->finish;
}

static tessera_status load_all(struct split_part *part, tessera_error *error) {
    const struct split_range *range = &part->file->header.range;
    for (int i = range->first; i < last_part(range); i++) TRY(component_load_block(&part->file->component, i, error));
    return TESSERA_OK;
}

/* What computes, and how answers are signed. */
static tessera_status open_kernels(struct split_part *part, tessera_kernels kernels, enum dtype dtype, int threads, tessera_error *error) {
    bool reproducible = kernels == TESSERA_KERNELS_REPRODUCIBLE;
    snprintf(part->specification, sizeof part->specification, SPLIT_SPECIFICATION " %s %s", reproducible ? "reproducible" : "fast",
             dtype == DTYPE_F32 ? "f32" : "bf16");
    part->backend = device_open(NULL, kernels, threads, error);
    if (part->backend == NULL) return error->status;
    part->run = (struct run){.backend = part->backend, .dtype = dtype, .strip_bytes = PIPELINE_STRIP_BYTES};
    part->run.arena = part->backend->ops->arena(part->backend, 0, error);
    return part->run.arena != NULL ? TESSERA_OK : error->status;
}

static tessera_status prepare(struct split_part *part, const struct split_part_options *options, tessera_error *error) {
    const struct manifest *manifest = options->manifest;
    if (manifest != NULL && manifest_find(manifest, part->file->header.digest) == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: not a part of the manifest (no part of it has this digest): take the files that belong together",
                         weights_folder(part->file->component.weights));
    part->limits = options->limits;
    part->streamed = options->streamed;
    TRY(open_kernels(part, options->kernels, options->dtype, options->threads, error));
    return part->streamed ? TESSERA_OK : load_all(part, error);
}

/* Makes the part of a file that is open, or failed to. */
static tessera_status finish_opening(struct split_part *part, tessera_status status, const struct split_part_options *options,
                                     struct split_part **out, tessera_error *error) {
    if (status == TESSERA_OK) status = prepare(part, options, error);
    if (status == TESSERA_OK)
        *out = part;
    else
        split_part_close(part);
    return status;
}

tessera_status split_part_open(const char *path, const struct split_part_options *options, struct split_part **out, tessera_error *error) {
    struct split_part *part = calloc(1, sizeof *part);
    *out = NULL;
    if (part == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    part->file = &part->opened;
    return finish_opening(part, part_file_open(path, options->dtype, part->file, error), options, out, error);
}

tessera_status split_part_open_model(const char *folder, const struct split_range *range, const struct split_part_options *options,
                                     struct split_part **out, tessera_error *error) {
    struct split_part *part = calloc(1, sizeof *part);
    *out = NULL;
    if (part == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    part->file = &part->opened;
    return finish_opening(part, part_file_of_model(folder, range, options->dtype, options->known_digest, part->file, error), options, out, error);
}

tessera_status split_part_open_with(struct split_part *part, tessera_kernels kernels, struct split_part **out, tessera_error *error) {
    struct split_part *other = calloc(1, sizeof *other);
    *out = NULL;
    if (other == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    other->file = part->file;
    other->limits = part->limits;
    other->streamed = part->streamed;
    tessera_status status = open_kernels(other, kernels, part->run.dtype, part->backend->threads, error);
    if (status == TESSERA_OK)
        *out = other;
    else
        split_part_close(other);
    return status;
}

void split_part_close(struct split_part *part) {
    if (part == NULL) return;
    arena_free(part->run.arena);
    part_file_close(&part->opened);
    backend_free(part->backend);
    free(part);
}

const struct part_header *split_part_header(const struct split_part *part) {
    return &part->file->header;
}

const struct denoiser *split_part_denoiser(const struct split_part *part) {
    return part->file->component.denoiser;
}

struct run *split_part_run_of(struct split_part *part) {
    return &part->run;
}

const char *split_part_specification(const struct split_part *part) {
    return part->specification;
}

struct state_store split_part_store(struct split_part *part) {
    return (struct state_store){.backend = part->backend};
}

/* ---- requests ---- */

/* The state that a request to `block` must hold, by the shape that it says it has. */
static tessera_status expected_state(struct split_part *part, int block, const uint8_t *bytes, size_t size, struct split_shape *shape,
                                     struct denoiser_state *out, tessera_error *error) {
    const struct denoiser *d = split_part_denoiser(part);
    struct run form_run = {.backend = part->backend, .dtype = part->run.dtype}; /* requests are checked while another is computed */
    TRY(split_shape_read(d, bytes, size, &part->limits, shape, error));
    *out = split_state_form(d, &form_run, &part->file->header.range, block, shape);
    return run_status(&form_run, error);
}

/* The state's tensors in the order of their records. Returns how many. */
static int list_fields(struct denoiser_state *state, struct tensor *out[STATE_SKIPS + DENOISER_MAX_SKIPS]) {
    struct tensor *const fields[] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    int count = 0;
    for (int f = 0; f < STATE_SKIPS; f++)
        if (fields[f]->ndim > 0) out[count++] = fields[f];
    for (int i = 0; i < state->num_skips; i++) out[count++] = &state->skips[i];
    return count;
}

enum { BY_DIGEST = 1 }; /* in a record: models/state.c */

/* Of a request whose head and first records have been compared with what must come: the fields that
 * come by digest, as bits. */
static unsigned fields_by_digest(const uint8_t *bytes, size_t size, int count) {
    unsigned found = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t *record = bytes + STATE_HEAD_BYTES + i * STATE_RECORD_BYTES;
        if ((size_t)(record - bytes) + STATE_RECORD_BYTES > size) break;
        if (little_endian_get(record, 4) < STATE_SKIPS && little_endian_get(record + 12, 4) == BY_DIGEST)
            found |= 1u << little_endian_get(record, 4);
    }
    return found;
}

/* Compares what is there with what must come. */
static tessera_status check_request(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job, struct denoiser_state *form,
                                    unsigned *by_digest, tessera_error *error) {
    struct split_shape shape;
    struct tensor *fields[STATE_SKIPS + DENOISER_MAX_SKIPS];
    const struct state_message message = {.job = job, .constants = denoiser_state_constants(split_part_denoiser(part))};
    TRY(expected_state(part, part->file->header.range.first, bytes, size, &shape, form, error));
    TRY(denoiser_state_check(bytes, size, form, &message, error));
    *by_digest = fields_by_digest(bytes, size, list_fields(form, fields));
    return TESSERA_OK;
}

tessera_status split_part_request_bytes(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job, size_t *whole,
                                        tessera_error *error) {
    struct denoiser_state form;
    unsigned by_digest;
    TRY(check_request(part, bytes, size, job, &form, &by_digest, error));
    *whole = denoiser_state_bytes(&form, by_digest);
    return *whole > 0 ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field length: too long for this machine");
}

tessera_status split_part_missing(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job, const struct state_store *store,
                                  unsigned *missing, tessera_error *error) {
    struct denoiser_state form;
    struct tensor *fields[STATE_SKIPS + DENOISER_MAX_SKIPS];
    unsigned by_digest;
    TRY(check_request(part, bytes, size, job, &form, &by_digest, error));
    size_t whole = denoiser_state_bytes(&form, by_digest);
    if (size != whole)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "state of a block: field length: the message is %zu bytes, but this model expects %zu", size, whole);
    int count = list_fields(&form, fields);
    const uint8_t *record = bytes + STATE_HEAD_BYTES, *body = record + (size_t)count * STATE_RECORD_BYTES;
    *missing = 0;
    for (int i = 0; i < count; i++, record += STATE_RECORD_BYTES) {
        uint64_t field = little_endian_get(record, 4);
        bool digest = field < STATE_SKIPS && (by_digest >> field & 1) != 0;
        if (digest && state_store_find(store, body, tensor_bytes(fields[i])) == NULL) *missing |= 1u << field;
        size_t length = digest ? STATE_DIGEST_BYTES : tensor_bytes(fields[i]);
        body += (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return TESSERA_OK;
}

/* ---- computing ---- */

struct work {
    struct split_part *part;
    const struct split_request *request;
    struct split_answer *answer;
    struct split_range range; /* that is computed */
    struct split_shape shape;
    struct denoiser_state state;
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the answer of a part");
}

static tessera_status choose_range(struct work *w, tessera_error *error) {
    const struct split_range *whole = &w->part->file->header.range, *only = w->request->only;
    w->range = only != NULL ? *only : *whole;
    bool inside = w->range.first >= whole->first && w->range.end <= whole->end && last_part(&w->range) > w->range.first &&
                  (!w->range.finish || (whole->finish && w->range.end == whole->end));
    if (inside) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "blocks %d to %d: this part has the blocks %d to %d", w->range.first, w->range.end - 1,
                     whole->first, whole->end - 1);
}

/* The state before `block`, which the request holds. */
static tessera_status read_state(struct split_part *part, const struct split_request *r, int block, struct split_shape *shape,
                                 struct denoiser_state *state, tessera_error *error) {
    struct denoiser_state form;
    struct state_message message = {.job = r->job, .constants = denoiser_state_constants(split_part_denoiser(part))};
    TRY(expected_state(part, block, r->bytes, r->size, shape, &form, error));
    TRY(denoiser_state_unpack(r->bytes, r->size, &form, r->store, state, &message, error));
    if (message.skipped) return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field flags: says that blocks were left out");
    return TESSERA_OK;
}

tessera_status split_part_read(struct split_part *part, const struct split_request *request, struct denoiser_state *state,
                               tessera_error *error) {
    struct split_shape shape;
    int block = request->only != NULL ? request->only->first : part->file->header.range.first;
    return read_state(part, request, block, &shape, state, error);
}

static tessera_status take_state(struct work *w, tessera_error *error) {
    struct tensor *fields[STATE_SKIPS + DENOISER_MAX_SKIPS];
    TRY(read_state(w->part, w->request, w->range.first, &w->shape, &w->state, error));
    split_state_hash(&w->state, w->answer->input_hash);
    int count = list_fields(&w->state, fields);
    for (int i = 0; i < count; i++) *fields[i] = run_upload(&w->part->run, *fields[i]);
    return run_status(&w->part->run, error);
}

static void note_hash(struct work *w) {
    struct split_answer *a = w->answer;
    split_state_hash(&w->state, a->output_hash);
    if (a->hashes != NULL) memcpy(a->hashes[a->num_hashes++], a->output_hash, CANONICAL_HASH_BYTES);
}

/* Block `index`, or what follows the last one. */
static void compute_block(struct work *w, int index, size_t scope) {
    const struct denoiser *d = split_part_denoiser(w->part);
    struct run *run = &w->part->run;
    if (index < w->range.end) {
        w->state = denoiser_block(d, run, index, w->state);
        denoiser_keep_state(run, scope, &w->state);
        split_state_trim(d, index + 1, &w->state);
    } else {
        w->state = split_finished_state(&w->state, denoiser_finish(d, run, w->state));
    }
}

static tessera_status compute_blocks(struct work *w, tessera_error *error) {
    struct run *run = &w->part->run;
    size_t scope = run_enter(run);
    int end = last_part(&w->range);
    for (int i = w->range.first; i < end; i++) {
        TRY(component_load_block(&w->part->file->component, i, error));
        compute_block(w, i, scope);
        TRY(run_status(run, error));
        if (w->answer->hashes != NULL || i == end - 1) note_hash(w);
        if (w->part->streamed) component_drop_block(&w->part->file->component, i);
        if (w->request->between != NULL) w->request->between(w->request->user);
    }
    return TESSERA_OK;
}

/* Packs the answer, and reads it as its receiver will: numbers that are not finite would be refused
 * there. */
static tessera_status give_answer(struct work *w, tessera_error *error) {
    const struct denoiser *d = split_part_denoiser(w->part);
    struct split_answer *a = w->answer;
    struct denoiser_state reply = w->range.finish ? w->state : split_answer_state(d, &w->state), read;
    struct denoiser_state form = split_answer_form(d, &w->part->run, &w->part->file->header.range, w->range.end, w->range.finish, &w->shape);
    struct state_message message = {.job = w->request->job};
    a->size = denoiser_state_bytes(&reply, 0);
    a->bytes = aligned_alloc(ALIGNMENT, (a->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (a->bytes == NULL) return out_of_memory(error);
    TRY(denoiser_state_pack(&reply, &message, w->part->backend, a->bytes, error));
    return denoiser_state_unpack(a->bytes, a->size, &form, NULL, &read, &message, error);
}

static tessera_status compute(struct work *w, tessera_error *error) {
    TRY(choose_range(w, error));
    if (w->request->block_hashes) {
        w->answer->hashes = calloc((size_t)(last_part(&w->range) - w->range.first), sizeof *w->answer->hashes);
        if (w->answer->hashes == NULL) return out_of_memory(error);
    }
    TRY(take_state(w, error));
    TRY(compute_blocks(w, error));
    return give_answer(w, error);
}

tessera_status split_part_compute(struct split_part *part, const struct split_request *request, struct split_answer *answer,
                                  tessera_error *error) {
    struct work w = {.part = part, .request = request, .answer = answer};
    *answer = (struct split_answer){0};
    part->run.error = (tessera_error){0};
    size_t before = run_enter(&part->run);
    tessera_status status = compute(&w, error);
    if (status != TESSERA_OK) split_answer_free(answer);
    part->run.error = (tessera_error){0};
    arena_release(part->run.arena, before);
    return status;
}

void split_answer_free(struct split_answer *answer) {
    free(answer->bytes);
    free(answer->hashes);
    *answer = (struct split_answer){0};
}
