/* See scaled_weights.h. The sizes of all tensors that belong together are checked once, when the
 * weight is found; reading then checks nothing. A file's tensors may lie misaligned. */
#include "tensor/scaled_weights.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tensor/dequantize.h"

enum { BLOCK = 64, SCALE_BYTES = 4, NAME_CAPACITY = 640, MAX_STATE = 65536, MAX_NUMBERS = 1 << 20 };

static tessera_status wrong(const struct weights *weights, const char *name, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\": %s", weights_folder(weights), name, what);
}

/* The tensor "<name without `cut` letters><suffix>", if it is there. Every weight asks several
 * times, so nothing is printed here. */
static bool find_beside(const struct weights *weights, const char *name, size_t cut, const char *suffix, struct tensor *out) {
    char full[NAME_CAPACITY];
    size_t length = strlen(name), added = strlen(suffix) + 1;
    if (length < cut || length - cut + added > sizeof full) return false;
    memcpy(full, name, length - cut);
    memcpy(full + length - cut, suffix, added);
    return weights_has(weights, full) && weights_get(weights, full, out, NULL) == TESSERA_OK && out->data != NULL;
}

static bool is_scales(const struct tensor *t, int64_t count) {
    return t->dtype == DTYPE_F32 && tensor_count(t) == count;
}

static enum dtype blocks_of(enum dtype stored) {
    return stored == DTYPE_I8        ? DTYPE_I8_SCALED
           : stored == DTYPE_F8_E4M3 ? DTYPE_F8_E4M3_SCALED
           : stored == DTYPE_F8_E5M2 ? DTYPE_F8_E5M2_SCALED
                                     : DTYPE_F32;
}

/* The type under which the weight is seen: blocks, where no scale ends inside one. */
static void set_view(struct scaled_weight *w, int ndim, const int64_t *shape, enum dtype blocks) {
    w->tensor = tensor_of(w->stored.data, DTYPE_F32, ndim, shape);
    int64_t count = tensor_count(&w->tensor);
    if (count % BLOCK == 0 && (w->numbers % BLOCK == 0 || w->numbers >= count)) w->tensor.dtype = blocks;
}

/* ---- one scale, or one for each row ---- */

/* A lone scale may have any float type. */
static bool take_lone_scale(struct scaled_weight *w) {
    unsigned char bytes[sizeof(float)];
    if (tensor_count(&w->scales) != 1 || !dtype_is_weight(w->scales.dtype) || dtype_block(w->scales.dtype) != 1) return false;
    memcpy(bytes, w->scales.data, dtype_bytes(w->scales.dtype, 1));
    dtype_convert(&w->scale, DTYPE_F32, bytes, w->scales.dtype, 1);
    w->scales = (struct tensor){0};
    return true;
}

static tessera_status read_rows(const struct weights *weights, const char *name, struct scaled_weight *w, tessera_error *error) {
    int64_t rows = w->stored.ndim > 0 ? w->stored.shape[0] : 1, count = tensor_count(&w->stored);
    bool lone = take_lone_scale(w), fits = lone || (w->scales.dtype == DTYPE_F32 && tensor_count(&w->scales) == rows);
    if (count == 0 || !fits)
        return wrong(weights, name, "its scale must be one number for the whole weight, or float32 numbers, one for each row", error);
    w->numbers = lone ? count : count / rows;
    set_view(w, w->stored.ndim, w->stored.shape, blocks_of(w->stored.dtype));
    return TESSERA_OK;
}

static tessera_status check_format(const struct weights *weights, const char *name, tessera_error *error) {
    struct tensor format;
    if (!find_beside(weights, name, 0, "_format", &format)) return TESSERA_OK;
    if (format.dtype == DTYPE_U8 && tensor_count(&format) == 1 && *(const uint8_t *)format.data == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s_format\": only int8 weights in rows (0) are read: save the model with "
                     "bitsandbytes 0.42 or newer", weights_folder(weights), name);
}

/* ---- nf4 ---- */

