/* CLIP's byte-level BPE (Radford et al. 2021; Sennrich et al. 2016), as transformers' CLIPTokenizer
 * computes it.
 *
 * text -> NFC, whitespace to one space, lower case -> words (regular expression) -> bytes as
 * printable letters -> merges
 *
 * A model is filled by one of the two readers, then clip_bpe_finish adds the special tokens. All
 * strings may be hostile. */
#ifndef TESSERA_TOKENIZERS_CLIP_BPE_H
#define TESSERA_TOKENIZERS_CLIP_BPE_H

#include "base/error.h"
#include "tokenizers/text.h"

struct clip_bpe {
    struct vocab vocab;     /* token to id */
    struct vocab merges;    /* a pair of ids (8 bytes) to its index in `merged`, which is also its rank */
    struct text_ids merged; /* the id that a merge makes */
    struct added_tokens added;
    bool splits_specials;     /* the word pattern names <|startoftext|> and <|endoftext|> (transformers 5) */
    int32_t byte_ids[2][256]; /* the id of a byte's letter inside a word and (1) at its end; -1 if absent */
    int32_t bos, eos, unk, pad;
};

/* Reads vocab.json and merges.txt. `bpe` must be zeroed; clear it in any case. */
tessera_status clip_bpe_read_vocab(struct clip_bpe *bpe, const struct json *vocab, tessera_error *error);
tessera_status clip_bpe_read_merges(struct clip_bpe *bpe, const char *name, const char *text, size_t length, tessera_error *error);
/* Reads tokenizer.json (model.type BPE) instead of the two. */
tessera_status clip_bpe_read_json(struct clip_bpe *bpe, const struct json *json, tessera_error *error);
/* Looks up the special tokens and makes them added tokens; `name` is the file that errors speak of. */
tessera_status clip_bpe_finish(struct clip_bpe *bpe, const char *name, const struct special_tokens *specials, tessera_error *error);
/* Appends the ids of `text` (valid UTF-8) without bos and eos. */
tessera_status clip_bpe_encode(const struct clip_bpe *bpe, const char *text, size_t length, struct text_ids *ids, tessera_error *error);
void clip_bpe_clear(struct clip_bpe *bpe);

#endif
