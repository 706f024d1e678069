/* `tessera download`: brings a model of the Hugging Face hub into the cache and prints its folder.
 *
 * Each file has its bar (bar.h). Ctrl-C stops at the next byte and keeps what has arrived. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "cli/bar.h"
#include "cli/command.h"
#include "cli/find_model.h"
#include "cli/progress.h"
#include "hub/hub.h"

/* Resolves with progress. */
static tessera_status resolve(const char *name, struct hub_options *options, bool quiet, char **folder, tessera_error *error) {
    struct bar bar = bar_start("", BAR_BYTES, quiet);
    options->progress = find_model_report;
    options->user = &bar;
    tessera_status status = hub_resolve(name, options, folder, error);
    bar_clear(&bar);
    return status;
}

/* ---- the command ---- */

enum download_option { DOWNLOAD_REVISION, DOWNLOAD_VARIANT, DOWNLOAD_CACHE_DIR, DOWNLOAD_OFFLINE, DOWNLOAD_OPTION_COUNT };

static const struct option download_options[DOWNLOAD_OPTION_COUNT] = {
    [DOWNLOAD_REVISION] = {.name = "revision",
                           .type = OPTION_TEXT,
                           .placeholder = "NAME",
                           .help = "branch, tag or commit (default: main); the same as OWNER/NAME@REVISION"},
    [DOWNLOAD_VARIANT] = {.name = "variant",
                          .type = OPTION_TEXT,
                          .placeholder = "NAME",
                          .help = "weight files of this variant, such as fp16, where there are such (default: those without, if any)"},
    [DOWNLOAD_CACHE_DIR] = {.name = "cache-dir",
                            .type = OPTION_TEXT,
                            .placeholder = "FOLDER",
                            .help = "the cache (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)"},
    [DOWNLOAD_OFFLINE] = {.name = "offline",
                          .aliases = {"local-files-only"},
                          .type = OPTION_FLAG,
                          .help = "only say where it lies; fail if it is not all there"},
};

static int run_download(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct hub_options options = {.cache = values[DOWNLOAD_CACHE_DIR].text, .offline = values[DOWNLOAD_OFFLINE].flag};
    options.variant = values[DOWNLOAD_VARIANT].text;
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
    tessera_status status = resolve(name, &options, command_common(&download_command, values, COMMON_QUIET), &folder, &error);
    if (status == TESSERA_OK) puts(folder);
    free(folder);
    free(name);
    if (status == TESSERA_OK) return EXIT_DONE;
    if (status == TESSERA_ERROR_CANCELLED) return command_stopped(true, "the next download goes on from there");
    return command_fail(&error, status == TESSERA_ERROR_ARGUMENT);
}

const struct command download_command = {
    .name = "download",
    .usage = "download OWNER/NAME[@REVISION] [OPTIONS]",
    .summary = "bring a model of the Hugging Face hub into the local cache and print its folder",
    .details = "The cache is that of huggingface_hub: what Python has downloaded is found, and the other way round. Only what the\n"
               "pipeline needs is taken (model_index.json and what it names; of weights one kind, safetensors first). A download that was "
               "cut goes on\n"
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
