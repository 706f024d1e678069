/* Small types against the references' values, bit for bit, and against blocks worked out by hand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tensor/dequantize.h"
#include "tensor/safetensors.h"

static const enum dtype small[] = {DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                                   DTYPE_Q5_1,    DTYPE_Q2_K,    DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};
enum { SMALL = sizeof small / sizeof *small };

/* Equal bits, or two NaN. */
static int differing(const float *a, const float *b, int64_t count) {
    int wrong = 0;
    for (int64_t i = 0; i < count; i++) wrong += isnan(a[i]) ? !isnan(b[i]) : memcmp(&a[i], &b[i], sizeof *a) != 0;
    return wrong;
}

static void test_references(const char *path) {
    struct safetensors *file = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    for (int i = 0; i < SMALL; i++) {
        char name[32];
        float got[512];
        snprintf(name, sizeof name, "%s.bytes", dtype_name(small[i]));
        struct tensor bytes = safetensors_tensor(file, name);
        snprintf(name, sizeof name, "%s.values", dtype_name(small[i]));
        struct tensor want = safetensors_tensor(file, name);
        int64_t count = tensor_count(&want);
        CHECK(bytes.data != NULL && want.data != NULL && count <= 512, "%s: its reference", name);
        if (bytes.data == NULL || want.data == NULL || count > 512) continue;
        CHECK(dtype_bytes(small[i], count) == tensor_bytes(&bytes), "%s: %d bytes a block", name,
              (int)dtype_bytes(small[i], dtype_block(small[i])));
        dequantize(got, bytes.data, small[i], (size_t)count);
        CHECK(differing(got, want.data, count) == 0, "%s: %d of %d values differ", name, differing(got, want.data, count), (int)count);
        uint16_t direct[512], through[512];
        dtype_convert(direct, DTYPE_BF16, bytes.data, small[i], (size_t)count);
        dtype_convert(through, DTYPE_BF16, got, DTYPE_F32, (size_t)count);
        CHECK(memcmp(direct, through, (size_t)count * sizeof *direct) == 0, "%s as bfloat16", name);
    }
    safetensors_close(file);
}

/* d = 0.5, q = 0, 1, 2, ...; in the four-bit formats number i has q = i % 16. */
static void test_by_hand(void) {
    uint8_t q8[34] = {0x00, 0x38}, q4[18] = {0x00, 0x38}, q41[20] = {0x00, 0x38, 0x00, 0x3c}, q51[24] = {0x00, 0x38, 0x00, 0x3c};
    float x[32];
    for (int i = 0; i < 32; i++) q8[2 + i] = (uint8_t)(i - 16);
    for (int i = 0; i < 16; i++) q4[2 + i] = q41[4 + i] = q51[8 + i] = (uint8_t)(i | (15 - i) << 4);
    memset(q51 + 4, 0xff, 2); /* the fifth bits of numbers 0 to 15 */
    dequantize(x, q8, DTYPE_Q8_0, 32);
    CHECK(x[0] == -8.0f && x[16] == 0.0f && x[31] == 7.5f, "Q8_0: %g %g %g", x[0], x[16], x[31]);
    dequantize(x, q4, DTYPE_Q4_0, 32);
    CHECK(x[0] == -4.0f && x[15] == 3.5f && x[16] == 3.5f && x[31] == -4.0f, "Q4_0: %g %g %g", x[0], x[15], x[16]);
    dequantize(x, q41, DTYPE_Q4_1, 32);
    CHECK(x[0] == 1.0f && x[15] == 8.5f && x[16] == 8.5f && x[31] == 1.0f, "Q4_1: %g %g %g", x[0], x[15], x[16]);
    dequantize(x, q51, DTYPE_Q5_1, 32);
    CHECK(x[0] == 9.0f && x[15] == 16.5f && x[16] == 8.5f && x[31] == 1.0f, "Q5_1: %g %g %g", x[0], x[15], x[16]);
}

static void test_table(void) {
    CHECK(dtype_block(DTYPE_Q6_K) == 256 && dtype_bytes(DTYPE_Q6_K, 512) == 420 && dtype_block(DTYPE_F32) == 1, "blocks");
    CHECK(dtype_alignment(DTYPE_Q4_0) == 1 && dtype_alignment(DTYPE_F64) == 8, "alignment");
    for (int d = 0; d < DTYPE_UNKNOWN; d++) {
        enum dtype found = DTYPE_UNKNOWN;
        CHECK(dtype_from_name(dtype_name((enum dtype)d), &found) && found == (enum dtype)d, "%s by name", dtype_name((enum dtype)d));
    }
    enum dtype found;
    CHECK(!dtype_from_name("unknown", &found), "no file has the type unknown");
    struct tensor t = tensor_of(NULL, DTYPE_Q4_K, SHAPE(3, 512));
    CHECK(tensor_bytes(&t) == 3 * 2 * 144, "%zu bytes", tensor_bytes(&t));
    enum dtype dtype;
    tessera_error error = {0};
    CHECK(dtype_of_activations((tessera_dtype)7, &dtype, &error) == TESSERA_ERROR_ARGUMENT, "a type of activations that there is not");
}

int main(void) {
    test_references("tests/tensor/small_weights.safetensors");
    test_by_hand();
    test_table();
    return CHECK_REPORT();
}
