/* What plans predict against what runs take: every mesh of a world, and whether the mesh that would be chosen is the fastest.
 *
 *     mpirun -n N bench_plan [--size PIXELS] [--steps N] [--pictures N] [--dtype f32] [--allow-displaced] MODEL
 *
 * Of each mesh a step is taken to warm up, and pictures are timed, 3 or --pictures; measured is the time of denoising over its steps, the
 * slowest rank's. Nothing is decoded.
 * The table of docs/planner.md is made of these; bench/links.sh gives the networks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"
#include "pipelines/plan_auto.h"
#include "pipelines/world.h"

struct bench {
    tessera_world *world;
    const char *model;
    int size, steps, pictures;
    tessera_dtype dtype;
    bool allow_displaced;
};

static int fail(const tessera_error *error) {
    fprintf(stderr, "bench_plan: %s\n", error->message);
    return 1;
}

static bool read_options(int argc, char **argv, struct bench *b) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--size") == 0 && i + 1 < argc)
            b->size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc)
            b->steps = atoi(argv[++i]);
        else if (strcmp(argv[i], "--pictures") == 0 && i + 1 < argc)
            b->pictures = atoi(argv[++i]);
        else if (strcmp(argv[i], "--dtype") == 0 && i + 1 < argc)
            b->dtype = strcmp(argv[++i], "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
        else if (strcmp(argv[i], "--allow-displaced") == 0)
            b->allow_displaced = true;
        else
            b->model = argv[i];
    }
    return b->model != NULL && b->size >= 0 && b->steps > 0 && b->pictures > 0;
}

static tessera_mesh mesh_of(const struct bench *b, const struct plan_mesh *plan) {
    tessera_mesh mesh = {.world = b->world, .warmup_steps = -1};
    plan_mesh_choose(plan, &mesh);
    return mesh;
}

/* The most of all ranks. */
static tessera_status slowest(const struct bench *b, double *seconds, tessera_error *error) {
    struct comm *comm = b->world->comm;
    double all[comm_size(comm)], mine = *seconds;
    size_t bytes[comm_size(comm)];
    for (int i = 0; i < comm_size(comm); i++) bytes[i] = sizeof mine;
    TRY(comm_all_gather(comm, &mine, all, bytes, error));
    for (int i = 0; i < comm_size(comm); i++) *seconds = fmax(*seconds, all[i]);
    return TESSERA_OK;
}

/* Seconds of denoising, for each step: the fastest of some pictures, behind one that opens what is opened once. */
static tessera_status time_mesh(const struct bench *b, const struct plan_mesh *plan, double *step, tessera_error *error) {
    tessera_model_options options = {.dtype = b->dtype, .threads = 1, .mesh = mesh_of(b, plan)};
    tessera_model *model = tessera_model_open(b->model, &options, error);
    tessera_status status = model != NULL ? TESSERA_OK : error->status;
    *step = INFINITY;
    for (int run = 0; run <= b->pictures && status == TESSERA_OK; run++) {
        tessera_image image = {0};
        tessera_request request = tessera_request_default(model);
        request.prompt = "a red apple";
        if (b->size > 0) request.width = request.height = b->size;
        request.num_inference_steps = run == 0 ? 1 : b->steps;
        request.latents_only = true;
        status = tessera_generate(model, &request, &image, error);
        double seconds = image.seconds_denoise / request.num_inference_steps;
        if (status == TESSERA_OK) status = slowest(b, &seconds, error);
        if (run > 0) *step = fmin(*step, seconds);
        tessera_image_free(&image);
    }
    tessera_model_free(model);
    return status;
}

/* Seconds that are predicted for each step, the synchronous ones (one here, where a plan has them) among them. */
static double predicted_step(const struct plan_model *model, const struct plan_machine *machine, const struct plan *plan) {
    struct plan_mesh mesh = plan->mesh;
    if (mesh.warmup_steps > 1) mesh.warmup_steps = 1;
    struct plan again = plan_evaluate(model, machine, &mesh);
    return (again.picture_seconds - again.text_seconds - again.decode_seconds) / model->steps;
}

