/* A whole client of libtessera: prompt to PNG, on one rank or several, with progress, Ctrl-C to
 * stop, and errors that say what is wrong.
 *
 *     cc generate.c $(pkg-config --cflags --libs tessera) -o generate
 *     mpirun -n 2 ./generate emoji "a lion on a blue background" lion.png [SEED [STEPS]] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <tessera_files.h>
#include <tessera_plan.h>

static volatile sig_atomic_t stopped; /* the one thing that a signal can reach */

static void stop(int number) {
    (void)number;
    stopped = 1;
}

/* The library calls this before and after each unit of work; false ends the call with
 * TESSERA_ERROR_CANCELLED, on all ranks. */
static bool report(void *user, tessera_phase phase, int done, int total) {
    static const char *const names[] = {"text", "encode", "denoise", "decode"};
    if (user != NULL) fprintf(user, "\r%-8s %d/%d ", names[phase], done, total);
    return !stopped;
}

/* The library gives each finished picture to one rank; `user` is the file's name. */
static tessera_status write_picture(void *user, int image, const tessera_image *picture, tessera_error *error) {
    const tessera_text software = {"Software", "an example of Tessera's"};
    (void)image;
    return tessera_png_write(user, NULL, picture->pixels, picture->width, picture->height, &software, 1, error);
}

/* Opens the model on all ranks; how several share the work is measured and chosen. */
static tessera_model *open_model(const char *name, tessera_world *world, tessera_error *error) {
    tessera_mesh mesh = TESSERA_MESH;
    tessera_model_options options = TESSERA_MODEL_OPTIONS; /* zero is the default of each field */
    mesh.world = world;
    options.mesh = &mesh;
    if (tessera_world_size(world) > 1 && tessera_mesh_choose(name, &options, NULL, false, &mesh, NULL, NULL, 0, error) != TESSERA_OK)
        return NULL;
    return tessera_model_open(name, &options, error);
}

static tessera_status draw(tessera_world *world, char **argv, int argc, tessera_error *error) {
    tessera_model *model = open_model(argv[1], world, error);
    if (model == NULL) return error->status;
    tessera_request request = TESSERA_REQUEST;
    tessera_image image = TESSERA_IMAGE;
    tessera_request_defaults(model, false, &request); /* the model's own size, steps and guidance */
    request.prompt = argv[2];
    if (argc > 4) request.seed = strtoull(argv[4], NULL, 10);
    if (argc > 5) request.num_inference_steps = atoi(argv[5]);
    request.progress = report;
    request.progress_user = tessera_world_rank(world) == 0 ? stderr : NULL;
    request.deliver = write_picture;
    request.deliver_user = argv[3];
    tessera_status status = tessera_generate(model, &request, &image, error);
    if (status == TESSERA_OK && tessera_world_rank(world) == 0)
        fprintf(stderr, "\n%s: %dx%d in %.1f s\n", argv[3], image.width, image.height, image.seconds_denoise + image.seconds_decode);
    tessera_model_free(model);
    return status;
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    if (argc < 4) return fprintf(stderr, "usage: generate MODEL PROMPT FILE.png [SEED [STEPS]]\n"), 1;
    tessera_world *world = tessera_world_open(&error);
    signal(SIGINT, stop);
    tessera_status status = world != NULL ? draw(world, argv, argc, &error) : error.status;
    if (status == TESSERA_OK) status = tessera_world_finish(world, &error);
    if (status != TESSERA_OK && tessera_world_rank(world) == 0) fprintf(stderr, "\ngenerate: %s\n", error.message);
    tessera_world_free(world);
    return status == TESSERA_OK ? 0 : 1;
}
