/* `tessera make-model`: a model folder of a published architecture with random weights. */
#include <stdlib.h>
#include "base/error.h"
#include "checkpoint/make_model.h"
#include "checkpoint/published.h"
#include "cli/bar.h"
#include "cli/command.h"
#include "cli/progress.h"

enum make_model_option { MAKE_MODEL_CLASS, MAKE_MODEL_SCALE, MAKE_MODEL_SEED, MAKE_MODEL_OPTION_COUNT };

static const struct option make_model_options[MAKE_MODEL_OPTION_COUNT] = {
    [MAKE_MODEL_CLASS] = {.name = "class", .type = OPTION_CHOICE, .placeholder = PUBLISHED_CHOICES, .help = "the published model"},
    [MAKE_MODEL_SCALE] = {.name = "scale",
                          .type = OPTION_CHOICE,
                          .placeholder = "full|tiny",
                          .help = "full (the default): as published; tiny: the same structure at small widths, a few MB"},
    [MAKE_MODEL_SEED] = {.name = "seed", .type = OPTION_SEED, .placeholder = "N", .help = "of the weights; the default is 0"},
};

/* make_model_options.progress */
static bool report(void *user, size_t done, size_t total) {
    if (progress_signal() != 0) return false;
    bar_show(user, (double)done, (double)total);
    return true;
}

static int run_make_model(const char *path, struct option_value *values) {
    tessera_error error = {0};
    if (path == NULL || !values[MAKE_MODEL_CLASS].given) {
        error_set(&error, TESSERA_ERROR_ARGUMENT, "make-model needs %s",
                  path == NULL ? "the folder to make" : "--class " PUBLISHED_CHOICES);
        return command_fail(&error, true);
    }
    struct bar bar = bar_start("weights", BAR_BYTES, command_common(&make_model_command, values, COMMON_QUIET));
    struct make_model_options options = {
        .class_name = values[MAKE_MODEL_CLASS].text,
        .folder = path,
        .tiny = values[MAKE_MODEL_SCALE].given && values[MAKE_MODEL_SCALE].text[0] == 't',
        .seed = values[MAKE_MODEL_SEED].seed,
        .progress = report,
        .user = &bar,
    };
    progress_catch_signals();
    tessera_status status = make_model(&options, &error);
    bar_clear(&bar);
    if (status == TESSERA_ERROR_CANCELLED) return command_stopped(true, "nothing was left behind");
    if (status != TESSERA_OK) return command_fail(&error, false);
    puts(path);
    return EXIT_DONE;
}

const struct command make_model_command = {
    .name = "make-model",
    .usage = "make-model --class NAME [--scale full|tiny] [--seed N] FOLDER",
    .summary = "make a published architecture's model folder with random weights",
    .details =
        "The folder has diffusers' layout and bfloat16 weights; it opens here and in diffusers, and makes pictures of noise. It appears\n"
        "when it is complete. The folder's path is printed.\n",
    .examples = "  tessera make-model --class sdxl --scale tiny --seed 1 tiny-sdxl\n"
                "  tessera make-model --class flux-dev --seed 0 /data/flux-random\n"
                "  tessera generate --model tiny-sdxl --prompt \"a lion\" -o noise.png\n",
    .options = make_model_options,
    .option_count = MAKE_MODEL_OPTION_COUNT,
    .run = run_make_model,
    .takes_path = true,
};
