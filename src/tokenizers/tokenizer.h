/* Tokenizers: text to ids, exactly as transformers does it, from either file layout (vocab.json +
 * merges.txt, spiece.model, or tokenizer.json alone). */
#ifndef TESSERA_TOKENIZERS_TOKENIZER_H
#define TESSERA_TOKENIZERS_TOKENIZER_H

#include "base/error.h"

struct tokenizer;

/* Names of the files that are read of a tokenizer's folder, where they are there. */
enum { TOKENIZER_FILES = 7 };
extern const char *const tokenizer_files[TOKENIZER_FILES];

/* Opens a tokenizer folder; the class is read from tokenizer_config.json (tokenizer_class) or,
 * failing that, from the files present. */
tessera_status tokenizer_open(const char *folder, struct tokenizer **out, tessera_error *error);
void tokenizer_free(struct tokenizer *tokenizer);

/* padding="max_length", truncation=True: writes exactly max_length ids, and to `mask` (may be NULL)
 * 1 for tokens and 0 for padding. `chunk`: 0 for what fits of the text, else the tokens from chunk
 * * (max_length - 2) on, in a frame of their own. *count (may be NULL) is how many tokens the whole
 * text has, so that a caller can say what was cut off. `text` is UTF-8; bytes that are not are
 * replaced by U+FFFD. */
tessera_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, int max_length, int chunk, int32_t *ids, float *mask,
                                int *count, tessera_error *error);
const char *tokenizer_kind(const struct tokenizer *tokenizer);     /* "CLIP", "T5" or "BERT" */
int tokenizer_model_max_length(const struct tokenizer *tokenizer); /* of tokenizer_config.json; 0 if absent or senseless */

#endif
