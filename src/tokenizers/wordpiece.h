/* BERT's WordPiece (Devlin et al. 2018), as transformers' BertTokenizer computes it.
 *
 * text -> clean, Chinese characters apart, lower case without accents -> words and punctuation -> longest pieces first */
#ifndef TESSERA_TOKENIZERS_WORDPIECE_H
#define TESSERA_TOKENIZERS_WORDPIECE_H

#include "base/error.h"
#include "tokenizers/text.h"

struct wordpiece {
    struct vocab vocab; /* pieces; those inside a word begin with "##" */
    struct added_tokens added;
    bool lower_case;
    int32_t cls, sep, unk, pad;
};

/* Reads vocab.txt: one piece a line, ids from 0. `wordpiece` must be zeroed; clear it in any case. */
tessera_status wordpiece_read_vocab(struct wordpiece *wordpiece, const char *text, size_t length, tessera_error *error);
/* Looks up the special tokens (bos: [CLS], eos: [SEP]); `name` is the file that errors speak of. */
tessera_status wordpiece_finish(struct wordpiece *wordpiece, const char *name, const struct special_tokens *specials, tessera_error *error);
/* Appends the ids of `text` (valid UTF-8) without [CLS] and [SEP]. */
tessera_status wordpiece_encode(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids,
                                tessera_error *error);
void wordpiece_clear(struct wordpiece *wordpiece);

#endif
