/* Kinds distrifusion and displaced: a whole loop of sampling over one model, with guidance, and the
 * latents after each step.
 *
 *     distrifusion   a UNet, DDIM; out.noise (the guided prediction) and out.latents
 *     displaced      a transformer, its patches one step behind each other
 *
 * A step, where the mesh cuts the batch of guidance: each half predicts its own, then both get both
 * (row 0 is unconditional). In bfloat16 only the latents are compared: e_0 + s (e_1 - e_0) is a
 * small difference made large, so a guided prediction has the errors of its passes several times
 * over, and their limit is per pass. Naive and displaced patches run on the number of ranks that
 * their case has, the patches on the ring axis.
 */
#include <stdio.h>

#include "loop.h"

/* Rows first .. first + count of a batch. */
static struct tensor batch_rows(struct tensor t, int64_t first, int64_t count) {
    if (t.data == NULL) return t;
    t.data = (char *)t.data + tensor_bytes(&t) / (size_t)t.shape[0] * (size_t)first;
    t.shape[0] = count;
    return t;
}

static void skip(struct conformance_case *c, const char *reason) {
    c->verdict = VERDICT_SKIP;
    snprintf(c->reason, sizeof c->reason, "%s", reason);
}

tessera_status loop_read(struct conformance_case *c, struct loop *loop, tessera_error *error) {
    const struct case_io *io = &c->io;
    double embedded;
    TRY(json_int(io->json, "steps", 0, 1, 1000, &loop->steps, error));
    TRY(json_double(io->json, "guidance_scale", 0.0, &loop->scale, error));
    TRY(json_double(io->json, "guidance", 0.0, &embedded, error));
    loop->embedded[0] = loop->embedded[1] = (float)embedded;
    loop->given = denoiser_case_read(io);
    loop->noise = case_tensor(io, "out.noise");
    loop->wanted = case_tensor(io, "out.latents");
    if (loop->given.latents == NULL || loop->wanted.data == NULL || loop->given.in.latents.shape[0] != 1 ||
        loop->wanted.shape[0] != loop->steps)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "in.sample (or in.hidden_states) of one picture or out.latents of all steps is missing");
    loop->latents = loop->given.in.latents;
    size_t bytes = tensor_bytes(&loop->latents);
    loop->latents.data = malloc(bytes);
    if (loop->latents.data == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the latents");
    memcpy(loop->latents.data, loop->given.latents, bytes);
    TRY(scheduler_open(c->folder, NULL, &loop->scheduler, error));
    TRY(scheduler_set_timesteps(loop->scheduler, (int)loop->steps, 0.0f, error));
    return scheduler_state_init(loop->scheduler, (size_t)tensor_count(&loop->latents), &loop->state, error);
}

void loop_free(struct loop *loop) {
    scheduler_state_free(&loop->state);
    scheduler_free(loop->scheduler);
    denoiser_case_free(&loop->given);
    free(loop->latents.data);
}

void loop_check(struct conformance_case *c, const char *name, struct tensor wanted, int64_t index, struct tensor got) {
    struct tensor row = batch_rows(wanted, index, 1), ids = case_tensor(&c->io, "in.img_ids");
    for (int i = 1; i < row.ndim; i++) row.shape[i - 1] = row.shape[i];
    row.ndim--;
    struct tensor picture = ids.data != NULL ? case_unpacked(&row, &ids) : case_channels_last(&row);
    char step_name[48];
    snprintf(step_name, sizeof step_name, "%s, step %d", name, (int)index);
    case_check(c, step_name, got, picture);
    free(picture.data);
}

struct denoiser_inputs loop_inputs(const struct loop *loop, int64_t first, int64_t count) {
    struct denoiser_inputs in = loop->given.in;
    struct tensor *const rows[] = {&in.text, &in.pooled, &in.text_mask, &in.text_2, &in.text_2_mask, &in.size_conditions};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) *rows[i] = batch_rows(*rows[i], first, count);
    in.latents = in.guidance = (struct tensor){0};
    in.timesteps = NULL;
    if (loop->embedded[0] > 0) in.guidance = tensor_of((void *)(uintptr_t)loop->embedded, DTYPE_F32, SHAPE(count));
    return in;
}

