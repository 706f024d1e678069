/* Fuzz target: merges.txt of a CLIP tokenizer, over a small vocabulary. */
#include "tokenizer_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char vocab[] = "{\"e\":0,\"a\":1,\"ae\":2,\"e</w>\":3,\"ae</w>\":4,\"aa\":5,\"i\":6,\"t</w>\":7,\"it</w>\":8}";
    struct json *json = NULL;
    struct clip_bpe bpe = {0};
    if (json_parse("vocab.json", vocab, strlen(vocab), &json, NULL) == TESSERA_OK && clip_bpe_read_vocab(&bpe, json, NULL) == TESSERA_OK &&
        clip_bpe_read_merges(&bpe, "merges.txt", (const char *)data, size, NULL) == TESSERA_OK)
        encode_clip(&bpe);
    clip_bpe_clear(&bpe);
    json_free(json);
    return 0;
}
