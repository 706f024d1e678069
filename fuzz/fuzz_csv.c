/* Tables of prompts: fields lie in the text, in order, and reading ends. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), *at = text;
    if (text == NULL) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    while (*at != 0) {
        char *before = at;
        bool last = false;
        const char *field = csv_field(&at, &last);
        if (field != before || field + strlen(field) > at || at <= before || at > text + size) abort();
    }
    free(text);
    return 0;
}
