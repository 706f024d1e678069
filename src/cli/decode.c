/* `tessera decode`: a file of latents to a PNG file, the last phase of a picture as a command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/find_model.h"
#include "cli/kernel_options.h"
#include "cli/memory_options.h"
#include "cli/output.h"
#include "cli/phase_files.h"
#include "image/png.h"

enum decode_option {
    DECODE_MODEL,
    DECODE_OUTPUT,
    DECODE_CONFIG,
    DECODE_VARIANT,
    DECODE_VAE,
    DECODE_VAE_TILING,
    DECODE_DTYPE,
    DECODE_KERNELS,
    DECODE_THREADS,
    DECODE_MAX_MEMORY,
    DECODE_OVERWRITE,
    DECODE_OPTION_COUNT
};

static const struct option decode_options[DECODE_OPTION_COUNT] = {
    [DECODE_MODEL] = {.name = "model",
                      .letter = 'm',
                      .type = OPTION_TEXT,
                      .placeholder = "MODEL",
                      .help = "as of generate (default: the embedded emoji model)"},
    [DECODE_OUTPUT] = {.name = "output", .letter = 'o', .type = OPTION_TEXT, .placeholder = "FILE.png", .help = "what to write"},
    [DECODE_CONFIG] = {.name = "config", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "for a single file: the model folder whose configurations serve"},
    [DECODE_VARIANT] = {.name = "variant", .type = OPTION_TEXT, .placeholder = "NAME", .help = "prefer weight files of this variant, such as fp16"},
    [DECODE_VAE] = {.name = "vae", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "take the autoencoder from this folder or file"},
    [DECODE_VAE_TILING] = {.name = "vae-tiling", .type = OPTION_FLAG, .help = "decode in blended tiles: less memory, not exact"},
    [DECODE_DTYPE] = {.name = "dtype", .type = OPTION_CHOICE, .placeholder = "f32|bf16", .help = "what products are computed in (default bf16)"},
    [DECODE_KERNELS] = {.name = "kernels", .type = OPTION_CHOICE, .placeholder = KERNEL_NAMES, .help = "as of generate (docs/reproducible.md)"},
    [DECODE_THREADS] = {.name = "threads", .letter = 't', .type = OPTION_INTEGER, .placeholder = "N", .help = "0: as many as the machine grants", .low = 0, .high = 1024},
    [DECODE_OVERWRITE] = {.name = "overwrite", .type = OPTION_FLAG, .help = "write over an existing file; without it that is an error"},
    [DECODE_MAX_MEMORY] = {.name = "max-memory", .type = OPTION_TEXT, .placeholder = "BYTES", .help = "what the process may hold in memory, such as 2GiB"},
};

struct decoding {
    const char *path;
    struct option_value *values;
    bool usage;
    char *folder;
    tessera_model *model;
    struct latents_file latents;
    tessera_image image;
    tessera_error error;
};

static tessera_status check(struct decoding *d) {
    const char *output = d->values[DECODE_OUTPUT].text;
    d->usage = true;
    if (d->path == NULL || output == NULL)
        return error_set(&d->error, TESSERA_ERROR_ARGUMENT, "decode needs latents and an output: tessera decode LATENTS.safetensors -o FILE.png");
    if (output_is_folder(output) || output_is_stream(output))
        return error_set(&d->error, TESSERA_ERROR_ARGUMENT, "--output %s: a picture of latents goes to FILE.png", output);
    if (file_exists(output) && !d->values[DECODE_OVERWRITE].flag)
        return error_set(&d->error, TESSERA_ERROR_ARGUMENT, "--output %s: exists: name a new file, or add --overwrite", output);
    tessera_status status = output_check(output, &d->error);
    d->usage = status == TESSERA_ERROR_ARGUMENT;
    return status;
}

static tessera_status open_model(struct decoding *d) {
    const struct option_value *v = d->values;
    const char *given = v[DECODE_MODEL].text != NULL ? v[DECODE_MODEL].text : TESSERA_EMBEDDED_MODEL;
    TRY(find_model(given, v[DECODE_VARIANT].text, command_common(&decode_command, v, COMMON_QUIET), &d->folder, &d->error));
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.threads = v[DECODE_THREADS].integer;
    options.config = v[DECODE_CONFIG].text;
    options.variant = v[DECODE_VARIANT].text;
    options.vae = v[DECODE_VAE].text;
    options.vae_tiling = v[DECODE_VAE_TILING].flag;
    TRY(memory_options_read(v[DECODE_MAX_MEMORY].text, 1, &options.max_memory, &d->error));
    options.dtype = v[DECODE_DTYPE].text != NULL && strcmp(v[DECODE_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    options.kernels = kernel_options_read(&v[DECODE_KERNELS]);
    d->model = tessera_model_open(d->folder, &options, &d->error);
    return d->model != NULL ? TESSERA_OK : d->error.status;
}

static tessera_status decode(struct decoding *d) {
    const char *output = d->values[DECODE_OUTPUT].text;
    static const tessera_text software = {"Software", "Tessera " TESSERA_VERSION};
    TRY(check(d));
    TRY(latents_open(d->path, &d->latents, &d->error));
    TRY(open_model(d));
    TRY(latents_check(&d->latents, d->model, &d->error));
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(d->model, false, &request);
    request.width = d->latents.width;
    request.height = d->latents.height;
    request.use_resolution_binning = d->latents.binning;
    TRY(tessera_decode(d->model, &request, d->latents.values, d->latents.count, &d->image, &d->error));
    TRY(png_file_write(output, d->image.pixels, d->image.width, d->image.height, &software, 1, &d->error));
    printf("%s\n", output);
    return TESSERA_OK;
}

static int run_decode(const char *path, struct option_value *values) {
    struct decoding d = {.path = path, .values = values, .image = TESSERA_IMAGE};
    tessera_status status = decode(&d);
    tessera_image_free(&d.image);
    latents_close(&d.latents);
    tessera_model_free(d.model);
    free(d.folder);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&d.error, d.usage);
}

const struct command decode_command = {
    .name = "decode",
    .usage = "decode LATENTS.safetensors -o FILE.png [OPTIONS]",
    .summary = "make a picture of latents that were made earlier or elsewhere",
    .details = "Takes what `tessera generate --output-type latent` wrote and loads the autoencoder alone. The file says which autoencoder the\n"
               "latents are for; another one is refused.\n",
    .examples = "  tessera decode --model flux-dev cat-latents.safetensors -o cat.png\n",
    .options = decode_options,
    .option_count = DECODE_OPTION_COUNT,
    .run = run_decode,
    .takes_path = true,
};