/* The model's predictions for predictions first .. first + count. */
static struct tensor predict_rows(struct conformance_case *c, struct loop *loop, int step, int64_t first, int64_t count,
                                  loop_predict *predict, void *user) {
    const struct tensor *x = &loop->latents;
    struct tensor input = case_room(c, DTYPE_F32, SHAPE(count, x->shape[1], x->shape[2], x->shape[3]));
    float timesteps[2] = {loop->scheduler->timesteps[step], loop->scheduler->timesteps[step]};
    if (input.data == NULL) return (struct tensor){0};
    size_t numbers = (size_t)tensor_count(x);
    loop->scheduler->class->scale_model_input(loop->scheduler, step, input.data, x->data, numbers);
    if (count == 2) memcpy((float *)input.data + numbers, input.data, numbers * sizeof(float));
    struct denoiser_inputs in = loop_inputs(loop, first, count);
    in.latents = input;
    in.timesteps = timesteps;
    struct tensor out = predict(c, loop, step, &in, user);
    return out.data == NULL || out.shape[3] == x->shape[3]
               ? out
               : case_host(c, nn_slice_channels(&c->run, run_upload(&c->run, out), 0, x->shape[3]));
}

struct tensor loop_guided(struct conformance_case *c, struct loop *loop, int step, loop_predict *predict, void *user) {
    if (loop->scale == 0) return predict_rows(c, loop, step, 0, 1, predict, user);
    int halves = c->mesh->degrees[MESH_CFG], half = c->mesh->coordinate[MESH_CFG];
    struct tensor both = spread_join(c, predict_rows(c, loop, step, half, halves == 1 ? 2 : 1, predict, user));
    if (both.data == NULL) return both;
    float *e = both.data;
    int64_t count = tensor_count(&loop->latents);
    for (int64_t i = 0; i < count; i++) e[i] += (float)loop->scale * (e[count + i] - e[i]);
    return batch_rows(both, 0, 1);
}

void loop_step(struct loop *loop, int step, struct tensor prediction) {
    scheduler_step(loop->scheduler, &loop->state, step, loop->latents.data, prediction.data, NULL, (size_t)tensor_count(&loop->latents));
}

/* ---- patches ---- */

static struct tensor predict(struct conformance_case *c, const struct loop *loop, int step, const struct denoiser_inputs *in, void *user) {
    struct spread_denoiser *d = user;
    if (loop->choice.patch_strategy == NULL) return spread_predict(c, d, in);
    struct denoiser_inputs mine = *in;
    mine.latents = exchange_split(&c->run, run_upload(&c->run, in->latents), d->denoiser->patch_size);
    struct tensor out = run_failed(&c->run) ? (struct tensor){0} : denoiser_forward(d->denoiser, &c->run, &mine);
    out = exchange_unite(&c->run, out, in->latents, d->denoiser->patch_size);
    (void)step;
    if (run_failed(&c->run)) case_error(c, &c->run.error);
    return case_host(c, out);
}

static void run_steps(struct conformance_case *c, struct spread_denoiser *d, struct loop *loop) {
    for (int i = 0; i < loop->steps && c->verdict != VERDICT_SKIP; i++) {
        size_t scope = run_enter(&c->run);
        parallel_begin(&c->parallel, &(struct strategy_moment){.step = i, .patch = PATCHES_WHOLE, .predictions = 1});
        struct tensor noise = loop_guided(c, loop, i, predict, d);
        if (noise.data == NULL) return;
        loop_step(loop, i, noise);
        if (loop->noise.data != NULL && c->dtype == DTYPE_F32) loop_check(c, "out.noise", loop->noise, i, noise);
        loop_check(c, "out.latents", loop->wanted, i, loop->latents);
        run_leave_all(&c->run, scope, NULL, 0);
    }
}

