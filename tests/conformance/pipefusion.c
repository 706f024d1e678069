/* Kind pipefusion: a transformer's loop of sampling, its picture in patches that go through the
 * stages of a pipeline, and the latents after each step. A case is run on every mesh of the world
 * that it can have, with any number of stages: the result depends on the patches alone. On several
 * ranks each one's operations, bytes sent and weights are held against formula_pipeline.c. */
#include <stdio.h>

#include "check_cut.h"
#include "loop.h"
#include "pipelines/denoise.h"
#include "team_of_mesh.h"

struct pipeline_run {
    struct conformance_case *c;
    struct loop loop;
    struct team team;
    struct stages stages;
    struct component mine;
    int noises;                      /* how often fresh noise was asked for */
    double alone_whole, alone_patches; /* operations of a step as a whole, and of one in patches, on one rank */
};

/* After a step, on the ranks that take it. */
static void check_step(void *user, int picture, int step, const float *prediction, const float *x) {
    struct pipeline_run *p = user;
    struct tensor got = p->loop.latents, noise = p->loop.latents;
    got.data = (void *)(uintptr_t)x;
    noise.data = (void *)(uintptr_t)prediction;
    if (p->loop.noise.data != NULL && p->c->dtype == DTYPE_F32) loop_check(p->c, "out.noise", p->loop.noise, step, noise);
    loop_check(p->c, "out.latents", p->loop.wanted, step, got);
}

/* Noise for a whole picture; no sampler of these cases reads it. */
static const float *count_noise(void *user, int picture) {
    struct pipeline_run *p = user;
    p->noises++;
    return p->loop.latents.data;
}

/* What is denoised: all steps, by all blocks of `denoiser`. */
static struct denoising denoising_of(const struct pipeline_run *p, const struct denoiser *denoiser, struct team *team, struct run *run) {
    const struct loop *loop = &p->loop;
    const struct tensor *x = &loop->latents;
    struct denoiser_inputs inputs = loop_inputs(loop, 0, loop->scale > 0 ? 2 : 1);
    return (struct denoising){.denoiser = denoiser,
                              .scheduler = loop->scheduler,
                              .team = team,
                              .run = run,
                              .inputs = denoiser_upload(run, &inputs),
                              .guided = loop->scale > 0,
                              .guidance_scale = (float)loop->scale,
                              .rows = x->shape[1],
                              .columns = x->shape[2],
                              .channels = x->shape[3]};
}

/* Operations that this rank alone counts in the last `steps` steps, the first of them as a whole. */
static tessera_status count_alone(const struct pipeline_run *p, const struct denoiser *whole, int steps, double *operations,
                                  tessera_error *error) {
    struct run run = p->c->run;
    struct team alone = team_of_mesh(NULL, p->team.choice.patches);
    alone.whole_steps = 1;
    struct tensor x = case_room(p->c, DTYPE_F32, p->loop.latents.ndim, p->loop.latents.shape);
    TRY(run_status(&run, error));
    memcpy(x.data, p->loop.latents.data, tensor_bytes(&x));
    struct denoising d = denoising_of(p, whole, &alone, &run);
    d.first_step = (int)p->loop.steps - steps;
    run.parallel = NULL;
    run.operations = 0;
    tessera_status status = denoise_pictures(&d, 1, (float *[]){x.data}, error);
    *operations = run.operations;
    return status;
}

/* Fills in p->alone_whole and p->alone_patches. */
static tessera_status count_steps_alone(struct pipeline_run *p, const struct denoiser *whole, tessera_error *error) {
    double both = 0;
    TRY(count_alone(p, whole, 1, &p->alone_whole, error));
    if (p->team.choice.patches == 1 || p->loop.steps == 1) return TESSERA_OK;
    TRY(count_alone(p, whole, 2, &both, error));
    p->alone_patches = both - p->alone_whole;
    return TESSERA_OK;
}

/* What this rank did against what it may do. */
static void check_work(struct pipeline_run *p, const struct component *whole, double operations) {
    struct conformance_case *c = p->c;
    struct conformance_work *w = &c->work;
    struct denoising d = denoising_of(p, whole->denoiser, &p->team, &c->run);
    struct formula_pipeline f = {.f = {.mesh = c->mesh,
                                       .config = whole->config,
                                       .denoiser = whole->denoiser,
                                       .weights = whole->weights,
                                       .dtype = c->dtype,
                                       .batch = d.guided && c->mesh->degrees[MESH_CFG] == 1 ? 2 : 1,
                                       .rows = d.rows,
                                       .columns = d.columns,
                                       .text_tokens = d.inputs.text.shape[1],
                                       .text_2_tokens = d.inputs.text_2.data != NULL ? d.inputs.text_2.shape[1] : 0,
                                       .text_mask = d.inputs.text_mask.data != NULL,
                                       .blocks = stages_blocks(&p->stages)},
                                 .first = p->stages.first,
                                 .patches = p->team.choice.patches,
                                 .steps = (int)p->loop.steps,
                                 .whole_steps = p->team.whole_steps,
                                 .guided = d.guided,
                                 .channels = d.channels,
                                 .alone_whole = p->alone_whole,
                                 .alone_patches = p->alone_patches};
    struct formula_pipeline_work right = formula_pipeline_operations(&f);
    w->operations = (operations - right.repeated.text - right.repeated.conditioning) / right.alone;
    w->operations_limit = SPREAD_OPERATIONS_SLACK * right.share / right.alone;
    w->text = right.repeated.text / right.alone;
    w->conditioning = right.repeated.conditioning / right.alone;
    w->has_formula = formula_pipeline_bytes(&f, &w->bytes_formula);
    w->weights = (double)p->mine.weight_bytes / (double)whole->weight_bytes;
    w->weights_limit = SPREAD_WEIGHTS_SLACK * formula_weight_bytes(&f.f) / (double)whole->weight_bytes;
    spread_check_work(c, "for the latents");
}

