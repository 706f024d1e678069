/* `tessera generate --from PICTURE.png`: a picture's record becomes the command line again. See
 * record.h.
 *
 * Values of the record pass the same checks as those of the command line, so a foreign record can
 * ask for nothing that an option could not; what the record says is to be opened is opened only
 * with --allow-record-files. What no option can restore (another machine's kernels, another model
 * in the folder) is reported. */
#include "cli/record.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/mesh_options.h"
#include "cli/parameters.h"

/* The record's value of an option as a command line would spell it; NULL if it is absent. `buffer`
 * holds numbers. */
static const char *spelling(const cJSON *item, char *buffer, size_t capacity) {
    if (cJSON_IsString(item)) return item->valuestring;
    if (cJSON_IsBool(item)) return cJSON_IsTrue(item) ? "true" : "false";
    if (!cJSON_IsNumber(item)) return NULL;
    snprintf(buffer, capacity, "%.17g", item->valuedouble);
    return buffer;
}

static bool same_text(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_value(const struct option *option, const struct option_value *a, const struct option_value *b) {
    switch (option->type) {
    case OPTION_FLAG:
        return a->flag == b->flag;
    case OPTION_INTEGER:
        return a->integer == b->integer;
    case OPTION_NUMBER:
        return (float)a->number == (float)b->number;
    case OPTION_SEED:
        return a->seed == b->seed;
    case OPTION_TEXTS:
        for (int i = 0; i < a->count && i < b->count; i++)
            if (!same_text(a->texts[i], b->texts[i])) return false;
        return a->count == b->count;
    default:
        return same_text(a->text, b->text);
    }
}

/* These are compared by what they lead to, in record_source_report. */
static bool reported_later(int option) {
    return option == GENERATE_MODEL || option == GENERATE_DTYPE || option == GENERATE_THREADS;
}

/* Reads the record's value of an option, or each of a list of them; *text is what a message shows. */
static tessera_status read_recorded(const struct option *option, const cJSON *item, char *buffer, size_t capacity, const char **text,
                                    struct option_value *recorded, tessera_error *error) {
    const cJSON *first = cJSON_IsArray(item) ? item->child : item;
    *text = spelling(first, buffer, capacity);
    for (const cJSON *one = first; one != NULL; one = cJSON_IsArray(item) ? one->next : NULL) {
        const char *spelled = spelling(one, buffer, capacity);
        if (spelled != NULL) TRY(options_read_value(option, spelled, recorded, error));
    }
    return TESSERA_OK;
}

/* The name of an embedded model, wherever it lay on the machine that made the picture: it is found
 * here anew. NULL of any other model. */
static const char *embedded_name(const char *model) {
    static const char folder[] = "models/";
    const char *slash = strrchr(model, '/');
    if (slash == NULL) return text_is_choice(TESSERA_EMBEDDED_MODELS, model) && !file_exists(model) ? model : NULL;
    if (slash + 1 - model < (ptrdiff_t)strlen(folder)) return NULL;
    bool is_here = strncmp(slash + 1 - strlen(folder), folder, strlen(folder)) == 0;
    return is_here && text_is_choice(TESSERA_EMBEDDED_MODELS, slash + 1) ? slash + 1 : NULL;
}

/* What a record says must be opened may be anything that a stranger wrote: a path on this machine,
 * or a name that sends the user's token to the hub. */
static tessera_status refuse_opening(const struct record_source *source, const struct option *option, const char *text,
                                     tessera_error *error) {
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "%s: its record has --%s %.200s: nothing that a record names is opened unasked: give --%s yourself, or "
                     "--allow-record-files if you trust whoever made the picture",
                     source->path, option->name, text, option->name);
}

static tessera_status restore_option(struct record_source *source, int i, struct option_value *values, tessera_error *error) {
    struct option_value *value = &values[i];
    const struct option *option = &generate_options[i];
    struct option_value recorded = {0};
    tessera_error why = {0};
    char buffer[40];
    const char *text;
    const cJSON *item = json_find(source->json, option->record);
    if (read_recorded(option, item, buffer, sizeof buffer, &text, &recorded, &why) != TESSERA_OK) {
        free(recorded.texts);
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: its record is broken: %s", source->path, why.message);
    }
    if (!value->given && option->opens && text != NULL && !values[GENERATE_ALLOW_RECORD_FILES].flag) {
        free(recorded.texts);
        const char *name = i == GENERATE_MODEL ? embedded_name(text) : NULL;
        if (name == NULL) return refuse_opening(source, option, text, error);
        if (name == text || strcmp(name, TESSERA_EMBEDDED_MODEL) != 0) value->text = name; /* else nobody named it: it is the default */
        return TESSERA_OK;
    }
    if (!value->given) {
        *value = recorded;
        return TESSERA_OK;
    }
    if (!reported_later(i) && !same_value(option, value, &recorded)) {
        if (source->talks) {
            fprintf(stderr, "tessera: not bit for bit: --%s is not what the record has (", option->name);
            text_print(stderr, text != NULL ? text : "nothing");
            fputs(")\n", stderr);
        }
        source->differences++;
    }
    free(recorded.texts);
    return TESSERA_OK;
}

