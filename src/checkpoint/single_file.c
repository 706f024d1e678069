/* From a file to views: for each tensor of the file the layout table says what it becomes, for each
 * tensor that the model asks for there must be one. What the model does not ask for (averaged
 * weights, position ids, noise schedules) is left alone.
 *
 * Each view opens the file anew (a map and a parsed header), so that it belongs to nobody but its
 * component. */
#include "checkpoint/single_file.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/family.h"
#include "checkpoint/layout_apply.h"
#include "checkpoint/published.h"
#include "checkpoint/required.h"

struct single_file {
    char *path, *folder;
    struct safetensors *tensors;
    const struct family *family;
    bool own_config; /* the user gave the folder */
};

/* What building one view needs. */
struct building {
    struct safetensors *file;
    const struct family_place *place;
    const char *folder; /* of the config */
    struct layout *layout;
    struct required required;
    struct weights *view;
};

tessera_status single_file_open(const char *path, const char *config, struct single_file **out, tessera_error *error) {
    *out = NULL;
    const char *published = NULL;
    tessera_status status = TESSERA_OK;
    struct single_file *file = calloc(1, sizeof *file);
    if (file == NULL || (file->path = strdup(path)) == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path);
        goto fail;
    }
    if ((status = safetensors_open(path, &file->tensors, error)) != TESSERA_OK) goto fail;
    if ((status = family_detect(file->tensors, &file->family, error)) != TESSERA_OK) goto fail;
    file->own_config = config != NULL;
    if (config != NULL) {
        file->folder = strdup(config);
        if (file->folder == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path);
    } else {
        status = family_published(file->family, file->tensors, &published, error);
        if (status == TESSERA_OK) status = published_folder(published, &file->folder, error);
    }
    if (status != TESSERA_OK) goto fail;
    *out = file;
    return TESSERA_OK;
fail:
    single_file_close(file);
    return status;
}

void single_file_close(struct single_file *file) {
    if (file == NULL) return;
    safetensors_close(file->tensors);
    free(file->folder);
    free(file->path);
    free(file);
}

const char *single_file_folder(const struct single_file *file) {
    return file->folder;
}

/* The tokenizer folder that FOLDER/tokenizers.json names for `name`; *out stays NULL if there is
 * none. */
static tessera_status find_tokenizer(const char *folder, const char *name, char **out, tessera_error *error) {
    char *path = file_join(folder, "tokenizers.json");
    struct json *list = NULL;
    const char *tokenizer = NULL;
    tessera_status status = path == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its path", folder) : TESSERA_OK;
    if (status == TESSERA_OK && file_exists(path)) status = json_open(path, 0, &list, error);
    if (status == TESSERA_OK && list != NULL) status = json_string(list, name, NULL, &tokenizer, error);
    if (status == TESSERA_OK && tokenizer != NULL) status = published_vocabulary(tokenizer, path, out, error);
    free(path);
    json_free(list);
    return status;
}

tessera_status single_file_folder_of(const struct single_file *file, const char *name, char **out, tessera_error *error) {
    *out = file_join(file->folder, name);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its path", file->folder);
    if (file_is_folder(*out)) return TESSERA_OK;
    free(*out);
    *out = NULL;
    TRY(find_tokenizer(file->folder, name, out, error));
    return *out != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_IO, "%s: has no folder \"%s\"", file->folder, name);
}

bool single_file_has(const struct single_file *file, const char *component) {
    return family_find_place(file->family, file->tensors, component) != NULL;
}

/* ---- configs ---- */

/* A copy of `config` with one count changed. */
static tessera_status set_count(const struct json *config, const char *field, int value, struct json **out, tessera_error *error) {
    cJSON *copy = cJSON_Duplicate(json_root(config), true);
    cJSON_DeleteItemFromObjectCaseSensitive(copy, field);
    cJSON_AddNumberToObject(copy, field, value);
    char *text = cJSON_PrintUnformatted(copy);
    tessera_status status = text != NULL ? json_parse(json_path(config), text, strlen(text), out, error)
                                         : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to change it", json_path(config));
    cJSON_free(text);
    cJSON_Delete(copy);
    return status;
}

