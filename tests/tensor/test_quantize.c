/* Writing small types: the bytes that llama.cpp's Python code and ml_dtypes make of the same
 * numbers, bit for bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tensor/dequantize.h"
#include "tensor/quantize.h"
#include "tensor/safetensors.h"

static void check_type(const struct safetensors *file, const char *from, enum dtype dtype) {
    struct tensor values = safetensors_tensor(file, from), want = safetensors_tensor(file, dtype_name(dtype));
    int64_t count = tensor_count(&values);
    CHECK(values.data != NULL && want.data != NULL && dtype_bytes(dtype, count) == tensor_bytes(&want), "%s: its reference", dtype_name(dtype));
    if (values.data == NULL || want.data == NULL) return;
    uint8_t *got = malloc(tensor_bytes(&want));
    dtype_convert(got, dtype, values.data, DTYPE_F32, (size_t)count);
    size_t block = dtype_bytes(dtype, dtype_block(dtype)), wrong = 0, first = 0;
    for (size_t i = tensor_bytes(&want); i-- > 0;)
        if (got[i] != ((uint8_t *)want.data)[i]) wrong++, first = i;
    CHECK(wrong == 0, "%s: %zu bytes differ, the first in block %zu", dtype_name(dtype), wrong, first / block);
    free(got);
}

/* nf4 has no reference here: each number goes to the nearest value, and the block's largest comes
 * back as it was. */
static void test_nf4(void) {
    float x[64], back[64];
    uint8_t bytes[36];
    for (int i = 0; i < 64; i++) x[i] = 0.37f * sinf((float)i) + (i == 5 ? 3.0f : 0.0f);
    quantize(bytes, DTYPE_NF4, x, 64);
    dequantize(back, bytes, DTYPE_NF4, 64);
    CHECK(back[5] == x[5], "the largest: %g", (double)back[5]);
    for (int i = 0; i < 64; i++)
        for (int q = 0; q < 16; q++) CHECK(fabsf(x[i] - back[i]) <= fabsf(x[i] - nf4_values[q] * x[5]) * 1.0001f, "number %d", i);
}

/* Through pieces of F32, and of types that blocks do not divide evenly. */
static void test_convert(void) {
    enum { COUNT = 4096 };
    static float x[COUNT], back[COUNT];
    static uint16_t half[COUNT];
    static uint8_t direct[COUNT * 34 / 32], through[COUNT * 34 / 32];
    for (int i = 0; i < COUNT; i++) x[i] = cosf((float)i) / 8;
    dtype_convert(half, DTYPE_BF16, x, DTYPE_F32, COUNT);
    dtype_convert(direct, DTYPE_Q8_0, half, DTYPE_BF16, COUNT);
    dtype_convert(back, DTYPE_F32, half, DTYPE_BF16, COUNT);
    dtype_convert(through, DTYPE_Q8_0, back, DTYPE_F32, COUNT);
    CHECK(memcmp(direct, through, sizeof direct) == 0, "BF16 to Q8_0");
    dtype_convert(through, DTYPE_Q8_0, direct, DTYPE_Q8_0, COUNT);
    CHECK(memcmp(direct, through, sizeof direct) == 0, "Q8_0 to itself");
    float tiny[32] = {1e-41f, -1e-42f}, zero[32];
    uint8_t block[34];
    quantize(block, DTYPE_Q8_0, tiny, 32);
    dequantize(zero, block, DTYPE_Q8_0, 32);
    CHECK(zero[0] == 0 && zero[1] == 0, "below every scale");
    CHECK(!dtype_is_written(DTYPE_Q4_K) && !dtype_is_written(DTYPE_I8) && dtype_is_written(DTYPE_BF16), "what is written");
}

int main(void) {
    static const enum dtype blocks[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1};
    struct safetensors *file = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open("tests/tensor/quantized.safetensors", &file, &error) == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; file != NULL && i < sizeof blocks / sizeof *blocks; i++) check_type(file, "values", blocks[i]);
    if (file != NULL) check_type(file, "eighths", DTYPE_F8_E4M3);
    test_nf4();
    test_convert();
    safetensors_close(file);
    return CHECK_REPORT();
}