static tessera_status read_count(const struct json *state, const char *field, int64_t *out, tessera_error *error) {
    TRY(json_int(state, field, 0, 1, MAX_NUMBERS, out, error));
    if (*out > 0 && *out % BLOCK == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s: %lld is no multiple of %d", json_path(state), field, (long long)*out, BLOCK);
}

/* absmax, and what it needs to become float32. */
static tessera_status read_absmax(const struct weights *weights, const char *name, const struct json *state, int64_t blocks,
                                  struct scaled_weight *w, tessera_error *error) {
    if (!find_beside(weights, name, 0, ".absmax", &w->scales) || tensor_count(&w->scales) != blocks)
        return wrong(weights, name, "its absmax is missing, or does not have one number for each block", error);
    if (w->scales.dtype == DTYPE_F32) return TESSERA_OK;
    const cJSON *offset = json_find(state, "nested_offset");
    if (w->scales.dtype != DTYPE_U8 || !cJSON_IsNumber(offset)) return wrong(weights, name, "its absmax is neither float32 nor quantised to 8 bits", error);
    TRY(read_count(state, "nested_blocksize", &w->nested_numbers, error));
    w->offset = (float)offset->valuedouble;
    int64_t nested = (blocks + w->nested_numbers - 1) / w->nested_numbers;
    bool fits = find_beside(weights, name, 0, ".nested_absmax", &w->nested_scales) && is_scales(&w->nested_scales, nested) &&
                find_beside(weights, name, 0, ".nested_quant_map", &w->nested_values) && is_scales(&w->nested_values, 256);
    return fits ? TESSERA_OK : wrong(weights, name, "its nested_absmax or nested_quant_map is missing, or of another size", error);
}

static tessera_status read_shape(const struct weights *weights, const char *name, const struct json *state, int *ndim,
                                 int64_t shape[TENSOR_MAX_DIMS], tessera_error *error) {
    int64_t count = 1;
    TRY(json_ints(state, "shape", 1, (int64_t)1 << 31, shape, TENSOR_MAX_DIMS, ndim, error));
    for (int i = 0; i < *ndim; i++)
        if (__builtin_mul_overflow(count, shape[i], &count) || count > (int64_t)1 << 48)
            return wrong(weights, name, "the shape in its quant_state has more elements than can be addressed", error);
    return *ndim > 0 ? TESSERA_OK : wrong(weights, name, "its quant_state has no shape", error);
}

static tessera_status read_state(const struct weights *weights, const char *name, const struct json *state, struct scaled_weight *w,
                                 tessera_error *error) {
    int64_t shape[TENSOR_MAX_DIMS] = {0};
    int ndim = 0;
    struct tensor map;
    TRY(read_shape(weights, name, state, &ndim, shape, error));
    TRY(read_count(state, "blocksize", &w->numbers, error));
    w->packed = true;
    set_view(w, ndim, shape, DTYPE_NF4);
    int64_t count = tensor_count(&w->tensor);
    if (tensor_bytes(&w->stored) != (size_t)(count + 1) / 2) return wrong(weights, name, "its bytes are not those of the shape in its quant_state", error);
    bool usual = find_beside(weights, name, 0, ".quant_map", &map) && is_scales(&map, 16) && memcmp(map.data, nf4_values, sizeof nf4_values) == 0;
    if (!usual) return wrong(weights, name, "its quant_map is not nf4's", error);
    return read_absmax(weights, name, state, (count + w->numbers - 1) / w->numbers, w, error);
}

static tessera_status read_nf4(const struct weights *weights, const char *name, const struct tensor *text, struct scaled_weight *w,
                               tessera_error *error) {
    char label[NAME_CAPACITY];
    struct json *state;
    snprintf(label, sizeof label, "%.300s: tensor \"%.200s\": quant_state", weights_folder(weights), name);
    if (text->dtype != DTYPE_U8 || tensor_count(text) > MAX_STATE) return wrong(weights, name, "its quant_state is no text", error);
    TRY(json_parse(label, text->data, (size_t)tensor_count(text), &state, error));
    tessera_status status = read_state(weights, name, state, w, error);
    json_free(state);
    return status;
}

/* ---- all of them ---- */

tessera_status scaled_weight_find(const struct weights *weights, const char *name, bool *found, struct scaled_weight *out,
                                  tessera_error *error) {
    static const char weight[] = "weight", fp4[] = ".quant_state.bitsandbytes__fp4", nf4[] = ".quant_state.bitsandbytes__nf4";
    size_t cut = sizeof weight - 1, length = strlen(name);
    struct tensor text;
    *found = false;
    *out = (struct scaled_weight){0};
    if (length < cut || strcmp(name + length - cut, weight) != 0 || !weights_has(weights, name)) return TESSERA_OK;
    TRY(weights_get(weights, name, &out->stored, error));
    *found = true;
    if (find_beside(weights, name, 0, nf4, &text)) return read_nf4(weights, name, &text, out, error);
    if (find_beside(weights, name, 0, fp4, &text))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\": fp4 is not read; of bitsandbytes' types int8 and nf4 are",
                         weights_folder(weights), name);
    if (out->stored.dtype == DTYPE_I8 && find_beside(weights, name, cut, "SCB", &out->scales)) {
        TRY(check_format(weights, name, error));
        return read_rows(weights, name, out, error);
    }
    bool scaled = find_beside(weights, name, cut, "scale_weight", &out->scales) || find_beside(weights, name, cut, "weight_scale", &out->scales);
    if (scaled && dtype_is_weight(out->stored.dtype) && dtype_block(out->stored.dtype) == 1) return read_rows(weights, name, out, error);
    *found = false;
    return TESSERA_OK;
}

