/* What displaced strategies and step caches make of the embedded model's pictures: PSNR in dB to
 * those of one process, mean and lowest of eight (quality.h).
 *
 *     bench_quality [MODEL_FOLDER]                  PipeFusion by patches, warm-up and steps (stages change nothing); step caches
 *     mpirun -n N bench_quality [MODEL_FOLDER]      displaced patches over N ranks by mode and warm-up, and naive patches
 *
 * bench/quality.sh runs it in all these ways. */
#include <stdio.h>

#include "quality.h"

struct study {
    const char *folder;
    tessera_world *world; /* NULL: one process */
    bool prints;
    struct quality_pictures exact; /* where it prints */
};

static tessera_status measure(const struct study *s, const struct quality_way *way, const char *name, tessera_error *error) {
    struct quality_pictures pictures;
    tessera_status status = quality_make(s->folder, way, QUALITY_PICTURES, &pictures, error);
    if (status == TESSERA_OK && s->prints) {
        double sum = 0, lowest = QUALITY_EQUAL;
        for (int i = 0; i < QUALITY_PICTURES; i++) {
            double db = quality_decibel(&s->exact, &pictures, i);
            sum += db;
            if (db < lowest) lowest = db;
        }
        printf("%-52s mean %6.2f  lowest %6.2f dB", name, sum / QUALITY_PICTURES, lowest);
        if (way->step_cache != NULL)
            printf("  %4.1f %% of blocks left out", 100.0 * (double)pictures.blocks_skipped / (double)pictures.blocks);
        printf("\n");
        fflush(stdout);
    }
    quality_free(&pictures);
    return status;
}

/* PSNR of P patches after `warmup` steps as a whole; steps 0: the usual number. */
static tessera_status measure_patches(const struct study *s, int patches, int warmup, int steps, tessera_error *error) {
    char name[80];
    struct quality_way way = {.mesh = {.num_pipeline_patch = patches, .warmup_steps = warmup > 0 ? warmup : -1}, .steps = steps};
    int length = snprintf(name, sizeof name, "PipeFusion, P = %d, warm-up %d", patches, warmup);
    if (steps > 0) snprintf(name + length, sizeof name - (size_t)length, ", %d steps", steps);
    return measure(s, &way, name, error);
}

static tessera_status measure_pipefusion(const struct study *s, tessera_error *error) {
    static const int warmups[] = {0, 1, 4};
    tessera_status status = TESSERA_OK;
    for (size_t w = 0; w < sizeof warmups / sizeof *warmups; w++)
        for (int patches = 2; patches <= 8 && status == TESSERA_OK; patches *= 2)
            status = measure_patches(s, patches, warmups[w], 0, error);
    return status;
}

/* The fewer steps, the more a picture changes from one to the next. */
static tessera_status measure_steps(const struct study *s, tessera_error *error) {
    static const int steps[] = {4, 8, 12, 40};
    tessera_status status = TESSERA_OK;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && status == TESSERA_OK; i++) {
        struct study other = *s;
        status = quality_make(s->folder, &(struct quality_way){.steps = steps[i]}, QUALITY_PICTURES, &other.exact, error);
        for (int warmup = 0; warmup <= 1 && status == TESSERA_OK; warmup++) status = measure_patches(&other, 4, warmup, steps[i], error);
        quality_free(&other.exact);
    }
    return status;
}

static tessera_status measure_caches(const struct study *s, tessera_error *error) {
    static const float thresholds[] = {0.04f, 0.06f, 0.08f, 0.1f, 0.15f, 0.2f, 0.3f};
    static const char *const caches[] = {"fbcache", "teacache"};
    tessera_status status = TESSERA_OK;
    for (int c = 0; c < 2; c++)
        for (size_t i = 0; i < sizeof thresholds / sizeof *thresholds && status == TESSERA_OK; i++) {
            char name[80];
            struct quality_way way = {.step_cache = caches[c], .step_cache_threshold = thresholds[i]};
            snprintf(name, sizeof name, "%s, threshold %.2f", caches[c], (double)thresholds[i]);
            status = measure(s, &way, name, error);
        }
    struct quality_way both = {.mesh = {.num_pipeline_patch = 4}, .step_cache = "fbcache", .step_cache_threshold = 0.08f};
    return status == TESSERA_OK ? measure(s, &both, "PipeFusion, P = 4, warm-up 1, fbcache, threshold 0.08", error) : status;
}

