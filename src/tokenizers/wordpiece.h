/* BERT's WordPiece (Devlin et al. 2018), as transformers' BertTokenizer computes it.
 *
 * text -> clean, Chinese characters apart, without accents, lower case -> words and punctuation ->
 * longest pieces first
 *
 * A model is filled by one of the two readers, then wordpiece_finish adds the special tokens. All
 * strings may be hostile. */
#ifndef TESSERA_TOKENIZERS_WORDPIECE_H
#define TESSERA_TOKENIZERS_WORDPIECE_H

#include "base/error.h"
#include "tokenizers/text.h"

enum { WORDPIECE_MOST_PREFIX = 16, WORDPIECE_MOST_CHARACTERS = 400 };

/* How a text is cleaned: BertNormalizer's fields. */
struct wordpiece_rules {
    bool clean_text, chinese_characters, strip_accents, lower_case;
};

struct wordpiece {
    struct vocab vocab; /* pieces; those inside a word begin with the prefix */
    struct added_tokens added;
    struct wordpiece_rules rules;
    char prefix[WORDPIECE_MOST_PREFIX + 1]; /* "##" */
    int most_characters;                    /* a longer word is unknown */
    size_t longest;                         /* piece, bytes */
    int32_t cls, sep, unk, pad;
};

/* Reads vocab.txt: one piece a line, ids from 0. `wordpiece` must be zeroed; clear it in any case. */
tessera_status wordpiece_read_vocab(struct wordpiece *wordpiece, const char *text, size_t length, tessera_error *error);
/* Reads tokenizer.json (model.type WordPiece) instead, with the rules of its normalizer and its
 * added tokens. */
tessera_status wordpiece_read_json(struct wordpiece *wordpiece, const struct json *json, tessera_error *error);
/* The rules as tokenizer_config.json gives them (NULL: none), which go before a normalizer's:
 * do_lower_case, strip_accents and tokenize_chinese_chars. */
tessera_status wordpiece_read_rules(struct wordpiece *wordpiece, const struct json *config, tessera_error *error);
/* Looks up the special tokens (bos: [CLS], eos: [SEP]); `name` is the file that errors speak of. */
tessera_status wordpiece_finish(struct wordpiece *wordpiece, const char *name, const struct special_tokens *specials, tessera_error *error);
/* Appends the ids of `text` (valid UTF-8) without [CLS] and [SEP]. */
tessera_status wordpiece_encode(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids,
                                tessera_error *error);
void wordpiece_clear(struct wordpiece *wordpiece);

#endif
