/* Element conversions at every 16-bit value and at rounding's corners; names, sizes, shapes. */
#include <math.h>
#include <string.h>

#include "base/bf16.h"
#include "base/f16.h"
#include "check.h"
#include "tensor/tensor.h"

static void test_every_value(void) {
    int wrong_bf16 = 0, wrong_f16 = 0;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t x = (uint16_t)i;
        float b = bf16_widen(x), h = f16_widen(x);
        wrong_bf16 += isnan(b) ? !isnan(bf16_widen(bf16_round(b))) : bf16_round(b) != x;
        wrong_f16 += isnan(h) ? !isnan(f16_widen(f16_round(h))) : f16_round(h) != x;
        int exponent = (x >> 10) & 31;
        double fraction = x & 1023, value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        if (exponent != 31) wrong_f16 += h != (float)(x & 0x8000 ? -value : value);
    }
    CHECK(wrong_bf16 == 0 && wrong_f16 == 0, "%d and %d values do not come back", wrong_bf16, wrong_f16);
}

/* Halfway between two neighbours goes to the even one; a little more goes up. */
static void test_rounding(void) {
    int wrong = 0;
    for (uint32_t x = 0; x < 0x7bff; x++) {
        float low = f16_widen((uint16_t)x), high = f16_widen((uint16_t)(x + 1)), middle = (low + high) / 2;
        wrong += f16_round(middle) != (x & 1 ? x + 1 : x);
        wrong += f16_round(nextafterf(middle, INFINITY)) != x + 1 || f16_round(nextafterf(middle, 0)) != x;
    }
    CHECK(wrong == 0, "%d float16 roundings", wrong);
    wrong = 0;
    for (uint32_t x = 0x0080; x < 0x7f7f; x++) {
        float low = bf16_widen((uint16_t)x), high = bf16_widen((uint16_t)(x + 1)), middle = low + (high - low) / 2;
        wrong += bf16_round(middle) != (x & 1 ? x + 1 : x) || bf16_round(nextafterf(middle, INFINITY)) != x + 1;
    }
    CHECK(wrong == 0, "%d bfloat16 roundings", wrong);
    CHECK(f16_round(65519.0f) == 0x7bff && f16_round(65520.0f) == 0x7c00 && f16_round(1e30f) == 0x7c00, "float16 overflow");
    CHECK(f16_round(-INFINITY) == 0xfc00 && bf16_round(-INFINITY) == 0xff80 && f16_round(-0.0f) == 0x8000, "signs");
    CHECK(isnan(bf16_widen(bf16_round(NAN))) && isnan(f16_widen(f16_round(-NAN))), "NaN");
}

static void test_convert(void) {
    float in[1000], out[1000];
    uint16_t bf16[1000], f16[1000], again[1000];
    for (int i = 0; i < 1000; i++) in[i] = (float)(i - 500) / 8;
    dtype_convert(f16, DTYPE_F16, in, DTYPE_F32, 1000);
    dtype_convert(bf16, DTYPE_BF16, f16, DTYPE_F16, 1000);
    dtype_convert(again, DTYPE_BF16, in, DTYPE_F32, 1000);
    CHECK(memcmp(bf16, again, sizeof bf16) == 0, "by way of float16");
    dtype_convert(out, DTYPE_F32, f16, DTYPE_F16, 1000);
    CHECK(memcmp(in, out, sizeof in) == 0, "there and back");
}

static void test_shapes(void) {
    float data[24];
    char text[64], tiny[4];
    enum dtype dtype;
    struct tensor t = tensor_of(data, DTYPE_F32, SHAPE(2, 3, 4)), scalar = tensor_of(data, DTYPE_I64, 0, NULL);
    CHECK(tensor_count(&t) == 24 && tensor_bytes(&t) == 96 && tensor_count(&scalar) == 1 && tensor_bytes(&scalar) == 8, "sizes");
    struct tensor flat = tensor_reshape(t, SHAPE(6, 4));
    CHECK(flat.ndim == 2 && flat.shape[0] == 6 && flat.data == data, "reshape");
    CHECK(strcmp(tensor_shape_text(3, t.shape, text, sizeof text), "[2, 3, 4]") == 0, "%s", text);
    CHECK(strcmp(tensor_shape_text(0, NULL, text, sizeof text), "[]") == 0, "%s", text);
    CHECK(strlen(tensor_shape_text(3, t.shape, tiny, sizeof tiny)) == 3, "%s", tiny);
    for (int i = 0; i < DTYPE_UNKNOWN; i++)
        CHECK(dtype_from_name(dtype_name((enum dtype)i), &dtype) && (int)dtype == i, "%s", dtype_name((enum dtype)i));
    CHECK(!dtype_from_name("F9", &dtype), "an unknown name");
}

int main(void) {
    test_every_value();
    test_rounding();
    test_convert();
    test_shapes();
    return CHECK_REPORT();
}
