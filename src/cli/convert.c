/* `tessera convert`: a single-file checkpoint to a model folder, or a model folder to a single file. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/convert.h"
#include "cli/command.h"
#include "cli/progress.h"

enum convert_option { CONVERT_OUTPUT, CONVERT_CONFIG, CONVERT_OPTION_COUNT };

static const struct option convert_options[CONVERT_OPTION_COUNT] = {
    [CONVERT_OUTPUT] = {.name = "output",
                        .letter = 'o',
                        .type = OPTION_TEXT,
                        .placeholder = "PATH",
                        .help = "what to write; may stand after the input",
                        .positional = true},
    [CONVERT_CONFIG] = {.name = "config",
                        .type = OPTION_TEXT,
                        .placeholder = "FOLDER",
                        .help = "a model folder whose configs, tokenizers and scheduler to use for a single file"},
};

static tessera_status convert(const char *input, const struct option_value *values, struct convert_report *report, tessera_error *error) {
    const char *output = values[CONVERT_OUTPUT].text;
    if (input == NULL || output == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "convert needs an input and an output: tessera convert INPUT OUTPUT");
    if (!file_is_folder(input)) return convert_to_folder(input, values[CONVERT_CONFIG].text, output, report, error);
    size_t length = strlen(output);
    if (length < 13 || strcmp(output + length - 12, ".safetensors") != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: a model folder becomes a file: name it SOMETHING.safetensors", output);
    if (file_exists(output)) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: exists; name a new file", output);
    return convert_to_file(input, output, report, error);
}

static bool is_stopped(void) {
    return progress_signal() != 0;
}

static int run_convert(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct convert_report report = {.stop = is_stopped};
    progress_catch_signals();
    tessera_status status = convert(path, values, &report, &error);
    if (status == TESSERA_ERROR_CANCELLED) return command_stopped(true, "nothing was left behind");
    if (status != TESSERA_OK) return command_fail(&error, status == TESSERA_ERROR_ARGUMENT);
    printf("%s: %d tensors\n", values[CONVERT_OUTPUT].text, report.tensors);
    if (report.missing[0] != 0 && !command_common(&convert_command, values, COMMON_QUIET))
        fprintf(stderr,
                "tessera: note: %s holds no %s: the output is a model without; give them when it is used (--vae, --text-encoder, ...)\n",
                path, report.missing);
    return EXIT_DONE;
}

const struct command convert_command = {
    .name = "convert",
    .usage = "convert INPUT OUTPUT [--config FOLDER]",
    .summary = "rewrite a single-file checkpoint as a model folder, or a folder as a single file",
    .details =
        "A single file is a FILE (safetensors, or PyTorch's .ckpt) in the original layout of Stable Diffusion 1, 2, XL, 3, 3.5 or Flux.1; "
        "its family and size are\n"
        "told from the names and shapes in it, and configs, tokenizers and scheduler are those of the published model, or of --config.\n"
        "Values and element types stay as they are. The output appears when it is complete; an existing folder or file is never "
        "overwritten.\n",
    .examples = "  tessera convert sd_xl_base_1.0.safetensors sdxl\n"
                "  tessera convert v2-1_512-ema-pruned.safetensors sd21-base --config stable-diffusion-2-1-base\n"
                "  tessera convert sdxl my-sdxl.safetensors\n",
    .options = convert_options,
    .option_count = CONVERT_OPTION_COUNT,
    .run = run_convert,
    .takes_path = true,
};
