/* Manifests from strangers: refused with the file's name, or every field lies within its bounds. (A
 * mutated signature is refused, so that only the kept corpus gets further.) */
#include <stdlib.h>
#include <string.h>

#include "split/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct manifest m;
    tessera_error error = {0};
    char *text = malloc(size + 1); /* of its own, so that a read beyond the end is seen */
    if (text == NULL) return 0;
    memcpy(text, data, size);
    tessera_status status = manifest_parse("fuzzed", text, size, NULL, &m, &error);
    if (status != TESSERA_OK && strstr(error.message, "fuzzed") == NULL) abort();
    for (int i = 0; i < m.count && status == TESSERA_OK; i++)
        if (split_range_check(&m.parts[i].range, m.blocks, NULL) != TESSERA_OK || strchr(m.parts[i].file, '/') != NULL) abort();
    manifest_free(&m);
    free(text);
    return 0;
}
