/* What tests of displaced patches share: a denoising loop with guidance over a model of
 * tests/cases, by one rank alone or by all as patches, from latents of any size. */
#ifndef TESSERA_TESTS_PATCH_LOOP_H
#define TESSERA_TESTS_PATCH_LOOP_H

#include "base/random.h"
#include "comm/mesh.h"
#include "comm/ranks.h"
#include "comm/stats.h"
#include "denoiser_test.h"
#include "parallel/strategy.h"
#include "schedulers/scheduler.h"

struct patch_world {
    struct comm *comm;
    struct mesh *mesh; /* all ranks on the ring axis */
    int size, rank;
};

/* A model, and the cases that its text and its scheduler come from. */
struct patch_model {
    const char *name, *folder, *inputs, *scheduler;
    double guidance;   /* 0: one prediction */
    int64_t unit;      /* latent rows: the smallest patch of a picture */
    int64_t attention; /* of a transformer: its layers x their width; 0: a U-Net */
};

struct patch_loop {
    const struct patch_world *world;
    const struct patch_model *model;
    struct component_test t;
    struct case_io io;
    struct denoiser_case inputs;
    struct scheduler *scheduler;
    int steps;
    const struct strategy *strategy; /* NULL: displaced patches */
    bool split_text;
};

static inline void patch_world_open(struct patch_world *w) {
    tessera_error error = {0};
    if (comm_world_open(NULL, &w->comm, &error) != TESSERA_OK) exit(1);
    w->size = comm_size(w->comm);
    w->rank = comm_rank(w->comm);
    const int degrees[MESH_AXES] = {1, 1, 1, 1, w->size, 1, 1};
    CHECK_OK(mesh_open(w->comm, degrees, &w->mesh, &error), error);
}

static inline int patch_world_close(struct patch_world *w) {
    mesh_free(w->mesh);
    return ranks_report(w->comm);
}

static inline bool patch_loop_open(struct patch_loop *l, const struct patch_world *world, const struct patch_model *model, int steps) {
    tessera_error error = {0};
    *l = (struct patch_loop){.world = world, .model = model, .steps = steps};
    bool good = component_test_open(&l->t, model->folder, DTYPE_F32);
    CHECK_OK(case_open(model->inputs, &l->io, &error), error);
    l->inputs = denoiser_case_read(&l->io);
    CHECK_OK(scheduler_open(model->scheduler, NULL, &l->scheduler, &error), error);
    if (l->scheduler == NULL || !good) return false;
    CHECK_OK(scheduler_set_timesteps(l->scheduler, steps, 0.0f, &error), error);
    return true;
}

static inline void patch_loop_close(struct patch_loop *l) {
    scheduler_free(l->scheduler);
    denoiser_case_free(&l->inputs);
    case_close(&l->io);
    component_test_close(&l->t);
}

/* What the run shares with the other ranks; alone where d is NULL. */
static inline struct parallel patch_parallel(const struct patch_loop *l, struct displaced *d) {
    struct parallel parallel = {0};
    if (d == NULL) return parallel;
    d->group = parallel.cut_group = l->world->mesh->group[MESH_RING];
    parallel.choice.split_text = l->split_text;
    parallel_add(&parallel, l->strategy != NULL ? l->strategy : &displaced_patches_strategy, d->group, d);
    return parallel;
}

/* The model's predictions for x at a timestep: [2 (or 1), H, W, C]. */
static inline struct tensor patch_predict(struct patch_loop *l, struct tensor x, int step) {
    int64_t batch = l->model->guidance > 0 ? 2 : 1;
    struct run *run = &l->t.run;
    float timesteps[2] = {l->scheduler->timesteps[step], l->scheduler->timesteps[step]}, scales[1] = {3.5f};
    struct tensor latents = run_tensor(run, DTYPE_F32, SHAPE(batch, x.shape[1], x.shape[2], x.shape[3]));
    if (run_failed(run)) return latents;
    size_t count = (size_t)tensor_count(&x);
    for (int64_t b = 0; b < batch; b++)
        l->scheduler->class->scale_model_input(l->scheduler, step, (float *)latents.data + (size_t)b * count, x.data, count);
    struct denoiser_inputs in = l->inputs.in;
    in.latents = latents;
    in.timesteps = timesteps;
    if (batch == 1) in.guidance = tensor_of(scales, DTYPE_F32, SHAPE(1));
    struct tensor out = denoiser_forward(l->t.component.denoiser, run, &in);
    return out.data == NULL || out.shape[3] == x.shape[3] ? out : nn_slice_channels(run, out, 0, x.shape[3]);
}

/* x[0] := e_0 + scale (e_1 - e_0) */
static inline void patch_guide(struct patch_loop *l, struct tensor both, int64_t count) {
    float *e = both.data, scale = (float)l->model->guidance;
    for (int64_t i = 0; i < count && scale > 0; i++) e[i] += scale * (e[count + i] - e[i]);
}

/* F32 [1, rows, columns, C] of noise; the caller frees .data. */
static inline struct tensor patch_noise(const struct patch_loop *l, int64_t rows, int64_t columns) {
    int64_t channels = l->t.component.denoiser->in_channels;
    struct random_generator generator;
    random_seed(&generator, 7);
    struct tensor x = tensor_of(NULL, DTYPE_F32, SHAPE(1, rows, columns, channels));
    x.data = malloc(tensor_bytes(&x));
    random_normal(&generator, x.data, (size_t)tensor_count(&x));
    for (int64_t i = 0; i < tensor_count(&x); i++) ((float *)x.data)[i] *= l->scheduler->init_noise_sigma;
    return x;
}

/* Noise of rows x columns, denoised: F32 [1, rows, columns, C]; the caller frees .data, which is
 * NULL after an error. */
static inline struct tensor patch_loop_run(struct patch_loop *l, struct displaced *d, int64_t rows, int64_t columns) {
    struct run *run = &l->t.run;
    struct tensor x = patch_noise(l, rows, columns);
    int64_t count = tensor_count(&x);
    struct parallel parallel = patch_parallel(l, d);
    struct scheduler_state state;
    tessera_error error = {0};
    CHECK_OK(scheduler_state_init(l->scheduler, (size_t)count, &state, &error), error);
    for (int step = 0; step < l->steps && !run_failed(run); step++) {
        size_t scope = run_enter(run);
        run->parallel = d != NULL ? &parallel : NULL;
        if (d != NULL) displaced_step(d, step);
        struct tensor e = patch_predict(l, x, step);
        if (run_failed(run)) break;
        patch_guide(l, e, count);
        scheduler_step(l->scheduler, &state, step, x.data, e.data, NULL, (size_t)count);
        arena_release(run->arena, scope);
    }
    CHECK(!run_failed(run), "%s of %d rows: %s", l->model->name, (int)rows, run->error.message);
    if (run_failed(run)) free(x.data), x.data = NULL;
    if (d != NULL) CHECK_OK(displaced_reset(d, &error), error);
    scheduler_state_free(&state);
    parallel_free(&parallel);
    run->parallel = NULL;
    return x;
}

#endif
