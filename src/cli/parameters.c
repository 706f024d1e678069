/* See parameters.h. */
#include "cli/parameters.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/generate.h"
#include "cli/habits.h"

#define NEGATIVE "Negative prompt: "
#define SETTINGS "Steps: "

/* ---- writing ---- */

/* "models/style.safetensors" is "style": *length bytes from the place that is returned. */
static const char *plain_base(const char *path, int *length) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/') start--;
    if (n - start > 12 && strncmp(path + n - 12, ".safetensors", 12) == 0) n -= 12;
    *length = (int)(n - start);
    return path + start;
}

/* A LoRA file as a tag; what follows the last colon is its scale. */
static void print_lora(FILE *out, const char *lora) {
    const char *colon = strrchr(lora, ':');
    char *end = NULL;
    double scale = colon != NULL ? strtod(colon + 1, &end) : 1;
    bool scaled = colon != NULL && end != colon + 1 && *end == 0;
    char *path = strndup(lora, scaled ? (size_t)(colon - lora) : strlen(lora));
    int length = 0;
    const char *name = path != NULL ? plain_base(path, &length) : "";
    fprintf(out, " <lora:%.*s:%.9g>", length, name, scaled ? scale : 1.0);
    free(path);
}

static void print_number(FILE *out, const char *key, const struct option_value *value) {
    if (value->given) fprintf(out, ", %s: %.9g", key, value->number);
}

char *parameters_text(const struct option_value *v, const tessera_family *family, const char *prompt, uint64_t seed) {
    char *text = NULL;
    size_t bytes = 0;
    int length;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) return NULL;
    fputs(prompt, out);
    for (int i = 0; i < v[GENERATE_LORA].count; i++) print_lora(out, v[GENERATE_LORA].texts[i]);
    const char *negative = v[GENERATE_NEGATIVE_PROMPT].text;
    if (negative != NULL && *negative != 0) fprintf(out, "\n" NEGATIVE "%s", negative);
    fprintf(out, "\n" SETTINGS "%d", v[GENERATE_STEPS].integer);
    const char *sampler = v[GENERATE_SCHEDULER].text != NULL
                              ? habits_sampler_title(v[GENERATE_SCHEDULER].text, v[GENERATE_ALGORITHM_TYPE].text, v[GENERATE_SOLVER_TYPE].text)
                              : NULL;
    if (sampler != NULL) fprintf(out, ", Sampler: %s", sampler);
    const char *schedule = v[GENERATE_SCHEDULE].text;
    if (schedule != NULL && strcmp(schedule, "trained") != 0) fprintf(out, ", Schedule type: %s", schedule);
    print_number(out, "CFG scale", &v[family->distilled ? GENERATE_TRUE_CFG_SCALE : GENERATE_GUIDANCE_SCALE]);
    if (family->distilled) print_number(out, "Distilled CFG Scale", &v[GENERATE_GUIDANCE_SCALE]);
    fprintf(out, ", Seed: %" PRIu64 ", Size: %dx%d", seed, v[GENERATE_WIDTH].integer, v[GENERATE_HEIGHT].integer);
    const char *model = v[GENERATE_MODEL].text != NULL ? plain_base(v[GENERATE_MODEL].text, &length) : NULL;
    if (model != NULL) fprintf(out, ", Model: %.*s", length, model);
    if (v[GENERATE_INIT_IMAGE].text != NULL) print_number(out, "Denoising strength", &v[GENERATE_STRENGTH]);
    if (v[GENERATE_CLIP_SKIP].integer > 0) fprintf(out, ", Clip skip: %d", v[GENERATE_CLIP_SKIP].integer + 1); /* 1 leaves none out there */
    fputs(", Version: Tessera " TESSERA_VERSION, out);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}

/* ---- reading ---- */

static tessera_status broken(const char *path, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: its chunk \"" PARAMETERS_KEY "\" is broken: %s", path, what);
}

/* The line of settings, the last one that begins with "Steps: "; NULL: there is none. */
static char *find_settings(char *text) {
    char *found = strncmp(text, SETTINGS, strlen(SETTINGS)) == 0 ? text : NULL;
    for (char *at = text; (at = strstr(at, "\n" SETTINGS)) != NULL;) found = ++at;
    return found;
}

