/* Weight files of random numbers; see random_component.h.
 *
 * Tensors stand in the order in which the model asks for them; a new shard begins where the next
 * one would pass the limit. */
#include "checkpoint/random_component.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/random_weights.h"
#include "nn/position.h"

#define PIECE (16 * RANDOM_WEIGHTS_BLOCK) /* elements at a time: 2 MiB */

/* SD3's table of positions [side * side, C]: a place is the vector of its column, then that of its
 * row. */
struct positions {
    float *vectors; /* [side, C]: a line's vector is the second half of its row */
    int64_t side, channels;
};

struct writing {
    const struct random_component *component;
    struct positions positions;
    uint16_t *piece;
    int *shard_of; /* [count] */
    int shards;
};

static tessera_status make_positions(struct writing *w, int64_t channels, tessera_error *error) {
    struct json *config = NULL;
    int64_t side = 0, sample = 0, patch = 0;
    char *path = file_join(w->component->folder, "config.json");
    tessera_status status = path != NULL ? json_open(path, 0, &config, error)
                                         : error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", w->component->folder);
    if (status == TESSERA_OK) status = json_int(config, "pos_embed_max_size", 96, 1, 1 << 12, &side, error);
    if (status == TESSERA_OK) status = json_int(config, "sample_size", 128, 1, 1 << 16, &sample, error);
    if (status == TESSERA_OK) status = json_int(config, "patch_size", 2, 1, 64, &patch, error);
    json_free(config);
    free(path);
    if (status != TESSERA_OK) return status;
    if (channels % 4 != 0 || sample < patch)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: no position table can be made for %lld channels and sample_size %lld",
                         w->component->folder, (long long)channels, (long long)sample);
    w->positions = (struct positions){malloc((size_t)(side * channels) * sizeof(float)), side, channels};
    if (w->positions.vectors == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", w->component->folder);
    position_sincos_2d(w->positions.vectors, side, 1, channels, (double)(sample / patch), 1.0);
    return TESSERA_OK;
}

static void fill_positions(const struct positions *p, int64_t first, int64_t count, uint16_t *out) {
    int64_t half = p->channels / 2;
    for (int64_t i = 0; i < count; i++) {
        int64_t place = (first + i) / p->channels, channel = (first + i) % p->channels;
        int64_t line = channel < half ? place % p->side : place / p->side;
        out[i] = bf16_round(p->vectors[line * p->channels + half + channel % half]);
    }
}

static tessera_status write_tensor(struct writing *w, const struct safetensors_entry *entry, struct safetensors_writer *writer,
                                   tessera_error *error) {
    const struct random_component *c = w->component;
    char full[512];
    snprintf(full, sizeof full, "%s.%s", c->name, entry->name);
    struct safetensors_entry named = {full, entry->tensor};
    bool buffer = tensor_list_is_buffer(entry->name);
    if (buffer && w->positions.vectors == NULL) TRY(make_positions(w, entry->tensor.shape[entry->tensor.ndim - 1], error));
    int64_t total = tensor_count(&entry->tensor);
    for (int64_t first = 0; first < total; first += PIECE) {
        int64_t count = total - first < PIECE ? total - first : PIECE;
        size_t bytes = (size_t)count * sizeof *w->piece;
        if (buffer)
            fill_positions(&w->positions, first, count, w->piece);
        else
            random_weights_fill(c->seed, &named, first, count, w->piece);
        TRY(safetensors_writer_add(writer, w->piece, bytes, error));
        if (c->wrote != NULL && !c->wrote(c->user, bytes)) return error_set(error, TESSERA_ERROR_CANCELLED, "%s: stopped", c->folder);
    }
    return TESSERA_OK;
}

static void shard_name(const struct writing *w, int shard, char *out, size_t capacity) {
    if (w->shards == 1)
        snprintf(out, capacity, "%s.safetensors", w->component->stem);
    else
        snprintf(out, capacity, "%s-%05d-of-%05d.safetensors", w->component->stem, shard + 1, w->shards);
}

/* Tensors first .. end - 1 of the list. */
static tessera_status write_shard(struct writing *w, int first, int end, tessera_error *error) {
    const struct random_component *c = w->component;
    struct safetensors_writer *writer = NULL;
    char name[128];
    shard_name(w, w->shard_of[first], name, sizeof name);
    char *path = file_join(c->folder, name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", c->folder);
    tessera_status status = safetensors_writer_open(path, c->list->entries + first, end - first, "pt", &writer, error);
    for (int i = first; i < end && status == TESSERA_OK; i++) status = write_tensor(w, &c->list->entries[i], writer, error);
    free(path);
    if (status == TESSERA_OK) return safetensors_writer_commit(writer, error);
    safetensors_writer_discard(writer);
    return status;
}

/* {"metadata": {"total_size": bytes}, "weight_map": {tensor: shard}} */
static tessera_status write_index(const struct writing *w, tessera_error *error) {
    const struct random_component *c = w->component;
    char name[128];
    snprintf(name, sizeof name, "%s.safetensors.index.json", c->stem);
    char *path = file_join(c->folder, name);
    struct file_output output;
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", c->folder);
    tessera_status status = file_output_open(path, &output, error);
    free(path);
    if (status != TESSERA_OK) return status;
    fprintf(output.stream, "{\n  \"metadata\": {\n    \"total_size\": %zu\n  },\n  \"weight_map\": {\n", tensor_list_bytes(c->list));
    for (int i = 0; i < c->list->count; i++) { /* names are the models' own: letters, digits, dots and underscores */
        shard_name(w, w->shard_of[i], name, sizeof name);
        fprintf(output.stream, "    \"%s\": \"%s\"%s\n", c->list->entries[i].name, name, i + 1 < c->list->count ? "," : "");
    }
    fprintf(output.stream, "  }\n}\n");
    return file_output_commit(&output, error);
}

static void plan_shards(struct writing *w) {
    const struct tensor_list *list = w->component->list;
    size_t filled = 0;
    w->shards = 1;
    for (int i = 0; i < list->count; i++) {
        size_t bytes = tensor_bytes(&list->entries[i].tensor);
        if (filled > 0 && filled + bytes > w->component->max_shard_bytes) {
            w->shards++;
            filled = 0;
        }
        filled += bytes;
        w->shard_of[i] = w->shards - 1;
    }
}

tessera_status random_component_write(const struct random_component *component, tessera_error *error) {
    struct writing w = {.component = component};
    int count = component->list->count;
    tessera_status status = TESSERA_OK;
    w.piece = malloc((size_t)PIECE * sizeof *w.piece);
    w.shard_of = calloc((size_t)count + 1, sizeof *w.shard_of);
    if (w.piece == NULL || w.shard_of == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", component->folder);
        goto done;
    }
    plan_shards(&w);
    for (int first = 0, end; first < count && status == TESSERA_OK; first = end) {
        for (end = first + 1; end < count && w.shard_of[end] == w.shard_of[first];) end++;
        status = write_shard(&w, first, end, error);
    }
    if (status == TESSERA_OK && w.shards > 1) status = write_index(&w, error);
done:
    free(w.positions.vectors);
    free(w.shard_of);
    free(w.piece);
    return status;
}
