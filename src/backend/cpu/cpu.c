/* The CPU backend's front door: detects the instruction set, fills the operator table, frees it.
 *
 * Our own kernels of the chosen variant fill the table first; then oneDNN takes over products and
 * convolutions, or the reproducible operators take over all arithmetic. */
#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/thread_limit.h"

void kernels_fill_plain(struct backend_ops *ops);
void reproducible_fill_plain(struct backend_ops *ops);
#ifdef BACKEND_X86_VARIANTS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

void kernels_fill_avx2(struct backend_ops *ops);
void kernels_fill_avx512(struct backend_ops *ops);
void kernels_fill_avx512bf16(struct backend_ops *ops);
void kernels_fill_amx(struct backend_ops *ops);
void reproducible_fill_avx2(struct backend_ops *ops);
void reproducible_fill_avx512(struct backend_ops *ops);

/* Tiles of bfloat16, by CPUID; Linux lets a process use them once it has asked for the room that
 * their registers take. */
static bool tiles_permitted(void) {
    enum { ASK_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA of Linux 5.16 */
    const unsigned tiles = 1u << 22 | 1u << 24;       /* AMX-BF16, AMX-TILE */
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tiles) == tiles && syscall(SYS_arch_prctl, ASK_PERMISSION, TILE_DATA) == 0;
}
#endif

bool cpu_variant_supported(enum cpu_variant variant) {
    if (variant == CPU_VARIANT_PLAIN) return true;
#ifdef BACKEND_X86_VARIANTS
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (variant == CPU_VARIANT_AVX2) return avx2;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (variant == CPU_VARIANT_AVX512) return avx512;
    bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    return bf16 && (variant == CPU_VARIANT_AVX512_BF16 || tiles_permitted());
#else
    return false;
#endif
}

const char *cpu_variant_name(enum cpu_variant variant) {
    static const char *const names[CPU_VARIANT_COUNT] = {"plain", "avx2", "avx512", "avx512bf16", "amx"};
    return names[variant];
}

bool cpu_kernels_from_name(const char *name, enum cpu_kernels *out) {
    static const char *const names[] = {"best", "own", "reproducible"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name) != 0) continue;
        *out = (enum cpu_kernels)i;
        return true;
    }
    return false;
}

static void fill_kernels(struct backend_ops *ops, enum cpu_variant variant) {
    switch (variant) {
#ifdef BACKEND_X86_VARIANTS
    case CPU_VARIANT_AMX:
        kernels_fill_amx(ops);
        break;
    case CPU_VARIANT_AVX512_BF16:
        kernels_fill_avx512bf16(ops);
        break;
    case CPU_VARIANT_AVX512:
        kernels_fill_avx512(ops);
        break;
    case CPU_VARIANT_AVX2:
        kernels_fill_avx2(ops);
        break;
#endif
    default:
        kernels_fill_plain(ops);
    }
}

/* bfloat16 instructions round in their own way, so variants that differ in them alone share the
 * same operators. */
static void fill_reproducible(struct backend_ops *ops, enum cpu_variant variant) {
#ifdef BACKEND_X86_VARIANTS
    if (variant >= CPU_VARIANT_AVX512) {
        reproducible_fill_avx512(ops);
        return;
    }
    if (variant == CPU_VARIANT_AVX2) {
        reproducible_fill_avx2(ops);
        return;
    }
#endif
    reproducible_fill_plain(ops);
}

static bool supports(const struct backend *backend, enum backend_product product, enum dtype x, enum dtype w) {
    return x == w;
}

static void cpu_free(struct backend *backend) {
    struct cpu_backend *cpu = (struct cpu_backend *)backend;
    onednn_close(cpu->onednn);
    free(cpu);
}

