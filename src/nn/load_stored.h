/* What stands between a file's tensors and layers; private to loading. All of these keep the
 * loader's first error; tensors are empty after one, and have shapes but no data where layers get
 * none. */
#ifndef TESSERA_NN_LOAD_STORED_H
#define TESSERA_NN_LOAD_STORED_H

#include "nn/loader.h"

/* A tensor that the file lent goes back to it: the layer has a copy. */
void stored_forget(const struct loader *loader, const struct tensor *t);

/* The tensor `name`, its shape and type checked; without data where a recipe makes it (weights.h),
 * too. */
struct tensor stored_find(struct loader *loader, const char *name, int ndim, const int64_t *shape);
/* The type of a matrix: as it is stored, but the computing type where that is narrower (memory is
 * what a converted copy then saves), or where a hook changes the matrix. */
enum dtype stored_matrix_dtype(const struct loader *loader, const char *name, const struct tensor *t);
/* Does what a hook adds to this matrix of stored_find stand beside it? */
bool stored_has_side(const struct loader *loader, const char *name, const struct tensor *t);

/* The following take a tensor of stored_find. The piece of it as `dtype`: lent where it lies in the
 * file as it is wanted, otherwise in the arena. */
struct tensor stored_piece(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype);
/* Writes the piece as `dtype` to `to`, rows `stride` elements apart, as the hook changes it. */
void stored_put(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype, void *to,
                int64_t stride);
/* What the hook adds to the piece: F32, rows `stride` elements apart. */
void stored_put_change(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, float *to, int64_t stride);
/* All of it as `dtype`. */
struct tensor stored_whole(struct loader *loader, const char *name, struct tensor t, enum dtype dtype);
/* All of it as it is stored; in the computing type where blocks cross its rows. */
struct tensor stored_table(struct loader *loader, const char *name, struct tensor t);
/* The parameter "<base>.<parameter>", whole, as `dtype`. */
struct tensor stored_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *parameter, int ndim,
                               const int64_t *shape);
/* The same, kept by a layer. */
struct tensor stored_keep_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *parameter, int ndim,
                                    const int64_t *shape);

#endif
