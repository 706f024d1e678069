/* Many jobs in one world, of all strategies mixed: a third is stopped at a random moment, by a
 * thread or from the progress of a random rank, and a tenth fails on one rank, which runs out of
 * memory or is given a LoRA that cannot be read. Each ends with the same right status on all ranks,
 * every good one makes the same picture as the strategy's first, bit for bit, and memory stays
 * flat.
 *
 *     mpirun -n 4 test_job JOBS MODEL_OF_TRANSFORMERS MODEL_OF_UNETS LORA_THAT_IS_NONE */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "resident.h"
#include "tessera.h"

enum { STEPS = 3, RANKS = 4 };

struct strategy {
    const char *name;
    int model; /* of the arguments */
    tessera_mesh mesh;
    const char *step_cache;
    tessera_model *opened;
    float *first; /* latents of the first good job */
    size_t count;
};

enum event { GOOD, STOPPED_BY_THREAD, STOPPED_BY_PROGRESS, OUT_OF_MEMORY, BAD_LORA };

/* What befalls a job: the same on all ranks. */
struct fate {
    enum event event;
    int rank, moment; /* who it befalls; microseconds, calls of progress, or KiB */
};

struct watcher { /* what progress knows */
    int calls, stop_at;
    tessera_job *job;
    int delay;
};

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static bool on_progress(void *user, tessera_phase phase, int done, int total) {
    struct watcher *watcher = user;
    (void)phase, (void)done, (void)total;
    return watcher->stop_at == 0 || ++watcher->calls < watcher->stop_at;
}

static void *stop_later(void *user) {
    struct watcher *watcher = user;
    usleep((useconds_t)watcher->delay);
    tessera_job_stop(watcher->job);
    return NULL;
}

static struct fate fate_of(int number, uint32_t *state) {
    struct fate fate = {.event = GOOD, .rank = (int)(next_random(state) % RANKS)};
    uint32_t random = next_random(state);
    if (number % 10 == 4) {
        fate.event = number % 20 == 4 ? OUT_OF_MEMORY : BAD_LORA;
        fate.moment = 16 + (int)(random % 64);
    } else if (number % 3 == 0 && number > 0) {
        fate.event = number % 2 == 0 ? STOPPED_BY_THREAD : STOPPED_BY_PROGRESS;
        fate.moment = number % 2 == 0 ? (int)(random % 200000) : 1 + (int)(random % 8);
    }
    return fate;
}

/* All ranks must end alike; the words may differ. */
static void check_alike(tessera_world *world, int number, tessera_status status, const tessera_error *error) {
    tessera_error differs = {0};
    char text[32];
    snprintf(text, sizeof text, "%d", status);
    CHECK(tessera_world_check_same(world, "statuses", text, &differs) == TESSERA_OK, "job %d: %s (here: %s)", number, differs.message,
          error->message);
}

/* The good picture is the same every time. */
static void check_picture(struct strategy *s, int number, const tessera_image *image) {
    CHECK(image != NULL && image->latents != NULL, "job %d (%s): no picture", number, s->name);
    if (image == NULL || image->latents == NULL) return;
    size_t count = (size_t)image->count * (size_t)image->latent_channels * (size_t)image->latent_height * (size_t)image->latent_width;
    if (s->first == NULL) {
        s->first = malloc(count * sizeof *s->first);
        s->count = count;
        if (s->first != NULL) memcpy(s->first, image->latents, count * sizeof *s->first);
    } else {
        bool same = s->count == count && memcmp(s->first, image->latents, count * sizeof *s->first) == 0;
        CHECK(same, "job %d (%s): another picture than the first", number, s->name);
    }
}

static tessera_request request_of(const struct strategy *s, struct watcher *watcher) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(s->opened, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = 64, r.height = 128, r.num_inference_steps = STEPS, r.num_images = 2, r.guidance_scale = 3;
    if (r.max_sequence_length > 16) r.max_sequence_length = 16;
    r.step_cache = s->step_cache;
    r.progress = on_progress, r.progress_user = watcher;
    return r;
}

static void run_job(tessera_world *world, struct strategy *s, int number, struct fate fate) {
    bool mine = tessera_world_rank(world) == fate.rank;
    struct watcher watcher = {.stop_at = fate.event == STOPPED_BY_PROGRESS && mine ? fate.moment : 0, .delay = fate.moment};
    tessera_request request = request_of(s, &watcher);
    tessera_error error = {0};
    pthread_t thread;
    tessera_job *job = tessera_job_new(s->opened, &request, 1, &error);
    CHECK(job != NULL, "job %d (%s): %s", number, s->name, error.message);
    if (job == NULL) return;
    watcher.job = job;
    bool threaded = fate.event == STOPPED_BY_THREAD && mine && pthread_create(&thread, NULL, stop_later, &watcher) == 0;
    if (fate.event == OUT_OF_MEMORY && mine) tessera_job_limit_memory(job, (uint64_t)fate.moment << 10);
    tessera_status status = tessera_job_run(job, &error);
    if (threaded) pthread_join(thread, NULL);
    check_alike(world, number, status, &error);
    bool may_be_good = fate.event == GOOD || fate.event == STOPPED_BY_THREAD; /* the stop may come too late */
    tessera_status bad = fate.event == OUT_OF_MEMORY ? TESSERA_ERROR_MEMORY : TESSERA_ERROR_CANCELLED;
    CHECK((status == TESSERA_OK && may_be_good) || (status == bad && fate.event != GOOD), "job %d (%s, event %d at %d): status %d: %s", number,
          s->name, fate.event, fate.moment, status, error.message);
    CHECK(!tessera_world_failed(world), "job %d (%s) ended the world", number, s->name);
    if (status == TESSERA_OK) check_picture(s, number, tessera_job_image(job, 0));
    tessera_job_free(job);
}

