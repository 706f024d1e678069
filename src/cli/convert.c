/* `tessera convert`: a single-file checkpoint to a model folder, a model folder to a single file,
 * or weights to other element types. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/convert.h"
#include "cli/command.h"
#include "cli/progress.h"

enum convert_option { CONVERT_OUTPUT, CONVERT_CONFIG, CONVERT_TYPE, CONVERT_KEEP, CONVERT_OPTION_COUNT };

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
    [CONVERT_TYPE] = {.name = "type",
                      .type = OPTION_CHOICE,
                      .placeholder = "q8_0|q5_1|q5_0|q4_1|q4_0|nf4|f8|f16|bf16|f32",
                      .help = "element type of the matrices; default: as stored"},
    [CONVERT_KEEP] = {.name = "keep",
                      .type = OPTION_TEXTS,
                      .placeholder = "PATTERN=TYPE",
                      .help = "another type for the tensors whose names match, such as '*img_in*=f16'"},
};

/* "q8_0" -> DTYPE_Q8_0; "f8" is float8 e4m3fn. */
static bool read_type(const char *text, enum dtype *out) {
    char name[16] = "";
    for (size_t i = 0; text[i] != 0 && i < sizeof name - 1; i++) name[i] = (char)toupper((unsigned char)text[i]);
    if (strcmp(text, "f8") == 0) strcpy(name, "F8_E4M3");
    return dtype_from_name(name, out) && dtype_is_written(*out);
}

/* PATTERN=TYPE; the pattern, cut out of `text`, is the caller's to free. */
static tessera_status read_rule(const char *text, struct convert_rule *out, tessera_error *error) {
    const char *equals = strrchr(text, '=');
    if (equals == NULL || equals == text || !read_type(equals + 1, &out->dtype))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "--keep %s: must be PATTERN=TYPE with a type out of f32, f16, bf16, f8, q8_0, q5_1, q5_0, q4_1, q4_0 and nf4; try "
                         "--keep '*time_embed*=f16'",
                         text);
    out->pattern = strndup(text, (size_t)(equals - text));
    return out->pattern != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

static tessera_status read_types(const struct option_value *values, struct convert_rule *rules, struct convert_types *out,
                                 tessera_error *error) {
    *out = (struct convert_types){.given = values[CONVERT_TYPE].given, .rules = rules};
    if (out->given && !read_type(values[CONVERT_TYPE].text, &out->dtype))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--type %s: not a type that is written", values[CONVERT_TYPE].text);
    for (; out->count < values[CONVERT_KEEP].count; out->count++)
        TRY(read_rule(values[CONVERT_KEEP].texts[out->count], &rules[out->count], error));
    return TESSERA_OK;
}

static bool ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), end = strlen(ending);
    return length > end && strcmp(text + length - end, ending) == 0;
}

static bool is_model_folder(const char *path) {
    char *index = file_join(path, "model_index.json");
    bool is = index != NULL && file_exists(index);
    free(index);
    return is;
}

static tessera_status convert(const char *input, const struct option_value *values, struct convert_report *report, tessera_error *error) {
    const char *output = values[CONVERT_OUTPUT].text;
    if (input == NULL || output == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "convert needs an input and an output: tessera convert INPUT OUTPUT");
    bool to_file = ends_with(output, ".safetensors") || ends_with(output, ".gguf");
    if (!file_is_folder(input) && !to_file) return convert_to_folder(input, values[CONVERT_CONFIG].text, output, report, error);
    if (!to_file)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: a folder becomes a file: name it SOMETHING.safetensors or SOMETHING.gguf", output);
    if (file_exists(output)) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: exists; name a new file", output);
    if (is_model_folder(input)) return convert_to_file(input, output, report, error);
    return convert_tensors(input, output, report, error);
}

static tessera_status convert_with_types(const char *input, const struct option_value *values, struct convert_report *report,
                                         tessera_error *error) {
    struct convert_rule *rules = calloc((size_t)values[CONVERT_KEEP].count + 1, sizeof *rules);
    struct convert_types types = {0};
    if (rules == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = read_types(values, rules, &types, error);
    if (types.given || types.count > 0) report->types = &types;
    if (status == TESSERA_OK) status = convert(input, values, report, error);
    for (int i = 0; i < types.count; i++) free((char *)rules[i].pattern);
    free(rules);
    report->types = NULL;
    return status;
}

static bool is_stopped(void) {
    return progress_signal() != 0;
}

static int run_convert(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct convert_report report = {.stop = is_stopped};
    progress_catch_signals();
    tessera_status status = convert_with_types(path, values, &report, &error);
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
    .usage = "convert INPUT OUTPUT [--config FOLDER] [--type TYPE [--keep PATTERN=TYPE]]",
    .summary = "rewrite a model as a folder or as a single file, or with smaller weights",
    .details =
        "A single file is a FILE (safetensors, or PyTorch's .ckpt) in the original layout of Stable Diffusion 1, 2, XL, 3, 3.5 or Flux.1; "
        "its family and size are\n"
        "told from the names and shapes in it, and configs, tokenizers and scheduler are those of the published model, or of --config.\n"
        "A model folder becomes such a file. An OUTPUT that ends in .safetensors or .gguf is a file: a file or a component's folder (sdxl/unet) keeps\n"
        "its tensors' names. Values and element types stay as they are unless --type or --keep asks for others: --type is for matrices whose rows\n"
        "are whole blocks of the type; vectors and small tables (positions, modulations) stay. The output appears when it is complete; an existing folder\n"
        "or file is never overwritten.\n",
    .examples = "  tessera convert sd_xl_base_1.0.safetensors sdxl\n"
                "  tessera convert v2-1_512-ema-pruned.safetensors sd21-base --config stable-diffusion-2-1-base\n"
                "  tessera convert sdxl my-sdxl.safetensors\n"
                "  tessera convert flux1-dev.safetensors flux1-dev-q4_0.gguf --type q4_0 --keep 'img_in.*=f16'\n"
                "  tessera convert FLUX.1-dev/transformer flux-q8_0.gguf --type q8_0\n",
    .options = convert_options,
    .option_count = CONVERT_OPTION_COUNT,
    .run = run_convert,
    .takes_path = true,
};
