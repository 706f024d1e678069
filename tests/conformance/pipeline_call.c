/* Kind pipeline: what case.json says, in diffusers' names, as a request and as a model's options.
 *
 * Every argument in "call" must be one of the table below: one that is not known would be a case
 * that passes or fails for another reason than the one it was made for, so it is an error. null is
 * diffusers' None: the default. */
#include "pipeline_call.h"

#include <stddef.h>

#include <cjson/cJSON.h>

enum argument_type {
    ARGUMENT_INT,
    ARGUMENT_FLOAT,
    ARGUMENT_BOOL,
    ARGUMENT_PAIR,  /* two integers: (height, width) or (top, left) */
    ARGUMENT_TEXTS, /* negative_prompt: see pipeline_call_negative */
    ARGUMENT_OFF    /* must be false or 0: what the engine does not have */
};

static const struct argument {
    const char *name;
    enum argument_type type;
    size_t field, second; /* offsets in tessera_request; `second` of a pair */
} arguments[] = {
    {"guidance_scale", ARGUMENT_FLOAT, offsetof(tessera_request, guidance_scale), 0},
    {"true_cfg_scale", ARGUMENT_FLOAT, offsetof(tessera_request, true_cfg_scale), 0},
    {"guidance_rescale", ARGUMENT_FLOAT, offsetof(tessera_request, guidance_rescale), 0},
    {"strength", ARGUMENT_FLOAT, offsetof(tessera_request, strength), 0},
    {"clip_skip", ARGUMENT_INT, offsetof(tessera_request, clip_skip), 0},
    {"max_sequence_length", ARGUMENT_INT, offsetof(tessera_request, max_sequence_length), 0},
    {"long_prompt", ARGUMENT_BOOL, offsetof(tessera_request, long_prompt), 0},
    {"num_images_per_prompt", ARGUMENT_INT, offsetof(tessera_request, num_images), 0},
    {"use_resolution_binning", ARGUMENT_BOOL, offsetof(tessera_request, use_resolution_binning), 0},
    {"original_size", ARGUMENT_PAIR, offsetof(tessera_request, original_height), offsetof(tessera_request, original_width)},
    {"crops_coords_top_left", ARGUMENT_PAIR, offsetof(tessera_request, crop_top), offsetof(tessera_request, crop_left)},
    {"target_size", ARGUMENT_PAIR, offsetof(tessera_request, target_height), offsetof(tessera_request, target_width)},
    {"negative_prompt", ARGUMENT_TEXTS, 0, 0},
    {"clean_caption", ARGUMENT_OFF, 0, 0},
    {"eta", ARGUMENT_OFF, 0, 0},
};

static void *field_at(tessera_request *request, size_t offset) {
    return (char *)request + offset;
}

static tessera_status read_int(const struct json *json, const char *path, int *out, tessera_error *error) {
    int64_t value;
    TRY(json_int(json, path, *out, 0, 1 << 16, &value, error));
    *out = (int)value;
    return TESSERA_OK;
}

static tessera_status read_float(const struct json *json, const char *path, float *out, tessera_error *error) {
    double value;
    TRY(json_double(json, path, *out, &value, error));
    *out = (float)value;
    return TESSERA_OK;
}

static tessera_status read_pair(const struct json *json, const char *path, int *first, int *second, tessera_error *error) {
    int64_t values[2];
    int count;
    TRY(json_ints(json, path, 0, 1 << 16, values, 2, &count, error));
    if (count != 2) return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: two integers wanted", json_path(json), path);
    *first = (int)values[0], *second = (int)values[1];
    return TESSERA_OK;
}

static tessera_status read_argument(const struct json *json, const struct cJSON *value, tessera_request *request, tessera_error *error) {
    char path[128];
    snprintf(path, sizeof path, "call.%s", value->string);
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        const struct argument *a = &arguments[i];
        if (strcmp(a->name, value->string) != 0) continue;
        switch (a->type) {
        case ARGUMENT_INT:
            return read_int(json, path, field_at(request, a->field), error);
        case ARGUMENT_FLOAT:
            return read_float(json, path, field_at(request, a->field), error);
        case ARGUMENT_BOOL: {
            bool *field = field_at(request, a->field);
            return json_bool(json, path, *field, field, error);
        }
        case ARGUMENT_PAIR:
            return read_pair(json, path, field_at(request, a->field), field_at(request, a->second), error);
        case ARGUMENT_TEXTS:
            return TESSERA_OK;
        case ARGUMENT_OFF:
            if (cJSON_IsNull(value) || cJSON_IsFalse(value) || (cJSON_IsNumber(value) && value->valuedouble == 0)) return TESSERA_OK;
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: only false or 0 can be compared", json_path(json), path);
        }
    }
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: no argument that the conformance program knows", json_path(json), path);
}

