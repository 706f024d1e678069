/* Captions of a data set: names stay in their folder, shares add up to the whole. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/captions.h"

static int count_of(const struct json *json, const struct captions_choice *choice) {
    struct captions captions;
    if (captions_of(json, choice, &captions, NULL) != TESSERA_OK) return 0;
    int count = captions.count;
    for (int i = 0; i < count; i++)
        if (captions.list[i].text == NULL || captions.list[i].file[0] == '.' || strchr(captions.list[i].file, '/') != NULL) abort();
    captions_free(&captions);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json *json = NULL;
    if (json_parse("captions", (const char *)data, size, &json, NULL) != TESSERA_OK) return 0;
    struct captions_choice all = {0}, val = {.split = "val", .rotate = true}, third = {.shares = 3};
    int sum = 0;
    for (; third.share < third.shares; third.share++) sum += count_of(json, &third);
    if (sum != count_of(json, &all)) abort();
    count_of(json, &val);
    json_free(json);
    return 0;
}
