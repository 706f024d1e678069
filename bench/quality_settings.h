/* The settings of `make quality`: every way of making the U-Net's pictures that is compared with
 * one process, and the line that the results file has of each.
 *
 * A setting is its key: the first KEY_COLUMNS columns of its line. What does not apply is empty.
 * Patches of 16 latent rows are 4 rows at least (the U-Net halves them twice), so 8 patches are
 * measured on pictures that are twice as high. A few ways are measured on still higher ones. */
#ifndef TESSERA_BENCH_QUALITY_SETTINGS_H
#define TESSERA_BENCH_QUALITY_SETTINGS_H

#include "quality.h"

#define QUALITY_MODEL "models/emoji-unet"
#define QUALITY_HEADER                                                                                                                     \
    "scheduler,steps,width,height,patches,strategy,sync_mode,warmup,option,pictures,psnr_mean,psnr_lowest,ssim_mean,ssim_lowest,psnr_"     \
    "each,"                                                                                                                                \
    "ssim_each"
enum { QUALITY_KEY = 160, QUALITY_LINE = 1024, QUALITY_SETTINGS_MOST = 512 };

struct quality_setting {
    const char *scheduler;
    int steps, width, height, ranks;
    const char *strategy;  /* "patch", "naive_patch", "ring", "pipefusion", "weights" */
    const char *sync_mode; /* of "patch"; "" of the others */
    int warmup;            /* of "patch"; -1 of the others */
    const char *option;    /* "published_group_norm"; a split scheme of "naive_patch"; a type of "weights" */
};

struct quality_figures {
    int pictures;
    double psnr[QUALITY_MOST], ssim[QUALITY_MOST];
};

/* The settings of a world of `ranks` ranks (1, 2, 4 or 8), the most telling first: how many there
 * are. */
int quality_settings(int ranks, struct quality_setting out[QUALITY_SETTINGS_MOST]);
/* Of the exact pictures that a setting is compared with: their scheduler, steps and size. */
struct quality_way quality_exact_way(const struct quality_setting *setting);
/* `transformer`: the file of a "weights" setting. */
struct quality_way quality_setting_way(const struct quality_setting *setting, tessera_world *world, const char *transformer);

/* "DDIMScheduler,20,128,128,4,patch,stale_gn,0,," */
void quality_setting_key(const struct quality_setting *setting, char key[QUALITY_KEY]);
tessera_status quality_compare(const struct quality_pictures *exact, const struct quality_pictures *made, int count,
                               struct quality_figures *out, tessera_error *error);
double quality_mean(const double *values, int count);
double quality_lowest(const double *values, int count);
/* The whole line, with its end. */
void quality_line(const struct quality_setting *setting, const struct quality_figures *figures, char line[QUALITY_LINE]);

#endif
