/* Pictures by device maps: in float32 and with our own kernels those of one rank to the bit,
 * in every family, for every word, for files that place parts anywhere and return to a rank, and with every way of keeping
 * weights; each rank holds what the map gives it.
 *
 *     mpirun -n N test_map_pictures FOLDER        (for a map's file) */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "pipelines/device_map.h"
#include "pipelines/model.h"

static const char *const models[] = {
    "tests/cases/pipeline_sd15/model",         "tests/cases/pipeline_sdxl/model",   "tests/cases/pipeline_sd3/model",
    "tests/cases/pipeline_sd3_no_t5/model",    "tests/cases/pipeline_flux/model",   "tests/cases/pipeline_flux_control/model",
    "tests/cases/pipeline_pixart_alpha/model", "tests/cases/pipeline_pixart/model", "tests/cases/pipeline_hunyuandit/model",
};
static const char *const words[] = {"auto", "balanced", "balanced_low_0", "sequential"};
static const char *const offloads[] = {"none", "stages", "blocks"};
enum { SIDE = 64, STEPS = 3, IMAGES = 2 };

static uint8_t pixels[SIDE * SIDE * 3];
static char path[512];
static tessera_world *world;

/* ---- pictures ---- */

struct told {
    int calls[IMAGES], last[IMAGES], done; /* `done`: of the denoising, as progress has it */
    float *latents[IMAGES];
};

static void see_step(void *user, const tessera_step *step) {
    struct told *told = user;
    size_t count = (size_t)step->latent_channels * (size_t)step->latent_height * (size_t)step->latent_width;
    if (told->latents[step->image] == NULL) told->latents[step->image] = malloc(count * sizeof(float));
    memcpy(told->latents[step->image], step->latents, count * sizeof(float));
    told->calls[step->image]++;
    told->last[step->image] = step->done;
}

static bool see_progress(void *user, tessera_phase phase, int done, int total) {
    struct told *told = user;
    if (phase == TESSERA_PHASE_DENOISE && done == total) told->done++;
    return true;
}

static tessera_request request_of(const tessera_model *model, const char *name, bool from_picture) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = r.height = SIDE;
    r.use_resolution_binning = false;
    r.num_inference_steps = STEPS, r.num_images = IMAGES, r.seed = 7;
    if (r.max_sequence_length > 32) r.max_sequence_length = 32;
    if (strstr(name, "control") != NULL) r.control_image = pixels;
    if (from_picture) r.init_image = pixels, r.strength = 0.7f;
    return r;
}

/* What this rank's model holds open after a picture is what the map says. */
static void check_held(const char *model, const tessera_map *map, const struct pipeline *p, int rank) {
    for (int i = 0; i < p->num_slots; i++) {
        const struct pipeline_slot *slot = &p->slots[i];
        bool mine = device_map_share(map, slot->name, rank) > 0;
        CHECK(slot->is_open == mine, "%s: rank %d has %s %s", model, rank, slot->name, slot->is_open ? "open" : "not open");
        if (slot->is_open && strcmp(slot->name, p->denoiser) == 0)
            for (int b = 0; b < slot->component.num_blocks; b++)
                CHECK((slot->component.segments[b + 1].arena != NULL) == (map->placement.blocks[b] == rank), "%s: rank %d, block %d", model,
                      rank, b);
    }
}

/* With a map over the world, or without one on this rank alone. */
static tessera_image make(const char *name, const tessera_map *map, const char *offload, bool from_picture, struct told *told) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    tessera_mesh mesh = TESSERA_MESH;
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.dtype = TESSERA_F32, options.threads = 1, options.offload = offload;
    /* with guidance a map's products have half the rows, on which oneDNN's sums depend with AVX2 */
    options.kernels = strstr(name, "flux") != NULL ? TESSERA_KERNELS_BEST : TESSERA_KERNELS_OWN;
    mesh.world = world, mesh.map = map, mesh.pipefusion = tessera_world_size(world);
    if (map != NULL) options.mesh = &mesh;
    tessera_model *model = tessera_model_open(name, &options, &error);
    CHECK(model != NULL, "%s: %s", name, error.message);
    if (model == NULL) return image;
    tessera_request request = request_of(model, name, from_picture);
    request.step = see_step, request.step_user = told, request.progress = see_progress, request.progress_user = told;
    CHECK(tessera_generate(model, &request, &image, &error) == TESSERA_OK, "%s: %s", name, error.message);
    if (map != NULL && strcmp(offload, "none") == 0) check_held(name, map, model->pipeline, tessera_world_rank(world));
    tessera_model_free(model);
    return image;
}

