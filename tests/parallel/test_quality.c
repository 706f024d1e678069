/* What patches of a picture that know the others one step late lose: PSNR of eight pictures of the
 * embedded model to the exact ones, mean and lowest, against a simulation of the same rule with
 * diffusers' model (models/emoji/README.md has its figures). Stages change nothing
 * (test_pipeline_pictures.c), so one process is enough.
 *
 * A rule that were kept only nearly (all patches of the step before; the text's keys and values one
 * step late) moves the figures by more than what is allowed here, TOLERANCE dB; so does a picture
 * that is exact. */
#include <math.h>

#include "check.h"
#include "quality.h"

#define TOLERANCE 0.3

static const char model[] = "models/emoji";

static const struct figure {
    int patches, warmup;
    double mean, lowest;
} figures[] = {{2, 1, 47.0, 43.9}, {4, 1, 44.0, 39.5}, {8, 1, 42.0, 38.3}, {2, 4, 47.0, 43.5}, {4, 4, 44.0, 39.8}, {8, 4, 42.0, 38.5}};

static void check_figure(const struct quality_pictures *exact, const struct figure *figure) {
    struct quality_way way = {.mesh = {.num_pipeline_patch = figure->patches, .warmup_steps = figure->warmup}};
    struct quality_pictures pictures;
    tessera_error error = {0};
    double sum = 0, lowest = QUALITY_EQUAL;
    tessera_status status = quality_make(model, &way, QUALITY_PICTURES, &pictures, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < QUALITY_PICTURES && status == TESSERA_OK; i++) {
        double db = quality_decibel(exact, &pictures, i);
        sum += db;
        lowest = fmin(lowest, db);
    }
    double mean = sum / QUALITY_PICTURES;
    printf("  P %d, warm-up %d: mean %.2f, lowest %.2f dB\n", figure->patches, figure->warmup, mean, lowest);
    CHECK(fabs(mean - figure->mean) <= TOLERANCE, "P %d, warm-up %d: mean %.2f dB, not %.1f", figure->patches, figure->warmup, mean,
          figure->mean);
    CHECK(fabs(lowest - figure->lowest) <= TOLERANCE, "P %d, warm-up %d: lowest %.2f dB, not %.1f", figure->patches, figure->warmup, lowest,
          figure->lowest);
    quality_free(&pictures);
}

int main(void) {
    struct quality_pictures exact;
    tessera_error error = {0};
    tessera_status status = quality_make(model, &(struct quality_way){0}, QUALITY_PICTURES, &exact, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; i < sizeof figures / sizeof *figures && status == TESSERA_OK; i++) check_figure(&exact, &figures[i]);
    quality_free(&exact);
    return CHECK_REPORT();
}
