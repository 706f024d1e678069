/* T5's sentencepiece tokenizer (unigram model, Kudo 2018), as transformers' T5Tokenizer computes it.
 *
 * text -> character map -> words "\u2581word" -> the most likely pieces of each word
 *
 * A model comes from spiece.model or from tokenizer.json alone. The search is our own: libraries
 * break ties between equally likely pieces differently by version, and transformers' ids are the
 * ones that models were trained with. */
#ifndef TESSERA_TOKENIZERS_T5_SENTENCEPIECE_H
#define TESSERA_TOKENIZERS_T5_SENTENCEPIECE_H

#include "tokenizers/charsmap.h"

/* Which words get the space symbol that the text does not have (Metaspace's prepend_scheme). */
enum t5_prepend { T5_PREPEND_ALWAYS, T5_PREPEND_FIRST, T5_PREPEND_NEVER };

struct t5_sentencepiece {
    struct vocab pieces;            /* piece to id */
    double *scores;                 /* [pieces] log probabilities; owned */
    size_t score_capacity, longest; /* bytes of the longest piece */
    double least_score;
    struct charsmap charsmap;
    struct added_tokens added;
    enum t5_prepend prepend;
    bool keeps_spaces; /* Metaspace alone: a space in the text is a space symbol; otherwise only `prepend` gives one */
    int32_t unk, eos, pad;
};

/* Reads spiece.model's bytes. `t5` must be zeroed; clear it in any case. */
tessera_status t5_sentencepiece_read_model(struct t5_sentencepiece *t5, const char *name, const uint8_t *data, size_t length,
                                           tessera_error *error);
/* Reads tokenizer.json (model.type Unigram); `rules`: its pre-tokenizer too, otherwise the class's
 * own is used. */
tessera_status t5_sentencepiece_read_json(struct t5_sentencepiece *t5, const struct json *json, bool rules, tessera_error *error);
/* Makes <extra_id_0> ... <extra_id_(count - 1)> added tokens: those that are no pieces get ids
 * above all, the last one first if `descending` (spiece.model), the first one first otherwise
 * (tokenizer.json). */
tessera_status t5_sentencepiece_add_extra_ids(struct t5_sentencepiece *t5, int count, bool descending, tessera_error *error);
/* Looks up the special tokens. */
tessera_status t5_sentencepiece_finish(struct t5_sentencepiece *t5, const char *name, const struct special_tokens *specials,
                                       tessera_error *error);
/* Appends the ids of `text` (valid UTF-8) without eos. */
tessera_status t5_sentencepiece_encode(const struct t5_sentencepiece *t5, const char *text, size_t length, struct text_ids *ids,
                                       tessera_error *error);
void t5_sentencepiece_clear(struct t5_sentencepiece *t5);

#endif
