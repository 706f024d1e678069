/* Receipts from strangers: refused with the file's name, or judged; nobody but the signers of the
 * kept corpus is ever convicted. */
#include <stdlib.h>
#include <string.h>

#include "split/receipt.h"

/* The part that the corpus's receipts are of. */
static struct split_part *judge_part(void) {
    static struct split_part *part;
    const struct split_range range = {1, 3, false};
    const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1};
    tessera_error error = {0};
    if (part == NULL && split_part_open_model("tests/cases/sd3/model", &range, &options, &part, &error) != TESSERA_OK) abort();
    return part;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct receipt r;
    tessera_error error = {0};
    enum receipt_verdict verdict;
    char *text = malloc(size + 1); /* of its own, so that a read beyond the end is seen */
    if (text == NULL) return 0;
    memcpy(text, data, size);
    tessera_status status = receipt_parse("fuzzed", text, size, &r, &error);
    if (status != TESSERA_OK && strstr(error.message, "fuzzed") == NULL) abort();
    if (status == TESSERA_OK) receipt_judge(&r, judge_part(), &verdict, &error);
    receipt_free(&r);
    free(text);
    return 0;
}
