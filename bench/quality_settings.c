/* See quality_settings.h. */
#include "quality_settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 128, FIRST = 7 /* ways that are measured before all others */ };

static const char *const schedulers[] = {"DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"};
static const int steps[] = {20, 10, 50};
enum { STEPS = sizeof steps / sizeof *steps, SAMPLERS = STEPS * (int)(sizeof schedulers / sizeof *schedulers) };

/* What a rank's patches may do, the most telling first. full_sync is exact at any warm-up, so one
 * is enough. */
static const struct {
    const char *strategy, *sync_mode;
    int warmup;
    const char *option;
} patches[] = {
    {"patch", "corrected_async_gn", 4, ""},
    {"patch", "no_sync", 4, ""},
    {"patch", "stale_gn", 4, ""},
    {"patch", "corrected_async_gn", 0, ""},
    {"patch", "no_sync", 0, ""},
    {"patch", "stale_gn", 0, ""},
    {"naive_patch", "", -1, "row"},
    {"patch", "separate_gn", 4, ""},
    {"patch", "sync_gn", 4, ""},
    {"patch", "full_sync", 0, ""},
    {"patch", "corrected_async_gn", 4, "published_group_norm"},
    {"patch", "corrected_async_gn", 1, ""},
    {"patch", "no_sync", 1, ""},
    {"patch", "stale_gn", 1, ""},
    {"patch", "separate_gn", 0, ""},
    {"patch", "sync_gn", 0, ""},
    {"patch", "separate_gn", 1, ""},
    {"patch", "sync_gn", 1, ""},
    {"patch", "corrected_async_gn", 0, "published_group_norm"},
    {"naive_patch", "", -1, "col"},
    {"naive_patch", "", -1, "alternate"},
};
/* The same ways on higher pictures: is it the number of patches that costs, or that they are low? */
static const struct { int ranks, height; } higher[] = {{2, 2 * SIDE}, {4, 2 * SIDE}, {8, 4 * SIDE}};
static const char *const higher_modes[] = {"corrected_async_gn", "stale_gn", "sync_gn"};
/* Beside the patches: exact strategies on two ranks, small weights on one. */
static const struct {
    int ranks;
    const char *strategy, *option;
} others[] = {{2, "ring", ""}, {2, "pipefusion", "one_part"}, {1, "weights", "q8_0"}, {1, "weights", "q4_0"}};

static struct quality_setting new_setting(int ranks, size_t scheduler, size_t step) {
    return (struct quality_setting){.scheduler = schedulers[scheduler],
                                    .steps = steps[step],
                                    .width = SIDE,
                                    .height = ranks > 4 ? 2 * SIDE : SIDE,
                                    .ranks = ranks,
                                    .sync_mode = "",
                                    .warmup = -1};
}

/* Ways `from` to `to` of the patches, of one scheduler and number of steps. */
static int add_patches(int ranks, size_t scheduler, size_t step, size_t from, size_t to, struct quality_setting *out) {
    int count = 0;
    for (size_t i = from; ranks > 1 && i < to; i++, count++) {
        out[count] = new_setting(ranks, scheduler, step);
        out[count].strategy = patches[i].strategy, out[count].sync_mode = patches[i].sync_mode;
        out[count].warmup = patches[i].warmup, out[count].option = patches[i].option;
    }
    return count;
}

static int add_others(int ranks, size_t scheduler, size_t step, struct quality_setting *out) {
    int count = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (others[i].ranks != ranks) continue;
        out[count] = new_setting(ranks, scheduler, step);
        out[count].strategy = others[i].strategy, out[count].option = others[i].option;
        count++;
    }
    return count;
}

/* Of the first sampler and steps. */
static int add_higher(int ranks, struct quality_setting *out) {
    int count = 0;
    for (size_t i = 0; i < sizeof higher / sizeof *higher; i++) {
        if (higher[i].ranks != ranks) continue;
        for (size_t m = 0; m < sizeof higher_modes / sizeof *higher_modes; m++, count++) {
            out[count] = new_setting(ranks, 0, 0);
            out[count].strategy = "patch", out[count].sync_mode = higher_modes[m];
            out[count].warmup = 4, out[count].option = "", out[count].height = higher[i].height;
        }
    }
    return count;
}

/* First the FIRST ways and the exact strategies of the first sampler and steps, then higher
 * pictures and the default way of all others, then the rest. */
