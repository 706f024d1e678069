/* See text_ahead.h. */
#include "pipelines/text_ahead.h"

#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"

struct kept_reading {
    struct kept_reading *next;
    const char *encoder;
    const tessera_request *request;
    struct prompt_reading reading; /* its tensors' data are owned, in the host's memory */
    size_t bytes;
};

static size_t bytes_of(struct prompt_reading *reading) {
    struct tensor *tensors[PROMPT_READING_TENSORS];
    size_t bytes = 0;
    prompt_reading_tensors(reading, tensors);
    for (int i = 0; i < PROMPT_READING_TENSORS; i++)
        if (tensors[i]->data != NULL) bytes += tensor_bytes(tensors[i]);
    return bytes;
}

bool text_ahead_has_room(const struct text_ahead *ahead, struct prompt_reading reading) {
    return ahead->bytes + bytes_of(&reading) <= ahead->room;
}

static void free_kept(struct kept_reading *kept) {
    struct tensor *tensors[PROMPT_READING_TENSORS];
    if (kept == NULL) return;
    prompt_reading_tensors(&kept->reading, tensors);
    for (int i = 0; i < PROMPT_READING_TENSORS; i++) free(tensors[i]->data);
    free(kept);
}

static struct kept_reading *const *find(struct kept_reading *const *link, const char *encoder, const tessera_request *request) {
    while (*link != NULL && ((*link)->request != request || strcmp((*link)->encoder, encoder) != 0)) link = &(*link)->next;
    return link;
}

bool text_ahead_has(const struct text_ahead *ahead, const char *encoder, const tessera_request *request) {
    return *find(&ahead->kept, encoder, request) != NULL;
}

/* Tensors of `from` in the run's memory. */
static tessera_status upload(struct run *run, struct prompt_reading from, struct prompt_reading *out, tessera_error *error) {
    struct tensor *tensors[PROMPT_READING_TENSORS], *to[PROMPT_READING_TENSORS];
    *out = from;
    prompt_reading_tensors(&from, tensors);
    prompt_reading_tensors(out, to);
    for (int i = 0; i < PROMPT_READING_TENSORS; i++) {
        if (tensors[i]->data == NULL) continue;
        *to[i] = run_tensor(run, DTYPE_F32, tensors[i]->ndim, tensors[i]->shape);
        TRY(run_status(run, error));
        TRY(backend_upload(run->backend, to[i], tensors[i]->data, error));
    }
    return TESSERA_OK;
}

tessera_status text_ahead_take(struct text_ahead *ahead, const char *encoder, const tessera_request *request, struct run *run,
                               struct prompt_reading *out, bool *found, tessera_error *error) {
    struct kept_reading **link = (struct kept_reading **)find(&ahead->kept, encoder, request), *kept = *link;
    *found = kept != NULL;
    if (kept == NULL) return TESSERA_OK;
    *link = kept->next;
    ahead->bytes -= kept->bytes;
    tessera_status status = upload(run, kept->reading, out, error);
    free_kept(kept);
    return status;
}

static tessera_status out_of_memory(struct kept_reading *kept, tessera_error *error) {
    free_kept(kept);
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the states of the next prompts");
}

tessera_status text_ahead_keep(struct text_ahead *ahead, const char *encoder, const tessera_request *request, struct run *run,
                               const struct prompt_reading *reading, tessera_error *error) {
    struct prompt_reading from = *reading;
    struct tensor *tensors[PROMPT_READING_TENSORS], *to[PROMPT_READING_TENSORS];
    struct kept_reading *kept = calloc(1, sizeof *kept);
    if (kept == NULL) return out_of_memory(NULL, error);
    *kept = (struct kept_reading){.next = ahead->kept, .encoder = encoder, .request = request, .reading = from, .bytes = bytes_of(&from)};
    prompt_reading_tensors(&from, tensors);
    prompt_reading_tensors(&kept->reading, to);
    for (int i = 0; i < PROMPT_READING_TENSORS; i++) to[i]->data = NULL;
    for (int i = 0; i < PROMPT_READING_TENSORS; i++) {
        if (tensors[i]->data == NULL) continue;
        to[i]->data = malloc(tensor_bytes(tensors[i]));
        if (to[i]->data == NULL) return out_of_memory(kept, error);
        tessera_status status = backend_download(run->backend, to[i]->data, tensors[i], error);
        if (status != TESSERA_OK) free_kept(kept);
        TRY(status);
    }
    ahead->bytes += kept->bytes;
    ahead->kept = kept;
    return TESSERA_OK;
}

void text_ahead_free(struct text_ahead *ahead) {
    while (ahead->kept != NULL) {
        struct kept_reading *next = ahead->kept->next;
        free_kept(ahead->kept);
        ahead->kept = next;
    }
    *ahead = (struct text_ahead){0};
}