static int compare_numbers(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

static void print_summary(const double *predicted, const double *measured, int count) {
    double errors[count];
    int best = 0;
    for (int i = 0; i < count; i++) {
        errors[i] = fabs(predicted[i] / measured[i] - 1);
        if (measured[i] < measured[best]) best = i;
    }
    qsort(errors, (size_t)count, sizeof *errors, compare_numbers);
    printf("chosen: %.2f of the best measured; error of the prediction: %.0f %% at the median, %.0f %% at most\n",
           measured[0] / measured[best], 100 * errors[count / 2], 100 * errors[count - 1]);
}

static tessera_status compare(const struct bench *b, const struct plan_model *model, const struct plan_machine *machine,
                              tessera_error *error) {
    struct plan *plans = NULL;
    int count = 0, rank = tessera_world_rank(b->world);
    TRY(plan_rank(model, machine, b->allow_displaced, &plans, &count, error));
    double measured[count], predicted[count];
    tessera_status status = comm_broadcast(b->world->comm, 0, plans, (size_t)count * sizeof *plans, error);
    if (rank == 0)
        printf("%s, %d steps: %.3g operations/s, attention %.2f of it, %.3g elements/s, %.3g bytes/s, crowding %.2g; %.3g ms and %.3g MB/s "
               "inside, %.3g ms and %.3g "
               "MB/s between hosts of %d\n",
               b->model, b->steps, machine->operations, machine->attention_share, machine->elements, machine->streaming, machine->crowding,
               machine->inside.latency * 1e3, machine->inside.bandwidth / 1e6, machine->between.latency * 1e3,
               machine->between.bandwidth / 1e6, machine->per_host);
    int kept = 0;
    for (int i = 0; i < count && status == TESSERA_OK; i++) {
        char text[128];
        if (plans[i].mesh.degrees[MESH_DATA] > 1) continue; /* idle groups with one picture */
        predicted[kept] = predicted_step(model, machine, &plans[i]);
        status = time_mesh(b, &plans[i].mesh, &measured[kept], error);
        if (rank == 0 && status == TESSERA_OK)
            printf("  %-36s predicted %8.4f s a step, measured %8.4f, ratio %.2f, limited by %s\n",
                   plan_mesh_text(&plans[i].mesh, text, sizeof text), predicted[kept], measured[kept], predicted[kept] / measured[kept],
                   plan_limit_name(plans[i].limit));
        if (rank == 0) fflush(stdout);
        kept++;
    }
    if (rank == 0 && status == TESSERA_OK && kept > 0) print_summary(predicted, measured, kept);
    free(plans);
    return status;
}

static tessera_status run(const struct bench *b, tessera_error *error) {
    tessera_model_options options = {.dtype = b->dtype};
    struct plan_request request = {.width = b->size, .height = b->size, .steps = b->steps, .guidance_scale = -1, .max_sequence_length = -1};
    struct plan_auto_options auto_options = {.threads = 1};
    struct plan_model model;
    struct plan_measured measured;
    TRY(plan_model_open(b->model, &options, &request, &model, error));
    tessera_status status = plan_measure_machine(b->world->comm, &model, &auto_options, &measured, error);
    if (status == TESSERA_OK) status = compare(b, &model, &measured.machine, error);
    if (status == TESSERA_OK) plan_measured_free(&measured);
    plan_model_free(&model);
    return status;
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct bench b = {.steps = 8, .pictures = 3};
    if (!read_options(argc, argv, &b))
        return fprintf(stderr, "usage: bench_plan [--size PIXELS] [--steps N] [--pictures N] [--dtype f32] [--allow-displaced] MODEL\n"), 2;
    b.world = tessera_world_open(&error);
    if (b.world == NULL) return fail(&error);
    tessera_status status = run(&b, &error);
    if (status != TESSERA_OK) {
        tessera_world_abort(b.world, &error);
        fail(&error);
    } else {
        status = tessera_world_finish(b.world, &error);
    }
    tessera_world_free(b.world);
    return status == TESSERA_OK ? 0 : 1;
}
