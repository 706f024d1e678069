/* See rewind.h. */
#include "pipelines/rewind.h"

#include <stdlib.h>
#include <string.h>

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the steps of a picture that may have to be taken again");
}

tessera_status rewind_open(struct rewind *r, const struct scheduler *scheduler, int first_step, int steps, size_t count, const float *x,
                           tessera_error *error) {
    *r = (struct rewind){.scheduler = scheduler, .first_step = first_step, .steps = steps, .count = count};
    r->start = malloc(count * sizeof(float));
    r->predictions = calloc((size_t)steps, sizeof *r->predictions);
    r->noises = calloc((size_t)steps, sizeof *r->noises);
    if (r->start == NULL || r->predictions == NULL || r->noises == NULL) return out_of_memory(error);
    memcpy(r->start, x, count * sizeof(float));
    return TESSERA_OK;
}

void rewind_close(struct rewind *r) {
    for (int i = 0; i < r->steps; i++) {
        if (r->predictions != NULL) free(r->predictions[i]);
        if (r->noises != NULL) free(r->noises[i]);
    }
    free(r->start);
    free(r->predictions);
    free(r->noises);
    *r = (struct rewind){0};
}

const float *rewind_noise(const struct rewind *r, int step) {
    return r->noises[step];
}

static tessera_status keep(float **place, const float *values, size_t count, tessera_error *error) {
    if (*place == NULL) *place = malloc(count * sizeof(float));
    if (*place == NULL) return out_of_memory(error);
    if (*place != values) memcpy(*place, values, count * sizeof(float));
    return TESSERA_OK;
}

tessera_status rewind_note(struct rewind *r, int step, const float *prediction, const float *noise, tessera_error *error) {
    if (noise != NULL) TRY(keep(&r->noises[step], noise, r->count, error));
    return keep(&r->predictions[step], prediction, r->count, error);
}

tessera_status rewind_to(const struct rewind *r, int step, float *x, struct scheduler_state *state, tessera_error *error) {
    scheduler_state_free(state);
    *state = (struct scheduler_state){0};
    TRY(scheduler_state_init(r->scheduler, r->count, state, error));
    memcpy(x, r->start, r->count * sizeof(float));
    for (int i = 0; i < step; i++) scheduler_step(r->scheduler, state, r->first_step + i, x, r->predictions[i], r->noises[i], r->count);
    return TESSERA_OK;
}
