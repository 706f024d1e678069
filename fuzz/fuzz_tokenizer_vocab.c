/* Fuzz target: vocab.json of a CLIP tokenizer. */
#include "tokenizer_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json *json = NULL;
    struct clip_bpe bpe = {0};
    if (json_parse("vocab.json", (const char *)data, size, &json, NULL) == TESSERA_OK &&
        clip_bpe_read_vocab(&bpe, json, NULL) == TESSERA_OK)
        encode_clip(&bpe);
    clip_bpe_clear(&bpe);
    json_free(json);
    return 0;
}
