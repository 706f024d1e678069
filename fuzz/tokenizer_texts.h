/* What the tokenizer targets share: special tokens that small vocabularies have, and texts that
 * reach every kind of word. */
#ifndef TESSERA_FUZZ_TOKENIZER_TEXTS_H
#define TESSERA_FUZZ_TOKENIZER_TEXTS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tokenizers/clip_bpe.h"
#include "tokenizers/t5_sentencepiece.h"
#include "tokenizers/wordpiece.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void encode_clip(struct clip_bpe *bpe) {
    static const char text[] = "a e 12 it's <|endoftext|> \xC3\xA9!";
    struct special_token end = {"e", false};
    struct special_tokens specials = {end, end, end, end};
    struct text_ids ids = {0};
    if (clip_bpe_finish(bpe, "fuzz", &specials, NULL) == TESSERA_OK) clip_bpe_encode(bpe, text, strlen(text), &ids, NULL);
    free(ids.data);
}

/* A text with words, a special token and what a character map may change. */
static inline void encode_t5(struct t5_sentencepiece *t5) {
    static const char text[] = "a  e\xEF\xBC\xA1 </s> \xE2\x96\x81x e\xCC\x81";
    struct special_tokens specials = {{"", false}, {"</s>", false}, {"<unk>", false}, {"<pad>", false}};
    struct text_ids ids = {0};
    if (t5_sentencepiece_add_extra_ids(t5, 2, true, NULL) == TESSERA_OK &&
        t5_sentencepiece_finish(t5, "fuzz", &specials, NULL) == TESSERA_OK)
        t5_sentencepiece_encode(t5, text, strlen(text), &ids, NULL);
    free(ids.data);
}

/* Words, punctuation, accents, a Chinese character, a control character and a special token. */
static inline void encode_bert(struct wordpiece *bert) {
    static const char text[] = "a abc, \xC3\xA9\xC4\xB0 \xE4\xB8\x80\x01\xE2\x89\xA0 u[a] aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct special_token unknown = {"u", false};
    struct special_tokens specials = {unknown, unknown, unknown, unknown};
    struct text_ids ids = {0};
    if (wordpiece_finish(bert, "fuzz", &specials, NULL) == TESSERA_OK) wordpiece_encode(bert, text, strlen(text), &ids, NULL);
    free(ids.data);
}

#endif
