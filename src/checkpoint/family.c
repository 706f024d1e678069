/* Telling the families apart by names and shapes, as their published files have them.
 *
 *     sd    model.diffusion_model.input_blocks.*   first_stage_model.*   cond_stage_model.{transformer (SD1), model (SD2)}.*
 *                                                                         or conditioner.embedders.0.model.* (SD2 in the sgm layout)
 *     sdxl  the same with conditioner.embedders.0.transformer.*, conditioner.embedders.1.model.*
 *     sd3   model.diffusion_model.joint_blocks.*   first_stage_model.*   text_encoders.{clip_l,clip_g,t5xxl}.transformer.*
 *     flux  [model.diffusion_model.]double_blocks.*, most often nothing else
 *
 * What no name or shape can tell is left to the user's config folder: whether an SD2 model predicts
 * noise or velocity, for one. */
#include "checkpoint/family.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

#define UNET_PROBE "input_blocks.0.0.weight"
#define VAE_PROBE "decoder.conv_in.weight"
#define CLIP_PROBE "text_model.embeddings.token_embedding.weight"
#define SD3_PROBE "joint_blocks.0.context_block.adaLN_modulation.1.bias"
#define FLUX_PROBE "double_blocks.0.img_attn.norm.key_norm.scale"
#define T5_PROBE "encoder.block.0.layer.0.SelfAttention.q.weight"
#define DENOISER "model.diffusion_model."

static const struct family_place sd_places[] = {
    {"unet", DENOISER, LAYOUT_UNET, UNET_PROBE},
    {"unet", "", LAYOUT_UNET, UNET_PROBE},
    {"vae", "first_stage_model.", LAYOUT_VAE, VAE_PROBE},
    {"vae", "vae.", LAYOUT_VAE, VAE_PROBE},
    {"text_encoder", "cond_stage_model.transformer.", LAYOUT_SDCPP, "text_model.encoder.layers.0.self_attn.in_proj.weight"}, /* SD2 */
    {"text_encoder", "cond_stage_model.transformer.", LAYOUT_SAME, CLIP_PROBE},
    {"text_encoder", "cond_stage_model.transformer.", LAYOUT_SAME, "embeddings.token_embedding.weight"}, /* old files */
    {"text_encoder", "cond_stage_model.model.", LAYOUT_OPENCLIP, "token_embedding.weight"},
    {"text_encoder", "conditioner.embedders.0.model.", LAYOUT_OPENCLIP, "token_embedding.weight"}, /* SD2 as generative-models has it */
};
static const struct family_place sdxl_places[] = {
    {"unet", DENOISER, LAYOUT_UNET, UNET_PROBE},
    {"unet", "", LAYOUT_UNET, UNET_PROBE},
    {"vae", "first_stage_model.", LAYOUT_VAE, VAE_PROBE},
    {"vae", "vae.", LAYOUT_VAE, VAE_PROBE},
    {"text_encoder", "conditioner.embedders.0.transformer.", LAYOUT_SAME, CLIP_PROBE},
    {"text_encoder_2", "conditioner.embedders.1.model.", LAYOUT_OPENCLIP, "token_embedding.weight"},
    {"text_encoder", "cond_stage_model.transformer.", LAYOUT_SAME, CLIP_PROBE}, /* stable-diffusion.cpp, names converted */
    {"text_encoder_2", "cond_stage_model.1.transformer.", LAYOUT_SDCPP, CLIP_PROBE},
};
static const struct family_place sd3_places[] = {
    {"transformer", DENOISER, LAYOUT_SD3, SD3_PROBE},
    {"transformer", "", LAYOUT_SD3, SD3_PROBE},
    {"vae", "first_stage_model.", LAYOUT_VAE, VAE_PROBE},
    {"vae", "vae.", LAYOUT_VAE, VAE_PROBE},
    {"text_encoder", "text_encoders.clip_l.transformer.", LAYOUT_SAME, CLIP_PROBE},
    {"text_encoder_2", "text_encoders.clip_g.transformer.", LAYOUT_SAME, CLIP_PROBE},
    {"text_encoder_3", "text_encoders.t5xxl.transformer.", LAYOUT_SAME, T5_PROBE},
};
static const struct family_place flux_places[] = {
    {"transformer", DENOISER, LAYOUT_FLUX, FLUX_PROBE},
    {"transformer", "", LAYOUT_FLUX, FLUX_PROBE},
    {"vae", "vae.", LAYOUT_VAE, VAE_PROBE},
    {"vae", "first_stage_model.", LAYOUT_VAE, VAE_PROBE},
    {"text_encoder", "text_encoders.clip_l.transformer.", LAYOUT_SAME, CLIP_PROBE},
    {"text_encoder_2", "text_encoders.t5xxl.transformer.", LAYOUT_SAME, T5_PROBE},
};