static tessera_status read_picture(const struct case_io *io, const char *name, const tessera_request *request, const uint8_t **out,
                                   tessera_error *error) {
    struct tensor picture = case_tensor(io, name);
    if (picture.data == NULL) return TESSERA_OK;
    if (picture.dtype != DTYPE_U8 || picture.ndim != 3 || picture.shape[0] != request->height || picture.shape[1] != request->width ||
        picture.shape[2] != 3)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s must be U8 [height, width, 3]", json_path(io->json), name);
    *out = picture.data;
    return TESSERA_OK;
}

tessera_status pipeline_call_read(const struct case_io *io, tessera_request *request, tessera_error *error) {
    const struct json *json = io->json;
    const struct cJSON *call = json_find(json, "call"), *value;
    int64_t seed;
    TRY(read_int(json, "width", &request->width, error));
    TRY(read_int(json, "height", &request->height, error));
    TRY(read_int(json, "steps", &request->num_inference_steps, error));
    TRY(read_int(json, "num_images", &request->num_images, error));
    TRY(json_int(json, "seed", 0, 0, INT64_C(1) << 52, &seed, error));
    TRY(json_string(json, "scheduler", NULL, &request->scheduler, error));
    request->seed = (uint64_t)seed;
    if (call != NULL && !cJSON_IsObject(call))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field call: not an object", json_path(json));
    cJSON_ArrayForEach(value, call) {
        TRY(read_argument(json, value, request, error));
    }
    TRY(read_picture(io, "in.control_image", request, &request->control_image, error));
    return read_picture(io, "in.init_image", request, &request->init_image, error);
}

/* Entry `index` of a list of texts, or the one text. */
static tessera_status text_at(const struct json *json, const char *path, int index, const char **out, tessera_error *error) {
    const struct cJSON *value = json_find(json, path);
    if (cJSON_IsArray(value)) value = cJSON_GetArrayItem(value, index);
    *out = cJSON_GetStringValue(value);
    if (*out != NULL || json_find(json, path) == NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: neither a text nor a list with one for prompt %d", json_path(json), path,
                     index);
}

int pipeline_call_prompts(const struct case_io *io) {
    const struct cJSON *prompts = json_find(io->json, "prompts");
    if (prompts == NULL) prompts = json_find(io->json, "prompt");
    return cJSON_IsArray(prompts) ? cJSON_GetArraySize(prompts) : 1;
}

tessera_status pipeline_call_prompt(const struct case_io *io, int index, tessera_request *request, tessera_error *error) {
    const char *path = json_find(io->json, "prompts") != NULL ? "prompts" : "prompt";
    TRY(text_at(io->json, path, index, &request->prompt, error));
    if (request->prompt == NULL) request->prompt = "";
    return text_at(io->json, "call.negative_prompt", index, &request->negative_prompt, error);
}

/* A folder or file of the case, owned by `m`; *out stays NULL where case.json has no such field. */
static tessera_status case_path(const char *folder, const struct json *json, const char *field, struct pipeline_model *m, const char **out,
                                tessera_error *error) {
    const char *relative;
    TRY(json_string(json, field, NULL, &relative, error));
    if (relative == NULL) return TESSERA_OK;
    if (m->num_paths == PIPELINE_MODEL_PATHS)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: more than %d paths", json_path(json), PIPELINE_MODEL_PATHS);
    char *path = file_join(folder, relative);
    m->paths[m->num_paths++] = path;
    *out = path;
    return TESSERA_OK;
}

static tessera_status read_loras(const char *folder, const struct json *json, struct pipeline_model *m, tessera_error *error) {
    const struct cJSON *loras = json_find(json, "loras"), *lora;
    cJSON_ArrayForEach(lora, loras) {
        const char *relative = cJSON_GetStringValue(cJSON_GetObjectItem(lora, "path"));
        const cJSON *scale = cJSON_GetObjectItem(lora, "scale");
        if (relative == NULL || !cJSON_IsNumber(scale) || m->num_paths == PIPELINE_MODEL_PATHS)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field loras: a list of {path, scale} wanted, at most %d", json_path(json),
                             PIPELINE_MODEL_PATHS);
        char *path = file_join(folder, relative);
        m->paths[m->num_paths++] = path;
        m->loras[m->options.num_loras++] =
            (tessera_lora){.struct_size = sizeof(tessera_lora), .path = path, .scale = (float)scale->valuedouble};
    }
    m->options.loras = m->loras;
    return TESSERA_OK;
}

tessera_status pipeline_model_read(const char *folder, const struct case_io *io, struct pipeline_model *m, tessera_error *error) {
    tessera_model_options *o = &m->options;
    TRY(json_bool(io->json, "vae_tiling", false, &o->vae_tiling, error));
    TRY(case_path(folder, io->json, "vae", m, &o->vae, error));
    TRY(case_path(folder, io->json, "text_encoder", m, &o->text_encoder, error));
    TRY(case_path(folder, io->json, "text_encoder_2", m, &o->text_encoder_2, error));
    TRY(case_path(folder, io->json, "text_encoder_3", m, &o->text_encoder_3, error));
    return read_loras(folder, io->json, m, error);
}

void pipeline_model_free(struct pipeline_model *m) {
    for (int i = 0; i < m->num_paths; i++) free(m->paths[i]);
    m->num_paths = 0;
}
