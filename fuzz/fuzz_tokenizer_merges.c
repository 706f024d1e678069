/* Fuzz target: merges.txt of a CLIP tokenizer, over a small vocabulary. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char vocab[] = "{\"e\":0,\"a\":1,\"ae\":2,\"e</w>\":3,\"ae</w>\":4,\"aa\":5,\"i\":6,\"t</w>\":7,\"it</w>\":8}";
    struct json *json = NULL;
    struct clip_bpe bpe = {0};
    if (json_parse("vocab.json", vocab, strlen(vocab), &json, NULL) == TESSERA_OK && clip_bpe_read_vocab(&bpe, json, NULL) == TESSERA_OK &&
        clip_bpe_read_merges(&bpe, "merges.txt", (const char *)data, size, NULL) == TESSERA_OK)
        encode(&bpe);
    clip_bpe_clear(&bpe);
    if (json != NULL) json_free(json);
    return 0;
}
