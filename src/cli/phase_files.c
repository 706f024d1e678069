/* See phase_files.h. */
#include "cli/phase_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tessera_model.h"

/* Keys of __metadata__. */
#define KIND_KEY "tessera"
#define CLASS_KEY "pipeline_class"
#define PRINT_KEY "fingerprint"
#define PROMPT_KEY "prompt"
#define NEGATIVE_KEY "negative_prompt"
#define WIDTH_KEY "width"
#define HEIGHT_KEY "height"
#define BINNING_KEY "resolution_binning"

/* What a file can be, and which components of a model it is bound to. */
struct kind {
    const char *name, *bound_to, *made_by;
    tessera_fingerprint_kind fingerprint;
};
static const struct kind embeds_kind = {"prompt embeddings", "text encoders", "tessera encode", TESSERA_FINGERPRINT_TEXT};
static const struct kind latents_kind = {"latents", "autoencoder", "tessera generate --output-type latent",
                                         TESSERA_FINGERPRINT_AUTOENCODER};

static tessera_status open_kind(const char *path, const struct kind *kind, struct safetensors **out, tessera_error *error) {
    TRY(safetensors_open(path, out, error));
    const char *is = safetensors_metadata(*out, KIND_KEY);
    if (is != NULL && strcmp(is, kind->name) == 0 && safetensors_metadata(*out, PRINT_KEY) != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s%s and not %s, which `%s` writes", path,
                     is != NULL ? "holds " : "does not say what it holds", is != NULL ? is : "", kind->name, kind->made_by);
}

static tessera_status check_model(const struct safetensors *file, const struct kind *kind, tessera_model *model, tessera_error *error) {
    char print[TESSERA_FINGERPRINT_BYTES];
    const char *was = safetensors_metadata(file, PRINT_KEY), *class = safetensors_metadata(file, CLASS_KEY);
    TRY(tessera_fingerprint(model, kind->fingerprint, print, error));
    if (strcmp(was, print) == 0) return TESSERA_OK;
    return error_set(
        error, TESSERA_ERROR_ARGUMENT,
        "%s: made by another model: a %s whose %s have the fingerprint %s, but this %s has %s: give --model the one that made it",
        safetensors_path(file), class != NULL ? class : "model", kind->bound_to, was, tessera_model_pipeline_class(model), print);
}

/* ---- prompts ---- */

tessera_status embeds_write(const char *path, tessera_model *model, const tessera_request *request, const tessera_states *states,
                            tessera_error *error) {
    char print[TESSERA_FINGERPRINT_BYTES];
    struct safetensors_entry entries[TESSERA_STATES_MAX];
    TRY(tessera_fingerprint(model, embeds_kind.fingerprint, print, error));
    for (int i = 0; i < states->count; i++) {
        const tessera_state *s = &states->states[i];
        entries[i] = (struct safetensors_entry){s->name, tensor_of(s->data, DTYPE_F32, s->ndim, s->shape)};
    }
    const struct safetensors_note notes[] = {{KIND_KEY, embeds_kind.name},
                                             {CLASS_KEY, tessera_model_pipeline_class(model)},
                                             {PRINT_KEY, print},
                                             {PROMPT_KEY, request->prompt},
                                             {request->negative_prompt != NULL ? NEGATIVE_KEY : NULL, request->negative_prompt},
                                             {NULL, NULL}};
    return safetensors_write_noted(path, entries, states->count, notes, error);
}

static tessera_status read_state(struct embeds_file *out, const struct safetensors_entry *entry, tessera_error *error) {
    const struct tensor *t = &entry->tensor;
    if (out->states.count == TESSERA_STATES_MAX || t->dtype != DTYPE_F32 || t->ndim > 3)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\": not one of a prompt's states, which are F32 with up to 3 extents",
                         safetensors_path(out->file), entry->name);
    tessera_state *s = &out->states.states[out->states.count++];
    *s = (tessera_state){.name = entry->name, .ndim = t->ndim, .data = t->data};
    memcpy(s->shape, t->shape, (size_t)t->ndim * sizeof *t->shape);
    return TESSERA_OK;
}

