/* What A1111 and sd-cli read in a prompt beside its text: <lora:NAME:SCALE> is taken out and becomes --lora. */
#ifndef TESSERA_CLI_PROMPT_TAGS_H
#define TESSERA_CLI_PROMPT_TAGS_H

#include "cli/options.h"

/* The texts that prompts and LoRA files are borrowed from; free with prompt_tags_free. Zeroed before use. */
struct prompt_tags {
    char **texts; /* [count] */
    int count;
};

/* Takes <lora:NAME:SCALE> out of all prompts of generate.h's `values` and adds NAME.safetensors, of the folder --lora-model-dir, to --lora.
 * ARGUMENT: a tag is broken, or two prompts name other files, which one model cannot be changed by. */
tessera_status prompt_tags_take(struct option_value *values, struct prompt_tags *out, tessera_error *error);
/* Whether a prompt weighs its words, "(red:1.3)": here that is text as any other. */
bool prompt_tags_weigh(const struct option_value *prompts);
/* Whether a prompt names a textual inversion as ComfyUI does, "embedding:NAME": that is text, too. */
bool prompt_tags_embed(const struct option_value *prompts);
void prompt_tags_free(struct prompt_tags *tags);

#endif