/* Puts the counts that the file shows into *config; *changed is whether one differs. */
static tessera_status apply_counts(const struct single_file *file, const struct family_place *place, struct json **config, bool *changed,
                                   tessera_error *error) {
    *changed = false;
    for (int i = 0; i < file->family->count_count && !file->own_config; i++) {
        const struct family_count *count = &file->family->counts[i];
        int64_t published = 0;
        if (strcmp(count->component, place->component) != 0) continue;
        int shown = family_count_in(count, place, file->tensors);
        TRY(json_int(*config, count->field, 0, 0, 4096, &published, error));
        if (shown == 0 || shown == published) continue;
        struct json *edited;
        TRY(set_count(*config, count->field, shown, &edited, error));
        json_free(*config);
        *config = edited;
        *changed = true;
    }
    return TESSERA_OK;
}

tessera_status single_file_config(const struct single_file *file, const char *component, struct json **out, tessera_error *error) {
    *out = NULL;
    const struct family_place *place = family_find_place(file->family, file->tensors, component);
    char *folder;
    bool changed = false;
    if (place == NULL) return TESSERA_OK;
    TRY(single_file_folder_of(file, component, &folder, error));
    tessera_status status = json_open_in(folder, "config.json", out, error);
    if (status == TESSERA_OK) status = apply_counts(file, place, out, &changed, error);
    if (!changed) {
        json_free(*out);
        *out = NULL;
    }
    free(folder);
    return status;
}

/* ---- marks ---- */

static bool contains(const char *text, const char *fragment) {
    return text != NULL && strstr(text, fragment) != NULL;
}

/* The steps that a file's name gives, "sdxl_lightning_8step"; else what both kinds' authors
 * recommend. */
static int distilled_steps(const char *name) {
    const char *step = strcasestr(name, "step");
    const int usual = 4;
    if (step == NULL) return usual;
    while (step > name && (step[-1] == '-' || step[-1] == '_')) step--;
    while (step > name && isdigit((unsigned char)step[-1])) step--;
    int steps = atoi(step);
    return steps >= 1 && steps <= 16 ? steps : usual;
}

/* Turbo (Sauer et al. 2023 and 2024, "Adversarial Diffusion Distillation" and its latent form: SDXL,
 * SD 2.1, SD 3.5 Large) and Lightning (Lin et al. 2024, "SDXL-Lightning") leave no tensor. A flow goes
 * on predicting its velocity. */
static void mark_distilled(const struct single_file *file, struct single_file_marks *marks) {
    static const char *const kinds[] = {"Turbo", "Lightning"}, *const keys[] = {"modelspec.title", "modelspec.architecture"};
    const char *slash = strrchr(file->path, '/'), *name = slash != NULL ? slash + 1 : file->path;
    bool flow = file->family == family_of_pipeline("StableDiffusion3Pipeline");
    if (!flow && !single_file_has(file, "unet")) return;
    for (int i = 0; i < (flow ? 1 : 2) && marks->distilled == NULL; i++) {
        const char *because = strcasestr(name, kinds[i]) != NULL ? "file name" : NULL;
        for (int k = 0; k < 2 && because == NULL; k++) {
            const char *text = safetensors_metadata(file->tensors, keys[k]);
            if (text != NULL && strcasestr(text, kinds[i]) != NULL) because = keys[k];
        }
        if (because == NULL) continue;
        marks->distilled = kinds[i];
        marks->steps = distilled_steps(name);
        if (marks->because == NULL) marks->because = because;
        if (marks->prediction_type == NULL && !flow) marks->prediction_type = strstr(name, "x0") != NULL ? "sample" : "epsilon";
    }
}

struct single_file_marks single_file_marks(const struct single_file *file) {
    struct single_file_marks marks = {0};
    if (file->own_config) return marks;
    const char *spec = safetensors_metadata(file->tensors, "modelspec.prediction_type");
    const char *architecture = safetensors_metadata(file->tensors, "modelspec.architecture");
    const char *trained = safetensors_metadata(file->tensors, "ss_v_parameterization");
    const char *zero = safetensors_metadata(file->tensors, "ss_zero_terminal_snr");
    const struct {
        bool there;
        const char *prediction_type, *because;
    } told[] = {
        {safetensors_find(file->tensors, "v_pred") != NULL, "v_prediction", "v_pred"},
        {contains(spec, "v") && !contains(spec, "eps"), "v_prediction", "modelspec.prediction_type"},
        {contains(spec, "eps"), "epsilon", "modelspec.prediction_type"},
        {contains(trained, "True"), "v_prediction", "ss_v_parameterization"},
        {contains(architecture, "stable-diffusion-v2-768"), "v_prediction", "modelspec.architecture"},
        {contains(architecture, "stable-diffusion-v2-512"), "epsilon", "modelspec.architecture"},
    };
    for (size_t i = 0; i < sizeof told / sizeof *told && marks.prediction_type == NULL; i++) {
        if (!told[i].there) continue;
        marks.prediction_type = told[i].prediction_type;
        marks.because = told[i].because;
    }
    marks.zero_terminal_snr = safetensors_find(file->tensors, "ztsnr") != NULL || contains(zero, "True");
    if (marks.because == NULL && marks.zero_terminal_snr) marks.because = "ztsnr";
    mark_distilled(file, &marks);
    return marks;
}