/* Cuts "key: value, " off *rest; a value in double quotes may hold commas. False at the end. */
static bool next_setting(char **rest, char **key, char **value) {
    char *at = *rest, *colon = strstr(at, ": ");
    if (colon == NULL) return false;
    *colon = 0;
    *key = at;
    *value = at = colon + 2;
    if (*at == '"') {
        *value = ++at;
        while (*at != 0 && *at != '"') at += *at == '\\' && at[1] != 0 ? 2 : 1;
        if (*at == '"') *at++ = 0;
    }
    char *comma = strstr(at, ", ");
    if (comma != NULL) *comma = 0;
    *rest = comma != NULL ? comma + 2 : at + strlen(at);
    return true;
}

static tessera_status give(const char *path, struct option_value *values, int option, const char *text, tessera_error *error) {
    tessera_error why = {0};
    if (values[option].given) return TESSERA_OK;
    return options_read_value(&generate_options[option], text, &values[option], &why) == TESSERA_OK ? TESSERA_OK
                                                                                                    : broken(path, why.message, error);
}

/* A1111 counts from 1. */
static tessera_status give_clip_skip(const char *path, struct option_value *values, const char *text, tessera_error *error) {
    char less[16];
    snprintf(less, sizeof less, "%d", atoi(text) - 1);
    return give(path, values, GENERATE_CLIP_SKIP, less, error);
}

/* What one setting is here; those that are not named say nothing that an option could restore. */
static tessera_status take_setting(const char *path, const char *key, const char *value, struct option_value *values, const char **model,
                                   tessera_error *error) {
    static const struct {
        const char *key;
        int option;
    } known[] = {{"Steps", GENERATE_STEPS},
                 {"Sampler", GENERATE_SAMPLER},
                 {"Schedule type", GENERATE_SCHEDULER},
                 {"CFG scale", GENERATE_CFG_SCALE},
                 {"Seed", GENERATE_SEED},
                 {"Distilled CFG Scale", GENERATE_DISTILLED_GUIDANCE},
                 {"Size", GENERATE_SIZE},
                 {"Denoising strength", GENERATE_STRENGTH}};
    if (strcmp(key, "Clip skip") == 0) return give_clip_skip(path, values, value, error);
    if (strcmp(key, "Model") == 0) *model = value;
    bool sized = values[GENERATE_WIDTH].given || values[GENERATE_HEIGHT].given || values[GENERATE_IMAGE_SIZE].given;
    bool sampled = values[GENERATE_SCHEDULER].spelling != NULL || values[GENERATE_SAMPLER].spelling != NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int option = known[i].option;
        if (strcmp(key, known[i].key) != 0 || (option == GENERATE_SIZE && sized)) continue;
        if ((option == GENERATE_SAMPLER || option == GENERATE_SCHEDULER) && sampled) continue;
        if (option == GENERATE_CFG_SCALE && values[GENERATE_GUIDANCE_SCALE].given) continue;
        return give(path, values, option, value, error);
    }
    return TESSERA_OK;
}

tessera_status parameters_read(const char *path, char *text, struct option_value *values, bool talks, tessera_error *error) {
    char *settings = find_settings(text), *key, *value, *negative;
    const char *model = NULL;
    if (settings == NULL) return broken(path, "no line of it begins with \"Steps: \"", error);
    if (settings > text) settings[-1] = 0;
    negative = strncmp(text, NEGATIVE, strlen(NEGATIVE)) == 0 ? text : strstr(text, "\n" NEGATIVE);
    if (negative != NULL) {
        if (*negative == '\n') *negative++ = 0;
        TRY(give(path, values, GENERATE_NEGATIVE_PROMPT, negative + strlen(NEGATIVE), error));
        if (negative == text) *text = 0;
    }
    bool prompted = values[GENERATE_PROMPTS_FILE].given || values[GENERATE_DATASET_PATH].given || settings == text;
    if (!prompted) TRY(give(path, values, GENERATE_PROMPT, text, error));
    while (next_setting(&settings, &key, &value)) TRY(take_setting(path, key, value, values, &model, error));
    if (values[GENERATE_STRENGTH].given && !values[GENERATE_INIT_IMAGE].given) {
        if (talks) fprintf(stderr, "tessera: %s was drawn over another picture: give it with --init-image\n", path);
        values[GENERATE_STRENGTH].given = false;
    }
    if (values[GENERATE_MODEL].given || model == NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s was made with the model \"%s\" in another program: say where it is with --model",
                     path, model);
}
