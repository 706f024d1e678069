/* See request_options.h. */
#include "cli/request_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "cli/generate.h"

/* A whole number from `low` to 2^20 at *text, which is moved behind it; -1: there is none. */
static int read_whole(const char **text, int low) {
    char *end;
    if (!isdigit((unsigned char)**text)) return -1;
    errno = 0;
    long number = strtol(*text, &end, 10);
    *text = end;
    return errno == 0 && number >= low && number <= 1 << 20 ? (int)number : -1;
}

/* Two whole numbers with `separator` between them, each from `low` to 2^20; neither is touched
 * where the option was not given. */
static tessera_status read_pair(const struct option_value *values, int option, char separator, int low, int *first, int *second,
                                tessera_error *error) {
    const char *text = values[option].text, *rest = text;
    if (text == NULL) return TESSERA_OK;
    int a = read_whole(&rest, low), b = -1;
    if (a >= 0 && *rest++ == separator) b = read_whole(&rest, low);
    if (a < 0 || b < 0 || *rest != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s %s: it must be two whole numbers from %d: %s", generate_options[option].name,
                         text, low, generate_options[option].placeholder);
    *first = a;
    *second = b;
    return TESSERA_OK;
}

tessera_status request_options_read_sizes(const struct option_value *values, tessera_request *r, tessera_error *error) {
    TRY(read_pair(values, GENERATE_ORIGINAL_SIZE, 'x', 1, &r->original_width, &r->original_height, error));
    TRY(read_pair(values, GENERATE_CROPS, ',', 0, &r->crop_top, &r->crop_left, error));
    return read_pair(values, GENERATE_TARGET_SIZE, 'x', 1, &r->target_width, &r->target_height, error);
}

tessera_status request_options_read(const struct option_value *v, const struct given_pictures *given, const tessera_model *model,
                                    tessera_request *r, tessera_error *error) {
    *r = (tessera_request)TESSERA_REQUEST;
    tessera_request_defaults(model, given->init.pixels != NULL, r);
    const tessera_picture *sized = given_pictures_sized(given);
    r->init_image = given->init.pixels;
    r->control_image = given->control.pixels;
    if (sized != NULL) r->width = sized->width, r->height = sized->height;
    if (v[GENERATE_WIDTH].given) r->width = v[GENERATE_WIDTH].integer;
    if (v[GENERATE_HEIGHT].given) r->height = v[GENERATE_HEIGHT].integer;
    if (v[GENERATE_STEPS].given) r->num_inference_steps = v[GENERATE_STEPS].integer;
    if (v[GENERATE_GUIDANCE_SCALE].given) r->guidance_scale = (float)v[GENERATE_GUIDANCE_SCALE].number;
    if (v[GENERATE_GUIDANCE_RESCALE].given) r->guidance_rescale = (float)v[GENERATE_GUIDANCE_RESCALE].number;
    if (v[GENERATE_TRUE_CFG_SCALE].given) r->true_cfg_scale = (float)v[GENERATE_TRUE_CFG_SCALE].number;
    if (v[GENERATE_CLIP_SKIP].given) r->clip_skip = v[GENERATE_CLIP_SKIP].integer;
    if (v[GENERATE_RESOLUTION_BINNING].given) r->use_resolution_binning = v[GENERATE_RESOLUTION_BINNING].flag;
    if (v[GENERATE_NO_RESOLUTION_BINNING].flag) r->use_resolution_binning = false;
    if (v[GENERATE_NUM_IMAGES].given) r->num_images = v[GENERATE_NUM_IMAGES].integer;
    if (v[GENERATE_MAX_SEQUENCE_LENGTH].given) r->max_sequence_length = v[GENERATE_MAX_SEQUENCE_LENGTH].integer;
    if (v[GENERATE_STRENGTH].given) r->strength = (float)v[GENERATE_STRENGTH].number;
    r->long_prompt = v[GENERATE_LONG_PROMPT].flag;
    r->seed = v[GENERATE_SEED].seed;
    r->negative_prompt = v[GENERATE_NEGATIVE_PROMPT].text;
    r->scheduler = v[GENERATE_SCHEDULER].text;
    r->step_cache = v[GENERATE_FBCACHE].flag ? "fbcache" : v[GENERATE_TEACACHE].flag ? "teacache" : NULL;
    r->step_cache_threshold = (float)v[GENERATE_CACHE_THRESHOLD].number;
    r->latents_only = v[GENERATE_OUTPUT_TYPE].text != NULL && strcmp(v[GENERATE_OUTPUT_TYPE].text, "latent") == 0;
    return request_options_read_sizes(v, r, error);
}

static void settle_integer(struct option_value *value, int integer) {
    value->integer = integer;
    value->given = true;
}

static void settle_number(struct option_value *value, float number) {
    value->number = (double)number;
    value->given = true;
}

bool request_options_guided(const struct option_value *v, const tessera_family *family, const tessera_request *defaults) {
    int option = family->distilled ? GENERATE_TRUE_CFG_SCALE : GENERATE_GUIDANCE_SCALE;
    double scale = family->distilled ? defaults->true_cfg_scale : defaults->guidance_scale;
    if (v[option].given) scale = v[option].number;
    return scale > 1 && (!family->distilled || v[GENERATE_NEGATIVE_PROMPT].text != NULL);
}

void request_options_settle(const tessera_request *r, struct option_value *v) {
    settle_integer(&v[GENERATE_WIDTH], r->width);
    settle_integer(&v[GENERATE_HEIGHT], r->height);
    settle_integer(&v[GENERATE_STEPS], r->num_inference_steps);
    settle_number(&v[GENERATE_GUIDANCE_SCALE], r->guidance_scale);
    settle_number(&v[GENERATE_GUIDANCE_RESCALE], r->guidance_rescale);
    settle_number(&v[GENERATE_TRUE_CFG_SCALE], r->true_cfg_scale);
    settle_integer(&v[GENERATE_CLIP_SKIP], r->clip_skip);
    v[GENERATE_RESOLUTION_BINNING].flag = r->use_resolution_binning;
    settle_integer(&v[GENERATE_NUM_IMAGES], r->num_images);
    settle_integer(&v[GENERATE_MAX_SEQUENCE_LENGTH], r->max_sequence_length);
    settle_number(&v[GENERATE_STRENGTH], r->strength);
}
