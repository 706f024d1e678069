/* LoRA files (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): changes of a model's weights, merged while they
 * are loaded: W' = W + scale * alpha / rank * B A.
 *
 * A set is opened once and asked by every component that is opened:
 *
 *     lora_set_open(...)
 *     lora_hooks_for(set, "unet", folder, &hooks, ...)
 *     lora_hooks_done(set, "unet", weights, ...)         an error if a key of a file names a module that "unet" does not have
 *     component_open(...) with the hooks                 merges; an error if shapes do not fit
 *
 * Keys: diffusers' layouts and kohya's (lora_key.h), with the modules' names of diffusers or of the original checkpoints (layout.h).
 * Keys for a text encoder that the model does not have are passed over. Files are mapped; beside the loader's float32 copy of a piece of a
 * weight only that piece's columns of A and rows of B are held. */
#ifndef TESSERA_CHECKPOINT_LORA_H
#define TESSERA_CHECKPOINT_LORA_H

#include "nn/load.h"

struct lora_set;

/* Opens `count` files. IO, FORMAT or UNSUPPORTED errors name file and key. */
tessera_status lora_set_open(const tessera_lora *loras, int count, struct lora_set **out, tessera_error *error);
/* One file's bytes, which the caller keeps (tests, fuzzing); `name` stands for the file in messages. */
tessera_status lora_set_parse(const char *name, const uint8_t *data, size_t length, float scale, struct lora_set **out,
                              tessera_error *error);
void lora_set_close(struct lora_set *set);
/* How many threads merge; before that, all that the process may use. */
void lora_set_use_threads(struct lora_set *set, int threads);

/* The hooks for a component; they belong to the set and end with it, or with the next call for the same component. `folder` holds the
 * component's config.json, which the names of original checkpoints depend on; NULL: only diffusers' names are known. No hooks where LoRA
 * does not reach (autoencoders). Each file is merged in the set's order. */
tessera_status lora_hooks_for(struct lora_set *set, const char *component, const char *folder, struct load_hooks *out,
                              tessera_error *error);
/* After lora_hooks_for: FORMAT if keys for this component match none of its modules; names the file, the first such key and how many.
 * Either after component_open, or before it as soon as `weights` (the component's, or NULL) are open: every weight in them counts as
 * found, also those that the model does not compute with. */
tessera_status lora_hooks_done(struct lora_set *set, const char *component, const struct weights *weights, tessera_error *error);

#endif
