/* What a worker says it is (GET /v1/part): refused, or all fields are within their bounds, and
 * written again they say the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "split/worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct worker_description read, again;
    tessera_error error = {0};
    if (worker_description_parse("worker", (const char *)data, size, &read, &error) != TESSERA_OK) {
        if (error.message[0] == 0) abort();
        return 0;
    }
    char *text = worker_description_text(&read);
    if (text == NULL) return 0;
    if (worker_description_parse("worker", text, strlen(text), &again, &error) != TESSERA_OK || again.range.end <= again.range.first ||
        strcmp(read.specification, again.specification) != 0 || memcmp(read.digest, again.digest, sizeof read.digest) != 0)
        abort();
    free(text);
    return 0;
}
