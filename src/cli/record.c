/* Writing a picture's record; reading it back is in from.c. See record.h. */
#include "cli/record.h"

#include <cjson/cJSON.h>

#define EXACT_INTEGERS 9007199254740992u /* 2^53 */

cJSON *record_seed(uint64_t seed) {
    if (seed <= EXACT_INTEGERS) return cJSON_CreateNumber((double)seed);
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return cJSON_CreateString(text);
}

static cJSON *add_seed(cJSON *object, const char *key, uint64_t seed) {
    cJSON *value = record_seed(seed);
    return value != NULL && cJSON_AddItemToObject(object, key, value) ? value : NULL;
}

static cJSON *add_text(cJSON *object, const char *key, const char *text) {
    return text != NULL ? cJSON_AddStringToObject(object, key, text) : cJSON_AddNullToObject(object, key);
}

/* Nothing where it is "". */
static bool add_fingerprint(cJSON *object, const char *key, const char *fingerprint) {
    return fingerprint[0] == 0 || cJSON_AddStringToObject(object, key, fingerprint) != NULL;
}

static cJSON *add_texts(cJSON *object, const char *key, const struct option_value *value) {
    cJSON *list = cJSON_AddArrayToObject(object, key);
    bool good = list != NULL;
    for (int i = 0; good && i < value->count; i++) good = cJSON_AddItemToArray(list, cJSON_CreateString(value->texts[i]));
    return good ? list : NULL;
}

static cJSON *add_value(cJSON *object, const struct option *option, const struct option_value *value) {
    bool number = option->type == OPTION_INTEGER || option->type == OPTION_NUMBER;
    if (number && !value->given) return cJSON_AddNullToObject(object, option->record);
    switch (option->type) {
    case OPTION_FLAG:
        return cJSON_AddBoolToObject(object, option->record, value->flag);
    case OPTION_INTEGER:
        return cJSON_AddNumberToObject(object, option->record, value->integer);
    case OPTION_NUMBER:
        return cJSON_AddNumberToObject(object, option->record, value->number);
    case OPTION_SEED:
        return add_seed(object, option->record, value->seed);
    case OPTION_TEXTS:
        return add_texts(object, option->record, value);
    default:
        return add_text(object, option->record, value->text);
    }
}

cJSON *record_object(const struct option_value *values, const struct record_facts *facts) {
    cJSON *object = cJSON_CreateObject();
    bool good = object != NULL && cJSON_AddStringToObject(object, "version", TESSERA_VERSION) != NULL;
    for (int i = 0; good && i < GENERATE_OPTION_COUNT; i++)
        if (generate_options[i].record != NULL && i != GENERATE_PROMPT) good = add_value(object, &generate_options[i], &values[i]) != NULL;
    good = good && cJSON_AddStringToObject(object, "model_fingerprint", facts->model_fingerprint) != NULL &&
           cJSON_AddStringToObject(object, "kernel_path", facts->kernel_path) != NULL &&
           cJSON_AddStringToObject(object, "mesh", facts->mesh) != NULL && cJSON_AddNumberToObject(object, "ranks", facts->ranks) != NULL &&
           add_fingerprint(object, "init_image_fingerprint", facts->init_image_fingerprint) &&
           add_fingerprint(object, "control_image_fingerprint", facts->control_image_fingerprint) &&
           add_fingerprint(object, "lora_fingerprint", facts->lora_fingerprint);
    if (good) return object;
    cJSON_Delete(object);
    return NULL;
}

bool record_settle_size(cJSON *object, int width, int height) {
    cJSON *columns = cJSON_CreateNumber(width), *rows = cJSON_CreateNumber(height);
    return columns != NULL && rows != NULL && cJSON_ReplaceItemInObject(object, generate_options[GENERATE_WIDTH].record, columns) &&
           cJSON_ReplaceItemInObject(object, generate_options[GENERATE_HEIGHT].record, rows);
}

char *record_text(const cJSON *object, const char *prompt, uint64_t seed, int index) {
    cJSON *whole = cJSON_Duplicate(object, true), *own = record_seed(seed);
    char *text = NULL;
    if (whole != NULL && own != NULL && cJSON_ReplaceItemInObject(whole, generate_options[GENERATE_SEED].record, own) &&
        cJSON_AddStringToObject(whole, generate_options[GENERATE_PROMPT].record, prompt) != NULL &&
        cJSON_AddNumberToObject(whole, "index", index) != NULL)
        text = cJSON_PrintUnformatted(whole);
    cJSON_Delete(whole);
    return text;
}
