/* Cells of docs/quality.md, made again: the pictures of three settings are compared with the line
 * that docs/quality.csv has of each, and the means of that line with the figures of its pictures.
 *
 *     mpirun -n 2 test_quality_cells PICTURES        the first PICTURES of each setting; the whole cells with 24
 *
 * Another processor or number of threads rounds another way: a picture that is 40 dB from the exact
 * one shows it by hundredths of a dB. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "quality_settings.h"

#define RESULTS "docs/quality.csv"
#define DB_TOLERANCE 0.3
#define SSIM_TOLERANCE 0.002

/* The figures of the results' line that begins with `key`: false if there is none. */
static bool read_line(const char *key, struct quality_figures *each, double means[4]) {
    char line[QUALITY_LINE], *at = NULL;
    FILE *file = fopen(RESULTS, "r");
    while (file != NULL && at == NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0) at = line + strlen(key);
    if (file != NULL) fclose(file);
    if (at == NULL) return false;
    each->pictures = (int)strtol(at, &at, 10);
    for (int i = 0; i < 4; i++) means[i] = strtod(at + 1, &at);
    if (each->pictures != QUALITY_MOST) return false;
    for (int i = 0; i < QUALITY_MOST; i++) each->psnr[i] = strtod(at + 1, &at);
    for (int i = 0; i < QUALITY_MOST; i++) each->ssim[i] = strtod(at + 1, &at);
    return *at == '\n';
}

static void check_means(const char *key, const struct quality_figures *each, const double means[4]) {
    const double again[4] = {quality_mean(each->psnr, QUALITY_MOST), quality_lowest(each->psnr, QUALITY_MOST),
                             quality_mean(each->ssim, QUALITY_MOST), quality_lowest(each->ssim, QUALITY_MOST)};
    for (int i = 0; i < 4; i++)
        CHECK(fabs(again[i] - means[i]) <= (i < 2 ? 0.011 : 0.00011), "%s figure %d is %g, its pictures say %g", key, i, means[i],
              again[i]);
}

static void check_setting(const struct quality_setting *setting, tessera_world *world, const struct quality_pictures *exact, int count) {
    struct quality_figures stored, made_figures;
    struct quality_pictures made;
    char key[QUALITY_KEY];
    double means[4];
    tessera_error error = {0};
    quality_setting_key(setting, key);
    struct quality_way way = quality_setting_way(setting, world, NULL);
    tessera_status status = quality_make(QUALITY_MODEL, &way, count, &made, &error);
    CHECK(status == TESSERA_OK, "%s: %s", key, error.message);
    if (status == TESSERA_OK && exact != NULL) {
        bool there = read_line(key, &stored, means);
        CHECK(there, "%s has no whole line %s", RESULTS, key);
        CHECK(quality_compare(exact, &made, count, &made_figures, &error) == TESSERA_OK, "%s", error.message);
        if (there) check_means(key, &stored, means);
        for (int i = 0; i < count && there; i++) {
            CHECK(fabs(made_figures.psnr[i] - stored.psnr[i]) <= DB_TOLERANCE, "%s picture %d: %.2f dB, the results say %.2f", key, i,
                  made_figures.psnr[i], stored.psnr[i]);
            CHECK(fabs(made_figures.ssim[i] - stored.ssim[i]) <= SSIM_TOLERANCE, "%s picture %d: SSIM %.4f, the results say %.4f", key, i,
                  made_figures.ssim[i], stored.ssim[i]);
        }
    }
    quality_free(&made);
}

int main(int argc, char **argv) {
    static const struct quality_setting settings[] = {
        {"DDIMScheduler", 20, 128, 128, 2, "patch", "corrected_async_gn", 4, ""},
        {"DDIMScheduler", 20, 128, 128, 2, "patch", "no_sync", 4, ""},
        {"DDIMScheduler", 20, 128, 128, 2, "patch", "stale_gn", 4, ""},
    };
    int count = argc > 1 ? atoi(argv[1]) : QUALITY_MOST;
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    CHECK(world != NULL && tessera_world_size(world) == 2 && count >= 1 && count <= QUALITY_MOST, "two ranks, 1 to %d pictures: %s",
          QUALITY_MOST, error.message);
    if (check_failed > 0) return CHECK_REPORT();
    bool leads = tessera_world_rank(world) == 0;
    struct quality_pictures exact = {0};
    struct quality_way way = quality_exact_way(&settings[0]);
    tessera_status status = leads ? quality_make(QUALITY_MODEL, &way, count, &exact, &error) : TESSERA_OK;
    CHECK(tessera_world_share(world, status, NULL, 0, &error) == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) check_setting(&settings[i], world, leads ? &exact : NULL, count);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    quality_free(&exact);
    tessera_world_free(world);
    return CHECK_REPORT();
}