static tessera_status restore_options(struct record_source *source, struct option_value *values, int ranks, tessera_error *error) {
    const char *prompt;
    int64_t index, recorded_ranks;
    TRY(json_string(source->json, generate_options[GENERATE_PROMPT].record, NULL, &prompt, error));
    TRY(json_int(source->json, "index", 0, 0, (int64_t)generate_options[GENERATE_NUM_IMAGES].high - 1, &index, error));
    TRY(json_int(source->json, "ranks", 1, 1, INT32_MAX, &recorded_ranks, error));
    if (prompt == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s: its record is broken: it has no prompt", source->path);
    source->index = (int)index;
    bool prompts_given = values[GENERATE_PROMPTS_FILE].given || values[GENERATE_DATASET_PATH].given;
    for (int i = 0; i < GENERATE_OPTION_COUNT; i++) {
        if (generate_options[i].record == NULL || (i == GENERATE_PROMPT && prompts_given)) continue;
        if (mesh_options_shapes(i) && recorded_ranks != ranks) continue;
        TRY(restore_option(source, i, values, error));
    }
    int num_images = values[GENERATE_NUM_IMAGES].given ? values[GENERATE_NUM_IMAGES].integer : 1;
    if (source->index >= num_images)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s has index %d of its run, which --num-images %d does not reach", source->path,
                         source->index, num_images);
    return TESSERA_OK;
}

tessera_status record_source_open(const char *path, struct option_value *values, int ranks, bool talks, struct record_source *source,
                                  tessera_error *error) {
    *source = (struct record_source){.path = path, .picture = TESSERA_PICTURE, .talks = talks};
    TRY(tessera_picture_read(path, &source->picture, error));
    const char *text = tessera_picture_text(&source->picture, RECORD_KEY);
    const char *parameters = tessera_picture_text(&source->picture, PARAMETERS_KEY);
    if (text == NULL && parameters != NULL) return parameters_read(path, (char *)parameters, values, talks, error);
    if (text == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s has no record: it was not made by tessera, or its text chunks were stripped",
                         path);
    TRY(json_parse(path, text, strlen(text), &source->json, error));
    return restore_options(source, values, ranks, error);
}

static void report(struct record_source *source, const char *what, const char *now, const char *was) {
    if (same_text(now, was)) return;
    fprintf(stderr, "tessera: not bit for bit: %s is %s, was ", what, now);
    text_print(stderr, was != NULL ? was : "not recorded");
    fputc('\n', stderr);
    source->differences++;
}

static void report_fact(struct record_source *source, const char *what, const char *key, const char *now) {
    char buffer[40];
    report(source, what, now, spelling(json_find(source->json, key), buffer, sizeof buffer));
}

void record_source_report(struct record_source *source, const struct option_value *values, const struct record_facts *facts) {
    char threads[16];
    snprintf(threads, sizeof threads, "%d", values[GENERATE_THREADS].integer);
    report_fact(source, "the version", "version", TESSERA_VERSION);
    report_fact(source, "the model's fingerprint", "model_fingerprint", facts->model_fingerprint);
    const struct option *kernels = &generate_options[GENERATE_KERNELS];
    report_fact(source, "the choice of kernels", kernels->record, values[GENERATE_KERNELS].text);
    bool reproducible = same_text(values[GENERATE_KERNELS].text, "reproducible"); /* then machine, threads and mesh change no bit */
    if (!reproducible) report_fact(source, "the kernel path", "kernel_path", facts->kernel_path);
    report_fact(source, "the element type", generate_options[GENERATE_DTYPE].record, values[GENERATE_DTYPE].text);
    if (!reproducible) report_fact(source, "the number of threads", generate_options[GENERATE_THREADS].record, threads);
    if (!reproducible) report_fact(source, "the mesh", "mesh", facts->mesh);
    if (facts->init_image_fingerprint[0] != 0)
        report_fact(source, "the fingerprint of the starting picture", "init_image_fingerprint", facts->init_image_fingerprint);
    if (facts->control_image_fingerprint[0] != 0)
        report_fact(source, "the fingerprint of the control picture", "control_image_fingerprint", facts->control_image_fingerprint);
    if (facts->lora_fingerprint[0] != 0) report_fact(source, "the LoRA files' fingerprint", "lora_fingerprint", facts->lora_fingerprint);
}

