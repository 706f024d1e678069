/* Which backend a device is. */
#include "backend/backend.h"

struct backend *device_open(const struct tessera_device *device, tessera_kernels kernels, int threads, tessera_error *error) {
    if (kernels < TESSERA_KERNELS_BEST || kernels > TESSERA_KERNELS_REPRODUCIBLE)
        error_set(error, TESSERA_ERROR_ARGUMENT, "kernels: %d is none of TESSERA_KERNELS_BEST, _OWN and _REPRODUCIBLE", (int)kernels);
    else if (device != NULL && kernels == TESSERA_KERNELS_REPRODUCIBLE)
        error_set(error, TESSERA_ERROR_ARGUMENT, "device %s has no reproducible kernels; the CPU has them", device->name);
    else
        return device != NULL ? device->open(threads, error) : cpu_backend_open(threads, (enum cpu_kernels)kernels, error);
    return NULL;
}
