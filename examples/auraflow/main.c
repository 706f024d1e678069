/* Runs a case of AuraFlow, alone or under mpirun, and compares with what diffusers computed.
 *
 *     ./auraflow CASE [--dtype f32|bf16] [--AXIS N]... [--weights W,W,...]      AXIS: cfg, ring, ulysses, tensor, pipefusion, patch
 *     mpirun -n 4 ./auraflow CASE --cfg 2 --ring 2
 *
 * A case is a folder: case.json (the model's folder, steps, guidance, tolerances),
 * scheduler_config.json and io.safetensors with the inputs and, after each step, the guided
 * prediction and the latents. It may fix the patches of a pipeline, the number of displaced patches
 * and a step cache; otherwise the result is the same on every mesh. Prints one line and exits 0 if
 * every number is within the tolerance; with bfloat16, if the last latents are within a twentieth
 * of their norm. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tessera_model.h>

extern const struct denoiser_class auraflow_class;

static const struct denoiser_class *const classes[] = {&auraflow_class};
static const double bf16_limit = 0.05;
enum { MAX_WEIGHTS = 64 };

struct run_of_case {
    const char *folder;
    char model[4096];
    struct json *json;
    struct safetensors *io;
    double atol, rtol;
    double worst;       /* |a - b| / (atol + rtol |b|) so far */
    double relative_l2; /* of the last latents */
    struct tensor latents, noises, wanted;
    float *x;                    /* [rows, columns, channels] */
    double weights[MAX_WEIGHTS]; /* how fast each process is */
    tessera_mesh mesh;
    tessera_sampling sampling;
};

/* ---- arguments ---- */

static int *axis_of(tessera_mesh *mesh, const char *name) {
    const struct {
        const char *name;
        int *degree;
    } axes[] = {{"--cfg", &mesh->cfg},       {"--ring", &mesh->ring},   {"--ulysses", &mesh->ulysses},
                {"--tensor", &mesh->tensor}, {"--patch", &mesh->patch}, {"--pipefusion", &mesh->pipefusion}};
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++)
        if (strcmp(axes[i].name, name) == 0) return axes[i].degree;
    return NULL;
}

/* "3,1": a number for each process. */
static tessera_status read_weights(struct run_of_case *c, const char *text, tessera_error *error) {
    int count = 0, wanted = tessera_world_size(c->mesh.world);
    for (char *end; count < MAX_WEIGHTS; text = end + 1) {
        c->weights[count++] = strtod(text, &end);
        if (*end != ',') break;
    }
    c->mesh.rank_weights = c->weights;
    return count == wanted ? TESSERA_OK : error_set(error, TESSERA_ERROR_ARGUMENT, "--weights: %d numbers are needed", wanted);
}

static tessera_status read_arguments(struct run_of_case *c, int argc, char **argv, tessera_error *error) {
    c->sampling.dtype = TESSERA_F32;
    if (argc < 2) return error_set(error, TESSERA_ERROR_ARGUMENT, "usage: auraflow CASE [--dtype f32|bf16] [--AXIS N]...");
    c->folder = argv[1];
    for (int i = 2; i < argc; i += 2) {
        int *degree = axis_of(&c->mesh, argv[i]);
        if (i + 1 == argc) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: a value is missing", argv[i]);
        if (degree != NULL)
            *degree = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--dtype") == 0)
            c->sampling.dtype = strcmp(argv[i + 1], "bf16") == 0 ? TESSERA_BF16 : TESSERA_F32;
        else if (strcmp(argv[i], "--weights") == 0)
            TRY(read_weights(c, argv[i + 1], error));
        else
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: no such option", argv[i]);
    }
    return TESSERA_OK;
}

/* ---- the case ---- */

static tessera_status read_scalars(struct run_of_case *c, tessera_error *error) {
    tessera_sampling *s = &c->sampling;
    int64_t steps, patches, warmup, patch;
    bool split_text;
    double guidance, threshold;
    TRY(json_double(c->json, "tolerance.atol", 0.0, &c->atol, error));
    TRY(json_double(c->json, "tolerance.rtol", 0.0, &c->rtol, error));
    TRY(json_int(c->json, "steps", 0, 1, 1000, &steps, error));
    TRY(json_double(c->json, "guidance_scale", 0.0, &guidance, error));
    TRY(json_int(c->json, "num_pipeline_patch", 1, 1, 1000, &patches, error));
    TRY(json_int(c->json, "patch", 1, 1, 1000, &patch, error));
    TRY(json_int(c->json, "warmup_steps", 0, 0, 1000, &warmup, error));
    TRY(json_bool(c->json, "split_text", false, &split_text, error));
    TRY(json_string(c->json, "step_cache", NULL, &s->step_cache, error));
    TRY(json_double(c->json, "step_cache_threshold", 0.0, &threshold, error));
    s->num_inference_steps = (int)steps;
    s->guidance_scale = (float)guidance;
    s->step_cache_threshold = (float)threshold;
    c->mesh.num_pipeline_patch = (int)patches;
    c->mesh.warmup_steps = (int)warmup;
    c->mesh.split_text = split_text;
    if (patch == (c->mesh.patch > 0 ? c->mesh.patch : 1)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: made for --patch %d", c->folder, (int)patch);
}

static tessera_status read_tensors(struct run_of_case *c, tessera_error *error) {
    tessera_sampling *s = &c->sampling;
    c->latents = safetensors_tensor(c->io, "in.sample");
    c->noises = safetensors_tensor(c->io, "out.noise");
    c->wanted = safetensors_tensor(c->io, "out.latents");
    s->inputs.text = safetensors_tensor(c->io, "in.encoder_hidden_states");
    int64_t count = c->latents.ndim == 4 ? tensor_count(&c->latents) : 0, steps = s->num_inference_steps;
    if (count == 0 || c->noises.ndim != 5 || tensor_count(&c->noises) != steps * count || tensor_count(&c->wanted) != steps * count)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s/io.safetensors: in.sample, out.noise or out.latents is missing or does not fit",
                         c->folder);
    s->rows = c->latents.shape[2];
    s->columns = c->latents.shape[3];
    return TESSERA_OK;
}