/* Sets the fields that marks decide in a copy of the configuration. Zero terminal SNR needs the
 * last timestep: trailing spacing, as diffusers' documentation of rescale_betas_zero_snr asks for
 * (Lin et al. 2023, section 3.3); distilled models need it too. */
static cJSON *apply_marks(const cJSON *config, const struct single_file_marks *marks) {
    cJSON *copy = cJSON_Duplicate(config, true);
    static const char prediction[] = "prediction_type", rescale[] = "rescale_betas_zero_snr", spacing[] = "timestep_spacing";
    if (marks->prediction_type != NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(copy, prediction);
        cJSON_AddStringToObject(copy, prediction, marks->prediction_type);
    }
    if (marks->zero_terminal_snr) {
        cJSON_DeleteItemFromObjectCaseSensitive(copy, rescale);
        cJSON_AddBoolToObject(copy, rescale, true);
    }
    if (marks->zero_terminal_snr || marks->distilled != NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(copy, spacing);
        cJSON_AddStringToObject(copy, spacing, "trailing");
    }
    return copy;
}

tessera_status single_file_scheduler(const struct single_file *file, struct json **out, tessera_error *error) {
    struct single_file_marks marks = single_file_marks(file);
    char *folder = NULL, *path = NULL;
    struct json *config = NULL;
    *out = NULL;
    if (marks.prediction_type == NULL && !marks.zero_terminal_snr) return TESSERA_OK;
    TRY(single_file_folder_of(file, "scheduler", &folder, error));
    path = file_join(folder, "scheduler_config.json");
    tessera_status status =
        path != NULL ? json_open(path, 0, &config, error) : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its path", folder);
    if (status == TESSERA_OK) {
        cJSON *changed = apply_marks(json_root(config), &marks);
        char *text = changed != NULL ? cJSON_PrintUnformatted(changed) : NULL;
        status = text != NULL ? json_parse(path, text, strlen(text), out, error)
                              : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to change it", path);
        cJSON_free(text);
        cJSON_Delete(changed);
    }
    json_free(config);
    free(path);
    free(folder);
    return status;
}

/* ---- views ---- */

static tessera_status wrong_shape(const struct building *b, const char *original, const struct required_tensor *wanted,
                                  const struct tensor *stored, tessera_error *error) {
    char have[128], want[128];
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: tensor \"%s\" (\"%s\" in diffusers' layout) has shape %s, but %s/config.json asks for %s: "
                     "give the model's own configs with --config",
                     safetensors_path(b->file), original, wanted->name, tensor_shape_text(stored->ndim, stored->shape, have, sizeof have),
                     b->folder, tensor_shape_text(wanted->ndim, wanted->shape, want, sizeof want));
}

/* Adds to the view what the model asks for of one tensor of the file. */
static tessera_status add_tensor(struct building *b, const struct safetensors_entry *entry, tessera_error *error) {
    struct layout_match matches[LAYOUT_MAX_MATCHES];
    int count = layout_to_diffusers(b->layout, entry->name + strlen(b->place->prefix), matches);
    for (int i = 0; i < count; i++) {
        struct required_tensor *wanted = required_find(&b->required, matches[i].name);
        if (wanted == NULL || wanted->seen) continue;
        struct tensor tensor;
        struct weights_recipe recipe;
        tessera_error local = {0};
        if (layout_apply(&matches[i].change, entry->name, &entry->tensor, &tensor, &recipe, &local) != TESSERA_OK)
            return error_set(error, local.status, "%s: %s", safetensors_path(b->file), local.message);
        if (!required_fits(wanted, &tensor)) return wrong_shape(b, entry->name, wanted, &tensor, error);
        tensor = tensor_reshape(tensor, wanted->ndim, wanted->shape);
        TRY(weights_view_add(b->view, wanted->name, &tensor, recipe.write != NULL ? &recipe : NULL, error));
        wanted->seen = true;
    }
    return TESSERA_OK;
}

