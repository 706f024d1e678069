/* Loading layers that a rank has whole: linears, norms, tensors, tables. Every shape is checked.
 * load_slices.c loads slices of layers, load_conv.c convolutions; load_stored.c brings the numbers.
 */
#include <stdio.h>

#include "nn/load_side.h"

struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", full);
    struct tensor whole = stored_find(loader, weight_name, SHAPE(out, in));
    struct linear layer = {.side = load_side(loader, weight_name, &whole, (struct span){0, out}, (struct span[2]){{0, in}, {0}})};
    layer.weight = loader_keep(loader, stored_whole(loader, weight_name, whole, stored_matrix_dtype(loader, weight_name, &whole)));
    if (bias) layer.bias = stored_keep_parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct norm load_norm(struct loader *loader, enum norm_kind kind, int64_t channels, float eps, bool bias, const char *name, ...) {
    FULL_NAME(name);
    struct norm layer = {.kind = kind, .eps = eps};
    layer.weight = stored_keep_parameter(loader, DTYPE_F32, full, "weight", SHAPE(channels));
    if (bias) layer.bias = stored_keep_parameter(loader, DTYPE_F32, full, "bias", SHAPE(channels));
    return layer;
}

struct tensor load_tensor(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape, const char *name, ...) {
    FULL_NAME(name);
    return loader_keep(loader, stored_whole(loader, full, stored_find(loader, full, ndim, shape), dtype));
}

struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) {
    FULL_NAME(name);
    struct tensor table = stored_find(loader, full, SHAPE(rows, columns));
    return loader_keep(loader, stored_table(loader, full, table));
}
