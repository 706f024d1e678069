/* LoRA files (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): changes of a
 * model's weights, merged while they are loaded: W' = W + scale * alpha / rank * B A; and what else
 * people share under that name: LoCon, DoRA, LoHa, LoKr (lora_module.h).
 *
 * A set is opened once and asked by every component that is opened:
 *
 *     lora_set_open(...)
 *     lora_hooks_for(set, "unet", folder, &hooks, ...)
 *     lora_hooks_found(set, "unet", weights)             notes which of the files' modules "unet" has
 *     component_open(...) with the hooks                 merges; an error if shapes do not fit
 *     lora_set_check(set, ...)                           after all components: an error if the model has nothing of a file
 *     lora_set_notice(set, 0, ...)                       what is left out of a file, in one line
 *
 * Keys: diffusers' layouts and kohya's (lora_key.h), with the modules' names of diffusers or of the
 * original checkpoints (layout.h). Keys for a text encoder that the model does not have are passed
 * over. Files are mapped; beside the loader's float32 copy of a piece of a weight only that piece's
 * columns of A and rows of B are held. */
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

/* The hooks for a component; they belong to the set and end with it, or with the next call for the
 * same component. `folder` holds the component's config.json, which the names of original
 * checkpoints depend on; NULL: only diffusers' names are known. No hooks where LoRA does not reach
 * (autoencoders). Each file is merged in the set's order. */
tessera_status lora_hooks_for(struct lora_set *set, const char *component, const char *folder, struct load_hooks *out,
                              tessera_error *error);
/* After lora_hooks_for: every weight in `weights` counts as the model's, also those that it does
 * not compute with (such as the last text queries of SD3). Opening the component with the hooks
 * notes its weights too. */
void lora_hooks_found(struct lora_set *set, const char *component, const struct weights *weights);

/* Can a LoRA change this component at all? */
bool lora_reaches(const char *component);
/* Has a file modules that lora_hooks_found noted for the component? */
bool lora_set_changes(const struct lora_set *set, const char *component);
bool lora_file_changes(const struct lora_set *set, int file, const char *component);

/* After all components: FORMAT if there are modules for them in a file and they have none of these,
 * or the denoiser has none of its own; names the file and the first key. */
tessera_status lora_set_check(const struct lora_set *set, tessera_error *error);
int lora_set_count(const struct lora_set *set); /* files */
/* One line about what is left out of a file: modules that no component has, keys that are no
 * adapter's. False: nothing. */
bool lora_set_notice(const struct lora_set *set, int file, char *text, size_t capacity);

#endif