struct backend *cpu_backend_open_variant(int threads, enum cpu_kernels kernels, enum cpu_variant variant, tessera_error *error) {
    if (threads < 0) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "threads: %d is negative; give 0 for all", threads);
        return NULL;
    }
    if (!cpu_variant_supported(variant)) {
        error_set(error, TESSERA_ERROR_UNSUPPORTED, "this processor has no %s; choose a smaller variant", cpu_variant_name(variant));
        return NULL;
    }
    struct cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "no memory for the CPU backend");
        return NULL;
    }
    cpu->base = (struct backend){
        .ops = &cpu->ops,
        .device = {DEVICE_CPU, 0},
        .shares_host = true,
        .threads = threads > 0 ? threads : threads_available(),
        .free = cpu_free};
    if (thread_limit_check(cpu->base.threads - 1, error) != TESSERA_OK) {
        cpu_free(&cpu->base);
        return NULL;
    }
    fill_kernels(&cpu->plain, variant);
    backend_fill_host_memory(&cpu->plain);
    cpu->plain.supports = supports;
    cpu->base.reproducible = kernels == CPU_KERNELS_REPRODUCIBLE;
    if (cpu->base.reproducible) fill_reproducible(&cpu->plain, variant);
    cpu->ops = cpu->plain;
    if (kernels != CPU_KERNELS_BEST) {
        snprintf(cpu->base.kernel_path, sizeof cpu->base.kernel_path, "%s %s", cpu->base.reproducible ? "reproducible" : "own",
                 cpu_variant_name(variant));
        return &cpu->base;
    }
    if (onednn_open(cpu, error) != TESSERA_OK) {
        cpu_free(&cpu->base);
        return NULL;
    }
    snprintf(cpu->base.kernel_path, sizeof cpu->base.kernel_path, "onednn %s + %s", onednn_isa_name(), cpu_variant_name(variant));
    return &cpu->base;
}

/* The variant that TESSERA_ISA names, or the best one. */
static tessera_status choose_variant(const char *isa, enum cpu_variant *variant, tessera_error *error) {
    int v = CPU_VARIANT_COUNT - 1;
    bool named = isa != NULL && *isa != 0;
    while (v >= 0 && (named ? strcmp(isa, cpu_variant_name((enum cpu_variant)v)) != 0 : !cpu_variant_supported((enum cpu_variant)v))) v--;
    if (v < 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "TESSERA_ISA is \"%.20s\": choose plain, avx2, avx512, avx512bf16 or amx", isa);
    *variant = (enum cpu_variant)v;
    if (cpu_variant_supported(*variant)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "TESSERA_ISA is \"%s\", which this processor does not have; choose a smaller one of "
                     "plain, avx2, avx512, avx512bf16, amx",
                     isa);
}

struct backend *cpu_backend_open(int threads, enum cpu_kernels kernels, tessera_error *error) {
    const char *isa = getenv("TESSERA_ISA");
    enum cpu_variant variant = CPU_VARIANT_PLAIN;
    if (choose_variant(isa, &variant, error) != TESSERA_OK) return NULL;
    if (isa != NULL && *isa != 0 && kernels == CPU_KERNELS_BEST) {
        if (variant == CPU_VARIANT_PLAIN) kernels = CPU_KERNELS_OWN; /* oneDNN is never plain C */
        if (variant != CPU_VARIANT_PLAIN) onednn_limit(variant);
    }
    return cpu_backend_open_variant(threads, kernels, variant, error);
}

size_t cpu_library_bytes(void) {
    enum cpu_variant variant;
    tessera_error ignored = {0};
    bool known = choose_variant(getenv("TESSERA_ISA"), &variant, &ignored) == TESSERA_OK;
    bool large = known && (variant == CPU_VARIANT_AMX || variant == CPU_VARIANT_AVX2); /* oneDNN's code and scratch */
    return (size_t)(large ? 64 : 48) << 20; /* measured by tests/cli/test_budgets.sh */
}

void backend_free(struct backend *backend) {
    if (backend != NULL) backend->free(backend);
}
