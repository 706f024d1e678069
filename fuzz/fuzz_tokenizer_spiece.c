/* Fuzz target: spiece.model of a T5 tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tokenizers/clip_bpe.h"
#include "tokenizers/t5_sentencepiece.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Encodes a text with words, a special token and what a character map may change. */
static void encode_t5(struct t5_sentencepiece *t5) {
    static const char text[] = "a  e\xEF\xBC\xA1 </s> \xE2\x96\x81x e\xCC\x81";
    struct special_tokens specials = {{"", false}, {"</s>", false}, {"<unk>", false}, {"<pad>", false}};
    struct text_ids ids = {0};
    if (t5_sentencepiece_finish(t5, "fuzz", &specials, 2, NULL) == TESSERA_OK) t5_sentencepiece_encode(t5, text, strlen(text), &ids, NULL);
    free(ids.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct t5_sentencepiece t5 = {0};
    if (t5_sentencepiece_read_model(&t5, "spiece.model", data, size, NULL) == TESSERA_OK) encode_t5(&t5);
    t5_sentencepiece_clear(&t5);
    return 0;
}
