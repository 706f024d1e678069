/* Opening a model folder and its components: see pipeline.h. */
#include "pipelines/pipeline.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "base/file.h"
#include "pipelines/device_map.h"
#include "pipelines/placed.h"
#include "pipelines/source.h"

static const struct pipeline_class *const classes[] = {
    &stable_diffusion_class, &stable_diffusion_xl_class, &stable_diffusion_3_class, &flux_class,
    &flux_control_class,     &pixart_alpha_class,        &pixart_sigma_class,       &hunyuandit_class,
};
#define NUM_CLASSES (sizeof classes / sizeof *classes)

static const char *const class_names[] = {
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline",
    "FluxControlPipeline",     "PixArtAlphaPipeline",       "PixArtSigmaPipeline",      "HunyuanDiTPipeline",
    NULL,
};
static_assert(sizeof class_names / sizeof *class_names == NUM_CLASSES + 1, "one name per class");

const char *const *pipeline_class_names(void) {
    return class_names;
}

/* The name of the pipeline from text to picture: folders are also saved by diffusers' pipelines
 * from picture to picture. */
static void plain_class_name(const char *name, char *out, size_t capacity) {
    static const char variant[] = "Img2Img";
    const char *at = strstr(name, variant);
    snprintf(out, capacity, "%.*s%s", at != NULL ? (int)(at - name) : (int)strlen(name), name, at != NULL ? at + strlen(variant) : "");
}

const struct pipeline_class *pipeline_class_find(const char *name) {
    char plain[128];
    plain_class_name(name, plain, sizeof plain);
    for (size_t i = 0; i < NUM_CLASSES; i++) {
        assert(strcmp(classes[i]->name, class_names[i]) == 0);
        if (strcmp(classes[i]->name, plain) == 0) return classes[i];
    }
    return NULL;
}

static tessera_status find_class(struct pipeline *p, tessera_error *error) {
    const char *name = NULL;
    TRY(json_string(p->index, "_class_name", NULL, &name, error));
    if (name == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field _class_name is missing: is this a model folder of diffusers?",
                         json_path(p->index));
    char known[256] = "";
    p->class = pipeline_class_find(name);
    if (p->class != NULL) return TESSERA_OK;
    for (size_t i = 0; i < NUM_CLASSES; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", classes[i]->name);
    }
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field _class_name: no pipeline %s here; known: %s", json_path(p->index), name,
                     known);
}

/* The config.json of a component. */
static tessera_status open_config(struct pipeline *p, const char *name, struct json **out, tessera_error *error) {
    const struct pipeline_slot *slot;
    TRY(pipeline_need_slot(p, name, &slot, error));
    return source_config(p, slot, out, error);
}

/* generation_defaults.json, if there is one, over the values already set. */
static tessera_status read_generation_defaults(struct pipeline *p, tessera_error *error) {
    char *path = file_join(p->folder, "generation_defaults.json");
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    struct json *file = NULL;
    tessera_status status = file_exists(path) ? json_open(path, 0, &file, error) : TESSERA_OK;
    free(path);
    if (file == NULL) return status;
    p->has_own_defaults = true;
    struct {
        const char *field;
        int *value;
        int low, high;
    } ints[] = {
        {"num_inference_steps", &p->defaults.num_inference_steps, 1, 100000},
        {"height", &p->defaults.height, 1, 1 << 16},
        {"width", &p->defaults.width, 1, 1 << 16},
        {"max_sequence_length", &p->defaults.max_sequence_length, 0, 1 << 16},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints && status == TESSERA_OK; i++) {
        int64_t value;
        status = json_int(file, ints[i].field, *ints[i].value, ints[i].low, ints[i].high, &value, error);
        if (status == TESSERA_OK) *ints[i].value = (int)value;
    }
    if (status == TESSERA_OK)
        status = json_bool(file, "use_resolution_binning", p->defaults.use_resolution_binning, &p->defaults.use_resolution_binning, error);
    double guidance;
    if (status == TESSERA_OK) status = json_double(file, "guidance_scale", p->defaults.guidance_scale, &guidance, error);
    if (status == TESSERA_OK) p->defaults.guidance_scale = (float)guidance;
    json_free(file);
    return status;
}

/* Before diffusers 0.9 a U-Net's configuration had a smaller sample_size than the model was trained
 * at, and diffusers' pipeline takes its family's. */
static bool is_of_old_diffusers(const struct json *config) {
    const char *version = NULL;
    int major, minor;
    return json_string(config, "_diffusers_version", NULL, &version, NULL) == TESSERA_OK && version != NULL &&
           sscanf(version, "%d.%d", &major, &minor) == 2 && major == 0 && minor < 9;
}