/* "X.scale_weight" or "X.weight_scale" of "X.weight" (tensor/scaled_weights.h)? Then "X.weight" is
 * in `weight`. */
static bool is_scale(const char *name, char weight[256]) {
    static const char *const endings[] = {".scale_weight", ".weight_scale"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i]);
        if (length <= ending || strcmp(name + length - ending, endings[i]) != 0) continue;
        return snprintf(weight, 256, "%.*s.weight", (int)(length - ending), name) < 256;
    }
    return false;
}

/* The scale of a whole weight is that of each tensor made of it, whatever the change. */
static tessera_status add_scale(struct building *b, const struct safetensors_entry *entry, const char *weight, tessera_error *error) {
    struct layout_match matches[LAYOUT_MAX_MATCHES];
    int count = layout_to_diffusers(b->layout, weight + strlen(b->place->prefix), matches);
    for (int i = 0; i < count; i++) {
        struct required_tensor *wanted = required_find(&b->required, matches[i].name);
        char name[256];
        if (wanted == NULL) continue;
        size_t length = strlen(wanted->name), ending = strlen("weight");
        if (tensor_count(&entry->tensor) != 1 || length < ending || strcmp(wanted->name + length - ending, "weight") != 0)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" must be one number, the scale of the whole weight",
                             safetensors_path(b->file), entry->name);
        snprintf(name, sizeof name, "%.*sscale_weight", (int)(length - ending), wanted->name);
        TRY(weights_view_add(b->view, name, &entry->tensor, NULL, error));
    }
    return TESSERA_OK;
}

static void write_identity(const struct tensor *source, void *to) {
    float *identity = memset(to, 0, tensor_bytes(source));
    for (int64_t i = 0; i < source->shape[0]; i++) identity[i * source->shape[0] + i] = 1;
}

/* SD3's files may leave out the projection of the pooled state of CLIP-L: then it is the identity. */
static tessera_status add_projection(struct building *b, tessera_error *error) {
    struct required_tensor *wanted = required_find(&b->required, "text_projection.weight");
    if (wanted == NULL || wanted->seen || strstr(b->place->prefix, "clip_l") == NULL || wanted->shape[0] != wanted->shape[1])
        return TESSERA_OK;
    struct tensor tensor = tensor_of(NULL, DTYPE_F32, 2, wanted->shape);
    wanted->seen = true;
    return weights_view_add(b->view, wanted->name, &tensor, &(struct weights_recipe){write_identity, tensor}, error);
}

/* The encoding half of an autoencoder may be missing: then pictures can be decoded only. */
static bool is_optional(const struct building *b, const char *name) {
    return b->place->kind == LAYOUT_VAE && (strncmp(name, "encoder.", 8) == 0 || strncmp(name, "quant_conv.", 11) == 0);
}

static tessera_status check_complete(const struct building *b, tessera_error *error) {
    for (int i = 0; i < b->required.count; i++) {
        const struct required_tensor *wanted = &b->required.tensors[i];
        if (wanted->seen || is_optional(b, wanted->name)) continue;
        struct layout_match original = {0};
        layout_to_original(b->layout, wanted->name, &original);
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: tensor \"%s%s\" (\"%s\" in diffusers' layout) is missing, but %s/config.json asks for it: "
                         "if this is another model, give its configs with --config",
                         safetensors_path(b->file), b->place->prefix, original.name, wanted->name, b->folder);
    }
    return TESSERA_OK;
}

static tessera_status fill_view(struct building *b, tessera_error *error) {
    size_t length = strlen(b->place->prefix);
    for (int i = 0; i < safetensors_count(b->file); i++) {
        const struct safetensors_entry *entry = safetensors_at(b->file, i);
        char weight[256];
        if (strncmp(entry->name, b->place->prefix, length) != 0) continue;
        TRY(is_scale(entry->name, weight) ? add_scale(b, entry, weight, error) : add_tensor(b, entry, error));
    }
    TRY(add_projection(b, error));
    TRY(check_complete(b, error));
    return weights_view_finish(b->view, error);
}

