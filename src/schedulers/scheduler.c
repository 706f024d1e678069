/* The table of samplers, and what all of them share: opening by class name, bounds, the frame of a
 * step.
 *
 * A new sampler is one file that fills in a struct scheduler_class and one line of the table in
 * classes.h. */
#include "schedulers/scheduler.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "schedulers/classes.h"

enum { MAX_STEPS = 10000 }; /* more is a slip of the finger, not a schedule */
enum { MAX_CONFIG_BYTES = 1 << 20 };

#define CLASS_ADDRESS(class, name) &class,
#define CLASS_NAME(class, name) name,
static const struct scheduler_class *const classes[] = {SCHEDULER_CLASSES(CLASS_ADDRESS)};
static const char *const class_names[] = {SCHEDULER_CLASSES(CLASS_NAME) NULL};

const char *const *scheduler_names(void) {
    return class_names;
}

static const struct scheduler_class *find_class(const char *name) {
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        assert(strcmp(classes[i]->name, class_names[i]) == 0);
        if (strcmp(classes[i]->name, name) == 0) return classes[i];
    }
    return NULL;
}

/* Python's json writes -Infinity where a bound is absent (lambda_min_clipped), which JSON has no
 * word for: it becomes null. */
static void blank_infinities(char *text, size_t length) {
    static const char word[] = "-Infinity", null[] = "null     ";
    const size_t size = sizeof word - 1;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && length - i >= size && memcmp(text + i, word, size) == 0)
            memcpy(text + i, null, size);
    }
}

/* The file itself, or scheduler_config.json in a folder. */
tessera_status scheduler_read_config(const char *path, struct json **out, tessera_error *error) {
    char *file = file_is_folder(path) ? file_join(path, "scheduler_config.json") : strdup(path), *text = NULL;
    size_t length = 0;
    if (file == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", path);
    tessera_status status = file_read_regular(file, MAX_CONFIG_BYTES, &text, &length, error);
    if (status == TESSERA_OK) {
        blank_infinities(text, length);
        status = json_parse(file, text, length, out, error);
    }
    free(text);
    free(file);
    return status;
}

/* The text of a configuration with the fields of `overrides` in place of its own; NULL: memory is
 * out or `overrides` is no object. */
static char *merge(const struct json *config, const char *overrides) {
    cJSON *own = cJSON_Duplicate(json_root(config), true), *over = cJSON_Parse(overrides);
    char *merged = NULL;
    if (cJSON_IsObject(own) && cJSON_IsObject(over)) {
        for (cJSON *item = over->child, *next; item != NULL; item = next) {
            next = item->next;
            cJSON_DetachItemViaPointer(over, item);
            cJSON_DeleteItemFromObjectCaseSensitive(own, item->string);
            cJSON_AddItemToArray(own, item); /* its name stays */
        }
        merged = cJSON_PrintUnformatted(own);
    }
    cJSON_Delete(own);
    cJSON_Delete(over);
    return merged;
}

tessera_status scheduler_merge_config(const struct json *config, const char *overrides, struct json **out, tessera_error *error) {
    char *merged = merge(config, overrides);
    if (merged == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "scheduler_config: %.200s is no JSON object", overrides);
    tessera_status status = json_parse(json_path(config), merged, strlen(merged), out, error);
    cJSON_free(merged);
    return status;
}

static tessera_status refuse_class(const struct json *config, const char *name, tessera_error *error) {
    char known[512] = "";
    for (size_t i = 0, used = 0; class_names[i] != NULL && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", class_names[i]);
    }
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: scheduler class \"%s\" is not known; choose from: %s", json_path(config), name,
                     known);
}

static tessera_status configure(struct scheduler *scheduler, const struct json *config, const char *class_name, tessera_error *error) {
    const char *name = class_name;
    if (name == NULL) TRY(json_string(config, "_class_name", NULL, &name, error));
    if (name == NULL) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field _class_name is missing; it must name the scheduler", json_path(config));
    }
    scheduler->class = find_class(name);
    if (scheduler->class == NULL) return refuse_class(config, name, error);
    int64_t num_train_timesteps;
    TRY(json_int(config, "num_train_timesteps", 1000, 1, 1000000, &num_train_timesteps, error));
    scheduler->num_train_timesteps = (int)num_train_timesteps;
    scheduler->init_noise_sigma = 1.0f;
    scheduler->wants_noise = scheduler->class->wants_noise;
    scheduler->flow_matching = scheduler->class->flow_matching;
    scheduler->functions = elementary_of(false);
    return scheduler->class->configure(scheduler, config, error);
}

tessera_status scheduler_open_config(const struct json *config, const char *class_name, struct scheduler **out, tessera_error *error) {
    *out = NULL;
    struct scheduler *scheduler = calloc(1, sizeof *scheduler);
    tessera_status status = scheduler == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(config))
                                              : configure(scheduler, config, class_name, error);
    if (status == TESSERA_OK)
        *out = scheduler;
    else
        scheduler_free(scheduler);
    return status;
}

static bool has_field(const struct scheduler_class *class, const char *field) {
    for (const char *const *own = class->fields; *own != NULL; own++)
        if (strcmp(*own, field) == 0) return true;
    return false;
}

