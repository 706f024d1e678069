/* See given_pictures.h. */
#include "cli/given_pictures.h"

#include "base/error.h"
#include "image/resample.h"

static tessera_status read_picture(const struct option_value *values, int option, struct image *out, char *fingerprint,
                                   tessera_error *error) {
    if (values[option].text == NULL) return TESSERA_OK;
    TRY(image_file_read(values[option].text, out, error));
    fingerprint_bytes(out->pixels, image_values(out), fingerprint);
    return TESSERA_OK;
}

static tessera_status scale(struct image *image, int width, int height, tessera_error *error) {
    struct image scaled;
    if (image->pixels == NULL || (image->width == width && image->height == height)) return TESSERA_OK;
    TRY(resample_bytes(image, width, height, RESAMPLE_LANCZOS, &scaled, error));
    image_free(image);
    *image = scaled;
    return TESSERA_OK;
}

tessera_status given_pictures_read(const struct option_value *values, struct given_pictures *out, struct record_facts *facts,
                                   tessera_error *error) {
    const struct option_value *width = &values[GENERATE_WIDTH], *height = &values[GENERATE_HEIGHT];
    TRY(read_picture(values, GENERATE_INIT_IMAGE, &out->init, facts->init_image_fingerprint, error));
    TRY(read_picture(values, GENERATE_CONTROL_IMAGE, &out->control, facts->control_image_fingerprint, error));
    const struct image *sized = given_pictures_sized(out);
    if (sized == NULL) return TESSERA_OK;
    int columns = width->given ? width->integer : sized->width, rows = height->given ? height->integer : sized->height;
    TRY(scale(&out->init, columns, rows, error));
    return scale(&out->control, columns, rows, error);
}

void given_pictures_free(struct given_pictures *pictures) {
    image_free(&pictures->init);
    image_free(&pictures->control);
}

const struct image *given_pictures_sized(const struct given_pictures *pictures) {
    return pictures->init.pixels != NULL ? &pictures->init : pictures->control.pixels != NULL ? &pictures->control : NULL;
}
