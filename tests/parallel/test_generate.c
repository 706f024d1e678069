/* Whole pictures over every mesh of a world against one rank: data x cfg x ring x ulysses x tensor,
 * with and without the parallel autoencoder, through the public API.
 *
 *     mpirun -n N test_generate MODEL[,lora=FILE[:SCALE]][,config=FOLDER]...
 *
 * Every rank makes the picture alone first; in float32 a mesh's must reach 50 dB of it. Meshes that
 * a model cannot have (more ranks than heads or rows; guidance over two ranks without guidance)
 * must be refused with an error that says what is possible. Prints a line per model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tessera.h"

enum { STEPS = 3, LEAST_DECIBEL = 50 };

static tessera_request request_of(const tessera_model *model) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = 96, r.height = 128;
    r.num_inference_steps = STEPS;
    r.true_cfg_scale = 2; /* Flux is guided by it */
    r.use_resolution_binning = false;
    if (r.max_sequence_length > 32) r.max_sequence_length = 32;
    return r;
}

/* An argument: a model, with the options that belong to it. */
struct subject {
    const char *name, *model, *config;
    tessera_lora lora; /* path NULL: none */
    char text[512];    /* what the others point into */
};

static bool read_subject(const char *argument, struct subject *out) {
    *out = (struct subject){.name = argument, .lora = TESSERA_LORA};
    if ((size_t)snprintf(out->text, sizeof out->text, "%s", argument) >= sizeof out->text) return false;
    out->model = strtok(out->text, ",");
    for (char *option = strtok(NULL, ","); option != NULL; option = strtok(NULL, ",")) {
        char *scale = strchr(option, ':');
        if (strncmp(option, "config=", 7) == 0) {
            out->config = option + 7;
        } else if (strncmp(option, "lora=", 5) == 0) {
            out->lora.path = option + 5;
            if (scale != NULL) *scale = 0, out->lora.scale = strtof(scale + 1, NULL);
        } else {
            return false;
        }
    }
    return out->model != NULL;
}

static tessera_status make(const struct subject *subject, tessera_mesh mesh, tessera_image *image, bool *gets, tessera_error *error) {
    tessera_model_options options = {
        .struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1, .mesh = &mesh, .config = subject->config};
    options.loras = &subject->lora, options.num_loras = subject->lora.path != NULL ? 1 : 0;
    tessera_model *model = tessera_model_open(subject->model, &options, error);
    if (model == NULL) return error->status;
    tessera_request request = request_of(model);
    tessera_status status = tessera_generate(model, &request, image, error);
    *gets = tessera_model_gets_pictures(model);
    tessera_model_free(model);
    return status;
}

static double decibel(const tessera_image *a, const tessera_image *b) {
    double sum = 0;
    size_t count = (size_t)a->width * (size_t)a->height * 3;
    if (a->width != b->width || a->height != b->height) return 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a->pixels_f32[i] - (double)b->pixels_f32[i];
        sum += d * d;
    }
    return sum == 0 ? 200 : -10 * log10(sum / (double)count);
}

/* 1 if the mesh is possible for the model. */
static int run_mesh(const struct subject *subject, tessera_mesh mesh, const tessera_image *alone, double *worst) {
    tessera_image image = TESSERA_IMAGE;
    tessera_error error = {0};
    bool gets = false;
    tessera_status status = make(subject, mesh, &image, &gets, &error);
    if (status != TESSERA_OK) {
        CHECK(strstr(error.message, "possible") != NULL || strstr(error.message, "guid") != NULL, "%s: %s", subject->name, error.message);
        return 0;
    }
    CHECK(gets == (image.pixels_f32 != NULL), "%s: the rank that gets pictures has them", subject->name);
    double db = gets ? decibel(&image, alone) : 200;
    CHECK(db >= LEAST_DECIBEL, "%s: data %d cfg %d ring %d ulysses %d tensor %d vae %d: %.1f dB", subject->name, mesh.data, mesh.cfg,
          mesh.ring, mesh.ulysses, mesh.tensor, mesh.parallel_vae, db);
    if (db < *worst) *worst = db;
    tessera_image_free(&image);
    return 1;
}

/* A LoRA must change the picture by more than what the meshes are held to. */
static void check_lora_shows(const struct subject *subject, const tessera_image *with) {
    struct subject plain = *subject;
    tessera_image without = TESSERA_IMAGE;
    tessera_error error = {0};
    bool gets;
    plain.lora.path = NULL;
    CHECK(make(&plain, (tessera_mesh)TESSERA_MESH, &without, &gets, &error) == TESSERA_OK, "%s: %s", subject->name, error.message);
    if (without.pixels_f32 == NULL) return;
    double db = decibel(with, &without);
    CHECK(db < LEAST_DECIBEL, "%s: %.1f dB without the LoRA", subject->name, db);
    tessera_image_free(&without);
}

static void run_model(tessera_world *world, const struct subject *subject) {
    int size = tessera_world_size(world), meshes = 0;
    tessera_image alone = TESSERA_IMAGE;
    tessera_error error = {0};
    double worst = 200;
    bool gets;
    CHECK(make(subject, (tessera_mesh)TESSERA_MESH, &alone, &gets, &error) == TESSERA_OK, "%s: %s", subject->name, error.message);
    if (alone.pixels_f32 == NULL) return;
    if (subject->lora.path != NULL) check_lora_shows(subject, &alone);
    for (int data = 1; data <= size; data++)
        for (int cfg = 1; cfg <= 2; cfg++)
            for (int tensor = 1; tensor <= size; tensor++)
                for (int ring = 1; ring <= size; ring++)
                    for (int ulysses = 1; ulysses <= size; ulysses++) {
                        if (data * cfg * tensor * ring * ulysses != size) continue;
                        bool vae = (ring + ulysses + tensor) % 2 == 0;
                        tessera_mesh mesh = {.struct_size = sizeof(tessera_mesh),
                                             .world = world,
                                             .data = data,
                                             .cfg = cfg,
                                             .ring = ring,
                                             .ulysses = ulysses};
                        mesh.tensor = tensor, mesh.parallel_vae = vae;
                        meshes += run_mesh(subject, mesh, &alone, &worst);
                    }
    if (tessera_world_rank(world) == 0) printf("  %-44s %d meshes of %d ranks, %.1f dB at least\n", subject->name, meshes, size, worst);
    tessera_image_free(&alone);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        struct subject subject;
        bool good = read_subject(argv[i], &subject);
        CHECK(good, "\"%s\" is no MODEL[,lora=FILE[:SCALE]][,config=FOLDER]", argv[i]);
        if (good) run_model(world, &subject);
    }
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
