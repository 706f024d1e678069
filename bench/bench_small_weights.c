/* What small weights cost and save: the embedded model's transformer in each type that `tessera
 * convert --type` writes, its bytes, how far its pictures are from those of the stored weights
 * (quality.h: PSNR in dB, mean and lowest of SMALL_PICTURES), and processor seconds a picture (all
 * threads together, opening the model included).
 *
 *     bench_small_weights [TYPE...]         without types: all of the table in docs/checkpoints.md
 *
 * Products are in float32; the stored weights are bfloat16, whose numbers float32 holds exactly. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "small_pictures.h"

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void print_row(const char *name, double mebibytes, double seconds, const struct small_figure *figure) {
    printf("%-8s %7.2f MiB  ", name, mebibytes);
    if (figure != NULL)
        printf("mean %6.2f  lowest %6.2f dB", figure->mean, figure->lowest);
    else
        printf("%30s", "");
    printf("  %6.2f s\n", seconds / SMALL_PICTURES);
    fflush(stdout);
}

static tessera_status measure(const char *type, const struct quality_pictures *exact, tessera_error *error) {
    struct quality_pictures pictures = {0};
    struct small_figure figure;
    struct stat about;
    char path[SMALL_PATH];
    tessera_status status = small_denoiser(SMALL_STORED, type, path, error);
    double start = seconds_now();
    if (status == TESSERA_OK) status = quality_make(SMALL_MODEL, &(struct quality_way){.transformer = path}, SMALL_PICTURES, &pictures, error);
    double seconds = seconds_now() - start;
    if (status == TESSERA_OK && stat(path, &about) == 0) {
        figure = small_figure_of(exact, &pictures);
        print_row(type, (double)about.st_size / (1 << 20), seconds, &figure);
    }
    quality_free(&pictures);
    unlink(path);
    return status;
}

int main(int argc, char **argv) {
    static char *const all[] = {"f16", "q8_0", "f8", "q5_1", "q5_0", "q4_1", "nf4", "q4_0"};
    char *const *types = argc > 1 ? argv + 1 : all;
    int count = argc > 1 ? argc - 1 : (int)(sizeof all / sizeof *all);
    struct quality_pictures exact;
    struct stat about;
    tessera_error error = {0};
    double start = seconds_now();
    tessera_status status = quality_make(SMALL_MODEL, &(struct quality_way){0}, SMALL_PICTURES, &exact, &error);
    if (status == TESSERA_OK && stat(SMALL_STORED, &about) == 0)
        print_row("stored", (double)about.st_size / (1 << 20), seconds_now() - start, NULL);
    for (int i = 0; i < count && status == TESSERA_OK; i++) status = measure(types[i], &exact, &error);
    quality_free(&exact);
    if (status != TESSERA_OK) fprintf(stderr, "bench_small_weights: %s\n", error.message);
    return status == TESSERA_OK ? 0 : 1;
}
