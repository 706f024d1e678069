/* The public API of include/tessera_files.h over the rooms image, hub and checkpoint. */
#include "tessera_files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "checkpoint/fingerprint.h"
#include "checkpoint/published.h"
#include "checkpoint/single_file.h"
#include "hub/hub.h"
#include "image/png.h"
#include "image/resample.h"
#include "pipelines/sized.h"

#define PICTURE_LEAST_BYTES (offsetof(tessera_picture, num_texts) + sizeof(int))

/* ---- pictures ---- */

static bool is_png(const char *path) {
    char start[8] = "";
    FILE *file = fopen(path, "rb");
    size_t n = file != NULL ? fread(start, 1, sizeof start, file) : 0;
    if (file != NULL) fclose(file);
    return n == sizeof start && memcmp(start, "\x89PNG\r\n\x1a\n", sizeof start) == 0;
}

static tessera_status read_png(const char *path, tessera_picture *out, tessera_error *error) {
    struct png_picture png;
    TRY(png_file_read(path, "", &png, error));
    *out = (tessera_picture){.struct_size = sizeof *out,
                             .width = png.width,
                             .height = png.height,
                             .pixels = png.pixels,
                             .note = png.note,
                             .texts = png.text,
                             .num_texts = png.text_count};
    free(png.record);
    return TESSERA_OK;
}

static tessera_status read_other(const char *path, tessera_picture *out, tessera_error *error) {
    struct image image;
    TRY(image_file_read(path, &image, error));
    *out = (tessera_picture){
        .struct_size = sizeof *out, .width = image.width, .height = image.height, .pixels = image.pixels, .note = image.note};
    return TESSERA_OK;
}

tessera_status tessera_picture_read(const char *path, tessera_picture *picture, tessera_error *error) {
    tessera_picture read = TESSERA_PICTURE;
    if (path == NULL || picture == NULL || !sized_write(picture, &read, sizeof read, PICTURE_LEAST_BYTES))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "tessera_picture_read: path or picture is NULL, or its size is not set: begin with TESSERA_PICTURE");
    struct stat facts;
    bool is_pipe = stat(path, &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode); /* it could be read once, and opening it may block */
    if (is_pipe) return error_set(error, TESSERA_ERROR_IO, "%s: a pipe or device: write the picture to a file first", path);
    TRY(!file_is_folder(path) && is_png(path) ? read_png(path, &read, error) : read_other(path, &read, error));
    sized_write(picture, &read, sizeof read, PICTURE_LEAST_BYTES);
    return TESSERA_OK;
}

const char *tessera_picture_text(const tessera_picture *picture, const char *key) {
    for (int i = 0; picture != NULL && key != NULL && i < picture->num_texts; i++)
        if (strcmp(picture->texts[i].key, key) == 0) return picture->texts[i].value;
    return NULL;
}

tessera_status tessera_picture_scale(tessera_picture *picture, int width, int height, tessera_error *error) {
    struct image scaled;
    if (picture == NULL || picture->pixels == NULL || width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_picture_scale: no picture, or %dx%d: from 1 to %d pixels a side", width,
                         height, IMAGE_MAX_SIDE);
    if (picture->width == width && picture->height == height) return TESSERA_OK;
    const struct image image = {.width = picture->width, .height = picture->height, .pixels = picture->pixels};
    TRY(resample_bytes(&image, width, height, RESAMPLE_LANCZOS, &scaled, error));
    free(picture->pixels);
    picture->pixels = scaled.pixels;
    picture->width = width;
    picture->height = height;
    return TESSERA_OK;
}

void tessera_picture_free(tessera_picture *picture) {
    static const tessera_picture empty = TESSERA_PICTURE;
    if (picture == NULL) return;
    free(picture->pixels);
    for (int i = 0; i < picture->num_texts; i++) {
        free((char *)picture->texts[i].key);
        free((char *)picture->texts[i].value);
    }
    free((tessera_text *)picture->texts);
    sized_write(picture, &empty, sizeof empty, sizeof empty.struct_size);
}

tessera_status tessera_png_write(const char *path, void *stream, const uint8_t *pixels, int width, int height, const tessera_text *texts,
                                 int num_texts, tessera_error *error) {
    if (path == NULL || pixels == NULL || width < 1 || height < 1 || num_texts < 0 || (texts == NULL && num_texts > 0))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_png_write: needs a path, at least one pixel, and the texts that it has");
    return stream != NULL ? png_stream_write(stream, path, pixels, width, height, texts, num_texts, error)
                          : png_file_write(path, pixels, width, height, texts, num_texts, error);
}

/* ---- models by name ---- */

bool tessera_model_is_on_hub(const char *model) {
    return model != NULL && hub_is_name(model);
}

tessera_status tessera_model_find(const char *model, const char *variant, tessera_download progress, void *user, char **path,
                                  tessera_error *error) {
    if (model == NULL || path == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_find: model or path is NULL");
    const struct hub_options options = {.variant = variant, .progress = progress, .user = user};
    *path = NULL;
    if (hub_is_name(model)) return hub_resolve(model, &options, path, error);
    if (!file_exists(model) && text_is_choice(TESSERA_EMBEDDED_MODELS, model)) return embedded_model_find(model, path, error);
    *path = strdup(model);
    return *path != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

tessera_status tessera_path_pipeline_class(const char *path, char out[TESSERA_CLASS_BYTES], tessera_error *error) {
    struct json *index = NULL;
    const char *name = "";
    if (path == NULL || out == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_path_pipeline_class: path or out is NULL");
    out[0] = 0;
    if (!file_is_folder(path)) return single_file_pipeline(path, out, TESSERA_CLASS_BYTES, error);
    TRY(json_open_in(path, "model_index.json", &index, error));
    tessera_status status = json_string(index, "_class_name", "", &name, error);
    if (status == TESSERA_OK) snprintf(out, TESSERA_CLASS_BYTES, "%s", name);
    json_free(index);
    return status;
}

tessera_status tessera_path_fingerprint(const char *path, char out[TESSERA_FINGERPRINT_BYTES], tessera_error *error) {
    if (path == NULL || out == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_path_fingerprint: path or out is NULL");
    return fingerprint_model(path, out, error);
}

tessera_status tessera_loras_fingerprint(const tessera_lora *loras, int num_loras, char out[TESSERA_FINGERPRINT_BYTES],
                                         tessera_error *error) {
    if (num_loras < 0 || (loras == NULL && num_loras > 0) || out == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_loras_fingerprint: loras or out is NULL");
    return fingerprint_loras(loras, num_loras, out, error);
}

void tessera_bytes_fingerprint(const void *data, size_t length, char out[TESSERA_FINGERPRINT_BYTES]) {
    fingerprint_bytes(data, length, out);
}
