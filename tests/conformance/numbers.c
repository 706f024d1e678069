/* Kinds rng (torch's CPU generator) and scheduler (a sampler fed with given model outputs). These
 * are float32 in every run. */
#include <stdio.h>

#include "base/random.h"
#include "conformance.h"
#include "schedulers/scheduler.h"

/* out.randn.SEED.SHAPE: one draw of the shape; out.randn_twice.SEED: 20 numbers, then 20 more. */
void conform_rng(struct conformance_case *c) {
    c->dtype = DTYPE_F32;
    for (int i = 0; i < safetensors_count(c->io.io); i++) {
        const struct safetensors_entry *entry = safetensors_at(c->io.io, i);
        unsigned long long seed;
        bool twice = sscanf(entry->name, "out.randn_twice.%llu", &seed) == 1;
        if (!twice && sscanf(entry->name, "out.randn.%llu.", &seed) != 1) continue;
        struct random_generator generator;
        struct tensor got = entry->tensor;
        size_t count = (size_t)tensor_count(&got), half = twice ? count / 2 : count;
        got.data = malloc(count * sizeof(float));
        random_seed(&generator, seed);
        generator.functions = elementary_of(c->run.backend->reproducible);
        random_normal(&generator, got.data, half);
        if (twice) random_normal(&generator, (float *)got.data + half, count - half);
        case_check(c, entry->name, got, entry->tensor);
        free(got.data);
    }
}

static void step_through(struct conformance_case *c, struct scheduler *s) {
    struct tensor sample = case_tensor(&c->io, "in.sample"), outputs = case_tensor(&c->io, "in.model_outputs"),
                  noises = case_tensor(&c->io, "in.noises"), wanted = case_tensor(&c->io, "out.samples"),
                  inputs = case_tensor(&c->io, "mid.model_inputs");
    int64_t count = tensor_count(&sample);
    if (outputs.data == NULL || wanted.data == NULL || tensor_count(&outputs) != count * s->num_steps ||
        tensor_count(&wanted) != tensor_count(&outputs)) {
        case_fail(c, "in.model_outputs and out.samples do not hold %d steps", s->num_steps);
        return;
    }
    if (s->wants_noise && noises.data == NULL) {
        case_fail(c, "in.noises is missing, which this sampler adds");
        return;
    }
    struct scheduler_state state;
    tessera_error error = {0};
    if (scheduler_state_init(s, (size_t)count, &state, &error) != TESSERA_OK) {
        case_error(c, &error);
        return;
    }
    float *x = case_floats(&sample);
    struct tensor got = wanted, scaled = wanted;
    got.data = malloc(tensor_bytes(&wanted));
    scaled.data = malloc(tensor_bytes(&wanted));
    for (int i = 0; i < s->num_steps; i++) {
        s->class->scale_model_input(s, i, (float *)scaled.data + i * count, x, (size_t)count);
        const float *noise = noises.data != NULL ? (const float *)noises.data + i * count : NULL;
        scheduler_step(s, &state, i, x, (const float *)outputs.data + i * count, noise, (size_t)count);
        memcpy((float *)got.data + i * count, x, (size_t)count * sizeof(float));
    }
    case_check(c, "out.samples", got, wanted);
    if (inputs.data != NULL) case_check(c, "mid.model_inputs", scaled, inputs);
    scheduler_state_free(&state);
    free(got.data);
    free(scaled.data);
    free(x);
}

void conform_scheduler(struct conformance_case *c) {
    tessera_error error = {0};
    struct scheduler *s = NULL;
    int64_t steps = 0;
    double mu = 0;
    c->dtype = DTYPE_F32;
    tessera_status status = scheduler_open(c->folder, NULL, &s, &error);
    if (status == TESSERA_OK) status = json_int(c->io.json, "steps", 0, 1, 100000, &steps, &error);
    if (status == TESSERA_OK) status = json_double(c->io.json, "mu", 0, &mu, &error);
    if (status == TESSERA_OK) {
        s->functions = elementary_of(c->run.backend->reproducible);
        s->sigmas_from_steps = json_find(c->io.json, "mu") != NULL;
        status = scheduler_set_timesteps(s, (int)steps, (float)mu, &error);
    }
    if (status == TESSERA_OK) {
        struct tensor timesteps = case_tensor(&c->io, "out.timesteps");
        case_check(c, "out.timesteps", tensor_of(s->timesteps, DTYPE_F32, SHAPE(s->num_steps)), timesteps);
        step_through(c, s);
    } else {
        case_error(c, &error);
    }
    scheduler_free(s);
}
