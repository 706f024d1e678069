/* A whole client of libtessera: prompt to picture, with progress on standard error, Ctrl-C to stop, and errors that say what is wrong.
 *
 *     cc generate.c $(pkg-config --cflags --libs tessera) -o generate
 *     ./generate $(pkg-config --variable=models tessera)/emoji "a lion on a blue background" lion.ppm [SEED [STEPS]] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <tessera.h>

static volatile sig_atomic_t stopped; /* the one thing that a signal can reach */

static void stop(int number) {
    (void)number;
    stopped = 1;
}

/* The library calls this before and after each unit of work; false makes tessera_generate return TESSERA_ERROR_CANCELLED. */
static bool report(void *user, tessera_phase phase, int done, int total) {
    static const char *const names[] = {"text", "encode", "denoise", "decode"};
    fprintf(user, "\r%-8s %d/%d ", names[phase], done, total);
    return !stopped;
}

/* A binary PPM: a line of sizes, then the pixels as the library gives them. */
static bool write_ppm(const char *path, const tessera_image *image) {
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;
    FILE *file = fopen(path, "wb");
    if (file == NULL) return false;
    bool good = fprintf(file, "P6\n%d %d\n255\n", image->width, image->height) > 0 && fwrite(image->pixels, 1, bytes, file) == bytes;
    return fclose(file) == 0 && good;
}

static int fail(const char *what) {
    fprintf(stderr, "\ngenerate: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 4) return fail("usage: generate MODEL PROMPT FILE.ppm [SEED [STEPS]]");
    tessera_error error;
    tessera_model_options options = TESSERA_MODEL_OPTIONS; /* zero is the default of each field */
    tessera_model *model = tessera_model_open(argv[1], &options, &error);
    if (model == NULL) return fail(error.message);

    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request); /* the model's own size, steps and guidance */
    request.prompt = argv[2];
    if (argc > 4) request.seed = strtoull(argv[4], NULL, 10);
    if (argc > 5) request.num_inference_steps = atoi(argv[5]);
    request.progress = report;
    request.progress_user = stderr;
    signal(SIGINT, stop);

    tessera_image image = TESSERA_IMAGE;
    int code = 0;
    if (tessera_generate(model, &request, &image, &error) != TESSERA_OK)
        code = fail(error.message);
    else if (!write_ppm(argv[3], &image))
        code = fail("the picture cannot be written");
    else
        fprintf(stderr, "\n%s: %dx%d in %.1f s\n", argv[3], image.width, image.height, image.seconds_denoise + image.seconds_decode);
    tessera_image_free(&image);
    tessera_model_free(model);
    return code;
}