tessera_status embeds_open(const char *path, struct embeds_file *out, tessera_error *error) {
    *out = (struct embeds_file){.states = TESSERA_STATES};
    TRY(open_kind(path, &embeds_kind, &out->file, error));
    for (int i = 0; i < safetensors_count(out->file); i++) TRY(read_state(out, safetensors_at(out->file, i), error));
    out->prompt = safetensors_metadata(out->file, PROMPT_KEY);
    out->negative_prompt = safetensors_metadata(out->file, NEGATIVE_KEY);
    return TESSERA_OK;
}

tessera_status embeds_check(const struct embeds_file *embeds, tessera_model *model, tessera_error *error) {
    return check_model(embeds->file, &embeds_kind, model, error);
}

void embeds_close(struct embeds_file *embeds) {
    if (embeds->file != NULL) safetensors_close(embeds->file);
    *embeds = (struct embeds_file){0};
}

/* ---- latents ---- */

tessera_status latents_write(const char *path, tessera_model *model, const tessera_request *request, const tessera_image *image,
                             tessera_error *error) {
    char print[TESSERA_FINGERPRINT_BYTES], width[16], height[16];
    TRY(tessera_fingerprint(model, latents_kind.fingerprint, print, error));
    snprintf(width, sizeof width, "%d", request->width);
    snprintf(height, sizeof height, "%d", request->height);
    bool binning = request->use_resolution_binning && request->init_image == NULL;
    const struct safetensors_entry entry = {
        .name = "latents",
        .tensor = tensor_of(image->latents, DTYPE_F32, SHAPE(1, image->latent_channels, image->latent_height, image->latent_width))};
    const struct safetensors_note notes[] = {
        {KIND_KEY, latents_kind.name}, {CLASS_KEY, tessera_model_pipeline_class(model)}, {PRINT_KEY, print}, {WIDTH_KEY, width},
        {HEIGHT_KEY, height},          {BINNING_KEY, binning ? "true" : "false"},        {NULL, NULL}};
    return safetensors_write_noted(path, &entry, 1, notes, error);
}

/* A number of pixels; 0: there is none. */
static int read_pixels(const struct safetensors *file, const char *key) {
    const char *text = safetensors_metadata(file, key);
    char *end = NULL;
    long number = text != NULL ? strtol(text, &end, 10) : 0;
    return text != NULL && *end == 0 && number > 0 && number <= 1 << 16 ? (int)number : 0;
}

tessera_status latents_open(const char *path, struct latents_file *out, tessera_error *error) {
    *out = (struct latents_file){0};
    TRY(open_kind(path, &latents_kind, &out->file, error));
    struct tensor t = safetensors_tensor(out->file, "latents");
    const char *binning = safetensors_metadata(out->file, BINNING_KEY);
    out->width = read_pixels(out->file, WIDTH_KEY);
    out->height = read_pixels(out->file, HEIGHT_KEY);
    if (t.data == NULL || t.dtype != DTYPE_F32 || t.ndim != 4 || t.shape[0] != 1 || out->width == 0 || out->height == 0)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: needs the tensor \"latents\" F32 [1, channels, rows, columns], and width and height in __metadata__", path);
    out->values = t.data;
    out->count = (size_t)tensor_count(&t);
    out->binning = binning != NULL && strcmp(binning, "true") == 0;
    return TESSERA_OK;
}

tessera_status latents_check(const struct latents_file *latents, tessera_model *model, tessera_error *error) {
    return check_model(latents->file, &latents_kind, model, error);
}

void latents_close(struct latents_file *latents) {
    if (latents->file != NULL) safetensors_close(latents->file);
    *latents = (struct latents_file){0};
}
