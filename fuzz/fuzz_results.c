/* Tables of results: what is read has text and finite numbers. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "metrics/results.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct results results;
    tessera_error error = {0};
    char *text = malloc(size + 1);
    if (text == NULL) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    bool good = results_parse("fuzz.csv", text, &results, &error) == TESSERA_OK;
    for (int i = 0; i < results.count && good; i++) {
        const struct result *row = &results.rows[i];
        if (strlen(row->scheduler) + strlen(row->strategy) + strlen(row->sync_mode) + strlen(row->option) > size) abort();
        for (int m = 0; m < RESULT_METRICS; m++)
            if (!isfinite(row->metrics[m])) abort();
    }
    results_free(&results);
    return 0;
}
