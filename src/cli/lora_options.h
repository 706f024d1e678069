/* The LoRA files that a command line of `tessera generate` names. */
#ifndef TESSERA_CLI_LORA_OPTIONS_H
#define TESSERA_CLI_LORA_OPTIONS_H

#include "cli/options.h"

/* Of --lora FILE[:SCALE], each; only a number after the last colon is a scale, which otherwise is
 * 1. MEMORY. Free with lora_options_free. */
tessera_status lora_options_read(const struct option_value *lora, tessera_lora **out, tessera_error *error);
void lora_options_free(tessera_lora *loras, int count);

#endif
