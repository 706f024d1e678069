/* A run: everything a layer needs to know that is not a weight. Layers and models never ask for more.
 *
 * Activations come from the run's arena. A block of work is bracketed:
 *
 *     size_t scope = run_enter(run);
 *     ... temporaries ...
 *     x = run_leave(run, scope, x);      // all of the scope goes, x stays (moved down to the scope's start)
 *
 * Errors stick: the first one is kept in run->error, and from then on layers return empty tensors (data == NULL) and compute
 * nothing, so models read as formulas and the caller looks once, at run->error.status. */
#ifndef TESSERA_NN_RUN_H
#define TESSERA_NN_RUN_H

#include "backend/backend.h"
#include "base/arena.h"

struct parallel; /* parallel/parallel.h */

struct run {
    struct backend *backend;
    struct arena *arena;
    enum dtype dtype;          /* of activations: F32 or BF16 */
    double operations;         /* multiplications and additions of products, convolutions and attention so far */
    size_t strip_bytes;        /* feature maps of convolutional models larger than this are worked on in strips of rows */
    struct parallel *parallel; /* the other ranks; NULL: this run is alone */
    tessera_error error;
};

size_t run_enter(struct run *run);
struct tensor run_leave(struct run *run, size_t scope, struct tensor keep);
/* As run_leave for several tensors that do not overlap (at most 32); each is moved in place, empty ones stay empty. */
void run_leave_all(struct run *run, size_t scope, struct tensor **keep, int count);

/* An uninitialised tensor in the arena; empty if there was an error or memory is out (which sets run->error). */
struct tensor run_tensor(struct run *run, enum dtype dtype, int ndim, const int64_t *shape);
bool run_failed(const struct run *run);
/* The run's error, copied to the caller's (which may be NULL). */
tessera_status run_status(const struct run *run, tessera_error *error);
/* `out`, or an empty tensor if `status` is a failure (kept in run->error). */
struct tensor run_checked(struct run *run, tessera_status status, struct tensor out);

#endif
