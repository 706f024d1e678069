/* A device without hardware: addresses that the host can never follow, and operators that may run late.
 *
 *     addresses  |.......... never accessible ..........|   what tensors hold
 *     memory     |.......... where the bytes are .......|   what the CPU's operators work on
 *
 * Each piece of memory is two mappings of one size. Tensors hold addresses of the first; an
 * operator checks that its tensors lie in live memory of this backend, translates them to the
 * second and calls the CPU's. So any access of the host's to a tensor's bytes is a segmentation
 * fault at the line that does it, and a tensor that was never brought to the device is an error
 * that names the operator.
 *
 * Deferred: operators, uploads and copies queue up, and run when something waits for them
 * (download, synchronize). Code that takes an operator's end for granted then works with what was
 * there before. */
#ifndef TESSERA_TESTS_FENCED_H
#define TESSERA_TESTS_FENCED_H

#include "backend/backend.h"

/* Threads as of cpu_backend_open. Free with backend_free, after all of its memory. */
struct backend *fenced_backend_open(int threads, bool deferred, tessera_error *error);
/* A deferred one, for tessera_model_options. */
extern const struct tessera_device fenced_device;
/* Where the byte at a device address really is, as far as operators have come; NULL if the address
 * is not this backend's. For tests of the fence itself. */
void *fenced_peek(struct backend *backend, const void *address);

#endif