/* The denoiser's default latent side, and how many pixels a latent stands for on a side. */
static tessera_status read_sizes(struct pipeline *p, int64_t *scale, tessera_error *error) {
    struct json *config = NULL;
    int64_t blocks[16];
    int num_blocks = 0;
    TRY(open_config(p, p->denoiser, &config, error));
    tessera_status status = json_int(config, "sample_size", p->class->sample_size, 1, 1 << 16, &p->sample_size, error);
    if (status == TESSERA_OK && p->sample_size < p->class->sample_size && is_of_old_diffusers(config)) p->sample_size = p->class->sample_size;
    json_free(config);
    if (status != TESSERA_OK) return status;
    TRY(open_config(p, p->autoencoder, &config, error));
    status = json_ints(config, "block_out_channels", 1, 1 << 16, blocks, 16, &num_blocks, error);
    json_free(config);
    *scale = (int64_t)1 << (num_blocks > 0 ? num_blocks - 1 : 0);
    return status;
}

/* diffusers' default is to use them where there are any. */
static bool has_bins(const struct pipeline *p) {
    int width = 1, height = 1;
    return p->class->nearest_size != NULL && p->class->nearest_size(p->sample_size, &width, &height);
}

static tessera_status find_defaults(struct pipeline *p, tessera_error *error) {
    int64_t scale;
    TRY(read_sizes(p, &scale, error));
    p->defaults = (tessera_request){
        .struct_size = sizeof(tessera_request),
        .prompt = "",
        .width = (int)(p->sample_size * scale),
        .height = (int)(p->sample_size * scale),
        .num_inference_steps = p->class->num_inference_steps,
        .guidance_scale = p->class->guidance_scale,
        .true_cfg_scale = 1.0f,
        .use_resolution_binning = has_bins(p),
        .num_images = 1,
        .max_sequence_length = p->class->max_sequence_length,
        .strength = p->class->strength,
    };
    struct single_file_marks marks = {0};
    if (p->file != NULL) marks = single_file_marks(p->file);
    if (marks.distilled != NULL) p->defaults.num_inference_steps = marks.steps;
    if (marks.distilled != NULL && !p->class->distilled) p->defaults.guidance_scale = 0.0f;
    return read_generation_defaults(p, error);
}

/* Blocks between this rank's stages. */
static tessera_status list_between(struct pipeline *p, tessera_error *error) {
    p->between = calloc((size_t)p->num_stages, sizeof *p->between);
    if (p->between == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int k = 1; k < p->num_stages; k++) {
        struct span before = stages_blocks(&p->stages[k - 1]), mine = stages_blocks(&p->stages[k]);
        int64_t end = before.first + before.count;
        p->between[k - 1] = (struct span){end, mine.first - end};
    }
    return TESSERA_OK;
}

/* The stages of a device map: a picture goes through them as a whole. */
static tessera_status open_placed(struct pipeline *p, const tessera_mesh *mesh, const struct denoiser *denoiser, tessera_error *error) {
    const int others[] = {mesh->data, mesh->cfg, mesh->patch, mesh->ring, mesh->ulysses, mesh->tensor, mesh->num_pipeline_patch, mesh->parallel_vae + 1};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i] > 1)
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "mesh.map: a device map shares a picture by the model's components and blocks alone: all degrees but "
                             "pipefusion, and num_pipeline_patch, "
                             "must be 1, and parallel_vae false");
    TRY(placed_suits(mesh->map, p, denoiser->num_blocks, team_size(&p->team), error));
    TRY(stages_open_placed(denoiser, mesh->map->placement.blocks, team_rank(&p->team), &p->stages, &p->num_stages, error));
    p->map = mesh->map;
    p->team.stages = p->stages[0].count;
    p->team.choice.patches = 1;
    return list_between(p, error);
}