static void run_loop(struct conformance_case *c, struct loop loop) {
    struct spread_denoiser d = {0};
    tessera_error error = {0};
    if (loop.choice.patch_strategy != NULL && spread_patches(c, &loop.choice, &error) != TESSERA_OK)
        case_error(c, &error);
    else if (loop_read(c, &loop, &error) != TESSERA_OK)
        case_error(c, &error);
    else if (spread_open(c, loop.scale > 0, loop.latents, &d))
        run_steps(c, &d, &loop);
    if (parallel_reset(&c->parallel, &error) != TESSERA_OK) case_error(c, &error);
    spread_close(&d);
    loop_free(&loop);
}

/* A case of patches: of all meshes, the one whose ring and guidance axes are as the case says. */
static void run_patches(struct conformance_case *c, struct loop loop, int64_t ranks, bool batch_split) {
    int halves = batch_split ? 2 : 1;
    if (c->world->ranks != ranks) {
        char reason[64];
        snprintf(reason, sizeof reason, "patches of %d ranks: start as many", (int)ranks);
        skip(c, reason);
    } else if (c->mesh->degrees[MESH_CFG] != halves || c->mesh->degrees[MESH_RING] * halves != ranks) {
        spread_cannot_have(c, "patches have one mesh");
    } else {
        run_loop(c, loop);
    }
}

/* The place of `name` among those that `name_at` gives; -1: it is none of them. */
static int place_of(const char *name, const char *(*name_at)(int)) {
    for (int i = 0; name_at(i) != NULL; i++)
        if (strcmp(name, name_at(i)) == 0) return i;
    return -1;
}

void conform_distrifusion(struct conformance_case *c) {
    tessera_error error = {0};
    int64_t ranks = 0, warmup = 0;
    const char *parallelism = "", *mode = "", *split = "";
    bool batch_split = false;
    const struct json *json = c->io.json;
    if (json_int(json, "ranks", 1, 1, 1024, &ranks, &error) != TESSERA_OK ||
        json_int(json, "warmup_steps", 0, 0, 1024, &warmup, &error) != TESSERA_OK ||
        json_string(json, "parallelism", "", &parallelism, &error) != TESSERA_OK ||
        json_string(json, "split_scheme", "row", &split, &error) != TESSERA_OK ||
        json_bool(json, "split_batch", false, &batch_split, &error) != TESSERA_OK ||
        json_string(json, "mode", "", &mode, &error) != TESSERA_OK) {
        case_error(c, &error);
        return;
    }
    int split_place = place_of(split, naive_split_name), mode_place = place_of(mode, sync_mode_name);
    struct loop loop = {.choice = {.patch_strategy = strategy_of_patches(parallelism),
                                   .split = (enum naive_split)split_place,
                                   .sync_mode = (enum sync_mode)mode_place,
                                   .warmup_steps = (int)warmup,
                                   .published_group_norm = true}};
    if (ranks == 1)
        run_loop(c, (struct loop){0});
    else if (split_place < 0 || mode_place < 0 || loop.choice.patch_strategy == NULL)
        case_fail(c, "parallelism \"%s\", split_scheme \"%s\" or mode \"%s\" is unknown", parallelism, split, mode);
    else
        run_patches(c, loop, ranks, batch_split);
}

void conform_displaced(struct conformance_case *c) {
    tessera_error error = {0};
    int64_t patches = 0, warmup = 0;
    bool split_text = false;
    const char *parallelism = "patch";
    if (json_int(c->io.json, "patches", 1, 1, 1024, &patches, &error) != TESSERA_OK ||
        json_int(c->io.json, "warmup_steps", 0, 0, 1024, &warmup, &error) != TESSERA_OK ||
        json_string(c->io.json, "parallelism", parallelism, &parallelism, &error) != TESSERA_OK ||
        json_bool(c->io.json, "split_text", false, &split_text, &error) != TESSERA_OK) {
        case_error(c, &error);
        return;
    }
    struct loop loop = {
        .choice = {.patch_strategy = strategy_of_patches(parallelism), .warmup_steps = (int)warmup, .split_text = split_text}};
    if (loop.choice.patch_strategy == NULL)
        case_fail(c, "parallelism \"%s\" is unknown", parallelism);
    else if (patches == 1)
        run_loop(c, (struct loop){0});
    else
        run_patches(c, loop, patches, false);
}
