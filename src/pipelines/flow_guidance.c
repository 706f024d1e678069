/* Makes the guided prediction from those for the negative prompt and the prompt (equations in
 * denoise.c). See flow.h. */
#include "pipelines/flow.h"

#include <math.h>
#include <string.h>

tessera_status flow_store_predictions(struct flow *f, struct unit u, struct tensor out, tessera_error *error) {
    const struct denoising *d = f->d;
    int mine = flow_predictions_held(f, u);
    struct span at = flow_positions(f, u);
    size_t bytes = (size_t)(at.count * d->channels) * sizeof(float);
    float *both[] = {f->predictions + at.first * d->channels, f->predictions + f->count + at.first * d->channels};
    float *predicted = run_map(d->run, &out, MAP_READ);
    for (int64_t b = 0; b < out.shape[0] && predicted != NULL; b++) {
        const float *from = predicted + b * at.count * out.shape[3];
        float *to = both[mine == BOTH_PREDICTIONS ? b : mine];
        for (int64_t i = 0; i < at.count; i++, from += out.shape[3], to += d->channels) memcpy(to, from, (size_t)d->channels * sizeof *to);
    }
    run_unmap(d->run, &out, predicted, MAP_READ);
    TRY(run_status(d->run, error));
    if (!d->guided || team_degree(d->team, MESH_CFG) == 1) return TESSERA_OK;
    struct comm *group = d->team->mesh->group[MESH_CFG];
    struct tensor joined = run_tensor(d->run, DTYPE_F32, SHAPE(2, at.count, d->channels));
    char *gathered = run_map(d->run, &joined, MAP_ROOM);
    TRY(run_status(d->run, error));
    comm_label(group, "cfg");
    tessera_status status = comm_all_gather(group, both[mine], gathered, (const size_t[]){bytes, bytes}, error);
    if (status == TESSERA_OK) memcpy(both[1 - mine], gathered + (size_t)(1 - mine) * bytes, bytes);
    run_unmap(d->run, &joined, gathered, MAP_ROOM);
    return status;
}

static void add_sums(double *sum, double *squares, const float *e, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        *sum += e[i];
        *squares += (double)e[i] * e[i];
    }
}

static double deviation(double sum, double squares, double count) {
    double mean = sum / count;
    return sqrt(squares / count - mean * mean);
}

/* Gives e, the guided prediction at `at`, the deviation that the prompt's own has, by the share
 * guidance_rescale. */
static void rescale_guided(struct flow *f, struct unit u, struct span at, const float *prompt, float *e) {
    float rescale = f->d->guidance_rescale;
    int64_t width = f->d->channels;
    struct guidance_sums all = {0};
    for (int p = 0; p < f->patches; p++) {
        struct unit patch = {.patch = f->patches > 1 ? p : PATCHES_WHOLE};
        struct span rows = flow_positions(f, patch);
        struct guidance_sums *s = &f->sums[p];
        if (u.patch == PATCHES_WHOLE || u.patch == p) {
            *s = (struct guidance_sums){.count = (double)(rows.count * width)};
            add_sums(&s->prompt, &s->prompt_squares, prompt + (rows.first - at.first) * width, rows.count * width);
            add_sums(&s->guided, &s->guided_squares, e + (rows.first - at.first) * width, rows.count * width);
        }
        all.count += s->count;
        all.prompt += s->prompt;
        all.prompt_squares += s->prompt_squares;
        all.guided += s->guided;
        all.guided_squares += s->guided_squares;
    }
    float ratio = (float)(deviation(all.prompt, all.prompt_squares, all.count) / deviation(all.guided, all.guided_squares, all.count));
    for (int64_t i = 0; i < at.count * width; i++) e[i] = rescale * (e[i] * ratio) + (1.0f - rescale) * e[i];
}

void flow_guide(struct flow *f, struct unit u, struct span at) {
    const struct denoising *d = f->d;
    int64_t first = at.first * d->channels, count = at.count * d->channels;
    const float *negative = f->predictions + first, *prompt = negative + f->count;
    float *e = f->prediction + first;
    if (!d->guided) {
        memcpy(e, negative, (size_t)count * sizeof *e);
        return;
    }
    for (int64_t i = 0; i < count; i++) e[i] = negative[i] + d->guidance_scale * (prompt[i] - negative[i]);
    if (d->guidance_rescale > 0.0f) rescale_guided(f, u, at, prompt, e);
}