/* Number `index` of F32, which may be misaligned. */
static float f32_at(const struct tensor *t, int64_t index) {
    float number;
    memcpy(&number, (const char *)t->data + (size_t)index * sizeof number, sizeof number);
    return number;
}

/* The scale of number `index`, in float32 as bitsandbytes computes it: nested_values[q] *
 * nested_scale, then + offset. */
static float scale_at(const struct scaled_weight *w, int64_t index) {
    int64_t block = index / w->numbers;
    if (w->scales.data == NULL) return w->scale;
    if (w->scales.dtype == DTYPE_F32) return f32_at(&w->scales, block);
    float scaled = f32_at(&w->nested_values, ((const uint8_t *)w->scales.data)[block]) * f32_at(&w->nested_scales, block / w->nested_numbers);
    return scaled + w->offset;
}

static float number_at(const struct scaled_weight *w, int64_t index) {
    const uint8_t *codes = w->stored.data;
    float scale = scale_at(w, index), number;
    if (w->packed) return nf4_values[index % 2 == 0 ? codes[index / 2] >> 4 : codes[index / 2] & 15] * scale;
    if (w->stored.dtype == DTYPE_I8) {
        float scaled = (float)(int8_t)codes[index] * scale;
        return scaled * INT8_STEP;
    }
    unsigned char bytes[sizeof number];
    size_t size = dtype_size(w->stored.dtype);
    memcpy(bytes, codes + (size_t)index * size, size);
    dtype_convert(&number, DTYPE_F32, bytes, w->stored.dtype, 1);
    return number * scale;
}

void scaled_weight_read(const struct scaled_weight *w, int64_t first, int64_t count, void *to) {
    if (w->tensor.dtype == DTYPE_F32) {
        for (int64_t i = 0; i < count; i++) ((float *)to)[i] = number_at(w, first + i);
        return;
    }
    assert(first % BLOCK == 0 && count % BLOCK == 0);
    size_t codes = dtype_bytes(w->tensor.dtype, BLOCK) - SCALE_BYTES;
    const uint8_t *from = (const uint8_t *)w->stored.data + (size_t)(first / BLOCK) * codes;
    uint8_t *block = to;
    for (int64_t i = 0; i < count; i += BLOCK, from += codes, block += SCALE_BYTES + codes) {
        float scale = scale_at(w, first + i);
        memcpy(block, &scale, SCALE_BYTES);
        memcpy(block + SCALE_BYTES, from, codes);
    }
}
