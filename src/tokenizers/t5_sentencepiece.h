/* T5's sentencepiece tokenizer (unigram model, Kudo 2018), as transformers' T5Tokenizer computes it.
 *
 * text -> character map -> words "\u2581word" -> the most likely pieces of each word (the sentencepiece library)
 *
 * A model comes from spiece.model or from tokenizer.json alone. Both are read and checked here, and the library is given a
 * ModelProto that this file writes: it never sees foreign bytes. */
#ifndef TESSERA_TOKENIZERS_T5_SENTENCEPIECE_H
#define TESSERA_TOKENIZERS_T5_SENTENCEPIECE_H

#include "tokenizers/charsmap.h"
#include "tokenizers/sentencepiece_bridge.h"

struct t5_sentencepiece {
    struct vocab pieces;     /* piece to id */
    struct text_bytes proto; /* the ModelProto so far; empty once the library has it */
    struct charsmap charsmap;
    struct added_tokens added;
    struct sentencepiece_model *model;
    int32_t unk, eos, pad;
};

/* Reads spiece.model's bytes. `t5` must be zeroed; clear it in any case. */
tessera_status t5_sentencepiece_read_model(struct t5_sentencepiece *t5, const char *name, const uint8_t *data, size_t length,
                                           tessera_error *error);
/* Reads tokenizer.json (model.type Unigram). */
tessera_status t5_sentencepiece_read_json(struct t5_sentencepiece *t5, const struct json *json, tessera_error *error);
/* Looks up the special tokens, adds `extra_ids` tokens <extra_id_N> above the pieces, and hands the pieces to the library. */
tessera_status t5_sentencepiece_finish(struct t5_sentencepiece *t5, const char *name, const struct special_tokens *specials, int extra_ids,
                                       tessera_error *error);
/* Appends the ids of `text` (valid UTF-8) without eos. */
tessera_status t5_sentencepiece_encode(const struct t5_sentencepiece *t5, const char *text, size_t length, struct text_ids *ids,
                                       tessera_error *error);
void t5_sentencepiece_clear(struct t5_sentencepiece *t5);

#endif
