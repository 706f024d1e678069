/* TESSERA_ISA: it forces a path of our kernels and of oneDNN's, and what a processor lacks or
 * nobody knows is refused by name. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "check.h"

static void check_path(const char *isa, enum cpu_kernels kernels, const char *want) {
    tessera_error error = {0};
    setenv("TESSERA_ISA", isa, 1);
    struct backend *backend = cpu_backend_open(1, kernels, &error);
    CHECK(backend != NULL && strcmp(backend->kernel_path, want) == 0, "TESSERA_ISA=%s: \"%s\", not \"%s\" %s", isa,
          backend != NULL ? backend->kernel_path : "", want, error.message);
    backend_free(backend);
}

static void check_refused(const char *isa, tessera_status status) {
    tessera_error error = {0};
    setenv("TESSERA_ISA", isa, 1);
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error);
    CHECK(backend == NULL && error.status == status && strstr(error.message, isa) != NULL, "TESSERA_ISA=%s: %s", isa, error.message);
    backend_free(backend);
}

int main(void) {
    check_refused("sse9", TESSERA_ERROR_ARGUMENT);
    check_refused("AVX2", TESSERA_ERROR_ARGUMENT);
    check_path("plain", CPU_KERNELS_BEST, "own plain"); /* oneDNN has no such path */
    check_path("plain", CPU_KERNELS_REPRODUCIBLE, "reproducible plain");
    for (int v = CPU_VARIANT_AVX2; v < CPU_VARIANT_COUNT; v++)
        if (!cpu_variant_supported((enum cpu_variant)v)) check_refused(cpu_variant_name((enum cpu_variant)v), TESSERA_ERROR_UNSUPPORTED);
    if (cpu_variant_supported(CPU_VARIANT_AVX2)) check_path("avx2", CPU_KERNELS_OWN, "own avx2");
    /* oneDNN fixes its instructions for the process when it is first asked. */
    if (cpu_variant_supported(CPU_VARIANT_AVX2)) check_path("avx2", CPU_KERNELS_BEST, "onednn avx2 + avx2");
    setenv("TESSERA_ISA", "", 1);
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_OWN, &error);
    enum cpu_variant best = CPU_VARIANT_COUNT - 1;
    while (!cpu_variant_supported(best)) best--;
    CHECK(backend != NULL && strstr(backend->kernel_path, cpu_variant_name(best)) != NULL, "the best one: %s", error.message);
    backend_free(backend);
    return CHECK_REPORT();
}