/* Rank 0 is told of the steps that one rank alone is told of. */
static void check_told(const char *what, struct told *told, const tessera_image *whole, const struct told *alone) {
    size_t count = (size_t)whole->latent_channels * (size_t)whole->latent_height * (size_t)whole->latent_width;
    CHECK(told->done == 1, "%s: the denoising was done %d times", what, told->done);
    for (int i = 0; i < IMAGES; i++) {
        bool told_here = tessera_world_rank(world) == 0;
        CHECK(told->calls[i] == (told_here ? alone->calls[i] : 0) && told->last[i] == told->calls[i], "%s: %d steps of picture %d were told, the last %d", what,
              told->calls[i], i, told->last[i]);
        CHECK(!told_here || (told->latents[i] != NULL && memcmp(told->latents[i], whole->latents + i * count, count * sizeof(float)) == 0),
              "%s: the last step's latents of picture %d", what, i);
        free(told->latents[i]);
    }
}

static void check_same(const char *what, const tessera_image *whole, const tessera_image *image) {
    size_t latents = (size_t)whole->count * (size_t)(whole->latent_channels * whole->latent_height * whole->latent_width);
    CHECK(image->latents != NULL && memcmp(whole->latents, image->latents, latents * sizeof(float)) == 0, "%s: other latents", what);
    if (tessera_world_rank(world) != 0) {
        CHECK(image->pixels == NULL, "%s: rank 0 alone gets pixels", what);
        return;
    }
    size_t values = (size_t)whole->count * SIDE * SIDE * 3;
    CHECK(image->pixels_f32 != NULL && memcmp(whole->pixels_f32, image->pixels_f32, values * sizeof(float)) == 0, "%s: other pixels", what);
}

/* ---- maps ---- */

static tessera_map *open_map(const char *model, const char *map) {
    tessera_error error = {0};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_plan_request request = TESSERA_PLAN_REQUEST;
    options.dtype = TESSERA_F32;
    request.width = request.height = SIDE;
    tessera_map *out = tessera_map_open(model, &options, &request, map, tessera_world_size(world), NULL, &error);
    CHECK(out != NULL, "%s, %s: %s", model, map, error.message);
    return out;
}

/* Rank 0 writes; the others read what it wrote. */
static void write_map(const char *text) {
    FILE *file = tessera_world_rank(world) == 0 ? fopen(path, "w") : NULL;
    if (file != NULL) fputs(text, file), fclose(file);
    tessera_world_share(world, TESSERA_OK, NULL, 0, NULL);
}

/* The ranks in the other order, from the map's own text. */
static char *reversed(const char *model) {
    tessera_map *map = open_map(model, "balanced");
    int ranks = tessera_world_size(world);
    char *text = tessera_map_json(map);
    for (char *at = text; at != NULL && (at = strstr(at, "\": ")) != NULL; at += 3) at[3] = (char)('0' + ranks - 1 - (at[3] - '0'));
    tessera_map_free(map);
    return text;
}

/* Runs of `run` blocks to the ranks in turn, from rank `first` on, so that a rank has several. */
static char *in_turn(const char *model, int run, int first) {
    tessera_map *map = open_map(model, "balanced");
    int ranks = tessera_world_size(world);
    for (int b = 0; map != NULL && b < map->modules.num_blocks; b++) map->placement.blocks[b] = (b / run + first) % ranks;
    char *text = tessera_map_json(map);
    tessera_map_free(map);
    return text;
}

static void check_map(const char *model, const char *name, const tessera_map *map, const char *offload, bool from_picture, const tessera_image *whole,
                      const struct told *alone) {
    char what[256];
    snprintf(what, sizeof what, "%s, %s, offload %s%s", model, name, offload, from_picture ? ", from a picture" : "");
    struct told told = {0};
    tessera_image image = make(model, map, offload, from_picture, &told);
    check_same(what, whole, &image);
    check_told(what, &told, whole, alone);
    tessera_image_free(&image);
}

