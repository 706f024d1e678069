/* Small weights in every strategy: pictures of models whose denoiser is in Q8_0, Q4_1, float8 or
 * nf4, over two ranks against one rank with the same weights. The strategies are those that are
 * exact, or are run in a mode that is. Where tensor parallelism would cut inside a block, it is
 * refused, and the message says which degrees fit.
 *
 *     mpirun -n 2 test_small_meshes */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "checkpoint/convert.h"
#include "tessera.h"

#define CASES "tests/cases/"
enum { STEPS = 2, LEAST_DECIBEL = 50 };

struct subject {
    const char *model, *denoiser, *type;
    enum dtype dtype;
    bool tensor; /* do its tensor cuts fall between blocks? */
};

static const struct subject subjects[] = {
    {CASES "pipeline_flux/model", "transformer", "Q8_0", DTYPE_Q8_0, true}, /* halves of 64 channels: one block of 32 */
    {CASES "pipeline_flux/model", "transformer", "Q4_1", DTYPE_Q4_1, true},
    {CASES "pipeline_flux/model", "transformer", "NF4", DTYPE_NF4, false},
    {CASES "pipeline_sd3/model", "transformer", "Q8_0", DTYPE_Q8_0, false}, /* halves of 32 channels: half a block */
    {CASES "pipeline_sd3/model", "transformer", "F8_E4M3", DTYPE_F8_E4M3, true},
    {CASES "pipeline_sd15/model", "unet", "F8_E4M3", DTYPE_F8_E4M3, true},
};

/* Each rank writes a file of its own. */
static bool write_small(const struct subject *s, char path[64]) {
    struct convert_types types = {true, s->dtype, NULL, 0};
    struct convert_report report = {.types = &types};
    tessera_error error = {0};
    char input[256];
    snprintf(input, sizeof input, "%s/%s", s->model, s->denoiser);
    snprintf(path, 64, "/tmp/tessera-test-XXXXXX.safetensors");
    int descriptor = mkstemps(path, (int)strlen(".safetensors"));
    CHECK(descriptor >= 0 && convert_tensors(input, path, &report, &error) == TESSERA_OK, "%s", error.message);
    close(descriptor);
    return error.status == TESSERA_OK;
}

static tessera_status make(const struct subject *s, const char *path, tessera_mesh mesh, tessera_image *image, bool *gets, tessera_error *error) {
    const tessera_model_options options = {
        .struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1, .mesh = &mesh, .transformer = path};
    tessera_request r = TESSERA_REQUEST;
    tessera_model *model = tessera_model_open(s->model, &options, error);
    if (model == NULL) return error->status;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = 96, r.height = 128, r.num_inference_steps = STEPS, r.true_cfg_scale = 2;
    if (r.max_sequence_length > 32) r.max_sequence_length = 32;
    tessera_status status = tessera_generate(model, &r, image, error);
    *gets = tessera_model_gets_pictures(model);
    tessera_model_free(model);
    return status;
}

static double decibel(const tessera_image *a, const tessera_image *b) {
    double sum = 0;
    size_t count = (size_t)a->width * (size_t)a->height * 3;
    if (a->width != b->width || a->height != b->height) return 0;
    for (size_t i = 0; i < count; i++) sum += pow((double)a->pixels_f32[i] - (double)b->pixels_f32[i], 2);
    return sum == 0 ? 200 : -10 * log10(sum / (double)count);
}

static void run_mesh(const struct subject *s, const char *path, const char *name, tessera_mesh mesh, const tessera_image *alone) {
    tessera_image image = TESSERA_IMAGE;
    tessera_error error = {0};
    bool gets = false;
    tessera_status status = make(s, path, mesh, &image, &gets, &error);
    if (mesh.tensor == 2 && !s->tensor) {
        CHECK(status == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "tensor degree 2") != NULL && strstr(error.message, "1 fit") != NULL,
              "%s %s, %s: %d %s", s->model, s->type, name, status, error.message);
        return;
    }
    CHECK(status == TESSERA_OK, "%s %s, %s: %s", s->model, s->type, name, error.message);
    if (status == TESSERA_OK && gets) {
        double db = decibel(&image, alone);
        CHECK(db >= LEAST_DECIBEL, "%s %s, %s: %.1f dB", s->model, s->type, name, db);
    }
    tessera_image_free(&image);
}

static void run_subject(tessera_world *world, const struct subject *s) {
    tessera_image alone = TESSERA_IMAGE;
    tessera_error error = {0};
    char path[64];
    bool gets, is_unet = strcmp(s->denoiser, "unet") == 0;
    if (!write_small(s, path)) return;
    CHECK(make(s, path, (tessera_mesh)TESSERA_MESH, &alone, &gets, &error) == TESSERA_OK, "%s", error.message);
    tessera_mesh mesh = {.struct_size = sizeof mesh, .world = world}, cfg = mesh, ring = mesh, ulysses = mesh, tensor = mesh, stages = mesh,
                 patches = mesh;
    cfg.cfg = ring.ring = ulysses.ulysses = tensor.tensor = stages.pipefusion = patches.patch = 2;
    stages.num_pipeline_patch = 1;
    patches.sync_mode = "full_sync";
    if (alone.pixels_f32 != NULL) {
        run_mesh(s, path, "cfg", cfg, &alone);
        run_mesh(s, path, "ring", ring, &alone);
        run_mesh(s, path, "ulysses", ulysses, &alone);
        run_mesh(s, path, "tensor", tensor, &alone);
        run_mesh(s, path, "pipefusion", stages, &alone);
        if (is_unet) run_mesh(s, path, "patch", patches, &alone);
    }
    tessera_image_free(&alone);
    unlink(path);
}

int main(void) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) run_subject(world, &subjects[i]);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
