/* Kind step_cache: a whole loop of sampling over one transformer with a step cache; which steps were skipped, what was compared with the
 * threshold, the guided predictions and the latents after each step.
 *
 * In bfloat16 the numbers compared and the predictions are left out, as their errors are several times those of a pass; decisions are not,
 * since cases keep them a fifth away from the threshold.
 * Where the mesh has a ring and nothing else that cuts a picture, the loop is run once more with displaced patches. No case has both, so
 * latents must be finite, and all ranks must have skipped the same steps. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

#include "denoiser_case.h"
#include "pipelines/step_cache.h"
#include "schedulers/scheduler.h"
#include "spread.h"

enum { MAX_STEPS = 64 };

struct cached_loop {
    struct denoiser_case given; /* in.latents: the noise that a loop begins with */
    int64_t steps;
    double scale;      /* of guidance: e_0 + scale (e_1 - e_0); 0: one prediction */
    float embedded[2]; /* guidance as an input of the model; 0: none */
    int kind;          /* enum step_cache_kind */
    double threshold;
    bool skips[MAX_STEPS]; /* those that the case has */
    struct scheduler *scheduler;
};

/* One time through it. */
struct passage {
    struct step_cache cache;
    struct scheduler_state state;
    struct tensor latents;       /* F32 [1, H, W, C], owned */
    char skipped[MAX_STEPS + 1]; /* 's' or '.' per step */
};

/* ---- reading ---- */

static tessera_status read_numbers(const struct conformance_case *c, struct cached_loop *loop, tessera_error *error) {
    const struct json *json = c->io.json;
    const char *kind = "";
    int64_t skipped[MAX_STEPS];
    int count = 0;
    double embedded;
    TRY(json_int(json, "steps", 0, 1, MAX_STEPS, &loop->steps, error));
    TRY(json_double(json, "guidance_scale", 0.0, &loop->scale, error));
    TRY(json_double(json, "guidance", 0.0, &embedded, error));
    TRY(json_double(json, "threshold", 0.0, &loop->threshold, error));
    TRY(json_string(json, "cache", "", &kind, error));
    TRY(json_ints(json, "skipped", 0, loop->steps - 1, skipped, MAX_STEPS, &count, error));
    for (int i = 0; i < count; i++) loop->skips[skipped[i]] = true;
    loop->embedded[0] = loop->embedded[1] = (float)embedded;
    while (step_cache_kind_name(loop->kind) != NULL && strcmp(step_cache_kind_name(loop->kind), kind) != 0) loop->kind++;
    if (loop->kind == STEP_CACHE_KINDS) return error_set(error, TESSERA_ERROR_FORMAT, "field cache: \"%s\" is no step cache", kind);
    return TESSERA_OK;
}

static tessera_status read_loop(const struct conformance_case *c, struct cached_loop *loop, tessera_error *error) {
    TRY(read_numbers(c, loop, error));
    loop->given = denoiser_case_read(&c->io);
    const struct tensor wanted = case_tensor(&c->io, "out.latents"), noise = case_tensor(&c->io, "out.noise");
    if (loop->given.latents == NULL || loop->given.in.latents.shape[0] != 1 || wanted.data == NULL || noise.data == NULL ||
        wanted.shape[0] != loop->steps || noise.shape[0] != loop->steps)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "in.sample (or in.hidden_states) of one picture, out.latents or out.noise is missing");
    TRY(scheduler_open(c->folder, NULL, &loop->scheduler, error));
    return scheduler_set_timesteps(loop->scheduler, (int)loop->steps, 0.0f, error);
}

static void free_loop(struct cached_loop *loop) {
    scheduler_free(loop->scheduler);
    denoiser_case_free(&loop->given);
}

/* ---- a step ---- */

/* Rows first .. first + count of a batch. */
static struct tensor batch_rows(struct tensor t, int64_t first, int64_t count) {
    if (t.data == NULL) return t;
    t.data = (char *)t.data + tensor_bytes(&t) / (size_t)t.shape[0] * (size_t)first;
    t.shape[0] = count;
    return t;
}