/* Files with blocks taken out are shared too. */
static const struct family_count sd3_counts[] = {{"transformer", "num_layers", "joint_blocks.%d.x_block.attn.proj.weight"}};
static const struct family_count flux_counts[] = {{"transformer", "num_layers", "double_blocks.%d.img_attn.proj.weight"},
                                                  {"transformer", "num_single_layers", "single_blocks.%d.linear2.weight"}};

enum { SD, SDXL, SD3, FLUX, FAMILY_COUNT };
static const struct family families[FAMILY_COUNT] = {
    [SD] = {"Stable Diffusion 1 or 2", "StableDiffusionPipeline,StableDiffusionImg2ImgPipeline", sd_places, COUNT(sd_places), NULL, 0},
    [SDXL] = {"Stable Diffusion XL", "StableDiffusionXLPipeline,StableDiffusionXLImg2ImgPipeline", sdxl_places, COUNT(sdxl_places), NULL,
              0},
    [SD3] = {"Stable Diffusion 3", "StableDiffusion3Pipeline,StableDiffusion3Img2ImgPipeline", sd3_places, COUNT(sd3_places), sd3_counts,
             COUNT(sd3_counts)},
    [FLUX] = {"Flux", "FluxPipeline,FluxImg2ImgPipeline,FluxControlPipeline,FluxControlImg2ImgPipeline", flux_places, COUNT(flux_places),
              flux_counts, COUNT(flux_counts)},
};

const struct safetensors_entry *family_find_tensor(const struct safetensors *file, const char *prefix, const char *name) {
    char full[256];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return safetensors_find(file, full);
}

/* A tensor of the denoiser, with or without its prefix. */
static const struct safetensors_entry *find_denoiser(const struct safetensors *file, const char *name) {
    const struct safetensors_entry *entry = family_find_tensor(file, DENOISER, name);
    return entry != NULL ? entry : safetensors_find(file, name);
}

/* Extent `dimension` of a denoiser's tensor; 0 if it is not there. */
static int64_t extent(const struct safetensors *file, const char *name, int dimension) {
    const struct safetensors_entry *entry = find_denoiser(file, name);
    return entry != NULL && dimension < entry->tensor.ndim ? entry->tensor.shape[dimension] : 0;
}

static bool any_name(const struct safetensors *file, const char *fragment) {
    for (int i = 0; i < safetensors_count(file); i++)
        if (strstr(safetensors_at(file, i)->name, fragment) != NULL) return true;
    return false;
}

static tessera_status unknown_file(const struct safetensors *file, tessera_error *error) {
    static const struct {
        const char *fragment, *what;
    } others[] = {
        {"lora_", "a LoRA: give it with --lora beside a model"},
        {"control_model.", "a ControlNet, which is not supported"},
        {"down_blocks.", "a component in diffusers' layout: give the model folder that it belongs to"},
        {"transformer_blocks.", "a component in diffusers' layout: give the model folder that it belongs to"},
        {"decoder.conv_in.", "an autoencoder alone: give it with --vae beside a model"},
        {"text_model.", "a text encoder alone: give it with --text-encoder beside a model"},
        {"enc.blk.", "a text encoder alone: give it with --text-encoder-2 or --text-encoder-3 beside a model"},
        {"SelfAttention.", "a text encoder alone: give it with --text-encoder-2 or --text-encoder-3 beside a model"},
    };
    for (int i = 0; i < COUNT(others); i++)
        if (any_name(file, others[i].fragment))
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: is no whole model but %s", safetensors_path(file), others[i].what);
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: the tensors' names are of no layout that is known here: Stable Diffusion 1, 2, XL, 3, 3.5 and Flux.1 are",
                     safetensors_path(file));
}

/* Refuses relatives of SD that take other inputs. */
static tessera_status check_unet(const struct safetensors *file, tessera_error *error) {
    bool open_clip_first = family_find_tensor(file, "conditioner.embedders.0.model.", "token_embedding.weight") != NULL;
    bool refiner = (open_clip_first && find_denoiser(file, "label_emb.0.0.weight") != NULL) || /* without it: SD2 */
                   extent(file, UNET_PROBE, 0) == 384; /* the refiner's width; the base model has 320 */
    if (refiner)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: is the SDXL refiner, which is not supported: give the base model",
                         safetensors_path(file));
    int64_t channels = extent(file, UNET_PROBE, 1);
    if (channels == 8 || channels == 9)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" has %lld input channels: %s models are not supported",
                         safetensors_path(file), UNET_PROBE, (long long)channels, channels == 9 ? "inpainting" : "picture-editing");
    return TESSERA_OK;
}

