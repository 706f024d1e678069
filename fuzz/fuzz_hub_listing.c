/* The hub's list of files: whatever a server sends, no path of it may leave the snapshot, and the
 * choice must end. */
#include <stdlib.h>
#include <string.h>

#include "hub/hub_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char index_text[] =
        "{\"unet\": [\"diffusers\", \"UNet2DConditionModel\"], \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"]}";
    struct hub_listing listing = {0};
    struct json *index = NULL;
    if (json_parse("index", index_text, sizeof index_text - 1, &index, NULL) == TESSERA_OK &&
        hub_listing_parse("list", (const char *)data, size, &listing, NULL) == TESSERA_OK) {
        hub_listing_select(&listing, index, NULL, NULL);
        hub_listing_select(&listing, index, "fp16", NULL);
        for (int i = 0; i < listing.count; i++) {
            const char *path = listing.files[i].path;
            if (path[0] == '/' || strncmp(path, "../", 3) == 0 || strstr(path, "/../") != NULL) abort();
        }
    }
    hub_listing_free(&listing);
    json_free(index);
    return 0;
}
