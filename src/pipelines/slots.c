/* A pipeline's slots: its components by name, as their configs describe them or opened without
 * weights, and what follows from them. loading.c loads weights. See pipeline.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "pipelines/placed.h"
#include "pipelines/pipeline.h"
#include "pipelines/source.h"

int pipeline_slot_index(const struct pipeline *p, const char *name) {
    for (int i = 0; i < p->num_slots; i++)
        if (strcmp(p->slots[i].name, name) == 0) return i;
    return -1;
}

tessera_status pipeline_need_slot(const struct pipeline *p, const char *name, const struct pipeline_slot **out, tessera_error *error) {
    int index = pipeline_slot_index(p, name);
    *out = index >= 0 ? &p->slots[index] : NULL;
    if (index >= 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: the pipeline %s needs this component", json_path(p->index), name,
                     p->class->name);
}

static tessera_status find_slot(struct pipeline *p, const char *name, struct pipeline_slot **out, tessera_error *error) {
    const struct pipeline_slot *slot;
    TRY(pipeline_need_slot(p, name, &slot, error));
    *out = &p->slots[slot - p->slots];
    return TESSERA_OK;
}

tessera_status pipeline_describe(struct pipeline *p, const char *name, const struct component **out, tessera_error *error) {
    struct pipeline_slot *slot;
    TRY(find_slot(p, name, &slot, error));
    if (!slot->is_described) TRY(source_describe(p, slot, (struct load_scope){0}, &slot->described, error));
    slot->is_described = true;
    *out = &slot->described;
    return TESSERA_OK;
}

/* As the model's files have it. */
static tessera_status read_scheduler_config(struct pipeline *p, struct json **out, tessera_error *error) {
    char *path = NULL;
    *out = NULL;
    if (p->file != NULL) TRY(single_file_scheduler(p->file, out, error));
    if (*out != NULL) return TESSERA_OK;
    TRY(pipeline_folder_of(p, "scheduler", &path, error));
    tessera_status status = scheduler_read_config(path, out, error);
    free(path);
    return status;
}

tessera_status pipeline_scheduler_config(struct pipeline *p, const struct json **out, tessera_error *error) {
    if (p->scheduler == NULL) {
        struct json *read = NULL;
        TRY(read_scheduler_config(p, &read, error));
        tessera_status status = TESSERA_OK;
        if (p->class->scheduler_fields == NULL)
            p->scheduler = read;
        else
            status = scheduler_merge_config(read, p->class->scheduler_fields, &p->scheduler, error);
        if (p->scheduler != read) json_free(read);
        TRY(status);
    }
    *out = p->scheduler;
    return TESSERA_OK;
}

void pipeline_forget(struct pipeline *p) {
    json_free(p->scheduler);
    p->scheduler = NULL;
    for (int i = 0; i < p->num_slots; i++) {
        if (p->slots[i].is_described) component_close(&p->slots[i].described);
        p->slots[i].is_described = false;
    }
}

void pipeline_close_slot(struct pipeline *p, struct pipeline_slot *slot) {
    if (slot->stream != NULL) {
        struct stream_counts counts = component_stream_counts(slot->stream);
        p->disk.bytes_read += counts.bytes_read;
        p->disk.seconds_waited += counts.seconds_waited;
    }
    component_stream_close(slot->stream);
    slot->stream = NULL;
    if (slot->is_open) component_close(&slot->component);
    slot->is_open = slot->is_loaded = false;
}

tessera_status pipeline_open_slot(struct pipeline *p, struct pipeline_slot *slot, tessera_error *error) {
    double start = clock_seconds();
    if (slot->is_open) return TESSERA_OK;
    TRY(source_component(p, slot, &slot->component, error));
    slot->is_open = true;
    p->seconds_load += clock_seconds() - start;
    return TESSERA_OK;
}

tessera_status pipeline_tokenizer(struct pipeline *p, const char *name, const struct tokenizer **out, tessera_error *error) {
    struct pipeline_tokenizer *slot = p->tokenizers;
    for (; slot->tokenizer != NULL && strcmp(slot->name, name) != 0; slot++) assert(slot + 1 < p->tokenizers + PIPELINE_MAX_TOKENIZERS);
    *out = slot->tokenizer;
    if (*out != NULL) return TESSERA_OK;
    char *folder = NULL;
    TRY(pipeline_folder_of(p, name, &folder, error));
    tessera_status status = tokenizer_open(folder, &slot->tokenizer, error);
    free(folder);
    slot->name = name;
    *out = slot->tokenizer;
    return status;
}

/* ---- what follows ---- */

int64_t pipeline_latent_channels(const struct pipeline *p, const struct denoiser *denoiser) {
    return (denoiser->in_channels - p->class->extra.channels) / (1 + p->class->extra.latents);
}

tessera_status pipeline_working_size(const struct pipeline *p, bool use_bins, int *width, int *height, tessera_error *error) {
    const struct pipeline_class *class = p->class;
    bool has_size = *width > 0 && *height > 0;
    if (class->rounds_sizes) *width = *width / 16 * 16, *height = *height / 16 * 16;
    if (class->nearest_size == NULL || !use_bins || !has_size || class->nearest_size(p->sample_size, width, height)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "%s/%s/config.json: field sample_size is %lld: resolution bins exist for 32, 64, 128 and 256; switch them off",
                     p->folder, p->denoiser, (long long)p->sample_size);
}

int pipeline_rank_of(const struct pipeline *p, const char *name) {
    int place = pipeline_slot_index(p, name);
    if (p->map != NULL) return placed_rank(p->map, name);
    return place > 0 && strcmp(name, p->autoencoder) != 0 ? place % team_size(&p->team) : 0;
}

bool pipeline_has_blocks(const struct pipeline *p) {
    return p->num_stages == 0 || p->stages[0].me >= 0;
}
