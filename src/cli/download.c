/* `tessera download`: brings a model of the Hugging Face hub into the cache and prints its folder.
 *
 * On a terminal one line is redrawn (file, bar, megabytes, rate, time left); elsewhere each file that is whole writes a line. Ctrl-C
 * stops at the next byte and keeps what has arrived. */
#include "cli/download.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/progress.h"

#define BAR_WIDTH 24
#define REDRAW_SECONDS 0.1
#define MEGABYTE 1e6

void download_progress_init(struct download_progress *progress, bool quiet) {
    *progress = (struct download_progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1};
}

static void draw(struct download_progress *p, uint64_t done, uint64_t total, double now) {
    char bar[BAR_WIDTH + 1];
    int filled = total > 0 ? (int)(BAR_WIDTH * ((double)done / (double)total)) : 0;
    double rate = now > p->start ? (double)(done - p->start_bytes) / (now - p->start) : 0;
    for (int i = 0; i < BAR_WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K%.48s [%s] %.1f/%.1f MB", p->file, bar, (double)done / MEGABYTE, (double)total / MEGABYTE);
    if (rate > 0) fprintf(stderr, "  %.1f MB/s, %.0f s left", rate / MEGABYTE, (double)(total - done) / rate);
    fflush(stderr);
    p->line_open = true;
    p->drawn = now;
}

bool download_progress_report(void *user, const char *file, uint64_t done, uint64_t total) {
    struct download_progress *p = user;
    if (progress_signal() != 0) return false;
    if (p->quiet || file[0] == 0 || total == 0) return true;
    double now = clock_seconds();
    if (strncmp(p->file, file, sizeof p->file - 1) != 0 || done < p->start_bytes) {
        snprintf(p->file, sizeof p->file, "%s", file);
        p->start = now;
        p->start_bytes = done;
        p->drawn = 0;
    }
    if (p->terminal && now - p->drawn >= REDRAW_SECONDS) draw(p, done, total, now);
    if (!p->terminal && done == total && p->drawn == 0) {
        fprintf(stderr, "%s: %.1f MB\n", file, (double)total / MEGABYTE);
        p->drawn = now;
    }
    return true;
}

void download_progress_clear(struct download_progress *progress) {
    if (progress->line_open) fputs("\r\033[K", stderr);
    progress->line_open = false;
}

/* Resolves with progress. */
static tessera_status resolve(const char *name, struct hub_options *options, bool quiet, char **folder, tessera_error *error) {
    struct download_progress progress;
    download_progress_init(&progress, quiet);
    options->progress = download_progress_report;
    options->user = &progress;
    tessera_status status = hub_resolve(name, options, folder, error);
    download_progress_clear(&progress);
    return status;
}

tessera_status download_model(const char *model, bool quiet, char **folder, tessera_error *error) {
    struct hub_options options = {0};
    if (hub_is_name(model)) return resolve(model, &options, quiet, folder, error);
    *folder = strdup(model);
    return *folder != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

/* ---- the command ---- */

enum download_option { DOWNLOAD_REVISION, DOWNLOAD_CACHE_DIR, DOWNLOAD_OFFLINE, DOWNLOAD_QUIET, DOWNLOAD_OPTION_COUNT };

static const struct option download_options[DOWNLOAD_OPTION_COUNT] = {
    [DOWNLOAD_REVISION] = {.name = "revision",
                           .type = OPTION_TEXT,
                           .placeholder = "NAME",
                           .help = "branch, tag or commit (default: main); the same as OWNER/NAME@REVISION"},
    [DOWNLOAD_CACHE_DIR] = {.name = "cache-dir",
                            .type = OPTION_TEXT,
                            .placeholder = "FOLDER",
                            .help = "the cache (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)"},
    [DOWNLOAD_OFFLINE] = {.name = "offline",
                          .aliases = {"local-files-only"},
                          .type = OPTION_FLAG,
                          .help = "only say where it lies; fail if it is not all there"},
    [DOWNLOAD_QUIET] = {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, .help = "no progress on standard error"},
};

static int run_download(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct hub_options options = {.cache = values[DOWNLOAD_CACHE_DIR].text, .offline = values[DOWNLOAD_OFFLINE].flag};
    const char *revision = values[DOWNLOAD_REVISION].text;
    char *name = NULL, *folder = NULL;
    if (path == NULL || (revision != NULL && strchr(path, '@') != NULL)) {
        error_set(&error, TESSERA_ERROR_ARGUMENT,
                  path == NULL ? "download needs the name of a model, OWNER/NAME" : "the revision is given twice");
        return command_fail(&error, true);
    }
    if (asprintf(&name, "%s%s%s", path, revision != NULL ? "@" : "", revision != NULL ? revision : "") < 0) {
        error_set(&error, TESSERA_ERROR_MEMORY, "out of memory");
        return command_fail(&error, false);
    }
    progress_catch_signals();
    tessera_status status = resolve(name, &options, values[DOWNLOAD_QUIET].flag, &folder, &error);
    if (status == TESSERA_OK) puts(folder);
    free(folder);
    free(name);
    if (status == TESSERA_OK) return EXIT_DONE;
    command_fail(&error, false);
    if (status == TESSERA_ERROR_CANCELLED && progress_signal() != 0) return 128 + progress_signal();
    return status == TESSERA_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

const struct command download_command = {
    .name = "download",
    .usage = "download OWNER/NAME[@REVISION] [OPTIONS]",
    .summary = "bring a model of the Hugging Face hub into the local cache and print its folder",
    .details = "The cache is that of huggingface_hub: what Python has downloaded is found, and the other way round. Only what the\n"
               "pipeline needs is taken (model_index.json and what it names, safetensors weights). A download that was cut goes on\n"
               "where it ended, and every file is compared with the checksum that the hub names.\n"
               "Environment: HF_TOKEN for gated and private models, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE,\n"
               "HF_HUB_DOWNLOAD_TIMEOUT, SSL_CERT_FILE, https_proxy.\n",
    .examples = "  tessera download stabilityai/stable-diffusion-3.5-medium\n"
                "  HF_TOKEN=hf_... tessera download black-forest-labs/FLUX.1-dev --quiet\n"
                "  tessera download stabilityai/stable-diffusion-xl-base-1.0@main --cache-dir /srv/models\n"
                "  tessera inspect \"$(tessera download stabilityai/stable-diffusion-3.5-medium --offline)\"\n",
    .options = download_options,
    .option_count = DOWNLOAD_OPTION_COUNT,
    .run = run_download,
    .takes_path = true,
};