/* Which blocks this rank runs, and how pictures go through the stages. */
static tessera_status open_stages(struct pipeline *p, const tessera_mesh *mesh, tessera_error *error) {
    int stages = team_degree(&p->team, MESH_PIPEFUSION);
    const struct component *described;
    if (stages == 1 && mesh->num_pipeline_patch <= 1 && mesh->map == NULL) return TESSERA_OK;
    TRY(pipeline_describe(p, p->denoiser, &described, error));
    const struct denoiser *denoiser = described->denoiser;
    if (denoiser == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s is no denoiser, by its config.json", p->folder, p->denoiser);
    if (mesh->map != NULL) return open_placed(p, mesh, denoiser, error);
    TRY(team_set_patches(&p->team, mesh, denoiser->row_unit == 0, error));
    p->stages = calloc(1, sizeof *p->stages);
    if (p->stages == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    p->num_stages = 1;
    return stages_open(denoiser, stages, team_coordinate(&p->team, MESH_PIPEFUSION), mesh->stage_blocks, p->team.shares.stages, p->stages, error);
}

/* A backend for each device that some role lives on. */
static tessera_status open_backends(struct pipeline *p, const tessera_model_options *options, tessera_error *error) {
    const struct tessera_device *devices[PIPELINE_ROLES] = {
        [ROLE_TEXT] = options->text_device, [ROLE_DENOISER] = options->denoiser_device, [ROLE_AUTOENCODER] = options->autoencoder_device};
    for (int role = 0; role < PIPELINE_ROLES; role++) {
        int same = 0;
        if (devices[role] == NULL) devices[role] = options->device;
        while (devices[same] != devices[role]) same++;
        p->backends[role] = same < role ? p->backends[same] : device_open(devices[role], options->kernels, team_threads(&p->team, options->threads), error);
        if (p->backends[role] == NULL) return error->status;
    }
    lora_set_use_threads(p->loras, p->backends[ROLE_DENOISER]->threads);
    return TESSERA_OK;
}

static void close_backends(struct pipeline *p) {
    for (int role = PIPELINE_ROLES - 1; role >= 0; role--) {
        int same = 0;
        while (p->backends[same] != p->backends[role]) same++;
        if (same == role) backend_free(p->backends[role]);
    }
}

static tessera_status open_pipeline(struct pipeline *p, const char *model, const tessera_model_options *options, tessera_error *error) {
    static const tessera_mesh alone = TESSERA_MESH;
    const tessera_mesh *mesh = options->mesh != NULL ? options->mesh : &alone;
    TRY(source_open(p, model, options, error));
    TRY(adapters_open(p, options->loras, options->num_loras, error));
    TRY(find_class(p, error));
    TRY(source_list(p, options, true, error));
    TRY(team_open(&p->team, mesh, error));
    TRY(open_stages(p, mesh, error));
    TRY(find_defaults(p, error));
    if (options->kernels == TESSERA_KERNELS_REPRODUCIBLE) TRY(team_check_reproducible(&p->team, error));
    TRY(open_backends(p, options, error));
    TRY(offload_open(p, options, error));
    p->base_memory = memory_resident();
    return TESSERA_OK;
}

static tessera_status open_described(struct pipeline *p, const char *model, const tessera_model_options *options, tessera_error *error) {
    p->divides_no_sum = options->kernels == TESSERA_KERNELS_REPRODUCIBLE;
    TRY(source_open(p, model, options, error));
    TRY(adapters_open(p, options->loras, options->num_loras, error));
    TRY(find_class(p, error));
    TRY(source_list(p, options, false, error));
    return find_defaults(p, error);
}

tessera_status pipeline_open_described(const char *model, const tessera_model_options *options, struct pipeline **out,
                                       tessera_error *error) {
    *out = NULL;
    struct pipeline *p = calloc(1, sizeof *p);
    if (p == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    p->denoisers = options->denoisers;
    p->num_denoisers = options->num_denoisers;
    tessera_status status = dtype_of_activations(options->dtype, &p->dtype, error);
    if (status == TESSERA_OK) status = open_described(p, model, options, error);
    if (status != TESSERA_OK) {
        pipeline_free(p);
        return status;
    }
    *out = p;
    return TESSERA_OK;
}

tessera_status pipeline_open(const char *model, const tessera_model_options *options, struct pipeline **out, tessera_error *error) {
    static const tessera_model_options standard = TESSERA_MODEL_OPTIONS;
    if (options == NULL) options = &standard;
    *out = NULL;
    struct pipeline *p = calloc(1, sizeof *p);
    if (p == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    p->denoisers = options->denoisers;
    p->num_denoisers = options->num_denoisers;
    p->workers = options->workers;
    p->vae_tiling = options->vae_tiling;
    tessera_status status = dtype_of_activations(options->dtype, &p->dtype, error);
    if (status == TESSERA_OK) status = open_pipeline(p, model, options, error);
    if (status != TESSERA_OK) {
        pipeline_free(p);
        return status;
    }
    *out = p;
    return TESSERA_OK;
}

void pipeline_free(struct pipeline *p) {
    if (p == NULL) return;
    pipeline_forget(p);
    for (int i = 0; i < p->num_slots; i++) {
        pipeline_close_slot(p, &p->slots[i]);
        free(p->slots[i].folder);
        free(p->slots[i].file);
    }
    for (int i = 0; i < PIPELINE_MAX_TOKENIZERS; i++) tokenizer_free(p->tokenizers[i].tokenizer);
    close_backends(p);
    for (int i = 0; i < p->num_stages; i++) stages_free(&p->stages[i]);
    free(p->stages);
    free(p->between);
    team_close(&p->team);
    json_free(p->index);
    adapters_free(p);
    notices_free(&p->notices);
    single_file_close(p->file);
    free(p->folder);
    free(p->name);
    free(p->variant);
    free(p);
}