static void try_map(const char *model, const char *name, const char *map_text, bool all_offloads, const tessera_image *whole,
                    const struct told *alone) {
    if (map_text != NULL) write_map(map_text);
    tessera_map *map = open_map(model, map_text != NULL ? path : name);
    for (size_t k = 0; map != NULL && k < (all_offloads ? sizeof offloads / sizeof *offloads : 1); k++)

        check_map(model, name, map, offloads[k], false, whole, alone);
    tessera_map_free(map);
}

static void try_model(const char *model) {
    struct told told = {0};
    int last = tessera_world_size(world) - 1;
    char apart[256], *back = reversed(model);
    const char *denoiser = strstr(model, "sd15") != NULL || strstr(model, "sdxl") != NULL ? "unet" : "transformer";
    tessera_image whole = make(model, NULL, "none", false, &told);
    for (int i = 0; i < IMAGES; i++) free(told.latents[i]);
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) try_map(model, words[w], NULL, w == 0, &whole, &told);
    try_map(model, "ranks in the other order", back, true, &whole, &told);
    for (int first = 0; first < 2; first++) {
        char *turns = in_turn(model, 1 + first, first); /* the last run is on one rank or on another */
        try_map(model, first == 0 ? "blocks in turn" : "pairs of blocks in turn", turns, first == 0, &whole, &told);
        free(turns);
    }
    snprintf(apart, sizeof apart, "{\"\": 0, \"%s\": %d}", denoiser, last);
    try_map(model, "the denoiser on the last rank", apart, false, &whole, &told);
    snprintf(apart, sizeof apart, "{\"\": %d}", last);
    try_map(model, "all on the last rank", apart, false, &whole, &told);
    free(back);
    tessera_image_free(&whole);
}

/* A picture to begin with is encoded where the autoencoder is. */
static void try_from_picture(const char *model) {
    struct told told = {0};
    tessera_image whole = make(model, NULL, "none", true, &told);
    for (int i = 0; i < IMAGES; i++) free(told.latents[i]);
    char *back = reversed(model);
    write_map(back);
    tessera_map *map = open_map(model, path);
    for (size_t k = 0; map != NULL && k < sizeof offloads / sizeof *offloads; k++)
        check_map(model, "other order", map, offloads[k], true, &whole, &told);
    tessera_map_free(map);
    tessera_image_free(&whole);
    free(back);
}

/* What else a mesh must not ask for. */
static void test_refused(void) {
    tessera_error error = {0};
    tessera_map *map = open_map(models[4], "auto"), *other = open_map(models[2], "auto");
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_mesh mesh = TESSERA_MESH;
    options.mesh = &mesh;
    mesh.world = world, mesh.map = other, mesh.pipefusion = tessera_world_size(world);
    CHECK(tessera_model_open(models[4], &options, &error) == NULL && strstr(error.message, "made for another model") != NULL, "%s", error.message);
    mesh.map = map, mesh.num_pipeline_patch = 2;
    CHECK(tessera_model_open(models[4], &options, &error) == NULL && strstr(error.message, "num_pipeline_patch") != NULL, "%s", error.message);
    mesh.num_pipeline_patch = 0, mesh.parallel_vae = true;
    CHECK(tessera_model_open(models[4], &options, &error) == NULL && strstr(error.message, "parallel_vae") != NULL, "%s", error.message);
    tessera_map_free(map);
    tessera_map_free(other);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    world = tessera_world_open(&error);
    if (world == NULL || argc < 2) {
        fprintf(stderr, "%s\n", world == NULL ? error.message : "usage: test_map_pictures FOLDER [MODEL ...]");
        return 1;
    }
    snprintf(path, sizeof path, "%s/map_pictures-%d.json", argv[1], tessera_world_size(world));
    for (int i = 0; i < SIDE * SIDE * 3; i++) pixels[i] = (uint8_t)(i * 7);
    for (size_t m = 0; m < sizeof models / sizeof *models && argc == 2; m++) try_model(models[m]);
    for (int i = 2; i < argc; i++) try_model(argv[i]);
    if (argc == 2) try_from_picture(models[0]), try_from_picture(models[4]), test_refused();
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
