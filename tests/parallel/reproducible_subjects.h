/* The pictures whose SHA-256 reproducible.txt holds, and the requests that make them: for
 * test_reproducible_pictures.c, and for reproducible_picture.c on other processors. */
#ifndef TESSERA_TESTS_REPRODUCIBLE_SUBJECTS_H
#define TESSERA_TESTS_REPRODUCIBLE_SUBJECTS_H

#include "tessera.h"

enum { PICTURES = 3 };

static const struct subject {
    const char *name, *model, *scheduler;
    int width, height, steps;
    tessera_dtype dtype;
} subjects[] = {
    {"emoji", "models/emoji", NULL, 64, 96, 2, TESSERA_F32},
    {"emoji-bf16", "models/emoji", NULL, 64, 96, 2, TESSERA_BF16},
    {"sd15", "tests/cases/pipeline_sd15/model", "EulerAncestralDiscreteScheduler", 96, 128, 2, TESSERA_F32},
    {"sdxl-bf16", "tests/cases/pipeline_sdxl/model", "DPMSolverMultistepScheduler", 64, 96, 2, TESSERA_BF16},
    {"sd3", "tests/cases/pipeline_sd3/model", NULL, 64, 96, 2, TESSERA_F32},
    {"flux", "tests/cases/pipeline_flux/model", NULL, 64, 96, 2, TESSERA_F32},
    {"pixart", "tests/cases/pipeline_pixart/model", "DPMSolverMultistepScheduler", 64, 96, 2, TESSERA_F32},
    {"hunyuandit-bf16", "tests/cases/pipeline_hunyuandit/model", "UniPCMultistepScheduler", 64, 96, 2, TESSERA_BF16},
};
enum { SUBJECTS = sizeof subjects / sizeof *subjects };

/* PICTURES pictures, of which `made` are made. */
static inline tessera_request subject_request(const struct subject *s, const tessera_model *model, int made) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue", r.seed = 7, r.true_cfg_scale = 2, r.use_resolution_binning = false;
    r.width = s->width, r.height = s->height, r.num_inference_steps = s->steps, r.scheduler = s->scheduler;
    if (r.max_sequence_length > 32) r.max_sequence_length = 32;
    r.num_images = PICTURES, r.made_images = made;
    return r;
}

/* What is hashed of a picture: its latents, then its 8-bit pixels. */
static inline size_t picture_latents(const tessera_image *image) {
    return (size_t)(image->latent_channels * image->latent_height * image->latent_width);
}
static inline size_t picture_pixels(const tessera_image *image) {
    return (size_t)image->width * (size_t)image->height * 3;
}

#endif
