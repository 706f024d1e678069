/* `tessera split`: blocks of a model as files for the workers that are to compute them, and the
 * signed list of these files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/find_model.h"
#include "cli/progress.h"
#include "split/factory.h"

enum split_option {
    SPLIT_MODEL,
    SPLIT_START,
    SPLIT_END,
    SPLIT_OUTPUT,
    SPLIT_LAST,
    SPLIT_PARTS,
    SPLIT_KEY,
    SPLIT_CLIENT,
    SPLIT_OPTION_COUNT
};
enum { MOST_BLOCKS = 65535 };

/* What Python programs and people write. */
static const struct option_synonym boolean_synonyms[] = {
    {"True", "true"},   {"TRUE", "true"}, {"yes", "true"}, {"Yes", "true"}, {"1", "true"},    {"on", "true"}, {"False", "false"},
    {"FALSE", "false"}, {"no", "false"},  {"No", "false"}, {"0", "false"},  {"off", "false"}, {NULL, NULL}};

static const struct option split_options[SPLIT_OPTION_COUNT] = {
    [SPLIT_MODEL] = {.name = "model",
                     .aliases = {"model-id"},
                     .type = OPTION_TEXT,
                     .placeholder = "MODEL",
                     .help = "folder in diffusers' layout, a denoiser's folder, or OWNER/NAME on the hub",
                     .opens = true},
    [SPLIT_START] = {.name = "split-start",
                     .type = OPTION_INTEGER,
                     .placeholder = "BLOCK",
                     .help = "first block to split off, counted from 0 (default: 1)",
                     .low = 0,
                     .high = MOST_BLOCKS},
    [SPLIT_END] = {.name = "split-end",
                   .type = OPTION_INTEGER,
                   .placeholder = "BLOCK",
                   .help = "last block to split off (default: the last but one; with --has-last-block the last)",
                   .low = 0,
                   .high = MOST_BLOCKS},
    [SPLIT_OUTPUT] = {.name = "output-file",
                      .letter = 'o',
                      .aliases = {"output"},
                      .type = OPTION_TEXT,
                      .placeholder = "FILE.safetensors",
                      .help = "what to write; of several parts FILE-1-of-3.safetensors and so on"},
    [SPLIT_LAST] = {.name = "has-last-block",
                    .type = OPTION_CHOICE,
                    .placeholder = "true|false",
                    .help = "the final norm and projection go with the last block; true needs it in the split",
                    .synonyms = boolean_synonyms},
    [SPLIT_PARTS] = {.name = "parts",
                     .type = OPTION_INTEGER,
                     .placeholder = "K",
                     .help = "as many parts, of as equal sizes as whole blocks allow (default: 1)",
                     .low = 1,
                     .high = MANIFEST_MOST_PARTS},
    [SPLIT_KEY] = {.name = "key",
                   .type = OPTION_TEXT,
                   .placeholder = "IDENTITY.pem",
                   .help = "sign FILE.manifest.json, the list of the parts and their digests, with this key"},
    [SPLIT_CLIENT] = {.name = "client-folder",
                      .type = OPTION_TEXT,
                      .placeholder = "FOLDER",
                      .help = "also write the model without the weights of the parts, for a client that need not have them"},
};

static void print_blocks(const struct part_file *part) {
    const struct denoiser *d = part->component.denoiser;
    for (int i = part->header.range.first; i < part->header.range.end; i++) {
        struct denoiser_block_info info;
        d->class->describe(d, i, &info);
        printf("  %d %s\n", i, info.name);
    }
}

/* `user`: the option values. */
static void report(void *user, const char *path, const struct part_file *part) {
    char digest[2 * CANONICAL_HASH_BYTES + 1];
    identity_hex(part->header.digest, sizeof part->header.digest, digest);
    printf("%s: blocks %d to %d%s, %.2f GB, sha256 %s\n", path, part->header.range.first, part->header.range.end - 1,
           part->header.range.finish ? " and the last layers" : "", (double)part->bytes / 1e9, digest);
    if (command_common(&split_command, user, COMMON_VERBOSE)) print_blocks(part);
    fflush(stdout);
}

static bool is_stopped(void *user) {
    (void)user;
    return progress_signal() != 0;
}

