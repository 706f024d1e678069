/* See small_pictures.h. */
#include "small_pictures.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "checkpoint/convert.h"

tessera_status small_denoiser(const char *stored, const char *type, char path[SMALL_PATH], tessera_error *error) {
    struct convert_types types = {.given = true};
    struct convert_report report = {.types = &types};
    char name[16] = "";
    for (size_t i = 0; type[i] != 0 && i < sizeof name - 1; i++) name[i] = (char)toupper((unsigned char)type[i]);
    if (strcmp(type, "f8") == 0) strcpy(name, "F8_E4M3");
    path[0] = 0;
    if (!dtype_from_name(name, &types.dtype) || !dtype_is_written(types.dtype))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: not a type that is written", type);
    snprintf(path, SMALL_PATH, "/tmp/tessera-small-XXXXXX.safetensors");
    int descriptor = mkstemps(path, (int)strlen(".safetensors"));
    if (descriptor < 0) return error_set_errno(error, "%s: cannot create", path);
    close(descriptor);
    return convert_tensors(stored, path, &report, error);
}

struct small_figure small_figure_of(const struct quality_pictures *exact, const struct quality_pictures *small) {
    struct small_figure figure = {0, QUALITY_EQUAL};
    for (int i = 0; i < SMALL_PICTURES; i++) {
        double db = quality_decibel(exact, small, i);
        figure.mean += db / SMALL_PICTURES;
        figure.lowest = fmin(figure.lowest, db);
    }
    return figure;
}