/* The view of `place` in the file `path`, for `config` (which is freed; NULL: the one in `folder`). */
static tessera_status build_view(const char *path, const struct family_place *place, const char *folder, struct json *config,
                                 struct weights **out, tessera_error *error) {
    struct building b = {.place = place, .folder = folder};
    *out = NULL;
    tessera_status status = config == NULL ? json_open_in(folder, "config.json", &config, error) : TESSERA_OK;
    if (status == TESSERA_OK) status = layout_new(place->kind, config, &b.layout, error);
    if (status == TESSERA_OK)
        status = required_read(folder, config, &b.required, error);
    else
        json_free(config);
    if (status == TESSERA_OK) status = weights_view_new(path, &b.view, error);
    if (status == TESSERA_OK) status = safetensors_open(path, &b.file, error);
    if (status == TESSERA_OK) status = weights_view_keep(b.view, b.file, error);
    if (status == TESSERA_OK) status = fill_view(&b, error);
    required_free(&b.required);
    layout_free(b.layout);
    if (status == TESSERA_OK)
        *out = b.view;
    else
        weights_close(b.view);
    return status;
}

tessera_status single_file_weights(const struct single_file *file, const char *component, struct weights **out, tessera_error *error) {
    *out = NULL;
    const struct family_place *place = family_find_place(file->family, file->tensors, component);
    if (place == NULL) {
        char option[64];
        snprintf(option, sizeof option, "%.60s", component);
        for (char *c = option; *c != 0; c++)
            if (*c == '_') *c = '-';
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: holds no weights for \"%s\": give the component with --%s", file->path,
                         component, option);
    }
    char *folder;
    struct json *config;
    TRY(single_file_config(file, component, &config, error));
    tessera_status status = single_file_folder_of(file, component, &folder, error);
    if (status == TESSERA_OK) {
        status = build_view(file->path, place, folder, config, out, error);
        free(folder);
    } else {
        json_free(config);
    }
    return status;
}

/* ---- one component alone ---- */

/* Files that hold one component and nothing else; "" for the component: any. */
static const struct family_place lone_places[] = {
    {"vae", "", LAYOUT_VAE, "decoder.mid.block_1.conv1.weight"},
    {"vae", "first_stage_model.", LAYOUT_VAE, "decoder.mid.block_1.conv1.weight"},
    {"vae", "vae.", LAYOUT_VAE, "decoder.mid.block_1.conv1.weight"},
    {"vae", "", LAYOUT_SAME, "decoder.mid_block.resnets.0.conv1.weight"},
    {"unet", "", LAYOUT_SAME, "down_blocks.0.resnets.0.conv1.weight"},
    {"transformer", "", LAYOUT_SAME, "transformer_blocks.0.attn.to_q.weight"},
    {"transformer", "", LAYOUT_SAME, "transformer_blocks.0.attn1.to_q.weight"},
    {"transformer", "", LAYOUT_SAME, "blocks.0.attn1.to_q.weight"},
    {"", "", LAYOUT_SAME, "text_model.embeddings.token_embedding.weight"},
    {"", "", LAYOUT_SAME, "embeddings.token_embedding.weight"},
    {"", "", LAYOUT_OPENCLIP, "transformer.resblocks.0.attn.in_proj_weight"},
    {"", "", LAYOUT_T5, "enc.blk.0.attn_q.weight"},
    {"", "", LAYOUT_SAME, "encoder.block.0.layer.0.SelfAttention.q.weight"},
};

static const struct family_place *find_lone_place(const struct safetensors *file, const char *component) {
    for (size_t i = 0; i < sizeof lone_places / sizeof *lone_places; i++) {
        const struct family_place *place = &lone_places[i];
        bool text = place->component[0] == 0 && strncmp(component, "text_encoder", 12) == 0;
        if ((text || strcmp(place->component, component) == 0) && family_find_tensor(file, place->prefix, place->probe) != NULL)
            return place;
    }
    return NULL;
}

tessera_status single_file_pipeline(const char *path, char *out, size_t size, tessera_error *error) {
    struct safetensors *file;
    const struct family *family;
    TRY(safetensors_open(path, &file, error));
    tessera_status status = family_detect(file, &family, error);
    if (status == TESSERA_OK) snprintf(out, size, "%.*s", (int)strcspn(family->pipelines, ","), family->pipelines);
    safetensors_close(file);
    return status;
}

tessera_status single_file_component(const char *path, const char *component, const char *folder, struct weights **out,
                                     tessera_error *error) {
    *out = NULL;
    struct safetensors *file;
    const struct family *family;
    TRY(safetensors_open(path, &file, error));
    const struct family_place *place = find_lone_place(file, component);
    if (place == NULL && family_detect(file, &family, NULL) == TESSERA_OK) place = family_find_place(family, file, component);
    safetensors_close(file);
    if (place != NULL) return build_view(path, place, folder, NULL, out, error);
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: holds no weights for \"%s\" in a layout that is known here", path, component);
}
