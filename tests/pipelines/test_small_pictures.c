/* The embedded model with its transformer in Q8_0: 40 dB at least to its own pictures, and the
 * figures of the table in docs/checkpoints.md (bench/bench_small_weights.c makes it). A wrong
 * scale, a block in the place of another or a type that is not applied moves them by more than what
 * is allowed here. */
#include <math.h>
#include <unistd.h>

#include "check.h"
#include "small_pictures.h"

#define TOLERANCE 0.3 /* dB */
enum { LEAST_DECIBEL = 40 };

int main(void) {
    static const struct small_figure documented = {54.62, 50.94};
    struct quality_pictures exact = {0}, small = {0};
    tessera_error error = {0};
    char path[SMALL_PATH];
    CHECK(small_denoiser(SMALL_STORED, "q8_0", path, &error) == TESSERA_OK, "%s", error.message);
    bool made = quality_make(SMALL_MODEL, &(struct quality_way){0}, SMALL_PICTURES, &exact, &error) == TESSERA_OK &&
                quality_make(SMALL_MODEL, &(struct quality_way){.transformer = path}, SMALL_PICTURES, &small, &error) == TESSERA_OK;
    CHECK(made, "%s", error.message);
    if (made) {
        struct small_figure figure = small_figure_of(&exact, &small);
        printf("  q8_0: mean %.2f, lowest %.2f dB\n", figure.mean, figure.lowest);
        CHECK(figure.lowest >= LEAST_DECIBEL, "%.2f dB", figure.lowest);
        CHECK(fabs(figure.mean - documented.mean) <= TOLERANCE, "mean %.2f dB, not %.2f", figure.mean, documented.mean);
        CHECK(fabs(figure.lowest - documented.lowest) <= TOLERANCE, "lowest %.2f dB, not %.2f", figure.lowest, documented.lowest);
    }
    quality_free(&exact);
    quality_free(&small);
    unlink(path);
    return CHECK_REPORT();
}
