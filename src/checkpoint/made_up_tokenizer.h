/* A unigram tokenizer of any size with a made-up vocabulary, for models whose own cannot be copied
 * (mT5). */
#ifndef TESSERA_CHECKPOINT_MADE_UP_TOKENIZER_H
#define TESSERA_CHECKPOINT_MADE_UP_TOKENIZER_H

#include "base/error.h"

/* Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json of a T5 tokenizer with
 * `vocab_size` pieces (at least 200) into `folder`, which exists. Every printable ASCII text can be
 * told apart; anything else becomes <unk>. */
tessera_status made_up_tokenizer_write(const char *folder, int64_t vocab_size, tessera_error *error);

#endif
