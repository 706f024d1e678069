/* The tensors of a component's weight file, as its model's own description asks for them: names and
 * shapes, nothing read.
 *
 * A list is what `load_hooks.record` (nn/load.h) hears when the component is opened without weights. */
#ifndef TESSERA_CHECKPOINT_TENSOR_LIST_H
#define TESSERA_CHECKPOINT_TENSOR_LIST_H

#include "tensor/safetensors.h"

struct tensor_list {
    struct safetensors_entry *entries; /* names owned; tensors BF16, without data */
    int count, capacity;
    bool incomplete; /* memory was out */
};

/* Lists the component whose config.json lies in `folder`. `list` must be zeroed; clear it in any
 * case. */
tessera_status tensor_list_read(struct tensor_list *list, const char *folder, tessera_error *error);
void tensor_list_clear(struct tensor_list *list);

/* Is it a table that follows from the config (SD3's positions), which counts as a buffer and not as
 * a parameter? */
bool tensor_list_is_buffer(const char *name);
size_t tensor_list_bytes(const struct tensor_list *list);       /* in BF16, buffers included */

#endif