/* Number i of [rows, columns, channels] in a picture that is stored as [channels, rows, columns]. */
static int64_t stored_place(const struct run_of_case *c, int64_t i) {
    int64_t channels = c->latents.shape[1], positions = c->sampling.rows * c->sampling.columns;
    return i % channels * positions + i / channels;
}

static tessera_status read_case(struct run_of_case *c, tessera_error *error) {
    char path[4096];
    const char *model;
    snprintf(path, sizeof path, "%s/case.json", c->folder);
    TRY(json_open(path, 0, &c->json, error));
    snprintf(path, sizeof path, "%s/io.safetensors", c->folder);
    TRY(safetensors_open(path, &c->io, error));
    TRY(read_scalars(c, error));
    TRY(read_tensors(c, error));
    TRY(json_string(c->json, "model", "model", &model, error));
    snprintf(c->model, sizeof c->model, "%s/%s", c->folder, model);
    size_t count = (size_t)tensor_count(&c->latents);
    c->x = malloc(count * sizeof *c->x);
    if (c->x == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) c->x[i] = ((const float *)c->latents.data)[stored_place(c, (int64_t)i)];
    return TESSERA_OK;
}

/* ---- comparing ---- */

/* Step `step` of `wanted` with what has been computed. Whatever is no number is as wrong as can be. */
static void compare(struct run_of_case *c, const struct tensor *wanted, int step, const float *got) {
    int64_t count = tensor_count(&c->latents);
    const float *want = (const float *)wanted->data + step * count;
    double squares = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double b = want[stored_place(c, i)], error = fabs(got[i] - b);
        c->worst = fmax(c->worst, isfinite(error) ? error / (c->atol + c->rtol * fabs(b)) : INFINITY);
        squares += isfinite(error) ? error * error : INFINITY;
        norm += b * b;
    }
    c->relative_l2 = sqrt(squares / norm);
}

static void compare_step(void *user, int step, const float *prediction, const float *latents) {
    struct run_of_case *c = user;
    compare(c, &c->noises, step, prediction);
    compare(c, &c->wanted, step, latents);
}

static tessera_status run_case(struct run_of_case *c, int argc, char **argv, tessera_error *error) {
    TRY(read_arguments(c, argc, argv, error));
    TRY(read_case(c, error));
    tessera_sampling *s = &c->sampling;
    s->denoiser = c->model;
    s->scheduler = c->folder;
    s->denoisers = classes;
    s->num_denoisers = 1;
    s->threads = 1;
    s->report = compare_step;
    s->user = c;
    TRY(tessera_sample(s, c->x, (size_t)tensor_count(&c->latents), error));
    compare(c, &c->wanted, s->num_inference_steps - 1, c->x);
    return TESSERA_OK;
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    struct run_of_case c = {.mesh = TESSERA_MESH};
    c.mesh.world = world;
    c.sampling.mesh = &c.mesh;
    if (world != NULL && run_case(&c, argc, argv, &error) == TESSERA_OK) tessera_world_finish(world, &error);
    bool bf16 = c.sampling.dtype == TESSERA_BF16, failed = error.status != TESSERA_OK;
    bool good = !failed && (bf16 ? c.relative_l2 <= bf16_limit : c.worst <= 1.0);
    if (failed) tessera_world_abort(world, &error);
    if (failed)
        fprintf(stderr, "auraflow: %s\n", error.message);
    else if (tessera_world_rank(world) == 0 || !good)
        printf("%s: error %.3g of %.3g, %lld of %lld blocks left out: %s\n", c.folder, bf16 ? c.relative_l2 : c.worst,
               bf16 ? bf16_limit : 1.0, (long long)c.sampling.blocks_skipped, (long long)c.sampling.blocks, good ? "pass" : "FAIL");
    free(c.x);
    safetensors_close(c.io);
    json_free(c.json);
    tessera_world_free(world);
    return good ? 0 : 1;
}
