/* The first picture of a subject by reproducible kernels, its latents and pixels as bytes on
 * standard output:
 *
 *     reproducible_picture SUBJECT THREADS | sha256sum
 *
 * For processors on which the tests' other libraries are not there: test_reproducible_aarch64.sh
 * builds it alone and compares the sum with the value that all other paths have (reproducible.txt). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/reproducible_subjects.h"

int main(int argc, char **argv) {
    tessera_error error = {0};
    const struct subject *s = NULL;
    for (int i = 0; argc == 3 && i < SUBJECTS; i++)
        if (strcmp(subjects[i].name, argv[1]) == 0) s = &subjects[i];
    if (s == NULL) return fprintf(stderr, "usage: reproducible_picture SUBJECT THREADS\n"), 2;
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.dtype = s->dtype, options.threads = atoi(argv[2]), options.kernels = TESSERA_KERNELS_REPRODUCIBLE;
    tessera_model *model = tessera_model_open(s->model, &options, &error);
    if (model == NULL) return fprintf(stderr, "%s: %s\n", s->model, error.message), 1;
    tessera_request request = subject_request(s, model, 1);
    tessera_image image = TESSERA_IMAGE;
    bool made = tessera_generate(model, &request, &image, &error) == TESSERA_OK;
    if (!made) fprintf(stderr, "%s: %s\n", s->model, error.message);
    if (made) fwrite(image.latents, sizeof *image.latents, picture_latents(&image), stdout);
    if (made) fwrite(image.pixels, 1, picture_pixels(&image), stdout);
    tessera_image_free(&image);
    tessera_model_free(model);
    return made && fflush(stdout) == 0 ? 0 : 1;
}
