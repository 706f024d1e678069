/* The fingerprint of a model's text encoders or of its autoencoder: of their files, wherever they
 * lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/fingerprint.h"
#include "pipelines/pipeline.h"

_Static_assert(TESSERA_FINGERPRINT_BYTES == FINGERPRINT_BYTES, "one length");

/* Fingerprints one after another. */
struct prints {
    char text[1024];
    size_t used;
};

static void add_text(struct prints *prints, const char *text) {
    int n = snprintf(prints->text + prints->used, sizeof prints->text - prints->used, "%s ", text);
    if (n > 0 && (size_t)n < sizeof prints->text - prints->used) prints->used += (size_t)n;
}

static tessera_status add_path(struct prints *prints, const char *path, tessera_error *error) {
    char print[FINGERPRINT_BYTES];
    TRY(fingerprint_model(path, print, error));
    add_text(prints, print);
    return TESSERA_OK;
}

/* A component: a file of its own, the model's single file, or its folder. */
static tessera_status add_slot(const struct pipeline *p, struct prints *prints, const struct pipeline_slot *slot, tessera_error *error) {
    add_text(prints, slot->name);
    if (slot->file != NULL) return add_path(prints, slot->file, error);
    return add_path(prints, p->file != NULL && !slot->replaced ? p->name : slot->folder, error);
}

/* "tokenizer_2" of "text_encoder_2". */
static tessera_status add_tokenizer(const struct pipeline *p, struct prints *prints, const struct pipeline_slot *slot,
                                    tessera_error *error) {
    char name[sizeof slot->name], *folder = NULL;
    snprintf(name, sizeof name, "tokenizer%s", slot->name + strlen("text_encoder"));
    if (!pipeline_has(p, name)) return TESSERA_OK;
    TRY(pipeline_folder_of(p, name, &folder, error));
    tessera_status status = add_path(prints, folder, error);
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
