/* Fuzz target: spiece.model of a T5 tokenizer. */
#include "tokenizer_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct t5_sentencepiece t5 = {0};
    if (t5_sentencepiece_read_model(&t5, "spiece.model", data, size, NULL) == TESSERA_OK) encode_t5(&t5);
    t5_sentencepiece_clear(&t5);
    return 0;
}