/* "A, B or C": the classes that have a field, into out; "" where none has. */
static void classes_with(const char *field, char *out, size_t size) {
    size_t total = 0, count = 0, used = 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) total += has_field(classes[i], field);
    out[0] = 0;
    for (size_t i = 0; i < sizeof classes / sizeof *classes && used < size; i++) {
        if (!has_field(classes[i], field)) continue;
        const char *before = count == 0 ? "" : count + 1 == total ? " or " : ", ";
        used += (size_t)snprintf(out + used, size - used, "%s%s", before, classes[i]->name);
        count++;
    }
}

/* What a request sets must mean something to the class; a field that is switched off does in each. */
static tessera_status check_fields(const struct scheduler_class *class, const char *overrides, tessera_error *error) {
    cJSON *object = cJSON_Parse(overrides), *item;
    tessera_status status = TESSERA_OK;
    cJSON_ArrayForEach(item, object) {
        if (status != TESSERA_OK || cJSON_IsFalse(item) || has_field(class, item->string)) continue;
        char others[300];
        classes_with(item->string, others, sizeof others);
        if (others[0] == 0) strcpy(others, "no scheduler");
        status = error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s has no %.60s (%s has): choose another scheduler, or leave that to this one",
                           class->name, item->string, others);
    }
    cJSON_Delete(object);
    return status;
}

tessera_status scheduler_open_with(const struct json *config, const char *class_name, const char *overrides, struct scheduler **out,
                                   tessera_error *error) {
    struct json *merged = NULL;
    if (overrides == NULL) return scheduler_open_config(config, class_name, out, error);
    *out = NULL;
    TRY(scheduler_merge_config(config, overrides, &merged, error));
    tessera_status status = scheduler_open_config(merged, class_name, out, error);
    json_free(merged);
    if (status == TESSERA_OK) status = check_fields((*out)->class, overrides, error);
    if (status == TESSERA_OK) return status;
    scheduler_free(*out);
    *out = NULL;
    return status;
}

tessera_status scheduler_open(const char *path, const char *class_name, struct scheduler **out, tessera_error *error) {
    *out = NULL;
    struct json *config = NULL;
    TRY(scheduler_read_config(path, &config, error));
    tessera_status status = scheduler_open_config(config, class_name, out, error);
    json_free(config);
    return status;
}

void scheduler_free(struct scheduler *scheduler) {
    if (scheduler == NULL) return;
    free(scheduler->timesteps);
    free(scheduler->sigmas);
    free(scheduler->alpha_bar);
    free(scheduler->config);
    free(scheduler);
}

tessera_status scheduler_set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    if (num_steps < 1 || num_steps > MAX_STEPS) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num_inference_steps is %d; it must be from 1 to %d", num_steps, (int)MAX_STEPS);
    }
    float *timesteps = calloc((size_t)num_steps + 1, sizeof *timesteps); /* a class may call the model once more */
    float *sigmas = calloc((size_t)num_steps + 2, sizeof *sigmas);
    if (timesteps == NULL || sigmas == NULL) {
        free(timesteps);
        free(sigmas);
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d steps", num_steps);
    }
    free(scheduler->timesteps);
    free(scheduler->sigmas);
    scheduler->timesteps = timesteps;
    scheduler->sigmas = sigmas;
    scheduler->num_steps = num_steps;
    return scheduler->class->set_timesteps(scheduler, num_steps, mu, error);
}

float scheduler_mu(const struct scheduler *scheduler, int64_t tokens) {
    return scheduler->class->mu == NULL ? 0.0f : scheduler->class->mu(scheduler, tokens);
}

tessera_status scheduler_state_init(const struct scheduler *scheduler, size_t count, struct scheduler_state *state, tessera_error *error) {
    size_t num_history = (size_t)scheduler->class->num_history;
    memset(state, 0, sizeof *state);
    assert(num_history <= SCHEDULER_MAX_HISTORY);
    if (num_history == 0) return TESSERA_OK;
    if (count < SIZE_MAX / sizeof(float) / num_history) state->memory = calloc(num_history * count + 1, sizeof(float));
    if (state->memory == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a sampler's history of %zu numbers", count);
    for (size_t i = 0; i < num_history; i++) state->history[i] = state->memory + i * count;
    return TESSERA_OK;
}

struct scheduler_state scheduler_state_from(const struct scheduler *scheduler, const struct scheduler_state *whole, size_t offset) {
    struct scheduler_state view = *whole;
    for (int i = 0; i < scheduler->class->num_history; i++) view.history[i] += offset;
    return view;
}

void scheduler_state_free(struct scheduler_state *state) {
    free(state->memory);
    memset(state, 0, sizeof *state);
}

void scheduler_step(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample, const float *model_output,
                    const float *noise, size_t count) {
    assert(step >= 0 && step < scheduler->num_steps);
    assert(!scheduler->wants_noise || noise != NULL);
    assert(scheduler->class->num_history == 0 || state->memory != NULL);
    scheduler->class->step(scheduler, state, step, sample, model_output, noise, count);
    state->counter++;
}

void scheduler_predict_x_0(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output, size_t count) {
    assert(step >= 0 && step < scheduler->num_steps);
    scheduler->class->predict_x_0(scheduler, step, x_0, sample, model_output, count);
}
