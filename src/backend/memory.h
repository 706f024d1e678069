/* Tensors between the host's memory and a backend's: the only places where elements cross, each
 * counted in backend->counts.
 *
 * A backend that shares the host's memory moves nothing: a view is the tensor's own memory, and a
 * host tensor serves as it is. */
#ifndef TESSERA_BACKEND_MEMORY_H
#define TESSERA_BACKEND_MEMORY_H

#include "backend/backend.h"

/* The host's view of a whole tensor (MAP_ROOM, MAP_READ, MAP_WRITE or both, of tessera_model.h)
 * until backend_unmap with the same `use`. Several may be open at once; a tensor of host memory is
 * its own view. NULL and `error` where there is no memory for a copy, or computing it failed; NULL
 * of an empty tensor. */
void *backend_map(struct backend *backend, const struct tensor *t, unsigned use, tessera_error *error);
tessera_status backend_unmap(struct backend *backend, const struct tensor *t, void *host, unsigned use, tessera_error *error);
/* Ends a view without bringing what was written to the tensor. */
void backend_drop_view(struct backend *backend, const struct tensor *t, void *host);

/* The elements of `from`, in host memory, into `to`, a tensor of the backend with as many bytes;
 * and the other way. */
tessera_status backend_upload(struct backend *backend, const struct tensor *to, const void *from, tessera_error *error);
tessera_status backend_download(struct backend *backend, void *to, const struct tensor *from, tessera_error *error);
/* Within the backend's memory, of as many bytes; they may overlap. */
void backend_copy(struct backend *backend, const struct tensor *to, const struct tensor *from);
/* The operator copy_rows. */
void backend_copy_rows(struct backend *backend, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows);
void backend_copy_bytes(struct backend *backend, void *to, const void *from, size_t bytes);

/* Does it lie in this backend's memory? */
bool backend_holds(const struct backend *backend, const struct tensor *t);

#endif
