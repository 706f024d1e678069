/* The registry: from the class name in config.json to the code that knows the class.
 *
 * A diffusers component names its class in "_class_name", a transformers component in "architectures"[0]. A new model is
 * one file and one line here, or comes with the component_source. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "models/registry.h"

static const char autoencoder_class_name[] = "AutoencoderKL";
static const struct denoiser_class *const denoiser_classes[] = {
    &pixart_transformer_class, &sd3_transformer_class, &flux_transformer_class, &hunyuan_transformer_class, &unet_2d_condition_class,
};
static const struct text_encoder_class *const text_encoder_classes[] = {&bert_class, &clip_text_class, &clip_text_with_projection_class,
                                                                        &t5_encoder_class};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* The class name, and in *field where it stands. */
static tessera_status read_class(const struct json *config, const char **name, const char **field, tessera_error *error) {
    *field = "_class_name";
    TRY(json_string(config, "_class_name", NULL, name, error));
    if (*name != NULL) return TESSERA_OK;
    *field = "architectures[0]";
    const struct cJSON *first = cJSON_GetArrayItem(json_find(config, "architectures"), 0);
    if (cJSON_IsString(first)) {
        *name = first->valuestring;
        return TESSERA_OK;
    }
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: no class: neither \"_class_name\" nor \"architectures\" names one; is this a component's folder?",
                     json_path(config));
}

static tessera_status unknown_class(const struct component_source *source, const struct json *config, const char *name, const char *field,
                                    tessera_error *error) {
    char known[512];
    size_t used = (size_t)snprintf(known, sizeof known, "%s", autoencoder_class_name);
    for (size_t i = 0; i < COUNT(denoiser_classes) && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, ", %s", denoiser_classes[i]->name);
    }
    for (int i = 0; i < source->num_denoisers && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, ", %s", source->denoisers[i]->name);
    }
    for (size_t i = 0; i < COUNT(text_encoder_classes) && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, ", %s", text_encoder_classes[i]->name);
    }
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %s is \"%.100s\", a class that is not supported; known are %s",
                     json_path(config), field, name, known);
}

/* Published PixArt folders name the class by what it was when they were made; its "norm_type" tells it from others of that time. */
static const struct denoiser_class *find_denoiser(const struct component_source *source, const char *name) {
    for (int i = 0; i < source->num_denoisers; i++) {
        if (strcmp(name, source->denoisers[i]->name) == 0) return source->denoisers[i];
    }
    if (strcmp(name, "Transformer2DModel") == 0) return &pixart_transformer_class;
    for (size_t i = 0; i < COUNT(denoiser_classes); i++) {
        if (strcmp(name, denoiser_classes[i]->name) == 0) return denoiser_classes[i];
    }
    return NULL;
}

static const struct text_encoder_class *find_text_encoder(const char *name) {
    for (size_t i = 0; i < COUNT(text_encoder_classes); i++) {
        if (strcmp(name, text_encoder_classes[i]->name) == 0) return text_encoder_classes[i];
    }
    return NULL;
}

/* Weights and layers of a component whose config is read. */
static tessera_status open_layers(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error) {
    const char *name = NULL, *field = NULL;
    TRY(read_class(out->config, &name, &field, error));
    const struct denoiser_class *denoiser = find_denoiser(source, name);
    const struct text_encoder_class *text_encoder = find_text_encoder(name);
    bool is_autoencoder = strcmp(name, autoencoder_class_name) == 0;
    if (denoiser == NULL && text_encoder == NULL && !is_autoencoder) return unknown_class(source, out->config, name, field, error);

    bool records = source->hooks != NULL && source->hooks->record != NULL;
    if (out->weights == NULL && !records) TRY(weights_open(source->folder, &out->weights, error));
    out->arena = arena_new(0, error);
    if (out->arena == NULL) return error->status;
    struct loader loader = {.weights = out->weights, .hooks = source->hooks, .share = source->share, .arena = out->arena, .dtype = dtype};
    if (denoiser != NULL) out->denoiser = denoiser->open(out->config, &loader);
    if (text_encoder != NULL) out->text_encoder = text_encoder->open(out->config, &loader);
    if (is_autoencoder) out->autoencoder = autoencoder_kl_open(out->config, &loader);
    out->weight_bytes = loader.bytes;
    return load_failed(&loader) ? error_set(error, loader.error.status, "%s", loader.error.message) : TESSERA_OK;
}

static tessera_status open_config(const char *folder, struct json **out, tessera_error *error) {
    char *path = file_join(folder, "config.json");
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its path", folder);
    tessera_status status = json_open(path, 0, out, error);
    free(path);
    return status;
}

tessera_status component_open(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error) {
    *out = (struct component){.config = source->config, .weights = source->weights};
    tessera_error local = {0};
    tessera_status status = out->config != NULL ? TESSERA_OK : open_config(source->folder, &out->config, &local);
    if (status == TESSERA_OK) status = open_layers(source, dtype, out, &local);
    if (status == TESSERA_OK) return status;
    component_close(out);
    return error_set(error, status, "%s", local.message);
}

static void ask_nothing(void *user, const char *name, int ndim, const int64_t *shape) {
    (void)user, (void)name, (void)ndim, (void)shape;
}

tessera_status component_describe(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error) {
    const struct load_hooks hooks = {.record = ask_nothing};
    struct component_source describing = *source;
    describing.hooks = &hooks;
    return component_open(&describing, dtype, out, error);
}

void component_close(struct component *component) {
    arena_free(component->arena);
    weights_close(component->weights);
    json_free(component->config);
    memset(component, 0, sizeof *component);
}
