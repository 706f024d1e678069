/* CFG parallelism (Ho and Salimans 2022, equation 6): each half of guidance on other ranks.
 * Positions do not meet, so that its only hook is what it sends, once a step: the predictions of a
 * half, float32, to the other one (pipelines/denoise.c). */
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_CFG] > 1;
}

static void end_bytes(struct plan_pass *p, int64_t latents) {
    if (plan_pass_is_last_stage(p)) plan_pass_add(p, MESH_CFG, (p->degrees[MESH_CFG] - 1) * latents * p->m->channels, (int)sizeof(float));
}

static void end_wait(const struct plan_estimate *e, struct plan_cost *cost) {
    double latents = (double)(e->m->rows * e->m->columns * e->m->channels) * e->share * sizeof(float);
    plan_wait_add(&cost->wait, 1, plan_wait_to_all(e, plan_axis_group(e->mesh, MESH_CFG), latents));
}

const struct strategy cfg_strategy = {.name = "cfg", .group = MESH_CFG, .applies = applies, .end_bytes = end_bytes, .end_wait = end_wait};
