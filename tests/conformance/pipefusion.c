/* Kind pipefusion: a transformer's loop of sampling, its picture in parts that go through the stages of a pipeline, and the latents after
 * each step. A case is run on every mesh of the world that it can have, with any number of stages: the result depends on the parts alone. */
#include <stdio.h>

#include "denoiser_case.h"
#include "loop.h"
#include "pipelines/denoise.h"

struct pipeline_run {
    struct conformance_case *c;
    struct loop loop;
    struct team team;
    struct stages stages;
    struct component mine;
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

static tessera_status denoise_case(struct pipeline_run *p, tessera_error *error) {
    struct loop *loop = &p->loop;
    const struct tensor *x = &loop->latents;
    struct denoising d = {.denoiser = p->mine.denoiser,
                          .stages = &p->stages,
                          .scheduler = loop->scheduler,
                          .team = &p->team,
                          .run = &p->c->run,
                          .inputs = loop_inputs(p->c, loop, 0, loop->scale > 0 ? 2 : 1),
                          .guided = loop->scale > 0,
                          .guidance_scale = (float)loop->scale,
                          .rows = x->shape[1],
                          .columns = x->shape[2],
                          .channels = x->shape[3],
                          .user = p,
                          .observe = check_step};
    float *samples[] = {x->data};
    TRY(denoise_pictures(&d, 1, samples, error));
    p->c->bits = 0; /* only some ranks have seen the steps */
    loop_check(p->c, "out.latents (on every rank)", loop->wanted, loop->steps - 1, *x);
    return TESSERA_OK;
}

/* Can the case have its mesh? */
static bool check_mesh(struct conformance_case *c, const struct denoiser *whole, const struct loop *loop, int parts, tessera_error *error) {
    const int *degrees = c->mesh->degrees;
    const struct tensor *x = &loop->latents;
    int64_t rows = x->shape[1] / whole->patch_size / parts * whole->patch_size;
    if (degrees[MESH_CFG] > 1 && loop->scale == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg degree 2: no guidance"), false;
    if (degrees[MESH_PIPEFUSION] > whole->num_blocks) return error_set(error, TESSERA_ERROR_ARGUMENT, "more stages than blocks"), false;
    return denoiser_check_degrees(whole, degrees[MESH_ULYSSES], degrees[MESH_TENSOR], error) == TESSERA_OK &&
           denoiser_check_cut(whole, rows, x->shape[2], degrees[MESH_RING] * degrees[MESH_ULYSSES], error) == TESSERA_OK;
}

static tessera_status run_stage(struct pipeline_run *p, const struct component *whole, tessera_error *error) {
    struct conformance_case *c = p->c;
    char *folder = case_model_folder(c);
    TRY(stages_open(whole->denoiser, c->mesh->degrees[MESH_PIPEFUSION], c->mesh->coordinate[MESH_PIPEFUSION], NULL, &p->stages, error));
    struct component_source source = {.folder = folder, .share = team_share(&p->team, stages_blocks(&p->stages))};
    tessera_status status = component_open(&source, c->dtype, &p->mine, error);
    free(folder);
    return status == TESSERA_OK ? denoise_case(p, error) : status;
}

static void run_parts(struct conformance_case *c, int parts, int warmup) {
    struct pipeline_run p = {.c = c};
    struct component whole = {0};
    tessera_error error = {0};
    team_of_mesh(&p.team, (struct mesh *)(uintptr_t)c->mesh);
    p.team.patches.count = parts;
    p.team.whole_steps = warmup > 0 ? warmup : 1;
    if (parts > 1) p.team.denoiser.patches = &p.team.patches;
    if (loop_read(c, &p.loop, &error) != TESSERA_OK)
        case_error(c, &error);
    else if (case_component(c, &whole)) {
        if (whole.denoiser == NULL)
            case_fail(c, "model/ is no denoiser");
        else if (!check_mesh(c, whole.denoiser, &p.loop, parts, &error))
            spread_cannot_have(c, error.message);
        else if (run_stage(&p, &whole, &error) != TESSERA_OK)
            case_error(c, &error);
    }
    c->run.parallel = NULL;
    parallel_free(&p.team.denoiser);
    component_close(&p.mine);
    component_close(&whole);
    stages_free(&p.stages);
    loop_free(&p.loop);
}

void conform_pipefusion(struct conformance_case *c) {
    tessera_error error = {0};
    int64_t parts = 0, warmup = 0;
    if (json_int(c->io.json, "patches", 1, 1, 1024, &parts, &error) != TESSERA_OK ||
        json_int(c->io.json, "warmup_steps", 0, 0, 1024, &warmup, &error) != TESSERA_OK)
        case_error(c, &error);
    else
        run_parts(c, (int)parts, (int)warmup);
}