/* Without group norms, as in the embedded model, modes differ in whether they send; so most are
 * shown at one warm-up only. */
static tessera_status measure_displaced(const struct study *s, tessera_error *error) {
    static const struct {
        const char *mode;
        int warmup; /* -1: the first step alone is synchronous */
    } runs[] = {
        {"corrected_async_gn", -1},
        {"corrected_async_gn", 1},
        {"corrected_async_gn", 4},
        {"stale_gn", 1},
        {"sync_gn", 1},
        {"separate_gn", 1},
        {"no_sync", -1},
        {"no_sync", 1},
        {"no_sync", 4},
        {"full_sync", 1},
    };
    int ranks = tessera_world_size(s->world);
    tessera_status status = TESSERA_OK;
    char name[80];
    for (size_t i = 0; i < sizeof runs / sizeof *runs && status == TESSERA_OK; i++) {
        int warmup = runs[i].warmup;
        struct quality_way way = {.mesh = {.world = s->world, .patch = ranks, .sync_mode = runs[i].mode, .warmup_steps = warmup}};
        snprintf(name, sizeof name, "%d displaced patches, %s, warm-up %d", ranks, runs[i].mode, warmup > 0 ? warmup : 0);
        status = measure(s, &way, name, error);
    }
    struct quality_way split = {.mesh = {.world = s->world, .patch = ranks, .split_text = true, .warmup_steps = 1}};
    snprintf(name, sizeof name, "%d displaced patches, text split, warm-up 1", ranks);
    if (status == TESSERA_OK) status = measure(s, &split, name, error);
    for (int i = 0; i < 3 && status == TESSERA_OK; i++) {
        static const int warmups[] = {-1, 1, 4};
        int warmup = warmups[i];
        struct quality_way near = {.mesh = {.world = s->world, .patch = ranks, .patch_strategy = "pcpp", .warmup_steps = warmup}};
        snprintf(name, sizeof name, "%d partially conditioned patches, warm-up %d", ranks, warmup > 0 ? warmup : 0);
        status = measure(s, &near, name, error);
    }
    struct quality_way naive = {.mesh = {.world = s->world, .patch = ranks, .patch_strategy = "naive_patch"}};
    snprintf(name, sizeof name, "%d naive patches", ranks);
    return status == TESSERA_OK ? measure(s, &naive, name, error) : status;
}

static tessera_status run(struct study *s, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    s->prints = tessera_world_rank(s->world) == 0;
    if (s->prints) status = quality_make(s->folder, &(struct quality_way){0}, QUALITY_PICTURES, &s->exact, error);
    if (status == TESSERA_OK && tessera_world_size(s->world) > 1) return measure_displaced(s, error);
    if (status == TESSERA_OK) status = measure_pipefusion(s, error);
    if (status == TESSERA_OK) status = measure_steps(s, error);
    return status == TESSERA_OK ? measure_caches(s, error) : status;
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct study s = {.folder = argc > 1 ? argv[1] : "models/emoji", .world = tessera_world_open(&error)};
    tessera_status status = s.world != NULL ? run(&s, &error) : error.status;
    if (status != TESSERA_OK && s.world != NULL) tessera_world_abort(s.world, &error);
    if (status == TESSERA_OK) status = tessera_world_finish(s.world, &error);
    if (status != TESSERA_OK) fprintf(stderr, "bench_quality: %s\n", error.message);
    quality_free(&s.exact);
    tessera_world_free(s.world);
    return status == TESSERA_OK ? 0 : 1;
}
