/* The list of units of a denoising (denoise.c), the same on every rank, and a unit's place in its
 * picture. See flow.h. */
#include "pipelines/flow.h"

tessera_status flow_out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the denoising of a picture");
}

static bool is_whole(const struct flow *f, int step) {
    return f->patches == 1 || step < f->whole_steps;
}

struct unit flow_unit_of(const struct flow *f, int step, int picture) {
    bool whole = is_whole(f, step);
    return (struct unit){.step = step,
                         .picture = picture,
                         .patch = whole ? PATCHES_WHOLE : 0,
                         .prediction = whole && f->predictions_apart ? 0 : BOTH_PREDICTIONS};
}

struct unit flow_next_patch(const struct flow *f, struct unit u) {
    if (u.patch != PATCHES_WHOLE && ++u.patch < f->patches) return u;
    return u.picture + 1 < f->pictures ? flow_unit_of(f, u.step, u.picture + 1) : flow_unit_of(f, u.step + 1, 0);
}

struct unit flow_next_unit(const struct flow *f, struct unit u) {
    if (u.prediction != 0) return flow_next_patch(f, u);
    u.prediction = 1;
    return u;
}

struct span flow_positions(const struct flow *f, struct unit u) {
    if (u.patch == PATCHES_WHOLE) return (struct span){0, f->positions};
    int64_t unit = f->d->denoiser->patch_size * f->d->columns;
    struct span rows = cut_evenly(f->d->rows / f->d->denoiser->patch_size, f->patches, u.patch);
    return (struct span){rows.first * unit, rows.count * unit};
}

int flow_predictions_held(const struct flow *f, struct unit u) {
    if (!f->d->guided) return BOTH_PREDICTIONS;
    return team_degree(f->d->team, MESH_CFG) == 2 ? team_coordinate(f->d->team, MESH_CFG) : u.prediction;
}