int quality_settings(int ranks, struct quality_setting out[QUALITY_SETTINGS_MOST]) {
    const size_t all = sizeof patches / sizeof *patches;
    int count = add_patches(ranks, 0, 0, 0, FIRST, out);
    count += add_others(ranks, 0, 0, out + count);
    count += add_higher(ranks, out + count);
    for (size_t i = 1; i < SAMPLERS; i++) count += add_patches(ranks, i / STEPS, i % STEPS, 0, 1, out + count);
    for (size_t i = 0; i < SAMPLERS; i++) {
        count += add_patches(ranks, i / STEPS, i % STEPS, i == 0 ? FIRST : 1, all, out + count);
        if (i > 0) count += add_others(ranks, i / STEPS, i % STEPS, out + count);
    }
    return count;
}

struct quality_way quality_exact_way(const struct quality_setting *s) {
    return (struct quality_way){.scheduler = s->scheduler, .steps = s->steps, .width = s->width, .height = s->height};
}

struct quality_way quality_setting_way(const struct quality_setting *s, tessera_world *world, const char *transformer) {
    struct quality_way way = quality_exact_way(s);
    tessera_mesh *mesh = &way.mesh;
    way.threads = s->ranks > 1 ? 1 : 0;
    way.transformer = transformer;
    if (s->ranks == 1) return way;
    mesh->world = world;
    if (strcmp(s->strategy, "ring") == 0) {
        mesh->ring = s->ranks;
    } else if (strcmp(s->strategy, "pipefusion") == 0) {
        mesh->pipefusion = s->ranks, mesh->num_pipeline_patch = 1;
    } else {
        mesh->patch = s->ranks, mesh->patch_strategy = s->strategy;
        mesh->warmup_steps = s->warmup > 0 ? s->warmup : -1;
        mesh->published_group_norm = strcmp(s->option, "published_group_norm") == 0;
    }
    if (s->sync_mode[0] != 0) mesh->sync_mode = s->sync_mode;
    if (strcmp(s->strategy, "naive_patch") == 0) mesh->split_scheme = s->option, mesh->warmup_steps = 0;
    return way;
}

void quality_setting_key(const struct quality_setting *s, char key[QUALITY_KEY]) {
    char warmup[16] = "";
    if (s->warmup >= 0) snprintf(warmup, sizeof warmup, "%d", s->warmup);
    snprintf(key, QUALITY_KEY, "%s,%d,%d,%d,%d,%s,%s,%s,%s,", s->scheduler, s->steps, s->width, s->height, s->ranks, s->strategy,
             s->sync_mode, warmup, s->option);
}

tessera_status quality_compare(const struct quality_pictures *exact, const struct quality_pictures *made, int count,
                               struct quality_figures *out, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    out->pictures = count;
    for (int i = 0; i < count && status == TESSERA_OK; i++) {
        out->psnr[i] = quality_decibel(exact, made, i);
        status = quality_similarity(exact, made, i, &out->ssim[i], error);
    }
    return status;
}

double quality_mean(const double *values, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += values[i];
    return sum / count;
}

double quality_lowest(const double *values, int count) {
    double lowest = values[0];
    for (int i = 1; i < count; i++) lowest = fmin(lowest, values[i]);
    return lowest;
}

void quality_line(const struct quality_setting *setting, const struct quality_figures *f, char line[QUALITY_LINE]) {
    quality_setting_key(setting, line);
    size_t n = strlen(line);
    n += (size_t)snprintf(line + n, QUALITY_LINE - n, "%d,%.2f,%.2f,%.4f,%.4f,", f->pictures, quality_mean(f->psnr, f->pictures),
                          quality_lowest(f->psnr, f->pictures), quality_mean(f->ssim, f->pictures), quality_lowest(f->ssim, f->pictures));
    for (int i = 0; i < f->pictures; i++) n += (size_t)snprintf(line + n, QUALITY_LINE - n, "%s%.2f", i > 0 ? " " : "", f->psnr[i]);
    n += (size_t)snprintf(line + n, QUALITY_LINE - n, ",");
    for (int i = 0; i < f->pictures; i++) n += (size_t)snprintf(line + n, QUALITY_LINE - n, "%s%.4f", i > 0 ? " " : "", f->ssim[i]);
    snprintf(line + n, QUALITY_LINE - n, "\n");
}
