/* See psnr.h. */
#include "metrics/psnr.h"

#include <assert.h>
#include <math.h>

double psnr(const struct image *a, const struct image *b) {
    assert(a->width == b->width && a->height == b->height);
    double sum = 0;
    size_t values = image_values(a);
    for (size_t i = 0; i < values; i++) {
        double difference = (a->pixels[i] - b->pixels[i]) / 255.0;
        sum += difference * difference;
    }
    return -10 * log10(sum / (double)values);
}
