/* `tessera encode`: a prompt to a file of its states, the first phase of a picture as a command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/find_model.h"
#include "cli/kernel_options.h"
#include "cli/lora_options.h"
#include "cli/memory_options.h"
#include "cli/notice.h"
#include "cli/phase_files.h"
#include "cli/progress.h"

enum encode_option {
    ENCODE_MODEL,
    ENCODE_PROMPT,
    ENCODE_NEGATIVE_PROMPT,
    ENCODE_LONG_PROMPT,
    ENCODE_GUIDANCE_SCALE,
    ENCODE_TRUE_CFG_SCALE,
    ENCODE_CLIP_SKIP,
    ENCODE_MAX_SEQUENCE_LENGTH,
    ENCODE_OUTPUT,
    ENCODE_CONFIG,
    ENCODE_VARIANT,
    ENCODE_TEXT_ENCODER,
    ENCODE_TEXT_ENCODER_2,
    ENCODE_TEXT_ENCODER_3,
    ENCODE_LORA,
    ENCODE_DTYPE,
    ENCODE_KERNELS,
    ENCODE_THREADS,
    ENCODE_MAX_MEMORY,
    ENCODE_OFFLOAD,
    ENCODE_OPTION_COUNT
};

static const struct option encode_options[ENCODE_OPTION_COUNT] = {
    [ENCODE_MODEL] = {.name = "model",
                      .letter = 'm',
                      .type = OPTION_TEXT,
                      .placeholder = "MODEL",
                      .help = "as of generate (default: the embedded emoji model)"},
    [ENCODE_PROMPT] = {.name = "prompt", .letter = 'p', .type = OPTION_TEXT, .placeholder = "TEXT", .help = "what to draw"},
    [ENCODE_NEGATIVE_PROMPT] = {.name = "negative-prompt", .letter = 'n', .type = OPTION_TEXT, .placeholder = "TEXT", .help = "what not to draw"},
    [ENCODE_LONG_PROMPT] = {.name = "long-prompt", .type = OPTION_FLAG, .help = "CLIP reads a prompt of any length, in chunks of 75 tokens"},
    [ENCODE_GUIDANCE_SCALE] = {.name = "guidance-scale",
                               .aliases = {"cfg-scale"},
                               .type = OPTION_NUMBER,
                               .placeholder = "X",
                               .help = "of the pictures that follow: up to 1 the negative prompt is not needed; default: the model's",
                               .low = 0,
                               .high = 1000},
    [ENCODE_TRUE_CFG_SCALE] = {.name = "true-cfg-scale",
                               .type = OPTION_NUMBER,
                               .placeholder = "X",
                               .help = "Flux: above 1, guidance by a negative prompt",
                               .low = 0,
                               .high = 1000},
    [ENCODE_CLIP_SKIP] = {.name = "clip-skip", .type = OPTION_INTEGER, .placeholder = "N", .help = "CLIP layers to leave out at the end", .low = 0, .high = 1000},
    [ENCODE_MAX_SEQUENCE_LENGTH] = {.name = "max-sequence-length",
                                    .type = OPTION_INTEGER,
                                    .placeholder = "N",
                                    .help = "text tokens of the T5 encoder; default: the model's",
                                    .low = 0,
                                    .high = 65536},
    [ENCODE_OUTPUT] = {.name = "output", .letter = 'o', .type = OPTION_TEXT, .placeholder = "FILE.safetensors", .help = "what to write"},
    [ENCODE_CONFIG] = {.name = "config", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "for a single file: the model folder whose configurations serve"},
    [ENCODE_VARIANT] = {.name = "variant", .type = OPTION_TEXT, .placeholder = "NAME", .help = "prefer weight files of this variant, such as fp16"},
    [ENCODE_TEXT_ENCODER] = {.name = "text-encoder", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "take the text encoder from this folder or file"},
    [ENCODE_TEXT_ENCODER_2] = {.name = "text-encoder-2", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "the second one"},
    [ENCODE_TEXT_ENCODER_3] = {.name = "text-encoder-3", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "the third one"},
    [ENCODE_LORA] = {.name = "lora", .type = OPTION_TEXTS, .placeholder = "FILE[:SCALE]", .help = "change the weights by a LoRA file"},
    [ENCODE_DTYPE] = {.name = "dtype", .type = OPTION_CHOICE, .placeholder = "f32|bf16", .help = "what products are computed in (default bf16)"},
    [ENCODE_KERNELS] = {.name = "kernels", .type = OPTION_CHOICE, .placeholder = KERNEL_NAMES, .help = "as of generate (docs/reproducible.md)"},
    [ENCODE_THREADS] = {.name = "threads", .letter = 't', .type = OPTION_INTEGER, .placeholder = "N", .help = "0: as many as the machine grants", .low = 0, .high = 1024},
    [ENCODE_OFFLOAD] = {.name = "offload", .type = OPTION_CHOICE, .placeholder = TESSERA_OFFLOADS, .help = "as of generate (docs/small-devices.md)"},
    [ENCODE_MAX_MEMORY] = {.name = "max-memory", .type = OPTION_TEXT, .placeholder = "BYTES", .help = "what the process may hold in memory, such as 2GiB"},
};

struct encoding {
    struct option_value *values;
    bool usage, quiet;
    char *folder;
    tessera_lora *loras;
    tessera_model *model;
    tessera_states states;
    struct notices notices;
    tessera_error error;
};

static tessera_status check(struct encoding *e) {
    const struct option_value *v = e->values;
    e->usage = true;
    if (v[ENCODE_PROMPT].text == NULL || v[ENCODE_OUTPUT].text == NULL)
        return error_set(&e->error, TESSERA_ERROR_ARGUMENT, "encode needs --prompt \"TEXT\" and --output FILE.safetensors");
    const char *output = v[ENCODE_OUTPUT].text, *end = strrchr(output, '.');
    if (end == NULL || strcmp(end, ".safetensors") != 0)
        return error_set(&e->error, TESSERA_ERROR_ARGUMENT, "--output %s: a prompt's states are written as FILE.safetensors", output);
    e->usage = false;
    return TESSERA_OK;
}

static tessera_status open_model(struct encoding *e) {
    const struct option_value *v = e->values;
    const char *given = v[ENCODE_MODEL].text != NULL ? v[ENCODE_MODEL].text : TESSERA_EMBEDDED_MODEL;
    TRY(find_model(given, v[ENCODE_VARIANT].text, e->quiet, &e->folder, &e->error));
    TRY(lora_options_read(&v[ENCODE_LORA], &e->loras, &e->error));
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.threads = v[ENCODE_THREADS].integer;
    options.config = v[ENCODE_CONFIG].text;
    options.variant = v[ENCODE_VARIANT].text;
    options.text_encoder = v[ENCODE_TEXT_ENCODER].text;
    options.text_encoder_2 = v[ENCODE_TEXT_ENCODER_2].text;
    options.text_encoder_3 = v[ENCODE_TEXT_ENCODER_3].text;
    options.loras = e->loras;
    options.num_loras = v[ENCODE_LORA].count;
    options.offload = v[ENCODE_OFFLOAD].text;
    TRY(memory_options_read(v[ENCODE_MAX_MEMORY].text, 1, &options.max_memory, &e->error));
    options.dtype = v[ENCODE_DTYPE].text != NULL && strcmp(v[ENCODE_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    options.kernels = kernel_options_read(&v[ENCODE_KERNELS]);
    e->model = tessera_model_open(e->folder, &options, &e->error);
    return e->model != NULL ? TESSERA_OK : e->error.status;
}

static tessera_request request_of(struct encoding *e) {
    const struct option_value *v = e->values;
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(e->model, false, &r);
    r.prompt = v[ENCODE_PROMPT].text;
    r.negative_prompt = v[ENCODE_NEGATIVE_PROMPT].text;
    r.long_prompt = v[ENCODE_LONG_PROMPT].flag;
    if (v[ENCODE_GUIDANCE_SCALE].given) r.guidance_scale = (float)v[ENCODE_GUIDANCE_SCALE].number;
    if (v[ENCODE_TRUE_CFG_SCALE].given) r.true_cfg_scale = (float)v[ENCODE_TRUE_CFG_SCALE].number;
    if (v[ENCODE_CLIP_SKIP].given) r.clip_skip = v[ENCODE_CLIP_SKIP].integer;
    if (v[ENCODE_MAX_SEQUENCE_LENGTH].given) r.max_sequence_length = v[ENCODE_MAX_SEQUENCE_LENGTH].integer;
    r.notice = notice_print;
    r.notice_user = &e->notices;
    return r;
}

static tessera_status encode(struct encoding *e) {
    TRY(check(e));
    TRY(open_model(e));
    tessera_request request = request_of(e);
    TRY(tessera_encode(e->model, &request, &e->states, &e->error));
    TRY(embeds_write(e->values[ENCODE_OUTPUT].text, e->model, &request, &e->states, &e->error));
    printf("%s\n", e->values[ENCODE_OUTPUT].text);
    return TESSERA_OK;
}

static int run_encode(const char *path, struct option_value *values) {
    (void)path;
    struct encoding e = {.values = values, .quiet = command_common(&encode_command, values, COMMON_QUIET), .states = TESSERA_STATES};
    tessera_status status = encode(&e);
    tessera_states_free(&e.states);
    tessera_model_free(e.model);
    lora_options_free(e.loras, values[ENCODE_LORA].count);
    free(e.folder);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&e.error, e.usage);
}

const struct command encode_command = {
    .name = "encode",
    .usage = "encode --prompt TEXT -o FILE.safetensors [OPTIONS]",
    .summary = "read a prompt, for pictures that are made later or elsewhere",
    .details = "Writes what the text encoders make of a prompt. `tessera generate --prompt-embeds FILE` draws it, without loading a text\n"
               "encoder, and gives the same picture as with --prompt. The file says which model made it; another one is refused.\n",
    .examples = "  tessera encode --model flux-dev --prompt \"a cat\" -o cat.safetensors\n"
                "  tessera generate --model flux-dev --prompt-embeds cat.safetensors --output-type latent -o cat-latents.safetensors\n"
                "  tessera decode --model flux-dev cat-latents.safetensors -o cat.png\n",
    .options = encode_options,
    .option_count = ENCODE_OPTION_COUNT,
    .run = run_encode,
};
