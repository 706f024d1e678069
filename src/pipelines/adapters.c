/* See adapters.h. */
#include "pipelines/adapters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pipelines/options.h"
#include "pipelines/source.h"

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a list of LoRA files");
}

/* One text for a set of files: if any of it changes, the weights are other ones. The caller frees;
 * NULL: no memory. */
static char *key_of(const tessera_lora *loras, int count) {
    char *key = NULL;
    size_t length;
    FILE *text = open_memstream(&key, &length);
    for (int i = 0; i < count && text != NULL; i++) {
        struct stat about = {0};
        stat(loras[i].path, &about); /* a file that is not there is an error when it is opened */
        fprintf(text, "%s %a %lld %lld %lld.%09ld\n", loras[i].path, (double)loras[i].scale, (long long)about.st_ino,
                (long long)about.st_size, (long long)about.st_mtim.tv_sec, about.st_mtim.tv_nsec);
    }
    if (text == NULL || fclose(text) != 0) return NULL;
    return key;
}

tessera_status adapters_open(struct pipeline *p, const tessera_lora *loras, int count, tessera_error *error) {
    struct adapters *a = &p->adapters;
    a->own = calloc((size_t)count + 1, sizeof *a->own);
    if (a->own == NULL || (a->key = key_of(loras, count)) == NULL) return out_of_memory(error);
    for (; a->num_own < count; a->num_own++) {
        a->own[a->num_own] = loras[a->num_own];
        a->own[a->num_own].path = strdup(loras[a->num_own].path);
        if (a->own[a->num_own].path == NULL) return out_of_memory(error);
    }
    return lora_set_open(loras, count, &p->loras, error);
}

void adapters_free(struct pipeline *p) {
    for (int i = 0; i < p->adapters.num_own; i++) free((char *)p->adapters.own[i].path);
    free(p->adapters.own);
    free(p->adapters.key);
    lora_set_close(p->loras);
}

/* Notes which modules the model's components have, and that they fit it. */
static tessera_status check_set(struct pipeline *p, struct lora_set *set, tessera_error *error) {
    for (int i = 0; i < p->num_slots; i++) {
        struct load_hooks hooks;
        struct weights *weights = NULL;
        if (!lora_reaches(p->slots[i].name)) continue;
        TRY(lora_hooks_for(set, p->slots[i].name, p->slots[i].folder, &hooks, error));
        TRY(source_weights(p, &p->slots[i], &weights, error));
        lora_hooks_found(set, p->slots[i].name, weights);
        weights_close(weights);
    }
    return lora_set_check(set, error);
}

/* Puts `set` in the place of the one before: components that one of them changes are closed, the
 * others ask the new one from now on. */
static tessera_status change_set(struct pipeline *p, struct lora_set *set, tessera_error *error) {
    for (int i = 0; i < p->num_slots; i++) {
        struct pipeline_slot *slot = &p->slots[i];
        bool changes = lora_set_changes(p->loras, slot->name) || lora_set_changes(set, slot->name);
        if (changes) pipeline_close_slot(p, slot), slot->window = 0, p->is_judged = false; /* what it takes is another number now */
        if (slot->is_open) TRY(lora_hooks_for(set, slot->name, slot->folder, &slot->component.hooks, error));
    }
    return TESSERA_OK;
}

static tessera_status use_set(struct pipeline *p, const tessera_request *request, const tessera_lora *loras, int count,
                              tessera_error *error) {
    struct lora_set *set = NULL;
    char text[600];
    TRY(lora_set_open(loras, count, &set, error));
    lora_set_use_threads(set, p->backends[ROLE_DENOISER]->threads);
    tessera_status status = check_set(p, set, error);
    if (status == TESSERA_OK) {
        status = change_set(p, set, error);
        for (int i = 0; status != TESSERA_OK && i < p->num_slots; i++)
            pipeline_close_slot(p, &p->slots[i]); /* none may ask a set that is gone */
    }
    if (status != TESSERA_OK) {
        lora_set_close(set);
        return status;
    }
    for (int i = p->adapters.num_own; i < count; i++)
        if (lora_set_notice(set, i, text, sizeof text)) pipeline_notice(p, request, "%s", text);
    lora_set_close(p->loras);
    p->loras = set;
    return TESSERA_OK;
}

/* The model's files and the request's, in one list. */
static tessera_status join(const struct adapters *a, const tessera_lora *more, int count, tessera_lora **out, tessera_error *error) {
    *out = calloc((size_t)(a->num_own + count) + 1, sizeof **out);
    if (*out == NULL) return out_of_memory(error);
    if (a->num_own > 0) memcpy(*out, a->own, (size_t)a->num_own * sizeof **out);
    if (count > 0) memcpy(*out + a->num_own, more, (size_t)count * sizeof **out);
    return TESSERA_OK;
}

tessera_status adapters_use(struct pipeline *p, const tessera_request *request, tessera_error *error) {
    struct adapters *a = &p->adapters;
    tessera_lora *more = NULL, *all = NULL;
    int count = a->num_own + request->num_loras;
    TRY(loras_read(request->loras, request->num_loras, &more, error));
    tessera_status status = join(a, more, request->num_loras, &all, error);
    free(more);
    char *key = status == TESSERA_OK ? key_of(all, count) : NULL;
    if (status == TESSERA_OK && key == NULL) status = out_of_memory(error);
    if (status == TESSERA_OK && strcmp(key, a->key) != 0) {
        status = use_set(p, request, all, count, error);
        if (status == TESSERA_OK) {
            free(a->key);
            a->key = key;
            key = NULL;
        }
    }
    free(key);
    free(all);
    return status;
}