tessera_status family_detect(const struct safetensors *file, const struct family **out, tessera_error *error) {
    *out = NULL;
    if (find_denoiser(file, FLUX_PROBE) != NULL) {
        *out = &families[FLUX];
    } else if (find_denoiser(file, SD3_PROBE) != NULL) {
        *out = &families[SD3];
    } else if (find_denoiser(file, UNET_PROBE) != NULL) {
        TRY(check_unet(file, error));
        *out = &families[find_denoiser(file, "label_emb.0.0.weight") != NULL ? SDXL : SD];
    }
    return *out != NULL ? TESSERA_OK : unknown_file(file, error);
}

static const char *published_sd(const struct safetensors *file) {
    int64_t context = extent(file, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1);
    return context == 768 ? "sd15" : context == 1024 ? "sd21" : NULL;
}

static const char *published_sd3(const struct safetensors *file) {
    const struct safetensors_entry *table = find_denoiser(file, "pos_embed");
    int64_t width = extent(file, "context_embedder.weight", 0);
    int64_t positions = table != NULL && width > 0 ? tensor_count(&table->tensor) / width : 0; /* GGUF files may leave out the 1 before it */
    if (width == 38 * 64) return "sd35-large";
    if (width != 24 * 64) return NULL;
    return positions == 192 * 192 ? "sd3-medium" : positions == 384 * 384 ? "sd35-medium" : NULL;
}

static const char *published_flux(const struct safetensors *file) {
    int64_t inputs = extent(file, "img_in.weight", 1);
    if (inputs == 2 * 64) return "flux-depth"; /* and Canny: latents, and a control picture's */
    if (inputs != 64) return NULL;             /* Fill has more */
    return find_denoiser(file, "guidance_in.in_layer.bias") != NULL ? "flux-dev" : "flux-schnell";
}

tessera_status family_published(const struct family *family, const struct safetensors *file, const char **out, tessera_error *error) {
    *out = NULL;
    if (family == &families[SD]) *out = published_sd(file);
    if (family == &families[SDXL] && extent(file, UNET_PROBE, 0) == 320) *out = "sdxl";
    if (family == &families[SD3]) *out = published_sd3(file);
    if (family == &families[FLUX]) *out = published_flux(file);
    static const char *const edm[] = {"edm_mean", "edm_vpred.sigma_max"}; /* Playground 2.5, CosXL */
    for (int i = 0; i < 2 && family == &families[SDXL]; i++)
        if (safetensors_find(file, edm[i]) != NULL)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                             "%s: a model of SDXL's form that was trained by EDM (the tensor \"%s\" says so), for which there is no sampler here",
                             safetensors_path(file), edm[i]);
    if (*out != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: a %s model of a size that no published one has: give the folder with its config.json files with --config",
                     safetensors_path(file), family->name);
}

const struct family *family_of_pipeline(const char *class_name) {
    size_t length = strlen(class_name);
    for (int i = 0; i < FAMILY_COUNT && length > 0; i++) {
        for (const char *found = families[i].pipelines; (found = strstr(found, class_name)) != NULL; found += length) {
            bool begins = found == families[i].pipelines || found[-1] == ',';
            if (begins && (found[length] == 0 || found[length] == ',')) return &families[i];
        }
    }
    return NULL;
}

const struct family_place *family_find_place(const struct family *family, const struct safetensors *file, const char *component) {
    for (int i = 0; i < family->place_count; i++) {
        const struct family_place *place = &family->places[i];
        if (strcmp(place->component, component) == 0 && family_find_tensor(file, place->prefix, place->probe) != NULL) return place;
    }
    return NULL;
}

int family_count_in(const struct family_count *count, const struct family_place *place, const struct safetensors *file) {
    char name[128];
    const char *number = strstr(count->name, "%d");
    int n = 0;
    for (bool found = number != NULL; found; n += found) {
        snprintf(name, sizeof name, "%.*s%d%s", (int)(number - count->name), count->name, n, number + 2);
        found = family_find_tensor(file, place->prefix, name) != NULL;
    }
    return n;
}
