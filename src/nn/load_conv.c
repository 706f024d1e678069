/* Loading convolutions: kernels [O, I, kh, kw] of a file become [O, kh, kw, I]; of a convolution
 * whose outputs or inputs are divided over ranks this rank loads its slice. */
#include <stdio.h>
#include <string.h>

#include "nn/load_slices.h"

/* [O, I, kh, kw] -> [O, kh, kw, I], element by element of `size` bytes. */
static void reorder_kernel(char *to, const char *from, const int64_t *shape, size_t size) {
    int64_t taps = shape[2] * shape[3], inputs = shape[1];
    for (int64_t o = 0; o < shape[0]; o++, from += (size_t)(inputs * taps) * size) {
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t i = 0; i < inputs; i++, to += size) memcpy(to, from + (size_t)(i * taps + tap) * size, size);
        }
    }
}

/* The type of re-ordered kernels: blocks follow another order, so only numbers that stand alone can
 * stay small. */
static enum dtype kernel_dtype(const struct loader *loader, const char *name, const struct tensor *t) {
    bool saves = dtype_is_small(t->dtype) && dtype_block(t->dtype) == 1;
    return saves ? stored_matrix_dtype(loader, name, t) : loader->dtype;
}

/* Outputs and inputs of the kernels `file`; 1x1 kernels lie in the file in the order that is
 * wanted. */
static struct tensor reordered(struct loader *loader, const char *name, struct tensor file, struct span outputs, struct span inputs) {
    struct load_piece piece = {file.shape, outputs, inputs};
    enum dtype dtype = kernel_dtype(loader, name, &file);
    struct tensor weight = tensor_of(NULL, dtype, SHAPE(outputs.count, file.shape[2], file.shape[3], inputs.count));
    bool in_order = file.shape[2] * file.shape[3] == 1;
    if (!in_order) weight.data = loader_take(loader, tensor_bytes(&weight));
    size_t mark = arena_mark(loader->arena);
    struct tensor stored = stored_piece(loader, name, file, piece, dtype);
    if (load_failed(loader)) return (struct tensor){0};
    if (in_order) {
        weight.data = stored.data;
        return weight;
    }
    reorder_kernel(weight.data, stored.data, stored.shape, dtype_size(weight.dtype));
    stored_forget(loader, &stored);
    arena_release(loader->arena, mark);
    return weight;
}

/* The weights of the convolution `name`, [out, in, kernel, kernel] in the file, or `flat`: [out, in
 * * kernel * kernel]. */
static struct conv slice_conv(struct loader *loader, const char *name, int64_t out, int64_t in, int kernel, bool flat, struct span outputs,
                              struct span inputs) {
    struct conv layer = {.first_input = inputs.first};
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct tensor file = flat ? stored_find(loader, weight_name, SHAPE(out, in * kernel * kernel))
                              : stored_find(loader, weight_name, SHAPE(out, in, kernel, kernel));
    if (file.ndim > 0 && loader_reads(loader)) {
        file = tensor_reshape(file, SHAPE(out, in, kernel, kernel));
        layer.weight = loader_keep(loader, reordered(loader, weight_name, file, outputs, inputs));
    } else if (file.ndim > 0) {
        enum dtype dtype = kernel_dtype(loader, weight_name, &file);
        struct tensor weight = tensor_of(NULL, dtype, SHAPE(outputs.count, kernel, kernel, inputs.count));
        if (kernel > 1 || dtype != file.dtype) loader->converted += tensor_bytes(&weight);
        layer.weight = loader_keep(loader, weight);
    }
    return layer;
}

struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct conv layer = slice_conv(loader, full, out, in, kernel, false, (struct span){0, out}, (struct span){0, in});
    layer.bias = stored_keep_parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct conv load_conv_flat(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct conv layer = slice_conv(loader, full, out, in, kernel, true, (struct span){0, out}, (struct span){0, in});
    layer.bias = stored_keep_parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct conv load_conv_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = load_channels(loader, units, width);
    struct conv layer = slice_conv(loader, full, units * width, in, kernel, false, mine, (struct span){0, in});
    layer.bias = load_vector_slice(loader, full, "bias", units * width, mine);
    return layer;
}

struct conv load_conv_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = load_channels(loader, units, width);
    struct conv layer = slice_conv(loader, full, out, units * width, kernel, false, (struct span){0, out}, mine);
    if (mine.first == 0) layer.bias = stored_keep_parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}
