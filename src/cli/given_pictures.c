/* See given_pictures.h. */
#include "cli/given_pictures.h"

#include "base/error.h"

static tessera_status read_picture(const struct option_value *values, int option, tessera_picture *out, char *fingerprint,
                                   tessera_error *error) {
    if (values[option].text == NULL) return TESSERA_OK;
    TRY(tessera_picture_read(values[option].text, out, error));
    if (out->note != NULL) fprintf(stderr, "tessera: %s %s\n", values[option].text, out->note);
    tessera_bytes_fingerprint(out->pixels, (size_t)out->width * (size_t)out->height * 3, fingerprint);
    return TESSERA_OK;
}

tessera_status given_pictures_read(const struct option_value *values, struct given_pictures *out, struct record_facts *facts,
                                   tessera_error *error) {
    *out = (struct given_pictures){.init = TESSERA_PICTURE, .control = TESSERA_PICTURE};
    TRY(read_picture(values, GENERATE_INIT_IMAGE, &out->init, facts->init_image_fingerprint, error));
    return read_picture(values, GENERATE_CONTROL_IMAGE, &out->control, facts->control_image_fingerprint, error);
}

/* At least one unit: a picture smaller than that is scaled up. */
static int rounded(int size, int unit) {
    return size < unit ? unit : size / unit * unit;
}

tessera_status given_pictures_scale(const struct option_value *values, int unit, bool speaks, struct given_pictures *pictures,
                                    tessera_error *error) {
    const struct option_value *width = &values[GENERATE_WIDTH], *height = &values[GENERATE_HEIGHT];
    const tessera_picture *sized = given_pictures_sized(pictures);
    if (sized == NULL) return TESSERA_OK;
    int columns = width->given ? width->integer : rounded(sized->width, unit);
    int rows = height->given ? height->integer : rounded(sized->height, unit);
    if (speaks && !width->given && !height->given && (columns != sized->width || rows != sized->height))
        fprintf(stderr, "tessera: the picture of %dx%d is scaled to %dx%d: this model's sizes are multiples of %d\n", sized->width,
                sized->height, columns, rows, unit);
    if (pictures->init.pixels != NULL) TRY(tessera_picture_scale(&pictures->init, columns, rows, error));
    return pictures->control.pixels != NULL ? tessera_picture_scale(&pictures->control, columns, rows, error) : TESSERA_OK;
}

void given_pictures_free(struct given_pictures *pictures) {
    tessera_picture_free(&pictures->init);
    tessera_picture_free(&pictures->control);
}

const tessera_picture *given_pictures_sized(const struct given_pictures *pictures) {
    return pictures->init.pixels != NULL ? &pictures->init : pictures->control.pixels != NULL ? &pictures->control : NULL;
}