static tessera_status denoise_case(struct pipeline_run *p, const struct component *whole, tessera_error *error) {
    struct conformance_case *c = p->c;
    struct loop *loop = &p->loop;
    const struct tensor *x = &loop->latents;
    struct denoising d = denoising_of(p, p->mine.denoiser, &p->team, &c->run);
    d.stages = &p->stages;
    d.user = p;
    d.observe = check_step;
    d.fresh_noise = count_noise;
    if (c->world->ranks > 1) TRY(count_steps_alone(p, whole->denoiser, error));
    double before = c->run.operations;
    uint64_t sent = comm_stats_read(c->world->comm, NULL).bytes_sent;
    TRY(denoise_pictures(&d, 1, (float *[]){x->data}, error));
    c->work.bytes = comm_stats_read(c->world->comm, NULL).bytes_sent - sent;
    if (c->world->ranks > 1 && c->world->weights == NULL) check_work(p, whole, c->run.operations - before);
    bool takes_steps = c->mesh->coordinate[MESH_PIPEFUSION] == c->mesh->degrees[MESH_PIPEFUSION] - 1;
    if (p->noises != (takes_steps ? (int)loop->steps : 0))
        case_fail(c, "fresh noise was drawn %d times in %d steps", p->noises, (int)loop->steps);
    p->c->bits = 0; /* only some ranks have seen the steps */
    loop_check(p->c, "out.latents (on every rank)", loop->wanted, loop->steps - 1, *x);
    return TESSERA_OK;
}

/* Can the case have its mesh? */
static bool check_mesh(struct conformance_case *c, const struct denoiser *whole, const struct loop *loop, int patches,
                       tessera_error *error) {
    const int *degrees = c->mesh->degrees;
    const struct tensor *x = &loop->latents;
    int64_t rows = x->shape[1] / whole->patch_size / patches * whole->patch_size;
    if (degrees[MESH_CFG] > 1 && loop->scale == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg degree 2: no guidance"), false;
    if (degrees[MESH_PIPEFUSION] > whole->num_blocks) return error_set(error, TESSERA_ERROR_ARGUMENT, "more stages than blocks"), false;
    return denoiser_check_degrees(whole, degrees[MESH_ULYSSES], degrees[MESH_TENSOR], error) == TESSERA_OK &&
           check_cut(whole, rows, x->shape[2], degrees[MESH_RING] * degrees[MESH_ULYSSES], error) == TESSERA_OK;
}

static tessera_status run_stage(struct pipeline_run *p, const struct component *whole, tessera_error *error) {
    struct conformance_case *c = p->c;
    char *folder = case_model_folder(c);
    TRY(stages_open(whole->denoiser, c->mesh->degrees[MESH_PIPEFUSION], c->mesh->coordinate[MESH_PIPEFUSION], NULL, c->shares.stages,
                    &p->stages, error));
    struct component_source source = {
        .folder = folder, .backend = c->run.backend, .scope = team_scope(&p->team, stages_blocks(&p->stages))};
    tessera_status status = component_open(&source, c->dtype, &p->mine, error);
    if (status == TESSERA_OK) status = component_load(&p->mine, error);
    free(folder);
    return status == TESSERA_OK ? denoise_case(p, whole, error) : status;
}

static void run_patches(struct conformance_case *c, int patches, int warmup) {
    struct pipeline_run p = {.c = c, .team = team_of_mesh((struct mesh *)(uintptr_t)c->mesh, patches)};
    struct component whole = {0};
    tessera_error error = {0};
    p.team.shares.rows = c->shares.rows;
    p.team.shares.heads = c->shares.heads;
    p.team.whole_steps = warmup;
    if (loop_read(c, &p.loop, &error) != TESSERA_OK)
        case_error(c, &error);
    else if (case_component(c, &whole)) {
        if (whole.denoiser == NULL)
            case_fail(c, "model/ is no denoiser");
        else if (!check_mesh(c, whole.denoiser, &p.loop, patches, &error))
            spread_cannot_have(c, error.message);
        else if (run_stage(&p, &whole, &error) != TESSERA_OK)
            case_error(c, &error);
    }
    c->run.parallel = NULL;
    component_close(&p.mine);
    component_close(&whole);
    stages_free(&p.stages);
    loop_free(&p.loop);
}

void conform_pipefusion(struct conformance_case *c) {
    tessera_error error = {0};
    int64_t patches = 0, warmup = 0;
    if (json_int(c->io.json, "patches", 1, 1, 1024, &patches, &error) != TESSERA_OK ||
        json_int(c->io.json, "warmup_steps", 0, 0, 1024, &warmup, &error) != TESSERA_OK)
        case_error(c, &error);
    else
        run_patches(c, (int)patches, (int)warmup);
}
