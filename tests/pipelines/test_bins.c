/* Bins of PixArt and HunyuanDiT, and the way back from a bin to the size that was asked for. */
#include "check.h"
#include "pipelines/bins.h"

static void expect_pixart(int64_t sample_size, int width, int height, int bin_width, int bin_height) {
    int w = width, h = height;
    CHECK(bins_pixart(sample_size, &w, &h) && w == bin_width && h == bin_height, "%dx%d: %dx%d", width, height, w, h);
}

static void expect_hunyuandit(int width, int height, int bin_width, int bin_height) {
    int w = width, h = height;
    CHECK(bins_hunyuandit(0, &w, &h), "every model has bins");
    CHECK(w == bin_width && h == bin_height, "%dx%d: %dx%d", width, height, w, h);
}

/* The middle of a picture [4, 4] of column numbers; where the rest is odd, the smaller half is cut
 * off in front, as in diffusers. */
static void test_crop(void) {
    float x[4 * 4 * 3], out[4 * 3 * 3];
    for (int i = 0; i < 4 * 4 * 3; i++) x[i] = (float)(i / 3 % 4);
    bins_resize_and_crop(x, 4, 4, out, 4, 3);
    for (int i = 0; i < 4 * 3 * 3; i++) CHECK(out[i] == (float)(i / 3 % 3), "%d: %g", i, (double)out[i]);
    bins_resize_and_crop(x, 2, 2, out, 2, 4); /* twice as large, of [2, 2] the numbers 0, 1, 2, 3: rows and columns 0, 1/4, 3/4, 1 */
    const float want[] = {0.5f, 0.75f, 1.25f, 1.5f, 1.5f, 1.75f, 2.25f, 2.5f};
    for (int i = 0; i < 2 * 4 * 3; i++) CHECK(out[i] == want[i / 3], "%d: %g", i, (double)out[i]);
    for (int i = 0; i < 4 * 4 * 3; i++) x[i] = (float)(i / 12);
    bins_resize_and_crop(x, 4, 4, out, 3, 4);
    for (int i = 0; i < 3 * 4 * 3; i++) CHECK(out[i] == (float)(i / 12), "%d: %g", i, (double)out[i]);
}

int main(void) {
    int width = 512, height = 512;
    expect_pixart(128, 1024, 1024, 1024, 1024);
    expect_pixart(128, 1000, 700, 1216, 832);
    expect_pixart(64, 512, 2048, 256, 1024);
    expect_pixart(32, 2000, 2000, 256, 256);
    expect_pixart(256, 1000, 3620, 1024, 3712); /* ratios that the largest size alone has */
    CHECK(!bins_pixart(100, &width, &height), "no bins for a sample_size of 100");
    expect_hunyuandit(1024, 1024, 1024, 1024);
    expect_hunyuandit(1200, 1200, 1280, 1280);
    expect_hunyuandit(1000, 800, 1024, 768);
    expect_hunyuandit(1160, 860, 1152, 864);
    expect_hunyuandit(700, 1000, 768, 1024);
    expect_hunyuandit(870, 1150, 864, 1152);
    expect_hunyuandit(2000, 1000, 1280, 768);
    expect_hunyuandit(500, 1000, 768, 1280);
    test_crop();
    return CHECK_REPORT();
}