/* Does a key of the record say which machine made a picture, rather than how? */
static bool is_of_machine(const char *key, bool compares_size) {
    static const char *const keys[] = {"version", "kernel_path", "mesh", "ranks", "index", "seed", "threads", "prompt"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    for (int i = 0; i < GENERATE_OPTION_COUNT; i++)
        if (generate_options[i].record != NULL && strcmp(key, generate_options[i].record) == 0 && mesh_options_shapes(i)) return true;
    return !compares_size && (strcmp(key, "width") == 0 || strcmp(key, "height") == 0);
}

static tessera_status differs(const char *path, const char *what, const cJSON *was, const cJSON *now, tessera_error *error) {
    char before[40], after[40];
    const char *a = spelling(was, before, sizeof before), *b = spelling(now, after, sizeof after);
    char *list = cJSON_IsArray(was) ? cJSON_PrintUnformatted(was) : NULL, *other = cJSON_IsArray(now) ? cJSON_PrintUnformatted(now) : NULL;
    if (list != NULL) a = list;
    if (other != NULL) b = other;
    tessera_status status =
        error_set(error, TESSERA_ERROR_ARGUMENT,
                  "%s is there already, made with another %s (%.200s, now %.200s): choose another folder, or remove its pictures", path,
                  what, a != NULL ? a : "none", b != NULL ? b : "none");
    cJSON_free(list);
    cJSON_free(other);
    return status;
}

/* The strategy whose pictures are not those of one rank, and differ by mesh; NULL: the record's is
 * exact. */
static const cJSON *inexact_strategy(const cJSON *record) {
    static const char *const names[] = {"patch", "naive_patch", "pcpp"};
    const cJSON *strategy = cJSON_GetObjectItemCaseSensitive(record, generate_options[GENERATE_PARALLELISM].record);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (cJSON_IsString(strategy) && strcmp(strategy->valuestring, names[i]) == 0) return strategy;
    return NULL;
}

static tessera_status compare_strategies(const char *path, const cJSON *was, const cJSON *record, tessera_error *error) {
    const cJSON *theirs = inexact_strategy(was), *own = inexact_strategy(record);
    if (theirs == NULL && own == NULL) return TESSERA_OK;
    if (theirs == NULL || own == NULL || !cJSON_Compare(theirs, own, true))
        return differs(path, generate_options[GENERATE_PARALLELISM].record, theirs, own, error);
    theirs = cJSON_GetObjectItemCaseSensitive(was, "mesh");
    own = cJSON_GetObjectItemCaseSensitive(record, "mesh");
    return cJSON_Compare(theirs, own, true) ? TESSERA_OK : differs(path, "mesh", theirs, own, error);
}

static tessera_status compare_records(const char *path, const cJSON *was, const cJSON *record, const char *prompt, uint64_t seed,
                                      bool compares_size, tessera_error *error) {
    cJSON *own_prompt = cJSON_CreateString(prompt), *own_seed = record_seed(seed);
    const cJSON *item, *other = cJSON_GetObjectItemCaseSensitive(was, generate_options[GENERATE_PROMPT].record);
    tessera_status status = compare_strategies(path, was, record, error);
    if (status == TESSERA_OK && !cJSON_Compare(other, own_prompt, true)) status = differs(path, "prompt", other, own_prompt, error);
    other = cJSON_GetObjectItemCaseSensitive(was, generate_options[GENERATE_SEED].record);
    if (status == TESSERA_OK && !cJSON_Compare(other, own_seed, true)) status = differs(path, "seed", other, own_seed, error);
    cJSON_ArrayForEach(item, record) {
        if (status != TESSERA_OK || is_of_machine(item->string, compares_size)) continue;
        other = cJSON_GetObjectItemCaseSensitive(was, item->string);
        if (other == NULL && cJSON_IsNull(item)) continue;
        if (!cJSON_Compare(other, item, true)) status = differs(path, item->string, other, item, error);
    }
    cJSON_Delete(own_prompt);
    cJSON_Delete(own_seed);
    return status;
}

tessera_status record_check_same(const char *path, const cJSON *record, const char *prompt, uint64_t seed, bool compares_size,
                                 tessera_error *error) {
    tessera_picture picture = TESSERA_PICTURE;
    TRY(tessera_picture_read(path, &picture, error));
    const char *text = tessera_picture_text(&picture, RECORD_KEY);
    cJSON *was = text != NULL ? cJSON_Parse(text) : NULL;
    tessera_status status = was != NULL
                                ? compare_records(path, was, record, prompt, seed, compares_size, error)
                                : error_set(error, TESSERA_ERROR_ARGUMENT,
                                            "%s is there already and has no record of how it was made: choose another folder", path);
    cJSON_Delete(was);
    tessera_picture_free(&picture);
    return status;
}

void record_source_compare(const struct record_source *source, const uint8_t *pixels, int width, int height) {
    if (source->differences > 0) return;
    const tessera_picture *was = &source->picture;
    bool same = was->width == width && was->height == height && memcmp(was->pixels, pixels, (size_t)width * (size_t)height * 3) == 0;
    if (same)
        fprintf(stderr, "bit for bit the same as %s\n", source->path);
    else
        fprintf(stderr, "tessera: warning: NOT bit for bit the same as %s, though nothing that the record names differs\n", source->path);
}

void record_source_close(struct record_source *source) {
    tessera_picture_free(&source->picture);
    json_free(source->json);
    *source = (struct record_source){0};
}
