/* See find_model.h. */
#include "cli/find_model.h"

#include <string.h>

#include "cli/bar.h"
#include "cli/progress.h"

bool find_model_report(void *user, const char *file, uint64_t done, uint64_t total) {
    struct bar *bar = user;
    if (progress_signal() != 0) return false;
    if (file[0] == 0 || total == 0) return true;
    if (strncmp(bar->what, file, sizeof bar->what - 1) != 0 || (double)done < bar->first) bar_next(bar, file, (double)done);
    bar_show(bar, (double)done, (double)total);
    return true;
}

tessera_status find_model(const char *model, const char *variant, bool quiet, char **folder, tessera_error *error) {
    struct bar bar = bar_start("", BAR_BYTES, quiet);
    tessera_status status = tessera_model_find(model, variant, find_model_report, &bar, folder, error);
    bar_clear(&bar);
    return status;
}
