/* Tables of results: columns in any order, and files that are none. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "metrics/results.h"

#define NAMES "scheduler,steps,width,height,patches,strategy,sync_mode,warmup,option,pictures,psnr_mean,psnr_lowest,ssim_mean,ssim_lowest"

static void test_good(void) {
    struct results r;
    tessera_error error = {0};
    char *text =
        strdup("extra," NAMES "\nx,DDIM,20,128,256,4,patch,stale_gn,0,,24,41.5,-3,0.99,0.5\nx,Euler,5,8,8,2,naive_patch,,,row,1,7,7,1,1");
    CHECK(results_parse("a.csv", text, &r, &error) == TESSERA_OK && r.count == 2, "%s", error.message);
    if (r.count == 2) {
        CHECK(strcmp(r.rows[0].sync_mode, "stale_gn") == 0 && r.rows[0].warmup == 0 && r.rows[0].height == 256, "first row");
        CHECK(r.rows[0].metrics[RESULT_PSNR_MEAN] == 41.5 && r.rows[0].metrics[RESULT_SSIM_LOWEST] == 0.5, "its figures");
        CHECK(r.rows[1].warmup == -1 && strcmp(r.rows[1].option, "row") == 0 && r.rows[1].pictures == 1, "second row");
    }
    results_free(&r);
}

static void test_bad(void) {
    static const struct {
        const char *text, *says;
    } files[] = {
        {"", "no column \"scheduler\""},
        {"scheduler,scheduler\n", "twice"},
        {NAMES "\n", "no results"},
        {NAMES "\nDDIM,20\n", "line 2: fewer fields"},
        {NAMES "\nD,20,1,1,1,p,,,,1,1,1,1,1,1\n", "line 2: more fields"},
        {NAMES "\nD,20,1,1,0,p,,,,1,1,1,1,1\n", "patches is \"0\""},
        {NAMES "\nD,20,1,1,1,p,,,,1,1,1,1,nan\n", "ssim_lowest is \"nan\""},
        {NAMES "\nD,2x,1,1,1,p,,,,1,1,1,1,1\n", "steps is \"2x\""},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct results r;
        tessera_error error = {0};
        CHECK(results_parse("a.csv", strdup(files[i].text), &r, &error) == TESSERA_ERROR_FORMAT &&
                  strstr(error.message, files[i].says) != NULL,
              "file %zu: %s", i, error.message);
        results_free(&r);
    }
}

int main(void) {
    test_good();
    test_bad();
    return CHECK_REPORT();
}
