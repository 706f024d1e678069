/* Runs: memory for activations, and the first error of a computation. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_RUNS_H
#define TESSERA_MODEL_RUNS_H

#include "tessera_model/tensors.h"

/* A run holds all that a layer needs beside its weights. Activations come from the run's memory, which
 * a model takes and gives back in scopes:
 *
 *     size_t scope = run_enter(run);
 *     ... temporaries ...
 *     x = run_leave(run, scope, x);      // frees the scope, but keeps x, at the scope's start
 *
 * Errors stick: the run keeps the first one, and from then on layers return empty tensors and compute
 * nothing. So models read as formulas. */
struct run;

size_t run_enter(struct run *run);
struct tensor run_leave(struct run *run, size_t scope, struct tensor keep);
/* As run_leave for several tensors that do not overlap (at most 32); each is moved in place, empty
 * ones stay empty. */
void run_leave_all(struct run *run, size_t scope, struct tensor **keep, int count);
/* An uninitialised tensor; empty if there was an error or memory is out, which then is the run's
 * error. */
struct tensor run_tensor(struct run *run, enum dtype dtype, int ndim, const int64_t *shape);
/* A tensor's elements lie in the memory of the run's backend, which the host must not touch. run_map
 * gives the host a view of the whole tensor, for tables that the host computes. The view is the
 * tensor's own memory where that is the host's, else a copy. MAP_READ waits until the tensor is
 * computed; with MAP_WRITE run_unmap brings the copy to the tensor; MAP_ROOM is memory for the host
 * alone. NULL after an error, and for an empty tensor. */
enum map_use { MAP_ROOM, MAP_READ = 1, MAP_WRITE = 2 };
void *run_map(struct run *run, const struct tensor *t, unsigned use);
/* Ends the view `host` of run_map with the same `use`, after an error too; `host` may be NULL. */
void run_unmap(struct run *run, const struct tensor *t, void *host, unsigned use);
/* Brings a tensor of host memory to the run's memory: a copy, or the tensor itself where the run's
 * memory is the host's. Its owner then keeps it until the run has computed what reads it. A tensor
 * that is there already, and an empty one, stay as they are. */
struct tensor run_upload(struct run *run, struct tensor host);
enum dtype run_dtype(const struct run *run); /* of activations: F32 or BF16 */
bool run_failed(const struct run *run);
tessera_error *run_error(struct run *run); /* to be set; its status says whether it is */

#endif