/* The model's predictions for rows first .. first + count of guidance. */
static struct tensor predict(struct conformance_case *c, const struct denoiser *denoiser, const struct cached_loop *loop,
                             struct passage *passage, int step, int64_t first, int64_t count) {
    const struct tensor *x = &passage->latents;
    const struct denoiser_inputs *given = &loop->given.in;
    size_t numbers = (size_t)tensor_count(x);
    struct tensor input = run_tensor(&c->run, DTYPE_F32, SHAPE(count, x->shape[1], x->shape[2], x->shape[3]));
    if (run_failed(&c->run)) return input;
    for (int64_t b = 0; b < count; b++)
        loop->scheduler->class->scale_model_input(loop->scheduler, step, (float *)input.data + (size_t)b * numbers, x->data, numbers);
    float timesteps[2] = {loop->scheduler->timesteps[step], loop->scheduler->timesteps[step]};
    struct denoiser_inputs in = {.latents = input,
                                 .timesteps = timesteps,
                                 .text = batch_rows(given->text, first, count),
                                 .pooled = batch_rows(given->pooled, first, count),
                                 .text_mask = batch_rows(given->text_mask, first, count),
                                 .text_2 = batch_rows(given->text_2, first, count),
                                 .text_2_mask = batch_rows(given->text_2_mask, first, count)};
    if (loop->embedded[0] > 0) in.guidance = tensor_of((void *)loop->embedded, DTYPE_F32, SHAPE(count));
    struct tensor out = step_cache_forward(&passage->cache, denoiser, &c->run, &in, step == loop->steps - 1);
    return out.data == NULL || out.shape[3] == x->shape[3] ? out : nn_slice_channels(&c->run, out, 0, x->shape[3]);
}

/* e_0 + scale (e_1 - e_0), of all ranks' rows; empty on failure, which is the case's outcome then. */
static struct tensor predict_guided(struct conformance_case *c, const struct denoiser *denoiser, const struct cached_loop *loop,
                                    struct passage *passage, int step) {
    int halves = c->mesh->degrees[MESH_CFG], half = c->mesh->coordinate[MESH_CFG];
    struct tensor both = predict(c, denoiser, loop, passage, step, half, loop->scale == 0 || halves == 2 ? 1 : 2);
    if (run_failed(&c->run)) {
        case_error(c, &c->run.error);
        if (c->world->ranks > 1) comm_abort(c->world->comm, &c->run.error);
        return both;
    }
    both = loop->scale == 0 ? both : spread_join(c, both);
    if (loop->scale == 0 || both.data == NULL) return both;
    float *e = both.data;
    int64_t count = tensor_count(&passage->latents);
    for (int64_t i = 0; i < count; i++) e[i] += (float)loop->scale * (e[count + i] - e[i]);
    return batch_rows(both, 0, 1);
}

/* ---- checks ---- */

/* Step `index` of what the case has, against a picture of the engine's. */
static void check_picture(struct conformance_case *c, const char *name, int index, struct tensor got) {
    struct tensor row = batch_rows(case_tensor(&c->io, name), index, 1), ids = case_tensor(&c->io, "in.img_ids");
    row = tensor_reshape(row, row.ndim - 1, row.shape + 1);
    struct tensor picture = ids.data != NULL ? case_unpacked(&row, &ids) : case_channels_last(&row);
    char step_name[48];
    snprintf(step_name, sizeof step_name, "%s, step %d", name, index);
    case_check(c, step_name, got, picture);
    free(picture.data);
}

static void check_decision(struct conformance_case *c, const struct cached_loop *loop, const struct passage *passage, int step) {
    bool skipped = passage->skipped[step] == 's';
    const cJSON *wanted = cJSON_GetArrayItem(json_find(c->io.json, "compared"), step);
    double compared = passage->cache.compared;
    if (skipped != loop->skips[step]) case_fail(c, "step %d: %s, at %g", step, skipped ? "skipped" : "computed", compared);
    if (c->dtype != DTYPE_F32) return;
    if (!cJSON_IsNumber(wanted) != isnan(compared)) case_fail(c, "step %d: %g was compared", step, compared);
    if (cJSON_IsNumber(wanted) && fabs(compared - wanted->valuedouble) > c->io.atol + c->io.rtol * wanted->valuedouble)
        case_fail(c, "step %d: %g was compared instead of %g", step, compared, wanted->valuedouble);
}

/* All blocks are asked for in each step; a first-block cache runs one of them always. */
static void check_counts(struct conformance_case *c, const struct cached_loop *loop, const struct denoiser *denoiser,
                         const struct passage *passage) {
    int64_t skipped = 0, wanted = 0, left_out = denoiser->num_blocks - (loop->kind == STEP_CACHE_FIRST_BLOCK ? 1 : 0);
    for (int i = 0; i < loop->steps; i++) skipped += passage->skipped[i] == 's' ? left_out : 0;
    wanted = loop->steps * denoiser->num_blocks;
    if (passage->cache.blocks != wanted || passage->cache.blocks_skipped != skipped)
        case_fail(c, "%lld of %lld blocks skipped were counted, not %lld of %lld", (long long)passage->cache.blocks_skipped,
                  (long long)passage->cache.blocks, (long long)skipped, (long long)wanted);
}

