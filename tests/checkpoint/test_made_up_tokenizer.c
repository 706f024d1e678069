/* A made-up tokenizer opens, has the size asked for, and tells texts apart. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "check.h"
#include "checkpoint/made_up_tokenizer.h"
#include "tokenizers/tokenizer.h"

enum { SIZE = 5000, LENGTH = 24 };

static void check_text(const struct tokenizer *tokenizer, const char *text, int least, int most) {
    tessera_error error = {0};
    int32_t ids[LENGTH];
    int count = 0;
    CHECK(tokenizer_encode(tokenizer, text, LENGTH, 0, ids, NULL, &count, &error) == TESSERA_OK, "%s", error.message);
    CHECK(count >= least && count <= most, "\"%s\": %d tokens", text, count);
    for (int i = 0; i < count && i < LENGTH; i++) CHECK(ids[i] != 2 && ids[i] >= 0 && ids[i] < SIZE, "\"%s\": id %d", text, (int)ids[i]);
    CHECK(ids[LENGTH - 1] == 0 || count >= LENGTH, "padded");
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"};
    tessera_error error = {0};
    struct tokenizer *tokenizer = NULL;
    if (mkdtemp(folder) == NULL) return 1;
    CHECK(made_up_tokenizer_write(folder, 10, &error) == TESSERA_ERROR_FORMAT, "too small");
    CHECK(made_up_tokenizer_write(folder, SIZE, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tokenizer_open(folder, &tokenizer, &error) == TESSERA_OK, "%s", error.message);
    if (tokenizer != NULL) {
        check_text(tokenizer, "a cat on the mat", 6, 14);
        check_text(tokenizer, "\"quotes\\\" {~}", 6, 20);
        int32_t a[LENGTH], b[LENGTH];
        tokenizer_encode(tokenizer, "a red cat", LENGTH, 0, a, NULL, NULL, &error);
        tokenizer_encode(tokenizer, "a red car", LENGTH, 0, b, NULL, NULL, &error);
        CHECK(memcmp(a, b, sizeof a) != 0, "texts differ");
        CHECK(tokenizer_model_max_length(tokenizer) == 512, "length");
    }
    tokenizer_free(tokenizer);
    char *path = file_join(folder, files[0]);
    struct json *json = NULL;
    CHECK(json_open(path, 0, &json, &error) == TESSERA_OK, "%s", error.message);
    CHECK(cJSON_GetArraySize(json_find(json, "model.vocab")) == SIZE, "size");
    json_free(json);
    free(path);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path = file_join(folder, files[i]);
        unlink(path);
        free(path);
    }
    CHECK(rmdir(folder) == 0, "nothing else was written");
    return CHECK_REPORT();
}