static tessera_model_options options_of(const struct strategy *s) {
    return (tessera_model_options){.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1, .mesh = &s->mesh};
}

/* A model with a LoRA that one rank cannot read: no rank opens it. */
static void open_badly(tessera_world *world, const struct strategy *s, const char *model, const char *none, int number, int rank) {
    tessera_model_options options = options_of(s);
    tessera_error error = {0};
    tessera_lora lora = TESSERA_LORA;
    lora.path = none;
    options.loras = &lora;
    options.num_loras = tessera_world_rank(world) == rank;
    tessera_model *opened = tessera_model_open(model, &options, &error);
    check_alike(world, number, error.status, &error);
    CHECK(opened == NULL && strstr(error.message, none) != NULL, "job %d: a bad LoRA on rank %d: %s", number, rank, error.message);
    tessera_model_free(opened);
}

static void run_jobs(tessera_world *world, struct strategy *strategies, int count, int jobs, char **models) {
    uint32_t state = 7;
    size_t early = 0;
    for (int i = 0; i < jobs; i++) {
        struct strategy *s = &strategies[i < count ? i : (int)(next_random(&state) % (uint32_t)count)];
        struct fate fate = fate_of(i, &state);
        if (fate.event == BAD_LORA)
            open_badly(world, s, models[s->model], models[2], i, fate.rank);
        else
            run_job(world, s, i, fate);
        malloc_trim(0);
        if (i == jobs / 2) early = resident_bytes() >> 10;
    }
    size_t late = resident_bytes() >> 10;
    if (tessera_world_rank(world) == 0) printf("  %d jobs: %zu KiB resident at half, %zu KiB at the end\n", jobs, early, late);
#ifndef TESSERA_SANITIZED /* whose own memory grows with what they have seen */
    CHECK(late < early + early / 20 + 4096, "memory grows from %zu to %zu KiB", early, late);
#endif
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL || argc != 5) {
        fprintf(stderr, "%s\n", world == NULL ? error.message : "mpirun -n 4 test_job JOBS MODEL MODEL LORA");
        return 1;
    }
    struct strategy strategies[] = {
        {.name = "ring", .mesh = {.ring = 4}},
        {.name = "PipeFusion", .mesh = {.pipefusion = 4}},
        {.name = "Ulysses x CFG", .mesh = {.ulysses = 2, .cfg = 2, .parallel_vae = true}},
        {.name = "PipeFusion x ring", .mesh = {.pipefusion = 2, .ring = 2, .num_pipeline_patch = 3}},
        {.name = "tensor", .mesh = {.tensor = 2, .ring = 2}},
        {.name = "displaced patches", .mesh = {.patch = 4}},
        {.name = "neighbouring patches", .mesh = {.patch = 4, .patch_strategy = "pcpp"}},
        {.name = "step cache", .mesh = {.pipefusion = 2, .cfg = 2}, .step_cache = "fbcache"},
        {.name = "U-Net, displaced", .model = 1, .mesh = {.patch = 4}},
        {.name = "U-Net, stages", .model = 1, .mesh = {.pipefusion = 2, .cfg = 2}},
        {.name = "U-Net, naive patches", .model = 1, .mesh = {.patch = 2, .patch_strategy = "naive_patch", .cfg = 2}},
        {.name = "U-Net, rows", .model = 1, .mesh = {.ring = 4, .parallel_vae = true}},
    };
    enum { COUNT = sizeof strategies / sizeof *strategies };
    for (int i = 0; i < COUNT; i++) {
        strategies[i].mesh.struct_size = sizeof(tessera_mesh);
        strategies[i].mesh.world = world;
        tessera_model_options options = options_of(&strategies[i]);
        strategies[i].opened = tessera_model_open(argv[2 + strategies[i].model], &options, &error);
        CHECK(strategies[i].opened != NULL, "%s: %s", strategies[i].name, error.message);
        if (strategies[i].opened == NULL) return CHECK_REPORT();
    }
    run_jobs(world, strategies, COUNT, atoi(argv[1]), argv + 2);
    for (int i = 0; i < COUNT; i++) {
        tessera_model_free(strategies[i].opened);
        free(strategies[i].first);
    }
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
