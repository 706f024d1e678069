/* A module's matrices in memory of their own while they are used: read past the map of the file
 * (base/disk.h), so that merging a LoRA for each block that is streamed holds no more than one
 * module's, and a file that was cut is an error. */
#ifndef TESSERA_CHECKPOINT_LORA_BRING_H
#define TESSERA_CHECKPOINT_LORA_BRING_H

#include "base/disk.h"
#include "checkpoint/lora_module.h"

struct lora_brought {
    struct lora_module module;
    struct safetensors_entry entries[LORA_ROLES];
    char *memory;
};

/* The module, an alpha apart (lora_module_complete has read it), from `disk`, the file that
 * `tensors` maps; what is not mapped, or of a NULL disk, stays where it is. lora_let_go frees it,
 * after an error too: IO with the file's name, MEMORY. */
tessera_status lora_bring(const struct lora_module *module, const struct safetensors *tensors, struct disk_file *disk,
                          struct lora_brought *out, tessera_error *error);
void lora_let_go(struct lora_brought *brought);

#endif
