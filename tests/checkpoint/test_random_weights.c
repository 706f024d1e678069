/* Random weights: any piece alone, by seed and name, with the promised deviation. */
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "check.h"
#include "checkpoint/random_weights.h"

/* Any piece of a tensor can be made alone, and depends on seed and name. */
static void test_random(void) {
    enum { COUNT = 3 << 16 };
    uint16_t *all = malloc(COUNT * sizeof *all), *other = malloc(COUNT * sizeof *other);
    struct safetensors_entry entry = {"a.weight", tensor_of(NULL, DTYPE_BF16, SHAPE(3 << 8, 1 << 8))};
    random_weights_fill(7, &entry, 0, COUNT, all);
    random_weights_fill(7, &entry, RANDOM_WEIGHTS_BLOCK, 100, other);
    CHECK(memcmp(all + RANDOM_WEIGHTS_BLOCK, other, 100 * sizeof *all) == 0, "a piece");
    CHECK(memcmp(all, all + RANDOM_WEIGHTS_BLOCK, 100 * sizeof *all) != 0, "blocks differ");
    random_weights_fill(8, &entry, 0, COUNT, other);
    CHECK(memcmp(all, other, COUNT * sizeof *all) != 0, "seed");
    double sum = 0, squares = 0, product = 0;
    for (int i = 0; i < COUNT; i++) {
        double x = bf16_widen(all[i]);
        sum += x;
        squares += x * x;
        product += x * bf16_widen(all[(i + 1) % COUNT]);
    }
    double variance = squares / COUNT;
    CHECK(sum / COUNT < 1e-3 && sum / COUNT > -1e-3, "mean %g", sum / COUNT);
    CHECK(variance * 256 > 0.98 && variance * 256 < 1.02, "variance is 1 / inputs, not %g", variance);
    CHECK(product / squares < 0.01 && product / squares > -0.01, "neighbours correlate: %g", product / squares);
    entry = (struct safetensors_entry){"norm.weight", tensor_of(NULL, DTYPE_BF16, SHAPE(4))};
    random_weights_fill(7, &entry, 0, 4, all);
    CHECK(bf16_widen(all[0]) == 1.0f && bf16_widen(all[3]) == 1.0f, "norms");
    free(all);
    free(other);
}

/* The same on every machine: three elements written down once. */
static void test_known(void) {
    struct safetensors_entry entry = {"unet.conv_in.weight", tensor_of(NULL, DTYPE_BF16, SHAPE(320, 4, 3, 3))};
    uint16_t out[3];
    random_weights_fill(1, &entry, 0, 3, out);
    CHECK(out[0] == 0xbe18 && out[1] == 0x3e1b && out[2] == 0x3d97, "%04x %04x %04x", out[0], out[1], out[2]);
}

int main(void) {
    test_random();
    test_known();
    return CHECK_REPORT();
}
