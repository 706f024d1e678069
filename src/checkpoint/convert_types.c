/* See convert_types.h. */
#include "checkpoint/convert_types.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/quantize.h"

enum { PIECE = 1 << 18 }; /* numbers: a multiple of every block */

/* Is this a table whose rows are added as they are, and no matrix of a product? Such tables are
 * small, and what they say (every token's place, a block's modulation) reaches every number. */
static bool is_table(const char *name) {
    static const char *const fragments[] = {"pos_embed",  "position_embedding", "positional_embedding",  "relative_attention_bias",
                                            "attn_rel_b", "scale_shift_table",  "text_embedding_padding", "token_type_embedding"};
    for (size_t i = 0; i < sizeof fragments / sizeof *fragments; i++)
        if (strstr(name, fragments[i]) != NULL) return true;
    return false;
}

static bool fits(const struct tensor *t, enum dtype dtype) {
    return dtype_block(dtype) == 1 || (t->ndim > 0 && t->shape[t->ndim - 1] % dtype_block(dtype) == 0);
}

tessera_status convert_type_of(const struct convert_types *types, const char *name, const struct tensor *stored, enum dtype *out,
                               tessera_error *error) {
    *out = stored->dtype;
    if (types == NULL || !dtype_is_weight(stored->dtype)) return TESSERA_OK;
    for (int i = 0; i < types->count; i++) {
        const struct convert_rule *rule = &types->rules[i];
        if (fnmatch(rule->pattern, name, 0) != 0) continue;
        *out = rule->dtype;
        if (fits(stored, rule->dtype)) return TESSERA_OK;
        char shape[TENSOR_MAX_DIMS * 24];
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tensor \"%s\" matches \"%s\", but its rows (shape %s) are no whole blocks of %d numbers, as %s needs",
                         name, rule->pattern, tensor_shape_text(stored->ndim, stored->shape, shape, sizeof shape),
                         (int)dtype_block(rule->dtype), dtype_name(rule->dtype));
    }
    if (types->given && stored->ndim >= 2 && fits(stored, types->dtype) && !is_table(name)) *out = types->dtype;
    return TESSERA_OK;
}

/* Can `dtype` hold these numbers? */
static tessera_status check_range(const char *name, const float *numbers, size_t count, enum dtype dtype, tessera_error *error) {
    float limit = quantize_limit(dtype);
    for (size_t i = 0; i < count; i++) {
        bool narrow = limit > 0 && fabsf(numbers[i]) > limit;
        if (isfinite(numbers[i]) && !narrow) continue;
        if (dtype_is_float(dtype) && !isfinite(numbers[i])) continue; /* it stays what it is */
        return error_set(error, TESSERA_ERROR_FORMAT, "tensor \"%s\": number %zu is %g, which %s cannot hold: keep this tensor in a wider type (--keep)",
                         name, i, (double)numbers[i], dtype_name(dtype));
    }
    return TESSERA_OK;
}

static tessera_status write_pieces(struct safetensors_writer *writer, const char *name, const struct tensor *t, enum dtype dtype, float *wide,
                                   void *narrow, tessera_error *error) {
    for (int64_t done = 0, count = tensor_count(t); done < count; done += PIECE) {
        size_t some = (size_t)(count - done < PIECE ? count - done : PIECE);
        memcpy(narrow, (const char *)t->data + dtype_bytes(t->dtype, done), dtype_bytes(t->dtype, (int64_t)some)); /* it may be misaligned */
        dtype_convert(wide, DTYPE_F32, narrow, t->dtype, some);
        TRY(check_range(name, wide, some, dtype, error));
        dtype_convert(narrow, dtype, wide, DTYPE_F32, some);
        TRY(safetensors_writer_add(writer, narrow, dtype_bytes(dtype, (int64_t)some), error));
    }
    return TESSERA_OK;
}

tessera_status convert_write(struct safetensors_writer *writer, const char *name, const struct tensor *tensor, enum dtype dtype,
                             tessera_error *error) {
    if (tensor->dtype == dtype) return safetensors_writer_add(writer, tensor->data, tensor_bytes(tensor), error);
    float *wide = malloc(PIECE * sizeof *wide);
    void *narrow = malloc(PIECE * sizeof(float)); /* no type is wider */
    tessera_status status = wide != NULL && narrow != NULL
                                ? write_pieces(writer, name, tensor, dtype, wide, narrow, error)
                                : error_set(error, TESSERA_ERROR_MEMORY, "tensor \"%s\": no memory to convert it", name);
    free(wide);
    free(narrow);
    return status;
}
