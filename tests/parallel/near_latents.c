/* near_latents CASE_FOLDER A.safetensors B.safetensors: exits 0 if the latents in both are the same
 * within the tolerance of the case, else 1 and says by how much they differ. For scripts: which
 * kernels round alike for other shapes depends on the machine. */
#include <stdio.h>

#include "case_io.h"

static tessera_status compare(char **paths, double *worst, tessera_error *error) {
    struct case_io c;
    struct safetensors *files[2] = {NULL, NULL};
    struct tensor latents[2] = {{0}, {0}};
    TRY(case_open(paths[0], &c, error));
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < 2 && status == TESSERA_OK; i++) {
        status = safetensors_open(paths[1 + i], &files[i], error);
        const struct safetensors_entry *entry = status == TESSERA_OK ? safetensors_find(files[i], "latents") : NULL;
        if (entry != NULL) latents[i] = entry->tensor;
    }
    if (status == TESSERA_OK) *worst = case_compare(&c, &latents[1], &latents[0]).worst;
    for (int i = 0; i < 2; i++)
        if (files[i] != NULL) safetensors_close(files[i]);
    case_close(&c);
    return status;
}

int main(int argc, char **argv) {
    double worst = 0;
    tessera_error error = {0};
    if (argc != 4) return fprintf(stderr, "usage: near_latents CASE_FOLDER A.safetensors B.safetensors\n"), 2;
    if (compare(argv + 1, &worst, &error) != TESSERA_OK) return fprintf(stderr, "near_latents: %s\n", error.message), 2;
    printf("%.4f of the tolerance\n", worst);
    return worst <= 1 ? 0 : 1;
}
