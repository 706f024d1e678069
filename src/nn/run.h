/* A run: everything a layer needs to know that is not a weight. Layers and models never ask for
 * more. tessera_model.h has what models see of it. */
#ifndef TESSERA_NN_RUN_H
#define TESSERA_NN_RUN_H

#include "backend/backend.h"
#include "base/arena.h"

struct parallel; /* parallel/parallel.h */

struct run {
    struct backend *backend;
    struct arena *arena;       /* of the backend's memory: backend->ops->arena */
    enum dtype dtype;          /* of activations: F32 or BF16 */
    double operations;         /* multiplications and additions of products, convolutions and attention so far */
    size_t strip_bytes;        /* feature maps of convolutional models larger than this are worked on in strips of rows */
    size_t chunk_bytes;        /* what is local to a token is worked on by so many rows that they take no more (by_rows.h); 0: all at once */
    struct parallel *parallel; /* the other ranks; NULL: this run is alone */
    tessera_error error;
};

/* The run's error, copied to the caller's (which may be NULL). */
tessera_status run_status(const struct run *run, tessera_error *error);
/* A tensor of `from`'s memory in `to`'s: the one way from a device to another, a copy that counts
 * in to->backend->counts.moved. Where both runs are of one backend, the tensor itself. Empty stays
 * empty. */
struct tensor run_move(struct run *to, struct run *from, struct tensor t);
/* `out`, or an empty tensor if `status` is a failure (kept in run->error). */
struct tensor run_checked(struct run *run, tessera_status status, struct tensor out);

#endif
