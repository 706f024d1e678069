/* Fuzz target: tokenizer.json, read as a CLIP, a T5 and a BERT tokenizer. */
#include "tokenizer_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json *json = NULL;
    struct clip_bpe bpe = {0};
    struct t5_sentencepiece t5 = {0};
    struct wordpiece bert = {0};
    if (json_parse("tokenizer.json", (const char *)data, size, &json, NULL) != TESSERA_OK) return 0;
    if (clip_bpe_read_json(&bpe, json, NULL) == TESSERA_OK) encode_clip(&bpe);
    if (t5_sentencepiece_read_json(&t5, json, true, NULL) == TESSERA_OK) encode_t5(&t5);
    if (wordpiece_read_json(&bert, json, NULL) == TESSERA_OK) encode_bert(&bert);
    clip_bpe_clear(&bpe);
    t5_sentencepiece_clear(&t5);
    wordpiece_clear(&bert);
    json_free(json);
    return 0;
}