/* What others may know of where the model comes from: a name on the hub, or the last part of a path. */
static const char *public_name(const char *model) {
    const char *slash = strrchr(model, '/');
    return tessera_model_is_on_hub(model) || slash == NULL || slash[1] == 0 ? model : slash + 1;
}

static tessera_status split(const struct option_value *values, const char *folder, const struct identity *owner, tessera_error *error) {
    const struct factory_options options = {
        .model = public_name(values[SPLIT_MODEL].text),
        .folder = folder,
        .first = values[SPLIT_START].given ? values[SPLIT_START].integer : -1,
        .last = values[SPLIT_END].given ? values[SPLIT_END].integer : -1,
        .has_last_block = values[SPLIT_LAST].given && strcmp(values[SPLIT_LAST].text, "true") == 0,
        .parts = values[SPLIT_PARTS].given ? values[SPLIT_PARTS].integer : 1,
        .output = values[SPLIT_OUTPUT].text,
        .owner = owner,
        .client_folder = values[SPLIT_CLIENT].text,
        .report = report,
        .stop = is_stopped,
        .user = (void *)(uintptr_t)values,
    };
    return factory_split(&options, error);
}

static void say_signed(const struct option_value *values, const struct identity *owner) {
    char pin[IDENTITY_PIN_CHARS];
    char *path = factory_manifest_path(values[SPLIT_OUTPUT].text);
    identity_pin(identity_public(owner), pin);
    printf("%s: signed by %s\n", path != NULL ? path : "manifest", pin);
    free(path);
}

static int run_split(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct identity *owner = NULL;
    char *folder = NULL;
    bool quiet = command_common(&split_command, values, COMMON_QUIET);
    (void)path;
    if (!values[SPLIT_MODEL].given || !values[SPLIT_OUTPUT].given) {
        error_set(&error, TESSERA_ERROR_ARGUMENT,
                  "split needs a model and a file to write: tessera split --model MODEL --output-file FILE.safetensors");
        return command_fail(&error, true);
    }
    progress_catch_signals();
    tessera_status status = values[SPLIT_KEY].given ? identity_open(values[SPLIT_KEY].text, &owner, &error) : TESSERA_OK;
    if (status == TESSERA_OK) status = find_model(values[SPLIT_MODEL].text, NULL, quiet, &folder, &error);
    if (status == TESSERA_OK) status = split(values, folder, owner, &error);
    if (status == TESSERA_OK && owner != NULL) say_signed(values, owner);
    if (status == TESSERA_OK && values[SPLIT_CLIENT].given) printf("%s: the model without these blocks\n", values[SPLIT_CLIENT].text);
    if (status == TESSERA_OK && owner == NULL && !quiet)
        fputs("tessera: note: no manifest was written, without which workers and clients cannot tell whose parts these are: sign one with "
              "--key "
              "(tessera worker --make-identity makes a key)\n",
              stderr);
    free(folder);
    identity_free(owner);
    if (status == TESSERA_ERROR_CANCELLED) return command_stopped(true, "the parts that are listed above are complete");
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, status == TESSERA_ERROR_ARGUMENT);
}

const struct command split_command = {
    .name = "split",
    .usage = "split --model MODEL --output-file FILE.safetensors [OPTIONS]",
    .summary = "cut blocks out of a model for workers to compute",
    .details =
        "Each part is a safetensors file of some blocks, which `tessera worker` serves; the client keeps the text encoders, embeddings, "
        "the blocks\n"
        "before and behind, the sampler and the autoencoder. Blocks are those of the denoiser, in order, counted from 0; a U-Net's are "
        "its\n"
        "resnets, on the way down and up (docs/strangers.md). Splitting a model hides nothing of prompts and pictures from its workers.\n",
    .examples =
        "  tessera split --model stabilityai/stable-diffusion-3-medium-diffusers --split-start 1 --split-end 22 -o sd3.safetensors\n"
        "  tessera split --model FLUX.1-dev --parts 3 --has-last-block True --key me.pem -o flux.safetensors\n",
    .options = split_options,
    .option_count = SPLIT_OPTION_COUNT,
    .run = run_split,
};
