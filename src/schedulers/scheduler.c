/* The table of samplers, and what all of them share: opening by class name, bounds, the frame of a step.
 *
 * A new sampler is one file that fills in a struct scheduler_class and one line in the table below. */
#include "schedulers/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "schedulers/classes.h"

enum { MAX_STEPS = 10000 };  /* more is a slip of the finger, not a schedule */

static const struct scheduler_class *const classes[] = {
    &flow_match_euler_class,
};

static const char *const class_names[] = {
    "FlowMatchEulerDiscreteScheduler",
    NULL,
};

_Static_assert(sizeof(class_names) / sizeof(class_names[0]) == sizeof(classes) / sizeof(classes[0]) + 1, "one name per class");

const char *const *scheduler_names(void)
{
    return class_names;
}

static const struct scheduler_class *find_class(const char *name)
{
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        assert(strcmp(classes[i]->name, class_names[i]) == 0);
        if (strcmp(classes[i]->name, name) == 0) return classes[i];
    }
    return NULL;
}

/* The file itself, or scheduler_config.json in a folder. */
static tessera_status open_config(const char *path, struct json **out, tessera_error *error)
{
    if (!file_is_folder(path)) return json_open(path, 0, out, error);
    char *file = file_join(path, "scheduler_config.json");
    if (file == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", path);
    tessera_status status = json_open(file, 0, out, error);
    free(file);
    return status;
}

static tessera_status configure(struct scheduler *scheduler, const struct json *config, const char *class_name, tessera_error *error)
{
    const char *name = class_name;
    if (name == NULL) TRY(json_string(config, "_class_name", NULL, &name, error));
    if (name == NULL) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field _class_name is missing; it must name the scheduler", json_path(config));
    }
    scheduler->class = find_class(name);
    if (scheduler->class == NULL) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: scheduler class \"%s\" is not known; choose %s", json_path(config), name, class_names[0]);
    }
    int64_t num_train_timesteps;
    TRY(json_int(config, "num_train_timesteps", 1000, 1, 1000000, &num_train_timesteps, error));
    scheduler->num_train_timesteps = (int)num_train_timesteps;
    scheduler->init_noise_sigma = 1.0f;
    return scheduler->class->configure(scheduler, config, error);
}

tessera_status scheduler_open(const char *path, const char *class_name, struct scheduler **out, tessera_error *error)
{
    *out = NULL;
    struct json *config = NULL;
    TRY(open_config(path, &config, error));
    struct scheduler *scheduler = calloc(1, sizeof *scheduler);
    tessera_status status = scheduler == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", path)
                                              : configure(scheduler, config, class_name, error);
    json_free(config);
    if (status != TESSERA_OK) {
        scheduler_free(scheduler);
        return status;
    }
    *out = scheduler;
    return TESSERA_OK;
}

void scheduler_free(struct scheduler *scheduler)
{
    if (scheduler == NULL) return;
    free(scheduler->timesteps);
    free(scheduler->sigmas);
    free(scheduler->config);
    free(scheduler);
}

tessera_status scheduler_set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error)
{
    if (num_steps < 1 || num_steps > MAX_STEPS) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num_inference_steps is %d; it must be from 1 to %d", num_steps, (int)MAX_STEPS);
    }
    float *timesteps = calloc((size_t)num_steps, sizeof *timesteps);
    float *sigmas = calloc((size_t)num_steps + 1, sizeof *sigmas);
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

float scheduler_mu(const struct scheduler *scheduler, int64_t tokens)
{
    return scheduler->class->mu == NULL ? 0.0f : scheduler->class->mu(scheduler, tokens);
}

void scheduler_step(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample, const float *model_output,
                    const float *noise, size_t count)
{
    assert(step >= 0 && step < scheduler->num_steps);
    assert(!scheduler->class->wants_noise || noise != NULL);
    scheduler->class->step(scheduler, state, step, sample, model_output, noise, count);
}
