/* Encoded prompts between programs: copies g->states to the host's memory, and back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"
#include "pipelines/generation.h"

/* The states' names in files and their extents, the prompts' among them, in the order of struct
 * prompt_states. */
static const struct {
    const char *name;
    int ndim;
} kinds[TESSERA_STATES_MAX] = {{"text", 3}, {"text_mask", 2}, {"pooled", 2}, {"text_2", 3}, {"text_2_mask", 2}};

static struct tensor *state_at(struct prompt_states *states, int kind) {
    struct tensor *const all[TESSERA_STATES_MAX] = {&states->text, &states->text_mask, &states->pooled, &states->text_2, &states->text_2_mask};
    return all[kind];
}

static tessera_status give(struct run *run, const struct tensor *from, tessera_state *to, tessera_error *error) {
    to->data = malloc(tensor_bytes(from));
    if (to->data == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the prompts' states");
    to->ndim = from->ndim;
    for (int d = 0; d < from->ndim; d++) to->shape[d] = from->shape[d];
    return backend_download(run->backend, to->data, from, error);
}

tessera_status generation_give_states(struct generation *g, tessera_states *out, tessera_error *error) {
    for (int kind = 0; kind < TESSERA_STATES_MAX; kind++) {
        const struct tensor *from = state_at(&g->states, kind);
        if (from->data == NULL) continue;
        tessera_state *to = &out->states[out->count++];
        to->name = kinds[kind].name;
        TRY(give(g->runs[ROLE_TEXT], from, to, error));
    }
    return TESSERA_OK;
}

/* ---- and back ---- */

static int kind_of(const char *name) {
    for (int kind = 0; name != NULL && kind < TESSERA_STATES_MAX; kind++)
        if (strcmp(name, kinds[kind].name) == 0) return kind;
    return -1;
}

/* Is it a state that there can be, of `prompts` prompts (0: of any number), with numbers in it? */
static tessera_status check(const tessera_state *s, int64_t prompts, tessera_error *error) {
    int kind = kind_of(s->name);
    if (kind < 0 || s->data == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "states: \"%s\": no such state, or one without numbers", s->name != NULL ? s->name : "");
    bool fits = s->ndim == kinds[kind].ndim && (prompts == 0 || s->shape[0] == prompts) && s->shape[0] >= 1 && s->shape[0] <= 2;
    for (int d = 0; fits && d < s->ndim; d++) fits = s->shape[d] >= 1 && s->shape[d] <= 1 << 20;
    if (!fits)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "states: %s: %d extents that do not fit: it has %d, of which the first are the prompts",
                         s->name, s->ndim, kinds[kind].ndim);
    struct tensor t = tensor_of(s->data, DTYPE_F32, s->ndim, s->shape);
    for (int64_t i = 0; i < tensor_count(&t); i++)
        if (!isfinite(s->data[i])) return error_set(error, TESSERA_ERROR_FORMAT, "states: %s holds NaN or infinity", s->name);
    return TESSERA_OK;
}

/* The last `prompts` rows of it. */
static tessera_status take(struct generation *g, const tessera_state *from, int64_t prompts, tessera_error *error) {
    struct tensor all = tensor_of(from->data, DTYPE_F32, from->ndim, from->shape), wanted = all;
    wanted.shape[0] = prompts;
    struct tensor *to = state_at(&g->states, kind_of(from->name));
    *to = run_tensor(g->runs[ROLE_TEXT], DTYPE_F32, wanted.ndim, wanted.shape);
    TRY(run_status(g->runs[ROLE_TEXT], error));
    const float *rows = from->data + (tensor_count(&all) - tensor_count(&wanted));
    return backend_upload(g->runs[ROLE_TEXT]->backend, to, rows, error);
}

tessera_status generation_take_states(struct generation *g, tessera_error *error) {
    const tessera_states *given = g->request->states;
    int64_t prompts = g->guided ? 2 : 1, there = 0;
    if (given->count < 1 || given->count > TESSERA_STATES_MAX || kind_of(given->states[0].name) != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "states: %d of them: the first is \"text\"", given->count);
    for (int i = 0; i < given->count; i++) {
        TRY(check(&given->states[i], there, error));
        there = given->states[0].shape[0];
    }
    if (there < prompts)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "states: of the prompt alone, but guidance above 1 needs those of the negative prompt too: encode with the guidance "
                         "that pictures are made with");
    for (int i = 0; i < given->count; i++) TRY(take(g, &given->states[i], prompts, error));
    return TESSERA_OK;
}
