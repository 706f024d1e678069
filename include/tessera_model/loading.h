/* Loading: from names in a file to layers. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_LOADING_H
#define TESSERA_MODEL_LOADING_H

#include "tessera_model/layers.h"

/* The loader checks names, shapes and types once, before anything is computed. A matrix whose stored
 * type is no wider than the computing type stays in the mapped file; biases and norm weights become
 * F32. Errors stick, as in runs. Names are printf formats, relative to the prefix.
 *
 * Not all of a layer's units (heads, hidden channels) need be held here. A pair of layers says
 * where that may be: load_linear_outputs leads into the units, load_linear_inputs and nn_linear_sum
 * lead out of them. Tensors between the two have the shapes of the units held here. */
struct loader;

bool load_failed(const struct loader *loader);
tessera_error *load_error(struct loader *loader);
/* In `open`: memory for the model's structs, zeroed; NULL and an error if it does not fit. */
void *load_alloc(struct loader *loader, size_t bytes);
/* Brings a table that was made in host memory to the memory of the model's backend; returns the table
 * itself where that is the host's memory. */
struct tensor load_place(struct loader *loader, struct tensor host);
void load_set_prefix(struct loader *loader, const char *prefix, ...) __attribute__((format(printf, 2, 3)));
/* Does the file have this tensor? Of two spellings of a name ask for the one that published files
 * have, because the answer may be true for every name. */
bool load_has(const struct loader *loader, const char *name, ...) __attribute__((format(printf, 2, 3)));

/* Memory for a table that the model makes itself; it lives as long as the weights that are loaded
 * beside it. Where layers are only described there is no data, and nothing to fill in. */
struct tensor load_made(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape);

/* Weight [out, in] (or [out, in, 1, 1]) at "<name>.weight"; if `bias`, [out] at "<name>.bias". */
struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* How many of `units` (attention heads, hidden channels) are held here. An ARGUMENT error where there
 * are too few to be divided. */
int64_t load_units(struct loader *loader, int64_t units);
/* Which of them it holds. */
struct span load_span(const struct loader *loader, int64_t units);
/* A linear whose outputs are `units` groups of `width` channels: [units held * width, in]. */
struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A linear whose inputs are such groups: [out, units held * width], for nn_linear_sum. */
struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* The same of inputs that are `units` groups of `width`, then `channels` single ones: [out, units
 * held * width + channels held]. */
struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) __attribute__((format(printf, 7, 8)));
/* As load_linear_outputs, of matrix `chunk` of `chunks` that the file keeps one above the other:
 * [chunks * units * width, in]. */
struct linear load_linear_chunk(struct loader *loader, int64_t in, int chunk, int chunks, int64_t units, int64_t width, bool bias,
                                const char *name, ...) __attribute__((format(printf, 8, 9)));
/* [out, in, kernel, kernel] in the file: for dit_embed_picture. */
struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* The same from a matrix [out, in * kernel * kernel], a linear of each token's square, with its
 * channels first. */
struct conv load_conv_flat(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* "<name>.weight" [channels] and, if `bias`, "<name>.bias". */
struct norm load_norm(struct loader *loader, enum norm_kind kind, int64_t channels, float eps, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A norm of `units` groups of `width` channels: those held here. */
struct norm load_norm_slice(struct loader *loader, enum norm_kind kind, int64_t units, int64_t width, float eps, bool bias,
                            const char *name, ...) __attribute__((format(printf, 7, 8)));
/* Any tensor by its full name below the prefix, converted to `dtype`; the shape must match. */
struct tensor load_tensor(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* As stored (for embedding tables), shape checked. */
struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* A tensor that the file holds and nothing computes with. */
void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) __attribute__((format(printf, 4, 5)));

#endif
