/* See address_limit.h. How much is in use is not asked (the kernel's files say it late and count
 * otherwise): a mapping that nothing may touch is made and taken back. */
#include "base/address_limit.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include "base/error.h"

tessera_status address_limit_check(size_t bytes, tessera_error *error) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return TESSERA_OK;
    void *probe = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (probe == MAP_FAILED)
        return error_set(error, TESSERA_ERROR_MEMORY, "%zu MiB of addresses are needed for libraries, and fewer are left", bytes >> 20);
    munmap(probe, bytes);
    return TESSERA_OK;
}
