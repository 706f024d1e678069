/* The registry: from the class name in config.json to the code that knows the class.
 *
 * A diffusers component names its class in "_class_name", a transformers component in
 * "architectures"[0]. A new model is one file and one line of the table in denoiser.h, or comes
 * with the component_source. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "models/component.h"

#define CLASS_ADDRESS(class) &class,
static const struct denoiser_class *const denoiser_classes[] = {DENOISER_CLASSES(CLASS_ADDRESS)};
static const struct text_encoder_class *const text_encoder_classes[] = {&bert_class, &clip_text_class, &clip_text_with_projection_class,
                                                                        &t5_encoder_class};

static const struct autoencoder_class *const autoencoder_classes[] = {&autoencoder_kl_class};

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
    size_t used = 0;
    for (size_t i = 0; i < COUNT(autoencoder_classes) && used < sizeof known; i++) {
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", autoencoder_classes[i]->name);
    }
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

/* Published PixArt folders name the class by what it was when they were made; its "norm_type" tells
 * it from others of that time. */
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

static const struct autoencoder_class *find_autoencoder(const char *name) {
    for (size_t i = 0; i < COUNT(autoencoder_classes); i++) {
        if (strcmp(name, autoencoder_classes[i]->name) == 0) return autoencoder_classes[i];
    }
    return NULL;
}

enum component_kind component_kind_of(const char *class_name, const struct denoiser_class *const *denoisers, int num_denoisers) {
    struct component_source source = {.denoisers = denoisers, .num_denoisers = num_denoisers};
    if (find_denoiser(&source, class_name) != NULL) return COMPONENT_DENOISER;
    if (find_text_encoder(class_name) != NULL) return COMPONENT_TEXT_ENCODER;
    return find_autoencoder(class_name) != NULL ? COMPONENT_AUTOENCODER : COMPONENT_NONE;
}

/* Weights that another program packed (GPTQ, torchao, ...) are named before their tensors puzzle
 * anyone. Those of bitsandbytes are read (tensor/scaled_weights.h), or named by their tensors. */
static tessera_status refuse_quantised(const struct json *config, tessera_error *error) {
    const struct cJSON *quantised = json_find(config, "quantization_config");
    if (quantised == NULL) return TESSERA_OK;
    const char *method = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(quantised, "quant_method"));
    if (method != NULL && strcmp(method, "bitsandbytes") == 0) return TESSERA_OK;
    return error_set(
        error, TESSERA_ERROR_UNSUPPORTED,
        "%s: quantization_config: the weights are packed by %.60s, which is not read: take the model's folder in bfloat16 or float16",
        json_path(config), method != NULL ? method : "another program");
}

static tessera_status keep_elsewhere(const struct component_source *source, struct component *out, tessera_error *error) {
    size_t bytes = (size_t)source->num_elsewhere * sizeof *source->elsewhere;
    struct span *copy = bytes > 0 ? arena_alloc(out->arena, bytes) : NULL;
    if (bytes == 0) return TESSERA_OK;
    if (copy == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a list of %d runs of blocks", source->num_elsewhere);
    memcpy(copy, source->elsewhere, bytes);
    out->elsewhere = copy, out->num_elsewhere = source->num_elsewhere;
    return TESSERA_OK;
}

/* The description of a component whose config is read. */
static tessera_status open_layers(const struct component_source *source, struct component *out, tessera_error *error) {
    const char *name = NULL, *field = NULL;
    TRY(read_class(out->config, &name, &field, error));
    const struct denoiser_class *denoiser = find_denoiser(source, name);
    const struct text_encoder_class *text_encoder = find_text_encoder(name);
    const struct autoencoder_class *autoencoder = find_autoencoder(name);
    if (denoiser == NULL && text_encoder == NULL && autoencoder == NULL) return unknown_class(source, out->config, name, field, error);

    bool records = out->hooks.record != NULL;
    if (!records) TRY(refuse_quantised(out->config, error));
    if (out->weights == NULL && !records) TRY(weights_open(source->folder, &out->weights, error));
    out->arena = arena_new(0, error);
    if (out->arena == NULL) return error->status;
    TRY(keep_elsewhere(source, out, error));
    struct loader loader = component_loader(out, LOAD_DESCRIBE, out->arena);
    if (out->scope_only) loader.hooks = &component_asks_nothing;
    if (denoiser != NULL && (out->denoiser = denoiser->open(out->config, &loader)) != NULL) out->num_blocks = out->denoiser->num_blocks;
    if (text_encoder != NULL && (out->text_encoder = text_encoder->open(out->config, &loader)) != NULL)
        out->num_blocks = out->text_encoder->num_blocks;
    if (autoencoder != NULL && (out->autoencoder = autoencoder->open(out->config, &loader)) != NULL) out->num_blocks = AUTOENCODER_SEGMENTS;
    if (load_failed(&loader)) return error_set(error, loader.error.status, "%s", loader.error.message);
    return component_describe_segments(out, error);
}

tessera_status component_open(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error) {
    *out = (struct component){.config = source->config,
                              .weights = source->weights,
                              .scope = source->scope,
                              .scope_only = source->scope_only,
                              .no_embed = source->no_embed,
                              .no_finish = source->no_finish,
                              .dtype = dtype,
                              .backend = source->backend};
    if (source->hooks != NULL) out->hooks = *source->hooks;
    tessera_error local = {0};
    tessera_status status = out->config != NULL ? TESSERA_OK : json_open_in(source->folder, "config.json", &out->config, &local);
    if (status == TESSERA_OK) status = open_layers(source, out, &local);
    if (status == TESSERA_OK) return status;
    component_close(out);
    return error_set(error, status, "%s", local.message);
}

tessera_status component_describe(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error) {
    struct component_source describing = *source;
    describing.hooks = &component_asks_nothing;
    return component_open(&describing, dtype, out, error);
}
