/* The fingerprint of a model's text encoders or of its autoencoder: of their files, wherever they
 * lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/fingerprint.h"
#include "pipelines/pipeline.h"
#include "pipelines/source.h"

_Static_assert(TESSERA_FINGERPRINT_BYTES == FINGERPRINT_BYTES, "one length");

/* Fingerprints one after another. */
struct prints {
    char text[4096]; /* more than eight text encoders with all files take */
    size_t used;
};

static void add_text(struct prints *prints, const char *text) {
    int n = snprintf(prints->text + prints->used, sizeof prints->text - prints->used, "%s ", text);
    if (n > 0 && (size_t)n < sizeof prints->text - prints->used) prints->used += (size_t)n;
}

static tessera_status add_files(struct prints *prints, const char *const *paths, int count, tessera_error *error) {
    char print[FINGERPRINT_BYTES];
    TRY(fingerprint_files(paths, count, print, error));
    add_text(prints, print);
    return TESSERA_OK;
}

/* A file of `folder`, if it is there. */
static tessera_status add_named(struct prints *prints, const char *folder, const char *name, tessera_error *error) {
    char *path = file_join(folder, name);
    tessera_status status = TESSERA_OK;
    if (path == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (path != NULL && file_exists(path)) {
        add_text(prints, name);
        status = add_files(prints, (const char *const *)&path, 1, error);
    }
    free(path);
    return status;
}

/* What is read of a component's folder, whatever else lies there: weights of another variant, or in
 * PyTorch's format. */
static tessera_status add_folder(const struct pipeline *p, struct prints *prints, const struct pipeline_slot *slot, tessera_error *error) {
    struct weights *weights = NULL;
    TRY(add_named(prints, slot->folder, "config.json", error));
    TRY(source_weights(p, slot, &weights, error));
    int count = weights_files(weights);
    const char **paths = calloc((size_t)count, sizeof *paths);
    for (int i = 0; paths != NULL && i < count; i++) paths[i] = weights_file(weights, i);
    tessera_status status =
        paths != NULL ? add_files(prints, paths, count, error) : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    free(paths);
    weights_close(weights);
    return status;
}

/* A component: a file of its own, the model's single file, or its folder. */
static tessera_status add_slot(const struct pipeline *p, struct prints *prints, const struct pipeline_slot *slot, tessera_error *error) {
    const char *file = slot->file != NULL ? slot->file : p->name;
    add_text(prints, slot->name);
    return slot->file != NULL || (p->file != NULL && !slot->replaced) ? add_files(prints, &file, 1, error)
                                                                      : add_folder(p, prints, slot, error);
}

/* "tokenizer_2" of "text_encoder_2". */
static tessera_status add_tokenizer(const struct pipeline *p, struct prints *prints, const struct pipeline_slot *slot,
                                    tessera_error *error) {
    char name[sizeof slot->name], *folder = NULL;
    snprintf(name, sizeof name, "tokenizer%s", slot->name + strlen("text_encoder"));
    if (!pipeline_has(p, name)) return TESSERA_OK;
    TRY(pipeline_folder_of(p, name, &folder, error));
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < TOKENIZER_FILES && status == TESSERA_OK; i++) status = add_named(prints, folder, tokenizer_files[i], error);
    free(folder);
    return status;
}

tessera_status pipeline_fingerprint(const struct pipeline *p, tessera_fingerprint_kind kind, char out[TESSERA_FINGERPRINT_BYTES],
                                    tessera_error *error) {
    struct prints prints = {.used = 0};
    if (kind != TESSERA_FINGERPRINT_TEXT && kind != TESSERA_FINGERPRINT_AUTOENCODER)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "fingerprint kind %d: there is none with this number", (int)kind);
    if (kind == TESSERA_FINGERPRINT_TEXT) {
        add_text(&prints, p->class->name);
        add_text(&prints, p->lora_fingerprint);
    }
    for (int i = 0; i < p->num_slots; i++) {
        const struct pipeline_slot *slot = &p->slots[i];
        bool is_text = strncmp(slot->name, "text_encoder", strlen("text_encoder")) == 0;
        if (kind == TESSERA_FINGERPRINT_TEXT && is_text) {
            TRY(add_slot(p, &prints, slot, error));
            TRY(add_tokenizer(p, &prints, slot, error));
        } else if (kind == TESSERA_FINGERPRINT_AUTOENCODER && strcmp(slot->name, p->autoencoder) == 0) {
            TRY(add_slot(p, &prints, slot, error));
        }
    }
    fingerprint_bytes(prints.text, prints.used, out);
    return TESSERA_OK;
}