/* ---- a loop ---- */

static tessera_status begin(struct conformance_case *c, const struct cached_loop *loop, const struct denoiser *denoiser,
                            struct passage *passage, tessera_error *error) {
    struct comm *const groups[STEP_CACHE_GROUPS] = {c->mesh->group[MESH_SEQUENCE], c->mesh->group[MESH_CFG], c->mesh->group[MESH_TENSOR]};
    passage->latents = loop->given.in.latents;
    passage->latents.data = malloc(tensor_bytes(&passage->latents));
    if (passage->latents.data == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the latents");
    memcpy(passage->latents.data, loop->given.in.latents.data, tensor_bytes(&passage->latents));
    TRY(scheduler_state_init(loop->scheduler, (size_t)tensor_count(&passage->latents), &passage->state, error));
    return step_cache_open(&passage->cache, (enum step_cache_kind)loop->kind, loop->threshold, denoiser, 0, groups, error);
}

/* Against the case's numbers where nothing is displaced. */
static void run_steps(struct conformance_case *c, const struct cached_loop *loop, const struct denoiser *denoiser,
                      struct displaced *displaced, struct passage *passage) {
    for (int i = 0; i < loop->steps; i++) {
        size_t scope = run_enter(&c->run);
        int64_t skipped = passage->cache.blocks_skipped;
        if (displaced != NULL) displaced_step(displaced, i);
        struct tensor noise = predict_guided(c, denoiser, loop, passage, i);
        if (noise.data == NULL) return;
        passage->skipped[i] = passage->cache.blocks_skipped > skipped ? 's' : '.';
        scheduler_step(loop->scheduler, &passage->state, i, passage->latents.data, noise.data, NULL,
                       (size_t)tensor_count(&passage->latents));
        if (displaced == NULL) {
            check_decision(c, loop, passage, i);
            if (c->dtype == DTYPE_F32) check_picture(c, "out.noise", i, noise);
            check_picture(c, "out.latents", i, passage->latents);
        }
        run_leave_all(&c->run, scope, NULL, 0);
    }
    check_counts(c, loop, denoiser, passage);
}

static void run_passage(struct conformance_case *c, const struct cached_loop *loop, const struct denoiser *denoiser,
                        struct displaced *displaced) {
    struct passage passage = {0};
    tessera_error error = {0};
    c->parallel.displaced = displaced;
    if (begin(c, loop, denoiser, &passage, &error) != TESSERA_OK)
        case_error(c, &error);
    else
        run_steps(c, loop, denoiser, displaced, &passage);
    c->parallel.displaced = NULL;
    if (displaced != NULL && displaced_reset(displaced, &error) != TESSERA_OK) case_error(c, &error);
    if (displaced != NULL && !run_failed(&c->run)) {
        if (comm_check_same(c->world->comm, "skipped steps", passage.skipped, &error) != TESSERA_OK) case_error(c, &error);
        for (int64_t i = 0; i < tensor_count(&passage.latents); i++)
            if (!isfinite(((const float *)passage.latents.data)[i])) case_fail(c, "displaced patches: latents are not finite");
    }
    step_cache_close(&passage.cache);
    scheduler_state_free(&passage.state);
    free(passage.latents.data);
}

void conform_step_cache(struct conformance_case *c) {
    struct cached_loop loop = {0};
    struct spread_denoiser d = {0};
    tessera_error error = {0};
    const int *degrees = c->mesh->degrees;
    if (read_loop(c, &loop, &error) != TESSERA_OK) {
        case_error(c, &error);
    } else if (spread_open(c, loop.scale > 0, loop.given.in.latents, &d)) {
        run_passage(c, &loop, d.denoiser, NULL);
        struct displaced displaced = {.group = c->mesh->group[MESH_RING], .warmup_steps = 1, .steps = (int)loop.steps};
        bool displaces = degrees[MESH_RING] > 1 && degrees[MESH_ULYSSES] == 1 && degrees[MESH_TENSOR] == 1;
        if (displaces && !run_failed(&c->run)) run_passage(c, &loop, d.denoiser, &displaced);
        displaced_close(&displaced);
    }
    spread_close(&d);
    free_loop(&loop);
}
