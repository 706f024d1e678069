/* See given_pictures.h. */
#include "cli/given_pictures.h"

#include "base/error.h"

/* A given width or height must be the picture's. */
static tessera_status check_side(const struct option_value *values, int picture, int side_option, int side, tessera_error *error) {
    const struct option_value *value = &values[side_option];
    const char *name = generate_options[side_option].name;
    if (!value->given || value->integer == side) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s %s has %s %d but --%s asks for %d: leave it out or scale the picture first",
                     generate_options[picture].name, values[picture].text, name, side, name, value->integer);
}

static tessera_status read_picture(const struct option_value *values, int option, struct png_picture *out, char *fingerprint,
                                   tessera_error *error) {
    if (values[option].text == NULL) return TESSERA_OK;
    TRY(png_file_read(values[option].text, RECORD_KEY, out, error));
    fingerprint_bytes(out->pixels, (size_t)out->width * (size_t)out->height * 3, fingerprint);
    TRY(check_side(values, option, GENERATE_WIDTH, out->width, error));
    return check_side(values, option, GENERATE_HEIGHT, out->height, error);
}

tessera_status given_pictures_read(const struct option_value *values, struct given_pictures *out, struct record_facts *facts,
                                   tessera_error *error) {
    struct png_picture *init = &out->init, *control = &out->control;
    TRY(read_picture(values, GENERATE_INIT_IMAGE, init, facts->init_image_fingerprint, error));
    TRY(read_picture(values, GENERATE_CONTROL_IMAGE, control, facts->control_image_fingerprint, error));
    bool both = init->pixels != NULL && control->pixels != NULL;
    if (!both || (init->width == control->width && init->height == control->height)) return TESSERA_OK;
    return error_set(
        error, TESSERA_ERROR_ARGUMENT, "--init-image %s is %dx%d but --control-image %s is %dx%d: scale one of them to the other's size",
        values[GENERATE_INIT_IMAGE].text, init->width, init->height, values[GENERATE_CONTROL_IMAGE].text, control->width, control->height);
}

void given_pictures_free(struct given_pictures *pictures) {
    png_picture_free(&pictures->init);
    png_picture_free(&pictures->control);
}

const struct png_picture *given_pictures_sized(const struct given_pictures *pictures) {
    return pictures->init.pixels != NULL ? &pictures->init : pictures->control.pixels != NULL ? &pictures->control : NULL;
}
