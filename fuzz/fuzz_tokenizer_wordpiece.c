/* Fuzz target: vocab.txt of a BERT tokenizer, with and without lower case (the first byte says
 * which). */
#include "tokenizer_texts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct wordpiece bert = {0};
    if (size == 0) return 0;
    if (wordpiece_read_vocab(&bert, (const char *)data + 1, size - 1, NULL) == TESSERA_OK) {
        bert.rules = (struct wordpiece_rules){data[0] & 1, data[0] & 2, data[0] & 4, data[0] & 8};
        encode_bert(&bert);
    }
    wordpiece_clear(&bert);
    return 0;
}
