/* What A1111, ComfyUI and sd-cli read in a prompt beside its text: <lora:NAME:SCALE> is taken out
 * and becomes --lora, and the rest is text here. */
#ifndef TESSERA_CLI_PROMPT_TAGS_H
#define TESSERA_CLI_PROMPT_TAGS_H

#include "cli/options.h"

/* The texts that prompts and LoRA files are borrowed from; free with prompt_tags_free. Zeroed
 * before use. */
struct prompt_tags {
    char **texts; /* [count] */
    int count;
};

/* Takes <lora:NAME:SCALE> (or <lyco:...>) out of all prompts of generate.h's `values` and adds
 * NAME.safetensors, of the folder --lora-model-dir, to --lora. ARGUMENT: a tag is broken, or two
 * prompts name other files, which one model cannot be changed by. */
tessera_status prompt_tags_take(struct option_value *values, struct prompt_tags *out, tessera_error *error);
/* A line on standard error for each thing in the prompts or the negative one (NULL: none) that
 * other programs understand and that is read as text here: weights, prompts that change on the way,
 * AND and BREAK, hypernetworks, textual inversions. */
void prompt_tags_announce(const struct option_value *prompts, const char *negative_prompt);
void prompt_tags_free(struct prompt_tags *tags);

#endif
