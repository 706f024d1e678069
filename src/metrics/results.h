/* A table of results: what settings lose, a line each, as `make quality` writes it and `tessera
 * report` reads it.
 *
 *     scheduler,steps,width,height,patches,strategy,sync_mode,warmup,option,pictures,psnr_mean,psnr_lowest,ssim_mean,ssim_lowest,...
 *     DDIMScheduler,20,128,128,4,patch,stale_gn,4,,24,41.02,37.70,0.9912,0.9841,...
 *
 * CSV (RFC 4180) under one line of names; the order of columns does not matter and those of other
 * names are skipped. sync_mode, warmup and option may be empty. */
#ifndef TESSERA_METRICS_RESULTS_H
#define TESSERA_METRICS_RESULTS_H

#include <stddef.h>

#include "base/error.h"

enum result_metric { RESULT_PSNR_MEAN, RESULT_PSNR_LOWEST, RESULT_SSIM_MEAN, RESULT_SSIM_LOWEST, RESULT_METRICS };

struct result {
    const char *scheduler, *strategy, *sync_mode, *option; /* in the text */
    int steps, width, height, patches, pictures;
    int warmup;                     /* -1: none is given */
    double metrics[RESULT_METRICS]; /* PSNR in dB */
};

struct results {
    char *text;
    struct result *rows; /* [count], in the order of the file */
    int count;
};

/* Takes `text` over, which ends with NUL, also in an error. FORMAT names `path`, the line and the
 * column. Free with results_free either way. */
tessera_status results_parse(const char *path, char *text, struct results *out, tessera_error *error);
void results_free(struct results *results);

#endif
