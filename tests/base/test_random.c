/* The noise generator against torch's numbers (tests/cases/rng_torch_cpu). The file is read by
 * hand: this room has no tensors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "check.h"

#define CASE "tests/cases/rng_torch_cpu/io.safetensors"

static void check_tensor(const char *name, const float *expected, size_t count) {
    unsigned long long seed = 0;
    bool twice = sscanf(name, "out.randn_twice.%llu", &seed) == 1;
    CHECK(twice || sscanf(name, "out.randn.%llu.", &seed) == 1, "%s", name);
    float *drawn = calloc(count, sizeof *drawn);
    struct random_generator generator;
    random_seed(&generator, seed);
    random_normal(&generator, drawn, twice ? count / 2 : count);
    if (twice) random_normal(&generator, drawn + count / 2, count - count / 2);
    double worst = 0;
    for (size_t i = 0; i < count; i++) worst = fmax(worst, fabs(drawn[i] - expected[i]) - 2e-6 * fabs(expected[i]));
    CHECK(worst <= 2e-6, "%s: off by %g", name, worst);
    free(drawn);
}

static void test_torch(void) {
    tessera_error error = {0};
    char *file;
    size_t length;
    struct json *header;
    CHECK(file_read(CASE, 1 << 20, &file, &length, &error) == TESSERA_OK, "%s", error.message);
    uint64_t header_length;
    memcpy(&header_length, file, 8);
    CHECK(json_parse(CASE, file + 8, header_length, &header, &error) == TESSERA_OK, "%s", error.message);
    int tensors = 0;
    for (const cJSON *item = json_root(header)->child; item != NULL; item = item->next, tensors++) {
        const cJSON *offsets = cJSON_GetObjectItem(item, "data_offsets");
        size_t begin = (size_t)offsets->child->valuedouble, end = (size_t)offsets->child->next->valuedouble;
        float *expected = malloc(end - begin);
        memcpy(expected, file + 8 + header_length + begin, end - begin);
        check_tensor(item->string, expected, (end - begin) / sizeof *expected);
        free(expected);
    }
    CHECK(tensors == 45, "%d tensors", tensors);
    json_free(header);
    free(file);
}

/* The 10,000th word of seed 5489, which the C++ standard names (26.5.5 of C++11), and the cached
 * value between short draws. */
static void test_words(void) {
    struct random_generator generator;
    random_seed(&generator, 5489);
    uint32_t word = 0;
    for (int i = 0; i < 10000; i++) word = random_word(&generator);
    CHECK(word == 4123659995u, "%u", word);
    float whole[3], parts[3];
    random_seed(&generator, 7);
    random_normal(&generator, whole, 3);
    random_seed(&generator, 7);
    for (int i = 0; i < 3; i++) random_normal(&generator, &parts[i], 1);
    CHECK(memcmp(whole, parts, sizeof whole) == 0, "%g %g", whole[1], parts[1]);
}

int main(void) {
    test_torch();
    test_words();
    return CHECK_REPORT();
}
