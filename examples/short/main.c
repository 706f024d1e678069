/* A picture by the model of short_transformer.c, in a folder whose transformer/config.json names
 * its class. Prints some of its pixels.
 *
 *     ./short FOLDER
 *     mpirun -n 2 ./short FOLDER ring 2        or ulysses, tensor, pipefusion, cfg */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tessera_model.h>

extern const struct denoiser_class short_class;

static bool set_degree(tessera_mesh *mesh, const char *axis, int degree) {
    struct { const char *name; int *degree; } axes[] = {{"ring", &mesh->ring}, {"ulysses", &mesh->ulysses}, {"tensor", &mesh->tensor},
                                                        {"pipefusion", &mesh->pipefusion}, {"cfg", &mesh->cfg}};
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++)
        if (strcmp(axes[i].name, axis) == 0) return *axes[i].degree = degree, true;
    return false;
}

int main(int argc, char **argv) {
    static const struct denoiser_class *const classes[] = {&short_class};
    tessera_error error = {0};
    tessera_mesh mesh = TESSERA_MESH;
    if (argc != 2 && !(argc == 4 && set_degree(&mesh, argv[2], atoi(argv[3])))) return fprintf(stderr, "usage: short FOLDER [AXIS N]\n"), 2;
    mesh.world = tessera_world_open(&error);
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.denoisers = classes, options.num_denoisers = 1;
    options.mesh = &mesh, options.dtype = TESSERA_F32, options.threads = 1;
    tessera_model *model = mesh.world != NULL ? tessera_model_open(argv[1], &options, &error) : NULL;
    tessera_request request = TESSERA_REQUEST;
    tessera_image image = TESSERA_IMAGE;
    tessera_request_defaults(model, false, &request);
    request.prompt = "a lion", request.num_inference_steps = 2;
    bool drawn = model != NULL && tessera_generate(model, &request, &image, &error) == TESSERA_OK;
    if (!drawn) fprintf(stderr, "short: %s\n", error.message);
    for (int i = 0; drawn && image.pixels != NULL && i < 8; i++) {
        const unsigned char *p = image.pixels + 3 * (size_t)(i * image.height / 8) * (size_t)(image.width + 1);
        printf("%d,%d,%d%c", p[0], p[1], p[2], i < 7 ? ' ' : '\n');
    }
    tessera_image_free(&image);
    tessera_model_free(model);
    drawn = drawn && tessera_world_finish(mesh.world, &error) == TESSERA_OK;
    tessera_world_free(mesh.world);
    return drawn ? 0 : 1;
}
