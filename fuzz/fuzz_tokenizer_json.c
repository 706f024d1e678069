/* Fuzz target: tokenizer.json, read as a CLIP and as a T5 tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tokenizers/clip_bpe.h"
#include "tokenizers/t5_sentencepiece.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Encodes a text that reaches every kind of word. */
static void encode(struct clip_bpe *bpe) {
    static const char text[] = "a e 12 it's <|endoftext|> \xC3\xA9!";
    struct special_token end = {"e", false};
    struct special_tokens specials = {end, end, end, end};
    struct text_ids ids = {0};
    if (clip_bpe_finish(bpe, "fuzz", &specials, NULL) == TESSERA_OK) clip_bpe_encode(bpe, text, strlen(text), &ids, NULL);
    free(ids.data);
}

/* Encodes a text with words, a special token and what a character map may change. */
static void encode_t5(struct t5_sentencepiece *t5) {
    static const char text[] = "a  e\xEF\xBC\xA1 </s> \xE2\x96\x81x e\xCC\x81";
    struct special_tokens specials = {{"", false}, {"</s>", false}, {"<unk>", false}, {"<pad>", false}};
    struct text_ids ids = {0};
    if (t5_sentencepiece_finish(t5, "fuzz", &specials, 2, NULL) == TESSERA_OK) t5_sentencepiece_encode(t5, text, strlen(text), &ids, NULL);
    free(ids.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json *json = NULL;
    struct clip_bpe bpe = {0};
    struct t5_sentencepiece t5 = {0};
    if (json_parse("tokenizer.json", (const char *)data, size, &json, NULL) != TESSERA_OK) return 0;
    if (clip_bpe_read_json(&bpe, json, NULL) == TESSERA_OK) encode(&bpe);
    if (t5_sentencepiece_read_json(&t5, json, NULL) == TESSERA_OK) encode_t5(&t5);
    clip_bpe_clear(&bpe);
    t5_sentencepiece_clear(&t5);
    json_free(json);
    return 0;
}
