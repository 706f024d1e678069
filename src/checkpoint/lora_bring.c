/* See lora_bring.h. */
#include "checkpoint/lora_bring.h"

#include <stdlib.h>

/* Where a tensor lies in the file. */
struct place {
    uint64_t first; /* aligned, as is `bytes` */
    size_t skipped, needed, bytes;
};

static bool find_place(const struct safetensors *tensors, const struct tensor *t, struct place *out) {
    int descriptor;
    uint64_t offset;
    if (!safetensors_locate(tensors, t->data, &descriptor, &offset)) return false;
    out->first = offset / DISK_ALIGNMENT * DISK_ALIGNMENT;
    out->skipped = (size_t)(offset - out->first);
    out->needed = out->skipped + tensor_bytes(t);
    out->bytes = (out->needed + DISK_ALIGNMENT - 1) / DISK_ALIGNMENT * DISK_ALIGNMENT;
    return true;
}

tessera_status lora_bring(const struct lora_module *module, const struct safetensors *tensors, struct disk_file *disk,
                          struct lora_brought *out, tessera_error *error) {
    struct place places[LORA_ROLES] = {{0}};
    size_t bytes = 0, at = 0;
    *out = (struct lora_brought){.module = *module};
    for (int i = 0; i < LORA_ROLES && disk != NULL; i++)
        if (module->tensors[i] != NULL && i != LORA_ALPHA && find_place(tensors, &module->tensors[i]->tensor, &places[i]))
            bytes += places[i].bytes;
    if (bytes == 0) return TESSERA_OK;
    out->memory = aligned_alloc(DISK_ALIGNMENT, bytes);
    if (out->memory == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for \"%.150s\"", disk->path, module->name);
    for (int i = 0; i < LORA_ROLES; at += places[i++].bytes) {
        if (places[i].bytes == 0) continue;
        TRY(disk_file_read(disk, out->memory + at, places[i].first, places[i].bytes, places[i].needed, error));
        out->entries[i] = *module->tensors[i];
        out->entries[i].tensor.data = out->memory + at + places[i].skipped;
        out->module.tensors[i] = &out->entries[i];
    }
    return TESSERA_OK;
}

void lora_let_go(struct lora_brought *brought) {
    free(brought->memory);
    brought->memory = NULL;
}
