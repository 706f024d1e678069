/* See like.h. Sources: xDiT's xfuser/config/args.py and DistriFusion's scripts/, which both are
 * Python command lines with defaults of their own (the number of steps, the seed, even the prompt).
 * Left out: generators on a GPU, so a seed gives other noise here than there. */
#include "cli/like.h"

#include <string.h>
#include "base/error.h"
#include "cli/generate.h"

#define ASTRONAUT "--prompt=Astronaut in a jungle, cold color palette, muted colors, detailed, 8k"
#define XDIT_DEFAULTS "--height=1024", "--width=1024", "--steps=20", "--guidance-scale=3.5", "--max-sequence-length=256", "--seed=42"
#define FID_DEFAULTS                                                                                                                       \
    "--caption-file=captions_coco.json", "--num-samples=30000", "--height=256", "--width=256", "--steps=20", "--max-sequence-length=256",  \
        "--seed=42", "--output=sample_images/"
#define SDXL_BASE "--model=stabilityai/stable-diffusion-xl-base-1.0"

struct script {
    const char *name;
    const char *words[16]; /* as on a command line, up to the first NULL */
};

static const struct script scripts[] = {
    {"xdit", {XDIT_DEFAULTS}},
    {"flux_control_example", {XDIT_DEFAULTS, "--control-image=test_imgs/016#.png"}},
    {"pixartalpha_generate", {FID_DEFAULTS, "--guidance-scale=2"}},
    {"flux_generate", {FID_DEFAULTS, "--guidance-scale=1.5"}},
    {"sdxl_example",
     {SDXL_BASE, ASTRONAUT, "--height=1024", "--width=1024", "--seed=233", "--parallelism=patch", "--output=astronaut.png"}},
    {"sd_example",
     {"--model=CompVis/stable-diffusion-v1-4", ASTRONAUT, "--height=512", "--width=512", "--seed=233", "--parallelism=patch",
      "--sync-mode=stale_gn", "--output=astronaut.png"}},
    {"run_sdxl",
     {SDXL_BASE, ASTRONAUT, "--height=1024", "--width=1024", "--steps=50", "--guidance-scale=5", "--scheduler=DDIMScheduler", "--seed=1234",
      "--parallelism=patch", "--split-scheme=alternate"}},
    {"generate_coco",
     {SDXL_BASE, "--caption-file=dataset_coco.json", "--caption-split=val", "--height=1024", "--width=1024", "--steps=50",
      "--guidance-scale=5", "--scheduler=DDIMScheduler", "--seed=0", "--parallelism=patch", "--split-scheme=alternate",
      "--output=results/coco/"}},
};

static const char *const benchmark_words[] = {"--warmup-times=5", "--test-times=20", "--ignore-ratio=0.2", NULL};

/* Gives each option of `words` that was not given its value. */
static tessera_status apply_words(const char *const *words, struct option_value *values, tessera_error *error) {
    for (; *words != NULL; words++) {
        const char *name = *words + 2, *value = strchr(name, '=') + 1;
        for (int i = 0; i < GENERATE_OPTION_COUNT; i++) {
            if (strlen(generate_options[i].name) != (size_t)(value - 1 - name)) continue;
            if (strncmp(generate_options[i].name, name, (size_t)(value - 1 - name)) != 0 || values[i].given) continue;
            TRY(options_read_value(&generate_options[i], value, &values[i], error));
        }
    }
    return TESSERA_OK;
}

/* DistriFusion's --image_size HEIGHT [WIDTH]. */
static tessera_status apply_image_size(struct option_value *values, tessera_error *error) {
    const struct option_value *size = &values[GENERATE_IMAGE_SIZE];
    if (size->count > 2) return error_set(error, TESSERA_ERROR_ARGUMENT, "--image-size takes one number or two, height and width");
    if (size->count == 0) return TESSERA_OK;
    struct option_value *height = &values[GENERATE_HEIGHT], *width = &values[GENERATE_WIDTH];
    if (!height->given) TRY(options_read_value(&generate_options[GENERATE_HEIGHT], size->texts[0], height, error));
    if (!width->given) TRY(options_read_value(&generate_options[GENERATE_WIDTH], size->texts[size->count - 1], width, error));
    return TESSERA_OK;
}

tessera_status like_apply(struct option_value *values, tessera_error *error) {
    const char *mode = values[GENERATE_MODE].text, *like = values[GENERATE_LIKE].text;
    TRY(apply_image_size(values, error));
    if (mode != NULL && strcmp(mode, "benchmark") == 0) TRY(apply_words(benchmark_words, values, error));
    if (mode != NULL && like == NULL) like = "run_sdxl";
    for (size_t i = 0; like != NULL && i < sizeof scripts / sizeof *scripts; i++)
        if (strcmp(like, scripts[i].name) == 0) TRY(apply_words(scripts[i].words, values, error));
    return TESSERA_OK;
}

const char *like_model(const char *name) {
    const char *const names[][2] = {{"FLUX.1-dev", "black-forest-labs/FLUX.1-dev"},
                                    {"SD3.5", "stabilityai/stable-diffusion-3.5-large"},
                                    /* Those that `tessera plan` and make-model know. */
                                    {"sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"},
                                    {"sdxl", "stabilityai/stable-diffusion-xl-base-1.0"},
                                    {"sd3-medium", "stabilityai/stable-diffusion-3-medium-diffusers"},
                                    {"sd35-medium", "stabilityai/stable-diffusion-3.5-medium"},
                                    {"sd35-large", "stabilityai/stable-diffusion-3.5-large"},
                                    {"flux-dev", "black-forest-labs/FLUX.1-dev"},
                                    {"flux-schnell", "black-forest-labs/FLUX.1-schnell"},
                                    {"flux-depth", "black-forest-labs/FLUX.1-Depth-dev"},
                                    {"pixart-alpha", "PixArt-alpha/PixArt-XL-2-1024-MS"},
                                    {"pixart-sigma", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"},
                                    {"hunyuandit", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"},
                                    {"hunyuandit-v1.1", "Tencent-Hunyuan/HunyuanDiT-v1.1-Diffusers"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i][0]) == 0) return names[i][1];
    return name;
}
